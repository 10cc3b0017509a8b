"""A program: the recorded launches of one call, and their replay by one native call."""

import bisect
import ctypes
import linecache
import math
import struct
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType
from rl_lab.engine.html import html_table
from rl_lab.engine.kernels.optimizer import first_not_finite
from rl_lab.engine.launch import changes
from rl_lab.engine.memory import Block, Storage
from rl_lab.engine.number import Plain
from rl_lab.engine.ops import Tensor
from rl_lab.engine.passes import Launch, Span, cut_for_cores, finish_products, overlap, remove_dead
from rl_lab.engine.recorder import Recorder, sharing, span_of, tensor_facts
from rl_lab.engine.tensor import Shape, empty, new
from rl_lab.native import machine
from rl_lab.native.primitive import Primitive, Real
from rl_lab.native.threads import new_trials, unwatched


class Lock(Protocol):
    """A lock of `threading`."""

    def acquire(self) -> bool: ...

    def release(self) -> None: ...


BRIEF = 65_536
"""Bytes of the operands of a program up to which a short call keeps the interpreter lock."""

EXACT = 2**53
"""The largest integer up to which float64 holds all integers."""
SHOWN = 200
"""Launches of a program that a notebook shows."""

Place = tuple[np.ndarray, int, int]
"""A cell that holds an address in a tensor's memory: the array, the index in it, and the distance in bytes from the tensor's start."""


class Gradient:
    """A gradient that a program leaves in ``.grad``.

    ``places`` are all cells that hold an address in its memory. While somebody else keeps the gradient of an earlier call, these
    cells are pointed at new memory, so that the next gradient does not overwrite the earlier one. ``places`` is None if not all
    cells are known; then ``.grad`` gets a copy. If the function assigns a tensor from ``outside``, ``.grad`` gets that tensor.
    """

    def __init__(self, leaf: Tensor, tensor: Tensor, outside: bool):
        self.leaf = leaf
        self.tensor = tensor
        self.outside = outside
        self.is_shared = True
        """Whether ``.grad`` gets this tensor and not a copy."""
        self.places: list[Place] | None = None
        self.references = (1 << 30, 1 << 30)

    def count_references(self) -> tuple[int, int]:
        """References to the gradient, apart from ``.grad``, and to its memory; exported memory counts as very many."""
        tensor = self.tensor
        shared = tensor.storage
        own = self.leaf._grad is tensor
        exported = 0 if type(shared.owner) is Block else 1 << 20
        return sys.getrefcount(tensor) - own, sys.getrefcount(shared) + exported

    def is_kept(self) -> bool:
        """Whether anything besides the program and ``.grad`` refers to the gradient or to its memory."""
        tensors, storages = self.count_references()
        return tensors > self.references[0] or storages > self.references[1]

    def settle(self) -> None:
        """Store the current reference counts, all held by the program, as the baseline for `is_kept`."""
        self.references = self.count_references()

    def renew(self) -> None:
        """Leave the present gradient to its holder, and let the next replay compute into new memory."""
        assert self.places is not None
        self.tensor = empty(self.tensor.sizes, self.tensor.dtype)
        address = self.tensor.address
        for array, index, distance in self.places:
            array[index] = address + distance
        self.settle()


class Expected:
    """The content of a leaf's ``.grad`` that a program expects before a replay: a certain gradient, or None.

    ``places`` are all cells that hold an address in the gradient's memory. Through them another gradient of the same layout can
    take the place of the recorded one. ``places`` is None if not all cells are known.
    """

    def __init__(self, leaf: Tensor, tensor: Tensor | None):
        self.leaf = leaf
        self.shape = None if tensor is None else tensor.sizes
        self.span = (0, 0) if tensor is None else span_of(tensor)
        self.reference = None if tensor is None else weakref.ref(tensor)
        self.places: list[Place] | None = None

    def can_be(self, found: Tensor) -> bool:
        """Whether the program can work on this gradient instead."""
        plain = found.strides is None and found.node is None and not found.needs_grad and not found.hooks
        return self.places is not None and plain and found.sizes == self.shape

    def become(self, found: Tensor) -> None:
        """Let the program work on this gradient from now on."""
        assert self.places is not None
        self.reference = weakref.ref(found)
        self.span = span_of(found)
        for array, index, distance in self.places:
            array[index] = found.address + distance


