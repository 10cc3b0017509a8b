"""Elementary functions in float64 that give the same bits on every processor.

The C library's functions differ between its versions, and it chooses among several by the processor. Those here are sums, products,
quotients and square roots of float64 numbers, each rounded once as IEEE 754 says; nothing is fused or reordered.

They are made for float32 arguments and results. Each has a relative error of at most 1e-11, so its value rounded to float32 is within
0.501 ulp of the exact one. Special values (zeros with their signs, infinities, NaN) follow C99, annex F.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rl_lab.native.part import part

inlined = part(forceinline=True)  # loops over these functions become vector code only if they hold no call

D = np.float64
I64 = np.int64

_LN2_HIGH = 0.6931471803691238  # ln 2 in two parts: the high part has 31 bits, so its products with exponents are exact
_LN2_LOW = 1.9082149292705877e-10
_LN2 = math.log(2.0)
_HALF_LOG_TURN = 0.9189385332046728  # log(2 pi) / 2
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, which then stands in the lowest bits
_ONE_BITS = I64(0x3FF0000000000000)
_ROOT_HALF_BITS = I64(0x3FE6A09E667F3BCD)  # of sqrt(1/2)

# Chebyshev interpolations, the coefficient of the highest power first.
# (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2: error 9e-16 of exp(r)
_EXP = (
    2.761380686153829e-07,
    2.762511557828763e-06,
    2.4801536388690766e-05,
    0.00019841208732536384,
    0.0013888888905881542,
    0.008333333353729397,
    0.04166666666665136,
    0.1666666666664829,
    0.5,
)
# (2 artanh(s) - 2 s) / s^3 in powers of s^2, for (1 - s) / (1 + s) from sqrt(1/2) to sqrt(2): error 2e-15 of artanh(s)
_LOG = (
    0.166219470901774,
    0.18140185202493248,
    0.22222862476849542,
    0.2857142413651635,
    0.400000000112122,
    0.6666666666666208,
)
# (sin(r) - r) / r^3 and (cos(r) - 1) / r^2 in powers of r^2, for |r| <= pi / 4: errors 2e-17 and 2e-16
_SIN = (
    1.5917988979397435e-10,
    -2.5051129896450185e-08,
    2.7557316093198404e-06,
    -0.00019841269836740532,
    0.008333333333330936,
    -0.16666666666666666,
)
_COS = (
    2.066529463577556e-09,
    -2.7555852592391734e-07,
    2.4801582609336556e-05,
    -0.0013888888882100919,
    0.04166666666663075,
    -0.49999999999999967,
)
# atan(t) / t in powers of t^2, for |t| <= tan(pi / 8): error 3e-14
_ATAN = (
    0.030660553362531068,
    -0.058743839156979755,
    0.07563671793605889,
    -0.09078387777920731,
    0.11110384726094209,
    -0.14285690410969262,
    0.19999999604639704,
    -0.3333333333080158,
    0.9999999999999732,
)
# erf(x) / x in powers of x^2, for |x| <= 1: error 2e-14
_ERF = (
    -1.0469110332151208e-07,
    1.5306373163641084e-06,
    -1.4795031400662045e-05,
    0.00012046261269779797,
    -0.0008547933736519633,
    0.0052239671935439,
    -0.026866169050599326,
    0.11283791658548713,
    -0.37612638902808615,
    1.128379167095494,
)
# erfc(x) exp(x^2) (1 + 2 x) in powers of (x - 3) / (x + 3), for 1 <= x <= 10.3: error 1e-12. The form is that of Shepherd and
# Laframboise (1981).
_ERFC = (
    -9.241614809519943e-07,
    0.00010950538300790518,
    -0.00010100454055301564,
    -0.0007748647832118425,
    0.0018875550506201823,
    0.0025286143352233493,
    -0.02377037173160347,
    0.06830808739992154,
    -0.1192736715314171,
    0.12964515668894824,
    -0.04756229418695262,
    -0.13562110610505104,
    1.2530080582691847,
)
# log(gamma(2 + e)) / e, for |e| <= 1/4: error 3e-13
_LGAMMA = (
    0.00010273248724400041,
    -0.00023032704841525524,
    0.0005094891812414495,
    -0.001192358995164991,
    0.002890514368764387,
    -0.0073855598707333325,
    0.020580808396193234,
    -0.06735230098402405,
    0.3224670334241527,
    0.42278433509838065,
)


@intrinsic
def _bits(_, x):
    """The int64 with the same bits as a float64."""
    return types.int64(types.float64), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def _from_bits(_, i):
    """The float64 with the same bits as an int64."""
    return types.float64(types.int64), lambda context, builder, signature, args: builder.bitcast(args[0], ir.DoubleType())


@inlined
def _polynomial(x, coefficients):
    """The polynomial with these coefficients, the highest first: even and odd powers are summed apart, so that neither waits."""
    square = x * x
    last = 0.0
    before = 0.0
    for c in coefficients:
        before, last = last, before * square + c
    return last + before * x


# --- exponentials and logarithms ---------------------------------------------------------------------------------------


@inlined
def _exp_parts(x):
    """(q, n) with exp(x) = (1 + q) 2^n, where n is x / log(2) rounded to an integer."""
    shifted = x * (1.0 / _LN2) + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    return r + r * r * _polynomial(r, _EXP), _bits(shifted) - _bits(_ROUND)


@inlined
def _power_of_two(n):
    """2.0 ** n for -1022 <= n <= 1023."""
    return _from_bits((n << I64(52)) + _ONE_BITS)


@inlined
def exp64(x):
    """exp(x). The scale needs two factors, because n reaches 1025 and -1076."""
    x = D(x)
    x = 710.0 if x > 710.0 else x
    x = -746.0 if x < -746.0 else x
    q, n = _exp_parts(x)
    half = n >> I64(1)
    return (1.0 + q) * _power_of_two(half) * _power_of_two(n - half)


@inlined
def expm164(x):
    """exp(x) - 1 without cancellation near 0."""
    x = D(x)
    z = 700.0 if x > 700.0 else x
    z = -60.0 if z < -60.0 else z
    q, n = _exp_parts(z)
    scale = _power_of_two(n)
    return math.copysign(scale * q + (scale - 1.0), x)


@inlined
def log64(x):
    """log(x) of a number of the range of float32, or of a normal float64: x = m 2^n with m near 1, and log(m) by its series."""
    x = D(x)
    n = (_bits(x) - _ROOT_HALF_BITS) >> I64(52)
    f = _from_bits(_bits(x) - (n << I64(52))) - 1.0
    s = f / (2.0 + f)
    z = s * s
    value = D(n) * _LN2_HIGH + (D(n) * _LN2_LOW + (2.0 * s + s * z * _polynomial(z, _LOG)))
    value = value if x < np.inf else x  # infinity and NaN
    return value if x > 0.0 or x != x else (-np.inf if x == 0.0 else np.nan)


@inlined
def log1p64(x):
    """log(1 + x), corrected by the rounding error of the sum."""
    x = D(x)
    u = 1.0 + x
    rest = (x - (u - 1.0)) / u if 0.0 < u < np.inf else 0.0
    return math.copysign(log64(u) + rest, x)


@inlined
def log264(x):
    """log(x) / log(2)."""
    return log64(x) * (1.0 / _LN2)


@inlined
def log1064(x):
    """log(x) / log(10)."""
    return log64(x) * (1.0 / math.log(10.0))


@inlined
def pow64(a, b):
    """a ** b, with the special cases of C99."""
    a = D(a)
    b = D(b)
    value = exp64(b * log64(abs(a)))
    whole = b == np.floor(b)
    odd = whole and b != 2.0 * np.floor(0.5 * b)
    value = math.copysign(value, a) if odd else value
    value = np.nan if a < 0.0 and a > -np.inf and not whole else value
    return 1.0 if b == 0.0 or a == 1.0 or (a == -1.0 and abs(b) == np.inf) else value


# --- trigonometric functions -------------------------------------------------------------------------------------------

_QUARTERS = 2.0 / math.pi
# pi / 2 in three parts; the first two have 30 bits, so their products with numbers of quarter turns below 2^23 are exact
_QUARTER_1 = 1.570796325802803
_QUARTER_2 = 9.920935791635221e-10
_QUARTER_3 = 5.170182981794105e-19
_FAR = 2.0**23
_TURNS = 0x28BE60DB9391054A7F09D5F47D4D377036D8A5664F10E4107F9458EA  # 2^224 / (2 pi)
_TURN_WORDS = tuple([(_TURNS >> (32 * k)) & 0xFFFFFFFF for k in range(6, -1, -1)])


@part
def _word_of_turns(place):
    """32 binary digits of 1 / (2 pi) from the digit ``place`` after the point on."""
    index = place >> 5
    shift = place & 31
    high = np.uint64(_TURN_WORDS[index]) << np.uint64(shift)
    low = np.uint64(_TURN_WORDS[index + 1] if index < 6 else 0) >> np.uint64(32 - shift)
    return (high | low) & np.uint64(0xFFFFFFFF)


@part
def _quarters_far(x):
    """`_quarters` of a float32 number of at least 2^23 (Payne and Hanek 1983).

    |x| = m 2^e with an integer m of 24 bits. Of 1 / (2 pi), the digits up to the e-th give whole turns, and the 96 digits that follow
    give the fraction of a turn in 64 bits.
    """
    e = ((_bits(x) >> I64(52)) & I64(0x7FF)) - I64(1023 + 23)
    m = np.uint64((_bits(x) >> I64(29)) & I64(0x7FFFFF)) | np.uint64(0x800000)
    turn = (m * _word_of_turns(e)) << np.uint64(32)
    turn += m * _word_of_turns(e + 32)
    turn += (m * _word_of_turns(e + 64)) >> np.uint64(32)
    quarter = (turn + np.uint64(1 << 61)) >> np.uint64(62)
    rest = D(I64(turn - (quarter << np.uint64(62)))) * (2.0 * math.pi / 2.0**64)
    sign = math.copysign(1.0, x)
    return sign * rest, I64(sign) * I64(quarter)


@inlined
def _quarters(x):
    """(r, n): x less n quarter turns, with r in [-pi/4, pi/4]; n may miss multiples of 4. r is NaN if x is infinite."""
    if not abs(x) < _FAR:
        if not abs(x) < np.inf:
            return x - x, I64(0)
        return _quarters_far(x)
    n = np.rint(x * _QUARTERS)
    r = ((x - n * _QUARTER_1) - n * _QUARTER_2) - n * _QUARTER_3
    return (x if n == 0.0 else r), I64(n)


@inlined
def _sine(r):
    return r + r * (r * r) * _polynomial(r * r, _SIN)


@inlined
def _cosine(r):
    return 1.0 + r * r * _polynomial(r * r, _COS)


@inlined
def sin64(x):
    """sin(x) of a float32 number, or of a float64 number up to 2^23."""
    r, n = _quarters(D(x))
    value = _cosine(r) if n & 1 else _sine(r)
    return -value if n & 2 else value


@inlined
def cos64(x):
    """cos(x) of a float32 number, or of a float64 number up to 2^23."""
    r, n = _quarters(D(x))
    value = _sine(r) if n & 1 else _cosine(r)
    return -value if (n + 1) & 2 else value


@inlined
def _quarters_near(x):
    """`_quarters` for |x| < 2^23, without a branch; the two lowest bits of n are those of the number of quarter turns."""
    t = x * _QUARTERS + _ROUND
    n = t - _ROUND
    r = ((x - n * _QUARTER_1) - n * _QUARTER_2) - n * _QUARTER_3
    return (x if n == 0.0 else r), _bits(t)


@inlined
def sin64_near(x):
    """`sin64` for |x| < 2^23, with the same bits, as vector code."""
    r, n = _quarters_near(D(x))
    value = _cosine(r) if n & 1 else _sine(r)
    return -value if n & 2 else value


@inlined
def cos64_near(x):
    """`cos64` for |x| < 2^23, with the same bits, as vector code."""
    r, n = _quarters_near(D(x))
    value = _sine(r) if n & 1 else _cosine(r)
    return -value if (n + 1) & 2 else value


@inlined
def tan64_near(x):
    """`tan64` for |x| < 2^23, with the same bits, as vector code."""
    r, n = _quarters_near(D(x))
    s = _sine(r)
    c = _cosine(r)
    return (-c if n & 1 else s) / (s if n & 1 else c)


@inlined
def tan64(x):
    """tan(x) of a float32 number, or of a float64 number up to 2^23."""
    r, n = _quarters(D(x))
    return -_cosine(r) / _sine(r) if n & 1 else _sine(r) / _cosine(r)


@inlined
def atan64(x):
    """The inverse of tan, in [-pi/2, pi/2]. Arguments above tan(pi/8) are turned by pi/4, those above 1 are inverted."""
    x = D(x)
    a = abs(x)
    t = 1.0 / a if a > 1.0 else a
    turned = t > 0.41421356237309503
    u = (t - 1.0) / (t + 1.0) if turned else t
    angle = (0.25 * math.pi if turned else 0.0) + u * _polynomial(u * u, _ATAN)
    return math.copysign(0.5 * math.pi - angle if a > 1.0 else angle, x)


@inlined
def atan264(y, x):
    """The angle of the point (x, y), in [-pi, pi], for float32 numbers."""
    y = D(y)
    x = D(x)
    if x != x or y != y:
        return np.nan
    if abs(x) == abs(y):
        angle = 0.25 * math.pi if y != 0.0 else 0.0
    else:
        angle = atan64(abs(y) / abs(x))
    return math.copysign(math.pi - angle if math.copysign(1.0, x) < 0.0 else angle, y)


@inlined
def asin64(x):
    """The inverse of sin, in [-pi/2, pi/2], or NaN outside of [-1, 1]."""
    x = D(x)
    return atan64(x / np.sqrt((1.0 - x) * (1.0 + x)))


@inlined
def acos64(x):
    """The inverse of cos, in [0, pi], or NaN outside of [-1, 1]."""
    x = D(x)
    return 2.0 * atan64(np.sqrt((1.0 - x) / (1.0 + x)))


# --- hyperbolic functions ----------------------------------------------------------------------------------------------


@inlined
def sinh64(x):
    """(exp(x) - exp(-x)) / 2 without cancellation near 0."""
    e = expm164(abs(D(x)))
    return math.copysign(0.5 * (e + e / (e + 1.0)), x)


@inlined
def cosh64(x):
    """(exp(x) + exp(-x)) / 2."""
    e = exp64(min(abs(D(x)), 700.0) if x == x else x)
    return 0.5 * (e + 1.0 / e)


@inlined
def asinh64(x):
    """The inverse of sinh, for a float32 number."""
    x = D(x)
    a = abs(x)
    square = a * a if a < np.inf else 0.0
    return math.copysign(log1p64(a + square / (1.0 + np.sqrt(1.0 + square))), x)


@inlined
def acosh64(x):
    """The inverse of cosh for a float32 number, or NaN below 1."""
    x = D(x)
    return log1p64((x - 1.0) + np.sqrt((x - 1.0) * (x + 1.0))) if x >= 1.0 else np.nan


@inlined
def atanh64(x):
    """The inverse of tanh, or NaN outside of [-1, 1]."""
    x = D(x)
    a = abs(x)
    return math.copysign(0.5 * log1p64(2.0 * a / (1.0 - a)), x) if a <= 1.0 else np.nan


# --- the error function, the gamma function, and their kin ---------------------------------------------------------------


@inlined
def _erfc_above(x):
    """erfc(x) for x >= 1. The square of a float32 number is exact in float64."""
    x = min(x, 28.0) if x == x else x
    return exp64(-x * x) * _polynomial((x - 3.0) / (x + 3.0), _ERFC) / (1.0 + 2.0 * x)


@inlined
def erf64(x):
    """The error function."""
    x = D(x)
    a = abs(x)
    return x * _polynomial(x * x, _ERF) if a < 1.0 else math.copysign(1.0 - _erfc_above(a), x)


@inlined
def erfc64(x):
    """1 - erf(x) without cancellation."""
    x = D(x)
    a = abs(x)
    if a < 1.0:
        return 1.0 - x * _polynomial(x * x, _ERF)
    return 2.0 - _erfc_above(a) if x < 0.0 else _erfc_above(a)


@inlined
def _stirling(x, product):
    """log gamma(x) by Stirling's series, less the logarithm of a product."""
    s = 1.0 / (x * x)
    series = 1.0 / 12.0 - s * (
        1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s * (1.0 / 1188.0 - s * (691.0 / 360360.0))))
    )
    return (x - 0.5) * log64(x) - x + _HALF_LOG_TURN + series / x - log64(product)


@part
def lgamma64(x):
    """log |gamma(x)|: the recurrence moves the argument up to 12, where Stirling's series takes over (Abramowitz and Stegun 6.1.41).

    Arguments below 0 are reflected (6.1.17). Near its zeros, 1 and 2, Stirling's series would lose all digits. It is infinite at the
    poles and at the infinities.
    """
    x = D(x)
    if abs(x - 2.0) <= 0.25:
        return (x - 2.0) * _polynomial(x - 2.0, _LGAMMA)
    if abs(x - 1.0) <= 0.25:
        return (x - 1.0) * _polynomial(x - 1.0, _LGAMMA) - log1p64(x - 1.0)
    if x != x or abs(x) == np.inf:
        return abs(x)
    reflected = 0.0
    negative = x < 0.0
    if x <= 0.0:
        if x == np.floor(x):
            return np.inf
        reflected = log64(math.pi / abs(sin64(math.pi * (x - np.rint(x)))))
        x = 1.0 - x
    product = 1.0
    while x < 12.0:
        product *= x
        x += 1.0
    value = _stirling(x, product)
    return reflected - value if negative else value


@inlined
def lgamma64_near(x):
    """`lgamma64` for finite x > 0, with the same bits, as vector code."""
    x = D(x)
    y = x
    product = 1.0
    for _ in range(12):
        product *= y if y < 12.0 else 1.0
        y += 1.0 if y < 12.0 else 0.0
    value = _stirling(y, product)
    second = (x - 2.0) * _polynomial(x - 2.0, _LGAMMA)
    first = (x - 1.0) * _polynomial(x - 1.0, _LGAMMA) - log1p64(x - 1.0)
    value = first if abs(x - 1.0) <= 0.25 else value
    return second if abs(x - 2.0) <= 0.25 else value


