"""Indexing as in ``x[...]``: with slices, integers, index tensors and masks."""

import ctypes
import functools
import math
import struct
from collections.abc import Sequence
from types import EllipsisType
from typing import Literal, SupportsIndex, TypeGuard, overload

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.kernels.elementwise import put_where
from rl_lab.engine.launch import launch, recorder
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import ones, tensor, zeros
from rl_lab.engine.ops.gathering import (
    add_rows,
    check_index,
    check_source,
    launch_checked,
    take_rows,
    three_parts,
)
from rl_lab.engine.ops.in_place import write_in_place
from rl_lab.engine.ops.layout import basic, clone, copy_, dense, narrow, pick, view_as_shape, without_dim
from rl_lab.engine.ops.layout import cat as concatenate
from rl_lab.engine.ops.operands import broadcast_shape, check_range, copy_into, normal_dim, operand, require_number, whole
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Shape, Tensor, empty, owned, placed
from rl_lab.engine.types import Data, Gradients, Index, Operand

Key = SupportsIndex | slice | EllipsisType | None
"""A part of a key: an integer, a tensor, a slice, ... or None."""

IndexTensors = list[tuple[int, Tensor]]
"""Index tensors in the order of the key, each with the dimension that it indexes."""


def _nonzero_vectors(mask: Tensor) -> list[Tensor]:
    """The positions of nonzero elements, one vector per dimension. Ends a recording: the number of positions depends on the data."""
    if (recording := recorder()) is not None:
        recording.give_up("a boolean mask makes a shape that depends on data (where() does not)")
    return [tensor(positions) for positions in np.nonzero(mask._array())]


def _places(mask: Tensor) -> Tensor:
    """The places of the true elements of a mask in row-major order."""
    (source,) = dense(mask)
    count = mask.numel()
    found = empty((count + 1,), int64)
    launch(indexing_kernels.places, (found, source), (count,))
    return placed(found, (int64.at(found.address).value,), None, 1)


def _view_part(x: Tensor, key: Index) -> tuple[Tensor, IndexTensors]:
    """The view that the slices, integers, None and ... of a key give, and the index tensors that remain to be applied to it.

    Raises IndexError for an unsuitable key, ValueError for a slice with a negative step.
    """
    keys = list(key) if isinstance(key, tuple) or _stands_for_a_tuple(key) else [key]
    expanded: list[Key] = []
    for k in [_index_of_sequence(k) if isinstance(k, _SEQUENCES) else k for k in keys]:
        if isinstance(k, Tensor) and k.dtype is uint8:
            expanded.append(k.to(bool_))  # uint8 index tensors are masks, as in PyTorch
        elif isinstance(k, (bool, np.bool_)):
            expanded.append(tensor(bool(k)))
        elif isinstance(k, Tensor) and k.dtype is float32:
            raise IndexError("tensors used as indices must be int64 or bool, got float32: convert with .long() first")
        elif isinstance(k, (float, str)):
            raise IndexError(f"an index must be an integer, a slice, None, ..., a tensor or a list, not {k!r}")
        else:
            expanded.append(k)  # type: ignore[arg-type]  # a sequence is an index tensor by now
    used = sum(
        k.dim() if isinstance(k, Tensor) and k.dtype is bool_ else 1 for k in expanded if k is not None and k is not Ellipsis
    )
    if used > x.dim():
        raise IndexError(f"too many indices for a tensor of shape {list(x.sizes)}: {used} for {x.dim()} dimensions")
    if not any(k is Ellipsis for k in expanded):
        expanded.append(Ellipsis)
    dim = 0
    tensors: IndexTensors = []
    for k in expanded:
        if k is Ellipsis:
            dim += x.dim() - dim - _remaining(expanded)
        elif k is None:
            x = x.unsqueeze(dim)
            dim += 1
        elif isinstance(k, slice):
            if (k.step or 1) < 0:
                raise ValueError(
                    f"the step of a slice must be greater than zero, got {k.step}: use flip() to reverse a dimension"
                )
            start, stop, step = k.indices(x.sizes[dim])
            x = narrow(x, dim, min(start, x.sizes[dim]), len(range(start, stop, step)), step)
            dim += 1
        elif isinstance(k, Tensor) and k.dtype is bool_ and not k.sizes:
            x = x.unsqueeze(dim)  # a mask without dimensions takes all or nothing along a new dimension
            tensors.append((dim, tensor([0] if bool(k) else [], dtype=int64)))
            dim += 1
        elif isinstance(k, Tensor) and k.dtype is bool_:
            for offset, size in enumerate(k.sizes):
                if x.sizes[dim + offset] != size:
                    raise IndexError(
                        f"the mask of shape {list(k.sizes)} does not match the tensor of shape {list(x.sizes)} at dimension {dim + offset}"
                    )
            as_one = x.strides is None and recorder() is None
            if as_one and len(k.sizes) > 1:  # the dimensions of the mask become one: one vector of positions is enough
                x = x.reshape((*x.sizes[:dim], k.numel(), *x.sizes[dim + len(k.sizes) :]))
            for positions in [_places(k)] if as_one else _nonzero_vectors(k):
                tensors.append((dim, positions))
                dim += 1
        elif isinstance(k, Tensor) and (k.dim() > 0 or recorder() is not None):
            tensors.append((dim, k))  # type: ignore[arg-type]
            dim += 1
        else:
            x = pick(x, dim, int(k))
        expanded = expanded[1:] if expanded and expanded[0] is k else expanded
    return x, tensors


