"""Functions of two tensors that broadcast, element by element, and choices. Each stands beside its gradient rule."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.number import real
from rl_lab.engine.ops.comparison import eq, ge, gt, isnan, le, logical_and, logical_or, lt
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.elementwise import clamp_between, exp, log, square, trunc
from rl_lab.engine.ops.operands import as_float, binary, check_range, constant, elementwise, fit, operand, promote, unary
from rl_lab.engine.tape import attach, modes, no_grad
from rl_lab.engine.tensor import Tensor, TensorCore
from rl_lab.native.primitive import Primitive

# --- functions of two arguments --------------------------------------------------------------------------------------


def _add_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(g, b) if node.wants(1) else None


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input + alpha * other."""
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, TensorCore) else other * alpha
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.add_int, a, b) if a.dtype is int64 else logical_or(a, b)
    out = binary(elementwise_kernels.add, a, b)
    return attach(out, _add_rule, (a, b), context=(a.sizes, b.sizes)) if modes.grad else out


def _sub_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(-g, b) if node.wants(1) else None


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input - alpha * other."""
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, TensorCore) else other * alpha
    a, b = promote(input, other)
    if a.dtype is not float32:
        if a.dtype is bool_:
            raise DtypeError("subtraction of two bool tensors is not supported: use logical_xor or ~")
        return _integer(elementwise_kernels.sub_int, a, b)
    out = binary(elementwise_kernels.sub, a, b)
    return attach(out, _sub_rule, (a, b), context=(a.sizes, b.sizes)) if modes.grad else out


def _mul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g * b, shape_a) if node.wants(0) else None, fit(g * a, shape_b) if node.wants(1) else None


def mul(input: Any, other: Any) -> Tensor:
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.mul_int, a, b) if a.dtype is int64 else logical_and(a, b)
    out = binary(elementwise_kernels.mul, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        saved = (a if b.requires_grad else None, b if a.requires_grad else None)
        attach(out, _mul_rule, (a, b), saved, (a.sizes, b.sizes))
    return out


def _div_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / b, shape_a) if node.wants(0) else None,
        fit(-g * ((a / b) / b), shape_b) if node.wants(1) else None,
    )


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other in float32; ``rounding_mode`` 'floor' or 'trunc' rounds the quotient."""
    if rounding_mode is not None:
        if rounding_mode == "floor":
            return floor_divide(input, other)
        if rounding_mode == "trunc":
            return _trunc_divide(input, other)
        raise ValueError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.div, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        attach(out, _div_rule, (a, b), (a if b.requires_grad else None, b), (a.sizes, b.sizes))
    return out


def _power_rule(g, node):
    a, b, result = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        # b * a**(b - 1) is 0 * inf at a = 0, b = 0, where the power does not depend on a
        to_a = fit(where(eq(b, 0.0), constant(0.0), g * (b * power(a, b - 1.0))), shape_a)
    if node.wants(1):
        # at a = 0 the power is flat in b for b >= 0, but log(0) * 0 would be NaN
        flat = logical_and(eq(a, 0.0), ge(b, 0.0))
        to_b = fit(where(flat, constant(0.0), g * (result * log(a))), shape_b)
    return to_a, to_b


def _fixed_power_rule(g, node):
    (x,), exponent = node.saved, node.context
    if exponent == 0:
        with no_grad():
            return constant(0.0).expand(x.sizes)
    return g * (power(x, exponent - 1) * exponent)


def _fixed_power(x: Any, exponent: float) -> Any:
    """x to the power of a number, in the fewest roundings for the usual numbers."""
    if exponent == 2:
        return square(x)
    if exponent == 1:
        return mul(x, 1.0)
    if exponent in _POWERS:
        out = unary(_POWERS[exponent], x)
    else:
        out = binary(elementwise_kernels.power, x, constant(real(exponent)))
    return attach(out, _fixed_power_rule, (x,), (x,), exponent)


