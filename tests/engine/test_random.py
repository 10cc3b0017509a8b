"""Random streams: seeds reproduce, positions are saved, spawned streams are independent, and distributions are right."""

import math

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import StateError
from tests.checks import assert_close

N = 40_000
TOLERANCE = 5 / math.sqrt(N)  # five standard errors of the mean of N numbers of deviation 1; the seeds are fixed

DRAWS = {
    "rand": lambda g: rl.rand(3, 5, generator=g),
    "randn": lambda g: rl.randn(3, 5, generator=g),
    "randn odd": lambda g: rl.randn(7, generator=g),
    "randint": lambda g: rl.randint(0, 1000, (20,), generator=g),
    "randperm": lambda g: rl.randperm(20, generator=g),
    "bernoulli": lambda g: rl.bernoulli(rl.full((40,), 0.5), generator=g),
    "multinomial": lambda g: rl.multinomial(rl.ones(30), 20, replacement=True, generator=g),
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def bits(tensor):
    return tensor.numpy().tobytes()


# --- streams ---------------------------------------------------------------------------------------------------------


@each_draw
def test_a_seed_reproduces(draw):
    assert bits(draw(rl.Generator(3))) == bits(draw(rl.Generator(3)))
    assert bits(draw(rl.Generator(3))) != bits(draw(rl.Generator(4)))
    generator = rl.Generator(3)
    first = draw(generator)
    assert bits(first) != bits(draw(generator))
    assert bits(first) == bits(draw(generator.manual_seed(3)))


@each_draw
def test_the_default_stream_has_a_seed(draw):
    rl.manual_seed(11)
    first = bits(draw(None))
    assert bits(draw(None)) != first
    rl.manual_seed(11)
    assert bits(draw(None)) == first


@each_draw
def test_a_saved_state_continues(draw):
    generator = rl.Generator(5)
    draw(generator)
    state = generator.get_state()
    copy = state.clone()
    expected = [bits(draw(generator)) for _ in range(3)]
    assert bits(state) == bits(copy)  # a copy, not a view
    assert [bits(draw(other)) for other in [rl.Generator(0).set_state(state)] for _ in range(3)] == expected


def test_a_stream_of_its_own_leaves_the_default_alone():
    rl.manual_seed(1)
    expected = bits(rl.rand(4))
    rl.manual_seed(1)
    rl.rand(100, generator=rl.Generator(1))
    assert bits(rl.rand(4)) == expected


def test_spawned_streams_are_independent():
    parent = rl.Generator(7)
    children = [*parent.spawn(3), *parent.spawn(2)]
    streams = np.stack([rl.rand(N, generator=g).numpy() for g in [parent, *children]]).astype(np.float64)
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert abs(correlations).max() < TOLERANCE
    again = rl.Generator(7).spawn(2)
    assert [bits(g.get_state()) for g in again] == [bits(g.get_state()) for g in rl.Generator(7).spawn(3)[:2]]


def test_senseless_arguments_raise():
    for call in (lambda: rl.Generator(-1), lambda: rl.randint(3, 3, (2,))):
        with pytest.raises(ValueError, match=r".+"):
            call()
    with pytest.raises(RuntimeError, match="4"):
        rl.Generator(0).set_state(rl.zeros(3, dtype=rl.long))


# --- distributions ---------------------------------------------------------------------------------------------------


def assert_moments(sample, mean, deviation):
    """Compare mean and deviation of N draws within five standard errors (for the deviation: of a normal distribution)."""
    sample = sample.numpy().astype(np.float64)
    assert sample.size == N
    assert abs(sample.mean() - mean) < TOLERANCE * deviation
    assert abs(sample.std() - deviation) < TOLERANCE * deviation


def test_uniform():
    sample = rl.rand(N, generator=rl.Generator(1))
    assert_moments(sample, 0.5, 1 / math.sqrt(12))
    assert sample.min().item() >= 0.0
    assert sample.max().item() < 1.0
    counts = np.histogram(sample.numpy(), 20, (0, 1))[0]
    assert ((counts - N / 20) ** 2 / (N / 20)).sum() < 43.8  # chi squared, 19 degrees of freedom, p = 0.001


def test_normal():
    sample = rl.randn(N, generator=rl.Generator(2))
    assert_moments(sample, 0.0, 1.0)
    array = sample.numpy().astype(np.float64)
    assert abs((array**3).mean()) < 5 * math.sqrt(15 / N)
    assert abs((array**4).mean() - 3) < 5 * math.sqrt(96 / N)
    assert abs((abs(array) < 1).mean() - 0.6827) < TOLERANCE
    assert np.isfinite(array).all()
    assert abs(np.corrcoef(array[::2], array[1::2])[0, 1]) < 2 * TOLERANCE  # the two deviates that one transform gives


def test_integers():
    sample = rl.randint(-3, 4, (N,), generator=rl.Generator(3))
    assert sample.dtype is rl.int64
    assert_moments(sample, 0.0, 2.0)
    assert set(sample.tolist()) == set(range(-3, 4))
    assert set(rl.randint(2, (100,), generator=rl.Generator(3)).tolist()) == {0, 1}
    assert rl.randint(5, 6, (3, 2)).tolist() == [[5, 5]] * 3


@pytest.mark.parametrize("n", [0, 1, 2, 5, 1000])
def test_permutations_hold_every_number_once(n):
    assert sorted(rl.randperm(n, generator=rl.Generator(n)).tolist()) == list(range(n))


def test_permutations_are_equally_likely():
    generator = rl.Generator(4)
    counts: dict[tuple, int] = {}
    for _ in range(3000):
        key = tuple(rl.randperm(3, generator=generator).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5  # 5 degrees of freedom, p = 0.001


def test_bernoulli():
    p = rl.tensor([[0.0], [0.25], [1.0]]).expand(3, N)
    sample = rl.bernoulli(p, generator=rl.Generator(5))
    assert sample.dtype is rl.float32
    assert sample[0].sum().item() == 0
    assert sample[2].sum().item() == N
    assert_moments(sample[1], 0.25, math.sqrt(3) / 4)


def test_multinomial():
    weights = rl.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]])
    sample = rl.multinomial(weights, N, replacement=True, generator=rl.Generator(6))
    assert sample.shape == (2, N)
    assert set(sample[1].tolist()) == {1}
    assert_close(np.bincount(sample[0].numpy(), minlength=3) / N, [0.25, 0.0, 0.75], relative=TOLERANCE)
    assert rl.multinomial(rl.tensor([0.0, 1.0]), 1).tolist() == [1]


