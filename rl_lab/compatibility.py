"""Further names of the torch namespace: constants, queries about tensors and dtypes, and settings."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from rl_lab.engine import random
from rl_lab.engine.dtype import DType, DTypeLike, NamedDType, as_dtype, float32, int64, uint8
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.operands import INTEGERS, broadcast_shape
from rl_lab.engine.tensor import Size

inf = math.inf
nan = math.nan
pi = math.pi
e = math.e
newaxis = None


def is_tensor(obj: object) -> bool:
    """Whether ``obj`` is a tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype of ``input`` is float32."""
    return input.dtype.is_floating_point


def numel(input: Tensor) -> int:
    """Number of elements."""
    return input.numel()


def detach(input: Tensor) -> Tensor:
    """A tensor over the same memory without a history."""
    return input.detach()


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a tensor of fewer dimensions is returned as it is."""
    return input.t()


def as_function(name: str) -> Callable[..., Tensor]:
    """A method of tensors as a function of the package, whose first argument has PyTorch's name ``input``."""
    method = getattr(Tensor, name)

    @functools.wraps(method)
    def function(input: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return method(input, *arguments, **options)

    function.__module__ = "rl_lab"
    function.__name__ = function.__qualname__ = name
    first, *rest = inspect.signature(method).parameters.values()
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [first.replace(name="input", annotation=Tensor), *rest], return_annotation=Tensor
    )
    return function


def broadcast_shapes(*shapes: int | tuple[int, ...]) -> Size:
    """Shape to which all ``shapes`` broadcast; a number is a shape of one dimension. Raises ShapeError if they do not broadcast."""
    return Size(broadcast_shape(*[(int(shape),) if isinstance(shape, INTEGERS) else tuple(shape) for shape in shapes]))


# --- dtypes ----------------------------------------------------------------------------------------------------------


def finfo(dtype: DTypeLike = float32) -> np.finfo[np.float32]:
    """Numerical limits of float32. Raises DtypeError for another dtype."""
    if as_dtype(dtype) is not float32:
        raise DtypeError(f"finfo needs a float dtype, got {dtype}")
    return np.finfo(np.float32)


def iinfo(dtype: DTypeLike = int64) -> np.iinfo:
    """Numerical limits of an integer dtype. Raises DtypeError for another dtype."""
    if as_dtype(dtype) not in (int64, uint8):
        raise DtypeError(f"iinfo needs an integer dtype, got {dtype}")
    return np.iinfo(dtype.name) if isinstance(dtype, (DType, NamedDType)) else np.iinfo(np.int64)


def get_default_dtype() -> DType:
    """Always float32."""
    return float32


def set_default_dtype(d: DTypeLike) -> None:
    """Accept float32. Raises DtypeError for any other dtype."""
    if as_dtype(d) is not float32:
        raise DtypeError(f"the default dtype is float32 and cannot be changed to {d}")


# --- settings --------------------------------------------------------------------------------------------------------


def set_num_threads(count: int) -> None:
    """Set the number of threads for large launches, at most the number of cores. Results do not depend on it.

    Raises ValueError if ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"the number of threads must be positive, got {count}")
    limit = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(count, limit))


def get_num_threads() -> int:
    """Number of threads for large launches."""
    return numba.get_num_threads()


def set_num_interop_threads(count: int) -> None:
    """Do nothing: operations run one after the other."""


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Do nothing: every algorithm is deterministic."""


def are_deterministic_algorithms_enabled() -> bool:
    """Always True."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Do nothing: matrix products are computed in full float32."""


# --- the default stream ----------------------------------------------------------------------------------------------


def get_rng_state() -> Tensor:
    """State of the default random stream, int64 (4,)."""
    return random.default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Restore a state of the default random stream that `get_rng_state` returned."""
    random.default_generator.set_state(new_state)
