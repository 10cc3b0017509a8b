"""What a recorded call read of Python's state: attributes, globals, closures and the containers in them, with the values found.

A program is good for as long as it would find the same. `Reads` collects what was read and stored during a recording, and makes a
function that tells whether everything still is as it was.
"""

import dis
from collections.abc import Callable
from dataclasses import is_dataclass
from operator import is_
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine.number import same_number

LARGEST_CONTAINER = (
    4096  # elements, and LARGEST_ARRAY bytes: what would take longer to compare before every call is not recorded
)
LARGEST_ARRAY = 65536
PLAIN = (int, float, bool, complex, str, bytes, type(None))
MISSING = object()


class TooLarge(Exception):
    """A container or an array is too large to be compared before every call."""


def is_plain(value: Any) -> bool:
    """Whether a value cannot change, and two of the same type that are equal mean the same."""
    return type(value) in PLAIN or isinstance(value, np.generic)


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same object, or plain values between which no computation can tell."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in (int, float, bool):
        return same_number(a, b)
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) in PLAIN and a == b


def is_record(value: Any) -> bool:
    """Whether a value is a dataclass that is equal to another of the same fields, so that it is nothing besides its fields."""
    return is_dataclass(value) and not isinstance(value, type) and type(value).__hash__ is not object.__hash__


def fields_of(record: Any) -> dict[str, Any]:
    """The attributes of a dataclass by name: its fields, as far as they are set, and what was added to it."""
    names = dict.fromkeys(record.__dataclass_fields__)
    names.update(dict.fromkeys(getattr(record, "__dict__", ())))
    return {name: getattr(record, name) for name in names if hasattr(record, name)}


class Snapshot:
    """The content of a builtin container or an array as it was. Containers in it have snapshots of their own."""

    def __init__(self, value: Any):
        self.value = value
        self.content: tuple = ()
        self.keys: tuple | None = None
        if isinstance(value, np.ndarray):
            if value.nbytes > LARGEST_ARRAY or value.dtype.hasobject:
                raise TooLarge(f"an array of {value.nbytes:,} bytes")
            self.array: np.ndarray = value.copy()
            return
        if len(value) > LARGEST_CONTAINER:
            raise TooLarge(f"a {type(value).__name__} of {len(value):,} elements")
        if isinstance(value, dict):
            self.keys = tuple(value)
            self.content = tuple(value.values())
        else:
            self.content = tuple(value)

    def is_current(self) -> bool:
        """Whether the content still is the same."""
        value = self.value
        if isinstance(value, np.ndarray):
            array = self.array
            return value.shape == array.shape and value.dtype == array.dtype and value.tobytes() == array.tobytes()
        if len(value) != len(self.content):
            return False
        if self.keys is not None:
            same_keys = all(map(is_, value, self.keys)) or all(map(same, value, self.keys))
            same_values = all(map(is_, value.values(), self.content)) or all(map(same, value.values(), self.content))
            return same_keys and same_values
        return all(map(is_, value, self.content)) or all(map(same, value, self.content))

    def restore(self) -> None:
        """Give the container the content that it had."""
        value: Any = self.value
        if isinstance(value, np.ndarray):
            value[...] = self.array
            return
        value.clear()
        if self.keys is not None:
            value.update(zip(self.keys, self.content, strict=True))
        elif isinstance(value, set):
            value.update(self.content)
        else:
            value.extend(self.content)


class Read(NamedTuple):
    """One thing that was read: in which namespace, under which name, and what was found (MISSING if nothing).

    ``get`` finds it again: for a mapping it is None. ``covered``: every change of it is counted by `launch.changes`. ``where`` is
    the function that reads it.
    """

    space: Any
    name: Any
    value: Any
    get: Callable[[Any, Any], Any] | None
    covered: bool
    what: str
    where: CodeType | None = None


def cell_content(cell: Any, name: Any) -> Any:
    return cell.cell_contents


def slot(owner: Any, name: Any) -> Any:
    try:
        return object.__getattribute__(owner, name)
    except AttributeError:
        return MISSING


def class_attribute(owner: type, name: Any) -> Any:
    return owner.__dict__.get(name, MISSING)


