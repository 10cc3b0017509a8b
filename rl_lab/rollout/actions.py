"""The mapping from a policy's actions to actions of an action space.

A policy's action consists of numbers: the index of each choice, counted from 0, and continuous components in [-1, 1]. The mapping adds
the start of each choice, scales components to the bounds of the space, casts them, and builds tuples and dicts. A row of an action mask
or of logits holds the options of all choices of a space, one choice after the other.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

import rl_lab as rl

LARGEST_SCALE = 1e18
"""Bounds beyond this value, such as the largest float32, count as no bounds. The squares of smaller values are finite in float32."""
MOST_CHOICES = 1024
"""Largest number of values in a component of an integer Box that is a choice. Components with more values are rounded instead."""
FINEST_WIDTH = 1e-4
"""Bounds whose distance is below this share of their size are scaled in float64, because float32 would merge values between them."""

ANY_ACTIONS: tuple[type[Space], ...] = (Discrete, MultiDiscrete, MultiBinary, Box, Tuple, Dict)
"""The action spaces that `ActionMapping` accepts."""

SpaceActions: TypeAlias = Any
"""A batch of actions of a space: an array (batch, ...), or a tuple or dict of batches for a Tuple or Dict space."""


class _Leaf(NamedTuple):
    """Slice of the flat row of choices or of components that belongs to one space, which is neither a Tuple nor a Dict."""

    first: int
    numbers: int
    starts: np.ndarray | None
    """First value of each choice, int64 (numbers,); None for components."""
    fine: tuple[np.ndarray, np.ndarray] | None = None
    """Centre and radius, float64 (numbers,), of components that `ActionMapping.assemble` scales; None if `scaled` does, in float32."""


class ActionMapping:
    """Maps a policy's actions to actions of ``space``: Discrete, MultiDiscrete, MultiBinary, Box, or a Tuple or Dict of these.

    ``choices`` holds the number of options of each choice, ``size`` is the number of continuous components. A policy's action has
    ``shape`` and ``dtype``: int64 () for a Discrete space, int64 (choices,) for several choices, float32 (size,) for a Box, and float32
    (choices + size,) for a mixture, choices first.

    ``low`` and ``high``, float32 (size,), are the bounds of the components. ``centre`` and ``radius``, float32 (size,), scale [-1, 1] to
    these bounds. A component without bounds is not scaled. For a component with one bound, [-1, 1] is shifted to begin or end at the
    bound. Each component of an integer Box is a choice, or a component that is rounded if it has more than ``MOST_CHOICES`` values.

    Raises TypeError if ``space`` is of another kind.
    """

    def __init__(self, space: Space):
        self.space = space
        choices: list[int] = []
        bounds: list[np.ndarray] = []
        self._leaves: list[_Leaf] = []
        self._collect(space, choices, bounds)
        self.choices = tuple(choices)
        self.low, self.high = np.concatenate([np.zeros((2, 0), np.float32), *bounds], 1)
        self.size = len(self.low)
        self.centre, self.radius = _scale(self.low, self.high)
        self.shape: tuple[int, ...] = () if isinstance(space, Discrete) else (len(self.choices) + self.size,)
        self.dtype = np.float32 if self.size else np.int64
        leaf = self._leaves[0] if len(self._leaves) == 1 else None
        self._start = int(getattr(space, "start", 0)) if isinstance(space, Discrete) else 0
        self._kind = space.dtype if isinstance(space, Discrete) else None
        """Type of the actions of a Discrete space; None for other spaces."""
        self._is_plain = (
            isinstance(space, Box) and leaf is not None and leaf.starts is leaf.fine is None and space.dtype == np.float32
        )
        """Whether scaled actions are actions of the space already: those of a Box of float32, whose bounds they keep."""
        self._tensors = [rl.tensor(values) for values in (self.low, self.high, self.centre, self.radius)]

    def _collect(self, space: Space, choices: list[int], bounds: list[np.ndarray]) -> None:
        """Append the number of options of each choice and the bounds, float32 (2, components), of a space and its parts."""
        if isinstance(space, Tuple):
            for part in space.spaces:
                self._collect(part, choices, bounds)
            return
        if isinstance(space, Dict):
            for part in space.spaces.values():
                self._collect(part, choices, bounds)
            return
        if isinstance(space, Box) and not _is_choice(space):
            exact = np.stack([np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high)])
            with np.errstate(over="ignore"):
                pair = exact.astype(np.float32)
            fine = None
            if _needs_float64(space, exact):
                centre, radius = _scale(*exact)
                fine = centre, np.where(radius > 0, radius, 1)
                pair = np.stack([(bound - fine[0]) / fine[1] for bound in exact]).astype(np.float32)
            self._leaves.append(_Leaf(sum(b.shape[1] for b in bounds), pair.shape[1], None, fine))
            bounds.append(pair)
            return
        counts, starts = _choices(space)
        self._leaves.append(_Leaf(len(choices), len(counts), starts))
        choices.extend(counts)

    @property
    def starts(self) -> np.ndarray:
        """First value of each choice in the space, int64 (choices,)."""
        return np.concatenate([np.zeros(0, np.int64), *[leaf.starts for leaf in self._leaves if leaf.starts is not None]])

    @property
    def is_fine(self) -> bool:
        """Whether components are scaled in float64, because float32 would merge values of the space."""
        return any(leaf.fine is not None for leaf in self._leaves)

    @property
    def num_masked(self) -> int:
        """Number of entries of an action mask: the options of all choices."""
        return sum(self.choices)

    def scaled(self, actions: rl.Tensor) -> rl.Tensor:
        """Scale the components of a policy's actions (batch, *shape) to the bounds of the space. Choices still count from 0.

        Returns a tensor (batch, choices + size), or ``actions`` itself without components.
        """
        if not self.size:
            return actions
        low, high, centre, radius = self._tensors
        actions = actions.reshape(len(actions), len(self.choices) + self.size)
        count = len(self.choices)
        components = rl.minimum(rl.maximum(centre + radius * actions[:, count:], low), high)
        return rl.cat([actions[:, :count], components], 1) if count else components

    def to_space(self, scaled: np.ndarray) -> SpaceActions:
        """Return actions of the space for the result of `scaled` as an array."""
        if isinstance(self.space, Discrete):
            return (scaled.reshape(-1).astype(np.int64) + self._start).astype(self._kind)
        rows = scaled.reshape(len(scaled), len(self.choices) + self.size)
        return self.assemble(rows[:, : len(self.choices)].astype(np.int64), rows[:, len(self.choices) :])

    def __call__(self, actions: rl.Tensor) -> SpaceActions:
        """Return actions of the space for a policy's actions (batch, *shape)."""
        return self.of_scaled(self.scaled(actions))

    def of_scaled(self, scaled: rl.Tensor) -> SpaceActions:
        """Return actions of the space for a batch of `scaled` actions."""
        if self._kind is not None and scaled.sizes == (1,):
            # NumPy's arithmetic takes longer than a small policy
            return np.array([int(scaled.item()) + self._start], self._kind)
        values = np.empty(scaled.sizes, scaled.dtype.numpy)  # a copy, so that the memory can be used again
        scaled.copy_to(values)
        return values.reshape(-1, *(self.space.shape or ())) if self._is_plain else self.to_space(values)

    def single_of_scaled(self, scaled: rl.Tensor) -> Any:
        """Return the action of the space for a batch of one `scaled` action; its type depends on the space."""
        if self._kind is not None and scaled.sizes == (1,):
            return self._kind.type(int(scaled.item()) + self._start)
        if self._is_plain and scaled.sizes == (1, *(self.space.shape or ())):
            values = np.empty(scaled.sizes, np.float32)
            scaled.copy_to(values)
            return values[0]
        return single(self.of_scaled(scaled))

    def to_policy(self, actions: SpaceActions) -> np.ndarray:
        """Return the policy's actions (batch, *shape) for actions of the space: the inverse of calling the mapping.

        A call clips components to the bounds of the space, so a component outside [-1, 1] is not restored.
        """
        choices: list[np.ndarray] = []
        components: list[np.ndarray] = []
        parts = iter(self._leaves)

        def collect(space: Space, batch: SpaceActions) -> None:
            if isinstance(space, Tuple):
                for part, values in zip(space.spaces, batch, strict=True):
                    collect(part, values)
                return
            if isinstance(space, Dict):
                for name, part in space.spaces.items():
                    collect(part, batch[name])
                return
            leaf = next(parts)
            values = np.asarray(batch).reshape(len(batch), leaf.numbers)
            if leaf.starts is not None:
                choices.append(values.astype(np.int64) - leaf.starts)
                return
            inside = slice(leaf.first, leaf.first + leaf.numbers)
            centre, radius = leaf.fine or (self.centre[inside], self.radius[inside])
            components.append((values.astype(np.float64) - centre) / np.where(radius > 0, radius, 1))

        collect(self.space, actions)
        joined = np.concatenate([*choices, *components], 1).astype(self.dtype)
        return joined.reshape(len(joined), *self.shape)

    def assemble(self, choices: np.ndarray, components: np.ndarray) -> SpaceActions:
        """Return actions of the space for choices counted from 0, int64 (batch, choices), and scaled components (batch, size)."""
        parts = iter(self._leaves)

        def build(space: Any) -> SpaceActions:  # Any: a Space of Gymnasium may lack a shape, but the parts found here have one
            if isinstance(space, Tuple):
                return tuple(build(part) for part in space.spaces)
            if isinstance(space, Dict):
                return {name: build(part) for name, part in space.spaces.items()}
            leaf = next(parts)
            stop = leaf.first + leaf.numbers
            if leaf.starts is None:
                return _within(space, components[:, leaf.first : stop], leaf.fine)
            indices = (choices[:, leaf.first : stop] + leaf.starts).astype(space.dtype)
            return indices.reshape(-1, *space.shape)

        return build(self.space)


