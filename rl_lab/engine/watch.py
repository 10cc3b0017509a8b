"""Watch which Python state a recorded call reads and changes: attributes, globals, closure variables and the containers in them.

A profile function is called for every Python function that the call enters. The bytecode of the entered function names the globals,
closure variables and attributes that it may read. Attributes of arguments and of globals, such as ``self.config.gamma``, are
followed exactly. An attribute name of any other value is looked up on every object that the function holds. So a recording may note
more than was read, but never less, except for reads by C code (``operator.attrgetter``, a C extension), which are not seen.

Only objects that outlive the call matter. They are reached from the function, its arguments, closures and globals.
"""

import builtins
import ctypes
import dis
import gc
import io
import os
import random
import re
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextvars import ContextVar
from cProfile import Profile
from functools import lru_cache, partial
from inspect import CO_OPTIMIZED
from operator import attrgetter
from queue import SimpleQueue
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    NoneType,
)
from types import ModuleType as PythonModule
from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine.launch import Counted, Recorder
from rl_lab.engine.number import Number
from rl_lab.engine.reads import (
    BUFFERS,
    MISSING,
    Reads,
    TooLarge,
    cached,
    cell_content,
    class_attribute,
    fields_of,
    is_plain,
    is_record,
    slot,
)
from rl_lab.engine.tensor import TensorCore

