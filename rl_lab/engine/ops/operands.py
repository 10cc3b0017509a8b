"""What the families share: Python numbers as operands, dtype promotion, broadcasting plans, and writing in place."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, bool_, dtype_of_numpy, float32, int64, limits_of, uint8
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import layout as layout_kernels
from rl_lab.engine.launch import launch, recorder
from rl_lab.engine.memory import Storage
from rl_lab.engine.number import Number, integer, real
from rl_lab.engine.tensor import Shape, TensorCore, contiguous_strides, empty, gradients_of, new, view
from rl_lab.native.primitive import Primitive

INTEGERS = (int, np.integer)
"""Types of a size, a dimension, an index or a count."""

# --- numbers as operands ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _constant(value: float, dtype: DType, sign: float) -> Any:
    return new(Storage.over(np.array([value]).astype(dtype.numpy)), (), None, 0, dtype)


def constant(value: float, dtype: DType = float32) -> Any:
    """A zero-dimensional tensor of this value that nobody writes to. (The sign tells 0.0 from -0.0 in the cache.)"""
    if type(value) is Number:
        return value.tensor(dtype)
    return _constant(value, dtype, math.copysign(1.0, value))


def operand(value: Any, other: TensorCore) -> Any:
    """A tensor as it is, an array as a tensor; a Python number in the dtype that PyTorch gives it beside ``other``."""
    if isinstance(value, TensorCore):
        return value
    if type(value) is float:
        return constant(value)
    if isinstance(value, (bool, np.bool_)):
        return constant(bool(value), bool_)
    if isinstance(value, INTEGERS):
        return constant(integer(value), int64 if other.dtype is int64 or other.dtype is bool_ else float32)
    if isinstance(value, (float, np.floating)):
        return constant(real(value))
    if isinstance(value, np.ndarray):
        return of_array(value)
    raise TypeError(f"an operand must be a tensor or a number, not {type(value).__name__}")


def refuse_recording() -> None:
    """End a recording in which an array becomes a tensor: the array's values would become constants of the program."""
    if (recording := recorder()) is not None:
        recording.give_up("a NumPy array becomes a tensor (pass the array as an argument)")


def of_array(array: np.ndarray) -> Any:
    """A tensor over the array's own memory if its dtype is float32, int64, uint8 or bool and it lies row by row; else over a copy."""
    refuse_recording()
    kind = dtype_of_numpy(array.dtype)
    if array.dtype != kind.numpy or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, kind.numpy).reshape(array.shape)
    return new(Storage.over(array), array.shape, None, 0, kind)


