"""Layered drawings of graphs as SVG, without Graphviz: every box below the boxes that lead to it (Sugiyama, Tagawa and Toda 1981)."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

LETTER = 6.2  # width of a letter in pixels, at `FONT` pixels
FONT = 10
LINE = 13
GAP = 14  # between two boxes of a layer
BETWEEN = 34  # between two layers
SWEEPS = 12


class Box(NamedTuple):
    """A box of a drawing: lines of text and a colour, which is an SVG colour."""

    lines: tuple[str, ...]
    fill: str = "white"
    round: bool = False


class Line(NamedTuple):
    """An arrow from one box to another, by their numbers."""

    source: int
    target: int
    color: str = "#4a5568"
    width: float = 1.0


def svg(boxes: Sequence[Box], lines: Sequence[Line]) -> str:
    """The SVG text of a drawing. Arrows that close a cycle, and from a box to itself, are dashed and lead upwards."""
    layer, forward = _layers(len(boxes), lines)
    columns, chains = _with_waypoints(layer, [line for line, ahead in zip(lines, forward, strict=True) if ahead])
    _sort(columns, chains)
    size = {k: (_width(box), LINE * len(box.lines) + 8.0) for k, box in enumerate(boxes)}
    x, width = _across(columns, chains, {k: s[0] for k, s in size.items()})
    tall = [max([size[k][1] for k in column if k in size], default=8.0) for column in columns]
    middle: list[float] = []
    y = 12.0
    for height in tall:
        middle.append(y + height / 2)
        y += height + BETWEEN
    at = {k: (x[k], middle[row]) for row, column in enumerate(columns) for k in column}
    height = y - BETWEEN + 12.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{FONT}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0 0 L8 4 L0 8 z" fill="#4a5568"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    pieces = iter(chains)
    for line, ahead in zip(lines, forward, strict=True):
        path = next(pieces) if ahead else [line.source, line.target]
        parts.append(_arrow(path, at, size, line, ahead))
    for k, box in enumerate(boxes):
        cx, cy = at[k]
        w, h = size[k]
        corner = h / 2 if box.round else 3
        parts.append(
            f'<rect x="{cx - w / 2:.1f}" y="{cy - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{corner:.1f}" '
            f'fill="{escape(box.fill)}" stroke="#4a5568"/>'
        )
        for row, text in enumerate(box.lines):
            base = cy + LINE * (row - (len(box.lines) - 1) / 2) + FONT * 0.35
            parts.append(f'<text x="{cx:.1f}" y="{base:.1f}" text-anchor="middle">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _width(box: Box) -> float:
    return max(24.0, 12.0 + LETTER * max((len(line) for line in box.lines), default=0))


def _layers(count: int, lines: Sequence[Line]) -> tuple[list[int], list[bool]]:
    """The layer of each box, its longest path from a box without sources, and which lines lead ahead: the others close a cycle."""
    following: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for number, line in enumerate(lines):
        following[line.source].append((number, line.target))
    forward = [True] * len(lines)
    done: list[int] = []  # in the order in which a search in depth leaves the boxes
    state = [0] * count
    for start in range(count):
        stack = [(start, iter(following[start]))] if not state[start] else []
        state[start] = state[start] or 1
        while stack:
            box, rest = stack[-1]
            for number, target in rest:
                if state[target] == 1:
                    forward[number] = False  # the target is on the current path
                elif not state[target]:
                    state[target] = 1
                    stack.append((target, iter(following[target])))
                    break
            else:
                state[box] = 2
                done.append(box)
                stack.pop()
    layer = [0] * count
    for box in reversed(done):
        for number, target in following[box]:
            if forward[number]:
                layer[target] = max(layer[target], layer[box] + 1)
    for box in done:  # a source stands right above what it leads to
        ahead = [layer[target] for number, target in following[box] if forward[number]]
        if ahead and not any(line.target == box for line in lines):
            layer[box] = min(ahead) - 1
    return layer, forward


def _with_waypoints(layer: list[int], lines: Sequence[Line]) -> tuple[list[list[int]], list[list[int]]]:
    """The boxes of each layer, and each line as a chain of numbers from layer to layer; numbers from len(layer) on are waypoints."""
    columns: list[list[int]] = [[] for _ in range(max(layer, default=0) + 1)]
    for box, row in enumerate(layer):
        columns[row].append(box)
    chains = []
    fresh = len(layer)
    for line in lines:
        chain = [line.source]
        for row in range(layer[line.source] + 1, layer[line.target]):
            columns[row].append(fresh)
            chain.append(fresh)
            fresh += 1
        chains.append([*chain, line.target])
    return columns, chains


def _neighbours(chains: Sequence[Sequence[int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for chain in chains:
        for first, second in zip(chain, chain[1:], strict=False):
            above.setdefault(second, []).append(first)
            below.setdefault(first, []).append(second)
    return above, below


def _sort(columns: list[list[int]], chains: Sequence[Sequence[int]]) -> None:
    """Order each layer by the mean place of its neighbours, downwards and upwards in turn, so that few lines cross."""
    above, below = _neighbours(chains)
    place = {k: i for column in columns for i, k in enumerate(column)}
    for sweep in range(SWEEPS):
        near = below if sweep % 2 else above
        for column in reversed(columns) if sweep % 2 else columns:
            mean = {k: sum(place[n] for n in near[k]) / len(near[k]) if k in near else place[k] for k in column}
            column.sort(key=mean.__getitem__)
            for i, k in enumerate(column):
                place[k] = i


def _across(
    columns: list[list[int]], chains: Sequence[Sequence[int]], width: dict[int, float]
) -> tuple[dict[int, float], float]:
    """The middle of each box and waypoint, near its neighbours and without overlap, and the width of the picture."""
    above, below = _neighbours(chains)
    half = {k: width.get(k, 4.0) / 2 for column in columns for k in column}
    x: dict[int, float] = {}
    for column in columns:
        right = 0.0
        for k in column:
            x[k] = right + half[k]
            right += 2 * half[k] + GAP
        shift = (right - GAP) / 2
        for k in column:
            x[k] -= shift
    for sweep in range(2 * SWEEPS):
        near = below if sweep % 2 else above
        for column in reversed(columns) if sweep % 2 else columns:
            wanted = [sum(x[n] for n in near[k]) / len(near[k]) if k in near else x[k] for k in column]
            for k, place in zip(column, _apart(wanted, [half[k] for k in column]), strict=True):
                x[k] = place
    left = min(x[k] - half[k] for k in x)
    right = max(x[k] + half[k] for k in x)
    return {k: place - left + 12.0 for k, place in x.items()}, right - left + 24.0


def _apart(wanted: list[float], half: list[float]) -> list[float]:
    """Places in the order given, at least the widths apart, with the least sum of squared distances from the wanted ones.

    Subtracting the least offset of each place turns the task into isotonic regression, solved by pooling adjacent violators.
    """
    offsets = [0.0]
    for left, right in zip(half, half[1:], strict=False):
        offsets.append(offsets[-1] + left + right + GAP)
    blocks: list[list[float]] = []  # sum, count
    for place, offset in zip(wanted, offsets, strict=True):
        blocks.append([place - offset, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    flat = [total / count for total, count in blocks for _ in range(int(count))]
    return [place + offset for place, offset in zip(flat, offsets, strict=True)]


def _arrow(
    path: Sequence[int], at: dict[int, tuple[float, float]], size: dict[int, tuple[float, float]], line: Line, ahead: bool
) -> str:
    style = f'fill="none" stroke="{escape(line.color)}" stroke-width="{line.width:.2f}" marker-end="url(#tip)"'
    if not ahead:
        x0, y0 = at[path[0]]
        x1, y1 = at[path[1]]
        w0, _ = size[path[0]]
        w1, _ = size[path[1]]
        out = max(x0 + w0 / 2, x1 + w1 / 2) + 20
        return (
            f'<path d="M{x0 + w0 / 2:.1f} {y0 + 3:.1f} C{out:.1f} {y0 + 3:.1f} {out:.1f} {y1 - 3:.1f} '
            f'{x1 + w1 / 2:.1f} {y1 - 3:.1f}" stroke-dasharray="4 3" {style}/>'
        )
    points = [at[k] for k in path]
    points[0] = (points[0][0], points[0][1] + size[path[0]][1] / 2)
    points[-1] = (points[-1][0], points[-1][1] - size[path[-1]][1] / 2)
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        bend = (y1 - y0) / 2
        text += f" C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    return f'<path d="{text}" {style}/>'