STRUCTURES = {"collections", "queue", "threading"}
"""Modules of the standard library with data structures written in Python, which are watched like the user's classes."""
LIBRARIES = {"rl_lab", "numpy", "numba", "llvmlite", "scipy", *sys.stdlib_module_names} - STRUCTURES
READERS = {"copy", "dataclasses"}
"""Modules of the standard library whose functions read all attributes of an object."""
REPORTING = ("rl_lab.engine", "rl_lab.optim", "rl_lab.nn.module")
"""Modules that report to the recorder themselves."""
SCHEDULES = "rl_lab.optim.lr_scheduler"
"""Exception to `REPORTING`: schedules do not report to the recorder, so they are watched like the user's objects."""
MACHINERY = ("rl_lab.native", "numba", "importlib", "_frozen_importlib")
"""Functions of these modules, and everything that they call, are not watched."""
QUIET = ("rl_lab", "numba", "llvmlite", "warnings", "linecache", "tokenize", "traceback")
"""Modules that may read files during a call without changing its result: they show warnings, or load compiled code."""
OPAQUE = ("rl_lab.engine", "rl_lab.native", "numba", "llvmlite", "numpy")
"""Attributes of objects whose class is in these modules are not noted: they never change, or hold memory that launches read."""
DIRECT = {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_CLASSDEREF"}
STORES = {"STORE_FAST", "DELETE_FAST", "STORE_DEREF", "DELETE_DEREF", "STORE_FAST_MAYBE_NULL", "LOAD_FAST_AND_CLEAR"}
KEEPS = {"COPY", "DUP_TOP", "EXTENDED_ARG", "NOP", "PUSH_NULL", "CACHE"}  # do not change the value on top of the stack
BY_NAME = {"getattr", "hasattr"}
CHANGE_BY_NAME = {"setattr", "delattr"}
BY_NAME_SLOTS = {"__getattribute__"}
CHANGE_BY_NAME_SLOTS = {"__setattr__", "__delattr__"}
READING = (getattr, hasattr, setattr, delattr, vars, dir)
"""Builtins that read or set attributes. What they read is seen only in a function that calls them by their own names."""
IMPURE_BUILTINS = {"print", "input", "open", "exec", "eval", "globals"}
IMPURE_MODULES = {"time", "gc", "logging", "secrets", "uuid", "datetime", "subprocess", "socket", "posix", "nt", "_thread"}
PYTHONS_STREAM = random.random.__self__  # type: ignore[attr-defined]  # the generator behind the functions of module random
DRAWING = (np.random.Generator, np.random.RandomState, random.Random)
CONTAINERS = (list, dict, set, frozenset, deque, tuple)
DICT_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
UNSEEN: tuple[type, ...] = (attrgetter, ContextVar, threading.local, weakref.ref, weakref.ProxyType, ctypes._SimpleCData)
"""Types written in C whose objects read attributes or state that a program cannot compare."""

IMMUTABLE: tuple[type, ...] = (re.Pattern, struct.Struct, type(threading.Lock()), type(threading.RLock()))
"""Types written in C whose objects never change, or have the same state before and after a call."""
CACHED = type(lru_cache(lambda: None))
"""The type of functions that `functools.lru_cache` wraps."""
LARGEST_CACHE = 64  # results that are compared before every call
SETTINGS = {
    "numpy._core._ufunc_config": {"seterr", "geterr", "setbufsize", "getbufsize", "seterrcall", "geterrcall"},
    "numpy.core._ufunc_config": {"seterr", "geterr", "setbufsize", "getbufsize", "seterrcall", "geterrcall"},
    "rl_lab.compatibility": {"set_num_threads", "get_num_threads"},
    "rl_lab.autograd.anomaly": {"__init__", "is_anomaly_enabled", "is_anomaly_check_nan_enabled"},
}
"""Functions that read or change settings of the process, by module."""
QUESTIONS = {
    "genericpath": None,
    "pathlib": {"read_text", "read_bytes", "exists", "is_file", "is_dir", "stat", "open", "iterdir", "glob"},
}
"""Functions of the standard library that look at files, by module; None means every function of the module."""


Chain = tuple[bool, str, tuple[str, ...]]
"""A path of attributes from a variable: whether the variable is a global, its name, and the names of the attributes."""


class CannotRecord(BaseException):
    """The function would see that it is recorded, such as the type of a `Number`: undo the call and make it again, eagerly."""


@lru_cache(maxsize=4096)
def _calls_type(code: CodeType) -> bool:
    """Whether a function, or a function that it defines, names ``type``."""
    return "type" in names_of(code).globals or any(_calls_type(c) for c in code.co_consts if type(c) is CodeType)


def asks_for_types(function: object) -> bool:
    """Whether a Python function calls ``type``, which tells a `Number` from an int or a float."""
    while True:
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and _calls_type(code):
            return True
        if (wrapped := getattr(function, "__wrapped__", None)) is None:
            return False
        function = wrapped


def _holds_number(values: Iterable[Any], depth: int = 3) -> bool:
    """Whether one of the values is a `Number`, or holds one in containers."""
    for value in values:
        if type(value) is Number:
            return True
        if (
            depth
            and isinstance(value, CONTAINERS)
            and _holds_number(value.values() if isinstance(value, dict) else value, depth - 1)
        ):
            return True
    return False


class Names(NamedTuple):
    """The names in a function's bytecode.

    ``chains`` are paths of attributes from arguments and globals. ``loose`` are names of attributes of other values, ``stored`` are
    names of attributes that are set on other values, ``texts`` are string constants, and ``imports`` are modules with the names that are
    imported from them.
    """

    globals: frozenset[str]
    chains: frozenset[Chain]
    loose: frozenset[str]
    stored: frozenset[str]
    texts: frozenset[str]
    imports: frozenset[tuple[str, str]]
    asks: bool
    """Whether attributes are read by names that are texts."""
    changes: bool
    """Whether attributes are set by names that are texts."""


def _texts(constants: tuple) -> Iterator[str]:
    """The strings among the constants of a function, of containers in them, and of functions that it defines."""
    for constant in constants:
        if type(constant) is str:
            yield constant
        elif type(constant) in (tuple, frozenset):
            yield from _texts(tuple(constant))
        elif type(constant) is CodeType:
            yield from _texts(constant.co_consts)


def _computes_names(code: CodeType) -> bool:
    """Whether a function calls getattr, hasattr, setattr or delattr with a name that is not a constant."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in KEEPS]
    for start, instruction in enumerate(instructions):
        if instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or instruction.argval not in BY_NAME | CHANGE_BY_NAME:
            continue
        rest = instructions[start + 2 :]
        while rest and rest[0].opname in ("LOAD_ATTR", "LOAD_METHOD"):
            rest = rest[1:]
        if not rest or rest[0].opname != "LOAD_CONST" or type(rest[0].argval) is not str:
            return True
        for following in rest[1:]:
            if following.opname.startswith(("CALL", "PRECALL")):
                break
            if following.opname.startswith(("BINARY_", "FORMAT_", "BUILD_STRING", "LOAD_METHOD")):
                return True
    return False


@lru_cache(maxsize=4096)
def names_of(code: CodeType) -> Names:
    """The names in a function's bytecode."""
    named: set[str] = set()
    chains: set[Chain] = set()
    setting: set[Chain] = set()
    loose: set[str] = set()
    stored: set[str] = set()
    rebound: set[str] = set()
    imports: set[tuple[str, str]] = set()
    imported = ""
    matches = False
    top: Chain | None = None  # the chain that gave the value on top of the stack, if it is known
    for instruction in dis.get_instructions(code):
        name, argument = instruction.opname, instruction.argval
        if instruction.is_jump_target:
            top = None
        if name in DIRECT:
            top = False, argument, ()
        elif name in ("LOAD_GLOBAL", "LOAD_NAME"):
            named.add(argument)
            top = True, argument, ()
        elif name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            named.add(argument)
            top = None
        elif name in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"):
            sets = name in ("STORE_ATTR", "DELETE_ATTR")
            if top is None:
                (stored if sets else loose).add(argument)
            else:
                top = top[0], top[1], (*top[2], argument)
                chains.add(top)
                if sets:
                    setting.add(top)
            if sets:
                top = None
        elif name == "IMPORT_NAME":
            imported = argument
            top = None
        elif name == "IMPORT_FROM":
            imports.add((imported, argument))
            top = None
        elif name == "MATCH_CLASS":  # ``case Point(x=0)`` reads the attributes that it names
            matches = True
            top = None
        elif name == "LOAD_SUPER_ATTR":
            loose.add(argument)
            top = None
        elif name in STORES:
            rebound.add(argument)
            top = None
        elif name.startswith(("LOAD_FAST_", "STORE_FAST_")) and isinstance(argument, tuple):
            # a double instruction of Python 3.13
            first, second = argument
            if name.startswith("STORE_FAST_"):
                rebound.add(first)
            if name.endswith("STORE_FAST"):
                rebound.add(second)
            top = None if name.endswith("STORE_FAST") else (False, second, ())
        elif name not in KEEPS:
            top = None
    uncertain = {chain for chain in chains if not chain[0] and chain[1] in rebound}
    for chain in uncertain:
        loose.update(chain[2])
        if chain in setting:
            stored.update(chain[2][-1:])
    texts = frozenset(_texts(code.co_consts))
    attributes = loose.union(*(chain[2] for chain in chains))  # object.__setattr__(self, name, value), as in a frozen dataclass
    asks = bool(named & BY_NAME or attributes & BY_NAME_SLOTS or matches)
    changes = bool(named & CHANGE_BY_NAME or attributes & CHANGE_BY_NAME_SLOTS)
    if asks:
        loose |= texts
    if "vars" in named or matches:
        loose.add("__dict__")
    if changes:
        stored |= texts
    if named & (BY_NAME | CHANGE_BY_NAME) and _computes_names(code):
        loose.add("__dict__")
    certain = frozenset(chains - uncertain)
    return Names(frozenset(named), certain, frozenset(loose), frozenset(stored), texts, frozenset(imports), asks, changes)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these modules or packages, or inside of one."""
    return module.startswith(packages) and any(module == p or module.startswith(f"{p}.") for p in packages)


def _is_library(module: object) -> bool:
    """Whether this is the name of a module of rl_lab, of the standard library, or of a library that rl_lab uses.

    The functions of a named tuple have a module of their own, which counts as well.
    """
    return isinstance(module, str) and (module.partition(".")[0] in LIBRARIES or module.startswith("namedtuple_"))


class _Entered:
    """A Python function that is running: the names in its bytecode, and the results of its calls so far.

    ``loose`` are names of attributes of values that are unknown before the function runs, such as the results of a property.
    """

    __slots__ = ("loose", "names", "results")

    def __init__(self, names: Names):
        self.names = names
        self.loose = set(names.loose)
        self.results: list[Any] = []

    @property
    def is_loose(self) -> bool:
        """Whether attributes must be looked up on every object that the function holds."""
        return bool(self.loose or self.names.stored or self.names.asks or self.names.changes)


class watching:
    """Note in ``recording.reads`` the Python state that a call of ``function`` reads and changes while the context lasts.

    ``given`` has the ids of the caller's containers, of which the function gets copies.
    """

    def __init__(
        self,
        recording: Recorder[Any],
        function: Callable,
        arguments: tuple[tuple, dict[str, Any]],
        given: Set[int] = frozenset(),
    ):
        self.recording = recording
        self.reads: Reads = recording.reads
        self.function = function
        self.arguments = arguments
        self.given = given
        self.lasting: dict[int, object] = {}
        """Objects that outlive the call, by id."""
        self.functions: dict[int, list[FunctionType]] = {}
        """Functions that outlive the call, by the id of their code, because hashing code takes long."""
        self.entered: dict[FrameType, _Entered] = {}
        self.inner: set[int] = set()
        """Ids of the code of functions that are defined inside of watched functions."""
        self.in_lab = False
        """Whether the function whose reads are noted is one of rl_lab."""
        self.ignored: FrameType | None = None
        """The frame whose calls are not watched."""
        self.codes: dict[int, tuple[CodeType, Names | None]] = {}
        """Code that was entered before, by id, with its names, or None if its reads are not noted."""

    def __enter__(self) -> None:
        self.reach(self.function, "the function")
        for argument in (*self.arguments[0], *self.arguments[1].values()):
            self.reach_argument(argument)
        self.previous: Any = sys.getprofile()
        sys.setprofile(self.hear)

    def __exit__(self, *exception: object) -> None:
        if isinstance(self.previous, Profile):  # written in C, it cannot be passed to setprofile
            sys.setprofile(None)
            self.previous.enable()
        else:
            sys.setprofile(self.previous)
        self.entered.clear()

    # --- events ------------------------------------------------------------------------------------------------------

    def hear(self, frame: FrameType, event: str, argument: Any) -> None:
        """Receive an event of Python's profiler: a call or a return of a Python or a C function."""
        if self.recording.reason is not None:
            return
        if self.ignored is not None:
            if event == "return" and frame is self.ignored:
                self.ignored = None
            return
        if event == "c_call":
            if type(argument) is BuiltinMethodType:
                if frame in self.entered:
                    self.check_builtin(argument)
                else:
                    self.check_inside_library(argument, frame)
        elif event == "call":
            known = self.codes.get(id(frame.f_code))
            if known is None and self.is_ignored(frame):
                self.ignored = frame
            elif known is None or known[1] is not None:
                self.enter(frame)
        elif event == "return":
            entered = self.entered.pop(frame, None)
            if entered is not None and entered.is_loose:
                self.reads.where = frame.f_code
                self.in_lab = frame.f_globals.get("__name__", "").startswith("rl_lab.")
                self.note_loose(frame, entered)
            caller = None if frame.f_back is None else self.entered.get(frame.f_back)
            if caller is not None and not is_plain(argument):
                caller.results.append(argument)

    def is_ignored(self, frame: FrameType) -> bool:
        """Whether a frame and its calls do not belong to the function: an import, a compilation, or a garbage collection."""
        code = frame.f_code
        if code.co_name in ("<module>", "__del__") or _is_in(frame.f_globals.get("__name__", ""), MACHINERY):
            return True
        return any(getattr(callback, "__code__", None) is code for callback in gc.callbacks)

    def enter(self, frame: FrameType) -> None:
        """Note the state that a function may read, as far as it is known when the function starts."""
        code = frame.f_code
        known = self.codes.get(id(code))
        if known is None:
            known = self.codes[id(code)] = code, names_of(code) if self.is_watched(frame) else None
            if known[1] is not None:
                self.inner.update(id(constant) for constant in code.co_consts if type(constant) is CodeType)
        names = known[1]
        if names is None:
            return
        self.in_lab = frame.f_globals.get("__name__", "").startswith("rl_lab.")
        if not self.in_lab and _calls_type(code) and _holds_number(frame.f_locals.values()):
            raise CannotRecord(f"{code.co_name} asks for the type of a number that varies")
        self.reads.where = code
        self.entered[frame] = entered = _Entered(names)
        if code.co_freevars:
            self.note_closure(frame)
        self.note_method(frame)
        if not _is_library(frame.f_globals.get("__name__")):
            for name in names.globals:
                value = frame.f_globals.get(name, MISSING)
                if value is MISSING and name in vars(builtins):
                    if type(vars(builtins)[name]) in (BuiltinFunctionType, type):
                        continue
                    self.reads.read(vars(builtins), name, vars(builtins)[name], what=f"the builtin {name}")
                    self.reach(vars(builtins)[name], f"the builtin {name}")
                elif type(value) is not PythonModule:
                    self.reads.read(frame.f_globals, name, value, what=f"the global {name}")
                    self.reach(value, f"the global {name}")
        for is_global, root, path in names.chains:
            self.follow(frame.f_globals if is_global else _locals(frame), root, path, entered)
        for place, name in names.imports:
            module = sys.modules.get(place)
            if type(module) is PythonModule and not _is_library(place):
                self.look_up(module, name, f"{place}.{name}", names, True)
        if frame.f_globals.get("__name__") in READERS:
            for value in tuple(frame.f_locals.values()):
                self.note_attributes(value, names)
        if entered.is_loose:
            self.note_loose(frame, entered)

    def note_method(self, frame: FrameType) -> None:
        """Note the class attribute by which a method was found: the lab calls methods such as forward() without naming them here."""
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        for base in (owner if isinstance(owner, type) else type(owner)).__mro__:
            value = vars(base).get(code.co_name)
            if getattr(getattr(value, "__func__", value), "__code__", None) is code:
                if not _is_library(base.__module__):
                    self.reads.read(base, code.co_name, value, class_attribute, what=f"{base.__name__}.{code.co_name}")
                return

    def note_attributes(self, owner: Any, names: Names) -> None:
        """Note all attributes of an object of the user that outlives the call."""
        if isinstance(owner, (*CONTAINERS, *BUFFERS, type, TensorCore)) or not self.is_lasting(owner):
            return
        kind = type(owner)
        stored = [name for base in kind.__mro__ for name, value in vars(base).items() if type(value) is MemberDescriptorType]
        for name in (*stored, *_attributes(owner)):
            self.look_up(owner, name, f"{kind.__name__}.{name}", names, True)

    def is_watched(self, frame: FrameType) -> bool:
        """Whether the reads of a function are noted; gives up if the function has effects that a replay would not repeat."""
        module = frame.f_globals.get("__name__", "")
        if _is_in(module, REPORTING) and module != SCHEDULES:
            return False
        if module == "random" and frame.f_locals.get("self") is PYTHONS_STREAM:
            self.recording.give_up("it draws from Python's random numbers")
        elif module == "random" and frame.f_code.co_name == "seed" and frame.f_locals.get("a", 0) is None:
            self.recording.give_up("it seeds a generator with random bytes of the operating system")
        elif module.partition(".")[0] in IMPURE_MODULES or frame.f_code.co_name in SETTINGS.get(module, ()):
            self.recording.give_up(f"it calls a function of {module}, which a replay would not repeat")
        elif module in QUESTIONS and ((names := QUESTIONS[module]) is None or frame.f_code.co_name in names):
            self.recording.give_up(f"it looks at files by {module}.{frame.f_code.co_name}, which a replay would not repeat")
        return module in READERS or module.startswith("rl_lab.") or not _is_library(module)

    def check_builtin(self, function: BuiltinMethodType) -> None:
        """Give up if a C function has effects that a replay would not repeat."""
        name = function.__name__
        owner = function.__self__
        module = function.__module__ or (owner.__module__ if isinstance(owner, type) else None)  # datetime.now has none itself
        if module == "builtins" and name in IMPURE_BUILTINS:
            self.recording.give_up(f"it calls {name}(), which a replay would not repeat")
        elif module in IMPURE_MODULES:
            self.recording.give_up(f"it calls {module}.{name}(), which a replay would not repeat")
        elif module == "_warnings" and not self.in_lab:
            self.recording.give_up("it shows a warning, which a replay would not show")
        elif type(owner) is str and name.startswith("format") and re.search(r"{[^{}]*[.\[]", owner):
            self.recording.give_up(f"it calls {name}() of a text that names attributes, whose reads cannot be seen")
        elif isinstance(owner, io.IOBase) or module == "_io":
            self.recording.give_up(f"it calls {name}() of a file, which a replay would not repeat")
        elif self.is_lasting(owner) and not _is_comparable(owner) and name not in vars(object):
            self.recording.give_up(f"it calls {name}() of a {type(owner).__name__}, whose state cannot be seen")
        elif owner is PYTHONS_STREAM or owner is np.random.mtrand._rand:
            self.recording.give_up("it draws random numbers from a generator that is not of rl_lab")

    def check_inside_library(self, function: BuiltinMethodType, frame: FrameType) -> None:
        """Give up if a C function that a library calls reads or changes files, or hands work to another thread."""
        module = frame.f_globals.get("__name__", "")
        if _is_in(module, QUIET):
            return
        if function.__module__ in ("posix", "nt", "_io"):
            self.recording.give_up(f"it calls {module}, which looks at files or at the process by {function.__name__}()")
        elif function.__name__ == "start_new_thread" or type(function.__self__) is SimpleQueue:
            self.recording.give_up("it hands work to another thread")

    # --- reads -------------------------------------------------------------------------------------------------------

    def follow(self, space: Mapping[str, Any], root: str, path: tuple[str, ...], entered: _Entered) -> Any:
        """Note each attribute on a path from a variable; return the value at its end, or MISSING if it is not known."""
        value = space.get(root, MISSING)
        what = root
        for place, name in enumerate(path):
            if isinstance(value, TensorCore):
                return MISSING
            if value is MISSING or (place and hasattr(type(value), "__get__") and type(value) is not FunctionType):
                if root in space:  # a descriptor such as a property, whose value is known only after it is called
                    entered.loose.update(path[place:])
                return MISSING
            what = f"{what}.{name}"
            value = self.look_up(value, name, what, entered.names, True)
        return value

    def note_loose(self, frame: FrameType, entered: _Entered) -> None:
        """Note attributes with an unknown owner, on every object that the function holds."""
        names = entered.names
        found = [*_locals(frame).values(), *entered.results]
        asked = names.texts if names.asks else frozenset()  # the absence of an attribute is an answer
        if "AttributeError" in names.globals:
            asked = names.texts | names.loose
        if names.asks or names.changes:
            entered.loose.update(text for text in found if type(text) is str)
        for name in names.globals:
            value = frame.f_globals.get(name)
            if self.is_lasting(value) or (type(value) is PythonModule and not _is_library(value.__name__)):
                found.append(value)
        for is_global, root, path in names.chains:
            found.append(self.follow(frame.f_globals if is_global else _locals(frame), root, path, entered))
        seen: set[int] = set()
        while found:
            owner = found.pop()
            if (
                id(owner) in seen
                or isinstance(owner, TensorCore)
                or type(owner) is Number
                or is_plain(owner)
                or owner is MISSING
            ):
                continue
            seen.add(id(owner))
            if isinstance(owner, CONTAINERS):
                found += owner.values() if isinstance(owner, dict) else owner
                continue
            if type(owner) is CACHED:
                found += cached(owner)
            kind = type(owner).__name__
            for name in tuple(entered.loose):
                found.append(self.look_up(owner, name, f"{kind}.{name}", names, name in asked))
            for name in names.stored:
                self.look_up(owner, name, f"{kind}.{name}", names, True)

    def look_up(self, owner: Any, name: str, what: str, names: Names, certain: bool) -> Any:
        """Note an attribute of an object that outlives the call; return its value, or MISSING if it is unknown or does not exist.

        If the function is ``certain`` to read the attribute, an attribute that does not exist is noted as well.
        """
        reads = self.reads
        if type(owner) is PythonModule:
            if _is_library(owner.__name__):
                return self.look_up_in_library(owner, name)
            value = owner.__dict__.get(name, MISSING)
            if type(value) is not PythonModule and (value is not MISSING or certain):
                reads.read(owner.__dict__, name, value, what=what)
            return self.reach(value, what)
        kind = type(owner)
        if isinstance(owner, tuple) and name in getattr(kind, "_fields", ()):
            return self.reach(getattr(owner, name), what) if self.is_lasting(owner) else getattr(owner, name)
        if not self.is_lasting(owner):  # made by the call, but it may refer to an object that outlives the call
            value = _unseen(owner, name)
            if value is MISSING and not isinstance(owner, type) and not _is_library(kind.__module__):
                self.look_up_in_class(kind, name, what)
            return value
        if isinstance(owner, type):
            return self.look_up_in_class(owner, name, what, certain)
        if _is_in(kind.__module__, OPAQUE):
            return MISSING
        if kind.__getattribute__ is not object.__getattribute__ and _reads_itself(kind):
            self.recording.give_up(f"it reads {what} by the __getattribute__ of {kind.__name__}, whose reads cannot be seen")
            return MISSING
        described = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), MISSING)
        if type(described) is MemberDescriptorType:
            value = slot(owner, name)
            reads.read(owner, name, value, slot, what=what)
            return self.reach(value, what)
        if type(described) is property:
            self.reach(described.fget, what)
            return MISSING
        try:
            attributes = object.__getattribute__(owner, "__dict__")
        except AttributeError:
            attributes = None
        if type(described) is GetSetDescriptorType and name == "__dict__" and attributes is not None:
            if isinstance(owner, Counted):
                self.recording.uses(owner)
            if not kind.__module__.startswith("rl_lab."):
                return self.reach(attributes, what)
            for key, value in attributes.items():  # the settings of a layer
                if is_plain(value) and key != "changes":
                    self.look_up(owner, key, f"{kind.__name__}.{key}", names, True)
            return MISSING
        if attributes is None:
            return self.look_up_in_class(kind, name, what, certain)
        counted = isinstance(owner, Counted)
        if counted and self.has_part(owner, attributes, name, names):
            self.recording.uses(owner)
            for table in ("_parameters", "_buffers", "_modules"):
                if table in attributes and name in attributes[table]:
                    return attributes[table][name]
            return MISSING
        value = attributes.get(name, MISSING)
        if value is not MISSING or described is not MISSING or certain:
            if counted and owner.changes is None:
                object.__setattr__(owner, "changes", 0)
            reads.read(attributes, name, value, covered=counted, what=what)
            if not counted and not kind.__module__.startswith("rl_lab."):  # somebody may give the object another dictionary
                reads.read(owner, "__dict__", attributes, getattr, what=f"the attributes of {what}")
        if value is MISSING:
            return self.look_up_in_class(kind, name, what, certain)
        if counted and kind.__module__.startswith("rl_lab.") and self.in_lab:
            return value  # layers of rl_lab do not change their own containers
        return self.reach(value, what)

    def has_part(self, owner: Counted, attributes: dict[str, Any], name: str, names: Names) -> bool:
        """Whether an attribute of a module or an optimizer is one of its parts; the owner counts changes of its parts itself."""
        if name in ("param_groups", "state_dict") and "param_groups" in attributes:
            # the step itself reads the settings from a tensor, but this function reads the numbers
            for group in attributes["param_groups"]:
                for key in names.texts & group.keys() or group.keys():
                    if is_plain(group[key]):
                        self.reads.read(group, key, group[key], what=f"the setting {key} of an optimizer")
            return name == "param_groups"
        if name in ("_parameters", "_buffers", "_modules", "_hooks", "state", "changes", "_training"):
            return name in attributes
        return any(name in attributes.get(table, ()) for table in ("_parameters", "_buffers", "_modules"))

    def look_up_in_library(self, module: PythonModule, name: str) -> Any:
        """An attribute of a library's module if it is a module as well, else MISSING; gives up for functions of numpy.random."""
        value = module.__dict__.get(name, MISSING)
        if type(value) is PythonModule:
            return value
        if value is attrgetter or value is os.environ or value is os.getenv:
            self.reach(value, f"{module.__name__}.{name}")
        if isinstance(value, (list, dict, set)) and not self.in_lab and module.__name__ in sys.stdlib_module_names:
            self.reach(value, f"{module.__name__}.{name}")
        if module.__name__ == "numpy.random" and not isinstance(value, type):
            self.recording.give_up(f"it uses numpy.random.{name}, whose random numbers a replay would not draw again")
        return MISSING

    def look_up_in_class(self, owner: type, name: str, what: str, certain: bool = False) -> Any:
        """Note an attribute of a class and of its bases, which ``super()`` may read; return the nearest one, or MISSING.

        If the function is ``certain`` to look for the attribute, its absence is noted as well.
        """
        nearest: Any = MISSING
        users = [base for base in owner.__mro__ if not _is_library(base.__module__)]
        for base in owner.__mro__:
            if name in vars(base):
                value = vars(base)[name]
                if base in users and type(value) not in (GetSetDescriptorType, MemberDescriptorType):
                    self.reads.read(base, name, value, class_attribute, what=what)
                if nearest is MISSING:
                    nearest = self.reach(value, what)
        if nearest is not MISSING or certain:
            for base in users:  # an attribute that a class gets later would hide another one
                if name not in vars(base):
                    self.reads.read(base, name, MISSING, class_attribute, what=what)
        return nearest

    def note_closure(self, frame: FrameType) -> None:
        """Note the closure variables of a function that outlives the call."""
        code = frame.f_code
        values = frame.f_locals
        if id(code) not in self.functions and id(code) not in self.inner and code.co_freevars != ("__class__",):
            # a method that the lab called, such as forward(), or a function that C code called
            for function in gc.get_referrers(code):
                if type(function) is FunctionType:
                    self.reach(function, function.__qualname__)
        for function in self.functions.get(id(code), ()):
            cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
            contents = {name: _content(cell) for name, cell in cells.items()}
            if all(values.get(name, MISSING) is content for name, content in contents.items()):
                for name, cell in cells.items():
                    if type(contents[name]) is PythonModule:
                        continue
                    self.reads.read(cell, name, contents[name], cell_content, what=f"the closure variable {name}")
                    self.reach(contents[name], f"the closure variable {name}")

    # --- objects that outlive the call -------------------------------------------------------------------------------

    def is_lasting(self, value: object) -> bool:
        """Whether an object outlives the call."""
        return id(value) in self.lasting or (isinstance(value, Counted) and not self.recording.was_made(value))

    def reach_argument(self, value: Any) -> None:
        """`reach` an argument, or the elements of a container; the container itself is a copy that belongs to the call."""
        if isinstance(value, (tuple, list)):
            for part in value:
                self.reach_argument(part)
        elif isinstance(value, dict):
            for part in value.values():
                self.reach_argument(part)
        elif is_record(value):
            for part in fields_of(value).values():
                self.reach_argument(part)
        else:
            self.reach(value, f"an argument of type {type(value).__name__}")

    def reach(self, value: Any, what: str) -> Any:
        """Note that an object outlives the call, and the content of a container; return the object."""
        kind = type(value)
        if value is MISSING or kind is Number or is_plain(value) or isinstance(value, TensorCore) or id(value) in self.lasting:
            return value
        if id(value) in self.given:
            raise CannotRecord(f"it reaches {what} as an argument as well")
        self.lasting[id(value)] = value
        if value is os.environ or value is os.getenv:
            self.reach(_attributes(os.environ)["_data"], "the environment variables")
        elif kind is FunctionType:
            self.functions.setdefault(id(value.__code__), []).append(value)
            for cell in value.__closure__ or ():
                if type(_content(cell)) is FunctionType:  # a function that a decorator wraps
                    self.reach(_content(cell), what)
            if not _is_library(value.__module__):  # reloading a module in a notebook replaces the code of its functions
                self.reads.read(value, "__code__", value.__code__, getattr, what=f"the code of {what}")
            for name in ("__defaults__", "__kwdefaults__"):
                if getattr(value, name) is not None and not _is_library(value.__module__):
                    self.reads.read(value, name, getattr(value, name), getattr, what=f"the defaults of {what}")
                self.reach(getattr(value, name), what)
            if hasattr(value, "__wrapped__"):
                self.reach(value.__wrapped__, what)
        elif kind is MethodType:
            self.reach(value.__self__, what)
            self.reach(value.__func__, what)
        elif kind in (staticmethod, classmethod):
            self.reach(value.__func__, what)
        elif kind is BuiltinFunctionType and value in READING:
            self.recording.give_up(f"it calls {value.__name__}() as {what}, whose reads cannot be seen")
        elif kind in (BuiltinMethodType, MethodWrapperType) and not isinstance(value.__self__, (type, PythonModule, NoneType)):
            self.reach_owner(value.__self__, what)
        elif kind is CACHED:
            if value.cache_info().currsize > LARGEST_CACHE:
                self.recording.give_up(f"it uses {what}, whose cache is too large to be compared before every call")
                return value
            content = cached(value)
            self.reads.read(value, "cache", content, cached, what=f"the cache of {what}")
            for part in (*content, value.__wrapped__):
                self.reach(part, f"a result of {what}")
        elif kind is partial:
            for part in (value.func, *value.args, *value.keywords.values()):
                self.reach(part, what)
        elif kind in (MappingProxyType, *DICT_VIEWS):
            for part in gc.get_referents(value):
                self.reach(part, what)
        elif kind is memoryview:
            self.reach(value.obj, what)
        elif isinstance(value, UNSEEN) or value is attrgetter:
            self.recording.give_up(f"it uses {what}, whose reads cannot be seen")
        elif isinstance(value, DRAWING) or (kind is BuiltinMethodType and value.__self__ is np.random.mtrand._rand):
            self.recording.give_up(f"it uses {what}, a source of random numbers that is not of rl_lab")
        elif isinstance(value, (*CONTAINERS, *BUFFERS)):
            self.reach_content(value, what)
        elif hasattr(kind, "__next__"):
            self.recording.give_up(f"it uses {what}, an iterator, which a replay does not advance")
        elif not isinstance(value, type) and callable(value) and not isinstance(value, Counted):
            self.reach(_attributes(value).get("__wrapped__", MISSING), what)
        return value

    def reach_owner(self, owner: Any, what: str) -> None:
        """`reach` the object of a method written in C; gives up if its state cannot be compared."""
        self.reach(owner, what)
        if not _is_comparable(owner) and self.recording.reason is None:
            self.recording.give_up(
                f"it uses {what}, a method written in C of a {type(owner).__name__}, whose reads cannot be seen"
            )

    def reach_content(self, value: Any, what: str) -> None:
        """Note the content of a container and of the containers in it. A tuple cannot change, but its elements can."""
        if not isinstance(value, (tuple, frozenset)) and not type(value).__module__.startswith("rl_lab.optim"):
            try:
                self.reads.content(value, f"the content of {what}")
            except TooLarge as fault:
                self.recording.give_up(f"it uses {what}, {fault}, which is too large to be compared before every call")
                return
        if isinstance(value, BUFFERS):
            return
        for element in (*value, *value.values()) if isinstance(value, dict) else value:
            self.reach(element, f"an element of {what}")


