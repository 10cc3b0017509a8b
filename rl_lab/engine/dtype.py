"""The three dtypes of the lab: float32, the only differentiable one, int64 and bool."""

import builtins

import numpy as np

from rl_lab.engine.errors import DtypeError


class DType:
    """A tensor's element type. ``str(dtype)`` is PyTorch's spelling without the package."""

    def __init__(self, name: str, numpy_dtype: type, rank: int):
        self.name, self.numpy, self.rank = name, np.dtype(numpy_dtype), rank
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = name == "float32"

    def __repr__(self) -> str:
        return f"rl_lab.{self.name}"

    def __reduce__(self) -> str:
        return {"bool": "bool_"}.get(self.name, self.name)


float32 = DType("float32", np.float32, 2)
int64 = DType("int64", np.int64, 1)
bool_ = DType("bool", np.bool_, 0)
DTYPES = (float32, int64, bool_)

DTypeLike = DType | type | None
"""Values accepted by every ``dtype`` argument: a dtype, Python's float, int or bool, or None for the default."""

_PYTHON = {builtins.float: float32, builtins.int: int64, builtins.bool: bool_}


def as_dtype(dtype: object) -> DType:
    """The lab's dtype for a dtype argument; Python's float, int and bool are accepted. DtypeError for any other."""
    if isinstance(dtype, DType):
        return dtype
    try:
        return _PYTHON[dtype]  # type: ignore[index]
    except (KeyError, TypeError):
        raise DtypeError(f"dtype {dtype!r} is not one of float32, int64, bool: rl_lab computes in float32 only") from None


def dtype_of_numpy(dtype: np.dtype) -> DType:
    """What an array of this NumPy dtype becomes: floats float32, integers int64, bool bool. DtypeError for any other."""
    if dtype.kind == "f":
        return float32
    if dtype.kind in "iu":
        return int64
    if dtype.kind == "b":
        return bool_
    raise DtypeError(f"an array of dtype {dtype} has no tensor form: use floats, integers or bool")
