"""The inner loops of products and of a transposition, written in LLVM's language: numba cannot express these vectors.

A product is cut into tiles. A tile is a few rows of a times a few vectors of columns of b; its sums stay in registers during the loop
over k. Each sum is one chain of fused multiply-adds in the order of k, so no element depends on how the product is cut into tiles.
"""

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from rl_lab.native.part import part
from rl_lab.native.pointers import float32_at

_FEATURES = {} if numba.config.CPU_NAME else binding.get_host_cpu_features()  # type: ignore[attr-defined]
_WIDE = _FEATURES.get("avx512f", False) and (
    binding.get_host_cpu_name().startswith("znver") or _FEATURES.get("avx512fp16", False)
)  # Intel processors before Sapphire Rapids are slower with vectors of 512 bits
_MANY_REGISTERS = _FEATURES.get("avx512vl", False) or _FEATURES.get("neon", False)

WIDTH = 16 if _WIDE else 8 if _FEATURES.get("avx2", False) else 4
"""Numbers in a vector."""
HEIGHTS = (12, 8, 6, 4, 2, 1) if _MANY_REGISTERS else (6, 4, 2, 1)
"""Rows that a tile can have."""
HEIGHT = HEIGHTS[0]
"""Rows of the tallest tile."""
FEW_REGISTERS = not _MANY_REGISTERS
"""Whether tiles are so small that reading rows of a that lie far apart costs as much as multiplying."""
PANEL = 2 * WIDTH
"""Columns of a full tile."""
FEW_TERMS = 12 if _MANY_REGISTERS else 4
"""Terms of the sums of a strip, at most: its part of b stays in registers."""
WIDE = {1: 8 * WIDTH, 2: 4 * WIDTH}
"""Columns of a wide tile, by its rows: few rows need more columns, so that enough sums run side by side."""
FEWEST = 40
"""Numbers of a part of a block from which vectors transpose it faster than a loop."""
LANES = 16
"""Partial sums of a dot product, whatever the width of the processor's vectors."""

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_LANE = ir.IntType(32)
_POINTER = _FLOAT.as_pointer()
_VECTOR, _LANES = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_LANE, WIDTH)
_MASK = ir.VectorType(ir.IntType(1), WIDTH)
_UNDEFINED, _ZERO = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_VECTOR, [0.0] * WIDTH)
_FIRST_LANE = ir.Constant(_LANES, [0] * WIDTH)


def _declared(builder, name, result, parameters):
    """The LLVM intrinsic of this name, declared in the module of the builder."""
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, parameters), name)


def _shared(module, name, count, body):
    """The function of this name with ``count`` int64 parameters, whose code `body` writes once in a module.

    It is never inlined: its code is long, and its callers are many.
    """
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT] * count), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("start"))
        body(builder, function.args)
        builder.ret_void()
    return function


def _vector_at(builder, pointer, offset):
    return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())


def _load(builder, place):
    value = builder.load(place)
    value.align = 4
    return value


def _store(builder, value, place):
    builder.store(value, place).align = 4


def _splat(builder, number):
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, number, _LANE(0)), _UNDEFINED, _FIRST_LANE)


def _mask_of(builder, count):
    """A mask of the first ``count`` lanes."""
    undefined = ir.Constant(_LANES, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(count, _LANE), _LANE(0))
    return builder.icmp_signed(
        "<", ir.Constant(_LANES, list(range(WIDTH))), builder.shuffle_vector(first, undefined, _FIRST_LANE)
    )


def _load_lanes(builder, place, lanes):
    """Load the vector at a place; if ``lanes`` is a mask, with zeros outside the mask."""
    if lanes is None:
        return _load(builder, place)
    load = _declared(builder, f"llvm.masked.load.v{WIDTH}f32.p0", _VECTOR, [_VECTOR.as_pointer(), _LANE, _MASK, _VECTOR])
    return builder.call(load, [place, _LANE(4), lanes, _ZERO])


