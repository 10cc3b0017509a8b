"""Kernels: functions over raw buffers, all compiled to the same signature.

A kernel's parameters are annotated with the roles below. On its first launch `Primitive` compiles the kernel into a C function
``void(int64 address of a row)``; the row holds an address or a number for each parameter. Because all kernels have this signature,
`rl_lab.native.machine` can call any kernel through an array of addresses.
"""

import ctypes
import importlib
import inspect
import os
import struct
import threading
from collections.abc import Callable
from typing import Any

from numba import carray, types

from rl_lab.native.cache import compile_c_function, is_cached
from rl_lab.native.part import part
from rl_lab.native.pointers import float32_at, int64_at, load_int, load_real, uint8_at
from rl_lab.native.threads import renew_after_fork, start_threads

# --- roles of a kernel's parameters ----------------------------------------------------------------------------------


class Role:
    """How a kernel uses one parameter: a buffer that it reads, writes or both, or a plain number."""

    def __init__(self, code: str, dtype: str, reads: bool = False, writes: bool = False):
        self.code = code
        self.dtype = dtype
        self.reads = reads
        self.writes = writes
        self.is_buffer = reads or writes


_DTYPES = {"": "float32", "Int": "int64", "Bool": "uint8"}
ITEMSIZE = {"float32": 4, "int64": 8, "uint8": 1}
In, InInt, InBool = (Role("q", d, reads=True) for d in _DTYPES.values())
Out, OutInt, OutBool = (Role("q", d, writes=True) for d in _DTYPES.values())
InOut, InOutInt, InOutBool = (Role("q", d, reads=True, writes=True) for d in _DTYPES.values())
Int = Role("q", "int64")
Real = Role("d", "float64")

# With NUMBA_BOUNDSCHECK=1, the debugging build, kernels get arrays with the real length of their memory instead of bare pointers, and every
# index is checked against this length.
CHECKED = bool(int(os.environ.get("NUMBA_BOUNDSCHECK") or 0))


# Functions that the generated source calls to unpack a row, by name.
_LOADERS = {
    "float32_at": float32_at,
    "int64_at": int64_at,
    "uint8_at": uint8_at,
    "load_int": load_int,
    "load_real": load_real,
    "carray": carray,
}


# --- the primitive ---------------------------------------------------------------------------------------------------

_SIGNATURE = types.void(types.int64)
# A row is a bytes object. A single kernel is short and keeps the interpreter lock; a whole program releases the lock.
_keeping_lock = ctypes.PYFUNCTYPE(None, ctypes.c_char_p)
_releasing_lock = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_compiling = threading.RLock()
renew_after_fork(globals(), "_compiling", threading.RLock)

before_compiling: Callable[["Primitive"], None] | None = None
"""Called before a kernel is compiled or loaded (see `rl_lab.native.ahead`)."""


