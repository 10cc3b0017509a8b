"""Matrix products. Transposed operands are read in place, so the gradients of a product are products without copies."""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import matmul as matmul_kernels
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.kernels.matmul import A_TRANSPOSED, ADD, B_TRANSPOSED, NOTHING, PLAIN, takes_tiles
from rl_lab.engine.kernels.tiles import WIDTH
from rl_lab.engine.launch import launch, launch_parts
from rl_lab.engine.ops.operands import broadcast_shape, elementwise_into, fit
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, contiguous_strides, empty, owned

TWO_BLOCKS, FOUR_BLOCKS = 1_000_000, 16_000_000  # multiply-adds from which a product is cut: below, waking a core costs more
PRODUCTS_A_CYCLE = 16  # multiply-adds of one core, about
TRANSFER = 16  # multiply-adds that take as long as a number on its way from core to core
MANY_ROWS = 64  # from which a product is cut by its rows, so that each core goes on with the rows that it made


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
        return _multiply(PLAIN, a, b, a.shape[0], a.shape[1], b.shape[1])
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
    layout = A_TRANSPOSED if a_transposed else B_TRANSPOSED if b_transposed else PLAIN
    if not batch:
        return _multiply(layout, a, b, n, k, m)
    _launch(layout, out, a, b, None, math.prod(batch), n, k, m, a_step, b_step)
    return out


def _launch(
    layout: int, out: Any, a: Any, b: Any, bias: Any, batch: int, n: int, k: int, m: int, a_step: int = 0, b_step: int = 0
) -> None:
    extra, end = (b, NOTHING) if bias is None else (bias, ADD)
    if not takes_tiles(layout, n, k, m):
        launch(matmul_kernels.matmul_blas, (out, a, b, extra), (batch, n, k, m, a_step, b_step, layout, end))
        return
    distances = (n if layout == A_TRANSPOSED else k, k if layout == B_TRANSPOSED else m, m)
    launch(matmul_kernels.matmul_tiles, (out, a, b, extra), (batch, n, k, m, a_step, b_step, layout, end, *distances))


def blocks_of(n: int, k: int, m: int) -> int:
    """Into how many parts a product is cut: by its size alone, because BLAS computes a part otherwise than the whole."""
    size = n * k * m
    rows = TRANSFER * n * (k + m) if n >= MANY_ROWS else 0  # half of them may be in the other core's cache, and are left there
    return 1 if size + rows < TWO_BLOCKS else 2 if size < FOUR_BLOCKS else 4


