"""A launch: one call of a primitive on given buffers. Run it now or, while a program is recorded, also write it down.

Nothing else in the lab touches the memory of a tensor.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from rl_lab.engine.primitive import CHECKED, Primitive


class Recorder(Protocol):
    def record(self, primitive: Primitive, tensors: tuple, row: bytes) -> None: ...


class _Recording(threading.local):
    recorder: Recorder | None = None


recording = _Recording()
"""``recording.recorder`` is this thread's recorder, or None. Set it by `record_with` only."""
_recorders = 0  # how many threads record: a plain global is read faster than a thread's own


@contextlib.contextmanager
def record_with(recorder: Recorder | None) -> Iterator[None]:
    """Let ``recorder`` write down this thread's launches; None pauses an outer recording."""
    global _recorders
    previous = recording.recorder
    recording.recorder = recorder
    with _counting:
        _recorders += 1
    try:
        yield
    finally:
        recording.recorder = previous
        with _counting:
            _recorders -= 1


_counting = threading.Lock()


def user_line() -> str:
    """File and line of the innermost caller outside the lab: where a user should look."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "rl_lab":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
    """Run ``primitive`` on the tensors' memory and the numbers, both in the order of its parameters.

    The caller has checked shapes, dtypes and indices: kernels index without bounds.
    """
    if len(tensors) == 2:
        a, b = tensors
        row = primitive.pack(a.address, b.address, *numbers)
    elif len(tensors) == 3:
        a, b, c = tensors
        row = primitive.pack(a.address, b.address, c.address, *numbers)
    else:
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers)
    if _recorders and recording.recorder is not None:
        recording.recorder.record(primitive, tensors, row)
    primitive.call(row)


if CHECKED:

    def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
        """The same with each buffer's true length behind the row."""
        lengths = [(t.storage.address + t.storage.nbytes - t.address) // t.dtype.itemsize for t in tensors]
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths)
        if recording.recorder is not None:
            recording.recorder.record(primitive, tensors, row)
        primitive.call(row)
