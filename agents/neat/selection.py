"""Other ways to choose than by shared fitness: several objectives (NSGA-II) and novelty."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rl_lab.agents.neat.genome import Genomes
from rl_lab.agents.neat.networks import Networks

# --- NSGA-II: Deb, Pratap, Agarwal and Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm" -------------------


def nondominated_ranks(objectives: np.ndarray) -> np.ndarray:
    """The front of each row of ``objectives`` (genomes, objectives), all to be maximised; 0 is the best front (section III-A).

    Unlike there, of equal rows the first dominates the others: copies of one small genome would fill the best front otherwise.
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
    """How far apart each row's neighbours in its front are, infinite at the ends (section III-B)."""
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
    """The rows from best to worst: by front, within a front the less crowded first."""
    ranks = nondominated_ranks(objectives)
    return np.lexsort((-crowding_distances(objectives, ranks), ranks))


def sizes_of(genomes: Genomes) -> np.ndarray:
    """Hidden nodes and enabled connections of each genome."""
    used = np.arange(genomes.weight.shape[1]) < genomes.connections[:, None]
    return (genomes.enabled & used).sum(1) + genomes.nodes - genomes.outputs[0]


# --- novelty: Lehman and Stanley 2011, "Abandoning objectives: evolution through the search for novelty alone" -----------------


class NoveltyArchive:
    """Remembers behaviours that were new when they appeared.

    A behaviour's novelty is its mean distance to the ``neighbours`` nearest behaviours of the present generation and of the archive
    (equation 1). Behaviours above ``threshold`` are kept. The threshold rises by a fifth when more than four of a generation are
    kept, and falls by a twentieth when for ten generations none is.
    """

    def __init__(self, neighbours: int = 15, threshold: float = 1.0):
        if neighbours < 1 or not threshold > 0:
            raise ValueError(f"novelty needs neighbours and a positive threshold, got {neighbours} and {threshold}")
        self.neighbours = neighbours
        self.threshold = float(threshold)
        self.behaviours: np.ndarray | None = None
        self.quiet = 0

    def novelty(self, behaviours: Any) -> np.ndarray:
        """The novelty (population,) of the behaviours (population, features) of a generation, which then enter the archive."""
        behaviours = np.asarray(behaviours, np.float64)
        if behaviours.ndim != 2 or len(behaviours) < 2:
            raise ValueError(f"behaviours are (population, features), got shape {list(behaviours.shape)}")
        kept = self.behaviours if self.behaviours is not None else behaviours[:0]
        others = np.concatenate([behaviours, kept])
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b needs no array of three dimensions
        squares = (behaviours**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2.0 * behaviours @ others.T
        np.fill_diagonal(squares, np.inf)  # itself
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
        return {"threshold": self.threshold, "quiet": self.quiet, "behaviours": self.behaviours}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.threshold = float(state["threshold"])
        self.quiet = int(state["quiet"])
        self.behaviours = None if state["behaviours"] is None else np.array(state["behaviours"], np.float64)


def novelty_of(behaviour: Callable[[Networks], Any], archive: NoveltyArchive | None = None) -> Callable[[Networks], np.ndarray]:
    """A fitness that is the novelty of ``behaviour(networks)`` (population, features)."""
    archive = archive or NoveltyArchive()
    return lambda networks: archive.novelty(behaviour(networks))
