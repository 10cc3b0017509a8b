"""Functions composed of other operations. Their gradients follow from those of the parts."""

import builtins
import math
from collections.abc import Callable, Sequence
from itertools import combinations as choices
from itertools import combinations_with_replacement
from typing import Literal, NamedTuple, Protocol, overload

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DType, DTypeLike, as_dtype, bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import recorder
from rl_lab.engine.names import numpy_names
from rl_lab.engine.number import real
from rl_lab.engine.ops.arithmetic import copysign, minimum, power, where
from rl_lab.engine.ops.comparison import eq, isnan, logical_not, lt
from rl_lab.engine.ops.creation import arange, as_tensor, evenly_spaced, full, ones, tensor, zeros
from rl_lab.engine.ops.diagonals import diag
from rl_lab.engine.ops.elementwise import digamma, lgamma, tetragamma, trigamma
from rl_lab.engine.ops.gathering import gather, launch_checked, scatter_add, three_parts
from rl_lab.engine.ops.indexing import getitem, nonzero
from rl_lab.engine.ops.layout import cat, clone, reshape, split, stack, transpose, unsqueeze
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.operands import (
    INTEGERS,
    as_float,
    binary,
    broadcast_shape,
    constant,
    normal_dim,
    operand,
    size_argument,
    whole,
)
from rl_lab.engine.ops.rearrange import Cuts, flip, tensor_list, tensor_split
from rl_lab.engine.ops.reduction import amax, amin, mean, norm, sum
from rl_lab.engine.ops.sorting import sort
from rl_lab.engine.tensor import Shape, Tensor
from rl_lab.engine.types import Data, Dims, Gradients, Operand, Scalar
from rl_lab.native.primitive import Primitive

# --- element by element ----------------------------------------------------------------------------------------------


def deg2rad(input: Tensor) -> Tensor:
    """Angles in degrees, converted to radians."""
    return as_float(input) * (math.pi / 180.0)


def rad2deg(input: Tensor) -> Tensor:
    """Angles in radians, converted to degrees."""
    return as_float(input) * (180.0 / math.pi)


def positive(input: Tensor) -> Tensor:
    """The tensor itself. Raises DtypeError for bools."""
    if input.dtype is bool_:
        raise DtypeError("positive does not take bool tensors: convert with .long() first")
    return input


def signbit(input: Tensor) -> Tensor:
    """Whether the sign bit of each element is set, as it is for -0.0."""
    if input.dtype is not float32:
        return lt(whole(input), 0)
    with tape.no_grad():
        return lt(copysign(constant(1.0), input), 0.0)


def isposinf(input: Tensor) -> Tensor:
    """Where input is positive infinity, as a bool tensor."""
    return eq(as_float(input), math.inf)


def isneginf(input: Tensor) -> Tensor:
    """Where input is negative infinity, as a bool tensor."""
    return eq(as_float(input), -math.inf)


def isreal(input: Tensor) -> Tensor:
    """A bool tensor that is True everywhere, because rl_lab has no complex numbers."""
    return ones(input.sizes, dtype=bool_)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """`pow` in float32."""
    base = as_float(input) if isinstance(input, Tensor) else real(input)
    return power(base, as_float(exponent) if isinstance(exponent, Tensor) else real(exponent))


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2^other."""
    return as_float(input) * power(2.0, as_float(other))


def _shift(kernel: Primitive, input: int | Tensor, other: int | Tensor) -> Tensor:
    """A shift of bits by ``kernel``, in int64. Raises DtypeError for float32."""
    a = whole(input) if isinstance(input, Tensor) else constant(input, int64)
    b = whole(other) if isinstance(other, Tensor) else constant(other, int64)
    if a.dtype is float32 or b.dtype is float32:
        raise DtypeError("shifts of bits take integers, got float32: convert with .long() first")
    return binary(kernel, a, b, int64)


def bitwise_left_shift(input: Tensor, other: int | Tensor) -> Tensor:
    """input * 2^other in int64. Raises DtypeError for float32."""
    return _shift(elementwise_kernels.left_shift_int, input, other)


def bitwise_right_shift(input: Tensor, other: int | Tensor) -> Tensor:
    """input / 2^other rounded down, in int64. Raises DtypeError for float32."""
    return _shift(elementwise_kernels.right_shift_int, input, other)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of `digamma`, for n from 0 to 2. Raises ValueError for another n."""
    if not 0 <= n <= 2:
        raise ValueError(f"polygamma is implemented for n from 0 to 2, got {n}")
    return (digamma, trigamma, tetragamma)[n](input)


