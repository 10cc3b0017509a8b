"""Rows and elements taken from positions that are data, and put or added there: gather, scatter and their kin."""

import math
import threading
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError, NumericalError, ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch, recorder
from rl_lab.engine.memory import Storage
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.layout import cat, copy_, narrow
from rl_lab.engine.ops.operands import broadcast_shape, constant, normal_dim, operand, whole
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, TensorCore, empty, new, owned

BAD_WEIGHT, FEW_WEIGHTS, BAD_PROBABILITY = 2, 3, 4


class IndexStatus:
    """Where kernels report an index outside its axis (1, the index, the axis' size) or weights that they cannot draw from.

    Each program has its own.
    """

    def __init__(self) -> None:
        self.words = np.zeros(3, np.int64)
        self.tensor = new(Storage.over(self.words), (3,), None, 0, int64)

    def check(self) -> None:
        """IndexError if a kernel reported one, NumericalError or ValueError for bad weights or probabilities."""
        if self.words[0]:
            flag, index, size = (int(word) for word in self.words)
            self.words[0] = 0
            if flag == BAD_WEIGHT:
                raise NumericalError("multinomial: a weight is negative, infinite or NaN")
            if flag == FEW_WEIGHTS:
                raise NumericalError("multinomial: too few weights of a row are positive")
            if flag == BAD_PROBABILITY:
                raise ValueError("a probability is not in [0, 1]: an output of a network needs a sigmoid first")
            raise IndexError(f"index {index} is out of bounds for a dimension of size {size}")


class _ThreadStatus(threading.local, IndexStatus):
    """Each thread has its own for what it launches itself."""


_status = _ThreadStatus()


def launch_checked(primitive: Any, tensors: tuple, numbers: tuple) -> None:
    """Launch a kernel that takes an index, with a status after its tensors, and raise if it reported one out of bounds."""
    recording = recorder()
    status = _status if recording is None else recording.status
    launch(primitive, (*tensors, status.tensor), numbers)
    if recording is not None and status.words[0]:
        recording.failed = True
    status.check()


def check_probabilities(x: Any) -> None:
    """Raise ValueError if a number is not in [0, 1]."""
    with tape.no_grad():
        source = x.contiguous()
    launch_checked(indexing_kernels.check_probabilities, (source,), (source.numel(),))


def three_parts(x: Any, dim: int) -> tuple[int, int, int]:
    return math.prod(x.sizes[:dim]), x.sizes[dim] if x.sizes else 1, math.prod(x.sizes[dim + 1 :])


# --- rows along one dimension ----------------------------------------------------------------------------------------

_TAKE = {
    float32: indexing_kernels.take,
    int64: indexing_kernels.take_int,
    uint8: indexing_kernels.take_bool,
    bool_: indexing_kernels.take_bool,
}


def take_rows(x: Any, dim: int, index: Any, wrap: bool) -> Any:
    """out[..., c, ...] = x[..., index[c], ...] for a vector of indices."""
    n, r, m = three_parts(x, dim)
    count = index.numel()
    out = empty((*x.sizes[:dim], count, *x.sizes[dim + 1 :]), x.dtype)
    with tape.no_grad():
        source, index = x.contiguous(), index.contiguous()
    launch_checked(_TAKE[x.dtype], (out, source, index), (n, r, m, count, int(wrap)))
    return attach(out, _take_rule, (x,), (index,), (x.sizes, dim, wrap))


def _take_rule(g, node):
    (index,), (shape, dim, wrap) = node.saved, node.context
    return add_rows(g, shape, dim, index, wrap)


def add_rows(g: Any, shape: tuple[int, ...], dim: int, index: Any, wrap: bool) -> Any:
    """Zeros of ``shape`` with the rows of ``g`` added at the places of the index, in float32 or int64."""
    g = whole(g)
    kernel = indexing_kernels.take_add if g.dtype is float32 else indexing_kernels.take_add_int
    out = empty(shape, g.dtype)
    n, r, m = three_parts(out, dim)
    with tape.no_grad():
        out.zero_()
        source = g.contiguous()
    launch_checked(kernel, (out, source, index), (n, r, m, index.numel(), int(wrap)))
    return attach(out, _take_add_rule, (g,), (index,), (dim, wrap))


def _take_add_rule(g, node):
    (index,), (dim, wrap) = node.saved, node.context
    return take_rows(g, dim, index, wrap)


def check_index(index: Any, name: str) -> None:
    if index.dtype is not int64:
        raise DtypeError(f"{name} expects an int64 index, got {index.dtype.name}")


def check_source(source: Any, input: Any, name: str) -> None:
    """Raise DtypeError unless the tensor that is written has the dtype of the one that it is written to."""
    if source.dtype is not input.dtype:
        raise DtypeError(f"{name}: the source is {source.dtype.name}, the tensor is {input.dtype.name}")


