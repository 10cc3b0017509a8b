"""A launch: one call of a primitive on given buffers. Run it now or, while a program is recorded, also write it down.

Nothing else in the lab touches the memory of a tensor.
"""

import contextlib
import itertools
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from rl_lab.engine.dtype import DType, bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.memory import Storage, private_pool
from rl_lab.native import machine
from rl_lab.native.primitive import CHECKED, Primitive

Part = tuple[tuple[Any, ...], tuple[int, ...], tuple[float, ...]]
"""Tensors, where in each the part begins (in elements), and the numbers."""


class Recorder(Protocol):
    """What writes launches down, and is told what a program depends on besides its launches."""

    reason: str | None
    """Why nothing is written down any more; None while the recording goes on."""
    ran_backward: bool
    """Whether a walk back through a graph was recorded."""
    reads: Any
    """Notes of what the call reads of Python's state."""
    undoing: list[Callable[[], Any]]
    """What to call as well, last first, if the call fails."""

    def launch(self, primitive: Primitive, tensors: tuple, numbers: tuple) -> None:
        """Run a launch, and write it down."""
        ...

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        """Write down a launch in independent parts, which the caller runs."""
        ...

    def table(self, table: Any, tensors: list[Any]) -> None:
        """Note a table of addresses: launches that get the table read and write these tensors."""
        ...

    def grad_read(self, leaf: Any) -> None:
        """Note that what is done depends on ``leaf.grad`` as it is now."""
        ...

    def grad_written(self, leaf: Any) -> None:
        """Note that ``leaf.grad`` is about to be replaced."""
        ...

    def uses(self, owner: Any) -> None:
        """Note that what is done depends on the structure of a module or an optimizer."""
        ...

    def made(self, owner: Any) -> None:
        """Note that a module or an optimizer was made during the recording."""
        ...

    def uses_tensor(self, tensor: Any) -> None:
        """Note that what is done depends on where a tensor's memory is, and on whether the tensor requires grad."""
        ...

    def give_up(self, reason: str) -> None:
        """Stop recording: the rest of the call runs eagerly, and so do later calls."""
        ...


class _Recording(threading.local):
    recorder: Any = None


_recording = _Recording()
_recorders = 0  # how many threads record: a plain global is read faster than a thread's own
_counting = threading.Lock()


def recorder() -> Any:
    """This thread's recorder, or None."""
    if not _recorders:
        return None
    current = _recording.recorder
    return None if current is None or current.reason is not None else current


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


class Counted:
    """What counts its own changes: a module or an optimizer."""

    changes: int | None = None
    """How often it got other parts, settings or state, counted from when a recorded program first used it."""

    def __new__(cls, *arguments: Any, **settings: Any) -> Any:
        made = object.__new__(cls)
        if (recording := recorder()) is not None:
            recording.made(made)
        return made


class Changes:
    """Counts changes, anywhere in the process, that launches cannot show: a parameter replaced, a layer's mode switched.

    A program has guards of its own on all that it depends on. The count only tells when they need not be looked at: as long as it
    stands still, nothing has changed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.grads_seen = 0
        """Counts how often somebody got hold of a gradient."""
        self._next = itertools.count(1).__next__  # atomic: threads never store the same number

    def note(self, owner: Any = None) -> None:
        """Call after a change. ``owner``, if given, is the module or optimizer that has other parts now."""
        if owner is not None and owner.changes is not None:
            object.__setattr__(owner, "changes", owner.changes + 1)
        self.count = self._next()


changes = Changes()


def user_line() -> str:
    """File and line of the innermost caller outside the lab: where a user should look."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "rl_lab":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def lengths_of(tensors: Sequence[Any]) -> list[int]:
    """Elements from each tensor's first to the end of its memory: what kernels that check their indices get behind the row."""
    return [(t.storage.address + t.storage.nbytes - t.address) // t.dtype.itemsize for t in tensors] if CHECKED else []


_dtype_of = operator.attrgetter("dtype")
_KINDS = {"float32": float32, "int64": int64, "uint8": bool_}


def check_dtypes(primitive: Primitive, tensors: Sequence[Any]) -> None:
    """Raise DtypeError if the kernel would read or write one of the tensors as another dtype than it has."""
    for tensor, kind in zip(tensors, kinds_of(primitive), strict=True):
        if tensor.dtype is not kind and (tensor.dtype is not uint8 or kind is not bool_):
            wanted = ", ".join(dict.fromkeys(kind.name for kind in primitive.kinds))
            given = ", ".join(t.dtype.name for t in tensors)
            raise DtypeError(
                f"the kernel {primitive.name} takes {wanted}, got {given}: convert with .float(), .long() or .bool()"
            )


def kinds_of(primitive: Primitive) -> tuple[DType, ...]:
    """The dtypes of a primitive's buffers; bool stands for uint8, too."""
    if None in primitive.kinds:
        primitive.kinds = tuple([_KINDS[role.dtype] for role in primitive.buffers])
    return primitive.kinds


def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
    """Run ``primitive`` on the tensors' memory and the numbers, both in the order of its parameters.

    The caller has checked shapes: kernels index without bounds. Raises DtypeError for a tensor of another dtype than the kernel's.
    """
    if _recorders and _recording.recorder is not None:
        _recording.recorder.launch(primitive, tensors, numbers)
        return
    if len(tensors) == 2:
        a, b = tensors
        first, second = primitive.kinds
        if a.dtype is not first or b.dtype is not second:
            check_dtypes(primitive, tensors)
        row = primitive.pack(a.address, b.address, *numbers)
    elif len(tensors) == 3:
        a, b, c = tensors
        first, second, third = primitive.kinds
        if a.dtype is not first or b.dtype is not second or c.dtype is not third:
            check_dtypes(primitive, tensors)
        row = primitive.pack(a.address, b.address, c.address, *numbers)
    else:
        if tuple(map(_dtype_of, tensors)) != primitive.kinds:
            check_dtypes(primitive, tensors)
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers)
    primitive.call(row)


if CHECKED:

    def launch(primitive: Primitive, tensors: tuple[Any, ...], numbers: tuple[float, ...] = ()) -> None:
        """The same with each buffer's true length behind the row."""
        if _recorders and _recording.recorder is not None:
            _recording.recorder.launch(primitive, tensors, numbers)
        else:
            check_dtypes(primitive, tensors)
            primitive.call(primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths_of(tensors)))


def launch_parts(primitive: Primitive, parts: Sequence[Part], cycles: int) -> None:
    """Run ``primitive`` on independent parts, on several cores if they are free; ``cycles`` is about what one core would need.

    The parts depend on shapes alone and never on the number of threads, so the result does not either.
    """
    rows = []
    for tensors, offsets, numbers in parts:
        check_dtypes(primitive, tensors)
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
