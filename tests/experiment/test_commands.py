"""The commands: results, files, and one clear line for every error."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import rl_lab as rl
from rl_lab import evaluate, train
from rl_lab.experiment import driver, video
from rl_lab.experiment.driver import restore
from rl_lab.experiment.run import Run
from tests.runs import only_run

SHORT = ["--total-timesteps", "600", "--learning-starts", "100", "--eval-episodes", "5", "--network", "mlp:16"]


def run_train(*arguments: str) -> int:
    return train.main(["--agent", "dqn", "--env", "CartPole-v1", *arguments])


def test_a_run_leaves_what_it_promises(workplace, capsys):
    assert run_train(*SHORT, "--seed", "3") == 0
    run = only_run()
    assert run.parent == Path("runs/CartPole-v1/dqn")
    assert run.name.endswith("-s3")
    assert (run / "checkpoints" / "last" / "state.safetensors").is_file()
    assert list(run.glob("events.out.tfevents.*"))
    config = (run / "config.toml").read_text()
    assert "seed = 3" in config
    assert "total_timesteps = 600" in config
    out = capsys.readouterr().out
    assert out.startswith("dqn on CartPole-v1, seed 3, 1 environment: ")
    assert "greedy return" in out
    assert "tensorboard --logdir runs" in out
    assert f"python -m rl_lab.evaluate {run}" in out


def test_evaluate_reproduces_the_end_of_training(workplace, capsys):
    run_train(*SHORT)
    trained = capsys.readouterr().out
    assert evaluate.main([str(only_run()), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"greedy return {facts['return_mean']:.1f} (std {facts['return_std']:.1f}, min {facts['return_min']:.1f})" in trained
    assert (facts["episodes"], facts["timesteps"]) == (5, 600)
    assert evaluate.main([str(only_run()), "--episodes", "7"]) == 0
    assert "over 7 episodes" in capsys.readouterr().out


def test_a_run_is_repeated_from_its_config(workplace):
    run_train(*SHORT)
    first = only_run()
    assert train.main(["--config", str(first / "config.toml"), "--run-dir", "again"]) == 0
    second = only_run("again")
    assert all(
        (first / "checkpoints/last" / name).read_bytes() == (second / "checkpoints/last" / name).read_bytes()
        for name in ("state.safetensors", "state.json")
    )


def test_the_log_can_be_read_back(workplace):
    run_train(*SHORT)
    from tensorboardX.proto.event_pb2 import Event

    (events,) = only_run().glob("events.out.tfevents.*")
    data = events.read_bytes()
    position = 0
    tags = set()
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        event = Event.FromString(data[position + 12 : position + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        position += length + 16
    assert {"charts/episodic_return", "charts/episodic_length", "charts/SPS", "losses/td_loss", "eval/return_mean"} <= tags


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        ([], "Name an agent", "--target-update-interval"),
        (["--agent", "dqn"], "--target-update-interval", "--gae-lambda"),
        (["--agent", "dqn", "--env", "CartPole-v1"], "steps to train for (default: 50000)", "--gae-lambda"),
        (["--agent", "dqn", "--env", "Acrobot-v1"], "steps to train for (default: 100000)", "--gae-lambda"),
        (["--agent", "neat"], "--lamarck", "--target-update-interval"),
    ],
    ids=str,
)
def test_help_lists_the_settings(workplace, capsys, arguments, shown, hidden):
    with pytest.raises(SystemExit) as end:
        train.main([*arguments, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert shown in text
    assert hidden not in text
    assert not list(workplace.iterdir())


def test_an_agent_without_an_environment(workplace, capsys):
    assert train.main(["--agent", "dqn"]) == 2
    assert "name an agent and an environment" in capsys.readouterr().err


def test_evaluate_needs_a_run(workplace, capsys):
    assert evaluate.main(["nowhere"]) == 2
    assert capsys.readouterr().err == "rl_lab: nowhere is not a run: it has no config.toml\n"


def test_a_damaged_checkpoint_is_named(workplace, capsys):
    run_train(*SHORT)
    for file in only_run().glob("checkpoints/*/state.safetensors"):  # the preset keeps the best state, too
        file.write_bytes(file.read_bytes()[:-100])
    assert evaluate.main([str(only_run())]) == 2
    error = capsys.readouterr().err
    assert "cannot be read" in error
    assert len(error.strip().splitlines()) == 1


def test_a_reward_of_nan_ends_the_run(workplace, capsys):
    code = train.main(["--agent", "dqn", "--env", "probe/ReturnsNan-v0", *SHORT])
    assert code == 3
    assert "returned a reward of nan at step 5 of its episode" in capsys.readouterr().err


def test_an_environment_that_raises_ends_the_run_with_the_last_checkpoint_intact(workplace, capsys, monkeypatch):
    """The environment fails in step 333 of the run, after the checkpoint of step 250."""
    gym.register("probe/Fails-v0", entry_point=Fails)
    code = train.main(["--agent", "dqn", "--env", "probe/Fails-v0", *SHORT, "--checkpoint-frequency", "250"])
    assert code == 3
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(
        r"environment 0 of probe/Fails-v0 \(seed \d+\) failed at step 333 of its episode: OSError: the cable is loose", error
    )
    monkeypatch.setattr(Fails, "training", False)  # its episodes are over at once
    assert evaluate.main([str(only_run()), "--episodes", "1", "--json"]) == 0
    assert 250 <= json.loads(capsys.readouterr().out)["timesteps"] < 333


class Fails(gym.Env):
    """Raises in the 333rd step of its life."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    life = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.life = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.life += 1
        if self.life == 333:
            raise OSError("the cable is loose")
        return np.zeros(1, np.float32), 0.0, False, self.life > 400 or not Fails.training, {}

    training = True


