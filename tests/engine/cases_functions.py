"""Cases as in `cases.py`: further functions, sorting, rearrangement, reading and writing at positions, sums of products."""

import itertools
import math

import numpy as np

from tests.engine.cases import (
    CLASSES,
    INDEX,
    MASK,
    SPECIAL,
    Case,
    Discrete,
    I,
    J,
    P,
    X,
    Y,
    binary,
    changed,
    each,
    log_softmax,
    put,
    put_add,
    sigmoid,
    unary,
)


def softplus(x):
    return np.log1p(np.exp(x))


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def sorted_at(x, axis, k):
    return np.take(np.sort(x, axis), k, axis)


def padded(x, before, after, mode):
    return np.pad(x, list(zip(before, after, strict=True)), mode=mode)


def view_written_later(t, a, b):
    base = a.clone()
    view = base[1:]
    base.mul_(b)
    return view * view * a[1:]


def erf_inverse(y):
    """erfinv by Newton's method in float64."""
    x = 0.0
    for _ in range(60):
        x -= (math.erf(x) - y) / (2.0 / math.sqrt(math.pi) * math.exp(-x * x))
    return x


def with_nan(a):
    """The array with NaN at every position where `MASK` is false, which leaves each column with at most two numbers."""
    return np.where(MASK, a, np.nan)


def collapsed(path):
    """A path of classes without repetitions and blanks (0)."""
    return [c for k, c in enumerate(path) if c and (k == 0 or c != path[k - 1])]


def ctc_reference(a):
    """The losses of targets [1, 2, 1] in five steps and [2, 2] in four, by enumeration of all paths."""
    x = log_softmax(a, 2)
    losses = []
    for n, (target, steps) in enumerate((([1, 2, 1], 5), ([2, 2], 4))):
        paths = [p for p in itertools.product(range(x.shape[2]), repeat=steps) if collapsed(p) == target]
        losses.append(-np.log(sum(math.exp(sum(x[t, n, c] for t, c in enumerate(p))) for p in paths)))
    return np.array(losses)


BAGS = [3, 0, 2, 0, 4, 1]
STARTS = [0, 2, 2, 5]


def bag_reference(reduce, kept=lambda row: True):
    def reference(a):
        bags = [BAGS[low:high] for low, high in zip(STARTS, [*STARTS[1:], len(BAGS)], strict=True)]
        rows = [[a[row] for row in bag if kept(row)] for bag in bags]
        return np.stack([reduce(r, 0) if r else np.zeros(a.shape[1]) for r in rows])

    return reference


def bag(mode, **options):
    return lambda t, a: t.nn.functional.embedding_bag(t.tensor(BAGS), a, t.tensor(STARTS), mode=mode, **options)


