"""Reductions over dimensions, and the softmax family."""

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, as_dtype, bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import reduction as reduction_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.comparison import isnan
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.ops.operands import INTEGERS, as_float, constant, differentiate, normal_dim, whole
from rl_lab.engine.tape import attach, modes
from rl_lab.engine.tensor import Shape, Tensor, empty, owned

Dims = int | Sequence[int] | None


def normal_dims(dim: Dims, rank: int) -> tuple[int, ...]:
    """Dimensions as sorted non-negative numbers; None or an empty list means all."""
    if dim is None:
        return tuple(range(rank))
    dims = [dim] if isinstance(dim, INTEGERS) else list(dim)
    if not dims:
        return tuple(range(rank))
    result = sorted({normal_dim(d, rank) for d in dims})
    if len(result) != len(dims):
        raise ShapeError(f"a dimension appears twice in {dims}")
    return tuple(result) if rank else ()


def _either(dim: Dims, axis: Dims) -> Dims:
    if dim is not None and axis is not None:
        raise TypeError("got both dim and axis: they are the same argument")
    return dim if axis is None else axis


def _blocks(x: Any, dims: tuple[int, ...]) -> tuple[Any, int, int, int]:
    """x contiguous with the reduced dimensions side by side, and its sizes (n, r, m) before, in and after them."""
    shape = x.sizes
    if dims and dims != tuple(range(dims[0], dims[-1] + 1)):
        kept = [d for d in range(len(shape)) if d not in dims]
        with tape.no_grad():
            x = x.permute((*kept, *dims)).contiguous()
        return x, math.prod([shape[d] for d in kept]), math.prod([shape[d] for d in dims]), 1
    if x.strides is not None:
        with tape.no_grad():
            x = x.contiguous()
    if not dims:
        return x, x.numel(), 1, 1
    return x, math.prod(shape[: dims[0]]), math.prod(shape[dims[0] : dims[-1] + 1]), math.prod(shape[dims[-1] + 1 :])


def _result_shape(shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    if keepdim:
        return tuple([1 if d in dims else size for d, size in enumerate(shape)])
    return tuple([size for d, size in enumerate(shape) if d not in dims])


def _kept(shape: Shape, dims: tuple[int, ...]) -> Shape:
    return _result_shape(shape, dims, True)


# --- sums ------------------------------------------------------------------------------------------------------------


def _sum_rule(g, node):
    shape, dims, divisor = node.context
    if divisor != 1:
        g = g / float(divisor)
    return g.reshape(_kept(shape, dims)).expand(shape)


def _sum(x: Any, dims: tuple[int, ...], keepdim: bool, mean: bool) -> Any:
    if x.strides is None and len(dims) == len(x.sizes):
        source, n, r, m = x, 1, math.prod(x.sizes), 1
    else:
        source, n, r, m = _blocks(x, dims)
    divisor = r if mean else 1
    out = empty(_result_shape(x.sizes, dims, keepdim))
    launch(reduction_kernels.sum_over, (out, source), (n, r, m, float(divisor)))
    return attach(out, _sum_rule, (x,), context=(x.sizes, dims, divisor)) if modes.grad else out


def sum(
    input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None, keepdims: bool | None = None
) -> Tensor:
    """The sum over the given dimensions, over all by default. Integers and bools sum to int64."""
    if axis is not None or keepdims is not None:  # not by `numpy_names`: the commonest reduction
        dim, keepdim = _either(dim, axis), keepdim if keepdims is None else keepdims
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
    input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None, keepdims: bool | None = None
) -> Tensor:
    """The mean over the given dimensions; NaN over no elements. DtypeError for integers."""
    if axis is not None or keepdims is not None:
        dim, keepdim = _either(dim, axis), keepdim if keepdims is None else keepdims
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    if input.dtype is not float32:
        raise DtypeError(f"mean needs float32, got {input.dtype.name}: convert with .float() first")
    return _sum(input, normal_dims(dim, input.dim()), keepdim, mean=True)


def sum_to_size(x: Any, *sizes: Any, size: Any = None) -> Tensor:
    """Summed over what broadcasting from ``sizes`` to this shape would repeat."""
    sizes = sizes if size is None else (size,)
    shape = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], INTEGERS) else tuple(sizes)
    if x.sizes == shape:
        return x if shape else sum(x)
    missing = x.dim() - len(shape)
    dims = (*range(missing), *[i + missing for i, size in enumerate(shape) if size == 1 and x.sizes[i + missing] != 1])
    result = sum(x, dims, keepdim=True) if dims else x
    return result.reshape(shape)


