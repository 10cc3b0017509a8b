"""NEAT: the operators and the speciation of the paper, on genomes written by hand."""

import numpy as np
import pytest

from rl_lab.agents import neat
from rl_lab.agents.neat import kernels
from rl_lab.agents.neat.config import rates_of
from rl_lab.agents.neat.genome import like, room_for
from rl_lab.agents.neat.innovation import CONNECTIONS, NEXT_INNOVATION, NEXT_NODE, make_innovations
from rl_lab.agents.neat.species import Species, allot_offspring, ranking_of, shared_fitness, stagnant
from rl_lab.nn.graph.kernels import ACTIVATIONS

X, Y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
EVERYTHING = {
    "delete_node": 0.1,
    "delete_connection": 0.1,
    "toggle_enabled": 0.1,
    "mutate_activation": 0.2,
    "activation_options": ("tanh", "sin", "gauss"),
    "add_node": 0.3,
    "add_connection": 0.3,
    "interspecies_mating": 0.1,
}


def fitness(networks):
    return (4.0 - np.abs(networks(X)[..., 0] - Y).sum(1)) ** 2


def solved(networks):
    return ((networks(X)[..., 0] > 0.5) == Y).all(1)


def genomes_of(*rows, inputs=3, outputs=1):
    """Genomes from lists of (innovation, source, target, weight, enabled)."""
    genomes = room_for(len(rows), 16, 32, inputs, outputs)
    for i, genes in enumerate(rows):
        numbers = sorted({n for _, s, t, *_ in genes for n in (s, t) if n >= inputs} | set(range(inputs, inputs + outputs)))
        genomes.node[i, : len(numbers)] = numbers
        genomes.nodes[i], genomes.connections[i] = len(numbers), len(genes)
        for k, gene in enumerate(sorted(genes)):
            for name, value in zip(("innovation", "source", "target", "weight", "enabled"), gene, strict=True):
                getattr(genomes, name)[i, k] = value
    return genomes


# the parents of figure 4; the paper's nodes 1 to 6 are 0, 1, 2 (inputs), 3 (output), 4 and 5 here
FIRST = [
    (1, 0, 3, 0.1, True),
    (2, 1, 3, 0.2, False),
    (3, 2, 3, 0.3, True),
    (4, 1, 4, 0.4, True),
    (5, 4, 3, 0.5, True),
    (8, 0, 4, 0.8, True),
]
SECOND = [
    (1, 0, 3, 1.1, True),
    (2, 1, 3, 1.2, False),
    (3, 2, 3, 1.3, True),
    (4, 1, 4, 1.4, True),
    (5, 4, 3, 1.5, False),
    (6, 4, 5, 1.6, True),
    (7, 5, 3, 1.7, True),
    (9, 2, 4, 1.9, True),
    (10, 0, 5, 2.0, True),
]


def test_distance_of_figure_4():
    """Of the nine genes of the larger genome five match; 6, 7 and 8 are disjoint, 9 and 10 are excess. Biases of matching nodes count."""
    genomes = genomes_of(FIRST, SECOND)
    genomes.bias[1, 0] = 0.7  # bias of the output node; both genomes have nodes 3 and 4
    rates = rates_of(neat.NEATConfig(excess_coefficient=10.0, disjoint_coefficient=100.0, weight_coefficient=1.0))
    mean = (5 * 1.0 + 0.7 + 0.0) / 7
    assert kernels.distance(genomes, 0, genomes, 1, rates) == pytest.approx(20 + 300 + mean)
    assert kernels.distance(genomes, 1, genomes, 0, rates) == pytest.approx(20 + 300 + mean)
    assert kernels.distance(genomes, 1, genomes, 1, rates) == 0.0
    divided = rates._replace(normalize_from=9)
    assert kernels.distance(genomes, 0, genomes, 1, divided) == pytest.approx((20 + 300) / 9 + mean)