@numpy_names
def index_select(input: Any, dim: int, index: Any) -> Tensor:
    """The places along ``dim`` that a vector of indices names."""
    check_index(index, "index_select")
    if index.dim() > 1:
        raise IndexError(f"index_select expects a vector of indices, got shape {list(index.sizes)}")
    if not input.sizes:
        return take_rows(input.reshape(1), normal_dim(dim, 0), index.reshape(1), wrap=False).reshape(())
    return take_rows(input, normal_dim(dim, input.dim()), index.reshape(-1), wrap=False)


# --- gather and scatter ----------------------------------------------------------------------------------------------


def _check_gather(name: str, x: Any, dim: int, index: Any) -> None:
    check_index(index, name)
    if index.dim() != x.dim():
        raise ShapeError(f"{name}: index of shape {list(index.sizes)} and tensor of shape {list(x.sizes)} differ in rank")
    for d in range(x.dim()):
        if d != dim and index.sizes[d] > x.sizes[d]:
            raise ShapeError(
                f"{name}: index of shape {list(index.sizes)} exceeds shape {list(x.sizes)} apart from dimension {dim}"
            )


def _cut(x: Any, dim: int, shape: tuple[int, ...]) -> Any:
    """x cut down to the index' sizes except along ``dim``."""
    for d, size in enumerate(shape):
        if d != dim and x.sizes[d] != size:
            x = narrow(x, d, 0, size)
    return x


@numpy_names
def gather(input: Any, dim: int, index: Any) -> Tensor:
    """out[i][j][k] = input[index[i][j][k]][j][k] for dim 0, and so on for the others; negative indices are errors."""
    dim = normal_dim(dim, input.dim())
    _check_gather("gather", input, dim, index)
    return _gather(_cut(input, dim, index.sizes), dim, index)


def _gather(x: Any, dim: int, index: Any) -> Any:
    n, r, m = three_parts(x, dim)
    out = empty(index.sizes, float32 if x.dtype is float32 else int64)
    with tape.no_grad():
        source, index = x.contiguous(), index.contiguous()
    kernel = indexing_kernels.gather if x.dtype is float32 else indexing_kernels.gather_int
    source = whole(source)
    launch_checked(kernel, (out, source, index), (n, r, m, index.sizes[dim] if index.sizes else 1))
    return attach(out.to(x.dtype), _gather_rule, (x,), (index,), (x.sizes, dim))


def _gather_rule(g, node):
    (index,), (shape, dim) = node.saved, node.context
    return _scatter_add(None, shape, dim, index, g)


def _scatter_add(x: Any, shape: tuple[int, ...], dim: int, index: Any, source: Any) -> Any:
    """A copy of x (zeros if None) with the source added at the index."""
    with tape.no_grad():
        values, index = whole(source).contiguous(), index.contiguous()
        if x is None:
            out = empty(shape, values.dtype)
            out.zero_()
        else:
            out = whole(x)
            out = out.clone() if out is x else out
    n, r, m = three_parts(out, dim)
    kernel = indexing_kernels.scatter_add if out.dtype is float32 else indexing_kernels.scatter_add_int
    launch_checked(kernel, (out, values, index), (n, r, m, index.sizes[dim] if index.sizes else 1))
    if x is None:
        return attach(out, _scatter_rule, (source,), (index,), dim)
    return attach(out.to(x.dtype), _scatter_add_rule, (x, source), (index,), dim)


def _scatter_rule(g, node):
    return _gather(g, node.context, node.saved[0])


def _scatter_add_rule(g, node):
    return g if node.wants(0) else None, _gather(g, node.context, node.saved[0]) if node.wants(1) else None


def scatter_sum(shape: tuple[int, ...], dim: int, index: Any, source: Any) -> Any:
    """Zeros of ``shape`` with the source added at the index: the gradient of `gather`."""
    return _scatter_add(None, shape, dim, index, source)


@numpy_names
def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Tensor:
    """input with ``src`` added where `gather` with the same index would read; repeated indices add up."""
    dim = normal_dim(dim, input.dim())
    _check_gather("scatter_add", input, dim, index)
    check_source(src, input, "scatter_add")
    if src.dim() != index.dim():
        raise ShapeError(
            f"scatter_add: source of shape {list(src.sizes)} and index of shape {list(index.sizes)} differ in rank"
        )
    for d, size in enumerate(index.sizes):
        src = narrow(src, d, 0, size)
    region = _cut(input, dim, index.sizes)
    added = _scatter_add(region, region.sizes, dim, index, src)
    if region is input:
        return added
    whole = input.clone()
    copy_(_cut(whole, dim, index.sizes), added)
    return whole


