"""What TensorBoard shows of a run beside its scalars: HParams, Text, custom charts, Histograms, Graphs and strips of episodes."""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

import rl_lab as rl
from rl_lab.engine.compile import Compiled
from rl_lab.engine.draw import sources_of
from rl_lab.engine.program import Program
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.video import reduced

if TYPE_CHECKING:
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.summary_pb2 import Summary

_NOT_COMPARED = (
    *("run_dir", "hyperparameters", "spaces", "versions", "log", "log_frequency", "histogram_frequency", "video_frequency"),
    "video",
    *("checkpoint_frequency", "keep_checkpoints", "eval_episodes", "eval_steps", "eval_frequency", "short_episodes"),
)
"""Entries of config.toml that say nothing about how the agent learns: HParams has a column for each of the others."""


# --- HParams and Text ------------------------------------------------------------------------------------------------


def hyperparameters(config: Mapping[str, Any]) -> "list[Summary]":
    """The settings of a run, given as the content of its config.toml, for the tab HParams.

    TensorBoard adds the last value of every scalar as a metric. There is no description of the experiment: TensorBoard would take the
    one of the first run for all runs, and leave out the settings of other agents.
    """
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo()
    settings = {name: value for name, value in config.items() if name not in _NOT_COMPARED}
    for name, value in {**settings, **config.get("hyperparameters", {})}.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            start.hparams[name].number_value = float(value)
        elif isinstance(value, str) and value:
            start.hparams[name].string_value = value
        elif isinstance(value, (list, tuple)) and value:
            start.hparams[name].string_value = ", ".join(map(str, value))
    return [_of_hparams("session_start_info", HParamsPluginData(session_start_info=start, version=0))]


def success() -> "list[Summary]":
    """The remark for the tab HParams that a run has ended as planned."""
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo

    end = SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
    return [_of_hparams("session_end_info", HParamsPluginData(session_end_info=end, version=0))]


def _of_hparams(name: str, content: Any) -> "Summary":
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=plugin))])


def texts(config: Mapping[str, Any], command: str, place: str) -> "list[Summary]":
    """Configuration, versions and command of a run for the tab Text. ``place`` is its directory."""
    from tensorboardX import summary

    settings = {name: value for name, value in config.items() if not isinstance(value, dict)}
    own = config.get("hyperparameters", {})
    again = f"python -m rl_lab.train --config {shlex.quote(f'{place}/config.toml')}"
    said = f"`{command}`\n\nThe same run again: `{again}`"
    return [
        summary.text("run/command", said if command else f"Made from Python. The same run from the command line: `{again}`"),
        summary.text("run/configuration", _table({**settings, **own}, ("setting", "value"))),
        summary.text("run/versions", _table(config.get("versions", {}), ("package", "version"))),
    ]


def _table(values: Mapping[str, Any], head: tuple[str, str]) -> str:
    """A Markdown table."""
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = tomli_w.dumps({"v": value})[4:].strip() if not isinstance(value, str) else value
    return text.replace("|", "\\|").replace("\n", " ")


# --- Custom Scalars --------------------------------------------------------------------------------------------------


def layout(agent: Agent, name: str) -> "list[Summary]":
    """Charts for the tab Custom Scalars: the return with its band, losses, gradient norms and speed.

    ``name`` is that of the agent. An agent that evolves has its own tags below its name instead of losses.
    """
    from tensorboardX import summary

    charts: dict[str, dict[str, tuple[str, list[str]]]] = {
        "return": {
            "greedy return: mean, least and greatest": (
                "Margin",
                ["eval/return_mean", "eval/return_min", "eval/return_max"],
            ),
            "return of training episodes": ("Multiline", [r"charts/episodic_return.*"]),
        }
    }
    if agent.collector is None:
        charts[name] = {
            "returns": ("Multiline", [f"{name}/(best|champion)_return"]),
            "size": ("Multiline", [f"{name}/(species|hidden|connections)"]),
        }
    else:
        charts["learning"] = {
            "losses": ("Multiline", [r"losses/.*loss"]),
            "gradient norms": ("Multiline", [r"losses/.*grad_norm"]),
        }
    charts["speed"] = {"environment steps a second": ("Multiline", ["charts/SPS"])}
    return [summary.custom_scalars(charts)]


# --- gradients and weights ------------------------------------------------------------------------------------------------------


def gradient_norms(agent: Agent) -> dict[str, float]:
    """The norm of the latest gradient of each network that has one, by log tag: for agents that do not log it themselves."""
    squares: dict[str, float] = {}
    for name, weight in _weights(agent):
        if weight.grad is not None:
            values = weight.grad.detach().numpy().ravel()
            part = name.split(".")[0]
            squares[part] = squares.get(part, 0.0) + float(np.dot(values, values))
    return {f"losses/{part}_grad_norm": math.sqrt(square) for part, square in squares.items() if math.isfinite(square)}


