"""From the launches of a policy to its `Graph`.

The policy computes the action for one observation once, while `PolicyRecorder` follows each number through memory: it comes from an
input, from an earlier node, or is a constant. A launch on constants needs no node, because its result is a constant as well. Copies,
slices, transposes and joined tensors need no node either: they only say where numbers stand.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence

import numpy as np

from rl_lab.engine.launch import Part, lengths_of, record_with
from rl_lab.engine.memory import Storage, private_pool
from rl_lab.engine.ops import Tensor
from rl_lab.engine.program import Recorder
from rl_lab.engine.tensor import contiguous_strides, new
from rl_lab.engine.watch import watching
from rl_lab.experiment.export.expressions import evaluate
from rl_lab.experiment.export.graph import Graph, Input, Node, Operand, Ref, Value
from rl_lab.experiment.faults import Fault
from rl_lab.native.primitive import Primitive

CONSTANT = -1
_DTYPES = {"float32": np.float32, "int64": np.int64, "bool": np.uint8, "uint8": np.uint8}


class _Cells:
    """For each number of a storage: the value that it belongs to, and its position in this value."""

    def __init__(self, itemsize: int, count: int):
        self.itemsize = itemsize
        self.values = np.full(count, CONSTANT, np.int64)
        self.positions = np.zeros(count, np.int64)


class PolicyRecorder(Recorder):
    """Records the launches of a policy as nodes of a `Graph`."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who
        self.graph = Graph({}, [], [], [])
        self._cells: dict[int, _Cells] = {}
        self._kept: list[Storage] = []

    # --- memory ------------------------------------------------------------------------------------------------------

    def add_value(self, size: int, dtype: str) -> int:
        """The number of a new value."""
        number = len(self.graph.values)
        self.graph.values[number] = Value(size, dtype)
        return number

    def add_input(self, tensor: Tensor, name: str) -> None:
        """Let a contiguous tensor (1, ...) be an input of the policy."""
        value = self.add_value(tensor.numel(), tensor.dtype.name)
        self.graph.inputs.append(Input(value, name, tuple(tensor.sizes[1:])))
        self.write(tensor, Ref(value, (tensor.numel(),)))

    def _cells_of(self, tensor: Tensor) -> _Cells:
        storage = tensor.storage
        itemsize = tensor.dtype.itemsize
        cells = self._cells.get(id(storage))
        if cells is None:
            self._kept.append(storage)  # so that its id stays its own
            cells = self._cells[id(storage)] = _Cells(itemsize, storage.nbytes // itemsize)
        if cells.itemsize != itemsize:
            raise Fault(f"{self.who} cannot be exported: it reads the bytes of a tensor as {tensor.dtype.name}")
        return cells

    def elements(self, tensor: Tensor) -> np.ndarray:
        """The positions of a tensor's elements, counted from its first, in its shape."""
        strides = tensor.strides or contiguous_strides(tensor.sizes)
        index = np.zeros(tensor.sizes, np.int64)
        for axis, (size, stride) in enumerate(zip(tensor.sizes, strides, strict=True)):
            index += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(len(tensor.sizes))])
        return index

    def _places(self, tensor: Tensor, at: np.ndarray | None) -> np.ndarray:
        index = self.elements(tensor) if at is None else at
        return index + (tensor.address - tensor.storage.address) // tensor.dtype.itemsize

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether no element of a tensor depends on an input."""
        if id(tensor.storage) not in self._cells:
            return True
        return bool((self._cells_of(tensor).values[self._places(tensor, None)] == CONSTANT).all())

    def read(self, tensor: Tensor, at: np.ndarray | None = None) -> Operand:
        """The elements ``at`` these positions, counted from the tensor's first element, in the shape of ``at``; by default all."""
        places = self._places(tensor, at)
        flat = places.ravel()
        cells = self._cells_of(tensor)
        values = cells.values[flat]
        present = np.unique(values)
        if present.tolist() == [CONSTANT]:
            return _constant(tensor, flat).reshape(places.shape)
        positions = cells.positions[flat]
        if len(present) == 1:
            value = int(present[0])
            if self.graph.values[value].size == flat.size and (positions == np.arange(flat.size)).all():
                return Ref(value, places.shape)
        sources: list[Operand] = []
        start = 0
        index = np.zeros(flat.size, np.int64)
        for value in map(int, present):
            chosen = values == value
            if value == CONSTANT:
                sources.append(_constant(tensor, flat[chosen]))
                index[chosen] = start + np.arange(chosen.sum())
                start += int(chosen.sum())
            else:
                size = self.graph.values[value].size
                sources.append(Ref(value, (size,)))
                index[chosen] = start + positions[chosen]
                start += size
        return self.node("take", tuple(sources), places.shape, tensor.dtype.name, index=index)

    def write(self, tensor: Tensor, operand: Operand | None, at: np.ndarray | None = None) -> None:
        """Note that elements of a tensor are now those of an operand, or, for None, the constants that the launch writes."""
        flat = self._places(tensor, at).ravel()
        cells = self._cells_of(tensor)
        if isinstance(operand, Ref):
            cells.values[flat] = operand.value
            cells.positions[flat] = np.arange(flat.size)
            return
        cells.values[flat] = CONSTANT
        if operand is not None:
            _numbers(tensor)[flat] = operand.ravel()

    def copy(self, source: Tensor, source_at: np.ndarray, target: Tensor, target_at: np.ndarray) -> None:
        """Note that elements were copied between tensors of the same type."""
        origin = self._cells_of(source)
        places = self._places(source, source_at).ravel()
        cells = self._cells_of(target)
        into = self._places(target, target_at).ravel()
        _numbers(target)[into] = _numbers(source)[places]  # for the constants among them
        cells.values[into], cells.positions[into] = origin.values[places], origin.positions[places]

    def node(self, kind: str, operands: Sequence[Operand], shape: tuple[int, ...], dtype: str, **more: object) -> Ref:
        """Add a node and return its value."""
        out = self.add_value(int(np.prod(shape, dtype=np.int64)), dtype)
        self.graph.nodes.append(Node(kind, out, tuple(operands), tuple(shape), dtype, **more))  # type: ignore[arg-type]
        return Ref(out, tuple(shape))

    def map(self, formula: str, dtype: str = "float32", /, **operands: Operand) -> Operand:
        """Compute a formula of operands by name, which broadcast: by a node, or at once if all are constants."""
        if not any(isinstance(operand, Ref) for operand in operands.values()):
            return evaluate(formula, dtype, operands)
        shape = np.broadcast_shapes(*[operand.shape for operand in operands.values()])
        return self.node("map", tuple(operands.values()), shape, dtype, names=tuple(operands), formula=formula)

    # --- launches ----------------------------------------------------------------------------------------------------

    def launch(self, primitive: Primitive, tensors: tuple[Tensor, ...], numbers: tuple) -> None:
        """Run a launch, and add the nodes that it stands for."""
        self._translate(primitive, tensors, numbers)
        primitive.call(primitive.pack(*[tensor.address for tensor in tensors], *numbers, *lengths_of(tensors)))

    def record_parts(self, primitive: Primitive, parts: Sequence[Part], rows: list[bytes], cycles: int) -> None:
        """Add the nodes of a launch in independent parts, which the caller runs."""
        for tensors, offsets, numbers in parts:
            moved = [_moved(t, offset) for t, offset in zip(tensors, offsets, strict=True)]
            self._translate(primitive, tuple(moved), numbers)

    def table(self, table: Tensor, tensors: list[Tensor], writes: bool = True) -> None:
        """Refuse a launch that finds its operands in a table of addresses."""
        raise Fault(f"{self.who} cannot be exported: it works on a list of tensors in one step")

    def give_up(self, reason: str) -> None:
        """Refuse a policy that Python code decides, such as one that reads a tensor's value."""
        raise Fault(f"{self.who} cannot be exported: {reason}")

    def _translate(self, primitive: Primitive, tensors: tuple[Tensor, ...], numbers: tuple) -> None:
        from rl_lab.experiment.export.translations import TRANSLATIONS, elementwise

        status = self.status.tensor
        for tensor, role in zip(tensors, primitive.buffers, strict=True):
            if role.writes and tensor is not status and not self.is_ours(tensor.storage) and tensor.numel():
                raise Fault(
                    f"{self.who} cannot be exported: its policy changes memory that outlives the call ({primitive.name}), "
                    "such as a random stream or a state of its own"
                )
        reading = [t for t, role in zip(tensors, primitive.buffers, strict=True) if role.reads and t is not status]
        if all(map(self.is_constant, reading)):
            for tensor, role in zip(tensors, primitive.buffers, strict=True):
                if role.writes and tensor is not status:
                    self.write(tensor, None)
            return
        translate = elementwise if primitive.formula is not None else TRANSLATIONS.get(primitive.name)
        if translate is None:
            raise Fault(f"{self.who} cannot be exported: there is no translation of the operation {primitive.name!r}")
        # the translation does not belong to the policy, and hundreds of nodes would take minutes under the eyes of `watching`
        watcher = sys.getprofile()
        sys.setprofile(None)
        try:
            translate(self, primitive, tensors, numbers)
        finally:
            sys.setprofile(watcher)


