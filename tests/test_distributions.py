"""Distributions against scipy.stats: densities, entropies, samples, divergences and gradients, recorded and eager."""

import copy
import weakref

import numpy as np
import pytest
from scipy import special, stats

import rl_lab as rl
import rl_lab.distributions as d
from rl_lab.engine.kernels import random as random_kernels
from rl_lab.engine.launch import launch

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(4, 3)).astype(np.float32), RNG.uniform(0.3, 2.5, (4, 3)).astype(np.float32)
C = RNG.uniform(0.5, 4.0, (4, 3)).astype(np.float32)
P = RNG.uniform(0.05, 0.95, (4, 3)).astype(np.float32)
LOGITS = RNG.normal(size=(4, 5)).astype(np.float32)
PROBS = special.softmax(LOGITS.astype(float), 1)


def t(x):
    return rl.tensor(x)


SCALAR = {
    "Normal": (lambda: d.Normal(t(A), t(B)), stats.norm(A, B), lambda x: x),
    "Uniform": (lambda: d.Uniform(t(A), t(A + B)), stats.uniform(A, B), lambda x: x),
    "Beta": (lambda: d.Beta(t(B), t(C)), stats.beta(B, C), lambda x: np.clip(x, 1e-3, 1 - 1e-3)),
    "Bernoulli": (lambda: d.Bernoulli(probs=t(P)), stats.bernoulli(P), lambda x: x),
    "Bernoulli logits": (lambda: d.Bernoulli(logits=t(A)), stats.bernoulli(special.expit(A)), lambda x: x),
    "Laplace": (lambda: d.Laplace(t(A), t(B)), stats.laplace(A, B), lambda x: x),
    "Gumbel": (lambda: d.Gumbel(t(A), t(B)), stats.gumbel_r(A, B), lambda x: x),
    "HalfNormal": (lambda: d.HalfNormal(t(B)), stats.halfnorm(0, B), lambda x: x),
    "Exponential": (lambda: d.Exponential(t(B)), stats.expon(0, 1 / B), lambda x: x),
    "Gamma": (lambda: d.Gamma(t(C), t(B)), stats.gamma(C, scale=1 / B), lambda x: np.maximum(x, 1e-3)),
    "Chi2": (lambda: d.Chi2(t(C)), stats.chi2(C), lambda x: np.maximum(x, 1e-3)),
    "StudentT": (lambda: d.StudentT(t(C + 10), t(A), t(B)), stats.t(C.astype(float) + 10, A, B), lambda x: x),
    "Poisson": (lambda: d.Poisson(t(9 * C)), stats.poisson(9 * C), lambda x: x),
    "Geometric": (lambda: d.Geometric(t(P)), stats.geom(P, -1), lambda x: x),
    "log-normal": (
        lambda: d.TransformedDistribution(d.Normal(t(A), t(B)), d.ExpTransform()),
        stats.lognorm(B, scale=np.exp(A)),
        lambda x: x,
    ),
    "affine": (
        lambda: d.TransformedDistribution(d.Normal(t(A), t(B)), d.AffineTransform(2.0, -3.0)),
        stats.norm(2.0 - 3.0 * A, 3.0 * B),
        lambda x: x,
    ),
}


DISCRETE = ("Bernoulli", "Bernoulli logits", "Poisson", "Geometric")


@pytest.mark.parametrize("name", SCALAR)
def test_density_entropy_and_moments(name):
    make, reference, tidy = SCALAR[name]
    ours = make()
    values = tidy(reference.rvs((7, 4, 3), random_state=1)).astype(np.float32)
    density = reference.logpmf if name in DISCRETE else reference.logpdf
    assert ours.log_prob(t(values)).numpy() == pytest.approx(density(values), rel=2e-4, abs=2e-5)
    draws = ours.sample((20_000,), generator=rl.Generator(5)).numpy()
    assert draws.shape == (20_000, 4, 3)
    error = 5 * reference.std() / np.sqrt(20_000) + 1e-6
    if name != "log-normal":  # its variance is too large for this test
        assert (abs(draws.mean(0) - reference.mean()) < error).all()
        assert draws.std(0) == pytest.approx(reference.std(), rel=0.06)
    if not isinstance(ours, d.TransformedDistribution):
        if name != "Poisson":  # its entropy has no closed form
            assert ours.entropy().numpy() == pytest.approx(reference.entropy(), rel=2e-4, abs=2e-5)
        assert ours.mean.numpy() == pytest.approx(reference.mean(), rel=1e-5, abs=1e-6)
        assert ours.variance.numpy() == pytest.approx(reference.var(), rel=1e-4)
        assert ours.stddev.numpy() == pytest.approx(reference.std(), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in SCALAR if name not in DISCRETE])
def test_draws_follow_the_distribution(name):
    """Samples of each distribution pass a Kolmogorov-Smirnov test."""
    make, reference, _ = SCALAR[name]
    draws = make().sample((3000,), generator=rl.Generator(11)).numpy().reshape(3000, -1)
    for i in range(12):
        place = np.unravel_index(i, (4, 3))
        assert (
            stats.kstest(
                draws[:, i], lambda x, place=place: np.asarray(reference.cdf(x[:, None, None]))[(slice(None), *place)]
            ).pvalue
            > 1e-4
        )


def test_categorical():
    for ours in (d.Categorical(logits=t(LOGITS)), d.Categorical(probs=t((3 * PROBS).astype(np.float32)))):
        values = RNG.integers(0, 5, 4)
        assert ours.log_prob(t(values)).numpy() == pytest.approx(np.log(PROBS[np.arange(4), values]), abs=1e-5)
        many = RNG.integers(0, 5, (6, 4))
        assert ours.log_prob(t(many)).numpy() == pytest.approx(np.log(PROBS[np.arange(4), many]), abs=1e-5)
        assert ours.entropy().numpy() == pytest.approx(stats.entropy(PROBS, axis=1), rel=1e-5)
        assert ours.probs.numpy() == pytest.approx(PROBS, rel=1e-5)
        assert (ours.mode.numpy() == PROBS.argmax(1)).all()
        draws = ours.sample((40_000,), generator=rl.Generator(2)).numpy()
        assert draws.shape == (40_000, 4)
        shares = np.stack([(draws == k).mean(0) for k in range(5)], 1)
        assert shares == pytest.approx(PROBS, abs=0.013)
    one = d.Categorical(logits=t(LOGITS[0]))
    assert one.sample(generator=rl.Generator(1)).shape == ()
    assert one.sample((3, 2), generator=rl.Generator(1)).shape == (3, 2)


