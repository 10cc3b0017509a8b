"""Check the results of a single environment and convert them to the form that vector environments and the stepper need.

Environments of users deviate from Gymnasium's interface in many small ways. A deviation whose meaning is clear is accepted, with one
warning that names what to mend. Any other deviation raises an EnvironmentFault that says what was returned and what to return instead.

Results of a user's environment may be of any type until they are checked: that is why parameters here have the type Any.
"""

import inspect
import linecache
import math
import multiprocessing
import numbers
import random
import re
import sysconfig
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, iterate

import rl_lab
from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault, EnvironmentWarning
from rl_lab.rollout.actions import mask_row, options_of
from rl_lab.rollout.observations import MASK, ObservationMapping, conform, out_of_bounds

BOUNDS_CHECKED = 1_000
"""Number of observations of an environment that are compared with the bounds of their space."""
RANDOM_CHECKED = 20
"""Number of calls of an environment after which the states of the global random streams are compared."""
MOST_NUMBERS = 100
"""Largest number of values that are logged from the info of an episode's last step."""

EPISODE = "episode"
"""Name under which Gymnasium's RecordEpisodeStatistics reports return, length and time."""
SCORE = "rl_lab/episode"
"""Key of the RecordEpisodeStatistics that rl_lab adds below all wrappers; `EPISODE` may belong to one that the user added."""

_said: set[str] = set()


def warn_once(message: str) -> None:
    """Give an `EnvironmentWarning`, unless this process has given it before: all copies of an environment cause the same warning."""
    if message not in _said:
        _said.add(message)
        warnings.warn(message, EnvironmentWarning, stacklevel=2)


@contextmanager
def said_anew() -> Iterator[None]:
    """Context in which `warn_once` repeats warnings that this process has given before."""
    before = set(_said)
    _said.clear()
    try:
        yield
    finally:
        _said.update(before)


class Checked(gym.Wrapper):
    """Converts rewards, flags and infos of an environment to one form, and names the environment if it fails.

    Rewards are floats, flags are bools, infos are dicts. Observations are left as they are. ``index`` is the number of this environment
    among several.
    """

    def __init__(self, env: gym.Env, index: int = 0):
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._steps = 0
        self._name = env.spec.id if env.spec else type(env.unwrapped).__name__

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; returns (observation, info). Raises EnvironmentFault if the environment fails or returns something else."""
        self._seed = self._seed if seed is None else seed
        self._steps = 0
        try:
            result: Any = self.env.reset(seed=seed, options=options)
        except FOREIGN_ERRORS as error:
            raise self._failure(error, "reset") from error
        if isinstance(result, list) and len(result) == 2 and isinstance(result[1], Mapping):
            result = tuple(result)
        if not isinstance(result, tuple) or len(result) != 2 or not _may_be_info(result[1]):
            raise self._fault(_old_reset(result))
        return result[0], self._info(result[1])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; returns (observation, reward, terminated, truncated, info).

        Raises EnvironmentFault if the environment fails or returns something else.
        """
        self._steps += 1
        try:
            result: Any = self.env.step(action)
        except FOREIGN_ERRORS as error:
            raise self._failure(error, "step") from error
        if not isinstance(result, (tuple, list)) or len(result) != 5:
            raise self._fault(_old_step(result))
        observation, reward, terminated, truncated, info = result
        reward = reward if type(reward) is float else self._reward(reward)
        terminated = terminated if type(terminated) is bool else self._flag(terminated, "terminated")
        truncated = truncated if type(truncated) is bool else self._flag(truncated, "truncated")
        info = info if type(info) is dict else self._info(info)
        return observation, reward, terminated, truncated, info

    def _reward(self, reward: Any) -> float:
        """Convert a reward to float. Raises EnvironmentFault unless it is one real number."""
        if isinstance(reward, (int, float, np.number, np.bool_)) and not np.iscomplexobj(reward):
            return _as_float(reward)
        if isinstance(reward, np.ndarray) and reward.dtype == object and reward.size == 1:
            reward = reward.item()
        if isinstance(reward, (numbers.Real, Decimal)):
            self._warn(f"step() returns a reward of type {type(reward).__name__}: return a float")
            return _as_float(reward)
        found = _array(reward)
        if found is None or found.size != 1:
            shape = "" if found is None or not found.shape else f" of shape {found.shape}"
            raise self._fault(
                f"step() returned {type(reward).__name__}{shape} as the reward: return one number, such as a float"
            )
        self._warn(f"step() returns a reward of shape {found.shape}: return a float")
        return float(found.ravel()[0])

    def _flag(self, flag: Any, name: str) -> bool:
        """Convert ``terminated`` or ``truncated`` to bool. Raises EnvironmentFault unless it is one value or None."""
        if isinstance(flag, np.bool_):
            return bool(flag)
        found = _array(flag)
        if flag is not None and (found is None or found.size != 1):
            shape = "" if found is None else f" of shape {found.shape}"
            raise self._fault(f"step() returned {type(flag).__name__}{shape} as {name}: return True or False")
        self._warn(f"step() returns {type(flag).__name__} as terminated or truncated: return True or False")
        return False if found is None else bool(found.ravel()[0])

    def _info(self, info: Any) -> dict[str, Any]:
        """Return an info, {} for None. Raises EnvironmentFault unless it is a dict or another mapping."""
        if info is None:
            self._warn("info is None: return a dict, {} if there is nothing to say")
            return {}
        if not isinstance(info, Mapping):
            raise self._fault(f"the info is {type(info).__name__}: return a dict")
        return dict(info)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _warn(self, message: str) -> None:
        if self._index == 0 or multiprocessing.parent_process() is None:  # of several processes only the first one warns
            warn_once(f"{self._name}: {message}")

    def _fault(self, message: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"environment {self._index} of {self._name} (seed {self._seed}) failed at step {self._steps} of its episode: {message}"
        )

    def _failure(self, error: BaseException, method: str) -> EnvironmentFault:
        """Return the fault for an exception that the environment's code raised."""
        if isinstance(error, EnvironmentFault):
            return error
        return self._fault(_signature(error, self.env, method) or described(error))


