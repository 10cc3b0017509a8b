"""The processes that load batches for a DataLoader.

Each worker has a pipe of its own, so a worker that dies or hangs cannot block the others. The loader decides which worker makes which
batch and takes the batches in that order, so the order does not depend on the speed of the workers. A worker reads its pipe in a thread:
when the pipe closes, the loader's process has ended, and the worker ends at once.
"""

import os
import pickle
import queue
import random
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

import numpy as np

from rl_lab.engine.ops import Tensor
from rl_lab.engine.random import manual_seed
from rl_lab.native import threads
from rl_lab.utils.data.dataset import Dataset
from rl_lab.utils.data.fetching import Fetcher

_PATIENCE = 5.0  # seconds for a worker to finish its batch before it is terminated


@dataclass(frozen=True)
class WorkerInfo:
    """A worker of a DataLoader: its number ``id``, the number of workers, its seed, and its copy of the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Dataset[Any]


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The `WorkerInfo` of the worker that calls it; None in the main process."""
    return _info


@dataclass(frozen=True)
class Work:
    """What the workers of one loader have in common: the arguments of `Fetcher`, and the function that prepares a worker."""

    dataset: Dataset[Any]
    collate_fn: Callable[[Any], Any]
    batched: bool
    batch_size: int | None
    drop_last: bool
    worker_init_fn: Callable[[int], object] | None

    def fetcher(self) -> Fetcher:
        return Fetcher(self.dataset, self.collate_fn, self.batched, self.batch_size, self.drop_last)

    def packed(self) -> bytes:
        """This object as bytes. Raises TypeError, naming the part that cannot be pickled."""
        try:
            return bytes(ForkingPickler.dumps(self))
        except Exception:  # an object's own method may raise any error while it is pickled
            self._name_culprit()
            raise

    def _name_culprit(self) -> None:
        for name, part in (
            ("the data set", self.dataset),
            ("collate_fn", self.collate_fn),
            ("worker_init_fn", self.worker_init_fn),
        ):
            try:
                ForkingPickler.dumps(part)
            except Exception as error:
                if "through inheritance" in str(error):
                    continue  # a lock or queue of multiprocessing, which is pickled while a process starts
                raise TypeError(
                    f"num_workers > 0 sends copies of the data set and of the functions to other processes, but {name} "
                    f"({type(part).__name__}) cannot be pickled: {error}. Define it at the top level of a module, or use num_workers=0"
                ) from None


class _Parcel:
    """`Work` that is pickled while a process starts, because it holds a lock or a queue of multiprocessing."""

    def __init__(self, work: Work):
        self.work = work

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (self.work.packed(),)


@dataclass(frozen=True)
class _Raised:
    """An exception in a worker, to be raised in the loader's process."""

    kind: type[Exception]
    text: str

    def again(self) -> Exception:
        """The same kind of exception with the worker's traceback as its message, as in PyTorch."""
        try:
            return self.kind(_Lines(self.text) if issubclass(self.kind, KeyError) else self.text)
        except Exception:  # its class takes other arguments
            return RuntimeError(self.text)


class _Lines(str):
    """A text that KeyError, which prints the repr of its argument, prints as it is."""

    def __repr__(self) -> str:
        return str(self)


class _End:
    """The answer of a worker whose stream has ended."""


class _Packer(ForkingPickler):
    """Pickle batches: of a tensor only its own elements, if they are a small part of its memory, such as a row of the data set."""

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        if obj.grad_node() is not None:
            raise RuntimeError(
                "a batch with a history for gradients cannot be sent between processes: detach() it in the worker"
            )
        if obj.storage.nbytes <= 2 * obj.numel() * obj.dtype.itemsize:
            return NotImplemented
        return obj.detach().clone().requires_grad_(obj.requires_grad).__reduce_ex__(pickle.HIGHEST_PROTOCOL)


# --- in the worker -----------------------------------------------------------------------------------------------------------


