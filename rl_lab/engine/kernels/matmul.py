"""Products of batches of matrices, by tiles of our own or by BLAS. Only a transposed b is copied.

Sizes: a is (n, k), b is (k, m), out is (n, m). ``sa`` and ``sb`` are the distances between the matrices of a batch, in numbers; 0
repeats one matrix. ``layout`` says which operand is stored transposed. ``end`` names the last step, which combines each row of the
product with ``extra`` while the row is in the cache. The choice between tiles and BLAS depends on the shape alone, see `takes_tiles`.
"""

import numpy as np
from numba import njit

from rl_lab.engine.kernels.scalar import relu32, tanh32
from rl_lab.engine.kernels.tiles import HEIGHTS, WIDTH, tile, transpose_block
from rl_lab.native.pointers import address_of, matrix
from rl_lab.native.primitive import In, Int, Out, primitive

PLAIN = 0
B_TRANSPOSED = 1
A_TRANSPOSED = 2
"""Layouts: both operands row by row; b stored as (m, k); a stored as (k, n)."""

NOTHING, ADD, ADD_RELU, ADD_TANH, RELU_BACKWARD, TANH_BACKWARD = range(6)
"""Ends. ADD...: add the row ``extra`` (m), then apply the activation. ..._BACKWARD: ``extra`` (n, m) is the activation's output, and the
product, a gradient, is multiplied by the activation's slope."""
END_CELL = 11
"""The position of ``end`` in the rows of both kernels."""


def takes_tiles(layout: int, n: int, k: int, m: int) -> bool:
    """Whether `matmul_tiles` is faster than BLAS.

    BLAS is faster if m does not fill a vector, if few rows of a meet a large b, or if b exceeds the cache.
    """
    if m < WIDTH or n * (1 if layout == B_TRANSPOSED else 3) < 12:
        return False
    return layout == A_TRANSPOSED or (k < 1024 and k * m < 500_000)


F = np.float32


@njit(error_model="numpy")
def _transposed(b, start, k, m):
    """A copy (k, m) of the matrix (m, k) that begins at ``b[start]``."""
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
    """Apply ``end`` to n rows of m sums. The first row begins at ``out[first]``; rows are ``ldc`` numbers apart."""
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
    """The product of the matrices at the addresses ``a`` and ``b``, written to the address ``out``, which is that of ``result[first]``.

    Rows of a are ``row`` numbers apart, columns ``step``. Rows of b and out are ``ldb`` and ``ldc`` numbers apart.
    """
    i = 0
    at = 0
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
    """out = a @ b by tiles, then ``end``. Stored rows of a, b and out are lda, ldb and ldc numbers apart; a transposed b has no gaps."""
    for t in range(batch):
        first = t * n * m
        target = address_of(out, first, (n - 1) * ldc + m)
        if layout == A_TRANSPOSED:
            left = address_of(a, t * sa, (k - 1) * lda + n)
            row = 1
            step = lda
        else:
            left = address_of(a, t * sa, (n - 1) * lda + k)
            row = lda
            step = 1
        if layout == B_TRANSPOSED:
            copy = _transposed(b, t * sb, k, m)
            _tiles(left, copy.ctypes.data, target, n, k, m, row, step, m, ldc, out, first, extra, end)
        else:
            right = address_of(b, t * sb, (k - 1) * ldb + m)
            _tiles(left, right, target, n, k, m, row, step, ldb, ldc, out, first, extra, end)


@primitive(uses_blas=True)
def matmul_blas(out: Out, a: In, b: In, extra: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int, layout: Int, end: Int):
    """out = a @ b by BLAS, then ``end``. The rows of all three matrices have no gaps."""
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