class Innermost(Checked):
    """Checks an environment below its wrappers, whose own exceptions would hide what the environment returned.

    Leaves out what a user's environment reports under the key of rl_lab's own RecordEpisodeStatistics. Has no state of its own.
    """

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step, see `Checked.step`."""
        observation, reward, terminated, truncated, info = super().step(action)
        if SCORE in info:
            info = {key: value for key, value in info.items() if key != SCORE}
        return observation, reward, terminated, truncated, info


OPEN: "weakref.WeakValueDictionary[int, gym.Env]" = weakref.WeakValueDictionary()
"""Environments that functions of the user have made and that are not closed, by id: none may be given out twice."""


class Adapter(Checked):
    """Converts the results of an environment to one form, and names the environment if it fails.

    Observations are new arrays of ``observation_space``, a Box, see `ObservationMapping`; ``raw_observation_space`` is the environment's
    own space. Rewards are floats, flags are bools. ``info`` holds only

    - ``action_mask``, bool (options,), if the environment gives a mask in its info, in its observation or by a method ``action_masks()``;
    - at the end of an episode the finite numbers of the environment's info, as floats by name, and ``episode`` of
      RecordEpisodeStatistics. If a wrapper above RecordEpisodeStatistics ended the episode, nobody knows before the reset whether the
      game is over; if the reset begins a new game, its info has ``episode``.

    ``index`` is the number of this environment among several. Raises EnvironmentFault if the observation space holds no numbers, or if
    a space is not Gymnasium's.
    """

    def __init__(self, env: gym.Env, index: int = 0):
        super().__init__(env, index)
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)  # an environment may have forgotten to define it
            if not isinstance(space, gym.Space):
                old = (
                    " of the package gym: import gymnasium as gym instead" if type(space).__module__.startswith("gym.") else ""
                )
                raise EnvironmentFault(f"the {name} of {self._name} is {type(space).__name__}, not a space of gymnasium{old}")
        self._options = options_of(env.action_space)
        self.raw_observation_space: gym.Space = env.observation_space
        try:
            self.observation_mapping = ObservationMapping(env.observation_space, self._options)
        except TypeError as error:
            raise EnvironmentFault(str(error)) from None
        self.observation_space = self.observation_mapping.box
        # the main process also makes one environment of those in other processes, so it gives the warning for all of them
        if self.observation_mapping.left_out and multiprocessing.parent_process() is None:
            self._warn(
                f"left out of the observations, because they are not numbers: {', '.join(self.observation_mapping.left_out)}"
            )
        inner = self.observation_mapping.inner_masks() if self._options else []
        if self.observation_mapping.other_mask and multiprocessing.parent_process() is None:
            self._warn(self.observation_mapping.other_mask)
        if inner and multiprocessing.parent_process() is None:
            self._warn(
                f"{inner[0]} is observed like any number: a mask is the entry {MASK!r} of the observation itself, or of info"
            )
        self._action_masks = masks_of(env) if self._options else None
        self.time_limit = time_limit_of(env)
        """Steps after which a TimeLimit truncates an episode; None without one."""
        self._recorder = recorder_of(env)
        self._score_key = self._recorder._stats_key if self._recorder else SCORE
        self._unscored = False  # whether an episode ended without a score: a wrapper ended it, and the game may continue
        self._masked = self.observation_mapping.holds_mask or self._action_masks is not None
        self._is_box = self.observation_mapping.is_identity
        self._shape = env.observation_space.shape
        self._dtype = env.observation_space.dtype
        self._unchecked = BOUNDS_CHECKED
        self._unwatched = RANDOM_CHECKED if index == 0 else 0
        self._seed: int | None = None

    # --- Gymnasium's interface ---------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; returns (observation, info). Raises EnvironmentFault if the environment fails or returns something else."""
        before = self._streams() if self._unwatched else None
        score = self._score() if self._unscored else None
        self._unscored = False
        observation, info = super().reset(seed=seed, options=options)
        self._seed = seed if seed is not None else self._seed
        if before is not None:
            self._watch(before)
        seen, told = self._observed(observation, info)
        if score is not None and self._recorder is not None and not self._recorder.episode_lengths:
            told[EPISODE] = score  # the reset began a new game, so the last one is over
        return seen, told

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step; returns (observation, reward, terminated, truncated, info).

        Raises EnvironmentFault if the environment fails or returns something else.
        """
        before = self._streams() if self._unwatched else None
        observation, reward, terminated, truncated, info = super().step(action)
        if before is not None:
            self._watch(before)
        seen, told = self._observed(observation, info)
        if terminated or truncated:
            told |= numbers_in(info)
            if self._recorder is not None:
                self._unscored = self._score_key not in info
                if not self._unscored:
                    told[EPISODE] = info[self._score_key]
        return seen, reward, terminated, truncated, told

    def close(self) -> None:
        """Close the environment. An exception only causes a warning."""
        OPEN.pop(id(self.unwrapped), None)
        try:
            super().close()
        except FOREIGN_ERRORS as error:  # results that are complete must not be lost
            self._warn(f"close() raised {described(error)}")

    # --- the parts of a step -----------------------------------------------------------------------------------------

    def _score(self) -> dict[str, Any]:
        """Return and length of the game so far, in the form of RecordEpisodeStatistics."""
        assert self._recorder is not None
        return {"r": float(self._recorder.episode_returns), "l": int(self._recorder.episode_lengths), "t": 0.0}

    def _observed(self, observation: Any, info: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the array of an observation, and an info with its mask alone."""
        plain = self._is_box and type(observation) is np.ndarray and not self._unchecked
        if plain and observation.dtype == self._dtype and observation.shape == self._shape:
            checked = seen = observation.copy()
        else:
            checked = self._checked(observation)
            seen = self.observation_mapping.array(checked)
        return seen, self._mask(checked, info) if self._masked or MASK in info else {}

    def _checked(self, observation: Any) -> Any:
        """Return a copy of an observation in the form of its space. Raises EnvironmentFault if it does not fit."""
        try:
            found = conform(self.raw_observation_space, observation, self._warn)
        except EnvironmentFault as error:
            raise self._fault(str(error)) from None
        if self._unchecked:
            self._unchecked -= 1
            outside = out_of_bounds(self.raw_observation_space, found)
            if outside is not None:
                self._warn(outside)
                self._unchecked = 0
        return found

    def _mask(self, observation: Any, info: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return an info with the action mask, from ``info``, the observation or the environment's method; empty if there is none."""
        if not self._options:
            return {}
        given = info.get(MASK)
        if given is None:
            given = self.observation_mapping.mask(observation)
        if given is None and self._action_masks is not None:
            try:
                given = self._action_masks()
            except FOREIGN_ERRORS as error:
                raise self._failure(error, "action_masks") from error
        try:
            return {} if given is None else {MASK: mask_row(self.env.action_space, given)}
        except ValueError as error:
            raise self._fault(f"the action mask does not fit: {error}") from None

    # --- global random streams ---------------------------------------------------------------------------------------

    def _streams(self) -> tuple[object, object]:
        """States of the global random streams, to be compared."""
        state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        return random.getstate(), (state["state"]["key"].tobytes(), state["state"]["pos"])

    def _watch(self, before: tuple[object, object]) -> None:
        """Warn if the environment drew from a global random stream since its states were ``before``."""
        self._unwatched -= 1
        now = self._streams()
        names = [name for name, a, b in zip(("random", "np.random"), before, now, strict=True) if a != b]
        if names:
            self._warn(
                f"random numbers come from the global {' and '.join(names)}, which all environments of a process share, "
                "so an episode does not depend on its seed alone: use self.np_random"
            )
            self._unwatched = 0
        inner = self.env.unwrapped
        drawn = getattr(inner, "_np_random", None) is not None
        if drawn and self._seed is not None and getattr(inner, "_np_random_seed", None) != self._seed:
            self._warn(
                "reset() does not seed self.np_random, so an episode does not depend on its seed alone: begin it with "
                "super().reset(seed=seed)"
            )
            self._unwatched = 0


def checked_inside(env: gym.Env, index: int, is_wrapped: bool, is_foreign: bool) -> gym.Env:
    """Put an `Innermost` below the wrappers that `gymnasium.make` adds, or around an environment that will be wrapped.

    A foreign environment, an object of the user, stays as it is inside. Environments of Gymnasium need no check.
    """
    if type(env.unwrapped).__module__.startswith("gymnasium."):
        return env
    outer: gym.Wrapper | None = None
    inner = env
    made = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)
    while not is_foreign and isinstance(inner, made):
        outer = inner
        inner = inner.env
    if outer is None:
        return Innermost(env, index) if is_wrapped else env
    outer.env = Innermost(inner, index)
    return env


