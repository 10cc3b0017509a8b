"""Names of observed numbers and of actions, for pages and pictures: what "input 2" and "action 0" are in an environment.

An environment, or one of its wrappers, declares them as attributes: ``observation_names``, one name for each number of an observation, and
``action_names``, one for each option of a discrete action or each component of a continuous one. Gymnasium's own environments document
them without declaring them, so `DOCUMENTED` does.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.environments import observation_mapping
from rl_lab.rollout.adapter import Checked

if TYPE_CHECKING:
    from rl_lab.experiment.agent import Agent
    from rl_lab.nn import GraphNetwork


class Names(NamedTuple):
    """Names of the numbers of an observation, and of the options or components of an action."""

    observation: tuple[str, ...]
    action: tuple[str, ...]


_CART = ("cart position", "cart velocity", "pole angle", "pole angular velocity")
_LANDER = (
    *("x", "y", "x velocity", "y velocity", "angle", "angular velocity"),
    *("left leg contact", "right leg contact"),
)
_LEG = ("hip {} angle", "hip {} speed", "knee {} angle", "knee {} speed", "leg {} contact")
_WALKER = (
    *("hull angle", "hull angular velocity", "x velocity", "y velocity"),
    *(name.format(leg) for leg in (1, 2) for name in _LEG),
    *(f"lidar {i}" for i in range(10)),
)
DOCUMENTED = {
    "CartPole-v1": Names(_CART, ("push left", "push right")),
    "Acrobot-v1": Names(
        ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "velocity 1", "velocity 2"),
        ("torque -1", "torque 0", "torque 1"),
    ),
    "MountainCar-v0": Names(("position", "velocity"), ("push left", "no push", "push right")),
    "MountainCarContinuous-v0": Names(("position", "velocity"), ("force",)),
    "Pendulum-v1": Names(("cos angle", "sin angle", "angular velocity"), ("torque",)),
    "LunarLander-v3": Names(_LANDER, ("no engine", "left engine", "main engine", "right engine")),
    "LunarLanderContinuous-v3": Names(_LANDER, ("main engine", "side engines")),
    "BipedalWalker-v3": Names(_WALKER, ("hip 1", "knee 1", "hip 2", "knee 2")),
    "BipedalWalkerHardcore-v3": Names(_WALKER, ("hip 1", "knee 1", "hip 2", "knee 2")),
}
"""Names by id, after Gymnasium's documentation."""
_DOCUMENTED_WORLDS = {name.rpartition("-")[0]: names for name, names in DOCUMENTED.items()}
"""The same for native twins, by the name of their world."""

_CHANGE_NOTHING = (
    *(gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker, gym.wrappers.Autoreset),
    *(gym.wrappers.RecordEpisodeStatistics, gym.wrappers.RecordVideo, gym.wrappers.HumanRendering, Checked),
    *(gym.wrappers.ClipAction, gym.wrappers.RescaleAction, gym.wrappers.RescaleObservation, gym.wrappers.ClipReward),
    *(gym.wrappers.NormalizeReward, gym.wrappers.TransformReward),
    *(gym.wrappers.TimeAwareObservation, gym.wrappers.FrameStackObservation, gym.wrappers.NormalizeObservation),
)
"""Wrappers that leave the numbers of one observation and the actions in their places."""


def input_names(agent: "Agent") -> list[str]:
    """A name for each number that a network of the agent sees: of the environment if it has names, else "input 0" and so on."""
    count = int(np.prod(agent.shape))
    frames = agent.setup.frame_stack if agent.setup is not None else 1
    timed = ("time",) if agent.setup is not None and agent.setup.time_aware else ()
    mapping = observation_mapping(agent.envs)
    own = declared(agent.envs).observation if mapping.is_identity else mapping.names()
    names = [*own, *timed]
    if not own or len(names) * frames != count:
        return [f"input {i}" for i in range(count)]
    before = [f" ({frames - 1 - frame} before)" for frame in range(frames - 1)]
    return [f"{name}{suffix}" for suffix in [*before, ""] for name in names]


def output_names(agent: "Agent") -> list[str]:
    """A name for each option of the agent's choices, then for each component: of the environment if it has names."""
    mapping = agent.mapping
    own = declared(agent.envs).action
    if len(own) == mapping.num_masked + mapping.size and isinstance(agent.space, (Discrete, Box)):
        return list(own)
    several = len(mapping.choices) > 1
    names = [f"choice {k}: {i}" if several else f"action {i}" for k, count in enumerate(mapping.choices) for i in range(count)]
    return names + [f"component {i}" if mapping.size > 1 else "action" for i in range(mapping.size)]


def node_names(agent: "Agent", network: "GraphNetwork") -> dict[str, str]:
    """The names of a network's inputs and outputs in the agent's environment; empty where the numbers differ."""
    found: dict[str, str] = {}
    for nodes, names in ((network.inputs, input_names(agent)), (network.outputs, output_names(agent))):
        if len(nodes) == len(names):
            found |= zip(nodes, names, strict=True)
    return found


def declared(envs: Any) -> Names:
    """The names of the environments' own observations and actions; empty tuples where there are none.

    Wrappers that may change or reorder observations hide the names below them, unless they declare names themselves.
    """
    if isinstance(envs, NativeVectorEnv):
        world = envs.world
        own = Names(world.observation_names, world.action_names)
        return own if any(own) else _DOCUMENTED_WORLDS.get(world.name, own)
    env = next(iter(getattr(envs, "envs", ())), None)
    if not isinstance(env, gym.Env):
        return Names((), ())
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return Names(_found(layers, "observation"), _found(layers, "action"))


def _found(layers: list[gym.Env], kind: str) -> tuple[str, ...]:
    """The names in the outermost layer that has some."""
    for layer in layers:
        world = getattr(layer, "world", None) if not isinstance(layer, gym.Wrapper) else None
        for owner in (layer, world):
            names = vars(owner).get(f"{kind}_names") if owner is not None else None
            names = getattr(type(owner), f"{kind}_names", None) if names is None else names
            if names:
                return tuple(map(str, names))
        if isinstance(layer, gym.Wrapper) and not isinstance(layer, _CHANGE_NOTHING):
            return ()
    return getattr(DOCUMENTED.get(_id_of(layers[-1]), Names((), ())), kind)


def _id_of(env: Any) -> str:
    """The id of an environment without its namespace."""
    spec = getattr(env, "spec", None)
    return "" if spec is None else str(spec.id).rpartition("/")[2]
