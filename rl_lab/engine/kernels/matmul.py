"""Matrix products by BLAS, for a batch of matrices. A transposed operand is read in place, so gradients need no copies.

Sizes: a is n x k, b is k x m, out is n x m; ``sa`` and ``sb`` are the distances between the batch's matrices (0 repeats one).
"""

import numpy as np
from numba import njit

from rl_lab.engine.primitive import In, Int, Out, matrix, primitive


@njit(error_model="numpy")
def _transposed(b, k, m):
    """b's memory, m x k, as a k x m matrix of its own."""
    copy = np.empty((k, m), np.float32)
    source = matrix(b, 0, m, k)
    for i in range(k):
        row = copy[i]
        for j in range(m):
            row[j] = source[j, i]
    return copy


@primitive(uses_blas=True)
def matmul(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a and b row by row."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_nt(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """b's memory holds its transpose, m x k."""
    # BLAS reads a transposed operand of a small product slowly; a large one it packs anyway
    if n >= 32 and m >= 8 and k * m <= 12_288 and batch == 1:
        np.dot(matrix(a, 0, n, k), _transposed(b, k, m), matrix(out, 0, n, m))
        return
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, m, k).T, matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_tn(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a's memory holds its transpose, k x n."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, k, n).T, matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))
