"""Greedy evaluation over whole episodes."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import (
    Setup,
    choose_setup,
    close_environments,
    copy_for_evaluation,
    full_id,
    make_environments,
)
from rl_lab.experiment.faults import Fault
from rl_lab.rollout import EPISODE_LIMIT, Stepper, longest_episode

MOST_ENVIRONMENTS = 100

# The seeds of final evaluations differ from those of training, of other runs' evaluations and of decisions to stop, so that a table over
# seeds is a mean of independent figures.
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
    steps: int = 0
    """Environment steps taken, in all environments."""

    def remark(self) -> str:
        """A remark for the end of the line that shows the evaluation, or an empty text."""
        return f"; {self.cut_off} episodes were cut off after {EPISODE_LIMIT:,} steps" if self.cut_off else ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(agent: Agent, setup: Setup | str | None = None, episodes: int = 100, seed: int | None = None) -> Evaluation:
    """Play greedy episodes side by side, with seeds ``seed``, ``seed + 1``, ..., in environments of their own.

    By default the environments are made like the agent's, and the seeds are those of the evaluation at the end of a run. The number
    of episodes of each environment is fixed in advance: taking whatever ends first would favour short episodes. Raises Fault if the
    environments cannot be made again, EnvironmentFault if one fails.
    """
    setup = agent.setup if setup is None else choose_setup(full_id(setup)) if isinstance(setup, str) else setup
    if setup is None:
        raise Fault("the agent was made for vector environments, which cannot be made again: pass an id to evaluate in")
    seed = evaluation_seed(agent.seed) if seed is None else seed
    setup = copy_for_evaluation(setup)
    count = 1 if setup.once else min(episodes, MOST_ENVIRONMENTS)
    envs = make_environments(setup, count)
    try:
        return play(agent, envs, episodes, seed)
    finally:
        close_environments(envs)


def play(agent: Agent, envs: VectorEnv, episodes: int, seed: int) -> Evaluation:
    """Play ``episodes`` greedy episodes in vector environments."""
    stepper = Stepper(envs, longest_episode(envs))
    count = envs.num_envs
    quota = np.full(count, episodes // count)
    quota[: episodes % count] += 1
    stepper.reset(seed)
    agent.begin_episodes(np.ones(count, bool))
    returns: list[float] = []
    lengths: list[int] = []
    cut_off = 0
    while quota.any():
        masks = {} if stepper.action_mask is None else {"action_mask": stepper.action_mask}
        step = stepper.step(agent.act(stepper.observations, deterministic=True, **masks), counted=quota > 0)
        agent.begin_episodes(step.ended)
        for i in np.flatnonzero(step.ended & step.valid & (quota > 0)):
            quota[i] -= 1
            returns.append(float(step.returns[i]))
            lengths.append(int(step.lengths[i]))
            cut_off += int(step.cut[i])
    return Evaluation(
        float(np.mean(returns)),
        float(np.std(returns)),
        float(np.min(returns)),
        float(np.max(returns)),
        sum(lengths) / len(lengths),
        len(returns),
        cut_off,
        stepper.timesteps,
    )
