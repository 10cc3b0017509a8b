"""Bricks-v0: a wall, a ball and a paddle, on a grid of 10 x 10 pixels. Rules of our own, after the arcade games.

Rows 1 to 3 hold 30 bricks. The ball moves a row a step, up or down, and a column left, a column right or none; walls and ceiling
turn it back. A brick in its way breaks for a reward of +1 and turns it back too: the ball stays where it is for that step. The paddle
is three cells of the bottom row that move left, stay or move right before the ball does; the ball stays in the row above it for the
step in which they meet, and which cell is hit decides how it goes on: to the left, straight up, or to the right. The episode
terminates when the ball gets past the paddle, and when the last brick is broken.

The best return is 30, and it can be reached (a test does so): the paddle is as fast as the ball, and chooses its direction.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.grid import CELLS, SIZE, mark
from rl_lab.envs.picture import BLUE, GREEN, ORANGE, RED, YELLOW, grid_picture
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

FIRST_ROW, ROWS = 1, 3
BRICKS = ROWS * SIZE
PADDLE, ROW, COLUMN, DOWN, RIGHT, LEFT, WALL = range(7)  # the paddle's middle cell; bricks left; from WALL on, 1 for each brick


@kernel
def reset(state, stream):
    state[PADDLE] = np.float64(SIZE // 2)
    state[ROW], state[COLUMN] = np.float64(FIRST_ROW + ROWS), np.float64(below(stream, SIZE))
    state[DOWN], state[RIGHT] = 1.0, np.float64(2 * below(stream, 2) - 1)
    state[LEFT] = BRICKS
    for i in range(BRICKS):
        state[WALL + i] = 1.0
    _turn(state)


@kernel
def _turn(state):
    """Walls and ceiling turn the ball back before it meets them."""
    if state[COLUMN] + state[RIGHT] < 0.0 or state[COLUMN] + state[RIGHT] >= SIZE:
        state[RIGHT] = -state[RIGHT]
    if state[ROW] + state[DOWN] < 0.0:
        state[DOWN] = 1.0


@kernel
def step(state, action, stream):
    """Move the paddle, then the ball; +1 for a brick."""
    state[PADDLE] = min(max(state[PADDLE] + np.float64(action[0]) - 1.0, 1.0), SIZE - 2.0)
    row, column = np.int64(state[ROW] + state[DOWN]), np.int64(state[COLUMN] + state[RIGHT])
    brick = (row - FIRST_ROW) * SIZE + column
    offset = np.float64(column) - state[PADDLE]
    reward, over = 0.0, False
    if 0 <= brick < BRICKS and state[WALL + brick] != 0.0:
        state[WALL + brick] = 0.0
        state[LEFT] -= 1.0
        state[DOWN] = -state[DOWN]
        reward, over = 1.0, state[LEFT] == 0.0
    elif row == SIZE - 1 and abs(offset) <= 1.0:
        state[DOWN], state[RIGHT], state[COLUMN] = -1.0, offset, np.float64(column)
    else:
        state[ROW], state[COLUMN] = np.float64(row), np.float64(column)
        over = row == SIZE - 1
    _turn(state)
    return reward, over


@kernel
def observe(state, observation):
    """Four channels: the paddle, the ball, the cell that it would enter next if it were free, and the bricks."""
    for i in range(4 * CELLS):
        observation[i] = 0.0
    for side in range(-1, 2):
        mark(observation, 0, SIZE - 1.0, state[PADDLE] + side)
    mark(observation, 1, state[ROW], state[COLUMN])
    if state[ROW] < SIZE - 1:
        mark(observation, 2, state[ROW] + state[DOWN], state[COLUMN] + state[RIGHT])
    for i in range(BRICKS):
        observation[3 * CELLS + FIRST_ROW * SIZE + i] = 1.0 if state[WALL + i] != 0.0 else 0.0


def draw(row: np.ndarray) -> np.ndarray:
    """The wall in three colours, the paddle in blue, the ball in yellow, and a ring where it goes next."""
    seen = np.zeros(4 * CELLS, np.float32)
    observe.py_func(row, seen)
    paddle, ball, ahead, bricks = seen.reshape(4, SIZE, SIZE) > 0
    level = np.arange(SIZE)[:, None] - FIRST_ROW
    wall = [(bricks & (level == i), colour, "box") for i, colour in enumerate((RED, ORANGE, GREEN))]
    return grid_picture([*wall, (paddle, BLUE, "box"), (ahead, YELLOW, "ring"), (ball, YELLOW, "disc")])


WORLD = World(
    name="Bricks",
    state_size=WALL + BRICKS,
    observation_space=Box(0.0, 1.0, (4, SIZE, SIZE), np.float32),
    action_space=Discrete(3),
    reset=reset,
    step=step,
    observe=observe,
    draw=draw,
    frames_per_second=12,
)


class BricksEnv(NativeEnv):
    """One game of Bricks; the rules are in `rl_lab.envs.bricks`."""

    world = WORLD


class BricksVectorEnv(NativeVectorEnv):
    """Many games of Bricks; the rules are in `rl_lab.envs.bricks`."""

    world = WORLD
