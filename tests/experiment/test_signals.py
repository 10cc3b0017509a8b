"""Signals, locks and environments in separate processes: a run is saved and ends, no process hangs, and no process is left over."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import gymnasium as gym
import pytest

from rl_lab import evaluate
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.experiment import driver
from rl_lab.experiment import lock as lock_module
from rl_lab.experiment.analysis import read_events
from rl_lab.experiment.checkpoint import load_checkpoint
from rl_lab.experiment.command import run_command
from rl_lab.experiment.environments import open_environments
from rl_lab.experiment.faults import Fault, Interrupted
from rl_lab.experiment.lock import RunLock
from rl_lab.experiment.run import Run
from rl_lab.experiment.vector import close_environments
from tests.runs import end, left, only_run, start, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the signals of Unix")

LONG = [
    "--agent",
    "a2c",
    "--env",
    "CartPole-v1",
    "--network",
    "mlp:8",
    "--total-timesteps",
    "1e9",
    "--checkpoint-frequency",
    "0",
]
LONG += ["--eval-frequency", "0", "--log-frequency", "100"]
SLOW = """
import os, pathlib, signal, time
import gymnasium as gym
import numpy as np

class Slow(gym.Env):
    observation_space, action_space, steps = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2), 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.steps += 1
        if self.steps == 30:
            pathlib.Path(f"at_30_{os.getpid()}").touch()
            BODY
        return np.zeros(2, np.float32), 1.0, False, False, {}
gym.register("Slow-v0", entry_point=Slow, max_episode_steps=10)
"""
ASYNC = ["--agent", "a2c", "--env", "slow:Slow-v0", "--vectorization", "async", "--num-envs", "2", "--total-timesteps", "1e6"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_ends(name, workplace):
    process = start(*LONG)
    until(lambda: list(Path("runs").glob("*/*/*/events*")), process)
    time.sleep(1.0)
    process.send_signal(getattr(signal, name))
    out, error = end(process)
    assert process.returncode == 128 + getattr(signal, name), error
    assert error == ""
    assert "the agent is saved" in out
    assert load_checkpoint(only_run() / "checkpoints/last")["timesteps"] > 0
    assert not (only_run() / "lock").exists()
    assert evaluate.main([str(only_run()), "--episodes", "1"]) == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_all_processes_saves_what_was_learned(name, workplace):
    """A terminal's Ctrl-C reaches the environments' processes, too."""
    process = start(*LONG, "--vectorization", "async", "--backend", "gymnasium", "--num-envs", "2")
    until(lambda: list(Path("runs").glob("*/*/*/events*")), process)
    time.sleep(1.0)
    os.killpg(process.pid, getattr(signal, name))
    out, error = end(process, 60)
    assert process.returncode == 128 + getattr(signal, name), error
    assert load_checkpoint(only_run() / "checkpoints/last")["timesteps"] > 0, out
    assert left(process) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_during_the_evaluation_at_the_end(name, workplace):
    """Everything is saved already: the first signal ends the run, and nothing stays locked."""
    process = start(
        *LONG[:6],
        "--total-timesteps",
        "200",
        "--eval-frequency",
        "0",
        "--eval-episodes",
        "1000000",
        "--eval-steps",
        "1000000000",
    )
    until(lambda: list(Path("runs").glob("*/*/*/checkpoints/last")), process)
    time.sleep(0.3)
    process.send_signal(getattr(signal, name))
    _, error = end(process)
    assert (process.returncode, error) == (128 + getattr(signal, name), "rl_lab: interrupted\n")
    assert not (only_run() / "lock").exists()
    done = end(start("--resume", str(only_run()), "--eval-episodes", "1"))
    assert "after 200 steps" in done[0]
    values = read_events(only_run())
    assert not values[["tag", "step"]].duplicated().any()


class Destroyed:
    """Interrupts its process while it is destroyed, where Python drops the exception."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0.05)


def interrupt_in_a_destructor(number):
    Destroyed(number)


def interrupt_in_a_callback(number):
    one = type("One", (), {})()
    weakref.finalize(one, lambda: (os.kill(os.getpid(), number), time.sleep(0.05)))
    del one


def go_on():
    for _ in range(500):
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("where", [interrupt_in_a_destructor, interrupt_in_a_callback])
def test_no_signal_is_lost_where_python_drops_exceptions(where, name):
    hook = sys.unraisablehook
    number = getattr(signal, name)
    with driver._StopRequest() as stop:
        for _ in range(3):  # each of them is the first signal, or the third would end this process
            where(number)
            with pytest.raises(Interrupted):
                go_on()
            stop._count = 0
    assert stop.code == 128 + number
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("where", [interrupt_in_a_destructor, interrupt_in_a_callback])
def test_no_command_loses_an_interrupt(where, capsys):
    def body(arguments):
        where(signal.SIGINT)
        go_on()
        return 0

    assert run_command(body, []) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "rl_lab: interrupted\n"