_POWERS = {0.5: elementwise_kernels.sqrt, -0.5: elementwise_kernels.rsqrt, -1: elementwise_kernels.reciprocal}


def power(input: Any, exponent: Any) -> Tensor:
    """input ** exponent. Raises RuntimeError for an integer tensor to a negative integer number."""
    if isinstance(input, TensorCore) and input.dtype is float32 and type(exponent) in (int, float):
        return _fixed_power(input, exponent)
    whole = isinstance(exponent, (int, np.integer)) and not isinstance(exponent, bool)
    if whole and exponent < 0 and isinstance(input, TensorCore):
        raise DtypeError(
            f"integers to negative integer powers are not allowed, got the power {exponent} of a {input.dtype.name} tensor"
        )
    a, b = promote(input, exponent)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.power_int, a.to(int64), b.to(int64))
    out = binary(elementwise_kernels.power, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        attach(out, _power_rule, (a, b), (a, b, out if b.requires_grad else None), (a.sizes, b.sizes))
    return out


def _tied(winner: Callable) -> Callable:
    def rule(g, node):
        a, b = node.saved
        shape_a, shape_b = node.context
        half = where(eq(a, b), constant(0.5), constant(1.0)) * g
        zero = constant(0.0)  # of the one that loses; with NaN in either there is no loser, and both get g, as in PyTorch
        return (
            fit(where(winner(b, a), zero, half), shape_a) if node.wants(0) else None,
            fit(where(winner(a, b), zero, half), shape_b) if node.wants(1) else None,
        )

    return rule


_maximum_rule, _minimum_rule = _tied(lambda a, b: gt(a, b)), _tied(lambda a, b: lt(a, b))


def maximum(input: Any, other: Any) -> Tensor:
    """The larger of two; NaN wins; a tie splits the gradient evenly."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.maximum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(elementwise_kernels.maximum, a, b), _maximum_rule, (a, b), (a, b), (a.sizes, b.sizes))


def minimum(input: Any, other: Any) -> Tensor:
    """The smaller of two; NaN wins, and a tie splits the gradient evenly."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.minimum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(elementwise_kernels.minimum, a, b), _minimum_rule, (a, b), (a, b), (a.sizes, b.sizes))


def _no_zero(divisor: Any, name: str) -> None:
    """Integers have no infinity: raise before the launch. A number in the code is checked without reading a tensor."""
    if divisor == 0 if isinstance(divisor, (int, np.integer)) else bool(eq(divisor, 0).any()):
        raise ZeroDivisionError(f"{name} of integers by zero")


def _flat_rule(g, node):
    """Zeros: the function is made of steps."""
    with no_grad():
        return tuple([constant(0.0).expand(shape) for shape in node.context])


def floor_divide(input: Any, other: Any) -> Tensor:
    """The quotient rounded down, exact for integers. Raises ZeroDivisionError for integers by zero."""
    divisor = other
    a, b = promote(input, other)
    if a.dtype is not float32:
        _no_zero(divisor, "floor_divide")
        return _integer(elementwise_kernels.floordiv_int, a.to(int64), b.to(int64))
    return attach(binary(elementwise_kernels.floor_quotient, a, b), _flat_rule, (a, b), context=(a.sizes, b.sizes))


def _trunc_divide(input: Any, other: Any) -> Tensor:
    divisor = other
    a, b = promote(input, other)
    if a.dtype is not float32:
        _no_zero(divisor, "division")
        return _integer(elementwise_kernels.truncdiv_int, a.to(int64), b.to(int64))
    with no_grad():
        out = trunc(a / b)
    return attach(out, _flat_rule, (a, b), context=(a.sizes, b.sizes))


def _remainder_gradient(divide: Callable) -> Callable:
    def rule(g, node):
        a, b = node.saved
        shape_a, shape_b = node.context
        return fit(g, shape_a) if node.wants(0) else None, fit(-g * divide(a, b), shape_b) if node.wants(1) else None

    return rule


_floored_rule, _truncated_rule = _remainder_gradient(floor_divide), _remainder_gradient(_trunc_divide)


def remainder(input: Any, other: Any) -> Tensor:
    """Python's input % other: the result has the sign of ``other``. Raises ZeroDivisionError for integers by zero."""
    divisor = other
    a, b = promote(input, other)
    if a.dtype is not float32:
        _no_zero(divisor, "remainder")
        return _integer(elementwise_kernels.remainder_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.remainder, a, b), _floored_rule, (a, b), saved, (a.sizes, b.sizes))


