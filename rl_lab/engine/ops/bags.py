"""Bags of embeddings: the sum, mean or maximum of the rows of a table that belong to one bag."""

from rl_lab.engine import tape
from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.composed import searchsorted
from rl_lab.engine.ops.creation import arange, full, zeros
from rl_lab.engine.ops.gathering import check_index, embedding, gather, index_add, index_select
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.tensor import Tensor, empty


def check_unsupported(name: str, max_norm: float | None, scale_grad_by_freq: bool, sparse: bool) -> None:
    """Raise ValueError for settings of PyTorch's embeddings that change tables or gradients and do not exist here."""
    for setting, given in (("max_norm", max_norm is not None), ("scale_grad_by_freq", scale_grad_by_freq), ("sparse", sparse)):
        if given:
            raise ValueError(f"{name} does not support {setting}: leave it out")


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The "sum", "mean" or "max" (``mode``) of the rows of weight (count, size) that belong to each bag, float32 (bags, size).

    ``input`` is int64 (bags, length), or a vector of all bags one after the other, where ``offsets`` (bags,) are their beginnings; with
    ``include_last_offset`` offsets has one more element, the end of the last bag. ``per_sample_weights``, in the shape of the input,
    multiply the rows before a "sum". Elements equal to ``padding_idx`` do not count. An empty bag gives zeros. ``max_norm``,
    ``scale_grad_by_freq`` and ``sparse`` are not supported. Raises IndexError for an index or an offset that is out of bounds, DtypeError,
    ShapeError or ValueError for unsuitable arguments.
    """
    check_unsupported("embedding_bag", max_norm, scale_grad_by_freq, sparse)
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode must be 'sum', 'mean' or 'max', got {mode!r}")
    check_index(input, "embedding_bag")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.sizes != input.sizes):
        raise ValueError(
            f"embedding_bag takes per_sample_weights only with mode='sum' and in the shape {list(input.sizes)} of the input, got mode="
            f"{mode!r} and shape {list(per_sample_weights.sizes)}"
        )
    if (input.dim() == 2) == (offsets is not None) or input.dim() not in (1, 2):
        raise ShapeError(
            "embedding_bag takes an input (bags, length) without offsets, or a vector with offsets, got an input of shape "
            f"{list(input.sizes)} {'without' if offsets is None else 'with'} offsets"
        )
    with tape.no_grad():
        count, bag = _bags(input, offsets, include_last_offset)
    rows = embedding(input.reshape(-1), weight, padding_idx)
    kept = bag < count
    if padding_idx is not None:
        kept = kept & (input.reshape(-1) != padding_idx % weight.sizes[0])
    if mode == "max":
        return _largest(rows, bag, kept, count)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    rows = where(kept.unsqueeze(1), rows, constant(0.0))
    total = index_add(zeros(count + 1, weight.sizes[1]), 0, bag, rows)[:count]
    if mode == "sum":
        return total
    numbers = index_add(zeros(count + 1), 0, bag, kept.float())[:count]
    return total / numbers.clamp(min=1.0).unsqueeze(1)


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[int, Tensor]:
    """(number of bags, the bag of each element). Elements behind the last bag are in bag number ``count``."""
    if offsets is None:
        count, length = input.sizes
        return count, arange(count).unsqueeze(1).expand(count, length).reshape(-1)
    if offsets.dtype is not int64 or offsets.dim() != 1 or not offsets.sizes[0]:
        raise DtypeError(f"embedding_bag takes int64 offsets (bags,), got {offsets.dtype.name} of shape {list(offsets.sizes)}")
    n = input.sizes[0]
    count = offsets.sizes[0] - int(include_last_offset)
    index_select(arange(n + 1), 0, offsets)  # raises IndexError for an offset behind the end
    index_select(arange(1), 0, offsets[:1])  # and unless the first offset is 0
    return count, searchsorted(offsets, arange(n), right=True) - 1


def _largest(rows: Tensor, bag: Tensor, kept: Tensor, count: int) -> Tensor:
    size = rows.sizes[1]
    with tape.no_grad():
        place = empty((count, size), int64)
        launch(
            indexing_kernels.bag_argmax,
            (place, rows.contiguous(), bag.contiguous(), kept.contiguous()),
            (rows.sizes[0], size, count),
        )
        found = place >= 0
        place = place.clamp(min=0)
    if not rows.sizes[0]:
        return full((count, size), 0.0)
    return where(found, gather(rows, 0, place), constant(0.0))
