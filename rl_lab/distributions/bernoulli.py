"""The Bernoulli distribution."""

from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import Distribution, TensorLike
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import arange, as_tensor
from rl_lab.engine.ops.rearrange import broadcast_tensors
from rl_lab.nn.functional import binary_cross_entropy_with_logits


class Bernoulli(Distribution):
    """1 with probability ``probs``, or sigmoid(``logits``), and 0 otherwise. Raises ValueError unless exactly one of the two is given."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, probs: TensorLike | None = None, logits: TensorLike | None = None, validate_args: bool | None = None):
        if (probs is None) == (logits is None):
            raise ValueError("Bernoulli needs either probs or logits, and not both")
        given = as_tensor(probs if logits is None else logits).float()  # type: ignore[arg-type]  # one is given
        super().__init__(given.shape, (), validate_args)
        if logits is None:
            self._check("probs", given, (given >= 0) & (given <= 1), "between 0 and 1")
            bounded = given.clamp(1.1920929e-07, 1.0 - 1.1920929e-07)
            self.probs = given
            self.logits = bounded.log() - (-bounded).log1p()
        else:
            self._check("logits", given, given == given, "a number (not NaN)")
            self.probs = given.sigmoid()
            self.logits = given

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The more probable value; NaN, as in PyTorch, where both are equally probable."""
        best = (self.probs >= 0.5).float()
        return best.masked_fill(self.probs == 0.5, float("nan"))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        probabilities = self.probs.detach().expand(self._extended_shape(sample_shape))
        return random.bernoulli(probabilities.contiguous(), generator=generator)

    @property
    def support(self) -> Constraint:
        return constraints.boolean

    has_enumerate_support = True

    def _all_values(self) -> Tensor:
        return arange(2).float()

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._valid(value).float()
        logits = self.logits
        if value.shape != logits.shape:
            value, logits = broadcast_tensors(value, logits)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")
