"""Progress: a live line in a terminal, a bar in a notebook, plain lines in a pipe; and environments shown live."""

import os
import subprocess
import sys

import pytest

from rl_lab import evaluate, train
from rl_lab.agents.ppo import PPO
from rl_lab.experiment import progress
from rl_lab.experiment.run import Run
from tests.experiment.test_resume import only_run

PROGRAM = "from rl_lab.agents.ppo import PPO; PPO('CartPole-v1', seed=1).learn(20_000, progress=True)"


def test_a_pipe_gets_plain_lines(capsys):
    PPO("CartPole-v1", seed=1).learn(4_000, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 20
    assert all("\r" not in line and "\x1b" not in line for line in lines)
    assert "of 4,000 (" in lines[-1]
    for word in ("steps/s", "return", "left"):
        assert word in lines[-1]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_gets_one_live_line():
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:
        pass  # the end of a terminal
    assert process.wait(60) == 0
    text = shown.decode()
    assert "steps/s" in text
    assert "return" in text
    assert "left" in text
    assert "/20," in text
    assert text.count("\n") <= 2  # one line that is written again and again


def test_a_notebook_gets_its_own_bar(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def update(self, what):
            shown.append(what._repr_html_())

    monkeypatch.setattr(display, "display", lambda *arguments, **keywords: Handle())
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    PPO("CartPole-v1", seed=1).learn(4_000, progress=True)
    assert "<progress" in shown[-1]
    assert "4,096 of 4,096 steps" in shown[-1] or "of 4,000 steps" in shown[-1]
    assert "steps/s" in shown[-1]
    assert "return" in shown[-1]
    assert " left" not in shown[-1]  # the training has ended


def test_a_notebook_bar_ends_with_the_last_step(monkeypatch):
    """Also if the training stops early, between two changes of the bar."""
    display = pytest.importorskip("IPython.display")
    monkeypatch.setattr(display, "display", lambda *arguments, **keywords: None)
    bar = progress.NotebookProgress(1_000)
    for step in range(1, 501):
        bar.update(step, 10.0, None)
    assert " left" in repr(bar)
    bar.close()
    assert repr(bar) == "500 of 1,000 steps · 10 steps/s"
    assert 'value="500" max="1000"' in bar._repr_html_()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (61, "1:01"), (3661, "1:01:01")])
def test_the_time_left(seconds, text):
    assert progress.time_left(0, 1000, 1000 / max(seconds, 1e-9)) == text
    assert progress.time_left(2000, 1000, 10.0) == "0 s"


def test_an_environment_is_shown_live_and_learning_stays_the_same(workplace, monkeypatch, capsys):
    pytest.importorskip("pygame")
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", 100_000)
    modes = []
    reset = CartPoleEnv.reset

    def noting(self, **options):
        modes.append(self.render_mode)
        return reset(self, **options)

    monkeypatch.setattr(CartPoleEnv, "reset", noting)
    words = ["--agent", "a2c", "--env", "CartPole-v1", "--num-envs", "2", "--total-timesteps", "300", "--eval-episodes", "2"]
    assert train.main([*words, "--render"]) == 0
    assert "human" in modes
    run = only_run()
    assert "render" not in Run.open(run).config
    assert Run.open(run).config["backend"] == "gymnasium"
    learned = (run / "checkpoints/last/state.safetensors").read_bytes()
    modes.clear()
    assert evaluate.main([str(run), "--episodes", "2"]) == 0
    assert "human" not in modes
    assert evaluate.main([str(run), "--episodes", "2", "--render"]) == 0
    assert "human" in modes
    one, other = (line.split(" return ")[1] for line in capsys.readouterr().out.splitlines()[-2:])
    assert one == other
    assert train.main([*words, "--run-dir", "unseen", "--backend", "gymnasium"]) == 0
    (unseen,) = workplace.glob("unseen/*/*/*")
    assert (unseen / "checkpoints/last/state.safetensors").read_bytes() == learned
    assert train.main(["--agent", "ppo", "--env", "probe/Clock-v0", "--render"]) == 2
    assert "has no window" in capsys.readouterr().err