class Reads:
    """The state of Python that a recording depends on, and that it has changed."""

    def __init__(self) -> None:
        self.reads: dict[tuple[int, Any], Read] = {}
        self.snapshots: dict[int, tuple[Snapshot, str, CodeType | None]] = {}
        self.stores: dict[tuple[int, Any], Read] = {}
        self.where: CodeType | None = None
        """The function that reads what is noted now."""

    def read(self, space: Any, name: Any, value: Any, get: Any = None, covered: bool = False, what: str = "") -> None:
        """Note what was found, unless it was read before or is what the call itself stored."""
        key = id(space), name
        if key not in self.reads and key not in self.stores:
            self.reads[key] = Read(space, name, value, get, covered, what or repr(name), self.where)

    def content(self, value: Any, what: str) -> None:
        """Note the content of a container or an array. Raises TooLarge if it cannot be compared before every call."""
        if id(value) not in self.snapshots:
            self.snapshots[id(value)] = Snapshot(value), what, self.where

    def store(self, space: Any, name: Any, old: Any, get: Any = None, what: str = "") -> None:
        """Note that the call is about to store something; ``old`` is what is there before (MISSING if nothing)."""
        key = id(space), name
        if key not in self.stores:
            self.stores[key] = Read(space, name, old, get, False, what or repr(name))

    @staticmethod
    def now(read: Read) -> Any:
        """What would be found now."""
        try:
            return read.space[read.name] if read.get is None else read.get(read.space, read.name)
        except (KeyError, IndexError, AttributeError, ValueError):
            return MISSING

    def difference(self) -> str | None:
        """What is no longer as it was read, and the line that changes it; None if everything is as it was."""
        for read in self.reads.values():
            if not same(self.now(read), read.value):
                return f"{read.what}{_line_of(read.where, read.name)}"
        for snapshot, what, where in self.snapshots.values():
            if not snapshot.is_current():
                return f"{what}{_line_of(where, None)}"
        return None

    def restore(self) -> None:
        """Put back what was read and has changed since."""
        for read in self.reads.values():
            now = self.now(read)
            if not same(now, read.value):
                _put(read, now)
        for snapshot, _, _ in self.snapshots.values():
            if not snapshot.is_current():
                snapshot.restore()

    def checks(self) -> tuple[Callable[[], bool] | None, Callable[[], bool] | None]:
        """Two functions that tell whether everything is as it was read: one for every call, one for when a change was counted.

        None where there is nothing to look at.
        """
        snapshots = [snapshot for snapshot, _, _ in self.snapshots.values()]
        always = _check([read for read in self.reads.values() if not read.covered], snapshots)
        return always, _check([read for read in self.reads.values() if read.covered], [])


def _put(read: Read, now: Any) -> None:
    """Store again what was read, in place of what is there ``now``."""
    space: Any = read.space
    if read.get is cell_content:
        if read.value is MISSING:
            del space.cell_contents
        else:
            space.cell_contents = read.value
    elif read.get is not None:
        if read.value is not MISSING:
            setattr(space, read.name, read.value)
        elif now is not MISSING:
            delattr(space, read.name)
    elif read.value is MISSING:
        space.pop(read.name, None)
    else:
        space[read.name] = read.value


def _line_of(code: CodeType | None, name: Any) -> str:
    """The line of a function that stores an attribute or a variable, or else its first line, to be put behind a sentence."""
    if code is None:
        return ""
    offsets = [i.offset for i in dis.get_instructions(code) if i.opname.startswith(("STORE_", "DELETE_")) and i.argval == name]
    lines = [line for start, end, line in code.co_lines() for offset in offsets if line and start <= offset < end]
    return f", at {code.co_filename}:{min(lines, default=code.co_firstlineno)}"


def _check(reads: list[Read], snapshots: list[Snapshot]) -> Callable[[], bool] | None:
    """A function of one expression: a loop over the reads would cost several times as much."""
    if not reads and not snapshots:
        return None
    names: dict[str, Any] = {"same": same, "is_": is_, "all": all, "map": map, "len": len}
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
        else:
            names[f"g{i}"], names[f"n{i}"] = read.get, read.name
            found = f"g{i}({space}, n{i})"
        terms.append(
            f"({found} is v{i} or same({found}, v{i}))"
            if is_plain(read.value) or type(read.value) is tuple
            else f"{found} is v{i}"
        )
    for i, snapshot in enumerate(snapshots):
        names[f"c{i}"] = snapshot.is_current
        if type(snapshot.value) is list:  # the common case without a call
            names[f"l{i}"], names[f"t{i}"] = snapshot.value, snapshot.content
            terms.append(f"(len(l{i}) == {len(snapshot.content)} and all(map(is_, l{i}, t{i})) or c{i}())")
        else:
            terms.append(f"c{i}()")
    parameters = ", ".join(f"{name}={name}" for name in names)
    source = f"def check({parameters}):\n    try:\n        return {' and '.join(terms)}\n"
    source += "    except (KeyError, IndexError, AttributeError, ValueError):\n        return False\n"
    scope = dict(names)
    exec(source, scope)
    return scope["check"]
