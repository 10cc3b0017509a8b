"""Convolution and pooling of planes.

Sizes: x is (batch, groups*channels, height, width), weight is (groups*filters, channels, kh, kw), the result and its gradient g are
(batch, groups*filters, oh, ow). ``sh ph dh`` are stride, padding and dilation of the rows, ``sw pw dw`` those of the columns.

`convolve`, `convolve_to_input` and `convolve_to_weight` are the three partial derivatives of one trilinear form of x, weight and g.
The gradients of each are therefore calls of the other two.
"""

import numpy as np

from rl_lab.engine.kernels.matmul import ADD, ADD_RELU, ADD_TANH, NOTHING, finish
from rl_lab.engine.kernels.scalar import relu32, tanh32
from rl_lab.engine.kernels.tiles import DOT_COLUMNS, DOT_ROWS, HEIGHTS, PANEL, dots_at, largest_of, tile, tile_at
from rl_lab.native.part import part
from rl_lab.native.pointers import address_of, keep
from rl_lab.native.primitive import In, Int, Out, OutInt, primitive

F = np.float32
LARGEST = np.finfo(np.float32).max
END_CELL = 5
"""The position of ``end`` in the row of a convolution and of the gradient of its input. The ends are those of `matmul`."""


@part
def _inside(offset, step, size, count):
    """The range (first, end) of positions p in 0..count-1 with 0 <= offset + p * step < size."""
    if step == 1:  # a division costs more than a short row
        low, high = max(-offset, 0), max(size - offset, 0)
    else:
        low = 0 if offset >= 0 else (-offset + step - 1) // step
        high = (size - offset + step - 1) // step if size > offset else 0
    low = min(low, count)
    return low, max(low, min(high, count))


@part
def _unfold(columns, at, step, x, start, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw):
    """columns[(c, i, j), (y, z)] = x[c, y sh - ph + i dh, z sw - pw + j dw], and 0 outside x.

    The first row of ``columns`` begins at position ``at``; rows are ``step`` numbers apart. The sample begins at ``x[start]``.
    """
    p = at
    for c in range(channels):
        for i in range(kh):
            top, bottom = _inside(i * dh - ph, sh, height, oh)
            for j in range(kw):
                left = j * dw - pw
                low, high = _inside(left, sw, width, ow)
                for k in range(p, p + top * ow):
                    columns[k] = F(0)
                for y in range(top, bottom):
                    o = p + y * ow
                    row = start + (c * height + y * sh - ph + i * dh) * width + left
                    for z in range(low):
                        columns[o + z] = F(0)
                    if sw == 1:
                        for z in range(low, high):
                            columns[o + z] = x[row + z]
                    else:
                        for z in range(low, high):
                            columns[o + z] = x[row + z * sw]
                    for z in range(high, ow):
                        columns[o + z] = F(0)
                for k in range(p + bottom * ow, p + oh * ow):
                    columns[k] = F(0)
                p += step


@part
def _fold(x, start, columns, at, step, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw):
    """The transpose of `_unfold`: x = 0, then add every element of ``columns`` to the element of x that `_unfold` copies there."""
    for k in range(start, start + channels * height * width):
        x[k] = F(0)
    p = at
    for c in range(channels):
        for i in range(kh):
            top, bottom = _inside(i * dh - ph, sh, height, oh)
            for j in range(kw):
                left = j * dw - pw
                low, high = _inside(left, sw, width, ow)
                for y in range(top, bottom):
                    o = p + y * ow
                    row = start + (c * height + y * sh - ph + i * dh) * width + left
                    if sw == 1:
                        for z in range(low, high):
                            x[row + z] += columns[o + z]
                    else:
                        for z in range(low, high):
                            x[row + z * sw] += columns[o + z]
                p += step


