"""Calls kernels by address, on one core or several.

A recorded program is three arrays: the kernels' addresses, the position of each launch's row, and the rows. Replaying it is the
two-line loop below, itself a primitive. Eager code calls one kernel at a time through `Primitive.call`; both run the same machine code.
"""

import struct
from collections.abc import Sequence

import numba
import numpy as np

from rl_lab.native.pointers import call, copy_bytes, load_int
from rl_lab.native.primitive import CHECKED, InInt, InOutInt, Int, primitive, primitive_from_source
from rl_lab.native.threads import SHARING, WATCHED, cycles, may_share, note_region, note_replay, region_state, unwatched


@primitive(keeps_lock=False)
def replay(kernels: InInt, rows: InInt, status: InInt, trials: InOutInt, count: Int, base: Int):
    """Call the kernels in order; launch i's row begins ``8 * rows[i]`` bytes after the address ``base``.

    Stops before the next launch if a kernel has set ``status[0]``, because later kernels would compute from missing results.
    ``trials`` is the state of `note_replay`.
    """
    begin = np.int64(0)
    if trials[WATCHED] != 0:
        begin = cycles()
    for i in range(count):
        if status[0] != 0:
            break
        call(kernels[i], base + 8 * rows[i])
    if trials[WATCHED] != 0 and status[0] == 0:
        note_replay(trials, cycles() - begin)


def replay_row(
    kernels: np.ndarray, rows: np.ndarray, status: np.ndarray, operands: np.ndarray, trials: np.ndarray = unwatched
) -> bytes:
    """Pack the row of `replay`: int64 (launches,) addresses and positions, int64 (at least 1,), and the int64 cells of all rows.

    The arrays must stay alive.
    """
    checks = (kernels.size, rows.size, status.size, trials.size) if CHECKED else ()
    addresses = (kernels.ctypes.data, rows.ctypes.data, status.ctypes.data, trials.ctypes.data)
    return replay.pack(*addresses, kernels.size, operands.ctypes.data, *checks)


@primitive(keeps_lock=False)
def copy_spans(spans: InInt, count: Int):
    """Copy ``count`` pieces of memory: a source address, a target address and a number of bytes for each."""
    for i in range(count):
        copy_bytes(spans[3 * i + 1], spans[3 * i], spans[3 * i + 2])


def copy_spans_row(spans: np.ndarray) -> bytes:
    """Pack the row of `copy_spans` for int64 (count, 3), which must stay alive."""
    return copy_spans.pack(spans.ctypes.data, len(spans), *((spans.size,) if CHECKED else ()))


# --- a loop of calls and copies ------------------------------------------------------------------------------------------------

Action = tuple[int, int, int, int]
"""One action of `repeat`: four cells, see `call_action` and `copy_action`."""


def call_action(kernel: int, row: int) -> Action:
    """Call the kernel at address ``kernel`` on the row at address ``row``."""
    return kernel, row, 0, 0


def copy_action(source: int, target: int, count: int, stride: int = 0) -> Action:
    """Copy ``count`` bytes between two addresses; the target moves on by ``stride`` bytes after each step."""
    return source, target, count, stride


@primitive(keeps_lock=False)
def repeat(progress: InOutInt, actions: Int, count: Int, steps: Int, stop: Int):
    """Take the same ``count`` actions in each of ``steps`` steps, until the cell at address ``stop`` is not 0.

    The actions, four cells each, begin at address ``actions``. ``progress[0]`` counts the steps.
    """
    for t in range(steps):
        for i in range(count):
            action = actions + 32 * i
            first = load_int(action, 0)
            second = load_int(action, 1)
            size = load_int(action, 2)
            if size == 0:
                call(first, second)
            else:
                copy_bytes(second + t * load_int(action, 3), first, size)
        progress[0] += 1
        if load_int(stop, 0) != 0:
            break


def repeat_row(progress: np.ndarray, actions: np.ndarray, steps: int, stop: int) -> bytes:
    """Pack the row of `repeat`: ``progress`` int64 (at least 1,), ``actions`` int64 (count, 4), ``stop`` an address."""
    checks = (progress.size,) if CHECKED else ()
    return repeat.pack(progress.ctypes.data, actions.ctypes.data, actions.size // 4, steps, stop, *checks)


_OUTER = """
    moves = row + 24
    cells = moves + 8 * operands
    for i in range(count):
        call(kernel, cells)
        for k in range(operands):
            int64_at(cells)[k] += load_int(moves, k)
"""
outer = primitive_from_source("outer", {"kernel": Int, "count": Int, "operands": Int}, _OUTER, {"call": call}, __file__)
"""Call a kernel ``count`` times on one row, whose first ``operands`` cells, addresses, move on after each call.

The row goes on with these distances in bytes, and then with the kernel's row, which changes.
"""


def outer_row(kernel: int, count: int, moves: Sequence[int], row: bytes) -> bytes:
    """Pack the row of `outer`: the kernel at address ``kernel`` is called on ``row``."""
    return struct.pack(f"{3 + len(moves)}q", kernel, count, len(moves), *moves) + row


# --- several cores -------------------------------------------------------------------------------------------------------------


@numba.njit(parallel=True, nogil=True, error_model="numpy")
def _each(table, count, length):
    for t in numba.prange(count):
        row = table + 8 * t * length
        call(load_int(row, 0), row + 8)


@primitive(starts_threads=True)
def in_parallel(table: Int, count: Int, length: Int, expected: Int, sharing: Int, choice: Int):
    """Run independent launches on all cores; on one core they would take about ``expected`` cycles in total.

    The table at address ``table`` has ``count`` rows of ``length`` cells, each a kernel's address followed by that kernel's row. The cell
    at address ``sharing`` is 0 in a process that must not enter parallel regions, and the cell at ``choice`` while one core is faster.
    """
    state = region_state()
    if load_int(choice, 0) != 0 and may_share(state, load_int(sharing, 0)):
        begin = cycles()
        _each(table, count, length)
        note_region(state, cycles() - begin, expected)
    else:
        for t in range(count):
            row = table + 8 * t * length
            call(load_int(row, 0), row + 8)


def parallel_table(kernel: int, rows: Sequence[bytes]) -> bytes:
    """Cells of the table that `in_parallel` reads: the kernel's address before each row."""
    head = kernel.to_bytes(8, "little")
    return b"".join([head + row for row in rows])


def parallel_row(table: int, rows: Sequence[bytes], expected: int, trials: np.ndarray = unwatched) -> bytes:
    """Pack the row of `in_parallel` for a table at address ``table``. ``trials`` belong to the program, see `note_replay`."""
    return in_parallel.pack(table, len(rows), 1 + len(rows[0]) // 8, expected, SHARING, trials.ctypes.data)


def parallel_tail(count: int, length: int, expected: int) -> bytes:
    """`parallel_row` without its first cell, the address of the table, for ``count`` rows of ``length`` cells."""
    return struct.pack("5q", count, length, expected, SHARING, unwatched.ctypes.data)
