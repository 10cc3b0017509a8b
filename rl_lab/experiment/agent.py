"""The base class of agents: the contract that the driver, the Python API and `rl_lab.testing.check_agent` rely on."""

import contextlib
import copy
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, Tuple
from gymnasium.vector import VectorEnv

import rl_lab as rl
from rl_lab.engine.errors import EnvironmentFault, NumericalError, ShapeError
from rl_lab.engine.kernels import usual
from rl_lab.experiment.config import Between, Search, as_plain, check_config, kinds_of, make_config, number_of, read_toml
from rl_lab.experiment.environments import (
    Setup,
    absent_environments,
    describe_space,
    open_environments,
    rebuild_space,
)
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.finding import import_beside
from rl_lab.experiment.finite import first_sources, guard_updates, not_finite_error
from rl_lab.experiment.parts import EpisodicPart, check_part, load_part, part_state
from rl_lab.experiment.preprocessing import as_presets, channels_of, settings_of
from rl_lab.experiment.progress import NoProgress, make_progress
from rl_lab.experiment.suggestions import nearest, nearest_agent
from rl_lab.experiment.trust import unknown_modules
from rl_lab.native.ahead import helped
from rl_lab.nn import GraphNetwork
from rl_lab.nn.networks import is_convolutional
from rl_lab.nn.pictures import Observed, picture_of
from rl_lab.rollout import ActionMapping, Batch, Collector, Moment, Normalization, Rollout
from rl_lab.rollout.actions import ANY_ACTIONS, choices_of, mask_row, single
from rl_lab.rollout.observations import conform, rows_of
from rl_lab.rollout.policies import Insight
from rl_lab.rollout.replay import ReplayBuffer
from rl_lab.rollout.storage import stored_dtype

Metrics = dict[str, float]
"""Numbers by log tag, such as ``losses/td_loss``."""
Callback = Callable[["Agent", Metrics], object]
"""Called after every step of an agent; returns False to stop the training."""
Self = TypeVar("Self", bound="Agent")


