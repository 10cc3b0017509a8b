"""Convolution and pooling of volumes (n, channels, d, h, w), from those of images, and max-unpooling of lines, images and volumes.

Windows are boxes: along the depth they are stacked (convolution) or pooled a second time (pooling).
"""

from collections.abc import Sequence
from typing import Any, cast

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.convolution import (
    adaptive_avg_pool2d,
    avg_pool2d,
    check_tensors,
    conv2d,
    conv_transpose2d,
    max_pool1d,
    max_pool2d,
    pair,
    same_padding,
)
from rl_lab.engine.ops.creation import arange, zeros
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.ops.operands import INTEGERS
from rl_lab.engine.ops.rearrange import pad
from rl_lab.nn.convolution import AvgPool2d, ConvTranspose2d, MaxPool2d, _Convolution
from rl_lab.nn.module import Module
from rl_lab.nn.resampling import AdaptiveMaxPool2d, LPPool2d, adaptive_avg_pool1d, adaptive_max_pool1d, adaptive_max_pool2d

Sizes = int | Sequence[int]
OutputSizes = int | Sequence[int | None] | None


def _batched(name: str, input: Tensor) -> Tensor:
    """The input with a dimension for samples. Raises ShapeError unless it is (n, channels, d, h, w) or (channels, d, h, w)."""
    if input.dim() not in (4, 5):
        raise ShapeError(f"{name} takes (n, channels, d, h, w) or (channels, d, h, w), got shape {list(input.shape)}")
    return input if input.dim() == 5 else input.unsqueeze(0)


# --- convolution -----------------------------------------------------------------------------------------------------


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of (n, channels, d, h, w) with weight (filters, channels / groups, kd, kh, kw), plus bias (filters,).

    ``padding`` as in `conv2d`. Raises DtypeError, ShapeError or ValueError for unsuitable arguments.
    """
    x = _batched("conv3d", input)
    check_tensors("conv3d", 3, input, weight, bias, groups)
    step, gap = pair(stride, "stride", 1, 3), pair(dilation, "dilation", 1, 3)
    window = weight.shape[2:]
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid', 'same' or integers, not {padding!r}")
        before, after = same_padding(weight, step, gap) if padding == "same" else ([0, 0, 0], [0, 0, 0])
        sides = list(zip(before, after, strict=True))
    else:
        sides = [(p, p) for p in pair(padding, "padding", 0, 3)]
    if any(map(any, sides)):
        x = pad(x, tuple(side for pair_of_sides in reversed(sides) for side in pair_of_sides))
    n, channels, depth = x.shape[:3]
    count = (depth - gap[0] * (window[0] - 1) - 1) // step[0] + 1
    if count < 1:
        raise ShapeError(f"conv3d: a window of {list(window)} does not fit into the padded input of shape {list(x.shape)}")
    slices = [x[:, :, k * gap[0] : k * gap[0] + step[0] * (count - 1) + 1 : step[0]] for k in range(window[0])]
    planes = stack(slices, 2).permute(0, 3, 1, 2, 4, 5)  # (n, count, channels, kd, h, w)
    planes = planes.reshape(n * count, channels * window[0], *x.shape[3:])
    out = conv2d(planes, weight.flatten(1, 2), bias, step[1:], 0, gap[1:], groups)
    out = out.reshape(n, count, *out.shape[1:]).transpose(1, 2)
    return out if input.dim() == 5 else out.squeeze(0)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The gradient of `conv3d` with respect to its input: (n, channels, d, h, w), weight (channels, filters / groups, kd, kh, kw).

    Raises DtypeError, ShapeError or ValueError for unsuitable arguments.
    """
    x = _batched("conv_transpose3d", input)
    check_tensors("conv_transpose3d", 3, input, weight, bias, groups, transposed=True)
    step, gap = pair(stride, "stride", 1, 3), pair(dilation, "dilation", 1, 3)
    edge, extra = pair(padding, "padding", 0, 3), pair(output_padding, "output_padding", 0, 3)
    n, channels, depth = x.shape[:3]
    filters, window = weight.shape[1] * groups, weight.shape[2]
    planes = x.transpose(1, 2).reshape(n * depth, channels, *x.shape[3:])
    parts = conv_transpose2d(planes, weight.flatten(1, 2), None, step[1:], edge[1:], extra[1:], groups, gap[1:])
    parts = parts.reshape(n, depth, filters, window, *parts.shape[2:])
    long = (depth - 1) * step[0] + gap[0] * (window - 1) + 1 + extra[0]
    out = zeros(n, long, filters, *parts.shape[4:])
    for k in range(window):
        out = out.index_add(1, arange(depth) * step[0] + k * gap[0], parts[:, :, :, k])
    out = out[:, edge[0] : long - edge[0]].transpose(1, 2)
    if bias is not None:
        out = out + bias.reshape(-1, 1, 1, 1)
    return out if input.dim() == 5 else out.squeeze(0)


