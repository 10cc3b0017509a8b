"""Boards of 10 x 10 cells, observed as one channel per kind of object."""

import numpy as np

from rl_lab.envs.world import kernel

SIZE = 10
CELLS = SIZE * SIZE


@kernel
def mark(observation, channel, row, column):
    """Set one cell of a channel to 1. A cell off the board is ignored: a state that a user sets may name one."""
    if 0.0 <= row < SIZE and 0.0 <= column < SIZE:
        observation[channel * CELLS + np.int64(row) * SIZE + np.int64(column)] = 1.0
