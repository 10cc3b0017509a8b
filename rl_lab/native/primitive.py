"""What a kernel is, and where its machine code is cached.

A kernel is a function over raw buffers. Its parameters are annotated with the roles below, and ``Primitive`` compiles it, when it is
first launched, into a C function of one signature, ``void(const int64 *row)``: the row holds an address or a number for each
parameter. One signature is what lets the machine call any kernel through an array of addresses.
"""

import ctypes
import hashlib
import inspect
import os
import struct
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, overload

from rl_lab.native.threads import limit_blas_threads, start_threads

# --- roles of a kernel's parameters ----------------------------------------------------------------------------------


class Role:
    """How a kernel uses one parameter: a buffer that it reads, writes or both, or a plain number."""

    def __init__(self, code: str, dtype: str, reads: bool = False, writes: bool = False):
        self.code, self.dtype, self.reads, self.writes = code, dtype, reads, writes
        self.is_buffer = reads or writes


_DTYPES = {"": "float32", "Int": "int64", "Bool": "uint8"}
ITEMSIZE = {"float32": 4, "int64": 8, "uint8": 1}
In, InInt, InBool = (Role("q", d, reads=True) for d in _DTYPES.values())
Out, OutInt, OutBool = (Role("q", d, writes=True) for d in _DTYPES.values())
InOut, InOutInt, InOutBool = (Role("q", d, reads=True, writes=True) for d in _DTYPES.values())
Int = Role("q", "int64")
Real = Role("d", "float64")

# With NUMBA_BOUNDSCHECK=1 a kernel gets arrays as long as the memory behind them instead of bare pointers, so that every index is
# checked against the truth and not against the kernel's own arithmetic.
CHECKED = bool(int(os.environ.get("NUMBA_BOUNDSCHECK") or 0))


# --- from a row of int64 to pointers and numbers ---------------------------------------------------------------------


def _cell(builder, row, index):
    return builder.gep(builder.inttoptr(row, ir.IntType(64).as_pointer()), [index])


def _pointer_loader(dtype):
    @intrinsic
    def load(_, row, index):
        def build(context, builder, signature, args):
            address = builder.load(_cell(builder, *args))
            return builder.inttoptr(address, context.get_value_type(signature.return_type))

        return types.CPointer(getattr(types, dtype))(types.int64, types.int64), build

    return load


@intrinsic
def load_int(_, row, index):
    return types.int64(types.int64, types.int64), lambda context, builder, signature, args: builder.load(_cell(builder, *args))


@intrinsic
def load_real(_, row, index):
    def build(context, builder, signature, args):
        cell = builder.bitcast(_cell(builder, *args), ir.DoubleType().as_pointer())
        return builder.load(cell)

    return types.float64(types.int64, types.int64), build


_LOADERS = {
    "load_float32": _pointer_loader("float32"),
    "load_int64": _pointer_loader("int64"),
    "load_uint8": _pointer_loader("uint8"),
    "load_int": load_int,
    "load_real": load_real,
    "carray": carray,
}


@intrinsic
def _advance(_, pointer, count):
    def build(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), build


def matrix(buffer, start, n, m):
    """``n * m`` elements of a kernel's buffer from ``start`` on, as an array of that shape. Works inside kernels only."""
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
    """The address of a kernel's buffer from element ``start`` on, where ``count`` elements are used. Works inside kernels only."""
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


# --- the cache -------------------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where machine code is kept: private to the user and named by a hash of all that shapes it.

    Numba's own cache looks at a kernel's own file only; a helper edited elsewhere would leave stale code. The hash covers every
    source of the engine's lowest rooms and the versions of the compilers. Override the parent with ``RL_LAB_CACHE``.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*here.glob("kernels/*.py"), here / "primitive.py", here / "machine.py"]):
        digest.update(path.read_bytes())
    for fact in (sys.version, CHECKED, *(version(library) for library in ("numba", "llvmlite", "numpy", "scipy"))):
        digest.update(str(fact).encode())
    parent = os.environ.get("RL_LAB_CACHE")
    base = Path(parent) if parent else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl_lab"
    return base / "kernels" / digest.hexdigest()[:16]


_compiling = threading.RLock()
_directory: Path | None = None
on_compile: Callable[[str], None] | None = None
"""Called with a kernel's name when it is compiled afresh and not found in the cache."""


def compile_cached(decorator: Callable[[Callable], Any], function: Callable) -> Any:
    """Apply a numba decorator that has ``cache=True``, with its cache in `cache_directory` and nobody else's settings changed."""
    global _directory
    with _compiling:
        if _directory is None:
            _directory = cache_directory()
            _directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        config: Any = numba.config
        previous, config.CACHE_DIR = config.CACHE_DIR, str(_directory)
        try:
            return decorator(function)
        finally:
            config.CACHE_DIR = previous


