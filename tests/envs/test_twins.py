"""Native twins give the observations, rewards and flags of Gymnasium's environments, for equal seeds and actions."""

import gymnasium as gym
import numpy as np
import pytest

from rl_lab import envs
from tests.envs.alike import assert_observations, make_native


def differences(name: str, seeds: int, steps: int) -> int:
    """Play seeds 0, 1, ... for ``steps`` steps, resets included; returns the number of ended episodes. Asserts equality in each step."""
    native = make_native(f"rl_lab/{name}", seeds)
    original = gym.make(name, disable_env_checker=True)
    first, _ = native.reset(seed=0)
    rng = np.random.default_rng(1)
    space = native.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        actions = rng.integers(0, space.n, (steps, seeds))
    else:  # a fifth of the actions is beyond the limits, where the original clips
        actions = rng.uniform(1.25 * space.low, 1.25 * space.high, (steps, seeds, *space.shape)).astype(np.float32)
    course = [native.step(batch) for batch in actions]
    states = native.get_attr("state")
    observations = np.array([first, *[step[0] for step in course]])
    rewards, terminated, truncated = (np.array([step[k] for step in course]) for k in (1, 2, 3))
    episodes = 0
    for i in range(seeds):
        seen, begins = [original.reset(seed=i)[0]], [0]
        gained = np.zeros((steps, 3))
        over = False
        for t in range(steps):
            if over:
                seen.append(original.reset()[0])
                begins.append(t + 1)
                over = False
                continue
            observation, reward, done, cut, _ = original.step(actions[t, i])
            seen.append(observation)
            gained[t] = reward, done, cut
            over = done or cut
        assert_observations(name, observations[:, i], np.array(seen), np.array(begins))
        state = np.array(original.unwrapped.state, np.float64)  # float64, finer than the float32 observation
        np.testing.assert_array_equal(states[i][: len(state)], state)
        np.testing.assert_array_equal(rewards[:, i], gained[:, 0])
        np.testing.assert_array_equal(terminated[:, i], gained[:, 1] != 0)
        np.testing.assert_array_equal(truncated[:, i], gained[:, 2] != 0)
        episodes += len(begins) - 1
    return episodes


@pytest.mark.parametrize("name", envs.TWINS)
def test_a_twin_agrees(name):
    differences(name, 20, 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", envs.TWINS)
def test_a_twin_agrees_for_long(name, full):
    """A long comparison; with --full 1,000 seeds of 1,000 steps each."""
    assert differences(name, *((1000, 1000) if full else (20, 1050))) > 0


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("CartPole-v1", {"gravity": 3.7, "force_mag": 12.0, "tau": 0.01}),
        ("Pendulum-v1", {"g": 3.7}),
        ("MountainCar-v0", {"goal_velocity": 0.01}),
    ],
)
def test_attributes_change_the_same_physics(name, attributes):
    native = make_native(f"rl_lab/{name}", 2)
    original = gym.make_vec(name, num_envs=2, vectorization_mode="sync")
    for attribute, value in attributes.items():
        native.set_attr(attribute, [value, value / 2])
        original.set_attr(attribute, [value, value / 2])
        assert native.get_attr(attribute) == original.get_attr(attribute)
    np.testing.assert_array_equal(native.reset(seed=1)[0], original.reset(seed=1)[0])
    original.action_space.seed(1)
    for _ in range(100):
        actions = original.action_space.sample()
        for mine, theirs in zip(native.step(actions)[:4], original.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CartPole-v1", {"low": -0.2, "high": 0.1}),
        ("Acrobot-v1", {"low": -0.2, "high": 0.3}),
        ("MountainCar-v0", {"low": -0.9, "high": -0.7}),
        ("MountainCarContinuous-v0", {"low": -0.9, "high": -0.7}),
        ("Pendulum-v1", {"x_init": 0.5, "y_init": 0.25}),
    ],
)
def test_reset_options_are_those_of_the_original(name, options):
    native = make_native(f"rl_lab/{name}", 2)
    original = gym.make_vec(name, num_envs=2, vectorization_mode="sync")
    assert_observations(name, native.reset(seed=1, options=options)[0], original.reset(seed=1, options=options)[0], slice(None))
    assert_observations(name, native.reset()[0], original.reset()[0], slice(None))


def test_sutton_and_barto_reward():
    native = make_native("rl_lab/CartPole-v1", 2, sutton_barto_reward=1.0)
    original = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", sutton_barto_reward=True)
    native.reset(seed=1)
    original.reset(seed=1)
    for _ in range(60):
        mine, theirs = native.step(np.array([1, 0])), original.step(np.array([1, 0]))
        np.testing.assert_array_equal(mine[1], theirs[1])
