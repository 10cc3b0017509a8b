"""Jacobians, Hessians and their products, against derivatives by hand and by differences."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.autograd import functional as f
from rl_lab.engine.errors import ShapeError, StateError

RNG = np.random.default_rng(0)
X = RNG.normal(size=3).astype(np.float32)
Y = RNG.normal(size=(2, 3)).astype(np.float32)
V = RNG.normal(size=3).astype(np.float32)
W = RNG.normal(size=2).astype(np.float32)
SLOPE = 1 - np.tanh(Y @ X) ** 2


def layer(x, y):
    return (y @ x).tanh()


def test_a_jacobian_has_the_shape_of_output_and_input():
    by_x, by_y = f.jacobian(layer, (rl.tensor(X), rl.tensor(Y)))
    np.testing.assert_allclose(by_x.numpy(), SLOPE[:, None] * Y, atol=1e-6)
    assert by_y.shape == (2, 2, 3)
    np.testing.assert_allclose(by_y.numpy(), SLOPE[:, None, None] * np.eye(2)[:, :, None] * X, atol=1e-6)
    assert not by_x.requires_grad


def test_several_outputs_give_a_tuple_for_each():
    (first, _), (by_x, by_y) = f.jacobian(lambda x, y: (layer(x, y), x.sum()), (rl.tensor(X), rl.tensor(Y)))
    np.testing.assert_allclose(first.numpy(), SLOPE[:, None] * Y, atol=1e-6)
    assert by_x.tolist() == [1.0] * 3
    assert by_y.tolist() == np.zeros((2, 3)).tolist()
    with pytest.raises(StateError, match="does not depend"):
        f.jacobian(lambda x, y: x.sum(), (rl.tensor(X), rl.tensor(Y)), strict=True)


@pytest.mark.parametrize("function", [lambda x: rl.ones(2), lambda x: x[:0]])
def test_what_does_not_depend_on_the_input_has_zeros(function):
    found = f.jacobian(function, rl.tensor(X))
    assert found.tolist() == np.zeros((len(function(rl.tensor(X))), 3)).tolist()


def test_a_hessian_is_that_of_the_formula():
    found = f.hessian(lambda x: (x**3).sum() + x.prod(), rl.tensor(X))
    expected = np.diag(6 * X) + np.array([[0, X[2], X[1]], [X[2], 0, X[0]], [X[1], X[0], 0]])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    (_, mixed), (_, by_y) = f.hessian(lambda x, y: (x * y).sum(), (rl.tensor(X), rl.tensor(V)))
    assert mixed.tolist() == np.eye(3).tolist()
    assert by_y.tolist() == np.zeros((3, 3)).tolist()
    with pytest.raises(ShapeError, match="one element"):
        f.hessian(lambda x: x * x, rl.tensor(X))


def test_products_are_those_with_the_matrices():
    given = (rl.tensor(X), rl.tensor(Y))
    by_x, by_y = (part.numpy() for part in f.jacobian(layer, given))
    outputs, (to_x, to_y) = f.vjp(layer, given, rl.tensor(W))
    np.testing.assert_allclose(outputs.numpy(), np.tanh(Y @ X), atol=1e-6)
    np.testing.assert_allclose(to_x.numpy(), W @ by_x, atol=1e-6)
    np.testing.assert_allclose(to_y.numpy(), np.tensordot(W, by_y, 1), atol=1e-6)
    _, change = f.jvp(layer, given, (rl.tensor(V), rl.tensor(Y)))
    np.testing.assert_allclose(change.numpy(), by_x @ V + (by_y * Y).sum((1, 2)), atol=1e-6)

    def energy(x):
        return (x**2).sum() * x.sin().sum()

    matrix = f.hessian(energy, rl.tensor(X)).numpy()
    for product in (f.vhp, f.hvp):
        value, found = product(energy, rl.tensor(X), rl.tensor(V))
        assert value.item() == pytest.approx(float((X**2).sum() * np.sin(X).sum()), rel=1e-5)
        np.testing.assert_allclose(found.numpy(), matrix @ V, atol=1e-5)


def test_results_can_be_differentiated():
    x = rl.tensor(X, requires_grad=True)
    f.jacobian(lambda z: z**3, x, create_graph=True).diagonal().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * X, rtol=1e-5)


def test_vectors_and_inputs_are_checked():
    with pytest.raises(ShapeError, match="v has the shapes"):
        f.vjp(layer, (rl.tensor(X), rl.tensor(Y)), rl.tensor(V))
    with pytest.raises(ShapeError, match="give the vector v"):
        f.jvp(layer, (rl.tensor(X), rl.tensor(Y)))
    with pytest.raises(TypeError, match="func returned float"):
        f.jacobian(lambda x: 3.0, rl.tensor(X))
    assert f.vjp(lambda x: x * x, rl.tensor(3.0))[1].item() == 6.0
