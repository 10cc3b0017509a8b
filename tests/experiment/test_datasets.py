"""Datasets: recorded from a run, written, read and refused; agents that learn from them."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import rl_lab as rl
from rl_lab import record, train
from rl_lab.agents.bc import BC
from rl_lab.agents.iql import IQL
from rl_lab.experiment import Agent, Fault
from rl_lab.experiment.datasets import find_dataset, read_dataset, record_agent, record_random, write_dataset
from rl_lab.experiment.environments import make_environments, open_environments
from rl_lab.experiment.evaluation import evaluate
from rl_lab.testing import Probe
from tests.runs import AGENTS, only_run

SHORT = ["--total-timesteps", "300", "--eval-episodes", "2", "--stop-return", "none"]


class Balancing(Agent):
    """A policy for CartPole-v1 that is known to balance it: push towards the side to which the pole falls."""

    Config = AGENTS["ars"].Config
    learned = ("weights",)

    def build(self):
        self.weights = rl.tensor([[0.1, 0.5, 1.0, 1.0]])

    def greedy(self, observations, action_mask=None):
        return ((observations * self.weights).sum(1) > 0).long()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty episodes of `Balancing`."""
    agent = Balancing("CartPole-v1", preset=False)
    path = tmp_path_factory.mktemp("data") / "balanced"
    write_dataset(record_agent(agent, agent.setup, 20, seed=5), path, agent.envs, {"agent": "balancing"})
    return path


def test_what_is_recorded_can_be_played_again(folder):
    """The recorded actions, taken in Gymnasium's environment from the same seeds, give the recorded observations."""
    dataset = read_dataset(folder)
    assert dataset.returns.tolist() == dataset.lengths.tolist() == [500.0] * 20
    assert not dataset.terminated.any()
    env = gym.make("CartPole-v1")
    step = 0
    for k in range(3):
        seen, _ = env.reset(seed=5 + k)
        for t in range(500):
            np.testing.assert_array_equal(seen, dataset.observations[step + k + t])
            seen, *_ = env.step(int(dataset.actions[step + t]))
        np.testing.assert_array_equal(seen, dataset.observations[step + k + 500])
        step += 500
    transitions = dataset.transitions()
    assert transitions.truncated.sum() == 20
    assert not transitions.terminated.any()
    np.testing.assert_array_equal(transitions.next_observations[:499], transitions.observations[1:500])


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("masked", ["", "info"])
def test_random_actions_are_in_the_space_and_obey_masks(num_envs, masked):
    space = Dict({"a": Tuple((MultiBinary(2), Discrete(3, start=-1))), "b": Box(2.0, 3.0, (1,)), "c": MultiDiscrete([2, 3])})
    envs = open_environments(lambda: Probe(space, masked), num_envs)[0]  # whose step checks its actions
    dataset = record_random(envs, 50)
    assert set(dataset.lengths.tolist()) == {7}
    assert 50 <= len(dataset.rewards) < 50 + 7 * num_envs
    assert dataset.terminated.all()
    again = record_random(open_environments(lambda: Probe(space, masked), num_envs)[0], 50)
    assert again.fingerprint() == dataset.fingerprint()


def test_behaviour_cloning_imitates(folder):
    agent = BC("CartPole-v1", seed=1, dataset=str(folder), preset=False, network="mlp:16")
    assert evaluate(agent, episodes=10).return_mean < 200
    agent.learn(200_000)
    assert evaluate(agent, episodes=20).return_mean > 400


class Line(gym.Env):
    """A walk of ten steps on a line: reward 1 for each step to the right, -1 for each to the left."""

    observation_space = Box(-10.0, 10.0, (1,))

    def __init__(self, continuous: bool):
        self.action_space = Box(-1.0, 1.0, (1,)) if continuous else Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        move = float(np.asarray(action).reshape(-1)[0]) if isinstance(self.action_space, Box) else 2.0 * float(action) - 1.0
        self.x, self.t = self.x + move, self.t + 1
        return np.array([self.x], np.float32), move, False, self.t >= 10, {}


