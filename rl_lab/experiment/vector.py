"""Vector environments from Gymnasium's single environments: one after the other in this process, or in one process each."""

import copy
import math
import multiprocessing
import pickle
import select
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from typing import Any, SupportsFloat, TypeAlias, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import concatenate, iterate, write_to_shared_memory

from rl_lab.engine.errors import EnvironmentFault, EnvironmentWarning
from rl_lab.experiment.faults import first_line
from rl_lab.experiment.wrapping import seed_globals
from rl_lab.rollout.actions import SpaceActions
from rl_lab.rollout.adapter import recorder_of
from rl_lab.rollout.saving import SavableProcesses, environment_state, set_environment_state
from rl_lab.rollout.stepper import KeepsScores

KILL_SECONDS = 5.0
"""Seconds to wait for a process to end before it is killed, and after it was killed."""
ANSWER_SECONDS = 60.0
"""Seconds without an answer after which a message names the environment."""
STEP = b"s"
"""First byte of a short message. A pickle begins with another byte."""
RESULT = struct.Struct("d??")
"""Reward, terminated and truncated in a short message."""
Stepped: TypeAlias = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
"""Observations, rewards float64 (n,), terminated and truncated bool (n,), and infos. Observations have the structure of their space."""
T = TypeVar("T")


class _AnyInfo(KeepsScores):
    """Combines the infos of environments, also if their values differ in shape or type."""

    num_envs: int

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """Override Gymnasium's method: values without a common shape and dtype are put into an array of objects."""
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
    """Return an array of ``count`` rows that can hold ``value``: ``before``, or a copy of ``before`` with a wider dtype.

    ``before`` is None for the first value. ``as_objects`` always gives an array of objects.
    """
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


