"""Episodes of many networks in environments that are not native; `rl_lab.rollout.population` serves the native ones."""

from typing import Any

import numpy as np

from rl_lab.rollout.actions import OutputMapping
from rl_lab.rollout.population import Played, Population
from rl_lab.rollout.stepper import Stepper


def play(
    stepper: Stepper,
    networks: Population,
    actions: OutputMapping,
    chosen: np.ndarray,
    seeds: np.ndarray,
    numbers: dict[str, list[float]] | None = None,
    summed: bool = False,
) -> Played:
    """Play episode k with network ``chosen[k]`` in an environment reset with ``seeds[k]``; both are int64 (episodes,).

    An environment that finishes an episode begins the next one waiting. The outcome of an episode depends on its network and its seed
    alone, not on the number of environments or the order. Appends the numbers in the last info of each episode to ``numbers``, by name.
    With ``summed`` the result has the sums of the observations. Raises EnvironmentFault, naming the environment, if one fails.
    """
    total = len(chosen)
    slots = stepper.num_envs
    returns = np.zeros(total)
    lengths = np.zeros(total, np.int64)
    finals = np.zeros((total, networks.inputs), np.float32)
    sums = np.zeros((total if summed else 0, 2, networks.inputs))
    episode = np.full(slots, -1)  # the episode that each environment plays, -1 for none
    acting = networks.actors(slots)
    outputs = np.zeros((slots, networks.outputs), np.float32)
    following = 0
    while True:
        free = np.flatnonzero(episode < 0)
        begins = free[: total - following]
        if len(begins):
            episode[begins] = np.arange(following, following + len(begins))
            acting.begin(begins, chosen[episode[begins]])
            _reset(stepper, seeds[episode[begins]], begins, first=following == 0)
            following += len(begins)
        playing = episode >= 0
        if not playing.any():
            return Played(returns, lengths, finals, sums)
        acting.forward(stepper.observations, playing, outputs)
        if summed:
            for i in map(int, np.flatnonzero(playing)):
                seen = stepper.observations[i].reshape(-1).astype(np.float64)
                sums[episode[i], 0] += seen
                sums[episode[i], 1] += seen * seen
        step = stepper.step(actions(outputs, stepper.action_mask), counted=playing)
        ended = step.ended & playing
        for i, name, value in step.numbers:
            if ended[i] and numbers is not None:
                numbers.setdefault(name, []).append(value)
        returns[episode[ended]] = step.returns[ended]
        lengths[episode[ended]] = step.lengths[ended]
        finals[episode[ended]] = step.observations[ended].reshape(-1, networks.inputs)
        episode[ended] = -1


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