class Conv3d(_Convolution):
    """3-d convolution of (n, in_channels, d, h, w), with a weight of shape (out_channels, in_channels / groups, kd, kh, kw)."""

    rank = 3

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self.padded(input)
        return conv3d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose3d(ConvTranspose2d):
    """The gradient of a `Conv3d` as a layer, with a weight of shape (in_channels, out_channels / groups, kd, kh, kw)."""

    rank = 3

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        settings = self._settings(input, output_size)
        return conv_transpose3d(input, self.weight, self.bias, *settings)  # type: ignore[arg-type]


# --- pooling ---------------------------------------------------------------------------------------------------------


def _window(
    kernel_size: Sizes, stride: Sizes | None, padding: Sizes
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    window = pair(kernel_size, "kernel_size", 1, 3)
    return window, window if stride is None else pair(stride, "stride", 1, 3), pair(padding, "padding", 0, 3)


def _planes(x: Tensor) -> Tensor:
    """(n, channels, d, h, w) as images (n * channels, d, h, w)."""
    return x.flatten(0, 1)


def _lines(images: Tensor) -> Tensor:
    """(N, d, h, w) as lines along the depth (N, h * w, d)."""
    return images.flatten(2).transpose(1, 2)


def avg_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (n, channels, d, h, w), as `avg_pool2d`."""
    x = _batched("avg_pool3d", input)
    window, step, edge = _window(kernel_size, stride, padding)
    divisors = (None, None) if divisor_override is None else (1, divisor_override)
    flat = avg_pool2d(_planes(x), window[1:], step[1:], edge[1:], ceil_mode, count_include_pad, divisors[0])
    deep = avg_pool2d(
        _lines(flat).unsqueeze(-2), (1, window[0]), (1, step[0]), (0, edge[0]), ceil_mode, count_include_pad, divisors[1]
    )
    out = deep.squeeze(-2).transpose(1, 2).reshape(*x.shape[:2], deep.shape[-1], *flat.shape[2:])
    return out if input.dim() == 5 else out.squeeze(0)


def max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of each window of (n, channels, d, h, w); with ``return_indices`` also its position in d * h * w."""
    x = _batched("max_pool3d", input)
    window, step, edge = _window(kernel_size, stride, padding)
    gap = pair(dilation, "dilation", 1, 3)
    flat, within = max_pool2d(_planes(x), window[1:], step[1:], edge[1:], gap[1:], ceil_mode, return_indices=True)
    deep, layer = max_pool1d(_lines(flat), window[0], step[0], edge[0], gap[0], ceil_mode, return_indices=True)
    return _with_indices(input, x, flat, within, deep, layer, return_indices)


def _with_indices(
    input: Tensor, x: Tensor, flat: Tensor, within: Tensor, deep: Tensor, layer: Tensor, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Maxima of volumes from the maxima ``deep`` (N, h * w, d) along the depth of the maxima ``flat`` (N, d, h, w) of each plane."""
    shape = (*x.shape[:2], deep.shape[-1], *flat.shape[2:])
    if input.dim() == 4:
        shape = shape[1:]
    out = deep.transpose(1, 2).reshape(shape)
    if not return_indices:
        return out
    index = _lines(within).gather(-1, layer) + layer * (x.shape[3] * x.shape[4])
    return out, index.transpose(1, 2).reshape(shape)


def _output_sizes(x: Tensor, output_size: OutputSizes) -> tuple[int, ...]:
    wanted = (output_size,) * 3 if output_size is None or isinstance(output_size, INTEGERS) else tuple(output_size)
    return tuple(old if new is None else new for old, new in zip(x.shape[2:], wanted, strict=True))


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSizes) -> Tensor:
    """Means over windows that divide (n, channels, d, h, w) into ``output_size`` parts; None keeps a size."""
    x = _batched("adaptive_avg_pool3d", input)
    depth, *plane = _output_sizes(x, output_size)
    flat = adaptive_avg_pool2d(_planes(x), plane)
    out = adaptive_avg_pool1d(_lines(flat), depth).transpose(1, 2).reshape(*x.shape[:2], depth, *plane)
    return out if input.dim() == 5 else out.squeeze(0)


def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSizes, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Maxima over windows that divide (n, channels, d, h, w) into ``output_size`` parts; with ``return_indices`` also their positions."""
    x = _batched("adaptive_max_pool3d", input)
    depth, *plane = _output_sizes(x, output_size)
    flat, within = cast("tuple[Tensor, Tensor]", adaptive_max_pool2d(_planes(x), plane, True))
    deep, layer = cast("tuple[Tensor, Tensor]", adaptive_max_pool1d(_lines(flat), depth, True))
    return _with_indices(input, x, flat, within, deep, layer, return_indices)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (n, channels, d, h, w)."""
    window = pair(kernel_size, "kernel_size", 1, 3)
    mean = avg_pool3d(input**norm_type, kernel_size, stride, 0, ceil_mode)
    return (mean.sign() * mean.abs().relu() * (window[0] * window[1] * window[2])) ** (1.0 / norm_type)


class AvgPool3d(AvgPool2d):
    """Mean of each window of (n, channels, d, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool3d(input, self.kernel_size, self.stride, self.padding, **self.options)


class MaxPool3d(MaxPool2d):
    """Maximum of each window of (n, channels, d, h, w). With ``return_indices``: (maxima, indices)."""

    def forward(self, input: Tensor) -> Tensor:
        return max_pool3d(input, self.kernel_size, self.stride, self.padding, **self.options)  # type: ignore[return-value]


class AdaptiveAvgPool3d(Module):
    """`functional.adaptive_avg_pool3d` as a module."""

    def __init__(self, output_size: OutputSizes):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool3d(AdaptiveMaxPool2d):
    """`functional.adaptive_max_pool3d` as a module."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return adaptive_max_pool3d(input, self.output_size, self.return_indices)


class LPPool3d(LPPool2d):
    """`functional.lp_pool3d` as a module."""

    pool = staticmethod(lp_pool3d)


# --- unpooling -------------------------------------------------------------------------------------------------------


def _unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
) -> Tensor:
    if input.shape != indices.shape or input.dim() not in (rank + 1, rank + 2):
        raise ShapeError(
            f"max_unpool{rank}d takes values and indices of one shape, with {rank} dimensions after the channels, got "
            f"{list(input.shape)} and {list(indices.shape)}"
        )
    window = pair(kernel_size, "kernel_size", 1, rank)
    step = window if stride is None else pair(stride, "stride", 1, rank)
    edge = pair(padding, "padding", 0, rank)
    if output_size is None:
        sizes = [(old - 1) * s - 2 * p + k for old, s, p, k in zip(input.shape[-rank:], step, edge, window, strict=True)]
    else:
        sizes = [int(size) for size in list(output_size)[-rank:]]
    lead = tuple(input.shape[:-rank])
    total = 1
    for size in sizes:
        total *= size
    out = zeros(*lead, total).scatter(-1, indices.flatten(-rank), input.flatten(-rank))
    return out.reshape(*lead, *sizes)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool1d` put back at their indices. Raises IndexError for an index outside of the output."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool2d` put back at their indices. Raises IndexError for an index outside of the output."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the maxima of `max_pool3d` put back at their indices. Raises IndexError for an index outside of the output."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


class MaxUnpool1d(Module):
    """`functional.max_unpool1d` as a module."""

    function: Any = staticmethod(max_unpool1d)

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self.function(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(MaxUnpool1d):
    """`functional.max_unpool2d` as a module."""

    function = staticmethod(max_unpool2d)


class MaxUnpool3d(MaxUnpool1d):
    """`functional.max_unpool3d` as a module."""

    function = staticmethod(max_unpool3d)
