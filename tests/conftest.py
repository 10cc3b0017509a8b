"""Fixtures of all tests: the probe environments, seeds of learning tests, and an empty working directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import probes

probes.register()


def pytest_addoption(parser):
    parser.addoption("--programs", type=int, default=2000, help="random programs that are compared with PyTorch")
    parser.addoption("--mutations", type=int, default=600, help="mutations of the files of a run")
    parser.addoption("--injections", type=int, default=0, help="numbers that are not finite, injected into each agent")
    parser.addoption("--learning-seeds", type=int, default=0, help="run every learning test with seeds 1 to this number")


def pytest_generate_tests(metafunc):
    """Run a learning test once per seed, where --learning-seeds is given."""
    count = metafunc.config.getoption("--learning-seeds")
    if count and "learning_seed" in metafunc.fixturenames:
        seeds = range(1, count + 1)
        metafunc.parametrize("learning_seed", seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


def pytest_itemcollected(item):
    """Mark each test that takes ``learning_seed`` as a learning test. Outside of tests/engine, an EagerWarning is an error."""
    if "learning_seed" in item.fixturenames:
        item.add_marker("learning")
    if "engine" not in item.path.parts:
        item.add_marker(pytest.mark.filterwarnings("error::rl_lab.errors.EagerWarning"))


@pytest.fixture
def learning_seed(request, record_property) -> int:
    """The seed of a test that trains something and asserts what was learned: 1, or one of --learning-seeds.

    Such a test must pass for every seed and on every processor: ``python -m tests.learning_seeds`` counts how often it does.
    """
    seed = getattr(request, "param", 1)
    record_property("seed", seed)
    return seed


@pytest.fixture
def learned(record_property, learning_seed) -> Callable[..., None]:
    """Assert that learned numbers differ from the expected ones by at most ``within``; the largest difference is reported.

    A test that uses this fixture is a learning test and must train with ``learning_seed``.
    """

    def compare(actual: Any, expected: Any, within: float, what: str = "difference") -> None:
        actual, expected = np.asarray(actual, float), np.asarray(expected, float)
        assert actual.shape == expected.shape
        difference = float(np.abs(actual - expected).max())
        record_property(what, f"{difference} of {within}")
        assert difference <= within, f"learned {actual.tolist()}, expected {expected.tolist()} within {within:g}"

    return compare


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