_SEQUENCES = (list, tuple, range, np.ndarray)


def _stands_for_a_tuple(key: Index) -> TypeGuard[list[object]]:
    """Whether a list is a key of several dimensions, as in x[[[0, 1], [2, 3]]]: PyTorch's rule, which it has from NumPy."""
    parts = (Tensor, slice, *_SEQUENCES, type(None), EllipsisType)
    return isinstance(key, list) and len(key) < 32 and any(isinstance(part, parts) for part in key)


def _index_of_sequence(sequence: list[object] | tuple[object, ...] | range | np.ndarray) -> Tensor:
    """A list, tuple, range or array as an index tensor. An empty one selects nothing."""
    if isinstance(sequence, range):
        sequence = list(sequence)
    index = tensor(sequence)
    return index.to(int64) if not index.numel() and index.dtype is float32 else index


def _remaining(expanded: list[Key]) -> int:
    """The number of dimensions that the keys after the ellipsis index."""
    after = expanded[[k is Ellipsis for k in expanded].index(True) + 1 :]
    return sum(k.dim() if isinstance(k, Tensor) and k.dtype is bool_ else 0 if k is None else 1 for k in after)


def _flat_rows(x: Tensor, tensors: IndexTensors) -> tuple[Tensor, Tensor, Shape, int]:
    """Reduce several index tensors to one vector of positions along one dimension, into which the indexed dimensions are merged.

    Returns (x with the merged dimension, the vector, the common shape of the index tensors, the merged dimension). The merged
    dimension stands where the dimensions of the index appear in the result.
    """
    dims = [dim for dim, _ in tensors]
    shape = broadcast_shape(*[index.sizes for _, index in tensors])
    together = dims == list(range(dims[0], dims[-1] + 1))
    place = dims[0] if together else 0
    if not together:
        rest = [d for d in range(x.dim()) if d not in dims]
        x = x.permute((*dims, *rest))
    sizes = x.sizes[place : place + len(dims)]
    count = math.prod(shape)
    if len(dims) == 1:
        (positions,) = dense(tensors[0][1])
        return x, positions if len(shape) == 1 else positions.reshape(-1), shape, place
    positions = empty((count,), int64)
    for i, (_, index) in enumerate(tensors):
        with tape.no_grad():
            flat = index.expand(shape).contiguous()
        launch_checked(
            indexing_kernels.flat_index, (positions, flat), (count, sizes[i], math.prod(sizes[i + 1 :]), int(i == 0))
        )
    merged = x.reshape((*x.sizes[:place], math.prod(sizes), *x.sizes[place + len(dims) :]))
    return merged, positions, shape, place


