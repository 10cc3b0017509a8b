"""Gradients as functions: `grad` returns gradients, `backward` adds them to the ``grad`` of the leaves."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from rl_lab.engine import tape
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.tape import enable_grad, inference_mode, no_grad, set_grad_enabled
from rl_lab.engine.tensor import gradients_of, root_gradient

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())

__all__ = ["Variable", "backward", "enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled"]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """Return ``data``, or with ``requires_grad`` a new leaf that shares its memory. For scripts written for early PyTorch."""
    return data.detach().requires_grad_(requires_grad) if requires_grad else data


@overload
def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: Literal[False] = False,
) -> tuple[Tensor, ...]: ...


@overload
def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    allow_unused: bool,
) -> tuple[Tensor | None, ...]: ...


def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradient of the sum of ``outputs`` with respect to each of ``inputs``, weighted by ``grad_outputs`` if given.

    ``grad_outputs`` has one tensor per output, of the shape of the output; None stands for 1 and needs an output of one element.
    Values saved for the gradients are freed unless ``retain_graph``. ``create_graph`` makes the gradients differentiable. Raises
    StateError if an input was not used, or returns None for this input with ``allow_unused``.
    """
    return tuple(gradients_of(outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused))


def backward(
    tensors: Tensor | Iterable[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradients of one or several tensors to ``grad`` of the leaves that they were computed from.

    ``grad_tensors`` has one tensor per root, as ``grad_outputs`` of `grad`.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] * len(roots) if grad_tensors is None or isinstance(grad_tensors, Tensor) else list(grad_tensors)
    gradients = [root_gradient(root, gradient) for root, gradient in zip(roots, given, strict=True)]
    tape.backward(roots, gradients, retain_graph, create_graph)
