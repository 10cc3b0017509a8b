"""One run of a sweep, and the process that carries it out: `main`, which `LocalExecutor` starts.

The process reads a task from standard input as one line of JSON, and writes events to standard output, one JSON object a line. Everything
that the environment prints goes to standard error. When standard input ends, the process that started this one is gone: the run then
writes a checkpoint and stops.
"""

import _thread
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rl_lab.experiment.command import explain
from rl_lab.experiment.driver import carry_out, make_plan, make_resuming_plan
from rl_lab.experiment.faults import Fault, Interrupted, show_warnings_plainly
from rl_lab.experiment.files import read_file
from rl_lab.experiment.progress import NoProgress
from rl_lab.experiment.run import LAST, Run
from rl_lab.experiment.sweeps.store import Store
from rl_lab.experiment.trust import foreign_modules
from rl_lab.serialization import write_file

FINISHED, FAILED = "finished", "failed"
"""How a run of a sweep ends: with its evaluation, or with a fault."""
PRUNED, STOPPED = "pruned", "stopped"
"""How a run of a sweep ends before its evaluation: by the sweep's decision, or by a signal."""
EVALUATIONS = "evaluations.json"
"""File of a run with the mean returns of its short evaluations, as pairs of a step and a return."""
PROGRESS_SECONDS = 0.2
"""Least time between two events of progress: some agents take a thousand steps a second, and one process reads the events of all runs."""
_LARGEST = 10**6


@dataclass(frozen=True)
class Task:
    """One run of a sweep."""

    key: str
    """The place of the run below the sweep's directory, such as ``s3`` or ``trial-0007/s1001``."""
    folder: str
    """The run's directory."""
    settings: dict[str, Any]
    """All settings of the run, as `make_plan` takes them."""
    store: str = ""
    """URL below which the run's files are kept; empty if every machine sees ``folder``."""


Tell = Callable[[dict[str, Any]], bool]
"""Takes an event, a dict with the ``kind`` "progress", "evaluated", "note" or "result"; returns whether the run should end."""


class _Pruned(Exception):
    """The sweep decided to end this run."""


class _Reports(NoProgress):
    """Progress of a run as events. The short evaluations are also kept in a file of the run, for a run that continues."""

    def __init__(self, folder: Path, store: Store | None, tell: Tell):
        self._folder = folder
        self._store = store
        self._tell = tell
        self._next = 0.0
        self.evaluations = _read_evaluations(folder)

    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        self._end_if(self._tell({"kind": "progress", "steps": timesteps, "rate": rate, "return": episodic_return}))

    def say(self, line: str) -> None:
        self._tell({"kind": "note", "line": line})

    def evaluated(self, timesteps: int, return_mean: float) -> None:
        self.evaluations[timesteps] = return_mean
        write_file(self._folder / EVALUATIONS, [json.dumps(sorted(self.evaluations.items())).encode()])
        self._end_if(self._tell({"kind": "evaluated", "steps": timesteps, "return": return_mean, "returns": self.returns()}))

    def returns(self) -> list[float]:
        """The mean returns of all short evaluations so far, in their order."""
        return [value for _, value in sorted(self.evaluations.items())]

    def saved(self, run: Path) -> None:
        if self._store is not None:
            self._store.keep(run)

    def _end_if(self, wanted: bool) -> None:
        if wanted:
            raise _Pruned


def _read_evaluations(folder: Path) -> dict[int, float]:
    try:
        return {int(step): float(value) for step, value in json.loads(read_file(folder / EVALUATIONS, _LARGEST))}
    except (OSError, ValueError, TypeError):
        return {}


def _require_same_modules(config: dict[str, Any], task: Task) -> None:
    """Raise Fault if the files of a run name a module that its sweep does not name: the sweep alone was found harmless."""
    foreign = set(foreign_modules(config)) - set(foreign_modules(task.settings))
    if foreign:
        raise Fault(f"{task.folder} names the module {min(foreign)!r}, but its sweep does not: remove the directory")


def perform(task: Task, tell: Tell) -> dict[str, Any]:
    """Carry out a run, from its last checkpoint if there is one, and return how it ended.

    The result has a ``state``: "finished" with the numbers of the evaluation at the end, "failed" with a ``message`` and an exit ``code``,
    "pruned", or "stopped" with the ``code`` of a signal. A run that ended earlier is evaluated again, with the same result.
    """
    folder = Path(tempfile.mkdtemp(prefix="rl_lab-")) / "run" if task.store else Path(task.folder)
    try:
        store = Store(task.store, task.key) if task.store else None
        if store is not None:
            store.fetch(folder)
        if folder.exists() and not (folder.joinpath("config.toml").is_file() and Run.open(folder).holds(LAST)):
            shutil.rmtree(folder)  # it ended before its first checkpoint
        if folder.exists():
            _require_same_modules(Run.open(folder).config, task)
            plan = make_resuming_plan(folder, {}, trust=True)
        else:
            plan = replace(make_plan(task.settings), place=folder)
        reports = _Reports(folder, store, tell)
        result = carry_out(plan, reports)
        if result.evaluation is None:
            return {"state": STOPPED, "code": result.exit_code}
        numbers = asdict(result.evaluation)
        evaluations = {**reports.evaluations, result.timesteps: result.evaluation.return_mean}
        if store is not None:
            store.keep(folder)
        return {
            "state": FINISHED,
            **numbers,
            "timesteps": result.timesteps,
            "selection_steps": result.selection_steps,
            "seconds": result.seconds,
            "evaluations": sorted(evaluations.items()),
        }
    except _Pruned:
        return {"state": PRUNED}
    except KeyboardInterrupt as interrupt:
        return {"state": STOPPED, "code": getattr(interrupt, "code", 128 + signal.SIGINT)}
    except Exception as error:
        message, code = explain(error)
        return {"state": FAILED, "message": message or "its output was closed", "code": code}
    finally:
        if task.store:
            shutil.rmtree(folder.parent, ignore_errors=True)


def main() -> int:
    """Carry out the task on standard input. Returns 0 also if the run failed: the result is its last event."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    show_warnings_plainly()
    signal.signal(signal.SIGTERM, _stop)  # until the driver handles it
    request = json.loads(sys.stdin.readline())
    sys.path[:] = request["path"]
    pruned = threading.Event()
    writing = threading.Lock()
    threading.Thread(target=_listen, args=(pruned,), daemon=True).start()

    def tell(event: dict[str, Any]) -> bool:
        with writing, contextlib.suppress(OSError):  # nobody listens: the run ends when standard input does
            channel.write(json.dumps(event) + "\n")
            channel.flush()
        return pruned.is_set()

    result = perform(Task(**request["task"]), tell)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # standard input ends once the result is read
    tell({"kind": "result", **result})
    return 0


def _stop(number: int, frame: object) -> None:
    raise Interrupted(128 + number)


def _listen(pruned: threading.Event) -> None:
    """Wait for the word that prunes the run, or for the end of standard input, which stops it."""
    for line in sys.stdin:
        if line.strip() == PRUNED:
            pruned.set()
    _thread.interrupt_main(signal.SIGTERM)
