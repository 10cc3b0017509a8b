"""Binary cross entropy of probabilities and of logits, element by element. At 0, 1 and large logits the gradients are PyTorch's."""

from rl_lab.engine.dtype import float32
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.ops.elementwise import log, log1p, logsigmoid, sigmoid, square
from rl_lab.engine.ops.gathering import check_probabilities
from rl_lab.engine.ops.operands import binary, elementwise, fit
from rl_lab.engine.tape import Node, attach, no_grad
from rl_lab.engine.tensor import Tensor
from rl_lab.engine.types import Gradients

EPSILON = 1e-12


def _bce_slope(g: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """g * (x - target) / max(x (1 - x), EPSILON)."""
    with no_grad():
        result = elementwise(elementwise_kernels.bce_backward, (g, x, target), float32)
    return attach(result, _bce_slope_rule, (g, x, target), (g, x, target))


def _bce_slope_rule(gg: Tensor, node: Node) -> Gradients:
    g, x, target = node.saved
    product = (x + EPSILON) * (1.0 - x + EPSILON)
    return (
        gg * (x - target) / product if node.wants(0) else None,
        gg * g * (square(x) - x * target * 2.0 + target) / square(product) if node.wants(1) else None,
        -gg * g / product if node.wants(2) else None,
    )


def _bce_rule(g: Tensor, node: Node) -> Gradients:
    x, target = node.saved
    return (
        _bce_slope(g, x, target) if node.wants(0) else None,
        g * (log1p(-x) - log(x)) if node.wants(1) else None,
    )


def bce(x: Tensor, target: Tensor) -> Tensor:
    """-target log(x) - (1 - target) log(1 - x), where each logarithm is at least -100.

    Raises ValueError if an element of x or of the target is not in [0, 1].
    """
    check_probabilities(x)
    check_probabilities(target)
    return attach(binary(elementwise_kernels.bce, x, target), _bce_rule, (x, target), (x, target))


def _logits_rule(g: Tensor, node: Node) -> Gradients:
    x, target, pos_weight = node.saved
    to_x = to_target = to_weight = None
    if pos_weight is None:
        if node.wants(0):
            to_x = (sigmoid(x) - target) * g
        if node.wants(1):
            to_target = -x * g
        return to_x, to_target
    weighted = pos_weight * target
    if node.wants(0):
        to_x = fit(((weighted + 1.0 - target) * sigmoid(x) - weighted) * g, x.sizes)
    if node.wants(1):
        to_target = fit((logsigmoid(-x) - logsigmoid(x) * pos_weight) * g, target.sizes)
    if node.wants(2):
        to_weight = fit(-target * logsigmoid(x) * g, pos_weight.sizes)
    return to_x, to_target, to_weight


def bce_with_logits(x: Tensor, target: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """`bce` of sigmoid(x), but exact for large x. ``pos_weight``, which broadcasts, multiplies the term of the target."""
    with no_grad():
        losses = logsigmoid(x)
        if pos_weight is not None:
            losses = losses * ((pos_weight - 1.0) * target + 1.0)
        losses = (1.0 - target) * x - losses
    given = (x, target) if pos_weight is None else (x, target, pos_weight)
    return attach(losses, _logits_rule, given, (x, target, pos_weight))
