"""Running maximum, minimum and logarithm of the sum of exponentials along a dimension."""

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.kernels import reduction as reduction_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.names import numpy_names
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.conversion import clone
from rl_lab.engine.ops.elementwise import exp, log
from rl_lab.engine.ops.gathering import gather, three_parts
from rl_lab.engine.ops.operands import as_float, constant, normal_dim, whole
from rl_lab.engine.ops.rearrange import flip
from rl_lab.engine.ops.reduction import Extremes
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients
from rl_lab.native.primitive import Primitive


def _running(x: Tensor, dim: int, kernel: Primitive, integer: Primitive) -> Extremes:
    """Values and indices of a running extreme: the last of equal elements. After a NaN the extreme stays NaN. As in PyTorch."""
    dim = normal_dim(dim, x.dim())
    if not x.sizes:
        with tape.no_grad():
            index = empty((), int64).zero_()
        return Extremes(clone(x), index)
    with tape.no_grad():
        source = whole(x).contiguous()
    index = empty(x.sizes, int64)
    launch(kernel if source.dtype is float32 else integer, (index, source), three_parts(source, dim))
    return Extremes(gather(x, dim, index), index)


@numpy_names
def cummax(input: Tensor, dim: int) -> Extremes:
    """(values, indices) of the largest element up to each position along ``dim``."""
    return _running(input, dim, reduction_kernels.running_max, reduction_kernels.running_max_int)


@numpy_names
def cummin(input: Tensor, dim: int) -> Extremes:
    """(values, indices) of the smallest element up to each position along ``dim``."""
    return _running(input, dim, reduction_kernels.running_min, reduction_kernels.running_min_int)


LOWEST = -3.4028234663852886e38  # the lowest float32 stands for log(0): minus infinity would lead to NaN


@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(sum(exp(x))) of the elements up to each position along ``dim``, without overflow."""
    x = as_float(input)
    dim = normal_dim(dim, x.dim())
    with tape.no_grad():
        source = x.contiguous()
    out = empty(x.sizes)
    launch(reduction_kernels.running_logsumexp, (out, source), three_parts(source, dim))
    return attach(out, _logcumsumexp_rule, (x,), (x, out), dim)


def _logcumsumexp_rule(g: Tensor, node: Node) -> Gradients:
    x, out = node.saved
    dim = node.context
    if not x.sizes:
        return g * 1.0

    # computed in logarithms, because exp(-out) overflows: once for the positive gradients, once for the negative ones
    def part(g: Tensor) -> Tensor:
        positive = g > 0.0
        logarithm = where(positive, log(where(positive, g, constant(1.0))), constant(LOWEST))
        return exp(flip(logcumsumexp(flip(logarithm - out, dim), dim), dim) + x)

    return part(g) - part(-g)
