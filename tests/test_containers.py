"""Sequential, ModuleList and ParameterList as lists: replaced, removed, inserted, joined and sliced as in PyTorch."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn


def chain():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))


@pytest.mark.parametrize(
    "make", [chain, lambda: nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)])], ids=["Sequential", "ModuleList"]
)
def test_a_list_of_modules_is_a_list(make):
    net = make()
    tanh = nn.Tanh()
    net[1] = tanh
    net[np.int64(-1)] = nn.Linear(2, 1)
    assert net[1] is tanh
    assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "Linear"]
    del net[0]
    assert list(net.state_dict()) == ["1.weight", "1.bias"]  # the names are numbers again
    net.insert(0, nn.Linear(2, 2))
    assert list(net._modules) == ["0", "1", "2"]
    assert net.pop(1) is tanh
    net.extend([nn.ReLU(), nn.Tanh()])
    net += make()[1:]
    assert len(net) == 6
    del net[1:5]
    assert [type(m).__name__ for m in net] == ["Linear", "Linear"]
    assert len(make() + make()) == 6
    for index in (6, -7):
        with pytest.raises(IndexError):
            net[index]
        with pytest.raises(IndexError):
            net[index] = tanh
        with pytest.raises(IndexError):
            del net[index]


def test_a_chain_with_names_keeps_them():
    from collections import OrderedDict

    net = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), act=nn.ReLU(), last=nn.Linear(2, 1)))
    net[1] = nn.Tanh()
    assert isinstance(net.act, nn.Tanh)
    del net[1]
    assert list(net._modules) == ["first", "last"]
    assert net(rl.zeros(1, 2)).shape == (1, 1)


def test_a_compiled_function_sees_a_replaced_layer():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    forward = rl.compile(lambda x: net(x))
    x = -rl.ones(1, 2)
    with rl.no_grad():
        for layer in (nn.ReLU(), nn.Tanh(), nn.Identity()):
            net[1] = layer
            for _ in range(3):
                np.testing.assert_array_equal(forward(x).numpy(), net(x).numpy())
        del net[1]
        np.testing.assert_array_equal(forward(x).numpy(), net(x).numpy())


def test_parameter_lists_shrink():
    parameters = nn.ParameterList([rl.ones(1), rl.zeros(1), rl.ones(2)])
    del parameters[1]
    assert [p.numel() for p in parameters] == [1, 2]
    assert parameters.pop(0).numel() == 1
    assert list(dict(parameters.named_parameters())) == ["0"]


def test_a_dictionary_takes_the_entries_of_another():
    first = nn.ModuleDict({"a": nn.Linear(1, 2)})
    second = nn.ModuleDict([("b", nn.Tanh())])
    second.update(first)
    assert list(second) == ["b", "a"]
    assert second["a"] is first["a"]


def test_dictionaries_are_read_with_a_default_and_cleared():
    table = nn.ModuleDict({"a": nn.ReLU()})
    assert isinstance(table.get("a"), nn.ReLU)
    assert table.get("b") is None
    table.clear()
    assert len(table) == 0
    assert not list(table.modules())[1:]