def _layers(env: gym.Env) -> Iterator[gym.Env]:
    """The wrappers of an environment from the outermost on, and the environment itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def recorder_of(env: gym.Env) -> gym.wrappers.RecordEpisodeStatistics | None:
    """The innermost wrapper that keeps scores in the info at the end of a game; None without one."""
    found = [layer for layer in _layers(env) if isinstance(layer, gym.wrappers.RecordEpisodeStatistics)]
    return found[-1] if found else None


def time_limit_of(env: gym.Env) -> int | None:
    """Steps after which the outermost TimeLimit of an environment truncates an episode; None without one."""
    return next((layer._max_episode_steps for layer in _layers(env) if isinstance(layer, gym.wrappers.TimeLimit)), None)


def masks_of(env: gym.Env) -> Callable[[], Any] | None:
    """A function that returns the action mask of an environment with a method or a property ``action_masks``; None without one."""
    for layer in _layers(env):  # a property may fail before the first reset, so it is looked up without being read
        if inspect.getattr_static(layer, "action_masks", None) is not None:
            return partial(_mask_now, layer)
    return None


def _mask_now(env: gym.Env) -> Any:
    found = env.action_masks  # type: ignore[attr-defined]
    return found() if callable(found) else found


class VectorAdapter(VectorWrapper):
    """Maps the observations of other packages' vector environments to arrays of a Box, see `ObservationMapping`.

    A mask in the observations moves to ``info["action_mask"]``. Raises EnvironmentFault if the observation space holds no numbers.
    """

    def __init__(self, envs: VectorEnv):
        super().__init__(envs)
        try:
            mapping = ObservationMapping(envs.single_observation_space, options_of(envs.single_action_space))
        except TypeError as error:
            raise EnvironmentFault(str(error)) from None
        self.observation_mapping = mapping
        self.single_observation_space = mapping.box
        self.observation_space = batch_space(mapping.box, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes; see `gymnasium.vector.VectorEnv.reset`."""
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._seen(observations, info)

    def step(self, actions: Any) -> tuple[np.ndarray, Any, Any, Any, dict[str, Any]]:
        """Take a step; see `gymnasium.vector.VectorEnv.step`."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        final = info.get("final_obs")
        if final is not None:
            ended = np.array([observation is not None for observation in final])
            array = np.full(self.num_envs, None, object)
            rows: list[Any] = [None] * self.num_envs
            for i in map(int, np.flatnonzero(ended)):
                array[i] = self.observation_mapping.array(final[i])
                rows[i] = self.observation_mapping.mask(final[i])
            info = {**info, "final_obs": array}
            if self.observation_mapping.holds_mask:
                info["final_info"] = {**info.get("final_info", {}), MASK: rows, f"_{MASK}": ended}
        seen, info = self._seen(observations, info)
        return seen, rewards, terminated, truncated, info

    def _seen(self, observations: Any, info: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the arrays of a batch of observations, and the info with their masks."""
        rows = list(iterate(self.env.observation_space, observations))
        if self.observation_mapping.holds_mask and MASK not in info:
            info = {**info, MASK: [self.observation_mapping.mask(row) for row in rows]}
        return np.stack([self.observation_mapping.array(row) for row in rows]), info


