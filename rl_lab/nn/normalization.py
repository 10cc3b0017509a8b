"""Normalisation and dropout."""

from collections.abc import Sequence
from typing import Any

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import normalization as functional
from rl_lab.engine.ops.creation import ones, tensor, zeros
from rl_lab.engine.random import Generator, dropout
from rl_lab.engine.tape import no_grad
from rl_lab.nn.module import Module, Parameter


class LayerNorm(Module):
    """`functional.layer_norm` over the last dimensions, of shape ``normalized_shape``; weight starts at 1, bias at 0."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.register_parameter("weight", Parameter(ones(self.normalized_shape)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(zeros(self.normalized_shape)) if elementwise_affine and bias else None)

    def forward(self, input: Any) -> Any:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(Module):
    """`functional.rms_norm` over the last dimensions."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.register_parameter("weight", Parameter(ones(self.normalized_shape)) if elementwise_affine else None)

    def forward(self, input: Any) -> Any:
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(Module):
    """`functional.group_norm`."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"{num_channels} channels cannot be divided into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.register_parameter("weight", Parameter(ones(num_channels)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_channels)) if affine else None)

    def forward(self, input: Any) -> Any:
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm1d(Module):
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
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.register_parameter("weight", Parameter(ones(num_features)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if track_running_stats else None)

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
