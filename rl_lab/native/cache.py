"""The cache of machine code on disk, keyed by everything that determines the code.

The key of an entry covers the bytecode of its kernel and of every helper that the kernel calls, in any module; the constants that they
read; the versions of Python, numba, llvmlite and NumPy; the processor; and the flags of the compiler. After an edit of a kernel or a
helper, exactly the kernels that depend on the edited function are compiled again.

The directory is private to the user. An entry is one file that begins with a checksum over its key and its content. A file that is
damaged, truncated or has another entry's name is ignored and replaced. A directory that is not private, or that cannot be read or
written, costs one warning and the time to compile, but does not fail.
"""

import atexit
import enum
import functools
import hashlib
import itertools
import os
import pickle
import re
import shutil
import stat
import sys
import sysconfig
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import address_of_symbol
from numba.core import bytecode, compiler, serialize
from numba.core import types as numba_types
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from numba.core.types import Type
from numba.core.typing.templates import Signature, builtin_registry
from numba.extending import _Intrinsic

from rl_lab.native.part import KernelCompiler
from rl_lab.native.threads import after_fork_in_child, renew_after_fork

_MAGIC = b"rl_lab machine code 3\n"
_DISTRIBUTIONS = ("numba", "llvmlite", "numpy")
"""Packages whose version identifies their source, as Python's version identifies the standard library."""

MOST_BYTES = 500_000_000
"""Size limit of the directory. Beyond it the least recently used entries are deleted."""

on_compile: Callable[[str], None] | None = None
"""Called with the name of each kernel that is compiled instead of loaded from the cache."""

_lock = threading.RLock()
renew_after_fork(globals(), "_lock", threading.RLock)


def _number_functions() -> None:
    """Make numba number this process's functions from a random start.

    Numba numbers the functions of a process to make their symbols unique. A process may load entries that several processes compiled,
    and with equal symbols it would run the wrong code.
    """
    bytecode.FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "little"))  # type: ignore[attr-defined]


_number_functions()
after_fork_in_child(_number_functions)


# --- what determines machine code ----------------------------------------------------------------------------------------------


class _Untraceable(Exception):
    """A kernel reads a value that cannot be described, so its machine code is not cached."""


