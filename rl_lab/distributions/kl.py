"""Kullback-Leibler divergences."""

import math
from collections.abc import Callable
from typing import TypeVar

from rl_lab.distributions.bernoulli import Bernoulli
from rl_lab.distributions.beta import Beta
from rl_lab.distributions.categorical import Categorical
from rl_lab.distributions.distribution import Distribution
from rl_lab.distributions.independent import Independent, sum_last
from rl_lab.distributions.normal import Normal
from rl_lab.distributions.uniform import Uniform
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.elementwise import digamma, softplus_plain

Rule = Callable[..., Tensor]
AnyRule = TypeVar("AnyRule", bound=Rule)
_RULES: dict[tuple[type, type], Rule] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[AnyRule], AnyRule]:
    """Decorate ``rule(p, q)`` as the divergence of a ``type_p`` from a ``type_q``, or of their subclasses."""

    def register(rule: AnyRule) -> AnyRule:
        _RULES[type_p, type_q] = rule
        return rule

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), the expectation of log(p / q) under p, in nats, of shape ``batch_shape``.

    Raises NotImplementedError if no rule is registered for the pair of types.
    """
    for left in type(p).__mro__:
        for right in type(q).__mro__:
            if (left, right) in _RULES:
                return _RULES[left, right](p, q)
    raise NotImplementedError(
        f"no KL divergence is known for {type(p).__name__} and {type(q).__name__}: add one with register_kl"
    )


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    return (p.probs * (p.logits - q.logits)).sum(-1)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones = p.probs * (softplus_plain(-q.logits) - softplus_plain(-p.logits))
    return ones + (1.0 - p.probs) * (softplus_plain(q.logits) - softplus_plain(p.logits))


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    shift = ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + shift - 1.0 - ratio.log())


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    inside = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), inside * 0.0 + math.inf, inside)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    a = p.concentration1
    b = p.concentration0
    c = q.concentration1
    d = q.concentration0
    return (
        q._log_normalizer()
        - p._log_normalizer()
        + (a - c) * digamma(a)
        + (b - d) * digamma(b)
        + (c + d - a - b) * digamma(a + b)
    )


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("the KL divergence needs events with the same number of dimensions")
    return sum_last(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
