"""Shapes and memory: views that share storage, copies, writing into a tensor, dividing and joining."""

import functools
import math
import operator
import struct
from collections.abc import Sequence
from types import EllipsisType

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels.layout import join
from rl_lab.engine.launch import recorder
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.conversion import clone, convert
from rl_lab.engine.ops.operands import INTEGERS, collapse, copy_into, expanded_strides, normal_dim, same_rule, shape_argument
from rl_lab.engine.tape import Node, attach, modes
from rl_lab.engine.tensor import (
    Shape,
    Tensor,
    check_writable,
    contiguous_strides,
    empty,
    is_row_major,
    needs_gradient,
    placed,
    region_of,
    view,
)
from rl_lab.engine.types import Gradients, Sizes

# --- copies ----------------------------------------------------------------------------------------------------------


def contiguous(x: Tensor) -> Tensor:
    """The tensor itself if its memory is row-major, else a row-major copy."""
    return x if x.strides is None else clone(x)


def dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, contiguous and off the tape."""
    for x in tensors:
        if x.strides is not None:
            with tape.no_grad():
                return tuple([contiguous(x) for x in tensors])
    return tensors


def _written_rule(g: Tensor, node: Node) -> Gradients:
    """Gradients of the old and the new content of a base: the overwritten region belongs to the new content, the rest to the old."""
    where, value_shape = node.context
    # raises if a backward freed the node: a second backward through a write into a view is an error, as in PyTorch
    _ = node.saved
    old = new = None
    if node.wants(0):
        old = without_region(g, where)
    if node.wants(1):
        new = region(g, where).sum_to_size(value_shape)
    return old, new


def copy_(target: Tensor, source: Tensor, from_target: bool = False, overlap: bool = False) -> Tensor:
    """target[...] = source, broadcast and converted; returns the target. A write through a view changes the gradient of its base.

    ``from_target``: the source was computed from the target, so the gradient of the old content flows through the source alone.
    ``overlap``: several elements of the target may share one place in memory.
    Raises StateError if the tape cannot follow the write, ShapeError if the source does not broadcast to the target's shape.
    """
    check_writable(target, overlap)
    tracked = modes.grad and target.dtype is float32 and (needs_gradient(target) or needs_gradient(source))
    if source.storage.address == target.storage.address and source is not target:
        source = clone(source)
    copy_into(target, source)
    target.storage.version += 1
    if tracked:
        root = target if target.base is None else target.base
        where = (root.sizes, contiguous_strides(root.sizes), 0) if root is target else region_of(target)
        edges = tuple([(x.grad_node() or x) if x.requires_grad else None for x in (root, source)])
        if root is target and from_target:
            edges = (None, edges[1])
        retained = None if root.node is None else root.node.take_retained()
        root.node = tape.Node(_written_rule, edges, () if root is target else (None,), (where, source.sizes), root.sizes)
        root.node.retained = retained
        root.needs_grad = True
        root.epoch += 1
        if root is not target:
            target.grad_node()
    return target


# --- views -----------------------------------------------------------------------------------------------------------

# What a view needs to know follows from the layout of its source alone, and is computed once for each layout.
_once_per_layout = functools.lru_cache(maxsize=8192)

Placed = tuple[Shape, Shape | None]
"""The shape and the strides of a view, or None for contiguous strides, as a tensor keeps them."""


def _as_kept(shape: Shape, strides: Shape) -> Placed:
    return shape, None if is_row_major(shape, strides) else strides


def _steps(sizes: Shape, strides: Shape | None) -> Shape:
    return contiguous_strides(sizes) if strides is None else strides


def _region_rule(g: Tensor, node: Node) -> Gradients:
    return embed(g, *node.context)


Region = tuple[Shape, Shape, int]
"""A part of a contiguous tensor: shape, strides and offset, in elements."""


def region(x: Tensor, where: Region) -> Tensor:
    """A region of ``x`` as a view; of a copy if ``x`` is not contiguous."""
    x = contiguous(x)
    shape, strides, offset = where
    return attach(view(x, shape, strides, x.offset + offset), _region_rule, (x,), context=(x.sizes, where))


def _embed_rule(g: Tensor, node: Node) -> Gradients:
    return region(g, node.context)


def embed(g: Tensor, shape: Shape, where: Region) -> Tensor:
    """Zeros of ``shape`` with ``g`` in a region: the gradient of `region`."""
    sizes, strides, offset = where
    if 0 in strides:  # the region of an expanded view: the gradients of repeated elements add up
        sizes = tuple([1 if stride == 0 else size for size, stride in zip(sizes, strides, strict=True)])
        g = g.sum_to_size(sizes)
        where = (sizes, tuple([stride or 1 for stride in strides]), offset)
    out = empty(shape, g.dtype)
    with tape.no_grad():
        out.zero_()
        copy_into(view(out, *where), g)
    return attach(out, _embed_rule, (g,), context=where)


def _without_region_rule(g: Tensor, node: Node) -> Gradients:
    return without_region(g, node.context)


def without_region(g: Tensor, where: Region) -> Tensor:
    """A copy of ``g`` with zeros in a region."""
    with tape.no_grad():
        out = clone(g)
        view(out, *where).zero_()
        out.storage.version = 0
    return attach(out, _without_region_rule, (g,), context=where)


def _reshape_rule(g: Tensor, node: Node) -> Gradients:
    return reshape(g, node.context)


def reshape(input: Tensor, *sizes: Sizes, shape: Sizes | None = None) -> Tensor:
    """The same elements in another shape: a view if the strides allow it, else a copy. One size may be -1: it is inferred.

    Raises ShapeError if the shape does not have as many elements.
    """
    found = _reshaped(input.sizes, input.strides, shape_argument(sizes if shape is None else (shape,)))
    if found is None:
        input = clone(input)
        found = _infer(input.sizes, shape_argument(sizes if shape is None else (shape,))), None
    return attach(placed(input, *found), _reshape_rule, (input,), context=input.sizes)


@_once_per_layout
def _reshaped(sizes: Shape, strides: Shape | None, shape: Shape) -> Placed | None:
    """The view in another shape, in which one size may be -1; None if the elements must be copied."""
    wanted = _infer(sizes, shape)
    if strides is None:
        return wanted, None
    steps = _view_strides(sizes, strides, wanted)
    return None if steps is None else _as_kept(wanted, steps)


def view_as_shape(x: Tensor, *sizes: Sizes, size: Sizes | None = None) -> Tensor:
    """`reshape` that never copies. Raises ShapeError if the strides do not allow a view."""
    sizes = sizes if size is None else (size,)
    if len(sizes) == 1 and isinstance(sizes[0], DType):
        raise DtypeError("view(dtype) is not supported: use to(dtype), which converts the values")
    shape = shape_argument(sizes)
    found = _reshaped(x.sizes, x.strides, shape)
    if found is None:
        wanted = list(_infer(x.sizes, shape))
        raise ShapeError(
            f"view size {wanted} is not compatible with strides {list(x.stride())} of shape {list(x.sizes)}: use reshape()"
        )
    return attach(placed(x, *found), _reshape_rule, (x,), context=x.sizes)


def _infer(sizes: Shape, shape: Shape) -> Shape:
    """``shape`` with the size -1 replaced by the number that fits ``sizes``. Raises ShapeError if none does."""
    if shape == sizes:
        return shape
    count = math.prod(sizes)
    known = math.prod([size for size in shape if size != -1])
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise ShapeError(f"invalid shape {list(shape)}: at most one size may be -1, the others must not be negative")
    if -1 in shape:
        if known == 0 or count % known:
            raise ShapeError(f"shape {list(shape)} is invalid for a tensor of {count} elements")
        return tuple([count // known if size == -1 else size for size in shape])
    if known != count:
        raise ShapeError(f"shape {list(shape)} is invalid for a tensor of {count} elements")
    return shape


def _view_strides(sizes: Shape, strides: Shape, shape: Shape) -> Shape | None:
    """Strides that read a strided tensor in another shape, or None if this needs a copy."""
    merged, (steps,) = collapse(sizes, strides)
    result = []
    pending = list(zip(merged, steps, strict=True))
    size, step = pending.pop() if pending else (1, 1)
    for wanted in reversed(shape):
        if wanted == 1:
            result.append(step)
            continue
        if size == 1 and pending:
            size, step = pending.pop()
        if size % wanted:
            return None
        result.append(step)
        size //= wanted
        step *= wanted
    return tuple(reversed(result)) if size == 1 and not pending else None


def _permute_rule(g: Tensor, node: Node) -> Gradients:
    inverse = [0] * len(node.context)
    for i, dim in enumerate(node.context):
        inverse[dim] = i
    return permute(g, tuple(inverse))


def permute(input: Tensor, *order: Sizes, dims: Sizes | None = None) -> Tensor:
    """A view with the dimensions in another order. Raises ShapeError unless each dimension is named once."""
    places, shape, strides = _permuted(input.sizes, input.strides, shape_argument(order if dims is None else (dims,)))
    return attach(placed(input, shape, strides), _permute_rule, (input,), context=places)


@_once_per_layout
def _permuted(sizes: Shape, strides: Shape | None, order: Shape) -> tuple[Shape, Shape, Shape | None]:
    """The order from 0 on, and the view."""
    places = tuple([normal_dim(dim, len(sizes)) for dim in order])
    if sorted(places) != list(range(len(sizes))):
        raise ShapeError(f"permute needs each of {len(sizes)} dimensions once, got {list(places)}")
    steps = _steps(sizes, strides)
    return places, *_as_kept(tuple([sizes[d] for d in places]), tuple([steps[d] for d in places]))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    return permute(input, _exchanged(len(input.sizes), dim0, dim1))


@_once_per_layout
def _exchanged(rank: int, dim0: int, dim1: int) -> Shape:
    """The order of dimensions in which two are exchanged."""
    order = list(range(rank))
    if order:
        dim0 = normal_dim(dim0, rank)
        dim1 = normal_dim(dim1, rank)
        order[dim0], order[dim1] = dim1, dim0
    return tuple(order)


def _expand_rule(g: Tensor, node: Node) -> Gradients:
    return g.sum_to_size(node.context)


def expand(x: Tensor, *sizes: Sizes, size: Sizes | None = None) -> Tensor:
    """A view that repeats dimensions of size 1 and may have new dimensions in front. The size -1 keeps a size.

    Raises ShapeError if the shape cannot be expanded to these sizes.
    """
    shape, strides = _expanded(x.sizes, x.strides, shape_argument(sizes if size is None else (size,)))
    out = placed(x, shape, strides)
    return attach(out, same_rule, (x,)) if shape == x.sizes else attach(out, _expand_rule, (x,), context=x.sizes)


@_once_per_layout
def _expanded(sizes: Shape, strides: Shape | None, shape: Shape) -> Placed:
    missing = len(shape) - len(sizes)
    if missing < 0:
        raise ShapeError(f"expand of shape {list(sizes)} to {list(shape)}: give a size for each of the {len(sizes)} dimensions")
    shape = tuple([sizes[i - missing] if size == -1 and i >= missing else size for i, size in enumerate(shape)])
    if any(old not in (1, new) for old, new in zip(sizes, shape[missing:], strict=True)) or min(shape, default=0) < 0:
        raise ShapeError(f"shape {list(sizes)} cannot be expanded to {list(shape)}: only sizes of 1 can grow")
    if shape == sizes:
        return shape, strides
    return _as_kept(shape, expanded_strides(sizes, _steps(sizes, strides), shape))


@numpy_names
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """A view without the dimensions of size 1, or without those of ``dim`` whose size is 1.

    Raises ShapeError if ``dim`` names a dimension twice.
    """
    dims = dim if dim is None else (dim,) if isinstance(dim, INTEGERS) else tuple(dim)
    return attach(placed(input, *_squeezed(input.sizes, input.strides, dims)), _reshape_rule, (input,), context=input.sizes)


@_once_per_layout
def _squeezed(sizes: Shape, strides: Shape | None, dims: Shape | None) -> Placed:
    rank = len(sizes)
    drop = list(range(rank)) if dims is None else [normal_dim(d, rank) for d in dims]
    if len(set(drop)) != len(drop):
        raise ShapeError(f"squeeze: each dimension may be named once, but one appears twice in {drop}")
    keep = [i for i in range(rank) if sizes[i] != 1 or i not in drop]
    shape = tuple([sizes[i] for i in keep])
    return (shape, None) if strides is None else _as_kept(shape, tuple([strides[i] for i in keep]))


@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a dimension of size 1 at ``dim``."""
    return attach(placed(input, *_unsqueezed(input.sizes, input.strides, dim)), _reshape_rule, (input,), context=input.sizes)


