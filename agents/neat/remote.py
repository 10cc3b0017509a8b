"""Episodes of evolved networks as tasks on a Ray cluster, for environments that are not native. Genomes travel as arrays."""

import json
import math
import os
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rl_lab.agents.neat.episodes import play
from rl_lab.agents.neat.genome import as_arrays, genomes_from, select
from rl_lab.agents.neat.networks import Networks
from rl_lab.experiment.environments import Setup, make_environments
from rl_lab.experiment.sweeps.cluster import connect, import_ray
from rl_lab.experiment.sweeps.executors import ONE_THREAD
from rl_lab.rollout import OutputMapping, Stepper
from rl_lab.rollout.population import Played

TASKS = 64
"""Tasks into which the episodes of a generation are divided, whatever the number of machines."""
RETRIES = 3
"""How often a task is begun again whose machine was lost."""
_environments: dict[str, VectorEnv] = {}
"""Environments of this process by their description: they are made once, by the first task that needs them."""


def play_part(
    description: str, activation: str, limit: int | None, arrays: dict[str, np.ndarray], genomes: np.ndarray, seeds: np.ndarray
) -> tuple[Played, dict[str, list[float]]]:
    """Play a part of a generation's episodes, as `rl_lab.agents.neat.episodes.play` does, and return the numbers of their infos as well."""
    about = json.loads(description)
    if description not in _environments:
        _environments.clear()
        _environments[description] = make_environments(Setup.from_description(about["setup"]), about["num_envs"])
    envs = _environments[description]
    found = genomes_from(arrays, int(arrays["inputs"][0]), int(arrays["outputs"][0]))
    numbers: dict[str, list[float]] = {}
    networks = Networks(found, about["recurrent"])
    mapping = OutputMapping(envs.single_action_space, activation)
    return play(Stepper(envs, limit), networks, mapping, genomes, seeds, numbers), numbers


class RemotePlayers:
    """Plays the episodes of a generation on the Ray cluster of RAY_ADDRESS, or on one of this machine. It is found at the first call."""

    def __init__(self, setup: Setup | None, num_envs: int, activation: str, recurrent: bool, limit: int | None):
        """Raises Fault if Ray is missing, and ValueError if the environments cannot be made on other machines."""
        described = None if setup is None else setup.describe()
        if described is None:
            raise ValueError("--evaluation ray needs environments with an id, which other machines can make as well")
        import_ray()
        self._description = json.dumps({"setup": described, "num_envs": num_envs, "recurrent": recurrent})
        self._activation = activation
        self._limit = limit
        self._ray: Any = None
        self._task: Any = None

    def play(
        self, networks: Networks, genomes: np.ndarray, seeds: np.ndarray, numbers: dict[str, list[float]] | None = None
    ) -> Played:
        """Play episode k with network ``genomes[k]`` in an environment reset with ``seeds[k]``; both are int64 (episodes,).

        The division into tasks depends on the number of episodes alone.
        """
        if self._task is None:
            self._ray = connect(os.environ.get("RAY_ADDRESS", ""))
            remote = self._ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": ONE_THREAD})
            self._task = remote(play_part)
        size = math.ceil(len(genomes) / TASKS)
        waiting = []
        for begin in range(0, len(genomes), size):
            rows, own = np.unique(genomes[begin : begin + size], return_inverse=True)
            arrays = as_arrays(select(networks.genomes, rows))
            waiting.append(
                self._task.remote(self._description, self._activation, self._limit, arrays, own, seeds[begin : begin + size])
            )
        parts = self._ray.get(waiting)
        for _, told in parts if numbers is not None else ():
            for name, values in told.items():
                numbers.setdefault(name, []).extend(values)  # type: ignore[union-attr]
        return Played(*(np.concatenate(arrays) for arrays in zip(*(played for played, _ in parts), strict=True)))
