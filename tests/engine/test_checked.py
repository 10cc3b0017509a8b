"""With NUMBA_BOUNDSCHECK=1 kernels check every index against the real size of the memory."""

import os
import subprocess
import sys

SCRIPT = """
import rl_lab as rl
from rl_lab.engine.kernels import elementwise
from rl_lab.engine.launch import launch

x, y = rl.zeros(16), rl.zeros(16)
launch(elementwise.neg, (y, x), (1, {count}, 0, 1))
print("done")
"""


def run(count: int) -> subprocess.CompletedProcess:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}
    command = [sys.executable, "-c", SCRIPT.format(count=count)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_a_launch_beyond_its_buffer_is_reported():
    """A planted error, 17 elements in buffers of 16, is printed; pytest's settings turn the message into a failure."""
    assert "IndexError" in run(17).stderr


def test_a_launch_within_its_buffer_is_not():
    assert run(16).stderr == ""
