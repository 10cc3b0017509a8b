"""Rearrangements of elements, composed of views, copies and joins: repeat, flip, roll, pad and others."""

from collections.abc import Sequence

from rl_lab.engine.dtype import bool_, int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.comparison import logical_xor
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.creation import arange, full, tensor
from rl_lab.engine.ops.gathering import index_select
from rl_lab.engine.ops.layout import cat, expand, narrow, permute, reshape, split, unsqueeze
from rl_lab.engine.ops.operands import INTEGERS, broadcast_shape, normal_dim, shape_argument
from rl_lab.engine.tensor import Tensor, owned
from rl_lab.engine.types import Sizes


def tensor_list(tensors: tuple[Tensor | Sequence[Tensor], ...]) -> list[Tensor]:
    """The tensors given by the positional arguments of f(a, b), f([a, b]) or f((a, b))."""
    return list(tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors)  # type: ignore[arg-type]


# --- repetition and order --------------------------------------------------------------------------------------------


def repeat(input: Tensor, *sizes: Sizes, repeats: Sizes | None = None) -> Tensor:
    """Copies of ``input`` side by side, sizes[d] of them along dimension d. Extra sizes make new dimensions in front.

    Raises ShapeError if there are fewer sizes than dimensions or a size is negative.
    """
    counts = shape_argument(sizes if repeats is None else (repeats,))
    missing = len(counts) - input.dim()
    if missing < 0 or min(counts, default=0) < 0:
        raise ShapeError(f"repeat needs a number, not negative, for each of the {input.dim()} dimensions, got {list(counts)}")
    shape = (1,) * missing + input.sizes
    wide = reshape(input, [size for pair in shape for size in (1, pair)])
    wide = expand(wide, [size for pair in zip(counts, shape, strict=True) for size in pair])
    return owned(reshape(wide, [count * size for count, size in zip(counts, shape, strict=True)]), input)


def tile(input: Tensor, *sizes: Sizes, dims: Sizes | None = None) -> Tensor:
    """`repeat`, in which missing sizes in front count as 1."""
    counts = shape_argument(sizes if dims is None else (dims,))
    return repeat(input, (1,) * (input.dim() - len(counts)) + counts)


