"""Environments, vector environments and calls that deviate from Gymnasium's interface in ways that their users do not notice."""

import re
import shlex

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

import rl_lab.train
from rl_lab.agents.dqn import DQN
from rl_lab.agents.ppo import PPO
from rl_lab.engine.errors import EnvironmentFault, EnvironmentWarning, NumericalError
from rl_lab.experiment import evaluate
from rl_lab.experiment.analysis import load_runs
from rl_lab.experiment.datasets import find_dataset
from rl_lab.experiment.environments import describe_space, rebuild_space
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.video import check_video
from rl_lab.rollout.adapter import said_anew
from rl_lab.serialization import join, split

SHORT = {"num_steps": 16, "batch_size": 16, "network": "mlp:8", "compile": False}


class World(gym.Env):
    """Episodes of 10 steps. ``reward``, ``info``, ``begin`` and ``result`` return what the methods return instead."""

    action_space = spaces.Discrete(2)

    def __init__(self, reward=lambda t: 1.0, info=lambda t: {}, begin=None, result=None, space=None):
        self.reward, self.info, self.begin, self.result = reward, info, begin, result
        self.observation_space = spaces.Box(-1, 1, (4,)) if space is None else space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.begin() if self.begin else (self.observation_space.sample(), self.info(0))

    def step(self, action):
        self.t += 1
        if self.result:
            return self.result()
        return self.observation_space.sample(), self.reward(self.t), self.t >= 10, False, self.info(self.t)


class Same(gym.Wrapper):
    pass


class Mend(gym.RewardWrapper):
    def reward(self, reward):
        return float(np.clip(np.nan_to_num(reward), -1, 1))


def score(make, wrapper=(), **options):
    agent = PPO(make, wrapper=wrapper, **SHORT)
    agent.learn(64)
    return evaluate(agent, episodes=2).return_mean


WAYS = {
    "plain": lambda **k: PPO(lambda: World(**k), **SHORT).learn(32),
    "wrapped": lambda **k: PPO(lambda: World(**k), wrapper=Same, **SHORT).learn(32),
    "time limit": lambda **k: PPO(lambda: gym.make("OddWorld-v0", **k), **SHORT).learn(32),
}
gym.register("OddWorld-v0", entry_point=World, max_episode_steps=5, disable_env_checker=True)


# --- rewards and infos below wrappers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rewards_that_a_wrapper_mends(bad):
    with pytest.warns(EnvironmentWarning, match="after the wrappers"), said_anew():
        assert score(lambda: World(lambda t: bad if t == 3 else 1.0), Mend) == (9 if np.isnan(bad) else 10)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("episode", told)
        for told in (3, {"r": None}, {"r": "x"}, {"r": [1, 2]}, {"r": float("nan")}, {"r": 5.0, "l": 1, "t": 0.0})
    ]
    + [("rl_lab/episode", 3), ("rl_lab/episode", {"r": 1})],
)
@pytest.mark.parametrize("wrapper", [(), Same])
def test_an_info_that_looks_like_a_score(key, told, wrapper):
    assert score(lambda: World(info=lambda t: {key: told} if t == 10 or told == 3 else {}), wrapper) == 10


def test_small_rewards_are_summed_as_float64():
    class Long(World):
        def step(self, action):
            self.t += 1
            return self.observation_space.sample(), np.float16(1), self.t >= 2100, False, {}

    agent = PPO(Long, wrapper=Same, **SHORT)
    assert evaluate(agent, episodes=1).return_mean == 2100


# --- the same messages with and without wrappers -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"begin": lambda: np.zeros(4, np.float32)}, "reset.. returned only a ndarray"),
        ({"begin": lambda: np.zeros(2, np.float32)}, "reset.. returned only a ndarray"),
        ({"begin": lambda: (0.1, 0.2)}, "a pair with a float as its info"),
        ({"begin": lambda: None}, "reset.. returned None: end it with return"),
        ({"result": lambda: None}, "step.. returned None: end it with return"),
        ({"result": lambda: (np.zeros(4, np.float32), 1.0, True, {})}, "step.. returned four values"),
        ({"reward": lambda t: [1.0, 2.0]}, "return one number"),
        ({"reward": lambda t: None}, "return one number"),
    ],
)
def test_the_message_names_what_was_returned(way, given, said):
    with pytest.raises((EnvironmentFault, Fault), match=said):
        WAYS[way](**given)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "given",
    [
        {"reward": lambda t: [1.0]},
        {"info": lambda t: None},
        {"begin": lambda: [np.zeros(4, np.float32), {}]},
    ],
)
@pytest.mark.filterwarnings("ignore::rl_lab.engine.errors.EnvironmentWarning")
def test_what_has_a_clear_meaning_is_accepted(way, given):
    assert WAYS[way](**given).timesteps >= 32