def histograms(agent: Agent) -> "list[Summary]":
    """Histograms of the weights of an agent's networks, and of their latest gradients where they have some."""
    from tensorboardX import summary

    made = []
    for name, weight in _weights(agent):
        for kind, tensor in (("weights", weight), ("gradients", weight.grad)):
            values = None if tensor is None else tensor.detach().numpy().ravel()
            if values is not None and values.size and np.isfinite(values).all():
                made.append(summary.histogram(f"{kind}/{name}", values, bins=_edges(values)))
    return made


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of 30 bins between the least and the greatest value."""
    low, high = float(values.min()), float(values.max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 31)


def _weights(agent: Agent) -> Iterator[tuple[str, rl.Tensor]]:
    """The weights of the parts that are networks, else of the networks that the agent saves, by name."""
    modules = {name: part for name in agent.learned if isinstance(part := getattr(agent, name), rl.nn.Module)}
    for part, module in (modules or agent.saved_networks()).items():
        for name, weight in module.named_parameters():
            yield f"{part}.{name}", weight


# --- Graphs ----------------------------------------------------------------------------------------------------------


def recorded(agent: Agent) -> dict[str, Program]:
    """The latest program of each recorded function of an agent, by the function's name. The policy's own is called "act"."""
    functions = {name.lstrip("_"): value for name, value in vars(agent).items() if isinstance(value, Compiled)}
    if agent.collector is not None and isinstance(agent.collector.act, Compiled):
        functions["act"] = agent.collector.act
    return {name: function.programs[-1] for name, function in functions.items() if function.programs}


def is_learning(agent: Agent) -> bool:
    """Whether every recorded function but the greedy policy has a program by now: then the graph is complete."""
    functions = [name for name, value in vars(agent).items() if isinstance(value, Compiled) and name != "_greedy"]
    return {name.lstrip("_") for name in functions} <= set(recorded(agent))


def graph(agent: Agent) -> bytes:
    """A serialized GraphDef for the tab Graphs; empty if the agent has neither programs nor networks to save.

    The launches of each recorded function are grouped by the line of the code that caused them. An evolved network is shown node by node.
    """
    from tensorboardX.proto.graph_pb2 import GraphDef

    definition = GraphDef()
    for name, program in recorded(agent).items():
        _add_program(definition, name, program)
    if not definition.node:
        for name, network in agent.saved_networks().items():
            weights = dict(zip(network.edges, network.weight.detach().tolist(), strict=True))
            for node in (*network.inputs, *network.nodes):
                sources = [source for source, target in network.edges if target == node]
                kind = "input" if node in network.inputs else network.activation_of(node)
                made = definition.node.add(name=f"{name}/{_plain(node)}", op=kind)
                made.input.extend(f"{name}/{_plain(source)}" for source in sources)
                for source in sources:
                    _note(made, f"weight of {source}", f"{weights[source, node]:.4g}")
    return definition.SerializeToString()


def _add_program(definition: "GraphDef", name: str, program: Program) -> None:
    """Add the launches of a program as nodes, and the data flow between them as edges."""
    places: list[str] = []
    group = line = ""
    count = 0
    for launch, sources in zip(program.launches, sources_of(program), strict=True):
        if launch.line != line:
            line, count = launch.line, count + 1
            group = f"{count:02d} {_short_line(line)}"
        places.append(f"{name}/{_plain(group)}/{launch.name}_{len(places)}")
        made = definition.node.add(name=places[-1], op=launch.name)
        made.input.extend(places[source] for source in sources)
        _note(made, "shapes", launch.shapes_text)
        _note(made, "bytes", f"{launch.bytes:,}")
        _note(made, "line", launch.line)


def _short_line(line: str) -> str:
    """The name of the file and the number of a line such as ``/home/me/agents/ppo.py:240``."""
    return re.sub(r"^.*[\\/]", "", line)


def _plain(name: str) -> str:
    """A name without the characters that TensorBoard takes for something else."""
    return re.sub(r"[^\w.-]+", "_", name)


def _note(node: "NodeDef", name: str, text: str) -> None:
    node.attr[name].s = text.encode()


# --- Images ----------------------------------------------------------------------------------------------------------


STRIP = (3, 3)
"""Rows of frames in a strip, and frames in a row: TensorBoard shows it 350 pixels wide."""
STRIP_WIDTH = 114
"""Largest width of a frame in a strip."""


def strip(frames: list[np.ndarray]) -> np.ndarray:
    """Nine frames of an episode, evenly spaced, in three rows from its beginning to its end: an image (height, width, 3) uint8.

    Frames are (height, width, 3) uint8; larger ones are reduced. Raises ValueError if there is none.
    """
    if not frames:
        raise ValueError("a strip needs at least one frame")
    rows, columns = STRIP
    chosen = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, rows * columns)]
    pictures = [np.pad(reduced(frame, STRIP_WIDTH), ((0, 3), (0, 3), (0, 0)), constant_values=128) for frame in chosen]
    lines = [np.concatenate(pictures[row * columns : (row + 1) * columns], 1) for row in range(rows)]
    return np.concatenate(lines)[:-3, :-3]


def animation(frames: list[np.ndarray], tag: str, seconds: float = 8.0, width: int = 350) -> "Summary":
    """Frames (height, width, 3) uint8 of an episode as a GIF, which the tab Images plays; at most 100 of them in ``seconds``."""
    import io

    from PIL import Image
    from tensorboardX.proto.summary_pb2 import Summary

    chosen = [frames[i] for i in sorted({round(i) for i in np.linspace(0, len(frames) - 1, 100)})]
    pictures = [Image.fromarray(reduced(frame, width)) for frame in chosen]
    buffer = io.BytesIO()
    duration = max(40, int(1000 * min(seconds, 0.05 * len(frames)) / len(pictures)))
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    width, tall = pictures[0].size
    image = Summary.Image(height=tall, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=image)])
