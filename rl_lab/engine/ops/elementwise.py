"""Elementwise operations: arithmetic, functions, comparisons. Each stands beside its gradient rule.

A rule is written in differentiable operations, so that second derivatives work. Where a kernel of its own computes the same
gradient in one launch, the plain backward uses that.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError, StateError
from rl_lab.engine.kernels import elementwise as kernels
from rl_lab.engine.ops.comparison import (
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, elementwise_into, fit, operand, promote, unary
from rl_lab.engine.primitive import Primitive
from rl_lab.engine.tape import attach, modes
from rl_lab.engine.tensor import TensorCore, check_writable

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

# --- functions of one argument ---------------------------------------------------------------------------------------


class Unary:
    """A function of one float32 tensor.

    ``saves`` names what its gradient needs: the input ``x``, the output ``y`` or nothing. ``rule(g, s)`` is the gradient in
    differentiable operations; ``fast``, a kernel of (g, s), computes the same in one launch.
    """

    def __init__(
        self, kernel: Primitive, saves: str, rule: Callable, fast: Primitive | None = None, integer: Primitive | None = None
    ):
        self.__name__ = kernel.name
        self.kernel, self.saves, self.integer = kernel, saves, integer

        def gradient_rule(g, node):
            (saved,) = node.saved or (None,)
            if fast is not None and not modes.grad:
                return binary(fast, g, saved)
            return rule(g, saved)

        gradient_rule.__name__ = f"{kernel.name}_rule"
        self.rule = gradient_rule

    def __call__(self, x: Any) -> "Tensor":
        if x.dtype is not float32:
            if self.integer is not None and x.dtype is int64:
                return elementwise(self.integer, (x,), int64)
            x = x.to(float32)
        y = unary(self.kernel, x)
        if modes.grad and x.needs_grad:
            attach(y, self.rule, (x,), (x,) if self.saves == "x" else (y,) if self.saves == "y" else ())
        return y


def _zero(g: Any, s: Any) -> Any:
    return g * 0.0


neg = Unary(kernels.neg, "", lambda g, s: -g, integer=kernels.neg_int)
absolute = Unary(kernels.absolute, "x", lambda g, x: g * sign(x), kernels.absolute_backward, kernels.absolute_int)
sign = Unary(kernels.sign, "", _zero, integer=kernels.sign_int)
exp = Unary(kernels.exp, "y", lambda g, y: g * y)
expm1 = Unary(kernels.expm1, "y", lambda g, y: g * (y + 1.0))
log = Unary(kernels.log, "x", lambda g, x: g / x)
log1p = Unary(kernels.log1p, "x", lambda g, x: g / (x + 1.0))
log2 = Unary(kernels.log2, "x", lambda g, x: g / (x * math.log(2.0)))
sqrt = Unary(kernels.sqrt, "y", lambda g, y: g / (y * 2.0))
rsqrt = Unary(kernels.rsqrt, "y", lambda g, y: g * (y * y * y) * -0.5)
square = Unary(kernels.square, "x", lambda g, x: g * (x * 2.0))
reciprocal = Unary(kernels.reciprocal, "y", lambda g, y: -g * (y * y))
sin = Unary(kernels.sin, "x", lambda g, x: g * cos(x))
cos = Unary(kernels.cos, "x", lambda g, x: -g * sin(x))
tanh = Unary(kernels.tanh, "y", lambda g, y: g * (1.0 - y * y), kernels.tanh_backward)
sigmoid = Unary(kernels.sigmoid, "y", lambda g, y: g * (1.0 - y) * y, kernels.sigmoid_backward)
relu = Unary(kernels.relu, "y", lambda g, y: _relu_slope(g, y), kernels.relu_backward)
softplus = Unary(kernels.softplus, "x", lambda g, x: g * sigmoid(x))
erf = Unary(kernels.erf, "x", lambda g, x: g * exp(-(x * x)) * (2.0 / math.sqrt(math.pi)))
floor = Unary(kernels.floor, "", _zero)
ceil = Unary(kernels.ceil, "", _zero)
round = Unary(kernels.rint, "", _zero)


def _relu_slope(g: Any, y: Any) -> Any:
    """g where y > 0; the choice itself has no derivative."""
    result = binary(kernels.relu_backward, g, y)

    def rule(gg, node):
        return _relu_slope(gg, node.context)

    return attach(result, rule, (g,), context=y.detach())


def logsigmoid(x: Any) -> "Tensor":
    """log(1 / (1 + exp(-x))), exact for large negative x."""
    return -softplus(-x)


def silu(x: Any) -> "Tensor":
    return x * sigmoid(x)


def gelu(x: Any, approximate: str = "none") -> "Tensor":
    """x times the normal distribution function at x (Hendrycks and Gimpel 2016); ``approximate`` 'none' or 'tanh'."""
    if approximate == "tanh":
        return x * 0.5 * (tanh((x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0)
    if approximate != "none":
        raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
    return x * 0.5 * (erf(x * math.sqrt(0.5)) + 1.0)


# --- functions with fixed parameters: the parameters are constants, the gradient goes to x only -----------------------


def _with_parameters(name: str, forward: Primitive, backward: Primitive, differentiable: Callable | None = None) -> Callable:
    """``differentiable(g, x, *parameters)`` is the gradient in differentiable operations, where its slope depends on x."""

    def slope(g: Any, x: Any, parameters: tuple) -> Any:
        result = elementwise(backward, (g, x, *parameters), float32)
        return attach(result, slope_rule, (g,), context=(x.detach(), parameters))

    def slope_rule(gg, node):
        return slope(gg, *node.context)

    def rule(g, node):
        (x,) = node.saved
        if differentiable is not None and modes.grad:
            return differentiable(g, x, *node.context)
        return slope(g, x, node.context)

    rule.__name__, slope_rule.__name__ = f"{name}_rule", f"{name}_slope_rule"

    def apply(x: Any, *values: float) -> Any:
        x = as_float(x)
        parameters = tuple([constant(float(v)) for v in values])
        return attach(elementwise(forward, (x, *parameters), float32), rule, (x,), (x,), parameters)

    return apply


_clamp = _with_parameters("clamp", kernels.clamp, kernels.clamp_backward)
_leaky_relu = _with_parameters("leaky_relu", kernels.leaky_relu, kernels.leaky_relu_backward)
_smooth_l1 = _with_parameters(
    "smooth_l1", kernels.smooth_l1, kernels.smooth_l1_backward, lambda g, x, beta: g * _clamp(x / beta, -1.0, 1.0)
)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> "Tensor":
    return _leaky_relu(x, negative_slope)


def smooth_l1(difference: Any, beta: float = 1.0) -> "Tensor":
    """Huber's loss of a difference divided by beta: x^2 / (2 beta) below beta, |x| - beta / 2 above (Girshick 2015)."""
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    return absolute(difference) if beta == 0 else _smooth_l1(difference, beta)


