"""Evolution with gradients, evolution alone and gradients alone: environment steps until a controller is good enough, over seeds.

An evolved champion is tried on episodes of its own, whose steps count; PPO is evaluated greedily over 10 episodes every 2,500 steps,
and its evaluations are not counted. Acrobot-v1 counts as solved at -76, which is what DQN is known to reach, DoublePole-v0 when its
1,000 steps are balanced; the lower bars show when each passed them on the way.
"""

from typing import Any, NamedTuple

import numpy as np

from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate, validation_seed

LIMIT, EVERY = 1_000_000, 2_500


class Task(NamedTuple):
    """The returns that are waited for, what evolves, how it learns within a life, and how PPO learns."""

    bars: tuple[float, ...]
    evolution: dict[str, Any]
    gradient: dict[str, Any]
    ppo: dict[str, Any]


TASKS = {
    "Acrobot-v1": Task(
        bars=(-100.0, -85.0, -80.0, -76.0),
        evolution={"population": 15, "episodes": 1, "champion_episodes": 10},
        gradient={"gradient_learning_rate": 0.05, "gradient_episodes": 1, "num_envs": 1, "updates": 40},
        ppo={"num_envs": 16, "num_steps": 32, "batch_size": 128, "learning_rate": 2e-3, "learning_rate_final": 1.0},
    ),
    "DoublePole-v0": Task(
        bars=(200.0, 500.0, 1000.0),
        evolution={"population": 60},
        gradient={
            "gradient_learning_rate": 0.05,
            "gradient_episodes": 2,
            "gradient_noise": 0.1,
            "num_envs": 2,
            "updates": 20,
        },
        ppo={
            "num_envs": 8,
            "num_steps": 32,
            "batch_size": 256,
            "epochs": 20,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "learning_rate": 1e-3,
        },
    ),
}


def rivals(task: Task) -> dict[str, dict[str, Any]]:
    evolution = {"agent": "neat", **task.evolution}
    gradient = {name: value for name, value in task.gradient.items() if name != "updates"}
    count = task.gradient["updates"]
    return {
        "evolution alone": evolution,
        f"evolution, --lamarck {count}": {**evolution, **gradient, "lamarck": count},
        f"evolution, --baldwin {count}": {**evolution, **gradient, "baldwin": count},
        "PPO alone": {"agent": "ppo", **task.ppo},
    }


def steps_to_bars(given: dict[str, Any], env: str, bars: tuple[float, ...], seed: int) -> list[int]:
    """Environment steps until each of the bars, at most `LIMIT`."""
    plan = make_plan({name: str(value) for name, value in {**given, "env": env, "seed": seed}.items()})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class(plan.config, envs, seed)
    reached: list[int] = []
    following = 0
    while agent.timesteps < LIMIT and len(reached) < len(bars):
        agent.step()
        if given["agent"] == "neat":
            value = agent.champion.fitness
        elif agent.timesteps >= following:
            following = agent.timesteps + EVERY
            value = evaluate(agent, plan.setup, 10, validation_seed(seed)).return_mean
        else:
            continue
        reached += [agent.timesteps for bar in bars[len(reached) :] if value >= bar]
    return reached + [LIMIT] * (len(bars) - len(reached))


def compare(seeds: int) -> None:
    for env, task in TASKS.items():
        heads = " | ".join(f"{bar:.0f}" for bar in task.bars)
        print(f"\n| {env}: environment steps, interquartile mean (95 % bootstrap interval), {seeds} seeds | {heads} |")
        print("|---|" + "---|" * len(task.bars))
        for name, given in rivals(task).items():
            steps = np.array([steps_to_bars(given, env, task.bars, seed) for seed in range(1, seeds + 1)], float)
            cells = []
            for column in steps.T:
                low, high = bootstrap_interval(column, seed=0)
                cells.append(f"{interquartile_mean(column):,.0f} ({low:,.0f} to {high:,.0f})")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
