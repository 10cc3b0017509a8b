"""The methods and operators of tensors, set on the class in this one place. The functions behind them belong to the families."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rl_lab.engine.device import CPU, DeviceLike, check_device
from rl_lab.engine.device import device as Device
from rl_lab.engine.dtype import (
    DType,
    DTypeLike,
    NamedDType,
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.launch import changes, recorder
from rl_lab.engine.operations import hang
from rl_lab.engine.ops import (
    arithmetic,
    comparison,
    composed,
    conversion,
    diagonals,
    elementwise,
    gathering,
    indexing,
    layout,
    matmul,
    matrices,
    rearrange,
    reduction,
    running,
    sorting,
)
from rl_lab.engine.ops.arithmetic import add, div, floor_divide, mul, power, remainder, sub
from rl_lab.engine.ops.comparison import eq, ne
from rl_lab.engine.ops.conversion import check_limits, clone, convert
from rl_lab.engine.ops.creation import FloatTensor, LegacyType, empty, full, ones, tensor, zeros
from rl_lab.engine.ops.elementwise import Unary
from rl_lab.engine.ops.in_place import add_directly, write_directly, write_in_place
from rl_lab.engine.ops.layout import copy_, permute, transpose
from rl_lab.engine.ops.operands import check_range, clear, constant, operand, require_number
from rl_lab.engine.tape import modes
from rl_lab.engine.tensor import Tensor
from rl_lab.engine.types import Data, Operand, Scalar, Sizes
from rl_lab.native.primitive import Primitive

OPERANDS = (Tensor, int, float, np.number, np.ndarray)
"""Types beside which a tensor has arithmetic. An operator returns NotImplemented for others, so that Python asks the other side."""


def _in_place(function: Callable[..., Tensor], kernel: Primitive | None = None) -> Callable[..., Tensor]:
    """A method that writes the result of ``function`` into its tensor. ``kernel`` may do so directly, see `write_in_place`."""

    def method(self: Tensor, *operands: Operand, **options: Operand) -> Tensor:
        if kernel is not None and len(operands) == 1:
            if "alpha" in options and function in (add, sub):
                alpha: float = options.pop("alpha")  # type: ignore[assignment]
                if alpha != 1:
                    if add_directly(self, operands[0], alpha if function is add else -alpha):
                        return self
                    operands = (operands[0] * alpha,)  # type: ignore[operator]
            if not options and write_directly(kernel, self, operands[0]):
                return self
        given = (*operands, *options.values()) if options else operands
        return write_in_place(self, lambda x: function(x, *operands, **options), given)

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"`{function.__name__}`, written into this tensor."
    method.__wrapped__ = function  # type: ignore[attr-defined]  # for its signature
    return method


def _method(function: Unary) -> Callable[[Tensor], Tensor]:
    """A `Unary` as a method. Python binds functions to an instance, but not objects that can be called."""

    def method(self: Tensor) -> Tensor:
        return function(self)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


# --- functions as methods --------------------------------------------------------------------------------------------

FUNCTIONS = {
    conversion: "clone",
    layout: "contiguous reshape permute transpose expand swapaxes squeeze unsqueeze flatten narrow select unbind chunk",
    comparison: """eq ne lt le gt ge isclose allclose equal isnan isinf isfinite bitwise_and bitwise_or bitwise_xor bitwise_not
        logical_and logical_or logical_xor logical_not""",
    elementwise: """neg sign absolute exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square reciprocal floor ceil round trunc frac
        sin cos tan asin acos atan sinh cosh sech asinh acosh atanh sinc tanh sigmoid relu erf erfc erfinv lgamma digamma
        hardshrink""",
    arithmetic: """add sub mul div atan2 fmod heaviside hypot logaddexp logaddexp2 logit xlogy copysign fmax fmin prelu addcmul
        addcdiv nan_to_num masked_fill maximum minimum remainder floor_divide lerp clamp clamp_min clamp_max""",
    reduction: """sum mean sum_to_size var std norm prod cumsum cumprod max min amax amin argmax argmin any all logsumexp
        count_nonzero softmax log_softmax""",
    matmul: "matmul mm bmm mv dot outer inner addmm addmv baddbmm addr",
    gathering: "gather scatter scatter_add take_along_dim index_select index_add",
    indexing: "index_fill index_copy index_put index_put_ masked_select nonzero",
    rearrange: "repeat tile repeat_interleave flip roll movedim unflatten unfold tensor_split broadcast_to diff ravel",
    running: "cummax cummin logcumsumexp",
    diagonals: "diagonal diag diag_embed tril triu trace",
    sorting: "sort argsort topk kthvalue median nanmedian",
    matrices: "cholesky cholesky_inverse cholesky_solve det inverse logdet matrix_power pinverse qr slogdet svd",
    composed: """aminmax argwhere bincount bitwise_left_shift bitwise_right_shift corrcoef cov cross deg2rad diagflat
        diagonal_scatter dist dsplit fliplr flipud float_power histc hsplit is_nonzero is_same_size is_signed isneginf isposinf
        isreal kron ldexp masked_scatter msort mvlgamma nanmean nanquantile nansum positive quantile rad2deg renorm rot90 scatter_reduce
        select_scatter signbit slice_scatter split_with_sizes take unique unique_consecutive vdot vsplit""",
}
"""The functions of each family that are methods of the same name."""

IN_PLACE = """neg sign absolute exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square reciprocal floor ceil round trunc frac sin cos
    tan asin acos atan sinh cosh asinh acosh atanh sinc tanh sigmoid relu erf erfc erfinv lgamma digamma atan2 fmod heaviside hypot
    logit xlogy copysign addcmul addcdiv nan_to_num remainder floor_divide lerp clamp eq ne lt le gt ge bitwise_and bitwise_or
    bitwise_xor bitwise_not logical_and logical_or logical_xor logical_not bitwise_left_shift bitwise_right_shift cumsum cumprod
    tril triu addmm addmv addr baddbmm deg2rad rad2deg float_power ldexp mvlgamma renorm masked_scatter"""
"""The functions that have a second form, with an underscore behind the name, that writes the result into the tensor."""

OTHER_NAMES = {
    "abs": "absolute",
    "sgn": "sign",
    "fix": "trunc",
    "negative": "neg",
    "clip": "clamp",
    "ger": "outer",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    "swapdims": "transpose",
    "moveaxis": "movedim",
}
"""Second names of methods, and of their in-place forms if they have one."""

OPERATORS = {
    "__abs__": "absolute",
    "__neg__": "neg",
    "__pos__": "positive",
    "__invert__": "bitwise_not",
    "__matmul__": "matmul",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "__lshift__": "bitwise_left_shift",
    "__rshift__": "bitwise_right_shift",
    "__iadd__": "add_",
    "__isub__": "sub_",
    "__imul__": "mul_",
    "__itruediv__": "div_",
    "__ifloordiv__": "floor_divide_",
    "__imod__": "remainder_",
    "__ipow__": "pow_",
    "__iand__": "bitwise_and_",
    "__ior__": "bitwise_or_",
    "__ixor__": "bitwise_xor_",
    "__ilshift__": "bitwise_left_shift_",
    "__irshift__": "bitwise_right_shift_",
}
"""Operators that are a method under another name."""


def _functions() -> dict[str, Callable[..., object]]:
    """The methods that are functions of a family, by name."""
    found = {name: getattr(family, name) for family, names in FUNCTIONS.items() for name in names.split()}
    methods = {name: _method(function) if isinstance(function, Unary) else function for name, function in found.items()}
    methods |= {"pow": power, "view": layout.view_as_shape, "_embed": layout.embed}
    methods |= {"__getitem__": indexing.getitem, "__setitem__": indexing.setitem}
    methods |= {f"{name}_": _in_place(found[name]) for name in IN_PLACE.split()}
    methods |= {
        "add_": _in_place(add, elementwise_kernels.add_into),
        "sub_": _in_place(sub, elementwise_kernels.sub_into),
        "mul_": _in_place(mul, elementwise_kernels.mul_into),
        "div_": _in_place(div, elementwise_kernels.div_into),
        "pow_": _in_place(power),
    }
    for name, other in OTHER_NAMES.items():
        methods |= {name + end: methods[other + end] for end in ("", "_") if other + end in methods}
    return methods | {operator: methods[name] for operator, name in OPERATORS.items()}


# --- methods with a body of their own --------------------------------------------------------------------------------

# The classes derive from Tensor for the type of ``self`` alone. Nobody makes an instance of them.


class ConversionMethods(Tensor):
    """The methods of Tensor that change dtype or device."""

    is_cuda = False
    is_cpu = True
    is_meta = False
    is_sparse = False
    is_quantized = False

    @property
    def device(self) -> Device:
        """The device of the tensor, always the cpu."""
        return CPU

    def to(
        self,
        *targets: DTypeLike | DeviceLike | Tensor,
        dtype: DTypeLike = None,
        device: DeviceLike = None,
        non_blocking: bool = False,
        copy: bool = False,
        other: Tensor | None = None,
        memory_format: object = None,
    ) -> Tensor:
        """This tensor in another dtype, or in the dtype of ``other``; itself if it has this dtype and ``copy`` is False.

        The cpu is accepted as a device. Raises DeviceError for another device, DtypeError for a dtype that does not exist here,
        OverflowError if an integer does not fit into the dtype.
        """
        if other is not None:
            dtype = other.dtype
        for target in targets:
            if isinstance(target, Tensor):
                dtype = target.dtype
            elif isinstance(target, (DType, NamedDType)) or target in (float, int, bool):
                dtype = target  # type: ignore[assignment]
            else:
                check_device(target)
        check_device(device)
        result: Tensor = self
        if dtype is not None:
            result = convert(self, as_dtype(dtype))
            if isinstance(dtype, NamedDType):
                check_limits(result, dtype)
        return clone(result) if copy and result is self else result

    def type_as(self, other: Tensor) -> Tensor:
        """This tensor in the dtype of ``other``."""
        return convert(self, other.dtype)

    def float(self) -> Tensor:
        """This tensor as float32."""
        return convert(self, float32)

    def double(self) -> Tensor:
        """This tensor as float32: there is no float64."""
        return convert(self, float32)

    def long(self) -> Tensor:
        """This tensor as int64. Floats are rounded towards 0."""
        return convert(self, int64)

    def byte(self) -> Tensor:
        """This tensor as uint8: the lowest eight bits of the integer part of each number."""
        return convert(self, uint8)

    def int(self) -> Tensor:
        """This tensor as int64, which stands for int32. Raises OverflowError if a number does not fit into int32."""
        return self.to(int32)

    def short(self) -> Tensor:
        """This tensor as int64, which stands for int16. Raises OverflowError if a number does not fit into int16."""
        return self.to(int16)

    def char(self) -> Tensor:
        """This tensor as int64, which stands for int8. Raises OverflowError if a number does not fit into int8."""
        return self.to(int8)

    def half(self) -> Tensor:
        """Raises DtypeError: the only floating-point dtype is float32."""
        return self.to(float16)

    def bfloat16(self) -> Tensor:
        """Raises DtypeError: the only floating-point dtype is float32."""
        return self.to(bfloat16)

    def bool(self) -> Tensor:
        """Where this tensor is not zero, as a bool tensor."""
        return convert(self, bool_)

    def cpu(self) -> Tensor:
        """This tensor itself."""
        return self

    def pin_memory(self) -> Tensor:
        """This tensor itself: there is no GPU to copy to."""
        return self

    def share_memory_(self) -> Tensor:
        """Raises StateError: processes cannot share the memory of a tensor."""
        raise StateError(
            "processes cannot share the memory of a tensor: send tensors through a queue or a pipe of rl_lab.multiprocessing, "
            "which copies them, instead of share_memory_()"
        )

    def cuda(self, *arguments: object, **options: object) -> Tensor:
        """Raises DeviceError: the only device is the cpu."""
        return self.to("cuda")

    def type(self, dtype: DTypeLike | LegacyType = None) -> Tensor | str:
        """This tensor in another dtype, given as a dtype or as a legacy type; without ``dtype``, the name of its legacy type."""
        if dtype is None:
            return {
                float32: "rl_lab.FloatTensor",
                int64: "rl_lab.LongTensor",
                uint8: "rl_lab.ByteTensor",
                bool_: "rl_lab.BoolTensor",
            }[self.dtype]
        return self.to(dtype.dtype if isinstance(dtype, LegacyType) else dtype)


class CreationMethods(Tensor):
    """The methods of Tensor that make new tensors, by default in the dtype of this one."""

    def new_tensor(self, data: Data, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
        """`rl_lab.tensor` in this tensor's dtype."""
        return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    def new_empty(
        self, *sizes: Sizes, size: Sizes | None = None, dtype: DTypeLike = None, device: DeviceLike = None, **settings: bool
    ) -> Tensor:
        """`rl_lab.empty` in this tensor's dtype."""
        return empty(*sizes, size=size, dtype=dtype or self.dtype, device=device, **settings)

    def new_zeros(
        self, *sizes: Sizes, size: Sizes | None = None, dtype: DTypeLike = None, device: DeviceLike = None, **settings: bool
    ) -> Tensor:
        """`rl_lab.zeros` in this tensor's dtype."""
        return zeros(*sizes, size=size, dtype=dtype or self.dtype, device=device, **settings)

    def new_ones(
        self, *sizes: Sizes, size: Sizes | None = None, dtype: DTypeLike = None, device: DeviceLike = None, **settings: bool
    ) -> Tensor:
        """`rl_lab.ones` in this tensor's dtype."""
        return ones(*sizes, size=size, dtype=dtype or self.dtype, device=device, **settings)

    def new_full(
        self,
        size: Sizes,
        fill_value: Scalar | Tensor,
        dtype: DTypeLike = None,
        device: DeviceLike = None,
        **settings: bool,
    ) -> Tensor:
        """`rl_lab.full` in this tensor's dtype."""
        return full(size, fill_value, dtype=dtype or self.dtype, device=device, **settings)


