"""Preprocessing by name, with small worlds that have the spaces of Atari, MinAtar and MiniGrid; and the scores of their games."""

import importlib.util
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rl_lab import train
from rl_lab.agents.crossq import CrossQ
from rl_lab.agents.dqn import DQN
from rl_lab.agents.ppo import PPO
from rl_lab.agents.qrdqn import QRDQN
from rl_lab.agents.sac import SAC
from rl_lab.agents.td3 import TD3
from rl_lab.agents.tqc import TQC
from rl_lab.experiment import preprocessing
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.driver import load_run
from rl_lab.experiment.environments import choose_setup, copy_for_evaluation, make_environments, make_one
from rl_lab.experiment.evaluation import evaluate
from rl_lab.experiment.faults import Fault
from rl_lab.rollout import Stepper
from tests.runs import only_run

needs_cv2 = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="needs opencv, as Gymnasium's own wrappers do")


class Arcade(gym.Env):
    """A game with Atari's spaces: three lives, each lost after 40 frames, and 7 points for each frame of a game."""

    observation_space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = spaces.Discrete(4)

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "RIGHT", "LEFT"]

    def _show(self):
        return np.full((210, 160, 3), self.t % 256, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {"lives": 3}

    def step(self, action):
        self.t += 1
        lives = 3 - self.t // 40
        return self._show(), 7.0, lives == 0, False, {"lives": lives}


class Blocks(gym.Env):
    """A world with MinAtar's spaces."""

    observation_space = spaces.Box(0.0, 1.0, (10, 10, 10), bool)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((10, 10, 10), bool), {}

    def step(self, action):
        self.t += 1
        return self.np_random.random((10, 10, 10)) < 0.1, int(action == 1), self.t >= 10, False, {}


class Rooms(gym.Env):
    """A world with MiniGrid's spaces: picture, direction, and a mission in words."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "mission": spaces.Text(40),
        }
    )
    action_space = spaces.Discrete(7)

    def _show(self):
        image = np.stack([self.np_random.integers(0, n, (7, 7)) for n in (11, 6, 4)], -1).astype(np.uint8)
        return {"image": image, "direction": int(self.np_random.integers(4)), "mission": "open the red door"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        self.t += 1
        return self._show(), 0.5, False, self.t >= 12, {}


WORLDS = {"Arcade-v0": Arcade, "Blocks-v0": Blocks, "Rooms-v0": Rooms}


@pytest.fixture(autouse=True)
def registered():
    for name, world in WORLDS.items():
        gym.register(name, entry_point=world)
    yield
    for name in WORLDS:
        del gym.registry[name]


# --- Atari -----------------------------------------------------------------------------------------------------------


@needs_cv2
def test_atari_in_training_and_in_evaluation():
    setup = choose_setup("Arcade-v0", preprocess="atari")
    assert setup.frame_stack == 4
    training, evaluating = make_one(setup, 0), make_one(copy_for_evaluation(setup), 0)
    for env, ends in (
        (training, [9, 19, 29]),
        (evaluating, [29]),
    ):  # three lives of ten steps of four frames, less the fire button
        assert env.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
        env.reset(seed=1)
        over: list[int] = []
        scores: list[float] = []
        for step in range(30):
            observation, reward, terminated, truncated, info = env.step(0)
            assert observation.dtype == np.uint8
            assert reward == (1.0 if env is training else 28.0) or terminated
            if terminated or truncated:
                over.append(step)
                scores.append(float(info["episode"]["r"]) if "episode" in info else -1.0)
                if "episode" in info:
                    break
                env.reset()
        assert len(over) == len(ends), over
        assert scores == [-1.0] * (len(ends) - 1) + [7.0 * 120]


@needs_cv2
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_scores_are_those_of_whole_games(vectorization):
    envs = make_environments(choose_setup("Arcade-v0", vectorization=vectorization, preprocess="atari"), 2)
    stepper = Stepper(envs)
    assert stepper.scored
    stepper.reset(1)
    games, lives = [], 0
    for _ in range(60):
        step = stepper.step(np.zeros(2, np.int64))
        lives += int(step.ended[0])
        if step.ended[0] and not np.isnan(step.scores[0]):
            games.append((step.scores[0], step.score_lengths[0]))
    envs.close()
    assert lives >= 2 * len(games)
    assert games[0][0] == 7.0 * 120
    assert 25 <= games[0][1] <= 31  # all lives together


@needs_cv2
def test_a_run_records_atari_and_evaluates_full_games(workplace, capsys):
    words = ["--agent", "dqn", "--env", "Arcade-v0", "--preprocess", "atari", "--total-timesteps", "60", "--buffer-size", "100"]
    assert train.main([*words, "--learning-starts", "20", "--network", "cnn:4x8s4,4x4s4:8", "--eval-episodes", "2"]) == 0
    shown = capsys.readouterr().out
    assert "greedy return 840.0" in shown
    assert "4 frames of 84 x 84" in shown
    config = read_toml(only_run() / "config.toml")
    assert config["preprocess"] == ["atari"]
    agent = load_run(only_run().resolve()).agent()
    assert agent.setup.frame_stack == 4
    assert agent.replay.frames is not None
    assert agent.observation_dtype is np.uint8


def test_atari_goes_with_its_network():
    plan = train.parse(["--agent", "ppo", "--env", "CartPole-v1"])
    assert plan.config.network.startswith("mlp")
    assert preprocessing.settings_of(("atari",)) == {"network": "nature", "shared": True}
    with pytest.raises(Fault, match="colour pictures"):
        make_one(choose_setup("Blocks-v0", preprocess="atari"), 0)


# --- MinAtar ---------------------------------------------------------------------------------------------------------


def test_minatar_has_its_channels_last(workplace, capsys):
    with pytest.raises(Fault, match="--channels first or --channels last"):
        PPO("Blocks-v0", network="cnn:4:8", num_steps=8, batch_size=8, preset=False)
    words = [
        "--agent",
        "ppo",
        "--env",
        "Blocks-v0",
        "--preprocess",
        "minatar",
        "--total-timesteps",
        "32",
        "--eval-episodes",
        "2",
    ]
    assert train.main([*words, "--num-steps", "16", "--batch-size", "16"]) == 0
    assert "channels in the last dimension, 10 channels" in capsys.readouterr().out
    assert read_toml(only_run() / "config.toml")["hyperparameters"]["network"] == "cnn:16:128"
    assert load_run(only_run()).agent().observation_dtype is np.bool_


# --- MiniGrid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [("minigrid", 0), ("minigrid:mission=8", 8)])
def test_minigrid_planes_hold_the_whole_observation(text, words):
    env = make_one(choose_setup("Rooms-v0", preprocess=text), 0)
    raw = Rooms()
    seen, _ = env.reset(seed=3)
    told, _ = raw.reset(seed=3)
    for _ in range(5):
        assert seen.dtype == np.bool_
        assert seen.shape == (12 + 7 + 5 + 4 + words, 7, 7)
        for first, count, channel in ((0, 12, 0), (12, 7, 1), (19, 5, 2)):
            assert (seen[first : first + count].argmax(0) == told["image"][:, :, channel]).all()
            assert (seen[first : first + count].sum(0) == 1).all()
        assert (seen[24:28].argmax(0) == told["direction"]).all()
        assert seen[28:].any(axis=(1, 2)).sum() <= 4  # words of the mission
        assert bool(seen[28:].any()) == bool(words)
        seen, told = env.step(1)[0], raw.step(1)[0]


def test_minigrid_trains(workplace):
    words = ["--agent", "ppo", "--env", "Rooms-v0", "--preprocess", "minigrid:mission=4", "--total-timesteps", "32"]
    assert train.main([*words, "--num-steps", "16", "--batch-size", "16", "--network", "cnn:4:8", "--eval-episodes", "2"]) == 0
    with pytest.raises(Fault, match="a picture"):
        make_one(choose_setup("CartPole-v1", "gymnasium", preprocess="minigrid"), 0)


def test_unknown_preprocessing_is_named():
    for wrong, words in (
        ("atarri", "did you mean 'atari'"),
        ("atari:skip=3", "takes no arguments"),
        ("minigrid:missions=3", "mission=N"),
        ("minigrid:mission=-1", "mission=N"),
        (3, "--preprocess"),
    ):
        with pytest.raises(Fault) as caught:
            preprocessing.as_presets(wrong)
        assert words in str(caught.value), caught.value
    assert preprocessing.as_presets("minatar,normalize") == ("minatar", "normalize")


# --- normalization ---------------------------------------------------------------------------------------------------


class Shifted(gym.Env):
    """Observations around 1,000 and rewards of 100."""

    action_space = spaces.Discrete(2)

    def __init__(self, continuous=False):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,)) if continuous else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def _show(self):
        return (1000 + 10 * self.np_random.standard_normal(2)).astype(np.float32)

    def step(self, action):
        self.t += 1
        return self._show(), 100.0, self.t >= 10, False, {}


AGENTS = {
    PPO: {"num_steps": 32, "batch_size": 32},
    DQN: {"learning_starts": 8, "batch_size": 4},
    QRDQN: {"learning_starts": 8, "batch_size": 4},
    SAC: {"learning_starts": 8, "batch_size": 4},
    TD3: {"learning_starts": 8, "batch_size": 4},
    TQC: {"learning_starts": 8, "batch_size": 4},
    CrossQ: {"learning_starts": 8, "batch_size": 4},
}


@pytest.mark.parametrize("agent_class", AGENTS)
def test_normalize_is_frozen_in_evaluation(agent_class, tmp_path):
    agent = agent_class(
        lambda: Shifted(agent_class in (SAC, TD3, TQC, CrossQ)),
        preprocess="normalize",
        network="mlp:4",
        preset=False,
        **AGENTS[agent_class],
    )
    assert agent.config.normalize_observations
    assert agent.config.normalize_rewards
    agent.learn(320)
    moments = agent.moments if agent_class is PPO else agent.normalization.moments
    assert np.allclose(moments.mean.numpy(), 1000, atol=5)
    assert np.allclose(moments.var.numpy(), 100, rtol=0.5)
    if agent.replay is not None:
        raw, seen = agent.replay.sample(64), agent.sample_batch(64)
        assert raw.observations.numpy().mean() > 900
        assert abs(seen.observations.numpy().mean()) < 1
        assert abs(seen.next_observations.numpy().mean()) < 1
        assert 0 < seen.rewards.numpy().max() < 10
    before = {name: part.numpy().copy() for name, part in moments.state_dict().items()}
    assert evaluate(agent, episodes=3).return_mean == 1000.0  # the environment's own rewards
    agent.predict(np.zeros(2, np.float32))
    for name, part in moments.state_dict().items():
        assert (part.numpy() == before[name]).all(), name
    twin = agent_class(
        lambda: Shifted(agent_class in (SAC, TD3, TQC, CrossQ)),
        preprocess="normalize",
        network="mlp:4",
        preset=False,
        **AGENTS[agent_class],
    )
    twin.load_learned(agent.state_dict())
    observation = np.array([1003.0, 996.0], np.float32)
    assert np.array_equal(twin.predict(observation), agent.predict(observation))


def test_who_cannot_normalize_says_so(workplace, capsys):
    assert train.main(["--agent", "neat", "--env", "CartPole-v1", "--preprocess", "normalize"]) == 2
    assert "has no setting normalize_observations" in capsys.readouterr().err


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_lie_under_wrappers(workplace, capsys):
    class Clipped(gym.wrappers.TransformReward):
        def __init__(self):
            super().__init__(gym.wrappers.RecordEpisodeStatistics(Arcade()), np.sign)

    module = type(sys)("scored_world")
    module.Clipped = Clipped
    sys.modules["scored_world"] = module
    try:
        for agent, more in (("ppo", ["--num-steps", "128"]), ("reinforce", [])):
            words = ["--agent", agent, "--env", "scored_world:Clipped", "--total-timesteps", "256", "--network", "mlp:2"]
            assert train.main([*words, "--eval-episodes", "2", "--run-dir", agent, *more]) == 0
            assert "greedy return 840.0" in capsys.readouterr().out
            scalars = load_run(only_run(agent)).scalars()
            logged = scalars[scalars["tag"] == "charts/episodic_return"]["value"]
            assert len(logged)
            assert (logged == 840.0).all()
    finally:
        del sys.modules["scored_world"]
