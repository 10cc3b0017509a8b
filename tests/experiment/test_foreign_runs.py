"""A run directory from somebody else is data: nothing is imported, no link is followed, and a forged file is refused."""

import json
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rl_lab import evaluate, train
from rl_lab.experiment import trust
from rl_lab.experiment.checkpoint import load_checkpoint, save_checkpoint
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.run import Run
from tests.agents.test_contract import SMALL
from tests.experiment.mutations import mutated, same
from tests.runs import AGENTS, ENV, only_run

SHORT = ["--total-timesteps", "64", "--eval-episodes", "1", "--eval-frequency", "0", "--num-envs", "2"]
MODULE = """
import gymnasium as gym
import pathlib
pathlib.Path("it_ran").write_text("")
gym.register("Planted-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
"""


def train_agent(agent: str, folder: str = "runs", *more: str) -> Path:
    env = ENV[agent]
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL[agent].items() if name != "compile"]
    assert train.main(["--agent", agent, "--env", env, *settings, *SHORT, "--run-dir", folder, "--no-keep-best", *more]) == 0
    return only_run(folder)


def command(module: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"rl_lab.{module}", *words], capture_output=True, text=True, timeout=60)


def refused(capsys, call, *words: str, codes=(2,)) -> str:
    capsys.readouterr()
    code = call(list(words))
    shown = capsys.readouterr()
    assert code in codes, (code, shown.err)
    assert len(shown.err.splitlines()) == 1, shown.err
    assert "defect" not in shown.err
    return shown.err


# --- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["agent", "env"])
def test_a_foreign_module_is_not_imported(key, workplace):
    run = train_agent("ppo")
    Path("planted_here.py").write_text(MODULE)
    config = run / "config.toml"
    named = {"agent": "planted_here:Agent", "env": "planted_here:Planted-v0"}[key]
    before = read_toml(config)[key]
    config.write_text(config.read_text().replace(f'{key} = "{before}"', f'{key} = "{named}"'))
    for words in (("evaluate", str(run)), ("train", "--resume", str(run)), ("train", "--config", str(config))):
        done = command(*words)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "planted_here" in done.stderr
        assert not Path("it_ran").exists(), words
    done = command("evaluate", str(run), "--trust", "--episodes", "1")
    assert Path("it_ran").exists()
    assert done.returncode == (0 if key == "env" else 2)


def test_an_own_run_needs_no_trust(workplace):
    """The run is signed with a key of this user; a copy in another place, with another module of the same name, is not."""
    Path("mine_here.py").write_text(MODULE)
    words = ["--agent", "ppo", "--env", "mine_here:Planted-v0", "--network", "mlp:8", *SHORT]
    assert command("train", *words).returncode == 0
    run = only_run()
    assert (run / trust.SIGNATURE).is_file()
    shutil.copytree(run, "moved")
    for place in (str(run), "moved"):
        assert command("evaluate", place, "--episodes", "1").returncode == 0
    assert command("train", "--config", str(run / "config.toml"), "--run-dir", "again").returncode == 0
    Path("elsewhere").mkdir()
    shutil.copytree(run, "elsewhere/run")
    Path("elsewhere/mine_here.py").write_text(MODULE)
    Path("it_ran").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "rl_lab.evaluate", "run"], capture_output=True, text=True, timeout=60, cwd="elsewhere"
    )
    assert done.returncode == 2
    assert "--trust" in done.stderr
    assert not Path("elsewhere/it_ran").exists()


def test_runs_of_the_package_are_not_signed(workplace):
    assert not (train_agent("a2c") / trust.SIGNATURE).exists()
    assert trust.foreign_modules({"agent": "rl_lab.agents.dqn:DQN", "env": "rl_lab/DoublePole-v0"}) == []
    assert trust.foreign_modules({"agent": "rl_lab_evil:DQN", "env": "a.b:c:d-v0"}) == ["rl_lab_evil", "a.b:c"]


