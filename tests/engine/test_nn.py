"""Modules: names, state that loads completely or not at all, initial values, and gradient clipping."""

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest

import rl_lab as rl
from tests.checks import assert_close
from tests.engine.modules import MODULES

nn = rl.nn


class Net(nn.Module):
    """A module with a body, a shared head, a parameter of its own and a buffer."""

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
    net.load_state_dict(values(other))  # arrays are accepted
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


def test_clip_grad_norm_of_other_norms():
    for norm_type, expected in ((1.0, 7.0), (math.inf, 4.0)):
        parameters = parameters_with_gradients([3.0, 0.0], [0.0, 4.0])
        assert_close(nn.utils.clip_grad_norm_(parameters, 1.0, norm_type), expected)
        assert_close(parameters[1].grad, [0.0, 4 / expected])


def test_clip_grad_value_cuts_every_element():
    (parameter,) = parameters_with_gradients([3.0, -0.2, -7.0])
    nn.utils.clip_grad_value_([parameter, nn.Parameter(rl.ones(1))], 0.5)
    assert_close(parameter.grad, [0.5, -0.2, -0.5])


def test_parameters_as_a_vector_and_back():
    net = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (8,)
    nn.utils.vector_to_parameters(rl.arange(8.0), net.parameters())
    assert net.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.bias.tolist() == [6, 7]
    with pytest.raises(RuntimeError, match="8"):
        nn.utils.vector_to_parameters(rl.zeros(9), net.parameters())


# --- hooks, buffers, containers --------------------------------------------------------------------------------------


def test_forward_hooks_see_and_replace():
    layer, seen = nn.Linear(2, 1), []
    before = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    after = layer.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs[0].tolist())))
    x = rl.ones(1, 2)
    doubled = layer(x)
    assert seen == [(layer, [[2.0, 2.0]])]
    before.remove()
    plain = layer(x)
    after.remove()
    layer(x)
    assert len(seen) == 2
    assert_close((doubled - layer.bias).detach(), 2 * (plain - layer.bias).detach().numpy())


def test_a_hook_makes_a_recorded_program_out_of_date():
    layer = nn.Identity()
    run = rl.compile(layer)
    assert run(rl.ones(1)).item() == 1
    handle = layer.register_forward_hook(lambda module, inputs, output: output + 1)
    assert run(rl.ones(1)).item() == 2
    handle.remove()
    layer.register_forward_hook(lambda module, inputs, output: output * 5)
    assert run(rl.ones(1)).item() == 5


def test_a_buffer_that_is_not_persistent_is_not_saved():
    module = nn.Module()
    module.register_buffer("kept", rl.ones(1))
    module.register_buffer("passing", rl.ones(1), persistent=False)
    assert list(module.state_dict()) == ["kept"]
    assert [name for name, _ in module.named_buffers()] == ["kept", "passing"]


def test_load_state_dict_says_what_differs_as_pytorch_does():
    with pytest.raises(RuntimeError, match=r'(?s)Linear.*Unexpected key.*"extra".*Missing key.*"weight", "bias"'):
        nn.Linear(2, 2).load_state_dict({"extra": rl.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for weight.*\[3, 2\].*\[2, 2\]"):
        nn.Linear(2, 2).load_state_dict({"weight": rl.zeros(3, 2), "bias": rl.zeros(2)})
    result = nn.Linear(2, 2).load_state_dict({"bias": rl.zeros(2), "extra": rl.zeros(1)}, strict=False)
    assert result.missing_keys == ["weight"]
    assert result.unexpected_keys == ["extra"]


def test_module_list_and_dict():
    layers = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])
    layers.append(nn.Linear(1, 2))
    layers.insert(1, nn.Tanh())
    assert [type(m) for m in layers] == [nn.Linear, nn.Tanh, nn.ReLU, nn.Linear]
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert layers[-1] is layers[3]
    assert len(layers[1:3]) == 2
    with pytest.raises(IndexError):
        layers[4]
    heads = nn.ModuleDict({"policy": nn.Linear(1, 2)})
    heads["value"] = nn.Linear(1, 1)
    assert list(heads) == ["policy", "value"]
    assert "value" in heads
    heads.pop("policy")
    assert list(heads.state_dict()) == ["value.weight", "value.bias"]
    assert heads.get_submodule("value") is heads["value"]
    assert heads.get_parameter("value.bias") is heads["value"].bias
    with pytest.raises(AttributeError, match="nothing"):
        heads.get_submodule("nothing")


