"""`compile`: record the launches of one call of a function and replay them natively afterwards."""

import copy
import functools
import operator
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.errors import EagerWarning, StateError
from rl_lab.engine.launch import changes, record_with, recorder, user_line
from rl_lab.engine.memory import private_pool
from rl_lab.engine.number import Number, same_number
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.program import Program, Recorder, copy_of
from rl_lab.engine.reads import fields_of, is_record
from rl_lab.engine.tensor import TensorCore, new, view
from rl_lab.engine.watch import watching
from rl_lab.native.primitive import Primitive

KEEP_PROGRAMS = 8  # of one kind of call: those used longest ago are dropped
KEEP_ALL = 32  # of one function
KEEP_SITES = 64  # kinds of calls of one function that are remembered
TRIES = 3  # recordings of one kind of call, none of which could be replayed, before calls of this kind run eagerly
PAUSE = 64  # calls that then run eagerly before recording is tried again

Build = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Any]
"""Builds a result from its tensors, the values of the program's numbers, and the tensors among the arguments."""


class Recorded(NamedTuple):
    """A program, how to build its result, and the numbers among the arguments for which it is good (None for any)."""

    program: Program
    build: Build
    numbers: tuple[Any, ...]


class Site:
    """One kind of call: its programs, and which numbers among the arguments have been seen to vary."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []
        self.last: tuple[Any, ...] | None = None
        self.varying: list[bool] = []
        self.eager = 0
        """How many more calls run eagerly before recording is tried again; -1 for all."""
        self.vain = 0
        """Recordings since the last replay."""
        self.failures = 0

    def note(self, numbers: Sequence[Any]) -> list[bool]:
        """Which of the numbers vary, now that these have been seen too. The list is the caller's: other threads note others."""
        last = numbers if self.last is None else self.last
        varying = self.varying or [False] * len(numbers)
        self.varying = [v or not same_number(a, b) for v, a, b in zip(varying, numbers, last, strict=True)]
        self.last = tuple(numbers)
        return self.varying.copy()

    def find(self, tensors: Sequence[Any], numbers: Sequence[Any]) -> Recorded | None:
        """A program that does what the function would do now."""
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


