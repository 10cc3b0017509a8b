"""Tensors: memory that is shared or not, layout, conversion to Python and NumPy."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn
from tests.engine import declarations


def test_data_is_copied_or_shared_as_promised():
    array = np.zeros(3, np.float32)
    copied = rl.tensor(array)
    shared = rl.from_numpy(array)
    converted = rl.as_tensor(array.astype(np.float64))
    array[0] = 1.0
    assert copied.tolist() == [0.0] * 3
    assert shared.tolist() == [1.0, 0.0, 0.0]
    assert converted.tolist() == [0.0] * 3
    shared.mul_(2)
    assert array[0] == 2.0
    assert rl.as_tensor(shared) is shared
    window = shared.numpy()
    window[1] = 5.0
    assert shared.tolist() == [2.0, 5.0, 0.0]


def test_numpy_outlives_its_tensor():
    window = rl.full((1000,), 3.0).numpy()
    others = [rl.zeros(1000) for _ in range(10)]  # a new tensor would take the block if it were free
    assert (window == 3.0).all()
    assert len(others) == 10


def test_layout():
    x = rl.zeros(2, 3)
    assert (x.stride(), x.t().stride(), x.t().stride(0)) == ((3, 1), (1, 3), 1)
    assert x.is_contiguous()
    assert not x.t().is_contiguous()
    assert x[1].storage_offset() == 3
    assert x[1].data_ptr() == x.data_ptr() + 3 * x.element_size()
    assert (x.numel(), x.nelement(), x.dim(), x.ndim, len(x), x.size(1), x.shape) == (6, 6, 2, 2, 2, 3, (2, 3))
    assert x.t().contiguous().data_ptr() != x.data_ptr()
    assert x.contiguous() is x


def test_likeness():
    x = rl.arange(6.0).reshape(2, 3)
    other = rl.zeros(3, 2, dtype=rl.long)
    assert x.view_as(other).shape == x.t().reshape_as(other).shape == (3, 2)
    assert x.type_as(other).dtype is rl.int64
    assert x.new_full((2,), 4.0).tolist() == [4.0, 4.0]
    assert other.new_ones(2).tolist() == [1, 1]
    assert rl.empty_like(other).dtype is rl.int64
    assert x.dtype.is_floating_point
    assert x.clone().clip_(1, 2).max().item() == 2.0


def test_python_values():
    assert float(rl.tensor(1.5)) == 1.5
    assert int(rl.tensor([3])) == 3
    assert [10, 20, 30][rl.tensor(1)] == 20
    assert bool(rl.tensor(True))
    assert f"{rl.tensor(1.25):.1f}" == "1.2"
    assert [row.tolist() for row in rl.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    for call in (lambda x: x.item(), bool, float):
        with pytest.raises((RuntimeError, ValueError)):
            call(rl.zeros(2))
    with pytest.raises(TypeError):
        list(rl.tensor(1.0))


def test_numpy_operands():
    x = rl.tensor([1.0, 2.0])
    assert (x * np.float32(2)).tolist() == [2.0, 4.0]
    assert (np.float64(2) * x).tolist() == [2.0, 4.0]
    assert np.asarray(x).dtype == np.float32
    assert np.stack([x, x]).shape == (2, 2)


def test_detach_in_place():
    x = rl.ones(2, requires_grad=True)
    y = x * 2
    y.detach_()
    assert y.is_leaf
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match=r"use x = x.detach\(\)"):
        (x * 2)[0].detach_()


def test_a_view_of_a_detached_base_stays_on_the_tape():
    x = rl.ones(3, requires_grad=True)
    y = x * 1
    view = y[:2]
    y.mul_(2)
    y.detach_()
    assert view.requires_grad
    view.sum().backward()
    assert x.grad is None


def test_a_recorded_program_notices_detach_in_place():
    weight = rl.ones(2, requires_grad=True)
    x = rl.ones(2, requires_grad=True)

    @rl.compile
    def step():
        (weight * x).sum().backward()

    for _ in range(3):
        step()
    weight.grad = x.grad = None
    weight.detach_()
    step()
    assert weight.grad is None
    assert x.grad.tolist() == [1.0, 1.0]


def test_only_the_cpu():
    x = rl.ones(2)
    assert x.to("cpu") is x
    with pytest.raises(RuntimeError, match="cuda"):
        x.to("cuda")
    with pytest.raises(RuntimeError, match="cuda"):
        rl.zeros(2, device="cuda:0")


def test_operators_on_bits():
    """& | ^ ~ are logical for bools and bitwise for integers. They refuse floats."""
    a, b = np.array([6, -3, 0, 2**40 + 1]), np.array([3, 5, -1, 1])
    x, y = rl.tensor(a), rl.tensor(b)
    for ours, theirs in ((x & y, a & b), (x | y, a | b), (x ^ y, a ^ b), (~x, ~a), (x & 4, a & 4)):
        assert ours.dtype is rl.int64
        assert ours.tolist() == theirs.tolist()
    p, q = rl.tensor([True, True, False]), rl.tensor([True, False, False])
    assert [(p & q).tolist(), (p | q).tolist(), (p ^ q).tolist(), (~p).tolist()] == [
        [True, False, False],
        [True, True, False],
        [False, True, False],
        [False, False, True],
    ]
    with pytest.raises(TypeError, match="bitwise_and takes bool, uint8 or int64"):
        rl.tensor([1.0]) & rl.tensor([1.0])


def test_what_is_assigned_may_have_leading_ones():
    x = rl.zeros(3, 2)
    x[0] = rl.tensor([[[1.0, 2.0]]])
    x[rl.tensor([1, 2])] = rl.ones(1, 2, 2)
    assert x.tolist() == [[1.0, 2.0], [1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(rl.errors.ShapeError, match=r"\[2, 2\]"):
        x[0] = rl.ones(2, 2)


def test_a_bool_tensor_is_written_at_indices():
    x = rl.zeros(4, dtype=rl.bool)
    x[rl.tensor([1, -1])] = True
    assert x.tolist() == [False, True, False, True]
    x[rl.tensor([1, 2])] = rl.tensor([False, True])
    assert x.tolist() == [False, False, True, True]
    assert x.dtype is rl.bool


# --- the methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x + 1,
        lambda x: x @ x.T,
        lambda x: x.view(-1),
        lambda x: x.grad,
        lambda x: x.detach(),
        lambda x: nn.Parameter(x.detach()),
        lambda x: x.clone().normal_(),
    ],
)
def test_tab_completion_lists_the_methods_of_every_tensor(make):
    import rlcompleter

    x = rl.ones(2, 2, requires_grad=True)
    x.sum().backward()
    value = make(x)
    names = set(dir(value))
    assert {"relu", "sum", "reshape", "gather", "sort", "normal_", "add_", "backward", "grad", "T", "__add__"} <= names
    for name in names:
        if not (name in ("H", "mH", "mT") and value.dim() < 2):
            getattr(value, name)
    assert [m.rstrip("()") for m in rlcompleter.Completer({"value": value}).attr_matches("value.resh")] == [
        "value.reshape",
        "value.reshape_as",
    ]


def test_the_declared_methods_are_those_that_there_are():
    assert declarations.PATH.read_text(encoding="utf-8") == declarations.declarations()