def test_events():
    independent = d.Independent(d.Normal(t(A), t(B)), 1)
    assert (independent.batch_shape, independent.event_shape) == ((4,), (3,))
    assert independent.log_prob(t(C)).numpy() == pytest.approx(stats.norm(A, B).logpdf(C).sum(1), rel=1e-5)
    assert independent.entropy().numpy() == pytest.approx(stats.norm(A, B).entropy().sum(1), rel=1e-5)
    covariance = np.stack([np.diag(b) for b in B])
    expected = [stats.multivariate_normal(a, np.diag(b)).logpdf(c) for a, b, c in zip(A, B, C, strict=True)]
    assert d.MultivariateNormal(t(A), t(covariance)).log_prob(t(C)).numpy() == pytest.approx(expected, rel=1e-5)
    scale = d.MultivariateNormal(t(A), scale_tril=t(np.sqrt(covariance)))
    assert scale.log_prob(t(C)).numpy() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="needs a diagonal matrix"):
        d.MultivariateNormal(t(A[0]), t(np.eye(3, dtype=np.float32) + 0.1))


def test_squashed_normal():
    """The density of a scaled tanh of a normal equals the change of variables in float64, also where tanh is flat."""
    base = d.Normal(t(A), t(B))
    squashed = d.TransformedDistribution(base, [d.TanhTransform(), d.AffineTransform(1.0, 2.0)])
    y = squashed.rsample((50,), generator=rl.Generator(3))
    x = np.arctanh((y.numpy().astype(float) - 1.0) / 2.0)
    safe = abs(x) < 3.5
    expected = stats.norm(A, B).logpdf(x) - np.log(2.0) - np.log1p(-(np.tanh(x) ** 2))
    assert squashed.log_prob(y).numpy()[safe] == pytest.approx(expected[safe], rel=2e-3, abs=2e-3)
    far = rl.tensor([20.0, -20.0])
    assert d.TanhTransform().log_abs_det_jacobian(far, far.tanh()).tolist() == pytest.approx([2 * (np.log(2) - 20)] * 2)


TRANSFORMS = [d.TanhTransform(), d.AffineTransform(0.5, -2.0), d.ExpTransform(), d.SigmoidTransform()]


@pytest.mark.parametrize("transform", [*TRANSFORMS, d.ComposeTransform(TRANSFORMS[:2])], ids=lambda f: type(f).__name__)
def test_transforms_go_back_and_know_their_slope(transform):
    x = rl.tensor(np.linspace(-1.5, 1.5, 21).astype(np.float32), requires_grad=True)
    y = transform(x)
    assert transform.inv(y).detach().numpy() == pytest.approx(x.detach().numpy(), abs=1e-5)
    (slope,) = rl.autograd.grad(y.sum(), x)
    assert transform.log_abs_det_jacobian(x, y).detach().numpy() == pytest.approx(np.log(abs(slope.numpy())), abs=1e-4)


