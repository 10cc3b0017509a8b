"""What each primitive computes, as nodes of a `Graph`: one function a family, with the names and numbers of the primitive's parameters.

Elementwise primitives need no function, because they say their formula themselves.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from rl_lab.engine.kernels import matmul as matmul_kernels
from rl_lab.engine.ops import Tensor
from rl_lab.experiment.export.graph import BOOL, FLOAT, INT, Operand, Ref
from rl_lab.experiment.export.recording import PolicyRecorder
from rl_lab.experiment.faults import Fault
from rl_lab.native.primitive import Primitive
from rl_lab.nn.graph import kernels as graph_kernels

Tensors: TypeAlias = tuple[Tensor, ...]
Translation: TypeAlias = Callable[[PolicyRecorder, Primitive, Tensors, tuple[Any, ...]], None]
TRANSLATIONS: dict[str, Translation] = {}
"""Translations by the name of the primitive."""


def _translates(*names: str) -> Callable[[Translation], Translation]:
    def note(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(names, function))
        return function

    return note


def _grid(*axes: tuple[int, int]) -> np.ndarray:
    """Positions of a strided array, from the (size, stride) of each axis."""
    index = np.zeros([size for size, _ in axes], np.int64)
    for axis, (size, stride) in enumerate(axes):
        index += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(len(axes))])
    return index


def _reshaped(operand: Operand, *shape: int) -> Operand:
    return Ref(operand.value, shape) if isinstance(operand, Ref) else operand.reshape(shape)


def _flat(count: int) -> np.ndarray:
    return np.arange(count)


def elementwise(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    """A primitive with a formula: n rows of m elements, and two strides for each operand; a stride of 0 repeats."""
    assert primitive.formula is not None
    names, formula = primitive.formula
    rows, columns, *strides = numbers
    out = tensors[0]
    operands: dict[str, Operand] = {}
    given = list(tensors[1:])
    if len(names) > len(given):
        operands[names[0]] = r.read(out, _grid((rows, columns), (columns, 1)))
    for i, (name, tensor) in enumerate(zip(names[len(operands) :], given, strict=True)):
        s0, s1 = strides[2 * i : 2 * i + 2]
        operands[name] = r.read(tensor, _grid((rows if s0 else 1, s0), (columns if s1 else 1, s1)))
    dtype = out.dtype.name
    result = r.map(formula, dtype, **operands)
    if result.shape != (rows, columns):  # every operand repeats
        size = result.shape[0] * result.shape[1]
        index = np.broadcast_to(np.arange(size).reshape(result.shape), (rows, columns)).ravel()
        result = r.node("take", (result,), (rows, columns), dtype, index=index)
    r.write(out, result, _grid((rows, columns), (columns, 1)))


def _copy(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, x = tensors
    sizes, to, source = (numbers[6 * i : 6 * i + 6] for i in range(3))
    target_at = _grid(*zip(sizes, to, strict=True))
    source_at = _grid(*zip(sizes, source, strict=True))
    _, given, wanted = primitive.name.split("_")
    if given == wanted:
        r.copy(x, source_at, out, target_at)
        return
    formula = {"float": "F(x)", "int": "I(x)", "bool": "x != 0", "byte": "I(x) & 255"}[wanted]
    dtype = {"float": FLOAT, "int": INT, "bool": BOOL, "byte": "uint8"}[wanted]
    r.write(out, r.map(formula, dtype, x=r.read(x, source_at)), target_at)


for _given in ("float", "int", "bool", "byte"):
    for _wanted in ("float", "int", "bool", "byte"):
        TRANSLATIONS[f"copy_{_given}_{_wanted}"] = _copy


@_translates("matmul")
def _matmul(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, a, b, extra = tensors
    batch, n, k, m, sa, sb, layout, end, lda, ldb, ldc, _ = numbers
    left = (n, 1), (k, lda)
    if layout != matmul_kernels.A_TRANSPOSED:
        left = (n, lda), (k, 1)
    right = ((k, 1), (m, ldb)) if layout == matmul_kernels.B_TRANSPOSED else ((k, ldb), (m, 1))
    x = r.read(a, _grid((batch, sa), *left))
    y = r.read(b, _grid((batch, sb), *right))
    operands = [x, y]
    if end == matmul_kernels.ADD:
        operands.append(r.read(extra, _flat(m)))
    elif end != matmul_kernels.NOTHING:
        raise Fault(f"{r.who} cannot be exported: there is no translation of a product with end {end}")
    result = r.node("product", operands, (batch, n, m), FLOAT)
    r.write(out, result, _grid((batch, n * m), (n, ldc), (m, 1)))


# --- reductions ------------------------------------------------------------------------------------------------------


def _middle(r: PolicyRecorder, x: Tensor, n: int, size: int, m: int) -> Operand:
    return _reshaped(r.read(x, _flat(n * size * m)), n, size, m)


def _reduced(r: PolicyRecorder, kind: str, x: Operand, dtype: str) -> Ref:
    return r.node(kind, (x,), (x.shape[0], 1, x.shape[2]), dtype)


@_translates("sum_over", "sum_over_int", "product_over", "product_over_int", "any_over")
def _reduce(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, x = tensors
    kind = {"sum": "sum", "product": "product_of", "any": "any"}[primitive.name.split("_")[0]]
    dtype = out.dtype.name
    result: Operand = _reduced(r, kind, _middle(r, x, *numbers[:3]), dtype)
    if numbers[3:] and numbers[3] != 1.0:
        result = r.map("x / d", dtype, x=result, d=np.float32(numbers[3]).reshape(1, 1, 1))
    r.write(out, result, _flat(numbers[0] * numbers[2]))


@_translates("max_over", "max_over_int")
def _max(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, index, x = tensors
    values = _middle(r, x, *numbers)
    count = _flat(numbers[0] * numbers[2])
    r.write(out, _reduced(r, "max", values, out.dtype.name), count)
    r.write(index, _reduced(r, "argmax", values, INT), count)


@_translates("largest_over")
def _largest(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, x = tensors
    r.write(out, _reduced(r, "max", _middle(r, x, *numbers), FLOAT), _flat(numbers[0] * numbers[2]))


@_translates("softmax_over", "log_softmax_over", "logsumexp_over")
def _softmax(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, source = tensors
    n, size, m = numbers
    x = _middle(r, source, n, size, m)
    largest = _reduced(r, "max", x, FLOAT)
    total = _reduced(r, "sum", r.map("exp32(x - largest)", x=x, largest=largest), FLOAT)
    if primitive.name == "logsumexp_over":
        r.write(
            out,
            r.map("largest if abs(largest) == inf else np.log(total) + largest", total=total, largest=largest),
            _flat(n * m),
        )
        return
    formula = "exp32(x - largest) / total" if primitive.name == "softmax_over" else "x - largest - np.log(total)"
    r.write(out, r.map(formula, x=x, largest=largest, total=total), _flat(n * size * m))


@_translates("variance_over")
def _variance(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, source = tensors
    n, size, m, divisor, root = numbers
    x = _middle(r, source, n, size, m)
    mean = r.map("x / n", x=_reduced(r, "sum", x, FLOAT), n=np.float32(size).reshape(1, 1, 1))
    squares = _reduced(r, "sum", r.map("(x - mean) * (x - mean)", x=x, mean=mean), FLOAT)
    formula = "np.sqrt(x / d)" if root else "x / d"
    r.write(out, r.map(formula, x=squares, d=np.float32(divisor).reshape(1, 1, 1)), _flat(n * m))


@_translates("layer_norm")
def _layer_norm(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, normal, inverse, source, weight, bias = tensors
    n, size, eps = numbers
    x = _middle(r, source, n, size, 1)
    count = np.float32(size).reshape(1, 1, 1)
    mean = r.map("x / n", x=_reduced(r, "sum", x, FLOAT), n=count)
    centred = r.map("x - mean", x=x, mean=mean)
    squares = _reduced(r, "sum", r.map("x * x", x=centred), FLOAT)
    scale = r.map("F(1) / np.sqrt(x / n + eps)", x=squares, n=count, eps=np.float32(eps).reshape(1, 1, 1))
    y = r.map("x * s", x=centred, s=scale)
    w, b = (_reshaped(r.read(t, _flat(size)), 1, size, 1) for t in (weight, bias))
    r.write(inverse, scale, _flat(n))
    r.write(normal, y, _flat(n * size))
    r.write(out, r.map("x * w + b", x=y, w=w, b=b), _flat(n * size))


# --- reading by index ------------------------------------------------------------------------------------------------


@_translates("take", "take_int", "take_bool")
def _take(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, x, index, _ = tensors
    n, size, m, count, wrap = numbers
    chosen = r.read(index, _flat(count))
    base = np.arange(n)[:, None, None] * (size * m) + np.arange(m)[None, None, :]
    if isinstance(chosen, np.ndarray):
        at = np.where(chosen < 0, chosen + size, chosen) if wrap else chosen
        r.copy(x, base + at[None, :, None] * m, out, _grid((n, count * m), (count, m), (m, 1)))
        return
    _look_up(r, out, r.read(x, _flat(n * size * m)), Ref(chosen.value, (1, count, 1)), base, size, m, wrap)


@_translates("gather", "gather_int")
def _gather(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, x, index, _ = tensors
    n, size, m, count = numbers
    chosen = _reshaped(r.read(index, _flat(n * count * m)), n, count, m)
    base = np.arange(n)[:, None, None] * (size * m) + np.arange(m)[None, None, :]
    if isinstance(chosen, np.ndarray):
        r.copy(x, base + chosen * m, out, _flat(n * count * m).reshape(n, count, m))
        return
    _look_up(r, out, r.read(x, _flat(n * size * m)), chosen, base, size, m, False)


def _look_up(
    r: PolicyRecorder, out: Tensor, values: Operand, chosen: Operand, base: np.ndarray, size: int, m: int, wrap: bool
) -> None:
    """Read ``values``, flat, at base + chosen * m, where ``chosen`` depends on the input."""
    formula = "base + (c + size if c < 0 else c) * m" if wrap else "base + c * m"
    constants = {name: np.full((1, 1, 1), number, np.int64) for name, number in (("size", size), ("m", m))}
    if not wrap:
        del constants["size"]
    place = r.map(formula, INT, base=base, c=chosen, **constants)
    count = int(np.prod(place.shape))
    result = r.node("lookup", (values, _reshaped(place, count)), place.shape, out.dtype.name)
    r.write(out, result, _flat(count))


@_translates("one_hot")
def _one_hot(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, index, _ = tensors
    count, classes = numbers
    chosen = _reshaped(r.read(index, _flat(count)), count, 1)
    r.write(out, r.map("I(x == k)", INT, x=chosen, k=np.arange(classes).reshape(1, -1)), _flat(count * classes))


# --- convolutions ----------------------------------------------------------------------------------------------------


@_translates("convolve", "convolve_wide")
def _convolve(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, _, source, weight, bias = tensors
    end, batch, groups, filters, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw = numbers
    if batch != 1:
        raise Fault(f"{r.who} cannot be exported: a convolution of {batch} pictures for one observation has no translation")
    x = _reshaped(r.read(source, _flat(groups * channels * height * width)), groups, channels, height, width)
    w = r.read(weight, _flat(groups * filters * channels * kh * kw)).reshape(groups, filters, channels, kh, kw)  # type: ignore[union-attr]
    b = r.read(bias, _flat(groups * filters)) if end != matmul_kernels.NOTHING else np.zeros(groups * filters, np.float32)
    window = {"oh": oh, "ow": ow, "sh": sh, "sw": sw, "ph": ph, "pw": pw, "dh": dh, "dw": dw}
    result = r.node("convolve", (x, w, b), (groups * filters, oh, ow), FLOAT, window=window)
    r.write(out, result, _flat(groups * filters * oh * ow))


@_translates("max_pool", "avg_pool")
def _pool(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, source = tensors[0], tensors[-1]
    planes, height, width, oh, ow, kh, kw, sh, sw, ph, pw, *rest = numbers
    x = _reshaped(r.read(source, _flat(planes * height * width)), planes, height, width)
    window = {"oh": oh, "ow": ow, "kh": kh, "kw": kw, "sh": sh, "sw": sw, "ph": ph, "pw": pw, "dh": 1, "dw": 1}
    count = _flat(planes * oh * ow)
    if primitive.name == "max_pool":
        window |= {"dh": rest[0], "dw": rest[1]}
        r.write(out, r.node("max_pool", (x,), (planes, oh, ow), FLOAT, window=window), count)
        return
    whole: Operand = r.node("avg_pool", (x,), (planes, oh, ow), FLOAT, window=window)
    counts_padding, divisor = rest
    sizes = np.full((1, oh, ow), divisor, np.float32)
    if not divisor:
        rows, columns = (
            np.minimum(at * s - p + k, size + (p if counts_padding else 0))
            - np.maximum(at * s - p, -p if counts_padding else 0)
            for at, s, p, k, size in ((np.arange(oh), sh, ph, kh, height), (np.arange(ow), sw, pw, kw, width))
        )
        sizes = (rows[:, None] * columns[None, :]).astype(np.float32)[None]
    if (sizes != kh * kw).any():  # a node divides by the size of the whole window
        whole = r.map("x * f", x=whole, f=np.float32(kh * kw) / sizes)
    r.write(out, whole, count)


# --- recurrent cells and evolved networks ----------------------------------------------------------------------------


def _part(operand: Operand, r: PolicyRecorder, low: int, high: int) -> Operand:
    if isinstance(operand, np.ndarray):
        return operand[low:high]
    whole = Ref(operand.value, (r.graph.values[operand.value].size,))
    return r.node("take", (whole,), (high - low,), FLOAT, index=np.arange(low, high))


@_translates("gru_cell")
def _gru(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, _, zi, zh, hidden = tensors
    n, m = numbers
    x, y = (r.read(t, _flat(n * 3 * m)) for t in (zi, zh))
    h = r.read(hidden, _flat(n * m))
    after: list[Operand] = []
    for i in range(n):
        a, b = ([_part(z, r, (3 * i + g) * m, (3 * i + g + 1) * m) for g in range(3)] for z in (x, y))
        reset = r.map("sigmoid32(a + b)", a=a[0], b=b[0])
        update = r.map("sigmoid32(a + b)", a=a[1], b=b[1])
        new = r.map("tanh32(a + r * b)", a=a[2], r=reset, b=b[2])
        old = h if n == 1 else _part(h, r, i * m, (i + 1) * m)
        after.append(r.map("new + u * (h - new)", new=new, u=update, h=old))
    for i, row in enumerate(after):
        r.write(out, row, i * m + _flat(m))


@_translates("lstm_cell")
def _lstm(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, _, z, c = tensors
    n, m = numbers
    gates, cells = r.read(z, _flat(n * 4 * m)), r.read(c, _flat(n * m))
    rows = []
    for i in range(n):
        enter, forget, candidate, leave = (_part(gates, r, (4 * i + g) * m, (4 * i + g + 1) * m) for g in range(4))
        old = cells if n == 1 else _part(cells, r, i * m, (i + 1) * m)
        cell = r.map("sigmoid32(f) * c + sigmoid32(i) * tanh32(g)", f=forget, c=old, i=enter, g=candidate)
        rows.append((cell, r.map("sigmoid32(o) * tanh32(c)", o=leave, c=cell)))
    for i, (cell, hidden) in enumerate(rows):
        r.write(out, hidden, i * m + _flat(m))
        r.write(out, cell, (n + i) * m + _flat(m))


EDGES_TOGETHER = 16
"""Edges in one formula. The depth of a formula, and so that of the recursion that translates it, grows with its terms."""


@_translates("graph_forward")
def _graph_forward(r: PolicyRecorder, primitive: Primitive, tensors: Tensors, numbers: tuple[Any, ...]) -> None:
    out, sums, values, x, state, weight, bias, structure = tensors
    (batch,) = numbers
    words = r.read(structure)
    if batch != 1 or not isinstance(words, np.ndarray):
        raise Fault(f"{r.who} cannot be exported: its graph network has no translation for {batch} rows")
    inputs, nodes, outputs, recurrent = map(int, words[: graph_kernels.HEADER])
    own = inputs + nodes * recurrent
    rows: dict[int, Operand] = {}
    """The values that nodes read, by row."""

    def row(number: int) -> Operand:
        if number not in rows:
            tensor, at = (x, number) if number < inputs else (state, number - inputs)
            rows[number] = r.read(tensor, np.array([at]))
        return rows[number]

    place = graph_kernels.HEADER + outputs
    edge = 0
    for i in range(nodes):
        kind, aggregation, count = map(int, words[place : place + 3])
        own_bias = r.read(bias, np.array([i]))
        is_sum = aggregation == graph_kernels.SUM
        total: Operand = own_bias if is_sum else np.ones(1, np.float32)
        for first in range(0, count, EDGES_TOGETHER):
            operands = {"total": total}
            for e in range(first, min(count, first + EDGES_TOGETHER)):
                operands[f"w{e}"] = r.read(weight, np.array([edge + e]))
                operands[f"x{e}"] = row(int(words[place + 3 + e]))
            terms = [f"(w{e} * x{e})" for e in range(first, min(count, first + EDGES_TOGETHER))]
            total = r.map((" + " if is_sum else " * ").join(["total", *terms]), **operands)
        if not is_sum:
            total = r.map("total + b", total=total, b=own_bias)
        rows[own + i] = r.map(graph_kernels.FORMULAS[graph_kernels.ACTIVATIONS[kind]], z=total)
        r.write(sums, total, np.array([i]))
        r.write(values, rows[own + i], np.array([own + i]))
        place += 3 + count
        edge += count
    for o, number in enumerate(words[graph_kernels.HEADER : graph_kernels.HEADER + outputs]):
        r.write(out, row(int(number) + nodes * recurrent), np.array([o]))
