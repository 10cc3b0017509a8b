"""Convolution and pooling.

A convolution, the gradient of its input and the gradient of its weight are the partial derivatives of one trilinear form. So the
gradients of each of the three are calls of the other two.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

from rl_lab.engine import tape
from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import convolution as convolution_kernels
from rl_lab.engine.kernels import wide_convolution as wide
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.kernels.matmul import ADD, NOTHING
from rl_lab.engine.launch import CUT, Part, launch, launch_parts
from rl_lab.engine.ops.gathering import scatter_sum
from rl_lab.engine.ops.layout import cat, dense, embed
from rl_lab.engine.ops.matmul import PRODUCTS_A_CYCLE, blocks_of
from rl_lab.engine.ops.operands import INTEGERS, elementwise_into
from rl_lab.engine.ops.rearrange import pad
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Shape, Tensor, empty, owned
from rl_lab.engine.types import Gradients
from rl_lab.native.primitive import Primitive

Pair = int | Sequence[int]
"""One integer for all axes, or one for each axis."""
CACHED = 131_072  # numbers that stay in the cache


def pair(value: Pair, name: str, least: int, count: int = 2) -> tuple[int, ...]:
    """The setting ``name`` as ``count`` integers, given as one integer or as one per axis.

    Raises ValueError for another number of integers or for one below ``least``.
    """
    values: tuple[int, ...] = (int(value),) * count if isinstance(value, INTEGERS) else tuple(value)
    if len(values) == 1:
        values *= count
    if len(values) != count or min(values) < least:
        raise ValueError(f"{name} must be one or {count} integers of at least {least}, got {value}")
    return values


def _require_float(name: str, x: Tensor) -> None:
    if x.dtype is not float32:
        raise DtypeError(f"{name} takes float32, got {x.dtype.name}: convert with .float() first")


def window_count(size: int, window: int, stride: int, padding: int, dilation: int) -> int:
    """The number of windows along an axis."""
    return (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1


def _window_counts(sizes: Shape, window: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of windows along both axes; ``window`` is (kernel size, stride, padding, dilation), two numbers each."""
    rows, columns = (window_count(sizes[i], window[i], window[2 + i], window[4 + i], window[6 + i]) for i in (0, 1))
    return rows, columns


