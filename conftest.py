"""The option of all tests and examples: --full, or RL_LAB_FULL=1."""

import os

import pytest


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run slow learning tests at full length, and examples with every seed")


@pytest.fixture
def full(request) -> bool:
    """Whether slow tests run at full length (--full, or RL_LAB_FULL=1)."""
    return bool(request.config.getoption("--full") or os.environ.get("RL_LAB_FULL"))
