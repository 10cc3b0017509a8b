"""Copies: as it is, in another dtype, and on the one device there is."""

from typing import TYPE_CHECKING, Any

from rl_lab.engine.device import CPU, check_device, device
from rl_lab.engine.dtype import DType, as_dtype, bool_, float32, int64
from rl_lab.engine.ops.operands import copy_into, same_rule
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import TensorCore, empty

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


def convert(x: Any, dtype: DType) -> "Tensor":
    """The tensor in another dtype; itself if it has that already. Only float32 carries gradients."""
    if x.dtype is dtype:
        return x
    out = empty(x.shape, dtype)
    copy_into(out, x)
    return out


def clone(x: Any) -> "Tensor":
    """A contiguous copy; gradients pass through."""
    out = empty(x.shape, x.dtype)
    copy_into(out, x)
    return attach(out, same_rule, (x,))


class ConversionMethods:
    """The methods of Tensor that change dtype or device."""

    __slots__ = ()

    dtype: DType

    @property
    def device(self) -> "device":
        """The cpu."""
        return CPU

    is_cuda = False

    def to(
        self, *targets: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False
    ) -> "Tensor":
        """This tensor in another dtype. A device is accepted if it is the cpu, else DeviceError."""
        for target in targets:
            if isinstance(target, TensorCore):
                dtype = target.dtype
            elif isinstance(target, DType) or target in (float, int, bool):
                dtype = target
            else:
                check_device(target)
        check_device(device)
        result: Any = self
        if dtype is not None:
            result = convert(self, as_dtype(dtype))
        return clone(result) if copy and result is self else result

    def type_as(self, other: Any) -> "Tensor":
        return convert(self, other.dtype)

    def float(self) -> "Tensor":
        return convert(self, float32)

    def double(self) -> "Tensor":
        """float32: the lab has no float64."""
        return convert(self, float32)

    def long(self) -> "Tensor":
        return convert(self, int64)

    int = long

    def bool(self) -> "Tensor":
        return convert(self, bool_)

    def cpu(self) -> "Tensor":
        return self  # type: ignore[return-value]

    pin_memory = share_memory_ = cpu

    def cuda(self, *arguments: Any, **options: Any) -> "Tensor":
        """DeviceError: there is no such device."""
        return self.to("cuda")

    def type(self, dtype: Any = None) -> Any:
        """The name of the legacy tensor type, or this tensor as one of them or in a dtype."""
        if dtype is None:
            return {"float32": "rl_lab.FloatTensor", "int64": "rl_lab.LongTensor", "bool": "rl_lab.BoolTensor"}[self.dtype.name]
        return convert(self, getattr(dtype, "dtype", dtype))
