"""Evolution with gradients, evolution alone and gradients alone: environment steps until a controller is good enough, over seeds.

Acrobot-v1 counts as solved at a greedy mean of -76 over 10 episodes, which is what DQN is known to reach: evolved champions are tried
on 10 fixed ones, whose steps count; PPO, with its shipped preset, is evaluated every 2,500 steps, and its evaluations are not counted.
The lower bars show when each passed them on the way.
"""

from typing import Any

import numpy as np

from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate, validation_seed

ENV, BARS, LIMIT, EVERY = "Acrobot-v1", (-100.0, -85.0, -80.0, -76.0), 1_000_000, 2_500
EVOLUTION = {"agent": "neat", "population": 15, "episodes": 1, "champion_episodes": 10}
GRADIENT = {"gradient_learning_rate": 0.05, "gradient_episodes": 1, "num_envs": 1}
RIVALS: dict[str, dict[str, Any]] = {
    "evolution alone": EVOLUTION,
    "evolution, --lamarck 40": {**EVOLUTION, **GRADIENT, "lamarck": 40},
    "evolution, --baldwin 40": {**EVOLUTION, **GRADIENT, "baldwin": 40},
    "PPO alone": {"agent": "ppo"},
}


def steps_to_bars(given: dict[str, Any], seed: int) -> list[int]:
    """Environment steps until each of `BARS`, at most `LIMIT`."""
    plan = make_plan({name: str(value) for name, value in {**given, "env": ENV, "seed": seed}.items()})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class(plan.config, envs, seed)
    reached: list[int] = []
    following = 0
    while agent.timesteps < LIMIT and len(reached) < len(BARS):
        agent.step()
        if given["agent"] == "neat":
            value = agent.champion.fitness
        elif agent.timesteps >= following:
            following = agent.timesteps + EVERY
            value = evaluate(agent, plan.setup, 10, validation_seed(seed)).return_mean
        else:
            continue
        reached += [agent.timesteps for bar in BARS[len(reached) :] if value >= bar]
    return reached + [LIMIT] * (len(BARS) - len(reached))


def compare(seeds: int) -> None:
    print(
        f"\n| {ENV}: environment steps, interquartile mean (95 % bootstrap interval) | {' | '.join(f'{b:.0f}' for b in BARS)} |"
    )
    print("|---|" + "---|" * len(BARS))
    for name, given in RIVALS.items():
        steps = np.array([steps_to_bars(given, seed) for seed in range(1, seeds + 1)], float)
        cells = []
        for column in steps.T:
            low, high = bootstrap_interval(column, seed=0)
            cells.append(f"{interquartile_mean(column):,.0f} ({low:,.0f} to {high:,.0f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
