"""Probability distributions with PyTorch's names. Samples are drawn from the ``generator`` passed to the call."""

from typing import TYPE_CHECKING

from rl_lab.distributions import constraints, transforms
from rl_lab.distributions.bernoulli import Bernoulli
from rl_lab.distributions.beta import Beta
from rl_lab.distributions.categorical import Categorical
from rl_lab.distributions.continuous import (
    Cauchy,
    Chi2,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    StudentT,
)
from rl_lab.distributions.discrete import (
    Geometric,
    MixtureSameFamily,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
)
from rl_lab.distributions.distribution import Distribution
from rl_lab.distributions.independent import Independent
from rl_lab.distributions.kl import kl_divergence, register_kl
from rl_lab.distributions.multivariate_normal import MultivariateNormal
from rl_lab.distributions.normal import Normal
from rl_lab.distributions.transformed_distribution import TransformedDistribution
from rl_lab.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    SigmoidTransform,
    TanhTransform,
    Transform,
)
from rl_lab.distributions.uniform import Uniform
from rl_lab.engine.names import not_covered

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = [
    "Cauchy",
    "Chi2",
    "Dirichlet",
    "Exponential",
    "Gamma",
    "Gumbel",
    "HalfNormal",
    "Laplace",
    "LogNormal",
    "StudentT",
    "Geometric",
    "MixtureSameFamily",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Poisson",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Categorical",
    "ComposeTransform",
    "Distribution",
    "ExpTransform",
    "Independent",
    "MultivariateNormal",
    "Normal",
    "SigmoidTransform",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "constraints",
    "kl_divergence",
    "register_kl",
    "transforms",
]
