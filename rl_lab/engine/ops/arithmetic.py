"""Functions of two tensors that broadcast, element by element, and choices. Each stands beside its gradient rule."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.ops.comparison import eq, ge, gt, isnan, logical_and, logical_or, lt
from rl_lab.engine.ops.elementwise import absolute, clamp_between, floor, log, softplus_plain, square, trunc
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, fit, operand, promote
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
            return trunc(div(a, b))
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


def power(a: Any, b: Any) -> Tensor:
    """a ** b."""
    if type(b) in (int, float) and b in (1, 2) and isinstance(a, TensorCore) and a.dtype is float32:
        return square(a) if b == 2 else mul(a, 1.0)
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


def floor_divide(a: Any, b: Any) -> Tensor:
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "floor_divide")
        return _integer(elementwise_kernels.floordiv_int, a.to(int64), b.to(int64))
    return floor(div(a, b))


def _remainder_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g, shape_a) if node.wants(0) else None, fit(-g * floor(a / b), shape_b) if node.wants(1) else None


def remainder(a: Any, b: Any) -> Tensor:
    """Python's a % b: the result has the sign of b."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "remainder")
        return _integer(elementwise_kernels.remainder_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.remainder, a, b), _remainder_rule, (a, b), saved, (a.shape, b.shape))


def _fmod_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g, shape_a) if node.wants(0) else None, fit(-g * trunc(a / b), shape_b) if node.wants(1) else None


def fmod(a: Any, b: Any) -> Tensor:
    """C's remainder: the result has the sign of a."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "fmod")
        return _integer(elementwise_kernels.fmod_int, a.to(int64), b.to(int64))
    saved = (a if b.requires_grad else None, b if b.requires_grad else None)
    return attach(binary(elementwise_kernels.fmod, a, b), _fmod_rule, (a, b), saved, (a.shape, b.shape))


def _atan2_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    scaled = g / (a * a + b * b)
    return fit(scaled * b, shape_a) if node.wants(0) else None, fit(-scaled * a, shape_b) if node.wants(1) else None


def atan2(a: Any, b: Any) -> Tensor:
    """The angle of the point (b, a)."""
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    return attach(binary(elementwise_kernels.atan2, a, b), _atan2_rule, (a, b), (a, b), (a.shape, b.shape))


def heaviside(x: Any, values: Any) -> Tensor:
    """0 below 0, 1 above, ``values`` at 0. No gradient."""
    return binary(elementwise_kernels.heaviside, as_float(x), as_float(values))


def logaddexp(a: Any, b: Any) -> Tensor:
    """log(exp(a) + exp(b)) without overflow, for finite numbers."""
    return maximum(a, b) + softplus_plain(-absolute(a - b))


def hypot(a: Any, b: Any) -> Tensor:
    """sqrt(a^2 + b^2)."""
    return (a * a + b * b).sqrt()


def logit(x: Any, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x cut off at eps and 1 - eps if given."""
    x = x if eps is None else clamp(x, eps, 1.0 - eps)
    return log(x / (1.0 - x))


def xlogy(a: Any, b: Any) -> Tensor:
    """a * log(b), and 0 where a is 0."""
    a, b = promote(a, b)
    zero = eq(a, 0.0)
    return where(zero, constant(0.0), a * log(where(zero, constant(1.0), b)))


def addcmul(x: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value * tensor1 * tensor2."""
    return x + tensor1 * tensor2 * value if value != 1 else x + tensor1 * tensor2


def addcdiv(x: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value * tensor1 / tensor2."""
    return x + tensor1 / tensor2 * value if value != 1 else x + tensor1 / tensor2


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
        return start + (end - start) * weight
    start, end = promote(start, end)
    with no_grad():
        out = start + (end - start) * weight
    return attach(out, _lerp_rule, (start, end), (), (weight, start.shape, end.shape))


def clamp(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values cut off at the bounds, which are numbers or tensors; NaN stays, and the gradient at a bound is 1."""
    if min is None and max is None:
        raise ValueError("clamp needs min or max")
    if isinstance(min, TensorCore) or isinstance(max, TensorCore):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
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


def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    """``value`` where the mask is true."""
    return where(mask, operand(value, x), x)


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Numbers in place of NaN and the infinities (by default the largest and smallest of float32)."""
    largest = float(np.finfo(np.float32).max)
    low, high = -largest if neginf is None else neginf, largest if posinf is None else posinf
    x = where(isnan(x), constant(nan), x)
    return where(eq(x, math.inf), constant(high), where(eq(x, -math.inf), constant(low), x))
