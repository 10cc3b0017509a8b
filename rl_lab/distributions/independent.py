"""Independent: batch dimensions reinterpreted as event dimensions."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.constraints import independent as independent_constraint
from rl_lab.distributions.distribution import Distribution
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor


class Independent(Distribution):
    """Reinterpret the last ``reinterpreted_batch_ndims`` batch dimensions of a distribution as event dimensions.

    ``log_prob`` and ``entropy`` are sums over these dimensions. Raises ValueError if the distribution has fewer batch dimensions.
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None):
        base = base_distribution
        count = reinterpreted_batch_ndims
        if count > len(base.batch_shape):
            raise ValueError(
                f"reinterpreted_batch_ndims is {count}, but {base} has only {len(base.batch_shape)} batch dimensions"
            )
        cut = len(base.batch_shape) - count
        super().__init__(base.batch_shape[:cut], base.batch_shape[cut:] + base.event_shape, validate_args)
        self.base_dist = base
        self.reinterpreted_batch_ndims = count
        self.has_rsample = base.has_rsample

    @property
    def support(self) -> Constraint:
        return independent_constraint(self.base_dist.support, self.reinterpreted_batch_ndims)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    @property
    def stddev(self) -> Tensor:
        return self.base_dist.stddev

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.base_dist.sample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.base_dist.rsample(sample_shape, generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        value = as_tensor(value)
        self._check_event_shape(value)
        return sum_last(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return sum_last(self.base_dist.entropy(), self.reinterpreted_batch_ndims)


def sum_last(x: Tensor, count: int) -> Tensor:
    """Sum over the last ``count`` dimensions."""
    return x.sum(tuple(range(-count, 0))) if count else x
