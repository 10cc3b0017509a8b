"""Play the episodes of a population of networks: natively, in Gymnasium's environments, or as tasks on a Ray cluster."""

import json
import math
import os
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_lab.experiment.environments import Setup, make_environments
from rl_lab.experiment.sweeps.cluster import connect, import_ray
from rl_lab.experiment.sweeps.executors import ONE_THREAD
from rl_lab.rollout import EPISODE_LIMIT, OutputMapping, Stepper, longest_episode
from rl_lab.rollout.episodes import play
from rl_lab.rollout.population import GraphActors, Played, Population, PopulationCollector, is_native

EVALUATIONS = ("local", "ray")
"""Values of the setting ``evaluation``, see `Players`."""
TASKS = 64
"""Tasks into which the episodes of a generation are divided, whatever the number of machines."""
RETRIES = 3
"""How often a task is begun again whose machine was lost."""
_environments: dict[str, VectorEnv] = {}
"""Environments of this process by their description: they are made once, by the first task that needs them."""


class Players:
    """Plays episodes of networks in environments like ``envs``.

    Native environments are played in native copies, on all cores. Others are stepped in this process or, if ``evaluation`` is "ray", on
    the Ray cluster of RAY_ADDRESS, or on one of this machine. Episodes are cut off after ``limit`` steps in environments without a time
    limit of their own. ``actions`` maps the outputs of a network, which end in ``activation``, to actions. Results depend on the networks
    and the seeds alone.

    Raises ValueError for environments that do not reset in the step that ends an episode, and for Ray with native environments or with
    environments that other machines cannot make. Raises Fault if Ray is missing.
    """

    def __init__(
        self,
        envs: VectorEnv,
        setup: Setup | None,
        activation: str,
        evaluation: str = "local",
        limit: int = EPISODE_LIMIT,
    ):
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("whole episodes need vector environments made with autoreset_mode=SAME_STEP; those of an id are")
        self.envs = envs
        self.actions = OutputMapping(envs.single_action_space, activation)
        self.limit = None if longest_episode(envs) is None else limit
        self._native = PopulationCollector(envs, self.actions) if is_native(envs) else None
        self._remote: _Remote | None = None
        if evaluation == "ray":
            if self._native is not None:
                raise ValueError(
                    "--evaluation ray does not apply to native environments: leave it out, or add --backend gymnasium"
                )
            self._remote = _Remote(setup, envs.num_envs, activation, self.limit)

    def play(
        self,
        networks: Population,
        chosen: np.ndarray,
        seeds: np.ndarray,
        numbers: dict[str, list[float]] | None = None,
        summed: bool = False,
    ) -> Played:
        """Play one episode per seed in ``seeds[k]`` with network ``chosen[k]``; results are in the order of ``seeds.ravel()``.

        ``chosen`` is int64 (tasks,), ``seeds`` int64 (tasks, episodes). Appends numbers in the last infos to ``numbers``, by name. With
        ``summed`` the result has the sums of the observations. Raises EnvironmentFault if an environment fails.
        """
        structures, values = getattr(networks, "structures", None), getattr(networks, "numbers", None)
        if self._native is not None and structures is not None and values is not None:
            return self._native.play(structures, values, chosen, seeds, summed=summed)
        each = np.repeat(chosen, seeds.shape[1])
        if self._remote is not None:
            return self._remote.play(networks, each, seeds.ravel(), numbers, summed)
        return play(Stepper(self.envs, self.limit), networks, self.actions, each, seeds.ravel(), numbers, summed)


class Sent:
    """A part of a population as it travels to another machine."""

    def __init__(self, arrays: dict[str, np.ndarray], inputs: int, outputs: int, state_size: int):
        self.inputs = inputs
        self.outputs = outputs
        self._arrays = arrays
        self._state_size = state_size

    def actors(self, slots: int) -> GraphActors:
        return GraphActors(self._arrays["structures"], self._arrays["numbers"], self._state_size, slots)


def play_part(
    description: str,
    arrays: dict[str, np.ndarray],
    sizes: tuple[int, int, int],
    chosen: np.ndarray,
    seeds: np.ndarray,
    summed: bool,
) -> tuple[Played, dict[str, list[float]]]:
    """Play a part of a generation's episodes, as `rl_lab.rollout.episodes.play` does, and return the numbers of their infos as well."""
    about = json.loads(description)
    if description not in _environments:
        _environments.clear()
        _environments[description] = make_environments(Setup.from_description(about["setup"]), about["num_envs"])
    envs = _environments[description]
    numbers: dict[str, list[float]] = {}
    mapping = OutputMapping(envs.single_action_space, about["activation"])
    return play(Stepper(envs, about["limit"]), Sent(arrays, *sizes), mapping, chosen, seeds, numbers, summed), numbers


class _Remote:
    """Plays the episodes of a generation on the Ray cluster of RAY_ADDRESS, or on one of this machine. It is found at the first call."""

    def __init__(self, setup: Setup | None, num_envs: int, activation: str, limit: int | None):
        described = None if setup is None else setup.describe()
        if described is None:
            raise ValueError("--evaluation ray needs environments with an id, which other machines can make as well")
        import_ray()
        self._description = json.dumps({"setup": described, "num_envs": num_envs, "activation": activation, "limit": limit})
        self._ray: Any = None
        self._task: Any = None

    def play(
        self, networks: Any, chosen: np.ndarray, seeds: np.ndarray, numbers: dict[str, list[float]] | None, summed: bool
    ) -> Played:
        """Play episode k with network ``chosen[k]`` in an environment reset with ``seeds[k]``; both are int64 (episodes,).

        The division into tasks depends on the number of episodes alone.
        """
        if networks.structures is None:
            raise ValueError("--evaluation ray needs a network of fully connected layers: mlp: with relu, tanh or sigmoid")
        if self._task is None:
            self._ray = connect(os.environ.get("RAY_ADDRESS", ""))
            remote = self._ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": ONE_THREAD})
            self._task = remote(play_part)
        size = math.ceil(len(chosen) / TASKS)
        sizes = (networks.inputs, networks.outputs, networks.state_size)
        waiting = []
        for begin in range(0, len(chosen), size):
            rows, own = np.unique(chosen[begin : begin + size], return_inverse=True)
            arrays = {"structures": networks.structures[rows], "numbers": networks.numbers[rows]}
            waiting.append(self._task.remote(self._description, arrays, sizes, own, seeds[begin : begin + size], summed))
        parts = self._ray.get(waiting)
        for _, told in parts if numbers is not None else ():
            for name, values in told.items():
                numbers.setdefault(name, []).extend(values)  # type: ignore[union-attr]
        return Played(*(np.concatenate(arrays) for arrays in zip(*(played for played, _ in parts), strict=True)))
