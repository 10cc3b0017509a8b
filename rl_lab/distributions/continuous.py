"""Continuous distributions: exponential, Laplace, log-normal, gamma, Dirichlet, Cauchy, Student's t and relatives."""

import math
from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.distribution import HALF_LOG_2PI, Distribution, TensorLike, broadcast_all
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where, xlogy
from rl_lab.engine.ops.creation import arange, as_tensor, full
from rl_lab.engine.ops.elementwise import digamma, lgamma

TINY = 1.1754943508222875e-38
EULER = 0.57721566490153286


def _uniform(shape: tuple[int, ...], generator: random.Generator | None) -> Tensor:
    """Uniform numbers in (0, 1)."""
    return random.rand(*shape, generator=generator).clamp(TINY, 1.0 - 2.0**-24)


class _LocationScale(Distribution):
    """Base of the distributions of loc + scale * z, where the distribution of z has no parameters."""

    has_rsample = True
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: TensorLike, scale: TensorLike, validate_args: bool | None = None):
        (self.loc, self.scale), shape = broadcast_all(loc, scale)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    def _standard(self, shape: tuple[int, ...], generator: random.Generator | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no samples")

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.loc + self.scale * self._standard(self._extended_shape(sample_shape), generator)

    def _z(self, value: Tensor) -> Tensor:
        return (as_tensor(value).float() - self.loc) / self.scale


class Laplace(_LocationScale):
    """Laplace distribution with density exp(-|x - loc| / scale) / (2 scale)."""

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale**2

    def _standard(self, shape: tuple[int, ...], generator: random.Generator | None) -> Tensor:
        u = 2.0 * _uniform(shape, generator) - 1.0
        return -u.sign() * (-u.abs()).clamp(min=-1.0 + 2.0**-24).log1p()

    def log_prob(self, value: Tensor) -> Tensor:
        return -(2 * self.scale).log() - self._z(self._valid(value)).abs()

    def entropy(self) -> Tensor:
        return 1.0 + (2 * self.scale).log()

    def cdf(self, value: Tensor) -> Tensor:
        z = self._z(value)
        return 0.5 - 0.5 * z.sign() * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        term = as_tensor(value).float() - 0.5
        return self.loc - self.scale * term.sign() * (-2.0 * term.abs()).log1p()


class Cauchy(_LocationScale):
    """Cauchy distribution with density 1 / (pi scale (1 + z^2)), z = (x - loc) / scale. Its mean and variance do not exist."""

    @property
    def mean(self) -> Tensor:
        """NaN: the mean does not exist."""
        return full(self._batch_shape, float("nan"))

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return full(self._batch_shape, float("inf"))

    def _standard(self, shape: tuple[int, ...], generator: random.Generator | None) -> Tensor:
        return (math.pi * (_uniform(shape, generator) - 0.5)).tan()

    def log_prob(self, value: Tensor) -> Tensor:
        return -math.log(math.pi) - self.scale.log() - (self._z(self._valid(value)) ** 2).log1p()

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return self._z(value).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * (math.pi * (as_tensor(value).float() - 0.5)).tan()


class Gumbel(_LocationScale):
    """Gumbel distribution of the largest of many values."""

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * (math.pi**2 / 6)

    def _standard(self, shape: tuple[int, ...], generator: random.Generator | None) -> Tensor:
        return -(-_uniform(shape, generator).log()).log()

    def log_prob(self, value: Tensor) -> Tensor:
        z = self._z(self._valid(value))
        return -(z + (-z).exp()) - self.scale.log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1.0 + EULER)

    def cdf(self, value: Tensor) -> Tensor:
        return (-(-self._z(value)).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * (-as_tensor(value).float().log()).log()


class LogNormal(Distribution):
    """Distribution of exp(x) for x normal with mean ``loc`` and standard deviation ``scale``."""

    has_rsample = True
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: TensorLike, scale: TensorLike, validate_args: bool | None = None):
        (self.loc, self.scale), shape = broadcast_all(loc, scale)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale**2 / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale**2).exp()

    @property
    def variance(self) -> Tensor:
        square = self.scale**2
        return square.expm1() * (2 * self.loc + square).exp()

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        self._check_deviation(self.scale)
        return super().sample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return (self.loc + self.scale * random.randn(*self._extended_shape(sample_shape), generator=generator)).exp()

    @property
    def support(self) -> Constraint:
        return constraints.positive

    def log_prob(self, value: Tensor) -> Tensor:
        log = self._valid(value).float().log()
        return -(((log - self.loc) / self.scale) ** 2) / 2 - self.scale.log() - HALF_LOG_2PI - log

    def entropy(self) -> Tensor:
        return 0.5 + HALF_LOG_2PI + self.scale.log() + self.loc

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 * (1.0 + ((as_tensor(value).float().log() - self.loc) / (self.scale * 2**0.5)).erf())

    def icdf(self, value: Tensor) -> Tensor:
        return (self.loc + self.scale * (2.0 * as_tensor(value).float() - 1.0).erfinv() * 2**0.5).exp()


