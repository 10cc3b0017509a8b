"""Populations of networks, and the collector that plays whole episodes of all of them in one native call, on all cores."""

import functools
import math
from typing import NamedTuple, Protocol, TypeGuard

import numba
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs import world as w
from rl_lab.envs.stream import stream_words
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.native.threads import sharing, start_threads
from rl_lab.rollout import population_kernels
from rl_lab.rollout.actions import OutputMapping


class Played(NamedTuple):
    """Results of a list of episodes, in the order of the list."""

    returns: np.ndarray
    """float64 (episodes,), undiscounted."""
    lengths: np.ndarray
    """int64 (episodes,)."""
    final_observations: np.ndarray
    """float32 (episodes, inputs), flattened; novelty search uses them as behaviours."""
    sums: np.ndarray
    """float64 (episodes, 2, inputs): sums of the observations acted on, and of their squares; (0, 2, inputs) if not asked for."""


class Actors(Protocol):
    """Networks of a population that act side by side, one in each slot."""

    def begin(self, slots: np.ndarray, chosen: np.ndarray) -> None:
        """Let network ``chosen[k]`` of the population begin an episode in slot ``slots[k]``."""

    def forward(self, observations: np.ndarray, playing: np.ndarray, outputs: np.ndarray) -> None:
        """Write the outputs (slots, outputs) for observations (slots, ...), where ``playing``, bool (slots,), is True."""


class Population(Protocol):
    """Networks that can play episodes, all with the same numbers of inputs and outputs."""

    inputs: int
    outputs: int

    def actors(self, slots: int) -> Actors:
        """Make room for ``slots`` networks that act side by side."""


class GraphActors:
    """Networks in the form that `nn.graph.kernels.activate` reads, each with a state of ``state_size`` float32 numbers."""

    def __init__(self, structures: np.ndarray, numbers: np.ndarray, state_size: int, slots: int):
        self.structures = structures
        self.numbers = numbers
        self._chosen = np.full(slots, -1)
        self._states = np.zeros((slots, state_size), np.float32)

    def begin(self, slots: np.ndarray, chosen: np.ndarray) -> None:
        self._chosen[slots] = chosen
        self._states[slots] = 0.0

    def forward(self, observations: np.ndarray, playing: np.ndarray, outputs: np.ndarray) -> None:
        x = np.ascontiguousarray(observations, np.float32).reshape(len(observations), -1)
        chosen = np.where(playing, self._chosen, -1)
        population_kernels.forward_each(self.structures, self.numbers, chosen, x, self._states, outputs)


@functools.lru_cache(65_536)
def _first_words(seed: int) -> bytes:
    """Return the state of a random stream seeded with ``seed``. Cached, because NumPy's seeding costs as much as hundreds of steps."""
    return stream_words(seeding.np_random(seed)[0]).tobytes()


def is_native(envs: object) -> TypeGuard[NativeVectorEnv]:
    """Whether a `PopulationCollector` can play in copies of these environments: native ones with float32 observations and PCG64 streams."""
    return isinstance(envs, NativeVectorEnv) and envs.world.observation_space.dtype == np.float32 and not envs.world.twister


