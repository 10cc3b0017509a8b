"""Functions of two tensors that broadcast, element by element, and choices, each beside its gradient rule."""

import math
from collections.abc import Callable
from typing import TypeGuard, overload

import numpy as np

from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.kernels.reduction import sum_of_products
from rl_lab.engine.launch import launch
from rl_lab.engine.number import integer, real
from rl_lab.engine.ops.comparison import eq, ge, gt, isnan, le, logical_and, logical_or, lt
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.elementwise import clamp_between, exp, log, square, trunc
from rl_lab.engine.ops.operands import (
    INTEGERS,
    as_float,
    binary,
    check_range,
    constant,
    elementwise,
    fit,
    flat_rule,
    operand,
    promote,
    require_number,
    unary,
    zero_gradient,
)
from rl_lab.engine.tape import Node, Rule, attach, modes, no_grad
from rl_lab.engine.tensor import Shape, Tensor, empty, needs_gradient
from rl_lab.engine.types import Binary, Gradients, Operand
from rl_lab.native.primitive import Primitive

# --- functions of two arguments --------------------------------------------------------------------------------------


def _floats(a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Both operands as float32 tensors."""
    first, second = promote(a, b)
    return as_float(first), as_float(second)


def _add_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(g, b) if node.wants(1) else None


def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input + alpha * other. Of two bool tensors it is `logical_or`."""
    if alpha != 1:
        other = other * alpha
    a, b = promote(input, other)
    if a.dtype is not float32:
        return binary(elementwise_kernels.add_int, a, b, int64) if a.dtype is int64 else logical_or(a, b)
    return attach(binary(elementwise_kernels.add, a, b), _add_rule, (a, b), (), (a.sizes, b.sizes))


def _sub_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(-g, b) if node.wants(1) else None


def _is_bool(x: Operand) -> bool:
    """Whether an operand is a bool, or a tensor or an array of bools."""
    if isinstance(x, Tensor):
        return x.dtype is bool_
    return isinstance(x, (bool, np.bool_)) or (isinstance(x, np.ndarray) and x.dtype == np.bool_)


def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input - alpha * other. Raises DtypeError if an operand is a bool."""
    factor = other
    if alpha != 1:
        other = other * alpha
    a, b = promote(input, other)
    usual = a is input and b is factor and a.dtype is not bool_
    if not usual and (_is_bool(input) or _is_bool(factor)):
        raise DtypeError("subtraction takes no bools: use ~x or x.logical_not() for 1 - x, or x.float() to calculate with x")
    if a.dtype is not float32:
        return binary(elementwise_kernels.sub_int, a, b, int64)
    return attach(binary(elementwise_kernels.sub, a, b), _sub_rule, (a, b), (), (a.sizes, b.sizes))


def _product_in_shape(g: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """g * x, summed over the dimensions that broadcasting repeated, in ``shape``."""
    if modes.grad:
        return fit(mul(g, x), shape)
    sizes = g.sizes
    if sizes != shape and sizes == x.sizes and g.strides is None and x.strides is None:
        columns = math.prod(shape)
        if columns > 1 and sizes[len(sizes) - len(shape) :] == shape and 0 not in sizes:
            out = empty(shape)
            launch(sum_of_products, (out, g, x), (math.prod(sizes) // columns, columns))
            return out
    return fit(binary(elementwise_kernels.mul, g, x), shape)


def _mul_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = _product_in_shape(g, b, shape_a) if node.wants(0) else None
    return to_a, _product_in_shape(g, a, shape_b) if node.wants(1) else None


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other. Of two bool tensors it is `logical_and`."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return binary(elementwise_kernels.mul_int, a, b, int64) if a.dtype is int64 else logical_and(a, b)
    out = binary(elementwise_kernels.mul, a, b)
    if modes.grad and ((wanted := needs_gradient(a)) | needs_gradient(b)):
        saved = (a if needs_gradient(b) else None, b if wanted else None)
        attach(out, _mul_rule, (a, b), saved, (a.sizes, b.sizes))
    return out


def _div_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = fit(g / b, shape_a) if node.wants(0) else None
    to_b = None
    if node.wants(1):
        to_b = fit(
            -g * ((a / b) / b) if modes.grad else elementwise(elementwise_kernels.div_backward, (g, a, b), float32), shape_b
        )
    return to_a, to_b


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other in float32. ``rounding_mode`` "floor" or "trunc" rounds the quotient and keeps integers.

    Raises ValueError for another ``rounding_mode``, ZeroDivisionError if a rounded quotient of integers has a divisor of 0.
    """
    if rounding_mode is not None:
        if rounding_mode == "floor":
            return floor_divide(input, other)
        if rounding_mode == "trunc":
            return _trunc_divide(input, other)
        raise ValueError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    a, b = _floats(input, other)
    out = binary(elementwise_kernels.div, a, b)
    if modes.grad and (needs_gradient(a) or needs_gradient(b)):
        attach(out, _div_rule, (a, b), (a if needs_gradient(b) else None, b), (a.sizes, b.sizes))
    return out


def _power_rule(g: Tensor, node: Node) -> Gradients:
    a, b, result = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        # at a = 0, b = 0 the power does not depend on a, but b * a**(b - 1) would be 0 * inf
        to_a = fit(where(eq(b, 0.0), constant(0.0), g * (b * power(a, b - 1.0))), shape_a)
    if node.wants(1):
        # at a = 0, b >= 0 the power does not depend on b, but 0 * log(0) would be NaN
        flat = logical_and(eq(a, 0.0), ge(b, 0.0))
        to_b = fit(where(flat, constant(0.0), g * (result * log(a))), shape_b)
    return to_a, to_b


def _fixed_power_rule(g: Tensor, node: Node) -> Gradients:
    (x,) = node.saved
    exponent = node.context
    if exponent == 0:
        return zero_gradient(x.sizes)
    return g * (power(x, exponent - 1) * exponent)


def _fixed_power(x: Tensor, exponent: float) -> Tensor:
    """x to the power of a number. Common exponents have kernels of their own, which round less often."""
    if exponent == 2:
        return square(x)
    if exponent == 1:
        return mul(x, 1.0)
    for special, kernel in _POWERS.items():
        if exponent == special:  # not a look-up: a hash would make a program of each value of a number that varies
            out = unary(kernel, x)
            break
    else:
        out = binary(elementwise_kernels.power, x, constant(real(exponent)))
    return attach(out, _fixed_power_rule, (x,), (x,), exponent)


_POWERS = {0.5: elementwise_kernels.sqrt, -0.5: elementwise_kernels.rsqrt, -1: elementwise_kernels.reciprocal}


def power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent. Raises DtypeError, a RuntimeError, for an integer tensor to the power of a negative integer."""
    whole = isinstance(exponent, INTEGERS) and not isinstance(exponent, bool)
    if isinstance(input, Tensor) and input.dtype is float32 and (whole or isinstance(exponent, (float, np.floating))):
        return _fixed_power(input, integer(exponent) if whole else real(exponent))
    if whole and exponent < 0 and isinstance(input, Tensor):
        raise DtypeError(
            f"integers to negative integer powers are not allowed, got the power {exponent} of a {input.dtype.name} tensor: "
            "convert it with .float() first"
        )
    a, b = promote(input, exponent)
    if a.dtype is not float32:
        return binary(elementwise_kernels.power_int, a.to(int64), b.to(int64), int64)
    out = binary(elementwise_kernels.power, a, b)
    if modes.grad and (a.requires_grad or b.requires_grad):
        attach(out, _power_rule, (a, b), (a, b, out if b.requires_grad else None), (a.sizes, b.sizes))
    return out


def _tied(winner: Binary) -> Rule:
    """The gradient rule of an extreme: ``winner(a, b)`` holds where a is chosen. Ties share the gradient evenly."""

    def rule(g: Tensor, node: Node) -> Gradients:
        a, b = node.saved
        shape_a, shape_b = node.context
        half = where(eq(a, b), constant(0.5), constant(1.0)) * g
        # The smaller operand of a maximum gets 0. NaN is neither smaller nor larger, so beside a NaN both operands get g, as in PyTorch.
        zero = constant(0.0)
        return (
            fit(where(winner(b, a), zero, half), shape_a) if node.wants(0) else None,
            fit(where(winner(a, b), zero, half), shape_b) if node.wants(1) else None,
        )

    return rule


_maximum_rule = _tied(gt)
_minimum_rule = _tied(lt)


def maximum(input: Operand, other: Operand) -> Tensor:
    """The larger of two elements, or NaN if one is NaN. Equal elements share the gradient evenly."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return binary(elementwise_kernels.maximum_int, a.to(int64), b.to(int64), int64).to(a.dtype)
    return attach(binary(elementwise_kernels.maximum, a, b), _maximum_rule, (a, b), (a, b), (a.sizes, b.sizes))


def minimum(input: Operand, other: Operand) -> Tensor:
    """The smaller of two elements, or NaN if one is NaN. Equal elements share the gradient evenly."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return binary(elementwise_kernels.minimum_int, a.to(int64), b.to(int64), int64).to(a.dtype)
    return attach(binary(elementwise_kernels.minimum, a, b), _minimum_rule, (a, b), (a, b), (a.sizes, b.sizes))


def _integer_division(kernel: Primitive, name: str, a: Tensor, b: Tensor, divisor: Operand) -> Tensor:
    """The kernel's result for integers, which have no infinity: raises ZeroDivisionError if ``divisor``, given as b, has a 0."""
    # a Python number is checked without reading a tensor, which would end a recording
    if divisor == 0 if isinstance(divisor, INTEGERS) else bool(eq(divisor, 0).any()):
        raise ZeroDivisionError(f"{name} of integers by zero")
    return binary(kernel, a.to(int64), b.to(int64), int64)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """The quotient rounded down. Exact for integers. Raises ZeroDivisionError if integers are divided by 0."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer_division(elementwise_kernels.floordiv_int, "floor_divide", a, b, other)
    return attach(binary(elementwise_kernels.floor_quotient, a, b), flat_rule, (a, b), context=(a.sizes, b.sizes))


def _trunc_divide(input: Operand, other: Operand) -> Tensor:
    """The quotient rounded towards 0. Exact for integers. Raises ZeroDivisionError if integers are divided by 0."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer_division(elementwise_kernels.truncdiv_int, "division", a, b, other)
    with no_grad():
        out = trunc(a / b)
    return attach(out, flat_rule, (a, b), context=(a.sizes, b.sizes))


def _remainder_gradient(divide: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    """The gradient rule of a - divide(a, b) * b, where the quotient is piecewise constant."""

    def rule(g: Tensor, node: Node) -> Gradients:
        a, b = node.saved
        shape_a, shape_b = node.context
        return fit(g, shape_a) if node.wants(0) else None, fit(-g * divide(a, b), shape_b) if node.wants(1) else None

    return rule


_floored_rule = _remainder_gradient(floor_divide)
_truncated_rule = _remainder_gradient(_trunc_divide)


def remainder(input: Operand, other: Operand) -> Tensor:
    """input % other as in Python: the result has the sign of ``other``. Raises ZeroDivisionError if integers are divided by 0."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer_division(elementwise_kernels.remainder_int, "remainder", a, b, other)
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.remainder, a, b), _floored_rule, (a, b), saved, (a.sizes, b.sizes))


def fmod(input: Operand, other: Operand) -> Tensor:
    """The remainder as in C: the result has the sign of ``input``. Raises ZeroDivisionError if integers are divided by 0."""
    a, b = promote(input, other)
    if a.dtype is not float32:
        return _integer_division(elementwise_kernels.fmod_int, "fmod", a, b, other)
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.fmod, a, b), _truncated_rule, (a, b), saved, (a.sizes, b.sizes))


def _atan2_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    distance = a * a + b * b
    inverse = where(eq(distance, 0.0), constant(0.0), 1.0 / distance)  # the gradient at the origin is 0
    return fit(g * b * inverse, shape_a) if node.wants(0) else None, fit(g * -a * inverse, shape_b) if node.wants(1) else None


def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle of the point (x, y) = (other, input) in radians, from -pi to pi."""
    a, b = _floats(input, other)
    return attach(binary(elementwise_kernels.atan2, a, b), _atan2_rule, (a, b), (a, b), (a.sizes, b.sizes))


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where input is below 0, 1 where it is above 0, ``values`` where it is 0. The result has no gradient.

    Raises DtypeError if the two dtypes differ.
    """
    if input.dtype is not values.dtype:
        raise DtypeError(f"heaviside takes two tensors of one dtype, got {input.dtype.name} and {values.dtype.name}")
    if input.dtype is not float32:
        return where(eq(input, 0), values, gt(input, 0).to(input.dtype))
    return binary(elementwise_kernels.heaviside, input, values)


def _logaddexp_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / (1.0 + exp(b - a)), shape_a) if node.wants(0) else None,
        fit(g / (1.0 + exp(a - b)), shape_b) if node.wants(1) else None,
    )


def logaddexp(input: Operand, other: Operand) -> Tensor:
    """log(exp(input) + exp(other)) without overflow."""
    a, b = _floats(input, other)
    return attach(binary(elementwise_kernels.logaddexp, a, b), _logaddexp_rule, (a, b), (a, b), (a.sizes, b.sizes))


def logaddexp2(input: Operand, other: Operand) -> Tensor:
    """log2(2^input + 2^other) without overflow."""
    a, b = _floats(input, other)
    return logaddexp(a * math.log(2.0), b * math.log(2.0)) / math.log(2.0)


def _hypot_rule(g: Tensor, node: Node) -> Gradients:
    a, b, out = node.saved
    shape_a, shape_b = node.context
    return fit(g * (a / out), shape_a) if node.wants(0) else None, fit(g * (b / out), shape_b) if node.wants(1) else None


def hypot(input: Operand, other: Operand) -> Tensor:
    """sqrt(input^2 + other^2), without overflow of the squares."""
    a, b = _floats(input, other)
    out = binary(elementwise_kernels.hypot, a, b)
    saved = (a if a.requires_grad else None, b if b.requires_grad else None, out)
    return attach(out, _hypot_rule, (a, b), saved, (a.sizes, b.sizes))


def _logit_rule(g: Tensor, node: Node) -> Gradients:
    (x,) = node.saved
    eps = node.context
    low = 0.0 if eps is None else eps
    outside = math.nan if eps is None else 0.0
    if not modes.grad:
        return elementwise(elementwise_kernels.logit_backward, (g, x, constant(low), constant(outside)), float32)
    inside = logical_and(ge(x, low), le(x, 1.0 - low))
    return where(inside, g / (x * (1.0 - x)), constant(outside))


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)). With ``eps``, input is clamped to [eps, 1 - eps] first."""
    input = as_float(input)
    with no_grad():
        inner = input if eps is None else clamp(input, eps, 1.0 - eps)
    return attach(unary(elementwise_kernels.logit, inner), _logit_rule, (input,), (input,), eps)


def _xlogy_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(where(logical_and(eq(a, 0.0), le(b, 0.0)), constant(0.0), xlogy(g, b)), shape_a)
    if node.wants(1):
        to_b = fit(g * a / b, shape_b)
    return to_a, to_b


def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), or 0 where ``input`` is 0 and ``other`` is not NaN."""
    a, b = _floats(input, other)
    return attach(binary(elementwise_kernels.xlogy, a, b), _xlogy_rule, (a, b), (a, b), (a.sizes, b.sizes))


def _copysign_rule(g: Tensor, node: Node) -> Gradients:
    a, out = node.saved
    shape_a, shape_b = node.context
    to_a = None
    if node.wants(0):
        ratio = where(eq(a, 0.0), constant(0.0), out / a)
        to_a = fit(g * ratio.detach(), shape_a)
    return to_a, zero_gradient(shape_b) if node.wants(1) else None


def copysign(input: Operand, other: Operand) -> Tensor:
    """The magnitude of ``input`` with the sign of ``other``."""
    a, b = _floats(input, other)
    out = binary(elementwise_kernels.copysign, a, b)
    saved = (a, out) if a.requires_grad else (None, None)
    return attach(out, _copysign_rule, (a, b), saved, (a.sizes, b.sizes))


def _choice(kernel: Primitive, keeps: Binary, otherwise: Binary) -> Binary:
    """An extreme that ignores NaN. ``otherwise`` is the extreme for integers.

    ``keeps(a, b)`` holds where a is chosen, ties included: a gets the whole gradient of a tie.
    """

    def rule(g: Tensor, node: Node) -> Gradients:
        a, b = node.saved
        shape_a, shape_b = node.context
        first = logical_or(keeps(a, b), isnan(b))
        zero = constant(0.0)
        return (
            fit(where(first, g, zero), shape_a) if node.wants(0) else None,
            fit(where(first, zero, g), shape_b) if node.wants(1) else None,
        )

    rule.__name__ = f"{kernel.name}_rule"

    def apply(input: Operand, other: Operand) -> Tensor:
        a, b = promote(input, other)
        if a.dtype is not float32:
            return otherwise(a, b)
        return attach(binary(kernel, a, b), rule, (a, b), (a, b), (a.sizes, b.sizes))

    apply.__name__ = apply.__qualname__ = kernel.name
    apply.__doc__ = (
        f"`{otherwise.__name__}` that ignores NaN: NaN only where both are NaN. ``input`` gets the gradient of a tie."
    )
    return apply


fmax = _choice(elementwise_kernels.fmax, ge, maximum)
fmin = _choice(elementwise_kernels.fmin, le, minimum)


def _addcmul_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    (shape, shape_a, shape_b), value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (b * value), shape_a) if node.wants(1) else None,
        fit(g * (a * value), shape_b) if node.wants(2) else None,
    )


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    with no_grad():
        out = input + (tensor1 if value == 1 else tensor1 * value) * tensor2
    shapes = (input.sizes, tensor1.sizes, tensor2.sizes)
    saved = (tensor1 if tensor2.requires_grad else None, tensor2 if tensor1.requires_grad else None)
    return attach(out, _addcmul_rule, (input, tensor1, tensor2), saved, (shapes, value))


def _addcdiv_rule(g: Tensor, node: Node) -> Gradients:
    a, b = node.saved
    (shape, shape_a, shape_b), value = node.context
    return (
        fit(g, shape) if node.wants(0) else None,
        fit(g * (value / b), shape_a) if node.wants(1) else None,
        fit(-g * (a * value) / (b * b), shape_b) if node.wants(2) else None,
    )


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """input + value * tensor1 / tensor2. Raises DtypeError if input is not float32."""
    if input.dtype is not float32:
        raise DtypeError(f"addcdiv takes float32, got {input.dtype.name}: convert with .float() first")
    with no_grad():
        out = input + (tensor1 if value == 1 else tensor1 * value) / tensor2
    shapes = (input.sizes, tensor1.sizes, tensor2.sizes)
    divided = tensor1.requires_grad or tensor2.requires_grad
    saved = (tensor1 if tensor2.requires_grad else None, tensor2 if divided else None)
    return attach(out, _addcdiv_rule, (input, tensor1, tensor2), saved, (shapes, value))


def _lerp_rule(g: Tensor, node: Node) -> Gradients:
    weight, shape_start, shape_end = node.context
    return (
        fit(g * (1.0 - weight), shape_start) if node.wants(0) else None,
        fit(g * weight, shape_end) if node.wants(1) else None,
    )


def lerp(input: Tensor, end: Tensor, weight: float | Tensor) -> Tensor:
    """input + weight * (end - input), linear interpolation with a number or a tensor as weight."""
    if isinstance(weight, Tensor):
        return _lerp_tensor(input, end, weight)
    a, b = promote(input, end)
    out = elementwise(elementwise_kernels.lerp, (a, b, constant(real(weight))), float32)
    return attach(out, _lerp_rule, (a, b), (), (weight, a.sizes, b.sizes))


def _lerp_tensor_rule(g: Tensor, node: Node) -> Gradients:
    start, end, weight = node.saved
    shape_start, shape_end, shape_weight = node.context
    return (
        fit(g * (1.0 - weight), shape_start) if node.wants(0) else None,
        fit(g * weight, shape_end) if node.wants(1) else None,
        fit(g * (end - start), shape_weight) if node.wants(2) else None,
    )


def _lerp_tensor(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    out = elementwise(elementwise_kernels.lerp, (start, end, weight), float32)
    ends = (start, end) if weight.requires_grad else (None, None)
    saved = (*ends, weight if start.requires_grad or end.requires_grad else None)
    return attach(out, _lerp_tensor_rule, (start, end, weight), saved, (start.sizes, end.sizes, weight.sizes))


def _clamp_rule(g: Tensor, node: Node) -> Gradients:
    x, low, high = node.saved
    zero = constant(0.0)
    inside = ge(x, low) if high is None else le(x, high) if low is None else logical_and(ge(x, low), le(x, high))
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


def _clamp_tensors(x: Tensor, min: Operand | None, max: Operand | None) -> Tensor:
    """`clamp` with at least one tensor as a bound. An element equal to its bound keeps the gradient."""
    with no_grad():
        out = x if min is None else maximum(x, min)
        out = out if max is None else minimum(out, max)
        if out.dtype is not float32:
            return out
        source = as_float(x)
        low = None if min is None else as_float(operand(min, x))
        high = None if max is None else as_float(operand(max, x))
    bounds = [bound for bound in (low, high) if bound is not None]
    return attach(out, _clamp_rule, (source, *bounds), (source, low, high))


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Values limited to the interval from ``min`` to ``max``, numbers or tensors. NaN stays NaN.

    The gradient is 1 inside and on the bounds, else 0. Raises ValueError if neither bound is given.
    """
    if min is None and max is None:
        raise ValueError("clamp needs a bound: give min, max or both")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return _clamp_tensors(input, min, max)
    if input.dtype is bool_:
        input = input.to(int64)
    if input.dtype is int64 and not isinstance(min, float) and not isinstance(max, float):
        input = input if min is None else maximum(input, min)
        return input if max is None else minimum(input, max)
    return clamp_between(input, -math.inf if min is None else min, math.inf if max is None else max)


def clamp_min(input: Tensor, min: Operand | None) -> Tensor:
    """`clamp` with a lower bound only."""
    return clamp(input, min, None)


def clamp_max(input: Tensor, max: Operand | None) -> Tensor:
    """`clamp` with an upper bound only."""
    return clamp(input, None, max)


# --- choice ----------------------------------------------------------------------------------------------------------


def _where_rule(g: Tensor, node: Node) -> Gradients:
    (condition,) = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(_keep(elementwise_kernels.keep_where, g, condition), shape_a)
    if node.wants(1):
        to_b = fit(_keep(elementwise_kernels.keep_where_not, g, condition), shape_b)
    return to_a, to_b


def _keep(kernel: Primitive, g: Tensor, condition: Tensor) -> Tensor:
    """The gradient where its side of a choice is taken, zeros elsewhere. ``kernel`` names the side."""
    out = binary(kernel, g, condition)
    return attach(out, lambda gg, node: fit(_keep(kernel, gg, condition), node.context), (g,), context=g.sizes)


def _is_byte(value: Operand) -> TypeGuard[int]:
    """Whether a value is an integer that a uint8 tensor can take."""
    return isinstance(value, INTEGERS) and not isinstance(value, bool)


def _as_bytes(value: Operand, other: Operand) -> Operand:
    """A Python integer beside a uint8 tensor becomes uint8: unlike arithmetic, a choice keeps the dtype.

    Raises OverflowError if the integer does not fit into uint8.
    """
    if _is_byte(value) and isinstance(other, Tensor) and other.dtype is uint8:
        check_range(value, uint8)
        return constant(value, uint8)
    return value


def _sides(a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Both sides of a choice: two uint8 tensors as they are, others in the higher of their dtypes."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype is uint8 and b.dtype is uint8:
        return a, b
    return promote(a, b)


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor: ...
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor | tuple[Tensor, ...]:
    """``input`` where the condition holds, ``other`` elsewhere. All three broadcast.

    With the condition alone, the places where it is not zero, as `nonzero` with ``as_tuple``. Raises DtypeError if the condition of a
    choice is not a bool tensor, TypeError if only one side is given.
    """
    if input is None or other is None:
        if input is not other:
            raise TypeError("where takes the condition alone, or the condition with both input and other: give both or neither")
        return condition.nonzero(as_tuple=True)
    if condition.dtype is not bool_:
        raise DtypeError(f"where takes a bool condition, got {condition.dtype.name}: compare it first, as in condition != 0")
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        input = constant(input, float32 if isinstance(input, float) else int64)  # type: ignore[arg-type]
    a, b = _sides(_as_bytes(input, other), _as_bytes(other, input))
    if a.dtype is not float32:
        kernel = elementwise_kernels.where_int if a.dtype is int64 else elementwise_kernels.where_bool
        return elementwise(kernel, (condition, a, b), a.dtype)
    out = elementwise(elementwise_kernels.where, (condition, a, b), float32)
    return attach(out, _where_rule, (a, b), (condition,), (a.sizes, b.sizes))


def _prelu_rule(g: Tensor, node: Node) -> Gradients:
    x, weight = node.saved
    return (
        _prelu_slope(g, x, weight) if node.wants(0) else None,
        # at 0 both branches give the value 0; PyTorch's second derivative is that of the upper one
        fit(where(ge(x, 0.0), constant(0.0), x * g), weight.sizes) if node.wants(1) else None,
    )


def _prelu_slope(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    with no_grad():
        result = where(gt(x, 0.0), g, weight * g)
    return attach(result, _prelu_slope_rule, (g, weight), (g, weight), x.detach())


def _prelu_slope_rule(gg: Tensor, node: Node) -> Gradients:
    g, weight = node.saved
    x = node.context
    above = ge(x, 0.0)  # at 0, PyTorch takes the second derivative from above, but the first from below
    return (
        where(above, gg, weight * gg) if node.wants(0) else None,
        fit(where(above, constant(0.0), gg * g), weight.sizes) if node.wants(1) else None,
    )


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """input above 0, weight * input below (He et al. 2015). ``weight`` has one element, or one per channel (dimension 1).

    Raises ShapeError for a weight of another size or of more than one dimension.
    """
    channels = input.sizes[1] if input.dim() > 1 else 1
    if weight.dim() > 1 or weight.numel() not in (1, channels):
        raise ShapeError(
            f"prelu takes a weight of 1 element, or of {channels} for the channels of an input of shape {list(input.sizes)}, "
            f"got a weight of shape {list(weight.sizes)}"
        )
    if weight.dim() and input.dim() != 2:
        weight = weight.reshape(-1, *[1] * (input.dim() - 2)) if input.dim() > 1 else weight.reshape((1,) * input.dim())
    with no_grad():
        out = where(gt(input, 0.0), input, weight * input)
    return attach(out, _prelu_rule, (input, weight), (input, weight))


def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """input, but ``value`` where the bool tensor ``mask``, which broadcasts, is true.

    Raises ShapeError if ``value`` is a tensor with dimensions.
    """
    require_number("masked_fill", value)
    if input.dtype is bool_ and not isinstance(value, Tensor):
        value = bool(value)
    return where(mask, value if input.dtype is uint8 and _is_byte(value) else operand(value, input), input)


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """input with NaN, inf and -inf replaced by numbers: ``nan``, ``posinf`` (by default the largest float32) and ``neginf``."""
    if input.dtype is not float32:
        return clone(input)
    largest = float(np.finfo(np.float32).max)
    low = -largest if neginf is None else neginf
    high = largest if posinf is None else posinf
    input = where(isnan(input), constant(nan), input)
    return where(eq(input, math.inf), constant(high), where(eq(input, -math.inf), constant(low), input))
