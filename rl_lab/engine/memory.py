"""Memory for tensors: aligned blocks, kept in pools for reuse, because new memory costs more time than a small kernel."""

import ctypes
import threading
from typing import Any

import numpy as np

from rl_lab.native.threads import renew_after_fork

ALIGNMENT = 64  # bytes, for vector instructions
# Free blocks that the pool of eager code keeps; the others go back to the operating system. All limits are in bytes.
SMALL = 4096  # blocks up to this size are limited per size, because counting the bytes would cost as much as using the block
KEEP_PER_SMALL_SIZE = 2 * 2**20  # free blocks of each small size
KEEP_RECENT = 128 * 2**20  # larger free blocks of all sizes together; as many again are kept as older blocks
LARGEST_KEPT = 32 * 2**20  # a larger block is never kept


class Pool(dict[int, list["Block"]]):
    """Free blocks by size in bytes, and the resting blocks of a recording.

    A block that is freed during a recording rests for one more launch. So a launch never writes to memory that the previous launch
    read, and passes can join the two launches.

    The pool of eager code is bounded. ``kept`` counts the bytes of its larger blocks. When ``kept`` exceeds `KEEP_RECENT`, these
    blocks become the ``older`` blocks, which can still be used, and the previous older blocks are dropped. Blocks of a size that is
    not used again are therefore dropped after two rounds. Threads count without a lock, so ``kept`` may be wrong by a few blocks
    until the next round.
    """

    __slots__ = ("kept", "older", "resting")

    def __init__(self) -> None:
        super().__init__()
        self.resting: list[Block] = []
        self.kept = 0
        self.older: dict[int, list[Block]] = {}

    def make(self, size: int) -> "Block":
        """Take a block from the older blocks, or make a new one."""
        if size > SMALL:
            self.kept += size  # the caller subtracts the size of every block that it takes
            try:
                return self.older[size].pop()
            except (KeyError, IndexError):
                pass
        return Block(size, self)

    def age(self) -> None:
        """Drop the older blocks, and make the recent large blocks the older ones."""
        self.kept = 0
        # another thread may do the same at this moment, and take some of the lists
        self.older = {size: self.pop(size, []) for size in list(self) if size > SMALL}

    def rested(self) -> None:
        """End the rest of all resting blocks: they can be used again."""
        for block in self.resting:
            self.setdefault(block.size, []).append(block)
        self.resting.clear()

    def clear(self) -> None:
        for blocks in list(self.values()):  # emptied and not dropped, because blocks in use know their lists
            blocks.clear()
        self.older = {}
        self.kept = 0
        self.resting.clear()

    def take_back(self, block: "Block") -> None:
        """Return a free block to the pool. Small blocks whose own list is full, and blocks above `LARGEST_KEPT`, are dropped."""
        if self is not _common:
            self.resting.append(block)
        elif SMALL < block.size <= LARGEST_KEPT:
            self.kept += block.size
            if self.kept > KEEP_RECENT:
                self.age()
                self.kept = block.size
            self.setdefault(block.size, []).append(block)

    def retire(self) -> None:
        """Release all blocks, and also those that come back later; nothing allocates from the pool any more."""
        self.clear()
        self.resting = _Discarding()


class _Discarding(list["Block"]):
    """A list whose `append` does nothing."""

    def append(self, block: "Block") -> None:
        pass


class Block:
    """A piece of memory at a fixed `address`, its bytes as an ``array``, and the ``pool`` to which it returns when it is free.

    A small block of eager code returns to the list ``free`` as long as this has less than ``room`` blocks.
    """

    __slots__ = ("address", "array", "free", "pool", "room", "size")

    def __init__(self, size: int, pool: Pool):
        raw = np.empty(size + ALIGNMENT, np.uint8)
        begin = address_of(raw)
        start = -begin % ALIGNMENT
        self.array = raw[start : start + size]
        self.address = begin + start
        self.size = size
        self.pool = pool
        self.free: list[Block] = _NO_BLOCKS
        self.room = 0
        if pool is _common and size <= SMALL:
            self.free = pool.setdefault(size, [])
            self.room = KEEP_PER_SMALL_SIZE // size


