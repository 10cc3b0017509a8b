"""What all distributions share."""

import math
from collections.abc import Sequence
from typing import Any

import rl_lab.engine.random as random
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.engine.tape import no_grad


class Distribution:
    """A batch of independent distributions: ``batch_shape`` of them, each over values of ``event_shape``.

    ``sample`` and ``rsample`` draw values of shape (*sample_shape, *batch_shape, *event_shape) from ``generator``, or from the default
    stream; gradients go through ``rsample`` only. ``log_prob`` and ``entropy`` are (*batch_shape). With ``validate_args`` parameters are
    checked when the distribution is made, and ValueError names the bad one; a recorded function does not look at values.
    """

    has_rsample = False

    def __init__(self, batch_shape: tuple[int, ...] = (), event_shape: tuple[int, ...] = (), validate_args: bool | None = None):
        self._batch_shape, self._event_shape = tuple(batch_shape), tuple(event_shape)
        self.validates = validate_args is not False and recorder() is None

    def _check(self, name: str, value: Tensor, good: Any, wanted: str) -> None:
        """ValueError unless ``good``, a bool tensor, is true everywhere."""
        if self.validates and not bool(good.all()):
            shape = tuple(value.shape)
            raise ValueError(f"{type(self).__name__}: {name} must be {wanted}, got others in a tensor of shape {shape}")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._event_shape

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> tuple[int, ...]:
        return (*tuple(sample_shape), *self._batch_shape, *self._event_shape)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        """A draw that no gradient goes through."""
        with no_grad():
            return self.rsample(sample_shape, generator=generator).detach()

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        """A draw as a differentiable function of the parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no reparametrised draw: use sample()")

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def entropy(self) -> Tensor:
        raise NotImplementedError(f"the entropy of {type(self).__name__} has no closed form")

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(f"the mean of {type(self).__name__} has no closed form")

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError(f"the mode of {type(self).__name__} has no closed form")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError(f"the variance of {type(self).__name__} has no closed form")

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={self.batch_shape}, event_shape={self.event_shape})"


def broadcast_all(*values: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Parameters as float32 tensors, and the shape that they have together."""
    tensors = [as_tensor(value).float() for value in values]
    shape: tuple[int, ...] = ()
    for tensor in tensors:
        shape = broadcast_shape(shape, tensor.shape)
    return [tensor if tuple(tensor.shape) == shape else tensor.expand(shape) for tensor in tensors], shape


HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