class Compiled:
    """A function with a program for each combination of its tensors' shapes and dtypes and its other arguments.

    A call does what the function does. The first call with a new combination runs the function and records its launches; further
    calls replay them, bitwise equal. NumPy arrays among the arguments are passed to the function as tensors; tensors in the result
    are copies. What the function writes into its arguments is written to the caller's. Python numbers that vary from call to call
    become inputs of the program; all other arguments are static and must be hashable. Tuples, lists, dicts and dataclasses of
    tensors and numbers may be arguments and results. What the function read besides, such as attributes, globals and the structure
    of modules, is looked at before every replay: if something has changed, the call is recorded again.

    A function that cannot be recorded, such as one that reads a tensor's value, runs eagerly. It says so once, in an `EagerWarning`
    with the line and the reason, and ``why`` keeps the text. An index out of bounds raises IndexError; the failing call has then
    changed nothing.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self._function = function
        self._sites: dict[Any, Site] = {}
        self._replaying = threading.RLock()
        self._short: tuple[Any, ...] = (None,) * 5  # a policy's way: the last program that is a function, and of what
        self._uses = 0
        self._unused = 0
        self.why: str | None = None
        """Why calls run eagerly; None if they do not."""

    @property
    def programs(self) -> list[Program]:
        """The programs recorded so far and not dropped."""
        return [recorded.program for site in list(self._sites.values()) for recorded in site.recorded]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        raise TypeError(
            "compile a bound method in __init__ (self.update = rl.compile(self.update)), not the function in the class"
        )

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if recorder() is not None:
            return self._function(*arguments, **keywords)
        if len(arguments) == 1 and type(x := arguments[0]) is Tensor and not keywords:
            program, run, shape, dtype, grad = self._short
            if (
                x.sizes == shape
                and x.dtype is dtype
                and x.strides is x.base is x._grad is None
                and not x.needs_grad
                and tape.modes.grad is grad
                and program.checked_at == changes.count
                and ((reads := program.reads) is None or reads())
            ):
                with self._replaying:
                    return run(x)
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
        """Run a primitive that replays the program of a call with these arguments: see `Program.run_within`.

        ``row`` makes the primitive's row from the program and a function that gives the result, in the program's own tensors.
        False, and nothing done, if there is no program yet.
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

    def times(self, count: int, *arguments: Any) -> Any:
        """Call ``count`` times with the same arguments, in one native call if possible; returns the last result."""
        if count < 1:
            raise ValueError(f"a function is called at least once, not {count} times")
        result = None
        while count:
            if count > 1 and recorder() is None:
                key, tensors, numbers, reason = self._look(arguments, {})
                site = self._sites.get(key)
                if reason is None and site is not None:
                    with self._replaying:
                        recorded = site.find(tensors, numbers)
                        if recorded is not None and recorded.program.repeatable:
                            program = recorded.program
                            self._note_use(site, program)
                            return recorded.build(program.run_times(tensors, count), program.values, tensors)
            result = self(*arguments)
            count -= 1
        return result

    # --- which program -----------------------------------------------------------------------------------------------

    def _look(self, arguments: tuple, keywords: dict[str, Any]) -> tuple[Any, list[Any], list[Any], str | None]:
        """The key of a call, its tensors and numbers, and why it must run eagerly (None if it need not)."""
        tensors: list[Any] = []
        numbers: list[Any] = []
        if not arguments and not keywords:
            return (tape.modes.grad,), tensors, numbers, None
        if len(arguments) == 1 and type(x := arguments[0]) is Tensor:
            tensors.append(x)  # the commonest call, a policy's, without the general walk
            key: Any = (tape.modes.grad, (x.sizes, x.strides, x.dtype))
        else:
            key = (tape.modes.grad, *[_signature(a, tensors, numbers) for a in arguments])
        if keywords:
            key = (key, tuple([(name, _signature(value, tensors, numbers)) for name, value in keywords.items()]))
        for tensor in tensors:
            if tensor.requires_grad or tensor._grad is not None:
                return key, tensors, numbers, "an argument requires grad (detach it, or differentiate inside the function)"
        return key, tensors, numbers, None

    def _note_use(self, site: Site, program: Program) -> None:
        self._uses = program.last_use = self._uses + 1
        site.vain = self._unused = 0

    def _call_unrecorded(
        self, key: Any, site: Site | None, arguments: tuple, keywords: dict[str, Any], tensors: list[Any], numbers: list[Any]
    ) -> Any:
        """A call for which there is no program: record it, or run it eagerly where recording is in vain."""
        if site is None:
            site = Site()
            with self._replaying:
                self._sites[key] = site
                while len(self._sites) > KEEP_SITES:
                    oldest = next((k for k, s in self._sites.items() if not s.recorded), None)
                    if oldest is None or oldest == key:
                        break
                    del self._sites[oldest]
            if self._unused >= KEEP_ALL:  # calls of ever new kinds: one is recorded when it comes again
                return self._run_eagerly(None, arguments, keywords)
        if site.eager:
            site.eager -= site.eager > 0
            return self._run_eagerly(None, arguments, keywords)
        return self._record(site, arguments, keywords, tensors, numbers)

    def _run_eagerly(self, reason: str | None, arguments: tuple, keywords: dict[str, Any]) -> Any:
        if reason is not None:
            self._tell(f"{reason}, at {user_line()}")
        arguments = tuple(map(_without_arrays, arguments))
        return self._function(*arguments, **{name: _without_arrays(value) for name, value in keywords.items()})

    def _tell(self, reason: str) -> None:
        """Say once why the function runs eagerly."""
        first, self.why = self.why is None, reason
        if first:
            name = getattr(self._function, "__qualname__", type(self._function).__name__)
            warnings.warn(f"{name} is compiled, but runs eagerly: {reason}", EagerWarning, stacklevel=_levels_up())

    # --- recording ---------------------------------------------------------------------------------------------------

    def _record(self, site: Site, arguments: tuple, keywords: dict[str, Any], tensors: list[Any], numbers: list[Any]) -> Any:
        varies = site.note(numbers)
        known = tuple([None if v else n for n, v in zip(numbers, varies, strict=True)])
        recording = Recorder(tensors, [n for n, v in zip(numbers, varies, strict=True) if v])
        varying = iter(recording.expressions.inputs)
        given = iter([next(varying) if v else n for n, v in zip(numbers, varies, strict=True)])
        replaced = _Replacements(iter(recording.arguments), given, {})
        originals = dict(zip(map(id, recording.arguments), tensors, strict=True))
        arguments = tuple([_replace(a, replaced) for a in arguments])
        keywords = {name: _replace(value, replaced) for name, value in keywords.items()}
        version = changes.count
        build: Build | None = None
        outputs: list[Any] = []
        try:
            with private_pool(recording.pool), record_with(recording):
                with watching(recording, self._function, (arguments, keywords)):
                    result = self._function(*arguments, **keywords)
                if recording.reason is None:
                    recording.forget_inner()
                    build = _outputs(result, outputs, recording, {})
                    outputs = [output.detach() for output in outputs]
        except BaseException:
            if recording.reason is None:
                recording.undo()
            else:  # not all that has changed was noted: the call fails as an eager one does, half-way
                _take_back(replaced.copies.values(), originals)
                self._tell(recording.reason)
            recording.pool.retire()
            raise
        finally:
            recording.finish()
        if _take_back(replaced.copies.values(), originals) and recording.reason is None:
            recording.reason = "it changes a list, a dict or a dataclass among its arguments"
        alone = len(arguments) == 1 and not keywords and isinstance(arguments[0], TensorCore)
        del arguments, keywords, replaced, given
        program = None
        if recording.reason is None and build is not None:
            values = list(recording.expressions.values)
            program = self._program_of(recording, outputs, tensors)
        if program is None or build is None:
            result = _own(result, originals)
            recording.expressions.close()
            self._give_up(site, recording)
            return result
        results = [copy_of(output) for output in outputs]  # before another thread can find the program and run it
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
            plain = isinstance(result, TensorCore) and not result.requires_grad
            if alone and plain and program.is_function and program.inputs[0].strides is None:
                self._short = (program, program.run_function, program.inputs[0].sizes, program.inputs[0].dtype, tape.modes.grad)
        return made

    def _program_of(self, recording: Recorder, outputs: list[Any], tensors: list[Any]) -> Program | None:
        """The program of a recording; None, and a reason in the recording, if a replay would not do what the function does."""
        changed = recording.changed_itself()
        if changed is None and recording.failed:
            changed = "it catches an error that a kernel reports"
        if changed is not None:
            recording.reason = changed
            return None
        program = Program(recording, outputs)
        weakref.finalize(program, recording.pool.retire).atexit = False
        if program.meets_outside(tensors):
            recording.reason = "an argument shares memory with a tensor that the function uses besides"
            return None
        return program

    def _give_up(self, site: Site, recording: Recorder) -> None:
        """A recording led to no program: the first calls may make parts, but if it happens again and again, say so."""
        recording.pool.retire()
        site.failures += 1
        assert recording.reason is not None
        if recording.stopped or site.failures >= TRIES:
            self._tell(recording.reason)
        if site.failures >= TRIES - recording.stopped:
            site.eager = -1 if recording.stopped else PAUSE

    def _tell_vain(self, site: Site) -> None:
        site.eager = PAUSE
        site.vain = 0
        self._tell("what it depends on changes from call to call, so that no recording could be replayed")

    def _drop_oldest(self, site: Site) -> None:
        """Keep no more programs than `KEEP_PROGRAMS` of a kind of call and `KEEP_ALL` of all kinds, those used last."""

        def last_use(entry: tuple[Site, Recorded]) -> int:
            return entry[1].program.last_use

        for sites, limit in (([site], KEEP_PROGRAMS), (list(self._sites.values()), KEEP_ALL)):
            kept = sorted(((s, recorded) for s in sites for recorded in s.recorded), key=last_use)
            for owner, oldest in kept[: max(0, len(kept) - limit)]:
                owner.recorded.remove(oldest)
                if self._short[0] is oldest.program:
                    self._short = (None,) * 5


