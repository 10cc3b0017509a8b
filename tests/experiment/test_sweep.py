"""Sweeps on this machine: the runs of `train`, statistics over seeds, interruptions, failures, and the search for better settings."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rl_lab import sweep, train
from rl_lab.experiment import Agent, Fault, setting
from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean, read_events
from rl_lab.experiment.config import Between, read_toml
from rl_lab.experiment.sweeps.executors import LocalExecutor
from rl_lab.experiment.sweeps.store import Store
from rl_lab.experiment.sweeps.sweep import (
    Runner,
    _read_result,
    _record,
    carry_out_sweep,
    grid,
    make_sweep,
    open_sweep,
    read_seeds,
)
from rl_lab.experiment.sweeps.table import NoTable
from rl_lab.experiment.sweeps.worker import PROGRESS_SECONDS, Task, _Reports, perform

A2C = ["--agent", "a2c", "--env", "CartPole-v1", "--eval-episodes", "3", "--stop-return", "none", "--eval-frequency", "0"]
SETTINGS = {"agent": "a2c", "env": "CartPole-v1", "eval_episodes": 3, "stop_return": "none", "eval_frequency": 0}


def checksum(run: Path) -> str:
    return json.loads((run / "checkpoints" / "last" / "state.json").read_text())["checksum"]


def only_sweep() -> Path:
    (found,) = Path("runs").glob("*/*/*-sweep")
    return found


def test_a_sweep_is_one_training_per_combination_and_seed(workplace, capsys):
    words = [*A2C, "--total-timesteps", "1500"]
    assert sweep.main([*words, "--seeds", "4,9", "--set", "gamma=0.9,0.99"]) == 0
    out = capsys.readouterr().out
    found = only_sweep()
    runs = sorted(str(file.parent.relative_to(found)) for file in found.rglob("config.toml"))
    assert runs == [f"{variant}/s{seed}" for variant in ("00-gamma=0.9", "01-gamma=0.99") for seed in (4, 9)]
    summary = json.loads((found / "summary.json").read_text())
    for variant in summary["runs"]:
        returns = list(variant["returns"].values())
        assert variant["interquartile_mean"] == interquartile_mean(returns)
        assert variant["interval"] == list(bootstrap_interval(returns))
        assert f"interquartile mean {variant['interquartile_mean']:.1f}" in out
        logged = read_events(found / variant["folder"]).set_index("tag").value
        assert logged["sweep/return_interquartile_mean"] == pytest.approx(variant["interquartile_mean"])
        assert logged["sweep/return_low"] == pytest.approx(variant["interval"][0])
    assert train.main([*words, "--seed", "9", "--gamma", "0.99", "--run-dir", "alone"]) == 0
    (alone,) = Path("alone").glob("*/*/*")
    assert checksum(alone) == checksum(found / "01-gamma=0.99" / "s9")
    greedy = re.search(r"greedy return ([\d.]+)", capsys.readouterr().out)
    told = {v["folder"]: v["returns"]["9"] for v in summary["runs"]}
    assert float(greedy[1]) == pytest.approx(told["01-gamma=0.99"], abs=0.05)


def test_train_with_seeds_is_a_sweep(workplace, capsys):
    assert train.main([*A2C, "--total-timesteps", "100", "--seeds", "1"]) == 0
    assert "with one seed, which gives no interval" in capsys.readouterr().out
    assert (only_sweep() / "s1" / "result.json").is_file()


def test_an_interrupted_sweep_continues_bitwise(workplace):
    words = [*A2C, "--total-timesteps", "600000", "--checkpoint-frequency", "5000", "--seeds", "1"]
    process = subprocess.Popen([sys.executable, "-m", "rl_lab.sweep", *words], stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(Path("runs").glob("*/*/*/s1/checkpoints/last/state.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = only_sweep()
    assert f"--resume {found}" in out
    assert not (found / "s1" / "result.json").exists()
    assert not (found / "s1" / "lock").exists()
    assert sweep.main(["--resume", str(found)]) == 0
    settings = {**SETTINGS, "total_timesteps": 600_000, "checkpoint_frequency": 5000, "seeds": 1, "run_dir": "whole"}
    whole = carry_out_sweep(make_sweep(settings), NoTable())
    assert checksum(found / "s1") == checksum(whole.path / "s1")


def test_a_run_stops_when_its_sweep_is_killed(workplace):
    words = [*A2C, "--total-timesteps", "100000000", "--seeds", "1"]
    process = subprocess.Popen([sys.executable, "-m", "rl_lab.sweep", *words], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(Path("runs").glob("*/*/*/s1/events*")):
        time.sleep(0.02)
    time.sleep(1.0)  # the log exists a moment before training begins
    process.kill()
    process.wait()
    run = only_sweep() / "s1"
    while time.monotonic() < until and (run / "lock").exists():
        time.sleep(0.02)
    assert (run / "checkpoints" / "last" / "state.json").is_file()
    assert not (run / "lock").exists()


def test_a_failed_run_is_reported_and_does_not_stop_the_rest(workplace, monkeypatch, capsys):
    """The environment fails for one of two values of its argument."""
    Path("fragile.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Fragile(CartPoleEnv):\n"
        "    def __init__(self, breaks=False, render_mode=None):\n"
        "        super().__init__()\n"
        "        self.breaks, self.count = breaks, 0\n"
        "    def step(self, action):\n"
        "        self.count += 1\n"
        "        if self.breaks and self.count > 60:\n"
        "            raise RuntimeError('the pole is broken')\n"
        "        return super().step(action)\n"
        "gym.register('Fragile-v0', Fragile, max_episode_steps=100)\n"
    )
    monkeypatch.syspath_prepend(str(workplace))
    words = [
        "--agent",
        "a2c",
        "--env",
        "fragile:Fragile-v0",
        "--total-timesteps",
        "300",
        "--eval-episodes",
        "1",
        "--seeds",
        "1",
    ]
    assert sweep.main([*words, "--set", "env_kwargs=breaks=True|breaks=False"]) == 3
    out = capsys.readouterr().out
    assert "the pole is broken" in out
    assert "env_kwargs=breaks=False: greedy return" in out
    failures = json.loads((only_sweep() / "summary.json").read_text())["failures"]
    assert list(failures) == ["00-env_kwargs=breaks=True/s1"]
    assert "1 failed" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "many"], "--seeds takes a number of seeds"),
        (["--seeds", "0"], "at least one seed"),
        (["--seeds", "3,3"], "names a seed twice"),
        (["--seed", "3"], "give --seeds instead of --seed"),
        (["--set", "learning_rat=1"], "did you mean '--learning-rate'|did you mean 'learning_rate'"),
        (["--set", "gamma"], "NAME=VALUE"),
        (["--set", "gamma=0.9,much"], "--gamma takes a number"),
        (["--set", "gamma=0.9", "--set", "gamma=0.8"], "names gamma twice"),
        (["--set", "network=mlp:-4"], "network"),
        (["--executor", "cloud"], "--executor 'cloud' is unknown"),
        (["--address", "10.0.0.1:6379"], "--address needs --executor ray"),
        (["--storage", "sqlite:///x"], "--storage needs --optimize"),
        (["--trial-seeds", "5"], "--trial-seeds needs --optimize"),
        (["--optimize", "3", "--set", "gamma=0.9,0.8"], "--optimize looks for settings itself"),
        (["--optimize", "3", "--search", "gama=0.9:0.99"], "did you mean 'gamma'"),
        (["--optimize", "3", "--search", "gamma=0.9:1.5"], "--gamma must be at most 1"),
        (["--optimize", "3", "--search", "learning_rate=0:1:log"], "begins above 0"),
        (["--optimize", "3", "--search", "seed=1:9"], "takes the settings of an agent or a run, not seed"),
        (["--optimize", "3", "--storage", "sqlite:////nowhere/at/all.db"], "Optuna cannot use the storage sqlite:////nowhere"),
        (["--optimize", "3", "--storage", "nonsense"], "Optuna cannot use the storage nonsense"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--seedz", "3"], "unknown option '--seedz'"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_created(workplace, capsys, words, message):
    assert sweep.main([*A2C, "--total-timesteps", "100", *words]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1
    assert not list(workplace.iterdir())


def interrupted_sweep(folder: Path) -> Path:
    """The directory of a sweep none of whose runs has begun."""
    plan = make_sweep({**SETTINGS, "total_timesteps": 100, "seeds": 1, "run_dir": str(folder)})
    path = folder / "sweep"
    path.mkdir(parents=True)
    _record(plan, path)
    return path


@pytest.mark.parametrize("name", ["..", "../..", "a/b", "/tmp/x", "."])
def test_a_foreign_sweep_does_not_lead_out_of_its_directory(name, workplace, capsys):
    path = interrupted_sweep(workplace / "runs")
    file = path / "sweep.toml"
    file.write_text(file.read_text().replace('name = ""', f'name = "{name}"'))
    before = sorted(workplace.rglob("*"))
    assert sweep.main(["--resume", str(path)]) == 2
    assert "does not describe a sweep" in capsys.readouterr().err
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix", reason="makes links")
def test_a_link_in_a_foreign_sweep_is_refused(workplace, capsys):
    path = interrupted_sweep(workplace / "runs")
    (workplace / "elsewhere").mkdir()
    (path / "s1").symlink_to(workplace / "elsewhere")
    assert sweep.main(["--resume", str(path)]) == 2
    assert "is a link" in capsys.readouterr().err
    assert not list((workplace / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "line", ['agent = "planted_in_a_sweep:Agent"', 'env = "planted_in_a_sweep:World-v0"', 'wrapper = ["planted_in_a_sweep:W"]']
)
def test_a_foreign_sweep_imports_no_module_that_only_its_runs_name(line, workplace, monkeypatch):
    """The sweep's own file is checked when it is opened; the files of its runs must name nothing else."""
    monkeypatch.syspath_prepend(str(workplace))
    Path("planted_in_a_sweep.py").write_text("import pathlib\npathlib.Path('it_ran').touch()\n")
    plan = make_sweep({**SETTINGS, "total_timesteps": 100, "seeds": 1})
    task = plan.variants[0].task(workplace / "sweep", 1, "")
    assert perform(task, lambda event: False)["state"] == "finished"
    config = Path(task.folder) / "config.toml"
    name = line.partition(" ")[0]
    config.write_text("\n".join([line, *[one for one in config.read_text().splitlines() if not one.startswith(f"{name} =")]]))
    result = perform(task, lambda event: False)
    assert result["state"] == "failed"
    assert "names the module 'planted_in_a_sweep', but its sweep does not" in result["message"]
    assert not Path("it_ran").exists()


