"""Calls kernels by address.

A program is three arrays: the kernels' addresses, where each launch's row begins, and the rows. Replaying it is the two-line loop
below, itself a primitive. Eager code calls one kernel at a time through `Primitive.call`; both run the same machine code.
"""

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rl_lab.engine.kernels.cores import cycles, may_share, note_region, region_state
from rl_lab.engine.primitive import InInt, Int, load_int, primitive


@intrinsic
def _call(_, address, row):
    def build(context, builder, signature, args):
        kernel = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kernel.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


@primitive(keeps_lock=False)
def replay(kernels: InInt, rows: InInt, count: Int, base: Int):
    """Call the kernels in order; launch i's row begins ``8 * rows[i]`` bytes after the address ``base``."""
    for i in range(count):
        _call(kernels[i], base + 8 * rows[i])


@numba.njit(parallel=True, nogil=True, error_model="numpy")
def _each(table, count, length):
    for t in numba.prange(count):
        row = table + 8 * t * length
        _call(load_int(row, 0), row + 8)


@primitive(starts_threads=True)
def in_parallel(table: Int, count: Int, length: Int, expected: Int):
    """Independent launches on all cores, of about ``expected`` cycles together.

    At address ``table`` stand ``count`` times a kernel's address and its row, ``length`` cells in all.
    """
    state = region_state()
    if may_share(state):
        begin = cycles()
        _each(table, count, length)
        note_region(state, cycles() - begin, expected)
    else:
        for t in range(count):
            row = table + 8 * t * length
            _call(load_int(row, 0), row + 8)
