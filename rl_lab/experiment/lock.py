"""The lock of a run directory: a file that exactly one process holds; the lock ends with that process.

The lock is `fcntl.flock` on Unix (over NFS if the server supports it) and `msvcrt.locking` on Windows. Elsewhere the file itself is the
lock, and a holder that is no longer alive is replaced.
"""

import importlib
import json
import os
import socket
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from rl_lab.experiment.faults import Fault, code_of


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


fcntl = _module("fcntl")
msvcrt = _module("msvcrt")
_BYTE = 1 << 30
"""Offset of the byte that Windows locks: beyond the content, so that others can read the content."""
_ATTEMPTS = 100


class RunLock:
    """Holds the lock file ``path`` from construction to `release`. Raises Fault, naming the holder, if another process holds it."""

    def __init__(self, path: Path):
        self._path = path
        for _ in range(_ATTEMPTS):
            descriptor = self._open()
            if descriptor is None:
                continue
            if not _take(descriptor):
                os.close(descriptor)
                raise Fault(f"another process writes to {path.parent}{holder(path)}")
            if _is_file(descriptor, path):  # a holder that ended in between has removed the file that was opened
                self._descriptor = descriptor
                self._sign()
                return
            os.close(descriptor)
        raise Fault(f"another process writes to {path.parent}{holder(path)}")

    def _open(self) -> int | None:
        """Return a descriptor of the lock file, or None if the caller should try again. Links are not followed."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        if fcntl is None and msvcrt is None:
            flags |= os.O_EXCL
        try:
            return os.open(self._path, flags, 0o666)
        except FileExistsError:
            if _is_alive(_content(self._path)):
                raise Fault(f"another process writes to {self._path.parent}{holder(self._path)}") from None
            self._path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise Fault(f"cannot lock {self._path}: {error.strerror}", code_of(error)) from None

    def _sign(self) -> None:
        """Write the holder into the lock file, for the messages of other processes."""
        who = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, json.dumps(who).encode())
        except OSError:
            pass  # the disk is full: the lock is held all the same

    def release(self) -> None:
        """Release the lock. The file is removed while it is still locked, so that a process that locks a removed file notices it."""
        if msvcrt is None:
            try:
                if _is_file(self._descriptor, self._path):
                    self._path.unlink(missing_ok=True)
            except OSError:
                pass  # a file that stays is not locked
            os.close(self._descriptor)
            return
        os.close(self._descriptor)  # Windows removes no open file; the one that stays is not locked


def holder(path: Path) -> str:
    """Return the holder of a lock as the end of a message; empty if it cannot be read."""
    who = _content(path)
    if not {"process", "host", "since"} <= set(who):
        return ""
    return f": process {who['process']} on {who['host']}, since {who['since']}"


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            who = json.loads(file.read(1000))
    except (OSError, ValueError, RecursionError):
        return {}
    return who if isinstance(who, dict) else {}


def _take(descriptor: int) -> bool:
    """Lock an open file without waiting; return whether that succeeded."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        return False
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the file of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _is_alive(who: dict[str, Any]) -> bool:
    """Return whether the holder of a lock may be running. Only a process of this machine can be found dead."""
    number = who.get("process")
    if who.get("host") != socket.gethostname() or not isinstance(number, int):
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