def clamp(x: Any, min: Any = None, max: Any = None) -> "Tensor":
    """Values cut off at the bounds, which are numbers or tensors; NaN stays, and the gradient at a bound is 1."""
    if min is None and max is None:
        raise ValueError("clamp needs min or max")
    if isinstance(min, TensorCore) or isinstance(max, TensorCore):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    if x.dtype is int64 and not isinstance(min, float) and not isinstance(max, float):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    return _clamp(x, -math.inf if min is None else min, math.inf if max is None else max)


# --- functions of two arguments --------------------------------------------------------------------------------------


def _add_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(g, b) if node.wants(1) else None


def add(a: Any, b: Any, *, alpha: float = 1) -> "Tensor":
    """a + alpha * b."""
    if alpha != 1:
        b = mul(b, alpha) if isinstance(b, TensorCore) else b * alpha
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(kernels.add_int, a, b) if a.dtype is int64 else logical_or(a, b)
    out = binary(kernels.add, a, b)
    return attach(out, _add_rule, (a, b), context=(a.shape, b.shape)) if modes.grad else out


def _sub_rule(g, node):
    a, b = node.context
    return fit(g, a) if node.wants(0) else None, fit(-g, b) if node.wants(1) else None


def sub(a: Any, b: Any, *, alpha: float = 1) -> "Tensor":
    """a - alpha * b."""
    if alpha != 1:
        b = mul(b, alpha) if isinstance(b, TensorCore) else b * alpha
    a, b = promote(a, b)
    if a.dtype is not float32:
        if a.dtype is bool_:
            raise DtypeError("subtraction of two bool tensors is not supported: use logical_xor or ~")
        return _integer(kernels.sub_int, a, b)
    out = binary(kernels.sub, a, b)
    return attach(out, _sub_rule, (a, b), context=(a.shape, b.shape)) if modes.grad else out