RESULT = {"state": "finished", "timesteps": 100, "return_mean": 5.0, "evaluations": [[100, 5.0]]}


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "[]", "{}", "null", "[" * 100_000, '{"state": 3}', '{"state": "failed"}',
        *[json.dumps({**RESULT, **wrong}) for wrong in (
            {"timesteps": "many"}, {"return_mean": None}, {"return_mean": [1]}, {"evaluations": 3}, {"evaluations": [[1]]},
            {"evaluations": [["a", "b"]]}, {"return_mean": float("nan")}, {"evaluations": [[1, float("inf")]]}, {"timesteps": float("inf")},
        )],
        *[json.dumps({key: value for key, value in RESULT.items() if key != left_out}) for left_out in RESULT],
    ],
)  # fmt: skip
def test_a_result_made_by_hand_is_none(text, tmp_path):
    """The run is then carried out, or evaluated again."""
    (tmp_path / "result.json").write_text(text)
    assert _read_result(tmp_path) is None


def test_a_result_is_read(tmp_path):
    for content in (RESULT, {"state": "pruned"}):
        (tmp_path / "result.json").write_text(json.dumps(content))
        assert json.loads(json.dumps(_read_result(tmp_path))) == content


def test_a_process_that_is_killed_in_the_middle_of_a_line_ends_its_run(tmp_path):
    code = 'import os, signal; print(\'{"kind": "progress", "ste\', end=\'\', flush=True); os.kill(os.getpid(), signal.SIGTERM)'
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    executor = LocalExecutor(1, tmp_path)
    executor._processes["s1"] = process
    executor._read(Task("s1", str(tmp_path), {}), process, tmp_path / "log")
    (event,) = executor.events(1.0)
    assert (event["kind"], event["state"]) == ("result", "failed")


