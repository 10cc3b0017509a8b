"""Small stand-ins for the environments of users: every space, the habits that are accepted, and the mistakes that are named."""

import random
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

LENGTH = 7


class World(gym.Env):
    """Episodes of 7 steps with a reward of 1 for action 1. Subclasses change what is observed and returned."""

    observation_space: gym.Space = Box(-1.0, 1.0, (3,), np.float32)
    action_space: gym.Space = Discrete(3)

    def observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def tell(self) -> Any:
        return {}

    def judge(self, action: Any) -> Any:
        return float(action == 1)

    def ends(self) -> tuple[Any, Any]:
        return self.t >= LENGTH, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), self.tell()

    def step(self, action):
        self.t += 1
        return self.observe(), self.judge(action), *self.ends(), self.tell()


def world(**parts: Any) -> type[World]:
    """A `World` with other methods or spaces."""
    return type("World", (World,), parts)


# --- observation spaces ------------------------------------------------------------------------------------------------


def observing(space: gym.Space, shape: tuple[int, ...] | None = None) -> tuple[type[World], tuple[int, ...]]:
    """A world that observes samples of a space, and the shape of the observations that an agent sees."""

    def observe(self: World) -> Any:
        space.seed(int(self.np_random.integers(2**31)))
        return space.sample()

    return world(observation_space=space, observe=observe), shape or space.shape


OBSERVATIONS: dict[str, tuple[type[World], tuple[int, ...]]] = {
    **{
        f"Box of {np.dtype(kind)}": observing(Box(0, 1, (2,), kind))
        for kind in (np.float16, np.float64, np.int8, np.int64, bool)
    },
    "Box of rank 0": observing(Box(-1, 1, (), np.float32), (1,)),
    "Box of rank 3": observing(Box(-1, 1, (2, 3, 4), np.float32)),
    "Box without bounds": observing(Box(-np.inf, np.inf, (2,), np.float64)),
    "Discrete": observing(Discrete(4, start=3), (4,)),
    "MultiDiscrete": observing(MultiDiscrete([2, 3], start=[1, -4]), (5,)),
    "MultiDiscrete of rank 2": observing(MultiDiscrete([[2, 3], [2, 2]]), (9,)),
    "MultiBinary": observing(MultiBinary(3), (3,)),
    "MultiBinary of rank 2": observing(MultiBinary((2, 2)), (4,)),
    "Dict": observing(Dict({"a": Box(0, 1, (2, 2), np.uint8), "b": Discrete(3)}), (7,)),
    "Tuple": observing(Tuple((Box(0, 1, (2,), np.float64), MultiBinary(2))), (4,)),
    "nested": observing(Dict({"a": Tuple((Discrete(2), Dict({"c": Box(0, 1, (1,))}))), "b": MultiDiscrete([2, 2])}), (7,)),
    "Dict with a Text": observing(
        Dict({"mission": Text(5), "a": Box(0, 1, (2,)), "deep": Tuple((Text(3), Discrete(2)))}), (4,)
    ),
    "Dict of one Box": observing(Dict({"a": Box(0, 1, (2, 3))}), (2, 3)),
}

NO_NUMBERS = {
    "Text": Text(5),
    "Sequence": Sequence(Discrete(2)),
    "Dict": Dict({"mission": Text(5)}),
}
"""Observation spaces without numbers, which are refused by name."""

# --- habits ------------------------------------------------------------------------------------------------------------


class Reused(World):
    """Writes each observation into the same array."""

    def observe(self):
        if self.t == 0:
            self.seen = getattr(self, "seen", np.zeros(3, np.float32))
            self.seen[:] = 0
        self.seen[:] += 0.1
        return self.seen


class Copied(Reused):
    def observe(self):
        return super().observe().copy()


class GlobalRandom(World):
    def observe(self):
        return np.random.uniform(-1, 1, 3).astype(np.float32)  # noqa: NPY002


class PythonRandom(World):
    def judge(self, action):
        return random.random()


class ClosesBadly(World):
    def close(self):
        raise OSError("the window is gone")


class MaskMethod(World):
    """The habit of maskable agents elsewhere."""

    def action_masks(self):
        return np.arange(3) != self.t % 3

    def judge(self, action):
        assert action != (self.t - 1) % 3, "a forbidden action"
        return 1.0


class MaskInDict(MaskMethod):
    observation_space = Dict({"action_mask": Box(0, 1, (3,), np.int8), "observation": Box(-1.0, 1.0, (3,), np.float32)})
    action_masks = None

    def observe(self):
        return {"observation": World.observe(self), "action_mask": (np.arange(3) != self.t % 3).astype(np.int8)}


