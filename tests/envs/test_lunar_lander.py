"""The native LunarLander against Gymnasium's, which moves its bodies with Box2D: bitwise equal episodes, or recorded ones without Box2D."""

import hashlib
import importlib.util
import platform
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rl_lab.envs import lander_physics as p
from rl_lab.envs.lander_shapes import SCALE
from rl_lab.envs.lunar_lander import LunarLanderEnv
from rl_lab.envs.vector import NativeFault
from rl_lab.experiment import finding
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.video import rendering
from tests.envs.alike import make_native

Policy = Callable[[np.ndarray, np.random.Generator], Any]
Step = tuple[np.ndarray, float, bool]
WIND = {"enable_wind": 1.0, "wind_power": 18.0, "turbulence_power": 1.9, "gravity": -9.0}
EXACT = platform.system() == "Linux" and platform.machine() == "x86_64"
"""Where Box2D's arithmetic is known: elsewhere compilers fuse multiplications and additions, and sines may differ in the last bit."""


def wishes(o: np.ndarray) -> tuple[float, float]:
    """How much to turn to the left and how much to climb, of a controller that lands."""
    lean = np.clip(0.55 * o[0] + 1.05 * o[2], -0.38, 0.38)
    turn = 0.5 * (lean - o[4]) - o[5]
    climb = 0.5 * (0.5 * abs(o[0]) - o[1]) - 0.5 * o[3]
    if o[6] or o[7]:
        turn = 0.0
        climb = -0.5 * o[3]
    return float(turn), float(climb)


def pilot(o: np.ndarray, rng: np.random.Generator) -> int:
    turn, climb = wishes(o)
    if climb > max(abs(turn), 0.05):
        return 2
    return 3 if turn < -0.05 else 1 if turn > 0.05 else 0


def drunk(o: np.ndarray, rng: np.random.Generator) -> int:
    return pilot(o, rng) if rng.random() < 0.7 else int(rng.integers(4))


def chance(o: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.integers(4))


def smooth_pilot(o: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turn, climb = wishes(o)
    return np.clip([20 * climb - 1 + rng.normal() * 0.2, -20 * turn], -1, 1).astype(np.float32)


def smooth_chance(o: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sometimes beyond the bounds, where both environments clip."""
    return rng.uniform(-1.2, 1.2, 2).astype(np.float32)


POLICIES = {policy.__name__: policy for policy in (pilot, drunk, chance, smooth_pilot, smooth_chance)}


def is_smooth(name: str) -> bool:
    return name.startswith("smooth")


def native(name: str, count: int, **arguments: float) -> Any:
    env = "LunarLanderContinuous-v3" if is_smooth(name) else "LunarLander-v3"
    return make_native(f"rl_lab/{env}", count, AutoresetMode.SAME_STEP, **arguments)


def native_episodes(name: str, seed: int, steps: int, **arguments: float) -> Iterator[Step]:
    """Play one environment for some steps, resets included."""
    env = native(name, 1, **arguments)
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed)
    yield observations[0], 0.0, False
    for _ in range(steps):
        action = POLICIES[name](observations[0], rng)
        observations, rewards, terminated, truncated, info = env.step(np.array([action]))
        over = bool(terminated[0] or truncated[0])
        yield info["final_obs"][0] if over else observations[0], float(rewards[0]), bool(terminated[0])
        if over:
            yield observations[0], 0.0, False


def original_episodes(name: str, seed: int, steps: int, **arguments: float) -> Iterator[Step]:
    """The same in Gymnasium's environment."""
    if "enable_wind" in arguments:
        arguments["enable_wind"] = bool(arguments["enable_wind"])
    env = gym.make("LunarLander-v3", continuous=is_smooth(name), disable_env_checker=True, **arguments)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    yield observation, 0.0, False
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(POLICIES[name](observation, rng))
        yield observation, float(reward), terminated
        if terminated or truncated:
            observation, _ = env.reset()
            yield observation, 0.0, False


def assert_equal_episodes(name: str, seed: int, steps: int, **arguments: float) -> dict[float, int]:
    """Returns how many episodes ended with each last reward: -100 after a crash, 100 at rest."""
    ends: dict[float, int] = {}
    both = zip(native_episodes(name, seed, steps, **arguments), original_episodes(name, seed, steps, **arguments), strict=True)
    for mine, theirs in both:
        np.testing.assert_array_equal(mine[0], theirs[0])
        assert mine[0].dtype == theirs[0].dtype
        assert mine[1:] == theirs[1:]
        if mine[2]:
            ends[mine[1]] = ends.get(mine[1], 0) + 1
    return ends


needs_box2d = pytest.mark.skipif(not EXACT, reason="Box2D's arithmetic is compared on Linux and x86-64")


@needs_box2d
@pytest.mark.parametrize("arguments", [{}, WIND], ids=["calm", "wind"])
@pytest.mark.parametrize("name", POLICIES)
def test_episodes_are_those_of_gymnasium(name, arguments):
    pytest.importorskip("Box2D", reason="Box2D is not installed: recorded episodes are compared instead")
    ends = assert_equal_episodes(name, 5, 700, **arguments)
    if name == "pilot" and not arguments:
        assert ends.get(100.0, 0) > 0
    if "chance" in name:
        assert ends.get(-100.0, 0) > 2


@needs_box2d
@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, WIND], ids=["calm", "wind"])
@pytest.mark.parametrize("name", POLICIES)
def test_episodes_are_those_of_gymnasium_for_long(name, arguments, full):
    pytest.importorskip("Box2D", reason="Box2D is not installed: recorded episodes are compared instead")
    for seed in range(100 if full else 2):
        assert_equal_episodes(name, seed, 3000, **arguments)


