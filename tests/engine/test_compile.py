"""What `rl.compile` promises: the bits of eager code, one program per kind of call, and memory of its own."""

import builtins
import contextlib
import contextvars
import copy
import cProfile
import gc
import io
import math
import os
import queue
import re
import resource
import threading
import time
import warnings
import weakref
from array import array as packed
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from dataclasses import asdict, astuple, dataclass, replace
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine import compile as compiling
from rl_lab.engine.compile import call_times
from rl_lab.engine.errors import EagerWarning, StateError
from rl_lab.engine.memory import Block

HERE = __file__
X = np.random.default_rng(3).normal(size=(8, 6, 3)).astype(np.float32)


def bits(tensor):
    if tensor is None:
        return None
    with rl.no_grad():
        return tensor.shape, tensor.detach().clone().numpy().tobytes()


@pytest.fixture
def recordings(monkeypatch):
    """A list that gets one entry per recording. (A function that counted its own calls would have to run eagerly.)"""
    made = []

    class Counting(compiling.Recorder):
        def __init__(self, *arguments):
            made.append(None)
            super().__init__(*arguments)

    monkeypatch.setattr(compiling, "Recorder", Counting)
    return made


class Model:
    """A small network with its optimiser and random stream. ``snapshot`` is everything that training changes."""

    def __init__(self, kind="Adam", outputs=2, **settings):
        self.generator = rl.Generator(5)
        self.net = rl.nn.Sequential(
            rl.nn.Linear(3, 4, generator=self.generator), rl.nn.Tanh(), rl.nn.Linear(4, outputs, generator=self.generator)
        )
        self.optimizer: Any = getattr(rl.optim, kind)(self.net.parameters(), lr=0.1, **settings)

    def loss(self, x):
        return (self.net(x + rl.randn(*x.shape, generator=self.generator) * 0.1) - 1.0).square().mean()

    def step(self, x):
        loss = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def snapshot(self):
        parameters = list(self.net.parameters())
        states = self.optimizer.state_dict()["state"].values()
        slots = [bits(value) for state in states for value in state.values()]
        return [bits(p) for p in parameters], [bits(p.grad) for p in parameters], slots, bits(self.generator.state)


def check_twins(step, models=None, arguments=X, between=None, programs=None):
    """Run ``step(model, x)`` eagerly and compiled: two equal models must have the same state after every call."""
    eager, model = models or (Model(), Model())
    compiled = rl.compile(lambda x: step(model, x))
    for call, x in enumerate(arguments):
        expected, actual = step(eager, rl.tensor(x)), compiled(rl.tensor(x))
        if expected is not None:
            assert bits(actual) == bits(expected), f"call {call}"
        assert model.snapshot() == eager.snapshot(), f"call {call}"
        if between is not None:
            between(eager, call)
            between(model, call)
    if programs is not None:
        assert len(compiled.programs) == programs
    return compiled


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {"weight_decay": 0.1}),
        ("AdamW", {"maximize": True}),
        ("Adam", {"amsgrad": True}),
        ("RMSprop", {"momentum": 0.9, "centered": True, "eps": 1e-3}),
        ("Adagrad", {"lr_decay": 0.1}),
    ],
)
def test_training_is_bitwise_equal(kind, settings):
    """The parameters, gradients, optimiser state and random stream."""
    check_twins(Model.step, (Model(kind, **settings), Model(kind, **settings)), programs=1)


def test_gradients_are_left_in_grad():
    model = Model()
    step = rl.compile(model.step)
    for x in X:
        for p in model.net.parameters():
            p.grad = None
        step(rl.tensor(x))
        assert all(p.grad is not None for p in model.net.parameters())


def test_accumulated_gradients():
    """zero_grad outside the program, in some calls: to None, to zeros, or on a gradient that eager code left."""

    def between(model, call):
        if call in (1, 4):
            model.optimizer.zero_grad()
        if call == 5:
            model.optimizer.zero_grad(set_to_none=False)
        if call == 6:
            model.net[0].weight.square().sum().backward()

    check_twins(lambda model, x: model.loss(x).backward(), between=between)


def test_zero_grad_to_zeros_inside():
    """Even the sign of zero agrees: zeros plus -0.0 are 0.0, but a first gradient of -0.0 stays -0.0."""
    weight = rl.ones(3, requires_grad=True)
    optimizer = rl.optim.SGD([weight], lr=0.1)

    @rl.compile
    def step(x):
        optimizer.zero_grad(set_to_none=False)
        (weight * x).sum().backward()

    seen = []
    for _ in range(4):
        step(rl.tensor([-0.0, 0.0, 1.0]))
        seen.append(np.signbit(weight.grad.clone().numpy()).tolist())
    assert seen == [[True, False, False]] + [[False] * 3] * 3
    assert len(step.programs) == 2

    def zeros_inside(model, x):
        model.optimizer.zero_grad(set_to_none=False)
        model.loss(x).backward()
        model.optimizer.step()

    check_twins(zeros_inside, programs=2)


def test_a_branch_on_grad_is_noticed():
    """A function that asks whether a gradient exists gets one program per answer."""
    weight = rl.ones(2, requires_grad=True)
    ask = rl.compile(lambda x: x * 2.0 if weight.grad is None else x * 3.0)
    assert ask(rl.ones(1)).item() == 2.0
    weight.sum().backward()
    assert [ask(rl.ones(1)).item() for _ in range(2)] == [3.0, 3.0]
    weight.grad = None
    assert ask(rl.ones(1)).item() == 2.0


def test_gradients_from_outside_do_not_pile_up_programs():
    weight = rl.ones(3, requires_grad=True)
    add = rl.compile(lambda x: (weight * x).sum().backward())
    for _ in range(3 * compiling.KEEP_PROGRAMS):
        weight.grad = rl.ones(3)
        add(rl.ones(3))
        assert weight.grad.tolist() == [2.0] * 3
    assert len(add.programs) == 1


def retained(model, x):
    loss = model.loss(x)
    for _ in range(3):
        loss.backward(retain_graph=True)
    (loss * 2.0).backward()
    model.optimizer.step()
    model.optimizer.zero_grad()
    return loss


def parts_off_the_tape(model, x):
    with rl.no_grad():
        target = model.net(x) * 0.9 + 0.1
    hidden = model.net[0](x)
    loss = (model.net[2](hidden.detach().tanh()) - target).square().sum() + hidden.square().mean()
    model.optimizer.zero_grad()
    loss.backward()
    model.optimizer.step()
    return target


def penalty(model, x):
    x = x.detach().requires_grad_()
    (slope,) = rl.autograd.grad(model.net(x).sum(), x, create_graph=True)
    loss = (slope.norm(2, 1) - 1.0).square().mean()
    model.optimizer.zero_grad()
    loss.backward()
    model.optimizer.step()
    return x.grad


def clipped(model, x):
    model.optimizer.zero_grad()
    model.loss(x).backward()
    norm = rl.nn.utils.clip_grad_norm_(model.net.parameters(), 0.1)
    model.optimizer.step()
    with rl.no_grad():
        model.net[0].weight.mul_(0.9).add_(rl.rand(4, 3, generator=model.generator))
    return norm


@pytest.mark.parametrize("step", [retained, parts_off_the_tape, penalty, clipped], ids=lambda step: step.__name__)
def test_whole_autograd_is_recorded(step):
    """Several backward passes over one graph, no_grad and detach, double backward, changes in place."""
    check_twins(step, programs=1)


def test_a_leaf_made_inside_needs_no_new_program():
    @rl.compile
    def slope(x):
        x = x.detach().requires_grad_()
        (x * x).sum().backward()
        return x.grad

    for x in X:
        np.testing.assert_array_equal(slope(x).numpy(), 2.0 * x)
    assert len(slope.programs) == 1


