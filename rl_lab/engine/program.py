"""The recorded launches of one call, and their replay by one native call."""

import bisect
import ctypes
import math
import struct
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType
from rl_lab.engine.kernels.optimizer import first_not_finite
from rl_lab.engine.launch import Counted, Part, changes, check_dtypes, lengths_of, user_line
from rl_lab.engine.memory import Block, Pool, Storage, private_pool
from rl_lab.engine.number import Expressions, Number, Plain
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.gathering import IndexStatus
from rl_lab.engine.passes import Launch, Span, cut_for_cores, finish_products, overlap, remove_dead
from rl_lab.engine.reads import Reads
from rl_lab.engine.tensor import Shape, empty, new
from rl_lab.native import machine
from rl_lab.native.primitive import Primitive, Real

LARGEST_COPY = 2**28  # bytes; a recording keeps the old content of smaller tensors, so that a failing call can be undone

Place = tuple[np.ndarray, int, int]
"""A cell that holds an address in a tensor's memory: the array, the index in it, and the distance in bytes from the tensor's start."""
Facts = tuple[int, Shape, bool, tuple[Callable, ...] | None]
"""Address, sizes, ``needs_grad`` and hooks of a tensor."""


def span_of(tensor: Tensor) -> Span:
    """The address of a tensor's first byte, and the address after its last byte."""
    size = tensor.dtype.itemsize
    if tensor.strides is None:
        return tensor.address, tensor.address + math.prod(tensor.sizes) * size
    if 0 in tensor.sizes:
        return tensor.address, tensor.address
    last = sum((count - 1) * stride for count, stride in zip(tensor.sizes, tensor.strides, strict=True))
    return tensor.address, tensor.address + (last + 1) * size


