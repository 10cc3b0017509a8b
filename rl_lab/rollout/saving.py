"""The state of Gymnasium environments as numbers and text, so that a resumed run continues in the middle of an episode.

The state of an environment written in Python is in the attributes of the environment and of its wrappers. `environment_state` reads
them, or calls ``get_state`` where a class defines it together with ``set_state``. An attribute of an unknown kind, such as a
simulator written in C, may hold anything: then there is no state to save, and `environment_state` returns None.

A state may come from a file of somebody else. `set_environment_state` therefore sets only attributes that exist, to numbers, arrays,
random streams and words, all of which it has checked before it changes the first one.
"""

import types
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.serialization import generator_state, set_generator_state

DEPTH = 40
"""How deep attributes may be nested."""
LARGEST_STATE = 1 << 26
"""Bytes of arrays in the state of one environment, beyond which it is not saved: they are data that the environment reads."""
MOST_VALUES = 100_000
"""Values in the state of one environment, beyond which it is not saved."""
_SKIPPED = ("_saved_kwargs", "_cached_spec", "spec", "metadata", "_metadata")
"""Attributes that Gymnasium sets when it makes an environment. They do not change afterwards."""
_NUMPY_FUNCTION = type(np.copy)
"""Type of NumPy's functions such as `numpy.clip`: not Python functions, but without state like them."""
FIXED = {"kind": "fixed"}


class EnvironmentsState(dict[str, Any]):
    """State of all environments of a collector. Checkpoints store its arrays in a separate file, apart from what was learned."""


class Unsaved(Exception):
    """A part of an environment that cannot be saved."""


def environment_state(env: gym.Env) -> dict[str, Any] | None:
    """The state of an environment and its wrappers as nested plain values and arrays; None if it cannot be saved."""
    try:
        return _Writer().value(env, 0)
    except Unsaved:
        return None


def set_environment_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Continue from what `environment_state` returned. Raises ValueError, and changes nothing, if it does not fit the environment."""
    reader = _Reader()
    try:
        reader.value(env, state, 0)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"the saved state does not fit the environment: {error}") from None
    for change in reader.changes:
        change()


# --- vector environments -----------------------------------------------------------------------------------------------


def vector_state(envs: VectorEnv) -> list[Any] | None:
    """The states of all environments of a vector environment; None if one cannot be saved."""
    if isinstance(envs, SyncVectorEnv):
        states = [environment_state(env) for env in envs.envs]
    elif isinstance(envs, AsyncVectorEnv) and getattr(envs, "saves_states", False):
        try:
            states = list(envs.get_attr("saved_state"))
        except (AlreadyPendingCallError, EnvironmentFault, EOFError, OSError):
            return None  # a signal to all processes ended them in the middle of a step
    else:
        return None
    return None if any(state is None for state in states) else states


def set_vector_state(envs: VectorEnv, states: list[Any]) -> None:
    """Continue from what `vector_state` returned. Raises ValueError if it does not fit the environments."""
    if not isinstance(states, list) or len(states) != envs.num_envs:
        raise ValueError(f"the saved state is not that of {envs.num_envs} environments")
    if isinstance(envs, SyncVectorEnv):
        for env, state in zip(envs.envs, states, strict=True):
            set_environment_state(env, state)
    elif isinstance(envs, AsyncVectorEnv) and getattr(envs, "saves_states", False):
        envs.set_attr("saved_state", states)
        faults = [fault for fault in envs.get_attr("state_fault") if fault]
        if faults:
            raise ValueError(faults[0])
    else:
        raise ValueError(f"{type(envs).__name__} has no state")


# --- reading attributes ------------------------------------------------------------------------------------------------


def _is_python(kind: type) -> bool:
    """Whether all of an object's state is in its ``__dict__``: every class that it derives from is written in Python.

    A class written in C has a constructor or fields of its own. Slots look like such fields.
    """
    for part in kind.__mro__[:-1]:
        fields = [value for name, value in vars(part).items() if name not in ("__dict__", "__weakref__")]
        if any(isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)) for value in fields):
            return False
        if isinstance(vars(part).get("__new__"), types.BuiltinFunctionType) or "__module__" not in vars(part):
            return False
    return True


def _was_seeded(stream: np.random.Generator | None) -> bool:
    """Whether a space's random stream got a seed. Otherwise its entropy has 128 bits, and no run can repeat what it draws."""
    entropy = getattr(getattr(getattr(stream, "bit_generator", None), "seed_seq", None), "entropy", None)
    return isinstance(entropy, int) and entropy < 2**64


