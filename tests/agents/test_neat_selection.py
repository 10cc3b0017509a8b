"""NSGA-II and novelty: the papers' definitions computed by hand, and their effect on evolution."""

import numpy as np
import pytest

from rl_lab.agents import neat
from rl_lab.agents.neat.selection import (
    NoveltyArchive,
    crowded_order,
    crowding_distances,
    nondominated_ranks,
    sizes_of,
)
from tests.agents.test_neat import X, fitness, genes, solved
from tests.agents.test_neat_evolution import digest


def slow_ranks(objectives):
    left = set(range(len(objectives)))
    ranks = np.zeros(len(objectives), int)
    front = 0
    while left:
        best = {
            i
            for i in left
            if not any(
                (objectives[j] >= objectives[i]).all() and ((objectives[j] > objectives[i]).any() or j < i) for j in left
            )
        }
        for i in best:
            ranks[i] = front
        left -= best
        front += 1
    return ranks


def test_fronts():
    rng = np.random.default_rng(1)
    for _ in range(50):
        objectives = rng.integers(0, 5, (20, 2)).astype(float)
        assert nondominated_ranks(objectives).tolist() == slow_ranks(objectives).tolist()


def test_crowding():
    objectives = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0], [0.0, 0.0]])
    ranks = nondominated_ranks(objectives)
    assert ranks.tolist() == [0, 0, 0, 0, 1]
    distances = crowding_distances(objectives, ranks)
    assert distances.tolist() == [np.inf, 0.4 + 0.5, 0.9 + 0.6, np.inf, np.inf]
    assert crowded_order(objectives).tolist() == [0, 3, 2, 1, 4]


def test_the_crowded_order_looks_at_every_objective():
    """In one front, the least crowded inner row is row 1 by the first objective alone, but row 2 by both objectives."""
    objectives = np.array([[0.0, 100.0], [4.0, 99.0], [6.0, 98.0], [7.0, 20.0], [10.0, 0.0]])
    assert crowded_order(objectives).tolist() == [0, 4, 3, 2, 1]
    assert crowded_order(np.stack([objectives[:, 0], -np.arange(5.0)], 1)).tolist() != [0, 4, 3, 2, 1]


def test_tournaments_prefer_the_earlier_in_the_order(monkeypatch):
    evolution = neat.Evolution(2, 1, neat.NEATConfig(selection="nsga2", population=200), seed=1)
    evolution.advance(fitness(evolution.networks()))
    bred = {}
    monkeypatch.setattr(evolution, "_breed", lambda *given: bred.update(fitness=given[0], pool=given[1]))
    evolution._reproduce(fitness(evolution.networks()))
    assert bred["pool"].mean() == pytest.approx(200 / 3, abs=12)  # the mean of the smaller of two draws
    assert (np.diff(bred["fitness"]) < 0).all()  # the earlier of two parents counts as the fitter


def test_the_ancestry_of_a_front_is_of_the_generation_before():
    """Children without mutation equal their parents. Parents from an older generation are unknown, -1."""
    unchanged = {"mutate_only": 1.0, "mutate_weights": 0.0, "add_node": 0.0, "add_connection": 0.0}
    evolution = neat.Evolution(2, 1, neat.NEATConfig(selection="nsga2", population=50, **unchanged), seed=1)
    rng = np.random.default_rng(0)
    unknown = 0
    for _ in range(3):
        before = [genes(evolution.genomes, i) for i in range(50)]
        evolution.advance(rng.normal(size=50))
        for child, (parent, _) in enumerate(evolution.ancestry[-1]):
            if parent >= 0:
                assert genes(evolution.genomes, child) == before[parent]
            else:
                unknown += 1
    assert unknown > 10


def test_sizes():
    evolution = neat.Evolution(2, 1, seed=1)
    for _ in range(20):
        evolution.advance(fitness(evolution.networks()))
    for i, size in enumerate(sizes_of(evolution.genomes)):
        assert size == sum(gene[4] for gene in genes(evolution.genomes, i)) + evolution.genomes.nodes[i] - 1


