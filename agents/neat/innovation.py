"""Historical markings (section 3.2): equal structural innovations of one generation share a number."""

from typing import NamedTuple

import numpy as np

NEXT_INNOVATION, NEXT_NODE, CONNECTIONS, SPLITS = range(4)


class Innovations(NamedTuple):
    """The numbers given so far, and what was invented in this generation.

    ``counters`` are the next innovation number, the next node number, and how many rows of the two lists this generation uses.
    A row of ``connections`` is (source, target, innovation). A row of ``splits`` is (innovation of the connection that was split,
    node, innovation of the connection into the node), that out of the node having the number after it.
    """

    counters: np.ndarray
    connections: np.ndarray
    splits: np.ndarray


def make_innovations(population: int, inputs: int, outputs: int, hidden: int = 0) -> Innovations:
    """The state before the first generation: every connection of it has a number, and hidden nodes follow the outputs.

    One reproduction invents at most one connection and one node a genome.
    """
    counters = np.array([inputs * (outputs + hidden) + hidden * outputs, inputs + outputs + hidden, 0, 0])
    return Innovations(counters, np.zeros((population, 3), np.int64), np.zeros((population, 3), np.int64))
