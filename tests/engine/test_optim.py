"""Optimisers: twenty steps on PyTorch's path, state that continues bitwise, and settings that are refused."""

import copy
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from tests.checks import assert_close
from tests.engine.cases import OPTIMIZERS, again, regression, trajectory

ANSWERS = np.load(Path(__file__).parent / "answers.npz", allow_pickle=False)
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make(name, parameters):
    kind, settings = OPTIMIZERS[name]
    return getattr(rl.optim, kind)(parameters, **settings)


def run(optimizer, loss, steps):
    for _ in range(steps):
        if isinstance(optimizer, rl.optim.LBFGS):
            optimizer.step(lambda: again(optimizer, loss))
            continue
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@each_optimizer
def test_the_path_is_pytorchs(name):
    # L-BFGS divides by differences of gradients, which amplifies rounding errors
    assert_close(trajectory(rl, name), ANSWERS[name], each=1e-3 if name.startswith("LBFGS") else 5e-5)


@each_optimizer
def test_state_dict_continues_bitwise(name):
    """Ten steps, the state loaded into a new optimiser over copies, ten more steps: the bits of twenty steps."""
    parameters, loss = regression(rl)
    optimizer = make(name, parameters)
    run(optimizer, loss, 10)
    state = optimizer.state_dict()

    others, other_loss = regression(rl)
    with rl.no_grad():
        for other, parameter in zip(others, parameters, strict=True):
            other.copy_(parameter)
    twin = make(name, others)
    twin.load_state_dict(state)
    run(optimizer, loss, 10)  # the loaded state is a copy: further steps here must not disturb the twin
    run(twin, other_loss, 10)
    for parameter, other in zip(parameters, others, strict=True):
        assert parameter.detach().numpy().tobytes() == other.detach().numpy().tobytes()


def test_a_loaded_state_brings_its_settings():
    parameters, loss = regression(rl)
    optimizer = rl.optim.Adam(parameters, lr=0.5)
    run(optimizer, loss, 1)
    others, other_loss = regression(rl)
    twin = rl.optim.Adam(others, lr=0.1)
    twin.load_state_dict(optimizer.state_dict())
    assert twin.param_groups[0]["lr"] == 0.5
    with rl.no_grad():
        for other, parameter in zip(others, parameters, strict=True):
            other.copy_(parameter)
    run(optimizer, loss, 1)
    run(twin, other_loss, 1)
    np.testing.assert_array_equal(others[0].detach().numpy(), parameters[0].detach().numpy())


def test_state_dict_is_laid_out_as_in_pytorch():
    parameters, loss = regression(rl)
    optimizer = rl.optim.Adam(parameters)
    run(optimizer, loss, 3)
    state = optimizer.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert set(state["state"]) == {0, 1}
    assert {"step", "exp_avg", "exp_avg_sq"} <= set(state["state"][0])
    assert int(state["state"][0]["step"]) == 3
    assert state["state"][0]["exp_avg"].shape == (3, 2)
    assert state["param_groups"][0]["params"] == [0, 1]
    assert state["param_groups"][0]["betas"] == (0.9, 0.999)


def test_parameters_without_gradient_are_left_alone():
    used, unused = rl.nn.Parameter(rl.ones(2)), rl.nn.Parameter(rl.ones(2))
    optimizer = rl.optim.AdamW([used, unused])
    run(optimizer, lambda: used.sum(), 2)
    assert unused.tolist() == [1.0, 1.0]
    assert used.tolist() != [1.0, 1.0]
    assert unused not in optimizer.state


def test_groups_have_settings_of_their_own():
    slow, quick = rl.nn.Parameter(rl.ones(2)), rl.nn.Parameter(rl.ones(2))
    optimizer = rl.optim.SGD([{"params": [slow]}, {"params": [quick], "lr": 0.5}], lr=0.1)
    run(optimizer, lambda: (slow + quick).sum(), 1)
    assert_close(slow.detach(), [0.9, 0.9])
    assert_close(quick.detach(), [0.5, 0.5])
    added = rl.nn.Parameter(rl.ones(1))
    optimizer.add_param_group({"params": [added], "lr": 1.0})
    run(optimizer, lambda: added.sum(), 1)
    assert_close(added.detach(), [0.0])


