"""Whole agents that learn from pictures, against Stable-Baselines3: ``python -m benchmarks.pixels [--steps 6000] [--rounds 3]``.

DQN and PPO with the network of Mnih et al. 2015 play a game. An observation is four pictures, each 84 x 84 uint8. A step of the game
takes a few microseconds, so nearly all of the time is the agent's. Both libraries have the same settings and two threads. They take
turns, each in a process of its own. A row shows steps per second of processor time, steps per second of wall time, and the largest
memory of the process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

SIZE = 84
LENGTH = 200
"""Steps of an episode."""


class Chase(gym.Env[np.ndarray, int]):
    """Move a bright square under a falling one. Observations are (84, 84, 1) uint8; the reward is 1 for each one that is caught."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = Box(0, 255, (SIZE, SIZE, 1), np.uint8)
        self.action_space = Discrete(3)

    def _picture(self) -> np.ndarray:
        picture = np.zeros((SIZE, SIZE, 1), np.uint8)
        picture[76:84, self.x : self.x + 12] = 255
        picture[self.fallen : self.fallen + 6, self.target : self.target + 6] = 200
        return picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.fallen, self.age = 36, 0, 0
        self.target = int(self.np_random.integers(78))
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x = min(max(self.x + 6 * (int(action) - 1), 0), 72)
        self.fallen += 4
        self.age += 1
        reward = 0.0
        if self.fallen >= 72:
            reward = float(self.x - 6 < self.target < self.x + 12)
            self.fallen = 0
            self.target = int(self.np_random.integers(78))
        return self._picture(), reward, self.age >= LENGTH, False, {}


DQN = {"buffer_size": 20_000, "learning_starts": 1_000, "batch_size": 32, "train_frequency": 4, "target_update_interval": 1_000}
PPO = {"num_envs": 8, "num_steps": 128, "batch_size": 256, "epochs": 4}


def ours(agent: str, steps: int) -> Any:
    """Build our agent; return the function that trains it."""
    from rl_lab.agents.dqn import DQN as OurDQN
    from rl_lab.agents.ppo import PPO as OurPPO

    common = {"seed": 1, "network": "nature", "frame_stack": 4, "preset": False, "total_timesteps": steps}
    if agent == "dqn":
        built: Any = OurDQN(Chase, **common, **DQN, learning_rate=1e-4, double=False)
    else:
        built = OurPPO(
            Chase,
            **common,
            **PPO,
            shared=True,
            normalize_rewards=False,
            learning_rate=2.5e-4,
            clip_range=0.1,
            entropy_coefficient=0.01,
        )
    return lambda: built.learn(steps)


def theirs(agent: str, steps: int) -> Any:
    """Build the agent of Stable-Baselines3; return the function that trains it."""
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    torch.set_num_threads(2)
    envs = VecFrameStack(make_vec_env(Chase, PPO["num_envs"] if agent == "ppo" else 1, seed=1), 4)
    if agent == "dqn":
        settings: dict[str, Any] = dict(DQN)
        settings["train_freq"] = settings.pop("train_frequency")
        built: Any = sb3.DQN("CnnPolicy", envs, seed=1, device="cpu", learning_rate=1e-4, **settings)
    else:
        built = sb3.PPO(
            "CnnPolicy",
            envs,
            seed=1,
            device="cpu",
            n_steps=PPO["num_steps"],
            batch_size=PPO["batch_size"],
            n_epochs=PPO["epochs"],
            learning_rate=2.5e-4,
            clip_range=0.1,
            ent_coef=0.01,
        )
    return lambda: built.learn(steps)


def measure(library: str, agent: str, steps: int) -> None:
    """Train, and print speed and memory as JSON. The time includes recording the updates, and compiling if the cache is empty."""
    train = (ours if library == "rl_lab" else theirs)(agent, steps)
    wall, processor = time.perf_counter(), time.process_time()
    train()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"processor": steps / processor, "wall": steps / wall, "memory": memory}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(*arguments.one, arguments.steps)
        return
    print("| agent | library | steps / s of processor time | steps / s | memory, MB | ratio of processor time |")
    print("|---|---|---|---|---|---|")
    for agent in ("dqn", "ppo"):
        found: dict[str, list[dict[str, float]]] = {"rl_lab": [], "Stable-Baselines3": []}
        for turn in range(arguments.rounds + 1):  # the first turn fills the caches
            for library, rows in found.items():
                command = [sys.executable, "-m", "benchmarks.pixels", "--one", library, agent, "--steps", str(arguments.steps)]
                shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                if turn:
                    rows.append(json.loads(shown.splitlines()[-1]))
        pairs = zip(found["rl_lab"], found["Stable-Baselines3"], strict=True)
        ratio = statistics.median(a["processor"] / b["processor"] for a, b in pairs)
        for library, rows in found.items():
            middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            cells = [agent, library, *(f"{middle[key]:,.0f}" for key in ("processor", "wall", "memory"))]
            print("|", " | ".join([*cells, f"{ratio:.2f}" if library == "rl_lab" else ""]), "|", flush=True)


if __name__ == "__main__":
    main()