def test_a_missing_library_is_named_with_its_command(workplace, capsys, monkeypatch):
    for name, words in (("optuna", ["--optimize", "2"]), ("ray", ["--executor", "ray"])):
        monkeypatch.setitem(sys.modules, name, None)
        assert sweep.main([*A2C, *words]) == 2
        assert re.search(rf"pip install '?{name}", capsys.readouterr().err)
    assert not list(workplace.iterdir())


def test_settings_that_do_not_fit_together_are_refused_before_anything_is_created(workplace, capsys):
    assert sweep.main(["--agent", "ppo", "--env", "CartPole-v1", "--set", "batch_size=64,77"]) == 2
    assert "batch_size 77 must divide" in capsys.readouterr().err
    assert not list(workplace.iterdir())


def test_seeds_and_grids_are_read():
    assert read_seeds(["3"]) == (1, 2, 3)
    assert read_seeds(["3,"]) == (3,)
    assert read_seeds(["2-4,9"]) == (2, 3, 4, 9)
    assert read_seeds([7]) == (7,)
    assert read_seeds(2) == (1, 2)
    assert read_seeds(range(7, 9)) == read_seeds(np.array([7, 8])) == (7, 8)
    assert read_seeds(range(7, 8)) == (7,)
    assert read_seeds(np.int64(2)) == (1, 2)
    assert grid(["a=1,2", "network=mlp:8,8|mlp:4"]) == [
        {"a": a, "network": network} for a in ("1", "2") for network in ("mlp:8,8", "mlp:4")
    ]


