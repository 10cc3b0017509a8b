"""Make vector environments from ids, environment objects, constructors or vector environments.

An id with a native environment gets the native one; any other gets Gymnasium's vector environments.
"""

import copy
import inspect
import multiprocessing
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault
from rl_lab.engine.tensor import Tensor
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.faults import Fault, first_line, show_warnings_plainly
from rl_lab.experiment.finding import check_arguments, creator_of, find_environment, full_id, native_class, own_id
from rl_lab.experiment.memory import require_memory
from rl_lab.experiment.preprocessing import arguments_of, as_presets, frames_of, native_takes, preprocessed
from rl_lab.experiment.vector import ProcessVectorEnv, SerialVectorEnv, close_environments
from rl_lab.experiment.wrapping import Arguments, Wrapper, Wrappers, as_arguments, as_texts, as_wrappers, texts_of, wrap
from rl_lab.rollout.actions import SpaceActions, options_of
from rl_lab.rollout.adapter import OPEN, SCORE, Adapter, VectorAdapter, checked_inside, described, masks_of, place_of, warn_once
from rl_lab.rollout.observations import ObservationMapping

BACKENDS = ("auto", "native", "gymnasium")
VECTORIZATIONS = ("sync", "async", "own")
CHANNELS = ("auto", "first", "last")
Maker = Callable[[], gym.Env]