# --- arguments and results -------------------------------------------------------------------------------------------


def test_a_program_for_each_kind_of_call(recordings):
    """Shapes, dtypes, static arguments, the grad mode and the form of nested arguments select the program; values do not."""

    @rl.compile
    def function(x, scale=1.0, **rest):
        return x * scale

    kinds = [
        lambda v: ((rl.full((3,), v),), {}),
        lambda v: ((rl.full((1, 3), v),), {}),
        lambda v: ((rl.tensor([int(v)] * 3),), {}),
        lambda v: ((rl.full((3,), v), 2.0), {}),
        lambda v: ((rl.full((3,), v), 2), {}),
        lambda v: ((rl.full((3,), v),), {"scale": rl.full((), 2.0)}),
        lambda v: ((rl.full((3,), v),), {"other": ("a", rl.ones(2))}),
        lambda v: ((rl.full((3,), v),), {"other": ["a", rl.ones(2)]}),
        lambda v: ((rl.full((3,), v),), {"other": {"a": rl.ones(2)}}),
    ]
    for value in (3.0, 4.0, 5.0):
        for kind in kinds:
            arguments, keywords = kind(value)
            scale = arguments[1] if len(arguments) > 1 else keywords.get("scale", 1.0)
            assert function(*arguments, **keywords).reshape(-1)[0].item() == value * float(scale)
    assert len(recordings) == len(kinds) == len(function.programs)
    with rl.no_grad():
        function(rl.ones(3))
    assert len(recordings) == len(kinds) + 1 == len(function.programs)


def test_static_numbers_are_told_apart_by_their_bits():
    times = rl.compile(lambda x, number: x * number)
    assert not np.signbit(times(rl.ones(1), 0.0).item())
    assert np.signbit(times(rl.ones(1), -0.0).item())
    for _ in range(3):
        assert np.isnan(times(rl.ones(1), float("nan")).item())
    assert len(times.programs) <= 3


def test_unhashable_and_graded_arguments_run_eagerly():
    function = rl.compile(lambda x, static=None: x)
    with pytest.warns(EagerWarning, match=f"unhashable.*, at {HERE}"):
        assert function(rl.ones(1), {1, 2}).tolist() == [1.0]
    function = rl.compile(lambda x, static=None: x)
    x = rl.ones(1, requires_grad=True)
    with pytest.warns(EagerWarning, match=f"requires grad.*, at {HERE}"):
        assert function(x) is x
    assert function.programs == []


def test_arrays_are_arguments():
    """Array arguments of every dtype and layout. A later change of the array does not change earlier results."""
    double = rl.compile(lambda x: x * 2)
    for dtype in (np.float32, np.float64, np.int64, np.int32, bool):
        for array in (np.arange(6).reshape(2, 3).astype(dtype), np.arange(6).reshape(3, 2).astype(dtype).T):
            for _ in range(2):
                np.testing.assert_array_equal(double(array).numpy(), array * 2)
    array = np.ones(3, np.float32)
    first = double(array)
    array[:] = 5.0
    assert (first.tolist(), double(array).tolist()) == ([2.0] * 3, [10.0] * 3)


def test_layouts_of_arguments():
    """Transposed, sliced and repeated tensors give the bits of the eager call."""
    weight = rl.randn(5, 4, generator=rl.Generator(1))
    function = rl.compile(lambda x: (x @ weight).tanh())
    base = rl.randn(10, 10, generator=rl.Generator(2))
    for _ in range(2):
        for x in (base[:7, :5], base.t()[2:9, 3:8], base[::2][:, ::2], base[0, :5].expand(7, 5), base.t()[:, :5]):
            assert bits(function(x)) == bits((x @ weight).tanh())


class Pair(NamedTuple):
    first: Any
    rest: Any


def test_nested_results():
    """Tuples, lists, ordered dicts, NamedTuples, None and numbers have the same form in every call."""
    nest = rl.compile(lambda x: Pair(x + 1.0, {"b": [x, (x * 2.0, None)], "a": Pair(3, "text")}))
    for value in (1.0, 5.0):
        result = nest(rl.full((2,), value))
        assert type(result) is Pair
        assert list(result.rest) == ["b", "a"]
        assert result.rest["a"] == Pair(3, "text")
        x, (double, nothing) = result.rest["b"]
        assert (result.first.tolist(), x.tolist(), double.tolist()) == ([value + 1] * 2, [value] * 2, [value * 2] * 2)
        assert nothing is None
        assert type(result.rest["b"][1]) is tuple


def test_nested_arguments_keep_their_form_and_order():
    @rl.compile
    def join(parts, pair, **named):
        assert type(pair) is Pair
        return rl.cat([*parts.values(), pair.first, *pair.rest, *named.values()])

    for shift in (0.0, 10.0):
        a, b, c, d, e, f = [rl.full((1,), i + shift) for i in range(6)]
        result = join(OrderedDict(z=a, y=b), Pair(c, [d]), q=e, p=f)
        assert result.tolist() == [i + shift for i in range(6)]


@dataclass
class Batch:
    x: Any
    weights: Any = 1.0
    unit: ClassVar[float] = 1.0

    def scaled(self):
        return self.x * self.weights * self.unit


@dataclass(frozen=True)
class Frozen:
    batch: Batch
    more: dict


@dataclass(slots=True)
class Slotted:
    x: Any
    inner: Any = None


def test_dataclasses_of_tensors_and_numbers():
    """As arguments and results, nested, frozen, with slots; what is written to their tensors reaches the caller's."""

    def use(frozen, slotted):
        frozen.batch.x.add_(1.0)
        slotted.inner.x.mul_(2.0)
        shown = Batch(frozen.batch.scaled() + frozen.more["b"] * slotted.x, frozen.batch.weights)
        return Frozen(shown, {"again": slotted.inner, "same": frozen.batch.x})

    compiled = rl.compile(use)
    for call in range(6):
        Batch.unit = 1.0 if call < 4 else 3.0
        outcomes = []
        for function in (use, compiled):
            x, y = rl.full((2,), float(call)), rl.full((2,), call + 0.5)
            result = function(Frozen(Batch(x, 0.1 * call), {"b": y}), Slotted(2.0, Slotted(y)))
            assert (type(result), type(result.batch)) == (Frozen, Batch)
            assert result.more["same"] is x
            assert result.more["again"].x is y
            outcomes.append((bits(x), bits(y), bits(result.batch.x), result.batch.weights))
        assert outcomes[0] == outcomes[1]
    Batch.unit = 1.0
    assert compiled.why is None
    assert 1 <= len(compiled.programs) <= 4


@dataclass
class Labelled:
    x: rl.Tensor
    label: ClassVar[str] = "first"


@dataclass(slots=True)
class LabelledSlots:
    x: rl.Tensor
    label: ClassVar[str] = "first"


@pytest.mark.parametrize("kind", [Labelled, LabelledSlots])
def test_class_variables_of_a_dataclass_stay_in_the_class(kind, monkeypatch):
    double = rl.compile(lambda given: kind(given.x * 2.0) if given.label == "first" else kind(given.x))
    results = [double(kind(rl.ones(2))) for _ in range(3)]
    monkeypatch.setattr(kind, "label", "second")
    results.append(double(kind(rl.ones(2))))
    assert [result.x.tolist() for result in results] == [[2.0, 2.0]] * 3 + [[1.0, 1.0]]
    assert {result.label for result in results} == {"second"}
    assert double.why is None


