"""Tensors from data, and tensors filled with a pattern."""

import math
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.device import check_device
from rl_lab.engine.dtype import DType, as_dtype, bool_, dtype_of_numpy, float32, int64, limits_of, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch, unrecorded
from rl_lab.engine.number import Number
from rl_lab.engine.ops.operands import INTEGERS, check_range, of_array, refuse_recording, size_argument
from rl_lab.engine.tensor import Size, Tensor, TensorCore
from rl_lab.engine.tensor import empty as _empty


def _finish(tensor: Any, requires_grad: bool) -> Any:
    return tensor.requires_grad_() if requires_grad else tensor


def check_ignored(settings: dict[str, Any]) -> None:
    """Accept PyTorch's settings of memory, which change no result here. TypeError for any other."""
    for name in settings:
        if name not in ("layout", "pin_memory", "memory_format"):
            raise TypeError(f"unexpected argument {name!r}")


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, a NumPy array. Floats become float32, integers int64."""
    check_device(device)
    if type(data) is Number:
        data = data.tensor(float32 if isinstance(data, float) else int64)
    if isinstance(data, TensorCore):
        result: Any = data.detach().clone()
        return _finish(result if dtype is None else result.to(dtype), requires_grad)
    if isinstance(data, (list, tuple)):
        data = _plain(data)
    array = np.asarray(data)
    if array.dtype == np.float64 and array.size == 0 and not isinstance(data, np.ndarray):
        array = array.astype(np.float32)
    kind = dtype_of_numpy(array.dtype) if dtype is None else as_dtype(dtype)
    if isinstance(data, np.ndarray):
        refuse_recording()
    if array.size and (limits := limits_of(dtype)) is not None and array.dtype.kind in "iuf":
        for number in (array.min(), array.max()):
            if not limits[0] <= number <= limits[1]:
                raise OverflowError(f"{number} does not fit into {dtype}, which holds {limits[0]} to {limits[1]}")
    return _finish(_copy_of(array, kind), requires_grad)


def _plain(data: Any) -> Any:
    """Nested lists with NumPy numbers in place of tensors of one element. Raises ValueError for larger tensors, as PyTorch does."""
    kinds = set(map(type, data))
    if not any(issubclass(kind, (TensorCore, list, tuple)) for kind in kinds):
        return data
    return [
        _number(part) if isinstance(part, TensorCore) else _plain(part) if isinstance(part, (list, tuple)) else part
        for part in data
    ]


def _number(x: Any) -> Any:
    if x.numel() != 1:
        raise ValueError(
            f"only tensors of one element can become numbers, got one of shape {list(x.sizes)}: use stack() or cat() for others"
        )
    return x._array(lasting=False).reshape(())[()]


def _copy_of(array: np.ndarray, kind: DType) -> Any:
    """The array's values in a new tensor; to a recorded program they are constants."""
    with unrecorded():
        result = _empty(array.shape, kind)
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise OverflowError(f"{array.max()} does not fit into int64")
    memory = result.storage.bytes().view(kind.numpy)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind is uint8 and array.dtype.kind == "f":
            array = array.astype(np.int64)  # the direct conversion is undefined outside of 0 to 255
        memory[:] = array.astype(kind.numpy, copy=False).reshape(-1)
    return result


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`tensor` without a copy where the data is a tensor, or an array of one of the four dtypes."""
    check_device(device)
    if isinstance(data, TensorCore):
        result: Any = data
        return result if dtype is None else result.to(dtype)
    if isinstance(data, np.ndarray) and dtype is None and data.dtype in (np.float32, np.int64, np.uint8, np.bool_):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor over the array's own memory if its dtype is float32, int64, uint8 or bool and it lies row by row; else over a copy."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy takes a NumPy array, not {type(array).__name__}")
    return of_array(array)


def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any
) -> Tensor:
    """A tensor of unknown content."""
    check_device(device)
    check_ignored(ignored)
    return _finish(
        _empty(size_argument(sizes if size is None else (size,)), float32 if dtype is None else as_dtype(dtype)), requires_grad
    )


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any
) -> Tensor:
    """A tensor filled with one value, whose Python type decides the dtype."""
    check_device(device)
    check_ignored(ignored)
    if isinstance(fill_value, (np.generic, TensorCore)):
        fill_value = fill_value.item()
    kind = as_dtype(fill_value.__class__) if dtype is None else as_dtype(dtype)
    if type(fill_value) is not Number:
        check_range(fill_value, dtype)
    result: Any = _empty(size_argument((size,)), kind)
    with tape.no_grad():
        result.fill_(fill_value)
    result.storage.version = 0
    return _finish(result, requires_grad)


def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any
) -> Tensor:
    """A tensor of zeros."""
    check_ignored(ignored)
    shape = size_argument(sizes if size is None else (size,))
    return full(shape, 0.0, dtype=dtype or float32, device=device, requires_grad=requires_grad)


def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any
) -> Tensor:
    """A tensor of ones."""
    check_ignored(ignored)
    shape = size_argument(sizes if size is None else (size,))
    return full(shape, 1.0, dtype=dtype or float32, device=device, requires_grad=requires_grad)


def _like(make: Any) -> Any:
    def like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any) -> Any:
        return make(input.sizes, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad, **ignored)

    like.__name__ = like.__qualname__ = f"{make.__name__}_like"
    like.__doc__ = f"`{make.__name__}` with another tensor's shape and dtype."
    return like


empty_like, zeros_like, ones_like = map(_like, (empty, zeros, ones))


def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **ignored: Any
) -> Tensor:
    """`full` with another tensor's shape and dtype."""
    return full(input.sizes, fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad, **ignored)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The identity matrix, n x m."""
    check_device(device)
    return _finish(_copy_of(np.eye(n, m), as_dtype(dtype or float32)), requires_grad)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... below end; int64 for integers, float32 otherwise. An integer ``dtype`` rounds the three to zero first."""
    check_device(device)
    if end is None:
        start, end = 0, start
    if dtype is not None and as_dtype(dtype) is int64:
        start, end, step = [v if isinstance(v, INTEGERS) else int(v) for v in (start, end, step)]
    if step == 0 or (end - start) / step < 0:
        raise ValueError(f"arange from {start} to {end} by {step}: the bounds do not agree with the step")
    whole = all(isinstance(v, INTEGERS) for v in (start, end, step))
    if (
        dtype is not None and as_dtype(dtype) is uint8 and not whole
    ):  # as PyTorch, whose count is that of the numbers themselves
        numbers = int(start) + int(step) * np.arange(math.ceil((end - start) / step))
        return _finish(_copy_of(numbers, uint8), requires_grad)
    kind = (int64 if whole else float32) if dtype is None else as_dtype(dtype)
    if whole:
        count = max(0, math.ceil((end - start) / step))
        result: Any = _empty((count,), int64)
        launch(indexing_kernels.arange, (result,), (start, step, count))
        return _finish(result.to(kind), requires_grad)
    count = math.ceil((end - start) / step)
    return _finish(_copy_of(start + step * np.arange(count), kind), requires_grad)


