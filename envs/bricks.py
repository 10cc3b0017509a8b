"""Bricks-v0: break a wall of bricks with a ball and a paddle, on a grid of 10 x 10 cells. Our own rules, after the arcade games.

Rows 1 to 3 hold 30 bricks. In each step the ball moves one row up or down and at most one column to a side; it bounces off the side
walls and the ceiling. If a brick is in the way, the brick breaks for a reward of +1 and the ball bounces off; for this step the ball
stays in its cell. The paddle fills three cells of the bottom row. In each step the paddle moves left, stays or moves right, before
the ball moves. If the ball meets the paddle, the ball stays in the row above for this step and then flies up: to the left, straight,
or to the right, depending on which of the three cells it met. The episode terminates when the ball passes the paddle or when the last
brick breaks.

The best return is 30. It can be reached, as a test shows: the paddle is as fast as the ball and chooses the ball's direction.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.grid import CELLS, SIZE, mark
from rl_lab.envs.picture import BLUE, GREEN, ORANGE, RED, YELLOW, grid_picture
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

FIRST_ROW = 1
ROWS = 3
BRICKS = ROWS * SIZE
PADDLE, ROW, COLUMN, DOWN, RIGHT, LEFT, WALL = range(7)
"""Indices in the state: the paddle's middle column; the ball's row, column and direction; bricks left; from WALL on, 1 per whole brick."""


@kernel
def reset(state, stream):
    state[PADDLE] = np.float64(SIZE // 2)
    state[ROW] = np.float64(FIRST_ROW + ROWS)
    state[COLUMN] = np.float64(below(stream, SIZE))
    state[DOWN] = 1.0
    state[RIGHT] = np.float64(2 * below(stream, 2) - 1)
    state[LEFT] = BRICKS
    for i in range(BRICKS):
        state[WALL + i] = 1.0
    _turn(state)


@kernel
def _turn(state):
    """Reverse the ball's direction if its next cell would be beyond a wall or the ceiling."""
    if state[COLUMN] + state[RIGHT] < 0.0 or state[COLUMN] + state[RIGHT] >= SIZE:
        state[RIGHT] = -state[RIGHT]
    if state[ROW] + state[DOWN] < 0.0:
        state[DOWN] = 1.0


@kernel
def step(state, action, stream):
    """Move the paddle, then the ball. Reward +1 for a broken brick."""
    state[PADDLE] = min(max(state[PADDLE] + np.float64(action[0]) - 1.0, 1.0), SIZE - 2.0)
    row = np.int64(state[ROW] + state[DOWN])
    column = np.int64(state[COLUMN] + state[RIGHT])
    brick = (row - FIRST_ROW) * SIZE + column
    offset = np.float64(column) - state[PADDLE]
    reward = 0.0
    over = False
    if 0 <= brick < BRICKS and state[WALL + brick] != 0.0:
        state[WALL + brick] = 0.0
        state[LEFT] -= 1.0
        state[DOWN] = -state[DOWN]
        reward = 1.0
        over = state[LEFT] == 0.0
    elif row == SIZE - 1 and abs(offset) <= 1.0:
        state[DOWN] = -1.0
        state[RIGHT] = offset
        state[COLUMN] = np.float64(column)
    else:
        state[ROW] = np.float64(row)
        state[COLUMN] = np.float64(column)
        over = row == SIZE - 1
    _turn(state)
    return reward, over


@kernel
def observe(state, observation):
    """Write four channels: the paddle, the ball, the cell that the ball would enter next if that cell were free, and the bricks."""
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
    """Picture of a state: the bricks in three colours, the paddle in blue, the ball in yellow, a ring in the ball's next cell."""
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
    action_names=("left", "stay", "right"),
    reset=reset,
    step=step,
    observe=observe,
    draw=draw,
    frames_per_second=12,
)


class BricksEnv(NativeEnv):
    """One game of Bricks; `rl_lab.envs.bricks` describes the rules."""

    world = WORLD


class BricksVectorEnv(NativeVectorEnv):
    """A batch of games of Bricks; `rl_lab.envs.bricks` describes the rules."""

    world = WORLD
