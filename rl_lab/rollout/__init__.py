"""Experience: collect it with a policy in environments, store it, and compute returns and advantages from it."""

from rl_lab.rollout.actions import ActionMapping, Moment, OutputMapping
from rl_lab.rollout.collector import Collector, rounds_due, steps_between_updates
from rl_lab.rollout.minibatches import Minibatches
from rl_lab.rollout.normalizers import Normalization, RewardScale, RunningMoments
from rl_lab.rollout.policies import ActionHead
from rl_lab.rollout.replay import Batch, PrioritizedReplayBuffer, ReplayBuffer, SequenceReplayBuffer
from rl_lab.rollout.returns import discounted_returns, following_values, generalized_advantages, normalized
from rl_lab.rollout.stepper import EPISODE_LIMIT, Step, Stepper, longest_episode
from rl_lab.rollout.storage import Rollout, Transitions

__all__ = [
    "EPISODE_LIMIT",
    "ActionHead",
    "ActionMapping",
    "Batch",
    "Collector",
    "Minibatches",
    "Moment",
    "Normalization",
    "OutputMapping",
    "PrioritizedReplayBuffer",
    "ReplayBuffer",
    "RewardScale",
    "Rollout",
    "RunningMoments",
    "SequenceReplayBuffer",
    "Step",
    "Stepper",
    "Transitions",
    "discounted_returns",
    "following_values",
    "generalized_advantages",
    "longest_episode",
    "normalized",
    "rounds_due",
    "steps_between_updates",
]
