"""The multivariate normal distribution with a diagonal covariance."""

from typing import Any

from rl_lab.distributions.independent import Independent
from rl_lab.distributions.normal import Normal
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.ops.diagonals import diagonal


class MultivariateNormal(Independent):
    """Normal with mean ``loc`` (..., n) and a diagonal covariance, given as ``covariance_matrix`` or ``scale_tril`` (..., n, n).

    ValueError for a matrix that is not diagonal: full covariances are not covered. A recorded function cannot look, and takes the
    diagonal.
    """

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ):
        if precision_matrix is not None or (covariance_matrix is None) == (scale_tril is None):
            raise ValueError("MultivariateNormal takes either covariance_matrix or scale_tril")
        matrix = as_tensor(covariance_matrix if scale_tril is None else scale_tril).float()
        entries = diagonal(matrix, 0, -2, -1)
        if recorder() is None and bool((matrix.detach() != 0).sum() > (entries.detach() != 0).sum()):
            raise ValueError("MultivariateNormal covers diagonal covariances only, got a matrix with other entries")
        scale = entries if covariance_matrix is None else entries.sqrt()
        super().__init__(Normal(loc, scale, validate_args), 1, validate_args)
        self.loc = self.base_dist.loc
