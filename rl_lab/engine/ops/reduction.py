"""Reductions over dimensions, and the softmax family."""

import builtins
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, overload

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, DTypeLike, as_dtype, bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import reduction as reduction_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.comparison import isnan
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.operands import (
    INTEGERS,
    as_float,
    constant,
    differentiate,
    expanded_strides,
    flat_rule,
    normal_dim,
    whole,
)
from rl_lab.engine.tape import Node, attach, modes
from rl_lab.engine.tensor import Shape, Tensor, contiguous_strides, empty, is_row_major, owned, placed
from rl_lab.engine.types import Dims, Gradients, Sizes
from rl_lab.native.primitive import Primitive


def normal_dims(dim: Dims, rank: int) -> tuple[int, ...]:
    """Dimensions as sorted non-negative numbers. None and an empty sequence mean all dimensions.

    Raises IndexError for a dimension that does not exist, ShapeError if a dimension appears twice.
    """
    return _normal_dims(dim if dim is None or isinstance(dim, INTEGERS) else tuple(dim), rank)


@functools.lru_cache(maxsize=1024)
def _normal_dims(dim: int | tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, tuple) and not dim):
        return tuple(range(rank))
    dims = [dim] if isinstance(dim, INTEGERS) else list(dim)
    result = sorted({normal_dim(d, rank) for d in dims})
    if len(result) != len(dims):
        raise ShapeError(f"each dimension may be named once, but one appears twice in {dims}")
    return tuple(result) if rank else ()


def _either(dim: Dims, axis: Dims) -> Dims:
    """The dimensions given as ``dim`` or as ``axis``. Raises TypeError if both are given."""
    if dim is not None and axis is not None:
        raise TypeError("got both dim and axis: they are names of the same argument, give one")
    return dim if axis is None else axis


def _blocks(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, int, int, int]:
    """(x, n, r, m): x contiguous with the reduced dimensions side by side, and the numbers of elements before, in and after them."""
    order, n, r, m = _block_sizes(x.sizes, dims)
    if order is not None or x.strides is not None:
        with tape.no_grad():
            x = (x if order is None else x.permute(order)).contiguous()
    return x, n, r, m


@functools.lru_cache(maxsize=4096)
def _block_sizes(shape: Shape, dims: tuple[int, ...]) -> tuple[Shape | None, int, int, int]:
    """The order of dimensions that brings the reduced ones side by side (None if they are), and `_blocks`' numbers of elements."""
    if not dims:
        return None, math.prod(shape), 1, 1
    if dims != tuple(range(dims[0], dims[-1] + 1)):
        kept = [d for d in range(len(shape)) if d not in dims]
        return (*kept, *dims), math.prod([shape[d] for d in kept]), math.prod([shape[d] for d in dims]), 1
    before = math.prod(shape[: dims[0]])
    return None, before, math.prod(shape[dims[0] : dims[-1] + 1]), math.prod(shape[dims[-1] + 1 :])


