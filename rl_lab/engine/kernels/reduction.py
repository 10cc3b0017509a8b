"""Reductions of a contiguous ``x[n, r, m]`` over its middle axis to ``out[n, m]``, and the softmax family along the same axis."""

import numpy as np

from rl_lab.engine.kernels.elementary import exp64, log64
from rl_lab.engine.kernels.scalar import INFINITY, MAGNITUDE, bits, exp32, from_bits
from rl_lab.native.part import part
from rl_lab.native.primitive import (
    In,
    InBool,
    InInt,
    Int,
    Out,
    OutBool,
    OutInt,
    Primitive,
    Real,
    Role,
    primitive,
    primitive_from_source,
)

F = np.float32
LANES = 16
ROWS = 256  # sums along a middle axis: float32 within so many rows, float64 from one such block to the next


@part
def row_sum(x, start, r):
    """The sum of r numbers from x[start] on, as sixteen partial sums that are added pairwise.

    LLVM turns the partial sums into vector code, and the result is far closer to the true sum than one running sum.
    """
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F(0)
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = F(0)
    full = r - r % LANES
    for k in range(start, start + full, LANES):
        s0 += x[k]
        s1 += x[k + 1]
        s2 += x[k + 2]
        s3 += x[k + 3]
        s4 += x[k + 4]
        s5 += x[k + 5]
        s6 += x[k + 6]
        s7 += x[k + 7]
        t0 += x[k + 8]
        t1 += x[k + 9]
        t2 += x[k + 10]
        t3 += x[k + 11]
        t4 += x[k + 12]
        t5 += x[k + 13]
        t6 += x[k + 14]
        t7 += x[k + 15]
    rest = F(0)
    for k in range(start + full, start + r):
        rest += x[k]
    low = ((s0 + t0) + (s4 + t4)) + ((s2 + t2) + (s6 + t6))
    high = ((s1 + t1) + (s5 + t5)) + ((s3 + t3) + (s7 + t7))
    return (low + high) + rest


@primitive
def sum_over(out: Out, x: In, n: Int, r: Int, m: Int, divisor: Real):
    """out = the sum over the middle axis, divided by ``divisor`` (1 for a sum, r for a mean).

    The order of the additions depends on r and m alone. Blocks of ``ROWS`` rows keep the sum of many rows accurate.
    """
    d = F(divisor)
    if m == 1:
        for i in range(n):
            out[i] = row_sum(x, i * r, r) / d
        return
    totals = np.empty(m if r > ROWS else 0, np.float64)
    for i in range(n):
        for j in range(m):
            out[i * m + j] = F(0)
        for k in range(min(r, ROWS)):
            p = (i * r + k) * m
            for j in range(m):
                out[i * m + j] += x[p + j]
        if r > ROWS:
            for j in range(m):
                totals[j] = out[i * m + j]
            for first in range(ROWS, r, ROWS):
                for j in range(m):
                    out[i * m + j] = F(0)
                for k in range(first, min(first + ROWS, r)):
                    p = (i * r + k) * m
                    for j in range(m):
                        out[i * m + j] += x[p + j]
                for j in range(m):
                    totals[j] += out[i * m + j]
            for j in range(m):
                out[i * m + j] = F(totals[j])
        if d != F(1):
            for j in range(m):
                out[i * m + j] /= d


@primitive
def sum_of_products(out: Out, x: In, y: In, r: Int, m: Int):
    """out = the sum over the rows of x * y, both (r, m). The bits are those of the product, rounded, and then `sum_over`."""
    for j in range(m):
        out[j] = F(0)
    for k in range(0, min(r, ROWS) * m, m):
        for j in range(m):
            out[j] += x[k + j] * y[k + j]
    if r > ROWS:
        totals = np.empty(m, np.float64)
        for j in range(m):
            totals[j] = out[j]
        for first in range(ROWS, r, ROWS):
            for j in range(m):
                out[j] = F(0)
            for k in range(first * m, min(first + ROWS, r) * m, m):
                for j in range(m):
                    out[j] += x[k + j] * y[k + j]
            for j in range(m):
                totals[j] += out[j]
        for j in range(m):
            out[j] = F(totals[j])


