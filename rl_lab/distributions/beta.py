"""The beta distribution."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution, TensorLike, broadcast_all
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import xlogy
from rl_lab.engine.ops.elementwise import digamma, lgamma


class Beta(Distribution):
    """Beta distribution on (0, 1) with density proportional to x^(concentration1 - 1) (1 - x)^(concentration0 - 1)."""

    has_rsample = True
    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}

    def __init__(self, concentration1: TensorLike, concentration0: TensorLike, validate_args: bool | None = None):
        (self.concentration1, self.concentration0), shape = broadcast_all(concentration1, concentration0)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        """(concentration1 - 1) / (concentration1 + concentration0 - 2): the mode only where both concentrations are above 1."""
        return (self.concentration1 - 1) / (self.concentration1 + self.concentration0 - 2)

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total**2 * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        shape = self._extended_shape(sample_shape)
        first = random.standard_gamma(self.concentration1.expand(shape), generator)
        second = random.standard_gamma(self.concentration0.expand(shape), generator)
        return first / (first + second)

    def _log_normalizer(self) -> Tensor:
        """Logarithm of the beta function of the concentrations."""
        return lgamma(self.concentration1) + lgamma(self.concentration0) - lgamma(self.concentration1 + self.concentration0)

    @property
    def support(self) -> Constraint:
        return constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._valid(value).float()
        return xlogy(self.concentration1 - 1.0, x) + xlogy(self.concentration0 - 1.0, 1.0 - x) - self._log_normalizer()

    def entropy(self) -> Tensor:
        a = self.concentration1
        b = self.concentration0
        return self._log_normalizer() - (a - 1.0) * digamma(a) - (b - 1.0) * digamma(b) + (a + b - 2.0) * digamma(a + b)