def evenly_spaced(start: float, end: float, steps: int, kind: DType) -> np.ndarray:
    """``steps`` numbers from start to end in float64, from both ends to the middle; ends of integers are rounded to zero first."""
    start, end = [v.item() if isinstance(v, TensorCore) else v for v in (start, end)]
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
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` values from start to end, both included."""
    check_device(device)
    kind = as_dtype(dtype or float32)
    return _finish(_copy_of(evenly_spaced(start, end, steps, kind), kind), requires_grad)


class LegacyType:
    """PyTorch's older constructors: ``FloatTensor(2, 3)`` is uninitialised, ``FloatTensor(data)`` holds the data in its dtype."""

    def __init__(self, dtype: DType):
        self.dtype = dtype

    def __call__(self, *arguments: Any) -> Tensor:
        if len(arguments) == 1 and isinstance(arguments[0], Size):
            arguments = arguments[0]
        if all(isinstance(a, INTEGERS) and not isinstance(a, bool) for a in arguments):
            return _empty(size_argument(arguments) or (0,), self.dtype)
        if len(arguments) != 1:
            raise DtypeError("a tensor type takes sizes or one piece of data")
        return tensor(arguments[0], dtype=self.dtype)


FloatTensor, LongTensor, ByteTensor, BoolTensor = map(LegacyType, (float32, int64, uint8, bool_))
DoubleTensor, IntTensor = FloatTensor, LongTensor
