"""Every operation against float64 NumPy, finite differences and PyTorch's recorded answers (`cases.py` is the table)."""

from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from tests.checks import RELATIVE, assert_close, check_gradients, cotangent_for
from tests.engine.cases import CASES, DISCRETE, OPTIMIZERS, Case, first_and_second

ANSWERS = np.load(Path(__file__).parent / "answers.npz", allow_pickle=False)


def each_case(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def test_names_are_unique_and_recorded():
    """A case without an answer, or an answer without a case, means that the recording is out of date."""
    names = [case.name for case in [*CASES, *DISCRETE]] + list(OPTIMIZERS)
    assert len(names) == len(set(names))
    assert set(names) == set(ANSWERS.files)


@each_case(CASES)
def test_value_and_gradient(case: Case):
    """The value agrees with NumPy, the gradient with finite differences."""
    check_gradients(lambda *tensors: case.function(rl, *tensors), *case.arrays(), reference=case.reference)


@each_case(CASES)
def test_answers_of_pytorch(case: Case):
    """Value, gradients and second derivatives agree with PyTorch's."""
    arrays = case.arrays()
    cotangent = cotangent_for(case.reference(*[a.astype(np.float64) for a in arrays]))
    results = first_and_second(rl, case, cotangent)
    shapes = [np.shape(cotangent), *case.shapes, *case.shapes, np.shape(cotangent)]
    expected = np.split(ANSWERS[case.name], np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    for number, (actual, answer, shape) in enumerate(zip(results, expected, shapes, strict=True)):
        array = np.zeros(shape) if actual is None else actual.detach().numpy()
        assert_close(array, answer.reshape(shape), f"result {number}", each=2e-5)


@each_case(DISCRETE)
def test_without_gradient(case):
    """Value and dtype agree with NumPy and PyTorch; the result needs no gradient."""
    arrays = case.arrays()
    result = case.function(rl, *[rl.tensor(array) for array in arrays])
    assert not result.requires_grad
    answer = ANSWERS[case.name]
    assert result.numpy().dtype == answer.dtype
    expected = np.asarray(case.reference(*[a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]))
    for right in (answer, expected):
        assert_close(result.numpy(), right, relative=RELATIVE if answer.dtype == np.float32 else 0.0)
