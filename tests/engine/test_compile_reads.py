"""A compiled function agrees with the eager one although what it reads is hidden: names computed, classes changed, numbers of other types.

A scenario is a function that makes everything anew and returns the function to compile and the steps before its calls. A step changes
something, and returns the arguments of the call; None stands for one tensor.
"""

import datetime
import functools
import json
import os
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.errors import EagerWarning

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(pytest.param(function, id=function.__name__))
    return function


class Thing:
    """An object of the user."""


def nothing():
    return None


def numbers(*values):
    return [lambda v=value: (rl.ones(1), v) for value in values]


# --- numbers ---------------------------------------------------------------------------------------------------------


@scenario
def a_tensor_of_a_numpy_number():
    return lambda x, n: x * rl.tensor(n), numbers(*map(np.float32, (0.5, 0.25, 0.75)))


@scenario
def a_distribution_with_a_numpy_number():
    return lambda x, n: rl.distributions.Normal(0.0, n).log_prob(x), numbers(*map(np.float32, (0.5, 0.4, 0.3)))


@scenario
def an_integer_power_that_becomes_a_float():
    return lambda x, n: (x * 8).long() * 2**n, numbers(1, 2, -1, 3)


@scenario
def numpy_on_the_left_of_a_number():
    return lambda x, n: x * (np.float32(0.99) * n), numbers(0.1, 0.2, 0.3)


@scenario
def an_array_times_a_number():
    table = np.arange(3, dtype=np.float32)
    return lambda x, n: x * float((table * n).sum()), numbers(0.1, 0.2, 0.3)


@scenario
def numpy_compares_a_number():
    return lambda x, n: x if np.float32(0.1) == n else -x, numbers(0.1, 0.1, 0.2, 0.1)


@scenario
def the_type_of_a_number_in_a_dict():
    def inner(settings):
        return 2.0 if type(settings["n"]) is float else 3.0

    return lambda x, settings: x * inner(settings), [lambda v=v: (rl.ones(1), {"n": v}) for v in (0.5, 0.25, 0.125)]


@scenario
def the_type_of_a_number_below_a_decorator():
    @rl.no_grad()
    def f(x, n):
        return x * (2.0 if type(n) is float else 3.0)

    return f, numbers(0.5, 0.25, 0.125)


@scenario
def minus_zero_of_numpy():
    return lambda x, n: x / rl.full((1,), n), numbers(np.float64(0.0), np.float64(-0.0), np.float64(0.0), np.float64(-0.0))


@scenario
def keys_of_a_dict_that_are_equal():
    def f(x, table):
        return x * sum(rl.tensor(k) for k in table)

    return f, [lambda t=t: (rl.ones(1), t) for t in ({1: 0}, {1: 0}, {1.0: 0}, {1.0: 0}, {True: 0})]


@scenario
def sets_that_are_equal():
    def f(x, table):
        return x / rl.full((1,), next(iter(table)))

    return f, [lambda t=t: (rl.ones(1), t) for t in (frozenset({0.0}), frozenset({0.0}), frozenset({-0.0}))]


@scenario
def ranges_that_are_equal():
    return lambda x, r: x * r.stop, [lambda r=r: (rl.ones(1), r) for r in (range(0, 3, 2), range(0, 3, 2), range(0, 4, 2))]


@scenario
def an_integer_beyond_the_precision_of_float64():
    return lambda x, n: x * n, numbers(1, 2, 2**60 + 2**36 + 1, 2**60 + 2**36)


@scenario
def a_number_that_does_not_fit_into_bytes():
    return lambda x, n: rl.full((1,), n, dtype=rl.uint8), numbers(1, 2, 3, 300)


@scenario
def a_function_in_c_that_takes_no_recorded_number():
    return lambda x, n: x * len(json.dumps({"n": n})), numbers(0.5, 0.25, 0.125, 1.0)


