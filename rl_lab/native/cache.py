"""Where machine code is kept between processes, keyed by everything that it follows from.

The key of an entry covers the bytecode of its kernel and of every helper that the kernel reaches, in whatever module; the constants
that they read; the versions of Python, numba, llvmlite, NumPy and SciPy; the processor; and the flags of the compiler. So an edited
kernel is compiled again together with its callers and nothing else, and an edited helper never leaves stale code behind.

The directory is private to the user. An entry is one file that begins with a checksum over its key and its content: a file that is
damaged, truncated or under another entry's name is ignored and replaced. A directory that is not private, or that cannot be read or
written, costs one warning and time, never a failure.
"""

import atexit
import hashlib
import itertools
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import bytecode, compiler, serialize
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher
from numba.core.types import Type
from numba.core.typing.templates import builtin_registry
from numba.extending import _Intrinsic

_MAGIC = b"rl_lab machine code 1\n"
_VERSIONED = frozenset(("numba", "llvmlite", "numpy", "scipy", *sys.stdlib_module_names))
"""Packages whose version stands for their source."""

on_compile: Callable[[str], None] | None = None
"""Called with a kernel's name when it is compiled, that is, when it was not found in the cache."""

_lock = threading.RLock()

# Numba numbers the functions of a process to make symbols unique. Entries from several processes meet in one, where equal symbols of
# different code would be taken for each other, so the numbers of each process begin elsewhere.
bytecode.FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "little"))  # type: ignore[attr-defined]


# --- what machine code follows from --------------------------------------------------------------------------------------------


class _Untraceable(Exception):
    """A kernel reads a value that cannot be described, so its machine code is not kept."""


class _Tracer:
    """Describes a function, every function that it reaches and every constant that they read."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._found: list[Callable] = []

    def describe_all(self, function: Callable) -> str:
        self._reach(function)
        lines = []
        for reached in self._found:  # grows while it is walked
            lines.append(self._describe_function(reached))
        return "\n".join(lines)

    def _reach(self, function: Callable) -> str:
        if id(function) not in self._numbers:
            self._numbers[id(function)] = len(self._found)
            self._found.append(function)
        return f"function {self._numbers[id(function)]}"

    def _describe_function(self, function: Any) -> str:
        parts = [self._describe_code(function.__code__), self._describe(function.__defaults__)]
        cells = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
            parts.append(f"{name} = {self._describe(cell.cell_contents)}")
        for name in _names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
                parts.append(f"{name} = {self._describe(value)}")
                if isinstance(value, types.ModuleType) and not _is_versioned(value.__name__):
                    parts.extend(
                        f"{name}.{attribute} = {self._describe(getattr(value, attribute))}"
                        for attribute in _names(function.__code__)
                        if hasattr(value, attribute)
                    )
        parts.extend(self._reach(body) for body in _overloads(function))
        return "\n".join(parts)

    def _describe_code(self, code: types.CodeType) -> str:
        constants = [self._describe_code(c) if isinstance(c, types.CodeType) else self._describe(c) for c in code.co_consts]
        return repr(
            (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags, constants)
        )

    def _describe(self, value: Any) -> str:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, np.generic):
            return f"{value.dtype} {value.tobytes().hex()}"
        if isinstance(value, np.ndarray):
            return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        if isinstance(value, (tuple, list)):
            return f"{type(value).__name__} ({', '.join(map(self._describe, value))})"
        if isinstance(value, (set, frozenset)):
            return f"set ({', '.join(sorted(map(self._describe, value)))})"
        if isinstance(value, dict):
            return f"dict ({', '.join(f'{self._describe(k)}: {self._describe(v)}' for k, v in value.items())})"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, Dispatcher):
            return f"{sorted(value.targetoptions.items())} {self._reach(value.py_func)}"
        if isinstance(value, _Intrinsic):
            return f"intrinsic {self._reach(value._defn)}"
        if isinstance(value, types.FunctionType):
            return f"{value.__module__}.{value.__qualname__}" if _is_versioned(value.__module__) else self._reach(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__} {getattr(value, '_fields', '')}"
        if isinstance(value, Type):
            return f"type {value!r}"
        described = repr(value)
        if " at 0x" in described:
            raise _Untraceable(described)
        return f"{type(value).__module__}.{type(value).__qualname__} {described}"


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function and the functions inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_versioned(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _VERSIONED


def _overloads(function: Callable) -> Iterator[Callable]:
    """Bodies that ``numba.extending.overload`` registered for a function."""
    for value, kind in builtin_registry.globals:
        if value is function:
            for template in kind.templates:
                if hasattr(template, "_overload_func"):
                    yield template._overload_func


def _facts() -> tuple[str, ...]:
    versions = [version(name) for name in ("numba", "llvmlite", "numpy", "scipy")]
    names = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "CPU_NAME", "CPU_FEATURES")
    flags = [f"{name}={getattr(numba.config, name, '')}" for name in names]
    return (sys.version, *versions, *flags)


def describe(function: Callable) -> str | None:
    """Everything that the machine code of ``function`` follows from, beside its signature and options; None if that is unknown."""
    try:
        return "\n".join((*_facts(), _Tracer().describe_all(function)))
    except _Untraceable:
        return None


# --- the directory -------------------------------------------------------------------------------------------------------------

_directory: Path | None = None
_warned = False


def _warn(reason: object) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"machine code is not kept for later runs: {reason}", RuntimeWarning, stacklevel=2)


def base_directory() -> Path:
    """``RL_LAB_CACHE``, or ``rl_lab`` in the user's cache directory."""
    given = os.environ.get("RL_LAB_CACHE")
    if given:
        return Path(given).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "rl_lab"


