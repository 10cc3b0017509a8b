"""Map observations of any space to arrays of one Box, and check an observation against its space.

Observations have the type Any, because the kinds of spaces have no common type, and an environment may return anything.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces import Space

from rl_lab.engine.errors import EnvironmentFault

MASK = "action_mask"
"""Name of the mask of allowed actions, in ``info`` and in Dict observations."""
Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices that lead from an observation to one of its parts."""


class ObservationMapping:
    """Maps observations of ``space`` to arrays of ``box``.

    A Box keeps its shape and dtype, but rank 0 becomes shape (1,). Discrete and MultiDiscrete spaces become one-hot vectors. Dict and
    Tuple spaces become one vector of all their parts; a single Box in them keeps its shape. ``left_out`` names the parts without numbers,
    such as texts, which the arrays do not contain.

    A part ``action_mask`` of a Dict that has one entry for each of ``options`` is not observed: it is the mask of the allowed actions.
    ``holds_mask`` is then True, and `mask` returns it.

    Raises TypeError, naming the space, if no part holds numbers.
    """

    def __init__(self, space: Space, options: int = 0):
        self.space = space
        self.left_out: list[str] = []
        own = options > 0 and isinstance(space, spaces.Dict) and MASK in space.spaces
        entries = _entries(space.spaces[MASK]) if own else 0  # type: ignore[attr-defined]
        self.other_mask = (
            f"observation[{MASK!r}] has {entries} entries, but the actions have {options} options, so it is observed like any number"
            if own and entries != options
            else ""
        )
        """A sentence about a part that has the name of a mask, but not its size; empty if there is none."""
        self.holds_mask = own and entries == options
        self._leaves: list[tuple[Path, Space]] = []  # path and space of each part that holds numbers
        self._collect(space, ())
        if not self._leaves:
            left = ", ".join(self.left_out) or str(space)
            raise TypeError(
                f"{left} holds no numbers to learn from: use Box, Discrete, MultiDiscrete, MultiBinary, Tuple or Dict"
            )
        first = self._leaves[0][1]
        self._keeps_shape = len(self._leaves) == 1 and isinstance(first, spaces.Box) and first.shape != ()
        self.is_identity = self._keeps_shape and self._leaves[0][0] == ()
        """Whether `array` returns observations unchanged."""
        parts = [leaf for _, leaf in self._leaves]
        box: Any = first if self._keeps_shape else spaces.flatten_space(spaces.Tuple(parts) if len(parts) > 1 else first)
        self.box: spaces.Box = box

    def inner_masks(self) -> list[str]:
        """Parts that have the name of a mask and are observed, because they do not stand in the observation itself."""
        return sorted({_written(path[: path.index(MASK) + 1]) for path, _ in self._leaves if MASK in path[1:]})

    def _collect(self, space: Space, path: Path) -> None:
        """Append the parts of a space at ``path`` to ``_leaves`` or ``left_out``."""
        if isinstance(space, spaces.Dict):
            for name, part in space.spaces.items():
                if path or name != MASK or not self.holds_mask:
                    self._collect(part, (*path, name))
        elif isinstance(space, spaces.Tuple):
            for i, part in enumerate(space.spaces):
                self._collect(part, (*path, i))
        elif _has_numbers(space):
            self._leaves.append((path, space))
        else:
            self.left_out.append(f"{_written(path)} ({type(space).__name__})")

    def array(self, observation: Any) -> np.ndarray:
        """Return the array of ``box`` for an observation of ``space``."""
        parts: list[Any] = []  # arrays; the type of `spaces.flatten` is wider
        for path, space in self._leaves:
            part: Any = observation
            for key in path:
                part = part[key]
            parts.append(np.asarray(part) if self._keeps_shape else spaces.flatten(space, part))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, dtype=self.box.dtype)

    def names(self) -> list[str]:
        """A name for each number of ``box`` when it is flattened: the keys that lead to the number, and its place or its option."""
        names = []
        for path, space in self._leaves:
            key = " ".join(map(str, path)) or "input"
            size = 1 if space.shape == () else int(np.prod(space.shape or ()))
            if isinstance(space, spaces.Discrete):
                names += [f"{key} = {space.start + i}" for i in range(int(space.n))]
            elif isinstance(space, spaces.MultiDiscrete):
                counts = enumerate(space.nvec.reshape(-1).tolist())
                names += [f"{key} {i} = {option}" for i, count in counts for option in range(count)]
            elif space.shape is not None:
                names += [key] if size == 1 and path else [f"{key} {i}" for i in range(size)]
        return names

    def mask(self, observation: Any) -> Any:
        """Return the mask of the allowed actions in an observation; None if ``space`` has no mask."""
        return observation[MASK] if self.holds_mask else None


def _written(path: Path) -> str:
    """Write a part of an observation as Python code: ``observation['image']``."""
    return "observation" + "".join(f"[{key!r}]" for key in path)


def _entries(space: Space | None) -> int:
    """Number of entries of a mask of this space: an array, or a Tuple or Dict of arrays."""
    if isinstance(space, (spaces.Tuple, spaces.Dict)):
        return sum(map(_entries, space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces))
    return int(np.prod(space.shape)) if isinstance(space, (spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)) else 0


def _has_numbers(space: Space) -> bool:
    """Whether a space, which is neither Dict nor Tuple, can be flattened to an array of a fixed size."""
    if isinstance(space, spaces.Text):
        return False
    try:
        return isinstance(spaces.flatten_space(space), spaces.Box)
    except (NotImplementedError, ValueError):  # a kind that Gymnasium does not know, or one of changing size
        return False


# --- checks ----------------------------------------------------------------------------------------------------------