@scenario
def numbers_kept_in_a_list():
    kept = []

    def f(x, n):
        kept.append(n)
        return x * n, [type(k).__name__ for k in kept], list(kept)

    return f, numbers(0.5, 0.25, 0.125, 1.0)


# --- attributes ------------------------------------------------------------------------------------------------------


@scenario
def an_attribute_that_appears_later():
    thing = Thing()
    return lambda x: x * getattr(thing, "scale", 1.0), [nothing, nothing, lambda: setattr(thing, "scale", 5.0)]


@scenario
def an_attribute_of_a_class_that_appears_later():
    class Own:
        pass

    own = Own()
    return lambda x: x * 3 if hasattr(own, "flag") else x, [nothing, nothing, lambda: setattr(Own, "flag", True)]


@scenario
def an_attribute_error_that_is_caught():
    table = {"m": Thing()}

    def f(x):
        try:
            return x * table["m"].scale
        except AttributeError:
            return x

    return f, [nothing, nothing, lambda: setattr(table["m"], "scale", 5.0)]


@scenario
def a_computed_name():
    thing = Thing()
    thing.gain_a = 1.0
    key = "a"
    return lambda x: x * getattr(thing, "gain_" + key), [nothing, nothing, lambda: setattr(thing, "gain_a", 5.0)]


@scenario
def computed_names_of_a_loop():
    thing = Thing()
    thing.names, thing.a, thing.b = ["a", "b"], 1.0, 2.0
    return lambda x: x * sum([getattr(thing, n) for n in thing.names]), [nothing, nothing, lambda: setattr(thing, "a", 5.0)]


@scenario
def a_path_of_names():
    thing, thing.a = Thing(), Thing()
    thing.a = Thing()
    thing.a.gain = 1.0

    def f(x):
        found = thing
        for part in ("a", "gain"):
            found = getattr(found, part)
        return x * found

    return f, [nothing, nothing, lambda: setattr(thing.a, "gain", 5.0)]


@scenario
def a_name_kept_in_an_attribute():
    class Model(rl.nn.Module):
        def __init__(self):
            super().__init__()
            self.mode, self.loud, self.low = "loud", 2.0, 3.0

        def forward(self, x):
            return x * getattr(self, self.mode)

    model = Model()
    return lambda x: model(x), [nothing, nothing, lambda: setattr(model, "loud", 5.0), lambda: setattr(model, "mode", "low")]


@scenario
def the_reduction_of_a_loss():
    loss = rl.nn.HuberLoss()
    return (
        lambda x: loss(x.repeat(2), rl.zeros(2)),
        [nothing, nothing, lambda: setattr(loss, "reduction", "sum")],
    )


@scenario
def an_attribute_set_by_a_computed_name():
    thing = Thing()
    thing.ga = 0.0

    def f(x):
        setattr(thing, "g" + "a".lower(), 5.0)
        return x * thing.ga

    return f, [nothing, nothing, lambda: setattr(thing, "ga", 0.0)]


@scenario
def an_attribute_of_a_stock_layer():
    net = rl.nn.Sequential(rl.nn.ReLU())
    net.settings = {"g": 1.0}
    return lambda x: net(x) * net.settings["g"], [nothing, nothing, lambda: net.settings.update(g=5.0)]


# --- classes and functions -------------------------------------------------------------------------------------------


@scenario
def a_forward_that_is_replaced():
    class Net(rl.nn.Module):
        def forward(self, x):
            return x

    net = Net()
    return lambda x: net(x), [nothing, nothing, lambda: setattr(Net, "forward", lambda self, x: x * 5)]


@scenario
def a_method_of_a_base_class_that_is_replaced():
    class Base:
        gain = 1.0

        def g(self):
            return 1.0

    class Derived(Base):
        gain = 2.0

        def g(self):
            return super().g() * super().gain

    own = Derived()
    return (
        lambda x: x * own.g(),
        [nothing, nothing, lambda: setattr(Base, "g", lambda self: 5.0), lambda: setattr(Base, "gain", 7.0)],
    )


