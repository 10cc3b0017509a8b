"""Matrix products, for a batch of matrices: most by tiles of our own, some shapes by BLAS. No operand is copied but a transposed b.

Sizes: a is n x k, b is k x m, out is n x m; ``sa`` and ``sb`` are the distances between the batch's matrices (0 repeats one). The
``layout`` says whose memory holds the transpose, ``end`` what becomes of the sums with the help of ``extra`` before they leave the
cache. Which kernel multiplies depends on the shape alone, see `takes_tiles`.
"""

import numpy as np
from numba import njit

from rl_lab.engine.kernels.scalar import relu32, tanh32
from rl_lab.engine.kernels.tiles import HEIGHTS, WIDTH, tile, transpose_block
from rl_lab.native.pointers import address_of, matrix
from rl_lab.native.primitive import In, Int, Out, primitive

PLAIN, B_TRANSPOSED, A_TRANSPOSED = 0, 1, 2
"""Layouts: a and b row by row; b's memory is m x k; a's memory is k x n."""

NOTHING, ADD, ADD_RELU, ADD_TANH, RELU_BACKWARD, TANH_BACKWARD = range(6)
"""Ends: extra is a row that is added, and an activation follows; or, shaped as out, the activation's output in a gradient."""
END_CELL = 11
"""Where the end stands in both kernels' rows."""


def takes_tiles(layout: int, n: int, k: int, m: int) -> bool:
    """Whether `matmul_tiles` beats BLAS: not for columns that fill no vector, nor few rows of a large b, nor what exceeds the cache."""
    if m < WIDTH or n * (1 if layout == B_TRANSPOSED else 3) < 12:
        return False
    return layout == A_TRANSPOSED or (k < 1024 and k * m < 500_000)


F = np.float32


@njit(error_model="numpy")
def _transposed(b, start, k, m):
    """b's memory from ``start`` on, m x k, as a k x m matrix of its own."""
    copy = np.empty((k, m), np.float32)
    source, target = address_of(b, start, m * k), copy.ctypes.data
    blocks_k, blocks_m = k - k % WIDTH, m - m % WIDTH
    for i in range(0, blocks_m, WIDTH):
        for j in range(0, blocks_k, WIDTH):
            transpose_block(source + 4 * (i * k + j), k, target + 4 * (j * m + i), m)
    edges = matrix(b, start, m, k)
    for p in range(k):
        row = copy[p]
        for j in range(blocks_m if p < blocks_k else 0, m):
            row[j] = edges[j, p]
    return copy


@njit(error_model="numpy")
def _finish(out, first, extra, n, m, ldc, end):
    """The end of n rows of m sums whose first is ``out[first]``."""
    for o in range(first, first + n * ldc, ldc):
        if end == ADD:
            for j in range(m):
                out[o + j] = out[o + j] + extra[j]
        elif end == ADD_RELU:
            for j in range(m):
                out[o + j] = relu32(out[o + j] + extra[j])
        elif end == ADD_TANH:
            for j in range(m):
                out[o + j] = tanh32(out[o + j] + extra[j])
        elif end == RELU_BACKWARD:
            for j in range(m):
                s, g = extra[o + j], out[o + j]
                out[o + j] = g if s > F(0) else (F(0) if s == s else g)
        else:
            for j in range(m):
                s = extra[o + j]
                out[o + j] = out[o + j] * (F(1) - s * s)


@njit(error_model="numpy")
def _tiles(a, b, out, n, k, m, row, step, ldb, ldc, result, first, extra, end):
    """The product of matrices at three addresses; a's rows are ``row`` numbers apart and its columns ``step``.

    ``out`` is the address of ``result[first]``.
    """
    i, at = 0, 0
    while i < n:
        while HEIGHTS[at] > n - i:
            at += 1
        height = HEIGHTS[at]
        j = 0
        while j < m:
            width = min(2 * WIDTH, m - j)
            tile(a + 4 * i * row, b + 4 * j, out + 4 * (i * ldc + j), k, row, step, ldb, ldc, height, width)
            j += width
        if end != NOTHING:
            _finish(result, first + i * ldc, extra, height, m, ldc, end)
        i += height


@primitive
def matmul_tiles(
    out: Out,
    a: In,
    b: In,
    extra: In,
    batch: Int,
    n: Int,
    k: Int,
    m: Int,
    sa: Int,
    sb: Int,
    layout: Int,
    end: Int,
    lda: Int,
    ldb: Int,
    ldc: Int,
):
    """By tiles; lda, ldb and ldc are the distances between the rows as they lie in memory. A transposed b has no gaps."""
    for t in range(batch):
        first = t * n * m
        target = address_of(out, first, (n - 1) * ldc + m)
        if layout == A_TRANSPOSED:
            left, row, step = address_of(a, t * sa, (k - 1) * lda + n), 1, lda
        else:
            left, row, step = address_of(a, t * sa, (n - 1) * lda + k), lda, 1
        if layout == B_TRANSPOSED:
            copy = _transposed(b, t * sb, k, m)
            _tiles(left, copy.ctypes.data, target, n, k, m, row, step, m, ldc, out, first, extra, end)
        else:
            right = address_of(b, t * sb, (k - 1) * ldb + m)
            _tiles(left, right, target, n, k, m, row, step, ldb, ldc, out, first, extra, end)


@primitive(uses_blas=True)
def matmul_blas(out: Out, a: In, b: In, extra: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int, layout: Int, end: Int):
    """By BLAS, whose matrices lie without gaps."""
    for t in range(batch):
        target = matrix(out, t * n * m, n, m)
        if layout == PLAIN:
            np.dot(matrix(a, t * sa, n, k), matrix(b, t * sb, k, m), target)
        elif layout == A_TRANSPOSED:
            np.dot(matrix(a, t * sa, k, n).T, matrix(b, t * sb, k, m), target)
        else:
            np.dot(matrix(a, t * sa, n, k), matrix(b, t * sb, m, k).T, target)
        if end != NOTHING:
            _finish(out, t * n * m, extra, n, m, m, end)
