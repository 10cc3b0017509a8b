"""Resuming a run: bit for bit as without the interruption if the environments can be saved, and a message if they cannot."""

import re
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from rl_lab import evaluate, train
from rl_lab.engine.random import Generator
from rl_lab.experiment import driver
from rl_lab.experiment.analysis import read_events
from rl_lab.experiment.checkpoint import load_checkpoint
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.run import Run
from rl_lab.rollout import ReplayBuffer, Transitions
from rl_lab.testing import content
from tests.runs import AGENTS, only_run

REPLAY = {"network": "mlp:16", "learning_starts": 50, "batch_size": 16, "total_timesteps": 600}
SHORT = {
    "dqn": REPLAY,
    "qrdqn": REPLAY,
    "sac": REPLAY,
    "td3": {**REPLAY, "env": "Pendulum-v1"},
    "tqc": {**REPLAY, "env": "Pendulum-v1"},
    "crossq": {**REPLAY, "env": "Pendulum-v1", "critic_network": "mlp:16"},
    "a2c": {"network": "mlp:16", "total_timesteps": 600},
    "ppo": {"network": "mlp:16", "num_steps": 20, "batch_size": 20, "total_timesteps": 600},
    "drqn": {**REPLAY, "memory": 8, "sequence_length": 4, "burn_in": 3, "buffer_size": 400},
    "pqn": {"network": "mlp:16", "num_steps": 20, "batch_size": 20, "total_timesteps": 600},
    "recurrent_ppo": {"network": "mlp:16", "memory": 8, "num_steps": 20, "batch_envs": 1, "total_timesteps": 600},
    "reinforce": {"network": "mlp:16", "total_timesteps": 1200},
    "neat": {"population": 10, "total_timesteps": 10_000, "lamarck": 1, "gradient_rollouts": 1},
    "bc": {"dataset": "random:300", "batch_size": 8, "network": "mlp:16", "total_timesteps": 1600},
    "iql": {"dataset": "random:300", "batch_size": 8, "network": "mlp:16", "total_timesteps": 1600},
    "ars": {"directions": 2, "total_timesteps": 1200},
    "es": {"pairs": 2, "normalize_observations": True, "total_timesteps": 1200},
    "cmaes": {"population": 4, "total_timesteps": 1200},
}


