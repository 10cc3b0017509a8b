"""A launch: one call of a primitive on given buffers. It runs at once and, while a program is recorded, is also recorded.

Only launches read and write the memory of tensors.
"""

import contextlib
import itertools
import operator
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from rl_lab.engine.dtype import DType, bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.memory import Storage, address_of_bytes, private_pool
from rl_lab.native import machine
from rl_lab.native.primitive import CHECKED, ITEMSIZE, Primitive
from rl_lab.native.threads import renew_after_fork


class Buffer(Protocol):
    """The part of a tensor that a launch needs; the class itself stands above this module."""

    storage: Storage
    sizes: tuple[int, ...]
    dtype: DType
    address: int


Tensor = TypeVar("Tensor", bound=Buffer)
Tensor_contra = TypeVar("Tensor_contra", bound=Buffer, contravariant=True)

Part = tuple[tuple[Tensor, ...], tuple[int, ...], tuple[float, ...]]
"""One part of a launch: its tensors, the element at which the part begins in each tensor, and its numbers."""


class Recorder(Protocol[Tensor_contra]):
    """The recorder of one call. It records launches, and is told about all other state on which the call depends."""

    reason: str | None
    """Why the recording has stopped; None while it goes on."""
    ran_backward: bool
    """Whether the call ran backward."""
    failed: bool
    """Whether a kernel has reported an index out of bounds."""
    status: Any
    """The words in which kernels report an index out of bounds (`rl_lab.engine.ops.gathering.IndexStatus`)."""
    reads: Any
    """The Python state that the call reads (`rl_lab.engine.reads.Reads`)."""
    undoing: list[Callable[[], object]]
    """Functions to call, last first, if the call fails."""

    def launch(self, primitive: Primitive, tensors: tuple[Tensor_contra, ...], numbers: tuple) -> None:
        """Run a launch, and record it."""
        ...

    def record_parts(self, primitive: Primitive, parts: Sequence[Any], rows: list[bytes], cycles: int) -> None:
        """Record a launch in independent parts (see `Part`), which the caller runs."""
        ...

    def table(self, table: Tensor_contra, tensors: Any, writes: bool = True) -> None:
        """Note a table of addresses: launches that get the table read the tensors of a list and, if it ``writes``, write them."""
        ...

    def stands_in(self, storage: Any) -> bool:
        """Whether this is the memory that stands for an argument's."""
        ...

    def grad_read(self, leaf: Tensor_contra) -> None:
        """Note that the call depends on ``leaf.grad`` as it is now."""
        ...

    def sets(self, tensor: Tensor_contra, name: str) -> None:
        """Note that an attribute of a tensor is about to be set."""
        ...

    def version_before(self, storage: Storage) -> int:
        """How often the memory of an argument was written to before the call that gets ``storage`` in its place; else 0."""
        ...

    def grad_written(self, leaf: Tensor_contra, value: Tensor_contra | None) -> None:
        """Note that ``leaf.grad`` is about to be replaced."""
        ...

    def read_attribute(self, owner: "Counted", name: str) -> None:
        """Note that the call depends on an attribute of a module. The module counts the changes of this attribute."""
        ...

    def store_attribute(self, owner: "Counted", name: str) -> None:
        """Note that an attribute of a module is about to be set."""
        ...

    def uses(self, owner: "Counted") -> None:
        """Note that the call depends on the structure of a module or an optimizer."""
        ...

    def made(self, owner: "Counted") -> None:
        """Note that a module or an optimizer was made during the recording."""
        ...

    def was_made(self, owner: "Counted | None") -> bool:
        """Whether a module or an optimizer was made during the recording."""
        ...

    def uses_tensor(self, tensor: Tensor_contra) -> None:
        """Note that the call depends on a tensor's address, its requires_grad flag and its hooks."""
        ...

    def give_up(self, reason: str) -> None:
        """Stop recording: the rest of the call runs eagerly. The first reason is kept, with the user's line."""
        ...


class _Recording(threading.local):
    recorder: Recorder[Any] | None = None


_recording = _Recording()
_recorders = 0  # number of threads that record; a plain global is read faster than a thread-local
_counting = threading.Lock()
renew_after_fork(globals(), "_counting")