@dataclass(frozen=True)
class Setup:
    """Everything that is needed to make environments: an id or a constructor ``maker``, and what is wrapped around them."""

    env_id: str
    native: type[NativeVectorEnv] | None = None
    """Class of the native environment, or None for Gymnasium's environments."""
    vectorization: str = "sync"
    """One of ``VECTORIZATIONS``: in this process, in one process each, or in the vector environment that the id registers."""
    frame_stack: int = 1
    time_aware: bool = False
    maker: Maker | None = None
    once: bool = False
    """Whether ``maker`` returns the same object every time, so that only one environment can exist."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrapper: tuple[Wrapper, ...] = ()
    """Wrappers, the innermost first."""
    preprocess: tuple[str, ...] = ()
    """Names of presets of `rl_lab.experiment.preprocessing`, the innermost first."""
    channels: str = "auto"
    """Position of the channels in pictures: "first", "last", or "auto" for the rule of `rl_lab.nn.pictures`."""
    pixels: bool = True
    """Whether uint8 and bool observations keep their dtype. Agents of older versions were trained on unscaled float32 instead."""
    render: bool = False
    """Whether the first environment shows itself in a window."""
    training: bool = True
    """Whether the environments are for training: only then may preprocessing end episodes at a lost life or clip rewards."""

    def __str__(self) -> str:
        how = f"native {self.native.__name__}" if self.native else f"Gymnasium's {self.vectorization} vector environment"
        if self.vectorization == "own":
            how = "its own vector environment"
        parts = [how, *([f"{self.frame_stack} frames stacked"] if self.frame_stack > 1 else [])]
        parts += ["time observed"] if self.time_aware else []
        parts += [f"with {', '.join(f'{k}={v!r}' for k, v in self.env_kwargs.items())}"] if self.env_kwargs else []
        parts += [f"wrapped in {', '.join(map(str, self.wrapper))}"] if self.wrapper else []
        parts += [f"preprocessed for {', '.join(self.preprocess)}"] if self.preprocess else []
        return ", ".join(parts)

    def describe(self) -> dict[str, Any] | None:
        """Return the setup as plain values for a file; None if it contains functions or objects, which a file cannot hold."""
        if self.maker is not None or texts_of(self.wrapper) is None:
            return None
        try:
            arguments = as_texts(self.env_kwargs)
        except Fault:
            return None
        backend = "native" if self.native else "gymnasium"
        description = {
            "env_id": self.env_id,
            "backend": backend,
            "vectorization": self.vectorization,
            "frame_stack": self.frame_stack,
            "time_aware": self.time_aware,
            "env_kwargs": list(arguments),
            "wrapper": list(self.wrapper),
            "preprocess": list(self.preprocess),
        }
        return {**description, **({"channels": self.channels} if self.pixels else {})}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Setup":
        """Rebuild the setup from a dict returned by `describe`. Raises Fault if its environment does not exist here."""
        return choose_setup(**description, pixels="channels" in description)


def choose_setup(
    env_id: str,
    backend: str = "auto",
    vectorization: str = "sync",
    frame_stack: int = 1,
    time_aware: bool = False,
    env_kwargs: Arguments = (),
    wrapper: Wrappers = (),
    preprocess: str | Sequence[str] = (),
    channels: str = "auto",
    pixels: bool = True,
) -> Setup:
    """Decide how to make the environments of an id.

    Raises Fault if the id is unknown or the settings contradict each other, such as backend "native" without a native environment.
    """
    _require_choices(backend, vectorization, channels, frame_stack, time_aware)
    arguments = as_arguments(env_kwargs)
    wrappers = as_wrappers(wrapper)
    presets = as_presets(preprocess)
    native = native_class(env_id) if isinstance(env_id, str) and backend != "gymnasium" and vectorization != "own" else None
    wrapped = bool(wrappers) or (native is not None and not native_takes(presets, native.world.observation_space))
    if native is not None and not wrapped and _native_takes(native, arguments):
        spec = gym.spec(own_id(env_id))  # without a look for the package of the original
    else:
        spec = find_environment(env_id)
        check_arguments(spec, arguments)
        if native is not None and backend == "native":
            what = "a wrapper" if wrappers else "preprocessing" if wrapped else f"the arguments {', '.join(arguments)}"
            raise Fault(f"the native environment of {env_id!r} does not take {what}: use --backend auto or gymnasium")
        native = None
    if backend == "native" and native is None:
        raise Fault(f"{env_id!r} has no native environment: use --backend auto or gymnasium")
    limit = arguments.get("max_episode_steps", spec.max_episode_steps)
    if time_aware and not limit and not wrappers:  # a wrapper may set a limit
        raise Fault(f"{env_id!r} has no time limit to observe: leave out --time-aware")
    if spec.entry_point is None:
        vectorization = "own"
    if vectorization == "own":
        if spec.vector_entry_point is None:
            raise Fault(f"{env_id!r} has no vector environment of its own: use --vectorization sync or async")
        if wrappers or presets or frame_stack > 1 or time_aware:
            what = "--wrapper" if wrappers else "--preprocess" if presets else "--time-aware" if time_aware else "--frame-stack"
            raise Fault(f"{what} wraps single environments, and {env_id!r} has vector environments of its own: leave it out")
    stack = frame_stack if frame_stack > 1 else frames_of(presets)
    return Setup(
        env_id,
        native,
        vectorization,
        stack,
        time_aware,
        env_kwargs=arguments,
        wrapper=wrappers,
        preprocess=presets,
        channels=channels,
        pixels=pixels,
    )


def _require_choices(backend: str, vectorization: str, channels: str, frame_stack: int, time_aware: bool) -> None:
    """Raise Fault for a word that is not among the choices, a number of frames below 1, or a switch that is not a bool."""
    for name, given, choices in (
        ("backend", backend, BACKENDS),
        ("vectorization", vectorization, VECTORIZATIONS),
        ("channels", channels, CHANNELS),
    ):
        if given not in choices:
            raise Fault(f"{name} must be one of {', '.join(choices)}, got {given!r}")
    if not isinstance(frame_stack, (int, np.integer)) or isinstance(frame_stack, bool) or frame_stack < 1:
        raise Fault(f"frame_stack must be an integer of at least 1, got {frame_stack!r}")
    if not isinstance(time_aware, (bool, np.bool_)):
        raise Fault(f"time_aware must be True or False, got {time_aware!r}")


def _native_takes(native: type[NativeVectorEnv], arguments: Mapping[str, Any]) -> bool:
    """Whether all arguments are numeric parameters of the native environment's world, or its time limit."""
    known = (*native.world.parameters, "max_episode_steps")
    return all(name in known and isinstance(value, (bool, int, float)) for name, value in arguments.items())


# --- making environments ---------------------------------------------------------------------------------------------


