"""The state of the parts of an agent: from objects to the values in a checkpoint, and back into the same objects."""

import copy
from typing import Any, Protocol, runtime_checkable

import numpy as np

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.reads import is_named_tuple
from rl_lab.serialization import generator_state, set_generator_state


@runtime_checkable
class EpisodicPart(Protocol):
    """A part that depends on running episodes, such as a replay buffer with returns over several steps."""

    def begin_episodes(self) -> None:
        """Forget the running episodes. Called after loading a state without environments: they begin new episodes."""
        ...


@runtime_checkable
class DataPart(Protocol):
    """A part that holds data to learn from, such as a replay buffer."""

    def first_not_finite(self) -> str:
        """The name of the first of its numbers that is not finite, or an empty text."""
        ...


def part_state(part: Any) -> Any:
    """Return the state of a part for a checkpoint. Raises TypeError for a part of a type that cannot be saved."""
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, rl.Generator):
        return part.get_state()
    if isinstance(part, rl.Tensor):
        return part.detach().clone()
    if isinstance(part, (np.ndarray, np.generic)):
        return np.array(part)
    if isinstance(part, np.random.Generator):
        return generator_state(part)
    if hasattr(part, "state_dict"):
        return part.state_dict()
    if isinstance(part, dict):
        return {name: part_state(value) for name, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [part_state(value) for value in part]
    raise TypeError(f"a part of type {type(part).__name__} cannot be saved: give it state_dict and load_state_dict")


def check_part(part: Any, name: str) -> None:
    """Raise TypeError, naming the part, if `part_state` cannot save a part of its type."""
    if isinstance(part, dict):
        for key, value in part.items():
            check_part(value, f"{name}[{key!r}]")
    elif isinstance(part, (list, tuple)):
        for i, value in enumerate(part):
            check_part(value, f"{name}[{i}]")
    elif not (isinstance(part, (*_VALUES, *_KINDS)) or hasattr(part, "state_dict")):
        raise TypeError(f"{name} of type {type(part).__name__} cannot be saved: give it state_dict and load_state_dict")


def load_part(part: Any, state: Any, name: str) -> Any:
    """Put a saved state into a part. Returns the part, or the value that replaces it.

    Numbers, texts, and containers of nothing else are replaced by what was saved; everything else keeps its shape and its keys. Raises
    KeyError, ShapeError or TypeError, naming the part, if the state does not fit.
    """
    if isinstance(part, rl.Generator):
        part.set_state(state)
    elif isinstance(part, rl.Tensor):
        given = rl.as_tensor(state)
        if given.shape != part.shape:
            raise ShapeError(f"{name} has shape {list(part.shape)}, the saved one {list(given.shape)}")
        with rl.no_grad():
            part.copy_(given)
    elif isinstance(part, np.ndarray):
        array = np.asarray(_array(state))
        if array.shape != part.shape:
            raise ShapeError(f"{name} has shape {list(part.shape)}, the saved one {list(array.shape)}")
        part[...] = array
    elif isinstance(part, np.random.Generator):
        set_generator_state(part, state)
    elif hasattr(part, "load_state_dict"):
        if state is None:
            raise TypeError(f"the saved state has no {name}")
        part.load_state_dict(state)
    elif isinstance(part, dict):
        _require(name, state, dict)
        keys = list(state) if _holds_values(part) else list(part)
        loaded = {key: load_part(part.get(key), state[key], f"{name}[{key!r}]") for key in keys}
        part.clear()
        part.update(loaded)
    elif isinstance(part, (list, tuple)):
        _require(name, state, (list, tuple))
        if len(part) != len(state) and not _holds_values(part):
            raise ShapeError(f"{name} has {len(part)} entries, the saved one {len(state)}")
        own = [*part, *[None] * (len(state) - len(part))]
        rows = [load_part(own[i], given, f"{name}[{i}]") for i, given in enumerate(state)]
        return type(part)(*rows) if is_named_tuple(part) else type(part)(rows)
    else:
        return _value(part, state, name)
    return part


_VALUES = (type(None), bool, int, float, str, np.generic)
_KINDS = (rl.Generator, rl.Tensor, np.ndarray, np.random.Generator)


def _holds_values(part: Any) -> bool:
    """Whether a part is a number, a text or None, or a container of nothing else, so that it may have any size."""
    if isinstance(part, dict):
        return all(map(_holds_values, part.values()))
    return all(map(_holds_values, part)) if isinstance(part, (list, tuple)) else isinstance(part, _VALUES)


def _value(part: Any, state: Any, name: str) -> Any:
    """A saved number or text. What was None may have become an array, and in a container that has grown, another container."""
    if isinstance(part, np.generic):
        return type(part)(_array(state))
    if part is None and isinstance(state, (rl.Tensor, np.ndarray)):
        return copy.deepcopy(state)
    if part is None and isinstance(state, (dict, list)):
        if not name.endswith("]"):  # it may be the state of a network or an optimiser
            raise TypeError(f"the saved state has {name}, which build() does not make with these settings")
        return copy.deepcopy(state)
    _require(name, state, _VALUES)
    return float(state) if type(part) is float and type(state) is int else state


def _require(name: str, state: Any, kinds: type | tuple[type, ...]) -> None:
    if not isinstance(state, kinds):
        raise TypeError(f"the saved {name} is of type {type(state).__name__}, which does not fit this agent")


def _array(state: Any) -> Any:
    return state.numpy() if isinstance(state, rl.Tensor) else state
