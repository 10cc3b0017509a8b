"""Diagonals and triangles of matrices."""

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import arange, full_like, zeros_like
from rl_lab.engine.ops.layout import embed, permute, unsqueeze
from rl_lab.engine.ops.operands import normal_dim
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Tensor, contiguous_strides, view
from rl_lab.engine.types import Gradients


def _diagonal_rule(g: Tensor, node: Node) -> Gradients:
    return embed(g, *node.context)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the elements (k, k + offset) of the two dimensions, for all k, as a new last dimension.

    Raises ShapeError unless the two dimensions differ.
    """
    first = normal_dim(dim1, input.dim())
    second = normal_dim(dim2, input.dim())
    if first == second or input.dim() < 2:
        raise ShapeError(f"diagonal needs two different dimensions of shape {list(input.sizes)}, got {dim1} and {dim2}")
    rows = input.sizes[first]
    columns = input.sizes[second]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    rest = [d for d in range(input.dim()) if d not in (first, second)]
    shape = (*[input.sizes[d] for d in rest], length)

    def where_in(strides: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        start = offset * strides[second] if offset >= 0 else -offset * strides[first]
        return (*[strides[d] for d in rest], strides[first] + strides[second]), start if length else 0

    strides, start = where_in(input.stride())
    dense, begin = where_in(contiguous_strides(input.sizes))
    out = view(input, shape, strides, input.offset + start)
    return attach(out, _diagonal_rule, (input,), context=(input.sizes, (shape, dense, begin)))


_diagonal_of = diagonal


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or a matrix with this vector on its diagonal. Raises ShapeError for other tensors."""
    if input.dim() == 2:
        return _diagonal_of(input, diagonal)
    if input.dim() != 1:
        raise ShapeError(f"diag takes a vector or a matrix, got shape {list(input.sizes)}")
    return diag_embed(input, diagonal)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros with the last dimension of ``input`` on their diagonals. ``dim1`` and ``dim2`` are the matrices' dimensions.

    Raises ShapeError unless the two dimensions differ.
    """
    rank = input.dim() + 1
    first = normal_dim(dim1, rank)
    second = normal_dim(dim2, rank)
    if first == second:
        raise ShapeError(f"diag_embed needs two different dimensions, got {dim1} and {dim2}")
    if (first, second) != (rank - 2, rank - 1):
        rest = iter(range(rank - 2))
        order = [rank - 2 if d == first else rank - 1 if d == second else next(rest) for d in range(rank)]
        return permute(diag_embed(input, offset), order)
    length = input.sizes[-1]
    size = length + abs(offset)
    shape = (*input.sizes[:-1], size, size)
    strides = contiguous_strides(shape)
    start = offset if offset >= 0 else -offset * size
    return embed(input, shape, ((*input.sizes[:-1], length), (*strides[:-2], size + 1), start))


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    """x with zeros above (``lower``) or below a diagonal. Raises ShapeError for fewer than 2 dimensions."""
    if x.dim() < 2:
        raise ShapeError(f"tril and triu need a tensor of at least 2 dimensions, got shape {list(x.sizes)}")
    above = unsqueeze(arange(x.sizes[-2]) + diagonal, 1)
    columns = arange(x.sizes[-1])
    keep = columns <= above if lower else columns >= above
    return where(keep, x, zeros_like(x) if x.dtype is not int64 else full_like(x, 0))


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros above a diagonal: their lower triangles. Raises ShapeError for fewer than 2 dimensions."""
    return _triangle(input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros below a diagonal: their upper triangles. Raises ShapeError for fewer than 2 dimensions."""
    return _triangle(input, diagonal, False)


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    return diagonal(input).sum()