def _spec_of(setup: Setup) -> EnvSpec | None:
    """Copy the registered specification for another process, where the id may not be registered; None for a constructor."""
    return None if setup.maker is not None else copy.deepcopy(find_environment(setup.env_id))


def make_one(
    setup: Setup, index: int, render_mode: str | None = None, spec: EnvSpec | None = None, adapted: bool = True
) -> gym.Env:
    """Make environment number ``index`` of a setup, with all wrappers of the setup.

    ``spec`` is the specification to use in a process where the id is not registered. The `Adapter` and the wrappers above it, for frames
    and time, are left out unless ``adapted``. Raises Fault if a constructor or a wrapper does not return an environment. Exceptions of
    the environment's own code pass through.
    """
    if setup.maker is not None:
        env = setup.maker()
        if not isinstance(env, gym.Env):
            raise Fault(f"{setup.env_id} returned {env!r}, not a gymnasium.Env: return the environment that the function makes")
        if setup.render and index == 0 and env.render_mode != "human":
            env = gym.wrappers.HumanRendering(with_pictures(env))
    else:
        found = find_environment(setup.env_id) if spec is None else spec
        arguments = {**arguments_of(setup.preprocess, found), **setup.env_kwargs}
        if render_mode is None and setup.render and index == 0:
            render_mode = "human"
        if render_mode is not None:
            arguments["render_mode"] = render_mode
        env = gym.make(found, **{"disable_env_checker": True, **arguments})
    is_wrapped = bool(setup.wrapper or setup.preprocess)
    env = checked_inside(env, index, is_wrapped, is_foreign=setup.once)
    if is_wrapped:
        env = gym.wrappers.RecordEpisodeStatistics(env, stats_key=SCORE)  # below all wrappers that change rewards or episodes
    env = preprocessed(wrap(env, setup.wrapper), setup.preprocess, setup.training)
    if not adapted:
        return env
    env = Adapter(env, index)
    if not setup.pixels and env.observation_space.dtype in (np.uint8, np.bool_):  # type: ignore[comparison-overlap]
        env = gym.wrappers.DtypeObservation(env, np.float32)
    if setup.time_aware:
        env = gym.wrappers.TimeAwareObservation(env, flatten=True, normalize_time=True)
    if setup.frame_stack > 1:
        require_memory(env.observation_space.shape or (), setup.frame_stack)
        env = gym.wrappers.FrameStackObservation(env, setup.frame_stack)
    return env


def with_pictures(env: gym.Env) -> gym.Env:
    """Set the render mode of an environment whose constructor does not store it. Its ``metadata`` must list "rgb_array"."""
    if env.unwrapped.render_mode is None and "rgb_array" in env.metadata.get("render_modes", ()):
        env.unwrapped.render_mode = "rgb_array"
    return env


def make_environments(setup: Setup | str, num_envs: int, or_fewer: bool = False) -> VectorEnv:
    """Make ``num_envs`` environments that are stepped together, with autoreset mode SAME_STEP.

    ``or_fewer`` allows fewer environments, at least one, if the next one cannot be opened. Observations that are not a Box are flattened
    by `ObservationMapping`. Raises Fault if an environment cannot be made.
    """
    if isinstance(setup, str):
        setup = choose_setup(setup)
    mode = AutoresetMode.SAME_STEP
    envs: Any  # vector environments, with the attribute ``observation_mapping`` that is set below
    with faults_of_making(setup):
        if setup.native is not None:
            require_memory(setup.native.world.observation_space.shape, num_envs * setup.frame_stack)
            spec = gym.spec(own_id(setup.env_id))
            parameters: dict[str, Any] = {name: float(value) for name, value in setup.env_kwargs.items()}
            limit = int(parameters.pop("max_episode_steps", spec.max_episode_steps or 0)) or None
            envs = setup.native(num_envs, limit, mode, setup.frame_stack, setup.time_aware, **parameters)
        elif setup.vectorization == "own":
            envs = _own_environments(setup, num_envs)
        elif setup.vectorization == "async" and num_envs > 1:
            # a forked worker would inherit a thread pool whose threads do not exist in it
            makers = [_Maker(setup, index, _spec_of(setup)) for index in range(num_envs)]
            context = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            if context == "forkserver":  # it imports this package once, for all processes that come from it
                multiprocessing.get_context(context).set_forkserver_preload(["__main__", __name__])  # type: ignore[attr-defined]
            envs = ProcessVectorEnv(makers, context=context, autoreset_mode=mode)
        else:
            made = _make_copies(setup, num_envs, or_fewer)
            envs = SerialVectorEnv([partial(_same, env) for env in made], autoreset_mode=mode)
    if setup.maker is None:
        found = find_environment(setup.env_id)
        limit = setup.env_kwargs.get("max_episode_steps", found.max_episode_steps)
        envs.unwrapped.spec = replace(found, max_episode_steps=limit, kwargs=found.kwargs)
    envs.observation_mapping = observation_mapping(envs)
    vector: Any = envs
    if isinstance(envs, (SerialVectorEnv, ProcessVectorEnv)):
        vector.time_limit = vector.get_attr("time_limit")[0]
    return envs