def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p, of each element."""
    result = constant(p * (p - 1) / 4.0 * math.log(math.pi))
    for j in range(p):
        result = result + lgamma(input - j / 2.0)
    return result


# --- reductions ------------------------------------------------------------------------------------------------------


@numpy_names
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DTypeLike = None) -> Tensor:
    """`sum` of the elements that are not NaN."""
    kept = where(isnan(input), constant(0.0), input) if input.dtype is float32 else input
    return sum(kept, dim, keepdim, dtype=dtype)


@numpy_names
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DTypeLike = None) -> Tensor:
    """`mean` of the elements that are not NaN."""
    count = sum(logical_not(isnan(input)), dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count


class MinMax(NamedTuple):
    """The smallest and the largest values."""

    min: Tensor
    max: Tensor


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(`amin`, `amax`) along ``dim``, or of all elements."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of the difference of two tensors, which broadcast."""
    return norm(input - other, p)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Distances in the p-norm between all rows of (..., n, m) and all rows of (..., k, m), as (..., n, k).

    ``compute_mode`` is accepted and has no effect.
    """
    return norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, -1)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Distances in the p-norm between all pairs of rows of (n, m), each pair once, as a vector of n (n - 1) / 2."""
    pairs = np.array(list(choices(range(input.sizes[0]), 2)), np.int64).reshape(-1, 2)
    first, second = (tensor(column.tolist(), dtype=int64) for column in pairs.T)
    return norm(getitem(input, first) - getitem(input, second), p, -1)


