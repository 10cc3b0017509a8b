"""Comparison of an exported policy with the agent."""

import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import rl_lab as rl
from rl_lab.experiment.export.graph import Graph
from rl_lab.experiment.faults import Fault

if TYPE_CHECKING:
    from rl_lab.experiment.agent import Agent

COUNT = 16
"""Observations on which an export is tried."""
TOLERANCE = 1e-4
"""Largest difference of an export's numbers, relative to numbers above 1. Float32 policies agree to about 1e-6."""


class Examples(NamedTuple):
    """Observations (count, *shape), what the policy remembers with each, and the agent's answers."""

    observations: np.ndarray
    memory: tuple[np.ndarray, ...]
    actions: np.ndarray
    after: tuple[np.ndarray, ...]
    choices: tuple[int, ...] = ()
    """Number of options of each choice; the first columns of the actions are choices."""
    starts: tuple[int, ...] = ()
    """First value of each choice."""


def observations_like(agent: "Agent", count: int, seed: int = 0) -> np.ndarray:
    """Random observations of an agent's type: standard normal, or uniform bytes."""
    random = np.random.default_rng(seed)
    shape = (count, *agent.shape)
    dtype = np.dtype(agent.observation_dtype)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.random(shape) < 0.5 if dtype.kind == "b" else random.standard_normal(shape).astype(np.float32)


def examples_of(
    agent: "Agent", graph: Graph, count: int = COUNT, seed: int = 0, action_mask: np.ndarray | None = None
) -> Examples:
    """The agent's answers to `observations_like`; a policy with memory remembers random numbers in [-1, 1]."""
    observations = observations_like(agent, count, seed)
    random = np.random.default_rng(seed + 1)
    memory = tuple(random.uniform(-1, 1, (count, *part.shape[1:])).astype(np.float32) for part in graph.memory)
    function, _ = agent.greedy_step()
    with rl.no_grad():
        given = [rl.tensor(part) for part in memory]
        mask = None if action_mask is None else rl.from_numpy(action_mask)
        actions, *after = function(rl.from_numpy(observations), *given, mask)
    scaled = actions.numpy()
    mapping = agent.mapping
    rows = scaled.reshape(count, len(mapping.choices) + mapping.size)
    rows = rows.astype(np.float32 if mapping.size else np.int64)
    rows[:, : len(mapping.choices)] += mapping.starts.astype(rows.dtype)
    output = graph.output("action")
    assert output is not None
    wanted = rows.reshape(count, *output.shape)
    starts = tuple(map(int, mapping.starts))
    return Examples(observations, memory, wanted, tuple(part.numpy() for part in after), mapping.choices, starts)


def run(content: bytes, kind: str) -> Any:
    """A function (observations, memory, mask) -> (actions, scores, memory) of an exported file; None if nothing here can run it."""
    if kind == "numpy":
        scope: dict[str, Any] = {"__name__": "policy"}
        exec(compile(content, "policy.py", "exec"), scope)
        return scope["outputs"]
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    results = [found.name for found in session.get_outputs()]

    def outputs(observations: np.ndarray, memory: tuple[np.ndarray, ...] = (), mask: np.ndarray | None = None) -> Any:
        given = {"observation": observations, **{f"memory{i}": part for i, part in enumerate(memory)}}
        if "action_mask" in names:
            options = session.get_inputs()[names.index("action_mask")].shape[1]
            given["action_mask"] = np.ones((len(observations), options), bool) if mask is None else mask
        found = dict(zip(results, session.run(None, given), strict=True))
        after = tuple(found[f"next_memory{i}"] for i in range(len(memory)))
        return found["action"], found.get("scores"), after

    return outputs


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of two arrays, relative to numbers above 1; infinity if only one is not finite."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
    return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0))


def differing(found: np.ndarray, scores: np.ndarray | None, examples: Examples, tolerance: float) -> np.ndarray:
    """The rows in which actions differ from those of the examples by more than ``tolerance``.

    An option is not another one if the scores of both are as close as ``tolerance``, relative to scores above 1.
    """
    count = len(examples.actions)
    rows, wanted = found.reshape(count, -1).copy(), examples.actions.reshape(count, -1)
    first = 0
    for k, options in enumerate(examples.choices if scores is not None else ()):
        own = np.asarray(scores).reshape(count, -1)[:, first : first + options]
        first += options
        index = np.stack([rows[:, k], wanted[:, k]], 1).astype(np.int64) - examples.starts[k]
        if not ((index >= 0) & (index < options)).all():
            continue  # no options: all rows are compared as they are
        pair = np.take_along_axis(own, index, 1)
        size = np.max(np.abs(own), 1, where=np.isfinite(own), initial=1.0)
        with np.errstate(invalid="ignore"):
            alike = np.abs(pair[:, 0] - pair[:, 1]) <= tolerance * size
        rows[alike, k] = wanted[alike, k]
    return np.flatnonzero([distance(a, b) > tolerance for a, b in zip(rows, wanted, strict=True)])


def check(content: bytes, kind: str, examples: Examples) -> None:
    """Raise Fault if an exported file does not answer as the agent does."""
    function = run(content, kind)
    if function is None:
        return
    actions, scores, after = function(examples.observations, examples.memory, None)
    wrong = differing(np.asarray(actions), scores, examples, TOLERANCE)
    apart = max([distance(a, b) for a, b in zip(after, examples.after, strict=True)], default=0.0)
    if len(wrong) or apart > TOLERANCE:
        raise Fault(
            f"the policy cannot be exported: the {kind} file would differ from the agent on {len(wrong)} of {len(examples.actions)} "
            "observations; the policy may decide in Python code that depends on the observation"
        )
