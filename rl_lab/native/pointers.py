"""Intrinsics on raw memory, for use inside kernels: pointers from addresses, calls by address, copies, atomic counters.

Addresses are int64. Bounds are not checked, except in a debugging build; `rl_lab.native.primitive` explains that build.
"""

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload


def _pointer(dtype: Any) -> Any:
    @intrinsic
    def pointer(_, address):
        def build(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(dtype)(types.int64), build

    return pointer


# --- an address as a typed pointer -------------------------------------------------------------------------------------------

uint8_at = _pointer(types.uint8)
int32_at = _pointer(types.int32)
int64_at = _pointer(types.int64)
uint64_at = _pointer(types.uint64)
float32_at = _pointer(types.float32)
float64_at = _pointer(types.float64)


# --- cells of a row: 8 bytes each, an integer or the bits of a float64 --------------------------------------------------------


def _cell(builder, row, index):
    return builder.gep(builder.inttoptr(row, ir.IntType(64).as_pointer()), [index])


@intrinsic
def load_int(_, row, index):
    """The int64 in cell ``index`` of the row at address ``row``."""
    return types.int64(types.int64, types.int64), lambda context, builder, signature, args: builder.load(_cell(builder, *args))


@intrinsic
def load_real(_, row, index):
    """The float64 in cell ``index`` of the row at address ``row``."""

    def build(context, builder, signature, args):
        cell = builder.bitcast(_cell(builder, *args), ir.DoubleType().as_pointer())
        return builder.load(cell)

    return types.float64(types.int64, types.int64), build


# --- parts of a buffer --------------------------------------------------------------------------------------------------------


@intrinsic
def _advance(_, pointer, count):
    def build(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), build


def matrix(buffer, start, n, m):
    """View ``n * m`` elements of a kernel's buffer, from element ``start`` on, as an (n, m) array. Works inside kernels only."""
    raise TypeError("matrix() works inside kernels")


@overload(matrix, inline="always")
def _matrix(buffer, start, n, m):
    if isinstance(buffer, types.CPointer):
        return lambda buffer, start, n, m: carray(_advance(buffer, start), (n, m))  # type: ignore[call-arg]
    return lambda buffer, start, n, m: buffer[start : start + n * m].reshape((n, m))


@intrinsic
def _number(_, pointer):
    def build(context, builder, signature, args):
        return builder.ptrtoint(args[0], ir.IntType(64))

    return types.int64(pointer), build


def address_of(buffer, start, count):
    """Address of element ``start`` of a kernel's buffer, of which ``count`` elements will be used. Works inside kernels only.

    Raises IndexError in a debugging build if those elements are not all inside the buffer.
    """
    raise TypeError("address_of() works inside kernels")


@overload(address_of, inline="always")
def _address_of(buffer, start, count):
    if isinstance(buffer, types.CPointer):
        return lambda buffer, start, count: _number(_advance(buffer, start))  # type: ignore[call-arg]

    def checked(buffer, start, count):
        if start < 0 or start + count > buffer.size:
            raise IndexError("a kernel would leave its buffer")
        return buffer.ctypes.data + start * buffer.itemsize

    return checked


# --- calls, copies, counters --------------------------------------------------------------------------------------------------


@intrinsic
def call(_, address, argument):
    """Call the C function ``void(int64)`` at ``address`` with ``argument``."""

    def build(context, builder, signature, args):
        kernel = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kernel.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


@intrinsic
def copy_bytes(_, target, source, count):
    """Copy ``count`` bytes from address ``source`` to address ``target``; the two ranges must not overlap."""

    def build(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(args[0], byte), builder.inttoptr(args[1], byte), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


STACKED = 2_048
"""The float32 numbers that `stacked` provides."""


@intrinsic
def stacked(_):
    """The address of `STACKED` float32 numbers on the stack, valid until the function returns. Allocating them costs nothing."""

    def build(context, builder, signature, args):
        with builder.goto_entry_block():  # there, a loop around the call does not allocate again
            block = builder.alloca(ir.ArrayType(ir.FloatType(), STACKED))
        return builder.ptrtoint(block, ir.IntType(64))

    return types.int64(), build


@intrinsic
def prefetch(_, address):
    """Ask for the cache line at ``address``, which may lie anywhere, without waiting for it."""

    def build(context, builder, signature, args):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        hints = [ir.Constant(number, hint) for hint in (0, 2, 1)]  # to read, into the second cache, data
        builder.call(function, [builder.inttoptr(args[0], byte), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def fetch_and_add(_, address):
    """Atomic fetch-and-add of 1 on the int64 at ``address``; returns the previous value."""

    def build(context, builder, signature, args):
        word = ir.IntType(64)
        place = builder.inttoptr(args[0], word.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(word, 1), "monotonic")

    return types.int64(types.int64), build


@intrinsic
def keep(_, array):
    """Keep an array alive until here. Numba frees it after the last use of its name, even while its address is in use."""
    return types.void(array), lambda context, builder, signature, args: context.get_dummy_value()
