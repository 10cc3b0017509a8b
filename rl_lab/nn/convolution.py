"""Convolution and pooling layers."""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops import convolution as functional
from rl_lab.engine.ops.convolution import pair
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.random import Generator
from rl_lab.nn import init
from rl_lab.nn.layers import reset_uniform
from rl_lab.nn.module import Module, Parameter

Sizes = int | Sequence[int]
"""One integer for all axes, or one integer per axis."""


class _Convolution(Module):
    """Base of the convolutions. Weight and bias start uniform on +-1 / sqrt(fan in), as in PyTorch.

    Raises ShapeError if ``groups`` does not divide both channel counts, ValueError if a size is out of range.
    """

    bias: Parameter
    """None if the layer has no bias; PyTorch declares the same type."""

    rank = 2
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        modes = ("zeros",) if self.transposed else ("zeros", "reflect", "replicate", "circular")
        if padding_mode not in modes:
            raise ValueError(f"{type(self).__name__}: padding_mode must be one of {', '.join(modes)}, got {padding_mode!r}")
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"groups must divide both channel counts, got {groups} groups for {in_channels} and {out_channels} channels"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.kernel_size = pair(kernel_size, "kernel_size", 1, self.rank)
        self.stride = pair(stride, "stride", 1, self.rank)
        self.dilation = pair(dilation, "dilation", 1, self.rank)
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", 0, self.rank)
        self.padding_mode = padding_mode
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape))
        self.register_parameter("bias", Parameter(empty((out_channels,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new values for weight and bias."""
        reset_uniform(self, math.prod(self.weight.shape[1:]), generator)

    def padded(self, input: Tensor) -> tuple[Tensor, "Sizes | str"]:
        """The input, padded as ``padding_mode`` says, and the zeros that the convolution pads it with."""
        if self.padding_mode == "zeros":
            return input, self.padding
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        sides = [(n, n) for n in self.padding] if not isinstance(self.padding, str) else [(n // 2, n - n // 2) for n in reach]
        if self.padding == "valid":
            return input, 0
        amounts = [n for pair_of_sides in reversed(sides) for n in pair_of_sides]
        return functional.pad(input, amounts, self.padding_mode), 0

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return text + (f", padding={self.padding}" if self.padding not in ((0,), (0, 0)) else "")


class Conv2d(_Convolution):
    """2-d convolution of (n, in_channels, h, w), with a weight of shape (out_channels, in_channels / groups, kh, kw)."""

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self.padded(input)
        return functional.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """1-d convolution of (n, in_channels, length), with a weight of shape (out_channels, in_channels / groups, k)."""

    rank = 1

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self.padded(input)
        return functional.conv1d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """Transposed 2-d convolution of (n, in_channels, h, w), with a weight of shape (in_channels, out_channels / groups, kh, kw)."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.output_padding = pair(output_padding, "output_padding", 0, self.rank)

    def _settings(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[Any, ...]:
        """The settings of the function, with the output padding that gives an output of ``output_size``.

        ``output_size`` names the spatial sizes, or all of them. Raises ValueError if no output padding gives that size.
        """
        extra = self.output_padding
        if output_size is not None:
            wanted = tuple(output_size)[-self.rank :]
            padding: Any = self.padding  # a text for convolutions that are not transposed
            each = zip(input.shape[-self.rank :], self.stride, padding, self.dilation, self.kernel_size, strict=True)
            least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in each]
            extra = tuple([size - low for size, low in zip(wanted, least, strict=True)])
            if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, self.stride, self.dilation, strict=True)):
                most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
                raise ValueError(f"an output of size {list(wanted)} is not to be had: sizes are from {least} to {most}")
        return self.stride, self.padding, extra, self.groups, self.dilation

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        settings = self._settings(input, output_size)
        return functional.conv_transpose2d(input, self.weight, self.bias, *settings)  # type: ignore[arg-type]


class _Pool(Module):
    """Base of the pooling layers. ``stride`` is the window's size unless given."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, **options: Any):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.options = options

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """Maximum of each window of (n, channels, h, w). With ``return_indices``: (maxima, indices), as `functional.max_pool2d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride, padding, dilation=dilation, return_indices=return_indices, ceil_mode=ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        return functional.max_pool2d(input, self.kernel_size, self.stride, self.padding, **self.options)


class MaxPool1d(MaxPool2d):
    """Maximum of each window of (n, channels, length). With ``return_indices``: (maxima, indices)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.max_pool1d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AvgPool2d(_Pool):
    """Mean of each window of (n, channels, h, w)."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        options: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        options["divisor_override"] = divisor_override
        super().__init__(kernel_size, stride, padding, **options)

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AvgPool1d(_Pool):
    """Mean of each window of (n, channels, length)."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool1d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AdaptiveAvgPool2d(Module):
    """Means of (n, channels, h, w) over windows chosen so that the result is (n, channels, *output_size).

    None in place of a size keeps the size of the input.
    """

    def __init__(self, output_size: int | Sequence[int | None] | None):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(input, self.output_size)


class ConvTranspose1d(ConvTranspose2d):
    """The gradient of a `Conv1d` as a layer: (n, in_channels, length) to (n, out_channels, ...).

    ``weight`` is (in_channels, out_channels / groups, kernel_size).
    """

    rank = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        settings = self._settings(input, output_size)
        return functional.conv_transpose1d(input, self.weight, self.bias, *settings)  # type: ignore[arg-type]


class Unfold(Module):
    """`functional.unfold` as a module."""

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Module):
    """`functional.fold` as a module."""

    def __init__(self, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1):
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return functional.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
