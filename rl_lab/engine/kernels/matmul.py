"""Products of batches of matrices. The shape alone gives the order of every sum, so no result depends on the processor.

Sizes: a is (n, k), b is (k, m), out is (n, m). ``sa`` and ``sb`` are the distances between the matrices of a batch, in numbers; 0
repeats one matrix. ``layout`` says which operand is stored transposed, ``way`` how the product is computed (`way_of`). ``end`` names
the last step, which combines each row of the product with ``extra`` while the row is in the cache.
"""

import numpy as np

from rl_lab.engine.kernels.scalar import relu32, tanh32
from rl_lab.engine.kernels.tiles import (
    DOT_COLUMNS,
    DOT_COLUMNS_OF_ROW,
    DOT_ROWS,
    FEW_REGISTERS,
    FEW_TERMS,
    HEIGHT,
    HEIGHTS,
    LANES,
    PANEL,
    WIDE,
    dots,
    largest_of,
    strip,
    tile,
    tile_of_packed,
    transpose,
)
from rl_lab.native.part import part
from rl_lab.native.pointers import STACKED, address_of, copy_bytes, float32_at, keep, stacked
from rl_lab.native.primitive import In, Int, Out, primitive

PLAIN = 0
B_TRANSPOSED = 1
A_TRANSPOSED = 2
"""Layouts: both operands row by row; b stored as (m, k); a stored as (k, n)."""

F = np.float32
TILES, DOTS, DOTS_OF_COPY, SWAPPED = range(4)
"""Ways to compute a product: by tiles, by dot products of rows, by dot products after b is transposed, or by tiles as b.T @ a.T."""

NOTHING, ADD, ADD_RELU, ADD_TANH, RELU_BACKWARD, TANH_BACKWARD = range(6)
"""Ends. ADD...: add the row ``extra`` (m), then apply the activation. ..._BACKWARD: ``extra`` (n, m) is the activation's output, and the
product, a gradient, is multiplied by the activation's slope."""
END_CELL = 11
"""The position of ``end`` in the kernel's row."""

NARROW = 16
"""With fewer columns, most of a vector is unused on some processors."""
RAGGED = 24
"""Up to this width, most of the second vector of a tile is unused on some processors."""
RAGGED_AND_DEEP = 40
"""The same of the third vector. Dot products are faster up to here if their sums have at least `DEEP` terms."""
DEEP = 128
SHORT = 48
"""Up to so many terms, and from `SEVERAL` rows on, adding the partial sums of dot products takes longer than transposing b for tiles."""
SEVERAL = 8
FEW = 16
"""For up to this many rows of a, transposing b takes longer than it saves."""
LANES_OF_TILES = 32
"""The columns of a tile on a processor with wide vectors."""
MOST_SWAPPED = 128
"""The most rows of a for which packing a instead of a large b pays."""
LARGE = 65_536
"""The numbers of a large b."""
DEPTH = 256
"""Rows of b in a block."""
BLOCK = 16_384
"""Numbers of b in a block. A block stays in the cache while it is multiplied by all rows of a."""
LARGE_BLOCK = 32_768
"""Numbers of b in a block where a is packed as well."""
ROWS = 120
"""Rows of a that are multiplied by all panels of a block before the next rows, if both are packed: a multiple of `HEIGHT`."""
FEWEST_ROWS = 4
"""The rows from which strips pay."""
FEWEST_PANELS = 8
"""The panels of b from which packing a pays."""
UNPACKED = 4_096
"""The largest b whose rows are read without packing, in numbers."""


def way_of(layout: int, n: int, k: int, m: int) -> int:
    """The way in which a product of this shape is computed: `TILES`, `DOTS`, `DOTS_OF_COPY` or `SWAPPED`."""
    narrow = m < NARROW or NARROW < m <= RAGGED
    if layout == A_TRANSPOSED:
        return SWAPPED if narrow and k > 1 and m < n else TILES
    if layout == B_TRANSPOSED:
        narrow = narrow or (k >= DEEP and NARROW < m <= RAGGED_AND_DEEP and m != 2 * NARROW)
    elif m > NARROW:
        narrow = narrow and k >= DEEP
    short = n >= SEVERAL and k <= SHORT and not narrow
    if k < LANES or short or not (narrow or n <= FEW):
        few = n % LANES_OF_TILES == 0 and n <= MOST_SWAPPED and m >= 4 * n and k * m >= LARGE
        return SWAPPED if few else TILES
    if layout == B_TRANSPOSED:
        return DOTS
    return DOTS_OF_COPY if narrow and n > FEW else TILES


