"""The recorder: runs the launches of one call, and notes them together with the state on which they depend."""

import ctypes
import itertools
import math
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from rl_lab.engine import tape
from rl_lab.engine.kernels.optimizer import first_not_finite
from rl_lab.engine.launch import Counted, Part, check_dtypes, lengths_of, user_line
from rl_lab.engine.memory import Block, Pool, Storage, private_pool
from rl_lab.engine.number import Expressions, Number, Plain
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.gathering import IndexStatus
from rl_lab.engine.passes import Launch, Span
from rl_lab.engine.reads import Reads
from rl_lab.engine.tensor import Shape, new
from rl_lab.native.primitive import Primitive, Real

LARGEST_COPY = 2**28  # bytes; a recording keeps the old content of smaller tensors, so that a failing call can be undone

Facts = tuple[int, Shape, Shape | None, bool, tuple[Callable, ...] | None]
"""Address, sizes, strides, ``needs_grad`` and hooks of a tensor."""


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
        return self.home.span


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
        made: dict[int, Tensor] = {}  # a tensor that is passed twice is one object inside as well
        for i, t in enumerate(tensors):
            alias = aliases.setdefault(id(t.storage), t.storage.alias())
            self.arguments.append(made.setdefault(id(t), new(alias, t.sizes, t.strides, t.offset, t.dtype)))
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
        return [self._note_operand(t, role.writes) for t, role in zip(tensors, primitive.buffers, strict=True)]

    def _note_operand(self, tensor: Tensor, writes: bool) -> int:
        """Note a tensor that a launch reads or, if it ``writes``, writes; return the distance in bytes to its home in the program."""
        storage = tensor.storage
        if self.is_argument(storage):
            region = self._region_of(tensor)
            if region is None:
                return 0
            if writes:
                region.written = True
                self._save(tensor)
            return region.home.address - region.start
        if not self.is_ours(storage):
            self.outside[id(storage)] = storage
            self.uses_tensor(tensor)
            if writes and tensor is not self.status.tensor:
                self.written[id(storage)] = storage
                self._save(tensor)
        return 0

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
        """The span of a tensor's home in the program, which is its own memory unless it was made of an argument."""
        low, high = span_of(tensor)
        region = self._region_of(tensor) if self.is_argument(tensor.storage) else None
        move = 0 if region is None else region.home.address - region.start
        return low + move, high + move

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        """Record a launch that is split into independent parts. The caller runs the parts."""
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

    def is_argument(self, storage: Storage) -> bool:
        """Whether the memory is that of an argument, also by way of ``data``."""
        while id(storage) not in self._aliases:
            if not isinstance(storage.owner, Storage):
                return False
            storage = storage.owner
        return True

    def stands_in(self, storage: Storage) -> bool:
        """Whether this is the memory of an argument itself, which stands for the caller's during the recording."""
        return id(storage) in self._aliases

    def is_ours(self, storage: Storage) -> bool:
        """Whether the memory was made during the recording."""
        owner = storage.owner
        while isinstance(owner, Storage):
            owner = owner.owner
        return type(owner) is Block and owner.pool is self.pool

    def is_inside(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory was made during the recording or belongs to an argument."""
        return self.is_argument(tensor.storage) or self.is_ours(tensor.storage)

    # --- state on which the launches depend --------------------------------------------------------------------------

    def table(self, table: Tensor, tensors: list[Tensor], writes: bool = True) -> None:
        """Note a table of addresses: launches that get the table read these tensors and, if it ``writes``, write them."""
        homes = {tensor.address: tensor.address + self._note_operand(tensor, writes) for tensor in tensors}
        self.outside[id(table.storage)] = table.storage
        self.tables[id(table.storage)] = Table(table.storage, [self._home_span(t) for t in tensors], homes)

    def grad_read(self, leaf: Tensor) -> None:
        """Note that the call depends on ``leaf.grad`` as it is now."""
        if id(leaf) not in self.leaves:
            self.expected_grads[id(leaf)] = (leaf, leaf._grad)
            self.leaves[id(leaf)] = leaf
            self.old_grads.setdefault(id(leaf), (leaf, leaf._grad))
            self.uses_tensor(leaf)

    def grad_written(self, leaf: Tensor, value: Tensor | None) -> None:
        """Note that ``leaf.grad`` is about to be replaced."""
        if value is not None and self.is_argument(value.storage):
            self.give_up("it keeps an argument as a gradient")
        self.sets(leaf, "grad")
        self.leaves[id(leaf)] = leaf
        self.old_grads.setdefault(id(leaf), (leaf, leaf._grad))

    def version_before(self, storage: Storage) -> int:
        """How often the memory of an argument was written to before the call that gets ``storage`` in its place; else 0."""
        return next((original.version for original, alias in self._originals if alias is storage), 0)

    def sets(self, tensor: Tensor, name: str) -> None:
        """Note that an attribute of a tensor is about to be set; gives up if the tensor is an argument."""
        if any(tensor is argument for argument in self.arguments):
            self.give_up(f"it sets {name} of an argument")

    @staticmethod
    def is_reshaped(theirs: Tensor, own: Tensor) -> bool:
        """Whether the call has changed the shape of an argument in place."""
        return (theirs.sizes, theirs.strides) != (own.sizes, own.strides)

    def hand_over(self, tensors: Sequence[Tensor]) -> None:
        """Set on the caller's tensors what a call that is not replayed has set on the recorder's."""
        for theirs, own in zip(tensors, self.arguments, strict=True):
            if not self.stands_in(own.storage):
                theirs.data = own
            elif self.is_reshaped(theirs, own):
                theirs.sizes, theirs.strides = own.sizes, own.strides
            if own._grad is not None:
                theirs._grad = own._grad
            if own.needs_grad and own.node is None and not theirs.needs_grad:
                theirs.requires_grad_()

    def read_attribute(self, owner: Counted, name: str) -> None:
        """Note that the call depends on an attribute of a module. The module counts the changes of this attribute."""
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
            # A replay repeats no stores, so it must begin with the value with which the recording began.
            self.read_attribute(owner, name)
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
        """Describe the first dependency of the call that the call itself has changed; None if there is none."""
        for owner, version in self.objects.values():
            if owner.changes != version:
                return f"it changes the parts of a {type(owner).__name__}"
        for tensor, facts in self.tensors.values():
            if tensor_facts(tensor) != facts:
                return f"it changes the memory, the requires_grad flag or the hooks of a tensor of shape {list(tensor.sizes)}"
        # each replay gives a gradient memory of its own, so two gradients over the same memory would part
        spans = sorted({id(g): span_of(g) for leaf in self.leaves.values() if (g := leaf._grad) is not None}.values())
        count = sum(leaf._grad is not None for leaf in self.leaves.values())
        if len(spans) < count or any(low < end for (_, end), (low, _) in itertools.pairwise(spans)):
            return "it leaves gradients that share memory"
        changed = self.reads.difference()
        return None if changed is None else f"it changes {changed}"


def tensor_facts(tensor: Tensor) -> Facts:
    """The Python-side state of a tensor on which a recording depends."""
    hooks = tensor.hooks
    return tensor.address, tensor.sizes, tensor.strides, tensor.needs_grad, tuple(hooks.values()) if hooks else None


def _moved(row: bytes, moves: Sequence[int]) -> bytes:
    """The row with its first cells, which hold addresses, moved by these distances."""
    if not any(moves):
        return row
    cells = list(struct.unpack(f"{len(row) // 8}q", row))
    for i, move in enumerate(moves):
        cells[i] += move
    return struct.pack(f"{len(cells)}q", *cells)