class _Tracer:
    """Describes functions, all functions that they call, directly or not, and all constants that these read."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._found: list[Any] = []

    def reached(self) -> list[str]:
        """Descriptions of all functions found so far, and of all functions that these call."""
        lines = []
        for function in self._found:  # the list grows during the loop
            lines.append(self._describe_function(function))
        return lines

    def _reach(self, function: Any) -> str:
        """A reference to a function by number. `reached` describes it later, so recursive calls are possible."""
        if id(function) not in self._numbers:
            self._numbers[id(function)] = len(self._found)
            self._found.append(function)
        return f"function {self._numbers[id(function)]}"

    def _describe_function(self, function: Any) -> str:
        code, names = _describe_code(function.__code__)
        parts = [code, self.describe(function.__defaults__), self.describe(function.__kwdefaults__)]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not bound yet
                raise _Untraceable(name) from None
            parts.append(f"{name} = {self._describe_variable(content, names)}")
        for name in names:
            if name in function.__globals__:
                parts.append(f"{name} = {self._describe_variable(function.__globals__[name], names)}")
        return "\n".join(parts)

    def _describe_variable(self, value: Any, names: Sequence[str], inside: tuple[types.ModuleType, ...] = ()) -> str:
        """Describe a variable's value. For a module, also describe the attributes that a function using ``names`` may read."""
        if not isinstance(value, types.ModuleType) or value in inside:
            return self.describe(value)
        within = (*inside, value)
        versioned = _is_versioned(value.__name__)
        if versioned and not _versioned_overloads():
            return self.describe(value)
        parts = [f"module {value.__name__}"]
        for name in names:
            attribute = getattr(value, name, _ABSENT)
            if attribute is _ABSENT:
                continue
            if not versioned or isinstance(attribute, types.ModuleType) or _overloads(attribute):
                parts.append(f".{name} = {self._describe_variable(attribute, names, within)}")
        return "\n".join(parts)

    def describe(self, value: Any) -> str:
        """Describe a value so that values with equal descriptions give equal machine code.

        Raises _Untraceable if the value cannot be described.
        """
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return f"{kind} {value!r}"
        if isinstance(value, np.generic):
            return f"{kind} {value.dtype.descr} {value.tobytes().hex()}"
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise _Untraceable(kind)
            layout = (value.dtype.descr, value.shape, value.flags.c_contiguous, value.flags.f_contiguous, value.flags.writeable)
            return f"{kind} {layout} {hashlib.sha256(value.tobytes()).hexdigest()}"
        if isinstance(value, enum.Enum):
            return f"{self.describe(type(value))} {value.name}"
        if isinstance(value, (tuple, list)):
            return f"{kind}{getattr(value, '_fields', '')} ({', '.join(map(self.describe, value))})"
        if isinstance(value, (set, frozenset)):
            return f"{kind} ({', '.join(sorted(map(self.describe, value)))})"
        if isinstance(value, dict):
            return f"{kind} ({', '.join(f'{self.describe(k)}: {self.describe(v)}' for k, v in value.items())})"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, np.ufunc, _NUMPY_FUNCTION, type)):
            return self._describe_callable(value)
        whole: Any = value  # numba's type stubs lack the attributes used below
        if isinstance(value, Dispatcher):
            fixed = "" if whole._can_compile else self.describe([made.signature for made in whole.overloads.values()])
            return f"{kind} {self.describe(whole.targetoptions)} {self.describe(whole.locals)} {fixed} {self._reach(whole.py_func)}"
        if isinstance(value, _Intrinsic):
            return f"{kind} {self._reach(whole._defn)}"
        if isinstance(value, CFunc):
            return f"{kind} {self.describe(whole._sig)} {self._reach(whole._pyfunc)}"
        if isinstance(value, Signature):
            return f"{kind} {self.describe((value.return_type, value.args))}"
        if isinstance(value, Type):
            return self._describe_type(value)
        known = isinstance(value, (np.dtype, types.EllipsisType, range, slice, ir.Type, ir.Constant))
        described = str(value) if known else kind
        if not known or " at 0x" in described:
            raise _Untraceable(described)
        return f"{kind} {described}"

    def _describe_callable(self, value: Any) -> str:
        """Describe a function or a class: by its name if a version identifies its source, otherwise by its code and all that it calls."""
        module = getattr(value, "__module__", None) or ""
        if not isinstance(getattr(value, "__self__", None), (types.ModuleType, type, types.NoneType)):
            raise _Untraceable(f"{value} is a method of an object")
        parts = [f"{module}.{getattr(value, '__qualname__', value.__name__)}"]
        parts.extend(self._reach(body) for body in _overloads(value))
        if isinstance(value, types.FunctionType) and not _is_versioned(module):
            parts.append(self._reach(value))
        elif isinstance(value, enum.EnumMeta):
            members: Any = value.__members__
            parts.append(self.describe({name: member.value for name, member in members.items()}))
        elif isinstance(value, type) and issubclass(value, tuple):
            parts.append(f"{getattr(value, '_fields', '')} {self.describe(getattr(value, '_field_defaults', None))}")
        elif isinstance(value, type) and hasattr(value, "class_type"):
            raise _Untraceable(f"{value} is a jitclass")
        return " ".join(parts)

    def _describe_type(self, value: Any) -> str:
        """Describe a numba type. For types of functions, classes and named tuples the name alone is not enough."""
        parts = [f"{type(value).__qualname__} {value!r}"]
        if isinstance(value, numba_types.Dispatcher):
            return self.describe(value.dispatcher)
        if isinstance(value, numba_types.BaseTuple):
            parts.append(self.describe(tuple(value)))  # type: ignore[arg-type]
        for attribute in ("instance_class", "literal_value"):
            if hasattr(value, attribute):
                parts.append(self.describe(getattr(value, attribute)))
        if isinstance(value, numba_types.Literal):
            return " ".join(parts[1:])
        if " at 0x" in parts[0] or isinstance(value, numba_types.ClassInstanceType):
            raise _Untraceable(parts[0])
        return " ".join(parts)


