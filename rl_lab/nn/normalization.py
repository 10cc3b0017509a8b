"""Normalisation layers and dropout."""

from collections.abc import Sequence

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike, int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops import normalization as functional
from rl_lab.engine.ops.creation import ones, tensor, zeros
from rl_lab.engine.ops.operands import INTEGERS
from rl_lab.engine.random import Generator, alpha_dropout, channel_dropout, dropout
from rl_lab.engine.tape import no_grad
from rl_lab.nn import init
from rl_lab.nn.module import Module, Parameter


def _add_affine(module: Module, shape: tuple[int, ...], affine: bool, bias: bool | None = True) -> None:
    """Register a weight of ones and a bias of zeros, each None if switched off. With ``bias`` None, register no bias at all."""
    module.register_parameter("weight", Parameter(ones(shape)) if affine else None)
    if bias is not None:
        module.register_parameter("bias", Parameter(zeros(shape)) if affine and bias else None)


class _Normalization(Module):
    """Base of the normalisation layers."""

    weight: Parameter
    """None without an affine part; PyTorch declares the same type."""
    bias: Parameter
    """None without an affine part or without a bias."""

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        for name, parameter in self.named_parameters():
            (init.ones_ if name == "weight" else init.zeros_)(parameter)


class LayerNorm(_Normalization):
    """Layer normalisation over the last dimensions, whose sizes are ``normalized_shape`` (Ba, Kiros and Hinton 2016).

    With ``elementwise_affine`` the result is scaled by a weight, at first 1, and shifted by a bias, at first 0.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, INTEGERS) else tuple(normalized_shape)
        self.eps = eps
        _add_affine(self, self.normalized_shape, elementwise_affine, bias)

    def forward(self, input: Tensor) -> Tensor:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(_Normalization):
    """Division by the root mean square of the last dimensions, whose sizes are ``normalized_shape`` (Zhang and Sennrich 2019)."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, INTEGERS) else tuple(normalized_shape)
        self.eps = eps
        _add_affine(self, self.normalized_shape, elementwise_affine, None)

    def forward(self, input: Tensor) -> Tensor:
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(_Normalization):
    """Normalisation of (n, num_channels, ...) over groups of channels (Wu and He 2018). Raises ValueError if the groups are unequal."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if num_channels % num_groups:
            raise ValueError(f"num_groups must divide num_channels, got {num_groups} groups and {num_channels} channels")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        _add_affine(self, (num_channels,), affine, bias)

    def forward(self, input: Tensor) -> Tensor:
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm1d(_Normalization):
    """Batch normalisation of (n, features) or (n, features, length) (Ioffe and Szegedy 2015, algorithm 1).

    In training mode each feature is normalised by the batch, and the running mean and variance move by ``momentum`` towards those
    of the batch; with ``momentum`` None they are the averages over all batches. In evaluation mode, unless
    ``track_running_stats`` is False, each feature is normalised by the running statistics. ``forward`` raises ShapeError if the shape
    does not fit.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    ranks: tuple[int, ...] = (2, 3)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        _add_affine(self, (num_features,), affine, bias)
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the number of batches to 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0, and reset the running statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in self.ranks or input.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} takes {' or '.join(map(str, self.ranks))} dimensions with {self.num_features} channels, "
                f"got shape {list(input.shape)}"
            )
        tracks = self.running_mean is not None
        momentum: float | Tensor | None = self.momentum
        if self.training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
                if momentum is None:
                    momentum = 1.0 / self.num_batches_tracked.float()
        train = self.training or not tracks
        return functional.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            train,
            momentum,  # type: ignore[arg-type]
            self.eps,
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"


class BatchNorm2d(BatchNorm1d):
    """Batch normalisation of (n, channels, h, w): `BatchNorm1d` over the batch and both spatial dimensions."""

    ranks = (4,)


class BatchNorm3d(BatchNorm1d):
    """Batch normalisation of (n, channels, d, h, w): `BatchNorm1d` over the batch and the three spatial dimensions."""

    ranks = (5,)


