"""Neural-network functions with PyTorch's names and arguments; the modules of `rl_lab.nn` call them."""

import math
from typing import TYPE_CHECKING

from rl_lab.engine.dtype import bool_
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops.arithmetic import clamp, where
from rl_lab.engine.ops.arithmetic import prelu as prelu_plain
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
from rl_lab.engine.ops.creation import ones, zeros
from rl_lab.engine.ops.diagonals import tril
from rl_lab.engine.ops.elementwise import (
    celu,
    elu,
    erf,
    gelu,
    hardshrink,
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
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from rl_lab.engine.ops.gathering import embedding, one_hot
from rl_lab.engine.ops.matmul import linear, matmul
from rl_lab.engine.ops.normalization import batch_norm, group_norm, layer_norm, normalize, rms_norm
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.ops.rearrange import pad
from rl_lab.engine.ops.reduction import log_softmax, softmax
from rl_lab.engine.random import Generator, dropout, rand
from rl_lab.nn.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
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
    nll_loss,
    perceptron_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
)

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())


__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "clamp",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
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
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
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
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
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
    "unfold",
]


def prelu(input: "Tensor", weight: "Tensor") -> "Tensor":
    """``input`` above 0, weight * input below. ``weight`` has one element, or one per channel (dimension 1)."""
    if weight.numel() != 1:
        weight = weight.reshape(-1, *[1] * (input.dim() - 2))
    return prelu_plain(input, weight)


def glu(input: "Tensor", dim: int = -1) -> "Tensor":
    """Gated linear unit: a * sigmoid(b) for the halves a and b of ``input`` along ``dim`` (Dauphin et al. 2017)."""
    first, second = input.chunk(2, dim)
    return first * sigmoid(second)


def softmin(input: "Tensor", dim: int) -> "Tensor":
    """softmax(-input) along ``dim``."""
    return softmax(-input, dim)


def gumbel_softmax(
    logits: "Tensor", tau: float = 1.0, hard: bool = False, dim: int = -1, *, generator: Generator | None = None
) -> "Tensor":
    """Samples of the Gumbel-softmax distribution at temperature ``tau`` (Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017).

    With ``hard`` the samples are one-hot; their gradient is that of the soft samples.
    """
    noise = -(-rand(logits.shape, generator=generator).clamp(min=1e-20).log()).clamp(min=1e-20).log()
    soft = softmax((logits + noise) / tau, dim)
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
) -> "Tensor":
    """softmax(scale * query key^T + mask) value (Vaswani et al. 2017, equation 1).

    Queries are (..., length, features), keys and values (..., source, features). A bool mask is True where attention is allowed; a
    float32 mask is added. ``is_causal`` lets position i attend to the positions up to i. ``scale`` is 1 / sqrt(features) unless given.
    """
    scores = matmul(query, key.transpose(-2, -1)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = tril(ones(query.shape[-2], key.shape[-2])).bool()
    if attn_mask is not None:
        scores = where(attn_mask, scores, constant(-math.inf)) if attn_mask.dtype is bool_ else scores + attn_mask
    return matmul(dropout(softmax(scores, -1), dropout_p), value)
