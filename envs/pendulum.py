"""Pendulum-v1: a native twin of Gymnasium's environment, with the same arithmetic."""

import math

import numpy as np
from gymnasium.spaces import Box

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m
TIME_STEP = 0.05  # s
# Gymnasium squares with the C library's pow, which sometimes differs from a product in the last bit. The exponent ``square`` is a
# parameter, so the compiler does not know that it is 2 and calls pow, too.
PARAMETERS = {"g": 10.0, "x_init": math.pi, "y_init": 1.0, "square": 2.0}
G, X_INIT, Y_INIT, SQUARE = range(2, 6)


@kernel
def reset(state, stream):
    state[0] = uniform(stream, -state[X_INIT], state[X_INIT])
    state[1] = uniform(stream, -state[Y_INIT], state[Y_INIT])


@kernel
def step(state, action, stream):
    """Advance angle and angular velocity by 0.05 s. The reward is -(angle^2 + 0.1 speed^2 + 0.001 torque^2)."""
    theta = state[0]
    speed = state[1]
    square = state[SQUARE]
    torque = np.float32(min(max(np.float32(action[0]), np.float32(-MAX_TORQUE)), np.float32(MAX_TORQUE)))
    angle = ((theta + np.pi) % (2 * np.pi)) - np.pi
    effort = np.float32(0.001) * np.float32(torque ** np.float32(square))
    cost = angle**square + 0.1 * speed**square + np.float64(effort)
    push = np.float64(np.float32(3.0) * torque)
    speed = speed + (3 * state[G] / 2.0 * math.sin(theta) + push) * TIME_STEP
    speed = min(max(speed, -MAX_SPEED), MAX_SPEED)
    state[0] = theta + speed * TIME_STEP
    state[1] = speed
    return -cost, False


@kernel
def observe(state, observation):
    observation[0] = np.float32(math.cos(state[0]))
    observation[1] = np.float32(math.sin(state[0]))
    observation[2] = np.float32(state[1])


_HIGH = np.array([1.0, 1.0, MAX_SPEED], np.float32)


class PendulumVectorEnv(NativeVectorEnv):
    """Twin of Pendulum-v1."""

    world = World(
        name="Pendulum",
        state_size=2,
        observation_space=Box(-_HIGH, _HIGH, dtype=np.float32),
        action_space=Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        options={"x_init": "x_init", "y_init": "y_init"},
        clips=True,
        draw=gymnasium_picture("Pendulum-v1"),
    )