def _store_lanes(builder, values, places, lanes, count):
    """Store vectors; if ``lanes`` is a mask, only their first ``count`` lanes, which are those of the mask."""
    if lanes is None:
        for value, place in zip(values, places, strict=True):
            _store(builder, value, place)
        return
    if _MANY_REGISTERS or WIDTH != 8:
        masked = [_VECTOR, _VECTOR.as_pointer(), _LANE, _MASK]
        store = _declared(builder, f"llvm.masked.store.v{WIDTH}f32.p0", ir.VoidType(), masked)
        for value, place in zip(values, places, strict=True):
            builder.call(store, [value, place, _LANE(4), lanes])
        return
    # without AVX-512, a masked store takes tens of cycles on some processors: store 8, or 4, 2 and 1 numbers
    starts = [builder.bitcast(place, _POINTER) for place in places]
    offset = _INT(0)
    for size in (8, 4, 2, 1):
        before = builder.block
        storing = builder.append_basic_block(f"store{size}")
        after = builder.append_basic_block(f"stored{size}")
        builder.cbranch(builder.icmp_signed("!=", builder.and_(count, _INT(size)), _INT(0)), storing, after)
        builder.position_at_end(storing)
        kind = ir.VectorType(_FLOAT, size).as_pointer()
        for value, start in zip(values, starts, strict=True):
            part = _picked(builder, value, value, list(range(size)))
            _store(builder, part, builder.bitcast(builder.gep(start, [offset]), kind))
        moved = [_picked(builder, value, value, [(i + size) % WIDTH for i in range(WIDTH)]) for value in values]
        moved_offset = builder.add(offset, _INT(size))
        builder.branch(after)
        builder.position_at_end(after)

        def either(kept, changed, kind, before=before, storing=storing):
            value = builder.phi(kind)
            value.add_incoming(kept, before)
            value.add_incoming(changed, storing)
            return value

        values = [either(value, changed, _VECTOR) for value, changed in zip(values, moved, strict=True)]
        offset = either(offset, moved_offset, _INT)


