"""The wheel, installed in a new environment, works in a folder that has other packages named ``agents`` and ``envs``."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from rl_lab.experiment.config import read_toml

ROOT = Path(__file__).parents[1]
SOURCES = ("rl_lab", "agents", "envs", "pyproject.toml", "README.md", "LICENSE")
SHORT = ("--eval-episodes", "3", "--eval-frequency", "0", "--keep-best", "false")


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the sources, so that nothing is written beside them."""
    source, out = folder / "source", folder / "wheels"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    try:
        if int(version("setuptools").partition(".")[0]) >= 68 and importlib.util.find_spec("wheel"):
            command.append("--no-build-isolation")
    except PackageNotFoundError:
        pass  # pip fetches it
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and re.search("connection|network|No matching distribution", done.stderr, flags=re.IGNORECASE):
        pytest.skip("setuptools is neither installed nor can it be fetched")
    assert done.returncode == 0, done.stderr
    (found,) = out.iterdir()
    return found


class Installed:
    """A new environment with the wheel, which uses all other packages of the present one, and a working directory."""

    def __init__(self, folder: Path):
        self.wheel = build(folder)
        place = folder / "environment"
        venv.create(place, with_pip=False)
        self.bin = place / ("Scripts" if os.name == "nt" else "bin")
        self.python = str(self.bin / "python")
        install = [sys.executable, "-m", "pip", "--python", self.python, "install", "-q", "--no-deps", "--no-index"]
        subprocess.run([*install, str(self.wheel)], check=True, timeout=120)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        own = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        self.packages = Path(own.stdout.strip())
        # folders named in a .pth file are added to the path, but .pth files inside them (of editable installs) are not read
        borrowed = [path for path in sys.path if path.endswith("-packages")]
        (self.packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        self.folder = folder / "work"
        for name in ("agents", "envs", "tests"):
            (self.folder / name).mkdir(parents=True)
            (self.folder / name / "__init__.py").write_text(f"raise ImportError('somebody else\\'s {name} were imported')\n")
        self.number = 0

    def run(self, *words: str, folder: str = "") -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        place = self.folder / folder
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_it_holds_one_package(installed):
    with zipfile.ZipFile(installed.wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"rl_lab", "rl_lab_cpu-0.2.0.dist-info"}
    expected = {
        f"rl_lab/{path.relative_to(ROOT / folder)}" if folder == "rl_lab" else f"rl_lab/{path.relative_to(ROOT)}"
        for folder in ("rl_lab", "agents", "envs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".toml", ".typed", ".html")
    }
    assert {name for name in names if not name.startswith("rl_lab_cpu")} == expected


def test_it_is_imported_from_where_it_was_installed(installed):
    code = "import rl_lab, rl_lab.agents.dqn as a, rl_lab.envs.cartpole as e; print(rl_lab.__file__, a.__file__, e.__file__)"
    for path in installed.run(installed.python, "-c", code).split():
        assert Path(path).is_relative_to(installed.packages)


def test_the_main_job(installed):
    words = ("-m", "rl_lab.train", "--agent", "dqn", "--env", "CartPole-v1", "--total-timesteps", "3000", *SHORT)
    out = installed.run(installed.python, *words)
    (run,) = (installed.folder / "runs").glob("*/*/*")
    assert (run / "config.toml").is_file()
    assert str(run.relative_to(installed.folder)) in out
    script = str(installed.bin / "rl-lab-evaluate")
    assert "CartPole-v1" in installed.run(script, str(run), "--episodes", "2")
    assert {path.name for path in installed.folder.iterdir()} == {"agents", "envs", "tests", "runs"}


def test_a_preset_is_used(installed):
    preset = read_toml(ROOT / "agents" / "presets.toml")["ppo"]["CartPole-v1"]
    words = (
        "--agent",
        "ppo",
        "--env",
        "CartPole-v1",
        "--total-timesteps",
        "300",
        "--eval-episodes",
        "2",
        "--run-dir",
        "others",
    )
    out = installed.run(str(installed.bin / "rl-lab-train"), *words)
    (line,) = [line for line in out.splitlines() if line.startswith("preset:")]
    given = {"total_timesteps"}
    assert line == "preset: " + ", ".join(f"{name} {value}" for name, value in preset.items() if name not in given)


def test_a_script_uses_an_agent(installed):
    (installed.folder / "script.py").write_text(
        textwrap.dedent("""
        import json
        from rl_lab.agents.dqn import DQN

        agent = DQN("CartPole-v1", seed=1, num_envs=2, network="mlp:8", learning_starts=8, batch_size=8)
        agent.learn(200)
        print(json.dumps(agent.timesteps))
        """)
    )
    assert json.loads(installed.run(installed.python, "script.py")) > 0


def test_an_own_agent(installed):
    (installed.folder / "mine.py").write_text(
        "from rl_lab.agents.dqn import DQN\nclass Mine(DQN):\n    name = 'mine'\n    def step(self):\n"
        "        open('it_stepped', 'w').close()\n        return super().step()\n"
    )
    words = ("-m", "rl_lab.train", "--agent", "mine:Mine", "--env", "CartPole-v1", "--total-timesteps", "200", *SHORT)
    installed.run(installed.python, *words, "--run-dir", "own")
    assert (installed.folder / "it_stepped").exists()
    (run,) = (installed.folder / "own").glob("*/*/*")
    installed.run(installed.python, "-m", "rl_lab.evaluate", str(run), "--episodes", "1")


@pytest.mark.parametrize("folder", ["rl_lab", "agents", "envs", "examples"])
def test_no_message_names_a_distribution_of_ours(folder):
    """Other projects own these names on package indexes: a message with such a name would make users install foreign code."""
    wrong = re.compile(r"pip3? install[^\n]*\brl[_-]lab|rl[_-]lab(?:-cpu)?\[")
    assert wrong.search("pip install 'rl_lab[video]'")
    assert wrong.search('needs "rl-lab-cpu[plots]"')
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".ipynb", ".toml", ".md"):
            found = wrong.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path}: {found.group()}"
