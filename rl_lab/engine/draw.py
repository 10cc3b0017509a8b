"""Pictures of graphs: the launches of a recorded program, the tape behind tensors, and networks that describe themselves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from rl_lab.engine.passes import overlap
from rl_lab.engine.program import Program
from rl_lab.engine.svg import Box, Line, svg
from rl_lab.engine.tape import Node
from rl_lab.engine.tensor import TensorCore

LEAF = "lightblue"
OUTPUT = "palegreen"


class Drawing(NamedTuple):
    """A graph to draw: boxes, and arrows between them by number."""

    boxes: Sequence[Box]
    lines: Sequence[Line]


class Dot(str):
    """DOT text of a graph, which a notebook shows as a picture."""

    __slots__ = ("drawing",)

    drawing: Drawing

    def __new__(cls, text: str, drawing: Drawing) -> "Dot":
        made = super().__new__(cls, text)
        made.drawing = drawing
        return made

    def _repr_svg_(self) -> str:
        return svg(self.drawing.boxes, self.drawing.lines)


@runtime_checkable
class Drawable(Protocol):
    """An object that describes its own graph, such as `nn.GraphNetwork`."""

    def drawing(self) -> Drawing: ...


Names = Mapping[str, TensorCore] | Iterable[tuple[str, TensorCore]]


def draw_graph(
    target: "Program | TensorCore | Sequence[TensorCore] | Drawable",
    path: str | Path | None = None,
    *,
    profile: bool = False,
    names: Names = (),
) -> Dot:
    """Graphviz DOT text of a program (``compiled.programs[0]``), of the tape behind one or several tensors, or of a `nn.GraphNetwork`.

    Launches show their primitive, shapes and bytes; with ``profile`` also their median microseconds, coloured by their share of the
    total. Operations on the tape are numbered by kind in the order of their computation, and show how many of their uses send back a
    gradient in one backward pass if there are several. ``names`` are names for leaves, for example ``module.named_parameters()``.

    A notebook shows the result as a picture. If ``path`` is given (.dot, .svg, .png or .pdf), the picture is also written to this
    file; .png and .pdf need the package graphviz and the program dot. Raises TypeError for another target, ValueError for another
    format or a name that two leaves have, and ImportError if graphviz is missing.
    """
    if isinstance(target, Program):
        drawing = _program(target, profile)
    elif isinstance(target, TensorCore):
        drawing = _tape([target], names)
    elif isinstance(target, Drawable):
        drawing = target.drawing()
    elif isinstance(target, (list, tuple)) and target and all(isinstance(x, TensorCore) for x in target):
        drawing = _tape(target, names)
    else:
        raise TypeError(f"draw_graph takes a program, tensors or a GraphNetwork, not {type(target).__name__}")
    source = Dot(_dot(drawing), drawing)
    if path is not None:
        _write(source, Path(path))
    return source


def sources_of(program: Program) -> list[list[int]]:
    """Per launch, the sorted indices of the launches that last wrote the memory that it reads."""
    found: list[list[int]] = []
    writers: list[tuple[tuple[int, int], int]] = []
    for i, launch in enumerate(program.launches):
        reads = [s for role, s in zip(launch.primitive.buffers, launch.spans, strict=True) if role.reads]
        writes = [s for role, s in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
        sources = set()
        for span in (*reads, *launch.reached):
            for written, writer in reversed(writers):
                if overlap(span, written):
                    sources.add(writer)
                    break
        found.append(sorted(sources))
        writers += [(span, i) for span in (*writes, *launch.reached)]
    return found


def _program(program: Program, profile: bool) -> Drawing:
    times = program.profile() if profile else None
    boxes = []
    lines = []
    for i, (launch, sources) in enumerate(zip(program.launches, sources_of(program), strict=True)):
        text = [f"{i} {launch.name}", launch.shapes_text, f"{launch.bytes:,} B"]
        fill = "white"
        if times is not None:
            share = times[i] / max(sum(times), 1e-9)
            text.append(f"{times[i]:.2f} us ({share:.0%})")
            fill = _heat(min(1.0, 3 * share))
        boxes.append(Box(tuple(text), fill))
        lines += [Line(source, i) for source in sources]
    return Drawing(boxes, lines)


def _heat(share: float) -> str:
    """A colour from white to orange."""
    green, blue = round(255 - 115 * share), round(255 - 255 * share)
    return f"#ff{green:02x}{blue:02x}"


def _tape(roots: Sequence[TensorCore], names: Names) -> Drawing:
    known = _named(names)
    starts: list[Node | TensorCore] = [root.grad_node() or root for root in roots]
    found: dict[int, Node | TensorCore] = {}
    stack = starts.copy()
    while stack:
        value = stack.pop()
        if id(value) not in found:
            found[id(value)] = value
            if isinstance(value, Node):
                stack.extend(edge for edge in value.inputs if edge is not None)
    operations = sorted((value for value in found.values() if isinstance(value, Node)), key=lambda node: node.sequence)
    leaves = [value for value in found.values() if not isinstance(value, Node)][::-1]
    number = {id(value): i for i, value in enumerate([*leaves, *operations])}
    lines = [Line(number[id(edge)], number[id(node)]) for node in operations for edge in node.inputs if edge is not None]
    uses = Counter(line.source for line in lines)
    uses.update(number[id(start)] for start in starts)
    boxes = [Box((known.get(id(leaf), "leaf"), _shape(leaf)), LEAF) for leaf in leaves]
    kinds: Counter[str] = Counter()
    for node in operations:
        kinds[node.name] += 1
        label = node.name if kinds[node.name] == 1 else f"{node.name} {kinds[node.name]}"
        times = uses[number[id(node)]]
        text = (label, _shape(node), *((f"{times} uses",) if times > 1 else ()))
        boxes.append(Box(text, OUTPUT if any(node is start for start in starts) else "white"))
    return Drawing(boxes, lines)


def _named(names: Names) -> dict[int, str]:
    """The names of leaves by their id; a leaf with two names gets both. Raises ValueError if two leaves have the same name."""
    pairs = list(names.items() if isinstance(names, Mapping) else names)
    owners: dict[str, TensorCore] = {}
    result: dict[int, str] = {}
    for name, leaf in pairs:
        if owners.setdefault(name, leaf) is not leaf:
            raise ValueError(f"names: two tensors are called {name!r}")
        result[id(leaf)] = name if id(leaf) not in result else f"{result[id(leaf)]} = {name}"
    return result


def _shape(value: Node | TensorCore) -> str:
    return "x".join(map(str, value.shape)) or "1"


def _dot(drawing: Drawing) -> str:
    lines = [
        "digraph graph_ {",
        "rankdir=TB; node [shape=box, style=filled, fillcolor=white, fontname=Helvetica, fontsize=10];",
    ]
    for i, box in enumerate(drawing.boxes):
        label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in box.lines)
        fill = "" if box.fill == "white" else f', fillcolor="{box.fill}"'
        lines.append(f'n{i} [label="{label}"{fill}{", shape=ellipse" if box.round else ""}];')
    for line in drawing.lines:
        style = "" if line == Line(line.source, line.target) else f' [color="{line.color}", penwidth={line.width:.2f}]'
        lines.append(f"n{line.source} -> n{line.target}{style};")
    return "\n".join([*lines, "}"])


def _write(source: Dot, path: Path) -> None:
    if path.suffix not in (".dot", ".svg", ".png", ".pdf"):
        raise ValueError(f"draw_graph writes .dot, .svg, .png or .pdf, not {path.name!r}")
    if path.suffix in (".dot", ".svg"):
        path.write_text(source if path.suffix == ".dot" else source._repr_svg_(), encoding="utf-8")
        return
    try:
        import graphviz
    except ImportError:
        raise ImportError(
            f"writing {path.suffix} needs the package graphviz and the program dot: pip install graphviz, or write .svg"
        ) from None
    path.write_bytes(graphviz.Source(source).pipe(format=path.suffix[1:]))
