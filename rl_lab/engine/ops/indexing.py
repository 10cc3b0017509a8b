"""Indexing with slices, integers, tensors and masks; gather and scatter."""

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError, NumericalError, RecordingError, ShapeError
from rl_lab.engine.kernels import indexing as kernels
from rl_lab.engine.launch import launch, recorder, user_line
from rl_lab.engine.memory import Storage
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.ops.layout import cat as concatenate
from rl_lab.engine.ops.layout import copy_, narrow, select
from rl_lab.engine.ops.operands import broadcast_shape, constant, normal_dim, operand
from rl_lab.engine.ops.operators import write_in_place
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import TensorCore, empty, new

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


BAD_WEIGHT, FEW_WEIGHTS = 2, 3


class IndexStatus:
    """Where kernels report an index outside its axis (1, the index, the axis' size) or weights that they cannot draw from.

    Each program has its own.
    """

    def __init__(self) -> None:
        self.words = np.zeros(3, np.int64)
        self.tensor = new(Storage.over(self.words), (3,), None, 0, int64)

    def check(self) -> None:
        """IndexError if a kernel reported one, NumericalError if it could not draw from weights."""
        if self.words[0]:
            flag, index, size = (int(word) for word in self.words)
            self.words[0] = 0
            if flag == BAD_WEIGHT:
                raise NumericalError("multinomial: a weight is negative, infinite or NaN")
            if flag == FEW_WEIGHTS:
                raise NumericalError("multinomial: too few weights of a row are positive")
            raise IndexError(f"index {index} is out of bounds for a dimension of size {size}")


class _ThreadStatus(threading.local, IndexStatus):
    """Each thread has its own for what it launches itself."""


_status = _ThreadStatus()


def launch_checked(primitive: Any, tensors: tuple, numbers: tuple) -> None:
    """Launch a kernel that takes an index, with a status after its tensors, and raise if it reported one out of bounds."""
    recording = recorder()
    status = _status if recording is None else recording.status
    launch(primitive, (*tensors, status.tensor), numbers)
    status.check()


def _three_parts(x: Any, dim: int) -> tuple[int, int, int]:
    return math.prod(x.shape[:dim]), x.shape[dim] if x.shape else 1, math.prod(x.shape[dim + 1 :])


# --- rows along one dimension ----------------------------------------------------------------------------------------

_TAKE = {float32: kernels.take, int64: kernels.take_int, bool_: kernels.take_bool}


def _take(x: Any, dim: int, index: Any, wrap: bool) -> Any:
    """out[..., c, ...] = x[..., index[c], ...] for a vector of indices."""
    n, r, m = _three_parts(x, dim)
    count = index.numel()
    out = empty((*x.shape[:dim], count, *x.shape[dim + 1 :]), x.dtype)
    with tape.no_grad():
        source, index = x.contiguous(), index.contiguous()
    launch_checked(_TAKE[x.dtype], (out, source, index), (n, r, m, count, int(wrap)))
    return attach(out, _take_rule, (x,), (index,), (x.shape, dim, wrap))


def _take_rule(g, node):
    (index,), (shape, dim, wrap) = node.saved, node.context
    return _take_add(g, shape, dim, index, wrap)


def _take_add(g: Any, shape: tuple[int, ...], dim: int, index: Any, wrap: bool) -> Any:
    out = empty(shape)
    n, r, m = _three_parts(out, dim)
    with tape.no_grad():
        out.zero_()
        source = g.contiguous()
    launch_checked(kernels.take_add, (out, source, index), (n, r, m, index.numel(), int(wrap)))
    return attach(out, _take_add_rule, (g,), (index,), (dim, wrap))


def _take_add_rule(g, node):
    (index,), (dim, wrap) = node.saved, node.context
    return _take(g, dim, index, wrap)


def _check_index(index: Any, name: str) -> None:
    if index.dtype is not int64:
        raise IndexError(f"{name} expects an int64 index, got {index.dtype.name}")


