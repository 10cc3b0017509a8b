"""Matrix products, for a batch of matrices: most by tiles of our own, some shapes by BLAS. No operand is copied but a transposed b.

Sizes: a is n x k, b is k x m, out is n x m; ``sa`` and ``sb`` are the distances between the batch's matrices (0 repeats one). The
``layout`` says whose memory holds the transpose. Which kernel multiplies depends on the shape alone, see `takes_tiles`.
"""

import numpy as np
from numba import njit

from rl_lab.engine.kernels.tiles import HEIGHTS, WIDTH, tile, transpose_block
from rl_lab.engine.primitive import In, Int, Out, address_of, matrix, primitive

PLAIN, B_TRANSPOSED, A_TRANSPOSED = 0, 1, 2
"""Layouts: a and b row by row; b's memory is m x k; a's memory is k x n."""


def takes_tiles(layout: int, n: int, k: int, m: int) -> bool:
    """Whether `multiply` beats BLAS: not for few columns, nor few rows of a large b, nor what exceeds the cache."""
    if m < 8 or n * (1 if layout == B_TRANSPOSED else 3) < 12:
        return False
    return layout == A_TRANSPOSED or (k < 1024 and k * m < 500_000)


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
def _tiles(a, b, out, n, k, m, row, step, ldb, ldc):
    """The product of matrices at three addresses; a's rows are ``row`` numbers apart and its columns ``step``."""
    i, at = 0, 0
    while i < n:
        while HEIGHTS[at] > n - i:
            at += 1
        height = HEIGHTS[at]
        j = 0
        while j < m:
            width = 2 * WIDTH if m - j >= 2 * WIDTH else min(WIDTH, m - j)
            tile(a + 4 * i * row, b + 4 * j, out + 4 * (i * ldc + j), k, row, step, ldb, ldc, height, width)
            j += width
        i += height


@primitive
def multiply(
    out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int, lda: Int, ldb: Int, ldc: Int, layout: Int
):
    """By tiles; lda, ldb and ldc are the distances between the rows as they lie in memory. A transposed b has no gaps."""
    for t in range(batch):
        target = address_of(out, t * n * m, (n - 1) * ldc + m)
        if layout == A_TRANSPOSED:
            left, row, step = address_of(a, t * sa, (k - 1) * lda + n), 1, lda
        else:
            left, row, step = address_of(a, t * sa, (n - 1) * lda + k), lda, 1
        if layout == B_TRANSPOSED:
            copy = _transposed(b, t * sb, k, m)
            _tiles(left, copy.ctypes.data, target, n, k, m, row, step, m, ldc)
        else:
            _tiles(left, address_of(b, t * sb, (k - 1) * ldb + m), target, n, k, m, row, step, ldb, ldc)


@primitive(uses_blas=True)
def blas(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int, layout: Int):
    """By BLAS, whose matrices lie without gaps."""
    for t in range(batch):
        target = matrix(out, t * n * m, n, m)
        if layout == PLAIN:
            np.dot(matrix(a, t * sa, n, k), matrix(b, t * sb, k, m), target)
        elif layout == A_TRANSPOSED:
            np.dot(matrix(a, t * sa, k, n).T, matrix(b, t * sb, k, m), target)
        else:
            np.dot(matrix(a, t * sa, n, k), matrix(b, t * sb, m, k).T, target)