def cov(input: Tensor, *, correction: float = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of (variables, observations), or the variance of a vector of observations.

    ``fweights`` (observations,) counts each observation, ``aweights`` (observations,) weighs it. The divisor is the number of
    observations minus ``correction``.
    """
    x = as_float(input)
    x = reshape(x, (1, -1)) if x.dim() < 2 else x
    weights = None if fweights is None else as_float(fweights)
    if aweights is not None:
        weights = as_float(aweights) if weights is None else weights * aweights
    if weights is None:
        centred = x - mean(x, 1, True)
        result = matmul(centred, transpose(centred, 0, 1)) / max(x.sizes[1] - correction, 0.0)
    else:
        total = sum(weights)
        centred = x - sum(x * weights, 1, True) / total
        lost = correction if aweights is None else correction * sum(weights * aweights) / total
        result = matmul(centred * weights, transpose(centred, 0, 1)) / (total - lost).clamp(min=0.0)
    return reshape(result, ()) if x.sizes[0] == 1 else result


def corrcoef(input: Tensor) -> Tensor:
    """The correlation matrix of (variables, observations)."""
    covariances = cov(input)
    if not covariances.sizes:
        return covariances / covariances
    deviations = diag(covariances).sqrt()
    return (covariances / unsqueeze(deviations, 1) / unsqueeze(deviations, 0)).clamp(-1.0, 1.0)


@numpy_names
def quantile(
    input: Tensor,
    q: float | Sequence[float] | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The quantiles q in [0, 1] along ``dim``, or of all elements. A vector q makes a new first dimension. NaN if an element is NaN.

    ``interpolation`` is "linear", "lower", "higher", "nearest" or "midpoint". Raises ValueError for another interpolation or for a q
    that is not in [0, 1]. Raises IndexError if there are no elements.
    """
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise ValueError(f"interpolation must be linear, lower, higher, nearest or midpoint, got {interpolation!r}")
    fractions = np.atleast_1d(np.asarray(q.tolist() if isinstance(q, Tensor) else q, np.float32)).astype(np.float64)
    if ((fractions < 0) | (fractions > 1)).any():
        raise ValueError(f"quantiles must be in [0, 1], got {fractions.tolist()}")
    place = 0 if dim is None else normal_dim(dim, input.dim())
    if not input.sizes:
        dim = None
    x = reshape(input, -1) if dim is None else input
    ordered = sort(x, place)[0]
    size = ordered.sizes[place]
    if not size:
        raise IndexError(f"quantile() needs at least one element, got shape {list(input.sizes)}")
    missing = isnan(ordered).any(place, True)
    results = []
    followed = q if isinstance(q, Tensor) and q.requires_grad and interpolation == "linear" else None
    for number, fraction in enumerate(fractions):
        rank = float(np.float32(fraction) * np.float32(size - 1))
        below = {"lower": math.floor(rank), "higher": math.ceil(rank), "nearest": round(rank)}.get(
            interpolation, math.floor(rank)
        )
        value = ordered.narrow(place, below, 1)
        if interpolation in ("linear", "midpoint"):
            weight: float | Tensor = rank - below if interpolation == "linear" else 0.5 if rank != below else 0.0
            if followed is not None:
                weight = getitem(reshape(followed, -1), number) * float(size - 1) - float(below)
            value = value.lerp(ordered.narrow(place, min(below + 1, size - 1), 1), weight)
        value = where(missing, constant(math.nan), value)
        if dim is None and keepdim:
            results.append(reshape(value, (1,) * input.dim()))
        else:
            results.append(value if keepdim else value.squeeze(place))
    single = not isinstance(q, (list, tuple)) and not (isinstance(q, Tensor) and q.sizes)
    return results[0] if single else stack(results, 0)


@numpy_names
def nanquantile(
    input: Tensor,
    q: float | Sequence[float] | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """`quantile` of the elements that are not NaN; NaN where all are NaN."""
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise ValueError(f"interpolation must be linear, lower, higher, nearest or midpoint, got {interpolation!r}")
    fractions = np.atleast_1d(np.asarray(q.tolist() if isinstance(q, Tensor) else q, np.float32))
    if ((fractions < 0) | (fractions > 1)).any():
        raise ValueError(f"quantiles must be in [0, 1], got {fractions.tolist()}")
    place = 0 if dim is None else normal_dim(dim, input.dim())
    if not input.sizes:
        dim = None
    x = reshape(input, -1) if dim is None else input
    if not x.sizes[place]:
        raise IndexError(f"nanquantile() needs at least one element, got shape {list(input.sizes)}")
    ordered = sort(x, place)[0]  # NaN is behind all numbers
    last = (sum(logical_not(isnan(ordered)), place, True) - 1).clamp(min=0)
    results = []
    followed = q if isinstance(q, Tensor) and q.requires_grad and interpolation == "linear" else None
    for number, fraction in enumerate(fractions):
        rank = last.float() * (float(fraction) if followed is None else getitem(reshape(followed, -1), number))
        if interpolation == "nearest":
            rank = rank.round()
        low = (rank.ceil() if interpolation == "higher" else rank.floor()).long()
        value = gather(ordered, place, low)
        if interpolation in ("linear", "midpoint"):
            weight = rank - low.float()
            weight = weight if interpolation == "linear" else (weight > 0.0).float() * 0.5
            value = value.lerp(gather(ordered, place, minimum(low + 1, last)), weight)
        if dim is None and keepdim:
            results.append(reshape(value, (1,) * input.dim()))
        else:
            results.append(value if keepdim else value.squeeze(place))
    single = not isinstance(q, (list, tuple)) and not (isinstance(q, Tensor) and q.sizes)
    return results[0] if single else stack(results, 0)


@numpy_names
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """A copy of input in which ``src`` is combined with the elements at the positions that `gather` would read with this index.

    ``reduce`` is "sum", "mean", "amax" or "amin", the last three for float32. Without ``include_self`` the old elements at these
    positions do not count. Equal extremes share the gradient. Raises ValueError for another ``reduce``, IndexError if an index is out of
    bounds, DtypeError or ShapeError for unsuitable arguments.
    """
    if reduce not in ("sum", "mean", "amax", "amin"):
        raise ValueError(f"scatter_reduce: reduce must be 'sum', 'mean', 'amax' or 'amin', got {reduce!r}")
    if reduce != "sum" and input.dtype is not float32:
        raise DtypeError(f"scatter_reduce with {reduce!r} takes float32, got {input.dtype.name}: convert with .float() first")
    dim = normal_dim(dim, input.dim())
    for d, size in enumerate(index.sizes):
        if d < src.dim() and src.sizes[d] > size:
            src = src.narrow(d, 0, size)
    with tape.no_grad():
        ones_there = ones(index.sizes)
        touched = scatter_add(zeros(input.sizes), dim, index, ones_there)
    own = input
    if not include_self:
        start = {"amax": -math.inf, "amin": math.inf}.get(reduce, 0)
        own = where(touched > 0.0, operand(start, input).to(input.dtype), input)
    if reduce in ("sum", "mean"):
        total = scatter_add(own, dim, index, src)
        return total if reduce == "sum" else total / (touched + float(include_self)).clamp(min=1.0)
    part = own
    for d, size in enumerate(index.sizes):  # only these positions can change
        part = part if d == dim else part.narrow(d, 0, size)
    with tape.no_grad():
        out = clone(part.contiguous())
        n, r, m = three_parts(out, dim)
        operands = (out, src.contiguous(), index.contiguous())
        sign = 1 if reduce == "amax" else -1
        launch_checked(indexing_kernels.scatter_extreme, operands, (n, r, m, index.sizes[dim] if index.sizes else 1, sign))
    found = tape.attach(out, _scatter_extreme_rule, (part, src), (part, src, index, out), dim)
    if part.sizes == own.sizes:
        return found
    whole_result = clone(own)
    place = whole_result
    for d, size in enumerate(index.sizes):
        place = place if d == dim else place.narrow(d, 0, size)
    place.copy_(found)
    return whole_result


def _scatter_extreme_rule(g: Tensor, node: tape.Node) -> Gradients:
    """Elements equal to the extreme share its gradient, as in PyTorch."""
    own, src, index, out = node.saved
    dim = node.context
    with tape.no_grad():
        own_counts = eq(own, out).float()
        src_counts = eq(src, gather(out, dim, index)).float()
        count = scatter_add(own_counts, dim, index, src_counts)
    share = g / count
    return share * own_counts, gather(share, dim, index) * src_counts


# --- joining, dividing, repeating ------------------------------------------------------------------------------------


class _AtLeast(Protocol):
    @overload
    def __call__(self, tensor: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, *tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...


def _at_least(name: str, shape: Callable[[Shape], Shape], text: str) -> _AtLeast:
    def apply(*tensors: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        results = [reshape(x, shape(x.sizes)) for x in tensor_list(tensors)]
        return results[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else tuple(results)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The tensors with at least {text} A single tensor gives a tensor, several give a tuple."
    return apply  # type: ignore[return-value]


atleast_1d = _at_least("atleast_1d", lambda s: s or (1,), "one dimension: scalars become vectors.")
atleast_2d = _at_least("atleast_2d", lambda s: s if len(s) > 1 else (1, *(s or (1,))), "two dimensions: vectors become rows.")
atleast_3d = _at_least(
    "atleast_3d",
    lambda s: s if len(s) > 2 else (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1),
    "three dimensions: vectors (n,) become (1, n, 1), matrices (n, m) become (n, m, 1).",
)


def block_diag(*tensors: Tensor | Sequence[Tensor]) -> Tensor:
    """The matrix with these matrices on its diagonal and zeros elsewhere. Vectors count as rows, scalars as (1, 1)."""
    blocks = [atleast_2d(x) for x in tensor_list(tensors)]
    width = builtins.sum([x.sizes[1] for x in blocks])
    rows = []
    start = 0
    for x in blocks:
        height, own = x.sizes
        left = zeros((height, start), dtype=x.dtype)
        right = zeros((height, width - start - own), dtype=x.dtype)
        rows.append(cat([left, x, right], 1))
        start += own
    return cat(rows, 0)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the second dimension. Vectors and scalars count as columns."""
    return cat([reshape(x, (-1, 1)) if x.dim() < 2 else x for x in tensors], 1)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the third dimension, see `atleast_3d`."""
    return cat([atleast_3d(x) for x in tensors], 2)


def hsplit(
    input: Tensor, indices_or_sections: Cuts | None = None, *, indices: Sequence[int] | None = None, sections: int | None = None
) -> tuple[Tensor, ...]:
    """`tensor_split` along the second dimension, or along the only one of a vector.

    Raises ShapeError for a scalar, or if a number of parts does not divide the size.
    """
    return _equal_split("hsplit", input, _one_of(indices_or_sections, indices, sections), 0 if input.dim() == 1 else 1)


def vsplit(
    input: Tensor, indices_or_sections: Cuts | None = None, *, indices: Sequence[int] | None = None, sections: int | None = None
) -> tuple[Tensor, ...]:
    """`tensor_split` along the first dimension. Raises ShapeError for a scalar, or if a number of parts does not divide the size."""
    return _equal_split("vsplit", input, _one_of(indices_or_sections, indices, sections), 0)


def dsplit(
    input: Tensor, indices_or_sections: Cuts | None = None, *, indices: Sequence[int] | None = None, sections: int | None = None
) -> tuple[Tensor, ...]:
    """`tensor_split` along the third dimension.

    Raises ShapeError for fewer dimensions, or if a number of parts does not divide the size.
    """
    return _equal_split("dsplit", input, _one_of(indices_or_sections, indices, sections), 2)


def _one_of(*values: Cuts | None) -> Cuts:
    """The first value that is not None."""
    return next(value for value in values if value is not None)


def _equal_split(name: str, x: Tensor, sections: Cuts, dim: int) -> tuple[Tensor, ...]:
    """`tensor_split` along ``dim``. Raises ShapeError if there is no such dimension or a number of parts does not divide its size."""
    if x.dim() <= dim:
        raise ShapeError(f"{name} needs at least {dim + 1} dimensions, got shape {list(x.sizes)}")
    if isinstance(sections, INTEGERS) and x.sizes[dim] % sections:
        raise ShapeError(f"{name}: dimension {dim} of size {x.sizes[dim]} cannot be divided into {sections} equal parts")
    return tensor_split(x, sections, dim)


@numpy_names
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into parts of the sizes listed. Raises ShapeError if they do not add up to the size of ``dim``."""
    return split(input, list(split_sizes), dim)


def cartesian_prod(*tensors: Tensor | Sequence[Tensor]) -> Tensor:
    """The Cartesian product of vectors: all combinations of one element of each, one row each. A single vector is returned as it is."""
    vectors = tensor_list(tensors)
    if len(vectors) == 1:
        return vectors[0]
    grid = np.indices([len(v) for v in vectors]).reshape(len(vectors), -1)
    return stack([getitem(v, tensor(row.tolist(), dtype=int64)) for v, row in zip(vectors, grid, strict=True)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of r elements of a vector, in order, one row each."""
    pick = combinations_with_replacement if with_replacement else choices
    places = np.array(list(pick(range(len(input)), r)), np.int64).reshape(-1, r)
    return getitem(input, tensor(places.tolist(), dtype=int64).reshape(-1, r))


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: ``other`` multiplied by each element of ``input``, as one tensor."""
    rank = max(input.dim(), other.dim())
    a = (1,) * (rank - input.dim()) + input.sizes
    b = (1,) * (rank - other.dim()) + other.sizes
    left = reshape(input, [size for one in a for size in (one, 1)])
    right = reshape(other, [size for one in b for size in (1, one)])
    return reshape(left * right, [x * y for x, y in zip(a, b, strict=True)])


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The same as `dot`, because rl_lab has no complex numbers."""
    return matmul(input, other)


def chain_matmul(*matrices: Tensor | Sequence[Tensor]) -> Tensor:
    """The product of several matrices, multiplied from left to right."""
    result, *rest = tensor_list(matrices)
    for matrix in rest:
        result = matmul(result, matrix)
    return result


@numpy_names
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along ``dim``, by default the first dimension of size 3. Raises ShapeError if the size is not 3."""
    if dim is None:
        found = [d for d, size in enumerate(input.sizes) if size == 3]
        if not found:
            raise ShapeError(f"cross needs a dimension of size 3, got shape {list(input.sizes)}")
        dim = found[0]
    dim = normal_dim(dim, input.dim())
    if input.sizes[dim] != 3 or other.sizes[dim] != 3:
        raise ShapeError(f"cross needs size 3 along dimension {dim}, got {list(input.sizes)} and {list(other.sizes)}")
    a = [input.narrow(dim, k, 1) for k in range(3)]
    b = [other.narrow(dim, k, 1) for k in range(3)]
    return cat([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]], dim)


def fliplr(input: Tensor) -> Tensor:
    """The elements in reverse order along the second dimension. Raises ShapeError for fewer than two dimensions."""
    if input.dim() < 2:
        raise ShapeError(f"fliplr needs at least 2 dimensions, got shape {list(input.sizes)}")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """The elements in reverse order along the first dimension. Raises ShapeError for a scalar."""
    if not input.dim():
        raise ShapeError("flipud needs at least 1 dimension, got a scalar")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """input rotated k times by 90 degrees, from the first of ``dims`` towards the second. Raises ShapeError if these are equal."""
    first, second = [normal_dim(d, input.dim()) for d in dims]
    if first == second:
        raise ShapeError(f"rot90 needs two different dimensions, got {list(dims)}")
    if k % 4 == 0:
        return clone(input)
    if k % 4 == 2:
        return flip(input, first, second)
    return transpose(flip(input, second), first, second) if k % 4 == 1 else flip(transpose(input, first, second), second)


def msort(input: Tensor) -> Tensor:
    """The values sorted along the first dimension."""
    return sort(input, 0)[0]


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements of input on its diagonal and zeros elsewhere."""
    return diag(reshape(input, -1), offset)


# --- numbers on a line -----------------------------------------------------------------------------------------------


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: DTypeLike = None, device: DeviceLike = None
) -> Tensor:
    """The vector of ``steps`` powers of ``base`` whose exponents are evenly spaced from ``start`` to ``end``, both included."""
    kind = as_dtype(dtype or float32)
    base = base.item() if isinstance(base, Tensor) else base
    with np.errstate(all="ignore"):
        return tensor(np.float64(base) ** evenly_spaced(start, end, steps, kind), dtype=kind, device=device)


@numpy_names
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral of y along ``dim`` by the trapezoidal rule. The sample points are x, a vector or of y's shape, or ``dx`` apart."""
    return sum(_trapezoids(y, x, dx, dim), dim)


@numpy_names
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The running integral of y along ``dim`` by the trapezoidal rule, see `trapezoid`."""
    return _trapezoids(y, x, dx, dim).cumsum(dim)


def _trapezoids(y: Tensor, x: Tensor | None, dx: float, dim: int) -> Tensor:
    """The areas between neighbouring sample points."""
    dim = normal_dim(dim, y.dim())
    size = y.sizes[dim]
    heights = (y.narrow(dim, 1, size - 1) + y.narrow(dim, 0, size - 1)) / 2.0
    if x is None:
        return heights * dx
    if x.dim() == 1:
        x = reshape(x, [-1 if d == dim else 1 for d in range(y.dim())])
    return heights * (x.narrow(dim, 1, size - 1) - x.narrow(dim, 0, size - 1))


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix: the powers of a vector's elements as N columns, from the highest to 0, or ``increasing``."""
    count = len(x) if N is None else N
    exponents = arange(count) if increasing else arange(count - 1, -1, -1) if count else arange(0)
    return unsqueeze(x, 1) ** (exponents if x.dtype is not float32 else as_float(exponents))


def searchsorted(
    sorted_sequence: Tensor,
    input: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The positions at which to insert the numbers of ``input`` into the sorted last dimension so that it remains sorted.

    The position is before equal elements, or behind them with ``right`` or ``side`` "right". ``sorter`` is the `argsort` of an unsorted
    sequence. ``out_int32`` is accepted: the result is int64. The sequence is a vector, or its shape differs from that of ``input`` in the
    last dimension only. Raises ShapeError for other shapes, ValueError for another ``side`` or one that contradicts ``right``.
    """
    if side not in (None, "left", "right") or (right and side == "left"):
        raise ValueError(f"side must be 'right', or 'left' with right=False, got side={side!r} and right={right}")
    if sorter is not None:
        if sorter.sizes != sorted_sequence.sizes:
            raise ShapeError(
                f"searchsorted: the sorter must have the sequence's shape {list(sorted_sequence.sizes)}, got {list(sorter.sizes)}"
            )
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    after = right or side == "right"
    values = input if isinstance(input, Tensor) else operand(input, sorted_sequence)
    if sorted_sequence.dim() != 1 and (not values.sizes or sorted_sequence.sizes[:-1] != values.sizes[:-1]):
        raise ShapeError(
            "searchsorted takes a vector, or a sequence whose shape differs from that of the input in the last dimension only, got "
            f"shapes {list(sorted_sequence.sizes)} and {list(values.sizes)}"
        )
    given = values if values.sizes else reshape(values, (1,))
    edges = unsqueeze(sorted_sequence, -2)
    with tape.no_grad():
        below = edges <= unsqueeze(given, -1) if after else edges < unsqueeze(given, -1)
        if given.dtype is float32:  # NaN counts as the largest number
            below = below.logical_or(isnan(unsqueeze(given, -1)).logical_and(logical_not(isnan(edges))))
        count = sum(below, -1)
    return count if values.sizes else reshape(count, ())


def bucketize(input: Operand, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The index of the interval between ``boundaries``, a sorted vector, that holds each number. See `searchsorted`.

    Raises ShapeError if ``boundaries`` is not a vector.
    """
    if boundaries.dim() != 1:
        raise ShapeError(f"bucketize: boundaries must be a vector, got shape {list(boundaries.sizes)}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


# --- places ----------------------------------------------------------------------------------------------------------


def argwhere(input: Tensor) -> Tensor:
    """The positions of elements that are not zero, int64 (count, dimensions)."""
    return nonzero(input)


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions in the flattened tensor, in the shape of the index. Raises IndexError if an index is out of bounds."""
    return getitem(reshape(input, -1), index)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of input in which the masked elements are replaced, in order, by the elements of ``source``.

    Input and mask broadcast. Raises ShapeError if the source has fewer elements than are masked.
    """
    shape = broadcast_shape(input.sizes, mask.sizes)
    input, mask = input.expand(shape), mask.expand(shape)
    with tape.no_grad():
        order = mask.reshape(-1).to(int64).cumsum(0) - 1  # the position in the source, where the mask is true
        needed = int(order[-1]) + 1 if order.sizes[0] else 0
    if needed > source.numel():
        raise ShapeError(f"masked_scatter: the mask selects {needed} elements, but the source has only {source.numel()}")
    if not source.numel():
        return clone(input)
    with tape.no_grad():
        places = order.clamp(0, source.numel() - 1)
    return where(mask, reshape(getitem(reshape(source, -1), places), input.sizes), input)


@numpy_names
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of input with ``src`` at one position along ``dim``."""
    out = clone(input)
    out.select(dim, index).copy_(src)
    return out


@numpy_names
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of input with ``src`` at the slice start:end:step along ``dim``."""
    out = clone(input)
    out[(slice(None),) * normal_dim(dim, input.dim()) + (slice(start, end, step),)] = src
    return out


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of input with ``src`` on a diagonal, see `diagonal`."""
    out = clone(input)
    out.diagonal(offset, dim1, dim2).copy_(src)
    return out


@numpy_names
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """input with each slice along ``dim`` whose p-norm is larger than ``maxnorm`` scaled down to ``maxnorm``."""
    dim = normal_dim(dim, input.dim())
    norms = norm(input, p, [d for d in range(input.dim()) if d != dim], True)
    return input * where(norms > maxnorm, maxnorm / (norms + 1e-7), constant(1.0))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike = None, device: DeviceLike = None) -> Tensor:
    """The row and column indices of the lower triangle of a matrix (row, col), int64 (2, count).

    Raises ShapeError if ``row`` or ``col`` is negative.
    """
    size_argument((row, col))
    return tensor(np.stack(np.tril_indices(row, offset, col)).astype(np.int64), dtype=dtype, device=device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike = None, device: DeviceLike = None) -> Tensor:
    """The row and column indices of the upper triangle of a matrix (row, col), int64 (2, count).

    Raises ShapeError if ``row`` or ``col`` is negative.
    """
    size_argument((row, col))
    return tensor(np.stack(np.triu_indices(row, offset, col)).astype(np.int64), dtype=dtype, device=device)


def unravel_index(indices: Tensor, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Positions in a flattened tensor of ``shape`` as positions along each of its dimensions."""
    sizes = [shape] if isinstance(shape, INTEGERS) else list(shape)
    parts = []
    step = 1
    for size in reversed(sizes):
        parts.append(indices // step % size)
        step *= size
    return tuple(reversed(parts))


# --- counting: shapes that depend on the data ------------------------------------------------------------------------


def _values(x: Tensor, what: str) -> np.ndarray:
    """The values as an array. Ends a recording, because the shape of the result depends on the values."""
    if (recording := recorder()) is not None:
        recording.give_up(f"the shape of {what} depends on the data")
    return x.detach()._array()


@overload
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: Literal[False] = False,
    return_counts: Literal[False] = False,
    dim: int | None = None,
) -> Tensor: ...
@overload
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]: ...
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]:
    """The distinct elements, or distinct slices along ``dim``, in order.

    With ``return_inverse`` or ``return_counts`` a tuple: also the position of each element among the distinct ones, and the number of
    times that each one occurs. Ends a recording, because the shape depends on the data.
    """
    values, inverse, counts = np.unique(_values(input, "unique"), return_inverse=True, return_counts=True, axis=dim)
    inverse = inverse.reshape(input.sizes if dim is None else (-1,)).astype(np.int64)
    return _with_extras(tensor(values), inverse, counts, return_inverse, return_counts)


@overload
def unique_consecutive(
    input: Tensor,
    return_inverse: Literal[False] = False,
    return_counts: Literal[False] = False,
    dim: int | None = None,
) -> Tensor: ...
@overload
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]: ...
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]:
    """`unique`, but only consecutive repetitions are dropped, and the order stays."""
    array = _values(input, "unique_consecutive")
    parts = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    rows = parts.reshape(len(parts), parts.size // max(len(parts), 1))
    first = np.ones(len(parts), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(1)
    inverse = np.cumsum(first) - 1
    counts = np.diff(np.append(np.flatnonzero(first), len(parts)))
    kept = parts[first] if dim is None else np.moveaxis(parts[first], 0, dim)
    inverse = inverse.reshape(input.sizes) if dim is None else inverse
    return _with_extras(tensor(np.ascontiguousarray(kept)), inverse, counts, return_inverse, return_counts)


def _with_extras(
    values: Tensor, inverse: np.ndarray, counts: np.ndarray, with_inverse: bool, with_counts: bool
) -> Tensor | tuple[Tensor, ...]:
    """The values alone, or a tuple with the extras that are asked for."""
    extras = [tensor(inverse.astype(np.int64))] if with_inverse else []
    extras += [tensor(counts.astype(np.int64))] if with_counts else []
    return (values, *extras) if extras else values


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """The number of times that each integer from 0 to the largest occurs in a vector, or the sum of the weights of its occurrences.

    The result has at least ``minlength`` elements. Raises ValueError if input is not a vector of integers that are not negative.
    """
    array = _values(input, "bincount")
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise ValueError(
            "bincount takes a vector of integers that are not negative, got "
            f"{input.dtype.name} of shape {list(input.sizes)} with the smallest element {array.min() if array.size else None}"
        )
    length = max(int(array.max()) + 1 if array.size else 0, minlength)
    if weights is None:
        return tensor(np.bincount(array, minlength=length).astype(np.int64))
    with tape.no_grad():
        return scatter_add(zeros(length), 0, input.to(int64), as_float(weights))


def histc(input: Tensor, bins: int = 100, min: float = 0.0, max: float = 0.0) -> Tensor:
    """The number of elements in each of ``bins`` equal intervals from ``min`` to ``max``, as a float32 vector.

    If both are 0, the intervals span the elements. Raises ValueError if the bounds are not finite or not in order.
    """
    array = _values(as_float(input), "histc").reshape(-1)
    low, high = (float(array.min()), float(array.max())) if min == max == 0 and array.size else (min, max)
    if low == high:
        low -= 1.0
        high += 1.0
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"histc needs finite bounds with min below max, got min={low} and max={high}")
    return tensor(np.histogram(array[(array >= low) & (array <= high)], bins, (low, high))[0].astype(np.float32))


def isin(elements: Data, test_elements: Data, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Where an element is one of ``test_elements``, or with ``invert`` is none of them, as a bool tensor.

    ``assume_unique`` is accepted and has no effect.
    """
    a = elements if isinstance(elements, Tensor) else as_tensor(elements)
    b = reshape(test_elements if isinstance(test_elements, Tensor) else as_tensor(test_elements), -1)
    found = eq(unsqueeze(a, -1), b).any(-1) if b.sizes[0] else zeros(a.sizes, dtype=bool_)
    return logical_not(found) if invert else found


# --- dtypes ----------------------------------------------------------------------------------------------------------


def promote_types(type1: DTypeLike, type2: DTypeLike) -> DType:
    """The dtype of arithmetic between two dtypes. Raises DtypeError for a dtype that does not exist here."""
    a = as_dtype(type1)
    b = as_dtype(type2)
    return a if a.rank > b.rank else b


def result_type(tensor: Operand, other: Operand) -> DType:
    """The dtype of arithmetic between two tensors or numbers."""
    near = next((x for x in (tensor, other) if isinstance(x, Tensor)), constant(0.0))
    return promote_types(*[x.dtype if isinstance(x, Tensor) else operand(x, near).dtype for x in (tensor, other)])


def can_cast(from_: DTypeLike, to: DTypeLike) -> bool:
    """Whether a dtype can be converted to another without becoming a lower kind; the kinds are bool, integer and float."""
    order = {bool_: 0, float32: 2}
    return order.get(as_dtype(from_), 1) <= order.get(as_dtype(to), 1)


def scalar_tensor(
    s: Scalar | Tensor, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor without dimensions, float32 by default."""
    return full((), s, dtype=dtype or float32, device=device, requires_grad=requires_grad)


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero. Raises ShapeError unless there is exactly one element."""
    return bool(input)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape."""
    return input.sizes == other.sizes


def is_signed(input: Tensor) -> bool:
    """Whether the dtype can hold negative numbers."""
    return input.dtype.is_signed