def index_select(x: Any, dim: int, index: Any) -> "Tensor":
    """The places along ``dim`` that a vector of indices names."""
    _check_index(index, "index_select")
    if index.dim() > 1:
        raise IndexError(f"index_select expects a vector of indices, got shape {list(index.shape)}")
    return _take(x, normal_dim(dim, x.dim()), index.reshape(-1), wrap=False)


# --- gather and scatter ----------------------------------------------------------------------------------------------


def _check_gather(name: str, x: Any, dim: int, index: Any) -> None:
    _check_index(index, name)
    if index.dim() != x.dim():
        raise ShapeError(f"{name}: index of shape {list(index.shape)} and tensor of shape {list(x.shape)} differ in rank")
    for d in range(x.dim()):
        if d != dim and index.shape[d] > x.shape[d]:
            raise ShapeError(
                f"{name}: index of shape {list(index.shape)} exceeds shape {list(x.shape)} apart from dimension {dim}"
            )


def _cut(x: Any, dim: int, shape: tuple[int, ...]) -> Any:
    """x cut down to the index' sizes except along ``dim``."""
    for d, size in enumerate(shape):
        if d != dim and x.shape[d] != size:
            x = narrow(x, d, 0, size)
    return x


def gather(x: Any, dim: int, index: Any) -> "Tensor":
    """out[i][j][k] = x[index[i][j][k]][j][k] for dim 0, and so on for the others; negative indices are errors."""
    dim = normal_dim(dim, x.dim())
    _check_gather("gather", x, dim, index)
    return _gather(_cut(x, dim, index.shape), dim, index)


def _gather(x: Any, dim: int, index: Any) -> Any:
    n, r, m = _three_parts(x, dim)
    out = empty(index.shape, x.dtype if x.dtype is not bool_ else int64)
    with tape.no_grad():
        source, index = x.contiguous(), index.contiguous()
    kernel = kernels.gather if x.dtype is float32 else kernels.gather_int
    if x.dtype is bool_:
        source = source.to(int64)
    launch_checked(kernel, (out, source, index), (n, r, m, index.shape[dim] if index.shape else 1))
    return attach(out.to(x.dtype), _gather_rule, (x,), (index,), (x.shape, dim))


def _gather_rule(g, node):
    (index,), (shape, dim) = node.saved, node.context
    return _scatter_add(None, shape, dim, index, g)


def _scatter_add(x: Any, shape: tuple[int, ...], dim: int, index: Any, source: Any) -> Any:
    """A copy of x (zeros if None) with the source added at the index."""
    if x is None:
        out = empty(shape)
        with tape.no_grad():
            out.zero_()
    else:
        with tape.no_grad():
            out = x.clone()
    n, r, m = _three_parts(out, dim)
    with tape.no_grad():
        values, index = source.contiguous(), index.contiguous()
    launch_checked(kernels.scatter_add, (out, values, index), (n, r, m, index.shape[dim] if index.shape else 1))
    if x is None:
        return attach(out, _scatter_rule, (source,), (index,), dim)
    return attach(out, _scatter_add_rule, (x, source), (index,), dim)


def _scatter_rule(g, node):
    return _gather(g, node.context, node.saved[0])


def _scatter_add_rule(g, node):
    return g if node.wants(0) else None, _gather(g, node.context, node.saved[0]) if node.wants(1) else None


def scatter_sum(shape: tuple[int, ...], dim: int, index: Any, source: Any) -> Any:
    """Zeros of ``shape`` with the source added at the index: the gradient of `gather`."""
    return _scatter_add(None, shape, dim, index, source)


def scatter_add(x: Any, dim: int, index: Any, source: Any) -> "Tensor":
    """x with ``source`` added where `gather` with the same index would read; repeated indices add up."""
    dim = normal_dim(dim, x.dim())
    _check_gather("scatter_add", x, dim, index)
    if any(d != dim and index.shape[d] != x.shape[d] for d in range(x.dim())):
        raise ShapeError(
            f"scatter_add: index of shape {list(index.shape)} must have the sizes of {list(x.shape)} apart from {dim}"
        )
    for d, size in enumerate(index.shape):
        source = narrow(source, d, 0, size)
    return _scatter_add(x, x.shape, dim, index, source)