def test_parameter_list_and_dict():
    values = nn.ParameterList([rl.ones(2), nn.Parameter(rl.zeros(1))])
    assert [p.shape for p in values.parameters()] == [(2,), (1,)]
    assert all(isinstance(p, nn.Parameter) for p in values)
    named = nn.ParameterDict({"scale": rl.ones(1)})
    assert list(named.state_dict()) == ["scale"]
    assert named["scale"].requires_grad


def test_module_to_is_harmless_and_refuses_other_devices():
    layer = nn.Linear(1, 1)
    assert layer.to("cpu") is layer.to(rl.float32) is layer.cpu() is layer.float() is layer
    with pytest.raises(RuntimeError, match="cuda"):
        layer.to("cuda")


def test_embedding_leaves_its_padding_alone():
    table = nn.Embedding(4, 3, padding_idx=1, generator=rl.Generator(1))
    assert not table.weight[1].any()
    table(rl.tensor([[0, 1], [1, 3]])).sum().backward()
    assert table.weight.grad.sum(1).tolist() == [3, 0, 0, 3]
    with pytest.raises(IndexError, match="4"):
        table(rl.tensor([4]))


def test_more_initial_values():
    weight = nn.Parameter(rl.empty(200, 50))
    array = nn.init.trunc_normal_(weight, std=1.0, a=-1.0, b=2.0, generator=rl.Generator(1)).detach().numpy()
    assert -1 <= array.min() < -0.99
    assert 1.9 < array.max() <= 2
    assert_close(nn.init.eye_(nn.Parameter(rl.empty(2, 3))).detach(), np.eye(2, 3))
    zeros = (nn.init.sparse_(weight, 0.1, generator=rl.Generator(1)).detach().numpy() == 0).sum(0)
    assert (zeros == 20).all()
    kernel = nn.init.dirac_(nn.Parameter(rl.empty(3, 3, 3, 3)))
    x = rl.randn(1, 3, 5, 5)
    assert_close(nn.functional.conv2d(x, kernel.detach(), padding=1), x.numpy())


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "Linear", "Conv2d", "Embedding", "MultiheadAttention"])
def test_a_generator_decides_a_layers_initial_values(name):
    sizes = {"Conv2d": (2, 4, 3), "MultiheadAttention": (4, 2)}.get(name, (3, 4))
    first, second = (getattr(nn, name)(*sizes, generator=rl.Generator(7)) for _ in range(2))
    assert_same(values(first), values(second))
    assert all(np.isfinite(array).all() for array in values(first).values())


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.functional.conv2d(rl.zeros(1, 2, 4, 4), rl.zeros(3, 1, 3, 3)),
        lambda: nn.functional.conv2d(rl.zeros(1, 2, 2, 2), rl.zeros(3, 2, 3, 3)),
        lambda: nn.functional.conv2d(rl.zeros(1, 2, 4, 4), rl.zeros(3, 2, 3, 3), rl.zeros(2)),
        lambda: nn.functional.max_pool2d(rl.zeros(1, 2, 2, 2), 3),
        lambda: nn.functional.layer_norm(rl.zeros(2, 3), (2,)),
        lambda: nn.GRUCell(3, 4)(rl.zeros(2, 4)),
        lambda: nn.LSTM(3, 4)(rl.zeros(5, 2, 3), (rl.zeros(1, 3, 4), rl.zeros(1, 3, 4))),
        lambda: nn.BatchNorm1d(3)(rl.zeros(4, 2)),
        lambda: nn.functional.cross_entropy(rl.zeros(4, 3), rl.zeros(3, dtype=rl.long)),
        lambda: rl.einsum("ij,jk->ik", rl.zeros(2, 3), rl.zeros(2, 3)),
        lambda: rl.topk(rl.zeros(3), 4),
        lambda: rl.zeros(2, 3).scatter(1, rl.zeros(3, 1, dtype=rl.long), 1.0),
        lambda: rl.zeros(3).repeat(),
        lambda: nn.functional.pad(rl.zeros(3), (1,)),
    ],
)
def test_shapes_that_do_not_fit_raise(call):
    """The errors are raised before a kernel sees the arguments."""
    with pytest.raises(RuntimeError, match=r"\d"):
        call()


