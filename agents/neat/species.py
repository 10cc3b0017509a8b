"""Species: groups of similar genomes that share their fitness (section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Species:
    """One species. ``number`` is unique in a run; ``improved`` is the last generation in which its best fitness rose."""

    number: int
    founded: int
    improved: int
    best_fitness: float = -np.inf


def ranking_of(species: np.ndarray, count: int, fitness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The genomes sorted by species and falling fitness, and the index of each species' first genome in that order.

    The second array (count + 1,) ends with the number of genomes.
    """
    ranking = np.lexsort((-fitness, species))
    starts = np.searchsorted(species[ranking], np.arange(count + 1))
    return ranking, starts


def shared_fitness(fitness: np.ndarray, ranking: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of adjusted fitness of each species (equation 2), which is the mean fitness of its genomes.

    If a fitness is negative, all are raised by the same amount so that the lowest is 0: shares of offspring cannot be negative.
    """
    with np.errstate(over="ignore"):
        raised = fitness - min(0.0, float(fitness.min()))
        if not np.isfinite(raised.sum()):  # the sum overflows: divide, which does not change the shares
            fitness = fitness / np.abs(fitness).max()
            raised = fitness - min(0.0, float(fitness.min()))
    return np.add.reduceat(raised[ranking], starts[:-1]) / np.diff(starts)


def allot_offspring(shares: np.ndarray, population: int) -> np.ndarray:
    """Number of offspring of each species: ``population`` divided in proportion to ``shares`` by the largest remainder method."""
    total = shares.sum()
    if not total > 0:
        total = len(shares)
        shares = (shares >= 0).astype(float)
    exact = population * shares / total
    offspring = exact.astype(np.int64)
    left = population - int(offspring.sum())
    offspring[np.argsort(offspring - exact, kind="stable")[:left]] += 1
    return offspring


def stagnant(
    species: Sequence[Species], generation: int, limit: int, population_improved: int, population_limit: int
) -> np.ndarray:
    """Mask of the species that may not reproduce.

    A species is barred after ``limit`` generations without improvement, unless it has the best fitness of all. After
    ``population_limit`` generations without improvement of the population all but the two best species are barred; 0 turns this off.
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
