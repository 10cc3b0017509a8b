"""Evaluation over whole episodes, greedy or with sampled actions."""

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

MOST_NATIVE = 100
"""Native environments that play side by side: rows of arrays."""
MOST_OBJECTS = 8
"""Other environments that exist at once: each may be a simulator of its own."""

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
    """Undiscounted returns of episodes, greedy or, with ``sampled``, with actions drawn as in training."""

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
    sampled: bool = False

    @property
    def kind(self) -> str:
        """ "greedy" or "sampled"."""
        return "sampled" if self.sampled else "greedy"

    def remark(self) -> str:
        """A remark for the end of the line that shows the evaluation, or an empty text."""
        return f"; {self.cut_off} episodes were cut off after {EPISODE_LIMIT:,} steps" if self.cut_off else ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    agent: Agent,
    setup: Setup | str | None = None,
    episodes: int = 100,
    seed: int | None = None,
    deterministic: bool = True,
) -> Evaluation:
    """Play greedy episodes, several side by side, with seeds ``seed``, ``seed + 1``, ..., in environments of their own.

    With ``deterministic=False`` the actions are drawn as in training, from the agent's random streams, which advance.
    By default the environments are made like the agent's, and the seeds are those of the evaluation at the end of a run. Every episode
    that begins is counted: taking whatever ends first would favour short episodes. Raises Fault if the environments cannot be made
    again, EnvironmentFault if one fails.
    """
    setup = agent.setup if setup is None else choose_setup(full_id(setup)) if isinstance(setup, str) else setup
    if setup is None:
        raise Fault("the agent was made for vector environments, which cannot be made again: pass an id to evaluate in")
    seed = evaluation_seed(agent.seed) if seed is None else seed
    setup = copy_for_evaluation(setup)
    count = 1 if setup.once else min(episodes, MOST_OBJECTS if setup.native is None else MOST_NATIVE)
    envs = make_environments(setup, count)
    try:
        return play(agent, envs, episodes, seed, deterministic)
    finally:
        close_environments(envs)


def play(agent: Agent, envs: VectorEnv, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
    """Play ``episodes`` episodes, by default greedy, in vector environments, of which there are at most as many.

    Episode k has the seed ``seed + k``.
    """
    stepper = Stepper(envs, longest_episode(envs))
    count = envs.num_envs
    playing = np.arange(count)  # the episode that each environment plays, -1 for none
    begun = count
    stepper.reset(seed)
    agent.begin_episodes(np.ones(count, bool))
    returns = np.zeros(episodes)
    lengths = np.zeros(episodes, np.int64)
    cut_off = 0
    while (playing >= 0).any():
        masks = {} if stepper.action_mask is None else {"action_mask": stepper.action_mask}
        step = stepper.step(agent.act(stepper.observations, deterministic=deterministic, **masks), counted=playing >= 0)
        agent.begin_episodes(step.ended)
        seeds: list[int | None] = [None] * count
        for i in map(int, np.flatnonzero(step.ended & step.valid & (playing >= 0))):
            returns[playing[i]] = step.returns[i]
            lengths[playing[i]] = step.lengths[i]
            cut_off += int(step.cut[i])
            playing[i] = -1
            if begun < episodes:
                playing[i] = begun
                seeds[i] = seed + begun
                begun += 1
        again = np.array([given is not None for given in seeds])
        if again.any():
            stepper.reset(seeds, again)
    return Evaluation(
        float(np.mean(returns)),
        float(np.std(returns)),
        float(np.min(returns)),
        float(np.max(returns)),
        float(lengths.mean()),
        episodes,
        cut_off,
        stepper.timesteps,
        not deterministic,
    )