def test_filling_in_place():
    x = rl.empty(N)
    assert_moments(rl.nn.init.uniform_(x, -2.0, 4.0, generator=rl.Generator(7)), 1.0, 6 / math.sqrt(12))
    assert -2.0 <= x.min().item() < x.max().item() < 4.0
    assert_moments(rl.nn.init.normal_(x, 3.0, 0.5, generator=rl.Generator(8)), 3.0, 0.5)


def test_samples_are_leaves():
    x = rl.randn(2, 3, requires_grad=True)
    x.sum().backward()
    assert x.grad.tolist() == [[1.0] * 3] * 2
    assert rl.rand_like(x).shape == rl.randn_like(x).shape == (2, 3)
    assert not rl.rand_like(x).requires_grad


# --- draws from weights, noise, masks --------------------------------------------------------------------------------


def test_multinomial_without_replacement():
    """Every row is a set of distinct classes of positive weight. The first draws have the right frequencies."""
    weights = rl.tensor([0.1, 0.0, 0.6, 0.3]).expand(20_000, 4)
    draws = rl.multinomial(weights, 3, generator=rl.Generator(2)).numpy()
    assert (np.sort(draws, 1) == [0, 2, 3]).all()
    frequencies = np.bincount(draws[:, 0], minlength=4) / len(draws)
    np.testing.assert_allclose(frequencies, [0.1, 0, 0.6, 0.3], atol=0.015)
    # the second draw after class 2: weights 0.1 and 0.3
    second = draws[draws[:, 0] == 2, 1]
    np.testing.assert_allclose((second == 3).mean(), 0.75, atol=0.02)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_multinomial_refuses_weights_that_are_no_distribution(weights):
    draw = rl.compile(lambda w: rl.multinomial(w, 1))
    for call in (lambda w: rl.multinomial(w, 1), draw):
        with pytest.raises(ArithmeticError, match="weight"):
            call(rl.tensor(weights))


