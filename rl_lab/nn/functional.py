"""Neural-network functions with PyTorch's names and arguments; the modules of `rl_lab.nn` call them."""

import math
import warnings
from typing import TYPE_CHECKING

from rl_lab.engine.dtype import DTypeLike, bool_, int64
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.names import not_covered, numpy_names
from rl_lab.engine.ops import elementwise
from rl_lab.engine.ops.arithmetic import clamp, prelu, where
from rl_lab.engine.ops.bags import embedding_bag
from rl_lab.engine.ops.composed import pdist
from rl_lab.engine.ops.convolution import (
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    fold,
    max_pool1d,
    max_pool2d,
    unfold,
)
from rl_lab.engine.ops.creation import ones, zeros
from rl_lab.engine.ops.ctc import ctc_loss
from rl_lab.engine.ops.diagonals import tril
from rl_lab.engine.ops.elementwise import (
    erf,
    gelu,
    hardshrink,
    logsigmoid,
    sigmoid,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
)
from rl_lab.engine.ops.gathering import embedding, one_hot
from rl_lab.engine.ops.in_place import write_in_place
from rl_lab.engine.ops.matmul import einsum, linear, matmul
from rl_lab.engine.ops.normalization import batch_norm, group_norm, layer_norm, normalize, rms_norm
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.ops.rearrange import pad
from rl_lab.engine.ops.reduction import log_softmax as log_softmax_along
from rl_lab.engine.ops.reduction import softmax as softmax_along
from rl_lab.engine.random import Generator, channel_dropout, dropout, rand
from rl_lab.engine.random import alpha_dropout as alpha_dropout_of
from rl_lab.nn.grids import (
    affine_grid,
    grid_sample,
)
from rl_lab.nn.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cosine_similarity,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    hinge_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
    pairwise_distance,
    perceptron_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from rl_lab.nn.normalization import instance_norm
from rl_lab.nn.resampling import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    channel_shuffle,
    interpolate,
    local_response_norm,
    lp_pool1d,
    lp_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
)
from rl_lab.nn.volumes import (
    adaptive_avg_pool3d,
    adaptive_max_pool3d,
    avg_pool3d,
    conv3d,
    conv_transpose3d,
    lp_pool3d,
    max_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
)

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


__all__ = [
    "affine_grid",
    "grid_sample",
    "triplet_margin_with_distance_loss",
    "multilabel_margin_loss",
    "adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "avg_pool3d",
    "conv3d",
    "conv_transpose3d",
    "lp_pool3d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "alpha_dropout",
    "bilinear",
    "channel_shuffle",
    "conv_transpose1d",
    "cosine_embedding_loss",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "instance_norm",
    "interpolate",
    "local_response_norm",
    "lp_pool1d",
    "lp_pool2d",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "rrelu",
    "rrelu_",
    "triplet_margin_loss",
    "upsample",
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "celu_",
    "clamp",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "elu_",
    "ctc_loss",
    "embedding",
    "embedding_bag",
    "erf",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "leaky_relu_",
    "linear",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu_",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "hinge_loss",
    "perceptron_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
    "unfold",
]


# --- activations that can write into their input ---------------------------------------------------------------------


def celu(input: "Tensor", alpha: float = 1.0, inplace: bool = False) -> "Tensor":
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0) (Barron 2017). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, lambda x: elementwise.celu(x, alpha))
    return elementwise.celu(input, alpha)


def elu(input: "Tensor", alpha: float = 1.0, inplace: bool = False) -> "Tensor":
    """x above 0, alpha * (exp(x) - 1) below (Clevert, Unterthiner and Hochreiter 2016). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, lambda x: elementwise.elu(x, alpha))
    return elementwise.elu(input, alpha)


def hardsigmoid(input: "Tensor", inplace: bool = False) -> "Tensor":
    """min(max(0, x / 6 + 1 / 2), 1). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.hardsigmoid)
    return elementwise.hardsigmoid(input)


def hardswish(input: "Tensor", inplace: bool = False) -> "Tensor":
    """x * hardsigmoid(x) (Howard et al. 2019). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.hardswish)
    return elementwise.hardswish(input)


def hardtanh(input: "Tensor", min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> "Tensor":
    """x cut off at the bounds, where the gradient is 0. ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, lambda x: hardtanh(x, min_val, max_val))
    if input.dtype is int64:
        return clamp(input, int(min_val), int(max_val))
    return elementwise.hardtanh(input, min_val, max_val)


def leaky_relu(input: "Tensor", negative_slope: float = 0.01, inplace: bool = False) -> "Tensor":
    """x above 0, negative_slope * x below. ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, lambda x: elementwise.leaky_relu(x, negative_slope))
    return elementwise.leaky_relu(input, negative_slope)


def mish(input: "Tensor", inplace: bool = False) -> "Tensor":
    """x * tanh(softplus(x)) (Misra 2019). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.mish)
    return elementwise.mish(input)


