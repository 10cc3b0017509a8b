"""Scalar float32 functions that LLVM can turn into vector code: no branches, no calls, NaN and infinity as IEEE 754 wants them.

libm's scalar functions cost ten times as much per element, and one call in a loop keeps the whole loop from being vectorised.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

F = np.float32
I32 = np.int32


@intrinsic
def bits(_, x):
    """The int32 with the same bits as a float32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def from_bits(_, i):
    """The float32 with the same bits as an int32."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


_LOG2E = F(1.0 / math.log(2.0))
_LN2_HIGH = F(0.693359375)  # ln 2 in two parts: the first has few bits, so that n * _LN2_HIGH is exact
_LN2_LOW = F(math.log(2.0) - 0.693359375)
_ROUND = F(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer that stands in the lowest bits
# Taylor's series of exp about 0 to degree 7: on |r| <= ln(2)/2 its remainder is below half a unit in the last place.
_E2, _E3, _E4, _E5, _E6, _E7 = (F(1.0 / math.factorial(k)) for k in range(2, 8))
_ONE, _HALF, _TWO, _ZERO = F(1), F(0.5), F(2), F(0)


@njit(error_model="numpy")
def exp32(x):
    x = F(89) if x > F(89) else x
    x = F(-105) if x < F(-105) else x
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _E7
    p = p * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    p = p * (r * r) + r + _ONE
    # 2**n in two factors: n reaches 128 and -151, beyond the exponents of normal numbers
    exponent = bits(shifted) - bits(_ROUND)
    half = exponent >> I32(1)
    return p * from_bits((half + I32(127)) << I32(23)) * from_bits((exponent - half + I32(127)) << I32(23))


@njit(error_model="numpy")
def expm132(x):
    return F(math.expm1(x))


@njit(error_model="numpy")
def relu32(x):
    return x if not x < _ZERO else _ZERO


@njit(error_model="numpy")
def sigmoid32(x):
    e = exp32(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e) if x == x else x


# tanh(x) = x P(x^2) / Q(x^2) up to 9.12, where it has become 1 in float32: fitted for the largest relative error to be least (2.3e-8;
# with the rounding of float32 at most 4e-7)
_TANH_P = tuple(F(c) for c in (1.0, 0.13374412059783936, 0.003487734356895089, 2.0479881641222164e-05, 1.3175681878863088e-08))
_TANH_Q = tuple(F(c) for c in (0.46707725524902344, 0.025847099721431732, 0.0003272792382631451, 7.703297342231963e-07))
_P0, _P1, _P2, _P3, _P4 = _TANH_P
_Q1, _Q2, _Q3, _Q4 = _TANH_Q
_TANH_END = F(9.12)  # where this form gives more than 1, too: larger arguments give exactly 1


@njit(error_model="numpy")
def tanh32(x):
    # comparisons are written so that NaN stays
    y = _TANH_END if x > _TANH_END else -_TANH_END if x < -_TANH_END else x
    s = y * y
    p = ((_P4 * s + _P3) * s + _P2) * s + _P1
    q = ((_Q4 * s + _Q3) * s + _Q2) * s + _Q1
    r = y * (p * s + _P0) / (q * s + _ONE)
    return _ONE if r > _ONE else -_ONE if r < -_ONE else r


@njit(error_model="numpy")
def softplus32(x):
    return max(x, _ZERO) + F(math.log1p(exp32(-abs(x)))) if x == x else x


@njit(error_model="numpy")
def remainder32(a, b):
    r = np.fmod(a, b)
    return F(r + b) if r != _ZERO and (r < _ZERO) != (b < _ZERO) else F(r)


# Derivatives of the logarithm of the gamma function, in float64: for positive arguments, by the recurrence up to 8 and the asymptotic
# series from there on (Abramowitz and Stegun 1964, 6.3.18 and 6.4.12).


@njit(error_model="numpy")
def digamma64(x):
    if not x > 0.0:
        return np.nan
    shift = 0.0
    while x < 8.0:
        shift -= 1.0 / x
        x += 1.0
    s = 1.0 / (x * x)
    series = s * (1.0 / 12.0 - s * (1.0 / 120.0 - s * (1.0 / 252.0 - s * (1.0 / 240.0 - s / 132.0))))
    return shift + math.log(x) - 0.5 / x - series


@njit(error_model="numpy")
def trigamma64(x):
    if not x > 0.0:
        return np.nan
    shift = 0.0
    while x < 8.0:
        shift += 1.0 / (x * x)
        x += 1.0
    s = 1.0 / (x * x)
    series = s / x * (1.0 / 6.0 - s * (1.0 / 30.0 - s * (1.0 / 42.0 - s * (1.0 / 30.0 - s * 5.0 / 66.0))))
    return shift + 1.0 / x + 0.5 * s + series


@njit(error_model="numpy")
def tetragamma64(x):
    if not x > 0.0:
        return np.nan
    shift = 0.0
    while x < 8.0:
        shift -= 2.0 / (x * x * x)
        x += 1.0
    s = 1.0 / (x * x)
    series = s * s * (0.5 - s * (1.0 / 6.0 - s * (1.0 / 6.0 - s * (0.3 - s * 5.0 / 6.0))))
    return shift - s - s / x - series
