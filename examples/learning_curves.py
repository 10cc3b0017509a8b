"""Train two agents over several seeds from Python and draw their learning curves: the picture of the README.

    python -m examples.learning_curves [--seeds 5] [--out curves.png]

The band is a 95 % bootstrap interval of the interquartile mean over seeds (Agarwal et al. 2021).
"""

import argparse
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas

from rl_lab.experiment import train
from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean, on_common_steps, read_runs

AGENTS = {"dqn": ("DQN", "#0072B2"), "ppo": ("PPO", "#D55E00")}
LAST = 50_000  # environment steps shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="curves.png")
    arguments = parser.parse_args()
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(7.0, 3.2), layout="constrained")
    for agent, (label, colour) in AGENTS.items():
        runs = train_all(agent, arguments.seeds)
        evaluations = runs[runs.tag == "eval/return_mean"]
        steps = np.linspace(evaluations.groupby("run").step.min().max(), LAST, 60)
        curves = on_common_steps(evaluations, "eval/return_mean", steps)
        low, high = bootstrap_interval(curves)
        axes.plot(steps, interquartile_mean(curves), color=colour, linewidth=2, label=f"{label}, {arguments.seeds} seeds")
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(475, color="0.5", linewidth=1, linestyle=":")
    axes.annotate("solved: 475", (0, 475), xytext=(4, -12), textcoords="offset points", color="0.4", fontsize=9)
    axes.set(xlabel="environment steps", ylabel="greedy return", ylim=(0, 510), xlim=(0, LAST))
    axes.set_title("CartPole-v1 with the shipped presets", loc="left", fontsize=12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(arguments.out, dpi=160)
    print(arguments.out)


def train_all(agent: str, seeds: int) -> pandas.DataFrame:
    """The logged scalars of one run per seed, as `read_runs` returns them. Each run has the full length of its preset."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, seeds + 1):
            train(
                agent,
                "CartPole-v1",
                seed=seed,
                run_dir=folder,
                eval_frequency=1_000,
                short_episodes=20,
                stop_return=1_000.0,  # cannot be reached, so no run stops early
                eval_episodes=1,
                keep_best=False,
            )
        return read_runs(folder)


if __name__ == "__main__":
    main()