def numbers_in(info: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers in an info by name, at most ``MOST_NUMBERS``; a number in a nested dict is named ``outer/inner``.

    Names that begin with "_" are left out: vector environments write masks under such names.
    """
    found: dict[str, float] = {}
    for key, value in info.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and key not in (EPISODE, SCORE):
            found |= numbers_in(value, f"{name}/")
        elif key not in (MASK, "final_obs", "final_info") and name[:1] != "_" and len(found) < MOST_NUMBERS:
            array = _array(value) if isinstance(value, (bool, int, float, np.generic, np.ndarray)) else None
            if array is not None and array.size == 1 and math.isfinite(number := float(array.ravel()[0])):
                found[name] = number
    return found


def _may_be_info(value: Any) -> bool:
    """Whether a second value of ``reset`` is an info, or a mistaken one: a list or a text, but not a number or an observation."""
    return value is None or isinstance(value, (Mapping, list, str))


def _as_float(number: Any) -> float:
    """Convert a real number to float; integers beyond its range become infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _array(value: Any) -> np.ndarray | None:
    """Convert a value to an array of real numbers; None if it is something else."""
    try:
        found = np.asarray(value)
    except Exception:  # whatever the value's own conversion raises
        return None
    return found if found.dtype.kind in "biuf" else None


# --- exceptions in the environment's code ------------------------------------------------------------------------------

_OURS = tuple(str(Path(module.__file__ or "").resolve().parent) for module in (gym, rl_lab))
_INSTALLED = tuple(str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "purelib", "platlib"))