def test_a_network_elsewhere_is_not_read(workplace, capsys):
    evolved = train_agent("neat", "evolved")
    run = train_agent("dqn")
    config = run / "config.toml"
    network = read_toml(config)["hyperparameters"]["network"]
    config.write_text(config.read_text().replace(f'network = "{network}"', f'network = "{evolved.resolve()}"'))
    assert str(evolved) in config.read_text()
    assert "network" in refused(capsys, evaluate.main, str(run))
    assert "network" in refused(capsys, train.main, "--resume", str(run))


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="makes links and pipes")
@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "config.toml",
        "checkpoints",
        "checkpoints/last",
        "checkpoints/last/state.json",
        "videos",
        "network.json",
        "origin",
    ],
)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_links_and_pipes_are_refused(name, kind, workplace, capsys):
    run = train_agent("a2c")
    place = run / name
    Path("precious").write_text("precious")
    if place.exists():
        target = Path("moved").resolve()
        place.rename(target)
    else:
        target = Path("precious").resolve()
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(target if kind == "link" else Path("nowhere").resolve())
    before = sorted(str(path) for path in Path().rglob("*"))
    for call, words in ((evaluate.main, [str(run)]), (train.main, ["--resume", str(run), "--total-timesteps", "128"])):
        line = refused(capsys, call, *words)
        assert "link" in line or "not a run" in line or "not a regular file" in line
    assert Path("precious").read_text() == "precious"
    assert before == sorted(str(path) for path in Path().rglob("*"))


# --- settings --------------------------------------------------------------------------------------------------------


