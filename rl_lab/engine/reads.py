"""The Python state that a recorded call read: attributes, globals, closure variables and the containers in them, with their values.

A program is valid while this state is unchanged. `Reads` collects the reads and stores of a recording, and makes a function that
tells whether the state has changed.
"""

import array
import copy
import dis
import gc
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from operator import is_
from types import CellType, CodeType, FunctionType, MemberDescriptorType
from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine.number import Number, same_number

# A larger container or array would take too long to compare before every call, so a call that reads one is not recorded.
LARGEST_CONTAINER = 4096  # elements
LARGEST_ARRAY = 65536  # bytes
PLAIN = (int, float, bool, complex, str, bytes, type(None))
BUFFERS = (np.ndarray, bytearray, array.array)
"""Types that hold plain values in memory of their own, which is compared as a whole."""
MISSING = object()
"""Stands for a value that does not exist, such as an attribute that an object does not have."""

Getter = Callable[[Any, Any], object]
"""Finds a value again from its namespace and name."""


class TooLarge(Exception):
    """A container or an array is too large to be compared before every call."""


def is_plain(value: object) -> bool:
    """Whether a value is immutable, and equal values of its type are interchangeable."""
    return type(value) in PLAIN or isinstance(value, np.generic)


def same(a: object, b: object) -> bool:
    """Whether two values are the same object, or plain values that no computation can tell apart."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in (int, float, bool):
        return same_number(a, b)
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) in PLAIN and a == b


def is_named_tuple(value: object) -> bool:
    """Whether a value is a named tuple, whose class takes the elements one by one."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def is_record(value: Any) -> bool:
    """Whether a value is a dataclass that is compared by its fields, so that a copy with the same fields can take its place."""
    return is_dataclass(value) and not isinstance(value, type) and type(value).__hash__ is not object.__hash__


def fields_of(record: Any) -> dict[str, Any]:
    """The values that a dataclass holds, by name: its fields that are set, and attributes that were added to it."""
    values = {field.name: getattr(record, field.name, MISSING) for field in fields(record)}
    values.update(getattr(record, "__dict__", {}))  # a dataclass with slots has no dictionary
    return {name: value for name, value in values.items() if value is not MISSING}


class Snapshot:
    """A copy of the content of a builtin container, an array or a buffer. Containers inside of it have snapshots of their own.

    Raises TooLarge if the content cannot be compared before every call.
    """

    def __init__(self, value: Any):
        self.value = value
        self.content: tuple = ()
        self.keys: tuple | None = None
        if isinstance(value, BUFFERS):
            size = value.nbytes if isinstance(value, np.ndarray) else len(bytes(value))
            if size > LARGEST_ARRAY or (isinstance(value, np.ndarray) and value.dtype.hasobject):
                raise TooLarge(f"an array of {size:,} bytes")
            self.buffer: Any = copy.copy(value)
            return
        if len(value) > LARGEST_CONTAINER:
            raise TooLarge(f"a {type(value).__name__} of {len(value):,} elements")
        if isinstance(value, dict):
            self.keys = tuple(value)
            self.content = tuple(value.values())
        else:
            self.content = tuple(value)

    def is_current(self) -> bool:
        """Whether the content is unchanged."""
        value = self.value
        if isinstance(value, np.ndarray):
            before = self.buffer
            return value.shape == before.shape and value.dtype == before.dtype and value.tobytes() == before.tobytes()
        if isinstance(value, BUFFERS):
            return bytes(value) == bytes(self.buffer)
        if len(value) != len(self.content):
            return False
        if self.keys is not None:
            same_keys = all(map(is_, value, self.keys)) or all(map(same, value, self.keys))
            same_values = all(map(is_, value.values(), self.content)) or all(map(same, value.values(), self.content))
            return same_keys and same_values
        return all(map(is_, value, self.content)) or all(map(same, value, self.content))

    def restore(self) -> None:
        """Restore the content of the container."""
        value: Any = self.value
        if isinstance(value, np.ndarray):
            value[...] = self.buffer
            return
        if isinstance(value, BUFFERS):
            value[:] = self.buffer
            return
        value.clear()
        if self.keys is not None:
            value.update(zip(self.keys, self.content, strict=True))
        elif isinstance(value, set):
            value.update(self.content)
        else:
            value.extend(self.content)


class Read(NamedTuple):
    """One read of Python state.

    ``value`` was found under ``name`` in the namespace ``space``; it is MISSING if nothing was found. ``get`` finds the value again;
    None means ``space[name]``. If ``covered``, `launch.changes` counts every change of the value. ``what`` describes the value in a
    message, and ``where`` is the code of the function that reads it.
    """

    space: Any
    name: Hashable
    value: object
    get: Getter | None
    covered: bool
    what: str
    where: CodeType | None = None


def cell_content(cell: CellType, name: object) -> object:
    return cell.cell_contents