@contextmanager
def faults_of_making(setup: Setup) -> Iterator[None]:
    """Context in which environments are made. Raises Fault, naming the environment, for whatever its code raises."""
    try:
        yield
    except gym.error.DependencyNotInstalled as error:
        raise Fault(f"environment {setup.env_id!r} needs a package that is not installed: {error}") from None
    except gym.error.Error as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made: {str(error).splitlines()[0]}") from None
    except (MemoryError, Fault):
        raise
    except EnvironmentFault as error:
        raise Fault(f"environment {setup.env_id!r} cannot be made: {error}") from None
    except FOREIGN_ERRORS as error:
        detail = str(error) if isinstance(error, ValueError) and not place_of(error) else described(error)
        missing = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: '(\w+)'", str(error))
        hint = f": give --env-kwargs {missing[1]}=VALUE" if missing and "__init__" in str(error) else ""
        if isinstance(error, AttributeError) and "_cached_spec" in str(error):
            hint = ": a wrapper calls super().__init__(env) before anything else"
        raise Fault(f"environment {setup.env_id!r} cannot be made: {detail}{hint}") from error


def _same(env: gym.Env) -> gym.Env:
    """Return an environment that exists already, as a maker for `SerialVectorEnv`."""
    return env


def _make_copies(setup: Setup, count: int, or_fewer: bool) -> list[gym.Env]:
    """Make ``count`` environments in this process.

    If one cannot be made, closes the others and raises its exception; with ``or_fewer`` returns the others, if there are any.
    """
    made: list[gym.Env] = []
    try:
        while len(made) < count:
            env = make_one(setup, len(made))
            if any(env.unwrapped is other.unwrapped for other in made):
                if or_fewer:
                    return made
                raise Fault(
                    f"{setup.env_id} returned the same environment again, which {count} would step at once: return a new one in every "
                    "call, or set num_envs to 1"
                )
            if setup.maker is not None and not setup.once:
                if OPEN.get(id(env.unwrapped)) is env.unwrapped:
                    warn_once(
                        f"{setup.env_id} returned the same environment again: an evaluation plays in the environment of the training and "
                        "breaks its episodes off; return a new one in every call"
                    )
                OPEN[id(env.unwrapped)] = env.unwrapped
            made.append(env)
    except FOREIGN_ERRORS:
        if or_fewer and made:
            return made
        for env in made:
            env.close()
        raise
    return made


def _own_environments(setup: Setup, num_envs: int) -> VectorEnv:
    """Call the vector entry point of an id, with autoreset mode SAME_STEP if it takes ``autoreset_mode``.

    Raises Fault if the entry point does not return vector environments.
    """
    spec = find_environment(setup.env_id)
    arguments = dict(setup.env_kwargs)
    creator = creator_of(spec, vector=True)
    taken = inspect.signature(creator).parameters
    if "autoreset_mode" in taken:
        arguments.setdefault("autoreset_mode", AutoresetMode.SAME_STEP)
    limit = arguments.pop("max_episode_steps", spec.max_episode_steps)
    if limit is not None and ("max_episode_steps" in taken or any(p.kind == p.VAR_KEYWORD for p in taken.values())):
        arguments["max_episode_steps"] = limit
    envs = creator(num_envs=num_envs, **{**spec.kwargs, **arguments})
    if not isinstance(envs, VectorEnv):
        raise Fault(
            f"the vector entry point of {setup.env_id!r} returned {envs!r}: it must return a gymnasium.vector.VectorEnv"
        )
    return envs


