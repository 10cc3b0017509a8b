"""NumPy's PCG64 as a kernel, so that a native environment draws the numbers that Gymnasium's ``np_random`` would.

O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for random number generation": the member
XSL-RR 128/64, as NumPy's ``PCG64`` has it. A stream is four uint64: the state and the increment, high word first.
"""

import numpy as np
from numba import njit

STREAM_SIZE = 4

_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLIER_HIGH, _MULTIPLIER_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
_U6, _U11, _U32, _U58, _U63, _U64 = (np.uint64(n) for n in (6, 11, 32, 58, 63, 64))


@njit(error_model="numpy")
def _high_product(a, b):
    """The upper 64 of the 128 bits of a product."""
    a_low, a_high, b_low, b_high = a & _MASK, a >> _U32, b & _MASK, b >> _U32
    middle = a_high * b_low + ((a_low * b_low) >> _U32)
    other = a_low * b_high + (middle & _MASK)
    return a_high * b_high + (middle >> _U32) + (other >> _U32)


@njit(error_model="numpy")
def random_bits(stream):
    """The next 64 random bits of a stream."""
    high, low = stream[0], stream[1]
    product_low = low * _MULTIPLIER_LOW
    product_high = _high_product(low, _MULTIPLIER_LOW) + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH
    low = product_low + stream[3]
    high = product_high + stream[2] + (np.uint64(1) if low < product_low else np.uint64(0))
    stream[0], stream[1] = high, low
    mixed, rotation = high ^ low, high >> _U58
    return (mixed >> rotation) | (mixed << ((_U64 - rotation) & _U63))


@njit(error_model="numpy")
def uniform(stream, low, high):
    """A float64 in [low, high), as ``Generator.uniform(low, high)`` draws it."""
    return low + (high - low) * (np.float64(random_bits(stream) >> _U11) * (1.0 / 9007199254740992.0))


@njit(error_model="numpy")
def below(stream, count):
    """An integer in [0, count). Not the number that ``Generator.integers`` would draw."""
    return np.int64(np.float64(random_bits(stream) >> _U11) * (1.0 / 9007199254740992.0) * count)


def stream_words(generator: np.random.Generator) -> np.ndarray:
    """A generator's state as a stream. TypeError unless it is a PCG64, which Gymnasium's are."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise TypeError(f"a native environment needs a PCG64 generator, not {state['bit_generator']}")
    numbers = state["state"]["state"], state["state"]["inc"]
    return np.array([word for n in numbers for word in (n >> 64, n & (2**64 - 1))], np.uint64)


def set_stream(generator: np.random.Generator, words: np.ndarray) -> None:
    """Put a PCG64 generator where a stream stands."""
    high, low, inc_high, inc_low = (int(word) for word in words)
    numbers = {"state": high << 64 | low, "inc": inc_high << 64 | inc_low}
    generator.bit_generator.state = {**generator.bit_generator.state, "state": numbers}
