"""Operations that write their result into an operand."""

from collections.abc import Callable

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.ops.layout import copy_
from rl_lab.engine.ops.operands import elementwise_into, operand
from rl_lab.engine.tape import modes
from rl_lab.engine.tensor import Tensor, check_writable
from rl_lab.engine.types import Operand
from rl_lab.native.primitive import Primitive


def write_in_place(
    target: Tensor, compute: Callable[[Tensor], Tensor], kernel: Primitive | None = None, operands: tuple[Operand, ...] = ()
) -> Tensor:
    """target[...] = compute(target); returns the target. ``operands`` are the other tensors and numbers that ``compute`` uses.

    On the tape if one of them needs a gradient. Else ``kernel``, if given, may write directly into a contiguous float32 target.
    Raises StateError if the tape cannot follow the write, ShapeError if the result has another shape.
    """
    check_writable(target)
    tracked = modes.grad and (target.requires_grad or any(isinstance(x, Tensor) and x.requires_grad for x in operands))
    if not tracked and kernel is not None and target.dtype is float32 and target.strides is None:
        others = tuple([operand(x, target) for x in operands])
        if all(
            x.dtype is float32
            and (x.sizes == target.sizes or (x.numel() == 1 and x.dim() <= target.dim()))
            and (x.storage.address != target.storage.address or (x.address == target.address and x.strides is None))
            for x in others
        ):
            elementwise_into(kernel, target, *others)
            target.storage.version += 1
            return target
    if not tracked:
        with tape.no_grad():
            return _store(target, compute(target))
    return _store(target, compute(target.clone()))


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