_NO_BLOCKS: list[Block] = []
_common = Pool()


class _Private(threading.local):
    pool: Pool | None = None


_private = _Private()
_private_pools = 0  # number of threads with a pool of their own; a plain global is read faster than a thread-local


class private_pool:
    """Let this thread allocate from ``pool`` while the context lasts: a recorded program owns its memory. None for the common pool."""

    def __init__(self, pool: Pool | None):
        self.pool = pool

    def __enter__(self) -> Pool | None:
        global _private_pools
        self._previous = _private.pool
        _private.pool = self.pool
        with _counting:
            _private_pools += 1
        return self.pool

    def __exit__(self, *exception: object) -> None:
        global _private_pools
        _private.pool = self._previous
        with _counting:
            _private_pools -= 1


_counting = threading.Lock()
renew_after_fork(globals(), "_counting")


_word_at = ctypes.c_size_t.from_address
_DATA = object.__basicsize__  # in a NumPy array, the pointer to its data follows the head of every Python object


def _data_of(array: np.ndarray) -> int:
    return _word_at(id(array) + _DATA).value


def _interface_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


_probe = np.arange(16, dtype=np.uint8)[3:]
address_of = _data_of if _data_of(_probe) == _interface_of(_probe) else _interface_of
"""The address of an array's first element: read from the array itself, which is several times as fast as NumPy's own ways."""


_BYTES = bytes.__basicsize__ - 1  # in a bytes object, the data and a final 0 follow the head


def _data_of_bytes(data: bytes) -> int:
    return id(data) + _BYTES


def _cast_bytes(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


address_of_bytes = _data_of_bytes if _data_of_bytes(b"probe") == _cast_bytes(b"probe") else _cast_bytes
"""The address of the first byte of a bytes object, which the caller must hold."""


class Storage:
    """The memory of a tensor and its views, and a version counter that in-place writes advance.

    ``owner`` keeps the memory alive. It is a `Block`, which goes back to its pool when the storage is dropped, or another object
    that holds the memory, such as a NumPy array or another storage.
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
        storage.owner = array
        storage.nbytes = array.nbytes
        storage.version = 0
        storage.address = address_of(array)
        return storage

    @property
    def span(self) -> tuple[int, int]:
        """The address of the first byte, and the address after the last byte."""
        return self.address, self.address + self.nbytes

    def alias(self) -> "Storage":
        """The same memory with a version counter of its own (``Tensor.data``)."""
        storage = object.__new__(Storage)
        storage.owner = self
        storage.address = self.address
        storage.nbytes = self.nbytes
        storage.version = 0
        return storage

    def __reduce__(self) -> tuple:
        """Pickle the bytes, never the address. Storages that share memory also share it in the copy."""
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
        """The bytes as a NumPy array, which keeps the memory alive from now on: the memory does not return to its pool."""
        if type(self.owner) is Block:
            self.owner = self.owner.array
        if isinstance(self.owner, Storage):
            return self.owner.export()
        return self.owner.reshape(-1).view(np.uint8)[: self.nbytes]

    def buffer(self, lasting: bool) -> np.ndarray:
        """An array that holds the memory, and possibly more, from the storage's address on.

        If it is not ``lasting``, it is for immediate use only, see `bytes`.
        """
        owner = self.owner
        if type(owner) is Block:
            if not lasting:
                return owner.array
            self.owner = owner = owner.array
        return owner.buffer(lasting) if isinstance(owner, Storage) else owner

    def bytes(self) -> np.ndarray:
        """The bytes as a NumPy array for immediate use only: the memory still returns to its pool when the storage is dropped."""
        owner = self.owner
        return owner.array[: self.nbytes] if type(owner) is Block else self.export()

    def __del__(self, _block=Block):  # a default is found faster than a global, and still exists when the interpreter ends
        try:
            owner = self.owner
        except AttributeError:  # the allocation failed
            return
        if type(owner) is _block:
            if len(owner.free) < owner.room:
                owner.free.append(owner)
            else:
                owner.pool.take_back(owner)
