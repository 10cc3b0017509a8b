"""Batches from the samples of a data set: in this process, and in the workers of a DataLoader."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor, tensor
from rl_lab.engine.ops.layout import stack
from rl_lab.utils.data.dataset import Dataset, IterableDataset, Subset, TensorDataset


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


class Fetcher:
    """Gets one batch per call of `fetch`, or one sample per call if ``batched`` is false.

    ``batch_size`` and ``drop_last`` divide a stream. A Fetcher reads a stream once, from its beginning to its end.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate_fn: Callable[[Any], Any],
        batched: bool,
        batch_size: int | None,
        drop_last: bool,
    ):
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batched = batched
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.stream: Iterator[Any] | None = iter(dataset) if isinstance(dataset, IterableDataset) else None

    def fetch(self, indices: Any) -> Any:
        """The batch of the samples ``indices``, a list, or the sample of one index. A stream takes None and gives its next batch.

        Raises StopIteration at the end of a stream.
        """
        if self.stream is not None:
            return self._from_stream(self.stream)
        if not self.batched:
            return self.collate_fn(self.dataset[indices])
        if self.collate_fn is default_collate:
            dataset, rows = _within(self.dataset, indices)
            if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
                return list(dataset.batch(rows))  # the same numbers as stacked one by one, in one gather
        if hasattr(self.dataset, "__getitems__"):
            return self.collate_fn(self.dataset.__getitems__(indices))
        return self.collate_fn([self.dataset[index] for index in indices])

    def _from_stream(self, stream: Iterator[Any]) -> Any:
        if self.batch_size is None:
            return self.collate_fn(next(stream))
        batch = list(islice(stream, self.batch_size))
        if not batch or (self.drop_last and len(batch) < self.batch_size):
            raise StopIteration
        return self.collate_fn(batch)
