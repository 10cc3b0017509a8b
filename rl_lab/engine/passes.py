"""Passes over a recorded list of launches. Each keeps every value bit for bit and stands here because it was measured to pay."""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rl_lab.engine.kernels import elementwise
from rl_lab.engine.primitive import ITEMSIZE

CUT = 65_536  # elements from which an elementwise launch is cut in two: below, waking a second core costs more

_ACTIVATIONS = {elementwise.relu.name: elementwise.add_relu, elementwise.tanh.name: elementwise.add_tanh}


def fuse_bias_and_activation(launches: Sequence[Any], forgotten: Sequence[tuple[int, int]]) -> list[Any]:
    """``z += bias; y = activation(z)`` as one launch where nothing reads z afterwards: one pass over memory instead of two.

    ``forgotten`` are the byte spans of the program's memory that no tensor held when the recording ended.
    """
    result: list[Any] = []
    i = 0
    while i < len(launches):
        fused = _fused(launches, i, forgotten) if i + 1 < len(launches) else None
        result.append(launches[i] if fused is None else fused)
        i += 1 if fused is None else 2
    return result


def remove_dead(launches: Sequence[Any], forgotten: Sequence[tuple[int, int]]) -> list[Any]:
    """Without launches whose results nobody sees, such as a loss that is differentiated but not returned."""
    kept: list[Any] = []
    for launch in reversed(launches):
        outputs = [span for role, span in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
        changes_inputs = launch.reached or any(role.reads and role.writes for role in launch.primitive.buffers)
        if changes_inputs or not all(_inside(span, forgotten) and is_dead(span, kept[::-1]) for span in outputs):
            kept.append(launch)
    return kept[::-1]


def _inside(span: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(low <= span[0] and span[1] <= high for low, high in spans)


def _fused(launches: Sequence[Any], i: int, forgotten: Sequence[tuple[int, int]]) -> Any:
    bias, activation = launches[i], launches[i + 1]
    kernel = _ACTIVATIONS.get(activation.primitive.name)
    if bias.primitive is not elementwise.add_into or kernel is None:
        return None
    z, b, n, m, b0, b1 = struct.unpack_from("6q", bias.row)
    y, x, rows, count, _, step = struct.unpack_from("6q", activation.row)
    if x != z or y == z or rows != 1 or step != 1 or count != n * m or (b0, b1) != (0, 1):
        return None
    span = bias.spans[0]
    if not _inside(span, forgotten) or not is_dead(span, launches[i + 2 :]):
        return None
    lengths = (activation.row[-16:-8], bias.row[-16:-8], bias.row[-8:]) if len(bias.row) > 48 else ()
    row = struct.pack("9q", y, z, b, n, m, m, 1, 0, 1) + b"".join(lengths)
    spans = (activation.spans[0], *bias.spans)
    shapes = (activation.shapes[0], *bias.shapes)
    return replace(activation, primitive=kernel, row=row, shapes=shapes, spans=spans)


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


def is_dead(span: tuple[int, int], later: Sequence[Any]) -> bool:
    """Whether the bytes are overwritten as a whole, or never touched, before they are read."""
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
    return True