def test_transposed_gradients_are_read_in_order():
    w = rl.nn.Parameter(rl.zeros(2, 3))
    w.grad = rl.arange(6.0).reshape(3, 2).t()
    rl.optim.SGD([w], lr=1.0).step()
    assert_close(w.detach(), [[0, -2, -4], [-1, -3, -5]])


def test_zero_grad_forgets_or_zeroes():
    parameters, loss = regression(rl)
    optimizer = rl.optim.SGD(parameters, lr=0.1)
    loss().backward()
    kept = parameters[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert parameters[0].grad is kept
    assert not kept.any()
    optimizer.zero_grad()
    assert parameters[0].grad is None


def test_step_returns_the_closures_loss():
    parameters, loss = regression(rl)
    optimizer = rl.optim.SGD(parameters, lr=0.01)
    before = loss().item()

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    assert optimizer.step(closure).item() == before
    assert loss().item() < before


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {"lr": -1.0}),
        ("SGD", {"lr": 0.1, "momentum": -0.1}),
        ("SGD", {"lr": 0.1, "nesterov": True}),
        ("SGD", {"lr": 0.1, "weight_decay": -1.0}),
        ("Adam", {"lr": float("nan")}),
        ("Adam", {"betas": (1.0, 0.9)}),
        ("Adam", {"betas": (0.9, -0.1)}),
        ("AdamW", {"eps": -1.0}),
        ("RMSprop", {"alpha": -0.1}),
        ("Adagrad", {"lr_decay": -0.1}),
    ],
)
def test_senseless_settings_raise(kind, settings):
    with pytest.raises(ValueError, match=r".+"):
        getattr(rl.optim, kind)([rl.nn.Parameter(rl.ones(1))], **settings)


def test_senseless_parameters_raise():
    p = rl.nn.Parameter(rl.ones(1))
    with pytest.raises(ValueError, match="empty"):
        rl.optim.SGD([], lr=0.1)
    with pytest.raises(RuntimeError, match="leaf"):
        rl.optim.SGD([p * 2], lr=0.1)
    with pytest.raises(ValueError, match="more than one"):
        rl.optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)
    with pytest.raises(TypeError):
        rl.optim.SGD([1.0], lr=0.1)
    with pytest.raises((RuntimeError, ValueError)):
        rl.optim.SGD([p], lr=0.1).load_state_dict(rl.optim.SGD([p, rl.nn.Parameter(rl.ones(1))], lr=0.1).state_dict())


def test_a_group_may_have_momentum_alone():
    """State is made by the settings of the group. Without it a launch would take the parameter for its velocity."""
    plain, moving = rl.nn.Parameter(rl.ones(2)), rl.nn.Parameter(rl.ones(2))
    optimizer = rl.optim.SGD([{"params": [plain]}, {"params": [moving], "momentum": 0.5}], lr=0.1)
    run(optimizer, lambda: (plain + moving).sum(), 2)
    assert_close(plain.detach(), [0.8, 0.8])
    assert_close(moving.detach(), [0.75, 0.75])
    assert "momentum_buffer" not in optimizer.state[plain]


def test_pytorchs_implementation_choices_are_accepted_and_others_are_not():
    p = rl.nn.Parameter(rl.ones(1))
    rl.optim.Adam([p], foreach=True, fused=False)
    with pytest.raises(TypeError, match="learning_rate"):
        rl.optim.SGD([p], learning_rate=0.1)