@pytest.mark.parametrize("continuous", [False, True])
def test_iql_is_better_than_its_data(continuous):
    """Random data have a mean return near 0; IQL finds the actions that pay, and behaviour cloning does not."""
    given = {"seed": 1, "dataset": "random:1000", "preset": False, "network": "mlp:16", "batch_size": 64}
    agent = IQL(lambda: Line(continuous), inverse_temperature=10.0, gamma=0.9, **given)
    agent.learn(60_000)
    assert evaluate(agent, episodes=5).return_mean > 5.0
    clone = IQL(lambda: Line(continuous), inverse_temperature=0.0, gamma=0.9, **given)
    clone.learn(60_000)
    assert evaluate(clone, episodes=5).return_mean < evaluate(agent, episodes=5).return_mean - 2.0 or not continuous


def test_losses_of_iql():
    agent = IQL("Pendulum-v1", dataset="random:200", preset=False, network="mlp:8", expectile=0.9, largest_weight=2.0)
    u = rl.tensor([-1.0, 2.0])
    assert agent.compute_loss_v(u).item() == pytest.approx((0.1 * 1 + 0.9 * 4) / 2)
    x, actions = rl.zeros(2, 3), rl.zeros(2, 1)
    logs = agent.distribution(x).log_prob(actions).detach().numpy()
    wanted = -(np.minimum(np.exp(3.0 * u.numpy()), 2.0) * logs).mean()
    assert agent.compute_loss_pi(x, actions, u).item() == pytest.approx(wanted, rel=1e-5)


def test_a_changed_dataset_is_refused(folder, tmp_path):
    agent = BC("CartPole-v1", dataset=str(folder), preset=False)
    agent.step()
    other = BC("CartPole-v1", dataset="random:100", preset=False)
    other.load_state_dict(agent.state_dict())
    with pytest.raises(Fault, match="has changed since training began"):
        other.step()


