"""Advantages and returns of rollouts."""

from typing import Any

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import launch
from rl_lab.engine.tensor import empty
from rl_lab.rollout import kernels


def generalized_advantages(
    rewards: Any, values: Any, next_values: Any, terminated: Any, truncated: Any, gamma: float, gae_lambda: float
) -> Any:
    """Generalized advantage estimates (Schulman et al. 2016, equation 16); all tensors are (steps, n), the flags bool.

    A_t = d_t + gamma lambda A_{t+1} with d_t = r_t + gamma V(s_{t+1}) - V(s_t). After a termination V(s_{t+1}) is 0; after a
    truncation, the last step included, it is ``next_values``, the value of the observation before the reset. Both end the sum.
    """
    for name, x in (("values", values), ("next_values", next_values), ("terminated", terminated), ("truncated", truncated)):
        if x.shape != rewards.shape or x.ndim != 2:
            raise ShapeError(f"{name} must have the rewards' shape (steps, n) = {list(rewards.shape)}, got {list(x.shape)}")
    steps, n = rewards.shape
    out = empty((steps, n))
    tensors = [x.detach().contiguous() for x in (rewards, values, next_values, terminated, truncated)]
    launch(kernels.generalized_advantages, (out, *tensors), (steps, n, gamma, gae_lambda))
    return out


def discounted_returns(rewards: Any, terminated: Any, truncated: Any, gamma: float, next_values: Any = None) -> Any:
    """The discounted sum of rewards from each step to the end of its episode, (steps, n).

    An episode that is truncated, or not over in the last step, is worth ``next_values`` after that, or nothing without them.
    """
    zeros = rewards * 0.0
    return generalized_advantages(
        rewards, zeros, zeros if next_values is None else _at_ends(next_values, truncated), terminated, truncated, gamma, 1.0
    )


def normalized(x: Any, weights: Any = None) -> Any:
    """Values (n,) shifted and scaled to mean 0 and standard deviation 1, over those with weight 1 where there are weights of 0 or 1.

    A single value stays as it is.
    """
    if x.shape[0] == 1:
        return x
    if weights is None:
        return (x - x.mean()) / (x.std() + 1e-8)
    count = weights.sum()
    centred = x - (x * weights).sum() / count.clamp(min=1.0)
    variance = (centred**2 * weights).sum() / (count - 1.0).clamp(min=1.0)
    return centred / (variance.sqrt() + 1e-8)


def _at_ends(next_values: Any, truncated: Any) -> Any:
    """The values that count: where an episode is cut off, and after the last step; elsewhere the sum goes on by itself."""
    counted = next_values * truncated.float()
    last = truncated.shape[0] - 1
    counted[last] = next_values[last]
    return counted
