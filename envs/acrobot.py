"""Acrobot-v1: a twin of Gymnasium's.

Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse coding"; the equations of Sutton and
Barto's book.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

TIME_STEP, LENGTH, MASS, CENTRE, INERTIA, GRAVITY = 0.2, 1.0, 1.0, 0.5, 1.0, 9.8
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi
PARAMETERS = {"torque_noise_max": 0.0, "reset_low": -0.1, "reset_high": 0.1, "square": 2.0}
NOISE, LOW, HIGH, SQUARE = range(4, 8)


@kernel
def reset(state, stream):
    for i in range(4):
        state[i] = np.float64(np.float32(uniform(stream, state[LOW], state[HIGH])))


@kernel
def _slope(theta1, theta2, speed1, speed2, torque, square):
    """The accelerations of both links, in Gymnasium's order of operations; squares as the C library's pow has them."""
    d1 = MASS * CENTRE**2 + MASS * (LENGTH**2 + CENTRE**2 + 2 * LENGTH * CENTRE * math.cos(theta2)) + INERTIA + INERTIA
    d2 = MASS * (CENTRE**2 + LENGTH * CENTRE * math.cos(theta2)) + INERTIA
    phi2 = MASS * CENTRE * GRAVITY * math.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = (
        -MASS * LENGTH * CENTRE * speed2**square * math.sin(theta2)
        - 2 * MASS * LENGTH * CENTRE * speed2 * speed1 * math.sin(theta2)
        + (MASS * CENTRE + MASS * LENGTH) * GRAVITY * math.cos(theta1 - math.pi / 2)
        + phi2
    )
    acceleration2 = (torque + d2 / d1 * phi1 - MASS * LENGTH * CENTRE * speed1**square * math.sin(theta2) - phi2) / (
        MASS * CENTRE**2 + INERTIA - d2**square / d1
    )
    return -(d2 * acceleration2 + phi1) / d1, acceleration2


@kernel
def _wrap(angle):
    while angle > math.pi:
        angle = angle - 2 * math.pi
    while angle < -math.pi:
        angle = angle + 2 * math.pi
    return angle


@kernel
def step(state, action, stream):
    """Angles and speeds of both links 0.2 s later (fourth-order Runge-Kutta); -1 a step until the tip is high enough."""
    torque = action[0] - 1.0
    if state[NOISE] > 0.0:
        torque += uniform(stream, -state[NOISE], state[NOISE])
    square, half = state[SQUARE], TIME_STEP / 2.0
    a, b, c, d = state[0], state[1], state[2], state[3]
    k1c, k1d = _slope(a, b, c, d, torque, square)
    k2a, k2b = c + half * k1c, d + half * k1d
    k2c, k2d = _slope(a + half * c, b + half * d, k2a, k2b, torque, square)
    k3a, k3b = c + half * k2c, d + half * k2d
    k3c, k3d = _slope(a + half * k2a, b + half * k2b, k3a, k3b, torque, square)
    k4a, k4b = c + TIME_STEP * k3c, d + TIME_STEP * k3d
    k4c, k4d = _slope(a + TIME_STEP * k3a, b + TIME_STEP * k3b, k4a, k4b, torque, square)
    sixth = TIME_STEP / 6.0
    theta1 = _wrap(a + sixth * (c + 2 * k2a + 2 * k3a + k4a))
    theta2 = _wrap(b + sixth * (d + 2 * k2b + 2 * k3b + k4b))
    speed1 = min(max(c + sixth * (k1c + 2 * k2c + 2 * k3c + k4c), -MAX_SPEED_1), MAX_SPEED_1)
    speed2 = min(max(d + sixth * (k1d + 2 * k2d + 2 * k3d + k4d), -MAX_SPEED_2), MAX_SPEED_2)
    state[0], state[1], state[2], state[3] = theta1, theta2, speed1, speed2
    arrived = -math.cos(theta1) - math.cos(theta2 + theta1) > 1.0
    return (0.0 if arrived else -1.0), arrived


@kernel
def observe(state, observation):
    observation[0], observation[1] = np.float32(math.cos(state[0])), np.float32(math.sin(state[0]))
    observation[2], observation[3] = np.float32(math.cos(state[1])), np.float32(math.sin(state[1]))
    observation[4], observation[5] = np.float32(state[2]), np.float32(state[3])


_HIGH = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], np.float32)


class AcrobotVectorEnv(NativeVectorEnv):
    """Twin of Acrobot-v1.

    After a reset Gymnasium takes the cosines of float32 angles in float32, whose last bit depends on NumPy's build; here they are
    rounded from float64. That observation alone may differ in the last bit.
    """

    world = World(
        name="Acrobot",
        state_size=4,
        observation_space=Box(-_HIGH, _HIGH, dtype=np.float32),
        action_space=Discrete(3),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        options={"low": "reset_low", "high": "reset_high"},
        draw=gymnasium_picture("Acrobot-v1"),
    )
