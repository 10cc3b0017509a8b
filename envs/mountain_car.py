"""MountainCar-v0 and MountainCarContinuous-v0: native twins of Gymnasium's environments, with the same arithmetic.

Moore 1990, "Efficient memory-based learning for robot control".
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

LEAST_POSITION = -1.2
MOST_POSITION = 0.6
MAX_SPEED = 0.07
GOAL = 0.5  # position
GOAL_CONTINUOUS = 0.45  # position
PARAMETERS = {"goal_velocity": 0.0, "reset_low": -0.6, "reset_high": -0.4}
_RESET_OPTIONS = {"low": "reset_low", "high": "reset_high"}
_SPACE = Box(
    np.array([LEAST_POSITION, -MAX_SPEED], np.float32), np.array([MOST_POSITION, MAX_SPEED], np.float32), dtype=np.float32
)

# --- three actions -----------------------------------------------------------------------------------------------------

GOAL_VELOCITY, LOW, HIGH = range(2, 5)


@kernel
def reset(state, stream):
    state[0] = uniform(stream, state[LOW], state[HIGH])
    state[1] = 0.0


@kernel
def step(state, action, stream):
    """Advance position and velocity after a push to the left (0), none (1) or a push to the right (2). Reward -1 per step."""
    position = state[0]
    velocity = state[1]
    velocity += (action[0] - 1.0) * 0.001 + math.cos(3 * position) * -0.0025
    velocity = min(max(velocity, -MAX_SPEED), MAX_SPEED)
    position = min(max(position + velocity, LEAST_POSITION), MOST_POSITION)
    if position == LEAST_POSITION and velocity < 0:
        velocity = 0.0
    state[0] = position
    state[1] = velocity
    return -1.0, position >= GOAL and velocity >= state[GOAL_VELOCITY]


@kernel
def observe(state, observation):
    observation[0] = np.float32(state[0])
    observation[1] = np.float32(state[1])


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
# Gymnasium's state is float64 after a reset and float32 after a step, and NumPy computes in the precision of the state. To do the same,
# the state has a third number: 1 before the first step of an episode, 0 afterwards.

FIRST, GOAL_VELOCITY_C, LOW_C, HIGH_C = range(2, 6)


@kernel
def reset_continuous(state, stream):
    state[0] = uniform(stream, state[LOW_C], state[HIGH_C])
    state[1] = 0.0
    state[FIRST] = 1.0


@kernel
def _drive(position, velocity, push, number):
    """Position and velocity after one step, computed in the precision ``number`` (np.float64 or np.float32)."""
    least = number(LEAST_POSITION)
    most = number(MOST_POSITION)
    fastest = number(MAX_SPEED)
    # 3 * position has the precision of the position; the cosine is a Python float, hence float64
    slope = 0.0025 * math.cos(np.float64(number(3.0) * position))
    if -1.0 <= push <= 1.0:
        change = np.float64(np.float32(np.float32(push) * np.float32(0.0015)) - np.float32(slope))
    else:
        change = min(max(push, -1.0), 1.0) * 0.0015 - slope  # after clipping the force is a Python float, hence float64
    velocity = number(velocity + number(change))
    velocity = min(max(velocity, -fastest), fastest)
    position = min(max(number(position + velocity), least), most)
    if position == least and velocity < 0:
        velocity = number(0.0)
    return position, velocity


@kernel
def step_continuous(state, action, stream):
    """Advance position and velocity after a push in [-1, 1]. Reward 100 at the goal, minus 0.1 * push^2 in every step."""
    push = np.float64(np.float32(action[0]))
    if state[FIRST] != 0.0:
        position, velocity = _drive(state[0], state[1], push, np.float64)
        arrived = position >= GOAL_CONTINUOUS and velocity >= state[GOAL_VELOCITY_C]
    else:
        narrow, slow = _drive(np.float32(state[0]), np.float32(state[1]), push, np.float32)
        arrived = narrow >= np.float32(GOAL_CONTINUOUS) and slow >= np.float32(state[GOAL_VELOCITY_C])
        position = np.float64(narrow)
        velocity = np.float64(slow)
    state[0] = np.float64(np.float32(position))
    state[1] = np.float64(np.float32(velocity))
    state[FIRST] = 0.0
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
