"""Linear algebra on matrices (..., n, m): solving, inverses, determinants and factorisations, with the names of torch.linalg."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError, StateError
from rl_lab.engine.kernels import linalg as linalg_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import eye, zeros_like
from rl_lab.engine.ops.diagonals import tril, triu
from rl_lab.engine.ops.gathering import launch_checked
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.operands import broadcast_shape, flat_rule
from rl_lab.engine.ops.reduction import norm as plain_norm
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients

_EPSILON = 2.0**-23  # between 1 and the next float32


class QR(NamedTuple):
    """Q with orthonormal columns, and R upper triangular."""

    Q: Tensor
    R: Tensor


class Eigh(NamedTuple):
    """Eigenvalues in ascending order, and eigenvectors in columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SignedLogarithm(NamedTuple):
    """Signs and logarithms of the magnitudes of determinants."""

    sign: Tensor
    logabsdet: Tensor


class LeastSquares(NamedTuple):
    """What `lstsq` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class SVD(NamedTuple):
    """U, the singular values in descending order, and V transposed."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def _matrices(name: str, x: Tensor, square: bool = False) -> Tensor:
    """The matrices, contiguous and off the tape. Raises DtypeError or ShapeError if x is none."""
    if x.dtype is not float32:
        raise DtypeError(f"linalg.{name} takes float32, got {x.dtype.name}: convert with .float() first")
    if len(x.sizes) < 2 or (square and x.sizes[-1] != x.sizes[-2]):
        what = "square matrices (..., n, n)" if square else "matrices (..., n, m)"
        raise ShapeError(f"linalg.{name} takes {what}, got shape {list(x.sizes)}")
    with tape.no_grad():
        return x.contiguous()


def _refuse_gradient(name: str, x: Tensor, instead: str) -> None:
    if tape.modes.grad and x.requires_grad:
        raise StateError(f"linalg.{name} has no gradient: {instead}, or call it under no_grad or on x.detach()")


# --- solving ---------------------------------------------------------------------------------------------------------


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B, or X A = B with ``left`` False, for A (..., n, n) and B (..., n, m) or a vector (n,) for each matrix.

    Raises StateError (a RuntimeError) if a matrix is singular, ShapeError or DtypeError for unsuitable arguments.
    """
    if not left:
        return solve(A.transpose(-1, -2), B.transpose(-1, -2)).transpose(-1, -2)
    _matrices("solve", A, square=True)
    vector = len(B.sizes) == 1 or (len(B.sizes) == len(A.sizes) - 1 and B.sizes == A.sizes[:-1])
    right = B.unsqueeze(-1) if vector else B
    if len(right.sizes) < 2 or right.sizes[-2] != A.sizes[-1]:
        raise ShapeError(f"linalg.solve: shapes {list(A.sizes)} and {list(B.sizes)} do not fit")
    batch = broadcast_shape(A.sizes[:-2], right.sizes[:-2])
    out = _solve(A.expand(*batch, *A.sizes[-2:]), right.expand(*batch, *right.sizes[-2:]))
    return out.squeeze(-1) if vector else out


def _solve(a: Tensor, b: Tensor) -> Tensor:
    left, right = _matrices("solve", a, square=True), _matrices("solve", b)
    out = empty(b.sizes)
    launch_checked(linalg_kernels.solve, (out, left, right), (math.prod(a.sizes[:-2]), *b.sizes[-2:]))
    return attach(out, _solve_rule, (a, b), (a, out))


def _solve_rule(g: Tensor, node: Node) -> Gradients:
    a, x = node.saved
    to_b = _solve(a.transpose(-1, -2), g)
    return -matmul(to_b, x.transpose(-1, -2)), to_b


def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices (..., n, n). Raises StateError (a RuntimeError) if a matrix is singular."""
    _matrices("inv", A, square=True)
    return _solve(A, eye(A.sizes[-1]).expand(A.sizes))  # `solve` would take n matrices of n rows for n vectors


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with A X = B, or X A = B with ``left`` False, for triangular A (..., n, n) and B (..., n, m).

    Reads the triangle of A given by ``upper``; with ``unitriangular`` its diagonal counts as 1. Raises StateError (a RuntimeError) if a
    matrix is singular, ShapeError or DtypeError for unsuitable arguments.
    """
    _matrices("solve_triangular", A, square=True)
    _matrices("solve_triangular", B)
    place = 1 if unitriangular else 0
    part = triu(A, place) if upper else tril(A, -place)
    return solve(part + eye(A.sizes[-1]) if unitriangular else part, B, left=left)


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The product of n matrices A (..., m, m), of the inverse of A if n is negative, and the identity if n is 0."""
    _matrices("matrix_power", A, square=True)
    if n < 0:
        return matrix_power(inv(A), -n)
    result: Tensor | None = None
    power = A
    while n:
        if n % 2:
            result = power if result is None else matmul(result, power)
        n //= 2
        power = matmul(power, power) if n else power
    if result is None:
        return attach(eye(A.sizes[-1]).expand(A.sizes).clone(), flat_rule, (A,), context=(A.sizes,))
    return result


