"""Effects and hidden reads of compiled functions: each program here must do in every call what its function does."""

import copy
import ctypes
import functools
import itertools
import os
import queue
import random
import sys
import weakref
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

import rl_lab as rl
from rl_lab import nn

pytestmark = pytest.mark.filterwarnings("ignore::rl_lab.engine.errors.EagerWarning")


def values(make, compiled, calls=5):
    """What ``observe(result, arguments)`` finds after each call; ``make()`` gives the function, ``observe`` and the arguments."""
    function, observe, arguments = make()
    called = rl.compile(function) if compiled else function
    found = []
    for i in range(calls):
        given = arguments(i)
        found.append(observe(called(*given), given))
    return found


def number(i):
    return (rl.tensor([float(i)]),)


def one(i):
    return (rl.ones(1),)


def result(made, arguments):
    return made.tolist() if isinstance(made, rl.Tensor) else made


def of(function, arguments=number):
    return lambda: (function, result, arguments)


# --- arguments by way of data, copies and text -----------------------------------------------------------------------


def written(x):
    x.data.add_(1)
    return x * 1


READS = {
    "data": of(lambda x: x.data * 2),
    "data of a detached tensor": of(lambda x: x.detach().data * 2),
    "data of a part": of(lambda x: x[0].data * 2),
    "a reduction of data": of(lambda x: x.data.mean()),
    "a clone of data": of(lambda x: x.data.clone()),
    "data itself": of(lambda x: x.data),
    "data of data": of(lambda x: x.data.data[0]),
    "a deep copy": of(lambda x: copy.deepcopy(x) * 2),
    "text": of(lambda x: f"{x.mean()} {x!r} {x!s}"),
    "text with a format": of(lambda x: f"{x.mean():.3f}"),
    "writing to data": of(written),
    "the type of a number": of(lambda x, n: x * 2 if type(n) is float else x * 3, lambda i: (rl.ones(1), 0.5 + i)),
}


# --- attributes of tensors -------------------------------------------------------------------------------------------


def gradient_kept():
    p = nn.Parameter(rl.ones(1))

    def keep(g):
        p.grad = g
        return g * 1

    return keep, lambda made, given: p.grad.tolist(), number


def set_on_argument(name, value):
    def make():
        def change(x):
            setattr(x, name, value() if callable(value) else value)
            return (x * 1).detach()

        def observe(made, given):
            found = getattr(given[0], name)
            return found.tolist() if isinstance(found, rl.Tensor) else found

        return change, observe, number

    return make


# --- modes -----------------------------------------------------------------------------------------------------------


def modes(inside, outside):
    def make():
        net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))

        def act(x):
            made = [net.train(mode)(x).detach() if mode is False else net.train(mode) for mode in inside]
            return made[0] * 0

        def arguments(i):
            if i >= 2:
                net.train(outside)
            return number(0)

        return act, lambda made, given: net.training, arguments

    return make


def gradients_off():
    def turn(x):
        rl.set_grad_enabled(False)
        return x * 1

    def observe(made, given):
        found = rl.is_grad_enabled()
        rl.set_grad_enabled(True)
        return found

    return turn, observe, number


# --- methods written in C, and other state that is not seen ------------------------------------------------------------


def appended(container, method):
    def make():
        held = container()
        add = getattr(held, method)
        part = [1] if method == "extend" else 1

        def call(x):
            add(part)
            return x * 1

        return call, lambda made, given: held.qsize() if hasattr(held, "qsize") else len(held), one

    return make


def bound_to_part():
    held = []
    add = functools.partial(held.append, 1)

    def call(x):
        add()
        return x * 1

    return call, lambda made, given: len(held), one


def queued():
    held = queue.SimpleQueue()

    def call(x):
        held.put(1)
        return x * 1

    return call, lambda made, given: held.qsize(), one


def looked_up(method):
    def make():
        held = {"rate": 0.0}
        get = getattr(held, method)

        def arguments(i):
            held["rate"] = float(i)
            return one(i)

        return (lambda x: x * get("rate")), result, arguments

    return make


def drawn(source):
    def make():
        draw = source()
        return (lambda x: x * draw()), result, one

    return make


class Holder:
    rate = 0.0


def referred():
    held = Holder()
    reference = weakref.ref(held)

    def arguments(i):
        held.rate = float(i)
        return one(i)

    return (lambda x: x * reference().rate), result, arguments


def in_c():
    held = ctypes.c_double(0)

    def arguments(i):
        held.value = float(i)
        return one(i)

    return (lambda x: x * held.value), result, arguments


def stop_file(exists):
    def make(folder=[]):  # noqa: B006  one path for both runs
        path = folder[0] if folder else Path(os.environ["PYTEST_CURRENT_TEST_FOLDER"]) / "stop"

        def arguments(i):
            path.touch() if i % 2 else path.unlink(missing_ok=True)
            return one(i)

        return (lambda x: x * (2 if exists(path) else 3)), result, arguments

    return make


class Alike:
    """Equal to everything of its class."""

    def __init__(self, rate):
        self.rate = rate

    def __eq__(self, other):
        return isinstance(other, Alike)

    def __hash__(self):
        return 1


PROGRAMS = READS | {
    "a gradient that is an argument": gradient_kept,
    "data of an argument": set_on_argument("data", lambda: rl.tensor([9.0])),
    "gradient of an argument": set_on_argument("grad", lambda: rl.tensor([9.0])),
    "requires_grad of an argument": set_on_argument("requires_grad", True),
    "eval inside": modes([False], True),
    "eval and train inside": modes([False, True], False),
    "gradients turned off": gradients_off,
    "append": appended(list, "append"),
    "extend": appended(list, "extend"),
    "append to a deque": appended(deque, "append"),
    "add to a set": appended(set, "add"),
    "put into a queue": appended(queue.SimpleQueue, "put"),
    "a partial": bound_to_part,
    "a queue": queued,
    "get": looked_up("get"),
    "item": looked_up("__getitem__"),
    "Python's random numbers": drawn(lambda: random.Random(0).random),
    "a counter": drawn(lambda: itertools.count().__next__),
    "a weak reference": referred,
    "a number in C": in_c,
    "a path that exists": stop_file(lambda path: path.exists()),
    "a file that exists": stop_file(lambda path: os.path.exists(path)),
    "an argument that equals others": of(lambda x, held: x * held.rate, lambda i: (rl.ones(1), Alike(float(i)))),
    "a namespace": of(lambda x, held: x * held.rate, lambda i: (rl.ones(1), SimpleNamespace(rate=float(i)))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_compiled_function_does_what_the_function_does(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_TEST_FOLDER", str(tmp_path))
    assert values(PROGRAMS[name], True, 8) == values(PROGRAMS[name], False, 8)


def test_data_and_locks_do_not_end_a_recording():
    """What a replay can repeat is still replayed."""

    def update(x):
        return (x.data * 2, copy.deepcopy(x).data + 1)

    compiled = rl.compile(update)
    for i in range(3):
        compiled(rl.tensor([float(i)]))
    assert compiled.why is None
    assert len(compiled.programs) == 1


def test_an_import_inside_does_not_end_a_recording():
    """The import looks for files, but the function does not depend on them afterwards."""
    sys.modules.pop("colorsys", None)

    def scaled(x):
        import colorsys

        return x * colorsys.ONE_THIRD

    compiled = rl.compile(scaled)
    for i in range(3):
        compiled(rl.tensor([float(i)]))
    assert compiled.why is None
