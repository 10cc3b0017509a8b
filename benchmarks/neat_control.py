"""NEAT on CartPole-v1: the return of evolved networks, and the time of one network and environment step, against neat-python."""

import random
import statistics
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np

from rl_lab.agents.neat import Evolution, NEATConfig
from rl_lab.experiment.driver import carry_out, make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.progress import NoProgress
from rl_lab.rollout import OutputMapping
from rl_lab.rollout.population import PopulationCollector

GENERATIONS = 5


def learned(seeds: int) -> None:
    """Print the greedy return of the preset over 100 episodes, with steps and seconds."""
    rows = []
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan({"agent": "neat", "env": "CartPole-v1", "seed": str(seed), "run_dir": folder})
            result = carry_out(plan, progress=NoProgress())
        assert result.evaluation is not None
        rows.append((result.evaluation.return_mean, result.timesteps, result.seconds))
    returns, steps, seconds = np.array(rows).T
    print("\n| CartPole-v1, seeds | greedy return, mean (worst) | environment steps | seconds |\n|---|---|---|---|")
    print(f"| {seeds} | {returns.mean():.1f} ({returns.min():.1f}) | {np.median(steps):,.0f} | {np.median(seconds):.1f} |")


def ours(seed: int) -> tuple[float, int]:
    """Seconds and environment steps of `GENERATIONS` generations in rl_lab."""
    envs = make_environments("CartPole-v1", 64)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    collector = PopulationCollector(envs, actions)  # type: ignore[arg-type]
    evolution = Evolution(4, 2, NEATConfig(), seed)
    seconds = steps = 0.0
    for generation in range(GENERATIONS):
        networks = evolution.networks()
        begin = time.perf_counter()
        seeds = np.full((len(networks), 1), generation)
        played = collector.play(networks.structures, networks.numbers, np.arange(len(networks)), seeds)
        seconds += time.perf_counter() - begin
        steps += played.lengths.sum()
        evolution.advance(played.returns)
    return seconds, int(steps)


def theirs(seed: int, config_file: Path) -> tuple[float, int]:
    """Seconds and environment steps of `GENERATIONS` generations with neat-python and Gymnasium's environment."""
    import neat as peer

    config = peer.Config(
        peer.DefaultGenome, peer.DefaultReproduction, peer.DefaultSpeciesSet, peer.DefaultStagnation, str(config_file)
    )
    random.seed(seed)
    env = gym.make("CartPole-v1")
    seconds = 0.0
    steps = 0

    def evaluate(genomes, config):
        nonlocal seconds, steps
        networks = [(genome, peer.nn.FeedForwardNetwork.create(genome, config)) for _, genome in genomes]
        begin = time.perf_counter()
        for genome, network in networks:
            observation, _ = env.reset(seed=seed)
            genome.fitness = 0.0
            over = False
            while not over:
                outputs = network.activate(observation)
                observation, reward, terminated, truncated, _ = env.step(int(outputs[1] > outputs[0]))
                genome.fitness += float(reward)
                over = terminated or truncated
                steps += 1
        seconds += time.perf_counter() - begin

    peer.Population(config).run(evaluate, GENERATIONS)
    return seconds, steps


def measure(rounds: int, config: str | None) -> None:
    """Print microseconds per network and environment step, timed in turns.

    ``config`` is the text of neat-python's configuration file; with None only rl_lab is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {"rl_lab": ours}
        if config is not None:
            path = Path(folder) / "neat.cfg"
            path.write_text(config.replace("num_inputs = 2", "num_inputs = 4").replace("num_outputs = 1", "num_outputs = 2"))
            runs["neat-python and Gymnasium"] = lambda seed: theirs(seed, path)
        times: dict[str, list[float]] = {name: [] for name in runs}
        ours(0)
        for seed in range(1, rounds + 1):
            for name, run in runs.items():
                seconds, steps = run(seed)
                times[name].append(seconds / steps * 1e6)
    print("\n| CartPole-v1 | microseconds a network and environment step | as many times rl_lab |\n|---|---|---|")
    for name, taken in times.items():
        ratio = statistics.median(t / o for t, o in zip(taken, times["rl_lab"], strict=True))
        print(f"| {name} | {statistics.median(taken):.3f} | {ratio:.0f} |")
