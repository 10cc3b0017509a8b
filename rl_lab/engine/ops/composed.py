"""Functions made of others, whose gradients follow from theirs."""

import math
from collections.abc import Sequence
from itertools import combinations as choices
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, as_dtype, bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.launch import recorder
from rl_lab.engine.names import numpy_names
from rl_lab.engine.number import real
from rl_lab.engine.ops.arithmetic import copysign, power, where
from rl_lab.engine.ops.comparison import eq, isnan, logical_not, lt
from rl_lab.engine.ops.creation import arange, as_tensor, evenly_spaced, full, ones, tensor, zeros
from rl_lab.engine.ops.diagonals import diag
from rl_lab.engine.ops.elementwise import digamma, lgamma, tetragamma, trigamma
from rl_lab.engine.ops.gathering import scatter_add
from rl_lab.engine.ops.indexing import getitem, nonzero
from rl_lab.engine.ops.layout import cat, clone, reshape, split, stack, transpose, unsqueeze
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.operands import INTEGERS, as_float, binary, broadcast_shape, constant, normal_dim, operand, whole
from rl_lab.engine.ops.rearrange import flip, tensor_split
from rl_lab.engine.ops.reduction import amax, amin, mean, norm, sum
from rl_lab.engine.ops.sorting import sort
from rl_lab.engine.tensor import Tensor, TensorCore

# --- element by element ----------------------------------------------------------------------------------------------


def deg2rad(input: Any) -> Tensor:
    """Degrees in radians."""
    return as_float(input) * (math.pi / 180.0)


def rad2deg(input: Any) -> Tensor:
    """Radians in degrees."""
    return as_float(input) * (180.0 / math.pi)


def positive(input: Any) -> Tensor:
    """The tensor itself. Raises DtypeError for bools."""
    if input.dtype is bool_:
        raise DtypeError("positive does not take bools: use int()")
    return input


def signbit(input: Any) -> Tensor:
    """Whether the sign bit is set: also of -0.0."""
    if input.dtype is not float32:
        return lt(whole(input), 0)
    with tape.no_grad():
        return lt(copysign(constant(1.0), input), 0.0)


def isposinf(input: Any) -> Tensor:
    """Where a number is positive infinity."""
    return eq(as_float(input), math.inf)


def isneginf(input: Any) -> Tensor:
    """Where a number is negative infinity."""
    return eq(as_float(input), -math.inf)


def isreal(input: Any) -> Tensor:
    """True everywhere: there are no complex numbers."""
    return ones(input.sizes, dtype=bool_)


def float_power(input: Any, exponent: Any) -> Tensor:
    """`pow` in float32."""
    base = as_float(input) if isinstance(input, TensorCore) else real(input)
    return power(base, as_float(exponent) if isinstance(exponent, TensorCore) else real(exponent))


def ldexp(input: Any, other: Any) -> Tensor:
    """input * 2^other."""
    return as_float(input) * power(2.0, as_float(other))


def _shift(kernel: Any, input: Any, other: Any) -> Tensor:
    a = whole(input) if isinstance(input, TensorCore) else constant(input, int64)
    b = whole(other) if isinstance(other, TensorCore) else constant(other, int64)
    if a.dtype is float32 or b.dtype is float32:
        raise DtypeError("shifts of bits take integers, got float32")
    return binary(kernel, a, b, int64)


def bitwise_left_shift(input: Any, other: Any) -> Tensor:
    """input * 2^other in int64."""
    return _shift(elementwise_kernels.left_shift_int, input, other)


def bitwise_right_shift(input: Any, other: Any) -> Tensor:
    """input / 2^other rounded down, in int64."""
    return _shift(elementwise_kernels.right_shift_int, input, other)


def polygamma(n: int, input: Any) -> Tensor:
    """The n-th derivative of `digamma`, for n up to 2. Raises ValueError for another n."""
    if not 0 <= n <= 2:
        raise ValueError(f"polygamma is there for n from 0 to 2, got {n}")
    return (digamma, trigamma, tetragamma)[n](input)


