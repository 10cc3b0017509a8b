"""World: a native environment, written as three kernels over a row of float64, and the loop that steps a batch of such rows.

A world is written once. `rl_lab.envs.vector.NativeVectorEnv` and `rl_lab.envs.scalar.NativeEnv` are its Gymnasium environments.

    reset(state, stream)                      set the state to the start of a new episode
    step(state, action, stream)               advance the state; return (reward, terminated)
    observe(state, observation)               write the observation

``state`` is float64: the state (state_size,) and behind it the world's parameters. ``action`` is float32: the index of a discrete
action, or the components of a continuous one. ``stream`` is a random stream (see `rl_lab.envs.stream`). ``observation`` is flattened:
float32, or uint8 if the observation space is bool.
"""

import threading
import types as python_types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import carray, types
from numba.core.ccallback import CFunc

from rl_lab.envs.stream import TWISTER_SIZE
from rl_lab.native.cache import compile_c_function
from rl_lab.native.part import part
from rl_lab.native.pointers import float32_at, float64_at, int64_at, uint8_at, uint64_at
from rl_lab.native.threads import renew_after_fork

kernel = part
"""Decorator of a world's kernels. They are compiled together with the loop of the world, so the compiler can inline them."""


# --- a batch of environments, described by int64 cells that hold numbers and addresses ----------------------------------

(
    COUNT,  # number of environments
    FRAMES,  # number of frames in an observation, oldest first
    TIME_AWARE,  # 1 if each frame ends with the fraction of the time limit that has passed
    LIMIT,  # steps after which an episode is truncated; 0 for none
    MODE,  # autoreset mode, one of the constants below
    FAULT,  # set by the loop: 0, or 1 + the index of the faulty environment; negative if the fault is an invalid action
    STATES,  # float64 (count, state size + number of parameters)
    STREAMS,  # uint64 (count, size of a stream)
    ACTIONS,  # float32 (count, action size)
    OBSERVATIONS,  # float32 or bool (count, frames, frame size): the observation after the step and any reset
    FINAL,  # the same dtype and shape: the observation after the step and before any reset
    REWARDS,  # float64 (count,)
    TERMINATED,  # bool (count,)
    TRUNCATED,  # bool (count,)
    ENDED,  # bool (count,): the episode is over; the next step resets the environment, or skips it, depending on the mode
    ELAPSED,  # int64 (count,): steps of the episode
    RETURNS,  # float64 (count,): return of the episode so far
    EPISODE_RETURNS,  # float64 (count,): return of the last complete episode
    EPISODE_LENGTHS,  # int64 (count,): length of the last complete episode
    CELLS,
) = range(20)

NEXT_STEP, SAME_STEP, DISABLED, RESETTING = range(4)
"""Autoreset modes of Gymnasium, and RESETTING, which steps nothing and resets every environment whose episode has ended."""


# Placeholders: `_compile` replaces them by the sizes and kernels of a world. Kernels are Any, because numba's functions have no types.
STATE_SIZE = STREAM_SIZE = OBSERVATION_SIZE = ACTION_SIZE = CHOICES = 0
observations_at: Any = float32_at
ACTION_LOW = ACTION_HIGH = np.zeros(1, np.float32)
reset: Any = None
step: Any = None
observe: Any = None


def _advance(batch):
    """Step every environment of the batch whose cells are at the address ``batch``.

    This source is compiled once per world, with the world's sizes and kernels in place of the placeholders above. The compiler can
    then unroll the short loops and inline the kernels, which makes a step of CartPole 25 % faster.
    """
    cells = carray(int64_at(batch), (20,))
    count = cells[COUNT]
    frames = cells[FRAMES]
    time_aware = cells[TIME_AWARE]
    limit = cells[LIMIT]
    mode = cells[MODE]
    frame_size = OBSERVATION_SIZE + time_aware
    states = carray(float64_at(cells[STATES]), (count, STATE_SIZE))
    streams = carray(uint64_at(cells[STREAMS]), (count, STREAM_SIZE))
    actions = carray(float32_at(cells[ACTIONS]), (count, ACTION_SIZE))
    observations = carray(observations_at(cells[OBSERVATIONS]), (count, frames * frame_size))
    finals = carray(observations_at(cells[FINAL]), (count, frames * frame_size))
    rewards = carray(float64_at(cells[REWARDS]), (count,))
    returns = carray(float64_at(cells[RETURNS]), (count,))
    terminated = carray(uint8_at(cells[TERMINATED]), (count,))
    truncated = carray(uint8_at(cells[TRUNCATED]), (count,))
    ended = carray(uint8_at(cells[ENDED]), (count,))
    elapsed = carray(int64_at(cells[ELAPSED]), (count,))
    episode_returns = carray(float64_at(cells[EPISODE_RETURNS]), (count,))
    episode_lengths = carray(int64_at(cells[EPISODE_LENGTHS]), (count,))
    newest = (frames - 1) * frame_size
    for i in range(count):
        state = states[i]
        stream = streams[i]
        action = actions[i]
        shown = observations[i]  # all frames
        seen = observations[i, newest : newest + OBSERVATION_SIZE]  # the newest frame, without the time
        over_before = ended[i] != 0
        begins = over_before and (mode in (NEXT_STEP, RESETTING))
        if mode == RESETTING and not over_before:
            continue
        rewards[i] = 0.0
        terminated[i] = 0
        truncated[i] = 0
        if mode == DISABLED and over_before:
            continue
        if not begins:
            if CHOICES > 0 and not 0 <= action[0] < CHOICES:
                cells[FAULT] = -(i + 1)
                return
            if CHOICES == 0:
                for j in range(ACTION_SIZE):
                    if not ACTION_LOW[j] <= action[j] <= ACTION_HIGH[j]:  # also true for NaN
                        cells[FAULT] = -(i + 1)
                        return
            reward, over = step(state, action, stream)
            age = elapsed[i] + 1
            total = returns[i] + reward
            late = limit > 0 and age >= limit
            elapsed[i] = age
            returns[i] = total
            rewards[i] = reward
            terminated[i] = over
            truncated[i] = late
            if frames > 1:
                for j in range(newest):
                    shown[j] = shown[j + frame_size]
            observe(state, seen)
            if time_aware:
                shown[newest + OBSERVATION_SIZE] = age / limit
            sound = np.isfinite(np.float32(reward))
            for j in range(OBSERVATION_SIZE):
                sound &= np.isfinite(seen[j])
            if not sound:
                cells[FAULT] = i + 1
                return
            ended[i] = over or late
            if over or late:
                episode_returns[i] = total
                episode_lengths[i] = age
                begins = mode == SAME_STEP
            if frames == 1 and not time_aware:
                for j in range(OBSERVATION_SIZE):
                    finals[i, j] = seen[j]
            else:
                for j in range(frames * frame_size):
                    finals[i, j] = shown[j]
        if begins:
            reset(state, stream)
            observe(state, seen)
            if time_aware:
                shown[newest + OBSERVATION_SIZE] = 0.0
            for f in range(frames - 1):
                for j in range(frame_size):
                    shown[f * frame_size + j] = shown[newest + j]
            ended[i] = 0
            elapsed[i] = 0
            returns[i] = 0.0
            sound = True
            for j in range(OBSERVATION_SIZE):
                sound &= np.isfinite(seen[j])
            if not sound:
                cells[FAULT] = i + 1
                return


