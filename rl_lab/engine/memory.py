"""Memory for tensors: blocks aligned for vector instructions and used again, because a fresh allocation costs more than a small kernel."""

import numpy as np

ALIGNMENT = 64
POOL_LIMIT = 512 * 2**20  # bytes of free memory that are kept; beyond that blocks go back to the operating system


class Block:
    """A piece of memory at a fixed `address`; ``array`` is its bytes."""

    __slots__ = ("address", "array", "size")

    def __init__(self, size: int):
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.array = raw[start : start + size]
        self.address: int = self.array.ctypes.data
        self.size = size


class _Pool:
    def __init__(self) -> None:
        self.free: dict[int, list[Block]] = {}
        self.free_bytes = 0

    def trim(self) -> None:
        self.free.clear()
        self.free_bytes = 0


_pool = _Pool()


class Storage:
    """The memory under one tensor and all its views, with the version counter that in-place writes advance.

    The block goes back to the pool when the storage is dropped, unless NumPy arrays may still look at it (`export`).
    """

    __slots__ = ("address", "block", "keep", "nbytes", "version")

    def __init__(self, nbytes: int, _pool=_pool):
        size = (nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT or ALIGNMENT
        blocks = _pool.free.get(size)
        try:
            block = blocks.pop()  # type: ignore[union-attr]
            _pool.free_bytes -= size
        except (AttributeError, IndexError):
            block = Block(size)
        self.block: Block | None = block
        self.keep: object = None
        self.address = block.address
        self.nbytes = nbytes
        self.version = 0

    @classmethod
    def over(cls, array: np.ndarray) -> "Storage":
        """A storage over the memory of a C-contiguous NumPy array, which it keeps alive."""
        storage = object.__new__(cls)
        storage.block, storage.keep = None, array
        storage.address, storage.nbytes, storage.version = array.ctypes.data, array.nbytes, 0
        return storage

    def alias(self) -> "Storage":
        """The same memory with a version counter of its own (``Tensor.data``)."""
        storage = object.__new__(Storage)
        storage.block, storage.keep = None, self
        storage.address, storage.nbytes, storage.version = self.address, self.nbytes, 0
        return storage

    def export(self) -> np.ndarray:
        """The bytes as a NumPy array; from now on the memory lives as long as that array or a view of it does."""
        if self.block is not None:
            self.keep = self.block.array
            self.block = None
        if isinstance(self.keep, Storage):
            return self.keep.export()
        assert isinstance(self.keep, np.ndarray)
        return self.keep.reshape(-1).view(np.uint8)[: self.nbytes]

    def __del__(self, _pool=_pool):
        block = self.block
        if block is not None and _pool.free_bytes < POOL_LIMIT:
            size = block.size
            try:
                _pool.free[size].append(block)
            except KeyError:
                _pool.free[size] = [block]
            _pool.free_bytes += size
