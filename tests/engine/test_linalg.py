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
        return [
            rl.linalg.inv(square),
            rl.linalg.det(square),
            rl.linalg.cholesky(square),
            *rl.linalg.svd(a),
            *rl.linalg.qr(a),
            *rl.linalg.eigh(square),
            rl.linalg.pinv(a),
        ]

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
        (lambda: rl.linalg.qr(rl.ones(3, 2).requires_grad_(), "complete"), "has no gradient: use mode='reduced'"),
        (lambda: rl.linalg.qr(rl.ones(3, 3).requires_grad_(), "r"), "has no gradient: use mode='reduced'"),
        (lambda: rl.linalg.qr(rl.ones(3, 3).requires_grad_()).R.sum().backward(), "singular"),
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


def test_the_logarithm_of_a_determinant_that_float32_cannot_hold():
    sign, logarithm = rl.linalg.slogdet(-0.1 * rl.eye(51))
    assert sign.item() == -1.0
    np.testing.assert_allclose(logarithm.item(), -51 * np.log(10), rtol=1e-6)
    assert [part.item() for part in rl.linalg.slogdet(rl.ones(3, 3))] == [0.0, -np.inf]
    assert [rl.logdet(x).item() for x in (rl.zeros(2, 2), -rl.eye(2), rl.eye(2))] == [-np.inf, 0.0, 0.0]
    assert np.isnan(rl.diag(rl.tensor([1.0, -1.0])).logdet().item())


def test_gradients_at_repeated_singular_values_and_eigenvalues_are_those_of_pytorch():
    """The values have a gradient there, the vectors do not. A singular value of 0 is not a repetition."""
    a = rl.eye(3).requires_grad_()
    for values in (
        rl.linalg.svdvals,
        rl.linalg.eigvalsh,
        lambda x: rl.linalg.svd(x).S,
        lambda x: rl.linalg.matrix_norm(x, "nuc"),
    ):
        assert rl.autograd.grad(values(a).sum(), a)[0].equal(rl.eye(3))
    for vectors in (lambda x: rl.linalg.svd(x).U, lambda x: rl.linalg.svd(x).Vh, lambda x: rl.linalg.eigh(x).eigenvectors):
        assert rl.autograd.grad(vectors(a).sum(), a)[0].isnan().all()
    a = rl.diag(rl.tensor([3.0, 2.0, 0.0])).requires_grad_()
    gradient = rl.autograd.grad((rl.linalg.svd(a).U * rl.tensor([1.0, 2.0, 3.0])).sum(), a)[0]
    expected = [[0.0, -0.4, 0.0], [-0.6, 0.0, 0.0], [-0.6667, -0.5, 0.0]]
    assert_close(gradient.abs().numpy(), np.abs(expected), relative=1e-4)  # as PyTorch; signs of U are a choice


def test_columns_beyond_the_rank_of_a_full_decomposition_get_no_gradient():
    a = rl.tensor(drawn((4, 2))).requires_grad_()
    assert not rl.autograd.grad(rl.linalg.svd(a).U[:, 2:].sum(), a)[0].any()


@pytest.mark.parametrize("upper", [False, True])
def test_eigh_reads_one_triangle(upper):
    a = drawn((2, 4, 4))
    symmetric = np.triu(a) + np.triu(a, 1).swapaxes(-1, -2) if upper else np.tril(a) + np.tril(a, -1).swapaxes(-1, -2)
    values, vectors = rl.linalg.eigh(rl.tensor(a), "U" if upper else "L")
    assert_close(values.numpy(), np.linalg.eigvalsh(symmetric))
    assert_close((vectors * values.unsqueeze(-2) @ vectors.mT).numpy(), symmetric)
    is_orthonormal(vectors)
    for odd in (rl.zeros(3, 3), rl.ones(3, 3), rl.diag(rl.tensor([1e-18, 1e18, -1.0]))):
        values, vectors = rl.linalg.eigh(odd)
        assert_close(values.numpy(), np.linalg.eigvalsh(odd.numpy().astype(np.float64)).astype(np.float32))
        is_orthonormal(vectors)
    assert rl.linalg.eigvalsh(rl.full((2, 2), float("nan"))).isnan().all()
    with pytest.raises(ValueError, match="UPLO"):
        rl.linalg.eigh(rl.eye(2), "X")


def test_ranks_and_least_squares_of_matrices_without_full_rank():
    a = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0]).astype(np.float32)
    b = drawn((4, 2))
    solution, residuals, rank, values = rl.linalg.lstsq(rl.tensor(a), rl.tensor(b), driver="gelsd")
    expected = np.linalg.lstsq(a, b)
    assert_close(solution.numpy(), expected[0].astype(np.float32))
    assert (rank.item(), residuals.shape) == (1, (0,))
    assert_close(values.numpy(), expected[3].astype(np.float32))
    assert_close(rl.linalg.pinv(rl.tensor(a)).numpy(), np.linalg.pinv(a))
    assert rl.linalg.matrix_rank(rl.stack([rl.eye(3), rl.ones(3, 3), rl.zeros(3, 3)])).tolist() == [3, 1, 0]
    assert rl.linalg.lstsq(rl.tensor(a), rl.tensor(b[:, 0])).solution.shape == (3,)
    with pytest.raises(ShapeError, match="do not fit"):
        rl.linalg.lstsq(rl.tensor(a), rl.ones(3, 2))


def test_the_older_names_of_torch_are_the_newer_ones():
    a = rl.tensor(drawn((4, 3)))
    u, s, v = rl.svd(a)
    assert (u.shape, v.shape) == ((4, 3), (3, 3))
    assert_close(((u * s) @ v.T).numpy(), a.numpy())
    assert a.svd(some=False).U.shape == (4, 4)
    assert not a.svd(compute_uv=False).U.any()
    assert a.qr(some=False).Q.shape == (4, 4)
    assert_close(a.pinverse().numpy(), np.linalg.pinv(a.numpy()))
    square = a.T @ a
    assert_close((square.inverse() @ square).numpy(), np.eye(3))
    assert square.det().equal(rl.linalg.det(square))
    low = square.cholesky()
    assert_close((square @ rl.ones(3, 1).cholesky_solve(low)).numpy(), np.ones((3, 1)))
    assert rl.matrix_power(square, 0).equal(rl.eye(3))