def test_a_copy_of_network_and_optimizer_goes_on_alone():
    """As in PyTorch, the copied optimizer changes the copied parameters, with the state and the settings of the original."""
    net = rl.nn.Linear(3, 2, generator=rl.Generator(1))
    optimizer = rl.optim.Adam([{"params": [net.weight], "lr": 0.1}, {"params": [net.bias]}], lr=0.01)
    x = rl.ones(4, 3)

    def step(network, optimizer):
        optimizer.zero_grad()
        network(x).pow(2).sum().backward()
        optimizer.step()

    step(net, optimizer)
    twin, other = copy.deepcopy((net, optimizer))
    assert [group["lr"] for group in other.param_groups] == [0.1, 0.01]
    before = net.weight.detach().clone()
    step(twin, other)
    assert net.weight.tolist() == before.tolist()
    step(net, optimizer)
    assert twin.weight.tolist() == net.weight.tolist() != before.tolist()
    other.param_groups[0]["lr"] = 0.5
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_copy_of_a_graph_and_its_optimizer_survives_surgery():
    net = rl.nn.GraphNetwork(2, 1)
    net.add_edge("input0", "output0", 1.0)
    optimizer = rl.optim.Adam(net.parameters(), lr=0.1)
    net(rl.ones(1, 2)).sum().backward()
    optimizer.step()
    twin, other = copy.deepcopy((net, optimizer))
    twin.add_edge("input1", "output0", 2.0)
    assert len(other.state[twin.weight]["exp_avg"]) == 2
    assert len(optimizer.state[net.weight]["exp_avg"]) == 1
    other.zero_grad()
    twin(rl.ones(1, 2)).sum().backward()
    other.step()
    assert net.weight.tolist() != twin.weight.tolist()[:1]


@pytest.mark.parametrize("size", [3, 40_000], ids=["small", "in two parts"])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if not name.startswith("LBFGS")])
def test_a_compiled_step_is_the_eager_one(name, size):
    """Also if a step is cut for two cores: numbers that belong to a whole parameter are advanced once."""
    results = []
    for compiled in (False, True):
        generator = np.random.default_rng(1)
        w = rl.nn.Parameter(rl.tensor(generator.normal(size=size).astype(np.float32)))
        optimizer = make(name, [w])

        def step(x, w=w, optimizer=optimizer):
            optimizer.zero_grad()
            ((w - x) ** 2).sum().backward()
            optimizer.step()

        run_step = rl.compile(step) if compiled else step
        for _ in range(7):
            run_step(rl.tensor(generator.normal(size=size).astype(np.float32)))
        results.append((w.detach().numpy().tobytes(), [v.numpy().tobytes() for v in optimizer.state[w].values()]))
    assert results[0] == results[1]


def test_a_step_in_two_parts_is_that_of_the_elements_alone():
    for name in ("NAdam", "ASGD settings", "RAdam"):
        values = np.random.default_rng(2).normal(size=40_000).astype(np.float32)
        whole = rl.nn.Parameter(rl.tensor(values))
        parts = [rl.nn.Parameter(rl.tensor(part)) for part in np.split(values, 8)]
        one, many = make(name, [whole]), make(name, parts)
        for _ in range(6):
            for optimizer, loss in ((one, whole.square().sum()), (many, sum(p.square().sum() for p in parts))):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        np.testing.assert_array_equal(whole.detach().numpy(), np.concatenate([p.detach().numpy() for p in parts]))