def reproduce(genomes, fitnesses, offspring, seed=0, elites=(0,), survivors=None, starts=None, **settings):
    """Reproduce one or more species; returns the children, their ancestry and the innovations."""
    config = neat.NEATConfig(**{"mutate_only": 0.0, "mate_only": 1.0, **settings})
    parents = like(genomes) if offspring == () else genomes
    total = sum(offspring)
    children = room_for(total, 32, 64, int(genomes.inputs[0]), int(genomes.outputs[0]))
    innovations = make_innovations(total, 3, 1)
    innovations.counters[NEXT_INNOVATION], innovations.counters[NEXT_NODE] = 11, 6
    ancestry = np.zeros((total, 2), np.int64)
    starts = np.array(starts or [0, len(fitnesses)])
    survivors = np.array(survivors or np.diff(starts))
    random = np.random.SeedSequence(seed).generate_state(4, np.uint64).view(np.int64)
    options = np.array([ACTIVATIONS.index(name) for name in config.activation_options], np.int64)
    species = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    ranking = np.lexsort((-np.array(fitnesses), species))
    kernels.reproduce(
        parents,
        children,
        np.array(fitnesses, float),
        ranking,
        starts,
        survivors,
        np.array(offspring),
        np.array(elites),
        rates_of(config),
        options,
        innovations,
        random,
        ancestry,
    )
    return children, ancestry, innovations


def genes(genomes, i):
    return [
        tuple(getattr(genomes, name)[i, k].item() for name in ("innovation", "source", "target", "weight", "enabled"))
        for k in range(genomes.connections[i])
    ]


@pytest.mark.parametrize("better", [0, 1])
def test_crossover_of_figure_4(better):
    """The child has the genes of the fitter parent. Weights of matching genes come from both; disabled genes mostly stay disabled."""
    genomes = genomes_of(FIRST, SECOND)
    children, ancestry, _ = reproduce(genomes, [1.0 - better, better], (4000,))
    expected = [gene[0] for gene in (FIRST, SECOND)[better]]
    mixed = [c for c in range(4000) if set(ancestry[c]) == {0, 1}]
    assert len(mixed) == pytest.approx(2000, abs=150)
    for c in mixed:
        assert [gene[0] for gene in genes(children, c)] == expected
    weights = np.array([children.weight[c, :5] for c in mixed])
    from_second = np.isclose(weights, np.array([1.1, 1.2, 1.3, 1.4, 1.5]))
    assert (from_second | np.isclose(weights, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))).all()
    np.testing.assert_allclose(from_second.mean(0), 0.5, atol=0.05)
    disabled = ~np.array([children.enabled[c, :5] for c in mixed])
    np.testing.assert_allclose(disabled.mean(0), [0, 0.75, 0, 0, 0.75], atol=0.04)


def test_of_equally_fit_parents_the_smaller_gives_the_structure():
    children, ancestry, _ = reproduce(genomes_of(FIRST, SECOND), [1.0, 1.0], (100,), add_node=0.0, add_connection=0.0)
    for c in range(100):
        assert children.connections[c] == (9 if (ancestry[c] == 1).all() else 6)


def test_add_node():
    """Figure 3: the split connection is disabled; the connection into the new node has weight 1, the one out of it the old weight."""
    children, _, innovations = reproduce(
        genomes_of(FIRST), [1.0], (200,), mutate_only=1.0, add_node=1.0, mutate_weights=0.0, add_connection=0.0
    )
    numbers = {}
    for c in range(200):
        old, new = genes(children, c)[:6], genes(children, c)[6:]
        (split,) = [k for k in range(6) if old[k][4] != FIRST[k][4]]
        innovation, source, target, weight, _ = FIRST[split]
        assert FIRST[split][4]
        (a, b) = new
        node = a[2]
        assert a[1:] == (source, node, 1.0, True)
        assert b[1:3] == (node, target)
        assert b[3] == np.float32(weight)
        assert b[0] == a[0] + 1
        assert children.nodes[c] == 3
        assert children.node[c, 2] == node
        assert numbers.setdefault(innovation, (node, a[0])) == (node, a[0])  # equal innovations share one number
    assert len(numbers) == 5
    assert len(set(numbers.values())) == 5
    assert sorted(node for node, _ in numbers.values()) == [6, 7, 8, 9, 10]
    assert innovations.counters[NEXT_NODE] == 11
    assert innovations.counters[NEXT_INNOVATION] == 21