def _mul_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g * b, shape_a) if node.wants(0) else None, fit(g * a, shape_b) if node.wants(1) else None


def mul(a: Any, b: Any) -> "Tensor":
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(kernels.mul_int, a, b) if a.dtype is int64 else logical_and(a, b)
    out = binary(kernels.mul, a, b)
    if modes.grad and (a.needs_grad or b.needs_grad):
        saved = (a if b.needs_grad else None, b if a.needs_grad else None)
        attach(out, _mul_rule, (a, b), saved, (a.shape, b.shape))
    return out


def _div_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return (
        fit(g / b, shape_a) if node.wants(0) else None,
        fit(-g * ((a / b) / b), shape_b) if node.wants(1) else None,
    )


def div(a: Any, b: Any, *, rounding_mode: str | None = None) -> "Tensor":
    """a / b in float32; ``rounding_mode`` 'floor' or 'trunc' rounds the quotient."""
    if rounding_mode is not None:
        if rounding_mode == "floor":
            return floor_divide(a, b)
        if rounding_mode == "trunc":
            quotient = div(a, b)
            return sign(quotient) * floor(absolute(quotient))
        raise ValueError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    a, b = promote(a, b)
    a, b = as_float(a), as_float(b)
    out = binary(kernels.div, a, b)
    if modes.grad and (a.needs_grad or b.needs_grad):
        attach(out, _div_rule, (a, b), (a if b.needs_grad else None, b), (a.shape, b.shape))
    return out


def _power_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        # b * a**(b - 1) is 0 * inf at a = 0, b = 0, where the power does not depend on a
        to_a = fit(where(eq(b, 0.0), constant(0.0), g * (b * power(a, b - 1.0))), shape_a)
    if node.wants(1):
        # at a = 0 the power is flat in b for b >= 0, but log(0) * 0 would be NaN
        flat = logical_and(eq(a, 0.0), ge(b, 0.0))
        to_b = fit(where(flat, constant(0.0), g * (power(a, b) * log(a))), shape_b)
    return to_a, to_b


def power(a: Any, b: Any) -> "Tensor":
    """a ** b."""
    if type(b) in (int, float) and b in (1, 2) and isinstance(a, TensorCore) and a.dtype is float32:
        return square(a) if b == 2 else mul(a, 1.0)
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(kernels.power_int, a.to(int64), b.to(int64))
    out = binary(kernels.power, a, b)
    return attach(out, _power_rule, (a, b), (a, b), (a.shape, b.shape))


def _tied(winner: Callable) -> Callable:
    def rule(g, node):
        a, b = node.saved
        shape_a, shape_b = node.context
        half = where(eq(a, b), constant(0.5), constant(1.0)) * g
        from_a = logical_or(winner(a, b), isnan(a))
        zero = constant(0.0)
        return (
            fit(where(logical_or(from_a, eq(a, b)), half, zero), shape_a) if node.wants(0) else None,
            fit(where(from_a, zero, half), shape_b) if node.wants(1) else None,
        )

    return rule


_maximum_rule, _minimum_rule = _tied(lambda a, b: gt(a, b)), _tied(lambda a, b: lt(a, b))


def maximum(a: Any, b: Any) -> "Tensor":
    """The larger of two; NaN wins, and a tie splits the gradient evenly."""
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(kernels.maximum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(kernels.maximum, a, b), _maximum_rule, (a, b), (a, b), (a.shape, b.shape))


def minimum(a: Any, b: Any) -> "Tensor":
    """The smaller of two; NaN wins, and a tie splits the gradient evenly."""
    a, b = promote(a, b)
    if a.dtype is not float32:
        return _integer(kernels.minimum_int, a.to(int64), b.to(int64)).to(a.dtype)
    return attach(binary(kernels.minimum, a, b), _minimum_rule, (a, b), (a, b), (a.shape, b.shape))


def _no_zero(divisor: Any, name: str) -> None:
    """Integers have no infinity: raise before the launch. A number in the code is checked without reading a tensor."""
    if divisor == 0 if isinstance(divisor, (int, np.integer)) else bool(eq(divisor, 0).any()):
        raise ZeroDivisionError(f"{name} of integers by zero")