_WIDE_1 = WIDE[1]
_WIDE_2 = WIDE[2]


@part
def finish(out, first, extra, column, n, m, ldc, end):
    """Apply ``end`` to n rows of m sums. The first sum is ``out[first]``, in column ``column``; rows are ``ldc`` numbers apart."""
    # -0.0, which changes no number that it is added to. LLVM does not know it, and so does not turn the choice between 0 and out's
    # own number into masked stores, which take tens of cycles on some processors.
    nothing = -F(first < 0)
    for o in range(first, first + n * ldc, ldc):
        if end == ADD:
            for j in range(m):
                out[o + j] = out[o + j] + extra[column + j]
        elif end == ADD_RELU:
            for j in range(m):
                out[o + j] = relu32(out[o + j] + extra[column + j])
        elif end == ADD_TANH:
            for j in range(m):
                out[o + j] = tanh32(out[o + j] + extra[column + j])
        elif end == RELU_BACKWARD:
            for j in range(m):
                out[o + j] = (F(0) if extra[o + j] <= F(0) else out[o + j]) + nothing
        else:
            for j in range(m):
                s = extra[o + j]
                out[o + j] = out[o + j] * (F(1) - s * s)


@part
def _pack(source, ldb, transposed, target, k, m):
    """Copy (k, m) numbers of b, stored as (m, k) if ``transposed``, to panels of `PANEL` columns."""
    j = 0
    while j < m:
        width = min(PANEL, m - j)
        if transposed:
            transpose(source + 4 * j * ldb, ldb, target, PANEL, width, k)
        else:
            for p in range(k):
                copy_bytes(target + 4 * p * PANEL, source + 4 * (p * ldb + j), 4 * width)
        if FEW_REGISTERS and width < PANEL:  # `tile_of_packed` reads them, and leftovers can be slow numbers
            y = float32_at(target)
            for p in range(k):
                for q in range(width, PANEL):
                    y[p * PANEL + q] = F(0)
        target += 4 * k * PANEL
        j += PANEL


