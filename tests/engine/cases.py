"""Every operation of the lab in one line: the call, a NumPy reference in float64, and the inputs.

A call is written once for both libraries: ``t`` is rl_lab in the tests, and torch in the script that records PyTorch's answers.
The reference defaults to the NumPy function of the same name, if there is one.
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

Shape = tuple[int, ...]

erf = np.vectorize(math.erf, otypes=[float])


@dataclass(frozen=True)
class Case:
    """``function(t, *tensors)`` with its reference on float64 arrays. The inputs are seeded values in (low, high), see `arrays`."""

    name: str
    function: Callable
    reference: Callable
    shapes: tuple[Shape, ...]
    low: float = -2.0
    high: float = 2.0

    def arrays(self, draw: int = 0) -> list[np.ndarray]:
        """The inputs: evenly spaced values in random order. No two values are close, because ties and kinks have no derivative."""
        generator = np.random.default_rng(len(self.name) + 1000 * draw)
        result = []
        for number, shape in enumerate(self.shapes):
            size = math.prod(shape)
            ranks = (generator.permutation(size) + (0.37 + 0.19 * number + 0.07 * draw) % 1) / max(size, 1)
            result.append((self.low + (self.high - self.low) * ranks).reshape(shape).astype(np.float32))
        return result


# --- variants of a case ----------------------------------------------------------------------------------------------


def each(name: str, function: Callable, reference: Callable, *shapes: Any, low: float = -2.0, high: float = 2.0) -> list[Case]:
    """One case per entry of ``shapes``: a shape, or a list of shapes for several inputs."""
    cases = []
    for entry in shapes:
        inputs = tuple(entry) if isinstance(entry, list) else (entry,)
        label = ",".join("x".join(map(str, shape)) or "0d" for shape in inputs)
        cases.append(Case(f"{name}[{label}]", function, reference, inputs, low, high))
    return cases


def through_views(case: Case) -> Iterator[Case]:
    """The case with its first input, a matrix, as a view: transposed, sliced, and expanded from a row. The leaf is the base."""
    (rows, columns), rest = case.shapes[0], case.shapes[1:]
    views = {
        "transposed": ((columns, rows), lambda x: x.transpose(1, 0) if isinstance(x, np.ndarray) else x.t()),
        "sliced": ((rows + 1, 2 * columns), lambda x: x[1:, ::2]),
        "expanded": (
            (1, columns),
            lambda x: np.broadcast_to(x, (rows, columns)) if isinstance(x, np.ndarray) else x.expand(rows, columns),
        ),
    }
    for label, (shape, view) in views.items():
        yield replace(
            case,
            name=f"{case.name}-{label}",
            function=lambda t, x, *others, view=view: case.function(t, view(x), *others),
            reference=lambda x, *others, view=view: case.reference(view(x), *others),
            shapes=(shape, *rest),
        )


def unary(name: str, function: Callable, reference: Callable, low: float = -2.0, high: float = 2.0) -> list[Case]:
    """Cases of a function of one tensor: a matrix, a scalar, an empty tensor, and views."""
    cases = each(name, function, reference, (2, 3), (), (0, 3), (2, 20), low=low, high=high)
    return [*cases, *through_views(cases[0])]


def binary(name: str, function: Callable, reference: Callable, low: float = -2.0, high: float = 2.0) -> list[Case]:
    """Cases of a function of two tensors: equal shapes, every kind of broadcasting, empty tensors, and views."""
    pairs = [[(2, 3), (2, 3)], [(3, 1), (1, 4)], [(), (2, 3)], [(2, 3), ()], [(3,), (2, 3)], [(2, 3), (2, 1)], [(4, 0), (4, 1)]]
    cases = each(name, function, reference, *pairs, [(2, 1, 3), (2, 4, 1)], low=low, high=high)
    return [*cases, *through_views(cases[0]), *through_views(cases[5])]


def loss(name: str, losses: Callable, shapes: Any, target: Any = None, **options: float) -> list[Case]:
    """Cases of a loss of `nn.functional` with its three reductions. ``target`` gives class numbers; else the second input is the target."""
    cases = []
    for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", np.array)):

        def function(t, a, *b, reduction=reduction):
            targets = b or (t.tensor(target),)
            return getattr(t.nn.functional, name)(a, *targets, reduction=reduction, **options)

        def reference(*arrays, reduce=reduce):
            return reduce(losses(*arrays))

        cases += each(f"{name} {reduction}", function, reference, shapes)
    return cases


# --- references ------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logsumexp(x, axis, keepdims=False):
    return np.log(np.exp(x).sum(axis, keepdims=keepdims))


def log_softmax(x, axis):
    return x - logsumexp(x, axis, True)


def smooth_l1(x, beta=1.0):
    return np.where(abs(x) < beta, x * x / (2 * beta), abs(x) - beta / 2)


def put(x, key, value):
    """A copy of x with x[key] = value."""
    x = x.copy()
    x[key] = value
    return x


def put_add(x, key, value):
    """A copy of x with value added at key. Repeated indices add up."""
    x = x.copy()
    np.add.at(x, key, value)
    return x


def written(t, x, key, value):
    """`put` for tensors: a write in place, recorded on the tape."""
    y = x.clone()
    y[key] = value
    return y


def changed(x, name, *arguments):
    """x.clone() changed by an in-place method."""
    return getattr(x.clone(), name)(*arguments)


def nll(log_p, target):
    return -log_p[np.arange(len(target)), target]


ALL = slice(None)
INDEX = [[0, 2, 2], [1, 0, 1]]  # for gather and scatter_add; 2 and 1 appear twice in a row
MASK = [[True, False, True], [False, False, True]]
CLASSES = [2, 0, 1, 2]

# --- the table -------------------------------------------------------------------------------------------------------

CASES: list[Case] = [
    # arithmetic
    *binary("add", lambda t, a, b: a + b, np.add),
    *binary("sub", lambda t, a, b: a - b, np.subtract),
    *binary("mul", lambda t, a, b: a * b, np.multiply),
    *binary("div", lambda t, a, b: a / b, np.divide, 0.5, 2.5),
    *binary("pow", lambda t, a, b: a**b, np.power, 0.5, 2.5),
    *binary("maximum", lambda t, a, b: t.maximum(a, b), np.maximum),
    *binary("minimum", lambda t, a, b: t.minimum(a, b), np.minimum),
    *binary("remainder", lambda t, a, b: a % b, np.remainder, 0.61, 2.73),
    *each("lerp", lambda t, a, b, w: a.lerp(b, w), lambda a, b, w: a + (b - a) * w, [(2, 3), (2, 3), (2, 3)]),
    *each("lerp number", lambda t, a, b: t.lerp(a, b, 0.3), lambda a, b: a + (b - a) * 0.3, [(2, 3), (2, 3)]),
    *each("add alpha", lambda t, a, b: t.add(a, b, alpha=3), lambda a, b: a + 3 * b, [(2, 3), (3,)]),
    *each("numbers", lambda t, a: 2 - (3 * a + 1) / 4 + 5 / (a + 4), lambda a: 2 - (3 * a + 1) / 4 + 5 / (a + 4), (2, 3), ()),
    *each("same operand", lambda t, a: a * a + a / (a * a + 1), lambda a: a * a + a / (a * a + 1), (2, 3)),
    *each("pow 2", lambda t, a: a**2, np.square, (2, 3)),
    *each("pow 3", lambda t, a: a**3, lambda a: a**3, (2, 3)),
    *each("pow 1", lambda t, a: a**1, lambda a: a, (2, 3)),
    *each("pow 0", lambda t, a: a**0, np.ones_like, (2, 3)),
    *each("pow -1.5", lambda t, a: a.pow(-1.5), lambda a: a**-1.5, (2, 3), low=0.5, high=2.0),
    *each("number pow", lambda t, a: 2.0**a, np.exp2, (2, 3)),
    *each("remainder number", lambda t, a: a % 0.7, lambda a: np.remainder(a, 0.7), (2, 3)),
    *each("div floor", lambda t, a, b: t.div(a, b, rounding_mode="floor"), np.floor_divide, [(2, 3), (2, 3)], low=0.6),
    *each("div trunc", lambda t, a: t.div(a, 0.45, rounding_mode="trunc"), lambda a: np.trunc(a / 0.45), (2, 3)),
    # functions
    *unary("neg", lambda t, a: -a, np.negative),
    *unary("abs", lambda t, a: a.abs(), np.abs),
    *unary("sign", lambda t, a: t.sign(a), np.sign),
    *unary("exp", lambda t, a: a.exp(), np.exp),
    *unary("expm1", lambda t, a: t.expm1(a), np.expm1),
    *unary("log", lambda t, a: a.log(), np.log, 0.3, 3),
    *unary("log1p", lambda t, a: t.log1p(a), np.log1p, -0.6, 3),
    *unary("log2", lambda t, a: t.log2(a), np.log2, 0.3, 3),
    *unary("lgamma", lambda t, a: t.lgamma(a), special.gammaln, 0.3, 6),
    *unary("digamma", lambda t, a: t.digamma(a), special.digamma, 0.3, 6),
    *unary("sqrt", lambda t, a: a.sqrt(), np.sqrt, 0.3, 3),
    *unary("rsqrt", lambda t, a: t.rsqrt(a), lambda a: a**-0.5, 0.3, 3),
    *unary("square", lambda t, a: t.square(a), np.square),
    *unary("reciprocal", lambda t, a: t.reciprocal(a), np.reciprocal, 0.3, 3),
    *unary("sin", lambda t, a: a.sin(), np.sin, -7, 7),
    *unary("cos", lambda t, a: a.cos(), np.cos, -7, 7),
    *unary("tanh", lambda t, a: a.tanh(), np.tanh, -4, 4),
    *unary("sigmoid", lambda t, a: t.sigmoid(a), sigmoid, -6, 6),
    *unary("relu", lambda t, a: t.relu(a), lambda a: np.maximum(a, 0)),
    *unary("softplus", lambda t, a: t.nn.functional.softplus(a), lambda a: np.log1p(np.exp(a)), -6, 6),
    *unary("logsigmoid", lambda t, a: t.nn.functional.logsigmoid(a), lambda a: -np.log1p(np.exp(-a)), -6, 6),
    *unary("silu", lambda t, a: t.nn.functional.silu(a), lambda a: a * sigmoid(a), -4, 4),
    *unary("gelu", lambda t, a: t.nn.functional.gelu(a), lambda a: a * (1 + erf(a / math.sqrt(2))) / 2),
    *unary(
        "gelu tanh",
        lambda t, a: t.nn.functional.gelu(a, approximate="tanh"),
        lambda a: a / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
    ),
    *unary("leaky_relu", lambda t, a: t.nn.functional.leaky_relu(a, 0.2), lambda a: np.where(a > 0, a, 0.2 * a)),
    *unary("erf", lambda t, a: t.erf(a), erf),
    *unary("floor", lambda t, a: a.floor(), np.floor),
    *unary("ceil", lambda t, a: a.ceil(), np.ceil),
    *unary("round", lambda t, a: a.round(), np.round),
    *unary("clamp", lambda t, a: a.clamp(-0.9, 1.1), lambda a: a.clip(-0.9, 1.1)),
    *each("clamp min", lambda t, a: t.clamp(a, min=-0.9), lambda a: a.clip(-0.9), (2, 3)),
    *each("clamp max", lambda t, a: a.clip(max=0.9), lambda a: a.clip(None, 0.9), (2, 3)),
    *each(
        "clamp tensors",
        lambda t, a, b, c: a.clamp(b, c.abs() + 1),
        lambda a, b, c: a.clip(b, abs(c) + 1),
        [(2, 3), (3,), (2, 1)],
        high=1.0,
    ),
    # choice
    *each(
        "where",
        lambda t, a, b: t.where(t.tensor(MASK), a, b),
        lambda a, b: np.where(MASK, a, b),
        [(2, 3), (2, 3)],
        [(3,), (2, 1)],
        [(), (2, 3)],
    ),
    *each("where number", lambda t, a: t.where(a > 0, a, 0.5), lambda a: np.where(a > 0, a, 0.5), (2, 3)),
    *each("where method", lambda t, a, b: a.where(a > b, b), np.maximum, [(2, 3), (2, 3)]),
    *each(
        "where broadcast condition",
        lambda t, a, b: t.where(t.tensor([True, False, True]), a, b),
        lambda a, b: np.where([True, False, True], a, b),
        [(2, 1), ()],
    ),
    *each("masked_fill", lambda t, a: a.masked_fill(t.tensor(MASK), -3.0), lambda a: np.where(MASK, -3, a), (2, 3), (3,)),
    # sums
    *unary("sum", lambda t, a: a.sum(), np.sum),
    *unary("sum last", lambda t, a: a.sum(-1), lambda a: a.sum(-1) if a.ndim else a),
    *each("sum first", lambda t, a: a.sum(0), lambda a: a.sum(0), (2, 3), (5, 20), (0, 3)),
    *each("sum middle", lambda t, a: a.sum(1, keepdim=True), lambda a: a.sum(1, keepdims=True), (2, 3, 4)),
    *each("sum outer", lambda t, a: t.sum(a, (0, 2)), lambda a: a.sum((0, 2)), (2, 3, 4)),
    *each("sum keepdim", lambda t, a: t.sum(a, dim=(0, -1), keepdim=True), lambda a: a.sum((0, 2), keepdims=True), (2, 3, 4)),
    *each("sum long row", lambda t, a: a.sum(-1), lambda a: a.sum(-1), (2, 37)),
    *unary("mean", lambda t, a: (a + 1).mean() if a.numel() else a.sum(), lambda a: (a + 1).mean() if a.size else a.sum()),
    *each("mean dim", lambda t, a: a.mean(1), lambda a: a.mean(1), (2, 3, 4), (2, 3)),
    *each("mean dims", lambda t, a: a.mean((0, 2), keepdim=True), lambda a: a.mean((0, 2), keepdims=True), (2, 3, 4)),
    *each("var", lambda t, a: a.var(), lambda a: a.var(ddof=1), (2, 3)),
    *each(
        "var dim", lambda t, a: t.var(a, 1, correction=0, keepdim=True), lambda a: a.var(1, keepdims=True), (3, 4), (2, 3, 2)
    ),
    *each("var biased", lambda t, a: t.var(a, 0, unbiased=False), lambda a: a.var(0), (3, 4)),
    *each("std", lambda t, a: a.std(), lambda a: a.std(ddof=1), (2, 3)),
    *each("std dim", lambda t, a: t.std(a, -1), lambda a: a.std(-1, ddof=1), (3, 4)),
    *each("std dims", lambda t, a: a.std((0, 2)), lambda a: a.std((0, 2), ddof=1), (2, 3, 2)),
    *each("norm", lambda t, a: a.norm(), lambda a: np.sqrt((a * a).sum()), (2, 3), ()),
    *each("norm dim", lambda t, a: t.norm(a, dim=1, keepdim=True), lambda a: np.sqrt((a * a).sum(1, keepdims=True)), (2, 3)),
    *each("norm 1", lambda t, a: a.norm(1, dim=0), lambda a: abs(a).sum(0), (2, 3)),
    *each("norm 3", lambda t, a: a.norm(3.0), lambda a: (abs(a) ** 3).sum() ** (1 / 3), (2, 3)),
    *each("norm inf", lambda t, a: a.norm(math.inf), lambda a: abs(a).max(), (2, 3)),
    *each("prod", lambda t, a: a.prod(), np.prod, (2, 3), (), (0,)),
    *each("prod dim", lambda t, a: t.prod(a, 1), lambda a: a.prod(1), (2, 3), (2, 3, 2)),
    *each("prod keepdim", lambda t, a: a.prod(0, keepdim=True), lambda a: a.prod(0, keepdims=True), (2, 3)),
    *each(
        "prod with zero",
        lambda t, a: (a * t.tensor([0.0, 1.0, 1.0])).prod(-1),
        lambda a: (a * np.array([0.0, 1, 1])).prod(-1),
        (2, 3),
    ),
    *each("cumsum", lambda t, a: a.cumsum(0), lambda a: a.cumsum(0), (4,), (2, 3), (3, 2, 2), (0, 2)),
    *each("cumsum last", lambda t, a: t.cumsum(a, -1), lambda a: a.cumsum(-1), (2, 3), (2, 3, 2)),
    *each("logsumexp", lambda t, a: a.logsumexp(-1), lambda a: logsumexp(a, -1), (2, 3), (2, 3, 4), low=-5, high=5),
    *each("logsumexp dims", lambda t, a: t.logsumexp(a, (0, 2), keepdim=True), lambda a: logsumexp(a, (0, 2), True), (2, 3, 4)),
    *each("softmax", lambda t, a: a.softmax(-1), lambda a: np.exp(log_softmax(a, -1)), (3,), (2, 3), (2, 3, 4), low=-4, high=4),
    *each("softmax first", lambda t, a: t.softmax(a, 0), lambda a: np.exp(log_softmax(a, 0)), (2, 3)),
    *each("softmax middle", lambda t, a: t.nn.functional.softmax(a, dim=1), lambda a: np.exp(log_softmax(a, 1)), (2, 3, 4)),
    *each("log_softmax", lambda t, a: a.log_softmax(-1), lambda a: log_softmax(a, -1), (3,), (2, 3), (2, 3, 4), low=-4, high=4),
    *each("log_softmax first", lambda t, a: t.log_softmax(a, 0), lambda a: log_softmax(a, 0), (2, 3), (4, 2, 3)),
    # extremes
    *each("max", lambda t, a: a.max(), np.max, (2, 3), ()),
    *each("min", lambda t, a: t.min(a), np.min, (2, 3), ()),
    *each("max dim", lambda t, a: a.max(1).values, lambda a: a.max(1), (2, 3), (2, 3, 4)),
    *each("max keepdim", lambda t, a: t.max(a, 0, keepdim=True)[0], lambda a: a.max(0, keepdims=True), (2, 3)),
    *each("max last", lambda t, a: a.max(dim=-1)[0], lambda a: a.max(-1), (2, 3)),
    *each("min dim", lambda t, a: a.min(-1).values, lambda a: a.min(-1), (2, 3)),
    *each("max other", lambda t, a, b: t.max(a, b), np.maximum, [(2, 3), (3,)]),
    *each("min other", lambda t, a, b: a.min(b), np.minimum, [(2, 3), (2, 3)]),
    *each("amax", lambda t, a: a.amax((0, 2)), lambda a: a.max((0, 2)), (2, 3, 4)),
    *each("amax dim", lambda t, a: t.amax(a, -1, keepdim=True), lambda a: a.max(-1, keepdims=True), (2, 3)),
    *each("amin", lambda t, a: a.amin(0), lambda a: a.min(0), (2, 3)),
    # products of matrices
    *each(
        "matmul",
        lambda t, a, b: a @ b,
        np.matmul,
        [(2, 3), (3, 4)],
        [(3,), (3,)],
        [(2, 3), (3,)],
        [(3,), (3, 2)],
        [(1, 1), (1, 1)],
    ),
    *each(
        "matmul batch",
        lambda t, a, b: t.matmul(a, b),
        np.matmul,
        [(2, 2, 3), (2, 3, 2)],
        [(2, 2, 3), (3, 2)],
        [(2, 3), (2, 3, 2)],
    ),
    *each("matmul batch broadcast", lambda t, a, b: a @ b, np.matmul, [(2, 1, 2, 3), (3, 3, 2)], [(1, 2, 3), (2, 3, 2)]),
    *each("matmul batch vector", lambda t, a, b: a @ b, np.matmul, [(2, 2, 3), (3,)], [(3,), (2, 3, 2)]),
    *each("matmul empty", lambda t, a, b: a @ b, np.matmul, [(2, 0), (0, 3)], [(0, 2), (2, 3)], [(2, 3), (3, 0)]),
    *through_views(Case("matmul", lambda t, a, b: a @ b, np.matmul, ((2, 3), (3, 4)))),
    *each("matmul tn", lambda t, a, b: a.t() @ b, lambda a, b: a.T @ b, [(3, 2), (3, 4)]),
    *each("matmul nt", lambda t, a, b: a @ b.t(), lambda a, b: a @ b.T, [(2, 3), (4, 3)]),
    *each("matmul tt", lambda t, a, b: a.T @ b.mT, lambda a, b: a.T @ b.T, [(3, 2), (4, 3)]),
    *each(
        "matmul batch transposed",
        lambda t, a, b: a.transpose(1, 2) @ b,
        lambda a, b: a.transpose(0, 2, 1) @ b,
        [(2, 3, 2), (2, 3, 2)],
    ),
    *each("matmul same", lambda t, a: a @ a.t(), lambda a: a @ a.T, (2, 3)),
    *each("mm", lambda t, a, b: t.mm(a, b), np.matmul, [(2, 3), (3, 4)]),
    *each("bmm", lambda t, a, b: a.bmm(b), np.matmul, [(2, 2, 3), (2, 3, 2)]),
    *each("mv", lambda t, a, b: a.mv(b), np.matmul, [(2, 3), (3,)]),
    *each("dot", lambda t, a, b: t.dot(a, b), np.dot, [(3,), (3,)]),
    *each("outer", lambda t, a, b: t.outer(a, b), np.outer, [(3,), (2,)]),
    *each(
        "linear",
        lambda t, x, w, b: t.nn.functional.linear(x, w, b),
        lambda x, w, b: x @ w.T + b,
        [(2, 3), (4, 3), (4,)],
        [(3,), (4, 3), (4,)],
        [(2, 2, 3), (4, 3), (4,)],
        [(0, 3), (4, 3), (4,)],
    ),
    *each(
        "linear no bias",
        lambda t, x, w: t.nn.functional.linear(x, w),
        lambda x, w: x @ w.T,
        [(2, 3), (4, 3)],
        [(2, 2, 3), (4, 3)],
    ),
    *through_views(
        Case("linear", lambda t, x, w, b: t.nn.functional.linear(x, w, b), lambda x, w, b: x @ w.T + b, ((2, 3), (4, 3), (4,)))
    ),
    # layout
    *each("clone", lambda t, a: a.clone(), lambda a: a, (2, 3)),
    *each("reshape", lambda t, a: a.reshape(3, -1), lambda a: a.reshape(3, -1), (2, 3), (2, 3, 2)),
    *each("reshape transposed", lambda t, a: a.t().reshape(6), lambda a: a.T.reshape(6), (2, 3)),
    *each("view", lambda t, a: a.view(3, 2), lambda a: a.reshape(3, 2), (2, 3)),
    *each("view of slice", lambda t, a: a[:, 1:].view(3, 1, 2, 1), lambda a: a[:, 1:].reshape(3, 1, 2, 1), (3, 3)),
    *each("permute", lambda t, a: a.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1), (2, 3, 4)),
    *each("transpose", lambda t, a: t.transpose(a, 0, -1), lambda a: a.swapaxes(0, -1), (2, 3), (2, 3, 4)),
    *each("t contiguous", lambda t, a: a.T.contiguous() * a.t(), lambda a: a.T * a.T, (2, 3)),
    *each("expand", lambda t, a: a.expand(4, -1, 3), lambda a: np.broadcast_to(a, (4, 2, 3)), (2, 1), (1, 2, 3)),
    *each("expand_as", lambda t, a, b: a.expand_as(b) * b, np.multiply, [(3,), (2, 3)]),
    *each("sum_to_size", lambda t, a: a.sum_to_size(3, 1), lambda a: a.sum((0, 2)).reshape(3, 1), (2, 3, 4)),
    *each("squeeze", lambda t, a: a.squeeze(), lambda a: a.squeeze(), (1, 3, 1), (2, 3)),
    *each("squeeze dim", lambda t, a: t.squeeze(a, -1), lambda a: a.squeeze(-1), (1, 3, 1)),
    *each("squeeze large dim", lambda t, a: a.squeeze(1), lambda a: a, (1, 3, 1)),
    *each("unsqueeze", lambda t, a: a.unsqueeze(-1), lambda a: a[..., None], (2, 3), ()),
    *each("flatten", lambda t, a: a.flatten(), np.ravel, (2, 3), ()),
    *each("flatten from", lambda t, a: t.flatten(a, 1), lambda a: a.reshape(2, -1), (2, 3, 4)),
    *each("narrow", lambda t, a: a.narrow(1, 1, 2), lambda a: a[:, 1:3], (2, 4)),
    *each("select", lambda t, a: a.select(1, -1), lambda a: a[:, -1], (2, 3)),
    *each("unbind", lambda t, a: a.unbind(1)[1] * a.unbind(0)[0][0], lambda a: a[:, 1] * a[0, 0], (2, 3)),
    *each("split", lambda t, a: a.split(2)[1].sum() * a.split([1, 4])[1], lambda a: a[2:4].sum() * a[1:], (5,), (5, 2)),
    *each("split dim", lambda t, a: t.split(a, 2, dim=1)[-1], lambda a: a[:, 2:], (2, 3)),
    *each("chunk", lambda t, a: t.cat(a.chunk(2, dim=1)[::-1], 1), lambda a: np.concatenate([a[:, 2:], a[:, :2]], 1), (2, 3)),
    *each("cat", lambda t, a, b: t.cat([a, b, a]), lambda a, b: np.concatenate([a, b, a]), [(2, 3), (1, 3)], [(0, 3), (2, 3)]),
    *each("cat dim", lambda t, a, b: t.cat((a, b), dim=-1), lambda a, b: np.concatenate([a, b], -1), [(2, 3), (2, 1)]),
    *each(
        "cat views",
        lambda t, a, b: t.cat([a.t(), b.expand(3, 2)]),
        lambda a, b: np.concatenate([a.T, np.broadcast_to(b, (3, 2))]),
        [(2, 3), (2,)],
    ),
    *each("stack", lambda t, a, b: t.stack([a, b, b]), lambda a, b: np.stack([a, b, b]), [(2, 3), (2, 3)], [(), ()]),
    *each("stack last", lambda t, a, b: t.stack((a, b), dim=-1), lambda a, b: np.stack([a, b], -1), [(2, 3), (2, 3)]),
    *each("float", lambda t, a: a.float().to(t.float32).cpu(), lambda a: a, (2, 3)),
    # indexing
    *each("index int", lambda t, a: a[1], lambda a: a[1], (2, 3), (3,)),
    *each("index ints", lambda t, a: a[1, -1], lambda a: a[1, -1], (2, 3), (2, 3, 4)),
    *each("index slice", lambda t, a: a[1:], lambda a: a[1:], (3,), (3, 2)),
    *each("index step", lambda t, a: a[::2, 1::2], lambda a: a[::2, 1::2], (3, 5)),
    *each("index beyond", lambda t, a: a[-9:9, 7:], lambda a: a[-9:9, 7:], (2, 3)),
    *each("index none", lambda t, a: a[:, None, 1], lambda a: a[:, None, 1], (2, 3)),
    *each("index ellipsis", lambda t, a: a[..., 1], lambda a: a[..., 1], (3,), (2, 3), (2, 3, 4)),
    *each("index ellipsis inside", lambda t, a: a[1, ..., :2, None], lambda a: a[1, ..., :2, None], (2, 3, 4), (2, 3)),
    *each("index tensor", lambda t, a: a[t.tensor([2, 0, 2, -1])], lambda a: a[[2, 0, 2, -1]], (3,), (3, 2)),
    *each("index matrix", lambda t, a: a[t.tensor([[2, 0], [1, 2]])], lambda a: a[np.array([[2, 0], [1, 2]])], (3,), (3, 2)),
    *each("index second", lambda t, a: a[:, t.tensor([2, 0, 2])], lambda a: a[:, [2, 0, 2]], (2, 3), (2, 3, 2)),
    *each(
        "index pairs",
        lambda t, a: a[t.arange(3), t.tensor(CLASSES[:3])],
        lambda a: a[np.arange(3), CLASSES[:3]],
        (3, 3),
        (3, 3, 2),
    ),
    *each(
        "index broadcast", lambda t, a: a[t.tensor([[0], [1]]), t.tensor([0, 2, 2])], lambda a: a[[[0], [1]], [0, 2, 2]], (2, 3)
    ),
    *each("index apart", lambda t, a: a[t.tensor([1, 0]), :, t.tensor([2, 1])], lambda a: a[[1, 0], :, [2, 1]], (2, 3, 4)),
    *each("index mixed", lambda t, a: a[1, :, t.tensor([2, 1])], lambda a: a[1][:, [2, 1]], (2, 3, 4)),
    *each("index slice and tensor", lambda t, a: a[1:, t.tensor([1, 1])], lambda a: a[1:, [1, 1]], (3, 2)),
    *each("index list", lambda t, a: a[[2, 0]], lambda a: a[[2, 0]], (3, 2)),
    *each("index scalar tensor", lambda t, a: a[t.tensor(1)], lambda a: a[1], (3, 2)),
    *each("index mask", lambda t, a: a[t.tensor(MASK)], lambda a: a[np.array(MASK)], (2, 3), (2, 3, 2)),
    *each(
        "index mask of rows",
        lambda t, a: a[t.tensor([True, False, True]), 1],
        lambda a: a[np.array([True, False, True]), 1],
        (3, 2),
    ),
    *each(
        "index mask of columns", lambda t, a: a[:, t.tensor([True, False, True])], lambda a: a[:, [True, False, True]], (2, 3)
    ),
    *each("index empty mask", lambda t, a: a[t.tensor(MASK) & False], lambda a: a[np.zeros((2, 3), bool)], (2, 3)),
    *each("index nothing", lambda t, a: a[t.tensor([], dtype=t.long)], lambda a: a[[]], (3, 2)),
    *each(
        "masked_select",
        lambda t, a: t.masked_select(a, t.tensor(MASK)),
        lambda a: np.broadcast_to(a, (2, 3))[np.array(MASK)],
        (2, 3),
        (3,),
    ),
    *through_views(Case("index tensor", lambda t, a: a[t.tensor([1, 0, 1])], lambda a: a[[1, 0, 1]], ((2, 3),))),
    *each("index_select", lambda t, a: a.index_select(1, t.tensor([2, 0, 2])), lambda a: a[:, [2, 0, 2]], (2, 3), (2, 3, 2)),
    *each("gather", lambda t, a: a.gather(1, t.tensor(INDEX)), lambda a: np.take_along_axis(a, np.array(INDEX), 1), (2, 3)),
    *each("gather first", lambda t, a: t.gather(a, 0, t.tensor(INDEX)), lambda a: a[INDEX, range(3)], (3, 3)),
    *each("gather smaller", lambda t, a: a.gather(1, t.tensor([[3], [1]])), lambda a: a[[[0], [1]], [[3], [1]]], (4, 4)),
    *each("gather vector", lambda t, a: a.gather(0, t.tensor([1, 1])), lambda a: a[[1, 1]], (3,)),
    *through_views(
        Case(
            "gather", lambda t, a: a.gather(1, t.tensor(INDEX)), lambda a: np.take_along_axis(a, np.array(INDEX), 1), ((2, 3),)
        )
    ),
    *each(
        "scatter_add",
        lambda t, a, b: a.scatter_add(0, t.tensor(INDEX), b),
        lambda a, b: put_add(a, (INDEX, range(3)), b),
        [(4, 3), (2, 3)],
    ),
    *each(
        "scatter_add last",
        lambda t, a, b: t.scatter_add(a, 1, t.tensor(INDEX), b),
        lambda a, b: put_add(a, ([[0], [1]], INDEX), b),
        [(2, 4), (2, 3)],
    ),
    *each(
        "write slice",
        lambda t, a, b: written(t, a, slice(1, 3), b),
        lambda a, b: put(a, slice(1, 3), b),
        [(4,), (2,)],
        [(4, 3), (3,)],
        [(4, 3), (2, 1)],
    ),
    *each("write element", lambda t, a, b: written(t, a, (1, 2), b), lambda a, b: put(a, (1, 2), b), [(2, 3), ()]),
    *each("write number", lambda t, a: written(t, a, (ALL, 1), 0.5), lambda a: put(a, (ALL, 1), 0.5), (2, 3)),
    *each(
        "write rows",
        lambda t, a, b: written(t, a, t.tensor([2, 0]), b),
        lambda a, b: put(a, [2, 0], b),
        [(3, 2), (2, 2)],
        [(3, 2), (2,)],
        [(3,), ()],
    ),
    *each(
        "write columns",
        lambda t, a, b: written(t, a, (ALL, t.tensor([2, 0])), b),
        lambda a, b: put(a, (ALL, [2, 0]), b),
        [(2, 3), (2, 2)],
    ),
    *each(
        "write pairs",
        lambda t, a, b: written(t, a, (t.tensor([0, 1]), t.tensor([2, 0])), b),
        lambda a, b: put(a, ([0, 1], [2, 0]), b),
        [(2, 3), (2,)],
    ),
    *each("write mask", lambda t, a: written(t, a, t.tensor(MASK), -1.0), lambda a: put(a, np.array(MASK), -1.0), (2, 3)),
    *each(
        "write masked values",
        lambda t, a, b: written(t, a, t.tensor(MASK), b),
        lambda a, b: put(a, np.array(MASK), b),
        [(2, 3), (3,)],
    ),
    # in place, on a copy
    *each("add_", lambda t, a, b: changed(a, "add_", b), np.add, [(2, 3), (3,)], [(2, 3), ()]),
    *each("sub_", lambda t, a, b: changed(a, "sub_", b), np.subtract, [(2, 3), (2, 3)]),
    *each("mul_", lambda t, a, b: changed(a, "mul_", b), np.multiply, [(2, 3), (2, 1)]),
    *each("div_", lambda t, a, b: changed(a, "div_", b), np.divide, [(2, 3), (3,)], low=0.5),
    *each("pow_", lambda t, a: changed(a, "pow_", 3), lambda a: a**3, (2, 3)),
    *each("lerp_", lambda t, a, b: changed(a, "lerp_", b, 0.25), lambda a, b: 0.75 * a + 0.25 * b, [(2, 3), (2, 3)]),
    *each("clamp_", lambda t, a: changed(a, "clamp_", -1.1, 0.9), lambda a: a.clip(-1.1, 0.9), (2, 3)),
    *each("exp_", lambda t, a: changed(a, "exp_"), np.exp, (2, 3)),
    *each("tanh_", lambda t, a: changed(a, "tanh_"), np.tanh, (2, 3)),
    *each("relu_", lambda t, a: changed(a, "relu_"), lambda a: np.maximum(a, 0), (2, 3)),
    *each("sigmoid_", lambda t, a: changed(a, "sigmoid_"), sigmoid, (2, 3)),
    *each("sqrt_", lambda t, a: changed(a, "sqrt_"), np.sqrt, (2, 3), low=0.3),
    *each("neg_", lambda t, a: changed(a, "neg_"), np.negative, (2, 3)),
    *each("masked_fill_", lambda t, a: changed(a, "masked_fill_", t.tensor(MASK), 2.0), lambda a: np.where(MASK, 2, a), (2, 3)),
    *each("zero_", lambda t, a, b: changed(a, "zero_") + a * b, np.multiply, [(2, 3), (2, 3)]),
    *each("copy_", lambda t, a, b: changed(a, "copy_", b) * a, np.multiply, [(2, 3), (3,)]),
    *each(
        "scatter_add_",
        lambda t, a, b: changed(a, "scatter_add_", 0, t.tensor(INDEX), b),
        lambda a, b: put_add(a, (INDEX, range(3)), b),
        [(4, 3), (2, 3)],
    ),
    # losses
    *loss("mse_loss", lambda a, b: (a - b) ** 2, [(2, 3), (2, 3)]),
    *loss("l1_loss", lambda a, b: abs(a - b), [(2, 3), (2, 3)]),
    *loss("smooth_l1_loss", lambda a, b: smooth_l1(a - b), [(2, 3), (2, 3)]),
    *loss("huber_loss", lambda a, b: 0.7 * smooth_l1(a - b, 0.7), [(2, 3), (2, 3)], delta=0.7),
    *loss("nll_loss", lambda a: nll(a, CLASSES), (4, 3), target=CLASSES),
    *loss("cross_entropy", lambda a: nll(log_softmax(a, 1), CLASSES), (4, 3), target=CLASSES),
    *each(
        "smooth_l1_loss beta",
        lambda t, a, b: t.nn.functional.smooth_l1_loss(a, b, beta=0.5),
        lambda a, b: smooth_l1(a - b, 0.5).mean(),
        [(2, 3), (2, 3)],
    ),
    *each(
        "smooth_l1_loss beta 0",
        lambda t, a, b: t.nn.functional.smooth_l1_loss(a, b, beta=0.0),
        lambda a, b: abs(a - b).mean(),
        [(2, 3), (2, 3)],
    ),
    *each(
        "cross_entropy one", lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(1)), lambda a: -log_softmax(a, 0)[1], (3,)
    ),
    *each(
        "cross_entropy smoothed",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), label_smoothing=0.1),
        lambda a: (0.9 * nll(log_softmax(a, 1), CLASSES) - 0.1 * log_softmax(a, 1).mean(1)).mean(),
        (4, 3),
    ),
    *each(
        "cross_entropy probabilities",
        lambda t, a, b: t.nn.functional.cross_entropy(a, b),
        lambda a, b: -(b * log_softmax(a, 1)).sum(1).mean(),
        [(2, 3), (2, 3)],
    ),
    # a whole network
    *each(
        "network",
        lambda t, x, w, b, v: (t.tanh(t.nn.functional.linear(x, w, b)) @ v).square().mean(),
        lambda x, w, b, v: (np.tanh(x @ w.T + b) @ v).__pow__(2).mean(),
        [(5, 2), (3, 2), (3,), (3, 1)],
    ),
]


# --- operations without a gradient -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Discrete:
    """A call without a derivative, compared in value and dtype. ``reference`` gives a float64, int64 or bool array."""

    name: str
    function: Callable
    reference: Callable
    inputs: tuple[Any, ...]

    def arrays(self) -> list[np.ndarray]:
        return [a.astype(np.float32) if a.dtype == np.float64 else a for a in map(np.asarray, self.inputs)]


X = [[1.5, -0.5, 2.5], [0.0, -2.5, 1.5]]
Y = [[1.5, 0.5, -2.5], [0.0, -3.5, 2.5]]
I = [[7, -7, 3], [0, 5, -4]]  # noqa: E741
J = [[2, 2, -3], [5, -3, -4]]
P = [[True, False, True], [False, False, True]]
Q = [[True, True, False], [False, True, True]]
SPECIAL = [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan]
TIES = [[1, 3, 3], [2, 2, 2]]


def comparisons() -> Iterator[Discrete]:
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        reference = getattr(operator, name)
        for label, inputs in (
            ("float", (X, Y)),
            ("int", (I, J)),
            ("bool", (P, Q)),
            ("mixed", (X, J)),
            ("broadcast", (X, [[1.5], [0.0]])),
        ):
            yield Discrete(f"{name} {label}", lambda t, a, b, n=name: getattr(a, n)(b), reference, inputs)
        yield Discrete(f"{name} number", lambda t, a, n=name: getattr(t, n)(a, 1.5), lambda a, f=reference: f(a, 1.5), (X,))
        yield Discrete(
            f"{name} special",
            lambda t, a, n=name: getattr(a.unsqueeze(0), n)(a.unsqueeze(1)),
            lambda a, f=reference: f(a[None], a[:, None]),
            (SPECIAL,),
        )


DISCRETE: list[Discrete] = [
    *comparisons(),
    # int64 and bool arithmetic
    Discrete("int add", lambda t, a, b: a + b, np.add, (I, J)),
    Discrete("int sub", lambda t, a, b: 1 - a - b, lambda a, b: 1 - a - b, (I, J)),
    Discrete("int mul", lambda t, a, b: a * b * 3, lambda a, b: a * b * 3, (I, J)),
    Discrete("int div", lambda t, a, b: a / b, np.divide, (I, J)),
    Discrete("int floordiv", lambda t, a, b: a // b, np.floor_divide, (I, J)),
    Discrete("int floordiv number", lambda t, a: a // 2, lambda a: a // 2, (I,)),
    Discrete("int remainder", lambda t, a, b: a % b, np.remainder, (I, J)),
    Discrete("int pow", lambda t, a: a**2, np.square, (I,)),
    Discrete("int neg", lambda t, a: -a, np.negative, (I,)),
    Discrete("int abs", lambda t, a: a.abs(), np.abs, (I,)),
    Discrete("int sign", lambda t, a: a.sign(), np.sign, (I,)),
    Discrete("int maximum", lambda t, a, b: t.maximum(a, b), np.maximum, (I, J)),
    Discrete("int minimum", lambda t, a, b: t.minimum(a, b), np.minimum, (I, J)),
    Discrete("int clamp", lambda t, a: a.clamp(-3, 4), lambda a: a.clip(-3, 4), (I,)),
    Discrete("int and float", lambda t, a, b: a + b, np.add, (I, X)),
    Discrete("int and float number", lambda t, a: a * 0.5, lambda a: a * 0.5, (I,)),
    Discrete("bool and int", lambda t, a, b: a * b, np.multiply, (P, I)),
    Discrete("bool and number", lambda t, a: a + 1, lambda a: a + 1, (P,)),
    Discrete("bool and float", lambda t, a, b: a * b, np.multiply, (P, X)),
    Discrete("int exp", lambda t, a: t.exp(a), np.exp, (TIES,)),
    Discrete("int where", lambda t, p, a, b: t.where(p, a, b), np.where, (P, I, J)),
    Discrete("bool where", lambda t, p, a, b: t.where(p, a, b), np.where, (P, P, Q)),
    Discrete("where of numbers", lambda t, p: t.where(p, 1.0, 0.0), lambda p: np.where(p, 1.0, 0.0), (P,)),
    # logic
    Discrete("and", lambda t, a, b: a & b, np.logical_and, (P, Q)),
    Discrete("or", lambda t, a, b: a | b, np.logical_or, (P, Q)),
    Discrete("xor", lambda t, a, b: a ^ b, np.logical_xor, (P, Q)),
    Discrete("not", lambda t, a: ~a, np.logical_not, (P,)),
    Discrete("logical_and", lambda t, a, b: t.logical_and(a, b), np.logical_and, (X, I)),
    Discrete("logical_or", lambda t, a, b: t.logical_or(a, b), np.logical_or, (X, Y)),
    Discrete("logical_xor", lambda t, a, b: t.logical_xor(a, b), np.logical_xor, (I, J)),
    Discrete("logical_not", lambda t, a: t.logical_not(a), np.logical_not, (X,)),
    Discrete("isnan", lambda t, a: t.isnan(a), np.isnan, (SPECIAL,)),
    Discrete("isinf", lambda t, a: t.isinf(a), np.isinf, (SPECIAL,)),
    Discrete("isfinite", lambda t, a: a.isfinite(), np.isfinite, (SPECIAL,)),
    Discrete("any", lambda t, a: a.any(), np.any, (P,)),
    Discrete("any dim", lambda t, a: t.any(a, 1), lambda a: a.any(1), (P,)),
    Discrete("any float", lambda t, a: a.any(0, keepdim=True), lambda a: a.any(0, keepdims=True), (X,)),
    Discrete("all", lambda t, a: a.all(), np.all, (P,)),
    Discrete("all dim", lambda t, a: t.all(a, -1), lambda a: a.all(-1), (Q,)),
    # reductions of integers, positions
    Discrete("int sum", lambda t, a: a.sum(), np.sum, (I,)),
    Discrete("int sum dim", lambda t, a: a.sum(0), lambda a: a.sum(0), (I,)),
    Discrete("bool sum", lambda t, a: a.sum(1), lambda a: a.sum(1), (P,)),
    Discrete("int prod", lambda t, a: a.prod(1), lambda a: a.prod(1), (I,)),
    Discrete("int prod large", lambda t, a: a.prod(), np.prod, ([3001, 3001, 3001],)),
    Discrete("int cumsum", lambda t, a: a.cumsum(-1), lambda a: a.cumsum(-1), (I,)),
    Discrete("int cumsum large", lambda t, a: a.cumsum(0), lambda a: a.cumsum(0), ([2**24, 1, 1],)),
    Discrete("int max", lambda t, a: a.max(), np.max, (I,)),
    Discrete("int min", lambda t, a: a.min(), np.min, (I,)),
    Discrete("int max dim", lambda t, a: a.max(1).values, lambda a: a.max(1), (I,)),
    Discrete("int amin", lambda t, a: a.amin(0), lambda a: a.min(0), (I,)),
    Discrete("argmax", lambda t, a: a.argmax(), np.argmax, (X,)),
    Discrete("argmax dim", lambda t, a: t.argmax(a, 1), lambda a: a.argmax(1), (X,)),
    Discrete("argmax keepdim", lambda t, a: a.argmax(0, keepdim=True), lambda a: a.argmax(0)[None], (X,)),
    Discrete("argmax nan", lambda t, a: a.argmax(), lambda a: np.argmax(a), (SPECIAL,)),
    Discrete("argmin", lambda t, a: a.argmin(), np.argmin, (X,)),
    Discrete("argmin dim", lambda t, a: t.argmin(a, -1), lambda a: a.argmin(-1), (Y,)),
    Discrete("argmax ties", lambda t, a: a.argmax(1), lambda a: a.argmax(1), (TIES,)),
    Discrete("max indices", lambda t, a: a.max(1).indices, lambda a: a.argmax(1), (X,)),
    Discrete("min indices", lambda t, a: a.min(0)[1], lambda a: a.argmin(0), (X,)),
    Discrete("max nan", lambda t, a: a.max(), np.max, (SPECIAL,)),
    # conversions
    Discrete("long", lambda t, a: a.long(), np.trunc, (X,)),
    Discrete("int", lambda t, a: (a * 2).long(), lambda a: 2 * a, (Y,)),
    Discrete("bool", lambda t, a: a.bool(), lambda a: a != 0, (X,)),
    Discrete("float of int", lambda t, a: a.float(), lambda a: a.astype(float), (I,)),
    Discrete("float of bool", lambda t, a: a.to(t.float32), lambda a: a.astype(float), (P,)),
    Discrete("round half to even", lambda t, a: a.round(), np.round, (X,)),
    Discrete("one_hot", lambda t, a: t.nn.functional.one_hot(a, 4), lambda a: np.eye(4)[a], (TIES,)),
    Discrete("one_hot inferred", lambda t, a: t.nn.functional.one_hot(a), lambda a: np.eye(4)[a], (TIES,)),
    # layout and indexing of integers and bools
    Discrete("int transposed", lambda t, a: a.t().contiguous().view(-1), lambda a: a.T.reshape(-1), (I,)),
    Discrete("int cat", lambda t, a, b: t.cat([a, b]), lambda a, b: np.concatenate([a, b]), (I, J)),
    Discrete("cat of dtypes", lambda t, a, b: t.cat([a, b]), lambda a, b: np.concatenate([a, b]), (I, X)),
    Discrete("bool stack", lambda t, a, b: t.stack([a, b]), lambda a, b: np.stack([a, b]), (P, Q)),
    Discrete("int index", lambda t, a: a[:, t.tensor([2, 0])], lambda a: a[:, [2, 0]], (I,)),
    Discrete("bool index", lambda t, a: a[t.tensor([1, 0, 1])], lambda a: a[[1, 0, 1]], (P,)),
    Discrete("int mask", lambda t, a: a[a > 0], lambda a: a[a > 0], (I,)),
    Discrete(
        "int gather", lambda t, a: a.gather(1, t.tensor(INDEX)), lambda a: np.take_along_axis(a, np.array(INDEX), 1), (I,)
    ),
    Discrete(
        "bool gather", lambda t, a: a.gather(1, t.tensor(INDEX)), lambda a: np.take_along_axis(a, np.array(INDEX), 1), (P,)
    ),
    Discrete("int write", lambda t, a: written(t, a, (0, slice(1, None)), 9), lambda a: put(a, (0, slice(1, None)), 9), (I,)),
    Discrete(
        "int write rows", lambda t, a: written(t, a, (ALL, t.tensor([0, 2])), 9), lambda a: put(a, (ALL, [0, 2]), 9), (I,)
    ),
    Discrete("bool write", lambda t, a: written(t, a, 1, True), lambda a: put(a, 1, True), (P,)),
    Discrete("int masked_fill", lambda t, a, p: a.masked_fill(p, 5), lambda a, p: np.where(p, 5, a), (I, P)),
    Discrete("int in place", lambda t, a, b: a.clone().add_(b).mul_(2).sub_(1), lambda a, b: (a + b) * 2 - 1, (I, J)),
    # creation
    Discrete("arange", lambda t: t.arange(2, 11, 3), lambda: np.arange(2, 11, 3), ()),
    Discrete("arange down", lambda t: t.arange(5, 0, -2), lambda: np.arange(5, 0, -2), ()),
    Discrete("arange float", lambda t: t.arange(0.0, 1.0, 0.25), lambda: np.arange(0.0, 1.0, 0.25), ()),
    Discrete("linspace", lambda t: t.linspace(-1.0, 1.0, 5), lambda: np.linspace(-1.0, 1.0, 5), ()),
    Discrete("zeros", lambda t: t.zeros(2, 3), lambda: np.zeros((2, 3)), ()),
    Discrete("ones int", lambda t: t.ones((2,), dtype=t.long), lambda: np.ones(2, np.int64), ()),
    Discrete("full", lambda t: t.full((2, 2), 7), lambda: np.full((2, 2), 7), ()),
    Discrete("full float", lambda t: t.full((2,), 0.5), lambda: np.full(2, 0.5), ()),
    Discrete("eye", lambda t: t.eye(2, 3), lambda: np.eye(2, 3), ()),
    Discrete("zeros_like", lambda t, a: t.zeros_like(a), np.zeros_like, (I,)),
    Discrete("ones_like", lambda t, a: t.ones_like(a.t()), lambda a: np.ones_like(a.T), (X,)),
    Discrete("full_like", lambda t, a: t.full_like(a, 2.0), lambda a: np.full_like(a, 2.0), (X,)),
    Discrete("new_zeros", lambda t, a: a.new_zeros(2, 2), lambda a: np.zeros((2, 2), np.int64), (I,)),
    Discrete("new_tensor", lambda t, a: a.new_tensor([1, 2]), lambda a: np.array([1.0, 2.0]), (X,)),
]


# --- running a case in either library --------------------------------------------------------------------------------


def first_and_second(t: Any, case: Case, cotangent: np.ndarray, draw: int = 0) -> list[Any]:
    """(value, gradients, gradients of sum(gradients * direction) with respect to the inputs and the cotangent), computed by library ``t``.

    None stands for a gradient that does not exist. The directions are the inputs plus one.
    """
    inputs = [t.tensor(array, requires_grad=True) for array in case.arrays(draw)]
    pull = t.tensor(cotangent, requires_grad=True)
    value = case.function(t, *inputs)
    if not value.requires_grad:
        return [value, *[None] * (2 * len(inputs) + 1)]
    gradients = list(t.autograd.grad(value, inputs, pull, create_graph=True, allow_unused=True))
    terms = [(g * (x.detach() + 1)).sum() for g, x in zip(gradients, inputs, strict=True) if g is not None and g.requires_grad]
    if not terms:
        return [value, *gradients, *[None] * (len(inputs) + 1)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return [value, *gradients, *t.autograd.grad(total, [*inputs, pull], allow_unused=True)]


# --- optimisers ------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD weight decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "SGD momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD dampening": ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.02}),
    "SGD nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "SGD maximize": ("SGD", {"lr": 0.01, "momentum": 0.5, "maximize": True}),
    "Adam": ("Adam", {"lr": 0.03}),
    "Adam settings": ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1}),
    "Adam maximize": ("Adam", {"lr": 0.02, "maximize": True}),
    "AdamW": ("AdamW", {"lr": 0.03}),
    "Adam amsgrad": ("Adam", {"lr": 0.03, "amsgrad": True}),
    "AdamW amsgrad": ("AdamW", {"lr": 0.03, "amsgrad": True, "maximize": True}),
    "RMSprop": ("RMSprop", {"lr": 0.01}),
    "RMSprop momentum": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.05}),
    "RMSprop centered": ("RMSprop", {"lr": 0.01, "eps": 1e-5, "centered": True}),
    "RMSprop all": ("RMSprop", {"lr": 0.01, "eps": 1e-3, "momentum": 0.5, "centered": True, "maximize": True}),
    "Adagrad": ("Adagrad", {"lr": 0.1}),
    "Adagrad settings": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-6, "maximize": True},
    ),
    "NAdam": ("NAdam", {"lr": 0.03}),
    "NAdam settings": (
        "NAdam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1, "momentum_decay": 0.02, "maximize": True},
    ),
    "NAdam decoupled": ("NAdam", {"lr": 0.02, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    "RAdam": ("RAdam", {"lr": 0.03}),
    "RAdam settings": ("RAdam", {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-5, "weight_decay": 0.1, "maximize": True}),
    "RAdam decoupled": ("RAdam", {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.3, "decoupled_weight_decay": True}),
    "Adamax": ("Adamax", {"lr": 0.03}),
    "Adamax settings": ("Adamax", {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    "Adadelta": ("Adadelta", {"lr": 1.0}),
    "Adadelta settings": ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    "Rprop": ("Rprop", {"lr": 0.03}),
    "Rprop settings": ("Rprop", {"lr": 0.02, "etas": (0.6, 1.3), "step_sizes": (1e-3, 0.05), "maximize": True}),
    "ASGD": ("ASGD", {"lr": 0.03}),
    "ASGD settings": ("ASGD", {"lr": 0.02, "lambd": 0.1, "alpha": 0.6, "t0": 5.0, "weight_decay": 0.1, "maximize": True}),
    "Adafactor": ("Adafactor", {"lr": 0.03}),
    "Adafactor settings": (
        "Adafactor",
        {"lr": 0.2, "beta2_decay": -0.5, "eps": (1e-3, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True},
    ),
    "LBFGS": ("LBFGS", {"lr": 0.1, "max_iter": 1}),
    "LBFGS history": ("LBFGS", {"lr": 0.5, "max_iter": 2, "history_size": 4}),
    "LBFGS strong_wolfe": ("LBFGS", {"lr": 0.5, "max_iter": 2, "line_search_fn": "strong_wolfe"}),
    "AdamW settings": ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.3}),
}
STEPS = 20


def regression(t: Any) -> tuple[list[Any], Callable]:
    """The parameters and the loss of a small regression, in library ``t``."""
    generator = np.random.default_rng(7)
    x, y, w, b = (generator.normal(size=shape).astype(np.float32) for shape in ((8, 3), (8, 2), (3, 2), (2,)))
    x, y = t.tensor(x), t.tensor(y)
    parameters = [t.nn.Parameter(t.tensor(w)), t.nn.Parameter(t.tensor(b))]
    return parameters, lambda: ((x @ parameters[0] + parameters[1]).tanh() - y).square().sum()


def again(optimizer: Any, loss: Callable) -> Any:
    """The closure that L-BFGS calls: computes the gradients and returns the loss."""
    optimizer.zero_grad()
    value = loss()
    value.backward()
    return value


def trajectory(t: Any, name: str) -> np.ndarray:
    """All parameters after each of `STEPS` steps, one row per step. The learning rate is halved after the tenth step."""
    kind, settings = OPTIMIZERS[name]
    parameters, loss = regression(t)
    optimizer = getattr(t.optim, kind)(parameters, **settings)
    rows = []
    for step in range(STEPS):
        if step == 10:
            optimizer.param_groups[0]["lr"] *= 0.5
        if kind == "LBFGS":
            optimizer.step(lambda: again(optimizer, loss))
        else:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        rows.append(np.concatenate([p.detach().numpy().reshape(-1) for p in parameters]))
    return np.stack(rows)
