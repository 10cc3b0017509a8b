"""Episodes of networks in environments: what a network's outputs mean as actions, and many episodes side by side."""

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import VectorEnv

from agents.neat import phenotypes
from agents.neat.networks import Networks
from rl_lab.engine.errors import EnvironmentFault

# where the outputs of an activation end; the others are clipped to the action space
_RANGES = {
    **dict.fromkeys(("sigmoid", "steepened_sigmoid", "step", "gauss", "sech"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "sin", "sign", "clamped"), (-1.0, 1.0)),
}


class Actions:
    """How the outputs of a network become actions.

    Discrete: the largest output. MultiDiscrete: the largest of each group. Box: where the output activation and the space have
    bounds, one is stretched to the other; else the output is clipped to the space.
    """

    def __init__(self, space: Any, output_activation: str):
        self.space = space
        if isinstance(space, Discrete):
            self.outputs = int(space.n)
        elif isinstance(space, MultiDiscrete):
            self._ends = np.cumsum(space.nvec.ravel())
            self.outputs = int(self._ends[-1])
        elif isinstance(space, Box):
            self.outputs = int(np.prod(space.shape))
            self._low, self._high = (np.asarray(bound, np.float32).ravel() for bound in (space.low, space.high))
            first, last = _RANGES.get(output_activation, (0.0, 0.0))
            self._stretched = np.isfinite(self._low) & np.isfinite(self._high) & (last > first)
            self._offset = np.where(self._stretched, self._low, 0.0).astype(np.float32)
            width = np.where(self._stretched, self._high, 0.0) - self._offset
            self._scale = np.where(self._stretched, width / ((last - first) or 1.0), 1.0).astype(np.float32)
            self._first = np.where(self._stretched, first, 0.0).astype(np.float32)
        else:
            raise ValueError(f"networks cannot act in {space}: they take Discrete, MultiDiscrete and Box")

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Actions (batch, ...) of outputs (batch, outputs)."""
        if isinstance(self.space, Discrete):
            return outputs.argmax(1) + self.space.start
        if isinstance(self.space, MultiDiscrete):
            parts = np.split(outputs, self._ends[:-1], axis=1)
            chosen = np.stack([part.argmax(1) for part in parts], 1).reshape(len(outputs), *self.space.shape)
            return chosen + self.space.start
        values = np.clip(self._offset + (outputs - self._first) * self._scale, self._low, self._high)
        return values.reshape(len(outputs), *self.space.shape)


class Played(NamedTuple):
    """What came of a list of episodes, in its order."""

    returns: np.ndarray
    """float64 (episodes,), undiscounted."""
    lengths: np.ndarray
    """int64 (episodes,)."""
    final_observations: np.ndarray
    """float32 (episodes, inputs), flattened: a behaviour for novelty search."""


def play(envs: VectorEnv, networks: Networks, actions: Actions, genomes: np.ndarray, seeds: np.ndarray) -> Played:
    """Episode k: network genomes[k] in an environment that begins with seeds[k].

    The environments take up the next episode as they become free. What comes of an episode depends on its network and its seed
    alone, so neither on how many environments there are nor on the order. They must reset themselves in the step that ends an
    episode.
    """
    total, slots, inputs = len(genomes), envs.num_envs, networks.inputs
    returns, lengths = np.zeros(total), np.zeros(total, np.int64)
    finals = np.zeros((total, inputs), np.float32)
    episode = np.full(slots, -1)
    chosen = np.full(slots, -1)
    states = np.zeros((slots, networks.state_size), np.float32)
    outputs = np.zeros((slots, networks.outputs), np.float32)
    free, following = np.ones(slots, bool), 0
    reset: Any = envs.reset  # Gymnasium's annotation leaves out the list of seeds that its vector environments take
    observations: Any = None
    while True:
        if free.any():
            begins = np.flatnonzero(free)[: total - following]
            episode[free], chosen[free] = -1, -1
            episode[begins] = np.arange(following, following + len(begins))
            following += len(begins)
            if not (episode >= 0).any():
                return Played(returns, lengths, finals)
            chosen[begins] = genomes[episode[begins]]
            states[begins] = 0.0
            if observations is None:
                given: list[Any] = [int(seeds[min(k, total - 1)]) for k in range(slots)]
                observations, _ = reset(seed=given)
            elif len(begins):
                given = [None] * slots
                for k in begins:
                    given[k] = int(seeds[episode[k]])
                mask = np.zeros(slots, bool)
                mask[begins] = True
                observations, _ = reset(seed=given, options={"reset_mask": mask})
        x = np.ascontiguousarray(observations, np.float32).reshape(slots, inputs)
        phenotypes.forward_each(networks.structures, networks.numbers, chosen, x, states, outputs)
        observations, rewards, terminated, truncated, info = envs.step(actions(outputs))
        playing = episode >= 0
        if not np.isfinite(rewards[playing]).all():
            bad = int(np.flatnonzero(playing & ~np.isfinite(rewards))[0])
            raise EnvironmentFault(
                f"{envs.spec.id if envs.spec else 'an environment'} (seed {seeds[episode[bad]]}) returned a reward of {rewards[bad]}"
            )
        returns[episode[playing]] += rewards[playing]
        lengths[episode[playing]] += 1
        ended = terminated | truncated
        for k in np.flatnonzero(ended & playing):
            finals[episode[k]] = np.asarray(info["final_obs"][k], np.float32).ravel()
        free = ended | ~playing if following < total else ended & playing
        if following >= total:
            episode[free], chosen[free] = -1, -1
            free = np.zeros(slots, bool) if (episode >= 0).any() else np.ones(slots, bool)