def test_changed_settings_are_said(workplace, capsys):
    run = train_agent("ppo")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("gamma = 0.98", "gamma = 0.5").replace("seed = 1", "seed = 9"))
    capsys.readouterr()
    assert evaluate.main([str(run), "--json"]) == 0
    shown = capsys.readouterr()
    assert "was changed after this checkpoint: seed 1 -> 9, gamma 0.98 -> 0.5" in shown.err
    json.loads(shown.out)
    assert train.main(["--resume", str(run), "--total-timesteps", "128", "--eval-episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "gamma 0.98 -> 0.5" in out
    assert "changed: total_timesteps 64 -> 128, eval_episodes 1 -> 2" in out
    assert read_toml(config)["eval_episodes"] == 2


# --- checkpoints made by hand ----------------------------------------------------------------------------------------


def leaves(state, path=()):
    """The places of all values in a nested state."""
    pairs = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in pairs:
        if isinstance(value, (dict, list)) and value:
            yield (*path, key), value
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def replaced(state, place, value):
    """A copy of a nested state with another value at a place; the value `GONE` removes it."""
    first, *rest = place
    copied = dict(state) if isinstance(state, dict) else list(state)
    if rest:
        copied[first] = replaced(copied[first], rest, value)
    elif value is GONE:
        del copied[first]
    else:
        copied[first] = value
    return copied


GONE = object()


def strange_values(value):
    """Values that a forged file may contain in place of a valid one."""
    yield from (GONE, None, "word", {"a": 1}, [1, 2], 10**30, -1, float("nan"), float("inf"), True)
    if isinstance(value, np.ndarray):
        yield from (np.zeros((2, *value.shape), value.dtype), value.reshape(-1)[:-1], np.zeros(0, value.dtype))
        yield np.full_like(value, np.iinfo(value.dtype).max if value.dtype.kind in "iu" else 1)
        yield value.astype(np.float64) if value.dtype.kind != "f" else value.astype(np.int64)
        if value.dtype.kind == "i":
            yield np.full_like(value, -1)
        if value.dtype.kind == "f":
            yield np.full_like(value, np.nan)


@pytest.mark.parametrize("agent", AGENTS)
def test_states_made_by_hand(agent, workplace, capsys, full):
    """Each value of a checkpoint is replaced, under a correct checksum: it is loaded or refused in one line, and nothing crashes."""
    run = train_agent(agent)
    place = run / "checkpoints" / "last"
    good = load_checkpoint(place)
    chances = random.Random(1)
    cases = [(path, value, strange) for path, value in leaves(good) for strange in strange_values(value)]
    shutil.rmtree(run / "checkpoints")
    for path, _, strange in cases if full else chances.sample(cases, 25):
        save_checkpoint(place, replaced(good, path, strange))
        capsys.readouterr()
        code = evaluate.main([str(run), "--episodes", "1"])
        shown = capsys.readouterr()
        assert code in (0, 2, 3), (path, strange, shown.err)
        assert len(shown.err.splitlines()) <= 1, (path, strange, shown.err)
        assert "defect" not in shown.err, (path, strange, shown.err)


@pytest.mark.parametrize("agent", ["neat", "dqn", "recurrent_ppo"])
def test_resuming_states_made_by_hand(agent, workplace, full):
    """Load each forged value in a separate process, which must not crash: kernels use some of these numbers as indices."""
    run = train_agent(agent)
    good = load_checkpoint(run / "checkpoints" / "last")
    shutil.rmtree(run / "checkpoints")
    cases = [
        (path, value, strange)
        for path, value in leaves(good)
        for strange in strange_values(value)
        if isinstance(value, np.ndarray) and isinstance(strange, np.ndarray) and value.dtype.kind == "i"
    ]
    for path, _, strange in cases if full else random.Random(2).sample(cases, 6):
        save_checkpoint(run / "checkpoints" / "last", replaced(good, path, strange))
        done = command("train", "--resume", str(run), "--total-timesteps", "128")
        assert done.returncode in (0, 2, 3), (path, strange, done.returncode, done.stderr)
        assert len(done.stderr.splitlines()) <= 1, done.stderr
        assert "defect" not in done.stderr, (path, strange, done.stderr)


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    old = Path.cwd()
    os.chdir(folder)
    try:
        run = train_agent("a2c").resolve()
    finally:
        os.chdir(old)
    return run


@pytest.mark.parametrize("name", ["state.safetensors", "environments.state", "state.json"])
def test_truncated_checkpoints(name, small_run, workplace, full):
    shutil.copytree(small_run, "run")
    file = Path("run/checkpoints/last") / name
    whole = file.read_bytes()
    file.unlink()
    for length in range(0, len(whole), 1 if full else 37):
        file.write_bytes(whole[:length])
        with pytest.raises(Fault, match="cannot be read"):
            load_checkpoint(file.parent)


def test_mutated_checkpoints_and_configs(small_run, workplace, capsys, full):
    """Flip bits, and repeat, remove and replace bytes: a damaged file is refused in one line, or its content is unchanged."""
    shutil.copytree(small_run, "run")
    last = Path("run/checkpoints/last")
    good = load_checkpoint(last)
    chances = np.random.default_rng(3)
    states = [last / name for name in ("state.safetensors", "environments.state", "state.json")]
    files = {file: file.read_bytes() for file in (*states, Path("run/config.toml"))}
    refusals = 0
    tracemalloc.start()
    for _ in range(100_000 if full else 600):
        file = list(files)[int(chances.integers(len(files)))]
        whole = files[file]
        file.unlink()
        file.write_bytes(mutated(whole, chances))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            Run.open(Path("run"))
            assert same(load_checkpoint(last), good)
        except Fault:  # one line, always
            refusals += 1
        assert tracemalloc.get_traced_memory()[1] - before < 40 * sum(map(len, files.values())) + 1_000_000
        file.unlink()
        file.write_bytes(whole)
    tracemalloc.stop()
    assert refusals > 100


HEADERS = [
    {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}},
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [1e9], "data_offsets": [0, 8]}},
    {"a": {"dtype": "X99", "shape": [2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
    {"a": {"dtype": "F32", "shape": [2]}},
    {"a": None},
    {"__metadata__": {"a": 1}},
    [],
]


@pytest.mark.parametrize("header", [*map(json.dumps, HEADERS), "[" * 100_000, '{"a":' * 50_000, "", "\x00" * 8])
@pytest.mark.parametrize("claimed", [None, 2**63, 2**40, 0])
@pytest.mark.parametrize("name", ["state.safetensors", "environments.state"])
def test_crafted_headers(name, header, claimed, small_run, workplace):
    shutil.copytree(small_run, "run")
    file = Path("run/checkpoints/last") / name
    content = header.encode()
    length = len(content) if claimed is None else claimed
    file.unlink()
    file.write_bytes(length.to_bytes(8, "little") + content + b"\x00" * 8)
    tracemalloc.start()
    with pytest.raises(Fault, match="cannot be read"):
        load_checkpoint(file.parent)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_file_of_huge_size(small_run, workplace):
    """A sparse file of a terabyte uses no disk space, and reading it must not use memory either."""
    shutil.copytree(small_run, "run")
    for name, where in (("state.json", "run/checkpoints/last"), ("config.toml", "run")):
        file = Path(where) / name
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        os.truncate(file, 1 << 40)
        with pytest.raises(Fault):
            Run.open(Path("run")).load()
        file.write_bytes(content)