@functools.lru_cache(maxsize=4096)
def _result_shape(shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    """The shape of a reduction over ``dims``."""
    if keepdim:
        return tuple([1 if d in dims else size for d, size in enumerate(shape)])
    return tuple([size for d, size in enumerate(shape) if d not in dims])


def _kept(shape: Shape, dims: tuple[int, ...]) -> Shape:
    """The shape of a reduction over ``dims`` that keeps them with size 1."""
    return _result_shape(shape, dims, True)


# --- sums ------------------------------------------------------------------------------------------------------------


def _sum_rule(g: Tensor, node: Node) -> Gradients:
    shape, dims, divisor = node.context
    if divisor != 1:
        g = g / float(divisor)
    if not modes.grad and g.strides is None:
        out = placed(g, shape, _repeating_strides(shape, dims))
        out.base = None
        return out
    return g.reshape(_kept(shape, dims)).expand(shape)


@functools.lru_cache(maxsize=4096)
def _repeating_strides(shape: Shape, dims: tuple[int, ...]) -> Shape | None:
    """The strides that read a contiguous tensor without the dimensions ``dims`` as ``shape``, repeated along ``dims``."""
    strides = expanded_strides(_kept(shape, dims), contiguous_strides(_kept(shape, dims)), shape)
    return None if is_row_major(shape, strides) else strides


def _sum(x: Tensor, dims: tuple[int, ...], keepdim: bool, mean: bool, shape: Shape | None = None) -> Tensor:
    """The sum over ``dims``, or the mean, in ``shape`` if given."""
    source, n, r, m = _blocks(x, dims)
    divisor = r if mean else 1
    out = empty(_result_shape(x.sizes, dims, keepdim) if shape is None else shape)
    launch(reduction_kernels.sum_over, (out, source), (n, r, m, float(divisor)))
    return attach(out, _sum_rule, (x,), context=(x.sizes, dims, divisor)) if modes.grad else out


def sum(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The sum over ``dim``, by default over all dimensions. Sums of integers and bools are int64."""
    if axis is not None or keepdims is not None:  # not by `numpy_names`, which would slow down the most frequent reduction
        dim = _either(dim, axis)
        keepdim = keepdim if keepdims is None else keepdims
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    dims = normal_dims(dim, input.dim())
    if input.dtype is float32:
        return _sum(input, dims, keepdim, mean=False)
    source, n, r, m = _blocks(input.to(int64), dims)
    out = empty(_result_shape(input.sizes, dims, keepdim), int64)
    launch(reduction_kernels.sum_over_int, (out, source), (n, r, m))
    return out


def mean(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The mean over ``dim``, by default over all dimensions. NaN over no elements. Raises DtypeError if input is not float32."""
    if axis is not None or keepdims is not None:
        dim = _either(dim, axis)
        keepdim = keepdim if keepdims is None else keepdims
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    if input.dtype is not float32:
        raise DtypeError(f"mean needs float32, got {input.dtype.name}: convert with .float() first")
    return _sum(input, normal_dims(dim, input.dim()), keepdim, mean=True)


def sum_to_size(x: Tensor, *sizes: Sizes, size: Sizes | None = None) -> Tensor:
    """The sum over the dimensions that broadcasting from ``sizes`` to the shape of x would repeat, in the shape ``sizes``."""
    sizes = sizes if size is None else (size,)
    shape: Shape = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], INTEGERS) else tuple(sizes)  # type: ignore[arg-type, assignment]
    if x.sizes == shape:
        return x if shape else sum(x)
    dims = _repeated(x.sizes, shape)
    if not dims:
        return x.reshape(shape)
    return _sum(x, dims, False, False, shape) if x.dtype is float32 else sum(x, dims).reshape(shape)


@functools.lru_cache(maxsize=4096)
def _repeated(shape: Shape, sizes: Shape) -> tuple[int, ...]:
    """The dimensions of ``shape`` along which broadcasting would repeat elements of the shape ``sizes``."""
    missing = len(shape) - len(sizes)
    return (*range(missing), *[i + missing for i, size in enumerate(sizes) if size == 1 and shape[i + missing] != 1])


def _ratio(a: float, b: float) -> float:
    """a / b as float32 division: infinite or NaN for b = 0."""
    return a / b if b else math.copysign(math.inf, a) if a else math.nan


def _var_rule(g: Tensor, node: Node) -> Gradients:
    (x,) = node.saved
    dims, correction = node.context
    count = math.prod([x.sizes[d] for d in dims])
    return g.reshape(_kept(x.sizes, dims)) * _ratio(2.0, count - correction) * (x - mean(x, dims, keepdim=True))


def _std_rule(g: Tensor, node: Node) -> Gradients:
    x, out = node.saved
    dims, correction = node.context
    slope = constant(0.0).where(out.eq(0.0), g / (out * 2.0))  # the gradient of equal numbers is 0
    count = math.prod([x.sizes[d] for d in dims])
    return slope.reshape(_kept(x.sizes, dims)) * _ratio(2.0, count - correction) * (x - mean(x, dims, keepdim=True))


def _moment(x: Tensor, dim: Dims, correction: float | None, keepdim: bool, unbiased: bool, root: bool) -> Tensor:
    """The variance, or with ``root`` the standard deviation."""
    if isinstance(dim, bool):  # var(unbiased)
        unbiased = dim
        dim = None
    if isinstance(correction, bool):  # var(dim, unbiased)
        correction = float(correction)
    if x.dtype is not float32:
        raise DtypeError(f"{'std' if root else 'var'} takes float32, got {x.dtype.name}: convert with .float() first")
    correction = float(unbiased) if correction is None else correction
    dims = normal_dims(dim, x.dim())
    source, n, r, m = _blocks(x, dims)
    out = empty(_result_shape(x.sizes, dims, keepdim))
    launch(reduction_kernels.variance_over, (out, source), (n, r, m, builtins.max(0.0, float(r - correction)), root))
    if not root:
        return attach(out, _var_rule, (x,), (x,), (dims, correction))
    return attach(out, _std_rule, (x,), (x, out), (dims, correction))


