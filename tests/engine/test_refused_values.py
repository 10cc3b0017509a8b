"""What PyTorch refuses or writes in place: operators, hooks, modules, and arguments out of range."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn, optim
from rl_lab.engine.errors import StateError
from rl_lab.nn import functional as F


@pytest.mark.parametrize("operator", ["iand", "ior", "ixor", "ilshift", "irshift"])
@pytest.mark.parametrize("compiled", [False, True])
def test_operators_with_an_equals_sign_write_in_place(operator, compiled):
    x = rl.tensor([12, 5, 7])
    alias = x
    expected = getattr(np.array([12, 5, 7]), f"__{operator}__")(np.array([1, 2, 3]))

    def change(a, b):
        return getattr(a, f"__{operator}__")(b)

    changed = (rl.compile(change) if compiled else change)(x, rl.tensor([1, 2, 3]))
    assert alias.tolist() == changed.tolist() == expected.tolist()


def test_masks_are_narrowed_in_place():
    mask = rl.tensor([True, True, False])
    alias = mask
    mask &= rl.tensor([False, True, True])
    mask |= rl.tensor([False, False, True])
    assert alias.tolist() == [False, True, True]
    with pytest.raises(RuntimeError):
        mask &= rl.ones(2, 3, dtype=rl.bool)


@pytest.mark.parametrize("returned", [lambda g: g[:1], lambda g: 3, lambda g: g.long(), lambda g: g[None]])
@pytest.mark.parametrize("on_leaf", [True, False])
def test_a_hook_keeps_the_shape_of_the_gradient(returned, on_leaf):
    x = rl.ones(2, requires_grad=True)
    y = x * 2
    (x if on_leaf else y).register_hook(returned)
    with pytest.raises(StateError, match="a hook must return a gradient of shape"):
        y.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("as_bool", [True, False])
def test_a_position_that_may_attend_to_nothing_gets_zeros(as_bool):
    allowed = rl.tensor([[False, False], [True, False]])
    mask = allowed if as_bool else rl.where(allowed, 0.0, -np.inf)
    q, k, v = (rl.ones(2, 3, requires_grad=True) for _ in range(3))
    found = F.scaled_dot_product_attention(q, k, v, mask)
    assert found.tolist() == [[0.0] * 3, [1.0] * 3]
    found.sum().backward()
    assert all(np.isfinite(x.grad.numpy()).all() for x in (q, k, v))
    with pytest.raises(StateError, match="not both"):
        F.scaled_dot_product_attention(q, k, v, mask, is_causal=True)


# --- modules ---------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A layer with a count that is no tensor."""

    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.n = n

    def get_extra_state(self):
        return {"n": self.n}

    def set_extra_state(self, state):
        self.n = state["n"]


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.Sequential(nn.ReLU(), m)])
def test_extra_state_is_saved_and_loaded(wrap, tmp_path):
    first, second = wrap(Counting(5)), wrap(Counting(0))
    state = first.state_dict()
    assert [name for name in state if name.endswith("_extra_state")]
    second.load_state_dict(state)
    found = second if isinstance(second, Counting) else second[1]
    assert found.n == 5
    with pytest.raises(StateError, match=r"Missing key.*_extra_state"):
        second.load_state_dict({name: value for name, value in state.items() if "_extra" not in name})
    with pytest.raises(StateError, match=r"Unexpected key.*_extra_state"):
        nn.Linear(2, 2).load_state_dict({**nn.Linear(2, 2).state_dict(), "_extra_state": 3})


def assign(module, name, value):
    setattr(module, name, value)


REFUSED = {
    "a child replaced by a tensor": (TypeError, lambda: assign(nn.Sequential(nn.Linear(1, 1)), "0", rl.ones(1))),
    "a buffer replaced by a number": (TypeError, lambda: assign(nn.BatchNorm1d(2), "running_mean", 3.0)),
    "a tensor as parameter": (TypeError, lambda: nn.Module().register_parameter("w", rl.ones(2))),
    "a number as buffer": (TypeError, lambda: nn.Module().register_buffer("w", 3)),
    "a number as module": (TypeError, lambda: nn.Module().add_module("w", 3)),
    "a number in a chain": (TypeError, lambda: nn.Sequential().append(3)),
    "a name with a dot": (KeyError, lambda: nn.ModuleDict({"a.b": nn.ReLU()})),
    "an empty name": (KeyError, lambda: nn.Module().register_buffer("", rl.ones(1))),
    "a name of a method": (KeyError, lambda: nn.ModuleDict({"pop": nn.ReLU()})),
    "a name that is no text": (TypeError, lambda: nn.Module().add_module(3, nn.ReLU())),
    "a state with a number": (StateError, lambda: nn.Linear(1, 1).load_state_dict({"weight": 3, "bias": rl.ones(1)})),
    "half of an odd size": (RuntimeError, lambda: F.glu(rl.arange(3.0), 0)),
    "uniform integers": (RuntimeError, lambda: rl.zeros(2, dtype=rl.int64).uniform_()),
    "normal integers": (RuntimeError, lambda: rl.zeros(2, dtype=rl.int64).normal_()),
    "initial integers": (RuntimeError, lambda: nn.init.xavier_uniform_(rl.zeros(2, 2, dtype=rl.int64))),
    "a dimension that a number lacks": (IndexError, lambda: rl.tensor(3.0).argmax(1)),
    "a cycle of a fraction": (
        ValueError,
        lambda: optim.lr_scheduler.CosineAnnealingWarmRestarts(optim.SGD([nn.Parameter(rl.ones(1))], lr=1), 2, 1.5),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name):
    error, call = REFUSED[name]
    with pytest.raises(error):
        call()
