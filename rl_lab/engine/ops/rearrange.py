"""Arrangements of elements made of views, copies and joins: repeated, flipped, rolled, padded, triangles and diagonals."""

from collections.abc import Sequence
from typing import Any

from rl_lab.engine.dtype import bool_, int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.comparison import logical_xor
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.creation import arange, full, tensor
from rl_lab.engine.ops.gathering import index_select
from rl_lab.engine.ops.layout import cat, expand, narrow, permute, reshape, split, unsqueeze
from rl_lab.engine.ops.operands import INTEGERS, broadcast_shape, normal_dim, shape_argument
from rl_lab.engine.tensor import Tensor, TensorCore, owned

# --- repetition and order --------------------------------------------------------------------------------------------


def repeat(input: Any, *sizes: Any, repeats: Any = None) -> Tensor:
    """Copies of ``input`` side by side, so many along each dimension; further numbers stand in front."""
    counts = shape_argument(sizes if repeats is None else (repeats,))
    missing = len(counts) - input.dim()
    if missing < 0 or min(counts, default=0) < 0:
        raise ShapeError(f"repeat: {list(counts)} must give a number for each of the {input.dim()} dimensions")
    shape = (1,) * missing + input.sizes
    wide = reshape(input, [size for pair in shape for size in (1, pair)])
    wide = expand(wide, [size for pair in zip(counts, shape, strict=True) for size in pair])
    return owned(reshape(wide, [count * size for count, size in zip(counts, shape, strict=True)]), input)


def tile(input: Any, *sizes: Any, dims: Any = None) -> Tensor:
    """`repeat`, where numbers left out in front are 1."""
    counts = shape_argument(sizes if dims is None else (dims,))
    return repeat(input, (1,) * (input.dim() - len(counts)) + counts)


