"""Order along a dimension. The values are gathered at their positions, which makes the gradient that of `gather`."""

from typing import Any

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
from rl_lab.engine.ops.gathering import gather
from rl_lab.engine.ops.operands import normal_dim, whole
from rl_lab.engine.ops.reduction import Extremes, tied_rule
from rl_lab.engine.tensor import Tensor, empty, owned


@numpy_names
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions that put input in order along ``dim``; always stable, NaN counts as largest."""
    dim = normal_dim(dim, input.dim())
    with tape.no_grad():
        source = whole(input).contiguous()
    out = empty(input.sizes, int64)
    n = m = 1
    for size in input.sizes[:dim]:
        n *= size
    for size in input.sizes[dim + 1 :]:
        m *= size
    r = input.sizes[dim] if input.sizes else 1
    kernel = sorting_kernels.order if source.dtype is float32 else sorting_kernels.order_int
    launch(kernel, (out, empty((max(r, 1),), int64), source), (n, r, m, int(descending)))
    return out


@numpy_names
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Extremes:
    """(values, indices) in order along ``dim``; always stable, NaN counts as largest."""
    index = argsort(input, dim, descending)
    return Extremes((gather(input, dim, index), index) if input.sizes else (clone(input), index))


@numpy_names
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extremes:
    """(values, indices) of the k largest, or smallest, along ``dim``, in order."""
    dim = normal_dim(dim, input.dim())
    if not 0 <= k <= (input.sizes[dim] if input.sizes else 1):
        raise ShapeError(f"topk: {k} elements do not exist along dimension {dim} of shape {list(input.sizes)}")
    index = argsort(input, dim, descending=largest)
    if not input.sizes:
        return Extremes((clone(input), index))
    index = index.narrow(dim, 0, k).contiguous()
    return Extremes((gather(input, dim, index), index))


@numpy_names
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Extremes:
    """(value, index) of the k-th smallest, counted from 1, along ``dim``."""
    dim = normal_dim(dim, input.dim())
    if not 1 <= k <= (input.sizes[dim] if input.sizes else 1):
        raise ShapeError(f"kthvalue: there is no element {k} along dimension {dim} of shape {list(input.sizes)}")
    if not input.sizes:
        return Extremes((clone(input), full((), 0)))
    index = argsort(input, dim).narrow(dim, k - 1, 1).contiguous()
    values = gather(input, dim, index)
    return Extremes((values, index) if keepdim else (owned(values.squeeze(dim)), owned(index.squeeze(dim))))


@numpy_names
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all, or (values, indices) along ``dim``; NaN if there is one."""
    if dim is None:  # equal elements share the gradient here, as in max() of all
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
        return Extremes((clone(input), full((), 0)))
    r = input.sizes[dim]
    if r == 0:
        raise IndexError(f"median() needs at least one element to reduce over, the shape is {list(input.sizes)}")
    order = argsort(input, dim)
    place = order.narrow(dim, (r - 1) // 2, 1).contiguous()
    if input.dtype is float32:
        with tape.no_grad():
            last = order.narrow(dim, r - 1, 1).contiguous()
            place = where(isnan(gather(input, dim, last)), last, place)
    values = gather(input, dim, place)
    return Extremes((values, place) if keepdim else (owned(values.squeeze(dim)), owned(place.squeeze(dim))))
