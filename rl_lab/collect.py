"""Collectors: a policy and environments in, transitions out."""

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_lab.data import Transitions
from rl_lab.engine.errors import EnvironmentFault


class VectorCollector:
    """Steps any Gymnasium vector environment, keeping truncation apart from termination and counting episodes.

    Works with same-step autoreset (the final observation comes in ``info``) and next-step autoreset (the step after an end is a
    reset, whose transition is left out). ``observations`` are the current ones, one per environment.
    """

    def __init__(self, envs: VectorEnv, seed: int):
        self.envs, self.num_envs = envs, envs.num_envs
        self.mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if self.mode == AutoresetMode.DISABLED:
            raise ValueError("the collector needs environments that reset themselves: autoreset is disabled")
        self.observations, _ = envs.reset(seed=seed)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._resetting = np.zeros(self.num_envs, bool)
        self._finished: list[tuple[float, int]] = []

    def step(self, actions: np.ndarray) -> Transitions:
        """Take one action in every environment and return the transitions that it made."""
        before = self.observations
        observations, rewards, terminated, truncated, info = self.envs.step(actions)
        if not np.isfinite(rewards).all():
            index = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise EnvironmentFault(
                f"environment {index} of {self.envs.spec and self.envs.spec.id} returned a reward of {rewards[index]}"
            )
        ended = terminated | truncated
        following = observations
        if ended.any() and self.mode == AutoresetMode.SAME_STEP:
            following = observations.copy()
            for i in np.flatnonzero(ended):
                following[i] = info["final_obs"][i]
        valid = ~self._resetting
        self._returns[valid] += rewards[valid]
        self._lengths[valid] += 1
        for i in np.flatnonzero(ended & valid):
            self._finished.append((float(self._returns[i]), int(self._lengths[i])))
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        if self.mode == AutoresetMode.NEXT_STEP:
            self._resetting = ended
        self.observations = observations
        transitions = Transitions(before, actions, rewards, following, terminated)
        return transitions if valid.all() else Transitions(*[values[valid] for values in transitions])

    def episodes(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, by log tag; empty if none did."""
        if not self._finished:
            return {}
        returns, lengths = zip(*self._finished, strict=True)
        self._finished.clear()
        return {"charts/episodic_return": float(np.mean(returns)), "charts/episodic_length": float(np.mean(lengths))}
