"""Normalisation and dropout."""

from collections.abc import Sequence
from typing import Any

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import normalization as functional
from rl_lab.engine.ops.creation import ones, tensor, zeros
from rl_lab.engine.random import Generator, dropout
from rl_lab.engine.tape import no_grad
from rl_lab.nn import init
from rl_lab.nn.module import Module, Parameter


def _add_affine(module: Module, shape: tuple[int, ...], affine: bool, bias: bool | None = True) -> None:
    """A weight of ones and a bias of zeros, or None in their places; ``bias`` None for layers that have none at all."""
    module.register_parameter("weight", Parameter(ones(shape)) if affine else None)
    if bias is not None:
        module.register_parameter("bias", Parameter(zeros(shape)) if affine and bias else None)


class _Normalization(Module):
    """What normalising layers share."""

    def reset_parameters(self) -> None:
        """The weight to 1, the bias to 0."""
        for name, parameter in self.named_parameters():
            (init.ones_ if name == "weight" else init.zeros_)(parameter)


class LayerNorm(_Normalization):
    """`functional.layer_norm` over the last dimensions, of shape ``normalized_shape``; weight starts at 1, bias at 0."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        _add_affine(self, self.normalized_shape, elementwise_affine, bias)

    def forward(self, input: Any) -> Any:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(_Normalization):
    """`functional.rms_norm` over the last dimensions."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        _add_affine(self, self.normalized_shape, elementwise_affine, None)

    def forward(self, input: Any) -> Any:
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(_Normalization):
    """`functional.group_norm`."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if num_channels % num_groups:
            raise ValueError(f"{num_channels} channels cannot be divided into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        _add_affine(self, (num_channels,), affine)

    def forward(self, input: Any) -> Any:
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm1d(_Normalization):
    """`functional.batch_norm` of (n, features) or (n, features, length). ``momentum`` None averages all batches alike."""

    mode_matters = True
    ranks: tuple[int, ...] = (2, 3)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        _add_affine(self, (num_features,), affine)
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """The running mean to 0, the running variance to 1, no batches seen."""
        if self.running_mean is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """The weight to 1, the bias to 0, and the running statistics as at first."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Any) -> Any:
        if input.dim() not in self.ranks or input.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} takes {' or '.join(map(str, self.ranks))} dimensions with {self.num_features} channels, "
                f"got shape {list(input.shape)}"
            )
        tracks = self.running_mean is not None
        momentum: Any = self.momentum
        if self.training and tracks:
            with no_grad():
                self.num_batches_tracked.add_(1)
                if momentum is None:
                    momentum = 1.0 / self.num_batches_tracked.float()
        train = self.training or not tracks
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, train, momentum, self.eps
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"


class BatchNorm2d(BatchNorm1d):
    """`functional.batch_norm` of (n, channels, h, w)."""

    ranks = (4,)


class Dropout(Module):
    """In training each element is zero with probability p, the others are divided by 1 - p (Srivastava et al. 2014)."""

    mode_matters = True

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"the probability of dropout must be in [0, 1], got {p}")
        self.p, self.generator = p, generator

    def forward(self, input: Any) -> Any:
        return dropout(input, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"
