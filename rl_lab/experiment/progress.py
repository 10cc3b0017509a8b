"""Progress of a run: one live line in a terminal, a bar in a notebook, plain lines anywhere else."""

import html
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

LIVE_SECONDS = 0.1
"""Least time between two changes of a live line or bar."""


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
    """What shows the progress of a training. ``update`` may be called after every step of the agent."""

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


def time_left(timesteps: int, total: int, rate: float) -> str:
    """The time until the end of the training at this rate, such as ``42 s``, ``3:05`` or ``1:02:00``."""
    seconds = round(max(0.0, (total - timesteps) / rate)) if rate else 0
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}" if minutes else f"{seconds} s"


class PlainProgress(NoProgress):
    """Prints a line after each tenth of the training, and at least every ``interval`` seconds."""

    def __init__(self, total: int, interval: float = 10.0):
        self.total, self.interval = total, interval
        self._next_share, self._last = 0.0, time.monotonic()

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        """Print a line if one is due."""
        share, now = timesteps / self.total, time.monotonic()
        if share < self._next_share and now - self._last < self.interval:
            return
        self._next_share, self._last = (int(share * 10) + 1) / 10, now
        left = time_left(timesteps, self.total, rate)
        shown = "" if episodic_return is None else f", return {episodic_return:.1f}"
        self.say(f"step {timesteps:,} of {self.total:,} ({min(share, 1):.0%}), {rate:,.0f} steps/s{shown}, {left} left")

    def say(self, line: str) -> None:
        """Print a line."""
        tell(line)

    def close(self) -> None:
        """Do nothing: every line has been printed."""


class BarProgress(NoProgress):
    """Shows one live line: a bar, steps, steps per second, the latest return and the remaining time."""

    def __init__(self, total: int):
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self.total = total
        self._bar = Bar(BarColumn(bar_width=20), TextColumn("{task.fields[facts]}"), transient=True, refresh_per_second=5)
        self._bar.start()
        self._task = self._bar.add_task("", total=total, facts="")
        self._next = 0.0

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        """Change the line, at most ten times a second."""
        now = time.monotonic()
        if now < self._next and timesteps < self.total:
            return
        self._next = now + LIVE_SECONDS
        left = time_left(timesteps, self.total, rate)
        shown = "" if episodic_return is None else f" · return {episodic_return:.1f}"
        facts = f"{timesteps:,}/{self.total:,} · {rate:,.0f} steps/s{shown} · {left} left"
        self._try(self._bar.update, self._task, completed=timesteps, facts=facts)

    def say(self, line: str) -> None:
        """Print a line above the live one."""
        self._try(self._bar.console.print, line, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        """Remove the live line."""
        self._try(self._bar.stop)

    def _try(self, call: Callable[..., object], *arguments: object, **keywords: object) -> None:
        try:
            call(*arguments, **keywords)
        except OSError:  # the terminal was closed
            mute(sys.stdout)


class NotebookProgress(NoProgress):
    """Shows a bar in the output of a notebook's cell, which stays at the end as a record of the training."""

    def __init__(self, total: int):
        from IPython.display import display

        self.total = total
        self._latest: tuple[int, float, float | None] = (0, 0.0, None)
        self._facts = "begins"
        self._next = 0.0
        self._handle: Any = display(self, display_id=True)

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        """Change the bar, at most ten times a second."""
        self._latest = (timesteps, rate, episodic_return)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LIVE_SECONDS
            self._show(f" · {time_left(timesteps, self.total, rate)} left")

    def say(self, line: str) -> None:
        """Print a line below the bar."""
        tell(line)

    def close(self) -> None:
        """Show the latest numbers."""
        self._show("")

    def _show(self, left: str) -> None:
        timesteps, rate, episodic_return = self._latest
        shown = "" if episodic_return is None else f" · return {episodic_return:.1f}"
        self._facts = f"{timesteps:,} of {self.total:,} steps · {rate:,.0f} steps/s{shown}{left}"
        if self._handle is not None:
            self._handle.update(self)

    def _repr_html_(self) -> str:
        bar = f'<progress value="{min(self._latest[0], self.total)}" max="{self.total}" style="width: 20em"></progress>'
        return f'<div style="white-space: nowrap">{bar} {html.escape(self._facts)}</div>'

    def __repr__(self) -> str:
        return self._facts


def make_progress(total: int) -> Progress:
    """The progress that fits the output: a notebook's bar, a live line in a terminal, or plain lines."""
    if in_notebook():
        return NotebookProgress(total)
    return BarProgress(total) if sys.stdout.isatty() else PlainProgress(total)


def in_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
