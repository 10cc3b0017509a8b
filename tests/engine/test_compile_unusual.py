"""Unusual Python in compiled functions: reads, effects and identities that a replay would miss are noticed, or the call runs eagerly.

Each function is called compiled and eagerly, with a change of the state between the calls: results and effects must be the same.
"""

import functools
import gc
import json
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import rl_lab as rl

pytestmark = pytest.mark.filterwarnings("ignore::rl_lab.errors.EagerWarning")


class Plain:
    """An object with attributes."""

    def __init__(self, **attributes: Any):
        self.__dict__.update(attributes)


class Slotted:
    __match_args__ = ("k",)
    __slots__ = ("k",)

    def __init__(self, k: float):
        self.k = k


class Renaming:
    """Finds k under another name."""

    def __init__(self) -> None:
        self._k = 1.0

    def __getattribute__(self, name):
        return object.__getattribute__(self, "_k" if name == "k" else name)


@dataclass(frozen=True, eq=False)
class Frozen:
    k: float = 1.0
    dirty: bool = False


read_attribute = getattr


def matched(o, x):
    match o:
        case Plain(k=k):
            return x * k
        case Slotted(k):
            return x * k
    raise AssertionError


def in_the_body_of_a_class(o, x):
    class Body:
        k = o.k

    return x * Body.k


def replaced(o):
    o.__dict__ = {"k": 5.0}


def changed(o):
    o.k = 5.0


def renamed(o):
    o._k = 5.0