def _scatter_rule_of_values(g, node):
    (index,), dim = node.saved, node.context
    to_x = to_source = None
    if node.wants(0):
        to_x = _scatter(g, dim, index, constant(0.0).expand(index.shape))
    if node.wants(1):
        to_source = _gather(_cut(g, dim, index.shape), dim, index)
    return to_x, to_source


def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    region = _cut(x, dim, index.shape)
    with tape.no_grad():
        kind = int64 if x.dtype is bool_ else x.dtype
        out = region.to(kind).clone() if region.dtype is kind else region.to(kind)
        values, places = source.to(kind).contiguous(), index.contiguous()
    n, r, m = _three_parts(out, dim)
    kernel = kernels.scatter if kind is float32 else kernels.scatter_int
    launch_checked(kernel, (out, values, places), (n, r, m, index.shape[dim] if index.shape else 1))
    out = out.to(x.dtype)
    if region is not x:
        with tape.no_grad():
            whole = x.clone()
            part = whole
            for d, size in enumerate(index.shape):
                part = narrow(part, d, 0, size) if d != dim else part
            copy_(part, out)
        out = whole
    return attach(out, _scatter_rule_of_values, (x, source), (index,), dim)


def scatter(x: Any, dim: int, index: Any, src: Any = None, *, value: Any = None) -> "Tensor":
    """x with ``src`` (a tensor or a number) written where `gather` with the same index would read."""
    src = value if src is None else src
    dim = normal_dim(dim, x.dim())
    _check_gather("scatter", x, dim, index)
    source = operand(src, x)
    if source.dtype is not x.dtype:
        if isinstance(src, TensorCore):
            raise DtypeError(f"scatter: the source is {source.dtype.name}, the tensor is {x.dtype.name}")
        source = source.to(x.dtype)
    if not isinstance(src, TensorCore):
        source = source.expand(index.shape)
    for d, size in enumerate(index.shape):
        source = narrow(source, d, 0, size)
    return _scatter(x, dim, index, source)


def take_along_dim(x: Any, indices: Any, dim: int | None = None) -> "Tensor":
    """`gather`, with everything but ``dim`` broadcast; of the flattened tensor without ``dim``."""
    if dim is None:
        return gather(x.reshape(-1), 0, indices.reshape(-1))
    dim = normal_dim(dim, x.dim())
    shape = broadcast_shape(*[(*t.shape[:dim], 1, *t.shape[dim + 1 :]) for t in (x, indices)])
    sizes = [(*shape[:dim], t.shape[dim], *shape[dim + 1 :]) for t in (x, indices)]
    return gather(x.expand(sizes[0]), dim, indices.expand(sizes[1]))


def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> "Tensor":
    """x with ``alpha * source`` added at the places of ``index`` along ``dim``; repeated indices add up."""
    dim = normal_dim(dim, x.dim())
    _check_index(index, "index_add")
    if index.dim() > 1 or source.shape != (*x.shape[:dim], index.numel(), *x.shape[dim + 1 :]):
        raise ShapeError(
            f"index_add: index of shape {list(index.shape)} and source of shape {list(source.shape)} do not fit {list(x.shape)}"
        )
    added = _take_add(source if alpha == 1 else source * alpha, x.shape, dim, index.reshape(-1), wrap=False)
    return x + added


def index_fill(x: Any, dim: int, index: Any, value: Any) -> "Tensor":
    """x with one value at the places of ``index`` along ``dim``."""
    dim = normal_dim(dim, x.dim())
    shape = (*x.shape[:dim], index.numel(), *x.shape[dim + 1 :])
    return _with_rows(x, dim, index.reshape(-1), operand(value, x).to(x.dtype).expand(shape))


