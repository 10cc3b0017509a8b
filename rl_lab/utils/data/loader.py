"""The loader: batches of a data set, collated into tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor, tensor
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.random import Generator
from rl_lab.utils.data.dataset import Dataset, IterableDataset, Subset, TensorDataset
from rl_lab.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler


def default_collate(batch: Sequence[Any]) -> Any:
    """One value from a list of samples: tensors and arrays stacked, numbers as a tensor, strings as a list.

    Dicts, tuples, named tuples and lists are collated entry by entry. Raises ValueError if samples have different lengths, TypeError
    for other types.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch))
    if isinstance(first, np.ndarray):
        return stack([as_tensor(sample) for sample in batch])
    if isinstance(first, (bool, int, float, np.generic)):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*[default_collate(parts) for parts in zip(*batch, strict=True)])
    if isinstance(first, Sequence):
        if len({len(sample) for sample in batch}) > 1:
            raise ValueError("the samples of a batch have different lengths: give the DataLoader a collate_fn")
        return [default_collate(parts) for parts in zip(*batch, strict=True)]
    raise TypeError(
        f"a sample of type {type(first).__name__} cannot be collated: use tensors, arrays, numbers, dicts, or a collate_fn"
    )


def default_convert(data: Any) -> Any:
    """The arrays in a sample as tensors; the rest as it is."""
    if isinstance(data, np.ndarray):
        return as_tensor(data)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[default_convert(value) for value in data])
    if isinstance(data, (list, tuple)):
        return [default_convert(value) for value in data]
    return data


def _within(dataset: Dataset[Any], indices: list[Any]) -> tuple[Dataset[Any], list[Any]]:
    """The data set behind subsets, and the numbers that the samples have there."""
    while type(dataset) is Subset:
        indices = [dataset.indices[index] for index in indices]
        dataset = dataset.dataset
    return dataset, indices


def get_worker_info() -> None:
    """None, as in PyTorch's main process: samples are loaded there."""


class DataLoader:
    """Batches of a data set.

    ``sampler`` gives the numbers of samples (in order, or at random with ``shuffle``), ``batch_sampler`` lists of them. With
    ``batch_size`` None samples are not batched. ``collate_fn`` makes a batch from a list of samples. ``generator`` is the stream of
    random numbers. Samples are loaded in this process: ``num_workers``, ``pin_memory``, ``timeout``, ``worker_init_fn``,
    ``multiprocessing_context``, ``prefetch_factor``, ``persistent_workers``, ``pin_memory_device`` and ``in_order`` are accepted and
    have no effect. Raises ValueError for settings that exclude each other.
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
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        stream = isinstance(dataset, IterableDataset)
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}")
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
        self.generator = generator
        batched = batch_sampler is not None or (stream and batch_size is not None)
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset):
            yield from self._stream(iter(self.dataset))
        elif self.batch_sampler is not None:
            for indices in self.batch_sampler:
                yield self._batch(indices)
        else:
            for index in self.sampler or ():
                yield self.collate_fn(self.dataset[index])

    def _batch(self, indices: list[Any]) -> Any:
        if self.collate_fn is default_collate:
            dataset, rows = _within(self.dataset, indices)
            if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
                return list(dataset.batch(rows))  # the same numbers as stacked one by one, in one gather
        if hasattr(self.dataset, "__getitems__"):
            return self.collate_fn(self.dataset.__getitems__(indices))
        return self.collate_fn([self.dataset[index] for index in indices])

    def _stream(self, samples: Iterator[Any]) -> Iterator[Any]:
        if self.batch_size is None:
            for sample in samples:
                yield self.collate_fn(sample)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            total = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return total
            return total // self.batch_size if self.drop_last else -(-total // self.batch_size)
        return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)  # type: ignore[arg-type]
