"""Matrix factorisations of many small matrices, in float64, by algorithms of our own: LAPACK differs from processor to processor."""

import numpy as np

from rl_lab.engine.kernels.elementary import log64
from rl_lab.native.primitive import In, Int, Out, OutInt, primitive

F = np.float32
SINGULAR = 8
NOT_POSITIVE = 9
"""Flags of a status, see `gathering.IndexStatus`: a matrix that has no inverse, or is not positive definite."""


@primitive
def solve(out: Out, a: In, b: In, status: OutInt, count: Int, n: Int, m: Int):
    """out (count, n, m) with a (count, n, n) out = b (count, n, m): Gaussian elimination with partial pivoting."""
    work = np.empty((n, n), np.float64)
    right = np.empty((n, m), np.float64)
    for i in range(count):
        for r in range(n):
            for c in range(n):
                work[r, c] = a[(i * n + r) * n + c]
            for c in range(m):
                right[r, c] = b[(i * n + r) * m + c]
        for k in range(n):
            best = k
            for r in range(k + 1, n):
                if abs(work[r, k]) > abs(work[best, k]):
                    best = r
            if work[best, k] == 0.0:
                status[0] = SINGULAR
                status[1] = i
                continue
            if best != k:
                for c in range(n):
                    work[k, c], work[best, c] = work[best, c], work[k, c]
                for c in range(m):
                    right[k, c], right[best, c] = right[best, c], right[k, c]
            for r in range(k + 1, n):
                factor = work[r, k] / work[k, k]
                for c in range(k, n):
                    work[r, c] -= factor * work[k, c]
                for c in range(m):
                    right[r, c] -= factor * right[k, c]
        for r in range(n - 1, -1, -1):
            for c in range(m):
                total = right[r, c]
                for k in range(r + 1, n):
                    total -= work[r, k] * right[k, c]
                right[r, c] = total / work[r, r]
        for r in range(n):
            for c in range(m):
                out[(i * n + r) * m + c] = F(right[r, c])


@primitive
def det(out: Out, a: In, count: Int, n: Int):
    """out (count,) = determinants of a (count, n, n)."""
    work = np.empty((n, n), np.float64)
    for i in range(count):
        for r in range(n):
            for c in range(n):
                work[r, c] = a[(i * n + r) * n + c]
        result = 1.0
        for k in range(n):
            best = k
            for r in range(k + 1, n):
                if abs(work[r, k]) > abs(work[best, k]):
                    best = r
            result *= work[best, k]
            if work[best, k] == 0.0:
                break
            if best != k:
                result = -result
                for c in range(n):
                    work[k, c], work[best, c] = work[best, c], work[k, c]
            for r in range(k + 1, n):
                factor = work[r, k] / work[k, k]
                for c in range(k, n):
                    work[r, c] -= factor * work[k, c]
        out[i] = F(result)


@primitive
def slogdet(sign: Out, logarithm: Out, a: In, count: Int, n: Int):
    """sign (count,) and logarithm (count,) of the magnitude of the determinants of a (count, n, n); 0 and -inf if singular."""
    work = np.empty((n, n), np.float64)
    for i in range(count):
        for r in range(n):
            for c in range(n):
                work[r, c] = a[(i * n + r) * n + c]
        direction = 1.0
        total = 0.0
        for k in range(n):
            best = k
            for r in range(k + 1, n):
                if abs(work[r, k]) > abs(work[best, k]):
                    best = r
            pivot = work[best, k]
            if best != k:
                direction = -direction
                for c in range(n):
                    work[k, c], work[best, c] = work[best, c], work[k, c]
            direction *= np.sign(pivot)
            total += log64(abs(pivot))
            if pivot == 0.0:
                break
            for r in range(k + 1, n):
                factor = work[r, k] / pivot
                for c in range(k, n):
                    work[r, c] -= factor * work[k, c]
        sign[i] = F(direction)
        logarithm[i] = F(total)


