"""Modules: names, state that loads in place or not at all, initial values, and clipping of gradients."""

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest

import rl_lab as rl
from tests.checks import assert_close

nn = rl.nn


class Net(nn.Module):
    """A body, a shared head, a parameter of its own and a buffer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4, bias=False))
        self.head = nn.Linear(4, 2)
        self.same_head = self.head
        self.scale = nn.Parameter(rl.ones(1))
        self.register_buffer("count", rl.zeros(1, dtype=rl.long))

    def forward(self, x):
        return self.head(self.body(x)) * self.scale


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.2.weight", "head.weight", "head.bias"]


def values(module):
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


# --- names and modes -------------------------------------------------------------------------------------------------


def test_parameters_are_named_once_in_order():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert [name for name, _ in net.named_buffers()] == ["count"]
    assert [name for name, _ in net.named_children()][:2] == ["body", "head"]
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf for p in net.parameters())


def test_state_dict_shares_memory():
    net = Net()
    state = net.state_dict()
    assert {*NAMES, "count", "same_head.weight", "same_head.bias"} >= set(state) >= {*NAMES, "count"}
    assert not any(tensor.requires_grad for tensor in state.values())
    with rl.no_grad():
        net.scale.fill_(5.0)
    assert state["scale"].item() == 5.0


def test_attributes_can_be_replaced_and_deleted():
    net = Net()
    net.scale = None
    assert [name for name, _ in net.named_parameters()] == NAMES[1:]
    net.scale = nn.Parameter(rl.zeros(1))
    assert dict(net.named_parameters())["scale"] is net.scale
    with pytest.raises(TypeError, match="scale"):
        net.scale = rl.zeros(1)
    del net.head, net.same_head
    assert not hasattr(net, "head")
    assert [name for name, _ in net.named_parameters()] == ["scale", *NAMES[1:4]]


def test_a_module_says_when_its_init_was_forgotten():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match="super"):
        Forgetful()


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_zero_grad_and_requires_grad():
    net = Net()
    net(rl.ones(5, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(rl.ones(5, 3)).requires_grad


def test_deepcopy_is_independent():
    net = Net()
    before = values(net)
    twin = copy.deepcopy(net)
    assert_same(values(twin), before)
    assert twin.head is twin.same_head
    with rl.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert_same(values(net), before)


def test_linear_and_sequential():
    layer = nn.Linear(3, 2)
    x = rl.arange(6.0).reshape(2, 3)
    assert_close(layer(x).detach(), x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    assert nn.Linear(3, 2, bias=False).bias is None
    model = nn.Sequential(OrderedDict(first=layer, second=nn.ReLU()))
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    assert len(model) == 2
    assert model[0] is layer
    assert isinstance(model[-1], nn.ReLU)
    assert [type(m) for m in model.append(nn.Tanh())] == [nn.Linear, nn.ReLU, nn.Tanh]
    assert nn.Flatten()(rl.zeros(2, 3, 4)).shape == (2, 12)
    for module, function in (
        (nn.ReLU(), rl.relu),
        (nn.Tanh(), rl.tanh),
        (nn.Sigmoid(), rl.sigmoid),
        (nn.Identity(), lambda v: v),
    ):
        assert_close(module(x), function(x).numpy())
    assert "in_features=3" in repr(model)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_load_state_dict_copies_in_place():
    net, other = Net(), Net()
    with rl.no_grad():
        other.count.fill_(7)
    identities = [id(p) for p in net.parameters()]
    weight = net.head.weight.detach()
    net.load_state_dict(other.state_dict())
    assert_same(values(net), values(other))
    assert [id(p) for p in net.parameters()] == identities
    np.testing.assert_array_equal(weight.numpy(), other.head.weight.detach().numpy())
    with rl.no_grad():
        other.head.weight.zero_()
    assert net.head.weight.any()
    net.load_state_dict(values(other))  # arrays will do
    assert not net.head.weight.any()


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_a_state_that_does_not_fit_changes_nothing(fault):
    net = Net()
    before = values(net)
    state = OrderedDict((name, tensor + 1) for name, tensor in Net().state_dict().items())
    if fault == "missing":
        name = "head.weight"
        del state[name]
    elif fault == "unexpected":
        name = "tail.weight"
        state[name] = rl.zeros(1)
    else:
        name = "head.bias"
        state[name] = rl.zeros(3)
    with pytest.raises(RuntimeError, match=name):
        net.load_state_dict(state)
    assert_same(values(net), before)


def test_loading_without_strict_reports_the_difference():
    net = Net()
    missing, unexpected = net.load_state_dict({"scale": rl.full((1,), 3.0), "tail": rl.zeros(1)}, strict=False)
    assert set(missing) >= {"head.weight", "count"}
    assert unexpected == ["tail"]
    assert net.scale.item() == 3.0
    with pytest.raises(RuntimeError, match="scale"):
        net.load_state_dict({"scale": rl.zeros(2)}, strict=False)


# --- initial values --------------------------------------------------------------------------------------------------


def test_linear_starts_within_its_bound():
    layer = nn.Linear(100, 50, generator=rl.Generator(1))
    for parameter in (layer.weight, layer.bias):
        array = parameter.detach().numpy()
        assert 0.05 < abs(array).max() <= 0.1
        assert abs(array.mean()) < 0.02


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda w, g: nn.init.uniform_(w, -0.3, 0.3, generator=g), 0.3),
        (lambda w, g: nn.init.xavier_uniform_(w, generator=g), math.sqrt(6 / 100)),
        (lambda w, g: nn.init.xavier_uniform_(w, gain=2.0, generator=g), 2 * math.sqrt(6 / 100)),
        (lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g), math.sqrt(6 / 60)),
        (lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g), math.sqrt(1 / 60)),
        (lambda w, g: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="linear", generator=g), math.sqrt(3 / 40)),
    ],
)
def test_uniform_initial_values_fill_their_range(fill, bound):
    weight = nn.Parameter(rl.empty(40, 60))
    assert fill(weight, rl.Generator(3)) is weight
    array = weight.detach().numpy()
    assert 0.99 * bound < abs(array).max() <= bound * (1 + 1e-6)
    np.testing.assert_allclose(array.std(), bound / math.sqrt(3), rtol=0.05)
    assert weight.requires_grad
    assert weight.is_leaf


@pytest.mark.parametrize(
    ("fill", "deviation"),
    [
        (lambda w, g: nn.init.normal_(w, 0.0, 0.7, generator=g), 0.7),
        (lambda w, g: nn.init.xavier_normal_(w, generator=g), math.sqrt(2 / 100)),
        (lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="tanh", generator=g), 5 / 3 / math.sqrt(60)),
    ],
)
def test_normal_initial_values_have_their_deviation(fill, deviation):
    weight = nn.Parameter(rl.empty(40, 60))
    fill(weight, rl.Generator(3))
    np.testing.assert_allclose(weight.detach().numpy().std(), deviation, rtol=0.05)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape):
    weight = nn.init.orthogonal_(nn.Parameter(rl.empty(shape)), gain=math.sqrt(2), generator=rl.Generator(2))
    matrix = weight.detach().numpy().reshape(shape[0], -1).astype(np.float64)
    rows, columns = matrix.shape
    square = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    assert_close(square, 2 * np.eye(min(rows, columns)), relative=1e-6)


def test_constant_initial_values_and_gains():
    weight = nn.Parameter(rl.empty(2, 2))
    assert nn.init.constant_(weight, 0.5).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert nn.init.zeros_(weight).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert nn.init.ones_(weight).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert nn.init.calculate_gain("relu") == math.sqrt(2)
    assert nn.init.calculate_gain("leaky_relu", 1.0) == 1.0
    for call in (lambda: nn.init.calculate_gain("reluu"), lambda: nn.init.orthogonal_(nn.Parameter(rl.empty(3)))):
        with pytest.raises(ValueError, match=r".+"):
            call()


def test_seeds_decide_initial_values():
    first, second, third = (nn.Linear(4, 4, generator=rl.Generator(seed)) for seed in (1, 1, 2))
    assert_same(values(first), values(second))
    assert (first.weight != third.weight).any()
    rl.manual_seed(5)
    before = values(Net())
    rl.manual_seed(5)
    assert_same(values(Net()), before)


# --- clipping --------------------------------------------------------------------------------------------------------


def parameters_with_gradients(*gradients):
    parameters = [nn.Parameter(rl.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = rl.tensor(gradient)
    return parameters


def test_clip_grad_norm_scales_all_gradients_together():
    parameters = [*parameters_with_gradients([3.0, 0.0], [0.0, 4.0]), nn.Parameter(rl.ones(2))]
    norm = nn.utils.clip_grad_norm_(parameters, 1.0)
    assert_close(norm, 5.0)
    assert_close(parameters[0].grad, [3 / (5 + 1e-6), 0.0])
    assert_close(parameters[1].grad, [0.0, 4 / (5 + 1e-6)])
    assert parameters[2].grad is None


def test_clip_grad_norm_leaves_small_gradients():
    (parameter,) = parameters_with_gradients([0.3, 0.4])
    assert_close(nn.utils.clip_grad_norm_(iter([parameter]), 1.0), 0.5)
    assert parameter.grad.tolist() == rl.tensor([0.3, 0.4]).tolist()
    assert_close(nn.utils.clip_grad_norm_(parameter, 0.05), 0.5)
    assert_close(parameter.grad, [0.03, 0.04])


def test_clip_grad_norm_takes_gradients_of_any_layout():
    weight = nn.Parameter(rl.zeros(2, 3))
    weight.grad = rl.arange(6.0).reshape(3, 2).t()
    assert_close(nn.utils.clip_grad_norm_([weight], 1.0), math.sqrt(55))
    assert_close(weight.grad, np.arange(6.0).reshape(3, 2).T / math.sqrt(55))


def test_clip_grad_norm_without_gradients():
    assert_close(nn.utils.clip_grad_norm_([nn.Parameter(rl.ones(2))], 1.0), 0.0)
    assert_close(nn.utils.clip_grad_norm_([], 1.0), 0.0)


def test_clip_grad_norm_of_infinities():
    (parameter,) = parameters_with_gradients([math.inf, 1.0])
    with pytest.raises(ArithmeticError, match="inf"):
        nn.utils.clip_grad_norm_([parameter], 1.0, error_if_nonfinite=True)
    assert parameter.grad.tolist() == [math.inf, 1.0]
    assert nn.utils.clip_grad_norm_([parameter], 1.0).item() == math.inf