PAIRS = {
    "Normal": (lambda: (d.Normal(t(A), t(B)), d.Normal(t(A * 0.5), t(C)))),
    "Beta": (lambda: (d.Beta(t(B + 1), t(C)), d.Beta(t(C), t(B + 1)))),
    "Bernoulli": (lambda: (d.Bernoulli(probs=t(P)), d.Bernoulli(logits=t(A)))),
    "Categorical": (lambda: (d.Categorical(logits=t(LOGITS)), d.Categorical(logits=t(LOGITS[::-1].copy())))),
    "Independent": (lambda: (d.Independent(d.Normal(t(A), t(B)), 1), d.Independent(d.Normal(t(A * 0.5), t(C)), 1))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_divergences_are_means_of_log_ratios(name):
    p, q = PAIRS[name]()
    x = p.sample((60_000,), generator=rl.Generator(4))
    if name == "Beta":
        x = x.clamp(1e-6, 1 - 1e-6)
    ratios = (p.log_prob(x) - q.log_prob(x)).numpy().astype(float)
    divergence = d.kl_divergence(p, q).numpy()
    error = 5 * ratios.std(0) / np.sqrt(60_000)
    assert (abs(ratios.mean(0) - divergence) < error + 1e-4).all()
    assert d.kl_divergence(p, p).numpy() == pytest.approx(0.0, abs=1e-5)


def test_a_divergence_without_a_rule():
    with pytest.raises(NotImplementedError, match="known for Normal and Beta"):
        d.kl_divergence(d.Normal(0.0, 1.0), d.Beta(1.0, 1.0))
    apart = d.kl_divergence(d.Uniform(0.0, 2.0), d.Uniform(0.0, 1.0))
    assert apart.item() == float("inf")


@pytest.mark.parametrize("name", ["Normal", "Beta", "Categorical", "Bernoulli"])
def test_gradients(name):
    """Gradients of log-probability and entropy equal central differences in float64."""
    first = LOGITS if name == "Categorical" else (B if name == "Beta" else A)
    value = {"Normal": C, "Beta": P, "Categorical": np.array([0, 2, 4, 1]), "Bernoulli": (P > 0.5).astype(np.float32)}[name]
    exact = {
        "Normal": lambda z: stats.norm(z, B).logpdf(C).sum(),
        "Beta": lambda z: stats.beta(z, C).logpdf(P).sum() + stats.beta(z, C).entropy().sum(),
        "Categorical": lambda z: (
            np.log(special.softmax(z, 1)[np.arange(4), value]).sum() + stats.entropy(special.softmax(z, 1), axis=1).sum()
        ),
        "Bernoulli": lambda z: (
            stats.bernoulli(special.expit(z)).logpmf(value).sum() + stats.bernoulli(special.expit(z)).entropy().sum()
        ),
    }[name]
    z = rl.tensor(first, requires_grad=True)
    made = {
        "Normal": lambda: d.Normal(z, t(B)),
        "Beta": lambda: d.Beta(z, t(C)),
        "Categorical": lambda: d.Categorical(logits=z),
        "Bernoulli": lambda: d.Bernoulli(logits=z),
    }[name]()
    (made.log_prob(t(value)).sum() + made.entropy().sum()).backward()
    numeric = np.zeros(first.shape)
    for place in np.ndindex(first.shape):
        shift = np.zeros(first.shape)
        shift[place] = 1e-5
        numeric[place] = (exact(first.astype(float) + shift) - exact(first.astype(float) - shift)) / 2e-5
    assert z.grad.numpy() == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_draws_carry_gradients_where_they_can():
    loc, scale = rl.tensor(A, requires_grad=True), rl.tensor(B, requires_grad=True)
    x = d.Normal(loc, scale).rsample(generator=rl.Generator(6))
    noise = (x.detach() - loc.detach()) / scale.detach()
    x.sum().backward()
    assert loc.grad.numpy() == pytest.approx(1.0)
    assert scale.grad.numpy() == pytest.approx(noise.numpy(), abs=1e-5)
    assert not d.Normal(loc, scale).sample().requires_grad
    with pytest.raises(NotImplementedError, match="Poisson has no reparametrised samples"):
        d.Poisson(1.0).rsample()


def test_the_gradient_of_a_gamma_deviate_keeps_its_probability():
    """Against finite differences of SciPy's quantiles, from the lower to the upper tail."""
    shapes = np.float32([1e-3, 0.1, 0.7, 1.0, 3.0, 20.0, 300.0, 9e3, 2e4, 1e6])[:, None]
    chances = np.array([1e-4, 0.05, 0.5, 0.9, 1 - 1e-4])
    deviates = special.gammaincinv(shapes.astype(float), chances)
    kept = deviates > 1e-30
    step = 1e-4 * shapes.astype(float)
    expected = (special.gammaincinv(shapes + step, chances) - special.gammaincinv(shapes - step, chances)) / (2 * step)
    x = rl.tensor(deviates.astype(np.float32))
    out = rl.empty(x.shape)
    a = rl.tensor(shapes).expand(x.shape).contiguous()
    launch(random_kernels.gamma_slope, (out, rl.ones_like(x), a, x), (x.numel(),))
    np.testing.assert_allclose(out.numpy()[kept], expected[kept], rtol=2e-4)


@pytest.mark.parametrize(
    ("make", "moment"),
    [
        (lambda a: d.Gamma(a, 2.0), lambda a: a / 2.0),
        (lambda a: d.Chi2(a), lambda a: a),
        (lambda a: d.Beta(a, 2.0), lambda a: a / (a + 2.0)),
        (lambda a: d.Dirichlet(rl.stack([a, a * 0 + 2.0], -1)), lambda a: a / (a + 2.0)),
        (lambda a: d.StudentT(a + 4.0), lambda a: (a + 4.0) / (a + 2.0)),
    ],
    ids=["Gamma", "Chi2", "Beta", "Dirichlet", "StudentT"],
)
def test_reparametrised_draws_have_the_gradient_of_their_mean(make, moment):
    a = rl.tensor(1.7, requires_grad=True)
    assert make(a).has_rsample
    draws = make(a).rsample((200_000,), generator=rl.Generator(3))
    draws = draws[..., 0] if draws.dim() > 1 else draws**2 if isinstance(make(a), d.StudentT) else draws
    found, right = rl.autograd.grad(draws.mean(), a)[0], rl.autograd.grad(moment(a), a)[0]
    assert found.item() == pytest.approx(right.item(), rel=0.1, abs=0.01)
    assert not make(a).sample().requires_grad
    slope = rl.autograd.grad(make(a).rsample(generator=rl.Generator(1)).sum(), a, create_graph=True)[0]
    with pytest.raises(rl.errors.StateError, match="again"):
        rl.autograd.grad(slope, a)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (d.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
        (d.Uniform(-1.0, 2.0), stats.uniform(-1.0, 3.0)),
        (d.Exponential(0.7), stats.expon(scale=1 / 0.7)),
        (d.Laplace(0.5, 2.0), stats.laplace(0.5, 2.0)),
        (d.Cauchy(0.5, 2.0), stats.cauchy(0.5, 2.0)),
        (d.Gumbel(0.5, 2.0), stats.gumbel_r(0.5, 2.0)),
        (d.LogNormal(0.5, 0.8), stats.lognorm(0.8, scale=np.exp(0.5))),
        (d.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, d.Distribution) else "",
)
def test_probabilities_and_quantiles(ours, theirs):
    chances = np.float32([0.01, 0.3, 0.5, 0.8, 0.99])
    quantiles = theirs.ppf(chances).astype(np.float32)
    np.testing.assert_allclose(ours.cdf(rl.tensor(quantiles)).numpy(), theirs.cdf(quantiles), atol=1e-5)
    np.testing.assert_allclose(ours.icdf(rl.tensor(chances)).numpy(), quantiles, rtol=1e-4, atol=1e-4)
    assert ours.perplexity().item() == pytest.approx(ours.entropy().exp().item())
    with pytest.raises(NotImplementedError, match="has no cdf"):
        d.Poisson(1.0).cdf(rl.ones(1))


@pytest.mark.parametrize("name", [*SCALAR, "Categorical"])
def test_recorded_equals_eager_bit_for_bit(name):
    make = SCALAR[name][0] if name in SCALAR else lambda: d.Categorical(logits=t(LOGITS))
    streams = rl.Generator(9), rl.Generator(9)
    parameters = rl.tensor(A), rl.tensor(B), rl.tensor(C), rl.tensor(P), rl.tensor(LOGITS)

    def draw(a, b, c, p, logits, generator):
        if name == "Categorical":
            made = d.Categorical(logits=logits)
        elif name == "Normal":
            made = d.Normal(a, b)
        elif name == "Beta":
            made = d.Beta(b, c)
        elif name.startswith("Bernoulli"):
            made = d.Bernoulli(probs=p) if name == "Bernoulli" else d.Bernoulli(logits=a)
        elif name == "Uniform":
            made = d.Uniform(a, a + b)
        else:
            made = d.TransformedDistribution(d.Normal(a, b), d.ExpTransform())
        x = made.sample(generator=generator)
        return x, made.log_prob(x)

    assert make().batch_shape == ((4,) if name == "Categorical" else (4, 3))
    recorded = rl.compile(lambda *tensors: draw(*tensors, streams[0]))
    for _ in range(3):
        for mine, yours in zip(recorded(*parameters), draw(*parameters, streams[1]), strict=True):
            assert (mine.numpy() == yours.numpy()).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d.Normal(0.0, -1.0), "Normal: scale must be positive"),
        (lambda: d.Normal(float("nan"), 1.0), "Normal: loc must be a number"),
        (lambda: d.Uniform(1.0, 1.0), "Uniform: low must be below high"),
        (lambda: d.Beta(0.0, 1.0), "Beta: concentration1 must be positive"),
        (lambda: d.Bernoulli(probs=1.5), "Bernoulli: probs must be between 0 and 1"),
        (lambda: d.Categorical(probs=rl.tensor([-1.0, 2.0])), "Categorical: probs must be non-negative"),
        (lambda: d.Categorical(), "either probs or logits"),
        (lambda: d.Independent(d.Normal(0.0, 1.0), 1), "has only 0 batch dimensions"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_torch_module_paths():
    from rl_lab.distributions.categorical import Categorical
    from rl_lab.distributions.kl import kl_divergence
    from rl_lab.distributions.normal import Normal
    from rl_lab.distributions.transformed_distribution import TransformedDistribution
    from rl_lab.distributions.transforms import TanhTransform

    for part in (Categorical, Normal, TransformedDistribution, TanhTransform, kl_divergence):
        assert getattr(d, part.__name__) is part


def test_the_gamma_function():
    x = np.concatenate([np.linspace(0.02, 3.0, 60), np.linspace(3.0, 40.0, 60)]).astype(np.float32)
    z = rl.tensor(x, requires_grad=True)
    y = rl.lgamma(z)
    assert y.detach().numpy() == pytest.approx(special.gammaln(x), rel=1e-5, abs=1e-6)
    (slope,) = rl.autograd.grad(y.sum(), z, create_graph=True)
    assert slope.detach().numpy() == pytest.approx(special.digamma(x), rel=1e-5, abs=1e-5)
    (bend,) = rl.autograd.grad(slope.sum(), z)
    assert bend.numpy() == pytest.approx(special.polygamma(1, x), rel=1e-5)


# --- further distributions -------------------------------------------------------------------------------------------

FURTHER = {
    "Cauchy": lambda: d.Cauchy(t(A), t(B)),
    "LogNormal": lambda: d.LogNormal(t(A), t(B)),
    "Dirichlet": lambda: d.Dirichlet(t(C)),
    "OneHotCategorical": lambda: d.OneHotCategorical(logits=t(LOGITS)),
    "OneHotCategoricalStraightThrough": lambda: d.OneHotCategoricalStraightThrough(t(P)),
    "RelaxedBernoulli": lambda: d.RelaxedBernoulli(0.7, t(P)),
    "RelaxedOneHotCategorical": lambda: d.RelaxedOneHotCategorical(0.7, logits=t(LOGITS)),
    "MixtureSameFamily": lambda: d.MixtureSameFamily(d.Categorical(t(P)), d.Normal(t(A), t(B))),
}


def test_density_of_a_log_normal_a_cauchy_and_a_dirichlet_distribution():
    values = np.abs(RNG.normal(size=(5, 4, 3))).astype(np.float32) + np.float32(0.1)
    assert FURTHER["LogNormal"]().log_prob(t(values)).numpy() == pytest.approx(
        stats.lognorm.logpdf(values, B, scale=np.exp(A)), abs=1e-4
    )
    assert FURTHER["Cauchy"]().log_prob(t(values)).numpy() == pytest.approx(stats.cauchy.logpdf(values, A, B), abs=1e-4)
    for i, row in enumerate(values[0] / values[0].sum(-1, keepdims=True)):
        reference = stats.dirichlet(C[i])
        assert d.Dirichlet(t(C[i])).log_prob(t(row)).item() == pytest.approx(
            reference.logpdf(row / row.sum(dtype=float)), abs=1e-3
        )
        assert d.Dirichlet(t(C[i])).entropy().item() == pytest.approx(reference.entropy(), abs=1e-3)
    draws = FURTHER["Dirichlet"]().sample((20_000,), generator=rl.Generator(1)).numpy()
    assert draws.mean(0) == pytest.approx(C / C.sum(-1, keepdims=True), abs=0.01)


def test_a_mixture_weighs_its_components():
    ours = FURTHER["MixtureSameFamily"]()
    weights = P / P.sum(-1, keepdims=True)
    values = RNG.normal(size=(5, 4)).astype(np.float32)
    expected = np.log((weights * stats.norm.pdf(values[..., None], A, B)).sum(-1))
    assert ours.log_prob(t(values)).numpy() == pytest.approx(expected, abs=1e-4)
    draws = ours.sample((40_000,), generator=rl.Generator(3)).numpy()
    assert draws.mean(0) == pytest.approx(ours.mean.numpy(), abs=0.05)
    assert draws.var(0) == pytest.approx(ours.variance.numpy(), rel=0.05, abs=0.05)
    with pytest.raises(ValueError, match="do not fit"):
        d.MixtureSameFamily(d.Categorical(t(P)), d.Normal(t(A[:, :2]), t(B[:, :2])))


def test_one_hot_samples_and_their_gradient():
    drawn = FURTHER["OneHotCategorical"]().sample((20_000,), generator=rl.Generator(1)).numpy()
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert (drawn.sum(-1) == 1).all()
    assert drawn.mean(0) == pytest.approx(PROBS, abs=0.02)
    logits = rl.tensor(LOGITS, requires_grad=True)
    d.OneHotCategoricalStraightThrough(logits=logits).rsample(generator=rl.Generator(2))[:, 0].sum().backward()
    expected = PROBS[:, :1] * (np.eye(5)[0] - PROBS)
    assert logits.grad.numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", [*FURTHER, *[name for name in SCALAR if name[0].isupper()]])
def test_recorded_samples_and_densities_are_those_of_eager_code(name):
    ours = FURTHER[name]() if name in FURTHER else SCALAR[name][0]()

    def draw(stream):
        x = ours.sample((3,), generator=stream)
        return x, ours.log_prob(x)

    eager, recorded = rl.Generator(7), rl.Generator(7)
    compiled = rl.compile(lambda: draw(recorded))
    for _ in range(3):
        for expected, actual in zip(draw(eager), compiled(), strict=True):
            assert expected.numpy().tobytes() == actual.numpy().tobytes()
    assert compiled.why is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: d.Laplace(0.0, -1.0),
        lambda: d.Exponential(0.0),
        lambda: d.Gamma(-1.0, 1.0),
        lambda: d.Dirichlet([1.0, 0.0]),
        lambda: d.Dirichlet(1.0),
        lambda: d.Poisson(-1.0),
        lambda: d.Geometric(probs=0.0),
        lambda: d.StudentT(0.0),
        lambda: d.RelaxedBernoulli(0.0, 0.5),
    ],
)
def test_further_parameters_that_are_refused(make):
    with pytest.raises(ValueError, match=r"must be|needs"):
        make()


