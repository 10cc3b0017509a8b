"""Episodes that a wrapper ends: where the game is over, where it continues, and how long an evaluation may last."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import ClipReward, RecordEpisodeStatistics, TimeLimit

from rl_lab.agents.dqn import DQN
from rl_lab.experiment import evaluation
from rl_lab.experiment.evaluation import evaluate

SETTINGS: dict[str, Any] = {"network": "mlp:4", "learning_starts": 10, "batch_size": 8}


class Game(gym.Env):
    """A game of ten steps, or of any number, with a reward of 2 a step."""

    def __init__(self, length: int = 10):
        self.length = length
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 2.0, self.steps == self.length, False, {}


class Stops(gym.Wrapper):
    """Ends the episode after five steps; a reset begins a new game."""

    def reset(self, **keywords):
        self.count = 0
        return self.env.reset(**keywords)

    def step(self, action):
        self.count += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or self.count == 5, truncated, info


class Lives(Stops):
    """Ends the episode after five steps or at the end of the game; a reset continues a game that is not over."""

    over = True

    def reset(self, **keywords):
        self.count = 0
        return self.env.reset(**keywords) if self.over else (np.zeros(1, np.float32), {})

    def step(self, action):
        result = super().step(action)
        self.over = self.env.unwrapped.steps == self.env.unwrapped.length
        return result


def five(env):
    return TimeLimit(env, 5)


ENDED_BY = {"a time limit": (five,), "a wrapper": (Stops,), "clipped and limited": (partial(ClipReward, max_reward=0.5), five)}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("wrappers", ENDED_BY.values(), ids=ENDED_BY)
def test_an_episode_that_a_wrapper_ends_is_over_and_scored(wrappers, vectorization):
    num_envs = 2 if vectorization == "async" else 1
    agent = DQN(Game, wrapper=wrappers, vectorization=vectorization, num_envs=num_envs, seed=1, **SETTINGS)
    seen = []
    agent.learn(40, lambda agent, metrics: seen.append(metrics.get("charts/episodic_return")))
    assert [value for value in seen if value is not None][-1] == 10.0  # the game's own rewards
    result = evaluate(agent, episodes=3)
    assert (result.return_mean, result.length_mean, result.episodes) == (10.0, 5.0, 3)


def test_a_game_that_continues_after_a_lost_life_is_one_episode():
    agent = DQN(partial(Game, 12), wrapper=Lives, seed=1, **SETTINGS).learn(30)
    result = evaluate(agent, episodes=2)
    assert (result.return_mean, result.length_mean, result.episodes) == (24.0, 12.0, 2)


def test_scores_are_kept_below_a_limit_of_the_user():
    agent = DQN(lambda: five(RecordEpisodeStatistics(Game())), seed=1, **SETTINGS).learn(30)
    assert evaluate(agent, episodes=2, most_steps=10).return_mean == 10.0


def test_a_game_without_end_is_cut_even_if_its_episodes_end(monkeypatch):
    """Each life has five steps, and the game never ends: the limit counts the steps of the game."""
    monkeypatch.setattr(evaluation, "EPISODE_LIMIT", 40)
    monkeypatch.setattr("rl_lab.rollout.stepper.EPISODE_LIMIT", 40)
    agent = DQN(partial(Game, -1), wrapper=Lives, seed=1, **SETTINGS).learn(20)
    result = evaluate(agent, episodes=1)
    assert result.cut_off == 1
    assert 40 <= result.length_mean <= 45


@pytest.mark.parametrize("limited", [lambda: TimeLimit(Game(-1), 60), partial(TimeLimit, Game(-1), 60)])
@pytest.mark.parametrize("as_object", [False, True])
def test_a_longer_time_limit_is_respected(limited, as_object, monkeypatch):
    monkeypatch.setattr("rl_lab.rollout.stepper.EPISODE_LIMIT", 40)
    agent = DQN(limited() if as_object else limited, seed=1, **SETTINGS)
    result = evaluate(agent, episodes=1)
    assert (result.length_mean, result.cut_off) == (60.0, 0)


def test_the_time_is_observed_if_a_wrapper_limits_it():
    agent = DQN(Game, wrapper=five, time_aware=True, seed=1, **SETTINGS)
    assert agent.shape == (2,)
