"""A disk that counts what a program does to files below a folder, and fails or ends the process at one of these operations."""

import builtins
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = ("open", "fsync", "rename", "replace", "mkdir", "unlink", "link", "rmdir", "truncate", "ftruncate", "write")
"""Functions of `os` that are operations; so are ``write``, ``flush`` and ``close`` of a file that was opened for writing."""


class Disk:
    """Counts operations on files below ``folder`` in ``done`` and calls ``act(number)`` before each; ``act`` may raise OSError.

    A write first writes half of its bytes, as a disk does that becomes full. `watching` is the context in which operations count, and
    ``counts`` may be set to False inside.
    """

    def __init__(self, folder: Path, act: Callable[[int], None] = lambda number: None):
        self.done = 0
        self.counts = True
        self._folder = os.path.realpath(folder)
        self._act = act
        self._descriptors: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator["Disk"]:
        """Replace the functions of the system for a while."""
        replaced: list[tuple[Any, str, Any]] = []

        def put(owner: Any, name: str, call: Any) -> None:
            replaced.append((owner, name, getattr(owner, name)))
            setattr(owner, name, call)

        opened, fdopen = io.open, os.fdopen

        def open_file(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            ours = any(letter in mode for letter in "xwa") and self._holds(file)
            if ours:
                self._step()
            found = opened(file, mode, *given, **named)
            return _File(found, self) if ours else found

        def open_descriptor(number: int, *given: Any, **named: Any) -> Any:
            found = fdopen(number, *given, **named)
            return _File(found, self) if number in self._descriptors else found

        accessor = getattr(pathlib, "_normal_accessor", None)  # of Python 3.10, which keeps functions of its own
        for name in CALLS:
            call = self._counted(name, getattr(os, name))
            put(os, name, call)
            if accessor is not None and hasattr(accessor, name) and name != "open":
                put(accessor, name, call)
        put(os, "fdopen", open_descriptor)
        for owner in (io, builtins, *([accessor] if accessor is not None else [])):
            put(owner, "open", open_file)
        try:
            yield self
        finally:
            for owner, name, call in reversed(replaced):
                setattr(owner, name, call)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(target: Any, *given: Any, **named: Any) -> Any:
            ours = self._holds(target) or named.get("dir_fd") is not None
            if ours and name == "write" and self.counts:
                call(target, given[0][: len(given[0]) // 2])
                self._step()
                return call(target, given[0][len(given[0]) // 2 :])
            if ours:
                self._step()
            found = call(target, *given, **named)
            if name == "open":
                (self._descriptors.add if ours else self._descriptors.discard)(found)
            return found

        return counted

    def _holds(self, target: Any) -> bool:
        if isinstance(target, int):
            return target in self._descriptors
        return os.path.realpath(os.fsdecode(target)).startswith(self._folder + os.sep)

    def _step(self) -> None:
        if self.counts:
            self.done += 1
            self._act(self.done - 1)


class _File:
    """A file whose writes, flushes and closing are operations."""

    def __init__(self, file: Any, disk: Disk):
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        self._disk._step()
        return half + self._file.write(data[half:])

    def flush(self) -> None:
        self._disk._step()
        self._file.flush()

    def close(self) -> None:
        try:
            self._disk._step()
        finally:
            self._file.close()
