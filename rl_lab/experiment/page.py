"""An episode as one HTML page that needs neither a server nor a network.

The page shows the frames, the observations, the policy's outputs, its value estimate, and how much each input contributed to the output
of the chosen action: gradient x input, and integrated gradients (Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep
networks") with an observation of zeros as the baseline.
"""

import base64
import importlib.util
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import Setup, make_environments
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.names import input_names, output_names
from rl_lab.experiment.vector import close_environments
from rl_lab.experiment.video import check_pictures, rendering
from rl_lab.nn.pictures import picture_of
from rl_lab.rollout import Stepper
from rl_lab.serialization import write_file

MOST_STEPS = 1_000
"""Steps of an episode that a page shows."""
MOST_INPUTS = 24
"""Inputs of a page, without pictures: those that contribute most."""
PATH_STEPS = 32
"""Points on the path of integrated gradients; an eighth of them for pictures."""
WIDTH = 480
"""Largest width of a frame in pixels."""
AT_ONCE = 256
"""Observations whose gradients are computed together."""


@dataclass
class Episode:
    """One episode: a row for each step."""

    observations: np.ndarray
    actions: np.ndarray
    """Policy actions (steps, choices + size): indices of choices, then components in [-1, 1]."""
    rewards: np.ndarray
    frames: list[str] = field(default_factory=list)
    """JPEG pictures in base64."""
    kind: str = ""
    """What the outputs of options are, see `Insight`; empty if the agent does not tell."""
    outputs: np.ndarray | None = None
    values: np.ndarray | None = None
    gradient: np.ndarray | None = None
    integrated: np.ndarray | None = None
    complete: bool = True


def record_episode(agent: Agent, setup: Setup, seed: int, deterministic: bool = True) -> Episode:
    """Play an episode from ``seed`` in an environment that renders. Raises Fault if it has no pictures, or if Pillow is missing."""
    if importlib.util.find_spec("PIL") is None:
        raise Fault("a page with frames needs pillow, which is not installed: pip install pillow")
    check_pictures(setup)
    env = rendering(setup)
    envs = make_environments(Setup(setup.env_id, maker=lambda: env, once=True, pixels=setup.pixels), 1)
    rows: dict[str, list[Any]] = {name: [] for name in ("x", "action", "reward", "mask", "memory", "frame")}
    complete = False
    try:
        stepper = Stepper(envs)
        stepper.reset(seed)
        agent.begin_episodes(np.ones(1, bool))
        while not complete and len(rows["x"]) < MOST_STEPS:
            x, mask = stepper.observations.copy(), stepper.action_mask
            rows["frame"].append(_jpeg(np.asarray(env.render())))
            rows["memory"].append(_memory(agent))
            action = agent.act(x, deterministic, **({} if mask is None else {"action_mask": mask}))
            rows["x"].append(x[0])
            rows["mask"].append(None if mask is None else mask[0].copy())
            rows["action"].append(agent.mapping.to_policy(action).reshape(-1))
            step = stepper.step(action)
            rows["reward"].append(float(np.asarray(step.rewards)[0]))
            complete = bool(step.ended[0])
    finally:
        close_environments(envs)
    episode = Episode(np.array(rows["x"]), np.array(rows["action"]), np.array(rows["reward"]), rows["frame"], complete=complete)
    _explain(agent, episode, rows["mask"], rows["memory"])
    return episode


def _memory(agent: Agent) -> np.ndarray | None:
    """What an agent remembers before a step, one row; None at the beginning of an episode."""
    if agent.acting_memory is None:
        return None
    kept = getattr(agent, agent.acting_memory)
    array = kept.numpy() if isinstance(kept, rl.Tensor) else np.asarray(kept)
    return array[0].copy() if len(array) == 1 and array.size else None


