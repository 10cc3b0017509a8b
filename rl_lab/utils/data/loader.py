"""The loader: batches of a data set, collated into tensors, in this process or in others."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from multiprocessing.context import BaseContext
from typing import Any

from rl_lab.engine.random import Generator, randint
from rl_lab.utils.data.dataset import Dataset, IterableDataset
from rl_lab.utils.data.fetching import default_collate, default_convert
from rl_lab.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from rl_lab.utils.data.workers import Batches, Work, Workers

_FIXED = ("dataset", "batch_size", "batch_sampler", "sampler", "drop_last", "persistent_workers")


class DataLoader:
    """Batches of a data set.

    ``sampler`` gives the numbers of samples (in order, or at random with ``shuffle``), ``batch_sampler`` lists of them. With
    ``batch_size`` None samples are not batched. ``collate_fn`` makes a batch from a list of samples. ``generator`` is the stream of
    random numbers.

    With ``num_workers`` above 0, that many spawned processes load the batches, each with a copy of the data set. The batches and their
    order are the same as without them, and do not depend on the number or the speed of the workers; only a stream is read by each
    worker from its own copy, which `get_worker_info` lets it divide. Workers pay off if a sample takes long to make (files, images):
    each needs about a second to start, and sends its batches through a pipe. ``prefetch_factor`` batches (default 2) are under way for
    each worker; ``timeout`` is the longest wait for one in seconds, 0 for no limit. ``persistent_workers`` keeps the workers for the
    next pass. Each pass draws a base seed from ``generator``. Worker k seeds ``random``, NumPy and rl_lab with the base seed plus k when
    it starts, and then calls ``worker_init_fn(k)``. ``multiprocessing_context`` can only be "spawn".

    An exception in a worker is raised here with the worker's traceback. Raises RuntimeError if a worker dies or takes too long,
    TypeError if the data set cannot be pickled, ValueError for settings that exclude each other. ``pin_memory``, ``pin_memory_device``
    and ``in_order`` are accepted and have no effect.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: str | BaseContext | None = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        stream = isinstance(dataset, IterableDataset)
        _check_worker_settings(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("a stream of samples determines their order: give no shuffle, sampler or batch_sampler")
        if sampler is not None and shuffle:
            raise ValueError("give a sampler or shuffle, not both")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler excludes batch_size, shuffle, sampler and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("drop_last needs a batch_size")
        if not stream and sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
        if not stream and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)  # type: ignore[arg-type]
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self.generator = generator
        self._batched = batch_sampler is not None or (stream and batch_size is not None)
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self._workers: Workers | None = None
        self._complete = True

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FIXED and "_complete" in self.__dict__:
            raise ValueError(f"{name} of a DataLoader cannot change: make a new DataLoader")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}

    def __iter__(self) -> Iterator[Any]:
        seed = int(
            randint(0, 2**63 - 1, (), generator=self.generator).item()
        )  # always, so that workers change no random number
        source: Iterable[Any] | None = self.sampler if self.batch_sampler is None else self.batch_sampler
        indices: Iterator[Any] = repeat(None) if source is None else iter(source)
        work = Work(self.dataset, self.collate_fn, self._batched, self.batch_size, self.drop_last, self.worker_init_fn)
        if not self.num_workers:
            fetcher = work.fetcher()
            return _Pass(self, lambda: fetcher.fetch(next(indices)))
        workers = self._workers
        if workers is None or not workers.running:
            workers = Workers(work, self.num_workers, seed, self.timeout)
        if self.persistent_workers and workers is not self._workers:
            self._workers = workers
            weakref.finalize(self, workers.stop)
        return _Pass(self, Batches(workers, indices, self.prefetch_factor or 2, self.persistent_workers).next)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            total = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return total
            return total // self.batch_size if self.drop_last else -(-total // self.batch_size)
        return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)  # type: ignore[arg-type]


class _Pass(Iterator[Any]):
    """One pass over a loader. After an exception of the data set, the next call goes on with the next batch, as in PyTorch."""

    def __init__(self, loader: DataLoader, draw: Callable[[], Any]):
        self._loader = loader
        self._draw = draw

    def __next__(self) -> Any:
        return self._draw()

    def __len__(self) -> int:
        return len(self._loader)


def _check_worker_settings(
    num_workers: int,
    timeout: float,
    prefetch_factor: int | None,
    persistent_workers: bool,
    context: str | BaseContext | None,
) -> None:
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    if not timeout >= 0:
        raise ValueError(f"timeout must not be negative, got {timeout}")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError(f"prefetch_factor must be positive, got {prefetch_factor}")
    method = context.get_start_method() if isinstance(context, BaseContext) else context
    if method not in (None, "spawn"):
        raise ValueError(
            f'multiprocessing_context can only be "spawn", got {method!r}: a forked process has no threads, so kernels may hang in it'
        )
    if num_workers == 0:
        for name, given in (
            ("prefetch_factor", prefetch_factor is not None),
            ("persistent_workers", persistent_workers),
            ("timeout", timeout > 0),
            ("multiprocessing_context", method is not None),
        ):
            if given:
                raise ValueError(f"{name} needs workers: give num_workers above 0, or leave {name} out")
