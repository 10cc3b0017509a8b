"""Special functions with the names of torch.special."""

from typing import TYPE_CHECKING

from rl_lab.engine.names import not_covered
from rl_lab.engine.ops.arithmetic import logit, xlogy
from rl_lab.engine.ops.composed import mvlgamma as multigammaln
from rl_lab.engine.ops.composed import polygamma
from rl_lab.engine.ops.elementwise import digamma, erf, erfc, erfinv, exp2, expm1, log1p, round, sinc
from rl_lab.engine.ops.elementwise import digamma as psi
from rl_lab.engine.ops.elementwise import lgamma as gammaln
from rl_lab.engine.ops.elementwise import sigmoid as expit
from rl_lab.engine.ops.reduction import log_softmax, logsumexp, softmax

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = [
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammaln",
    "log1p",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlogy",
]
