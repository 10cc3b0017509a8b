"""Data sets: collections of samples by number, or streams of samples."""

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.random import Generator, randperm

Sample = TypeVar("Sample")
Sample_co = TypeVar("Sample_co", covariant=True)


class Dataset(Generic[Sample_co]):
    """Base of the data sets. A subclass defines ``__getitem__``, and ``__len__`` for most samplers."""

    def __getitem__(self, index: Any) -> Sample_co:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def __add__(self, other: "Dataset[Sample_co]") -> "ConcatDataset[Sample_co]":
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Sample_co]):
    """Base of the data sets that are streams. A subclass defines ``__iter__``."""

    def __iter__(self) -> Iterator[Sample_co]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__")

    def __add__(self, other: Dataset[Sample_co]) -> "ChainDataset":  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples along the first dimension of one or several tensors. Raises ValueError if their numbers differ."""

    def __init__(self, *tensors: Tensor):
        sizes = [len(x) for x in tensors]
        if len(set(sizes)) > 1:
            raise ValueError(f"the tensors of a TensorDataset must have one first size, got {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> tuple[Tensor, ...]:
        return tuple([x[index] for x in self.tensors])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """The samples of these numbers, stacked: one gather for each tensor."""
        rows = tensor(list(indices))
        return tuple([x[rows] for x in self.tensors])

    def __len__(self) -> int:
        return len(self.tensors[0]) if self.tensors else 0


class StackDataset(Dataset[Any]):
    """Samples of several data sets side by side: tuples for positional arguments, dicts for named ones."""

    def __init__(self, *args: Dataset[Any], **kwargs: Dataset[Any]):
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset takes positional or named data sets, at least one and not both")
        self.datasets: Any = args or kwargs
        sizes = [len(part) for part in (args or kwargs.values())]  # type: ignore[arg-type]
        if len(set(sizes)) > 1:
            raise ValueError(f"the data sets of a StackDataset must have one size, got {sizes}")
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: part[index] for name, part in self.datasets.items()}
        return tuple([part[index] for part in self.datasets])

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Sample_co]):
    """Several data sets one after the other. Raises ValueError if ``datasets`` is empty."""

    def __init__(self, datasets: Iterable[Dataset[Sample_co]]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset needs at least one data set")
        self.cumulative_sizes: list[int] = []
        for part in self.datasets:
            before = self.cumulative_sizes[-1] if self.cumulative_sizes else 0
            self.cumulative_sizes.append(before + len(part))  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Sample_co:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range: the data set has {len(self)} samples")
        index = index + len(self) if index < 0 else index
        number = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[number][index - (self.cumulative_sizes[number - 1] if number else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[Any]):
    """Several streams one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]):
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[Any]:
        for part in self.datasets:
            yield from part  # type: ignore[misc]

    def __len__(self) -> int:
        return sum(len(part) for part in self.datasets)  # type: ignore[misc, arg-type]


class Subset(Dataset[Sample_co]):
    """The samples of another data set at ``indices``."""

    def __init__(self, dataset: Dataset[Sample_co], indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Sample_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[Sample], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[Sample]]:
    """Divide a data set at random into parts of the given lengths, or of the given fractions, which must add up to 1.

    Fractions are rounded down, and the remaining samples go to the first parts, one each. Raises ValueError if the lengths do not
    add up to the size of the data set.
    """
    total = len(dataset)  # type: ignore[arg-type]
    counts = [int(length) for length in lengths]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for fraction in lengths:
            if not 0 <= fraction <= 1:
                raise ValueError(f"a fraction must be in [0, 1], got {fraction}")
        counts = [math.floor(total * fraction) for fraction in lengths]
        for k in range(total - sum(counts)):
            counts[k % len(counts)] += 1
    if sum(counts) != total:
        raise ValueError(f"the lengths {list(lengths)} do not add up to {total}, the size of the data set")
    order = randperm(total, generator=generator).tolist()
    parts = []
    start = 0
    for count in counts:
        parts.append(Subset(dataset, order[start : start + count]))
        start += count
    return parts