def index_copy(x: Any, dim: int, index: Any, source: Any) -> "Tensor":
    """x with ``source`` at the places of ``index`` along ``dim``."""
    return _with_rows(x, normal_dim(dim, x.dim()), index.reshape(-1), source)


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> "Tensor":
    """Rows of weight (count, size) at integers of any shape; the gradient skips row ``padding_idx``."""
    _check_index(input, "embedding")
    if weight.dim() != 2:
        raise ShapeError(f"embedding takes a matrix of weights, got shape {list(weight.shape)}")
    if padding_idx is not None:
        place = padding_idx % weight.shape[0]
        kept = weight.detach()[place : place + 1]
        weight = concatenate([weight[:place], kept, weight[place + 1 :]])
    rows = _take(weight, 0, input.reshape(-1), wrap=False)
    return rows.reshape((*input.shape, weight.shape[1]))


def one_hot(index: Any, num_classes: int = -1) -> "Tensor":
    """1 at the index and 0 elsewhere along a new last dimension, in int64."""
    _check_index(index, "one_hot")
    classes = int(index.max()) + 1 if num_classes == -1 else num_classes
    out = empty((*index.shape, classes), int64)
    launch_checked(kernels.one_hot, (out, index.contiguous()), (index.numel(), classes))
    return out


# --- x[...] ----------------------------------------------------------------------------------------------------------


def _nonzero_vectors(mask: Any) -> list[Any]:
    if recorder() is not None:
        raise RecordingError(
            f"a boolean mask makes a data-dependent shape, at {user_line()}: use where() in a recorded function"
        )
    return [tensor(positions) for positions in np.nonzero(mask._array())]


