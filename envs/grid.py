"""Boards of 10 x 10 cells, in channels."""

import numpy as np

from rl_lab.envs.world import kernel

SIZE = 10
CELLS = SIZE * SIZE


@kernel
def mark(observation, channel, row, column):
    """Set one cell; none if the place is off the board, as in a state that somebody has made up."""
    if 0.0 <= row < SIZE and 0.0 <= column < SIZE:
        observation[channel * CELLS + np.int64(row) * SIZE + np.int64(column)] = 1.0
