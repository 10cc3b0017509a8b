"""Functions of two tensors that broadcast, element by element, and choices. Each stands beside its gradient rule."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.number import real
from rl_lab.engine.ops.comparison import eq, ge, gt, isnan, le, logical_and, logical_or, lt
from rl_lab.engine.ops.elementwise import clamp_between, exp, log, square, trunc
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, fit, operand, promote, unary
from rl_lab.engine.tape import attach, modes, no_grad
from rl_lab.engine.tensor import Tensor, TensorCore
from rl_lab.native.primitive import Primitive

# --- functions of two arguments --------------------------------------------------------------------------------------


def _add_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(g, b) if node.wants(1) else None


def add(a: Any, b: Any, *, alpha: float = 1) -> Tensor:
    """a + alpha * b."""
    if alpha != 1:
        b = mul(b, alpha) if isinstance(b, TensorCore) else b * alpha
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.add_int, a, b) if a.dtype is int64 else logical_or(a, b)
    out = binary(elementwise_kernels.add, a, b)
    return attach(out, _add_rule, (a, b), context=(a.shape, b.shape)) if modes.grad else out


def _sub_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(-g, b) if node.wants(1) else None


def sub(a: Any, b: Any, *, alpha: float = 1) -> Tensor:
    """a - alpha * b."""
    if alpha != 1:
        b = mul(b, alpha) if isinstance(b, TensorCore) else b * alpha
    a, b = promote(a, b)
    if a.dtype is not float32:
        if a.dtype is bool_:
            raise DtypeError("subtraction of two bool tensors is not supported: use logical_xor or ~")
        return _integer(elementwise_kernels.sub_int, a, b)
    out = binary(elementwise_kernels.sub, a, b)
    return attach(out, _sub_rule, (a, b), context=(a.shape, b.shape)) if modes.grad else out


def _mul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g * b, shape_a) if node.wants(0) else None, fit(g * a, shape_b) if node.wants(1) else None


def mul(a: Any, b: Any) -> Tensor:
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.mul_int, a, b) if a.dtype is int64 else logical_and(a, b)
    out = binary(elementwise_kernels.mul, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        saved = (a if b.requires_grad else None, b if a.requires_grad else None)
        attach(out, _mul_rule, (a, b), saved, (a.shape, b.shape))
    return out


def _div_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / b, shape_a) if node.wants(0) else None,
        fit(-g * ((a / b) / b), shape_b) if node.wants(1) else None,
    )


def div(a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    """a / b in float32; ``rounding_mode`` 'floor' or 'trunc' rounds the quotient."""
    if rounding_mode is not None:
        if rounding_mode == "floor":
            return floor_divide(a, b)
        if rounding_mode == "trunc":
            return _trunc_divide(a, b)
        raise ValueError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.div, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        attach(out, _div_rule, (a, b), (a if b.requires_grad else None, b), (a.shape, b.shape))
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
            return constant(0.0).expand(x.shape)
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


def power(a: Any, b: Any) -> Tensor:
    """a ** b. Raises RuntimeError for an integer tensor to a negative integer number."""
    if isinstance(a, TensorCore) and a.dtype is float32 and type(b) in (int, float):
        return _fixed_power(a, b)
    if isinstance(b, (int, np.integer)) and not isinstance(b, bool) and b < 0 and isinstance(a, TensorCore):
        raise DtypeError(f"integers to negative integer powers are not allowed, got the power {b} of a {a.dtype.name} tensor")
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.power_int, a.to(int64), b.to(int64))
    out = binary(elementwise_kernels.power, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        attach(out, _power_rule, (a, b), (a, b, out if b.requires_grad else None), (a.shape, b.shape))
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


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of two; NaN wins; a tie splits the gradient evenly."""
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.maximum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(elementwise_kernels.maximum, a, b), _maximum_rule, (a, b), (a, b), (a.shape, b.shape))


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of two; NaN wins, and a tie splits the gradient evenly."""
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(elementwise_kernels.minimum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(elementwise_kernels.minimum, a, b), _minimum_rule, (a, b), (a, b), (a.shape, b.shape))


def _no_zero(divisor: Any, name: str) -> None:
    """Integers have no infinity: raise before the launch. A number in the code is checked without reading a tensor."""
    if divisor == 0 if isinstance(divisor, (int, np.integer)) else bool(eq(divisor, 0).any()):
        raise ZeroDivisionError(f"{name} of integers by zero")


def _flat_rule(g, node):
    """Zeros: the function is made of steps."""
    with no_grad():
        return tuple([constant(0.0).expand(shape) for shape in node.context])


def floor_divide(a: Any, b: Any) -> Tensor:
    """The quotient rounded down, exact for integers. Raises ZeroDivisionError for integers by zero."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "floor_divide")
        return _integer(elementwise_kernels.floordiv_int, a.to(int64), b.to(int64))
    return attach(binary(elementwise_kernels.floor_quotient, a, b), _flat_rule, (a, b), context=(a.shape, b.shape))