def _view_part(x: Any, key: Any) -> tuple[Any, list[tuple[int, Any]]]:
    """Apply slices, integers, None and ... as a view; return it and the index tensors with the dimension each applies to."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [tensor(k) if isinstance(k, (list, np.ndarray)) else k for k in keys]
    expanded: list[Any] = []
    for k in keys:
        if isinstance(k, TensorCore) and k.dtype is bool_:
            expanded.append(k)
        elif isinstance(k, TensorCore) and k.dtype is float32:
            raise IndexError("tensors used as indices must be int64 or bool, got float32")
        elif isinstance(k, (float, str)):
            raise IndexError(f"an index must be an integer, a slice, None, ... or a tensor, not {k!r}")
        else:
            expanded.append(k)
    used = sum(
        k.dim() if isinstance(k, TensorCore) and k.dtype is bool_ else 1
        for k in expanded
        if k is not None and k is not Ellipsis
    )
    if used > x.dim():
        raise IndexError(f"too many indices for a tensor of {x.dim()} dimensions: {used}")
    if not any(k is Ellipsis for k in expanded):
        expanded.append(Ellipsis)
    dim, tensors = 0, []
    for k in expanded:
        if k is Ellipsis:
            dim += x.dim() - dim - _remaining(expanded)
            used = 0
        elif k is None:
            x = x.unsqueeze(dim)
            dim += 1
        elif isinstance(k, bool):
            raise IndexError("a bool is not an index: use a bool tensor")
        elif isinstance(k, slice):
            if (k.step or 1) < 0:
                raise ValueError("step must be greater than zero")
            start, stop, step = k.indices(x.shape[dim])
            x = narrow(x, dim, min(start, x.shape[dim]), len(range(start, stop, step)), step)
            dim += 1
        elif isinstance(k, TensorCore) and k.dtype is bool_:
            for offset, size in enumerate(k.shape):
                if x.shape[dim + offset] != size:
                    raise IndexError(
                        f"the mask of shape {list(k.shape)} does not match shape {list(x.shape)} at dimension {dim + offset}"
                    )
            for positions in _nonzero_vectors(k):
                tensors.append((dim, positions))
                dim += 1
        elif isinstance(k, TensorCore) and (k.dim() > 0 or recorder() is not None):
            tensors.append((dim, k))
            dim += 1
        else:
            x = select(x, dim, int(k))
        expanded = expanded[1:] if expanded and expanded[0] is k else expanded
    return x, tensors


def _remaining(expanded: list[Any]) -> int:
    """How many dimensions the keys after the ellipsis use."""
    after = expanded[[k is Ellipsis for k in expanded].index(True) + 1 :]
    return sum(k.dim() if isinstance(k, TensorCore) and k.dtype is bool_ else 0 if k is None else 1 for k in after)


def _flat_rows(x: Any, tensors: list[tuple[int, Any]]) -> tuple[Any, Any, tuple[int, ...], tuple[int, ...]]:
    """Reduce index tensors to one: the indexed dimensions side by side and flattened, one vector of positions in them.

    Returns (x with those dimensions merged at the place of the result, positions, shape of the index, its place).
    """
    dims = [dim for dim, _ in tensors]
    shape = broadcast_shape(*[index.shape for _, index in tensors])
    together = dims == list(range(dims[0], dims[-1] + 1))
    place = dims[0] if together else 0
    if not together:
        rest = [d for d in range(x.dim()) if d not in dims]
        x = x.permute((*dims, *rest))
    sizes = x.shape[place : place + len(dims)]
    count = math.prod(shape)
    if len(dims) == 1:
        with tape.no_grad():
            positions = tensors[0][1].contiguous()
        return x, positions.reshape(-1), shape, (place,)
    positions = empty((count,), int64)
    for i, (_, index) in enumerate(tensors):
        with tape.no_grad():
            flat = index.expand(shape).contiguous()
        launch_checked(kernels.flat_index, (positions, flat), (count, sizes[i], math.prod(sizes[i + 1 :]), int(i == 0)))
    merged = x.reshape((*x.shape[:place], math.prod(sizes), *x.shape[place + len(dims) :]))
    return merged, positions, shape, (place,)


def _unflat_rows(rows: Any, old: Any, tensors: list[tuple[int, Any]]) -> Any:
    """What `_flat_rows` made of ``old``, back in its shape."""
    dims = [dim for dim, _ in tensors]
    if dims == list(range(dims[0], dims[-1] + 1)):
        return rows.reshape(old.shape)
    order = (*dims, *[d for d in range(old.dim()) if d not in dims])
    inverse = tuple(sorted(range(len(order)), key=lambda i: order[i]))
    return rows.reshape(tuple([old.shape[d] for d in order])).permute(inverse)


def getitem(x: Any, key: Any) -> "Tensor":
    """x[key]: slices, integers, None and ... give views, index tensors and masks give copies. IndexError out of bounds."""
    if type(key) is int:
        return select(x, 0, key)
    x, tensors = _view_part(x, key)
    if not tensors:
        return x
    rows, positions, shape, (place,) = _flat_rows(x, tensors)
    out = _take(rows, place, positions, wrap=True)
    return out.reshape((*out.shape[:place], *shape, *out.shape[place + 1 :]))


def _with_rows(x: Any, place: int, positions: Any, values: Any) -> Any:
    """A copy of x with ``values`` put at the positions along dimension ``place``."""
    with tape.no_grad():
        out = x.clone()
        source = values.contiguous()
    n, r, m = _three_parts(out, place)
    kernel = kernels.put if x.dtype is float32 else kernels.put_int
    launch_checked(kernel, (out, source, positions), (n, r, m, positions.numel(), 1))
    return attach(out, _with_rows_rule, (x, values), (positions,), place)


def _with_rows_rule(g, node):
    (positions,), place = node.saved, node.context
    to_x = to_values = None
    if node.wants(0):
        shape = (*g.shape[:place], positions.numel(), *g.shape[place + 1 :])
        to_x = _with_rows(g, place, positions, tensor(0.0).expand(shape))
    if node.wants(1):
        to_values = _take(g, place, positions, wrap=True)
    return to_x, to_values


def setitem(x: Any, key: Any, value: Any) -> None:
    """x[key] = value, in place; the value is a number or broadcasts to x[key]."""
    value = operand(value, x) if not isinstance(value, (list, np.ndarray)) else tensor(value)
    if isinstance(key, TensorCore) and key.dtype is bool_ and value.numel() == 1 and key.shape == x.shape:
        write_in_place(x, lambda old: value.to(x.dtype).reshape(()).where(key, old), None, (value,))
        return
    target, tensors = _view_part(x, key)
    if not tensors:
        copy_(target, value)
        return
    if x.dtype is bool_:
        raise DtypeError("writing to a bool tensor with an index tensor is not supported: use where()")

    def compute(old: Any) -> Any:
        rows, positions, shape, (place,) = _flat_rows(old, tensors)
        full = (*rows.shape[:place], *shape, *rows.shape[place + 1 :])
        flat = (*rows.shape[:place], positions.numel(), *rows.shape[place + 1 :])
        result = _with_rows(rows, place, positions, value.to(x.dtype).expand(full).reshape(flat))
        return _unflat_rows(result, old, tensors)

    write_in_place(target, compute, None, (value,))


def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> "Tensor":
    """x with x[indices] = values, or += where repeated indices add up, as a new tensor."""
    out = x.clone()
    return index_put_(out, indices, values, accumulate)


def index_put_(x: Any, indices: Any, values: Any, accumulate: bool = False) -> "Tensor":
    """`index_put` in place."""
    key = tuple(indices)
    if not accumulate:
        setitem(x, key, values)
        return x
    target, tensors = _view_part(x, key)
    if not tensors:
        raise IndexError("index_put_ needs at least one index tensor")

    def compute(old: Any) -> Any:
        rows, positions, shape, (place,) = _flat_rows(old, tensors)
        full = (*rows.shape[:place], *shape, *rows.shape[place + 1 :])
        flat = (*rows.shape[:place], positions.numel(), *rows.shape[place + 1 :])
        added = _take_add(values.expand(full).reshape(flat), rows.shape, place, positions, wrap=True)
        return _unflat_rows(rows + added, old, tensors)

    return write_in_place(target, compute, None, (values,))


def nonzero(x: Any, *, as_tuple: bool = False) -> Any:
    """The positions of elements that are not zero, one row each, or a vector for each dimension. A data-dependent shape."""
    vectors = _nonzero_vectors(x.detach())
    if as_tuple:
        return tuple(vectors)
    return concatenate([v.reshape(-1, 1) for v in vectors], 1) if vectors else tensor(np.zeros((int(bool(x)), 0), np.int64))


def masked_select(x: Any, mask: Any) -> "Tensor":
    """The elements where the mask is true, as a vector."""
    shape = broadcast_shape(x.shape, mask.shape)
    return getitem(x.expand(shape), mask.expand(shape))


class IndexingMethods:
    """The methods of Tensor that read and write at positions."""

    __slots__ = ()

    gather, scatter_add, index_select, masked_select = gather, scatter_add, index_select, masked_select
    scatter, take_along_dim, index_add, index_fill, index_copy = scatter, take_along_dim, index_add, index_fill, index_copy
    index_put, index_put_, nonzero = index_put, index_put_, nonzero
    __getitem__, __setitem__ = getitem, setitem

    def __iter__(self):
        if not self.shape:  # type: ignore[attr-defined]
            raise TypeError("iteration over a 0-d tensor")
        return iter([select(self, 0, i) for i in range(len(self))])  # type: ignore[arg-type]

    def scatter_add_(self, dim: int, index: Any, source: Any) -> "Tensor":
        return write_in_place(self, lambda x: scatter_add(x, dim, index, source), None, (source,))

    def scatter_(self, dim: int, index: Any, src: Any = None, *, value: Any = None) -> "Tensor":
        source = value if src is None else src
        return write_in_place(self, lambda x: scatter(x, dim, index, source), None, (source,))

    def index_add_(self, dim: int, index: Any, source: Any, *, alpha: float = 1) -> "Tensor":
        return write_in_place(self, lambda x: index_add(x, dim, index, source, alpha=alpha), None, (source,))

    def index_fill_(self, dim: int, index: Any, value: Any) -> "Tensor":
        return write_in_place(self, lambda x: index_fill(x, dim, index, value))

    def index_copy_(self, dim: int, index: Any, source: Any) -> "Tensor":
        return write_in_place(self, lambda x: index_copy(x, dim, index, source), None, (source,))
