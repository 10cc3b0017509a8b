"""The categorical distribution."""

import math
from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution, TensorLike
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import arange, as_tensor
from rl_lab.engine.ops.operands import broadcast_shape
from rl_lab.engine.ops.reduction import log_softmax
from rl_lab.engine.tape import enable_grad


class Categorical(Distribution):
    """Distribution over the classes 0, 1, ..., given by ``probs`` (..., classes), which need not sum to 1, or ``logits``.

    Samples are int64. Raises ValueError unless exactly one of ``probs`` and ``logits`` is given.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, probs: TensorLike | None = None, logits: TensorLike | None = None, validate_args: bool | None = None):
        if (probs is None) == (logits is None):
            raise ValueError("Categorical needs either probs or logits, and not both")
        given = as_tensor(probs if logits is None else logits).float()  # type: ignore[arg-type]  # one is given
        if given.dim() < 1:
            raise ValueError("Categorical needs parameters of shape (..., classes), got a single number")
        super().__init__(given.shape[:-1], (), validate_args)
        if logits is None:
            self._check("probs", given, (given >= 0) & (given.sum(-1, keepdim=True) > 0), "non-negative with a positive sum")
            probabilities = given / given.sum(-1, keepdim=True)
            # probabilities are bounded away from 0, as in PyTorch: the logit of an impossible class stays finite
            self.logits = probabilities.clamp(1.1920929e-07, 1.0 - 1.1920929e-07).log()
            self._probs: Tensor | None = probabilities
        else:
            best = given.amax(-1, keepdim=True)
            self._check(
                "logits",
                given,
                (best > -math.inf) & (best < math.inf),
                "below infinity, not NaN, and finite for at least one class",
            )
            self.logits = log_softmax(given, -1)
            self._probs = None

    @property
    def probs(self) -> Tensor:
        """Probabilities (..., classes), which sum to 1."""
        if self._probs is None:
            with enable_grad():  # they are kept: later uses may need their gradient
                self._probs = self.logits.exp()
        return self._probs

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    @property
    def mean(self) -> Tensor:
        """NaN, as in PyTorch: the labels of classes have no mean."""
        return self.logits.detach()[..., 0] * float("nan")

    variance = mean

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        sample_shape = tuple(sample_shape)
        classes = self.logits.shape[-1]
        weights = self.probs.detach().reshape(-1, classes)
        drawn = random.multinomial(weights, math.prod(sample_shape), True, generator=generator)
        if not sample_shape:
            return drawn.reshape(self._batch_shape)
        return drawn.t().reshape(self._extended_shape(sample_shape))

    @property
    def support(self) -> Constraint:
        return constraints.integer_interval(0, self.logits.shape[-1] - 1)

    has_enumerate_support = True

    def _all_values(self) -> Tensor:
        return arange(self.logits.shape[-1])

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._valid(value).long().unsqueeze(-1)
        logits = self.logits
        if value.shape[:-1] != logits.shape[:-1]:
            rows = broadcast_shape(value.shape[:-1], logits.shape[:-1])
            value = value.expand((*rows, 1))
            logits = logits.expand((*rows, logits.shape[-1]))
        return logits.gather(-1, value).squeeze(-1)

    def entropy(self) -> Tensor:
        # log 0 of a masked action counts as the lowest float: 0 times -inf would be NaN
        return -(self.logits.clamp(min=-3.4028234663852886e38) * self.probs).sum(-1)
