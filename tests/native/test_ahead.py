"""A second process compiles kernels into the cache while the first one begins."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from rl_lab.engine.kernels.usual import KERNELS

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")

KERNELS_FOR_TEST = """
import os, time
from pathlib import Path
from rl_lab.native.primitive import InOut, Int, primitive
from rl_lab.native import cache

def note(name):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{os.getpid()} {name}\\n")

cache.on_compile = note

def make(number):
    source = f"def kernel{number}(x: InOut, n: Int):\\n    for i in range(n):\\n        x[i] = x[i] + {number}\\n"
    scope = {"InOut": InOut, "Int": Int, "__name__": __name__}
    exec(compile(source, __file__, "exec"), scope)
    return primitive(scope[f"kernel{number}"])

KERNELS = tuple(make(number) for number in range(1, 13))
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run a script with an empty cache; returns its output and who compiled which kernel."""
    (tmp_path / "kernels_for_test.py").write_text(KERNELS_FOR_TEST)
    notes = tmp_path / "notes"

    def run(script: str, **environment: str) -> tuple[str, list[tuple[int, str]]]:
        notes.write_text("")
        environment = {
            **os.environ,
            "RL_LAB_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": str(tmp_path),
            "NOTES": str(notes),
            "NUMBA_NUM_THREADS": "2",
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        lines = [line.split() for line in notes.read_text().splitlines()]
        return done.stdout, [(int(process), name) for process, name in lines]

    return run


PREAMBLE = """
import os, time
import numpy as np
from rl_lab.native import ahead
from kernels_for_test import KERNELS

def results():
    x = np.zeros(len(KERNELS), np.float32)
    for i, kernel in enumerate(KERNELS):
        kernel.call(kernel.pack(x[i:].ctypes.data, 1))
    return x
"""
EXPECTED = str(np.arange(1, 13, dtype=np.float32))


def test_both_processes_share_the_work(run):
    output, notes = run("""
        assert ahead.start("kernels_for_test")
        while ahead._helper._begun == set():
            time.sleep(0.01)
        print(os.getpid(), results(), sep="\\n")
    """)
    own, result = output.split("\n", 1)
    assert result.strip() == EXPECTED
    by_others = {name for process, name in notes if process != int(own)}
    by_own = {name for process, name in notes if process == int(own)}
    assert by_others
    assert by_own
    assert by_others | by_own == {f"kernel{i}" for i in range(1, 13)}
    assert "kernel1" not in by_own  # this process waited for it, and compiled from the end meanwhile


def test_a_helper_that_dies_is_not_waited_for(run):
    output, _ = run("""
        assert ahead.start("kernels_for_test")
        while ahead._helper._begun == set():
            time.sleep(0.01)
        ahead._helper.kill()
        begin = time.perf_counter()
        print(results())
        assert time.perf_counter() - begin < 30
    """)
    assert output.strip() == EXPECTED


def test_a_helper_that_hangs_is_not_waited_for_long(run):
    output, _ = run("""
        import signal
        ahead.LONGEST_WAIT = 0.2
        assert ahead.start("kernels_for_test")
        while ahead._helper._begun == set():
            time.sleep(0.01)
        os.kill(ahead._helper._process.pid, signal.SIGSTOP)
        print(results())
    """)
    assert output.strip() == EXPECTED


def test_the_helper_ends_with_its_process(run, tmp_path):
    output, _ = run("""
        assert ahead.start("kernels_for_test")
        while ahead._helper._begun == set():
            time.sleep(0.01)
        print(ahead._helper._process.pid)
        os._exit(0)  # without atexit
    """)
    number = int(output)
    deadline = 100
    while deadline and _is_running(number):
        deadline -= 1
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)"], check=True)
    assert not _is_running(number)


def _is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_compiles_without_the_helper(run):
    output, _ = run("""
        assert ahead.start("kernels_for_test")
        while ahead._helper._begun == set():
            time.sleep(0.01)
        child = os.fork()
        if not child:
            assert ahead._helper is None
            os._exit(0 if str(results()) == str(np.arange(1, 13, dtype=np.float32)) else 1)
        assert os.waitpid(child, 0)[1] == 0
        print(results())
    """)
    assert output.strip() == EXPECTED


def test_no_helper_if_nothing_is_to_be_done_or_if_there_is_one_core(run):
    assert run("print(ahead.start('kernels_for_test'))", NUMBA_NUM_THREADS="1")[0].strip() == "False"
    run("results()")
    output, notes = run("print(ahead.start('kernels_for_test'), results())")
    assert output.strip() == f"False {EXPECTED}"
    assert notes == []


def test_a_helper_that_is_another_program_is_not_waited_for(run):
    output, _ = run("""
        ahead._COMMAND = "print('hello')"
        assert ahead.start("kernels_for_test")
        print(results())
    """)
    assert output.strip() == EXPECTED


def test_the_first_kernel_that_is_missing_starts_a_helper(run):
    output, _ = run("""
        from rl_lab.native import cache
        noted = cache.on_compile
        said = []
        with ahead.helped("kernels_for_test", lambda: said.append("compiling")):
            assert ahead._helper is None
            print(results())
        assert said == ["compiling"]
        assert ahead._helper is not None
        assert cache.on_compile is noted
    """)
    assert output.strip() == EXPECTED


def test_the_first_training_has_a_helper(run):
    output, _ = run("""
        from rl_lab.agents.dqn import DQN
        agent = DQN("CartPole-v1", preset=False, network="mlp:8", learning_starts=20, seed=1)
        assert ahead._helper is None
        agent.learn(200)
        assert ahead._helper._numbers
        print(len(ahead._helper._taken) > 0)
    """)
    assert output.strip() == "True"


def test_usual_kernels_are_different_ones():
    assert len(set(KERNELS)) == len(KERNELS)