def _tile(builder, height, vectors, mask, count, a, b, out, k, row, step, ldb, ldc, continued, table, padded=False):
    """Emit the code of one tile. A mask picks the first ``count`` lanes of its last vector.

    A table, if given, holds the starts of the rows of b. If the rows of b are ``padded``, whole vectors are read from them.
    """
    masks = [None] * (vectors - 1) + [mask]
    fma = _declared(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, [_VECTOR] * 3)
    resuming, loop = builder.append_basic_block("resume"), builder.append_basic_block("sum")
    done = builder.append_basic_block("summed")
    row_twice = builder.add(row, row)
    starts = [builder.gep(a, [builder.mul(row, _INT(i))]) for i in range(0, height, 3)]  # three rows from each address
    places = []
    for i in range(height):
        line = builder.gep(out, [builder.mul(ldc, _INT(i))])
        places += [_vector_at(builder, line, _INT(v * WIDTH)) for v in range(vectors)]
    fresh = builder.block
    builder.cbranch(continued, resuming, loop)

    builder.position_at_end(resuming)
    earlier = [_load_lanes(builder, place, lanes) for place, lanes in zip(places, masks * height, strict=True)]
    builder.branch(loop)

    builder.position_at_end(loop)

    def running(kind, start, resumed=None):
        value = builder.phi(kind)
        value.add_incoming(start, fresh)
        value.add_incoming(start if resumed is None else resumed, resuming)
        return value

    p = running(_INT, _INT(0))
    at_b = running(_POINTER, b) if table is None else None
    rows = [running(_POINTER, start) for start in starts]
    sums = [running(_VECTOR, _ZERO, value) for value in earlier]
    line = builder.gep(b, [builder.load(builder.gep(table, [p]))]) if table else at_b
    read = enumerate([None] * vectors if padded else masks)
    columns = [_load_lanes(builder, _vector_at(builder, line, _INT(v * WIDTH)), lanes) for v, lanes in read]
    following = []
    for i in range(height):
        place = rows[i // 3] if i % 3 == 0 else builder.gep(rows[i // 3], [row if i % 3 == 1 else row_twice])
        number = _splat(builder, _load(builder, place))
        following += [builder.call(fma, [number, column, sums[i * vectors + v]]) for v, column in enumerate(columns)]
    for value, after in zip(sums, following, strict=True):
        value.add_incoming(after, loop)
    for value in rows:
        value.add_incoming(builder.gep(value, [step]), loop)
    if at_b is not None:
        at_b.add_incoming(builder.gep(at_b, [ldb]), loop)
    p_after = builder.add(p, _INT(1))
    p.add_incoming(p_after, loop)
    builder.cbranch(builder.icmp_signed("<", p_after, k), loop, done)

    builder.position_at_end(done)
    for v, lanes in enumerate(masks):
        _store_lanes(builder, following[v::vectors], places[v::vectors], lanes, count)


def _tiles(builder, args):
    """The code of `tile`."""
    continued = builder.icmp_signed("!=", args[10], _INT(0))
    _kinds_of_tiles(builder, *args[:10], continued, None)


def _tiles_at(builder, args):
    """The code of `tile_at`."""
    table = builder.inttoptr(args[6], _INT.as_pointer())
    _kinds_of_tiles(builder, *args[:6], _INT(0), *args[7:10], ir.Constant(ir.IntType(1), 0), table)


def _kinds_of_tiles(builder, a, b, out, k, row, step, ldb, ldc, height, width, continued, table):
    """Emit one block of code per kind of tile, and the choice between them."""
    a = builder.inttoptr(a, _POINTER)
    b = builder.inttoptr(b, _POINTER)
    out = builder.inttoptr(out, _POINTER)
    end = builder.append_basic_block("end")
    narrow = builder.icmp_signed("<=", width, _INT(WIDTH))
    count = builder.select(narrow, width, builder.sub(width, _INT(WIDTH)))
    mask = _mask_of(builder, count)
    full = _INT(0)
    one = _INT(64)
    two = _INT(128)
    wide = _INT(192)
    partial = builder.select(narrow, one, builder.select(builder.icmp_signed("<", width, _INT(PANEL)), two, wide))
    kind = builder.select(builder.icmp_signed("==", width, _INT(PANEL)), full, partial)
    kinds = {(rows, code): shape for rows in HEIGHTS for code, shape in ((0, (2, None)), (64, (1, mask)), (128, (2, mask)))}
    kinds |= {(rows, 192): (columns // WIDTH, None) for rows, columns in WIDE.items()}
    blocks = {key: builder.append_basic_block(f"tile{key[0]}") for key in kinds}
    switch = builder.switch(builder.add(height, kind), end)
    for (rows, code), block in blocks.items():
        switch.add_case(_INT(rows + code), block)
        builder.position_at_end(block)
        _tile(builder, rows, *kinds[rows, code], count, a, b, out, k, row, step, ldb, ldc, continued, table)
        builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def tile(_, a, b, out, k, row, step, ldb, ldc, height, width, continued):
    """``out[i, j] = sum over p < k of a[i, p] b[p, j]`` for i < height and j < width; if ``continued``, added to out's own numbers.

    a, b and out are addresses of float32. Rows of a are ``row`` numbers apart and columns ``step``; rows of b and out are ``ldb`` and
    ``ldc`` numbers apart. height is one of `HEIGHTS`, width is at most `PANEL` or the height's number in `WIDE`, k is at least 1.
    A product that is cut along k and continued has the bits of the whole product.
    """

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_tile", 11, _tiles), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11), build


@intrinsic
def tile_at(_, a, b, out, k, row, step, table, ldc, height, width):
    """`tile` in which row p of b begins ``table[p]`` numbers behind the address b. ``table`` is the address of int64 numbers."""

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_tile_at", 10, _tiles_at), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), build


def _strip(builder, terms, vectors, mask, count, a, b, out, n, row, step, ldb, ldc):
    """Emit the code of a strip: the rows of b are loaded once, then each row of a passes by them."""
    masks = [None] * (vectors - 1) + [mask]
    fma = _declared(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, [_VECTOR] * 3)
    lines = [builder.gep(b, [builder.mul(ldb, _INT(p))]) for p in range(terms)]
    columns = [
        [_load_lanes(builder, _vector_at(builder, line, _INT(v * WIDTH)), lanes) for v, lanes in enumerate(masks)]
        for line in lines
    ]
    distances = [builder.mul(step, _INT(p)) for p in range(terms)]
    before = builder.block
    loop, done = builder.append_basic_block("rows"), builder.append_basic_block("strip_end")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_INT)
    left, target = builder.phi(_POINTER), builder.phi(_POINTER)
    sums = [_ZERO] * vectors
    for distance, vectors_of_b in zip(distances, columns, strict=True):
        number = _splat(builder, _load(builder, builder.gep(left, [distance])))
        sums = [builder.call(fma, [number, column, total]) for column, total in zip(vectors_of_b, sums, strict=True)]
    for v, lanes in enumerate(masks):
        _store_lanes(builder, [sums[v]], [_vector_at(builder, target, _INT(v * WIDTH))], lanes, count)
    after = builder.block
    i_after = builder.add(i, _INT(1))
    following = (i_after, builder.gep(left, [row]), builder.gep(target, [ldc]))
    for value, start, moved in zip((i, left, target), (_INT(0), a, out), following, strict=True):
        value.add_incoming(start, before)
        value.add_incoming(moved, after)
    builder.cbranch(builder.icmp_signed("<", i_after, n), loop, done)
    builder.position_at_end(done)


def _strips(builder, args):
    """The code of `strip`."""
    a, b, out = (builder.inttoptr(x, _POINTER) for x in args[:3])
    n, k, row, step, ldb, ldc, width = args[3:]
    end = builder.append_basic_block("end")
    narrow = builder.icmp_signed("<=", width, _INT(WIDTH))
    count = builder.select(narrow, width, builder.sub(width, _INT(WIDTH)))
    mask = _mask_of(builder, count)
    partial = builder.select(narrow, _INT(64), _INT(128))
    kind = builder.select(builder.icmp_signed("==", width, _INT(PANEL)), _INT(0), partial)
    switch = builder.switch(builder.add(k, kind), end)
    for terms in range(1, FEW_TERMS + 1):
        for code, shape in ((0, (2, None)), (64, (1, mask)), (128, (2, mask))):
            block = builder.append_basic_block(f"strip{terms}")
            switch.add_case(_INT(terms + code), block)
            builder.position_at_end(block)
            _strip(builder, terms, *shape, count, a, b, out, n, row, step, ldb, ldc)
            builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def strip(_, a, b, out, n, k, row, step, ldb, ldc, width):
    """A `tile` of any number n of rows, at least 1, for sums of at most `FEW_TERMS` terms; ``width`` is at most `PANEL`.

    A tile of so few terms would take longer to begin and to end than to compute.
    """

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_strip", 10, _strips), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), build


def _tiles_of_packed(builder, args):
    """The code of `tile_of_packed`."""
    a, b, out = (builder.inttoptr(x, _POINTER) for x in args[:3])
    k, ldc, height, width = args[3:7]
    continued = builder.icmp_signed("!=", args[7], _INT(0))
    end = builder.append_basic_block("end")
    narrow = builder.icmp_signed("<=", width, _INT(WIDTH))
    count = builder.select(narrow, width, builder.sub(width, _INT(WIDTH)))
    mask = _mask_of(builder, count)
    switch = builder.switch(builder.add(height, builder.select(narrow, _INT(64), _INT(128))), end)
    for rows in HEIGHTS:
        for vectors in (1, 2):
            block = builder.append_basic_block(f"packed{rows}x{vectors}")
            switch.add_case(_INT(rows + 64 * vectors), block)
            builder.position_at_end(block)
            distances = (_INT(1), _INT(rows), _INT(PANEL))  # as constants they save a third of the loop's instructions
            _tile(builder, rows, vectors, mask, count, a, b, out, k, *distances, ldc, continued, None, padded=True)
            builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def tile_of_packed(_, a, b, out, k, ldc, height, width, continued):
    """`tile` of packed operands.

    Column p of a is ``height`` numbers side by side. Row p of b is `PANEL` numbers, of which the first ``width`` count.
    """

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_packed", 8, _tiles_of_packed), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), build


ROWS_AT = 8 if _MANY_REGISTERS else 6
"""The most rows of a tile whose rows begin anywhere."""


def _rows_at(builder, args):
    """The code of `tile_of_rows`."""
    a, b, out = (builder.inttoptr(x, _POINTER) for x in args[:3])
    starts, steps, targets = (builder.inttoptr(x, _INT.as_pointer()) for x in args[3:6])
    k = args[6]
    continued = builder.icmp_signed("!=", args[8], _INT(0))
    end = builder.append_basic_block("end")
    switch = builder.switch(args[7], end)
    for height in range(1, ROWS_AT + 1):
        block = builder.append_basic_block(f"rows{height}")
        switch.add_case(_INT(height), block)
        builder.position_at_end(block)
        _tile_of_rows(builder, height, a, b, out, starts, steps, targets, k, continued)
        builder.branch(end)
    builder.position_at_end(end)


def _tile_of_rows(builder, height, a, b, out, starts, steps, targets, k, continued):
    """Emit the code of one tile of `PANEL` columns whose rows begin anywhere."""
    fma = _declared(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, [_VECTOR] * 3)
    resuming, loop = builder.append_basic_block("resume"), builder.append_basic_block("sum")
    done = builder.append_basic_block("summed")
    rows = [builder.gep(a, [builder.load(builder.gep(starts, [_INT(i)]))]) for i in range(height)]
    fresh = builder.block
    builder.cbranch(continued, resuming, loop)

    def places():
        for i in range(height):
            line = builder.gep(out, [builder.load(builder.gep(targets, [_INT(i)]))])
            yield from (_vector_at(builder, line, _INT(v * WIDTH)) for v in range(2))

    builder.position_at_end(resuming)
    earlier = [_load(builder, place) for place in places()]
    builder.branch(loop)

    builder.position_at_end(loop)
    p = builder.phi(_INT)
    at_b = builder.phi(_POINTER)
    sums = [builder.phi(_VECTOR) for _ in earlier]
    step = builder.load(builder.gep(steps, [p]))
    columns = [_load(builder, _vector_at(builder, at_b, _INT(v * WIDTH))) for v in range(2)]
    following = []
    for i in range(height):
        number = _splat(builder, _load(builder, builder.gep(rows[i], [step])))
        following += [builder.call(fma, [number, column, sums[2 * i + v]]) for v, column in enumerate(columns)]
    p_after = builder.add(p, _INT(1))
    for value, start, after in [(p, _INT(0), p_after), (at_b, b, builder.gep(at_b, [_INT(PANEL)]))]:
        value.add_incoming(start, fresh)
        value.add_incoming(start, resuming)
        value.add_incoming(after, loop)
    for value, resumed, after in zip(sums, earlier, following, strict=True):
        value.add_incoming(_ZERO, fresh)
        value.add_incoming(resumed, resuming)
        value.add_incoming(after, loop)
    builder.cbranch(builder.icmp_signed("<", p_after, k), loop, done)

    builder.position_at_end(done)
    for value, place in zip(following, places(), strict=True):
        _store(builder, value, place)


@intrinsic
def tile_of_rows(_, a, b, out, starts, steps, targets, k, height, continued):
    """``out[targets[i] + j] = sum over p < k of a[starts[i] + steps[p]] b[p, j]`` for i < height and j < `PANEL`.

    All six are addresses: a, b and out of float32, starts, steps and targets of int64 numbers. The rows of b are `PANEL` numbers apart.
    height is from 1 to `ROWS_AT`, k is at least 1. If ``continued``, the sum is added to out's own numbers, as in `tile`.
    """

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_tile_of_rows", 9, _rows_at), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), build


@part
def largest_of(sizes, most):
    """The largest of the sizes, in falling order down to 1, that is at most ``most``."""
    for size in sizes:
        if size <= most:
            return size
    return 1


# --- dot products ----------------------------------------------------------------------------------------------------

_LONG, _LONG_LANES = ir.VectorType(_FLOAT, LANES), ir.VectorType(_LANE, LANES)
_LONG_MASK = ir.VectorType(ir.IntType(1), LANES)
_LONG_ZERO = ir.Constant(_LONG, [0.0] * LANES)
DOT_ROWS = (6, 4, 2, 1) if _MANY_REGISTERS and _WIDE else (2, 1)
DOT_COLUMNS = (4, 2, 1) if _MANY_REGISTERS and _WIDE else (2, 1)
DOT_COLUMNS_OF_ROW = (8, 4, 2, 1) if _MANY_REGISTERS and _WIDE else (4, 2, 1)
"""Columns of a block of dot products with several rows, and with one row."""


def _picked(builder, x, y, lanes):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_LANE, len(lanes)), lanes))


