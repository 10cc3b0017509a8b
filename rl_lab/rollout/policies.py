"""Distributions of actions from a network's outputs, greedy actions, and the terms of policy-gradient losses."""

import math
from typing import NamedTuple, TypeAlias

from gymnasium.spaces import Space

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.distributions import Categorical, Independent, Normal
from rl_lab.nn import Module
from rl_lab.rollout.actions import ActionMapping


def masked(q_values: rl.Tensor, action_mask: rl.Tensor | None) -> rl.Tensor:
    """Return ``q_values`` (batch, actions) with -1e9 for actions that the mask, bool (batch, actions), forbids."""
    return q_values if action_mask is None else q_values.masked_fill(~action_mask, -1e9)


def greedy(q_values: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
    """Return greedy actions, argmax_a Q(s, a) among the allowed actions, int64 (batch,)."""
    return masked(q_values, action_mask).argmax(1)


def clipped_surrogate(log_ratio: rl.Tensor, advantages: rl.Tensor, clip_range: rl.Tensor | float) -> rl.Tensor:
    """Compute min(r A, clip(r, 1 - clip_range, 1 + clip_range) A), elementwise, from log r and A (Schulman et al. 2017, equation 7).

    The code uses the shorter form of Achiam 2018: min(r A, bound), where the bound is (1 + clip_range) A if A is positive, else
    (1 - clip_range) A.
    """
    return rl.minimum(log_ratio.exp() * advantages, advantages + clip_range * advantages.abs())


@rl.no_grad()
def approximate_kl(log_ratio: rl.Tensor) -> rl.Tensor:
    """Estimate KL(old || new), elementwise, by Schulman's k3 = r - 1 - log r >= 0 from log r for actions of the old policy."""
    return log_ratio.exp() - 1.0 - log_ratio


class ActionHead(Module):
    """Turns a network's outputs into a distribution over a space's actions.

    The network must have ``outputs`` outputs: the logits of the options of all choices, then the means of the continuous components and,
    with ``state_dependent_std``, their log standard deviations. Otherwise the log standard deviations are parameters that start at
    ``log_std``. Components in [-1, 1] cover the range of the space. Raises TypeError if `ActionMapping` does not accept ``space``.
    """

    def __init__(self, space: Space, log_std: float = 0.0, state_dependent_std: bool = False):
        super().__init__()
        mapping = ActionMapping(space)
        self.choices = list(mapping.choices)
        self.single = mapping.shape == ()
        self.size = mapping.size
        self.free_std = mapping.size > 0 and not state_dependent_std
        self.outputs = mapping.num_masked + self.size * (1 if self.free_std else 2)
        self.initial_log_std = log_std
        if self.free_std:
            self.log_std = rl.nn.Parameter(rl.full((self.size,), log_std))

    def distribution(self, outputs: rl.Tensor, action_mask: rl.Tensor | None = None) -> "ActionDistribution":
        """Return the distribution of actions for outputs (..., outputs). Options that the mask (..., options) forbids have probability 0.

        The distribution has ``sample(generator=...)``, ``mode``, ``log_prob(actions)`` and ``entropy()``, as in `rl_lab.distributions`.
        """
        if not self.choices:
            return self._gaussian(outputs)
        options = sum(self.choices)
        logits = outputs[..., :options] if self.size else outputs
        if self.single:
            return Categorical(logits=masked(logits, action_mask), validate_args=False)
        return Factored(self.parts(logits, action_mask), self._gaussian(outputs[..., options:]) if self.size else None)

    def parts(self, logits: rl.Tensor, action_mask: rl.Tensor | None = None) -> list[Categorical]:
        """Return the distribution of each choice, for the logits (..., options) of the options of all choices."""
        split = masked(logits, action_mask).split(self.choices, -1)
        return [Categorical(logits=part, validate_args=False) for part in split]

    def _gaussian(self, outputs: rl.Tensor) -> Independent:
        """Return the distribution of the continuous components for their outputs (..., size or 2 size)."""
        if self.free_std:
            mean = outputs
            log_std = self.log_std.expand_as(outputs)
        else:
            mean = outputs[..., : self.size]
            log_std = (outputs[..., self.size :] + self.initial_log_std).clamp(-20.0, 2.0)
        return Independent(Normal(mean, log_std.exp(), validate_args=False), 1, validate_args=False)


class Factored:
    """A product of independent choices and continuous components, for MultiDiscrete, MultiBinary, Tuple and Dict spaces.

    Actions are int64 (batch, choices), or float32 (batch, choices + size) if there are components.
    """

    def __init__(self, parts: list[Categorical], components: "Independent | SquashedGaussian | None" = None):
        self.parts = parts
        self.components = components

    def _join(self, chosen: list[rl.Tensor], components: rl.Tensor | None) -> rl.Tensor:
        choices = rl.stack(chosen, -1)
        return choices if components is None else rl.cat([choices.float(), components], -1)

    def sample(self, generator: rl.Generator | None = None) -> rl.Tensor:
        """Draw a batch of actions."""
        chosen = [part.sample(generator=generator) for part in self.parts]
        return self._join(chosen, None if self.components is None else self.components.sample(generator=generator))

    @property
    def mode(self) -> rl.Tensor:
        """The most probable actions."""
        return self._join([part.mode for part in self.parts], None if self.components is None else self.components.mode)

    def log_prob(self, actions: rl.Tensor) -> rl.Tensor:
        """Log-probabilities (batch,): sums over the independent parts."""
        count = len(self.parts)
        choices = actions if self.components is None else actions[..., :count].long()
        total = self.parts[0].log_prob(choices[..., 0])
        for i in range(1, count):
            total = total + self.parts[i].log_prob(choices[..., i])
        return total if self.components is None else total + self._gaussian().log_prob(actions[..., count:])

    def entropy(self) -> rl.Tensor:
        """Entropies (batch,): sums over the independent parts."""
        total = self.parts[0].entropy()
        for part in self.parts[1:]:
            total = total + part.entropy()
        return total if self.components is None else total + self._gaussian().entropy()

    def _gaussian(self) -> Independent:
        """Return the components, which must not be squashed: at its bounds the density of a squashed action is not defined."""
        assert isinstance(self.components, Independent)
        return self.components


class Insight(NamedTuple):
    """What a policy computes on the way to its actions, differentiable in the observations.

    ``outputs`` (batch, options + size) are log-probabilities or values of the options of all choices, then the components in [-1, 1].
    ``value`` (batch,) is the estimate of the return, or None. ``kind`` says what the outputs of options are: "probabilities" (their
    logarithms), "values" or "outputs".
    """

    outputs: rl.Tensor
    value: rl.Tensor | None = None
    kind: str = "probabilities"


def outputs_of(distribution: "ActionDistribution | SquashedGaussian") -> rl.Tensor:
    """The log-probabilities of all options, then the most probable components, (batch, options + size)."""
    if isinstance(distribution, Categorical):
        return distribution.logits
    if not isinstance(distribution, Factored):
        return distribution.mode
    parts = [part.logits for part in distribution.parts]
    return rl.cat([*parts, *([] if distribution.components is None else [distribution.components.mode])], -1)


ActionDistribution: TypeAlias = Categorical | Independent | Factored
"""The distributions that `ActionHead.distribution` returns."""


class SquashedGaussian:
    """The tanh of a Gaussian, in [-1, 1] (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", appendix C).

    ``mean`` and ``log_std`` are (batch, size).
    """

    def __init__(self, mean: rl.Tensor, log_std: rl.Tensor):
        self.mean = mean
        self.log_std = log_std
        self.std = log_std.exp()

    @property
    def mode(self) -> rl.Tensor:
        """The tanh of the Gaussian's mean, (batch, size)."""
        return self.mean.tanh()

    def sample(self, generator: rl.Generator | None = None) -> rl.Tensor:
        """Draw actions (batch, size)."""
        return (self.mean + self.std * rl.randn(*self.mean.shape, generator=generator)).tanh()

    def rsample(self, generator: rl.Generator | None = None) -> tuple[rl.Tensor, rl.Tensor]:
        """Draw differentiable actions (batch, size) and return them with their log-probabilities (batch,)."""
        noise = rl.randn(*self.mean.shape, generator=generator)
        u = self.mean + self.std * noise
        gaussian = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in a form without cancellation
        squash = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
        return u.tanh(), (gaussian - squash).sum(1)


def squashed_gaussian(outputs: rl.Tensor) -> SquashedGaussian:
    """Return the distribution of actions for an actor's outputs (batch, 2 size): the means, then the log standard deviations."""
    mean, log_std = outputs.chunk(2, 1)
    return SquashedGaussian(mean, log_std.clamp(-20.0, 2.0))
