"""The threads of numba, and the choice between one core and several.

A parallel region waits for its slowest thread. If another process occupies a core, that thread may wait for milliseconds, a thousand
times the duration of a small product. So each region is timed. A region that does not stall earns credit, and one that stalls spends
it. Without credit the work stays on one core for a while, longer each time the credit runs out. Where data move slowly from core to core,
two cores can take longer than one although both are free; so each program now and then tries the other way for a few replays. The division
into blocks does not depend on the number of cores, so the results do not either.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import compiler_lock
from numba.extending import intrinsic

from rl_lab.native.part import part

_starting = threading.Lock()
_FIRST_REST = 64  # calls on one core after the credit ran out for the first time
_LONGEST_REST = 2048
_MOST_CREDIT = 20_000_000  # cycles, about the cost of two stalls


def usable_cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def start_threads() -> None:
    """Start numba's threads on the OpenMP layer, whose parallel regions have the lowest cost.

    Call this before running code with a parallel region: code loaded from the cache aborts the process if the threads do not run.
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


# --- one core or several -----------------------------------------------------------------------------------------------------

sharing = np.ones(1, np.int64)
"""1 if this process may enter parallel regions, 0 in a forked child. Kernels read it by its address."""
SHARING = sharing.ctypes.data


_renewals: list[Callable[[], None]] = []


def after_fork_in_child(renew: Callable[[], None]) -> Callable[[], None]:
    """Call ``renew`` in every forked child. For locks: the thread that holds one during the fork does not exist in the child."""
    _renewals.append(renew)
    return renew


def renew_after_fork(namespace: dict[str, Any], name: str, make: Callable[[], Any] = threading.Lock) -> None:
    """Replace the lock ``name`` of a module in every forked child."""
    after_fork_in_child(lambda: namespace.update({name: make()}))


def _after_fork_in_child() -> None:
    """Keep all work of a forked child on one core: it has no OpenMP threads, so a parallel region would hang or abort."""
    sharing[0] = 0
    _holding.clear()
    for renew in _renewals:
        renew()


renew_after_fork(globals(), "_starting")
renew_after_fork(vars(compiler_lock.global_compiler_lock), "_lock", threading.RLock)

_LONGEST_WAIT = 60.0  # seconds
_holding: list[bool] = []
"""Whether the thread that forks holds numba's lock."""


def _before_fork() -> None:
    """Let the compilation of another thread end: the child would have half-imported modules and half-made code, and would hang."""
    _holding.append(compiler_lock.global_compiler_lock._lock.acquire(timeout=_LONGEST_WAIT))  # type: ignore[attr-defined]


def _after_fork_in_parent() -> None:
    if _holding.pop():
        compiler_lock.global_compiler_lock._lock.release()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


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


@part
def may_share(state, allowed):
    """Whether this call may wake the other cores; ``allowed`` is the value of `sharing`."""
    if allowed == 0:
        return False
    if state[0] > 0:
        state[0] -= 1
        return False
    return True


@part
def note_region(state, taken, expected):
    """Record that a parallel region took ``taken`` cycles; ``expected`` is about what one core alone would need, in cycles."""
    if taken <= 4 * expected + 200_000:
        state[2] += expected // 4  # half of the time that a second core saves
        if state[2] > _MOST_CREDIT:
            state[2] = _MOST_CREDIT
            state[1] = 0
        return
    state[2] -= taken
    if state[2] < 0:
        state[1] = min(max(2 * state[1], _FIRST_REST), _LONGEST_REST)
        state[0] = state[1]
        state[2] = 0


# --- one core or several for a whole program ---------------------------------------------------------------------------------

SEVERAL, WATCHED, LEFT, LEAST, OTHER, PERIOD = range(6)
"""Cells of a program's trials.

- SEVERAL: 1 while it uses several cores, 0 while it uses one.
- WATCHED: 0 if it never tries the other way, 2 during a trial, 1 otherwise.
- LEFT: replays until the next trial begins, or this one ends.
- LEAST: the least cycles of the latest `_TRIES` replays. OTHER: the same number from before the trial.
- PERIOD: replays between two trials.
"""
unwatched = np.array([1, 0, 0, 0, 0, 0], np.int64)
"""The trials of a program that uses one core only, and of eager code, which uses several cores without a trial."""
_TRIES = 4
_FIRST_PERIOD = 64
_LONGEST_PERIOD = 4096
_ENDLESS = 1 << 62


def new_trials() -> np.ndarray:
    """The trials of a program that could use several cores."""
    return np.array([1, 1, _FIRST_PERIOD, _ENDLESS, 0, _FIRST_PERIOD], np.int64)


@part
def note_replay(trials, taken):
    """Record that a replay took ``taken`` cycles. Every now and then, try one core instead of several or the reverse.

    After a trial the program goes the faster way. The better a way stands the trials, the rarer they become.
    """
    trials[LEAST] = min(trials[LEAST], taken)
    trials[LEFT] -= 1
    if trials[LEFT] == _TRIES and trials[WATCHED] == 1:
        trials[LEAST] = _ENDLESS
    if trials[LEFT] > 0:
        return
    if trials[WATCHED] == 1:
        trials[OTHER] = trials[LEAST]
        trials[SEVERAL] = 1 - trials[SEVERAL]
        trials[WATCHED] = 2
        trials[LEFT] = _TRIES
    else:
        if trials[LEAST] + trials[LEAST] // 32 < trials[OTHER]:  # clearly less: the trial's way stays
            trials[PERIOD] = _FIRST_PERIOD
        else:
            trials[SEVERAL] = 1 - trials[SEVERAL]
            trials[PERIOD] = min(2 * trials[PERIOD], _LONGEST_PERIOD)
        trials[WATCHED] = 1
        trials[LEFT] = trials[PERIOD]
    trials[LEAST] = _ENDLESS
