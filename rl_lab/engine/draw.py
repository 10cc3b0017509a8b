"""Pictures of a recorded program (its launches and the data flow between them) and of the tape behind a tensor."""

from pathlib import Path

from rl_lab.engine.passes import overlap
from rl_lab.engine.program import Program
from rl_lab.engine.tape import Node
from rl_lab.engine.tensor import TensorCore


def draw_graph(target: Program | TensorCore, path: str | Path | None = None, *, profile: bool = False) -> str:
    """Graphviz DOT text of a program (``compiled.programs[0]``) or of the tape behind a tensor.

    Launches show their primitive, shapes and bytes; with ``profile`` also their median microseconds, coloured by their share of the
    total. If ``path`` is given (.dot, .svg, .png or .pdf), the picture is also written to this file; all formats but .dot need the
    package graphviz and the program dot. Raises TypeError for another target, ValueError for another format and ImportError if
    graphviz is missing.
    """
    if isinstance(target, Program):
        source = _program(target, profile)
    elif isinstance(target, TensorCore):
        source = _tape(target)
    else:
        raise TypeError(f"draw_graph takes a program or a tensor, not {type(target).__name__}")
    if path is not None:
        _write(source, Path(path))
    return source


def _program(program: Program, profile: bool) -> str:
    times = program.profile() if profile else None
    lines = [
        "digraph program {",
        "rankdir=TB; node [shape=box, style=filled, fillcolor=white, fontname=Helvetica, fontsize=10];",
    ]
    writers: list[tuple[tuple[int, int], int]] = []
    for i, launch in enumerate(program.launches):
        shapes = " ".join("x".join(map(str, shape)) or "1" for shape in launch.shapes)
        label = f"{i} {launch.name}\\n{shapes}\\n{launch.bytes:,} B"
        colour = ""
        if times is not None:
            share = times[i] / max(sum(times), 1e-9)
            label += f"\\n{times[i]:.2f} us ({share:.0%})"
            colour = f', fillcolor="0.08 {min(1.0, 3 * share):.3f} 1.0"'
        lines.append(f'n{i} [label="{label}"{colour}];')
        reads = [s for role, s in zip(launch.primitive.buffers, launch.spans, strict=True) if role.reads]
        writes = [s for role, s in zip(launch.primitive.buffers, launch.spans, strict=True) if role.writes]
        sources = set()
        for span in (*reads, *launch.reached):
            for written, writer in reversed(writers):
                if overlap(span, written):
                    sources.add(writer)
                    break
        lines += [f"n{source} -> n{i};" for source in sorted(sources)]
        writers += [(span, i) for span in (*writes, *launch.reached)]
    return "\n".join([*lines, "}"])


def _tape(tensor: TensorCore) -> str:
    lines = ["digraph tape {", "rankdir=BT; node [shape=box, fontname=Helvetica, fontsize=10];"]
    names: dict[int, str] = {}
    arrows: list[tuple[Node | TensorCore, Node]] = []
    stack: list[Node | TensorCore] = [tensor.grad_node() or tensor]
    while stack:
        value = stack.pop()
        if id(value) in names:
            continue
        names[id(value)] = f"n{len(names)}"
        shape = "x".join(map(str, value.shape)) or "1"
        if isinstance(value, Node):
            lines.append(f'{names[id(value)]} [label="{value.name}\\n{shape}"];')
            arguments = [edge for edge in value.inputs if edge is not None]
            arrows += [(edge, value) for edge in arguments]
            stack.extend(arguments)
        else:
            lines.append(f'{names[id(value)]} [label="leaf\\n{shape}", style=filled, fillcolor=lightblue];')
    lines += [f"{names[id(source)]} -> {names[id(target)]};" for source, target in arrows]
    return "\n".join([*lines, "}"])


def _write(source: str, path: Path) -> None:
    if path.suffix == ".dot":
        path.write_text(source, encoding="utf-8")
        return
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"draw_graph writes .dot, .svg, .png or .pdf, not {path.name!r}")
    try:
        import graphviz
    except ImportError:
        raise ImportError("drawing needs the package graphviz and the program dot: pip install graphviz") from None
    path.write_bytes(graphviz.Source(source).pipe(format=path.suffix[1:]))
