"""The multivariate normal distribution with a diagonal covariance."""

from rl_lab.distributions import constraints
from rl_lab.distributions.distribution import TensorLike
from rl_lab.distributions.independent import Independent
from rl_lab.distributions.normal import Normal
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.ops.diagonals import diagonal


class MultivariateNormal(Independent):
    """Normal distribution with mean ``loc`` (..., n) and a diagonal covariance.

    The covariance is given by ``covariance_matrix``, or by its Cholesky factor ``scale_tril``, either of shape (..., n, n). Full
    covariances are not supported: raises ValueError if an entry off the diagonal is not 0. A recorded function cannot read values,
    so it uses the diagonal without the check.
    """

    arg_constraints = {"loc": constraints.real_vector}

    def __init__(
        self,
        loc: TensorLike,
        covariance_matrix: TensorLike | None = None,
        precision_matrix: TensorLike | None = None,
        scale_tril: TensorLike | None = None,
        validate_args: bool | None = None,
    ):
        if precision_matrix is not None or (covariance_matrix is None) == (scale_tril is None):
            raise ValueError("MultivariateNormal needs either covariance_matrix or scale_tril, and no precision_matrix")
        matrix = as_tensor(covariance_matrix if scale_tril is None else scale_tril).float()  # type: ignore[arg-type]  # one is given
        entries = diagonal(matrix, 0, -2, -1)
        if recorder() is None and bool((matrix.detach() != 0).sum() > (entries.detach() != 0).sum()):
            raise ValueError("MultivariateNormal needs a diagonal matrix, got entries other than 0 off the diagonal")
        scale = entries if covariance_matrix is None else entries.sqrt()
        base = Normal(loc, scale, validate_args)
        super().__init__(base, 1, validate_args)
        self.loc = base.loc
