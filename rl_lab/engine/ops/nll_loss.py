"""The negative log-likelihood: what a loss picks by class, weighs and averages, in one launch each way."""

import math
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import indexing as indexing_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.gathering import launch_checked
from rl_lab.engine.ops.operands import constant
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, empty

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}


def _loss(x: Any, target: Any, weight: Any, numbers: tuple, shape: tuple) -> Any:
    with tape.no_grad():
        source, labels = x.contiguous(), target.contiguous()
    out, used = empty(shape), empty(())
    launch_checked(indexing_kernels.picked_loss, (out, used, source, labels, weight), numbers)
    return attach(out, _nll_rule, (x,), (target, weight, used), (numbers, x.sizes, shape))


def _nll_rule(g, node):
    target, weight, used = node.saved
    return _spread(g, target, weight, used, *node.context)


def _spread(g: Any, target: Any, weight: Any, used: Any, numbers: tuple, shape: tuple, loss_shape: tuple) -> Any:
    with tape.no_grad():
        source, labels = g.contiguous(), target.contiguous()
    out = empty(shape)
    launch(indexing_kernels.picked_loss_backward, (out, source, used, labels, weight), numbers)
    return attach(out, _nll_gradient_rule, (g,), (target, weight), (numbers, loss_shape))


def _nll_gradient_rule(gg, node):
    (target, weight), (numbers, shape) = node.saved, node.context
    return _loss(gg, target, weight, numbers, shape)  # the loss is linear


def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-probabilities (n, classes, ...) at the target classes (n, ...), times the weight (classes) of each class.

    The mean is by weight; targets ``ignore_index`` do not count. IndexError for any other target outside the classes.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    if target.dtype is not int64:
        raise DtypeError(f"nll_loss takes int64 classes, got {target.dtype.name}")
    if input.dtype is not float32:
        raise DtypeError(f"nll_loss takes float32 log-probabilities, got {input.dtype.name}")
    place = 0 if input.dim() == 1 else 1
    if not input.sizes or target.sizes != (*input.sizes[:place], *input.sizes[place + 1 :]):
        raise ShapeError(f"nll_loss: input of shape {list(input.sizes)} and target of shape {list(target.sizes)} do not fit")
    classes = input.sizes[place]
    if weight is not None and weight.sizes != (classes,):
        raise ShapeError(f"nll_loss: weight of shape {list(weight.sizes)} is not [{classes}]")
    n, m = math.prod(input.sizes[:place]), math.prod(input.sizes[place + 1 :])
    numbers = (n, classes, m, ignore_index, int(weight is not None), REDUCTIONS[reduction])
    scale = constant(1.0) if weight is None else weight.detach().contiguous()
    return _loss(input, target, scale, numbers, target.sizes if reduction == "none" else ())
