"""Probe environments: each asks one question of an agent, and its answer is known exactly."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Probe(gym.Env):
    """Episodes of ``length`` steps. Subclasses say what is observed and what is rewarded."""

    length = 1
    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        self.sign = float(self.np_random.integers(2) * 2 - 1)
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def reward(self, action: Any) -> float:
        return 1.0

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.reward(action)
        self.time += 1
        return self.observe(), reward, self.time >= self.length, False, {}


class ConstantReward(Probe):
    """One step, reward 1: every value is 1. Fails if the value's loss or optimiser is broken."""


class ObservedReward(Probe):
    """One step, the reward is what is observed. Fails if gradients do not reach the input layer."""

    def observe(self) -> np.ndarray:
        return np.array([self.sign], np.float32)

    def reward(self, action: Any) -> float:
        return self.sign


class DelayedReward(Probe):
    """Two steps, reward 1 at the end, the time is observed: the first value is gamma. Fails if bootstrapping or discounting is wrong."""

    length = 2

    def observe(self) -> np.ndarray:
        return np.array([self.time], np.float32)

    def reward(self, action: Any) -> float:
        return float(self.time == 1)


class ActionReward(Probe):
    """One step, +1 for action 1, -1 for action 0. Fails if actions are not told apart."""

    def reward(self, action: Any) -> float:
        return 1.0 if action == 1 else -1.0


class MatchReward(Probe):
    """One step, +1 if the action matches the sign that is observed, else -1. Fails if policy and observation are not joined."""

    def observe(self) -> np.ndarray:
        return np.array([self.sign], np.float32)

    def reward(self, action: Any) -> float:
        return 1.0 if action == (self.sign > 0) else -1.0


class Endless(Probe):
    """Reward 1 in every step, cut off by a time limit: the value is 1 / (1 - gamma). Fails if truncation is taken for termination."""

    length = 10**9


class StartsAtOne(Probe):
    """Actions 1 and 2, reward for 2. Fails if the start of a Discrete space is ignored."""

    action_space = Discrete(2, start=1)

    def reward(self, action: Any) -> float:
        assert action in (1, 2)
        return 1.0 if action == 2 else -1.0


class ReturnsNan(Probe):
    """A reward of NaN at its fifth step."""

    length = 100

    def reward(self, action: Any) -> float:
        return float("nan") if self.time == 4 else 1.0


PROBES = (ConstantReward, ObservedReward, DelayedReward, ActionReward, MatchReward, Endless, StartsAtOne, ReturnsNan)


def register() -> None:
    for probe in PROBES:
        if f"probe/{probe.__name__}-v0" not in gym.registry:
            limit = 5 if probe is Endless else None
            gym.register(f"probe/{probe.__name__}-v0", entry_point=probe, max_episode_steps=limit)
