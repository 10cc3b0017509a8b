"""Comparisons, logic and operations on bits. The results have no gradient."""

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, promote, whole
from rl_lab.engine.tensor import Tensor
from rl_lab.engine.types import Binary, Operand
from rl_lab.native.primitive import Primitive


def _comparison(name: str, sign: str) -> Binary:
    def compare(input: Operand, other: Operand) -> Tensor:
        a, b = promote(input, other)
        if a.dtype is bool_:
            a = a.to(int64)
            b = b.to(int64)
        kernel = (elementwise_kernels.compare if a.dtype is float32 else elementwise_kernels.compare_int)[name]
        return binary(kernel, a, b, bool_)

    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"Where input {sign} other, as a bool tensor."
    return compare


eq = _comparison("eq", "==")
ne = _comparison("ne", "!=")
lt = _comparison("lt", "<")
le = _comparison("le", "<=")
gt = _comparison("gt", ">")
ge = _comparison("ge", ">=")


def _logical(kernel: Primitive, word: str) -> Binary:
    def apply(input: Operand, other: Operand) -> Tensor:
        a, b = promote(input, other)
        return elementwise(kernel, (a.to(bool_), b.to(bool_)), bool_)

    apply.__name__ = apply.__qualname__ = kernel.name
    apply.__doc__ = f"Where {word} true (not zero), as a bool tensor."
    return apply


logical_and = _logical(elementwise_kernels.logical_and, "both are")
logical_or = _logical(elementwise_kernels.logical_or, "at least one is")
logical_xor = _logical(elementwise_kernels.logical_xor, "exactly one is")


def _bitwise(logical: Binary, integer: Primitive) -> Binary:
    def apply(input: Operand, other: Operand) -> Tensor:
        kinds = [x.dtype if isinstance(x, Tensor) else type(x) for x in (input, other)]
        if uint8 in kinds and float32 not in kinds and float not in kinds:
            a, b = (whole(x) if isinstance(x, Tensor) else constant(int(x), int64) for x in (input, other))
            result = binary(integer, a, b, int64)
            return result if int64 in kinds else result.to(uint8)
        a, b = promote(input, other)
        if a.dtype is float32:
            raise DtypeError(f"{apply.__name__} takes bool, uint8 or int64 tensors, got float32: convert with .long() first")
        return logical(a, b) if a.dtype is bool_ else binary(integer, a, b, int64)

    apply.__name__ = apply.__qualname__ = f"bitwise_{integer.name.removesuffix('_int')}"
    apply.__doc__ = f"`{logical.__name__}` of each bit of integers, or of bools. Raises DtypeError for float32."
    return apply


bitwise_and = _bitwise(logical_and, elementwise_kernels.and_int)
bitwise_or = _bitwise(logical_or, elementwise_kernels.or_int)
bitwise_xor = _bitwise(logical_xor, elementwise_kernels.xor_int)


def bitwise_not(input: Tensor) -> Tensor:
    """All bits of integers flipped; `logical_not` of bools. Raises DtypeError for float32."""
    if input.dtype is float32:
        raise DtypeError("bitwise_not takes bool, uint8 or int64 tensors, got float32: convert with .long() first")
    if input.dtype is uint8:
        return (-input.to(int64) - 1).to(uint8)
    return logical_not(input) if input.dtype is bool_ else -input - 1


def logical_not(input: Tensor) -> Tensor:
    """Where input is false (zero), as a bool tensor."""
    return elementwise(elementwise_kernels.logical_not, (input.to(bool_),), bool_)


def isnan(input: Tensor) -> Tensor:
    """Where input is NaN, as a bool tensor."""
    return elementwise(elementwise_kernels.isnan, (as_float(input),), bool_)


def isinf(input: Tensor) -> Tensor:
    """Where input is infinite, as a bool tensor."""
    return elementwise(elementwise_kernels.isinf, (as_float(input),), bool_)


def isfinite(input: Tensor) -> Tensor:
    """Where input is neither infinite nor NaN, as a bool tensor."""
    return elementwise(elementwise_kernels.isfinite, (as_float(input),), bool_)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|. Equal infinities are close; NaNs are close to each other if ``equal_nan``."""
    with tape.no_grad():
        input = whole(input)
        other = whole(other)
        close = logical_or(eq(input, other), logical_and(le((input - other).abs(), atol + rtol * other.abs()), isfinite(other)))
        return logical_or(close, logical_and(isnan(input), isnan(other))) if equal_nan else close


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close, see `isclose`."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both tensors have the same shape and equal elements."""
    return input.sizes == other.sizes and bool(eq(input, other).all())
