"""`compile`: record the launches of one call of a function, and replay them natively in later calls."""

import copy
import functools
import operator
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from types import FunctionType
from typing import Any, Generic, Literal, NamedTuple, NoReturn, ParamSpec, TypeVar, overload

import numpy as np

from rl_lab.engine import launch, tape
from rl_lab.engine.errors import EagerWarning, StateError
from rl_lab.engine.launch import changes, record_with, recorder, user_line
from rl_lab.engine.memory import Storage, private_pool
from rl_lab.engine.number import Number, Plain, same_number
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.program import Program, copy_of
from rl_lab.engine.reads import Settling, fields_of, is_named_tuple, is_record
from rl_lab.engine.recorder import Recorder
from rl_lab.engine.tensor import new, view
from rl_lab.engine.watch import CannotRecord, asks_for_types, watching
from rl_lab.native.primitive import Primitive
from rl_lab.native.threads import after_fork_in_child

KEEP_PROGRAMS = 8  # programs kept per kind of call; the least recently used are dropped
KEEP_ALL = 32  # programs kept per function
KEEP_SITES = 64  # kinds of calls remembered per function
TRIES = 3  # failed recordings of one kind of call after which its calls run eagerly
PAUSE = 64  # eager calls before recording is tried again

P = ParamSpec("P")
R = TypeVar("R")

Build = Callable[[Sequence[Tensor], Sequence[Plain], Sequence[Tensor]], Any]
"""Builds the result of a call from the program's output tensors, the values of its numbers, and the caller's tensors."""


class Recorded(NamedTuple):
    """A program and the function that builds its result.

    ``numbers`` has one entry per number among the arguments: its value if the program holds for this value only, else None.
    """

    program: Program
    build: Build
    numbers: tuple[Plain | None, ...]


Shortcut = tuple[Callable[[tuple], Tensor | None], Program]
"""The last program with one tensor argument and one tensor result, behind its `as_function`."""


