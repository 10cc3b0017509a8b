"""Save the state of Gymnasium environments as numbers and text, so that a resumed run continues in the middle of an episode.

The state of an environment written in Python consists of the attributes of the environment and its wrappers. `environment_state` reads
these attributes. If a class defines ``get_state()`` and ``set_state(state)``, it calls ``get_state`` instead. An attribute of an unknown
kind, such as a simulator written in C, may have a hidden state: then `environment_state` returns None.

Functions, classes, spaces and the data in class bodies are not restored. The state holds a digest of each, and `set_environment_state`
raises ValueError if the environment that continues, after a fresh reset, has another one.

A state may come from another author's file. `set_environment_state` therefore only sets attributes that exist, only to numbers, arrays,
random streams and words, and checks all values before it changes the first attribute.

Values have the type Any here: attributes may be of any type, and a state may come from a file.
"""

import hashlib
import inspect
import json
import sys
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

from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault
from rl_lab.rollout.adapter import Innermost
from rl_lab.serialization import generator_state, set_generator_state

DEPTH = 40
"""Largest depth of nested attributes."""
LARGEST_STATE = 1 << 26
"""Most bytes of arrays in the state of one environment that is saved: larger arrays are data that the environment only reads."""
MOST_VALUES = 100_000
"""Most values in the state of one environment that is saved."""
_SKIPPED = ("_saved_kwargs", "_cached_spec", "spec", "metadata", "_metadata")
"""Attributes that Gymnasium sets when it makes an environment. They do not change afterwards."""
_NUMPY_FUNCTION = type(np.copy)
"""Type of NumPy's functions such as `numpy.clip`: not Python functions, but without state like them."""
_AS_BYTES = "biufcSU"
"""Kinds of arrays that can be saved as bytes."""
FIXED = {"kind": "fixed"}
"""State of the stream of a space that was not seeded: the space's own stream stays."""


class EnvironmentsState(dict[str, Any]):
    """State of all environments of a collector. Checkpoints store its arrays in a separate file, apart from what was learned."""


class SavableProcesses(AsyncVectorEnv):
    """Environments in processes of their own that can be saved.

    ``get_attr("saved_state")`` returns `environment_state` of each environment. ``set_attr("saved_state", states)`` calls
    `set_environment_state`, and ``get_attr("state_fault")`` then returns the reason why the state does not fit, or an empty text.
    """


class Unsaved(Exception):
    """A part of an environment that cannot be saved."""


def environment_state(env: gym.Env) -> dict[str, Any] | None:
    """Return the state of an environment and its wrappers as nested plain values and arrays; None if it cannot be saved."""
    try:
        return _Writer().value(env, 0)
    except FOREIGN_ERRORS:  # `Unsaved`, or whatever get_state or an attribute's own code raises
        return None