@numpy_names
def repeat_interleave(input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element ``repeats`` times in a row along ``dim`` (of all, flattened, by default); a tensor gives a number for each.

    A tensor of repeats makes a data-dependent shape and is read. ``output_size`` is accepted and has no effect.
    """
    if dim is None:
        input, dim = reshape(input, -1), 0
    dim = normal_dim(dim, input.dim())
    if isinstance(repeats, TensorCore):
        counts = repeats.tolist()  # type: ignore[attr-defined]
        counts = (
            [counts] * input.sizes[dim]
            if isinstance(counts, int)
            else counts * input.sizes[dim]
            if len(counts) == 1
            else counts
        )
        if len(counts) != input.sizes[dim]:
            raise ShapeError(f"repeat_interleave: {len(counts)} numbers for {input.sizes[dim]} elements")
        return index_select(input, dim, tensor([k for k, count in enumerate(counts) for _ in range(count)], dtype=int64))
    shape = input.sizes
    wide = expand(unsqueeze(input, dim + 1), (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
    return owned(reshape(wide, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :])), input)


def flip(input: Any, *places: Any, dims: Any = None) -> Tensor:
    """The order reversed along the given dimensions. ShapeError if one appears twice."""
    order = [normal_dim(dim, input.dim()) for dim in shape_argument(places if dims is None else (dims,))]
    if len(set(order)) != len(order):
        raise ShapeError(f"flip: a dimension appears twice in {order}")
    for dim in order:
        size = input.sizes[normal_dim(dim, input.dim())]
        input = index_select(input, dim, arange(size - 1, -1, -1) if size else arange(0))
    return input


def roll(input: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved by ``shifts`` along ``dims``, those that fall out at the end come in at the beginning."""
    if dims is None:
        return reshape(roll(reshape(input, -1), shifts, 0), input.sizes)
    moves = [shifts] if isinstance(shifts, INTEGERS) else list(shifts)
    for shift, dim in zip(moves, [dims] if isinstance(dims, INTEGERS) else list(dims), strict=True):
        size = input.sizes[normal_dim(dim, input.dim())]
        if size and shift % size:
            cut = size - shift % size
            input = cat([narrow(input, dim, cut, size - cut), narrow(input, dim, 0, cut)], dim)
    return input


def movedim(input: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places, the rest in order."""
    moved = [normal_dim(d, input.dim()) for d in ([source] if isinstance(source, INTEGERS) else source)]
    places = [normal_dim(d, input.dim()) for d in ([destination] if isinstance(destination, INTEGERS) else destination)]
    rest = iter([d for d in range(input.dim()) if d not in moved])
    order = dict(zip(places, moved, strict=True))
    return permute(input, [order[d] if d in order else next(rest) for d in range(input.dim())])


def broadcast_to(input: Any, size: Sequence[int]) -> Tensor:
    return expand(input, size)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All expanded to their common shape."""
    shape = broadcast_shape(*[x.sizes for x in tensors])
    return tuple([expand(x, shape) for x in tensors])


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of a grid, from those along each axis; ``indexing`` 'ij' or 'xy'."""
    axes = list(tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors)
    if indexing not in ("ij", "xy"):
        raise ValueError(f"indexing must be 'ij' or 'xy', not {indexing!r}")
    if indexing == "xy":
        axes[:2] = axes[:2][::-1]
    shape = [x.numel() for x in axes]
    grids = [expand(reshape(x, [-1 if d == k else 1 for d in range(len(axes))]), shape) for k, x in enumerate(axes)]
    if indexing == "xy":
        grids[:2] = grids[:2][::-1]
    return tuple(grids)


@numpy_names
def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several."""
    dim = normal_dim(dim, input.dim())
    return reshape(input, (*input.sizes[:dim], *_inferred(sizes, input.sizes[dim]), *input.sizes[dim + 1 :]))


def _inferred(sizes: Sequence[int], total: int) -> list[int]:
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    open_size = list(sizes).count(-1)
    if open_size > 1 or (known != total if not open_size else not known or total % known):
        raise ShapeError(f"a dimension of size {total} cannot be unflattened to {list(sizes)}")
    return [total // known if size == -1 else size for size in sizes]


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the second dimension, vectors along their only one."""
    tensors = [reshape(x, 1) if not x.sizes else x for x in tensors]
    return cat(tensors, 0 if tensors[0].dim() == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the first dimension, vectors as rows."""
    return cat([reshape(x, (1, -1)) if x.dim() < 2 else x for x in tensors], 0)


def unfold(x: Any, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` along a dimension, every ``step``, as a new last dimension (a copy, where PyTorch has a view)."""
    dim = normal_dim(dimension, x.dim())
    length = x.sizes[dim]
    if step < 1 or not 0 <= size <= length:
        raise ShapeError(f"unfold: windows of {size} by {step} do not fit into dimension {dim} of size {length}")
    count = (length - size) // step + 1
    places = reshape(unsqueeze(arange(count) * step, 1) + arange(size), -1)
    rows = index_select(x, dim, places)
    return movedim(reshape(rows, (*x.sizes[:dim], count, size, *x.sizes[dim + 1 :])), dim + 1, -1)


@numpy_names
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences of neighbours along ``dim``, n times, after joining ``prepend`` and ``append`` to the ends."""
    if not n:
        return clone(input)
    if prepend is not None or append is not None:
        input = cat([part for part in (prepend, input, append) if part is not None], dim)
    for _ in range(n):
        size = input.sizes[normal_dim(dim, input.dim())]
        if size:
            later, earlier = narrow(input, dim, 1, size - 1), narrow(input, dim, 0, size - 1)
            input = logical_xor(later, earlier) if input.dtype is bool_ else later - earlier
    return input


def ravel(input: Any) -> Tensor:
    """All elements as a vector."""
    return reshape(input, -1)


# --- padding ---------------------------------------------------------------------------------------------------------


def _padding_places(size: int, before: int, after: int, mode: str) -> list[int]:
    places = range(-before, size + after)
    if mode == "replicate":
        return [min(max(k, 0), size - 1) for k in places]
    if mode == "circular":
        return [k % size for k in places]
    if max(before, after) >= size:
        raise ShapeError(f"pad: reflecting {max(before, after)} elements needs a size above that, got {size}")
    return [-k if k < 0 else 2 * (size - 1) - k if k >= size else k for k in places]


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """More places at both ends of the last dimensions: (last before, last after, last but one before, ...).

    ``mode`` 'constant' fills with ``value``, 'reflect', 'replicate' and 'circular' repeat elements; negative numbers cut off.
    """
    amounts = list(zip(pad[::2], pad[1::2], strict=False))
    if len(pad) % 2 or len(amounts) > input.dim():
        raise ShapeError(f"pad takes two numbers for each of at most {input.dim()} dimensions, got {list(pad)}")
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f"mode must be 'constant', 'reflect', 'replicate' or 'circular', not {mode!r}")
    x = input
    for number, (before, after) in enumerate(amounts):
        dim = x.dim() - 1 - number
        cut = (max(-before, 0), max(-after, 0))
        if mode in ("reflect", "replicate"):  # these also repeat elements that are cut off
            if before or after:
                x = index_select(x, dim, tensor(_padding_places(x.sizes[dim], before, after, mode), dtype=int64))
            continue
        if any(cut):
            x = narrow(x, dim, cut[0], x.sizes[dim] - sum(cut))
        before, after = max(before, 0), max(after, 0)
        if not before and not after:
            continue
        if mode == "circular":
            x = index_select(x, dim, tensor(_padding_places(x.sizes[dim], before, after, mode), dtype=int64))
            continue
        fill = float(value or 0.0) if x.dtype.is_floating_point else int(value or 0)
        ends = [full((*x.sizes[:dim], size, *x.sizes[dim + 1 :]), fill, dtype=x.dtype) for size in (before, after)]
        x = cat([part for part in (ends[0], x, ends[1]) if part.sizes[dim] or part is x], dim)
    return x


@numpy_names
def tensor_split(
    input: Any,
    indices_or_sections: Any = None,
    dim: int = 0,
    *,
    indices: Sequence[int] | None = None,
    sections: int | None = None,
) -> tuple[Tensor, ...]:
    """Views of nearly equal size, or cut at the given places."""
    size = input.sizes[normal_dim(dim, input.dim())]
    if indices is not None or sections is not None:
        indices_or_sections = sections if indices is None else indices
    if isinstance(indices_or_sections, TensorCore):
        indices_or_sections = indices_or_sections.tolist()  # type: ignore[attr-defined]
    if isinstance(indices_or_sections, INTEGERS):
        return split(
            input, [size // indices_or_sections + (k < size % indices_or_sections) for k in range(indices_or_sections)], dim
        )
    edges = [0, *[min(e, size) for e in indices_or_sections], size]
    return split(input, [max(high - low, 0) for low, high in zip(edges, edges[1:], strict=False)], dim)