def _scatter_rule_of_values(g, node):
    (index,), dim = node.saved, node.context
    to_x = to_source = None
    if node.wants(0):
        to_x = _scatter(g, dim, index, constant(0.0).expand(index.sizes))
    if node.wants(1):
        to_source = _gather(_cut(g, dim, index.sizes), dim, index)
    return to_x, to_source


def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    region = _cut(x, dim, index.sizes)
    with tape.no_grad():
        kind = float32 if x.dtype is float32 else int64
        out = region.to(kind).clone() if region.dtype is kind else region.to(kind)
        values, places = source.to(kind).contiguous(), index.contiguous()
    n, r, m = three_parts(out, dim)
    kernel = indexing_kernels.scatter if kind is float32 else indexing_kernels.scatter_int
    launch_checked(kernel, (out, values, places), (n, r, m, index.sizes[dim] if index.sizes else 1))
    out = out.to(x.dtype)
    if region is not x:
        with tape.no_grad():
            whole = x.clone()
            part = whole
            for d, size in enumerate(index.sizes):
                part = narrow(part, d, 0, size) if d != dim else part
            copy_(part, out)
        out = whole
    return attach(out, _scatter_rule_of_values, (x, source), (index,), dim)


@numpy_names
def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """input with ``src`` (a tensor or a number) written where `gather` with the same index would read.

    With ``reduce`` "add" it is added there. Raises ValueError for another ``reduce``.
    """
    src = value if src is None else src
    if reduce is not None:
        if reduce != "add":
            raise ValueError(f"scatter: reduce must be 'add' or None, got {reduce!r}")
        return scatter_add(
            input, dim, index, src if isinstance(src, TensorCore) else operand(src, input).to(input.dtype).expand(index.sizes)
        )
    dim = normal_dim(dim, input.dim())
    _check_gather("scatter", input, dim, index)
    source = operand(src, input)
    if source.dtype is not input.dtype:
        if isinstance(src, TensorCore):
            check_source(source, input, "scatter")
        source = source.to(input.dtype)
    if not isinstance(src, TensorCore):
        source = source.expand(index.sizes)
    for d, size in enumerate(index.sizes):
        source = narrow(source, d, 0, size)
    return _scatter(input, dim, index, source)


@numpy_names
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """`gather`, with everything but ``dim`` broadcast; of the flattened tensor without ``dim``."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    dim = normal_dim(dim, input.dim())
    shape = broadcast_shape(*[(*t.sizes[:dim], 1, *t.sizes[dim + 1 :]) for t in (input, indices)])
    sizes = [(*shape[:dim], t.sizes[dim], *shape[dim + 1 :]) for t in (input, indices)]
    return gather(input.expand(sizes[0]), dim, indices.expand(sizes[1]))


@numpy_names
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
    """input with ``alpha * source`` added at the places of ``index`` along ``dim``; repeated indices add up."""
    dim = normal_dim(dim, input.dim())
    check_index(index, "index_add")
    check_source(source, input, "index_add")
    if not input.sizes and source.numel() == index.numel() == 1:
        return index_add(input.reshape(1), 0, index.reshape(1), source.reshape(1), alpha=alpha).reshape(())
    if index.dim() > 1 or source.sizes != (*input.sizes[:dim], index.numel(), *input.sizes[dim + 1 :]):
        raise ShapeError(
            f"index_add: index of shape {list(index.sizes)} and source of shape {list(source.sizes)} do not fit {list(input.sizes)}"
        )
    if input.dtype is not float32:  # exact, and uint8 wraps as its memory does
        added = add_rows(whole(source) * int(alpha), input.sizes, dim, index.reshape(-1), wrap=False)
        return (whole(input) + added).to(input.dtype)
    added = add_rows(source if alpha == 1 else source * alpha, input.sizes, dim, index.reshape(-1), wrap=False)
    return input + added


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Tensor:
    """Rows of weight (count, size) at integers of any shape; the gradient skips row ``padding_idx``."""
    check_index(input, "embedding")
    if weight.dim() != 2:
        raise ShapeError(f"embedding takes a matrix of weights, got shape {list(weight.sizes)}")
    if padding_idx is not None:
        place = padding_idx % weight.sizes[0]
        kept = weight.detach()[place : place + 1]
        weight = cat([weight[:place], kept, weight[place + 1 :]])
    rows = take_rows(weight, 0, input.reshape(-1), wrap=False)
    return owned(rows.reshape((*input.sizes, weight.sizes[1])))


def one_hot(input: Any, num_classes: int = -1) -> Tensor:
    """1 at the index ``input`` and 0 elsewhere along a new last dimension, in int64."""
    check_index(input, "one_hot")
    classes = int(input.max()) + 1 if num_classes == -1 else num_classes
    out = empty((*input.sizes, classes), int64)
    launch_checked(indexing_kernels.one_hot, (out, input.contiguous()), (input.numel(), classes))
    return out
