"""Gymnasium's environments side by side: in this process, or in processes of their own."""

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import concatenate, iterate

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.experiment.faults import first_line

KILL_SECONDS = 5.0
"""How long the end of a killed process is waited for."""
ANSWER_SECONDS = 60.0
"""After so long without an answer an environment in a process of its own is named."""


class _AnyInfo:
    """Puts the infos of environments together, also where their values differ in shape or kind."""

    num_envs: int

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """As Gymnasium's. Values that fit no common array stand in an array of objects instead."""
        for key, value in env_info.items():
            before = vector_infos.get(key)
            array: Any
            if isinstance(value, dict) and key != "final_obs" and (before is None or isinstance(before, dict)):
                array = self._add_info(before or {}, value, env_num)
            else:
                array = _with_room(before, value, self.num_envs, key == "final_obs")
                array[env_num] = value
            mask = vector_infos.setdefault(f"_{key}", np.zeros(self.num_envs, np.bool_))
            mask[env_num] = True
            vector_infos[key] = array
        return vector_infos


def _with_room(before: Any, value: Any, count: int, as_objects: bool) -> Any:
    """An array of ``count`` values that ``value`` can be put into: the one that there is, or one of a wider kind."""
    plain = isinstance(value, (bool, int, float, np.generic)) or (isinstance(value, np.ndarray) and value.dtype != object)
    plain = plain and not as_objects
    kind = np.asarray(value).dtype if plain else np.dtype(object)
    shape = np.shape(value) if plain else ()
    if before is None:
        return np.zeros((count, *shape), kind) if plain else np.full(count, None, object)
    if isinstance(before, np.ndarray) and before.dtype != object and before.shape[1:] == shape and plain:
        common = np.result_type(before.dtype, kind)
        return before if common == before.dtype else before.astype(common)
    if isinstance(before, np.ndarray) and before.dtype == object and before.ndim == 1:
        return before
    objects = np.full(count, None, object)
    if isinstance(before, np.ndarray):
        for i, old in enumerate(before):
            objects[i] = old
    return objects


def keeps_scores(env: Any) -> bool:
    """Whether an environment is wrapped in RecordEpisodeStatistics, so that its score is in ``info["episode"]`` when a game is over."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.RecordEpisodeStatistics):
            return True
        env = env.env
    return False


class SerialVectorEnv(_AnyInfo, SyncVectorEnv):
    """Gymnasium's environments in this process, stepped one after the other; they reset in the step that ends their episode.

    ``awake``, bool (num_envs,), marks the environments that are stepped: the others rest, with a reward of 0.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], **options: Any):
        super().__init__(makers, copy=False, **options)
        self.awake = np.ones(self.num_envs, bool)
        self.scored = keeps_scores(self.envs[0])

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments that are awake. The arrays of observations are used again in the next step."""
        infos: dict[str, Any] = {}
        self._rewards[:] = 0.0
        self._terminations[:] = False
        self._truncations[:] = False
        for i, action in enumerate(iterate(self.action_space, actions)):
            if not self.awake[i]:
                continue
            self._env_obs[i], reward, terminated, truncated, info = self.envs[i].step(action)
            self._rewards[i], self._terminations[i], self._truncations[i] = reward, terminated, truncated
            if terminated or truncated:
                final = copy.deepcopy(self._env_obs[i])  # the reset may write into the same array
                infos = self._add_info(infos, {"final_obs": final, "final_info": info}, i)
                self._env_obs[i], info = self.envs[i].reset()
            if info:
                infos = self._add_info(infos, info, i)
        self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        return (self._observations, self._rewards.copy(), self._terminations.copy(), self._truncations.copy(), infos)


class ProcessVectorEnv(_AnyInfo, AsyncVectorEnv):
    """Gymnasium's environments in processes of their own; one that ends or does not answer is named, and never waited for in vain."""

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        """Wait for the answers of all processes, as Gymnasium asks before it reads them. Raises EnvironmentFault if one has ended."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        named = False
        begin = time.monotonic()
        for index, pipe in enumerate(self.parent_pipes):
            while pipe is not None and not pipe.poll(min(1.0, max(0.0, until - time.monotonic()))):
                now = time.monotonic()
                if not self.processes[index].is_alive() and not pipe.poll(0):
                    raise self._ended(index)
                if now - begin > ANSWER_SECONDS and not named:
                    named = True
                    message = f"environment {index} of {self._name()} has not answered for {now - begin:.0f} s"
                    print(f"rl_lab: {message}; Ctrl-C twice ends the run", file=sys.stderr, flush=True)
                if now >= until:
                    return False
        return True

    def reset_async(self, *arguments: Any, **keywords: Any) -> None:
        self._call(super().reset_async, *arguments, **keywords)

    def reset_wait(self, *arguments: Any, **keywords: Any) -> Any:
        return self._call(super().reset_wait, *arguments, **keywords)

    def step_async(self, *arguments: Any, **keywords: Any) -> None:
        self._call(super().step_async, *arguments, **keywords)

    def step_wait(self, *arguments: Any, **keywords: Any) -> Any:
        return self._call(super().step_wait, *arguments, **keywords)

    def _call(self, call: Callable, *arguments: Any, **keywords: Any) -> Any:
        try:
            return call(*arguments, **keywords)
        except (EOFError, ConnectionError) as error:
            for process in self.processes:  # the system may not have noted its end yet
                process.join(0.2)
            dead = [i for i, process in enumerate(self.processes) if not process.is_alive()]
            raise self._ended(dead[0] if dead else 0) from error

    def _raise_if_errors(self, successes: Sequence[bool]) -> None:  # type: ignore[override]
        """Raise the first error that a process reported, as Gymnasium does, without printing the tracebacks of all."""
        if all(successes):
            return
        index, _, error, _ = self.error_queue.get(timeout=KILL_SECONDS)
        if isinstance(error, EnvironmentFault):
            raise error
        raise EnvironmentFault(f"environment {index} of {self._name()} failed: {first_line(error)}") from error

    def _ended(self, index: int) -> EnvironmentFault:
        code = self.processes[index].exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return EnvironmentFault(f"the process of environment {index} of {self._name()} {how}")

    def _name(self) -> str:
        return self.spec.id if self.spec else "the environment"


# --- closing -----------------------------------------------------------------------------------------------------------


def close_environments(environments: VectorEnv) -> None:
    """Close vector environments, with their processes; those that do not end in `KILL_SECONDS` are killed.

    Gymnasium would wait for ever for a process that is dead, stopped or stuck.
    """
    if not isinstance(environments, AsyncVectorEnv):
        environments.close()
        return
    if not environments.closed and environments._state == AsyncState.DEFAULT:
        until = time.monotonic() + KILL_SECONDS
        try:
            for pipe in filter(None, environments.parent_pipes):
                pipe.send(("close", None))
            for process in environments.processes:
                process.join(max(0.0, until - time.monotonic()))
        except OSError:
            pass  # a process ended just now
    abandon_environments(environments)


def abandon_environments(environments: VectorEnv) -> None:
    """Kill the processes of environments after a failure: one of them may be stuck. Environments in this process are left alone."""
    if not isinstance(environments, AsyncVectorEnv) or environments.closed:
        return
    environments.closed = True
    for process in environments.processes:
        process.kill()
    for process in environments.processes:
        process.join(KILL_SECONDS)
    for pipe in filter(None, environments.parent_pipes):
        pipe.close()
