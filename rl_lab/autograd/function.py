"""Operations defined by a user: a forward pass and a gradient as two static methods."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from rl_lab.engine import tape
from rl_lab.engine.errors import StateError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.layout import Parts
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.ops.reduction import sum_to_size

if TYPE_CHECKING:
    from rl_lab.engine.tape import Node


class FunctionCtx:
    """The context of one call. `Function.forward` stores tensors and any attributes in it; `Function.backward` reads them.

    ``needs_input_grad`` tells for each argument of forward whether the argument needs a gradient.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self) -> None:
        self._to_save: tuple[Tensor | None, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._constant: tuple[Tensor, ...] = ()
        self._materialize = True
        self._node: Node | None = None
        self._outputs: dict[int, int] = {}

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `saved_tensors`. If one of them is modified in place later, backward raises StateError."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """The tensors of `save_for_backward`. Raises StateError if they were freed or modified in place."""
        if self._node is None:
            return self._to_save  # type: ignore[return-value]
        saved = list(self._node.saved)
        for place, number in self._outputs.items():
            saved[place] = _on_tape(saved[place], self._node, number)
        return tuple(saved)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declare the arguments that forward modifies in place. Forward must return each of them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Declare the results that have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Choose the gradients of unused results that backward gets: zeros if ``value`` (the default), else None."""
        self._materialize = value


def _part_rule(g: Tensor, node: "Node") -> Parts:
    return Parts({node.context: g})


def _on_tape(value: Tensor, joint: "Node", number: int) -> Tensor:
    """The value, recorded as result ``number`` of the operation of ``joint``."""
    return value.with_node(tape.Node(_part_rule, (joint,), (), number))


class Function:
    """Base class of operations with a user-defined gradient. A subclass has two static methods, ``forward`` and ``backward``.

    ``forward(ctx, *arguments)`` returns a tensor or a tuple of tensors; its operations are not recorded on the tape.
    ``backward(ctx, *gradients)`` gets one gradient per result and returns one gradient per argument of forward, or None for an
    argument without a gradient. The gradients are differentiable if all operations in backward are. If a subclass also has
    ``setup_context(ctx, inputs, output)``, forward gets no ``ctx``. Call ``apply``, not forward.

    ::

        class Exp(Function):
            @staticmethod
            def forward(ctx, x):
                y = x.exp()
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, gradient):
                (y,) = ctx.saved_tensors
                return gradient * y

        y = Exp.apply(x)
    """

    def __init__(self, *arguments: Any, **options: Any):
        raise StateError(f"{type(self).__name__} is not constructed: call {type(self).__name__}.apply(...)")

    @staticmethod
    def forward(*arguments: Any, **options: Any) -> Any:
        """Compute the results; defined by subclasses."""
        raise NotImplementedError("a Function needs a static method forward")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the tensors and attributes that backward needs, if forward gets no ``ctx``."""
        raise NotImplementedError("a Function whose forward takes no ctx needs a static method setup_context")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute the gradients; defined by subclasses."""
        raise NotImplementedError("a Function needs a static method backward")

    vjp = backward

    @classmethod
    def apply(cls, *arguments: Any, **options: Any) -> Any:
        """Run forward and record its results on the tape. Raises StateError if forward modifies a leaf or a view in place."""
        ctx = FunctionCtx()
        tracked = tape.modes.grad
        ctx.needs_input_grad = tuple([tracked and isinstance(x, Tensor) and x.requires_grad for x in arguments])
        with tape.no_grad():
            if cls.setup_context is not Function.setup_context:
                output = cls.forward(*arguments, **options)
                cls.setup_context(ctx, arguments, output)
            else:
                output = cls.forward(ctx, *arguments, **options)
        if not any(ctx.needs_input_grad):
            return output
        several = isinstance(output, tuple)
        return cls._attached(ctx, arguments, output if several else (output,), several)

    @classmethod
    def _attached(cls, ctx: FunctionCtx, arguments: tuple[Any, ...], results: tuple[Any, ...], several: bool) -> Any:
        edges = tuple(
            [(x.grad_node() or x) if needed else None for x, needed in zip(arguments, ctx.needs_input_grad, strict=True)]
        )
        given = {id(x) for x in arguments if isinstance(x, Tensor)}
        numbers = {id(result): k for k, result in enumerate(results)}
        ctx._outputs = {
            place: numbers[id(x)] for place, x in enumerate(ctx._to_save) if id(x) in numbers and id(x) not in given
        }
        saved = tuple([x.with_node(None) if place in ctx._outputs else x for place, x in enumerate(ctx._to_save)])  # type: ignore[union-attr]
        shapes = [result.sizes if isinstance(result, Tensor) else None for result in results]
        sizes = [x.sizes if isinstance(x, Tensor) else None for x in arguments]
        joint = tape.Node(_rule_of(cls, ctx, shapes, sizes), edges, saved, None)
        ctx._node = joint
        ctx._to_save = ()
        dirty = {id(x) for x in ctx._dirty}
        constants = {id(x) for x in ctx._constant}
        values = []
        for number, result in enumerate(results):
            if not isinstance(result, Tensor) or id(result) in constants or not result.dtype.is_floating_point:
                values.append(result)
            elif id(result) in dirty:
                if result.base is not None or (result.requires_grad and result.is_leaf):
                    what = "view" if result.base is not None else "leaf that requires grad"
                    raise StateError(f"{cls.__name__} changed a {what} in place: compute a new tensor")
                result.node = tape.Node(_part_rule, (joint,), (), number)
                result.needs_grad = True
                result.epoch += 1
                values.append(result)
            else:
                values.append(_on_tape(result, joint, number))
        return tuple(values) if several else values[0]


def _fitted(cls: type[Function], gradient: Tensor | None, size: tuple[int, ...] | None) -> Tensor | None:
    """The gradient in the shape ``size`` of its argument: summed over broadcast dimensions, as PyTorch does.

    Raises StateError if the shape of the argument does not broadcast to the shape of the gradient.
    """
    if gradient is None or size is None or gradient.sizes == size:
        return gradient
    missing = len(gradient.sizes) - len(size)
    if missing < 0 or any(n not in (1, m) for n, m in zip(size, gradient.sizes[missing:], strict=True)):
        raise StateError(
            f"{cls.__name__}.backward returned a gradient of shape {list(gradient.sizes)} for an argument of shape {list(size)}"
        )
    return sum_to_size(gradient, size)


def _rule_of(
    cls: type[Function], ctx: FunctionCtx, shapes: list[tuple[int, ...] | None], sizes: list[tuple[int, ...] | None]
) -> tape.Rule:
    """The gradient rule of one call: from the gradients of the results, by number, to the gradients of the arguments.

    ``shapes`` are those of the results and ``sizes`` those of the arguments; None stands for a value that is not a tensor.
    """

    def rule(parts: Parts, node: "Node") -> tuple[Tensor | None, ...]:
        given = parts.gradients
        gradients = []
        for number, shape in enumerate(shapes):
            gradient = given.get(number)
            if gradient is None and ctx._materialize and shape is not None:
                gradient = constant(0.0).expand(shape)  # type: ignore[attr-defined]
            gradients.append(gradient)
        results = (cls.backward if cls.backward is not Function.backward else cls.vjp)(ctx, *gradients)
        results = results if isinstance(results, tuple) else (results,)
        if len(results) > len(node.inputs) and all(result is None for result in results[len(node.inputs) :]):
            results = results[: len(node.inputs)]
        if len(results) != len(node.inputs):
            raise StateError(
                f"{cls.__name__}.backward returned {len(results)} gradients, but forward took {len(node.inputs)} arguments"
            )
        return tuple([_fitted(cls, result, size) for result, size in zip(results, sizes, strict=True)])

    rule.__name__ = f"{cls.__name__}_rule"
    return rule


def once_differentiable(function: Callable) -> Callable:
    """Decorate ``backward`` if its results are not differentiable: a second derivative then raises StateError."""

    def refuse(g: Tensor, node: "Node") -> NoReturn:
        raise StateError("this Function is marked as once_differentiable: it has no second derivative")

    @functools.wraps(function)
    def backward(ctx: Any, *gradients: Any) -> Any:
        with tape.no_grad():
            results = function(ctx, *gradients)
        if not tape.modes.grad or not any(isinstance(g, Tensor) and g.requires_grad for g in gradients):
            return results
        sources = tuple([g for g in gradients if isinstance(g, Tensor)])
        several = results if isinstance(results, tuple) else (results,)
        return tuple([r if r is None else tape.attach(r.detach(), refuse, sources) for r in several])

    return backward