def test_add_connection():
    """Equal new connections share a number; no connection is duplicated, closes a cycle or starts at an output."""
    children, _, innovations = reproduce(
        genomes_of(SECOND), [1.0], (300,), mutate_only=1.0, add_node=0.0, mutate_weights=0.0, add_connection=1.0
    )
    added = {}
    for c in range(300):
        new = [gene for gene in genes(children, c) if gene[0] > 10]
        assert len(new) <= 1
        for number, source, target, weight, enabled in new:
            assert added.setdefault((source, target), number) == number
            assert enabled
            assert abs(weight) <= 4.0
    # only inputs to nodes 4 and 5 are possible: 4 -> 5 exists already, and 5 -> 4 would close a cycle
    assert set(added) == {(0, 4), (1, 5), (2, 5)}
    assert sorted(added.values()) == [11, 12, 13]
    assert innovations.counters[CONNECTIONS] == 3
    children, _, _ = reproduce(
        genomes_of(SECOND), [1.0], (500,), mutate_only=1.0, add_node=0.0, mutate_weights=0.0, add_connection=1.0, recurrent=True
    )
    added = {gene[1:3] for c in range(500) for gene in genes(children, c) if gene[0] > 10}
    assert {(5, 4), (3, 3), (3, 4), (4, 4)} <= added


def test_a_disabled_connection_can_be_enabled_again_so_it_counts_for_cycles():
    disabled = [(*gene[:4], gene[4] and gene[1:3] != (4, 5)) for gene in SECOND]
    children, _, _ = reproduce(
        genomes_of(disabled), [1.0], (300,), mutate_only=1.0, add_node=0.0, mutate_weights=0.0, add_connection=1.0
    )
    added = {gene[1:3] for c in range(300) for gene in genes(children, c) if gene[0] > 10}
    assert added == {(0, 4), (1, 5), (2, 5)}


def test_a_genome_that_meets_itself_is_mutated():
    """Crossover of a genome with itself is a plain copy, so the child is always mutated."""
    genomes = genomes_of(FIRST, SECOND)
    children, ancestry, _ = reproduce(genomes, [1.0, 2.0], (400,), add_node=0.0, add_connection=0.0, mutate_weights=1.0)
    alone = ancestry[:, 0] == ancestry[:, 1]
    assert 100 < alone.sum() < 300
    same = np.array([genes(children, c) == genes(genomes, int(ancestry[c, 0])) for c in range(400)])
    assert not same[alone].any()


def test_weights_are_perturbed_or_replaced():
    row = [(k, 0, 3, 8.0, True) for k in range(20)]
    options = {"mutate_only": 1.0, "add_node": 0.0, "add_connection": 0.0, "weight_limit": 8.5}
    children, _, _ = reproduce(genomes_of(row), [1.0], (1000,), mutate_weights=1.0, **options)
    weights = children.weight[:, :20]
    replaced = np.abs(weights) <= 4.0
    assert replaced.mean() == pytest.approx(0.1, abs=0.01)
    kept = weights[~replaced]
    assert kept.min() >= 7.0
    assert kept.max() == 8.5
    assert (kept == 8.5).mean() == pytest.approx(0.25, abs=0.02)
    children, _, _ = reproduce(genomes_of(row), [1.0], (1000,), mutate_weights=0.3, **options)
    assert (children.weight[:, :20] != 8.0).any(1).mean() == pytest.approx(0.3, abs=0.04)


def test_elites_are_copied_and_the_worst_have_no_children():
    genomes = genomes_of(FIRST, SECOND, FIRST, SECOND)
    children, ancestry, _ = reproduce(genomes, [1.0, 4.0, 2.0, 3.0], (50,), elites=(1,), survivors=(2,), mate_only=0.0)
    assert genes(children, 0) == genes(genomes, 1)
    assert ancestry[0].tolist() == [1, -1]
    assert set(ancestry[1:, 0]) == {1, 3}


