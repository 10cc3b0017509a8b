"""Export of a trained policy: an ONNX model, a Python module that needs NumPy alone, or one C99 file.

All three come from one `graph.Graph`, the recorded launches of the greedy policy: normalization of the observations in front, scaling of
the actions behind. `python -m rl_lab.export` and `Agent.export` call `export`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rl_lab.experiment.export.building import policy_graph
from rl_lab.experiment.export.c_file import write_c
from rl_lab.experiment.export.checking import Examples, check, examples_of
from rl_lab.experiment.export.graph import Graph
from rl_lab.experiment.export.numpy_module import write_numpy
from rl_lab.experiment.export.onnx_model import require_onnx, write_onnx
from rl_lab.experiment.faults import Fault
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from rl_lab.experiment.agent import Agent

SUFFIXES = {".onnx": "onnx", ".py": "numpy", ".c": "c"}
"""Formats by the suffix of a file."""
FORMATS = tuple(SUFFIXES.values())


def format_of(path: Path, given: str | None = None) -> str:
    """The format that is ``given``, or that of the file's suffix. Raises Fault, naming the formats, for any other."""
    if given is not None and given not in FORMATS:
        raise Fault(f"format must be one of {', '.join(FORMATS)}, got {given!r}")
    if given is None and path.suffix not in SUFFIXES:
        raise Fault(f"{path} has no suffix of a format: name it .onnx, .py (NumPy) or .c, or give the format")
    return given or SUFFIXES[path.suffix]


def check_target(path: Path, kind: str) -> None:
    """Raise Fault unless a file of this format can be written at ``path``: for use before the policy is loaded."""
    if path.is_dir():
        raise Fault(f"{path} is a directory: give the name of a file")
    if not path.parent.is_dir():
        raise Fault(f"there is no directory {path.parent}")
    if kind == "onnx":
        require_onnx()


def export(agent: "Agent", path: str | Path, format: str | None = None) -> Path:
    """Write an agent's greedy policy to a file, replacing an older one, and return its path.

    ``format`` is "onnx", "numpy" or "c"; without it, the suffix decides. The policy is recorded, written, and, for ONNX and NumPy,
    run on a few observations and compared with the agent before the file appears. Raises Fault, naming the operation, if a part of the
    policy has no translation, or if a package is missing.
    """
    path = Path(path)
    kind = format_of(path, format)
    check_target(path, kind)
    graph = policy_graph(agent)
    examples = examples_of(agent, graph)
    write_file(path, [content(graph, examples, kind)])
    return path


def content(graph: Graph, examples: Examples, kind: str) -> bytes:
    """The content of an exported file, compared with the agent's own answers in ``examples``."""
    if kind == "onnx":
        model = write_onnx(graph)
        check(model, kind, examples)
        return model
    module = write_numpy(graph).encode()
    check(module, "numpy", examples)  # for C as well: both are written from the same graph
    if kind == "numpy":
        return module
    return write_c(graph, examples).encode()
