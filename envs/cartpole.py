"""CartPole-v1: a native twin of Gymnasium's environment, and CartPoleMasked-v0, which hides the velocities.

Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control problems". The equations are
in Gymnasium's form and order of operations, so results are equal to the last bit.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import gymnasium_picture
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

MASS_POLE = 0.1  # kg
HALF_LENGTH = 0.5  # m
TOTAL_MASS = MASS_POLE + 1.0  # kg, with the cart
POLE_MASS_LENGTH = MASS_POLE * HALF_LENGTH
ANGLE_LIMIT = 12 * 2 * math.pi / 360  # rad
POSITION_LIMIT = 2.4  # m
PARAMETERS = {
    "gravity": 9.8,
    "force_mag": 10.0,
    "tau": 0.02,
    "sutton_barto_reward": 0.0,
    "reset_low": -0.05,
    "reset_high": 0.05,
}
GRAVITY, FORCE, TAU, SUTTON_BARTO, LOW, HIGH = range(4, 10)


@kernel
def reset(state, stream):
    for i in range(4):
        state[i] = uniform(stream, state[LOW], state[HIGH])


@kernel
def step(state, action, stream):
    """Advance position, velocity, angle and angular velocity by one Euler step.

    The reward is 1 per step. With ``sutton_barto_reward`` it is 0 per step and -1 when the pole falls.
    """
    x = state[0]
    x_dot = state[1]
    theta = state[2]
    theta_dot = state[3]
    force = state[FORCE] if action[0] == 1.0 else -state[FORCE]
    cosine = math.cos(theta)
    sine = math.sin(theta)
    pull = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sine) / TOTAL_MASS
    theta_acceleration = (state[GRAVITY] * sine - cosine * pull) / (
        HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * (cosine * cosine) / TOTAL_MASS)
    )
    x_acceleration = pull - POLE_MASS_LENGTH * theta_acceleration * cosine / TOTAL_MASS
    tau = state[TAU]
    x = x + tau * x_dot
    x_dot = x_dot + tau * x_acceleration
    theta = theta + tau * theta_dot
    theta_dot = theta_dot + tau * theta_acceleration
    state[0] = x
    state[1] = x_dot
    state[2] = theta
    state[3] = theta_dot
    fallen = x < -POSITION_LIMIT or x > POSITION_LIMIT or theta < -ANGLE_LIMIT or theta > ANGLE_LIMIT
    if state[SUTTON_BARTO] != 0.0:
        return (-1.0 if fallen else 0.0), fallen
    return 1.0, fallen


@kernel
def observe(state, observation):
    for i in range(4):
        observation[i] = np.float32(state[i])


@kernel
def observe_positions(state, observation):
    observation[0] = np.float32(state[0])
    observation[1] = np.float32(state[2])


_HIGH = np.array([POSITION_LIMIT * 2, np.inf, ANGLE_LIMIT * 2, np.inf], np.float32)
_RESET_OPTIONS = {"low": "reset_low", "high": "reset_high"}


class CartPoleVectorEnv(NativeVectorEnv):
    """Twin of CartPole-v1."""

    world = World(
        name="CartPole",
        state_size=4,
        observation_space=Box(-_HIGH, _HIGH, dtype=np.float32),
        action_space=Discrete(2),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        options=_RESET_OPTIONS,
        draw=gymnasium_picture("CartPole-v1"),
    )


MASKED = World(
    name="CartPoleMasked",
    state_size=4,
    observation_space=Box(-_HIGH[::2], _HIGH[::2], dtype=np.float32),
    action_space=Discrete(2),
    reset=reset,
    step=step,
    observe=observe_positions,
    parameters=PARAMETERS,
    options=_RESET_OPTIONS,
    draw=gymnasium_picture("CartPole-v1"),
    observation_names=("cart position", "pole angle"),
    action_names=("push left", "push right"),
)


class CartPoleMaskedEnv(NativeEnv):
    """CartPole with only the position and the angle observed: velocities are hidden, so the agent needs memory."""

    world = MASKED


class CartPoleMaskedVectorEnv(NativeVectorEnv):
    """CartPole with only the position and the angle observed: velocities are hidden, so the agent needs memory."""

    world = MASKED
