"""Normalisation over features or over a batch."""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import normalization as normalization_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import ones, zeros
from rl_lab.engine.ops.operands import INTEGERS, differentiate
from rl_lab.engine.tape import attach, modes
from rl_lab.engine.tensor import Tensor, empty


def _composed(rank: int, eps: float, has_weight: bool) -> Any:
    """Layer normalisation in differentiable operations, for its second derivative."""

    def composed(x: Any, *affine: Any) -> Any:
        dims = tuple(range(x.dim() - rank, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        result = centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
        rest = list(affine)
        if has_weight:
            result = result * rest.pop(0)
        return result + rest[0] if rest else result

    return composed


def _layer_norm_rule(g, node):
    (x, weight, normal, inverse), (rank, eps, names) = node.saved, node.context
    if modes.grad:
        affine = [weight if name == "weight" else zeros(x.sizes[-rank:]).requires_grad_() for name in names]
        return tuple(differentiate(_composed(rank, eps, "weight" in names), (x, *affine), g))
    n, r = inverse.numel(), math.prod(x.sizes[-rank:])
    with tape.no_grad():
        g, scale = g.contiguous(), (ones(r) if weight is None else weight.contiguous())
    to_x, to_weight, to_bias, work = empty(x.sizes), empty(x.sizes[-rank:]), empty(x.sizes[-rank:]), empty((r,))
    launch(normalization_kernels.layer_norm_backward, (to_x, to_weight, to_bias, work, g, normal, inverse, scale), (n, r))
    gradients = {"weight": to_weight, "bias": to_bias}
    return (to_x, *[gradients[name] for name in names])


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions (Ba, Kiros and Hinton 2016)."""
    shape = (normalized_shape,) if isinstance(normalized_shape, INTEGERS) else tuple(normalized_shape)
    if input.dtype is not float32:
        raise DtypeError(f"layer_norm takes float32, got {input.dtype.name}")
    if not shape or input.sizes[-len(shape) :] != shape:
        raise ShapeError(f"layer_norm: an input of shape {list(input.sizes)} does not end in {list(shape)}")
    given = {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}
    for name, value in given.items():
        if value.sizes != shape:
            raise ShapeError(f"layer_norm: {name} of shape {list(value.sizes)} is not {list(shape)}")
    r = math.prod(shape)
    n = input.numel() // r if r else 0
    with tape.no_grad():
        x = input.contiguous()
        scale, shift = (
            ones(shape) if weight is None else weight.contiguous(),
            zeros(shape) if bias is None else bias.contiguous(),
        )
    out, normal, inverse = empty(x.sizes), empty(x.sizes), empty((n,))
    launch(normalization_kernels.layer_norm, (out, normal, inverse, x, scale, shift), (n, r, float(eps)))
    saved = (input, weight, normal, inverse)
    return attach(out, _layer_norm_rule, (input, *given.values()), saved, (len(shape), eps, tuple(given)))


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalised over all dimensions but the second (Ioffe and Szegedy 2015): by the batch's own moments in training, which the
    running ones then follow with ``momentum``, else by the running ones."""
    if input.dim() < 2:
        raise ShapeError(f"batch_norm takes at least 2 dimensions, got shape {list(input.sizes)}")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm needs running moments where it does not train")
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
    else:
        centred, variance = input - running_mean.reshape(along), running_var.reshape(along)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.reshape(along)
    result = centred * scale
    return result if bias is None else result + bias.reshape(along)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalised over the channels of each group and all places (Wu and He 2018)."""
    if input.dim() < 2 or num_groups < 1 or input.sizes[1] % num_groups:
        raise ShapeError(f"group_norm: shape {list(input.sizes)} cannot be divided into {num_groups} groups of channels")
    rows = input.reshape(input.sizes[0], num_groups, math.prod(input.sizes[1:]) // num_groups)
    result = layer_norm(rows, rows.sizes[-1], eps=eps).reshape(input.sizes)
    along = (1, input.sizes[1], *[1] * (input.dim() - 2))
    if weight is not None:
        result = result * weight.reshape(along)
    return result if bias is None else result + bias.reshape(along)


def rms_norm(input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang and Sennrich 2019)."""
    shape = (normalized_shape,) if isinstance(normalized_shape, INTEGERS) else tuple(normalized_shape)
    if not shape or input.sizes[-len(shape) :] != shape:
        raise ShapeError(f"rms_norm: an input of shape {list(input.sizes)} does not end in {list(shape)}")
    dims = tuple(range(input.dim() - len(shape), input.dim()))
    smallest = 1.1920928955078125e-07 if eps is None else eps  # the spacing of float32 at 1
    result = input * (input.square().mean(dims, keepdim=True) + smallest).rsqrt()
    return result if weight is None else result * weight


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x divided by its p-norm along ``dim``, which counts as at least ``eps``."""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)