@primitive
def sum_over_int(out: OutInt, x: InInt, n: Int, r: Int, m: Int):
    """out = the sum over the middle axis."""
    for i in range(n):
        for j in range(m):
            total = 0
            for k in range(r):
                total += x[(i * r + k) * m + j]
            out[i * m + j] = total


@primitive
def variance_over(out: Out, x: In, n: Int, r: Int, m: Int, divisor: Real, root: Int):
    """out = the sum of squared distances from the mean, divided by ``divisor``; with ``root`` the square root of this.

    Computed in float64, so equal numbers give exactly 0.
    """
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            total = 0.0
            for k in range(r):
                total += x[p + k * m]
            mean = total / r
            squares = 0.0
            for k in range(r):
                distance = x[p + k * m] - mean
                squares += distance * distance
            out[i * m + j] = F(np.sqrt(squares / divisor) if root else squares / divisor)


@primitive
def count_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = the number of elements that are not 0."""
    for i in range(n):
        for j in range(m):
            count = 0
            for k in range(r):
                count += x[(i * r + k) * m + j] != F(0)
            out[i * m + j] = F(count)


@primitive
def product_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = the product over the middle axis."""
    for i in range(n):
        for j in range(m):
            total = F(1)
            for k in range(r):
                total *= x[(i * r + k) * m + j]
            out[i * m + j] = total


@primitive
def product_over_int(out: OutInt, x: InInt, n: Int, r: Int, m: Int):
    """`product_over` of int64."""
    for i in range(n):
        for j in range(m):
            total = 1
            for k in range(r):
                total *= x[(i * r + k) * m + j]
            out[i * m + j] = total


@part
def _larger(value, best):
    """The larger of two numbers, or NaN if one is NaN; ``best`` if they are equal."""
    return value if (value > best) | (value != value) else best


@part
def _key(i):
    """The bits of a float32 as an int32 that is the larger the larger the number is; its own inverse. 0 is larger than -0."""
    return i ^ ((i >> np.int32(31)) & MAGNITUDE)


@part
def _largest_of_row(x, start, r):
    """The largest of r numbers from x[start] on, at least one, or NaN if one is NaN."""
    if r < LANES:
        best = x[start]
        for k in range(start + 1, start + r):
            best = _larger(x[k], best)
        return best
    largest = _key(bits(x[start]))  # LLVM makes vector code of maxima of integers only
    magnitude = np.int32(0)
    for k in range(start, start + r):
        i = bits(x[k])
        largest = max(largest, _key(i))
        magnitude = max(magnitude, i & MAGNITUDE)
    return F(np.nan) if magnitude > INFINITY else from_bits(_key(largest))


@primitive
def largest_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = the largest value. NaN counts as largest."""
    for i in range(n):
        if m == 1:
            out[i] = _largest_of_row(x, i * r, r)
        else:
            for j in range(m):
                out[i * m + j] = x[i * r * m + j]
            for k in range(1, r):
                p = (i * r + k) * m
                for j in range(m):
                    out[i * m + j] = _larger(x[p + j], out[i * m + j])


@primitive
def max_over(out: Out, index: OutInt, x: In, n: Int, r: Int, m: Int):
    """out = the largest value, index = the position of its first occurrence. NaN counts as largest."""
    for i in range(n):
        for j in range(m):
            best, at = x[i * r * m + j], 0
            for k in range(1, r):
                value = x[(i * r + k) * m + j]
                if value > best or (value != value and best == best):
                    best, at = value, k
            out[i * m + j] = best
            index[i * m + j] = at


@primitive
def max_over_int(out: OutInt, index: OutInt, x: InInt, n: Int, r: Int, m: Int):
    """`max_over` of int64."""
    for i in range(n):
        for j in range(m):
            best, at = x[i * r * m + j], 0
            for k in range(1, r):
                if x[(i * r + k) * m + j] > best:
                    best, at = x[(i * r + k) * m + j], k
            out[i * m + j] = best
            index[i * m + j] = at


@primitive
def any_over(out: OutBool, x: InBool, n: Int, r: Int, m: Int):
    """out = whether an element along the middle axis is true (1 or 0)."""
    for i in range(n):
        for j in range(m):
            found = 0
            for k in range(r):
                found |= x[(i * r + k) * m + j]
            out[i * m + j] = found


@primitive
def cumulative_sum(out: Out, x: In, n: Int, r: Int, m: Int, reverse: Int):
    """out = the running sum along the middle axis, starting at its end if ``reverse``."""
    for i in range(n):
        for j in range(m):
            total = F(0)
            for step in range(r):
                k = r - 1 - step if reverse else step
                total += x[(i * r + k) * m + j]
                out[(i * r + k) * m + j] = total


@primitive
def cumulative_sum_int(out: OutInt, x: InInt, n: Int, r: Int, m: Int):
    """out = the running sum along the middle axis."""
    for i in range(n):
        for j in range(m):
            total = 0
            for k in range(r):
                total += x[(i * r + k) * m + j]
                out[(i * r + k) * m + j] = total


@primitive
def cumulative_product(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = the running product along the middle axis."""
    for i in range(n):
        for j in range(m):
            total = F(1)
            for k in range(r):
                total *= x[(i * r + k) * m + j]
                out[(i * r + k) * m + j] = total


