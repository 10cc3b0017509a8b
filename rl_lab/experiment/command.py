"""The frame of every command: a fault becomes one line on stderr and an exit code."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from rl_lab.engine.errors import EnvironmentFault, FileError, GraphError, NumericalError
from rl_lab.experiment.faults import NUMERICAL, USAGE, Fault, code_of, first_line, interrupts_return, show_warnings_plainly
from rl_lab.experiment.progress import mute

_LONGEST = 1000
"""Most characters of a message."""
DEFECT = 1
"""Exit code of an unforeseen exception."""


def run_command(body: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run the body of a command and return its exit code. With ``--debug`` the traceback of a fault is shown."""
    _open_missing_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    previous = warnings.showwarning
    show_warnings_plainly()
    try:
        # Gymnasium has newer versions of some environments: not a reason for two lines on stderr
        with interrupts_return(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*The environment .* is out of date", DeprecationWarning)
            return body([word for word in given if word != "--debug"])
    except KeyboardInterrupt as interrupt:
        _say("interrupted")
        return getattr(interrupt, "code", 128 + signal.SIGINT)
    except Exception as error:
        if debug:
            raise
        message, code = explain(error)
        if message:
            _say(message)
        return code
    finally:
        warnings.showwarning = previous
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            mute(sys.stdout)


def _open_missing_streams() -> None:
    """Open the null device in place of standard streams that are closed: Python has None there, and the next file gets their number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115 - until the end


def explain(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code for an exception; the message is empty if nobody reads the output any more."""
    if isinstance(error, Fault):
        return str(error), error.code
    if isinstance(error, (EnvironmentFault, NumericalError)):
        return str(error), NUMERICAL
    if isinstance(error, (FileError, GraphError)):
        return str(error), USAGE
    if isinstance(error, MemoryError):
        return f"not enough memory for these settings: {error}", USAGE
    if isinstance(error, BrokenPipeError):
        return "", 128 + getattr(signal, "SIGPIPE", 13)
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{_short(os.fsdecode(error.filename))}: "
        return f"{place}{error.strerror or error}", code_of(error)
    return f"{first_line(error)}; this is a defect of rl_lab: --debug shows where it happened", DEFECT


def _short(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:50]}...{path[-40:]}"


def _say(message: str) -> None:
    """Print one line on stderr; ignore a closed stream."""
    line = " ".join(message.split())
    if len(line) > _LONGEST:  # a name of a file or a value in it may have any length; the end says what to do
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    try:
        print(f"rl_lab: {shown}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass
