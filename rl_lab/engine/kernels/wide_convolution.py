"""Convolutions with many filters or channels. The columns of a tile are filters or channels, and its rows begin anywhere in memory.

So the numbers that a window covers are read where they are, whatever the stride, and no result is computed that nobody needs. The
sizes, and the order of every sum except for those of the weight's gradient, are those of `rl_lab.engine.kernels.convolution`.
"""

import numpy as np

from rl_lab.engine.kernels.convolution import activate
from rl_lab.engine.kernels.matmul import ADD, NOTHING, finish
from rl_lab.engine.kernels.tiles import PANEL, ROWS_AT, tile_of_rows, transpose
from rl_lab.native.part import part
from rl_lab.native.pointers import address_of, copy_bytes, float32_at, keep, prefetch
from rl_lab.native.primitive import In, Int, Out, primitive

F = np.float32
_LANES = 32
"""The columns of a tile on a processor with wide vectors."""
_TOGETHER = 400
"""Pixels over which a block of the weight's gradient is summed: many, so that a tile pays, and few, so that they stay in the cache."""


_BLOCK = 96
"""The most pixels that are computed at a time."""
_DEPTH = 200
"""Rows of a panel that are multiplied at a time, so that they stay in the cache."""


def fills_tiles(columns: int) -> bool:
    """Whether the columns fill tiles well enough. The answer is the same on every processor."""
    return 4 * -(-columns // _LANES) * _LANES <= 5 * columns


def samples_of_block(area: int, batch: int) -> int:
    """The number of samples over which the weight's gradient is summed at a time, for results of ``area`` pixels."""
    return max(1, min(batch, _TOGETHER // area))


def block_of_pixels(area: int) -> int:
    """The number of pixels of a sample that are computed at a time, so that they are still in the cache when they are moved."""
    blocks = -(-area // _BLOCK)
    return -(-area // (blocks * 16)) * 16


_block = part(block_of_pixels)


def padded_columns(count: int) -> int:
    """The number of columns in the panels for ``count`` columns."""
    return -(-count // PANEL) * PANEL


@part
def _grid(n, far, m, middle, k, near):
    """The positions of the points of an (n, m, k) grid whose axes have these steps."""
    table = np.empty(n * m * k, np.int64)
    p = 0
    for a in range(n):
        for b in range(m):
            for c in range(k):
                table[p] = a * far + b * middle + c * near
                p += 1
    return table


@part
def _rows(a, b, out, starts, steps, targets, count, k, continued, ahead, size):
    """`tile_of_rows` for any number of rows. Meanwhile ``size`` bytes from address ``ahead`` on are brought into the cache."""
    blocks = -(-count // ROWS_AT)
    low = 0
    for t in range(blocks):
        for place in range(ahead + t * size // blocks, ahead + (t + 1) * size // blocks, 64):
            prefetch(place)
        high = (t + 1) * count // blocks
        tile_of_rows(a, b, out, starts + 8 * low, steps, targets + 8 * low, k, high - low, continued)
        low = high


@part
def _clear(address, count):
    """Write ``count`` zeros."""
    numbers = float32_at(address)
    for j in range(count):
        numbers[j] = F(0)


@part
def _columns(source, lds, target, distance, columns, n):
    """Write ``columns`` rows of n numbers as the columns of a panel whose rows are ``distance`` numbers apart; zeros fill the panel."""
    if columns < PANEL:
        for p in range(n):
            _clear(target + 4 * p * distance, PANEL)
    transpose(source, lds, target, distance, columns, n)


@part
def _pad(source, target, channels, height, width, ph, pw):
    """Copy the planes of a sample with zeros around each."""
    columns = width + 2 * pw
    _clear(target, channels * (height + 2 * ph) * columns)
    for c in range(channels):
        for y in range(height):
            row = (c * (height + 2 * ph) + y + ph) * columns + pw
            copy_bytes(target + 4 * row, source + 4 * (c * height + y) * width, 4 * width)


def convolve_space(filters: int, channels: int, elements: int, area: int, plane: int, is_padded: bool, groups: int) -> int:
    """The numbers of working memory of `convolve_wide`; a padded plane has ``plane`` numbers, a filter ``elements`` for each channel."""
    weights = groups * padded_columns(filters) * channels * elements
    return weights + block_of_pixels(area) * PANEL + (channels * plane if is_padded else 0)


@primitive
def convolve_wide(
    out: Out, space: Out, x: In, weight: In, bias: In, end: Int, batch: Int, groups: Int,
    filters: Int, channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """`convolve`: the rows of a tile are pixels, its columns filters. ``space`` is working memory, see `convolve_space`."""
    k = channels * kh * kw
    area = oh * ow
    columns = width + 2 * pw
    plane = (height + 2 * ph) * columns
    volume = channels * height * width
    padded = ph > 0 or pw > 0
    elements = _grid(channels, plane, kh, dh * columns, kw, dw)
    pixels = _grid(1, 0, oh, sh * columns, ow, sw)
    block = _block(area)
    lines = _grid(1, 0, 1, 0, block, PANEL)
    starts = np.int64(pixels.ctypes.data)
    steps = np.int64(elements.ctypes.data)
    targets = np.int64(lines.ctypes.data)
    panel = k * PANEL
    panels = -(-filters // PANEL)
    packed = address_of(space, 0, groups * panels * panel)
    result = address_of(space, groups * panels * panel, block * PANEL)
    for group in range(groups):
        for q in range(panels):
            high = min(PANEL, filters - q * PANEL)
            first = (group * filters + q * PANEL) * k
            _columns(address_of(weight, first, high * k), k, packed + 4 * (group * panels + q) * panel, PANEL, high, k)
    for sample in range(batch * groups):
        source = address_of(x, sample * volume, volume)
        ahead = source + 4 * volume
        if padded:
            copy = address_of(space, groups * panels * panel + block * PANEL, channels * plane)
            _pad(source, copy, channels, height, width, ph, pw)
            source = copy
        group = sample % groups
        for q in range(panels):
            factors = packed + 4 * (group * panels + q) * panel
            high = min(PANEL, filters - q * PANEL)
            first = (sample * filters + q * PANEL) * area
            target = address_of(out, first, high * area)
            for low in range(0, area, block):
                count = min(block, area - low)
                size = 4 * volume * count // (area * panels) if sample + 1 < batch * groups else 0
                _rows(source, factors, result, starts + 8 * low, steps, targets, count, k, False, ahead, size)
                ahead += size
                transpose(result, PANEL, target + 4 * low, area, count, high)
                if end != NOTHING:
                    for f in range(high):
                        b = bias[group * filters + q * PANEL + f]
                        at = first + f * area + low
                        for j in range(at, at + count):
                            out[j] += b
                        if end > ADD:
                            activate(out, at, count, end)
    keep(elements)
    keep(pixels)
    keep(lines)


def to_input_space(filters: int, channels: int, elements: int, plane: int, groups: int) -> int:
    """The numbers of working memory of `convolve_to_input_wide`."""
    return groups * padded_columns(channels) * elements * filters + plane * PANEL


@primitive
def convolve_to_input_wide(
    out: Out, space: Out, g: In, weight: In, y: In, end: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """`convolve_to_input`: the rows of a tile are pixels of g, its columns channels. ``space`` is working memory, see `to_input_space`."""
    elements = kh * kw
    area = oh * ow
    columns = width + 2 * pw
    plane = (height + 2 * ph) * columns
    pixels = _grid(1, 0, 1, 0, area, 1)
    planes = _grid(1, 0, 1, 0, filters, area)
    places = _grid(1, 0, oh, sh * columns * PANEL, ow, sw * PANEL)
    starts = np.int64(pixels.ctypes.data)
    steps = np.int64(planes.ctypes.data)
    targets = np.int64(places.ctypes.data)
    panel = elements * filters * PANEL
    panels = -(-channels // PANEL)
    packed = address_of(space, 0, groups * panels * panel)
    result = address_of(space, groups * panels * panel, plane * PANEL)
    for group in range(groups):
        for q in range(panels):
            wide = min(PANEL, channels - q * PANEL)
            for f in range(filters):
                source = address_of(weight, ((group * filters + f) * channels + q * PANEL) * elements, wide * elements)
                target = packed + 4 * ((group * panels + q) * panel + f * PANEL)
                _columns(source, elements, target, filters * PANEL, wide, elements)
    for sample in range(batch * groups):
        source = address_of(g, sample * filters * area, filters * area)
        ahead = source + 4 * filters * area
        size = 4 * filters * area // (panels * elements) if sample + 1 < batch * groups else 0
        for q in range(panels):
            factors = packed + 4 * (sample % groups * panels + q) * panel
            _clear(result, plane * PANEL)
            for i in range(kh):
                for j in range(kw):
                    target = result + 4 * (i * dh * columns + j * dw) * PANEL
                    _rows(source, factors, target, starts, steps, targets, area, filters, True, ahead, size)
                    ahead += size
                    factors += 4 * filters * PANEL
            wide = min(PANEL, channels - q * PANEL)
            first = (sample * channels + q * PANEL) * height * width
            target = address_of(out, first, wide * height * width)
            begin = result + 4 * (ph * columns + pw) * PANEL
            if pw == 0:
                transpose(begin, PANEL, target, height * width, height * width, wide)
            else:
                for row in range(height):
                    transpose(begin + 4 * row * columns * PANEL, PANEL, target + 4 * row * width, height * width, width, wide)
            if end != NOTHING:
                volume = wide * height * width
                finish(out, first, y, 0, 1, volume, volume, end)  # one row
    keep(pixels)
    keep(planes)
    keep(places)


def to_weight_space(filters: int, k: int, area: int, together: int, volume: int, is_padded: bool) -> int:
    """The numbers of working memory of `convolve_to_weight_wide`; a padded sample has ``volume`` numbers, a filter k."""
    return together * area * PANEL + (padded_columns(filters) + PANEL) * k + (together * volume if is_padded else 0)


@primitive
def convolve_to_weight_wide(
    out: Out, space: Out, g: In, x: In, together: Int, batch: Int, groups: Int, filters: Int,
    channels: Int, height: Int, width: Int, oh: Int, ow: Int, kh: Int, kw: Int,
    sh: Int, sw: Int, ph: Int, pw: Int, dh: Int, dw: Int,
):  # fmt: skip
    """out = the gradient of weight, summed over the batch: the rows of a tile are elements of a filter, its columns filters.

    Each sum runs over the pixels of ``together`` samples; then these sums are added. ``space`` is working memory, see
    `to_weight_space`.
    """
    k = channels * kh * kw
    area = oh * ow
    columns = width + 2 * pw
    plane = (height + 2 * ph) * columns
    volume = channels * height * width
    padded = ph > 0 or pw > 0
    distance = channels * plane if padded else groups * volume
    elements = _grid(channels, plane, kh, dh * columns, kw, dw)
    pixels = _grid(together, distance, oh, sh * columns, ow, sw)
    lines = _grid(1, 0, 1, 0, k, PANEL)
    starts = np.int64(elements.ctypes.data)
    steps = np.int64(pixels.ctypes.data)
    targets = np.int64(lines.ctypes.data)
    panel = k * PANEL
    panels = -(-filters // PANEL)
    gradients = address_of(space, 0, together * area * PANEL)
    sums = address_of(space, together * area * PANEL, (panels + 1) * panel)
    total = float32_at(sums)
    for group in range(groups):
        for begin in range(0, batch, together):
            count = min(together, batch - begin)
            first = begin * groups + group
            source = address_of(x, first * volume, ((count - 1) * groups + 1) * volume)
            ahead = source + 4 * count * groups * volume
            ahead_size = 4 * min(together, batch - begin - count) * groups * volume
            if padded:
                copy = address_of(space, together * area * PANEL + (panels + 1) * panel, together * channels * plane)
                for t in range(count):
                    sample = address_of(x, (first + t * groups) * volume, volume)
                    _pad(sample, copy + 4 * t * channels * plane, channels, height, width, ph, pw)
                source = copy
            for q in range(panels):
                high = min(PANEL, filters - q * PANEL)
                for t in range(count):
                    at = ((first + t * groups) * filters + q * PANEL) * area
                    _columns(address_of(g, at, high * area), area, gradients + 4 * t * area * PANEL, PANEL, high, area)
                part = q if begin == 0 else panels
                for low in range(0, count * area, _DEPTH):
                    depth = min(_DEPTH, count * area - low)
                    right = gradients + 4 * low * PANEL
                    size = ahead_size * depth // (count * area * panels)
                    _rows(
                        source, right, sums + 4 * part * panel, starts, steps + 8 * low, targets, k, depth, low > 0, ahead, size
                    )
                    ahead += size
                if begin > 0:
                    for j in range(panel):
                        total[q * panel + j] += total[panels * panel + j]
        for q in range(panels):
            high = min(PANEL, filters - q * PANEL)
            target = address_of(out, (group * filters + q * PANEL) * k, high * k)
            transpose(sums + 4 * q * panel, PANEL, target, k, k, high)
    keep(elements)
    keep(pixels)
    keep(lines)
