"""A bound on memory while a run is set up, so that settings for which there is no memory are a fault and not the system's killer."""

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
"""Bytes for one number of an observation: it is kept now, before and at the end of an episode, and its bounds are a Box."""
PAGE = 4096 if resource is None else resource.getpagesize()


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Inside, allocating more than the machine has free raises MemoryError. Without effect where the system tells no figures."""
    free = free_memory()
    if resource is None or free is None or not hasattr(resource, "RLIMIT_DATA"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _in_use() + free
    if soft != resource.RLIM_INFINITY and soft < most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def require_memory(shape: Sequence[int], count: int) -> None:
    """Raise MemoryError if ``count`` observations of a shape, with all that is made like them, are more than the machine has free."""
    needed, free = math.prod(shape) * count * OBSERVATION_BYTES, free_memory()
    if free is not None and needed > free:
        raise MemoryError(
            f"{count:,} observations of shape {tuple(shape)} need about {needed / 1e9:,.1f} GB, {free / 1e9:.1f} are free"
        )


def free_memory() -> int | None:
    """Bytes that this process can still get, of the machine and of its container; None if the system does not tell."""
    try:
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
        if most.isdecimal():
            free = min(free, max(0, int(most) - int((group / "memory.current").read_text())))
        return free
    except (OSError, ValueError, TypeError):
        return None


def _in_use() -> int:
    """Bytes of data that this process has mapped, as RLIMIT_DATA counts them."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * PAGE
