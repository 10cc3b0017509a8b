"""`LatestPair`: the latest argument and result of a function, found again by their identity."""

import weakref
from typing import Any

from rl_lab.engine.launch import recorder
from rl_lab.engine.tensor import Tensor


class LatestPair:
    """Remember the latest x and y = f(x), so that f and its inverse can return the tensor that they started from.

    The pair refers weakly to the one of the two that was computed last: when this tensor is dropped, so is the pair. A recorded function
    finds only a pair of the same recording, because a replay does not run the Python code that would update the pair. Copies and pickles
    are empty.
    """

    __slots__ = ("_given", "_recorder", "_result", "_result_is_y")

    def __init__(self) -> None:
        self._given: Tensor | None = None
        self._result: weakref.ref[Tensor] | None = None
        self._result_is_y = True
        self._recorder: weakref.ref[Any] | None = None

    def put(self, x: Tensor, y: Tensor, result_is_y: bool) -> None:
        """Remember a pair: ``y`` was computed from ``x`` or, unless ``result_is_y``, ``x`` from ``y``."""
        current = recorder()

        def forget(result: "weakref.ref[Tensor]") -> None:
            if self._result is result:
                self._given = self._result = None

        self._given = x if result_is_y else y
        self._result = weakref.ref(y if result_is_y else x, forget)
        self._result_is_y = result_is_y
        self._recorder = None if current is None else weakref.ref(current)

    def _pair(self) -> tuple[Tensor | None, Tensor | None]:
        result = None if self._result is None else self._result()
        if result is None or recorder() is not (None if self._recorder is None else self._recorder()):
            return None, None
        return (self._given, result) if self._result_is_y else (result, self._given)

    def y_of(self, x: Tensor) -> Tensor | None:
        """The y of the remembered pair if ``x`` is its x, else None."""
        known, y = self._pair()
        return y if x is known else None

    def x_of(self, y: Tensor) -> Tensor | None:
        """The x of the remembered pair if ``y`` is its y, else None."""
        x, known = self._pair()
        return x if y is known else None

    def __reduce__(self) -> tuple[type["LatestPair"], tuple[()]]:
        return LatestPair, ()