def promote(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands in the higher of their dtypes: bool below uint8 below int64 below float32; uint8 alone becomes float32."""
    try:
        if a.dtype is b.dtype is not uint8 and isinstance(a, TensorCore) and isinstance(b, TensorCore):
            return a, b
    except AttributeError:
        pass
    if not isinstance(a, TensorCore):
        a = operand(a, b)
    elif not isinstance(b, TensorCore):
        b = operand(b, a)
    kind = a.dtype if a.dtype.rank > b.dtype.rank else b.dtype
    if kind is uint8:
        kind = float32
    return a if a.dtype is kind else a.to(kind), b if b.dtype is kind else b.to(kind)


def whole(x: Any) -> Any:
    """A bool or uint8 tensor as int64, for kernels that know float32 and int64 only; others as they are."""
    return x.to(int64) if x.dtype is bool_ or x.dtype is uint8 else x


def check_range(value: Any, dtype: object) -> None:
    """Raise OverflowError if a Python number does not fit into an integer dtype of less than 64 bits."""
    limits = limits_of(dtype)
    if limits is not None and not limits[0] <= int(value) <= limits[1]:
        raise OverflowError(f"{value} does not fit into {dtype}, which holds {limits[0]} to {limits[1]}")


def as_float(x: Any) -> Any:
    return x if x.dtype is float32 else x.to(float32)


def normal_dim(dim: int, rank: int) -> int:
    """A dimension counted from the end made non-negative. IndexError outside -rank..rank-1."""
    low, high = -max(rank, 1), max(rank, 1) - 1
    if not low <= dim <= high:
        raise IndexError(f"dimension out of range: expected {low} to {high}, got {dim}")
    return dim + max(rank, 1) if dim < 0 else dim


def shape_argument(sizes: tuple) -> Shape:
    """f(2, 3), f((2, 3)) and f([2, 3]) alike."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple([operator.index(size) for size in sizes])


def size_argument(sizes: tuple) -> tuple[int, ...]:
    """`shape_argument` of a new tensor. ShapeError for a negative size."""
    shape = shape_argument(sizes)
    if min(shape, default=0) < 0:
        raise ShapeError(f"a tensor cannot have the negative size in {list(shape)}")
    return shape


# --- broadcasting ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8192)
def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; ShapeError names the shapes that have none."""
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*[(1,) * (rank - len(shape)) + shape for shape in shapes], strict=True):
        size = 1
        for candidate in sizes:
            if candidate != 1:
                if size not in (1, candidate):
                    text = " and ".join(str(list(shape)) for shape in shapes)
                    raise ShapeError(f"shapes {text} cannot be broadcast together")
                size = candidate
        result.append(size)
    return tuple(result)


def expanded_strides(shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """Strides under which ``shape`` reads as ``target``: 0 where it is repeated."""
    missing = len(target) - len(shape)
    return (0,) * missing + tuple(
        0 if size == 1 and wanted != 1 else stride
        for size, stride, wanted in zip(shape, strides, target[missing:], strict=True)
    )


def collapse(sizes: tuple[int, ...], *strides: tuple[int, ...]) -> tuple[list[int], list[list[int]]]:
    """The fewest dimensions over which all strides still hold: neighbours that run on are merged, those of size 1 dropped."""
    merged: list[int] = []
    result: list[list[int]] = [[] for _ in strides]
    for i, size in enumerate(sizes):
        if size == 1:
            continue
        if merged and all(r[-1] == s[i] * size for r, s in zip(result, strides, strict=True)):
            merged[-1] *= size
            for r, s in zip(result, strides, strict=True):
                r[-1] = s[i]
        else:
            merged.append(size)
            for r, s in zip(result, strides, strict=True):
                r.append(s[i])
    return merged, result


@functools.lru_cache(maxsize=8192)
def _plan(*layouts: tuple[tuple[int, ...], tuple[int, ...] | None]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """The common shape, and n, m and each operand's two strides; None when two dimensions do not suffice."""
    shape = broadcast_shape(*[s for s, _ in layouts])
    if 0 in shape:
        return shape, (0, 0) + (0, 1) * len(layouts)
    every = [expanded_strides(s, contiguous_strides(s) if t is None else t, shape) for s, t in layouts]
    sizes, strides = collapse(shape, contiguous_strides(shape), *every)
    if len(sizes) > 2:
        return shape, None
    sizes = [1] * (2 - len(sizes)) + sizes
    numbers = list(sizes)
    for operand_strides in strides[1:]:
        padded = [0] * (2 - len(operand_strides)) + operand_strides
        # a size of 1 has no stride; saying 1 lets the contiguous loop take it
        numbers += [padded[0], padded[1] if sizes[1] != 1 else 1]
    return shape, tuple(numbers)


_CONTIGUOUS = tuple([(0, 1) * count for count in range(6)])


def elementwise(kernel: Primitive, operands: tuple, dtype: DType) -> Any:
    """Launch an elementwise kernel over operands that broadcast; the result is contiguous and not on the tape."""
    shape = operands[0].sizes
    for x in operands:
        if x.strides is not None or x.sizes != shape:
            break
    else:
        out = empty(shape, dtype)
        launch(kernel, (out, *operands), (1, out.storage.nbytes // dtype.itemsize, *_CONTIGUOUS[len(operands)]))
        return out
    shape, numbers = _plan(*[(x.sizes, x.strides) for x in operands])
    if numbers is None:
        with tape.no_grad():
            operands = tuple(x.expand(shape).contiguous() for x in operands)
        numbers = (1, math.prod(shape)) + (0, 1) * len(operands)
    out = empty(shape, dtype)
    launch(kernel, (out, *operands), numbers)
    return out


def unary(kernel: Primitive, x: Any, dtype: DType = float32) -> Any:
    """`elementwise` of one operand."""
    if x.strides is not None:
        return elementwise(kernel, (x,), dtype)
    out = empty(x.sizes, dtype)
    launch(kernel, (out, x), (1, out.storage.nbytes // dtype.itemsize, 0, 1))
    return out


def binary(kernel: Primitive, a: Any, b: Any, dtype: DType = float32) -> Any:
    """`elementwise` of two operands, quick where they are alike."""
    shape = a.sizes
    if a.strides is not None or b.strides is not None or b.sizes != shape:
        return elementwise(kernel, (a, b), dtype)
    out = empty(shape, dtype)
    launch(kernel, (out, a, b), (1, out.storage.nbytes // dtype.itemsize, 0, 1, 0, 1))
    return out


def elementwise_into(kernel: Primitive, target: Any, other: Any) -> None:
    """target = kernel(target, other) in place; the target is contiguous and ``other`` broadcasts to its shape. No tape, no version."""
    if other.strides is None and other.sizes == target.sizes:
        launch(kernel, (target, other), (1, math.prod(target.sizes), 0, 1))
        return
    shape, numbers = _plan((target.sizes, None), (other.sizes, other.strides))
    if numbers is None:
        with tape.no_grad():
            other = other.expand(shape).contiguous()
        numbers = (1, math.prod(shape), 0, 1, 0, 1)
    launch(kernel, (target, other), numbers[:2] + numbers[4:])


def fit(gradient: Any, shape: tuple[int, ...]) -> Any:
    """A gradient summed over what broadcasting repeated, back to an operand's shape."""
    return gradient if gradient.sizes == shape else gradient.sum_to_size(shape)


# --- gradients of gradients ------------------------------------------------------------------------------------------


def same_rule(g, node):
    return g


def differentiate(function: Callable, inputs: Sequence[Any], g: Any) -> list[Any]:
    """The gradients of ``function(*inputs)``, a composition of differentiable operations, on the tape themselves.

    This is how an operation with a kernel of its own says what its gradient's gradient is: it names the operations that it stands
    for. Each input enters through a copy of its place on the tape, so that one computed from another keeps its own share.
    """
    with tape.enable_grad():
        places = [
            tape.attach(view(x, x.sizes, x.strides, x.offset), same_rule, (x,)) if x is not None else None for x in inputs
        ]
        value = function(*places)
        wanted = [x for x in places if x is not None and x.requires_grad]
        found = iter(gradients_of(value, wanted, g, True, True, True))
    return [next(found) if x is not None and x.requires_grad else None for x in places]


# --- copies ----------------------------------------------------------------------------------------------------------

_KIND = {float32: "float", int64: "int", bool_: "bool", uint8: "byte"}


@functools.lru_cache(maxsize=8192)
def _copy_numbers(shape: tuple[int, ...], out: tuple[int, ...], x: tuple[int, ...]) -> tuple[int, ...]:
    sizes, (out_strides, x_strides) = collapse(shape, out, x)
    if len(sizes) > layout_kernels.RANK:
        raise ShapeError(
            f"a copy between these layouts of shape {list(shape)} needs more than {layout_kernels.RANK} dimensions"
        )
    missing = layout_kernels.RANK - len(sizes)
    last = [1] if not sizes else []  # a single element: say stride 1 to take the contiguous loop
    pad = [0] * (missing - len(last))
    return (*([1] * missing), *sizes, *pad, *last, *out_strides, *pad, *last, *x_strides)


def copy_into(target: Any, source: Any) -> None:
    """target[...] = source, broadcast and converted; both may be strided. No tape, no version."""
    source_strides = contiguous_strides(source.sizes) if source.strides is None else source.strides
    if source.sizes != target.sizes:
        if broadcast_shape(source.sizes, target.sizes) != target.sizes:
            raise ShapeError(f"a value of shape {list(source.sizes)} does not fit into shape {list(target.sizes)}")
        source_strides = expanded_strides(source.sizes, source_strides, target.sizes)
    if 0 in target.sizes:
        return
    numbers = _copy_numbers(target.sizes, target.stride(), source_strides)
    launch(layout_kernels.copy[_KIND[source.dtype], _KIND[target.dtype]], (target, source), numbers)


def require(condition: bool, name: str, x: Any, what: str) -> None:
    if not condition:
        raise DtypeError(f"{name} takes {what}, got a tensor of dtype {x.dtype.name} and shape {list(x.sizes)}")
