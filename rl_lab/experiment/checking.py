"""Check an environment and report faults, how agents read its observations and actions, and which agents can learn in it."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import VectorEnv

from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault, ShapeError
from rl_lab.experiment.agent import find_agent, observed_in, require_numbers
from rl_lab.experiment.environments import Setup, choose_setup, faults_of_making, make_environments, make_one
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.finding import full_id
from rl_lab.experiment.vector import close_environments
from rl_lab.experiment.wrapping import seeded_globals
from rl_lab.nn.pictures import picture_of
from rl_lab.rollout import EPISODE_LIMIT, ActionMapping, Stepper, longest_episode
from rl_lab.rollout.actions import SpaceActions
from rl_lab.rollout.adapter import described, said_anew
from rl_lab.rollout.observations import ObservationMapping

STEPS = 500
"""Default number of steps with random actions."""


@dataclass
class Report:
    """Findings about an environment, as sentences."""

    facts: list[str] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)
    """Faults that allow training but should be mended."""
    failure: str = ""
    """The fault that prevents training; empty if there is none."""

    def lines(self) -> list[str]:
        """Lines of the report. The last line says whether agents can be trained."""
        mend = [f"to mend: {line}" for line in self.mend]
        if self.failure:
            return [*self.facts, *mend, f"it cannot be trained: {self.failure}"]
        return [*self.facts, *mend, "it can be trained" + ("" if mend else ", and nothing is to mend")]


def check(env: "Setup | str | Callable[[], gym.Env]", seed: int = 1, steps: int = STEPS) -> Report:
    """Take ``steps`` random steps in an environment and report on it. Faults of the environment are reported, not raised.

    ``env`` is an id, a function that makes an environment, or a `Setup`. Raises Fault for an unknown id, and for an environment object,
    of which only one exists.
    """
    report = Report()
    if isinstance(env, str):
        setup = choose_setup(full_id(env), "gymnasium")
    elif isinstance(env, Setup):
        setup = replace(env, native=None)
    elif callable(env):
        setup = Setup(getattr(env, "__name__", "the environment"), maker=env)
    else:
        raise Fault(f"check takes an id or a function that makes an environment, not {env!r}")
    try:
        with seeded_globals(seed):
            if setup.vectorization == "own":
                report.facts.append("its own vector environments, used as they are")
            else:
                _gymnasiums_checker(setup, report)
            _play(setup, seed, steps, report)
            if setup.vectorization != "own":
                _once_more(setup, report)
    except (EnvironmentFault, Fault, ShapeError) as error:
        report.failure = str(error)
    return report


@contextmanager
def _noting(report: Report) -> Iterator[None]:
    """Add the warnings that are given inside to ``report.mend``."""
    with warnings.catch_warnings(record=True) as caught, said_anew():
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = " ".join(str(warning.message).replace("\x1b[33m", "").replace("\x1b[0m", "").split()).removeprefix("WARN: ")
        if text not in report.mend:
            report.mend.append(text)


def _gymnasiums_checker(setup: Setup, report: Report) -> None:
    """Run Gymnasium's checker on the environment without its wrappers."""
    with faults_of_making(setup):
        env = make_one(replace(setup, wrapper=(), preprocess=()), 0, adapted=False)
    try:
        with _noting(report):
            check_env(env.unwrapped, skip_render_check=True)
        report.facts.append("Gymnasium's checker: passed")
    except FOREIGN_ERRORS as error:
        report.facts.append("Gymnasium's checker: failed")
        report.mend.append(f"Gymnasium's checker: {first_line(error)}")
    try:
        env.close()
    except FOREIGN_ERRORS as error:
        report.mend.append(f"close() raised {described(error)}")


def _play(setup: Setup, seed: int, steps: int, report: Report) -> None:
    """Take ``steps`` random steps twice from the same seed, and report the episodes and any difference."""
    with _noting(report):
        envs = make_environments(setup, 1)
    try:
        _describe(envs, setup, report)
        with _noting(report):
            first = _episodes(envs, seed, steps)
            again = _episodes(envs, seed, steps)
        report.facts += first.facts(longest_episode(envs))
        if first.trace != again.trace:
            report.mend.append("two runs from the same seed differ: draw random numbers from self.np_random only")
    finally:
        close_environments(envs)


