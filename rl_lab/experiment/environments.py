"""Environments by id: native where there is a native one, Gymnasium's own vector environments otherwise."""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import rl_lab.envs  # noqa: F401  registers the lab's own
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.agent import import_beside
from rl_lab.experiment.faults import Fault, nearest

BACKENDS = ("auto", "native", "gymnasium")
VECTORIZATIONS = ("sync", "async")


@dataclass(frozen=True)
class Setup:
    """How environments are made. ``native`` is the class of the native environment that is used, or None."""

    env_id: str
    native: type[NativeVectorEnv] | None = None
    vectorization: str = "sync"
    frame_stack: int = 1
    time_aware: bool = False

    def __str__(self) -> str:
        how = f"native {self.native.__name__}" if self.native else f"Gymnasium's {self.vectorization} vector environment"
        stack = f", {self.frame_stack} frames stacked" if self.frame_stack > 1 else ""
        return how + stack + (", time observed" if self.time_aware else "")


def full_id(env_id: str) -> str:
    """The registered id: the lab's own environments go by their bare names, too, and ``module:id`` is one that a module registers."""
    own = f"rl_lab/{env_id}"
    return own if env_id not in gym.registry and own in gym.registry else env_id


def find_environment(env_id: str) -> Any:
    """The registered specification. Fault, with the nearest name, for an unknown id, a module that is not there, or missing packages."""
    module, _, registered = env_id.rpartition(":")
    try:
        if module:
            import_beside(module)
        return gym.spec(registered)
    except gym.error.Error as error:
        known = [name for name in gym.registry if "/" not in name or "/" in env_id or name.startswith("rl_lab/")]
        suggestion = nearest(env_id, known)
        detail = suggestion or f": {str(error).splitlines()[0]}"
        raise Fault(f"unknown environment {env_id!r}{detail}") from None
    except ModuleNotFoundError as error:
        what = (
            f"is of a module that cannot be imported: {error}" if module else f"needs a package that is not installed: {error}"
        )
        raise Fault(f"environment {env_id!r} {what}") from None
    except ImportError as error:
        raise Fault(f"environment {env_id!r} needs a package that is not installed: {error}") from None


def native_class(env_id: str) -> type[NativeVectorEnv] | None:
    """The native vector environment of an id: the lab's own, or the twin of one of Gymnasium's."""
    spec = gym.registry.get(env_id if env_id.startswith("rl_lab/") else f"rl_lab/{env_id}")
    entry = spec and spec.vector_entry_point
    found = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return found if isinstance(found, type) and issubclass(found, NativeVectorEnv) else None


def choose_setup(
    env_id: str, backend: str = "auto", vectorization: str = "sync", frame_stack: int = 1, time_aware: bool = False
) -> Setup:
    """Which environments to make. Fault if ``backend`` is "native" and there is none."""
    spec = find_environment(env_id)
    native = native_class(env_id) if backend != "gymnasium" else None
    if backend == "native" and native is None:
        raise Fault(f"{env_id!r} has no native environment: use --backend auto or gymnasium")
    if time_aware and not spec.max_episode_steps:
        raise Fault(f"{env_id!r} has no time limit to be aware of: leave out --time-aware")
    return Setup(env_id, native, vectorization, frame_stack, time_aware)


class _Named(gym.Wrapper):
    """An environment that says who it is when it fails."""

    def __init__(self, env: gym.Env, index: int):
        super().__init__(env)
        self._index, self._seed, self._steps = index, None, 0

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
        self._seed, self._steps = self._seed if seed is None else seed, 0  # type: ignore[assignment]
        return self._run(self.env.reset, seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._run(self.env.step, action)


def make_one(setup: Setup, index: int, render_mode: str | None = None) -> gym.Env:
    """One of Gymnasium's scalar environments, with the wrappers that the setup asks for."""
    pictures: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    env = gym.make(setup.env_id, **pictures)
    if not isinstance(env.observation_space, Box):
        env = gym.wrappers.FlattenObservation(env)
    if env.observation_space.shape == ():
        env = gym.wrappers.ReshapeObservation(env, (1,))
    if setup.time_aware:
        env = gym.wrappers.TimeAwareObservation(env, flatten=True, normalize_time=True)
    if setup.frame_stack > 1:
        env = gym.wrappers.FrameStackObservation(env, setup.frame_stack)
    return _Named(env, index)


def make_environments(setup: Setup | str, num_envs: int) -> VectorEnv:
    """``num_envs`` copies stepped together, which reset in the step that ends an episode and give its final observation.

    Observations that are not boxes (numbers, tuples, dictionaries) are flattened by Gymnasium's wrapper.
    """
    if isinstance(setup, str):
        setup = choose_setup(setup)
    mode = AutoresetMode.SAME_STEP
    try:
        if setup.native is not None:
            spec = gym.spec(setup.env_id if setup.env_id.startswith("rl_lab/") else f"rl_lab/{setup.env_id}")
            envs = setup.native(num_envs, spec.max_episode_steps, mode, setup.frame_stack, setup.time_aware)
        elif setup.vectorization == "async" and num_envs > 1:
            # forked workers would inherit a thread pool that is dead in them
            makers = [_Maker(setup, index) for index in range(num_envs)]
            envs = AsyncVectorEnv(makers, context="forkserver", autoreset_mode=mode)  # type: ignore[assignment]
        else:
            envs = SyncVectorEnv([_Maker(setup, index) for index in range(num_envs)], autoreset_mode=mode)  # type: ignore[assignment]
    except gym.error.DependencyNotInstalled as error:
        raise Fault(f"environment {setup.env_id!r} needs a package that is not installed: {error}") from None
    except gym.error.Error as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made so: {error}") from None
    except (MemoryError, Fault):
        raise
    except Exception as error:  # whatever its own code raises
        first = next(iter(str(error).strip().splitlines()), "")
        raise Fault(f"environment {setup.env_id!r} cannot be made: {type(error).__name__}: {first}") from error
    envs.spec = find_environment(setup.env_id)
    return envs


def close_environments(environments: VectorEnv) -> None:
    """Close vector environments. Where a process of theirs is dead all are killed: Gymnasium would wait for its answer."""
    processes = getattr(environments, "processes", [])
    if all(process.is_alive() for process in processes):
        environments.close()
        return
    for process in processes:
        process.kill()
        process.join()
    environments.closed = True


def spaces_of(setup: Setup) -> tuple[gym.Space, gym.Space]:
    """The observation and the action space of one environment; a native one is not compiled for it."""
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

    def __call__(self) -> gym.Env:
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
        return make_one(self.setup, self.index)
