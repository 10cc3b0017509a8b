"""rl_lab: reinforcement learning on a CPU, on an autograd core of its own.

``import rl_lab as rl`` gives PyTorch's names for tensors: ``rl.tensor``, ``rl.no_grad``, ``rl.nn``, ``rl.optim``.
"""

from typing import TYPE_CHECKING

from rl_lab import autograd, backends, cuda, distributions, envs, nn, optim
from rl_lab.compatibility import (
    Size,
    are_deterministic_algorithms_enabled,
    broadcast_shapes,
    detach,
    e,
    finfo,
    get_default_dtype,
    get_num_threads,
    get_rng_state,
    iinfo,
    inf,
    is_floating_point,
    is_tensor,
    nan,
    newaxis,
    numel,
    pi,
    set_default_dtype,
    set_float32_matmul_precision,
    set_num_interop_threads,
    set_num_threads,
    set_rng_state,
    t,
    use_deterministic_algorithms,
)
from rl_lab.engine import errors
from rl_lab.engine.compile import compile
from rl_lab.engine.device import device
from rl_lab.engine.draw import draw_graph
from rl_lab.engine.dtype import DType as dtype
from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import (
    add,
    addcdiv,
    addcmul,
    atan2,
    clamp,
    clamp_max,
    clamp_min,
    copysign,
    div,
    floor_divide,
    fmax,
    fmin,
    fmod,
    heaviside,
    hypot,
    lerp,
    logaddexp,
    logaddexp2,
    logit,
    masked_fill,
    maximum,
    minimum,
    mul,
    nan_to_num,
    remainder,
    sub,
    where,
    xlogy,
)
from rl_lab.engine.ops.arithmetic import power as pow
from rl_lab.engine.ops.comparison import (
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    equal,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from rl_lab.engine.ops.creation import (
    BoolTensor,
    FloatTensor,
    LongTensor,
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from rl_lab.engine.ops.diagonals import diag, diag_embed, diagonal, trace, tril, triu
from rl_lab.engine.ops.elementwise import (
    absolute,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    celu,
    cos,
    cosh,
    digamma,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    frac,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    neg,
    reciprocal,
    relu,
    round,
    rsqrt,
    sech,
    selu,
    sigmoid,
    sign,
    sin,
    sinc,
    sinh,
    sqrt,
    square,
    tan,
    tanh,
    trunc,
)
from rl_lab.engine.ops.gathering import gather, index_add, index_select, scatter, scatter_add, take_along_dim
from rl_lab.engine.ops.indexing import index_copy, index_fill, index_put, masked_select, nonzero
from rl_lab.engine.ops.layout import (
    cat,
    chunk,
    clone,
    flatten,
    narrow,
    permute,
    reshape,
    select,
    split,
    squeeze,
    stack,
    transpose,
    unbind,
    unsqueeze,
)
from rl_lab.engine.ops.matmul import (
    addmm,
    addmv,
    addr,
    baddbmm,
    bmm,
    dot,
    einsum,
    inner,
    matmul,
    mm,
    mv,
    outer,
    tensordot,
)
from rl_lab.engine.ops.rearrange import (
    broadcast_tensors,
    broadcast_to,
    diff,
    flip,
    hstack,
    meshgrid,
    movedim,
    ravel,
    repeat_interleave,
    roll,
    tensor_split,
    tile,
    unflatten,
    vstack,
)
from rl_lab.engine.ops.recurrent import gru_cell, lstm_cell
from rl_lab.engine.ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumprod,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    std,
    std_mean,
    sum,
    var,
    var_mean,
)
from rl_lab.engine.ops.sorting import argsort, kthvalue, median, sort, topk
from rl_lab.engine.random import (
    Generator,
    bernoulli,
    manual_seed,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
)
from rl_lab.engine.tape import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from rl_lab.nn.functional import (
    avg_pool1d,
    batch_norm,
    binary_cross_entropy_with_logits,
    conv1d,
    conv2d,
    conv_transpose2d,
    cosine_similarity,
    dropout,
    embedding,
    group_norm,
    kl_div,
    layer_norm,
    max_pool1d,
    max_pool2d,
    prelu,
    rms_norm,
    threshold,
)
from rl_lab.serialization import load, save

__version__ = "0.1.0"

abs, concat, concatenate, clip, moveaxis, row_stack = absolute, cat, cat, clamp, movedim, vstack
subtract, multiply, divide, true_divide, negative, fix = sub, mul, div, div, neg, trunc
swapaxes = swapdims = transpose
arcsin, arccos, arctan, arctan2 = asin, acos, atan, atan2
arcsinh, arccosh, arctanh, ger = asinh, acosh, atanh, outer
greater, greater_equal, less, less_equal, not_equal, asarray = gt, ge, lt, le, ne, as_tensor
bool, float, long = bool_, float32, int64
if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())