def test_divergence_ends_the_run_with_a_cause(workplace, capsys):
    assert run_train(*SHORT, "--learning-rate", "1e30", "--loss", "mse", "--max-grad-norm", "1e30") == 3
    assert "lower the learning rate" in capsys.readouterr().err


def test_a_run_starts_from_the_networks_of_another(workplace, capsys):
    run_train(*SHORT)
    first = only_run()
    options = ["--learning-starts", "100", "--eval-episodes", "5", "--network", str(first), "--run-dir", "second"]
    # too few steps to learn anything: the second run's return comes from the networks of the first run
    assert run_train(*options, "--total-timesteps", "50", "--seed", "7") == 0
    second = only_run("second")
    then, now = (restore(run)[0] for run in (first, second))
    for name, value in then.q_network.state_dict().items():
        assert rl.equal(now.q_network.state_dict()[name], value)
    assert now.timesteps < 100
    assert "mlp:16" in (second / "config.toml").read_text()
    capsys.readouterr()
    assert train.main(["--agent", "ppo", "--env", "CartPole-v1", "--network", str(first)]) == 2
    assert "is a run of dqn, and ppo cannot start from its networks" in capsys.readouterr().err
    assert train.main(["--agent", "dqn", "--env", "Acrobot-v1", "--network", str(first), "--run-dir", "third"]) == 2
    assert "do not fit here" in capsys.readouterr().err
    assert not Path("third").exists()


