"""The beta distribution."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution, TensorLike, broadcast_all
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where, xlogy
from rl_lab.engine.ops.elementwise import digamma, lgamma
from rl_lab.engine.ops.layout import stack


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
        """The most probable value, by PyTorch's rules at the ends: 1 where both concentrations are below 1, NaN where none is above 1."""
        a, b = self.concentration1, self.concentration0
        rises, falls = (a - 1).clamp(min=0.0), (b - 1).clamp(min=0.0)
        return where((a < 1) & (b < 1), 1.0, rises / (rises + falls))

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total**2 * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        shape = self._extended_shape(sample_shape)
        both = stack([self.concentration1.expand(shape), self.concentration0.expand(shape)])
        return random.gamma_shares(both, 0, generator)[0]

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