class _Copy(NamedTuple):
    """A container among the arguments, its copy with the recorder's tensors and numbers, and the copy's content at first."""

    theirs: Any
    copied: Any
    content: list[Any]


class _Replacements(NamedTuple):
    """The recorder's tensors and numbers in order, and the containers that were copied, by the id of the caller's."""

    tensors: Iterator[Any]
    numbers: Iterator[Any]
    copies: dict[int, _Copy]


def _with_fields(record: Any, values: dict[str, Any]) -> Any:
    """A copy of a dataclass with other values in its fields, frozen or not."""
    made = copy.copy(record)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _content_of(container: Any) -> list[Any]:
    if is_record(container):
        container = fields_of(container)
    return [part for item in container.items() for part in item] if isinstance(container, dict) else list(container)


def _take_back(copies: Iterable[_Copy], originals: dict[int, Any]) -> bool:
    """Do to the caller's containers what the function did to their copies; tells whether it did anything."""
    changed = False
    for theirs, copied, content in copies:
        now = _content_of(copied)
        if len(now) == len(content) and all(map(operator.is_, now, content)):
            continue
        changed = True
        if isinstance(theirs, dict):
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
    """How many frames above `warnings.warn` the user's code is."""
    import sys

    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "rl_lab":
        frame, level = frame.f_back, level + 1
    return level


