"""MinAtar's games: bitwise equal to the package minatar, or, where it is not installed, to digests of its courses."""

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rl_lab.agents.pqn import PQN
from rl_lab.envs import stream as s
from rl_lab.experiment import finding, suggestions
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.faults import Fault
from tests.envs.alike import make_native

GAMES = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
VERSIONS = [f"{game}-v{version}" for game in GAMES for version in (0, 1)]
ACTIONS = {"Asterix-v1": 5, "Breakout-v1": 3, "Freeway-v1": 3, "Seaquest-v1": 6, "SpaceInvaders-v1": 4}
Step = tuple[np.ndarray, float, bool]

# SHA-256 of 1,500 steps of `immortal` with seed 7 in minatar 1.0.15: python -m tests.envs.test_minatar prints them.
DIGESTS = {
    "Asterix-v0": "64b4d52e7eb03d7853a1d32bd331fd23c675150f225bdab70a87ebf4d5bb7040",
    "Asterix-v1": "32c72c1191a330b55154db5b7b7c087c83e1d7d8555fb242171c82434111e100",
    "Breakout-v0": "7b206dc8dadec67c5247cf42bdf79453d2c9c60419655e4d2b4bf02414f487ac",
    "Breakout-v1": "ffad6f201c68fa12394f84ddc25d8f56c054ffda0fbeb265f3d1dbb0a6da3706",
    "Freeway-v0": "2096736e4a332ea88d8c740285450ca9492501d4ca7bfb00845798104b868965",
    "Freeway-v1": "7757e587fa88ec5c3fa8f82f43b5a55dde5c2af544a4a4b0ceb589961cca09ec",
    "Seaquest-v0": "9a5d0dea33169180e5226b9609b7147082fb0e6bbde82597ef88231e5f0af265",
    "Seaquest-v1": "9a5d0dea33169180e5226b9609b7147082fb0e6bbde82597ef88231e5f0af265",
    "SpaceInvaders-v0": "6f4f28f6f62bfa8a37ece2676004c1cbf13caf0e27f0ad8ae919221665e87677",
    "SpaceInvaders-v1": "6b136d780be40fe8b1f8c985ee319619656b43202f557f65aa38fcb9e4378916",
}


def original(name: str) -> Any:
    """An environment of the package, which registers its ids when it is asked to."""
    finding.find_environment(f"MinAtar/{name}")
    return gym.make(f"MinAtar/{name}", disable_env_checker=True).unwrapped


def actions_for(name: str, choices: int, seed: int, steps: int) -> np.ndarray:
    """Random actions; in Freeway mostly upwards, which leads across."""
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, choices, steps)
    if "Freeway" in name:
        actions[rng.random(steps) < 0.8] = 2 if choices == 6 else 1
    return actions


def follow_the_ball(observation: np.ndarray, action: int) -> int:
    """Move the paddle of Breakout below the ball, three times out of four: so walls are cleared."""
    paddle = observation[9, :, 0].argmax()
    ball = observation[:, :, 1].any(0).argmax()
    return action if action == 2 else 1 if ball < paddle else 2 if ball > paddle else 0


def native_course(name: str, seed: int, steps: int) -> Iterator[Step]:
    """Play on after the end of episodes, except in Breakout, where the ball is then lost: so difficult states are reached."""
    env = make_native(f"rl_lab/MinAtar-{name}", 1, gym.vector.AutoresetMode.DISABLED)
    observations, _ = env.reset(seed=seed)
    yield observations[0], 0.0, False
    for action in actions_for(name, int(env.single_action_space.n), seed, steps):
        if name == "Breakout-v1":
            action = follow_the_ball(observations[0], action)
        observations, rewards, terminated, _, _ = env.step(np.array([action]))
        yield observations[0], float(rewards[0]), bool(terminated[0])
        if terminated[0] and "Breakout" in name:
            observations, _ = env.reset()
            yield observations[0], 0.0, False
        env.ended[:] = False


def original_course(name: str, seed: int, steps: int) -> Iterator[Step]:
    """The same in the package's environment."""
    env = original(name)
    observation, _ = env.reset(seed=seed)
    yield observation, 0.0, False
    for action in actions_for(name, int(env.action_space.n), seed, steps):
        if name == "Breakout-v1":
            action = follow_the_ball(observation, action)
        observation, reward, terminated, _, _ = env.step(action)
        yield observation, float(reward), bool(terminated)
        if terminated and "Breakout" in name:
            observation, _ = env.reset()
            yield observation, 0.0, False
        env.game.env.terminal = False


def digest(course: Iterator[Step]) -> str:
    found = hashlib.sha256()
    for observation, reward, over in course:
        found.update(np.packbits(observation).tobytes() + np.array([reward, over]).tobytes())
    return found.hexdigest()


def assert_equal_courses(name: str, seed: int, steps: int) -> tuple[float, int]:
    """Returns the sum of rewards and the number of terminations."""
    total, ends = 0.0, 0
    for mine, theirs in zip(native_course(name, seed, steps), original_course(name, seed, steps), strict=True):
        assert mine[0].dtype == theirs[0].dtype == np.bool_
        np.testing.assert_array_equal(mine[0], theirs[0])
        assert mine[1:] == theirs[1:]
        total += mine[1]
        ends += mine[2]
    return total, ends


@pytest.mark.parametrize("name", VERSIONS)
def test_a_game_is_that_of_the_package(name):
    pytest.importorskip("minatar", reason="minatar is not installed: its courses are compared by their digests only")
    env = original(name)
    mine = make_native(f"rl_lab/MinAtar-{name}", 1)
    assert mine.single_observation_space == env.observation_space
    assert mine.single_action_space == env.action_space
    total, ends = assert_equal_courses(name, 3, 700)
    assert total > 0 or name == "Freeway-v0"
    assert ends > 0 or "Freeway" in name


