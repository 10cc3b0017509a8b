"""Losses: PyTorch's functions, and the same as modules."""

import math
from typing import TYPE_CHECKING, Any

from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.arithmetic import where, xlogy
from rl_lab.engine.ops.bce_loss import bce, bce_with_logits
from rl_lab.engine.ops.elementwise import absolute, exp, log, softplus_plain, square
from rl_lab.engine.ops.elementwise import smooth_l1 as smooth
from rl_lab.engine.ops.nll_loss import nll_loss
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.ops.reduction import log_softmax
from rl_lab.nn.module import Module

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


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


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> "Tensor":
    """Squared differences. ShapeError unless the shapes are equal."""
    _same_shape("mse_loss", input, target)
    return _reduce(square(input - target), reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> "Tensor":
    """Absolute differences. ShapeError unless the shapes are equal."""
    _same_shape("l1_loss", input, target)
    return _reduce(absolute(input - target), reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> "Tensor":
    """Quadratic below beta, linear above, with slope 1 (Girshick 2015). ShapeError unless the shapes are equal."""
    _same_shape("smooth_l1_loss", input, target)
    return _reduce(smooth(input - target, beta), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> "Tensor":
    """Quadratic below delta, linear with slope delta above (Huber 1964). ShapeError unless the shapes are equal."""
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    _same_shape("huber_loss", input, target)
    return _reduce(smooth(input - target, delta) * delta, reduction)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> "Tensor":
    """Cross entropy of logits (n, classes, ...) and target classes (n, ...) or target probabilities (n, classes, ...).

    ``weight`` is a factor for each class; targets ``ignore_index`` do not count.
    """
    place = 0 if input.dim() == 1 else 1
    log_probabilities = log_softmax(input, place)
    classes = input.shape[place]
    along = (classes, *[1] * (input.dim() - place - 1))
    if target.dtype is float32:
        _same_shape("cross_entropy", input, target)
        if label_smoothing:
            target = target * (1.0 - label_smoothing) + label_smoothing / classes
        if weight is not None:
            target = target * weight.reshape(along)
        losses = -(log_probabilities * target).sum(place)
        # the mean over the batch, not over the weights
        return losses.sum() / (losses.numel() or math.nan) if reduction == "mean" else _reduce(losses, reduction)
    picked = nll_loss(log_probabilities, target, weight, None, ignore_index, None, reduction)
    if not label_smoothing:
        return picked
    weighted = log_probabilities if weight is None else log_probabilities * weight.reshape(along)
    counts = target.ne(ignore_index)
    smoothed = where(counts, -weighted.sum(place), constant(0.0))
    if reduction == "mean":
        if weight is None:
            used = counts.sum().float()
        else:  # the weights of the targets' classes
            used = nll_loss(constant(-1.0).expand(input.shape), target, weight, None, ignore_index, None, "sum")
        smoothed = smoothed.sum() / used
    else:
        smoothed = _reduce(smoothed, reduction)
    return picked * (1.0 - label_smoothing) + smoothed * (label_smoothing / classes)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> "Tensor":
    """Cross entropy of probabilities and targets; logarithms count as at least -100. ValueError for an input not in [0, 1]."""
    _same_shape("binary_cross_entropy", input, target)
    losses = bce(input, target)
    return _reduce(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> "Tensor":
    """`binary_cross_entropy` of sigmoid(input), exact for large logits; ``pos_weight`` is a factor of the positive part."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    losses = bce_with_logits(input, target, pos_weight)
    return _reduce(losses if weight is None else losses * weight, reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> "Tensor":
    """target * (log(target) - input) for log-probabilities ``input``; reduction 'batchmean' divides the sum by n."""
    losses = exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction == "batchmean":
        return losses.sum() / losses.shape[0]
    return _reduce(losses, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> "Tensor":
    """(log(var) + (input - target)^2 / var) / 2, with ``full`` plus log(2 pi) / 2; var counts as at least eps, off the tape."""
    variance = constant(float(var)).expand(input.shape) if isinstance(var, float) else var
    if variance.dim() == input.dim() - 1 and variance.shape == input.shape[:-1]:
        variance = variance.unsqueeze(-1)
    # as in PyTorch the cut is not part of the gradient
    raised = variance + (variance.detach().clamp(min=eps) - variance.detach())
    losses = (log(raised) + square(input - target) / raised) * 0.5
    return _reduce(losses + 0.5 * math.log(2.0 * math.pi) if full else losses, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, *, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> "Tensor":
    """exp(input) - target * input, or input - target * log(input + eps); ``full`` adds Stirling's terms for targets above 1."""
    losses = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        stirling = target * log(target) - target + 0.5 * log(2.0 * math.pi * target)
        losses = losses + where(target > 1.0, stirling, constant(0.0))
    return _reduce(losses, reduction)


def soft_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> "Tensor":
    """log(1 + exp(-target * input)) for targets of 1 and -1."""
    _same_shape("soft_margin_loss", input, target)
    return _reduce(softplus_plain(-target * input), reduction)


def hinge_loss(input: Any, target: Any, margin: float = 1.0, *, reduction: str = "mean") -> "Tensor":
    """max(0, margin - target * input) for targets of 1 and -1, as of a support vector machine (Cortes and Vapnik 1995)."""
    _same_shape("hinge_loss", input, target)
    return _reduce((margin - target * input).clamp(min=0.0), reduction)


def perceptron_loss(input: Any, target: Any, *, reduction: str = "mean") -> "Tensor":
    """max(0, -target * input) for targets of 1 and -1 (Rosenblatt 1958): `hinge_loss` without a margin."""
    _same_shape("perceptron_loss", input, target)
    return _reduce((-target * input).clamp(min=0.0), reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, *, reduction: str = "mean") -> "Tensor":
    """The input where the target is 1, max(0, margin - input) where it is -1."""
    positive = where(target != 1, constant(0.0), input)
    negative = where(target != -1, constant(0.0), (margin - input).clamp(min=0.0))
    return _reduce(positive + negative, reduction)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean") -> "Tensor":
    """max(0, -target * (input1 - input2) + margin): the first should rank higher where the target is 1."""
    return _reduce((-target * (input1 - input2) + margin).clamp(min=0.0), reduction)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> "Tensor":
    """The cosine of the angle between vectors along ``dim``."""
    return (x1 * x2).sum(dim) / (x1.norm(2, dim).clamp(min=eps) * x2.norm(2, dim).clamp(min=eps))


# --- modules ---------------------------------------------------------------------------------------------------------


class _Loss(Module):
    """A loss function with its settings; tensors among them are buffers."""

    function: Any
    tensors: tuple[str, ...] = ()

    def __init__(self, **settings: Any):
        super().__init__()
        self.names = tuple(settings)
        for name, value in settings.items():
            if name in self.tensors:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        return type(self).function(*inputs, **{name: getattr(self, name) for name in self.names})


class MSELoss(_Loss):
    """`mse_loss`."""

    function = staticmethod(mse_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class L1Loss(_Loss):
    """`l1_loss`."""

    function = staticmethod(l1_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class SmoothL1Loss(_Loss):
    """`smooth_l1_loss`."""

    function = staticmethod(smooth_l1_loss)

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction, beta=beta)


class HuberLoss(_Loss):
    """`huber_loss`."""

    function = staticmethod(huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction, delta=delta)


class NLLLoss(_Loss):
    """`nll_loss`."""

    function = staticmethod(nll_loss)
    tensors = ("weight",)

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)


class CrossEntropyLoss(_Loss):
    """`cross_entropy`."""

    function = staticmethod(cross_entropy)
    tensors = ("weight",)

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class BCELoss(_Loss):
    """`binary_cross_entropy`."""

    function = staticmethod(binary_cross_entropy)
    tensors = ("weight",)

    def __init__(self, weight: Any = None, *, reduction: str = "mean"):
        super().__init__(weight=weight, reduction=reduction)


class BCEWithLogitsLoss(_Loss):
    """`binary_cross_entropy_with_logits`."""

    function = staticmethod(binary_cross_entropy_with_logits)
    tensors = ("weight", "pos_weight")

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(weight=weight, reduction=reduction, pos_weight=pos_weight)


class KLDivLoss(_Loss):
    """`kl_div`."""

    function = staticmethod(kl_div)

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction=reduction, log_target=log_target)


class GaussianNLLLoss(_Loss):
    """`gaussian_nll_loss`."""

    function = staticmethod(gaussian_nll_loss)

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(full=full, eps=eps, reduction=reduction)


class PoissonNLLLoss(_Loss):
    """`poisson_nll_loss`."""

    function = staticmethod(poisson_nll_loss)

    def __init__(self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"):
        super().__init__(log_input=log_input, full=full, eps=eps, reduction=reduction)


class HingeLoss(_Loss):
    """`hinge_loss`."""

    function = staticmethod(hinge_loss)

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction, margin=margin)


class PerceptronLoss(_Loss):
    """`perceptron_loss`."""

    function = staticmethod(perceptron_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class SoftMarginLoss(_Loss):
    """`soft_margin_loss`."""

    function = staticmethod(soft_margin_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class HingeEmbeddingLoss(_Loss):
    """`hinge_embedding_loss`."""

    function = staticmethod(hinge_embedding_loss)

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class MarginRankingLoss(_Loss):
    """`margin_ranking_loss`."""

    function = staticmethod(margin_ranking_loss)

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)
