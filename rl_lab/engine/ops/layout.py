"""Shapes and memory: views that share storage, copies, joining, dtype conversion, and writing into a tensor."""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, float32
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.ops.conversion import clone, convert
from rl_lab.engine.ops.operands import collapse, copy_into, expanded_strides, normal_dim, same_rule, shape_argument
from rl_lab.engine.tape import attach, modes
from rl_lab.engine.tensor import Shape, Tensor, check_writable, contiguous_strides, empty, region_of, view

# --- copies ----------------------------------------------------------------------------------------------------------


def contiguous(x: Any) -> Tensor:
    """The tensor itself if its memory is row-major, else a copy that is."""
    return x if x.strides is None else clone(x)


def _written_rule(g, node):
    """Gradient of a base of which one region was overwritten: none for the old content there, all of it for the new."""
    where, value_shape = node.context
    _ = node.saved  # nothing, but freed by a backward: a second one through a write into a view is an error in PyTorch
    old = new = None
    if node.wants(0):
        old = without_region(g, where)
    if node.wants(1):
        new = region(g, where).sum_to_size(value_shape)
    return old, new


def copy_(target: Any, source: Any, from_target: bool = False, overlap: bool = False) -> Tensor:
    """target[...] = source, broadcast and converted. A write through a view reaches the base's gradient.

    ``from_target`` says that the source was computed from the target: then the old content is on the source's tape already, and
    needs no gradient of zeros for having been overwritten. ``overlap`` lets several elements of the target share one place.
    """
    check_writable(target, overlap)
    tracked = modes.grad and (target.requires_grad or source.requires_grad) and target.dtype is float32
    if source.storage.address == target.storage.address and source is not target:
        source = clone(source)
    copy_into(target, source)
    target.storage.version += 1
    if tracked:
        root = target if target.base is None else target.base
        where = (root.shape, contiguous_strides(root.shape), 0) if root is target else region_of(target)
        edges = tuple([(x.grad_node() or x) if x.requires_grad else None for x in (root, source)])
        if root is target and from_target:
            edges = (None, edges[1])
        retained = None if root.node is None else root.node.take_retained()
        root.node = tape.Node(_written_rule, edges, () if root is target else (None,), (where, source.shape), root.shape)
        root.node.retained = retained
        root.needs_grad = True
        root.epoch += 1
        if root is not target:
            target.grad_node()
    return target


# --- views -----------------------------------------------------------------------------------------------------------


def _region_rule(g, node):
    return embed(g, *node.context)


def region(x: Any, where: tuple[Shape, Shape, int]) -> Tensor:
    """The part of a contiguous tensor given by shape, strides and offset, as a view."""
    x = contiguous(x)
    shape, strides, offset = where
    return attach(view(x, shape, strides, x.offset + offset), _region_rule, (x,), context=(x.shape, where))


def _embed_rule(g, node):
    return region(g, node.context)


def embed(g: Any, shape: Shape, where: tuple[Shape, Shape, int]) -> Tensor:
    """Zeros of ``shape`` with ``g`` at a region: the gradient of taking that region."""
    sizes, strides, offset = where
    if 0 in strides:  # an expanded view's: repetitions add up
        sizes = tuple([1 if stride == 0 else size for size, stride in zip(sizes, strides, strict=True)])
        g, where = g.sum_to_size(sizes), (sizes, tuple([stride or 1 for stride in strides]), offset)
    out = empty(shape)
    with tape.no_grad():
        out.zero_()
        copy_into(view(out, where[0], where[1], where[2]), g)
    return attach(out, _embed_rule, (g,), context=where)


def _without_region_rule(g, node):
    return without_region(g, node.context)


def without_region(g: Any, where: tuple[Shape, Shape, int]) -> Tensor:
    """A copy of ``g`` with zeros at a region."""
    with tape.no_grad():
        out = clone(g)
        view(out, *where).zero_()
        out.storage.version = 0
    return attach(out, _without_region_rule, (g,), context=where)


