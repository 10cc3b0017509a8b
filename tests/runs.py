"""What tests of runs share: the agents of this package, the run that a test made, and train commands in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from gymnasium.spaces import Discrete

EXTRAS = {"cmaes": "cma"}  # pip install cma threadpoolctl
"""The library that an agent needs beside those of rl_lab."""
AGENTS = {
    entry.name: entry.load()
    for entry in entry_points(group="rl_lab.agents")
    if entry.value.startswith("rl_lab.") and find_spec(EXTRAS.get(entry.name, "rl_lab"))
}
"""Agent classes by the name under which they are registered; those whose library is missing are left out."""
ENV = {name: "CartPole-v1" if Discrete in agent.action_spaces else "Pendulum-v1" for name, agent in AGENTS.items()}
"""For each agent, an environment in which it can act."""
SEARCHES = ("ars", "es", "cmaes")
"""Agents that search in the space of parameters by whole episodes."""


def only_run(folder: Path | str = "runs") -> Path:
    """The directory of the only run below a folder."""
    (run,) = Path(folder).glob("*/*/*")
    return run


def start(*words: str) -> subprocess.Popen:
    """Start the train command in a session of its own."""
    command = [sys.executable, "-m", "rl_lab.train", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 60.0) -> None:
    """Wait for a condition. Fails if the process ends before it holds, or if it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end(process: subprocess.Popen, seconds: float = 30.0) -> tuple[str, str]:
    """Wait for the end of a process; return its output and its errors. Kills its session and fails if it takes longer."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("still running")


def left(process: subprocess.Popen) -> list[str]:
    """Processes of a finished session that are still alive after the time that they have to end."""
    for _ in range(40):
        found = subprocess.run(["ps", "-s", str(process.pid), "-o", "pid=,stat=,args="], capture_output=True, text=True).stdout
        alive = [line for line in found.splitlines() if line.split()[1][0] != "Z"]
        if not alive:
            return []
        time.sleep(0.25)
    return alive
