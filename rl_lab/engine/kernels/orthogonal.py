"""Orthonormal vectors by an algorithm of our own: the results of LAPACK differ from processor to processor."""

import numpy as np

from rl_lab.native.part import part
from rl_lab.native.primitive import InOut, Int, primitive

D = np.float64
TOGETHER = 8
"""Rows that are made orthogonal to the finished rows together, so that each finished row is read once for all of them."""


@part
def _dot(x, y, m):
    """The dot product of two rows of m numbers, in eight partial sums, whose additions do not wait for each other."""
    a = b = c = d = e = f = g = h = D(0)
    whole = m - m % 8
    for k in range(0, whole, 8):
        a += x[k] * y[k]
        b += x[k + 1] * y[k + 1]
        c += x[k + 2] * y[k + 2]
        d += x[k + 3] * y[k + 3]
        e += x[k + 4] * y[k + 4]
        f += x[k + 5] * y[k + 5]
        g += x[k + 6] * y[k + 6]
        h += x[k + 7] * y[k + 7]
    for k in range(whole, m):
        a += x[k] * y[k]
    return ((a + e) + (c + g)) + ((b + f) + (d + h))


@part
def _remove(x, y, m):
    """Subtract from x its projection on y, a row of length 1."""
    along = _dot(x, y, m)
    for k in range(m):
        x[k] -= along * y[k]


@primitive
def orthonormalize(rows: InOut, n: Int, m: Int):
    """Make n rows of m numbers orthonormal, in place, for n <= m: the Gram-Schmidt process, twice per row, in float64."""
    x = np.empty((n, m), np.float64)
    for i in range(n):
        for k in range(m):
            x[i, k] = rows[i * m + k]
    for first in range(0, n, TOGETHER):
        last = min(n, first + TOGETHER)
        for _ in range(2):
            for j in range(first):
                for i in range(first, last):
                    _remove(x[i], x[j], m)
        for i in range(first, last):
            for _ in range(2):
                for j in range(first, i):
                    _remove(x[i], x[j], m)
            length = np.sqrt(_dot(x[i], x[i], m))
            for k in range(m):
                x[i, k] /= length
                rows[i * m + k] = x[i, k]
