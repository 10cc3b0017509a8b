"""NEAT over seeds: XOR, two poles, CartPole, and evolution with gradients.

``python -m benchmarks.neat [--parts xor,poles,hidden,cartpole,gradients] [--seeds N] [--rounds 5]`` prints one or more tables per
part. By default XOR has 100 seeds, two poles with velocities 50, and the other parts 20.

The XOR task, its fitness and its criterion of success are those of Stanley and Miikkulainen 2002, section 4.1. The paper reports 32
generations, 4,755 evaluations, 2.35 hidden nodes and 7.48 connections, means over 100 runs. For timing, neat-python and rl_lab take
turns with the same population size, fitness, number of generations and mutation rates.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import neat_control, neat_gradients, neat_poles
from rl_lab.agents import neat

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([0, 1, 1, 0])
PARTS = {"xor": 100, "poles": 50, "hidden": 20, "cartpole": 20, "gradients": 20}
TIMED = 30  # generations per timing round


def fitness(networks: neat.Networks) -> np.ndarray:
    """(4 - sum of absolute errors) ** 2, (population,)."""
    return (4.0 - np.abs(networks(X)[..., 0] - Y).sum(1)) ** 2


def solved(networks: neat.Networks) -> np.ndarray:
    """Whether all four outputs are on the right side of 0.5, (population,)."""
    return ((networks(X)[..., 0] > 0.5) == Y).all(1)


def learn(seeds: int, selection: str) -> None:
    """Print the table of XOR over ``seeds`` seeds."""
    rows = []
    for seed in range(seeds):
        result = neat.evolve(fitness, 2, 1, solved=solved, seed=seed, generations=100, selection=selection)
        champion = result.champion
        rows.append((result.solved, result.generations, result.evaluations, champion.hidden, champion.enabled_connections))
    done, generations, evaluations, hidden, connections = np.array(rows, float).T
    print(
        "| seeds | solved in 100 generations | generations, mean (worst) | evaluations | hidden nodes | enabled connections |"
    )
    print("|---|---|---|---|---|---|")
    print(
        f"| {seeds} | {int(done.sum())} | {generations.mean():.1f} ({generations.max():.0f}) | {evaluations.mean():,.0f} "
        f"| {hidden.mean():.2f} | {connections.mean():.2f} |"
    )


CONFIG = """
[NEAT]
fitness_criterion = max
fitness_threshold = 1000
pop_size = 150
reset_on_extinction = False
no_fitness_termination = True
[DefaultGenome]
activation_default = sigmoid
activation_mutate_rate = 0.0
activation_options = sigmoid
aggregation_default = sum
aggregation_mutate_rate = 0.0
aggregation_options = sum
bias_init_mean = 0.0
bias_init_stdev = 1.0
bias_init_type = gaussian
bias_max_value = 8.0
bias_min_value = -8.0
bias_mutate_power = 0.5
bias_mutate_rate = 0.8
bias_replace_rate = 0.1
compatibility_disjoint_coefficient = 1.0
compatibility_excess_coefficient = 1.0
compatibility_weight_coefficient = 0.5
compatibility_enable_penalty = 0.0
compatibility_include_node_genes = True
conn_add_prob = 0.1
conn_delete_prob = 0.0
enabled_default = True
enabled_mutate_rate = 0.0
enabled_rate_to_true_add = 0.0
enabled_rate_to_false_add = 0.0
feed_forward = True
initial_connection = full_direct
node_add_prob = 0.03
node_delete_prob = 0.0
num_hidden = 0
num_inputs = 2
num_outputs = 1
response_init_mean = 1.0
response_init_stdev = 0.0
response_init_type = gaussian
response_max_value = 30.0
response_min_value = -30.0
response_mutate_power = 0.0
response_mutate_rate = 0.0
response_replace_rate = 0.0
single_structural_mutation = False
structural_mutation_surer = default
weight_init_mean = 0.0
weight_init_stdev = 1.0
weight_init_type = gaussian
weight_max_value = 8.0
weight_min_value = -8.0
weight_mutate_power = 0.5
weight_mutate_rate = 0.8
weight_replace_rate = 0.1
[DefaultSpeciesSet]
compatibility_threshold = 3.0
[DefaultStagnation]
species_fitness_func = max
max_stagnation = 15
species_elitism = 2
[DefaultReproduction]
elitism = 1
survival_threshold = 0.2
min_species_size = 1
"""


def theirs(seed: int, folder: Path) -> None:
    """Run ``TIMED`` generations of neat-python."""
    import random

    import neat as peer

    path = folder / "neat.cfg"
    path.write_text(CONFIG)
    config = peer.Config(
        peer.DefaultGenome, peer.DefaultReproduction, peer.DefaultSpeciesSet, peer.DefaultStagnation, str(path)
    )
    random.seed(seed)

    def evaluate(genomes, config):
        for _, genome in genomes:
            network = peer.nn.FeedForwardNetwork.create(genome, config)
            error = sum(abs(network.activate(x)[0] - y) for x, y in zip(X.tolist(), Y.tolist(), strict=True))
            genome.fitness = (4.0 - error) ** 2

    peer.Population(config).run(evaluate, TIMED)


def measure(rounds: int) -> None:
    """Print milliseconds per generation of rl_lab and neat-python, timed in turns."""
    runs = {"rl_lab": lambda seed: neat.evolve(fitness, 2, 1, seed=seed, generations=TIMED)}
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("neat") is not None:
            runs["neat-python"] = lambda seed: theirs(seed, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run(0)
        for seed in range(1, rounds + 1):
            for name, run in runs.items():
                begin = time.perf_counter()
                run(seed)
                times[name].append((time.perf_counter() - begin) / TIMED * 1e3)
    print("\n| first 30 generations | milliseconds a generation | as many times rl_lab |\n|---|---|---|")
    for name, taken in times.items():
        ratio = statistics.median(t / o for t, o in zip(taken, times["rl_lab"], strict=True))
        print(f"| {name} | {statistics.median(taken):.3f} | {ratio:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, separated by commas")
    parser.add_argument("--seeds", type=int, default=0, help="number of seeds; 0: each part's default")
    parser.add_argument("--selection", default="species", help="selection for XOR: species or nsga2")
    parser.add_argument("--rounds", type=int, default=5, help="timing rounds")
    arguments = parser.parse_args()
    peer = importlib.util.find_spec("neat") is not None
    if not peer:
        print('neat-python is not installed: pip install -e ".[bench]"', file=sys.stderr)
    for part in arguments.parts.split(","):
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: choose among {', '.join(PARTS)}")
        seeds = arguments.seeds or PARTS[part]
        if part == "xor":
            learn(seeds, arguments.selection)
            measure(arguments.rounds)
        elif part == "cartpole":
            neat_control.learned(seeds)
            neat_control.measure(arguments.rounds, CONFIG if peer else None)
        elif part == "gradients":
            neat_gradients.compare(seeds)
        else:
            neat_poles.table(seeds, velocities=part == "poles")


if __name__ == "__main__":
    main()
