"""Threads of numba, which kernels use, and of BLAS, which they do not; and the choice between one core and several.

A parallel region waits for its slowest thread. Where another process holds a core, that thread may not run for milliseconds, a
thousand times what a small product takes. So each region times itself: regions that do not stall earn credit for regions that do,
and a rare stall costs less than a second core gains. Without credit the work stays on one core for a while, longer each time the
credit runs out. The blocks of work are the same either way, and so are the results.
"""

import os
import threading
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_starting = threading.Lock()
_FIRST_REST = 64  # calls on one core after the credit ran out for the first time
_LONGEST_REST = 2048
_MOST_CREDIT = 20_000_000  # cycles, about the cost of two stalls


def start_threads() -> None:
    """Start numba's threads on the OpenMP layer, whose parallel regions cost least.

    Machine code with a parallel region that comes from the cache aborts the process unless the threads run already.
    """
    from numba.np.ufunc import parallel

    with _starting:
        if parallel._is_initialized:
            return
        config: Any = numba.config
        previous = config.THREADING_LAYER
        config.THREADING_LAYER = "omp"
        try:
            parallel._launch_threads()
        finally:
            config.THREADING_LAYER = previous


def limit_blas_threads() -> None:
    """Limit SciPy's BLAS, which numba's ``np.dot`` calls, to one thread. NumPy's own BLAS keeps its threads.

    On two threads a small product waits for a pool that any other load on the machine stalls for milliseconds. SciPy's library is
    loaded with the first kernel that contains a product, so this is called after that.
    """
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas" and "scipy" in library.filepath:
            library.set_num_threads(1)


# --- one core or several -----------------------------------------------------------------------------------------------------

sharing = np.ones(1, np.int64)
"""1 while parallel regions may be entered, at an address that kernels read; 0 in a forked child."""
SHARING = sharing.ctypes.data


def _after_fork_in_child() -> None:
    """Keep all work on one core: the parent's OpenMP threads do not exist here, and a region would wait for them or be killed."""
    sharing[0] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@intrinsic
def region_state(_):
    """Pointer to three int64 that belong to the calling machine code: calls left on one core, length of the last rest, credit."""

    def build(context, builder, signature, args):
        kind = ir.ArrayType(ir.IntType(64), 3)
        cells = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("region_state"))
        cells.linkage = "internal"
        cells.initializer = ir.Constant(kind, None)
        return builder.bitcast(cells, context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(), build


@intrinsic
def cycles(_):
    """The processor's time stamp counter; 0 on a processor without one."""

    def build(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(builder.module.declare_intrinsic("llvm.readcyclecounter", (), kind), [])

    return types.int64(), build


@njit(error_model="numpy")
def may_share(state, allowed):
    """Whether this call may wake the other cores; ``allowed`` is the value of `sharing`."""
    if allowed == 0:
        return False
    if state[0] > 0:
        state[0] -= 1
        return False
    return True


@njit(error_model="numpy")
def note_region(state, taken, expected):
    """Record that a parallel region took ``taken`` cycles; ``expected`` is about what one core alone would need, in cycles."""
    if taken <= 4 * expected + 200_000:
        state[2] += expected // 4  # of the half that a second core saves
        if state[2] > _MOST_CREDIT:
            state[2] = _MOST_CREDIT
            state[1] = 0
        return
    state[2] -= taken
    if state[2] < 0:
        state[1] = min(max(2 * state[1], _FIRST_REST), _LONGEST_REST)
        state[0] = state[1]
        state[2] = 0