@numpy_names
def repeat_interleave(
    input: Tensor, repeats: int | Tensor | None = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element ``repeats`` times in a row along ``dim``, or in the flattened tensor. A tensor gives a number for each element.

    A single tensor is the vector ``repeats`` of the positions 0, 1, ..., which are the input then.
    The values of a tensor are read, which ends a recording: the shape depends on them. ``output_size`` has no effect.
    Raises ShapeError if the tensor does not have one number per element, or if a number is negative.
    """
    if repeats is None:
        if input.dim() != 1:
            raise ShapeError(
                f"repeat_interleave of one tensor takes a vector, got shape {list(input.sizes)}: give input and repeats"
            )
        input, repeats = arange(input.sizes[0]), input
    if dim is None:
        input = reshape(input, -1)
    dim = 0 if dim is None else normal_dim(dim, input.dim())
    if isinstance(repeats, Tensor):
        counts = repeats.reshape(-1).tolist()
        if len(counts) == 1:
            counts = counts * input.sizes[dim]
        if repeats.dim() > 1 or len(counts) != input.sizes[dim]:
            raise ShapeError(
                f"repeat_interleave needs a number, or a vector of {input.sizes[dim]} numbers, got repeats of shape {list(repeats.sizes)}"
            )
        if min(counts, default=0) < 0:
            raise ShapeError(f"repeat_interleave: repeats must not be negative, got {min(counts)}")
        return index_select(input, dim, tensor([k for k, count in enumerate(counts) for _ in range(count)], dtype=int64))
    shape = input.sizes
    wide = expand(unsqueeze(input, dim + 1), (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
    return owned(reshape(wide, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :])), input)


def flip(input: Tensor, *places: Sizes, dims: Sizes | None = None) -> Tensor:
    """The elements in reverse order along the given dimensions. Raises ShapeError if a dimension appears twice."""
    order = [normal_dim(dim, input.dim()) for dim in shape_argument(places if dims is None else (dims,))]
    if len(set(order)) != len(order):
        raise ShapeError(f"flip: each dimension may be named once, but one appears twice in {order}")
    if not input.dim():
        return clone(input)
    for dim in order:
        size = input.sizes[dim]
        input = index_select(input, dim, arange(size - 1, -1, -1) if size else arange(0))
    return input


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved by ``shifts`` along ``dims``, or in the flattened tensor. Elements moved beyond one end enter at the other."""
    if dims is None:
        return reshape(roll(reshape(input, -1), shifts, 0), input.sizes)
    moves = [shifts] if isinstance(shifts, INTEGERS) else list(shifts)
    for shift, dim in zip(moves, [dims] if isinstance(dims, INTEGERS) else list(dims), strict=True):
        size = input.sizes[normal_dim(dim, input.dim())]
        if size and shift % size:
            cut = size - shift % size
            input = cat([narrow(input, dim, cut, size - cut), narrow(input, dim, 0, cut)], dim)
    return input


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """A view with the dimensions ``source`` moved to the places ``destination``. The other dimensions keep their order."""
    moved = [normal_dim(d, input.dim()) for d in ([source] if isinstance(source, INTEGERS) else source)]
    places = [normal_dim(d, input.dim()) for d in ([destination] if isinstance(destination, INTEGERS) else destination)]
    rest = iter([d for d in range(input.dim()) if d not in moved])
    order = dict(zip(places, moved, strict=True))
    return permute(input, [order[d] if d in order else next(rest) for d in range(input.dim())])


def broadcast_to(input: Tensor, size: Sequence[int], *more: int) -> Tensor:
    """`expand` to a shape. Raises TypeError if the sizes are not one tuple or list."""
    if isinstance(size, INTEGERS):
        sizes = (size, *more)
        raise TypeError(f"broadcast_to takes the sizes as one tuple: write broadcast_to({sizes}) or expand{sizes}")
    return expand(input, size)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape. Raises ShapeError if there is none."""
    shape = broadcast_shape(*[x.sizes for x in tensors])
    return tuple([expand(x, shape) for x in tensors])


def meshgrid(*tensors: Tensor | Sequence[Tensor], indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of all points of a grid, one tensor per axis, from vectors of coordinates along each axis.

    With ``indexing`` "ij" dimension k of the results is axis k; "xy" exchanges the first two. Raises ValueError for another one.
    """
    axes = tensor_list(tensors)
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
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """A dimension replaced by several of the sizes given, of which one may be -1. Raises ShapeError if the sizes do not fit."""
    dim = normal_dim(dim, input.dim())
    return reshape(input, (*input.sizes[:dim], *_inferred(sizes, input.sizes[dim]), *input.sizes[dim + 1 :]))


def _inferred(sizes: Sequence[int], total: int) -> list[int]:
    """``sizes`` with -1 replaced by the number that fits ``total``. Raises ShapeError if none does."""
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    open_size = list(sizes).count(-1)
    if open_size > 1 or (known != total if not open_size else not known or total % known):
        raise ShapeError(f"a dimension of size {total} cannot be unflattened to the sizes {list(sizes)}")
    return [total // known if size == -1 else size for size in sizes]


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the second dimension; vectors along their only dimension."""
    tensors = [reshape(x, 1) if not x.sizes else x for x in tensors]
    return cat(tensors, 0 if tensors[0].dim() == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the first dimension; vectors count as rows."""
    return cat([reshape(x, (1, -1)) if x.dim() < 2 else x for x in tensors], 0)


def unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` elements along a dimension, ``step`` apart, as a new last dimension. A copy; in PyTorch it is a view.

    Raises ShapeError if the windows do not fit.
    """
    if not x.sizes:  # a scalar counts as a vector of one element
        return reshape(unfold(reshape(x, 1), dimension, size, step), size)
    dim = normal_dim(dimension, x.dim())
    length = x.sizes[dim]
    if step < 1 or not 0 <= size <= length:
        raise ShapeError(f"unfold: windows of {size} elements, {step} apart, do not fit into dimension {dim} of size {length}")
    count = (length - size) // step + 1
    places = reshape(unsqueeze(arange(count) * step, 1) + arange(size), -1)
    rows = index_select(x, dim, places)
    return movedim(reshape(rows, (*x.sizes[:dim], count, size, *x.sizes[dim + 1 :])), dim + 1, -1)


@numpy_names
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """The differences of neighbours along ``dim``, taken n times, after joining ``prepend`` and ``append`` to the ends.

    The difference of bools is `logical_xor`. Raises ValueError if n is negative.
    """
    if n < 0:
        raise ValueError(f"diff: n must not be negative, got {n}")
    if not n:
        return clone(input)
    if prepend is not None or append is not None:
        input = cat([part for part in (prepend, input, append) if part is not None], dim)
    for _ in range(n):
        size = input.sizes[normal_dim(dim, input.dim())]
        if size:
            later = narrow(input, dim, 1, size - 1)
            earlier = narrow(input, dim, 0, size - 1)
            input = logical_xor(later, earlier) if input.dtype is bool_ else later - earlier
    return input


def ravel(input: Tensor) -> Tensor:
    """All elements as a vector: a view if the strides allow it, else a copy."""
    return reshape(input, -1)


# --- padding ---------------------------------------------------------------------------------------------------------


def _padding_places(size: int, before: int, after: int, mode: str) -> list[int]:
    """The position that each element of a padded dimension repeats."""
    places = range(-before, size + after)
    if mode == "replicate":
        return [min(max(k, 0), size - 1) for k in places]
    if mode == "circular":
        return [k % size for k in places]
    if max(before, after) >= size:
        raise ShapeError(
            f"pad: to reflect {max(before, after)} elements the dimension must be larger than that, got size {size}"
        )
    return [-k if k < 0 else 2 * (size - 1) - k if k >= size else k for k in places]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """input with elements added at both ends of its last dimensions; negative numbers remove elements.

    ``pad`` is (before the last dimension, after it, before the last but one, after it, ...). ``mode`` "constant" fills with ``value``;
    "reflect", "replicate" and "circular" repeat elements. Raises ShapeError or ValueError for unsuitable arguments.
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
        before = max(before, 0)
        after = max(after, 0)
        if not before and not after:
            continue
        if mode == "circular":
            x = index_select(x, dim, tensor(_padding_places(x.sizes[dim], before, after, mode), dtype=int64))
            continue
        fill = float(value or 0.0) if x.dtype.is_floating_point else int(value or 0)
        ends = [full((*x.sizes[:dim], size, *x.sizes[dim + 1 :]), fill, dtype=x.dtype) for size in (before, after)]
        x = cat([part for part in (ends[0], x, ends[1]) if part.sizes[dim] or part is x], dim)
    return x


Cuts = int | Sequence[int] | Tensor
"""A number of parts, or the positions before which to cut."""


@numpy_names
def tensor_split(
    input: Tensor,
    indices_or_sections: Cuts | None = None,
    dim: int = 0,
    *,
    indices: Sequence[int] | None = None,
    sections: int | None = None,
) -> tuple[Tensor, ...]:
    """Views of consecutive parts along ``dim``: so many of nearly equal size, or cut before the positions given,
    as by slices: a part whose end is not behind its begin is empty.

    ``indices_or_sections`` is the number of parts or the positions; ``sections`` and ``indices`` are names for each of the two.
    """
    size = input.sizes[normal_dim(dim, input.dim())]
    if indices is not None or sections is not None:
        indices_or_sections = sections if indices is None else indices
    cuts = indices_or_sections.tolist() if isinstance(indices_or_sections, Tensor) else indices_or_sections
    if cuts is None:
        raise TypeError("tensor_split needs a number of parts or the positions of the cuts: give indices_or_sections")
    if isinstance(cuts, INTEGERS):
        return split(input, [int(size // cuts + (k < size % cuts)) for k in range(cuts)], dim)
    ranges = [slice(*ends).indices(size) for ends in zip([0, *cuts], [*cuts, None], strict=True)]
    return tuple([narrow(input, dim, low, max(high - low, 0)) for low, high, _ in ranges])
