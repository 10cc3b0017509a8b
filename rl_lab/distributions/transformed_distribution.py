"""TransformedDistribution: a distribution of transformed samples."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions.distribution import Distribution
from rl_lab.distributions.independent import sum_last
from rl_lab.distributions.transforms import ComposeTransform, Transform
from rl_lab.engine.ops import Tensor


class TransformedDistribution(Distribution):
    """Distribution of f(x), where x is drawn from ``base_distribution`` and f applies one or several transforms in order.

    ``log_prob`` follows the change of variables: log p(x) - log |det df/dx|.
    """

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform], validate_args: bool | None = None
    ):
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self._function = ComposeTransform(self.transforms)
        super().__init__(base_distribution.batch_shape, base_distribution.event_shape, validate_args)
        self.base_dist = base_distribution
        self.has_rsample = base_distribution.has_rsample

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self._function(self.base_dist.sample(sample_shape, generator=generator)).detach()

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self._function(self.base_dist.rsample(sample_shape, generator=generator))

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._function.inv(value)
        slope = self._function.log_abs_det_jacobian(x, value)
        return self.base_dist.log_prob(x) - sum_last(slope, len(self.event_shape) - self._function.event_dim)
