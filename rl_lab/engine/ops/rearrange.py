"""Arrangements of elements made of views, copies and joins: repeated, flipped, rolled, padded, triangles and diagonals."""

from collections.abc import Sequence
from typing import Any

from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.creation import arange, full, tensor
from rl_lab.engine.ops.gathering import index_select
from rl_lab.engine.ops.layout import cat, expand, narrow, permute, reshape, split, unsqueeze
from rl_lab.engine.ops.operands import broadcast_shape, normal_dim, shape_argument
from rl_lab.engine.tensor import Tensor, TensorCore, owned

# --- repetition and order --------------------------------------------------------------------------------------------


def repeat(x: Any, *sizes: Any) -> Tensor:
    """Copies of x side by side, so many along each dimension; further numbers stand in front."""
    counts = shape_argument(sizes)
    missing = len(counts) - x.dim()
    if missing < 0 or min(counts, default=0) < 0:
        raise ShapeError(f"repeat: {list(counts)} must give a number for each of the {x.dim()} dimensions")
    shape = (1,) * missing + x.shape
    wide = reshape(x, [size for pair in shape for size in (1, pair)])
    wide = expand(wide, [size for pair in zip(counts, shape, strict=True) for size in pair])
    return owned(reshape(wide, [count * size for count, size in zip(counts, shape, strict=True)]), x)


def tile(x: Any, *sizes: Any) -> Tensor:
    """`repeat`, where numbers left out in front are 1."""
    counts = shape_argument(sizes)
    return repeat(x, (1,) * (x.dim() - len(counts)) + counts)


def repeat_interleave(x: Any, repeats: Any, dim: int | None = None) -> Tensor:
    """Each element ``repeats`` times in a row along ``dim`` (of all, flattened, by default); a tensor gives a number for each.

    A tensor of repeats makes a data-dependent shape and is read.
    """
    if dim is None:
        x, dim = reshape(x, -1), 0
    dim = normal_dim(dim, x.dim())
    if isinstance(repeats, TensorCore):
        counts = repeats.tolist()  # type: ignore[attr-defined]
        counts = [counts] * x.shape[dim] if isinstance(counts, int) else counts * x.shape[dim] if len(counts) == 1 else counts
        if len(counts) != x.shape[dim]:
            raise ShapeError(f"repeat_interleave: {len(counts)} numbers for {x.shape[dim]} elements")
        return index_select(x, dim, tensor([k for k, count in enumerate(counts) for _ in range(count)], dtype=int64))
    shape = x.shape
    wide = expand(unsqueeze(x, dim + 1), (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
    return owned(reshape(wide, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :])), x)


def flip(x: Any, *dims: Any) -> Tensor:
    """The order reversed along the given dimensions. ShapeError if one appears twice."""
    order = [normal_dim(dim, x.dim()) for dim in shape_argument(dims)]
    if len(set(order)) != len(order):
        raise ShapeError(f"flip: a dimension appears twice in {order}")
    for dim in order:
        size = x.shape[normal_dim(dim, x.dim())]
        x = index_select(x, dim, arange(size - 1, -1, -1) if size else arange(0))
    return x


def roll(x: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved by ``shifts`` along ``dims``, those that fall out at the end come in at the beginning."""
    if dims is None:
        return reshape(roll(reshape(x, -1), shifts, 0), x.shape)
    moves = [shifts] if isinstance(shifts, int) else list(shifts)
    for shift, dim in zip(moves, [dims] if isinstance(dims, int) else list(dims), strict=True):
        size = x.shape[normal_dim(dim, x.dim())]
        if size and shift % size:
            cut = size - shift % size
            x = cat([narrow(x, dim, cut, size - cut), narrow(x, dim, 0, cut)], dim)
    return x


def movedim(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places, the rest in order."""
    moved = [normal_dim(d, x.dim()) for d in ([source] if isinstance(source, int) else source)]
    places = [normal_dim(d, x.dim()) for d in ([destination] if isinstance(destination, int) else destination)]
    rest = iter([d for d in range(x.dim()) if d not in moved])
    order = dict(zip(places, moved, strict=True))
    return permute(x, [order[d] if d in order else next(rest) for d in range(x.dim())])


def broadcast_to(x: Any, size: Sequence[int]) -> Tensor:
    return expand(x, size)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All expanded to their common shape."""
    shape = broadcast_shape(*[x.shape for x in tensors])
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
        grids = [movedim(g, (0, 1), (1, 0)) for g in [*grids[:2][::-1], *grids[2:]]]
    return tuple(grids)


def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several."""
    dim = normal_dim(dim, x.dim())
    return reshape(x, (*x.shape[:dim], *_inferred(sizes, x.shape[dim]), *x.shape[dim + 1 :]))


def _inferred(sizes: Sequence[int], total: int) -> list[int]:
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    if list(sizes).count(-1) > 1 or not known or total % known:
        raise ShapeError(f"a dimension of size {total} cannot be unflattened to {list(sizes)}")
    return [total // known if size == -1 else size for size in sizes]


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the second dimension, vectors along their only one."""
    tensors = [reshape(x, 1) if not x.shape else x for x in tensors]
    return cat(tensors, 0 if tensors[0].dim() == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the first dimension, vectors as rows."""
    return cat([reshape(x, (1, -1)) if x.dim() < 2 else x for x in tensors], 0)


def unfold(x: Any, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` along a dimension, every ``step``, as a new last dimension (a copy, where PyTorch has a view)."""
    dim = normal_dim(dimension, x.dim())
    length = x.shape[dim]
    if step < 1 or not 0 <= size <= length:
        raise ShapeError(f"unfold: windows of {size} by {step} do not fit into dimension {dim} of size {length}")
    count = (length - size) // step + 1
    places = reshape(unsqueeze(arange(count) * step, 1) + arange(size), -1)
    rows = index_select(x, dim, places)
    return movedim(reshape(rows, (*x.shape[:dim], count, size, *x.shape[dim + 1 :])), dim + 1, -1)


def diff(x: Any, n: int = 1, dim: int = -1) -> Tensor:
    """The differences of neighbours along ``dim``, n times."""
    for _ in range(n):
        size = x.shape[normal_dim(dim, x.dim())]
        x = narrow(x, dim, 1, max(size - 1, 0)) - narrow(x, dim, 0, max(size - 1, 0)) if size else x
    return x


def ravel(x: Any) -> Tensor:
    """All elements as a vector."""
    return reshape(x, -1)


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
        if any(cut):
            x = narrow(x, dim, cut[0], x.shape[dim] - sum(cut))
        before, after = max(before, 0), max(after, 0)
        if not before and not after:
            continue
        if mode != "constant":
            x = index_select(x, dim, tensor(_padding_places(x.shape[dim], before, after, mode), dtype=int64))
            continue
        fill = float(value or 0.0) if x.dtype.is_floating_point else int(value or 0)
        ends = [full((*x.shape[:dim], size, *x.shape[dim + 1 :]), fill, dtype=x.dtype) for size in (before, after)]
        x = cat([part for part in (ends[0], x, ends[1]) if part.shape[dim]], dim)
    return x


def tensor_split(x: Any, sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of nearly equal size, or cut at the given places."""
    size = x.shape[normal_dim(dim, x.dim())]
    if isinstance(sections, int):
        return split(x, [size // sections + (k < size % sections) for k in range(sections)], dim)
    edges = [0, *[min(e, size) for e in sections], size]
    return split(x, [max(high - low, 0) for low, high in zip(edges, edges[1:], strict=False)], dim)