_ABSENT = object()
_NUMPY_FUNCTION = type(np.dot)

_codes: dict[int, tuple[types.CodeType, str, tuple[str, ...]]] = {}
"""Descriptions of code objects by id. The objects are kept alive, so that no other object gets the same id."""


def _describe_code(code: types.CodeType) -> tuple[str, tuple[str, ...]]:
    """Describe bytecode without its file and line numbers, and list the names that it and its inner functions look up."""
    known = _codes.get(id(code))
    if known is not None:
        return known[1:]
    names = dict.fromkeys(code.co_names)
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            described, inner = _describe_code(constant)
            names.update(dict.fromkeys(inner))
        else:
            described = _Tracer().describe(constant)
        constants.append(described)
    variables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    whole = repr((code.co_code, getattr(code, "co_exceptiontable", b""), variables, counts, constants))
    digest = hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()
    _codes[id(code)] = code, digest, tuple(names)
    return digest, tuple(names)


@functools.cache
def _is_versioned(module: str) -> bool:
    """Whether a version identifies the source of a module. False for a user's file named like a module of the standard library."""
    root = module.partition(".")[0]
    if root in _DISTRIBUTIONS:
        return True
    if root not in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(root), "__file__", None)
    if file is None:  # built into the interpreter
        return True
    return "-packages" not in file and any(Path(file).is_relative_to(place) for place in _library_places())


