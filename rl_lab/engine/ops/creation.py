"""Tensors from data, and tensors filled with a pattern."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from rl_lab.engine.device import DeviceLike, check_device
from rl_lab.engine.dtype import DType, DTypeLike, as_dtype, bool_, dtype_of_numpy, float32, int64, limits_of, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch, recorder, unrecorded
from rl_lab.engine.number import Number, plain
from rl_lab.engine.ops.operands import INTEGERS, check_range, clear, fill, of_array, refuse_recording, size_argument
from rl_lab.engine.tensor import Size, Tensor
from rl_lab.engine.tensor import empty as _empty
from rl_lab.engine.types import Data, Scalar, Sizes


def _finish(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


_KIND_OF_NUMBER = {float: float32, int: int64, bool: bool_}


def check_ignored(settings: dict[str, object]) -> None:
    """Accept PyTorch's settings of memory, which have no effect. Raises TypeError for another name."""
    for name in settings:
        if name not in ("layout", "pin_memory", "memory_format"):
            raise TypeError(
                f"unexpected argument {name!r}: allowed are dtype, device, requires_grad, layout, pin_memory, memory_format"
            )


def tensor(data: Data, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, a NumPy array or a tensor.

    Without ``dtype``, floats become float32 and integers int64; uint8 and bool stay. Raises DtypeError for data of another kind,
    ValueError for ragged lists, OverflowError if a number does not fit into the dtype, DeviceError for a device other than the cpu.
    """
    if device is not None:
        check_device(device)
    if type(data) in _KIND_OF_NUMBER and dtype is None and recorder() is None and abs(data) < 2**63:  # type: ignore[arg-type]
        kind = _KIND_OF_NUMBER[type(data)]
        result = _empty((), kind)
        kind.at(result.address).value = data
        return result.requires_grad_() if requires_grad else result
    if type(data) is Number:
        data = data.tensor(_kind_of_varying(data))  # type: ignore[unreachable]
    if isinstance(data, Tensor):
        result = data.detach().clone()
        return _finish(result if dtype is None else result.to(dtype), requires_grad)
    if isinstance(data, (list, tuple)):
        data = _plain(data)
    array = np.asarray(data)
    if array.dtype == np.float64 and array.size == 0 and not isinstance(data, np.ndarray):
        array = array.astype(np.float32)
    kind = dtype_of_numpy(array.dtype)  # also with a dtype given, because text, objects and complex numbers have no counterpart
    if dtype is not None:
        kind = as_dtype(dtype)
    if isinstance(data, np.ndarray):
        refuse_recording()
    if array.size and (limits := limits_of(dtype)) is not None and array.dtype.kind in "iuf":
        for number in (array.min(), array.max()):
            if not limits[0] <= number <= limits[1]:
                raise OverflowError(f"{number} does not fit into {dtype}, which holds {limits[0]} to {limits[1]}")
    return _finish(_copy_of(array, kind), requires_grad)


def _kind_of_varying(number: Number) -> DType:
    """The dtype of a tensor made of a number that varies: float32, int64, or uint8 for NumPy's uint8."""
    value = number.value
    return dtype_of_numpy(value.dtype) if isinstance(value, np.generic) else float32 if isinstance(value, float) else int64


def _plain(data: Sequence[object]) -> Sequence[object]:
    """Nested lists with tensors of one element replaced by NumPy numbers. Raises ValueError for larger tensors, as in PyTorch."""
    kinds = set(map(type, data))
    if not any(issubclass(kind, (Tensor, list, tuple)) for kind in kinds):
        return data
    return [
        _number(part) if isinstance(part, Tensor) else _plain(part) if isinstance(part, (list, tuple)) else part
        for part in data
    ]


def _number(x: Tensor) -> object:
    if x.numel() != 1:
        raise ValueError(
            f"only tensors of one element can become numbers, got one of shape {list(x.sizes)}: join larger tensors by stack() or cat()"
        )
    return x._array(lasting=False).reshape(())[()]


def _copy_of(array: np.ndarray, kind: DType) -> Tensor:
    """A new tensor with the array's values. In a recorded program they are constants."""
    if recorder() is None:
        result = _empty(array.shape, kind)
    else:
        with unrecorded():
            result = _empty(array.shape, kind)
    if kind is int64 and array.size:
        _check_int64(array)
    memory = result.storage.bytes().view(kind.numpy)
    if array.dtype == kind.numpy:
        memory[:] = array.reshape(-1)
        return result
    with np.errstate(over="ignore", invalid="ignore"):
        if kind is uint8 and array.dtype.kind == "f":
            array = array.astype(np.int64)  # the direct conversion of floats is undefined outside 0..255
        memory[:] = array.astype(kind.numpy, copy=False).reshape(-1)
    return result


def _check_int64(array: np.ndarray) -> None:
    """Raise OverflowError if a number does not fit into int64, or is NaN."""
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise OverflowError(f"{array.max()} does not fit into int64, the largest integer dtype")
    if array.dtype.kind == "f":
        fits = (array >= -(2.0**63)) & (array < 2.0**63)
        if not fits.all():
            raise OverflowError(f"{array[~fits][0]} does not fit into int64")


def as_tensor(data: Data, dtype: DTypeLike = None, device: DeviceLike = None) -> Tensor:
    """`tensor`, but tensors and arrays of dtype float32, int64, uint8 or bool are not copied if ``dtype`` is not given."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)  # type: ignore[return-value]
    if isinstance(data, np.ndarray) and dtype is None and data.dtype in (np.float32, np.int64, np.uint8, np.bool_):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor with the values of a NumPy array.

    It shares the array's memory if the array has the dtype float32, int64, uint8 or bool. It has a copy of an array of another dtype, and
    of an array with steps backwards or repeated elements. Raises TypeError if ``array`` is not a NumPy array, DtypeError if its dtype has
    no counterpart.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy takes a NumPy array, not {type(array).__name__}: use tensor() for lists and numbers")
    return of_array(array)


def _made(
    sizes: tuple[Sizes, ...], dtype: DTypeLike, device: DeviceLike, ignored: dict[str, object], value: Scalar | None = None
) -> Tensor:
    """A tensor filled with ``value``, or uninitialised if it is None. Raises ShapeError for a negative size."""
    if device is not None:
        check_device(device)
    if ignored:
        check_ignored(ignored)
    result = _empty(size_argument(sizes), dtype if type(dtype) is DType else as_dtype(dtype))
    return result if value is None else fill(result, value)


def empty(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """An uninitialised tensor, float32 by default. Raises ShapeError for a negative size."""
    result = _made(sizes if size is None else (size,), float32 if dtype is None else dtype, device, ignored)
    return result.requires_grad_() if requires_grad else result


def full(
    size: Sizes,
    fill_value: Scalar | Tensor,
    *,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """A tensor filled with one value. Without ``dtype``, the type of the value decides: float32, int64 or bool.

    Raises ShapeError for a negative size, OverflowError if the value does not fit into the dtype.
    """
    value: Scalar = fill_value.item() if isinstance(fill_value, (np.generic, Tensor)) else fill_value  # type: ignore[assignment]
    if dtype is not None and limits_of(dtype) is not None:
        value = plain(value)  # a replay would not check the range of another number
        check_range(value, dtype)
    result = _made((size,), value.__class__ if dtype is None else dtype, device, ignored, value)
    return result.requires_grad_() if requires_grad else result


def zeros(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """A tensor of zeros, float32 by default. Raises ShapeError for a negative size."""
    sizes = sizes if size is None else (size,)
    if dtype is None and device is None and not ignored:
        result = clear(_empty(size_argument(sizes)))
    else:
        result = clear(_made(sizes, float32 if dtype is None else dtype, device, ignored))
    return result.requires_grad_() if requires_grad else result


def ones(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """A tensor of ones, float32 by default. Raises ShapeError for a negative size."""
    result = _made(sizes if size is None else (size,), float32 if dtype is None else dtype, device, ignored, 1.0)
    return result.requires_grad_() if requires_grad else result


class _Like(Protocol):
    def __call__(
        self,
        input: Tensor,
        *,
        dtype: DTypeLike = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
        **ignored: object,
    ) -> Tensor: ...


def _like(make: Callable[..., Tensor]) -> _Like:
    def like(
        input: Tensor, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False, **ignored: object
    ) -> Tensor:
        return make(input.sizes, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad, **ignored)

    like.__name__ = like.__qualname__ = f"{make.__name__}_like"
    like.__doc__ = f"`{make.__name__}` with the shape and, by default, the dtype of ``input``."
    return like


def zeros_like(
    input: Tensor, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False, **ignored: object
) -> Tensor:
    """`zeros` with the shape and, by default, the dtype of ``input``."""
    if dtype is None and device is None and not ignored:
        result = clear(_empty(input.sizes, input.dtype))
    else:
        result = clear(_made((input.sizes,), dtype or input.dtype, device, ignored))
    return result.requires_grad_() if requires_grad else result


empty_like = _like(empty)
ones_like = _like(ones)


def full_like(
    input: Tensor,
    fill_value: Scalar | Tensor,
    *,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    **ignored: object,
) -> Tensor:
    """`full` with the shape and, by default, the dtype of ``input``."""
    return full(input.sizes, fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad, **ignored)


def eye(
    n: int, m: int | None = None, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """The identity matrix (n, m), float32 by default. ``m`` is n if not given."""
    check_device(device)
    return _finish(_copy_of(np.eye(n, m), as_dtype(dtype or float32)), requires_grad)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: DTypeLike = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """The vector start, start + step, ... before ``end``; arange(end) starts at 0. int64 for integers, float32 otherwise.

    The dtype int64 rounds the three arguments to zero first. Raises ValueError if the step is 0 or leads away from ``end``.
    """
    check_device(device)
    if end is None:
        start, end = 0, start
    kind = None if dtype is None else as_dtype(dtype)
    if kind is int64:
        start = _rounded_to_zero(start)
        end = _rounded_to_zero(end)
        step = _rounded_to_zero(step)
    if step == 0 or (end - start) / step < 0:
        raise ValueError(f"arange from {start} to {end} by {step}: the step must not be 0 and must lead from start to end")
    count = math.ceil((end - start) / step)
    if all(isinstance(v, INTEGERS) for v in (start, end, step)):
        result = _empty((count,), int64)
        launch(indexing_kernels.arange, (result,), (start, step, count))
        return _finish(result if kind is None else result.to(kind), requires_grad)
    if kind is uint8:  # as in PyTorch, the numbers are rounded, but are as many as without rounding
        start = int(start)
        step = int(step)
    return _finish(_copy_of(start + step * np.arange(count), kind or float32), requires_grad)


def _rounded_to_zero(number: float) -> int:
    return number if isinstance(number, INTEGERS) else int(number)


def evenly_spaced(start: float, end: float, steps: int, kind: DType) -> np.ndarray:
    """``steps`` numbers from start to end in float64, from both ends to the middle; ends of integers are rounded to zero first."""
    start, end = [v.item() if isinstance(v, Tensor) else v for v in (start, end)]
    if kind is not float32:
        start, end = int(start), int(end)
    if steps < 0:
        raise ValueError(f"the number of steps must not be negative, got {steps}")
    gap = (end - start) / (steps - 1) if steps > 1 else 0.0
    places = np.arange(steps)
    return (
        np.where(places < steps / 2, start + gap * places, end - gap * (steps - 1 - places))
        if steps > 1
        else start + gap * places
    )


def linspace(
    start: float, end: float, steps: int, *, dtype: DTypeLike = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """The vector of ``steps`` evenly spaced values from ``start`` to ``end``, both included."""
    check_device(device)
    kind = as_dtype(dtype or float32)
    return _finish(_copy_of(evenly_spaced(start, end, steps, kind), kind), requires_grad)


class LegacyType:
    """One of PyTorch's older constructors: ``FloatTensor(2, 3)`` is uninitialised, ``FloatTensor(data)`` holds the data as float32."""

    def __init__(self, dtype: DType):
        self.dtype = dtype

    def __call__(self, *arguments: Data) -> Tensor:
        """A tensor of this dtype, from sizes or from data. Raises DtypeError for several arguments that are not sizes."""
        if len(arguments) == 1 and isinstance(arguments[0], Size):
            arguments = arguments[0]
        if all(isinstance(a, INTEGERS) and not isinstance(a, bool) for a in arguments):
            return _empty(size_argument(arguments) or (0,), self.dtype)  # type: ignore[arg-type]
        if len(arguments) != 1:
            raise DtypeError(f"a tensor type takes integers as sizes, or one piece of data, got {len(arguments)} arguments")
        return tensor(arguments[0], dtype=self.dtype)


FloatTensor = LegacyType(float32)
LongTensor = LegacyType(int64)
ByteTensor = LegacyType(uint8)
BoolTensor = LegacyType(bool_)
DoubleTensor = FloatTensor
IntTensor = LongTensor
