"""Episodes of networks in environments of any kind, many side by side; native ones have `rl_lab.rollout.population`."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rl_lab.agents.neat import phenotypes
from rl_lab.agents.neat.networks import Networks
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.rollout.collector import mask_after_step, mask_of, name_of, not_finite
from rl_lab.rollout.population import Actions, Played


def play(
    envs: VectorEnv,
    networks: Networks,
    actions: Actions,
    genomes: np.ndarray,
    seeds: np.ndarray,
    limit: int | None = None,
) -> Played:
    """Episode k: network genomes[k] in an environment that begins with seeds[k].

    The environments take up the next episode as they become free. What comes of an episode depends on its network and its seed
    alone, so neither on how many environments there are nor on the order. They must reset themselves in the step that ends an
    episode. After ``limit`` steps an episode is cut off.
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
    allowed: np.ndarray | None = None
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
                observations, info = reset(seed=given)
                allowed = mask_of(info, envs)
            elif len(begins):
                given = [None] * slots
                for k in begins:
                    given[k] = int(seeds[episode[k]])
                mask = np.zeros(slots, bool)
                mask[begins] = True
                observations, info = reset(seed=given, options={"reset_mask": mask})
                allowed = mask_of(info, envs, allowed)
        x = np.ascontiguousarray(observations, np.float32).reshape(slots, inputs)
        phenotypes.forward_each(networks.structures, networks.numbers, chosen, x, states, outputs)
        observations, rewards, terminated, truncated, info = envs.step(actions(outputs, allowed))
        allowed = mask_after_step(info, envs, allowed)
        playing = episode >= 0
        strange = not_finite(np.asarray(observations)[playing], rewards[playing])
        if strange is not None:
            index, what = strange
            raise EnvironmentFault(f"{name_of(envs)} (seed {seeds[episode[playing][index]]}) returned {what}")
        returns[episode[playing]] += rewards[playing]
        lengths[episode[playing]] += 1
        ended = terminated | truncated
        for k in np.flatnonzero(ended & playing):
            finals[episode[k]] = np.asarray(info["final_obs"][k], np.float32).ravel()
        if limit is not None:
            cut = playing & ~ended & (lengths[episode] >= limit)
            finals[episode[cut]] = np.asarray(observations, np.float32)[cut].reshape(-1, inputs)
            ended = ended | cut
        free = ended | ~playing if following < total else ended & playing
        if following >= total:
            episode[free], chosen[free] = -1, -1
            free = np.zeros(slots, bool) if (episode >= 0).any() else np.ones(slots, bool)
