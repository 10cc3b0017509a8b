"""TransformedDistribution: a distribution of transformed samples."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution
from rl_lab.distributions.independent import Independent, sum_last
from rl_lab.distributions.transforms import ComposeTransform, Transform, _widened
from rl_lab.engine.ops import Tensor
from rl_lab.engine.tape import no_grad


class TransformedDistribution(Distribution):
    """Distribution of f(x), where x is drawn from ``base_distribution`` and f applies one or several transforms in order.

    ``log_prob`` follows the change of variables: log p(x) - log |det df/dx|. Batch dimensions of the base that a transform treats as
    part of an event become event dimensions. Raises ValueError if the base has too few dimensions.
    """

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform], validate_args: bool | None = None
    ):
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        whole = ComposeTransform(self.transforms)
        base = base_distribution
        given = (*base.batch_shape, *base.event_shape)
        base_dim = len(base.event_shape)
        before, after = whole.domain.event_dim, whole.codomain.event_dim
        if len(given) < before:
            raise ValueError(
                f"the transforms take events of {before} dimensions, but {base} has only {len(given)}: expand its batch"
            )
        shape = whole.forward_shape(given)
        needed = whole.inverse_shape(shape)
        if needed != given:
            base = base.expand(needed[: len(needed) - base_dim])
        if before > base_dim:
            base = Independent(base, before - base_dim, validate_args)
        cut = len(shape) - max(after, base_dim + after - before)
        super().__init__(shape[:cut], shape[cut:], validate_args)
        self.base_dist = base
        self.has_rsample = base.has_rsample

    @property
    def support(self) -> Constraint:
        if not self.transforms:
            return self.base_dist.support
        last = self.transforms[-1].codomain
        return _widened(last, max(last.event_dim, len(self._event_shape)))

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        with no_grad():
            return self._transformed(self.base_dist.sample(sample_shape, generator=generator))

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self._transformed(self.base_dist.rsample(sample_shape, generator=generator))

    def _transformed(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        y = self._valid(value)
        event_dim = len(self._event_shape)
        slopes: Tensor | float = 0.0
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            slopes = slopes + sum_last(transform.log_abs_det_jacobian(x, y), event_dim - transform.domain.event_dim)
            y = x
        return sum_last(self.base_dist.log_prob(y), event_dim - len(self.base_dist.event_shape)) - slopes