# --- the world ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class World:
    """A native environment: its name, spaces, kernels and settings.

    ``parameters`` are named float64 constants with default values. Every row holds them after the state, so environments of a batch may
    differ in them. ``options`` maps keys of Gymnasium's ``reset(options=...)`` to the parameters that they set for one reset. An action
    outside the action space is a fault, unless the action is continuous and the step kernel clips it (``clips``). ``draw`` returns the
    picture, uint8 (height, width, 3), of a row. The dtype of ``observation_space`` is float32 or bool. With ``twister`` the random
    streams include the Mersenne Twister of `rl_lab.envs.stream`.
    """

    name: str
    state_size: int
    observation_space: Box
    action_space: Discrete | Box
    reset: Callable[..., object]
    step: Callable[..., object]
    observe: Callable[..., object]
    parameters: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    clips: bool = False
    draw: Callable[[np.ndarray], np.ndarray] | None = None
    frames_per_second: int = 50
    observation_names: tuple[str, ...] = ()
    """A name for each number of an observation, for pages and pictures."""
    action_names: tuple[str, ...] = ()
    """A name for each option of a discrete action, or for each component of a continuous one."""
    twister: bool = False

    @property
    def stream_size(self) -> int:
        """Number of uint64 words in a random stream."""
        return TWISTER_SIZE if self.twister else 4

    @property
    def action_size(self) -> int:
        """Number of components of an action; 1 for a discrete action."""
        return 1 if isinstance(self.action_space, Discrete) else int(np.prod(self.action_space.shape))

    def advance(self) -> CFunc:
        """Return the compiled loop, a C function ``void(int64 address of the batch's cells)``, loaded from the cache if possible.

        Raises ValueError if another world has the same name.
        """
        with _lock:
            if self.name not in _loops:
                _loops[self.name] = (self, _compile(self))
            owner, loop = _loops[self.name]
        if owner is not self:
            raise ValueError(f"two worlds have the name {self.name!r}: give each world another name")
        return loop


_lock = threading.RLock()
renew_after_fork(globals(), "_lock", threading.RLock)
_loops: dict[str, tuple[World, CFunc]] = {}


def _compile(world: World) -> CFunc:
    """Compile the loop for a world."""
    name = f"advance_{world.name}"
    space = world.action_space
    high = np.full(world.action_size, np.inf, np.float32)
    low = -high
    if isinstance(space, Box) and not world.clips:
        low = np.array(space.low.ravel(), np.float32)
        high = np.array(space.high.ravel(), np.float32)
    sizes = {
        "ACTION_LOW": low,
        "ACTION_HIGH": high,
        "STATE_SIZE": world.state_size + len(world.parameters),
        "STREAM_SIZE": world.stream_size,
        "observations_at": uint8_at if world.observation_space.dtype == np.bool_ else float32_at,
        "OBSERVATION_SIZE": int(np.prod(world.observation_space.shape)),
        "ACTION_SIZE": world.action_size,
        "CHOICES": int(world.action_space.n) if isinstance(world.action_space, Discrete) else 0,
    }
    scope = {**globals(), **sizes, "reset": world.reset, "step": world.step, "observe": world.observe}
    function = python_types.FunctionType(_advance.__code__, scope, name)
    return compile_c_function(function, types.void(types.int64))
