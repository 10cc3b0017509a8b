"""Comparisons, logic and bits. Their results carry no gradient."""

from collections.abc import Callable
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, promote, whole
from rl_lab.engine.tensor import Tensor, TensorCore
from rl_lab.native.primitive import Primitive


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    def compare(input: Any, other: Any) -> Any:
        a, b = promote(input, other)
        if a.dtype is bool_:
            a, b = a.to(int64), b.to(int64)
        kernel = (elementwise_kernels.compare if a.dtype is float32 else elementwise_kernels.compare_int)[name]
        return binary(kernel, a, b, bool_)

    compare.__name__ = compare.__qualname__ = name
    return compare


eq, ne, lt, le, gt, ge = (_comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge"))


def _logical(kernel: Primitive) -> Callable[[Any, Any], Any]:
    def apply(input: Any, other: Any) -> Any:
        a, b = promote(input, other)
        return elementwise(kernel, (a.to(bool_), b.to(bool_)), bool_)

    apply.__name__ = apply.__qualname__ = kernel.name
    return apply


logical_and, logical_or, logical_xor = map(
    _logical, (elementwise_kernels.logical_and, elementwise_kernels.logical_or, elementwise_kernels.logical_xor)
)


def _bitwise(logical: Callable[[Any, Any], Any], integer: Primitive) -> Callable[[Any, Any], Any]:
    def apply(input: Any, other: Any) -> Any:
        kinds = [x.dtype if isinstance(x, TensorCore) else type(x) for x in (input, other)]
        if uint8 in kinds and float32 not in kinds and float not in kinds:
            a, b = (whole(x) if isinstance(x, TensorCore) else constant(int(x), int64) for x in (input, other))
            result = binary(integer, a, b, int64)
            return result if int64 in kinds else result.to(uint8)
        a, b = promote(input, other)
        if a.dtype is float32:
            raise DtypeError(f"{apply.__name__} takes bool, uint8 or int64 tensors, got float32")
        return logical(a, b) if a.dtype is bool_ else binary(integer, a, b, int64)

    apply.__name__ = apply.__qualname__ = f"bitwise_{integer.name.removesuffix('_int')}"
    return apply


bitwise_and = _bitwise(logical_and, elementwise_kernels.and_int)
bitwise_or = _bitwise(logical_or, elementwise_kernels.or_int)
bitwise_xor = _bitwise(logical_xor, elementwise_kernels.xor_int)


def bitwise_not(input: Any) -> Tensor:
    """Not for bools, all bits changed for integers."""
    if input.dtype is float32:
        raise DtypeError("bitwise_not takes bool, uint8 or int64 tensors, got float32")
    if input.dtype is uint8:
        return (-input.to(int64) - 1).to(uint8)
    return logical_not(input) if input.dtype is bool_ else -input - 1


def logical_not(input: Any) -> Tensor:
    return elementwise(elementwise_kernels.logical_not, (input.to(bool_),), bool_)


def _test(kernel: Primitive) -> Callable[[Any], Any]:
    def apply(input: Any) -> Any:
        return elementwise(kernel, (as_float(input),), bool_)

    apply.__name__ = apply.__qualname__ = kernel.name
    return apply


isnan, isinf, isfinite = map(_test, (elementwise_kernels.isnan, elementwise_kernels.isinf, elementwise_kernels.isfinite))


def isclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|; infinities are close to themselves, NaN to NaN with ``equal_nan``."""
    with tape.no_grad():
        input, other = whole(input), whole(other)
        close = logical_or(eq(input, other), logical_and(le((input - other).abs(), atol + rtol * other.abs()), isfinite(other)))
        return logical_or(close, logical_and(isnan(input), isnan(other))) if equal_nan else close


def allclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Any, other: Any) -> bool:
    """Whether shapes and all elements are equal."""
    return input.sizes == other.sizes and bool(eq(input, other).all())
