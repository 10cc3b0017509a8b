"""Pages, GIFs and windows on an episode."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit

import rl_lab as rl
from rl_lab import evaluate, train
from rl_lab.experiment import evaluate as evaluate_agent
from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.page import attributions, page, record_episode
from tests.agents.test_readme_example import ACTOR_CRITIC

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    settings = ["--total-timesteps", "600", "--eval-episodes", "2", "--run-dir", str(folder)]
    assert train.main(["--agent", "ppo", "--env", "CartPole-v1", *settings]) == 0
    return next(folder.glob("*/*/*"))


def data_of(text: str):
    return json.loads(re.search(r"const data = (.*);\n", text)[1])


def test_integrated_gradients_sum_to_the_difference():
    """Completeness (Sundararajan, Taly and Yan 2017, proposition 1): contributions sum to f(x) - f(0)."""
    rl.manual_seed(0)
    network = rl.nn.Sequential(rl.nn.Linear(5, 16), rl.nn.Tanh(), rl.nn.Linear(16, 1))

    def gradient(rows, inputs):
        given = rl.tensor(inputs).requires_grad_()
        return rl.autograd.grad(network(given).sum(), [given])[0].numpy()

    x = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    direct, integrated = attributions(gradient, x, 64)
    with rl.no_grad():
        wanted = (network(rl.tensor(x)) - network(rl.zeros(1, 5))).numpy()[:, 0]
    np.testing.assert_allclose(integrated.sum(1), wanted, atol=2e-3)
    assert np.abs(direct.sum(1) - wanted).max() > 0.05  # gradient x input is not complete


AGENTS = {
    "dqn": "CartPole-v1",
    "qrdqn": "CartPole-v1",
    "pqn": "CartPole-v1",
    "drqn": "rl_lab/CartPoleMasked-v0",
    "a2c": "CartPole-v1",
    "reinforce": "CartPole-v1",
    "recurrent_ppo": "rl_lab/CartPoleMasked-v0",
    "neat": "rl_lab/DoublePole-v0",
    "sac": "Pendulum-v1",
    "td3": "Pendulum-v1",
    "tqc": "Pendulum-v1",
    "crossq": "Pendulum-v1",
    "ppo": "rl_lab/Catch-v0",
    "es": "Pendulum-v1",
    "bc": "Pendulum-v1",
    "iql": "CartPole-v1",
}


@pytest.mark.parametrize("name", AGENTS)
def test_what_agents_tell(name):
    """The outputs of `explain` lead to the actions of the episode, and inputs contribute to them."""
    small = {"population": 10} if name == "neat" else {"network": "cnn:4:8"} if name == "ppo" else {}
    agent = find_agent(name)(AGENTS[name], preset=False, **small)
    if name == "neat":
        agent.advance()
    episode = record_episode(agent, agent.setup, 3)
    count = agent.mapping.num_masked
    if count:
        assert episode.outputs[:, :count].argmax(1).tolist() == episode.actions[:, 0].astype(int).tolist()
    else:
        np.testing.assert_allclose(episode.outputs, episode.actions, atol=1e-5)
    assert episode.integrated.shape == episode.observations.shape
    assert np.isfinite(episode.integrated).all()
    assert np.abs(episode.integrated).sum() > 0
    data = data_of(page(agent, episode, "<b>title</script>", 3))
    assert data["title"] == "<b>title</script>"
    assert len(data["frames"]) == data["steps"] == len(episode.rewards)
    assert bool(data["maps"]) == (len(agent.shape) > 1)


def test_an_agent_that_tells_nothing():
    agent = ACTOR_CRITIC("CartPole-v1")
    data = data_of(page(agent, record_episode(agent, agent.setup, 3), "outsider", 3))
    assert not data["told"]
    assert [chart["title"] for chart in data["charts"]] == ["Reward"]


def test_command(trained, tmp_path, capsys):
    from PIL import Image

    html, gif = tmp_path / "e.html", tmp_path / "e.gif"
    assert evaluate.main([str(trained), "--episodes", "2", "--html", str(html), "--gif", str(gif), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["html"], facts["gif"]) == (str(html), str(gif))
    text = html.read_text()
    data = data_of(text)
    assert float(data["facts"]["return"]) == data["steps"]
    assert not re.search(r"https?://|src=[\"'](?!data)|<link", text)  # nothing is fetched
    with Image.open(gif) as image:
        assert image.n_frames > 5
        assert image.width <= 360
    for wrong in (["--html", str(tmp_path / "none" / "e.html")], ["--gif", str(tmp_path)]):
        assert evaluate.main([str(trained), *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_watch(trained, monkeypatch, capsys):
    """--watch is another word for --render: one episode in a window."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", 100_000)
    lines = []
    for word in ("--watch", "--render"):
        assert evaluate.main([str(trained), word]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert "over 1 episodes" in lines[0]
    assert evaluate.main([str(trained), "--watch", "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    import pygame

    pygame.display.quit()
    assert evaluate.main([str(trained), "--watch"]) == 2
    err = capsys.readouterr().err
    assert "there is no screen to show CartPole-v1 on" in err
    assert len(err.strip().splitlines()) == 1


class Pictured(CartPoleEnv):
    """It has pictures, but no window of its own, and does not take a render mode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100_000}
    shown = 0

    def __init__(self):
        super().__init__(render_mode="rgb_array")

    def render(self):
        type(self).shown += 1
        return super().render()


def test_a_window_on_an_environment_of_a_function(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    agent = find_agent("ppo")(lambda: TimeLimit(Pictured(), 20), preset=False)
    played = evaluate_agent(agent, episodes=1, render=True)
    assert Pictured.shown > played.length_mean  # one picture for each step, and one for each reset


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_opens_in_a_browser(trained, tmp_path):
    html = tmp_path / "e.html"
    assert evaluate.main([str(trained), "--episodes", "1", "--html", str(html)]) == 0
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    found = subprocess.run([*command, f"file://{html}#5"], capture_output=True, text=True, timeout=60)
    assert "ppo on CartPole-v1" in found.stdout
    assert re.search(r"<dd>5 of \d+</dd>", found.stdout), found.stderr
    assert (
        found.stdout.count("<canvas") == 6
    )  # probabilities, value, reward, observation, attributions, and the map, which is hidden