@dataclass
class _Played:
    """Results of random steps in one environment."""

    steps: int
    seconds: float
    returns: list[float]
    lengths: list[int]
    rewards: tuple[float, float]
    masked: bool
    trace: list[bytes]
    """Observations and reward of each step, to compare runs."""

    def facts(self, limit: int | None) -> list[str]:
        """Sentences about the episodes; ``limit`` as returned by `longest_episode`."""
        rate = self.steps / max(self.seconds, 1e-9)
        lines = [f"{self.steps} random steps: {rate:,.0f} a second, rewards from {self.rewards[0]:g} to {self.rewards[1]:g}"]
        if self.returns:
            mean, length = np.mean(self.returns), np.mean(self.lengths)
            lines.append(f"{len(self.returns)} episodes ended, of {length:.0f} steps and a return of {mean:.1f} on average")
        else:
            lines.append("no episode ended")
        if limit == EPISODE_LIMIT:
            lines.append(f"no time limit is registered: an evaluation truncates episodes after {limit:,} steps")
        lines.append("it gives action masks" if self.masked else "it gives no action masks: every action is allowed")
        return lines


def _episodes(envs: VectorEnv, seed: int, steps: int) -> _Played:
    """Take ``steps`` random steps; actions and environments depend on ``seed`` alone."""
    stepper = Stepper(envs)
    stepper.reset(seed)
    draw = np.random.default_rng(seed)
    trace = [np.asarray(stepper.observations).tobytes()]
    returns: list[float] = []
    lengths: list[int] = []
    least, most = np.inf, -np.inf
    begin = time.perf_counter()
    for _ in range(steps):
        step = stepper.step(_random_actions(stepper, draw))
        trace.append(step.observations.tobytes() + step.rewards.tobytes())
        least, most = min(least, step.rewards.min()), max(most, step.rewards.max())
        for i in np.flatnonzero(step.ended & step.valid & ~np.isnan(step.scores)):
            returns.append(float(step.scores[i]))
            lengths.append(int(step.score_lengths[i]))
    seconds = time.perf_counter() - begin
    return _Played(steps, seconds, returns, lengths, (least, most), stepper.action_mask is not None, trace)


def _random_actions(stepper: Stepper, draw: np.random.Generator) -> SpaceActions:
    """Draw allowed actions of the space for a batch of environments, uniformly."""
    mapping, n = stepper.mapping, stepper.num_envs
    allowed = stepper.action_mask if stepper.action_mask is not None else np.ones((n, mapping.num_masked), bool)
    chosen = []
    first = 0
    for count in mapping.choices:
        chosen.append(np.where(allowed[:, first : first + count], draw.random((n, count)), -1.0).argmax(1))
        first += count
    components = draw.uniform(-1.0, 1.0, (n, mapping.size)).astype(np.float32)
    choices = np.stack(chosen, 1) if chosen else np.zeros((n, 0), np.int64)
    scaled = np.clip(mapping.centre + mapping.radius * components, mapping.low, mapping.high)
    return mapping.assemble(choices, scaled)


def _describe(envs: VectorEnv, setup: Setup, report: Report) -> None:
    """Report how agents read observations and actions, and which agents accept them. Raises Fault if observations are not a Box."""
    space = envs.single_observation_space
    mapping: ObservationMapping = envs.observation_mapping  # type: ignore[attr-defined]
    if not isinstance(space, Box):
        raise Fault(f"observations must be a Box, not {space}: wrap each environment in FlattenObservation")
    flattened = "" if mapping.is_identity else f", flattened to {int(np.prod(space.shape))} numbers"
    report.facts.append(f"observations: {' '.join(str(mapping.space).split())[:200]}{flattened}")
    observed = observed_in(space, setup)
    if not observed.is_float:
        scale = ", divided by 255 in the network" if observed.scale != 1.0 else ""
        report.facts.append(f"kept as {space.dtype}{scale}")
    if len(observed.shape) - (observed.frames > 1) in (2, 3):
        try:
            report.facts.append(f"{picture_of(observed)}: --network cnn:16:128 takes them, as nature does if they are large")
        except ShapeError as error:
            report.mend.append(f"for a convolutional network, {error}")
    action_space = envs.single_action_space
    require_numbers(setup.env_id, space, action_space)
    actions = ActionMapping(action_space)
    parts = [f"choices of {', '.join(map(str, actions.choices))}"] if actions.choices else []
    parts += [f"{actions.size} continuous components"] if actions.size else []
    report.facts.append(f"actions: {' '.join(str(action_space).split())[:200]}: {' and '.join(parts)}")
    able = []
    for entry in sorted(entry_points(group="rl_lab.agents"), key=lambda entry: entry.name):
        try:
            find_agent(entry.name).check_spaces(setup.env_id, space, action_space)
            able.append(entry.name)
        except Fault:
            continue  # this agent cannot learn in the environment
    report.facts.append(f"agents that take it: {', '.join(able)}")


def _once_more(setup: Setup, report: Report) -> None:
    """Report if two environments cannot be open at once."""
    opened: list[gym.Env] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for index in range(2):
                opened.append(make_one(setup, index))
    except FOREIGN_ERRORS as error:
        report.facts.append(f"only one can be open at a time, so --num-envs 1: {first_line(error)}")
    finally:
        for env in opened:
            env.close()
