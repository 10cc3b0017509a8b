"""Distance of float32 functions from the exact value, in units in the last place (ulp), over dense grids with subnormal numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import rl_lab as rl
import rl_lab.nn.functional as F


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


FUNCTIONS = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "logsigmoid": lambda x: -np.logaddexp(0, -x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "erf": special.erf,
    "softsign": lambda x: x / (1 + abs(x)),
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erfc": special.erfc,
    "lgamma": special.gammaln,
}
LIMIT = 2.0
"""PyTorch's own functions stay below 4 ulp (its tanh, exp and sigmoid below 2)."""
IN_FLOAT64 = FUNCTIONS.keys() - {
    "exp",
    "exp2",
    "sigmoid",
    "tanh",
    "softplus",
    "logsigmoid",
    "elu",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "softsign",
    "lgamma",
}
"""Functions that are computed in float64 and rounded once (kernels/elementary.py)."""


def grid() -> np.ndarray:
    """Grid points: dense where the functions bend, and every 4,099th of all float32 numbers."""
    every = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    small = np.concatenate([np.geomspace(1e-45, 1, 50_001), np.arange(1, 2000) * 1.4e-45])
    parts = [np.linspace(-110, 110, 100_001), np.linspace(-10, 10, 200_001), np.linspace(-1, 1, 50_001), small, -small]
    numbers = np.concatenate([part.astype(np.float32) for part in parts] + [every[np.isfinite(every)]])
    return np.unique(numbers)


GRID = grid()


def ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance between two numbers in units in the last place of the exact one; infinite if only one of them is infinite or NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = exact.astype(np.float32)
        distance = np.abs(actual.astype(np.float64) - exact) / np.spacing(np.abs(nearest))
    same = (actual == nearest) | (np.isnan(actual) & np.isnan(nearest))
    return np.where(same, 0.0, np.where(np.isfinite(nearest) & np.isfinite(actual), distance, np.inf))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_units_in_the_last_place(name):
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](GRID.astype(np.float64))
    distance = ulps((getattr(rl, name, None) or getattr(F, name))(rl.from_numpy(GRID)).numpy(), exact)
    worst = distance.argmax()
    limit = 0.501 if name in IN_FLOAT64 else LIMIT
    assert distance[worst] <= limit, f"{distance[worst]:.3f} ulp at {GRID[worst]!r}"


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_units_in_the_last_place_of_two_arguments(name):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(-4, 4, 400), np.exp2(rng.uniform(-140, 127, 100)), np.arange(-9, 10) / 2])
    a, b = np.meshgrid(np.append(values, [np.inf, -np.inf, np.nan, -0.0]).astype(np.float32), values.astype(np.float32))
    with np.errstate(all="ignore"):
        exact = {"pow": np.power, "atan2": np.arctan2}[name](a.astype(np.float64), b.astype(np.float64))
    actual = getattr(rl, name)(rl.from_numpy(a), rl.from_numpy(b)).numpy()
    assert ulps(actual, exact).max() <= 0.501


def test_no_function_of_the_c_library():
    """The C library's functions differ between versions and processors, so that kernels must not call them."""
    names = "exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh a?sinh? a?cosh? a?tanh? atan2 arc\\w+ erfc? l?gamma pow power"
    call = re.compile(rf"\b(math|np)\.({'|'.join(names.split())})\((?![0-9.]+\))")  # of a number it is a constant
    package = Path(rl.__file__).parent
    files = [*package.glob("engine/kernels/*.py"), *package.glob("*/kernels.py"), *package.glob("*/*_kernels.py")]
    files += package.glob("nn/graph/kernels.py")
    found = [f"{file.name}: {line.strip()}" for file in files for line in file.read_text().splitlines() if call.search(line)]
    assert len(files) > 10
    assert not found


def test_units_are_counted():
    """The measure detects an error of 3 ulp, an error of a subnormal number, and a misplaced infinity."""
    exact = np.array([1.0, 1e-40, np.inf, np.nan])
    right = exact.astype(np.float32)
    assert ulps(right, exact).max() < 0.51
    three = right.copy()
    for _ in range(3):
        three = np.nextafter(three, np.float32(2.0))
    assert (ulps(three[:2], exact[:2]) > 2.4).all()
    assert ulps(np.array([1.0, 1e-40, 3e38, np.nan], np.float32), exact)[2] == np.inf


@pytest.mark.parametrize("name", ["exp", "exp2", "tanh", "sigmoid", "softplus", "logsigmoid", "relu", "elu", "log"])
def test_special_numbers(name):
    """Infinities, NaN and the sign of zero are right."""
    special_numbers = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    references = {**FUNCTIONS, "relu": lambda x: np.maximum(x, 0)}
    with np.errstate(all="ignore"):
        exact = references[name](special_numbers.astype(np.float64)).astype(np.float32)
    actual = (getattr(rl, name, None) or getattr(F, name))(rl.tensor(special_numbers)).numpy()
    np.testing.assert_array_equal(actual[:3], exact[:3])
    if exact[3] == 0:
        np.testing.assert_array_equal(actual[3:], exact[3:])
        if name in ("tanh", "elu"):
            np.testing.assert_array_equal(np.signbit(actual[3:]), [False, True])


@pytest.mark.parametrize("name", ["sin", "cos", "tan", "lgamma"])
def test_rows_of_ordinary_numbers_have_the_bits_of_other_rows(name):
    """A row whose numbers are all of the ordinary range takes a loop of its own, and an infinity among them the general one."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32).view(np.float32),
            np.linspace(-20, 20, 20_001, dtype=np.float32),
            np.linspace(0.5, 3, 20_001, dtype=np.float32),
            np.array([0.0, -0.0, 1, 2, 0.75, 1.25, 1.75, 2.25, 12, np.nextafter(np.float32(12), 0)], np.float32),
        ]
    )
    x = x[(x > 0) & (x < np.inf)] if name == "lgamma" else x[abs(x) < 2**23]
    function = getattr(rl, name)
    alone = function(rl.tensor(x)).numpy()
    among_others = function(rl.tensor(np.append(x, np.float32(np.inf)))).numpy()
    assert alone.tobytes() == among_others[:-1].tobytes()