class Site:
    """One kind of call: its programs, and which numbers among the arguments have varied so far."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []
        self.last: tuple[Plain, ...] | None = None
        """The numbers of the last call that was recorded."""
        self.varying: list[bool] = []
        self.eager = 0
        """How many more calls run eagerly before recording is tried again; -1 for all further calls."""
        self.vain = 0
        """Recordings since the last replay."""
        self.failures = 0

    def note(self, numbers: Sequence[Plain]) -> list[bool]:
        """Record the numbers of a call; return which positions have varied so far. The list is a copy, safe from other threads."""
        last = numbers if self.last is None else self.last
        varying = self.varying or [False] * len(numbers)
        self.varying = [v or not same_number(a, b) for v, a, b in zip(varying, numbers, last, strict=True)]
        self.last = tuple(numbers)
        return self.varying.copy()

    def find(self, tensors: Sequence[Tensor], numbers: Sequence[Plain]) -> Recorded | None:
        """A program whose replay does what the function would do now, or None."""
        if not numbers:
            for recorded in self.recorded:
                if recorded.program.fits(tensors):
                    return recorded
            return None
        for recorded in self.recorded:
            pairs = list(zip(numbers, recorded.numbers, strict=True))
            if all(known is None or same_number(number, known) for number, known in pairs):
                varying = [number for number, known in pairs if known is None]
                if recorded.program.fits(tensors, varying):
                    return recorded
        return None


_all: "weakref.WeakSet[Compiled]" = weakref.WeakSet()
"""All compiled functions of this process."""


@after_fork_in_child
def _renew_locks() -> None:
    for compiled in _all:
        compiled._replaying = threading.RLock()
        compiled._short = None  # it holds the old lock


class Compiled(Generic[P, R]):
    """A function that keeps one program per combination of tensor shapes, dtypes and other arguments.

    A call has the same effects and the same result as a call of the function. The first call with a new combination runs the
    function and records its launches. Later calls replay the launches, and their results are bitwise equal.

    - NumPy arrays among the arguments reach the function as tensors. Tensors in the result are copies.
    - Writes to an argument reach the caller's tensor.
    - Python numbers that vary from call to call become inputs of the program. All other arguments are static and must be hashable.
    - The function may also read attributes, globals and the structure of modules. They are compared before every replay; if one
      of them has changed, the call is recorded again.

    A function that cannot be recorded runs eagerly, for example a function that reads the value of a tensor. One `EagerWarning`
    gives the line and the reason: at the first recording that stops early, otherwise at the third failure. ``why`` keeps the text.
    A call raises IndexError if an index is out of bounds; a replay that fails in this way leaves everything as it was before the
    call.
    """

    def __init__(self, function: Callable[P, R]):
        # the attributes of a module are those of today: a copy would not follow them
        functools.update_wrapper(self, function, updated=("__dict__",) if isinstance(function, FunctionType) else ())
        self._function = function
        self._sites: dict[Hashable, Site] = {}
        self._replaying = threading.RLock()
        _all.add(self)
        self._short: Shortcut | None = None
        self._uses = 0
        self._unused = 0
        """Recordings since the last replay of any program."""
        self.why: str | None = None
        """Why calls run eagerly; None if no call did."""

    @property
    def programs(self) -> list[Program]:
        """The recorded programs that are still kept."""
        return [recorded.program for site in list(self._sites.values()) for recorded in site.recorded]

    def __getattr__(self, name: str) -> Any:
        """An attribute of the compiled module or object: ``compiled.parameters()``, ``compiled.eval()``."""
        if name.startswith("__") or name in ("_function", "_short"):
            raise AttributeError(name)
        try:
            return getattr(self._function, name)
        except AttributeError:
            kind = type(self._function).__name__
            raise AttributeError(f"neither a compiled function nor its {kind} has an attribute {name!r}") from None

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        raise TypeError(
            "compile a bound method in __init__ (self.update = rl.compile(self.update)), not the function in the class"
        )

    def __call__(self, *arguments: P.args, **keywords: P.kwargs) -> R:
        if launch._recorders and recorder() is not None:
            return self._run_eagerly(None, arguments, keywords)
        if (short := self._short) is not None and not keywords and (found := short[0](arguments)) is not None:
            return found  # type: ignore[return-value]
        if tape.anomaly == "nan":  # a replay would not look for NaN
            return self._run_eagerly(None, arguments, keywords)
        key, tensors, numbers, reason = self._look(arguments, keywords)
        if reason is not None:
            return self._run_eagerly(reason, arguments, keywords)
        try:
            site = self._sites.get(key)
        except TypeError as fault:
            reason = f"calls are told apart by their arguments, and one cannot be hashed ({fault})"
            return self._run_eagerly(reason, arguments, keywords)
        if site is not None and site.recorded:
            with self._replaying:
                recorded = site.find(tensors, numbers)
                if recorded is not None:
                    program, build, _ = recorded
                    self._uses = program.last_use = self._uses + 1
                    site.vain = self._unused = 0
                    return build(program.run(tensors), program.values, tensors)
        return self._call_unrecorded(key, site, arguments, keywords, tensors, numbers)

    def run_within(self, primitive: Primitive, arguments: tuple, row: Callable[[Program, Callable[[], Any]], bytes]) -> bool:
        """Run a primitive that replays the program of a call with these arguments (see `Program.run_within`).

        ``row(program, result)`` makes the operand row of the primitive; ``result()`` gives the result of the call in the program's
        own tensors. Returns False and does nothing if there is no program for this call yet.
        """
        key, tensors, numbers, reason = self._look(arguments, {})
        site = self._sites.get(key)
        if reason is not None or site is None:
            return False
        with self._replaying:
            recorded = site.find(tensors, numbers)
            if recorded is None or not recorded.program.repeatable:
                return False
            program, build = recorded.program, recorded.build
            self._note_use(site, program)
            program.run_within(primitive, row(program, lambda: build(program.outputs, program.values, program.inputs)))
            return True

    def times(self, count: int, *arguments: Any) -> R:
        """Call ``count`` times with the same arguments, in one native call if possible; return the last result.

        Raises ValueError if ``count`` is less than 1, TypeError if it is not an integer.
        """
        count = operator.index(count)
        if count < 1:
            raise ValueError(f"count is {count}, but the function must be called at least once")
        while count:
            if count > 1 and recorder() is None and tape.anomaly != "nan":
                key, tensors, numbers, reason = self._look(arguments, {})
                site = self._sites.get(key)
                if reason is None and site is not None:
                    with self._replaying:
                        recorded = site.find(tensors, numbers)
                        if recorded is not None and recorded.program.repeatable:
                            program = recorded.program
                            self._note_use(site, program)
                            return recorded.build(program.run_times(tensors, count), program.values, tensors)
            result = self(*arguments)  # type: ignore[call-arg, arg-type]
            count -= 1
        return result

    # --- which program -----------------------------------------------------------------------------------------------

    def _look(self, arguments: tuple, keywords: dict[str, Any]) -> tuple[Hashable, list[Tensor], list[Plain], str | None]:
        """The key of a call, its tensors and numbers, and the reason why it must run eagerly (None if it can be recorded)."""
        tensors: list[Tensor] = []
        numbers: list[Plain] = []
        if not arguments and not keywords:
            return (tape.modes.grad,), tensors, numbers, None
        if len(arguments) == 1 and type(x := arguments[0]) is Tensor:
            tensors.append(x)  # a policy's call, which is the most frequent, without the general walk
            key: Hashable = (tape.modes.grad, (x.sizes, x.strides, x.dtype))
        else:
            key = (tape.modes.grad, *[_signature(a, tensors, numbers) for a in arguments])
        if keywords:
            key = (key, tuple([(name, _signature(value, tensors, numbers)) for name, value in keywords.items()]))
        if len(tensors) > 1:
            places = {id(tensor): i for i, tensor in enumerate(tensors)}
            if len(places) < len(tensors):  # the function can see that two arguments are the same tensor
                key = (key, tuple([places[id(tensor)] for tensor in tensors]))
        for tensor in tensors:
            if tensor.requires_grad or tensor._grad is not None:
                return key, tensors, numbers, "an argument requires grad (detach it, or differentiate inside the function)"
        return key, tensors, numbers, None

    def _note_use(self, site: Site, program: Program) -> None:
        self._uses = program.last_use = self._uses + 1
        site.vain = self._unused = 0

    def _call_unrecorded(
        self,
        key: Hashable,
        site: Site | None,
        arguments: tuple,
        keywords: dict[str, Any],
        tensors: list[Tensor],
        numbers: list[Plain],
    ) -> Any:
        """Make a call that has no program: record it, or run it eagerly if recording has not paid so far."""
        if site is None:
            site = Site()
            with self._replaying:
                self._sites[key] = site
                while len(self._sites) > KEEP_SITES:
                    oldest = next((k for k, s in self._sites.items() if not s.recorded), None)
                    if oldest is None or oldest == key:
                        break
                    del self._sites[oldest]
            if self._unused >= KEEP_ALL:  # every call is of a new kind: record a kind only when it occurs a second time
                return self._run_eagerly(None, arguments, keywords)
        if site.eager:
            site.eager -= site.eager > 0
            return self._run_eagerly(None, arguments, keywords)
        return self._record(site, arguments, keywords, tensors, numbers)

    def _run_eagerly(self, reason: str | None, arguments: tuple, keywords: dict[str, Any]) -> Any:
        if reason is not None:
            self._tell(f"{reason}, at {user_line()}")
        function: Callable[..., Any] = self._function
        arguments = tuple(map(_without_arrays, arguments))
        return function(*arguments, **{name: _without_arrays(value) for name, value in keywords.items()})

    def _tell(self, reason: str) -> None:
        """Keep the reason why the function runs eagerly, and warn the first time."""
        first = self.why is None
        self.why = reason
        if first:
            name = getattr(self._function, "__qualname__", type(self._function).__name__)
            warnings.warn(f"{name} is compiled, but runs eagerly: {reason}", EagerWarning, stacklevel=_levels_up())

    # --- recording ---------------------------------------------------------------------------------------------------

    def _record(
        self, site: Site, arguments: tuple, keywords: dict[str, Any], tensors: list[Tensor], numbers: list[Plain]
    ) -> Any:
        """Make a call and record its launches as a program, if a replay can do the same."""
        varies = site.note(numbers)
        if asks_for_types(self._function):  # it would distinguish the recorder's Number from the caller's int or float
            varies = [False] * len(numbers)
        known = tuple([None if v else n for n, v in zip(numbers, varies, strict=True)])
        recording = Recorder(tensors, [n for n, v in zip(numbers, varies, strict=True) if v])
        varying = iter(recording.expressions.inputs)
        given = iter([next(varying) if v else n for n, v in zip(numbers, varies, strict=True)])
        replaced = _Replacements(iter(recording.arguments), given, {})
        originals: dict[int, Any] = dict(zip(map(id, recording.arguments), tensors, strict=True))
        theirs = arguments, keywords
        arguments = tuple([_replace(a, replaced) for a in arguments])
        keywords = {name: _replace(value, replaced) for name, value in keywords.items()}
        version = changes.count
        build: Build | None = None
        outputs: list[Tensor] = []
        grad = tape.modes.grad
        function: Callable[..., Any] = self._function
        try:
            with private_pool(recording.pool), record_with(recording):
                with watching(recording, function, (arguments, keywords), {id(c.theirs) for c in replaced.copies.values()}):
                    result = function(*arguments, **keywords)
                if tape.modes.grad is not grad and recording.reason is None:
                    recording.reason = "it turns gradients on or off for its caller"
                if recording.reason is None:
                    recording.forget_inner()
                    build = _outputs(result, outputs, recording, {})
                    outputs = [output.detach() for output in outputs]
        except BaseException as error:
            if any(varies):
                Settling()(error)
            if recording.reason is None:
                recording.undo()
                if any(varies) and isinstance(error, TypeError):  # perhaps a C function that takes no `Number`
                    error = CannotRecord(f"it cannot compute with a number that varies ({error})")
                if isinstance(error, CannotRecord):
                    recording.pool.retire()
                    recording.give_up(str(error))
                    self._give_up(site, recording)
                    return self._run_eagerly(None, *theirs)
            else:  # the recording stopped before all changes were noted: the call fails half-way, as an eager call does
                _take_back(replaced.copies.values(), originals)
                recording.hand_over(tensors)
                self._tell(recording.reason)
            recording.pool.retire()
            raise
        finally:
            if any(varies):
                recording.reads.settle_numbers()
            recording.finish()
        if _take_back(replaced.copies.values(), originals) and recording.reason is None:
            recording.reason = "it changes a list, a dict or a dataclass among its arguments"
        # kept, because an id is that of another object as soon as the first one is gone
        copies = [copy for copy in replaced.copies.values() if isinstance(copy.theirs, (list, dict))]
        originals.update({id(copied): container for container, copied, _ in copies})
        if recording.reason is None and any(_holds(result, copied) for _, copied, _ in copies):
            recording.reason = "it returns a list or a dict that is an argument"
        count = len(arguments)
        alone = (
            count > 0 and not keywords and isinstance(arguments[0], Tensor) and all(other is None for other in arguments[1:])
        )
        del arguments, keywords, replaced, given
        program = None
        if recording.reason is None and build is not None:
            values = list(recording.expressions.values)
            program = self._program_of(recording, outputs, tensors)
        if program is None or build is None:
            recording.hand_over(tensors)
            result = _own(result, originals)
            recording.expressions.close()
            self._give_up(site, recording)
            return result
        results = [copy_of(output) for output in outputs]  # now, before another thread can find the program and run it
        made = build(results, values, tensors)
        program.checked_at = version if version == changes.count else -1
        with self._replaying:
            site.failures = 0
            site.vain += 1
            self._unused += 1
            if site.vain > 2 * KEEP_PROGRAMS:
                self._tell_vain(site)
            site.recorded.insert(0, Recorded(program, build, known))
            self._uses = program.last_use = self._uses + 1
            self._drop_oldest(site)
            plain = isinstance(result, Tensor) and not result.requires_grad
            if alone and plain and program.is_function and program.inputs[0].strides is None:
                self._short = program.as_function(count, self._replaying), program
        return made

    def _program_of(self, recording: Recorder, outputs: list[Tensor], tensors: list[Tensor]) -> Program | None:
        """The program of a recording, or None if its replay would not do what the function does.

        The reason is then in ``recording.reason``.
        """
        changed = recording.changed_itself()
        if any(map(recording.is_reshaped, tensors, recording.arguments)):
            changed = "it changes the shape of an argument"
        if changed is None and recording.failed:
            changed = "it catches an error that a kernel reports"
        if changed is not None:
            recording.reason = changed
            return None
        program = Program(recording, outputs)
        weakref.finalize(program, recording.pool.retire).atexit = False
        if program.meets_outside(tensors):
            recording.reason = "an argument shares memory with a tensor that the function reaches in another way"
            return None
        return program

    def _give_up(self, site: Site, recording: Recorder) -> None:
        """Count a failed recording. Warn at once if the recording stopped before the call ended, otherwise from the third failure on.

        The first calls of a function often create layers or state, so a first failure means little.
        """
        recording.pool.retire()
        site.failures += 1
        assert recording.reason is not None
        if recording.stopped or site.failures >= TRIES:
            self._tell(recording.reason)
        if site.failures >= TRIES - recording.stopped:
            site.eager = -1 if recording.stopped else PAUSE

    def _tell_vain(self, site: Site) -> None:
        """Pause recording, because many recordings of one kind of call were made and none was replayed."""
        site.eager = PAUSE
        site.vain = 0
        self._tell(
            "state that it reads, or the shape of an argument, changes in every call, so no recording could be replayed: "
            "pass changing numbers as arguments"
        )

    def _drop_oldest(self, site: Site) -> None:
        """Drop the least recently used programs beyond `KEEP_PROGRAMS` of this kind of call and `KEEP_ALL` of the function."""

        def last_use(entry: tuple[Site, Recorded]) -> int:
            return entry[1].program.last_use

        for sites, limit in (([site], KEEP_PROGRAMS), (list(self._sites.values()), KEEP_ALL)):
            kept = sorted(((s, recorded) for s in sites for recorded in s.recorded), key=last_use)
            for owner, oldest in kept[: max(0, len(kept) - limit)]:
                owner.recorded.remove(oldest)
                if self._short is not None and self._short[1] is oldest.program:
                    self._short = None


class _CopiedContainer(NamedTuple):
    """A container among the arguments: the caller's, the copy that the function gets, and the content of the copy before the call."""

    theirs: Any
    copied: Any
    content: list[object]