def fmod(input: Any, other: Any) -> Tensor:
    """C's remainder: the result has the sign of ``input``. Raises ZeroDivisionError for integers by zero."""
    divisor = other
    a, b = promote(input, other)
    if a.dtype is not float32:
        _no_zero(divisor, "fmod")
        return _integer(elementwise_kernels.fmod_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.fmod, a, b), _truncated_rule, (a, b), saved, (a.sizes, b.sizes))


def _atan2_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    distance = a * a + b * b
    inverse = where(eq(distance, 0.0), constant(0.0), 1.0 / distance)  # the angle of the origin is constant
    return fit(g * b * inverse, shape_a) if node.wants(0) else None, fit(g * -a * inverse, shape_b) if node.wants(1) else None


def atan2(input: Any, other: Any) -> Tensor:
    """The angle of the point (other, input)."""
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.atan2, a, b), _atan2_rule, (a, b), (a, b), (a.sizes, b.sizes))


def heaviside(input: Any, values: Any) -> Tensor:
    """0 below 0, 1 above, ``values`` at 0. No gradient. Raises DtypeError if the dtypes differ."""
    if input.dtype is not values.dtype:
        raise DtypeError(f"heaviside takes two tensors of one dtype, got {input.dtype.name} and {values.dtype.name}")
    if input.dtype is not float32:
        return where(eq(input, 0), values, gt(input, 0).to(input.dtype))
    return binary(elementwise_kernels.heaviside, as_float(input), as_float(values))


def _logaddexp_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / (1.0 + exp(b - a)), shape_a) if node.wants(0) else None,
        fit(g / (1.0 + exp(a - b)), shape_b) if node.wants(1) else None,
    )


def logaddexp(input: Any, other: Any) -> Tensor:
    """log(exp(input) + exp(other)) without overflow."""
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.logaddexp, a, b), _logaddexp_rule, (a, b), (a, b), (a.sizes, b.sizes))


def logaddexp2(input: Any, other: Any) -> Tensor:
    """log2(2^input + 2^other) without overflow."""
    a, b = promote(input, other)
    return logaddexp(as_float(a) * math.log(2.0), as_float(b) * math.log(2.0)) / math.log(2.0)


def _hypot_rule(g, node):
    a, b, out = node.saved
    shape_a, shape_b = node.context
    return fit(g * (a / out), shape_a) if node.wants(0) else None, fit(g * (b / out), shape_b) if node.wants(1) else None


def hypot(input: Any, other: Any) -> Tensor:
    """sqrt(input^2 + other^2), which does not overflow on the way."""
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.hypot, a, b)
    saved = (a if a.requires_grad else None, b if b.requires_grad else None, out)
    return attach(out, _hypot_rule, (a, b), saved, (a.sizes, b.sizes))


def _logit_rule(g, node):
    (x,), eps = node.saved, node.context
    low = 0.0 if eps is None else eps
    outside = math.nan if eps is None else 0.0
    if not modes.grad:
        return elementwise(elementwise_kernels.logit_backward, (g, x, constant(low), constant(outside)), float32)
    inside = logical_and(ge(x, low), le(x, 1.0 - low))
    return where(inside, g / (x * (1.0 - x)), constant(outside))