def _cuts(size: int, blocks: int, unit: int) -> list[tuple[int, int]]:
    """Ranges of about equal length that begin at multiples of ``unit``."""
    ends = [min(size, -(-t * size // (blocks * unit)) * unit) for t in range(blocks + 1)]
    return [(low, high) for low, high in zip(ends, ends[1:], strict=False) if low < high]


def _multiply(layout: int, a: Any, b: Any, n: int, k: int, m: int, bias: Any = None) -> Any:
    """The product of two matrices whose memory lies as the layout says, plus a bias; large ones in parts for several cores."""
    out = empty((n, m))
    blocks = blocks_of(n, k, m)
    by_tiles = takes_tiles(layout, n, k, m)
    if blocks == 1 or (layout == A_TRANSPOSED and not by_tiles):
        _launch(layout, out, a, b, bias, 1, n, k, m)
        return out
    extra, end = (b, NOTHING) if bias is None else (bias, ADD)
    distances = (n if layout == A_TRANSPOSED else k, k if layout == B_TRANSPOSED else m, m) if by_tiles else ()
    parts: list[Any] = []
    if by_tiles and n < MANY_ROWS and m >= 64:
        for low, high in _cuts(m, blocks, WIDTH):
            starts = (low, 0, low * k if layout == B_TRANSPOSED else low, low if end else 0)
            parts.append(((out, a, b, extra), starts, (1, n, k, high - low, 0, 0, layout, end, *distances)))
    else:
        for low, high in _cuts(n, blocks, 4 if by_tiles else 1):
            starts = (low * m, low if layout == A_TRANSPOSED else low * k, 0, 0)
            parts.append(((out, a, b, extra), starts, (1, high - low, k, m, 0, 0, layout, end, *distances)))
    launch_parts(matmul_kernels.matmul_tiles if by_tiles else matmul_kernels.matmul_blas, parts, n * k * m // PRODUCTS_A_CYCLE)
    return out


def _matmul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    plain = not tape.modes.grad and g.strides is None and len(shape_a) == 2 and len(shape_b) == 2 and 0 not in g.shape
    if node.wants(0):
        if plain and b.strides is None:
            to_a = _multiply(B_TRANSPOSED, g, b, g.shape[0], g.shape[1], shape_a[1])
        else:
            to_a = fit(_matmul(g, b.transpose(-2, -1)), shape_a)
    if node.wants(1):
        if plain and a.strides is None:
            to_b = _multiply(A_TRANSPOSED, a, g, shape_b[0], g.shape[0], g.shape[1])
        else:
            to_b = fit(_matmul(a.transpose(-2, -1), g), shape_b)
    return to_a, to_b


def _matmul(a: Any, b: Any) -> Any:
    saved = (a if b.requires_grad else None, b if a.requires_grad else None) if tape.modes.grad else ()
    return attach(_product(a, b), _matmul_rule, (a, b), saved, (a.shape, b.shape))


def matmul(a: Any, b: Any) -> Tensor:
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
    return owned(out.squeeze(-1 if len(b.shape) == 1 else -2) if len(a.shape) == 1 else out)


def _linear_rule(g, node):
    x, weight = node.saved
    has_bias = node.context
    to_x = to_weight = to_bias = None
    if node.wants(0):
        to_x = _matmul(g, weight)
    if node.wants(1):
        rows, inputs = (g, x) if len(x.shape) == 2 else (g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1]))
        if not tape.modes.grad and rows.strides is None and inputs.strides is None and rows.shape[0]:
            to_weight = _multiply(A_TRANSPOSED, rows, inputs, weight.shape[0], rows.shape[0], weight.shape[1])
        else:
            to_weight = _matmul(rows.transpose(0, 1), inputs)
    if has_bias and node.wants(2):
        to_bias = g.sum_to_size(weight.shape[:1])
    return (to_x, to_weight, to_bias) if has_bias else (to_x, to_weight)


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
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
    added = None if bias is None or bias.strides is not None or bias.dtype is not float32 else bias
    out = _multiply(B_TRANSPOSED, rows, weight, math.prod(x.shape[:-1]), inputs, features, added)
    if len(x.shape) > 2:
        out.shape = (*x.shape[:-1], features)
    if bias is not added:
        elementwise_into(add_into, out, bias)
    if not tape.modes.grad:
        return out
    saved = (x if weight.requires_grad else None, weight)
    return attach(out, _linear_rule, (x, weight) if bias is None else (x, weight, bias), saved, bias is not None)


def _fixed_rank(name: str, rank_a: int, rank_b: int):
    def product(a: Any, b: Any) -> Any:
        if len(a.shape) != rank_a or len(b.shape) != rank_b:
            raise ShapeError(f"{name} takes {rank_a} and {rank_b} dimensions, got shapes {list(a.shape)} and {list(b.shape)}")
        return matmul(a, b)

    product.__name__ = product.__qualname__ = name
    return product


mm, bmm, mv, dot = _fixed_rank("mm", 2, 2), _fixed_rank("bmm", 3, 3), _fixed_rank("mv", 2, 1), _fixed_rank("dot", 1, 1)


def outer(a: Any, b: Any) -> Tensor:
    """The products of all pairs of elements of two vectors."""
    return a.unsqueeze(1) * b.unsqueeze(0)


def inner(a: Any, b: Any) -> Tensor:
    """Sums of products over the last dimensions of both."""
    return a * b if not a.shape or not b.shape else tensordot(a, b, ([-1], [-1]))


def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """Sums of products over ``dims``: the last of a and the first of b, or a list for each."""
    if isinstance(dims, int):
        first, second = list(range(a.dim() - dims, a.dim())), list(range(dims))
    else:
        first, second = (
            [d % x.dim() for d in ([one] if isinstance(one, int) else one)] for x, one in zip((a, b), dims, strict=True)
        )
    if [a.shape[d] for d in first] != [b.shape[d] for d in second]:
        raise ShapeError(f"tensordot: shapes {list(a.shape)} and {list(b.shape)} differ over dimensions {first} and {second}")
    left, right = [d for d in range(a.dim()) if d not in first], [d for d in range(b.dim()) if d not in second]
    k = math.prod([a.shape[d] for d in first])
    rows = a.permute((*left, *first)).reshape(math.prod([a.shape[d] for d in left]), k)
    columns = b.permute((*second, *right)).reshape(k, math.prod([b.shape[d] for d in right]))
    return owned(matmul(rows, columns).reshape((*[a.shape[d] for d in left], *[b.shape[d] for d in right])))


def _plus_product(name: str, product: Any) -> Any:
    def add_product(input: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        result = product(a, b)
        result = result if alpha == 1 else result * alpha
        return result if beta == 0 else result + (input if beta == 1 else input * beta)

    add_product.__name__ = add_product.__qualname__ = name
    add_product.__doc__ = f"beta * input + alpha * `{product.__name__}` of a and b."
    return add_product


addmm, addmv, baddbmm, addr = map(_plus_product, ("addmm", "addmv", "baddbmm", "addr"), (mm, mv, bmm, outer))


# --- einsum ----------------------------------------------------------------------------------------------------------


def _terms(equation: str, operands: Sequence[Any]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand and of the result, one for each dimension; those of an ellipsis are numbers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum: {equation!r} names {len(inputs)} operands, {len(operands)} are given")
    free = max(
        [x.dim() - len(term.replace("...", "")) for term, x in zip(inputs, operands, strict=True) if "..." in term], default=0
    )
    hidden = [str(k) for k in range(free)]

    def labels(term: str, count: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(hidden[free - count :] if dots else []), *after]

    result = []
    for term, x in zip(inputs, operands, strict=True):
        result.append(labels(term, x.dim() - len(term.replace("...", ""))))
        if len(result[-1]) != x.dim():
            raise ShapeError(f"einsum: {term!r} does not fit an operand of shape {list(x.shape)}")
    every = [label for term in result for label in term]
    if arrow:
        output = labels(right, free)
    else:
        output = hidden + sorted({label for label in every if label not in hidden and every.count(label) == 1})
    if len(set(output)) != len(output) or not set(output) <= set(every) or any(not c.isalnum() for c in every):
        raise ValueError(f"einsum: {equation!r} is not understood")
    return result, output


def _diagonals(x: Any, labels: list[str]) -> tuple[Any, list[str]]:
    """Every label once: a repeated one means the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = x.diagonal(0, first, second)
            labels = [*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], label]
    return x, labels


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein's sums, ``ij,jk->ik``: products of the operands summed over the labels that the result does not have.

    Two operands at a time, each as one batch of matrix products. Labels may repeat and ``...`` stands for any further dimensions.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    terms, output = _terms(equation, operands)
    pending = [_diagonals(x, labels) for x, labels in zip(operands, terms, strict=True)]
    result, labels = pending.pop(0)
    while True:
        later = {*output, *[label for _, others in pending for label in others]}
        unused = [d for d, label in enumerate(labels) if label not in later]
        if unused:
            result, labels = result.sum(unused), [label for label in labels if label in later]
        if not pending:
            break
        other, names = pending.pop(0)
        later = {*output, *[label for _, others in pending for label in others]}
        result, labels = _pair(result, labels, other, names, later)
    return owned(result.permute([labels.index(label) for label in output]) if output else result, *operands)


def _pair(a: Any, of_a: list[str], b: Any, of_b: list[str], later: set[str]) -> tuple[Any, list[str]]:
    alone = [d for d, label in enumerate(of_b) if label not in later and label not in of_a]
    if alone:
        b, of_b = b.sum(alone), [label for d, label in enumerate(of_b) if d not in alone]
    shared = [label for label in of_a if label in of_b]
    size = {label: max(a.shape[of_a.index(label)], b.shape[of_b.index(label)]) for label in shared}
    for label in shared:
        if {a.shape[of_a.index(label)], b.shape[of_b.index(label)]} - {1, size[label]}:
            raise ShapeError(f"einsum: label {label!r} has sizes {a.shape[of_a.index(label)]} and {b.shape[of_b.index(label)]}")
    a, b = (
        x.expand([size.get(label, n) for label, n in zip(names, x.shape, strict=True)]) for x, names in ((a, of_a), (b, of_b))
    )
    batch, summed = [x for x in shared if x in later], [x for x in shared if x not in later]
    rows, columns = [x for x in of_a if x not in shared], [x for x in of_b if x not in shared]
    sizes = {**dict(zip(of_a, a.shape, strict=True)), **dict(zip(of_b, b.shape, strict=True))}
    volume = [math.prod([sizes[label] for label in group]) for group in (batch, rows, summed, columns)]
    left = a.permute([of_a.index(x) for x in (*batch, *rows, *summed)]).reshape(volume[0], volume[1], volume[2])
    right = b.permute([of_b.index(x) for x in (*batch, *summed, *columns)]).reshape(volume[0], volume[2], volume[3])
    product = matmul(left, right) if batch else matmul(left.squeeze(0), right.squeeze(0))
    labels = [*batch, *rows, *columns]
    return product.reshape([sizes[label] for label in labels]), labels