# --- the primitive ---------------------------------------------------------------------------------------------------

# A row is just bytes. Kernels are short and keep the interpreter lock; a whole program releases it.
_keeping_lock, _releasing_lock = ctypes.PYFUNCTYPE(None, ctypes.c_char_p), ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class Primitive:
    """A kernel with its parameters' roles; compiled, or loaded from the cache, when first used.

    ``pack(*addresses and numbers)`` makes a row, ``call(row)`` runs the kernel on it. `address` is the machine code's address.
    """

    def __init__(
        self,
        name: str,
        roles: tuple[Role, ...],
        source: str,
        namespace: dict,
        filename: str,
        uses_blas: bool = False,
        starts_threads: bool = False,
        keeps_lock: bool = True,
    ):
        buffers = [role for role in roles if role.is_buffer]
        if list(roles[: len(buffers)]) != buffers:
            raise TypeError(f"kernel {name}: buffers come before numbers")
        self.name, self.roles, self.keeps_lock = name, roles, keeps_lock
        self.uses_blas, self.starts_threads = uses_blas, starts_threads or uses_blas
        self.buffers = tuple(buffers)
        self._source, self._namespace, self._filename = source, namespace, filename
        codes = "".join(role.code for role in roles) + "q" * (len(buffers) if CHECKED else 0)
        self.row_length = len(codes)
        self.pack = struct.Struct(codes).pack
        self.call: Callable[[bytes], None] = self._compile_and_call
        self._compiled: Any = None
        self.elementwise = False
        """Whether the numbers are n, m and two strides for each operand, and no element depends on another."""

    def __deepcopy__(self, memo: dict) -> "Primitive":
        return self  # a copy of its user uses the same

    @property
    def address(self) -> int:
        if self._compiled is None:
            self._compile()
        return self._compiled.address

    def _compile(self) -> None:
        with _compiling:
            if self._compiled is not None:
                return
            if self.starts_threads:
                start_threads()
            exec(compile(self._source, self._filename, "exec"), self._namespace)
            decorate = numba.cfunc(types.void(types.int64), cache=True, error_model="numpy")
            if on_compile is not None and not self._in_cache():
                on_compile(self.name)
            self._compiled = compile_cached(decorate, self._namespace[self.name])
            if self.uses_blas:
                limit_blas_threads()
            self.call = (_keeping_lock if self.keeps_lock else _releasing_lock)(self._compiled.address)

    def _in_cache(self) -> bool:
        directory = _directory or cache_directory()
        return any(directory.glob(f"*/*.{self.name}-*.nbi"))

    def _compile_and_call(self, row: bytes) -> None:
        self._compile()
        self.call(row)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def unpack_source(roles: tuple[Role, ...]) -> list[str]:
    """For each parameter, the expression that takes it from ``row``."""
    expressions = []
    for i, role in enumerate(roles):
        if role.is_buffer:
            pointer = f"load_{role.dtype}(row, {i})"
            expressions.append(f"carray({pointer}, (load_int(row, {len(roles) + i}),))" if CHECKED else pointer)
        else:
            expressions.append(f"load_real(row, {i})" if role is Real else f"load_int(row, {i})")
    return expressions


def primitive(
    function: Callable | None = None, *, uses_blas: bool = False, starts_threads: bool = False, keeps_lock: bool = True
) -> Any:
    """Make a primitive of a kernel written as a function whose parameters are annotated with roles, buffers first."""

    def make(function: Callable) -> Primitive:
        name = function.__name__
        roles = tuple(p.annotation for p in inspect.signature(function).parameters.values())
        source = f"def {name}(row):\n    kernel({', '.join(unpack_source(roles))})\n"
        namespace = {**_LOADERS, "kernel": numba.njit(error_model="numpy")(function), "__name__": function.__module__}
        return Primitive(name, roles, source, namespace, function.__code__.co_filename, uses_blas, starts_threads, keeps_lock)

    return make if function is None else make(function)


def primitive_from_source(name: str, parameters: dict[str, Role], body: str, namespace: dict, filename: str) -> Primitive:
    """Make a primitive of the text of a kernel's body, for families whose members differ in one expression only."""
    roles = tuple(parameters.values())
    unpacking = "".join(f"    {p} = {e}\n" for p, e in zip(parameters, unpack_source(roles), strict=True))
    scope = {**namespace, **_LOADERS, "__name__": f"{__package__}.kernels.{Path(filename).stem}"}
    return Primitive(name, roles, f"def {name}(row):\n{unpacking}{body}", scope, filename)
