"""Linear algebra under the names of torch's own namespace and of its tensors, which differ from those of torch.linalg."""

from typing import NamedTuple

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import linalg
from rl_lab.engine.ops.creation import eye, zeros_like
from rl_lab.engine.tensor import Tensor


class OlderSVD(NamedTuple):
    """U, the singular values in descending order, and V, which is not transposed."""

    U: Tensor
    S: Tensor
    V: Tensor


def det(input: Tensor) -> Tensor:
    """`linalg.det`."""
    return linalg.det(input)


def slogdet(input: Tensor) -> linalg.SignedLogarithm:
    """`linalg.slogdet`."""
    return linalg.slogdet(input)


def logdet(input: Tensor) -> Tensor:
    """The logarithms of the determinants of square matrices (..., n, n), NaN for a negative determinant and -inf for 0."""
    sign, logarithm = linalg.slogdet(input)
    return logarithm + sign.log()


def matrix_power(input: Tensor, n: int) -> Tensor:
    """`linalg.matrix_power`."""
    return linalg.matrix_power(input, n)


def inverse(input: Tensor) -> Tensor:
    """`linalg.inv`."""
    return linalg.inv(input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv` with ``rcond`` as ``rtol``."""
    return linalg.pinv(input, rtol=rcond)


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """`linalg.cholesky`."""
    return linalg.cholesky(input, upper=upper)


def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    """X (..., n, k) with L L^T X = input for the lower triangular L = ``input2``, or L^T L with an upper triangular ``input2``."""
    if len(input.sizes) < 2:
        raise ShapeError(f"cholesky_solve takes right sides (..., n, k), got shape {list(input.sizes)}")
    low = input2.transpose(-1, -2) if upper else input2
    below = linalg.solve_triangular(low, input, upper=False)
    return linalg.solve_triangular(low.transpose(-1, -2), below, upper=True)


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of L L^T for the lower triangular L = input, or of L^T L with an upper triangular one."""
    return cholesky_solve(eye(input.sizes[-1]).expand(input.sizes), input, upper)


def qr(input: Tensor, some: bool = True) -> linalg.QR:
    """`linalg.qr`, reduced, or complete without ``some``."""
    return linalg.qr(input, "reduced" if some else "complete")


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> OlderSVD:
    """`linalg.svd` with V instead of its transpose; complete without ``some``, and with U and V zero without ``compute_uv``."""
    u, s, vh = linalg.svd(input, full_matrices=not some)
    v = vh.transpose(-1, -2)
    return OlderSVD(u, s, v) if compute_uv else OlderSVD(zeros_like(u), s, zeros_like(v))
