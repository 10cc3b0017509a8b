"""Helpers over many parameters at once."""

from collections.abc import Iterable
from typing import Any

from rl_lab.engine.errors import NumericalError
from rl_lab.engine.kernels import optimizer as kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.table import address_table, polyak_
from rl_lab.engine.tape import no_grad
from rl_lab.engine.tensor import empty

__all__ = ["clip_grad_norm_", "parameters_to_vector", "polyak_"]


def clip_grad_norm_(parameters: Any, max_norm: float, error_if_nonfinite: bool = False) -> Any:
    """Scale all gradients together so that their Euclidean norm is at most ``max_norm``; return the norm before."""
    listed: Iterable[Any] = [parameters] if isinstance(parameters, Tensor) else parameters
    owners = [p for p in listed if p.grad is not None]
    with no_grad():
        for p in owners:
            p.grad = p.grad.contiguous()
    gradients = [p.grad for p in owners]
    norm = empty(())
    table, sizes = address_table([(g, g) for g in gradients])
    launch(kernels.total_norm, (norm, table, sizes), (len(gradients),))
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NumericalError(f"the norm of the gradients is {norm.item()}")
    launch(kernels.clip_gradients, (table, sizes, norm), (len(gradients), float(max_norm)))
    for g in gradients:
        g.storage.version += 1
    return norm


def parameters_to_vector(parameters: Iterable[Any]) -> Any:
    """All parameters as one vector."""
    return cat([p.reshape(-1) for p in parameters])
