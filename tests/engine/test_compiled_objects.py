"""A compiled module or object has the attributes of what was compiled, and errors have the classes that PyTorch raises."""

import copy

import pytest

import rl_lab as rl
from rl_lab.errors import ConstructionError, OptimizerError, StateError


def test_a_compiled_module_has_the_attributes_of_the_module():
    network = rl.nn.Sequential(rl.nn.Linear(3, 4), rl.nn.Dropout(0.5))
    compiled = rl.compile(network)
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in network.parameters()]
    assert list(compiled.state_dict()) == list(network.state_dict())
    assert compiled.training
    network.eval()
    assert not compiled.training
    compiled.train()
    assert network.training
    compiled.eval()
    x = rl.ones(2, 3)
    for _ in range(3):
        with rl.no_grad():
            assert compiled(x).tolist() == network(x).tolist()
    with pytest.raises(AttributeError, match=r"neither a compiled function nor its Sequential has an attribute 'lyers'"):
        _ = compiled.lyers


def test_a_compiled_function_has_its_own_attributes():
    def double(x):
        """Twice."""
        return x * 2

    double.note = "kept"
    compiled = rl.compile(double)
    assert (compiled.__name__, compiled.__doc__, compiled.note) == ("double", "Twice.", "kept")
    assert not hasattr(compiled, "parameters")


@pytest.mark.parametrize("count", [1.5, "2", None])
def test_a_count_of_calls_is_an_integer(count):
    compiled = rl.compile(lambda x: x + 1)
    with pytest.raises(TypeError):
        compiled.times(count, rl.ones(1))


def test_an_optimizer_raises_what_pytorch_raises():
    optimizer = rl.optim.Adam([rl.nn.Parameter(rl.ones(1))])
    other = rl.optim.Adam([rl.nn.Parameter(rl.ones(1)), rl.nn.Parameter(rl.ones(1))])
    for call in (
        lambda: optimizer.load_state_dict(other.state_dict()),
        lambda: rl.optim.SGD([rl.ones(1, requires_grad=True) * 2], 0.1),
    ):
        for kind in (ValueError, OptimizerError, StateError):
            with pytest.raises(kind):
                call()


def test_a_module_before_its_construction_raises_what_pytorch_raises():
    class Early(rl.nn.Module):
        def __init__(self):
            self.layer = rl.nn.Linear(1, 1)

    for kind in (AttributeError, ConstructionError, StateError):
        with pytest.raises(kind, match=r"super.*__init__"):
            Early()


def test_a_copy_of_a_compiled_module_is_refused_or_works():
    compiled = rl.compile(rl.nn.Linear(2, 2))
    try:
        other = copy.deepcopy(compiled)
    except TypeError:
        return
    assert other(rl.ones(1, 2)).tolist() == compiled(rl.ones(1, 2)).tolist()
