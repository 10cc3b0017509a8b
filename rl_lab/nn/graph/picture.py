"""Pictures of a GraphNetwork: SVG and PNG by matplotlib, and Graphviz's DOT as text."""

import importlib.util
import io
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine.svg import svg
from rl_lab.nn.graph.network import GraphNetwork, layers
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSITIVE = "#2b6cb0"
NEGATIVE = "#c05621"
UNKNOWN = "#000000"
FILL = {"input": "#edf2f7", "hidden": "#fefcbf", "output": "#c6f6d5"}
SHORT = {"steepened_sigmoid": "sigm'", "sigmoid": "sigm", "identity": "id", "softplus": "softp", "leaky_relu": "lrelu"}
SWEEPS = 8
RADIUS = 0.33
CROWD = 24
CROWD_OF_EDGES = 300
"""With more than `CROWD` rows of nodes, or more than `CROWD_OF_EDGES` edges, there is no space for names and arrows."""
HEIGHT_OF_A_CROWD = 10.0
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def draw_network(
    network: GraphNetwork, title: str = "", width: float | None = None, names: Mapping[str, str] = NO_NAMES
) -> "Figure":
    """A matplotlib figure: inputs on the left, each node right of its sources, outputs on the right.

    ``names`` are names to show instead of those of inputs and outputs.

    The figure is as large as the network needs, or ``width`` inches wide; text has the same size in both.

    Edges with positive weights are blue and edges with negative weights orange; a larger weight gives a wider edge; an edge is black
    if its weight is not a number. Backward edges of recurrent networks are dashed. A node shows its activation, with x before it if
    the node multiplies. In a large network the nodes are dots without text, and edges are straight.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    places = _places(network)
    columns = 1 + max(x for x, _ in places.values())
    rows = max(abs(y) for _, y in places.values()) * 2 + 1
    crowded = rows > CROWD or len(network.edges) > CROWD_OF_EDGES
    tall = HEIGHT_OF_A_CROWD if crowded else rows
    natural = (max(4.5, 1.9 * columns + 2.2), max(2.4, 0.95 * tall + 0.9))
    text = 1.0 if width is None else max(1.0, natural[0] / width)  # size of text in units of the drawing
    figure = Figure(figsize=(natural[0] / text, natural[1] / text), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    column_sizes = Counter(x for x, _ in places.values())
    pitch = {x: min(1.0, tall / size) for x, size in column_sizes.items()}  # of the nodes in a column
    at = {name: (2.0 * x, -y * pitch[x]) for name, (x, y) in places.items()}
    weights = dict(zip(network.edges, network.weight.detach().tolist(), strict=True))
    if crowded:
        low, high = _draw_lines(axes, weights, at)
    else:
        low, high = _draw_arrows(axes, weights, places, at)
    for name, (x, y) in at.items():
        kind = "input" if name in network.inputs else "output" if name in network.outputs else "hidden"
        room = pitch[places[name][0]]
        radius = max(0.03, RADIUS * room)
        axes.add_patch(Circle((x, y), radius, facecolor=FILL[kind], edgecolor="#4a5568", linewidth=1.0, zorder=2))
        if kind != "input" and room == 1.0:
            label = SHORT.get(network.activation_of(name), network.activation_of(name))
            label = ("\u00d7 " if network.aggregation_of(name) == "product" else "") + label
            axes.text(x, y, label, ha="center", va="center", fontsize=7, zorder=3, parse_math=False)
        if kind == "hidden" and not crowded:
            axes.text(
                x, y - radius - 0.06, name, ha="center", va="top", fontsize=6, color="#4a5568", zorder=3, parse_math=False
            )
        elif kind != "hidden" and (room > 0.3 or name in (network.inputs[0], network.inputs[-1])):
            side = -1 if kind == "input" else 1
            align = "right" if side < 0 else "left"
            named = names.get(name, name)
            axes.text(x + side * (radius + 0.1), y, named, ha=align, va="center", fontsize=8, zorder=3, parse_math=False)
    xs = [x for x, _ in at.values()]
    ys = [y for _, y in at.values()]
    left, right = (0.13 * text * max(len(names.get(name, name)) for name in side) for side in (network.inputs, network.outputs))
    axes.set_xlim(min(xs) - 0.6 - left, max(xs) + 0.6 + right)
    axes.set_ylim(min(min(ys) - 0.75, low - 0.1), max(max(ys) + 0.85, high + 0.1))
    axes.set_aspect("equal")
    if title:
        axes.set_title(title, fontsize=10, parse_math=False)
    return figure


def _style(weight: float, largest: float) -> tuple[str, float]:
    """Colour and strength (0 to 1) of an edge."""
    if math.isnan(weight):
        return UNKNOWN, 0.0
    return POSITIVE if weight >= 0 else NEGATIVE, min(1.0, abs(weight) / largest)


def _largest(weights: dict[Any, float]) -> float:
    return max([abs(w) for w in weights.values() if math.isfinite(w)], default=0.0) or 1.0


def _draw_arrows(axes: "Axes", weights: dict, places: dict, at: dict) -> tuple[float, float]:
    """Edges as arrows that bend around nodes; returns how far down and up they reach."""
    from matplotlib.patches import FancyArrowPatch

    largest = _largest(weights)
    low = math.inf
    high = -math.inf
    for (source, target), weight in sorted(weights.items(), key=lambda item: _style(item[1], largest)[1]):
        color, strength = _style(weight, largest)
        style: dict[str, Any] = {
            "color": color,
            "linewidth": 0.6 + 3.0 * strength,
            "alpha": 0.45 + 0.5 * strength,
            "arrowstyle": f"-|>,head_length={3.5 + 2.5 * strength:.2f},head_width={1.6 + 1.4 * strength:.2f}",
            "shrinkA": 0.0,
            "shrinkB": 0.0,
            "zorder": 1,
        }
        x0, y0 = at[source]
        x1, y1 = at[target]
        backwards = places[target][0] <= places[source][0]
        if backwards:
            style["linestyle"] = (0, (3, 2))
        if source == target:
            begin = (x0 - 0.16, y0 + 0.29)
            end = (x0 + 0.16, y0 + 0.29)
            bend = -1.9
        else:
            bend = _bend(source, target, places, at) if not backwards else 0.3
            begin = _rim(x0, y0, x1, y1, RADIUS, bend)
            end = _rim(x1, y1, x0, y0, RADIUS, -bend)
        axes.add_patch(FancyArrowPatch(begin, end, connectionstyle=f"arc3,rad={bend}", **style))
        # arc3 is a parabola whose control point lies ``bend`` times the distance beside the middle
        control = (begin[1] + end[1]) / 2 - bend * (end[0] - begin[0])
        for t in (0.25, 0.5, 0.75):
            y = (1 - t) ** 2 * begin[1] + 2 * t * (1 - t) * control + t**2 * end[1]
            low = min(low, y)
            high = max(high, y)
    return low, high


def _draw_lines(axes: "Axes", weights: dict, at: dict) -> tuple[float, float]:
    """Edges as thin straight lines, all at once; returns how far down and up they reach."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    largest = _largest(weights)
    order = sorted(weights.items(), key=lambda item: _style(item[1], largest)[1])
    styles = [_style(weight, largest) for _, weight in order]
    lines = LineCollection(
        [(at[source], at[target]) for (source, target), _ in order],
        colors=[to_rgba(color, 0.05 + 0.5 * strength) for color, strength in styles],
        linewidths=[0.3 + 1.2 * strength for _, strength in styles],
        zorder=1,
    )
    axes.add_collection(lines, autolim=False)
    return math.inf, -math.inf


