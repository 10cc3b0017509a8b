"""A recorded launch, and passes over a list of them. Each pass keeps all values bitwise, and was measured to save time."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rl_lab.engine.kernels import convolution, elementwise, matmul, wide_convolution
from rl_lab.engine.launch import CUT
from rl_lab.native.primitive import ITEMSIZE, Primitive

Span = tuple[int, int]
"""The address of the first byte, and the address after the last byte."""


@dataclass(frozen=True)
class Launch:
    """One recorded launch: the primitive, its operand row, and the user's line that caused it.

    ``shapes`` and ``spans`` belong to its buffers; a span covers the bytes from the first to the last element. ``reached`` are the
    bytes that it reads or writes through a table of addresses. ``parts``, if any, are rows that do the same work on several cores
    and need about ``cycles`` together. Each pair in ``numbers`` is a cell of the row that varies from call to call, and the index
    of its value. A ``checked`` launch may report an index out of bounds.
    """

    primitive: Primitive
    row: bytes
    shapes: tuple[tuple[int, ...], ...]
    spans: tuple[Span, ...]
    reached: tuple[Span, ...]
    line: str
    parts: tuple[bytes, ...] = ()
    cycles: int = 0
    numbers: tuple[tuple[int, int], ...] = ()
    checked: bool = False

    @property
    def name(self) -> str:
        return self.primitive.name

    @property
    def bytes(self) -> int:
        """Size of the operands; an element counts as often as it is repeated."""
        sizes = zip(self.primitive.buffers, self.shapes, strict=True)
        return sum(math.prod(shape) * ITEMSIZE[role.dtype] for role, shape in sizes)

    @property
    def shapes_text(self) -> str:
        """The shapes of the buffers for tables and pictures, such as "64x4 4x64 64x64"."""
        return " ".join("x".join(map(str, shape)) or "1" for shape in self.shapes)


class End(NamedTuple):
    """Where a product keeps its end, a constant of `kernels.matmul`, and the operand with which the end computes."""

    cell: int
    factor: int | None
    """The buffer of the activation's output, for the end of a gradient."""


_PRODUCTS = {
    matmul.matmul: End(matmul.END_CELL, 3),
    convolution.convolve: End(convolution.END_CELL, None),
    convolution.convolve_to_input: End(convolution.END_CELL, 4),
    wide_convolution.convolve_wide: End(convolution.END_CELL, None),
    wide_convolution.convolve_to_input_wide: End(convolution.END_CELL, 4),
}
_ENDS = {
    (matmul.ADD, elementwise.relu): matmul.ADD_RELU,
    (matmul.ADD, elementwise.tanh): matmul.ADD_TANH,
    (matmul.NOTHING, elementwise.relu_backward): matmul.RELU_BACKWARD,
    (matmul.NOTHING, elementwise.tanh_backward): matmul.TANH_BACKWARD,
}
"""The end of the joined launch, from the end of a matrix product and the elementwise launch that follows it."""


def finish_products(launches: Sequence[Launch], forgotten: Sequence[Span]) -> list[Launch]:
    """Join matrix products and convolutions with the elementwise launch that uses their result.

    ``z = x @ w.T + b; y = activation(z)`` becomes one launch if nothing else reads z, and so does ``g @ w`` followed by the
    gradient of the activation. The core that computed the sums still has them in its cache: large products are cut for two cores,
    and an elementwise launch on one core would fetch half of its operand from the other core. ``forgotten`` are the spans of the
    program's memory that no tensor held when the recording ended.
    """
    result = list(launches)
    i = 0
    while i < len(result):
        if result[i].primitive in _PRODUCTS:
            j = next((j for j in range(i + 1, len(result)) if _touches(result[j], result[i].spans[0])), None)
            finished = None if j is None else _finished(result, i, j, forgotten)
            if j is not None and finished is not None:
                result[i] = finished
                del result[j]
        i += 1
    return result


def _touches(launch: Launch, span: Span) -> bool:
    return any(overlap(span, other) for other in (*launch.spans, *launch.reached))


def _finished(launches: list[Launch], i: int, j: int, forgotten: Sequence[Span]) -> Launch | None:
    """Launch i joined with launch j, or None if another value would change."""
    product = launches[i]
    last = launches[j]
    cells = struct.unpack(f"{len(product.row) // 8}q", product.row)
    after = struct.unpack(f"{len(last.row) // 8}q", last.row)
    place = _PRODUCTS[product.primitive]
    end = _ENDS.get((cells[place.cell], last.primitive))
    count = len(last.spans)
    if end is None or (count == 3 and place.factor is None):
        return None
    z = product.spans[0]
    y = last.spans[0]
    dense = (cells[0], 1, math.prod(product.shapes[0]), *(1,) * (count - 1))
    strides = after[count + 2 : len(last.primitive.roles)]
    if (after[1], *after[count : count + 2], *strides[1::2]) != dense:
        return None
    between = launches[i + 1 : j]
    factor = last.spans[2] if count == 3 else None
    if not is_dead(z, launches[j + 1 :], forgotten):
        return None
    if any(overlap(y, other) for other in (*product.spans, *product.reached)) or any(_touches(launch, y) for launch in between):
        return None
    if factor is not None and any(_writes(launch, factor) for launch in between):
        return None

    def finished(row: bytes) -> bytes:
        part = list(struct.unpack(f"{len(row) // 8}q", row))
        moved = part[0] - cells[0]
        width = len(product.primitive.roles)
        changes = {0: (after[0], 0)}
        if factor is not None and place.factor is not None:
            changes[place.factor] = after[2], 2
        for cell, (address, operand) in changes.items():
            part[cell] = address + moved
            if len(part) > width:  # the lengths of the buffers, which only kernels that check their indices get
                part[width + cell] = after[len(last.primitive.roles) + operand] - moved // 4
        part[place.cell] = end
        return struct.pack(f"{len(part)}q", *part)

    spans, shapes = list(product.spans), list(product.shapes)
    spans[0], shapes[0] = y, last.shapes[0]
    if factor is not None and place.factor is not None:
        spans[place.factor], shapes[place.factor] = factor, last.shapes[2]
    parts = tuple(finished(row) for row in product.parts)
    return replace(product, row=finished(product.row), parts=parts, spans=tuple(spans), shapes=tuple(shapes))


