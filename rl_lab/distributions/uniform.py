"""The uniform distribution."""

import math
from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution, TensorLike, broadcast_all
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import as_tensor


class Uniform(Distribution):
    """Uniform distribution on [``low``, ``high``)."""

    has_rsample = True
    arg_constraints = {"low": constraints.real, "high": constraints.real}

    def __init__(self, low: TensorLike, high: TensorLike, validate_args: bool | None = None):
        (self.low, self.high), shape = broadcast_all(low, high)
        super().__init__(shape, (), validate_args)
        self._check("low", self.low, self.low < self.high, "below high")

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Tensor:
        """NaN, as in PyTorch: every value has the same density."""
        return self.high * float("nan")

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.low + (self.high - self.low) * random.rand(*self._extended_shape(sample_shape), generator=generator)

    @property
    def support(self) -> Constraint:
        return constraints.interval(self.low, self.high, "from low to high")

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._valid(value).float()
        inside = where((self.low <= value) & (self.high > value), 0.0, -math.inf)
        return inside - (self.high - self.low).log()

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        return ((as_tensor(value).float() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * as_tensor(value).float()