def _trunc_divide(a: Any, b: Any) -> Tensor:
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "division")
        return _integer(elementwise_kernels.truncdiv_int, a.to(int64), b.to(int64))
    with no_grad():
        out = trunc(a / b)
    return attach(out, _flat_rule, (a, b), context=(a.shape, b.shape))


def _remainder_gradient(divide: Callable) -> Callable:
    def rule(g, node):
        a, b = node.saved
        shape_a, shape_b = node.context
        return fit(g, shape_a) if node.wants(0) else None, fit(-g * divide(a, b), shape_b) if node.wants(1) else None

    return rule


_floored_rule, _truncated_rule = _remainder_gradient(floor_divide), _remainder_gradient(_trunc_divide)


def remainder(a: Any, b: Any) -> Tensor:
    """Python's a % b: the result has the sign of b. Raises ZeroDivisionError for integers by zero."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "remainder")
        return _integer(elementwise_kernels.remainder_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.remainder, a, b), _floored_rule, (a, b), saved, (a.shape, b.shape))


def fmod(a: Any, b: Any) -> Tensor:
    """C's remainder: the result has the sign of a. Raises ZeroDivisionError for integers by zero."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "fmod")
        return _integer(elementwise_kernels.fmod_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.fmod, a, b), _truncated_rule, (a, b), saved, (a.shape, b.shape))


def _atan2_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    distance = a * a + b * b
    inverse = where(eq(distance, 0.0), constant(0.0), 1.0 / distance)  # the angle of the origin is constant
    return fit(g * b * inverse, shape_a) if node.wants(0) else None, fit(g * -a * inverse, shape_b) if node.wants(1) else None


def atan2(a: Any, b: Any) -> Tensor:
    """The angle of the point (b, a)."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.atan2, a, b), _atan2_rule, (a, b), (a, b), (a.shape, b.shape))


def heaviside(x: Any, values: Any) -> Tensor:
    """0 below 0, 1 above, ``values`` at 0. No gradient."""
    return binary(elementwise_kernels.heaviside, as_float(x), as_float(values))


def _logaddexp_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / (1.0 + exp(b - a)), shape_a) if node.wants(0) else None,
        fit(g / (1.0 + exp(a - b)), shape_b) if node.wants(1) else None,
    )


def logaddexp(a: Any, b: Any) -> Tensor:
    """log(exp(a) + exp(b)) without overflow."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.logaddexp, a, b), _logaddexp_rule, (a, b), (a, b), (a.shape, b.shape))


def logaddexp2(a: Any, b: Any) -> Tensor:
    """log2(2^a + 2^b) without overflow."""
    a, b = promote(a, b)
    return logaddexp(as_float(a) * math.log(2.0), as_float(b) * math.log(2.0)) / math.log(2.0)


def _hypot_rule(g, node):
    a, b, out = node.saved
    shape_a, shape_b = node.context
    return fit(g * (a / out), shape_a) if node.wants(0) else None, fit(g * (b / out), shape_b) if node.wants(1) else None