def test_probabilities_that_were_first_asked_for_without_gradients_have_one():
    logits = rl.tensor(LOGITS, requires_grad=True)
    ours = d.Categorical(logits=logits)
    with rl.no_grad():
        ours.sample(generator=rl.Generator(1))
    ours.entropy().sum().backward()
    again = rl.tensor(LOGITS, requires_grad=True)
    d.Categorical(logits=again).entropy().sum().backward()
    assert logits.grad.tolist() == again.grad.tolist()


# --- divergences and supports ----------------------------------------------------------------------------------------

OTHER_PAIRS = {
    "Laplace": ((0.3, 1.2), (-1.0, 0.9)),
    "Gumbel": ((0.3, 0.8), (-0.5, 0.9)),
    "LogNormal": ((0.3, 0.6), (-0.2, 0.9)),
    "HalfNormal": ((1.2,), (1.7,)),
    "Exponential": ((1.2,), (0.7,)),
    "Gamma": ((2.2, 2.0), (1.4, 1.3)),
    "Chi2": ((3.0,), (4.0,)),
    "Poisson": ((1.2,), (2.4,)),
    "Geometric": ((0.5,), (0.4,)),
    "Beta": ((2.0, 3.0), (1.5, 1.2)),
    "Dirichlet": (([1.0, 2.0, 1.5],), ([1.3, 1.3, 2.0],)),
    "OneHotCategorical": (([0.2, 0.3, 0.5],), ([0.4, 0.4, 0.2],)),
    "Cauchy": ((0.3, 1.2), (-1.0, 0.9)),
}