class BatchRenorm1d(_Normalization):
    """Batch renormalisation of (n, features) (Ioffe 2017, "Batch renormalization", algorithm 1).

    In training mode each feature is normalised by the batch and corrected towards the running moments: scaled by at most ``r_max``, shifted
    by at most ``d_max`` standard deviations, and not at all in the first ``warmup`` batches, where the layer is `BatchNorm1d`. The running
    moments move by ``momentum`` towards those of the batch. In evaluation mode each feature is normalised by the running moments, so both
    modes give about the same result, also for batches of mixed origin. ``forward`` raises ShapeError if the shape does not fit. Raises
    ValueError unless ``r_max`` is at least 1 and ``d_max`` at least 0.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float = 0.01,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup: int = 100_000,
    ):
        super().__init__()
        if r_max < 1 or d_max < 0:
            raise ValueError(f"r_max must be at least 1 and d_max at least 0, got {r_max} and {d_max}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.r_max = r_max
        self.d_max = d_max
        self.warmup = warmup
        _add_affine(self, (num_features,), True)
        self.register_buffer("running_mean", zeros(num_features))
        self.register_buffer("running_var", ones(num_features))
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64))

    def forward(self, input: Tensor) -> Tensor:
        return functional.batch_renorm(
            input,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
            self.r_max,
            self.d_max,
            self.warmup,
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, warmup={self.warmup}"


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample of (n, channels, ...) by its own mean and variance (Ulyanov, Vedaldi and Lempitsky 2016).

    The running mean and variance, if given, move by ``momentum`` towards the averages over the batch. Without ``use_input_stats`` each
    channel is normalised by the running mean and variance. Raises ValueError if a channel has a single element.
    """
    if not use_input_stats:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    rows = input.flatten(2) if input.dim() > 3 else input
    count = rows.shape[-1]
    if count < 2:
        raise ValueError(f"expected more than 1 spatial element when training, got input size {list(input.shape)}")
    with no_grad():
        if running_mean is not None:
            running_mean.lerp_(rows.mean(-1).mean(0), momentum)
        if running_var is not None:
            running_var.lerp_(rows.var(-1).mean(0), momentum)
    result = functional.layer_norm(rows, count, eps=eps).reshape(input.shape)
    along = (1, input.shape[1], *[1] * (input.dim() - 2))
    if weight is not None:
        result = result * weight.reshape(along)
    return result if bias is None else result + bias.reshape(along)


class InstanceNorm1d(BatchNorm1d):
    """Each channel of each sample of (n, channels, length) normalised by itself (Ulyanov, Vedaldi and Lempitsky 2016).

    Without a batch the input is (channels, length). The layer has parameters only with ``affine``. With ``track_running_stats`` it
    keeps a running mean and variance, which it uses in evaluation mode. ``forward`` raises ShapeError if the shape does not fit.
    """

    ranks = (2, 3)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
        *,
        bias: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        single, batched = self.ranks
        if input.dim() not in self.ranks or input.shape[input.dim() - single] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} takes {single} or {batched} dimensions with {self.num_features} channels, "
                f"got shape {list(input.shape)}"
            )
        x = input.unsqueeze(0) if input.dim() == single else input
        own = self.training or self.running_mean is None
        moments = (self.running_mean, self.running_var, self.weight, self.bias)
        momentum = 0.0 if self.momentum is None else self.momentum
        result = instance_norm(x, *moments, own, momentum, self.eps)
        return result.squeeze(0) if input.dim() == single else result


class InstanceNorm2d(InstanceNorm1d):
    """`InstanceNorm1d` of (n, channels, h, w)."""

    ranks = (3, 4)


class InstanceNorm3d(InstanceNorm1d):
    """`InstanceNorm1d` of (n, channels, d, h, w)."""

    ranks = (4, 5)


class _Dropout(Module):
    """Base of the dropout layers: p, and whether the result is written into the input. Raises ValueError unless 0 <= p <= 1."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"the probability of dropout must be in [0, 1], got {p}")
        self.p = p
        self.inplace = inplace
        self.generator = generator

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace=True" if self.inplace else f"p={self.p}"


class Dropout(_Dropout):
    """Set each element to 0 with probability p and divide the others by 1 - p, in training mode only (Srivastava et al. 2014).

    ``inplace`` writes the result into the input. Raises ValueError unless 0 <= p <= 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace, generator=self.generator)


class Dropout1d(_Dropout):
    """`Dropout` of whole channels of (n, channels, length) or (channels, length) (Tompson et al. 2015)."""

    ranks = (2, 3)

    def forward(self, input: Tensor) -> Tensor:
        return channel_dropout(input, self.p, self.training, self.inplace, self.ranks, self.generator)


class Dropout2d(Dropout1d):
    """`Dropout` of whole channels of (n, channels, h, w) (Tompson et al. 2015)."""

    ranks = (3, 4)


class Dropout3d(Dropout1d):
    """`Dropout` of whole channels of (n, channels, d, h, w) (Tompson et al. 2015)."""

    ranks = (4, 5)


class AlphaDropout(_Dropout):
    """Dropout that keeps the mean and the variance of SELU's outputs (Klambauer et al. 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training, self.inplace, generator=self.generator)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels of (n, channels, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training, self.inplace, channels=True, generator=self.generator)