def hypot(a: Any, b: Any) -> Tensor:
    """sqrt(a^2 + b^2), which does not overflow on the way."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.hypot, a, b)
    return attach(out, _hypot_rule, (a, b), (a, b, out), (a.shape, b.shape))


def _logit_rule(g, node):
    (x,), eps = node.saved, node.context
    low = 0.0 if eps is None else eps
    outside = math.nan if eps is None else 0.0
    if not modes.grad:
        return elementwise(elementwise_kernels.logit_backward, (g, x, constant(low), constant(outside)), float32)
    inside = logical_and(ge(x, low), le(x, 1.0 - low))
    return where(inside, g / (x * (1.0 - x)), constant(outside))


def logit(x: Any, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x cut off at eps and 1 - eps if given."""
    x = as_float(x)
    with no_grad():
        inner = x if eps is None else clamp(x, eps, 1.0 - eps)
    return attach(unary(elementwise_kernels.logit, inner), _logit_rule, (x,), (x,), eps)


def _xlogy_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(where(logical_and(eq(a, 0.0), le(b, 0.0)), constant(0.0), xlogy(g, b)), shape_a)
    if node.wants(1):
        to_b = fit(g * a / b, shape_b)
    return to_a, to_b


def xlogy(a: Any, b: Any) -> Tensor:
    """a * log(b), and 0 where a is 0."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.xlogy, a, b), _xlogy_rule, (a, b), (a, b), (a.shape, b.shape))


def _copysign_rule(g, node):
    a, out = node.saved
    shape_a, shape_b = node.context
    to_b = None
    if node.wants(1):
        with no_grad():
            to_b = constant(0.0).expand(shape_b)
    ratio = where(eq(a, 0.0), constant(0.0), out / a)
    return fit(g * ratio.detach(), shape_a) if node.wants(0) else None, to_b


def copysign(a: Any, b: Any) -> Tensor:
    """The magnitude of a with the sign of b."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    out = binary(elementwise_kernels.copysign, a, b)
    return attach(out, _copysign_rule, (a, b), (a, out), (a.shape, b.shape))


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

    def apply(a: Any, b: Any) -> Any:
        a, b = promote(a, b)
        if a.dtype is not float32:
            return (maximum if kernel.name == "fmax" else minimum)(a, b)
        return attach(binary(kernel, a, b), rule, (a, b), (a, b), (a.shape, b.shape))

    apply.__name__ = apply.__qualname__ = kernel.name
    apply.__doc__ = f"`{'maximum' if kernel.name == 'fmax' else 'minimum'}` that passes over NaN."
    return apply


fmax, fmin = _choice(elementwise_kernels.fmax, ge), _choice(elementwise_kernels.fmin, le)


def _addcmul_rule(g, node):
    a, b = node.saved
    shape, value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (b * value), a.shape) if node.wants(1) else None,
        fit(g * (a * value), b.shape) if node.wants(2) else None,
    )