def regions_of(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Groups of tensors with overlapping memory, by index; each group begins with a tensor of the lowest address."""
    groups: list[list[int]] = []
    reach = 0
    for (start, end), i in sorted((span_of(tensor), i) for i, tensor in enumerate(tensors)):
        if groups and start < reach and start != end:
            groups[-1].append(i)
            reach = max(reach, end)
        elif start == end:
            groups.insert(0, [i])
        else:
            groups.append([i])
            reach = end
    return groups


def sharing(tensors: Sequence[Tensor]) -> tuple | None:
    """Which tensors overlap, and their distances in bytes; None if no two tensors overlap."""
    if len(tensors) < 2:
        return None
    groups = [group for group in regions_of(tensors) if len(group) > 1]
    if not groups:
        return None
    return tuple(sorted(tuple(sorted((i, tensors[i].address - tensors[g[0]].address) for i in g)) for g in groups))


class Region:
    """Memory of one argument, or of several that overlap, and the memory (home) that stands for it in the program."""

    def __init__(self, tensors: Sequence[Tensor], members: list[int]):
        self.members = members
        self.first = members[0]
        self.start = tensors[members[0]].address
        self.end = max(span_of(tensors[i])[1] for i in members)
        self.home = Storage(self.end - self.start)
        self.written = False

    @property
    def span(self) -> Span:
        return self.home.address, self.home.address + self.end - self.start


class Undone(NamedTuple):
    """The content of some memory before a recording wrote to it."""

    address: int
    content: bytes


class Table(NamedTuple):
    """A table of addresses: its memory, the spans that it refers to, and the home of each address in the program."""

    storage: Storage
    spans: list[Span]
    homes: dict[int, int]


class Recorder:
    """Records the launches of one call and the state on which they depend.

    Memory made during the recording comes from a pool of the program. A block that the call frees is used again only by later
    launches of the same program. The call works on the memory of the caller's tensors, through tensors of the recorder
    (``arguments``). The recorded rows refer to the program's ``inputs`` instead.

    Dictionaries are keyed by ``id`` and hold the object, so that the id stays valid.
    """

    def __init__(self, tensors: Sequence[Tensor] = (), numbers: Sequence[Plain] = ()) -> None:
        self.launches: list[Launch] = []
        self.pool = Pool()
        self.outside: dict[int, Storage] = {}
        """Memory that existed before the call and that a launch uses."""
        self.written: dict[int, Storage] = {}
        """The part of `outside` that a launch writes to."""
        self.expected_grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        """Leaves whose gradient was read, with the gradient found."""
        self.old_grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        """Leaves whose gradient was read or replaced, with the gradient before the call."""
        self.leaves: dict[int, Tensor] = {}
        self.objects: dict[int, tuple[Counted, int]] = {}
        """Modules and optimizers that were used, with their count of changes."""
        self.tensors: dict[int, tuple[Tensor, Facts]] = {}
        """Tensors from outside that were used, with their facts."""
        self.status = IndexStatus()
        self.numbers = tuple(numbers)
        self.expressions = Expressions(numbers)
        self.reason: str | None = None
        self.stopped = False  # whether the recording was given up before the call ended
        self.reads = Reads()
        self.ran_backward = False
        self.failed = False  # whether a kernel has reported an index out of bounds
        self.tables: dict[int, Table] = {}
        self._begin = tape.next_sequence()
        self._made: dict[int, Counted] = {}
        self._lines: dict[str, str] = {}
        self.undoing: list[Callable[[], object]] = []
        """Functions to call, last first, if the call fails."""
        self._undo: list[Undone] = []
        self._saved: set[Span] = set()
        self._prepare(tensors)

    def _prepare(self, tensors: Sequence[Tensor]) -> None:
        """Make the tensors that the call gets in place of the caller's, and the program's inputs."""
        self.sharing = sharing(tensors)
        with private_pool(self.pool):
            self.regions = [Region(tensors, members) for members in regions_of(tensors)]
        regions = {i: region for region in self.regions for i in region.members}
        aliases: dict[int, Storage] = {}
        self.arguments: list[Tensor] = []
        self.inputs: list[Tensor] = []
        for i, t in enumerate(tensors):
            alias = aliases.setdefault(id(t.storage), t.storage.alias())
            self.arguments.append(new(alias, t.sizes, t.strides, t.offset, t.dtype))
            home = new(regions[i].home, t.sizes, t.strides, 0, t.dtype)
            home.address += t.address - regions[i].start
            self.inputs.append(home)
        self._aliases = {id(alias): alias for alias in aliases.values()}
        self._originals = [(t.storage, aliases[id(t.storage)]) for t in {id(t.storage): t for t in tensors}.values()]

    # --- launches ----------------------------------------------------------------------------------------------------

    def launch(self, primitive: Primitive, tensors: tuple[Tensor, ...], numbers: tuple) -> None:
        """Run a launch, and record it."""
        varying: tuple[tuple[int, int], ...] = ()
        if Number in map(type, numbers):
            columns = range(len(tensors), len(tensors) + len(numbers))
            real = [primitive.roles[column] is Real for column in columns]
            fitting = [type(n) is Number and type(n.value) is (float if r else int) for n, r in zip(numbers, real, strict=True)]
            varying = tuple([(c, n.place) for c, n, fits in zip(columns, numbers, fitting, strict=True) if fits])
            numbers = tuple([n.value if fits else n for n, fits in zip(numbers, fitting, strict=True)])
        check_dtypes(primitive, tensors)
        row = primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths_of(tensors))
        if self.reason is None:
            self._record(primitive, tensors, row, varying)
        primitive.call(row)

    def _record(
        self, primitive: Primitive, tensors: tuple[Tensor, ...], row: bytes, varying: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self.pool.rested()
        moves = self._note(primitive, tensors)
        line = user_line()
        reached: list[Span] = []
        for tensor in tensors:
            if (table := self.tables.get(id(tensor.storage))) is not None:
                reached += table.spans
        spans = tuple([(low + move, high + move) for (low, high), move in zip(map(span_of, tensors), moves, strict=True)])
        checked = primitive is not first_not_finite and any(tensor is self.status.tensor for tensor in tensors)
        shapes = tuple([tensor.sizes for tensor in tensors])
        row = _moved(row, moves)
        line = self._lines.setdefault(line, line)
        self.launches.append(Launch(primitive, row, shapes, spans, tuple(reached), line, (), 0, varying, checked))

    def _note(self, primitive: Primitive, tensors: tuple[Tensor, ...]) -> list[int]:
        """Note the memory of the operands, and save memory that is about to be written to.

        Returns the distance in bytes from each operand to its home in the program.
        """
        moves = []
        for tensor, role in zip(tensors, primitive.buffers, strict=True):
            storage = tensor.storage
            move = 0
            if id(storage) in self._aliases:
                region = self._region_of(tensor)
                if region is not None:
                    move = region.home.address - region.start
                    if role.writes:
                        region.written = True
                        self._save(tensor)
            elif not self.is_ours(storage):
                self.outside[id(storage)] = storage
                self.uses_tensor(tensor)
                if role.writes and tensor is not self.status.tensor:
                    self.written[id(storage)] = storage
                    self._save(tensor)
            moves.append(move)
        return moves

    def _region_of(self, tensor: Tensor) -> Region | None:
        """The region that holds a tensor made of an argument; gives up if the tensor reaches beyond all regions."""
        start, end = span_of(tensor)
        for region in self.regions:
            if region.start <= start and end <= region.end:
                return region
        if start != end:
            self.give_up("a view reaches beyond the memory of the argument from which it was made")
        return None

    def _home_span(self, tensor: Tensor) -> Span:
        low, high = span_of(tensor)
        move = self.move_of(tensor)
        return low + move, high + move

    def move_of(self, tensor: Tensor) -> int:
        """The distance in bytes from a tensor's memory during the call to its home in the program; 0 if they are the same."""
        if id(tensor.storage) not in self._aliases:
            return 0
        region = self._region_of(tensor)
        return 0 if region is None else region.home.address - region.start

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        """Record a launch in independent parts, which the caller runs."""
        if self.reason is not None:
            return
        self._record(primitive, parts[0][0], rows[0])
        moved = [_moved(row, self._note(primitive, tensors)) for (tensors, _, _), row in zip(parts, rows, strict=True)]
        known = set(map(id, parts[0][0]))
        extra = {id(t): t for tensors, _, _ in parts[1:] for t in tensors if id(t) not in known}
        if self.reason is not None:
            return
        whole = self.launches[-1]
        reached = [self._home_span(t) for t in extra.values()]
        for tensor in extra.values():
            if (table := self.tables.get(id(tensor.storage))) is not None:
                reached += table.spans
        self.launches[-1] = replace(whole, parts=tuple(moved), cycles=cycles, reached=(*whole.reached, *reached))

    def is_ours(self, storage: Storage) -> bool:
        """Whether the memory was made during the recording."""
        owner = storage.owner
        while isinstance(owner, Storage):
            owner = owner.owner
        return type(owner) is Block and owner.pool is self.pool

    def is_inside(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory was made during the recording or belongs to an argument."""
        return id(tensor.storage) in self._aliases or self.is_ours(tensor.storage)

    # --- state on which the launches depend --------------------------------------------------------------------------

    def table(self, table: Tensor, tensors: list[Tensor], writes: bool = True) -> None:
        """Note a table of addresses: launches that get the table read these tensors and, if it ``writes``, write them."""
        for tensor in tensors:
            storage = tensor.storage
            if id(storage) in self._aliases:
                region = self._region_of(tensor)
                if region is not None and writes:
                    region.written = True
                if writes:
                    self._save(tensor)
            elif not self.is_ours(storage):
                self.outside[id(storage)] = storage
                self.uses_tensor(tensor)
                if writes:
                    self.written[id(storage)] = storage
                    self._save(tensor)
        self.outside[id(table.storage)] = table.storage
        homes = {tensor.address: tensor.address + self.move_of(tensor) for tensor in tensors}
        self.tables[id(table.storage)] = Table(table.storage, [self._home_span(t) for t in tensors], homes)

    def grad_read(self, leaf: Tensor) -> None:
        """Note that the call depends on ``leaf.grad`` as it is now."""
        if id(leaf) not in self.leaves:
            self.expected_grads[id(leaf)] = (leaf, leaf._grad)
            self.leaves[id(leaf)] = leaf
            self.old_grads.setdefault(id(leaf), (leaf, leaf._grad))
            self.uses_tensor(leaf)

    def grad_written(self, leaf: Tensor) -> None:
        """Note that ``leaf.grad`` is about to be replaced."""
        self.leaves[id(leaf)] = leaf
        self.old_grads.setdefault(id(leaf), (leaf, leaf._grad))

    def read_attribute(self, owner: Counted, name: str) -> None:
        """Note that the call depends on an attribute of a module, which counts changes of this attribute."""
        if id(owner) in self._made:
            return
        if owner.changes is None:
            object.__setattr__(owner, "changes", 0)
        self.reads.read(
            owner.__dict__, name, owner.__dict__[name], covered=True, what=f"{type(owner).__name__}.{name.lstrip('_')}"
        )

    def store_attribute(self, owner: Counted, name: str) -> None:
        """Note that an attribute of a module is about to be set."""
        if id(owner) not in self._made:
            self.reads.store(owner.__dict__, name, owner.__dict__[name])

    def uses(self, owner: Counted) -> None:
        """Note that the call depends on the structure of a module or an optimizer."""
        if id(owner) in self._made or id(owner) in self.objects:
            return
        if owner.changes is None:
            object.__setattr__(owner, "changes", 0)
        self.objects[id(owner)] = owner, owner.changes or 0

    def made(self, owner: Counted) -> None:
        """Note that a module or an optimizer was made during the recording."""
        self._made[id(owner)] = owner

    def was_made(self, owner: Counted | None) -> bool:
        """Whether a module or an optimizer was made during the recording."""
        return id(owner) in self._made

    def uses_tensor(self, tensor: Tensor) -> None:
        """Note that the call depends on the facts of a tensor from outside (see `tensor_facts`)."""
        if id(tensor) in self.tensors or self.is_inside(tensor):
            return
        if tensor.base is not None:
            self.uses_tensor(tensor.base)
        elif tensor.node is not None and tensor.node.sequence < self._begin and tape.modes.grad:
            self.give_up("it uses a value that was computed outside of the function and requires grad")
        self.tensors[id(tensor)] = tensor, tensor_facts(tensor)

    def give_up(self, reason: str) -> None:
        """Stop recording: the rest of the call runs eagerly. The first reason is kept, with the user's line."""
        if self.reason is None:
            self.reason = f"{reason}, at {user_line()}"
            self.stopped = True
            self.launches.clear()
            self.expressions.close()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _save(self, tensor: Tensor) -> None:
        """Keep the content of a tensor's memory before the call writes to it for the first time."""
        span = span_of(tensor)
        if span not in self._saved and span[1] - span[0] <= LARGEST_COPY:
            self._saved.add(span)
            self._undo.append(Undone(span[0], ctypes.string_at(span[0], span[1] - span[0])))

    def undo(self) -> None:
        """Undo the changes of the call: memory from outside, gradients, and the Python state that it read."""
        self.reads.restore()
        for undo in reversed(self.undoing):
            undo()
        for address, content in reversed(self._undo):
            ctypes.memmove(address, content, len(content))
        for leaf, gradient in self.old_grads.values():
            leaf._grad = gradient

    def finish(self) -> None:
        """Advance the versions of the arguments that were written to, and release everything that only a recording needs."""
        for original, alias in self._originals:
            original.version += alias.version
        self._undo.clear()
        self.undoing.clear()
        self._made.clear()

    def forget_inner(self) -> None:
        """Forget tensors made inside the function: each eager call makes new ones, so the program must not depend on them."""
        self.old_grads.clear()
        for key in list(self.leaves):
            held = 1 + (key in self.expected_grads) + (key in self.tensors)  # references from the dicts of this recorder
            if self.is_inside(self.leaves[key]) or sys.getrefcount(self.leaves[key]) <= held + 1:  # getrefcount adds one
                del self.leaves[key]
                self.expected_grads.pop(key, None)
                self.tensors.pop(key, None)
        for key in list(self.tensors):
            if key not in self.leaves and sys.getrefcount(self.tensors[key][0]) <= 2:
                del self.tensors[key]
        expected = {id(gradient): gradient for _, gradient in self.expected_grads.values() if gradient is not None}
        for key, gradient in expected.items():
            self.tensors.pop(key, None)
            self.outside.pop(id(gradient.storage), None)

    def changed_itself(self) -> str | None:
        """A sentence that names a dependency of the call which the call itself has changed; None if there is no such change."""
        for owner, version in self.objects.values():
            if owner.changes != version:
                return f"it changes the parts of a {type(owner).__name__}"
        for tensor, facts in self.tensors.values():
            if tensor_facts(tensor) != facts:
                return f"it changes the memory, the requires_grad flag or the hooks of a tensor of shape {list(tensor.sizes)}"
        changed = self.reads.difference()
        return None if changed is None else f"it changes {changed}"


def tensor_facts(tensor: Tensor) -> Facts:
    """The Python-side state of a tensor on which a recording depends."""
    hooks = tensor.hooks
    return tensor.address, tensor.sizes, tensor.needs_grad, tuple(hooks.values()) if hooks else None


def _moved(row: bytes, moves: Sequence[int]) -> bytes:
    """The row with its first cells, which hold addresses, moved by these distances."""
    if not any(moves):
        return row
    cells = list(struct.unpack(f"{len(row) // 8}q", row))
    for i, move in enumerate(moves):
        cells[i] += move
    return struct.pack(f"{len(cells)}q", *cells)


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
        """Take the present number of references, all of which are the program's, as the number to compare with."""
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
        self._build()

    def _build(self) -> None:
        """Lay out the rows of all launches, and work out everything that a replay must do besides."""
        launches = self.launches
        rows = [launch.row for launch in launches]
        tables = [machine.parallel_table(x.primitive.address, x.parts) if x.parts else b"" for x in launches]
        for i, launch in enumerate(launches):
            if launch.parts:
                rows[i] = machine.parallel_row(0, launch.parts, launch.cycles)
        lengths = [len(row) // 8 for row in rows]
        self._rows = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if lengths else np.zeros(0, np.int64)
        tables_at = sum(lengths) + np.concatenate([[0], np.cumsum([len(table) // 8 for table in tables])]).astype(np.int64)
        self._operands = np.frombuffer(b"".join([*rows, *tables]), np.int64).copy()
        self._where = _Cells(launches, self._rows, tables_at)
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
        self._written_regions = [(r.home.address, r.first, r.end - r.start, r.members) for r in copied if r.written]
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
        spans = [(storage.address, storage.address + storage.nbytes) for storage in self._written]
        if self._written_regions:
            spans += [(storage.address, storage.address + storage.nbytes) for storage in self._outside]
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
        """Whether the program maps one tensor to one tensor without conditions and copies, so that `run_function` can replay it."""
        if self.is_function:
            self._entry_places = [place for place, _ in self._input_cells[0] or ()]
            self._exit_places = [place for place, _ in self._output_cells[0] or ()]
            self._shape = self.outputs[0].sizes
            self._dtype = self.outputs[0].dtype

    def _make_row(self, primitives: list[Primitive]) -> None:
        """Make the arrays that `machine.replay` walks.

        If a launch may report an index out of bounds, the first kernel copies the memory that must then be restored.
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
        self._row = machine.replay_row(self._kernels, self._all_rows, self._status.words, self._operands)
        machine.replay.address  # noqa: B018  compile or load the kernel now, not at the first replay

    def _spans_to_save(self) -> list[Span]:
        """Memory that outlives a call and is written to up to the last launch that may report an index out of bounds."""
        last = max([i for i, launch in enumerate(self.launches) if launch.checked], default=-1)
        if last < 0:
            return []
        lasting = [(storage.address, storage.address + storage.nbytes) for storage in self._written]
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
        for i in range(first, len(self.launches)):
            launch = self.launches[i]
            if any(overlap(span, other) for other in (*launch.spans, *launch.reached)):
                spans = tuple([_shifted(other, span, move) for other in launch.spans])
                reached = tuple([_shifted(other, span, move) for other in launch.reached])
                self.launches[i] = replace(launch, spans=spans, reached=reached)
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
        outside = [(storage.address, storage.address + storage.nbytes) for storage in self._outside]
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
        reaching = [i for i, x in enumerate(self.launches) if any(overlap(span, other) for other in x.reached)]
        if not reaching or reaching[-1] < first:
            return places
        if not tables:
            return None
        for storage, words in self._address_tables:
            named = np.flatnonzero((words >= span[0]) & (words < span[1]))
            if len(named):
                memory = storage.address, storage.address + storage.nbytes
                users = [i for i, x in enumerate(self.launches) if any(overlap(memory, o) for o in (*x.spans, *x.reached))]
                if users and users[-1] < first:
                    continue
                if any(user < first for user in users):
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
        outside = [(storage.address, storage.address + storage.nbytes) for storage in self._outside]
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
        others = [(storage.address, storage.address + storage.nbytes) for storage in self._outside]
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

    def run_function(self, source: Tensor) -> Tensor:
        """A short form of `run` for a program with `is_function`.

        A policy that acts on one observation spends most of its time outside of the kernels.
        """
        cells = self._cells
        self._at_home = False
        address = source.address
        for place in self._entry_places:
            cells[place] = address
        result = empty(self._shape, self._dtype)
        address = result.address
        for place in self._exit_places:
            cells[place] = address
        machine.replay.call(self._row)
        if self._has_effects:
            self._replayed()
        return result

    def _set_numbers(self) -> None:
        """Write the numbers of this call into the rows and into the memory of the tensors made of numbers."""
        values = self.values
        for cell, place in self._real_places:
            self._reals[cell] = values[place]
        for cell, place in self._int_places:
            self._cells[cell] = values[place]  # type: ignore[assignment]
        with np.errstate(over="ignore"):
            for place, array in self._expressions.cells:
                array[0] = values[place]

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
            shapes = " ".join("x".join(map(str, shape)) or "1" for shape in launch.shapes)
            cost = "" if times is None else f"{times[i]:9.2f} us"
            lines.append(f"{i:4d} {launch.name:24s} {shapes:42s} {launch.bytes:10,d} B {cost} {launch.line}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<program of {len(self.launches)} launches, {self.bytes:,} bytes>"


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
