"""Whether to share work between cores just now.

A parallel region waits for its slowest thread. Where another process holds a core, that thread may not run for milliseconds, a
thousand times what a small product takes. So each region times itself, and those that do not stall earn credit for those that do:
a rare stall costs less than a core gains. Without credit the work is done on one core for a while, the longer the more often that
happens. The blocks are the same either way, and so are the results.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_FIRST_REST, _LONGEST_REST = 64, 2048  # calls
_MOST_CREDIT = 20_000_000  # cycles: what about two stalls cost


@intrinsic
def region_state(_):
    """Three int64 that belong to the calling machine code: calls left on one core, the length of the last such rest, and credit."""

    def build(context, builder, signature, args):
        kind = ir.ArrayType(ir.IntType(64), 3)
        cells = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("region_state"))
        cells.linkage, cells.initializer = "internal", ir.Constant(kind, None)
        return builder.bitcast(cells, context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(), build


@intrinsic
def cycles(_):
    """The processor's time stamp; 0 where it has none."""

    def build(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(builder.module.declare_intrinsic("llvm.readcyclecounter", (), kind), [])

    return types.int64(), build


@njit(error_model="numpy")
def may_share(state):
    """Whether this call may wake the other cores."""
    if state[0] > 0:
        state[0] -= 1
        return False
    return True


@njit(error_model="numpy")
def note_region(state, taken, expected):
    """Remember how long a region took; ``expected`` is about what one core alone would need, both in cycles."""
    if taken <= 4 * expected + 200_000:
        state[2] += expected // 4  # of the half that a second core saves
        if state[2] > _MOST_CREDIT:
            state[2], state[1] = _MOST_CREDIT, 0
        return
    state[2] -= taken
    if state[2] < 0:
        state[1] = min(max(2 * state[1], _FIRST_REST), _LONGEST_REST)
        state[0], state[2] = state[1], 0


@intrinsic
def take(_, counter):
    """What the int64 at this address was before 1 was added to it; no two threads get the same number."""

    def build(context, builder, signature, args):
        word = ir.IntType(64)
        place = builder.inttoptr(args[0], word.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(word, 1), "monotonic")

    return types.int64(types.int64), build


@intrinsic
def call(_, address, argument):
    """Call the C function void(int64) at this address."""

    def build(context, builder, signature, args):
        kernel = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kernel.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build
