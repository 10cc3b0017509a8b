"""Views made where no gradient is recorded: under no_grad they may be written to, outside of it a write is an error."""

import pytest

import rl_lab as rl
import rl_lab.nn as nn
import rl_lab.nn.functional as F
from rl_lab.engine.errors import StateError

VIEWS = {
    "slice": lambda y: y[:2],
    "step": lambda y: y[::2],
    "integer": lambda y: y[0],
    "ellipsis": lambda y: y[...],
    "narrow": lambda y: y.narrow(0, 0, 2),
    "select": lambda y: y.select(0, 1),
    "reshape": lambda y: y.reshape(2, 2),
    "view": lambda y: y.view(4, 1),
    "flatten": lambda y: y.view(2, 2).flatten(),
    "transpose": lambda y: y.view(2, 2).t(),
    "permute": lambda y: y.view(2, 2).permute(1, 0),
    "unsqueeze": lambda y: y.unsqueeze(0),
    "squeeze": lambda y: y.view(1, 4).squeeze(),
    "unbind": lambda y: y.unbind(0)[0],
    "split": lambda y: y.split(2)[0],
    "chunk": lambda y: y.chunk(2)[1],
    "diagonal": lambda y: y.view(2, 2).diagonal(),
    "twice": lambda y: y[:3][:2],
}
WRITES = {
    "mul_": lambda v: v.mul_(2.0),
    "add_": lambda v: v.add_(1.0),
    "isub": lambda v: v.__isub__(1.0),
    "zero_": lambda v: v.zero_(),
    "fill_": lambda v: v.fill_(3.0),
    "copy_": lambda v: v.copy_(rl.zeros(())),
    "set all": lambda v: v.__setitem__(..., 5.0),
    "relu_": lambda v: v.relu_(),
    "exp_": lambda v: v.exp_(),
    "uniform_": lambda v: v.uniform_(),
    "clamp_": lambda v: v.clamp_(0.0, 0.5),
    "masked_fill_": lambda v: v.masked_fill_(v > 0, 0.5),
    "inplace relu": lambda v: nn.functional.relu(v, inplace=True),
    "inplace layer": lambda v: nn.ELU(inplace=True)(v),
    "inplace dropout": lambda v: nn.functional.dropout(v, 0.5, inplace=True),
}


def on_the_tape():
    x = rl.ones(4, requires_grad=True)
    return x, x * 1.0


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_made_under_no_grad_is_not_written_to_outside(make, write):
    x, y = on_the_tape()
    with rl.no_grad():
        view = make(y)
    with pytest.raises(StateError, match="no_grad"):
        write(view)
    assert y.tolist() == [1.0] * 4
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 4


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_of_such_a_view_is_not_written_to_either(make):
    _, y = on_the_tape()
    with rl.no_grad():
        view = y.view(4)
    with pytest.raises(StateError, match="no_grad"):
        make(view).mul_(2.0)


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_inside_of_no_grad_it_is_memory(make):
    x, y = on_the_tape()
    with rl.no_grad():
        make(y).zero_()
    assert 0.0 in y.tolist()
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 4


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_on_the_tape_carries_the_write_to_the_gradient(make):
    x, y = on_the_tape()
    make(y).mul_(2.0)
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_of_a_plain_tensor_is_written_to_anywhere(make):
    x = rl.ones(4)
    with rl.no_grad():
        view = make(x)
    view.mul_(2.0)
    assert 2.0 in x.tolist()


@pytest.mark.parametrize(
    "module",
    [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.SELU, nn.Hardsigmoid, nn.Hardswish, nn.ELU, nn.CELU, nn.LeakyReLU, nn.Hardtanh],
)
def test_inplace_activations_write_into_their_input(module):
    values = [-1.5, -0.25, 0.0, 0.75, 8.0]
    plain, changing = module(), module(inplace=True)
    x = rl.tensor(values)
    y = changing(x)
    assert y.data_ptr() == x.data_ptr()
    assert x.tolist() == plain(rl.tensor(values)).tolist()
    assert "inplace=True" in repr(changing)
    gradients = []
    for layer in (plain, changing):
        leaf = rl.tensor(values, requires_grad=True)
        hidden = leaf * 1.5
        out = layer(hidden)
        (out * 2.0).sum().backward()
        gradients.append(leaf.grad.tolist())
    assert gradients[0] == gradients[1]
    with pytest.raises(RuntimeError, match="leaf"):
        changing(rl.tensor(values, requires_grad=True))


@pytest.mark.parametrize(("name", "settings"), [("ReLU", ()), ("ReLU6", ()), ("Hardtanh", (-2, 5)), ("Threshold", (1, 2))])
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_of_integers_are_integers(name, settings, inplace):
    """As in PyTorch; the module and the function agree."""
    values = [-3, 0, 7]
    made = getattr(nn, name)(*settings, inplace=inplace)(rl.tensor(values))
    expected = getattr(nn.functional, name.lower())(rl.tensor(values), *settings)
    assert made.dtype is expected.dtype is rl.int64
    assert made.tolist() == expected.tolist()


def test_inplace_may_be_given_by_place_as_in_pytorch():
    for layer in (
        nn.ReLU(True),
        nn.ELU(1.0, True),
        nn.LeakyReLU(0.1, True),
        nn.Hardtanh(-1.0, 1.0, True),
        nn.Threshold(0.1, 2.0, True),
        nn.Dropout(0.5, True),
    ):
        x = rl.full((4,), 0.05)
        assert layer(x).data_ptr() == x.data_ptr()
    with pytest.raises(TypeError):
        nn.Tanh(inplace=True)


def test_a_value_that_was_saved_is_not_written_to():
    x = rl.ones(3, requires_grad=True)
    y = x.exp()
    nn.functional.relu(y, inplace=True)
    with pytest.raises(StateError, match="inplace"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("relu", ()),
        ("selu", ()),
        ("elu", (0.5,)),
        ("celu", (0.5,)),
        ("leaky_relu", (0.2,)),
        ("hardtanh", (-0.5, 0.7)),
        ("threshold", (0.1, 2.0)),
        ("rrelu", (0.1, 0.3)),
        ("relu6", ()),
        ("silu", ()),
        ("mish", ()),
        ("hardsigmoid", ()),
        ("hardswish", ()),
    ],
)
def test_functions_in_place(name, settings):
    values = [-1.5, -0.25, 0.0, 0.75, 8.0]
    expected = getattr(nn.functional, name)(rl.tensor(values), *settings).tolist()
    calls = [lambda x: getattr(nn.functional, name)(x, *settings, inplace=True)]
    if hasattr(nn.functional, f"{name}_"):
        calls.append(lambda x: getattr(nn.functional, f"{name}_")(x, *settings))
    for call in calls:
        x = rl.tensor(values)
        assert call(x) is x
        assert x.tolist() == expected
        leaf = rl.tensor(values, requires_grad=True)
        call(leaf * 1.0).sum().backward()
        other = rl.tensor(values, requires_grad=True)
        getattr(nn.functional, name)(other, *settings).sum().backward()
        assert leaf.grad.tolist() == other.grad.tolist()


def test_the_gradient_of_padding_without_samples_can_be_read():
    x = rl.zeros(0, 3, 3, 3, requires_grad=True)
    y = F.pad(x, (1, 1, 1, 1, 1, 1))
    (gradient,) = rl.autograd.grad(y, x, rl.ones_like(y))
    assert gradient.numpy().shape == (0, 3, 3, 3)
    assert gradient.tolist() == []
