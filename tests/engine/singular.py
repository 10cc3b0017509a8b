"""Points at which functions are singular: zeros, ties, constants, infinities, NaN, subnormal and huge numbers, for every operation.

A `Point` is one call on such inputs, in either library. `answer` gives its value, its gradients and its second derivatives.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.engine.cases import CLASSES
from tests.engine.every_case import CASES

INF = math.inf
NAN = math.nan
TINY = 1e-40
HUGE = 3e38

GRID = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, -6.0, 20.0, -20.0, 25.0, -25.0, 90.0, -90.0, 104.0, -104.0,
    200.0, -200.0, 1e-45, -1e-45, TINY, -TINY, 1e-30, -1e-30, 1e-7, -1e-7, 1e20, -1e20, HUGE, -HUGE, INF, -INF, NAN, 0.1, -0.1, 1.5,
]  # fmt: skip
"""Elements of one argument."""

PAIRS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, TINY, -TINY, 1e20, HUGE, -HUGE, INF, -INF, NAN]
"""Each with each, for functions of two arguments."""

PATTERNS: dict[str, list[float]] = {
    "zeros": [0.0],
    "minus zeros": [-0.0, 0.0],
    "ones": [1.0],
    "constants": [-2.0],
    "ties": [1.0, 2.0, 2.0, 1.0],
    "one zero": [0.0, 1.5, -0.5, 2.0],
    "two zeros": [0.0, 1.5, 0.0, 2.0, -1.0],
    "an infinity": [0.5, INF, -1.0, 2.0],
    "a minus infinity": [0.5, -INF, -1.0, 2.0],
    "infinities": [INF, -INF, 1.0, INF],
    "minus infinities": [-INF],
    "a NaN": [0.5, NAN, -1.0, 2.0],
    "NaNs": [NAN, NAN, 1.0],
    "subnormal": [TINY, -TINY, 2 * TINY],
    "huge": [HUGE, -HUGE, 1e20, 1.0],
    "tiny": [1e-30, -1e-25, 1e-30],
}
"""What the elements of all arguments are, over and over; the second argument begins one place later, and so on."""


@dataclass(frozen=True)
class Point:
    """``function(t, *tensors)`` at these inputs."""

    name: str
    function: Callable
    arrays: tuple[np.ndarray, ...]


def filled(shapes: tuple[tuple[int, ...], ...], values: list[float]) -> tuple[np.ndarray, ...]:
    arrays = []
    for number, shape in enumerate(shapes):
        size = math.prod(shape)
        arrays.append(np.array([values[(k + number) % len(values)] for k in range(size)], np.float32).reshape(shape))
    return tuple(arrays)


def elementwise(name: str, function: Callable, arguments: int) -> Point:
    """One point over the whole grid of special values, or over all pairs of them."""
    if arguments == 1:
        return Point(f"{name} | grid", function, (np.array(GRID, np.float32),))
    a, b = np.meshgrid(np.array(PAIRS, np.float32), np.array(PAIRS, np.float32), indexing="ij")
    return Point(f"{name} | pairs", function, (a.reshape(-1), b.reshape(-1)))


def patterned(name: str, function: Callable, *shapes: tuple[int, ...]) -> Iterator[Point]:
    for label, values in PATTERNS.items():
        yield Point(f"{name} | {label}", function, filled(shapes, values))


# --- operations with settings at which they are singular, which the table of cases has elsewhere ------------------------

UNARY: dict[str, Callable] = {
    **{f"pow {p:g}": lambda t, a, p=p: a**p for p in (0, 0.5, 1.5, 2, 3, -1, -2, -0.5, 1)},
    **{f"{p:g} pow": lambda t, a, p=p: p**a for p in (0.0, 1.0, -1.0, 0.5, 3.0)},
    "clamp 0 1": lambda t, a: a.clamp(0.0, 1.0),
    "clamp min 0": lambda t, a: a.clamp(min=0.0),
    "clamp low above high": lambda t, a: a.clamp(1.0, -1.0),
    "div 0": lambda t, a: a / 0.0,
    "number div": lambda t, a: 1.0 / a,
    "remainder 2": lambda t, a: a % 2.0,
    "remainder 0": lambda t, a: a % 0.0,
    "fmod 2": lambda t, a: a.fmod(2.0),
    "floor_divide 2": lambda t, a: a // 2.0,
    "logit eps": lambda t, a: t.logit(a, eps=0.1),
    "softplus beta 2": lambda t, a: t.nn.functional.softplus(a, beta=2.0, threshold=3.0),
    "softshrink 0": lambda t, a: t.nn.functional.softshrink(a, 0.0),
    "hardshrink 1": lambda t, a: t.nn.functional.hardshrink(a, 1.0),
    "threshold 0.5": lambda t, a: t.nn.functional.threshold(a, 0.5, 0.0),
    "leaky_relu": lambda t, a: t.nn.functional.leaky_relu(a),
    "leaky_relu negative": lambda t, a: t.nn.functional.leaky_relu(a, -0.5),
    "prelu 0.25": lambda t, a: t.nn.functional.prelu(a, t.tensor([0.25])),
    "elu 1": lambda t, a: t.nn.functional.elu(a),
    "celu 1": lambda t, a: t.nn.functional.celu(a),
    "hardswish": lambda t, a: t.nn.functional.hardswish(a),
    "hardtanh 1": lambda t, a: t.nn.functional.hardtanh(a),
    "nan_to_num": lambda t, a: t.nan_to_num(a),
    "nan_to_num numbers": lambda t, a: t.nan_to_num(a, 1.0, 2.0, -3.0),
    "xlogy number": lambda t, a: t.xlogy(a, 2.0),
    "number xlogy": lambda t, a: t.xlogy(0.0, a),
    "masked_fill": lambda t, a: a.masked_fill(a > 0, -1.0),
    "where self": lambda t, a: t.where(a == 0, a, a * a),
    "heaviside": lambda t, a: t.heaviside(a, t.tensor(0.5)) + a,
    "copysign 1": lambda t, a: t.copysign(a, 1.0),
    "acosh": lambda t, a: t.acosh(a),
    "asinh": lambda t, a: t.asinh(a),
    "atanh": lambda t, a: t.atanh(a),
    "sinc": lambda t, a: t.sinc(a),
    "erfc": lambda t, a: t.erfc(a),
    "erfinv": lambda t, a: t.erfinv(a),
    "round": lambda t, a: a.round(),
    "sgn": lambda t, a: t.sgn(a),
    "deg2rad": lambda t, a: t.deg2rad(a),
    "logsigmoid sum": lambda t, a: t.nn.functional.logsigmoid(a),
    "positive": lambda t, a: t.positive(a),
    "bce_with_logits 0": lambda t, a: t.nn.functional.binary_cross_entropy_with_logits(a, t.zeros(len(a)), reduction="none"),
    "bce_with_logits 1": lambda t, a: t.nn.functional.binary_cross_entropy_with_logits(a, t.ones(len(a)), reduction="none"),
    "bce_with_logits pos_weight": lambda t, a: t.nn.functional.binary_cross_entropy_with_logits(
        a, t.ones(len(a)) * 0.5, pos_weight=t.tensor([2.0]), reduction="none"
    ),
    "huber 0": lambda t, a: t.nn.functional.huber_loss(a, t.zeros(len(a)), reduction="none"),
    "huber delta": lambda t, a: t.nn.functional.huber_loss(a, t.zeros(len(a)), reduction="none", delta=0.5),
    "smooth_l1 0": lambda t, a: t.nn.functional.smooth_l1_loss(a, t.zeros(len(a)), reduction="none"),
    "smooth_l1 beta": lambda t, a: t.nn.functional.smooth_l1_loss(a, t.zeros(len(a)), reduction="none", beta=2.0),
    "l1 0": lambda t, a: t.nn.functional.l1_loss(a, t.zeros(len(a)), reduction="none"),
    "mse 0": lambda t, a: t.nn.functional.mse_loss(a, t.zeros(len(a)), reduction="none"),
    "poisson_nll log": lambda t, a: t.nn.functional.poisson_nll_loss(a, t.ones(len(a)), reduction="none"),
    "poisson_nll": lambda t, a: t.nn.functional.poisson_nll_loss(a, t.ones(len(a)), log_input=False, reduction="none"),
    "poisson_nll full": lambda t, a: t.nn.functional.poisson_nll_loss(a, t.ones(len(a)) * 3, full=True, reduction="none"),
    "soft_margin": lambda t, a: t.nn.functional.soft_margin_loss(a, t.ones(len(a)), reduction="none"),
    "hinge_embedding": lambda t, a: t.nn.functional.hinge_embedding_loss(a, t.ones(len(a)) * -1, reduction="none"),
}

BINARY: dict[str, Callable] = {
    **{
        name: lambda t, a, b, n=name: getattr(t, n)(a, b)
        for name in (
            "add",
            "sub",
            "mul",
            "div",
            "pow",
            "maximum",
            "minimum",
            "fmax",
            "fmin",
            "atan2",
            "hypot",
            "fmod",
            "remainder",
            "floor_divide",
            "xlogy",
            "logaddexp",
            "logaddexp2",
            "copysign",
            "heaviside",
        )
    },
    "div floor": lambda t, a, b: t.div(a, b, rounding_mode="floor"),
    "div trunc": lambda t, a, b: t.div(a, b, rounding_mode="trunc"),
    "clamp min tensor": lambda t, a, b: t.clamp(a, min=b),
    "clamp max tensor": lambda t, a, b: t.clamp(a, max=b),
    "lerp 0.5": lambda t, a, b: t.lerp(a, b, 0.5),
    "lerp 0": lambda t, a, b: t.lerp(a, b, 0.0),
    "lerp 1": lambda t, a, b: t.lerp(a, b, 1.0),
    "addcmul": lambda t, a, b: t.addcmul(a, a, b, value=0.5),
    "addcdiv": lambda t, a, b: t.addcdiv(a, a, b, value=0.5),
    "where compare": lambda t, a, b: t.where(a > b, a, b),
    "dist huber": lambda t, a, b: t.nn.functional.huber_loss(a, b, reduction="none"),
    "dist smooth_l1": lambda t, a, b: t.nn.functional.smooth_l1_loss(a, b, reduction="none"),
    "dist mse": lambda t, a, b: t.nn.functional.mse_loss(a, b, reduction="none"),
    "dist l1": lambda t, a, b: t.nn.functional.l1_loss(a, b, reduction="none"),
    "bce_with_logits": lambda t, a, b: t.nn.functional.binary_cross_entropy_with_logits(a, b, reduction="none"),
    "kl_div": lambda t, a, b: t.nn.functional.kl_div(a, b, reduction="none"),
    "kl_div log": lambda t, a, b: t.nn.functional.kl_div(a, b, reduction="none", log_target=True),
    "margin_ranking": lambda t, a, b: t.nn.functional.margin_ranking_loss(a, b, t.ones(len(a)), reduction="none"),
}


def others() -> Iterator[Point]:
    """Points of reductions, norms, losses and layers."""
    for p in (0, 0.5, 1, 1.5, 2, 3, INF, -INF, -1):
        yield from patterned(f"norm {p:g}", lambda t, a, p=p: a.norm(p), (4,))
        yield from patterned(f"norm {p:g} dim", lambda t, a, p=p: a.norm(p, dim=1), (2, 3))
    for correction in (0, 1, 2):
        yield from patterned(f"std {correction}", lambda t, a, c=correction: t.std(a, 1, correction=c), (2, 3))
        yield from patterned(f"var {correction}", lambda t, a, c=correction: t.var(a, 1, correction=c), (2, 3))
        yield from patterned(f"std of one {correction}", lambda t, a, c=correction: t.std(a, 1, correction=c), (2, 1))
    yield from patterned("std_mean", lambda t, a: sum(t.std_mean(a, 1)), (2, 3))
    yield from patterned("std unbiased", lambda t, a: a.std(unbiased=False), (3,))
    yield from patterned("normalize", lambda t, a: t.nn.functional.normalize(a, dim=1), (2, 3))
    yield from patterned("normalize 1", lambda t, a: t.nn.functional.normalize(a, p=1.0, dim=1), (2, 3))
    yield from patterned("cosine_similarity", lambda t, a, b: t.nn.functional.cosine_similarity(a, b), (2, 3), (2, 3))
    yield from patterned("pairwise_distance", lambda t, a, b: t.nn.functional.pairwise_distance(a, b), (2, 3), (2, 3))
    for name in (
        "softmax",
        "log_softmax",
        "logsumexp",
        "logcumsumexp",
        "cumsum",
        "cumprod",
        "prod",
        "mean",
        "sum",
        "amax",
        "amin",
    ):
        yield from patterned(name, lambda t, a, n=name: getattr(t, n)(a, 1), (2, 4))
        yield from patterned(f"{name} first", lambda t, a, n=name: getattr(t, n)(a, 0), (4, 2))
    for name in ("max", "min", "median", "sort", "mode", "cummax", "cummin"):
        yield from patterned(f"{name} dim", lambda t, a, n=name: getattr(t, n)(a, 1)[0], (2, 4))
        yield from patterned(f"{name} places", lambda t, a, n=name: getattr(t, n)(a, 1)[1].float(), (2, 4))
    for name in ("max", "min", "median", "prod", "nansum", "nanmean", "nanmedian", "argmax", "argmin"):
        yield from patterned(f"{name} of all", lambda t, a, n=name: getattr(t, n)(a).float(), (5,))
    yield from patterned("aminmax", lambda t, a: sum(t.aminmax(a, dim=1)), (2, 4))
    yield from patterned("topk", lambda t, a: a.topk(2, 1).values, (2, 4))
    yield from patterned("topk smallest", lambda t, a: a.topk(2, 1, largest=False).values, (2, 4))
    yield from patterned("kthvalue", lambda t, a: a.kthvalue(2, 1).values, (2, 4))
    yield from patterned("sort down", lambda t, a: a.sort(1, descending=True).values, (2, 4))
    yield from patterned("max_pool2d", lambda t, a: t.nn.functional.max_pool2d(a, 2), (1, 1, 4, 4))
    yield from patterned("max_pool1d", lambda t, a: t.nn.functional.max_pool1d(a, 2), (1, 1, 4))
    yield from patterned("avg_pool2d", lambda t, a: t.nn.functional.avg_pool2d(a, 2), (1, 1, 4, 4))
    for label, low in (("ends", [0.0, 1.0]), ("inside", [0.5, 0.0, 1.0, 0.25, TINY]), ("NaN", [NAN, 0.5])):
        for weight in (False, True):
            for other in ([0.0], [1.0], [0.5], [0.0, 1.0], [0.0, 0.3, 1.0]):
                target = np.array([other[k % len(other)] for k in range(6)], np.float32)
                yield Point(
                    f"bce {label} {other} {'weighted' if weight else 'plain'}",
                    lambda t, a, b=target, w=weight: t.nn.functional.binary_cross_entropy(
                        a, t.tensor(b), t.tensor([1.0, 2.0, 0.0, 1.0, 2.0, 0.0]) if w else None, reduction="none"
                    ),
                    filled(((6,),), low),
                )
    for values in ([1.5], [-0.5], [0.5, 1.5], [INF], [-INF]):
        yield Point(
            f"bce outside {values}",
            lambda t, a: t.nn.functional.binary_cross_entropy(a, t.ones(4) * 0.5),
            filled(((4,),), values),
        )
    for reduction in ("mean", "sum", "none"):
        yield from patterned(
            f"cross_entropy {reduction}",
            lambda t, a, r=reduction: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), reduction=r),
            (4, 3),
        )
    yield from patterned(
        "cross_entropy smoothed",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), label_smoothing=0.1),
        (4, 3),
    )
    yield from patterned(
        "cross_entropy weight",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), t.tensor([0.0, 2.0, 1.0])),
        (4, 3),
    )
    yield from patterned(
        "cross_entropy weight zero",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), t.zeros(3)),
        (4, 3),
    )
    yield from patterned(
        "cross_entropy all ignored",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor([-100] * 4)),
        (4, 3),
    )
    yield from patterned("nll_loss", lambda t, a: t.nn.functional.nll_loss(a, t.tensor(CLASSES), reduction="sum"), (4, 3))
    yield from patterned(
        "cross_entropy probabilities", lambda t, a: t.nn.functional.cross_entropy(a, t.tensor([[0.0, 1.0, 0.0]] * 4)), (4, 3)
    )
    yield from patterned(
        "gaussian_nll", lambda t, a, b: t.nn.functional.gaussian_nll_loss(a, b, a * a, reduction="none"), (2, 3), (2, 3)
    )
    yield from patterned("layer_norm", lambda t, a: t.nn.functional.layer_norm(a, (3,)), (2, 3))
    yield from patterned("layer_norm weight", lambda t, a, w, b: t.nn.functional.layer_norm(a, (3,), w, b), (2, 3), (3,), (3,))
    yield from patterned("layer_norm eps 0", lambda t, a: t.nn.functional.layer_norm(a, (3,), eps=0.0), (2, 3))
    yield from patterned("rms_norm", lambda t, a: t.nn.functional.rms_norm(a, (3,)), (2, 3))
    yield from patterned("group_norm", lambda t, a: t.nn.functional.group_norm(a, 2), (2, 4, 2))
    yield from patterned("batch_norm", lambda t, a: t.nn.functional.batch_norm(a, None, None, training=True), (4, 2))
    yield from patterned("instance_norm", lambda t, a: t.nn.functional.instance_norm(a), (2, 2, 3))
    yield from patterned(
        "attention", lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v), (2, 2), (3, 2), (3, 2)
    )
    yield from patterned("matmul", lambda t, a, b: a @ b, (2, 3), (3, 2))
    yield from patterned("linear", lambda t, a, b: t.nn.functional.linear(a, b), (2, 3), (2, 3))
    yield from patterned("glu", lambda t, a: t.nn.functional.glu(a), (2, 4))
    yield from patterned("softmin", lambda t, a: t.nn.functional.softmin(a, dim=1), (2, 4))
    for label, logits in (
        ("masked", [0.0, -INF, 1.0]),
        ("sure", [0.0, -200.0, 0.0]),
        ("equal", [1.0]),
        ("all but one", [-INF, 0.0, -INF]),
    ):
        array = filled(((2, 3),), logits)
        for what in ("entropy", "log_prob", "probs"):
            yield Point(f"Categorical {what} {label}", lambda t, a, w=what: _of_categorical(t, a, w), array)
    for label, logits in (("0", [0.0]), ("large", [200.0, -200.0]), ("infinite", [INF, -INF]), ("20", [20.0, -20.0])):
        for what in ("entropy", "log_prob"):
            yield Point(f"Bernoulli {what} {label}", lambda t, a, w=what: _of_bernoulli(t, a, w), filled(((2, 2),), logits))
    for label, probabilities in (("ends", [0.0, 1.0]), ("half", [0.5])):
        for what in ("entropy", "log_prob"):
            yield Point(
                f"Bernoulli probs {what} {label}",
                lambda t, a, w=what: _of_bernoulli(t, a, w, "probs"),
                filled(((2, 2),), probabilities),
            )


def _of_categorical(t: Any, a: Any, what: str) -> Any:
    d = t.distributions.Categorical(logits=a)
    return d.probs if what == "probs" else d.entropy() if what == "entropy" else d.log_prob(t.tensor([1, 2]))


def _of_bernoulli(t: Any, a: Any, what: str, by: str = "logits") -> Any:
    d = t.distributions.Bernoulli(**{by: a}, validate_args=False)
    return d.entropy() if what == "entropy" else d.log_prob(t.tensor([1.0, 0.0]))


def points() -> list[Point]:
    """All points: the table of cases with the patterns, functions of one and two arguments over the grid, and `others`."""
    found: list[Point] = []
    seen: set[str] = set()
    labels = {case.name for case in CASES}
    for case in CASES:
        base = case.name.split("[")[0]
        if base in seen or "-" in case.name.split("]")[-1]:
            continue
        seen.add(base)
        if f"{base}[0d]" in labels and f"{base}[0x3]" in labels and not base.startswith(("sum", "mean")):
            found.append(elementwise(base, case.function, 1))
        else:
            found.extend(patterned(base, case.function, *case.shapes))
    found.extend(elementwise(f"more {name}", function, 1) for name, function in UNARY.items())
    found.extend(elementwise(f"more {name}", function, 2) for name, function in BINARY.items())
    found.extend(Point(f"more {p.name}", p.function, p.arrays) for p in others())
    assert len({p.name for p in found}) == len(found)
    return found


# --- an answer -------------------------------------------------------------------------------------------------------


PARTS = ("value", "first", "second")
"""What is recorded of an answer, in this order."""


def answer(t: Any, point: Point) -> dict[str, list[np.ndarray]] | None:
    """Answers of library ``t``: "value", "first" derivatives, "slopes" (the same by a recorded walk), "second" derivatives.

    "second" is missing if the library has no second derivative. None if the call raises an error.
    """
    generator = np.random.default_rng(7)

    def weights(shape: Any) -> Any:
        return t.tensor((generator.uniform(0.5, 1.5, tuple(shape))).astype(np.float32))

    def arrays(tensors: Any, like: Any) -> list[np.ndarray]:
        return [
            np.zeros(x.shape, np.float32) if g is None else np.array(g.numpy(force=True), np.float32)
            for g, x in zip(tensors, like, strict=True)
        ]

    inputs = [t.tensor(array, requires_grad=True) for array in point.arrays]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = point.function(t, *inputs)
        except (RuntimeError, ValueError, IndexError):
            return None
        results = {"value": arrays([value], [value])}
        if value.requires_grad:
            pull = weights(value.shape).requires_grad_()
            try:
                results["first"] = arrays(t.autograd.grad(value, inputs, pull, retain_graph=True, allow_unused=True), inputs)
                slopes = t.autograd.grad(value, inputs, pull, create_graph=True, allow_unused=True)
                terms = [(g * weights(g.shape)).sum() for g in slopes if g is not None and g.requires_grad]
                seconds = (
                    t.autograd.grad(sum(terms), [*inputs, pull], allow_unused=True) if terms else [None] * (len(inputs) + 1)
                )
            except RuntimeError:
                return results  # not differentiable, or only once
            results["slopes"] = arrays(slopes, inputs)
            results["second"] = arrays(seconds, [*inputs, pull])
    return results
