"""Names of buffers that a kernel may find to be not finite, so that a fault in a recorded program can be named."""

import itertools
import weakref
from collections.abc import Callable

from rl_lab.engine.errors import NumericalError
from rl_lab.engine.launch import unrecorded

Explain = Callable[[str], NumericalError]
"""From the name of a buffer that is not finite to the error to raise."""


class Listing:
    """The names of the buffers that one launch of `rl_lab.engine.kernels.optimizer.first_not_finite` looks at, in its order."""

    def __init__(self, names: tuple[str, ...], explain: Explain):
        self.names = names
        self.explain = explain
        self.number = next(_numbers)
        _listings[self.number] = self


_numbers = itertools.count(1)
_listings: weakref.WeakValueDictionary[int, Listing] = weakref.WeakValueDictionary()


def error(listing: int, index: int) -> NumericalError:
    """The error for buffer ``index`` of a listing, by the listing's number."""
    found = _listings.get(listing)
    if found is None:
        return NumericalError("a number is not finite")
    with unrecorded():  # the search for the cause reads the values of tensors
        return found.explain(found.names[index])