def _reshaped_in_place(x: Tensor, name: str, like: Tensor) -> Tensor:
    """x with the sizes of ``like``, a view of all its elements in the same order."""
    if x.requires_grad:
        raise StateError(f"{name}_() changes tensors without a gradient only: write x = x.{name}(...)")
    if (recording := recorder()) is not None:
        recording.give_up("it changes the shape of a tensor in place")
    x.sizes, x.strides = like.sizes, like.strides
    changes.note()
    return x


class LayoutMethods(Tensor):
    """The methods of Tensor that change shape or layout."""

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Tensor:
        """Write ``src``, broadcast and converted, into this tensor. Raises ShapeError if ``src`` does not broadcast to its shape."""
        return copy_(self, src)

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Views of consecutive parts along ``dim``: of one size each (the last may be smaller), or of the sizes listed."""
        return layout.split(self, split_size, dim)

    def unsqueeze_(self, dim: int) -> Tensor:
        """`unsqueeze` of this tensor itself. Raises StateError if it requires a gradient."""
        return _reshaped_in_place(self, "unsqueeze", layout.unsqueeze(self.detach(), dim))

    def squeeze_(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """`squeeze` of this tensor itself. Raises StateError if it requires a gradient."""
        return _reshaped_in_place(self, "squeeze", layout.squeeze(self.detach(), dim))

    def view_as(self, other: Tensor) -> Tensor:
        """`view` with the shape of ``other``."""
        return layout.view_as_shape(self, other.sizes)

    def reshape_as(self, other: Tensor) -> Tensor:
        """`reshape` to the shape of ``other``."""
        return layout.reshape(self, other.sizes)

    def expand_as(self, other: Tensor) -> Tensor:
        """`expand` to the shape of ``other``."""
        return layout.expand(self, other.sizes)

    def t(self) -> Tensor:
        """The transpose of a matrix, a vector as it is. Raises ShapeError for more dimensions."""
        if len(self.sizes) > 2:
            raise ShapeError(f"t() takes at most 2 dimensions, got shape {list(self.sizes)}: use mT or permute()")
        return transpose(self, 0, 1) if len(self.sizes) == 2 else self

    @property
    def T(self) -> Tensor:
        """A view with the dimensions in reverse order."""
        if len(self.sizes) == 2:
            return transpose(self, 0, 1)
        return permute(self, tuple(range(len(self.sizes) - 1, -1, -1)))

    @property
    def mT(self) -> Tensor:
        """A view with the last two dimensions exchanged, a scalar as it is. Raises ShapeError for a vector."""
        return _transposed(self, "mT")

    @property
    def H(self) -> Tensor:
        """The transpose of a matrix; a scalar is returned as it is. Raises ShapeError for other tensors.

        PyTorch also conjugates complex numbers, which rl_lab does not have.
        """
        return _transposed(self, "H", only=True)

    @property
    def mH(self) -> Tensor:
        """The same as `mT`, because rl_lab has no complex numbers."""
        return _transposed(self, "mH")

    def __iter__(self) -> Iterator[Tensor]:
        if not self.sizes:
            raise TypeError("iteration over a 0-d tensor: use item() for its value")
        return iter([layout.select(self, 0, i) for i in range(len(self))])


def _transposed(x: Tensor, name: str, only: bool = False) -> Tensor:
    """``x`` with its last two dimensions exchanged, a scalar as it is.

    Raises ShapeError for a vector and, with ``only``, for all but matrices.
    """
    if x.dim() == 0:
        return x
    if x.dim() == 1 or (only and x.dim() != 2):
        raise ShapeError(f"tensor.{name} takes {'a matrix' if only else 'matrices'}, not a tensor of {x.dim()} dimensions")
    return x.transpose(-2, -1)


class ElementwiseMethods(Tensor):
    """The methods and operators of Tensor that work element by element."""

    def where(self, condition: Tensor, other: Operand) -> Tensor:
        """This tensor where the condition holds, ``other`` elsewhere."""
        return arithmetic.where(condition, self, other)

    def polygamma(self, n: int) -> Tensor:
        """The n-th derivative of `digamma`, for n from 0 to 2. Raises ValueError for another n."""
        return composed.polygamma(n, self)

    def polygamma_(self, n: int) -> Tensor:
        """`polygamma`, written into this tensor."""
        return write_in_place(self, lambda x: composed.polygamma(n, x))

    def __add__(self, other: Operand) -> Tensor:
        return add(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def __radd__(self, other: Operand) -> Tensor:
        return add(other, self) if isinstance(other, OPERANDS) else NotImplemented

    def __sub__(self, other: Operand) -> Tensor:
        return sub(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def __rsub__(self, other: Operand) -> Tensor:
        return sub(other, self) if isinstance(other, OPERANDS) else NotImplemented

    def __mul__(self, other: Operand) -> Tensor:
        return mul(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def __rmul__(self, other: Operand) -> Tensor:
        return mul(other, self) if isinstance(other, OPERANDS) else NotImplemented

    def __truediv__(self, other: Operand) -> Tensor:
        return div(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def __rtruediv__(self, other: Operand) -> Tensor:
        return div(other, self) if isinstance(other, OPERANDS) else NotImplemented

    def __floordiv__(self, other: Operand) -> Tensor:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return floor_divide(other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return remainder(self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return remainder(other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return power(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return power(other, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return eq(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ne(self, other) if isinstance(other, OPERANDS) else NotImplemented

    def clamp_min_(self, min: Operand) -> Tensor:
        """`clamp_min`, written into this tensor."""
        return self.clamp_(min=min)

    def clamp_max_(self, max: Operand) -> Tensor:
        """`clamp_max`, written into this tensor."""
        return self.clamp_(max=max)

    def fill_(self, value: Operand) -> Tensor:
        """Set every element to ``value``. Raises OverflowError if a number does not fit into uint8, ShapeError if it has dimensions."""
        require_number("fill_", value)
        if self.dtype is uint8 and not isinstance(value, Tensor):
            check_range(value, uint8)  # type: ignore[arg-type]
        return copy_(self, operand(value, self), overlap=True)

    def zero_(self) -> Tensor:
        """Set every element to 0."""
        if self.strides is None and self.base is None and not (modes.grad and self.needs_grad):
            clear(self).storage.version += 1
            return self
        return copy_(self, constant(0.0, float32) if self.dtype is float32 else operand(0, self), overlap=True)

    def masked_fill_(self, mask: Tensor, value: Operand) -> Tensor:
        """`masked_fill`, written into this tensor."""
        return write_in_place(self, lambda x: x.masked_fill(mask, value))

    def fill_diagonal_(self, fill_value: float, wrap: bool = False) -> Tensor:
        """Set every element of the diagonal of a matrix to ``fill_value``. Raises ValueError for ``wrap``, which is not supported."""
        if wrap:
            raise ValueError("fill_diagonal_ does not support wrap=True: fill the diagonals of square parts one by one")
        diagonals.diagonal(self).fill_(fill_value)
        return self


class PositionMethods(Tensor):
    """The methods of Tensor that write at positions given by an index, each the function of its name, written into this tensor."""

    def scatter_add_(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """`scatter_add`, written into this tensor."""
        return write_in_place(self, lambda x: gathering.scatter_add(x, dim, index, src), (src,))

    def scatter_(
        self,
        dim: int,
        index: Tensor,
        src: Operand | None = None,
        *,
        value: Operand | None = None,
        reduce: str | None = None,
    ) -> Tensor:
        """`scatter`, written into this tensor."""
        source = value if src is None else src
        operands = () if source is None else (source,)
        return write_in_place(self, lambda x: gathering.scatter(x, dim, index, source, reduce=reduce), operands)

    def scatter_reduce_(self, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
        """`scatter_reduce`, written into this tensor."""

        def apply(x: Tensor) -> Tensor:
            return composed.scatter_reduce(x, dim, index, src, reduce, include_self=include_self)

        return write_in_place(self, apply, (src,))

    def index_add_(self, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        """`index_add`, written into this tensor."""
        if alpha == 1 and gathering.index_add_directly(self, dim, index, source):
            return self
        if self.dtype is float32 and self.sizes:
            return self.add_(gathering.index_added(self, dim, index, source, alpha))
        return write_in_place(self, lambda x: gathering.index_add(x, dim, index, source, alpha=alpha), (source,))

    def index_fill_(self, dim: int, index: Tensor, value: Operand) -> Tensor:
        """`index_fill`, written into this tensor."""
        return write_in_place(self, lambda x: indexing.index_fill(x, dim, index, value))

    def index_copy_(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """`index_copy`, written into this tensor."""
        return write_in_place(self, lambda x: indexing.index_copy(x, dim, index, source), (source,))


class Facts(Tensor):
    """The methods and properties of Tensor that describe its memory and its place on the tape."""

    @property
    def itemsize(self) -> int:
        """The number of bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on this computed value."""
        return self.node is not None and self.node.retained is not None

    def ndimension(self) -> int:
        """The number of dimensions."""
        return len(self.sizes)

    def get_device(self) -> int:
        """-1, PyTorch's number of the cpu."""
        return -1

    def is_pinned(self) -> bool:
        """False: there is no GPU to copy to."""
        return False

    def is_shared(self) -> bool:
        """False: processes do not share memory."""
        return False


class Constructor(Tensor):
    """The constructor of Tensor, which is that of PyTorch's FloatTensor."""

    def __new__(cls, *data: Data) -> Tensor:  # type: ignore[misc]
        return FloatTensor(*data)


hang(_functions())
for _family in (
    ConversionMethods,
    CreationMethods,
    LayoutMethods,
    ElementwiseMethods,
    PositionMethods,
    Facts,
    Constructor,
):
    hang(vars(_family))
