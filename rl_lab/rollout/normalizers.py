"""Running normalisation of observations and rewards; the statistics are tensors, so they are recorded, replayed and saved."""

from typing import Any

import numpy as np

import rl_lab as rl
from rl_lab.nn.module import Module


class RunningMoments(Module):
    """Mean and variance of everything seen, by the parallel update of Chan, Golub and LeVeque 1983.

    ``normalize`` subtracts the mean, divides by the standard deviation and clips to ``clip``. State: ``mean``, ``var``, ``count``.
    """

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0, epsilon: float = 1e-8):
        super().__init__()
        self.clip = clip
        self.epsilon = epsilon
        self.register_buffer("mean", rl.zeros(shape))
        self.register_buffer("var", rl.ones(shape))
        self.register_buffer("count", rl.full((), 1e-4))

    @rl.no_grad()
    def update(self, batch: Any) -> None:
        """Take in values of shape (n, *shape)."""
        n = float(batch.shape[0])
        total = self.count + n
        difference = batch.mean(0) - self.mean
        spread = self.var * self.count + batch.var(0, correction=0) * n + difference**2 * (self.count * n / total)
        self.mean.add_(difference * (n / total))
        self.var.copy_(spread / total)
        self.count.copy_(total)

    def normalize(self, x: Any) -> Any:
        """(x - mean) / std, clipped."""
        return ((x - self.mean) / (self.var + self.epsilon).sqrt()).clamp(-self.clip, self.clip)

    def scale(self, x: Any) -> Any:
        """x / std, clipped: for rewards, whose sign must stay."""
        return (x / (self.var + self.epsilon).sqrt()).clamp(-self.clip, self.clip)


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return.

    Engstrom et al. 2020, "Implementation matters in deep policy gradients", appendix A. Unlike Gymnasium's NormalizeReward
    it begins the return anew after a truncation, too, takes in whole rollouts, and clips.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0):
        self.moments = RunningMoments((), clip)
        self.gamma = gamma
        self._running = np.zeros(num_envs, np.float32)

    def __call__(self, rewards: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Scaled rewards of a rollout, (steps, n) as ``ended``; the statistics take it in first."""
        returns = np.empty_like(rewards)
        for t in range(len(rewards)):
            self._running = self._running * np.float32(self.gamma) + rewards[t]
            returns[t] = self._running
            self._running[ended[t]] = 0.0
        self.moments.update(rl.from_numpy(returns.reshape(-1)))
        return self.moments.scale(rl.from_numpy(np.ascontiguousarray(rewards))).numpy()

    def begin_episodes(self) -> None:
        """The episodes that were running do not go on."""
        self._running[:] = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments.state_dict(), "running": self._running.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments.load_state_dict(state["moments"])
        self._running[:] = state["running"]
