"""Progress of a run: a bar in a terminal, plain lines anywhere else."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO


def tell(line: str) -> None:
    """Print a line. A closed pipe or a full disk behind the output ends the output, not the run."""
    try:
        print(line, flush=True)
    except OSError:
        mute(sys.stdout)


def mute(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that flushing its buffer cannot fail at the end of the program."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass  # not a file of the system


class Progress(Protocol):
    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None: ...
    def say(self, line: str) -> None: ...
    def evaluated(self, timesteps: int, return_mean: float) -> None: ...
    def saved(self, run: Path) -> None: ...
    def close(self) -> None: ...


class NoProgress:
    """Shows nothing: for programs that train many agents."""

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None: ...

    def say(self, line: str) -> None: ...

    def evaluated(self, timesteps: int, return_mean: float) -> None:
        """A short evaluation during training gave this mean return. An exception ends the run."""

    def saved(self, run: Path) -> None:
        """A checkpoint was written into the directory of the run."""

    def close(self) -> None: ...


class PlainProgress(NoProgress):
    """Prints a line after each tenth of the training, and at least every ``interval`` seconds."""

    def __init__(self, total: int, interval: float = 10.0):
        self.total, self.interval = total, interval
        self._next_share, self._last = 0.0, time.monotonic()

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        share, now = timesteps / self.total, time.monotonic()
        if share < self._next_share and now - self._last < self.interval:
            return
        self._next_share, self._last = (int(share * 10) + 1) / 10, now
        left = max(0.0, (self.total - timesteps) / rate) if rate else 0.0
        shown = "" if episodic_return is None else f", return {episodic_return:.1f}"
        self.say(f"step {timesteps:,} of {self.total:,} ({min(share, 1):.0%}), {rate:,.0f} steps/s{shown}, {left:.0f} s left")

    def say(self, line: str) -> None:
        tell(line)

    def close(self) -> None:
        pass


class BarProgress(NoProgress):
    """Shows a bar with steps per second, the latest return and the remaining time."""

    def __init__(self, total: int):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn())
        self._bar = Bar(*columns, transient=True)
        self._bar.start()
        self._task = self._bar.add_task("", total=total, facts="")

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        shown = "" if episodic_return is None else f" · return {episodic_return:.1f}"
        self._try(self._bar.update, self._task, completed=timesteps, facts=f"{rate:,.0f} steps/s{shown}")

    def say(self, line: str) -> None:
        self._try(self._bar.console.print, line, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        self._try(self._bar.stop)

    def _try(self, call: Callable[..., object], *arguments: object, **keywords: object) -> None:
        try:
            call(*arguments, **keywords)
        except OSError:  # the terminal was closed
            mute(sys.stdout)


def make_progress(total: int) -> Progress:
    return BarProgress(total) if sys.stdout.isatty() else PlainProgress(total)