@part
def erfinv64(y):
    """The inverse of erf: Giles' (2010) approximations for the center and the tails, then one step of Newton's method."""
    y = D(y)
    if not abs(y) < 1.0:
        return np.inf * y if abs(y) == 1.0 else np.nan
    w = -log64((1.0 - y) * (1.0 + y))
    if w < 5.0:
        w -= 2.5
        p = 2.81022636e-08
        p = 3.43273939e-07 + p * w
        p = -3.5233877e-06 + p * w
        p = -4.39150654e-06 + p * w
        p = 0.00021858087 + p * w
        p = -0.00125372503 + p * w
        p = -0.00417768164 + p * w
        p = 0.246640727 + p * w
        p = 1.50140941 + p * w
    else:
        w = np.sqrt(w) - 3.0
        p = -0.000200214257
        p = 0.000100950558 + p * w
        p = 0.00134934322 + p * w
        p = -0.00367342844 + p * w
        p = 0.00573950773 + p * w
        p = -0.0076224613 + p * w
        p = 0.00943887047 + p * w
        p = 1.00167406 + p * w
        p = 2.83297682 + p * w
    x = p * y
    return x - (erf64(x) - y) / (2.0 / math.sqrt(math.pi) * exp64(-x * x))


# Derivatives of the logarithm of the gamma function (Abramowitz and Stegun 1964): the recurrence moves the argument up to 8, where the
# asymptotic series (6.3.18, 6.4.12) takes over. Arguments below 0 are reflected (6.3.7). At the poles the values are PyTorch's.


