"""Acrobot-v1: a native twin of Gymnasium's environment, with the same arithmetic.

Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse coding", with the equations of Sutton
and Barto's book.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

TIME_STEP = 0.2  # s
LENGTH = 1.0  # m, of each link
MASS = 1.0  # kg, of each link
CENTRE = 0.5  # m, from a link's joint to its centre of mass
INERTIA = 1.0  # kg m^2, of each link
GRAVITY = 9.8  # m/s^2
MAX_SPEED_1 = 4 * math.pi  # rad/s
MAX_SPEED_2 = 9 * math.pi  # rad/s
PARAMETERS = {"torque_noise_max": 0.0, "reset_low": -0.1, "reset_high": 0.1, "square": 2.0}
NOISE, LOW, HIGH, SQUARE = range(4, 8)


@kernel
def reset(state, stream):
    for i in range(4):
        state[i] = np.float64(np.float32(uniform(stream, state[LOW], state[HIGH])))


@kernel
def _slope(theta1, theta2, speed1, speed2, torque, square):
    """Angular accelerations of both links, computed in Gymnasium's order of operations.

    ``square`` is 2.0 at run time: an exponent that the compiler does not know makes it call the C library's pow, as Python does.
    """
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
    """Advance angles and speeds of both links by 0.2 s (fourth-order Runge-Kutta). Reward -1 per step until the tip is above the line."""
    torque = action[0] - 1.0
    if state[NOISE] > 0.0:
        torque += uniform(stream, -state[NOISE], state[NOISE])
    square = state[SQUARE]
    half = TIME_STEP / 2.0
    a = state[0]
    b = state[1]
    c = state[2]
    d = state[3]
    k1c, k1d = _slope(a, b, c, d, torque, square)
    k2a = c + half * k1c
    k2b = d + half * k1d
    k2c, k2d = _slope(a + half * c, b + half * d, k2a, k2b, torque, square)
    k3a = c + half * k2c
    k3b = d + half * k2d
    k3c, k3d = _slope(a + half * k2a, b + half * k2b, k3a, k3b, torque, square)
    k4a = c + TIME_STEP * k3c
    k4b = d + TIME_STEP * k3d
    k4c, k4d = _slope(a + TIME_STEP * k3a, b + TIME_STEP * k3b, k4a, k4b, torque, square)
    sixth = TIME_STEP / 6.0
    theta1 = _wrap(a + sixth * (c + 2 * k2a + 2 * k3a + k4a))
    theta2 = _wrap(b + sixth * (d + 2 * k2b + 2 * k3b + k4b))
    speed1 = min(max(c + sixth * (k1c + 2 * k2c + 2 * k3c + k4c), -MAX_SPEED_1), MAX_SPEED_1)
    speed2 = min(max(d + sixth * (k1d + 2 * k2d + 2 * k3d + k4d), -MAX_SPEED_2), MAX_SPEED_2)
    state[0] = theta1
    state[1] = theta2
    state[2] = speed1
    state[3] = speed2
    arrived = -math.cos(theta1) - math.cos(theta2 + theta1) > 1.0
    return (0.0 if arrived else -1.0), arrived


@kernel
def observe(state, observation):
    observation[0] = np.float32(math.cos(state[0]))
    observation[1] = np.float32(math.sin(state[0]))
    observation[2] = np.float32(math.cos(state[1]))
    observation[3] = np.float32(math.sin(state[1]))
    observation[4] = np.float32(state[2])
    observation[5] = np.float32(state[3])


_HIGH = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], np.float32)


class AcrobotVectorEnv(NativeVectorEnv):
    """Twin of Acrobot-v1.

    After a reset Gymnasium computes the cosines of the angles in float32; their last bit depends on NumPy's build. This twin computes
    them in float64 and rounds. So the first observation of an episode may differ in the last bit; all others are equal.
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
