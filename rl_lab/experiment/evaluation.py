"""Greedy evaluation over whole episodes."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rl_lab.experiment.environments import Setup, make_environments
from rl_lab.rollout.collector import EPISODE_LIMIT, longest_episode, mask_after_step, mask_of

MOST_ENVIRONMENTS = 100

# Episodes of evaluation have seeds that no training, no other run's evaluation and no decision to stop has: a table over seeds is a mean of
# independent figures.
_EPISODES = 1_000_000


def evaluation_seed(seed: int) -> int:
    """The seed of the first episode of the evaluation that a run of ``seed`` reports."""
    return (2 * seed + 1) * _EPISODES


def validation_seed(seed: int) -> int:
    """The seed of the first episode of the evaluations by which a run of ``seed`` stops and keeps its best."""
    return (2 * seed + 2) * _EPISODES


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns of greedy episodes."""

    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    length_mean: float
    episodes: int
    cut_off: int = 0
    """Episodes that were cut off after `EPISODE_LIMIT` steps: the environment has no time limit of its own."""

    def remark(self) -> str:
        """What else has to be said in a line on it."""
        return f"; {self.cut_off} episodes were cut off after {EPISODE_LIMIT:,} steps" if self.cut_off else ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(agent: Any, setup: Setup | str, episodes: int, seed: int) -> Evaluation:
    """Run ``episodes`` greedy episodes side by side from seeds ``seed``, ``seed + 1``, ...

    Each environment runs a number of episodes fixed in advance: taking whatever ends first would favour short episodes.
    """
    if isinstance(setup, Setup):
        setup = replace(setup, vectorization="sync")
    count = min(episodes, MOST_ENVIRONMENTS)
    quota = np.full(count, episodes // count)
    quota[: episodes % count] += 1
    envs = make_environments(setup, count)
    try:
        observations, info = envs.reset(seed=seed)
        begin_episodes = getattr(agent, "begin_episodes", None)  # of agents that remember
        if begin_episodes is not None:
            begin_episodes(np.ones(count, bool))
        mask, limit = mask_of(info, envs), longest_episode(envs)
        running, lengths = np.zeros(count), np.zeros(count, np.int64)
        returns: list[float] = []
        steps = cut_off = 0
        while quota.any():
            masks = {} if mask is None else {"action_mask": mask}
            actions = agent.act(observations, deterministic=True, **masks)
            observations, rewards, terminated, truncated, info = envs.step(actions)
            mask = mask_after_step(info, envs, mask)
            running += rewards
            lengths += 1
            ended = terminated | truncated
            if limit is not None and (cut := ~ended & (lengths >= limit)).any():
                observations, info = envs.reset(options={"reset_mask": cut})
                mask = mask_of(info, envs, mask)
                cut_off += int((cut & (quota > 0)).sum())
                ended = ended | cut
            if begin_episodes is not None:
                begin_episodes(ended)
            for i in np.flatnonzero(ended):
                if quota[i]:
                    quota[i] -= 1
                    returns.append(float(running[i]))
                    steps += int(lengths[i])
                running[i], lengths[i] = 0.0, 0
    finally:
        envs.close()
    return Evaluation(
        float(np.mean(returns)),
        float(np.std(returns)),
        float(np.min(returns)),
        float(np.max(returns)),
        steps / len(returns),
        len(returns),
        cut_off,
    )
