"""The normal distribution."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.distribution import HALF_LOG_2PI, Distribution, TensorLike, broadcast_all
from rl_lab.engine.ops import Tensor


class Normal(Distribution):
    """Normal distribution with mean ``loc`` and standard deviation ``scale``."""

    has_rsample = True
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: TensorLike, scale: TensorLike, validate_args: bool | None = None):
        (self.loc, self.scale), shape = broadcast_all(loc, scale)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    mode = mean

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        self._check_deviation(self.scale)
        return super().sample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.loc + self.scale * random.randn(*self._extended_shape(sample_shape), generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._valid(value)
        return ((value - self.loc) / self.scale) ** 2 * -0.5 - self.scale.log() - HALF_LOG_2PI

    def entropy(self) -> Tensor:
        return self.scale.log() + (0.5 + HALF_LOG_2PI)

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 * (1.0 + ((value - self.loc) / (self.scale * 2**0.5)).erf())

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * (2.0 * value - 1.0).erfinv() * 2**0.5
