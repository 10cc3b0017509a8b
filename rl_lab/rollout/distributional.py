"""Functions of agents that learn the distribution of returns."""

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.operands import differentiate
from rl_lab.engine.tape import Node, attach, modes, no_grad
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients
from rl_lab.rollout import kernels


def quantile_huber_loss(quantiles: Tensor, targets: Tensor, kappa: float = 1.0, reduction: str = "mean") -> Tensor:
    """Compute the quantile Huber loss: the Huber loss of every pair of a quantile and a target, weighted by the quantile's fraction.

    ``quantiles`` (batch, n) estimate the fractions (2 i + 1) / 2 n; ``targets`` is (batch, m). The loss is summed over the quantiles and
    averaged over targets and batch; with ``reduction`` "none" over the targets alone, (batch,). Source: Dabney et al. 2018,
    "Distributional reinforcement learning with quantile regression", equation 10. Raises ShapeError if the shapes do not fit.
    """
    if quantiles.dim() != 2 or targets.dim() != 2 or len(quantiles) != len(targets):
        raise ShapeError(f"quantiles (batch, n) and targets (batch, m) are needed, got {quantiles.shape} and {targets.shape}")
    batch, n = quantiles.shape
    m = targets.shape[1]
    with no_grad():
        x = quantiles.contiguous()
        y = targets.contiguous()
    losses = empty((batch,))
    slopes = empty((batch, n))
    launch(kernels.quantile_huber, (losses, slopes, empty((n,)), empty((n,)), x, y), (batch, n, m, float(kappa)))
    attach(losses, _quantile_huber_rule, (quantiles, targets), (quantiles, targets, slopes), kappa)
    return losses if reduction == "none" else losses.mean()


def _quantile_huber_rule(g: Tensor, node: Node) -> Gradients:
    quantiles, targets, slopes = node.saved
    if modes.grad or node.wants(1):
        return differentiate(lambda x, y: _composed(x, y, node.context), (quantiles, targets), g)
    return g.unsqueeze(1) * slopes, None


def _composed(quantiles: Tensor, targets: Tensor, kappa: float) -> Tensor:
    """The quantile Huber loss of each row from differentiable operations, for second derivatives and for gradients of the targets."""
    n = quantiles.shape[1]
    fractions = (rl.arange(n).float() + 0.5) / n
    differences = targets.unsqueeze(1) - quantiles.unsqueeze(2)  # (batch, n, m)
    size = differences.abs()
    huber = rl.where(size <= kappa, 0.5 * differences**2, kappa * (size - 0.5 * kappa))
    weight = (fractions.unsqueeze(1) - (differences.detach() < 0).float()).abs()
    return (weight * huber / kappa).mean(2).sum(1)


@no_grad()
def without_largest(x: Tensor, dropped: int) -> Tensor:
    """Return all but the ``dropped`` largest numbers of each row of ``x`` (batch, n), in any order, without a gradient.

    Source: Kuznetsov et al. 2020, "Controlling overestimation bias with truncated mixture of continuous distributional quantile critics".
    Raises ShapeError unless ``dropped`` is in [0, n).
    """
    batch, n = x.shape
    if not 0 <= dropped < n:
        raise ShapeError(f"of {n} numbers at least 0 and at most {n - 1} can be left out, got {dropped}")
    out = empty((batch, n - dropped))
    launch(kernels.without_largest, (out, empty((n,)), x.contiguous()), (batch, n, dropped))
    return out


@no_grad()
def project(probabilities: Tensor, rewards: Tensor, discounts: Tensor, low: float, high: float) -> Tensor:
    """Project the distribution of r + discount * z onto the fixed values z of a categorical distribution, without a gradient.

    ``probabilities`` (batch, n) are those of n equally spaced values from ``low`` to ``high``; ``rewards`` and ``discounts`` are (batch,).
    Returns probabilities (batch, n): each shifted value, clipped to [low, high], gives its probability to the two nearest fixed values
    (Bellemare, Dabney and Munos 2017, "A distributional perspective on reinforcement learning", equation 7). Raises ShapeError if the
    shapes do not fit.
    """
    batch, n = probabilities.shape
    if n < 2 or rewards.shape != (batch,) or discounts.shape != (batch,):
        raise ShapeError(
            f"probabilities (batch, n) with n > 1, rewards and discounts (batch,) are needed, got {list(probabilities.shape)}, "
            f"{list(rewards.shape)} and {list(discounts.shape)}"
        )
    out = empty((batch, n))
    given = [x.contiguous() for x in (probabilities, rewards, discounts)]
    launch(kernels.project_categorical, (out, *given), (batch, n, float(low), float(high)))
    return out
