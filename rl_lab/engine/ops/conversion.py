"""Copies: as it is, in another dtype, and on the one device there is."""

from typing import Any

from rl_lab.engine.dtype import DType, NamedDType
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops.operands import copy_into, same_rule
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, empty


def convert(x: Any, dtype: DType) -> Tensor:
    """The tensor in another dtype; itself if it has that already. Only float32 carries gradients."""
    if x.dtype is dtype:
        return x
    out = empty(x.sizes, dtype)
    copy_into(out, x)
    return out


def check_limits(x: Any, dtype: NamedDType) -> None:
    """Raise OverflowError if an integer tensor holds a number outside of the narrower dtype that was asked for.

    While a program is recorded, values cannot be read and are not checked.
    """
    if dtype.limits is None or not x.numel() or recorder() is not None:
        return
    array = x._array(lasting=False)
    if array.min() < dtype.limits[0] or array.max() > dtype.limits[1]:
        raise OverflowError(f"numbers from {array.min()} to {array.max()} do not fit into {dtype.name}")


def clone(input: Any) -> Tensor:
    """A contiguous copy; gradients pass through."""
    out = empty(input.sizes, input.dtype)
    copy_into(out, input)
    return attach(out, same_rule, (input,))
