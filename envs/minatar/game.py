"""Parts that the five games share: actions, cells of the observation, and the picture."""

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.picture import Colour, grid_picture
from rl_lab.envs.stream import twister_uniform
from rl_lab.envs.world import World, kernel

SIZE = 10
LEFT, UP, RIGHT, DOWN, FIRE = range(1, 6)
"""The actions; 0 does nothing."""
LAST = 0
"""Index of the previous action in the state of every game."""
PARAMETERS = {"sticky_action_prob": 0.1, "difficulty_ramping": 1.0}


@kernel
def sticky(state, move, probability, stream):
    """Return the action that the game performs: ``move``, or with the given probability the previous action."""
    if not twister_uniform(stream) < probability:
        state[LAST] = np.float64(move)
    return state[LAST]


@kernel
def show(observation, channels, channel, row, column):
    """Set one cell of an observation (10, 10, channels). A cell off the board is ignored: a state that a user sets may name one."""
    if 0.0 <= row < SIZE and 0.0 <= column < SIZE:
        observation[(np.int64(row) * SIZE + np.int64(column)) * channels + channel] = 1


@kernel
def clear(observation, channels):
    """Set all cells of an observation to 0."""
    for i in range(SIZE * SIZE * channels):
        observation[i] = 0


@kernel
def whole(number, low, high):
    """Return a number of the state as an int64 between two bounds. A state that a user sets may hold anything, NaN included."""
    if not number > low:
        return np.int64(low)
    return np.int64(min(number, np.float64(high)))


def _palette(channels: int) -> list[Colour]:
    """Return one light colour per channel."""
    found = []
    for channel in range(channels):
        colour = [round(255 * part) for part in colorsys.hsv_to_rgb(channel / channels, 0.65, 0.95)]
        found.append((colour[0], colour[1], colour[2]))
    return found


def painter(observe: Any, channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that draws a state with one colour per channel, higher channels in front."""

    def draw(row: np.ndarray) -> np.ndarray:
        seen = np.zeros(SIZE * SIZE * channels, np.uint8)
        observe.py_func(row, seen)
        planes = seen.reshape(SIZE, SIZE, channels) > 0
        return grid_picture([(planes[:, :, k], colour, "box") for k, colour in enumerate(_palette(channels))])

    return draw


def make_world(
    name: str,
    state_size: int,
    channels: int,
    actions: int,
    reset: Callable[..., object],
    step: Callable[..., object],
    observe: Any,
) -> World:
    """Return the world of a game with ``actions`` actions and observations (10, 10, channels)."""
    return World(
        name=name,
        state_size=state_size,
        observation_space=Box(0.0, 1.0, (SIZE, SIZE, channels), np.bool_),  # type: ignore[arg-type]
        action_space=Discrete(actions),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        draw=painter(observe, channels),
        frames_per_second=10,
        twister=True,
    )