def _scale(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and radius that scale [-1, 1] to bounds: 0 and 1 without bounds; with one bound, [-1, 1] begins or ends at the bound."""
    has_low = np.abs(low) < LARGEST_SCALE
    has_high = np.abs(high) < LARGEST_SCALE
    lower, upper = (np.where(has, bound, bound.dtype.type(0)) for has, bound in ((has_low, low), (has_high, high)))
    both = has_low & has_high
    centre = np.where(both, (lower + upper) / 2, lower + upper + has_low * 1 - has_high * 1)
    radius = np.where(both, (upper - lower) / 2, 1)
    return centre.astype(low.dtype), radius.astype(low.dtype)


def _is_choice(space: Box) -> bool:
    """Whether each component of a Box is a choice: an integer with few possible values."""
    if np.issubdtype(space.dtype, np.floating):
        return False
    low, high = (np.asarray(bound).ravel().astype(object) for bound in (space.low, space.high))
    return all(int(b) - int(a) < MOST_CHOICES for a, b in zip(low, high, strict=True))


def _needs_float64(space: Box, exact: np.ndarray) -> bool:
    """Whether a Box must be scaled in float64: it holds integers, or float32 would merge values between its bounds.

    ``exact`` are the bounds, float64 (2, components).
    """
    if not np.issubdtype(space.dtype, np.floating):
        return True
    low, high = exact
    scaled = (np.abs(exact) < LARGEST_SCALE).all(0) & (high > low)
    return space.dtype == np.float64 and bool(((high - low)[scaled] < FINEST_WIDTH * np.abs(exact).max(0)[scaled]).any())


def _within(space: Box, components: np.ndarray, fine: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Return values of a Box (batch, *shape) for components (batch, numbers); ``fine`` is as in `_Leaf`."""
    values = components
    if fine is not None:
        centre, radius = fine
        values = centre + radius * values.astype(np.float64)
    values = values.reshape(-1, *space.shape)
    if np.issubdtype(space.dtype, np.floating):
        with np.errstate(over="ignore"):
            return np.clip(values.astype(space.dtype), space.low, space.high)  # rounding may exceed the bounds
    limits = np.iinfo(space.dtype)  # type: ignore[type-var]
    # float64 cannot represent the largest int64: a cast of a larger float64 would wrap around
    low = max(limits.min, -(2**62))
    high = min(limits.max, 2**62)
    return np.clip(np.clip(np.rint(values), low, high).astype(space.dtype), space.low, space.high)


def _choices(space: Space) -> tuple[list[int], np.ndarray]:
    """Number of options and first value of each choice of a space. Raises TypeError if the space is not made of choices."""
    if isinstance(space, Discrete):
        return [int(space.n)], np.array([space.start], np.int64)
    if isinstance(space, MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()], np.asarray(space.start, np.int64).ravel()
    if isinstance(space, MultiBinary):
        count = math.prod(space.shape)
        return [2] * count, np.zeros(count, np.int64)
    if isinstance(space, Box):  # of integers
        low, high = (np.asarray(bound).ravel().astype(object) for bound in (space.low, space.high))
        return [int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)], np.array([int(a) for a in low], np.int64)
    raise TypeError(f"{type(space).__name__} is not an action space that a policy can act in")


