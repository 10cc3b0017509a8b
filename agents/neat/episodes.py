"""Episodes of evolved networks in environments that are not native; `rl_lab.rollout.population` serves the native ones."""

from typing import Any

import numpy as np

from rl_lab.agents.neat import phenotypes
from rl_lab.agents.neat.networks import Networks
from rl_lab.rollout import OutputMapping, Stepper
from rl_lab.rollout.population import Played


def play(
    stepper: Stepper,
    networks: Networks,
    actions: OutputMapping,
    genomes: np.ndarray,
    seeds: np.ndarray,
    numbers: dict[str, list[float]] | None = None,
) -> Played:
    """Play episode k with network ``genomes[k]`` in an environment reset with ``seeds[k]``; both are int64 (episodes,).

    An environment that finishes an episode begins the next one waiting. The outcome of an episode depends on its network and its seed
    alone, not on the number of environments or the order. Appends the numbers in the last info of each episode to ``numbers``, by name.
    Raises EnvironmentFault, naming the environment, if one fails.
    """
    total = len(genomes)
    slots = stepper.num_envs
    returns = np.zeros(total)
    lengths = np.zeros(total, np.int64)
    finals = np.zeros((total, networks.inputs), np.float32)
    episode = np.full(slots, -1)  # the episode that each environment plays, -1 for none
    chosen = np.full(slots, -1)
    states = np.zeros((slots, networks.state_size), np.float32)
    outputs = np.zeros((slots, networks.outputs), np.float32)
    following = 0
    while True:
        free = np.flatnonzero(episode < 0)
        begins = free[: total - following]
        if len(begins):
            episode[begins] = np.arange(following, following + len(begins))
            chosen[begins] = genomes[episode[begins]]
            states[begins] = 0.0
            _reset(stepper, seeds[episode[begins]], begins, first=following == 0)
            following += len(begins)
        playing = episode >= 0
        if not playing.any():
            return Played(returns, lengths, finals)
        x = np.ascontiguousarray(stepper.observations, np.float32).reshape(slots, networks.inputs)
        phenotypes.forward_each(networks.structures, networks.numbers, chosen, x, states, outputs)
        step = stepper.step(actions(outputs, stepper.action_mask), counted=playing)
        ended = step.ended & playing
        for i, name, value in step.numbers:
            if ended[i] and numbers is not None:
                numbers.setdefault(name, []).append(value)
        returns[episode[ended]] = step.returns[ended]
        lengths[episode[ended]] = step.lengths[ended]
        finals[episode[ended]] = step.observations[ended].reshape(-1, networks.inputs)
        episode[ended] = -1
        chosen[ended] = -1


def _reset(stepper: Stepper, seeds: np.ndarray, begins: np.ndarray, first: bool) -> None:
    """Begin episodes in the environments ``begins``; the ``first`` call resets all environments."""
    given: list[Any] = [None] * stepper.num_envs
    for i, seed in zip(begins, seeds, strict=True):
        given[i] = int(seed)
    if first:
        stepper.reset([int(seeds[-1]) if seed is None else seed for seed in given])
        return
    mask = np.zeros(stepper.num_envs, bool)
    mask[begins] = True
    stepper.reset(given, mask)