def floor_divide(a: Any, b: Any) -> "Tensor":
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "floor_divide")
        return _integer(kernels.floordiv_int, a.to(int64), b.to(int64))
    return floor(div(a, b))


def _remainder_rule(g, node):
    a, b = node.saved
    shape_a, shape_b = node.context
    return fit(g, shape_a) if node.wants(0) else None, fit(-g * floor(a / b), shape_b) if node.wants(1) else None


def remainder(a: Any, b: Any) -> "Tensor":
    """Python's a % b: the result has the sign of b."""
    divisor = b
    a, b = promote(a, b)
    if a.dtype is not float32:
        _no_zero(divisor, "remainder")
        return _integer(kernels.remainder_int, a.to(int64), b.to(int64))
    saved = (a if b.needs_grad else None, b if b.needs_grad else None)
    return attach(binary(kernels.remainder, a, b), _remainder_rule, (a, b), saved, (a.shape, b.shape))


def _integer(kernel: Primitive, a: Any, b: Any) -> "Tensor":
    return binary(kernel, a, b, int64)


def lerp(start: Any, end: Any, weight: Any) -> "Tensor":
    """start + weight * (end - start)."""
    return start + (end - start) * weight


# --- choice ----------------------------------------------------------------------------------------------------------


def _where_rule(g, node):
    condition, shape_a, shape_b = node.context
    to_a = to_b = None
    if node.wants(0):
        to_a = fit(_keep(kernels.keep_where, g, condition), shape_a)
    if node.wants(1):
        to_b = fit(_keep(kernels.keep_where_not, g, condition), shape_b)
    return to_a, to_b


def _keep(kernel: Primitive, g: Any, condition: Any) -> Any:
    """The gradient on one side of a choice, zero on the other."""
    out = binary(kernel, g, condition)
    return attach(out, lambda gg, node: fit(_keep(kernel, gg, condition), node.context), (g,), context=g.shape)


def where(condition: Any, a: Any, b: Any) -> "Tensor":
    """``a`` where the condition holds, ``b`` elsewhere; all three broadcast."""
    if condition.dtype is not bool_:
        raise DtypeError(f"where takes a bool condition, got {condition.dtype.name}")
    if not isinstance(a, TensorCore) and not isinstance(b, TensorCore):
        a = constant(a, float32 if isinstance(a, float) else int64)
    a, b = promote(a, b)
    if a.dtype is not float32:
        kernel = kernels.where_int if a.dtype is int64 else kernels.where_bool
        return elementwise(kernel, (condition, a, b), a.dtype)
    out = elementwise(kernels.where, (condition, a, b), float32)
    return attach(out, _where_rule, (a, b), context=(condition, a.shape, b.shape))


# --- in place --------------------------------------------------------------------------------------------------------


def write_in_place(target: Any, compute: Callable[[Any], Any], kernel: Primitive | None = None, operands: tuple = ()) -> Any:
    """target[...] = compute(target), on the tape if recording is on.

    Without the tape, ``kernel`` over the target and one operand writes straight into a contiguous target of the same shape.
    """
    check_writable(target)
    tracked = modes.grad and (target.requires_grad or any(isinstance(x, TensorCore) and x.needs_grad for x in operands))
    if not tracked and kernel is not None and target.dtype is float32 and target.strides is None:
        others = tuple([operand(x, target) for x in operands])
        if all(
            x.dtype is float32
            and (x.shape == target.shape or (x.numel() == 1 and x.dim() <= target.dim()))
            and (x.storage.address != target.storage.address or (x.address == target.address and x.strides is None))
            for x in others
        ):
            elementwise_into(kernel, target, *others)
            target.storage.version += 1
            return target
    if not tracked:
        with tape.no_grad():
            return _store(target, compute(target))
    return _store(target, compute(target.clone()))


def _store(target: Any, value: Any) -> Any:
    if value.shape != target.shape:
        raise ShapeError(f"the result of shape {list(value.shape)} does not fit into the tensor of shape {list(target.shape)}")
    if value.dtype.rank > target.dtype.rank:
        raise StateError(f"the result is {value.dtype.name} and cannot be stored in a {target.dtype.name} tensor")
    return target.copy_(value)


