"""Evolution with gradients, evolution alone and gradients alone: environment steps until a controller is good enough, over seeds.

Acrobot-v1 counts as solved at a greedy mean of -85 over 10 episodes: evolved champions are tried on 10 fixed ones, whose steps count;
PPO, with its shipped preset, is evaluated every 2,500 steps, and its evaluations are not counted.
"""

from typing import Any

import numpy as np

from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate, validation_seed

ENV, BAR, LIMIT, EVERY = "Acrobot-v1", -85.0, 1_000_000, 2_500
EVOLUTION = {"agent": "neat", "population": 15, "episodes": 1, "champion_episodes": 10}
GRADIENT = {"gradient_learning_rate": 0.05, "gradient_episodes": 1, "num_envs": 1}
RIVALS: dict[str, dict[str, Any]] = {
    "evolution alone": EVOLUTION,
    "evolution, --lamarck 40": {**EVOLUTION, **GRADIENT, "lamarck": 40},
    "evolution, --baldwin 40": {**EVOLUTION, **GRADIENT, "baldwin": 40},
    "PPO alone": {"agent": "ppo"},
}


def steps_to_bar(given: dict[str, Any], seed: int) -> int:
    """Environment steps until the bar, at most `LIMIT`."""
    plan = make_plan({name: str(value) for name, value in {**given, "env": ENV, "seed": seed}.items()})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class(plan.config, envs, seed)
    following = 0
    while agent.timesteps < LIMIT:
        agent.step()
        if given["agent"] == "neat":
            good = agent.champion.fitness >= BAR
        elif agent.timesteps >= following:
            following = agent.timesteps + EVERY
            good = evaluate(agent, plan.setup, 10, validation_seed(seed)).return_mean >= BAR
        else:
            good = False
        if good:
            return agent.timesteps
    return LIMIT


def compare(seeds: int) -> None:
    print(
        f"\n| {ENV} to {BAR:.0f} | environment steps, interquartile mean | 95 % bootstrap interval | median |\n|---|---|---|---|"
    )
    for name, given in RIVALS.items():
        steps = np.array([steps_to_bar(given, seed) for seed in range(1, seeds + 1)], float)
        low, high = bootstrap_interval(steps, seed=0)
        print(
            f"| {name} | {interquartile_mean(steps):,.0f} | {low:,.0f} to {high:,.0f} | {np.median(steps):,.0f} |", flush=True
        )
