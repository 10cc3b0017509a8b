"""Train agents over several seeds from Python and draw their learning curves: the pictures of the README and of the pages on agents.

    python -m examples.learning_curves [dqn ppo] [--env CartPole-v1] [--steps 50000] [--seeds 5] [--out curves.png]

The band is a 95 % bootstrap interval of the interquartile mean over seeds (Agarwal et al. 2021).
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import pandas

from rl_lab.experiment import train
from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean, on_common_steps, read_runs
from rl_lab.experiment.figures import style_of

NAMES = {
    "recurrent_ppo": "recurrent PPO",
    "qrdqn": "QR-DQN",
    "crossq": "CrossQ",
    "cmaes": "CMA-ES",
}
"""Names of agents that are not their names in capitals."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", default=["dqn", "ppo"])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps shown")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="curves.png")
    given = parser.parse_args()
    draw(given.agents, given.env, given.steps, given.seeds, Path(given.out))


def draw(agents: Sequence[str], env: str, last: int, seeds: int, path: Path, data: str = "", **settings: Any) -> None:
    """Train the agents and write a picture of their learning curves up to step ``last``.

    ``data`` says where the data of agents that learn from data comes from; ``settings`` are those of `train`.
    """
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(7.0, 3.2), layout="constrained")
    for i, agent in enumerate(agents):
        runs = train_all(agent, env, last, seeds, settings)
        evaluations = runs[runs.tag == "eval/return_mean"]
        steps = np.linspace(evaluations.groupby("run").step.min().max(), last, 60)
        curves = on_common_steps(evaluations, "eval/return_mean", steps)
        low, high = bootstrap_interval(curves)
        style = style_of(i)
        label = f"{NAMES.get(agent, agent.upper())}, {seeds} seeds"
        axes.plot(steps, interquartile_mean(curves), linewidth=2, label=label, **style)
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
    spec = gym.spec(env if env in gym.registry else f"rl_lab/{env}")
    if spec.reward_threshold is not None:
        axes.axhline(spec.reward_threshold, color="0.5", linewidth=1, linestyle=":")
        place = {"xytext": (4, -12), "textcoords": "offset points", "color": "0.4", "fontsize": 9}
        axes.annotate(f"solved: {spec.reward_threshold:g}", (0, spec.reward_threshold), **place)
    axes.set(xlabel="transitions learned from" if data else "environment steps", ylabel="greedy return", xlim=(0, last))
    if "CartPole" in env:
        axes.set_ylim(0, 510)
    way = data or f"with the shipped preset{'s' if len(agents) > 1 else ''}"
    axes.set_title(f"{env} {way}", loc="left", fontsize=12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=160)
    plt.close(figure)
    print(path, flush=True)


def train_all(agent: str, env: str, last: int, seeds: int, settings: Mapping[str, Any]) -> pandas.DataFrame:
    """The logged scalars of one run per seed, as `read_runs` returns them. Each run has the full length of its preset."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, seeds + 1):
            train(
                agent,
                env,
                seed=seed,
                run_dir=folder,
                eval_frequency=max(200, last // 50),
                short_episodes=20,
                stop_return=1e9,  # cannot be reached, so no run stops early
                eval_episodes=1,
                keep_best=False,
                **settings,
            )
        return read_runs(folder)


if __name__ == "__main__":
    main()
