"""Catch-v0: catch falling balls with a paddle, on a grid of 10 x 10 cells. Our own rules, after an old idea.

One ball at a time falls from a random column of the top row. In each step it falls by one row, straight down or drifting to a side; it
bounces off the side walls. The paddle is one cell of the bottom row and moves left, stays or moves right. When the ball reaches the
bottom row, the reward is +1 if the paddle is in the same cell and -1 otherwise, and the next ball appears. The episode terminates
after 10 balls (90 steps).

The best return is 10: the course of a ball is visible nine steps before it lands, and no column is more than nine steps away. Standing
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
    """Put a new ball into the top row."""
    state[ROW] = 0.0
    state[COLUMN] = np.float64(below(stream, SIZE))
    state[DRIFT] = np.float64(below(stream, 3) - 1)


@kernel
def _turn(column, drift):
    """Return the drift, reversed if the ball's next column would be beyond a wall."""
    return -drift if column + drift < 0 or column + drift >= SIZE else drift


@kernel
def reset(state, stream):
    state[PADDLE] = np.float64(SIZE // 2)
    state[LEFT] = state[BALLS]
    _launch(state, stream)
    state[DRIFT] = _turn(state[COLUMN], state[DRIFT])


@kernel
def step(state, action, stream):
    """Move the paddle, then the ball. Reward +1 or -1 when a ball lands; the last ball ends the episode."""
    state[PADDLE] = min(max(state[PADDLE] + np.float64(action[0]) - 1.0, 0.0), SIZE - 1.0)
    state[ROW] += 1.0
    state[COLUMN] += state[DRIFT]
    reward = 0.0
    over = False
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
    """Write three channels: the paddle, the ball, and the cell into which the ball falls next."""
    for i in range(3 * CELLS):
        observation[i] = 0.0
    mark(observation, 0, SIZE - 1.0, state[PADDLE])
    mark(observation, 1, state[ROW], state[COLUMN])
    mark(observation, 2, state[ROW] + 1.0, state[COLUMN] + state[DRIFT])


def draw(row: np.ndarray) -> np.ndarray:
    """Picture of a state: the paddle in blue, the ball in yellow, a ring in the ball's next cell."""
    seen = np.zeros(3 * CELLS, np.float32)
    observe.py_func(row, seen)
    paddle, ball, ahead = seen.reshape(3, SIZE, SIZE) > 0
    return grid_picture([(paddle, BLUE, "box"), (ahead, ORANGE, "ring"), (ball, YELLOW, "disc")])


WORLD = World(
    name="Catch",
    state_size=5,
    observation_space=Box(0.0, 1.0, (3, SIZE, SIZE), np.float32),
    action_space=Discrete(3),
    action_names=("left", "stay", "right"),
    reset=reset,
    step=step,
    observe=observe,
    parameters={"balls": 10.0},
    options={"balls": "balls"},
    draw=draw,
    frames_per_second=8,
)


class CatchEnv(NativeEnv):
    """One game of Catch; `rl_lab.envs.catch` describes the rules."""

    world = WORLD


class CatchVectorEnv(NativeVectorEnv):
    """A batch of games of Catch; `rl_lab.envs.catch` describes the rules."""

    world = WORLD