@primitive
def eigh(values: Out, vectors: Out, a: In, count: Int, n: Int, upper: Int):
    """values (count, n) ascending and vectors (count, n, n), in columns, of symmetric a (count, n, n): Jacobi rotations.

    Reads the lower triangle, or the upper one if ``upper`` is 1. Source: Golub and Van Loan, "Matrix Computations", section 8.5.
    """
    work = np.empty((n, n), np.float64)
    turn = np.empty((n, n), np.float64)
    for i in range(count):
        total = 0.0
        for r in range(n):
            for c in range(n):
                high, low = max(r, c), min(r, c)
                place = low * n + high if upper == 1 else high * n + low
                work[r, c] = a[i * n * n + place]
                turn[r, c] = 1.0 if r == c else 0.0
                total += work[r, c] * work[r, c]
        if not np.isfinite(total):
            for k in range(n):
                values[i * n + k] = F(np.nan)
            for k in range(n * n):
                vectors[i * n * n + k] = F(np.nan)
            continue
        for _ in range(60):
            moved = False
            for p in range(n - 1):
                for q in range(p + 1, n):
                    if abs(work[p, q]) <= 1e-16 * np.sqrt(abs(work[p, p] * work[q, q])) or abs(work[p, q]) <= 1e-18 * np.sqrt(
                        total
                    ):
                        continue
                    moved = True
                    zeta = (work[q, q] - work[p, p]) / (2.0 * work[p, q])
                    t = (1.0 if zeta >= 0.0 else -1.0) / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
                    cosine = 1.0 / np.sqrt(1.0 + t * t)
                    sine = cosine * t
                    for k in range(n):
                        x = work[p, k]
                        work[p, k] = cosine * x - sine * work[q, k]
                        work[q, k] = sine * x + cosine * work[q, k]
                    for k in range(n):
                        x = work[k, p]
                        work[k, p] = cosine * x - sine * work[k, q]
                        work[k, q] = sine * x + cosine * work[k, q]
                        x = turn[k, p]
                        turn[k, p] = cosine * x - sine * turn[k, q]
                        turn[k, q] = sine * x + cosine * turn[k, q]
            if not moved:
                break
        for k in range(n):  # the smallest first
            best = k
            for other in range(k + 1, n):
                if work[other, other] < work[best, best]:
                    best = other
            if best != k:
                work[k, k], work[best, best] = work[best, best], work[k, k]
                for row in range(n):
                    turn[row, k], turn[row, best] = turn[row, best], turn[row, k]
            values[i * n + k] = F(work[k, k])
        for r in range(n):
            for c in range(n):
                vectors[(i * n + r) * n + c] = F(turn[r, c])


@primitive
def cholesky(out: Out, a: In, status: OutInt, count: Int, n: Int):
    """out (count, n, n) = lower triangular L with L L^T = a, which is read below and on the diagonal."""
    low = np.zeros((n, n), np.float64)
    for i in range(count):
        for r in range(n):
            for c in range(r + 1):
                total = np.float64(a[(i * n + r) * n + c])
                for k in range(c):
                    total -= low[r, k] * low[c, k]
                if r == c:
                    if not total > 0.0:
                        status[0] = NOT_POSITIVE
                        status[1] = i
                    low[r, r] = np.sqrt(total)
                else:
                    low[r, c] = total / low[c, c]
        for r in range(n):
            for c in range(n):
                out[(i * n + r) * n + c] = F(low[r, c])


@primitive
def qr(q: Out, r: Out, a: In, count: Int, n: Int, m: Int, columns: Int):
    """q (count, n, columns) orthonormal and r (count, columns, m) upper triangular with q r = a (count, n, m): Householder reflections."""
    work = np.empty((n, m), np.float64)
    left = np.empty((n, n), np.float64)
    v = np.empty(n, np.float64)
    for i in range(count):
        for row in range(n):
            for c in range(m):
                work[row, c] = a[(i * n + row) * m + c]
            for c in range(n):
                left[row, c] = 1.0 if row == c else 0.0
        for k in range(min(n, m)):
            length = 0.0
            for row in range(k, n):
                length += work[row, k] * work[row, k]
            rest = length - work[k, k] * work[k, k]
            if k == n - 1 or rest == 0.0:
                continue
            length = np.sqrt(length)
            beta = -length if work[k, k] >= 0.0 else length
            squared = 0.0
            for row in range(k, n):
                v[row] = work[row, k]
            v[k] -= beta
            for row in range(k, n):
                squared += v[row] * v[row]
            for c in range(k, m):
                along = 0.0
                for row in range(k, n):
                    along += v[row] * work[row, c]
                along *= 2.0 / squared
                for row in range(k, n):
                    work[row, c] -= along * v[row]
            for row in range(n):
                along = 0.0
                for c in range(k, n):
                    along += left[row, c] * v[c]
                along *= 2.0 / squared
                for c in range(k, n):
                    left[row, c] -= along * v[c]
        for row in range(n):
            for c in range(columns):
                q[(i * n + row) * columns + c] = F(left[row, c])
        for row in range(columns):
            for c in range(m):
                r[(i * columns + row) * m + c] = F(work[row, c]) if row <= c and row < n else F(0)


