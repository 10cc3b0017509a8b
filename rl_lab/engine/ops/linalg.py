"""Linear algebra on matrices (..., n, m): solving, inverses, determinants and factorisations, with the names of torch.linalg."""

import math
from typing import NamedTuple

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import DtypeError, ShapeError, StateError
from rl_lab.engine.kernels import linalg as linalg_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import eye
from rl_lab.engine.ops.diagonals import diagonal, tril
from rl_lab.engine.ops.gathering import launch_checked
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.engine.ops.reduction import norm as plain_norm
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients


class QR(NamedTuple):
    """Q with orthonormal columns, and R upper triangular."""

    Q: Tensor
    R: Tensor


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


def _refuse_gradient(name: str, x: Tensor) -> None:
    if tape.modes.grad and x.requires_grad:
        raise StateError(f"linalg.{name} has no gradient here: call it under no_grad, or on x.detach()")


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


def det(A: Tensor) -> Tensor:
    """The determinants (...) of square matrices (..., n, n). The gradient of a singular matrix raises StateError."""
    source = _matrices("det", A, square=True)
    out = empty(A.sizes[:-2])
    launch(linalg_kernels.det, (out, source), (math.prod(A.sizes[:-2]), A.sizes[-1]))
    return attach(out, _det_rule, (A,), (A, out))


def _det_rule(g: Tensor, node: Node) -> Gradients:
    a, value = node.saved
    return (inv(a).transpose(-1, -2) * (g * value).unsqueeze(-1).unsqueeze(-1),)


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
    """Q (..., n, k) with orthonormal columns and upper triangular R (..., k, m) with Q R = A (..., n, m); no gradient.

    k is min(n, m), or n with ``mode`` "complete". Raises StateError if A requires a gradient, ValueError for another mode.
    """
    if mode not in ("reduced", "complete"):
        raise ValueError(f"linalg.qr takes the modes 'reduced' and 'complete', got {mode!r}")
    _refuse_gradient("qr", A)
    source = _matrices("qr", A)
    n, m = A.sizes[-2:]
    k = n if mode == "complete" else min(n, m)
    q = empty((*A.sizes[:-1], k))
    r = empty((*A.sizes[:-2], k, m))
    launch(linalg_kernels.qr, (q, r, source), (math.prod(A.sizes[:-2]), n, m, k))
    return QR(q, r)


def svd(A: Tensor, full_matrices: bool = True) -> SVD:
    """U, S and V^T with U diag(S) V^T = A (..., n, m), and S descending; no gradient.

    U is (..., n, n) and V^T (..., m, m), or without ``full_matrices`` (..., n, k) and (..., k, m), k = min(n, m). Raises StateError
    if A requires a gradient.
    """
    _refuse_gradient("svd", A)
    _matrices("svd", A)
    n, m = A.sizes[-2:]
    if n < m:
        u, s, vh = svd(A.transpose(-1, -2), full_matrices)
        return SVD(vh.transpose(-1, -2), s, u.transpose(-1, -2))
    source = _matrices("svd", A)
    u = empty(A.sizes)
    s = empty((*A.sizes[:-2], m))
    v = empty((*A.sizes[:-2], m, m))
    launch(linalg_kernels.svd, (u, s, v, source), (math.prod(A.sizes[:-2]), n, m))
    if full_matrices and n > m:
        u = cat([u, qr(u, "complete").Q[..., m:]], -1)
    return SVD(u, s, v.transpose(-1, -2))


def svdvals(A: Tensor) -> Tensor:
    """The singular values of A (..., n, m), descending; no gradient."""
    return svd(A, full_matrices=False).S


def norm(A: Tensor, ord: float | str | None = None, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The norm of vectors or matrices: of all elements as one vector if neither ``ord`` nor ``dim`` is given.

    One dimension in ``dim``, or a vector A, gives the vector norm of order ``ord``. Two dimensions, or a matrix A, give the matrix
    norm "fro", or 1, -1, inf or -inf: extreme sums of magnitudes of columns or rows. Raises ValueError for another order.
    """
    if ord is None:
        return plain_norm(A, 2, dim, keepdim)
    dims = tuple(range(len(A.sizes))) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) == 1:
        return plain_norm(A, float(ord), dims[0], keepdim)
    if len(dims) != 2:
        raise ShapeError(f"linalg.norm takes one or two dimensions with ord={ord!r}, got {list(dims)}")
    rows, columns = (d % len(A.sizes) for d in dims)
    if ord == "fro":
        return plain_norm(A, 2, (rows, columns), keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(
            f"linalg.norm of matrices takes the orders 'fro', 1, -1, inf and -inf, got {ord!r}: see linalg.svdvals"
        )
    summed, other = (rows, columns) if abs(float(ord)) == 1 else (columns, rows)
    sums = A.abs().sum(summed, keepdim=True)
    result = sums.amax(other, keepdim=True) if float(ord) > 0 else sums.amin(other, keepdim=True)
    return result if keepdim else result.squeeze(max(rows, columns)).squeeze(min(rows, columns))


def slogdet(A: Tensor) -> tuple[Tensor, Tensor]:
    """(sign, logarithm of the magnitude) of the determinants of A (..., n, n). Raises StateError if A requires a gradient."""
    _refuse_gradient("slogdet", A)
    value = qr(A).R
    diagonals = diagonal(value, dim1=-2, dim2=-1)
    return det(A).sign(), diagonals.abs().log().sum(-1)
