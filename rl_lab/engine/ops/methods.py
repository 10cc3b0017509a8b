"""The methods and operators of a tensor, hung on it in this one place. The functions behind them are the families'."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_lab.engine.device import CPU, check_device, device
from rl_lab.engine.dtype import DType, NamedDType, as_dtype, bfloat16, bool_, float16, float32, int8, int16, int32, int64, uint8
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.operations import hang
from rl_lab.engine.ops import composed
from rl_lab.engine.ops.arithmetic import (
    add,
    addcdiv,
    addcmul,
    atan2,
    clamp,
    clamp_max,
    clamp_min,
    copysign,
    div,
    floor_divide,
    fmax,
    fmin,
    fmod,
    heaviside,
    hypot,
    lerp,
    logaddexp,
    logaddexp2,
    logit,
    masked_fill,
    maximum,
    minimum,
    mul,
    nan_to_num,
    power,
    prelu,
    remainder,
    sub,
    where,
    xlogy,
)
from rl_lab.engine.ops.comparison import (
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    equal,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from rl_lab.engine.ops.conversion import check_limits, clone, convert
from rl_lab.engine.ops.creation import FloatTensor, empty, full, ones, tensor, zeros
from rl_lab.engine.ops.diagonals import diag, diag_embed, diagonal, trace, tril, triu
from rl_lab.engine.ops.elementwise import (
    Unary,
    absolute,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    cos,
    cosh,
    digamma,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    frac,
    hardshrink,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    neg,
    reciprocal,
    relu,
    round,
    rsqrt,
    sech,
    sigmoid,
    sign,
    sin,
    sinc,
    sinh,
    sqrt,
    square,
    tan,
    tanh,
    trunc,
)
from rl_lab.engine.ops.gathering import gather, index_add, index_select, scatter, scatter_add, take_along_dim
from rl_lab.engine.ops.in_place import write_in_place
from rl_lab.engine.ops.indexing import getitem, index_copy, index_fill, index_put, index_put_, masked_select, nonzero, setitem
from rl_lab.engine.ops.layout import (
    chunk,
    contiguous,
    copy_,
    embed,
    expand,
    flatten,
    narrow,
    permute,
    reshape,
    select,
    split,
    squeeze,
    swapaxes,
    transpose,
    unbind,
    unsqueeze,
    view_as_shape,
)
from rl_lab.engine.ops.matmul import addmm, addmv, addr, baddbmm, bmm, dot, inner, matmul, mm, mv, outer
from rl_lab.engine.ops.operands import check_range, operand
from rl_lab.engine.ops.rearrange import (
    broadcast_to,
    diff,
    flip,
    movedim,
    ravel,
    repeat,
    repeat_interleave,
    roll,
    tensor_split,
    tile,
    unflatten,
    unfold,
)
from rl_lab.engine.ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumprod,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    std,
    sum,
    sum_to_size,
    var,
)
from rl_lab.engine.ops.running import cummax, cummin, logcumsumexp
from rl_lab.engine.ops.sorting import argsort, kthvalue, median, sort, topk
from rl_lab.engine.tensor import Tensor, TensorCore
from rl_lab.native.primitive import Primitive


def _in_place(function: Any, kernel: Primitive | None = None) -> Any:
    def method(self: Any, *operands: Any, **options: Any) -> Tensor:
        direct = None if options or self.dtype is not float32 else kernel
        given = (*operands, *options.values()) if options else operands
        return write_in_place(self, lambda x: function(x, *operands, **options), direct, given)

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"`{function.__name__}`, written into this tensor."
    method.__wrapped__ = function  # type: ignore[attr-defined]  # for its signature
    return method


def _method(function: Unary) -> Any:
    """A `Unary` as a method: an object that is called is not bound to the tensor as a function would be."""

    def method(self: Any) -> Tensor:
        return function(self)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


def _matrices(x: Any, name: str, only: bool = False) -> Tensor:
    """``x`` with its last two dimensions swapped, a scalar as it is.

    Raises ShapeError for a vector and, with ``only``, for all but matrices.
    """
    if x.dim() == 0:
        return x
    if x.dim() == 1 or (only and x.dim() != 2):
        raise ShapeError(f"tensor.{name} takes {'a matrix' if only else 'matrices'}, not a tensor of {x.dim()} dimensions")
    return x.transpose(-2, -1)


class ConversionMethods:
    """The methods of Tensor that change dtype or device."""

    @property
    def device(self: Any) -> "device":
        """The cpu."""
        return CPU

    is_cuda = False

    def to(
        self: Any,
        *targets: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: bool = False,
        copy: bool = False,
        other: Any = None,
        memory_format: Any = None,
    ) -> Tensor:
        """This tensor in another dtype, or in that of ``other``. A device is accepted if it is the cpu, else DeviceError."""
        if other is not None:
            dtype = other.dtype
        for target in targets:
            if isinstance(target, TensorCore):
                dtype = target.dtype
            elif isinstance(target, (DType, NamedDType)) or target in (float, int, bool):
                dtype = target
            else:
                check_device(target)
        check_device(device)
        result: Any = self
        if dtype is not None:
            result = convert(self, as_dtype(dtype))
            if isinstance(dtype, NamedDType):
                check_limits(result, dtype)
        return clone(result) if copy and result is self else result

    def type_as(self: Any, other: Any) -> Tensor:
        return convert(self, other.dtype)

    def float(self: Any) -> Tensor:
        return convert(self, float32)

    def double(self: Any) -> Tensor:
        """float32: the lab has no float64."""
        return convert(self, float32)

    def long(self: Any) -> Tensor:
        return convert(self, int64)

    def byte(self: Any) -> Tensor:
        """uint8: the lowest eight bits of each number's integer part."""
        return convert(self, uint8)

    def int(self: Any) -> Tensor:
        """int64, which stands for int32. OverflowError for numbers outside of int32."""
        return self.to(int32)

    def short(self: Any) -> Tensor:
        """int64, which stands for int16. OverflowError for numbers outside of int16."""
        return self.to(int16)

    def char(self: Any) -> Tensor:
        """int64, which stands for int8. OverflowError for numbers outside of int8."""
        return self.to(int8)

    def half(self: Any) -> Tensor:
        """DtypeError: float32 is the only float."""
        return self.to(float16)

    def bfloat16(self: Any) -> Tensor:
        """DtypeError: float32 is the only float."""
        return self.to(bfloat16)

    def bool(self: Any) -> Tensor:
        return convert(self, bool_)

    def cpu(self: Any) -> Tensor:
        return self

    pin_memory = cpu

    def share_memory_(self: Any) -> Tensor:
        """StateError: processes do not share the memory of a tensor."""
        raise StateError(
            "processes cannot share the memory of a tensor here: share_memory_() is not supported; "
            "send tensors through a queue or a pipe, which copies them"
        )

    def cuda(self: Any, *arguments: Any, **options: Any) -> Tensor:
        """DeviceError: there is no such device."""
        return self.to("cuda")

    def type(self: Any, dtype: Any = None) -> Any:
        """The name of the legacy tensor type, or this tensor as one of them or in a dtype."""
        if dtype is None:
            return {
                float32: "rl_lab.FloatTensor",
                int64: "rl_lab.LongTensor",
                uint8: "rl_lab.ByteTensor",
                bool_: "rl_lab.BoolTensor",
            }[self.dtype]
        return self.to(getattr(dtype, "dtype", dtype))


