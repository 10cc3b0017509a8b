"""Indexing with slices, integers, tensors and masks."""

import math
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import recorder
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
from rl_lab.engine.ops.layout import cat as concatenate
from rl_lab.engine.ops.layout import copy_, narrow, pick, view_as_shape
from rl_lab.engine.ops.operands import broadcast_shape, check_range, normal_dim, operand, whole
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, TensorCore, empty, owned


def _nonzero_vectors(mask: Any) -> list[Any]:
    if (recording := recorder()) is not None:
        recording.give_up("a boolean mask makes a shape that depends on data (where() does not)")
    return [tensor(positions) for positions in np.nonzero(mask._array())]


def _view_part(x: Any, key: Any) -> tuple[Any, list[tuple[int, Any]]]:
    """Apply slices, integers, None and ... as a view; return it and the index tensors with the dimension each applies to."""
    keys = list(key) if isinstance(key, tuple) else [key]
    expanded: list[Any] = []
    for k in [_index_of_sequence(k) if isinstance(k, _SEQUENCES) else k for k in keys]:
        if isinstance(k, TensorCore) and k.dtype is uint8:
            expanded.append(k.to(bool_))  # type: ignore[attr-defined]  # a mask, as in PyTorch
        elif isinstance(k, (bool, np.bool_)):
            expanded.append(tensor(bool(k)))
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
    dim = 0
    tensors: list[tuple[int, Any]] = []
    for k in expanded:
        if k is Ellipsis:
            dim += x.dim() - dim - _remaining(expanded)
            used = 0
        elif k is None:
            x = x.unsqueeze(dim)
            dim += 1
        elif isinstance(k, slice):
            if (k.step or 1) < 0:
                raise ValueError("step must be greater than zero")
            start, stop, step = k.indices(x.sizes[dim])
            x = narrow(x, dim, min(start, x.sizes[dim]), len(range(start, stop, step)), step)
            dim += 1
        elif isinstance(k, TensorCore) and k.dtype is bool_ and not k.sizes:
            x = x.unsqueeze(dim)  # one flag: the whole tensor or nothing of it, along a new dimension
            tensors.append((dim, tensor([0] if bool(k) else [], dtype=int64)))
            dim += 1
        elif isinstance(k, TensorCore) and k.dtype is bool_:
            for offset, size in enumerate(k.sizes):
                if x.sizes[dim + offset] != size:
                    raise IndexError(
                        f"the mask of shape {list(k.sizes)} does not match shape {list(x.sizes)} at dimension {dim + offset}"
                    )
            for positions in _nonzero_vectors(k):
                tensors.append((dim, positions))
                dim += 1
        elif isinstance(k, TensorCore) and (k.dim() > 0 or recorder() is not None):
            tensors.append((dim, k))  # type: ignore[arg-type]
            dim += 1
        else:
            x = pick(x, dim, int(k))
        expanded = expanded[1:] if expanded and expanded[0] is k else expanded
    return x, tensors


_SEQUENCES = (list, tuple, range, np.ndarray)


def _index_of_sequence(sequence: Any) -> Any:
    """A list, tuple, range or array as an index tensor; an empty one chooses nothing."""
    if isinstance(sequence, range):
        sequence = list(sequence)
    index = tensor(sequence)
    return index.to(int64) if not index.numel() and index.dtype is float32 else index


def _remaining(expanded: list[Any]) -> int:
    """How many dimensions the keys after the ellipsis use."""
    after = expanded[[k is Ellipsis for k in expanded].index(True) + 1 :]
    return sum(k.dim() if isinstance(k, TensorCore) and k.dtype is bool_ else 0 if k is None else 1 for k in after)


