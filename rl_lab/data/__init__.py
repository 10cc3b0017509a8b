"""Storage of experience, and what is computed from it."""

from rl_lab.data.normalizers import RewardScale, RunningMoments
from rl_lab.data.replay import Batch, PrioritizedReplayBuffer, ReplayBuffer, Transitions
from rl_lab.data.returns import discounted_returns, generalized_advantages, normalized

__all__ = [
    "Batch",
    "PrioritizedReplayBuffer",
    "ReplayBuffer",
    "RewardScale",
    "RunningMoments",
    "Transitions",
    "discounted_returns",
    "generalized_advantages",
    "normalized",
]
