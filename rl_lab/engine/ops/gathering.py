"""Reading, writing and adding at positions given by index tensors: index_select, gather, scatter and similar functions."""

import functools
import math
import threading

import numpy as np

from rl_lab.engine import finite, tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError, NumericalError, ShapeError, StateError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.kernels.linalg import NOT_POSITIVE, SINGULAR
from rl_lab.engine.kernels.optimizer import NOT_FINITE
from rl_lab.engine.launch import launch, recorder
from rl_lab.engine.memory import Storage
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.layout import cat, copy_, dense, narrow
from rl_lab.engine.ops.operands import broadcast_shape, constant, fill, normal_dim, operand, whole
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Shape, Tensor, check_writable, empty, needs_gradient, new, owned
from rl_lab.engine.types import Gradients, Operand
from rl_lab.native.primitive import Primitive

BAD_WEIGHT = 2
FEW_WEIGHTS = 3
BAD_PROBABILITY = 4
BAD_DEVIATION = 6
"""Flags that kernels report, beside 1 for an index outside its axis."""


class IndexStatus:
    """Memory in which kernels report an error: a flag, the index and the size of its axis. Each program has its own.

    Kernels never raise, so `check` raises after the launch or the replay.
    """

    def __init__(self) -> None:
        self.words = np.zeros(3, np.int64)
        self.tensor = new(Storage.over(self.words), (3,), None, 0, int64)
        self.flag = int64.at(self.tensor.address)
        """The first word, which Python reads faster than an element of an array."""

    def check(self) -> None:
        """Raise the error that a kernel reported.

        Raises IndexError for an index outside its axis, NumericalError for weights that cannot be drawn from, ValueError for a number
        that is not a probability, a standard deviation or a rate.
        """
        if self.words[0]:
            flag, index, size = (int(word) for word in self.words)
            self.words[0] = 0
            if flag == BAD_WEIGHT:
                raise NumericalError("multinomial: a weight is negative, infinite or NaN")
            if flag == FEW_WEIGHTS:
                raise NumericalError("multinomial: a row has fewer positive weights than draws without replacement")
            if flag == BAD_PROBABILITY:
                raise ValueError("a probability is not in [0, 1]: apply sigmoid() to the output of a network first")
            if flag == SINGULAR:
                raise StateError(f"linalg: matrix {index} is singular")
            if flag == NOT_POSITIVE:
                raise StateError(f"linalg.cholesky: matrix {index} is not positive definite")
            if flag == BAD_DEVIATION:
                raise ValueError("a standard deviation or a rate is negative or NaN")
            if flag == NOT_FINITE:
                raise finite.error(size, index)
            raise IndexError(f"index {index} is out of bounds for a dimension of size {size}")


class _ThreadStatus(threading.local, IndexStatus):
    """The status of each thread's own launches."""


_status = _ThreadStatus()


def launch_checked(primitive: Primitive, tensors: tuple[Tensor, ...], numbers: tuple[int, ...]) -> None:
    """Launch a kernel whose parameter after the tensors is a status, then raise the error it reported, see `IndexStatus.check`."""
    recording = recorder()
    status = _status if recording is None else recording.status
    launch(primitive, (*tensors, status.tensor), numbers)
    if status.flag.value:
        if recording is not None:
            recording.failed = True
        status.check()


def check_deviations(x: Tensor) -> None:
    """Raise ValueError if an element is negative or NaN."""
    with tape.no_grad():
        source = x.contiguous()
    launch_checked(indexing_kernels.check_deviations, (source,), (source.numel(),))


def check_probabilities(x: Tensor) -> None:
    """Raise ValueError if an element is not in [0, 1]."""
    with tape.no_grad():
        source = x.contiguous()
    launch_checked(indexing_kernels.check_probabilities, (source,), (source.numel(),))


def three_parts(x: Tensor, dim: int) -> tuple[int, int, int]:
    """(n, r, m): the numbers of elements before, along and after dimension ``dim``."""
    return _three_parts(x.sizes, dim)


@functools.lru_cache(maxsize=4096)
def _three_parts(sizes: Shape, dim: int) -> tuple[int, int, int]:
    return math.prod(sizes[:dim]), sizes[dim] if sizes else 1, math.prod(sizes[dim + 1 :])


# --- rows along one dimension ----------------------------------------------------------------------------------------

_TAKE = {
    float32: indexing_kernels.take,
    int64: indexing_kernels.take_int,
    uint8: indexing_kernels.take_bool,
    bool_: indexing_kernels.take_bool,
}