def set_environment_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Restore a state returned by `environment_state`. Raises ValueError, and changes nothing, if it does not fit the environment.

    Also raises ValueError if the environment's own ``set_state`` raises: the environment must then be reset.
    """
    reader = _Reader()
    try:
        reader.value(env, state, 0)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"the saved state does not fit the environment: {error}") from None
    for change in reader.changes:
        try:
            change()
        except FOREIGN_ERRORS as error:
            raise ValueError(f"the environment's set_state raised {type(error).__name__}: {error}") from None


# --- vector environments -----------------------------------------------------------------------------------------------


def vector_state(envs: VectorEnv) -> list[Any] | None:
    """Return the states of all environments of a vector environment; None if one cannot be saved."""
    if isinstance(envs, SyncVectorEnv):
        states = [environment_state(env) for env in envs.envs]
    elif isinstance(envs, SavableProcesses):
        try:
            states = list(envs.get_attr("saved_state"))
        except (AlreadyPendingCallError, EnvironmentFault, EOFError, OSError):
            return None  # a signal to all processes has ended some of them in the middle of a step
    else:
        return None
    return None if any(state is None for state in states) else states


def set_vector_state(envs: VectorEnv, states: list[Any]) -> None:
    """Restore states returned by `vector_state`. Raises ValueError if they do not fit the environments."""
    if not isinstance(states, list) or len(states) != envs.num_envs:
        raise ValueError(f"the saved state is not that of {envs.num_envs} environments")
    if isinstance(envs, SyncVectorEnv):
        for env, state in zip(envs.envs, states, strict=True):
            set_environment_state(env, state)
    elif isinstance(envs, SavableProcesses):
        envs.set_attr("saved_state", states)
        faults = [fault for fault in envs.get_attr("state_fault") if fault]
        if faults:
            raise ValueError(faults[0])
    else:
        raise ValueError(f"{type(envs).__name__} has no state")


# --- reading attributes ------------------------------------------------------------------------------------------------


def _is_python(kind: type) -> bool:
    """Whether the whole state of an object is in its ``__dict__``: all its classes are written in Python, without slots.

    A class written in C is recognized by its own constructor or fields. Slots look like such fields.
    """
    for part in kind.__mro__[:-1]:
        fields = [value for name, value in vars(part).items() if name not in ("__dict__", "__weakref__")]
        if any(isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)) for value in fields):
            return False
        if isinstance(vars(part).get("__new__"), types.BuiltinFunctionType) or "__module__" not in vars(part):
            return False
    return True


def _was_seeded(stream: np.random.Generator | None) -> bool:
    """Whether the random stream of a space was seeded. Otherwise its entropy has 128 bits, and no run can repeat its numbers."""
    if not isinstance(stream, np.random.Generator):
        return False
    sequence = stream.bit_generator.seed_seq
    return isinstance(sequence, np.random.SeedSequence) and isinstance(sequence.entropy, int) and sequence.entropy < 2**64


def _own_state(value: Any) -> bool:
    """Whether the class of an object defines ``get_state()`` and ``set_state(state)``. Users' classes have no common base.

    Methods of these names that need other arguments have another purpose.
    """
    if not all(callable(getattr(type(value), name, None)) for name in ("get_state", "set_state")):
        return False
    try:
        inspect.signature(value.get_state).bind()
        inspect.signature(value.set_state).bind(None)
    except (TypeError, ValueError):
        return False
    return True


class _Writer:
    """Converts objects to plain values. A second occurrence of an object becomes a reference to the first."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # keeps objects alive, so that no id is used twice
        self.memory: dict[int, int] = {}  # id of the array over each memory, by the id of the array that owns the memory
        self.values = 0
        self.bytes = 0
        self.shared: dict[type, str | None] = {}

    def value(self, x: Any, depth: int) -> Any:
        """Return the plain value of an object. Raises Unsaved if it cannot be saved."""
        if isinstance(x, Innermost):
            return self.value(x.env, depth)
        self.values += 1
        if depth > DEPTH or self.values > MOST_VALUES:
            raise Unsaved("too many values, or nested too deeply")
        if x is None or type(x) in (bool, str, int):
            return x
        if isinstance(x, Enum):
            if type(x).__members__.get(str(x.name)) is not x:
                raise Unsaved("several flags in one value")
            return {"kind": "enum", "class": _name(type(x)), "name": x.name}
        if type(x) is float:
            return x if np.isfinite(x) else {"kind": "float", "text": repr(x)}
        if isinstance(x, np.generic) and x.dtype.kind in "biufcSU":
            return {"kind": "scalar", **_array_state(np.array(x))}
        if isinstance(x, (spaces.Space, np.random.Generator, np.ndarray, list, tuple, dict, deque)) or hasattr(x, "__dict__"):
            if _is_constant(x):
                return {"kind": "fixed", "is": digest_of(x)}
            if id(x) in self.numbers:
                return {"kind": "again", "number": self.numbers[id(x)]}
            self.numbers[id(x)] = len(self.numbers)
            self.kept.append(x)
            return {**self.mutable(x, depth), "number": self.numbers[id(x)]}
        if _is_constant(x):
            return {"kind": "fixed", "is": digest_of(x)}
        raise Unsaved(f"a {type(x).__name__}")

    def mutable(self, x: Any, depth: int) -> dict[str, Any]:
        """Return the plain value of an object that may change. Raises Unsaved if it cannot be saved."""
        if isinstance(x, np.random.Generator):
            if type(x.bit_generator) is not np.random.PCG64:
                raise Unsaved("a random stream of another kind")
            return {"kind": "stream", "state": generator_state(x)}
        if isinstance(x, spaces.Space):
            inner = x.spaces if isinstance(x, (spaces.Dict, spaces.Tuple)) else ()
            parts = list(inner.values() if isinstance(inner, dict) else inner)
            stream = self.value(x._np_random, depth + 1) if _was_seeded(x._np_random) else FIXED
            inside = [self.value(part, depth + 1) for part in parts]
            return {"kind": "space", "stream": stream, "parts": inside, "is": digest_of(x)}
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
        """Return the state of an array. Raises Unsaved for a second array over the same memory: restored arrays would be independent."""
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
        """Return the attributes of an object, or the state that its class returns. Raises Unsaved if its class is written in C."""
        name = _name(type(x))
        if _own_state(x):
            found = {"own": self.value(x.get_state(), depth + 1)}
            if isinstance(vars(x).get("_np_random"), np.random.Generator):
                found["_np_random"] = self.value(x._np_random, depth + 1)
            return {"kind": "object", "class": name, "attributes": found}
        if not hasattr(x, "__dict__") or not _is_python(type(x)):
            raise Unsaved(f"a {type(x).__name__}")
        found = {key: self.value(value, depth + 1) for key, value in vars(x).items() if key not in _SKIPPED}
        if type(x) not in self.shared:
            self.shared[type(x)] = shared_digest(type(x))
        return {"kind": "object", "class": name, "attributes": found, "shared": self.shared[type(x)]}