class Program:
    """A list of launches, and the memory that they use.

    ``inputs`` and ``outputs`` are tensors of the program; a caller copies into and out of them. The program updates parameters,
    optimizer state and random streams in place. It keeps all its memory alive, and frees the memory when it is dropped.
    """

    def __init__(self, recorder: Recorder, outputs: list[Tensor]):
        self.inputs = recorder.inputs
        self.outputs = outputs
        self.sharing = recorder.sharing
        self._regions = recorder.regions
        self._pool = recorder.pool
        self._pool.rested()
        self._outside = list(recorder.outside.values())
        expected = recorder.expected_grads
        gradients = {id(g.storage) for _, g in expected.values() if g is not None}
        self._written = [storage for key, storage in recorder.written.items() if key not in gradients]
        written_grads = [(leaf, g) for leaf, g in expected.values() if g is not None and id(g.storage) in recorder.written]
        self._written_grads = [leaf for leaf, _ in written_grads]
        self._written_grad_spans = [span_of(gradient) for _, gradient in written_grads]
        self._status = recorder.status
        self._expected_grads = [Expected(leaf, gradient) for leaf, gradient in expected.values()]
        changed = [leaf for key, leaf in recorder.leaves.items() if key not in expected or leaf._grad is not expected[key][1]]
        self._removed = [leaf for leaf in changed if leaf._grad is None]
        self._gradients = [
            Gradient(leaf, leaf._grad, not recorder.is_inside(leaf._grad)) for leaf in changed if leaf._grad is not None
        ]
        self.repeatable = not any(id(leaf) in expected for leaf in changed)
        """Whether a replay leaves the gradients that the next replay expects."""
        self._address_tables = [(table.storage, table.storage.bytes().view(np.int64)) for table in recorder.tables.values()]
        for (_, words), table in zip(self._address_tables, recorder.tables.values(), strict=True):
            _settle_table(words, table.homes)
        self._objects = list(recorder.objects.values())
        self._tensors = list(recorder.tensors.values())
        self.checked_at = self._grads_seen = -1
        self._expressions = recorder.expressions
        self._expressions.close()
        self._has_numbers = bool(recorder.numbers)
        self.values: list[Plain] = []
        """The values of the numbers in the replay that `fits` has prepared."""
        self.last_use = 0
        self.reads, self._covered_reads = recorder.reads.checks()
        """Tells whether the Python state that the function read is unchanged; None if the function read nothing."""
        forgotten = [(block.address, block.address + block.size) for blocks in self._pool.values() for block in blocks]
        needed = remove_dead(recorder.launches, forgotten)
        self.launches = [cut_for_cores(launch) for launch in finish_products(needed, forgotten)]
        # a write by way of ``data`` does not advance the version of an argument
        self._versions = [argument.storage.version for argument in recorder.arguments]
        self._build()

    def _build(self) -> None:
        """Lay out the rows of all launches, and work out everything that a replay must do besides."""
        launches = self.launches
        rows = [launch.row for launch in launches]
        tables = [machine.parallel_table(x.primitive.address, x.parts) if x.parts else b"" for x in launches]
        self._trials = new_trials() if any(launch.parts for launch in launches) else unwatched
        for i, launch in enumerate(launches):
            if launch.parts:
                rows[i] = machine.parallel_row(0, launch.parts, launch.cycles, self._trials)
        lengths = [len(row) // 8 for row in rows]
        self._rows = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if lengths else np.zeros(0, np.int64)
        tables_at = sum(lengths) + np.concatenate([[0], np.cumsum([len(table) // 8 for table in tables])]).astype(np.int64)
        self._operands = np.frombuffer(b"".join([*rows, *tables]), np.int64).copy()
        self._where = _Cells(launches, self._rows, tables_at)
        self._touched = _Touched(self.launches)
        for i, launch in enumerate(launches):
            if launch.parts:
                self._operands[self._rows[i]] = self._operands.ctypes.data + 8 * int(tables_at[i])
        primitives = [machine.in_parallel if launch.parts else launch.primitive for launch in launches]
        self._executed = primitives
        for gradient in self._gradients:
            self._give_memory(gradient)
            gradient.is_shared = gradient.outside or gradient.places is not None
            gradient.leaf._grad = gradient.tensor if gradient.is_shared else copy_of(gradient.tensor)
        self._make_row(primitives)
        self._cells = memoryview(self._operands)
        self._reals = memoryview(self._operands).cast("B").cast("d")
        self._row_cells = np.frombuffer(self._row, np.int64)
        self._at_home = True  # whether the rows refer to the program's own inputs and outputs
        self._input_cells = [self._cells_of_input(i) for i in range(len(self.inputs))]
        self._output_cells = [self._cells_of_output(tensor) for tensor in self.outputs]
        copied = [region for region in self._regions if any(self._input_cells[i] is None for i in region.members)]
        self._copied_regions = [(r.home.address, r.first, r.end - r.start) for r in copied]
        self._written_regions = [
            (r.home.address, r.first, r.end - r.start, [i for i in r.members if self._versions[i]]) for r in copied if r.written
        ]
        self._input_places = _flattened(self._input_cells)
        self._copied_outputs = [i for i, cells in enumerate(self._output_cells) if cells is None]
        self._output_places = _flattened(self._output_cells)
        self._output_kinds = [layout_of(tensor) for tensor in self.outputs]
        self._status_cells = self._status.words.data
        real = [
            (self._rows[i] + column, place, launch.primitive.roles[column] is Real)
            for i, launch in enumerate(launches)
            for column, place in launch.numbers
        ]
        self._real_places = [(int(cell), place) for cell, place, is_real in real if is_real]
        self._int_places = [(int(cell), place) for cell, place, is_real in real if not is_real]
        self._find_gradients()
        spans = [storage.span for storage in self._written]
        if self._written_regions:
            spans += [storage.span for storage in self._outside]
        self._guarded_spans = _merged(spans)
        self._guarded_starts = [start for start, _ in self._guarded_spans]
        for gradient in self._gradients:
            gradient.settle()
        any_checked = any(launch.checked or launch.primitive is first_not_finite for launch in launches)
        self._has_effects = bool(self._written or self._gradients or self._removed or self._written_grads or any_checked)
        conditions = self._copied_regions or self._copied_outputs or self._expected_grads or self._guarded_spans
        one_each = len(self.inputs) == len(self.outputs) == 1 and self.outputs[0].strides is None
        whole = not any(distance for cells in (*self._input_cells, *self._output_cells) for _, distance in cells or ())
        self.is_function = one_each and whole and not conditions and not self._has_numbers
        """Whether the program maps one tensor to one tensor without conditions and copies, so that `as_function` can replay it."""

    def _make_row(self, primitives: list[Primitive]) -> None:
        """Make the arrays that `machine.replay` walks.

        If a launch may report an index out of bounds, an extra first kernel saves the memory to restore in that case.
        """
        kernels = [primitive.address for primitive in primitives]
        rows = self._rows
        self._saved_spans = self._spans_to_save()
        if self._saved_spans:
            sizes = [end - start for start, end in self._saved_spans]
            self._backup = np.empty(sum(sizes), np.uint8)
            places = self._backup.ctypes.data + np.concatenate([[0], np.cumsum(sizes)[:-1]])
            self._saving = np.array(
                [(start, place, size) for (start, _), place, size in zip(self._saved_spans, places, sizes, strict=True)],
                np.int64,
            )
            row = np.frombuffer(machine.copy_spans_row(self._saving), np.int64)
            self._saving_row = np.ascontiguousarray(row)
            kernels.insert(0, machine.copy_spans.address)
            offset = (self._saving_row.ctypes.data - self._operands.ctypes.data) // 8
            rows = np.concatenate([[offset], rows])
        self._kernels = np.array(kernels, np.int64)
        self._all_rows = np.ascontiguousarray(rows, np.int64)
        self._row = machine.replay_row(self._kernels, self._all_rows, self._status.words, self._operands, self._trials)
        machine.replay.address  # noqa: B018  compile or load the kernel now, not at the first replay

    def _spans_to_save(self) -> list[Span]:
        """Memory that outlives a call and is written to up to the last launch that may report an index out of bounds."""
        last = max([i for i, launch in enumerate(self.launches) if launch.checked], default=-1)
        if last < 0:
            return []
        lasting = [storage.span for storage in self._written]
        lasting += [region.span for region in self._regions if region.written]
        # gradients apart from the rest, because each can be moved on its own
        lasting = [*_merged(lasting), *[span_of(gradient.tensor) for gradient in self._gradients], *self._written_grad_spans]
        status = self._status.words.ctypes.data
        found: list[list[Span]] = [[] for _ in lasting]
        for launch in self.launches[: last + 1]:
            written = [span for role, span in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
            reached = () if launch.primitive is first_not_finite else launch.reached
            for low, high in (*written, *reached):
                if low != status:
                    for pieces, (start, end) in zip(found, lasting, strict=True):
                        if low < end and start < high:
                            pieces.append((max(low, start), min(high, end)))
        return [span for pieces in found for span in _merged(pieces)]

    # --- cells that hold addresses -----------------------------------------------------------------------------------

    def _give_memory(self, gradient: Gradient) -> None:
        """Move a gradient to memory that nothing else in the program uses, if all cells with its address are known."""
        tensor = gradient.tensor
        span = span_of(tensor)
        owner = tensor.storage.owner
        if type(owner) is not Block or owner.pool is not self._pool or span[0] == span[1] or tensor.strides is not None:
            return
        first = self._maker_of(span, math.prod(tensor.sizes))
        places = None if first is None else self._places(span, first, tables=True)
        if first is None or places is None:
            return
        moved = empty(tensor.sizes, tensor.dtype)
        copy_bytes(moved, tensor)
        move = moved.address - tensor.address
        for array, index, distance in places:
            array[index] = moved.address + distance
        for i in sorted({int(i) for i in self._touched.by(span) if i >= first}):
            launch = self.launches[i]
            spans = tuple([_shifted(other, span, move) for other in launch.spans])
            reached = tuple([_shifted(other, span, move) for other in launch.reached])
            self.launches[i] = replace(launch, spans=spans, reached=reached)
        self._touched.move(span, first, move)
        for i, output in enumerate(self.outputs):
            if overlap(span_of(output), span):
                self.outputs[i] = new(moved.storage, output.sizes, output.strides, 0, output.dtype)
                self.outputs[i].address = output.address + move
        moved.storage.version = tensor.storage.version
        gradient.tensor = moved
        gradient.places = places

    def _find_gradients(self) -> None:
        """Find the cells that hold addresses of gradients, also in the list of spans saved before a replay that may fail."""
        spans = [expected.span for expected in self._expected_grads if expected.reference is not None]
        outside = [storage.span for storage in self._outside]
        apart = len(_merged_apart(spans)) == len(spans)
        for expected in self._expected_grads:
            span = expected.span
            if apart and span[0] < span[1] and not any(overlap(span, other) for other in outside):
                expected.places = self._places(span, 0, tables=True)
        movable: list[tuple[Span, list]] = [(e.span, e.places) for e in self._expected_grads if e.places is not None]
        movable += [(span_of(g.tensor), g.places) for g in self._gradients if g.places is not None]
        for span, places in movable:
            for i, (start, _) in enumerate(self._saved_spans):
                if span[0] <= start < span[1]:
                    places.append((self._saving.reshape(-1), 3 * i, start - span[0]))

    def _maker_of(self, span: Span, count: int) -> int | None:
        """The last launch that writes all ``count`` elements of a span without reading them, or None.

        Before this launch the same memory may hold other values.
        """
        for i in range(len(self.launches) - 1, -1, -1):
            launch = self.launches[i]
            for role, other, shape in zip(launch.primitive.buffers, launch.spans, launch.shapes, strict=True):
                whole = math.prod(shape) == count  # False for a strided write, which has the same span
                if other == span and role.writes and not role.reads and whole:
                    return i
        return None

    def _places(self, span: Span, first: int, tables: bool = False) -> list[Place] | None:
        """The cells of the launches from ``first`` on that hold an address in the span.

        None if an operand lies only partly in the span. Tables of addresses are searched if ``tables``; otherwise the result is
        None if a table refers to the span.
        """
        found = self._where.inside(self._operands, span, first)
        if found is None:
            return None
        places: list[Place] = [(self._operands, int(i), int(self._operands[i]) - span[0]) for i in found]
        touched = self._touched
        if not (touched.by_reaching(span) >= first).any():
            return places
        if not tables:
            return None
        for storage, words in self._address_tables:
            named = np.flatnonzero((words >= span[0]) & (words < span[1]))
            if len(named):
                users = touched.by(storage.span)
                if len(users) and users.max() < first:
                    continue
                if (users < first).any():
                    return None
                places += [(words, int(i), int(words[i]) - span[0]) for i in named]
        return places

    # If every use of an input or output is known, a replay does not copy it: the rows are pointed at the caller's memory instead.

    def _cells_of_input(self, number: int) -> list[tuple[int, int]] | None:
        """The cells that hold an input's address; None if the input must be copied.

        An input is copied if its memory is written to, shared with another input, or part of an output.
        """
        region = next(region for region in self._regions if number in region.members)
        span = region.span
        if region.written or len(region.members) > 1 or any(overlap(span, span_of(output)) for output in self.outputs):
            return None
        places = self._places(span, 0)
        return None if places is None else [(index, distance) for _, index, distance in places]

    def _cells_of_output(self, tensor: Tensor) -> list[tuple[int, int]] | None:
        """The cells that hold an output's address, from the launch that makes the output on; None if the output must be copied.

        An output is copied if no single launch writes the whole output, or if its memory overlaps other lasting memory.
        """
        span = span_of(tensor)
        if (
            sum(t is tensor for t in self.outputs) > 1
            or any(overlap(span, region.span) for region in self._regions)
            or span[0] == span[1]
        ):
            return None
        kept = [span_of(gradient.tensor) for gradient in self._gradients]
        outside = [storage.span for storage in self._outside]
        others = [*outside, *kept, *[span_of(other) for other in self.outputs if other is not tensor]]
        if any(overlap(span, other) for other in others):
            return None
        first = self._maker_of(span, math.prod(tensor.sizes))
        places = None if first is None else self._places(span, first)
        return None if places is None else [(index, distance) for _, index, distance in places]

    # --- guards ------------------------------------------------------------------------------------------------------

    def fits(self, sources: Sequence[Tensor], numbers: Sequence[Plain] = ()) -> bool:
        """Whether a replay with these arguments does what the function would do now.

        Also prepares the replay (numbers, gradients), so call it right before `run`.
        """
        if changes.count != self.checked_at:
            now = changes.count
            if not self._is_as_recorded():
                return False
            self.checked_at = now
        if self.reads is not None and not self.reads():
            return False
        others = False
        for expected in self._expected_grads:
            found, reference = expected.leaf._grad, expected.reference
            if found is None:
                if reference is not None:
                    return False
            elif reference is None:
                return False
            elif reference() is not found:
                if not expected.can_be(found):
                    return False
                others = True
        if self._has_numbers:
            values = self._expressions.evaluate(numbers)
            if values is None:
                return False
            self.values = values
        if len(sources) > 1 and (self.sharing is not None or self._written_regions) and sharing(sources) != self.sharing:
            return False
        if self._guarded_spans and sources and self.meets_outside(sources):
            return False
        if self._written_grads and sources and self._meets_gradients(sources):
            return False
        if others and not self._take_gradients(sources):
            return False
        if changes.grads_seen != self._grads_seen:
            self._grads_seen = changes.grads_seen
            for gradient in self._gradients:
                if gradient.places is not None and gradient.is_kept():
                    gradient.renew()
        return True

    def _meets_gradients(self, sources: Sequence[Tensor]) -> bool:
        """Whether an argument overlaps a gradient to which the function adds."""
        gradients = [span_of(leaf._grad) for leaf in self._written_grads if leaf._grad is not None]
        return any(overlap(span_of(source), gradient) for source in sources for gradient in gradients)

    def _take_gradients(self, sources: Sequence[Tensor]) -> bool:
        """Let the program work on the gradients that are in ``.grad`` now.

        Returns False and changes nothing if one of them shares memory with another tensor.
        """
        present = [(e, e.leaf._grad) for e in self._expected_grads if e.reference is not None]
        entries = [(expected, found) for expected, found in present if found is not None]
        spans = [span_of(found) for _, found in entries]
        others = [storage.span for storage in self._outside]
        others += [span_of(source) for source in sources]
        if len(_merged_apart(spans)) < len(spans) or any(overlap(span, other) for span in spans for other in others):
            return False
        for gradient in self._gradients:  # it is in the program's own memory, so the next gradient must be computed elsewhere
            if any(found is gradient.tensor for _, found in entries):
                if gradient.places is None:
                    return False
                gradient.renew()
        for expected, found in entries:
            if expected.reference is not None and expected.reference() is not found:
                expected.become(found)
        return True

    def _is_as_recorded(self) -> bool:
        """Whether modules, optimizers and tensors have the structure that they had in the recording."""
        for owner, version in self._objects:
            if owner.changes != version:
                return False
        for tensor, facts in self._tensors:
            if tensor_facts(tensor) != facts:
                return False
        return self._covered_reads is None or self._covered_reads()

    def meets_outside(self, sources: Sequence[Tensor]) -> bool:
        """Whether an argument overlaps other memory of the function, and the function writes to one of the two."""
        for source in sources:
            low, high = span_of(source)
            before = bisect.bisect_left(self._guarded_starts, high) - 1
            if before >= 0 and self._guarded_spans[before][1] > low:
                return True
        return False

    # --- replaying ---------------------------------------------------------------------------------------------------

    def run(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Replay with these inputs; return the outputs as fresh tensors.

        Raises IndexError if an index was out of bounds; then everything is as it was before the call.
        """
        cells = self._cells
        self._at_home = False
        if sources:
            for home, first, size in self._copied_regions:
                ctypes.memmove(home, sources[first].address, size)
            for i, place, distance in self._input_places:
                cells[place] = sources[i].address + distance
        results = [room_for(*kind) for kind in self._output_kinds]
        for i, place, distance in self._output_places:
            cells[place] = results[i].address + distance
        if self._has_numbers:
            self._set_numbers()
        machine.replay.call(self._row)
        if self._has_effects:
            self._replayed()
        if self._written_regions:
            self._copy_back(sources)
        for i in self._copied_outputs:
            copy_bytes(results[i], self.outputs[i])
        return results

    def as_function(self, count: int, lock: Lock) -> Callable[[tuple], Tensor | None]:
        """Return a fast path of `run`, for a program with `is_function` and the current grad mode.

        The returned function takes the ``count`` arguments of a call: one tensor, and None for the others. It
        returns the result, or None without running anything if the program may be invalid for this call. A policy that acts on one
        observation spends most of its time outside of the kernels.
        """
        modes = tape.modes
        grad = modes.grad
        shape = self.inputs[0].sizes
        dtype = self.inputs[0].dtype
        result_shape = self.outputs[0].sizes
        result_dtype = self.outputs[0].dtype
        begin = self._operands.ctypes.data
        # ctypes writes a cell several times as fast as NumPy
        entries = tuple([ctypes.c_int64.from_address(begin + 8 * place) for place, _ in self._input_cells[0] or ()])
        exits = tuple([ctypes.c_int64.from_address(begin + 8 * place) for place, _ in self._output_cells[0] or ()])
        row = self._row
        reads = self.reads
        has_effects = self._has_effects
        is_brief = not any(launch.parts for launch in self.launches) and sum([x.bytes for x in self.launches]) <= BRIEF
        call = machine.replay.call_keeping_lock if is_brief else machine.replay.call

        last = [Storage(math.prod(result_shape) * result_dtype.itemsize)]
        several = count > 1
        acquire = lock.acquire
        release = lock.release
        getrefcount = sys.getrefcount

        def run(arguments: tuple) -> Tensor | None:
            if (
                len(arguments) != count
                or type(x := arguments[0]) is not Tensor
                or (several and any(other is not None for other in arguments[1:]))
                or x.sizes != shape
                or x.dtype is not dtype
                or x.strides is not None
                or x.base is not None
                or x._grad is not None
                or x.needs_grad
                or modes.grad is not grad
                or self.checked_at != changes.count
                or (reads is not None and not reads())
            ):
                return None
            acquire()
            try:
                self._at_home = False
                address = x.address
                for cell in entries:
                    cell.value = address
                room = last[0]
                # reuse the last result's memory if only ``last``, ``room`` and the argument of getrefcount refer to it
                if getrefcount(room) > 3 or type(room.owner) is not Block:
                    room = last[0] = Storage(room.nbytes)
                room.version = 0
                address = room.address
                for cell in exits:
                    cell.value = address
                call(row)
                if has_effects:
                    self._replayed()
                return new(room, result_shape, None, 0, result_dtype)
            finally:
                release()

        return run

    def _set_numbers(self) -> None:
        """Write the numbers of this call into the rows and into the memory of the tensors made of numbers."""
        values = self.values
        for cell, place in self._real_places:
            self._reals[cell] = values[place]
        for cell, place in self._int_places:
            self._cells[cell] = values[place]  # type: ignore[assignment]
        with np.errstate(over="ignore"):
            for place, array in self._expressions.cells:
                value = values[place]
                # NumPy would round a large integer to float64 first
                array[0] = value if -EXACT <= value <= EXACT else np.array(value).astype(array.dtype)

    def _copy_back(self, sources: Sequence[Tensor]) -> None:
        """Copy the arguments that the function wrote to into the caller's tensors."""
        for home, first, size, members in self._written_regions:
            ctypes.memmove(sources[first].address, home, size)
            for i in members:
                sources[i].storage.version += 1

    def _replayed(self, published: bool = True) -> None:
        """Do what an eager call does besides its launches: advance versions, set gradients, raise IndexError for a bad index.

        A failing call is undone. ``published`` is False if ``.grad`` must be set even then, because earlier calls of the same
        native loop left their gradients in the program's memory.
        """
        failed = self._status_cells[0] != 0
        if failed and self._saved_spans:
            for start, place, size in self._saving.tolist():
                ctypes.memmove(start, place, size)
        for storage in self._written:
            storage.version += 1
        for leaf in self._written_grads:
            assert leaf._grad is not None
            leaf._grad.storage.version += 1
        if not failed or not published:
            for gradient in self._gradients:
                gradient.leaf._grad = tensor = gradient.tensor if gradient.is_shared else copy_of(gradient.tensor)
                tensor.storage.version += 1
            for leaf in self._removed:
                leaf._grad = None
        if failed:
            self._status.check()

    @property
    def call(self) -> tuple[int, int]:
        """The addresses of the replay kernel and of its operand row, for a native loop."""
        return machine.replay.address, self._row_cells.ctypes.data

    def run_times(self, sources: Sequence[Tensor], count: int) -> list[Tensor]:
        """Replay ``count`` times with these inputs; return the last outputs as fresh tensors.

        Raises IndexError if an index was out of bounds; then the calls before the failing one are done.
        """
        kernel, row = self.call
        actions = np.array([kernel, row, 0, 0], np.int64)
        progress = np.zeros(2, np.int64)
        for region in self._regions:
            ctypes.memmove(region.home.address, sources[region.first].address, region.end - region.start)
        if self._has_numbers:
            self._set_numbers()
        stop = self._status.words.ctypes.data
        try:
            self.run_within(machine.repeat, machine.repeat_row(progress, actions, count, stop), progress)
        finally:
            if self._written_regions:
                self._copy_back(sources)
        results = [room_for(*kind) for kind in self._output_kinds]
        for result, output in zip(results, self.outputs, strict=True):
            copy_bytes(result, output)
        return results

    def run_within(self, primitive: Primitive, row: bytes, progress: np.ndarray | None = None) -> None:
        """Run a primitive that replays the program through `call` any number of times, directly on `inputs` and `outputs`.

        The primitive counts the replays in ``progress[0]``, if ``progress`` is given.
        """
        if not self._at_home:
            for tensors, cells_of in ((self.inputs, self._input_cells), (self.outputs, self._output_cells)):
                for tensor, cells in zip(tensors, cells_of, strict=True):
                    for cell, distance in cells or ():
                        self._cells[cell] = tensor.address + distance
            self._at_home = True
        primitive.call(row)
        self._replayed(published=progress is None or progress[0] < 2)

    def profile(self, repeats: int = 20) -> list[float]:
        """Median time of each launch in microseconds, over ``repeats`` replays with one native call per launch."""
        times = np.zeros((repeats, len(self.launches)))
        ends = [*self._rows[1:], self._rows[-1] + self._executed[-1].row_length] if self.launches else []
        rows = [self._operands[start:end].tobytes() for start, end in zip(self._rows, ends, strict=True)]
        for repeat in range(repeats):
            for i, primitive in enumerate(self._executed):
                begin = time.perf_counter()
                primitive.call(rows[i])
                times[repeat, i] = time.perf_counter() - begin
        return [float(t) for t in np.median(times, 0) * 1e6]

    @property
    def bytes(self) -> int:
        """Size of the program's own memory."""
        self._pool.rested()
        storages = {id(t.storage): t.storage for t in (*self.inputs, *self.outputs)}
        free = sum(block.size for blocks in self._pool.values() for block in blocks)
        return free + sum(s.nbytes for s in storages.values())

    def table(self, profile: bool = False) -> str:
        """The launches as text: number, primitive, shapes, bytes, microseconds if ``profile``, and the user's line."""
        times = self.profile() if profile else None
        lines = []
        for i, launch in enumerate(self.launches):
            cost = "" if times is None else f"{times[i]:9.2f} us"
            lines.append(f"{i:4d} {launch.name:24s} {launch.shapes_text:42s} {launch.bytes:10,d} B {cost} {launch.line}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<program of {len(self.launches)} launches, {self.bytes:,} bytes>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of launches without their times, because measuring them would run them."""
        rows = []
        for i, launch in enumerate(self.launches[:SHOWN]):
            file, _, number = launch.line.rpartition(":")
            code = linecache.getline(file, int(number)).strip() if number.isdigit() else ""
            rows.append((i, launch.name, launch.shapes_text, launch.bytes, code or launch.line))
        rest = len(self.launches) - len(rows)
        more = f"; the first {SHOWN} are shown" if rest else ""
        return html_table(("", "launch", "shapes", "bytes", "code"), rows, f"{repr(self)[1:-1]}{more}")


def _flattened(cells: list[list[tuple[int, int]] | None]) -> list[tuple[int, int, int]]:
    """All cells as one list of (number of the tensor, cell, distance), which a replay walks faster than lists in a list."""
    return [(i, place, distance) for i, places in enumerate(cells) for place, distance in places or ()]


class _Cells:
    """All cells that hold addresses of buffers, in three arrays: the index of the cell, the number of the launch, and the number
    of bytes from the address to the end of the operand."""

    def __init__(self, launches: Sequence[Launch], rows: np.ndarray, tables: np.ndarray):
        found: list[tuple[int, int, int]] = []
        for i, launch in enumerate(launches):
            if not launch.parts:
                found += [(int(rows[i]) + c, i, end - start) for c, (start, end) in enumerate(launch.spans)]
                continue
            for p, part in enumerate(launch.parts):
                at = int(tables[i]) + p * (1 + len(part) // 8) + 1
                for c, address in enumerate(struct.unpack_from(f"{len(launch.spans)}q", part)):
                    holding = [end for start, end in (launch.spans[c], *launch.reached) if start <= address < end]
                    found.append((at + c, i, max(holding, default=address) - address))
        table = np.array(found, np.int64).reshape(-1, 3)
        self._place, self._launch, self._size = np.ascontiguousarray(table.T)

    def inside(self, operands: np.ndarray, span: Span, first: int) -> np.ndarray | None:
        """Indices of the cells of operands in the span, from launch ``first`` on; None if an operand lies only partly in the span."""
        start = operands[self._place]
        end = start + self._size
        touching = (start < span[1]) & (end > span[0]) & (self._launch >= first) & (self._size > 0)
        if (touching & ((start < span[0]) | (end > span[1]))).any():
            return None
        return self._place[touching]


class _Touched:
    """The memory that the launches use, as arrays: start and end of each operand and of each span reached through a table, and the
    number of its launch."""

    def __init__(self, launches: Sequence[Launch]):
        found = [
            (start, end, i, reached)
            for i, launch in enumerate(launches)
            for reached, spans in ((False, launch.spans), (True, launch.reached))
            for start, end in spans
        ]
        self._start, self._end, self._launch, reached = np.ascontiguousarray(np.array(found, np.int64).reshape(-1, 4).T)
        self._reached = reached.astype(bool)

    def by(self, span: Span) -> np.ndarray:
        """Numbers of the launches that use a byte of the span, some of them several times."""
        return self._launch[self._overlapping(span)]

    def by_reaching(self, span: Span) -> np.ndarray:
        """`by`, for launches that find the memory through a table of addresses."""
        return self._launch[self._overlapping(span) & self._reached]

    def move(self, span: Span, first: int, distance: int) -> None:
        """Note that the launches from ``first`` on use other memory, ``distance`` bytes further, instead of the span."""
        moved = self._overlapping(span) & (self._launch >= first)
        self._start[moved] += distance
        self._end[moved] += distance

    def _overlapping(self, span: Span) -> np.ndarray:
        return (self._start < span[1]) & (span[0] < self._end)


def _merged_apart(spans: Sequence[Span]) -> list[Span]:
    """The spans that do not overlap a span with a lower start."""
    apart: list[Span] = []
    reach = 0
    for start, end in sorted(spans):
        if start >= reach:
            apart.append((start, end))
        reach = max(reach, end)
    return apart


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The union of the spans, as sorted spans that do not overlap."""
    merged: list[list[int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        elif start < end:
            merged.append([start, end])
    return [(start, end) for start, end in merged]


def _shifted(span: Span, region: Span, move: int) -> Span:
    """The span, moved if it overlaps the region."""
    return (span[0] + move, span[1] + move) if overlap(span, region) else span


def _settle_table(words: np.ndarray, homes: dict[int, int]) -> None:
    """Replace the addresses of the caller's tensors in a table by the addresses of the program's inputs."""
    if any(address != home for address, home in homes.items()):
        words[:] = [homes.get(word, word) for word in words.tolist()]


def room_for(shape: Shape, strides: Shape | None, dtype: DType, nbytes: int) -> Tensor:
    """A tensor of this layout over new memory."""
    return empty(shape, dtype) if strides is None else new(Storage(nbytes), shape, strides, 0, dtype)


def layout_of(tensor: Tensor) -> tuple[Shape, Shape | None, DType, int]:
    """The arguments of `room_for` that make a tensor of the same layout."""
    start, end = span_of(tensor)
    return tensor.sizes, tensor.strides, tensor.dtype, end - start


def copy_of(tensor: Tensor) -> Tensor:
    """A copy of the same layout."""
    result = room_for(*layout_of(tensor))
    copy_bytes(result, tensor)
    return result


def copy_bytes(target: Tensor, source: Tensor) -> None:
    """Copy the memory of a tensor to another tensor of the same layout."""
    start, end = span_of(source)
    ctypes.memmove(target.address, start, end - start)