@_once_per_layout
def _unsqueezed(sizes: Shape, strides: Shape | None, dim: int) -> Placed:
    dim = normal_dim(dim, len(sizes) + 1)
    shape = (*sizes[:dim], 1, *sizes[dim:])
    return (shape, None) if strides is None else _as_kept(shape, (*strides[:dim], 1, *strides[dim:]))


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` with NumPy's argument names."""
    return transpose(input, axis0, axis1)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim``, included, as one: a view if the strides allow it, else a copy.

    Raises ShapeError if ``start_dim`` comes after ``end_dim``.
    """
    start = normal_dim(start_dim, input.dim())
    end = normal_dim(end_dim, input.dim())
    if start > end:
        raise ShapeError(f"flatten: start_dim must not come after end_dim, got {start_dim} and {end_dim}: exchange them")
    if not input.sizes:
        return reshape(input, (1,))
    if start == end:
        return input
    return reshape(input, (*input.sizes[:start], math.prod(input.sizes[start : end + 1]), *input.sizes[end + 1 :]))


@numpy_names
def narrow(input: Tensor, dim: int, start: int, length: int, step: int = 1) -> Tensor:
    """A view of ``length`` positions along ``dim``: start, start + step, ... Raises IndexError if one is outside the dimension."""
    start = operator.index(start)
    length = operator.index(length)
    dim, size, stride, shape, strides = _narrowed(input.sizes, input.strides, dim, length, step)
    if start < 0:
        start += size
    if not (0 <= start <= size and length >= 0 and (length == 0 or start + (length - 1) * step < size)):
        raise IndexError(f"narrow: {length} positions from {start} by {step} do not fit into dimension {dim} of size {size}")
    out = placed(input, shape, strides, start * stride)
    return attach(out, _narrow_rule, (input,), context=(input.sizes, dim, start, step))


@_once_per_layout
def _narrowed(
    sizes: Shape, strides: Shape | None, dim: int, length: int, step: int
) -> tuple[int, int, int, Shape, Shape | None]:
    """The dimension from 0 on, its size, its stride, and the view of ``length`` positions along it."""
    dim = normal_dim(dim, len(sizes))
    steps = _steps(sizes, strides)
    shape = (*sizes[:dim], length, *sizes[dim + 1 :])
    return dim, sizes[dim], steps[dim], *_as_kept(shape, (*steps[:dim], steps[dim] * step, *steps[dim + 1 :]))


def _narrow_rule(g: Tensor, node: Node) -> Gradients:
    shape, dim, start, step = node.context
    strides = contiguous_strides(shape)
    return embed(g, shape, (g.sizes, (*strides[:dim], strides[dim] * step, *strides[dim + 1 :]), start * strides[dim]))


@numpy_names
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one position along ``dim``, without this dimension. Raises IndexError if the position is outside the dimension."""
    return pick(input, dim, index)


def _pick_rule(g: Tensor, node: Node) -> Gradients:
    sizes, dim, index = node.context
    strides = contiguous_strides(sizes)
    return embed(g, sizes, (g.sizes, (*strides[:dim], *strides[dim + 1 :]), index * strides[dim]))


def pick(input: Tensor, dim: int, index: int) -> Tensor:
    """`select` without NumPy's argument names, which cost time in every call."""
    dim, size, stride, shape, strides = without_dim(input.sizes, input.strides, dim)
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} of size {size}")
    index = int(index) + size if index < 0 else int(index)
    out = placed(input, shape, strides, index * stride)
    return attach(out, _pick_rule, (input,), context=(input.sizes, dim, index)) if modes.grad else out


@_once_per_layout
def without_dim(sizes: Shape, strides: Shape | None, dim: int) -> tuple[int, int, int, Shape, Shape | None]:
    """The dimension from 0 on, its size, its stride, and the view without this dimension."""
    if not sizes:
        raise IndexError("a 0-dimensional tensor cannot be indexed: use item() for its value")
    dim = normal_dim(dim, len(sizes))
    steps = _steps(sizes, strides)
    return dim, sizes[dim], steps[dim], *_as_kept((*sizes[:dim], *sizes[dim + 1 :]), (*steps[:dim], *steps[dim + 1 :]))


BasicKey = int | slice | EllipsisType | None
"""A part of a key that selects a region."""


def region_of_key(sizes: Shape, strides: Shape, key: tuple[BasicKey, ...]) -> Region | None:
    """The region that a key of integers, slices, None and ... selects of a tensor; None if the key does not fit."""
    shape: list[int] = []
    steps: list[int] = []
    start = 0
    dim = 0
    for i, k in enumerate(key):
        if type(k) is int:
            if dim >= len(sizes) or not -sizes[dim] <= k < sizes[dim]:
                return None
            start += (k + sizes[dim] if k < 0 else k) * strides[dim]
            dim += 1
        elif isinstance(k, slice):
            if dim >= len(sizes) or (k.step or 1) < 0:
                return None
            first, stop, step = k.indices(sizes[dim])
            shape.append(len(range(first, stop, step)))
            steps.append(strides[dim] * step)
            start += first * strides[dim]
            dim += 1
        elif k is None:
            shape.append(1)
            steps.append(1)
        elif k is Ellipsis:
            rest = key[i + 1 :]
            end = len(sizes) - sum([other is not None for other in rest])
            if end < dim or any(other is Ellipsis for other in rest):
                return None
            shape += sizes[dim:end]
            steps += strides[dim:end]
            dim = end
        else:
            return None
    return (*shape, *sizes[dim:]), (*steps, *strides[dim:]), start


_PLAIN = (int, type(None))


Kept = tuple[Shape, Shape | None, int]
"""A region with its strides as a tensor keeps them."""


@_once_per_layout
def _region_of_part(sizes: Shape, strides: Shape | None, part: tuple[int | None, int | None, int | None] | None) -> Kept | None:
    """`region_of_key` for a key of one slice, given by its three numbers, or of one None."""
    where = region_of_key(sizes, _steps(sizes, strides), (None if part is None else slice(*part),))
    return None if where is None else (*_as_kept(*where[:2]), where[2])


def _kept_region(x: Tensor, key: tuple[BasicKey, ...]) -> Kept | None:
    """`region_of_key` for any key; for the most frequent ones computed once per layout."""
    if len(key) == 1:
        k = key[0]
        if k is None:
            return _region_of_part(x.sizes, x.strides, None)
        if type(k) is slice and type(k.start) in _PLAIN and type(k.stop) in _PLAIN and type(k.step) in _PLAIN:
            return _region_of_part(x.sizes, x.strides, (k.start, k.stop, k.step))
    where = region_of_key(x.sizes, _steps(x.sizes, x.strides), key)
    return None if where is None else (*_as_kept(*where[:2]), where[2])


def basic(x: Tensor, key: tuple[BasicKey, ...]) -> Tensor | None:
    """The view that a key of integers, slices, None and ... selects, with one node on the tape; None if the key does not fit."""
    kept = _kept_region(x, key)
    if kept is None:
        return None
    out = placed(x, *kept)
    if not modes.grad or not needs_gradient(x):
        return out
    where = region_of_key(x.sizes, contiguous_strides(x.sizes), key)
    return attach(out, _region_rule, (x,), context=(x.sizes, where))


class Parts:
    """Gradients of the parts of a divided tensor, by part number. Addition adds part by part; `_parts_rule` joins the parts.

    Embedding each part in a whole tensor of zeros would cost time quadratic in the number of parts.
    """

    __slots__ = ("gradients",)

    def __init__(self, gradients: dict[int, Tensor]):
        self.gradients = gradients

    def __add__(self, other: "Parts") -> "Parts":
        result = dict(self.gradients)
        for number, gradient in other.gradients.items():
            result[number] = result[number] + gradient if number in result else gradient
        return Parts(result)

    def add_gradient(self, other: "Parts") -> "Parts":
        """The same in place."""
        mine = self.gradients
        for number, gradient in other.gradients.items():
            mine[number] = mine[number] + gradient if number in mine else gradient
        return self

    def _holds_nan(self) -> bool:
        """Whether an element of a part is NaN."""
        return any(gradient._holds_nan() for gradient in self.gradients.values())


def _part_rule(g: Tensor, node: Node) -> Parts:
    return Parts({node.context: g})


def _parts_rule(parts: Parts, node: Node) -> Tensor:
    shapes, dim = node.context
    given = parts.gradients
    return cat([given[k] if k in given else _zeros(shape) for k, shape in enumerate(shapes)], dim)


def _zeros(shape: Shape) -> Tensor:
    with tape.no_grad():
        return empty(shape).zero_()


def _divided(x: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    """Views of consecutive sizes along ``dim``."""
    parts = []
    start = 0
    if not (modes.grad and x.requires_grad and len(sizes) > 1):
        for size in sizes:
            parts.append(narrow(x, dim, start, size))
            start += size
        return parts
    shapes = [(*x.sizes[:dim], size, *x.sizes[dim + 1 :]) for size in sizes]
    whole = attach(view(x, x.sizes, x.strides, x.offset), _parts_rule, (x,), context=(shapes, dim))
    strides = x.stride()
    for number, shape in enumerate(shapes):
        part = view(whole, shape, strides, x.offset + start * strides[dim])
        parts.append(attach(part, _part_rule, (whole,), context=number))
        start += shape[dim]
    return parts


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A view of each position along ``dim``, without this dimension. Raises ShapeError for a scalar."""
    dim = normal_dim(dim, input.dim())
    if not input.sizes:
        raise ShapeError("unbind needs a tensor of at least 1 dimension, got a scalar")
    return tuple([squeeze(part, dim) for part in _divided(input, [1] * input.sizes[dim], dim)])


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive parts along ``dim``: of one size each (the last may be smaller), or of the sizes listed.

    Raises ValueError for a size that is not positive, ShapeError if the listed sizes do not add up to the size of the dimension.
    """
    dim = normal_dim(dim, tensor.dim())
    total = tensor.sizes[dim]
    if isinstance(split_size_or_sections, INTEGERS):
        if split_size_or_sections <= 0:
            raise ValueError(f"split size must be positive, got {split_size_or_sections}")
        sizes = [min(split_size_or_sections, total - start) for start in range(0, max(total, 1), split_size_or_sections)]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != total:
            raise ShapeError(f"split sizes {sizes} do not add up to {total}, the size of dimension {dim}")
    return tuple(_divided(tensor, sizes, dim))


@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size along ``dim``; the last may be smaller. Raises ValueError if ``chunks`` is not positive."""
    if chunks <= 0:
        raise ValueError(f"chunks must be positive, got {chunks}")
    size = input.sizes[normal_dim(dim, input.dim())]
    return split(input, -(-size // chunks) if size else [0] * chunks, dim)


# --- joining ---------------------------------------------------------------------------------------------------------


def _cat_rule(g: Tensor, node: Node) -> Gradients:
    dim, sizes = node.context
    parts: list[Tensor | None] = []
    start = 0
    for i, size in enumerate(sizes):
        parts.append(narrow(g, dim, start, size) if node.wants(i) else None)
        start += size
    return tuple(parts)


class _Join:
    """How tensors of given sizes are joined: ``blocks`` times ``sizes[k]`` elements of each tensor k, side by side.

    ``shape`` is that of the result, ``steps`` are the strides of each tensor's elements in the result, and ``context`` is what the
    gradient rule needs.
    """

    def __init__(self, shape: Shape, blocks: int, sizes: list[int], steps: Shape, itemsize: int, context: object):
        self.shape = shape
        self.sizes = sizes
        self.steps = steps
        self.context = context
        count = len(sizes)
        self._head = struct.pack("2q", blocks, count)
        self._addresses = struct.Struct(f"{1 + count}q").pack
        self._lengths = struct.pack(f"{count}q", *[size * itemsize for size in sizes])

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The tensors, of one dtype, joined; not on the tape."""
        out = empty(self.shape, tensors[0].dtype)
        if 0 in self.shape:
            return out
        if recorder() is None:
            addresses = [part.address for part in tensors if part.strides is None]
            if len(addresses) < len(tensors):
                tensors = dense(*tensors)
                addresses = [part.address for part in tensors]
            join.call(self._head + self._addresses(out.address, *addresses) + self._lengths)
            return out
        start = 0
        for tensor, size in zip(tensors, self.sizes, strict=True):
            copy_into(view(out, tensor.sizes, self.steps, start), tensor)
            start += size
        return out


def _of_one_dtype(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors in the highest of their dtypes. Raises ValueError for an empty sequence."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    dtype = tensors[0].dtype
    for t in tensors:
        if t.dtype is not dtype:
            dtype = max((t.dtype for t in tensors), key=lambda d: d.rank)
            return tuple([convert(t, dtype) for t in tensors])
    return tensors


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension, in the highest of their dtypes.

    As in PyTorch, a vector without elements fits tensors of any shape. Raises ValueError for an empty sequence, ShapeError if the sizes of
    another dimension differ.
    """
    tensors = _of_one_dtype(tensors)
    shapes = tuple([t.sizes for t in tensors])
    if (0,) in shapes and (full := max(shapes, key=len)) != (0,):
        at = normal_dim(dim, len(full))
        tensors = tuple([reshape(t, (*full[:at], 0, *full[at + 1 :])) if t.sizes == (0,) else t for t in tensors])
        shapes = tuple([t.sizes for t in tensors])
    plan = _cat_plan(shapes, dim, tensors[0].dtype.itemsize)
    return attach(plan(tensors), _cat_rule, tensors, context=plan.context)


@_once_per_layout
def _cat_plan(shapes: tuple[Shape, ...], dim: int, itemsize: int) -> _Join:
    first = shapes[0]
    dim = normal_dim(dim, len(first))
    before = first[:dim]
    after = first[dim + 1 :]
    for sizes in shapes:
        if len(sizes) != len(first) or sizes[:dim] != before or sizes[dim + 1 :] != after:
            raise ShapeError(f"cat along dimension {dim}: shapes {list(first)} and {list(sizes)} differ in another dimension")
    lengths = tuple([sizes[dim] for sizes in shapes])
    shape = (*before, sum(lengths), *after)
    strides = contiguous_strides(shape)
    return _Join(shape, math.prod(before), [n * strides[dim] for n in lengths], strides, itemsize, (dim, lengths))


def _stack_rule(g: Tensor, node: Node) -> Gradients:
    return tuple([pick(g, node.context, i) if node.wants(i) else None for i in range(len(node.inputs))])


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension ``dim``. Raises ShapeError if the shapes differ."""
    tensors = _of_one_dtype(tensors)
    sizes = tensors[0].sizes
    for t in tensors:
        if t.sizes != sizes:
            raise ShapeError(f"stack expects equal shapes, got {list(sizes)} and {list(t.sizes)}")
    plan = _stack_plan(sizes, len(tensors), dim, tensors[0].dtype.itemsize)
    return attach(plan(tensors), _stack_rule, tensors, context=plan.context)


@_once_per_layout
def _stack_plan(sizes: Shape, count: int, dim: int, itemsize: int) -> _Join:
    dim = normal_dim(dim, len(sizes) + 1)
    shape = (*sizes[:dim], count, *sizes[dim:])
    strides = contiguous_strides(shape)
    steps = (*strides[:dim], *strides[dim + 1 :])
    return _Join(shape, math.prod(sizes[:dim]), [strides[dim]] * count, steps, itemsize, dim)
