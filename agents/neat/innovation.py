"""Historical markings (section 3.2): equal structural mutations in one generation get the same innovation number."""

from typing import NamedTuple

import numpy as np

NEXT_INNOVATION, NEXT_NODE, CONNECTIONS, SPLITS = range(4)


class Innovations(NamedTuple):
    """The next unused numbers, and the structural mutations of the present generation.

    ``counters`` holds the next innovation number, the next node number, and the numbers of rows in use of ``connections`` and of
    ``splits``. A row of ``connections`` is (source, target, innovation). A row of ``splits`` is (innovation of the split connection,
    new node, innovation of the connection into the new node); the connection out of the new node has the innovation after it.
    """

    counters: np.ndarray  # int64 (4,)
    connections: np.ndarray  # int64 (population, 3)
    splits: np.ndarray  # int64 (population, 3)


def make_innovations(population: int, inputs: int, outputs: int, hidden: int = 0) -> Innovations:
    """Counters after the numbers of the first generation: its possible connections, and its inputs, outputs and hidden nodes.

    The lists have one row per genome: a mutation adds at most one connection and one node to a genome.
    """
    counters = np.array([inputs * (outputs + hidden) + hidden * outputs, inputs + outputs + hidden, 0, 0])
    return Innovations(counters, np.zeros((population, 3), np.int64), np.zeros((population, 3), np.int64))