def test_lbfgs_finds_the_minimum_of_rosenbrocks_valley():
    x = rl.nn.Parameter(rl.tensor([-1.2, 1.0]))
    optimizer = rl.optim.LBFGS([x], line_search_fn="strong_wolfe", max_iter=100)
    loss = optimizer.step(lambda: again(optimizer, lambda: (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2))
    assert loss.item() > 20.0  # the loss before the first step
    assert_close(x.detach(), [1.0, 1.0], each=1e-3)


def test_lbfgs_says_what_it_needs():
    x, y = rl.nn.Parameter(rl.ones(1)), rl.nn.Parameter(rl.ones(1))
    with pytest.raises(RuntimeError, match="closure"):
        rl.optim.LBFGS([x]).step()
    with pytest.raises(ValueError, match="one group"):
        rl.optim.LBFGS([{"params": [x]}, {"params": [y]}])
    with pytest.raises(ValueError, match="strong_wolfe"):
        rl.optim.LBFGS([x], line_search_fn="armijo")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("NAdam", {"momentum_decay": -1.0}),
        ("NAdam", {"betas": (1.0, 0.9)}),
        ("RAdam", {"eps": -1.0}),
        ("Adamax", {"lr": -1.0}),
        ("Adadelta", {"rho": 1.5}),
        ("Rprop", {"etas": (1.2, 0.5)}),
        ("ASGD", {"weight_decay": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings):
    with pytest.raises(ValueError, match="must be"):
        getattr(rl.optim, kind)([rl.nn.Parameter(rl.ones(1))], **settings)


def test_a_plateau_schedule_continues_from_its_state():
    optimizer = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=1.0)
    schedule = rl.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    for loss in (1.0, 2.0):
        schedule.step(rl.tensor(loss))
    other = rl.optim.SGD([rl.nn.Parameter(rl.ones(1))], lr=1.0)
    twin = rl.optim.lr_scheduler.ReduceLROnPlateau(other, factor=0.5, patience=1)
    twin.load_state_dict(schedule.state_dict())
    twin.step(2.0)
    assert twin.get_last_lr() == [0.5]
    assert other.param_groups[0]["lr"] == 0.5


# --- Muon ------------------------------------------------------------------------------------------------------------


def muon_step(p, g, buffer, lr, ratio, nesterov=True, weight_decay=0.1, momentum=0.95):
    """One step in float64: (parameter, buffer)."""
    buffer = momentum * buffer + (1 - momentum) * g
    x = (1 - momentum) * g + momentum * buffer if nesterov else buffer
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return p * (1 - lr * weight_decay) - lr * ratio * x, buffer


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
@pytest.mark.parametrize(
    ("settings", "ratio"), [({}, None), ({"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}, 0.2 * 5**0.5)]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_muon_follows_its_formula(shape, settings, ratio, compiled):
    random = np.random.default_rng(1)
    start, target = random.normal(size=shape), random.normal(size=shape)
    p = rl.tensor(start.astype(np.float32), requires_grad=True)
    optimizer = rl.optim.Muon([p], lr=0.05, **settings)
    goal = rl.tensor(target.astype(np.float32))

    def step():
        optimizer.zero_grad()
        (p - goal).square().sum().backward()
        optimizer.step()

    run = rl.compile(step) if compiled else step
    q, buffer = start, np.zeros(shape)
    ratio = ratio or max(1.0, shape[0] / shape[1]) ** 0.5
    for k in range(6):
        if k == 3:
            optimizer.param_groups[0]["lr"] = 0.02
        run()
        q, buffer = muon_step(q, 2 * (q - target), buffer, 0.05 if k < 3 else 0.02, ratio, settings.get("nesterov", True))
        np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-4, atol=1e-4)
    if compiled:
        assert len(run.programs) == 1


def test_muon_refuses_what_is_not_a_matrix():
    with pytest.raises(ValueError, match=r"matrices, got a parameter of shape \[3\]"):
        rl.optim.Muon([rl.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match="adjust_lr_fn must be one of"):
        rl.optim.Muon([rl.ones(3, 3, requires_grad=True)], adjust_lr_fn="other")


CHANGES = {
    "state.clear": lambda o, w: o.state.clear(),
    "state.pop": lambda o, w: o.state.pop(w),
    "state.popitem": lambda o, w: o.state.popitem(),
    "del state[p]": lambda o, w: o.state.__delitem__(w),
    "state[p] =": lambda o, w: o.state.__setitem__(w, {}),
    "state.update": lambda o, w: o.state.update({w: {}}),
    "state |=": lambda o, w: o.state.__ior__({w: {}}),
    "state =": lambda o, w: setattr(o, "state", {}),
    "state[p].clear": lambda o, w: o.state[w].clear(),
    "state[p][name] =": lambda o, w: o.state[w].__setitem__("exp_avg", rl.zeros(2, 3)),
    "param_groups.pop": lambda o, w: o.param_groups.pop(),
    "param_groups.clear": lambda o, w: o.param_groups.clear(),
    "param_groups =": lambda o, w: setattr(o, "param_groups", o.param_groups[:1]),
    "params.pop": lambda o, w: o.param_groups[0]["params"].pop(),
    "params.remove": lambda o, w: o.param_groups[0]["params"].remove(o.param_groups[0]["params"][0]),
    "params.append": lambda o, w: o.param_groups[0]["params"].append(o.param_groups.pop()["params"][0]),
    "del params[0]": lambda o, w: o.param_groups[0]["params"].__delitem__(0),
    "params[:] =": lambda o, w: o.param_groups[0]["params"].__setitem__(slice(None), [w]),
    "params =": lambda o, w: o.param_groups[0].__setitem__("params", [w]),
    "group.update": lambda o, w: o.param_groups[0].update(eps=0.1),
    "group |=": lambda o, w: o.param_groups[0].__ior__({"eps": 0.1}),
    "group.pop": lambda o, w: o.param_groups[0].update(eps=o.param_groups[0].pop("eps") * 1e6),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_recorded_step_follows_every_change_of_its_optimizer(change):
    """A change between two steps counts from the next step on, as without recording: see the module `rl_lab.optim`."""

    def weights(compiled: bool) -> list[list]:
        rl.manual_seed(0)
        net = rl.nn.Sequential(rl.nn.Linear(3, 2), rl.nn.Linear(2, 2, bias=False))
        x = rl.randn(8, 3)
        groups = [{"params": list(net[0].parameters())}, {"params": list(net[1].parameters()), "lr": 0.05}]
        optimizer = rl.optim.Adam(groups, lr=0.1)

        def step() -> None:
            optimizer.zero_grad()
            (net(x) ** 2).mean().backward()
            optimizer.step()

        run = rl.compile(step) if compiled else step
        for i in range(6):
            run()
            if i == 3:
                CHANGES[change](optimizer, net[0].weight)
        return [p.detach().tolist() for p in net.parameters()]

    assert weights(True) == weights(False)


ELEMENTWISE = [name for name in OPTIMIZERS if not name.startswith(("LBFGS", "Muon", "SparseAdam"))]


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_stays_where_it_is_and_is_seen(name, strange):
    """As in PyTorch, the parameter is NaN afterwards, or moves by the rate where only the gradient's sign counts."""
    both, alone = (rl.ones(n).requires_grad_() for n in (2, 1))
    for parameter, gradient in ((both, [1.0, strange]), (alone, [1.0])):
        optimizer = make(name, [parameter])
        for _ in range(1 if name.startswith("Adafactor") else 2):  # whose second step depends on the norm of all parameters
            parameter.grad = rl.tensor(gradient)
            optimizer.step()
    first, second = both.detach().numpy()
    assert first == alone.item() or name.startswith("Adafactor")
    assert np.isfinite(first)
    if np.isnan(strange) and not name.startswith("Rprop"):
        assert np.isnan(second)


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if not name.startswith(("Adafactor", "ASGD"))])
def test_an_infinite_parameter_stays_infinite_without_decay(name):
    kind, settings = OPTIMIZERS[name]
    parameter = rl.tensor([np.inf]).requires_grad_()
    kept = {key: value for key, value in settings.items() if key not in ("weight_decay", "lr_decay")}
    optimizer = getattr(rl.optim, kind)([parameter], **kept, weight_decay=0.0) if kind != "Rprop" else make(name, [parameter])
    parameter.grad = rl.ones(1)
    optimizer.step()
    assert parameter.item() == np.inf


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RMSprop"])
def test_a_tiny_gradient_moves_as_far_as_any_without_epsilon(kind):
    moved = []
    for gradient in (1.0, 1e-18):
        parameter = rl.ones(1).requires_grad_()
        optimizer = getattr(rl.optim, kind)([parameter], lr=0.1, eps=0.0, weight_decay=0.0)
        parameter.grad = rl.full((1,), gradient)
        optimizer.step()
        moved.append(parameter.item())
    assert moved[1] == pytest.approx(moved[0], rel=1e-4)


def test_named_parameters_are_parameters_and_a_tensor_is_not_a_list():
    net = rl.nn.Linear(2, 1)
    named, plain = (rl.optim.SGD(given, lr=0.1) for given in (net.named_parameters(), net.parameters()))
    assert [id(p) for p in named.param_groups[0]["params"]] == [id(p) for p in plain.param_groups[0]["params"]]
    with pytest.raises(TypeError, match=r"pass \[parameter\]"):
        rl.optim.Adam(net.weight)
    with pytest.raises(TypeError, match="a schedule needs an optimizer, got Linear"):
        rl.optim.lr_scheduler.StepLR(net, 2)