def det(A: Tensor) -> Tensor:
    """The determinants (...) of square matrices (..., n, n). The gradient of a singular matrix raises StateError."""
    source = _matrices("det", A, square=True)
    out = empty(A.sizes[:-2])
    launch(linalg_kernels.det, (out, source), (math.prod(A.sizes[:-2]), A.sizes[-1]))
    return attach(out, _det_rule, (A,), (A, out))


def _det_rule(g: Tensor, node: Node) -> Gradients:
    a, value = node.saved
    return (inv(a).transpose(-1, -2) * (g * value).unsqueeze(-1).unsqueeze(-1),)


def slogdet(A: Tensor) -> SignedLogarithm:
    """(sign, logarithm of the magnitude) of the determinants of A (..., n, n), 0 and -inf of a singular matrix.

    The gradient of a singular matrix raises StateError.
    """
    source = _matrices("slogdet", A, square=True)
    sign, logarithm = empty(A.sizes[:-2]), empty(A.sizes[:-2])
    launch(linalg_kernels.slogdet, (sign, logarithm, source), (math.prod(A.sizes[:-2]), A.sizes[-1]))
    attach(sign, flat_rule, (A,), context=(A.sizes,))
    return SignedLogarithm(sign, attach(logarithm, _slogdet_rule, (A,), (A,)))


def _slogdet_rule(g: Tensor, node: Node) -> Gradients:
    (a,) = node.saved
    return (inv(a).transpose(-1, -2) * g.unsqueeze(-1).unsqueeze(-1),)


# --- factorisations --------------------------------------------------------------------------------------------------


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """Lower triangular L with L L^T = A, for positive definite A (..., n, n), of which the lower triangle is read; L^T with ``upper``.

    Raises StateError (a RuntimeError) if a matrix is not positive definite.
    """
    source = _matrices("cholesky", A, square=True)
    out = empty(A.sizes)
    launch_checked(linalg_kernels.cholesky, (out, source), (math.prod(A.sizes[:-2]), A.sizes[-1]))
    out = attach(out, _cholesky_rule, (A,), (out,))
    return out.transpose(-1, -2) if upper else out


