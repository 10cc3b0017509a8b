"""Reading and writing at positions given by index tensors.

The kernels check each index. An index outside its axis is skipped and reported in ``status``: [1, the index, the size of the axis].
The caller checks ``status`` after the launch, a program after its replay. No kernel reads or writes out of bounds. With ``wrap`` a
negative index counts from the end.

Tensors are contiguous. ``x`` is (n, r, m), and an index is a position along the middle axis.
"""

import numpy as np

from rl_lab.native.part import part
from rl_lab.native.primitive import In, InBool, InInt, InOut, InOutInt, Int, Out, OutBool, OutInt, primitive

F = np.float32


@part(forceinline=True)
def _checked(status, index, size, wrap):
    """The position of an index along an axis of this size, or -1 after a report in ``status``."""
    position = index + size if wrap and index < 0 else index
    if position < 0 or position >= size:
        status[0] = 1
        status[1] = index
        status[2] = size
        return -1
    return position


@part
def _take(out, x, index, status, n, r, m, count, wrap):
    for c in range(count):
        at = _checked(status, index[c], r, wrap)
        if at < 0:
            continue
        for i in range(n):
            p, o = (i * r + at) * m, (i * count + c) * m
            for j in range(m):
                out[o + j] = x[p + j]


@primitive
def take(out: Out, x: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """out[i, c, :] = x[i, index[c], :]"""
    _take(out, x, index, status, n, r, m, count, wrap)


@primitive
def take_int(out: OutInt, x: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """`take` of int64."""
    _take(out, x, index, status, n, r, m, count, wrap)


@primitive
def take_bool(out: OutBool, x: InBool, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """`take` of bool or uint8."""
    _take(out, x, index, status, n, r, m, count, wrap)


@part
def _take_add(out, g, index, status, n, r, m, count, wrap):
    for k in range(n * r * m):
        out[k] = 0
    for c in range(count):
        at = _checked(status, index[c], r, wrap)
        if at < 0:
            continue
        for i in range(n):
            p, o = (i * r + at) * m, (i * count + c) * m
            for j in range(m):
                out[p + j] += g[o + j]


@primitive
def take_add(out: Out, g: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """Zeros, with out[i, index[c], :] += g[i, c, :]: the gradient of `take`; repeated indices add up."""
    _take_add(out, g, index, status, n, r, m, count, wrap)


@primitive
def add_at(out: InOut, x: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """out[i, index[c], :] += x[i, c, :], unless an index is out of bounds: then nothing changes."""
    for c in range(count):
        if _checked(status, index[c], r, False) < 0:
            return
    for c in range(count):
        for i in range(n):
            p, o = (i * r + index[c]) * m, (i * count + c) * m
            for j in range(m):
                out[p + j] += x[o + j]


@primitive
def take_add_int(out: OutInt, g: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    _take_add(out, g, index, status, n, r, m, count, wrap)


@part
def _gather(out, x, index, status, n, r, m, count):
    for i in range(n):
        for c in range(count):
            o = (i * count + c) * m
            for j in range(m):
                at = _checked(status, index[o + j], r, False)
                if at >= 0:
                    out[o + j] = x[(i * r + at) * m + j]


@primitive
def gather(out: Out, x: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """out[i, c, j] = x[i, index[i, c, j], j]"""
    _gather(out, x, index, status, n, r, m, count)


@primitive
def gather_int(out: OutInt, x: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """`gather` of int64."""
    _gather(out, x, index, status, n, r, m, count)


@part
def _scatter_add(out, g, index, status, n, r, m, count):
    for i in range(n):
        for c in range(count):
            o = (i * count + c) * m
            for j in range(m):
                at = _checked(status, index[o + j], r, False)
                if at >= 0:
                    out[(i * r + at) * m + j] += g[o + j]


@primitive
def scatter_add(out: InOut, g: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """out[i, index[i, c, j], j] += g[i, c, j]: the gradient of `gather`; repeated indices add up."""
    _scatter_add(out, g, index, status, n, r, m, count)


@primitive
def scatter_add_int(out: InOutInt, g: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    _scatter_add(out, g, index, status, n, r, m, count)


@part
def _scatter(out, values, index, status, n, r, m, count):
    for i in range(n):
        for c in range(count):
            o = (i * count + c) * m
            for j in range(m):
                at = _checked(status, index[o + j], r, False)
                if at >= 0:
                    out[(i * r + at) * m + j] = values[o + j]


@primitive
def scatter(out: InOut, values: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """out[i, index[i, c, j], j] = values[i, c, j]. Of repeated indices the last one wins."""
    _scatter(out, values, index, status, n, r, m, count)


@primitive
def scatter_int(out: InOutInt, values: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int):
    """`scatter` of int64."""
    _scatter(out, values, index, status, n, r, m, count)


@part
def _put(out, values, index, status, n, r, m, count, wrap):
    for c in range(count):
        at = _checked(status, index[c], r, wrap)
        if at < 0:
            continue
        for i in range(n):
            p, o = (i * r + at) * m, (i * count + c) * m
            for j in range(m):
                out[p + j] = values[o + j]


@primitive
def put(out: InOut, values: In, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """out[i, index[c], :] = values[i, c, :]. Of repeated indices the last one wins."""
    _put(out, values, index, status, n, r, m, count, wrap)


@primitive
def put_int(out: InOutInt, values: InInt, index: InInt, status: InOutInt, n: Int, r: Int, m: Int, count: Int, wrap: Int):
    """`put` of int64."""
    _put(out, values, index, status, n, r, m, count, wrap)


@primitive
def flat_index(out: OutInt, index: InInt, status: InOutInt, count: Int, size: Int, stride: Int, start: Int):
    """out[c] += stride * (position of index[c]). With ``start``, for the first of several indices, the sum starts at 0."""
    for c in range(count):
        at = _checked(status, index[c], size, True)
        out[c] = (0 if start else out[c]) + max(at, 0) * stride


@primitive
def arange(out: OutInt, start: Int, step: Int, count: Int):
    """out[c] = start + c * step."""
    for c in range(count):
        out[c] = start + c * step


@primitive
def places(out: OutInt, mask: InBool, count: Int):
    """The places of the elements that are not zero: their number in out[0], then the places in order. ``out`` has count + 1 elements."""
    found = 0
    for c in range(count):
        out[1 + found] = c
        found += mask[c] != 0
    out[0] = found


@primitive
def one_hot(out: OutInt, index: InInt, status: InOutInt, count: Int, classes: Int):
    """out[c, k] = 1 if index[c] == k, else 0."""
    for c in range(count):
        at = _checked(status, index[c], classes, False)
        for k in range(classes):
            out[c * classes + k] = np.int64(at == k)


@primitive
def picked_loss(
    out: Out, used: Out, x: In, target: InInt, weight: In, status: InOutInt, n: Int, classes: Int, m: Int,
    ignored: Int, has_weight: Int, reduction: Int,
):  # fmt: skip
    """Loss of (i, j) = -x[i, target[i, j], j] * weight[target[i, j]], or 0 if the target is ``ignored``.

    ``reduction`` 0 writes the losses (n, m), 1 their sum, 2 their mean by weight. used[0] is the sum of the weights.
    """
    total = 0.0
    weights = 0.0
    for i in range(n):
        for j in range(m):
            loss = F(0)
            label = target[i * m + j]
            if label != ignored:
                at = _checked(status, label, classes, False)
                if at >= 0:
                    w = weight[at] if has_weight else F(1)
                    loss = -w * x[(i * classes + at) * m + j]
                    weights += w
            if reduction == 0:
                out[i * m + j] = loss
            total += loss
    used[0] = F(weights)
    if reduction == 1:
        out[0] = F(total)
    elif reduction == 2:
        out[0] = F(total / weights)


@primitive
def picked_loss_backward(
    out: Out,
    g: In,
    used: In,
    target: InInt,
    weight: In,
    n: Int,
    classes: Int,
    m: Int,
    ignored: Int,
    has_weight: Int,
    reduction: Int,
):
    """out (n, classes, m) = the gradient of x from ``g``, the gradient of the loss."""
    for k in range(n * classes * m):
        out[k] = F(0)
    for i in range(n):
        for j in range(m):
            label = target[i * m + j]
            if label != ignored and label >= 0 and label < classes:
                w = weight[label] if has_weight else F(1)
                slope = g[i * m + j] if reduction == 0 else g[0] / used[0] if reduction == 2 else g[0]
                out[(i * classes + label) * m + j] = -w * slope


@primitive
def check_deviations(x: In, status: InOutInt, count: Int):
    """Set status[0] = 6 if a number is negative or NaN."""
    for c in range(count):
        if not x[c] >= F(0):
            status[0] = 6
            return


@primitive
def check_probabilities(x: In, status: InOutInt, count: Int):
    """Set status[0] = 4 if a number is not in [0, 1]."""
    for c in range(count):
        if not (x[c] >= F(0) and x[c] <= F(1)):
            status[0] = 4
            return


@primitive
def bag_argmax(out: OutInt, x: In, bag: InInt, kept: InBool, n: Int, m: Int, count: Int):
    """out (count, m) = the row of the first largest element of each column among the rows of x (n, m) in each bag, -1 if there is none."""
    for k in range(count * m):
        out[k] = -1
    for i in range(n):
        if not kept[i]:
            continue
        for j in range(m):
            best = out[bag[i] * m + j]
            if best < 0 or x[i * m + j] > x[best * m + j] or x[i * m + j] != x[i * m + j]:
                out[bag[i] * m + j] = i
