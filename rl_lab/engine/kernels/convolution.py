"""Convolution and pooling of planes. A convolution unfolds a few samples into columns that fit the cache, then multiplies matrices.

Sizes: x is (batch, groups*channels, height, width), weight is (groups*filters, channels, kh, kw), the result and its gradient g are
(batch, groups*filters, oh, ow). ``sh ph dh`` are stride, padding and dilation of the rows, ``sw pw dw`` those of the columns.

`convolve`, `convolve_to_input` and `convolve_to_weight` are the three partial derivatives of one trilinear form of x, weight and g.
The gradients of each are therefore calls of the other two.
"""

import numpy as np
from numba import njit

from rl_lab.native.pointers import matrix
from rl_lab.native.primitive import In, Int, Out, OutInt, primitive

F = np.float32


@njit(error_model="numpy")
def _inside(offset, step, size, count):
    """The range (first, end) of positions p in 0..count-1 with 0 <= offset + p * step < size."""
    if step == 1:  # a division costs more than a short row
        low, high = max(-offset, 0), max(size - offset, 0)
    else:
        low = 0 if offset >= 0 else (-offset + step - 1) // step
        high = (size - offset + step - 1) // step if size > offset else 0
    low = min(low, count)
    return low, max(low, min(high, count))


@njit(error_model="numpy")
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


@njit(error_model="numpy")
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


@njit(error_model="numpy")
def _is_plain(kh, kw, sh, sw, ph, pw):
    """Whether the columns of a sample equal the sample: a window of one element, without stride and padding."""
    return kh == 1 and kw == 1 and sh == 1 and sw == 1 and ph == 0 and pw == 0


@primitive(uses_blas=True)
def convolve(
    out: Out, columns: Out, products: Out, x: In, weight: In, bias: In, has_bias: Int, together: Int, batch: Int, groups: Int,
    filters: Int, channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = weight * x + bias. ``together`` samples share one matrix product, whose rows are then copied to each sample's place.

    ``columns`` and ``products`` are working memory.
    """
    k = channels * kh * kw
    area = oh * ow
    plane = channels * height * width
    for first in range(0, batch, together):
        count = min(together, batch - first)
        for group in range(groups):
            w = matrix(weight, group * filters * k, filters, k)
            if count == 1 and _is_plain(kh, kw, sh, sw, ph, pw):
                n = first * groups + group
                np.dot(w, matrix(x, n * plane, k, area), matrix(out, n * filters * area, filters, area))
            else:
                for t in range(count):
                    start = ((first + t) * groups + group) * plane
                    _unfold(
                        columns,
                        t * area,
                        count * area,
                        x,
                        start,
                        channels,
                        height,
                        width,
                        oh,
                        ow,
                        kh,
                        kw,
                        sh,
                        sw,
                        ph,
                        pw,
                        dh,
                        dw,
                    )
                if count == 1:
                    o = (first * groups + group) * filters * area
                    np.dot(w, matrix(columns, 0, k, area), matrix(out, o, filters, area))
                else:
                    np.dot(w, matrix(columns, 0, k, count * area), matrix(products, 0, filters, count * area))
            for f in range(filters):
                b = bias[group * filters + f] if has_bias else F(0)
                for t in range(count):
                    o, p = (((first + t) * groups + group) * filters + f) * area, (f * count + t) * area
                    if count > 1:
                        for j in range(area):
                            out[o + j] = products[p + j] + b
                    elif has_bias:
                        for j in range(area):
                            out[o + j] += b


@njit(error_model="numpy")
def _collect(products, g, first, count, groups, group, filters, area):
    """products[f, (t, :)] = g[first + t, f, :] for the filters of one group."""
    for t in range(count):
        for f in range(filters):
            o, p = (((first + t) * groups + group) * filters + f) * area, (f * count + t) * area
            for j in range(area):
                products[p + j] = g[o + j]


@primitive(uses_blas=True)
def convolve_to_input(
    out: Out, columns: Out, products: Out, g: In, weight: In, together: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the gradient of x: a transposed convolution of g."""
    k = channels * kh * kw
    area = oh * ow
    plane = channels * height * width
    for first in range(0, batch, together):
        count = min(together, batch - first)
        for group in range(groups):
            w = matrix(weight, group * filters * k, filters, k).T
            n = first * groups + group
            if count == 1 and _is_plain(kh, kw, sh, sw, ph, pw):
                np.dot(w, matrix(g, n * filters * area, filters, area), matrix(out, n * plane, k, area))
                continue
            if count == 1:
                np.dot(w, matrix(g, n * filters * area, filters, area), matrix(columns, 0, k, area))
            else:
                _collect(products, g, first, count, groups, group, filters, area)
                np.dot(w, matrix(products, 0, filters, count * area), matrix(columns, 0, k, count * area))
            for t in range(count):
                start = ((first + t) * groups + group) * plane
                _fold(
                    out, start, columns, t * area, count * area, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw
                )


@primitive(uses_blas=True)
def convolve_to_weight(
    out: Out, columns: Out, products: Out, part: Out, g: In, x: In, together: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the gradient of weight, summed over the batch. ``part`` is working memory of weight's size."""
    k = channels * kh * kw
    area = oh * ow
    plane = channels * height * width
    for first in range(0, batch, together):
        count = min(together, batch - first)
        for group in range(groups):
            for t in range(count):
                start = ((first + t) * groups + group) * plane
                _unfold(
                    columns, t * area, count * area, x, start, channels, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw
                )
            _collect(products, g, first, count, groups, group, filters, area)
            at = group * filters * k
            gradient, unfolded = matrix(products, 0, filters, count * area), matrix(columns, 0, k, count * area).T
            if first == 0:
                np.dot(gradient, unfolded, matrix(out, at, filters, k))
            else:
                np.dot(gradient, unfolded, matrix(part, 0, filters, k))
                for j in range(filters * k):
                    out[at + j] += part[j]


@primitive
def sum_of_planes(out: Out, g: In, batch: Int, filters: Int, area: Int):
    """The gradient of the bias: out[f] = the sum of g[n, f, :] over n and the plane."""
    for f in range(filters):
        out[f] = F(0)
    for n in range(batch):
        for f in range(filters):
            total = F(0)
            row = (n * filters + f) * area
            for j in range(area):
                total += g[row + j]
            out[f] += total


# --- pooling ---------------------------------------------------------------------------------------------------------


@primitive
def max_pool(
    out: Out, index: OutInt, x: In, planes: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the largest value of each window, index = the position in the plane of its first occurrence. NaN counts as largest."""
    for p in range(planes):
        start = p * height * width
        for oy in range(oh):
            top, bottom = _inside(oy * sh - ph, dh, height, kh)
            for ox in range(ow):
                left, right = _inside(ox * sw - pw, dw, width, kw)
                at = (oy * sh - ph + top * dh) * width + ox * sw - pw + left * dw
                best = x[start + at]
                for i in range(top, bottom):
                    for j in range(left, right):
                        here = (oy * sh - ph + i * dh) * width + ox * sw - pw + j * dw
                        value = x[start + here]
                        if value > best or (value != value and best == best):
                            best, at = value, here
                o = (p * oh + oy) * ow + ox
                out[o] = best
                index[o] = at


@njit(error_model="numpy")
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