@pytest.mark.parametrize("name", OTHER_PAIRS)
def test_a_divergence_is_the_mean_of_the_difference_of_logarithms(name):
    kind = getattr(rl.distributions, name)
    p, q = (kind(*[rl.tensor(value) for value in given]) for given in OTHER_PAIRS[name])
    with rl.no_grad():
        x = p.sample((100_000,), generator=rl.Generator(3))
        if name == "Dirichlet":
            x = x / x.sum(-1, keepdim=True)
        differences = (p.log_prob(x) - q.log_prob(x)).numpy().astype(np.float64)
        found = rl.distributions.kl_divergence(p, q).item()
        assert rl.distributions.kl_divergence(p, p).item() == pytest.approx(0.0, abs=2e-6)
    error = differences.std() / len(differences) ** 0.5
    assert abs(differences.mean() - found) < 4 * error


@pytest.mark.parametrize("name", ["Categorical", "OneHotCategorical"])
def test_impossible_classes_count_nothing_or_infinitely(name):
    kind = getattr(rl.distributions, name)
    masked, other, all_possible = (
        kind(logits=rl.tensor(logits)) for logits in ([0.0, -np.inf, 1.0], [0.0, -np.inf, 2.0], [0.0, 1.0, 1.0])
    )

    def by_hand(p, q):
        p, q = (np.exp(x - np.log(np.exp(x).sum())) for x in (np.array(p), np.array(q)))
        return float((p * np.log(p / q)).sum())

    divergence = rl.distributions.kl_divergence
    assert divergence(masked, other).item() == pytest.approx(by_hand([0, 1.0], [0, 2.0]), rel=1e-5)
    assert 0 < divergence(masked, all_possible).item() < 1
    assert divergence(all_possible, masked).item() == np.inf