def cached(function: Any, name: object = None) -> tuple:
    """The results, and the arguments, in the cache of a function that `functools.lru_cache` wraps."""
    found: list[Any] = []
    for part in gc.get_referents(function):  # the results themselves or, in a cache without a limit, a dict of them
        if type(part) is dict and part is not vars(function):
            found += part.values()
        elif not isinstance(part, (dict, type, FunctionType)):
            found.append(part)
    return tuple(found)


def slot(owner: object, name: str) -> object:
    try:
        return object.__getattribute__(owner, name)
    except AttributeError:
        return MISSING


def class_attribute(owner: type, name: str) -> object:
    return owner.__dict__.get(name, MISSING)


class Settling:
    """Replaces each `Number` in a value by the number that it stands for: in containers, in objects of the user, and in errors.

    What can change is changed in place; for a tuple or a set that holds a `Number`, a call returns another one.
    """

    def __init__(self) -> None:
        self.seen: dict[int, object] = {}  # with the objects themselves, so that no id is used again

    def __call__(self, value: Any) -> Any:
        """The value without a `Number`."""
        kind = type(value)
        if kind is Number:
            return value.value
        if kind in PLAIN or id(value) in self.seen or len(self.seen) > LARGEST_CONTAINER:
            return value
        self.seen[id(value)] = value
        if isinstance(value, (list, deque)):
            for i, part in enumerate(value):
                if (settled := self(part)) is not part:
                    value[i] = settled
        elif isinstance(value, dict):
            for key, part in list(value.items()):
                if type(key) is Number:
                    del value[key]
                    value[key.value] = self(part)
                elif (settled := self(part)) is not part:
                    value[key] = settled
        elif isinstance(value, (tuple, set, frozenset)):
            parts = [self(part) for part in value]
            if all(map(is_, parts, value)):
                return value
            if isinstance(value, set):
                value.clear()
                value.update(parts)
                return value
            return kind(*parts) if is_named_tuple(value) else kind(parts)
        elif isinstance(value, BaseException):
            if (settled := self(value.args)) is not value.args:
                value.args = settled
            self(vars(value))
        elif isinstance(value, FunctionType):
            for cell in value.__closure__ or ():
                self.settle_cell(cell)
        elif kind.__module__.partition(".")[0] not in ("rl_lab", "numpy", "builtins"):
            self.settle_object(value)
        return value

    def settle_cell(self, cell: CellType) -> None:
        """Settle the content of a closure variable, unless it is empty."""
        try:
            content = cell.cell_contents
        except ValueError:
            return
        if (settled := self(content)) is not content:
            cell.cell_contents = settled

    def settle_object(self, value: object) -> None:
        """Settle the attributes of an object, without running code of its class."""
        try:
            self(object.__getattribute__(value, "__dict__"))
        except AttributeError:
            pass
        for base in type(value).__mro__:
            for name, member in vars(base).items():
                part = slot(value, name) if type(member) is MemberDescriptorType else MISSING
                if (settled := self(part)) is not part:
                    object.__setattr__(value, name, settled)


class Reads:
    """The Python state that a recorded call reads and changes."""

    def __init__(self) -> None:
        self.reads: dict[tuple[int, Hashable], Read] = {}
        self.snapshots: dict[int, tuple[Snapshot, str, CodeType | None]] = {}
        self.stores: dict[tuple[int, Hashable], Read] = {}
        self.where: CodeType | None = None
        """The code of the function that is reading at present."""

    def read(
        self, space: Any, name: Hashable, value: object, get: Getter | None = None, covered: bool = False, what: str = ""
    ) -> None:
        """Note a read (see `Read`), unless the value was read before, or the call itself has stored it."""
        key = id(space), name
        if key not in self.reads and key not in self.stores:
            self.reads[key] = Read(space, name, value, get, covered, what or repr(name), self.where)

    def content(self, value: object, what: str) -> None:
        """Note the content of a container or an array. Raises TooLarge if it cannot be compared before every call."""
        if id(value) not in self.snapshots:
            self.snapshots[id(value)] = Snapshot(value), what, self.where

    def store(self, space: Any, name: Hashable, old: object, what: str = "") -> None:
        """Note that the call is about to store a value; ``old`` is the value before (MISSING if there is none)."""
        key = id(space), name
        if key not in self.stores:
            self.stores[key] = Read(space, name, old, None, False, what or repr(name))

    @staticmethod
    def now(read: Read) -> object:
        """The present value of the state that was read; MISSING if there is none."""
        try:
            return read.space[read.name] if read.get is None else read.get(read.space, read.name)
        except (KeyError, IndexError, AttributeError, ValueError):
            return MISSING

    def difference(self) -> str | None:
        """A description of state that has changed since it was read, with the line that changes it; None if nothing has changed."""
        for read in self.reads.values():
            if not same(self.now(read), read.value):
                return f"{read.what}{_line_of(read.where, read.name)}"
        for snapshot, what, where in self.snapshots.values():
            if not snapshot.is_current():
                return f"{what}{_line_of(where, None)}"
        return None

    def settle_numbers(self) -> None:
        """Replace each `Number` that the call has stored in the state that it read by its value, however deep it is stored."""
        settle = Settling()
        for read in self.reads.values():
            now = self.now(read)
            settled = settle(now)
            if settled is not now:
                _put(read._replace(value=settled), now)
        for snapshot, _, _ in self.snapshots.values():
            settle(snapshot.value)

    def restore(self) -> None:
        """Restore all state that has changed since it was read."""
        for read in self.reads.values():
            now = self.now(read)
            if not same(now, read.value):
                _put(read, now)
        for snapshot, _, _ in self.snapshots.values():
            if not snapshot.is_current():
                snapshot.restore()

    def checks(self) -> tuple[Callable[[], bool] | None, Callable[[], bool] | None]:
        """Two functions that tell whether the state is unchanged.

        The first must be called before every replay. The second compares the covered state, so it is called only after
        `launch.changes` has counted a change. A function is None if it would have nothing to compare.
        """
        snapshots = [snapshot for snapshot, _, _ in self.snapshots.values()]
        always = _check([read for read in self.reads.values() if not read.covered], snapshots)
        return always, _check([read for read in self.reads.values() if read.covered], [])