@primitive
def unfold(
    out: Out, x: In, batch: Int, channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the columns of every sample, (batch, channels*kh*kw, oh*ow)."""
    for n in range(batch):
        at, start = n * channels * kh * kw * oh * ow, n * channels * height * width
        _unfold(out, at, oh * ow, x, start, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw)


@primitive
def fold(
    out: Out, columns: In, batch: Int, channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """The transpose of `unfold`: sum the columns of every sample at the positions from which `unfold` takes them."""
    for n in range(batch):
        at, start = n * channels * kh * kw * oh * ow, n * channels * height * width
        _fold(out, start, columns, at, oh * ow, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw)


# --- convolution -----------------------------------------------------------------------------------------------------
#
# A plane of x, padding included, is spread into sh * sw planes, each with every sh-th row and every sw-th column. With a stride of 1 and no
# padding this is x itself. In the spread planes, neighbouring windows are one number apart. So the numbers that one element (c, i, j) of a
# filter multiplies are contiguous in memory, and nothing is unfolded. Rows of results are as wide as the spread planes (``span`` numbers
# from the first result to the last): the numbers between the rows are computed but not used, and their gradients are zero.


@part
def _is_plain(sh, sw, ph, pw):
    """Whether the spread planes equal x: a stride of 1 and no padding."""
    return sh == 1 and sw == 1 and ph == 0 and pw == 0


@part
def _plane_size(height, width, sh, sw, ph, pw):
    """(rows, columns) of the planes into which a plane of x is spread."""
    return (height + 2 * ph + sh - 1) // sh, (width + 2 * pw + sw - 1) // sw


@part
def _spread(planes, at, x, start, channels, height, width, rows, columns, sh, sw, ph, pw):
    """Spread the channels of the sample that begins at ``x[start]`` into planes, from ``planes[at]`` on."""
    for c in range(channels):
        for i in range(sh):
            top, bottom = _inside(i - ph, sh, height, rows)
            for k in range(at, at + sw * rows * columns):
                planes[k] = F(0)
            for j in range(sw):
                low, high = _inside(j - pw, sw, width, columns)
                for y in range(top, bottom):
                    source = start + (c * height + y * sh + i - ph) * width + j - pw
                    target = at + y * columns
                    if sw == 1:
                        for z in range(low, high):
                            planes[target + z] = x[source + z]
                    elif sw == 2:
                        for z in range(low, high):
                            planes[target + z] = x[source + 2 * z]
                    elif sw == 4:
                        for z in range(low, high):
                            planes[target + z] = x[source + 4 * z]
                    else:
                        for z in range(low, high):
                            planes[target + z] = x[source + z * sw]
                at += rows * columns


@part
def _gather(x, start, planes, at, channels, height, width, rows, columns, sh, sw, ph, pw):
    """The transpose of `_spread`: copy the planes of a sample back to its channels."""
    for c in range(channels):
        for i in range(sh):
            top, bottom = _inside(i - ph, sh, height, rows)
            for j in range(sw):
                low, high = _inside(j - pw, sw, width, columns)
                for y in range(top, bottom):
                    target = start + (c * height + y * sh + i - ph) * width + j - pw
                    source = at + y * columns
                    if sw == 1:
                        for z in range(low, high):
                            x[target + z] = planes[source + z]
                    else:
                        for z in range(low, high):
                            x[target + z * sw] = planes[source + z]
                at += rows * columns


@part
def _widen(wide, at, g, start, filters, oh, ow, columns):
    """Copy results whose rows are ow numbers apart to rows that are ``columns`` numbers apart, with zeros in between."""
    span = (oh - 1) * columns + ow
    for f in range(filters):
        for y in range(oh):
            source = start + (f * oh + y) * ow
            target = at + f * span + y * columns
            for z in range(ow):
                wide[target + z] = g[source + z]
            if y < oh - 1:
                for z in range(ow, columns):
                    wide[target + z] = F(0)


@part
def _table(channels, kh, kw, sh, sw, dh, dw, rows, columns):
    """For each element (c, i, j) of a filter: the position, in the spread planes of a sample, of the first number that it multiplies."""
    table = np.empty(channels * kh * kw, np.int64)
    p = 0
    for c in range(channels):
        for i in range(kh):
            down, y = divmod(i * dh, sh)
            for j in range(kw):
                right, z = divmod(j * dw, sw)
                table[p] = (((c * sh + y) * sw + z) * rows + down) * columns + right
                p += 1
    return table


@part
def _is_finite(x, start, count):
    """Whether the ``count`` numbers from ``x[start]`` on are all finite."""
    others = 0
    for k in range(start, start + count):
        others += not (abs(x[k]) <= LARGEST)
    return others == 0


@part
def activate(out, first, count, end):
    """Apply the activation that ``end`` names to ``count`` numbers from ``out[first]`` on."""
    if end == ADD_RELU:
        for j in range(first, first + count):
            out[j] = relu32(out[j])
    elif end == ADD_TANH:
        for j in range(first, first + count):
            out[j] = tanh32(out[j])


@primitive
def convolve(
    out: Out, space: Out, x: In, weight: In, bias: In, end: Int, batch: Int, groups: Int,
    filters: Int, channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = weight * x + bias, if the end is not `NOTHING`, and then the activation that it names.

    ``space`` is working memory for the spread planes of a sample and its results.
    """
    k = channels * kh * kw
    rows, columns = _plane_size(height, width, sh, sw, ph, pw)
    plain = _is_plain(sh, sw, ph, pw)
    table = _table(channels, kh, kw, sh, sw, dh, dw, rows, columns)
    places = np.int64(table.ctypes.data)
    span = (oh - 1) * columns + ow
    planes = 0 if plain else channels * sh * sw * rows * columns
    for sample in range(batch * groups):
        start = sample * channels * height * width
        first = sample * filters * oh * ow
        group = sample % groups
        if plain:
            source = address_of(x, start, channels * height * width)
        else:
            _spread(space, 0, x, start, channels, height, width, rows, columns, sh, sw, ph, pw)
            source = address_of(space, 0, planes)
        if columns == ow:
            target = address_of(out, first, filters * span)
        else:
            target = address_of(space, planes, filters * span)
        factors = address_of(weight, group * filters * k, filters * k)
        for q in range(0, span, PANEL):
            f = 0
            while f < filters:
                high = largest_of(HEIGHTS, filters - f)
                tile_at(
                    factors + 4 * f * k,
                    source + 4 * q,
                    target + 4 * (f * span + q),
                    k,
                    k,
                    1,
                    places,
                    span,
                    high,
                    min(PANEL, span - q),
                )
                f += high
        for f in range(filters):
            b = bias[group * filters + f] if end != NOTHING else F(0)
            o = first + f * oh * ow
            if columns == ow:
                if end != NOTHING:
                    for j in range(oh * ow):
                        out[o + j] += b
            else:
                for y in range(oh):
                    p = planes + f * span + y * columns
                    for z in range(ow):
                        out[o + y * ow + z] = space[p + z] + b
        if end > ADD:
            activate(out, first, filters * oh * ow, end)
    keep(table)


@part
def _reorder(ordered, at, weight, start, filters, channels, elements):
    """Copy the weights of a group to ``ordered[at]`` on, with the dimensions in the order element, filter, channel."""
    for f in range(filters):
        for element in range(elements):
            for c in range(channels):
                ordered[at + (element * filters + f) * channels + c] = weight[start + (f * channels + c) * elements + element]


@primitive
def convolve_to_input(
    out: Out, space: Out, g: In, weight: In, y: In, end: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the gradient of x: a transposed convolution of g. Each element (i, j) of the filters adds its products to shifted planes.

    If x is the output y of an activation that the end names, out is the gradient of the activation's input.

    ``space`` is working memory for the spread planes of a sample, its results, and the weights of a group in the order i, j, filter,
    channel.
    """
    rows, columns = _plane_size(height, width, sh, sw, ph, pw)
    plain = _is_plain(sh, sw, ph, pw)
    table = _table(1, kh, kw, sh, sw, dh, dw, rows, columns)
    span = (oh - 1) * columns + ow
    size = sh * sw * rows * columns
    planes = 0 if plain else channels * size
    results = 0 if columns == ow else filters * span
    ordered = address_of(space, planes + results, filters * channels * kh * kw)
    for group in range(groups):
        _reorder(space, planes + results, weight, group * filters * channels * kh * kw, filters, channels, kh * kw)
        # 0 * inf is NaN: with infinite weights the zeros between rows of results are left out, and each row is multiplied alone
        lines = oh
        length = ow
        if _is_finite(weight, group * filters * channels * kh * kw, filters * channels * kh * kw):
            lines = 1
            length = span
        for sample in range(group, batch * groups, groups):
            start = sample * channels * height * width
            first = sample * filters * oh * ow
            if columns == ow:
                source = address_of(g, first, filters * span)
            else:
                _widen(space, planes, g, first, filters, oh, ow, columns)
                source = address_of(space, planes, filters * span)
            if plain:
                target = address_of(out, start, channels * size)
                for k in range(start, start + channels * size):
                    out[k] = F(0)
            else:
                target = address_of(space, 0, planes)
                for k in range(planes):
                    space[k] = F(0)
            for element in range(kh * kw):
                shifted = target + 4 * table[element]
                factors = ordered + 4 * element * filters * channels
                for line in range(0, lines * columns, columns):
                    for q in range(line, line + length, PANEL):
                        wide = min(PANEL, line + length - q)
                        c = 0
                        while c < channels:
                            high = largest_of(HEIGHTS, channels - c)
                            into = shifted + 4 * (c * size + q)
                            tile(factors + 4 * c, source + 4 * q, into, filters, 1, channels, span, size, high, wide, True)
                            c += high
            if not plain:
                _gather(out, start, space, 0, channels, height, width, rows, columns, sh, sw, ph, pw)
            if end != NOTHING:
                volume = channels * height * width
                finish(out, start, y, 0, 1, volume, volume, end)  # one row
    keep(table)


@part
def _correlate(g, x, target, places, filters, k, span, length, runs, gap, distance):
    """The gradient of each filter's elements (c, i, j): the sum of ``runs`` dot products of ``length`` numbers of g and of x.

    g, x and target are addresses. The runs are ``gap`` numbers apart in g and ``distance`` numbers apart in x.
    """
    f = 0
    while f < filters:
        high = largest_of(DOT_ROWS, filters - f)
        p = 0
        while p < k:
            wide = largest_of(DOT_COLUMNS, k - p)
            into = target + 4 * (f * k + p)
            dots_at(g + 4 * f * span, x, into, length, span, places + 8 * p, k, high, wide, runs, gap, distance)
            p += wide
        f += high


@primitive
def convolve_to_weight(
    out: Out, space: Out, part: Out, g: In, x: In, together: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the gradient of weight, summed over the batch: dot products of g and of pieces of planes, for ``together`` samples at a time.

    ``space`` is working memory for spread planes and results, ``part`` for a gradient of weight's size.
    """
    k = channels * kh * kw
    rows, columns = _plane_size(height, width, sh, sw, ph, pw)
    plain = _is_plain(sh, sw, ph, pw)
    table = _table(channels, kh, kw, sh, sw, dh, dw, rows, columns)
    places = np.int64(table.ctypes.data)
    span = (oh - 1) * columns + ow
    planes = 0 if plain else channels * sh * sw * rows * columns
    for begin in range(0, batch, together):
        count = min(together, batch - begin)
        for group in range(groups):
            sample = begin * groups + group
            start = sample * channels * height * width
            first = sample * filters * oh * ow
            if plain:
                right = address_of(x, start, channels * height * width)
                distance = groups * channels * height * width
            else:
                for t in range(count):
                    _spread(
                        space, t * planes, x, start + t * groups * channels * height * width, channels, height, width, rows, columns,
                        sh, sw, ph, pw,
                    )  # fmt: skip
                right = address_of(space, 0, count * planes)
                distance = planes
            if columns == ow:
                left = address_of(g, first, filters * span)
                gap = groups * filters * span
            else:
                for t in range(count):
                    at = together * planes + t * filters * span
                    _widen(space, at, g, first + t * groups * filters * oh * ow, filters, oh, ow, columns)
                left = address_of(space, together * planes, count * filters * span)
                gap = filters * span
            finite = _is_finite(x, start, channels * height * width)
            for t in range(1, count):
                finite &= _is_finite(x, start + t * groups * channels * height * width, channels * height * width)
            # 0 * inf is NaN: with infinite numbers in x the zeros between rows are left out, and each sample is added row by row
            for t in range(1 if finite else count):
                if begin == 0 and t == 0:
                    target = address_of(out, group * filters * k, filters * k)
                else:
                    target = address_of(part, 0, filters * k)
                if finite:
                    _correlate(left, right, target, places, filters, k, span, span, count, gap, distance)
                else:
                    _correlate(
                        left + 4 * t * gap, right + 4 * t * distance, target, places, filters, k, span, ow, oh, columns, columns
                    )
                if begin > 0 or t > 0:
                    for j in range(filters * k):
                        out[group * filters * k + j] += part[j]
    keep(table)


@primitive
def sum_of_planes(out: Out, g: In, batch: Int, filters: Int, area: Int, step: Int):
    """The gradient of the bias: out[f] = the sum of g[n, f, :] over n and the plane. Samples are ``step`` numbers apart."""
    ones = np.ones(area, np.float32)
    table = np.zeros(1, np.int64)
    f = 0
    while f < filters:
        high = largest_of(DOT_ROWS, filters - f)
        target = address_of(out, f, high)
        if batch:
            source = address_of(g, f * area, (batch - 1) * step + high * area)
            factors = np.int64(ones.ctypes.data)
            place = np.int64(table.ctypes.data)
            dots_at(source, factors, target, area, area, place, 1, high, 1, batch, step, 0)
        else:
            for k in range(f, f + high):
                out[k] = F(0)
        f += high
    keep(ones)
    keep(table)


# --- pooling ---------------------------------------------------------------------------------------------------------


@part
def _largest_in_window(x, start, y, z, top, bottom, left, right, dh, dw, width):
    """(largest value, its position in the plane) of the window that begins at (y, z). NaN counts as largest."""
    at = (y + top * dh) * width + z + left * dw
    best = x[start + at]
    for i in range(top, bottom):
        for j in range(left, right):
            here = (y + i * dh) * width + z + j * dw
            value = x[start + here]
            if value > best or (value != value and best == best):
                best = value
                at = here
    return best, at


@part
def _row_of_squares(out, index, o, x, start, corner, width, count):
    """`_largest_in_window` of ``count`` neighbouring windows of 2 x 2 without NaN, as a loop that LLVM vectorises."""
    for k in range(count):
        at = corner + 2 * k
        best = x[start + at]
        right = x[start + at + 1]
        below = x[start + at + width]
        last = x[start + at + width + 1]
        place = at + 1 if right > best else at
        best = right if right > best else best
        place = at + width if below > best else place
        best = below if below > best else best
        index[o + k] = at + width + 1 if last > best else place
        out[o + k] = last if last > best else best


@primitive
def max_pool(
    out: Out, index: OutInt, x: In, planes: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the largest value of each window, index = the position in the plane of its first occurrence. NaN counts as largest."""
    squares = kh == 2 and kw == 2 and sh == 2 and sw == 2 and ph == 0 and pw == 0 and dh == 1 and dw == 1
    squares = squares and 2 * oh <= height and 2 * ow <= width
    for p in range(planes):
        start = p * height * width
        simple = squares
        if squares:
            nans = 0
            for k in range(start, start + height * width):
                nans += x[k] != x[k]
            simple = nans == 0
        for oy in range(oh):
            o = (p * oh + oy) * ow
            y = oy * sh - ph
            if simple:
                _row_of_squares(out, index, o, x, start, y * width, width, ow)
                continue
            top, bottom = _inside(y, dh, height, kh)
            for ox in range(ow):
                z = ox * sw - pw
                left, right = _inside(z, dw, width, kw)
                best, at = _largest_in_window(x, start, y, z, top, bottom, left, right, dh, dw, width)
                out[o + ox] = best
                index[o + ox] = at


@part
def _divisor(oy, ox, height, width, kh, kw, sh, sw, ph, pw, counts_padding, divisor):
    """The divisor of a window's sum: ``divisor`` if it is not 0, else the window's size inside the padded or the bare plane."""
    if divisor:
        return divisor
    edge_y, edge_x = (ph, pw) if counts_padding else (0, 0)
    y, z = oy * sh - ph, ox * sw - pw
    rows = min(y + kh, height + edge_y) - max(y, -edge_y)
    columns = min(z + kw, width + edge_x) - max(z, -edge_x)
    return rows * columns


@primitive
def avg_pool(
    out: Out, x: In, planes: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, counts_padding: Int, divisor: Int,
):  # fmt: skip
    """out = the mean of each window, see `_divisor`."""
    for p in range(planes):
        for oy in range(oh):
            top, bottom = max(oy * sh - ph, 0), min(oy * sh - ph + kh, height)
            for ox in range(ow):
                left, right = max(ox * sw - pw, 0), min(ox * sw - pw + kw, width)
                total = F(0)
                for y in range(top, bottom):
                    for z in range(left, right):
                        total += x[(p * height + y) * width + z]
                count = _divisor(oy, ox, height, width, kh, kw, sh, sw, ph, pw, counts_padding, divisor)
                out[(p * oh + oy) * ow + ox] = total / F(count)


@primitive
def avg_pool_backward(
    out: Out, g: In, planes: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, counts_padding: Int, divisor: Int,
):  # fmt: skip
    """out = the gradient of x: each window's gradient, divided by the window's divisor and added to all elements of the window."""
    for k in range(planes * height * width):
        out[k] = F(0)
    for p in range(planes):
        for oy in range(oh):
            top, bottom = max(oy * sh - ph, 0), min(oy * sh - ph + kh, height)
            for ox in range(ow):
                left, right = max(ox * sw - pw, 0), min(ox * sw - pw + kw, width)
                count = _divisor(oy, ox, height, width, kh, kw, sh, sw, ph, pw, counts_padding, divisor)
                share = g[(p * oh + oy) * ow + ox] / F(count)
                for y in range(top, bottom):
                    for z in range(left, right):
                        out[(p * height + y) * width + z] += share
