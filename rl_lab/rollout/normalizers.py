"""Running normalization of observations and rewards. The statistics are tensors, so recorded programs can use them."""

from typing import Any

import numpy as np

import rl_lab as rl
from rl_lab.nn.module import Module
from rl_lab.rollout.replay import Batch
from rl_lab.rollout.storage import Rollout


class RunningMoments(Module):
    """Running mean and variance of values of ``shape``, by the parallel update of Chan, Golub and LeVeque 1983.

    The buffers are ``mean`` and ``var``, of ``shape``, and ``count`` (). Normalized values are clipped to ±``clip``.
    """

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0, epsilon: float = 1e-8):
        super().__init__()
        self.clip = clip
        self.epsilon = epsilon
        self.register_buffer("mean", rl.zeros(shape))
        self.register_buffer("var", rl.ones(shape))
        self.register_buffer("count", rl.full((), 1e-4))

    @rl.no_grad()
    def update(self, batch: rl.Tensor) -> None:
        """Add values (n, *shape) to the statistics."""
        batch = batch.float()
        self.merge(float(batch.shape[0]), batch.mean(0), batch.var(0, correction=0))

    @rl.no_grad()
    def set(self, values: np.ndarray) -> None:
        """Take the mean and the variance of all values (n, *shape) there are, instead of running ones."""
        self.mean.copy_(rl.tensor(values.mean(0, dtype=np.float64), dtype=rl.float32))
        self.var.copy_(rl.tensor(values.var(0, dtype=np.float64), dtype=rl.float32))
        self.count.fill_(len(values))

    @rl.no_grad()
    def merge(self, n: float, mean: rl.Tensor, var: rl.Tensor) -> None:
        """Add ``n`` values, whose mean and variance are known, to the statistics."""
        total = self.count + n
        difference = mean - self.mean
        spread = self.var * self.count + var * n + difference**2 * (self.count * n / total)
        self.mean.add_(difference * (n / total))
        self.var.copy_(spread / total)
        self.count.copy_(total)

    def normalize(self, x: rl.Tensor) -> rl.Tensor:
        """Return (x - mean) / std, clipped, for ``x`` (..., *shape)."""
        return ((x - self.mean) / (self.var + self.epsilon).sqrt()).clamp(-self.clip, self.clip)

    def scale(self, x: rl.Tensor) -> rl.Tensor:
        """Return x / std, clipped, for ``x`` (..., *shape): for rewards, whose sign must not change."""
        return (x / (self.var + self.epsilon).sqrt()).clamp(-self.clip, self.clip)


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return.

    Source: Engstrom et al. 2020, "Implementation matters in deep policy gradients", appendix A. Unlike Gymnasium's NormalizeReward, this
    class also resets the return after a truncation, updates with whole rollouts, and clips to ±``clip``.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0):
        self.moments = RunningMoments((), clip)
        self.gamma = gamma
        self._running = np.zeros(num_envs, np.float32)

    def __call__(self, rewards: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Add the rewards (steps, n) of a rollout to the statistics and return them scaled.

        ``ended``, bool (steps, n), is True in the last step of each episode.
        """
        returns = np.empty_like(rewards)
        for t in range(len(rewards)):
            self._running = self._running * np.float32(self.gamma) + rewards[t]
            returns[t] = self._running
            self._running[ended[t]] = 0.0
        self.moments.update(rl.from_numpy(returns.reshape(-1)))
        return self.moments.scale(rl.from_numpy(np.ascontiguousarray(rewards))).numpy()

    def begin_episodes(self) -> None:
        """Reset the running returns, because the running episodes do not continue."""
        self._running[:] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics and the running discounted returns, float32 (num_envs,)."""
        return {"moments": self.moments.state_dict(), "running": self._running.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. With another number of environments the running returns start at 0."""
        self.moments.load_state_dict(state["moments"])
        running = np.asarray(state["running"])
        self._running[:] = running if running.shape == self._running.shape else 0.0


class Normalization:
    """Normalization for agents with a replay buffer, which stores observations and rewards as they are.

    If ``shape`` is given, observations (batch, *shape) are normalized by their running moments. If ``rewards`` is True, rewards are
    divided by the running standard deviation of the discounted return. Only training calls `update`, so evaluations do not change the
    statistics.
    """

    def __init__(self, shape: tuple[int, ...] | None, rewards: bool, num_envs: int, gamma: float):
        self.moments = RunningMoments(shape) if shape is not None else None
        self.reward_scale = RewardScale(num_envs, gamma) if rewards else None

    def observations(self, observations: rl.Tensor) -> rl.Tensor:
        """Return normalized observations (batch, *shape)."""
        return observations if self.moments is None else self.moments.normalize(observations)

    def batch(self, batch: Batch) -> Batch:
        """Return a sampled batch with normalized observations and scaled rewards."""
        seen = self.observations(batch.observations)
        following = self.observations(batch.next_observations)
        rewards = batch.rewards if self.reward_scale is None else self.reward_scale.moments.scale(batch.rewards)
        return batch._replace(observations=seen, next_observations=following, rewards=rewards)

    def update(self, rollout: Rollout) -> None:
        """Add the valid steps of a rollout to the statistics."""
        if self.moments is not None:
            seen = rollout.observations[rollout.valid] if rollout.has_reset_steps else rollout.observations
            self.moments.update(rl.from_numpy(np.ascontiguousarray(seen).reshape(-1, *self.moments.mean.shape)))
        if self.reward_scale is not None:
            self.reward_scale(rollout.rewards, rollout.terminated | rollout.truncated)

    def begin_episodes(self) -> None:
        """Reset the running returns, because the running episodes do not continue."""
        if self.reward_scale is not None:
            self.reward_scale.begin_episodes()

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics."""
        parts = {"moments": self.moments, "reward_scale": self.reward_scale}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        if self.moments is not None:
            self.moments.load_state_dict(state["moments"])
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])
