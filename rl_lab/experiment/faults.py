"""Faults that end a command: one line on stderr and an exit code."""

import _thread
import contextlib
import errno
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rl_lab.engine.errors import EnvironmentWarning

# Exit codes. A signal ends with 128 + its number.
USAGE = 2
"""Bad input."""
NUMERICAL = 3
"""A number that is not finite, or a failing environment."""
STORAGE = 4
"""Files that cannot be written."""


class Fault(ValueError):
    """A message of one line that names the cause and what to do. ``code`` is the exit code of the command."""

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(" ".join(str(message).split()))
        self.code = code


_STORAGE_ERRORS = (
    errno.ENOSPC,
    getattr(errno, "EDQUOT", 122),
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
    getattr(errno, "ESTALE", 116),
)


def code_of(error: OSError) -> int:
    """Return the exit code for an OSError: `STORAGE` for a full or failing disk, `USAGE` for a wrong name or a missing permission."""
    return STORAGE if error.errno in _STORAGE_ERRORS else USAGE


def first_line(error: BaseException) -> str:
    """Return the class of an exception and the first line of its message."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def show_warnings_plainly() -> None:
    """Show an `EnvironmentWarning` as one line on stderr: the line of our code that gives it helps nobody."""
    previous = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None) -> None:
        if not issubclass(category, EnvironmentWarning):
            previous(message, category, filename, lineno, file, line)
            return
        try:
            print(f"rl_lab: warning: {' '.join(str(message).split())}", file=file or sys.stderr, flush=True)
        except (OSError, ValueError):
            pass  # nobody reads it

    warnings.showwarning = show


class Interrupted(KeyboardInterrupt):
    """A second signal: the program ends at once. ``code`` is its exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def _nothing() -> None:
    pass


@contextlib.contextmanager
def interrupts_return(again: Callable[[], None] = _nothing) -> Iterator[None]:
    """Context in which no interruption is lost; ``again`` is called before one returns.

    A signal's handler runs wherever the main thread is, and Python drops what is raised in a destructor or in a callback of the garbage
    collector. Tensors have destructors, so that happens now and then. The signal is then delivered once more.
    """
    usual = sys.unraisablehook

    def deliver(dropped: Any) -> None:
        error = dropped.exc_value
        if not isinstance(error, KeyboardInterrupt):
            usual(dropped)
            return
        again()
        number = error.code - 128 if isinstance(error, Interrupted) else signal.SIGINT
        later = threading.Timer(0.01, _thread.interrupt_main, (number,))  # behind this hook, which would drop it as well
        later.daemon = True
        later.start()

    sys.unraisablehook = deliver
    try:
        yield
    finally:
        sys.unraisablehook = usual