def take_rows(x: Tensor, dim: int, index: Tensor, wrap: bool) -> Tensor:
    """out[..., c, ...] = x[..., index[c], ...] for a vector of indices. With ``wrap`` negative indices count from the end."""
    n, r, m = three_parts(x, dim)
    count = index.numel()
    out = empty((*x.sizes[:dim], count, *x.sizes[dim + 1 :]), x.dtype)
    source, index = dense(x, index)
    launch_checked(_TAKE[x.dtype], (out, source, index), (n, r, m, count, int(wrap)))
    return attach(out, _take_rule, (x,), (index,), (x.sizes, dim, wrap))


def _take_rule(g: Tensor, node: Node) -> Gradients:
    (index,) = node.saved
    shape, dim, wrap = node.context
    return add_rows(g, shape, dim, index, wrap)


def add_rows(g: Tensor, shape: Shape, dim: int, index: Tensor, wrap: bool) -> Tensor:
    """Zeros of ``shape`` with out[..., index[c], ...] += g[..., c, ...], the gradient of `take_rows`, in float32 or int64."""
    g = whole(g)
    kernel = indexing_kernels.take_add if g.dtype is float32 else indexing_kernels.take_add_int
    out = empty(shape, g.dtype)
    n, r, m = three_parts(out, dim)
    (source,) = dense(g)
    launch_checked(kernel, (out, source, index), (n, r, m, index.numel(), int(wrap)))
    return attach(out, _take_add_rule, (g,), (index,), (dim, wrap))


def _take_add_rule(g: Tensor, node: Node) -> Gradients:
    (index,) = node.saved
    dim, wrap = node.context
    return take_rows(g, dim, index, wrap)


def check_index(index: Tensor, name: str) -> None:
    """Raise DtypeError if the index is not int64."""
    if index.dtype is not int64:
        raise DtypeError(f"{name} expects an int64 index, got {index.dtype.name}: convert with .long() first")


def check_source(source: Tensor, input: Tensor, name: str) -> None:
    """Raise DtypeError unless the tensor that is written has the dtype of the one that it is written to."""
    if source.dtype is not input.dtype:
        raise DtypeError(f"{name}: the source is {source.dtype.name}, the tensor is {input.dtype.name}")


@numpy_names
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The positions ``index``, an int64 vector, along ``dim``.

    Raises DtypeError if the index is not int64, IndexError if it is not a vector or an index is out of bounds.
    """
    check_index(index, "index_select")
    if index.dim() > 1:
        raise IndexError(f"index_select expects a vector of indices, got shape {list(index.sizes)}")
    if not input.sizes:
        return take_rows(input.reshape(1), normal_dim(dim, 0), index.reshape(1), wrap=False).reshape(())
    return take_rows(input, normal_dim(dim, input.dim()), index.reshape(-1), wrap=False)


# --- gather and scatter ----------------------------------------------------------------------------------------------


def _check_gather(name: str, x: Tensor, dim: int, index: Tensor) -> None:
    """Raise DtypeError or ShapeError if `gather` cannot take this index."""
    check_index(index, name)
    if index.dim() != x.dim():
        raise ShapeError(
            f"{name}: the index needs as many dimensions as the tensor of shape {list(x.sizes)}, got shape {list(index.sizes)}"
        )
    for d in range(x.dim()):
        if d != dim and index.sizes[d] > x.sizes[d]:
            raise ShapeError(
                f"{name}: in all dimensions but {dim} the index must not be larger than the tensor of shape {list(x.sizes)}, "
                f"got shape {list(index.sizes)}"
            )


def _cut(x: Tensor, dim: int, shape: Shape) -> Tensor:
    """The first ``shape[d]`` positions of x in each dimension d, except in ``dim``."""
    for d, size in enumerate(shape):
        if d != dim and x.sizes[d] != size:
            x = narrow(x, d, 0, size)
    return x


@numpy_names
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j][k] = input[index[i][j][k]][j][k] if ``dim`` is 0; accordingly for other dimensions.

    Raises DtypeError or ShapeError for an unsuitable index, IndexError if an index is negative or too large.
    """
    if len(input.sizes) + len(index.sizes) == 1:  # a scalar counts as a vector of one element
        return gather(input.reshape(-1), dim, index.reshape(-1)).reshape(index.sizes)
    dim = normal_dim(dim, len(input.sizes))
    if index.dtype is not int64 or not _fits_gather(input.sizes, dim, index.sizes):
        _check_gather("gather", input, dim, index)
        input = _cut(input, dim, index.sizes)
    return _gather(input, dim, index)


@functools.lru_cache(maxsize=4096)
def _fits_gather(sizes: Shape, dim: int, index: Shape) -> bool:
    """Whether the index has the size of the tensor in all dimensions but ``dim``."""
    return len(sizes) == len(index) and sizes[:dim] == index[:dim] and sizes[dim + 1 :] == index[dim + 1 :]


