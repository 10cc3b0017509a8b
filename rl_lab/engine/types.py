"""Types of arguments that many operations share, for annotations."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Protocol, SupportsIndex

import numpy as np

from rl_lab.engine.tensor import Tensor

Scalar = bool | int | float | np.number | np.bool_
"""A number of Python or NumPy."""

Operand = Tensor | Scalar | np.ndarray
"""One side of arithmetic."""

Data = Operand | Sequence[object]
"""Values of a new tensor: numbers, tensors and arrays, or nested sequences of them."""

Sizes = SupportsIndex | Sequence[SupportsIndex]
"""One size of a shape, or all of them: ``f(2, 3)`` and ``f((2, 3))`` are the same call."""

Dims = int | Sequence[int] | None
"""The dimensions to work along. None or an empty sequence means all dimensions."""

Index = SupportsIndex | slice | EllipsisType | None | np.ndarray | Sequence[object]
"""What may stand in ``x[...]``: integers, slices, ``...``, None, tensors, masks, or a sequence of these."""


class Binary(Protocol):
    """A function of two operands that broadcast."""

    __name__: str
    __qualname__: str

    def __call__(self, input: Operand, other: Operand) -> Tensor: ...


Gradients = Tensor | None | tuple[Tensor | None, ...]
"""The result of a gradient rule: the gradient of the only input, or one gradient (None if unwanted) per input."""
