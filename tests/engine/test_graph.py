"""GraphNetwork: exact values and gradients, and surgery at any time."""

import copy
import ctypes
import math

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import GraphError, ShapeError, StateError
from rl_lab.nn.graph import GraphNetwork
from rl_lab.nn.graph import kernels as graph_kernels
from tests.checks import GRADIENT_RELATIVE, RELATIVE, STEP, assert_close, cotangent_for

LEAK = 0.01
REFERENCE = {
    "identity": lambda z: z,
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "steepened_sigmoid": lambda z: 1 / (1 + np.exp(-4.9 * z)),
    "relu": lambda z: np.maximum(z, 0),
    "softplus": lambda z: np.logaddexp(z, 0),
    "sech": lambda z: 1 / np.cosh(z),
    "sin": np.sin,
    "gauss": lambda z: np.exp(-z * z),
    "step": lambda z: (z > 0).astype(float),
    "sign": np.sign,
    "abs": np.abs,
    "clamped": lambda z: np.clip(z, -1, 1),
    "leaky_relu": lambda z: np.where(z > 0, z, LEAK * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "exp": np.exp,
    "square": lambda z: z * z,
    "cube": lambda z: z**3,
}
KINKS = {"relu": (0,), "step": (0,), "sign": (0,), "abs": (0,), "clamped": (-1, 1), "leaky_relu": (0,)}


def reference(net, x, weight, bias, state=None, sums=None):
    """Outputs in float64, or the values of all nodes for a recurrent network. Every argument may have further axes in front."""
    values = {name: x[..., i] for i, name in enumerate(net.inputs)}
    if net.recurrent:
        values |= {name: state[..., i] for i, name in enumerate(net.nodes)}
    following = dict(values)
    for i, name in enumerate(net.nodes):
        terms = [
            weight[..., k, None] * (values if net.recurrent else following)[s]
            for k, (s, t) in enumerate(net.edges)
            if t == name
        ]
        product = net.aggregation_of(name) == "product"
        total = math.prod(terms[1:], start=terms[0]) if product and terms else 1.0 if product else sum(terms)
        z = bias[..., i, None] + total + 0 * x[..., 0]
        if sums is not None:
            sums[name] = z
        following[name] = REFERENCE[net.activation_of(name)](z)
    return np.stack(np.broadcast_arrays(*[following[name] for name in (net.nodes if net.recurrent else net.outputs)]), -1)


def random_graph(rng, nodes=60, recurrent=False) -> GraphNetwork:
    """A random network of at most this many nodes whose values stay near 1."""
    inputs, outputs = rng.integers(1, 5, 2)
    hidden = int(rng.integers(0, nodes + 1 - inputs - outputs))
    names = [f"h{i}" for i in range(hidden)] + [f"output{i}" for i in range(outputs)]
    every = [f"input{i}" for i in range(inputs)] + names
    edges = []
    for k, target in enumerate(names):
        sources = every if recurrent else every[: inputs + k]
        chosen = rng.choice(len(sources), min(len(sources), int(rng.integers(0, 5))), replace=False)
        scale = 1 / math.sqrt(max(1, len(chosen)))
        edges += [{"source": sources[s], "target": target, "weight": rng.uniform(-1, 1) * scale} for s in chosen]
    described = [
        {
            "name": name,
            "activation": str(rng.choice(graph_kernels.ACTIVATIONS)),
            "aggregation": "product" if rng.random() < 0.15 else "sum",
            "bias": rng.normal() * 0.3,
        }
        for name in names
    ]
    order = rng.permutation(len(described))
    return GraphNetwork.from_description(
        {
            "format": 1,
            "recurrent": recurrent,
            "inputs": [f"input{i}" for i in range(inputs)],
            "outputs": [f"output{i}" for i in range(outputs)],
            "nodes": [described[i] for i in order],
            "edges": [edges[i] for i in rng.permutation(len(edges))],
        }
    )


def well_conditioned(net, x, state=None) -> bool:
    """Whether no sum is near a kink of its activation, and none is so large that float32 loses digits."""
    sums = {}
    reference(net, x, weights_of(net), biases_of(net), state, sums)
    near = any(np.abs(z - k).min() < 1e-3 for n, z in sums.items() for k in KINKS.get(net.activation_of(n), ()))
    return not near and all(np.abs(z).max() < 4 for z in sums.values())


def weights_of(net):
    return net.weight.detach().numpy().astype(np.float64)


def biases_of(net):
    return net.bias.detach().numpy().astype(np.float64)


def drawn(rng, recurrent=False, batch=2):
    """A well-conditioned network with inputs and a state."""
    while True:
        net = random_graph(rng, recurrent=recurrent)
        x = rng.normal(size=(batch, len(net.inputs))).astype(np.float32)
        state = rng.uniform(-1, 1, (batch, len(net.nodes))).astype(np.float32) if recurrent else None
        if well_conditioned(net, x.astype(np.float64), None if state is None else state.astype(np.float64)):
            return net, x, state


def differences(function, arrays, cotangent):
    """`checks.finite_differences` with all perturbed copies in one call, stacked along a new first axis."""
    gradients = []
    for position, array in enumerate(arrays):
        steps = STEP * np.maximum(1.0, np.abs(array.reshape(-1)))
        moves = (np.eye(array.size) * steps).reshape(array.size, *array.shape)
        results = [function(*[array + sign * moves if i == position else a for i, a in enumerate(arrays)]) for sign in (1, -1)]
        change = np.broadcast_to((results[0] - results[1]) * cotangent, (array.size, *cotangent.shape))
        change = change.sum(axis=tuple(range(1, change.ndim)))
        gradients.append((change / (2 * steps)).reshape(array.shape))
    return gradients


def check(net, x, state=None):
    """Compare values and all gradients with float64 differences, with the tolerances of `checks.check_gradients`."""
    arrays = [x, net.weight.detach().numpy(), net.bias.detach().numpy()] + ([] if state is None else [state])
    arrays = [a.astype(np.float64) for a in arrays]
    expected = reference(net, *arrays)
    inputs = rl.tensor(x, requires_grad=True)
    before = None if state is None else rl.tensor(state, requires_grad=True)
    net.zero_grad()
    value = net(inputs) if state is None else net(inputs, before)[1]
    assert_close(value.detach(), expected)
    cotangent = cotangent_for(expected)
    value.backward(rl.tensor(cotangent))
    ours = [inputs.grad, net.weight.grad, net.bias.grad] + ([] if state is None else [before.grad])
    compare(ours, differences(lambda *a: reference(net, *a), arrays, cotangent))


def compare(ours, theirs):
    for gradient, wanted in zip(ours, theirs, strict=True):
        scale = np.abs(wanted).max(initial=0.0)
        atol = max(RELATIVE * scale, 1e-6)
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=GRADIENT_RELATIVE, atol=atol)