class _Replacements(NamedTuple):
    """The recorder's tensors and numbers, in the order of the arguments, and the containers copied so far, by the id of the caller's."""

    tensors: Iterator[Tensor]
    numbers: Iterator[Plain | Number]
    copies: dict[int, _CopiedContainer]


def _with_fields(record: Any, values: dict[str, Any]) -> Any:
    """A copy of a dataclass with other values in its fields, frozen or not."""
    made = copy.copy(record)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _content_of(container: Any) -> list[object]:
    if is_record(container):
        container = fields_of(container)
    return [part for item in container.items() for part in item] if isinstance(container, dict) else list(container)


def _take_back(copies: Iterable[_CopiedContainer], originals: dict[int, Any]) -> bool:
    """Repeat on the caller's containers what the function did to the copies; returns whether any container changed."""
    changed = False
    for theirs, copied, content in copies:
        now = _content_of(copied)
        if len(now) == len(content) and all(map(operator.is_, now, content)):
            continue
        changed = True
        if isinstance(theirs, dict) and isinstance(copied, dict):
            theirs.clear()
            theirs.update({key: _own(value, originals) for key, value in copied.items()})
        elif isinstance(theirs, list):
            theirs[:] = [_own(value, originals) for value in copied]
        else:
            values = fields_of(copied)
            for name in fields_of(theirs).keys() - values.keys():
                object.__delattr__(theirs, name)
            for name, value in values.items():
                object.__setattr__(theirs, name, _own(value, originals))
    return changed