def serve(connection: Connection, number: int, count: int, base_seed: int, parcel: bytes | None) -> None:
    """Answer the requests of the loader until it says that it is done; ``parcel`` None comes as the first message instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the loader ends its workers
    threads.sharing[0] = 0  # the workers share the cores among them, each computes on one
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    threading.Thread(target=_send, args=(connection, outbox), daemon=True).start()
    where = f"in DataLoader worker process {number}"
    epoch = 0
    work: Work | None = None
    fetcher: Fetcher | None = None
    failure: _Raised | None = None
    try:
        work = _prepare(inbox.get() if parcel is None else parcel, number, count, base_seed)
    except Exception as error:
        failure = _raised(error, where)
    while (message := inbox.get()) != _DONE:
        kind, value = pickle.loads(message)
        answer: Any = None
        try:
            if kind == "epoch":
                epoch = value
                fetcher = None
                continue
            if failure is not None:
                answer = failure
            else:
                assert work is not None
                fetcher = fetcher or work.fetcher()
                answer = fetcher.fetch(value)
        except StopIteration as error:
            answer = _End() if fetcher is not None and fetcher.stream is not None else _raised(error, where)
        except Exception as error:
            answer = _raised(error, where)
        try:
            packed = _Packer.dumps((epoch, answer))
        except Exception as error:
            packed = _Packer.dumps((epoch, _raised(error, where)))
        outbox.put(packed)


def _prepare(parcel: bytes, number: int, count: int, base_seed: int) -> Work:
    global _info
    seed = base_seed + number
    random.seed(seed)
    np.random.seed(np.random.SeedSequence([base_seed, number]).generate_state(4))  # noqa: NPY002 (data sets draw from it)
    manual_seed(seed)
    try:
        work: Work = pickle.loads(parcel)
    except (AttributeError, ImportError) as error:
        raise RuntimeError(
            f"a worker cannot rebuild the data set: {error}. Classes and functions of a notebook or of an interactive session must be "
            "in a module that can be imported, or use num_workers=0"
        ) from None
    _info = WorkerInfo(number, count, seed, work.dataset)
    if work.worker_init_fn is not None:
        work.worker_init_fn(number)
    return work


def _raised(error: Exception, where: str) -> _Raised:
    text = f"Caught {type(error).__name__} {where}.\nOriginal {''.join(traceback.format_exception(error))}"
    try:
        ForkingPickler.dumps(type(error))
    except Exception:  # a class inside a function
        return _Raised(RuntimeError, text)
    return _Raised(type(error), text)


def _receive(connection: Connection, inbox: "queue.SimpleQueue[bytes]") -> None:
    try:
        while (message := connection.recv_bytes()) != _DONE:
            inbox.put(message)
        inbox.put(_DONE)
    except (EOFError, OSError):
        os._exit(1)  # the loader's process has ended


def _send(connection: Connection, outbox: "queue.SimpleQueue[memoryview]") -> None:
    try:
        while True:
            connection.send_bytes(outbox.get())
    except OSError:
        pass  # nobody reads any more: `_receive` decides what that means


_DONE = b"done"  # no pickle begins like this


# --- in the loader's process -------------------------------------------------------------------------------------------------


@contextmanager
def _without_main(wanted: bool) -> Iterator[None]:
    """While processes start, let them not import the main script, if ``wanted``: a script without a guard then runs as it is."""
    main = sys.modules.get("__main__")
    if wanted:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        if wanted and main is not None:
            sys.modules["__main__"] = main


class Workers:
    """The processes of one loader. ``timeout`` is the longest wait for a batch in seconds, 0 for no limit."""

    def __init__(self, work: Work, count: int, base_seed: int, timeout: float):
        self.count = count
        self.timeout = timeout
        self.epoch = 0
        self._owner = os.getpid()
        self._answered: set[int] = set()
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        try:
            parcel: bytes | _Parcel = work.packed()
        except RuntimeError as error:
            if "through inheritance" not in str(error):
                raise
            parcel = _Parcel(work)
        context = get_context("spawn")
        try:
            with _without_main(isinstance(parcel, bytes) and b"__main__" not in parcel):
                for number in range(count):
                    ours, theirs = context.Pipe()
                    first = None if isinstance(parcel, bytes) else parcel
                    process = context.Process(target=serve, args=(theirs, number, count, base_seed, first), daemon=True)
                    process.name = f"DataLoader worker {number}"
                    process.start()
                    theirs.close()  # the end of the worker's side is then noticed as the end of the pipe
                    self._processes.append(process)
                    self._pipes.append(ours)
            if isinstance(parcel, bytes):
                for number in range(count):
                    self._send(number, parcel)  # while the others start
        except BaseException:
            self.stop(patience=0.0)
            raise

    @property
    def running(self) -> bool:
        """Whether the processes have not been ended."""
        return bool(self._processes)

    def begin(self) -> int:
        """Start a new pass over the data set; return its number."""
        self.epoch += 1
        for number in range(len(self._pipes)):
            self._send(number, pickle.dumps(("epoch", self.epoch)))
        return self.epoch

    def request(self, number: int, indices: Any) -> None:
        """Ask a worker for a batch."""
        self._send(number, pickle.dumps(("fetch", indices)))

    def answer(self, number: int) -> Any:
        """The next answer of a worker to a request of this pass. Raises RuntimeError if the worker has died or takes too long."""
        if not self.running:
            raise RuntimeError("the workers of this DataLoader have ended: begin a new pass over it")
        pipe, process = self._pipes[number], self._processes[number]
        end = time.monotonic() + self.timeout if self.timeout > 0 else None
        while True:
            ready = wait([pipe, process.sentinel], None if end is None else max(0.0, end - time.monotonic()))
            if not ready:
                pid = process.pid
                self.stop(patience=0.0)
                raise RuntimeError(
                    f"DataLoader timed out after {self.timeout} seconds: worker {number} (pid {pid}) gave no batch"
                )
            try:
                if pipe not in ready and not pipe.poll():  # what a worker sent before its death is still to be read
                    raise EOFError
                message = pipe.recv_bytes()
            except (EOFError, OSError):
                raise self._death(number) from None
            self._answered.add(number)
            epoch, answer = pickle.loads(message)
            if epoch == self.epoch:
                return answer

    def _send(self, number: int, message: bytes) -> None:
        try:
            self._pipes[number].send_bytes(message)
        except OSError:
            raise self._death(number) from None

    def _death(self, number: int) -> RuntimeError:
        process = self._processes[number]
        process.join(_PATIENCE)
        code, pid = process.exitcode, process.pid
        self.stop(patience=0.0)
        cause = f"ended with exit code {code}"
        if code is not None and code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                cause += " (the system kills processes when memory runs out)"
        hint = ""
        if number not in self._answered:
            hint = (
                ' before its first batch. If the script has no `if __name__ == "__main__":` around what it runs, add that line, because '
                "workers import the script; or use num_workers=0"
            )
        return RuntimeError(f"DataLoader worker {number} (pid {pid}) {cause}{hint}")

    def stop(self, patience: float = _PATIENCE) -> None:
        """End the processes: let each finish its batch for at most ``patience`` seconds."""
        if os.getpid() != self._owner:  # a forked child has copies of the pipes, but the workers are not its own
            return
        pipes, self._pipes = self._pipes, []
        processes, self._processes = self._processes, []
        for pipe in pipes:
            try:
                pipe.send_bytes(_DONE)
            except OSError:
                pass
            pipe.close()
        end = time.monotonic() + patience
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()


class Batches:
    """The batches of one pass, in the order of ``indices``, loaded by `Workers`.

    ``ahead`` requests are under way for each worker. A stream has no indices, only None without end. Worker k reads its own copy of
    the stream. The batches come from the workers in turn, without those whose streams have ended.
    """

    def __init__(self, workers: Workers, indices: Iterator[Any], ahead: int, persistent: bool):
        count = workers.count
        self._workers = workers
        self._indices = indices
        self._pending: deque[int] = deque()
        self._active = [True] * count
        self._turn = 0
        self._stop = weakref.finalize(self, _nothing if persistent else workers.stop)
        self._epoch = workers.begin()
        for _ in range(ahead * count):
            self._request()

    def _request(self) -> None:
        """Ask the next worker for the next batch, if there is one."""
        count = len(self._active)
        turns = [(self._turn + k) % count for k in range(count)]
        number = next((k for k in turns if self._active[k]), None)
        if number is None:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            return
        self._turn = number + 1
        self._workers.request(number, indices)
        self._pending.append(number)

    def next(self) -> Any:
        """The next batch. Raises StopIteration after the last one, and the exception of the worker if making the batch failed."""
        while self._pending:
            if self._workers.epoch != self._epoch:
                raise RuntimeError("a newer pass over this DataLoader with persistent_workers=True has ended this one")
            number = self._pending.popleft()
            if not self._active[number]:
                continue
            answer = self._workers.answer(number)
            if isinstance(answer, _End):
                self._active[number] = False
            self._request()
            if isinstance(answer, _Raised):
                raise answer.again()
            if not isinstance(answer, _End):
                return answer
        self._stop()
        raise StopIteration


def _nothing() -> None:
    """What remains to do after a pass whose workers go on."""
