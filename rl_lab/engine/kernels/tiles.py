"""The inner loops of a matrix product and of a transposition, written in LLVM's language: numba cannot express these vectors.

A product is cut into tiles. A tile is a few rows of a times two vectors of columns of b; its sums stay in registers during the loop
over k. Each sum is one chain of fused multiply-adds in the order of k, so no element depends on how the product is cut into tiles.
"""

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

_FEATURES = {} if numba.config.CPU_NAME else binding.get_host_cpu_features()  # type: ignore[attr-defined]
_WIDE = _FEATURES.get("avx512f", False) and (
    binding.get_host_cpu_name().startswith("znver") or _FEATURES.get("avx512fp16", False)
)  # Intel processors before Sapphire Rapids are slower with vectors of 512 bits
_MANY_REGISTERS = _FEATURES.get("avx512vl", False) or _FEATURES.get("neon", False)

WIDTH = 16 if _WIDE else 8 if _FEATURES.get("avx2", False) else 4
"""Numbers in a vector."""
HEIGHTS = (12, 8, 4, 1) if _MANY_REGISTERS else (4, 2, 1)
"""Possible numbers of rows of a tile."""

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


def _vector_at(builder, pointer, offset):
    """A pointer to a vector, ``offset`` numbers behind a pointer to a number."""
    return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())


def _load(builder, place):
    value = builder.load(place)
    value.align = 4
    return value


def _store(builder, value, place):
    builder.store(value, place).align = 4


def _splat(builder, number):
    """A vector whose elements all equal ``number``."""
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, number, _LANE(0)), _UNDEFINED, _FIRST_LANE)


def _mask_of(builder, count):
    """A mask of the first ``count`` lanes."""
    undefined = ir.Constant(_LANES, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(count, _LANE), _LANE(0))
    return builder.icmp_signed(
        "<", ir.Constant(_LANES, list(range(WIDTH))), builder.shuffle_vector(first, undefined, _FIRST_LANE)
    )


def _tile(builder, height, vectors, mask, a, b, out, k, row, step, ldb, ldc):
    """Emit the code of one tile. ``mask`` picks the lanes of its last vector; None takes all lanes."""
    masks = [None] * (vectors - 1) + [mask]
    fma = _declared(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, [_VECTOR] * 3)
    masked = [_VECTOR.as_pointer(), _LANE, _MASK]
    before = builder.block
    loop = builder.append_basic_block("sum")
    done = builder.append_basic_block("summed")
    row_twice = builder.add(row, row)
    starts = [builder.gep(a, [builder.mul(row, _INT(i))]) for i in range(0, height, 3)]  # three rows from each address
    builder.branch(loop)

    builder.position_at_end(loop)

    def running(kind, start):
        value = builder.phi(kind)
        value.add_incoming(start, before)
        return value

    p = running(_INT, _INT(0))
    at_b = running(_POINTER, b)
    rows = [running(_POINTER, start) for start in starts]
    sums = [running(_VECTOR, _ZERO) for _ in range(height * vectors)]
    columns = []
    for v, lanes in enumerate(masks):
        place = _vector_at(builder, at_b, _INT(v * WIDTH))
        if lanes is None:
            columns.append(_load(builder, place))
        else:
            load = _declared(builder, f"llvm.masked.load.v{WIDTH}f32.p0", _VECTOR, [*masked, _VECTOR])
            columns.append(builder.call(load, [place, _LANE(4), lanes, _ZERO]))
    following = []
    for i in range(height):
        place = rows[i // 3] if i % 3 == 0 else builder.gep(rows[i // 3], [row if i % 3 == 1 else row_twice])
        number = _splat(builder, _load(builder, place))
        following += [builder.call(fma, [number, column, sums[i * vectors + v]]) for v, column in enumerate(columns)]
    for value, after in zip(sums, following, strict=True):
        value.add_incoming(after, loop)
    for value in rows:
        value.add_incoming(builder.gep(value, [step]), loop)
    at_b.add_incoming(builder.gep(at_b, [ldb]), loop)
    p_after = builder.add(p, _INT(1))
    p.add_incoming(p_after, loop)
    builder.cbranch(builder.icmp_signed("<", p_after, k), loop, done)

    builder.position_at_end(done)
    for i in range(height):
        line = builder.gep(out, [builder.mul(ldc, _INT(i))])
        for v, lanes in enumerate(masks):
            value = following[i * vectors + v]
            place = _vector_at(builder, line, _INT(v * WIDTH))
            if lanes is None:
                _store(builder, value, place)
            else:
                store = _declared(builder, f"llvm.masked.store.v{WIDTH}f32.p0", ir.VoidType(), [_VECTOR, *masked])
                builder.call(store, [value, place, _LANE(4), lanes])


@intrinsic
def tile(_, a, b, out, k, row, step, ldb, ldc, height, width):
    """``out[i, j] = sum over p < k of a[i, p] b[p, j]`` for i < height and j < width.

    a, b and out are addresses of float32. Rows of a are ``row`` numbers apart and columns ``step``; rows of b and out are ``ldb`` and
    ``ldc`` numbers apart. height is one of `HEIGHTS`, width is at most 2 `WIDTH`, k is at least 1.
    """

    def build(context, builder, signature, args):
        a, b, out = (builder.inttoptr(address, _POINTER) for address in args[:3])
        k, row, step, ldb, ldc, height, width = args[3:]
        end = builder.append_basic_block("end")
        narrow = builder.icmp_signed("<=", width, _INT(WIDTH))
        mask = _mask_of(builder, builder.select(narrow, width, builder.sub(width, _INT(WIDTH))))
        kind = builder.select(
            builder.icmp_signed("==", width, _INT(2 * WIDTH)), _INT(0), builder.select(narrow, _INT(64), _INT(128))
        )
        kinds = {0: (2, None), 64: (1, mask), 128: (2, mask)}
        blocks = {(rows, k): builder.append_basic_block(f"tile{rows}") for rows in HEIGHTS for k in kinds}
        switch = builder.switch(builder.add(height, kind), end)
        for (rows, of), block in blocks.items():
            switch.add_case(_INT(rows + of), block)
            builder.position_at_end(block)
            _tile(builder, rows, *kinds[of], a, b, out, k, row, step, ldb, ldc)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), build


@intrinsic
def transpose_block(_, source, lds, target, ldt):
    """Transpose a block of `WIDTH` x `WIDTH` numbers from one address to another. The rows are ``lds`` and ``ldt`` numbers apart."""

    def build(context, builder, signature, args):
        source, target = (builder.inttoptr(args[i], _POINTER) for i in (0, 2))
        rows = [_load(builder, _vector_at(builder, source, builder.mul(args[1], _INT(i)))) for i in range(WIDTH)]
        # Interleaving row i with row i + half moves one bit of the row number into the column number: log2(WIDTH) rounds swap the two.
        half = WIDTH // 2
        pairs = [[e + s * WIDTH for e in range(WIDTH) for s in (0, 1)][start : start + WIDTH] for start in (0, WIDTH)]
        for _ in range(WIDTH.bit_length() - 1):
            rows = [
                builder.shuffle_vector(rows[i], rows[i + half], ir.Constant(_LANES, pair))
                for i in range(half)
                for pair in pairs
            ]
        for i, value in enumerate(rows):
            _store(builder, value, _vector_at(builder, target, builder.mul(args[3], _INT(i))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build