def test_acting_needs_no_dataset(folder, tmp_path):
    agent = BC("CartPole-v1", dataset=str(tmp_path / "gone"), preset=False)
    agent.predict(np.zeros(4, np.float32))
    with pytest.raises(Fault, match="holds no dataset"):
        agent.learn(10)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_records_and_agents_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--agent", "a2c", "--env", "CartPole-v1", *SHORT]) == 0
    run = only_run()
    assert record.main([str(run), "--episodes", "4", "--seed", "3", "--stochastic", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["episodes"] == 4
    dataset = read_dataset(run / "dataset")
    assert dataset.returns.mean() == facts["return_mean"]
    for agent in ("bc", "iql"):
        words = ["--agent", agent, "--env", "CartPole-v1", "--dataset", str(run / "dataset"), "--run-dir", agent]
        assert train.main([*words, *SHORT, "--batch-size", "10"]) == 0
        assert f"dataset: 4 episodes of {facts['steps']:,} steps" in "".join(capsys.readouterr())
        assert record.main([str(only_run(agent)), "--episodes", "2", "--output", f"from_{agent}"]) == 0
    capsys.readouterr()
    for words, said in (
        ([str(run)], "dataset exists: give --output"),
        ([str(run), "--episodes", "0"], "--episodes must be at least 1"),
        ([str(run), "--episodes", "x"], "--episodes takes an integer"),
        ([str(run), "--seed", "-1"], "--seed must be at least 0"),
        ([str(run), "--output", "no/where"], "is not a directory"),
        ([str(run), "--checkpoint", "nope", "--output", "new"], "nope"),
        ([str(run), "--episode", "3"], "did you mean '--episodes'"),
        (["nowhere"], "is not a run"),
    ):
        assert record.main(words) == 2
        line = capsys.readouterr().err
        assert said in line, line
        assert len(line.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("", "give the data to learn from"),
        ("nowhere", "holds no dataset"),
        ("random:x", "takes a number of steps"),
        ("random:0", "takes a number of steps"),
        ("minari:none/such-v0", "minari"),
    ],
)
def test_a_dataset_that_cannot_be_used_leaves_no_run(description, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for agent in ("bc", "iql"):
        assert train.main(["--agent", agent, "--env", "CartPole-v1", "--dataset", description]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("rl_lab: ")
        assert said in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "harm", ["cut", "lengths", "overflow", "missing", "nan", "huge", "reward", "json", "actions", "shape", "bounds"]
)
def test_damaged_datasets_are_refused(harm, folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    made = tmp_path / "damaged"
    made.mkdir()
    arrays = load_file(folder / "data.safetensors")
    text = (folder / "dataset.json").read_text()
    if harm == "lengths":
        arrays["lengths"][0] += 1
    elif harm == "overflow":  # whose sum is right, modulo 2**64
        arrays["lengths"][:4] = [2**62, 2**62, 2**62, 2**62 + arrays["lengths"][:4].sum()]
    elif harm == "huge":
        arrays["observations"] = arrays["observations"].astype(np.float64)
        arrays["observations"][3, 1] = 1e300
    elif harm == "reward":
        arrays["rewards"][3] = -1e39
    elif harm == "bounds":
        text = text.replace("Discrete(2)", "Discrete(2, start=5)")
    elif harm == "missing":
        del arrays["rewards"]
    elif harm == "nan":
        arrays["observations"][3, 1] = np.nan
    elif harm == "actions":
        arrays["actions"][7] = 2
    elif harm == "shape":
        arrays["observations"] = np.ascontiguousarray(arrays["observations"][:, :3])
    elif harm == "json":
        text = text[:-9]
    save_file(arrays, made / "data.safetensors")
    (made / "dataset.json").write_text(text)
    if harm == "cut":
        content = (made / "data.safetensors").read_bytes()
        (made / "data.safetensors").write_bytes(content[:-1])
    with pytest.raises(Fault):
        find_dataset(str(made), make_environments("CartPole-v1", 1))


def test_a_folder_appears_when_it_is_complete(folder, tmp_path, monkeypatch):
    dataset, envs = read_dataset(folder), make_environments("CartPole-v1", 1)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write_dataset(dataset, tmp_path / "new", envs, {})
    assert not list(tmp_path.iterdir())


class Picture(gym.Env):
    """Shows bytes, or the same pictures as numbers in [0, 1]."""

    def __init__(self, as_bytes: bool = True):
        self.as_bytes = as_bytes
        self.observation_space = Box(0, 255, (36, 36, 3), np.uint8) if as_bytes else Box(0, 1, (36, 36, 3), np.float32)
        self.action_space = Discrete(2)

    def seen(self):
        picture = self.np_random.integers(0, 256, (36, 36, 3), np.uint8)
        return picture if self.as_bytes else picture.astype(np.float32) / 255

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), 1.0, self.t == 3, False, {}


def recorded(make, steps: int = 9):
    envs, setup = open_environments(make, 1)
    return record_random(envs, steps), setup, envs


@pytest.mark.parametrize("as_bytes", [True, False])
def test_pictures_in_other_units_are_refused(as_bytes, tmp_path):
    """Bytes are not taken for numbers in [0, 1], nor the other way round, where every pixel would become 0."""
    dataset, _, envs = recorded(lambda: Picture(as_bytes))
    write_dataset(dataset, tmp_path / "pictures", envs, {})
    assert find_dataset(str(tmp_path / "pictures"), envs).fingerprint() == dataset.fingerprint()
    with pytest.raises(Fault, match="as the environment returns them"):
        find_dataset(str(tmp_path / "pictures"), open_environments(lambda: Picture(not as_bytes), 1)[0])


@pytest.mark.parametrize(("low", "width"), [(1e5, 1.0), (300.0, 0.1), (0.0, 1e-3)])
def test_observations_are_normalized_by_the_moments_of_the_dataset(low, width):
    class Far(Line):
        observation_space = Box(-np.inf, np.inf, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.step(0)[0], {}

        def step(self, action):
            self.t += 1
            return np.array([low + width * self.np_random.random()], np.float32), 0.0, self.t >= 10, False, {}

    agent = BC(lambda: Far(False), dataset="random:50", preset=False, network="mlp:4")
    agent.remarks()
    seen = agent.data.arrays.observations.astype(np.float64)
    assert np.allclose(agent.moments.mean.numpy(), seen.mean(0), rtol=1e-6)
    assert np.allclose(agent.moments.var.numpy(), seen.var(0), rtol=1e-4)


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A run of NEAT."""
    place = tmp_path_factory.mktemp("evolved")
    words = ["--agent", "neat", "--env", "CartPole-v1", "--population", "20", "--run-dir", str(place)]
    assert train.main([*words, *SHORT]) == 0
    return str(only_run(place))


@pytest.mark.parametrize("name", ["bc", "iql", "ppo", "a2c", "dqn", "reinforce"])
def test_an_evolved_network_sees_what_it_saw_in_its_evolution(name, evolved):
    given = {"dataset": "random:50"} if name in ("bc", "iql") else {}
    agent = AGENTS[name]("CartPole-v1", preset=False, network=evolved, learning_rate=1e-9, **given)
    seen = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    before = agent.predict(seen)
    agent.learn(600)
    assert (agent.predict(seen) == before).all()
