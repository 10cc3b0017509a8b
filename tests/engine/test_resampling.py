"""`functional.interpolate` against PyTorch's recorded answers, and arguments that it refuses."""

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.autograd import gradcheck
from rl_lab.engine.errors import ShapeError
from tests.engine.resampling import ANSWERS, SETTINGS, resampled


@pytest.mark.parametrize("name", SETTINGS)
def test_values_and_gradients_are_pytorchs(name):
    recorded = np.load(ANSWERS)
    for part, wanted in zip(resampled(rl, name), ("value", "gradient"), strict=True):
        np.testing.assert_allclose(part, recorded[f"{name} {wanted}"], 1e-5, 1e-5)


def test_second_derivatives():
    x = rl.randn(1, 1, 3, 3, generator=rl.Generator(1)).requires_grad_()
    assert gradcheck(lambda x: F.interpolate(x, size=(4, 5), mode="bicubic") ** 2, x)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": 2, "scale_factor": 2.0},
        {"size": 2, "mode": "cubic"},
        {"size": 2, "mode": "nearest", "align_corners": True},
        {"size": 2, "mode": "bilinear", "antialias": True},
        {"size": 2, "mode": "linear"},
        {"size": (2, 2, 2)},
        {"size": 0},
    ],
)
def test_what_is_refused(settings):
    with pytest.raises((ValueError, RuntimeError)):
        F.interpolate(rl.ones(1, 1, 3, 3), **settings)


def test_a_wrong_number_of_scale_factors_is_named():
    with pytest.raises(ShapeError, match=r"scale_factor \[2.0\] must be a number or 2 numbers"):
        F.interpolate(rl.ones(1, 1, 3, 3), scale_factor=(2.0,))