def single(actions: SpaceActions) -> Any:
    """Return the first action of a batch; its type depends on the space."""
    if isinstance(actions, tuple):
        return tuple(single(part) for part in actions)
    if isinstance(actions, dict):
        return {name: single(part) for name, part in actions.items()}
    return actions[0]


# --- masks -----------------------------------------------------------------------------------------------------------


def choices_of(space: Space) -> list[int]:
    """Number of options of each choice, as `ActionMapping.choices`; empty for a space without choices or of an unknown kind."""
    if isinstance(space, Tuple):
        return [count for part in space.spaces for count in choices_of(part)]
    if isinstance(space, Dict):
        return [count for part in space.spaces.values() for count in choices_of(part)]
    if isinstance(space, Box) and not _is_choice(space):
        return []
    try:
        return _choices(space)[0]
    except TypeError:
        return []


def options_of(space: Space) -> int:
    """Number of entries in an action mask for a space: the options of all its choices, 0 without choices."""
    return int(space.n) if isinstance(space, Discrete) else sum(choices_of(space))


def mask_row(space: Space, given: Any) -> np.ndarray:
    """Convert an action mask for a space to a new row, bool (options,), True for allowed options.

    ``given`` may be an array or list of that size, with True or 1 for allowed options and False or 0 for the others. It may also be a
    mask for ``space.sample(mask)``:

    - MultiDiscrete: a tuple with one row per choice;
    - MultiBinary: an array of its shape, where 0 and 1 fix an entry and 2 leaves it free;
    - Tuple or Dict: a tuple or dict with one mask per part, where a missing part or None allows everything.

    Raises ValueError for anything else, such as numbers to be added to logits. ``given`` has type Any because it comes from a user's
    environment.
    """
    by_parts = isinstance(given, (tuple, list)) and any(one is None or isinstance(one, _PARTS) for one in given)
    if isinstance(space, Tuple) and by_parts and len(given) == len(space.spaces):
        return np.concatenate([_mask_part(part, one) for part, one in zip(space.spaces, given, strict=True)])
    if isinstance(space, Dict) and isinstance(given, dict):
        unknown = [name for name in given if name not in space.spaces]
        if unknown:
            raise ValueError(f"it has a part {unknown[0]!r}, which {space} lacks")
        return np.concatenate([_mask_part(part, given.get(name)) for name, part in space.spaces.items()])
    if isinstance(space, MultiDiscrete) and isinstance(given, (tuple, list)):
        given = np.array(_flat(given))
    options = options_of(space)
    found = np.asarray(given)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"it is {type(given).__name__} of {found.dtype}, not {options} numbers or bools")
    if isinstance(space, MultiBinary) and found.shape == space.shape:
        _require_among(found, (0, 1, 2))
        return np.stack([found != 1, found != 0], -1).ravel()
    if found.size != options:
        raise ValueError(f"it has shape {found.shape} for {options} actions of {space}")
    return as_allowed(found).ravel()


