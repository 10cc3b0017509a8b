"""Types of arguments that many operations share, for annotations."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Protocol, SupportsIndex, TypeAlias

import numpy as np

from rl_lab.engine.tensor import Tensor

Scalar: TypeAlias = bool | int | float | np.number | np.bool_
"""A number of Python or NumPy."""

Operand: TypeAlias = Tensor | Scalar | np.ndarray
"""One side of arithmetic."""

Data: TypeAlias = Operand | Sequence[object]
"""Values of a new tensor: numbers, tensors and arrays, or nested sequences of them."""

Sizes: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
"""One size of a shape, or all of them: ``f(2, 3)`` and ``f((2, 3))`` are the same call."""

Dims: TypeAlias = int | Sequence[int] | None
"""The dimensions to work along. None or an empty sequence means all dimensions."""

Index: TypeAlias = SupportsIndex | slice | EllipsisType | np.ndarray | Sequence[object] | None
"""What may stand in ``x[...]``: integers, slices, ``...``, None, tensors, masks, or a sequence of these."""


class Binary(Protocol):
    """A function of two operands that broadcast."""

    __name__: str
    __qualname__: str

    def __call__(self, input: Operand, other: Operand) -> Tensor: ...


Gradients: TypeAlias = Tensor | tuple[Tensor | None, ...] | None
"""The result of a gradient rule: the gradient of the only input, or one gradient (None if unwanted) per input."""
