"""A launch: one call of a primitive on given buffers. Run it now or, while a program is recorded, also write it down.

Nothing else in the lab touches the memory of a tensor.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from rl_lab.engine.memory import private_pool
from rl_lab.engine.primitive import CHECKED, Primitive


class Recorder(Protocol):
    """What writes launches down, and is told what a program depends on besides its launches."""

    def record(self, primitive: Primitive, tensors: tuple, row: bytes) -> None:
        """A launch that has been made."""
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