def _levels_up() -> int:
    """Number of frames from `warnings.warn` up to the user's code."""
    frame = sys._getframe(1)
    level = 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "rl_lab":
        frame = frame.f_back
        level += 1
    return level


def _signature(argument: object, tensors: list[Tensor], numbers: list[Plain]) -> Hashable:
    """The part of a call's key that stands for this argument; appends the tensors and numbers in the argument to the lists."""
    if isinstance(argument, Tensor):
        tensors.append(argument)
        # the strides, too, because another layout runs another kernel, which may round differently
        return argument.sizes, argument.strides, argument.dtype
    kind: Any = type(argument)
    if kind is float or kind is int or (kind is not bool and isinstance(argument, (np.floating, np.integer))):
        numbers.append(argument)  # type: ignore[arg-type]
        return kind
    if isinstance(argument, np.ndarray):
        return _signature(as_tensor(argument), tensors, numbers)
    if isinstance(argument, (tuple, list)):
        return kind, tuple([_signature(a, tensors, numbers) for a in argument])
    if isinstance(argument, dict):
        return kind, tuple([(_exact(k), _signature(v, tensors, numbers)) for k, v in argument.items()])
    if is_record(argument):
        return kind, tuple([(k, _signature(v, tensors, numbers)) for k, v in fields_of(argument).items()])
    if type(kind.__eq__) is FunctionType and kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
        return kind, id(argument), argument  # objects with their own __eq__ can be equal and still differ in attributes
    return _exact(argument)