def _cholesky_rule(g: Tensor, node: Node) -> Gradients:
    """Murray 2016, "Differentiation of the Cholesky decomposition", equation 10."""
    (low,) = node.saved
    inner = tril(matmul(low.transpose(-1, -2), g))
    inner = inner - 0.5 * inner * eye(low.sizes[-1])
    inner = inner + inner.transpose(-1, -2)
    outer = _solve(low.transpose(-1, -2), inner)
    return (0.5 * _solve(low.transpose(-1, -2), outer.transpose(-1, -2)),)


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """Q (..., n, k) with orthonormal columns and upper triangular R (..., k, m) with Q R = A (..., n, m).

    k is min(n, m), or n with ``mode`` "complete". ``mode`` "r" computes R alone, reduced, and an empty Q. As in PyTorch, there is no
    gradient with ``mode`` "r", nor with "complete" if n > m. Raises StateError if A requires such a gradient, ValueError for another
    mode. The gradient of a matrix whose first min(n, m) columns are linearly dependent raises StateError.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"linalg.qr takes the modes 'reduced', 'complete' and 'r', got {mode!r}")
    source = _matrices("qr", A)
    n, m = A.sizes[-2:]
    if mode == "r":
        _refuse_gradient("qr with mode='r'", A, "use mode='reduced'")
    elif mode == "complete" and n > m:
        _refuse_gradient("qr with mode='complete' of more rows than columns", A, "use mode='reduced'")
    k = n if mode == "complete" else min(n, m)
    q = empty((*A.sizes[:-1], k))
    r = empty((*A.sizes[:-2], k, m))
    launch(linalg_kernels.qr, (q, r, source), (math.prod(A.sizes[:-2]), n, m, k))
    if mode == "r":
        return QR(empty((0,)), r)
    saved = (A, q.detach(), r.detach())
    return QR(attach(q, _qr_q_rule, (A,), saved), attach(r, _qr_r_rule, (A,), saved))


def _factors(node: Node, again: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The factors that a rule needs. If the gradient is itself differentiated, compute them again from the matrix, on the tape.

    A node that saved factors which are on the tape would be part of a reference cycle.
    """
    matrix, *factors = node.saved
    return again(matrix) if tape.modes.grad and matrix.requires_grad else tuple(factors)


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _qr_q_rule(g: Tensor, node: Node) -> Gradients:
    q, r = _factors(node, qr)
    k = q.sizes[-1]
    gradient = _square_part(q, r[..., :k], g, -matmul(_transposed(q), g))
    return (gradient if r.sizes[-1] == k else cat([gradient, zeros_like(r[..., k:])], -1),)


def _qr_r_rule(g: Tensor, node: Node) -> Gradients:
    """For A = [X, Y] with X = Q U and Y = Q V, R is [U, V]. The gradient of V = Q^T Y goes to Y and to Q."""
    q, r = _factors(node, qr)
    k = q.sizes[-1]
    if r.sizes[-1] == k:
        return (_square_part(q, r, None, matmul(g, _transposed(r))),)
    left, right = r[..., :k], r[..., k:]
    to_left, to_right = g[..., :k], g[..., k:]
    to_q = matmul(q, matmul(right, _transposed(to_right)))
    inner = matmul(to_left, _transposed(left)) - matmul(_transposed(q), to_q)
    return (cat([_square_part(q, left, to_q, inner), matmul(q, to_right)], -1),)


def _square_part(q: Tensor, r: Tensor, to_q: Tensor | None, inner: Tensor) -> Tensor:
    """The gradient of X = Q R, with square R, from the gradient of Q and ``inner``, the gradient of R times R^T minus Q^T times that of Q.

    Source: Walter and Lehmann 2012, "Algorithmic differentiation of linear algebra functions with application in optimum design".
    """
    upper = triu(inner)
    total = matmul(q, upper + _transposed(upper) - upper * eye(q.sizes[-1]))
    return _transposed(_solve(r, _transposed(total if to_q is None else total + to_q)))


def svd(A: Tensor, full_matrices: bool = True) -> SVD:
    """U, S and V^T with U diag(S) V^T = A (..., n, m), and S descending.

    U is (..., n, n) and V^T (..., m, m), or without ``full_matrices`` (..., n, k) and (..., k, m), k = min(n, m). As in PyTorch, the
    columns beyond the first k get no gradient, and the gradient of U and V is NaN where singular values repeat; `svdvals` has one.
    """
    _matrices("svd", A)
    n, m = A.sizes[-2:]
    if n < m:
        u, s, vh = svd(_transposed(A), full_matrices)
        return SVD(_transposed(vh), s, _transposed(u))
    source = _matrices("svd", A)
    u = empty(A.sizes)
    s = empty((*A.sizes[:-2], m))
    v = empty((*A.sizes[:-2], m, m))
    launch(linalg_kernels.svd, (u, s, v, source), (math.prod(A.sizes[:-2]), n, m))
    saved = (A, u.detach(), s.detach(), v.detach())
    rest = qr(saved[1], "complete").Q[..., m:] if full_matrices and n > m else None
    u = attach(u, _svd_u_rule, (A,), saved)
    s = attach(s, _svd_s_rule, (A,), saved)
    v = attach(v, _svd_v_rule, (A,), saved)
    return SVD(u if rest is None else cat([u, rest], -1), s, _transposed(v))