def _put(read: Read, now: object) -> None:
    """Restore a value that was read; ``now`` is the present value."""
    space = read.space
    if read.get is cell_content:
        if read.value is MISSING:
            del space.cell_contents
        else:
            space.cell_contents = read.value
    elif read.get is not None:
        if read.value is not MISSING:
            setattr(space, str(read.name), read.value)
        elif now is not MISSING:
            delattr(space, str(read.name))
    elif read.value is MISSING:
        space.pop(read.name, None)
    else:
        space[read.name] = read.value


def _line_of(code: CodeType | None, name: Hashable) -> str:
    """The end of a message, with the line of a function that stores the attribute or variable ``name``, or else its first line."""
    if code is None:
        return ""
    offsets = [i.offset for i in dis.get_instructions(code) if i.opname.startswith(("STORE_", "DELETE_")) and i.argval == name]
    lines = [line for start, end, line in code.co_lines() for offset in offsets if line and start <= offset < end]
    return f", at {code.co_filename}:{min(lines, default=code.co_firstlineno)}"


def _check(reads: list[Read], snapshots: list[Snapshot]) -> Callable[[], bool] | None:
    """A function that tells whether all reads and snapshots are unchanged; None if there are none.

    Its source is generated as one expression, because a loop over the reads would take several times as long.
    """
    if not reads and not snapshots:
        return None
    names: dict[str, object] = {"same": same, "is_": is_, "all": all, "map": map, "len": len}
    spaces: dict[int, str] = {}
    terms = []
    for i, read in enumerate(reads):
        space = spaces.setdefault(id(read.space), f"s{len(spaces)}")
        names[space] = read.space.__dict__ if read.get is class_attribute else read.space
        names[f"v{i}"] = read.value
        if read.value is MISSING and read.get in (None, class_attribute):
            names[f"n{i}"] = read.name
            terms.append(f"n{i} not in {space}")
            continue
        if read.get in (None, class_attribute):
            names[f"n{i}"] = read.name
            found = f"{space}[{read.name!r}]" if type(read.name) in (str, int) else f"{space}[n{i}]"
        elif read.get is cell_content:
            found = f"{space}.cell_contents"
        elif read.get is getattr:
            found = f"{space}.{read.name}"
        else:
            names[f"g{i}"] = read.get
            names[f"n{i}"] = read.name
            found = f"g{i}({space}, n{i})"
        terms.append(
            f"({found} is v{i} or same({found}, v{i}))"
            if is_plain(read.value) or type(read.value) is tuple
            else f"{found} is v{i}"
        )
    for i, snapshot in enumerate(snapshots):
        names[f"c{i}"] = snapshot.is_current
        if type(snapshot.value) is list:  # the most frequent case, without a call
            names[f"l{i}"] = snapshot.value
            names[f"t{i}"] = snapshot.content
            terms.append(f"(len(l{i}) == {len(snapshot.content)} and all(map(is_, l{i}, t{i})) or c{i}())")
        else:
            terms.append(f"c{i}()")
    parameters = ", ".join(f"{name}={name}" for name in names)
    source = f"def check({parameters}):\n    try:\n        return {' and '.join(terms)}\n"
    source += "    except (KeyError, IndexError, AttributeError, ValueError):\n        return False\n"
    scope: dict[str, Any] = dict(names)
    exec(source, scope)
    return scope["check"]
