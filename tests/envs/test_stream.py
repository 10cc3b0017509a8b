"""The random stream of the kernels draws the same numbers as NumPy's PCG64."""

import numpy as np
import pytest

from rl_lab.envs import stream as s


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63])
def test_bits_and_numbers_are_those_of_numpy(seed):
    generator = np.random.Generator(np.random.PCG64(seed))
    words = s.stream_words(generator)
    expected = generator.bit_generator.random_raw(1000)
    np.testing.assert_array_equal(np.array([s.random_bits(words) for _ in range(1000)], np.uint64), expected)
    np.testing.assert_array_equal(s.stream_words(generator), words)
    expected = generator.uniform(-0.3, 2.7, 1000)
    np.testing.assert_array_equal([s.uniform(words, -0.3, 2.7) for _ in range(1000)], expected)


def test_a_stream_goes_round():
    generator, other = (np.random.Generator(np.random.PCG64(seed)) for seed in (3, 4))
    generator.random(7)
    s.set_stream(other, s.stream_words(generator))
    assert (other.random(100) == generator.random(100)).all()
    with pytest.raises(TypeError, match="PCG64 generator, got MT19937"):
        s.stream_words(np.random.Generator(np.random.MT19937(1)))


def test_integers_below_a_bound_are_even():
    words = s.stream_words(np.random.Generator(np.random.PCG64(8)))
    counts = np.bincount([s.below(words, 10) for _ in range(20_000)], minlength=10)
    assert len(counts) == 10
    assert (abs(counts - 2000) < 5 * np.sqrt(2000 * 0.9)).all()
