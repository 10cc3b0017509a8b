"""Changes of the size or the layout of images: interpolation, pixel shuffling, padding layers and further pooling layers."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import unrecorded
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.convolution import adaptive_avg_pool2d, avg_pool2d
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.ops.gathering import index_select
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.operands import INTEGERS
from rl_lab.engine.ops.rearrange import pad
from rl_lab.nn.module import Module

Sizes = int | Sequence[int]
Taps = list[tuple[np.ndarray, np.ndarray]]
"""Interpolation along one dimension: for each neighbour, its index and its weight at every new place."""

RANKS = {
    "nearest": (3, 4, 5),
    "nearest-exact": (3, 4, 5),
    "area": (3, 4, 5),
    "linear": (3,),
    "bilinear": (4,),
    "trilinear": (5,),
    "bicubic": (4,),
}


def _centres(size: int, wanted: int, align_corners: bool, scale: float | None) -> np.ndarray:
    """Coordinates of the new places on the old axis."""
    places = np.arange(wanted, dtype=np.float32)
    if align_corners:
        return places * np.float32((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    step = np.float32(size / wanted if scale is None else 1.0 / scale)
    return (places + np.float32(0.5)) * step - np.float32(0.5)


def _taps(mode: str, size: int, wanted: int, align_corners: bool, scale: float | None) -> Taps:
    """The neighbours from which interpolation from ``size`` to ``wanted`` places takes its values."""
    if mode in ("nearest", "nearest-exact"):
        step = np.float32(size / wanted if scale is None else 1.0 / scale)
        shift = np.float32(0.5 if mode == "nearest-exact" else 0.0)
        places = np.floor((np.arange(wanted, dtype=np.float32) + shift) * step).astype(np.int64)
        return [(np.minimum(places, size - 1), np.ones(wanted, np.float32))]
    centres = _centres(size, wanted, align_corners, scale)
    if mode == "bicubic":
        below = np.floor(centres).astype(np.int64)
        t = (centres - below).astype(np.float32)
        a = np.float32(-0.75)  # Keys 1981 with PyTorch's constant

        def near(x: np.ndarray) -> np.ndarray:
            return ((a + 2) * x - (a + 3)) * x * x + 1

        def far(x: np.ndarray) -> np.ndarray:
            return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

        weights = [far(t + 1), near(t), near(1 - t), far(2 - t)]
        return [(np.clip(below + k - 1, 0, size - 1), w.astype(np.float32)) for k, w in enumerate(weights)]
    centres = np.maximum(centres, 0)
    below = np.minimum(np.floor(centres).astype(np.int64), size - 1)
    above = np.minimum(below + 1, size - 1)
    t = np.clip(centres - below, 0, 1).astype(np.float32)
    return [(below, 1 - t), (above, t)]


@lru_cache(maxsize=256)
def _tap_tensors(mode: str, size: int, wanted: int, align_corners: bool, scale: float | None) -> list[tuple[Tensor, Tensor]]:
    """`_taps` as tensors, which are constants of a recording and outlive it."""
    with unrecorded():
        taps = _taps(mode, size, wanted, align_corners, scale)
        return [(tensor(places.tolist()), tensor(weights.tolist())) for places, weights in taps]


def _resample(x: Tensor, dim: int, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Interpolate along one dimension: the weighted sum of the neighbours."""
    along = [1] * x.dim()
    along[dim] = -1
    parts = [index_select(x, dim, places) for places, _ in taps]
    if len(taps) == 1:
        return parts[0]
    result = parts[0] * taps[0][1].reshape(along)
    for part, (_, weights) in zip(parts[1:], taps[1:], strict=True):
        result = result + part * weights.reshape(along)
    return result