# SHA-256 of 2,000 steps with seed 9 in Gymnasium 1.4 with Box2D 2.3.10, calm and with WIND: python -m tests.envs.test_lunar_lander
DIGESTS = {
    "pilot": (
        "fdf0ae42360d9b8bca0d61396de07271e53052d5426fcf0ed6b3340cd4a39e67",
        "88fc0f0b5c1302734db51e96d0c30eda91f4535435cdc4fc9e6f3f89ee2eabbf",
    ),
    "drunk": (
        "dffcecdf8dfb587317356d72f0d89d06dd3684396f0471ad18cb9bbd0027843b",
        "4fd7a2677355f0cf80f4b21d433fe1a0b219085f02d5bcb089e6c3c7e50a3833",
    ),
    "chance": (
        "86791bedc633e4e5f830d18cdade5739f171a5ba944cf3ee48dddd5b553c1a14",
        "2d40b3c01e333daa9fe79a93813f1096aa5faab55d6a60f08e2017a50a04df6c",
    ),
    "smooth_pilot": (
        "0dd3481ac9092b0dde5c4229c5811a6ac9d2e594fa32407e1f480539eeddad53",
        "3eb5a620c9c1bdde1146f9d7fd1d9b356e67c591109ec55808ced1df4cfa7ab8",
    ),
    "smooth_chance": (
        "ea280b057d89f30cba40b9e64d2523e3a7d4022a6f3f807fe84ffa04fcf4fba1",
        "0764815a61cc2ad88d75686c6e361f204c117222c555054730a1332e6f0c47c4",
    ),
}


def digest(episodes: Iterator[Step]) -> str:
    found = hashlib.sha256()
    for observation, reward, over in episodes:
        found.update(observation.tobytes() + np.array([reward, over]).tobytes())
    return found.hexdigest()


@pytest.mark.skipif(not EXACT, reason="recorded on Linux and x86-64; the statistics below hold everywhere")
@pytest.mark.parametrize("name", POLICIES)
def test_recorded_episodes_of_gymnasium(name):
    assert (digest(native_episodes(name, 9, 2000)), digest(native_episodes(name, 9, 2000, **WIND))) == DIGESTS[name]


# Mean and standard deviation of return and length of 1,000 episodes from seed 0 in Gymnasium: the same command prints them.
STATISTICS = {
    "pilot": (244.38, 92.13, 261.44, 161.04),
    "drunk": (13.96, 75.43, 209.02, 286.15),
    "chance": (-184.30, 111.05, 94.64, 53.87),
    "smooth_pilot": (281.08, 33.61, 201.41, 57.84),
    "smooth_chance": (-232.84, 134.65, 114.10, 61.14),
}


