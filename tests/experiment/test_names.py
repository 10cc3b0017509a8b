"""Names of inputs and actions: declared, documented, made from keys, and hidden by wrappers that may change observations."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rl_lab.agents.dqn import DQN
from rl_lab.agents.neat.agent import NEAT
from rl_lab.agents.ppo import PPO
from rl_lab.experiment.names import DOCUMENTED, input_names, node_names, output_names

CART = ["cart position", "cart velocity", "pole angle", "pole angular velocity"]


class Named(gym.Env):
    """An environment that declares names."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    observation_names = ("height", "speed")
    action_names = ("wait", "jump")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


class Keyed(Named):
    observation_space = spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (2,), np.float32),
            "gear": spaces.Discrete(3, start=1),
            "fuel": spaces.Box(0, 1, (), np.float32),
        }
    )
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_names = ()
    action_names = ("gas", "wheel")

    def reset(self, *, seed=None, options=None):
        gym.Env.reset(self, seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}


class Swapped(gym.ObservationWrapper):
    def observation(self, observation):
        return observation[::-1].copy()


class NamedSwap(Swapped):
    observation_names = ("speed", "height")


def named(env, **options) -> list[str]:
    return input_names(PPO(env, preset=False, **options))


@pytest.mark.parametrize("backend", ["native", "gymnasium"])
def test_the_twins_have_the_names_of_the_originals(backend):
    agent = DQN("CartPole-v1", backend=backend, preset=False)
    assert input_names(agent) == CART
    assert output_names(agent) == ["push left", "push right"]


def test_documented_names_fit_the_spaces():
    checked = 0
    for name, names in DOCUMENTED.items():
        try:
            env = gym.make(name)
        except gym.error.Error:
            continue  # Box2D is not installed
        size = env.action_space.n if isinstance(env.action_space, spaces.Discrete) else env.action_space.shape[0]
        assert (len(names.observation), len(names.action)) == (env.observation_space.shape[0], size), name
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if "BipedalWalker" not in name])
def test_native_twins_have_the_documented_names(name):
    agent = PPO(name, backend="native", preset=False, num_envs=1)
    assert (tuple(input_names(agent)), tuple(output_names(agent))) == DOCUMENTED[name]


@pytest.mark.parametrize("name", ["DoublePole-v0", "DoublePoleNoVelocity-v0", "CartPoleMasked-v0", "Catch-v0", "Bricks-v0"])
def test_own_environments_declare_names(name):
    agent = PPO(f"rl_lab/{name}", preset=False)
    assert not output_names(agent)[0].startswith("action")
    pictured = len(agent.shape) > 1
    assert input_names(agent)[0].startswith("input") == pictured


def test_frames_and_time():
    before = [f"{name} (1 before)" for name in CART]
    for backend in ("native", "gymnasium"):
        assert named("CartPole-v1", frame_stack=2, backend=backend) == [*before, *CART]
        timed = named("CartPole-v1", frame_stack=2, time_aware=True, backend=backend)
        assert timed == [*before, "time (1 before)", *CART, "time"]


def test_declared_names_and_wrappers():
    assert named(Named) == ["height", "speed"]
    assert output_names(PPO(Named, preset=False)) == ["wait", "jump"]
    assert named(lambda: gym.wrappers.TimeLimit(Named(), 5)) == ["height", "speed"]
    assert named(lambda: Swapped(Named())) == ["input 0", "input 1"]
    assert named(lambda: NamedSwap(Named())) == ["speed", "height"]
    assert named("CartPole-v1", wrapper="gymnasium.wrappers:FlattenObservation", backend="gymnasium")[0] == "input 0"


def test_keys_name_the_parts_of_a_dict():
    agent = PPO(Keyed, preset=False)
    assert input_names(agent) == [
        *("fuel", "gear = 1", "gear = 2", "gear = 3", "speed 0", "speed 1"),
    ]
    assert output_names(agent) == ["gas", "wheel"]
    observation = {"fuel": np.float32(0.5), "gear": 2, "speed": np.array([0.1, 0.2], np.float32)}
    array = agent.envs.observation_mapping.array(observation)
    np.testing.assert_allclose(array, [0.5, 0, 1, 0, 0.1, 0.2])


def test_without_names():
    Nameless = type("Nameless", (Named,), {"observation_names": (), "action_names": ("one",)})
    agent = PPO(Nameless, preset=False)
    assert input_names(agent) == ["input 0", "input 1"]
    assert output_names(agent) == ["action 0", "action 1"]


def test_nodes_of_an_evolved_network():
    agent = NEAT("rl_lab/DoublePole-v0", preset=False, population=10)
    agent.advance()
    names = node_names(agent, agent.network())
    assert names["input0"] == "cart position"
    assert names["output0"] == "force"
    assert len(names) == 7