def test_mates_from_another_species():
    genomes = genomes_of(FIRST, FIRST, SECOND, SECOND)
    _, ancestry, _ = reproduce(
        genomes, [1.0, 2.0, 3.0, 4.0], (1000, 0), elites=(0, 0), starts=[0, 2, 4], interspecies_mating=1.0
    )
    assert set(ancestry[:, 1]) == {0, 1}  # mates come only from species that have offspring
    _, ancestry, _ = reproduce(
        genomes, [1.0, 2.0, 3.0, 4.0], (1000, 1000), elites=(0, 0), starts=[0, 2, 4], interspecies_mating=0.25
    )
    foreign = (ancestry[:1000, 1] >= 2).mean()
    assert foreign == pytest.approx(0.25, abs=0.05)


# --- species ---------------------------------------------------------------------------------------------------------


def test_fitness_sharing():
    """Equation 2: a species' number of offspring is proportional to its mean fitness and does not depend on its size."""
    species, values = np.array([0, 1, 0, 0]), np.array([2.0, 6.0, 4.0, 6.0])
    ranking, starts = ranking_of(species, 2, values)
    assert ranking.tolist() == [3, 2, 0, 1]
    assert starts.tolist() == [0, 3, 4]
    assert shared_fitness(values, ranking, starts).tolist() == [4.0, 6.0]
    assert shared_fitness(values - 7.0, ranking, starts).tolist() == [2.0, 4.0]
    assert allot_offspring(np.array([4.0, 6.0]), 10).tolist() == [4, 6]
    assert allot_offspring(np.array([1.0, 1.0, 1.0]), 10).sum() == 10
    assert allot_offspring(np.zeros(2), 10).tolist() == [5, 5]


def test_stagnation():
    species = [Species(0, 0, 1, 5.0), Species(1, 0, 1, 3.0), Species(2, 0, 10, 1.0)]
    assert stagnant(species, 15, 15, 15, 0).tolist() == [False, False, False]
    assert stagnant(species, 16, 15, 16, 0).tolist() == [False, True, False]
    assert stagnant(species, 9, 15, 0, 10).tolist() == [False, False, False]
    assert stagnant(species, 10, 15, 0, 10).tolist() == [False, False, True]


def test_a_species_that_stagnates_has_no_offspring():
    """With constant fitness no species improves. Of those beyond the limit only the best, here the first, has offspring."""
    evolution = neat.Evolution(2, 1, neat.NEATConfig(population=60, stagnation=6, compatibility_threshold=1.0), seed=1)
    founded = {s.number: s.founded for s in evolution.species}
    assert len(founded) > 3
    for generation in range(9):
        numbers = np.array([s.number for s in evolution.species])[evolution.assigned]
        founded |= {s.number: s.founded for s in evolution.species}
        evolution.advance(np.ones(60))
        parents = {int(numbers[parent]) for parent in evolution.ancestry[-1][:, 0]}
        old = {number for number in parents if generation - founded[number] >= 6}
        assert len(old) <= (generation >= 6)
        assert all(s.improved == s.founded for s in evolution.species if s.founded <= generation)
    assert len(old) == 1


def test_speciation_takes_the_first_species_that_is_near():
    genomes = genomes_of(FIRST, SECOND, FIRST, SECOND)
    rates = rates_of(neat.NEATConfig())
    species, founders = np.zeros(4, np.int64), np.zeros(4, np.int64)
    run = lambda representatives, threshold: kernels.speciate(  # noqa: E731
        genomes, genomes, np.array(representatives, np.int64), threshold, rates, species, founders
    )
    assert run([], 3.0) == 2
    assert species.tolist() == [0, 1, 0, 1]
    assert founders[:2].tolist() == [0, 1]
    assert run([1], 3.0) == 2
    assert species.tolist() == [1, 0, 1, 0]
    assert run([1, 0], 100.0) == 2
    assert species.tolist() == [0, 0, 0, 0]


def test_the_threshold_follows_the_number_of_species():
    for target, sign in ((1, 1), (150, -1)):
        evolution = neat.Evolution(2, 1, neat.NEATConfig(species_target=target), seed=1)
        start = evolution.threshold
        for _ in range(5):
            evolution.advance(fitness(evolution.networks()))
        assert np.sign(evolution.threshold - start) == sign