def _unflat_rows(rows: Tensor, old: Tensor, tensors: IndexTensors) -> Tensor:
    """The inverse of `_flat_rows`: rows in the shape of ``old``."""
    dims = [dim for dim, _ in tensors]
    if dims == list(range(dims[0], dims[-1] + 1)):
        return rows.reshape(old.sizes)
    order = (*dims, *[d for d in range(old.dim()) if d not in dims])
    inverse = tuple(sorted(range(len(order)), key=lambda i: order[i]))
    return rows.reshape(tuple([old.sizes[d] for d in order])).permute(inverse)


_LONGEST_RANGE = 1024


@functools.lru_cache(maxsize=64)
def _range_index(numbers: range) -> Tensor:
    """The index of a range. Nobody may write to it."""
    return tensor(list(numbers))


def _vector_index(key: object) -> Tensor | None:
    """A vector of int64, a list of int or a range as an index; None for everything else."""
    kind = type(key)
    if kind is Tensor:
        return key if key.dtype is int64 and len(key.sizes) == 1 and key.strides is None else None  # type: ignore[attr-defined, return-value]
    if kind is range:
        return _range_index(key) if 0 < len(key) <= _LONGEST_RANGE else None  # type: ignore[arg-type]
    if kind is not list or set(map(type, key)) != {int}:  # type: ignore[call-overload]
        return None
    count = len(key)  # type: ignore[arg-type]
    index = empty((count,), int64)
    try:
        ctypes.memmove(index.address, struct.pack(f"{count}q", *key), 8 * count)  # type: ignore[misc]
    except struct.error:  # an integer beyond int64
        return None
    return index


def _directly(x: Tensor, key: Index) -> Tensor | None:
    """x[key] for the frequent keys of rows: a mask of rows, a list, or a vector of positions for each of the first dimensions.

    None for other keys and in a recording.
    """
    if recorder() is not None or x.strides is not None:
        return None
    kind = type(key)
    if kind is Tensor:
        rank = len(key.sizes)  # type: ignore[union-attr]
        if key.dtype is not bool_ or not rank or x.sizes[:rank] != key.sizes:  # type: ignore[union-attr]
            return None
        rows = x if rank == 1 else x.reshape((key.numel(), *x.sizes[rank:]))  # type: ignore[union-attr]
        return take_rows(rows, 0, _places(key), wrap=False)  # type: ignore[arg-type]
    if kind is list:
        index = _vector_index(key) if x.sizes else None
        return None if index is None else take_rows(x, 0, index, wrap=True)
    if not 1 < len(key) <= len(x.sizes):  # type: ignore[arg-type]
        return None
    indices = [_vector_index(part) for part in key]  # type: ignore[union-attr]
    count = indices[0].sizes[0] if indices[0] is not None else 0
    rank = len(indices)
    merged = 1
    for index, size in zip(indices, x.sizes, strict=False):
        if index is None or index.sizes[0] != count:
            return None
        merged *= size
    positions = empty((count,), int64)
    step = merged
    for i, index in enumerate(indices):
        step //= max(x.sizes[i], 1)
        numbers = (count, x.sizes[i], step, int(i == 0))
        launch_checked(indexing_kernels.flat_index, (positions, index), numbers)  # type: ignore[arg-type]
    return take_rows(x.reshape((merged, *x.sizes[rank:])), 0, positions, wrap=False)


_VECTORS = (Tensor, list, range)


def getitem(x: Tensor, key: Index) -> Tensor:
    """x[key]: a view for slices, integers, None and ..., a copy for index tensors, lists and masks.

    Raises IndexError if an index is out of bounds or the key does not fit the shape.
    """
    kind = type(key)
    if kind is int:
        return pick(x, 0, key)  # type: ignore[arg-type]
    if kind is Tensor or kind is list or (kind is tuple and key and type(key[-1]) in _VECTORS):  # type: ignore[arg-type, index, operator]
        rows = _directly(x, key)
        if rows is not None:
            return rows
    if kind is not Tensor and kind is not list:
        region = basic(x, key if kind is tuple else (key,))  # type: ignore[arg-type]
        if region is not None:
            return region
    if kind is Tensor and key.dtype is int64 and key.sizes and x.sizes:  # type: ignore[union-attr]
        part: Tensor = x
        tensors: IndexTensors = [(0, key)]  # type: ignore[list-item]
    else:
        part, tensors = _view_part(x, key)
    if not tensors:
        return part if part is not x else view_as_shape(x, x.sizes)
    rows, positions, shape, place = _flat_rows(part, tensors)
    out = take_rows(rows, place, positions, wrap=True)
    return out if len(shape) == 1 else owned(out.reshape((*out.sizes[:place], *shape, *out.sizes[place + 1 :])))


