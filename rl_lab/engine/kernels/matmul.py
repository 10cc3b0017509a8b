"""Matrix products by BLAS, for a batch of matrices. A transposed operand is read in place, so gradients need no copies.

Sizes: a is n x k, b is k x m, out is n x m; ``sa`` and ``sb`` are the distances between the batch's matrices (0 repeats one).
A large product is cut into blocks for the cores. The cut depends on the sizes alone and never on the number of threads, because a
block's result can differ in the last bit from the same rows of the whole product.
"""

import numpy as np
from numba import njit, prange

from rl_lab.engine.kernels.cores import cycles, may_share, note_region, region_state
from rl_lab.engine.primitive import In, Int, Out, matrix, primitive

TWO_BLOCKS, FOUR_BLOCKS = 1_000_000, 16_000_000  # multiply-adds from which a product is cut: below, starting threads costs more

CYCLE = 16  # multiply-adds that one core makes in a cycle, about


def blocks_of(n: int, k: int, m: int) -> int:
    """Into how many blocks a product is cut."""
    size = n * k * m
    return 1 if size < TWO_BLOCKS else 2 if size < FOUR_BLOCKS else 4


_blocks_of = njit(blocks_of)


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


@njit(error_model="numpy")
def _row_block(t, out, a, b, n, k, m, b_transposed, blocks):
    low, high = t * n // blocks, (t + 1) * n // blocks
    if high > low:
        rows, target = matrix(a, low * k, high - low, k), matrix(out, low * m, high - low, m)
        if b_transposed:
            np.dot(rows, matrix(b, 0, m, k).T, target)
        else:
            np.dot(rows, matrix(b, 0, k, m), target)


@njit(parallel=True, nogil=True, error_model="numpy")
def _row_blocks(out, a, b, n, k, m, b_transposed, blocks):
    for t in prange(blocks):
        _row_block(t, out, a, b, n, k, m, b_transposed, blocks)


@njit(error_model="numpy")
def _by_rows(out, a, b, n, k, m, b_transposed, blocks):
    state = region_state()
    if may_share(state):
        begin = cycles()
        _row_blocks(out, a, b, n, k, m, b_transposed, blocks)
        note_region(state, cycles() - begin, n * k * m // CYCLE)
    else:
        for t in range(blocks):
            _row_block(t, out, a, b, n, k, m, b_transposed, blocks)


@njit(error_model="numpy")
def _sum_block(t, out, a, b, spare, n, k, m, blocks):
    low, high = t * k // blocks, (t + 1) * k // blocks
    left, right = matrix(a, low * n, high - low, n).T, matrix(b, low * m, high - low, m)
    if t == 0:
        np.dot(left, right, matrix(out, 0, n, m))
    else:
        np.dot(left, right, matrix(spare, (t - 1) * n * m, n, m))


@njit(parallel=True, nogil=True, error_model="numpy")
def _sum_blocks(out, a, b, spare, n, k, m, blocks):
    for t in prange(blocks):
        _sum_block(t, out, a, b, spare, n, k, m, blocks)


@njit(error_model="numpy")
def _by_sum(out, a, b, spare, n, k, m, blocks):
    """Each block takes a part of the sum over k; the parts are added in order."""
    state = region_state()
    if may_share(state):
        begin = cycles()
        _sum_blocks(out, a, b, spare, n, k, m, blocks)
        note_region(state, cycles() - begin, n * k * m // CYCLE)
    else:
        for t in range(blocks):
            _sum_block(t, out, a, b, spare, n, k, m, blocks)
    for t in range(1, blocks):
        part = matrix(spare, (t - 1) * n * m, 1, n * m)[0]
        total = matrix(out, 0, 1, n * m)[0]
        for i in range(n * m):
            total[i] += part[i]


@primitive(uses_blas=True)
def matmul(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a and b row by row."""
    blocks = _blocks_of(n, k, m)
    if blocks > 1 and batch == 1:
        _by_rows(out, a, b, n, k, m, False, blocks)
        return
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_nt(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """b's memory holds its transpose, m x k."""
    blocks = _blocks_of(n, k, m)
    if blocks > 1 and batch == 1:
        _by_rows(out, a, b, n, k, m, True, blocks)
        return
    if batch == 1 and n >= 32 and m >= 8:
        # BLAS reads a transposed operand of a small product slowly, a large one it packs anyway
        np.dot(matrix(a, 0, n, k), _transposed(b, k, m), matrix(out, 0, n, m))
        return
    for i in range(batch):
        np.dot(matrix(a, i * sa, n, k), matrix(b, i * sb, m, k).T, matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_tn(out: Out, a: In, b: In, batch: Int, n: Int, k: Int, m: Int, sa: Int, sb: Int):
    """a's memory holds its transpose, k x n."""
    for i in range(batch):
        np.dot(matrix(a, i * sa, k, n).T, matrix(b, i * sb, k, m), matrix(out, i * n * m, n, m))


@primitive(uses_blas=True)
def matmul_tn_blocks(out: Out, a: In, b: In, spare: Out, n: Int, k: Int, m: Int):
    """`matmul_tn` of one large product; ``spare`` has room for all blocks but the first."""
    _by_sum(out, a, b, spare, n, k, m, _blocks_of(n, k, m))