class CreationMethods:
    """The methods of Tensor that make new tensors in its likeness."""

    def new_tensor(self: Any, data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    def new_empty(self: Any, *sizes: Any, size: Any = None, dtype: Any = None, **settings: Any) -> Tensor:
        return empty(*sizes, size=size, dtype=dtype or self.dtype, **settings)

    def new_zeros(self: Any, *sizes: Any, size: Any = None, dtype: Any = None, **settings: Any) -> Tensor:
        return zeros(*sizes, size=size, dtype=dtype or self.dtype, **settings)

    def new_ones(self: Any, *sizes: Any, size: Any = None, dtype: Any = None, **settings: Any) -> Tensor:
        return ones(*sizes, size=size, dtype=dtype or self.dtype, **settings)

    def new_full(self: Any, size: Any, fill_value: Any, dtype: Any = None, **settings: Any) -> Tensor:
        return full(size, fill_value, dtype=dtype or self.dtype, **settings)


class LayoutMethods:
    """The methods of Tensor that change shape or layout."""

    clone, contiguous, reshape, permute, transpose, expand = clone, contiguous, reshape, permute, transpose, expand
    swapaxes, swapdims = swapaxes, transpose
    view = view_as_shape
    squeeze, unsqueeze, flatten, narrow = squeeze, unsqueeze, flatten, narrow
    select, unbind, chunk = select, unbind, chunk
    _embed = embed

    def copy_(self: Any, src: Any, non_blocking: bool = False) -> Tensor:
        """Write ``src``, broadcast and converted, into this tensor."""
        return copy_(self, src)

    def split(self: Any, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Views of ``split_size`` places each along ``dim`` (the last may be smaller), or of the sizes listed."""
        return split(self, split_size, dim)

    def view_as(self: Any, other: Any) -> Tensor:
        return view_as_shape(self, other.sizes)

    def reshape_as(self: Any, other: Any) -> Tensor:
        return reshape(self, other.sizes)

    def expand_as(self: Any, other: Any) -> Tensor:
        return expand(self, other.sizes)

    def t(self: Any) -> Tensor:
        """A matrix transposed; vectors as they are."""
        if len(self.sizes) > 2:
            raise ShapeError(f"t() takes at most 2 dimensions, got shape {list(self.sizes)}")
        return transpose(self, 0, 1) if len(self.sizes) == 2 else self

    @property
    def T(self: Any) -> Tensor:
        if len(self.sizes) == 2:
            return transpose(self, 0, 1)
        return permute(self, tuple(range(len(self.sizes) - 1, -1, -1)))

    @property
    def mT(self: Any) -> Tensor:
        """The last two dimensions exchanged."""
        return _matrices(self, "mT")


class ElementwiseMethods:
    """The methods and operators of Tensor that work element by element."""

    lgamma, digamma = map(_method, (lgamma, digamma))
    neg, sign, exp, expm1, log, log1p, log2 = map(_method, (neg, sign, exp, expm1, log, log1p, log2))
    sqrt, rsqrt, square, reciprocal, sin, cos = map(_method, (sqrt, rsqrt, square, reciprocal, sin, cos))
    tan, asin, acos, atan, sinh, cosh, sech = map(_method, (tan, asin, acos, atan, sinh, cosh, sech))
    tanh, sigmoid, relu, erf = map(_method, (tanh, sigmoid, relu, erf))
    floor, ceil, round, trunc, frac = _method(floor), _method(ceil), round, _method(trunc), frac
    abs = absolute = __abs__ = _method(absolute)
    fix, negative, arcsin, arccos, arctan = trunc, neg, asin, acos, atan
    __neg__ = _method(neg)
    add, sub, mul, div, pow = add, sub, mul, div, power
    subtract, multiply, divide, true_divide = sub, mul, div, div
    atan2, fmod, heaviside, logaddexp, xlogy = atan2, fmod, heaviside, logaddexp, xlogy
    addcmul, addcdiv, nan_to_num, masked_fill = addcmul, addcdiv, nan_to_num, masked_fill
    maximum, minimum, remainder, floor_divide, lerp = maximum, minimum, remainder, floor_divide, lerp
    clamp = clip = clamp
    hypot, logit, exp2, log10 = hypot, logit, _method(exp2), _method(log10)
    isclose, allclose, equal = isclose, allclose, equal
    bitwise_and, bitwise_or, bitwise_xor, bitwise_not = bitwise_and, bitwise_or, bitwise_xor, bitwise_not
    eq, ne, lt, le, gt, ge = eq, ne, lt, le, gt, ge
    logical_and, logical_or, logical_xor, logical_not = logical_and, logical_or, logical_xor, logical_not
    isnan, isinf, isfinite = isnan, isinf, isfinite

    def where(self: Any, condition: Any, other: Any) -> Tensor:
        """This tensor where the condition holds, ``other`` elsewhere."""
        return where(condition, self, other)

    def __add__(self: Any, other: Any) -> Tensor:
        return add(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __radd__(self: Any, other: Any) -> Tensor:
        return add(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __sub__(self: Any, other: Any) -> Tensor:
        return sub(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rsub__(self: Any, other: Any) -> Tensor:
        return sub(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __mul__(self: Any, other: Any) -> Tensor:
        return mul(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rmul__(self: Any, other: Any) -> Tensor:
        return mul(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __truediv__(self: Any, other: Any) -> Tensor:
        return div(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __rtruediv__(self: Any, other: Any) -> Tensor:
        return div(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    def __floordiv__(self: Any, other: Any) -> Tensor:
        return floor_divide(self, other)

    def __rfloordiv__(self: Any, other: Any) -> Tensor:
        return floor_divide(other, self)

    def __mod__(self: Any, other: Any) -> Tensor:
        return remainder(self, other)

    def __rmod__(self: Any, other: Any) -> Tensor:
        return remainder(other, self)

    def __pow__(self: Any, other: Any) -> Tensor:
        return power(self, other)

    def __rpow__(self: Any, other: Any) -> Tensor:
        return power(other, self)

    def __eq__(self: Any, other: object) -> Any:
        return eq(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ne__(self: Any, other: object) -> Any:
        return ne(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    __lt__, __le__, __gt__, __ge__ = lt, le, gt, ge
    __and__, __or__, __xor__, __invert__ = bitwise_and, bitwise_or, bitwise_xor, bitwise_not

    add_ = __iadd__ = _in_place(add, elementwise_kernels.add_into)
    sub_ = __isub__ = _in_place(sub, elementwise_kernels.sub_into)
    mul_ = __imul__ = _in_place(mul, elementwise_kernels.mul_into)
    div_ = __itruediv__ = _in_place(div, elementwise_kernels.div_into)
    multiply_, divide_, subtract_ = mul_, div_, sub_
    pow_, lerp_, clamp_, remainder_, fmod_, atan2_ = map(_in_place, (power, lerp, clamp, remainder, fmod, atan2))
    __ipow__, __imod__, __ifloordiv__ = pow_, remainder_, _in_place(floor_divide)
    floor_divide_, addcmul_, addcdiv_, nan_to_num_ = map(_in_place, (floor_divide, addcmul, addcdiv, nan_to_num))
    neg_, abs_, sign_, exp_, expm1_, log_, log1p_, log2_ = map(_in_place, (neg, absolute, sign, exp, expm1, log, log1p, log2))
    sqrt_, rsqrt_, square_, reciprocal_, sin_, cos_ = map(_in_place, (sqrt, rsqrt, square, reciprocal, sin, cos))
    tan_, asin_, acos_, atan_, sinh_, cosh_ = map(_in_place, (tan, asin, acos, atan, sinh, cosh))
    tanh_, sigmoid_, relu_, erf_ = map(_in_place, (tanh, sigmoid, relu, erf))
    floor_, ceil_, round_, trunc_, frac_ = map(_in_place, (floor, ceil, round, trunc, frac))
    clip_ = clamp_

    clamp_min, clamp_max = clamp_min, clamp_max

    def clamp_min_(self: Any, min: Any) -> Tensor:
        return self.clamp_(min=min)

    def clamp_max_(self: Any, max: Any) -> Tensor:
        return self.clamp_(max=max)

    def fill_(self: Any, value: float) -> Tensor:
        """Every element becomes ``value``."""
        if self.dtype is uint8 and not isinstance(value, TensorCore):
            check_range(value, uint8)
        return copy_(self, operand(value, self), overlap=True)

    def zero_(self: Any) -> Tensor:
        return self.fill_(0.0 if self.dtype is float32 else 0)

    def masked_fill_(self: Any, mask: Any, value: float) -> Tensor:
        return write_in_place(self, lambda x: x.masked_fill(mask, value))


class ReductionMethods:
    """The methods of Tensor that reduce dimensions."""

    sum, mean, sum_to_size, var, std, norm, prod, cumsum = sum, mean, sum_to_size, var, std, norm, prod, cumsum
    max, min, amax, amin, argmax, argmin, any, all = max, min, amax, amin, argmax, argmin, any, all
    logsumexp, cumprod, count_nonzero = logsumexp, cumprod, count_nonzero
    cummax, cummin, logcumsumexp = cummax, cummin, logcumsumexp

    softmax, log_softmax = softmax, log_softmax


class MatmulMethods:
    """The methods of Tensor that multiply matrices."""

    matmul, mm, bmm, mv, dot, outer, inner = matmul, mm, bmm, mv, dot, outer, inner
    addmm, addmv, baddbmm, addr = addmm, addmv, baddbmm, addr

    def __matmul__(self: Any, other: Any) -> Tensor:
        return matmul(self, other)


class IndexingMethods:
    """The methods of Tensor that read and write at positions."""

    gather, scatter_add, index_select, masked_select = gather, scatter_add, index_select, masked_select
    scatter, take_along_dim, index_add, index_fill, index_copy = scatter, take_along_dim, index_add, index_fill, index_copy
    index_put, index_put_, nonzero = index_put, index_put_, nonzero
    __getitem__, __setitem__ = getitem, setitem

    def __iter__(self: Any):
        if not self.sizes:
            raise TypeError("iteration over a 0-d tensor")
        return iter([select(self, 0, i) for i in range(len(self))])

    def scatter_add_(self: Any, dim: int, index: Any, src: Any) -> Tensor:
        return write_in_place(self, lambda x: scatter_add(x, dim, index, src), None, (src,))

    def scatter_(self: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
        source = value if src is None else src
        return write_in_place(self, lambda x: scatter(x, dim, index, source, reduce=reduce), None, (source,))

    def index_add_(self: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
        return write_in_place(self, lambda x: index_add(x, dim, index, source, alpha=alpha), None, (source,))

    def index_fill_(self: Any, dim: int, index: Any, value: Any) -> Tensor:
        return write_in_place(self, lambda x: index_fill(x, dim, index, value))

    def index_copy_(self: Any, dim: int, index: Any, source: Any) -> Tensor:
        return write_in_place(self, lambda x: index_copy(x, dim, index, source), None, (source,))


class RearrangeMethods:
    """The methods of Tensor that arrange elements."""

    repeat, tile, repeat_interleave, flip, roll, movedim = repeat, tile, repeat_interleave, flip, roll, movedim
    moveaxis, unflatten, unfold, tensor_split = movedim, unflatten, unfold, tensor_split
    diagonal, diag, diag_embed, tril, triu, trace = diagonal, diag, diag_embed, tril, triu, trace
    broadcast_to, diff, ravel = broadcast_to, diff, ravel


class SortingMethods:
    """The methods of Tensor that put elements in order."""

    sort, argsort, topk, kthvalue, median = sort, argsort, topk, kthvalue, median


class ComposedMethods:
    """The methods of Tensor that are made of others."""

    aminmax = composed.aminmax
    argwhere = composed.argwhere
    bincount = composed.bincount
    bitwise_left_shift = composed.bitwise_left_shift
    bitwise_right_shift = composed.bitwise_right_shift
    corrcoef = composed.corrcoef
    cov = composed.cov
    cross = composed.cross
    deg2rad = composed.deg2rad
    diagflat = composed.diagflat
    diagonal_scatter = composed.diagonal_scatter
    dist = composed.dist
    dsplit = composed.dsplit
    fliplr = composed.fliplr
    flipud = composed.flipud
    float_power = composed.float_power
    histc = composed.histc
    hsplit = composed.hsplit
    is_nonzero = composed.is_nonzero
    is_same_size = composed.is_same_size
    is_signed = composed.is_signed
    isneginf = composed.isneginf
    isposinf = composed.isposinf
    isreal = composed.isreal
    kron = composed.kron
    ldexp = composed.ldexp
    masked_scatter = composed.masked_scatter
    msort = composed.msort
    mvlgamma = composed.mvlgamma
    nanmean = composed.nanmean
    nansum = composed.nansum
    positive = composed.positive
    quantile = composed.quantile
    rad2deg = composed.rad2deg
    renorm = composed.renorm
    rot90 = composed.rot90
    select_scatter = composed.select_scatter
    signbit = composed.signbit
    slice_scatter = composed.slice_scatter
    split_with_sizes = composed.split_with_sizes
    take = composed.take
    unique = composed.unique
    unique_consecutive = composed.unique_consecutive
    vdot = composed.vdot
    vsplit = composed.vsplit
    __lshift__, __rshift__ = composed.bitwise_left_shift, composed.bitwise_right_shift

    def polygamma(self: Any, n: int) -> Tensor:
        """The n-th derivative of `digamma`."""
        return composed.polygamma(n, self)


_INVERSES = (acosh, asinh, atanh, sinc, erfc, erfinv)


class OtherForms:
    """Second names of methods, methods that write their result into the tensor, and facts about its memory."""

    acosh, asinh, atanh, sinc, erfc, erfinv = map(_method, (acosh, asinh, atanh, sinc, erfc, erfinv))
    arccosh, arcsinh, arctanh, arctan2, sgn, ger = acosh, asinh, atanh, atan2, _method(sign), outer
    copysign, fmax, fmin, logaddexp2, prelu, hardshrink = copysign, fmax, fmin, logaddexp2, prelu, hardshrink
    greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne

    acosh_, asinh_, atanh_, sinc_, erfc_, erfinv_ = map(_in_place, _INVERSES)
    arccosh_, arcsinh_, arctanh_, arccos_, arcsin_, arctan_ = acosh_, asinh_, atanh_, *map(_in_place, (acos, asin, atan))
    exp2_, log10_, lgamma_, digamma_, sgn_, negative_ = map(_in_place, (exp2, log10, lgamma, digamma, sign, neg))
    absolute_, fix_, logit_, tril_, triu_ = map(_in_place, (absolute, trunc, logit, tril, triu))
    arctan2_, copysign_, hypot_, heaviside_, xlogy_ = map(_in_place, (atan2, copysign, hypot, heaviside, xlogy))
    true_divide_, cumsum_, cumprod_ = map(_in_place, (div, cumsum, cumprod))
    addmm_, addmv_, addr_, baddbmm_ = map(_in_place, (addmm, addmv, addr, baddbmm))
    bitwise_and_, bitwise_or_, bitwise_xor_, bitwise_not_ = map(_in_place, (bitwise_and, bitwise_or, bitwise_xor, bitwise_not))
    logical_and_, logical_or_, logical_xor_, logical_not_ = map(_in_place, (logical_and, logical_or, logical_xor, logical_not))
    eq_, ne_, lt_, le_, gt_, ge_ = map(_in_place, (eq, ne, lt, le, gt, ge))
    greater_, greater_equal_, less_, less_equal_, not_equal_ = gt_, ge_, lt_, le_, ne_
    deg2rad_, rad2deg_, float_power_, ldexp_, renorm_, masked_scatter_ = map(
        _in_place,
        (composed.deg2rad, composed.rad2deg, composed.float_power, composed.ldexp, composed.renorm, composed.masked_scatter),
    )
    bitwise_left_shift_, bitwise_right_shift_ = map(_in_place, (composed.bitwise_left_shift, composed.bitwise_right_shift))

    is_cpu, is_meta, is_sparse, is_quantized = True, False, False, False

    @property
    def itemsize(self: Any) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self: Any) -> int:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    @property
    def H(self: Any) -> Tensor:
        """A matrix transposed: there are no complex numbers. Raises ShapeError for another tensor, unless it is a scalar."""
        return _matrices(self, "H", only=True)

    @property
    def mH(self: Any) -> Tensor:
        """The last two dimensions exchanged."""
        return _matrices(self, "mH")

    @property
    def retains_grad(self: Any) -> bool:
        """Whether `retain_grad` was called."""
        return self.node is not None and self.node.retained is not None

    def ndimension(self: Any) -> int:
        """Number of dimensions."""
        return len(self.sizes)

    def get_device(self: Any) -> int:
        """-1, the number of the cpu."""
        return -1

    def is_pinned(self: Any) -> bool:
        """Always False: there is no GPU to copy to."""
        return False

    def is_shared(self: Any) -> bool:
        """Always False: processes do not share memory."""
        return False

    def fill_diagonal_(self: Any, fill_value: float, wrap: bool = False) -> Tensor:
        """Every element of the diagonal of a matrix becomes ``fill_value``."""
        if wrap:
            raise ValueError("fill_diagonal_ has no wrap here")
        diagonal(self).fill_(fill_value)  # type: ignore[attr-defined]
        return self


_OPERANDS = (TensorCore, int, float, np.number, np.bool_, np.ndarray)


class OtherNames:
    """What `Tensor` itself does when it is called."""

    def __new__(cls, *data: Any) -> Tensor:  # type: ignore[misc]
        return FloatTensor(*data)


for _family in (
    ConversionMethods,
    CreationMethods,
    LayoutMethods,
    ElementwiseMethods,
    ReductionMethods,
    MatmulMethods,
    IndexingMethods,
    RearrangeMethods,
    SortingMethods,
    ComposedMethods,
    OtherForms,
    OtherNames,
):
    hang(_family)
