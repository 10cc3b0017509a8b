"""MinAtar's Breakout: a paddle, a ball that flies along diagonals, and three rows of bricks.

Each brick is worth +1. The wall returns when the ball comes down to the paddle's row and no brick is left. A ball that meets the paddle
flies back; a ball that passes the paddle ends the episode. Channels: paddle, ball, the ball's last cell, bricks.
"""

import numpy as np

from rl_lab.envs.minatar.game import LAST, LEFT, RIGHT, SIZE, clear, make_world, show, sticky, whole
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import twister_below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import kernel

FIRST_ROW = 1
BRICKS = 3 * SIZE
CHANNELS = 4
ACTIONS = (0, LEFT, RIGHT)
PADDLE, ROW, COLUMN, OLD_ROW, OLD_COLUMN, DOWN, ACROSS, STRUCK, WALL = range(LAST + 1, LAST + 10)
"""Indices in the state: the ball's cell, its last cell and its direction; whether it is inside bricks; from WALL on, 1 per brick."""
STATE_SIZE = WALL + BRICKS
STICKY = STATE_SIZE


@kernel
def reset(state, stream):
    right = twister_below(stream, 2) == 0
    state[PADDLE] = 4.0
    state[ROW] = 3.0
    state[COLUMN] = 0.0 if right else SIZE - 1.0
    state[OLD_ROW] = state[ROW]
    state[OLD_COLUMN] = state[COLUMN]
    state[DOWN] = 1.0
    state[ACROSS] = 1.0 if right else -1.0
    state[STRUCK] = 0.0
    for i in range(BRICKS):
        state[WALL + i] = 1.0


@kernel
def _rebuild(state):
    """Put up the wall again if no brick is left."""
    for i in range(BRICKS):
        if state[WALL + i] != 0.0:
            return
    for i in range(BRICKS):
        state[WALL + i] = 1.0


@kernel
def _play(state, move):
    """Move the paddle, then the ball. The ball breaks one brick, and then no other until it has left the bricks."""
    if move == LEFT:
        state[PADDLE] = max(0.0, state[PADDLE] - 1.0)
    elif move == RIGHT:
        state[PADDLE] = min(SIZE - 1.0, state[PADDLE] + 1.0)
    old_row = state[ROW]
    old_column = state[COLUMN]
    row = old_row + state[DOWN]
    column = old_column + state[ACROSS]
    if column < 0.0 or column > SIZE - 1.0:
        column = 0.0 if column < 0.0 else SIZE - 1.0
        state[ACROSS] = -state[ACROSS]
    brick = whole((row - FIRST_ROW) * SIZE + column, -1, BRICKS)
    inside = 0 <= brick < BRICKS and state[WALL + brick] != 0.0
    reward = 0.0
    over = False
    if row < 0.0:
        row = 0.0
        state[DOWN] = -state[DOWN]
    elif inside:
        if state[STRUCK] == 0.0:
            reward = 1.0
            state[WALL + brick] = 0.0
            state[DOWN] = -state[DOWN]
            row = old_row
    elif row == SIZE - 1.0:
        _rebuild(state)
        if old_column == state[PADDLE]:
            state[DOWN] = -state[DOWN]
            row = old_row
        elif column == state[PADDLE]:
            state[DOWN] = -state[DOWN]
            state[ACROSS] = -state[ACROSS]
            row = old_row
        else:
            over = True
    state[STRUCK] = 1.0 if inside else 0.0
    state[OLD_ROW] = old_row
    state[OLD_COLUMN] = old_column
    state[ROW] = row
    state[COLUMN] = column
    return reward, over


@kernel
def step_all(state, action, stream):
    return _play(state, sticky(state, np.int64(action[0]), state[STICKY], stream))


@kernel
def step(state, action, stream):
    return _play(state, sticky(state, ACTIONS[np.int64(action[0])], state[STICKY], stream))


@kernel
def observe(state, observation):
    clear(observation, CHANNELS)
    show(observation, CHANNELS, 0, SIZE - 1.0, state[PADDLE])
    show(observation, CHANNELS, 1, state[ROW], state[COLUMN])
    show(observation, CHANNELS, 2, state[OLD_ROW], state[OLD_COLUMN])
    for i in range(BRICKS):
        observation[(FIRST_ROW * SIZE + i) * CHANNELS + 3] = state[WALL + i] != 0.0


ALL = make_world("MinAtarBreakoutAll", STATE_SIZE, CHANNELS, 6, reset, step_all, observe)
MINIMAL = make_world("MinAtarBreakout", STATE_SIZE, CHANNELS, len(ACTIONS), reset, step, observe)


class BreakoutAllEnv(NativeEnv):
    """MinAtar/Breakout-v0."""

    world = ALL


class BreakoutAllVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Breakout-v0."""

    world = ALL


class BreakoutEnv(NativeEnv):
    """MinAtar/Breakout-v1."""

    world = MINIMAL


class BreakoutVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Breakout-v1."""

    world = MINIMAL