def relu(input: "Tensor", inplace: bool = False) -> "Tensor":
    """max(0, x). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.relu)
    return elementwise.relu(input)


def relu6(input: "Tensor", inplace: bool = False) -> "Tensor":
    """min(max(0, x), 6). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, relu6)
    return clamp(input, 0, 6) if input.dtype is int64 else elementwise.relu6(input)


def selu(input: "Tensor", inplace: bool = False) -> "Tensor":
    """The self-normalising exponential linear unit (Klambauer et al. 2017). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.selu)
    return elementwise.selu(input)


def silu(input: "Tensor", inplace: bool = False) -> "Tensor":
    """x * sigmoid(x) (Elfwing, Uchibe and Doya 2018). ``inplace`` writes the result into ``input``."""
    if inplace:
        return write_in_place(input, elementwise.silu)
    return elementwise.silu(input)


def threshold(input: "Tensor", threshold: float, value: float, inplace: bool = False) -> "Tensor":
    """x above the threshold, ``value`` elsewhere. ``inplace`` writes the result into ``input``."""
    if inplace:
        return threshold_(input, threshold, value)
    return _threshold_of(input, threshold, value)


def _threshold_of(x: "Tensor", threshold: float, value: float) -> "Tensor":
    return where(x > int(threshold), x, int(value)) if x.dtype is int64 else elementwise.threshold(x, threshold, value)


def celu_(input: "Tensor", alpha: float = 1.0) -> "Tensor":
    """`celu`, written into ``input``."""
    return celu(input, alpha, inplace=True)


def elu_(input: "Tensor", alpha: float = 1.0) -> "Tensor":
    """`elu`, written into ``input``."""
    return elu(input, alpha, inplace=True)


def hardtanh_(input: "Tensor", min_val: float = -1.0, max_val: float = 1.0) -> "Tensor":
    """`hardtanh`, written into ``input``."""
    return hardtanh(input, min_val, max_val, inplace=True)


def leaky_relu_(input: "Tensor", negative_slope: float = 0.01) -> "Tensor":
    """`leaky_relu`, written into ``input``."""
    return leaky_relu(input, negative_slope, inplace=True)


def relu_(input: "Tensor") -> "Tensor":
    """`relu`, written into ``input``."""
    return relu(input, inplace=True)


def selu_(input: "Tensor") -> "Tensor":
    """`selu`, written into ``input``."""
    return selu(input, inplace=True)


_threshold = threshold  # the parameter of the next function has the same name


def threshold_(input: "Tensor", threshold: float, value: float) -> "Tensor":
    """`threshold`, written into ``input``."""
    return write_in_place(input, lambda x: _threshold_of(x, threshold, value))


# --- other functions -------------------------------------------------------------------------------------------------


def rrelu(
    input: "Tensor", lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> "Tensor":
    """``input`` above 0, a slope times ``input`` below: in training uniform on [lower, upper], else their mean (Xu et al. 2015)."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2.0, inplace)
    slopes = rand(input.shape) * (upper - lower) + lower

    def apply(x: "Tensor") -> "Tensor":
        return where(x >= 0.0, x, x * slopes)

    return write_in_place(input, apply) if inplace else apply(input)