class Agent:
    """One algorithm with its networks, its data and its random streams.

    ``DQN("CartPole-v1", seed=1, learning_rate=1e-3)`` makes an agent for an environment, given as an id, a ``gym.Env``, a function that
    returns one, or vector environments; settings go by name. The settings that `presets.toml` holds for an id are used unless
    ``preset=False``; ``num_envs`` copies of the environment are stepped together. ``env_kwargs`` are the environment's own arguments;
    ``wrapper`` and ``preprocess`` go around the environment, as ``--wrapper`` and ``--preprocess`` do. Raises Fault, naming the nearest
    valid choice, for an unknown setting or environment, or spaces that the agent cannot take.

    A subclass declares ``Config``, the spaces that it takes, the names of its parts (``learned`` and ``saved``), and defines `build`,
    `step`, `greedy` and `sample`. A part is anything with ``state_dict`` and ``load_state_dict``, a tensor, a NumPy array, a random
    stream, a number, None, or a list or dict of these. `state_dict` and `load_state_dict` follow from the declaration. Parts may also have
    the methods of `rl_lab.experiment.parts.EpisodicPart` and `DataPart`.
    """

    Config: ClassVar[type]
    """Frozen dataclass of the hyperparameters, made of `rl_lab.experiment.config.setting`; it has ``total_timesteps``."""
    action_spaces: ClassVar[tuple[type[Space], ...]] = ANY_ACTIONS
    """Kinds of action space that the agent can act in."""
    observation_spaces: ClassVar[tuple[type[Space], ...]] = (Box,)
    """Kinds of observation space. Others are flattened to a Box before the agent sees them."""
    learned: ClassVar[tuple[str, ...]] = ()
    """Names of the parts that make up what was learned. ``--network RUN`` copies only these from an earlier run."""
    saved: ClassVar[tuple[str, ...]] = ()
    """Names of the other parts that a bitwise identical continuation needs, such as optimisers, replay and random streams."""
    acting_memory: str | None = None
    """Name of the attribute that holds what `act` remembers, one row an episode; None for agents without memory."""

    config: Any = None
    envs: VectorEnv
    seed: int
    num_envs: int
    shape: tuple[int, ...]
    """Shape of one environment's observations."""
    observed: Observed
    """What networks need to know of the observations."""
    observation_dtype: Any
    """NumPy dtype in which observations are kept: uint8 or bool as the environment's, else float32."""
    notes: tuple[str, ...] = ()
    """Lines on how the observations are read, to print before training."""
    space: Any
    """Action space of one environment."""
    mapping: ActionMapping
    """From the policy's actions to those of `space`."""
    setup: Setup | None
    """How the environments can be made again; None for vector environments that were passed in."""
    collector: Collector = None  # type: ignore[assignment]
    """Collects experience; None for agents that play whole episodes."""
    normalization: Normalization | None = None
    """Statistics by which an agent with a replay buffer normalizes; None if it does not."""
    replay: Any = None
    """The replay buffer of agents that have one. A class other than `ReplayBuffer` needs ``add``, ``sample`` and ``nbytes``."""
    timesteps: int = 0
    """Environment steps taken so far."""

    def __init__(
        self,
        env: str | gym.Env | Callable[[], gym.Env] | VectorEnv,
        *,
        seed: int = 1,
        num_envs: int | None = None,
        preset: bool = True,
        backend: str = "auto",
        vectorization: str = "sync",
        frame_stack: int = 1,
        time_aware: bool = False,
        env_kwargs: Any = (),
        wrapper: Any = (),
        preprocess: Any = (),
        channels: str = "auto",
        **settings: Any,
    ):
        if not isinstance(preset, (bool, np.bool_)):
            raise Fault(f"preset must be True or False, got {preset!r}")
        tuned = preset_for(type(self), name_of_agent(type(self)), env) if preset and isinstance(env, str) else {}
        own_class: Any = type(self)
        check_class(own_class)
        names = {field.name for field in dataclasses.fields(self.Config)}
        presets = as_presets(preprocess or tuned.get("preprocess", ()))
        tuned = {**settings_of(presets), **tuned}
        own = {name: value for name, value in tuned.items() if name in names}
        config: Any = make_config(self.Config, {**own, **settings})
        if num_envs is None and not isinstance(env, VectorEnv):
            num_envs = int(tuned.get("num_envs", 1))
        envs, setup = open_environments(
            env,
            num_envs,
            backend=backend,
            vectorization=vectorization,
            frame_stack=int(tuned.get("frame_stack", frame_stack)) if frame_stack == 1 else frame_stack,
            time_aware=bool(tuned.get("time_aware", False)) if time_aware is False else time_aware,
            env_kwargs=env_kwargs or tuned.get("env_kwargs", ()),
            wrapper=wrapper or tuned.get("wrapper", ()),
            preprocess=presets,
            channels=channels,
        )
        self.setup = setup
        try:
            self._start(config, envs, seed)
        except BaseException:
            if not isinstance(env, VectorEnv):
                envs.close()
            raise

    @classmethod
    def create(cls: type[Self], config: Any, envs: VectorEnv, seed: int, setup: Setup | None = None) -> Self:
        """Make an agent from a config and vector environments, as the driver does. Raises Fault for what does not fit."""
        agent = object.__new__(cls)
        agent.setup = setup
        agent._start(config, envs, seed)
        return agent

    def _start(self, config: Any, envs: VectorEnv, seed: int) -> None:
        name = envs.spec.id if getattr(envs, "spec", None) else "the environment"  # type: ignore[union-attr]
        self.check_spaces(name, envs.single_observation_space, envs.single_action_space)
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
            raise Fault(f"seed must be an integer of at least 0, got {seed!r}")
        self.config = config
        self.envs = envs
        self.seed = int(seed)
        self.num_envs = envs.num_envs
        self.shape = tuple(envs.single_observation_space.shape or ())
        self.space = envs.single_action_space
        self.mapping = ActionMapping(self.space)
        self.observation_dtype = stored_dtype(envs.single_observation_space)
        self.observed = observed_in(envs.single_observation_space, self.setup)
        self.timesteps = 0
        try:
            if is_convolutional(getattr(config, "network", "")):
                self.notes = (str(picture_of(self.observed)),)
            self.build()
            self._check_parts()
        except (ValueError, TypeError, ShapeError, OverflowError, RecursionError) as error:
            raise error if isinstance(error, Fault) else Fault(str(error)) from error
        self._guard = guard_updates(self)
        if self.collector is not None:
            self.collector.begin = self._guard.begin
        self._greedy = self.record(rl.no_grad()(self._greedy_scaled))
        self._inputs: list[tuple[np.ndarray, rl.Tensor]] = []

    def _check_parts(self) -> None:
        """Raise Fault unless `build` made all parts that are declared, and they can be saved: not after hours of training."""
        kind = type(self).__name__
        for declared in ("learned", "saved"):
            names = getattr(self, declared)
            if isinstance(names, str):
                raise Fault(f"{kind}.{declared} must be a tuple of names, such as ({names!r},)")
            for name in names:
                if not hasattr(self, name):
                    raise Fault(f"{kind}.{declared} names {name!r}, which build() does not make")
                check_part(getattr(self, name), f"the part {name} of {kind}")

    # --- what a subclass defines -------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make networks, optimisers, streams and the collector from ``config``, ``envs``, ``seed``, ``shape`` and ``mapping``."""
        raise NotImplementedError(f"{type(self).__name__} must define build()")

    def step(self) -> Metrics:
        """Do a bounded amount of work: collect, learn, advance ``timesteps``. Returns metrics by log tag."""
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The policy's best actions for observations (batch, ...); see `rl_lab.rollout.actions` for their form."""
        raise NotImplementedError(f"{type(self).__name__} must define greedy()")

    def _greedy_scaled(self, observations: rl.Tensor, action_mask: rl.Tensor | None) -> rl.Tensor:
        return self.mapping.scaled(self.greedy(observations, action_mask))

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions to explore with, under ``actions``, and what belongs to them, for a `Moment`."""
        raise NotImplementedError(f"{type(self).__name__} must define sample()")

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Actions to explore with, for any batch of observations; `sample` without what belongs to them."""
        return self.sample(Moment(observations, rl.zeros(len(observations), dtype=rl.int64), action_mask))["actions"]

    # --- normalization of agents with a replay buffer -----------------------------------------------------------------

    def make_normalization(self, observations: bool = True) -> Normalization | None:
        """The normalization that the settings ask for, or None. Bytes are scaled by the networks instead.

        Pass ``observations=False`` for a network that needs the observations as they are, such as an evolved one.
        """
        c = self.config
        shape = self.shape if observations and c.normalize_observations and self.observed.is_float else None
        if shape is None and not c.normalize_rewards:
            return None
        return Normalization(shape, c.normalize_rewards, self.num_envs, c.gamma)

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Observations (batch, ...) as the networks see them."""
        return observations if self.normalization is None else self.normalization.observations(observations)

    def sample_batch(self, size: int) -> Batch:
        """A batch of replay as the networks see it."""
        batch = self.replay.sample(size)
        return batch if self.normalization is None else self.normalization.batch(batch)

    def store_rollout(self, rollout: Rollout) -> None:
        """Add a rollout to replay and to the statistics of the normalization."""
        self.replay.add(rollout.transitions())
        if self.normalization is not None:
            self.normalization.update(rollout)

    # --- what the driver may call ------------------------------------------------------------------------------------

    def begin_episodes(self, begins: np.ndarray) -> None:
        """Note where episodes begin, bool (batch,), before their first observations are given to `act`. For agents with memory."""

    def pictures(self) -> dict[str, np.ndarray]:
        """Images (height, width, 3) uint8 by log tag."""
        return {}

    def saved_networks(self) -> dict[str, GraphNetwork]:
        """Networks by the name of their file in the run directory."""
        return {}

    @classmethod
    def read_config(cls, path: Path, env: str = "") -> tuple[dict[str, Any], list[str]]:
        """Settings and remarks from another program's configuration file, for an environment's id if it is known.

        Raises Fault if the file cannot be read or does not fit the environment.
        """
        return read_toml(path), []

    @classmethod
    def search_space(cls) -> dict[str, Search]:
        """Where ``--optimize`` looks for better settings, by name: what the settings in `Config` declare with ``search``.

        If none of them does, every real-valued setting that must be positive is looked for between a tenth and ten times its default.
        """
        listed = dataclasses.fields(cls.Config)
        declared = {field.name: field.metadata["search"] for field in listed if field.metadata.get("search") is not None}
        return declared or {
            field.name: Between(
                max(field.default / 10, field.metadata.get("least") or 0),
                _at_most(field.default, field.metadata.get("most")),
                log=True,
            )
            for field in listed
            if isinstance(field.default, float) and field.default > 0 and field.metadata.get("above") == 0
        }

    def remarks(self) -> list[str]:
        """Lines to print before training, such as a warning that no update will run."""
        return []

    @property
    def continues(self) -> bool:
        """Whether the state that was loaded last continues in the middle of its episodes."""
        return self.collector is None or self.collector.continues

    # --- acting ------------------------------------------------------------------------------------------------------

    def act(self, observations: np.ndarray, deterministic: bool = False, action_mask: np.ndarray | None = None) -> Any:
        """Actions of the space, greedy or as the agent explores, for a batch of observations (batch, ...).

        ``action_mask`` is bool (batch, options), where the environments give one.
        """
        x = rl.from_numpy(np.ascontiguousarray(observations, self.observation_dtype))
        mask = None if action_mask is None else rl.from_numpy(np.ascontiguousarray(action_mask, bool))
        if deterministic:
            return self.mapping.of_scaled(self._greedy(x, mask))
        with rl.no_grad():
            return self.mapping(self.explore(x, mask))

    def predict(
        self, observation: Any, state: Any = None, *, deterministic: bool = True, action_mask: np.ndarray | None = None
    ) -> Any:
        """The action for one observation, or an array of actions for a batch (batch, ...).

        Observations are those of the environment that the agent was made for, before flattening. An agent with memory returns a pair:
        the action and the ``state`` to pass with the next observation; None starts an episode. Raises ShapeError for an observation
        or a state of another shape.
        """
        if type(observation) is np.ndarray and observation.dtype == self.observation_dtype and observation.shape == self.shape:
            x = observation
            one = True
        else:
            x, one, given = self._arrays(observation)
            action_mask = given if action_mask is None else action_mask
        mask = None
        if action_mask is not None and self.mapping.num_masked:
            mask = self._masks([action_mask] if one else action_mask, len(x) if not one else 1)
        if one and mask is None and deterministic and type(self).act is Agent.act:
            return self._best_action(x)
        x = x[None] if one else x
        if self.acting_memory is None:
            actions = self.act(x, deterministic, mask)
            return single(actions) if one else actions
        kept = getattr(self, self.acting_memory)
        try:
            setattr(self, self.acting_memory, copy.deepcopy(kept))  # acting may write into it
            self.begin_episodes(np.ones(len(x), bool))
            if state is not None:
                setattr(self, self.acting_memory, self._given_memory(state, getattr(self, self.acting_memory)))
            actions = self.act(x, deterministic, mask)
            after = copy.deepcopy(getattr(self, self.acting_memory))
        finally:
            setattr(self, self.acting_memory, kept)
        return (single(actions) if one else actions), after

    def _best_action(self, observation: np.ndarray) -> Any:
        """The greedy action for one observation. Its tensor is used again, because making one takes as long as a small network."""
        try:
            given = self._inputs.pop()  # so that no other thread writes into it
        except IndexError:
            x = rl.from_numpy(np.zeros((1, *self.shape), self.observation_dtype))
            given = x.numpy(), x
        array, x = given
        array[0] = observation
        action = self.mapping.single_of_scaled(self._greedy(x, None))
        self._inputs.append(given)
        return action

    def _given_memory(self, state: Any, fresh: Any) -> Any:
        """A copy of the state that `predict` was given. Raises ShapeError if it does not have the shape of a ``fresh`` memory.

        `act` begins episodes if the number of rows has changed: it would ignore the state of another batch.
        """
        if not isinstance(fresh, (rl.Tensor, np.ndarray)):
            return copy.deepcopy(state)
        if not isinstance(state, (rl.Tensor, np.ndarray)) or tuple(state.shape) != tuple(fresh.shape):
            found = f"shape {tuple(state.shape)}" if hasattr(state, "shape") else f"type {type(state).__name__}"
            raise ShapeError(
                f"{type(self).__name__}.predict takes a state of shape {tuple(fresh.shape)} with {len(fresh)} observations, got {found}: "
                "pass the state that predict returned for the observations before, or None to begin episodes"
            )
        given, wanted = (part.detach().numpy() if isinstance(part, rl.Tensor) else part for part in (state, fresh))
        array = np.array(given, wanted.dtype)
        return array if isinstance(fresh, np.ndarray) else rl.from_numpy(array)

    def _arrays(self, observation: Any) -> tuple[np.ndarray, bool, Any]:
        """Convert an observation or a batch to (array, True for a single observation, its mask or masks). Raises ShapeError for others."""
        kind = type(self).__name__
        mapping = getattr(self.envs, "observation_mapping", None)
        is_pair = isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict)
        if is_pair and not (mapping is not None and isinstance(mapping.space, Tuple)):
            raise ShapeError(
                f"{kind}.predict takes an observation, got the pair (observation, info): observation, "
                "info = env.reset(); predict(observation)"
            )
        reason = ""
        if mapping is not None and not mapping.is_identity:
            try:
                raw = conform(mapping.space, observation, lambda note: None)
                return mapping.array(raw), True, mapping.mask(raw)
            except EnvironmentFault as fault:
                reason = f": {fault}"
            try:
                rows = [conform(mapping.space, row, lambda note: None) for row in rows_of(mapping.space, observation)]
                if rows:
                    masks = [mapping.mask(row) for row in rows] if mapping.holds_mask else None
                    return np.stack([mapping.array(row) for row in rows]), False, masks
            except EnvironmentFault:
                pass  # an array that is flat already
        try:
            given = np.asarray(observation)
            if given.dtype.kind in "cSU":
                raise TypeError("texts and complex numbers are not observations")
            with np.errstate(all="ignore"):
                x = given.astype(self.observation_dtype)
        except (TypeError, ValueError, OverflowError):
            x = None  # type: ignore[assignment]
        if x is None or (x.shape != self.shape and x.shape[1:] != self.shape):
            wanted = (
                f"observations of shape {self.shape}" if mapping is None or not reason else f"observations of {mapping.space}"
            )
            found = f", not {x.shape}" if x is not None and not reason else reason
            raise ShapeError(f"{kind} takes {wanted}, or a batch of them{found}")
        if self.observation_dtype != np.float32 and not (x == given).all():
            space = " ".join(str(self.envs.single_observation_space).split())
            raise ValueError(
                f"{kind} takes observations of {space}, which cannot hold {given[x != given][0]}: pass them as the environment returns "
                "them, without scaling"
            )
        return x, x.shape == self.shape, None

    def _masks(self, given: Any, count: int) -> np.ndarray:
        """Masks of ``count`` rows of a batch, bool (count, options). Raises ShapeError or ValueError if they do not fit."""
        if len(given) != count:
            raise ShapeError(
                f"action_mask has {len(given)} rows for {count} observations: give one row of options per observation"
            )
        rows = np.stack([mask_row(self.space, row) for row in given])
        choices = choices_of(self.space)
        begins = np.cumsum([0, *choices[:-1]])
        if not np.logical_or.reduceat(rows, begins, 1).all():
            raise ValueError("action_mask allows nothing: at least one option of each choice must be True")
        return rows

    def greedy_step(self) -> tuple[Callable[..., tuple[rl.Tensor, ...]], tuple[rl.Tensor, ...]]:
        """The greedy policy as a function of tensors, and what it remembers when an episode begins.

        The function takes observations (batch, ...), a tensor for each part of the memory, and an action mask or None. It returns the
        actions, scaled to the space as by `ActionMapping.scaled`, and the next memory. Each part of the memory is a tensor (1, ...).
        An agent with ``acting_memory`` defines it, for export. Raises Fault if it does not.
        """
        if self.acting_memory is not None:
            raise Fault(f"{type(self).__name__} remembers {self.acting_memory!r}: define greedy_step() to export it")

        def step(observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> tuple[rl.Tensor, ...]:
            return (self.mapping.scaled(self.greedy(observations, action_mask)),)

        return step, ()

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight | None:
        """What the greedy policy computes for observations (batch, ...), differentiable in them; None if the agent does not tell.

        ``memory`` is what ``acting_memory`` holds before the observations. `rl_lab.experiment.page` shows it and its attributions.
        """
        return None

    def export(self, path: str | Path, format: str | None = None) -> Path:
        """Write the greedy policy to a file: .onnx, .py (NumPy alone) or .c, or ``format`` "onnx", "numpy" or "c".

        Normalization of observations and scaling of actions are included. Returns the path. Raises Fault, naming the operation, if a
        part of the policy has no translation.
        """
        from rl_lab.experiment.export import export

        return export(self, path, format)

    # --- learning ----------------------------------------------------------------------------------------------------

    def learn(self: Self, total_timesteps: int, callback: Callback | None = None, progress: bool = False) -> Self:
        """Train for at least ``total_timesteps`` further environment steps; returns the agent.

        Schedules reach their end with the last of these steps. ``callback(agent, metrics)`` is called after each step and may return
        False to stop. Raises NumericalError as `advance` does, and EnvironmentFault if an environment fails.
        """
        steps = number_of(int, total_timesteps) if not isinstance(total_timesteps, str) else None
        if steps is None or steps < 1:
            raise Fault(f"total_timesteps must be an integer of at least 1, got {total_timesteps!r}")
        if callback is not None and not callable(callback):
            raise Fault(f"callback must be a function of the agent and its metrics, got {callback!r}")
        total = self.timesteps + int(steps)
        config = dataclasses.replace(self.config, total_timesteps=total)
        check_config(config)
        self.config = config
        shown = make_progress(total) if progress else NoProgress()
        begin = time.perf_counter()
        first = self.timesteps
        with contextlib.closing(shown), helped(usual.__name__):
            for line in (*self.notes, *self.remarks()):
                shown.say(line)
            latest = None
            while self.timesteps < total:
                metrics = self.advance()
                rate = (self.timesteps - first) / (time.perf_counter() - begin)
                latest = metrics.get("charts/episodic_return", latest)
                shown.update(self.timesteps, rate, latest)
                answer = None if callback is None else callback(self, metrics)
                if isinstance(answer, (bool, np.bool_, np.ndarray, rl.Tensor)) and not answer:
                    break
        return self

    def advance(self) -> Metrics:
        """`step`, with a check that its numbers are finite: what `learn` and the driver call.

        Raises NumericalError, naming the first number that is not finite. One launch looks at the parts before anything is collected,
        one more before each step of an optimiser among them, so no weight has changed because of it.
        """
        self._guard.enter()
        try:
            metrics = self.step()
        except (EnvironmentFault, NumericalError) as fault:  # acting may fail because the policy is not finite
            name = next(first_sources(self), "")
            if name and name not in str(fault):
                raise not_finite_error(self, name) from fault
            raise
        finally:
            self._guard.leave()
        if not isinstance(metrics, dict):
            raise TypeError(
                f"{type(self).__name__}.step() returned {metrics!r}: return a dict of metrics, {{}} if there are none"
            )
        return finite_metrics(metrics, self.timesteps)

    def require_finite(self) -> None:
        """Raise NumericalError, naming the first, if a number of the parts is not finite: for agents that learn without an optimiser."""
        name = next(first_sources(self), "")
        if name:
            raise not_finite_error(self, name)

    def record(self, function: Callable[..., Any]) -> Any:
        """Compile ``function``, unless the config says ``compile=False``; the results are the same bit for bit."""
        return rl.compile(function) if getattr(self.config, "compile", True) else function

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bitwise identical continuation needs, by the names of the parts."""
        state = {name: part_state(getattr(self, name)) for name in (*self.learned, *self.saved)}
        if self.collector is not None:
            state["collector"] = self.collector.state_dict()
        return {**state, "timesteps": self.timesteps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned. Raises KeyError, ShapeError, StateError or TypeError if it does not fit.

        An error leaves the agent as it was.
        """
        timesteps = int(state["timesteps"])
        if self.collector is not None:
            self.collector.check(state["collector"])
        self._load_parts((*self.learned, *self.saved), state)
        if self.collector is not None:
            self.collector.load_state_dict(state["collector"])
        self.timesteps = timesteps
        if not self.continues:
            for name in self.saved:
                part = getattr(self, name)
                if isinstance(part, EpisodicPart):
                    part.begin_episodes()

    def load_learned(self, state: dict[str, Any]) -> None:
        """Take what another agent of this class learned; the rest stays. Raises as `load_state_dict` does."""
        self._load_parts(self.learned, state)

    def _load_parts(self, names: Sequence[str], state: dict[str, Any]) -> None:
        """Load parts, or restore all of them and raise the error of the one that does not fit."""
        parts = {name: getattr(self, name) for name in names}
        large = [name for name, part in parts.items() if isinstance(part, ReplayBuffer)]
        before = {name: copy.deepcopy(part_state(part)) for name, part in parts.items() if name not in large}
        try:
            for name in (*before, *large):  # a replay buffer checks a state before it changes, so it needs no copy
                self._load_part(name, state)
        except BaseException:
            for name in before:
                setattr(self, name, parts[name])
                self._load_part(name, before)
            raise

    def _load_part(self, name: str, state: dict[str, Any]) -> None:
        """Load one part. Raises KeyError, ShapeError or TypeError if the state does not fit."""
        part = getattr(self, name)
        if part is None and name in self.learned and state.get(name) is not None:
            raise TypeError(f"the state holds {name}, which this agent does not have")
        setattr(self, name, load_part(part, state.get(name) if part is None else state[name], name))

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """An independent agent in the same state. Environments that cannot be copied are made again and begin new episodes."""
        try:
            envs = copy.deepcopy(self.envs, memo)
        except Exception as error:
            if self.setup is None:
                raise TypeError(f"{type(self).__name__} cannot be copied, because its environments cannot: {error}") from error
            envs, _ = open_environments(self.setup, self.num_envs)
        other = type(self).create(self.config, envs, self.seed, self.setup)
        state = copy.deepcopy(self.state_dict())
        if self.collector is not None and state["collector"]["environments"] is None:
            state["collector"]["environments"] = self.collector.copied_environments()
        other.load_state_dict(state)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """How pickle copies an agent, to another process for example: its state, and environments that are made again if they can be."""
        made = self.envs if self.setup is None or self.setup.once else self.setup
        return _made_again, (type(self), self.config, made, self.num_envs, self.seed, self.state_dict())

    def save(self, path: str | Path) -> None:
        """Write the agent to the file ``path``, replacing an older one. `load` reads it; nothing in it is code."""
        mapping = getattr(self.envs, "observation_mapping", None)
        content = {
            "format": SAVE_FORMAT,
            "agent": f"{type(self).__module__}:{type(self).__qualname__}",
            "config": as_plain(self.config),
            "seed": self.seed,
            "num_envs": self.num_envs,
            "masked": self.collector is not None and self.collector.action_mask is not None,
            "observation_space": describe_space(self.envs.single_observation_space),
            "raw_observation_space": None if mapping is None else describe_space(mapping.space, or_text=True),
            "action_space": describe_space(self.space),
            "setup": None if self.setup is None else self.setup.describe(),
            "state": self.state_dict(),
        }
        rl.save(content, path)

    @classmethod
    def load(cls: type[Self], path: str | Path, env: Any = None) -> Self:
        """The agent that `save` wrote, in a new environment ``env`` or one made as the first was.

        Where that is not possible, because it was an object, the agent can predict but not learn. Raises FileError for a file that is
        missing or damaged, Fault for one of another agent or for an environment with other spaces.
        """
        content = rl.load(path)
        named = f"{cls.__module__}:{cls.__qualname__}"
        if not isinstance(content, dict) or content.get("format") != SAVE_FORMAT:
            raise Fault(f"{path} does not hold an agent that this version of rl_lab can read: write it again with agent.save()")
        if content["agent"] != named:
            raise Fault(f"{path} holds {content['agent']}, not {named}: load it with that class")
        spaces = rebuild_space(content["observation_space"]), rebuild_space(content["action_space"])
        made = content["setup"]
        unknown = [] if made is None or env is not None else unknown_modules({**made, "env": made["env_id"]})
        if unknown:
            raise Fault(
                f"{path} names the module {unknown[0]!r}, and importing it runs its code: if you trust it, call load(path, env)"
            )
        setup = None if made is None or env is not None else Setup.from_description(made)
        if isinstance(env, VectorEnv) and env.num_envs != content["num_envs"]:
            raise Fault(
                f"{path} was trained with num_envs={content['num_envs']}, got {env.num_envs} vector environments: "
                f"make {content['num_envs']}"
            )
        if env is not None:
            envs, setup = open_environments(env, content["num_envs"])
        elif setup is not None:
            envs, setup = open_environments(setup, content["num_envs"])
        else:
            raw = content.get("raw_observation_space")
            seen_first = None if raw is None else rebuild_space(raw)
            envs = absent_environments(*spaces, content["num_envs"], bool(content["masked"]), seen_first)
        found = (envs.single_observation_space, envs.single_action_space)
        if setup is not None and not setup.pixels and found[0].dtype != spaces[0].dtype:
            # written by an older version, which saw bytes as float32
            spaces = Box(spaces[0].low, spaces[0].high, dtype=np.float32), spaces[1]  # type: ignore[attr-defined]
        if found != spaces:
            raise Fault(
                f"{path} was trained with {spaces[0]} and {spaces[1]}, but {env or 'its environment'} has {found[0]} and {found[1]}"
            )
        agent = cls.create(make_config(cls.Config, content["config"]), envs, content["seed"], setup)
        agent.load_state_dict(content["state"])
        return agent

    # --- spaces ------------------------------------------------------------------------------------------------------

    @classmethod
    def check_spaces(cls, env: str, observation_space: Space, action_space: Space) -> None:
        """Raise Fault unless the agent can act in an environment with these observation and action spaces."""
        name = name_of_agent(cls)
        kinds = " or ".join(kind.__name__ for kind in cls.action_spaces)
        if not isinstance(action_space, ANY_ACTIONS):
            raise Fault(f"{env} has the actions {action_space}: use Box, Discrete, MultiDiscrete, MultiBinary, Tuple or Dict")
        if not isinstance(action_space, cls.action_spaces):
            raise Fault(f"{name} needs {kinds} actions, but {env} has {action_space}: use {_alternatives(action_space)}")
        require_numbers(env, observation_space, action_space)
        choices = isinstance(action_space, Box) and bool(choices_of(action_space))
        if choices and cls.action_spaces is not ANY_ACTIONS:
            raise Fault(f"{name} produces real-valued actions, but {env} expects integers ({action_space}): use ppo or a2c")
        if not isinstance(observation_space, cls.observation_spaces):
            wanted = " or ".join(kind.__name__ for kind in cls.observation_spaces)
            raise Fault(f"{name} needs {wanted} observations, but {env} has {observation_space}")


def _made_again(
    cls: type[Self], config: Any, made: "Setup | VectorEnv", num_envs: int, seed: int, state: dict[str, Any]
) -> Self:
    """The agent in the state that `Agent.__reduce__` gave to pickle."""
    envs, setup = open_environments(made, num_envs)
    agent = cls.create(config, envs, seed, setup)
    agent.load_state_dict(state)
    return agent


def require_numbers(env: str, observation_space: Space, action_space: Space) -> None:
    """Raise Fault if there is nothing to observe, nothing to choose, or a part of the actions that no policy can choose."""
    try:
        actions = ActionMapping(action_space)
    except TypeError as error:
        raise Fault(f"{env} has the actions {action_space}: {error}") from None
    if not (actions.choices or actions.size):
        raise Fault(
            f"{env} has the actions {action_space}: they have no choices and no components, so there is nothing to learn"
        )
    if isinstance(observation_space, Box) and 0 in observation_space.shape:
        raise Fault(f"{env} has observations of shape {observation_space.shape}: they hold no numbers to learn from")


def _at_most(default: float, most: float | None) -> float:
    """Ten times the default of a setting, or the largest value that it takes."""
    return 10 * default if most is None else min(10 * default, most)


SAVE_FORMAT = "agent 1"


def observed_in(space: Space, setup: Setup | None) -> Observed:
    """What networks need to know of observations of a Box: pixels of 0 to 255 are scaled to at most 1."""
    assert isinstance(space, Box)
    is_bytes = stored_dtype(space) is not np.float32
    scale = 1.0 / 255.0 if space.dtype == np.uint8 and (np.asarray(space.high) == 255).all() else 1.0
    frames = 1 if setup is None else setup.frame_stack
    channels = "auto" if setup is None else setup.channels
    if setup is not None and channels == "auto":
        channels = channels_of(setup.preprocess, "" if setup.wrapper else setup.env_id) if setup.pixels else "first"
    return Observed(tuple(space.shape), frames, channels, scale, not is_bytes)


def _alternatives(space: Space) -> str:
    """Agents of rl_lab that accept an action space, for an error message."""
    if isinstance(space, Discrete):
        return "dqn or ppo"
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return "sac, td3 or ppo"
    return "sac, ppo or a2c"


def finite_metrics(metrics: dict[str, Any], timesteps: int) -> Metrics:
    """Metrics as floats. Raises TypeError for a metric that is no number, NumericalError for one that is not finite; both name it."""
    try:
        numbers = {tag: float(value) for tag, value in metrics.items()}
    except (TypeError, ValueError, RuntimeError):
        wrong = next(tag for tag, value in metrics.items() if not isinstance(value, (int, float, np.generic)))
        raise TypeError(f"the metric {wrong!r} is {metrics[wrong]!r:.60}: give a number") from None
    for tag, value in numbers.items():
        if not math.isfinite(value) and tag.startswith("charts/episodic"):
            raise NumericalError(f"{tag} became {value} at step {timesteps}: correct the reward of the environment")
        if not math.isfinite(value):
            raise NumericalError(f"{tag} became {value} at step {timesteps}: lower learning_rate or max_grad_norm")
    return numbers


def updates_never_start(learning_starts: int, total_timesteps: int, inclusive: bool = False) -> list[str]:
    """The `remarks` of an agent that updates only after ``learning_starts`` steps; ``inclusive``: also at the end of the last of them."""
    if learning_starts < total_timesteps + inclusive:
        return []
    return [
        f"warning: no update will run: learning_starts ({learning_starts:,}) is not below total_timesteps ({total_timesteps:,}): "
        "lower learning_starts"
    ]


# --- finding agents --------------------------------------------------------------------------------------------------


def find_agent(name: str) -> type[Agent]:
    """The agent registered under ``name`` in the entry point group ``rl_lab.agents``, or the class ``module:Class``.

    A class that is not derived from `Agent` but has its methods is given the base's defaults. Raises Fault, naming the nearest choice,
    for an unknown name, or a module or class that does not exist.
    """
    if ":" in name:
        return adopt(_import_agent(name))
    found = {entry.name: entry for entry in entry_points(group="rl_lab.agents")}
    if name.lower() in found:
        return adopt(found[name.lower()].load())
    module = name.removeprefix("./").removesuffix(".py").replace("/", ".")
    if Path(f"{module.replace('.', '/')}.py").is_file():
        raise Fault(f"the agent {name!r} is a module: name the class in it, too, such as {module}:MyAgent")
    hint = nearest_agent(name, found) if found else ": no agents are registered; run pip install -e ."
    raise Fault(f"unknown agent {name!r}{hint}")


def registered_name(name: str) -> str:
    """The name under which an agent is registered, for a name in other capitals or for its ``module:Class``; any other name as it is."""
    found = entry_points(group="rl_lab.agents")
    if name.lower() in found.names:
        return name.lower()
    return next((entry.name for entry in found if entry.value == name), name)


def name_in_run(agent: str | type) -> str:
    """How a run names an agent, which is given as a name or a class. Raises Fault for anything else."""
    if not isinstance(agent, (str, type)):
        raise Fault(f"an agent is given by its name, such as 'ppo', or as its class, not as {agent!r}")
    return agent if isinstance(agent, str) else f"{agent.__module__}:{agent.__qualname__}"


@functools.cache
def check_class(agent_class: type) -> None:
    """Raise Fault unless a class has settings that a run can have, and the methods that a subclass of `Agent` defines."""
    name = agent_class.__name__
    config_class = getattr(agent_class, "Config", None)
    if not isinstance(config_class, type):
        raise Fault(f"{name} has no Config: give it a dataclass of settings")
    if "total_timesteps" not in kinds_of(config_class):
        raise Fault(f"{name}.Config has no total_timesteps: add total_timesteps: int = setting(100_000, 'environment steps')")
    if not issubclass(agent_class, Agent):
        return
    missing = ["build"] if agent_class.build is Agent.build else []  # an agent that only acts needs no step()
    if agent_class.act is Agent.act and agent_class.greedy is Agent.greedy:
        missing.append("greedy")
    if missing:
        raise Fault(f"{name} does not define {' and '.join(f'{method}()' for method in missing)}")


def adopt(found: type) -> type[Agent]:
    """The class itself if it is an `Agent`, else a subclass of it and `Agent` that constructs it from config, environments and seed.

    Raises Fault as `check_class` does.
    """
    check_class(found)
    if issubclass(found, Agent):
        return found

    def build(self: Any) -> None:
        found.__init__(self, self.config, self.envs, self.seed)  # type: ignore

    namespace = {"build": build, "__module__": found.__module__, "__qualname__": found.__qualname__}
    if "greedy" not in vars(found):
        namespace["greedy"] = Agent.greedy
    return type(found.__name__, (found, Agent), namespace)


def name_of_agent(agent_class: type) -> str:
    """The name under which a class is registered, or the lower-case name of the class."""
    value = f"{agent_class.__module__}:{agent_class.__qualname__}"
    for entry in entry_points(group="rl_lab.agents"):
        if entry.value == value:
            return entry.name
    return agent_class.__name__.lower()


def preset_for(agent_class: type, name: str, env: str) -> dict[str, Any]:
    """The settings tuned for an agent and an environment; empty if there are none.

    They are in ``presets.toml`` beside the agent's module, or in a package that contains it.
    """
    return {key: value for key, value in _preset_table(agent_class, name, env).items() if key != NOTE}


def note_of_preset(agent_class: type, name: str, env: str) -> str:
    """What a user of a preset should know, such as that it fails with some seeds: its ``note``. Empty if there is nothing to say.

    Raises Fault if the note is not text of one line.
    """
    note = _preset_table(agent_class, name, env).get(NOTE, "")
    if not isinstance(note, str) or not note.isprintable():
        raise Fault(f"the {NOTE} of the preset of {name} for {env} must be a text of one line, not {note!r}")
    return note


NOTE = "note"
"""Key of a preset that holds a sentence for its users. All other keys are settings."""


def _preset_table(agent_class: type, name: str, env: str) -> dict[str, Any]:
    registered = env.rpartition(":")[2].removeprefix("rl_lab/")
    module = agent_class.__module__
    while module:
        file = getattr(sys.modules.get(module), "__file__", None)
        path = Path(file).with_name("presets.toml") if file else None
        if path is not None and path.is_file():
            return read_toml(path).get(name, {}).get(registered, {})
        module = module.rpartition(".")[0]
    return {}


def _import_agent(name: str) -> type:
    module_name, _, class_name = name.partition(":")
    module = import_beside(module_name, f"agent {name!r}")
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not hasattr(found, "Config"):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and hasattr(value, "Config")]
        raise Fault(f"module {module_name!r} has no agent {class_name!r}{nearest(class_name, classes)}")
    return found


def names_of_parts(agent_class: type[Agent]) -> Sequence[str]:
    """All parts that an agent's checkpoint holds, beside ``collector`` and ``timesteps``."""
    return (*agent_class.learned, *agent_class.saved)
