"""Linear algebra under the names of torch's own namespace and of its tensors, which differ from those of torch.linalg."""

from typing import NamedTuple

from rl_lab.engine import tape
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import linalg
from rl_lab.engine.ops.creation import eye, zeros_like
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.engine.tensor import Tensor
from rl_lab.engine.types import Gradients


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
    """X (..., n, k) with L L^T X = input for the lower triangular L = ``input2``, or L^T L with an upper triangular ``input2``.

    As in PyTorch, the gradient of L is that of L L^T with a full matrix L.
    """
    if len(input.sizes) < 2:
        raise ShapeError(f"cholesky_solve takes right sides (..., n, k), got shape {list(input.sizes)}")
    batch = broadcast_shape(input.sizes[:-2], input2.sizes[:-2])
    right = input.expand(*batch, *input.sizes[-2:])
    factor = input2.expand(*batch, *input2.sizes[-2:])
    with tape.no_grad():
        low = factor.transpose(-1, -2) if upper else factor
        below = linalg.solve_triangular(low, right, upper=False)
        out = linalg.solve_triangular(low.transpose(-1, -2), below, upper=True)
    return tape.attach(out, _cholesky_solve_rule, (right, factor), (factor, out), upper)


def _cholesky_solve_rule(g: Tensor, node: tape.Node) -> Gradients:
    factor, x = node.saved
    upper = node.context
    to_right = cholesky_solve(g, factor, upper)
    outer = matmul(to_right, x.transpose(-1, -2))
    outer = outer + outer.transpose(-1, -2)
    return to_right, -(matmul(factor, outer) if upper else matmul(outer, factor))


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
