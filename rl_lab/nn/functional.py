"""The functions behind the modules, with PyTorch's names and arguments."""

from typing import TYPE_CHECKING, Any

from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.arithmetic import clamp
from rl_lab.engine.ops.convolution import (
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    conv_transpose2d,
    fold,
    max_pool1d,
    max_pool2d,
    unfold,
)
from rl_lab.engine.ops.elementwise import (
    celu,
    elu,
    erf,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    smooth_l1,
    softplus,
    softsign,
    tanh,
    tanhshrink,
)
from rl_lab.engine.ops.indexing import one_hot
from rl_lab.engine.ops.matmul import linear
from rl_lab.engine.ops.normalization import batch_norm, group_norm, layer_norm, normalize, rms_norm
from rl_lab.engine.ops.reduction import log_softmax, softmax
from rl_lab.engine.random import dropout

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "celu",
    "clamp",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "erf",
    "fold",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "tanhshrink",
    "unfold",
]


def _reduce(losses: Any, reduction: str) -> "Tensor":
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _same_shape(name: str, input: Any, target: Any) -> None:
    # PyTorch warns and broadcasts: (n, 1) against (n,) then gives n * n differences, a well-known silent mistake
    if input.shape != target.shape:
        raise ShapeError(f"{name}: input of shape {list(input.shape)} and target of shape {list(target.shape)} differ")


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> "Tensor":
    """Squared differences. ShapeError unless the shapes are equal."""
    _same_shape("mse_loss", input, target)
    return _reduce((input - target).square(), reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> "Tensor":
    """Absolute differences. ShapeError unless the shapes are equal."""
    _same_shape("l1_loss", input, target)
    return _reduce((input - target).abs(), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> "Tensor":
    """Quadratic below beta, linear above, with slope 1 (Girshick 2015). ShapeError unless the shapes are equal."""
    _same_shape("smooth_l1_loss", input, target)
    return _reduce(smooth_l1(input - target, beta), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> "Tensor":
    """Quadratic below delta, linear with slope delta above (Huber 1964). ShapeError unless the shapes are equal."""
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    _same_shape("huber_loss", input, target)
    return _reduce(smooth_l1(input - target, delta) * delta, reduction)


def nll_loss(input: Any, target: Any, reduction: str = "mean") -> "Tensor":
    """Minus the log-probabilities (n, classes) at the target classes (n,)."""
    if input.dim() == 1:
        input, target = input.unsqueeze(0), target.reshape(1)
    if input.dim() != 2 or target.shape != input.shape[:1]:
        raise ShapeError(f"nll_loss: input of shape {list(input.shape)} and target of shape {list(target.shape)} do not fit")
    return _reduce(-input.gather(1, target.unsqueeze(1)).squeeze(1), reduction)


def cross_entropy(input: Any, target: Any, reduction: str = "mean", label_smoothing: float = 0.0) -> "Tensor":
    """Cross entropy of logits (n, classes) and target classes (n,) or target probabilities (n, classes)."""
    log_probabilities = log_softmax(input, -1)
    classes = input.shape[-1]
    if target.dtype is float32:
        _same_shape("cross_entropy", input, target)
        if label_smoothing:
            target = target * (1.0 - label_smoothing) + label_smoothing / classes
        losses = -(log_probabilities * target).sum(-1)
        return _reduce(losses, reduction)
    if not label_smoothing:
        return nll_loss(log_probabilities, target, reduction)
    smooth = -log_probabilities.mean(-1)
    losses = nll_loss(log_probabilities, target, "none") * (1.0 - label_smoothing) + smooth * label_smoothing
    return _reduce(losses, reduction)
