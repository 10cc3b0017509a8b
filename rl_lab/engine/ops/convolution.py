"""Convolution and pooling. The three products of a convolution are one trilinear form, so each one's gradients are the other two."""

from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import convolution as convolution_kernels
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.launch import launch, launch_parts
from rl_lab.engine.ops.gathering import scatter_sum
from rl_lab.engine.ops.layout import cat, embed
from rl_lab.engine.ops.matmul import PRODUCTS_A_CYCLE, blocks_of
from rl_lab.engine.ops.operands import INTEGERS, elementwise_into, require
from rl_lab.engine.ops.rearrange import pad
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import Tensor, empty, owned

Pair = Any
"""One integer for both axes, or two."""
WIDE, CACHED = 256, 65_536


def pair(value: Any, name: str, least: int, count: int = 2) -> tuple[int, ...]:
    """One number for all axes, or one for each. ValueError below ``least``."""
    values: tuple[int, ...] = (int(value),) * count if isinstance(value, INTEGERS) else tuple(value)
    if len(values) == 1:
        values *= count
    if len(values) != count or min(values) < least:
        raise ValueError(f"{name} must be {count} integers of at least {least}, got {value}")
    return values


def window_count(size: int, window: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows fit along an axis."""
    return (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1


class _Plan:
    """The sizes of a convolution in the kernels' order."""

    def __init__(self, x: tuple, weight: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int):
        self.x, self.weight, self.groups = x, weight, groups
        self.settings = (stride, padding, dilation, groups)
        self.window = (*weight[2:], *stride, *padding, *dilation)
        rows, columns = (window_count(x[2 + i], weight[2 + i], stride[i], padding[i], dilation[i]) for i in (0, 1))
        self.out = (x[0], weight[0], rows, columns)
        inner, area = weight[1] * weight[2] * weight[3], rows * columns
        self.products = inner * weight[0] * x[0] * area
        # the columns of so many samples make one product: wide enough for BLAS, small enough for the cache
        self.together = max(1, min(x[0], WIDE // max(area, 1), CACHED // max(inner * area, 1)))
        self.columns, self.collected = (self.together * area * size for size in (inner, weight[0] // groups))

    def numbers(self, batch: int) -> tuple[int, ...]:
        groups = self.groups
        sizes = (self.weight[0] // groups, self.weight[1], *self.x[2:], *self.out[2:])
        return (self.together, batch, groups, *sizes, *self.window)

    def cuts(self) -> list[tuple[int, int]]:
        """The parts of the batch for several cores, by size alone."""
        blocks = min(blocks_of(1, 1, self.products), self.x[0])
        edges = [t * self.x[0] // blocks for t in range(blocks + 1)] if blocks else [0, 0]
        return list(zip(edges, edges[1:], strict=False))


def _run(kernel: Any, plan: _Plan, tensors: tuple, steps: tuple[int, ...], flags: tuple[int, ...] = ()) -> None:
    """Launch over the batch. The kernel's first tensor is the result, its next two are working memory; ``steps`` are the elements
    of one sample in each of the others and the first."""
    parts: list[Any] = []
    for low, high in plan.cuts():
        filled = (tensors[0], empty((plan.columns,)), empty((plan.collected,)), *tensors[1:])
        offsets = (low * steps[0], 0, 0, *[low * step for step in steps[1:]])
        parts.append((filled, offsets, (*flags, *plan.numbers(high - low))))
    if len(parts) == 1:
        launch(kernel, parts[0][0], parts[0][2])
    else:
        launch_parts(kernel, parts, plan.products // PRODUCTS_A_CYCLE)


def _volume(shape: tuple[int, ...]) -> int:
    return shape[1] * shape[2] * shape[3]


def _forward(x: Any, weight: Any, bias: Any, plan: _Plan) -> Any:
    out = empty(plan.out)
    tensors = (out, x, weight, weight if bias is None else bias)
    _run(convolution_kernels.convolve, plan, tensors, (_volume(plan.out), _volume(plan.x), 0, 0), (int(bias is not None),))
    return out


def _contiguous(*tensors: Any) -> tuple:
    with tape.no_grad():
        return tuple([None if t is None else t.contiguous() for t in tensors])


def _convolve(x: Any, weight: Any, bias: Any, plan: _Plan) -> Any:
    dense_x, dense_weight, dense_bias = _contiguous(x, weight, bias)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    saved = (x if weight.requires_grad else None, weight if x.requires_grad else None)
    return attach(_forward(dense_x, dense_weight, dense_bias, plan), _convolution_rule, inputs, saved, plan)


def _convolution_rule(g, node):
    (x, weight), plan = node.saved, node.context
    to_x = _to_input(g, weight, plan) if node.wants(0) else None
    to_weight = _to_weight(g, x, plan) if node.wants(1) else None
    if len(node.inputs) == 2:
        return to_x, to_weight
    return to_x, to_weight, _to_bias(g, plan) if node.wants(2) else None


def _to_input(g: Any, weight: Any, plan: _Plan) -> Any:
    dense, kernel = _contiguous(g, weight)
    out = empty(plan.x)
    _run(convolution_kernels.convolve_to_input, plan, (out, dense, kernel), (_volume(plan.x), _volume(plan.out), 0))
    return attach(out, _transposed_convolution_rule, (g, weight), (g, weight), plan)


def _transposed_convolution_rule(gg, node):
    (g, weight), plan = node.saved, node.context
    to_g = _convolve(gg, weight, None, plan) if node.wants(0) else None
    return to_g, _to_weight(g, gg, plan) if node.wants(1) else None


def _to_weight(g: Any, x: Any, plan: _Plan) -> Any:
    dense, source = _contiguous(g, x)
    if not plan.x[0]:
        return g.sum() * x.sum() + empty(plan.weight).zero_()
    cuts = plan.cuts()
    sums = [empty(plan.weight) for _ in cuts]
    parts: list[Any] = []
    for total, (low, high) in zip(sums, cuts, strict=True):
        tensors = (total, empty((plan.columns,)), empty((plan.collected,)), empty(plan.weight), dense, source)
        parts.append((tensors, (0, 0, 0, 0, low * _volume(plan.out), low * _volume(plan.x)), plan.numbers(high - low)))
    if len(parts) == 1:
        launch(convolution_kernels.convolve_to_weight, parts[0][0], parts[0][2])
    else:
        launch_parts(convolution_kernels.convolve_to_weight, parts, plan.products // PRODUCTS_A_CYCLE)
    for part in sums[1:]:
        elementwise_into(add_into, sums[0], part)
    return attach(sums[0], _weight_gradient_rule, (g, x), (g, x), plan)


def _weight_gradient_rule(gg, node):
    (g, x), plan = node.saved, node.context
    to_g = _convolve(x, gg, None, plan) if node.wants(0) else None
    return to_g, _to_input(g, gg, plan) if node.wants(1) else None


def _to_bias(g: Any, plan: _Plan) -> Any:
    if tape.modes.grad:
        return g.sum((0, 2, 3))
    (dense,) = _contiguous(g)
    out = empty((plan.out[1],))
    launch(convolution_kernels.sum_of_planes, (out, dense), (plan.out[0], plan.out[1], plan.out[2] * plan.out[3]))
    return out


def _check(name: str, rank: int, x: Any, weight: Any, bias: Any, groups: int, transposed: bool = False) -> None:
    for tensor in (x, weight, bias):
        if tensor is not None and tensor.dtype is not float32:
            raise DtypeError(f"{name} takes float32 tensors, got {tensor.dtype.name}")
    channels, filters = (x.sizes[-rank - 1] if len(x.sizes) > rank else -1), weight.sizes[0] if weight.sizes else 0
    per_group = filters if transposed else weight.sizes[1] * groups if len(weight.sizes) > 1 else -1
    if len(weight.sizes) != rank + 2 or len(x.sizes) not in (rank + 1, rank + 2) or per_group != channels:
        raise ShapeError(
            f"{name}: input of shape {list(x.sizes)} and weight of shape {list(weight.sizes)} do not fit with {groups} groups"
        )
    outputs = weight.sizes[1] * groups if transposed else filters
    if groups < 1 or filters % groups:
        raise ShapeError(f"{name}: {filters} filters cannot be divided into {groups} groups")
    if bias is not None and bias.sizes != (outputs,):
        raise ShapeError(f"{name}: bias of shape {list(bias.sizes)} does not fit {outputs} output channels")


def _same_padding(weight: Any, stride: tuple, dilation: tuple) -> tuple[list[int], list[int]]:
    """PyTorch's padding='same': what goes before and after each axis."""
    if set(stride) != {1}:
        raise ValueError("padding='same' needs a stride of 1")
    total = [d * (size - 1) for d, size in zip(dilation, weight.sizes[2:], strict=True)]
    return [t // 2 for t in total], [t - t // 2 for t in total]


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair | str = 0, dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """The cross-correlation of (n, channels, h, w) with weight (filters, channels / groups, kh, kw), plus bias (filters,).

    ``padding`` counts zeros on each side, or is 'valid' or 'same'. An input without the batch dimension gives one without.
    """
    _check("conv2d", 2, input, weight, bias, groups)
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid', 'same' or integers, not {padding!r}")
        before, after = _same_padding(weight, stride, dilation) if padding == "same" else ([0, 0], [0, 0])
        if before != after:  # an even window: the extra zeros stand behind
            input = _padded(input, before, after)
            before = [0, 0]
        padding = tuple(before)
    x = input if len(input.sizes) == 4 else input.unsqueeze(0)
    plan = _Plan(x.sizes, weight.sizes, stride, pair(padding, "padding", 0), dilation, groups)
    if min(plan.out[2:]) < 1:
        raise ShapeError(
            f"conv2d: a window of {list(weight.sizes[2:])} does not fit into an input of shape {list(input.sizes)}"
        )
    out = _convolve(x, weight, bias, plan)
    return out if len(input.sizes) == 4 else out.squeeze(0)


def _padded(x: Any, before: list[int], after: list[int]) -> Any:
    rank = len(before)
    shape = (*x.sizes[:-rank], *[s + b + a for s, b, a in zip(x.sizes[-rank:], before, after, strict=True)])
    out = x
    for axis in range(rank):
        dim = len(shape) - rank + axis
        size = (*out.sizes[:dim], shape[dim], *out.sizes[dim + 1 :])
        steps = empty(size).stride()
        out = embed(out, size, (out.sizes, steps, before[axis] * steps[dim]))
    return out


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """`conv2d` of (n, channels, l) with weight (filters, channels / groups, k)."""
    _check("conv1d", 1, input, weight, bias, groups)
    stride, dilation = pair(stride, "stride", 1, 1), pair(dilation, "dilation", 1, 1)
    padding = padding if isinstance(padding, str) else (0, *pair(padding, "padding", 0, 1))
    out = conv2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, (1, *stride), padding, (1, *dilation), groups)
    return owned(out.squeeze(-2))


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """The gradient of `conv2d` with respect to its input as a layer; weight is (channels, filters / groups, kh, kw)."""
    _check("conv_transpose2d", 2, input, weight, bias, groups, transposed=True)
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    padding, extra = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
    x = input if len(input.sizes) == 4 else input.unsqueeze(0)
    sizes = [
        (x.sizes[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.sizes[2 + i] - 1) + extra[i] + 1
        for i in (0, 1)
    ]
    if min(sizes) < 1 or any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ShapeError(f"conv_transpose2d: an output of {sizes} with output_padding {extra} is not possible")
    beyond = [e // s for e, s in zip(extra, stride, strict=True)]
    if any(beyond):  # more than a stride: as if zeros followed on the input, for else further windows would fit into the output
        x = pad(x, (0, beyond[1], 0, beyond[0]))
    plan = _Plan((x.sizes[0], weight.sizes[1] * groups, *sizes), weight.sizes, stride, padding, dilation, groups)
    out = _to_input(x, weight, plan)
    if bias is not None:
        out = out + bias.reshape(-1, 1, 1)
    return out if len(input.sizes) == 4 else out.squeeze(0)


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """`conv_transpose2d` of (n, channels, length), with a weight (channels, filters / groups, k)."""
    _check("conv_transpose1d", 1, input, weight, bias, groups, transposed=True)
    step, gap = (1, *pair(stride, "stride", 1, 1)), (1, *pair(dilation, "dilation", 1, 1))
    edge, extra = (0, *pair(padding, "padding", 0, 1)), (0, *pair(output_padding, "output_padding", 0, 1))
    out = conv_transpose2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, step, edge, extra, groups, gap)
    return out.squeeze(-2)


# --- columns ---------------------------------------------------------------------------------------------------------


def _unfold_rule(g, node):
    return _fold(g, *node.context)


def _unfold(x: Any, shape: tuple, window: tuple) -> Any:
    (source,) = _contiguous(x)
    rows, columns = (window_count(shape[2 + i], window[i], window[2 + i], window[4 + i], window[6 + i]) for i in (0, 1))
    out = empty((shape[0], shape[1] * window[0] * window[1], rows * columns))
    launch(convolution_kernels.unfold, (out, source), (*shape, rows, columns, *window))
    return attach(out, _unfold_rule, (x,), context=(shape, window))


def _fold_rule(g, node):
    return _unfold(g, *node.context)


def _fold(columns: Any, shape: tuple, window: tuple) -> Any:
    (source,) = _contiguous(columns)
    rows, lines = (window_count(shape[2 + i], window[i], window[2 + i], window[4 + i], window[6 + i]) for i in (0, 1))
    out = empty(shape)
    launch(convolution_kernels.fold, (out, source), (*shape, rows, lines, *window))
    return attach(out, _fold_rule, (columns,), context=(shape, window))


def _window(kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> tuple[int, ...]:
    sizes, steps = pair(kernel_size, "kernel_size", 1), pair(stride, "stride", 1)
    return (*sizes, *steps, *pair(padding, "padding", 0), *pair(dilation, "dilation", 1))


def unfold(input: Any, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> Tensor:
    """The windows of (n, channels, h, w) as columns: (n, channels * kh * kw, windows)."""
    if len(input.sizes) not in (3, 4):
        raise ShapeError(f"unfold takes 3 or 4 dimensions, got shape {list(input.sizes)}")
    if len(input.sizes) == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if input.dtype is bool_:
        return unfold(input.to(float32), kernel_size, dilation, padding, stride).to(bool_)
    require(input.dtype is float32, "unfold", input, "float32 or bool")
    return _unfold(input, input.sizes, _window(kernel_size, dilation, padding, stride))


def fold(input: Any, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> Tensor:
    """The sum of the columns of `unfold` at their places: (n, channels, *output_size)."""
    window, size = _window(kernel_size, dilation, padding, stride), pair(output_size, "output_size", 1)
    rows, columns = (window_count(size[i], window[i], window[2 + i], window[4 + i], window[6 + i]) for i in (0, 1))
    area = window[0] * window[1]
    if len(input.sizes) == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    require(input.dtype is float32, "fold", input, "float32")
    if len(input.sizes) != 3 or input.sizes[1] % area or input.sizes[2] != rows * columns:
        raise ShapeError(f"fold: columns of shape {list(input.sizes)} do not fit an output of {list(size)}")
    return _fold(input, (input.sizes[0], input.sizes[1] // area, *size), window)


# --- pooling ---------------------------------------------------------------------------------------------------------


def _pool_sizes(name: str, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple:
    require(x.dtype is float32, name, x, "float32")
    if len(x.sizes) not in (3, 4):
        raise ShapeError(f"{name} takes 3 or 4 dimensions, got shape {list(x.sizes)}")
    window, edge, gap = pair(kernel_size, "kernel_size", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    step = window if stride is None or stride == () else pair(stride, "stride", 1)
    if any(2 * e > w for e, w in zip(edge, window, strict=True)):
        raise ShapeError(f"{name}: padding {edge} must be at most half of the window {window}")
    counts = []
    for i in (0, 1):
        size = x.sizes[-2 + i]
        count = window_count(size, window[i], step[i], edge[i], gap[i])
        if ceil_mode:
            span = size + 2 * edge[i] - gap[i] * (window[i] - 1) - 1
            count = -(-span // step[i]) + 1
            if (count - 1) * step[i] >= size + edge[i]:  # the last window must begin inside
                count -= 1
        counts.append(count)
    if min(counts) < 1:
        raise ShapeError(f"{name}: a window of {window} does not fit into an input of shape {list(x.sizes)}")
    return window, step, edge, gap, tuple(counts)


def max_pool2d(
    input: Any,
    kernel_size: Pair,
    stride: Any = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value of each window of (n, channels, h, w); the gradient goes to its first occurrence.

    With ``return_indices`` also its place in the plane.
    """
    window, step, edge, gap, counts = _pool_sizes("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    (source,) = _contiguous(input)
    lead, plane = input.sizes[:-2], input.sizes[-2:]
    planes = 1
    for size in lead:
        planes *= size
    out, index = empty((*lead, *counts)), empty((planes, counts[0] * counts[1]), int64)
    launch(convolution_kernels.max_pool, (out, index, source), (planes, *plane, *counts, *window, *step, *edge, *gap))
    out = attach(out, _max_pool_rule, (input,), (index,), input.sizes)
    return (out, index.reshape(out.sizes)) if return_indices else out


def _max_pool_rule(g, node):
    (index,), shape = node.saved, node.context
    return scatter_sum((index.sizes[0], shape[-2] * shape[-1]), 1, index, g.reshape(index.sizes)).reshape(shape)


def avg_pool2d(
    input: Any,
    kernel_size: Pair,
    stride: Any = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (n, channels, h, w); padding counts as zeros unless ``count_include_pad`` is False."""
    window, step, edge, _, counts = _pool_sizes("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    numbers = (*input.sizes[-2:], *counts, *window, *step, *edge, int(count_include_pad), divisor_override or 0)
    return _avg_pool(input, (*input.sizes[:-2], *counts), numbers)


def _planes(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 3 else shape[0] * shape[1]


def _avg_pool(x: Any, shape: tuple, numbers: tuple) -> Any:
    (source,) = _contiguous(x)
    out = empty(shape)
    launch(convolution_kernels.avg_pool, (out, source), (_planes(shape), *numbers))
    return attach(out, _avg_pool_rule, (x,), context=(x.sizes, numbers))


def _avg_pool_rule(g, node):
    return _spread(g, *node.context)


def _spread(g: Any, shape: tuple, numbers: tuple) -> Any:
    (source,) = _contiguous(g)
    out = empty(shape)
    launch(convolution_kernels.avg_pool_backward, (out, source), (_planes(shape), *numbers))
    return attach(out, _spread_rule, (g,), context=(g.sizes, numbers))


def _spread_rule(g, node):
    return _avg_pool(g, *node.context)


def _of_one_axis(pool: Any, input: Any, kernel_size: Any, stride: Any, padding: Any, **settings: Any) -> Any:
    """A pool of (n, channels, l), as one of planes with a single row."""
    window, edge = pair(kernel_size, "kernel_size", 1, 1), pair(padding, "padding", 0, 1)
    step = window if stride is None or stride == () else pair(stride, "stride", 1, 1)
    out = pool(input.unsqueeze(-2), (1, *window), (1, *step), (0, *edge), **settings)
    return tuple([part.squeeze(-2) for part in out]) if isinstance(out, tuple) else out.squeeze(-2)


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` of (n, channels, l)."""
    settings = {"ceil_mode": ceil_mode, "return_indices": return_indices}
    gap = (1, *pair(dilation, "dilation", 1, 1))
    return _of_one_axis(max_pool2d, input, kernel_size, stride, padding, dilation=gap, **settings)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`avg_pool2d` of (n, channels, l)."""
    settings = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    return _of_one_axis(avg_pool2d, input, kernel_size, stride, padding, **settings)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    """Means over windows that divide (n, channels, h, w) into ``output_size`` parts; None keeps a size."""
    wanted = (output_size,) * 2 if output_size is None or isinstance(output_size, INTEGERS) else tuple(output_size)
    sizes = [old if new is None else new for old, new in zip(input.sizes[-2:], wanted, strict=True)]
    if all(old % new == 0 for old, new in zip(input.sizes[-2:], sizes, strict=True)):
        return avg_pool2d(input, tuple([old // new for old, new in zip(input.sizes[-2:], sizes, strict=True)]))
    out = input
    for dim, count in ((-2, sizes[0]), (-1, sizes[1])):
        size = out.sizes[dim]
        edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        parts = [out.narrow(dim, low, high - low).mean(dim, keepdim=True) for low, high in edges]
        out = cat(parts, dim)
    return out