class SerialVectorEnv(_AnyInfo, SyncVectorEnv):
    """Steps environments in this process one after the other, with autoreset mode SAME_STEP.

    ``awake``, bool (num_envs,), marks the environments that `step` steps. The others keep their observation, with a reward of 0.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env]], **options: Any):
        super().__init__(makers, copy=False, **options)
        self.awake = np.ones(self.num_envs, bool)
        self.scored = recorder_of(self.envs[0]) is not None

    def step(self, actions: SpaceActions) -> Stepped:
        """Step the environments that are awake. The next step overwrites the arrays of observations."""
        infos: dict[str, Any] = {}
        self._rewards[:] = 0.0
        self._terminations[:] = False
        self._truncations[:] = False
        for i, action in enumerate(iterate(self.action_space, actions)):
            if not self.awake[i]:
                continue
            self._env_obs[i], reward, terminated, truncated, info = self.envs[i].step(action)
            self._rewards[i] = reward
            self._terminations[i] = terminated
            self._truncations[i] = truncated
            if terminated or truncated:
                final = copy.deepcopy(self._env_obs[i])  # the reset may write into the same array
                infos = self._add_info(infos, {"final_obs": final, "final_info": info}, i)
                self._env_obs[i], info = self.envs[i].reset()
            if info:
                infos = self._add_info(infos, info, i)
        self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        return (self._observations, self._rewards.copy(), self._terminations.copy(), self._truncations.copy(), infos)


class ProcessVectorEnv(_AnyInfo, SavableProcesses):
    """Steps each environment in a process of its own.

    A step without infos costs one short message in each direction: the bytes of the action, and the reward with the flags. Observations
    are in shared memory. All other messages are pickles, because infos and reset options may hold any Python object. Both ends of each
    pipe are held by this process and a child that it started: no bytes of other origin can reach the pickles.

    Raises EnvironmentFault, naming the environment, if its process fails or ends. An environment that does not answer for
    ``ANSWER_SECONDS`` is named on stderr.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env]], **options: Any):
        try:
            super().__init__(makers, worker=_work, copy=False, **options)  # type: ignore[arg-type]
        except (EOFError, ConnectionError) as error:
            for process in getattr(self, "processes", ()):  # Gymnasium sets the attribute in the middle of its constructor
                process.kill()
            raise EnvironmentFault(
                "a process of the environments ended before it answered; a script that starts them must have its code under "
                "if __name__ == '__main__':"
            ) from error
        space = self.single_action_space
        self._action_dtype = None if isinstance(space, (spaces.Tuple, spaces.Dict)) else np.dtype(space.dtype)
        self._pollers = [_poller(pipe) for pipe in self.parent_pipes]
        self.scored = any(self.get_attr("scored"))

    def step_async(self, actions: SpaceActions) -> None:
        """Send each process its action. Raises AlreadyPendingCallError in the middle of a step, EnvironmentFault if a process has ended."""
        if self._action_dtype is None:
            self._call(super().step_async, actions)
            return
        self._assert_is_running()
        if self._state != AsyncState.DEFAULT:
            raise AlreadyPendingCallError("step_async was called while another call is pending", str(self._state.value))
        self._call(self._send_actions, np.asarray(actions, self._action_dtype))
        self._state = AsyncState.WAITING_STEP

    def _send_actions(self, actions: np.ndarray) -> None:
        """Send each process the bytes of its action."""
        for pipe, action in zip(self.parent_pipes, actions, strict=True):
            pipe.send_bytes(STEP + action.tobytes())  # type: ignore[union-attr]

    def step_wait(self, timeout: float | None = None) -> Stepped:
        """Wait for all processes and return the results of the step.

        Raises multiprocessing.TimeoutError after ``timeout`` seconds, EnvironmentFault if an environment failed.
        """
        self._assert_is_running()
        if self._state != AsyncState.WAITING_STEP:
            raise NoAsyncCallError("step_wait was called before step_async", AsyncState.WAITING_STEP.value)
        return self._call(self._receive_step, timeout)

    def _receive_step(self, timeout: float | None) -> Stepped:
        """Read the answers of all processes, see `step_wait`."""
        if not self._poll_pipe_envs(timeout):
            self._state = AsyncState.DEFAULT
            raise multiprocessing.TimeoutError(f"the environments have not answered for {timeout} s: step_wait timed out")
        rewards = np.zeros(self.num_envs)
        flags = np.zeros((2, self.num_envs), np.bool_)
        infos: dict[str, Any] = {}
        successes = []
        for i, pipe in enumerate(self.parent_pipes):
            data = pipe.recv_bytes()  # type: ignore[union-attr]
            success = True
            if data[:1] == STEP:
                rewards[i], flags[0, i], flags[1, i] = RESULT.unpack_from(data, 1)
            else:
                result, success = pickle.loads(data)  # from our own child, see the class
                if success:
                    _, rewards[i], flags[0, i], flags[1, i], info = result
                    infos = self._add_info(infos, info, i)
            successes.append(success)
        self._raise_if_errors(successes)
        self._state = AsyncState.DEFAULT
        return self.observations, rewards, flags[0], flags[1], infos

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        """Wait until all processes have answered; False after ``timeout`` seconds. Raises EnvironmentFault if a process has ended.

        Overrides Gymnasium's method, which is called before answers are read.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        named = False
        begin = time.monotonic()
        for index, pipe in enumerate(self.parent_pipes):
            if pipe is None:
                continue
            while not self._pollers[index](min(1.0, max(0.0, until - time.monotonic()))):
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
        """As Gymnasium's method. Raises EnvironmentFault if a process has ended."""
        self._call(super().reset_async, *arguments, **keywords)

    def reset_wait(self, *arguments: Any, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's method. Raises EnvironmentFault if an environment failed or its process has ended."""
        return self._call(super().reset_wait, *arguments, **keywords)

    def _call(self, call: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call a function that talks to the processes. Raises EnvironmentFault, naming the environment, if a pipe is broken."""
        try:
            return call(*arguments, **keywords)
        except (EOFError, ConnectionError) as error:
            for process in self.processes:  # a pipe may break shortly before the system reports the end of the process
                process.join(0.2)
            dead = [i for i, process in enumerate(self.processes) if not process.is_alive()]
            raise self._ended(dead[0] if dead else 0) from error

    def _raise_if_errors(self, successes: Sequence[bool]) -> None:  # type: ignore[override]
        """Raise the first error that a process reported. Gymnasium's method also prints the tracebacks of all processes."""
        if all(successes):
            return
        index, _, error, _ = self.error_queue.get(timeout=KILL_SECONDS)
        if isinstance(error, EnvironmentFault):
            raise error
        raise EnvironmentFault(f"environment {index} of {self._name()} failed: {first_line(error)}") from error

    def _ended(self, index: int) -> EnvironmentFault:
        """Return the fault for a process that has ended."""
        code = self.processes[index].exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return EnvironmentFault(f"the process of environment {index} of {self._name()} {how}")

    def _name(self) -> str:
        return self.spec.id if self.spec else "the environment"


def _set_state(env: gym.Env, state: dict[str, Any]) -> str:
    """Set the state of an environment. Returns an empty text, or the reason why the state does not fit."""
    try:
        set_environment_state(env, state)
    except ValueError as error:
        return str(error)
    return ""


def _poller(pipe: Connection) -> Callable[[float], object]:
    """Return a function that waits for data in a pipe for a number of seconds; its result is true if there is data.

    The function is faster than ``pipe.poll``, which makes a selector in every call.
    """
    if not hasattr(select, "poll"):  # Windows
        return pipe.poll
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN | select.POLLHUP)
    return lambda seconds: poll.poll(1000 * seconds)


def _work(
    index: int,
    maker: Callable[[], gym.Env],
    pipe: Connection,
    parent_pipe: Connection,
    shared: Any,
    errors: Queue,
    mode: object,
    semaphore: object,
) -> None:
    """Main function of a process: make the environment and carry out the commands that come through ``pipe``.

    Takes the arguments and answers the commands of Gymnasium's own worker, and in addition the short messages for steps. ``shared`` is
    the memory for observations, in the structure of their space.
    """
    if index > 0:
        warnings.simplefilter("ignore", EnvironmentWarning)  # the first environment has already warned
    env = maker()
    parent_pipe.close()
    observation_space = env.observation_space
    action_space = env.action_space
    is_number = action_space.shape == ()
    state_fault = ""

    def show(observation: Any) -> None:
        write_to_shared_memory(observation_space, index, observation, shared)

    def take(action: SpaceActions) -> tuple[SupportsFloat, bool, bool, dict[str, Any]]:
        """Step, write the observation to the shared memory, and reset the environment if the episode has ended."""
        observation, reward, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            final = copy.deepcopy(observation)  # the reset may write into the same array
            observation, reset_info = env.reset()
            info = {"final_info": info, "final_obs": final, **reset_info}
        show(observation)
        return reward, terminated, truncated, info

    try:
        while True:
            data = pipe.recv_bytes()
            if data[:1] == STEP:
                action = np.frombuffer(data, action_space.dtype, offset=1).reshape(action_space.shape)
                reward, terminated, truncated, info = take(action[()] if is_number else action.copy())
                if info:
                    pipe.send(((None, reward, terminated, truncated, info), True))
                else:
                    pipe.send_bytes(STEP + RESULT.pack(reward, terminated, truncated))
                continue
            command, given = pickle.loads(data)  # from the process that started this one, see `ProcessVectorEnv`
            if command == "reset":
                if given.get("seed") is not None:
                    seed_globals(given["seed"])  # as `seeded_globals` does for environments in the main process
                observation, info = env.reset(**given)
                show(observation)
                pipe.send(((None, info), True))
            elif command == "reset-noop":
                pipe.send(((None, {}), True))
            elif command == "step":
                pipe.send(((None, *take(given)), True))
            elif command == "close":
                pipe.send((None, True))
                break
            elif command == "_call":
                name, arguments, keywords = given
                own = {
                    "scored": lambda env: recorder_of(env) is not None,
                    "saved_state": environment_state,
                    "state_fault": lambda env: state_fault,
                }
                found = own[name](env) if name in own else env.get_wrapper_attr(name)
                pipe.send((found(*arguments, **keywords) if callable(found) else found, True))
            elif command == "_setattr":
                if given[0] == "saved_state":
                    state_fault = _set_state(env, given[1])
                else:
                    env.set_wrapper_attr(*given)
                pipe.send((None, True))
            elif command == "_check_spaces":
                _, observations, actions = given
                pipe.send(((observations == observation_space, actions == action_space), True))
    except (KeyboardInterrupt, Exception):  # the main process raises whatever the environment's own code raised
        kind, error, _ = sys.exc_info()
        errors.put((index, kind, error, traceback.format_exc()))
        pipe.send((None, False))
    finally:
        env.close()


# --- closing -----------------------------------------------------------------------------------------------------------


def close_environments(environments: VectorEnv) -> None:
    """Close vector environments and end their processes, killing those that do not end within ``KILL_SECONDS``.

    Gymnasium's own ``close`` waits without limit for a process that is stopped or stuck.
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
            pass  # a process has ended already
    abandon_environments(environments)


def abandon_environments(environments: VectorEnv) -> None:
    """Kill the processes of vector environments after a failure, in which one may be stuck. Does nothing without processes."""
    if not isinstance(environments, AsyncVectorEnv) or environments.closed:
        return
    environments.closed = True
    for process in environments.processes:
        process.kill()
    for process in environments.processes:
        process.join(KILL_SECONDS)
    for pipe in filter(None, environments.parent_pipes):
        pipe.close()
