"""One of several classes."""

import math
from typing import Any

import rl_lab.engine.random as random
from rl_lab.distributions.distribution import Distribution
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.ops.reduction import log_softmax


class Categorical(Distribution):
    """Classes 0, 1, ... by ``probs``, which need not sum to 1, or by ``logits``; the last dimension runs over the classes."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        if (probs is None) == (logits is None):
            raise ValueError("Categorical takes either probs or logits")
        given = as_tensor(probs if logits is None else logits).float()
        if given.dim() < 1:
            raise ValueError("Categorical needs at least one dimension, over the classes")
        super().__init__(given.shape[:-1], (), validate_args)
        if logits is None:
            self._check("probs", given, (given >= 0) & (given.sum(-1, keepdim=True) > 0), "non-negative with a positive sum")
            probabilities = given / given.sum(-1, keepdim=True)
            # a class without a chance gets the smallest logit that is still a number, as in PyTorch
            self.logits = probabilities.clamp(1.1920929e-07, 1.0 - 1.1920929e-07).log()
            self._probs: Any = probabilities
        else:
            self._check("logits", given, given == given, "numbers")
            self.logits, self._probs = log_softmax(given, -1), None

    @property
    def probs(self) -> Any:
        if self._probs is None:
            self._probs = self.logits.exp()
        return self._probs

    @property
    def mode(self) -> Any:
        return self.logits.argmax(-1)

    @property
    def mean(self) -> Any:
        """NaN: classes are no numbers."""
        return self.logits.detach()[..., 0] * float("nan")

    variance = mean

    def sample(self, sample_shape: Any = (), *, generator: random.Generator | None = None) -> Any:
        sample_shape, classes = tuple(sample_shape), self.logits.shape[-1]
        weights = self.probs.detach().reshape(-1, classes)
        drawn = random.multinomial(weights, math.prod(sample_shape), True, generator=generator)
        if not sample_shape:
            return drawn.reshape(self._batch_shape)
        return drawn.t().reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Any) -> Any:
        value = as_tensor(value).long().unsqueeze(-1)
        logits = self.logits
        if value.shape[:-1] != logits.shape[:-1]:
            rows = value.shape[:-1] if value.dim() >= logits.dim() else logits.shape[:-1]
            value, logits = value.expand((*rows, 1)), logits.expand((*rows, logits.shape[-1]))
        return logits.gather(-1, value).squeeze(-1)

    def entropy(self) -> Any:
        # log 0 of a masked action counts as the lowest float: 0 times -inf would be NaN
        return -(self.logits.clamp(min=-3.4028234663852886e38) * self.probs).sum(-1)
