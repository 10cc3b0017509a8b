"""Probe environments: each asks one question of an agent, and its answer is known exactly.

All are registered as ``rl_lab/Probe<Name>-v0``. In each but StartsAtOne, Continuous and Memory the actions are 0 and 1.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

SIGN, TIME = 0, 1  # the state: -1 or 1, drawn for each episode, and the steps that it is old
MEMORY_LENGTH = 4


@kernel
def _reset(state, stream):
    state[SIGN], state[TIME] = np.float64(2 * below(stream, 2) - 1), 0.0


@kernel
def _see_nothing(state, observation):
    observation[0] = 0.0


@kernel
def _see_sign(state, observation):
    observation[0] = np.float32(state[SIGN])


@kernel
def _see_time(state, observation):
    observation[0] = np.float32(min(state[TIME], 1.0))


@kernel
def _see_sign_at_first(state, observation):
    observation[0] = np.float32(state[SIGN]) if state[TIME] == 0.0 else np.float32(0.0)
    observation[1] = np.float32(1.0) if state[TIME] == MEMORY_LENGTH - 1 else np.float32(0.0)


@kernel
def _constant(state, action, stream):
    return 1.0, True


@kernel
def _observed(state, action, stream):
    return state[SIGN], True


@kernel
def _delayed(state, action, stream):
    state[TIME] += 1.0
    return (1.0 if state[TIME] == 2.0 else 0.0), state[TIME] == 2.0


@kernel
def _action(state, action, stream):
    return (1.0 if action[0] == 1.0 else -1.0), True


@kernel
def _match(state, action, stream):
    return (1.0 if (action[0] == 1.0) == (state[SIGN] > 0.0) else -1.0), True


@kernel
def _endless(state, action, stream):
    return 1.0, False


@kernel
def _continuous(state, action, stream):
    miss = np.float64(action[0]) - state[SIGN] / 2.0
    return -miss * miss, True


@kernel
def _memory(state, action, stream):
    state[TIME] += 1.0
    if state[TIME] < MEMORY_LENGTH:
        return 0.0, False
    return (1.0 if (action[0] == 1.0) == (state[SIGN] > 0.0) else -1.0), True


_TWO = Discrete(2)


def _world(name: str, step, observe=_see_nothing, actions: Space = _TWO, observation_size: int = 1) -> World:
    space = Box(-1.0, 1.0, (observation_size,), np.float32)
    return World(f"Probe{name}", 2, space, actions, _reset, step, observe)  # type: ignore[arg-type]


class ConstantReward(NativeEnv):
    """One step, reward 1: every value is 1. Fails if the value's loss or optimiser is broken."""

    world = _world("ConstantReward", _constant)


class ObservedReward(NativeEnv):
    """One step, the reward is what is observed. Fails if gradients do not reach the input layer."""

    world = _world("ObservedReward", _observed, _see_sign)


class DelayedReward(NativeEnv):
    """Two steps, reward 1 at the end, 0 and then 1 observed: the first value is gamma. Fails if bootstrapping or discounting is wrong."""

    world = _world("DelayedReward", _delayed, _see_time)


class ActionReward(NativeEnv):
    """One step, +1 for action 1, -1 for action 0. Fails if actions are not told apart."""

    world = _world("ActionReward", _action)


class MatchReward(NativeEnv):
    """One step, +1 if the action matches the sign that is observed, else -1. Fails if policy and observation are not joined."""

    world = _world("MatchReward", _match, _see_sign)


class Endless(NativeEnv):
    """Reward 1 in every step, cut off by a time limit of 5: the value is 1 / (1 - gamma). Fails if truncation is taken for termination."""

    world = _world("Endless", _endless)


class StartsAtOne(NativeEnv):
    """Actions 1 and 2, one step, +1 for 2 and -1 for 1. Fails if the start of a Discrete space is ignored."""

    world = _world("StartsAtOne", _action, actions=Discrete(2, start=1))


class Continuous(NativeEnv):
    """One step, reward -(action - sign / 2)^2 for the sign that is observed: at best 0, by half the sign; 0 in answer to both: -1/4."""

    world = _world("Continuous", _continuous, _see_sign, Box(-1.0, 1.0, (1,), np.float32))


class Memory(NativeEnv):
    """A sign is observed, then nothing, and after four moments an action has to match it: +1 or -1.

    The second number of the observation is 1 in the moment that counts. Without memory the mean return is 0, with it 1.
    """

    world = _world("Memory", _memory, _see_sign_at_first, observation_size=2)


def _vector(scalar: type[NativeEnv]) -> type[NativeVectorEnv]:
    name = f"{scalar.__name__}VectorEnv"
    return type(name, (NativeVectorEnv,), {"world": scalar.world, "__doc__": scalar.__doc__, "__module__": __name__})


PROBES = (ConstantReward, ObservedReward, DelayedReward, ActionReward, MatchReward, Endless, StartsAtOne, Continuous, Memory)
globals().update({f"{probe.__name__}VectorEnv": _vector(probe) for probe in PROBES})
