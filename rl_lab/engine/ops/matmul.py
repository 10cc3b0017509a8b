"""Matrix products. Transposed operands are read in place, so the gradients of a product are products without copies."""

import math
from typing import TYPE_CHECKING, Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import matmul as kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.operands import broadcast_shape, fit
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import contiguous_strides, empty

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


def _matrix_layout(x: Any, batch: tuple[int, ...]) -> tuple[Any, bool, int]:
    """A tensor whose last two dimensions lie row by row or column by column, which of the two, and its batch stride."""
    strides, rows, columns = x.stride(), x.shape[-2], x.shape[-1]
    if x.strides is None or (strides[-1] == 1 and strides[-2] == columns):
        transposed = False
    elif strides[-2] == 1 and strides[-1] == rows:
        transposed = True
    else:
        with tape.no_grad():
            x = x.contiguous()
        strides, transposed = x.stride(), False
    if not batch:
        return x, transposed, 0
    if math.prod(x.shape[:-2]) == 1:
        return x, transposed, 0
    expected = contiguous_strides(x.shape)[:-2]
    if x.shape[:-2] != batch or strides[:-2] != expected:
        with tape.no_grad():
            x = x.expand((*batch, rows, columns)).contiguous()
        transposed = False
    return x, transposed, rows * columns


def _product(a: Any, b: Any) -> Any:
    """The product of tensors of at least two dimensions, off the tape."""
    n, k, m = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = broadcast_shape(a.shape[:-2], b.shape[:-2]) if len(a.shape) > 2 or len(b.shape) > 2 else ()
    out = empty((*batch, n, m))
    if k == 0:
        with tape.no_grad():
            return out.zero_()
    a, a_transposed, a_step = _matrix_layout(a, batch)
    b, b_transposed, b_step = _matrix_layout(b, batch)
    if a_transposed and b_transposed:
        with tape.no_grad():
            a, a_transposed = a.contiguous(), False
    kernel = kernels.matmul_tn if a_transposed else kernels.matmul_nt if b_transposed else kernels.matmul
    launch(kernel, (out, a, b), (math.prod(batch), n, k, m, a_step, b_step))
    return out


def _matmul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(_matmul(g, b.transpose(-2, -1)), shape_a) if node.wants(0) else None,
        fit(_matmul(a.transpose(-2, -1), g), shape_b) if node.wants(1) else None,
    )


def _matmul(a: Any, b: Any) -> Any:
    saved = (a if b.needs_grad else None, b if a.needs_grad else None) if tape.modes.grad else ()
    return attach(_product(a, b), _matmul_rule, (a, b), saved, (a.shape, b.shape))


def matmul(a: Any, b: Any) -> "Tensor":
    """The matrix product; vectors count as a row on the left and a column on the right, further dimensions as a batch."""
    if a.dtype is not float32 or b.dtype is not float32:
        raise DtypeError(f"matmul takes float32 tensors, got {a.dtype.name} and {b.dtype.name}")
    if not a.shape or not b.shape:
        raise ShapeError(f"both arguments of matmul need at least 1 dimension, got shapes {list(a.shape)} and {list(b.shape)}")
    if a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
        raise ShapeError(f"shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied: the inner sizes differ")
    if len(a.shape) > 1 and len(b.shape) > 1:
        return _matmul(a, b)
    left = a.unsqueeze(0) if len(a.shape) == 1 else a
    right = b.unsqueeze(1) if len(b.shape) == 1 else b
    out = _matmul(left, right)
    if len(b.shape) == 1:
        out = out.squeeze(-1)
    return out.squeeze(-1 if len(b.shape) == 1 else -2) if len(a.shape) == 1 else out


def _fixed_rank(name: str, rank_a: int, rank_b: int):
    def product(a: Any, b: Any) -> Any:
        if len(a.shape) != rank_a or len(b.shape) != rank_b:
            raise ShapeError(f"{name} takes {rank_a} and {rank_b} dimensions, got shapes {list(a.shape)} and {list(b.shape)}")
        return matmul(a, b)

    product.__name__ = name
    return product


mm, bmm, mv, dot = _fixed_rank("mm", 2, 2), _fixed_rank("bmm", 3, 3), _fixed_rank("mv", 2, 1), _fixed_rank("dot", 1, 1)


def outer(a: Any, b: Any) -> "Tensor":
    """The products of all pairs of elements of two vectors."""
    return a.unsqueeze(1) * b.unsqueeze(0)


class MatmulMethods:
    """The methods of Tensor that multiply matrices."""

    __slots__ = ()

    matmul, mm, bmm, mv, dot, outer = matmul, mm, bmm, mv, dot, outer

    def __matmul__(self, other: Any) -> "Tensor":
        return matmul(self, other)