@part
def _rows_of_tiles(a, b, out, n, k, m, row, step, ldb, packed, ldc, continued, result, first, extra, column, end):
    """Compute all rows of the result for m columns from ``column`` on. A packed b consists of panels."""
    panel = k * PANEL if packed else PANEL
    distance = PANEL if packed else ldb
    i = 0
    if k <= FEW_TERMS and n >= FEWEST_ROWS and not continued:
        while i < n:
            height = min(ROWS, n - i)
            right = b
            for j in range(0, m, PANEL):
                strip(a + 4 * i * row, right, out + 4 * (i * ldc + j), height, k, row, step, distance, ldc, min(PANEL, m - j))
                right += 4 * panel
            if end != NOTHING:
                finish(result, first + i * ldc, extra, column, height, m, ldc, end)
            i += height
    while i < n:
        height = largest_of(HEIGHTS, n - i)
        left = a + 4 * i * row
        right = b
        target = out + 4 * i * ldc
        j = 0
        while j < m:
            width = min(PANEL, m - j)
            if height <= 2 and not packed:
                wide = _WIDE_1 if height == 1 else _WIDE_2
                if j + wide <= m:
                    width = wide
            tile(left, right, target + 4 * j, k, row, step, distance, ldc, height, width, continued)
            j += width
            right += 4 * panel * (width // PANEL)
        if end != NOTHING:
            finish(result, first + i * ldc, extra, column, height, m, ldc, end)
        i += height


@part
def multiply_dots(a, b, out, n, k, m, lda, ldb, ldc):
    """The product of a (n, k) and the transpose of b (m, k), by dot products of their rows. All three are given by addresses."""
    i = 0
    while i < n:
        height = largest_of(DOT_ROWS, n - i)
        j = 0
        while j < m:
            width = largest_of(DOT_COLUMNS_OF_ROW, m - j) if height == 1 else largest_of(DOT_COLUMNS, m - j)
            dots(a + 4 * i * lda, b + 4 * j * ldb, out + 4 * (i * ldc + j), k, lda, ldb, ldc, height, width)
            j += width
        i += height


@part
def multiply_tiles(a, b, out, n, k, m, row, step, ldb, transposed, ldc, result, first, extra, end):
    """The product by tiles of the matrices at the addresses ``a`` and ``b``, written to ``out``, the address of ``result[first]``.

    Rows of a are ``row`` numbers apart, columns ``step``. The stored rows of b, which is (m, k) if ``transposed``, are ``ldb`` apart.
    """
    if transposed and k * m <= STACKED and n <= FEW:
        rows = stacked()
        transpose(b, ldb, rows, m, m, k)
        _rows_of_tiles(a, rows, out, n, k, m, row, step, m, False, ldc, False, result, first, extra, 0, end)
    elif transposed or (k * m > UNPACKED and n >= 32):
        _multiply_packed(a, b, out, n, k, m, row, step, ldb, transposed, ldc, result, first, extra, end)
    else:
        _rows_of_tiles(a, b, out, n, k, m, row, step, ldb, False, ldc, False, result, first, extra, 0, end)


@part
def _pack_rows(source, row, step, target, n, k):
    """Copy (n, k) numbers of a to tiles as high as those of `HEIGHTS`. In a tile the rows of a column lie side by side."""
    x = float32_at(source)
    y = float32_at(target)
    i = 0
    while i < n:
        height = largest_of(HEIGHTS, n - i)
        start = i * k
        if height == HEIGHT:  # a loop of constant length
            for p in range(k):
                for q in range(HEIGHT):
                    y[start + p * HEIGHT + q] = x[(i + q) * row + p * step]
        else:
            for p in range(k):
                for q in range(height):
                    y[start + p * height + q] = x[(i + q) * row + p * step]
        i += height


@part
def _multiply_packed(a, b, out, n, k, m, row, step, ldb, transposed, ldc, result, first, extra, end):
    """`multiply_tiles` with a copy of b, made block by block; of a as well, if tiles are small and b is wide."""
    depth = min(k, DEPTH)
    packs = (FEW_REGISTERS or row % 1024 == 0) and n >= HEIGHT and m >= FEWEST_PANELS * PANEL
    most = LARGE_BLOCK if packs else BLOCK
    columns = min(max(PANEL, most // depth // PANEL * PANEL), -(-m // PANEL) * PANEL)
    block = np.empty(depth * columns, np.float32)
    right = np.int64(block.ctypes.data)
    rows = np.empty(n * depth if packs else 1, np.float32)
    left = np.int64(rows.ctypes.data)
    for p in range(0, k, depth):
        kc = min(depth, k - p)
        if packs:
            _pack_rows(a + 4 * p * step, row, step, left, n, kc)
        for j in range(0, m, columns):
            mc = min(columns, m - j)
            _pack(b + 4 * (j * ldb + p if transposed else p * ldb + j), ldb, transposed, right, kc, mc)
            ending = end if p + kc == k else NOTHING
            if packs:
                _packed_tiles(left, right, out + 4 * j, n, kc, mc, ldc, p > 0, result, first + j, extra, j, ending)
            else:
                _rows_of_tiles(
                    a + 4 * p * step, right, out + 4 * j, n, kc, mc, row, step, ldb, True, ldc, p > 0,
                    result, first + j, extra, j, ending,
                )  # fmt: skip
    keep(block)
    keep(rows)


@part
def _packed_tiles(a, b, out, n, k, m, ldc, continued, result, first, extra, column, end):
    """Compute all rows of the result for m columns from ``column`` on. Both operands are packed.

    A panel of b stays in the nearest cache while all rows of a pass by it.
    """
    for start in range(0, n, ROWS):
        stop = min(n, start + ROWS)
        right = b
        j = 0
        while j < m:
            width = min(PANEL, m - j)
            i = start
            while i < stop:
                height = largest_of(HEIGHTS, stop - i)
                tile_of_packed(a + 4 * i * k, right, out + 4 * (i * ldc + j), k, ldc, height, width, continued)
                i += height
            right += 4 * k * PANEL
            j += PANEL
        if end != NOTHING:
            finish(result, first + start * ldc, extra, column, stop - start, m, ldc, end)


@part
def _multiply_swapped(a, b, out, n, k, m, lda, ldb, ldc, layout, result, first, extra):
    """The product by tiles as the transpose of b' a'."""
    if n * m <= STACKED:
        _swapped(a, b, out, n, k, m, lda, ldb, ldc, layout, result, first, extra, stacked())
    else:
        product = np.empty(n * m, np.float32)
        _swapped(a, b, out, n, k, m, lda, ldb, ldc, layout, result, first, extra, np.int64(product.ctypes.data))
        keep(product)


@part
def _swapped(a, b, out, n, k, m, lda, ldb, ldc, layout, result, first, extra, into):
    """`_multiply_swapped` by way of the address ``into``."""
    row = 1
    step = ldb
    if layout == B_TRANSPOSED:
        row = ldb
        step = 1
    multiply_tiles(b, a, into, m, k, n, row, step, lda, layout != A_TRANSPOSED, n, result, first, extra, NOTHING)
    transpose(into, n, out, ldc, m, n)


@part
def _multiply_copy(a, b, out, n, k, m, lda, ldb, ldc):
    """`multiply_dots` for a b that is stored as (k, m)."""
    if k * m <= STACKED:
        _by_copy(a, b, out, n, k, m, lda, ldb, ldc, stacked())
    else:
        copy = np.empty(k * m, np.float32)
        _by_copy(a, b, out, n, k, m, lda, ldb, ldc, np.int64(copy.ctypes.data))
        keep(copy)


@part
def _by_copy(a, b, out, n, k, m, lda, ldb, ldc, rows):
    """`_multiply_copy` by way of the address ``rows``."""
    transpose(b, ldb, rows, k, k, m)
    multiply_dots(a, rows, out, n, k, m, lda, k, ldc)


@primitive
def matmul(
    out: Out,
    a: In,
    b: In,
    extra: In,
    batch: Int,
    n: Int,
    k: Int,
    m: Int,
    sa: Int,
    sb: Int,
    layout: Int,
    end: Int,
    lda: Int,
    ldb: Int,
    ldc: Int,
    way: Int,
):
    """out = the products of a batch, then ``end``. The stored rows of a, b and out are lda, ldb and ldc numbers apart."""
    if n == 0 or m == 0:
        return
    for t in range(batch):
        first = t * n * m
        target = address_of(out, first, (n - 1) * ldc + m)
        if layout == A_TRANSPOSED:
            left = address_of(a, t * sa, (k - 1) * lda + n)
        else:
            left = address_of(a, t * sa, (n - 1) * lda + k)
        if layout == B_TRANSPOSED:
            right = address_of(b, t * sb, (m - 1) * ldb + k)
        else:
            right = address_of(b, t * sb, (k - 1) * ldb + m)
        ending = end
        if k == 0:
            for i in range(n):
                for j in range(first + i * ldc, first + i * ldc + m):
                    out[j] = F(0)
        elif way == DOTS:
            multiply_dots(left, right, target, n, k, m, lda, ldb, ldc)
        elif way == DOTS_OF_COPY:
            _multiply_copy(left, right, target, n, k, m, lda, ldb, ldc)
        elif way == SWAPPED:
            _multiply_swapped(left, right, target, n, k, m, lda, ldb, ldc, layout, out, first, extra)
        else:
            row = lda
            step = 1
            if layout == A_TRANSPOSED:
                row = 1
                step = lda
            transposed = layout == B_TRANSPOSED
            multiply_tiles(left, right, target, n, k, m, row, step, ldb, transposed, ldc, out, first, extra, end)
            ending = NOTHING
        if ending != NOTHING:
            finish(out, first, extra, 0, n, m, ldc, ending)
