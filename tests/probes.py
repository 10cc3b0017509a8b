"""Probe environments written in Python. Native ones, with exactly known answers, are in `rl_lab.envs.probes`."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class ReturnsNan(gym.Env):
    """An environment that returns a reward of NaN in its fifth step."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        return np.zeros(1, np.float32), float("nan") if self.time == 5 else 1.0, self.time >= 100, False, {}


class Counter(gym.Env):
    """Episodes never terminate. The observation is the number of steps or, with ``ones``, of actions 1; each action 1 has reward 1."""

    observation_space = Box(0.0, np.inf, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, ones: bool = False):
        self.ones = ones

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += int(action) if self.ones else 1
        return np.array([self.count], np.float32), float(action) if self.ones else 0.0, False, False, {}


def register() -> None:
    if "probe/ReturnsNan-v0" not in gym.registry:
        gym.register("probe/ReturnsNan-v0", entry_point=ReturnsNan)
        gym.register("probe/Clock-v0", entry_point=Counter, max_episode_steps=5)
        gym.register("probe/NeverOver-v0", entry_point=Counter, kwargs={"ones": True})
        gym.register("probe/OverAt30-v0", entry_point=Counter, kwargs={"ones": True}, max_episode_steps=30)