class PopulationCollector:
    """Plays episodes of networks in copies of a native vector environment; ``envs`` itself is not stepped.

    The copies have the world, time limit and frames of ``envs``, and the parameters of its first environment. ``actions`` maps the
    outputs of a network to actions.
    """

    def __init__(self, envs: NativeVectorEnv, actions: OutputMapping):
        self.envs = envs
        self.actions = actions
        self.inputs = math.prod(envs.single_observation_space.shape or ())
        self._batches: dict[tuple[int, int], tuple[population_kernels.Batches, tuple[np.ndarray, ...]]] = {}

    def play(
        self,
        structures: np.ndarray,
        numbers: np.ndarray,
        genomes: np.ndarray,
        seeds: np.ndarray,
        options: dict[str, npt.ArrayLike] | None = None,
        summed: bool = False,
    ) -> Played:
        """Play one episode per seed in ``seeds[k]`` with network ``genomes[k]``; results are in the order of ``seeds.ravel()``.

        Row i of ``structures`` (int32) and ``numbers`` (float32) holds network i in the form that `nn.graph.kernels.activate` reads.
        ``genomes`` is int64 (tasks,), ``seeds`` int64 (tasks, episodes). ``options`` are reset options of the world: numbers, or arrays
        of the shape of ``seeds``. With ``summed`` the result has the sums of the observations. One thread plays all episodes of a
        task, side by side.

        Raises ValueError if a shape, a network's size or an option does not fit. Raises EnvironmentFault if an environment fails,
        naming the first one in the order of the tasks.
        """
        genomes = np.ascontiguousarray(genomes, np.int64)
        seeds = np.ascontiguousarray(seeds, np.int64)
        structures, numbers = np.ascontiguousarray(structures), np.ascontiguousarray(numbers)  # read by their addresses
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
            np.zeros((tasks if summed else 0, width, 2, self.inputs)),
        )
        work = population_kernels.Tasks(
            genomes, begin.reshape(seeds.shape), np.array(streams), parameters, np.zeros(1, np.int64)
        )
        population_kernels.play(batches, self.actions.arrays, work, structures, numbers, memory, outcomes, sharing)
        if outcomes.faults.any():
            self._fault(outcomes, genomes, seeds)
        return Played(
            outcomes.returns.ravel(),
            outcomes.lengths.ravel(),
            outcomes.finals.reshape(-1, self.inputs),
            outcomes.sums.reshape(-1, 2, self.inputs),
        )

    def _check(self, structures: np.ndarray, numbers: np.ndarray, genomes: np.ndarray, seeds: np.ndarray) -> None:
        """Raise ValueError if shapes or network indices do not fit: the kernels do not check their indices."""
        if seeds.ndim != 2 or genomes.shape != seeds.shape[:1] or not seeds.size:
            raise ValueError(f"seeds have shape (tasks, episodes) and genomes (tasks,), got {seeds.shape} and {genomes.shape}")
        if genomes.min() < 0 or genomes.max() >= len(structures) or len(structures) != len(numbers):
            raise ValueError(
                f"genomes are {genomes.min()} to {genomes.max()}, but there are {len(structures)} rows of structures "
                f"and {len(numbers)} of numbers"
            )
        if (structures[:, 0] != self.inputs).any() or (structures[:, 2] != self.actions.outputs).any():
            raise ValueError(
                f"{self.envs.world.name} needs networks with {self.inputs} inputs and {self.actions.outputs} outputs, "
                f"not {structures[0, 0]} and {structures[0, 2]}"
            )

    def _parameters(self, options: dict[str, npt.ArrayLike], shape: tuple[int, int]) -> np.ndarray:
        """Return the parameters of the world, float64 (tasks, episodes, parameters), or (1, 1, parameters) without ``options``.

        Raises ValueError if an option is unknown.
        """
        world = self.envs.world
        parameters = self.envs.states[:1, None, world.state_size :].copy()
        if options:
            parameters = np.repeat(np.repeat(parameters, shape[0], 0), shape[1], 1)
        for key, value in options.items():
            if key not in world.options:
                raise ValueError(f"{world.name} has no reset option {key!r}; it has {', '.join(world.options) or 'none'}")
            parameters[:, :, list(world.parameters).index(world.options[key])] = value
        return parameters

    def _batch(self, threads: int, width: int) -> tuple[population_kernels.Batches, tuple[np.ndarray, ...]]:
        """Return buffers for ``threads`` threads with ``width`` environments each, and the arrays whose memory they use.

        They are made once for these numbers and reused.
        """
        if (threads, width) not in self._batches:
            world = self.envs.world
            parameters = len(self.envs.world.parameters)

            def room(dtype: npt.DTypeLike, *row: int) -> np.ndarray:
                """Return zeros (threads, width and unused rows, *row): threads must not write to the same cache line."""
                bytes_a_row = np.dtype(dtype).itemsize * math.prod(row)
                return np.zeros((threads, width + math.ceil(128 / bytes_a_row), *row), dtype)

            streams = room(np.uint64, 4)
            states = room(np.float64, world.state_size + parameters)
            actions = room(np.float32, world.action_size)
            observations = room(np.float32, self.inputs)
            finals = room(np.float32, self.inputs)
            rewards = room(np.float64)
            returns = room(np.float64)
            episode_returns = room(np.float64)
            terminated = room(np.bool_)
            truncated = room(np.bool_)
            ended = room(np.bool_)
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
                row[:, w.COUNT] = width
                row[:, w.FAULT] = 0
                row[population_kernels.RESETTING, w.MODE] = w.RESETTING
                row[population_kernels.STEPPING, w.MODE] = w.DISABLED
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
        """Raise EnvironmentFault for the first failed environment."""
        k = int(np.flatnonzero(outcomes.faults)[0])
        fault = int(outcomes.faults[k])
        e = abs(fault) - 1  # see `population_kernels.Batches.fault`
        who = f"environment {e} of {self.envs.world.name} (seed {seeds[k, e]}) with network {genomes[k]}"
        step = int(outcomes.lengths[k, e])
        if fault < 0:
            raise EnvironmentFault(
                f"{who} got an action outside {self.envs.single_action_space} at step {step + 1} of its episode"
            )
        raise EnvironmentFault(
            f"{who} returned a number that is not finite at step {step} of its episode: "
            f"reward {outcomes.returns[k, e]}, observation {outcomes.finals[k, e, :8]}"
        )
