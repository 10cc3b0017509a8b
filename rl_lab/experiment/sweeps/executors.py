"""Where the runs of a sweep are carried out: in processes of this machine. `rl_lab.experiment.sweeps.cluster` has the same for Ray."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from rl_lab.experiment.faults import NUMERICAL
from rl_lab.experiment.sweeps.worker import FAILED, PRUNED, Task
from rl_lab.native.threads import usable_cores

ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment variables of a process that shares the machine with one process a core."""
GRACE = 60.0
"""Seconds that a run has to write its checkpoint before its process is ended."""
Event = dict[str, Any]


class Executor(Protocol):
    """Carries out tasks. Every event has the ``key`` of its task; the last one of a task has the kind "result"."""

    def places(self) -> int:
        """How many runs can go on at once."""

    def submit(self, task: Task) -> None:
        """Begin a run."""

    def events(self, seconds: float) -> list[Event]:
        """The events since the last call; waits up to ``seconds`` for the first one."""

    def prune(self, key: str) -> None:
        """End a run at its next report."""

    def close(self) -> None:
        """Stop all runs; each writes a checkpoint first."""


class LocalExecutor:
    """Runs in processes of this machine, each with one thread. ``logs`` is the folder for what they print."""

    def __init__(self, workers: int, logs: Path):
        self._workers = workers or usable_cores()
        self._logs = logs
        self._queue: queue.Queue[Event] = queue.Queue()
        self._processes: dict[str, subprocess.Popen] = {}

    def places(self) -> int:
        return self._workers

    def submit(self, task: Task) -> None:
        log = self._logs / f"{task.key.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as printed:
            process = subprocess.Popen(
                [sys.executable, "-c", "import sys; from rl_lab.experiment.sweeps.worker import main; sys.exit(main())"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env={**os.environ, **ONE_THREAD},
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the runs
            )
        self._processes[task.key] = process
        threading.Thread(target=self._read, args=(task, process, log), daemon=True).start()
        self._write(process, json.dumps({"path": sys.path, "task": asdict(task)}))

    def _write(self, process: subprocess.Popen, line: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended, and its result says how

    def _read(self, task: Task, process: subprocess.Popen, log: Path) -> None:
        """Pass the events of a process on, until it ends."""
        assert process.stdout is not None
        ended = False
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # the process was killed in the middle of a line
                break
            ended = ended or event["kind"] == "result"
            self._queue.put({**event, "key": task.key, "log": str(log)})
        code = process.wait()
        if not ended:
            signal = f"signal {-code}" + (", perhaps for want of memory" if code == -9 else "") if code < 0 else f"code {code}"
            message = f"its process ended with {signal}"
            self._queue.put(
                {"kind": "result", "state": FAILED, "message": message, "code": NUMERICAL, "key": task.key, "log": str(log)}
            )

    def events(self, seconds: float) -> list[Event]:
        found = []
        try:
            found.append(self._queue.get(timeout=seconds))
            while True:
                found.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        for event in found:
            if event["kind"] == "result":
                process = self._processes.pop(event["key"])
                log = Path(event["log"])
                if log.is_file() and not log.stat().st_size:
                    log.unlink()
                    del event["log"]
                if process.stdin is not None:
                    try:
                        process.stdin.close()
                    except OSError:
                        pass
        return found

    def prune(self, key: str) -> None:
        if key in self._processes:
            self._write(self._processes[key], PRUNED)

    def close(self) -> None:
        for process in self._processes.values():
            if process.stdin is not None:
                try:
                    process.stdin.close()  # the run stops when its input ends
                except OSError:
                    pass
        until = time.monotonic() + GRACE
        for process in self._processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._processes.clear()
