"""What the driver asks of an agent, and how agents are found."""

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from rl_lab.experiment.faults import Fault, nearest


@runtime_checkable
class Agent(Protocol):
    """One algorithm, with its networks, its data and its random streams.

    What an agent may have besides is used where it is there: ``begin_episodes(begins)`` of agents that remember, before the first
    observations of episodes, (batch,) bool; ``pictures()``, images (height, width, 3) uint8 by log tag; ``saved_networks()``, networks
    by the name of their file in the run directory; ``read_config(path)``, settings and remarks from another program's file.
    """

    Config: ClassVar[type]
    """Frozen dataclass of the hyperparameters; the command line is derived from it. It has ``total_timesteps``."""
    action_spaces: ClassVar[tuple[type[Space], ...]]
    """The kinds of action space that it can act in."""
    timesteps: int
    """Environment steps taken so far."""

    def __init__(self, config: Any, envs: VectorEnv, seed: int): ...

    def step(self) -> dict[str, float]:
        """A bounded amount of work: collect, learn. Returns metrics by log tag."""
        ...

    def act(self, observations: np.ndarray, deterministic: bool = False, action_mask: np.ndarray | None = None) -> np.ndarray:
        """Actions for a batch of observations; ``action_mask`` (batch, actions) where environments give one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bitwise identical continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def find_agent(name: str) -> type:
    """The agent registered under this name in the entry point group ``rl_lab.agents``, or the class ``module:Class``.

    Fault for an unknown name, or a module or class that is not there.
    """
    if ":" in name:
        return _import_agent(name)
    found = {entry.name: entry for entry in entry_points(group="rl_lab.agents")}
    if name not in found:
        hint = nearest(name, found) if found else ": no agents are registered; run pip install -e ."
        raise Fault(f"unknown agent {name!r}{hint}")
    return found[name].load()


def import_beside(module: str) -> Any:
    """Import a module, which may be a file beside the user, as ``python -m`` itself would find it."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return importlib.import_module(module)


def _import_agent(name: str) -> type:
    module_name, _, class_name = name.partition(":")
    try:
        module = import_beside(module_name)
    except (ImportError, ValueError) as error:
        raise Fault(f"agent {name!r} cannot be imported: {error}") from None
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not hasattr(found, "Config"):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and hasattr(value, "Config")]
        raise Fault(f"module {module_name!r} has no agent {class_name!r}{nearest(class_name, classes)}")
    return found


def check_spaces(agent: type, name: str, env_id: str, observation_space: Space, action_space: Space) -> None:
    """Fault if the agent cannot act in an environment with these (single) spaces."""
    kinds = agent.action_spaces  # type: ignore[attr-defined]
    if not isinstance(action_space, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise Fault(
            f"agent {name!r} needs {wanted} actions, {env_id} has {action_space}: "
            f"choose an environment such as {_EXAMPLES.get(kinds[0].__name__, 'CartPole-v1')!r}"
        )
    if isinstance(action_space, Box) and not np.issubdtype(action_space.dtype, np.floating):
        raise Fault(f"agent {name!r} gives actions that are no whole numbers, {env_id} takes {action_space}")
    if type(observation_space).__name__ != "Box":
        raise Fault(f"agent {name!r} needs Box observations, {env_id} has {observation_space}")


_EXAMPLES = {"Discrete": "CartPole-v1", "Box": "Pendulum-v1"}
