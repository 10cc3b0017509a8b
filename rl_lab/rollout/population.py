"""The population collector: many evolved networks, each in whole episodes of a native world, in one native call on all cores."""

import functools
import math
from typing import Any, NamedTuple, TypeGuard

import numba
import numpy as np
from gymnasium.utils import seeding

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs import world as w
from rl_lab.envs.stream import stream_words
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.native.threads import sharing, start_threads
from rl_lab.rollout import population_kernels
from rl_lab.rollout.actions import OutputMapping


class Played(NamedTuple):
    """What came of a list of episodes, in its order."""

    returns: np.ndarray
    """float64 (episodes,), undiscounted."""
    lengths: np.ndarray
    """int64 (episodes,)."""
    final_observations: np.ndarray
    """float32 (episodes, inputs), flattened: a behaviour for novelty search."""


@functools.lru_cache(65_536)
def _first_words(seed: int) -> bytes:
    """The stream with which an episode of this seed begins. Seeding takes NumPy as long as hundreds of steps."""
    return stream_words(seeding.np_random(seed)[0]).tobytes()


def is_native(envs: Any) -> TypeGuard[NativeVectorEnv]:
    """Whether a `PopulationCollector` can play in copies of these environments."""
    return isinstance(envs, NativeVectorEnv)


