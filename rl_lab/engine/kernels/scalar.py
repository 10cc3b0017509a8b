"""Scalar functions for kernels. NaN and infinity follow IEEE 754.

exp32, exp232, relu32, sigmoid32, sech32 and tanh32 have neither branches nor calls, so LLVM turns loops over them into vector code.
A call of libm costs ten times as much per element, and one call keeps the whole loop from being vectorised.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rl_lab.engine.kernels.elementary import inlined, log1p64, sin64
from rl_lab.native.part import part

F = np.float32
I32 = np.int32
MAGNITUDE = I32(0x7FFFFFFF)
"""The bits of a float32 without its sign."""
INFINITY = I32(0x7F800000)
"""The bits of infinity. Those of NaN are larger."""


@intrinsic
def bits(_, x):
    """The int32 with the same bits as a float32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def from_bits(_, i):
    """The float32 with the same bits as an int32."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def fused(_, a, b, c):
    """a * b + c, rounded once if the processor has a fused multiply-add, else twice."""

    def build(context, builder, signature, args):
        kind = ir.FloatType()
        module = builder.module
        name = "llvm.fmuladd.f32"
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return types.float32(types.float32, types.float32, types.float32), build


_LOG2E = F(1.0 / math.log(2.0))
_LN2_HIGH = F(0.693359375)  # ln 2 in two parts: the high part has few bits, so n * _LN2_HIGH is exact
_LN2_LOW = F(math.log(2.0) - 0.693359375)
_LN2 = F(math.log(2.0))
_ROUND = F(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, which then stands in the lowest bits
# minimax polynomial of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2; its error relative to exp(r) is at most 4e-9
_E2 = F(0.4999999403953552)
_E3 = F(0.1666652113199234)
_E4 = F(0.04166838899254799)
_E5 = F(0.00836874544620514)
_E6 = F(0.0013814540579915047)
_ONE = F(1)
_HALF = F(0.5)
_TWO = F(2)
_ZERO = F(0)
_SIGN = I32(-(2**31))


@part
def _reduced(x, shifted):
    """(r, p): the remainder r = x - n ln 2, where ``shifted`` is n + _ROUND, and p with exp(r) = 1 + r + p r^2."""
    n = shifted - _ROUND
    r = fused(n, -_LN2_LOW, fused(n, -_LN2_HIGH, x))
    p = fused(_E6, r, _E5)
    p = fused(p, r, _E4)
    p = fused(p, r, _E3)
    return r, fused(p, r, _E2)


@part
def _exp_parts(x):
    """(high, low, scale1, scale2) with exp(x) = (high + low) * scale1 * scale2.

    The scale 2**n needs two factors: n reaches 128 and -151, beyond the exponents of normal float32 numbers.
    """
    x = F(89) if x > F(89) else x
    x = F(-105) if x < F(-105) else x
    shifted = fused(x, _LOG2E, _ROUND)
    r, p = _reduced(x, shifted)
    high = r + _ONE
    low = fused(p, r * r, r - (high - _ONE))  # r - (high - 1) is the rounding error of high
    exponent = bits(shifted) - bits(_ROUND)
    half = exponent >> I32(1)
    scale1, scale2 = from_bits((half + I32(127)) << I32(23)), from_bits((exponent - half + I32(127)) << I32(23))
    return high, low, scale1, scale2


@part
def exp32(x):
    """exp(x)."""
    high, low, scale1, scale2 = _exp_parts(x)
    return (high + low) * scale1 * scale2


@part
def exp232(x):
    """2 ** x."""
    x = F(128.5) if x > F(128.5) else x
    x = F(-151) if x < F(-151) else x
    shifted = x + _ROUND
    r = (x - (shifted - _ROUND)) * _LN2
    p = fused(_E6, r, _E5)
    p = fused(p, r, _E4)
    p = fused(p, r, _E3)
    p = fused(p, r, _E2)
    high = r + _ONE
    low = fused(p, r * r, r - (high - _ONE))
    exponent = bits(shifted) - bits(_ROUND)
    half = exponent >> I32(1)
    return (high + low) * from_bits((half + I32(127)) << I32(23)) * from_bits((exponent - half + I32(127)) << I32(23))


@part
def relu32(x):
    """max(x, 0). NaN stays NaN."""
    return x if not x < _ZERO else _ZERO


@part
def sigmoid32(x):
    """1 / (1 + exp(-x)): s = e / (1 + e) for e = exp(-|x|) if x < 0, else 1 - s.

    s is computed as e - e (e / (1 + e)), which has smaller rounding errors.
    """
    high, low, scale1, scale2 = _exp_parts(-abs(x))
    mantissa = high + low
    e = mantissa * scale1 * scale2
    rest = (low - (mantissa - high)) * scale1 * scale2
    small = e + fused(-e, e / (e + _ONE), rest)
    return _ONE - small if x >= _ZERO else small


@part
def sech32(x):
    """1 / cosh(x)."""
    e = exp32(-abs(x))
    return (e + e) / fused(e, e, _ONE)


_TANH_END = F(9.02)  # tanh is 1 in float32 from 9.011 on
_TANH_NEAR = F(0.55)
_TWO_LOG2E, _HALF_LN2 = F(2.0 / math.log(2.0)), F(0.5 * math.log(2.0))
# 1.5 * 2**23 + 127: adding it rounds to an integer n whose biased exponent n + 127 then stands in the lowest bits
_ROUND_BIASED = F(12583039.0)
_T2, _T3, _T4, _T5, _T6 = (F(2.0 ** (k - 1) * c) for k, c in enumerate((_E2, _E3, _E4, _E5, _E6), 2))


@part
def tanh32(x):
    """tanh(y) = h / (h + 1) for h = (exp(2 y) - 1) / 2 and y = |x|.

    Near 0 it is computed as y + (h - y (h + 1)) / (h + 1), which has smaller rounding errors.
    """
    y = abs(x)
    z = _TANH_END if y > _TANH_END else y  # NaN stays NaN
    shifted = fused(z, _TWO_LOG2E, _ROUND_BIASED)
    r = fused(shifted - _ROUND_BIASED, -_HALF_LN2, z)
    p = fused(_T6, r, _T5)
    p = fused(p, r, _T4)
    p = fused(p, r, _T3)
    p = fused(p, r, _T2)
    power = from_bits(bits(shifted) << I32(23))
    h = fused(power, fused(p, r * r, r), fused(power, _HALF, -_HALF))
    near = y < _TANH_NEAR
    start = y if near else _ZERO
    rest = fused(-y, h, h - y) if near else h
    return from_bits(bits(start + rest / (h + _ONE)) | (bits(x) & _SIGN))


@inlined
def softplus32(x):
    """log(1 + exp(x)) without overflow. NaN stays NaN."""
    return relu32(x) + F(log1p64(exp32(-abs(x))))


@part
def fmod32(a, b):
    """The remainder of a / b with the sign of a. NaN for b = 0."""
    return F(np.fmod(a, b)) if b != _ZERO else F(np.nan)  # numba's fmod by 0 returns a subnormal number unchanged


@part
def remainder32(a, b):
    """The remainder of a / b with the sign of b. NaN for b = 0."""
    r = fmod32(a, b)
    return F(r + b) if r != _ZERO and (r < _ZERO) != (b < _ZERO) else F(r)


@part
def floor_quotient32(a, b):
    """floor(a / b), computed from the remainder so that rounding never makes it one off. A divisor of 0 gives a / b."""
    if b == _ZERO:
        return a / b
    rest = F(np.fmod(a, b))
    quotient = (a - rest) / b
    if rest != _ZERO and (b < _ZERO) != (rest < _ZERO):
        quotient -= _ONE
    if quotient != quotient or quotient == _ZERO:
        return F(np.copysign(_ZERO, a / b)) if quotient == _ZERO else quotient
    whole = F(np.floor(quotient))
    return whole + _ONE if quotient - whole > _HALF else whole


@part
def trigamma32(x):
    """Trigamma in float32. Near the poles the rounding of pi decides the value, so float64 would differ from PyTorch."""
    sign = _ONE
    total = _ZERO
    if x < _HALF:
        sign = -_ONE
        sine = F(sin64(F(math.pi) * x))
        total -= F(math.pi) * F(math.pi) / (sine * sine)
        x = _ONE - x
    for _ in range(6):
        total += _ONE / (x * x)
        x += _ONE
    s = _ONE / (x * x)
    total += (_ONE + _ONE / (_TWO * x) + s * (F(1.0 / 6.0) - s * (F(1.0 / 30.0) - s * F(1.0 / 42.0)))) / x
    return sign * total
