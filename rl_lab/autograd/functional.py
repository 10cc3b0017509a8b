"""Jacobians, Hessians and their products with vectors, of functions of one tensor or several.

A function takes the tensors ``inputs`` as its arguments and returns a tensor or a tuple of tensors. ``inputs`` is a tensor or a tuple, and
results have a part for each input: a tensor if ``inputs`` is one. With ``create_graph`` the results can be differentiated. With ``strict``
a StateError is raised if an output does not depend on an input; otherwise the derivative is zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

import rl_lab.autograd as autograd
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import ones_like, zeros, zeros_like
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.tape import enable_grad

Tensors = Tensor | tuple[Tensor, ...]
Nested = Tensor | tuple[Any, ...]
"""A tensor, or tuples of them, one level for several outputs and one for several inputs."""

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def jacobian(
    func: Callable[..., Tensors],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Nested:
    """The derivatives of every element of the outputs with respect to every element of the inputs.

    The part for an output and an input has the shape of the output, followed by the shape of the input. ``vectorize`` and ``strategy``
    are accepted; the result does not depend on them.
    """
    with enable_grad():
        given = _started(inputs, create_graph)
        outputs = func(*given)
        rows = tuple([_jacobian_of(out, given, create_graph, strict) for out in _listed(outputs, "func returned")])
    parts = [row if isinstance(inputs, tuple) else row[0] for row in rows]
    return tuple(parts) if isinstance(outputs, tuple) else parts[0]


def _jacobian_of(out: Tensor, given: tuple[Tensor, ...], create_graph: bool, strict: bool) -> tuple[Tensor, ...]:
    """The Jacobians of one output with respect to each input."""
    columns: list[list[Tensor]] = [[] for _ in given]
    for element in out.reshape(-1) if out.numel() else ():
        for column, gradient in zip(columns, _gradients([element], given, None, create_graph, strict), strict=True):
            column.append(gradient)
    return tuple(
        [
            (stack(column) if column else zeros(0)).reshape(*out.shape, *x.shape)
            for column, x in zip(columns, given, strict=True)
        ]
    )


def hessian(
    func: Callable[..., Tensor],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Nested:
    """The second derivatives of a function with one number as its result. Raises ShapeError for another result."""

    def gradient(*given: Tensor) -> Tensors:
        found = _gradients([_number(func(*given))], given, None, True, strict)
        return tuple(found) if isinstance(inputs, tuple) else found[0]

    return jacobian(gradient, inputs, create_graph, strict)


def vjp(
    func: Callable[..., Tensors],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensors, Tensors]:
    """(outputs, the product of the vector ``v`` and the Jacobian). ``v`` has the shapes of the outputs; None stands for 1 for a number.

    Raises ShapeError if ``v`` does not fit.
    """
    with enable_grad():
        given = _started(inputs, create_graph)
        outputs = func(*given)
        listed = _listed(outputs, "func returned")
        found = _gradients(listed, given, _vector(v, listed), create_graph, strict)
    return _ended(outputs, create_graph), _like(inputs, found)


def jvp(
    func: Callable[..., Tensors],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensors, Tensors]:
    """(outputs, the product of the Jacobian and the vector ``v``). ``v`` has the shapes of the inputs; None stands for 1 for a number.

    Raises ShapeError if ``v`` does not fit.
    """
    with enable_grad():
        given = _started(inputs, create_graph)
        outputs = func(*given)
        listed = _listed(outputs, "func returned")
        # the product with a vector of outputs is linear in that vector, so its derivative is the product with a vector of inputs
        weights = tuple([zeros_like(out).requires_grad_() for out in listed])
        products = _gradients(listed, given, weights, True, strict)
        found = _gradients(products, weights, _vector(v, given), create_graph, False)
    return _ended(outputs, create_graph), (tuple(found) if isinstance(outputs, tuple) else found[0])


def vhp(
    func: Callable[..., Tensor],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Tensors]:
    """(output, the product of the vector ``v`` and the Hessian) of a function with one number as its result.

    Raises ShapeError for another result, or if ``v`` does not fit.
    """
    with enable_grad():
        given = _started(inputs, create_graph)
        out = _number(func(*given))
        gradient = _gradients([out], given, None, True, strict)
        found = _gradients(gradient, given, _vector(v, given), create_graph, strict)
    return (out if create_graph else out.detach()), _like(inputs, found)


def hvp(
    func: Callable[..., Tensor],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Tensors]:
    """(output, the product of the Hessian and the vector ``v``): `vhp`, because a Hessian is symmetric."""
    return vhp(func, inputs, v, create_graph, strict)


# --- parts -----------------------------------------------------------------------------------------------------------


def _listed(value: Any, what: str) -> tuple[Tensor, ...]:
    """A tensor or a tuple of tensors as a tuple. Raises TypeError for anything else."""
    found = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(x, Tensor) for x in found):
        raise TypeError(f"{what} {type(value).__name__}, not a tensor or a tuple of tensors")
    return found


def _started(inputs: Tensors, create_graph: bool) -> tuple[Tensor, ...]:
    """The inputs as new tensors that require gradients; with ``create_graph``, connected to inputs that require them."""
    return tuple(
        [
            x.clone() if create_graph and x.requires_grad else x.detach().clone().requires_grad_()
            for x in _listed(inputs, "inputs is")
        ]
    )


def _number(out: Any) -> Tensor:
    if not isinstance(out, Tensor) or out.numel() != 1:
        raise ShapeError("the function must return a tensor with one element")
    return out.reshape(())


def _vector(v: Tensors | None, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The vector as a tuple with the shapes of ``like``. Raises ShapeError if it does not fit."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise ShapeError("give the vector v: only for a single number it is 1 by itself")
        return (ones_like(like[0]),)
    found = _listed(v, "v is")
    if [x.shape for x in found] != [x.shape for x in like]:
        raise ShapeError(f"v has the shapes {[tuple(x.shape) for x in found]}, not {[tuple(x.shape) for x in like]}")
    return found


def _gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    create_graph: bool,
    strict: bool,
) -> list[Tensor]:
    """The gradients of the weighted outputs with respect to the inputs, zero where an output does not depend on an input."""
    pairs = [(out, None if weights is None else weights[i]) for i, out in enumerate(outputs) if out.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        given = None if weights is None else [weight for _, weight in pairs]
        found = autograd.grad(
            [out for out, _ in pairs], inputs, given, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    if strict and (len(pairs) < len(outputs) or any(gradient is None for gradient in found)):
        raise StateError("an output does not depend on an input")
    return [zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, found, strict=True)]


def _ended(outputs: Tensors, create_graph: bool) -> Tensors:
    if create_graph:
        return outputs
    return tuple([out.detach() for out in outputs]) if isinstance(outputs, tuple) else outputs.detach()


def _like(inputs: Tensors, found: list[Tensor]) -> Tensors:
    return tuple(found) if isinstance(inputs, tuple) else found[0]