def recorder() -> Recorder[Any] | None:
    """The recorder of this thread; None if nothing is recorded, or the recording has stopped."""
    if not _recorders:
        return None
    current = _recording.recorder
    return None if current is None or current.reason is not None else current


def version_before(storage: Storage) -> int:
    """How often the memory of an argument was written to before the call that gets ``storage`` in its place; else 0."""
    current = _recording.recorder
    return 0 if current is None else current.version_before(storage)


def refuse(what: str) -> None:
    """Stop the recording of this thread, if there is one: the call does something that a replay would not do."""
    if (current := recorder()) is not None:
        current.give_up(what)


@contextlib.contextmanager
def record_with(recorder: Recorder[Any] | None) -> Iterator[None]:
    """Let ``recorder`` record this thread's launches while the context lasts; None pauses an outer recording."""
    global _recorders
    previous = _recording.recorder
    _recording.recorder = recorder
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
    """Pause a recording, to make tensors that outlive it or that Python code fills, so that a replay must not fill them again."""
    with record_with(None), private_pool(None):
        yield


class Counted:
    """Base of modules and optimizers, which count their own changes."""

    changes: int | None = None
    """Number of changes of parts, settings or state since a recorded program first used the object; None before that."""

    def __new__(cls, *arguments: Any, **settings: Any) -> Any:
        made = object.__new__(cls)
        if (recording := recorder()) is not None:
            recording.made(made)
        return made


class Changes:
    """Counts the changes in this process that are not launches, such as a replaced parameter or a switched mode of a layer.

    Each program compares the state on which it depends with the recorded state. It can skip the comparison while this count stays
    the same.
    """

    def __init__(self) -> None:
        self.count = 0
        self.grads_seen = 0
        """Number of reads of ``.grad`` by user code."""
        self._next = itertools.count(1).__next__  # atomic, so two threads never store the same number

    def note(self, owner: Counted | None = None) -> None:
        """Call after a change. ``owner`` is the module or optimizer whose parts have changed, if any."""
        if owner is not None and owner.changes is not None:
            object.__setattr__(owner, "changes", owner.changes + 1)
        self.count = self._next()


changes = Changes()


def user_line() -> str:
    """File and line of the innermost caller that is an agent or outside of rl_lab."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inner(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _is_inner(module: str) -> bool:
    """Whether a module belongs to rl_lab but is no agent: agents are written as users write theirs."""
    parts = module.split(".")
    return parts[0] == "rl_lab" and parts[1:2] != ["agents"]


def lengths_of(tensors: Sequence[Buffer]) -> list[int]:
    """Number of elements from each tensor's first element to the end of its memory, for kernels that check their indices.

    An empty list unless kernels check their indices (``CHECKED``).
    """
    return [(t.storage.address + t.storage.nbytes - t.address) // t.dtype.itemsize for t in tensors] if CHECKED else []


_dtype_of = operator.attrgetter("dtype")
CUT = 65_536
"""Elements from which work on single elements is cut in two; below, waking a second core costs more than it saves."""
_KINDS = {"float32": float32, "int64": int64, "uint8": bool_}


def check_dtypes(primitive: Primitive, tensors: Sequence[Buffer]) -> None:
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


def launch(primitive: Primitive, tensors: tuple[Buffer, ...], numbers: tuple[float, ...] = ()) -> None:
    """Run ``primitive`` on the tensors' memory and the numbers, both in the order of its parameters.

    The caller must check shapes, because kernels do not check bounds. Raises DtypeError for a tensor of another dtype than the kernel's.
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

    def launch(primitive: Primitive, tensors: tuple[Buffer, ...], numbers: tuple[float, ...] = ()) -> None:
        """`launch` of the debugging build: appends the length of each buffer to the row."""
        if _recorders and _recording.recorder is not None:
            _recording.recorder.launch(primitive, tensors, numbers)
        else:
            check_dtypes(primitive, tensors)
            primitive.call(primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths_of(tensors)))