def test_an_evaluation_can_be_filmed(workplace, capsys):
    """The filmed episode is the first of the evaluation; the environments' frames are as many as its steps and one before them."""
    run_train(*SHORT)
    capsys.readouterr()
    assert evaluate.main([str(only_run()), "--episodes", "1", "--video", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert Path(facts["video"]).parent == only_run() / "videos"
    assert Path(facts["video"]).stat().st_size > 1000
    from moviepy import VideoFileClip

    with VideoFileClip(facts["video"]) as clip:
        assert clip.n_frames == pytest.approx(facts["return_mean"] + 1, abs=1)


def test_a_training_ends_with_a_film(workplace, capsys):
    assert train.main(["--agent", "dqn", "--env", "CartPole-v1", *SHORT, "--video"]) == 0
    run = only_run()
    (film,) = (run / "videos").iterdir()
    assert f"video: {film}" in capsys.readouterr().out
    assert film.stat().st_size > 1000
    assert Run.open(run).config["video"] is True
    film.unlink()
    assert train.main(["--resume", str(run), "--total-timesteps", "300", "--no-video"]) == 0
    assert not list((run / "videos").iterdir())
    assert train.main(["--resume", str(run), "--total-timesteps", "350", "--video"]) == 0
    assert len(list((run / "videos").iterdir())) == 1


def test_a_film_that_fails_does_not_spoil_the_training(workplace, capsys, monkeypatch):
    def fails(*arguments, **keywords):
        raise OSError("the encoder has no codec")

    monkeypatch.setattr(driver, "film", fails)
    assert train.main(["--agent", "dqn", "--env", "CartPole-v1", *SHORT, "--video"]) == 0
    out = capsys.readouterr().out
    assert "warning: no video was made: " in out
    assert "the encoder has no codec" in out
    assert "greedy return" in out


def test_a_long_episode_is_cut_in_its_film(workplace, capsys, monkeypatch):
    monkeypatch.setattr(video, "MOST_FRAMES", 5)
    run_train(*SHORT)
    assert evaluate.main([str(only_run()), "--episodes", "1", "--video", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["return_mean"] > 5
    from moviepy import VideoFileClip

    with VideoFileClip(facts["video"]) as clip:
        assert clip.n_frames == pytest.approx(5, abs=1)


def test_a_film_shows_the_actions_of_the_evaluation(workplace, capsys, monkeypatch):
    """Sampled ones with --stochastic."""
    seen = []
    original = video.play_one

    def play(*arguments, deterministic=True, **rest):
        seen.append(deterministic)
        return original(*arguments, deterministic=deterministic, **rest)

    monkeypatch.setattr(video, "play_one", play)
    run_train(*SHORT)
    assert evaluate.main([str(only_run()), "--episodes", "1", "--video", "--stochastic"]) == 0
    assert evaluate.main([str(only_run()), "--episodes", "1", "--video"]) == 0
    assert seen == [False, True]


def test_a_film_that_is_not_written_is_no_success(workplace, capsys, monkeypatch):
    """The writer fails while the environment is closed, where exceptions are only told."""
    from gymnasium.wrappers import RecordVideo

    def fails(self):
        raise OSError("no codec")

    monkeypatch.setattr(RecordVideo, "stop_recording", fails)
    run_train(*SHORT)
    assert evaluate.main([str(only_run()), "--episodes", "1", "--video"]) == 2
    assert "could not be written" in capsys.readouterr().err


def test_what_has_no_pictures_is_not_filmed(workplace, capsys):
    assert (
        train.main(["--agent", "dqn", "--env", "rl_lab/ProbeConstantReward-v0", *SHORT, "--video", "--run-dir", "other"]) == 2
    )
    assert "it renders no pictures" in capsys.readouterr().err
    assert not Path("other").exists()
    assert train.main(["--agent", "dqn", "--env", "rl_lab/ProbeConstantReward-v0", *SHORT]) == 0
    capsys.readouterr()
    assert evaluate.main([str(only_run()), "--video"]) == 2
    assert "it renders no pictures" in capsys.readouterr().err
    assert not (only_run() / "videos").exists()


def test_a_missing_package_is_named(workplace, capsys, monkeypatch):
    run_train(*SHORT)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "moviepy" else found(name, *rest))
    assert evaluate.main([str(only_run()), "--video"]) == 2
    assert "pip install moviepy" in capsys.readouterr().err
    assert train.main(["--agent", "dqn", "--env", "CartPole-v1", "--video", "--run-dir", "other"]) == 2
    err = capsys.readouterr().err
    assert "pip install moviepy" in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("other").exists()


def test_an_agent_in_capitals_is_the_registered_one(workplace):
    """It has the presets of that agent, and its runs lie among those of that agent."""
    plans = [train.parse(["--agent", name, "--env", "CartPole-v1"]) for name in ("dqn", "DQN", "Dqn")]
    assert plans[0].preset
    assert {plan.preset for plan in plans} == {plans[0].preset}
    assert {plan.options.agent for plan in plans} == {"dqn"}


def test_newer_versions_of_an_environment_are_no_second_line(workplace, capsys):
    """Gymnasium warns of old versions on stderr, where a fault has one line."""
    import warnings

    from rl_lab.experiment.command import run_command
    from rl_lab.experiment.faults import Fault

    def body(words):
        warnings.warn(
            "WARN: The environment Old-v4 is out of date. You should consider upgrading", DeprecationWarning, stacklevel=1
        )
        raise Fault("the only line")

    assert run_command(body, []) == 2
    assert capsys.readouterr().err == "rl_lab: the only line\n"


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor in the child")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_streams_may_be_closed(closed):
    """A service or a job of cron may start a program without them; Python then has None in their place."""
    shell = " ".join(f"{number}>&-" for number in closed)
    command = f"{shlex.quote(sys.executable)} -m rl_lab.check CartPole-v1 --steps 5 {shell}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ("it can be trained" in done.stdout) == (1 not in closed)
