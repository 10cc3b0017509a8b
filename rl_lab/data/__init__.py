"""Storage of experience."""

from rl_lab.data.replay import ReplayBuffer, Transitions

__all__ = ["ReplayBuffer", "Transitions"]
