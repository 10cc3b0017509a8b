"""Habits of environments that would be wrong without a word: shared objects, masks in other places, seeds that are not passed on."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rl_lab.agents.ppo import PPO
from rl_lab.errors import EnvironmentFault, EnvironmentWarning
from rl_lab.experiment import Fault, evaluate
from rl_lab.experiment.environments import open_environments
from rl_lab.rollout.adapter import said_anew

SMALL: dict[str, Any] = {"network": "mlp:4", "preset": False, "num_steps": 8, "batch_size": 8}


class Five(gym.Env):
    """Five steps of reward 1."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t == 5, False, {}


def test_an_environment_is_not_stepped_by_several():
    env = Five()
    with pytest.raises(Fault, match="which 3 would step at once"):
        PPO(lambda: env, num_envs=3, **SMALL)
    agent = PPO(lambda: env, num_envs=1, **SMALL)
    with pytest.warns(EnvironmentWarning, match="breaks its episodes off"), said_anew():
        result = evaluate(agent, episodes=4)  # one after the other
    assert (result.return_mean, result.return_std) == (5.0, 0.0)
    given = PPO(Five(), **SMALL)
    assert evaluate(given, episodes=4).return_mean == 5.0


class Masked(Five):
    """Forbids all actions but the first option of each choice."""

    def __init__(self, actions: gym.Space, space: gym.Space, mask: Any, nested: bool = False):
        self.action_space = actions
        self.mask = mask
        self.nested = nested
        inner = Dict({"seen": Box(-1, 1, (2,)), "action_mask": space})
        self.observation_space = Dict({"player": inner}) if nested else inner

    def seen(self):
        inner = {"seen": np.zeros(2, np.float32), "action_mask": self.mask}
        return {"player": inner} if self.nested else inner

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def step(self, action):
        assert not np.any(action), "a forbidden action"
        return self.seen(), *super().step(action)[1:]


FIRST = np.array([1, 0], np.int8)


@pytest.mark.parametrize(
    ("actions", "space", "mask"),
    [
        (Discrete(3), MultiBinary(3), np.array([1, 0, 0], np.int8)),
        (MultiDiscrete([2, 3]), Box(0, 1, (5,), np.int8), np.array([1, 0, 1, 0, 0], np.int8)),
        (MultiDiscrete([2, 3]), Tuple([MultiBinary(2), MultiBinary(3)]), (FIRST, np.array([1, 0, 0], np.int8))),
        (Tuple([Discrete(2), Discrete(2)]), Tuple([MultiBinary(2), MultiBinary(2)]), (FIRST, FIRST)),
    ],
)
def test_a_mask_in_the_observation_is_obeyed_in_every_form(actions, space, mask):
    agent = PPO(lambda: Masked(actions, space, mask), **SMALL)
    assert agent.shape == (2,)
    agent.learn(32)
    assert evaluate(agent, episodes=2).return_mean == 5.0


@pytest.mark.parametrize("size", [2, 4])
def test_a_mask_of_another_size_is_told(size):
    with pytest.warns(EnvironmentWarning, match=rf"has {size} entries, but the actions have 3 options, so it is observed"):
        open_environments(lambda: Masked(Discrete(3), MultiBinary(size), np.ones(size, np.int8)), 1)


def test_a_mask_inside_of_a_part_is_named():
    with pytest.warns(EnvironmentWarning, match=r"observation\['player'\]\['action_mask'\] is observed like any number"):
        open_environments(lambda: Masked(Discrete(2), MultiBinary(2), FIRST, nested=True), 1)


def test_a_part_of_this_name_is_observed_where_no_action_can_be_masked():
    envs = open_environments(lambda: Masked(Box(-1, 1, (2,)), MultiBinary(2), FIRST), 1)[0]
    assert envs.single_observation_space.shape == (4,)


class Unseeded(Five):
    """Draws numbers, but does not pass the seed on."""

    draws = True

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if self.draws:
            self.np_random.random()
        return super().step(action)


class Deterministic(Unseeded):
    draws = False


@pytest.mark.parametrize(("kind", "warned"), [(Unseeded, True), (Deterministic, False), (Five, False)])
def test_a_seed_that_is_not_passed_on_is_told(kind, warned):
    class Own(kind):  # a warning is shown once for a class
        pass

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        PPO(Own, **SMALL).learn(32)
    assert any("does not seed self.np_random" in str(w.message) for w in shown) == warned


class Game(gym.Env):
    """Pictures of a game of three lives, one of which is lost in every third step."""

    observation_space = Box(0, 255, (90, 90, 3), np.uint8)

    def __init__(self, actions: gym.Space):
        self.action_space = actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((90, 90, 3), np.uint8), {"lives": 3}

    def step(self, action):
        assert action in self.action_space, f"action {action} is not in {self.action_space}"
        self.t += 1
        return np.zeros((90, 90, 3), np.uint8), 1.0, self.t == 9, False, {"lives": 3 - self.t // 3}


def test_a_lost_life_is_followed_by_an_action_of_the_space():
    settings = {**SMALL, "network": "cnn:4:8"}
    PPO(lambda: Game(Discrete(3, start=1)), preprocess="atari", **settings).learn(32)
    with pytest.raises((Fault, EnvironmentFault), match="Discrete actions"):
        PPO(lambda: Game(Box(-1, 1, (2,))), preprocess="atari", **settings)


class Wrapper(gym.Wrapper):
    def __init__(self, env):
        self.note = 1


def test_a_wrapper_that_forgets_its_constructor_is_told_so():
    with pytest.raises(Fault, match=r"super\(\).__init__\(env\)"):
        PPO(Five, wrapper=[Wrapper], **SMALL)


def test_arguments_of_make_can_be_given():
    assert PPO("MountainCar-v0", backend="gymnasium", env_kwargs={"disable_env_checker": True}, **SMALL).shape == (2,)