def _thin(A: Tensor) -> tuple[Tensor, ...]:
    u, s, vh = svd(A, full_matrices=False)
    return u, s, _transposed(vh)


def _skew(x: Tensor) -> Tensor:
    return x - _transposed(x)


def _gaps(s: Tensor) -> Tensor:
    """s_j - s_i at (i, j), and 1 on the diagonal."""
    return s.unsqueeze(-2) - s.unsqueeze(-1) + eye(s.sizes[-1])


def _svd_s_rule(g: Tensor, node: Node) -> Gradients:
    u, _, v = _factors(node, _thin)
    return (matmul(u * g.unsqueeze(-2), _transposed(v)),)


def _svd_u_rule(g: Tensor, node: Node) -> Gradients:
    """Giles 2008, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation"."""
    u, s, v = _factors(node, _thin)
    inner = _skew(matmul(_transposed(u), g)) / _gaps(s * s) * s.unsqueeze(-2)
    total = matmul(u, inner)
    if u.sizes[-2] > u.sizes[-1]:
        outside = g / s.unsqueeze(-2)
        total = total + outside - matmul(u, matmul(_transposed(u), outside))
    return (matmul(total, _transposed(v)),)


def _svd_v_rule(g: Tensor, node: Node) -> Gradients:
    u, s, v = _factors(node, _thin)
    inner = s.unsqueeze(-1) * (_skew(matmul(_transposed(v), g)) / _gaps(s * s))
    return (matmul(matmul(u, inner), _transposed(v)),)


def svdvals(A: Tensor) -> Tensor:
    """The singular values of A (..., n, m), descending, (..., min(n, m))."""
    return svd(A, full_matrices=False).S


def eigh(A: Tensor, UPLO: str = "L") -> Eigh:
    """Eigenvalues (..., n), ascending, and eigenvectors (..., n, n), in columns, of symmetric A (..., n, n).

    Reads the lower triangle of A, or the upper one with ``UPLO`` "U". As in PyTorch, the gradient is the one of a symmetric matrix, and
    the gradient of the eigenvectors is NaN where eigenvalues repeat; `eigvalsh` has one.
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError(f"linalg.eigh takes UPLO 'L' or 'U', got {UPLO!r}")
    source = _matrices("eigh", A, square=True)
    values = empty(A.sizes[:-1])
    vectors = empty(A.sizes)
    upper = UPLO.upper() == "U"
    launch(linalg_kernels.eigh, (values, vectors, source), (math.prod(A.sizes[:-2]), A.sizes[-1], int(upper)))
    saved = (A, values.detach(), vectors.detach())
    rules = (_eigh_values_rule, _eigh_vectors_rule)
    return Eigh(*[attach(x, rule, (A,), saved, upper) for x, rule in zip((values, vectors), rules, strict=True)])


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric A (..., n, n), ascending, (..., n)."""
    return eigh(A, UPLO).eigenvalues


def _eigh_values_rule(g: Tensor, node: Node) -> Gradients:
    _, vectors = _factors(node, lambda a: eigh(a, "U" if node.context else "L"))
    return (matmul(vectors * g.unsqueeze(-2), _transposed(vectors)),)


def _eigh_vectors_rule(g: Tensor, node: Node) -> Gradients:
    values, vectors = _factors(node, lambda a: eigh(a, "U" if node.context else "L"))
    inner = 0.5 * _skew(matmul(_transposed(vectors), g)) / _gaps(values)
    return (matmul(matmul(vectors, inner), _transposed(vectors)),)


Tolerance = float | Tensor | None


def _counted(s: Tensor, largest_size: int, atol: Tolerance, rtol: Tolerance) -> Tensor:
    """Which singular values (..., k) count: those above ``atol`` and above ``rtol`` times the largest one."""
    relative: float | Tensor = 0.0 if atol is not None else _EPSILON * largest_size
    if rtol is not None:
        relative = rtol.unsqueeze(-1) if isinstance(rtol, Tensor) else rtol
    absolute = atol.unsqueeze(-1) if isinstance(atol, Tensor) else atol or 0.0
    return (s > s[..., :1] * relative) & (s > absolute)