FUNCTIONS: list[Case] = [
    # bags, and sequences without alignment
    *each("embedding_bag mean", bag("mean"), bag_reference(np.mean), (5, 3)),
    *each("embedding_bag sum", bag("sum"), bag_reference(np.sum), (5, 3)),
    *each("embedding_bag max", bag("max"), bag_reference(np.max), (5, 3)),
    *each("embedding_bag padding", bag("mean", padding_idx=0), bag_reference(np.mean, lambda row: row != 0), (5, 3)),
    *each("embedding_bag max padding", bag("max", padding_idx=-1), bag_reference(np.max, lambda row: row != 4), (5, 3)),
    *each(
        "embedding_bag matrix",
        lambda t, a, b: t.nn.functional.embedding_bag(t.tensor(INDEX), a, mode="sum", per_sample_weights=b),
        lambda a, b: (a[np.array(INDEX)] * b[..., None]).sum(1),
        [(3, 2), (2, 3)],
    ),
    *each(
        "ctc_loss",
        lambda t, a: t.nn.functional.ctc_loss(
            t.log_softmax(a, 2), t.tensor([[1, 2, 1], [2, 2, 0]]), t.tensor([5, 4]), t.tensor([3, 2]), reduction="none"
        ),
        ctc_reference,
        (5, 2, 3),
    ),
    *each(
        "ctc_loss mean",
        lambda t, a: t.nn.functional.ctc_loss(t.log_softmax(a, 2), t.tensor([1, 2, 1, 2, 2]), (5, 4), (3, 2)),
        lambda a: (ctc_reference(a) / [3, 2]).mean(),
        (5, 2, 3),
    ),
    # order without NaN
    *each(
        "nanmedian",
        lambda t, a: t.nanmedian(t.where(t.tensor(MASK), a, math.nan)),
        lambda a: np.sort(a[np.array(MASK)])[1],
        (2, 3),
    ),
    *each(
        "nanmedian dim",
        lambda t, a: t.where(t.tensor(MASK), a, math.nan).nanmedian(1, keepdim=True).values,
        lambda a: np.array([[a[0, [0, 2]].min()], [a[1, 2]]]),
        (2, 3),
    ),
    *each(
        "nanquantile",
        lambda t, a: t.nanquantile(t.where(t.tensor(MASK), a, math.nan), 0.3, 1),
        lambda a: np.nanquantile(with_nan(a), np.float32(0.3), 1),
        (2, 3),
    ),
    *each(
        "nanquantile all",
        lambda t, a: t.where(t.tensor(MASK), a, math.nan).nanquantile(0.4, interpolation="midpoint"),
        lambda a: np.nanquantile(with_nan(a), 0.4, method="midpoint"),
        (2, 3),
    ),
    # linear algebra
    *each(
        "linalg.solve",
        lambda t, a, b: t.linalg.solve(a + 3.0 * t.eye(3), b),
        lambda a, b: np.linalg.solve(a + 3.0 * np.eye(3), b),
        [(3, 3), (3, 2)],
        [(2, 3, 3), (3, 1)],
    ),
    *each(
        "linalg.solve vectors",
        lambda t, a, b: t.linalg.solve(a + 3.0 * t.eye(3), b),
        lambda a, b: np.linalg.solve(a + 3.0 * np.eye(3), b[..., None])[..., 0],
        [(2, 3, 3), (2, 3)],
    ),
    *each(
        "linalg.solve right",
        lambda t, a, b: t.linalg.solve(a + 3.0 * t.eye(3), b, left=False),
        lambda a, b: b @ np.linalg.inv(a + 3.0 * np.eye(3)),
        [(3, 3), (2, 3)],
    ),
    *each(
        "linalg.inv",
        lambda t, a: t.linalg.inv(a + 3.0 * t.eye(3)),
        lambda a: np.linalg.inv(a + 3.0 * np.eye(3)),
        (3, 3),
        (2, 3, 3),
    ),
    *each(
        "linalg.det",
        lambda t, a: t.linalg.det(a + 3.0 * t.eye(3)),
        lambda a: np.linalg.det(a + 3.0 * np.eye(3)),
        (3, 3),
        (2, 3, 3),
    ),
    *each(
        "linalg.cholesky",
        lambda t, a: t.linalg.cholesky(a @ a.transpose(-1, -2) + t.eye(3)),
        lambda a: np.linalg.cholesky(a @ a.swapaxes(-1, -2) + np.eye(3)),
        (3, 3),
        (2, 3, 2),
    ),
    *each(
        "linalg.qr Q", lambda t, a: t.linalg.qr(a).Q, lambda a: np.linalg.qr(a).Q, (3, 3), (4, 2), (2, 3), (2, 3, 2), (2, 1, 4)
    ),
    *each(
        "linalg.qr R", lambda t, a: t.linalg.qr(a).R, lambda a: np.linalg.qr(a).R, (3, 3), (4, 2), (2, 3), (2, 3, 2), (2, 1, 4)
    ),
    *each(
        "linalg.qr complete",
        lambda t, a: t.cat(t.linalg.qr(a, "complete"), -1),
        lambda a: np.concatenate(np.linalg.qr(a, "complete"), -1),
        (2, 4),
    ),
    *each(
        "linalg.svd",  # signs of U and V are a choice, their products are not
        lambda t, a: (lambda u, s, vh: (u * s**3 + u) @ vh)(*t.linalg.svd(a, full_matrices=False)),
        lambda a: (lambda u, s, vh: (u * s[..., None, :] ** 3 + u) @ vh)(*np.linalg.svd(a, full_matrices=False)),
        (3, 3),
        (3, 2),
        (2, 4),
    ),
    *each(
        "linalg.svd U",
        lambda t, a: (lambda u: (u * t.arange(1.0, 3.0)) @ u.mT)(t.linalg.svd(a).U[..., :2]),
        lambda a: (lambda u: (u * np.arange(1.0, 3.0)) @ u.swapaxes(-1, -2))(np.linalg.svd(a).U[..., :2]),
        (3, 2),
        (2, 4, 2),
    ),
    *each("linalg.svdvals", lambda t, a: t.linalg.svdvals(a), lambda a: np.linalg.svd(a)[1], (3, 3), (4, 2), (2, 2, 3)),
    *each(
        "linalg.eigh",
        lambda t, a: (lambda w, v: (v * w**3) @ v.mT)(*t.linalg.eigh(a @ a.mT)),
        lambda a: (lambda w, v: (v * w[..., None, :] ** 3) @ v.swapaxes(-1, -2))(*np.linalg.eigh(a @ a.swapaxes(-1, -2))),
        (3, 3),
        (2, 4),
    ),
    *each(
        "linalg.eigvalsh",
        lambda t, a: t.linalg.eigvalsh(a @ a.mT, "U"),
        lambda a: np.linalg.eigvalsh(a @ a.swapaxes(-1, -2)),
        (3, 3),
        (2, 3, 3),
    ),
    *each(
        "linalg.solve_triangular",
        lambda t, a, b: t.linalg.solve_triangular(a + 3.0 * t.eye(3), b, upper=True),
        lambda a, b: np.linalg.solve(np.triu(a + 3.0 * np.eye(3)), b),
        [(3, 3), (3, 2)],
    ),
    *each(
        "linalg.solve_triangular unit",
        lambda t, a, b: t.linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True),
        lambda a, b: b @ np.linalg.inv(np.tril(a, -1) + np.eye(3)),
        [(3, 3), (2, 2, 3)],
    ),
    *each("linalg.matrix_power", lambda t, a: t.linalg.matrix_power(a, 5), lambda a: np.linalg.matrix_power(a, 5), (2, 2)),
    *each(
        "matrix_power",
        lambda t, a: (a + 3.0 * t.eye(3)).matrix_power(-2),
        lambda a: np.linalg.matrix_power(a + 3.0 * np.eye(3), -2),
        (2, 3, 3),
    ),
    *each(
        "cholesky_solve",
        lambda t, a, b: t.cholesky_solve(b, t.cholesky(a @ a.mT + t.eye(3))),
        lambda a, b: np.linalg.solve(a @ a.swapaxes(-1, -2) + np.eye(3), b),
        [(3, 3), (3, 2)],
    ),
    *each(
        "cholesky_inverse",
        lambda t, a: t.cholesky_inverse(t.cholesky(a @ a.mT + t.eye(3), upper=True), upper=True),
        lambda a: np.linalg.inv(a @ a.swapaxes(-1, -2) + np.eye(3)),
        (3, 3),
    ),
    *each(
        "logdet",
        lambda t, a: t.logdet(a + 3.0 * t.eye(3)),
        lambda a: np.log(np.linalg.det(a + 3.0 * np.eye(3))),
        (3, 3),
    ),
    *each("svd", lambda t, a: (lambda u, s, v: (u * s) @ v.mT)(*t.svd(a)), lambda a: a, (3, 2)),
    *each("linalg.pinv", lambda t, a: t.linalg.pinv(a), np.linalg.pinv, (3, 3), (4, 2), (2, 2, 3)),
    *each(
        "linalg.lstsq",
        lambda t, a, b: t.linalg.lstsq(a, b).solution,
        lambda a, b: np.linalg.pinv(a) @ b,
        [(4, 2), (4, 3)],
        [(2, 2, 4), (2, 2, 1)],
    ),
    *each(
        "linalg.slogdet",
        lambda t, a: t.linalg.slogdet(a + 3.0 * t.eye(3)).logabsdet,
        lambda a: np.linalg.slogdet(a + 3.0 * np.eye(3)).logabsdet,
        (3, 3),
        (2, 3, 3),
    ),
    *each(
        "linalg.matrix_norm nuc",
        lambda t, a: t.linalg.matrix_norm(a, "nuc", (0, 2), True),
        lambda a: np.linalg.norm(a, "nuc", (0, 2), True),
        (3, 2, 3),
    ),
    *each("linalg.matrix_norm 2", lambda t, a: t.linalg.norm(a, 2), lambda a: np.linalg.norm(a, 2), (2, 3)),
    *each("linalg.vector_norm", lambda t, a: t.linalg.vector_norm(a, 3), lambda a: (abs(a) ** 3).sum() ** (1 / 3), (2, 3)),
    *each("linalg.norm", lambda t, a: t.linalg.norm(a), lambda a: np.sqrt((a * a).sum()), (2, 3), (2, 2, 3)),
    *each("linalg.norm rows", lambda t, a: t.linalg.norm(a, float("inf")), lambda a: abs(a).sum(1).max(), (2, 3)),
    *each(
        "linalg.norm columns",
        lambda t, a: t.linalg.norm(a * t.tensor([1.0, 2.0, 3.5]), 1, (0, 2)),
        lambda a: abs(a * [1.0, 2.0, 3.5]).sum(0).max(-1),
        (2, 2, 3),
    ),
    *each("linalg.norm vectors", lambda t, a: t.linalg.norm(a, 3, 1), lambda a: (abs(a) ** 3).sum(1) ** (1 / 3), (2, 3)),
    # functions of one argument
    *unary("tan", lambda t, a: a.tan(), np.tan, -1.2, 1.2),
    *unary("asin", lambda t, a: t.asin(a), np.arcsin, -0.9, 0.9),
    *unary("acos", lambda t, a: t.acos(a), np.arccos, -0.9, 0.9),
    *unary("atan", lambda t, a: a.atan(), np.arctan, -3, 3),
    *unary("sinh", lambda t, a: t.sinh(a), np.sinh),
    *unary("cosh", lambda t, a: a.cosh(), np.cosh),
    *unary("asinh", lambda t, a: t.asinh(a), np.arcsinh, -3, 3),
    *unary("acosh", lambda t, a: t.acosh(a), np.arccosh, 1.3, 4),
    *unary("atanh", lambda t, a: t.atanh(a), np.arctanh, -0.8, 0.8),
    *each("cummax", lambda t, a: t.cummax(a, 1)[0], lambda a: np.maximum.accumulate(a, 1), (2, 5), (3, 0), (2, 4, 3)),
    *each("cummin", lambda t, a: a.cummin(0)[0], lambda a: np.minimum.accumulate(a, 0), (5, 2), (4,)),
    *each("logcumsumexp", lambda t, a: t.logcumsumexp(a, 1), lambda a: np.log(np.cumsum(np.exp(a), 1)), (2, 5), (2, 4, 3)),
    *each("logcumsumexp first", lambda t, a: a.logcumsumexp(0), lambda a: np.log(np.cumsum(np.exp(a), 0)), (5, 2)),
    *unary("erfc", lambda t, a: t.erfc(a), lambda a: 1.0 - np.vectorize(math.erf, otypes=[float])(a), -2, 2),
    *unary("erfinv", lambda t, a: t.erfinv(a), lambda a: np.vectorize(erf_inverse, otypes=[float])(a), -0.8, 0.8),
    *unary("sinc", lambda t, a: t.sinc(a), np.sinc, 0.2, 2.8),
    *unary("trunc", lambda t, a: t.trunc(a), np.trunc),
    *unary("frac", lambda t, a: a.frac(), lambda a: a - np.trunc(a)),
    *unary("softsign", lambda t, a: t.nn.functional.softsign(a), lambda a: a / (1 + abs(a))),
    *unary("mish", lambda t, a: t.nn.functional.mish(a), lambda a: a * np.tanh(softplus(a)), -4, 4),
    *unary("elu", lambda t, a: t.nn.functional.elu(a, 0.7), lambda a: elu(a, 0.7)),
    *unary("celu", lambda t, a: t.celu(a, 0.7), lambda a: 0.7 * elu(a / 0.7)),
    *unary("selu", lambda t, a: t.selu(a), lambda a: 1.0507009873554805 * elu(a, 1.6732632423543772)),
    *unary("relu6", lambda t, a: t.nn.functional.relu6(a), lambda a: a.clip(0, 6), -4, 9),
    *unary("hardtanh", lambda t, a: t.nn.functional.hardtanh(a, -0.9, 1.1), lambda a: a.clip(-0.9, 1.1)),
    *unary("hardsigmoid", lambda t, a: t.nn.functional.hardsigmoid(a), lambda a: (a + 3).clip(0, 6) / 6, -5, 5),
    *unary("tanhshrink", lambda t, a: t.nn.functional.tanhshrink(a), lambda a: a - np.tanh(a)),
    *unary("softshrink", lambda t, a: t.nn.functional.softshrink(a), lambda a: a - a.clip(-0.5, 0.5)),
    *unary("hardshrink", lambda t, a: t.nn.functional.hardshrink(a), lambda a: a * (abs(a) > 0.5)),
    *unary("threshold", lambda t, a: t.nn.functional.threshold(a, 0.1, 0.7), lambda a: np.where(a > 0.1, a, 0.7)),
    *unary("softplus beta", lambda t, a: t.nn.functional.softplus(a, 2.0), lambda a: softplus(2 * a) / 2),
    *each(
        "prelu",
        lambda t, a, w: t.nn.functional.prelu(a, w),
        lambda a, w: np.where(a > 0, a, a * w),
        [(4, 3), (3,)],
        [(4, 3), (1,)],
    ),
    *each("glu", lambda t, a: t.nn.functional.glu(a), lambda a: a[..., :2] * sigmoid(a[..., 2:]), (3, 4), (2, 2, 4)),
    *each(
        "softmin",
        lambda t, a: t.nn.functional.softmin(a, dim=-1),
        lambda a: np.exp(-a) / np.exp(-a).sum(-1, keepdims=True),
        (2, 3),
    ),
    *each("nan_to_num", lambda t, a: t.nan_to_num(a), lambda a: a, (2, 3)),
    *unary("exp2", lambda t, a: t.exp2(a), np.exp2),
    *unary("log10", lambda t, a: a.log10(), np.log10, 0.3, 3),
    *unary("logit", lambda t, a: t.logit(a), lambda a: np.log(a / (1 - a)), 0.1, 0.9),
    # of two
    *binary("hypot", lambda t, a, b: t.hypot(a, b), np.hypot, 0.3, 2),
    *binary("fmod", lambda t, a, b: t.fmod(a, b), np.fmod, 0.61, 2.73),
    *binary("atan2", lambda t, a, b: t.atan2(a, b), np.arctan2),
    *binary("logaddexp", lambda t, a, b: t.logaddexp(a, b), np.logaddexp),
    *binary("logaddexp2", lambda t, a, b: t.logaddexp2(a, b), np.logaddexp2),
    *binary("copysign", lambda t, a, b: t.copysign(a, b), np.copysign, 0.3, 2),
    *binary("fmax", lambda t, a, b: t.fmax(a, b), np.fmax),
    *binary("fmin", lambda t, a, b: t.fmin(a, b), np.fmin),
    *binary("xlogy", lambda t, a, b: t.xlogy(a, b), lambda a, b: a * np.log(b), 0.3, 2),
    *each("fmod number", lambda t, a: a.fmod(0.7), lambda a: np.fmod(a, 0.7), (2, 3)),
    *each("addcmul", lambda t, a, b, c: t.addcmul(a, b, c, value=0.5), lambda a, b, c: a + 0.5 * b * c, [(2, 3), (3,), (2, 1)]),
    *each(
        "addcdiv",
        lambda t, a, b, c: t.addcdiv(a, b, c, value=2),
        lambda a, b, c: a + 2 * b / c,
        [(2, 3), (3,), (2, 1)],
        low=0.5,
    ),
    *each("clamp_min", lambda t, a: a.clamp_min(0.1), lambda a: a.clip(0.1), (2, 3)),
    *each("masked_fill function", lambda t, a: t.masked_fill(a, t.tensor(MASK), 0.5), lambda a: np.where(MASK, 0.5, a), (2, 3)),
    # reductions and order
    *each("cumprod", lambda t, a: a.cumprod(0), lambda a: a.cumprod(0), (4,), (3, 2), (3, 2, 2), (0, 2)),
    *each("cumprod last", lambda t, a: t.cumprod(a, -1), lambda a: a.cumprod(-1), (2, 3)),
    *each("var_mean", lambda t, a: t.var_mean(a, 1)[0] * t.var_mean(a, 1)[1], lambda a: a.var(1, ddof=1) * a.mean(1), (3, 4)),
    *each("std_mean", lambda t, a: sum(t.std_mean(a, 0)), lambda a: a.std(0, ddof=1) + a.mean(0), (3, 4)),
    *each("median", lambda t, a: a.median(), lambda a: np.sort(a, None)[(a.size - 1) // 2], (5,), (2, 3)),
    *each("median dim", lambda t, a: t.median(a, 1).values, lambda a: sorted_at(a, 1, 1), (2, 4), (3, 3, 2)),
    *each("median keepdim", lambda t, a: a.median(0, keepdim=True)[0], lambda a: np.sort(a, 0)[1:2], (3, 4)),
    *each("sort", lambda t, a: a.sort().values, lambda a: np.sort(a), (7,), (2, 5), (2, 3, 4)),
    *each("sort first", lambda t, a: t.sort(a, 0, descending=True)[0], lambda a: -np.sort(-a, 0), (4, 3)),
    *each("argsort gather", lambda t, a: a.gather(1, t.argsort(a, 1)), lambda a: np.sort(a, 1), (2, 5)),
    *each("topk", lambda t, a: a.topk(2).values, lambda a: -np.sort(-a)[..., :2], (5,), (3, 4)),
    *each("topk smallest", lambda t, a: t.topk(a, 2, 0, largest=False)[0], lambda a: np.sort(a, 0)[:2], (4, 3)),
    *each("kthvalue", lambda t, a: t.kthvalue(a, 2).values, lambda a: np.sort(a)[..., 1], (4,), (2, 3)),
    # arrangements
    *each("repeat", lambda t, a: a.repeat(2, 1, 3), lambda a: np.tile(a, (2, 1, 3)), (2, 3), (3,)),
    *each("tile", lambda t, a: t.tile(a, (2, 2)), lambda a: np.tile(a, (2, 2)), (2, 3), (2, 1, 2)),
    *each("repeat_interleave", lambda t, a: a.repeat_interleave(3, 1), lambda a: a.repeat(3, 1), (2, 3)),
    *each("repeat_interleave all", lambda t, a: t.repeat_interleave(a, 2), lambda a: a.repeat(2), (2, 3)),
    *each(
        "repeat_interleave tensor",
        lambda t, a: t.repeat_interleave(a, t.tensor([2, 0, 1]), dim=0),
        lambda a: a.repeat([2, 0, 1], 0),
        (3, 2),
    ),
    *each("flip", lambda t, a: a.flip(0, -1), lambda a: np.flip(a, (0, -1)), (2, 3), (2, 2, 3)),
    *each("roll", lambda t, a: a.roll(2), lambda a: np.roll(a, 2), (2, 3)),
    *each("roll dims", lambda t, a: t.roll(a, (1, -1), (0, 1)), lambda a: np.roll(a, (1, -1), (0, 1)), (2, 3)),
    *each("movedim", lambda t, a: a.movedim(0, -1), lambda a: np.moveaxis(a, 0, -1), (2, 3, 4)),
    *each("movedim two", lambda t, a: t.movedim(a, (0, 1), (2, 0)), lambda a: np.moveaxis(a, (0, 1), (2, 0)), (2, 3, 4)),
    *each("broadcast_to", lambda t, a: t.broadcast_to(a, (2, 3)), lambda a: np.broadcast_to(a, (2, 3)), (3,), (2, 1)),
    *each("unflatten", lambda t, a: a.unflatten(1, (2, -1)), lambda a: a.reshape(2, 2, 3), (2, 6)),
    *each("hstack", lambda t, a, b: t.hstack([a, b]), lambda a, b: np.hstack([a, b]), [(2, 3), (2, 1)], [(3,), (2,)]),
    *each("vstack", lambda t, a, b: t.vstack([a, b]), lambda a, b: np.vstack([a, b]), [(2, 3), (1, 3)], [(3,), (3,)]),
    *each(
        "meshgrid",
        lambda t, a, b: t.meshgrid(a, b, indexing="ij")[0] * t.meshgrid(a, b, indexing="ij")[1],
        lambda a, b: np.outer(a, b),
        [(3,), (2,)],
    ),
    *each(
        "tensor_split",
        lambda t, a: t.cat(a.tensor_split(3)[::-1]),
        lambda a: np.concatenate(np.array_split(a, 3)[::-1]),
        (7,),
        (5, 2),
    ),
    *each(
        "tensor unfold",
        lambda t, a: a.unfold(0, 3, 2),
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 3, 0)[::2],
        (7,),
        (6, 2),
    ),
    *each("diagonal", lambda t, a: a.diagonal(), np.diagonal, (3, 4), (3, 2)),
    *each("diagonal offset", lambda t, a: t.diagonal(a, 1, 2, 0), lambda a: np.diagonal(a, 1, 2, 0), (3, 2, 4)),
    *each("diagonal below", lambda t, a: t.diagonal(a, -1), lambda a: np.diagonal(a, -1), (3, 3)),
    *each("diag", lambda t, a: t.diag(a), np.diag, (3,), (3, 3)),
    *each("diag offset", lambda t, a: a.diag(-1), lambda a: np.diag(a, -1), (3,), (4, 3)),
    *each("diag_embed", lambda t, a: t.diag_embed(a), lambda a: np.stack([np.diag(row) for row in a]), (2, 3)),
    *each("tril", lambda t, a: a.tril(), np.tril, (3, 3), (2, 3, 4)),
    *each("triu", lambda t, a: t.triu(a, 1), lambda a: np.triu(a, 1), (3, 3), (4, 2)),
    *each("tril below", lambda t, a: t.tril(a, -1), lambda a: np.tril(a, -1), (3, 3)),
    *each("trace", lambda t, a: t.trace(a), np.trace, (3, 3)),
    *each("pad", lambda t, a: t.nn.functional.pad(a, (1, 2)), lambda a: padded(a, (0, 1), (0, 2), "constant"), (2, 3)),
    *each(
        "pad value",
        lambda t, a: t.nn.functional.pad(a, (1, 0, 2, 1), value=0.5),
        lambda a: np.pad(a, ((2, 1), (1, 0)), constant_values=0.5),
        (2, 3),
    ),
    *each("pad cut", lambda t, a: t.nn.functional.pad(a, (-1, 1)), lambda a: np.pad(a[:, 1:], ((0, 0), (0, 1))), (2, 3)),
    *each(
        "pad reflect",
        lambda t, a: t.nn.functional.pad(a, (2, 1), mode="reflect"),
        lambda a: padded(a, (0, 2), (0, 1), "reflect"),
        (2, 4),
    ),
    *each(
        "pad replicate",
        lambda t, a: t.nn.functional.pad(a, (2, 1), mode="replicate"),
        lambda a: padded(a, (0, 2), (0, 1), "edge"),
        (2, 4),
    ),
    *each(
        "pad circular",
        lambda t, a: t.nn.functional.pad(a, (2, 1), mode="circular"),
        lambda a: padded(a, (0, 2), (0, 1), "wrap"),
        (2, 4),
    ),
    *each("diff", lambda t, a: a.diff(), np.diff, (4,), (2, 3)),
    *each("diff twice", lambda t, a: t.diff(a, 2, 0), lambda a: np.diff(a, 2, 0), (4, 2)),
    *each("ravel", lambda t, a: t.ravel(a.t()), lambda a: a.T.ravel(), (2, 3)),
    *each("swapdims", lambda t, a: a.swapdims(0, 2), lambda a: a.swapaxes(0, 2), (2, 3, 4)),
    # positions
    *each(
        "scatter",
        lambda t, a, b: a.scatter(1, t.tensor([[2, 0, 1], [1, 0, 3]]), b),
        lambda a, b: put(a, ([[0], [1]], [[2, 0, 1], [1, 0, 3]]), b),
        [(2, 4), (2, 3)],
    ),
    *each(
        "scatter first",
        lambda t, a, b: t.scatter(a, 0, t.tensor([[2, 0], [1, 3]]), b),
        lambda a, b: put(a, ([[2, 0], [1, 3]], [[0, 1]]), b[:, :2]),
        [(4, 3), (2, 2)],
    ),
    *each(
        "scatter number", lambda t, a: a.scatter(1, t.tensor([[2], [0]]), 0.5), lambda a: put(a, ([0, 1], [2, 0]), 0.5), (2, 3)
    ),
    *each(
        "scatter_",
        lambda t, a, b: changed(a, "scatter_", 1, t.tensor([[2, 0], [1, 0]]), b),
        lambda a, b: put(a, ([[0], [1]], [[2, 0], [1, 0]]), b),
        [(2, 3), (2, 2)],
    ),
    *each(
        "take_along_dim",
        lambda t, a: t.take_along_dim(a, t.tensor([[1, 0]]), 1),
        lambda a: np.take_along_axis(a, np.array([[1, 0]] * 2), 1),
        (2, 3),
    ),
    *each(
        "take_along_dim flat", lambda t, a: a.take_along_dim(t.tensor([4, 0, 4])), lambda a: a.reshape(-1)[[4, 0, 4]], (2, 3)
    ),
    *each(
        "index_add",
        lambda t, a, b: a.index_add(0, t.tensor([2, 0, 2]), b, alpha=2),
        lambda a, b: put_add(a, ([2, 0, 2],), 2 * b),
        [(3, 2), (3, 2)],
    ),
    *each(
        "index_add_",
        lambda t, a, b: changed(a, "index_add_", 1, t.tensor([1, 1]), b),
        lambda a, b: put_add(a, (slice(None), [1, 1]), b),
        [(2, 3), (2, 2)],
    ),
    *each(
        "index_fill",
        lambda t, a: t.index_fill(a, 1, t.tensor([2, 0]), 0.5),
        lambda a: put(a, (slice(None), [2, 0]), 0.5),
        (2, 3),
    ),
    *each(
        "index_copy", lambda t, a, b: t.index_copy(a, 0, t.tensor([2, 0]), b), lambda a, b: put(a, [2, 0], b), [(3, 2), (2, 2)]
    ),
    *each(
        "index_put", lambda t, a, b: t.index_put(a, (t.tensor([2, 0]),), b), lambda a, b: put(a, [2, 0], b), [(3, 2), (2, 2)]
    ),
    *each(
        "index_put add",
        lambda t, a, b: a.index_put((t.tensor([0, 1, 0]), t.tensor([2, 0, 2])), b, accumulate=True),
        lambda a, b: put_add(a, ([0, 1, 0], [2, 0, 2]), b),
        [(2, 3), (3,)],
    ),
    *each(
        "index_put_ add",
        lambda t, a, b: a.clone().index_put_((t.tensor([2, 0, 2]),), b, accumulate=True),
        lambda a, b: put_add(a, ([2, 0, 2],), b),
        [(3, 2), (3, 2)],
        [(3, 2), (2,)],
    ),
    *each(
        "embedding",
        lambda t, w: t.nn.functional.embedding(t.tensor([[0, 2], [2, 1]]), w),
        lambda w: w[[[0, 2], [2, 1]]],
        (3, 2),
    ),
    # sums of products
    *each(
        "addmm",
        lambda t, a, b, c: t.addmm(a, b, c, beta=0.5, alpha=2),
        lambda a, b, c: 0.5 * a + 2 * b @ c,
        [(2, 4), (2, 3), (3, 4)],
        [(4,), (2, 3), (3, 4)],
    ),
    *each("addmv", lambda t, a, b, c: t.addmv(a, b, c), lambda a, b, c: a + b @ c, [(2,), (2, 3), (3,)]),
    *each("baddbmm", lambda t, a, b, c: a.baddbmm(b, c), lambda a, b, c: a + b @ c, [(2, 2, 2), (2, 2, 3), (2, 3, 2)]),
    *each("addr", lambda t, a, b, c: t.addr(a, b, c), lambda a, b, c: a + np.outer(b, c), [(2, 3), (2,), (3,)]),
    *each("inner", lambda t, a, b: t.inner(a, b), np.inner, [(2, 3), (4, 3)], [(3,), (3,)]),
    *each("tensordot", lambda t, a, b: t.tensordot(a, b, dims=2), lambda a, b: np.tensordot(a, b, 2), [(2, 3, 4), (3, 4, 2)]),
    *each(
        "tensordot lists",
        lambda t, a, b: t.tensordot(a, b, dims=([0], [1])),
        lambda a, b: np.tensordot(a, b, ([0], [1])),
        [(2, 3), (4, 2)],
    ),
    *each(
        "cosine_similarity",
        lambda t, a, b: t.nn.functional.cosine_similarity(a, b),
        lambda a, b: (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)),
        [(2, 3), (2, 3)],
    ),
    *[
        case
        for equation, *shapes in (
            ("ij,jk->ik", (2, 3), (3, 4)),
            ("ij,kj", (2, 3), (4, 3)),
            ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
            ("bi,bi->b", (3, 2), (3, 2)),
            ("i,j->ij", (2,), (3,)),
            ("ij->ji", (2, 3)),
            ("ij->j", (2, 3)),
            ("ii->i", (3, 3)),
            ("ii", (3, 3)),
            ("ij,j,k->ik", (2, 3), (3,), (2,)),
            ("...ij,...jk->...ik", (2, 1, 2, 3), (3, 3, 2)),
            ("bhqd,bhkd->bhqk", (2, 2, 2, 3), (2, 2, 2, 3)),
            ("ij,ij->", (2, 3), (2, 3)),
            ("ij,klj->ikl", (2, 3), (2, 2, 3)),
        )
        for case in each(
            f"einsum {equation}",
            lambda t, *x, e=equation: t.einsum(e, *x),
            lambda *x, e=equation: np.einsum(e, *x),
            list(shapes),
        )
    ],
    # in place, on a copy
    *[
        case
        for name, reference, low, high in (
            ("abs_", np.abs, -2, 2),
            ("log_", np.log, 0.3, 2),
            ("log1p_", np.log1p, -0.5, 2),
            ("expm1_", np.expm1, -2, 2),
            ("square_", np.square, -2, 2),
            ("rsqrt_", lambda a: a**-0.5, 0.3, 2),
            ("reciprocal_", np.reciprocal, 0.3, 2),
            ("sin_", np.sin, -2, 2),
            ("cos_", np.cos, -2, 2),
            ("atan_", np.arctan, -2, 2),
            ("sinh_", np.sinh, -2, 2),
            ("floor_", np.floor, -2, 2),
            ("trunc_", np.trunc, -2, 2),
            ("round_", np.round, -2, 2),
        )
        for case in each(name, lambda t, a, n=name: changed(a, n), reference, (2, 3), low=low, high=high)
    ],
    *each("view of a base written later", view_written_later, lambda a, b: (a * b)[1:] ** 2 * a[1:], [(3, 2), (3, 2)]),
    *each("remainder_", lambda t, a, b: changed(a, "remainder_", b), np.remainder, [(2, 3), (3,)], low=0.61, high=2.73),
    *each("fmod_", lambda t, a: changed(a, "fmod_", 0.7), lambda a: np.fmod(a, 0.7), (2, 3)),
    *each(
        "addcmul_", lambda t, a, b, c: a.clone().addcmul_(b, c, value=2), lambda a, b, c: a + 2 * b * c, [(2, 3), (3,), (2, 1)]
    ),
]


