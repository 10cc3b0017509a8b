"""Diagonals and triangles of matrices."""

from typing import Any

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import arange, full_like, zeros_like
from rl_lab.engine.ops.layout import embed, unsqueeze
from rl_lab.engine.ops.operands import normal_dim
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, contiguous_strides, view


def _diagonal_rule(g, node):
    return embed(g, *node.context)


def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the elements whose places along the two dimensions differ by ``offset``, as a new last dimension."""
    first, second = normal_dim(dim1, x.dim()), normal_dim(dim2, x.dim())
    if first == second or x.dim() < 2:
        raise ShapeError(f"diagonal needs two dimensions of shape {list(x.shape)}, got {dim1} and {dim2}")
    rows, columns = x.shape[first], x.shape[second]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    rest = [d for d in range(x.dim()) if d not in (first, second)]
    shape = (*[x.shape[d] for d in rest], length)

    def where_in(strides: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        start = offset * strides[second] if offset >= 0 else -offset * strides[first]
        return (*[strides[d] for d in rest], strides[first] + strides[second]), start if length else 0

    strides, start = where_in(x.stride())
    dense, begin = where_in(contiguous_strides(x.shape))
    out = view(x, shape, strides, x.offset + start)
    return attach(out, _diagonal_rule, (x,), context=(x.shape, (shape, dense, begin)))


_diagonal_of = diagonal


def diag(x: Any, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or a matrix with this vector on its diagonal."""
    if x.dim() == 2:
        return _diagonal_of(x, diagonal)
    if x.dim() != 1:
        raise ShapeError(f"diag takes a vector or a matrix, got shape {list(x.shape)}")
    return diag_embed(x, diagonal)


def diag_embed(x: Any, offset: int = 0) -> Tensor:
    """Matrices of zeros with the last dimension on their diagonals."""
    size, length = x.shape[-1] + abs(offset), x.shape[-1]
    shape = (*x.shape[:-1], size, size)
    strides = contiguous_strides(shape)
    start = offset if offset >= 0 else -offset * size
    return embed(x, shape, ((*x.shape[:-1], length), (*strides[:-2], size + 1), start))


def _triangle(x: Any, diagonal: int, lower: bool) -> Any:
    if x.dim() < 2:
        raise ShapeError(f"a triangle needs at least 2 dimensions, got shape {list(x.shape)}")
    above = unsqueeze(arange(x.shape[-2]) + diagonal, 1)
    columns = arange(x.shape[-1])
    keep = columns <= above if lower else columns >= above
    return where(keep, x, zeros_like(x) if x.dtype is not int64 else full_like(x, 0))


def tril(x: Any, diagonal: int = 0) -> Tensor:
    """The lower triangles, up to a diagonal, of matrices; zeros above."""
    return _triangle(x, diagonal, True)


def triu(x: Any, diagonal: int = 0) -> Tensor:
    """The upper triangles, from a diagonal on, of matrices; zeros below."""
    return _triangle(x, diagonal, False)


def trace(x: Any) -> Tensor:
    """The sum of a matrix' diagonal."""
    return diagonal(x).sum()