def observation_mapping(envs: VectorEnv) -> ObservationMapping:
    """Return the mapping from one environment's own observations to the arrays that the agent sees."""
    if isinstance(envs, (SyncVectorEnv, AsyncVectorEnv)):
        return envs.get_attr("observation_mapping")[0]
    return ObservationMapping(envs.single_observation_space)


def open_environments(
    what: "Setup | str | gym.Env | Maker | VectorEnv",
    num_envs: int | None = None,
    *,
    backend: str = "auto",
    vectorization: str = "sync",
    frame_stack: int = 1,
    time_aware: bool = False,
    env_kwargs: Arguments = (),
    wrapper: Wrappers = (),
    preprocess: str | Sequence[str] = (),
    channels: str = "auto",
) -> tuple[VectorEnv, Setup | None]:
    """Make vector environments from a `Setup`, an id, an environment object or a constructor; vector environments are returned as they are.

    A constructor is a class or function that is called with ``env_kwargs``. A class of vector environments also gets ``num_envs``.
    Returns the environments and the `Setup` that makes them again, or None for vector environments. Raises Fault if the environments
    cannot be made, or if ``num_envs`` is above 1 for an environment object, of which only one exists.
    """
    count = 1 if num_envs is None else num_envs
    if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
        raise Fault(f"num_envs must be an integer of at least 1, got {count!r}")
    is_class = isinstance(what, type) and issubclass(what, VectorEnv)
    if is_class or isinstance(what, VectorEnv):
        asked = {
            "backend": backend != "auto",
            "vectorization": vectorization != "sync",
            "frame_stack": frame_stack != 1,
            "time_aware": time_aware,
            "env_kwargs": bool(env_kwargs) and not is_class,
            "wrapper": bool(wrapper),
            "preprocess": bool(preprocess),
            "channels": channels != "auto",
        }
        if any(asked.values()):
            names = " and ".join(name for name, is_asked in asked.items() if is_asked)
            raise Fault(f"vector environments are taken as they are, so {names} must be applied before they are made")
        given: Any = what
        envs = given(num_envs=count, **as_arguments(env_kwargs)) if is_class else given
        if num_envs not in (None, envs.num_envs):
            raise Fault(f"num_envs is {num_envs}, but the vector environments are {envs.num_envs}: leave num_envs out")
        _require_no_method_masks(envs)
        return envs if isinstance(envs.single_observation_space, spaces.Box) else VectorAdapter(envs), None
    single: Any = what
    setup = setup_of(
        single,
        backend=backend,
        vectorization=vectorization,
        frame_stack=frame_stack,
        time_aware=time_aware,
        env_kwargs=env_kwargs,
        wrapper=wrapper,
        preprocess=preprocess,
        channels=channels,
    )
    if setup.once and count > 1:
        raise Fault(f"one environment object cannot be stepped {count} times at once: pass a function that makes one")
    return make_environments(setup, count), setup


