"""Cells in continuous time against their equations in float64, their gradients against finite differences, recorded and eager."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn
from rl_lab.autograd import gradcheck, gradgradcheck
from rl_lab.errors import ShapeError
from tests.checks import assert_close

LAYERS = {
    "CfC": lambda s: nn.CfC(2, 3, 4, generator=s),
    "CfC deep": lambda s: nn.CfC(2, 3, 4, 2, generator=s),
    "CfC without backbone": lambda s: nn.CfC(2, 3, backbone_layers=0, generator=s),
    "CfC no_gate": lambda s: nn.CfC(2, 3, 4, mode="no_gate", generator=s),
    "CfC pure": lambda s: nn.CfC(2, 3, 4, mode="pure", generator=s),
    "LTC": lambda s: nn.LTC(2, 3, generator=s),
    "LTC one step": lambda s: nn.LTC(2, 3, 1, generator=s),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made(name: str, length: int = 4, batch: int = 2):
    """(layer, inputs, timespans); biases are not 0."""
    stream = rl.Generator(len(name))
    layer = LAYERS[name](stream)
    with rl.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * rl.randn(parameter.shape, generator=stream))
    return layer, rl.randn(length, batch, 2, generator=stream), 2 * rl.rand(length, batch, generator=stream)


def reference(layer, x, t):
    """The states after each input, in float64 (length, n, hidden)."""
    p = {name: value.numpy().astype(float) for name, value in layer.state_dict().items()}
    h = np.zeros((x.shape[1], layer.hidden_size))
    states = []
    for now, gap in zip(x.numpy().astype(float), t.numpy().astype(float)[..., None], strict=True):
        if isinstance(layer, nn.LTC):
            part, rate = gap / layer.ode_unfolds, np.log1p(np.exp(p["raw_rate"]))
            for _ in range(layer.ode_unfolds):
                f = sigmoid(now @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias"])
                h = (h + part * f * p["A"]) / (1 + part * (rate + f))
        else:
            z = now @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias_0"]
            for k in range(1, layer.backbone_layers + 1):
                z = 1.7159 * np.tanh(0.666 * z) @ p[f"weight_{k}"].T + p[f"bias_{k}"]
            if layer.mode == "pure":
                h = p["A"] - p["A"] * np.exp(-gap * (abs(p["w_tau"]) + abs(z))) * z
            else:
                g, other, slope, offset = np.split(z, 4, -1)
                gate = sigmoid(slope * gap + offset)
                keep = 1.0 if layer.mode == "no_gate" else 1 - gate
                h = keep * np.tanh(g) + gate * np.tanh(other)
        states.append(h)
    return np.stack(states)


@each_layer
def test_states_follow_the_equations(name):
    layer, x, t = made(name)
    outputs, last = layer(x, timespans=t)
    assert_close(outputs.detach(), reference(layer, x, t))
    assert last.shape == (1, 2, 3)
    assert last[0].equal(outputs[-1])


@each_layer
def test_gradients_of_inputs_times_states_and_parameters(name):
    layer, x, t = made(name)
    h = rl.randn(1, 2, 3, generator=rl.Generator(9))
    names = [key for key, _ in layer.named_parameters()]
    parameters = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def run(x, h, t, *values):
        for key, value in zip(names, values, strict=False):
            layer._parameters[key] = value  # what gradcheck has moved
        return layer(x, h, t)[0]

    inputs = [value.requires_grad_() for value in (x, h, t)]
    assert gradcheck(run, (*inputs, *parameters))
    assert gradgradcheck(lambda x, t: run(x, h, t).sum(), (inputs[0], inputs[2]))


@each_layer
def test_the_layer_is_its_cell_in_a_row_in_every_layout(name):
    layer, x, t = made(name)
    outputs, _ = layer(x, None, t)
    cell = (
        nn.LTCCell(2, 3, layer.ode_unfolds)
        if isinstance(layer, nn.LTC)
        else nn.CfCCell(2, 3, 4, layer.backbone_layers, layer.mode)
    )
    cell.load_state_dict(layer.state_dict())
    h = None
    for k in range(len(x)):
        h = cell(x[k], h, t[k].unsqueeze(-1) if k % 2 else t[k])
        assert_close(h.detach(), outputs[k].detach())
    single, end = layer(x[:, 0], None, t[:, 0])
    assert single.shape == (4, 3)
    assert end.shape == (1, 3)
    assert_close(single.detach(), outputs[:, 0].detach())
    assert_close(cell(x[0, 0], None, t[0, :1]).detach(), outputs[0, 0].detach())
    _, half = layer(x[:2], None, t[:2])
    rest, _ = layer(x[2:], half, t[2:])
    assert_close(rest.detach(), outputs[2:].detach())
    layer.batch_first = True
    turned, _ = layer(x.transpose(0, 1), None, t.t().unsqueeze(-1))
    assert_close(turned.transpose(0, 1).detach(), outputs.detach())


@each_layer
def test_without_timespans_every_gap_is_one(name):
    layer, x, _ = made(name)
    assert layer(x)[0].equal(layer(x, None, rl.ones(4, 2))[0])
    assert layer(x, None, 0.5)[0].equal(layer(x, None, rl.full((4, 2), 0.5))[0])


@each_layer
def test_a_recorded_training_step_gives_the_same_bits(name):
    eager, x, t = made(name)
    recorded, _, _ = made(name)

    def step(layer, optimizer, x, t):
        optimizer.zero_grad()
        loss = layer(x, None, t)[0].square().mean()
        loss.backward()
        optimizer.step()
        return loss

    first, second = rl.optim.Adam(eager.parameters()), rl.optim.Adam(recorded.parameters())
    compiled = rl.compile(lambda x, t: step(recorded, second, x, t))
    for scale in (1.0, 0.5, 2.0):
        assert step(eager, first, x * scale, t * scale).item() == compiled(x * scale, t * scale).item()
    assert len(compiled.programs) == 1


def test_a_liquid_state_moves_little_in_a_short_time_and_to_its_target_in_a_long_one():
    layer, x, _ = made("LTC one step")
    h = rl.randn(1, 2, 3, generator=rl.Generator(1))
    short, _ = layer(x[:1], h, 1e-6)
    assert_close(short[0].detach(), h[0], relative=1e-5)
    long, _ = layer(x[:1], h, 1e8)
    f = sigmoid((x[0] @ layer.weight_ih.T + h[0] @ layer.weight_hh.T + layer.bias).detach().numpy())
    rate = np.log1p(np.exp(layer.raw_rate.detach().numpy()))
    assert_close(long[0].detach(), f * layer.A.detach().numpy() / (rate + f))


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.CfC(0, 3),
        lambda: nn.LTC(2, 3, 0),
        lambda: nn.CfC(2, 3)(rl.ones(4, 2, 3)),
        lambda: nn.CfC(2, 3)(rl.ones(0, 2, 2)),
        lambda: nn.CfC(2, 3)(rl.ones(4, 2, 2), None, rl.ones(2, 4)),
        lambda: nn.LTC(2, 3)(rl.ones(4, 2, 2), rl.ones(1, 2, 4)),
        lambda: nn.LTCCell(2, 3)(rl.ones(4, 2), None, rl.ones(3)),
    ],
)
def test_shapes_that_do_not_fit(call):
    with pytest.raises(ShapeError):
        call()


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="default, no_gate, pure"):
        nn.CfC(2, 3, mode="fast")