def test_a_replay_refuses_them_too():
    generator = rl.Generator(1)
    draw = rl.compile(lambda w: rl.multinomial(w, 1, generator=generator))
    assert draw(rl.tensor([0.0, 1.0])).item() == 1
    with pytest.raises(ArithmeticError, match="negative"):
        draw(rl.tensor([-1.0, 1.0]))
    assert draw(rl.tensor([1.0, 0.0])).item() == 0


def test_too_many_distinct_draws_are_refused():
    with pytest.raises(RuntimeError, match="4"):
        rl.multinomial(rl.ones(3), 4)
    with pytest.raises(ArithmeticError, match="few"):
        rl.multinomial(rl.tensor([1.0, 0.0, 0.0]), 2)


def test_normal_of_tensors_and_numbers():
    mean, std = rl.tensor([0.0, 10.0]).expand(20_000, 2), rl.tensor([1.0, 0.1])
    values = rl.normal(mean, std, generator=rl.Generator(3)).numpy()
    np.testing.assert_allclose(values.mean(0), [0, 10], atol=0.03)
    np.testing.assert_allclose(values.std(0), [1, 0.1], rtol=0.03)
    assert rl.normal(2.0, 0.5, (3, 4)).shape == (3, 4)
    with pytest.raises(TypeError, match="a tensor or a size"):
        rl.normal(2.0, 0.5)


def test_methods_that_draw():
    x = rl.empty(20_000)
    assert x.uniform_(1.0, 3.0, generator=rl.Generator(1)) is x
    np.testing.assert_allclose([x.min().item(), x.max().item()], [1, 3], atol=1e-3)
    np.testing.assert_allclose(x.normal_(1.0, 2.0).numpy().std(), 2.0, rtol=0.05)
    np.testing.assert_allclose(x.exponential_(2.0).numpy().mean(), 0.5, rtol=0.05)
    np.testing.assert_allclose(x.bernoulli_(0.3).numpy().mean(), 0.3, atol=0.02)


def test_dropout_scales_what_it_keeps():
    x = rl.ones(100, 100, requires_grad=True)
    y = rl.nn.functional.dropout(x, 0.3, generator=rl.Generator(1))
    y.sum().backward()
    array = y.detach().numpy()
    assert set(np.unique(array)) == {np.float32(0.0), np.float32(1.0 / 0.7)}
    np.testing.assert_allclose((array > 0).mean(), 0.7, atol=0.02)
    np.testing.assert_array_equal(x.grad.numpy(), array)
    assert rl.nn.functional.dropout(x, 0.3, training=False) is x
    assert not rl.nn.functional.dropout(x, 1.0).any()
    with pytest.raises(ValueError, match=r"1\.5"):
        rl.nn.functional.dropout(x, 1.5)


def test_a_recorded_dropout_draws_anew_and_follows_the_mode():
    layer = rl.nn.Dropout(0.5, generator=rl.Generator(4))
    run = rl.compile(layer)
    first, second = run(rl.ones(64)).numpy(), run(rl.ones(64)).numpy()
    assert (first != second).any()
    layer.eval()
    assert (run(rl.ones(64)).numpy() == 1.0).all()


def test_gumbel_softmax_samples_the_distribution():
    logits = rl.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    hard = rl.nn.functional.gumbel_softmax(logits, hard=True, generator=rl.Generator(5)).numpy()
    np.testing.assert_allclose(hard.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(hard.mean(0), [0.1, 0.2, 0.7], atol=0.015)


def test_a_generator_tells_its_seed():
    generator = rl.Generator(7)
    assert generator.initial_seed() == 7
    assert generator.manual_seed(9).initial_seed() == 9
    assert str(generator.device) == "cpu"
    with pytest.raises(StateError, match="no seed of its own"):
        generator.spawn(1)[0].initial_seed()
    with pytest.raises(TypeError, match="a seed must be an integer"):
        generator.manual_seed("a")
    with pytest.raises(TypeError, match="between integers"):
        rl.randint(0, 2.5, (3,))