@primitive
def cumulative_product_backward(out: Out, g: In, x: In, n: Int, r: Int, m: Int):
    """The gradient of x: out[k] = (x[0] ... x[k - 1]) * s[k] with s[k] = g[k] + x[k + 1] s[k + 1].

    It divides by no element, so it is right also where x is 0.
    """
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            rest = F(0)
            for k in range(r - 1, -1, -1):
                rest = g[p + k * m] + (x[p + (k + 1) * m] * rest if k + 1 < r else F(0))
                out[p + k * m] = rest
            before = F(1)
            for k in range(r):
                out[p + k * m] *= before
                before *= x[p + k * m]


@primitive
def cumulative_product_int(out: OutInt, x: InInt, n: Int, r: Int, m: Int):
    """`cumulative_product` of int64."""
    for i in range(n):
        for j in range(m):
            total = 1
            for k in range(r):
                total *= x[(i * r + k) * m + j]
                out[(i * r + k) * m + j] = total


def _running_extreme(name: str, better: str, read: Role) -> Primitive:
    """A primitive: index[k] = the last position up to k whose value is the extreme of x[0], ..., x[k]. A NaN is the extreme."""
    body = f"""
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            best = x[p]
            place = 0
            for k in range(r):
                value = x[p + k * m]
                if value != value or (best == best and value {better} best):
                    best = value
                    place = k
                index[p + k * m] = place
"""
    parameters = {"index": OutInt, "x": read, "n": Int, "r": Int, "m": Int}
    return primitive_from_source(name, parameters, body, {"np": np}, __file__)


running_max = _running_extreme("running_max", ">=", In)
running_min = _running_extreme("running_min", "<=", In)
running_max_int = _running_extreme("running_max_int", ">=", InInt)
running_min_int = _running_extreme("running_min_int", "<=", InInt)