@part
def digamma64(x):
    """The first derivative of the logarithm of the gamma function."""
    x = D(x)
    if x == 0.0:
        return math.copysign(np.inf, -x)
    if x == -np.inf or (x < 0.0 and x == np.floor(x)):
        return np.nan
    reflected = 0.0
    if x < 0.0:
        reflected = math.pi / tan64(math.pi * (x - np.trunc(x)))
        x = 1.0 - x
    if x == np.inf:
        return x
    shift = 0.0
    while x < 8.0:
        shift -= 1.0 / x
        x += 1.0
    s = 1.0 / (x * x)
    series = s * (1.0 / 12.0 - s * (1.0 / 120.0 - s * (1.0 / 252.0 - s * (1.0 / 240.0 - s / 132.0))))
    return shift + log64(x) - 0.5 / x - series - reflected


@part
def tetragamma64_above(x):
    """`tetragamma64` of x > 0."""
    shift = 0.0
    while x < 8.0:
        shift -= 2.0 / (x * x * x)
        x += 1.0
    s = 1.0 / (x * x)
    series = s * s * (0.5 - s * (1.0 / 6.0 - s * (1.0 / 6.0 - s * (0.3 - s * 5.0 / 6.0))))
    return shift - s - s / x - series


@part
def tetragamma64(x):
    """The third derivative of the logarithm of the gamma function."""
    x = D(x)
    if x <= 0.0:
        if x == np.floor(x):
            return -np.inf
        turn = math.pi * (x - np.rint(x))
        sine = sin64(turn)
        return tetragamma64_above(1.0 - x) - 2.0 * math.pi**3 * cos64(turn) / (sine * sine * sine)
    return tetragamma64_above(x)