def _is_comparable(owner: object) -> bool:
    """Whether a program notices all that a method written in C may read of its object, or change."""
    known = (TensorCore, Counted, type, PythonModule, NoneType, *CONTAINERS, *BUFFERS, *IMMUTABLE)
    return isinstance(owner, known) or is_plain(owner) or _is_in(type(owner).__module__, OPAQUE)


def _reads_itself(kind: type) -> bool:
    """Whether a class of the user finds attributes by a function of its own."""
    return any(type(vars(base).get("__getattribute__")) is FunctionType for base in kind.__mro__)


def _unseen(owner: object, name: str) -> Any:
    """An attribute that is stored in the object itself, without running code of its class; MISSING if there is none."""
    described = next((vars(base)[name] for base in type(owner).__mro__ if name in vars(base)), MISSING)
    if type(described) is MemberDescriptorType:
        return slot(owner, name)
    return _attributes(owner).get(name, MISSING)


def _attributes(owner: object) -> dict[str, Any]:
    """The dictionary with the attributes of an object, without running code of its class; empty if it has none."""
    try:
        return object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}


def _locals(frame: FrameType) -> Mapping[str, Any]:
    """The variables of a function. The body of a class also reads those of the function around it."""
    code = frame.f_code
    if code.co_flags & CO_OPTIMIZED or not code.co_freevars or frame.f_back is None:
        return frame.f_locals
    return {**frame.f_back.f_locals, **frame.f_locals}


def _content(cell: CellType) -> Any:
    """The content of a closure cell; MISSING if the cell is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
