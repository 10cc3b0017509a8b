"""The recorded launches of one call, and their replay by one native call."""

import ctypes
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rl_lab.engine.launch import Part, user_line
from rl_lab.engine.memory import Block, Pool, Storage
from rl_lab.engine.ops.gathering import IndexStatus
from rl_lab.engine.passes import cut_for_cores, finish_products, overlap, remove_dead
from rl_lab.engine.tensor import empty, new
from rl_lab.native import machine
from rl_lab.native.primitive import ITEMSIZE, Primitive

Span = tuple[int, int]


@dataclass(frozen=True)
class Launch:
    """One recorded launch: the primitive, its row, and the user's line that caused it.

    ``shapes`` are those of its buffers, ``spans`` the bytes from the first to the last that they cover, ``reached`` the bytes that
    it reads or writes through a table of addresses; ``parts``, if any, are rows that do the same work on several cores, of about
    ``cycles`` together.
    """

    primitive: Primitive
    row: bytes
    shapes: tuple[tuple[int, ...], ...]
    spans: tuple[Span, ...]
    reached: tuple[Span, ...]
    line: str
    parts: tuple[bytes, ...] = ()
    cycles: int = 0

    @property
    def name(self) -> str:
        return self.primitive.name

    @property
    def bytes(self) -> int:
        """Memory of the operands; repeated elements count once for each time."""
        sizes = zip(self.primitive.buffers, self.shapes, strict=True)
        return sum(math.prod(shape) * ITEMSIZE[role.dtype] for role, shape in sizes)


def span_of(tensor: Any) -> Span:
    """The addresses of the first byte of a tensor and of the one after its last."""
    size = tensor.dtype.itemsize
    if tensor.strides is None:
        return tensor.address, tensor.address + math.prod(tensor.shape) * size
    if 0 in tensor.shape:
        return tensor.address, tensor.address
    last = sum((count - 1) * stride for count, stride in zip(tensor.shape, tensor.strides, strict=True))
    return tensor.address, tensor.address + (last + 1) * size


class Recorder:
    """Writes down the launches of one call and what they depend on.

    Memory made during the recording comes from a pool that belongs to the program: a block that the call frees is used again by
    later launches of the same program and by nothing else.
    """

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.pool = Pool()
        self.outside: dict[int, Storage] = {}
        self.written: dict[int, Storage] = {}
        self.expected_grads: dict[int, tuple[Any, Any]] = {}
        self.leaves: dict[int, Any] = {}
        self.status = IndexStatus()
        self._lines: dict[str, str] = {}
        self._tables: dict[int, tuple[Span, ...]] = {}

    def _note_outside(self, primitive: Primitive, tensors: tuple) -> None:
        """Keep memory from outside alive, and remember what of it is written to."""
        for tensor, role in zip(tensors, primitive.buffers, strict=True):
            storage = tensor.storage
            if not self._is_ours(storage):
                self.outside[id(storage)] = storage
                if role.writes:
                    self.written[id(storage)] = storage

    def record(self, primitive: Primitive, tensors: tuple, row: bytes) -> None:
        self.pool.rested()
        self._note_outside(primitive, tensors)
        line = user_line()
        reached: tuple[Span, ...] = sum([self._tables.get(id(tensor.storage), ()) for tensor in tensors], ())
        shapes, spans = tuple([tensor.shape for tensor in tensors]), tuple([span_of(tensor) for tensor in tensors])
        self.launches.append(Launch(primitive, row, shapes, spans, reached, self._lines.setdefault(line, line)))

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        self.record(primitive, parts[0][0], rows[0])
        for tensors, _, _ in parts[1:]:
            self._note_outside(primitive, tensors)
        known = set(map(id, parts[0][0]))
        extra = {id(t): t for tensors, _, _ in parts[1:] for t in tensors if id(t) not in known}
        whole = self.launches[-1]
        reached = sum([self._tables.get(id(t.storage), ()) for t in extra.values()], tuple(map(span_of, extra.values())))
        self.launches[-1] = replace(whole, parts=tuple(rows), cycles=cycles, reached=whole.reached + reached)

    def _is_ours(self, storage: Storage) -> bool:
        owner = storage.owner
        while isinstance(owner, Storage):
            owner = owner.owner
        return type(owner) is Block and owner.pool is self.pool

    def table(self, table: Any, tensors: list[Any]) -> None:
        for tensor in tensors:
            storage = tensor.storage
            if not self._is_ours(storage):
                self.outside[id(storage)] = self.written[id(storage)] = storage
        self.outside[id(table.storage)] = table.storage
        self._tables[id(table.storage)] = tuple([span_of(tensor) for tensor in tensors])

    def grad_read(self, leaf: Any) -> None:
        if id(leaf) not in self.leaves:
            self.expected_grads[id(leaf)] = (leaf, leaf._grad)
            self.leaves[id(leaf)] = leaf

    def grad_written(self, leaf: Any) -> None:
        self.leaves[id(leaf)] = leaf


