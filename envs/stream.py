"""NumPy's generator PCG64 as a kernel: a native environment draws the same numbers as Gymnasium's ``np_random``.

O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for random number generation"; PCG64 is the
member XSL-RR 128/64. A stream is four uint64: the state and the increment, high word first.
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
    high, low, inc_high, inc_low = (int(word) for word in words)
    numbers = {"state": high << 64 | low, "inc": inc_high << 64 | inc_low}
    generator.bit_generator.state = {**generator.bit_generator.state, "state": numbers}
