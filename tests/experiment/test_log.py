"""The log: what TensorBoard reads of it, the other forms, and that a resumed run has neither holes nor double points."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from rl_lab import train
from rl_lab.experiment import dashboard, driver
from rl_lab.experiment.analysis import read_events
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import Logger
from rl_lab.experiment.progress import NoProgress
from rl_lab.experiment.tables import as_forms
from tests.experiment.test_resume import AGENTS, given, only_run, resume, until_death

FORMS = {"log": "csv,jsonl", "histogram_frequency": 150}
WITH_TENSORBOARD = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def run_of(agent: str, **changes) -> Path:
    return driver.carry_out(driver.make_plan(given(agent, **changes)), NoProgress()).run.path


def lines_of(run: Path) -> tuple[list[list[str]], list[dict]]:
    """The rows of log.csv and the objects of log.jsonl, without measured speeds and times."""
    with (run / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["tag", "step", "value", "seconds"]
    objects = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: value for key, value in point.items() if key not in ("seconds", "charts/SPS")} for point in objects]
    return [row[:3] for row in rows[1:] if row[0] != "charts/SPS"], kept


@WITH_TENSORBOARD
@pytest.mark.parametrize("agent", ["dqn", "ppo", "sac", "neat"])
def test_tensorboard_reads_what_each_tab_shows(agent, workplace):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    pytest.importorskip("pygame")
    frequency = {"neat": 5_000}.get(agent, 250)
    run = run_of(agent, video_frequency=frequency, histogram_frequency=frequency)
    reader = EventAccumulator(str(run), size_guidance={"tensors": 0})
    reader.Reload()
    tags = reader.Tags()
    for name in ("mean", "std", "min", "max"):
        assert f"eval/return_{name}" in tags["scalars"]
    own = {"neat": "neat/best_return"}.get(agent, "charts/episodic_return_100")
    assert own in tags["scalars"]
    if agent != "neat":
        assert any(tag.startswith("losses/") and "grad_norm" in tag for tag in tags["scalars"])
    assert {"run/command/text_summary", "run/configuration/text_summary", "run/versions/text_summary"} <= set(tags["tensors"])
    (text,) = reader.Tensors("run/configuration/text_summary")
    assert "| total_timesteps |" in text.tensor_proto.string_val[0].decode()
    assert "custom_scalars__config__" in tags["tensors"]
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["agent"].string_value == agent
    assert settings["total_timesteps"].number_value > 0
    assert "eval_frequency" not in settings
    metadata.parse_session_end_info_plugin_data(reader.SummaryMetadata("_hparams_/session_end_info").plugin_data.content)
    assert {"eval/strip", "eval/episode"} <= set(tags["images"])
    image = reader.Images("eval/strip")[-1]
    assert image.width <= 350
    assert any(tag.startswith("weights/") for tag in tags["histograms"])
    graph = reader.Graph()
    names = {node.name for node in graph.node}
    assert all(source in names for node in graph.node for source in node.input)
    assert any(node.input for node in graph.node)
    scopes = {name.split("/")[0] for name in names}
    assert {"dqn": "update", "ppo": "epoch", "sac": "update", "neat": "champion"}[agent] in scopes
    assert agent == "neat" or any(f"{agent}.py" in name for name in names)  # launches are grouped by the lines of the agent


def hparams_of(run: Path) -> dict[str, object]:
    """The settings that TensorBoard's HParams shows of a run, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    reader = EventAccumulator(str(run))
    reader.Reload()
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in found.items()}


@WITH_TENSORBOARD
def test_hparams_follow_a_resume_with_other_settings(workplace):
    run = run_of("ppo", stop_return=1_000.0, eval_frequency=250)
    before = hparams_of(run)
    total = int(before["total_timesteps"])
    assert before["stop_return"] == 1_000.0
    resume(run, total_timesteps=2 * total, stop_return=2_000.0, eval_frequency=500)
    after = hparams_of(run)
    assert after["total_timesteps"] == 2 * total
    assert after["stop_return"] == 2_000.0
    assert {name for name in before if before[name] != after[name]} == {"total_timesteps", "stop_return"}
    resume(run)
    assert hparams_of(run) == after


@WITH_TENSORBOARD
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, so the page of TensorBoard is not opened")
def test_the_page_of_tensorboard_shows_the_run(workplace):
    """A browser without a window opens the tab Time Series, runs the page's own scripts and prints the page."""
    run_of("ppo")
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", "0", "--load_fast=false"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert server.stderr is not None
        address = ""
        while not address:
            line = server.stderr.readline()
            assert line, "TensorBoard has ended"
            address = next((word for word in line.split() if word.startswith("http://")), "")
        deadline = time.monotonic() + 60
        while b"ppo" not in urllib.request.urlopen(f"{address}data/runs", timeout=20).read():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        home = {**os.environ, "HOME": str(workplace)}
        shown = subprocess.run(
            [str(BROWSER), *options, f"{address}#timeseries"], capture_output=True, text=True, timeout=120, env=home
        )
        if not shown.stdout:
            pytest.skip(f"Chromium shows no page here: {shown.stderr.strip().splitlines()[-1:]}")
        for tab in ("Scalars", "Custom Scalars", "Graphs", "Text", "HParams"):
            assert tab.lower() in shown.stdout.lower()
        assert "CartPole-v1/ppo" in shown.stdout
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("agent", ["dqn", "ppo", "neat"])
def test_every_form_of_a_resumed_log_equals_that_of_an_unbroken_run(agent, workplace, monkeypatch):
    total = given(agent)["total_timesteps"]
    path = until_death(monkeypatch, agent, int(0.7 * total), **FORMS)
    with (path / "log.csv").open("a") as file:
        file.write("a/torn,li")  # what a killed process leaves
    resume(path)
    unbroken = run_of(agent, run_dir="unbroken", **FORMS)
    assert lines_of(path) == lines_of(unbroken)
    rows, objects = lines_of(path)
    assert len({(tag, step) for tag, step, _ in rows}) == len(rows)
    table = read_events(path)
    table = table[table.tag != "charts/SPS"]
    assert [(tag, int(step), np.float32(value)) for tag, step, value in rows] == list(
        zip(table.tag, table.step, table.value.astype(np.float32), strict=True)
    )
    assert sum(len(point) - 1 for point in objects) == len(rows)


