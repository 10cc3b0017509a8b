"""Modules that take their number of input features or channels from their first input.

A lazy module has the arguments of the plain module without the first one, and becomes the plain module in its first call. An
optimiser may be made before.
"""

import inspect
from typing import Any

from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.random import Generator
from rl_lab.nn.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from rl_lab.nn.layers import Linear
from rl_lab.nn.module import Module, Parameter
from rl_lab.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from rl_lab.nn.volumes import Conv3d, ConvTranspose3d


class _Lazy(Module):
    """Base of the lazy modules: the next base of a subclass is the module that it becomes.

    Raises what the plain module raises for its arguments. The first call raises StateError if `rl_lab.compile` records it, ShapeError
    if the input has no features.
    """

    place: str
    """Name of the argument that is missing."""
    rank = 0
    """Dimensions of an input behind its channels; 0 for features in the last dimension."""

    def __init__(self, *arguments: object, **options: object):
        Module.__init__(self)
        self._arguments = arguments
        self._options = options
        given = inspect.signature(self._plain()).bind(1, *arguments, **options).arguments
        trial = dict(options, generator=Generator(0)) if "generator" in inspect.signature(self._plain()).parameters else options
        plain = self._plain()(
            given.get("groups", 1), *arguments, **trial
        )  # checks the arguments, draws no number of the caller
        for name, value in plain._parameters.items():
            self.register_parameter(name, None if value is None else Parameter(empty((0,))))
        for name, buffer in plain._buffers.items():
            self.register_buffer(name, buffer)
        self._take_settings(plain)
        setattr(self, self.place, 0)

    def _plain(self) -> Any:
        """The class of the plain module."""
        return type(self).__bases__[1]

    def _take_settings(self, plain: Module) -> None:
        own = vars(Module())
        vars(self).update({name: value for name, value in vars(plain).items() if name not in own})

    def forward(self, input: Tensor, *others: object, **options: object) -> Tensor:
        kind = type(self).__name__
        if recorder() is not None:
            raise StateError(f"{kind} does not know its {self.place} yet: call the module once before compiling")
        ranks = getattr(self, "ranks", (self.rank + 1, self.rank + 2) if self.rank else range(1, input.dim() + 1))
        if input.dim() not in ranks:
            raise ShapeError(f"{kind} takes {' or '.join(map(str, ranks))} dimensions, got shape {list(input.shape)}")
        size = input.shape[1 if isinstance(self, BatchNorm1d) else -1 - self.rank]
        if size < 1:
            raise ShapeError(f"{kind} needs an input with features, got shape {list(input.shape)}")
        plain = self._plain()(size, *self._arguments, **self._options)
        for name, value in plain._parameters.items():
            own = self._parameters[name]
            if own is not None and value is not None:
                own.data = value.data
        self._buffers.update(plain._buffers)
        del self._arguments, self._options
        self._take_settings(plain)
        self.__class__ = type(plain)
        return self.forward(input, *others, **options)


class LazyLinear(_Lazy, Linear):
    """`Linear` that takes ``in_features`` from its first input."""

    place = "in_features"


class LazyConv1d(_Lazy, Conv1d):
    """`Conv1d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 1


class LazyConv2d(_Lazy, Conv2d):
    """`Conv2d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 2


class LazyConv3d(_Lazy, Conv3d):
    """`Conv3d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 3


class LazyConvTranspose1d(_Lazy, ConvTranspose1d):
    """`ConvTranspose1d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 1


class LazyConvTranspose2d(_Lazy, ConvTranspose2d):
    """`ConvTranspose2d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 2


class LazyConvTranspose3d(_Lazy, ConvTranspose3d):
    """`ConvTranspose3d` that takes ``in_channels`` from its first input."""

    place = "in_channels"
    rank = 3


class LazyBatchNorm1d(_Lazy, BatchNorm1d):
    """`BatchNorm1d` that takes ``num_features`` from its first input."""

    place = "num_features"


class LazyBatchNorm2d(_Lazy, BatchNorm2d):
    """`BatchNorm2d` that takes ``num_features`` from its first input."""

    place = "num_features"


class LazyBatchNorm3d(_Lazy, BatchNorm3d):
    """`BatchNorm3d` that takes ``num_features`` from its first input."""

    place = "num_features"


class LazyInstanceNorm1d(_Lazy, InstanceNorm1d):
    """`InstanceNorm1d` that takes ``num_features`` from its first input."""

    place = "num_features"
    rank = 1


class LazyInstanceNorm2d(_Lazy, InstanceNorm2d):
    """`InstanceNorm2d` that takes ``num_features`` from its first input."""

    place = "num_features"
    rank = 2


class LazyInstanceNorm3d(_Lazy, InstanceNorm3d):
    """`InstanceNorm3d` that takes ``num_features`` from its first input."""

    place = "num_features"
    rank = 3
