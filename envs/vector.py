"""NativeVectorEnv: a batch of a native world as a Gymnasium vector environment."""

import time
from copy import deepcopy
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rl_lab.envs import world as w
from rl_lab.envs.stream import set_stream, stream_words, twister_words

_MODES = {
    AutoresetMode.NEXT_STEP: w.NEXT_STEP,
    AutoresetMode.SAME_STEP: w.SAME_STEP,
    AutoresetMode.DISABLED: w.DISABLED,
}


class NativeFault(RuntimeError):
    """A native environment was given an action outside its action space, or produced a number that is not finite."""


class NativeVectorEnv(VectorEnv):
    """``num_envs`` environments of a world, stepped together by one native call.

    Environment i behaves like Gymnasium's single environment with the seed ``seed + i`` inside `gymnasium.vector.SyncVectorEnv`.
    ``frame_stack`` and ``time_aware`` have the effect of the wrappers FrameStackObservation and TimeAwareObservation. ``parameters`` are
    those of the world, such as gravity.

    When episodes end, ``info["episode"]`` holds their returns ``r``, lengths ``l`` and durations ``t`` in seconds, and the mask
    ``info["_episode"]`` marks the environments concerned; same-step autoreset adds ``final_obs`` and ``final_info``. Do not add the
    wrapper RecordEpisodeStatistics: it raises an error because ``episode`` exists already.

    Raises TypeError for an unknown parameter, ValueError for an argument out of range.
    """

    world: ClassVar[w.World]

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        frame_stack: int = 1,
        time_aware: bool = False,
        render_mode: str | None = None,
        **parameters: float,
    ):
        world = self.world
        unknown = sorted(set(parameters) - set(world.parameters))
        if unknown:
            raise TypeError(
                f"{world.name} has no parameter {unknown[0]!r}: choose from {', '.join(world.parameters) or 'none'}"
            )
        if num_envs < 1 or frame_stack < 1:
            raise ValueError(f"num_envs and frame_stack must be at least 1, got {num_envs} and {frame_stack}")
        modes = [] if world.draw is None else ["rgb_array"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(
                f"render_mode of a {world.name} batch must be {' or '.join([*modes, 'None'])}, got {render_mode!r}"
            )
        if time_aware and not max_episode_steps:
            raise ValueError("time_aware needs max_episode_steps: it observes the fraction of this limit that has passed")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": modes, "render_fps": world.frames_per_second}
        self.single_observation_space = _observation_space(world.observation_space, frame_stack, time_aware)
        self.single_action_space: Discrete | Box = world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        n = num_envs
        self.states = np.zeros((n, world.state_size + len(world.parameters)))
        self.states[:, world.state_size :] = list({**world.parameters, **parameters}.values())
        self.streams = np.zeros((n, world.stream_size), np.uint64)
        self._first_action = int(world.action_space.start) if isinstance(world.action_space, Discrete) else 0
        self.actions = np.zeros((n, world.action_size), np.float32)
        self.observations = np.zeros((n, *self.single_observation_space.shape), self.single_observation_space.dtype)
        self.final_observations = np.zeros_like(self.observations)
        self.rewards = np.zeros(n)
        self.returns = np.zeros(n)
        self.episode_returns = np.zeros(n)
        self.terminated = np.zeros(n, bool)
        self.truncated = np.zeros(n, bool)
        self.ended = np.zeros(n, bool)
        self.elapsed = np.zeros(n, np.int64)
        self.episode_lengths = np.zeros(n, np.int64)
        self.seeds: list[int | None] = [None] * n
        self._started = np.zeros(n)
        self.is_ready = False
        self.awake: np.ndarray | None = None
        """Marks the environments that `step` steps, bool (num_envs,). The others keep their state, with a reward of 0. None means all."""

        self.cells = np.zeros(w.CELLS, np.int64)
        self.cells[: w.STATES] = n, frame_stack, time_aware, max_episode_steps or 0, _MODES[self.autoreset_mode], 0
        self._buffers = (
            *(self.states, self.streams, self.actions, self.observations, self.final_observations, self.rewards),
            *(self.terminated, self.truncated, self.ended, self.elapsed),
            *(self.returns, self.episode_returns, self.episode_lengths),
        )
        self.cells[w.STATES :] = [buffer.ctypes.data for buffer in self._buffers]
        loop = world.advance()
        assert loop.address is not None  # it is compiled
        self.loop_address = loop.address
        self._advance = loop.ctypes
        self._cells_address = self.cells.ctypes.data

    # --- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new episode in every environment, or where the bool array ``options["reset_mask"]`` is True.

        ``seed`` is as in `SyncVectorEnv.reset`. The other options are those of the world; each is one number for all environments or an
        array (num_envs,), and applies to this reset only. Returns (observations, {}). Raises ValueError for an unknown option or a mask
        or seeds of another length.
        """
        n = self.num_envs
        seeds = [seed + i for i in range(n)] if isinstance(seed, (int, np.integer)) else list(seed or [None] * n)
        if len(seeds) != n:
            raise ValueError(f"{n} environments need {n} seeds, got {len(seeds)}: give one integer, or a list of {n}")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            mask = np.ones(n, bool)
        elif not isinstance(mask, np.ndarray) or mask.shape != (n,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(f"reset_mask must be a bool array of shape ({n},) with at least one True, got {mask!r:.80}")
        for i in np.flatnonzero(mask):
            if seeds[i] is not None or self.seeds[i] is None:
                generator, seed = seeding.np_random(seeds[i])
                self.seeds[i] = seed
                self.streams[i] = twister_words(generator, seed) if self.world.twister else stream_words(generator)
        columns = self._reset_columns(options)
        kept = self.states[:, [column for column, _ in columns]]
        for column, value in columns:
            self.states[:, column] = value
        self.ended |= mask
        self.terminated[mask] = self.truncated[mask] = False
        resting = self.ended & ~mask
        self.ended[resting] = False  # environments outside the mask stay at the end of their episode
        try:
            self.run(w.RESETTING)
        finally:
            self.ended[resting] = True
            for (column, _), values in zip(columns, kept.T, strict=True):
                self.states[:, column] = values
        self._started[mask] = time.perf_counter()
        self.is_ready = True
        return self.observations.copy(), {}

    def _reset_columns(self, options: dict[str, Any]) -> list[tuple[int, np.ndarray]]:
        """Return (column of the states, values) for each reset option. Raises ValueError for an unknown option."""
        columns = []
        for key, value in options.items():
            if key not in self.world.options:
                raise ValueError(
                    f"{self.world.name} has no reset option {key!r}: choose from {', '.join(self.world.options) or 'none'}"
                )
            columns.append((self._column(self.world.options[key]), np.broadcast_to(np.float64(value), self.num_envs)))
        return columns

    def _column(self, parameter: str) -> int:
        """Column of the states that holds a parameter."""
        return self.world.state_size + list(self.world.parameters).index(parameter)

    def run(self, mode: int) -> None:
        """Run the native loop once over the buffers, in a mode of `rl_lab.envs.world`. Raises NativeFault if an environment fails."""
        self.cells[w.MODE] = mode
        self._advance(self._cells_address)
        self.cells[w.MODE] = _MODES[self.autoreset_mode]
        if self.cells[w.FAULT]:
            self.fault()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments with ``actions`` (num_envs,) or (num_envs, *action shape).

        Returns (observations, rewards, terminated, truncated, info). Raises ResetNeeded before the first reset, or if autoreset is
        disabled and an episode has ended; NativeFault if an action is outside the action space or a result is not finite; ValueError if
        ``awake`` leaves environments out and the autoreset mode is NEXT_STEP.
        """
        if not self.is_ready:
            raise gym.error.ResetNeeded("call reset() before step()")
        if self.autoreset_mode == AutoresetMode.DISABLED and self.ended.any():
            raise gym.error.ResetNeeded(
                f"episodes of the environments {np.flatnonzero(self.ended).tolist()} have ended: reset(options={{'reset_mask': ended}})"
            )
        actions = np.asarray(actions)
        self.actions[:] = actions.reshape(self.actions.shape)
        if self._first_action:
            self.actions -= np.float32(self._first_action)
        if self.awake is None or self.awake.all():
            self.run(_MODES[self.autoreset_mode])
        elif self.autoreset_mode == AutoresetMode.NEXT_STEP:
            raise ValueError("awake needs autoreset mode SAME_STEP or DISABLED, not NEXT_STEP")
        else:
            self._step_awake(~self.awake)
        ended = self.terminated | self.truncated
        info = self._episode_info(ended) if ended.any() else {}
        return self.observations.copy(), self.rewards.copy(), self.terminated.copy(), self.truncated.copy(), info

    def _step_awake(self, asleep: np.ndarray) -> None:
        """Step the environments outside ``asleep``, and with same-step autoreset begin new episodes where one ended."""
        self.ended[asleep] = True  # in mode DISABLED the loop skips environments whose episode has ended
        try:
            self.run(w.DISABLED)
            results = (self.rewards, self.terminated, self.truncated)
            kept = [array.copy() for array in results]
            self.ended[asleep] = False
            if self.autoreset_mode == AutoresetMode.SAME_STEP and self.ended.any():
                self.run(w.RESETTING)
                for array, values in zip(results, kept, strict=True):
                    array[:] = values
        finally:
            self.ended[asleep] = False

    def _episode_info(self, ended: np.ndarray) -> dict[str, Any]:
        """Return the info of a step in which episodes ``ended``, bool (num_envs,), in the form that Gymnasium's wrappers give."""
        now = time.perf_counter()
        episode = {
            "r": np.where(ended, self.episode_returns, 0.0),
            "l": np.where(ended, self.episode_lengths, 0),
            "t": np.where(ended, now - self._started, 0.0),
        }
        self._started[ended] = now
        info: dict[str, Any] = {"episode": episode, "_episode": ended}
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            finals = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ended):
                finals[i] = self.final_observations[i].copy()
            info |= {"final_obs": finals, "_final_obs": ended, "final_info": dict(info), "_final_info": ended}
        return info

    def fault(self) -> None:
        """Raise NativeFault for the fault that the loop recorded, naming the environment."""
        found = int(self.cells[w.FAULT])
        self.cells[w.FAULT] = 0
        i = abs(found) - 1
        space = self.single_action_space
        step = int(self.elapsed[i])
        who = f"environment {i} of {self.world.name} (seed {self.seeds[i]})"
        if found < 0:
            action = self.actions[i] + space.start if isinstance(space, Discrete) else self.actions[i]
            raise NativeFault(
                f"{who} was given the action {action} at step {step + 1} of its episode, which is outside {space}"
            )
        raise NativeFault(
            f"{who} produced a number that is not finite at step {step} of its episode: "
            f"reward {self.rewards[i]}, observation {self.observations[i].ravel()[:8]}"
        )

    def render(self) -> tuple[Any, ...] | None:
        """Return one picture, uint8 (height, width, 3), per environment, or None without a render mode."""
        draw = self.world.draw
        return None if self.render_mode is None or draw is None else tuple(draw(row) for row in self.states)

    # --- attributes --------------------------------------------------------------------------------------------------

    @property  # type: ignore[misc]
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        return tuple(self.seeds)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Copies of the environments' random streams as NumPy generators. Drawing from a copy does not advance the environment."""
        generators = []
        for words in self.streams:
            generator, _ = seeding.np_random(0)
            set_stream(generator, words)
            generators.append(generator)
        return tuple(generators)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return one value per environment: a parameter of the world, ``state``, or an attribute of the batch."""
        if name in self.world.parameters:
            return tuple(float(value) for value in self.states[:, self._column(name)])
        if name == "state":
            return tuple(row[: self.world.state_size].copy() for row in self.states)
        value = getattr(self, name)  # AttributeError if there is none
        return value if name in ("np_random", "np_random_seed") else (value,) * self.num_envs

    def set_attr(self, name: str, values: Any) -> None:
        """Set a parameter of the world or ``state``, to one value for all environments, or a list or tuple with one per environment.

        Raises AttributeError for another name, ValueError if the number of values is wrong.
        """
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{self.num_envs} environments need {self.num_envs} values of {name!r}, got {len(values)}")
        if name == "state":
            self.states[:, : self.world.state_size] = values
        elif name in self.world.parameters:
            self.states[:, self._column(name)] = values
        else:
            known = ", ".join(["state", *self.world.parameters])
            raise AttributeError(f"{self.world.name} has no attribute {name!r} that can be set: choose from {known}")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the pictures of ``render``, or what `get_attr` returns for another name."""
        if name == "render":
            return self.render() or (None,) * self.num_envs
        return self.get_attr(name)

    # --- saving ------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that is needed to continue bitwise identically."""
        seeds = np.array([str(seed) for seed in self.seeds])
        buffers = {name: getattr(self, name).copy() for name in _SAVED}
        return {**buffers, "seeds": np.char.encode(seeds).view(np.uint8).reshape(self.num_envs, -1)}

    def check_state(self, state: dict[str, np.ndarray]) -> None:
        """Raise ValueError if a state that `get_state` returned has another number of environments or another world."""
        for name in _SAVED:
            mine = getattr(self, name)
            given = np.asarray(state[name])
            if mine.shape != given.shape:
                raise ValueError(
                    f"the saved {name} has shape {given.shape}, that of these environments {mine.shape}: "
                    "use the same environment and num_envs"
                )

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state that `get_state` returned. Raises ValueError, before anything has changed, as `check_state` does."""
        self.check_state(state)
        for name in _SAVED:
            getattr(self, name)[:] = state[name]
        texts = [bytes(row).rstrip(b"\0").decode() for row in np.ascontiguousarray(state["seeds"])]
        self.seeds = [None if text == "None" else int(text) for text in texts]
        self.is_ready = True

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeVectorEnv":
        """Copy the environments, for searches that try actions.

        The copy has buffers of its own: a plain copy would keep the addresses of the original's buffers.
        """
        frames = int(self.cells[w.FRAMES])
        time_aware = bool(self.cells[w.TIME_AWARE])
        other = type(self)(
            self.num_envs, self.max_episode_steps, self.autoreset_mode, frames, time_aware, render_mode=self.render_mode
        )
        other.set_state(self.get_state())
        other.is_ready = self.is_ready
        other.spec = deepcopy(self.spec, memo)
        return other


_SAVED = (
    *("states", "streams", "observations", "terminated", "truncated", "ended", "elapsed", "returns"),
    *("episode_returns", "episode_lengths"),
)


def _observation_space(space: Box, frames: int, time_aware: bool) -> Box:
    """Observation space of a batch's environment, with time and frames added."""
    low = space.low
    high = space.high
    if time_aware:
        if len(space.shape) != 1:
            raise ValueError(f"time_aware needs observations that are vectors, got shape {space.shape}")
        if space.dtype != np.float32:
            raise ValueError(f"time_aware needs observations that are float32, not {space.dtype}")
        low = np.append(low, np.float32(0.0))
        high = np.append(high, np.float32(1.0))
    if frames > 1:
        low = np.repeat(low[None], frames, 0)
        high = np.repeat(high[None], frames, 0)
    return Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]