def test_a_form_that_is_asked_for_later_has_the_points_before(workplace, monkeypatch):
    path = until_death(monkeypatch, "dqn", 420)
    assert not (path / "log.csv").exists()
    resume(path, log="csv,jsonl")
    rows, _ = lines_of(path)
    unbroken = run_of("dqn", run_dir="unbroken", log="csv,jsonl")
    assert rows == lines_of(unbroken)[0]


def test_a_resumed_run_logs_its_texts_again_only_if_its_settings_changed(workplace):
    path = run_of("a2c")
    assert train.main(["--resume", str(path)]) == 0
    assert _texts(path) == 1
    assert train.main(["--resume", str(path), "--total-timesteps", "700"]) == 0
    assert _texts(path) == 2


def _texts(run: Path) -> int:
    from tests import kills

    return sum(tag == "run/command/text_summary" for tag, _, _ in kills.events(run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--log", "xml"], "--log 'xml' is unknown"),
        (["--log", "cvs"], "did you mean 'csv'?"),
        (["--log", "wandb"], "--log wandb needs wandb, which is not installed: pip install wandb"),
        (["--video-frequency", "-1"], "--video-frequency must be at least 0"),
        (["--render", "--backend", "native"], "native environments have no windows"),
    ],
)
def test_a_log_that_cannot_be_is_refused_before_anything_is_created(words, message, workplace, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    assert train.main(["--agent", "a2c", "--env", "CartPole-v1", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


def test_an_environment_without_pictures_is_refused(workplace, capsys):
    words = ["--agent", "ppo", "--env", "probe/Clock-v0", "--video-frequency", "100"]
    assert train.main(words) == 2
    assert "cannot be filmed" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_wandb_gets_every_point(workplace, monkeypatch):
    """Through its own library, which keeps the points on this machine."""
    pytest.importorskip("wandb")
    import wandb

    monkeypatch.setenv("WANDB_MODE", "disabled")
    sent = []
    begin = wandb.init

    def noting(**options):
        run = begin(**options)
        monkeypatch.setattr(run, "log", lambda metrics, step: sent.append((step, metrics)), raising=False)
        return run

    monkeypatch.setattr(wandb, "init", noting)
    path = run_of("a2c", log="wandb")
    table = read_events(path)
    assert [(step, tag) for step, metrics in sent for tag in metrics] == list(zip(table.step, table.tag, strict=True))
    assert (path / "wandb-id").read_text().strip().isalnum()
    (only_run() / "config.toml").read_text().index("wandb")


def test_forms():
    assert as_forms("jsonl,csv") == as_forms(["csv", "jsonl", "csv"]) == ("csv", "jsonl")
    assert as_forms("tensorboard") == ()
    with pytest.raises(Fault, match="--log takes forms"):
        as_forms(7)


def test_a_table_that_cannot_be_written_is_said_once(workplace, monkeypatch):
    said: list[str] = []
    log = Logger(workplace, None, said.append, ("csv", "jsonl"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._tables[0], "record", full)
    for step in range(300):
        log.record({"a": 1.0}, step)
    log.close()
    assert len(said) == 1
    assert "log.csv cannot be written (No space left on device): training continues without it" in said[0]
    assert len((workplace / "log.jsonl").read_text().splitlines()) == 300
    assert len(read_events(workplace)) == 300


def test_the_running_return_is_a_mean_over_a_hundred_episodes():
    agent = AGENTS["ppo"]("CartPole-v1", seed=1)
    returns: list[float] = []
    episodes = agent.collector.episodes

    def noting():
        returns.extend(value for value, _ in agent.collector._finished)
        return episodes()

    agent.collector.episodes = noting
    assert agent.collector.running_return is None
    agent.learn(8_000)
    assert len(returns) > 100
    assert agent.collector.running_return == pytest.approx(np.mean(returns[-100:]))


def test_the_norm_of_a_gradient_is_that_of_the_network():
    agent = AGENTS["sac"]("Pendulum-v1", seed=1, learning_starts=50)
    agent.learn(200)
    norms = dashboard.gradient_norms(agent)
    assert {"losses/actor_grad_norm", "losses/critics_grad_norm"} <= set(norms)
    gradients = [weight.grad.numpy().ravel() for weight in agent.actor.parameters()]
    assert norms["losses/actor_grad_norm"] == pytest.approx(np.linalg.norm(np.concatenate(gradients)), rel=1e-5)


def test_a_strip_shows_the_first_and_the_last_frame():
    frames = [np.full((60, 90, 3), i, np.uint8) for i in range(100)]
    picture = dashboard.strip(frames)
    assert picture[0, 0, 0] == 0
    assert picture[-1, -1, 0] == 99
    assert dashboard.strip(frames[:1]).shape == picture.shape
    with pytest.raises(ValueError, match="at least one frame"):
        dashboard.strip([])
