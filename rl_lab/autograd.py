"""Gradients by call: `grad` returns them and leaves ``.grad`` alone; `backward` adds them to the leaves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rl_lab.engine import tape
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.tape import enable_grad, inference_mode, no_grad, set_grad_enabled
from rl_lab.engine.tensor import gradients_of, root_gradient

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())

__all__ = ["Variable", "backward", "enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled"]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """What old code wraps tensors in: the values as a leaf, sharing memory."""
    return data.detach().requires_grad_(requires_grad) if requires_grad else data


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` (a tensor or several, then summed) with respect to each of ``inputs``.

    StateError for an input that was not used, unless ``allow_unused``, which gives None for it.
    """
    return tuple(gradients_of(outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused))


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add the gradients of several roots to the leaves in one walk."""
    roots: Sequence[Any] = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] * len(roots) if grad_tensors is None or isinstance(grad_tensors, Tensor) else list(grad_tensors)
    gradients = [root_gradient(root, gradient) for root, gradient in zip(roots, given, strict=True)]
    tape.backward(roots, gradients, retain_graph, create_graph)
