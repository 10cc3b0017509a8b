"""Matrix products. Transposed operands are read in place, so the gradients of a product need no copies."""

import functools
import math
from collections.abc import Sequence

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import matmul as matmul_kernels
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.kernels.matmul import A_TRANSPOSED, ADD, B_TRANSPOSED, NARROW, NOTHING, PLAIN, SWAPPED, way_of
from rl_lab.engine.launch import Planned, PlannedParts, check_dtypes, launch, launch_parts, recorder
from rl_lab.engine.ops.layout import dense
from rl_lab.engine.ops.operands import INTEGERS, broadcast_shape, elementwise_into, fit
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Shape, Tensor, contiguous_strides, empty, needs_gradient, owned
from rl_lab.engine.types import Gradients
from rl_lab.native.primitive import CHECKED

TWO_BLOCKS = 1_000_000  # multiply-adds from which a product is cut in two: below, waking a core costs more than it saves
FOUR_BLOCKS = 16_000_000  # multiply-adds from which a product is cut in four
PRODUCTS_A_CYCLE = 16  # multiply-adds of one core in a cycle, about
TRANSFER = 16  # multiply-adds in the time in which a number moves from core to core
_Parts = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""For each part of a product, the element at which it begins in each tensor, and its numbers."""

MANY_ROWS = 64  # rows from which a product is cut by rows, so that each core continues with the rows that it computed


def _matrix_layout(x: Tensor, batch: Shape) -> tuple[Tensor, bool, int]:
    """(x, transposed, step): x or a copy that a kernel can read, whether its matrices lie column by column, and their distance.

    The distance is 0 if all products of the batch use the same matrix.
    """
    strides = x.stride()
    rows, columns = x.sizes[-2:]
    if x.strides is None or (strides[-1] == 1 and strides[-2] == columns):
        transposed = False
    elif strides[-2] == 1 and strides[-1] == rows:
        transposed = True
    else:
        with tape.no_grad():
            x = x.contiguous()
        strides = x.stride()
        transposed = False
    if not batch or math.prod(x.sizes[:-2]) == 1:
        return x, transposed, 0
    expected = contiguous_strides(x.sizes)[:-2]
    if x.sizes[:-2] != batch or strides[:-2] != expected:
        with tape.no_grad():
            x = x.expand((*batch, rows, columns)).contiguous()
        transposed = False
    return x, transposed, rows * columns


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of float32 tensors of at least two dimensions, off the tape."""
    if a.strides is None and b.strides is None and len(a.sizes) == 2 and len(b.sizes) == 2 and a.sizes[1]:
        return _multiply(PLAIN, a, b, a.sizes[0], a.sizes[1], b.sizes[1])
    n, k = a.sizes[-2:]
    m = b.sizes[-1]
    batch = broadcast_shape(a.sizes[:-2], b.sizes[:-2]) if len(a.sizes) > 2 or len(b.sizes) > 2 else ()
    out = empty((*batch, n, m))
    if k == 0:
        with tape.no_grad():
            return out.zero_()
    a, a_transposed, a_step = _matrix_layout(a, batch)
    b, b_transposed, b_step = _matrix_layout(b, batch)
    if a_transposed and b_transposed:
        with tape.no_grad():
            a = a.contiguous()
        a_transposed = False
    layout = A_TRANSPOSED if a_transposed else B_TRANSPOSED if b_transposed else PLAIN
    if not batch:
        return _multiply(layout, a, b, n, k, m)
    _launch(layout, out, a, b, None, math.prod(batch), n, k, m, a_step, b_step)
    return out


