"""Copies of a tensor, in the same or in another dtype."""

from rl_lab.engine.dtype import DType, NamedDType
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops.operands import copy_into, same_rule
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, empty


def convert(x: Tensor, dtype: DType) -> Tensor:
    """The tensor in ``dtype``: itself if it has this dtype already, else a copy without a gradient."""
    if x.dtype is dtype:
        return x
    out = empty(x.sizes, dtype)
    copy_into(out, x)
    return out


def check_limits(x: Tensor, dtype: NamedDType) -> None:
    """Raise OverflowError if an integer tensor holds a number outside the range of the narrower ``dtype``.

    Nothing is checked during a recording, which cannot read values.
    """
    if dtype.limits is None or not x.numel() or recorder() is not None:
        return
    array = x._array(lasting=False)
    if array.min() < dtype.limits[0] or array.max() > dtype.limits[1]:
        low, high = dtype.limits
        raise OverflowError(
            f"numbers from {array.min()} to {array.max()} do not fit into {dtype.name}, which holds {low} to {high}"
        )


def clone(input: Tensor) -> Tensor:
    """A contiguous copy. The gradient passes through unchanged."""
    out = empty(input.sizes, input.dtype)
    copy_into(out, input)
    return attach(out, same_rule, (input,))