def save_picture(network: GraphNetwork, path: str | Path, title: str = "", names: Mapping[str, str] = NO_NAMES) -> None:
    """Write the drawing to a file ending in .svg or .png, or as DOT text to one ending in .dot. See `draw_network` for ``names``.

    The file is written whole or not at all. Raises OSError if it cannot be written, ValueError for another ending.
    """
    path = Path(path)
    if path.suffix == ".dot":
        content = to_dot(network).encode()
    elif path.suffix in (".svg", ".png"):
        buffer = io.BytesIO()
        date = {"Date": None} if path.suffix == ".svg" else None  # the same network gives the same file
        draw_network(network, title, names=names).savefig(buffer, format=path.suffix[1:], metadata=date)
        content = buffer.getvalue()
    else:
        raise ValueError(f"a picture is a .svg, .png or .dot file, not {path.name!r}")
    write_file(path, [content])


def as_svg(network: GraphNetwork) -> str:
    """The drawing as SVG text: of `draw_network`, or of `GraphNetwork.drawing` where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        drawing = network.drawing()
        return svg(drawing.boxes, drawing.lines)
    buffer = io.StringIO()
    draw_network(network, width=7.0).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def save_pictures_beside(network: GraphNetwork, path: str | Path, names: Mapping[str, str] = NO_NAMES) -> None:
    """``path``.dot, and where matplotlib is installed ``path``.svg with ``names`` as in `draw_network`."""
    path = Path(path)
    save_picture(network, path.with_name(path.name + ".dot"))
    if importlib.util.find_spec("matplotlib") is not None:
        save_picture(network, path.with_name(path.name + ".svg"), names=names)


SHOWN_WIDTH = 350
"""Width in pixels at which TensorBoard shows an image. It leaves out pixels of larger ones, which makes text illegible."""


def as_image(figure: "Figure", width: int | None = None) -> np.ndarray:
    """A figure as uint8 (height, width, 3), for a logger.

    With ``width`` the figure is reduced to this number of pixels, and its text keeps its size.
    """
    from matplotlib.image import imread

    if width is not None:
        wide, tall = figure.get_size_inches()
        inches = width / 100
        figure.set_size_inches(inches, tall * inches / wide if wide < 2 * inches else tall * 0.7)
        figure.set_dpi(100)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    buffer.seek(0)
    return np.ascontiguousarray((imread(buffer)[:, :, :3] * 255).round().astype(np.uint8))


def to_dot(network: GraphNetwork) -> str:
    """The graph as text for Graphviz."""
    quote = lambda name: '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'  # noqa: E731
    lines = ["digraph network {", "  rankdir=LR;"]
    for group, rank in ((network.inputs, "source"), (network.outputs, "sink")):
        lines.append(f"  {{ rank={rank}; {' '.join(quote(name) + ';' for name in group)} }}")
    for name in network.inputs:
        lines.append(f'  {quote(name)} [shape=box, style=filled, fillcolor="{FILL["input"]}"];')
    biases = dict(zip(network.nodes, network.bias.detach().tolist(), strict=True))
    for name in network.nodes:
        kind = "output" if name in network.outputs else "hidden"
        label = f"{name}\n{network.activation_of(name)}\nbias {biases[name]:.3g}"
        if network.aggregation_of(name) == "product":
            label += "\nproduct"
        text = quote(label).replace("\n", "\\n")
        lines.append(f'  {quote(name)} [shape=ellipse, style=filled, fillcolor="{FILL[kind]}", label={text}];')
    weights = network.weight.detach().tolist()
    largest = _largest(dict(zip(network.edges, weights, strict=True)))
    for (source, target), weight in zip(network.edges, weights, strict=True):
        color, strength = _style(weight, largest)
        width = 0.5 + 3.0 * strength
        lines.append(f'  {quote(source)} -> {quote(target)} [color="{color}", penwidth={width:.2f}, tooltip="{weight:.4g}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _places(network: GraphNetwork) -> dict[str, tuple[int, float]]:
    """Column and height of each node; heights are centred, one apart, in an order with few crossings."""
    forward = _without_cycles(network)
    led_to = {target for _, target in forward}
    free = [(network.inputs[0], name) for name in network.nodes if name not in led_to]  # right of the inputs, too
    depth = layers(network.inputs, network.nodes, [*forward, *free])
    last = max([1, *[depth[name] + 1 for name in network.hidden]])
    depth |= dict.fromkeys(network.outputs, last)
    columns: list[list[str]] = [[] for _ in range(last + 1)]
    for name in (*network.inputs, *network.hidden, *network.outputs):
        columns[depth[name]].append(name)
    height = {}

    def settle() -> None:
        for column in columns:
            for i, name in enumerate(column):
                height[name] = i - (len(column) - 1) / 2

    settle()
    neighbours: dict[str, list[str]] = {name: [] for name in depth}
    for source, target in forward:
        neighbours[source].append(target)
        neighbours[target].append(source)
    for _ in range(SWEEPS):
        for column in columns[1:-1]:  # inputs and outputs keep their order
            column.sort(key=lambda n: np.mean([height[m] for m in neighbours[n]]) if neighbours[n] else 0.0)
            for i, name in enumerate(column):
                height[name] = i - (len(column) - 1) / 2
    return {name: (depth[name], height[name]) for name in depth}


def _without_cycles(network: GraphNetwork) -> list[tuple[str, str]]:
    """The edges without the edges that close a cycle in a depth-first search from the inputs."""
    if not network.recurrent:
        return list(network.edges)
    following: dict[str, list[str]] = {name: [] for name in (*network.inputs, *network.nodes)}
    for source, target in network.edges:
        following[source].append(target)
    state: dict[str, str] = {}
    kept = []
    for start in (*network.inputs, *network.nodes):
        stack = [(start, iter(following[start]))] if start not in state else []
        state.setdefault(start, "open")
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if state.get(target) == "open":
                    continue  # the target is on the current path, so the edge closes a cycle
                kept.append((name, target))
                if target not in state:
                    state[target] = "open"
                    stack.append((target, iter(following[target])))
                    break
            else:
                state[name] = "done"
                stack.pop()
    return kept


def _bend(source: str, target: str, places: dict, at: dict) -> float:
    """The bend of an edge that avoids other nodes, as a share of its length; 0 for a straight edge."""
    x0, y0 = at[source]
    x1, y1 = at[target]
    for other, (x, y) in at.items():
        if places[source][0] < places[other][0] < places[target][0]:
            height = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            if abs(height - y) < 0.55:
                return -0.3 if height >= y else 0.3
    return 0.0


def _rim(x0: float, y0: float, x1: float, y1: float, radius: float, bend: float) -> tuple[float, float]:
    """The point where an edge from (x0, y0) to (x1, y1) crosses the circle around (x0, y0)."""
    angle = np.arctan2(y1 - y0, x1 - x0) - np.arctan(2.0 * bend)
    return x0 + radius * float(np.cos(angle)), y0 + radius * float(np.sin(angle))