def test_the_divergence_of_certain_bernoullis():
    p, q = (
        rl.distributions.Bernoulli(rl.tensor(given))
        for given in ([0.0, 1.0, 0.5, 0.5, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    )
    assert rl.distributions.kl_divergence(p, q).tolist() == [np.inf] * 4 + [0.0] * 2


AT_THE_ENDS = [
    ("Beta", (1.0, 1.0), [0.0, 1.0], [0.0, 0.0]),
    ("Beta", (1.0, 2.0), [0.0, 1.0], [np.log(2), -np.inf]),
    ("Gamma", (1.0, 2.0), [0.0], [np.log(2)]),
    ("Chi2", (2.0,), [0.0], [-np.log(2)]),
    ("Dirichlet", ([1.0, 1.0],), [0.0, 1.0], 0.0),
    ("Geometric", (1.0,), [0.0], [0.0]),
    ("Uniform", (0.0, 2.0), [0.0, 2.0], [-np.log(2), -np.inf]),
]


@pytest.mark.parametrize(("name", "given", "value", "expected"), AT_THE_ENDS)
def test_densities_at_the_ends_of_the_support(name, given, value, expected):
    parameters = [rl.tensor(number, requires_grad=True) for number in given]
    found = getattr(rl.distributions, name)(*parameters).log_prob(rl.tensor(value))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6)
    found.flatten()[0].backward()
    assert all(np.isfinite(parameter.grad.numpy()).all() for parameter in parameters)


OUTSIDE = [
    ("Categorical", ([0.2, 0.8],), [1.7, -1.0, 2.0]),
    ("Bernoulli", (0.5,), [3.0, 0.5]),
    ("OneHotCategorical", ([0.2, 0.3, 0.5],), [[0.2, 0.2, 0.2], [1.0, 1.0, 0.0], [1.0, 0.0]]),
    ("Dirichlet", ([2.0, 2.0, 2.0],), [[0.2, 0.2, 0.2], [1.5, -0.5, 0.0]]),
    ("Normal", (0.0, 1.0), [np.nan]),
    ("Laplace", (0.0, 1.0), [np.nan]),
    ("StudentT", (3.0,), [np.nan]),
    ("Uniform", (0.0, 1.0), [3.0, -0.1, np.nan]),
    ("Gamma", (1.0, 1.0), [-3.7]),
    ("Chi2", (2.0,), [-1.0]),
    ("Poisson", (1.0,), [-1.0, 2.5]),
    ("Geometric", (0.5,), [-1.0, 2.5]),
    ("Beta", (1.0, 1.0), [1.5, -0.1]),
    ("Exponential", (1.0,), [-1.0]),
    ("LogNormal", (0.0, 1.0), [-1.0, 0.0]),
    ("HalfNormal", (1.0,), [-1.0]),
]


@pytest.mark.parametrize(("name", "given", "values"), OUTSIDE, ids=[name for name, *_ in OUTSIDE])
def test_a_value_outside_of_the_support_is_refused(name, given, values):
    kind = getattr(rl.distributions, name)
    parameters = [rl.tensor(number) for number in given]
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: a value lies outside of the support"):
            kind(*parameters).log_prob(rl.tensor(value))
    if name not in ("Categorical", "OneHotCategorical"):
        kind(*parameters, validate_args=False).log_prob(rl.tensor(values[0]))


# --- larger batches, and all values ----------------------------------------------------------------------------------

EXPANDED = {
    **{name: lambda name=name: getattr(d, name)(*[t(value) for value in OTHER_PAIRS[name][0]]) for name in OTHER_PAIRS},
    "Normal": lambda: d.Normal(t(A[0]), t(B[0])),
    "Categorical": lambda: d.Categorical(logits=t(LOGITS[:3])),
    "Bernoulli": lambda: d.Bernoulli(probs=t(P[0])),
    "Uniform": lambda: d.Uniform(t(A[0]), t(A[0] + B[0])),
    "StudentT": lambda: d.StudentT(t(C[0]), t(A[0]), t(B[0])),
    "Independent": lambda: d.Independent(d.Normal(t(A), t(B)), 1),
    "MultivariateNormal": lambda: d.MultivariateNormal(t(A), scale_tril=rl.diag_embed(t(B))),
    "log-normal": lambda: d.TransformedDistribution(d.Normal(t(A[0]), t(B[0])), d.ExpTransform()),
    "mixture": lambda: d.MixtureSameFamily(d.Categorical(logits=t(A)), d.Normal(t(A), t(B))),
    "RelaxedBernoulli": lambda: d.RelaxedBernoulli(rl.tensor(0.5), probs=t(P[0])),
}


@pytest.mark.parametrize("name", EXPANDED)
def test_an_expanded_batch_has_the_same_distributions(name):
    one = EXPANDED[name]()
    many = one.expand((2, *one.batch_shape))
    assert many.batch_shape == (2, *one.batch_shape)
    assert one.batch_shape == EXPANDED[name]().batch_shape
    drawn = many.sample((5,), generator=rl.Generator(1))
    assert drawn.shape == (5, 2, *one.batch_shape, *one.event_shape)
    if name == "Dirichlet":
        drawn = rl.tensor([0.25, 0.25, 0.5]).expand(drawn.shape)
    with rl.no_grad():
        np.testing.assert_array_equal(many.log_prob(drawn).numpy(), one.log_prob(drawn).numpy())
    if any(size > 1 for size in one.batch_shape):
        with pytest.raises(RuntimeError):
            one.expand([size + 1 for size in one.batch_shape])


def test_all_values_of_a_distribution_can_be_listed():
    logits = rl.tensor(LOGITS)
    values = d.Categorical(logits=logits).enumerate_support()
    assert values.shape == (5, 4)
    assert values[:, 2].tolist() == [0, 1, 2, 3, 4]
    assert d.Categorical(logits=logits).enumerate_support(expand=False).shape == (5, 1)
    assert d.Bernoulli(probs=t(P)).enumerate_support()[:, 1, 2].tolist() == [0.0, 1.0]
    one_hot = d.OneHotCategorical(logits=logits)
    assert one_hot.enumerate_support()[:, 3].tolist() == np.eye(5).tolist()
    total = one_hot.log_prob(one_hot.enumerate_support()).exp().sum(0)
    np.testing.assert_allclose(total.numpy(), 1.0, atol=1e-5)
    assert not d.Normal.has_enumerate_support
    with pytest.raises(NotImplementedError, match="cannot be listed"):
        d.Normal(0.0, 1.0).enumerate_support()


# --- transforms of users, caches and events ----------------------------------------------------------------------------


class OwnTanh(d.transforms.Transform):
    """A transform as torch scripts write it."""

    domain = d.constraints.real
    codomain = d.constraints.interval(-1.0, 1.0)
    bijective = True
    sign = 1

    def __init__(self, cache_size=1):
        super().__init__(cache_size=cache_size)

    def _call(self, x):
        return x.tanh()

    def _inverse(self, y):
        return 0.5 * (y.log1p() - (-y).log1p())

    def log_abs_det_jacobian(self, x, y):
        return 2.0 * (np.log(2.0) - x - rl.nn.functional.softplus(-2.0 * x))


CACHED = {
    "tanh": d.TanhTransform,
    "own": OwnTanh,
    "sigmoid": d.SigmoidTransform,
    "exp": d.ExpTransform,
    "affine": lambda cache_size: d.AffineTransform(1.0, 2.0, cache_size=cache_size),
    "composed": lambda cache_size: d.ComposeTransform([d.TanhTransform(), d.AffineTransform(1.0, 2.0)], cache_size=cache_size),
}


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_gives_back_the_tensor_that_a_sample_came_from(name):
    made = CACHED[name](cache_size=1)
    for transform in (made, made.with_cache(0).with_cache()):
        x = rl.tensor([30.0])
        y = transform(x)
        assert transform.inv(y) is x
        assert transform(x) is y
        assert transform.inv.inv is transform
        assert transform.inv.log_abs_det_jacobian(y, x).tolist() == (-transform.log_abs_det_jacobian(x, y)).tolist()
        assert copy.deepcopy(transform)(x).tolist() == y.tolist()
        if name != "composed":  # its parts remember the pairs
            dropped = weakref.ref(x)
            del x, y
            assert dropped() is None
    x = rl.tensor([30.0])
    plain = made.with_cache(0)
    assert plain.inv(plain(x)) is not x
    loc = rl.zeros(256, 6, requires_grad=True)
    squashed = d.TransformedDistribution(d.Normal(loc, 9.0), [made])
    log_prob = squashed.log_prob(squashed.rsample(generator=rl.Generator(0)))
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert loc.grad.isfinite().all()
    assert squashed.log_prob(squashed.sample(generator=rl.Generator(0))).tolist() == log_prob.tolist()


@pytest.mark.parametrize("lasting", [False, True])
def test_a_recorded_function_uses_the_cache_of_a_transform(lasting):
    transform = d.TanhTransform(cache_size=1)
    loc = rl.zeros(8, 6, requires_grad=True)
    streams = rl.Generator(4), rl.Generator(4)

    def draw(stream):
        squashed = d.TransformedDistribution(d.Normal(loc, 30.0), transform if lasting else d.TanhTransform(cache_size=1))
        loc.grad = None
        squashed.log_prob(squashed.rsample(generator=stream)).sum().backward()
        return loc.grad

    recorded = rl.compile(lambda: draw(streams[0]))
    for _ in range(4):
        assert recorded().tolist() == draw(streams[1]).tolist()
    assert (len(recorded.programs), recorded.why) == (1, None)


def test_a_cache_has_the_size_0_or_1():
    for make in (d.TanhTransform, d.TanhTransform().with_cache):
        with pytest.raises(ValueError, match="cache_size must be 0 or 1, got 2"):
            make(2)


def test_samples_at_the_ends_of_a_sigmoid_have_a_density():
    saturated = d.TransformedDistribution(d.Normal(0.0, 1.0), [d.SigmoidTransform()])
    assert saturated.log_prob(rl.tensor([0.0, 1.0])).tolist() == pytest.approx([-3727.4185, -112.0564])
    assert saturated.transforms[0](rl.tensor([-200.0, 200.0])).tolist() == [2.0**-126, 1 - 2.0**-23]
    relaxed = d.RelaxedBernoulli(0.1, logits=rl.zeros(1000))
    assert relaxed.log_prob(relaxed.sample((100,), generator=rl.Generator(1))).isfinite().all()
    assert relaxed.log_prob(rl.tensor([0.0])).isfinite().all()


EVENTS = [  # base, transforms, batch shape, event shape, density at zeros (the first of the batch)
    (lambda: d.Normal(rl.zeros(3), 1.0), [d.AffineTransform(0.0, 2.0, event_dim=1)], (), (3,), -4.8362570),
    (lambda: d.Normal(rl.zeros(4, 3), 1.0), [d.AffineTransform(0.0, 2.0, 2)], (), (4, 3), -19.3450279),
    (lambda: d.Normal(rl.zeros(4, 3), 1.0), [d.TanhTransform(), d.AffineTransform(0.0, 2.0, 1)], (4,), (3,), -4.8362570),
    (lambda: d.Independent(d.Normal(rl.zeros(4, 3), 1.0), 1), [d.AffineTransform(0.0, 2.0)], (4,), (3,), -4.8362570),
    (lambda: d.Normal(0.0, 1.0), [d.AffineTransform(rl.zeros(3), 2.0)], (3,), (), -1.6120857),
    (lambda: d.Normal(rl.zeros(1), 1.0), [d.AffineTransform(rl.zeros(3), 2.0, 1)], (), (3,), -4.8362570),
]


@pytest.mark.parametrize(("base", "transforms", "batch_shape", "event_shape", "density"), EVENTS)
def test_an_event_of_a_transform_is_one_of_the_distribution(base, transforms, batch_shape, event_shape, density):
    made = d.TransformedDistribution(base(), transforms)
    for shaped, batch in ((made, batch_shape), (made.expand((2, *batch_shape)), (2, *batch_shape))):
        assert (shaped.batch_shape, shaped.event_shape) == (batch, event_shape)
        drawn = shaped.sample((5,), generator=rl.Generator(1))
        assert drawn.shape == (5, *batch, *event_shape)
        assert shaped.support.check(drawn).shape == (5, *batch)
        found = shaped.log_prob(drawn * 0.0)
        assert found.shape == (5, *batch)
        np.testing.assert_allclose(found.numpy(), density, rtol=1e-6)
    with pytest.raises(ValueError, match="the transforms take events of 1 dimensions"):
        d.TransformedDistribution(d.Normal(0.0, 1.0), d.AffineTransform(0.0, 2.0, event_dim=1))


ROWS = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [-1.0, 2.0, 0.0], [np.nan, 1.0, 0.0]], np.float32)
CONSTRAINTS = [
    (d.constraints.real, [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]]),
    (d.constraints.real_vector, [1, 1, 1, 0]),
    (d.constraints.positive, [[0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]]),
    (d.constraints.independent(d.constraints.nonnegative, 1), [1, 1, 0, 0]),
    (d.constraints.unit_interval, [[1, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 1]]),
    (d.constraints.interval(0.5, 2.0), [[0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]]),
    (d.constraints.simplex, [1, 1, 0, 0]),
    (d.constraints.one_hot, [1, 0, 0, 0]),
    (d.constraints.boolean, [[1, 1, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]]),
    (d.constraints.nonnegative_integer, [[1, 1, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1]]),
    (d.constraints.integer_interval(-1, 1), [[1, 1, 1], [0, 0, 1], [1, 0, 1], [0, 1, 1]]),
]


