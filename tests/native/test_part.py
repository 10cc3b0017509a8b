"""Parts: functions that are compiled inside the kernels that call them."""

import math

import numba
import numpy as np
import pytest
from numba import types

from rl_lab.native.cache import compile_c_function
from rl_lab.native.part import Part, part
from rl_lab.native.pointers import float64_at


@part
def half(x):
    return 0.5 * x


@part
def hypotenuse(a, b=2.0):
    """Calls another part, and a function of numba's library."""
    return math.hypot(half(a), half(b))


@numba.njit
def ordinary(a, b):
    return hypotenuse(a, b) + 1.0


@part
def through_an_ordinary_function(a, b):
    return ordinary(a, b)


def write(row):
    cells = float64_at(row)
    cells[2] = hypotenuse(cells[0], cells[1])
    cells[3] = through_an_ordinary_function(cells[0], cells[1])


def test_a_kernel_calls_parts_and_ordinary_functions():
    made = compile_c_function(write, types.void(types.int64))
    cells = np.array([6.0, 8.0, 0.0, 0.0])
    made.ctypes(cells.ctypes.data)
    assert cells.tolist() == [6.0, 8.0, 5.0, 6.0]


def test_python_may_call_a_part():
    assert hypotenuse(6.0, 8.0) == 5.0
    assert hypotenuse(6.0, b=8.0) == 5.0
    assert hypotenuse(0.0) == 1.0
    assert ordinary(6.0, 8.0) == 6.0
    with pytest.raises(numba.TypingError):
        hypotenuse("a", 1.0)


def test_a_part_has_no_machine_code_of_its_own():
    """Compiling it alone would take as long as compiling its callers: see the module."""
    assert isinstance(hypotenuse, Part)
    hypotenuse.compile((types.float64, types.float64))
    for one in (half, hypotenuse):
        assert all(made.library._compiled_object is None for made in one.overloads.values())
        assert one.overloads