def test_a_hangup_that_the_shell_wants_ignored_is_ignored(workplace):
    """With nohup the run continues after its terminal is closed."""
    command = ["nohup", sys.executable, "-m", "rl_lab.train", *LONG, "--total-timesteps", "30000", "--eval-episodes", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: list(Path("runs").glob("*/*/*/events*")), process)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "signals", [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGTERM")]
)
def test_a_second_signal_ends_a_run_whose_environment_hangs(signals, workplace):
    Path("slow.py").write_text(SLOW.replace("BODY", "time.sleep(600)"))
    process = start(*ASYNC)
    until(lambda: list(Path().glob("at_30_*")), process)
    for name in signals:
        time.sleep(0.7)
        process.send_signal(getattr(signal, name))
    end(process, 15)
    assert process.returncode == 128 + getattr(signal, signals[1])
    assert left(process) == []


def test_a_second_signal_ends_a_run_that_hangs_in_its_own_process(workplace):
    Path("slow.py").write_text(SLOW.replace("BODY", "time.sleep(600)"))
    process = start(*ASYNC[:4], "--num-envs", "2")
    until(lambda: list(Path().glob("at_30_*")), process)
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    _, error = end(process, 15)
    assert process.returncode == 130
    assert error == "rl_lab: interrupted\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
        ("os._exit(7)", "ended with code 7"),
        ("raise OSError('the cable is loose')", "OSError: the cable is loose"),
    ],
)
def test_an_environment_that_ends_is_named(body, words, workplace):
    """Run three times, because the system may note the end of a process with a random delay."""
    Path("slow.py").write_text(SLOW.replace("BODY", body))
    for _ in range(3):
        process = start(*ASYNC)
        _, error = end(process, 60)
        assert process.returncode == 3, error
        last = error.splitlines()[-1]
        assert "environment" in last
        assert "Slow-v0" in last
        assert words in last
        assert left(process) == []


def three_steps(envs):
    for _ in range(3):
        envs.step_wait()
        envs.step_async([0, 0])


def test_a_killed_environment_never_hangs_the_run(workplace):
    """Kill an environment process at many moments: while it steps, while it waits, before and after its answer."""
    for pause in (0.0, 0.001, 0.005, 0.02, 0.05):
        for victim in (0, 1):
            envs, _ = open_environments("Acrobot-v1", 2, backend="gymnasium", vectorization="async")
            envs.reset(seed=1)
            envs.step_async([0, 0])
            time.sleep(pause)
            os.kill(envs.processes[victim].pid, signal.SIGKILL)
            begin = time.monotonic()
            with pytest.raises(EnvironmentFault, match=f"environment {victim} of Acrobot-v1 was killed by signal 9"):
                three_steps(envs)
            close_environments(envs)
            assert time.monotonic() - begin < 10
            assert not any(process.is_alive() for process in envs.processes)


def test_a_silent_environment_is_named(workplace, monkeypatch, capfd):
    from rl_lab.experiment import vector

    monkeypatch.setattr(vector, "ANSWER_SECONDS", 0.5)
    envs, _ = open_environments("Acrobot-v1", 2, backend="gymnasium", vectorization="async")
    envs.reset(seed=1)
    os.kill(envs.processes[1].pid, signal.SIGSTOP)
    envs.step_async([0, 0])
    with pytest.raises(Exception, match=r"timed out|operation"):
        envs.step_wait(timeout=2.5)
    assert "environment 1 of Acrobot-v1 has not answered" in capfd.readouterr().err
    begin = time.monotonic()
    close_environments(envs)
    assert time.monotonic() - begin < 10


def test_nothing_is_left_of_a_run_that_was_killed(workplace):
    Path("slow.py").write_text(SLOW.replace("BODY", "time.sleep(0.5)"))
    process = start(*ASYNC)
    until(lambda: list(Path().glob("at_30_*")), process)
    process.kill()
    end(process)
    assert left(process) == []


# --- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_names_its_holder(workplace):
    held = RunLock(Path("lock"))
    assert json.loads(Path("lock").read_text())["process"] == os.getpid()
    with pytest.raises(Fault, match=f"another process writes to .: process {os.getpid()} on .*, since 20"):
        RunLock(Path("lock"))
    held.release()
    assert not Path("lock").exists()
    RunLock(Path("lock")).release()