def test_the_fields_of_a_dataclass_are_the_callers():
    def change(record, x):
        record.x = x * 2.0
        record.added = record.weights

    compiled = rl.compile(change)
    for call in range(5):
        x, record = rl.full((2,), float(call)), Batch(rl.zeros(2), rl.ones(1))
        with pytest.warns(EagerWarning, match="a dataclass among its arg") if call == 2 else contextlib.nullcontext():
            compiled(record, x)
        assert record.x.tolist() == [2.0 * call] * 2
        assert record.added is record.weights


def test_subclasses_of_containers_keep_what_they_are():
    """A defaultdict has its default inside; one list that is passed twice is one list; what cannot be copied runs eagerly."""

    def use(x, table, first, second):
        first.append(x)
        return x * table["missing"] + len(second)

    compiled = rl.compile(use)
    for call in range(4):
        items = [1]
        with pytest.warns(EagerWarning, match="a list, a dict") if call == 2 else contextlib.nullcontext():
            assert compiled(rl.ones(1), defaultdict(lambda: 3.0), items, items).tolist() == [5.0]
        assert len(items) == 2
    counted = rl.compile(lambda x: Counter({"x": x + 1.0}))
    with pytest.warns(EagerWarning, match="returns a Counter"):
        result = counted(rl.ones(1))
    assert type(result) is Counter


def test_results_are_those_of_the_eager_call():
    """Results made by the call keep their values. An argument, a view of it and a tensor from outside are returned as they are."""
    made = {}
    for compiled in (False, True):
        weight = rl.ones(3)

        def function(x, weight=weight):
            doubled = x * 2.0
            return doubled, x, x[1:], weight, weight.add_(1.0)[:2], doubled, doubled.reshape(3, 1).expand(3, 2).t()

        run = rl.compile(function) if compiled else function
        seen = made[compiled] = []
        earlier = []
        for call in range(5):
            x = rl.full((3,), float(call))
            results = run(x)
            assert results[1] is x
            assert results[3] is weight
            assert results[5] is results[0]
            earlier.append(results)
            seen += [(r.tolist(), r.stride()) for kept in earlier for r in kept]
            for result in run(x):
                result.fill_(-7.0)
            seen += [x.tolist(), weight.tolist()]
            weight.fill_(call + 2.0)
    assert made[True] == made[False]
    assert len(run.programs) == 1


def test_a_parameter_written_as_a_whole_and_returned():
    """The result is the parameter itself."""
    weight = rl.zeros(3)
    function = rl.compile(lambda x: weight.copy_(x))
    for value in (1.0, 2.0, 3.0):
        assert function(rl.full((3,), value)).tolist() == weight.tolist() == [value] * 3


def test_nested_compiled_functions_are_recorded_into_the_outer_one():
    inner = rl.compile(lambda x: x * 2.0)
    outer = rl.compile(lambda x: inner(x) + inner(x + 1.0))
    assert [outer(rl.full((1,), v)).item() for v in (1.0, 2.0, 3.0)] == [6.0, 10.0, 14.0]
    assert (len(inner.programs), len(outer.programs)) == (0, 1)
    assert inner(rl.ones(1)).item() == 2.0


def test_methods():
    model = Model()
    assert rl.compile(model.step)(X[0]).shape == ()
    with pytest.raises(TypeError, match="bound method"):
        type("Agent", (), {"step": rl.compile(lambda self: None)})().step()


# --- what changes between replays ------------------------------------------------------------------------------------


def test_values_changed_between_replays_are_seen():
    """Loaded state of modules and optimisers, changes in place and the position of the stream take effect."""
    saved = Model()
    saved.step(rl.tensor(X[0]))
    network, states = copy.deepcopy(saved.net.state_dict()), copy.deepcopy(saved.optimizer.state_dict())

    def between(model, call):
        if call == 1:
            model.net.load_state_dict(network)
        if call == 2:
            model.optimizer.load_state_dict(states)
        if call == 3:
            model.generator.manual_seed(9)
        if call == 4:
            with rl.no_grad():
                model.net[2].bias.fill_(3.0)
        if call == 5:
            model.net[0].weight.data.mul_(0.5)
        if call == 6:
            model.net[0].bias.detach().numpy()[:] = 1.0

    check_twins(Model.step, between=between)


@pytest.mark.parametrize(
    ("key", "value", "programs"),
    [("lr", 0.01, 1), ("weight_decay", 0.5, 2), ("betas", (0.5, 0.6), 2), ("eps", 0.1, 2), ("maximize", True, 2)],
)
def test_settings_changed_through_param_groups_are_seen(key, value, programs, recordings):
    """A new learning rate needs no new recording; the other settings need one."""

    def between(model, call):
        if call == 3:
            model.optimizer.param_groups[0][key] = value

    check_twins(Model.step, between=between, programs=programs)
    assert len(recordings) == programs


def replace_parameter(model):
    model.net[0].weight = rl.nn.Parameter(rl.full((4, 3), 0.5))


def replace_by_registering(model):
    model.net[0].register_parameter("bias", rl.nn.Parameter(rl.full((4,), 0.5)))


def assign_data(model):
    model.net[0].weight.data = rl.full((4, 3), 0.5)


def add_layer(model):
    model.net.append(rl.nn.Tanh())


def delete_bias(model):
    model.net[0].bias = None


def freeze(model):
    model.net[0].weight.requires_grad_(False)


def freeze_by_attribute(model):
    model.net[2].weight.requires_grad = False


def freeze_all_but_one(model):
    model.net.requires_grad_(False)
    model.net[2].bias.requires_grad_()


@pytest.mark.parametrize(
    "change",
    [
        replace_parameter,
        replace_by_registering,
        assign_data,
        add_layer,
        delete_bias,
        freeze,
        freeze_by_attribute,
        freeze_all_but_one,
    ],
    ids=lambda change: change.__name__,
)
def test_a_changed_structure_is_noticed(change):
    """Programs never use what a model no longer has, and train exactly the parameters that the model now trains."""

    def between(model, call):
        if call == 2:
            change(model)
            gc.collect()
        if call == 5 and "freeze" in change.__name__:
            model.net.requires_grad_()

    check_twins(Model.step, between=between)


