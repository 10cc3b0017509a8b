"""Distributions over integers and classes: Poisson, geometric, one-hot; their relaxations; and mixtures."""

import math
from collections.abc import Sequence

import rl_lab.engine.random as random
from rl_lab.distributions import constraints
from rl_lab.distributions.bernoulli import Bernoulli
from rl_lab.distributions.categorical import Categorical
from rl_lab.distributions.constraints import Constraint
from rl_lab.distributions.continuous import _uniform
from rl_lab.distributions.distribution import Distribution, TensorLike, broadcast_all
from rl_lab.distributions.transforms import BELOW_ONE, TINY, SigmoidTransform
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import xlogy
from rl_lab.engine.ops.creation import as_tensor, eye, zeros
from rl_lab.engine.ops.elementwise import lgamma, softplus_plain
from rl_lab.engine.ops.reduction import log_softmax, logsumexp
from rl_lab.engine.tape import no_grad


class Poisson(Distribution):
    """Poisson distribution: the number of events that happen at a mean number of ``rate``. Samples are float32."""

    arg_constraints = {"rate": constraints.nonnegative}

    def __init__(self, rate: TensorLike, validate_args: bool | None = None):
        (self.rate,), shape = broadcast_all(rate)
        super().__init__(shape, (), validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return random.poisson(self.rate.detach().expand(self._extended_shape(sample_shape)), generator)

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative_integer

    def log_prob(self, value: Tensor) -> Tensor:
        k = self._valid(value).float()
        return xlogy(k, self.rate) - self.rate - lgamma(k + 1)


class Geometric(Distribution):
    """Number of failures before the first success, which has probability ``probs``, or sigmoid(``logits``). Samples are float32.

    Raises ValueError unless exactly one of the two is given.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, probs: TensorLike | None = None, logits: TensorLike | None = None, validate_args: bool | None = None):
        trial = Bernoulli(probs, logits, validate_args)
        self.probs = trial.probs
        self.logits = trial.logits
        super().__init__(trial.batch_shape, (), validate_args)
        self._check("probs", self.probs, self.probs > 0, "positive")

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return self.probs * 0.0

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        with no_grad():
            u = _uniform(self._extended_shape(sample_shape), generator)
            return (u.log() / (-self.probs).log1p()).floor()

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative_integer

    def log_prob(self, value: Tensor) -> Tensor:
        k = self._valid(value).float()
        # at p = 1 a value of 0 is certain, and its failures do not count
        failing = self.probs.masked_fill((self.probs == 1) & (k == 0), 0.0)
        return k * (-failing).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return (self.probs * softplus_plain(-self.logits) + (1.0 - self.probs) * softplus_plain(self.logits)) / self.probs


class OneHotCategorical(Distribution):
    """`Categorical` whose samples are one-hot vectors (..., classes), float32."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, probs: TensorLike | None = None, logits: TensorLike | None = None, validate_args: bool | None = None):
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.logits.shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        """Probabilities (..., classes), which sum to 1."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return self._one_hot(self._categorical.mode)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1.0 - self.probs)

    def _one_hot(self, classes: Tensor) -> Tensor:
        return zeros(*classes.shape, *self._event_shape).scatter(-1, classes.unsqueeze(-1), 1.0)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        with no_grad():
            return self._one_hot(self._categorical.sample(sample_shape, generator=generator))

    @property
    def support(self) -> Constraint:
        return constraints.one_hot

    has_enumerate_support = True

    def _all_values(self) -> Tensor:
        return eye(self._event_shape[0])

    def log_prob(self, value: Tensor) -> Tensor:
        return self._categorical.log_prob(self._valid(value).argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` with a straight-through gradient: samples have the gradient of the probabilities (Bengio et al. 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        return self.sample(sample_shape, generator=generator) + (self.probs - self.probs.detach())


class RelaxedBernoulli(Distribution):
    """Relaxation of `Bernoulli` to (0, 1): near 0 and 1 for a low ``temperature`` (Maddison, Mnih and Teh 2017)."""

    has_rsample = True
    arg_constraints = {"temperature": constraints.positive, "probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(
        self,
        temperature: TensorLike,
        probs: TensorLike | None = None,
        logits: TensorLike | None = None,
        validate_args: bool | None = None,
    ):
        trial = Bernoulli(probs, logits, validate_args)
        self.temperature = as_tensor(temperature).float()
        super().__init__(trial.batch_shape, (), validate_args)
        self.probs = trial.probs
        self.logits = trial.logits

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        u = _uniform(self._extended_shape(sample_shape), generator)
        return SigmoidTransform()((self.logits + u.log() - (-u).log1p()) / self.temperature)

    @property
    def support(self) -> Constraint:
        return constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._valid(value).float().clamp(TINY, BELOW_ONE)  # as for the samples: 0 and 1 have no logit
        logit = x.log() - (-x).log1p()
        difference = self.logits - logit * self.temperature
        return self.temperature.log() + difference - 2.0 * softplus_plain(difference) - x.log() - (-x).log1p()


class RelaxedOneHotCategorical(Distribution):
    """Relaxation of `OneHotCategorical` to probabilities, the Gumbel-softmax distribution (Jang, Gu and Poole 2017)."""

    has_rsample = True
    arg_constraints = {"temperature": constraints.positive, "probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self,
        temperature: TensorLike,
        probs: TensorLike | None = None,
        logits: TensorLike | None = None,
        validate_args: bool | None = None,
    ):
        base = Categorical(probs, logits, validate_args)
        self.temperature = as_tensor(temperature).float()
        super().__init__(base.batch_shape, base.logits.shape[-1:], validate_args)
        self.logits = base.logits
        self.probs = base.probs

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        noise = -(-_uniform(self._extended_shape(sample_shape), generator).log()).log()
        scores = (self.logits + noise) / self.temperature
        return (scores - logsumexp(scores, -1, keepdim=True)).exp()

    @property
    def support(self) -> Constraint:
        return constraints.simplex

    def log_prob(self, value: Tensor) -> Tensor:
        x = self._valid(value).float()
        classes = float(self._event_shape[0])
        scale = math.lgamma(classes) + (classes - 1.0) * self.temperature.log()
        score = log_softmax(self.logits - self.temperature * x.log(), -1).sum(-1)
        return score - x.log().sum(-1) + scale


class MixtureSameFamily(Distribution):
    """Mixture of the distributions in the last batch dimension of ``component_distribution``, weighted by a `Categorical`.

    Raises ValueError if the batch shapes do not fit.
    """

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution, validate_args: bool | None = None
    ):
        shape = component_distribution.batch_shape
        count = mixture_distribution.logits.shape[-1]
        if not shape or shape[-1] != count or mixture_distribution.batch_shape not in ((), shape[:-1]):
            raise ValueError(
                f"MixtureSameFamily: {count} weights of batch shape {mixture_distribution.batch_shape} do not fit components of batch "
                f"shape {shape}"
            )
        self.mixture_distribution = mixture_distribution
        self.component_distribution = component_distribution
        super().__init__(shape[:-1], component_distribution.event_shape, validate_args)

    def _weights(self) -> Tensor:
        probs = self.mixture_distribution.probs
        return probs.reshape(*probs.shape, *[1] * len(self._event_shape))

    @property
    def _dim(self) -> int:
        """The dimension of the components, from the end."""
        return -1 - len(self._event_shape)

    @property
    def support(self) -> Constraint:
        base = self.component_distribution.support
        return Constraint(base.text, lambda x: base.check(x.unsqueeze(self._dim)).all(-1), base.event_dim, base.is_discrete)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(self._dim)

    @property
    def variance(self) -> Tensor:
        means = self.component_distribution.mean
        within = (self._weights() * self.component_distribution.variance).sum(self._dim)
        between = (self._weights() * (means - self.mean.unsqueeze(self._dim)) ** 2).sum(self._dim)
        return within + between

    def sample(self, sample_shape: Sequence[int] = (), *, generator: random.Generator | None = None) -> Tensor:
        with no_grad():
            sample_shape = tuple(sample_shape)
            values = self.component_distribution.sample(sample_shape, generator=generator)
            mixing = self.mixture_distribution
            if mixing.batch_shape != self._batch_shape:
                mixing = Categorical(
                    logits=mixing.logits.expand(*self._batch_shape, mixing.logits.shape[-1]), validate_args=False
                )
            chosen = mixing.sample(sample_shape, generator=generator)
            index = chosen.reshape(*chosen.shape, 1, *[1] * len(self._event_shape))
            index = index.expand(*chosen.shape, 1, *self._event_shape)
            return values.gather(len(chosen.shape), index).squeeze(self._dim)

    def log_prob(self, value: Tensor) -> Tensor:
        x = as_tensor(value).float().unsqueeze(self._dim)
        return logsumexp(self.component_distribution.log_prob(x) + self.mixture_distribution.logits, -1)