def logit(input: Any, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), of input cut off at eps and 1 - eps if given."""
    input = as_float(input)
    with no_grad():
        inner = input if eps is None else clamp(input, eps, 1.0 - eps)
    return attach(unary(elementwise_kernels.logit, inner), _logit_rule, (input,), (input,), eps)


def _xlogy_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(where(logical_and(eq(a, 0.0), le(b, 0.0)), constant(0.0), xlogy(g, b)), shape_a)
    if node.wants(1):
        to_b = fit(g * a / b, shape_b)
    return to_a, to_b


def xlogy(input: Any, other: Any) -> Tensor:
    """input * log(other), and 0 where ``input`` is 0."""
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.xlogy, a, b), _xlogy_rule, (a, b), (a, b), (a.sizes, b.sizes))


def _copysign_rule(g, node):
    a, out = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        ratio = where(eq(a, 0.0), constant(0.0), out / a)
        to_a = fit(g * ratio.detach(), shape_a)
    if node.wants(1):
        with no_grad():
            to_b = constant(0.0).expand(shape_b)
    return to_a, to_b


def copysign(input: Any, other: Any) -> Tensor:
    """The magnitude of ``input`` with the sign of ``other``."""
    a, b = promote(input, other)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.copysign, a, b)
    saved = (a, out) if a.requires_grad else (None, None)
    return attach(out, _copysign_rule, (a, b), saved, (a.sizes, b.sizes))


def _choice(kernel: Primitive, keeps: Callable) -> Callable:
    """An extreme that passes over NaN; ``keeps`` says where the first operand is chosen, which gets the whole gradient of a tie."""

    def rule(g, node):
        a, b = node.saved
        shape_a, shape_b = node.context
        first = logical_or(keeps(a, b), isnan(b))
        zero = constant(0.0)
        return (
            fit(where(first, g, zero), shape_a) if node.wants(0) else None,
            fit(where(first, zero, g), shape_b) if node.wants(1) else None,
        )

    rule.__name__ = f"{kernel.name}_rule"

    def apply(input: Any, other: Any) -> Any:
        a, b = promote(input, other)
        if a.dtype is not float32:
            return (maximum if kernel.name == "fmax" else minimum)(a, b)
        return attach(binary(kernel, a, b), rule, (a, b), (a, b), (a.sizes, b.sizes))

    apply.__name__ = apply.__qualname__ = kernel.name
    apply.__doc__ = f"`{'maximum' if kernel.name == 'fmax' else 'minimum'}` that passes over NaN."
    return apply


fmax, fmin = _choice(elementwise_kernels.fmax, ge), _choice(elementwise_kernels.fmin, le)


def _addcmul_rule(g, node):
    a, b = node.saved
    (shape, shape_a, shape_b), value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (b * value), shape_a) if node.wants(1) else None,
        fit(g * (a * value), shape_b) if node.wants(2) else None,
    )


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    with no_grad():
        out = input + (tensor1 if value == 1 else tensor1 * value) * tensor2
    shapes = (input.sizes, tensor1.sizes, tensor2.sizes)
    saved = (tensor1 if tensor2.requires_grad else None, tensor2 if tensor1.requires_grad else None)
    return attach(out, _addcmul_rule, (input, tensor1, tensor2), saved, (shapes, value))


def _addcdiv_rule(g, node):
    a, b = node.saved
    (shape, shape_a, shape_b), value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (value / b), shape_a) if node.wants(1) else None,
        fit(-g * (a * value) / (b * b), shape_b) if node.wants(2) else None,
    )


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    if input.dtype is not float32:
        raise DtypeError(f"addcdiv takes float32, got {input.dtype.name}")
    with no_grad():
        out = input + (tensor1 if value == 1 else tensor1 * value) / tensor2
    shapes = (input.sizes, tensor1.sizes, tensor2.sizes)
    divided = tensor1.requires_grad or tensor2.requires_grad
    saved = (tensor1 if tensor2.requires_grad else None, tensor2 if divided else None)
    return attach(out, _addcdiv_rule, (input, tensor1, tensor2), saved, (shapes, value))


def _integer(kernel: Primitive, a: Any, b: Any) -> Tensor:
    return binary(kernel, a, b, int64)


def _lerp_rule(g, node):
    weight, shape_start, shape_end = node.context
    return (
        fit(g * (1.0 - weight), shape_start) if node.wants(0) else None,
        fit(g * weight, shape_end) if node.wants(1) else None,
    )


def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """input + weight * (end - input), with a number or a tensor as weight."""
    if isinstance(weight, TensorCore):
        return _lerp_tensor(input, end, weight)
    input, end = promote(input, end)
    out = elementwise(elementwise_kernels.lerp, (input, end, constant(real(weight))), float32)
    return attach(out, _lerp_rule, (input, end), (), (weight, input.sizes, end.sizes))


def _lerp_tensor_rule(g, node):
    start, end, weight = node.saved
    of_start, of_end, of_weight = node.context
    return (
        fit(g * (1.0 - weight), of_start) if node.wants(0) else None,
        fit(g * weight, of_end) if node.wants(1) else None,
        fit(g * (end - start), of_weight) if node.wants(2) else None,
    )


def _lerp_tensor(start: Any, end: Any, weight: Any) -> Any:
    out = elementwise(elementwise_kernels.lerp, (start, end, weight), float32)
    ends = (start, end) if weight.requires_grad else (None, None)
    saved = (*ends, weight if start.requires_grad or end.requires_grad else None)
    return attach(out, _lerp_tensor_rule, (start, end, weight), saved, (start.sizes, end.sizes, weight.sizes))


def _clamp_rule(g, node):
    x, low, high = node.saved
    zero = constant(0.0)
    inside = None if low is None else ge(x, low)
    if high is not None:
        inside = le(x, high) if inside is None else logical_and(inside, le(x, high))
    gradients = [fit(where(inside, g, zero), x.sizes) if node.wants(0) else None]
    place = 1
    if low is not None:
        below = lt(x, low) if high is None else logical_and(lt(low, high), lt(x, low))
        gradients.append(fit(where(below, g, zero), low.sizes) if node.wants(place) else None)
        place += 1
    if high is not None:
        above = gt(x, high) if low is None else logical_or(gt(x, high), lt(high, low))
        gradients.append(fit(where(above, g, zero), high.sizes) if node.wants(place) else None)
    return tuple(gradients)


def _clamp_tensors(x: Any, min: Any, max: Any) -> Any:
    """`clamp` at bounds of which one is a tensor. A value on its bound keeps the gradient."""
    given = [operand(bound, x) for bound in (min, max) if bound is not None]
    with no_grad():
        out = x if min is None else maximum(x, min)
        out = out if max is None else minimum(out, max)
        if out.dtype is not float32:
            return out
        x, given = as_float(x), [as_float(bound) for bound in given]
    bounds = iter(given)
    low = None if min is None else next(bounds)
    high = None if max is None else next(bounds)
    return attach(out, _clamp_rule, (x, *given), (x, low, high))


def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values cut off at the bounds, which are numbers or tensors; NaN stays, and the gradient at a bound is 1."""
    if min is None and max is None:
        raise ValueError("clamp needs min or max")
    if isinstance(min, TensorCore) or isinstance(max, TensorCore):
        return _clamp_tensors(input, min, max)
    if input.dtype is bool_:
        input = input.to(int64)
    if input.dtype is int64 and not isinstance(min, float) and not isinstance(max, float):
        input = input if min is None else maximum(input, min)
        return input if max is None else minimum(input, max)
    return clamp_between(input, -math.inf if min is None else min, math.inf if max is None else max)


