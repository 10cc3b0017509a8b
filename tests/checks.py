"""Checks for tests: a gradient checker, and closeness of float32 results."""

from collections.abc import Callable
from typing import Any

import numpy as np

import rl_lab as rl

RELATIVE = 2e-5
"""Allowed error of a float32 result, relative to the largest element of the expected array; about 170 units in the last place."""

GRADIENT_RELATIVE = 1e-4
"""Allowed error of one element of a gradient, relative to that element, plus `RELATIVE` of the largest element.

A tenth of the error of a rule that is off by a factor of 1.001."""

STEP = 1e-5
"""Step of the central differences, relative to max(1, |x|). In float64 the differences then have an error of about 1e-9."""


def assert_close(actual: Any, expected: Any, what: str = "value", relative: float = RELATIVE, each: float = 0.0) -> None:
    """``actual`` has the expected shape and differs by at most relative * max(1, |largest|) + each * |element|; NaN equals NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has shape {actual.shape}, expected {expected.shape}"
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, finite.max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=each, atol=relative * scale, err_msg=what)


def finite_differences(function: Callable, arrays: list[np.ndarray], cotangent: np.ndarray) -> list[np.ndarray]:
    """The gradient of sum(cotangent * function(*arrays)) with respect to every element of every array, by central differences."""
    arrays = [np.array(array, np.float64) for array in arrays]
    gradients = [np.zeros(array.shape) for array in arrays]
    for array, gradient in zip(arrays, gradients, strict=True):
        for place in np.ndindex(array.shape):
            middle = array[place]
            step = STEP * max(1.0, abs(middle))
            array[place] = middle + step
            above = np.array(function(*arrays))  # a copy: the result may be a view
            array[place] = middle - step
            below = np.array(function(*arrays))
            array[place] = middle
            gradient[place] = np.sum(cotangent * (above - below)) / (2 * step)
    return gradients


def cotangent_for(value: Any, seed: int = 1) -> np.ndarray:
    """A random incoming gradient for ``value``, of magnitude 0.5 to 1.5, so that every element of the result matters."""
    generator = np.random.default_rng(seed)
    shape = np.shape(value)
    return (generator.uniform(0.5, 1.5, shape) * generator.choice([-1.0, 1.0], shape)).astype(np.float32)


def leaves(arrays: Any) -> list[rl.Tensor]:
    """New tensors that require grad."""
    return [rl.tensor(array, requires_grad=True) for array in arrays]


def check_gradients(function: Callable, *arrays: Any, reference: Callable | None = None, seed: int = 1) -> None:
    """Backward through ``function`` agrees with finite differences of ``reference``, the same function on float64 NumPy arrays.

    The reference may be left out where the function itself runs on arrays. The value is compared too. An element of a gradient may
    be wrong by 1e-4 of itself and 2e-5 of the largest, so that a rule off by a factor of 1.001 is caught.
    """
    reference = reference or function
    arrays = [np.asarray(array, np.float32) for array in arrays]
    expected = np.asarray(reference(*[array.astype(np.float64) for array in arrays]))
    inputs = leaves(arrays)
    value = function(*inputs)
    assert_close(value.detach(), expected)
    cotangent = cotangent_for(expected, seed)
    value.backward(rl.tensor(cotangent))
    for number, (x, gradient) in enumerate(zip(inputs, finite_differences(reference, arrays, cotangent), strict=True)):
        assert x.grad is not None, f"no gradient reached input {number}"
        scale = np.abs(gradient).max(initial=0.0)
        actual = x.grad.numpy()
        assert actual.shape == gradient.shape, f"gradient {number} has shape {actual.shape}, expected {gradient.shape}"
        atol = max(RELATIVE * scale, 1e-6)
        np.testing.assert_allclose(actual, gradient, rtol=GRADIENT_RELATIVE, atol=atol, err_msg=f"gradient {number}")