class _Plan:
    """The sizes of a convolution: the shapes of input, weight and output, and the numbers that the kernels take."""

    def __init__(self, x: Shape, weight: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int):
        self.x = x
        self.weight = weight
        self.groups = groups
        self.window = (*weight[2:], *stride, *padding, *dilation)
        rows, columns = _window_counts(x[2:], self.window)
        self.out = (x[0], weight[0], rows, columns)
        channels = weight[1]
        filters = weight[0] // groups
        elements = weight[2] * weight[3]
        area = rows * columns
        self.products = channels * elements * math.prod(self.out)  # multiply-adds of the whole convolution
        self.kernel = convolution_kernels.convolve
        self.to_input = convolution_kernels.convolve_to_input
        spread = [-(-(x[2 + i] + 2 * padding[i]) // stride[i]) for i in (0, 1)]
        plain = (*stride, *padding) == (1, 1, 0, 0)
        # numbers of working memory: the planes into which a sample is spread, and its results in rows as wide as the planes
        planes = 0 if plain else channels * math.prod(stride) * math.prod(spread)
        results = 0 if spread[1] == columns else filters * ((rows - 1) * spread[1] + columns)
        self.space = planes + results
        self.to_input_space = planes + results + filters * channels * elements
        # the gradient of the weight is summed over this many samples at a time: few enough for the cache
        sample = channels * x[2] * x[3] + filters * area
        self.together = max(1, min(x[0], CACHED // max(sample, 1)))
        self.to_weight_space = self.together * (planes + results)
        self.has_wide_filters = wide.fills_tiles(filters)
        padded = (x[2] + 2 * padding[0]) * (x[3] + 2 * padding[1])
        if self.has_wide_filters:
            self.kernel = wide.convolve_wide
            self.space = wide.convolve_space(filters, channels, elements, area, padded, any(padding), groups)
            self.together = wide.samples_of_block(area, x[0])
            self.to_weight_space = wide.to_weight_space(
                filters, channels * elements, area, self.together, channels * padded, any(padding)
            )
        if wide.fills_tiles(channels):
            self.to_input = wide.convolve_to_input_wide
            self.to_input_space = wide.to_input_space(filters, channels, elements, padded, groups)

    def numbers(self, batch: int) -> tuple[int, ...]:
        """The numbers of a kernel for ``batch`` samples."""
        groups = self.groups
        sizes = (self.weight[0] // groups, self.weight[1], *self.x[2:], *self.out[2:])
        return (batch, groups, *sizes, *self.window)

    def cuts(self) -> list[tuple[int, int]]:
        """Ranges of the batch for several cores. They depend on the sizes alone."""
        blocks = min(blocks_of(1, 1, self.products), self.x[0])
        edges = [t * self.x[0] // blocks for t in range(blocks + 1)] if blocks else [0, 0]
        return list(zip(edges, edges[1:], strict=False))


def _run(
    kernel: Primitive, plan: _Plan, space: int, tensors: tuple[Tensor, ...], steps: tuple[int, ...], flags: tuple[int, ...] = ()
) -> None:
    """Launch a kernel over the batch. ``tensors`` are the result and the operands; ``space`` numbers of working memory go between them.

    ``steps`` are the distances between the samples of each tensor, in elements: 0 for a tensor without a batch.
    """
    parts: list[Part] = []
    for low, high in plan.cuts():
        filled = (tensors[0], empty((space,)), *tensors[1:])
        offsets = (low * steps[0], 0, *[low * step for step in steps[1:]])
        parts.append((filled, offsets, (*flags, *plan.numbers(high - low))))
    _launch(kernel, plan, parts)


def _launch(kernel: Primitive, plan: _Plan, parts: list[Part]) -> None:
    """Launch a kernel on the parts of a batch, on several cores if there are several parts."""
    if len(parts) == 1:
        launch(kernel, parts[0][0], parts[0][2])
    else:
        launch_parts(kernel, parts, plan.products // PRODUCTS_A_CYCLE)


def _volume(shape: Shape) -> int:
    """The number of elements of one sample."""
    return shape[1] * shape[2] * shape[3]


def _forward(plan: _Plan, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of x with weight, plus bias, off the tape."""
    out = empty(plan.out)
    tensors = (out, x, weight, weight if bias is None else bias)
    steps = (_volume(plan.out), _volume(plan.x), 0, 0)
    _run(plan.kernel, plan, plan.space, tensors, steps, (NOTHING if bias is None else ADD,))
    return out


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
    """The convolution of x with weight, plus bias."""
    inputs = (x, weight) if bias is None else (x, weight, bias)
    saved = (x if weight.requires_grad else None, weight if x.requires_grad else None)
    return attach(_forward(plan, *dense(*inputs)), _convolution_rule, inputs, saved, plan)


def _convolution_rule(g: Tensor, node: Node) -> Gradients:
    x, weight = node.saved
    plan = node.context
    to_x = _to_input(g, weight, plan) if node.wants(0) else None
    to_weight = _to_weight(g, x, plan) if node.wants(1) else None
    if len(node.inputs) == 2:
        return to_x, to_weight
    return to_x, to_weight, _to_bias(g, plan) if node.wants(2) else None


def _to_input(g: Tensor, weight: Tensor, plan: _Plan) -> Tensor:
    """The gradient of the input, (n, channels, h, w), of a convolution with this weight."""
    gradient, kernel = dense(g, weight)
    out = empty(plan.x)
    steps = (_volume(plan.x), _volume(plan.out), 0, 0)
    _run(plan.to_input, plan, plan.to_input_space, (out, gradient, kernel, kernel), steps, (NOTHING,))
    return attach(out, _transposed_convolution_rule, (g, weight), (g, weight), plan)


def _transposed_convolution_rule(gg: Tensor, node: Node) -> Gradients:
    g, weight = node.saved
    plan = node.context
    to_g = _convolve(gg, weight, None, plan) if node.wants(0) else None
    return to_g, _to_weight(g, gg, plan) if node.wants(1) else None


def _to_weight(g: Tensor, x: Tensor, plan: _Plan) -> Tensor:
    """The gradient of the weight of a convolution of x."""
    gradient, source = dense(g, x)
    if not plan.x[0]:
        return g.sum() * x.sum() + empty(plan.weight).zero_()
    cuts = plan.cuts()
    sums = [empty(plan.weight) for _ in cuts]
    parts: list[Part] = []
    for total, (low, high) in zip(sums, cuts, strict=True):
        working = (
            (empty((plan.to_weight_space,)),) if plan.has_wide_filters else (empty((plan.to_weight_space,)), empty(plan.weight))
        )
        starts = (0,) * len(working)
        offsets = (0, *starts, low * _volume(plan.out), low * _volume(plan.x))
        numbers = (plan.together, *plan.numbers(high - low))
        parts.append(((total, *working, gradient, source), offsets, numbers))
    _launch(wide.convolve_to_weight_wide if plan.has_wide_filters else convolution_kernels.convolve_to_weight, plan, parts)
    for part in sums[1:]:
        elementwise_into(add_into, sums[0], part)
    return attach(sums[0], _weight_gradient_rule, (g, x), (g, x), plan)


def _weight_gradient_rule(gg: Tensor, node: Node) -> Gradients:
    g, x = node.saved
    plan = node.context
    to_g = _convolve(x, gg, None, plan) if node.wants(0) else None
    return to_g, _to_input(g, gg, plan) if node.wants(1) else None


def _to_bias(g: Tensor, plan: _Plan) -> Tensor:
    """The gradient of the bias of a convolution."""
    if tape.modes.grad:
        return g.sum((0, 2, 3))
    (gradient,) = dense(g)
    batch, filters, rows, columns = plan.out
    area = rows * columns
    out = empty((filters,))
    halves = [(0, filters)] if filters < 2 or batch * filters * area < CUT else [(0, filters // 2), (filters // 2, filters)]
    parts: list[Part] = [
        ((out, gradient), (low, low * area), (batch, high - low, area, filters * area)) for low, high in halves
    ]
    if len(parts) == 1:
        launch(convolution_kernels.sum_of_planes, parts[0][0], parts[0][2])
    else:
        launch_parts(convolution_kernels.sum_of_planes, parts, 2 * batch * filters * area)
    return out


def check_tensors(
    name: str, rank: int, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool = False
) -> None:
    """Raise DtypeError or ShapeError if the tensors of a convolution of ``rank`` axes do not fit."""
    for tensor in (x, weight, bias):
        if tensor is not None and tensor.dtype is not float32:
            raise DtypeError(f"{name} takes float32 tensors, got {tensor.dtype.name}: convert with .float() first")
    channels = x.sizes[-rank - 1] if len(x.sizes) > rank else -1
    filters = weight.sizes[0] if weight.sizes else 0
    expected = filters if transposed else weight.sizes[1] * groups if len(weight.sizes) > 1 else -1
    if len(weight.sizes) != rank + 2 or len(x.sizes) not in (rank + 1, rank + 2) or expected != channels:
        raise ShapeError(
            f"{name}: an input of shape {list(x.sizes)} does not fit a weight of shape {list(weight.sizes)} with {groups} groups"
        )
    outputs = weight.sizes[1] * groups if transposed else filters
    if groups < 1 or filters % groups:
        raise ShapeError(f"{name}: dimension 0 of the weight, {filters}, cannot be divided into {groups} groups")
    if bias is not None and bias.sizes != (outputs,):
        raise ShapeError(f"{name}: the bias must have the shape [{outputs}], got {list(bias.sizes)}")


def same_padding(weight: Tensor, stride: Shape, dilation: Shape) -> tuple[list[int], list[int]]:
    """The zeros before and after each axis for padding='same', as in PyTorch."""
    if set(stride) != {1}:
        raise ValueError(f"padding='same' needs a stride of 1, got {stride}")
    total = [d * (size - 1) for d, size in zip(dilation, weight.sizes[2:], strict=True)]
    return [t // 2 for t in total], [t - t // 2 for t in total]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of (n, channels, h, w) with weight (filters, channels / groups, kh, kw), plus bias (filters,).

    ``padding`` is the number of zeros on each side, "valid" for none, or "same" for an output of the input's size. An input without
    the dimension n gives an output without it. Raises DtypeError, ShapeError or ValueError for unsuitable arguments.
    """
    check_tensors("conv2d", 2, input, weight, bias, groups)
    step = pair(stride, "stride", 1)
    gap = pair(dilation, "dilation", 1)
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid', 'same' or integers, not {padding!r}")
        before, after = same_padding(weight, step, gap) if padding == "same" else ([0, 0], [0, 0])
        if before != after:  # a window of even size: the extra zeros go to the end
            input = _padded(input, before, after)
            before = [0, 0]
        padding = before
    x = input if len(input.sizes) == 4 else input.unsqueeze(0)
    plan = _Plan(x.sizes, weight.sizes, step, pair(padding, "padding", 0), gap, groups)
    if min(plan.out[2:]) < 1:
        raise ShapeError(
            f"conv2d: a window of {list(weight.sizes[2:])} does not fit into the padded input of shape {list(input.sizes)}"
        )
    out = _convolve(x, weight, bias, plan)
    return out if len(input.sizes) == 4 else out.squeeze(0)


def _padded(x: Tensor, before: list[int], after: list[int]) -> Tensor:
    """x with zeros added before and after its last axes."""
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
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with one axis: input (n, channels, length), weight (filters, channels / groups, k)."""
    check_tensors("conv1d", 1, input, weight, bias, groups)
    step = (1, *pair(stride, "stride", 1, 1))
    gap = (1, *pair(dilation, "dilation", 1, 1))
    edge = padding if isinstance(padding, str) else (0, *pair(padding, "padding", 0, 1))
    out = conv2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, step, edge, gap, groups)
    return owned(out.squeeze(-2))


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """The transposed convolution of (n, channels, h, w), which is the gradient of `conv2d` with respect to its input.

    ``weight`` is (channels, filters / groups, kh, kw), ``bias`` (filters,). ``output_padding`` adds rows and columns to the output and
    is smaller than stride or dilation. Raises DtypeError, ShapeError or ValueError for unsuitable arguments.
    """
    check_tensors("conv_transpose2d", 2, input, weight, bias, groups, transposed=True)
    step = pair(stride, "stride", 1)
    gap = pair(dilation, "dilation", 1)
    edge = pair(padding, "padding", 0)
    extra = pair(output_padding, "output_padding", 0)
    x = input if len(input.sizes) == 4 else input.unsqueeze(0)
    sizes = [(x.sizes[2 + i] - 1) * step[i] - 2 * edge[i] + gap[i] * (weight.sizes[2 + i] - 1) + extra[i] + 1 for i in (0, 1)]
    if min(sizes) < 1 or any(e >= max(s, d) for e, s, d in zip(extra, step, gap, strict=True)):
        raise ShapeError(
            f"conv_transpose2d: the output size {sizes} must be at least 1, and output_padding {extra} smaller than stride or dilation"
        )
    beyond = [e // s for e, s in zip(extra, step, strict=True)]
    if any(beyond):  # more than a stride: as if zeros followed on the input, for else further windows would fit into the output
        x = pad(x, (0, beyond[1], 0, beyond[0]))
    plan = _Plan((x.sizes[0], weight.sizes[1] * groups, *sizes), weight.sizes, step, edge, gap, groups)
    out = _to_input(x, weight, plan)
    if bias is not None:
        out = out + bias.reshape(-1, 1, 1)
    return out if len(input.sizes) == 4 else out.squeeze(0)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """`conv_transpose2d` with one axis: input (n, channels, length), weight (channels, filters / groups, k)."""
    check_tensors("conv_transpose1d", 1, input, weight, bias, groups, transposed=True)
    step = (1, *pair(stride, "stride", 1, 1))
    gap = (1, *pair(dilation, "dilation", 1, 1))
    edge = (0, *pair(padding, "padding", 0, 1))
    extra = (0, *pair(output_padding, "output_padding", 0, 1))
    out = conv_transpose2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, step, edge, extra, groups, gap)
    return out.squeeze(-2)


# --- columns ---------------------------------------------------------------------------------------------------------


def _unfold_rule(g: Tensor, node: Node) -> Gradients:
    return _fold(g, *node.context)


def _unfold(x: Tensor, shape: Shape, window: Shape) -> Tensor:
    """The columns of x, which has this shape. ``window`` is (kernel size, stride, padding, dilation), two numbers each."""
    (source,) = dense(x)
    rows, columns = _window_counts(shape[2:], window)
    out = empty((shape[0], shape[1] * window[0] * window[1], rows * columns))
    launch(convolution_kernels.unfold, (out, source), (*shape, rows, columns, *window))
    return attach(out, _unfold_rule, (x,), context=(shape, window))


def _fold_rule(g: Tensor, node: Node) -> Gradients:
    return _unfold(g, *node.context)


def _fold(columns: Tensor, shape: Shape, window: Shape) -> Tensor:
    """The transpose of `_unfold`."""
    (source,) = dense(columns)
    out = empty(shape)
    launch(convolution_kernels.fold, (out, source), (*shape, *_window_counts(shape[2:], window), *window))
    return attach(out, _fold_rule, (columns,), context=(shape, window))


def _window(kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> tuple[int, ...]:
    """(kernel size, stride, padding, dilation), two numbers each, checked."""
    return (
        *pair(kernel_size, "kernel_size", 1),
        *pair(stride, "stride", 1),
        *pair(padding, "padding", 0),
        *pair(dilation, "dilation", 1),
    )


def unfold(input: Tensor, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> Tensor:
    """The windows of (n, channels, h, w), or (channels, h, w), as columns: (n, channels * kh * kw, windows).

    Raises ShapeError for other dimensions, and DtypeError for integers.
    """
    if len(input.sizes) not in (3, 4):
        raise ShapeError(f"unfold takes a tensor of 3 or 4 dimensions, got shape {list(input.sizes)}")
    if len(input.sizes) == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if input.dtype is bool_:
        return unfold(input.to(float32), kernel_size, dilation, padding, stride).to(bool_)
    _require_float("unfold", input)
    return _unfold(input, input.sizes, _window(kernel_size, dilation, padding, stride))


def fold(
    input: Tensor, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
) -> Tensor:
    """The transpose of `unfold`: columns (n, channels * kh * kw, windows) summed at their positions in (n, channels, *output_size).

    Raises ShapeError if the columns do not fit the output.
    """
    window = _window(kernel_size, dilation, padding, stride)
    size = pair(output_size, "output_size", 1)
    rows, columns = _window_counts(size, window)
    area = window[0] * window[1]
    if len(input.sizes) == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    _require_float("fold", input)
    if len(input.sizes) != 3 or input.sizes[1] % area or input.sizes[2] != rows * columns:
        raise ShapeError(
            f"fold: an output of {list(size)} needs columns of shape [n, channels * {area}, {rows * columns}], got {list(input.sizes)}"
        )
    return _fold(input, (input.sizes[0], input.sizes[1] // area, *size), window)


# --- pooling ---------------------------------------------------------------------------------------------------------


class _Pool(NamedTuple):
    """The sizes of a pooling operation, two numbers each."""

    window: Shape
    step: Shape
    edge: Shape
    gap: Shape
    counts: Shape


def _pool_sizes(
    name: str, x: Tensor, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> _Pool:
    """The sizes of a pooling operation. Raises DtypeError unless x is float32, and ShapeError or ValueError if they do not fit."""
    _require_float(name, x)
    if len(x.sizes) not in (3, 4):
        raise ShapeError(f"{name} takes 3 or 4 dimensions, got shape {list(x.sizes)}")
    window = pair(kernel_size, "kernel_size", 1)
    edge = pair(padding, "padding", 0)
    gap = pair(dilation, "dilation", 1)
    step = window if stride is None or stride == () else pair(stride, "stride", 1)
    if any(2 * e > w for e, w in zip(edge, window, strict=True)):
        raise ShapeError(f"{name}: the padding must be at most half of the window {window}, got {edge}")
    counts = []
    for i in (0, 1):
        size = x.sizes[-2 + i]
        count = window_count(size, window[i], step[i], edge[i], gap[i])
        if ceil_mode:
            span = size + 2 * edge[i] - gap[i] * (window[i] - 1) - 1
            count = -(-span // step[i]) + 1
            if (count - 1) * step[i] >= size + edge[i]:  # the last window must begin inside the input or its left padding
                count -= 1
        counts.append(count)
    if min(counts) < 1:
        raise ShapeError(f"{name}: a window of {window} does not fit into the padded input of shape {list(x.sizes)}")
    return _Pool(window, step, edge, gap, tuple(counts))


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of each window of (n, channels, h, w). The gradient goes to its first occurrence.

    With ``return_indices`` (values, positions in the plane h * w). ``stride`` is the size of the window by default. ``ceil_mode`` adds
    windows that end outside. Raises ShapeError or ValueError for unsuitable arguments.
    """
    window, step, edge, gap, counts = _pool_sizes("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    (source,) = dense(input)
    planes = _planes(input.sizes)
    out = empty((*input.sizes[:-2], *counts))
    index = empty((planes, counts[0] * counts[1]), int64)
    numbers = (planes, *input.sizes[-2:], *counts, *window, *step, *edge, *gap)
    launch(convolution_kernels.max_pool, (out, index, source), numbers)
    out = attach(out, _max_pool_rule, (input,), (index,), input.sizes)
    return (out, index.reshape(out.sizes)) if return_indices else out


def _max_pool_rule(g: Tensor, node: Node) -> Gradients:
    (index,) = node.saved
    shape = node.context
    return scatter_sum((index.sizes[0], shape[-2] * shape[-1]), 1, index, g.reshape(index.sizes)).reshape(shape)


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (n, channels, h, w).

    Padding counts as zeros unless ``count_include_pad`` is False. ``divisor_override`` replaces the number of elements of a window.
    Raises ShapeError or ValueError for unsuitable arguments.
    """
    window, step, edge, _, counts = _pool_sizes("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    numbers = (*input.sizes[-2:], *counts, *window, *step, *edge, int(count_include_pad), divisor_override or 0)
    return _avg_pool(input, (*input.sizes[:-2], *counts), numbers)


def _planes(shape: Shape) -> int:
    """The number of planes of (channels, h, w) or (n, channels, h, w)."""
    return shape[0] if len(shape) == 3 else shape[0] * shape[1]


def _avg_pool(x: Tensor, shape: Shape, numbers: tuple[int, ...]) -> Tensor:
    """The means of the windows, of this shape. ``numbers`` are those of the kernel."""
    (source,) = dense(x)
    out = empty(shape)
    launch(convolution_kernels.avg_pool, (out, source), (_planes(shape), *numbers))
    return attach(out, _avg_pool_rule, (x,), context=(x.sizes, numbers))


def _avg_pool_rule(g: Tensor, node: Node) -> Gradients:
    return _spread(g, *node.context)


def _spread(g: Tensor, shape: Shape, numbers: tuple[int, ...]) -> Tensor:
    """The gradient of the input, of this shape, of `_avg_pool`."""
    (source,) = dense(g)
    out = empty(shape)
    launch(convolution_kernels.avg_pool_backward, (out, source), (_planes(shape), *numbers))
    return attach(out, _spread_rule, (g,), context=(g.sizes, numbers))


def _spread_rule(g: Tensor, node: Node) -> Gradients:
    return _avg_pool(g, *node.context)


def _one_axis(kernel_size: Pair, stride: Pair | None, padding: Pair) -> tuple[Shape, Shape, Shape]:
    """Kernel size, stride and padding of a pool of one axis, for planes of a single row."""
    window = pair(kernel_size, "kernel_size", 1, 1)
    step = window if stride is None or stride == () else pair(stride, "stride", 1, 1)
    return (1, *window), (1, *step), (0, *pair(padding, "padding", 0, 1))


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`max_pool2d` with one axis: input (n, channels, length)."""
    gap = (1, *pair(dilation, "dilation", 1, 1))
    window, step, edge = _one_axis(kernel_size, stride, padding)
    out = max_pool2d(input.unsqueeze(-2), window, step, edge, gap, ceil_mode, return_indices)
    return (out[0].squeeze(-2), out[1].squeeze(-2)) if isinstance(out, tuple) else out.squeeze(-2)


def avg_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`avg_pool2d` with one axis: input (n, channels, length)."""
    window, step, edge = _one_axis(kernel_size, stride, padding)
    return avg_pool2d(input.unsqueeze(-2), window, step, edge, ceil_mode, count_include_pad).squeeze(-2)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Means over windows that divide the plane of (n, channels, h, w) into ``output_size`` parts. None keeps the size of an axis."""
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
