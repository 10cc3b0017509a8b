"""Cases as in `cases.py` for the operations of networks: convolution, pooling, normalisation, losses."""

import math

import numpy as np

from tests.engine.cases import CLASSES, Case, each, log_softmax, loss, nll, sigmoid

VOLUME = [[2, 0], [1, 2]]  # class numbers for logits of shape (2, 3, 2)
WEIGHT = [0.5, 2.0, 1.5]
SIGNS = [[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]]


LABELS = [[2, 0, -1, 1], [1, -1, 0, 0], [-1, 0, 1, 2]]
GRID = [[[[0.1, -1.2], [-0.1, 0.9]]]]


def boxes(x):
    """The windows of 2 x 2 x 2 elements of (n, channels, d, h, w)."""
    n, c, d, h, w = x.shape
    return x.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2)


def conv3d_transposed(x, w):
    n, _, d, h, width = x.shape
    out = np.zeros((n, w.shape[1], 2 * d - 2 + w.shape[2], 2 * h - 2 + w.shape[3], 2 * width - 2 + w.shape[4]))
    for i, j, k in np.ndindex(d, h, width):
        ends = (2 * i + w.shape[2], 2 * j + w.shape[3], 2 * k + w.shape[4])
        out[:, :, 2 * i : ends[0], 2 * j : ends[1], 2 * k : ends[2]] += np.einsum("nc,cfijk->nfijk", x[:, :, i, j, k], w)
    return out[:, :, 1:-1]


def sampled(x, grid, corners):
    """Bilinear values of x (n, channels, h, w) at the grid, 0 outside."""
    n, c, h, w = x.shape
    out = np.zeros((n, c, *grid.shape[1:3]))
    for b, i, j in np.ndindex(*grid.shape[:3]):
        sizes = (w, h)
        u, v = [(g + 1) * (s - 1) / 2 if corners else ((g + 1) * s - 1) / 2 for g, s in zip(grid[b, i, j], sizes, strict=True)]
        for row in range(h):
            for column in range(w):
                out[b, :, i, j] += x[b, :, row, column] * max(0, 1 - abs(row - v)) * max(0, 1 - abs(column - u))
    return out


def conv(x, w, b=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    span = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))[
        :, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]
    ]
    parts = [
        np.einsum("nchwij,fcij->nfhw", part, filters)
        for part, filters in zip(np.split(windows, groups, 1), np.split(w, groups, 0), strict=True)
    ]
    out = np.concatenate(parts, 1)
    return out if b is None else out + b[:, None, None]


def conv_transposed(x, w, b, stride, padding, extra, groups=1):
    n, _, h, width = x.shape
    kh, kw = w.shape[2:]
    full = np.zeros((n, w.shape[1] * groups, (h - 1) * stride + kh + extra, (width - 1) * stride + kw + extra))
    channels, filters = x.shape[1] // groups, w.shape[1]
    for g in range(groups):
        part, weights = x[:, g * channels : (g + 1) * channels], w[g * channels : (g + 1) * channels]
        for i in range(h):
            for j in range(width):
                full[:, g * filters : (g + 1) * filters, i * stride : i * stride + kh, j * stride : j * stride + kw] += (
                    np.einsum("nc,cfij->nfij", part[:, :, i, j], weights)
                )
    end = (full.shape[2] - padding, full.shape[3] - padding)
    return full[:, :, padding : end[0], padding : end[1]] + b[:, None, None]


def windows(x, size, step):
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (-2, -1))[..., ::step, ::step, :, :]


def columns(x, size):
    view = windows(x, size, 1)
    n, c, h, w = view.shape[:4]
    return view.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * size * size, h * w)


def cover(rows, width):
    """The number of 2 x 2 windows in which each element lies."""
    return np.outer([1, *[2] * (rows - 2), 1], [1, *[2] * (width - 2), 1])


def layer_norm(x, w=1.0, b=0.0, axes=(-1,), eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * w + b


def along(value, x):
    return value.reshape(1, -1, *[1] * (x.ndim - 2))


def batch_norm(x, w, b):
    axes = tuple(d for d in range(x.ndim) if d != 1)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5) * along(w, x) + along(b, x)


