"""Evolution with gradients, evolution alone and gradients alone: environment steps until a controller reaches given returns, over seeds.

Every 1,000 steps or more the policy is evaluated greedily over 10 episodes. These evaluation steps are not counted; the steps in
which evolution chooses its champion are. A task is solved at its highest bar: 1,000 balanced steps on DoublePole-v0, 475 on
CartPoleMasked-v0, -85 on Acrobot-v1. Each method has the best settings that were found for it.
"""

from typing import Any, NamedTuple

import numpy as np

from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate, validation_seed

EVERY = 1_000


class Task(NamedTuple):
    """One environment's bars and the settings of each method."""

    bars: tuple[float, ...]  # returns to reach
    limit: int  # most environment steps of a run
    evolution: dict[str, Any]  # settings of NEAT alone
    learning: dict[str, Any]  # settings of NEAT with gradients
    agent: dict[str, Any]  # the gradient agent and its settings


TASKS = {
    "CartPoleMasked-v0": Task(
        bars=(100.0, 200.0, 475.0),
        limit=1_000_000,
        evolution={
            "population": 150,
            "initial_hidden": 0,
            "activation": "steepened_sigmoid",
            "weight_range": 4.0,
            "weight_limit": 8.0,
            "champion_episodes": 5,
            "lamarck": 0,
        },
        learning={"champion_episodes": 3},
        agent={"agent": "recurrent_ppo", "learning_rate": 2e-3, "learning_rate_final": 1.0},
    ),
    "DoublePole-v0": Task(
        bars=(200.0, 500.0, 1000.0),
        limit=500_000,
        evolution={"population": 60},
        learning={
            "population": 15,
            "weight_range": 1.0,
            "weight_limit": 100.0,
            "output_activation": "identity",
            "gradient_noise": 0.5,
            "gradient_gamma": 0.98,
            "num_envs": 8,
        },
        agent={
            "agent": "ppo",
            "num_envs": 8,
            "num_steps": 32,
            "batch_size": 256,
            "epochs": 20,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "learning_rate": 1e-3,
            "normalize_observations": False,
            "normalize_rewards": False,
            "entropy_coefficient": 0.0,
        },
    ),
    "Acrobot-v1": Task(
        bars=(-100.0, -85.0),
        limit=500_000,
        evolution={"population": 15, "episodes": 1, "champion_episodes": 10},
        learning={
            "population": 10,
            "weight_range": 1.0,
            "episodes": 1,
            "champion_episodes": 4,
            "num_envs": 8,
            "gradient_rollouts": 8,
            "gradient_steps": 64,
        },
        agent={
            "agent": "ppo",
            "num_envs": 8,
            "num_steps": 64,
            "batch_size": 128,
            "epochs": 10,
            "learning_rate": 2e-3,
            "learning_rate_final": 1.0,
            "normalize_observations": False,
            "normalize_rewards": False,
            "entropy_coefficient": 0.0,
        },
    ),
}
UPDATES_A_ROLLOUT = 20


def rivals(task: Task) -> dict[str, dict[str, Any]]:
    """The compared methods by name, each with its agent and settings."""
    updates = UPDATES_A_ROLLOUT * task.learning.get("gradient_rollouts", 10)
    agent = "PPO" if task.agent["agent"] == "ppo" else "recurrent PPO"
    return {
        "evolution alone": {"agent": "neat", **task.evolution},
        f"evolution, --lamarck {updates}": {"agent": "neat", "lamarck": updates, **task.learning},
        f"evolution, --baldwin {updates}": {"agent": "neat", "lamarck": 0, "baldwin": updates, **task.learning},
        f"{agent} alone": task.agent,
    }


def steps_to_bars(given: dict[str, Any], env: str, bars: tuple[float, ...], limit: int, seed: int) -> list[int]:
    """Environment steps until the greedy return reaches each bar, or ``limit`` if it does not."""
    plan = make_plan({name: str(value) for name, value in {**given, "env": env, "seed": seed}.items()})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class.create(plan.config, envs, seed)
    reached: list[int] = []
    following = 0
    while agent.timesteps < limit and len(reached) < len(bars):
        agent.step()
        if agent.timesteps >= following:
            following = agent.timesteps + EVERY
            value = evaluate(agent, plan.setup, 10, validation_seed(seed)).return_mean
            reached += [min(agent.timesteps, limit) for bar in bars[len(reached) :] if value >= bar]
    return reached + [limit] * (len(bars) - len(reached))


def compare(seeds: int) -> None:
    """Print a table per task: a row for each method, a column for each bar."""
    for env, task in TASKS.items():
        heads = " | ".join(f"{bar:.0f}" for bar in task.bars)
        print(f"\n| {env}: environment steps, interquartile mean (95 % bootstrap interval), {seeds} seeds | {heads} |")
        print("|---|" + "---|" * len(task.bars))
        for name, given in rivals(task).items():
            steps = np.array([steps_to_bars(given, env, task.bars, task.limit, seed) for seed in range(1, seeds + 1)], float)
            cells = []
            for column in steps.T:
                low, high = bootstrap_interval(column, seed=0)
                cells.append(f"{interquartile_mean(column):,.0f} ({low:,.0f} to {high:,.0f})")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
