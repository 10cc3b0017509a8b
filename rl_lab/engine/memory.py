"""Memory for tensors: blocks aligned for vector instructions and used again, because a fresh allocation costs more than a small kernel."""

from typing import Any

import numpy as np

ALIGNMENT = 64
KEEP_PER_SIZE = 32 * 2**20  # bytes of free blocks kept of each size; the rest goes back to the operating system


class Block:
    """A piece of memory at a fixed `address`; ``array`` is its bytes."""

    __slots__ = ("address", "array", "size")

    def __init__(self, size: int):
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.array = raw[start : start + size]
        self.address: int = self.array.ctypes.data
        self.size = size


_free: dict[int, list[Block]] = {}


class Storage:
    """The memory under one tensor and all its views, with the version counter that in-place writes advance.

    ``owner`` keeps the memory alive: a `Block` of the pool, to which it goes back when the storage is dropped, or anything else
    that holds it, such as a NumPy array.
    """

    __slots__ = ("address", "nbytes", "owner", "version")

    owner: Any

    def __init__(self, nbytes: int, _free=_free):
        size = (nbytes + 63) & -64 or 64
        try:
            self.owner = owner = _free[size].pop()
        except (KeyError, IndexError):
            self.owner = owner = Block(size)
        self.address = owner.address
        self.nbytes = nbytes
        self.version = 0

    @classmethod
    def over(cls, array: np.ndarray) -> "Storage":
        """A storage over the memory of a C-contiguous NumPy array, which it keeps alive."""
        storage = object.__new__(cls)
        storage.owner, storage.address, storage.nbytes, storage.version = array, array.ctypes.data, array.nbytes, 0
        return storage

    def alias(self) -> "Storage":
        """The same memory with a version counter of its own (``Tensor.data``)."""
        storage = object.__new__(Storage)
        storage.owner, storage.address, storage.nbytes, storage.version = self, self.address, self.nbytes, 0
        return storage

    def export(self) -> np.ndarray:
        """The bytes as a NumPy array; from now on the memory lives as long as that array or a view of it does."""
        if type(self.owner) is Block:
            self.owner = self.owner.array
        if isinstance(self.owner, Storage):
            return self.owner.export()
        return self.owner.reshape(-1).view(np.uint8)[: self.nbytes]

    def bytes(self) -> np.ndarray:
        """The bytes for writing at once, without handing the memory out."""
        owner = self.owner
        return owner.array[: self.nbytes] if type(owner) is Block else self.export()

    def __del__(self, _free=_free, _block=Block, _keep=KEEP_PER_SIZE):
        owner = self.owner
        if type(owner) is _block:
            size = owner.size
            try:
                blocks = _free[size]
            except KeyError:
                blocks = _free[size] = []
            if len(blocks) * size < _keep:
                blocks.append(owner)