def setup_of(
    what: "Setup | str | gym.Env | Maker",
    *,
    backend: str = "auto",
    vectorization: str = "sync",
    frame_stack: int = 1,
    time_aware: bool = False,
    env_kwargs: Arguments = (),
    wrapper: Wrappers = (),
    preprocess: str | Sequence[str] = (),
    channels: str = "auto",
) -> Setup:
    """Return the setup for an id, an environment object or a constructor, as `open_environments` uses it; a `Setup` as it is.

    Raises Fault if the environments cannot be made in this way.
    """
    if isinstance(what, Setup):
        return what
    _require_choices(backend, vectorization, channels, frame_stack, time_aware)
    wrapping: dict[str, Any] = {
        "vectorization": vectorization,
        "frame_stack": frame_stack,
        "time_aware": time_aware,
        "channels": channels,
    }
    if isinstance(what, str):
        return choose_setup(full_id(what), backend, env_kwargs=env_kwargs, wrapper=wrapper, preprocess=preprocess, **wrapping)
    if backend == "native":
        raise Fault("only ids have native environments: use backend auto or gymnasium")
    arguments = as_arguments(env_kwargs)
    presets = as_presets(preprocess)
    wrapping |= {"wrapper": as_wrappers(wrapper), "preprocess": presets}
    wrapping["frame_stack"] = frame_stack if frame_stack > 1 else frames_of(presets)
    if isinstance(what, gym.Env):
        if arguments:
            raise Fault("an environment object exists already: pass its class, or a function, to give it env_kwargs")
        env = what
        return Setup(_name_of(what), maker=lambda: env, once=True, **wrapping)
    if callable(what):
        name = getattr(what, "__name__", "the environment")  # a partial has no name
        maker: Any = partial(what, **arguments) if arguments else what  # `make_one` checks the result of a call
        return Setup(name, maker=maker, **wrapping)
    raise Fault(
        f"{what!r} is not an environment: pass an id, a gymnasium.Env, a function that makes one, or vector environments"
    )


def _require_no_method_masks(envs: VectorEnv) -> None:
    """Raise Fault if single environments inside give masks by ``action_masks``, which Gymnasium's vector environments do not pass on."""
    inner = getattr(envs.unwrapped, "envs", ())
    if options_of(envs.single_action_space) and any(isinstance(env, gym.Env) and masks_of(env) for env in inner):
        raise Fault(
            "action_masks() of single environments is not passed on by vector environments: pass the class of the environment and "
            'num_envs, or return the mask in info["action_mask"]'
        )