def gru(x, h, w, v, b, c):
    (ri, zi, ni), (rh, zh, nh) = np.split(x @ w.T + b, 3, -1), np.split(h @ v.T + c, 3, -1)
    update, new = sigmoid(zi + zh), np.tanh(ni + sigmoid(ri + rh) * nh)
    return (1 - update) * new + update * h


def lstm(x, h, c, w, v, b, d):
    enter, forget, candidate, leave = np.split(x @ w.T + b + h @ v.T + d, 4, -1)
    cell = sigmoid(forget) * c + sigmoid(enter) * np.tanh(candidate)
    return np.concatenate([sigmoid(leave) * np.tanh(cell), cell])


def bce(p, y):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def weighted(losses, weights):
    return (losses * weights).sum() / weights.sum()


NETWORKS: list[Case] = [
    # convolution
    *each(
        "conv2d",
        lambda t, x, w, b: t.nn.functional.conv2d(x, w, b),
        conv,
        [(2, 2, 4, 5), (3, 2, 2, 3), (3,)],
        [(1, 1, 3, 3), (1, 1, 3, 3), (1,)],
        [(2, 3, 3, 3), (2, 3, 1, 1), (2,)],
        [(5, 2, 3, 3), (2, 2, 2, 2), (2,)],
    ),
    *each(
        "conv2d stride padding",
        lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: conv(x, w, b, (2, 2), (1, 1)),
        [(2, 2, 4, 5), (3, 2, 3, 3), (3,)],
        [(2, 2, 5, 5), (2, 2, 2, 2), (2,)],
    ),
    *each(
        "conv2d dilation",
        lambda t, x, w: t.nn.functional.conv2d(x, w, None, (2, 1), (1, 2), (1, 2)),
        lambda x, w: conv(x, w, None, (2, 1), (1, 2), (1, 2)),
        [(2, 2, 4, 5), (2, 2, 2, 3)],
    ),
    *each(
        "conv2d groups",
        lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, groups=2),
        lambda x, w, b: conv(x, w, b, groups=2),
        [(2, 4, 3, 3), (4, 2, 2, 2), (4,)],
        [(2, 2, 3, 3), (2, 1, 2, 2), (2,)],
    ),
    *each(
        "conv2d transposed input",
        lambda t, x, w: t.nn.functional.conv2d(x.transpose(2, 3), w.transpose(0, 1)),
        lambda x, w: conv(x.swapaxes(2, 3), w.swapaxes(0, 1)),
        [(2, 2, 4, 3), (2, 3, 2, 2)],
    ),
    *each(
        "conv2d same",
        lambda t, x, w: t.nn.functional.conv2d(x, w, padding="same"),
        lambda x, w: conv(np.pad(x, ((0, 0), (0, 0), (0, 1), (1, 1))), w),
        [(2, 2, 4, 3), (2, 2, 2, 3)],
    ),
    *each(
        "conv2d one sample",
        lambda t, x, w: t.nn.functional.conv2d(x, w),
        lambda x, w: conv(x[None], w)[0],
        [(2, 3, 4), (2, 2, 2, 2)],
    ),
    *each(
        "conv1d",
        lambda t, x, w, b: t.nn.functional.conv1d(x, w, b, 2, 1),
        lambda x, w, b: conv(x[:, :, None], w[:, :, None], b, (1, 2), (0, 1))[:, :, 0],
        [(2, 2, 6), (3, 2, 3), (3,)],
    ),
    *each(
        "conv_transpose2d",
        lambda t, x, w, b: t.nn.functional.conv_transpose2d(x, w, b, 2, 1, 1),
        lambda x, w, b: conv_transposed(x, w, b, 2, 1, 1),
        [(2, 2, 3, 2), (2, 3, 3, 3), (3,)],
    ),
    *each(
        "conv_transpose2d groups",
        lambda t, x, w, b: t.nn.functional.conv_transpose2d(x, w, b, groups=2),
        lambda x, w, b: conv_transposed(x, w, b, 1, 0, 0, 2),
        [(2, 4, 2, 2), (4, 1, 2, 2), (2,)],
    ),
    *each("unfold", lambda t, x: t.nn.functional.unfold(x, 2), lambda x: columns(x, 2), (2, 2, 3, 4)),
    *each(
        "fold",
        lambda t, x: t.nn.functional.fold(t.nn.functional.unfold(x, 2) ** 2, (3, 4), 2),
        lambda x: x**2 * cover(3, 4),
        (2, 2, 3, 4),
    ),
    # pooling
    *each(
        "max_pool2d",
        lambda t, x: t.nn.functional.max_pool2d(x, 2),
        lambda x: windows(x, 2, 2).max((-1, -2)),
        (2, 2, 4, 5),
        (2, 4, 4),
    ),
    *each(
        "max_pool2d padded",
        lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1),
        lambda x: windows(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-9), 3, 2).max((-1, -2)),
        (2, 2, 4, 5),
    ),
    *each("max_pool1d", lambda t, x: t.nn.functional.max_pool1d(x, 2), lambda x: x.reshape(2, 3, 2, 2).max(-1), (2, 3, 4)),
    *each("avg_pool2d", lambda t, x: t.nn.functional.avg_pool2d(x, 2), lambda x: windows(x, 2, 2).mean((-1, -2)), (2, 2, 4, 5)),
    *each(
        "avg_pool2d padded",
        lambda t, x: t.nn.functional.avg_pool2d(x, 3, 2, 1),
        lambda x: windows(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), 3, 2).mean((-1, -2)),
        (2, 2, 4, 5),
    ),
    *each("avg_pool1d", lambda t, x: t.nn.functional.avg_pool1d(x, 2), lambda x: x.reshape(2, 3, 2, 2).mean(-1), (2, 3, 4)),
    *each(
        "adaptive_avg_pool2d",
        lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, (2, 1)),
        lambda x: x.reshape(2, 2, 2, 2, 3).mean((3, 4))[..., None],
        (2, 2, 4, 3),
    ),
    *each(
        "adaptive_avg_pool2d uneven",
        lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, (2, 3)),
        lambda x: np.stack([x[:, :, :2].mean(2), x[:, :, 1:].mean(2)], 2),
        (2, 2, 3, 3),
    ),
    *each(
        "multilabel_margin_loss",
        lambda t, x: t.nn.functional.multilabel_margin_loss(x, t.tensor(LABELS), reduction="none"),
        lambda x: np.array(
            [
                sum(max(0, 1 - row[j] + row[i]) for j in on for i in range(len(row)) if i not in on) / len(row)
                for row, on in zip(x, [[2, 0], [1], []], strict=True)
            ]
        ),
        (3, 4),
        low=-2.3,
    ),
    # volumes
    *each(
        "conv3d",
        lambda t, x, w, b: t.nn.functional.conv3d(x, w, b, stride=(2, 1, 1)),
        lambda x, w, b: (
            np.einsum(
                "ncdhwijk,fcijk->nfdhw", np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3, 4))[:, :, ::2], w
            )
            + b[:, None, None, None]
        ),
        [(2, 2, 4, 3, 3), (3, 2, 2, 2, 3), (3,)],
    ),
    *each(
        "conv_transpose3d",
        lambda t, x, w: t.nn.functional.conv_transpose3d(x, w, stride=2, padding=(1, 0, 0)),
        conv3d_transposed,
        [(1, 2, 2, 2, 3), (2, 2, 2, 1, 2)],
    ),
    *each("avg_pool3d", lambda t, x: t.nn.functional.avg_pool3d(x, 2), lambda x: boxes(x).mean((3, 5, 7)), (2, 2, 4, 2, 4)),
    *each("max_pool3d", lambda t, x: t.nn.functional.max_pool3d(x, 2), lambda x: boxes(x).max((3, 5, 7)), (2, 2, 4, 2, 4)),
    *each(
        "adaptive_avg_pool3d",
        lambda t, x: t.nn.functional.adaptive_avg_pool3d(x, (2, 1, 2)),
        lambda x: boxes(x).mean((3, 5, 7)),
        (2, 2, 4, 2, 4),
    ),
    *each(
        "adaptive_max_pool3d",
        lambda t, x: t.nn.functional.adaptive_max_pool3d(x, (2, 1, 2)),
        lambda x: boxes(x).max((3, 5, 7)),
        (2, 2, 4, 2, 4),
    ),
    *each(
        "lp_pool3d",
        lambda t, x: t.nn.functional.lp_pool3d(x, 2.0, 2),
        lambda x: np.sqrt((boxes(x) ** 2).sum((3, 5, 7))),
        (2, 2, 4, 2, 4),
    ),
    *each(
        "max_unpool2d",
        lambda t, x: t.nn.functional.max_unpool2d(*t.nn.functional.max_pool2d(x, 2, return_indices=True), 2),
        lambda x: np.where(x == np.kron(windows(x, 2, 2).max((-1, -2)), np.ones((2, 2))), x, 0),
        (2, 2, 4, 6),
    ),
    *each(
        "max_unpool1d",
        lambda t, x: t.nn.functional.max_unpool1d(
            *t.nn.functional.max_pool1d(x, 2, return_indices=True), 2, output_size=(2, 2, 7)
        ),
        lambda x: np.pad(np.where(x == np.repeat(x.reshape(2, 2, 3, 2).max(-1), 2, -1), x, 0), ((0, 0), (0, 0), (0, 1))),
        (2, 2, 6),
    ),
    *each(
        "max_unpool3d",
        lambda t, x: t.nn.functional.max_unpool3d(*t.nn.functional.max_pool3d(x, 2, return_indices=True), 2),
        lambda x: np.where(x == np.kron(boxes(x).max((3, 5, 7)), np.ones((2, 2, 2))), x, 0),
        (2, 2, 4, 2, 4),
    ),
    # sampling
    *each(
        "affine_grid",
        lambda t, x: t.nn.functional.affine_grid(x, (2, 1, 2, 4), align_corners=False),
        lambda x: (
            np.stack([*np.meshgrid([-0.75, -0.25, 0.25, 0.75], [-0.5, 0.5]), np.ones((2, 4))], -1) @ x.swapaxes(1, 2)[:, None]
        ),
        (2, 2, 3),
    ),
    *[
        case
        for corners in (True, False)
        for case in each(
            f"grid_sample corners={corners}",
            lambda t, x, g, corners=corners: t.nn.functional.grid_sample(x, g, align_corners=corners),
            lambda x, g, corners=corners: sampled(x, g, corners),
            [(2, 2, 3, 4), (2, 2, 5, 2)],
        )
    ],
    *each(
        "grid_sample nearest",
        lambda t, x: t.nn.functional.grid_sample(x, t.tensor(GRID), mode="nearest", padding_mode="border", align_corners=True),
        lambda x: x[..., [[0, 2]], [[1, 1]]],
        (1, 2, 3, 3),
    ),
    # normalisation
    *each(
        "layer_norm",
        lambda t, x, w, b: t.nn.functional.layer_norm(x, (4,), w, b),
        layer_norm,
        [(3, 4), (4,), (4,)],
        [(2, 2, 4), (4,), (4,)],
    ),
    *each("layer_norm long", lambda t, x: t.nn.functional.layer_norm(x, (37,)), layer_norm, (2, 37)),
    *each(
        "layer_norm two",
        lambda t, x, w: t.nn.functional.layer_norm(x, (2, 3), w, eps=0.1),
        lambda x, w: layer_norm(x, w, axes=(-2, -1), eps=0.1),
        [(3, 2, 3), (2, 3)],
    ),
    *each(
        "layer_norm bias",
        lambda t, x, b: t.nn.functional.layer_norm(x, (3,), None, b),
        lambda x, b: layer_norm(x, 1, b),
        [(2, 3), (3,)],
    ),
    *each("layer_norm transposed", lambda t, x: t.nn.functional.layer_norm(x.t(), (3,)), lambda x: layer_norm(x.T), (3, 4)),
    *each(
        "rms_norm",
        lambda t, x, w: t.nn.functional.rms_norm(x, (4,), w, eps=1e-5),
        lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w,
        [(3, 4), (4,)],
    ),
    *each(
        "batch_norm",
        lambda t, x, w, b: t.nn.functional.batch_norm(x, None, None, w, b, training=True),
        batch_norm,
        [(5, 3), (3,), (3,)],
        [(2, 3, 4), (3,), (3,)],
        [(2, 2, 2, 3), (2,), (2,)],
    ),
    *each(
        "batch_norm running",
        lambda t, x, w, b: t.nn.functional.batch_norm(x, t.tensor([0.1, 0.2]), t.tensor([0.5, 2.0]), w, b),
        lambda x, w, b: (x - [0.1, 0.2]) / np.sqrt(np.array([0.5, 2.0]) + 1e-5) * w + b,
        [(3, 2), (2,), (2,)],
    ),
    *each(
        "group_norm",
        lambda t, x, w, b: t.nn.functional.group_norm(x, 2, w, b),
        lambda x, w, b: layer_norm(x.reshape(2, 2, -1)).reshape(x.shape) * along(w, x) + along(b, x),
        [(2, 4, 3), (4,), (4,)],
    ),
    *each(
        "normalize",
        lambda t, x: t.nn.functional.normalize(x, dim=-1),
        lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)),
        (2, 3),
    ),
    *each(
        "attention",
        lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v),
        lambda q, k, v: np.exp(log_softmax(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -1)) @ v,
        [(2, 3, 2), (2, 4, 2), (2, 4, 2)],
    ),
    *each(
        "attention causal",
        lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: np.exp(log_softmax(q @ k.T / math.sqrt(q.shape[-1]) + np.triu(np.full((3, 3), -1e9), 1), -1)) @ v,
        [(3, 2), (3, 2), (3, 2)],
    ),
    # gated cells
    *each(
        "gru_cell",
        lambda t, x, h, w, v, b, c: t.gru_cell(x, h, w, v, b, c),
        gru,
        [(2, 3), (2, 2), (6, 3), (6, 2), (6,), (6,)],
    ),
    *each(
        "lstm_cell",
        lambda t, x, h, c, w, v, b, d: t.cat(t.lstm_cell(x, (h, c), w, v, b, d)),
        lstm,
        [(2, 3), (2, 2), (2, 2), (8, 3), (8, 2), (8,), (8,)],
    ),
    # losses
    *[
        case
        for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", np.array))
        for case in each(
            f"soft_margin_loss {reduction}",
            lambda t, a, r=reduction: t.nn.functional.soft_margin_loss(a, t.tensor(SIGNS), reduction=r),
            lambda a, f=reduce: f(np.log1p(np.exp(-a * np.array(SIGNS)))),
            (2, 3),
        )
    ],
    *each(
        "kl_div",
        lambda t, a, b: t.nn.functional.kl_div(a, b, reduction="batchmean"),
        lambda a, b: (b * (np.log(b) - a)).sum() / 2,
        [(2, 3), (2, 3)],
        low=0.2,
        high=1.5,
    ),
    *each(
        "kl_div log",
        lambda t, a, b: t.nn.functional.kl_div(a, b, reduction="sum", log_target=True),
        lambda a, b: (np.exp(b) * (b - a)).sum(),
        [(2, 3), (2, 3)],
    ),
    *loss("binary_cross_entropy_with_logits", lambda a, b: bce(sigmoid(a), b), [(2, 3), (2, 3)]),
    *each(
        "bce_with_logits weights",
        lambda t, a, b: t.nn.functional.binary_cross_entropy_with_logits(
            a, b, t.tensor(WEIGHT), pos_weight=t.tensor([2.0, 0.5, 1.0])
        ),
        lambda a, b: (-(np.array([2.0, 0.5, 1.0]) * b * np.log(sigmoid(a)) + (1 - b) * np.log(1 - sigmoid(a))) * WEIGHT).mean(),
        [(2, 3), (2, 3)],
    ),
    *[
        case
        for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", np.array))
        for case in each(
            f"binary_cross_entropy {reduction}",
            lambda t, a, r=reduction: t.nn.functional.binary_cross_entropy(
                a, t.tensor([[0.2, 1.0, 0.0], [0.5, 0.7, 0.1]]), reduction=r
            ),
            lambda a, f=reduce: f(bce(a, np.array([[0.2, 1.0, 0.0], [0.5, 0.7, 0.1]]))),
            (2, 3),
            low=0.1,
            high=0.9,
        )
    ],
    *each(
        "gaussian_nll_loss",
        lambda t, a, b, v: t.nn.functional.gaussian_nll_loss(a, b, v),
        lambda a, b, v: ((np.log(v) + (a - b) ** 2 / v) / 2).mean(),
        [(2, 3)] * 3,
        low=0.3,
        high=2,
    ),
    *each(
        "gaussian_nll_loss full",
        lambda t, a, b, v: t.nn.functional.gaussian_nll_loss(a, b, v, full=True, reduction="sum"),
        lambda a, b, v: ((np.log(v) + (a - b) ** 2 / v + math.log(2 * math.pi)) / 2).sum(),
        [(2, 3), (2, 3), (2, 1)],
        low=0.3,
        high=2,
    ),
    *each(
        "poisson_nll_loss",
        lambda t, a: t.nn.functional.poisson_nll_loss(a, t.tensor([[0.0, 1.0, 3.0]]).expand(2, 3)),
        lambda a: (np.exp(a) - np.array([0, 1, 3]) * a).mean(),
        (2, 3),
    ),
    *each(
        "hinge_embedding_loss",
        lambda t, a: t.nn.functional.hinge_embedding_loss(a, t.tensor([[1, -1, 1], [-1, -1, 1]])),
        lambda a: np.where(np.array([[1, -1, 1], [-1, -1, 1]]) == 1, a, np.maximum(1 - a, 0)).mean(),
        (2, 3),
    ),
    *each(
        "margin_ranking_loss",
        lambda t, a, b: t.nn.functional.margin_ranking_loss(a, b, t.tensor(SIGNS), margin=0.3),
        lambda a, b: np.maximum(0.3 - np.array(SIGNS) * (a - b), 0).mean(),
        [(2, 3), (2, 3)],
    ),
    *each(
        "nll_loss weight",
        lambda t, a: t.nn.functional.nll_loss(a, t.tensor(CLASSES), t.tensor(WEIGHT)),
        lambda a: weighted(nll(a, CLASSES), np.array(WEIGHT)[CLASSES]),
        (4, 3),
    ),
    *each(
        "nll_loss ignored",
        lambda t, a: t.nn.functional.nll_loss(a, t.tensor([2, -100, 1, 2])),
        lambda a: -(a[0, 2] + a[2, 1] + a[3, 2]) / 3,
        (4, 3),
    ),
    *each(
        "nll_loss planes",
        lambda t, a: t.nn.functional.nll_loss(a, t.tensor(VOLUME)),
        lambda a: -np.take_along_axis(a, np.array(VOLUME)[:, None], 1).mean(),
        (2, 3, 2),
    ),
    *each(
        "nll_loss planes none",
        lambda t, a: t.nn.functional.nll_loss(a, t.tensor(VOLUME), reduction="none"),
        lambda a: -np.take_along_axis(a, np.array(VOLUME)[:, None], 1)[:, 0],
        (2, 3, 2),
    ),
    *[
        case
        for reduction in ("mean", "sum", "none")
        for case in each(
            f"cross_entropy weight {reduction}",
            lambda t, a, r=reduction: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), t.tensor(WEIGHT), reduction=r),
            lambda a, r=reduction: {
                "mean": lambda x: x.sum() / np.array(WEIGHT)[CLASSES].sum(),
                "sum": np.sum,
                "none": np.array,
            }[r](nll(log_softmax(a, 1), CLASSES) * np.array(WEIGHT)[CLASSES]),
            (4, 3),
        )
    ],
    *each(
        "cross_entropy weight smoothed",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(CLASSES), t.tensor(WEIGHT), label_smoothing=0.2),
        lambda a: (
            (
                0.8 * (nll(log_softmax(a, 1), CLASSES) * np.array(WEIGHT)[CLASSES]).sum()
                - 0.2 / 3 * (log_softmax(a, 1) * WEIGHT).sum()
            )
            / np.array(WEIGHT)[CLASSES].sum()
        ),
        (4, 3),
    ),
    *each(
        "cross_entropy ignored smoothed",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor([2, 1, 0, 1]), ignore_index=1, label_smoothing=0.2),
        lambda a: (0.8 * nll(log_softmax(a, 1), [2, 1, 0, 1]) - 0.2 * log_softmax(a, 1).mean(1))[[0, 2]].mean(),
        (4, 3),
    ),
    *each(
        "cross_entropy planes",
        lambda t, a: t.nn.functional.cross_entropy(a, t.tensor(VOLUME)),
        lambda a: -np.take_along_axis(log_softmax(a, 1), np.array(VOLUME)[:, None], 1).mean(),
        (2, 3, 2),
    ),
    *each(
        "cross_entropy probabilities weight",
        lambda t, a, b: t.nn.functional.cross_entropy(a, b, t.tensor(WEIGHT), label_smoothing=0.1),
        lambda a, b: -((0.9 * b + 0.1 / 3) * WEIGHT * log_softmax(a, 1)).sum(1).mean(),
        [(2, 3), (2, 3)],
    ),
]
