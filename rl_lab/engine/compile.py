"""`compile`: record the launches of one call of a function and replay them natively afterwards."""

import functools
import operator
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.errors import RecordingError
from rl_lab.engine.launch import record_with, recorder, structure, user_line
from rl_lab.engine.memory import private_pool
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor
from rl_lab.engine.program import Program, Recorder, copy_bytes, same_layout
from rl_lab.engine.tensor import TensorCore, empty
from rl_lab.native.primitive import Primitive

KEEP_PROGRAMS = 8  # of one combination of arguments: where gradients come and go, each state of them needs a program


class Compiled:
    """A function with a program for each combination of its tensors' shapes and dtypes and its other arguments.

    The first call with a new combination runs the function as it is and records its launches; further calls replay them, bitwise
    equal. Tensor and array arguments are copied in, tensors in the result are copies; all other arguments are static and must be
    hashable. Everything else that the function touches, such as parameters, optimiser state, random streams and replay storage, is
    worked on in place. Reading a value while recording raises RecordingError.

    What the function does in Python happens when it is recorded and not in a replay: an attribute that it rebinds, a list that it
    appends to, a hook added later. Keep what changes from call to call in tensors that are written to in place.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self._function = function
        self._entries: dict[Any, list[tuple[Program, Callable]]] = {}
        self._structure = structure.version
        self._replaying = threading.Lock()
        self._short: tuple[Any, ...] = (None,) * 5  # a policy's way: the last program that is a function, and of what

    @property
    def programs(self) -> list[Program]:
        """The programs recorded so far."""
        return [program for entries in self._entries.values() for program, _ in entries]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        raise TypeError(
            "compile a bound method in __init__ (self.update = rl.compile(self.update)), not the function in the class"
        )

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if recorder() is not None:
            return self._function(*arguments, **keywords)
        if len(arguments) == 1 and type(x := arguments[0]) is Tensor and not keywords:
            run, shape, dtype, grad, version = self._short
            if (
                x.shape == shape
                and x.dtype is dtype
                and x.strides is x.base is None
                and not x.needs_grad
                and tape.modes.grad is grad
                and structure.version == version
            ):
                with self._replaying:
                    return run(x)
        key, tensors, entries = self._entries_for(arguments, keywords)
        if entries is not None:
            with self._replaying:
                for program, rebuild in entries:
                    if program.fits():
                        return rebuild(program.run(tensors))
        return self._record(key, arguments, keywords, tensors)

    def run_within(self, primitive: Primitive, arguments: tuple, row: Callable[[Program], bytes]) -> bool:
        """Run a primitive that replays the program of a call with these arguments: see `Program.run_within`.

        ``row`` makes the primitive's row for the program. False, and nothing done, if there is no program yet.
        """
        _, _, entries = self._entries_for(arguments, {})
        with self._replaying:
            for program, _ in entries or ():
                if program.fits():
                    program.run_within(primitive, row(program))
                    return True
        return False

    def times(self, count: int, *arguments: Any) -> Any:
        """Call ``count`` times with the same arguments in one native call; returns the last result."""
        if count < 1:
            raise ValueError(f"a function is called at least once, not {count} times")
        result = None
        while count > 1 and recorder() is None:
            key, tensors, entries = self._entries_for(arguments, {})
            with self._replaying:
                for program, rebuild in entries or ():
                    if program.fits():
                        return rebuild(program.run_times(tensors, count))
            result = self._record(key, arguments, {}, tensors)
            count -= 1
        for _ in range(count):
            result = self(*arguments)
        return result

    def _entries_for(self, arguments: tuple, keywords: dict[str, Any]) -> tuple[Any, list[Any], Any]:
        """The key of a call, the tensors in it, and its programs if there are any."""
        if self._structure != structure.version:
            self._entries.clear()
            self._short = (None,) * 5
            self._structure = structure.version
        tensors: list[Any] = []
        if len(arguments) == 1 and type(x := arguments[0]) is Tensor and not x.requires_grad:
            tensors.append(x)  # the commonest call, a policy's, without the general walk
            key: Any = (tape.modes.grad, (x.shape, x.strides, x.dtype))
        else:
            key = (tape.modes.grad, *[_signature(a, tensors) for a in arguments])
        if keywords:
            key = (key, tuple([(name, _signature(value, tensors)) for name, value in keywords.items()]))
        return key, tensors, self._entries.get(key)

    def _record(self, key: Any, arguments: tuple, keywords: dict[str, Any], tensors: list[Any]) -> Any:
        recording = Recorder()
        with private_pool(recording.pool):
            inputs = [same_layout(tensor) for tensor in tensors]
        for target, source in zip(inputs, tensors, strict=True):
            copy_bytes(target, source)
        replaced = iter(inputs)
        arguments = tuple([_replace(a, replaced) for a in arguments])
        keywords = {name: _replace(value, replaced) for name, value in keywords.items()}
        version = structure.version
        with private_pool(recording.pool), record_with(recording):
            result = self._function(*arguments, **keywords)
            outputs: list[Any] = []
            rebuild = _outputs(result, outputs)
            with tape.no_grad():
                outputs = [output.detach().contiguous() for output in outputs]
        if version != structure.version:
            # the call made or replaced a part, as a lazy layer does: the next one may do something else
            return rebuild([_copy(output) for output in outputs])
        _forget_inner_leaves(recording)
        program = Program(recording, inputs, outputs)
        weakref.finalize(program, recording.pool.clear).atexit = False
        results = [_copy(output) for output in outputs]  # before another thread can find the program and run it
        entries = self._entries.setdefault(key, [])
        entries.append((program, rebuild))
        alone = isinstance(result, TensorCore) and len(arguments) == 1 and arguments[0] is inputs[0]
        if alone and program.is_function and inputs[0].strides is None:
            self._short = (program.run_function, inputs[0].shape, inputs[0].dtype, tape.modes.grad, version)
        del entries[:-KEEP_PROGRAMS]
        return rebuild(results)


def _signature(argument: Any, tensors: list[Any]) -> Any:
    """What distinguishes an argument's program from others; tensors in it are appended to ``tensors``, without gaps."""
    if isinstance(argument, TensorCore):
        if argument.requires_grad and tape.modes.grad:
            raise RecordingError(
                f"an argument of a compiled function requires grad, at {user_line()}: run backward inside the function, or detach it"
            )
        tensors.append(argument)
        # strides, too: another layout is another kernel, which may round differently
        return argument.shape, argument.strides, argument.dtype
    if isinstance(argument, np.ndarray):
        return _signature(as_tensor(argument), tensors)
    if isinstance(argument, (tuple, list)):
        return type(argument), tuple([_signature(a, tensors) for a in argument])
    if isinstance(argument, dict):
        return dict, tuple([(k, _signature(v, tensors)) for k, v in argument.items()])
    if type(argument) is float:
        return float, argument.hex()  # tells -0.0 from 0.0, and nan equals nan
    return type(argument), argument