class MaskOfLists(MaskMethod):
    action_masks = None

    def tell(self):
        return {"action_mask": [int(i != self.t % 3) for i in range(3)], "action_mask_text": "two of three"}


HABITS: dict[str, tuple[Callable[[], gym.Env], str | None]] = {
    "float64 observations": (world(observe=lambda self: np.zeros(3)), "dtype float64, but its space has float32"),
    "integer observations": (world(observe=lambda self: np.zeros(3, int)), "dtype int64"),
    "observations that are lists": (
        world(observe=lambda self: [0.0, 0.5, 1]),
        "is a list: return a NumPy array of dtype float32",
    ),
    "observations that are tuples": (world(observe=lambda self: (0.0, 0.5, 1)), "is a tuple"),
    "one array for all observations": (Reused, None),
    "a number observed as an array": (world(observation_space=Discrete(3), observe=lambda self: np.array(2)), None),
    "choices observed as a list": (world(observation_space=MultiBinary(2), observe=lambda self: [0, 1]), "is a list"),
    "a space that is too narrow": (
        world(observe=lambda self: np.array([0, 0, 2.5], np.float32)),
        r"observation\[2\] is 2.5, outside of \[-1, 1\] in its space",
    ),
    "integer rewards": (world(judge=lambda self, action: int(action)), None),
    "NumPy rewards": (world(judge=lambda self, action: np.float32(0.5)), None),
    "rewards that are bools": (world(judge=lambda self, action: action == 1), None),
    "rewards that are arrays": (world(judge=lambda self, action: np.array([0.5])), r"a reward of shape \(1,\): return a float"),
    "rewards that are lists": (world(judge=lambda self, action: [0.5]), r"a reward of shape \(1,\)"),
    "rewards that are fractions": (
        world(judge=lambda self, action: Fraction(1, 2)),
        "a reward of type Fraction: return a float",
    ),
    "rewards that are decimals": (world(judge=lambda self, action: Decimal("0.5")), "a reward of type Decimal"),
    "rewards in arrays of objects": (world(judge=lambda self, action: np.array(0.5, object)), "a reward of type float"),
    "flags of NumPy": (world(ends=lambda self: (np.bool_(self.t >= LENGTH), np.bool_(False))), None),
    "flags that are numbers": (
        world(ends=lambda self: (int(self.t >= LENGTH), 0)),
        "int as terminated or truncated: return True or False",
    ),
    "flags that are arrays": (
        world(ends=lambda self: (np.array([self.t >= LENGTH]), False)),
        "ndarray as terminated or truncated",
    ),
    "a flag that is None": (world(ends=lambda self: (self.t >= LENGTH, None)), "NoneType as terminated or truncated"),
    "no info": (world(tell=lambda self: None), "info is None: return a dict"),
    "infos that grow": (world(tell=lambda self: {"path": np.zeros(self.t + 1), "best": None if self.t % 2 else 1.5}), None),
    "infos of all kinds": (
        world(tell=lambda self: {"a": object(), "b": {"c": {1}, "d": "text"}, 3: [1, [2]], "e": "text" if self.t % 2 else 2}),
        None,
    ),
    "an info that is another mapping": (world(tell=lambda self: MappingProxyType({"speed": 1.0})), None),
    "names that begin with an underscore": (world(tell=lambda self: {"speed": 1, "_speed": 3, "_episode": 1.5}), None),
    "NumPy's global random numbers": (GlobalRandom, "global np.random"),
    "Python's global random numbers": (PythonRandom, "global random,"),
    "a mask by a method": (MaskMethod, None),
    "a mask in the observation": (MaskInDict, None),
    "a mask that is a list": (MaskOfLists, None),
    "a text beside numbers": (OBSERVATIONS["Dict with a Text"][0], r"observation\['mission'\] \(Text\)"),
}
"""Worlds whose habits are accepted, with a part of the warning that names what to mend."""

# --- mistakes ----------------------------------------------------------------------------------------------------------


class Raises(World):
    def judge(self, action):
        if self.t == 3:
            raise KeyError("lost")
        return 0.0


class RaisesInReset(World):
    def reset(self, *, seed=None, options=None):
        return {}["start"]


class LeavesTheProgram(World):
    def judge(self, action):
        if self.t == 2:
            sys.exit(0)
        return 0.0


class LeavesInReset(World):
    def reset(self, *, seed=None, options=None):
        sys.exit(3)


class RaisesInMask(World):
    def action_masks(self):
        return self.board


