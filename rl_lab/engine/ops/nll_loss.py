"""The negative log-likelihood loss, one launch forward and one backward."""

import math

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.gathering import launch_checked
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Shape, Tensor, empty
from rl_lab.engine.types import Gradients

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}


def refuse_old_reduction(size_average: object, reduce: object) -> None:
    """Raise TypeError if one of PyTorch's old names of ``reduction`` is given."""
    if size_average is not None or reduce is not None:
        raise TypeError("size_average and reduce must be None: give reduction='none', 'mean' or 'sum' instead")


def _loss(x: Tensor, target: Tensor, weight: Tensor, numbers: tuple[int, ...], shape: Shape) -> Tensor:
    with tape.no_grad():
        source = x.contiguous()
        labels = target.contiguous()
    out = empty(shape)
    used = empty(())
    launch_checked(indexing_kernels.picked_loss, (out, used, source, labels, weight), numbers)
    return attach(out, _nll_rule, (x,), (target, weight, used), (numbers, x.sizes, shape))


def _nll_rule(g: Tensor, node: Node) -> Gradients:
    target, weight, used = node.saved
    return _spread(g, target, weight, used, *node.context)


def _spread(
    g: Tensor, target: Tensor, weight: Tensor, used: Tensor, numbers: tuple[int, ...], shape: Shape, loss_shape: Shape
) -> Tensor:
    """The gradient of x, of ``shape``, from the gradient of the loss."""
    with tape.no_grad():
        source = g.contiguous()
        labels = target.contiguous()
    out = empty(shape)
    launch(indexing_kernels.picked_loss_backward, (out, source, used, labels, weight), numbers)
    return attach(out, _nll_gradient_rule, (g,), (target, weight), (numbers, loss_shape))


def _nll_gradient_rule(gg: Tensor, node: Node) -> Gradients:
    numbers, shape = node.context
    target, weight = node.saved
    return _loss(gg, target, weight, numbers, shape)  # the loss is linear in x


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[i, target[i]] * weight[target[i]] for log-probabilities (n, classes, ...), int64 classes (n, ...), weights (classes,).

    ``reduction`` "none" returns the losses, "sum" their sum, "mean" their mean by weight. Targets equal to ``ignore_index`` do not
    count. Raises IndexError for another target outside the classes, DtypeError, ShapeError or ValueError for unsuitable arguments,
    TypeError if ``size_average`` or ``reduce`` is not None.
    """
    refuse_old_reduction(size_average, reduce)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    if target.dtype is not int64:
        raise DtypeError(f"nll_loss takes int64 classes, got {target.dtype.name}: convert with .long() first")
    if input.dtype is not float32:
        raise DtypeError(f"nll_loss takes float32 log-probabilities, got {input.dtype.name}: convert with .float() first")
    place = 0 if input.dim() == 1 else 1
    if not input.sizes or target.sizes != (*input.sizes[:place], *input.sizes[place + 1 :]):
        raise ShapeError(
            f"nll_loss: a target of shape {list(target.sizes)} does not fit an input of shape {list(input.sizes)}: "
            "it needs the input's shape without the dimension of classes"
        )
    classes = input.sizes[place]
    if weight is not None and weight.sizes != (classes,):
        raise ShapeError(
            f"nll_loss: the weight needs one element for each of {classes} classes, got shape {list(weight.sizes)}"
        )
    n = math.prod(input.sizes[:place])
    m = math.prod(input.sizes[place + 1 :])
    numbers = (n, classes, m, ignore_index, int(weight is not None), REDUCTIONS[reduction])
    scale = constant(1.0) if weight is None else weight.detach().contiguous()
    return _loss(input, target, scale, numbers, target.sizes if reduction == "none" else ())