@numpy_names
def var(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> Tensor:
    """The variance over ``dim``: the sum of squared deviations divided by n - correction, by default n - 1 (Bessel).

    NaN if the divisor is 0. Raises DtypeError if input is not float32.
    """
    return _moment(input, dim, correction, keepdim, unbiased, root=False)


@numpy_names
def std(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> Tensor:
    """The standard deviation, the square root of `var`. The gradient of equal numbers is 0.

    Raises DtypeError if input is not float32.
    """
    return _moment(input, dim, correction, keepdim, unbiased, root=True)


def _norm_rule(g: Tensor, node: Node) -> Gradients:
    x, out = node.saved
    dims, p = node.context
    shape = _kept(x.sizes, dims)
    g = g.reshape(shape)
    out = out.reshape(shape)
    if abs(p) == math.inf:
        largest = x.abs().eq(out).logical_or(isnan(x).logical_and(isnan(out)))
        count = sum(largest.float(), dims, keepdim=True) if dims else 1.0
        return x.sign() * (g / count).where(largest, constant(0.0))
    zero = out.eq(0.0)
    safe = constant(1.0).where(zero, out)
    if p == 2:
        return x * constant(0.0).where(zero, g / safe)
    if p < 1:
        at_zero = x.eq(0.0)
        slope = x.sign() * constant(1.0).where(at_zero, x.abs()) ** (p - 1.0)
        return constant(0.0).where(at_zero, slope) * g * out ** (1.0 - p)
    scaled = x.sign() * x.abs() ** (p - 1.0) if p < 2 else x * x.abs() ** (p - 2.0)
    return scaled * constant(0.0).where(zero, g / safe ** (p - 1.0))


def norm(
    input: Tensor, p: float | str | None = 2.0, dim: Dims = None, keepdim: bool = False, dtype: DTypeLike = None
) -> Tensor:
    """The p-norm of the vector of all elements along ``dim``. "fro" and None are p = 2. The gradient at 0 is 0.

    Raises DtypeError if input is not float32, ValueError for "nuc", which `linalg.matrix_norm` has.
    """
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    if input.dtype is not float32:
        raise DtypeError(f"norm takes float32, got {input.dtype.name}: convert with .float() first")
    dims = normal_dims(dim, input.dim())
    if p == "nuc":
        raise ValueError("norm takes no p='nuc': use linalg.matrix_norm(x, 'nuc')")
    order = 2.0 if p is None or p == "fro" else float(p)
    if order == 1:
        return sum(input.abs(), dims if input.dim() else None, keepdim)
    with tape.no_grad():
        if order == 0:
            source, n, r, m = _blocks(input, dims)
            out = empty(_result_shape(input.sizes, dims, keepdim))
            launch(reduction_kernels.count_over, (out, source), (n, r, m))
        elif order == 2:
            out = sum(input * input, dim, keepdim).sqrt()
        elif order == math.inf:
            out = amax(input.abs(), dim, keepdim)
        elif order == -math.inf:
            out = amin(input.abs(), dim, keepdim)
        else:
            out = sum(input.abs() ** order, dim, keepdim) ** (1.0 / order)
    if order == 0:
        return attach(out, flat_rule, (input,), context=(input.sizes,))
    return attach(out, _norm_rule, (input,), (input, out), (dims, order))


@numpy_names
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DTypeLike = None) -> Tensor:
    """The product along ``dim``, or of all elements. Products of integers and bools are int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    input = whole(input)
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input, dims)
    out = empty(_result_shape(input.sizes, dims, keepdim), input.dtype)
    kernel = reduction_kernels.product_over if input.dtype is float32 else reduction_kernels.product_over_int
    launch(kernel, (out, source), (n, r, m))
    return attach(out, _prod_rule, (input,), (input,), context=dims)


def _prod_rule(g: Tensor, node: Node) -> Gradients:
    (x,) = node.saved
    dims = node.context
    if not x.numel():
        return x * 0.0
    # the product of all other elements, from those before and those behind: without a division, which fails where an element is 0
    order = (*[d for d in range(x.dim()) if d not in dims], *dims)
    moved = x.permute(order)
    rows = moved.reshape((*moved.sizes[: x.dim() - len(dims)], -1))
    places = rows.sizes[-1]
    before = [rows.narrow(-1, 0, 1) * 0.0 + 1.0]
    others = []
    for k in range(places - 1):
        before.append(before[-1] * rows.narrow(-1, k, 1))
    after = before[0]
    for k in range(places - 1, -1, -1):
        others.append(before[k] * after)
        after = after * rows.narrow(-1, k, 1)
    product = cat(others[::-1], -1).reshape(moved.sizes)
    inverse = tuple(sorted(range(len(order)), key=lambda i: order[i]))
    return g.reshape(_kept(x.sizes, dims)) * product.permute(inverse)


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: DTypeLike = None) -> Tensor:
    """The running sum along ``dim``. Sums of integers and bools are int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    dim = normal_dim(dim, input.dim())
    if input.dtype is float32:
        return _cumsum(input, dim, False) if input.dim() else input.clone()  # a sum would turn the scalar -0.0 into 0.0
    source, n, r, m = _blocks(input.to(int64), (dim,) if input.dim() else ())
    out = empty(input.sizes, int64)
    launch(reduction_kernels.cumulative_sum_int, (out, source), (n, r, m))
    return out


def _cumsum(x: Tensor, dim: int, reverse: bool) -> Tensor:
    source, n, r, m = _blocks(x, (dim,) if x.dim() else ())
    out = empty(x.sizes)
    launch(reduction_kernels.cumulative_sum, (out, source), (n, r, m, int(reverse)))
    return attach(out, _cumsum_rule, (x,), context=(dim, reverse))


def _cumsum_rule(g: Tensor, node: Node) -> Gradients:
    dim, reverse = node.context
    return _cumsum(g, dim, not reverse)


@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: DTypeLike = None) -> Tensor:
    """The running product along ``dim``. Products of integers and bools are int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    dim = normal_dim(dim, input.dim())
    real = input.dtype is float32
    source, n, r, m = _blocks(input if real else input.to(int64), (dim,) if input.dim() else ())
    out = empty(input.sizes, float32 if real else int64)
    kernel = reduction_kernels.cumulative_product if real else reduction_kernels.cumulative_product_int
    launch(kernel, (out, source), (n, r, m))
    return attach(out, _cumprod_rule, (input,), (input,), dim) if real else out


def _cumprod_rule(g: Tensor, node: Node) -> Gradients:
    (x,) = node.saved
    dim = node.context
    if modes.grad:
        return differentiate(lambda x: _cumprod_composed(x, dim), (x,), g)[0]
    source, n, r, m = _blocks(x, (dim,) if x.dim() else ())
    out = empty(x.sizes)
    launch(reduction_kernels.cumulative_product_backward, (out, g.contiguous(), source), (n, r, m))
    return out


def _cumprod_composed(x: Tensor, dim: int) -> Tensor:
    if not x.sizes or not x.sizes[dim]:
        return x * 1.0
    parts = [x.narrow(dim, 0, 1)]
    for k in range(1, x.sizes[dim]):
        parts.append(parts[-1] * x.narrow(dim, k, 1))
    return cat(parts, dim)


@numpy_names
def var_mean(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """(`var`, `mean`) over ``dim``."""
    mean_dim = None if isinstance(dim, bool) else dim
    return var(input, dim, correction, keepdim, unbiased=unbiased), mean(input, mean_dim, keepdim)


@numpy_names
def std_mean(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """(`std`, `mean`) over ``dim``."""
    mean_dim = None if isinstance(dim, bool) else dim
    return std(input, dim, correction, keepdim, unbiased=unbiased), mean(input, mean_dim, keepdim)


@numpy_names
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """The number of elements along ``dim``, or of all elements, that are not zero."""
    return sum(input.to(bool_), dim)


# --- extremes --------------------------------------------------------------------------------------------------------


def _extreme(x: Tensor, dim: int | None, name: str) -> tuple[Tensor, Tensor]:
    """The values and positions of the maximum along ``dim``, or of all elements: dimensions kept, off the tape."""
    x = whole(x)
    dims = tuple(range(x.dim())) if dim is None else (normal_dim(dim, x.dim()),)[: x.dim()]
    return _max_over(x, dims, _kept(x.sizes, dims), name)


def _max_over(x: Tensor, dims: tuple[int, ...], shape: Shape, name: str) -> tuple[Tensor, Tensor]:
    """The values and positions, of ``shape``, of the maximum over ``dims``. Raises IndexError if there are no elements."""
    source, n, r, m = _blocks(x, dims)
    _require_elements(x, r, name)
    values = empty(shape, source.dtype)
    index = empty(shape, int64)
    kernel = reduction_kernels.max_over if source.dtype is float32 else reduction_kernels.max_over_int
    launch(kernel, (values, index, source), (n, r, m))
    return values, index


def _require_elements(x: Tensor, count: int, name: str) -> None:
    if count == 0:
        raise IndexError(f"{name}() needs at least one element to reduce over, got shape {list(x.sizes)}")


def _squeezed(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """x without the reduced dimension, unless it is kept."""
    return x if keepdim or not x.sizes else x.squeeze(dim)


def tied_rule(g: Tensor, node: Node) -> Gradients:
    """The gradient of an extreme, shared evenly by the elements equal to it.

    With ``to_nan``, the elements that are NaN share the gradient of an extreme that is NaN.
    """
    x, y = node.saved
    dims, to_nan = node.context
    shape = _kept(x.sizes, dims)
    chosen = x.eq(y.reshape(shape))
    if to_nan:
        chosen = chosen.logical_or(isnan(x).logical_and(isnan(y)))
        return constant(0.0).where(chosen.logical_not(), g / sum(chosen.float()))
    chosen = chosen.float()
    return g.reshape(shape) * (chosen / sum(chosen, dims, keepdim=True) if dims else chosen)


@numpy_names
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest element along ``dim``, or of all. Elements equal to it share the gradient evenly.

    Raises IndexError if there are no elements.
    """
    return _largest(input, dim, keepdim)