def test_gradients_of_a_thousand_random_graphs():
    rng = np.random.default_rng(1)
    sizes = []
    for _ in range(1000):
        net, x, _ = drawn(rng)
        check(net, x)
        sizes.append(len(net.inputs) + len(net.nodes))
    assert max(sizes) == 60
    assert np.mean(sizes) > 20


def test_gradients_of_recurrent_graphs():
    rng = np.random.default_rng(2)
    for _ in range(100):
        check(*drawn(rng, recurrent=True))


@pytest.mark.parametrize("batch", [1, 7, 8, 33])
def test_sizes_of_batch(batch):
    rng = np.random.default_rng(3)
    for _ in range(10):
        check(*drawn(rng, batch=batch))


def test_the_check_sees_a_wrong_gradient():
    net, x, _ = drawn(np.random.default_rng(4))
    net.weight.register_hook(lambda g: g * 1.001)
    with pytest.raises(AssertionError):
        check(net, x)


@pytest.mark.parametrize("name", graph_kernels.ACTIVATIONS)
def test_each_activation(name):
    net = GraphNetwork(1, 1, output_activation=name)
    net.add_edge("input0", "output0", 1.0)
    x = np.linspace(-2.9, 2.9, 30).astype(np.float32)[:, None]
    check(net, x)
    structure, numbers = net.pack()
    single = [activate(structure, numbers, row)[0] for row in x]
    assert_close(single, REFERENCE[name](x[:, 0].astype(np.float64)))


def test_product_with_a_zero_factor():
    net = GraphNetwork(2, 1)
    net.add_node("p", "identity", "product")
    for name in net.inputs:
        net.add_edge(name, "p", 2.0)
    net.add_edge("p", "output0", 1.0)
    check(net, np.array([[0.0, 3.0], [0.0, 0.0]], np.float32))