def test_nsga2_keeps_the_best_of_every_size(learning_seed):
    config = neat.NEATConfig(selection="nsga2", delete_connection=0.05, population=100)
    evolution = neat.Evolution(2, 1, config, learning_seed)
    best = {}
    for _ in range(60):
        values = fitness(evolution.networks())
        for size, value in zip(sizes_of(evolution.genomes).tolist(), values, strict=True):
            best[size] = max(best.get(size, -1.0), value)
        evolution.advance(values)
    chosen, values = evolution.kept
    front = nondominated_ranks(np.stack([values, -sizes_of(chosen)], 1)) == 0
    for size, value in zip(sizes_of(chosen)[front], values[front], strict=True):
        assert value == best[size]  # elitism: the best value per size is never lost
    assert len(set(sizes_of(chosen)[front])) == front.sum() >= 2
    assert max(values) == evolution.best_fitness
    other = neat.Evolution(2, 1, config, seed=99)
    other.load_state_dict(evolution.state_dict())
    for one in (evolution, other):
        one.advance(fitness(one.networks()))
    assert digest(evolution) == digest(other)


def test_novelty_is_the_mean_distance_to_the_nearest():
    archive = NoveltyArchive(neighbours=2, threshold=4.0)
    assert archive.novelty([[0.0], [1.0], [3.0], [10.0]]).tolist() == [2.0, 1.5, 2.5, 8.0]
    assert archive.behaviours.tolist() == [[10.0]]
    # the nearest neighbour of behaviour 9 of the second generation is in the archive
    np.testing.assert_allclose(archive.novelty([[9.0], [0.0], [0.0]]), [5.0, 4.5, 4.5], atol=1e-6)


def test_the_archive_keeps_what_was_new_in_every_generation():
    archive = NoveltyArchive(neighbours=1, threshold=2.0)
    archive.novelty([[0.0], [5.0]])
    archive.novelty([[20.0], [0.5]])
    archive.novelty([[40.0], [20.5]])
    assert archive.behaviours.tolist() == [[0.0], [5.0], [20.0], [40.0]]


@pytest.mark.parametrize(("count", "threshold"), [(4, 1.0), (5, 1.2)])
def test_more_than_four_new_behaviours_raise_the_threshold(count, threshold):
    archive = NoveltyArchive(neighbours=1, threshold=1.0)
    archive.novelty(np.concatenate([np.arange(count) * 3.0, [100.0, 100.5]])[:, None])
    assert len(archive.behaviours) == count
    assert archive.threshold == threshold


def test_the_threshold_of_novelty_adapts():
    archive = NoveltyArchive(neighbours=1, threshold=1.0)
    archive.novelty(np.arange(10.0)[:, None] * 2)
    assert archive.threshold == 1.2
    for _ in range(10):
        archive.novelty(np.zeros((3, 1)))
    assert archive.threshold == pytest.approx(1.14)
    other = NoveltyArchive(neighbours=1)
    other.load_state_dict(archive.state_dict())
    probe = np.array([[5.5], [7.0]])
    assert other.novelty(probe).tolist() == archive.novelty(probe).tolist()
    for wrong in ([1.0, 2.0], [[1.0]]):
        with pytest.raises(ValueError, match="population, features"):
            archive.novelty(wrong)


def test_novelty_alone_solves_xor(learning_seed, learned):
    """The behaviour is the network's outputs; the evolution uses no other fitness.

    The mean novelty of the last population is 0.23 with a standard deviation of 0.02, and 0.11 if the values are shuffled among genomes.
    """
    novelties = []
    for seed in range(3 * learning_seed - 3, 3 * learning_seed):
        archive = NoveltyArchive(threshold=0.3)

        def search(networks, archive=archive):
            return archive.novelty(networks(X)[..., 0])

        result = neat.evolve(search, 2, 1, solved=solved, seed=seed, generations=100)
        assert result.solved
        novelties.append(result.evolution.history[-1].mean)
    learned(np.mean(novelties), 0.226, within=0.06)
