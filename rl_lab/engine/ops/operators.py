"""Writing in place, and the operators and elementwise methods of Tensor."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.ops.arithmetic import (
    add,
    addcdiv,
    addcmul,
    atan2,
    clamp,
    clamp_max,
    clamp_min,
    div,
    floor_divide,
    fmod,
    heaviside,
    hypot,
    lerp,
    logaddexp,
    logit,
    masked_fill,
    maximum,
    minimum,
    mul,
    nan_to_num,
    power,
    remainder,
    sub,
    where,
    xlogy,
)
from rl_lab.engine.ops.comparison import (
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    equal,
    ge,
    gt,
    isclose,
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
from rl_lab.engine.ops.elementwise import (
    absolute,
    acos,
    asin,
    atan,
    ceil,
    cos,
    cosh,
    digamma,
    erf,
    exp,
    exp2,
    expm1,
    floor,
    frac,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    neg,
    reciprocal,
    relu,
    round,
    rsqrt,
    sech,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    tan,
    tanh,
    trunc,
)
from rl_lab.engine.ops.layout import copy_
from rl_lab.engine.ops.operands import elementwise_into, operand
from rl_lab.engine.tape import modes
from rl_lab.engine.tensor import TensorCore, check_writable
from rl_lab.native.primitive import Primitive

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor

# --- in place --------------------------------------------------------------------------------------------------------


def write_in_place(target: Any, compute: Callable[[Any], Any], kernel: Primitive | None = None, operands: tuple = ()) -> Any:
    """target[...] = compute(target), on the tape if recording is on.

    Without the tape, ``kernel`` over the target and one operand writes straight into a contiguous target of the same shape.
    """
    check_writable(target)
    tracked = modes.grad and (target.requires_grad or any(isinstance(x, TensorCore) and x.requires_grad for x in operands))
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
    copy_(target, value, from_target=True)
    if value.node is not None and value.node.own >= 0:
        value.node.move_own(target)
    return target


def _in_place(function: Any, kernel: Primitive | None = None) -> Any:
    def method(self, *operands, **options):
        direct = None if options or self.dtype is not float32 else kernel
        given = (*operands, *options.values()) if options else operands
        return write_in_place(self, lambda x: function(x, *operands, **options), direct, given)

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

    lgamma, digamma = map(_method, (lgamma, digamma))
    neg, sign, exp, expm1, log, log1p, log2 = map(_method, (neg, sign, exp, expm1, log, log1p, log2))
    sqrt, rsqrt, square, reciprocal, sin, cos = map(_method, (sqrt, rsqrt, square, reciprocal, sin, cos))
    tan, asin, acos, atan, sinh, cosh, sech = map(_method, (tan, asin, acos, atan, sinh, cosh, sech))
    tanh, sigmoid, relu, erf = map(_method, (tanh, sigmoid, relu, erf))
    floor, ceil, round, trunc, frac = map(_method, (floor, ceil, round, trunc, frac))
    abs = absolute = __abs__ = _method(absolute)
    fix, negative, arcsin, arccos, arctan = trunc, neg, asin, acos, atan
    __neg__ = _method(neg)
    add, sub, mul, div, pow = map(_method, (add, sub, mul, div, power))
    subtract, multiply, divide, true_divide = sub, mul, div, div
    atan2, fmod, heaviside, logaddexp, xlogy = map(_method, (atan2, fmod, heaviside, logaddexp, xlogy))
    addcmul, addcdiv, nan_to_num, masked_fill = map(_method, (addcmul, addcdiv, nan_to_num, masked_fill))
    maximum, minimum, remainder, floor_divide, lerp = map(_method, (maximum, minimum, remainder, floor_divide, lerp))
    clamp = clip = _method(clamp)
    hypot, logit, exp2, log10 = map(_method, (hypot, logit, exp2, log10))
    isclose, allclose, equal = map(_method, (isclose, allclose, equal))
    bitwise_and, bitwise_or, bitwise_xor, bitwise_not = map(_method, (bitwise_and, bitwise_or, bitwise_xor, bitwise_not))
    eq, ne, lt, le, gt, ge = map(_method, (eq, ne, lt, le, gt, ge))
    logical_and, logical_or, logical_xor, logical_not = map(_method, (logical_and, logical_or, logical_xor, logical_not))
    isnan, isinf, isfinite = map(_method, (isnan, isinf, isfinite))

    def where(self, condition: Any, other: Any) -> "Tensor":
        """This tensor where the condition holds, ``other`` elsewhere."""
        return where(condition, self, other)

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

    add_ = __iadd__ = _in_place(add, elementwise_kernels.add_into)
    sub_ = __isub__ = _in_place(sub, elementwise_kernels.sub_into)
    mul_ = __imul__ = _in_place(mul, elementwise_kernels.mul_into)
    div_ = __itruediv__ = _in_place(div, elementwise_kernels.div_into)
    multiply_, divide_, subtract_ = mul_, div_, sub_
    pow_, lerp_, clamp_, remainder_, fmod_, atan2_ = map(_in_place, (power, lerp, clamp, remainder, fmod, atan2))
    __ipow__, __imod__, __ifloordiv__ = pow_, remainder_, _in_place(floor_divide)
    floor_divide_, addcmul_, addcdiv_, nan_to_num_ = map(_in_place, (floor_divide, addcmul, addcdiv, nan_to_num))
    neg_, abs_, sign_, exp_, expm1_, log_, log1p_, log2_ = map(_in_place, (neg, absolute, sign, exp, expm1, log, log1p, log2))
    sqrt_, rsqrt_, square_, reciprocal_, sin_, cos_ = map(_in_place, (sqrt, rsqrt, square, reciprocal, sin, cos))
    tan_, asin_, acos_, atan_, sinh_, cosh_ = map(_in_place, (tan, asin, acos, atan, sinh, cosh))
    tanh_, sigmoid_, relu_, erf_ = map(_in_place, (tanh, sigmoid, relu, erf))
    floor_, ceil_, round_, trunc_, frac_ = map(_in_place, (floor, ceil, round, trunc, frac))
    clip_ = clamp_

    clamp_min, clamp_max = _method(clamp_min), _method(clamp_max)

    def clamp_min_(self, min: Any) -> "Tensor":
        return self.clamp_(min=min)

    def clamp_max_(self, max: Any) -> "Tensor":
        return self.clamp_(max=max)

    def fill_(self, value: float) -> "Tensor":
        """Every element becomes ``value``."""
        return copy_(self, operand(value, self), overlap=True)  # type: ignore[arg-type]

    def zero_(self) -> "Tensor":
        return self.fill_(0.0 if self.dtype is float32 else 0)  # type: ignore[attr-defined]

    def masked_fill_(self, mask: Any, value: float) -> "Tensor":
        return write_in_place(self, lambda x: x.masked_fill(mask, value))


_OPERANDS = (TensorCore, int, float, np.number, np.ndarray)