class HalfNormal(Distribution):
    """Distribution of the magnitude of a normal value with mean 0 and standard deviation ``scale``."""

    has_rsample = True
    arg_constraints = {"scale": constraints.positive}

    def __init__(self, scale: TensorLike, validate_args: bool | None = None):
        (self.scale,), shape = broadcast_all(scale)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> Tensor:
        return self.scale * 0.0

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * (1 - 2 / math.pi)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        self._check_deviation(self.scale)
        return super().sample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.scale * random.randn(*self._extended_shape(sample_shape), generator=generator).abs()

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._valid(value).float()
        density = math.log(2) - ((x / self.scale) ** 2) / 2 - self.scale.log() - HALF_LOG_2PI
        return where(x >= 0, density, density * 0.0 - float("inf"))

    def entropy(self) -> Tensor:
        return 0.5 + HALF_LOG_2PI - math.log(2) + self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return (as_tensor(value).float() / (self.scale * 2**0.5)).erf().clamp(min=0.0)

    def icdf(self, value: Tensor) -> Tensor:
        return self.scale * as_tensor(value).float().erfinv() * 2**0.5


class Exponential(Distribution):
    """Exponential distribution with density rate * exp(-rate x) on [0, inf)."""

    has_rsample = True
    arg_constraints = {"rate": constraints.positive}

    def __init__(self, rate: TensorLike, validate_args: bool | None = None):
        (self.rate,), shape = broadcast_all(rate)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate * 0.0

    @property
    def variance(self) -> Tensor:
        return self.rate**-2

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return -_uniform(self._extended_shape(sample_shape), generator).log() / self.rate

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative

    def log_prob(self, value: Tensor) -> Tensor:
        return self.rate.log() - self.rate * self._valid(value).float()

    def entropy(self) -> Tensor:
        return 1.0 - self.rate.log()

    def cdf(self, value: Tensor) -> Tensor:
        return -(-self.rate * as_tensor(value).float().clamp(min=0.0)).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return -(-as_tensor(value).float()).log1p() / self.rate


class Gamma(Distribution):
    """Gamma distribution with density proportional to x^(concentration - 1) exp(-rate x)."""

    has_rsample = True
    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}

    def __init__(self, concentration: TensorLike, rate: TensorLike, validate_args: bool | None = None):
        (self.concentration, self.rate), shape = broadcast_all(concentration, rate)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate**2

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return (random.standard_gamma(self.concentration.expand(shape), generator) / self.rate).clamp(min=TINY)

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._valid(value).float()
        a = self.concentration
        return xlogy(a, self.rate) + xlogy(a - 1, x) - self.rate * x - lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1.0 - a) * digamma(a)


class Chi2(Gamma):
    """Chi-squared distribution with ``df`` degrees of freedom: the sum of so many squared standard normal values."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: TensorLike, validate_args: bool | None = None):
        degrees = as_tensor(df).float()
        self.df = degrees
        super().__init__(0.5 * degrees, 0.5, validate_args)


class Dirichlet(Distribution):
    """Distribution over probabilities (..., classes) with density proportional to the product of x_k^(concentration_k - 1).

    Raises ValueError if ``concentration`` is a single number.
    """

    has_rsample = True
    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}

    def __init__(self, concentration: TensorLike, validate_args: bool | None = None):
        self.concentration = as_tensor(concentration).float()
        if self.concentration.dim() < 1:
            raise ValueError("Dirichlet needs concentrations of shape (..., classes), got a single number")
        super().__init__(self.concentration.shape[:-1], self.concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """The most probable value, by PyTorch's rules at the ends: the first class where all concentrations are below 1."""
        rises = (self.concentration - 1).clamp(min=0.0)
        first = arange(rises.shape[-1]) == 0
        return where((self.concentration < 1).all(-1, keepdim=True), first.float(), rises / rises.sum(-1, keepdim=True))

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total**2 * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return random.gamma_shares(self.concentration.expand(self._extended_shape(sample_shape)), -1, generator)

    @property
    def support(self) -> Constraint:
        return constraints.simplex

    def log_prob(self, value: Tensor) -> Tensor:
        a = self.concentration
        return xlogy(a - 1.0, self._valid(value).float()).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        total = a.sum(-1)
        rest = (a.shape[-1] - total) * digamma(total) + ((a - 1.0) * digamma(a)).sum(-1)
        return lgamma(a).sum(-1) - lgamma(total) - rest


class StudentT(Distribution):
    """Student's t-distribution with ``df`` degrees of freedom, moved by ``loc`` and stretched by ``scale``."""

    has_rsample = True
    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}

    def __init__(self, df: TensorLike, loc: TensorLike = 0.0, scale: TensorLike = 1.0, validate_args: bool | None = None):
        (self.df, self.loc, self.scale), shape = broadcast_all(df, loc, scale)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        """``loc``; NaN, since it does not exist, for at most one degree of freedom."""
        return self.loc.masked_fill(self.df <= 1, float("nan"))

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Infinite for one to two degrees of freedom, NaN below."""
        known = self.scale**2 * self.df / (self.df - 2)
        return known.masked_fill((self.df <= 2) & (self.df > 1), float("inf")).masked_fill(self.df <= 1, float("nan"))

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        shape = self._extended_shape(sample_shape)
        normal = random.randn(*shape, generator=generator)
        chi2 = (2.0 * random.standard_gamma((0.5 * self.df).expand(shape), generator)).clamp(min=TINY)
        return self.loc + self.scale * normal * (self.df / chi2).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        z = (self._valid(value).float() - self.loc) / self.scale
        half = 0.5 * self.df
        norm = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + lgamma(half) - lgamma(half + 0.5)
        return -(half + 0.5) * (z**2 / self.df).log1p() - norm

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        beta = lgamma(half) + lgamma(half * 0 + 0.5) - lgamma(half + 0.5)
        return self.scale.log() + (half + 0.5) * (digamma(half + 0.5) - digamma(half)) + 0.5 * self.df.log() + beta