READS: dict[str, tuple[Any, Any, Any]] = {
    "a class pattern": (lambda: Plain(k=1.0), matched, changed),
    "a class pattern with slots": (lambda: Slotted(1.0), matched, changed),
    "another __dict__": (lambda: Plain(k=1.0), lambda o, x: x * o.k, replaced),
    "__getattribute__ of a class": (Renaming, lambda o, x: x * o.k, renamed),
    "object.__getattribute__": (lambda: Plain(k=1.0), lambda o, x: x * object.__getattribute__(o, "k"), changed),
    "format": (lambda: Plain(k=1.0), lambda o, x: x * float(f"{o.k}"), changed),
    "format of a list": (lambda: [1.0], lambda o, x: x * float(f"{o[0]}"), lambda o: o.__setitem__(0, 5.0)),
    "format_map": (lambda: {"k": Plain(v=1.0)}, lambda o, x: x * float("{k.v}".format_map(o)), lambda o: setattr(o["k"], "v", 5.0)),
    "getattr by another name": (lambda: Plain(k=1.0), lambda o, x: x * read_attribute(o, "k"), changed),
    "a partial of getattr": (lambda: Plain(k=1.0), lambda o, x: x * functools.partial(getattr, o, "k")(), changed),
    "the body of a class": (lambda: Plain(k=1.0), in_the_body_of_a_class, changed),
    "a list of the standard library": (lambda: sys.argv, lambda o, x: x * len(sys.argv), lambda o: o.append("x")),
    "the seed of a stream": (lambda: rl.Generator(1), lambda o, x: x * o.initial_seed(), lambda o: o.manual_seed(5)),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_noticed(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    make, function, change = READS[name]
    state = make()
    compiled = rl.compile(lambda x: function(state, x))
    for _ in range(3):
        assert compiled(rl.ones(2)).tolist() == function(state, rl.ones(2)).tolist()
    before = function(state, rl.ones(2)).tolist()
    change(state)
    after = function(state, rl.ones(2)).tolist()
    assert after != before
    for _ in range(3):
        assert compiled(rl.ones(2)).tolist() == after


def test_the_seed_of_the_default_stream_is_not_kept():
    compiled = rl.compile(lambda x: x * rl.initial_seed())
    for seed in (3, 3, 4):
        rl.manual_seed(seed)
        assert compiled(rl.ones(1)).item() == seed


EFFECTS: dict[str, tuple[Any, Any, Any]] = {
    "object.__setattr__": (
        lambda o: object.__setattr__(o, "dirty", True), lambda o: o.dirty, lambda o: object.__setattr__(o, "dirty", False),
    ),
    "threads": (lambda o: rl.set_num_threads(1), lambda o: rl.get_num_threads(), lambda o: rl.set_num_threads(2)),
    "np.seterr": (lambda o: np.seterr(over="ignore"), lambda o: np.geterr()["over"], lambda o: np.seterr(over="warn")),
    "gc": (lambda o: gc.disable(), lambda o: gc.isenabled(), lambda o: gc.enable()),
    "anomalies": (
        lambda o: rl.autograd.set_detect_anomaly(True, check_nan=False),
        lambda o: rl.is_anomaly_enabled(),
        lambda o: rl.autograd.set_detect_anomaly(False),
    ),
    "a list of the standard library": (
        lambda o: sys.argv.append("y"),
        lambda o: list(sys.argv),
        lambda o: sys.argv.remove("y") if "y" in sys.argv else None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_are_those_of_every_call(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    act, look, reset = EFFECTS[name]
    state = Frozen()

    def function(x):
        act(state)
        return x * 2

    compiled = rl.compile(function)
    before = rl.get_num_threads()
    try:
        reset(state)
        untouched = look(state)
        function(rl.ones(1))
        wanted = look(state)
        for _ in range(4):
            reset(state)
            compiled(rl.ones(1))
            assert look(state) == wanted
        assert wanted != untouched or name == "threads"
    finally:
        reset(state)
        np.seterr(over="warn")
        rl.set_num_threads(before)


def test_a_warning_is_shown_in_every_call():
    def function(x):
        warnings.warn("odd", stacklevel=1)
        return x * 2

    compiled = rl.compile(function)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for _ in range(4):
            compiled(rl.ones(1))
    assert [str(w.message) for w in shown].count("odd") == 4


# --- numbers that vary -----------------------------------------------------------------------------------------------


def holders(log: list) -> dict[str, Any]:
    """Ways to keep a number, and what was kept."""
    kept = Plain(numbers=[])
    return {
        "a tuple in a list": (lambda n: log.append((n, "step")), log),
        "a dict in a list": (lambda n: log.append({"n": n}), log),
        "nested lists": (lambda n: log.append([[n]]), log),
        "an object": (lambda n: kept.numbers.append(n), kept.numbers),
        "an attribute of an object in a list": (lambda n: log.append(Plain(n=n)), log),
        "a function": (lambda n: log.append(lambda: n), log),
        "a set": (lambda n: log.append({n}), log),
    }


def numbers_in(value: Any) -> list:
    if isinstance(value, (list, tuple, set)):
        return [n for part in value for n in numbers_in(part)]
    if isinstance(value, dict):
        return numbers_in(list(value.values()))
    if isinstance(value, Plain):
        return numbers_in(vars(value))
    if callable(value):
        return numbers_in(value())
    return [value] if not isinstance(value, str) else []


@pytest.mark.parametrize("name", holders([]))
def test_numbers_that_a_call_keeps_are_plain(name):
    log: list = []
    keep, kept = holders(log)[name]

    def function(x, n):
        keep(n)
        return x * n

    compiled = rl.compile(function)
    for n in (1, 2, 3):
        assert compiled(rl.ones(1), n).item() == n
    found = numbers_in(kept)
    assert found == [1, 2, 3]
    assert {type(n) for n in found} == {int}
    json.dumps(found)


def test_numbers_in_an_error_are_plain():
    @rl.compile
    def function(x, n):
        if n > 2:
            raise ValueError("too large", n, [n])
        return x * n

    for n in (1, 2):
        function(rl.ones(1), n)
    with pytest.raises(ValueError, match="too large") as caught:
        function(rl.ones(1), 3)
    assert caught.value.args == ("too large", 3, [3])
    assert [type(part) for part in (caught.value.args[1], *caught.value.args[2])] == [int, int]


# --- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [lambda: [rl.ones(1)], lambda: {"a": rl.ones(1)}, lambda: {"a": [rl.ones(1)]}])
def test_a_container_that_is_given_back_is_the_callers(made):
    for function, inner in (
        (lambda d: d, lambda r: r),
        (lambda d: (d, 1), lambda r: r[0]),
        (lambda d: {"d": d}, lambda r: r["d"]),
    ):
        compiled = rl.compile(function)
        given = made()
        for _ in range(4):
            assert inner(compiled(given)) is given


def test_a_container_that_grows_and_is_given_back_is_the_callers():
    compiled = rl.compile(lambda d: (d.append(d[0] * 2), d)[1])
    given = [rl.ones(1)]
    for count in (2, 3, 4):
        assert compiled(given) is given
        assert len(given) == count
    assert given[-1].item() == 2.0


def test_how_often_a_tensor_was_written_to():
    compiled = rl.compile(lambda x: x * x._version)
    x = rl.ones(1)
    for _ in range(4):
        x.add_(1.0)
        assert compiled(x).item() == (x * x._version).item()
