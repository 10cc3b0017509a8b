"""Kullback-Leibler divergences."""

import math
from collections.abc import Callable
from typing import TypeVar

from rl_lab.distributions.bernoulli import Bernoulli
from rl_lab.distributions.beta import Beta
from rl_lab.distributions.categorical import Categorical
from rl_lab.distributions.continuous import (
    EULER,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
)
from rl_lab.distributions.discrete import Geometric, OneHotCategorical, Poisson
from rl_lab.distributions.distribution import Distribution
from rl_lab.distributions.independent import Independent, sum_last
from rl_lab.distributions.normal import Normal
from rl_lab.distributions.uniform import Uniform
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.elementwise import digamma, lgamma, softplus_plain

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
    return _weighted(p.probs, p.logits - q.logits, q.probs == 0).sum(-1)


def _weighted(p: Tensor, difference: Tensor, impossible: Tensor) -> Tensor:
    """Shares p of differences of logarithms: infinite where q makes impossible what p does not, and 0 where p is 0."""
    return where(p == 0, 0.0, where(impossible, math.inf, p * difference))


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones = _weighted(p.probs, softplus_plain(-q.logits) - softplus_plain(-p.logits), q.probs == 0)
    return ones + _weighted(1.0 - p.probs, softplus_plain(q.logits) - softplus_plain(p.logits), q.probs == 1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    failing = q.probs.masked_fill(p.probs == 1, 0.0)  # at p = 1 the first try succeeds, and failures do not count
    return -p.entropy() - (-failing).log1p() * (1.0 / p.probs - 1.0) - q.probs.log()


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio = p.scale / q.scale
    shift = (p.loc - q.loc).abs()
    return -ratio.log() + shift / q.scale + ratio * (-shift / p.scale).exp() - 1.0


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2).log() - (4.0 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    shift = (p.loc - q.loc) / q.scale
    return -ratio.log() + shift + ratio * EULER + (lgamma(1.0 + ratio) - shift).exp() - (1.0 + EULER)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1.0


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a = p.concentration
    b = q.concentration
    rates = b * (p.rate / q.rate).log() + (q.rate - p.rate) * a / p.rate
    return rates + lgamma(b) - lgamma(a) + (a - b) * digamma(a)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a = p.concentration
    b = q.concentration
    total = a.sum(-1)
    norms = lgamma(total) - lgamma(b.sum(-1)) + (lgamma(b) - lgamma(a)).sum(-1)
    return norms + ((a - b) * (digamma(a) - digamma(total).unsqueeze(-1))).sum(-1)


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> Tensor:
    return _of_normals(p.loc, p.scale, q.loc, q.scale)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio - 1.0 - ratio.log())


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    return _of_normals(p.loc, p.scale, q.loc, q.scale)


def _of_normals(mean: Tensor, scale: Tensor, other_mean: Tensor, other_scale: Tensor) -> Tensor:
    """The divergence between two normal distributions."""
    ratio = (scale / other_scale) ** 2
    shift = ((mean - other_mean) / other_scale) ** 2
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