@pytest.mark.parametrize(("constraint", "expected"), CONSTRAINTS, ids=lambda value: getattr(value, "text", ""))
def test_constraints_tell_members_from_other_values(constraint, expected):
    held = constraint.check(rl.tensor(ROWS))
    assert held.dtype is rl.bool
    assert held.tolist() == np.array(expected, bool).tolist()
    assert constraint.event_dim == 2 - held.dim()


@pytest.mark.parametrize("name", [*SCALAR, *FURTHER])
def test_samples_lie_in_the_support_and_parameters_fit_their_constraints(name):
    made = {**FURTHER, **SCALAR}[name]
    made = made() if name in FURTHER else made[0]()
    inside = made.support.check(made.sample((50,), generator=rl.Generator(1)))
    assert inside.shape == (50, *made.batch_shape)
    assert inside.all()
    assert all(constraint.check(getattr(made, key)).all() for key, constraint in made.arg_constraints.items())


def test_checks_can_be_turned_off_for_all_distributions():
    d.Distribution.set_default_validate_args(False)
    try:
        d.Normal(0.0, -1.0).log_prob(float("nan"))
    finally:
        d.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="takes True or False"):
        d.Distribution.set_default_validate_args(None)


# --- small concentrations, broadcasts and refusals ---------------------------------------------------------------------