def _signature(argument: Any, tensors: list[Any], numbers: list[Any]) -> Any:
    """What distinguishes an argument's programs from others; tensors and numbers in it are appended to the lists."""
    if isinstance(argument, TensorCore):
        tensors.append(argument)
        # strides, too: another layout is another kernel, which may round differently
        return argument.sizes, argument.strides, argument.dtype
    kind = type(argument)
    if kind is float or kind is int or (kind is not bool and isinstance(argument, (np.floating, np.integer))):
        numbers.append(argument)
        return kind
    if isinstance(argument, np.ndarray):
        return _signature(as_tensor(argument), tensors, numbers)
    if isinstance(argument, (tuple, list)):
        return kind, tuple([_signature(a, tensors, numbers) for a in argument])
    if isinstance(argument, dict):
        return kind, tuple([(k, _signature(v, tensors, numbers)) for k, v in argument.items()])
    if is_record(argument):
        return kind, tuple([(k, _signature(v, tensors, numbers)) for k, v in fields_of(argument).items()])
    return kind, argument


def _replace(argument: Any, replacements: _Replacements) -> Any:
    """The argument with the recorder's tensors and numbers in place of the caller's."""
    if isinstance(argument, (TensorCore, np.ndarray)):
        return next(replacements.tensors)
    kind = type(argument)
    if kind is float or kind is int or (kind is not bool and isinstance(argument, (np.floating, np.integer))):
        return next(replacements.numbers)
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return kind(*[_replace(a, replacements) for a in argument])
    if isinstance(argument, tuple):
        return kind([_replace(a, replacements) for a in argument])
    if not isinstance(argument, (list, dict)) and not is_record(argument):
        return argument
    if isinstance(argument, list):
        copied: Any = copy.copy(argument)
        copied[:] = [_replace(a, replacements) for a in argument]
    elif isinstance(argument, dict):
        copied = copy.copy(argument)
        copied.update([(k, _replace(v, replacements)) for k, v in argument.items()])
    else:
        copied = _with_fields(argument, {k: _replace(v, replacements) for k, v in fields_of(argument).items()})
    # of a container that is passed twice the function gets one copy
    known = replacements.copies.setdefault(id(argument), _Copy(argument, copied, _content_of(copied)))
    return known.copied


def _without_arrays(argument: Any) -> Any:
    """The argument with tensors in place of NumPy arrays; itself if there are none in it."""
    if isinstance(argument, np.ndarray):
        return as_tensor(argument)
    if isinstance(argument, (tuple, list)):
        parts = [_without_arrays(a) for a in argument]
        if all(map(operator.is_, parts, argument)):
            return argument
        return type(argument)(*parts) if hasattr(argument, "_fields") else type(argument)(parts)
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


def _own(result: Any, originals: dict[int, Any]) -> Any:
    """The result of a call that was recorded in vain, with the caller's tensors and plain numbers in place of the recorder's."""
    if type(result) is Number:
        return result.value
    if isinstance(result, TensorCore):
        return originals.get(id(result), result)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*[_own(part, originals) for part in result])
    if type(result) in (tuple, list):
        return type(result)([_own(part, originals) for part in result])
    if type(result) in (dict, OrderedDict):
        return type(result)([(key, _own(part, originals)) for key, part in result.items()])
    if is_record(result):
        return _with_fields(result, {name: _own(part, originals) for name, part in fields_of(result).items()})
    return result


def _used_up_rule(g: Any, node: tape.Node) -> Any:
    raise StateError(
        "this value was returned by a compiled function that runs backward inside, and carries no gradient out of it: compute the "
        "whole loss inside, or detach() the value, or call the function under no_grad()"
    )


