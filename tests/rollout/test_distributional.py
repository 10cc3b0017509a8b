"""Losses on distributions of returns: kernels against compositions of tensor operations, and against definitions in NumPy."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
from rl_lab.rollout.distributional import project, quantile_huber_loss, without_largest


def by_definition(quantiles: np.ndarray, targets: np.ndarray, kappa: float) -> tuple[float, np.ndarray]:
    """The quantile Huber loss and its gradient in float64, from Dabney et al. 2018, equations 9 and 10."""
    batch, n = quantiles.shape
    loss = 0.0
    gradient = np.zeros((batch, n))
    for b in range(batch):
        for i in range(n):
            for target in targets[b]:
                u = float(target) - float(quantiles[b, i])
                weight = abs((i + 0.5) / n - (u < 0))
                huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
                share = weight / kappa / targets.shape[1] / batch
                loss += share * huber
                gradient[b, i] -= share * np.clip(u, -kappa, kappa)
    return loss, gradient


@pytest.mark.parametrize(("batch", "n", "m", "kappa"), [(4, 5, 5, 1.0), (3, 17, 46, 0.5), (1, 1, 1, 2.0), (2, 8, 3, 1.0)])
def test_the_quantile_huber_loss_is_that_of_the_definition(batch, n, m, kappa):
    random = np.random.default_rng(n)
    quantiles, targets = (random.normal(scale=2.0, size=(batch, k)).astype(np.float32) for k in (n, m))
    x = rl.tensor(quantiles, requires_grad=True)
    loss = quantile_huber_loss(x, rl.tensor(targets), kappa)
    loss.backward()
    expected, gradient = by_definition(quantiles, targets, kappa)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)


def test_gradients_of_the_targets_and_second_derivatives():
    random = np.random.default_rng(0)
    quantiles, targets = (rl.tensor(random.normal(size=(3, k)).astype(np.float32), requires_grad=True) for k in (4, 6))
    first, of_targets = rl.autograd.grad(quantile_huber_loss(quantiles, targets), [quantiles, targets], create_graph=True)
    assert first.sum().item() == pytest.approx(-of_targets.sum().item(), abs=1e-6)  # the loss depends on differences alone
    (second,) = rl.autograd.grad((first**2).sum(), [quantiles])
    step = 1e-2
    direction = np.zeros((3, 4), np.float32)
    direction[1, 2] = step

    def squared(x: np.ndarray) -> float:
        return float((by_definition(x, targets.detach().numpy(), 1.0)[1] ** 2).sum())

    here = quantiles.detach().numpy()
    slope = (squared(here + direction) - squared(here - direction)) / (2 * step)
    assert second[1, 2].item() == pytest.approx(slope, rel=0.05, abs=1e-4)


def test_a_number_that_is_not_finite_is_not_hidden():
    for broken in ("quantiles", "targets"):
        quantiles, targets = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
        (quantiles if broken == "quantiles" else targets)[1, 1] = np.nan
        x = rl.tensor(quantiles, requires_grad=True)
        loss = quantile_huber_loss(x, rl.tensor(targets))
        loss.backward()
        assert np.isnan(loss.item())
        assert np.isnan(x.grad.numpy()[1]).any()
    assert np.isnan(without_largest(rl.tensor([[1.0, np.nan, 3.0]]), 1).numpy()).any()


@pytest.mark.parametrize("dropped", [0, 1, 4, 9])
def test_the_largest_are_left_out(dropped):
    x = np.random.default_rng(dropped).integers(0, 6, (20, 10)).astype(np.float32)  # with equal numbers
    kept = without_largest(rl.tensor(x), dropped).numpy()
    np.testing.assert_array_equal(np.sort(kept, 1), np.sort(x, 1)[:, : 10 - dropped])


@pytest.mark.parametrize(("n", "low", "high"), [(6, -2.0, 3.0), (51, -10.0, 10.0), (2, 0.0, 1.0)])
def test_projections_share_probability_between_neighbours(n, low, high):
    random = np.random.default_rng(n)
    probabilities = random.dirichlet(np.ones(n), 30)
    rewards = random.normal(scale=high - low, size=30) * (np.arange(30) % 3 > 0)
    rewards[:5] = [low, high, low - 1e6, high + 1e6, low + (high - low) / (n - 1)]
    discounts = np.where(np.arange(30) % 4 == 1, 0.0, random.uniform(0.5, 1.0, 30))
    discounts[4] = 0.0
    given = [x.astype(np.float32) for x in (probabilities, rewards, discounts)]
    found = project(*map(rl.tensor, given), low, high).numpy()
    values = np.linspace(low, high, n)
    shifted = np.clip(given[1][:, None].astype(float) + given[2][:, None] * values, low, high)
    shares = np.clip(1 - np.abs(shifted[:, :, None] - values) / (values[1] - values[0]), 0, None)
    np.testing.assert_allclose(found, (probabilities[:, :, None] * shares).sum(1), atol=2e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)
    inside = (shifted.min(1) > low) & (shifted.max(1) < high)  # without clipping the mean is kept
    means = rewards + discounts * (probabilities @ values)
    np.testing.assert_allclose((found @ values)[inside], means[inside], rtol=1e-4, atol=1e-4)


def test_a_reward_that_is_not_finite_is_not_hidden_by_the_projection():
    found = project(rl.tensor([[0.5, 0.5]] * 2), rl.tensor([1.0, np.nan]), rl.tensor([0.9, 0.9]), -1.0, 1.0).numpy()
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).any()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="probabilities"):
        project(rl.ones(2, 3), rl.zeros(2), rl.zeros(3), 0.0, 1.0)
    with pytest.raises(ShapeError, match="quantiles"):
        quantile_huber_loss(rl.zeros(3, 4), rl.zeros(2, 4))
    for dropped in (-1, 4):
        with pytest.raises(ShapeError, match="of 4 numbers"):
            without_largest(rl.zeros(2, 4), dropped)