def test_a_lock_of_a_dead_process_is_free(workplace):
    code = "import os; from pathlib import Path; from rl_lab.experiment.lock import RunLock; RunLock(Path('lock')); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Path("lock").exists()
    RunLock(Path("lock")).release()


def test_a_lock_whose_file_was_removed_is_noticed(workplace):
    """The holder ends after another process has opened the lock file and before it locks the file."""
    first = RunLock(Path("lock"))
    take = lock_module._take
    taken = []

    def late(descriptor):
        if not taken:
            taken.append(first.release())
        return take(descriptor)

    lock_module._take = late
    try:
        second = RunLock(Path("lock"))
    finally:
        lock_module._take = take
    with pytest.raises(Fault):
        RunLock(Path("lock"))
    second.release()


@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_lock_follows_no_link(target, workplace):
    Path("precious").write_text("precious")
    Path("lock").symlink_to(target)
    with pytest.raises(Fault, match="cannot lock"):
        RunLock(Path("lock"))
    assert Path("precious").read_text() == "precious"
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, b"[" * 1000, b"7", b'{"process": "x"}', b"\xff"])
def test_a_lock_with_strange_content(content, workplace):
    Path("lock").write_bytes(content)
    held = RunLock(Path("lock"))
    Path("lock").write_bytes(content)
    with pytest.raises(Fault, match="another process writes"):
        RunLock(Path("lock"))
    held.release()


def test_systems_without_locks_of_files(workplace, monkeypatch):
    monkeypatch.setattr(lock_module, "fcntl", None)
    monkeypatch.setattr(lock_module, "msvcrt", None)
    held = RunLock(Path("lock"))
    with pytest.raises(Fault, match=f"process {os.getpid()}"):
        RunLock(Path("lock"))
    held.release()
    Path("lock").write_text(json.dumps({"process": 2**22 + 1, "host": lock_module.socket.gethostname(), "since": "long ago"}))
    RunLock(Path("lock")).release()
    Path("lock").write_text(json.dumps({"process": 1, "host": "another.example", "since": "long ago"}))
    with pytest.raises(Fault, match="on another"):
        RunLock(Path("lock"))


def test_windows_locks_a_byte(workplace, monkeypatch):
    class Windows:
        LK_NBLCK = 2
        locked: set[int] = set()

        def locking(self, descriptor, mode, count):
            inode = os.fstat(descriptor).st_ino
            if inode in self.locked:
                raise OSError(36, "Resource deadlock avoided")
            self.locked.add(inode)

    monkeypatch.setattr(lock_module, "fcntl", None)
    monkeypatch.setattr(lock_module, "msvcrt", Windows())
    RunLock(Path("lock"))
    with pytest.raises(Fault, match="another process"):
        RunLock(Path("lock"))


def test_many_processes_reach_for_one_run(workplace):
    """Four processes acquire and release the lock; no two hold it at the same time."""
    code = """
import random, time
from pathlib import Path
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.lock import RunLock
held = 0
end = time.time() + 4
while time.time() < end:
    try:
        lock = RunLock(Path("lock"))
    except Fault:
        continue
    Path("inside").mkdir()  # fails if another one is inside
    time.sleep(random.random() / 500)
    Path("inside").rmdir()
    lock.release()
    held += 1
print(held)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sum(counts) > 50


def test_a_run_names_the_process_that_writes(workplace):
    config = {"agent": "dqn", "env": "CartPole-v1", "seed": 1}
    run = Run.create(Path("runs"), config)
    with pytest.raises(Fault, match=f"another process writes to {run.path}: process {os.getpid()}"):
        Run.open(run.path).lock()
    run.close()


def test_an_environment_of_the_script_in_processes(workplace):
    """The environment is registered by the script itself, so environment processes cannot find it by an import."""
    Path("script.py").write_text(
        SLOW.replace("BODY", "pass").replace("gym.register(", "def register():\n    gym.register(")
        + "\nif __name__ == '__main__':\n    register()\n    from rl_lab.train import main\n"
        "    raise SystemExit(main(['--agent', 'a2c', '--env', 'Slow-v0', '--num-envs', '2', '--vectorization', 'async',\n"
        "        '--total-timesteps', '200', '--eval-episodes', '1']))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "greedy return 10.0" in done.stdout


def test_registered_environments_stay_as_they_were():
    assert gym.spec("Acrobot-v1").entry_point == "gymnasium.envs.classic_control.acrobot:AcrobotEnv"
