"""Helpers over many parameters at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rl_lab.engine.errors import NumericalError, ShapeError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.multi_tensor import address_table, polyak_
from rl_lab.engine.tape import no_grad
from rl_lab.engine.tensor import empty

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "polyak_", "vector_to_parameters"]


def _gradients(parameters: Any) -> list[Any]:
    """The gradients that there are, contiguous."""
    listed: Iterable[Any] = [parameters] if isinstance(parameters, Tensor) else parameters
    owners = [p for p in listed if p.grad is not None]
    with no_grad():
        for p in owners:
            p.grad = p.grad.contiguous()
    return [p.grad for p in owners]


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: Any = None
) -> Any:
    """Scale all gradients together so that their norm (Euclidean by default) is at most ``max_norm``; return the norm before."""
    gradients = _gradients(parameters)
    table, sizes = address_table([(g, g) for g in gradients])
    if norm_type == 2 or not gradients:
        norm: Any = empty(())
        launch(optimizer_kernels.total_norm, (norm, table, sizes), (len(gradients),))
    else:
        with no_grad():
            norm = cat([g.detach().norm(norm_type).reshape(1) for g in gradients]).norm(norm_type)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NumericalError(f"the norm of the gradients is {norm.item()}")
    launch(optimizer_kernels.clip_gradients, (table, sizes, norm), (len(gradients), float(max_norm)))
    for g in gradients:
        g.storage.version += 1
    return norm


def parameters_to_vector(parameters: Iterable[Any]) -> Any:
    """All parameters as one vector."""
    return cat([p.reshape(-1) for p in parameters])


def clip_grad_value_(parameters: Any, clip_value: float, foreach: Any = None) -> None:
    """Cut every element of every gradient off at -clip_value and clip_value."""
    gradients = _gradients(parameters)
    table, sizes = address_table([(g, g) for g in gradients])
    launch(optimizer_kernels.clip_values, (table, sizes), (len(gradients), float(clip_value)))
    for g in gradients:
        g.storage.version += 1


@no_grad()
def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """The other way round: copy consecutive parts of a vector into the parameters. ShapeError unless they fill them exactly."""
    listed = list(parameters)
    if vec.shape != (sum([p.numel() for p in listed]),):
        raise ShapeError(f"a vector of shape {list(vec.shape)} does not fill {sum(p.numel() for p in listed)} elements")
    start = 0
    for p in listed:
        p.copy_(vec[start : start + p.numel()].reshape(p.shape))
        start += p.numel()