def interpolate(
    input: Tensor,
    size: Sizes | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resample the last dimensions of (n, channels, ...) to ``size``, or by ``scale_factor``.

    ``mode`` is "nearest", "nearest-exact" or "area" for one to three dimensions, "linear" for one, "bilinear" or "bicubic" for two,
    "trilinear" for three. With ``align_corners`` the outermost old and new points coincide. Raises ValueError unless exactly one of
    ``size`` and ``scale_factor`` is given, for an unknown mode, and for ``antialias``, which is not supported; raises ShapeError for
    a wrong number of dimensions.
    """
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate takes either size or scale_factor")
    if mode not in RANKS:
        raise ValueError(f"mode must be one of {', '.join(RANKS)}, got {mode!r}")
    if antialias:
        raise ValueError("interpolate does not support antialias: pass antialias=False")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"align_corners belongs to the linear and cubic modes, not to {mode!r}")
    rank = input.dim() - 2
    if input.dim() not in RANKS[mode]:
        raise ShapeError(f"interpolate with mode {mode!r} takes {RANKS[mode]} dimensions, got shape {list(input.shape)}")
    factors: list[float | None] = [None] * rank
    if size is not None:
        sizes = [int(size)] * rank if isinstance(size, INTEGERS) else [int(s) for s in size]  # type: ignore[union-attr, arg-type]
    else:
        given = list(scale_factor) if isinstance(scale_factor, Sequence) else [cast(float, scale_factor)] * rank
        if len(given) != rank:
            raise ShapeError(f"interpolate: scale_factor {given} must be a number or {rank} numbers, one per dimension")
        sizes = [math.floor(old * factor) for old, factor in zip(input.shape[2:], given, strict=True)]
        if not recompute_scale_factor:
            factors = [float(factor) for factor in given]
    if len(sizes) != rank or min(sizes) < 1:
        raise ShapeError(f"interpolate: {sizes} must be {rank} positive sizes")
    result = input
    for axis, (wanted, factor) in enumerate(zip(sizes, factors, strict=True)):
        dim = axis + 2
        if mode == "area":
            result = _means(result, dim, wanted)
        elif wanted != result.shape[dim] or mode == "bicubic" or factor not in (None, 1.0):
            result = _resample(result, dim, _tap_tensors(mode, result.shape[dim], wanted, bool(align_corners), factor))
    return result if result is not input else input.clone()


def _means(x: Tensor, dim: int, count: int) -> Tensor:
    """Means over ``count`` windows that divide a dimension."""
    size = x.shape[dim]
    edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    return cat([x.narrow(dim, low, high - low).mean(dim, keepdim=True) for low, high in edges], dim)


def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """Means over windows that divide (n, channels, l) into ``output_size`` parts."""
    count = output_size[0] if isinstance(output_size, Sequence) else output_size
    return adaptive_avg_pool2d(input.unsqueeze(-2), (1, count)).squeeze(-2)


def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Maxima over windows that divide (n, channels, h, w) into ``output_size`` parts; None keeps a size.

    With ``return_indices`` returns also the index of each maximum in its flattened plane.
    """
    wanted = (output_size,) * 2 if output_size is None or isinstance(output_size, INTEGERS) else tuple(output_size)
    rows, columns = [old if new is None else new for old, new in zip(input.shape[-2:], wanted, strict=True)]
    height, width = input.shape[-2:]
    values = []
    places = []
    for i in range(rows):
        top, bottom = i * height // rows, -(-(i + 1) * height // rows)
        for j in range(columns):
            left, right = j * width // columns, -(-(j + 1) * width // columns)
            window = input[..., top:bottom, left:right].flatten(-2)
            best = window.max(-1)
            values.append(best.values)
            row = best.indices // (right - left)
            column = best.indices % (right - left)
            places.append((row + top) * width + column + left)
    shape = (*input.shape[:-2], rows, columns)
    result = cat([v.unsqueeze(-1) for v in values], -1).reshape(shape)
    return (result, cat([p.unsqueeze(-1) for p in places], -1).reshape(shape)) if return_indices else result


def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """Maxima over windows that divide (n, channels, l) into ``output_size`` parts; with ``return_indices`` also their indices."""
    count = output_size[0] if isinstance(output_size, Sequence) else output_size
    found = adaptive_max_pool2d(input.unsqueeze(-2), (1, count), return_indices)
    return (found[0].squeeze(-2), found[1].squeeze(-2)) if isinstance(found, tuple) else found.squeeze(-2)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (n, channels, h, w)."""
    area = math.prod((kernel_size,) * 2 if isinstance(kernel_size, INTEGERS) else kernel_size)
    mean = avg_pool2d(input**norm_type, kernel_size, stride, 0, ceil_mode)
    return (mean.sign() * mean.abs().relu() * area) ** (1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (n, channels, l)."""
    window = kernel_size[0] if isinstance(kernel_size, Sequence) else kernel_size
    step = window if stride is None else stride[0] if isinstance(stride, Sequence) else stride
    return lp_pool2d(input.unsqueeze(-2), norm_type, (1, window), (1, step), ceil_mode).squeeze(-2)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha * mean of squares over ``size`` neighbouring channels)^beta (Krizhevsky et al. 2012, section 3.3)."""
    if input.dim() < 3:
        raise ShapeError(f"local_response_norm takes at least 3 dimensions, got shape {list(input.shape)}")
    squares = input.square().flatten(2).transpose(1, 2)
    around = pad(squares, (size // 2, (size - 1) // 2))
    total = around.unfold(-1, size, 1).mean(-1)
    return input / ((total * alpha + k) ** beta).transpose(1, 2).reshape(input.shape)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., c * f^2, h, w) as (..., c, h * f, w * f) (Shi et al. 2016). Raises ShapeError if the channels do not divide."""
    f = upscale_factor
    channels, height, width = input.shape[-3:]
    if channels % (f * f):
        raise ShapeError(f"pixel_shuffle: {channels} channels cannot be divided by {f * f}")
    lead = input.shape[:-3]
    n = len(lead)
    parts = input.reshape(*lead, channels // (f * f), f, f, height, width)
    parts = parts.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return parts.reshape(*lead, channels // (f * f), height * f, width * f)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., c, h * f, w * f) as (..., c * f^2, h, w): the inverse of `pixel_shuffle`."""
    f = downscale_factor
    channels, height, width = input.shape[-3:]
    if height % f or width % f:
        raise ShapeError(f"pixel_unshuffle: {height} x {width} cannot be divided by {f}")
    lead = input.shape[:-3]
    n = len(lead)
    parts = input.reshape(*lead, channels, height // f, f, width // f, f)
    parts = parts.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return parts.reshape(*lead, channels * f * f, height // f, width // f)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of (n, channels, ...) taken in turn from each of ``groups`` groups (Zhang et al. 2018)."""
    n, channels = input.shape[:2]
    if channels % groups:
        raise ShapeError(f"channel_shuffle: {channels} channels cannot be divided into {groups} groups")
    rest = input.shape[2:]
    return input.reshape(n, groups, channels // groups, *rest).transpose(1, 2).reshape(input.shape)


# --- layers ----------------------------------------------------------------------------------------------------------


class Upsample(Module):
    """`functional.interpolate` with fixed settings."""

    def __init__(
        self,
        size: Sizes | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.size = size
        self.scale_factor = tuple(scale_factor) if isinstance(scale_factor, (list, tuple)) else scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        settings = (self.mode, self.align_corners, self.recompute_scale_factor)
        return interpolate(input, self.size, self.scale_factor, *settings)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` with mode "nearest"."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` with mode "bilinear" and aligned corners."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor, "bilinear", True)


class PixelShuffle(Module):
    """`functional.pixel_shuffle` as a module."""

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(Module):
    """`functional.pixel_unshuffle` as a module."""

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(Module):
    """`functional.channel_shuffle` as a module."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return channel_shuffle(input, self.groups)


class LocalResponseNorm(Module):
    """`functional.local_response_norm` as a module."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class _Pad(Module):
    """Base of the padding layers. ``padding`` is one number for all sides, or (left, right, top, bottom, front, back)."""

    rank = 1
    mode = "constant"
    value = 0.0

    def __init__(self, padding: Sizes):
        super().__init__()
        sides = (padding,) * (2 * self.rank) if isinstance(padding, INTEGERS) else tuple(padding)  # type: ignore[arg-type]
        if len(sides) != 2 * self.rank:
            raise ValueError(f"{type(self).__name__} takes a number or {2 * self.rank} numbers, got {padding}")
        self.padding = sides

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding, self.mode, self.value)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{self.padding}"


def _padding_layer(name: str, rank: int, mode: str) -> type[_Pad]:
    what = {
        "constant": "zeros",
        "reflect": "the elements reflected",
        "replicate": "the last element",
        "circular": "the other end",
    }
    document = (
        f"Pad the last {rank} dimension{'s' if rank > 1 else ''} with {what[mode]}, as `functional.pad` with mode {mode!r}."
    )
    return type(name, (_Pad,), {"rank": rank, "mode": mode, "__doc__": document, "__module__": __name__})


ZeroPad1d = _padding_layer("ZeroPad1d", 1, "constant")
ZeroPad2d = _padding_layer("ZeroPad2d", 2, "constant")
ZeroPad3d = _padding_layer("ZeroPad3d", 3, "constant")
ReflectionPad1d = _padding_layer("ReflectionPad1d", 1, "reflect")
ReflectionPad2d = _padding_layer("ReflectionPad2d", 2, "reflect")
ReflectionPad3d = _padding_layer("ReflectionPad3d", 3, "reflect")
ReplicationPad1d = _padding_layer("ReplicationPad1d", 1, "replicate")
ReplicationPad2d = _padding_layer("ReplicationPad2d", 2, "replicate")
ReplicationPad3d = _padding_layer("ReplicationPad3d", 3, "replicate")
CircularPad1d = _padding_layer("CircularPad1d", 1, "circular")
CircularPad2d = _padding_layer("CircularPad2d", 2, "circular")
CircularPad3d = _padding_layer("CircularPad3d", 3, "circular")


class _ConstantPad(_Pad):
    def __init__(self, padding: Sizes, value: float):
        super().__init__(padding)
        self.value = value


class ConstantPad1d(_ConstantPad):
    """Pad the last dimension with ``value``."""


class ConstantPad2d(_ConstantPad):
    """Pad the last 2 dimensions with ``value``."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """Pad the last 3 dimensions with ``value``."""

    rank = 3


class AdaptiveAvgPool1d(Module):
    """`functional.adaptive_avg_pool1d` as a module."""

    def __init__(self, output_size: Sizes):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool1d(input, self.output_size)


class AdaptiveMaxPool2d(Module):
    """`functional.adaptive_max_pool2d` as a module."""

    def __init__(self, output_size: int | Sequence[int | None] | None, return_indices: bool = False):
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(AdaptiveMaxPool2d):
    """`functional.adaptive_max_pool1d` as a module."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return adaptive_max_pool1d(input, self.output_size, self.return_indices)  # type: ignore[arg-type]


class LPPool2d(Module):
    """`functional.lp_pool2d` as a module."""

    pool = staticmethod(lp_pool2d)

    def __init__(self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False):
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return self.pool(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(LPPool2d):
    """`functional.lp_pool1d` as a module."""

    pool = staticmethod(lp_pool1d)
