"""Probe environments: each tests one ability of an agent, and its optimum is known exactly.

Each is registered as ``rl_lab/Probe<Name>-v0``. The actions are 0 and 1, except in StartsAtOne and Continuous.
"""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import below
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

# the state
SIGN = 0  # -1 or 1, drawn at the start of an episode
TIME = 1  # steps since the start of the episode
MEMORY_LENGTH = 4


@kernel
def _reset(state, stream):
    state[SIGN] = np.float64(2 * below(stream, 2) - 1)
    state[TIME] = 0.0


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


def _world(
    name: str,
    step: Callable[..., object],
    observe: Callable[..., object] = _see_nothing,
    actions: Discrete | Box = _TWO,
    observation_size: int = 1,
) -> World:
    space = Box(-1.0, 1.0, (observation_size,), np.float32)
    return World(f"Probe{name}", 2, space, actions, _reset, step, observe)


class ConstantReward(NativeEnv):
    """One step with reward 1, so every value is 1. An agent fails if the loss or the optimiser of its values is broken."""

    world = _world("ConstantReward", _constant)


class ObservedReward(NativeEnv):
    """One step whose reward equals the observation. An agent fails if gradients do not reach the input layer."""

    world = _world("ObservedReward", _observed, _see_sign)


class DelayedReward(NativeEnv):
    """Two steps, observed as 0 and 1, with reward 1 at the end, so the first value is gamma.

    An agent fails if bootstrapping or discounting is wrong.
    """

    world = _world("DelayedReward", _delayed, _see_time)


class ActionReward(NativeEnv):
    """One step with reward +1 for action 1 and -1 for action 0. An agent fails if it cannot tell the actions apart."""

    world = _world("ActionReward", _action)


class MatchReward(NativeEnv):
    """One step with reward +1 if the action matches the observed sign (1 for +1, 0 for -1), and -1 otherwise.

    An agent fails if its policy does not depend on the observation.
    """

    world = _world("MatchReward", _match, _see_sign)


class Endless(NativeEnv):
    """Reward 1 per step, truncated by a time limit of 5 steps, so the value is 1 / (1 - gamma).

    An agent fails if it treats truncation as termination.
    """

    world = _world("Endless", _endless)


class StartsAtOne(NativeEnv):
    """One step with reward +1 for action 2 and -1 for action 1. An agent fails if it ignores the start of a Discrete space."""

    world = _world("StartsAtOne", _action, actions=Discrete(2, start=1))


class Continuous(NativeEnv):
    """One step with reward -(action - sign / 2)^2 for the observed sign.

    The optimum is 0, with action sign / 2. The best constant action, 0, yields -1/4.
    """

    world = _world("Continuous", _continuous, _see_sign, Box(-1.0, 1.0, (1,), np.float32))


class Memory(NativeEnv):
    """Four steps: a sign is observed in the first, and the action in the last must match it, for a reward of +1 or -1.

    The second number of the observation is 1 in the last step. The mean return is 1 with memory and 0 without.
    """

    world = _world("Memory", _memory, _see_sign_at_first, observation_size=2)


def _vector(scalar: type[NativeEnv]) -> type[NativeVectorEnv]:
    name = f"{scalar.__name__}VectorEnv"
    return type(name, (NativeVectorEnv,), {"world": scalar.world, "__doc__": scalar.__doc__, "__module__": __name__})


PROBES = (ConstantReward, ObservedReward, DelayedReward, ActionReward, MatchReward, Endless, StartsAtOne, Continuous, Memory)
globals().update({f"{probe.__name__}VectorEnv": _vector(probe) for probe in PROBES})
