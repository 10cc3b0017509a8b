"""Passes over a recorded list of launches. Each keeps every value bit for bit and stands here because it was measured to pay."""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rl_lab.engine.kernels import elementwise, matmul
from rl_lab.native.primitive import ITEMSIZE

CUT = 65_536  # elements from which an elementwise launch is cut in two: below, waking a second core costs more

_ENDS = {
    (matmul.ADD, elementwise.relu): matmul.ADD_RELU,
    (matmul.ADD, elementwise.tanh): matmul.ADD_TANH,
    (matmul.NOTHING, elementwise.relu_backward): matmul.RELU_BACKWARD,
    (matmul.NOTHING, elementwise.tanh_backward): matmul.TANH_BACKWARD,
}
"""What a product becomes that is followed by an elementwise launch."""


def finish_products(launches: Sequence[Any], forgotten: Sequence[tuple[int, int]]) -> list[Any]:
    """``z = x @ w.T + b; y = activation(z)`` as one launch where nothing else reads z, and ``g @ w`` with the activation's gradient.

    The sums are still in the cache then, of the core that made them: large products are cut for two, and an elementwise launch on
    one core would fetch half of its operand from the other. ``forgotten`` are the byte spans of the program's memory that no tensor
    held when the recording ended.
    """
    result = list(launches)
    i = 0
    while i < len(result):
        if result[i].primitive is matmul.matmul:
            j = next((j for j in range(i + 1, len(result)) if _touches(result[j], result[i].spans[0])), None)
            finished = None if j is None else _finished(result, i, j, forgotten)
            if j is not None and finished is not None:
                result[i] = finished
                del result[j]
        i += 1
    return result


def _touches(launch: Any, span: tuple[int, int]) -> bool:
    return any(overlap(span, other) for other in (*launch.spans, *launch.reached))


def _finished(launches: list[Any], i: int, j: int, forgotten: Sequence[tuple[int, int]]) -> Any:
    """Launch i with launch j as its end, or None if that would change anything else."""
    product, last = launches[i], launches[j]
    cells = struct.unpack(f"{len(product.row) // 8}q", product.row)
    after = struct.unpack(f"{len(last.row) // 8}q", last.row)
    end = _ENDS.get((cells[matmul.END_CELL], last.primitive))
    if end is None:
        return None
    count, z, y = len(last.spans), product.spans[0], last.spans[0]
    dense = (cells[0], 1, math.prod(product.shapes[0]), *(1,) * (count - 1))
    strides = after[count + 2 : len(last.primitive.roles)]
    if (after[1], *after[count : count + 2], *strides[1::2]) != dense:
        return None
    between, factor = launches[i + 1 : j], last.spans[2] if count == 3 else None
    if not is_dead(z, launches[j + 1 :], forgotten):
        return None
    if any(overlap(y, other) for other in (*product.spans, *product.reached)) or any(_touches(launch, y) for launch in between):
        return None
    if factor is not None and any(_writes(launch, factor) for launch in between):
        return None

    def finished(row: bytes) -> bytes:
        part = list(struct.unpack(f"{len(row) // 8}q", row))
        moved, width = part[0] - cells[0], len(product.primitive.roles)
        changes = {0: (after[0], 0)} if factor is None else {0: (after[0], 0), 3: (after[2], 2)}
        for cell, (address, operand) in changes.items():
            part[cell] = address + moved
            if len(part) > width:  # the buffers' lengths, where kernels check their indices
                part[width + cell] = after[len(last.primitive.roles) + operand] - moved // 4
        part[matmul.END_CELL] = end
        return struct.pack(f"{len(part)}q", *part)

    spans = (y, *product.spans[1:3], product.spans[3] if factor is None else factor)
    shapes = (last.shapes[0], *product.shapes[1:3], product.shapes[3] if factor is None else last.shapes[2])
    parts = tuple(finished(row) for row in product.parts)
    return replace(product, row=finished(product.row), parts=parts, spans=spans, shapes=shapes)


def _writes(launch: Any, span: tuple[int, int]) -> bool:
    written = [other for role, other in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
    return any(overlap(span, other) for other in (*written, *launch.reached))


def remove_dead(launches: Sequence[Any], forgotten: Sequence[tuple[int, int]]) -> list[Any]:
    """Without launches whose results nobody sees, such as a loss that is differentiated but not returned."""
    kept: list[Any] = []
    for launch in reversed(launches):
        outputs = [span for role, span in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
        changes_inputs = launch.reached or any(role.reads and role.writes for role in launch.primitive.buffers)
        if changes_inputs or not all(is_dead(span, kept[::-1], forgotten) for span in outputs):
            kept.append(launch)
    return kept[::-1]


def _inside(span: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(low <= span[0] and span[1] <= high for low, high in spans)


def cut_for_cores(launch: Any) -> Any:
    """A large elementwise launch in two halves for two cores. No element depends on another, so no bit changes.

    The halves are those of a matrix product's rows: each core goes on with what it has in its own cache.
    """
    primitive = launch.primitive
    if not primitive.elementwise or launch.parts:
        return launch
    count = len(primitive.buffers)
    cells, width = struct.unpack(f"{len(launch.row) // 8}q", launch.row), len(primitive.roles)
    addresses, (n, m), strides = cells[:count], cells[count : count + 2], cells[count + 2 : width]
    lengths = cells[width:]  # of the buffers, where kernels check their indices
    if n * m < CUT or (n == 1 and m < 2):
        return launch
    sizes = [ITEMSIZE[role.dtype] for role in primitive.buffers]
    parts = []
    for half in (0, 1):
        if n == 1:
            low, high = half * m // 2, (half + 1) * m // 2
            steps, shape = (1, *strides[1::2]), (1, high - low)
        else:
            low, high = half * n // 2, (half + 1) * n // 2
            steps, shape = (m, *strides[0::2]), (high - low, m)
        moved = [address + low * step * size for address, step, size in zip(addresses, steps, sizes, strict=True)]
        left = [length - low * step for length, step in zip(lengths, steps, strict=False)]
        parts.append(struct.pack(f"{len(cells)}q", *moved, *shape, *strides, *left))
    return replace(launch, parts=tuple(parts), cycles=2 * n * m)


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def is_dead(span: tuple[int, int], later: Sequence[Any], forgotten: Sequence[tuple[int, int]]) -> bool:
    """Whether the bytes are overwritten as a whole before they are read, or never touched again and held by nobody."""
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
    return _inside(span, forgotten)
