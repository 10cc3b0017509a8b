"""Compare a native vector environment with Gymnasium's SyncVectorEnv of scalar environments, step by step."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics

from rl_lab import envs
from rl_lab.envs.world import World

NAMES = [f"rl_lab/{name}" for name in (*envs.TWINS, *envs.WORLDS, *[f"Probe{probe}-v0" for probe in envs.PROBES])]
OWN = [name for name in NAMES if name.removeprefix("rl_lab/") not in envs.TWINS]
MODES = list(AutoresetMode)


def world_of(name: str) -> World:
    """The world of a registered environment, without compiling it."""
    entry: Any = gym.spec(name).vector_entry_point
    return load_env_creator(entry).world  # type: ignore[attr-defined]


def make_native(name: str, num_envs: int = 3, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **keywords: Any) -> Any:
    return gym.make_vec(name, num_envs=num_envs, autoreset_mode=mode, **keywords)


def make_scalars(
    name: str,
    num_envs: int = 3,
    mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    wrap: Callable[[gym.Env], gym.Env] = lambda env: env,
    **keywords: Any,
) -> SyncVectorEnv:
    def make() -> gym.Env:
        return RecordEpisodeStatistics(wrap(gym.make(name, disable_env_checker=True, **keywords)))

    return SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


def assert_observations(name: str, native: np.ndarray, expected: np.ndarray, begins: Any = slice(0, 0)) -> None:
    """Assert bitwise equal observations; the first observation of an episode of Acrobot may differ in the last bit."""
    assert native.dtype == expected.dtype
    assert native.shape == expected.shape
    if "Acrobot" in name:
        np.testing.assert_array_max_ulp(native[begins], expected[begins], maxulp=1)
        native = native.copy()
        native[begins] = expected[begins]
    np.testing.assert_array_equal(native, expected)


def assert_infos(name: str, native: dict, expected: dict, mode: AutoresetMode) -> None:
    """Assert that final observations agree, and that episode statistics agree with the statistics of the scalar wrapper."""
    if mode == AutoresetMode.SAME_STEP:
        assert ("final_obs" in native) == ("final_obs" in expected)
        assert ("final_info" in native) == ("final_info" in expected)
        if "final_obs" in expected:
            for key in ("_final_obs", "_final_info"):
                np.testing.assert_array_equal(native[key], expected[key])
            for mine, theirs in zip(native["final_obs"], expected["final_obs"], strict=True):
                assert (mine is None) == (theirs is None)
                if mine is not None:
                    assert_observations(name, mine, theirs)
        if "final_info" in expected:
            for key in ("r", "l"):
                np.testing.assert_array_equal(native["final_info"]["episode"][key], native["episode"][key])
        expected = expected.get("final_info", {})
    assert ("episode" in native) == ("episode" in expected)
    if "episode" in expected:
        np.testing.assert_array_equal(native["_episode"], expected["_episode"])
        for key in ("r", "l"):
            np.testing.assert_array_equal(native["episode"][key], expected["episode"][key])
        times = native["episode"]["t"]
        assert ((times > 0) == native["_episode"]).all()


def assert_alike(name: str, native: Any, scalars: Any, steps: int, seed: int = 11) -> int:
    """Step both with the same random actions; returns how many episodes ended."""
    mode, n = native.autoreset_mode, native.num_envs
    assert native.single_observation_space == scalars.single_observation_space
    assert native.observation_space == scalars.observation_space
    assert native.single_action_space == scalars.single_action_space
    assert native.action_space == scalars.action_space
    first, info = native.reset(seed=seed)
    expected, _ = scalars.reset(seed=seed)
    assert info == {}
    assert_observations(name, first, expected, slice(None))
    scalars.action_space.seed(seed)
    over = np.zeros(n, bool)
    episodes = 0
    for _ in range(steps):
        actions = scalars.action_space.sample()
        mine, theirs = native.step(actions), scalars.step(actions)
        assert native.observation_space.contains(mine[0])
        for ours, value in zip(mine[1:4], theirs[1:4], strict=True):
            assert ours.dtype == value.dtype
            np.testing.assert_array_equal(ours, value)
        ended = mine[2] | mine[3]
        begins = over if mode == AutoresetMode.NEXT_STEP else ended if mode == AutoresetMode.SAME_STEP else np.zeros(n, bool)
        assert_observations(name, mine[0], theirs[0], begins)
        assert_infos(name, mine[4], theirs[4], mode)
        episodes += int(ended.sum())
        over = ended
        if mode == AutoresetMode.DISABLED and ended.any():
            again, _ = native.reset(options={"reset_mask": ended.copy()})
            expected, _ = scalars.reset(options={"reset_mask": ended.copy()})
            assert_observations(name, again, expected, ended)
    return episodes