def _reshape_rule(g, node):
    return reshape(g, node.context)


def reshape(x: Any, *sizes: Any) -> Tensor:
    """The same elements in another shape; one size may be -1. A view where the layout allows, else a copy."""
    shape = _infer(x, shape_argument(sizes))
    strides = None if x.strides is None else _view_strides(x, shape)
    if x.strides is not None and strides is None:
        x = clone(x)
    return attach(view(x, shape, strides, x.offset), _reshape_rule, (x,), context=x.shape)


def view_as_shape(x: Any, *sizes: Any) -> Tensor:
    """`reshape` that never copies: ShapeError where the layout does not allow a view."""
    if len(sizes) == 1 and isinstance(sizes[0], DType):
        raise DtypeError("view(dtype) is not supported: use to(dtype)")
    shape = _infer(x, shape_argument(sizes))
    if x.strides is not None and _view_strides(x, shape) is None:
        raise ShapeError(
            f"view size {list(shape)} is not compatible with strides {list(x.strides)} of shape {list(x.shape)}: use reshape()"
        )
    return reshape(x, shape)


def _infer(x: Any, shape: Shape) -> Shape:
    if shape == x.shape:
        return shape
    known = math.prod([size for size in shape if size != -1])
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise ShapeError(f"invalid shape {list(shape)}: at most one size may be -1")
    if -1 in shape:
        if known == 0 or x.numel() % known:
            raise ShapeError(f"shape {list(shape)} is invalid for a tensor of {x.numel()} elements")
        return tuple([x.numel() // known if size == -1 else size for size in shape])
    if known != x.numel():
        raise ShapeError(f"shape {list(shape)} is invalid for a tensor of {x.numel()} elements")
    return shape


def _view_strides(x: Any, shape: Shape) -> Shape | None:
    """Strides that show a strided tensor in another shape, or None when only a copy can."""
    sizes, (steps,) = collapse(x.shape, x.strides)
    result = []
    pending = list(zip(sizes, steps, strict=True))
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


def _permute_rule(g, node):
    inverse = [0] * len(node.context)
    for i, dim in enumerate(node.context):
        inverse[dim] = i
    return permute(g, tuple(inverse))


def permute(x: Any, *dims: Any) -> Tensor:
    """A view with its dimensions in another order."""
    order = tuple([normal_dim(dim, x.dim()) for dim in shape_argument(dims)])
    if sorted(order) != list(range(x.dim())):
        raise ShapeError(f"permute needs each of {x.dim()} dimensions once, got {list(order)}")
    strides = x.stride()
    shape, steps = tuple([x.shape[d] for d in order]), tuple([strides[d] for d in order])
    return attach(view(x, shape, steps, x.offset), _permute_rule, (x,), context=order)


def transpose(x: Any, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    order = list(range(x.dim()))
    if len(order) == 2 and x.strides is None and (dim0 - dim1) % 2 == 1 and -2 <= min(dim0, dim1) <= max(dim0, dim1) < 2:
        rows, columns = x.shape
        return attach(view(x, (columns, rows), (1, columns), x.offset), _permute_rule, (x,), context=(1, 0))
    if order:
        dim0, dim1 = normal_dim(dim0, x.dim()), normal_dim(dim1, x.dim())
        order[dim0], order[dim1] = dim1, dim0
    return permute(x, tuple(order))


def _expand_rule(g, node):
    return g.sum_to_size(node.context)


def expand(x: Any, *sizes: Any) -> Tensor:
    """A view repeated along dimensions of size 1; -1 keeps a size."""
    shape = shape_argument(sizes)
    missing = len(shape) - x.dim()
    if missing < 0:
        raise ShapeError(f"expand of shape {list(x.shape)} to {list(shape)}: too few sizes")
    shape = tuple([x.shape[i - missing] if size == -1 and i >= missing else size for i, size in enumerate(shape)])
    if any(old not in (1, new) for old, new in zip(x.shape, shape[missing:], strict=True)) or min(shape, default=0) < 0:
        raise ShapeError(f"shape {list(x.shape)} cannot be expanded to {list(shape)}")
    if shape == x.shape:
        return attach(view(x, shape, x.strides, x.offset), same_rule, (x,))
    return attach(view(x, shape, expanded_strides(x.shape, x.stride(), shape), x.offset), _expand_rule, (x,), context=x.shape)


def squeeze(x: Any, dim: int | Sequence[int] | None = None) -> Tensor:
    """A view without the dimensions of size 1, or without the given ones if their size is 1."""
    if dim is None:
        drop = set(range(x.dim()))
    else:
        drop = {normal_dim(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    keep = [i for i in range(x.dim()) if x.shape[i] != 1 or i not in drop]
    return _with_dims(x, tuple([x.shape[i] for i in keep]), tuple([x.stride()[i] for i in keep]))


def unsqueeze(x: Any, dim: int) -> Tensor:
    """A view with a dimension of size 1 at ``dim``."""
    dim = normal_dim(dim, x.dim() + 1)
    return _with_dims(x, (*x.shape[:dim], 1, *x.shape[dim:]), (*x.stride()[:dim], 1, *x.stride()[dim:]))


def _with_dims(x: Any, shape: Shape, strides: Shape) -> Any:
    return attach(view(x, shape, None if x.strides is None else strides, x.offset), _reshape_rule, (x,), context=x.shape)


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = normal_dim(start_dim, x.dim()), normal_dim(end_dim, x.dim())
    if not x.shape:
        return reshape(x, (1,))
    if start == end:
        return x
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def narrow(x: Any, dim: int, start: int, length: int, step: int = 1) -> Tensor:
    """A view of ``length`` places along ``dim``, from ``start`` on, every ``step``-th."""
    dim = normal_dim(dim, x.dim())
    size = x.shape[dim]
    if start < 0:
        start += size
    if not (0 <= start <= size and length >= 0 and (length == 0 or start + (length - 1) * step < size)):
        raise IndexError(f"narrow: {length} places from {start} by {step} do not fit into dimension {dim} of size {size}")
    strides = x.stride()
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    where = (shape, (*strides[:dim], strides[dim] * step, *strides[dim + 1 :]), start * strides[dim])
    out = view(x, where[0], where[1], x.offset + where[2])
    return attach(out, _narrow_rule, (x,), context=(x.shape, dim, start, step))


def _narrow_rule(g, node):
    shape, dim, start, step = node.context
    strides = contiguous_strides(shape)
    return embed(g, shape, (g.shape, (*strides[:dim], strides[dim] * step, *strides[dim + 1 :]), start * strides[dim]))


def select(x: Any, dim: int, index: int) -> Tensor:
    """A view of one place along ``dim``, without that dimension. IndexError outside the dimension."""
    dim = normal_dim(dim, x.dim())
    if not x.shape:
        raise IndexError("a 0-dimensional tensor cannot be indexed")
    if not -x.shape[dim] <= index < x.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} of size {x.shape[dim]}")
    return squeeze(narrow(x, dim, index % x.shape[dim], 1), dim)


class Parts:
    """Gradients of the parts into which a tensor was divided, by number: added part by part and joined at the end.

    Each as a whole tensor of zeros but for its part would cost the square of their number.
    """

    __slots__ = ("gradients",)

    def __init__(self, gradients: dict[int, Any]):
        self.gradients = gradients

    def __add__(self, other: "Parts") -> "Parts":
        result = dict(self.gradients)
        for number, gradient in other.gradients.items():
            result[number] = result[number] + gradient if number in result else gradient
        return Parts(result)


def _part_rule(g, node):
    return Parts({node.context: g})


def _parts_rule(parts, node):
    shapes, dim = node.context
    given = parts.gradients
    return cat([given[k] if k in given else _zeros(shape) for k, shape in enumerate(shapes)], dim)


def _zeros(shape: Shape) -> Any:
    with tape.no_grad():
        return empty(shape).zero_()  # type: ignore[attr-defined]


def _divided(x: Any, sizes: Sequence[int], dim: int) -> list[Any]:
    """Views of consecutive sizes along ``dim``."""
    parts, start = [], 0
    if not (modes.grad and x.requires_grad and len(sizes) > 1):
        for size in sizes:
            parts.append(narrow(x, dim, start, size))
            start += size
        return parts
    shapes = [(*x.shape[:dim], size, *x.shape[dim + 1 :]) for size in sizes]
    whole = attach(view(x, x.shape, x.strides, x.offset), _parts_rule, (x,), context=(shapes, dim))
    strides = x.stride()
    for number, shape in enumerate(shapes):
        part = view(whole, shape, strides, x.offset + start * strides[dim])
        parts.append(attach(part, _part_rule, (whole,), context=number))
        start += shape[dim]
    return parts


def unbind(x: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of each place along ``dim``, without that dimension."""
    dim = normal_dim(dim, x.dim())
    if not x.shape:
        raise ShapeError("unbind needs at least 1 dimension")
    return tuple([squeeze(part, dim) for part in _divided(x, [1] * x.shape[dim], dim)])


def split(x: Any, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of ``size`` places each along ``dim`` (the last may be smaller), or of the sizes listed."""
    dim = normal_dim(dim, x.dim())
    total = x.shape[dim]
    if isinstance(size, int):
        if size <= 0:
            raise ValueError(f"split size must be positive, got {size}")
        sizes = [min(size, total - start) for start in range(0, max(total, 1), size)]
    else:
        sizes = list(size)
        if sum(sizes) != total:
            raise ShapeError(f"split sizes {sizes} do not add up to {total}, the size of dimension {dim}")
    return tuple(_divided(x, sizes, dim))


def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size along ``dim``, the last one smaller if need be."""
    if chunks <= 0:
        raise ValueError(f"chunks must be positive, got {chunks}")
    size = x.shape[normal_dim(dim, x.dim())]
    return split(x, -(-size // chunks) if size else [0] * chunks, dim)


# --- joining ---------------------------------------------------------------------------------------------------------


def _cat_rule(g, node):
    dim, sizes = node.context
    parts: list[Any] = []
    start = 0
    for i, size in enumerate(sizes):
        parts.append(narrow(g, dim, start, size) if node.wants(i) else None)
        start += size
    return tuple(parts)


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension; their other sizes are equal."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    dtype = max((t.dtype for t in tensors), key=lambda d: d.rank)
    tensors = tuple([convert(t, dtype) for t in tensors])
    first = tensors[0]
    dim = normal_dim(dim, first.dim())
    for t in tensors[1:]:
        if t.dim() != first.dim() or t.shape[:dim] + t.shape[dim + 1 :] != first.shape[:dim] + first.shape[dim + 1 :]:
            raise ShapeError(f"cat along dimension {dim}: shapes {list(first.shape)} and {list(t.shape)} differ elsewhere")
    sizes = tuple([t.shape[dim] for t in tensors])
    out = empty((*first.shape[:dim], sum(sizes), *first.shape[dim + 1 :]), dtype)
    strides, start = out.stride(), 0
    for t in tensors:
        copy_into(view(out, t.shape, strides, start * strides[dim]), t)
        start += t.shape[dim]
    return attach(out, _cat_rule, tensors, context=(dim, sizes))


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    tensors = list(tensors)
    for t in tensors[1:]:
        if t.shape != tensors[0].shape:
            raise ShapeError(f"stack expects equal shapes, got {list(tensors[0].shape)} and {list(t.shape)}")
    return cat([unsqueeze(t, dim) for t in tensors], dim)


# --- methods ---------------------------------------------------------------------------------------------------------