def _array_state(x: np.ndarray) -> dict[str, Any]:
    """Return the state of an array. Numbers that a checkpoint cannot hold, such as infinite ones, and texts become bytes.

    Raises Unsaved for another dtype.
    """
    fits = x.dtype.isnative and x.dtype.itemsize <= 8
    if fits and (x.dtype.kind in "biu" or (x.dtype.kind == "f" and np.isfinite(x).all())):
        return {"array": x.copy()}
    if x.dtype.kind in _AS_BYTES:
        return {"bytes": np.frombuffer(x.tobytes(), np.uint8), "dtype": x.dtype.str, "shape": list(x.shape)}
    raise Unsaved(f"an array of {x.dtype}")


def _is_constant(x: Any, depth: int = 0) -> bool:
    """Whether steps cannot change an object: a class, a module, or a function whose variables are constants."""
    if isinstance(x, types.BuiltinFunctionType):  # a method of an object, such as list.append, may change the object
        return x.__self__ is None or isinstance(x.__self__, (type, types.ModuleType))
    if isinstance(x, (type, types.ModuleType, np.dtype, np.ufunc, EnvSpec, Enum)):
        return True
    if isinstance(x, types.MethodType):
        return isinstance(x.__self__, (type, gym.Env)) and _is_constant(x.__func__, depth + 1)
    if isinstance(x, types.FunctionType) and depth < 4:
        inside = [cell.cell_contents for cell in x.__closure__ or ()]
        defaults = [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        return not vars(x) and all(_is_plain(value, depth + 1) for value in (*inside, *defaults))
    return type(x) is _NUMPY_FUNCTION


def _is_plain(x: Any, depth: int) -> bool:
    """Whether a variable of a function is immutable, or an environment or space, which is saved elsewhere."""
    if x is None or isinstance(x, (bool, int, float, str, np.generic, gym.Env, spaces.Space)):
        return True
    if isinstance(x, tuple):
        return all(_is_plain(item, depth + 1) for item in x)
    return _is_constant(x, depth)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


# --- digests of values that are not restored -------------------------------------------------------------------------------


def digest_of(x: Any) -> str:
    """Return a digest of a function, class, space or value: equal in two processes if the content is equal."""
    return hashlib.sha256(json.dumps(_Content().of(x)).encode()).hexdigest()[:32]


def _is_ours(kind: type) -> bool:
    """Whether a class belongs to Gymnasium or rl_lab, whose classes share no data."""
    return kind.__module__.partition(".")[0] in ("gymnasium", "rl_lab")


def shared_digest(kind: type) -> str | None:
    """Return a digest of the data in the bodies of a class and its bases, which all objects share; None if there are none."""
    found: dict[str, Any] = {}
    for part in reversed(kind.__mro__[:-1]):
        if not _is_ours(part):
            own = {key: value for key, value in vars(part).items() if key[:2] != "__" and key not in (*_SKIPPED, "_abc_impl")}
            found |= {key: value for key, value in own.items() if not callable(value) and not hasattr(value, "__get__")}
    return digest_of(found) if found else None


class _Content:
    """Writes objects as lists and texts that do not depend on the process. Objects of unknown kinds count by their class alone."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def of(self, x: Any, depth: int = 0) -> Any:
        """Return the content of an object, of nested objects down to some depth."""
        self.left -= 1
        if depth > 10 or self.left < 0:
            return ""
        if isinstance(x, Enum):
            return [_name(type(x)), str(x.name)]
        if x is None or isinstance(x, (bool, int, float, complex, str, bytes, np.generic, np.dtype)):
            return [type(x).__name__, repr(x)]
        if isinstance(x, np.ndarray):
            inside = self.of(x.tolist(), depth + 1) if x.dtype == object else hashlib.sha256(x.tobytes()).hexdigest()
            return [x.dtype.str, str(x.shape), inside]
        if isinstance(x, np.random.Generator):
            return self.of(x.bit_generator.state, depth + 1)
        if isinstance(x, dict):
            return [_name(type(x)), *[[self.of(key, depth + 1), self.of(value, depth + 1)] for key, value in x.items()]]
        if isinstance(x, (list, tuple, deque)):
            return [_name(type(x)), *[self.of(item, depth + 1) for item in x]]
        if isinstance(x, (set, frozenset)):
            return [_name(type(x)), *sorted([json.dumps(self.of(item, depth + 1)) for item in x])]
        if isinstance(x, types.CodeType):
            return [x.co_name, x.co_code.hex(), str(x.co_names), self.of(x.co_consts, depth + 1)]
        if isinstance(x, types.MethodType):
            owner = x.__self__ if isinstance(x.__self__, type) else type(x.__self__)
            return [_name(owner), self.of(x.__func__, depth + 1)]
        if isinstance(x, types.FunctionType):
            inside = [cell.cell_contents for cell in x.__closure__ or ()]
            values = [x.__code__, inside, x.__defaults__, x.__kwdefaults__]
            return [x.__module__, *[self.of(value, depth + 1) for value in values]]
        if isinstance(x, type):
            return _name(x)
        if isinstance(x, spaces.Space):
            own = {key: value for key, value in vars(x).items() if key == "_shape" or key[:1] != "_"}
            return [_name(type(x)), self.of(own, depth + 1)]
        if not isinstance(x, (gym.Env, EnvSpec, types.ModuleType)) and hasattr(x, "__dict__") and _is_python(type(x)):
            return [_name(type(x)), self.of(vars(x), depth + 1)]
        return [_name(type(x)), str(getattr(x, "__name__", ""))]


# --- setting attributes ------------------------------------------------------------------------------------------------


class _Reader:
    """Checks a state against the objects that it is for, and collects the changes to make."""

    def __init__(self) -> None:
        self.changes: list[Callable[[], Any]] = []
        self.known: dict[int, Any] = {}
        self.shared: dict[type, str | None] = {}

    def value(self, now: Any, node: Any, depth: int) -> Any:
        """Return the value that replaces ``now``. Raises one of the exceptions that `set_environment_state` catches for a bad ``node``."""
        if depth > DEPTH:
            raise ValueError("the saved state is nested too deeply")
        if isinstance(now, Innermost):
            self.value(now.env, node, depth)
            return now
        if isinstance(node, str):
            if node != now and any(letter in node for letter in "/\\"):
                raise ValueError("the saved state holds a path, which is not read from a file")
            return node
        if node is None or isinstance(node, (bool, int, float)):
            return node
        kind = node["kind"]
        if kind == "fixed":
            return self.same(now, node)
        if kind == "enum":
            return _member(now, node)
        if kind == "float":
            return float(node["text"])
        if kind == "scalar":
            found = _array_from(node)[()]
            if isinstance(found, str):
                self.value(str(now), str(found), depth)  # checks for a path
            return found
        if kind == "again":
            return self.known[node["number"]]
        return self.mutable(now, node, kind, depth)

    def mutable(self, now: Any, node: dict[str, Any], kind: str, depth: int) -> Any:
        """Return the value that replaces ``now``, for the kinds that `_Writer.mutable` writes."""
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

    def same(self, now: Any, node: dict[str, Any]) -> Any:
        """Return ``now``. Raises ValueError if its digest differs from the saved one; older versions saved none."""
        if "is" in node and digest_of(now) != node["is"]:
            raise ValueError(f"the environment had another {type(now).__name__} when it was saved")
        return now

    def items(self, now: Any, node: dict[str, Any], depth: int) -> list[Any]:
        """Return the values of a sequence; existing objects in ``now`` are kept where they fit."""
        before = list(now) if isinstance(now, (list, tuple, deque)) else []
        before += [None] * (len(node["items"]) - len(before))
        return [self.value(old, item, depth + 1) for old, item in zip(before, node["items"], strict=False)]

    def stream(self, now: Any, node: dict[str, Any]) -> np.random.Generator:
        """Return ``now`` with a change of its state, or a new stream if ``now`` is not a stream of the saved kind."""
        trial = np.random.Generator(np.random.PCG64(0))
        set_generator_state(trial, node["state"])  # raises if it is not a state
        if not isinstance(now, np.random.Generator) or type(now.bit_generator) is not np.random.PCG64:
            self.known[node["number"]] = trial
            return trial
        self.changes.append(lambda: set_generator_state(now, node["state"]))
        return now

    def space(self, now: Any, node: dict[str, Any], depth: int) -> spaces.Space:
        """Return ``now``, with changes of the streams of the space and its parts."""
        if not isinstance(now, spaces.Space):
            raise ValueError("the saved state has a space where the environment has none")
        self.same(now, node)
        stream = self.value(now._np_random, node["stream"], depth + 1)
        self.changes.append(lambda: setattr(now, "_np_random", stream))
        inner: Any = now.spaces if isinstance(now, (spaces.Dict, spaces.Tuple)) else ()
        parts = list(inner.values() if isinstance(inner, dict) else inner)
        for part, saved in zip(parts, node["parts"], strict=True):
            self.value(part, saved, depth + 1)
        return now

    def object(self, now: Any, node: dict[str, Any], depth: int) -> None:
        """Collect the changes of the attributes of ``now``. Raises ValueError if they do not fit its class."""
        name = _name(type(now))
        if not isinstance(node, dict) or node.get("kind") != "object" or node["class"] != name:
            raise ValueError(f"the saved state is not one of {name}")
        attributes = node["attributes"]
        if ("own" in attributes) != _own_state(now):
            raise ValueError(f"{name} was saved in another way")
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
        extra = [key for key in own if key not in attributes and key not in _SKIPPED]
        if extra and not _is_ours(type(now)):
            raise ValueError(f"{name} had no attribute {extra[0]!r} when it was saved")
        if type(now) not in self.shared:
            self.shared[type(now)] = shared_digest(type(now))
        if node.get("shared", self.shared[type(now)]) != self.shared[type(now)]:
            raise ValueError(f"the attributes of the class {name} had other values when it was saved")
        for key, saved in attributes.items():
            value = self.value(own[key], saved, depth + 1)
            if value is not own[key]:
                self.set(now, key, value)

    def set(self, owner: Any, key: str, value: Any) -> None:
        """Note that an attribute changes."""
        self.changes.append(lambda: vars(owner).__setitem__(key, value))


def _member(now: Any, node: dict[str, Any]) -> Enum:
    """Return the saved member of an Enum: of the class of ``now``, or of a class in an imported module.

    Raises ValueError if there is no such class, KeyError if it has no such member.
    """
    kind: Any = type(now)
    if not isinstance(now, Enum) or _name(kind) != node["class"]:
        module, _, path = node["class"].partition(":")
        kind = sys.modules.get(module)
        for part in path.split("."):
            kind = vars(kind).get(part) if isinstance(kind, (types.ModuleType, type)) else None
    if not isinstance(kind, type) or not issubclass(kind, Enum):
        raise ValueError(f"there is no Enum {node['class']} here")
    return kind.__members__[node["name"]]


def _array_from(node: dict[str, Any]) -> np.ndarray:
    """Rebuild an array from the result of `_array_state`. Raises ValueError if it is not such a result."""
    if "array" in node:
        return np.array(node["array"])
    dtype = np.dtype(node["dtype"])
    if dtype.kind not in _AS_BYTES:
        raise ValueError("the saved state has an array of another kind")
    data = np.ascontiguousarray(node["bytes"], np.uint8).tobytes()
    return np.frombuffer(data, dtype).reshape(node["shape"]).copy()


def _key(key: Any) -> str | int:
    """Return a key of a dictionary. Raises ValueError unless it is a word or an integer."""
    if type(key) not in (str, int):
        raise ValueError("the saved state has a key that is not a word or an integer")
    return key
