"""Invertible functions and their log-determinants, for `TransformedDistribution`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.nn.functional import softplus

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


class Transform:
    """Base class of the transforms y = f(x). ``event_dim`` is the number of dimensions that f treats as one event."""

    event_dim = 0

    def __call__(self, x: Tensor) -> Tensor:
        """f(x)."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def inv(self, y: Tensor) -> Tensor:
        """The x with f(x) = y."""
        raise NotImplementedError(f"{type(self).__name__} does not define inv")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det df/dx| at x, where y = f(x)."""
        raise NotImplementedError(f"{type(self).__name__} does not define log_abs_det_jacobian")


class TanhTransform(Transform):
    """y = tanh(x). The inverse of +-1 is infinite, and tanh rounds large x to +-1: keep x if its log-probability is needed later."""

    def __init__(self, cache_size: int = 0):
        pass

    def __call__(self, x: Tensor) -> Tensor:
        return x.tanh()

    def inv(self, y: Tensor) -> Tensor:
        return 0.5 * (y.log1p() - (-y).log1p())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # log(1 - tanh(x)^2), rearranged to avoid cancellation for large |x|
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AffineTransform(Transform):
    """y = loc + scale * x. With ``event_dim`` the log-determinant is summed over that many last dimensions."""

    def __init__(self, loc: Tensor | float, scale: Tensor | float, event_dim: int = 0, cache_size: int = 0):
        self.loc = loc
        self.scale = scale
        self.event_dim = event_dim

    def __call__(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def inv(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.scale, (int, float)):
            slope = x * 0.0 + math.log(abs(self.scale))
        else:
            slope = x * 0.0 + self.scale.abs().log()
        return slope.sum(tuple(range(-self.event_dim, 0))) if self.event_dim else slope


class ExpTransform(Transform):
    """y = exp(x)."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.exp()

    def inv(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x))."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def inv(self, y: Tensor) -> Tensor:
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class ComposeTransform(Transform):
    """Composition of transforms, applied in the order of ``parts``."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        self.parts = list(parts)
        self.event_dim = max((part.event_dim for part in self.parts), default=0)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def inv(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        for part in self.parts:
            following = part(x)
            slope = part.log_abs_det_jacobian(x, following)
            missing = self.event_dim - part.event_dim
            total = total + (slope.sum(tuple(range(-missing, 0))) if missing else slope)
            x = following
        return total  # type: ignore[return-value]
