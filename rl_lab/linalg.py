"""Linear algebra with the names of torch.linalg."""

from typing import TYPE_CHECKING

from rl_lab.engine.names import not_covered
from rl_lab.engine.ops.composed import cross
from rl_lab.engine.ops.linalg import cholesky, det, inv, norm, qr, slogdet, solve, svd, svdvals

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = ["cholesky", "cross", "det", "inv", "norm", "qr", "slogdet", "solve", "svd", "svdvals"]