def _flat_rows(x: Any, tensors: list[tuple[int, Any]]) -> tuple[Any, Any, tuple[int, ...], tuple[int, ...]]:
    """Reduce index tensors to one: the indexed dimensions side by side and flattened, one vector of positions in them.

    Returns (x with those dimensions merged at the place of the result, positions, shape of the index, its place).
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
        with tape.no_grad():
            positions = tensors[0][1].contiguous()
        return x, positions.reshape(-1), shape, (place,)
    positions = empty((count,), int64)
    for i, (_, index) in enumerate(tensors):
        with tape.no_grad():
            flat = index.expand(shape).contiguous()
        launch_checked(
            indexing_kernels.flat_index, (positions, flat), (count, sizes[i], math.prod(sizes[i + 1 :]), int(i == 0))
        )
    merged = x.reshape((*x.sizes[:place], math.prod(sizes), *x.sizes[place + len(dims) :]))
    return merged, positions, shape, (place,)


def _unflat_rows(rows: Any, old: Any, tensors: list[tuple[int, Any]]) -> Any:
    """What `_flat_rows` made of ``old``, back in its shape."""
    dims = [dim for dim, _ in tensors]
    if dims == list(range(dims[0], dims[-1] + 1)):
        return rows.reshape(old.sizes)
    order = (*dims, *[d for d in range(old.dim()) if d not in dims])
    inverse = tuple(sorted(range(len(order)), key=lambda i: order[i]))
    return rows.reshape(tuple([old.sizes[d] for d in order])).permute(inverse)


def getitem(x: Any, key: Any) -> Tensor:
    """x[key]: slices, integers, None and ... give views, index tensors and masks give copies. IndexError out of bounds."""
    if type(key) is int:
        return pick(x, 0, key)
    part, tensors = _view_part(x, key)
    if not tensors:
        return part if part is not x else view_as_shape(x, x.sizes)
    x = part
    rows, positions, shape, (place,) = _flat_rows(x, tensors)
    out = take_rows(rows, place, positions, wrap=True)
    return owned(out.reshape((*out.sizes[:place], *shape, *out.sizes[place + 1 :])))


def _with_rows(x: Any, place: int, positions: Any, values: Any) -> Any:
    """A copy of x with ``values`` put at the positions along dimension ``place``."""
    with tape.no_grad():
        out, source = whole(x), whole(values).contiguous()
        out = out.clone() if out is x else out
    n, r, m = three_parts(out, place)
    kernel = indexing_kernels.put if out.dtype is float32 else indexing_kernels.put_int
    launch_checked(kernel, (out, source, positions), (n, r, m, positions.numel(), 1))
    out = out.to(x.dtype)
    return attach(out, _with_rows_rule, (x, values), (positions,), place)


def _with_rows_rule(g, node):
    (positions,), place = node.saved, node.context
    to_x = to_values = None
    if node.wants(0):
        shape = (*g.sizes[:place], positions.numel(), *g.sizes[place + 1 :])
        to_x = _with_rows(g, place, positions, tensor(0.0).expand(shape))
    if node.wants(1):
        to_values = take_rows(g, place, positions, wrap=True)
    return to_x, to_values


def _without_leading_ones(value: Any, dimensions: int) -> Any:
    """Values to assign may have more dimensions than there is room for, as long as the first are 1: PyTorch allows it here only."""
    extra = value.dim() - dimensions
    return value.reshape(value.sizes[extra:]) if extra > 0 and all(size == 1 for size in value.sizes[:extra]) else value


def setitem(x: Any, key: Any, value: Any) -> None:
    """x[key] = value, in place; the value is a number or broadcasts to x[key]."""
    if x.dtype is uint8 and isinstance(value, (int, float)):
        check_range(value, uint8)
    value = operand(value, x) if not isinstance(value, _SEQUENCES) else tensor(value)
    if isinstance(key, TensorCore) and key.dtype is bool_ and value.numel() == 1 and key.sizes == x.sizes:
        write_in_place(x, lambda old: value.to(x.dtype).reshape(()).where(key, old), None, (value,))
        return
    target, tensors = _view_part(x, key)
    if not tensors:
        copy_(target, _without_leading_ones(value, target.dim()))
        return

    def compute(old: Any) -> Any:
        rows, positions, shape, (place,) = _flat_rows(old, tensors)
        full = (*rows.sizes[:place], *shape, *rows.sizes[place + 1 :])
        flat = (*rows.sizes[:place], positions.numel(), *rows.sizes[place + 1 :])
        put = _without_leading_ones(value.to(x.dtype), len(full))
        result = _with_rows(rows, place, positions, put.expand(full).reshape(flat))
        return _unflat_rows(result, old, tensors)

    write_in_place(target, compute, None, (value,))


def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """input with input[indices] = values, or += where repeated indices add up, as a new tensor."""
    out = input.clone()
    return index_put_(out, indices, values, accumulate)


def index_put_(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """`index_put` in place."""
    key = tuple(indices)
    check_source(values, x, "index_put")
    if not accumulate:
        setitem(x, key, values)
        return x
    target, tensors = _view_part(x, key)
    if not tensors:
        raise IndexError("index_put_ needs at least one index tensor")

    def compute(old: Any) -> Any:
        rows, positions, shape, (place,) = _flat_rows(old, tensors)
        full = (*rows.sizes[:place], *shape, *rows.sizes[place + 1 :])
        flat = (*rows.sizes[:place], positions.numel(), *rows.sizes[place + 1 :])
        added = add_rows(values.expand(full).reshape(flat), rows.sizes, place, positions, wrap=True)
        return _unflat_rows((rows + added).to(old.dtype), old, tensors)

    return write_in_place(target, compute, None, (values,))


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The positions of elements that are not zero, one row each, or a vector for each dimension. A data-dependent shape."""
    vectors = _nonzero_vectors(input.detach())
    if as_tuple:
        return tuple(vectors)
    return concatenate([v.reshape(-1, 1) for v in vectors], 1) if vectors else tensor(np.zeros((int(bool(input)), 0), np.int64))


@numpy_names
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Tensor:
    """input with one value at the places of ``index`` along ``dim``."""
    dim = normal_dim(dim, input.dim())
    check_index(index, "index_fill")
    along = tuple([-1 if d == dim else 1 for d in range(input.dim())])
    with tape.no_grad():
        places = zeros(input.sizes[dim : dim + 1] or (1,), dtype=bool_)
        filled = _with_rows(places, 0, index.reshape(-1), ones((index.numel(),), dtype=bool_)).reshape(along)
    return where(filled, operand(value, input).to(input.dtype), input)


@numpy_names
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Tensor:
    """input with ``source`` at the places of ``index`` along ``dim``."""
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


def masked_select(input: Any, mask: Any) -> Tensor:
    """The elements where the mask is true, as a vector."""
    shape = broadcast_shape(input.sizes, mask.sizes)
    return getitem(input.expand(shape), mask.expand(shape))