def directory() -> Path:
    """The directory of the entries, made private. Where that is impossible: one warning and a temporary directory."""
    global _directory
    with _lock:
        if _directory is None:
            try:
                base = base_directory()
                base.mkdir(parents=True, exist_ok=True, mode=0o700)
                _require_private(base)
                place = base / "machine-code"
                place.mkdir(exist_ok=True, mode=0o700)
                _require_private(place)
                _directory = place
            except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
                _warn(error)
                _directory = Path(tempfile.mkdtemp(prefix="rl_lab-"))
                atexit.register(shutil.rmtree, _directory, ignore_errors=True)
        return _directory


def _require_private(path: Path) -> None:
    """Raise PermissionError unless ``path`` is a directory of this user to which nobody else can write."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{path} is not a directory")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user")
    if os.name == "posix" and found.st_mode & 0o022:
        raise PermissionError(f"other users can write to {path} (chmod go-w {path})")


# --- entries -------------------------------------------------------------------------------------------------------------------


class Cache:
    """The entries of one function, one for each signature. Has the interface of numba's own cache classes."""

    cache_path = property(lambda self: str(directory()))

    def __init__(self, function: Callable, options: dict[str, Any], name: str | None = None):
        self._function = function
        self._options = repr(sorted(options.items()))
        self._name = re.sub(r"\W", "_", name or function.__name__)
        self._description: str | None = None

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function for ``signature``, or None if there is no sound entry."""
        target_context.refresh()
        path, key = self._entry(signature, target_context)
        content = None if path is None else _read(path, key)
        if content is not None:
            try:
                return compiler.CompileResult._rebuild(target_context, *pickle.loads(content))
            except Exception as error:  # numba raises whatever it meets; the entry is made again
                _warn(error)
        if on_compile is not None:
            on_compile(self._name)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function, unless its code holds addresses of this process."""
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            return
        path, key = self._entry(signature, result.target_context)
        if path is not None:
            _write(path, key, serialize.dumps(result._reduce()))

    def _entry(self, signature: Any, target_context: Any) -> tuple[Path | None, bytes]:
        """The entry's file and its key of 32 bytes; None if the code cannot be kept."""
        if self._description is None:
            self._description = describe(self._function) or ""
        if not self._description:
            return None, b""
        facts = (self._description, self._options, self._name, repr(signature), repr(target_context.codegen().magic_tuple()))
        key = hashlib.sha256("\n".join(facts).encode("utf-8", "backslashreplace")).digest()
        return directory() / f"{self._name[:60]}-{key.hex()[:24]}", key


def _read(path: Path, key: bytes) -> bytes | None:
    """The content of an entry; None unless it is a private file of this user that is whole and belongs to the key."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or (os.name == "posix" and found.st_mode & 0o022):
                return None
            if hasattr(os, "getuid") and found.st_uid != os.getuid():
                return None
            data = file.read()
    except OSError:
        return None
    head = len(_MAGIC) + 32
    content = data[head:]
    sound = data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) : head] == hashlib.sha256(key + content).digest()
    return content if sound else None


def _write(path: Path, key: bytes, content: bytes) -> None:
    """Write an entry under a temporary name and rename it. A full or read-only disk costs one warning."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(_MAGIC + hashlib.sha256(key + content).digest() + content)
        os.replace(temporary, path)
    except OSError as error:
        _warn(error)
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


# --- compiling -----------------------------------------------------------------------------------------------------------------

_OPTIONS = {"error_model": "numpy"}


def compile_c_function(function: Callable, signature: Any, name: str | None = None) -> CFunc:
    """Compile a C function with this numba signature, or load it. Its ``address`` is valid while the returned object lives."""
    with _lock:
        options = {**_OPTIONS, "nopython": True}
        made = CFunc(function, numba.core.sigutils.normalize_signature(signature), {}, options)
        made._cache = Cache(function, _OPTIONS, name)
        made.compile()
    return made


def cached_njit(function: Callable | None = None, **options: Any) -> Any:
    """Decorate a kernel that Python calls: ``numba.njit`` with ``error_model="numpy"`` and this cache."""
    if function is None:
        return lambda function: cached_njit(function, **options)
    every = {**_OPTIONS, **options}
    made = numba.njit(**every)(function)
    made._cache = Cache(function, every)
    return made