def place_of(error: BaseException) -> str:
    """Return file, line and text of the line of the user's code that raised an exception; empty if no such code took part.

    This is the deepest frame outside of Python's and installed libraries. If all code is installed, it is the deepest frame outside of
    Gymnasium and rl_lab.
    """
    frames: list[tuple[str, int]] = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    found = [(file, line) for file, line in frames if file[:1] != "<" and not _resolved(file).startswith(_OURS)]
    own = [(file, line) for file, line in found if not _resolved(file).startswith(_INSTALLED)]
    if not found:
        return ""
    file, line = (own or found)[-1]
    text = " ".join(linecache.getline(file, line).split())
    return f"{_short(file)}, line {line}" + (f": {text[:80]}" if text else "")


def described(error: BaseException) -> str:
    """Describe an exception in one line: its class, the first line of its message, and its place in the user's code."""
    text = next(iter(str(error).strip().splitlines()), "")
    place = place_of(error)
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + (f" ({place})" if place else "")


def _resolved(file: str) -> str:
    return str(Path(file).resolve())


def _short(file: str) -> str:
    """Path relative to the working directory, if the file is inside."""
    path = Path(file).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _signature(error: BaseException, env: gym.Env, method: str) -> str | None:
    """Explain an exception that a method in gym's old form caused; None if the exception has another cause."""
    text = str(error)
    if method == "reset" and isinstance(error, TypeError):
        found = re.search(r"(\w+\.)?reset\(\) got an unexpected keyword argument '(seed|options)'", text)
        if found:
            return (
                f"{found[1] or ''}reset() takes no {found[2]}, as before gym 0.26: write def reset(self, *, seed=None, options=None), "
                "and call super().reset(seed=seed) in it"
            )
    unpacked = method == "step" and isinstance(error, ValueError) and "values to unpack (expected 5" in text
    if unpacked and _last_file(error).startswith(_OURS):  # by a wrapper, not by the user's own code
        count = re.search(r"got (\d+)", text)
        return _old_step((None,) * int(count[1])) if count else _old_step(None)
    return None


def _last_file(error: BaseException) -> str:
    """Path of the file that raised an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else _resolved(trace.tb_frame.f_code.co_filename)


def _old_step(result: Any) -> str:
    """Message for what ``step`` returned instead of five values."""
    if result is None:
        return "step() returned None: end it with return observation, reward, terminated, truncated, info"
    count = len(result) if isinstance(result, (tuple, list)) else 1
    if count == 4:
        return (
            "step() returned four values (observation, reward, done, info), as before gym 0.26: return observation, reward, terminated, "
            "truncated, info, where truncated is True if a time limit ended the episode"
        )
    returned = f"{count} value{'' if count == 1 else 's'}"
    return f"step() returned {returned}: return five, observation, reward, terminated, truncated, info"


def _old_reset(result: Any) -> str:
    """Message for what ``reset`` returned instead of a pair of an observation and an info."""
    if result is None:
        return "reset() returned None: end it with return observation, info, where info is a dict"
    returned = f"only a {type(result).__name__}"
    if isinstance(result, tuple):
        returned = f"{len(result)} values" if len(result) != 2 else f"a pair with a {type(result[1]).__name__} as its info"
    return f"reset() returned {returned}, as before gym 0.26: return a pair (observation, info), where info is a dict"