def _exact(value: Any) -> Hashable:
    """A key that is equal only for values that no computation can tell apart. To Python 1, 1.0 and True are equal, and 0.0 and -0.0."""
    kind = type(value)
    if kind in (float, complex) or kind.__module__ in ("decimal", "fractions"):
        return kind, repr(value)
    if isinstance(value, tuple):
        return kind, tuple(map(_exact, value))
    if isinstance(value, frozenset):
        return kind, frozenset(map(_exact, value))
    if kind is range:
        return kind, value.start, value.stop, value.step
    return kind, value


def _replace(argument: Any, replacements: _Replacements) -> Any:
    """The argument with the caller's tensors and numbers replaced by the recorder's."""
    if isinstance(argument, (Tensor, np.ndarray)):
        return next(replacements.tensors)
    kind = type(argument)
    if kind is float or kind is int or (kind is not bool and isinstance(argument, (np.floating, np.integer))):
        return next(replacements.numbers)
    if is_named_tuple(argument):
        return kind(*[_replace(a, replacements) for a in argument])
    if isinstance(argument, tuple):
        return kind([_replace(a, replacements) for a in argument])
    if not isinstance(argument, (list, dict)) and not is_record(argument):
        return argument
    copied: Any
    if isinstance(argument, list):
        copied = copy.copy(argument)
        copied[:] = [_replace(a, replacements) for a in argument]
    elif isinstance(argument, dict):
        copied = copy.copy(argument)
        copied.update([(k, _replace(v, replacements)) for k, v in argument.items()])
    else:
        copied = _with_fields(argument, {k: _replace(v, replacements) for k, v in fields_of(argument).items()})
    # a container that is passed twice is copied once, so both arguments stay the same object
    known = replacements.copies.setdefault(id(argument), _CopiedContainer(argument, copied, _content_of(copied)))
    return known.copied


