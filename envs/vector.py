"""A native world as a Gymnasium vector environment."""

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
from rl_lab.envs.stream import set_stream, stream_words

_MODES = {
    AutoresetMode.NEXT_STEP: w.NEXT_STEP,
    AutoresetMode.SAME_STEP: w.SAME_STEP,
    AutoresetMode.DISABLED: w.DISABLED,
}


class NativeFault(RuntimeError):
    """A native environment got an action outside its space, or made a number that is not finite."""


class NativeVectorEnv(VectorEnv):
    """``num_envs`` copies of a world, stepped together by one native call.

    Environment i behaves as Gymnasium's scalar environment seeded with ``seed + i`` does inside `gymnasium.vector.SyncVectorEnv`.
    ``frame_stack`` and ``time_aware`` give what the wrappers FrameStackObservation and TimeAwareObservation would.
    ``parameters`` are the world's, such as gravity; unknown ones raise TypeError. At an episode's end ``info["episode"]`` holds its
    return ``r``, length ``l`` and seconds ``t``, with ``info["_episode"]`` saying whose; same-step autoreset adds ``final_obs`` and
    ``final_info``. So the wrapper RecordEpisodeStatistics is not needed, and refuses to write over ``episode``.
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
            raise TypeError(f"{world.name} has no parameter {unknown[0]!r}; it has {', '.join(world.parameters) or 'none'}")
        if num_envs < 1 or frame_stack < 1:
            raise ValueError(f"num_envs and frame_stack must be at least 1, not {num_envs} and {frame_stack}")
        modes = [] if world.draw is None else ["rgb_array"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"a vector environment of {world.name} renders to {modes or 'nothing'}, not {render_mode!r}")
        if time_aware and not max_episode_steps:
            raise ValueError("time_aware needs max_episode_steps: there is no limit to be aware of")
        self.num_envs, self.max_episode_steps, self.render_mode = num_envs, max_episode_steps, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": modes, "render_fps": world.frames_per_second}
        self.single_observation_space = _observation_space(world.observation_space, frame_stack, time_aware)
        self.single_action_space: Any = world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        n = num_envs
        self.states = np.zeros((n, world.state_size + len(world.parameters)))
        self.states[:, world.state_size :] = list({**world.parameters, **parameters}.values())
        self.streams = np.zeros((n, 4), np.uint64)
        self._first_action = int(world.action_space.start) if isinstance(world.action_space, Discrete) else 0
        self.actions = np.zeros((n, world.action_size), np.float32)
        self.observations = np.zeros((n, *self.single_observation_space.shape), np.float32)
        self.final_observations = np.zeros_like(self.observations)
        self.rewards, self.returns, self.episode_returns = np.zeros(n), np.zeros(n), np.zeros(n)
        self.terminated, self.truncated, self.ended = (np.zeros(n, bool) for _ in range(3))
        self.elapsed, self.episode_lengths = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.seeds: list[int | None] = [None] * n
        self._started = np.zeros(n)
        self.is_ready = False

        self.cells = np.zeros(w.CELLS, np.int64)
        self.cells[: w.STATES] = n, frame_stack, time_aware, max_episode_steps or 0, _MODES[self.autoreset_mode], 0
        self._buffers = (
            *(self.states, self.streams, self.actions, self.observations, self.final_observations, self.rewards),
            *(self.terminated, self.truncated, self.ended, self.elapsed),
            *(self.returns, self.episode_returns, self.episode_lengths),
        )
        self.cells[w.STATES :] = [buffer.ctypes.data for buffer in self._buffers]
        loop = world.advance()
        self.loop_address, self._advance, self._cells_address = loop.address, loop.ctypes, self.cells.ctypes.data

    # --- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new episode everywhere, or where ``options["reset_mask"]`` is True; seeds as in `SyncVectorEnv.reset`.

        The world's own options hold for this reset: one number for all, or an array (num_envs,).
        """
        n = self.num_envs
        seeds = [seed + i for i in range(n)] if isinstance(seed, (int, np.integer)) else list(seed or [None] * n)
        if len(seeds) != n:
            raise ValueError(f"{len(seeds)} seeds for {n} environments")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            mask = np.ones(n, bool)
        elif not isinstance(mask, np.ndarray) or mask.shape != (n,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(f"reset_mask must be a bool array of shape ({n},) with at least one True")
        for i in np.flatnonzero(mask):
            if seeds[i] is not None or self.seeds[i] is None:
                generator, self.seeds[i] = seeding.np_random(seeds[i])
                self.streams[i] = stream_words(generator)
        columns = self._reset_columns(options)
        kept = self.states[:, [column for column, _ in columns]]
        for column, value in columns:
            self.states[:, column] = value
        self.ended |= mask
        self.terminated[mask] = self.truncated[mask] = False
        resting = self.ended & ~mask
        self.ended[resting] = False  # what is not asked for stays as it ended
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
        """The columns of the states that reset options set, and the values. ValueError for an option that the world lacks."""
        columns = []
        for key, value in options.items():
            if key not in self.world.options:
                raise ValueError(
                    f"{self.world.name} has no reset option {key!r}; it has {', '.join(self.world.options) or 'none'}"
                )
            columns.append((self._column(self.world.options[key]), np.broadcast_to(np.float64(value), self.num_envs)))
        return columns

    def _column(self, parameter: str) -> int:
        return self.world.state_size + list(self.world.parameters).index(parameter)

    def run(self, mode: int) -> None:
        """One native call in this mode of `rl_lab.envs.world`, over the buffers as they stand. NativeFault for what went wrong."""
        self.cells[w.MODE] = mode
        self._advance(self._cells_address)
        self.cells[w.MODE] = _MODES[self.autoreset_mode]
        if self.cells[w.FAULT]:
            self.fault()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Actions of shape (num_envs,) or (num_envs, *shape); returns observations, rewards, terminated, truncated and info."""
        if not self.is_ready:
            raise gym.error.ResetNeeded("call reset before step")
        if self.autoreset_mode == AutoresetMode.DISABLED and self.ended.any():
            raise gym.error.ResetNeeded("an episode has ended: reset it with options={'reset_mask': ended}")
        actions = np.asarray(actions)
        self.actions[:] = actions.reshape(self.actions.shape)
        if self._first_action:
            self.actions -= np.float32(self._first_action)
        self.run(_MODES[self.autoreset_mode])
        ended = self.terminated | self.truncated
        info = self._episode_info(ended) if ended.any() else {}
        return self.observations.copy(), self.rewards.copy(), self.terminated.copy(), self.truncated.copy(), info

    def _episode_info(self, ended: np.ndarray) -> dict[str, Any]:
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
        """Raise for what the loop found, naming the environment."""
        found, self.cells[w.FAULT] = int(self.cells[w.FAULT]), 0
        i = abs(found) - 1
        space, step = self.single_action_space, int(self.elapsed[i])
        who = f"environment {i} of {self.world.name} (seed {self.seeds[i]})"
        if found < 0:
            action = self.actions[i] + space.start if isinstance(space, Discrete) else self.actions[i]
            raise NativeFault(f"{who} got the action {action} at step {step + 1} of its episode, which is not in {space}")
        raise NativeFault(
            f"{who} made a number that is not finite at step {step} of its episode: "
            f"reward {self.rewards[i]}, observation {self.observations[i].ravel()[:8]}"
        )

    def render(self) -> tuple[Any, ...] | None:
        """A picture, uint8 (height, width, 3), of each environment; None without a render mode."""
        draw = self.world.draw
        return None if self.render_mode is None or draw is None else tuple(draw(row) for row in self.states)

    # --- attributes --------------------------------------------------------------------------------------------------

    @property  # type: ignore[misc]
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        return tuple(self.seeds)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Generators that stand where the environments' streams do; copies."""
        generators = []
        for words in self.streams:
            generator, _ = seeding.np_random(0)
            set_stream(generator, words)
            generators.append(generator)
        return tuple(generators)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """A parameter of the world, ``state``, or an attribute that all environments share; one for each environment."""
        if name in self.world.parameters:
            return tuple(float(value) for value in self.states[:, self._column(name)])
        if name == "state":
            return tuple(row[: self.world.state_size].copy() for row in self.states)
        value = getattr(self, name)  # AttributeError if there is none
        return value if name in ("np_random", "np_random_seed") else (value,) * self.num_envs

    def set_attr(self, name: str, values: Any) -> None:
        """Set a parameter or the ``state``: one value for all, or a list or tuple with one for each environment."""
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{len(values)} values of {name!r} for {self.num_envs} environments")
        if name == "state":
            self.states[:, : self.world.state_size] = values
        elif name in self.world.parameters:
            self.states[:, self._column(name)] = values
        else:
            known = ", ".join(["state", *self.world.parameters])
            raise AttributeError(f"{self.world.name} has no attribute {name!r} that can be set; it has {known}")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As `get_attr`, and the results of ``render``."""
        if name == "render":
            return self.render() or (None,) * self.num_envs
        return self.get_attr(name)

    # --- saving ------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that a bitwise identical continuation needs."""
        seeds = np.array([str(seed) for seed in self.seeds])
        buffers = {name: getattr(self, name).copy() for name in _SAVED}
        return {**buffers, "seeds": np.char.encode(seeds).view(np.uint8).reshape(self.num_envs, -1)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `get_state` gave. ValueError if it is of another number of environments or another world."""
        for name in _SAVED:
            mine, given = getattr(self, name), np.asarray(state[name])
            if mine.shape != given.shape:
                raise ValueError(f"{name} has shape {given.shape}, not {mine.shape}")
        for name in _SAVED:
            getattr(self, name)[:] = state[name]
        texts = [bytes(row).rstrip(b"\0").decode() for row in np.ascontiguousarray(state["seeds"])]
        self.seeds = [None if text == "None" else int(text) for text in texts]
        self.is_ready = True

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeVectorEnv":
        """An independent environment in the same state, for searches that try things out; a copied address would be the original's."""
        frames, time_aware = int(self.cells[w.FRAMES]), bool(self.cells[w.TIME_AWARE])
        other = type(self)(
            self.num_envs, self.max_episode_steps, self.autoreset_mode, frames, time_aware, render_mode=self.render_mode
        )
        other.set_state(self.get_state())
        other.is_ready, other.spec = self.is_ready, deepcopy(self.spec, memo)
        return other


_SAVED = (
    *("states", "streams", "observations", "terminated", "truncated", "ended", "elapsed", "returns"),
    *("episode_returns", "episode_lengths"),
)


def _observation_space(space: Box, frames: int, time_aware: bool) -> Box:
    low, high = space.low, space.high
    if time_aware:
        if len(space.shape) != 1:
            raise ValueError(f"time_aware needs observations that are vectors, not of shape {space.shape}")
        low, high = np.append(low, np.float32(0.0)), np.append(high, np.float32(1.0))
    if frames > 1:
        low, high = np.repeat(low[None], frames, 0), np.repeat(high[None], frames, 0)
    return Box(low, high, dtype=np.float32)
