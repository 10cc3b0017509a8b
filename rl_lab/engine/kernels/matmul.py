"""Matrix products by BLAS, for a batch of matrices. A transposed operand is read in place, so gradients need no copies.

``sa`` and ``sb`` are the distances between the batch's matrices (0 repeats one). Sizes: a is n x k, b is k x m, out is n x m.
"""

import numpy as np

from rl_lab.engine.primitive import In, Int, Out, matrix, primitive


@primitive(uses_blas=True)
def matmul(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a and b row by row."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_nt(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """b's memory holds its transpose, m x k."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, m, k).T, matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_tn(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a's memory holds its transpose, k x n."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, k, n).T, matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))
