"""Storage of experience, and what is computed from it."""

from rl_lab.rollout.normalizers import RewardScale, RunningMoments
from rl_lab.rollout.replay import Batch, PrioritizedReplayBuffer, ReplayBuffer, Transitions
from rl_lab.rollout.returns import discounted_returns, generalized_advantages, normalized

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
