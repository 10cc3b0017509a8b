"""Operations that write their result into an operand."""

import math
from collections.abc import Callable

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.kernels.elementwise import add_scaled_into
from rl_lab.engine.launch import launch
from rl_lab.engine.number import real
from rl_lab.engine.ops.layout import copy_
from rl_lab.engine.ops.operands import constant, elementwise_into, operand
from rl_lab.engine.tape import modes
from rl_lab.engine.tensor import Tensor, check_writable, needs_gradient
from rl_lab.engine.types import Operand
from rl_lab.native.primitive import Primitive


def _as_direct_operand(target: Tensor, other: Operand) -> Tensor | None:
    """``other`` as an operand of a kernel that writes into ``target``; None if this needs a temporary or the tape.

    Raises StateError if the tape cannot follow the write.
    """
    check_writable(target)
    if target.dtype is not float32 or target.strides is not None:
        return None
    x = operand(other, target)
    if x.dtype is not float32 or (modes.grad and (needs_gradient(target) or needs_gradient(x))):
        return None
    if x.sizes != target.sizes and (x.numel() != 1 or len(x.sizes) > len(target.sizes)):
        return None
    if x.storage.address == target.storage.address and (x.address, x.sizes, x.strides) != (target.address, target.sizes, None):
        return None
    return x


def write_directly(kernel: Primitive, target: Tensor, other: Operand) -> bool:
    """target = kernel(target, other), in one launch; False, before anything has changed, if one launch is not enough."""
    x = _as_direct_operand(target, other)
    if x is None:
        return False
    elementwise_into(kernel, target, x)
    target.storage.version += 1
    return True


def add_directly(target: Tensor, other: Operand, alpha: float) -> bool:
    """target += alpha * other, in one launch; False, before anything has changed, if one launch is not enough."""
    x = _as_direct_operand(target, other)
    if x is None or x.sizes != target.sizes or x.strides is not None or not isinstance(alpha, (int, float)):
        return False
    launch(add_scaled_into, (target, x, constant(real(alpha))), (1, math.prod(target.sizes), 0, 1, 0, 0))
    target.storage.version += 1
    return True


def write_in_place(target: Tensor, compute: Callable[[Tensor], Tensor], operands: tuple[Operand, ...] = ()) -> Tensor:
    """target[...] = compute(target); returns the target. ``operands`` are the other tensors and numbers that ``compute`` uses.

    On the tape if one of them needs a gradient. Raises StateError if the tape cannot follow the write, ShapeError if the result has
    another shape.
    """
    check_writable(target)
    if modes.grad and (target.requires_grad or any(isinstance(x, Tensor) and x.requires_grad for x in operands)):
        return _store(target, compute(target.clone()))
    with tape.no_grad():
        return _store(target, compute(target))


def _store(target: Tensor, value: Tensor) -> Tensor:
    """Write the result of an operation into the target. Raises ShapeError or StateError if the target cannot hold it."""
    if value.sizes != target.sizes:
        raise ShapeError(f"the result of shape {list(value.sizes)} does not fit into the tensor of shape {list(target.sizes)}")
    if value.dtype.rank > target.dtype.rank:
        raise StateError(
            f"the result is {value.dtype.name} and cannot be stored in a {target.dtype.name} tensor: use the form that returns a "
            "new tensor"
        )
    copy_(target, value, from_target=True)
    if value.node is not None and value.node.own >= 0:
        value.node.move_own(target)
    return target
