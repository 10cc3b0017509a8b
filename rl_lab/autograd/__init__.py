"""Gradients as functions: `grad` returns gradients, `backward` adds them to the ``grad`` of the leaves."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from rl_lab.autograd import function, functional
from rl_lab.autograd.anomaly import detect_anomaly, set_detect_anomaly
from rl_lab.autograd.function import Function
from rl_lab.autograd.gradcheck import gradcheck, gradgradcheck
from rl_lab.engine import tape
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import zeros_like
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.tape import enable_grad, inference_mode, no_grad, set_grad_enabled
from rl_lab.engine.tensor import gradients_of, root_gradient

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


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
    only_inputs: bool = True,
    allow_unused: Literal[False] | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]: ...


@overload
def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    *,
    allow_unused: bool,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]: ...


def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradient of the sum of ``outputs`` with respect to each of ``inputs``, weighted by ``grad_outputs`` if given.

    ``grad_outputs`` has one tensor per output, of the shape of the output; None stands for 1 and needs an output of one element.
    Values saved for the gradients are freed unless ``retain_graph``. ``create_graph`` makes the gradients differentiable. Raises
    StateError if an input was not used, or returns None for this input with ``allow_unused``, or zeros with ``materialize_grads``.

    With ``is_grads_batched`` the first dimension of ``grad_outputs`` counts gradients to compute one after the other, and the results
    are stacked. ``only_inputs`` is accepted and has no effect, as in PyTorch. Raises ValueError for ``materialize_grads`` together
    with ``allow_unused=False``.
    """
    if materialize_grads:
        if allow_unused is False:
            raise ValueError("materialize_grads gives zeros for inputs that were not used: it needs allow_unused=True or None")
        allow_unused = True
    sources = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    found: list[Tensor | None]
    if is_grads_batched:
        given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or ())
        count = len(next(g for g in given if g is not None))
        rows = []
        for k in range(count):
            keep = True if k < count - 1 else retain_graph
            part = [g if g is None else g[k] for g in given]
            rows.append(gradients_of(roots, sources, part, keep, create_graph, allow_unused))
        found = [None if parts[0] is None else stack(parts) for parts in zip(*rows, strict=True)]
    else:
        found = list(gradients_of(roots, sources, grad_outputs, retain_graph, create_graph, allow_unused))
    if materialize_grads:
        found = [zeros_like(x) if g is None else g for g, x in zip(found, sources, strict=True)]
    return tuple(found)


def backward(
    tensors: Tensor | Iterable[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of one or several tensors to ``grad`` of the leaves that they were computed from.

    ``grad_tensors`` has one tensor per root, as ``grad_outputs`` of `grad`. With ``inputs`` only these leaves are changed.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] * len(roots) if grad_tensors is None or isinstance(grad_tensors, Tensor) else list(grad_tensors)
    gradients = [root_gradient(root, gradient) for root, gradient in zip(roots, given, strict=True)]
    if inputs is None:
        tape.backward(roots, gradients, retain_graph, create_graph)
        return
    leaves = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    taken = {id(gradient.storage) for gradient in gradients}
    results = gradients_of(roots, leaves, gradients, retain_graph, create_graph, True)
    for leaf, result in zip(leaves, results, strict=True):
        if result is not None:
            leaf.accumulate(result, taken, create_graph)