def _with_rows(x: Tensor, place: int, positions: Tensor, values: Tensor) -> Tensor:
    """A copy of x with ``values`` put at the positions along dimension ``place``."""
    with tape.no_grad():
        out = whole(x)
        out = out.clone() if out is x else out
        source = whole(values).contiguous()
    n, r, m = three_parts(out, place)
    kernel = indexing_kernels.put if out.dtype is float32 else indexing_kernels.put_int
    launch_checked(kernel, (out, source, positions), (n, r, m, positions.numel(), 1))
    out = out.to(x.dtype)
    return attach(out, _with_rows_rule, (x, values), (positions,), place)


def _with_rows_rule(g: Tensor, node: Node) -> Gradients:
    (positions,) = node.saved
    place = node.context
    to_x = to_values = None
    if node.wants(0):
        shape = (*g.sizes[:place], positions.numel(), *g.sizes[place + 1 :])
        to_x = _with_rows(g, place, positions, tensor(0.0).expand(shape))
    if node.wants(1):
        to_values = take_rows(g, place, positions, wrap=True)
    return to_x, to_values


def _without_leading_ones(value: Tensor, dimensions: int) -> Tensor:
    """``value`` without its extra first dimensions, if they are of size 1. As in PyTorch, only assignments accept such values."""
    extra = value.dim() - dimensions
    return value.reshape(value.sizes[extra:]) if extra > 0 and all(size == 1 for size in value.sizes[:extra]) else value


def _is_plain(x: Tensor) -> bool:
    """Whether a kernel can read and write x as it is, without a word to the tape."""
    return x.dtype is float32 and x.strides is None and x.base is None and not x.needs_grad


def _set_part(x: Tensor, index: int, value: Tensor) -> None:
    """`setitem` with one integer, for tensors of `_is_plain`."""
    _, size, stride, shape, strides = without_dim(x.sizes, None, 0)
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for dimension 0 of size {size}")
    target = placed(x, shape, strides, (index + size if index < 0 else index) * stride)
    if value.sizes != shape:
        value = _without_leading_ones(value, len(shape))
    if value is x or value.storage is x.storage:
        value = clone(value)
    copy_into(target, value)
    x.storage.version += 1


def setitem(x: Tensor, key: Index, value: Data) -> None:
    """x[key] = value, in place. The value is a number, or broadcasts to the shape of x[key].

    Raises IndexError for a key that does not fit, ShapeError for a value that does not fit, OverflowError for a number that does not
    fit into uint8, StateError if the tape cannot follow the write.
    """
    if type(key) is int and type(value) is Tensor and _is_plain(x) and _is_plain(value) and recorder() is None:
        _set_part(x, key, value)
        return
    if x.dtype is uint8 and isinstance(value, (int, float)):
        check_range(value, uint8)
    source = tensor(value) if isinstance(value, _SEQUENCES) else operand(value, x)  # type: ignore[arg-type]
    if isinstance(key, Tensor) and key.dtype is bool_ and source.numel() == 1 and key.sizes == x.sizes:
        if _is_plain(x) and _is_plain(source) and key.strides is None and recorder() is None:
            launch(put_where, (x, key, source), (1, x.numel(), 0, 1, 0, 0))
            x.storage.version += 1
            return
        write_in_place(x, lambda old: source.to(x.dtype).reshape(()).where(key, old), (source,))
        return
    region = basic(x, key if type(key) is tuple else (key,))
    target, tensors = _view_part(x, key) if region is None else (region, [])
    if not tensors:
        copy_(target, _without_leading_ones(source, target.dim()))
        return

    def compute(old: Tensor) -> Tensor:
        rows, positions, full, flat, place = _assigned_rows(old, tensors)
        put = _without_leading_ones(source.to(x.dtype), len(full))
        result = _with_rows(rows, place, positions, put.expand(full).reshape(flat))
        return _unflat_rows(result, old, tensors)

    write_in_place(target, compute, (source,))


