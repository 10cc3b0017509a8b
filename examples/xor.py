"""XOR, which no single neuron can compute: learned by gradient, by evolution, and by both.

python examples/xor.py
"""

import time

import numpy as np

import rl_lab as rl
from rl_lab.agents import neat

X = rl.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = rl.tensor([0.0, 1.0, 1.0, 0.0])


def is_solved(network) -> bool:
    """Whether every output is within 0.2 of its target."""
    with rl.no_grad():
        return bool(((network(X)[:, 0] - Y).abs() < 0.2).all())


def by_gradient(seed: int) -> rl.nn.Module:
    """A layer of eight hidden units, learned by Adam."""
    stream = rl.Generator(seed)
    network = rl.nn.Sequential(
        rl.nn.Linear(2, 8, generator=stream), rl.nn.Tanh(), rl.nn.Linear(8, 1, generator=stream), rl.nn.Sigmoid()
    )
    return train(network, steps=400)


def train(network: rl.nn.Module, steps: int) -> rl.nn.Module:
    """Take gradient steps on all four points. The first step is recorded; the others replay it."""
    optimizer = rl.optim.Adam(network.parameters(), lr=0.05)

    @rl.compile
    def step():
        loss = rl.nn.functional.mse_loss(network(X)[:, 0], Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(steps):
        step()
    return network


def fitness(networks: neat.Networks) -> np.ndarray:
    """(4 - sum of errors) squared, at most 16, for every network of the population (Stanley and Miikkulainen 2002)."""
    return (4 - np.abs(networks(X.numpy())[..., 0] - Y.numpy()).sum(1)) ** 2


def by_evolution(seed: int) -> rl.nn.GraphNetwork:
    """NEAT grows the hidden node that XOR needs, and finds the weights."""
    return neat.evolve(fitness, 2, 1, target=14.5, generations=300, seed=seed).network()


def by_both(seed: int) -> rl.nn.GraphNetwork:
    """NEAT finds a graph that can compute XOR, and stops early; gradients find its weights."""
    network = neat.evolve(fitness, 2, 1, target=11.0, generations=300, seed=seed).network()
    return train(network, steps=400)


WAYS = (by_gradient, by_evolution, by_both)


def test_every_way_solves_xor_on_20_of_20_seeds():
    for way in WAYS:
        unsolved = [seed for seed in range(20) if not is_solved(way(seed))]
        assert not unsolved, f"{way.__name__}: seeds {unsolved}"


def test_a_single_neuron_does_not_solve_xor():
    assert not is_solved(train(rl.nn.Sequential(rl.nn.Linear(2, 1), rl.nn.Sigmoid()), steps=400))


def main() -> None:
    for way in WAYS:
        start = time.perf_counter()
        solved = sum(is_solved(way(seed)) for seed in range(20))
        print(f"{way.__name__:12} {solved} of 20 seeds, {(time.perf_counter() - start) / 20:.2f} s each")


if __name__ == "__main__":
    main()
