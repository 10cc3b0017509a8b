"""Factorisations against their definitions, and matrices that have none. `cases_functions.py` has the operations with gradients."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.errors import DtypeError, ShapeError, StateError
from tests.checks import assert_close

SHAPES = [(3, 3), (6, 4), (4, 6), (2, 5, 3), (1, 4), (4, 1)]


def drawn(shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def is_orthonormal(columns) -> None:
    product = (columns.transpose(-1, -2) @ columns).numpy()
    assert_close(product, np.broadcast_to(np.eye(product.shape[-1]), product.shape))


@pytest.mark.parametrize("mode", ["reduced", "complete"])
@pytest.mark.parametrize("shape", SHAPES)
def test_qr(shape, mode):
    a = drawn(shape)
    q, r = rl.linalg.qr(rl.tensor(a), mode)
    expected = np.linalg.qr(a, mode)
    assert q.shape == expected.Q.shape
    assert_close((q @ r).numpy(), a)
    assert_close(r.numpy(), expected.R)
    is_orthonormal(q)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_svd(shape, full):
    a = drawn(shape)
    u, s, vh = rl.linalg.svd(rl.tensor(a), full)
    expected = np.linalg.svd(a, full)
    k = min(shape[-2:])
    assert (u.shape, vh.shape) == (expected.U.shape, expected.Vh.shape)
    assert_close(s.numpy(), expected.S)
    assert_close((u[..., :k] * s.unsqueeze(-2) @ vh[..., :k, :]).numpy(), a)
    is_orthonormal(u)
    is_orthonormal(vh.transpose(-1, -2))


@pytest.mark.parametrize("a", [np.outer([1, 2, 3, 4], [1, 1, 2]), np.zeros((3, 2)), np.diag([1e-20, 1.0, 1e20])])
def test_svd_of_matrices_without_full_rank(a):
    u, s, vh = rl.linalg.svd(rl.tensor(a.astype(np.float32)))
    assert_close(s.numpy(), np.linalg.svd(a)[1].astype(np.float32))
    is_orthonormal(u)
    is_orthonormal(vh.t())


def test_recorded_calls_give_the_same_bits():
    @rl.compile
    def run(a):
        square = a @ a.t() + rl.eye(3)
        return [rl.linalg.inv(square), rl.linalg.det(square), rl.linalg.cholesky(square), *rl.linalg.svd(a), *rl.linalg.qr(a)]

    for seed in range(3):
        a = rl.tensor(drawn((3, 4), seed))
        for recorded, eager in zip(run(a), run._function(a), strict=True):
            assert recorded.numpy().tobytes() == eager.numpy().tobytes()
    assert len(run.programs) == 1


def test_matrices_that_cannot_be_solved_or_factored():
    for call, message in (
        (lambda: rl.linalg.inv(rl.ones(2, 2, 2)), "singular"),
        (lambda: rl.linalg.cholesky(-rl.eye(2)), "not positive definite"),
        (lambda: rl.linalg.cholesky(rl.full((2, 2), float("nan"))), "not positive definite"),
        (lambda: rl.linalg.qr(rl.eye(2).requires_grad_()), "has no gradient here"),
        (lambda: rl.linalg.svd(rl.eye(2).requires_grad_()), "has no gradient here"),
    ):
        with pytest.raises(StateError, match=message):
            call()
    for call in (
        lambda: rl.linalg.det(rl.ones(2, 3)),
        lambda: rl.linalg.solve(rl.eye(3), rl.ones(2, 2)),
        lambda: rl.linalg.qr(rl.ones(3)),
    ):
        with pytest.raises(ShapeError):
            call()
    with pytest.raises(DtypeError):
        rl.linalg.inv(rl.eye(2).long())


def test_a_recorded_inverse_of_a_singular_matrix_raises():
    run = rl.compile(rl.linalg.inv)
    for _ in range(2):
        run(rl.eye(2))
    with pytest.raises(StateError, match="singular"):
        run(rl.zeros(2, 2))
    assert run(2 * rl.eye(2)).tolist() == [[0.5, 0.0], [0.0, 0.5]]


def test_determinants_and_their_logarithms():
    a = drawn((4, 3, 3))
    sign, logarithm = rl.linalg.slogdet(rl.tensor(a))
    expected = np.linalg.slogdet(a)
    assert_close(sign.numpy(), expected[0])
    assert_close(logarithm.numpy(), expected[1])
    assert rl.linalg.det(rl.zeros(0, 0)).item() == 1.0


@pytest.mark.parametrize("n", [2, 3])
def test_as_many_matrices_as_rows(n):
    """A batch of n matrices of n rows is not a batch of vectors."""
    values = np.random.default_rng(n).standard_normal((n, n, n)).astype(np.float32)
    a = rl.from_numpy(values).requires_grad_()
    np.testing.assert_allclose(rl.linalg.inv(a).detach().numpy(), np.linalg.inv(values), rtol=1e-3, atol=1e-4)
    rl.linalg.det(a).sum().backward()
    cofactors = np.linalg.inv(values).transpose(0, 2, 1) * np.linalg.det(values)[:, None, None]
    np.testing.assert_allclose(a.grad.numpy(), cofactors, rtol=1e-3, atol=1e-4)