def _ratio(a: float, b: float) -> float:
    """a / b as floats are divided."""
    return a / b if b else math.copysign(math.inf, a) if a else math.nan


def _var_rule(g, node):
    (x,), (dims, correction) = node.saved, node.context
    count = math.prod([x.sizes[d] for d in dims])
    return g.reshape(_kept(x.sizes, dims)) * _ratio(2.0, count - correction) * (x - mean(x, dims, keepdim=True))


def _std_rule(g, node):
    x, out = node.saved
    slope = constant(0.0).where(out.eq(0.0), g / (out * 2.0))  # equal numbers: 0
    count = math.prod([x.sizes[d] for d in node.context[0]])
    factor = _ratio(2.0, count - node.context[1])
    return slope.reshape(_kept(x.sizes, node.context[0])) * factor * (x - mean(x, node.context[0], keepdim=True))


def _moment(x: Any, dim: Dims, correction: float | None, keepdim: bool, unbiased: bool, root: bool) -> Any:
    """The variance, or its root."""
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
    input: Any, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> Tensor:
    """The variance with divisor n - correction (Bessel's 1 by default); NaN for a single element."""
    return _moment(input, dim, correction, keepdim, unbiased, root=False)


@numpy_names
def std(
    input: Any, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> Tensor:
    """The square root of `var`. The gradient of equal numbers is 0."""
    return _moment(input, dim, correction, keepdim, unbiased, root=True)


def _norm_rule(g, node):
    (x, out), (dims, p) = node.saved, node.context
    shape = _kept(x.sizes, dims)
    g, out = g.reshape(shape), out.reshape(shape)
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
        return (
            constant(0.0).where(at_zero, x.sign() * constant(1.0).where(at_zero, x.abs()) ** (p - 1.0)) * g * out ** (1.0 - p)
        )
    scaled = x.sign() * x.abs() ** (p - 1.0) if p < 2 else x * x.abs() ** (p - 2.0)
    return scaled * constant(0.0).where(zero, g / safe ** (p - 1.0))


def norm(input: Any, p: float | str | None = 2.0, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over the given dimensions, as of a vector ('fro' is 2). The gradient at 0 is 0."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    if input.dtype is not float32:
        raise DtypeError(f"norm takes float32, got {input.dtype.name}: convert with .float() first")
    order = 2.0 if p in ("fro", None) else float(p)  # type: ignore[arg-type]
    dims = normal_dims(dim, input.dim())
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
        return attach(out, _no_slope, (input,), context=input.sizes)
    return attach(out, _norm_rule, (input,), (input, out), (dims, order))


def _no_slope(g, node):
    with tape.no_grad():
        return constant(0.0).expand(node.context)


@numpy_names
def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over one dimension, or of all elements. That of integers and bools is int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    input = whole(input)
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input, dims)
    out = empty(_result_shape(input.sizes, dims, keepdim), input.dtype)
    launch(
        reduction_kernels.product_over if input.dtype is float32 else reduction_kernels.product_over_int,
        (out, source),
        (n, r, m),
    )
    return attach(out, _prod_rule, (input,), (input,), context=dims)


def _prod_rule(g, node):
    (x,), dims = node.saved, node.context
    if not x.numel():
        return x * 0.0
    # the product of the others, from the left and from the right: right also where an element is 0
    order = (*[d for d in range(x.dim()) if d not in dims], *dims)
    moved = x.permute(order)
    rows = moved.reshape((*moved.sizes[: x.dim() - len(dims)], -1))
    places = rows.sizes[-1]
    before, others = [rows.narrow(-1, 0, 1) * 0.0 + 1.0], []
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
def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """The running sum along ``dim``. Integers and bools sum to int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    dim = normal_dim(dim, input.dim())
    if input.dtype is float32:
        return _cumsum(input, dim, False) if input.dim() else input.clone()  # a scalar keeps the sign of its zero
    source, n, r, m = _blocks(input.to(int64), (dim,) if input.dim() else ())
    out = empty(input.sizes, int64)
    launch(reduction_kernels.cumulative_sum_int, (out, source), (n, r, m))
    return out


def _cumsum(x: Any, dim: int, reverse: bool) -> Any:
    source, n, r, m = _blocks(x, (dim,) if x.dim() else ())
    out = empty(x.sizes)
    launch(reduction_kernels.cumulative_sum, (out, source), (n, r, m, int(reverse)))
    return attach(out, _cumsum_rule, (x,), context=(dim, reverse))


def _cumsum_rule(g, node):
    dim, reverse = node.context
    return _cumsum(g, dim, not reverse)


@numpy_names
def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """The running product along ``dim``. That of integers and bools is int64 unless ``dtype`` is given."""
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    dim = normal_dim(dim, input.dim())
    whole = input.dtype is not float32
    source, n, r, m = _blocks(input.to(int64) if whole else input, (dim,) if input.dim() else ())
    out = empty(input.sizes, int64 if whole else float32)
    launch(
        reduction_kernels.cumulative_product_int if whole else reduction_kernels.cumulative_product, (out, source), (n, r, m)
    )
    return out if whole else attach(out, _cumprod_rule, (input,), (input,), dim)


def _cumprod_rule(g, node):
    (x,), dim = node.saved, node.context
    if modes.grad:
        return differentiate(lambda x: _cumprod_composed(x, dim), (x,), g)[0]
    source, n, r, m = _blocks(x, (dim,) if x.dim() else ())
    out = empty(x.sizes)
    launch(reduction_kernels.cumulative_product_backward, (out, g.contiguous(), source), (n, r, m))
    return out


def _cumprod_composed(x: Any, dim: int) -> Any:
    if not x.sizes or not x.sizes[dim]:
        return x * 1.0
    parts = [x.narrow(dim, 0, 1)]
    for k in range(1, x.sizes[dim]):
        parts.append(parts[-1] * x.narrow(dim, k, 1))
    return cat(parts, dim)


@numpy_names
def var_mean(
    input: Any, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """`var` and `mean`."""
    mean_dim = None if isinstance(dim, bool) else dim
    return var(input, dim, correction, keepdim, unbiased=unbiased), mean(input, mean_dim, keepdim)


@numpy_names
def std_mean(
    input: Any, dim: Dims = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool = True
) -> tuple[Tensor, Tensor]:
    """`std` and `mean`."""
    mean_dim = None if isinstance(dim, bool) else dim
    return std(input, dim, correction, keepdim, unbiased=unbiased), mean(input, mean_dim, keepdim)


@numpy_names
def count_nonzero(input: Any, dim: Dims = None) -> Tensor:
    """How many elements are not zero."""
    return sum(input.to(bool_), dim)


# --- extremes --------------------------------------------------------------------------------------------------------


def _extreme(x: Any, dim: int | None, name: str) -> tuple[Any, Any]:
    """The values and positions of the maximum over ``dim`` (of the negated tensor: of the minimum), contiguous, off the tape."""
    x = whole(x)
    dims = tuple(range(x.dim())) if dim is None else ((normal_dim(dim, x.dim()),) if x.dim() else ())
    source, n, r, m = _blocks(x, dims)
    if r == 0:
        raise IndexError(f"{name}() needs at least one element to reduce over, the shape is {list(x.sizes)}")
    shape = _result_shape(x.sizes, dims, True)
    values, index = empty(shape, x.dtype), empty(shape, int64)
    launch(
        reduction_kernels.max_over if x.dtype is float32 else reduction_kernels.max_over_int, (values, index, source), (n, r, m)
    )
    return values, index


def _squeezed(x: Any, dim: int, keepdim: bool) -> Any:
    return x if keepdim or not x.sizes else x.squeeze(dim)


def tied_rule(g, node):
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
def amax(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest value; ties share the gradient evenly."""
    return _largest(input, dim, keepdim)


def _largest(x: Any, dim: Dims, keepdim: bool, to_nan: bool = False) -> Any:
    """`amax`; with ``to_nan`` the gradient of a largest value that is NaN goes to the NaNs, as in PyTorch's max and min of all."""
    dims = normal_dims(dim, x.dim())
    source, n, r, m = _blocks(whole(x), dims)
    if r == 0:
        raise IndexError(f"amax() needs at least one element to reduce over, the shape is {list(x.sizes)}")
    out = empty(_result_shape(x.sizes, dims, keepdim), source.dtype)
    index = empty(out.sizes, int64)
    launch(
        reduction_kernels.max_over if source.dtype is float32 else reduction_kernels.max_over_int,
        (out, index, source),
        (n, r, m),
    )
    return attach(out, tied_rule, (x,), (x, out), context=(dims, to_nan)) if x.dtype is float32 else out.to(x.dtype)


@numpy_names
def amin(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest value; ties share the gradient evenly."""
    return _reversed(_largest(_reversed(input), dim, keepdim), input.dtype)


def _reversed(x: Any, dtype: DType | None = None) -> Any:
    """x in the opposite order, in ``dtype`` if given. Integers by their complement: the smallest of them has no negative."""
    if x.dtype is float32:
        return -x
    result = -whole(x) - 1
    return result if dtype is None else result.to(dtype)


class Extremes(tuple):
    """Values and their indices along a dimension."""

    __slots__ = ()

    @property
    def values(self) -> Tensor:
        return self[0]

    @property
    def indices(self) -> Tensor:
        return self[1]


@numpy_names
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Without ``dim`` the largest of all; with a tensor the elementwise maximum; else (values, indices of the first largest)."""
    if other is not None:
        return input.maximum(other)
    if dim is None:
        if input.dtype is bool_:
            return any(input)
        return _largest(input, None, False, to_nan=True)
    if not isinstance(dim, INTEGERS):
        return input.maximum(dim)
    dim = int(dim)
    values, index = _extreme(input, dim, "max")
    values = values.to(input.dtype)
    if input.requires_grad and modes.grad and input.dim():
        values = input.gather(dim, index)
    elif input.requires_grad and modes.grad:
        values = input * 1
    return Extremes((owned(_squeezed(values, dim, keepdim)), owned(_squeezed(index, dim, keepdim))))


@numpy_names
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """As `max`, for the smallest."""
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
    return Extremes((owned(_squeezed(values, dim, keepdim)), owned(_squeezed(index, dim, keepdim))))


@numpy_names
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element along ``dim``, or in the flattened tensor."""
    _, index = _extreme(input, dim, "argmax")
    return (index if keepdim else index.reshape(())) if dim is None else _squeezed(index, dim, keepdim)


@numpy_names
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    with tape.no_grad():
        return argmax(_reversed(input), dim, keepdim)


@numpy_names
def any(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is true (not zero)."""
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input.to(bool_), dims)
    out = empty(_result_shape(input.sizes, dims, keepdim), bool_)
    launch(reduction_kernels.any_over, (out, source), (n, r, m))
    return out


@numpy_names
def all(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element is true (not zero)."""
    return any(input.logical_not(), dim, keepdim).logical_not()


# --- softmax family --------------------------------------------------------------------------------------------------


def _logsumexp_rule(g, node):
    x, y = node.saved
    shape = _kept(x.sizes, node.context)
    return g.reshape(shape) * (x - y.reshape(shape)).exp()


@numpy_names
def logsumexp(input: Any, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) without overflow; -inf over no elements."""
    input = as_float(input)
    dims = normal_dims(dim, input.dim())
    source, n, r, m = _blocks(input, dims)
    out = empty(_result_shape(input.sizes, dims, keepdim))
    launch(reduction_kernels.logsumexp_over, (out, source), (n, r, m))
    return attach(out, _logsumexp_rule, (input,), (input, out), context=dims)


def _softmax_like(forward: Any, backward: Any, differentiable: Callable, name: str) -> Callable:
    def rule(g, node):
        (y,), dim = node.saved, node.context
        if modes.grad:
            return differentiable(g, y, dim)
        g, n, r, m = _blocks(g, (dim,) if y.dim() else ())
        out = empty(y.sizes)
        launch(backward, (out, g, y), (n, r, m))
        return out

    rule.__name__ = f"{name}_rule"

    @numpy_names
    def apply(input: Any, dim: int, dtype: Any = None) -> Any:
        input = as_float(input)
        dim = normal_dim(dim, input.dim())
        source, n, r, m = _blocks(input, (dim,) if input.dim() else ())
        out = empty(input.sizes)
        launch(forward, (out, source), (n, r, m))
        return attach(out, rule, (input,), (out,), context=dim)

    apply.__name__ = apply.__qualname__ = name
    return apply


softmax = _softmax_like(
    reduction_kernels.softmax_over,
    reduction_kernels.softmax_backward,
    lambda g, y, dim: y * (g - sum(g * y, dim, keepdim=True)),
    "softmax",
)
log_softmax = _softmax_like(
    reduction_kernels.log_softmax_over,
    reduction_kernels.log_softmax_backward,
    lambda g, y, dim: g - y.exp() * sum(g, dim, keepdim=True),
    "log_softmax",
)