def activate(structure, numbers, x, state=None):
    state = np.zeros(graph_kernels.state_size(structure), np.float32) if state is None else state
    out = np.zeros(structure[2], np.float32)
    graph_kernels.activate(structure, numbers, x, state, out)
    return out


# --- surgery ---------------------------------------------------------------------------------------------------------


def random_surgery(net, rng):
    """One random change. About one in four attempts is refused."""
    names = [*net.inputs, *net.nodes]
    source, target = rng.choice(names), rng.choice(names)
    match rng.integers(6):
        case 0:
            net.add_node(activation=str(rng.choice(graph_kernels.ACTIVATIONS[:12])), bias=rng.normal())
        case 1 | 2:
            net.add_edge(source, target, rng.normal())
        case 3 if net.edges:
            net.split_edge(*net.edges[rng.integers(len(net.edges))], activation=str(rng.choice(graph_kernels.ACTIVATIONS[:12])))
        case 4 if net.edges:
            net.remove_edge(*net.edges[rng.integers(len(net.edges))])
        case 5 if net.hidden and rng.random() < 0.3:
            net.remove_node(str(rng.choice(net.hidden)))
        case _:
            net.set_activation(str(rng.choice(net.nodes)), str(rng.choice(graph_kernels.ACTIVATIONS[:12])))


def test_a_thousand_surgeries_equal_fresh_graphs():
    rng = np.random.default_rng(5)
    done = refused = 0
    for recurrent in (False, True):
        net = GraphNetwork(3, 2, recurrent=recurrent)
        optimizer = rl.optim.Adam(net.parameters(), lr=1e-2)
        recorded = rl.compile(rl.no_grad()(lambda x, s, net=net: net(x, s) if net.recurrent else net(x)))
        x = rl.tensor(rng.normal(size=(4, 3)))
        for _ in range(500):
            before = net.describe()
            while True:
                try:
                    random_surgery(net, rng)
                    break
                except GraphError:
                    refused += 1
                    assert net.describe() == before
            done += 1
            fresh = GraphNetwork.from_description(net.describe())
            state = rl.zeros(4, len(net.nodes)) if recurrent else None
            results = []
            for one in (net, fresh):
                one.zero_grad()
                out = one(x, state)
                (out[1] if recurrent else out).square().sum().backward()
                results.append([g.numpy().tobytes() for g in (one.weight.grad, one.bias.grad)])
                results[-1].append((out[0] if recurrent else out).detach().numpy().tobytes())
            assert results[0] == results[1]
            for _ in range(2):  # the first call records, the second replays
                again = recorded(x, state)
                assert (again[0] if recurrent else again).numpy().tobytes() == results[0][-1]
            if all(np.isfinite(g.numpy()).all() for g in (net.weight.grad, net.bias.grad)):
                optimizer.step()
            if len(net.nodes) > 40:
                for name in net.hidden[:20]:
                    net.remove_node(name)
    assert done == 1000
    assert refused > 30


def xor_like():
    net = GraphNetwork(["a", "b"], ["y"])
    net.add_node("h", "tanh", bias=0.3)
    for s, t, w in (("a", "h", 0.5), ("b", "h", -0.4), ("h", "y", 1.5), ("b", "y", 0.2)):
        net.add_edge(s, t, w)
    return net


def test_parents_and_children():
    net = xor_like()
    assert net.parents("y") == ["b", "h"]
    assert net.parents("h") == ["a", "b"]
    assert net.children("b") == ["h", "y"]
    assert net.children("y") == net.parents("a") == []
    assert net.nodes == ("h", "y")
    assert net.hidden == ("h",)


