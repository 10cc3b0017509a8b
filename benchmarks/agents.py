"""Whole agents against other libraries: environment steps per second, and seconds from the shell to a solved CartPole-v1.

    python -m benchmarks.agents [--rounds 3] [--skip-peers]

Each row runs rl_lab, Stable-Baselines3 (PyTorch) and sbx (the same algorithms on JAX) in turns, with the same settings, and counts
training steps after the first updates. The last rows start a new process for each run and end it when 100 greedy episodes have a
mean return of 475; rl_lab uses its preset.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.environments import make_environments

PLAIN = {"normalize_observations": False, "normalize_rewards": False, "entropy_coefficient": 0.0}
"""As in the peers."""

ROWS: dict[str, dict[str, Any]] = {
    "PPO CartPole-v1, 4 x 128 steps, 4 epochs x 4 minibatches, 64-64 tanh": {
        "target": 200_000,
        "agent": ("ppo", "CartPole-v1", 4, {"num_steps": 128, "batch_size": 128, "epochs": 4, **PLAIN}),
        "peer": ("PPO", "CartPole-v1", 4, {"n_steps": 128, "batch_size": 128, "n_epochs": 4}, {}),
    },
    "PPO Pendulum-v1, 4 x 1024 steps, batch 256, 2 epochs, 64-64": {
        "target": 400_000,
        "agent": ("ppo", "Pendulum-v1", 4, {"num_steps": 1024, "batch_size": 256, "epochs": 2, **PLAIN}),
        "peer": ("PPO", "Pendulum-v1", 4, {"n_steps": 1024, "batch_size": 256, "n_epochs": 2}, {}),
    },
    "DQN CartPole-v1, rl-zoo settings (256-256, batch 64, 128 updates in 256 steps)": {
        "target": 5_000,
        "agent": (
            "dqn",
            "CartPole-v1",
            1,
            {
                "network": "mlp:256,256",
                "learning_rate": 2.3e-3,
                "batch_size": 64,
                "buffer_size": 100_000,
                "target_update_interval": 10,
                "train_frequency": 256,
                "gradient_steps": 128,
                "double": False,
            },
        ),
        "peer": (
            "DQN",
            "CartPole-v1",
            1,
            {
                "learning_rate": 2.3e-3,
                "batch_size": 64,
                "buffer_size": 100_000,
                "learning_starts": 1000,
                "target_update_interval": 10,
                "train_freq": 256,
                "gradient_steps": 128,
            },
            {"net_arch": [256, 256]},
        ),
    },
    "SAC Pendulum-v1, 256-256, batch 256, an update a step": {
        "target": 250,
        "agent": ("sac", "Pendulum-v1", 1, {"learning_rate": 1e-3}),
        "peer": ("SAC", "Pendulum-v1", 1, {"learning_rate": 1e-3}, {"net_arch": [256, 256]}),
    },
    "SAC Pendulum-v1, 64-64, batch 100, a round a step (RLtools' settings)": {
        "target": 4_000,
        "agent": ("sac", "Pendulum-v1", 1, {"learning_rate": 1e-3, "network": "mlp:64,64", "batch_size": 100}),
        "peer": ("SAC", "Pendulum-v1", 1, {"learning_rate": 1e-3, "batch_size": 100}, {"net_arch": [64, 64]}),
    },
}


def ours(name: str, env: str, num_envs: int, settings: dict[str, Any]) -> Callable[[float], float]:
    """A function that trains an agent of rl_lab for about the given seconds and returns steps per second."""
    kind: Any = find_agent(name)
    agent = kind.create(kind.Config(total_timesteps=10_000_000, **settings), make_environments(env, num_envs), 1)
    while agent.timesteps < 3_000:
        agent.step()

    def run(seconds: float) -> float:
        begin = time.perf_counter()
        first = agent.timesteps
        while time.perf_counter() - begin < seconds:
            agent.step()
        return (agent.timesteps - first) / (time.perf_counter() - begin)

    return run


def peer(
    library: str, name: str, env: str, num_envs: int, settings: dict[str, Any], policy: dict[str, Any]
) -> Callable[[float], float]:
    """As `ours`, for an algorithm of `stable_baselines3` or `sbx`, which have the same interface."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Clock(BaseCallback):
        def __init__(self, seconds: float):
            super().__init__()
            self.seconds = seconds

        def _on_step(self) -> bool:
            return time.perf_counter() - self.begin < self.seconds

        def _on_training_start(self) -> None:
            self.begin = time.perf_counter()
            self.first = self.model.num_timesteps

    kind = getattr(importlib.import_module(library), name)
    model = kind("MlpPolicy", make_vec_env(env, num_envs), device="cpu", policy_kwargs=policy, **settings)
    model.learn(1_500)

    def run(seconds: float) -> float:
        clock = Clock(seconds)
        begin = time.perf_counter()
        model.learn(10_000_000, callback=clock, reset_num_timesteps=False)
        return (model.num_timesteps - clock.first) / (time.perf_counter() - begin)

    return run


PEER_SOLVES = """
import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 8), n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20,
            learning_rate=1e-3, device="cpu", seed={seed})
evaluation = make_vec_env("CartPole-v1", 8)
while True:
    model.learn(5000, reset_num_timesteps=False)
    if evaluate_policy(model, evaluation, 10)[0] >= 475 and evaluate_policy(model, evaluation, 100)[0] >= 475:
        break
"""


def solve(agent: str, seed: int) -> float:
    """Seconds from starting the command to a policy with a mean return of 475 over 100 greedy episodes."""
    with tempfile.TemporaryDirectory() as folder:
        if agent == "stable-baselines3 ppo":
            command = [sys.executable, "-W", "ignore", "-c", PEER_SOLVES.replace("{seed}", str(seed))]
        else:
            given = ["--agent", agent, "--env", "CartPole-v1", "--seed", str(seed), "--run-dir", folder, "--stop-return", "475"]
            command = [sys.executable, "-m", "rl_lab.train", *given]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each turn")
    parser.add_argument("--skip-peers", action="store_true")
    arguments = parser.parse_args()
    peers = [] if arguments.skip_peers else ["stable_baselines3", "sbx"]
    print("| work | target, steps/s | rl_lab |" + "".join(f" {library} | ratio |" for library in peers))
    print("|---" * (3 + 2 * len(peers)) + "|")
    for label, row in ROWS.items():
        contenders = [ours(*row["agent"]), *(peer(library, *row["peer"]) for library in peers)]
        rates = [[contender(arguments.seconds) for contender in contenders] for _ in range(arguments.rounds)]
        mine, *others = (statistics.median(column) for column in zip(*rates, strict=True))
        ratios = [statistics.median(turn[0] / turn[k + 1] for turn in rates) for k in range(len(peers))]
        cells = "".join(f" {rate:,.0f} | {ratio:.1f} |" for rate, ratio in zip(others, ratios, strict=True))
        print(f"| {label} | {row['target']:,} | {mine:,.0f} |{cells}", flush=True)
    print("\n| shell to a solved CartPole-v1 | seconds, median of seeds 1 to 5 | target |\n|---|---|---|")
    for agent, target in (("ppo", "3"), ("dqn", "6"), *(() if arguments.skip_peers else (("stable-baselines3 ppo", ""),))):
        times = [solve(agent, seed) for seed in range(1, 6 if not agent.startswith("stable") else 4)]
        print(f"| {agent} | {statistics.median(times):.1f} ({', '.join(f'{t:.1f}' for t in times)}) | {target} |", flush=True)


if __name__ == "__main__":
    main()