@primitive
def running_logsumexp(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = the logarithm of the running sum of exponentials along the middle axis. The sums are float64."""
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            best = F(-np.inf)
            total = 0.0
            for k in range(r):
                value = x[p + k * m]
                if total != total or value != value:
                    total = np.nan
                elif value > best:
                    total = total * exp64(float(best) - float(value)) + 1.0 if best > F(-np.inf) else 1.0
                    best = value
                elif value > F(-np.inf) and value < F(np.inf):
                    total += exp64(float(value) - float(best))
                if total != total:
                    out[p + k * m] = F(np.nan)
                else:
                    out[p + k * m] = best if abs(best) == F(np.inf) else F(log64(total) + best)


# --- softmax ---------------------------------------------------------------------------------------------------------


@part
def _largest(x, p, r, m):
    """The largest of r numbers that begin at x[p] and are m apart, or NaN if one is NaN."""
    best = x[p]
    for k in range(1, r):
        best = _larger(x[p + k * m], best)
    return best


# Rows are processed in blocks whose exponentials fit the first-level cache. One flat loop over a block is vector code, even for short rows.
BLOCK = 1024


@part
def _blocks_of_rows(r):
    """The number of rows in a block."""
    return max(1, BLOCK // max(r, 1))


@primitive
def logsumexp_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = log(sum(exp(x))) over the middle axis, without overflow."""
    if m == 1 and r > 0:
        block = _blocks_of_rows(r)
        work = np.empty(block * r, np.float32)
        totals = np.empty(block, np.float32)
        for first in range(0, n, block):
            rows = min(block, n - first)
            for i in range(rows):
                p, q = (first + i) * r, i * r
                best = _largest_of_row(x, p, r)
                # an infinite maximum is the result, but inf - inf would be NaN
                shift = F(0) if abs(best) == F(np.inf) else best
                out[first + i] = shift
                for k in range(r):
                    work[q + k] = x[p + k] - shift
            for k in range(rows * r):
                work[k] = exp32(work[k])
            for i in range(rows):
                totals[i] = row_sum(work, i * r, r)
            for i in range(rows):
                out[first + i] += log64(totals[i])
        return
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            best = _largest(x, p, r, m) if r > 0 else F(-np.inf)
            shift = F(0) if abs(best) == F(np.inf) else best
            total = 0.0
            for first in range(0, r, ROWS):
                part_of_total = F(0)
                for k in range(first, min(first + ROWS, r)):
                    part_of_total += exp32(x[p + k * m] - shift)
                total += part_of_total
            out[i * m + j] = log64(F(total)) + shift


@primitive
def softmax_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = exp(x) / sum(exp(x)) along the middle axis, without overflow."""
    if m == 1:
        for i in range(n):
            best = _largest_of_row(x, i * r, r)
            for k in range(i * r, i * r + r):
                out[k] = x[k] - best
        for k in range(n * r):
            out[k] = exp32(out[k])
        for i in range(n):
            total = row_sum(out, i * r, r)
            for k in range(i * r, i * r + r):
                out[k] /= total
        return
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            best = _largest(x, p, r, m)
            total = F(0)
            for k in range(r):
                e = exp32(x[p + k * m] - best)
                out[p + k * m] = e
                total += e
            for k in range(r):
                out[p + k * m] /= total


@primitive
def log_softmax_over(out: Out, x: In, n: Int, r: Int, m: Int):
    """out = x - log(sum(exp(x))) along the middle axis, without overflow."""
    if m == 1:
        block = _blocks_of_rows(r)
        work = np.empty(block * r, np.float32)
        totals = np.empty(block, np.float32)
        for first in range(0, n, block):
            begin = first * r
            rows = min(block, n - first)
            for i in range(rows):
                p = begin + i * r
                best = _largest_of_row(x, p, r)
                for k in range(p, p + r):
                    out[k] = x[k] - best
            for k in range(rows * r):
                work[k] = exp32(out[begin + k])
            for i in range(rows):
                totals[i] = row_sum(work, i * r, r)
            for i in range(rows):
                totals[i] = log64(totals[i])
            for i in range(rows):
                p = begin + i * r
                total = totals[i]
                for k in range(p, p + r):
                    out[k] -= total
        return
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            best = _largest(x, p, r, m)
            total = F(0)
            for k in range(r):
                total += exp32(x[p + k * m] - best)
            log_total = F(log64(total))
            for k in range(r):
                out[p + k * m] = x[p + k * m] - best - log_total


@primitive
def softmax_backward(out: Out, g: In, y: In, n: Int, r: Int, m: Int):
    """``y * (g - sum(g * y))`` along the middle axis."""
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            dot = F(0)
            for k in range(r):
                dot += g[p + k * m] * y[p + k * m]
            for k in range(r):
                out[p + k * m] = y[p + k * m] * (g[p + k * m] - dot)


@primitive
def log_softmax_backward(out: Out, g: In, y: In, n: Int, r: Int, m: Int):
    """``g - exp(y) * sum(g)`` along the middle axis."""
    if m == 1:
        for k in range(n * r):
            out[k] = exp32(y[k])
        for i in range(n):
            total = row_sum(g, i * r, r)
            for k in range(i * r, i * r + r):
                out[k] = g[k] - out[k] * total
        return
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            total = F(0)
            for k in range(r):
                total += g[p + k * m]
            for k in range(r):
                out[p + k * m] = g[p + k * m] - exp32(y[p + k * m]) * total
