"""The names of torch.multiprocessing, with Python's multiprocessing behind them. Processes are spawned, not forked.

A forked process inherits the state of threads that do not exist in it. Queues and pipes send copies of tensors: processes share no
memory.
"""

import multiprocessing as _python
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

_context = get_context("spawn")
TimeoutError = _python.TimeoutError
active_children = _python.active_children
cpu_count = _python.cpu_count
current_process = _python.current_process
freeze_support = _python.freeze_support
parent_process = _python.parent_process
Array = _context.Array
Barrier = _context.Barrier
Condition = _context.Condition
Event = _context.Event
JoinableQueue = _context.JoinableQueue
Lock = _context.Lock
Manager = _context.Manager
Pipe = _context.Pipe
Pool = _context.Pool
Process = _context.Process
Queue = _context.Queue
RLock = _context.RLock
Semaphore = _context.Semaphore
SimpleQueue = _context.SimpleQueue
Value = _context.Value


def set_start_method(method: str | None, force: bool = False) -> None:
    """Accept "spawn", which is how all processes here start. Raises ValueError for another method."""
    if method not in (None, "spawn"):
        raise ValueError(f"processes are spawned, got {method!r}: a forked process has no threads, so kernels may hang in it")


def get_start_method(allow_none: bool = False) -> str:
    """\"spawn\"."""
    return "spawn"


def get_all_start_methods() -> list[str]:
    """["spawn"]."""
    return ["spawn"]


def set_sharing_strategy(new_strategy: str) -> None:
    """Do nothing: queues and pipes send copies of tensors."""


class ProcessRaisedException(RuntimeError):
    """A process started by `spawn` ended with an exit code other than 0; ``error_index`` is the number of the process."""

    def __init__(self, message: str, error_index: int):
        super().__init__(message)
        self.error_index = error_index


class ProcessContext:
    """The processes that `spawn` started; ``join`` waits for them."""

    def __init__(self, processes: list[BaseProcess]):
        self.processes = processes

    def pids(self) -> list[int | None]:
        """The process ids."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all processes have ended, at most ``timeout`` seconds; return whether all have ended.

        As soon as a process has failed, terminates the others, which may wait for it, and raises ProcessRaisedException.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            running = [process.sentinel for process in self.processes if process.exitcode is None]
            self._require_success()  # before the wait: a process that has failed by now is not among those waited for
            if not running:
                return True
            if not wait(running, None if end is None else max(0.0, end - time.monotonic())):
                self._require_success()
                return False

    def _require_success(self) -> None:
        """Terminate all processes and raise ProcessRaisedException if one has failed."""
        for number, process in enumerate(self.processes):
            if process.exitcode in (0, None):
                continue
            for other in self.processes:
                if other.is_alive():
                    other.terminate()
                other.join()
            raise ProcessRaisedException(f"process {number} ended with exit code {process.exitcode}", number)


def spawn(
    fn: Callable[..., object],
    args: tuple[object, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Run ``fn(i, *args)`` in ``nprocs`` processes, with i from 0, and wait for them.

    Returns None, or a `ProcessContext` without waiting if ``join`` is false. Raises ProcessRaisedException if a process fails.
    """
    make = get_context(start_method).Process  # type: ignore[attr-defined]
    processes: list[BaseProcess] = [make(target=fn, args=(i, *args), daemon=daemon) for i in range(nprocs)]
    for process in processes:
        process.start()
    started = ProcessContext(processes)
    if not join:
        return started
    started.join()
    return None
