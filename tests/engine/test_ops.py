"""Every operation against float64 NumPy, finite differences and PyTorch's recorded answers. `cases.py` is the table."""

from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from tests.checks import RELATIVE, assert_close, check_gradients, cotangent_for
from tests.engine.cases import OPTIMIZERS, Case, first_and_second
from tests.engine.every_case import CASES, DISCRETE, DRAWS, operations
from tests.engine.modules import MODULES, SCHEDULES

ANSWERS = np.load(Path(__file__).parent / "answers.npz", allow_pickle=False)


def each_case(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def test_names_are_unique_and_recorded():
    """A case without an answer, or an answer without a case, means that the recording is out of date."""
    names = [case.name for case in [*CASES, *DISCRETE]] + list(OPTIMIZERS)
    names += [f"{kind} {name}" for kind in ("module", "state") for name in MODULES] + [f"schedule {name}" for name in SCHEDULES]
    assert len(names) == len(set(names))
    assert set(names) == set(ANSWERS.files)


def test_the_table_is_large():
    """The table has at least 150 operations and 3,000 samples of values and gradients with recorded answers."""
    assert len(operations()) >= 150
    assert len(CASES) * DRAWS >= 3000


@each_case(CASES)
def test_value_and_gradient(case: Case):
    """The value agrees with NumPy, the gradient with finite differences."""
    check_gradients(lambda *tensors: case.function(rl, *tensors), *case.arrays(), reference=case.reference)


@each_case(CASES)
def test_answers_of_pytorch(case: Case):
    """Value, gradients and second derivatives agree with PyTorch's."""
    for draw in range(DRAWS):
        compare_with_pytorch(case, draw)


def compare_with_pytorch(case: Case, draw: int) -> None:
    answer = ANSWERS[case.name][draw]
    cotangent = cotangent_for(case.reference(*[a.astype(np.float64) for a in case.arrays(draw)]), draw + 1)
    results = first_and_second(rl, case, cotangent, draw)
    shapes = [np.shape(cotangent), *case.shapes, *case.shapes, np.shape(cotangent)]
    expected = np.split(answer, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    for number, (actual, right, shape) in enumerate(zip(results, expected, shapes, strict=True)):
        if number > len(case.shapes) and right.size and np.isnan(right).all():
            continue  # PyTorch has no second derivative here
        array = np.zeros(shape) if actual is None else actual.detach().numpy()
        assert_close(array, right.reshape(shape), f"result {number} of draw {draw}", each=2e-5)


@each_case(DISCRETE)
def test_without_gradient(case):
    """Value and dtype agree with NumPy and PyTorch. The result needs no gradient."""
    arrays = case.arrays()
    result = case.function(rl, *[rl.tensor(array) for array in arrays])
    assert not result.requires_grad
    answer = ANSWERS[case.name]
    assert result.numpy().dtype == answer.dtype
    expected = np.asarray(case.reference(*[a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]))
    for right in (answer, expected):
        assert_close(result.numpy(), right, relative=RELATIVE if answer.dtype == np.float32 else 0.0)


# --- sizes and ranges beyond the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 300, 1), (128, 256, 256), (257, 129, 65), (1024, 64, 64), (64, 1024, 3), (5, 2000, 7)])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_large_products(sizes, layout):
    """Products that are cut into parts for several cores, and their gradients, in every layout of the operands."""
    n, k, m = sizes
    generator = np.random.default_rng(0)
    a, b, g = (generator.normal(size=shape).astype(np.float32) for shape in ((n, k), (k, m), (n, m)))
    x = rl.tensor(a.T if layout[0] == "t" else a, requires_grad=True)
    y = rl.tensor(b.T if layout[1] == "t" else b, requires_grad=True)
    value = (x.t() if layout[0] == "t" else x) @ (y.t() if layout[1] == "t" else y)
    value.backward(rl.tensor(g))
    a, b, g = (array.astype(np.float64) for array in (a, b, g))
    assert_close(value.detach(), a @ b)
    assert_close(x.grad, b @ g.T if layout[0] == "t" else g @ b.T)
    assert_close(y.grad, g.T @ a if layout[1] == "t" else a.T @ g)


@pytest.mark.parametrize("sizes", [(1, 4, 64), (128, 256, 256), (300, 7, 130)])
def test_large_linear(sizes):
    batch, inputs, outputs = sizes
    generator = np.random.default_rng(0)
    shapes = ((batch, inputs), (outputs, inputs), (outputs,), (batch, outputs))
    x, w, b, g = (generator.normal(size=shape).astype(np.float32) for shape in shapes)
    tensors = [rl.tensor(array, requires_grad=True) for array in (x, w, b)]
    value = rl.nn.functional.linear(*tensors)
    value.backward(rl.tensor(g))
    x, w, b, g = (array.astype(np.float64) for array in (x, w, b, g))
    assert_close(value.detach(), x @ w.T + b)
    for tensor, expected in zip(tensors, (g @ w, g.T @ x, g.sum(0)), strict=True):
        assert_close(tensor.grad, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 100, 1000])
def test_every_length_of_a_row(size):
    """Sizes around the width of a vector: the loop over vectors and the remainder at its end."""
    array = np.linspace(-3, 3, 2 * size, dtype=np.float32).reshape(2, size)
    x = rl.tensor(array)
    wide = array.astype(np.float64)
    for actual, expected in (
        (x.exp(), np.exp(wide)),
        (x.tanh(), np.tanh(wide)),
        (x + x[0], wide + wide[0]),
        (x * x[:, :1], wide * wide[:, :1]),
        (x.sum(1), wide.sum(1)),
        (x.sum(0), wide.sum(0)),
        (x.logsumexp(1), np.log(np.exp(wide).sum(1))),
        (x.amax(1), wide.max(1)),
        (x.t().contiguous(), wide.T),
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "softplus", "log", "sqrt", "sin", "expm1", "log1p"])
def test_accuracy_over_the_whole_range(name):
    """Within 4e-7 of the value, relative to it, if the result is a normal number."""
    spread = np.concatenate([np.linspace(-100, 100, 4001), np.logspace(-30, 30, 601), -np.logspace(-30, 1.9, 401)])
    array = spread.astype(np.float32)
    if name in ("log", "sqrt"):
        array = array[array > 0]
    elif name == "log1p":
        array = array[array > -1]
    elif name == "sin":
        array = array[abs(array) <= 100]
    wide = array.astype(np.float64)
    references = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softplus": lambda x: np.logaddexp(0, x)}
    with np.errstate(over="ignore"):
        expected = references.get(name, getattr(np, name, None))(wide)
    normal = (abs(expected) > 1.2e-38) & (abs(expected) < 3.4e38)
    function = getattr(rl.nn.functional, name) if name == "softplus" else getattr(rl, name)
    actual = function(rl.tensor(array)).numpy()
    np.testing.assert_allclose(actual[normal], expected[normal], rtol=4e-7)


def test_long_sums_stay_accurate():
    array = np.random.default_rng(0).random(1_000_000).astype(np.float32)
    np.testing.assert_allclose(rl.tensor(array).sum().item(), array.astype(np.float64).sum(), rtol=1e-6)