@functools.lru_cache(maxsize=4096)
def _plan(layout: int, n: int, k: int, m: int, has_bias: bool) -> tuple[_Parts, Planned | PlannedParts]:
    """The parts into which a product of two float32 matrices is cut, none if it stays whole, and its launch."""
    end = ADD if has_bias else NOTHING
    way = way_of(layout, n, k, m)
    rest = (*_distances(layout, n, k, m), way)  # the way of the whole product: a part has the same bits
    blocks = blocks_of(n, k, m)
    if blocks == 1:
        return [], Planned(matmul_kernels.matmul, (1, n, k, m, 0, 0, layout, end, *rest))
    parts: _Parts = []
    if (n < MANY_ROWS or way == SWAPPED) and m >= 64:
        for low, high in _cuts(m, blocks, NARROW):
            starts = (low, 0, low * k if layout == B_TRANSPOSED else low, low if end else 0)
            parts.append((starts, (1, n, k, high - low, 0, 0, layout, end, *rest)))
    else:
        for low, high in _cuts(n, blocks, 4):
            starts = (low * m, low if layout == A_TRANSPOSED else low * k, 0, 0)
            parts.append((starts, (1, high - low, k, m, 0, 0, layout, end, *rest)))
    in_bytes = [(tuple([4 * start for start in starts]), numbers) for starts, numbers in parts]
    return parts, PlannedParts(matmul_kernels.matmul, in_bytes, n * k * m // PRODUCTS_A_CYCLE)


def _launch(
    layout: int,
    out: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    batch: int,
    n: int,
    k: int,
    m: int,
    a_step: int = 0,
    b_step: int = 0,
) -> None:
    """Write the products of a batch, plus the bias, into ``out``; the sizes are those of `rl_lab.engine.kernels.matmul`."""
    extra, end = (b, NOTHING) if bias is None else (bias, ADD)
    numbers = (batch, n, k, m, a_step, b_step, layout, end, *_distances(layout, n, k, m), way_of(layout, n, k, m))
    launch(matmul_kernels.matmul, (out, a, b, extra), numbers)


def _distances(layout: int, n: int, k: int, m: int) -> tuple[int, int, int]:
    """The distances between the rows of a, b and out."""
    return (n if layout == A_TRANSPOSED else k, k if layout == B_TRANSPOSED else m, m)


def blocks_of(n: int, k: int, m: int) -> int:
    """The number of parts into which a product is cut, which depends on its sizes alone."""
    size = n * k * m
    # saved if cut by rows: half of the rows may be in the other core's cache and stay there
    rows = TRANSFER * n * (k + m) if n >= MANY_ROWS else 0
    return 1 if size + rows < TWO_BLOCKS else 2 if size < FOUR_BLOCKS else 4


def _cuts(size: int, blocks: int, unit: int) -> list[tuple[int, int]]:
    """Ranges of nearly equal length that begin at multiples of ``unit``."""
    ends = [min(size, -(-t * size // (blocks * unit)) * unit) for t in range(blocks + 1)]
    return [(low, high) for low, high in zip(ends, ends[1:], strict=False) if low < high]


def _multiply(layout: int, a: Tensor, b: Tensor, n: int, k: int, m: int, bias: Tensor | None = None) -> Tensor:
    """The product (n, m) of two matrices stored as ``layout`` says, plus a bias (m,). Large products are cut for several cores."""
    out = empty((n, m))
    parts, planned = _plan(layout, n, k, m, bias is not None)
    extra = b if bias is None else bias
    if a.dtype is not float32 or b.dtype is not float32:  # a gradient that the caller of backward gave
        check_dtypes(matmul_kernels.matmul, (out, a, b, extra))
    if parts and (CHECKED or recorder() is not None):
        tensors = (out, a, b, extra)
        cycles = n * k * m // PRODUCTS_A_CYCLE
        launch_parts(matmul_kernels.matmul, [(tensors, starts, numbers) for starts, numbers in parts], cycles)
    else:
        planned.launch(out, a, b, extra)
    return out


def _matmul_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    plain = not tape.modes.grad and g.strides is None and len(shape_a) == 2 and len(shape_b) == 2 and 0 not in g.sizes
    if node.wants(0):
        if plain and b.strides is None:
            to_a = _multiply(B_TRANSPOSED, g, b, g.sizes[0], g.sizes[1], shape_a[1])
        else:
            to_a = fit(_matmul(g, b.transpose(-2, -1)), shape_a)
    if node.wants(1):
        if plain and a.strides is None:
            to_b = _multiply(A_TRANSPOSED, a, g, shape_b[0], g.sizes[0], g.sizes[1])
        else:
            to_b = fit(_matmul(a.transpose(-2, -1), g), shape_b)
    return to_a, to_b


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    saved = (a if needs_gradient(b) else None, b if needs_gradient(a) else None) if tape.modes.grad else ()
    return attach(_product(a, b), _matmul_rule, (a, b), saved, (a.sizes, b.sizes))


def _matmul_int(a: Tensor, b: Tensor) -> Tensor:
    """The exact product of int64 tensors of at least two dimensions, from products and sums of elements: slow, but not rounded."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product of (..., n, k) and (..., k, m), as (..., n, m). The dimensions in front of the matrices broadcast.

    A vector counts as a row on the left and as a column on the right. Raises DtypeError unless both tensors are float32, both int64
    or both uint8, ShapeError for a scalar or if the inner sizes differ.
    """
    if input.dtype is uint8 and other.dtype is uint8:  # uint8 is a dtype for storage: arithmetic is in float32
        input, other = input.to(float32), other.to(float32)
    whole = input.dtype is int64 and other.dtype is int64
    if not whole and (input.dtype is not float32 or other.dtype is not float32):
        raise DtypeError(f"matmul takes float32 tensors, got {input.dtype.name} and {other.dtype.name}")
    if not input.sizes or not other.sizes:
        raise ShapeError(
            f"both arguments of matmul need at least 1 dimension, got shapes {list(input.sizes)} and {list(other.sizes)}"
        )
    if input.sizes[-1] != other.sizes[-2 if len(other.sizes) > 1 else 0]:
        raise ShapeError(f"shapes {list(input.sizes)} and {list(other.sizes)} cannot be multiplied: the inner sizes differ")
    product = _matmul_int if whole else _matmul
    if len(input.sizes) > 1 and len(other.sizes) > 1:
        return product(input, other)
    left = input.unsqueeze(0) if len(input.sizes) == 1 else input
    right = other.unsqueeze(1) if len(other.sizes) == 1 else other
    out = product(left, right)
    if len(other.sizes) == 1:
        out = out.squeeze(-1)
    return owned(out.squeeze(-1 if len(other.sizes) == 1 else -2) if len(input.sizes) == 1 else out)


def _linear_rule(g: Tensor, node: Node) -> Gradients:
    x, weight = node.saved
    shape, has_bias = node.context
    to_x = to_weight = to_bias = None
    if node.wants(0):
        to_x = _matmul(g, weight)
    if node.wants(1):
        rows, inputs = (g, x) if len(x.sizes) == 2 else (g.reshape(-1, g.sizes[-1]), x.reshape(-1, x.sizes[-1]))
        if not tape.modes.grad and rows.strides is None and inputs.strides is None and rows.sizes[0]:
            to_weight = _multiply(A_TRANSPOSED, rows, inputs, shape[0], rows.sizes[0], shape[1])
        else:
            to_weight = _matmul(rows.transpose(0, 1), inputs)
    if has_bias and node.wants(2):
        to_bias = g.sum_to_size(shape[:1])
    return (to_x, to_weight, to_bias) if has_bias else (to_x, to_weight)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias, of shape (..., out), for input (..., in), weight (out, in) and bias (out,).

    Raises DtypeError if input or weight is not float32, ShapeError if the shapes do not fit.
    """
    if input.dtype is not float32 or weight.dtype is not float32:
        raise DtypeError(
            f"linear takes float32 tensors, got {input.dtype.name} and {weight.dtype.name}: convert with .float() first"
        )
    if len(weight.sizes) != 2 or not input.sizes or input.sizes[-1] != weight.sizes[1]:
        raise ShapeError(
            f"linear: an input of shape {list(input.sizes)} does not fit a weight of shape {list(weight.sizes)}: the last sizes must agree"
        )
    if len(input.sizes) == 1 or weight.strides is not None or not weight.sizes[1]:
        out = matmul(input, weight.t())
        return out if bias is None else out + bias
    if bias is not None and bias.sizes != weight.sizes[:1]:
        raise ShapeError(f"linear: the bias must have the shape [{weight.sizes[0]}], got {list(bias.sizes)}")
    (rows,) = dense(input)
    features, inputs = weight.sizes
    added = None if bias is None or bias.strides is not None or bias.dtype is not float32 else bias
    out = _multiply(B_TRANSPOSED, rows, weight, math.prod(input.sizes[:-1]), inputs, features, added)
    if len(input.sizes) > 2:
        out.sizes = (*input.sizes[:-1], features)
    if bias is not None and bias is not added:
        elementwise_into(add_into, out, bias)
    if not tape.modes.grad:
        return out
    saved = (input if needs_gradient(weight) else None, weight if needs_gradient(input) else None)
    operands = (input, weight) if bias is None else (input, weight, bias)
    return attach(out, _linear_rule, operands, saved, (weight.sizes, bias is not None))


def _of_ranks(name: str, a: Tensor, rank_a: int, b: Tensor, rank_b: int) -> Tensor:
    """`matmul` of tensors of exactly these numbers of dimensions. Raises ShapeError for others."""
    if len(a.sizes) != rank_a or len(b.sizes) != rank_b:
        raise ShapeError(
            f"{name} takes tensors of {rank_a} and {rank_b} dimensions, got shapes {list(a.sizes)} and {list(b.sizes)}: "
            "matmul() takes any"
        )
    return matmul(a, b)


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices (n, k) and (k, m). Raises ShapeError for other tensors."""
    return _of_ranks("mm", input, 2, mat2, 2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices (b, n, k) and (b, k, m). Raises ShapeError for other tensors."""
    if input.sizes[:1] != mat2.sizes[:1]:
        raise ShapeError(
            f"bmm takes two batches of one size, got shapes {list(input.sizes)} and {list(mat2.sizes)}: matmul() broadcasts"
        )
    return _of_ranks("bmm", input, 3, mat2, 3)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix (n, k) and a vector (k,). Raises ShapeError for other tensors."""
    return _of_ranks("mv", input, 2, vec, 1)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The dot product of two vectors of one size. Raises ShapeError for other tensors."""
    return _of_ranks("dot", input, 1, tensor, 1)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The matrix (n, m) of the products of all pairs of elements of two vectors (n,) and (m,). Raises ShapeError for other tensors."""
    if input.dim() != 1 or vec2.dim() != 1:
        raise ShapeError(
            f"outer takes two vectors, got shapes {list(input.sizes)} and {list(vec2.sizes)}: flatten() them first"
        )
    return input.unsqueeze(1) * vec2.unsqueeze(0)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Dot products over the last dimensions of both tensors. With a scalar it is the product."""
    return input * other if not input.sizes or not other.sizes else tensordot(input, other, ([-1], [-1]))


def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """Sums of products over ``dims``: a number n takes the last n of a and the first n of b, a pair names the dimensions of each.

    Raises ShapeError if the sizes of these dimensions differ.
    """
    if isinstance(dims, INTEGERS):
        first = list(range(a.dim() - dims, a.dim()))
        second = list(range(dims))
    else:
        first, second = (
            [d % x.dim() for d in ([one] if isinstance(one, INTEGERS) else one)] for x, one in zip((a, b), dims, strict=True)
        )
    if [a.sizes[d] for d in first] != [b.sizes[d] for d in second]:
        raise ShapeError(f"tensordot: shapes {list(a.sizes)} and {list(b.sizes)} differ over dimensions {first} and {second}")
    left = [d for d in range(a.dim()) if d not in first]
    right = [d for d in range(b.dim()) if d not in second]
    k = math.prod([a.sizes[d] for d in first])
    rows = a.permute((*left, *first)).reshape(math.prod([a.sizes[d] for d in left]), k)
    columns = b.permute((*second, *right)).reshape(k, math.prod([b.sizes[d] for d in right]))
    return owned(matmul(rows, columns).reshape((*[a.sizes[d] for d in left], *[b.sizes[d] for d in right])))


def _plus(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    """beta * input + alpha * product. Raises ShapeError unless the input broadcasts to the shape of the product."""
    if broadcast_shape(input.sizes, product.sizes) != product.sizes:
        raise ShapeError(
            f"the input must broadcast to the shape {list(product.sizes)} of the product, got an input of shape {list(input.sizes)}"
        )
    if product.dtype is int64 or input.dtype is uint8:  # as in PyTorch, which rounds the factors of integers to zero
        beta, alpha = int(beta), int(alpha)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * `mm` of the matrices."""
    return _plus(input, mm(mat1, mat2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * `mv` of the matrix and the vector."""
    return _plus(input, mv(mat, vec), beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * `bmm` of the batches."""
    return _plus(input, bmm(batch1, batch2), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * `outer` of the vectors; of bools whether one of the two holds."""
    if vec1.dtype is int64 and isinstance(beta + alpha, float):
        raise DtypeError(f"addr of integers takes integers as beta and alpha, got {beta} and {alpha}")
    if input.dtype is vec1.dtype is vec2.dtype is bool_:
        return _plus(input, outer(vec1, vec2), bool(beta), 1) if alpha else input & bool(beta)
    return _plus(input, outer(vec1, vec2), beta, alpha)


# --- einsum ----------------------------------------------------------------------------------------------------------


def _terms(equation: str, operands: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """(labels of each operand, labels of the result): one label per dimension. The dimensions of an ellipsis get numbers.

    Raises ValueError if the equation is malformed, ShapeError if a term does not fit its operand.
    """
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
            raise ShapeError(f"einsum: {term!r} needs one label per dimension of its operand of shape {list(x.sizes)}")
    every = [label for term in result for label in term]
    if arrow:
        output = labels(right, free)
    else:
        output = hidden + sorted({label for label in every if label not in hidden and every.count(label) == 1})
    if len(set(output)) != len(output) or not set(output) <= set(every) or any(not c.isalnum() for c in every):
        raise ValueError(
            f"einsum: {equation!r} is malformed: labels are letters, and those of the result must differ and appear in a term"
        )
    return result, output


def _diagonals(x: Tensor, labels: list[str]) -> tuple[Tensor, list[str]]:
    """(x, labels) with every label once: a repeated label takes the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = x.diagonal(0, first, second)
            labels = [*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], label]
    return x, labels


def einsum(equation: str, *operands: Tensor | Sequence[Tensor]) -> Tensor:
    """Einstein's summation, as in ``ij,jk->ik``: products of the operands, summed over the labels that the result does not have.

    Labels are letters; a label may repeat in a term, and ``...`` stands for any further dimensions. The operands are multiplied from
    left to right, each pair as one batch of matrix products.
    Raises ValueError for a malformed equation, ShapeError if the operands do not fit it.
    """
    if not isinstance(equation, str):
        raise TypeError(
            f"einsum takes the equation as text first, such as 'ij,jk->ik', got {type(equation).__name__}: write lists of labels as text"
        )
    given: Sequence[Tensor] = operands  # type: ignore[assignment]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        given = operands[0]
    terms, output = _terms(equation, given)
    pending = [_diagonals(x, labels) for x, labels in zip(given, terms, strict=True)]
    result, labels = pending.pop(0)
    while True:
        later = {*output, *[label for _, others in pending for label in others]}
        unused = [d for d, label in enumerate(labels) if label not in later]
        if unused:
            result = result.sum(unused)
            labels = [label for label in labels if label in later]
        if not pending:
            break
        other, names = pending.pop(0)
        later = {*output, *[label for _, others in pending for label in others]}
        result, labels = _pair(result, labels, other, names, later)
    return owned(result.permute([labels.index(label) for label in output]) if output else result, *given)


def _pair(a: Tensor, of_a: list[str], b: Tensor, of_b: list[str], later: set[str]) -> tuple[Tensor, list[str]]:
    """The product of two operands and its labels, summed over the labels that are not needed ``later``."""
    alone = [d for d, label in enumerate(of_b) if label not in later and label not in of_a]
    if alone:
        b = b.sum(alone)
        of_b = [label for d, label in enumerate(of_b) if d not in alone]
    shared = [label for label in of_a if label in of_b]
    size = {label: max(a.sizes[of_a.index(label)], b.sizes[of_b.index(label)]) for label in shared}
    for label in shared:
        if {a.sizes[of_a.index(label)], b.sizes[of_b.index(label)]} - {1, size[label]}:
            raise ShapeError(f"einsum: label {label!r} has sizes {a.sizes[of_a.index(label)]} and {b.sizes[of_b.index(label)]}")
    a, b = (
        x.expand([size.get(label, n) for label, n in zip(names, x.sizes, strict=True)]) for x, names in ((a, of_a), (b, of_b))
    )
    batch = [label for label in shared if label in later]
    summed = [label for label in shared if label not in later]
    rows = [label for label in of_a if label not in shared]
    columns = [label for label in of_b if label not in shared]
    sizes = {**dict(zip(of_a, a.sizes, strict=True)), **dict(zip(of_b, b.sizes, strict=True))}
    volume = [math.prod([sizes[label] for label in group]) for group in (batch, rows, summed, columns)]
    left = a.permute([of_a.index(x) for x in (*batch, *rows, *summed)]).reshape(volume[0], volume[1], volume[2])
    right = b.permute([of_b.index(x) for x in (*batch, *summed, *columns)]).reshape(volume[0], volume[2], volume[3])
    product = matmul(left, right) if batch else matmul(left.squeeze(0), right.squeeze(0))
    labels = [*batch, *rows, *columns]
    return product.reshape([sizes[label] for label in labels]), labels
