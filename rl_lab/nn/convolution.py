"""Convolution and pooling layers."""

import math
from typing import Any

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import convolution as functional
from rl_lab.engine.ops.convolution import pair
from rl_lab.engine.random import Generator
from rl_lab.engine.tensor import empty
from rl_lab.nn import init
from rl_lab.nn.layers import reset_uniform
from rl_lab.nn.module import Module, Parameter


class _Convolution(Module):
    """What the convolutions share: weights uniform on +-1/sqrt(fan in), as PyTorch's start."""

    rank = 2
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(f"{in_channels} and {out_channels} channels cannot be divided into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(kernel_size, "kernel_size", 1, self.rank)
        self.stride, self.dilation = pair(stride, "stride", 1, self.rank), pair(dilation, "dilation", 1, self.rank)
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", 0, self.rank)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape))
        self.register_parameter("bias", Parameter(empty((out_channels,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw weight and bias anew."""
        reset_uniform(self, math.prod(self.weight.shape[1:]), generator)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return text + (f", padding={self.padding}" if self.padding not in ((0,), (0, 0)) else "")


class Conv2d(_Convolution):
    """`functional.conv2d` with weight (out_channels, in_channels / groups, kh, kw)."""

    def forward(self, input: Any) -> Any:
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """`functional.conv1d` with weight (out_channels, in_channels / groups, k)."""

    rank = 1

    def forward(self, input: Any) -> Any:
        return functional.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """`functional.conv_transpose2d` with weight (in_channels, out_channels / groups, kh, kw)."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        *,
        generator: Generator | None = None,
        device: Any = None,
        dtype: Any = None,
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
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.output_padding = pair(output_padding, "output_padding", 0)

    def forward(self, input: Any) -> Any:
        settings = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return functional.conv_transpose2d(input, self.weight, self.bias, *settings)


class _Pool(Module):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.options = options

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """The largest value of each window."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride, padding, dilation=dilation, return_indices=return_indices, ceil_mode=ceil_mode)

    def forward(self, input: Any) -> Any:
        return functional.max_pool2d(input, self.kernel_size, self.stride, self.padding, **self.options)


class MaxPool1d(MaxPool2d):
    """The largest value of each window."""

    def forward(self, input: Any) -> Any:
        return functional.max_pool1d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AvgPool2d(_Pool):
    """The mean of each window."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        options = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
        super().__init__(kernel_size, stride, padding, **options)

    def forward(self, input: Any) -> Any:
        return functional.avg_pool2d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AvgPool1d(_Pool):
    """The mean of each window."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)

    def forward(self, input: Any) -> Any:
        return functional.avg_pool1d(input, self.kernel_size, self.stride, self.padding, **self.options)


class AdaptiveAvgPool2d(Module):
    """Means over as many parts as ``output_size`` says."""

    def __init__(self, output_size: Any):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        return functional.adaptive_avg_pool2d(input, self.output_size)