def test_a_part_made_at_the_first_call_is_not_made_again():
    class Lazy(rl.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = None

        def forward(self, x):
            if self.layer is None:
                self.layer = rl.nn.Linear(3, 2)
            return self.layer(x)

    function = rl.compile(rl.no_grad()(Lazy()))
    first = bits(function(X[0]))
    assert [bits(function(X[0])) for _ in range(3)] == [first] * 3
    assert len(function.programs) == 1


def test_version_counters_advance_on_replay():
    """A graph that saved a parameter refuses its backward pass after a replay has changed the parameter."""
    model = Model()
    step = rl.compile(model.step)
    step(X[0])
    weight = model.net[2].weight
    loss, version = model.loss(rl.tensor(X[0])), weight._version
    step(X[1])
    assert weight._version > version
    with pytest.raises(StateError, match="inplace operation"):
        loss.backward()
    buffer = rl.zeros(3)
    add = rl.compile(lambda x: (buffer.add_(x), None)[1])
    versions = []
    for _ in range(3):
        add(rl.ones(3))
        versions.append(buffer._version)
    assert versions == sorted(set(versions))


# --- what cannot be recorded -----------------------------------------------------------------------------------------

READS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "int": lambda x: int(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "if": lambda x: 1 if x[0] > 0 else 2,
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "tolist": lambda x: x.tolist(),
    "format": lambda x: f"{x.sum():.2f}",
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "tensor of an array": lambda x: x + rl.tensor(np.ones(3)),
    "tensor of a small array": lambda x: x + rl.tensor(np.ones(1)),
    "from_numpy": lambda x: x + rl.from_numpy(np.ones(3, np.float32)),
    "as_tensor": lambda x: x + rl.as_tensor(np.ones(3, np.float32)),
    "index by an array": lambda x: x[np.array([0, 1])],
    "write of an array": lambda x: x.clone().__setitem__(slice(0, 2), np.ones(2)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_a_value_runs_eagerly_and_names_the_line_once(read):
    """The results are those of the function. The warning and ``why`` name the user's file and line. No program is kept."""
    function = rl.compile(lambda x: read(x))
    for call in range(5):
        x = rl.full((3,), float(call + 1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            actual = function(x)
        np.testing.assert_array_equal(np.asarray(actual, dtype=object), np.asarray(read(x), dtype=object))
        assert [str(w.message) for w in caught if w.category is EagerWarning] == (
            [f"{function.__qualname__} is compiled, but runs eagerly: {function.why}"] if call == 0 else []
        )
        assert f"{HERE}:{read.__code__.co_firstlineno}" in function.why
    assert function.programs == []


def test_constants_may_be_made_inside():
    """Numbers, lists, eye, linspace and ranges become part of the program."""

    @rl.compile
    def function(x):
        fixed = rl.tensor([1.0, 2.0, 3.0]) + rl.linspace(0.0, 1.0, 3) + rl.arange(3) + rl.arange(0.0, 1.5, 0.5)
        return x @ rl.eye(3) + fixed + rl.full((3,), 2.0) + rl.tensor(1.0)

    for value in (0.0, 1.0, 2.0):
        assert function(rl.full((3,), value)).tolist() == [value + number for number in (4.0, 7.0, 10.0)]


def test_an_exception_while_recording_leaves_no_program():
    model, fail = Model(), [True]

    @rl.compile
    def step(x):
        loss = model.loss(x)
        model.optimizer.zero_grad()
        loss.backward()
        if fail[0]:
            raise KeyError("mine")
        model.optimizer.step()
        return loss

    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            step(X[0])
    assert step.programs == []
    rl.tensor([1.0]).item()  # recording has ended
    fail[0] = False
    before = bits(model.net[0].weight)
    assert np.isfinite([step(x).item() for x in X]).all()
    assert bits(model.net[0].weight) != before
    assert len(step.programs) == 1


@pytest.mark.parametrize(
    "pick",
    [
        lambda table, i: table.index_select(0, i),
        lambda table, i: table[i],
        lambda table, i: table.gather(0, i),
        lambda table, i: table.scatter_add(0, i, table),
        lambda table, i: rl.nn.functional.one_hot(i, 5),
    ],
)
def test_an_index_out_of_bounds_raises_at_any_call(pick):
    """Also in a replay, and in a replay by another thread. The next valid call succeeds."""
    table = rl.arange(5.0)
    function = rl.compile(lambda i: pick(table, i))
    for bad in ([1, 2, 5], [1, 2, 10**9]):
        with pytest.raises(IndexError, match="out of bounds"):
            rl.compile(lambda i: pick(table, i))(rl.tensor(bad))
    expected = function(rl.tensor([1, 2, 4])).tolist()
    for _ in range(2):
        with pytest.raises(IndexError, match="index 5 is out of bounds for a dimension of size 5"):
            function(rl.tensor([1, 2, 5]))
        assert function(rl.tensor([1, 2, 4])).tolist() == expected
    with pytest.raises(IndexError, match="index 7"):
        in_threads(1, lambda _: function(rl.tensor([1, 2, 7])))
    assert function(rl.tensor([1, 2, 4])).tolist() == expected


# --- threads ---------------------------------------------------------------------------------------------------------


def in_threads(count, work):
    """Run ``work(number)`` in several threads at once and return their results. Raises the exception of a thread."""
    results = [None] * count
    faults = []
    start = threading.Barrier(count)

    def run(number):
        try:
            start.wait()
            results[number] = work(number)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results


def test_one_function_in_several_threads():
    """Each thread gets the result for its own arguments."""
    weight = rl.randn(64, 64, generator=rl.Generator(1))
    function = rl.compile(lambda x: ((x @ weight).tanh() @ weight).tanh())
    inputs = [rl.full((64, 64), 0.01 * i) for i in range(4)]
    expected = [bits((x @ weight).tanh().matmul(weight).tanh()) for x in inputs]

    def work(number):
        return {bits(function(inputs[number])) for _ in range(100)}

    assert in_threads(4, work) == [{value} for value in expected]


def test_training_in_several_threads():
    """Threads that record and train models of their own do what they would do alone."""
    alone = Model()
    for x in X:
        alone.step(rl.tensor(x))

    def work(number):
        model = Model()
        step = rl.compile(model.step)
        for x in X:
            step(x)
        return model.snapshot()

    assert in_threads(4, work) == [alone.snapshot()] * 4


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_dropped_function_frees_its_memory():
    """The memory is free at once, without the garbage collector, though the last gradients still live in `.grad`."""
    model = Model(outputs=500)
    rl.compile(model.step)(rl.ones(2000, 3))  # the first call compiles kernels, which leaves garbage
    gc.collect()
    gc.disable()
    try:
        step = rl.compile(model.step)
        for _ in range(3):
            step(rl.ones(2000, 3))
        (program,) = step.programs
        assert program.bytes > 2000 * 500 * 4
        blocks = [weakref.ref(block.array) for free in program._pool.values() for block in free]
        reference = weakref.ref(program)
        assert blocks
        del step, program
        assert reference() is None
        assert [array for array in blocks if array() is not None] == []
    finally:
        gc.enable()
    assert np.isfinite(model.net[0].weight.grad.numpy()).all()


def resident():
    """The present memory of the process if the system tells it, else the highest so far."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_compiling_again_and_again_does_not_grow():
    model = Model(outputs=500)

    def once():
        step = rl.compile(model.step)
        for _ in range(2):
            step(rl.ones(2000, 3))

    for _ in range(5):
        once()
    before = resident()
    for _ in range(40):
        once()
    assert resident() - before < 12 * 2**20  # a program holds 20 million bytes


def test_large_blocks_stay_with_their_program():
    """Memory that a recording frees is kept for the program, whatever its size: the launches will write there again."""
    blocks = weakref.WeakValueDictionary()

    def function(x):
        parts = [x * float(i) for i in range(6)]
        for i, part in enumerate(parts):
            if type(part.storage.owner) is Block:
                blocks[i] = part.storage.owner.array
        return sum(part.sum() for part in parts)

    compiled = rl.compile(function)
    compiled(rl.ones(3 * 2**20))
    assert len(blocks) == 6
    assert compiled(rl.ones(3 * 2**20)).item() == 15.0 * 3 * 2**20


def test_programs_and_eager_tensors_share_no_memory():
    """Replays do not change eager tensors of any size, and eager tensors do not change programs."""
    model, alone = Model(), Model()
    step = rl.compile(model.step)
    step(X[0])
    alone.step(rl.tensor(X[0]))
    kept = []
    for number, x in enumerate(X[1:]):
        kept += [rl.full((size,), float(number)) for size in (1, 2, 4, 6, 12, 16, 18, 24, 30) for _ in range(20)]
        values = [bits(tensor) for tensor in kept]
        step(x)
        assert [bits(tensor) for tensor in kept] == values
        del kept[::3]
        alone.step(rl.tensor(x))
        assert model.snapshot() == alone.snapshot()


def test_what_a_function_leaves_behind_is_new_in_every_call():
    """A function that stores a tensor in a dict runs eagerly: each call stores a new tensor, and earlier ones keep their values."""
    left = {}

    def function(x):
        left["doubled"] = x * 2.0
        return (left["doubled"] + 1.0).relu()

    compiled = rl.compile(function)
    kept = []
    for value in (1.0, 2.0, 3.0, 4.0):
        with pytest.warns(EagerWarning, match=rf"left, at {HERE}:\d+") if value == 3.0 else contextlib.nullcontext():
            compiled(rl.full((4,), value))
        kept.append(left["doubled"])
        assert [tensor.tolist() for tensor in kept] == [[2.0 * v] * 4 for v in (1.0, 2.0, 3.0, 4.0)[: len(kept)]]
    del compiled
    eager = [rl.full((4,), -1.0) for _ in range(50)]
    assert left["doubled"].tolist() == [8.0] * 4
    left["doubled"].fill_(0.0)
    assert all(tensor.tolist() == [-1.0] * 4 for tensor in eager)


def test_programs_show_themselves():
    model = Model()
    step = rl.compile(model.step)
    step(X[0])
    (program,) = step.programs
    table = program.table(profile=True)
    assert len(table.splitlines()) == len(program.launches)
    assert HERE in table
    assert "adam" in table
    assert str(len(program.launches)) in repr(program)


def test_a_result_that_cannot_be_copied_runs_eagerly():
    """Returned objects could hold tensors of the program, which the next replay would overwrite."""

    class Box:
        def __init__(self, value):
            self.value = value

    box = rl.compile(lambda x: Box(x + 1.0))
    with pytest.warns(EagerWarning, match=r"returns a Box.*test_compile\.py"):
        first = box(rl.ones(2))
    assert (box(rl.zeros(2)).value.tolist(), first.value.tolist()) == ([1.0, 1.0], [2.0, 2.0])


# --- many calls at once ----------------------------------------------------------------------------------------------


def learner(seed: int):
    """A step with everything that continues from call to call: parameters, optimiser, random numbers, a sum."""
    stream = rl.Generator(seed)
    net = rl.nn.Sequential(rl.nn.Linear(3, 8, generator=stream), rl.nn.Tanh(), rl.nn.Linear(8, 1, generator=stream))
    optimizer, total = rl.optim.Adam(net.parameters(), lr=1e-2), rl.zeros(())

    def step(x):
        noise = rl.randn(4, 3, generator=stream)
        loss = (net(x + noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with rl.no_grad():
            total.add_(loss)
        return loss

    return step, net, total


@pytest.mark.parametrize("count", [1, 2, 7])
def test_times_is_as_many_calls(count):
    x = rl.ones(4, 3)
    results = []
    for many in (True, False):
        step, net, total = learner(5)
        compiled = rl.compile(step)
        for _ in range(3):
            loss = compiled.times(count, x) if many else [compiled(x) for _ in range(count)][-1]
        results.append([bits(loss), bits(total), *[bits(p) for p in net.parameters()]])
    step, net, total = learner(5)
    for _ in range(3):
        loss = call_times(step, count, x)
    results.append([bits(loss), bits(total), *[bits(p) for p in net.parameters()]])
    assert results[0] == results[1] == results[2]


def test_times_between_other_calls():
    """A native loop makes rows that point at the caller's memory point at its own memory, and restores them afterwards."""
    step, _, total = learner(6)
    compiled, twin = rl.compile(step), learner(6)
    for i in range(4):
        x = rl.full((4, 3), float(i))
        compiled(x)
        compiled.times(3, x)
        for _ in range(4):
            twin[0](x)
    assert bits(total) == bits(twin[2])


def test_times_notices_a_bad_index():
    x, index = rl.arange(5).float(), rl.tensor([1, 7])
    pick = rl.compile(lambda i: x.index_select(0, i))
    pick(rl.tensor([0, 4]))
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        pick.times(3, index)
    with pytest.raises(ValueError, match="at least once"):
        pick.times(0, index)


def test_a_walk_to_chosen_leaves_computes_nothing_else():
    """The critic of an actor-critic: no product computes gradients of its weights if only the actor's are asked for."""
    actor, critic = rl.nn.Linear(3, 8), rl.nn.Linear(8, 1)
    x = rl.randn(16, 3)

    def step():
        return list(rl.autograd.grad(critic(actor(x).tanh()).mean(), list(actor.parameters())))

    compiled = rl.compile(step)
    compiled()
    names = [launch.name for launch in compiled.programs[0].launches]
    assert (
        sum(name == "matmul" for name in names) == 3
    )  # the actor's forward pass, the gradient to the actor, the gradient of its weights
    expected = step()
    for mine, yours in zip(compiled(), expected, strict=True):
        assert bits(mine) == bits(yours)


def test_a_function_of_one_tensor_takes_the_short_way_only_where_it_fits():
    net = rl.nn.Linear(4, 3, generator=rl.Generator(0))
    compiled = rl.compile(net)
    x = rl.randn(2, 4, generator=rl.Generator(1))
    with rl.no_grad():
        compiled(x)
        assert compiled.programs[0].is_function
        for other in (x, x + 1.0, x[:1], x[1:]):
            assert compiled(other).numpy().tobytes() == net(other).numpy().tobytes()
        compiled(rl.randn(4, 2, generator=rl.Generator(3)).t())  # the program recorded last has another layout
        first, second = compiled(x), compiled(x + 1.0)
        assert first.numpy().tobytes() == net(x).numpy().tobytes(), "a result is not written to by the next call"
        assert second.numpy().tobytes() == net(x + 1.0).numpy().tobytes()
        net.weight = rl.nn.Parameter(rl.zeros(3, 4))
        net.bias.fill_(2.0)
        assert compiled(x).tolist() == [[2.0] * 3] * 2, "a replaced parameter is noticed"
        picked = rl.compile(lambda i: rl.arange(3)[i])
        picked(rl.tensor([2]))
        with pytest.raises(IndexError):
            picked(rl.tensor([3]))


# --- what a call depends on ------------------------------------------------------------------------------------------

SCALE = [1.0]
SETTING = 1.0


class Settings:
    """An object without an instance dict."""

    __slots__ = ("gain",)
    shared = 1.0


@dataclass
class Record:
    gain: float = 1.0


class Shared:
    coefficient = 1.0


class Nearer(Shared):
    pass


def scaled(x, factor=1.0, *, shift=0.0):
    return x * factor + shift


class Owner:
    """What a compiled method may read: each kind of access with a function that changes the value."""

    default = 1.0

    def __init__(self):
        self.number = 1.0
        self.numbers = [1.0, 2.0]
        self.table = {"a": {"b": 1.0}}
        self.settings = Settings()
        self.settings.gain = 1.0
        self.outer, self.pair = Outer(self), Named(self.settings, "")
        self.array = np.ones(2)
        self.tensor = rl.ones(2)
        self.layer = rl.nn.Linear(2, 2, bias=False)
        self.layer.factor = 1.0
        self.layers = rl.nn.ModuleList([rl.nn.Identity()])
        self.named_layers = rl.nn.ModuleDict({"a": rl.nn.Identity()})
        self.optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(2))], lr=0.5)
        self.schedule = rl.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
        self.record, self.nearer = Record(), Nearer()
        self.user_dict, self.chain, self.user_list = UserDict(a=1.0), ChainMap({"a": 1.0}), UserList([1.0])
        self.bytes, self.numbers_of_c = bytearray(b"a"), packed("d", [1.0])
        self.window, self.waiting = deque([1.0], 3), queue.Queue()
        with rl.no_grad():
            self.layer.weight.copy_(rl.eye(2))

    @property
    def doubled(self):
        return 2.0 * self.number


def set_global(owner, value):
    global SETTING
    SETTING = value


def set_weight(owner, value):
    owner.layer.weight = rl.nn.Parameter(rl.eye(2) * value)


def local_name(owner, x):
    settings, table = owner.settings, owner.table
    return x * settings.gain * table["a"]["b"]


class Helper:
    """A new object, made by the call, around an object that lasts."""

    def __init__(self, owner):
        self.owner = owner

    def scaled(self, x):
        return x * self.owner.number


class Named(NamedTuple):
    settings: Any
    name: str


class Outer:
    def __init__(self, owner):
        self._owner = owner

    @property
    def owner(self):
        return self._owner

    def __getattr__(self, name):
        return getattr(self._owner, name)


PROXIED = {"a": 1.0}
PROXY = MappingProxyType(PROXIED)
VIEW = PROXIED.keys()


def appearing(owner, x):
    try:
        return x * APPEARING
    except NameError:
        return x * 0.5


DEPENDS = {
    "object in an object of the call": (lambda o, x: Helper(o).scaled(x), lambda o, v: setattr(o, "number", v)),
    "object in a named tuple": (
        lambda o, x: x * Named(o.settings, "").settings.gain,
        lambda o, v: setattr(o.settings, "gain", v),
    ),
    "behind a property": (lambda o, x: x * o.outer.owner.settings.gain, lambda o, v: setattr(o.settings, "gain", v)),
    "behind __getattr__": (lambda o, x: x * o.outer.settings.gain, lambda o, v: setattr(o.settings, "gain", v)),
    "global named tuple": (lambda o, x: x * o.pair.settings.gain, lambda o, v: setattr(o.settings, "gain", v)),
    "attribute": (lambda o, x: x * o.number, lambda o, v: setattr(o, "number", v)),
    "attribute by name": (lambda o, x: x * getattr(o, "number"), lambda o, v: setattr(o, "number", v)),  # noqa: B009
    "property": (lambda o, x: x * o.doubled, lambda o, v: setattr(o, "number", v)),
    "slot": (lambda o, x: x * o.settings.gain, lambda o, v: setattr(o.settings, "gain", v)),
    "object": (lambda o, x: x * o.settings.gain, lambda o, v: setattr(o, "settings", gained(v))),
    "class attribute": (lambda o, x: x * o.default, lambda o, v: setattr(Owner, "default", v)),
    "shadowed class attribute": (lambda o, x: x * o.default, lambda o, v: setattr(o, "default", v)),
    "attribute of a class": (lambda o, x: x * Settings.shared, lambda o, v: setattr(Settings, "shared", v)),
    "element": (lambda o, x: x * o.numbers[0], lambda o, v: o.numbers.__setitem__(0, v)),
    "length": (lambda o, x: x * len(o.numbers), lambda o, v: o.numbers.append(v)),
    "elements": (lambda o, x: sum(x * n for n in o.numbers), lambda o, v: o.numbers.insert(0, v)),
    "nested": (lambda o, x: x * o.table["a"]["b"], lambda o, v: o.table["a"].update(b=v)),
    "local names": (local_name, lambda o, v: o.table["a"].update(b=v)),
    "global": (lambda o, x: x * SETTING, set_global),
    "global list": (lambda o, x: x * SCALE[0], lambda o, v: SCALE.__setitem__(0, v)),
    "array": (lambda o, x: x * float(o.array[0]), lambda o, v: o.array.fill(v)),
    "tensor": (lambda o, x: x * o.tensor, lambda o, v: setattr(o, "tensor", rl.full((2,), v))),
    "layer": (lambda o, x: o.layer(x), lambda o, v: setattr(o, "layer", doubling(v))),
    "weight": (lambda o, x: o.layer(x), set_weight),
    "attribute of a layer": (lambda o, x: x * o.layer.factor, lambda o, v: setattr(o.layer, "factor", v)),
    "mode": (lambda o, x: x * (2.0 if o.layer.training else 3.0), lambda o, v: o.layer.train(v > 2.5)),
    "hook": (lambda o, x: o.layer(x), lambda o, v: o.layer.register_forward_hook(lambda m, i, out: out * v)),
    "fields as a dict": (lambda o, x: x * asdict(o.record)["gain"], lambda o, v: setattr(o.record, "gain", v)),
    "fields as a tuple": (lambda o, x: x * astuple(o.record)[0], lambda o, v: setattr(o.record, "gain", v)),
    "replaced fields": (lambda o, x: x * replace(o.record).gain, lambda o, v: setattr(o.record, "gain", v)),
    "copied slot": (lambda o, x: x * copy.copy(o.settings).gain, lambda o, v: setattr(o.settings, "gain", v)),
    "deep copy": (lambda o, x: x * copy.deepcopy([o.record])[0].gain, lambda o, v: setattr(o.record, "gain", v)),
    "user's dict": (lambda o, x: x * o.user_dict["a"], lambda o, v: o.user_dict.update(a=v)),
    "user's list": (lambda o, x: x * o.user_list[-1], lambda o, v: o.user_list.append(v)),
    "chained dicts": (lambda o, x: x * o.chain["a"], lambda o, v: o.chain.update(a=v)),
    "proxy of a dict": (lambda o, x: x * PROXY["a"], lambda o, v: PROXIED.update(a=v)),
    "view of a dict": (lambda o, x: x * len(VIEW), lambda o, v: PROXIED.update({v: v})),
    "bytearray": (lambda o, x: x * o.bytes[0], lambda o, v: o.bytes.__setitem__(0, int(v))),
    "length of a bytearray": (lambda o, x: x * len(o.bytes), lambda o, v: o.bytes.append(0)),
    "array of C numbers": (lambda o, x: x * o.numbers_of_c[0], lambda o, v: o.numbers_of_c.__setitem__(0, v)),
    "memoryview": (lambda o, x: x * memoryview(o.bytes)[0], lambda o, v: o.bytes.__setitem__(0, int(v))),
    "window": (lambda o, x: x * sum(o.window), lambda o, v: o.window.append(v)),
    "length of a queue": (lambda o, x: x * o.waiting.qsize(), lambda o, v: o.waiting.put(v)),
    "item getter": (lambda o, x: x * itemgetter(0)(o.numbers), lambda o, v: o.numbers.__setitem__(0, v)),
    "environment": (lambda o, x: x * float(os.environ["FACTOR"]), lambda o, v: os.environ.update(FACTOR=str(v))),
    "environment by function": (lambda o, x: x * float(os.getenv("FACTOR")), lambda o, v: os.environ.update(FACTOR=str(v))),
    "default": (lambda o, x: scaled(x), lambda o, v: setattr(scaled, "__defaults__", (v,))),
    "keyword default": (lambda o, x: scaled(x), lambda o, v: setattr(scaled, "__kwdefaults__", {"shift": v})),
    "attribute of a function": (lambda o, x: x * scaled.gain, lambda o, v: setattr(scaled, "gain", v)),
    "attribute of a base class": (lambda o, x: x * o.nearer.coefficient, lambda o, v: setattr(Shared, "coefficient", v)),
    "attribute of a nearer class": (lambda o, x: x * o.nearer.coefficient, lambda o, v: setattr(Nearer, "coefficient", v)),
    "global that appears": (appearing, lambda o, v: globals().update(APPEARING=v)),
    "name among the builtins": (lambda o, x: x * planted, lambda o, v: setattr(builtins, "planted", v)),  # noqa: F821
    "forward of a layer": (lambda o, x: o.layer(x), lambda o, v: setattr(o.layer, "forward", lambda x: x * v)),
    "number of layers": (lambda o, x: x * len(o.layers), lambda o, v: o.layers.append(rl.nn.Identity())),
    "names of layers": (lambda o, x: x * len(o.named_layers), lambda o, v: o.named_layers.update({str(int(v)): o.layer})),
    "learning rates": (
        lambda o, x: sum(x * group["lr"] for group in o.optimizer.param_groups),
        lambda o, v: o.optimizer.param_groups[0].update({"lr": v}),
    ),
    "rate of a schedule": (
        lambda o, x: x * o.schedule.get_last_lr()[0],
        lambda o, v: (o.optimizer.step(), o.schedule.step()),
    ),
    "dict of an object": (lambda o, x: x * vars(o)["number"], lambda o, v: setattr(o, "number", v)),
}


def gained(value):
    settings = Settings()
    settings.gain = value
    return settings


def doubling(value):
    layer = rl.nn.Linear(2, 2, bias=False)
    with rl.no_grad():
        layer.weight.copy_(rl.eye(2) * value)
    return layer


@pytest.mark.parametrize(("use", "change"), DEPENDS.values(), ids=DEPENDS)
def test_what_a_function_reads_is_noticed_when_it_changes(use, change, monkeypatch):
    """The result is that of the eager call after every change. Between changes the call is replayed."""
    monkeypatch.setattr(Owner, "default", 1.0)
    monkeypatch.setattr(Shared, "coefficient", 1.0)
    monkeypatch.setattr(scaled, "__defaults__", (1.0,))
    monkeypatch.setattr(scaled, "__kwdefaults__", {"shift": 0.0})
    monkeypatch.setattr(scaled, "gain", 1.0, raising=False)
    monkeypatch.setattr(builtins, "planted", 1.0, raising=False)
    monkeypatch.setenv("FACTOR", "1.0")
    monkeypatch.delitem(globals(), "APPEARING", raising=False)
    owner, x = Owner(), rl.tensor([1.0, 2.0])
    compiled = rl.compile(rl.no_grad()(lambda x: use(owner, x)))
    for value in (2.0, 3.0, 4.0):
        for _ in range(2):
            with rl.no_grad():
                expected = use(owner, x).tolist()
            assert compiled(x).tolist() == expected
            assert len(compiled.programs) > 0
        programs = compiled.programs
        compiled(x)
        assert compiled.programs == programs, "nothing has changed"
        change(owner, value)
    with rl.no_grad():
        assert compiled(x).tolist() == use(owner, x).tolist()
    assert compiled.why is None
    Settings.shared, SCALE[0] = 1.0, 1.0
    set_global(owner, 1.0)
    vars(Nearer).get("coefficient") and delattr(Nearer, "coefficient")


def advance(owner, x):
    owner.number += 1.0
    return x * owner.number


def grow(owner, x):
    owner.numbers.append(1.0)
    return x * len(owner.numbers)


def swap(owner, x):
    owner.tensor = x * 2.0
    return owner.tensor


def draw(owner, x):
    return x * float(np.random.default_rng().random() > 2.0) + np.random.random() * 0.0  # noqa: NPY002


def look_at_the_clock(owner, x):
    return x * (time.perf_counter() > 0.0)


def say(owner, x):
    print("called")
    return x


def next_number(owner, x):
    return x * next(owner.stream)


def put_into_a_queue(owner, x):
    owner.waiting.put(1.0)
    return x * owner.waiting.qsize()


def put_into_a_users_dict(owner, x):
    owner.user_dict["a"] += 1.0
    return x * owner.user_dict["a"]


def put_into_a_bytearray(owner, x):
    owner.bytes.append(1)
    return x * len(owner.bytes)


def put_into_an_array(owner, x):
    owner.numbers_of_c[0] += 1.0
    return x * owner.numbers_of_c[0]


def take_a_permit(owner, x):
    owner.permits.acquire()
    return x * owner.permits._value


def write_to_a_file(owner, x):
    owner.file[0].write("a")
    return x * len(owner.file[0].getvalue())


def read_by_a_getter(owner, x):
    return x * attrgetter("number")(owner)


def read_by_a_global_getter(owner, x):
    return x * NUMBER_OF(owner)


def read_a_context_variable(owner, x):
    return x * CONTEXT.get()


def read_a_variable_of_the_thread(owner, x):
    return x * PER_THREAD.number


NUMBER_OF = attrgetter("number")
CONTEXT = contextvars.ContextVar("number", default=1.0)
PER_THREAD = threading.local()
PER_THREAD.number = 1.0


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (advance, "changes .*number"),
        (grow, "changes the content of .*numbers"),
        (swap, "changes .*tensor"),
        (draw, "random numbers"),
        (look_at_the_clock, "perf_counter"),
        (say, "print"),
        (next_number, "iterator"),
        (put_into_a_queue, "changes .*"),
        (put_into_a_users_dict, "changes the content"),
        (put_into_a_bytearray, "changes the content of .*bytes"),
        (put_into_an_array, "changes the content of .*numbers_of_c"),
        (take_a_permit, "changes .*_value"),
        (write_to_a_file, "write|iterator"),
        (read_by_a_getter, "reads cannot be seen"),
        (read_by_a_global_getter, "reads cannot be seen"),
        (read_a_context_variable, "reads cannot be seen"),
        (read_a_variable_of_the_thread, "reads cannot be seen"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_what_a_replay_would_not_do_runs_eagerly(function, reason, capsys):
    """Each call does what an eager call does. One warning names the reason and the line, and ``why`` keeps them."""
    eager, owner = Owner(), Owner()
    for each in (eager, owner):
        each.stream, each.permits, each.file = iter(range(10)), threading.Semaphore(9), [io.StringIO()]
    compiled = rl.compile(lambda x: function(owner, x))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            assert compiled(rl.ones(2)).tolist() == function(eager, rl.ones(2)).tolist()
    assert (owner.number, owner.numbers, owner.tensor.tolist()) == (eager.number, eager.numbers, eager.tensor.tolist())
    (warning,) = [w for w in caught if w.category is EagerWarning]
    assert re.search(rf"{reason}.*, at .*\.py:\d+$", str(warning.message))
    assert HERE in str(warning.message) or reason in ("changes .*", "changes the content", "changes .*_value")
    assert warning.filename == HERE
    assert str(warning.message).endswith(compiled.why)
    assert capsys.readouterr().out.count("called") == (12 if function is say else 0)


def test_containers_among_the_arguments_are_changed():
    def put(x, items, named):
        items.append(x * 2.0)
        named["x"] = x

    compiled = rl.compile(put)
    for call in range(5):
        x = rl.full((2,), float(call))
        items = []
        named = {}
        with (
            pytest.warns(EagerWarning, match="a list, a dict or a dataclass among its arguments")
            if call == 2
            else contextlib.nullcontext()
        ):
            compiled(x, items, named)
        assert [item.tolist() for item in items] == [[2.0 * call] * 2]
        assert named == {"x": x}


@pytest.mark.parametrize("error", [IndexError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("first", [True, False], ids=["recorded", "replayed"])
def test_a_failing_call_has_changed_nothing(error, first):
    """A failing call changes no parameter, optimizer state, gradient, argument or Python number, whether recorded or replayed."""
    model = Model()
    fails = [False]
    total = rl.zeros(2)
    rows = rl.ones(3, 2)

    def step(x, index):
        total.add_(1.0)
        x.mul_(2.0)
        loss = model.step(x)
        if fails[0]:
            raise error("as asked for")
        return loss + rows.index_select(0, index).sum()

    compiled = rl.compile(step)
    good, bad = rl.tensor([0, 2]), rl.tensor([0, 3])
    if not first:
        for x in X[:3]:
            compiled(rl.tensor(x), good)
    before = model.snapshot(), total.tolist(), [id(p.grad) for p in model.net.parameters()]
    x = rl.tensor(X[4])
    fails[0] = error is not IndexError
    with pytest.raises(error):
        compiled(x, bad if error is IndexError else good)
    fails[0] = False
    assert before == (model.snapshot(), total.tolist(), [id(p.grad) for p in model.net.parameters()])
    assert x.tolist() == X[4].tolist()
    compiled(x, good)
    assert total.tolist() == [1.0 if first else 4.0] * 2


def test_numbers_that_vary_are_inputs():
    """An annealed clip range, the count of a loop, a branch: few programs, and the bits of the eager call."""

    def use(x, clip, count):
        y = x.clamp(1.0 - clip, 1.0 + clip) * (clip**2) / max(clip, 0.1) - round(clip, 1)
        for _ in range(count):
            y = y * clip
        return y if clip > 0.5 else -y

    compiled = rl.compile(use)
    x = rl.tensor(X[0])
    for k in range(200):
        clip, count = 1.0 - k / 200, 1 + k % 2
        assert bits(compiled(x, clip, count)) == bits(use(x, clip, count))
        assert len(compiled.programs) <= 2 * compiling.KEEP_PROGRAMS
    assert compiled.why is None


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("inside", [False, True])
def test_numbers_of_numpy_that_vary_are_inputs(kind, inside):
    def use(x, given):
        number = given["number"] if inside else given
        return x * number + x.clamp(max=number) - x / (number + 1)

    compiled = rl.compile(use)
    for k in range(30):
        given = {"number": kind(k)} if inside else kind(k)
        assert bits(compiled(rl.tensor(X[0]), given)) == bits(use(rl.tensor(X[0]), given))
    assert len(compiled.programs) <= 2
    assert compiled.why is None


@pytest.mark.parametrize("kind", [float, int, np.float32, np.int64])
def test_exponents_that_vary_give_the_bits_of_the_eager_power(kind):
    """Values and gradients. The special exponents, which have kernels of their own, are among them."""

    def use(x, exponent):
        x = x.detach().requires_grad_()
        y = x**exponent
        y.sum().backward()
        return y.detach(), x.grad

    compiled = rl.compile(use)
    x = rl.tensor(np.abs(X[0]) + 0.5)
    for exponent in (3, 4, 2, 1, 0, -1, -3, 5, 0.5, -0.5, 2.5, 6, 7, 8, 2, -3):
        for actual, expected in zip(compiled(x, kind(exponent)), use(x, kind(exponent)), strict=True):
            assert bits(actual) == bits(expected), exponent
    np.testing.assert_allclose(use(x, np.int64(-3))[0].numpy(), x.numpy() ** -3.0, rtol=1e-6)
    assert len(compiled.programs) <= compiling.KEEP_PROGRAMS


def test_numbers_for_which_an_expression_has_no_value_take_their_own_way():
    """Before a replay, all expressions are computed, also those of a branch that the function would not take for these numbers."""

    def use(x, number):
        return x * int(number) if number == number and abs(number) < 1e9 else x * 0.0

    compiled = rl.compile(use)
    for number in (0.5, 1.5, 2.5, math.nan, 3.5, math.inf, -math.inf, 4.5):
        assert bits(compiled(rl.ones(2), number)) == bits(use(rl.ones(2), number))
    shifted = rl.compile(lambda x, n: x * (1 << n) if n >= 0 else x)
    for n in (1, 2, 3, -1, 4):
        assert shifted(rl.ones(1), n).item() == (1 << n if n >= 0 else 1)


def test_threads_may_call_one_function():
    model = rl.nn.Linear(3, 3)
    with rl.no_grad():
        compiled, wrong = rl.compile(lambda x: model(x) * 2.0), []

        def call(rows):
            with rl.no_grad():
                for k in range(50):
                    x = rl.full((rows, 3), float(k))
                    if compiled(x).tolist() != (model(x) * 2.0).tolist():
                        wrong.append((rows, k))

        threads = [threading.Thread(target=call, args=(rows,)) for rows in (1, 2, 3, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert compiled.why is None


def test_threads_may_call_one_function_with_numbers_that_vary():
    """A program that another thread records meanwhile is not taken for one that suits any number."""
    for _ in range(5):
        compiled = rl.compile(rl.no_grad()(lambda x, scale: (x * scale).sum()))

        def work(number, compiled=compiled):
            calls = [(1 + (number + k) % 5, float(number)) for k in range(40)]
            return [(rows, scale) for rows, scale in calls if compiled(rl.ones(rows), scale).item() != rows * scale]

        assert in_threads(4, work) == [[]] * 4


def test_recursion_and_generators_inside():
    def parts(x, n):
        for k in range(n):
            yield x * float(k)

    def power(x, n):
        return x if n == 0 else compiled(x, n - 1) * 2.0 + sum(parts(x, n))

    compiled = rl.compile(power)
    for value in (1.0, 2.0, 3.0):
        assert compiled(rl.full((2,), value), 3).tolist() == [value * (8 + 3 + 2)] * 2
    assert len(compiled.programs) == 1


def test_a_batch_of_nothing():
    layer = rl.nn.Linear(3, 2)
    compiled = rl.compile(rl.no_grad()(lambda x: layer(x).relu()))
    for rows in (0, 2, 0, 2, 0):
        assert compiled(rl.ones(rows, 3)).shape == (rows, 2)
    assert len(compiled.programs) == 2


def test_a_profiler_goes_on_after_a_recording():
    profiler = cProfile.Profile()
    profiler.enable()
    compiled = rl.compile(lambda x: x * 2.0)
    compiled(rl.ones(2))
    sum_of_squares = sum(k * k for k in range(10))
    profiler.disable()
    assert sum_of_squares == 285
    assert any("sum" in str(entry.code) for entry in profiler.getstats())


def test_objects_made_inside_are_no_condition():
    """Loss modules, optimizers and plain objects that each call makes."""

    class Sum:
        def __init__(self, start):
            self.value = start

        def add(self, x):
            self.value = self.value + x
            return self

    weight = rl.nn.Parameter(rl.ones(2))

    def step(x):
        total = Sum(0.0).add(x).add(x * 2.0)
        optimizer = rl.optim.SGD([weight], lr=0.1)
        loss = rl.nn.MSELoss()(weight * x, total.value)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = rl.compile(step)
    for k in range(4):
        start = weight.detach().clone()
        expected = step(rl.full((2,), float(k))), weight.detach().clone()
        with rl.no_grad():
            weight.copy_(start)
        assert bits(compiled(rl.full((2,), float(k)))) == bits(expected[0])
        assert bits(weight) == bits(expected[1])
    assert compiled.why is None
    assert len(compiled.programs) == 1


def test_anomaly_detection_sees_the_gradients_of_compiled_functions():
    """A replay would not look for NaN, so calls run eagerly while the search lasts, and are replayed again afterwards."""

    def step(x):
        leaf = x.detach().requires_grad_()
        (leaf * 0.0).sqrt().mul(0.0).sum().backward()
        return leaf.grad

    compiled = rl.compile(step)
    for _ in range(3):
        assert compiled(rl.ones(3)).isnan().all()
    programs = compiled.programs
    for _ in range(2):
        with rl.autograd.detect_anomaly(), pytest.raises(rl.errors.AnomalyError, match=rf"sqrt, computed at {HERE}"):
            compiled(rl.ones(3))
        assert compiled(rl.ones(3)).isnan().all()
        with rl.autograd.detect_anomaly(), pytest.raises(rl.errors.AnomalyError):
            compiled.times(3, rl.ones(3))
    assert compiled.programs == programs
    assert compiled.why is None