def conform(space: Space, value: Any, note: Callable[[str], None], path: Path = ()) -> Any:
    """Copy an observation into the form of its space: arrays of the right dtype, tuples and dicts.

    The copy shares no memory with the environment's arrays. ``note`` is called with a sentence for each deviation from the space that
    Gymnasium accepts. Raises EnvironmentFault if a value has another shape or cannot be stored without loss.
    """
    if isinstance(space, spaces.Box):
        return _conform_box(space, value, note, path)
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict):
            raise EnvironmentFault(f"{_written(path)} is {_shown(value)}, but its space is a Dict: return a dict")
        missing = [name for name in space.spaces if name not in value]
        if missing:
            has = ", ".join(map(repr, value)) or "nothing"
            raise EnvironmentFault(f"{_written(path)} has no {missing[0]!r}, which its space has; it holds {has}")
        return {name: conform(part, value[name], note, (*path, name)) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise EnvironmentFault(
                f"{_written(path)} is {_shown(value)}, but its space is a Tuple of {len(space.spaces)}: return a tuple of so many parts"
            )
        return tuple(
            conform(part, one, note, (*path, i)) for i, (part, one) in enumerate(zip(space.spaces, value, strict=True))
        )
    if isinstance(space, spaces.Discrete):
        array = _conform_numbers(space, value, (), np.int64, note, path)
        if not space.start <= array < space.start + space.n:
            raise EnvironmentFault(f"{_written(path)} is {int(array)}, outside of its space {space}: correct the space")
        return space.dtype.type(array)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        array = _conform_numbers(space, value, space.shape, space.dtype, note, path)
        if not space.contains(array):
            raise EnvironmentFault(f"{_written(path)} is {array.tolist()}, outside of its space {space}: correct the space")
        return array
    return value


def _conform_box(space: spaces.Box, value: Any, note: Callable[[str], None], path: Path) -> np.ndarray:
    if type(value) is np.ndarray and value.dtype == space.dtype and value.shape == space.shape:
        return value.copy()
    return _conform_numbers(space, value, space.shape, space.dtype, note, path)


def _conform_numbers(
    space: Space, value: Any, shape: tuple[int, ...], dtype: npt.DTypeLike, note: Callable[[str], None], path: Path
) -> np.ndarray:
    """Convert ``value`` to a new array of this shape and dtype. Raises EnvironmentFault if that is not possible without loss."""
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.asarray(None)
    if found.dtype.kind not in "biuf":
        raise EnvironmentFault(f"{_written(path)} is {_shown(value)}, which are not numbers of its space {space}")
    if found.shape != shape:
        raise EnvironmentFault(f"{_written(path)} has shape {found.shape}, but its space {_brief(space)} has shape {shape}")
    with np.errstate(all="ignore"):
        made = found.astype(dtype)
    is_exact = np.can_cast(found.dtype, dtype, "safe")
    if not is_exact and not (np.issubdtype(dtype, np.floating) or (made == found).all()):
        raise EnvironmentFault(
            f"{_written(path)} has the values {_shown(found)}, which its space {_brief(space)} cannot hold: "
            "declare the space with dtype=np.float32"
        )
    if not isinstance(value, (np.ndarray, np.generic, int)):
        note(f"{_written(path)} is a {type(value).__name__}: return a NumPy array of dtype {np.dtype(dtype)}")
    elif not is_exact and not isinstance(value, int):
        note(f"{_written(path)} has dtype {found.dtype}, but its space has {np.dtype(dtype)}: return that dtype")
    return made


def rows_of(space: Space, batch: Any) -> list[Any]:
    """The observations in a batch: a sequence of them, or a Dict or Tuple of batches of its parts. Empty for anything else."""
    keys: list[Any] = []
    if isinstance(space, spaces.Dict) and isinstance(batch, dict):
        keys = list(space.spaces)
    elif isinstance(space, spaces.Tuple) and isinstance(batch, tuple) and len(batch) == len(space.spaces):
        keys = list(range(len(batch)))
    if keys:
        parts = [rows_of(space[key], batch[key]) if keys[0] == 0 or key in batch else [] for key in keys]  # type: ignore[index]
        if len({len(rows) for rows in parts}) == 1:
            rows = list(zip(*parts, strict=True))
            return rows if isinstance(space, spaces.Tuple) else [dict(zip(keys, row, strict=True)) for row in rows]
        return []
    is_sequence = isinstance(batch, (list, tuple)) or (isinstance(batch, np.ndarray) and batch.ndim > 0)
    return list(batch) if is_sequence else []


def out_of_bounds(space: Space, value: Any, path: Path = ()) -> str | None:
    """Return a sentence on the first value outside of the bounds of its Box; None if there is none. NaN counts as inside."""
    if isinstance(space, spaces.Dict):
        return next(filter(None, (out_of_bounds(part, value[k], (*path, k)) for k, part in space.spaces.items())), None)
    if isinstance(space, spaces.Tuple):
        return next(filter(None, (out_of_bounds(p, value[i], (*path, i)) for i, p in enumerate(space.spaces))), None)
    if not isinstance(space, spaces.Box):
        return None
    outside = (value < space.low) | (value > space.high)
    if not outside.any():
        return None
    index = np.unravel_index(int(outside.argmax()), outside.shape)
    place = _written((*path, *map(int, index)))
    low, high = space.low[index], space.high[index]
    return f"{place} is {value[index]:g}, outside of [{low:g}, {high:g}] in its space: widen the space"


def _brief(space: Space) -> str:
    """Write a space for a message, in at most 80 characters."""
    text = str(space)
    return text if len(text) <= 80 else f"{text[:60]}... {text[-15:]}"


def _shown(value: Any) -> str:
    """Write a value for a message, in about 60 characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:50]}... ({type(value).__name__})"
