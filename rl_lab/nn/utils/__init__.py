"""Functions on several parameters at once: clipping of gradients, and conversion to and from one vector."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rl_lab.engine.errors import NumericalError, ShapeError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import not_covered
from rl_lab.engine.number import real
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import zeros
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.multi_tensor import address_table, polyak_
from rl_lab.engine.tape import guards, no_grad
from rl_lab.engine.tensor import empty
from rl_lab.nn.reparametrization import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from rl_lab.nn.utils import parametrizations, parametrize, rnn

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parametrizations",
    "parametrize",
    "rnn",
    "parameters_to_vector",
    "polyak_",
    "remove_spectral_norm",
    "remove_weight_norm",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Make the existing gradients of ``parameters`` contiguous and return them."""
    listed: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    owners = [p for p in listed if p.grad is not None]
    gradients = []
    with no_grad():
        for p in owners:
            gradient = p.grad.contiguous()  # type: ignore[union-attr]
            p.grad = gradient
            gradients.append(gradient)
    return gradients


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``; return the norm before scaling.

    ``norm_type`` is the order of the norm. ``foreach`` has no effect. Raises NumericalError, with the gradients unchanged, if
    ``error_if_nonfinite`` and the norm is not finite.
    """
    listed: list[Tensor] = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = _gradients(listed)
    guarded = any(guard.owns(listed) for guard in guards())
    table, sizes = address_table([(g, g) for g in gradients])
    if norm_type == 2 or not gradients:
        norm = empty(())
        launch(optimizer_kernels.total_norm, (norm, table, sizes), (len(gradients),))
    else:
        with no_grad():
            norm = cat([g.detach().norm(norm_type).reshape(1) for g in gradients]).norm(norm_type)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NumericalError(f"the norm of the gradients must be finite, got {norm.item()}")
    launch(optimizer_kernels.clip_gradients, (table, sizes, norm), (len(gradients), real(max_norm), int(guarded)))
    for g in gradients:
        g.storage.version += 1
    return norm


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of order ``norm_type`` of all tensors as one vector; 0 for no tensors. ``foreach`` has no effect.

    Raises NumericalError if ``error_if_nonfinite`` and the norm is not finite.
    """
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not listed:
        return zeros(())
    norm = cat([x.norm(norm_type).reshape(1) for x in listed]).norm(norm_type)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NumericalError(f"the norm must be finite, got {norm.item()}")
    return norm


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by one factor so that the norm ``total_norm`` becomes at most ``max_norm``. ``foreach`` has no effect."""
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for gradient in _gradients(parameters):
        gradient.mul_(factor)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Concatenate all parameters into one vector."""
    return cat([p.reshape(-1) for p in parameters])


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every element of every gradient to [-clip_value, clip_value]. ``foreach`` has no effect."""
    gradients = _gradients(parameters)
    table, sizes = address_table([(g, g) for g in gradients])
    launch(optimizer_kernels.clip_values, (table, sizes), (len(gradients), real(clip_value)))
    for g in gradients:
        g.storage.version += 1


@no_grad()
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy consecutive parts of a vector into the parameters: the inverse of `parameters_to_vector`.

    Raises ShapeError if the vector does not have exactly as many elements as the parameters.
    """
    listed = list(parameters)
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters takes a tensor, got {type(vec).__name__}")
    if vec.shape != (sum([p.numel() for p in listed]),):
        raise ShapeError(
            f"the parameters need a vector of {sum(p.numel() for p in listed)} elements, got shape {list(vec.shape)}"
        )
    start = 0
    for p in listed:
        p.copy_(vec[start : start + p.numel()].reshape(p.shape))
        start += p.numel()
