"""Calls kernels by address.

A program is three arrays: the kernels' addresses, where each launch's row begins, and the rows. Replaying it is the two-line loop
below, itself a primitive. Eager code calls one kernel at a time through `Primitive.call`; both run the same machine code.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rl_lab.native.cores import call, cycles, may_share, note_region, region_state
from rl_lab.native.primitive import CHECKED, InInt, InOutInt, Int, load_int, primitive


@primitive(keeps_lock=False)
def replay(kernels: InInt, rows: InInt, count: Int, base: Int):
    """Call the kernels in order; launch i's row begins ``8 * rows[i]`` bytes after the address ``base``."""
    for i in range(count):
        call(kernels[i], base + 8 * rows[i])


@intrinsic
def _copy(_, target, source, count):
    def build(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(args[0], byte), builder.inttoptr(args[1], byte), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@primitive(keeps_lock=False)
def repeat(progress: InOutInt, actions: Int, count: Int, steps: Int, stop: Int):
    """Take the same actions in each of ``steps`` steps, until the cell at address ``stop`` is not 0.

    At address ``actions`` stand ``count`` times four cells: a kernel's address, its row, 0, 0; or for a copy the source, the target,
    the bytes, and how far the target moves in each step. ``progress`` counts the steps.
    """
    for t in range(steps):
        for i in range(count):
            action = actions + 32 * i
            first, second, size = load_int(action, 0), load_int(action, 1), load_int(action, 2)
            if size == 0:
                call(first, second)
            else:
                _copy(second + t * load_int(action, 3), first, size)
        progress[0] += 1
        if load_int(stop, 0) != 0:
            break


def repeat_row(progress: np.ndarray, actions: np.ndarray, steps: int, stop: int) -> bytes:
    """The row of `repeat`; ``progress`` int64 (at least 1), ``actions`` int64 (4 times their count), ``stop`` an address."""
    checks = (progress.size,) if CHECKED else ()
    return repeat.pack(progress.ctypes.data, actions.ctypes.data, actions.size // 4, steps, stop, *checks)


@numba.njit(parallel=True, nogil=True, error_model="numpy")
def _each(table, count, length):
    for t in numba.prange(count):
        row = table + 8 * t * length
        call(load_int(row, 0), row + 8)


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
            call(load_int(row, 0), row + 8)
