"""Memory for tensors: blocks aligned for vector instructions, and used again, because fresh memory costs more than a small kernel."""

import threading
from typing import Any

import numpy as np

ALIGNMENT = 64
# What eager code keeps of free blocks; the rest goes back to the operating system.
SMALL = (
    4096  # bytes; blocks up to this size are kept by their size alone, because counting them would cost as much as their use
)
KEEP_PER_SMALL_SIZE = 2 * 2**20  # bytes of free blocks of each small size
KEEP_RECENT = 128 * 2**20  # bytes of larger free blocks of all sizes; as many again may wait for a second use
LARGEST_KEPT = 32 * 2**20  # bytes; a larger block is never kept


class Pool(dict[int, list["Block"]]):
    """Free blocks by size, and those of a recording that rest for one launch more.

    They rest so that what a launch writes is not what the launch before it read: passes can then make one launch of two.

    The pool of eager code is bounded. ``kept`` counts the bytes of its larger blocks; beyond `KEEP_RECENT` all of them become the
    ``older`` ones, from which a block is still taken, and the older ones until then are dropped: sizes that are not used again
    leave after two rounds. Threads count without a lock, so ``kept`` may be off by a few blocks until the next round.
    """

    __slots__ = ("kept", "older", "resting")

    def __init__(self) -> None:
        super().__init__()
        self.resting: list[Block] = []
        self.kept = 0
        self.older: dict[int, list[Block]] = {}

    def make(self, size: int) -> "Block":
        """A block that is not among the recent ones: one of the older, or a new one."""
        if size > SMALL:
            self.kept += size  # the caller counts it as taken
            try:
                return self.older[size].pop()
            except (KeyError, IndexError):
                pass
        return Block(size, self)

    def age(self) -> None:
        """Drop the older large blocks and make the recent ones the older ones."""
        self.kept = 0
        self.older = {size: self.pop(size) for size in list(self) if size > SMALL}

    def rested(self) -> None:
        """Let the resting blocks be used again."""
        for block in self.resting:
            self.setdefault(block.size, []).append(block)
        self.resting.clear()

    def clear(self) -> None:
        super().clear()
        self.older = {}
        self.kept = 0
        self.resting.clear()

    def retire(self) -> None:
        """Let go of all blocks, also of those that come back later: nobody allocates from this pool any more."""
        self.clear()
        self.resting = _Discarding()


class _Discarding(list[Any]):
    """A list that keeps nothing."""

    def append(self, block: Any) -> None:
        pass


class Block:
    """A piece of memory at a fixed `address`; ``array`` is its bytes, ``pool`` where it goes when it is free."""

    __slots__ = ("address", "array", "pool", "size")

    def __init__(self, size: int, pool: Pool):
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.array = raw[start : start + size]
        self.address: int = self.array.ctypes.data
        self.size, self.pool = size, pool


_common = Pool()


class _Private(threading.local):
    pool: Pool | None = None


_private = _Private()
_private_pools = 0  # how many threads allocate from a pool of their own: a plain global is read faster than a thread's own


class private_pool:
    """Let this thread allocate from ``pool``, so that its blocks mix with nobody else's: a recorded program owns its memory."""

    def __init__(self, pool: Pool | None):
        self.pool = pool

    def __enter__(self) -> Pool | None:
        global _private_pools
        self._previous, _private.pool = _private.pool, self.pool
        with _counting:
            _private_pools += 1
        return self.pool

    def __exit__(self, *exception: object) -> None:
        global _private_pools
        _private.pool = self._previous
        with _counting:
            _private_pools -= 1


_counting = threading.Lock()


class Storage:
    """The memory under one tensor and all its views, with the version counter that in-place writes advance.

    ``owner`` keeps the memory alive: a `Block` of a pool, to which it goes back when the storage is dropped, or anything else
    that holds it, such as a NumPy array.
    """

    __slots__ = ("address", "nbytes", "owner", "version")

    owner: Any

    def __init__(self, nbytes: int, _common=_common, _small=SMALL):
        size = (nbytes + 63) & -64 or 64
        pool = _common
        if _private_pools and _private.pool is not None:
            pool = _private.pool
        try:
            self.owner = owner = pool[size].pop()
        except (KeyError, IndexError):
            self.owner = owner = pool.make(size)
        if size > _small:
            pool.kept -= size
        self.address = owner.address
        self.nbytes = nbytes
        self.version = 0

    @classmethod
    def over(cls, array: np.ndarray) -> "Storage":
        """A storage over the memory of a C-contiguous NumPy array, which it keeps alive."""
        storage = object.__new__(cls)
        storage.owner, storage.nbytes, storage.version = array, array.nbytes, 0
        storage.address = array.__array_interface__["data"][0]  # several times as fast as array.ctypes.data
        return storage

    def alias(self) -> "Storage":
        """The same memory with a version counter of its own (``Tensor.data``)."""
        storage = object.__new__(Storage)
        storage.owner, storage.address, storage.nbytes, storage.version = self, self.address, self.nbytes, 0
        return storage

    def __reduce__(self) -> tuple:
        """Pickle the bytes, never the address. Storages that share memory still share it after a copy or in another process."""
        if isinstance(self.owner, Storage):
            return Storage.alias, (self.owner,)
        return Storage.of_bytes, (self.bytes().tobytes(),)

    @classmethod
    def of_bytes(cls, data: bytes) -> "Storage":
        """A storage with a copy of ``data``."""
        storage = cls(len(data))
        storage.bytes()[:] = np.frombuffer(data, np.uint8)
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

    def __del__(
        self, _block=Block, _common=_common, _small=SMALL, _keep=KEEP_PER_SMALL_SIZE, _recent=KEEP_RECENT, _largest=LARGEST_KEPT
    ):  # as defaults: they are found faster, and still there when the interpreter ends
        try:
            owner = self.owner
        except AttributeError:  # there was no memory for it
            return
        if type(owner) is _block:
            pool = owner.pool
            if pool is not _common:
                pool.resting.append(owner)
                return
            size = owner.size
            try:
                blocks = pool[size]
            except KeyError:
                blocks = pool[size] = []
            if size <= _small:
                if len(blocks) * size < _keep:
                    blocks.append(owner)
            elif size <= _largest:
                pool.kept += size
                if pool.kept > _recent:
                    pool.age()
                    pool.kept = size
                    blocks = pool[size] = []
                blocks.append(owner)
