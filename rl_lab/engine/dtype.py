"""The dtypes of tensors (float32, int64, uint8 and bool), and the names of PyTorch's other dtypes. Only float32 is differentiable."""

import builtins
import ctypes

import numpy as np

from rl_lab.engine.errors import DtypeError

_C_TYPES = {"float32": ctypes.c_float, "int64": ctypes.c_int64, "uint8": ctypes.c_uint8, "bool": ctypes.c_bool}


class DType:
    """The type of a tensor's elements.

    ``rank`` orders the dtypes: of two operands, the one with the lower rank is converted.
    """

    is_complex = False

    def __init__(self, name: str, numpy_dtype: type, rank: int):
        self.name = name
        self.numpy = np.dtype(numpy_dtype)
        self.rank = rank
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = name == "float32"
        self.is_signed = name in ("float32", "int64")
        self.at = _C_TYPES[name].from_address
        """The element at an address, as an object whose ``value`` is a Python number."""

    def __repr__(self) -> str:
        return f"rl_lab.{self.name}"

    def __reduce__(self) -> str:
        return {"bool": "bool_"}.get(self.name, self.name)


float32 = DType("float32", np.float32, 3)
int64 = DType("int64", np.int64, 2)
uint8 = DType("uint8", np.uint8, 1)
bool_ = DType("bool", np.bool_, 0)


_OF_NUMPY = {kind.numpy: kind for kind in (float32, int64, uint8, bool_)}


class NamedDType:
    """A dtype of PyTorch that no tensor has in rl_lab. Used as a dtype it stands for ``nearest``, or raises if ``nearest`` is None.

    It compares equal to ``nearest``, so ``x.dtype == rl.float64`` is true for a float32 tensor. ``limits`` is the range of its
    integers; a value outside of this range is an error.
    """

    def __init__(self, name: str, nearest: DType | None, limits: tuple[int, int] | None = None):
        self.name = name
        self.nearest = nearest
        self.limits = limits

    def __repr__(self) -> str:
        return f"rl_lab.{self.name}"

    def __eq__(self, other: object) -> bool:
        return self is other or (self.nearest is not None and other is self.nearest)

    def __hash__(self) -> int:
        return hash(self.name) if self.nearest is None else hash(self.nearest)

    def __reduce__(self) -> str:
        return self.name

    @property
    def is_floating_point(self) -> bool:
        return "float" in self.name

    def resolve(self) -> DType:
        """The dtype that this one stands for. Raises DtypeError if there is none."""
        if self.nearest is None:
            raise DtypeError(f"dtype {self.name} does not exist in rl_lab, which computes in float32: use float32")
        return self.nearest


float64 = NamedDType("float64", float32)
int32 = NamedDType("int32", int64, (-(2**31), 2**31 - 1))
int16 = NamedDType("int16", int64, (-(2**15), 2**15 - 1))
int8 = NamedDType("int8", int64, (-128, 127))
uint16 = NamedDType("uint16", int64, (0, 2**16 - 1))
uint32 = NamedDType("uint32", int64, (0, 2**32 - 1))
uint64 = NamedDType("uint64", int64, (0, 2**63 - 1))
float16 = NamedDType("float16", None)
bfloat16 = NamedDType("bfloat16", None)
complex64 = NamedDType("complex64", None)
complex128 = NamedDType("complex128", None)

DTypeLike = DType | NamedDType | type | None
"""Values accepted by every ``dtype`` argument: a dtype, Python's float, int or bool, or None for the default."""

_PYTHON = {builtins.float: float32, builtins.int: int64, builtins.bool: bool_}


def as_dtype(dtype: object) -> DType:
    """The `DType` of a dtype argument, which may also be Python's float, int or bool. Raises DtypeError for anything else."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, NamedDType):
        return dtype.resolve()
    try:
        return _PYTHON[dtype]  # type: ignore[index]
    except (KeyError, TypeError):
        raise DtypeError(
            f"dtype {dtype!r} is not one of float32, int64, uint8, bool: rl_lab computes in float32 only"
        ) from None


def limits_of(dtype: object) -> tuple[int, int] | None:
    """The smallest and largest integer of a dtype argument with less than 64 bits; None for other dtypes."""
    if dtype is uint8:
        return 0, 255
    return dtype.limits if isinstance(dtype, NamedDType) else None


def dtype_of_numpy(dtype: np.dtype) -> DType:
    """The dtype of a tensor made from an array of this NumPy dtype.

    Floats become float32, uint8 stays uint8, other integers become int64, and bool stays bool. Raises DtypeError for other dtypes.
    """
    kind = _OF_NUMPY.get(dtype)
    if kind is not None:
        return kind
    if dtype.kind == "f":
        return float32
    if dtype.kind in "iu":
        return int64
    if dtype.kind == "b":
        return bool_
    raise DtypeError(f"an array of dtype {dtype} cannot become a tensor: use floats, integers or bool")