def _symmetric(A: Tensor) -> Tensor:
    """The symmetric matrices with the lower triangles of A."""
    return tril(A) + _transposed(tril(A, -1))


def pinv(A: Tensor, *, atol: Tolerance = None, rtol: Tolerance = None, hermitian: bool = False) -> Tensor:
    """The pseudoinverses (..., m, n) of A (..., n, m) (Moore, Penrose).

    Singular values up to ``atol``, or up to ``rtol`` times the largest one, count as 0; the default is ``rtol`` = max(n, m) times the
    precision of float32. With ``hermitian`` A must be symmetric, and its lower triangle is read.
    """
    with tape.no_grad():
        u, s, v = _thin(_symmetric(A) if hermitian else A)
        kept = _counted(s, max(A.sizes[-2:]), atol, rtol)
        out = matmul(v * (1.0 / s).where(kept, 0.0).unsqueeze(-2), _transposed(u))
    return attach(out, _pinv_rule, (A,), (A, out))


def _pinv_rule(g: Tensor, node: Node) -> Gradients:
    """Golub and Pereyra 1973, "The differentiation of pseudo-inverses and nonlinear least squares problems", equation 4.12."""
    a, p = node.saved
    gt, pt = _transposed(g), _transposed(p)
    left = matmul(gt, matmul(p, pt))
    right = matmul(matmul(pt, p), gt)
    return (left - matmul(a, matmul(p, left)) + right - matmul(matmul(right, p), a) - matmul(pt, matmul(g, pt)),)


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares:
    """The least squares solution X (..., m, k) of A X = B for A (..., n, m) and B (..., n, k) or a vector (n,), of least norm.

    ``driver`` is a name of LAPACK, "gelsy" by default. As in PyTorch, it only selects what is returned beside the solution; the rest is
    empty. "gels" returns the sums of squared residuals (..., k), if n > m and the rank is m; "gelsy" the rank; "gelsd" and "gelss" these
    two and the singular values. ``rcond`` is `pinv`'s ``rtol``. Raises ValueError for another driver, ShapeError or DtypeError
    for unsuitable arguments.
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ValueError(f"linalg.lstsq takes the drivers 'gels', 'gelsy', 'gelsd' and 'gelss', got {driver!r}")
    vector = len(B.sizes) == 1 or (len(B.sizes) == len(A.sizes) - 1 and B.sizes == A.sizes[:-1])
    right = B.unsqueeze(-1) if vector else B
    _matrices("lstsq", A)
    n, m = A.sizes[-2:]
    if len(right.sizes) < 2 or right.sizes[-2] != n:
        raise ShapeError(f"linalg.lstsq: shapes {list(A.sizes)} and {list(B.sizes)} do not fit")
    solution = matmul(pinv(A, rtol=rcond), right)
    nothing = empty((0,))
    rank = empty((0,), int64) if driver == "gels" else matrix_rank(A, rtol=rcond)
    values = svdvals(A.detach()) if driver in ("gelsd", "gelss") else nothing
    residuals = nothing
    if driver not in (None, "gelsy") and n > m and (driver == "gels" or bool((rank == m).all())):
        residuals = ((right - matmul(A, solution)) ** 2.0).sum(-2)
    return LeastSquares(solution.squeeze(-1) if vector else solution, residuals, rank, values)


def matrix_rank(A: Tensor, *, atol: Tolerance = None, rtol: Tolerance = None, hermitian: bool = False) -> Tensor:
    """The ranks (...) of A (..., n, m), int64: how many singular values count, as in `pinv`."""
    with tape.no_grad():
        s = svdvals(_symmetric(A) if hermitian else A)
        return _counted(s, max(A.sizes[-2:]), atol, rtol).sum(-1)


# --- norms -----------------------------------------------------------------------------------------------------------


def vector_norm(x: Tensor, ord: float = 2, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The norm of order ``ord`` of all elements as one vector, or along the dimensions ``dim``."""
    return plain_norm(x, float(ord), dim, keepdim)