# --- the search for better settings --------------------------------------------------------------------------------------


def test_optimize_finds_a_preset_on_other_seeds(workplace, capsys):
    """A learning rate that learns nothing is among the values; the preset is read by train and makes the same run."""
    words = [*A2C, "--total-timesteps", "2000", "--seeds", "2", "--optimize", "4", "--trial-seeds", "2"]
    assert sweep.main([*words, "--search", "learning_rate=1e-9:2e-3:log"]) == 0
    out = capsys.readouterr().out
    found = only_sweep()
    seeds = {int(file.parent.name[1:]) for file in found.glob("trial-*/*/config.toml")}
    assert seeds == {1001, 1002}
    assert {file.parent.name for file in found.glob("best/*/config.toml")} == {"s1", "s2"}
    assert len(list(found.glob("trial-*"))) == 4
    assert (found / "history.png").is_file()
    assert (found / "study.db").is_file()
    best = max(float(value) for value in re.findall(r"trial \d+: mean return ([\d.]+)", out))
    assert f"mean return {best:.1f} on its seeds" in out
    assert "best of 4 trials: interquartile mean" in out
    again = ["--config", str(found / "best.toml"), "--seed", "2", "--run-dir", "alone"]
    assert train.main(again) == 0
    (alone,) = Path("alone").glob("*/*/*")
    assert checksum(alone) == checksum(found / "best" / "s2")
    with pytest.raises(Fault, match="were used for tuning"):
        open_sweep(found, {"seeds": "1000-1002"})


class Scripted:
    """An executor whose runs report at once: trials from 6 on are worse than those before."""

    def __init__(self):
        self.queue = []
        self.values = {}
        self.pruned = set()

    def places(self):
        return 2

    def submit(self, task):
        number = int(re.search(r"trial-(\d+)", task.key)[1]) if "trial" in task.key else 0
        self.values[task.key] = 10.0 if number < 6 else 1.0
        self.queue += [(task.key, k) for k in range(1, 6)]

    def events(self, seconds):
        found = []
        for key, k in self.queue[:1]:
            value = self.values[key]
            if key in self.pruned or k == 5:
                ends = {"state": "pruned"} if key in self.pruned else {"state": "finished", "evaluations": [(50, value)]}
                found.append({"kind": "result", "key": key, "return_mean": value, "timesteps": 50, **ends})
                self.queue = [other for other in self.queue if other[0] != key]
            else:
                found.append({"kind": "evaluated", "key": key, "steps": 10 * k, "return": value, "returns": [value] * k})
                self.queue.pop(0)
        return found

    def prune(self, key):
        self.pruned.add(key)

    def close(self):
        pass


def test_trials_below_the_median_are_pruned(workplace, monkeypatch):
    from rl_lab.experiment.sweeps import sweep as sweeps

    executor = Scripted()
    monkeypatch.setattr(sweeps, "_make_executor", lambda *arguments: executor)
    plan = make_sweep({**SETTINGS, "seeds": 1, "optimize": 8, "trial_seeds": 2})
    result = carry_out_sweep(plan, NoTable())
    assert {key.partition("/")[0] for key in executor.pruned} == {"trial-0006", "trial-0007"}
    assert result.statistics[0].returns == {1: 10.0}