@pytest.mark.slow
@pytest.mark.parametrize("name", VERSIONS)
def test_a_game_is_that_of_the_package_for_long(name, full):
    pytest.importorskip("minatar", reason="minatar is not installed: its courses are compared by their digests only")
    for seed in range(50 if full else 3):
        assert_equal_courses(name, seed, 5000)


@pytest.mark.parametrize("name", VERSIONS)
def test_digests_of_the_package(name):
    assert digest(native_course(name, 7, 1500)) == DIGESTS[name]


def test_the_twister_draws_the_numbers_of_numpy():
    for seed in (0, 1, 4357, 2**32 - 1):
        words = s.twister_words(np.random.default_rng(1), seed)
        generator = np.random.RandomState(seed)
        np.testing.assert_array_equal(
            [s.twister_bits(words) for _ in range(1500)], generator.randint(0, 2**32, 1500, np.uint32)
        )
        for count in (1, 2, 5, 8, 100):
            assert [s.twister_below(words, count) for _ in range(50)] == [generator.randint(count) for _ in range(50)]
        np.testing.assert_array_equal([s.twister_uniform(words) for _ in range(700)], generator.rand(700))
        np.testing.assert_array_equal(words[:4], s.stream_words(np.random.default_rng(1)))
    large = [s.twister_words(np.random.default_rng(1), seed)[4:] for seed in (0, 2**32, 2**33)]
    assert len({part.tobytes() for part in large}) == 3


def test_sticky_actions_and_difficulty_are_parameters():
    calm = make_native("rl_lab/MinAtar-Breakout-v1", 50, sticky_action_prob=0.0)
    calm.reset(seed=1)
    calm.step(np.full(50, 2))
    assert (calm.step(np.full(50, 1))[0][:, 9, :, 0].argmax(1) == 4).all()
    frozen = make_native("rl_lab/MinAtar-Breakout-v1", 50, sticky_action_prob=1.0)
    frozen.reset(seed=1)
    frozen.step(np.full(50, 2))
    assert (frozen.step(np.full(50, 1))[0][:, 9, :, 0].argmax(1) == 4).all()
    easy = make_native("rl_lab/MinAtar-Asterix-v1", 1, gym.vector.AutoresetMode.DISABLED, difficulty_ramping=0.0)
    easy.reset(seed=1)
    for _ in range(2000):
        easy.step(np.zeros(1, np.int64))
        easy.ended[:] = False
    assert easy.get_attr("state")[0][4] == 10.0  # steps between things that appear


@pytest.mark.parametrize("name", VERSIONS[::2])
@pytest.mark.parametrize("value", [-3.0, 7.5, 1e6, 1e300, -1e300, np.nan])
def test_a_state_that_cannot_be_harms_nothing(name, value):
    env = make_native(f"rl_lab/MinAtar-{name}", 4)
    env.reset(seed=1)
    env.set_attr("state", [np.full(env.world.state_size, value)] * 4)
    for action in range(6):
        observations, *_ = env.step(np.full(4, action))
        assert env.observation_space.contains(observations)


def test_ids_work_without_the_package(monkeypatch):
    monkeypatch.setattr(suggestions.importlib.util, "find_spec", lambda name: None)
    for name in VERSIONS:
        monkeypatch.delitem(gym.registry, f"MinAtar/{name}", raising=False)
    setup = choose_setup("MinAtar/Breakout-v1")
    assert setup.native is not None
    assert setup.describe()["env_id"] == "MinAtar/Breakout-v1"
    envs = make_environments(setup, 3)
    assert envs.single_observation_space.shape == (10, 10, 4)
    assert finding.find_environment("MinAtar/Asterix-v0").id == "rl_lab/MinAtar-Asterix-v0"
    assert choose_setup("MinAtar/Seaquest-v1", preprocess="minatar").native is not None
    wrapped = choose_setup("MinAtar/Freeway-v1", wrapper="gymnasium.wrappers:ClipReward:max_reward=0.5")
    assert wrapped.native is None
    assert make_environments(wrapped, 1).single_observation_space.dtype == np.bool_
    with pytest.raises(Fault, match="pip install minatar"):
        choose_setup("MinAtar/Pong-v1")


@pytest.mark.parametrize("game", GAMES)
def test_the_channels_are_known_even_where_a_picture_has_ten(game):
    agent = PQN(f"MinAtar/{game}-v1", preset=False, num_envs=1, num_steps=4, batch_size=4, network="cnn:2:4")
    assert agent.observed.channels == "last"


def test_the_packages_environment_is_one_setting_away():
    pytest.importorskip("minatar", reason="minatar is not installed")
    envs = make_environments(choose_setup("MinAtar/Asterix-v1", "gymnasium"), 2)
    twins = make_environments(choose_setup("MinAtar/Asterix-v1"), 2)
    assert type(envs.envs[0].unwrapped).__module__ == "minatar.gym"
    assert envs.single_observation_space == twins.single_observation_space
    np.testing.assert_array_equal(twins.reset(seed=4)[0], envs.reset(seed=4)[0])
    for actions in np.random.default_rng(0).integers(0, 5, (200, 2)):
        np.testing.assert_array_equal(twins.step(actions)[0], envs.step(actions)[0])


def test_copies_have_their_own_twister():
    env = gym.make("rl_lab/MinAtar-Freeway-v1", disable_env_checker=True).unwrapped
    env.reset(seed=1)
    other = copy.deepcopy(env)
    env.reset()
    first = env.step(0)[0]
    other.reset()
    np.testing.assert_array_equal(other.step(0)[0], first)


if __name__ == "__main__":
    for name in VERSIONS:
        print(f'    "{name}": "{digest(original_course(name, 7, 1500))}",')
