"""Store observations that are stacks of frames with each frame once. Sampling a batch builds its stacks."""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_lab import serialization
from rl_lab.engine.dtype import bool_, float32, uint8
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.rollout import kernels
from rl_lab.serialization import Rows, Segment

_DTYPES = {np.dtype(np.uint8): uint8, np.dtype(np.bool_): bool_, np.dtype(np.float32): float32}


class FrameStore:
    """A ring buffer of the observations of ``capacity`` transitions, written in whole steps of ``num_envs`` environments.

    An observation of ``shape`` (frames, ...) and ``dtype`` consists of the latest frames of its episode, oldest first. At the start of
    an episode its first frame is repeated. The frame that ends an episode has a row of its own, which becomes free when its transition
    is overwritten.

    ``counts``, int64 (3,), holds the number of stored transitions, the position of the next one, and the number of all transitions so
    far. `add` updates the last of these; the caller updates the others after `add`.
    """

    def __init__(self, capacity: int, num_envs: int, shape: tuple[int, ...], dtype: npt.DTypeLike, counts: np.ndarray):
        self.capacity = capacity
        self.num_envs = num_envs
        self.shape = shape
        self.stack = shape[0]
        self.dtype = np.dtype(dtype)
        self.rows = capacity + self.stack * num_envs  # the oldest transition also needs the frames before it
        frame = shape[1:]
        self._frames = np.zeros((self.rows, *frame), dtype)
        self._latest = np.zeros((num_envs, *frame), dtype)  # the frame after the newest transition of each environment
        self._finals = _lazy_zeros((capacity, *frame), self.dtype)
        self._final = np.full(
            capacity, -1, np.int64
        )  # row in `_finals` of the frame after each transition that ended an episode
        self._elapsed = np.zeros(capacity, np.int64)  # frames of the same episode before each transition, at most `stack`
        self._free: list[int] = []  # rows of `_finals` that were used and are free again
        self._used = 0  # rows of `_finals` that were ever used
        self._counts = counts
        self.tensors = [from_numpy(a) for a in (self._frames, self._latest, self._finals, self._final, self._elapsed)]
        self.size = int(np.prod(frame))
        self._digests: dict[int, tuple[object, str]] = {}

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(self, observations: np.ndarray, following: np.ndarray, ended: np.ndarray, begins: np.ndarray) -> None:
        """Append transitions at the position in ``counts``.

        ``observations`` and ``following`` are (count, frames, ...), where ``count`` is a multiple of ``num_envs``. ``ended``, bool
        (count,), marks the last transition of an episode. ``begins``, bool (num_envs,), marks the environments whose first new
        transition begins an episode.
        """
        n = self.num_envs
        position = int(self._counts[1])
        total = int(self._counts[2])
        if total == 0:
            self._remember(observations[:n])
        last = (position - n) % self.capacity + np.arange(n)
        elapsed = np.where(begins, 0, np.minimum(self._elapsed[last] + 1, self.stack))
        for first in range(0, len(ended), n):
            place = (position + first) % self.capacity
            rows = slice(place, place + n)
            self._release(rows)
            self._frames[(total + first + np.arange(n)) % self.rows] = observations[first : first + n, -1]
            self._elapsed[rows] = elapsed
            self._latest[:] = following[first : first + n, -1]
            for i in map(int, np.flatnonzero(ended[first : first + n])):
                self._keep_final(place + i, self._latest[i])
            elapsed = np.where(ended[first : first + n], 0, np.minimum(elapsed + 1, self.stack))
        self._counts[2] = total + len(ended)

    def _remember(self, observations: np.ndarray) -> None:
        """Store the older frames of the very first observations (num_envs, frames, ...), whose episodes may have begun before."""
        n = self.num_envs
        for back in range(1, self.stack):
            self._frames[(np.arange(n) - back * n) % self.rows] = observations[:, self.stack - 1 - back]
        self._elapsed[(int(self._counts[1]) - n) % self.capacity + np.arange(n)] = self.stack

    def _release(self, rows: slice) -> None:
        """Free the frames that end episodes of these transitions, which are about to be overwritten."""
        kept = self._final[rows]
        self._free.extend(kept[kept >= 0].tolist())
        self._final[rows] = -1

    def _keep_final(self, place: int, frame: np.ndarray) -> None:
        """Store the frame that ended an episode after the transition at ``place``."""
        if self._free:
            row = self._free.pop()
        else:
            row = self._used
            self._used += 1
        self._finals[row] = frame
        self._final[place] = row

    def end_episode(self, place: int) -> None:
        """End the episode after the transition at ``place``, which must be the newest of its environment."""
        if self._final[place] < 0:
            self._keep_final(place, self._latest[place % self.num_envs])

    # --- reading -----------------------------------------------------------------------------------------------------

    def gather(self, index: Tensor, place: Tensor, following: bool) -> Tensor:
        """Return the observations (batch, frames, ...) of the transitions at ``index``, int64 (batch,).

        With ``following`` returns the next observations instead. ``place`` is the tensor over ``counts``.
        """
        batch = index.shape[0]
        out = empty((batch, *self.shape), _DTYPES[self.dtype])
        kernel = kernels.gather_stacks if self.dtype == np.float32 else kernels.gather_stacks_of_bytes
        numbers = (batch, self.stack, self.size, self.capacity, self.rows, self.num_envs, following)
        launch(kernel, (out, *self.tensors, index, place), numbers)
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of a full buffer, without the frames that end episodes."""
        return self._frames.nbytes

    def is_finite(self) -> bool:
        """Whether all frames are finite."""
        return self.dtype.kind != "f" or bool(np.isfinite(self._frames).all() and np.isfinite(self._latest).all())

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the frames that the stored transitions need, oldest first, and the frames and elapsed steps of each transition."""
        size, total = int(self._counts[0]), int(self._counts[2])
        first = total - size - (self.stack - 1) * self.num_envs
        rows = np.arange(first, total) % self.rows
        ends = np.flatnonzero(self._final[:size] >= 0)
        length = max(1, serialization.SEGMENT_BYTES // max(1, self.size * self.dtype.itemsize))
        blocks = range(first // length, -(-total // length)) if total > first else range(0)
        # frames by their number among all so far: each block of numbers is one segment, which does not change once it is complete
        spans = [(max(b * length, first), min((b + 1) * length, total)) for b in blocks]
        before = 1 + self.stack * self.num_envs // length  # added to keys, which must not be negative
        segments = [
            Segment(b + before, low - first, high - first, (low, high)) for b, (low, high) in zip(blocks, spans, strict=True)
        ]
        return {
            "frames": Rows({"frames": self._frames[rows]}, segments, self._digests),
            "latest": self._latest.copy(),
            "elapsed": self._elapsed[:size].copy(),
            "ends": ends,
            "finals": self._finals[self._final[ends]],
            "total": total,
        }

    def load_state_dict(self, state: dict[str, Any], size: int) -> None:
        """Continue from a `state_dict` of ``size`` transitions. Raises ShapeError if it does not fit."""
        total = int(state["total"])
        kept = state["frames"]
        frames = np.asarray(kept["frames"] if isinstance(kept, dict) else kept)  # an older version saved the array itself
        ends = np.asarray(state["ends"], np.int64)
        count = size + (self.stack - 1) * self.num_envs
        finals = np.asarray(state["finals"])
        wanted = {"frames": (count, *self.shape[1:]), "finals": (len(ends), *self.shape[1:])}
        for name, found in (("frames", frames), ("finals", finals)):
            if found.shape != wanted[name] or found.dtype.kind != self.dtype.kind:
                raise ShapeError(
                    f"the saved {name} have shape {found.shape} and dtype {found.dtype}, not {wanted[name]} and {self.dtype}"
                )
        elapsed = np.asarray(state["elapsed"], np.int64)
        if len(elapsed) != size or total < size or ((ends < 0) | (ends >= size)).any() or (elapsed < 0).any():
            raise ShapeError("the saved frames do not belong to the saved transitions")
        self._digests = {}
        self._frames[np.arange(total - count, total) % self.rows] = frames
        self._latest[:] = np.asarray(state["latest"])
        self._elapsed[:size] = elapsed
        self._final[:] = -1
        self._final[ends] = np.arange(len(ends))
        self._finals[: len(ends)] = finals
        self._free, self._used = [], len(ends)
        self._counts[2] = total


def _lazy_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros that use memory only once they are written to: few transitions end an episode."""
    size = max(1, int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(mmap.mmap(-1, size), dtype, int(np.prod(shape))).reshape(shape)
