"""Advantages and returns of rollouts."""

from collections.abc import Callable

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.rollout import kernels


def generalized_advantages(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Compute generalized advantage estimates (Schulman et al. 2016, equation 16); all tensors are (steps, n), the flags bool.

    A_t = d_t + gamma lambda A_{t+1} with d_t = r_t + gamma V(s_{t+1}) - V(s_t). V(s_{t+1}) is 0 after a termination and otherwise
    ``next_values``, the value of the next observation before any reset. The sum ends at a termination, a truncation and the last step.

    Raises ShapeError if the shapes differ.
    """
    for name, x in (("values", values), ("next_values", next_values), ("terminated", terminated), ("truncated", truncated)):
        if x.shape != rewards.shape or x.ndim != 2:
            raise ShapeError(f"{name} must have the rewards' shape (steps, n) = {list(rewards.shape)}, got {list(x.shape)}")
    steps, n = rewards.shape
    out = empty((steps, n))
    tensors = [x.detach().contiguous() for x in (rewards, values, next_values, terminated, truncated)]
    launch(kernels.generalized_advantages, (out, *tensors), (steps, n, gamma, gae_lambda))
    return out


def discounted_returns(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, next_values: Tensor | None = None
) -> Tensor:
    """Compute the discounted sum of rewards from each step to the end of its episode; all tensors are (steps, n), the flags bool.

    The sum of an episode that is truncated, or not over in the last step, is bootstrapped from ``next_values``, if given. Raises
    ShapeError if the shapes differ.
    """
    zeros = rewards * 0.0
    return generalized_advantages(
        rewards, zeros, zeros if next_values is None else _at_ends(next_values, truncated), terminated, truncated, gamma, 1.0
    )


def normalized(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shift and scale values (n,) to mean 0 and standard deviation 1.

    With ``weights`` (n,) of 0 or 1, mean and standard deviation are those of the values with weight 1. A single value is returned
    unchanged.
    """
    if x.shape[0] == 1:
        return x
    if weights is None:
        return (x - x.mean()) / (x.std() + 1e-8)
    count = weights.sum()
    centred = x - (x * weights).sum() / count.clamp(min=1.0)
    variance = (centred**2 * weights).sum() / (count - 1.0).clamp(min=1.0)
    return centred / (variance.sqrt() + 1e-8)


def _at_ends(next_values: Tensor, truncated: Tensor) -> Tensor:
    """Return ``next_values`` where a return is bootstrapped, at truncations and in the last step, and 0 elsewhere."""
    counted = next_values * truncated.float()
    last = truncated.shape[0] - 1
    counted[last] = next_values[last]
    return counted


def following_values(value: Callable[..., Tensor], values: Tensor, rollout: dict[str, Tensor]) -> Tensor:
    """Compute the values (steps, n) of the next observations of a rollout from the ``values`` (steps, n) of its observations.

    ``value`` is a function from observations (batch, ...), and from masks of the allowed actions (batch, actions) if ``rollout`` has
    ``next_action_masks``, to values (batch,). It is called only for the last step and for the ends of
    truncated episodes: any other next observation is the observation of the following step. Results where an episode terminated have
    no meaning. ``rollout`` is the dict returned by `Rollout.tensors`.
    """
    parts = [rollout[name] for name in ("next_observations", "next_action_masks") if name in rollout]
    last = value(*[part[-1] for part in parts]).unsqueeze(0)
    result = cat([values[1:], last], 0) if len(values) > 1 else last
    rows = rollout.get("bootstrap_rows")
    if rows is None:
        return result
    ends = value(*[part.flatten(0, 1).index_select(0, rows) for part in parts])
    return result.flatten().index_copy(0, rows, ends).reshape(*values.shape)