def _explain(agent: Agent, episode: Episode, masks: list[Any], memories: list[Any]) -> None:
    """Add outputs, values and attributions to an episode."""
    x = episode.observations.astype(np.float32)
    mask = None if masks[0] is None else np.array(masks)
    found = next((memory for memory in memories if memory is not None), None)
    memory = None
    if found is not None:
        memory = np.array([np.zeros_like(found) if row is None else row for row in memories])

    def told(rows: np.ndarray, inputs: rl.Tensor) -> Any:
        return agent.explain(
            inputs,
            None if mask is None else rl.from_numpy(np.ascontiguousarray(mask[rows])),
            None if memory is None else rl.from_numpy(np.ascontiguousarray(memory[rows])),
        )

    with rl.no_grad():
        insight = told(np.arange(len(x)), rl.from_numpy(x))
    if insight is None:
        return
    episode.kind = insight.kind
    episode.outputs = insight.outputs.numpy().copy()
    episode.values = None if insight.value is None else insight.value.numpy().copy()
    chosen = _chosen(agent, episode.actions)

    def gradient(rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        given = rl.from_numpy(inputs).requires_grad_()
        target = (told(rows, given).outputs * rl.from_numpy(chosen[rows])).sum()
        (slope,) = rl.autograd.grad(target, [given])
        return slope.numpy()

    episode.gradient, episode.integrated = attributions(gradient, x, PATH_STEPS if x[0].size <= 256 else PATH_STEPS // 8)


def _chosen(agent: Agent, actions: np.ndarray) -> np.ndarray:
    """Weights (steps, options + size) that pick the outputs of the chosen options, and all components."""
    mapping = agent.mapping
    weights = np.zeros((len(actions), mapping.num_masked + mapping.size), np.float32)
    first = 0
    for k, count in enumerate(mapping.choices):
        weights[np.arange(len(actions)), first + actions[:, k].astype(np.int64)] = 1.0
        first += count
    weights[:, first:] = 1.0
    return weights


def attributions(
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient x input, and integrated gradients from zeros by the midpoint rule, both of the shape of ``x``.

    ``gradient(rows, inputs)`` returns the gradients at ``inputs``, which belong to these rows of ``x``.
    """
    direct = np.zeros_like(x)
    mean = np.zeros_like(x)
    for low in range(0, len(x), AT_ONCE):
        rows = np.arange(low, min(low + AT_ONCE, len(x)))
        direct[rows] = gradient(rows, x[rows]) * x[rows]
        for k in range(points):
            mean[rows] += gradient(rows, x[rows] * np.float32((k + 0.5) / points)) / np.float32(points)
    return direct, mean * x


# --- the page --------------------------------------------------------------------------------------------------------


def _jpeg(frame: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame, np.uint8)[..., :3])
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    elif image.width < WIDTH // 2:
        factor = WIDTH // max(image.size)
        image = image.resize((image.width * max(1, factor), image.height * max(1, factor)), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    return base64.b64encode(content.getvalue()).decode()


def _numbers(array: np.ndarray) -> list[Any]:
    """Numbers for JSON, with four significant digits; None for one that is not finite."""
    return [None if not np.isfinite(v) else float(f"{v:.4g}") for v in np.asarray(array, np.float64).ravel().tolist()]


def _series(name: str, rows: np.ndarray) -> dict[str, Any]:
    return {"name": name, "values": _numbers(rows)}


def _outputs(agent: Agent, episode: Episode) -> list[dict[str, Any]]:
    """The charts of the policy's outputs: options, then components."""
    if episode.outputs is None:
        return []
    count = agent.mapping.num_masked
    names = output_names(agent)
    shown = episode.outputs
    charts = []
    if count:
        options = shown[:, :count]
        if episode.kind == "probabilities":
            options = np.exp(options)
        else:
            options = np.where(options <= -1e8, np.nan, options)  # forbidden by a mask
        title = {"probabilities": "Probability of each action", "values": "Estimated return of each action"}.get(
            episode.kind, "Output for each action"
        )
        span = [0, 1] if episode.kind == "probabilities" else None
        charts.append(
            {"title": title, "span": span, "series": [_series(n, options[:, i]) for i, n in enumerate(names[:count])]}
        )
    if agent.mapping.size:
        series = [_series(name, shown[:, count + i]) for i, name in enumerate(names[count:])]
        charts.append({"title": "Action before it is scaled to the space", "span": None, "series": series})
    return charts


def _maps(agent: Agent, array: np.ndarray | None) -> dict[str, Any] | None:
    """Attributions of pictures (steps, height, width): their sums over channels, as bytes around 128."""
    if array is None:
        return None
    axes = {"first": (1,), "last": (3,)}
    picture = picture_of(agent.observed)
    if picture.frames > 1:
        array = array.sum(1)
    if picture.order in axes:
        array = array.sum(axes[picture.order])
    largest = np.abs(array).max((1, 2), keepdims=True)
    scaled = np.round(127 * array / np.where(largest > 0, largest, 1)) + 128
    return {
        "height": array.shape[1],
        "width": array.shape[2],
        "bytes": base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(),
    }


def page(agent: Agent, episode: Episode, title: str, seed: int) -> str:
    """The source of the page."""
    x = episode.observations
    steps = len(x)
    try:
        pictured = x.ndim > 2 and bool(picture_of(agent.observed))
    except ShapeError:
        pictured = False
    charts = _outputs(agent, episode)
    if episode.values is not None:
        charts.append({"title": "Estimated return of the state", "span": None, "series": [_series("value", episode.values)]})
    charts.append({"title": "Reward", "span": None, "series": [_series("reward", episode.rewards)]})
    heat: list[dict[str, Any]] = []
    maps: dict[str, Any] = {}
    ways = (("gradient", "gradient x input", episode.gradient), ("integrated", "integrated gradients", episode.integrated))
    if pictured:
        maps = {name: {"title": words, **found} for name, words, array in ways if (found := _maps(agent, array))}
    else:
        flat = x.reshape(steps, -1).astype(np.float64)
        chosen = np.arange(flat.shape[1])
        if len(chosen) > MOST_INPUTS:
            weight = np.abs(flat if episode.integrated is None else episode.integrated.reshape(steps, -1)).mean(0)
            chosen = np.sort(np.argsort(-weight, kind="stable")[:MOST_INPUTS])
        known = input_names(agent)
        names = [known[i] for i in chosen]
        for name, words, array in (("observation", "observation", flat), *ways):
            if array is not None:
                rows = array.reshape(steps, -1)[:, chosen]
                heat.append({"key": name, "title": words, "rows": [_series(n, rows[:, i]) for i, n in enumerate(names)]})
    data = {
        "title": title,
        "facts": {
            "return": f"{episode.rewards.sum():.4g}",
            "steps": f"{steps:,}{'' if episode.complete else ' (the episode goes on)'}",
            "seed": str(seed),
            "trained for": f"{agent.timesteps:,} steps",
        },
        "told": episode.outputs is not None,
        "frames": episode.frames,
        "actions": [_action_text(agent, row) for row in episode.actions],
        "charts": charts,
        "heat": heat,
        "maps": maps,
        "steps": steps,
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # no "</script>" in names
    return files("rl_lab.experiment").joinpath("page.html").read_text(encoding="utf-8").replace("/*DATA*/null", text)


def _action_text(agent: Agent, row: np.ndarray) -> str:
    """The action of a step: the name of a single choice, else numbers."""
    choices = agent.mapping.choices
    if len(choices) == 1 and not agent.mapping.size:
        return output_names(agent)[int(row[0])].removeprefix("action ")
    return ", ".join([*[str(int(v)) for v in row[: len(choices)]], *[f"{v:.2f}" for v in row[len(choices) :]]])


def write_page(agent: Agent, setup: Setup, seed: int, path: Path, title: str, deterministic: bool = True) -> Path:
    """Play an episode and write its page to ``path``, whole or not at all. Raises Fault, and OSError."""
    episode = record_episode(agent, setup, seed, deterministic)
    write_file(path, [page(agent, episode, title, seed).encode()])
    return path