MISTAKES: dict[str, tuple[Callable[[], gym.Env], str]] = {
    "another shape": (
        world(observe=lambda self: np.zeros(4, np.float32)),
        r"observation has shape \(4,\), but its space Box\(-1.0, 1.0, \(3,\), float32\) has shape \(3,\)",
    ),
    "a ragged list": (world(observe=lambda self: [0.0, [1.0, 2.0], 3.0]), "not numbers of its space"),
    "None as observation": (world(observe=lambda self: None), "observation is None"),
    "a part that is missing": (
        world(observation_space=Dict({"a": Discrete(2), "b": Discrete(2)}), observe=lambda self: {"a": 1}),
        "observation has no 'b', which its space has",
    ),
    "a part of another shape": (
        world(observation_space=Tuple((Discrete(2), Box(0, 1, (2,)))), observe=lambda self: (1, np.zeros(3, np.float32))),
        r"observation\[1\] has shape \(3,\), but its space Box.* has shape \(2,\)",
    ),
    "a tuple of another length": (
        world(observation_space=Tuple((Discrete(2), Discrete(2))), observe=lambda self: (1,)),
        "a Tuple of 2",
    ),
    "an array for a Dict": (
        world(observation_space=Dict({"a": Discrete(2)}), observe=lambda self: np.zeros(2)),
        "return a dict",
    ),
    "a number outside of its space": (
        world(observation_space=Discrete(3), observe=lambda self: 3),
        r"observation is 3, outside of its space Discrete\(3\)",
    ),
    "choices outside of their space": (
        world(observation_space=MultiDiscrete([2, 2]), observe=lambda self: np.array([0, 2])),
        r"\[0, 2\], outside of its space MultiDiscrete",
    ),
    "numbers that bytes cannot hold": (
        world(observation_space=Box(0, 255, (2,), np.uint8), observe=lambda self: np.array([0, 300])),
        "cannot hold: declare the space with dtype=np.float32",
    ),
    "fractions in a space of integers": (
        world(observation_space=Box(0, 9, (2,), np.int64), observe=lambda self: np.array([0, 0.5])),
        "cannot hold",
    ),
    "no reward": (world(judge=lambda self, action: None), "NoneType as the reward: return one number"),
    "two rewards": (world(judge=lambda self, action: np.zeros(2)), r"ndarray of shape \(2,\) as the reward"),
    "a reward that is a text": (world(judge=lambda self, action: "1.0"), "str as the reward"),
    "a reward that is complex": (world(judge=lambda self, action: 1j), "complex as the reward"),
    "a reward beyond all floats": (world(judge=lambda self, action: 10**400), "a reward of inf"),
    "a reward of NaN": (world(judge=lambda self, action: float("nan")), "a reward of nan"),
    "two flags": (world(ends=lambda self: (np.zeros(2, bool), False)), r"ndarray of shape \(2,\) as terminated"),
    "an info that is a list": (world(tell=lambda self: []), "the info is list: return a dict"),
    "an info that is a text": (world(tell=lambda self: "all is well"), "the info is str: return a dict"),
    "a mask to be added to logits": (
        world(tell=lambda self: {"action_mask": np.array([0.0, -1e9, 0.0])}),
        r"it holds -1e\+09, but 1",
    ),
    "a mask of probabilities": (
        world(tell=lambda self: {"action_mask": [0.5, 0.5, 0.0]}),
        "it holds 0.5, but 1 or True allows",
    ),
    "a mask of NaN": (world(tell=lambda self: {"action_mask": [1.0, np.nan, 0.0]}), "it holds nan"),
    "a mask by a method with numbers of moves": (world(action_masks=lambda self: [3, 0, 1]), "it holds 3, but 1"),
    "a mask of another size": (world(tell=lambda self: {"action_mask": [1, 1]}), r"shape \(2,\) for 3 actions"),
    "an exception in a step": (
        Raises,
        r"at step 3 of its episode: KeyError: 'lost' \(.*worlds\.py, line \d+: raise KeyError\(",
    ),
    "a window that ends the program": (LeavesTheProgram, r"at step 2 of its episode: SystemExit: 0 \(.*worlds\.py, line"),
    "a reset that ends the program": (LeavesInReset, r"SystemExit: 3 \(.*worlds\.py, line"),
    "an exception in reset": (RaisesInReset, r"KeyError: 'start' \(.*worlds\.py, line \d+: return \{\}\[\"start\"\]\)"),
    "an exception in the mask": (RaisesInMask, r"AttributeError: .*'board' \(.*worlds\.py, line \d+: return self\.board\)"),
}
"""Worlds with a mistake, and a part of the message that names it."""