def _largest(x: Tensor, dim: Dims, keepdim: bool, to_nan: bool = False) -> Tensor:
    """`amax`. With ``to_nan``, elements that are NaN share the gradient of a NaN, as in PyTorch's max and min of all elements."""
    dims = normal_dims(dim, len(x.sizes))
    shape = _result_shape(x.sizes, dims, keepdim)
    if x.dtype is float32:
        source, n, r, m = _blocks(x, dims)
        _require_elements(x, r, "amax")
        out = empty(shape)
        launch(reduction_kernels.largest_over, (out, source), (n, r, m))
    else:
        out, _ = _max_over(whole(x), dims, shape, "amax")
    return attach(out, tied_rule, (x,), (x, out), context=(dims, to_nan)) if x.dtype is float32 else out.to(x.dtype)


@numpy_names
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest element along ``dim``, or of all. Elements equal to it share the gradient evenly.

    Raises IndexError if there are no elements.
    """
    return _reversed(_largest(_reversed(input), dim, keepdim), input.dtype)


def _reversed(x: Tensor, dtype: DType | None = None) -> Tensor:
    """x with its order reversed: -x, or -x - 1 for integers, of which the smallest has no negative. Integers become ``dtype`` if given."""
    if x.dtype is float32:
        return -x
    result = -whole(x) - 1
    return result if dtype is None else result.to(dtype)


class Extremes(NamedTuple):
    """Values and their positions along a dimension."""

    values: Tensor
    indices: Tensor


@overload
def max(input: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def max(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@overload
def max(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def max(input: Tensor, *, other: Tensor) -> Tensor: ...
@numpy_names
def max(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Extremes:
    """The largest of all elements; with ``dim`` (values, indices of their first occurrence); with a tensor the elementwise maximum.

    Raises IndexError if there are no elements.
    """
    if other is not None:
        return input.maximum(other)
    if dim is None:
        if input.dtype is bool_:
            return any(input)
        return _largest(input, None, False, to_nan=True)
    if not isinstance(dim, INTEGERS):
        return input.maximum(dim)
    dim = int(dim)
    largest, index = _extreme(input, dim, "max")
    values = largest.to(input.dtype)
    if input.requires_grad and modes.grad and input.dim():
        values = input.gather(dim, index)
    elif input.requires_grad and modes.grad:
        values = input * 1
    return Extremes(owned(_squeezed(values, dim, keepdim)), owned(_squeezed(index, dim, keepdim)))


@overload
def min(input: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def min(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@overload
def min(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def min(input: Tensor, *, other: Tensor) -> Tensor: ...
@numpy_names
def min(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Extremes:
    """The smallest of all elements; with ``dim`` (values, indices of their first occurrence); with a tensor the elementwise minimum.

    Raises IndexError if there are no elements.
    """
    if other is not None:
        return input.minimum(other)
    if dim is None:
        if input.dtype is bool_:
            return all(input)
        return _reversed(_largest(_reversed(input), None, False, to_nan=True), input.dtype)
    if not isinstance(dim, INTEGERS):
        return input.minimum(dim)
    dim = int(dim)
    with tape.no_grad():
        _, index = _extreme(_reversed(input), dim, "min")
    values = input.gather(dim, index) if input.dim() else clone(input)
    return Extremes(owned(_squeezed(values, dim, keepdim)), owned(_squeezed(index, dim, keepdim)))


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the first largest element along ``dim``, or in the flattened tensor. Raises IndexError without elements."""
    _, index = _extreme(input, dim, "argmax")
    return (index if keepdim else index.reshape(())) if dim is None else _squeezed(index, dim, keepdim)


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the first smallest element along ``dim``, or in the flattened tensor. Raises IndexError without elements."""
    with tape.no_grad():
        return argmax(_reversed(input), dim, keepdim)


@numpy_names
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element along ``dim``, or of all elements, is true (not zero). No dimensions, (), reduce nothing, as in PyTorch."""
    if isinstance(dim, (tuple, list)) and not dim:
        return input.to(bool_, copy=True)
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input.to(bool_), dims)
    out = empty(_result_shape(input.sizes, dims, keepdim), bool_)
    launch(reduction_kernels.any_over, (out, source), (n, r, m))
    return out


