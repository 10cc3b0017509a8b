"""Calls kernels by address.

A program is three arrays: the kernels' addresses, where each launch's row begins, and the rows. Replaying it is the two-line loop
below, itself a primitive. Eager code calls one kernel at a time through `Primitive.call`; both run the same machine code.
"""

from typing import Any

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


def start_threads() -> None:
    """Start numba's threads on the OpenMP layer, whose parallel regions cost least.

    Machine code that holds a parallel region and comes from the cache aborts the process if they do not run yet. A process forked
    after the first parallel region cannot use them: start workers with spawn or forkserver.
    """
    from numba.np.ufunc import parallel

    if not parallel._is_initialized:
        config: Any = numba.config
        previous, config.THREADING_LAYER = config.THREADING_LAYER, "omp"
        try:
            parallel._launch_threads()
        finally:
            config.THREADING_LAYER = previous


def limit_blas_threads() -> None:
    """Limit SciPy's BLAS, which numba's ``np.dot`` calls, to one thread.

    On two threads a small product waits for a pool that any other load on the machine stalls for milliseconds. The library is
    loaded with the first kernel that holds a product, so this is called after that. NumPy's own BLAS keeps its threads.
    """
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas" and "scipy" in library.filepath:
            library.set_num_threads(1)