def matrix_norm(A: Tensor, ord: float | str = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False) -> Tensor:
    """The norm of matrices (..., n, m).

    ``ord`` is "fro" (Frobenius), "nuc" (the sum of the singular values), 2 or -2 (the largest or smallest singular value), 1 or -1
    (extreme sums of magnitudes of columns), inf or -inf (of rows). Raises ValueError for another order.
    """
    if len(dim) != 2:
        raise ShapeError(f"linalg.matrix_norm takes two dimensions, got {list(dim)}")
    rows, columns = (d % len(A.sizes) for d in dim)
    if ord == "fro":
        return plain_norm(A, 2, (rows, columns), keepdim)
    if ord in (2, -2, "nuc"):
        values = svdvals(A.movedim((rows, columns), (-2, -1)))
        result = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
        return result.unsqueeze(min(rows, columns)).unsqueeze(max(rows, columns)) if keepdim else result
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(f"linalg.matrix_norm takes the orders 'fro', 'nuc', 1, -1, 2, -2, inf and -inf, got {ord!r}")
    summed, other = (rows, columns) if abs(float(ord)) == 1 else (columns, rows)
    sums = A.abs().sum(summed, keepdim=True)
    result = sums.amax(other, keepdim=True) if float(ord) > 0 else sums.amin(other, keepdim=True)
    return result if keepdim else result.squeeze(max(rows, columns)).squeeze(min(rows, columns))


def norm(A: Tensor, ord: float | str | None = None, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The norm of vectors or matrices: of all elements as one vector if neither ``ord`` nor ``dim`` is given.

    One dimension in ``dim``, or a vector A, gives the vector norm of order ``ord``. Two dimensions, or a matrix A, give the matrix
    norm, see `matrix_norm`. Raises ValueError for an order that does not exist.
    """
    if ord is None:
        return plain_norm(A, 2, dim, keepdim)
    dims = tuple(range(len(A.sizes))) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) == 1:
        if isinstance(ord, str):
            raise ValueError(
                f"linalg.norm takes a number as the order of a vector norm, got {ord!r}: give two dimensions or a matrix"
            )
        return plain_norm(A, float(ord), dims[0], keepdim)
    if len(dims) != 2:
        raise ShapeError(f"linalg.norm takes one or two dimensions with ord={ord!r}, got {list(dims)}")
    return matrix_norm(A, ord, (dims[0], dims[1]), keepdim)


def cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition numbers of A (..., n, m): the largest singular value over the smallest one, or over the largest with ``p`` -2.

    Another ``p`` is the order of `matrix_norm`: the norm of A times the norm of its inverse, inf for a singular matrix.
    """
    if p in (None, 2, -2):
        values = svdvals(A)
        large, small = values[..., 0], values[..., -1]
        return small / large if p == -2 else large / small
    _matrices("cond", A, square=True)
    return matrix_norm(A, p) * matrix_norm(inv(A), p)  # type: ignore[arg-type]


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The dot products along the dimension ``dim`` of tensors that broadcast."""
    return (x * y).sum(dim)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices, of which the first and the last may be vectors, in the order of the fewest operations.

    Raises ShapeError for fewer than two tensors or shapes that do not fit.
    """
    factors = list(tensors)
    if len(factors) < 2 or any(x.dim() != 2 for x in factors[1:-1]) or any(x.dim() not in (1, 2) for x in factors):
        raise ShapeError(f"multi_dot takes two or more matrices, got shapes {[list(x.sizes) for x in factors]}")
    first, last = factors[0].dim() == 1, factors[-1].dim() == 1
    factors[0] = factors[0].unsqueeze(0) if first else factors[0]
    factors[-1] = factors[-1].unsqueeze(1) if last else factors[-1]
    sizes = [x.sizes[0] for x in factors] + [factors[-1].sizes[1]]
    best = {(i, i): (0, i) for i in range(len(factors))}  # (operations, the last factor of the left product)
    for length in range(1, len(factors)):
        for i in range(len(factors) - length):
            j = i + length
            costs = [(best[i, k][0] + best[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)]
            best[i, j] = min(costs)

    def product(i: int, j: int) -> Tensor:
        return factors[i] if i == j else matmul(product(i, best[i, j][1]), product(best[i, j][1] + 1, j))

    out = product(0, len(factors) - 1)
    out = out.squeeze(0) if first else out
    return out.squeeze(-1) if last else out