def _summed(builder, sums):
    """The sums of the lanes of 1, 2, 4 or 8 vectors, as one vector with a sum per vector.

    Lane p is added to lane p + 8, then to p + 4, to p + 2 and to p + 1. Pairs of vectors are joined as soon as this saves shuffles,
    but not at full width, where some processors need twice the time.
    """
    for half in (8, 4, 2, 1):
        joins = len(sums) > 1 and (half <= 2 or (half == 4 and len(sums) > 2))
        total = sums[0].type.count * (2 if joins else 1)
        low, high = ([i for i in range(total) if i // half % 2 == side] for side in (0, 1))
        pairs = list(zip(sums[::2], sums[1::2], strict=True)) if joins else [(x, x) for x in sums]
        sums = [builder.fadd(_picked(builder, x, y, low), _picked(builder, x, y, high)) for x, y in pairs]
    return sums[0]


def _dots(builder, height, width, a, b, out, k, lda, ldb, ldc, runs):
    """Emit the code of one block of dot products. ``runs`` is None or (table, number of runs, their distances in a, and in b)."""
    fma = _declared(builder, f"llvm.fmuladd.v{LANES}f32", _LONG, [_LONG] * 3)
    load = _declared(builder, f"llvm.masked.load.v{LANES}f32.p0", _LONG, [_LONG.as_pointer(), _LANE, _LONG_MASK, _LONG])
    lines = [builder.gep(a, [builder.mul(lda, _INT(i))]) for i in range(height)]
    if runs is None:
        lines += [builder.gep(b, [builder.mul(ldb, _INT(j))]) for j in range(width)]
    else:
        lines += [builder.gep(b, [builder.load(builder.gep(runs[0], [_INT(j)]))]) for j in range(width)]
    whole = builder.and_(k, _INT(-LANES))
    undefined = ir.Constant(_LONG_LANES, ir.Undefined)
    count = builder.insert_element(undefined, builder.trunc(builder.sub(k, whole), _LANE), _LANE(0))
    mask = builder.icmp_signed(
        "<", ir.Constant(_LONG_LANES, list(range(LANES))), _picked(builder, count, undefined, [0] * LANES)
    )
    entry, run = builder.block, builder.append_basic_block("run")
    loop, rest = builder.append_basic_block("sum"), builder.append_basic_block("rest")
    last, next_run = builder.append_basic_block("last"), builder.append_basic_block("next")
    done = builder.append_basic_block("summed")
    builder.branch(run)

    builder.position_at_end(run)
    index = builder.phi(_INT)
    from_a = builder.phi(_INT)
    from_b = builder.phi(_INT)
    before = [builder.phi(_LONG) for _ in range(height * width)]
    for value in (index, from_a, from_b):
        value.add_incoming(_INT(0), entry)
    for value in before:
        value.add_incoming(_LONG_ZERO, entry)
    starts = [builder.gep(line, [from_a if i < height else from_b]) for i, line in enumerate(lines)] if runs else lines
    builder.cbranch(builder.icmp_signed(">", whole, _INT(0)), loop, rest)

    def products(sums, p, lanes):
        places = [builder.bitcast(builder.gep(line, [p]), _LONG.as_pointer()) for line in starts]
        if lanes is None:
            values = [_load(builder, place) for place in places]
        else:
            values = [builder.call(load, [place, _LANE(4), lanes, _LONG_ZERO]) for place in places]
        return [
            builder.call(fma, [values[i], values[height + j], sums[i * width + j]]) for i in range(height) for j in range(width)
        ]

    builder.position_at_end(loop)
    p = builder.phi(_INT)
    sums = [builder.phi(_LONG) for _ in before]
    following = products(sums, p, None)
    after = builder.add(p, _INT(LANES))
    p.add_incoming(_INT(0), run)
    p.add_incoming(after, loop)
    for value, start, next_value in zip(sums, before, following, strict=True):
        value.add_incoming(start, run)
        value.add_incoming(next_value, loop)
    builder.cbranch(builder.icmp_signed("<", after, whole), loop, rest)

    builder.position_at_end(rest)
    so_far = [builder.phi(_LONG) for _ in before]
    for value, start, next_value in zip(so_far, before, following, strict=True):
        value.add_incoming(start, run)
        value.add_incoming(next_value, loop)
    builder.cbranch(builder.icmp_signed("<", whole, k), last, next_run)

    builder.position_at_end(last)
    finals = products(so_far, whole, mask)
    builder.branch(next_run)

    builder.position_at_end(next_run)
    totals = [builder.phi(_LONG) for _ in before]
    for value, early, late in zip(totals, so_far, finals, strict=True):
        value.add_incoming(early, rest)
        value.add_incoming(late, last)
    if runs is None:
        builder.branch(done)
    else:
        _, runs_count, distance_a, distance_b = runs
        next_index = builder.add(index, _INT(1))
        index.add_incoming(next_index, next_run)
        from_a.add_incoming(builder.add(from_a, distance_a), next_run)
        from_b.add_incoming(builder.add(from_b, distance_b), next_run)
        for value, total in zip(before, totals, strict=True):
            value.add_incoming(total, next_run)
        builder.cbranch(builder.icmp_signed("<", next_index, runs_count), run, done)

    builder.position_at_end(done)
    for i in range(height):
        total = _summed(builder, totals[i * width : (i + 1) * width])
        place = builder.gep(out, [builder.mul(ldc, _INT(i))])
        _store(builder, total, builder.bitcast(place, ir.VectorType(_FLOAT, width).as_pointer()))


def _kinds_of_dots(builder, a, b, out, k, lda, ldb, ldc, height, width, runs):
    """Emit one block of code per shape of dot products, and the choice between them."""
    a = builder.inttoptr(a, _POINTER)
    b = builder.inttoptr(b, _POINTER)
    out = builder.inttoptr(out, _POINTER)
    end = builder.append_basic_block("end")
    blocks = {
        (i, j): builder.append_basic_block(f"dots{i}x{j}")
        for i in DOT_ROWS
        for j in (DOT_COLUMNS_OF_ROW if i == 1 else DOT_COLUMNS)
    }
    switch = builder.switch(builder.add(builder.mul(height, _INT(64)), width), end)
    for (rows, columns), block in blocks.items():
        switch.add_case(_INT(64 * rows + columns), block)
        builder.position_at_end(block)
        _dots(builder, rows, columns, a, b, out, k, lda, ldb, ldc, runs)
        builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def dots(_, a, b, out, k, lda, ldb, ldc, height, width):
    """``out[i, j] = sum over p < k of a[i, p] b[j, p]`` for i < height and j < width.

    a, b and out are addresses of float32 whose rows are ``lda``, ``ldb`` and ``ldc`` numbers apart. height is one of `DOT_ROWS`,
    width one of `DOT_COLUMNS`, or of `DOT_COLUMNS_OF_ROW` if height is 1. Each sum has `LANES` chains of fused multiply-adds;
    product p belongs to chain p % LANES.
    """

    def build(context, builder, signature, args):
        code = _shared(builder.module, "rl_lab_dots", 9, lambda inner, given: _kinds_of_dots(inner, *given, None))
        builder.call(code, args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), build


@intrinsic
def dots_at(_, a, b, out, k, lda, table, ldc, height, width, runs, distance_a, distance_b):
    """`dots` summed over ``runs`` pairs of a and b, which are ``distance_a`` and ``distance_b`` numbers apart.

    Row j of b begins ``table[j]`` numbers behind the address b; ``table`` is the address of int64 numbers. The chains continue from run
    to run.
    """

    def code(builder, args):
        table = builder.inttoptr(args[5], _INT.as_pointer())
        _kinds_of_dots(builder, *args[:5], _INT(0), *args[6:9], (table, *args[9:12]))

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_dots_at", 12, code), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), build


def _transposed(builder, rows):
    """The columns of a block of `WIDTH` vectors.

    Interleaving row i with row i + half moves one bit of the row number into the column number: log2(WIDTH) rounds swap the two.
    """
    half = WIDTH // 2
    pairs = [[e + s * WIDTH for e in range(WIDTH) for s in (0, 1)][start : start + WIDTH] for start in (0, WIDTH)]
    for _ in range(WIDTH.bit_length() - 1):
        rows = [
            builder.shuffle_vector(rows[i], rows[i + half], ir.Constant(_LANES, pair)) for i in range(half) for pair in pairs
        ]
    return rows


@intrinsic
def transpose_block(_, source, lds, target, ldt):
    """Transpose a block of `WIDTH` x `WIDTH` numbers from one address to another. The rows are ``lds`` and ``ldt`` numbers apart."""

    def build(context, builder, signature, args):
        source, target = (builder.inttoptr(args[i], _POINTER) for i in (0, 2))
        rows = [_load(builder, _vector_at(builder, source, builder.mul(args[1], _INT(i)))) for i in range(WIDTH)]
        for i, value in enumerate(_transposed(builder, rows)):
            _store(builder, value, _vector_at(builder, target, builder.mul(args[3], _INT(i))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


def _part_of_block(builder, args):
    """The code of `transpose_part`."""
    source, target = (builder.inttoptr(args[i], _POINTER) for i in (0, 2))
    masks = [_mask_of(builder, args[i]) for i in (5, 4)]
    nothing = ir.Constant(_MASK, [False] * WIDTH)

    def lanes(i, count, mask):
        return builder.select(builder.icmp_signed("<", _INT(i), count), mask, nothing)

    rows = [
        _load_lanes(builder, _vector_at(builder, source, builder.mul(args[1], _INT(i))), lanes(i, args[4], masks[0]))
        for i in range(WIDTH)
    ]
    for i, value in enumerate(_transposed(builder, rows)):
        place = _vector_at(builder, target, builder.mul(args[3], _INT(i)))
        with builder.if_then(builder.icmp_signed("<", _INT(i), args[5])):
            _store_lanes(builder, [value], [place], masks[1], args[4])


@intrinsic
def transpose_part(_, source, lds, target, ldt, n, m):
    """`transpose_block` for the first n rows and m columns of a block, at most `WIDTH` each."""

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_transpose_part", 6, _part_of_block), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), build


def _columns_of(builder, vectors):
    """The columns of `WIDTH` rows that lie side by side in as many vectors as a row has numbers."""
    count = len(vectors)
    if count == 1:
        return vectors
    if count % 2 == 0:  # the numbers at even places are those of the even columns
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        halves = [[_picked(builder, x, y, list(range(side, 2 * WIDTH, 2))) for x, y in pairs] for side in (0, 1)]
        sides = [_columns_of(builder, half) for half in halves]
        return [column for pair in zip(*sides, strict=True) for column in pair]
    columns = []
    for q in range(count):
        column = vectors[0]
        places = [divmod(i * count + q, WIDTH) for i in range(WIDTH)]
        for v in range(1, count):
            earlier = [lane if v == 1 else i for i, (_, lane) in enumerate(places)]
            lanes = [WIDTH + lane if of == v else earlier[i] for i, (of, lane) in enumerate(places)]
            column = _picked(builder, column, vectors[v], lanes)
        columns.append(column)
    return columns


def _rows_of(builder, columns):
    """The inverse of `_columns_of`."""
    count = len(columns)
    if count == 1:
        return columns
    if count % 2 == 0:
        evens, odds = (_rows_of(builder, columns[side::2]) for side in (0, 1))
        order = [lane for i in range(WIDTH) for lane in (i, WIDTH + i)]
        parts = (order[:WIDTH], order[WIDTH:])
        return [_picked(builder, x, y, lanes) for x, y in zip(evens, odds, strict=True) for lanes in parts]
    vectors = []
    for v in range(count):
        vector = columns[0]
        places = [divmod(v * WIDTH + i, count) for i in range(WIDTH)]
        for q in range(1, count):
            earlier = [row if q == 1 else i for i, (row, _) in enumerate(places)]
            lanes = [WIDTH + row if of == q else earlier[i] for i, (row, of) in enumerate(places)]
            vector = _picked(builder, vector, columns[q], lanes)
        vectors.append(vector)
    return vectors


NARROW_ROWS = tuple(range(2, 9))
"""Lengths of rows for which `WIDTH` rows side by side are taken apart or put together as a whole."""


def _for_each_length(builder, length, body):
    """Emit ``body(count)`` for each of `NARROW_ROWS`, and the choice between them."""
    end = builder.append_basic_block("end")
    switch = builder.switch(length, end)
    for count in NARROW_ROWS:
        block = builder.append_basic_block(f"length{count}")
        switch.add_case(_INT(count), block)
        builder.position_at_end(block)
        body(count)
        builder.branch(end)
    builder.position_at_end(end)


def _taking_apart(builder, args):
    """The code of `take_apart`."""
    source, target = (builder.inttoptr(x, _POINTER) for x in args[:2])

    def body(count):
        vectors = [_load(builder, _vector_at(builder, source, _INT(v * WIDTH))) for v in range(count)]
        for q, column in enumerate(_columns_of(builder, vectors)):
            _store(builder, column, _vector_at(builder, target, builder.mul(args[2], _INT(q))))

    _for_each_length(builder, args[3], body)


def _putting_together(builder, args):
    """The code of `put_together`."""
    source, target = (builder.inttoptr(args[i], _POINTER) for i in (0, 2))

    def body(count):
        columns = [_load(builder, _vector_at(builder, source, builder.mul(args[1], _INT(q)))) for q in range(count)]
        for v, vector in enumerate(_rows_of(builder, columns)):
            _store(builder, vector, _vector_at(builder, target, _INT(v * WIDTH)))

    _for_each_length(builder, args[3], body)


@intrinsic
def take_apart(_, source, target, ldt, length):
    """Transpose `WIDTH` rows of ``length`` numbers side by side, one of `NARROW_ROWS`. The new rows are ``ldt`` numbers apart."""

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_take_apart", 4, _taking_apart), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


@intrinsic
def put_together(_, source, lds, target, length):
    """Transpose ``length`` rows of `WIDTH` numbers, which are ``lds`` numbers apart. The new rows lie side by side."""

    def build(context, builder, signature, args):
        builder.call(_shared(builder.module, "rl_lab_put_together", 4, _putting_together), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


@part
def transpose(source, lds, target, ldt, n, m):
    """Write the transpose of (n, m) numbers at the address ``source`` to ``target``. The rows are ``lds`` and ``ldt`` numbers apart."""
    x = float32_at(source)
    y = float32_at(target)
    for i in range(0, n, WIDTH):
        high = min(WIDTH, n - i)
        for j in range(0, m, WIDTH):
            wide = min(WIDTH, m - j)
            if high == WIDTH and m == lds and NARROW_ROWS[0] <= m <= NARROW_ROWS[-1]:
                take_apart(source + 4 * i * lds, target + 4 * i, ldt, m)
            elif wide == WIDTH and n == ldt and NARROW_ROWS[0] <= n <= NARROW_ROWS[-1]:
                put_together(source + 4 * j, lds, target + 4 * j * ldt, n)
            elif high + wide == 2 * WIDTH:
                transpose_block(source + 4 * (i * lds + j), lds, target + 4 * (j * ldt + i), ldt)
            elif high * wide >= FEWEST:
                transpose_part(source + 4 * (i * lds + j), lds, target + 4 * (j * ldt + i), ldt, high, wide)
            else:
                for q in range(j, j + wide):
                    for p in range(i, i + high):
                        y[q * ldt + p] = x[p * lds + q]