@scenario
def a_cached_function():
    @functools.lru_cache
    def settings():
        made = Thing()
        made.gain = 1.0
        return made

    settings()
    return lambda x: x * settings().gain, [nothing, nothing, lambda: setattr(settings(), "gain", 5.0)]


@scenario
def a_function_whose_code_is_replaced():
    def gain():
        return 1.0

    def other():
        return 5.0

    holder = Thing()
    holder.gain = gain
    return lambda x: x * holder.gain(), [nothing, nothing, lambda: setattr(gain, "__code__", other.__code__)]


@scenario
def a_name_imported_inside():
    module = sys.modules["rl_test_settings"] = types.ModuleType("rl_test_settings")
    module.gain = 1.0

    def f(x):
        from rl_test_settings import gain

        return x * gain

    return f, [nothing, nothing, lambda: setattr(module, "gain", 5.0)]


@scenario
def a_cache_that_is_cleared():
    gain = [1.0]

    @functools.lru_cache
    def settings(name):
        return gain[0]

    def clear():
        gain[0] = 5.0
        settings.cache_clear()

    return lambda x: x * settings("a"), [nothing, nothing, nothing, clear, nothing]


@scenario
def a_cached_result_without_limit_that_changes():
    @functools.cache
    def settings(name):
        made = Thing()
        made.gain = 1.0
        return made

    return lambda x: x * settings("a").gain, [nothing, nothing, nothing, lambda: setattr(settings("a"), "gain", 5.0)]


# --- optimizers and gradients ----------------------------------------------------------------------------------------


@scenario
def an_attribute_of_an_optimizer():
    class Warm(rl.optim.SGD):
        scale = 1.0

        def step(self):
            self.param_groups[0]["lr"] = 0.1 * self.scale
            super().step()

    p = rl.nn.Parameter(rl.ones(1))
    optimizer = Warm([p], lr=0.1)

    def f(x):
        optimizer.zero_grad()
        (p * x).sum().backward()
        optimizer.step()
        return p.detach().clone()

    return f, [nothing, nothing, lambda: setattr(optimizer, "scale", 10.0), nothing]


@scenario
def a_learning_rate_by_any_key():
    optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=0.5)

    def setting(key):
        return optimizer.param_groups[0][key]

    key = "lr"
    return lambda x: x * setting(key), [nothing, nothing, lambda: optimizer.param_groups[0].update(lr=5.0)]


@scenario
def a_learning_rate_in_a_state():
    optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=0.5)
    return (
        lambda x: x * optimizer.state_dict()["param_groups"][0]["lr"],
        [nothing, nothing, lambda: optimizer.param_groups[0].update(lr=5.0)],
    )


@scenario
def data_with_other_strides():
    w = rl.tensor([[1.0, 2.0], [3.0, 4.0]])
    return lambda x: x.repeat(1, 2) @ w, [nothing, nothing, lambda: setattr(w, "data", w.data.t()), nothing]


@scenario
def two_gradients_that_share_memory():
    p, q = rl.nn.Parameter(rl.ones(1)), rl.nn.Parameter(rl.ones(1))

    def f(x, before):
        p.grad = None
        (p * x).sum().backward()
        q.grad = p.grad.detach()
        return x, before

    def halve():
        p.grad.mul_(0.5)
        return rl.ones(1), q.grad.item()

    return f, [lambda: (rl.ones(1), 0.0), halve, halve, halve]


# --- arguments -------------------------------------------------------------------------------------------------------


@scenario
def one_tensor_passed_twice():
    def pairs():
        x = rl.ones(1)
        return x, x

    return lambda a, b: a * 2 if a is b else a * 3, [pairs, pairs, lambda: (rl.ones(1), rl.ones(1)), pairs]


@scenario
def a_list_that_is_an_argument_and_a_closure():
    log = []

    def f(x, given):
        log.append("f")
        given.append("given")
        return x * len(log), tuple(log)

    return f, [lambda: (rl.ones(1), log)] * 4