def _without_arrays(argument: Any) -> Any:
    """The argument with NumPy arrays replaced by tensors; the same object if it holds no array."""
    if isinstance(argument, np.ndarray):
        return as_tensor(argument)
    if isinstance(argument, (tuple, list)):
        parts = [_without_arrays(a) for a in argument]
        if all(map(operator.is_, parts, argument)):
            return argument
        return type(argument)(*parts) if is_named_tuple(argument) else type(argument)(parts)
    if isinstance(argument, dict) or is_record(argument):
        values = argument if isinstance(argument, dict) else fields_of(argument)
        items = {key: _without_arrays(value) for key, value in values.items()}
        if all(map(operator.is_, items.values(), values.values())):
            return argument
        if values is not argument:
            return _with_fields(argument, items)
        copied = copy.copy(argument)
        copied.update(items)
        return copied
    return argument


def _holds(result: Any, container: Any) -> bool:
    """Whether a result is a container, or has it among its parts."""
    if result is container:
        return True
    if isinstance(result, (tuple, list)):
        return any(_holds(part, container) for part in result)
    if isinstance(result, dict) or is_record(result):
        return any(_holds(part, container) for part in (result if isinstance(result, dict) else fields_of(result)).values())
    return False


def _own(result: Any, originals: dict[int, Any]) -> Any:
    """The result of a call without a program: the recorder's tensors replaced by the caller's, and each `Number` by its value."""
    if type(result) is Number:
        return result.value
    if id(result) in originals:
        return originals[id(result)]
    if is_named_tuple(result) or type(result) in (tuple, list):
        parts = [_own(part, originals) for part in result]
        if all(map(operator.is_, parts, result)):
            return result
        return type(result)(*parts) if is_named_tuple(result) else type(result)(parts)
    if type(result) in (dict, OrderedDict) or is_record(result):
        values = result if isinstance(result, dict) else fields_of(result)
        owned = {key: _own(part, originals) for key, part in values.items()}
        if all(map(operator.is_, owned.values(), values.values())):
            return result
        return type(result)(owned) if isinstance(result, dict) else _with_fields(result, owned)
    return result