def test_a_convolution_without_samples():
    x, w = rl.zeros(0, 2, 4, 4, requires_grad=True), rl.ones(3, 2, 3, 3, requires_grad=True)
    y = nn.functional.conv2d(x, w)
    assert y.shape == (0, 3, 2, 2)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not w.grad.any()


@pytest.mark.parametrize("batch", [1, 3, 64, 130])
def test_large_convolutions_in_parts(batch):
    """Convolutions that are cut for several cores, and batches that are not a multiple of the group of samples."""
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=s).astype(np.float32) for s in ((batch, 8, 12, 12), (16, 8, 3, 3), (16,))]
    x, w, b = (rl.tensor(a, requires_grad=True) for a in arrays)
    y = nn.functional.conv2d(x, w, b, padding=1)
    cotangent = generator.normal(size=y.shape).astype(np.float32)
    y.backward(rl.tensor(cotangent))
    wide, weight, bias, g = (a.astype(np.float64) for a in (*arrays, cotangent))
    padded = np.pad(wide, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    assert_close(y.detach(), np.einsum("nchwij,fcij->nfhw", windows, weight, optimize=True) + bias[:, None, None])
    assert_close(w.grad, np.einsum("nchwij,nfhw->fcij", windows, g, optimize=True))
    assert_close(b.grad, g.sum((0, 2, 3)))
    back = np.lib.stride_tricks.sliding_window_view(np.pad(g, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    assert_close(x.grad, np.einsum("nfhwij,fcij->nchw", back, weight[:, :, ::-1, ::-1], optimize=True))


STARTING = [
    "Linear",
    "Bilinear",
    "Conv2d",
    "ConvTranspose2d",
    "LayerNorm",
    "GroupNorm",
    "BatchNorm1d",
    "RNNCell",
    "GRU",
    "LSTM",
]


@pytest.mark.parametrize("name", STARTING)
def test_reset_parameters_starts_a_layer_again(name):
    rl.manual_seed(3)
    first = MODULES[name][0](rl.nn)
    fresh = {key: value.clone() for key, value in first.state_dict().items()}
    with rl.no_grad():
        for value in first.state_dict().values():
            value.fill_(7)
    rl.manual_seed(3)
    first.reset_parameters()
    for key, value in first.state_dict().items():
        assert rl.equal(value, fresh[key]), key


def test_a_subclass_may_start_its_parameters_without_a_generator():
    class Zero(rl.nn.Linear):
        def reset_parameters(self):
            rl.nn.init.zeros_(self.weight)
            rl.nn.init.ones_(self.bias)

    assert Zero(2, 3).weight.sum() == 0.0
    assert Zero(2, 3).bias.sum() == 3.0


def test_layers_take_the_cpu_and_floats_only():
    rl.nn.Linear(2, 3, device="cpu", dtype=rl.float32)
    rl.nn.LayerNorm(3, device=rl.device("cpu"))
    with pytest.raises(rl.errors.DeviceError, match="'cuda' is not available"):
        rl.nn.Linear(2, 3, device="cuda")
    with pytest.raises(rl.errors.DtypeError, match="Linear cannot be converted to"):
        rl.nn.Linear(2, 3, dtype=rl.int64)


def test_hinge_and_perceptron_losses():
    x, y = rl.tensor([2.0, 0.5, -1.0, 0.0], requires_grad=True), rl.tensor([1.0, 1.0, 1.0, -1.0])
    functional = rl.nn.functional
    assert functional.hinge_loss(x, y, reduction="none").tolist() == [0.0, 0.5, 2.0, 1.0]
    assert functional.perceptron_loss(x, y, reduction="none").tolist() == [0.0, 0.0, 1.0, 0.0]
    assert rl.nn.HingeLoss(margin=3.0)(x, y).item() == (1.0 + 2.5 + 4.0 + 3.0) / 4
    rl.nn.PerceptronLoss(reduction="sum")(x, y).backward()
    assert x.grad.tolist()[:3] == [0.0, 0.0, -1.0]
    with pytest.raises(rl.errors.ShapeError, match="hinge_loss"):
        functional.hinge_loss(x, y[:2])


# --- normalised weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_a_normalised_weight_is_learned_and_becomes_a_parameter_again(kind):
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    apply, remove = (getattr(nn.utils, f"{verb}{kind}_norm") for verb in ("", "remove_"))
    assert apply(layer) is layer
    assert isinstance(layer, nn.Linear)
    if kind == "weight":
        assert_close(layer.weight.detach(), before)
    else:
        for _ in range(50):
            layer(rl.ones(1, 3))
        assert np.linalg.svd(layer.weight.detach().numpy())[1][0] == pytest.approx(1.0, abs=1e-4)
        with pytest.raises(RuntimeError, match="before"):
            apply(layer)
    optimizer = rl.optim.SGD(layer.parameters(), lr=0.1)
    layer(rl.ones(4, 3)).square().sum().backward()
    optimizer.step()
    layer.eval()
    x = rl.randn(5, 3)
    expected = layer(x).detach()
    assert remove(layer) is layer
    assert type(layer) is nn.Linear
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert_close(layer(x).detach(), expected)
    with pytest.raises(ValueError, match="was not applied"):
        remove(layer)
    with pytest.raises(ValueError, match="no parameter 'other'"):
        apply(layer, "other")


def test_a_recorded_step_leaves_the_normalised_weight_up_to_date():
    layer = nn.utils.weight_norm(nn.Linear(3, 2))
    optimizer = rl.optim.SGD(layer.parameters(), lr=0.1)

    @rl.compile
    def step(x):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()

    for _ in range(3):
        step(rl.ones(4, 3))
        length = layer.weight_v.detach().norm(2, 1, keepdim=True)
        assert_close(layer.weight.detach(), (layer.weight_v / length * layer.weight_g).detach())
    assert len(step.programs) == 1


# --- a layer that learns its size ------------------------------------------------------------------------------------


def test_a_lazy_layer_takes_its_size_from_the_first_input():
    layer = nn.LazyLinear(2)
    optimizer = rl.optim.Adam(layer.parameters(), lr=0.1)  # holds the parameters that get their size later
    assert layer(rl.ones(5, 3)).shape == (5, 2)
    assert type(layer) is nn.Linear
    assert (layer.in_features, layer.weight.shape, layer.bias.shape) == (3, (2, 3), (2,))
    assert layer.weight.abs().max() <= 3**-0.5
    before = layer.weight.detach().clone()
    layer(rl.ones(5, 3)).sum().backward()
    optimizer.step()
    assert (layer.weight != before).all()
    with pytest.raises(RuntimeError):
        layer(rl.ones(5, 4))


def test_a_lazy_layer_is_not_recorded_first():
    layer = nn.LazyLinear(2, bias=False)
    assert layer.bias is None
    with pytest.raises(RuntimeError, match="once before compiling"):
        rl.compile(layer)(rl.ones(5, 3))
    layer(rl.ones(5, 3))
    assert rl.compile(layer)(rl.ones(5, 3)).equal(layer(rl.ones(5, 3)))
