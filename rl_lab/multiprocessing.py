"""Python's multiprocessing by PyTorch's name, with processes that are spawned.

A forked process inherits threads that do not run in it, so processes are spawned here unless a context says otherwise. Tensors are
sent through queues and pipes as copies: memory is not shared between processes.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

_context = multiprocessing.get_context("spawn")
Process, Queue, SimpleQueue, Pipe, Pool = _context.Process, _context.Queue, _context.SimpleQueue, _context.Pipe, _context.Pool
Event, Lock, RLock, Barrier, Condition = _context.Event, _context.Lock, _context.RLock, _context.Barrier, _context.Condition
Semaphore, Value, Array, Manager = _context.Semaphore, _context.Value, _context.Array, _context.Manager
JoinableQueue = _context.JoinableQueue
cpu_count, current_process, get_context = (
    multiprocessing.cpu_count,
    multiprocessing.current_process,
    multiprocessing.get_context,
)
active_children, freeze_support = multiprocessing.active_children, multiprocessing.freeze_support
get_start_method, set_start_method = multiprocessing.get_start_method, multiprocessing.set_start_method


class ProcessRaisedException(RuntimeError):
    """A process started by `spawn` that ended with another exit code than 0; ``error_index`` is its number."""

    def __init__(self, message: str, error_index: int):
        super().__init__(message)
        self.error_index = error_index


class ProcessContext:
    """The processes that `spawn` started; ``join`` waits for them."""

    def __init__(self, processes: list[Any]):
        self.processes = processes

    def pids(self) -> list[int]:
        """Process numbers."""
        return [process.pid for process in self.processes]

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all processes; return whether they have ended. Raises ProcessRaisedException, and ends the others, if one failed."""
        for process in self.processes:
            process.join(timeout)
        for number, process in enumerate(self.processes):
            if process.exitcode not in (0, None):
                for other in self.processes:
                    if other.is_alive():
                        other.terminate()
                raise ProcessRaisedException(f"process {number} ended with exit code {process.exitcode}", number)
        return all(process.exitcode is not None for process in self.processes)


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Run ``fn(i, *args)`` in ``nprocs`` processes, i from 0; wait for them unless ``join`` is False, which returns their context.

    Raises ProcessRaisedException if one of them fails.
    """
    context: Any = multiprocessing.get_context(start_method)
    processes = [context.Process(target=fn, args=(number, *args), daemon=daemon) for number in range(nprocs)]
    for process in processes:
        process.start()
    started = ProcessContext(processes)
    if not join:
        return started
    started.join()
    return None
