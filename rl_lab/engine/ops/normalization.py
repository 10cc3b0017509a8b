"""Normalisation over features or over a batch."""

import math
from collections.abc import Callable, Sequence

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import normalization as normalization_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import ones, zeros
from rl_lab.engine.ops.operands import INTEGERS, differentiate
from rl_lab.engine.tape import Node, attach, modes
from rl_lab.engine.tensor import Shape, Tensor, empty
from rl_lab.engine.types import Gradients


def _composed(rank: int, eps: float, has_weight: bool) -> Callable[..., Tensor]:
    """Layer normalisation from differentiable operations, for the second derivative."""

    def composed(x: Tensor, *affine: Tensor) -> Tensor:
        dims = tuple(range(x.dim() - rank, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        result = centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
        rest = list(affine)
        if has_weight:
            result = result * rest.pop(0)
        return result + rest[0] if rest else result

    return composed


def _layer_norm_rule(g: Tensor, node: Node) -> Gradients:
    x, weight, normal, inverse = node.saved
    rank, eps, names = node.context
    if modes.grad:
        affine = [weight if name == "weight" else zeros(x.sizes[-rank:]).requires_grad_() for name in names]
        return differentiate(_composed(rank, eps, "weight" in names), (x, *affine), g)
    n = inverse.numel()
    r = math.prod(x.sizes[-rank:])
    with tape.no_grad():
        g = g.contiguous()
        scale = ones(r) if weight is None else weight.contiguous()
    to_x = empty(x.sizes)
    to_weight = empty(x.sizes[-rank:])
    to_bias = empty(x.sizes[-rank:])
    work = empty((r,))
    launch(normalization_kernels.layer_norm_backward, (to_x, to_weight, to_bias, work, g, normal, inverse, scale), (n, r))
    gradients = {"weight": to_weight, "bias": to_bias}
    return (to_x, *[gradients[name] for name in names])


def _last_shape(name: str, x: Tensor, normalized_shape: int | Sequence[int]) -> Shape:
    """``normalized_shape`` as a tuple. Raises ShapeError if the shape of x does not end in it."""
    shape = (normalized_shape,) if isinstance(normalized_shape, INTEGERS) else tuple(normalized_shape)
    if not shape or x.sizes[-len(shape) :] != shape:
        raise ShapeError(f"{name}: the input's shape must end in the normalized_shape {list(shape)}, got {list(x.sizes)}")
    return shape


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions (Ba, Kiros and Hinton 2016).

    ``normalized_shape`` is the shape of these dimensions, of ``weight`` and of ``bias``. Raises DtypeError if the input is not
    float32, ShapeError if a shape does not fit.
    """
    if input.dtype is not float32:
        raise DtypeError(f"layer_norm takes float32, got {input.dtype.name}: convert with .float() first")
    shape = _last_shape("layer_norm", input, normalized_shape)
    given = {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}
    for name, value in given.items():
        if value.sizes != shape:
            raise ShapeError(f"layer_norm: {name} must have the shape {list(shape)}, got {list(value.sizes)}")
    r = math.prod(shape)
    n = input.numel() // r if r else 0
    with tape.no_grad():
        x = input.contiguous()
        scale = ones(shape) if weight is None else weight.contiguous()
        shift = zeros(shape) if bias is None else bias.contiguous()
    out = empty(x.sizes)
    normal = empty(x.sizes)
    inverse = empty((n,))
    launch(normalization_kernels.layer_norm, (out, normal, inverse, x, scale, shift), (n, r, float(eps)))
    saved = (input, weight, normal, inverse)
    return attach(out, _layer_norm_rule, (input, *given.values()), saved, (len(shape), eps, tuple(given)))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Input (n, channels, ...) normalised per channel (Ioffe and Szegedy 2015).

    In training it is normalised by the mean and variance of the batch, and the running mean and variance move towards these by the
    fraction ``momentum``, in place. Else it is normalised by the running mean and variance. The running tensors, ``weight`` and
    ``bias`` have the shape (channels,). Raises ShapeError for fewer than 2 dimensions, ValueError if the running mean or variance is
    missing outside training or if a channel has only one value in training.
    """
    if input.dim() < 2:
        raise ShapeError(f"batch_norm takes a tensor of at least 2 dimensions, got shape {list(input.sizes)}")
    channels = input.sizes[1]
    dims = tuple([d for d in range(input.dim()) if d != 1])
    along = (1, channels, *[1] * (input.dim() - 2))
    if training:
        count = input.numel() // max(channels, 1)
        if count < 2:
            raise ValueError(f"expected more than 1 value per channel when training, got input size {list(input.sizes)}")
        mean = input.mean(dims, keepdim=True)
        centred = input - mean
        variance = (centred * centred).mean(dims, keepdim=True)
        with tape.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.reshape(channels), momentum)
            if running_var is not None:
                running_var.lerp_(variance.reshape(channels) * (count / (count - 1)), momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm needs running_mean and running_var if training is False")
    else:
        centred = input - running_mean.reshape(along)
        variance = running_var.reshape(along)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.reshape(along)
    result = centred * scale
    return result if bias is None else result + bias.reshape(along)


def _renormed(x: Tensor, weight: Tensor, bias: Tensor, ratio: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Batch renormalisation from differentiable operations, for the second derivative."""
    centred = x - x.mean(0)
    normal = centred * ((centred * centred).mean(0) + eps).rsqrt()
    return (normal * ratio + shift) * weight + bias


def _batch_renorm_rule(g: Tensor, node: Node) -> Gradients:
    x, weight, bias, normal, inverse, ratio, shift = node.saved
    if modes.grad:
        return differentiate(lambda a, b, c: _renormed(a, b, c, ratio, shift, node.context), (x, weight, bias), g)
    n, m = x.sizes
    to_x = empty((n, m))
    to_weight = empty((m,))
    to_bias = empty((m,))
    with tape.no_grad():
        given = (g.contiguous(), normal, inverse, ratio, shift, weight.contiguous())
    launch(normalization_kernels.batch_renorm_backward, (to_x, to_weight, to_bias, *given), (n, m))
    return to_x, to_weight, to_bias


def batch_renorm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.01,
    eps: float = 1e-3,
    r_max: float = 3.0,
    d_max: float = 5.0,
    warmup: int = 100_000,
) -> Tensor:
    """Input (n, features) batch-renormalised per feature (Ioffe 2017, "Batch renormalization", algorithm 1).

    In training it is normalised by the mean and standard deviation of the batch, then scaled by r and shifted by d, which are constants
    for the gradient and make the result that of the running moments: r = clip(s_batch / s, 1 / r_max, r_max) and d = clip((m_batch - m)
    / s, -d_max, d_max). In the first ``warmup`` batches r is 1 and d is 0. Then the running moments move towards those of the batch by
    the fraction ``momentum``, in place, and ``batches``, int64 (), is counted up. Else it is normalised by the running moments. The
    running tensors, ``weight`` and ``bias`` have the shape (features,). Raises ShapeError if the shapes do not fit, ValueError for a
    single row in training.
    """
    if input.dim() != 2 or any(x.sizes != input.sizes[1:] for x in (running_mean, running_var, weight, bias)):
        raise ShapeError(f"batch_renorm takes a tensor (n, {running_mean.numel()}), got shape {list(input.sizes)}")
    if not training:
        scale = weight * (running_var + eps).rsqrt()
        return input * scale + (bias - running_mean * scale)
    n, m = input.sizes
    if n < 2:
        raise ValueError(f"expected more than 1 value per feature when training, got input size {list(input.sizes)}")
    out = empty((n, m))
    normal = empty((n, m))
    inverse = empty((m,))
    ratio = empty((m,))
    shift = empty((m,))
    with tape.no_grad():
        given = (input.contiguous(), weight.contiguous(), bias.contiguous())
    launch(
        normalization_kernels.batch_renorm,
        (out, normal, inverse, ratio, shift, running_mean, running_var, batches, *given),
        (n, m, float(momentum), float(eps), float(r_max), float(d_max), int(warmup)),
    )
    for moved in (running_mean, running_var, batches):
        moved.storage.version += 1
    saved = (input, weight, bias, normal, inverse, ratio, shift)
    return attach(out, _batch_renorm_rule, (input, weight, bias), saved, float(eps))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Input (n, channels, ...) normalised over the channels of each group and all positions (Wu and He 2018).

    ``weight`` and ``bias`` have the shape (channels,). Raises ShapeError if the channels cannot be divided into ``num_groups``.
    """
    if input.dim() < 2 or num_groups < 1 or input.sizes[1] % num_groups:
        raise ShapeError(
            f"group_norm: dimension 1 of shape {list(input.sizes)} cannot be divided into {num_groups} groups of channels"
        )
    rows = input.reshape(input.sizes[0], num_groups, math.prod(input.sizes[1:]) // num_groups)
    result = layer_norm(rows, rows.sizes[-1], eps=eps).reshape(input.sizes)
    along = (1, input.sizes[1], *[1] * (input.dim() - 2))
    if weight is not None:
        result = result * weight.reshape(along)
    return result if bias is None else result + bias.reshape(along)


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang and Sennrich 2019).

    ``normalized_shape`` is the shape of these dimensions and of ``weight``. Raises ShapeError if the input does not end in it.
    """
    shape = _last_shape("rms_norm", input, normalized_shape)
    dims = tuple(range(input.dim() - len(shape), input.dim()))
    smallest = 1.1920928955078125e-07 if eps is None else eps  # the spacing of float32 at 1
    result = input * (input.square().mean(dims, keepdim=True) + smallest).rsqrt()
    return result if weight is None else result * weight


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Vectors along ``dim`` divided by their p-norm, or by ``eps`` if the norm is smaller."""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)