def _name_of(env: gym.Env) -> str:
    """Name of an environment for messages: its id, or else the name of its class."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def copy_for_evaluation(setup: Setup) -> Setup:
    """Return a setup for evaluation: in this process, separate from the training environments, with ``training`` False.

    Raises Fault if the setup has an environment object that cannot be copied.
    """
    vectorization = "own" if setup.vectorization == "own" else "sync"
    setup = replace(setup, vectorization=vectorization, training=False, render=False)
    if not setup.once or setup.maker is None:
        return setup
    try:
        env = copy.deepcopy(setup.maker())
    except FOREIGN_ERRORS as error:
        raise Fault(
            f"{setup.env_id} cannot be copied for an evaluation, pass a function that makes one: {first_line(error)}"
        ) from error
    return replace(setup, maker=lambda: env)


def spaces_of(setup: Setup) -> tuple[gym.Space, gym.Space]:
    """Return the observation space and the action space of one environment, without compiling a native one. Raises Fault."""
    if setup.native is not None:
        return setup.native.world.observation_space, setup.native.world.action_space
    probe = make_environments(setup, 1)
    try:
        return probe.single_observation_space, probe.single_action_space
    finally:
        close_environments(probe)


@dataclass(frozen=True)
class _Maker:
    """Picklable function that makes one environment, in this process or in another."""

    setup: Setup
    index: int
    spec: EnvSpec | None = None

    def __call__(self) -> gym.Env:
        if multiprocessing.parent_process() is not None:
            show_warnings_plainly()
            # A terminal sends these signals to all its processes: the main process decides what happens. Windows has no SIGHUP.
            for name in {"SIGINT", "SIGHUP"} & signal.Signals.__members__.keys():
                signal.signal(signal.Signals[name], signal.SIG_IGN)
        return make_one(self.setup, self.index, spec=self.spec)


# --- spaces without environments ---------------------------------------------------------------------------------------


class AbsentEnvironments(VectorEnv):
    """Stand-in with the spaces of environments that cannot be made: a loaded agent can predict, but `step` raises Fault."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, num_envs: int, masked: bool):
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self._masked = masked

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return zeros as observations, and an info whose mask allows everything if the environments gave masks."""
        shape = (self.num_envs, *(self.single_observation_space.shape or ()))
        options_count = options_of(self.single_action_space) if self._masked else 0
        info = {"action_mask": np.ones((self.num_envs, options_count), bool)} if self._masked else {}
        return np.zeros(shape, self.single_observation_space.dtype), info

    def step(self, actions: SpaceActions) -> NoReturn:
        """Raise Fault."""
        raise Fault("this agent was loaded without its environment: pass one to load(path, env)")


def absent_environments(
    observation_space: gym.Space, action_space: gym.Space, num_envs: int, masked: bool, raw: gym.Space | None = None
) -> VectorEnv:
    """Make a stand-in for environments that cannot be made again.

    ``masked`` says whether they gave action masks. ``raw`` is the observation space of one environment before its observations were
    flattened.
    """
    envs = AbsentEnvironments(observation_space, action_space, num_envs, masked)
    if raw is not None:
        envs.observation_mapping = ObservationMapping(raw, options_of(action_space))  # type: ignore[attr-defined]
    return envs


def summary_of(observation_space: gym.Space, action_space: gym.Space) -> dict[str, str]:
    """Describe both spaces as text; a policy fits if the texts are equal: bounds of observations are left out."""

    def words(space: gym.Space, bounds: bool) -> str:
        if isinstance(space, spaces.Box) and not bounds:
            return f"{space.dtype} of shape {space.shape}"
        return " ".join(str(space).split())

    return {"observation": words(observation_space, False), "action": words(action_space, True)}


def describe_space(space: gym.Space, or_text: bool = False) -> dict[str, Any]:
    """Return a space as plain values and arrays, for files.

    With ``or_text`` a space without numbers is described as Text; otherwise raises TypeError for a space of unknown kind.
    """
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
        n = space.n if isinstance(space.n, (int, np.integer)) else list(map(int, space.n))
        return {"kind": "MultiBinary", "shape": list(space.shape), "n": n if isinstance(n, list) else int(n)}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [describe_space(part, or_text) for part in space.spaces]}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {name: describe_space(part, or_text) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.OneOf):
        return {"kind": "OneOf", "spaces": [describe_space(part, or_text) for part in space.spaces]}
    if or_text:
        return {"kind": "Text"}
    raise TypeError(f"a space of kind {type(space).__name__} cannot be saved")


def rebuild_space(description: dict[str, Any]) -> gym.Space:
    """Rebuild a space from a dict returned by `describe_space`. Raises KeyError or ValueError if the dict is not such a description."""

    def array(name: str) -> np.ndarray:
        value = description[name]
        return value.numpy() if isinstance(value, Tensor) else np.asarray(value)

    kind = description["kind"]
    if kind == "Box":
        dtype: Any = np.dtype(description["dtype"])  # Gymnasium's types allow a class only, which has no byte order
        return spaces.Box(array("low").astype(dtype), array("high").astype(dtype), dtype=dtype)
    if kind == "Discrete":
        dtype = np.dtype(description["dtype"])
        other: dict[str, Any] = {} if dtype == np.int64 else {"dtype": dtype}  # Gymnasium before 1.1 has int64 alone
        return spaces.Discrete(description["n"], start=description["start"], **other)
    if kind == "MultiDiscrete":
        dtype = np.dtype(description["dtype"])
        return spaces.MultiDiscrete(array("nvec").astype(dtype), dtype=dtype, start=array("start").astype(dtype))
    if kind == "MultiBinary":
        shape = description["shape"]  # older versions wrote no n
        return spaces.MultiBinary(description.get("n", shape[0] if len(shape) == 1 else shape))
    if kind == "Tuple":
        return spaces.Tuple([rebuild_space(part) for part in description["spaces"]])
    if kind == "Dict":
        return spaces.Dict({name: rebuild_space(part) for name, part in description["spaces"].items()})
    if kind == "OneOf":
        return spaces.OneOf([rebuild_space(part) for part in description["spaces"]])
    if kind == "Text":
        return spaces.Text(1)
    raise ValueError(f"unknown kind of space {kind!r}")
