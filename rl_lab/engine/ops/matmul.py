"""Matrix products. Transposed operands are read in place, so the gradients of a product are products without copies."""

import math
from typing import TYPE_CHECKING, Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import matmul as kernels
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.launch import launch, launch_parts
from rl_lab.engine.ops.operands import broadcast_shape, elementwise_into, fit
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import contiguous_strides, empty

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

TWO_BLOCKS, FOUR_BLOCKS = 1_000_000, 16_000_000  # multiply-adds from which a product is cut: below, waking a core costs more
PRODUCTS_A_CYCLE = 16  # multiply-adds of one core, about


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
    if a.strides is None and b.strides is None and len(a.shape) == 2 and len(b.shape) == 2 and a.shape[1]:
        return _multiply(kernels.matmul, a, b, a.shape[0], a.shape[1], b.shape[1])
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
    if not batch:
        return _multiply(kernel, a, b, n, k, m)
    launch(kernel, (out, a, b), (math.prod(batch), n, k, m, a_step, b_step))
    return out


def blocks_of(n: int, k: int, m: int) -> int:
    """Into how many parts a product is cut: by its size alone, because a part can differ in the last bit from the whole."""
    size = n * k * m
    return 1 if size < TWO_BLOCKS else 2 if size < FOUR_BLOCKS else 4


def _multiply(kernel: Any, a: Any, b: Any, n: int, k: int, m: int) -> Any:
    """The product of two matrices whose memory lies as the kernel reads it; large ones in parts for several cores."""
    out = empty((n, m))
    blocks = blocks_of(n, k, m)
    if blocks == 1:
        launch(kernel, (out, a, b), (1, n, k, m, 0, 0))
        return out
    along_sum = kernel is kernels.matmul_tn  # whose columns are no contiguous part of a
    cuts = [t * (k if along_sum else n) // blocks for t in range(blocks + 1)]
    sums = [out] + [empty((n, m)) for _ in range(blocks - 1)] if along_sum else []
    parts: list[Any] = []
    for t, (low, high) in enumerate(zip(cuts, cuts[1:], strict=False)):
        if along_sum:
            parts.append(((sums[t], a, b), (0, low * n, low * m), (1, n, high - low, m, 0, 0)))
        else:
            parts.append(((out, a, b), (low * m, low * k, 0), (1, high - low, k, m, 0, 0)))
    launch_parts(kernel, parts, n * k * m // PRODUCTS_A_CYCLE)
    for part in sums[1:]:
        elementwise_into(add_into, out, part)
    return out


def _matmul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    plain = not tape.modes.grad and g.strides is None and len(shape_a) == 2 and len(shape_b) == 2 and 0 not in g.shape
    if node.wants(0):
        if plain and b.strides is None:
            to_a = _multiply(kernels.matmul_nt, g, b, g.shape[0], g.shape[1], shape_a[1])
        else:
            to_a = fit(_matmul(g, b.transpose(-2, -1)), shape_a)
    if node.wants(1):
        if plain and a.strides is None:
            to_b = _multiply(kernels.matmul_tn, a, g, shape_b[0], g.shape[0], g.shape[1])
        else:
            to_b = fit(_matmul(a.transpose(-2, -1), g), shape_b)
    return to_a, to_b


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


def _linear_rule(g, node):
    x, weight = node.saved
    has_bias = node.context
    to_x = to_weight = to_bias = None
    if node.wants(0):
        to_x = _matmul(g, weight)
    if node.wants(1):
        rows, inputs = (g, x) if len(x.shape) == 2 else (g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1]))
        if not tape.modes.grad and rows.strides is None and inputs.strides is None and rows.shape[0]:
            to_weight = _multiply(kernels.matmul_tn, rows, inputs, weight.shape[0], rows.shape[0], weight.shape[1])
        else:
            to_weight = _matmul(rows.transpose(0, 1), inputs)
    if has_bias and node.wants(2):
        to_bias = g.sum_to_size(weight.shape[:1])
    return (to_x, to_weight, to_bias) if has_bias else (to_x, to_weight)


def linear(x: Any, weight: Any, bias: Any = None) -> "Tensor":
    """x @ weight.T + bias; weight is (out, in), x (..., in), bias (out,), the result (..., out)."""
    if x.dtype is not float32 or weight.dtype is not float32:
        raise DtypeError(f"linear takes float32 tensors, got {x.dtype.name} and {weight.dtype.name}")
    if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear: input of shape {list(x.shape)} and weight of shape {list(weight.shape)} do not fit")
    if len(x.shape) == 1 or weight.strides is not None or not weight.shape[1]:
        out = matmul(x, weight.t())
        return out if bias is None else out + bias
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias of shape {list(bias.shape)} and weight of shape {list(weight.shape)} do not fit")
    with tape.no_grad():
        rows = x if x.strides is None else x.contiguous()
    features, inputs = weight.shape
    out = _multiply(kernels.matmul_nt, rows, weight, math.prod(x.shape[:-1]), inputs, features)
    if len(x.shape) > 2:
        out.shape = (*x.shape[:-1], features)
    if bias is not None:
        elementwise_into(add_into, out, bias)
    if not tape.modes.grad:
        return out
    saved = (x if weight.needs_grad else None, weight)
    return attach(out, _linear_rule, (x, weight) if bias is None else (x, weight, bias), saved, bias is not None)


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
