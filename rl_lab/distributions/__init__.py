"""Probability distributions (stand-in until the branch with the whole family is merged)."""

import math
from typing import Any

import rl_lab.engine.random as random
from rl_lab.engine.ops.reduction import log_softmax


class Categorical:
    def __init__(self, probs: Any = None, logits: Any = None, validate_args: Any = None):
        self.logits = log_softmax(logits, -1)

    @property
    def mode(self) -> Any:
        return self.logits.argmax(-1)

    def sample(self, generator: Any = None) -> Any:
        return random.multinomial(self.logits.detach().exp(), 1, True, generator=generator).squeeze(-1)

    def log_prob(self, value: Any) -> Any:
        return self.logits.gather(1, value.unsqueeze(1)).squeeze(1)

    def entropy(self) -> Any:
        return -(self.logits.exp() * self.logits).sum(-1)


class Normal:
    def __init__(self, loc: Any, scale: Any, validate_args: Any = None):
        self.loc, self.scale = loc, scale

    @property
    def mode(self) -> Any:
        return self.loc

    def rsample(self, generator: Any = None) -> Any:
        return self.loc + self.scale * random.randn(*self.loc.shape, generator=generator)

    def sample(self, generator: Any = None) -> Any:
        return self.rsample(generator).detach()

    def log_prob(self, value: Any) -> Any:
        return -((value - self.loc) ** 2) / (2 * self.scale**2) - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Any:
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


class Independent:
    def __init__(self, base: Any, count: int, validate_args: Any = None):
        self.base = base

    @property
    def mode(self) -> Any:
        return self.base.mode

    def sample(self, generator: Any = None) -> Any:
        return self.base.sample(generator)

    def rsample(self, generator: Any = None) -> Any:
        return self.base.rsample(generator)

    def log_prob(self, value: Any) -> Any:
        return self.base.log_prob(value).sum(-1)

    def entropy(self) -> Any:
        return self.base.entropy().sum(-1)