REFUSED = [
    lambda n: n.add_edge("a", "h"),
    lambda n: n.add_edge("y", "h"),
    lambda n: n.add_edge("h", "h"),
    lambda n: n.add_edge("h", "a"),
    lambda n: n.add_edge("nobody", "h"),
    lambda n: n.add_edge("a", "nobody"),
    lambda n: n.add_node("h"),
    lambda n: n.add_node("a"),
    lambda n: n.add_node(""),
    lambda n: n.add_node("k", "no such activation"),
    lambda n: n.add_node("k", "tanh", "mean"),
    lambda n: n.split_edge("a", "y"),
    lambda n: n.split_edge("a", "h", "y"),
    lambda n: n.remove_edge("y", "a"),
    lambda n: n.remove_edge("a", "nobody"),
    lambda n: n.remove_node("a"),
    lambda n: n.remove_node("y"),
    lambda n: n.remove_node("nobody"),
    lambda n: n.set_activation("h", "no such activation"),
    lambda n: n.set_activation("a", "tanh"),
    lambda n: n.parents("nobody"),
    lambda n: n.children("nobody"),
    lambda n: n.edge_index("a", "y"),
    lambda n: n.node_index("a"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_and_changes_nothing(number):
    net = xor_like()
    before, parameters = net.describe(), (net.weight.storage, net.bias.storage)
    with pytest.raises(GraphError):
        REFUSED[number](net)
    assert net.describe() == before
    assert (net.weight.storage, net.bias.storage) == parameters


def test_a_split_with_the_identity_keeps_the_output():
    rng = np.random.default_rng(6)
    for _ in range(100):
        net = random_graph(rng, 20)
        if not net.edges:
            continue
        x = rl.tensor(rng.normal(size=(5, len(net.inputs))))
        before = net(x).detach().numpy()
        net.split_edge(*net.edges[rng.integers(len(net.edges))])
        after = net(x).detach().numpy()
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


def test_gradient_of_what_was_computed_before_a_change():
    net, other = xor_like(), xor_like()
    x = rl.tensor([[0.3, -0.7], [1.0, 0.2]])
    y = net(x).square().sum()
    net.remove_edge("a", "h")
    net.add_node("k")
    net.add_edge("k", "y", 1.0)
    net.add_edge("a", "k", 2.0)
    y.backward()
    other(x).square().sum().backward()
    for source, target in net.edges:
        expected = other.weight.grad[other.edge_index(source, target)].item() if (source, target) in other.edges else 0.0
        assert net.weight.grad[net.edge_index(source, target)].item() == expected
    assert net.bias.grad[net.node_index("k")].item() == 0.0
    assert net.bias.grad[net.node_index("h")].item() == other.bias.grad[other.node_index("h")].item() != 0.0


def test_an_edge_made_anew_is_another_edge():
    net = xor_like()
    y = net(rl.ones(1, 2)).sum()
    net.remove_edge("a", "h")
    net.add_edge("a", "h", 3.0)
    y.backward()
    assert net.weight.grad[net.edge_index("a", "h")].item() == 0.0
    assert net.weight.grad[net.edge_index("b", "h")].item() != 0.0


def test_what_was_computed_with_the_weights_themselves_before_a_change():
    """An L2 penalty must not reach edges added later. It raises an error, or reaches the edges of the old weights that remain."""
    net = GraphNetwork(["a", "b"], ["y"])
    net.add_edge("a", "y", 2.0)
    net.add_edge("b", "y", 3.0)
    for penalty in (lambda w: (w**2).sum(), lambda w: w.sum(), lambda w: w.abs().sum()):
        direct, kept = penalty(net.weight), penalty(net.weight.as_it_is())
        net.split_edge("a", "y", "h")
        net.remove_edge("b", "y")  # the number of weights has not changed
        with pytest.raises(StateError, match="were added or removed after"):
            direct.backward()
        assert net.weight.grad is None
        kept.backward()
        found = net.weight.grad.tolist()
        assert found[net.edge_index("h", "y")] > 0
        assert found[net.edge_index("a", "h")] == 0  # a new edge
        penalty(net.weight).backward()  # computed after the change
        net.zero_grad()
        net.add_edge("b", "y", 3.0)
        net.remove_node("h")
        net.add_edge("a", "y", 2.0)


def test_a_change_between_two_backwards():
    net = xor_like()
    x = rl.ones(1, 2)
    y = net(x).sum()
    y.backward(retain_graph=True)
    first = {edge: net.weight.grad[net.edge_index(*edge)].item() for edge in net.edges}
    net.split_edge("b", "y", "m")
    y.backward()
    for edge in first:
        now = ("m", "y") if edge == ("b", "y") else edge
        assert net.weight.grad[net.edge_index(*now)].item() == 2 * first[edge]
    assert net.weight.grad[net.edge_index("b", "m")].item() == 0.0


def test_a_step_before_backward_is_caught():
    net = xor_like()
    y = net(rl.ones(1, 2)).sum()
    with rl.no_grad():
        net.weight.mul_(2.0)
    with pytest.raises(StateError, match="inplace"):
        y.backward()


def test_create_graph_is_refused():
    net = xor_like()
    with pytest.raises(StateError, match="once"):
        net(rl.ones(1, 2)).sum().backward(create_graph=True)


@pytest.mark.parametrize("make", [lambda p: rl.optim.Adam(p, lr=0.1), lambda p: rl.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_what_an_optimizer_knows_survives(make):
    """After a change the remaining weights continue exactly as if nothing had happened."""
    nets = xor_like(), xor_like()
    optimizers = [make(net.parameters()) for net in nets]
    x = rl.tensor([[0.3, -0.7], [1.0, 0.2]])
    for step in range(6):
        if step == 3:
            nets[0].add_node("a new first one")
            nets[0].add_node("unused")
            nets[0].add_edge("a", "unused", 0.5)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    for edge in nets[1].edges:
        assert nets[0].weight[nets[0].edge_index(*edge)].item() == nets[1].weight[nets[1].edge_index(*edge)].item()
    state, other = (o.state[n.bias] for n, o in zip(nets, optimizers, strict=True))
    name = next(n for n in state if n != "step")
    assert state[name][nets[0].node_index("h")].item() == other[name][nets[1].node_index("h")].item() != 0.0
    assert len(optimizers[0].state_dict()["state"][0][name]) == len(nets[0].edges)


def test_a_recorded_update_follows_the_graph():
    nets = xor_like(), xor_like()
    optimizers = [rl.optim.Adam(net.parameters(), lr=0.05) for net in nets]

    def update(i, x):
        loss = nets[i](x).square().mean()
        optimizers[i].zero_grad()
        loss.backward()
        optimizers[i].step()
        return loss

    recorded = rl.compile(update)
    rng = np.random.default_rng(7)
    for step in range(40):
        x = rl.tensor(rng.normal(size=(5, 2)))
        losses = [recorded(0, x).item(), update(1, x).item()]
        assert losses[0] == losses[1]
        if step % 5 == 4:
            for net in nets:
                net.split_edge(*net.edges[step % len(net.edges)], activation="sin")
    assert nets[0].describe() == nets[1].describe()


def test_a_change_without_new_weights_is_recorded_anew():
    net = xor_like()
    recorded = rl.compile(rl.no_grad()(net))
    x = rl.tensor([[0.3, -0.7]])
    before = recorded(x).item()
    net.set_activation("h", "sin")
    assert recorded(x).item() == net(x).item() != before  # called in the same mode as before


def test_a_copy_is_a_network_of_its_own():
    net = xor_like()
    other = copy.deepcopy(net)
    other.remove_node("h")
    assert net.describe() == xor_like().describe()
    assert other.edges == (("b", "y"),)


# --- recurrent -------------------------------------------------------------------------------------------------------


def test_recurrent_nodes_change_together():
    net = GraphNetwork(1, 1, recurrent=True)
    net.add_node("h", "identity")
    net.add_edge("input0", "h", 1.0)
    net.add_edge("h", "output0", 2.0)
    net.add_edge("output0", "output0", 0.5)
    seen = [net(rl.tensor([[x]])).item() for x in (1.0, 0.0, 3.0, 0.0, 0.0)]
    assert seen == [0.0, 2.0, 1.0, 6.5, 3.25]
    net.reset()
    assert net(rl.tensor([[1.0]])).item() == 0.0


def test_reset_of_a_part_of_the_batch():
    net = GraphNetwork(1, 1, recurrent=True)
    net.add_edge("input0", "output0", 1.0)
    net.add_edge("output0", "output0", 1.0)
    step = rl.compile(rl.no_grad()(net))
    ones = rl.ones(2, 1)
    step(ones)
    assert step(ones).tolist() == [[2.0], [2.0]]
    net.reset(np.array([True, False]))
    assert step(ones).tolist() == [[1.0], [3.0]]
    assert net(rl.ones(1, 1)).tolist() == [[1.0]]


def test_the_state_follows_a_change():
    net = GraphNetwork(1, 1, recurrent=True)
    net.add_edge("input0", "output0", 1.0)
    net.add_edge("output0", "output0", 1.0)
    net(rl.ones(1, 1))
    net.add_node("a")
    assert net(rl.ones(1, 1)).item() == 2.0


def test_gradients_through_time():
    """The gradients of a sequence, with the state passed on, equal finite differences of the whole sequence."""
    net, x, state = drawn(np.random.default_rng(8), recurrent=True)
    xs = [x, -x, 0.5 * x]
    weight = rl.tensor(state, requires_grad=True)
    s, total = weight, 0.0
    for x in xs:
        out, s = net(rl.tensor(x), s)
        total = total + out.sum()
    total.backward()

    def sequence(w, b, s):
        total = 0.0
        for x in xs:
            s = reference(net, np.broadcast_to(x, (*s.shape[:-1], x.shape[-1])).astype(np.float64), w, b, s)
            total = total + sum(s[..., net.node_index(name)] for name in net.outputs)
        return total

    arrays = [weights_of(net), biases_of(net), state.astype(np.float64)]
    compare([net.weight.grad, net.bias.grad, weight.grad], _one_by_one(sequence, arrays))


def _one_by_one(function, arrays):
    from tests.checks import finite_differences

    return finite_differences(function, arrays, np.ones(arrays[-1].shape[0]))


# --- one observation at a time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_kernel_for_one_observation_agrees(recurrent):
    rng = np.random.default_rng(9)
    for _ in range(50):
        net, x, _ = drawn(rng, recurrent, batch=3)
        structure, numbers = net.pack()
        state = np.zeros(graph_kernels.state_size(structure), np.float32)
        for row in x:
            ours = activate(structure, numbers, row, state)
            assert ours.tobytes() == net(rl.tensor(row[None])).detach().numpy().tobytes()
            if not recurrent:
                state[:] = 7.0  # nothing is kept


def test_the_kernel_by_its_address():
    void = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(graph_kernels.compiled_activate().address)
    net = xor_like()
    structure, numbers = net.pack()
    x = np.array([0.3, -0.7], np.float32)
    state = np.zeros(9, np.float32)
    out = np.zeros(1, np.float32)
    void(*[a.ctypes.data for a in (structure, numbers, x, state, out)])
    assert out[0] == activate(structure, numbers, x)[0] != 0.0


# --- shapes and data -------------------------------------------------------------------------------------------------


def test_shapes():
    net = xor_like()
    assert net(rl.ones(2)).shape == (1,)
    assert net(rl.ones(3, 4, 2)).shape == (3, 4, 1)
    assert net(rl.ones(0, 2)).shape == (0, 1)
    for wrong in (rl.ones(3), rl.ones(2, 3), rl.ones(2, dtype=rl.int64)):
        with pytest.raises(ShapeError):
            net(wrong)


def test_a_network_as_a_part():
    """A network in a Sequential, with a strided input, trained together with a layer."""
    generator = rl.Generator(1)
    layer = rl.nn.Linear(3, 2, generator=generator)
    both = rl.nn.Sequential(layer, xor_like())
    x = rl.randn(3, 5, generator=generator).t()
    both(x).sum().backward()
    assert layer.weight.grad.abs().sum().item() > 0
    assert set(dict(both.named_parameters())) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_descriptions_that_cannot_be():
    good = xor_like().describe()
    assert GraphNetwork.from_description(good).describe() == good
    for change in (
        {"format": 2},
        {"nodes": good["nodes"][1:]},
        {"nodes": good["nodes"] * 2},
        {"edges": good["edges"] * 2},
        {"edges": [{"source": "z", "target": "y", "weight": 1.0}]},
        {"edges": [{"source": "y", "target": "y", "weight": 1.0}]},
        {"edges": [{"source": "a"}]},
        {"inputs": ["a", "b", "h"]},
        {"inputs": []},
    ):
        with pytest.raises(GraphError):
            GraphNetwork.from_description({**good, **change})


def test_a_cycle_is_named_without_the_nodes_behind_it():
    network = GraphNetwork(["in"], ["out"])
    for name in ("a", "b", "c"):
        network.add_node(name)
    for source, target in (("in", "a"), ("a", "b"), ("b", "c"), ("c", "out")):
        network.add_edge(source, target)
    with pytest.raises(GraphError, match=r"cycle through a, b: a cycle needs"):
        network.add_edge("b", "a")
