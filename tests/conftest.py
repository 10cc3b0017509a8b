"""What all tests share: the probe environments, and runs in a folder of their own."""

import os
from pathlib import Path

import pytest

from tests import probes

probes.register()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run slow learning tests at full length")
    parser.addoption("--programs", type=int, default=2000, help="random programs that are compared with PyTorch")


@pytest.fixture
def full(request) -> bool:
    """Whether slow tests run at full length (--full, or RL_LAB_FULL=1)."""
    return bool(request.config.getoption("--full") or os.environ.get("RL_LAB_FULL"))


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
