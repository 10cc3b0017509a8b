"""What scripts written for PyTorch touch beside the mathematics: facts about tensors and dtypes, settings, and names from elsewhere."""

import math
from typing import Any

import numba
import numpy as np

from rl_lab.engine import random
from rl_lab.engine.dtype import DType, as_dtype, float32, int64
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.operands import broadcast_shape

inf, nan, pi, e, newaxis = math.inf, math.nan, math.pi, math.e, None


class Size(tuple):
    """A shape. Tensors give plain tuples, which compare equal."""

    __slots__ = ()

    def numel(self) -> int:
        return math.prod(self)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def is_floating_point(x: Tensor) -> bool:
    return x.dtype.is_floating_point


numel, detach, t = Tensor.numel, Tensor.detach, Tensor.t


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that these broadcast to; ShapeError if there is none."""
    return broadcast_shape(*map(tuple, shapes))


# --- dtypes ----------------------------------------------------------------------------------------------------------


def finfo(dtype: DType = float32) -> np.finfo:
    """Limits of float32; DtypeError for another dtype."""
    if as_dtype(dtype) is not float32:
        raise DtypeError(f"finfo takes a float dtype, not {dtype}")
    return np.finfo(np.float32)


def iinfo(dtype: DType = int64) -> np.iinfo:
    """Limits of int64; DtypeError for another dtype."""
    if as_dtype(dtype) is not int64:
        raise DtypeError(f"iinfo takes an integer dtype, not {dtype}")
    return np.iinfo(np.int64)


def get_default_dtype() -> DType:
    return float32


def set_default_dtype(dtype: DType) -> None:
    """Accepts float32; DtypeError for anything else."""
    if as_dtype(dtype) is not float32:
        raise DtypeError(f"the default dtype is float32 and cannot be {dtype}")


# --- settings --------------------------------------------------------------------------------------------------------


def set_num_threads(count: int) -> None:
    """How many threads large launches may use, at most the number of cores. Results do not depend on it."""
    if count < 1:
        raise ValueError(f"the number of threads must be positive, got {count}")
    limit = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(count, limit))


def get_num_threads() -> int:
    return numba.get_num_threads()


def set_num_interop_threads(count: int) -> None:
    """Nothing: operations run one after the other."""


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing: there are no others."""


def are_deterministic_algorithms_enabled() -> bool:
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing: products are computed in full float32."""


# --- the default stream ----------------------------------------------------------------------------------------------


def get_rng_state() -> Tensor:
    """The position of the default stream: 4 int64 words."""
    return random.default_generator.get_state()


def set_rng_state(state: Any) -> None:
    """Go to a position that `get_rng_state` returned."""
    random.default_generator.set_state(state)
