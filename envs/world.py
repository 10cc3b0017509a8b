"""What a native environment is: three kernels over a row of float64, and the loop that steps a batch of them.

A world is written once; `rl_lab.envs.vector.NativeVectorEnv` and `rl_lab.envs.scalar.NativeEnv` make Gymnasium environments of it.

    reset(state, stream)                      set the state to that of a new episode
    step(state, action, stream)               change the state; returns the reward and whether the episode terminated
    observe(state, observation)               write what the agent sees

``state`` is float64 (state_size,) followed by the world's parameters, ``action`` float32 (the number of a discrete action, or the
components of a continuous one), ``stream`` a random stream (see `rl_lab.envs.stream`), ``observation`` float32, flattened.
"""

import threading
import types as python_types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import carray, types

from rl_lab.native.cache import compile_c_function
from rl_lab.native.pointers import float32_at, float64_at, int64_at, uint8_at, uint64_at

kernel = numba.njit(error_model="numpy")
"""Decorates a world's kernels. They are compiled into the world's loop, where the compiler can inline them."""

# --- a batch of environments: cells of int64, which hold numbers and addresses ------------------------------------------

(
    COUNT,  # environments
    FRAMES,  # that an observation holds, oldest first
    TIME_AWARE,  # 1 if a frame ends with the share of the time limit that is used up
    LIMIT,  # steps after which an episode is truncated; 0 for none
    MODE,
    FAULT,  # set by the loop: 1 + the index of the environment that went wrong, negative if by its action; 0 if none
    STATES,  # float64 (count, state size and parameters)
    STREAMS,  # uint64 (count, 4)
    ACTIONS,  # float32 (count, action size)
    OBSERVATIONS,  # float32 (count, frames, frame size): what the agent sees next
    FINAL,  # float32, the same shape: the same before any reset in this step
    REWARDS,  # float64 (count,)
    TERMINATED,  # bool (count,)
    TRUNCATED,  # bool (count,)
    ENDED,  # bool (count,): the episode is over, and the next step resets it or leaves it as it is
    ELAPSED,  # int64 (count,): steps of the episode
    RETURNS,  # float64 (count,): rewards of the episode so far
    EPISODE_RETURNS,  # float64 (count,): of the last episode that ended
    EPISODE_LENGTHS,  # int64 (count,)
    CELLS,
) = range(20)

NEXT_STEP, SAME_STEP, DISABLED, RESETTING = range(4)
"""What happens at the end of an episode; RESETTING is no step at all but a reset of all environments that have ended."""


# Stand-ins for what `_compile` puts in: a world's sizes and kernels.
STATE_SIZE = OBSERVATION_SIZE = ACTION_SIZE = CHOICES = 0
ACTION_LOW = ACTION_HIGH = np.zeros(1, np.float32)
reset: Any = None
step: Any = None
observe: Any = None