def rrelu_(input: "Tensor", lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> "Tensor":
    """`rrelu`, written into ``input``."""
    return rrelu(input, lower, upper, training, True)


def dropout1d(input: "Tensor", p: float = 0.5, training: bool = True, inplace: bool = False) -> "Tensor":
    """`dropout` of whole channels of (n, channels, length) or (channels, length)."""
    return channel_dropout(input, p, training, inplace, (2, 3), None)


def dropout2d(input: "Tensor", p: float = 0.5, training: bool = True, inplace: bool = False) -> "Tensor":
    """`dropout` of whole channels of (n, channels, h, w) or (channels, h, w)."""
    return channel_dropout(input, p, training, inplace, (3, 4), None)


def dropout3d(input: "Tensor", p: float = 0.5, training: bool = True, inplace: bool = False) -> "Tensor":
    """`dropout` of whole channels of (n, channels, d, h, w) or (channels, d, h, w)."""
    return channel_dropout(input, p, training, inplace, (4, 5), None)


def alpha_dropout(input: "Tensor", p: float = 0.5, training: bool = False, inplace: bool = False) -> "Tensor":
    """Dropout that keeps the mean and the variance of SELU's outputs (Klambauer et al. 2017)."""
    return alpha_dropout_of(input, p, training, inplace)


def feature_alpha_dropout(input: "Tensor", p: float = 0.5, training: bool = False, inplace: bool = False) -> "Tensor":
    """`alpha_dropout` of whole channels of (n, channels, ...)."""
    return alpha_dropout_of(input, p, training, inplace, channels=True)


def bilinear(input1: "Tensor", input2: "Tensor", weight: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
    """x1^T A x2 + b with ``weight`` A (out, in1, in2). Raises ShapeError if the inputs differ in a dimension other than the last."""
    if input1.shape[:-1] != input2.shape[:-1]:
        raise ShapeError(
            "bilinear takes inputs whose shapes differ in the last dimension only, got "
            f"{list(input1.shape)} and {list(input2.shape)}: expand() one of them first"
        )
    result = einsum("...i,oij,...j->...o", input1, weight, input2)
    return result if bias is None else result + bias


upsample = interpolate


def glu(input: "Tensor", dim: int = -1) -> "Tensor":
    """Gated linear unit: a * sigmoid(b) for the halves a and b of ``input`` along ``dim`` (Dauphin et al. 2017)."""
    if input.dim() == 0 or input.shape[dim] % 2:
        raise ShapeError(f"glu needs an even size along dimension {dim}, got a tensor of shape {tuple(input.shape)}")
    first, second = input.chunk(2, dim)
    return first * sigmoid(second)


def _softmax_dim(name: str, input: "Tensor", dim: int | None) -> int:
    """``dim``, or the dimension that PyTorch takes without it: 0 for 0, 1 and 3 dimensions, else 1."""
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        warnings.warn(f"{name} without dim works along dimension {dim}: give dim, such as dim=-1", UserWarning, stacklevel=3)
    return dim


@numpy_names
def softmax(input: "Tensor", dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike = None) -> "Tensor":
    """exp(input) / sum(exp(input)) along ``dim``, without overflow. ``dtype`` is accepted: the result is float32.

    Without ``dim`` the dimension is 0 for 0, 1 and 3 dimensions, else 1, with a warning, as in PyTorch.
    """
    return softmax_along(input, _softmax_dim("softmax", input, dim), dtype)


@numpy_names
def log_softmax(input: "Tensor", dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike = None) -> "Tensor":
    """input - log(sum(exp(input))) along ``dim``, without overflow. ``dim`` and ``dtype`` as in `softmax`."""
    return log_softmax_along(input, _softmax_dim("log_softmax", input, dim), dtype)


@numpy_names
def softmin(input: "Tensor", dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike = None) -> "Tensor":
    """softmax(-input) along ``dim``. ``dim`` and ``dtype`` as in `softmax`."""
    return softmax_along(-input, _softmax_dim("softmin", input, dim), dtype)


def gumbel_softmax(
    logits: "Tensor", tau: float = 1.0, hard: bool = False, dim: int = -1, *, generator: Generator | None = None
) -> "Tensor":
    """Samples of the Gumbel-softmax distribution at temperature ``tau`` (Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017).

    With ``hard`` the samples are one-hot; their gradient is that of the soft samples.
    """
    noise = -(-rand(logits.shape, generator=generator).clamp(min=1e-20).log()).clamp(min=1e-20).log()
    soft = softmax_along((logits + noise) / tau, dim)
    if not hard:
        return soft
    choice = zeros(logits.shape).scatter(dim, soft.argmax(dim, keepdim=True), 1.0)
    return choice + (soft - soft.detach())


def scaled_dot_product_attention(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attn_mask: "Tensor | None" = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> "Tensor":
    """softmax(scale * query key^T + mask) value (Vaswani et al. 2017, equation 1).

    Queries are (..., length, features), keys and values (..., source, features). A bool mask is True where attention is allowed; a
    float32 mask is added. ``is_causal`` lets position i attend to the positions up to i. ``scale`` is 1 / sqrt(features) unless given.
    With ``enable_gqa`` each head of keys and values (dimension -3) serves a group of heads of queries (Ainslie et al. 2023).
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = matmul(query, key.transpose(-2, -1)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal and attn_mask is not None:
        raise StateError("give attn_mask or is_causal, not both")
    allowed = tril(ones(query.shape[-2], key.shape[-2])).bool() if is_causal else attn_mask
    if allowed is not None:
        scores = where(allowed, scores, constant(-math.inf)) if allowed.dtype is bool_ else scores + allowed
    if attn_mask is None:
        weights = softmax_along(scores, -1)
    else:  # a position that may attend to nothing gets zeros, and no gradient
        alone = (scores == -math.inf).all(-1, keepdim=True)
        weights = where(alone, constant(0.0), softmax_along(where(alone, constant(0.0), scores), -1))
    return matmul(dropout(weights, dropout_p), value)