def _used_up_rule(g: Tensor, node: tape.Node) -> NoReturn:
    raise StateError(
        "this value comes from a compiled function that already ran backward inside, so no gradient can flow back through it: "
        "compute the whole loss inside the function, or detach() the value, or call the function under no_grad()"
    )


def _outputs(result: Any, found: list[Tensor], recording: Recorder, known: dict[int, Build]) -> Build:
    """A function that builds a result of this form in each replay; the tensors it needs are appended to ``found``.

    ``known`` maps the id of each tensor so far to its builder, so that a tensor returned twice stays one object.
    """
    if isinstance(result, Tensor):
        if id(result) not in known:
            known[id(result)] = _output(result, found, recording)
        return known[id(result)]
    if type(result) is Number:
        place = result.place
        return lambda outputs, values, sources: values[place]
    if id(result) in recording.reads.snapshots:  # a container of the user, whose content is compared before every replay
        return lambda outputs, values, sources: result
    if type(result) in (tuple, list) or is_named_tuple(result):
        kind: Any = type(result)
        parts = [_outputs(part, found, recording, known) for part in result]
        if is_named_tuple(result):
            return lambda outputs, values, sources: kind(*[part(outputs, values, sources) for part in parts])
        return lambda outputs, values, sources: kind([part(outputs, values, sources) for part in parts])
    if type(result) in (dict, OrderedDict):
        mapping = type(result)
        items = {key: _outputs(value, found, recording, known) for key, value in result.items()}
        return lambda outputs, values, sources: mapping([(key, part(outputs, values, sources)) for key, part in items.items()])
    if is_record(result):
        fields = {name: _outputs(value, found, recording, known) for name, value in fields_of(result).items()}
        empty = _with_fields(result, dict.fromkeys(fields))  # a program keeps no tensor alive that it does not need
        return lambda outputs, values, sources: _with_fields(
            empty, {name: part(outputs, values, sources) for name, part in fields.items()}
        )
    if not isinstance(result, (bool, int, float, str, np.generic, type(None))):
        recording.give_up(
            f"it returns a {type(result).__name__}; a compiled function may return tensors, numbers, strings, None, "
            "and tuples, lists, dicts and dataclasses of these"
        )
    return lambda outputs, values, sources: result


