"""NEAT on two poles: evaluations until the task is solved, over seeds (Stanley and Miikkulainen 2002, sections 4.2 and 4.3).

With velocities, fitness is the number of balanced steps, and 100,000 steps solve the task. Without velocities, fitness is Gruau's.
The best network of each generation then solves the task if it balances 100,000 steps, and also 1,000 steps from at least 200 of
Gruau's 625 starts. Every network of every generation counts as one evaluation, those of the last generation included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from rl_lab.agents.neat import Evolution, NEATConfig, Networks
from rl_lab.envs.double_pole import GENERALIZATION_STARTS, GRUAU_STEPS, DoublePoleNoVelocityVectorEnv, DoublePoleVectorEnv
from rl_lab.rollout import OutputMapping
from rl_lab.rollout.population import PopulationCollector

STEPS = 100_000
STARTS = len(GENERALIZATION_STARTS["x"])
ENOUGH = 200

WITH_VELOCITIES = NEATConfig(population=150)
"""The paper's parameters, the same as for XOR."""

WITHOUT_VELOCITIES = NEATConfig(
    population=150, recurrent=True, weight_coefficient=3.0, compatibility_threshold=4.0, add_connection=0.3, restart=30
)
"""The paper's parameters with two changes.

The population is 150 instead of 1,000, which needs fewer evaluations. Evolution restarts after 30 generations without improvement,
because a few seeds get stuck in a local optimum.
"""
MOST_EVALUATIONS = 200_000


@dataclass
class Solved:
    """The result of one evolution that solved its task."""

    evaluations: int
    generations: int
    hidden: int
    connections: int
    starts: int = 0
    """Number of Gruau's 625 starts from which the champion balances 1,000 steps."""


class Task:
    """A pole-balancing environment in which networks play episodes."""

    def __init__(self, kind: Any, steps: int, config: NEATConfig, **parameters: float):
        envs = kind(1, steps, AutoresetMode.SAME_STEP, **parameters)
        self.inputs = int(np.prod(envs.single_observation_space.shape))
        self._collector = PopulationCollector(envs, OutputMapping(envs.single_action_space, config.output_activation))

    def play(self, networks: Networks, which: Any, starts: dict[str, np.ndarray] | None = None) -> Any:
        """Play the networks with the indices ``which``: one episode from the usual start, or one from each of ``starts``.

        The environment is deterministic, so the seeds do not matter.
        """
        which = np.atleast_1d(which)
        width = 1 if starts is None else len(next(iter(starts.values())))
        options = None if starts is None else {name: np.tile(values, (len(which), 1)) for name, values in starts.items()}
        seeds = np.zeros((len(which), width), np.int64)
        return self._collector.play(networks.structures, networks.numbers, which, seeds, options)


def with_velocities(seed: int, config: NEATConfig, generations: int) -> Solved | None:
    """Evolve a network that balances 100,000 steps with observed velocities; None if no generation does."""
    task = Task(DoublePoleVectorEnv, STEPS, config)
    return _evolve(task, lambda networks, best, fitness: 0 if fitness[best] >= STEPS else None, seed, config, generations)


def without_velocities(seed: int, config: NEATConfig, generations: int) -> Solved | None:
    """Evolve a network that passes both tests without observed velocities; None if no generation does."""
    task = Task(DoublePoleNoVelocityVectorEnv, GRUAU_STEPS, config, damping=1.0)
    long, general = (Task(DoublePoleNoVelocityVectorEnv, steps, config) for steps in (STEPS, GRUAU_STEPS))

    def judge(networks: Networks, best: int, fitness: np.ndarray) -> int | None:
        if long.play(networks, best).lengths[0] < STEPS:
            return None
        starts = int((general.play(networks, best, GENERALIZATION_STARTS).lengths == GRUAU_STEPS).sum())
        return starts if starts >= ENOUGH else None

    return _evolve(task, judge, seed, config, generations)


def _evolve(task: Task, judge: Callable, seed: int, config: NEATConfig, generations: int) -> Solved | None:
    """Evolve until ``judge(networks, best, fitness)`` is not None. Returns None if this takes more than ``generations`` generations."""
    evolution = Evolution(task.inputs, 1, config, seed)
    for generation in range(1, generations + 1):
        networks = evolution.networks()
        fitness = task.play(networks, np.arange(config.population)).returns
        best = int(fitness.argmax())
        starts = judge(networks, best, fitness)
        if starts is not None:
            evolution.record(fitness)
            champion = evolution.champion
            assert champion is not None
            return Solved(generation * config.population, generation, champion.hidden, champion.enabled_connections, starts)
        evolution.advance(fitness)
    return None


def table(seeds: int, velocities: bool) -> None:
    """Print the evaluations needed for a solution. A run without a solution counts with all its evaluations."""
    solve, config = (with_velocities, WITH_VELOCITIES) if velocities else (without_velocities, WITHOUT_VELOCITIES)
    generations = MOST_EVALUATIONS // config.population
    results = [solve(seed, config, generations) for seed in range(seeds)]
    found = [result for result in results if result is not None]
    evaluations = np.array([result.evaluations if result else generations * config.population for result in results])
    print(
        f"\n| two poles {'with' if velocities else 'without'} velocities, seeds | solved | evaluations, mean (median, most) "
        "| generations | hidden nodes | connections | of Gruau's 625 starts |\n|---|---|---|---|---|---|---|"
    )
    means = [
        np.mean([getattr(result, name) for result in found]) for name in ("generations", "hidden", "connections", "starts")
    ]
    starts = "" if velocities else f"{means[3]:.0f}"
    print(
        f"| {seeds} | {len(found)} | {evaluations.mean():,.0f} ({np.median(evaluations):,.0f}, {evaluations.max():,}) "
        f"| {means[0]:.1f} | {means[1]:.2f} | {means[2]:.1f} | {starts} |"
    )
