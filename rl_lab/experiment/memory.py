"""A bound on memory while a run is set up: settings that need too much memory are a fault, before the system kills the process."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

OBSERVATION_BYTES = 64
"""Bytes for each number of an observation: the current, previous and final observations, and the bounds of the Box."""
PAGE = 4096 if resource is None else resource.getpagesize()


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Context in which allocating more than the free memory raises MemoryError. No effect on systems that do not report free memory."""
    free = free_memory()
    if resource is None or free is None or not hasattr(resource, "RLIMIT_DATA"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = in_use() + free
    if soft != resource.RLIM_INFINITY and soft < most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def require_memory(shape: Sequence[int], count: int) -> None:
    """Raise MemoryError if ``count`` observations of a shape, and the arrays of the same size, exceed the free memory."""
    needed, free = math.prod(shape) * count * OBSERVATION_BYTES, free_memory()
    if free is not None and needed > free:
        raise MemoryError(
            f"{count:,} observations of shape {tuple(shape)} need about {needed / 1e9:,.1f} GB, {free / 1e9:.1f} are free"
        )


def free_memory() -> int | None:
    """Return the free memory of the machine, or of its container, in bytes; None if the system does not report it."""
    try:
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
        if most.isdecimal():
            free = min(free, max(0, int(most) - int((group / "memory.current").read_text())))
        return free
    except (OSError, ValueError, TypeError):
        return None


def in_use() -> int:
    """Return the bytes of data that this process has mapped, as RLIMIT_DATA counts them."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * PAGE
