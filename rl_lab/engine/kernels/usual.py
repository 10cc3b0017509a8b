"""Kernels that most agents need in their first seconds, those that take longest to compile first (see `rl_lab.native.ahead`)."""

from rl_lab.engine.kernels import elementwise
from rl_lab.engine.kernels.indexing import gather, scatter_add, take, take_int
from rl_lab.engine.kernels.layout import copy
from rl_lab.engine.kernels.matmul import matmul
from rl_lab.engine.kernels.optimizer import adam, advance, clip_gradients, first_not_finite, total_norm
from rl_lab.engine.kernels.random import uniform
from rl_lab.engine.kernels.reduction import largest_over, max_over, sum_over, variance_over

KERNELS = (
    matmul,
    adam,
    copy["float", "float"],
    copy["int", "float"],
    copy["int", "int"],
    elementwise.relu_backward,
    elementwise.square_backward,
    elementwise.clamp,
    sum_over,
    max_over,
    largest_over,
    take,
    gather,
    scatter_add,
    total_norm,
    clip_gradients,
    elementwise.compare["lt"],
    elementwise.relu,
    elementwise.square,
    elementwise.add_into,
    variance_over,
    take_int,
    first_not_finite,
    elementwise.div,
    elementwise.mul,
    elementwise.add,
    elementwise.sub,
    advance,
    uniform,
)