def test_a_run_ends_at_the_report_at_which_it_is_pruned(workplace):
    told = []

    def tell(event):
        told.append(event["kind"])
        return event["kind"] == "evaluated"

    plan = make_sweep({**SETTINGS, "eval_frequency": 500, "total_timesteps": 5000, "seeds": 1})
    task = plan.variants[0].task(workplace, 1, "")
    assert perform(task, tell) == {"state": "pruned"}
    assert told.count("evaluated") == 1


def test_sweeps_share_a_store_without_sharing_runs(workplace):
    """The runs of both sweeps are called s1: each sweep continues its own."""
    pytest.importorskip("fsspec")
    gammas = []
    for name, gamma in (("a-sweep", 0.9), ("b-sweep", 0.5)):
        plan = make_sweep({**SETTINGS, "total_timesteps": 100, "seeds": 1, "gamma": gamma})
        task = plan.variants[0].task(workplace / "runs" / name, 1, (workplace / "store").as_uri())
        assert perform(task, lambda event: False)["state"] == "finished"
        assert Store(task.store, task.key).fetch(workplace / "fetched")
        gammas.append(read_toml(workplace / "fetched" / "config.toml")["hyperparameters"]["gamma"])
    assert gammas == [0.9, 0.5]


class Elsewhere:
    """An executor whose runs are carried out where nobody sees their files."""

    def places(self) -> int:
        return 1

    def submit(self, task: Task) -> None:
        self.event = {"kind": "result", "key": task.key, **RESULT}

    def events(self, seconds: float) -> list:
        return [self.event]


def test_a_run_whose_files_are_out_of_reach_has_failed(workplace):
    pytest.importorskip("fsspec")
    runner = Runner(Elsewhere(), NoTable(), "memory://nobody")
    task = make_sweep({**SETTINGS, "seeds": 1}).variants[0].task(workplace / "sweep", 1, "memory://nobody")
    runner.add(task, "")
    runner.poll()
    assert runner.results["s1"]["state"] == "failed"
    assert "all machines must reach the same store" in runner.results["s1"]["message"]
    assert not (Path(task.folder) / "result.json").exists()


@pytest.mark.parametrize("name", ["store/s1/1/../../../evil", "store/s1/1/a/../../../../evil"])
def test_no_file_of_a_store_leads_out_of_the_run(name, tmp_path):
    pytest.importorskip("fsspec")
    store = Store((tmp_path / "store").as_uri(), "s1")
    (tmp_path / "store/s1").mkdir(parents=True)
    (tmp_path / "store/s1/latest").write_text("1")
    root = store._place.lstrip("/")
    store._files.find = lambda folder: [name.replace("store/s1", root)]
    with pytest.raises(Fault, match="leads out of the run"):
        store.fetch(tmp_path / "run")


def test_seeds_of_trials_are_never_those_of_the_figure():
    plan = make_sweep({**SETTINGS, "optimize": 1, "seeds": "990-1010"})
    assert set(plan.tuned_seeds).isdisjoint(plan.sweep.seeds)
    assert len(plan.tuned_seeds) == 3


@dataclass(frozen=True)
class OutsiderConfig:
    total_timesteps: int = setting(10, "steps")
    step_size: float = setting(0.5, "step size", above=0, most=1.0)
    layers: int = setting(2, "layers")


class Outsider(Agent):
    Config = OutsiderConfig


def test_every_agent_has_a_search_space():
    assert Outsider.search_space() == {"step_size": Between(0.05, 1.0, log=True)}
    from rl_lab.agents.ppo import PPO

    assert PPO.search_space()["learning_rate"] == Between(1e-5, 1e-2, log=True)


def test_progress_is_told_a_few_times_a_second(tmp_path):
    """Some agents take a thousand steps a second, and one process reads the events of all runs."""
    told = []
    reports = _Reports(tmp_path, None, lambda event: bool(told.append(event)))
    begin = time.monotonic()
    for steps in range(10_000):
        reports.update(steps, 1.0, None)
    assert 1 <= len(told) <= 1 + (time.monotonic() - begin) / PROGRESS_SECONDS
    assert told[0]["steps"] == 0