def _moved(tensor: Tensor, offset: int) -> Tensor:
    """The flat rest of a tensor's memory, from an element on."""
    start = (tensor.address - tensor.storage.address) // tensor.dtype.itemsize + offset
    return new(tensor.storage, (tensor.storage.nbytes // tensor.dtype.itemsize - start,), None, start, tensor.dtype)


def _numbers(tensor: Tensor) -> np.ndarray:
    """All numbers of a tensor's storage; writing to the array writes to the storage."""
    dtype = np.dtype(_DTYPES[tensor.dtype.name])
    storage = tensor.storage
    count = storage.nbytes // dtype.itemsize
    return np.frombuffer(memoryview((ctypes.c_char * (count * dtype.itemsize)).from_address(storage.address)), dtype)


def _constant(tensor: Tensor, places: np.ndarray) -> np.ndarray:
    """A copy of numbers in a tensor's storage."""
    found = _numbers(tensor)[places] if places.size else np.zeros(0, _DTYPES[tensor.dtype.name])
    return found.astype(bool) if tensor.dtype.name == "bool" else found


def record(
    who: str, function: Callable[..., tuple[Tensor, ...]], inputs: dict[str, Tensor | None]
) -> tuple[Graph, list[Operand]]:
    """The graph of ``function`` for one observation, and an operand for each tensor that it returns.

    ``inputs`` are contiguous tensors (1, ...) by name, or None for an input that does not exist, in the order of the function's
    parameters. Raises Fault, naming the operation, for a function that has no translation.
    """
    recorder = PolicyRecorder(who)
    with private_pool(recorder.pool), record_with(recorder):
        for name, tensor in inputs.items():
            if tensor is not None:
                recorder.add_input(tensor, name)
        arguments = tuple(inputs.values())
        with watching(recorder, function, (arguments, {})):
            results = function(*arguments)
        operands = [recorder.read(result) for result in results]
    return recorder.graph, operands
