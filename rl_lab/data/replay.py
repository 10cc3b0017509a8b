"""Replay storage: the last transitions, sampled uniformly."""

from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import random as kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.random import Generator
from rl_lab.engine.tensor import empty


class Transitions(NamedTuple):
    """A batch of transitions; the first dimension of each tensor is the batch.

    ``terminated`` is 1 where the environment ended by its own rules and 0 otherwise: a truncated episode goes on in the mind, and
    its ``next_observations`` are the ones before the reset.
    """

    observations: Any
    actions: Any
    rewards: Any
    next_observations: Any
    terminated: Any


class ReplayBuffer:
    """A ring of ``capacity`` transitions (Lin 1992; Mnih et al. 2015).

    Collectors write through NumPy; learners read tensors over the same memory. Everything that sampling depends on, the number of
    stored transitions included, lies in tensors, so that a recorded program can sample.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        action_dtype: Any,
        generator: Generator,
    ):
        if capacity < 1:
            raise ShapeError(f"a replay buffer needs a positive capacity, got {capacity}")
        self.capacity, self.generator = capacity, generator
        self.position = 0
        self.arrays = Transitions(
            np.zeros((capacity, *observation_shape), np.float32),
            np.zeros((capacity, *action_shape), action_dtype),
            np.zeros(capacity, np.float32),
            np.zeros((capacity, *observation_shape), np.float32),
            np.zeros(capacity, np.float32),
        )
        self.tensors = Transitions(*[from_numpy(array) for array in self.arrays])
        self._size = np.zeros(1, np.int64)
        self._size_tensor = from_numpy(self._size)

    def __len__(self) -> int:
        return int(self._size[0])

    def add(self, transitions: Transitions) -> None:
        """Append a batch of transitions given as arrays; the oldest make room."""
        count = len(transitions.rewards)
        if count > self.capacity:
            raise ShapeError(f"{count} transitions do not fit into a replay buffer of capacity {self.capacity}")
        first = min(count, self.capacity - self.position)
        for target, source in zip(self.arrays, transitions, strict=True):
            target[self.position : self.position + first] = source[:first]
            if first < count:
                target[: count - first] = source[first:]
        self.position = (self.position + count) % self.capacity
        self._size[0] = min(self._size[0] + count, self.capacity)

    def sample(self, batch_size: int) -> Transitions:
        """A batch drawn uniformly with replacement."""
        if not self._size[0]:
            raise ShapeError("an empty replay buffer cannot be sampled")
        index = empty((batch_size,), int64)
        launch(kernels.integers_below, (index, self._size_tensor, self.generator.state), (batch_size,))
        return Transitions(*[tensor.index_select(0, index) for tensor in self.tensors])

    def state_dict(self) -> dict[str, Any]:
        size = len(self)
        arrays = {name: array[:size].copy() for name, array in self.arrays._asdict().items()}
        return {"arrays": arrays, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        size = len(state["arrays"]["rewards"])
        if size > self.capacity:
            raise ShapeError(f"the saved replay buffer holds {size} transitions, this one has room for {self.capacity}")
        for name, array in self.arrays._asdict().items():
            array[:size] = state["arrays"][name]
        self._size[0], self.position = size, int(state["position"])
        self.generator.set_state(state["generator"])
