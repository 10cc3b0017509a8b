"""The runs of a sweep as one live table in a terminal, as plain lines anywhere else."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rl_lab.experiment.progress import mute, tell
from rl_lab.experiment.sweeps.worker import FAILED, FINISHED, PRUNED

WAITING, RUNNING = "waiting", "running"
_COLUMNS = ("run", "seed", "state", "steps", "return", "steps/s")
_STYLES = {WAITING: "dim", RUNNING: "cyan", FINISHED: "green", PRUNED: "yellow", FAILED: "bold red"}


@dataclass
class Row:
    """What is known of one run."""

    label: str
    seed: int
    total: int
    state: str = WAITING
    steps: int = 0
    rate: float = 0.0
    latest: float | None = None
    """Mean return: of the latest episodes, of the latest short evaluation, or of the evaluation at the end."""

    def cells(self) -> tuple[str, ...]:
        share = f"{self.steps:,} of {self.total:,}" if self.steps else ""
        latest = "" if self.latest is None else f"{self.latest:.1f}"
        return (self.label, str(self.seed), self.state, share, latest, f"{self.rate:,.0f}" if self.rate else "")


class Table:
    """Plain lines: one for each run that ends, and one now and then on the runs together."""

    def __init__(self, interval: float = 30.0):
        self.rows: dict[str, Row] = {}
        self._interval = interval
        self._next = time.monotonic() + interval

    def add(self, key: str, label: str, seed: int, total: int) -> None:
        """Add a run that waits."""
        self.rows[key] = Row(label, seed, total)

    def begin(self, key: str) -> None:
        """Note that a run begins."""
        self.rows[key].state = RUNNING
        self._changed()

    def know(self, result: dict[str, Any]) -> None:
        """Note the result of a run that ended before this sweep was continued."""
        row = self.rows[result["key"]]
        row.state = result["state"]
        row.steps, row.latest = result.get("timesteps", 0), result.get("return_mean")

    def event(self, event: dict[str, Any]) -> None:
        """Note an event of a run: see `rl_lab.experiment.sweeps.worker.Tell`."""
        row = self.rows[event["key"]]
        if event["kind"] == "progress":
            row.steps, row.rate = event["steps"], event["rate"]
            row.latest = event["return"] if event["return"] is not None else row.latest
        elif event["kind"] == "evaluated":
            row.steps, row.latest = event["steps"], event["return"]
        elif event["kind"] == "result":
            row.state = event["state"]
            row.rate = 0.0
            if event["state"] == FINISHED:
                row.steps, row.latest = event["timesteps"], event["return_mean"]
            self.ended(row, event)
        self._changed()

    def ended(self, row: Row, event: dict[str, Any]) -> None:
        """Print how a run ended."""
        name = f"{row.label}, seed {row.seed}" if row.label else f"seed {row.seed}"
        over = sum(other.state not in (WAITING, RUNNING) for other in self.rows.values())
        counted = f"{over} of {len(self.rows)}"
        if event["state"] == FINISHED:
            seconds = f" in {event['seconds']:.1f} s" if event.get("seconds") else ""
            self.say(f"{counted}: {name}: greedy return {event['return_mean']:.1f} after {event['timesteps']:,} steps{seconds}")
        elif event["state"] == FAILED:
            log = f" (log: {event['log']})" if event.get("log") else ""
            self.say(f"{counted}: {name} failed: {event['message']}{log}")
        else:
            self.say(f"{counted}: {name} {event['state']} after {row.steps:,} steps")

    def _changed(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        running = [row for row in self.rows.values() if row.state == RUNNING]
        rate = sum(row.rate for row in running)
        taken = sum(row.steps for row in running)
        self.say(f"{len(running)} running, at {taken:,} of {sum(row.total for row in running):,} steps, {rate:,.0f} steps/s")

    def say(self, line: str) -> None:
        tell(line)

    def close(self) -> None:
        """End the display."""


class LiveTable(Table):
    """A table that is drawn again a few times a second; runs that do not fit are counted below it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=False)
        self._live.start()
        self._drawn = 0.0

    def ended(self, row: Row, event: dict[str, Any]) -> None:
        if event["state"] == FAILED:
            super().ended(row, event)

    def _changed(self) -> None:
        if time.monotonic() - self._drawn > 0.2:
            self._draw()

    def _draw(self) -> None:
        from rich.table import Table as RichTable

        self._drawn = time.monotonic()
        table = RichTable(box=None, header_style="bold")
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=True)
        room = max(5, self._live.console.size.height - 4)
        order = {RUNNING: 0, FAILED: 1, FINISHED: 2, PRUNED: 2, WAITING: 3}
        shown = set(sorted(self.rows, key=lambda key: order.get(self.rows[key].state, 2))[:room])
        for key, row in self.rows.items():
            if key in shown:
                table.add_row(*row.cells(), style=_STYLES.get(row.state, ""))
        hidden = [row.state for key, row in self.rows.items() if key not in shown]
        if hidden:
            table.caption = ", ".join(f"{hidden.count(state)} {state}" for state in sorted(set(hidden))) + " not shown"
        self._try(self._live.update, table, refresh=True)

    def say(self, line: str) -> None:
        self._try(self._live.console.print, line, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        self._draw()
        self._try(self._live.stop)

    def _try(self, call: Callable[..., object], *arguments: object, **keywords: object) -> None:
        try:
            call(*arguments, **keywords)
        except OSError:  # the terminal was closed
            mute(sys.stdout)


class NoTable(Table):
    """Shows nothing: for programs."""

    def say(self, line: str) -> None:
        pass


def make_table() -> Table:
    return LiveTable() if sys.stdout.isatty() else Table()