def as_allowed(mask: np.ndarray) -> np.ndarray:
    """Return a mask as bool. Raises ValueError if it holds anything but True, False, 1 and 0."""
    if mask.dtype != np.bool_:
        _require_among(mask, (0, 1))
    return mask.astype(np.bool_)


def _require_among(mask: np.ndarray, allowed: tuple[int, ...]) -> None:
    """Raise ValueError, naming the first other value, if a mask holds a value that is not ``allowed``."""
    strange = mask[~np.isin(mask, allowed)]
    if strange.size:
        meaning = "1 or True allows an action, and 0 or False forbids it"
        if 2 in allowed:
            meaning = "0 and 1 fix an entry, and 2 leaves it free"
        raise ValueError(f"it holds {strange[0]:g}, but {meaning}")


_PARTS = (tuple, list, dict, np.ndarray)


def _mask_part(space: Space, given: Any) -> np.ndarray:
    """Convert the mask of one part of a Tuple or Dict to a row; None allows everything."""
    return np.ones(options_of(space), bool) if given is None or not options_of(space) else mask_row(space, given)


def _flat(given: Any) -> list[Any]:
    """Return the numbers in nested tuples, lists and arrays as one list."""
    if isinstance(given, (tuple, list)) or (isinstance(given, np.ndarray) and given.ndim):
        return [number for part in given for number in _flat(part)]
    return [given]


# --- evolved networks ------------------------------------------------------------------------------------------------

_RANGES = {
    **dict.fromkeys(("sigmoid", "steepened_sigmoid", "step", "gauss", "sech"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "sin", "sign", "clamped"), (-1.0, 1.0)),
}
"""Range of each bounded activation."""


class OutputArrays(NamedTuple):
    """An `OutputMapping` as arrays, for kernels."""

    choices: np.ndarray  # int64 (choices,): options of each choice
    start: np.ndarray  # float32 (choices,): first value of each choice
    # float32 (size,) each: a component is offset + (output - first) * scale, clipped to low and high
    offset: np.ndarray
    first: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray


class OutputMapping:
    """Maps the outputs of an evolved network to actions of ``space``.

    Each choice has one output per option, and the option with the largest output is chosen. Each continuous component has one output. If
    the activation and the component are bounded, the range of the activation is scaled to the bounds of the component. Otherwise the
    output is scaled as a policy's component, from [-1, 1], and clipped to the bounds. A component of NaN, which a diverging recurrent
    network may return, counts as 0.

    Raises TypeError if `ActionMapping` does not accept ``space``.
    """

    def __init__(self, space: Space, output_activation: str):
        self.space = space
        self.actions = ActionMapping(space)
        self.outputs = self.actions.num_masked + self.actions.size
        low = self.actions.low
        high = self.actions.high
        first, last = _RANGES.get(output_activation, (0.0, 0.0))
        bounded = (np.abs(low) < LARGEST_SCALE) & (np.abs(high) < LARGEST_SCALE)
        stretched = bounded & (last > first)
        offset = np.where(stretched, low, self.actions.centre).astype(np.float32)
        width = np.where(stretched, high, 0.0) - np.where(stretched, low, 0.0)
        largest = np.finfo(np.float32).max
        # native environments count the actions of a Discrete space from 0
        start = np.zeros(1) if isinstance(space, Discrete) else self.actions.starts
        self.arrays = OutputArrays(
            np.array(self.actions.choices, np.int64),
            start.astype(np.float32),
            offset,
            np.where(stretched, first, 0.0).astype(np.float32),
            np.where(stretched, width / ((last - first) or 1.0), self.actions.radius).astype(np.float32),
            np.maximum(low, -largest),
            np.minimum(high, largest),
        )
        self._tensors = [rl.tensor(values) for values in self.arrays[2:]]

    def __call__(self, outputs: np.ndarray, action_mask: np.ndarray | None = None) -> SpaceActions:
        """Return actions of the space for outputs (batch, outputs), among the options that a mask, bool (batch, options), allows."""
        count = self.actions.num_masked
        options = outputs[:, :count]
        if action_mask is not None:
            options = np.where(np.asarray(action_mask, bool), options, -np.inf)
        groups = np.split(options, np.cumsum(self.actions.choices)[:-1], axis=1) if self.actions.choices else []
        chosen = [group.argmax(1) for group in groups]
        m = self.arrays
        with np.errstate(invalid="ignore", over="ignore"):
            values = m.offset + (outputs[:, count:] - m.first) * m.scale
        values = np.clip(np.where(np.isnan(values), np.float32(0), values), m.low, m.high)
        return self.actions.assemble(np.stack(chosen, 1) if chosen else np.zeros((len(outputs), 0), np.int64), values)

    def scaled(self, outputs: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The same for tensors: actions as `ActionMapping.scaled` returns them, (batch, *shape)."""
        count = self.actions.num_masked
        options = outputs[:, :count]
        if action_mask is not None:
            options = options.masked_fill(~action_mask, -math.inf)
        groups = options.split(list(self.actions.choices), 1) if count else ()
        chosen = [group.argmax(1) for group in groups]
        if not self.actions.size:
            return chosen[0] if self.actions.shape == () else rl.stack(chosen, 1)
        values = self.components(outputs)
        return rl.cat([rl.stack(chosen, 1).float(), values], 1) if chosen else values

    def components(self, outputs: rl.Tensor) -> rl.Tensor:
        """The continuous components (batch, size), scaled to the bounds of the space."""
        offset, first, scale, low, high = self._tensors
        values = offset + (outputs[:, self.actions.num_masked :] - first) * scale
        return rl.minimum(rl.maximum(rl.where(values.isnan(), 0.0, values), low), high)


Policy = Callable[["Moment"], dict[str, rl.Tensor]]
"""A function that returns ``actions`` (batch, *shape of `ActionMapping`) and optionally more tensors (batch, ...), by name."""


class Moment(NamedTuple):
    """A policy's input in ``n`` environments.

    ``observations`` is (n, ...), uint8 or bool if the space has that dtype, else float32. ``elapsed``, int64 (n,), is the number of steps
    of the episode so far, 0 at its first observation. ``action_mask``, bool (n, options), is True for allowed options, or None if the
    environments give no masks.
    """

    observations: rl.Tensor
    elapsed: rl.Tensor
    action_mask: rl.Tensor | None = None
