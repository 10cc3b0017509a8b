"""Loss functions with PyTorch's names, and the same losses as modules.

``reduction`` is "mean", "sum", or "none" for one loss per element. Every function raises ValueError for another reduction.
"""

import math
from collections.abc import Callable
from typing import Any

from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where, xlogy
from rl_lab.engine.ops.bce_loss import bce, bce_with_logits
from rl_lab.engine.ops.creation import ones, zeros
from rl_lab.engine.ops.elementwise import absolute, exp, log, relu, softplus_plain, square
from rl_lab.engine.ops.elementwise import smooth_l1 as smooth
from rl_lab.engine.ops.nll_loss import nll_loss, refuse_old_reduction
from rl_lab.engine.ops.operands import broadcast_shape, constant
from rl_lab.engine.ops.rearrange import broadcast_tensors
from rl_lab.engine.ops.reduction import log_softmax
from rl_lab.nn.module import Module


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    # PyTorch only warns and broadcasts: (n, 1) against (n,) would give n * n differences, a common silent error
    if input.shape != target.shape:
        raise ShapeError(f"{name}: input and target must have the same shape, got {list(input.shape)} and {list(target.shape)}")


def _require_fit(name: str, weight: Tensor | None, input: Tensor) -> None:
    """Raise ShapeError if a weight does not broadcast to the shape of the input."""
    if weight is not None and broadcast_shape(weight.sizes, input.sizes) != input.sizes:
        raise ShapeError(f"{name} must broadcast to the input's shape {list(input.shape)}, got {list(weight.shape)}")


def _require_margin(margin: float) -> None:
    """Raise ValueError unless a margin is positive."""
    if margin <= 0:
        raise ValueError(f"margin must be positive, got {margin}")


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(input - target)^2. Raises ShapeError if the shapes differ."""
    _same_shape("mse_loss", input, target)
    return _reduce(square(input - target), reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|input - target|. Raises ShapeError if the shapes differ."""
    _same_shape("l1_loss", input, target)
    return _reduce(absolute(input - target), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where d = |input - target| is below ``beta``, d - beta / 2 elsewhere (Girshick 2015, equation 3).

    Raises ShapeError if the shapes differ.
    """
    _same_shape("smooth_l1_loss", input, target)
    return _reduce(smooth(input - target, beta), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where d = |input - target| is below ``delta``, delta * (d - delta / 2) elsewhere (Huber 1964).

    Raises ShapeError if the shapes differ, ValueError if ``delta`` is not positive.
    """
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    _same_shape("huber_loss", input, target)
    return _reduce(smooth(input - target, delta) * delta, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits (n, classes, ...) and targets: int64 classes (n, ...) or float32 probabilities (n, classes, ...).

    ``weight`` (classes,) scales the loss of each class. Elements whose target is ``ignore_index`` do not count. With
    ``label_smoothing`` s the targets are mixed with the uniform distribution in the proportion 1 - s to s (Szegedy et al. 2016,
    section 7). Raises ShapeError if target probabilities and logits have different shapes, TypeError if ``size_average``
    or ``reduce`` is not None, ValueError if ``label_smoothing`` is not in [0, 1] or target probabilities come with an ``ignore_index``.
    """
    refuse_old_reduction(size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    place = 0 if input.dim() == 1 else 1
    log_probabilities = log_softmax(input, place)
    classes = input.shape[place]
    along = (classes, *[1] * (input.dim() - place - 1))
    if target.dtype is float32:
        _same_shape("cross_entropy", input, target)
        if ignore_index >= 0:
            raise ValueError(f"ignore_index must be left out for targets that are probabilities, got {ignore_index}")
        if label_smoothing:
            target = target * (1.0 - label_smoothing) + label_smoothing / classes
        if weight is not None:
            target = target * weight.reshape(along)
        losses = -(log_probabilities * target).sum(place)
        # PyTorch divides by the number of samples here and not by the sum of the weights
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
        else:  # the sum of the weights of the target classes
            used = nll_loss(constant(-1.0).expand(input.shape), target, weight, None, ignore_index, None, "sum")
        smoothed = smoothed.sum() / used
    else:
        smoothed = _reduce(smoothed, reduction)
    return picked * (1.0 - label_smoothing) + smoothed * (label_smoothing / classes)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    """-(target log(input) + (1 - target) log(1 - input)) for probabilities and targets in [0, 1].

    Logarithms are bounded below by -100, as in PyTorch. ``weight`` scales each element. Raises ShapeError if the shapes differ,
    ValueError if an input or a target is not in [0, 1].
    """
    _same_shape("binary_cross_entropy", input, target)
    _require_fit("weight", weight, input)
    losses = bce(input, target)
    return _reduce(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), accurate for large logits.

    ``weight`` scales each element, ``pos_weight`` the term of the positive class. Raises ShapeError if the shapes differ.
    """
    _same_shape("binary_cross_entropy_with_logits", input, target)
    _require_fit("weight", weight, input)
    _require_fit("pos_weight", pos_weight, input)
    losses = bce_with_logits(input, target, pos_weight)
    return _reduce(losses if weight is None else losses * weight, reduction)


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input), where ``input`` holds log-probabilities.

    With ``log_target`` the target holds log-probabilities, too. The reduction "batchmean" divides the sum by the batch size.

    Raises ShapeError if "batchmean" gets a scalar.
    """
    losses = exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction == "batchmean":
        if not input.sizes:
            raise ShapeError("kl_div with reduction='batchmean' needs a batch, got a scalar: use reduction='sum'")
        return losses.sum() / input.shape[0]
    return _reduce(losses, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log(var) + (input - target)^2 / var) / 2, plus log(2 pi) / 2 if ``full`` (Nix and Weigend 1994).

    ``var`` is a number, or a tensor of the shape of ``input``, without its last dimension, or with one dimension of size 1 instead.
    Variances below ``eps`` are raised to ``eps``; the gradient ignores this bound. Raises ShapeError for another shape of ``var``.
    Raises ValueError for a negative variance, except in a compiled function, which does not read it.
    """
    variance = var if isinstance(var, Tensor) else constant(float(var)).expand(input.shape)
    if variance.shape != input.shape:
        if variance.shape == input.shape[:-1]:
            variance = variance.unsqueeze(-1)
        elif variance.dim() != input.dim() or [v for v, x in zip(variance.shape, input.shape, strict=True) if v != x] != [1]:
            raise ShapeError(
                f"var must have the input's shape {list(input.shape)}, its shape without the last dimension, or one dimension of size 1 "
                f"instead, got {list(variance.shape)}"
            )
    if recorder() is None and bool((variance.detach() < 0.0).any()):
        raise ValueError("gaussian_nll_loss: a variance is negative")
    # the bound has no gradient, as in PyTorch
    raised = variance + (variance.detach().clamp(min=eps) - variance.detach())
    losses = (log(raised) + square(input - target) / raised) * 0.5
    return _reduce(losses + 0.5 * math.log(2.0 * math.pi) if full else losses, reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, *, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood of Poisson counts: exp(input) - target * input, where ``input`` is the logarithm of the rate.

    Without ``log_input``, ``input`` is the rate: input - target * log(input + eps). ``full`` adds Stirling's approximation of
    log(target!) for targets above 1.
    """
    losses = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        stirling = target * log(target) - target + 0.5 * log(2.0 * math.pi * target)
        losses = losses + where(target > 1.0, stirling, constant(0.0))
    return _reduce(losses, reduction)


def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)) for targets 1 and -1. Raises ShapeError if the shapes differ."""
    _same_shape("soft_margin_loss", input, target)
    return _reduce(softplus_plain(-target * input), reduction)


def hinge_loss(input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "mean") -> Tensor:
    """max(0, margin - target * input) for targets 1 and -1 (Cortes and Vapnik 1995). Raises ShapeError if the shapes differ."""
    _same_shape("hinge_loss", input, target)
    return _reduce((margin - target * input).clamp(min=0.0), reduction)


def perceptron_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """max(0, -target * input) for targets 1 and -1 (Rosenblatt 1958): `hinge_loss` with margin 0. Raises ShapeError if shapes differ."""
    _same_shape("perceptron_loss", input, target)
    return _reduce((-target * input).clamp(min=0.0), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "mean") -> Tensor:
    """``input`` where the target is 1, max(0, margin - input) where it is -1, their sum elsewhere (Hadsell, Chopra and LeCun 2006)."""
    positive = where(target != -1, input, constant(0.0))
    negative = where(target != 1, (margin - input).clamp(min=0.0), constant(0.0))
    return _reduce(positive + negative, reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin). ``input1`` should be larger where the target is 1, ``input2`` where it is -1."""
    return _reduce((-target * (input1 - input2) + margin).clamp(min=0.0), reduction)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between the vectors along ``dim``. Norms below ``eps`` are raised to ``eps``."""
    if x1.sizes != x2.sizes:  # the norms must be those of the broadcast vectors
        x1, x2 = broadcast_tensors(x1, x2)
    return (x1 * x2).sum(dim) / (x1.norm(2, dim).clamp(min=eps) * x2.norm(2, dim).clamp(min=eps))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """1 - cosine where the target is 1, max(0, cosine - margin) where it is -1.

    The inputs are (n, features) with targets (n,), or (features,) with a target ().
    """
    x1, x2 = (input1, input2) if target.dim() else (input1.unsqueeze(0), input2.unsqueeze(0))
    shift = 1e-12  # as in PyTorch, which adds a small number to the squares here and does not use `cosine_similarity`
    cosine = (x1 * x2).sum(1) / (((x1 * x1).sum(1) + shift) * ((x2 * x2).sum(1) + shift)).sqrt()
    cosine = cosine if target.dim() else cosine.squeeze(0)
    alike = where(target == 1, 1.0 - cosine, constant(0.0))
    unlike = where(target == -1, (cosine - margin).clamp(min=0.0), constant(0.0))
    return _reduce(alike + unlike, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with `pairwise_distance` d (Balntas et al. 2016).

    With ``swap`` the smaller of d(anchor, negative) and d(positive, negative) takes the place of d(anchor, negative). Raises ValueError if
    ``margin`` is not positive.
    """
    _require_margin(margin)
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return _reduce((near - far + margin).clamp(min=0.0), reduction)


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Sum over the classes i except the target of max(0, margin - x[target] + x[i])^p, divided by the number of classes.

    The input is (n, classes) with int64 targets (n,), or (classes,) with a target (). ``weight`` (classes,) scales the terms of each
    target class.
    """
    x, y = (input, target) if input.dim() > 1 else (input.reshape(1, -1), target.reshape(1))
    own = x.gather(1, y.unsqueeze(1))
    terms = (x - own + margin).clamp(min=0.0) ** p
    if weight is not None:
        terms = terms * weight[y].unsqueeze(1)
    others = ones(x.shape).scatter(1, y.unsqueeze(1), 0.0)
    losses = (terms * others).sum(1) / float(x.shape[1])
    return _reduce(losses if input.dim() > 1 else losses.squeeze(0), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Mean over the last dimension, the classes, of the binary cross entropy of logits; ``weight`` scales the terms of each class.

    Raises ShapeError if the shapes differ.
    """
    _same_shape("multilabel_soft_margin_loss", input, target)
    losses = target * softplus_plain(-input) + (1.0 - target) * softplus_plain(input)
    if weight is not None:
        losses = losses * weight
    return _reduce(losses.mean(-1), reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with a distance of the caller's; `pairwise_distance` if it is None."""
    _require_margin(margin)
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return _reduce((near - far + margin).clamp(min=0.0), reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Sum over the target classes j and the other classes i of max(0, 1 - x[j] + x[i]), divided by the number of classes.

    The input is (n, classes) or (classes,). The int64 target has the same shape and lists the target classes; the first -1 ends the
    list. Raises ShapeError if shapes differ.
    """
    _same_shape("multilabel_margin_loss", input, target)
    x, y = (input, target) if input.dim() > 1 else (input.unsqueeze(0), target.unsqueeze(0))
    listed = ((y < 0).long().cumsum(1) == 0).float()
    index = y.clamp(min=0)
    is_target = zeros(x.shape).scatter_add(1, index, listed).clamp(max=1.0)
    pairs = relu(1.0 - x.gather(1, index).unsqueeze(2) + x.unsqueeze(1))  # at 0 without gradient, as in PyTorch
    losses = (pairs * listed.unsqueeze(2) * (1.0 - is_target).unsqueeze(1)).sum((1, 2)) / float(x.shape[1])
    return _reduce(losses if input.dim() > 1 else losses.squeeze(0), reduction)


# --- the same as modules ---------------------------------------------------------------------------------------------


class _Loss(Module):
    """Base of the losses: a function of this module with its settings.

    The settings named in ``tensors`` become buffers.
    """

    function: Callable[..., Tensor]
    tensors: tuple[str, ...] = ()

    def __init__(self, **settings: Any):
        super().__init__()
        self.names = tuple(settings)
        for name, value in settings.items():
            if name in self.tensors:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return type(self).function(*inputs, **named, **{name: getattr(self, name) for name in self.names})


class MSELoss(_Loss):
    """`functional.mse_loss` as a module."""

    function = staticmethod(mse_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class L1Loss(_Loss):
    """`functional.l1_loss` as a module."""

    function = staticmethod(l1_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class SmoothL1Loss(_Loss):
    """`functional.smooth_l1_loss` as a module."""

    function = staticmethod(smooth_l1_loss)

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction, beta=beta)


class HuberLoss(_Loss):
    """`functional.huber_loss` as a module."""

    function = staticmethod(huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction, delta=delta)


class NLLLoss(_Loss):
    """`functional.nll_loss` as a module."""

    function = staticmethod(nll_loss)
    tensors = ("weight",)

    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)


class CrossEntropyLoss(_Loss):
    """`functional.cross_entropy` as a module."""

    function = staticmethod(cross_entropy)
    tensors = ("weight",)

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class BCELoss(_Loss):
    """`functional.binary_cross_entropy` as a module."""

    function = staticmethod(binary_cross_entropy)
    tensors = ("weight",)

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(weight=weight, reduction=reduction)


class BCEWithLogitsLoss(_Loss):
    """`functional.binary_cross_entropy_with_logits` as a module."""

    function = staticmethod(binary_cross_entropy_with_logits)
    tensors = ("weight", "pos_weight")

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None):
        super().__init__(weight=weight, reduction=reduction, pos_weight=pos_weight)


class KLDivLoss(_Loss):
    """`functional.kl_div` as a module."""

    function = staticmethod(kl_div)

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction=reduction, log_target=log_target)


class GaussianNLLLoss(_Loss):
    """`functional.gaussian_nll_loss` as a module."""

    function = staticmethod(gaussian_nll_loss)

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(full=full, eps=eps, reduction=reduction)


class PoissonNLLLoss(_Loss):
    """`functional.poisson_nll_loss` as a module."""

    function = staticmethod(poisson_nll_loss)

    def __init__(self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"):
        super().__init__(log_input=log_input, full=full, eps=eps, reduction=reduction)

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]  # an input has the name of a setting
        return super().forward(log_input, target)


class HingeLoss(_Loss):
    """`functional.hinge_loss` as a module."""

    function = staticmethod(hinge_loss)

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction, margin=margin)


class PerceptronLoss(_Loss):
    """`functional.perceptron_loss` as a module."""

    function = staticmethod(perceptron_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class SoftMarginLoss(_Loss):
    """`functional.soft_margin_loss` as a module."""

    function = staticmethod(soft_margin_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class HingeEmbeddingLoss(_Loss):
    """`functional.hinge_embedding_loss` as a module."""

    function = staticmethod(hinge_embedding_loss)

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class MarginRankingLoss(_Loss):
    """`functional.margin_ranking_loss` as a module."""

    function = staticmethod(margin_ranking_loss)

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class CosineSimilarity(Module):
    """`functional.cosine_similarity` as a module."""

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """`functional.pairwise_distance` as a module."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineEmbeddingLoss(_Loss):
    """`functional.cosine_embedding_loss` as a module."""

    function = staticmethod(cosine_embedding_loss)

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class TripletMarginLoss(_Loss):
    """`functional.triplet_margin_loss` as a module."""

    function = staticmethod(triplet_margin_loss)

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, *, reduction: str = "mean"):
        _require_margin(margin)
        super().__init__(margin=margin, p=p, eps=eps, swap=swap, reduction=reduction)


class MultiMarginLoss(_Loss):
    """`functional.multi_margin_loss` as a module."""

    function = staticmethod(multi_margin_loss)
    tensors = ("weight",)

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(p=p, margin=margin, weight=weight, reduction=reduction)


class MultiLabelSoftMarginLoss(_Loss):
    """`functional.multilabel_soft_margin_loss` as a module."""

    function = staticmethod(multilabel_soft_margin_loss)
    tensors = ("weight",)

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(weight=weight, reduction=reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """`functional.triplet_margin_with_distance_loss` as a module."""

    function = staticmethod(triplet_margin_with_distance_loss)

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ):
        _require_margin(margin)
        super().__init__(distance_function=distance_function, margin=margin, swap=swap, reduction=reduction)


class MultiLabelMarginLoss(_Loss):
    """`functional.multilabel_margin_loss` as a module."""

    function = staticmethod(multilabel_margin_loss)

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