@scenario
def an_argument_that_is_also_an_attribute():
    thing = Thing()
    thing.table = [1.0]
    return lambda x, table: x * (2.0 if table is thing.table else 3.0), [lambda: (rl.ones(1), thing.table)] * 3


@scenario
def an_argument_whose_shape_changes():
    given = [rl.ones(1, 2) for _ in range(4)]

    def f(x, shapes):
        x.squeeze_(0)
        return x * 2, shapes

    return f, [lambda t=t: (t, tuple([tuple(other.shape) for other in given])) for t in given]


@scenario
def an_argument_written_by_way_of_data():
    def f(x, versions):
        x.data.add_(1.0)
        return x * 1, versions

    given = rl.ones(1)
    return f, [lambda: (given, given._version)] * 4


@scenario
def arrays_in_an_inner_compiled_function():
    inner = rl.compile(lambda a: (a * 0.1).relu())
    table = np.array([0.3], np.float32)
    return lambda x: inner(table).sum() + x, [nothing, nothing, nothing]


@scenario
def a_container_of_the_user_is_returned():
    statistics = {"n": 1.0}

    def f(x):
        return statistics, x * statistics["n"]

    return f, [nothing, nothing, lambda: statistics.update(n=5.0), nothing]


# --- effects and entropy ---------------------------------------------------------------------------------------------


@scenario
def work_of_another_thread():
    pool = ThreadPoolExecutor(1)
    return lambda x: pool.submit(lambda: x * 2).result(), [lambda v=v: (rl.full((1,), v),) for v in (1.0, 2.0, 3.0)]


@scenario
def files_by_a_library():
    place = f"/tmp/rl_lab_test_{os.getpid()}_{threading.get_ident()}.npy"

    def f(x):
        return x * float(np.load(place)[0])

    def write(value):
        np.save(place, np.array([value]))

    return f, [lambda: write(1.0), nothing, lambda: write(5.0), lambda: (write(6.0), (rl.ones(1),))[1]]


def value_of(result):
    if isinstance(result, rl.Tensor):
        return result.dtype, tuple(result.shape), result.detach().numpy().tobytes()
    if isinstance(result, (list, tuple)):
        return type(result), [value_of(part) for part in result]
    return result


def outcomes(make, wrap):
    function, steps = make()
    function = wrap(function)
    found = []
    for step in steps:
        arguments = step()
        try:
            found.append(value_of(function(*((rl.ones(1),) if arguments is None else arguments))))
        except Exception as error:
            found.append(type(error))
    return found


@pytest.mark.parametrize("make", SCENARIOS)
def test_a_compiled_function_agrees_with_the_eager_one(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerWarning)
        assert outcomes(make, rl.compile) == outcomes(make, lambda function: function)


@pytest.mark.parametrize(
    "draw", [lambda: datetime.datetime.now().microsecond, lambda: os.urandom(4), lambda: __import__("random").Random().random()]
)
def test_values_from_outside_are_not_frozen(draw):
    seen = []

    @rl.compile
    def f(x):
        seen.append(draw())
        return x

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", EagerWarning)
        for _ in range(4):
            f(rl.ones(1))
    assert len(seen) == 4
    assert len(told) == 1


def test_a_container_of_the_user_stays_the_same_object():
    table = {"n": 1.0}
    f = rl.compile(lambda x: (x * table["n"], table))
    for _ in range(3):
        assert f(rl.ones(1))[1] is table
    assert len(f.programs) == 1


def test_a_cached_function_can_be_recorded():
    @functools.lru_cache
    def table(count):
        return [float(i) for i in range(count)]

    f = rl.compile(lambda x: x * table(3)[2])
    for _ in range(4):
        assert f(rl.ones(1)).item() == 2.0
    assert len(f.programs) == 1
    table(3)[2] = 7.0
    assert f(rl.ones(1)).item() == 7.0