class Program:
    """A list of launches with the memory they work on.

    ``inputs`` and ``outputs`` are tensors of the program; a caller copies into and out of them. Parameters, optimiser state and
    random streams are worked on in place. The program keeps all its memory alive, and frees it when it is dropped.
    """

    def __init__(self, recorder: Recorder, inputs: list[Any], outputs: list[Any]):
        self.inputs, self.outputs = inputs, outputs
        self._pool = recorder.pool
        self._pool.rested()
        self._outside = list(recorder.outside.values())
        self._written = list(recorder.written.values())
        self._status = recorder.status
        self._expected_grads = list(recorder.expected_grads.values())
        self._final_grads = [(leaf, leaf._grad) for leaf in recorder.leaves.values()]
        forgotten = [(block.address, block.address + block.size) for blocks in self._pool.values() for block in blocks]
        needed = remove_dead(recorder.launches, forgotten)
        self.launches = [cut_for_cores(launch) for launch in finish_products(needed, forgotten)]
        self._build()

    def _build(self) -> None:
        self._tables: list[np.ndarray] = []
        self._executed = [self._executable(launch) for launch in self.launches]
        lengths = [len(row) // 8 for _, row in self._executed]
        self._kernels = np.array([primitive.address for primitive, _ in self._executed], np.int64)
        self._rows = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if lengths else np.zeros(0, np.int64)
        self._operands = np.frombuffer(b"".join(row for _, row in self._executed), np.int64).copy()
        self._row = machine.replay_row(self._kernels, self._rows, self._operands)
        machine.replay.address  # noqa: B018  compiled or loaded now, not at the first replay
        self._cells = memoryview(self._operands)
        self._row_cells = np.frombuffer(self._row, np.int64)
        self._at_home = True  # whether the rows point at the program's own inputs and outputs
        self._input_cells = [self._cells_of_input(tensor) for tensor in self.inputs]
        self._output_cells = [self._cells_of_output(tensor) for tensor in self.outputs]
        self._copied_inputs, self._input_places = _flattened(self._input_cells)
        self._copied_outputs, self._output_places = _flattened(self._output_cells)
        self._output_kinds = [(tensor.shape, tensor.dtype) for tensor in self.outputs]
        self._status_cells = self._status.words.data
        kinds = [launch.primitive.buffers for launch in self.launches]
        writes_integers = any(
            role.dtype == "int64" and role.writes for buffers in kinds for role in buffers
        )  # a status, perhaps
        self._has_effects = bool(self._written or self._final_grads or writes_integers)
        self.is_function = len(self.inputs) == len(self.outputs) == 1 and not (
            self._copied_inputs or self._copied_outputs or self._expected_grads
        )
        """Whether it is one tensor to one tensor, with no condition and no copy: what `run_function` can do."""
        if self.is_function:
            self._shape, self._dtype = self._output_kinds[0]

    def _executable(self, launch: Launch) -> tuple[Primitive, bytes]:
        """What is called for a launch: its kernel on its row, or all its parts at once."""
        if not launch.parts:
            return launch.primitive, launch.row
        table = np.frombuffer(machine.parallel_table(launch.primitive.address, launch.parts), np.int64).copy()
        self._tables.append(table)
        return machine.in_parallel, machine.parallel_row(table.ctypes.data, launch.parts, launch.cycles)

    # A replay need not copy: where every use of an input or output is known, the rows are pointed at the caller's memory instead.

    def _cells_of_input(self, tensor: Any) -> list[int] | None:
        """The cells of the rows that hold an input's address; None if it is written to, seen through a view, or returned."""
        if any(overlap(span_of(tensor), span_of(output)) for output in self.outputs):
            return None
        return self._cells_from(0, tensor, written=False)

    def _cells_of_output(self, tensor: Any) -> list[int] | None:
        """The cells that hold an output's address from the launch on that makes it; None if no launch makes it as a whole.

        Before that launch the same memory may have held something else.
        """
        span = span_of(tensor)
        if (
            sum(t is tensor for t in self.outputs) > 1
            or any(overlap(span, span_of(t)) for t in self.inputs)
            or span[0] == span[1]
        ):
            return None
        kept = [gradient for _, gradient in self._final_grads if gradient is not None]
        outside = [(storage.address, storage.address + storage.nbytes) for storage in self._outside]
        others = [*outside, *[span_of(other) for other in (*self.outputs, *kept) if other is not tensor]]
        if any(overlap(span, other) for other in others):
            return None
        for i in range(len(self.launches) - 1, -1, -1):
            launch = self.launches[i]
            for role, other, shape in zip(launch.primitive.buffers, launch.spans, launch.shapes, strict=True):
                whole = math.prod(shape) == math.prod(tensor.shape)  # not a strided write from end to end
                if other == span and role.writes and not role.reads and whole:
                    return None if launch.parts else self._cells_from(i, tensor, written=True)
        return None

    def _cells_from(self, first: int, tensor: Any, written: bool) -> list[int] | None:
        span, cells = span_of(tensor), []
        for launch, row in zip(self.launches[first:], self._rows[first:], strict=True):
            reached = (*launch.reached, *launch.spans) if launch.parts else launch.reached
            if any(overlap(span, other) for other in reached):
                return None
            for column, (role, other) in enumerate(zip(launch.primitive.buffers, launch.spans, strict=True)):
                if other == span and (written or not role.writes):
                    cells.append(int(row) + column)
                elif overlap(span, other):
                    return None
        return cells

    def fits(self) -> bool:
        """Whether the gradients that the recording depended on are as they were then."""
        for leaf, expected in self._expected_grads:  # noqa: SIM110  all() over a generator costs as much as a kernel
            if leaf._grad is not expected:
                return False
        return True

    def run(self, sources: Sequence[Any]) -> list[Any]:
        """Replay on these inputs and return the outputs, as fresh tensors. IndexError if an index was out of bounds."""
        cells, self._at_home = self._cells, False
        for i in self._copied_inputs:
            copy_bytes(self.inputs[i], sources[i])
        for i, place in self._input_places:
            cells[place] = sources[i].address
        results = [empty(shape, dtype) for shape, dtype in self._output_kinds]
        for i, place in self._output_places:
            cells[place] = results[i].address
        machine.replay.call(self._row)
        self._replayed()
        for i in self._copied_outputs:
            copy_bytes(results[i], self.outputs[i])
        return results

    def run_function(self, source: Any) -> Any:
        """`run` where `is_function`: a policy that acts on one observation spends most of its time around the replay."""
        cells, self._at_home = self._cells, False
        address = source.address
        for place in self._input_cells[0]:  # type: ignore[union-attr]
            cells[place] = address
        result = empty(self._shape, self._dtype)
        address = result.address
        for place in self._output_cells[0]:  # type: ignore[union-attr]
            cells[place] = address
        machine.replay.call(self._row)
        if self._has_effects:
            self._replayed()
        return result

    def _replayed(self) -> None:
        """Leave behind what an eager call would: versions, gradients, and an error for a bad index."""
        for storage in self._written:
            storage.version += 1
        for leaf, gradient in self._final_grads:
            leaf._grad = gradient
            if gradient is not None:
                gradient.storage.version += 1
        if self._status_cells[0]:
            self._status.check()

    @property
    def call(self) -> tuple[int, int]:
        """For a native loop: the addresses of the replay kernel and of its row."""
        return machine.replay.address, self._row_cells.ctypes.data

    def run_times(self, sources: Sequence[Any], count: int) -> list[Any]:
        """Replay ``count`` times on these inputs and return the last outputs, as fresh tensors."""
        kernel, row = self.call
        actions, progress = np.array([kernel, row, 0, 0], np.int64), np.zeros(2, np.int64)
        for target, source in zip(self.inputs, sources, strict=True):
            copy_bytes(target, source)
        never = progress.ctypes.data + 8  # a stop that nobody sets
        self.run_within(machine.repeat, machine.repeat_row(progress, actions, count, never))
        results = [empty(shape, dtype) for shape, dtype in self._output_kinds]
        for result, output in zip(results, self.outputs, strict=True):
            copy_bytes(result, output)
        return results

    def run_within(self, primitive: Primitive, row: bytes) -> None:
        """Run a primitive that replays the program by `call`, any number of times, on `inputs` and `outputs` themselves."""
        if not self._at_home:
            for tensors, places in ((self.inputs, self._input_cells), (self.outputs, self._output_cells)):
                for tensor, cells in zip(tensors, places, strict=True):
                    for cell in cells or ():
                        self._cells[cell] = tensor.address
            self._at_home = True
        primitive.call(row)
        self._replayed()

    def profile(self, repeats: int = 20) -> list[float]:
        """Median microseconds of each launch over ``repeats`` replays, made one by one."""
        times = np.zeros((repeats, len(self.launches)))
        for repeat in range(repeats):
            for i, (primitive, row) in enumerate(self._executed):
                begin = time.perf_counter()
                primitive.call(row)
                times[repeat, i] = time.perf_counter() - begin
        return [float(t) for t in np.median(times, 0) * 1e6]

    @property
    def bytes(self) -> int:
        """Memory that belongs to the program."""
        self._pool.rested()
        storages = {id(t.storage): t.storage for t in (*self.inputs, *self.outputs)}
        free = sum(block.size for blocks in self._pool.values() for block in blocks)
        return free + sum(s.nbytes for s in storages.values())

    def table(self, profile: bool = False) -> str:
        """The launches as text: number, primitive, shapes, bytes, with ``profile`` microseconds, and the user's line."""
        times = self.profile() if profile else None
        lines = []
        for i, launch in enumerate(self.launches):
            shapes = " ".join("x".join(map(str, shape)) or "1" for shape in launch.shapes)
            cost = "" if times is None else f"{times[i]:9.2f} us"
            lines.append(f"{i:4d} {launch.name:24s} {shapes:42s} {launch.bytes:10,d} B {cost} {launch.line}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<program of {len(self.launches)} launches, {self.bytes:,} bytes>"


def _flattened(cells: list[list[int] | None]) -> tuple[list[int], list[tuple[int, int]]]:
    """The numbers of those without cells, and each cell of the others behind its number: quicker to walk in every replay."""
    without = [i for i, places in enumerate(cells) if places is None]
    return without, [(i, place) for i, places in enumerate(cells) for place in places or ()]


def same_layout(tensor: Any) -> Any:
    """Fresh memory under the tensor's shape and strides."""
    start, end = span_of(tensor)
    return new(Storage(end - start), tensor.shape, tensor.strides, 0, tensor.dtype)


def copy_bytes(target: Any, source: Any) -> None:
    """Copy between tensors of the same layout."""
    start, end = span_of(source)
    ctypes.memmove(target.address, start, end - start)
