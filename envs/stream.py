"""NumPy's generators PCG64 and MT19937 as kernels: a native environment draws the numbers that the original environment draws.

O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for random number generation"; PCG64, which
Gymnasium's ``np_random`` uses, is the member XSL-RR 128/64. A stream is four uint64: the state and the increment, high word first.

Matsumoto and Nishimura 1998, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random number generator". The worlds
that follow environments with `numpy.random.RandomState` have longer streams: behind the four words of PCG64 the 624 words of the
twister, 32 bits each, and the index of the next word.
"""

import numpy as np

from rl_lab.native.part import part

_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLIER_HIGH = np.uint64(0x2360ED051FC65DA4)
_MULTIPLIER_LOW = np.uint64(0x4385DF649FCCF645)
_U11 = np.uint64(11)
_U32 = np.uint64(32)
_U58 = np.uint64(58)
_U63 = np.uint64(63)
_U64 = np.uint64(64)


@part
def _high_product(a, b):
    """Upper 64 bits of the 128-bit product."""
    a_low = a & _MASK
    a_high = a >> _U32
    b_low = b & _MASK
    b_high = b >> _U32
    middle = a_high * b_low + ((a_low * b_low) >> _U32)
    other = a_low * b_high + (middle & _MASK)
    return a_high * b_high + (middle >> _U32) + (other >> _U32)


@part
def random_bits(stream):
    """Draw 64 random bits and advance the stream."""
    high = stream[0]
    low = stream[1]
    product_low = low * _MULTIPLIER_LOW
    product_high = _high_product(low, _MULTIPLIER_LOW) + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH
    low = product_low + stream[3]
    high = product_high + stream[2] + (np.uint64(1) if low < product_low else np.uint64(0))
    stream[0] = high
    stream[1] = low
    mixed = high ^ low
    rotation = high >> _U58
    return (mixed >> rotation) | (mixed << ((_U64 - rotation) & _U63))


@part
def uniform(stream, low, high):
    """Draw a float64 in [low, high): the number that ``Generator.uniform(low, high)`` draws."""
    return low + (high - low) * (np.float64(random_bits(stream) >> _U11) * (1.0 / 9007199254740992.0))


@part
def below(stream, count):
    """Draw an integer in [0, count). ``Generator.integers`` would draw another number."""
    return np.int64(np.float64(random_bits(stream) >> _U11) * (1.0 / 9007199254740992.0) * count)


# --- the Mersenne Twister ------------------------------------------------------------------------------------------------

WORDS = 624
TWISTER = 4  # index of the twister's first word in a stream
NEXT = TWISTER + WORDS  # index of the cell that holds the index of the next word
TWISTER_SIZE = NEXT + 1
_U1 = np.uint64(1)


@part
def twister_bits(stream):
    """Draw 32 random bits, as uint64, from the twister of a stream.

    Renews one word per draw. The original renews all 624 words at once, in the same order and with the same result.
    """
    k = np.int64(stream[NEXT]) % WORDS
    after = k + 1 if k + 1 < WORDS else 0
    far = k + 397 if k + 397 < WORDS else k + 397 - WORDS
    joined = (stream[TWISTER + k] & np.uint64(0x80000000)) | (stream[TWISTER + after] & np.uint64(0x7FFFFFFF))
    word = stream[TWISTER + far] ^ (joined >> _U1) ^ (np.uint64(0x9908B0DF) * (joined & _U1))
    stream[TWISTER + k] = word
    stream[NEXT] = np.uint64(after)
    word ^= word >> _U11
    word ^= (word << np.uint64(7)) & np.uint64(0x9D2C5680)
    word ^= (word << np.uint64(15)) & np.uint64(0xEFC60000)
    return word ^ (word >> np.uint64(18))


@part
def twister_uniform(stream):
    """Draw a float64 in [0, 1) with 53 random bits: the number that ``RandomState.rand()`` draws."""
    high = twister_bits(stream) >> np.uint64(5)
    low = twister_bits(stream) >> np.uint64(6)
    return (np.float64(high) * 67108864.0 + np.float64(low)) / 9007199254740992.0


@part
def twister_below(stream, count):
    """Draw an integer in [0, count): the number that ``RandomState.randint(count)`` draws. ``count`` is at most 2**32."""
    most = np.uint64(count - 1)
    mask = most
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> np.uint64(shift)
    value = np.uint64(0)
    if most > np.uint64(0):
        value = twister_bits(stream) & mask
        while value > most:
            value = twister_bits(stream) & mask
    return np.int64(value)


def twister_words(generator: np.random.Generator, seed: int) -> np.ndarray:
    """Return a stream (629,): the words of a PCG64 generator, and the twister of ``numpy.random.RandomState(seed)``.

    RandomState takes seeds below 2**32. For a larger seed the twister is seeded with a number that depends on the whole seed.
    """
    if seed >= 2**32:
        seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    words = np.random.RandomState(seed).get_state(legacy=False)["state"]["key"]  # type: ignore[index,call-overload]
    return np.concatenate([stream_words(generator), words.astype(np.uint64), np.zeros(1, np.uint64)])


# --- streams and NumPy's generators --------------------------------------------------------------------------------------


def stream_words(generator: np.random.Generator) -> np.ndarray:
    """Return the state of a PCG64 generator, such as Gymnasium's, as a stream. Raises TypeError for another kind of generator."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise TypeError(
            f"a native environment needs a PCG64 generator, got {state['bit_generator']}: use np.random.default_rng(seed)"
        )
    numbers = (state["state"]["state"], state["state"]["inc"])
    return np.array([word for n in numbers for word in (n >> 64, n & (2**64 - 1))], np.uint64)


def set_stream(generator: np.random.Generator, words: np.ndarray) -> None:
    """Set a PCG64 generator to the state of a stream."""
    high, low, inc_high, inc_low = (int(word) for word in words[:4])
    numbers = {"state": high << 64 | low, "inc": inc_high << 64 | inc_low}
    generator.bit_generator.state = {**generator.bit_generator.state, "state": numbers}
