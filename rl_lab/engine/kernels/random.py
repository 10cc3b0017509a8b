"""Random numbers by xoshiro256++ (Blackman and Vigna 2021).

The state of a stream is a buffer of four int64 words. So a stream is saved and restored like a tensor, and a recorded program
advances the stream as eager calls do.
"""

import numpy as np

from rl_lab.engine.kernels.elementary import cos64, digamma64, exp64, lgamma64, log64, pow64, sin64
from rl_lab.native.part import part
from rl_lab.native.primitive import In, InInt, InOutInt, Int, Out, OutBool, OutInt, Real, primitive

F = np.float32
U = np.uint64


@part
def _rotate(x, k):
    return (x << U(k)) | (x >> U(64 - k))


@part
def next_word(state):
    """The next 64 random bits. Advances the state."""
    s0 = U(state[0])
    s1 = U(state[1])
    s2 = U(state[2])
    s3 = U(state[3])
    result = _rotate(s0 + s3, 23) + s0
    t = s1 << U(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = _rotate(s3, 45)
    state[0] = np.int64(s0)
    state[1] = np.int64(s1)
    state[2] = np.int64(s2)
    state[3] = np.int64(s3)
    return result


@part
def next_unit(state):
    """A float64 in [0, 1) with 53 random bits."""
    return np.float64(next_word(state) >> U(11)) * (1.0 / 9007199254740992.0)


@part
def next_below(state, bound):
    """An integer in 0..bound-1. The bias of scaling 53 bits is below bound / 2**53."""
    return np.int64(next_unit(state) * bound)


@primitive
def uniform(out: Out, state: InOutInt, count: Int, low: Real, high: Real):
    """out = uniform deviates in [low, high), float32."""
    for i in range(count):
        u = F(next_word(state) >> U(40)) * F(1.0 / 16777216.0)  # 24 bits: every value is exact, and below 1
        out[i] = F(low) + F(high - low) * u


@primitive
def normal(out: Out, state: InOutInt, count: Int, mean: Real, std: Real):
    """out = normal deviates by the transform of Box and Muller (1958), computed in float64."""
    for i in range(0, count, 2):
        radius = np.sqrt(-2.0 * log64(1.0 - next_unit(state)))
        angle = 2.0 * np.pi * next_unit(state)
        out[i] = F(mean + std * radius * cos64(angle))
        if i + 1 < count:
            out[i + 1] = F(mean + std * radius * sin64(angle))


@primitive
def integers(out: OutInt, state: InOutInt, count: Int, low: Int, high: Int):
    """out = integers in low..high-1."""
    for i in range(count):
        out[i] = low + next_below(state, high - low)


@primitive
def integers_below(out: OutInt, bound: InInt, state: InOutInt, count: Int):
    """out = integers in 0..bound[0]-1. The bound is a buffer, so a recorded program reads its current value."""
    for i in range(count):
        out[i] = next_below(state, bound[0])


@primitive
def permutation(out: OutInt, state: InOutInt, count: Int):
    """out = 0..count-1 in random order (the shuffle of Fisher and Yates)."""
    for i in range(count):
        out[i] = i
    for i in range(count - 1, 0, -1):
        j = next_below(state, i + 1)
        out[i], out[j] = out[j], out[i]


@primitive
def bernoulli(out: OutBool, p: In, state: InOutInt, count: Int, stride: Int):
    """out[i] = 1 with probability p[i * stride], else 0. A ``stride`` of 0 uses p[0] for all."""
    for i in range(count):
        out[i] = np.uint8(next_unit(state) < p[i * stride])


@part
def _total(weights, start, k, status, wanted):
    """The sum of a row of weights, or -1 after setting status[0].

    status[0] = 2 if a weight is negative or not finite, 3 if fewer than ``wanted`` weights are positive.
    """
    total = 0.0
    positive = 0
    for c in range(start, start + k):
        w = weights[c]
        if not (w >= F(0) and w < F(np.inf)):
            status[0] = 2
            return -1.0
        positive += w > F(0)
        total += w
    if positive < wanted:
        status[0] = 3
        return -1.0
    return total


@primitive
def categorical(out: OutInt, weights: In, state: InOutInt, status: InOutInt, n: Int, k: Int, count: Int):
    """out (n, count) = draws with replacement from each of n rows of k non-negative weights, which need not sum to 1."""
    for i in range(n):
        total = _total(weights, i * k, k, status, 1)
        for draw in range(count):
            rest = next_unit(state) * total
            chosen = 0
            for c in range(k):
                w = weights[i * k + c]
                # a class of weight 0 is never drawn; if rounding leaves a remainder, the last class of positive weight is drawn
                if w > F(0):
                    chosen = c
                    rest -= w
                    if rest < 0.0:
                        break
            out[i * count + draw] = chosen


@primitive
def categorical_distinct(out: OutInt, weights: In, state: InOutInt, status: InOutInt, n: Int, k: Int, count: Int):
    """`categorical` without replacement: a class that was drawn gets the weight 0."""
    left = np.empty(k, np.float32)
    for i in range(n):
        _total(weights, i * k, k, status, count)
        for c in range(k):
            left[c] = weights[i * k + c]
        for draw in range(count):
            total = 0.0
            for c in range(k):
                total += left[c]
            rest = next_unit(state) * total
            chosen = 0
            for c in range(k):
                if left[c] > F(0):
                    chosen = c
                    rest -= left[c]
                    if rest < 0.0:
                        break
            left[chosen] = F(0)
            out[i * count + draw] = chosen


@primitive
def exponential(out: Out, state: InOutInt, count: Int, rate: Real):
    """out = exponential deviates of this rate by inversion, computed in float64."""
    for i in range(count):
        out[i] = F(-log64(1.0 - next_unit(state)) / rate)


@part
def _standard_normal(state):
    return np.sqrt(-2.0 * log64(1.0 - next_unit(state))) * cos64(2.0 * np.pi * next_unit(state))


@part
def _gamma_relative_slope(a, deviate, log):
    """The derivative of the logarithm of a gamma deviate in its shape a, from the deviate and its logarithm: see `gamma_slope`."""
    if not (a > 0.0 and deviate >= 0.0):
        return np.nan
    if a > 1e4:
        root = np.sqrt(a)
        z = (deviate - a) / root
        z -= (z * z - 1.0) / (3.0 * root)
        return (1.0 + z / (2.0 * root) - (z * z * z - 7.0 * z) / (72.0 * a * root)) / deviate
    term = 1.0
    harmonic = 0.0
    total = 1.0
    bent = 0.0
    for n in range(1, 100_000):
        term *= deviate / (a + n)
        harmonic += 1.0 / (a + n)
        total += term
        bent += term * harmonic
        if term * harmonic < 1e-17 * total and n > deviate - a:
            break
    return (bent - total * (log - digamma64(a + 1.0))) / a


@primitive
def gamma_slope(out: Out, g: In, shape: In, x: In, count: Int):
    """out = g * the derivative of the gamma deviate x in its shape a, at a fixed probability of a smaller deviate.

    That derivative is -(dP/da) / (dP/dx) for the distribution function P (Figurnov, Mohamed and Mnih 2018). P is summed as a series
    (Abramowitz and Stegun 6.5.29). For large a it follows from the expansion of the quantile in the normal one (26.4.18).
    """
    for i in range(count):
        a, deviate = np.float64(shape[i]), np.float64(x[i])
        slope = np.float64(0.0)
        if deviate != 0.0 or not a > 0.0:
            slope = deviate * _gamma_relative_slope(a, deviate, log64(deviate))
        out[i] = F(g[i] * slope)


@primitive
def log_gamma_slope(out: Out, g: In, shape: In, log: In, count: Int):
    """out = g * the derivative of the logarithm of a gamma deviate in its shape, where ``log`` is this logarithm."""
    for i in range(count):
        x = np.float64(log[i])
        out[i] = F(g[i] * _gamma_relative_slope(np.float64(shape[i]), exp64(x), x))


@part
def _gamma_cube(d, state):
    """A number v such that d * v is a gamma deviate of shape d + 1/3 >= 1 (Marsaglia and Tsang 2000)."""
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        x = _standard_normal(state)
        v = 1.0 + c * x
        v = v * v * v
        u = 1.0 - next_unit(state)
        if v > 0.0 and log64(u) < 0.5 * x * x + d - d * v + d * log64(v):
            return v
        if not d > 0.0:  # with a NaN no draw would ever be accepted
            return np.nan


@primitive
def gamma(out: Out, shape: In, state: InOutInt, count: Int):
    """out[i] = a gamma deviate of shape[i] and scale 1 (Marsaglia and Tsang 2000).

    A shape a < 1 is drawn as a deviate of shape a + 1, times u ** (1 / a) for a uniform number u.
    """
    for i in range(count):
        a = np.float64(shape[i])
        boost = 1.0
        if a < 1.0:
            boost = pow64(1.0 - next_unit(state), 1.0 / a)
            a += 1.0
        d = a - 1.0 / 3.0
        out[i] = F(boost * d * _gamma_cube(d, state))


@primitive
def gamma_with_log(out: Out, log: Out, shape: In, state: InOutInt, count: Int):
    """As `gamma`, and log[i] = the logarithm of the deviate, which is finite also where the deviate is too small for a float32."""
    for i in range(count):
        a = np.float64(shape[i])
        boost = 1.0
        power = 0.0
        if a < 1.0:
            u = 1.0 - next_unit(state)
            boost = pow64(u, 1.0 / a)
            power = log64(u) / a
            a += 1.0
        d = a - 1.0 / 3.0
        v = _gamma_cube(d, state)
        out[i] = F(boost * d * v)
        log[i] = F(max(power + log64(d * v), -3e38))


@primitive
def poisson(out: Out, rate: In, state: InOutInt, count: Int):
    """out[i] = a Poisson deviate of rate[i]: products of uniform numbers for a rate below 10, transformed rejection above.

    Source: Knuth 1969; Hoermann 1993, "The transformed rejection method for generating Poisson random variables", algorithm PTRS.
    """
    for i in range(count):
        lam = np.float64(rate[i])
        if not lam >= 0.0 or lam == np.inf:
            out[i] = F(np.nan)
        elif lam < 10.0:
            limit = exp64(-lam)
            product = 1.0 - next_unit(state)
            k = 0
            while product > limit:
                product *= 1.0 - next_unit(state)
                k += 1
            out[i] = F(k)
        else:
            root = np.sqrt(lam)
            b = 0.931 + 2.53 * root
            a = -0.059 + 0.02483 * b
            inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
            v_r = 0.9277 - 3.6224 / (b - 2.0)
            while True:
                u = next_unit(state) - 0.5
                v = 1.0 - next_unit(state)
                us = 0.5 - abs(u)
                sample = np.floor((2.0 * a / max(us, 1e-300) + b) * u + lam + 0.43)
                if us >= 0.07 and v <= v_r:
                    break
                if sample < 0.0 or (us < 0.013 and v > us):
                    continue
                left = log64(v) + log64(inverse_alpha) - log64(a / (us * us) + b)
                if left <= sample * log64(lam) - lam - lgamma64(sample + 1.0):
                    break
            out[i] = F(sample)
