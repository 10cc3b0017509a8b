"""A launch: one call of a primitive on given buffers. Run it now or, while a program is recorded, also write it down.

Nothing else in the lab touches the memory of a tensor.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from rl_lab.engine.memory import Storage, private_pool
from rl_lab.native import machine
from rl_lab.native.primitive import CHECKED, Primitive

Part = tuple[tuple[Any, ...], tuple[int, ...], tuple[float, ...]]
"""Tensors, where in each the part begins (in elements), and the numbers."""


class Recorder(Protocol):
    """What writes launches down, and is told what a program depends on besides its launches."""

    def record(self, primitive: Primitive, tensors: tuple, row: bytes) -> None:
        """A launch."""
        ...

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        """A launch in independent parts."""
        ...

    def table(self, table: Any, tensors: list[Any]) -> None:
        """A table of addresses: launches that get it read and write these tensors."""
        ...

    def grad_read(self, leaf: Any) -> None:
        """What is done depends on ``leaf.grad`` as it is now."""
        ...

    def grad_written(self, leaf: Any) -> None:
        """``leaf.grad`` is about to be replaced."""
        ...


class _Recording(threading.local):
    recorder: Any = None


_recording = _Recording()
_recorders = 0  # how many threads record: a plain global is read faster than a thread's own
_counting = threading.Lock()


def recorder() -> Any:
    """This thread's recorder, or None."""
    return _recording.recorder if _recorders else None


@contextlib.contextmanager
def record_with(recorder: Recorder | None) -> Iterator[None]:
    """Let ``recorder`` write down this thread's launches; None pauses an outer recording."""
    global _recorders
    previous, _recording.recorder = _recording.recorder, recorder
    with _counting:
        _recorders += 1
    try:
        yield
    finally:
        _recording.recorder = previous
        with _counting:
            _recorders -= 1


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Make something that outlives the recording, or that Python fills and no launch fills again, as if nothing were recorded."""
    with record_with(None), private_pool(None):
        yield


class _Structure:
    """Counts changes that launches cannot show: a parameter replaced, a layer's mode switched. Programs are recorded anew then."""

    def __init__(self) -> None:
        self.version = 0

    def changed(self) -> None:
        self.version += 1


structure = _Structure()


def user_line() -> str:
    """File and line of the innermost caller outside the lab: where a user should look."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "rl_lab":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
    """Run ``primitive`` on the tensors' memory and the numbers, both in the order of its parameters.

    The caller has checked shapes and dtypes: kernels index without bounds.
    """
    if len(tensors) == 2:
        a, b = tensors
        row = primitive.pack(a.address, b.address, *numbers)
    elif len(tensors) == 3:
        a, b, c = tensors
        row = primitive.pack(a.address, b.address, c.address, *numbers)
    else:
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers)
    if _recorders and _recording.recorder is not None:
        _recording.recorder.record(primitive, tensors, row)
    primitive.call(row)


if CHECKED:

    def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
        """The same with each buffer's true length behind the row."""
        lengths = [(t.storage.address + t.storage.nbytes - t.address) // t.dtype.itemsize for t in tensors]
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths)
        if recorder() is not None:
            recorder().record(primitive, tensors, row)
        primitive.call(row)


def launch_parts(primitive: Primitive, parts: Sequence[Part], cycles: int) -> None:
    """Run ``primitive`` on independent parts, on several cores if they are free; ``cycles`` is about what one core would need.

    The parts depend on shapes alone and never on the number of threads, so the result does not either.
    """
    rows = []
    for tensors, offsets, numbers in parts:
        addresses = [t.address + offset * t.dtype.itemsize for t, offset in zip(tensors, offsets, strict=True)]
        ends = [t.storage.address + t.storage.nbytes for t in tensors] if CHECKED else []
        lengths = [(end - start) // t.dtype.itemsize for end, start, t in zip(ends, addresses, tensors, strict=False)]
        rows.append(primitive.pack(*addresses, *numbers, *lengths))
    if recorder() is not None:
        recorder().record_parts(primitive, parts, rows, cycles)
    cells = machine.parallel_table(primitive.address, rows)
    table = Storage(len(cells))
    table.bytes()[:] = np.frombuffer(cells, np.uint8)
    machine.in_parallel.call(machine.parallel_row(table.address, rows, cycles))