def _writes(launch: Launch, span: Span) -> bool:
    written = [other for role, other in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
    return any(overlap(span, other) for other in (*written, *launch.reached))


def remove_dead(launches: Sequence[Launch], forgotten: Sequence[Span]) -> list[Launch]:
    """The launches without those whose results nothing uses, such as a loss that is differentiated but not returned."""
    kept: list[Launch] = []
    uses = _Uses()
    for launch in reversed(launches):
        outputs = [span for role, span in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
        changes_inputs = launch.reached or any(role.reads and role.writes for role in launch.primitive.buffers)
        if changes_inputs or not all(uses.end(span, forgotten) for span in outputs):
            kept.append(launch)
            uses.add(launch)
    return kept[::-1]


class _Uses:
    """The uses of memory by the launches of a program, added from the last to the first, for `is_dead` without a walk over them."""

    def __init__(self) -> None:
        self._count = 0
        self._launches = 0
        self._table = np.zeros((5, 256), np.int64)

    def add(self, launch: Launch) -> None:
        """Add the launch before those that were added."""
        self._launches += 1
        for low, high in launch.reached:
            self._note(low, high, reads=True, covers=False)
        for role, (low, high), shape in zip(launch.primitive.buffers, launch.spans, launch.shapes, strict=True):
            dense = high - low == math.prod(shape) * ITEMSIZE[role.dtype]
            if role.reads or dense:
                self._note(low, high, role.reads, not role.reads)

    def _note(self, low: int, high: int, reads: bool, covers: bool) -> None:
        if self._count == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], 1)
        self._table[:, self._count] = low, high, reads, covers, self._launches
        self._count += 1

    def end(self, span: Span, forgotten: Sequence[Span]) -> bool:
        """`is_dead` for the launches added so far."""
        low, high, reads, covers, number = self._table[:, : self._count]
        reading = number[(reads == 1) & (low < span[1]) & (span[0] < high)].max(initial=0)
        covering = number[(covers == 1) & (low <= span[0]) & (span[1] <= high)].max(initial=0)
        if reading or covering:
            return bool(covering > reading)  # of two uses, the one that was added later comes first
        return any(low <= span[0] and span[1] <= high for low, high in forgotten)


def cut_for_cores(launch: Launch) -> Launch:
    """Cut a large elementwise launch into two halves for two cores; any other launch is returned as it is.

    No element depends on another element, so all values stay bitwise the same. A matrix product is cut at the same row, so each
    core continues with the rows that are in its own cache.
    """
    primitive = launch.primitive
    if not primitive.elementwise or launch.parts:
        return launch
    count = len(primitive.buffers)
    cells = struct.unpack(f"{len(launch.row) // 8}q", launch.row)
    width = len(primitive.roles)
    addresses = cells[:count]
    n, m = cells[count : count + 2]
    strides = cells[count + 2 : width]
    lengths = cells[width:]  # the lengths of the buffers, which only kernels that check their indices get
    if n * m < CUT or (n == 1 and m < 2):
        return launch
    sizes = [ITEMSIZE[role.dtype] for role in primitive.buffers]
    parts = []
    for half in (0, 1):
        if n == 1:
            low, high = half * m // 2, (half + 1) * m // 2
            shape = 1, high - low
            steps = (1, *strides[1::2])
        else:
            low, high = half * n // 2, (half + 1) * n // 2
            shape = high - low, m
            steps = (m, *strides[0::2])
        moved = [address + low * step * size for address, step, size in zip(addresses, steps, sizes, strict=True)]
        left = [length - low * step for length, step in zip(lengths, steps, strict=False)]
        parts.append(struct.pack(f"{len(cells)}q", *moved, *shape, *strides, *left))
    return replace(launch, parts=tuple(parts), cycles=2 * n * m)


def overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def is_dead(span: Span, later: Sequence[Launch], forgotten: Sequence[Span]) -> bool:
    """Whether nothing can read the bytes of a span again.

    Either a later launch overwrites all of them before any launch reads them, or no later launch uses them and no tensor holds them.
    """
    for launch in later:
        operands = list(zip(launch.primitive.buffers, launch.spans, launch.shapes, strict=True))
        if any(overlap(span, other) for other in launch.reached):
            return False
        if any(role.reads and overlap(span, other) for role, other, _ in operands):
            return False
        for role, (start, end), shape in operands:
            dense = end - start == math.prod(shape) * ITEMSIZE[role.dtype]
            if not role.reads and dense and start <= span[0] and span[1] <= end:
                return True
    return any(low <= span[0] and span[1] <= high for low, high in forgotten)