@pytest.mark.parametrize("concentration", [1e-7, 1e-3, 0.05])
def test_samples_of_small_concentrations_lie_inside_of_the_support(concentration):
    """Nearly all samples are at a corner; each corner is equally probable, and the gradient is finite."""
    for make in (lambda a: d.Beta(a[0], a[1]), lambda a: d.Dirichlet(a.t())):
        parameters = rl.full((2, 20_000), concentration, requires_grad=True)
        drawn = make(parameters).rsample(generator=rl.Generator(2))
        first = drawn if drawn.dim() == 1 else drawn[:, 0]
        values = first.detach().numpy()
        assert values.min() >= 2.0**-126
        assert values.max() <= 1 - 2.0**-24
        assert values.mean() == pytest.approx(0.5, abs=0.02)
        first.sum().backward()
        assert parameters.grad.isfinite().all()
    assert d.StudentT(1e-3).sample((1000,), generator=rl.Generator(1)).isfinite().all()


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.6), (2.0, 1.5), (40.0, 9.0)])
def test_the_gradient_of_a_beta_sample_is_that_of_the_mean(a, b):
    first, second = (rl.full((100_000,), value, requires_grad=True) for value in (a, b))
    d.Beta(first, second).rsample(generator=rl.Generator(7)).sum().backward()
    assert first.grad.mean().item() == pytest.approx(b / (a + b) ** 2, rel=0.03)
    assert second.grad.mean().item() == pytest.approx(-a / (a + b) ** 2, rel=0.03)


def test_modes_at_the_ends_of_the_support():
    nan = np.nan
    table = [(0.5, 0.5, 1), (0.5, 2, 0), (1, 1, nan), (2, 1, 1), (1, 0.5, nan), (3, 5, 1 / 3), (0.2, 0.9, 1)]
    a, b, expected = np.array(table, np.float32).T
    np.testing.assert_allclose(d.Beta(t(a), t(b)).mode.numpy(), expected, rtol=1e-6)
    rows = [
        ([0.5, 0.5, 0.5], [1, 0, 0]),
        ([0.5, 1, 1], [nan] * 3),
        ([2, 3, 0.5], [1 / 3, 2 / 3, 0]),
        ([0.2, 0.3, 2], [0, 0, 1]),
    ]
    for given, mode in rows:
        np.testing.assert_allclose(d.Dirichlet(rl.tensor(given)).mode.numpy(), mode, rtol=1e-6)


BROADCASTS = [  # a distribution, a value, the shape of its log_prob
    (lambda: d.Categorical(logits=rl.zeros(2, 3)), rl.tensor([[0], [1], [2]]), (3, 2)),
    (lambda: d.Categorical(logits=rl.zeros(4, 1, 3)), rl.tensor([0, 1, 2, 0]), (4, 4)),
    (lambda: d.Categorical(logits=rl.zeros(2, 3)), rl.tensor(1), (2,)),
    (lambda: d.OneHotCategorical(logits=rl.zeros(4, 1, 3)), rl.eye(3), (4, 3)),
    (lambda: d.RelaxedOneHotCategorical(0.5, logits=rl.zeros(4, 1, 3)), rl.full((2, 3), 1 / 3), (4, 2)),
    (lambda: d.Bernoulli(logits=rl.zeros(4, 1)), rl.tensor([0.0, 1.0, 1.0]), (4, 3)),
    (lambda: d.RelaxedBernoulli(0.5, logits=rl.zeros(4, 1)), rl.tensor([0.1, 0.3]), (4, 2)),
    (lambda: d.Geometric(probs=rl.full((4, 1), 0.5)), rl.tensor([1.0, 3.0]), (4, 2)),
    (lambda: d.Poisson(rl.ones(4, 1)), rl.tensor([1.0, 3.0]), (4, 2)),
    (lambda: d.Dirichlet(rl.ones(4, 1, 3)), rl.full((2, 3), 1 / 3), (4, 2)),
    (lambda: d.MultivariateNormal(rl.zeros(4, 1, 3), scale_tril=rl.eye(3)), rl.zeros(2, 3), (4, 2)),
]


@pytest.mark.parametrize(("make", "value", "shape"), BROADCASTS)
def test_values_and_parameters_are_broadcast(make, value, shape):
    assert make().log_prob(value).shape == shape


REFUSED = [
    (
        lambda: d.Categorical(logits=[-np.inf, -np.inf]),
        "Categorical: logits must be below infinity, not NaN, and finite for at least",
    ),
    (lambda: d.Categorical(logits=[np.inf, 0.0]), "Categorical: logits must be"),
    (lambda: d.OneHotCategorical(logits=[np.nan, 0.0]), "Categorical: logits must be"),
    (lambda: d.MultivariateNormal(rl.zeros(3), rl.eye(3)).log_prob(rl.zeros(1)), "must be \\(3,\\), got the shape \\(1,\\)"),
    (lambda: d.Independent(d.Normal(rl.zeros(3), 1.0), 1).log_prob(rl.zeros(())), "must be \\(3,\\), got the shape \\(\\)"),
    (
        lambda: d.RelaxedOneHotCategorical(1.0, [0.5, 0.5]).log_prob(rl.ones(2)),
        "RelaxedOneHotCategorical: a value lies outside",
    ),
    (lambda: d.RelaxedBernoulli(1.0, 0.5).log_prob(1.5), "RelaxedBernoulli: a value lies outside"),
    (lambda: d.TransformedDistribution(d.Normal(0.0, 1.0), d.TanhTransform()).log_prob(1.5), "a value lies outside"),
    (lambda: d.StudentT(1.0, np.nan), "StudentT: loc must be a number"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_parameters_and_values_that_torch_refuses_too(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda s: d.Normal(0.0, s, False), lambda s: d.LogNormal(0.0, s, False), lambda s: d.HalfNormal(s, False)]
)
def test_an_unchecked_negative_deviation_is_refused_by_a_sample(make):
    assert make(0.0).sample().isfinite()
    with pytest.raises(RuntimeError, match="scale must not be negative in a sample"):
        make(-1.0).sample()


def test_masked_classes_are_allowed_and_certain_successes_diverge_nowhere():
    assert d.Categorical(logits=[-np.inf, 0.0, 0.0]).probs.tolist() == pytest.approx([0.0, 0.5, 0.5])
    p, q = (d.Geometric(probs=rl.tensor(probs)) for probs in ([1.0, 1.0, 0.5], [1.0, 0.5, 1.0]))
    assert d.kl_divergence(p, q).tolist() == pytest.approx([0.0, np.log(2), np.inf], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_a_relaxed_one_hot_distribution_accepts_its_samples_in_a_larger_batch(temperature):
    many = d.RelaxedOneHotCategorical(temperature, logits=rl.zeros(100)).expand((5,))
    drawn = many.sample((200,), generator=rl.Generator(1))
    assert drawn.shape == (200, 5, 100)
    assert many.log_prob(drawn).shape == (200, 5)
