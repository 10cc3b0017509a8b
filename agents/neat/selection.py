"""Alternatives to shared fitness: selection for several objectives (NSGA-II) and for novelty."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rl_lab.agents.neat.genome import Genomes

# --- NSGA-II: Deb, Pratap, Agarwal and Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm" -------------------


def nondominated_ranks(objectives: np.ndarray) -> np.ndarray:
    """The front of each row of ``objectives`` (genomes, objectives), all maximised; 0 is the best front (section III-A).

    Unlike in the paper, the first of several equal rows dominates the others; otherwise copies of one genome would fill the best front.
    """
    at_least = (objectives[:, None] >= objectives[None]).all(2)
    dominates = at_least & (~at_least.T | np.triu(np.ones_like(at_least), 1))
    dominated_by = dominates.sum(0)
    ranks = np.zeros(len(objectives), np.int64)
    left = np.ones(len(objectives), bool)
    front = 0
    while left.any():
        members = left & (dominated_by == 0)
        ranks[members] = front
        dominated_by = dominated_by - dominates[members].sum(0)
        left &= ~members
        front += 1
    return ranks


def crowding_distances(objectives: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The crowding distance of each row: the distance between its neighbours in its front, infinite at the ends (section III-B)."""
    distances = np.zeros(len(objectives))
    for front in range(int(ranks.max(initial=-1)) + 1):
        members = np.flatnonzero(ranks == front)
        for values in objectives[members].T:
            order = np.argsort(values, kind="stable")
            low = values[order[0]]
            high = values[order[-1]]
            distances[members[order[[0, -1]]]] = np.inf
            if high > low:
                distances[members[order[1:-1]]] += (values[order[2:]] - values[order[:-2]]) / (high - low)
    return distances


def crowded_order(objectives: np.ndarray) -> np.ndarray:
    """The indices of the rows from best to worst: by front, and within a front by falling crowding distance."""
    ranks = nondominated_ranks(objectives)
    return np.lexsort((-crowding_distances(objectives, ranks), ranks))


def sizes_of(genomes: Genomes) -> np.ndarray:
    """The size of each genome (population,): hidden nodes plus enabled connections."""
    used = np.arange(genomes.weight.shape[1]) < genomes.connections[:, None]
    return (genomes.enabled & used).sum(1) + genomes.nodes - genomes.outputs[0]


# --- novelty: Lehman and Stanley 2011, "Abandoning objectives: evolution through the search for novelty alone" -----------------


class NoveltyArchive:
    """An archive of behaviours that were novel when they appeared.

    A behaviour's novelty is its mean distance to the ``neighbours`` nearest behaviours in the present generation and the archive
    (equation 1). Behaviours with a novelty above ``threshold`` enter the archive. The threshold rises by 20 % when more than four
    behaviours of a generation enter, and falls by 5 % after ten generations in a row without an entry.
    """

    def __init__(self, neighbours: int = 15, threshold: float = 1.0):
        if neighbours < 1 or not threshold > 0:
            raise ValueError(f"novelty needs at least one neighbour and a positive threshold, got {neighbours} and {threshold}")
        self.neighbours = neighbours
        self.threshold = float(threshold)
        self.behaviours: np.ndarray | None = None
        self.quiet = 0

    def novelty(self, behaviours: ArrayLike) -> np.ndarray:
        """The novelty (population,) of a generation's behaviours (population, features); the novel ones enter the archive.

        Raises ValueError if ``behaviours`` has another shape or fewer than two rows.
        """
        behaviours = np.asarray(behaviours, np.float64)
        if behaviours.ndim != 2 or len(behaviours) < 2:
            raise ValueError(
                f"behaviours have the shape (population, features), at least two rows, got {list(behaviours.shape)}"
            )
        kept = self.behaviours if self.behaviours is not None else behaviours[:0]
        others = np.concatenate([behaviours, kept])
        squares = np.zeros((len(behaviours), len(others)))
        for mine, theirs in zip(behaviours.T, others.T, strict=True):  # one feature at a time: no array of three dimensions
            squares += np.square(mine[:, None] - theirs)
        np.fill_diagonal(squares, np.inf)  # a behaviour is not its own neighbour
        count = min(self.neighbours, len(others) - 1)
        nearest = np.partition(squares, count - 1, axis=1)[:, :count]
        novelty = np.sqrt(np.maximum(nearest, 0.0)).mean(1)
        new = behaviours[novelty > self.threshold]
        self.behaviours = np.concatenate([kept, new])
        self.quiet = 0 if len(new) else self.quiet + 1
        if len(new) > 4:
            self.threshold *= 1.2
        elif self.quiet >= 10:
            self.threshold *= 0.95
            self.quiet = 0
        return novelty

    def state_dict(self) -> dict[str, Any]:
        """The threshold, the archive and the generations since the last entry."""
        return {"threshold": self.threshold, "quiet": self.quiet, "behaviours": self.behaviours}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.threshold = float(state["threshold"])
        self.quiet = int(state["quiet"])
        self.behaviours = None if state["behaviours"] is None else np.array(state["behaviours"], np.float64)