def _gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    n, r, m = _three_parts(x.sizes, dim)
    out = empty(index.sizes, float32 if x.dtype is float32 else int64)
    source, index = dense(x, index)
    kernel = indexing_kernels.gather if x.dtype is float32 else indexing_kernels.gather_int
    source = whole(source)
    launch_checked(kernel, (out, source, index), (n, r, m, index.sizes[dim] if index.sizes else 1))
    return attach(out if out.dtype is x.dtype else out.to(x.dtype), _gather_rule, (x,), (index,), (x.sizes, dim))


def _gather_rule(g: Tensor, node: Node) -> Gradients:
    (index,) = node.saved
    shape, dim = node.context
    return scatter_sum(shape, dim, index, g)


def _scatter_add(x: Tensor | None, shape: Shape, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of x, or zeros of ``shape`` if x is None, with the source added at the index."""
    values, index = dense(whole(source), index)
    with tape.no_grad():
        if x is None:
            out = fill(empty(shape, values.dtype), 0.0)
        else:
            out = whole(x)
            out = out.clone() if out is x else out
    n, r, m = three_parts(out, dim)
    kernel = indexing_kernels.scatter_add if out.dtype is float32 else indexing_kernels.scatter_add_int
    launch_checked(kernel, (out, values, index), (n, r, m, index.sizes[dim] if index.sizes else 1))
    if x is None:
        return attach(out, _scatter_rule, (source,), (index,), dim)
    return attach(out.to(x.dtype), _scatter_add_rule, (x, source), (index,), dim)


def _scatter_rule(g: Tensor, node: Node) -> Gradients:
    return _gather(g, node.context, node.saved[0])


def _scatter_add_rule(g: Tensor, node: Node) -> Gradients:
    return g if node.wants(0) else None, _gather(g, node.context, node.saved[0]) if node.wants(1) else None


def scatter_sum(shape: Shape, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Zeros of ``shape`` with the source added at the index, the gradient of `gather`."""
    return _scatter_add(None, shape, dim, index, source)


@numpy_names
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of input with ``src`` added at the positions that `gather` would read with this index. Repeated indices add up.

    Raises DtypeError or ShapeError for an unsuitable index or source, IndexError if an index is out of bounds.
    """
    dim = normal_dim(dim, input.dim())
    _check_gather("scatter_add", input, dim, index)
    check_source(src, input, "scatter_add")
    if src.dim() != index.dim():
        raise ShapeError(
            f"scatter_add: the source needs as many dimensions as the index of shape {list(index.sizes)}, got shape {list(src.sizes)}"
        )
    for d, size in enumerate(index.sizes):
        src = narrow(src, d, 0, size)
    region = _cut(input, dim, index.sizes)
    added = _scatter_add(region, region.sizes, dim, index, src)
    if region is input:
        return added
    out = input.clone()
    copy_(_cut(out, dim, index.sizes), added)
    return out


def _scatter_values_rule(g: Tensor, node: Node) -> Gradients:
    (index,) = node.saved
    dim = node.context
    to_x = to_source = None
    if node.wants(0):
        to_x = _scatter(g, dim, index, constant(0.0).expand(index.sizes))
    if node.wants(1):
        to_source = _gather(_cut(g, dim, index.sizes), dim, index)
    return to_x, to_source


def _scatter(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    region = _cut(x, dim, index.sizes)
    with tape.no_grad():
        kind = float32 if x.dtype is float32 else int64
        out = region.to(kind).clone() if region.dtype is kind else region.to(kind)
        values = source.to(kind).contiguous()
        places = index.contiguous()
    n, r, m = three_parts(out, dim)
    kernel = indexing_kernels.scatter if kind is float32 else indexing_kernels.scatter_int
    launch_checked(kernel, (out, values, places), (n, r, m, index.sizes[dim] if index.sizes else 1))
    out = out.to(x.dtype)
    if region is not x:
        with tape.no_grad():
            full = x.clone()
            copy_(_cut(full, dim, index.sizes), out)
        out = full
    return attach(out, _scatter_values_rule, (x, source), (index,), dim)


@numpy_names
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Operand | None = None,
    *,
    value: Operand | None = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy of input with ``src``, a tensor or a number, written at the positions that `gather` would read with this index.

    ``value`` is another name of ``src``. With ``reduce`` "add" the source is added instead. Raises ValueError for another ``reduce``,
    TypeError without a source, DtypeError or ShapeError for an unsuitable index or source, IndexError if an index is out of bounds.
    """
    src = value if src is None else src
    if src is None:
        raise TypeError("scatter needs a source: give src or value")
    if reduce is not None:
        if reduce != "add":
            raise ValueError(f"scatter: reduce must be 'add' or None, got {reduce!r}")
        return scatter_add(
            input, dim, index, src if isinstance(src, Tensor) else operand(src, input).to(input.dtype).expand(index.sizes)
        )
    dim = normal_dim(dim, input.dim())
    _check_gather("scatter", input, dim, index)
    source = operand(src, input)
    if source.dtype is not input.dtype:
        if isinstance(src, Tensor):
            check_source(source, input, "scatter")
        source = source.to(input.dtype)
    if not isinstance(src, Tensor):
        source = source.expand(index.sizes)
    for d, size in enumerate(index.sizes):
        source = narrow(source, d, 0, size)
    return _scatter(input, dim, index, source)


@numpy_names
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` after broadcasting all dimensions but ``dim``. Without ``dim``, both tensors are flattened first."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    dim = normal_dim(dim, input.dim())
    shape = broadcast_shape(*[(*t.sizes[:dim], 1, *t.sizes[dim + 1 :]) for t in (input, indices)])
    sizes = [(*shape[:dim], t.sizes[dim], *shape[dim + 1 :]) for t in (input, indices)]
    places = (indices < 0) * input.sizes[dim] + indices  # negative ones count from the end
    return gather(input.expand(sizes[0]), dim, places.expand(sizes[1]))


@numpy_names
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy of input with ``alpha * source`` added at the positions ``index``, a vector, along ``dim``. Repeated indices add up.

    Raises DtypeError or ShapeError for an unsuitable index or source, IndexError if an index is out of bounds.
    """
    dim = normal_dim(dim, input.dim())
    if not input.sizes and source.numel() == index.numel() == 1:
        return index_add(input.reshape(1), 0, index.reshape(1), source.reshape(1), alpha=alpha).reshape(())
    added = index_added(input, dim, index, source, alpha)
    return input + added if input.dtype is float32 else (whole(input) + added).to(input.dtype)


def _check_added(input: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    """Raise DtypeError or ShapeError if `index_add` cannot take these tensors."""
    check_index(index, "index_add")
    check_source(source, input, "index_add")
    count = index.sizes or (1,)
    if len(count) > 1 or source.sizes != (*input.sizes[:dim], *count, *input.sizes[dim + 1 :]):
        raise ShapeError(
            f"index_add: an index of shape {list(index.sizes)} and a source of shape {list(source.sizes)} do not fit a tensor of shape "
            f"{list(input.sizes)} along dimension {dim}"
        )


def index_add_directly(target: Tensor, dim: int, index: Tensor, source: Tensor) -> bool:
    """`index_add` into the target, in one launch; False, before anything has changed, if one launch is not enough.

    Raises as `index_add`, StateError if the tape cannot follow the write.
    """
    if target.dtype is not float32 or not target.sizes or target.strides is not None or source.strides is not None:
        return False
    if index.strides is not None or source.storage is target.storage:
        return False
    if tape.modes.grad and (needs_gradient(target) or needs_gradient(source)):
        return False
    check_writable(target)
    dim = normal_dim(dim, len(target.sizes))
    _check_added(target, dim, index, source)
    n, r, m = three_parts(target, dim)
    launch_checked(indexing_kernels.add_at, (target, source, index), (n, r, m, math.prod(index.sizes)))
    target.storage.version += 1
    return True


def index_added(input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float = 1) -> Tensor:
    """What `index_add` adds to ``input``: zeros of its shape, with ``alpha * source`` added at the positions ``index``."""
    dim = normal_dim(dim, input.dim())
    _check_added(input, dim, index, source)
    if input.dtype is not float32:  # exact, and uint8 wraps as its memory does
        source = whole(source) * int(alpha)
    elif alpha != 1:
        source = source * alpha
    return add_rows(source, input.sizes, dim, index if index.sizes else index.reshape(1), wrap=False)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows ``input``, int64 of any shape, of weight (count, size), as (*input.shape, size). Row ``padding_idx`` gets no gradient.

    Raises DtypeError, ShapeError or IndexError for unsuitable arguments.
    """
    check_index(input, "embedding")
    if weight.dim() != 2:
        raise ShapeError(f"embedding takes a weight of shape (count, size), got shape {list(weight.sizes)}")
    if padding_idx is not None:
        place = padding_idx % weight.sizes[0]
        kept = weight.detach()[place : place + 1]
        weight = cat([weight[:place], kept, weight[place + 1 :]])
    rows = take_rows(weight, 0, input.reshape(-1), wrap=False)
    return owned(rows.reshape((*input.sizes, weight.sizes[1])))


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """int64 tensor (*input.shape, classes): 1 at the position ``input`` of the last dimension, 0 elsewhere.

    ``num_classes`` -1 takes the largest element plus 1. Raises DtypeError if input is not int64, IndexError if a class is out of bounds.
    """
    check_index(input, "one_hot")
    classes = int(input.max()) + 1 if num_classes == -1 else num_classes
    out = empty((*input.sizes, classes), int64)
    launch_checked(indexing_kernels.one_hot, (out, input.contiguous()), (input.numel(), classes))
    return out