def _outputs(result: Any, found: list[Any], recording: Recorder, known: dict[int, Build]) -> Build:
    """How to build a result of this form from its tensors, which are appended to ``found``.

    ``known`` are the tensors of the result so far, by id: what is returned twice is one object.
    """
    if isinstance(result, TensorCore):
        if id(result) not in known:
            known[id(result)] = _output(result, found, recording)
        return known[id(result)]
    if type(result) is Number:
        place = result.place
        return lambda outputs, values, sources: values[place]
    if type(result) in (tuple, list) or (isinstance(result, tuple) and hasattr(result, "_fields")):
        kind, parts = type(result), [_outputs(part, found, recording, known) for part in result]
        if hasattr(result, "_fields"):
            return lambda outputs, values, sources: kind(*[part(outputs, values, sources) for part in parts])
        return lambda outputs, values, sources: kind([part(outputs, values, sources) for part in parts])
    if type(result) in (dict, OrderedDict):
        mapping, items = type(result), {key: _outputs(value, found, recording, known) for key, value in result.items()}
        return lambda outputs, values, sources: mapping([(key, part(outputs, values, sources)) for key, part in items.items()])
    if is_record(result):
        fields = {name: _outputs(value, found, recording, known) for name, value in fields_of(result).items()}
        empty = _with_fields(result, dict.fromkeys(fields))  # a program keeps no tensor alive that it does not need
        return lambda outputs, values, sources: _with_fields(
            empty, {name: part(outputs, values, sources) for name, part in fields.items()}
        )
    if not isinstance(result, (bool, int, float, str, np.generic, type(None))):
        recording.give_up(
            f"it returns a {type(result).__name__} (tensors, numbers, strings, None, and tuples, lists, dicts and "
            "dataclasses of them can be copied)"
        )
    return lambda outputs, values, sources: result


def _output(result: Any, found: list[Any], recording: Recorder) -> Build:
    """How to build a tensor of the result.

    An argument, a gradient and a tensor from outside are returned themselves, as in eager mode; a view of an argument is one of the
    caller's tensor. What the call makes is copied.
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

        def made_leaf(outputs: Sequence[Any], values: Sequence[Any], sources: Sequence[Any]) -> Any:
            value = get(outputs, values, sources).requires_grad_()
            value._grad = None if gradient is None else gradient(outputs, values, sources)
            return value

        return made_leaf
    if not recording.ran_backward:  # a step computes its gradients itself, so its results are looked at and no more
        recording.give_up("it returns a value that requires grad (call it under no_grad(), or run backward inside)")
    node = tape.Node(_used_up_rule, (), (), None, result.sizes)

    def output(outputs: Sequence[Any], values: Sequence[Any], sources: Sequence[Any]) -> Any:
        value = get(outputs, values, sources)
        value.node, value.needs_grad = node, True
        return value

    return output


def _getter(tensor: Any, found: list[Any], recording: Recorder) -> Build:
    """How to get a tensor that the call makes: a view of the caller's tensor, or one of the outputs, to which it is added."""
    for i, argument in enumerate(recording.arguments):
        if tensor.storage is argument.storage:
            shape, strides, distance = tensor.sizes, tensor.strides, tensor.offset - argument.offset
            is_view = tensor.base is not None

            def take(outputs: Sequence[Any], values: Sequence[Any], sources: Sequence[Any]) -> Any:
                made = view(sources[i], shape, strides, sources[i].offset + distance)
                if not is_view:
                    made.base = None
                return made

            return take
    if not recording.is_ours(tensor.storage):
        storage, shape, strides, offset, dtype = tensor.storage, tensor.sizes, tensor.strides, tensor.offset, tensor.dtype
        return lambda outputs, values, sources: new(storage, shape, strides, offset, dtype)
    found.append(tensor)
    place = len(found) - 1
    return lambda outputs, values, sources: outputs[place]


def call_times(function: Callable, count: int, *arguments: Any) -> Any:
    """Call a function, compiled or not, ``count`` times with the same arguments and return the last result."""
    if isinstance(function, Compiled):
        return function.times(count, *arguments)
    for _ in range(count):
        result = function(*arguments)
    return result


def compile(
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
) -> Any:
    """Make a `Compiled` of a function; usable as a decorator. A compiled function inside another is recorded into it.

    ``fullgraph``, ``dynamic``, ``backend``, ``mode`` and ``options`` are accepted as in PyTorch and change nothing. With ``disable``
    the function itself is returned.
    """
    if model is None:
        return lambda function: compile(function, disable=disable)
    return model if disable else Compiled(model)
