"""Copies: as it is, in another dtype, and on the one device there is."""

from typing import Any

from rl_lab.engine.dtype import DType
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


def clone(input: Any) -> Tensor:
    """A contiguous copy; gradients pass through."""
    out = empty(input.sizes, input.dtype)
    copy_into(out, input)
    return attach(out, same_rule, (input,))
