"""The state of the parts of an agent: from objects to the values in a checkpoint, and back into the same objects."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
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


def load_part(part: Any, state: Any, name: str) -> Any:
    """Put a saved state into a part. Returns the part, or the value that replaces it.

    Raises KeyError, ShapeError or TypeError, naming the part, if the state does not fit.
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
        for key in part:
            part[key] = load_part(part[key], state[key], f"{name}[{key!r}]")
    elif isinstance(part, (list, tuple)):
        if len(part) != len(state):
            raise ShapeError(f"{name} has {len(part)} entries, the saved one {len(state)}")
        return type(part)(
            [load_part(value, given, f"{name}[{i}]") for i, (value, given) in enumerate(zip(part, state, strict=True))]
        )
    elif isinstance(part, bool):
        return bool(state)
    elif isinstance(part, (int, float)):
        return type(part)(state)
    elif part is None and not (state is None or isinstance(state, (bool, int, float, str))):
        raise TypeError(f"the saved state has {name}, which these settings do not make")
    else:  # None or text
        return state
    return part


def _array(state: Any) -> Any:
    return state.numpy() if isinstance(state, rl.Tensor) else state
