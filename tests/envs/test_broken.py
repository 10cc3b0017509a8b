"""The error for a number that is not finite names the world, the environment's index, its seed and the step."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.vector import NativeFault, NativeVectorEnv
from rl_lab.envs.world import World, kernel

AGE, REWARD, SEEN, START, HUGE = range(5)


@kernel
def reset(state, stream):
    state[AGE] = 0.0


@kernel
def step(state, action, stream):
    state[AGE] += 1.0
    reward = 1e39 if state[AGE] == state[HUGE] else 1.0
    return (np.nan if state[AGE] == state[REWARD] else reward), state[AGE] == 6.0


@kernel
def observe(state, observation):
    observation[0] = np.float32(0.0)
    if state[AGE] == state[SEEN]:
        observation[0] = np.float32(np.inf)
    if state[AGE] == 0.0 and state[START] != 0.0:
        observation[0] = np.float32(np.nan)


class BrokenVectorEnv(NativeVectorEnv):
    world = World(
        "Broken",
        1,
        Box(-1.0, 1.0, (1,), np.float32),
        Discrete(2),
        reset,
        step,
        observe,
        parameters={"reward": -1.0, "seen": -1.0, "start": 0.0, "huge": -1.0},
    )


class BrokenEnv(NativeEnv):
    world = BrokenVectorEnv.world


def run(parameter: str, value: float, mode: str = "NextStep") -> None:
    env = BrokenVectorEnv(4, autoreset_mode=mode)
    env.reset(seed=30)
    env.set_attr(parameter, [0.0, 0.0, value, 0.0] if parameter == "start" else [-1.0, -1.0, value, -1.0])
    for _ in range(8):
        env.step(np.zeros(4, np.int64))


def test_a_sound_world_runs():
    run("reward", -1.0)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize(
    ("parameter", "value", "step"), [("reward", 3.0, 3), ("huge", 3.0, 3), ("seen", 2.0, 2), ("start", 1.0, 0)]
)
def test_the_culprit_is_named(parameter, value, step, mode):
    message = rf"environment 2 of Broken \(seed 32\) produced a number that is not finite at step {step} of its episode"
    with pytest.raises(NativeFault, match=message):
        run(parameter, value, mode)


def test_a_reset_can_fail_too():
    with pytest.raises(NativeFault, match=r"environment 0 of Broken \(seed 5\) .* at step 0"):
        BrokenVectorEnv(2, start=1.0).reset(seed=5)


def test_a_scalar_world_fails_the_same_way():
    env = BrokenEnv(reward=2.0)
    env.reset(seed=9)
    env.step(0)
    with pytest.raises(NativeFault, match=r"environment 0 of Broken \(seed 9\) .* at step 2"):
        env.step(0)


def test_two_worlds_of_one_name_are_refused():
    class Other(NativeVectorEnv):
        world = World("Broken", 1, Box(-1.0, 1.0, (1,), np.float32), Discrete(3), reset, step, observe)

    BrokenVectorEnv(1)
    with pytest.raises(ValueError, match="two worlds have the name 'Broken'"):
        Other(1)