class Primitive:
    """A kernel with the roles of its parameters. It is compiled, or loaded from the cache, on its first use.

    ``pack(*addresses_and_numbers)`` makes a row of bytes and ``call(row)`` runs the kernel on it.
    """

    def __init__(
        self,
        name: str,
        roles: tuple[Role, ...],
        source: str,
        namespace: dict,
        filename: str,
        starts_threads: bool = False,
        keeps_lock: bool = True,
    ):
        buffers = [role for role in roles if role.is_buffer]
        if list(roles[: len(buffers)]) != buffers:
            raise TypeError(f"kernel {name}: buffers come before numbers")
        self.name = name
        self.roles = roles
        self.keeps_lock = keeps_lock
        self.starts_threads = starts_threads
        self.buffers = tuple(buffers)
        self._source = source
        self._namespace = namespace
        self._filename = filename
        codes = "".join(role.code for role in roles) + "q" * (len(buffers) if CHECKED else 0)
        self.row_length = len(codes)
        self.pack = struct.Struct(codes).pack
        self.call: Callable[[bytes], None] = self._compile_and_call
        self._compiled: Any = None
        self.kinds: tuple[Any, ...] = (None,) * len(buffers)
        """The caller's names for the buffers' dtypes, which it notes here at the first launch."""
        self.elementwise = False
        """Whether the numbers are n, m and two strides for each operand, and each element is computed independently."""
        self.formula: tuple[tuple[str, ...], str] | None = None
        """An elementwise kernel's operands, in the order of its buffers, and its result as an expression of them."""

    def __deepcopy__(self, memo: dict) -> "Primitive":
        return self  # copies of an object share its primitives

    def __reduce__(self) -> tuple:
        """Pickle by name: another process finds the primitive in the same module."""
        return _named, (self._namespace["__name__"], self.name)

    @property
    def call_keeping_lock(self) -> Callable[[bytes], None]:
        """`call` that keeps the interpreter lock, which is faster for what takes a few microseconds."""
        return _keeping_lock(self.address)

    @property
    def address(self) -> int:
        """Address of the machine code, which is compiled or loaded first if necessary."""
        if self._compiled is None:
            self.compile()
        return self._compiled.address

    def is_cached(self) -> bool:
        """Whether the machine code exists, in this process or on disk."""
        return self._compiled is not None or is_cached(self._function(), _SIGNATURE, self.name)

    def compile(self) -> None:
        """Compile the kernel, or load it from the cache, unless that has been done."""
        with _compiling:
            if self._compiled is None and before_compiling is not None:
                before_compiling(self)
            if self._compiled is not None:
                return
            if self.starts_threads:
                start_threads()
            self._compiled = compile_c_function(self._function(), _SIGNATURE, self.name)
            self.call = (_keeping_lock if self.keeps_lock else _releasing_lock)(self._compiled.address)

    def _function(self) -> Callable:
        """The function that unpacks a row and runs the kernel."""
        exec(compile(self._source, self._filename, "exec"), self._namespace)
        return self._namespace[self.name]

    def _compile_and_call(self, row: bytes) -> None:
        self.compile()
        self.call(row)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def _named(module: str, name: str) -> Primitive:
    return getattr(importlib.import_module(module), name)


def unpack_source(roles: tuple[Role, ...]) -> list[str]:
    """For each parameter, the source of the expression that reads it from ``row``."""
    expressions = []
    for i, role in enumerate(roles):
        if role.is_buffer:
            pointer = f"{role.dtype}_at(load_int(row, {i}))"
            expressions.append(f"carray({pointer}, (load_int(row, {len(roles) + i}),))" if CHECKED else pointer)
        else:
            expressions.append(f"load_real(row, {i})" if role is Real else f"load_int(row, {i})")
    return expressions


def primitive(function: Callable | None = None, *, starts_threads: bool = False, keeps_lock: bool = True) -> Any:
    """Make a primitive from a function whose parameters are annotated with roles, buffers first. Usable as a decorator.

    Raises TypeError if a buffer follows a number.
    """

    def make(function: Callable) -> Primitive:
        name = function.__name__
        roles = tuple(p.annotation for p in inspect.signature(function).parameters.values())
        source = f"def {name}(row):\n    kernel({', '.join(unpack_source(roles))})\n"
        namespace = {**_LOADERS, "kernel": part(function), "__name__": function.__module__}
        return Primitive(name, roles, source, namespace, function.__code__.co_filename, starts_threads, keeps_lock)

    return make if function is None else make(function)


def primitive_from_source(name: str, parameters: dict[str, Role], body: str, namespace: dict, filename: str) -> Primitive:
    """Make a primitive from the source of a kernel's body, for families whose members differ in one expression only.

    ``namespace`` holds the globals of the body; ``filename`` is shown in tracebacks.
    """
    roles = tuple(parameters.values())
    unpacking = "".join(f"    {p} = {e}\n" for p, e in zip(parameters, unpack_source(roles), strict=True))
    scope = {**namespace, **_LOADERS, "__name__": __name__}
    return Primitive(name, roles, f"def {name}(row):\n{unpacking}{body}", scope, filename)
