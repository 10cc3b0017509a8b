"""Invertible functions and their log-determinants, for `TransformedDistribution`."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.engine.latest import LatestPair
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.nn.functional import softplus

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

Self = TypeVar("Self", bound="Transform")
TINY = 1.1754943508222875e-38
BELOW_ONE = 1.0 - 2.0**-23


class Transform:
    """Base class of the transforms y = f(x). A subclass defines ``_call``, ``_inverse`` and ``log_abs_det_jacobian``.

    With ``cache_size`` 1 the latest x and y are kept: ``inv(y)`` returns the very x, with its gradient, from which y was computed, and the
    inverse is not rounded. ``domain`` and ``codomain`` are the sets of x and y. Raises ValueError unless ``cache_size`` is 0 or 1.
    """

    domain: Constraint = constraints.real
    codomain: Constraint = constraints.real
    bijective = False
    """Whether f has an inverse."""
    sign: int | Tensor = 1
    """1 where f rises, -1 where it falls."""
    _latest: LatestPair | None = None

    def __init__(self, cache_size: int = 0):
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size}")
        self._latest = LatestPair() if cache_size else None

    @property
    def event_dim(self) -> int:
        """Number of the last dimensions that f treats as one event."""
        return self.domain.event_dim

    @property
    def inv(self) -> "Transform":
        """The inverse transform, whose ``inv`` is this transform."""
        return _Inverse(self)

    def with_cache(self: Self, cache_size: int = 1) -> Self:
        """The same transform with a cache of its own of this size; the transform itself if it has this size."""
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size}")
        if cache_size == (self._latest is not None):
            return self
        made = copy.copy(self)
        made._latest = LatestPair() if cache_size else None
        return made

    def __call__(self, x: Tensor) -> Tensor:
        """f(x)."""
        latest = self._latest
        if latest is None:
            return self._call(x)
        known = latest.y_of(x)
        if known is not None:
            return known
        y = self._call(x)
        latest.put(x, y, True)
        return y

    def _invert(self, y: Tensor) -> Tensor:
        """The x with f(x) = y."""
        latest = self._latest
        if latest is None:
            return self._inverse(y)
        known = latest.x_of(y)
        if known is not None:
            return known
        x = self._inverse(y)
        latest.put(x, y, False)
        return x

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define _call")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define _inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det df/dx| at x, where y = f(x)."""
        raise NotImplementedError(f"{type(self).__name__} does not define log_abs_det_jacobian")

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of f(x) for x of this shape."""
        return shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for f(x) of this shape."""
        return shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    """The inverse of the transform ``of``, which also keeps the latest pair."""

    def __init__(self, of: Transform):
        self._of = of
        self.domain, self.codomain = of.codomain, of.domain
        self.bijective = of.bijective

    @property
    def sign(self) -> int | Tensor:  # type: ignore[override]
        return self._of.sign

    @property
    def inv(self) -> Transform:
        return self._of

    def with_cache(self, cache_size: int = 1) -> "_Inverse":
        return _Inverse(self._of.with_cache(cache_size))

    def __call__(self, x: Tensor) -> Tensor:
        return self._of._invert(x)

    def _invert(self, y: Tensor) -> Tensor:
        return self._of(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._of.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._of.inverse_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._of.forward_shape(shape)


class TanhTransform(Transform):
    """y = tanh(x). The inverse of +-1 is infinite, and tanh rounds large x to +-1: set ``cache_size`` to 1 to get the x of a sample."""

    codomain = constraints.interval(-1.0, 1.0)
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return x.tanh()

    def _inverse(self, y: Tensor) -> Tensor:
        return 0.5 * (y.log1p() - (-y).log1p())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # log(1 - tanh(x)^2), rearranged to avoid cancellation for large |x|
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AffineTransform(Transform):
    """y = loc + scale * x. The last ``event_dim`` dimensions are one event, over which the log-determinant is summed."""

    bijective = True

    def __init__(self, loc: Tensor | float, scale: Tensor | float, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        self.loc = loc
        self.scale = scale
        if event_dim:
            self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    @property
    def sign(self) -> int | Tensor:  # type: ignore[override]
        scale = self.scale
        return (scale > 0) - (scale < 0) if isinstance(scale, (int, float)) else scale.sign()

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.scale, (int, float)):
            slope = x * 0.0 + math.log(abs(self.scale))
        else:
            slope = x * 0.0 + self.scale.abs().log()
        return slope.sum(tuple(range(-self.event_dim, 0))) if self.event_dim else slope

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for parameter in (self.loc, self.scale):
            shape = broadcast_shape(shape, getattr(parameter, "shape", ()))
        return shape

    inverse_shape = forward_shape


class ExpTransform(Transform):
    """y = exp(x)."""

    codomain = constraints.positive
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x)). As in PyTorch, y is kept between the smallest normal number and 1 - 2^-23, so that it has an inverse."""

    codomain = constraints.unit_interval
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return x.sigmoid().clamp(TINY, BELOW_ONE)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.clamp(TINY, BELOW_ONE)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class ComposeTransform(Transform):
    """Composition of transforms, applied in the order of ``parts``. With ``cache_size`` 1 each part keeps its latest pair."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        super().__init__()
        self.parts = [part.with_cache(cache_size) for part in parts] if cache_size else list(parts)
        self.bijective = all(part.bijective for part in self.parts)
        # an event of the whole has room for the event of every part
        before = after = 0
        for part in reversed(self.parts):
            before = max(before + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
        for part in self.parts:
            after = max(after + part.codomain.event_dim - part.domain.event_dim, part.codomain.event_dim)
        if self.parts:
            self.domain = _widened(self.parts[0].domain, before)
            self.codomain = _widened(self.parts[-1].codomain, after)

    @property
    def sign(self) -> int | Tensor:  # type: ignore[override]
        return math.prod([part.sign for part in self.parts])  # type: ignore[arg-type]

    def with_cache(self, cache_size: int = 1) -> "ComposeTransform":
        return ComposeTransform([part.with_cache(cache_size) for part in self.parts])

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        event_dim = self.domain.event_dim
        for part in self.parts:
            following = y if part is self.parts[-1] else part(x)
            missing = event_dim - part.domain.event_dim
            slope = part.log_abs_det_jacobian(x, following)
            total = total + (slope.sum(tuple(range(-missing, 0))) if missing else slope)
            event_dim += part.codomain.event_dim - part.domain.event_dim
            x = following
        return x * 0.0 if isinstance(total, float) else total

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape


def _widened(constraint: Constraint, event_dim: int) -> Constraint:
    """The constraint for events of ``event_dim`` dimensions."""
    missing = event_dim - constraint.event_dim
    return constraints.independent(constraint, missing) if missing else constraint