def clamp_min(input: Any, min: Any) -> Tensor:
    """`clamp` from below only."""
    return clamp(input, min, None)


def clamp_max(input: Any, max: Any) -> Tensor:
    """`clamp` from above only."""
    return clamp(input, None, max)


# --- choice ----------------------------------------------------------------------------------------------------------


def _where_rule(g, node):
    (condition,), (shape_a, shape_b) = node.saved, node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(_keep(elementwise_kernels.keep_where, g, condition), shape_a)
    if node.wants(1):
        to_b = fit(_keep(elementwise_kernels.keep_where_not, g, condition), shape_b)
    return to_a, to_b


def _keep(kernel: Primitive, g: Any, condition: Any) -> Any:
    """The gradient on one side of a choice, zero on the other."""
    out = binary(kernel, g, condition)
    return attach(out, lambda gg, node: fit(_keep(kernel, gg, condition), node.context), (g,), context=g.sizes)


def _as_bytes(value: Any, other: Any) -> Any:
    """A Python integer beside a uint8 tensor as uint8: a choice is no arithmetic. Raises OverflowError if it does not fit."""
    if type(value) is int and isinstance(other, TensorCore) and other.dtype is uint8:
        check_range(value, uint8)
        return constant(value, uint8)
    return value


def _are_bytes(a: Any, b: Any) -> bool:
    return isinstance(a, TensorCore) and isinstance(b, TensorCore) and a.dtype is uint8 and b.dtype is uint8


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """``input`` where the condition holds, ``other`` elsewhere; all three broadcast."""
    if condition.dtype is not bool_:
        raise DtypeError(f"where takes a bool condition, got {condition.dtype.name}")
    if not isinstance(input, TensorCore) and not isinstance(other, TensorCore):
        input = constant(input, float32 if isinstance(input, float) else int64)
    input, other = _as_bytes(input, other), _as_bytes(other, input)
    a, b = (input, other) if _are_bytes(input, other) else promote(input, other)
    if a.dtype is not float32:
        kernel = elementwise_kernels.where_int if a.dtype is int64 else elementwise_kernels.where_bool
        return elementwise(kernel, (condition, a, b), a.dtype)
    out = elementwise(elementwise_kernels.where, (condition, a, b), float32)
    return attach(out, _where_rule, (a, b), (condition,), (a.sizes, b.sizes))


