"""Passes over a recorded list of launches. Each keeps every value bit for bit and stands here because it was measured to pay."""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rl_lab.engine.kernels import elementwise
from rl_lab.engine.primitive import ITEMSIZE

_ACTIVATIONS = {elementwise.relu.name: elementwise.add_relu, elementwise.tanh.name: elementwise.add_tanh}


def fuse_bias_and_activation(launches: Sequence[Any], kept: Sequence[tuple[int, int]]) -> list[Any]:
    """``z += bias; y = activation(z)`` as one launch where nothing reads z afterwards: one pass over memory instead of two.

    ``kept`` are the byte spans that somebody may look at after the program: inputs, outputs, gradients, memory from outside.
    """
    result: list[Any] = []
    i = 0
    while i < len(launches):
        fused = _fused(launches, i, kept) if i + 1 < len(launches) else None
        result.append(launches[i] if fused is None else fused)
        i += 1 if fused is None else 2
    return result


def _fused(launches: Sequence[Any], i: int, kept: Sequence[tuple[int, int]]) -> Any:
    bias, activation = launches[i], launches[i + 1]
    kernel = _ACTIVATIONS.get(activation.primitive.name)
    if bias.primitive is not elementwise.add_into or kernel is None:
        return None
    z, b, n, m, b0, b1 = struct.unpack_from("6q", bias.row)
    y, x, rows, count, _, step = struct.unpack_from("6q", activation.row)
    if x != z or y == z or rows != 1 or step != 1 or count != n * m or (b0, b1) != (0, 1):
        return None
    span = bias.spans[0]
    if any(overlap(span, other) for other in kept) or not is_dead(span, launches[i + 2 :]):
        return None
    lengths = (activation.row[-16:-8], bias.row[-16:-8], bias.row[-8:]) if len(bias.row) > 48 else ()
    row = struct.pack("9q", y, z, b, n, m, m, 1, 0, 1) + b"".join(lengths)
    spans = (activation.spans[0], *bias.spans)
    shapes = (activation.shapes[0], *bias.shapes)
    return replace(activation, primitive=kernel, row=row, shapes=shapes, spans=spans)


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