def played(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of one episode in each of ``count`` native environments."""
    env = native(name, count)
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    observations, _ = env.reset(seed=0)
    returns = np.full(count, np.nan)
    lengths = np.zeros(count)
    while np.isnan(returns).any():
        env.awake = np.isnan(returns)
        actions = np.array([POLICIES[name](o, rng) for o, rng in zip(observations, rngs, strict=True)])
        observations, *_, info = env.step(actions)
        if "episode" in info:
            ended = info["_episode"] & np.isnan(returns)
            returns[ended] = info["episode"]["r"][ended]
            lengths[ended] = info["episode"]["l"][ended]
    return returns, lengths


@pytest.mark.parametrize("name", POLICIES)
def test_returns_and_lengths_are_distributed_as_gymnasiums(name, full):
    """The means over 100 episodes, 1,000 with --full, are within 4 standard errors of those recorded over 1,000."""
    count = 1000 if full else 100
    mean, deviation, length, spread = STATISTICS[name]
    returns, lengths = played(name, count)
    errors = np.sqrt(1 / count + 1 / 1000)
    assert abs(returns.mean() - mean) < 4 * deviation * errors
    assert abs(lengths.mean() - length) < 4 * spread * errors


def test_lunar_lander_needs_no_box2d(monkeypatch):
    """Training, wrappers and pictures use the native twin if Box2D is missing."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "Box2D" else find(name, *more))
    assert choose_setup("LunarLander-v3").native is not None
    assert finding.find_environment("LunarLanderContinuous-v3").id == "rl_lab/LunarLanderContinuous-v3"
    wrapped = choose_setup("LunarLander-v3", wrapper="gymnasium.wrappers:ClipReward:max_reward=0.5")
    assert wrapped.native is None
    envs = make_environments(wrapped, 1)
    assert isinstance(envs.envs[0].unwrapped, LunarLanderEnv)
    picture = rendering(choose_setup("LunarLander-v3"))
    picture.reset(seed=0)
    assert picture.render().shape == (400, 600, 3)


# --- physics ---------------------------------------------------------------------------------------------------------------


def body(env: Any, number: int) -> np.ndarray:
    """(x, y, angle, x velocity, y velocity, spin) of a body."""
    return env.get_attr("state")[0][number * p.BODY : number * p.BODY + 6]


def test_a_free_fall_is_a_parabola():
    env = native("pilot", 1)
    env.reset(seed=3)
    before = body(env, 0)
    weights = 1 / p.INVERSE_MASS
    for t in range(1, 30):
        env.step(np.array([0]))
        momentum = sum(weights[i] * body(env, i)[4] for i in range(3))
        if t > 1:
            assert momentum - last == pytest.approx(-10 * 0.02 * weights.sum(), rel=1e-4)  # noqa: F821
        last = momentum  # noqa: F841
    assert body(env, 0)[1] != before[1]


def test_a_lander_at_rest_stands_on_the_pad_and_its_joints_hold():
    env = native("pilot", 1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        observations, _ = env.reset(seed=seed)
        over = np.zeros(1, bool)
        while not over.any():
            state = env.get_attr("state")[0]
            observations, rewards, over, *_ = env.step(np.array([pilot(observations[0], rng)]))
            leg, side = 1, p.SIDE[0]
            for leg, side in ((1, p.SIDE[0]), (2, p.SIDE[1])):
                lander = state[: p.BODY]
                other = state[leg * p.BODY : (leg + 1) * p.BODY]
                hip = [lander[0] + np.sin(lander[2]) * p.CENTRES[0, 1], lander[1] - np.cos(lander[2]) * p.CENTRES[0, 1]]
                x, y = side * 20 / SCALE, 18 / SCALE
                cos, sin = np.cos(other[2]), np.sin(other[2])
                joint = [other[0] + cos * x - sin * y, other[1] + sin * x + cos * y]
                assert np.hypot(hip[0] - joint[0], hip[1] - joint[1]) < 0.06
                angle = other[2] - lander[2] - p.REFERENCE[leg - 1]
                assert p.LOWEST[leg - 1] - 0.15 < angle < p.HIGHEST[leg - 1] + 0.15
        if rewards[0] == 100:
            final = state[: p.BODY]
            assert abs(final[2]) < 0.6


@pytest.mark.parametrize("value", [-3.0, 0.5, 1e6, 1e300, -1e300, np.nan])
def test_a_state_that_cannot_be_harms_nothing(value):
    """It ends in a fault or in finite numbers, never beyond the memory of the environment."""
    env = native("pilot", 2)
    env.reset(seed=1)
    env.set_attr("state", [np.full(env.world.state_size, value)] * 2)
    try:
        for action in range(4):
            env.step(np.full(2, action))
    except NativeFault:
        pass


if __name__ == "__main__":
    for name in POLICIES:
        calm = digest(original_episodes(name, 9, 2000))
        windy = digest(original_episodes(name, 9, 2000, **WIND))
        print(f'    "{name}": ("{calm}", "{windy}"),', flush=True)
    for name, policy in POLICIES.items():
        env = gym.make("LunarLander-v3", continuous=is_smooth(name), disable_env_checker=True)
        results = []
        for seed in range(1000):
            rng = np.random.default_rng(seed)
            observation, _ = env.reset(seed=seed)
            total, steps, over = 0.0, 0, False
            while not over:
                observation, reward, terminated, truncated, _ = env.step(policy(observation, rng))
                total, steps, over = total + float(reward), steps + 1, terminated or truncated
            results.append((total, steps))
        table = np.array(results)
        numbers = [f"{x:.2f}" for pair in zip(table.mean(0), table.std(0), strict=True) for x in pair]
        print(f'    "{name}": ({", ".join(numbers)}),', flush=True)