@numpy_names
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element along ``dim``, or of all elements, is true (not zero). No dimensions, (), reduce nothing, as in PyTorch."""
    return any(input.logical_not(), dim, keepdim).logical_not()


# --- softmax family --------------------------------------------------------------------------------------------------


def _logsumexp_rule(g: Tensor, node: Node) -> Gradients:
    x, y = node.saved
    shape = _kept(x.sizes, node.context)
    return g.reshape(shape) * (x - y.reshape(shape)).exp()


@numpy_names
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, without overflow. Minus infinity over no elements."""
    input = as_float(input)
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input, dims)
    out = empty(_result_shape(input.sizes, dims, keepdim))
    launch(reduction_kernels.logsumexp_over, (out, source), (n, r, m))
    return attach(out, _logsumexp_rule, (input,), (input, out), context=dims)


class _Softmax(Protocol):
    __name__: str

    def __call__(self, input: Tensor, dim: int, dtype: DTypeLike = None) -> Tensor: ...


def _softmax_like(
    forward: Primitive, backward: Primitive, differentiable: Callable[[Tensor, Tensor, int], Tensor], formula: str
) -> _Softmax:
    """A function of the softmax family. ``differentiable(g, y, dim)`` is its gradient, from that of its value y."""
    name = forward.name.removesuffix("_over")

    def rule(g: Tensor, node: Node) -> Tensor:
        (y,) = node.saved
        dim = node.context
        if modes.grad:
            return differentiable(g, y, dim)
        g, n, r, m = _blocks(g, (dim,) if y.dim() else ())
        out = empty(y.sizes)
        launch(backward, (out, g, y), (n, r, m))
        return out

    rule.__name__ = f"{name}_rule"

    @numpy_names
    def apply(input: Tensor, dim: int, dtype: DTypeLike = None) -> Tensor:
        input = as_float(input)
        dim = normal_dim(dim, input.dim())
        source, n, r, m = _blocks(input, (dim,) if input.dim() else ())
        out = empty(input.sizes)
        launch(forward, (out, source), (n, r, m))
        return attach(out, rule, (input,), (out,), context=dim)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"{formula} along ``dim``, without overflow. ``dtype`` is accepted: the result is float32."
    return apply


softmax = _softmax_like(
    reduction_kernels.softmax_over,
    reduction_kernels.softmax_backward,
    lambda g, y, dim: y * (g - sum(g * y, dim, keepdim=True)),
    "exp(input) / sum(exp(input))",
)
log_softmax = _softmax_like(
    reduction_kernels.log_softmax_over,
    reduction_kernels.log_softmax_backward,
    lambda g, y, dim: g - y.exp() * sum(g, dim, keepdim=True),
    "input - log(sum(exp(input)))",
)