def _advance(batch):
    """Step every environment of the batch whose cells are at this address.

    This text is compiled once for each world, with the world's sizes and kernels in place of the stand-ins above: the compiler
    then unrolls the short loops and inlines the kernels, which takes a quarter off a step of CartPole.
    """
    cells = carray(int64_at(batch), (20,))
    count, frames, time_aware, limit, mode = cells[COUNT], cells[FRAMES], cells[TIME_AWARE], cells[LIMIT], cells[MODE]
    frame_size = OBSERVATION_SIZE + time_aware
    states = carray(float64_at(cells[STATES]), (count, STATE_SIZE))
    streams = carray(uint64_at(cells[STREAMS]), (count, 4))
    actions = carray(float32_at(cells[ACTIONS]), (count, ACTION_SIZE))
    observations = carray(float32_at(cells[OBSERVATIONS]), (count, frames * frame_size))
    finals = carray(float32_at(cells[FINAL]), (count, frames * frame_size))
    rewards, returns = carray(float64_at(cells[REWARDS]), (count,)), carray(float64_at(cells[RETURNS]), (count,))
    terminated, truncated = carray(uint8_at(cells[TERMINATED]), (count,)), carray(uint8_at(cells[TRUNCATED]), (count,))
    ended, elapsed = carray(uint8_at(cells[ENDED]), (count,)), carray(int64_at(cells[ELAPSED]), (count,))
    episode_returns = carray(float64_at(cells[EPISODE_RETURNS]), (count,))
    episode_lengths = carray(int64_at(cells[EPISODE_LENGTHS]), (count,))
    newest = (frames - 1) * frame_size
    for i in range(count):
        state, stream, action = states[i], streams[i], actions[i]
        shown, seen = observations[i], observations[i, newest : newest + OBSERVATION_SIZE]
        over_before = ended[i] != 0
        begins = over_before and (mode in (NEXT_STEP, RESETTING))
        if mode == RESETTING and not over_before:
            continue
        rewards[i], terminated[i], truncated[i] = 0.0, 0, 0
        if mode == DISABLED and over_before:
            continue
        if not begins:
            if CHOICES > 0 and not 0 <= action[0] < CHOICES:
                cells[FAULT] = -(i + 1)
                return
            if CHOICES == 0:
                for j in range(ACTION_SIZE):
                    if not ACTION_LOW[j] <= action[j] <= ACTION_HIGH[j]:  # nor NaN
                        cells[FAULT] = -(i + 1)
                        return
            reward, over = step(state, action, stream)
            age = elapsed[i] + 1
            total = returns[i] + reward
            late = limit > 0 and age >= limit
            elapsed[i], returns[i] = age, total
            rewards[i], terminated[i], truncated[i] = reward, over, late
            if frames > 1:
                for j in range(newest):
                    shown[j] = shown[j + frame_size]
            observe(state, seen)
            if time_aware:
                shown[newest + OBSERVATION_SIZE] = age / limit
            sound = np.isfinite(reward)
            for j in range(OBSERVATION_SIZE):
                sound &= np.isfinite(seen[j])
            if not sound:
                cells[FAULT] = i + 1
                return
            ended[i] = over or late
            if over or late:
                episode_returns[i], episode_lengths[i] = total, age
                begins = mode == SAME_STEP
            if frames == 1 and not time_aware:
                for j in range(OBSERVATION_SIZE):
                    finals[i, j] = seen[j]
            else:
                finals[i] = shown
        if begins:
            reset(state, stream)
            observe(state, seen)
            if time_aware:
                shown[newest + OBSERVATION_SIZE] = 0.0
            for f in range(frames - 1):
                for j in range(frame_size):
                    shown[f * frame_size + j] = shown[newest + j]
            ended[i], elapsed[i], returns[i] = 0, 0, 0.0
            sound = True
            for j in range(OBSERVATION_SIZE):
                sound &= np.isfinite(seen[j])
            if not sound:
                cells[FAULT] = i + 1
                return


# --- the world ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class World:
    """A native environment: its spaces and its kernels.

    ``parameters`` are named float64 constants that stand behind the state in every row, and may differ between environments;
    ``options`` maps keys of Gymnasium's ``reset(options=...)`` to the parameters that they set for one reset. A discrete action, and
    a component of a continuous one unless the world ``clips`` them itself, is a fault outside its space. ``draw`` makes a picture,
    uint8 (height, width, 3), of a row.
    """

    name: str
    state_size: int
    observation_space: Box
    action_space: Discrete | Box
    reset: Callable
    step: Callable
    observe: Callable
    parameters: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    clips: bool = False
    draw: Callable[[np.ndarray], np.ndarray] | None = None
    frames_per_second: int = 50

    @property
    def action_size(self) -> int:
        """Numbers in an action: 1 for a discrete one."""
        return 1 if isinstance(self.action_space, Discrete) else int(np.prod(self.action_space.shape))

    def advance(self) -> Any:
        """The compiled loop, a C function ``void(int64 address of the batch's cells)``; from the cache if it is there."""
        with _lock:
            if self.name not in _loops:
                _loops[self.name] = (self, _compile(self))
            owner, loop = _loops[self.name]
        if owner is not self:
            raise ValueError(f"two worlds are called {self.name!r}")
        return loop


_lock = threading.RLock()
_loops: dict[str, tuple[World, Any]] = {}


def _compile(world: World) -> Any:
    name = f"advance_{world.name}"
    space, high = world.action_space, np.full(world.action_size, np.inf, np.float32)
    low = -high
    if isinstance(space, Box) and not world.clips:
        low, high = (np.array(bound.ravel(), np.float32) for bound in (space.low, space.high))
    sizes = {
        "ACTION_LOW": low,
        "ACTION_HIGH": high,
        "STATE_SIZE": world.state_size + len(world.parameters),
        "OBSERVATION_SIZE": int(np.prod(world.observation_space.shape)),
        "ACTION_SIZE": world.action_size,
        "CHOICES": int(world.action_space.n) if isinstance(world.action_space, Discrete) else 0,
    }
    scope = {**globals(), **sizes, "reset": world.reset, "step": world.step, "observe": world.observe}
    function = python_types.FunctionType(_advance.__code__, scope, name)
    return compile_c_function(function, types.void(types.int64))