@primitive
def svd(u: Out, s: Out, v: Out, a: In, count: Int, n: Int, m: Int):
    """u (count, n, m), s (count, m) descending and v (count, m, m) with u s v^T = a (count, n, m), n >= m: one-sided Jacobi rotations.

    Columns of u for singular values of 0 are unit vectors made orthogonal to the others. Source: Hestenes 1958.
    """
    work = np.empty((m, n), np.float64)  # the columns as rows
    turn = np.empty((m, m), np.float64)
    size = np.empty(m, np.float64)
    trial = np.empty(n, np.float64)
    for i in range(count):
        bad = False
        for c in range(m):
            for row in range(n):
                work[c, row] = a[(i * n + row) * m + c]
                bad = bad or not np.isfinite(work[c, row])
            for row in range(m):
                turn[c, row] = 1.0 if c == row else 0.0
        for _ in range(0 if bad else 60):
            moved = False
            for p in range(m - 1):
                for q in range(p + 1, m):
                    alpha = 0.0
                    beta = 0.0
                    gamma = 0.0
                    for row in range(n):
                        alpha += work[p, row] * work[p, row]
                        beta += work[q, row] * work[q, row]
                        gamma += work[p, row] * work[q, row]
                    if abs(gamma) <= 1e-15 * np.sqrt(alpha * beta):
                        continue
                    moved = True
                    zeta = (beta - alpha) / (2.0 * gamma)
                    t = (1.0 if zeta >= 0.0 else -1.0) / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
                    cosine = 1.0 / np.sqrt(1.0 + t * t)
                    sine = cosine * t
                    for row in range(n):
                        x = work[p, row]
                        work[p, row] = cosine * x - sine * work[q, row]
                        work[q, row] = sine * x + cosine * work[q, row]
                    for row in range(m):
                        x = turn[p, row]
                        turn[p, row] = cosine * x - sine * turn[q, row]
                        turn[q, row] = sine * x + cosine * turn[q, row]
            if not moved:
                break
        for c in range(m):
            total = 0.0
            for row in range(n):
                total += work[c, row] * work[c, row]
            size[c] = np.sqrt(total) if not bad else np.nan
        for c in range(m):  # the largest first
            best = c
            for other in range(c + 1, m):
                if size[other] > size[best]:
                    best = other
            if best != c:
                size[c], size[best] = size[best], size[c]
                for row in range(n):
                    work[c, row], work[best, row] = work[best, row], work[c, row]
                for row in range(m):
                    turn[c, row], turn[best, row] = turn[best, row], turn[c, row]
        for c in range(m):
            if size[c] > 1e-14 * size[0]:
                for row in range(n):
                    work[c, row] /= size[c]
                continue
            if bad:
                continue
            found = 0.0
            unit = 0
            while found < 0.1 / n and unit < n:  # some unit vector has a part outside of the space of the others
                for row in range(n):
                    trial[row] = 1.0 if row == unit else 0.0
                for _ in range(2):
                    for other in range(c):
                        along = 0.0
                        for row in range(n):
                            along += trial[row] * work[other, row]
                        for row in range(n):
                            trial[row] -= along * work[other, row]
                found = 0.0
                for row in range(n):
                    found += trial[row] * trial[row]
                unit += 1
            for row in range(n):
                work[c, row] = trial[row] / np.sqrt(found)
        for c in range(m):
            s[i * m + c] = F(size[c])
            for row in range(n):
                u[(i * n + row) * m + c] = F(work[c, row])
            for row in range(m):
                v[(i * m + row) * m + c] = F(turn[c, row])