def addcmul(x: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value * tensor1 * tensor2."""
    with no_grad():
        out = x + (tensor1 if value == 1 else tensor1 * value) * tensor2
    return attach(out, _addcmul_rule, (x, tensor1, tensor2), (tensor1, tensor2), (x.shape, value))


def _addcdiv_rule(g, node):
    a, b = node.saved
    shape, value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (value / b), a.shape) if node.wants(1) else None,
        fit(-g * (a * value) / (b * b), b.shape) if node.wants(2) else None,
    )


def addcdiv(x: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value * tensor1 / tensor2."""
    if x.dtype is not float32:
        raise DtypeError(f"addcdiv takes float32, got {x.dtype.name}")
    with no_grad():
        out = x + (tensor1 if value == 1 else tensor1 * value) / tensor2
    return attach(out, _addcdiv_rule, (x, tensor1, tensor2), (tensor1, tensor2), (x.shape, value))


def _integer(kernel: Primitive, a: Any, b: Any) -> Tensor:
    return binary(kernel, a, b, int64)


def _lerp_rule(g, node):
    weight, shape_start, shape_end = node.context
    return (
        fit(g * (1.0 - weight), shape_start) if node.wants(0) else None,
        fit(g * weight, shape_end) if node.wants(1) else None,
    )


def lerp(start: Any, end: Any, weight: Any) -> Tensor:
    """start + weight * (end - start), with a number or a tensor as weight."""
    if isinstance(weight, TensorCore):
        return _lerp_tensor(start, end, weight)
    start, end = promote(start, end)
    out = elementwise(elementwise_kernels.lerp, (start, end, constant(real(weight))), float32)
    return attach(out, _lerp_rule, (start, end), (), (weight, start.shape, end.shape))


def _lerp_tensor_rule(g, node):
    start, end, weight = node.saved
    return (
        fit(g * (1.0 - weight), start.shape) if node.wants(0) else None,
        fit(g * weight, end.shape) if node.wants(1) else None,
        fit(g * (end - start), weight.shape) if node.wants(2) else None,
    )


def _lerp_tensor(start: Any, end: Any, weight: Any) -> Any:
    out = elementwise(elementwise_kernels.lerp, (start, end, weight), float32)
    return attach(out, _lerp_tensor_rule, (start, end, weight), (start, end, weight))


def _clamp_rule(g, node):
    x, low, high = node.saved
    zero = constant(0.0)
    inside = None if low is None else ge(x, low)
    if high is not None:
        inside = le(x, high) if inside is None else logical_and(inside, le(x, high))
    gradients = [fit(where(inside, g, zero), x.shape) if node.wants(0) else None]
    place = 1
    if low is not None:
        below = lt(x, low) if high is None else logical_and(lt(low, high), lt(x, low))
        gradients.append(fit(where(below, g, zero), low.shape) if node.wants(place) else None)
        place += 1
    if high is not None:
        above = gt(x, high) if low is None else logical_or(gt(x, high), lt(high, low))
        gradients.append(fit(where(above, g, zero), high.shape) if node.wants(place) else None)
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


def clamp(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values cut off at the bounds, which are numbers or tensors; NaN stays, and the gradient at a bound is 1."""
    if min is None and max is None:
        raise ValueError("clamp needs min or max")
    if isinstance(min, TensorCore) or isinstance(max, TensorCore):
        return _clamp_tensors(x, min, max)
    if x.dtype is int64 and not isinstance(min, float) and not isinstance(max, float):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    return clamp_between(x, -math.inf if min is None else min, math.inf if max is None else max)


def clamp_min(x: Any, min: Any) -> Tensor:
    """`clamp` from below only."""
    return clamp(x, min, None)


def clamp_max(x: Any, max: Any) -> Tensor:
    """`clamp` from above only."""
    return clamp(x, None, max)


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
    return attach(out, lambda gg, node: fit(_keep(kernel, gg, condition), node.context), (g,), context=g.shape)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where the condition holds, ``b`` elsewhere; all three broadcast."""
    if condition.dtype is not bool_:
        raise DtypeError(f"where takes a bool condition, got {condition.dtype.name}")
    if not isinstance(a, TensorCore) and not isinstance(b, TensorCore):
        a = constant(a, float32 if isinstance(a, float) else int64)
    a, b = promote(a, b)
    if a.dtype is not float32:
        kernel = elementwise_kernels.where_int if a.dtype is int64 else elementwise_kernels.where_bool
        return elementwise(kernel, (condition, a, b), a.dtype)
    out = elementwise(elementwise_kernels.where, (condition, a, b), float32)
    return attach(out, _where_rule, (a, b), (condition,), (a.shape, b.shape))


def _prelu_rule(g, node):
    x, weight = node.saved
    return (
        _prelu_slope(g, x, weight) if node.wants(0) else None,
        fit(where(gt(x, 0.0), constant(0.0), x * g), weight.shape) if node.wants(1) else None,
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
        fit(where(above, constant(0.0), gg * g), weight.shape) if node.wants(1) else None,
    )


def prelu(x: Any, weight: Any) -> Tensor:
    """x above 0, weight * x below, with a weight that broadcasts."""
    with no_grad():
        out = where(gt(x, 0.0), x, weight * x)
    return attach(out, _prelu_rule, (x, weight), (x, weight))


def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    """``value`` where the mask is true."""
    return where(mask, operand(value, x), x)


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Numbers in place of NaN and the infinities (by default the largest and smallest of float32)."""
    largest = float(np.finfo(np.float32).max)
    low, high = -largest if neginf is None else neginf, largest if posinf is None else posinf
    x = where(isnan(x), constant(nan), x)
    return where(eq(x, math.inf), constant(high), where(eq(x, -math.inf), constant(low), x))