def _own_state(value: Any) -> bool:
    """Whether an object's class reads and sets its state itself."""
    return all(callable(getattr(type(value), name, None)) for name in ("get_state", "set_state"))


class _Writer:
    """Turns objects into plain values. An object that is met again becomes a reference to the first one."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no id is used twice
        self.memory: dict[int, int] = {}
        self.values = 0
        self.bytes = 0

    def value(self, x: Any, depth: int) -> Any:
        self.values += 1
        if depth > DEPTH or self.values > MOST_VALUES:
            raise Unsaved("too many values, or nested too deeply")
        if x is None or isinstance(x, (bool, str)) or type(x) is int:
            return x if not isinstance(x, Enum) else FIXED
        if type(x) is float:
            return x if np.isfinite(x) else {"kind": "float", "text": repr(x)}
        if isinstance(x, np.generic) and x.dtype.kind in "biuf":
            return {"kind": "scalar", **_array_state(np.array(x))}
        if isinstance(x, (spaces.Space, np.random.Generator, np.ndarray, list, tuple, dict, deque)) or hasattr(x, "__dict__"):
            if _is_constant(x):
                return FIXED
            if id(x) in self.numbers:
                return {"kind": "again", "number": self.numbers[id(x)]}
            self.numbers[id(x)] = len(self.numbers)
            self.kept.append(x)
            return {**self.mutable(x, depth), "number": self.numbers[id(x)]}
        if _is_constant(x):
            return FIXED
        raise Unsaved(f"a {type(x).__name__}")

    def mutable(self, x: Any, depth: int) -> dict[str, Any]:
        if isinstance(x, np.random.Generator):
            if type(x.bit_generator) is not np.random.PCG64:
                raise Unsaved("a random stream of another kind")
            return {"kind": "stream", "state": generator_state(x)}
        if isinstance(x, spaces.Space):
            inner = x.spaces if isinstance(x, (spaces.Dict, spaces.Tuple)) else ()
            parts = list(inner.values() if isinstance(inner, dict) else inner)
            stream = self.value(x._np_random, depth + 1) if _was_seeded(x._np_random) else FIXED
            return {"kind": "space", "stream": stream, "parts": [self.value(part, depth + 1) for part in parts]}
        if type(x) is np.ndarray:
            return {"kind": "array", **self.array(x)}
        if type(x) in (list, tuple):
            return {"kind": type(x).__name__, "items": [self.value(item, depth + 1) for item in x]}
        if type(x) is deque:
            return {"kind": "deque", "longest": x.maxlen, "items": [self.value(item, depth + 1) for item in x]}
        if type(x) is dict:
            if not all(type(key) in (str, int) for key in x):
                raise Unsaved("a dictionary with keys of another kind")
            return {"kind": "dict", "items": [[key, self.value(item, depth + 1)] for key, item in x.items()]}
        return self.object(x, depth)

    def array(self, x: np.ndarray) -> dict[str, Any]:
        """An array. Two arrays over the same memory cannot be saved: they would be independent afterwards."""
        root: Any = x
        while isinstance(root.base, np.ndarray):
            root = root.base
        if self.memory.setdefault(id(root), id(x)) != id(x):
            raise Unsaved("two arrays over the same memory")
        self.kept.append(root)
        self.bytes += x.nbytes
        if self.bytes > LARGEST_STATE:
            raise Unsaved("large arrays")
        return _array_state(x)

    def object(self, x: Any, depth: int) -> dict[str, Any]:
        """The attributes of an object, or its own state."""
        name = f"{type(x).__module__}:{type(x).__qualname__}"
        if _own_state(x):
            found = {"own": self.value(x.get_state(), depth + 1)}
            if isinstance(vars(x).get("_np_random"), np.random.Generator):
                found["_np_random"] = self.value(x._np_random, depth + 1)
            return {"kind": "object", "class": name, "attributes": found}
        if not hasattr(x, "__dict__") or not _is_python(type(x)):
            raise Unsaved(f"a {type(x).__name__}")
        found = {key: self.value(value, depth + 1) for key, value in vars(x).items() if key not in _SKIPPED}
        return {"kind": "object", "class": name, "attributes": found}


def _array_state(x: np.ndarray) -> dict[str, Any]:
    """An array as it is; as bytes if it is not one of finite numbers, because only finite states are saved."""
    if x.dtype.kind in "biu" or (x.dtype.kind == "f" and np.isfinite(x).all()):
        return {"array": x.copy()}
    if x.dtype.kind in "fSU":
        return {"bytes": np.frombuffer(x.tobytes(), np.uint8), "dtype": x.dtype.str, "shape": list(x.shape)}
    raise Unsaved(f"an array of {x.dtype}")


def _is_constant(x: Any, depth: int = 0) -> bool:
    """Whether an object has no state that steps change: a class, a module, a function without variables of its own."""
    if isinstance(x, (type, types.ModuleType, types.BuiltinFunctionType, np.dtype, np.ufunc, EnvSpec, Enum)):
        return True
    if isinstance(x, types.MethodType):
        return isinstance(x.__self__, (type, gym.Env)) and _is_constant(x.__func__, depth + 1)
    if isinstance(x, types.FunctionType) and depth < 4:
        inside = [cell.cell_contents for cell in x.__closure__ or ()]
        defaults = [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        return not vars(x) and all(_is_plain(value, depth + 1) for value in (*inside, *defaults))
    return type(x) is _NUMPY_FUNCTION


def _is_plain(x: Any, depth: int) -> bool:
    """Whether a variable of a function is immutable, or an environment or space, which is saved by itself."""
    if x is None or isinstance(x, (bool, int, float, str, np.generic, gym.Env, spaces.Space)):
        return True
    if isinstance(x, tuple):
        return all(_is_plain(item, depth + 1) for item in x)
    return _is_constant(x, depth)


# --- setting attributes ------------------------------------------------------------------------------------------------


class _Reader:
    """Checks a state against the objects that it is for, and collects the changes to make."""

    def __init__(self) -> None:
        self.changes: list[Callable[[], Any]] = []
        self.known: dict[int, Any] = {}

    def value(self, now: Any, node: Any, depth: int) -> Any:
        """The new value in place of ``now``."""
        if depth > DEPTH:
            raise ValueError("the saved state is nested too deeply")
        if isinstance(node, str):
            if node != now and any(letter in node for letter in "/\\"):
                raise ValueError("the saved state holds a path, which is not taken from a file")
            return node
        if node is None or isinstance(node, (bool, int, float)):
            return node
        kind = node["kind"]
        if kind == "fixed":
            return now
        if kind == "float":
            return float(node["text"])
        if kind == "scalar":
            return _array_from(node)[()]
        if kind == "again":
            return self.known[node["number"]]
        made = self.mutable(now, node, kind, depth)
        return made

    def mutable(self, now: Any, node: dict[str, Any], kind: str, depth: int) -> Any:
        number = node["number"]
        if kind in ("stream", "space", "object"):
            self.known[number] = now
            if kind == "stream":
                return self.stream(now, node)
            if kind == "space":
                return self.space(now, node, depth)
            self.object(now, node, depth)
            return now
        made: Any
        if kind == "array":
            self.known[number] = made = _array_from(node)
        elif kind in ("list", "deque"):
            made = [] if kind == "list" else deque(maxlen=node["longest"])
            self.known[number] = made
            made.extend(self.items(now, node, depth))
        elif kind == "tuple":
            self.known[number] = made = tuple(self.items(now, node, depth))
        elif kind == "dict":
            self.known[number] = made = {}
            before = now if isinstance(now, dict) else {}
            made.update({_key(key): self.value(before.get(key), item, depth + 1) for key, item in node["items"]})
        else:
            raise ValueError(f"the saved state has a part of kind {kind!r}")
        return made

    def items(self, now: Any, node: dict[str, Any], depth: int) -> list[Any]:
        before = list(now) if isinstance(now, (list, tuple, deque)) else []
        before += [None] * (len(node["items"]) - len(before))
        return [self.value(old, item, depth + 1) for old, item in zip(before, node["items"], strict=False)]

    def stream(self, now: Any, node: dict[str, Any]) -> np.random.Generator:
        trial = np.random.Generator(np.random.PCG64(0))
        set_generator_state(trial, node["state"])  # raises if it is not a state
        if type(getattr(now, "bit_generator", None)) is not np.random.PCG64:
            self.known[node["number"]] = trial
            return trial
        self.changes.append(lambda: set_generator_state(now, node["state"]))
        return now

    def space(self, now: Any, node: dict[str, Any], depth: int) -> Any:
        if not isinstance(now, spaces.Space):
            raise ValueError("the saved state has a space where the environment has none")
        stream = self.value(now._np_random, node["stream"], depth + 1)
        self.changes.append(lambda: setattr(now, "_np_random", stream))
        inner: Any = now.spaces if isinstance(now, (spaces.Dict, spaces.Tuple)) else ()
        parts = list(inner.values() if isinstance(inner, dict) else inner)
        for part, saved in zip(parts, node["parts"], strict=True):
            self.value(part, saved, depth + 1)
        return now

    def object(self, now: Any, node: dict[str, Any], depth: int) -> None:
        name = f"{type(now).__module__}:{type(now).__qualname__}"
        if not isinstance(node, dict) or node.get("kind") != "object" or node["class"] != name:
            raise ValueError(f"the saved state is not one of {name}")
        attributes = node["attributes"]
        if _own_state(now):
            state = self.value(None, attributes["own"], depth + 1)
            self.changes.append(lambda: now.set_state(state))
            if "_np_random" in attributes:
                self.set(now, "_np_random", self.value(vars(now).get("_np_random"), attributes["_np_random"], depth + 1))
            return
        if not _is_python(type(now)):
            raise ValueError(f"{name} cannot be set")
        own = vars(now)
        unknown = [key for key in attributes if key not in own or key in _SKIPPED]
        if unknown:
            raise ValueError(f"{name} has no attribute {unknown[0]!r}")
        for key, saved in attributes.items():
            value = self.value(own[key], saved, depth + 1)
            if value is not own[key]:
                self.set(now, key, value)

    def set(self, owner: Any, key: str, value: Any) -> None:
        self.changes.append(lambda: vars(owner).__setitem__(key, value))


def _array_from(node: dict[str, Any]) -> np.ndarray:
    if "array" in node:
        return np.array(node["array"])
    dtype = np.dtype(node["dtype"])
    if dtype.kind not in "fSU":
        raise ValueError("the saved state has an array of another kind")
    data = np.ascontiguousarray(node["bytes"], np.uint8).tobytes()
    return np.frombuffer(data, dtype).reshape(node["shape"]).copy()


def _key(key: Any) -> str | int:
    if type(key) not in (str, int):
        raise ValueError("the saved state has a key that is not a word or an integer")
    return key
