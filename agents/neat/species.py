"""Species: groups of like genomes that share their fitness (section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Species:
    """One species. ``number`` is never given twice; ``improved`` is the generation in which its best fitness rose last."""

    number: int
    founded: int
    improved: int
    best_fitness: float = -np.inf


def ranking_of(species: np.ndarray, count: int, fitness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genomes by species and falling fitness, and where each species begins, with the end of the last one behind."""
    ranking = np.lexsort((-fitness, species))
    starts = np.searchsorted(species[ranking], np.arange(count + 1))
    return ranking, starts


def shared_fitness(fitness: np.ndarray, ranking: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Each species' sum of adjusted fitness (equation 2): a genome's fitness divided by the size of its species, so the mean.

    If some fitness is negative all are raised so that the lowest is 0, as shares of offspring need.
    """
    with np.errstate(over="ignore"):
        raised = fitness - min(0.0, float(fitness.min()))
        if not np.isfinite(raised.sum()):  # so far apart that sums overflow; only shares count
            fitness = fitness / np.abs(fitness).max()
            raised = fitness - min(0.0, float(fitness.min()))
    return np.add.reduceat(raised[ranking], starts[:-1]) / np.diff(starts)


def allot_offspring(shares: np.ndarray, population: int) -> np.ndarray:
    """The population in proportion to the species' shares, in whole numbers, by largest remainder."""
    total = shares.sum()
    if not total > 0:
        shares, total = (shares >= 0).astype(float), len(shares)
    exact = population * shares / total
    offspring = exact.astype(np.int64)
    left = population - int(offspring.sum())
    offspring[np.argsort(offspring - exact, kind="stable")[:left]] += 1
    return offspring


def stagnant(
    species: Sequence[Species], generation: int, limit: int, population_improved: int, population_limit: int
) -> np.ndarray:
    """Which species may not reproduce.

    Those that have not improved for ``limit`` generations, but not the one that holds the best fitness; after
    ``population_limit`` generations, if that is not 0, without improvement of the whole population, all but the two best.
    """
    best = np.array([s.best_fitness for s in species])
    order = np.argsort(-best, kind="stable")
    if population_limit and generation - population_improved >= population_limit:
        barred = np.ones(len(species), bool)
        barred[order[:2]] = False
        return barred
    barred = np.array([generation - s.improved >= limit for s in species])
    barred[order[0]] = False
    return barred
