"""Evaluate agents over whole episodes, with greedy or sampled actions."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

import rl_lab as rl
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import (
    AbsentEnvironments,
    Maker,
    Setup,
    copy_for_evaluation,
    make_environments,
    open_environments,
    setup_of,
)
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.vector import SerialVectorEnv, close_environments
from rl_lab.experiment.wrapping import seeded_globals
from rl_lab.rollout import EPISODE_LIMIT, Stepper, longest_episode
from rl_lab.rollout.stepper import name_of

MOST_NATIVE = 100
"""Most native environments that play side by side."""
MOST_OBJECTS = 8
"""Most other environments that play side by side: each may be a large simulator."""

MOST_STEPS = 200_000
"""Environment steps after which no further episode of an evaluation begins."""
SILENCE = 2.0
"""Seconds after which an evaluation reports its progress for the first time."""

# Seeds of one evaluation. Final evaluations share no seeds with training, with evaluations of other runs, or with the evaluations that
# decide when to stop, so results of several runs are independent.
_EPISODES = 1_000_000


def evaluation_seed(seed: int) -> int:
    """Seed of the first episode in the final evaluation of a run with ``seed``. All seeds of the evaluation are below 2**32."""
    return _first_seed(2 * seed + 1)


def validation_seed(seed: int) -> int:
    """Seed of the first episode in the evaluations that decide when a run with ``seed`` stops and which state is the best."""
    return _first_seed(2 * seed + 2)


def _first_seed(number: int) -> int:
    """First seed of block ``number``, a million seeds. Many environments take seeds of 32 bits only, so large numbers are hashed."""
    first = number * _EPISODES
    if first + _EPISODES <= 2**32:
        return first
    return int(np.random.SeedSequence(number).generate_state(1)[0]) % (2**32 - 2 * _EPISODES)


@dataclass(frozen=True)
class Evaluation:
    """Statistics of undiscounted returns of whole episodes, or of scores in environments that keep scores."""

    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    length_mean: float
    episodes: int
    cut_off: int = 0
    """Episodes truncated after `EPISODE_LIMIT` steps, in environments without a time limit."""
    steps: int = 0
    """Environment steps in all environments."""
    asked: int = 0
    """Number of episodes requested, if the limit of steps ended the evaluation earlier; else 0."""
    sampled: bool = False
    """Whether the actions were sampled; otherwise they were greedy."""

    def remark(self) -> str:
        """End of the line that reports the evaluation: truncated episodes and episodes left out. Empty if there are none."""
        cut = f"; {self.cut_off} episodes were cut off after {EPISODE_LIMIT:,} steps" if self.cut_off else ""
        ended = f"; no more of the {self.asked} episodes began after {self.steps:,} steps" if self.asked else ""
        return cut + ended

    @property
    def kind(self) -> str:
        """How the actions were chosen: "greedy" or "sampled"."""
        return "sampled" if self.sampled else "greedy"

    def as_dict(self) -> dict[str, float | int | bool]:
        """Fields by name."""
        return asdict(self)


def evaluate(
    agent: Agent,
    setup: "Setup | str | gym.Env | Maker | VectorEnv | None" = None,
    episodes: int = 100,
    seed: int | None = None,
    deterministic: bool = True,
    *,
    most_steps: int = MOST_STEPS,
    say: Callable[[str], None] | None = None,
    render: bool = False,
) -> Evaluation:
    """Play episodes with seeds ``seed``, ``seed + 1``, ..., several side by side, in new environments.

    ``setup`` is an id, an environment object, which is copied, a function that makes one, a `Setup`, or vector environments, which are
    reset and stay open.
    By default the environments are made like the agent's, and ``seed`` is `evaluation_seed` of the agent's seed. No episode begins after
    ``most_steps`` environment steps. Every episode that has begun is played to its end and counted: to stop after the first ones that
    end would favour short episodes. Actions are greedy, or sampled as in training if not ``deterministic``. The agent's random streams
    do not change. ``say`` is called with a line of progress about every ten seconds. With
    ``render``, one environment plays all episodes in a window, as fast as its own clock allows.

    Raises Fault if the environments cannot be made or have other spaces than the agent's, EnvironmentFault if one fails.
    """
    if setup is None and agent.setup is None:
        how = "loaded without its environment" if isinstance(agent.envs, AbsentEnvironments) else "made for vector environments"
        raise Fault(f"the agent was {how}, which cannot be made again: pass the environment, as in evaluate(agent, env)")
    for name, number, least in (("episodes", episodes, 1), ("seed", 0 if seed is None else seed, 0)):
        if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < least:
            raise Fault(f"{name} must be an integer of at least {least}, got {number!r}")
    seed = evaluation_seed(agent.seed) if seed is None else seed
    if isinstance(setup, VectorEnv):
        if render:
            raise Fault("vector environments cannot be rendered: pass an id, or a function that makes one environment")
        given, _ = open_environments(setup)
        _require_spaces(agent, given, name_of(given))
        with seeded_globals(seed):
            return play(agent, given, episodes, seed, deterministic=deterministic, most_steps=most_steps, say=say)
    setup = copy_for_evaluation(agent.setup if setup is None else setup_of(setup))  # type: ignore[arg-type]
    if render:
        setup = replace(setup, native=None, render=True)
    count = 1 if setup.once or render else min(episodes, MOST_OBJECTS if setup.native is None else MOST_NATIVE)
    with seeded_globals(seed):
        envs = make_environments(setup, count, or_fewer=True)
        try:
            _require_spaces(agent, envs, setup.env_id)
            return play(agent, envs, episodes, seed, deterministic=deterministic, most_steps=most_steps, say=say)
        finally:
            close_environments(envs)


def _require_spaces(agent: Agent, envs: VectorEnv, name: str) -> None:
    """Raise Fault unless the agent can act in these environments: same actions, observations of the same shape and dtype."""
    theirs, own = envs.single_observation_space, agent.envs.single_observation_space
    if (theirs.shape, theirs.dtype) != (own.shape, own.dtype) or envs.single_action_space != agent.space:
        raise Fault(
            f"the agent acts on {own} with {agent.space}, and {name} has {theirs} and {envs.single_action_space}: "
            "evaluate it where the spaces are the same"
        )


def play(
    agent: Agent,
    envs: VectorEnv,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    *,
    most_steps: int = MOST_STEPS,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """Play ``episodes`` episodes in vector environments; episode k has the seed ``seed + k``. See `evaluate` for the other arguments.

    Vector environments of other packages cannot seed one environment alone: only their first episodes have these seeds.
    Raises EnvironmentFault if an environment fails.
    """
    streams = [value for value in vars(agent).values() if isinstance(value, rl.Generator)]
    kept = [stream.get_state() for stream in streams]
    try:
        if not deterministic:
            for i, stream in enumerate(streams):
                stream.set_state(rl.Generator(seed + i).get_state())
        return _play(agent, envs, episodes, seed, deterministic, most_steps, say)
    finally:
        for stream, state in zip(streams, kept, strict=True):
            stream.set_state(state)


def _play(
    agent: Agent,
    envs: VectorEnv,
    episodes: int,
    seed: int,
    deterministic: bool,
    most_steps: int,
    say: Callable[[str], None] | None,
) -> Evaluation:
    """Play the episodes for `play`."""
    ours = isinstance(envs, (SerialVectorEnv, NativeVectorEnv))  # these can stop and reseed single environments
    limit = longest_episode(envs)
    stepper = Stepper(envs, limit if ours else None)
    count = envs.num_envs
    playing = np.arange(count)  # number of the episode that each environment plays, -1 for none
    playing[episodes:] = -1
    begun = min(count, episodes)
    stepper.reset(seed)
    agent.begin_episodes(np.ones(count, bool))
    returns: dict[int, float] = {}
    lengths: dict[int, int] = {}
    cut_off = steps = 0
    next_line = time.monotonic() + SILENCE
    while (playing >= 0).any():
        masks = {} if stepper.action_mask is None else {"action_mask": stepper.action_mask}
        if ours:
            envs.awake = playing >= 0  # type: ignore[attr-defined]
        step = stepper.step(agent.act(stepper.observations, deterministic=deterministic, **masks), counted=playing >= 0)
        steps += int((playing >= 0).sum())
        agent.begin_episodes(step.ended)
        over = step.ended & ~np.isnan(step.scores)
        late = (step.score_lengths >= limit) & ~over if limit is not None else np.zeros(count, bool)
        seeds: list[int | None] = [None] * count
        for i in map(int, np.flatnonzero((over | late) & step.valid & (playing >= 0))):
            returns[playing[i]] = step.returns[i] if late[i] else step.scores[i]
            lengths[playing[i]] = step.score_lengths[i]
            cut_off += int(step.cut[i] or late[i])
            playing[i] = -1
            if begun < episodes and steps < most_steps and not late[i]:
                playing[i] = begun
                seeds[i] = seed + begun
                begun += 1
        again = np.array([given is not None for given in seeds])
        if ours and again.any():
            stepper.reset(seeds, again)
        if say is not None and time.monotonic() > next_line:
            next_line = time.monotonic() + 10.0
            say(f"evaluating: {len(returns)} of {episodes} episodes are over, {steps:,} steps")
    found = np.array([returns[k] for k in sorted(returns)])
    return Evaluation(
        float(np.mean(found)),
        float(np.std(found)),
        float(np.min(found)),
        float(np.max(found)),
        float(np.mean([lengths[k] for k in sorted(lengths)])),
        len(found),
        cut_off,
        steps,
        episodes if len(found) < episodes else 0,
        not deterministic,
    )