FUNCTIONS_DISCRETE: list[Discrete] = [
    Discrete("heaviside", lambda t, a: t.heaviside(a, t.tensor(0.5)), lambda a: np.heaviside(a, 0.5), (X,)),
    Discrete("isclose", lambda t, a, b: t.isclose(a, b + 1e-6), lambda a, b: np.isclose(a, b + 1e-6), (X, Y)),
    Discrete(
        "isclose special",
        lambda t, a: t.isclose(a.unsqueeze(0), a.unsqueeze(1), equal_nan=True),
        lambda a: np.isclose(a[None], a[:, None], equal_nan=True),
        (SPECIAL,),
    ),
    Discrete("allclose", lambda t, a: t.tensor(t.allclose(a, a + 1e-9)), lambda a: np.array(True), (X,)),
    Discrete("equal", lambda t, a, b: t.tensor([t.equal(a, b), t.equal(a, a)]), lambda a, b: np.array([False, True]), (X, Y)),
    Discrete("trunc of numbers", lambda t, a: a.trunc(), np.trunc, (X,)),
    Discrete("int fmod", lambda t, a, b: t.fmod(a, b), np.fmod, (I, J)),
    Discrete("int cumprod", lambda t, a: a.cumprod(1), lambda a: a.cumprod(1), (I,)),
    Discrete(
        "cummax places",
        lambda t, a: t.cummax(a, 0)[1],
        lambda a: np.array([0, 1, 1, 3, 3, 5]),
        ([1.0, 3.0, 2.0, 3.0, -1.0, 4.0],),
    ),
    Discrete(
        "cummin places",
        lambda t, a: t.cummin(a, 0)[1],
        lambda a: np.array([0, 0, 2, 2, 4, 4]),
        ([1.0, 3.0, 1.0, 3.0, -1.0, 4.0],),
    ),
    Discrete("int cummax", lambda t, a: t.cummax(a, 1)[0], lambda a: np.maximum.accumulate(a, 1), (I,)),
    Discrete(
        "logcumsumexp special",
        lambda t, a: t.logcumsumexp(a, 0),
        lambda a: np.array([-np.inf, 0.0, 0.0, 1000.0, 1000.0, np.inf, np.inf]),
        ([-np.inf, 0.0, -200.0, 1000.0, -np.inf, np.inf, 3.0],),
    ),
    Discrete("count_nonzero", lambda t, a: t.count_nonzero(a), np.count_nonzero, (X,)),
    Discrete("count_nonzero dim", lambda t, a: a.count_nonzero(1), lambda a: np.count_nonzero(a, 1), (X,)),
    Discrete("argsort", lambda t, a: a.argsort(), lambda a: np.argsort(a), (Y,)),
    Discrete("argsort descending", lambda t, a: t.argsort(a, 0, descending=True), lambda a: np.argsort(-a, 0), (Y,)),
    Discrete(
        "argsort stable",
        lambda t, a: t.argsort(a, stable=True),
        lambda a: np.argsort(a, kind="stable"),
        ([[1, 3, 3, 1, 2, 3, 1]],),
    ),
    Discrete(
        "argsort stable down",
        lambda t, a: t.argsort(a, descending=True, stable=True),
        lambda a: np.argsort(-a, kind="stable"),
        ([[1, 3, 3, 1, 2, 3, 1]],),
    ),
    Discrete("sort nan", lambda t, a: a.sort().values, np.sort, ([1.0, math.nan, -math.inf, 0.5],)),
    Discrete("int sort", lambda t, a: a.sort(1).values, lambda a: np.sort(a, 1), (I,)),
    Discrete("topk indices", lambda t, a: a.topk(2).indices, lambda a: np.argsort(-a)[:, :2], (Y,)),
    Discrete("int median", lambda t, a: a.median(), lambda a: np.sort(a, None)[2], (I,)),
    Discrete("median nan", lambda t, a: a.median(), lambda a: a[1], ([1.0, math.nan, 2.0],)),
    Discrete("median indices", lambda t, a: a.median(1).indices, lambda a: np.argsort(a, 1)[:, 1], (Y,)),
    Discrete(
        "nan_to_num special",
        lambda t, a: t.nan_to_num(a, nan=2.0),
        lambda a: np.nan_to_num(a.astype(np.float32), nan=2.0),
        (SPECIAL,),
    ),
    Discrete("int flip", lambda t, a: a.flip(1), lambda a: np.flip(a, 1), (I,)),
    Discrete("bool roll", lambda t, a: a.roll(1, 0), lambda a: np.roll(a, 1, 0), (P,)),
    Discrete("int tril", lambda t, a: a.tril(), np.tril, (I,)),
    Discrete(
        "int pad",
        lambda t, a: t.nn.functional.pad(a, (1, 1), value=3),
        lambda a: np.pad(a, ((0, 0), (1, 1)), constant_values=3),
        (I,),
    ),
    Discrete("int repeat", lambda t, a: a.repeat(2, 1), lambda a: np.tile(a, (2, 1)), (I,)),
    Discrete("int scatter", lambda t, a: a.scatter(1, t.tensor([[2], [0]]), 9), lambda a: put(a, ([0, 1], [2, 0]), 9), (I,)),
    Discrete(
        "bool scatter", lambda t, a: a.scatter(1, t.tensor([[1], [0]]), True), lambda a: put(a, ([0, 1], [1, 0]), True), (P,)
    ),
    Discrete("nonzero", lambda t, a: a.nonzero(), lambda a: np.argwhere(a), (P,)),
    Discrete("nonzero tuple", lambda t, a: t.nonzero(a, as_tuple=True)[1], lambda a: np.nonzero(a)[1], (X,)),
    Discrete(
        "int embedding",
        lambda t, a: t.nn.functional.one_hot(a, 4).sum(0),
        lambda a: np.eye(4, dtype=np.int64)[a].sum(0),
        (CLASSES,),
    ),
    Discrete(
        "gather of index",
        lambda t, a: t.take_along_dim(a, t.tensor(INDEX), 1),
        lambda a: np.take_along_axis(a, np.array(INDEX), 1),
        (I,),
    ),
]