class PopulationCollector:
    """Plays episodes of networks in copies of a native vector environment, which itself is left as it is.

    The copies have its world, time limit, frames and the parameters of its first environment. ``structures`` (int32) and ``numbers``
    (float32) hold a network in each row, as `nn.graph.kernels.activate` reads it.
    """

    def __init__(self, envs: NativeVectorEnv, actions: OutputMapping):
        self.envs = envs
        self.actions = actions
        self.inputs = math.prod(envs.single_observation_space.shape or ())
        self._batches: dict[tuple[int, int], tuple[population_kernels.Batches, Any]] = {}

    def play(
        self,
        structures: np.ndarray,
        numbers: np.ndarray,
        genomes: np.ndarray,
        seeds: np.ndarray,
        options: dict[str, Any] | None = None,
    ) -> Played:
        """Network ``genomes[k]`` in one episode for each seed of ``seeds[k]``, int64 (tasks, episodes); results are in that order.

        ``options`` are the world's, as ``reset`` takes them: a number, or an array like the seeds. A task is done by one thread, side
        by side in its environments. EnvironmentFault names the first environment, in the order of
        the tasks, that went wrong.
        """
        genomes = np.ascontiguousarray(genomes, np.int64)
        seeds = np.ascontiguousarray(seeds, np.int64)
        self._check(structures, numbers, genomes, seeds)
        tasks, width = seeds.shape
        distinct, begin = np.unique(seeds, return_inverse=True)
        streams = np.frombuffer(b"".join(map(_first_words, distinct.tolist())), np.uint64).reshape(-1, 4)
        parameters = self._parameters(options or {}, seeds.shape)
        start_threads()
        batches, _ = self._batch(min(numba.get_num_threads(), tasks), width)
        memory = np.zeros(
            (len(batches.cells), width + 1, int((structures[:, 0] + 2 * structures[:, 1]).max()) + 16), np.float32
        )
        outcomes = population_kernels.Outcomes(
            np.zeros((tasks, width)),
            np.zeros((tasks, width), np.int64),
            np.zeros((tasks, width, self.inputs), np.float32),
            np.zeros(tasks, np.int64),
        )
        work = population_kernels.Tasks(
            genomes, begin.reshape(seeds.shape), np.array(streams), parameters, np.zeros(1, np.int64)
        )
        population_kernels.play(batches, self.actions.arrays, work, structures, numbers, memory, outcomes, sharing)
        if outcomes.faults.any():
            self._fault(outcomes, genomes, seeds)
        return Played(outcomes.returns.ravel(), outcomes.lengths.ravel(), outcomes.finals.reshape(-1, self.inputs))

    def _check(self, structures: np.ndarray, numbers: np.ndarray, genomes: np.ndarray, seeds: np.ndarray) -> None:
        """Kernels index unchecked."""
        if seeds.ndim != 2 or genomes.shape != seeds.shape[:1] or not seeds.size:
            raise ValueError(f"seeds are (tasks, episodes) and genomes (tasks,), got {seeds.shape} and {genomes.shape}")
        if genomes.min() < 0 or genomes.max() >= len(structures) or len(structures) != len(numbers):
            raise ValueError(
                f"networks {genomes.min()} to {genomes.max()} of {len(structures)} structures and {len(numbers)} rows"
            )
        if (structures[:, 0] != self.inputs).any() or (structures[:, 2] != self.actions.outputs).any():
            raise ValueError(
                f"{self.envs.world.name} needs networks with {self.inputs} inputs and {self.actions.outputs} outputs, "
                f"not {structures[0, 0]} and {structures[0, 2]}"
            )

    def _parameters(self, options: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
        """The world's parameters in each episode, or once if they are the same in all."""
        world = self.envs.world
        parameters = self.envs.states[:1, None, world.state_size :].copy()
        if options:
            parameters = np.repeat(np.repeat(parameters, shape[0], 0), shape[1], 1)
        for key, value in options.items():
            if key not in world.options:
                raise ValueError(f"{world.name} has no reset option {key!r}; it has {', '.join(world.options) or 'none'}")
            parameters[:, :, list(world.parameters).index(world.options[key])] = value
        return parameters

    def _batch(self, threads: int, width: int) -> tuple[population_kernels.Batches, Any]:
        """Buffers for this many threads with ``width`` environments each; made once."""
        if (threads, width) not in self._batches:
            world = self.envs.world
            parameters = len(self.envs.world.parameters)

            def room(dtype: Any, *row: int) -> np.ndarray:
                bytes_a_row = np.dtype(dtype).itemsize * math.prod(row)
                return np.zeros((threads, width + math.ceil(128 / bytes_a_row), *row), dtype)

            streams = room(np.uint64, 4)
            states = room(np.float64, world.state_size + parameters)
            actions, observations, finals = (room(np.float32, size) for size in (world.action_size, self.inputs, self.inputs))
            rewards, returns, episode_returns = (room(np.float64) for _ in range(3))
            terminated, truncated, ended = (room(np.bool_) for _ in range(3))
            elapsed = room(np.int64)
            episode_lengths = room(np.int64)
            buffers = (
                *(streams, actions, observations, finals, rewards, terminated, truncated, ended, elapsed),
                *(returns, episode_returns, episode_lengths),
            )
            cells = np.zeros((threads, 2, w.CELLS + 16), np.int64)
            for thread in range(threads):
                row = cells[thread]
                row[:, : w.STATES] = self.envs.cells[: w.STATES]
                row[:, w.COUNT], row[:, w.FAULT] = width, 0
                row[population_kernels.RESETTING, w.MODE], row[population_kernels.STEPPING, w.MODE] = w.RESETTING, w.DISABLED
                row[:, w.STATES : w.CELLS] = [buffer[thread].ctypes.data for buffer in (states, *buffers)]
            made = population_kernels.Batches(
                self.envs.loop_address,
                w.FAULT,
                *(cells, streams, states, actions, observations, finals),
                *(rewards, ended, elapsed, returns),
            )
            self._batches[threads, width] = (made, buffers)
        return self._batches[threads, width]

    def _fault(self, outcomes: population_kernels.Outcomes, genomes: np.ndarray, seeds: np.ndarray) -> None:
        k = int(np.flatnonzero(outcomes.faults)[0])
        fault = int(outcomes.faults[k])
        e = abs(fault) - 1
        who = f"environment {e} of {self.envs.world.name} (seed {seeds[k, e]}) with network {genomes[k]}"
        step = int(outcomes.lengths[k, e])
        if fault < 0:
            raise EnvironmentFault(
                f"{who} got an action at step {step + 1} of its episode which is not in {self.envs.single_action_space}"
            )
        raise EnvironmentFault(
            f"{who} made a number that is not finite at step {step} of its episode: "
            f"reward {outcomes.returns[k, e]}, observation {outcomes.finals[k, e, :8]}"
        )