def _in_place(function: Any, kernel: Primitive | None = None) -> Any:
    def method(self, *operands, **options):
        direct = None if options or self.dtype is not float32 else kernel
        return write_in_place(self, lambda x: function(x, *operands, **options), direct, operands if direct else ())

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"`{function.__name__}`, written into this tensor."
    return method


def _method(function: Any) -> Any:
    def method(self, *arguments, **options):
        return function(self, *arguments, **options)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


class ElementwiseMethods:
    """The methods and operators of Tensor that work element by element."""

    __slots__ = ()

    neg, sign, exp, expm1, log, log1p, log2 = map(_method, (neg, sign, exp, expm1, log, log1p, log2))
    sqrt, rsqrt, square, reciprocal, sin, cos = map(_method, (sqrt, rsqrt, square, reciprocal, sin, cos))
    tanh, sigmoid, relu, erf = map(_method, (tanh, sigmoid, relu, erf))
    floor, ceil, round = map(_method, (floor, ceil, round))
    abs = __abs__ = _method(absolute)
    __neg__ = _method(neg)
    add, sub, mul, div, pow = map(_method, (add, sub, mul, div, power))
    maximum, minimum, remainder, floor_divide, lerp = map(_method, (maximum, minimum, remainder, floor_divide, lerp))
    clamp = clip = _method(clamp)
    eq, ne, lt, le, gt, ge = map(_method, (eq, ne, lt, le, gt, ge))
    logical_and, logical_or, logical_xor, logical_not = map(_method, (logical_and, logical_or, logical_xor, logical_not))
    isnan, isinf, isfinite = map(_method, (isnan, isinf, isfinite))

    def where(self, condition: Any, other: Any) -> "Tensor":
        """This tensor where the condition holds, ``other`` elsewhere."""
        return where(condition, self, other)

    def masked_fill(self, mask: Any, value: float) -> "Tensor":
        """``value`` where the mask is true."""
        return where(mask, operand(value, self), self)  # type: ignore[arg-type]

    def __add__(self, other: Any) -> "Tensor":
        return add(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __radd__(self, other: Any) -> "Tensor":
        return add(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __sub__(self, other: Any) -> "Tensor":
        return sub(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rsub__(self, other: Any) -> "Tensor":
        return sub(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __mul__(self, other: Any) -> "Tensor":
        return mul(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmul__(self, other: Any) -> "Tensor":
        return mul(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __truediv__(self, other: Any) -> "Tensor":
        return div(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rtruediv__(self, other: Any) -> "Tensor":
        return div(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __floordiv__(self, other: Any) -> "Tensor":
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> "Tensor":
        return floor_divide(other, self)

    def __mod__(self, other: Any) -> "Tensor":
        return remainder(self, other)

    def __rmod__(self, other: Any) -> "Tensor":
        return remainder(other, self)

    def __pow__(self, other: Any) -> "Tensor":
        return power(self, other)

    def __rpow__(self, other: Any) -> "Tensor":
        return power(other, self)

    def __eq__(self, other: object) -> Any:
        return eq(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return ne(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    __lt__, __le__, __gt__, __ge__ = map(_method, (lt, le, gt, ge))
    __and__, __or__, __xor__, __invert__ = map(_method, (bitwise_and, bitwise_or, bitwise_xor, bitwise_not))

    add_ = __iadd__ = _in_place(add, kernels.add_into)
    sub_ = __isub__ = _in_place(sub, kernels.sub_into)
    mul_ = __imul__ = _in_place(mul, kernels.mul_into)
    div_ = __itruediv__ = _in_place(div, kernels.div_into)
    pow_, lerp_, clamp_, neg_ = map(_in_place, (power, lerp, clamp, neg))
    relu_, tanh_, sigmoid_, exp_, sqrt_ = map(_in_place, (relu, tanh, sigmoid, exp, sqrt))
    clip_ = clamp_

    def fill_(self, value: float) -> "Tensor":
        """Every element becomes ``value``."""
        return self.copy_(operand(value, self))  # type: ignore[attr-defined, arg-type]

    def zero_(self) -> "Tensor":
        return self.fill_(0.0 if self.dtype is float32 else 0)  # type: ignore[attr-defined]

    def masked_fill_(self, mask: Any, value: float) -> "Tensor":
        return write_in_place(self, lambda x: x.masked_fill(mask, value))


_OPERANDS = (TensorCore, int, float, np.number)
