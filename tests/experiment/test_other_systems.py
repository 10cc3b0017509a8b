"""Windows and macOS lack modules, signals and functions that Linux has: everything imports and trains without them."""

import subprocess
import sys

PROGRAM = """
import importlib, multiprocessing, os, pkgutil, signal, sys
import gymnasium.vector, numba, numpy, pandas, rich.progress, tensorboardX  # they know which system this is
import multiprocessing.resource_tracker, numba.np.ufunc.parallel, subprocess, tempfile, uuid

ABSENT = {"fcntl", "grp", "pwd", "resource", "syslog", "termios"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in ABSENT & set(sys.modules):
    del sys.modules[name]
for name in ("SIGHUP", "SIGKILL", "SIGALRM", "SIGPIPE", "SIGUSR1", "SIGCHLD", "SIGCONT", "SIGSTOP", "alarm", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fork", "forkpty", "killpg", "register_at_fork", "sched_getaffinity", "uname", "O_NOFOLLOW", "O_CLOEXEC", "mkfifo", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
found = []
for package in ("rl_lab", "rl_lab.agents", "rl_lab.envs"):
    module = importlib.import_module(package)
    found += [each.name for each in pkgutil.walk_packages(module.__path__, package + ".")]
for name in found:
    importlib.import_module(name)
print(len(found), "modules")
if "train" in sys.argv:
    from pathlib import Path
    from rl_lab import evaluate, train
    words = ["--agent", "a2c", "--env", "CartPole-v1", "--network", "mlp:8", "--total-timesteps", "100", "--eval-episodes", "1"]
    assert train.main(words) == 0
    (run,) = Path("runs").glob("*/*/*")
    assert train.main(["--resume", str(run), "--total-timesteps", "200"]) == 0
    assert evaluate.main([str(run), "--episodes", "1"]) == 0
    assert not (run / "lock").exists()
"""


def test_every_module_imports_and_runs_train_without_what_windows_lacks(workplace):
    done = subprocess.run([sys.executable, "-c", PROGRAM, "train"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 100
    assert "Traceback" not in done.stderr


def test_the_check_finds_an_import(workplace):
    """A module that needs fcntl is found."""
    (workplace / "planted.py").write_text("import fcntl\n")
    program = PROGRAM.replace("found = []", 'found = ["planted"]')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "No module named 'fcntl'" in done.stderr


def test_run_directories_have_names_that_every_system_takes(workplace):
    from rl_lab.experiment.run import Run

    run = Run.create(workplace / "runs", {"agent": "mine:Agent", "env": "mine:deep/World-v0", "seed": 1})
    run.close()
    assert run.path.parent == workplace / "runs" / "mine-deep-World-v0" / "mine-Agent"