def given(agent: str, **changes) -> dict:
    common = {"agent": agent, "env": "CartPole-v1", "num_envs": 2, "stop_return": "1e9", "eval_episodes": 5}
    total = SHORT[agent]["total_timesteps"]
    every = {"checkpoint_frequency": total // 5, "eval_frequency": total // 4, "keep_best": True, "log_frequency": total // 7}
    return {**common, **every, **SHORT[agent], **changes}


class Death(BaseException):
    """The end of a process, after which nothing is saved."""


def until_death(monkeypatch, agent: str, steps: int, **changes) -> Path:
    """The directory of a run that died in the middle of training, after so many environment steps."""
    kind = AGENTS[agent]
    step = AGENTS[agent].step

    def mortal(self):
        if self.timesteps >= steps:
            raise Death
        return step(self)

    with monkeypatch.context() as context:
        context.setattr(kind, "step", mortal)
        with pytest.raises(Death):
            driver.carry_out(driver.make_plan(given(agent, **changes)))
    return only_run()


def resume(path: Path, **changes):
    return driver.carry_out(driver.make_resuming_plan(path, changes))


def log(path: Path) -> list:
    """The logged scalars without the measured speeds."""
    events = read_events(path)
    return events[events.tag != "charts/SPS"][["tag", "step", "value"]].values.tolist()


EXTRAS = {
    "a2c": {"normalize_observations": True, "normalize_rewards": True, "time_aware": True},
    "ppo": {"normalize_observations": True, "normalize_rewards": True, "frame_stack": 3},
    "drqn": {"normalize_observations": True, "normalize_rewards": True, "frame_stack": 2},
    "pqn": {"normalize_observations": True, "normalize_rewards": True, "frame_stack": 2},
    "recurrent_ppo": {"normalize_observations": True, "normalize_rewards": True},
    "reinforce": {"normalize_observations": True},
    "dqn": {"frame_stack": 2, "n_steps": 3, "prioritized": True},
    "qrdqn": {"time_aware": True, "n_steps": 2},
    "sac": {"noise_colour": 0.5},
    "td3": {"noise_colour": 0.5},
    "tqc": {"use_sde": True, "sde_sample_freq": 7},
    "crossq": {"norm_warmup": 100, "noise_colour": 0.5},
}


@pytest.mark.parametrize(("backend", "num_envs"), [("native", 4), ("gymnasium", 1), ("native", 1), ("gymnasium", 4)])
@pytest.mark.parametrize("agent", AGENTS)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(agent, backend, num_envs, workplace, monkeypatch, capsys, full):
    if not full and (backend, num_envs) in (("native", 1), ("gymnasium", 4)):
        pytest.skip("one and several environments of each kind with --full")
    total = SHORT[agent]["total_timesteps"]
    options = {"backend": backend, "num_envs": num_envs, **EXTRAS.get(agent, {})}
    path = until_death(monkeypatch, agent, int(0.7 * total), **options)
    result = resume(path)
    assert result.run.path == path
    assert "new episodes begin" not in capsys.readouterr().out
    unbroken = driver.carry_out(driver.make_plan(given(agent, run_dir="unbroken", **options)))
    for name in ("last", "best"):
        for file in ("state.safetensors", "state.json"):
            mine, other = (run / "checkpoints" / name / file for run in (path, unbroken.run.path))
            assert mine.read_bytes() == other.read_bytes(), (name, file)
    assert result.evaluation == unbroken.evaluation
    assert result.selection_steps == unbroken.selection_steps > 0
    assert log(path) == log(unbroken.run.path)


@pytest.mark.parametrize("agent", ["dqn", "ppo", "neat"])
def test_a_run_continues_from_its_best_state(agent, workplace):
    """Bit for bit as it did the first time, with the same log."""
    run = driver.carry_out(driver.make_plan(given(agent))).run.path
    seen = [[(run / "checkpoints" / name / "state.safetensors").read_bytes() for name in ("last", "best")], log(run)]
    driver.carry_out(driver.make_resuming_plan(run, {}, checkpoint="best"))
    again = [[(run / "checkpoints" / name / "state.safetensors").read_bytes() for name in ("last", "best")], log(run)]
    assert again == seen


def test_a_signal_ends_a_run_where_it_can_go_on(workplace, monkeypatch):
    import os
    import signal

    step = AGENTS["dqn"].step

    def signalled(self):
        if self.timesteps == 304:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as context:
        context.setattr(AGENTS["dqn"], "step", signalled)
        stopped = driver.carry_out(driver.make_plan(given("dqn")))
    assert (stopped.exit_code, stopped.timesteps) == (143, 312)
    resume(stopped.run.path)
    unbroken = driver.carry_out(driver.make_plan(given("dqn", run_dir="unbroken")))
    assert log(stopped.run.path) == log(unbroken.run.path)


def test_a_finished_run_learns_on(workplace, capsys):
    plan = driver.make_plan(given("ppo"))
    path = driver.carry_out(plan).run.path
    assert train.main(["--resume", str(path), "--total-timesteps", "1000"]) == 0
    out = capsys.readouterr().out
    assert f"continues {path}" in out
    assert "after 1,000 steps" in out
    assert read_toml(path / "config.toml")["hyperparameters"]["total_timesteps"] == 1000
    steps = read_events(path).step
    assert steps.max() == 1000
    assert train.main(["--resume", str(path)]) == 0  # nothing is left to learn: evaluated again
    assert "after 1,000 steps" in capsys.readouterr().out


def test_what_a_dead_process_logged_after_its_checkpoint_does_not_count(workplace, monkeypatch):
    path = until_death(monkeypatch, "dqn", 470, checkpoint_frequency=200, log_frequency=1)
    before = read_events(path)
    assert before.step.max() > 400
    run = Run.open(path)
    assert load_checkpoint(path / "checkpoints" / "last")["timesteps"] == 400
    assert run.holds("last")
    resume(path)
    events = read_events(path)
    losses = events[events.tag == "losses/td_loss"].step.tolist()
    assert losses == sorted(set(losses))
    assert len(list(path.glob("events.out.tfevents.*"))) == 2


class Locked(gym.Wrapper):
    """Holds something that is not a number, a word, an array or an object of these."""

    def __init__(self, env):
        super().__init__(env)
        self.lock = threading.Lock()


def test_environments_that_cannot_be_saved(workplace, monkeypatch, capsys):
    """Episodes restart with new seeds, and a message says so."""
    gym.register("probe/Locked-v0", entry_point=lambda: Locked(gym.make("CartPole-v1")))
    try:
        path = until_death(monkeypatch, "dqn", 400, env="probe/Locked-v0", n_steps=3)
        assert train.main(["--resume", str(path)]) == 0
        assert "probe/Locked-v0 cannot be saved in the middle of an episode: new episodes begin" in capsys.readouterr().out
    finally:
        del gym.registry["probe/Locked-v0"]
    firsts = []
    for timesteps in (0, 7):
        agent = AGENTS["dqn"]("CartPole-v1", backend="gymnasium")
        collector = agent.collector
        collector.load_state_dict({"timesteps": timesteps, "environments": None})
        firsts.append(collector.stepper.observations.tolist())
        assert not collector.continues
    assert firsts[0] != firsts[1]


def test_returns_over_several_steps_end_where_episodes_were_cut():
    def replay() -> ReplayBuffer:
        made = ReplayBuffer(10, (1,), (), np.int64, Generator(1), gamma=0.5, n_steps=3, num_envs=2)
        step = np.arange(8, dtype=np.float32)
        flags = np.zeros(8, bool)
        made.add(Transitions(step[:, None], np.zeros(8, np.int64), np.ones(8, np.float32), step[:, None] + 100, flags, flags))
        return made

    cut = replay()
    cut.begin_episodes()
    assert cut.arrays.truncated.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    more = np.full(2, 50.0, np.float32)
    for buffer in (cut, uncut := replay()):
        buffer.add(Transitions(more[:, None], np.zeros(2, np.int64), more, more[:, None], np.zeros(2, bool), np.zeros(2, bool)))
    import rl_lab as rl

    index = rl.tensor([6, 4])  # the last and the second last step of the first environment
    assert cut.gather(index).rewards.tolist() == [1.0, 1.5]
    assert cut.gather(index).next_observations.flatten().tolist() == [106.0, 106.0]
    assert uncut.gather(index).rewards.tolist() == [26.0, 14.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "nowhere"], "nowhere is not a run"),
        (
            ["--resume", "RUN", "--seed", "3"],
            "--seed cannot change when a run is resumed: --resume takes --total-timesteps, and options of "
            "evaluation, logging and checkpoints",
        ),
        (["--resume", "RUN", "--learning-rate", "1"], "--learning-rate cannot change"),
        (["--resume", "RUN", "--learnin-rate", "1"], "unknown option '--learnin-rate', did you mean '--learning-rate'?"),
        (["--resume", "RUN", "--total-timesteps", "x"], "--total-timesteps takes an integer, not 'x'"),
        (["--resume", "EMPTY"], "holds no checkpoint to resume from: start the run again with --config"),
    ],
)
def test_what_cannot_be_resumed(arguments, words, workplace, monkeypatch, capsys):
    path = driver.carry_out(driver.make_plan(given("a2c"))).run.path
    empty = Run.create(Path("empty"), read_toml(path / "config.toml"))
    empty.close()
    before = sorted((str(file), file.stat().st_mtime_ns) for file in path.rglob("*"))
    places = {"RUN": str(path), "EMPTY": str(empty.path)}
    assert train.main([places.get(word, word) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert re.sub(r"\s+", " ", error).count("rl_lab:") == 1
    assert words in error
    assert before == sorted((str(file), file.stat().st_mtime_ns) for file in path.rglob("*"))


def test_one_writer(workplace, capsys):
    path = driver.carry_out(driver.make_plan(given("a2c"))).run.path
    other = Run.open(path)
    other.lock()
    assert train.main(["--resume", str(path), "--total-timesteps", "2000"]) == 2
    assert f"another process writes to {path}" in capsys.readouterr().err
    assert (path / "lock").exists()
    other.close()
    assert train.main(["--resume", str(path), "--total-timesteps", "2000"]) == 0


@pytest.mark.parametrize(("agent", "env", "refused"), [("ppo", "Pendulum-v1", True), ("ppo", "CartPole-v1", False)])
def test_runs_of_version_0_1(workplace, capsys, agent, env, refused):
    """In that version policies acted in units of the environment, and PPO saved its streams in one list."""
    assert train.main(["--agent", agent, "--env", env, "--total-timesteps", "600", "--eval-episodes", "2", "--seed", "1"]) == 0
    path = only_run()
    run = Run.open(path)
    run.record({**run.config, "versions": {**run.config["versions"], "rl_lab": "0.1.0"}})
    for name in ("last", "best"):
        if run.holds(name):
            state = run.load(name)
            state["streams"] = [state.pop("action_stream"), state.pop("shuffle_stream")]
            run.save(state, name)
    capsys.readouterr()
    assert evaluate.main([str(path), "--episodes", "2"]) == (2 if refused else 0)
    assert ("units of the environment" in capsys.readouterr().err) == refused


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize(("size", "population"), [(2, 4), (30, 4), (30, 5), (30, 0), (320, 4), (320, 0)])
def test_a_search_by_cmaes_continues_bit_for_bit(size, population, covariance):
    """Small populations mirror samples; from 300 parameters on the library adapts the step size in another way."""
    pytest.importorskip("cma")
    from rl_lab.agents.cmaes import Search

    def make(seed: int):
        stream = np.random.default_rng(seed)
        return Search(np.full(size, float(seed), np.float32), 0.5, population, covariance == "diagonal", stream), stream

    def go_on(search) -> None:
        points = search.ask()
        search.tell(points, -np.array([float((np.arange(1, size + 1) * (x - 1) ** 2).sum()) for x in points]))

    for before in (0, 1, 9):
        (one, stream), (other, following) = make(1), make(2)
        for _ in range(before):
            go_on(one)
        go_on(other)
        other.load_state_dict(one.state_dict())
        following.bit_generator.state = stream.bit_generator.state
        for _ in range(4):
            go_on(one)
            go_on(other)
            assert content(one.state_dict()) == content(other.state_dict())