def _prelu_rule(g, node):
    x, weight = node.saved
    return (
        _prelu_slope(g, x, weight) if node.wants(0) else None,
        # as PyTorch's second derivative wants it at 0, where the value is 0 either way
        fit(where(ge(x, 0.0), constant(0.0), x * g), weight.sizes) if node.wants(1) else None,
    )


def _prelu_slope(g: Any, x: Any, weight: Any) -> Any:
    with no_grad():
        result = where(gt(x, 0.0), g, weight * g)
    return attach(result, _prelu_slope_rule, (g, weight), (g, weight), x.detach())


def _prelu_slope_rule(gg, node):
    (g, weight), x = node.saved, node.context
    above = ge(x, 0.0)  # at 0, PyTorch's second derivative is that from above and its first that from below
    return (
        where(above, gg, weight * gg) if node.wants(0) else None,
        fit(where(above, constant(0.0), gg * g), weight.sizes) if node.wants(1) else None,
    )


def prelu(input: Any, weight: Any) -> Tensor:
    """input above 0, weight * input below, with a weight that broadcasts."""
    with no_grad():
        out = where(gt(input, 0.0), input, weight * input)
    return attach(out, _prelu_rule, (input, weight), (input, weight))


def masked_fill(input: Any, mask: Any, value: Any) -> Tensor:
    """``value`` where the mask is true."""
    if input.dtype is bool_ and not isinstance(value, TensorCore):
        value = bool(value)
    return where(mask, value if input.dtype is uint8 and type(value) is int else operand(value, input), input)


def nan_to_num(input: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Numbers in place of NaN and the infinities (by default the largest and smallest of float32)."""
    if input.dtype is not float32:
        return clone(input)
    largest = float(np.finfo(np.float32).max)
    low, high = -largest if neginf is None else neginf, largest if posinf is None else posinf
    input = where(isnan(input), constant(nan), input)
    return where(eq(input, math.inf), constant(high), where(eq(input, -math.inf), constant(low), input))