# --- vector environments -------------------------------------------------------------------------------------------------


class Many(VectorEnv):
    """Environment i has episodes of 4 + i steps."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs=3, space=None, convert=lambda x: x, final="final_obs"):
        self.num_envs, self.convert, self.final = num_envs, convert, final
        self.single_observation_space = space or spaces.Box(-100, 100, (1,))
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def shown(self):
        discrete = isinstance(self.single_observation_space, spaces.Discrete)
        return self.t % 4 if discrete else self.t[:, None].astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = np.zeros(self.num_envs, int)
        return self.shown(), {}

    def step(self, actions):
        self.t = self.t + 1
        ended = self.t >= 4 + np.arange(self.num_envs)
        info = {}
        if ended.any() and self.final:
            last = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ended):
                last[i] = self.shown()[i]
            info = {self.final: last, f"_{self.final}": ended}
        self.t = np.where(ended, 0, self.t)
        return self.shown(), self.convert(np.ones(self.num_envs)), self.convert(ended), self.convert(np.zeros_like(ended)), info


def returns_of(envs, **options):
    found = []
    agent = PPO(envs, **SHORT, **options)
    agent.learn(96, callback=lambda agent, metrics: found.append(metrics.get("charts/episodic_return")))
    return [round(value, 3) for value in found if value]


@pytest.mark.parametrize(
    "convert",
    [lambda x: x.astype(np.int64), lambda x: x.astype(np.float32), np.ndarray.tolist, lambda x: x[:, None]],
    ids=["int", "float32", "list", "column"],
)
def test_flags_and_rewards_of_another_type(convert):
    assert returns_of(Many(convert=convert)) == returns_of(Many())


def test_a_wrong_number_of_flags():
    with pytest.raises(EnvironmentFault, match=r"terminations of shape \(2,\): return one per environment, \(3,\)"):
        returns_of(Many(convert=lambda x: x if x.dtype == float else x[:2]))


@pytest.mark.parametrize("final", ["final_observation", ""])
def test_missing_final_observations(final):
    with pytest.raises(EnvironmentFault, match=r'without its last observation: return it in info\["final_obs"\]'):
        returns_of(Many(final=final))


def test_a_mode_that_is_not_declared():
    class Silent(Many):
        metadata = {}

    with pytest.warns(EnvironmentWarning, match="NEXT_STEP is assumed"), said_anew():
        PPO(Silent(), **SHORT)


def test_a_class_of_vector_environments():
    with pytest.raises(Fault, match="frame_stack and time_aware must be applied before"):
        PPO(Many, num_envs=2, frame_stack=4, time_aware=True, **SHORT)
    four = spaces.Discrete(4)
    assert returns_of(Many, num_envs=2, env_kwargs={"space": four}) == returns_of(Many(2, four))


# --- spaces in files -----------------------------------------------------------------------------------------------------

SPACES = [
    spaces.Box(-1, 1, (2, 3)),
    spaces.Box(-np.inf, np.inf, (), np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(0, 1, (3,), np.bool_),
    spaces.Box(-1, 1, (2,), np.dtype(">f4")),
    spaces.Discrete(3),
    spaces.Discrete(3, start=-1, dtype=np.int32),
    spaces.MultiDiscrete([2, 3], dtype=np.int32, start=[1, -1]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary((3,)),
    spaces.MultiBinary((2, 2)),
]
SPACES += [spaces.Tuple(SPACES), spaces.Dict({str(i): space for i, space in enumerate(SPACES)}), spaces.OneOf(SPACES[:6])]
SPACES += [spaces.Dict({"a": SPACES[-1], "b": spaces.Tuple(SPACES[-3:])})]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_a_space_comes_back_from_a_file(space):
    arrays = {}
    found = rebuild_space(join(split(describe_space(space), "", arrays), arrays, tensors=False))
    assert found == space
    assert str(found) == str(space)
    assert found.dtype == space.dtype


@pytest.mark.parametrize("action_space", [spaces.MultiBinary(3), spaces.Discrete(3, dtype=np.int32)])
def test_an_agent_is_loaded_with_its_own_environment(tmp_path, action_space):
    def make():
        env = World()
        env.action_space = action_space
        return env

    agent = PPO(make, **SHORT)
    agent.save(tmp_path / "agent")
    assert np.array_equal(PPO.load(tmp_path / "agent", make).predict(np.zeros(4)), agent.predict(np.zeros(4)))


# --- calls ---------------------------------------------------------------------------------------------------------------


def test_a_callback_that_returns_a_numpy_bool():
    agent = PPO(World, **SHORT)
    agent.learn(1000, callback=lambda agent, metrics: np.mean([1, 2]) > 5)
    assert agent.timesteps == 16


def test_pictures_that_were_scaled_are_refused():
    agent = DQN(lambda: World(space=spaces.Box(0, 255, (4, 4, 3), np.uint8)), network="mlp:8", compile=False)
    picture = np.full((4, 4, 3), 200)
    assert agent.predict(picture) == agent.predict(picture.astype(np.uint8)) == agent.predict(picture.astype(float))
    for wrong in (picture / 255.0, picture + 1000, (picture / 255.0).tolist(), picture - 300):
        with pytest.raises(ValueError, match="uint8"):
            agent.predict(wrong)
        with pytest.raises(ValueError, match="uint8"):
            agent.predict([wrong])


@pytest.mark.parametrize("episodes", [2.5, "2", True, 0])
def test_a_number_of_episodes_that_is_none(episodes):
    agent = PPO(World, **SHORT)
    with pytest.raises(Fault, match="episodes must be an integer"):
        evaluate(agent, episodes=episodes)
    with pytest.raises(Fault, match=r"seed must be an integer of at least 0, got 1\.5"):
        evaluate(agent, episodes=1, seed=1.5)


def test_an_evaluation_in_vector_environments():
    agent = PPO("CartPole-v1", **SHORT)
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        envs = gym.make_vec("CartPole-v1", 2, "sync", {"autoreset_mode": mode})
        assert evaluate(agent, envs, episodes=3).episodes == 3
        envs.reset()  # they stay open


def test_an_agent_without_its_environment_cannot_be_evaluated(tmp_path):
    PPO(lambda: World(), **SHORT).save(tmp_path / "agent")
    with pytest.raises(Fault, match="loaded without its environment"):
        evaluate(PPO.load(tmp_path / "agent"), episodes=1)


def test_observations_that_are_too_large_are_named():
    class Large(World):
        def step(self, action):
            observation, *rest = super().step(action)
            return (observation * np.float32(1e25), *rest)

    agent = PPO(lambda: Large(space=spaces.Box(-np.inf, np.inf, (4,))), normalize_observations=True, **SHORT)
    with pytest.raises(NumericalError, match=r"observation\[\d\] is -?\S+e\+2[45], too large"):
        agent.learn(64)


def test_a_number_of_random_steps_is_written_as_other_numbers():
    envs = gym.make_vec("rl_lab/CartPole-v1", 1, autoreset_mode=AutoresetMode.SAME_STEP)
    assert find_dataset("random:1e2", envs).lengths.sum() == find_dataset("random:100", envs).lengths.sum() >= 100
    for wrong in ("random:1.5", "random:-1", "random:0", "random:"):
        with pytest.raises(Fault, match="takes a number"):
            find_dataset(wrong, envs)


def test_an_empty_picture():
    class Blank(World):
        metadata = {"render_modes": ["rgb_array"]}
        render_mode = "rgb_array"

        def render(self):
            return np.zeros((0, 10, 3), np.uint8)

    with pytest.raises(Fault, match=r"render\(\) must return a picture"):
        check_video(PPO(Blank, **SHORT).setup)


def test_printed_commands_are_quoted_and_a_run_without_settings_is_named(tmp_path, capsys):
    runs = tmp_path / "ü x runs"
    words = ["--agent", "ppo", "--env", "CartPole-v1", "--total-timesteps", "64", "--num-steps", "16", "--batch-size", "16"]
    assert rl_lab.train.main([*words, "--num-envs", "1", "--eval-episodes", "1", "--run-dir", str(runs)]) == 0
    said = capsys.readouterr()
    found = re.search("evaluate again: (.*)", said.out + said.err)
    (run,) = runs.glob("*/ppo/*")
    assert shlex.split(found[1])[-1] == str(run)
    (run / "config.toml").write_text("")
    with pytest.raises(Fault, match="names no agent and env"):
        load_runs(runs)
