"""Environments of every kind through one function: ids, environment objects, constructors and vector environments.

Where an id has a native environment it is used, otherwise Gymnasium's own vector environments.
"""

import copy
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_space

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.memory import require_memory
from rl_lab.experiment.suggestions import nearest_environment
from rl_lab.rollout.saving import StateHolder
from rl_lab.rollout.stepper import options_of

BACKENDS = ("auto", "native", "gymnasium")
VECTORIZATIONS = ("sync", "async")
Maker = Callable[[], gym.Env]
KILL_SECONDS = 5.0
"""How long the end of a killed process is waited for."""
ANSWER_SECONDS = 60.0
"""After so long without an answer an environment in a process of its own is named."""


@dataclass(frozen=True)
class Setup:
    """How environments are made: by id, or by a constructor ``maker``. ``native`` is the class of the native environment, or None."""

    env_id: str
    native: type[NativeVectorEnv] | None = None
    vectorization: str = "sync"
    frame_stack: int = 1
    time_aware: bool = False
    maker: Maker | None = None
    once: bool = False
    """Whether ``maker`` returns one and the same object, so that only one environment can exist at a time."""

    def __str__(self) -> str:
        how = f"native {self.native.__name__}" if self.native else f"Gymnasium's {self.vectorization} vector environment"
        stack = f", {self.frame_stack} frames stacked" if self.frame_stack > 1 else ""
        return how + stack + (", time observed" if self.time_aware else "")

    def describe(self) -> dict[str, Any] | None:
        """The setup as plain values, or None if it is made by a constructor, which a file cannot hold."""
        if self.maker is not None:
            return None
        backend = "native" if self.native else "gymnasium"
        return {
            "env_id": self.env_id,
            "backend": backend,
            "vectorization": self.vectorization,
            "frame_stack": self.frame_stack,
            "time_aware": self.time_aware,
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Setup":
        """The setup that `describe` described. Raises Fault if its environment does not exist here."""
        return choose_setup(**description)


# --- finding environments --------------------------------------------------------------------------------------------


def full_id(env_id: str) -> str:
    """The registered id: environments of the lab go by their bare names, too, and ``module:id`` is one that a module registers."""
    own = f"rl_lab/{env_id}"
    return own if env_id not in gym.registry and own in gym.registry else env_id


def find_environment(env_id: str) -> Any:
    """The registered specification of an id.

    Raises Fault, with the nearest name, for an unknown id, a module that cannot be imported, or missing packages.
    """
    if not isinstance(env_id, str) or not env_id:
        raise Fault(f"an environment is named by its id, such as CartPole-v1, not {env_id!r}")
    module, _, registered = env_id.rpartition(":")
    if module:
        import_beside(module, f"environment {env_id!r}")
    try:
        return gym.spec(registered)
    except gym.error.Error as error:
        detail = nearest_environment(env_id, gym.registry) or f": {first_line(error).partition(': ')[2]}"
        raise Fault(f"unknown environment {env_id!r}{detail}") from None
    except ImportError as error:
        raise Fault(f"environment {env_id!r} needs a package that is not installed: {error}") from None


def import_beside(module: str, asked_by: str) -> Any:
    """Import a module, which may be a file in the working directory, as ``python -m`` would find it.

    Raises Fault, beginning with ``asked_by``, for a module that does not exist, cannot be imported or ends the program.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise Fault(f"{asked_by} cannot be imported: {module!r} is not the name of a module")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        detail = f"there is no module {module!r} here or among the installed ones" if missing else first_line(error)
        raise Fault(f"{asked_by} cannot be imported: {detail}") from error


def native_class(env_id: str) -> type[NativeVectorEnv] | None:
    """The native vector environment of an id: the lab's own, or the twin of one of Gymnasium's; None if there is none."""
    spec = gym.registry.get(env_id if env_id.startswith("rl_lab/") else f"rl_lab/{env_id}")
    entry = spec and spec.vector_entry_point
    found = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return found if isinstance(found, type) and issubclass(found, NativeVectorEnv) else None


def choose_setup(
    env_id: str, backend: str = "auto", vectorization: str = "sync", frame_stack: int = 1, time_aware: bool = False
) -> Setup:
    """How to make the environments of an id. Raises Fault if ``backend`` is "native" and there is no native environment."""
    spec = find_environment(env_id)
    native = native_class(env_id) if backend != "gymnasium" else None
    if backend == "native" and native is None:
        raise Fault(f"{env_id!r} has no native environment: use --backend auto or gymnasium")
    if time_aware and not spec.max_episode_steps:
        raise Fault(f"{env_id!r} has no time limit to be aware of: leave out --time-aware")
    return Setup(env_id, native, vectorization, frame_stack, time_aware)


# --- making environments ---------------------------------------------------------------------------------------------


class _Named(StateHolder):
    """An environment that names itself when it fails."""

    def __init__(self, env: gym.Env, index: int):
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._steps = 0

    def _run(self, call: Callable, *arguments: Any, **keywords: Any) -> Any:
        try:
            return call(*arguments, **keywords)
        except Exception as error:
            name = self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__
            text = str(error).strip().splitlines()
            detail = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
            raise EnvironmentFault(
                f"environment {self._index} of {name} (seed {self._seed}) failed at step {self._steps} of its episode: {detail}"
            ) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._seed = self._seed if seed is None else seed
        self._steps = 0
        return self._run(self.env.reset, seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._run(self.env.step, action)


def _spec_of(setup: Setup) -> Any:
    """The registered specification of an environment, for processes that lack the registrations of this one."""
    return None if setup.maker is not None else copy.deepcopy(find_environment(setup.env_id))


def make_one(setup: Setup, index: int, render_mode: str | None = None, spec: Any = None) -> gym.Env:
    """One scalar environment with the wrappers that the setup asks for; its attribute `raw_observation_space` is the unflattened space.

    ``spec`` is the registered specification, for a process that does not know it.
    """
    if setup.maker is not None:
        env = setup.maker()
    else:
        pictures: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        env = gym.make(setup.env_id if spec is None else spec, **pictures)
    if not isinstance(env.observation_space, spaces.Box):
        env = gym.wrappers.FlattenObservation(env)
    if env.observation_space.shape == ():
        env = gym.wrappers.ReshapeObservation(env, (1,))
    if setup.time_aware:
        env = gym.wrappers.TimeAwareObservation(env, flatten=True, normalize_time=True)
    if setup.frame_stack > 1:
        require_memory(env.observation_space.shape or (), setup.frame_stack)
        env = gym.wrappers.FrameStackObservation(env, setup.frame_stack)
    return _Named(env, index)


def make_environments(setup: Setup | str, num_envs: int) -> VectorEnv:
    """``num_envs`` copies stepped together, which reset in the step that ends an episode and return its final observation.

    Observations that are not a Box (numbers, tuples, dictionaries) are flattened. Raises Fault if an environment cannot be made.
    """
    if isinstance(setup, str):
        setup = choose_setup(setup)
    mode = AutoresetMode.SAME_STEP
    envs: Any
    try:
        if setup.native is not None:
            require_memory(setup.native.world.observation_space.shape, num_envs * setup.frame_stack)
            spec = gym.spec(setup.env_id if setup.env_id.startswith("rl_lab/") else f"rl_lab/{setup.env_id}")
            envs = setup.native(num_envs, spec.max_episode_steps, mode, setup.frame_stack, setup.time_aware)
        elif setup.vectorization == "async" and num_envs > 1:
            # forked workers would inherit a thread pool that is dead in them
            makers = [_Maker(setup, index, _spec_of(setup)) for index in range(num_envs)]
            context = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            envs = ProcessVectorEnv(makers, context=context, autoreset_mode=mode)
        else:
            envs = SyncVectorEnv([_Maker(setup, index) for index in range(num_envs)], autoreset_mode=mode)
    except gym.error.DependencyNotInstalled as error:
        raise Fault(f"environment {setup.env_id!r} needs a package that is not installed: {error}") from None
    except gym.error.Error as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made: {str(error).splitlines()[0]}") from None
    except (MemoryError, Fault):
        raise
    except ValueError as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made so: {error}") from None
    except Exception as error:  # whatever the environment's own code raises
        first = next(iter(str(error).strip().splitlines()), "")
        raise Fault(f"environment {setup.env_id!r} cannot be made: {type(error).__name__}: {first}") from error
    if setup.maker is None:
        envs.spec = find_environment(setup.env_id)
    envs.raw_observation_space = raw_observation_space(envs)
    return envs


def raw_observation_space(envs: VectorEnv) -> gym.Space:
    """The observation space of one environment before it was flattened to a Box."""
    if isinstance(envs, SyncVectorEnv):
        env: Any = envs.envs[0]
        while isinstance(env, gym.Wrapper):
            if isinstance(env, gym.wrappers.FlattenObservation):
                return env.env.observation_space
            env = env.env
    return envs.single_observation_space


def open_environments(
    what: Setup | str | gym.Env | Maker | VectorEnv,
    num_envs: int | None = None,
    *,
    backend: str = "auto",
    vectorization: str = "sync",
    frame_stack: int = 1,
    time_aware: bool = False,
) -> tuple[VectorEnv, Setup | None]:
    """Vector environments from a `Setup`, an id, an environment object, a constructor, or vector environments, which are taken as they are.

    Returns them and how to make them again (None for vector environments). Raises Fault if they cannot be made: an object is one
    environment, so more of them need a constructor.
    """
    if isinstance(what, VectorEnv):
        if num_envs not in (None, what.num_envs):
            raise Fault(f"num_envs {num_envs} does not fit {what.num_envs} vector environments: leave it out")
        return what, None
    count = 1 if num_envs is None else num_envs
    if count < 1:
        raise Fault(f"num_envs must be at least 1, got {count}")
    if isinstance(what, Setup):
        return make_environments(what, count), what
    if isinstance(what, str):
        setup = choose_setup(full_id(what), backend, vectorization, frame_stack, time_aware)
        return make_environments(setup, count), setup
    wrapping = {"vectorization": vectorization, "frame_stack": frame_stack, "time_aware": time_aware}
    if isinstance(what, gym.Env):
        if count > 1:
            raise Fault(f"one environment object cannot be stepped {count} times at once: pass a function that makes one")
        env = what
        setup = Setup(_name_of(what), maker=lambda: env, once=True, **wrapping)  # type: ignore[arg-type]
        return make_environments(setup, 1), setup
    if callable(what):
        setup = Setup(getattr(what, "__name__", "the environment"), maker=what, **wrapping)  # type: ignore[arg-type]
        return make_environments(setup, count), setup
    raise Fault(
        f"{what!r} is not an environment: pass an id, a gymnasium.Env, a function that makes one, or vector environments"
    )


def _name_of(env: gym.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def copy_for_evaluation(setup: Setup) -> Setup:
    """A setup whose environments do not disturb those of training. Raises Fault for an environment object that cannot be copied."""
    setup = replace(setup, vectorization="sync")
    if not setup.once or setup.maker is None:
        return setup
    try:
        env = copy.deepcopy(setup.maker())
    except Exception:
        raise Fault(f"{setup.env_id} cannot be copied for an evaluation: pass a function that makes one") from None
    return replace(setup, maker=lambda: env)


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


def spaces_of(setup: Setup) -> tuple[gym.Space, gym.Space]:
    """The observation and the action space of one environment. A native environment is not compiled for it."""
    if setup.native is not None:
        return setup.native.world.observation_space, setup.native.world.action_space
    probe = make_environments(setup, 1)
    try:
        return probe.single_observation_space, probe.single_action_space
    finally:
        probe.close()


@dataclass(frozen=True)
class _Maker:
    """Makes one environment, also in another process."""

    setup: Setup
    index: int
    spec: Any = None

    def __call__(self) -> gym.Env:
        if multiprocessing.parent_process() is not None:
            for name in ("SIGINT", "SIGHUP"):  # they reach all processes of a terminal: the first one decides
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        return make_one(self.setup, self.index, spec=self.spec)


class ProcessVectorEnv(AsyncVectorEnv):
    """Gymnasium's environments in processes of their own; one that ends or does not answer is named, and never waited for in vain."""

    saves_states = True
    """Whether the environments have the attributes of `rl_lab.rollout.saving.StateHolder`."""

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


# --- spaces without environments ---------------------------------------------------------------------------------------


class AbsentEnvironments(VectorEnv):
    """Spaces of environments that are not there: a loaded agent can predict in them, and an attempt to step them is an error."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, num_envs: int, masked: bool):
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self._masked = masked

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        shape = (self.num_envs, *(self.single_observation_space.shape or ()))
        options_count = options_of(self.single_action_space) if self._masked else 0
        info = {"action_mask": np.ones((self.num_envs, options_count), bool)} if self._masked else {}
        return np.zeros(shape, np.float32), info

    def step(self, actions: Any) -> Any:
        raise Fault("this agent was loaded without its environment: pass one to load(path, env)")


def absent_environments(observation_space: gym.Space, action_space: gym.Space, num_envs: int, masked: bool) -> VectorEnv:
    """Stand-in for environments that cannot be made again; ``masked`` if they gave action masks."""
    return AbsentEnvironments(observation_space, action_space, num_envs, masked)


def describe_space(space: Any) -> dict[str, Any]:
    """A space as plain values and arrays, for files."""
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "low": np.asarray(space.low), "high": np.asarray(space.high), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": np.asarray(space.nvec),
            "start": np.asarray(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [describe_space(part) for part in space.spaces]}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {name: describe_space(part) for name, part in space.spaces.items()}}
    raise TypeError(f"a space of kind {type(space).__name__} cannot be saved")


def rebuild_space(description: dict[str, Any]) -> gym.Space:
    """The space that `describe_space` described. Raises KeyError or ValueError if it is not such a description."""

    def array(name: str) -> np.ndarray:
        value = description[name]
        return value.numpy() if hasattr(value, "numpy") else np.asarray(value)

    kind = description["kind"]
    if kind == "Box":
        dtype = np.dtype(description["dtype"])
        return spaces.Box(array("low").astype(dtype), array("high").astype(dtype), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "MultiDiscrete":
        dtype = np.dtype(description["dtype"])
        return spaces.MultiDiscrete(array("nvec"), dtype=dtype.type, start=array("start"))
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["shape"])
    if kind == "Tuple":
        return spaces.Tuple([rebuild_space(part) for part in description["spaces"]])
    if kind == "Dict":
        return spaces.Dict({name: rebuild_space(part) for name, part in description["spaces"].items()})
    raise ValueError(f"unknown kind of space {kind!r}")
