"""Order along a dimension. Values are gathered at their sorted positions, so the gradient is that of `gather`."""

import math
from typing import overload

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import sorting as sorting_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.comparison import isnan
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.creation import full
from rl_lab.engine.ops.gathering import gather, three_parts
from rl_lab.engine.ops.operands import normal_dim, whole
from rl_lab.engine.ops.reduction import Extremes, tied_rule
from rl_lab.engine.tensor import Tensor, empty, owned


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions that put input in order along ``dim``. NaN counts as the largest value. Always stable."""
    dim = normal_dim(dim, input.dim())
    with tape.no_grad():
        source = whole(input).contiguous()
    out = empty(input.sizes, int64)
    n, r, m = three_parts(input, dim)
    kernel = sorting_kernels.order if source.dtype is float32 else sorting_kernels.order_int
    launch(kernel, (out, empty((max(r, 1),), int64), source), (n, r, m, int(descending)))
    return out


@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Extremes:
    """(values, indices) in order along ``dim``. NaN counts as the largest value. Always stable."""
    index = argsort(input, dim, descending)
    return Extremes(gather(input, dim, index) if input.sizes else clone(input), index)


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extremes:
    """(values, indices) of the k largest elements along ``dim``, or the k smallest, in order.

    Raises ShapeError if there are fewer than k elements.
    """
    dim = normal_dim(dim, input.dim())
    if not 0 <= k <= (input.sizes[dim] if input.sizes else 1):
        raise ShapeError(f"topk: k must be from 0 to the size of dimension {dim} of shape {list(input.sizes)}, got {k}")
    index = argsort(input, dim, descending=largest)
    if not input.sizes:
        return Extremes(clone(input), index)
    index = index.narrow(dim, 0, k).contiguous()
    return Extremes(gather(input, dim, index), index)


@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Extremes:
    """(values, indices) of the k-th smallest element along ``dim``, where k counts from 1.

    Raises ShapeError if there are fewer than k elements.
    """
    dim = normal_dim(dim, input.dim())
    if not 1 <= k <= (input.sizes[dim] if input.sizes else 1):
        raise ShapeError(f"kthvalue: k must be from 1 to the size of dimension {dim} of shape {list(input.sizes)}, got {k}")
    if not input.sizes:
        return Extremes(clone(input), full((), 0))
    index = argsort(input, dim).narrow(dim, k - 1, 1).contiguous()
    values = gather(input, dim, index)
    return Extremes(values, index) if keepdim else Extremes(owned(values.squeeze(dim)), owned(index.squeeze(dim)))


@overload
def median(input: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def median(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremes:
    """The lower median of all elements, or (values, indices) of the medians along ``dim``. NaN if one element is NaN.

    The median of an empty float32 tensor is NaN. Raises IndexError for other empty tensors and for an empty ``dim``.
    """
    if dim is None and input.dtype is float32 and not input.numel():
        return full((), math.nan)
    if dim is None:  # elements equal to the median share the gradient, as in max() of all elements
        with tape.no_grad():
            value = median(input.reshape(-1), 0)[0]
        everywhere = tuple(range(input.dim()))
        return (
            tape.attach(owned(value), tied_rule, (input,), (input, value), (everywhere, True))
            if input.dtype is float32
            else value
        )
    dim = normal_dim(dim, input.dim())
    if not input.sizes:
        return Extremes(clone(input), full((), 0))
    r = input.sizes[dim]
    if r == 0:
        raise IndexError(f"median() needs at least one element to reduce over, got shape {list(input.sizes)}")
    order = argsort(input, dim)
    place = order.narrow(dim, (r - 1) // 2, 1).contiguous()
    if input.dtype is float32:
        with tape.no_grad():
            last = order.narrow(dim, r - 1, 1).contiguous()
            place = where(isnan(gather(input, dim, last)), last, place)
    values = gather(input, dim, place)
    return Extremes(values, place) if keepdim else Extremes(owned(values.squeeze(dim)), owned(place.squeeze(dim)))


@overload
def nanmedian(input: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def nanmedian(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremes:
    """`median` of the elements that are not NaN; NaN if all are NaN."""
    if input.dtype is not float32 or (dim is None and not input.numel()):
        return median(input, dim, keepdim)
    if dim is None:
        with tape.no_grad():
            value = nanmedian(input.reshape(-1), 0)[0]
        return tape.attach(owned(value), tied_rule, (input,), (input, value), (tuple(range(input.dim())), True))
    dim = normal_dim(dim, input.dim())
    if not input.sizes:
        return Extremes(clone(input), full((), 0))
    if not input.sizes[dim]:
        raise IndexError(f"nanmedian() needs at least one element to reduce over, got shape {list(input.sizes)}")
    with tape.no_grad():
        numbers = (~isnan(input)).sum(dim, keepdim=True)  # NaN is behind all numbers
        place = gather(argsort(input, dim), dim, (numbers - 1).clamp(min=0) // 2)
    values = gather(input, dim, place)
    return Extremes(values, place) if keepdim else Extremes(owned(values.squeeze(dim)), owned(place.squeeze(dim)))