def _replace(argument: Any, inputs: Any) -> Any:
    """The argument with the program's own tensors in place of the caller's."""
    if isinstance(argument, (TensorCore, np.ndarray)):
        return next(inputs)
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return type(argument)(*[_replace(a, inputs) for a in argument])
    if isinstance(argument, (tuple, list)):
        return type(argument)([_replace(a, inputs) for a in argument])
    if isinstance(argument, dict):
        return {k: _replace(v, inputs) for k, v in argument.items()}
    return argument


def _forget_inner_leaves(recording: Recorder) -> None:
    """Leaves that the function makes itself are new in every eager call: their gradients are not what a program depends on."""
    for key, leaf in list(recording.leaves.items()):
        if recording._is_ours(leaf.storage):
            del recording.leaves[key]
            recording.expected_grads.pop(key, None)


def _copy(output: Any) -> Any:
    result = empty(output.shape, output.dtype)
    copy_bytes(result, output)
    return result


def _outputs(result: Any, found: list[Any]) -> Callable[[list[Any]], Any]:
    """How to build a result of this form from its tensors, which are appended to ``found``."""
    if isinstance(result, TensorCore):
        position = len(found)
        found.append(result)
        return operator.itemgetter(position)
    if isinstance(result, (tuple, list)):
        parts = [_outputs(part, found) for part in result]
        if hasattr(result, "_fields"):
            return lambda outputs: type(result)(*[part(outputs) for part in parts])
        return lambda outputs: type(result)([part(outputs) for part in parts])
    if isinstance(result, dict):
        items = {key: _outputs(value, found) for key, value in result.items()}
        return lambda outputs: {key: part(outputs) for key, part in items.items()}
    if not isinstance(result, (bool, int, float, str, np.generic, type(None))):
        raise RecordingError(
            f"a compiled function returned a {type(result).__name__}, at {user_line()}: return tensors, numbers, strings, None, "
            "or tuples, lists and dicts of them, whose tensors can be copied"
        )
    return lambda outputs: result


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
