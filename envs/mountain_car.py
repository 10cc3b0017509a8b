"""MountainCar-v0 and MountainCarContinuous-v0: twins of Gymnasium's.

Moore 1990, "Efficient memory-based learning for robot control".
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

LEAST_POSITION, MOST_POSITION, MAX_SPEED = -1.2, 0.6, 0.07
GOAL, GOAL_CONTINUOUS = 0.5, 0.45
PARAMETERS = {"goal_velocity": 0.0, "reset_low": -0.6, "reset_high": -0.4}
_RESET_OPTIONS = {"low": "reset_low", "high": "reset_high"}
_SPACE = Box(
    np.array([LEAST_POSITION, -MAX_SPEED], np.float32), np.array([MOST_POSITION, MAX_SPEED], np.float32), dtype=np.float32
)

# --- three actions -----------------------------------------------------------------------------------------------------

GOAL_VELOCITY, LOW, HIGH = range(2, 5)


@kernel
def reset(state, stream):
    state[0], state[1] = uniform(stream, state[LOW], state[HIGH]), 0.0


@kernel
def step(state, action, stream):
    """Position and velocity after pushing left, not at all or right; -1 a step."""
    position, velocity = state[0], state[1]
    velocity += (action[0] - 1.0) * 0.001 + math.cos(3 * position) * -0.0025
    velocity = min(max(velocity, -MAX_SPEED), MAX_SPEED)
    position = min(max(position + velocity, LEAST_POSITION), MOST_POSITION)
    if position == LEAST_POSITION and velocity < 0:
        velocity = 0.0
    state[0], state[1] = position, velocity
    return -1.0, position >= GOAL and velocity >= state[GOAL_VELOCITY]


@kernel
def observe(state, observation):
    observation[0], observation[1] = np.float32(state[0]), np.float32(state[1])


class MountainCarVectorEnv(NativeVectorEnv):
    """Twin of MountainCar-v0."""

    world = World(
        name="MountainCar",
        state_size=2,
        observation_space=_SPACE,
        action_space=Discrete(3),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        options=_RESET_OPTIONS,
        draw=gymnasium_picture("MountainCar-v0"),
    )


# --- a continuous force ------------------------------------------------------------------------------------------------
# Gymnasium's state is float64 after a reset and float32 after a step, and Python numbers take the width of what they meet: so the
# state has a third number, 1 in the first step.

FIRST, GOAL_VELOCITY_C, LOW_C, HIGH_C = range(2, 6)


@kernel
def reset_continuous(state, stream):
    state[0], state[1], state[FIRST] = uniform(stream, state[LOW_C], state[HIGH_C]), 0.0, 1.0


@kernel
def _drive(position, velocity, push, number):
    """One step in the width of ``number``, np.float64 or np.float32."""
    least, most, fastest = number(LEAST_POSITION), number(MOST_POSITION), number(MAX_SPEED)
    # 3 * position is as wide as the position, and the cosine is a Python float
    slope = 0.0025 * math.cos(np.float64(number(3.0) * position))
    if -1.0 <= push <= 1.0:
        change = np.float64(np.float32(np.float32(push) * np.float32(0.0015)) - np.float32(slope))
    else:
        change = min(max(push, -1.0), 1.0) * 0.0015 - slope  # a clipped force is a Python float
    velocity = number(velocity + number(change))
    velocity = min(max(velocity, -fastest), fastest)
    position = min(max(number(position + velocity), least), most)
    if position == least and velocity < 0:
        velocity = number(0.0)
    return position, velocity


@kernel
def step_continuous(state, action, stream):
    """Position and velocity after a push in [-1, 1]; 100 at the goal, less a tenth of the push squared."""
    push = np.float64(np.float32(action[0]))
    if state[FIRST] != 0.0:
        position, velocity = _drive(state[0], state[1], push, np.float64)
        arrived = position >= GOAL_CONTINUOUS and velocity >= state[GOAL_VELOCITY_C]
    else:
        narrow, slow = _drive(np.float32(state[0]), np.float32(state[1]), push, np.float32)
        arrived = narrow >= np.float32(GOAL_CONTINUOUS) and slow >= np.float32(state[GOAL_VELOCITY_C])
        position, velocity = np.float64(narrow), np.float64(slow)
    state[0], state[1], state[FIRST] = np.float64(np.float32(position)), np.float64(np.float32(velocity)), 0.0
    return (100.0 if arrived else 0.0) - push * push * 0.1, arrived


class MountainCarContinuousVectorEnv(NativeVectorEnv):
    """Twin of MountainCarContinuous-v0."""

    world = World(
        name="MountainCarContinuous",
        state_size=3,
        observation_space=_SPACE,
        action_space=Box(-1.0, 1.0, (1,), np.float32),
        reset=reset_continuous,
        step=step_continuous,
        observe=observe,
        parameters=PARAMETERS,
        options=_RESET_OPTIONS,
        clips=True,
        draw=gymnasium_picture("MountainCarContinuous-v0"),
    )