@functools.cache
def _library_places() -> frozenset[str]:
    return frozenset((*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")), os.path.dirname(os.__file__)))


_overload_index: dict[int, list[Any]] = {}
_indexed = 0
_overloads_of_versioned = 0


def _index_overloads() -> None:
    """Index the function bodies that other packages registered with ``numba.extending.overload`` since the last call."""
    global _indexed, _overloads_of_versioned
    registered = builtin_registry.globals
    for value, kind in registered[_indexed:]:
        for template in getattr(kind, "templates", ()):
            body = getattr(template, "_overload_func", None)
            if body is not None and not _is_versioned(body.__module__ or ""):
                _overload_index.setdefault(id(value), []).append(body)
                _overloads_of_versioned += _is_versioned(getattr(value, "__module__", None) or "")
    _indexed = len(registered)


def _overloads(function: Any) -> list[Any]:
    """The registered overload bodies of a function."""
    _index_overloads()
    return _overload_index.get(id(function), [])


def _versioned_overloads() -> int:
    """Number of overloads that other packages registered for functions of versioned packages, such as NumPy."""
    _index_overloads()
    return _overloads_of_versioned


def _versions() -> str:
    return repr((sys.version, numba.__version__, llvmlite.__version__, np.__version__))


_FLAGS = (
    *("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "CPU_NAME", "CPU_FEATURES", "USING_SVML"),
    *("DEBUGINFO_DEFAULT", "DEBUG_NRT", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS", "USE_LEGACY_TYPE_SYSTEM"),
)
"""Settings of numba, mostly from environment variables, that change the machine code that it makes."""


def describe(*values: Any) -> str | None:
    """A text that determines the machine code compiled from the given functions and values; None if there is no such text."""
    tracer = _Tracer()
    try:
        head = [tracer.describe(value) for value in values]
        flags = [f"{name}={getattr(numba.config, name, '')}" for name in _FLAGS]
        return "\n".join((_versions(), *flags, *head, *tracer.reached()))
    except (_Untraceable, RecursionError):
        return None


# --- the directory -------------------------------------------------------------------------------------------------------------

_directory: Path | None = None
_looked = False
_is_temporary = False
_warned = False


def _warn(reason: object) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"machine code is not kept for later runs: {reason}", RuntimeWarning, stacklevel=2)


def base_directory() -> Path:
    """``RL_LAB_CACHE``, or ``rl_lab`` in the user's cache directory. Raises RuntimeError if there is no home directory."""
    given = os.environ.get("RL_LAB_CACHE")
    if given:
        return Path(given).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "rl_lab"


def directory() -> Path | None:
    """The directory of the entries, created as private if necessary.

    If this is impossible, warns once and returns a temporary directory, or None if there is none either.
    """
    global _directory, _looked, _is_temporary
    with _lock:
        if not _looked:
            _looked = True
            try:
                _directory = _private_directory()
            except (OSError, RuntimeError, ValueError) as error:
                _warn(error)
                _directory = _temporary_directory()
                _is_temporary = True
        return _directory


def is_lasting() -> bool:
    """Whether the cache directory is the permanent one that the user's processes share, not a temporary one."""
    return directory() is not None and not _is_temporary


def _private_directory() -> Path:
    base = Path(os.path.realpath(base_directory()))  # follow the user's links: their target must be private
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_private(base)
    place = base / "machine-code"
    place.mkdir(exist_ok=True, mode=0o700)
    _require_private(place)
    return place


def _temporary_directory() -> Path | None:
    try:
        place = Path(tempfile.mkdtemp(prefix="rl_lab-"))
    except OSError:
        return None
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child leaves the deletion to its parent
            shutil.rmtree(place, ignore_errors=True)

    atexit.register(remove)
    return place


def _require_private(path: Path) -> None:
    """Raise PermissionError unless ``path`` is a directory of this user to which nobody else can write."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{path} is not a directory")
    if not _is_private(found):
        raise PermissionError(f"other users can write to {path} (chmod go-w {path}), or it belongs to one of them")


def _is_private(found: os.stat_result) -> bool:
    """Whether a file or directory belongs to this user and nobody else can write to it."""
    return os.name != "posix" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


# --- entries -------------------------------------------------------------------------------------------------------------------


class Cache:
    """The entries of one function, one per signature. It has the interface of numba's own cache classes."""

    cache_path = property(lambda self: str(directory() or ""))

    def __init__(self, function: Callable, options: dict[str, Any], name: str | None = None):
        self._function = function
        self._options = options
        self._name = re.sub(r"\W", "_", name or function.__name__)
        self._compiling: dict[Any, bytes] = {}

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function for ``signature``, or None if there is no valid entry."""
        key = self._key(signature, target_context)
        content = _read(self._path(key), key) if key else None
        if content is not None:
            try:
                symbols, parts = pickle.loads(content)
                _provide(symbols, target_context)
                return compiler.CompileResult._rebuild(target_context, *parts)
            except Exception as error:  # numba may raise any error; the kernel is then compiled again
                _warn(f"the entry of {self._name} cannot be loaded: {error}")
        if on_compile is not None:
            on_compile(self._name)
        self._compiling[signature] = key
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Save a compiled function, unless its code contains addresses of this process or its key has changed since compilation."""
        before = self._compiling.pop(signature, None)
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            return
        key = self._key(signature, result.target_context)
        if not key or key != before:
            return
        try:
            content = serialize.dumps((_symbols(result.library), result._reduce()))
        except Exception as error:  # pickle passes on any error of an object that cannot be saved
            _warn(f"{self._name} cannot be saved: {error}")
            return
        _write(self._path(key), key, content)

    def _key(self, signature: Any, target_context: Any) -> bytes:
        """The entry's key of 32 bytes, or empty if the code cannot be cached. Not stored, because a global may have changed."""
        description = describe(self._function, self._options, signature)
        if description is None:
            return b""
        facts = (self._name, repr(target_context.codegen().magic_tuple()), description)
        return hashlib.sha256("\n".join(facts).encode("utf-8", "backslashreplace")).digest()

    def _path(self, key: bytes) -> Path | None:
        place = directory()
        return None if place is None else place / f"{self._name[:60]}-{key.hex()[:24]}"


def _symbols(library: Any) -> list[str]:
    """Names of the external functions and variables that the machine code needs."""
    module = library._final_module
    expected = (found.name for found in (*module.functions, *module.global_variables) if found.is_declaration)
    return [name for name in expected if not name.startswith("llvm.")]


def _provide(symbols: list[str], target_context: Any) -> None:
    """Make sure that all external symbols exist, because LLVM aborts the process for a missing one.

    Most symbols exist without numba's compiler libraries, which take half a second to import. So these are imported only if necessary.
    """
    rtsys.initialize(target_context)
    if not all(address_of_symbol(name) for name in symbols):
        target_context.refresh()


_ENTRY = re.compile(r"\w{1,60}-[0-9a-f]{24}")
_UNFINISHED = re.compile(r"\.\w{1,60}-[0-9a-f]{24}\.[0-9a-f]{16}")
_DAY = 86_400.0  # seconds
_WRITES_BETWEEN_LOOKS = 100

_writes = 0


def _read(path: Path | None, key: bytes) -> bytes | None:
    """The content of an entry, or None unless it is a private, complete file of this user that belongs to the key."""
    if path is None:
        return None
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or not _is_private(found):
                return None
            data = file.read()
        if time.time() - found.st_mtime > _DAY:
            _note_use(path)
    except OSError:
        return None
    head = len(_MAGIC) + 32
    content = data[head:]
    sound = data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) : head] == hashlib.sha256(key + content).digest()
    return content if sound else None


def _note_use(path: Path) -> None:
    """Set a file's modification time to now: `make_room` deletes the least recently used files first."""
    try:
        os.utime(path, follow_symlinks=False)
    except (OSError, NotImplementedError):
        pass  # the directory is read-only


def _write(path: Path | None, key: bytes, content: bytes) -> None:
    """Write an entry under a temporary name and rename it. A full or read-only disk costs one warning."""
    global _writes
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(_MAGIC + hashlib.sha256(key + content).digest() + content)
        os.replace(temporary, path)
    except OSError as error:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass
        _warn(error)
        return
    if _writes % _WRITES_BETWEEN_LOOKS == 0:
        make_room(path.parent)
    _writes += 1


def make_room(place: Path) -> None:
    """If the entries exceed `MOST_BYTES`, delete the least recently used until 80 % remain; also delete old temporary files."""
    entries = []
    try:
        with os.scandir(place) as listed:
            for entry in listed:
                found = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    continue
                if _ENTRY.fullmatch(entry.name):
                    entries.append((found.st_mtime, found.st_size, entry.path))
                elif _UNFINISHED.fullmatch(entry.name) and time.time() - found.st_mtime > _DAY:
                    os.unlink(entry.path)
        total = sum(size for _, size, _ in entries)
        if total <= MOST_BYTES:
            return
        for _, size, path in sorted(entries):
            if total <= 0.8 * MOST_BYTES:
                break
            os.unlink(path)
            total -= size
    except OSError:
        pass  # another process deletes the same files, or the directory is read-only


# --- compiling -----------------------------------------------------------------------------------------------------------------

_OPTIONS = {"error_model": "numpy"}


def compile_c_function(function: Callable, signature: Any, name: str | None = None) -> CFunc:
    """Compile a C function with a numba signature, or load it from the cache. Its ``address`` is valid while the object exists."""
    with _lock:
        made = _c_function(function, signature, name)
        made.compile()
    return made


def is_cached(function: Callable, signature: Any, name: str | None = None) -> bool:
    """Whether the cache on disk has an entry for a C function. It may be a damaged one."""
    with _lock:
        made = _c_function(function, signature, name)
        key = made._cache._key(made._sig, made._targetdescr.target_context)
        path = made._cache._path(key) if key else None
    return path is not None and path.exists()


def _c_function(function: Callable, signature: Any, name: str | None) -> Any:
    options = {**_OPTIONS, "nopython": True}
    made: Any = CFunc(function, numba.core.sigutils.normalize_signature(signature), {}, options, pipeline_class=KernelCompiler)
    made._cache = Cache(function, _OPTIONS, name)
    return made


def cached_njit(function: Callable | None = None, **options: Any) -> Any:
    """Decorator for a kernel that Python calls: ``numba.njit`` with ``error_model="numpy"`` and this cache."""
    if function is None:
        return lambda function: cached_njit(function, **options)
    every = {**_OPTIONS, **options}
    made = numba.njit(**every)(function)
    made._cache = Cache(function, every)
    return made
