"""The Kullback-Leibler divergence of pairs of distributions."""

import math
from collections.abc import Callable
from typing import Any

from rl_lab.distributions.bernoulli import Bernoulli
from rl_lab.distributions.beta import Beta
from rl_lab.distributions.categorical import Categorical
from rl_lab.distributions.independent import Independent, sum_last
from rl_lab.distributions.normal import Normal
from rl_lab.distributions.uniform import Uniform
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.elementwise import digamma, softplus_plain

_RULES: dict[tuple[type, type], Callable] = {}


def register_kl(type_p: type, type_q: type) -> Callable:
    """Decorates the rule for a pair of distributions."""

    def register(rule: Callable) -> Callable:
        _RULES[type_p, type_q] = rule
        return rule

    return register


def kl_divergence(p: Any, q: Any) -> Any:
    """sum p log(p / q), (*batch_shape). NotImplementedError for a pair without a rule."""
    for left in type(p).__mro__:
        for right in type(q).__mro__:
            if (left, right) in _RULES:
                return _RULES[left, right](p, q)
    raise NotImplementedError(f"no KL divergence from {type(p).__name__} to {type(q).__name__}")


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    return (p.probs * (p.logits - q.logits)).sum(-1)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    ones = p.probs * (softplus_plain(-q.logits) - softplus_plain(-p.logits))
    return ones + (1.0 - p.probs) * (softplus_plain(q.logits) - softplus_plain(p.logits))


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio, shift = (p.scale / q.scale) ** 2, ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + shift - 1.0 - ratio.log())


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    inside = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), inside * 0.0 + math.inf, inside)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    return (
        q._log_normalizer()
        - p._log_normalizer()
        + (a - c) * digamma(a)
        + (b - d) * digamma(b)
        + (c + d - a - b) * digamma(a + b)
    )


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("no KL divergence between events of different dimensions")
    return sum_last(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
