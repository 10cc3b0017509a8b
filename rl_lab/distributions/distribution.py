"""Base class of the distributions."""

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.engine.launch import recorder, unrecorded
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.engine.tape import no_grad

Self = TypeVar("Self", bound="Distribution")
TensorLike = Tensor | np.ndarray | float | Sequence[float]
"""A parameter of a distribution: a tensor, or anything of which `rl_lab.as_tensor` makes one."""


def _holds(good: Tensor) -> bool:
    """Whether a bool tensor is True everywhere. A recording goes on, and does not depend on the answer."""
    if recorder() is None:
        return bool(good.all())
    with unrecorded():
        return bool(good.all())


class Distribution:
    """Base class: a batch of independent distributions of shape ``batch_shape``, each over values of shape ``event_shape``.

    ``sample`` and ``rsample`` draw values of shape (*sample_shape, *batch_shape, *event_shape) from ``generator``, or from the default
    stream. ``log_prob`` and ``entropy`` have the shape ``batch_shape``.

    The constructor checks the parameters and raises ValueError, naming the invalid one, unless ``validate_args`` is False. A recorded
    function cannot read values, so it skips the check.
    """

    has_rsample = False
    """Whether `rsample` is available."""
    has_enumerate_support = False
    """Whether `enumerate_support` is available."""
    arg_constraints: dict[str, Constraint] = {}
    """The sets of the parameters, by name. The constructor checks those that are set before it runs."""
    _validates_by_default = True

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Choose whether distributions whose ``validate_args`` is None check their parameters and values. The default is True."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args takes True or False, got {value!r}")
        Distribution._validates_by_default = bool(value)

    def __init__(self, batch_shape: tuple[int, ...] = (), event_shape: tuple[int, ...] = (), validate_args: bool | None = None):
        self._batch_shape = tuple(batch_shape)
        self._event_shape = tuple(event_shape)
        self._checks = self._validates_by_default if validate_args is None else bool(validate_args)
        self.validates = self._checks and recorder() is None
        if self._checks:
            for name, constraint in self.arg_constraints.items():
                value = vars(self).get(name)
                if value is not None:
                    self._check(name, value, constraint.check(value), constraint.text)

    def _check(self, name: str, value: Tensor, good: Tensor, wanted: str) -> None:
        """Raise ValueError, naming the parameter, unless the bool tensor ``good`` is True everywhere.

        A recorded function checks the parameters of the call that is recorded, but not those of replays.
        """
        if self._checks and not _holds(good):
            shape = tuple(value.shape)
            raise ValueError(
                f"{type(self).__name__}: {name} must be {wanted} everywhere, got other values in a tensor of shape {shape}"
            )

    def _check_deviation(self, scale: Tensor) -> None:
        """Raise RuntimeError, as PyTorch's normal samples do, if an unchecked ``scale`` is negative; a recorded function skips this."""
        if not self.validates and recorder() is None and bool((scale < 0).any()):
            raise RuntimeError(
                f"{type(self).__name__}: scale must not be negative in a sample, got a negative one: make it positive"
            )

    def _valid(self, value: TensorLike) -> Tensor:
        """The value as a tensor. Raises ValueError if it lies outside of the support; a recorded function skips this check."""
        x = as_tensor(value)
        if self.validates and recorder() is None:
            self._check_event_shape(x)
            support = self.support
            if not bool(support.check(x).all()):
                raise ValueError(
                    f"{type(self).__name__}: a value lies outside of the support: each value must be {support.text}"
                )
        return x

    def _check_event_shape(self, x: Tensor) -> None:
        """Raise ValueError unless the last dimensions of ``x`` have the shape of an event."""
        rank = len(self._event_shape)
        if self.validates and rank and tuple(x.shape[-rank:]) != self._event_shape:
            raise ValueError(
                f"{type(self).__name__}: a value lies outside of the support: its last dimensions must be {self._event_shape}, got the "
                f"shape {tuple(x.shape)}"
            )

    @property
    def support(self) -> Constraint:
        """The set of the possible values."""
        return constraints.real

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value of one distribution."""
        return self._event_shape

    def expand(self: Self, batch_shape: Sequence[int]) -> Self:
        """The same distributions in a larger batch, whose shape the present one must fit. Parameters share their memory.

        Raises ShapeError if the shapes do not fit.
        """
        made = copy.copy(self)
        rank = len(self._batch_shape)
        for name, value in vars(self).items():
            if name == "temperature":  # belongs to the whole batch
                continue
            if isinstance(value, Tensor) and value.dim() >= rank:
                setattr(made, name, value.expand((*batch_shape, *value.shape[rank:])))
            elif isinstance(value, Distribution):
                setattr(made, name, value.expand((*batch_shape, *value.batch_shape[rank:])))
        made._batch_shape = tuple(batch_shape)
        return made

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, along a new first dimension: (values, *batch_shape, *event_shape), or with ones for the batch unless ``expand``.

        Raises NotImplementedError unless ``has_enumerate_support``.
        """
        values = self._all_values()
        shape = (len(values), *[1] * len(self._batch_shape), *self._event_shape)
        values = values.reshape(shape)
        return values.expand((len(values), *self._batch_shape, *self._event_shape)) if expand else values

    def _all_values(self) -> Tensor:
        """All values of one distribution, (values, *event_shape)."""
        raise NotImplementedError(f"the values of {type(self).__name__} cannot be listed")

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> tuple[int, ...]:
        return (*tuple(sample_shape), *self._batch_shape, *self._event_shape)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        """Draw values without a gradient."""
        with no_grad():
            return self.rsample(sample_shape, generator=generator).detach()

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        """Draw values that are a differentiable function of the parameters. Raises NotImplementedError unless ``has_rsample``."""
        raise NotImplementedError(f"{type(self).__name__} has no reparametrised samples: use sample()")

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability, or of the probability density, of ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def entropy(self) -> Tensor:
        """Entropy in nats."""
        raise NotImplementedError(f"the entropy of {type(self).__name__} has no closed form")

    def perplexity(self) -> Tensor:
        """The exponential function of the entropy."""
        return self.entropy().exp()

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of a sample of at most ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The number that a sample does not exceed with the probability ``value``: the inverse of `cdf`."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf")

    @property
    def mean(self) -> Tensor:
        """Expected value."""
        raise NotImplementedError(f"the mean of {type(self).__name__} has no closed form")

    @property
    def mode(self) -> Tensor:
        """Most probable value."""
        raise NotImplementedError(f"the mode of {type(self).__name__} has no closed form")

    @property
    def variance(self) -> Tensor:
        """Variance of each element of the event."""
        raise NotImplementedError(f"the variance of {type(self).__name__} has no closed form")

    @property
    def stddev(self) -> Tensor:
        """Standard deviation: the square root of the variance."""
        return self.variance.sqrt()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={self.batch_shape}, event_shape={self.event_shape})"


def broadcast_all(*values: TensorLike) -> tuple[list[Tensor], tuple[int, ...]]:
    """Convert the parameters to float32 tensors of one shape; return (tensors, shape)."""
    tensors = [as_tensor(value).float() for value in values]
    shape: tuple[int, ...] = ()
    for tensor in tensors:
        shape = broadcast_shape(shape, tensor.shape)
    return [tensor if tuple(tensor.shape) == shape else tensor.expand(shape) for tensor in tensors], shape


HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
