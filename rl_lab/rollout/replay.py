"""Replay buffers: the latest transitions, sampled uniformly or by priority."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rl_lab import serialization
from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import random as random_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import arange, from_numpy
from rl_lab.engine.random import Generator, rand, randint
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.rollout import kernels
from rl_lab.rollout.frames import FrameStore
from rl_lab.rollout.storage import Transitions
from rl_lab.serialization import Rows, Segment


class Batch(NamedTuple):
    """Sampled transitions of one or several steps as tensors (batch, ...).

    ``rewards`` are the discounted sums of the rewards of these steps. ``discounts`` multiply the value of ``next_observations`` in a
    target: gamma to the number of steps, or 0 after a termination. ``indices``, int64, are positions in the buffer. ``weights`` are
    importance weights; None with uniform sampling.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    discounts: Tensor
    action_masks: Tensor | None = None
    next_action_masks: Tensor | None = None
    indices: Tensor | None = None
    weights: Tensor | None = None


class ReplayBuffer:
    """A ring buffer of ``capacity`` transitions (Lin 1992; Mnih et al. 2015), sampled with n-step returns (Sutton 1988).

    Collectors write to ``arrays``; learners read tensors over the same memory. All inputs of sampling, such as the number of stored
    transitions, are tensors, so a recorded program can sample. The capacity is rounded down to a multiple of ``num_envs``: each
    environment then always writes to the same positions modulo ``num_envs``. With ``frames`` above 1, observations are stacks of that
    many frames along their first dimension, and each frame is stored once, see `FrameStore`. With ``num_masked`` above 0, masks of that
    many options are stored. Raises ShapeError if the capacity is below ``num_envs``.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        action_dtype: npt.DTypeLike,
        generator: Generator,
        *,
        gamma: float = 0.99,
        n_steps: int = 1,
        num_envs: int = 1,
        num_masked: int = 0,
        observation_dtype: npt.DTypeLike = np.float32,
        frames: int = 1,
    ):
        self.capacity = capacity - capacity % num_envs
        if self.capacity < 1:
            raise ShapeError(
                f"the capacity of a replay buffer must be at least {max(1, num_envs)}, one per environment, got {capacity}"
            )
        self.generator = generator
        self.gamma = gamma
        self.n_steps = n_steps
        self.num_envs = num_envs
        n = self.capacity
        self._place = np.zeros(3, np.int64)  # number of stored transitions, position of the next one, number of all so far
        self.frames: FrameStore | None = None
        if frames > 1:
            self.frames = FrameStore(n, num_envs, observation_shape, observation_dtype, self._place)
        kept = () if self.frames is not None else (n, *observation_shape)
        self.arrays = Transitions(  # observations are None if `FrameStore` holds them
            np.zeros(kept, observation_dtype) if kept else None,  # type: ignore[arg-type]
            np.zeros((n, *action_shape), action_dtype),
            np.zeros(n, np.float32),
            np.zeros(kept, observation_dtype) if kept else None,  # type: ignore[arg-type]
            np.zeros(n, np.float32),
            np.zeros(n, np.float32),
            *[np.zeros((n, num_masked), bool) if num_masked else None for _ in range(2)],
        )
        # Any: a tensor, or None where an array is None, see `gather`
        self.tensors: list[Any] = [None if array is None else from_numpy(array) for array in self.arrays]
        self.place = from_numpy(self._place)
        row_bytes = sum(array.nbytes // n for array in self.arrays if array is not None)
        self._segment_rows = max(1, serialization.SEGMENT_BYTES // max(1, row_bytes))
        self._versions = [0] * -(-n // self._segment_rows)
        self._digests: dict[int, tuple[object, str]] = {}
        self._is_empty = True  # a Python value, so that a recorded program need not read the counts in memory

    def __len__(self) -> int:
        return int(self._place[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all transitions of a full buffer."""
        frames = 0 if self.frames is None else self.frames.nbytes
        return frames + sum(array.nbytes for array in self.arrays if array is not None)

    @property
    def position(self) -> int:
        """Index at which the next transition is written."""
        return int(self._place[1])

    def add(self, transitions: Transitions) -> None:
        """Append transitions, overwriting the oldest. Raises ShapeError if they exceed the capacity or are not whole steps."""
        count = len(transitions.rewards)
        start = self.position
        if count > self.capacity:
            raise ShapeError(
                f"{count} transitions do not fit into a replay buffer of capacity {self.capacity}: raise buffer_size"
            )
        if (self.n_steps > 1 or self.frames is not None) and count % self.num_envs:
            raise ShapeError(
                f"with n_steps > 1 or stacked frames transitions are added in whole steps of {self.num_envs} environments, got {count} "
                "transitions"
            )
        if self.frames is not None:
            ended = np.asarray(transitions.terminated, bool) | np.asarray(transitions.truncated, bool)
            self.frames.add(transitions.observations, transitions.next_observations, ended, self._ended_before())
        first = min(count, self.capacity - start)
        for target, source in zip(self.arrays, transitions, strict=True):
            if target is not None and source is not None:
                target[start : start + first] = source[:first]
                if first < count:
                    target[: count - first] = source[first:]
        self._note(start, first)
        self._note(0, count - first)
        self._place[1] = (start + count) % self.capacity
        self._place[0] = min(len(self) + count, self.capacity)
        self._is_empty = not len(self)

    def _ended_before(self) -> np.ndarray:
        """Return where the newest transition of an environment ended an episode, bool (num_envs,)."""
        last = (self.position - self.num_envs) % self.capacity + np.arange(self.num_envs)
        return (self.arrays.terminated[last] + self.arrays.truncated[last]) > 0

    def begin_episodes(self) -> None:
        """Mark the latest transition of each running episode as truncated, so n-step returns end there."""
        for back in range(1, min(self.num_envs, len(self)) + 1):
            place = (self.position - back) % self.capacity
            if not self.arrays.terminated[place]:
                self.arrays.truncated[place] = 1.0
                self._note(place, 1)
                if self.frames is not None:
                    self.frames.end_episode(place)

    def _note(self, start: int, count: int) -> None:
        """Note that ``count`` transitions from ``start`` on were written, so the next checkpoint must write their segments again."""
        if count > 0:
            for i in range(start // self._segment_rows, (start + count - 1) // self._segment_rows + 1):
                self._versions[i] += 1

    def _check(self) -> None:
        """Raise ShapeError if the buffer is empty."""
        if self._is_empty:
            raise ShapeError("the replay buffer is empty: add transitions before sampling")

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch uniformly with replacement. Raises ShapeError if the buffer is empty."""
        self._check()
        index = empty((batch_size,), int64)
        launch(random_kernels.integers_below, (index, self.place, self.generator.state), (batch_size,))
        return self.gather(index)

    def gather(self, index: Tensor) -> Batch:
        """Return the n-step transitions that begin at positions ``index``, int64 (batch,)."""
        observations, actions, rewards, following, terminated, truncated, masks, next_masks = self.tensors
        if self.n_steps == 1:
            last = index
            total = rewards.index_select(0, index)
            discounts = self.gamma * (1.0 - terminated.index_select(0, index))
        else:
            n = index.shape[0]
            total = empty((n,))
            discounts = empty((n,))
            last = empty((n,), int64)
            launch(
                kernels.n_step_returns,
                (total, discounts, last, index, rewards, terminated, truncated, self.place),
                (n, self.capacity, self.num_envs, self.n_steps, self.gamma),
            )
        if self.frames is not None:
            seen = self.frames.gather(index, self.place, following=False)
            next_seen = self.frames.gather(last, self.place, following=True)
        else:
            seen = observations.index_select(0, index)
            next_seen = following.index_select(0, last)
        return Batch(
            seen,
            actions.index_select(0, index),
            total,
            next_seen,
            discounts,
            None if masks is None else masks.index_select(0, index),
            None if next_masks is None else next_masks.index_select(0, last),
            index,
        )

    def first_not_finite(self) -> str:
        """Return the name of the first part of the stored transitions that is not finite, such as "rewards"; empty if all are finite."""
        parts = [
            (name, array) for name, array in self.arrays._asdict().items() if array is not None and array.dtype.kind == "f"
        ]
        strange = next((name for name, array in parts if not np.isfinite(array[: len(self)]).all()), "")
        return strange or ("" if self.frames is None or self.frames.is_finite() else "observations")

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the stored transitions, the position of the next one, and the state of the generator."""
        size = len(self)
        arrays = {name: array[:size].copy() for name, array in self.arrays._asdict().items() if array is not None}
        length = self._segment_rows
        segments = [Segment(i, i * length, min((i + 1) * length, size), self._versions[i]) for i in range(-(-size // length))]
        rows = Rows(arrays, segments, self._digests)
        state = {"arrays": rows, "position": self.position, "generator": self.generator.get_state()}
        return state if self.frames is None else {**state, "frames": self.frames.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ShapeError if it does not fit this buffer."""
        size = len(state["arrays"]["rewards"])
        position = int(state["position"])
        if size > self.capacity:
            raise ShapeError(f"the saved replay buffer holds {size} transitions, but this one has capacity {self.capacity}")
        if not 0 <= position < self.capacity or (size < self.capacity and position != size):
            raise ShapeError(f"the saved replay buffer has {size} transitions, so its next position cannot be {position}")
        arrays = {name: array for name, array in self.arrays._asdict().items() if array is not None}
        for name, array in arrays.items():
            _require_like(name, state["arrays"][name], (size, *array.shape[1:]), array.dtype)
        for name, array in arrays.items():
            array[:size] = state["arrays"][name]
        self._note(0, size)
        self._place[:2] = size, position
        if self.frames is not None and "frames" in state:
            self.frames.load_state_dict(state["frames"], size)
        elif self.frames is not None:
            self._load_stacks(state["arrays"], size, position)
        self._is_empty = not size
        self.generator.set_state(state["generator"])

    def _load_stacks(self, arrays: dict[str, Any], size: int, position: int) -> None:
        """Store the frames of ``size`` whole stacks, oldest first: an older version saved stacks. Raises ShapeError if they do not fit."""
        assert self.frames is not None
        if size % self.num_envs:
            raise ShapeError(
                f"the saved replay buffer holds {size} transitions, not whole steps of {self.num_envs} environments"
            )
        for name in ("observations", "next_observations"):
            _require_like(name, arrays[name], (size, *self.frames.shape), self.frames.dtype)
        ended = (self.arrays.terminated + self.arrays.truncated) > 0
        begins = np.zeros(self.num_envs, bool)
        self._place[2] = 0
        for first in range(0, size, self.num_envs):
            self._place[1] = (position - size + first) % self.capacity
            rows = slice(self.position, self.position + self.num_envs)
            seen, following = (np.asarray(arrays[name])[rows] for name in ("observations", "next_observations"))
            self.frames.add(seen, following, ended[rows], begins)
            begins = ended[rows]
        self._place[1] = position


class PrioritizedReplayBuffer(ReplayBuffer):
    """A replay buffer sampled in proportion to priorities (Schaul et al. 2016, "Prioritized experience replay", section 3.3).

    A transition's priority is (|error| + ``least``) ** ``exponent``, from its latest temporal-difference error. `Batch.weights` are
    importance weights with the exponent ``correction``, a tensor (1,) whose value the agent increases to 1. The other arguments are
    those of `ReplayBuffer`.
    """

    def __init__(self, *arguments: Any, exponent: float = 0.6, least: float = 1e-6, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.exponent = exponent
        self.least = least
        self.leaves = 1 << max(0, self.capacity - 1).bit_length()
        self._tree = np.zeros(2 * self.leaves, np.float32)
        self._highest = np.ones(1, np.float32)
        self.tree = from_numpy(self._tree)
        self.highest = from_numpy(self._highest)
        self.correction = from_numpy(np.ones(1, np.float32))

    def add(self, transitions: Transitions) -> None:
        """Append transitions with the highest priority so far. Raises ShapeError as `ReplayBuffer.add`."""
        start = self.position
        count = len(transitions.rewards)
        super().add(transitions)
        launch(kernels.insert_priorities, (self.tree, self.highest), (start, count, self.capacity, self.leaves))

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch by priority, one transition from each of ``batch_size`` equal slices of the total priority.

        Raises ShapeError if the buffer is empty.
        """
        self._check()
        index = empty((batch_size,), int64)
        weights = empty((batch_size,))
        tensors = (index, weights, self.tree, self.place, self.correction, self.generator.state)
        launch(kernels.sample_priorities, tensors, (batch_size, self.leaves))
        return self.gather(index)._replace(weights=weights)

    def update_priorities(self, indices: Tensor, errors: Tensor) -> None:
        """Set the priorities of the transitions at ``indices``, int64 (batch,), from their temporal-difference errors (batch,)."""
        numbers = (indices.shape[0], self.leaves, self.exponent, self.least)
        launch(kernels.update_priorities, (self.tree, self.highest, indices, errors.detach().contiguous()), numbers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of `ReplayBuffer.state_dict`, the sum tree and the highest priority."""
        return {**super().state_dict(), "tree": self._tree.copy(), "highest": self._highest.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ShapeError if it does not fit this buffer."""
        _require_like("tree", state["tree"], self._tree.shape, self._tree.dtype)
        _require_like("highest", state["highest"], self._highest.shape, self._highest.dtype)
        super().load_state_dict(state)
        self._tree[:] = state["tree"]
        self._highest[:] = state["highest"]


class SequenceReplayBuffer(ReplayBuffer):
    """A replay buffer for recurrent agents: sequences of steps, and the memory of the agent before each step.

    ``memory`` is the number of units of the memory. The other arguments are those of `ReplayBuffer`, without ``n_steps``. Transitions are
    added in whole steps of the environments. Source: Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement
    learning", section 3, the stored state.
    """

    def __init__(self, *arguments: Any, memory: int, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._memories = np.zeros((self.capacity, memory), np.float32)
        self.memories = from_numpy(self._memories)

    @property
    def nbytes(self) -> int:
        """Bytes of all transitions and memories of a full buffer."""
        return super().nbytes + self._memories.nbytes

    def add(self, transitions: Transitions, memories: np.ndarray | None = None) -> None:
        """Append transitions with the memories before them, float32 (transitions, memory), or zeros.

        Raises ShapeError as `ReplayBuffer.add`, also if the transitions are not whole steps or the memories do not fit.
        """
        count = len(transitions.rewards)
        given = np.zeros((count, self._memories.shape[1]), np.float32) if memories is None else memories
        if count % self.num_envs or given.shape != (count, self._memories.shape[1]):
            raise ShapeError(
                f"whole steps of {self.num_envs} environments with memories of {self._memories.shape[1]} units are needed, got "
                f"{count} transitions and memories {list(given.shape)}"
            )
        start = self.position
        super().add(transitions)
        first = min(count, self.capacity - start)
        self._memories[start : start + first] = given[:first]
        self._memories[: count - first] = given[first:]

    def sample_sequences(self, batch_size: int, length: int) -> tuple[Batch, Tensor, Tensor]:
        """Draw sequences of ``length`` consecutive steps of one environment each, uniformly with replacement.

        Returns the transitions, flattened from (length, batch_size, ...); bool (length, batch_size), True where a step ended its episode;
        and the memories (batch_size, memory) before the sequences. Raises ShapeError if the buffer is empty. At least ``length`` steps of
        each environment must be stored.
        """
        self._check()
        n = self.num_envs
        count, position = self.place[0], self.place[1]
        starts = count // n - (length - 1)  # numbers of steps, from the oldest one, at which a sequence can begin
        drawn = (rand(batch_size, generator=self.generator) * starts.float()).long().minimum(starts - 1)
        env = randint(0, n, (batch_size,), generator=self.generator)
        first = position - count + drawn * n + env
        index = (first + arange(length).unsqueeze(1) * n) % self.capacity  # (length, batch_size)
        flat = index.flatten()
        _, _, _, _, terminated, truncated, _, _ = self.tensors
        ended = terminated.index_select(0, flat) + truncated.index_select(0, flat) > 0
        return self.gather(flat), ended.reshape(length, batch_size), self.memories.index_select(0, index[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the state of `ReplayBuffer.state_dict` and the memories."""
        return {**super().state_dict(), "memories": self._memories[: len(self)].copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ShapeError if it does not fit this buffer."""
        size = len(state["arrays"]["rewards"])
        _require_like("memories", state["memories"], (size, self._memories.shape[1]), self._memories.dtype)
        super().load_state_dict(state)
        self._memories[:size] = state["memories"]


def _require_like(name: str, saved: npt.ArrayLike, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Raise ShapeError unless a saved array has this shape and kind of number."""
    array = np.asarray(saved)
    if array.shape != shape or array.dtype.kind != np.dtype(dtype).kind:
        raise ShapeError(f"the saved {name} has shape {array.shape} and dtype {array.dtype}, not {shape} and {dtype}")