class Planned:
    """A launch on tensors of fixed, already checked layouts and dtypes: the primitive, its numbers, and the packed numbers."""

    __slots__ = ("_addresses", "_tail", "numbers", "primitive")

    def __init__(self, primitive: Primitive, numbers: tuple[int, ...]):
        self.primitive = primitive
        self.numbers = numbers
        self._addresses = struct.Struct(f"{len(primitive.buffers)}q").pack
        self._tail = struct.pack(f"{len(numbers)}q", *numbers)

    def launch(self, *tensors: Buffer) -> None:
        """`launch`, without checks of dtypes."""
        if CHECKED or (_recorders and _recording.recorder is not None):
            launch(self.primitive, tensors, self.numbers)
        elif len(tensors) == 2:
            a, b = tensors
            self.primitive.call(self._addresses(a.address, b.address) + self._tail)
        else:
            self.primitive.call(self._addresses(*[tensor.address for tensor in tensors]) + self._tail)


class PlannedOuter:
    """Launches of one primitive, ``count`` times in one call, while tensor k moves on by ``steps[k]`` elements each time."""

    __slots__ = ("_addresses", "_head", "_tail", "primitive")

    def __init__(self, primitive: Primitive, count: int, steps: tuple[int, ...], numbers: tuple[int, ...]):
        self.primitive = primitive
        moves = [step * ITEMSIZE[role.dtype] for step, role in zip(steps, primitive.buffers, strict=True)]
        self._head = machine.outer_row(primitive.address, count, moves, b"")
        self._addresses = struct.Struct(f"{len(steps)}q").pack
        self._tail = struct.pack(f"{len(numbers)}q", *numbers)

    def launch(self, *tensors: Buffer) -> None:
        """Run the launches. They cannot be recorded. Raises DtypeError as `launch` does."""
        if tuple(map(_dtype_of, tensors)) != self.primitive.kinds:
            check_dtypes(self.primitive, tensors)
        machine.outer.call(self._head + self._addresses(*[tensor.address for tensor in tensors]) + self._tail)


class PlannedParts:
    """`launch_parts` on tensors of fixed layouts and dtypes, which its maker has checked, for calls that are not recorded.

    ``parts`` are the distances in bytes from each tensor's first element, and the numbers, of each part.
    """

    __slots__ = ("_addresses", "_parts", "_row", "primitive")

    def __init__(self, primitive: Primitive, parts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], cycles: int):
        self.primitive = primitive
        head = primitive.address.to_bytes(8, "little")
        self._addresses = struct.Struct(f"{len(primitive.buffers)}q").pack
        self._parts = [(distances, head, struct.pack(f"{len(numbers)}q", *numbers)) for distances, numbers in parts]
        length = 1 + len(primitive.roles)
        self._row = machine.parallel_tail(len(parts), length, cycles)

    def launch(self, *tensors: Buffer) -> None:
        """Run all parts."""
        addresses = [tensor.address for tensor in tensors]
        pack = self._addresses
        cells = [head + pack(*map(operator.add, addresses, distances)) + tail for distances, head, tail in self._parts]
        table = b"".join(cells)
        machine.in_parallel.call(address_of_bytes(table).to_bytes(8, "little") + self._row)


def launch_parts(primitive: Primitive, parts: Sequence[Part[Buffer]], cycles: int) -> None:
    """Run ``primitive`` on independent parts, on several cores if they are free; one core would need about ``cycles`` in total.

    The parts depend on shapes alone and never on the number of threads, and therefore neither does the result.
    """
    rows = []
    for tensors, offsets, numbers in parts:
        check_dtypes(primitive, tensors)
        addresses = [t.address + offset * t.dtype.itemsize for t, offset in zip(tensors, offsets, strict=True)]
        ends = [t.storage.address + t.storage.nbytes for t in tensors] if CHECKED else []
        lengths = [(end - start) // t.dtype.itemsize for end, start, t in zip(ends, addresses, tensors, strict=False)]
        rows.append(primitive.pack(*addresses, *numbers, *lengths))
    if (recording := recorder()) is not None:
        recording.record_parts(primitive, parts, rows, cycles)
    cells = machine.parallel_table(primitive.address, rows)
    table = Storage(len(cells))
    table.bytes()[:] = np.frombuffer(cells, np.uint8)
    machine.in_parallel.call(machine.parallel_row(table.address, rows, cycles))
