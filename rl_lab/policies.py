"""From what a network says to actions: what agents of several algorithms share."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

import rl_lab as rl


def epsilon_greedy(q_values: Any, epsilon: Any, generator: rl.Generator, action_mask: Any = None) -> Any:
    """argmax_a Q, or with probability ``epsilon`` a uniformly random action; among the allowed ones where there is a mask.

    ``q_values`` is (batch, actions), ``epsilon`` a tensor, the result int64 (batch,).
    """
    count, actions = q_values.shape
    if action_mask is None:
        random = rl.randint(0, actions, (count,), generator=generator)
    else:
        random = rl.rand(count, actions, generator=generator).masked_fill(~action_mask, -1.0).argmax(1)
    chosen = rl.rand(count, generator=generator) < epsilon
    return rl.where(chosen, random, greedy(q_values, action_mask))


def greedy(q_values: Any, action_mask: Any = None) -> Any:
    """argmax_a Q(s, a) among the allowed actions, int64 (batch,)."""
    return masked(q_values, action_mask).argmax(1)


def masked(q_values: Any, action_mask: Any) -> Any:
    """Values with those of forbidden actions far below all others."""
    return q_values if action_mask is None else q_values.masked_fill(~action_mask, -1e9)


def as_space(actions: np.ndarray, space: Space) -> np.ndarray:
    """Actions as an environment takes them: discrete ones counted from the space's start, continuous ones clipped to it."""
    if isinstance(space, (Discrete, MultiDiscrete)):
        return actions + space.start
    if isinstance(space, Box):
        return np.clip(actions, space.low, space.high)
    raise TypeError(f"no agent acts in {space}")


class LinearSchedule:
    """From ``initial`` to ``final`` over the first ``fraction`` of ``total`` steps, and ``final`` from there on."""

    def __init__(self, initial: float, final: float, fraction: float, total: int):
        self.initial, self.final, self.steps = initial, final, max(1.0, fraction * total)

    def __call__(self, step: int) -> float:
        return self.initial + min(1.0, step / self.steps) * (self.final - self.initial)