def _output(result: Tensor, found: list[Tensor], recording: Recorder) -> Build:
    """A function that builds one tensor of the result in each replay.

    As in eager mode, an argument, a gradient and a tensor from outside are returned themselves, and a view of an argument becomes a
    view of the caller's tensor. Tensors that the call makes are copied.
    """
    for i, argument in enumerate(recording.arguments):
        if result is argument:
            return lambda outputs, values, sources: sources[i]
    leaf = next((leaf for leaf in recording.leaves.values() if leaf._grad is result), None)
    if leaf is not None:
        return lambda outputs, values, sources: leaf.grad
    if not recording.is_inside(result) and result.node is None:
        recording.uses_tensor(result)
        return lambda outputs, values, sources: result
    get = _getter(result, found, recording)
    if not result.requires_grad:
        return get
    if result.node is None:
        gradient = None if result._grad is None else _getter(result._grad, found, recording)

        def made_leaf(outputs: Sequence[Tensor], values: Sequence[Plain], sources: Sequence[Tensor]) -> Tensor:
            value = get(outputs, values, sources).requires_grad_()
            value._grad = None if gradient is None else gradient(outputs, values, sources)
            return value

        return made_leaf
    # results of a function that runs backward itself are read only, so they may lose their history
    if not recording.ran_backward:
        recording.give_up("it returns a value that requires grad (call it under no_grad(), or run backward inside)")
    node = tape.Node(_used_up_rule, (), (), None, result.sizes)

    def output(outputs: Sequence[Tensor], values: Sequence[Plain], sources: Sequence[Tensor]) -> Tensor:
        value = get(outputs, values, sources)
        value.node = node
        value.needs_grad = True
        return value

    return output


def _getter(tensor: Tensor, found: list[Tensor], recording: Recorder) -> Build:
    """A function that makes this tensor of the call in each replay: a view of the caller's tensor, or an output of the program.

    An output is appended to ``found``.
    """
    shape = tensor.sizes
    strides = tensor.strides
    for i, argument in enumerate(recording.arguments):
        root = tensor.storage
        while root is not argument.storage and isinstance(root.owner, Storage):
            root = root.owner
        if root is argument.storage:
            distance = tensor.offset - argument.offset
            is_view = tensor.base is not None
            is_data = root is not tensor.storage

            def take(outputs: Sequence[Tensor], values: Sequence[Plain], sources: Sequence[Tensor]) -> Tensor:
                made = view(sources[i], shape, strides, sources[i].offset + distance)
                if not is_view:
                    made.base = None
                if is_data:
                    made.storage = made.storage.alias()
                return made

            return take
    if not recording.is_ours(tensor.storage):
        storage = tensor.storage
        offset = tensor.offset
        dtype = tensor.dtype
        return lambda outputs, values, sources: new(storage, shape, strides, offset, dtype)
    found.append(tensor)
    place = len(found) - 1
    return lambda outputs, values, sources: outputs[place]


def call_times(function: Callable[..., R], count: int, *arguments: Any) -> R:
    """Call a function, compiled or not, ``count`` times with the same arguments; return the last result."""
    if isinstance(function, Compiled):
        return function.times(count, *arguments)
    for _ in range(count):
        result = function(*arguments)
    return result


@overload
def compile(model: Callable[P, R], *, disable: Literal[False] = False, **options: Any) -> Compiled[P, R]: ...


@overload
def compile(model: Callable[P, R], *, disable: bool, **options: Any) -> Callable[P, R]: ...


@overload
def compile(model: None = None, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def compile(  # type: ignore[misc]
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: object = None,
    mode: str | None = None,
    options: object = None,
    disable: bool = False,
) -> Callable:
    """Compile a function, as a call or as a decorator: record its launches once and replay them afterwards (see `Compiled`).

    A compiled function that is called while another function is recorded becomes part of that function's program. ``fullgraph``,
    ``dynamic``, ``backend``, ``mode`` and ``options`` are accepted as in PyTorch and have no effect. Returns the function itself
    if ``disable``.
    """
    if model is None:
        return lambda function: compile(function, disable=disable)
    return model if disable else Compiled(model)