def mvlgamma(input: Any, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    result = constant(p * (p - 1) / 4.0 * math.log(math.pi))
    for j in range(p):
        result = result + lgamma(input - j / 2.0)
    return result


# --- reductions ------------------------------------------------------------------------------------------------------


@numpy_names
def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`sum` in which NaN counts as 0."""
    kept = where(isnan(input), constant(0.0), input) if input.dtype is float32 else input
    return sum(kept, dim, keepdim, dtype=dtype)


@numpy_names
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`mean` of the numbers that are not NaN."""
    count = sum(logical_not(isnan(input)), dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count


class MinMax(tuple):
    """The smallest and the largest values."""

    __slots__ = ()

    @property
    def min(self) -> Tensor:
        return self[0]

    @property
    def max(self) -> Tensor:
        return self[1]


@numpy_names
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(smallest, largest) along ``dim``, or of all elements."""
    return MinMax((amin(input, dim, keepdim), amax(input, dim, keepdim)))


def dist(input: Any, other: Any, p: float = 2.0) -> Tensor:
    """The p-norm of the difference of two tensors that broadcast."""
    return norm(input - other, p)


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norms of the differences of all pairs of rows of (..., n, m) and (..., k, m), as (..., n, k)."""
    return norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, -1)


def pdist(input: Any, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of all pairs of rows of (n, m), each pair once."""
    pairs = np.array(list(choices(range(input.sizes[0]), 2)), np.int64).reshape(-1, 2)
    first, second = (tensor(column.tolist(), dtype=int64) for column in pairs.T)
    return norm(getitem(input, first) - getitem(input, second), p, -1)


def cov(input: Any, *, correction: float = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """Covariances of the rows of (variables, observations), which may be counted or weighted."""
    x = as_float(input)
    x = reshape(x, (1, -1)) if x.dim() < 2 else x
    weights: Any = None if fweights is None else as_float(fweights)
    if aweights is not None:
        weights = as_float(aweights) if weights is None else weights * aweights
    if weights is None:
        centred = x - mean(x, 1, True)
        result = matmul(centred, transpose(centred, 0, 1)) / max(x.sizes[1] - correction, 0.0)
    else:
        total = sum(weights)
        centred = x - sum(x * weights, 1, True) / total
        lost: Any = correction if aweights is None else correction * sum(weights * aweights) / total
        result = matmul(centred * weights, transpose(centred, 0, 1)) / (total - lost).clamp(min=0.0)
    return reshape(result, ()) if x.sizes[0] == 1 else result


def corrcoef(input: Any) -> Tensor:
    """Correlations of the rows of (variables, observations)."""
    covariances = cov(input)
    if not covariances.sizes:
        return covariances / covariances
    deviations = diag(covariances).sqrt()
    return (covariances / unsqueeze(deviations, 1) / unsqueeze(deviations, 0)).clamp(-1.0, 1.0)


@numpy_names
def quantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
    """Quantiles q, a number or a vector in [0, 1], along ``dim`` or of all; NaN if there is one.

    ``interpolation`` is "linear", "lower", "higher", "nearest" or "midpoint". Raises ValueError for another one, or for q outside [0, 1].
    """
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise ValueError(f"interpolation must be linear, lower, higher, nearest or midpoint, got {interpolation!r}")
    fractions = np.atleast_1d(np.asarray(q.tolist() if isinstance(q, TensorCore) else q, np.float32)).astype(np.float64)  # type: ignore[attr-defined]
    if ((fractions < 0) | (fractions > 1)).any():
        raise ValueError(f"quantiles must be in [0, 1], got {fractions.tolist()}")
    place = 0 if dim is None else normal_dim(dim, input.dim())
    if not input.sizes:
        dim = None
    x = reshape(input, -1) if dim is None else input
    ordered = sort(x, place)[0]
    size = ordered.sizes[place]
    if not size:
        raise IndexError("quantile() needs at least one element")
    missing = isnan(ordered).any(place, True)  # type: ignore[attr-defined]
    results = []
    followed = isinstance(q, TensorCore) and q.requires_grad and interpolation == "linear"
    for number, fraction in enumerate(fractions):
        rank = float(np.float32(fraction) * np.float32(size - 1))
        below = {"lower": math.floor(rank), "higher": math.ceil(rank), "nearest": round(rank)}.get(
            interpolation, math.floor(rank)
        )
        value = ordered.narrow(place, below, 1)
        if interpolation in ("linear", "midpoint"):
            weight: Any = rank - below if interpolation == "linear" else 0.5 if rank != below else 0.0
            if followed:
                weight = getitem(reshape(q, -1), number) * float(size - 1) - float(below)
            value = value.lerp(ordered.narrow(place, min(below + 1, size - 1), 1), weight)
        value = where(missing, constant(math.nan), value)
        if dim is None and keepdim:
            results.append(reshape(value, (1,) * input.dim()))
        else:
            results.append(value if keepdim else value.squeeze(place))
    single = not isinstance(q, (list, tuple)) and not (isinstance(q, TensorCore) and q.sizes)
    return results[0] if single else stack(results, 0)


# --- joining, dividing, repeating ------------------------------------------------------------------------------------


def _listed(tensors: tuple[Any, ...]) -> list[Any]:
    return list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)


def _at_least(rank: int, tensors: tuple[Any, ...]) -> Any:
    shapes = {1: lambda s: s or (1,), 2: lambda s: s if len(s) > 1 else (1, *s) if s else (1, 1)}
    shapes[3] = lambda s: s if len(s) > 2 else (*s, 1) if len(s) == 2 else (1, *s, 1) if s else (1, 1, 1)
    results = [reshape(x, shapes[rank](x.sizes)) for x in _listed(tensors)]
    return results[0] if len(tensors) == 1 and isinstance(tensors[0], TensorCore) else tuple(results)


def atleast_1d(*tensors: Any) -> Any:
    """Tensors with at least one dimension."""
    return _at_least(1, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with at least two dimensions: vectors become rows."""
    return _at_least(2, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with at least three dimensions."""
    return _at_least(3, tensors)


def block_diag(*tensors: Any) -> Tensor:
    """A matrix with these matrices, vectors (as rows) or numbers on its diagonal and zeros elsewhere."""
    blocks = [atleast_2d(x) for x in _listed(tensors)]
    width = builtin_sum([x.sizes[1] for x in blocks])
    rows, start = [], 0
    for x in blocks:
        height, own = x.sizes
        left = zeros((height, start), dtype=x.dtype)
        right = zeros((height, width - start - own), dtype=x.dtype)
        rows.append(cat([left, x, right], 1))
        start += own
    return cat(rows, 0)


def builtin_sum(numbers: Sequence[int]) -> int:
    total = 0
    for number in numbers:
        total += number
    return total


def column_stack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the second dimension; vectors and numbers as columns."""
    return cat([reshape(x, (-1, 1)) if x.dim() < 2 else x for x in tensors], 1)


def dstack(tensors: Sequence[Any]) -> Tensor:
    """Joined along the third dimension."""
    return cat([atleast_3d(x) for x in tensors], 2)


def hsplit(input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None) -> tuple[Tensor, ...]:
    """`tensor_split` along the second dimension, of vectors along their only one."""
    return _equal_split("hsplit", input, _one_of(indices_or_sections, indices, sections), 0 if input.dim() == 1 else 1)


def vsplit(input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None) -> tuple[Tensor, ...]:
    """`tensor_split` along the first dimension."""
    return _equal_split("vsplit", input, _one_of(indices_or_sections, indices, sections), 0)


def dsplit(input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None) -> tuple[Tensor, ...]:
    """`tensor_split` along the third dimension."""
    return _equal_split("dsplit", input, _one_of(indices_or_sections, indices, sections), 2)


def _one_of(*values: Any) -> Any:
    """The value that is given."""
    return next(value for value in values if value is not None)


def _equal_split(name: str, x: Any, sections: Any, dim: int) -> tuple[Tensor, ...]:
    if x.dim() <= dim:
        raise ShapeError(f"{name} needs at least {dim + 1} dimensions, got shape {list(x.sizes)}")
    if isinstance(sections, INTEGERS) and x.sizes[dim] % sections:
        raise ShapeError(f"{name}: {x.sizes[dim]} places cannot be divided into {sections} equal parts")
    return tensor_split(x, sections, dim)


@numpy_names
def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into parts of the sizes listed."""
    return split(input, list(split_sizes), dim)


def cartesian_prod(*tensors: Any) -> Tensor:
    """All combinations of one element of each vector, one row each; a single vector as it is."""
    vectors = _listed(tensors)
    if len(vectors) == 1:
        return vectors[0]
    grid = np.indices([len(v) for v in vectors]).reshape(len(vectors), -1)
    return stack([getitem(v, tensor(row.tolist(), dtype=int64)) for v, row in zip(vectors, grid, strict=True)], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of r elements of a vector in order, one row each."""
    pick = combinations_with_replacement if with_replacement else choices
    places = np.array(list(pick(range(len(input)), r)), np.int64).reshape(-1, r)
    return getitem(input, tensor(places.tolist(), dtype=int64).reshape(-1, r))  # type: ignore[attr-defined]


def kron(input: Any, other: Any) -> Tensor:
    """Kronecker's product: ``other`` scaled by each element of ``input``."""
    rank = max(input.dim(), other.dim())
    a = (1,) * (rank - input.dim()) + input.sizes
    b = (1,) * (rank - other.dim()) + other.sizes
    left = reshape(input, [size for one in a for size in (one, 1)])
    right = reshape(other, [size for one in b for size in (1, one)])
    return reshape(left * right, [x * y for x, y in zip(a, b, strict=True)])


def vdot(input: Any, other: Any) -> Tensor:
    """`dot` of two vectors."""
    return matmul(input, other)


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices, from the left."""
    result, *rest = _listed(matrices)
    for matrix in rest:
        result = matmul(result, matrix)
    return result


@numpy_names
def cross(input: Any, other: Any, dim: int | None = None) -> Tensor:
    """The vector product along ``dim``, by default the first dimension of size 3."""
    if dim is None:
        found = [d for d, size in enumerate(input.sizes) if size == 3]
        if not found:
            raise ShapeError(f"cross needs a dimension of size 3, got shape {list(input.sizes)}")
        dim = found[0]
    dim = normal_dim(dim, input.dim())
    if input.sizes[dim] != 3 or other.sizes[dim] != 3:
        raise ShapeError(f"cross needs size 3 along dimension {dim}, got {list(input.sizes)} and {list(other.sizes)}")
    a, b = [[x.narrow(dim, k, 1) for k in range(3)] for x in (input, other)]
    return cat([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]], dim)


def fliplr(input: Any) -> Tensor:
    """Columns in reverse order. Raises ShapeError for fewer than two dimensions."""
    if input.dim() < 2:
        raise ShapeError(f"fliplr needs at least 2 dimensions, got shape {list(input.sizes)}")
    return flip(input, 1)


def flipud(input: Any) -> Tensor:
    """Rows in reverse order. Raises ShapeError for a number."""
    if not input.dim():
        raise ShapeError("flipud needs at least 1 dimension")
    return flip(input, 0)


def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned k times by 90 degrees from the first of ``dims`` towards the second."""
    first, second = [normal_dim(d, input.dim()) for d in dims]
    if first == second:
        raise ShapeError(f"rot90 needs two different dimensions, got {list(dims)}")
    if k % 4 == 0:
        return clone(input)
    if k % 4 == 2:
        return flip(input, first, second)
    return transpose(flip(input, second), first, second) if k % 4 == 1 else flip(transpose(input, first, second), second)


def msort(input: Any) -> Tensor:
    """Sorted along the first dimension."""
    return sort(input, 0)[0]


def diagflat(input: Any, offset: int = 0) -> Tensor:
    """A matrix with all elements on its diagonal."""
    return diag(reshape(input, -1), offset)


# --- numbers on a line -----------------------------------------------------------------------------------------------


def logspace(start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``steps`` powers of ``base`` whose exponents are evenly spaced from start to end."""
    kind = as_dtype(dtype or float32)
    base = base.item() if isinstance(base, TensorCore) else base  # type: ignore[attr-defined]
    with np.errstate(all="ignore"):
        return tensor(np.float64(base) ** evenly_spaced(start, end, steps, kind), dtype=kind, device=device)


@numpy_names
def trapezoid(y: Any, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral of y along ``dim`` by trapezoids, at the places x, or ``dx`` apart."""
    return sum(_trapezoids(y, x, dx, dim), dim)


@numpy_names
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The running integral of y along ``dim`` by trapezoids."""
    return _trapezoids(y, x, dx, dim).cumsum(dim)  # type: ignore[attr-defined]


def _trapezoids(y: Any, x: Any, dx: float, dim: int) -> Tensor:
    dim = normal_dim(dim, y.dim())
    size = y.sizes[dim]
    heights = (y.narrow(dim, 1, size - 1) + y.narrow(dim, 0, size - 1)) / 2.0
    if x is None:
        return heights * dx
    if x.dim() == 1:
        x = reshape(x, [-1 if d == dim else 1 for d in range(y.dim())])
    return heights * (x.narrow(dim, 1, size - 1) - x.narrow(dim, 0, size - 1))


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector's elements as columns, from the highest down unless ``increasing``."""
    count = len(x) if N is None else N
    exponents = arange(count) if increasing else arange(count - 1, -1, -1) if count else arange(0)
    return unsqueeze(x, 1) ** (exponents if x.dtype is not float32 else as_float(exponents))


def searchsorted(
    sorted_sequence: Any,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Tensor:
    """Where to insert each number of ``input`` into the sorted last dimension so that it stays in order.

    Before equal numbers, or behind them with ``right`` or ``side`` "right". ``out_int32`` is accepted: the result is int64.
    """
    if sorter is not None:
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    after = right or side == "right"
    values = input if isinstance(input, TensorCore) else operand(input, sorted_sequence)
    given = values if values.sizes else reshape(values, (1,))
    edges = unsqueeze(sorted_sequence, -2)
    with tape.no_grad():
        below = edges <= unsqueeze(given, -1) if after else edges < unsqueeze(given, -1)
        # NaN sorts behind everything
        below = (
            below.logical_or(isnan(unsqueeze(given, -1)).logical_and(logical_not(isnan(edges))))
            if given.dtype is float32
            else below
        )
        count = sum(below, -1)
    return count if values.sizes else reshape(count, ())


def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the interval between ``boundaries`` (a sorted vector) in which each number lies; see `searchsorted`."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


# --- places ----------------------------------------------------------------------------------------------------------


def argwhere(input: Any) -> Tensor:
    """The positions of elements that are not zero, one row each."""
    return nonzero(input)


def take(input: Any, index: Any) -> Tensor:
    """The elements at places in the flattened tensor, in the shape of the index."""
    return getitem(reshape(input, -1), index)


def masked_scatter(input: Any, mask: Any, source: Any) -> Tensor:
    """``input`` with the elements of ``source``, one after the other, where the mask is true. Raises ShapeError if there are too few."""
    shape = broadcast_shape(input.sizes, mask.sizes)
    input, mask = input.expand(shape), mask.expand(shape)
    with tape.no_grad():
        order = sum_before = mask.reshape(-1).to(int64).cumsum(0) - 1
        needed = int(sum_before[-1]) + 1 if sum_before.sizes[0] else 0
    if needed > source.numel():
        raise ShapeError(f"masked_scatter: {needed} elements are masked, the source has {source.numel()}")
    if not source.numel():
        return clone(input)
    with tape.no_grad():
        places = order.clamp(0, source.numel() - 1)
    return where(mask, reshape(getitem(reshape(source, -1), places), input.sizes), input)


@numpy_names
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Tensor:
    """A copy of ``input`` with ``src`` at one place along ``dim``."""
    out = clone(input)
    out.select(dim, index).copy_(src)  # type: ignore[attr-defined]
    return out


@numpy_names
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of ``input`` with ``src`` at a slice along ``dim``."""
    out: Any = clone(input)
    out[(slice(None),) * normal_dim(dim, input.dim()) + (slice(start, end, step),)] = src
    return out


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of ``input`` with ``src`` on a diagonal."""
    out = clone(input)
    out.diagonal(offset, dim1, dim2).copy_(src)  # type: ignore[attr-defined]
    return out


@numpy_names
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each part along ``dim`` scaled down to the p-norm ``maxnorm`` if its norm is larger."""
    dim = normal_dim(dim, input.dim())
    norms = norm(input, p, [d for d in range(input.dim()) if d != dim], True)
    return input * where(norms > maxnorm, maxnorm / (norms + 1e-7), constant(1.0))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Rows and columns of the lower triangle of a matrix, int64 (2, count)."""
    return tensor(np.stack(np.tril_indices(row, offset, col)).astype(np.int64), dtype=dtype, device=device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Rows and columns of the upper triangle of a matrix, int64 (2, count)."""
    return tensor(np.stack(np.triu_indices(row, offset, col)).astype(np.int64), dtype=dtype, device=device)


def unravel_index(indices: Any, shape: Any) -> tuple[Tensor, ...]:
    """Places in a flattened tensor as places along each dimension of ``shape``."""
    sizes = [shape] if isinstance(shape, INTEGERS) else list(shape)
    parts, step = [], 1
    for size in reversed(sizes):
        parts.append(indices // step % size)
        step *= size
    return tuple(reversed(parts))


# --- counting: shapes that depend on the data ------------------------------------------------------------------------


def _values(x: Any, what: str) -> np.ndarray:
    """The values in NumPy. A recording ends here: the shape of the result depends on them."""
    if (recording := recorder()) is not None:
        recording.give_up(f"the shape of {what} depends on the data")
    return x.detach()._array()


def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The different values, or parts along ``dim``, in order; with the place of each element among them, and how often each occurs."""
    values, inverse, counts = np.unique(_values(input, "unique"), return_inverse=True, return_counts=True, axis=dim)
    inverse = inverse.reshape(input.sizes if dim is None else (-1,)).astype(np.int64)
    return _with_extras(tensor(values), inverse, counts, return_inverse, return_counts)


def unique_consecutive(input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    """`unique` that only drops repetitions of the element, or part along ``dim``, before."""
    array = _values(input, "unique_consecutive")
    parts = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    rows = parts.reshape(len(parts), -1)
    first = np.ones(len(parts), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(1)
    inverse = np.cumsum(first) - 1
    counts = np.diff(np.append(np.flatnonzero(first), len(parts)))
    kept = parts[first] if dim is None else np.moveaxis(parts[first], 0, dim)
    inverse = inverse.reshape(input.sizes) if dim is None else inverse
    return _with_extras(tensor(np.ascontiguousarray(kept)), inverse, counts, return_inverse, return_counts)


def _with_extras(values: Tensor, inverse: np.ndarray, counts: np.ndarray, with_inverse: bool, with_counts: bool) -> Any:
    extras = [tensor(inverse.astype(np.int64))] if with_inverse else []
    extras += [tensor(counts.astype(np.int64))] if with_counts else []
    return (values, *extras) if extras else values


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 to the largest occurs in a vector of integers, or the sums of their weights."""
    array = _values(input, "bincount")
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise ValueError(
            f"bincount takes a vector of integers that are not negative, got {input.dtype.name} of shape {list(input.sizes)}"
        )
    length = max(int(array.max()) + 1 if array.size else 0, minlength)
    if weights is None:
        return tensor(np.bincount(array, minlength=length).astype(np.int64))
    with tape.no_grad():
        return scatter_add(zeros(length), 0, input.to(int64), as_float(weights))


def histc(input: Any, bins: int = 100, min: float = 0.0, max: float = 0.0) -> Tensor:
    """How many numbers lie in each of ``bins`` intervals from min to max (of the numbers, if both are 0), in float32."""
    array = _values(as_float(input), "histc").reshape(-1)
    low, high = (float(array.min()), float(array.max())) if min == max == 0 and array.size else (min, max)
    if low == high:
        low, high = low - 1.0, high + 1.0
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"histc needs finite min below max, got {low} and {high}")
    return tensor(np.histogram(array[(array >= low) & (array <= high)], bins, (low, high))[0].astype(np.float32))


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Where an element is one of ``test_elements``."""
    a = elements if isinstance(elements, TensorCore) else as_tensor(elements)
    b = reshape(test_elements if isinstance(test_elements, TensorCore) else as_tensor(test_elements), -1)
    found = eq(unsqueeze(a, -1), b).any(-1) if b.sizes[0] else zeros(a.sizes, dtype=bool_)  # type: ignore[attr-defined]
    return logical_not(found) if invert else found


# --- dtypes ----------------------------------------------------------------------------------------------------------


def promote_types(type1: Any, type2: Any) -> DType:
    """The dtype of arithmetic between two dtypes."""
    a, b = as_dtype(type1), as_dtype(type2)
    return a if a.rank > b.rank else b


def result_type(tensor: Any, other: Any) -> DType:
    """The dtype of arithmetic between two tensors or numbers."""
    near = next((x for x in (tensor, other) if isinstance(x, TensorCore)), constant(0.0))
    return promote_types(*[x.dtype if isinstance(x, TensorCore) else operand(x, near).dtype for x in (tensor, other)])


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a dtype may become another without losing its kind: bool, integer, float in this order."""
    order = {bool_: 0, float32: 2}
    return order.get(as_dtype(from_), 1) <= order.get(as_dtype(to), 1)


def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor without dimensions, float32 unless told otherwise."""
    return full((), s, dtype=dtype or float32, device=device, requires_grad=requires_grad)


def is_nonzero(input: Any) -> bool:
    """Whether the only element is not zero. Raises ShapeError for several elements."""
    return bool(input)


def is_same_size(input: Any, other: Any) -> bool:
    """Whether two tensors have the same shape."""
    return input.sizes == other.sizes


def is_signed(input: Any) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype.is_signed
