"""Batch renormalisation against its definition in float64 (Ioffe 2017, algorithm 1)."""

import copy

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import ShapeError

EPS = 1e-3


def layer_at(m: int, warmup: int = 0, **changes) -> rl.nn.BatchRenorm1d:
    """A layer with running moments, weights and biases that are not those of the start."""
    random = np.random.default_rng(m)
    layer = rl.nn.BatchRenorm1d(m, EPS, momentum=0.1, warmup=warmup, **changes)
    with rl.no_grad():
        for x in (layer.running_mean, layer.weight, layer.bias):
            x.copy_(rl.tensor(random.normal(size=m).astype(np.float32)))
        layer.running_var.copy_(rl.tensor(random.uniform(0.2, 3.0, m).astype(np.float32)))
    return layer


def by_definition(layer: rl.nn.BatchRenorm1d, x: np.ndarray, r_max: float, d_max: float) -> tuple[np.ndarray, ...]:
    """The output, r and d, in float64."""
    mean, var, weight, bias = (
        t.detach().numpy().astype(float) for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    own = np.sqrt(x.var(0) + EPS)
    known = np.sqrt(var + EPS)
    r = np.clip(own / known, 1 / r_max, r_max)
    d = np.clip((x.mean(0) - mean) / known, -d_max, d_max)
    return ((x - x.mean(0)) / own * r + d) * weight + bias, r, d


@pytest.mark.parametrize(("n", "m", "r_max", "d_max"), [(12, 5, 3.0, 5.0), (7, 33, 1.2, 0.3), (2, 1, 1.0, 0.0)])
def test_training_is_the_definition(n, m, r_max, d_max):
    random = np.random.default_rng(n)
    x = random.normal(0.5, 1.5, (n, m))
    layer = layer_at(m, r_max=r_max, d_max=d_max)
    before = copy.deepcopy(layer)
    expected, r, d = by_definition(before, x, r_max, d_max)
    given = rl.tensor(x.astype(np.float32), requires_grad=True)
    out = layer(given)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    for running, own in (("running_mean", x.mean(0)), ("running_var", x.var(0))):
        moved = getattr(before, running).numpy() * 0.9 + 0.1 * own
        np.testing.assert_allclose(getattr(layer, running).numpy(), moved, rtol=1e-4, atol=1e-5)
    assert layer.num_batches_tracked.item() == 1

    slopes = random.normal(size=(n, m))
    out.backward(rl.tensor(slopes.astype(np.float32)))
    normal = (x - x.mean(0)) / np.sqrt(x.var(0) + EPS)
    np.testing.assert_allclose(layer.bias.grad.numpy(), slopes.sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad.numpy(), (slopes * (normal * r + d)).sum(0), rtol=1e-4, atol=1e-4)
    weight, bias = (p.detach().numpy().astype(float) for p in (before.weight, before.bias))

    def value(y: np.ndarray) -> float:  # r and d are constants for the gradient
        return float((slopes * (((y - y.mean(0)) / np.sqrt(y.var(0) + EPS) * r + d) * weight + bias)).sum())

    gradient = np.zeros((n, m))
    for index in np.ndindex(n, m):
        step = np.zeros((n, m))
        step[index] = 1e-5
        gradient[index] = (value(x + step) - value(x - step)) / 2e-5
    np.testing.assert_allclose(given.grad.numpy(), gradient, rtol=1e-3, atol=1e-3)


def test_it_is_batch_normalisation_until_it_is_warm():
    x = rl.tensor(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype(np.float32))
    layer = layer_at(4, warmup=2)
    plain = rl.nn.BatchNorm1d(4, EPS)
    plain.load_state_dict(layer.state_dict())
    same = []
    for _ in range(3):
        same.append(np.allclose(layer(x).detach().numpy(), plain(x).detach().numpy(), rtol=1e-4, atol=1e-5))
    assert same == [True, True, False]


def test_training_and_evaluation_agree_where_nothing_is_clipped():
    x = rl.tensor(np.random.default_rng(0).normal(0.1, 1.3, (40, 3)).astype(np.float32))
    layer = layer_at(3, r_max=100.0, d_max=100.0)
    other = copy.deepcopy(layer).eval()
    np.testing.assert_allclose(layer(x).detach().numpy(), other(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert other.num_batches_tracked.item() == 0


def test_recorded_training_is_eager_training():
    data = [np.random.default_rng(i).normal(size=(6, 3)).astype(np.float32) for i in range(5)]
    states = []
    for recorded in (False, True):
        layer = layer_at(3, warmup=2)
        optimizer = rl.optim.SGD(layer.parameters(), lr=1e-3)

        def update(x, layer=layer, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (layer(x) ** 3).sum()
            loss.backward()
            optimizer.step()
            return loss

        step = rl.compile(update) if recorded else update
        losses = [step(rl.tensor(x)).item() for x in data]
        states.append((losses, {name: x.numpy().tobytes() for name, x in layer.state_dict().items()}))
    assert states[0] == states[1]


def test_second_derivatives():
    x = rl.tensor(np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32), requires_grad=True)
    layer = layer_at(2)
    twin = copy.deepcopy(layer)
    (first,) = rl.autograd.grad((layer(x) ** 2).sum(), [x], create_graph=True)
    (second,) = rl.autograd.grad((first**2).sum(), [x])
    direction = rl.tensor(np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32))

    def squared(y: rl.Tensor) -> float:
        y = y.detach().requires_grad_()
        (gradient,) = rl.autograd.grad((fixed(twin, y, x.detach()) ** 2).sum(), [y])
        return (gradient**2).sum().item()

    step = 1e-2
    slope = (squared(x + step * direction) - squared(x - step * direction)) / (2 * step)
    assert (second * direction).sum().item() == pytest.approx(slope, rel=0.02)


def fixed(layer: rl.nn.BatchRenorm1d, x: rl.Tensor, origin: rl.Tensor) -> rl.Tensor:
    """The layer's output for ``x`` with the constants r and d of ``origin``, composed of tensor operations."""
    own = (origin.var(0, correction=0) + EPS).sqrt()
    known = (layer.running_var + EPS).sqrt()
    r = (own / known).clamp(1 / layer.r_max, layer.r_max)
    d = ((origin.mean(0) - layer.running_mean) / known).clamp(-layer.d_max, layer.d_max)
    normal = (x - x.mean(0)) / (x.var(0, correction=0) + EPS).sqrt()
    return (normal * r + d) * layer.weight + layer.bias


def test_mistakes_are_named():
    layer = rl.nn.BatchRenorm1d(3)
    for shape in ((4, 2), (3,), (2, 3, 4)):
        with pytest.raises(ShapeError, match="batch_renorm"):
            layer(rl.zeros(*shape))
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(rl.zeros(1, 3))
    assert layer.num_batches_tracked.item() == 0
    with pytest.raises(ValueError, match="r_max"):
        rl.nn.BatchRenorm1d(3, r_max=0.5)