def _assigned_rows(old: Tensor, tensors: IndexTensors) -> tuple[Tensor, Tensor, Shape, Shape, int]:
    """Rows, positions and dimension of `_flat_rows`, with the shapes of the values to assign: (rows, positions, full, flat, dimension).

    ``full`` is the shape of x[key]; ``flat`` has the dimensions of the index as one.
    """
    rows, positions, shape, place = _flat_rows(old, tensors)
    before = rows.sizes[:place]
    after = rows.sizes[place + 1 :]
    return rows, positions, (*before, *shape, *after), (*before, positions.numel(), *after), place


def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with input[indices] = values. With ``accumulate`` the values are added, and repeated indices add up."""
    return index_put_(input.clone(), indices, values, accumulate)


def index_put_(x: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """`index_put` in place. Raises IndexError if ``indices`` is empty and ``accumulate`` is set."""
    key = tuple(indices)
    check_source(values, x, "index_put")
    if not accumulate:
        setitem(x, key, values)
        return x
    target, tensors = _view_part(x, key)
    if not tensors:
        raise IndexError("index_put_ needs at least one index tensor, got none")

    def compute(old: Tensor) -> Tensor:
        rows, positions, full, flat, place = _assigned_rows(old, tensors)
        added = add_rows(values.expand(full).reshape(flat), rows.sizes, place, positions, wrap=True)
        return _unflat_rows((rows + added).to(old.dtype), old, tensors)

    return write_in_place(target, compute, (values,))


@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """The positions of elements that are not zero: int64 (count, dimensions), or with ``as_tuple`` a vector per dimension.

    Ends a recording, because the shape depends on the data.
    """
    vectors = _nonzero_vectors(input.detach() if input.sizes else input.detach().reshape(1))
    if as_tuple:
        return tuple(vectors)
    rows = concatenate([v.reshape(-1, 1) for v in vectors], 1)
    return rows if input.sizes else rows[:, :0]


@numpy_names
def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:
    """A copy of input with one value at the positions ``index`` along ``dim``. Raises IndexError if an index is out of bounds.

    Raises ShapeError if ``value`` is a tensor with dimensions.
    """
    require_number("index_fill", value)
    dim = normal_dim(dim, input.dim())
    check_index(index, "index_fill")
    along = tuple([-1 if d == dim else 1 for d in range(input.dim())])
    with tape.no_grad():
        places = zeros(input.sizes[dim : dim + 1] or (1,), dtype=bool_)
        filled = _with_rows(places, 0, index.reshape(-1), ones((index.numel(),), dtype=bool_)).reshape(along)
    return where(filled, operand(value, input).to(input.dtype), input)


@numpy_names
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of input with ``source`` at the positions ``index`` along ``dim``.

    Raises IndexError if an index is out of bounds, ShapeError or DtypeError if the source does not fit.
    """
    dim = normal_dim(dim, input.dim())
    check_index(index, "index_copy")
    check_source(source, input, "index_copy")
    if not input.sizes:
        return _with_rows(input.reshape(1), 0, index.reshape(1), source.reshape(1)).reshape(())
    if source.sizes != (*input.sizes[:dim], index.numel(), *input.sizes[dim + 1 :]):
        raise ShapeError(
            f"index_copy: a source of shape {list(source.sizes)} does not fit {index.numel()} places of {list(input.sizes)}"
        )
    return _with_rows(input, dim, index.reshape(-1), source)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the bool tensor ``mask``, which broadcasts, is true, as a vector."""
    shape = broadcast_shape(input.sizes, mask.sizes)
    return getitem(input.expand(shape), mask.expand(shape))
