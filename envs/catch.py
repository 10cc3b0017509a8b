"""Catch-v0: falling balls and a paddle, on a grid of 10 x 10 pixels. Rules of our own, after an old idea.

One ball at a time falls from a random column of the top row, a row a step, straight down or drifting to a side and turned back by
the walls. The paddle is one cell of the bottom row and moves left, stays or moves right. When the ball arrives in the bottom row the
reward is +1 if the paddle is there and -1 if not, and the next ball appears; after 10 balls, 90 steps, the episode terminates.

The best return is 10: nine steps before a ball lands its course is seen, and no column is farther than nine steps away. Standing
still or moving at random yields about -8.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.grid import CELLS, SIZE, mark
from rl_lab.envs.picture import BLUE, ORANGE, YELLOW, grid_picture
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

PADDLE, ROW, COLUMN, DRIFT, LEFT, BALLS = range(6)


@kernel
def _launch(state, stream):
    state[ROW], state[COLUMN], state[DRIFT] = 0.0, np.float64(below(stream, SIZE)), np.float64(below(stream, 3) - 1)


@kernel
def _turn(column, drift):
    """The drift after a look at the walls."""
    return -drift if column + drift < 0 or column + drift >= SIZE else drift


@kernel
def reset(state, stream):
    state[PADDLE], state[LEFT] = np.float64(SIZE // 2), state[BALLS]
    _launch(state, stream)
    state[DRIFT] = _turn(state[COLUMN], state[DRIFT])


@kernel
def step(state, action, stream):
    """Move the paddle, then the ball; +1 or -1 when it lands, which ends the episode if it was the last."""
    state[PADDLE] = min(max(state[PADDLE] + np.float64(action[0]) - 1.0, 0.0), SIZE - 1.0)
    state[ROW] += 1.0
    state[COLUMN] += state[DRIFT]
    reward, over = 0.0, False
    if state[ROW] == SIZE - 1:
        reward = 1.0 if state[COLUMN] == state[PADDLE] else -1.0
        state[LEFT] -= 1.0
        over = state[LEFT] <= 0.0
        if not over:
            _launch(state, stream)
    state[DRIFT] = _turn(state[COLUMN], state[DRIFT])
    return reward, over


@kernel
def observe(state, observation):
    """Three channels: the paddle, the ball, and the cell that the ball will fall into."""
    for i in range(3 * CELLS):
        observation[i] = 0.0
    mark(observation, 0, SIZE - 1.0, state[PADDLE])
    mark(observation, 1, state[ROW], state[COLUMN])
    mark(observation, 2, state[ROW] + 1.0, state[COLUMN] + state[DRIFT])


def draw(row: np.ndarray) -> np.ndarray:
    """The paddle in blue, the ball in yellow, and a ring where it falls next."""
    seen = np.zeros(3 * CELLS, np.float32)
    observe.py_func(row, seen)
    paddle, ball, ahead = seen.reshape(3, SIZE, SIZE) > 0
    return grid_picture([(paddle, BLUE, "box"), (ahead, ORANGE, "ring"), (ball, YELLOW, "disc")])


WORLD = World(
    name="Catch",
    state_size=5,
    observation_space=Box(0.0, 1.0, (3, SIZE, SIZE), np.float32),
    action_space=Discrete(3),
    reset=reset,
    step=step,
    observe=observe,
    parameters={"balls": 10.0},
    options={"balls": "balls"},
    draw=draw,
    frames_per_second=8,
)


class CatchEnv(NativeEnv):
    """One game of Catch; the rules are in `rl_lab.envs.catch`."""

    world = WORLD


class CatchVectorEnv(NativeVectorEnv):
    """Many games of Catch; the rules are in `rl_lab.envs.catch`."""

    world = WORLD
