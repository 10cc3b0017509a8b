"""Fifty cases in which autograd must behave as in PyTorch 2.13, with PyTorch's answers.

Apart from the last case, the lab's own dtype rule, this file also passes with ``import torch as rl``.
"""

import copy
import gc
import math
import threading
import weakref

import numpy as np
import pytest

import rl_lab as rl

F = rl.nn.functional
inf, nan = math.inf, math.nan


def leaf(*values):
    """A vector that requires grad; a scalar if there is one value."""
    return rl.tensor(list(values) if len(values) > 1 else values[0], requires_grad=True)


def same(tensor, expected):
    """Whether shapes and values are equal; NaN equals NaN."""
    np.testing.assert_array_equal(tensor.detach().numpy(), np.asarray(expected, np.float32), strict=False)
    assert tuple(tensor.shape) == np.shape(expected)


def close(tensor, expected):
    assert tuple(tensor.shape) == np.shape(expected)
    np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-6, atol=1e-7)


# --- graph lifetime --------------------------------------------------------------------------------------------------


def test_01_second_backward_over_freed_values_raises():
    x = leaf(3.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    same(x.grad, 6.0)


def test_02_second_backward_is_allowed_when_nothing_was_saved():
    x = leaf(3.0)
    y = x + 1
    y.backward()
    y.backward()
    same(x.grad, 2.0)


def test_03_two_losses_on_a_shared_trunk_without_retain():
    x = leaf(2.0)
    trunk = x * x
    first, second = trunk * 3, trunk * 5
    first.backward()
    with pytest.raises(RuntimeError, match="second time"):
        second.backward()
    same(x.grad, 12.0)


def test_04_retained_graphs_add_up():
    x = leaf(2.0)
    trunk = x * x
    first, second = trunk * 3, trunk * 5
    first.backward(retain_graph=True)
    same(x.grad, 12.0)
    second.backward(retain_graph=True)
    same(x.grad, 32.0)
    (first + second).backward()
    same(x.grad, 64.0)


def test_05_diamonds_and_duplicate_roots_are_summed():
    x = leaf(3.0)
    (x * x + x).backward()
    same(x.grad, 7.0)
    x = leaf(3.0)
    y = x * 2
    rl.autograd.backward([y, y], retain_graph=True)
    same(x.grad, 4.0)
    same(rl.autograd.grad([y, y], [x])[0], 4.0)


def test_06_a_very_deep_graph():
    x = leaf(1.0)
    y = x
    for _ in range(150_000):
        y = y + 1
    y.backward()
    same(x.grad, 1.0)
    del y


def test_07_a_graph_is_freed_by_reference_counting():
    def use():
        x = rl.rand(4, 4, requires_grad=True)
        hidden = (x @ x).exp().tanh().softmax(1)
        value = (hidden[1:, 0] * hidden.norm()).sum()
        value.backward(retain_graph=True)
        return weakref.ref(hidden)

    use()  # once before: a first launch compiles, and the compiler leaves frames for the garbage collector
    gc.disable()
    try:
        assert use()() is None
    finally:
        gc.enable()


def test_08_an_exception_in_backward_leaves_the_leaves_alone():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    z = y * w

    def fail(gradient):
        raise ZeroDivisionError("in the middle")

    y.register_hook(fail)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        z.backward()
    assert x.grad is None


def test_09_retry_after_a_failed_hook_and_a_fixed_mask():
    x = leaf(2.0)
    y = x * x

    def fail(gradient):
        raise ZeroDivisionError

    handle = y.register_hook(fail)
    z = y * 3
    with pytest.raises(ZeroDivisionError):
        z.backward(retain_graph=True)
    handle.remove()
    z.backward(retain_graph=True)
    same(x.grad, 12.0)
    # a random mask, as of dropout, is part of the graph and stays the same
    rl.manual_seed(0)
    x = rl.ones(64, requires_grad=True)
    z = (x * rl.bernoulli(rl.full((64,), 0.5))).sum()
    (first,) = rl.autograd.grad(z, [x], retain_graph=True)
    (second,) = rl.autograd.grad(z, [x])
    same(first, second.numpy())
    assert 0 < float(first.sum()) < 64


# --- roots and gradients ---------------------------------------------------------------------------------------------


def test_10_the_root_has_one_element():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    (x * 2).sum().reshape(1, 1).backward()
    same(x.grad, [2.0, 2.0])


@pytest.mark.parametrize("shape", [(3,), (1,), (), (1, 2), (2, 1)])
def test_11_the_gradient_has_the_shape_of_the_root(shape):
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="ismatch in shape"):
        (x * 2).backward(rl.ones(shape))
    assert x.grad is None


def test_12_a_root_without_history_raises():
    with pytest.raises(RuntimeError, match="does not require grad"):
        rl.tensor(1.0).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        leaf(1.0).detach().backward()


def test_13_grad_keeps_its_identity_until_it_is_reset():
    x = leaf(2.0)
    (x * 3).backward()
    first = x.grad
    (x * 4).backward()
    assert x.grad is first
    same(first, 7.0)
    x.grad = None
    (x * 5).backward()
    assert x.grad is not first
    same(x.grad, 5.0)
    same(first, 7.0)


def test_14_gradients_share_no_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    given = rl.tensor([1.0, 1.0])
    (a + b).backward(given)
    with rl.no_grad():
        a.grad.mul_(10)
        given.mul_(100)
    same(a.grad, [10.0, 10.0])
    same(b.grad, [1.0, 1.0])
    x = leaf(1.0, 2.0)
    x.backward(given)
    with rl.no_grad():
        given.zero_()
    same(x.grad, [100.0, 100.0])


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_15_interior_gradients_are_kept_on_request():
    x = leaf(3.0)
    y, z = x * x, x * 2
    z.retain_grad()
    (y * z).backward()
    assert y.grad is None
    same(z.grad, 9.0)
    same(x.grad, 54.0)


def test_16_unused_inputs():
    x, other = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="used in the graph"):
        rl.autograd.grad(x * 2, [x, other])
    used, unused = rl.autograd.grad(x * 2, [x, other], allow_unused=True)
    same(used, 2.0)
    assert unused is None
    assert x.grad is None


def test_17_an_assigned_grad_has_the_shape_of_its_tensor():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="3"):
        x.grad = rl.ones(3)
    with pytest.raises(TypeError):
        x.grad = 1.0
    x.grad = rl.ones(2)
    (x * 2).sum().backward()
    same(x.grad, [3.0, 3.0])


def test_18_a_hook_may_replace_the_gradient():
    x = leaf(3.0)
    y = x * x
    handle = y.register_hook(lambda gradient: gradient * 10)
    y.backward(retain_graph=True)
    same(x.grad, 60.0)
    handle.remove()
    x.grad = None
    x.register_hook(lambda gradient: -gradient)
    x.register_hook(lambda gradient: None)
    y.backward()
    same(x.grad, -6.0)


def test_19_double_backward():
    x = leaf(3.0)
    (first,) = rl.autograd.grad(x**3, [x], create_graph=True)
    (second,) = rl.autograd.grad(first, [x], create_graph=True)
    (third,) = rl.autograd.grad(second, [x])
    for gradient, expected in ((first, 27.0), (second, 18.0), (third, 6.0)):
        same(gradient, expected)
    (plain,) = rl.autograd.grad(x**3, [x])
    with pytest.raises(RuntimeError, match="does not require grad"):
        rl.autograd.grad(plain, [x])


# --- in-place and version counters -----------------------------------------------------------------------------------


def test_20_in_place_on_a_leaf_that_requires_grad():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="leaf"):
        x[0].mul_(2)
    with pytest.raises(RuntimeError, match="leaf"):
        x[:1] = 5.0
    same(x, [1.0, 2.0])
    with rl.no_grad():
        x.add_(1)
        x[0] = 7.0
    same(x, [7.0, 3.0])
    assert x.requires_grad
    assert x.is_leaf


def test_21_a_saved_value_changed_before_backward():
    x = leaf(1.0, 2.0)
    factor = rl.tensor([3.0, 4.0])
    y = (x * factor).sum()
    factor.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    y = x.exp()
    z = y.sum()
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()
    assert x.grad is None


def test_22_an_operand_of_a_sum_may_change():
    x, other = leaf(1.0, 2.0), rl.tensor([3.0, 4.0])
    y = (x + other).sum()
    other.zero_()
    y.backward()
    same(x.grad, [1.0, 1.0])


def test_23_changes_through_views_and_detach_are_caught():
    for reach in (lambda t: t[0], lambda t: t.view(2, 1), lambda t: t.detach(), lambda t: t.detach()[1:]):
        x, factor = leaf(1.0, 2.0), rl.tensor([3.0, 4.0])
        y = (x * factor).sum()
        reach(factor).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    x, factor = leaf(1.0, 2.0), rl.tensor([3.0, 4.0])
    y = (x * factor).sum()
    factor.data.add_(1)
    y.backward()
    same(x.grad, [4.0, 5.0])


def test_24_an_optimiser_step_before_backward():
    w = rl.nn.Parameter(rl.tensor([1.0, 2.0]))
    x = leaf(1.0, 1.0)
    optimizer = rl.optim.SGD([w], lr=0.1)
    y = (w * x).sum()
    w.grad = rl.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_25_in_place_on_a_view_reaches_the_base():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    y[1:].mul_(10)
    same(y, [2.0, 40.0, 60.0])
    y.sum().backward()
    same(x.grad, [2.0, 20.0, 20.0])
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    part = y[:2]
    y.mul_(3)  # a write to the base reaches the view
    part.sum().backward()
    same(x.grad, [3.0, 3.0, 0.0])


def test_26_a_write_cuts_the_past_and_feeds_the_value():
    x, v = leaf(1.0, 2.0, 3.0), leaf([5.0])
    y = x * 2
    y[1:2] = v
    same(y, [2.0, 5.0, 6.0])
    (y * rl.tensor([1.0, 10.0, 100.0])).sum().backward()
    same(x.grad, [2.0, 0.0, 200.0])
    same(v.grad, [10.0])
    y = x * 2
    y[...] = 1.0  # no old part of the graph is left, yet the value still has a history
    assert y.requires_grad
    y.sum().backward()
    same(x.grad, [2.0, 0.0, 200.0])


def test_27_writes_that_cannot_be():
    with pytest.raises(RuntimeError):
        rl.zeros(1).expand(3).add_(1)
    with pytest.raises(RuntimeError):
        rl.zeros(3).add_(rl.ones(2, 3))
    with pytest.raises(RuntimeError):
        rl.zeros(3, dtype=rl.long).mul_(0.5)


# --- modes -----------------------------------------------------------------------------------------------------------


def test_28_detach():
    x = leaf(1.0, 2.0)
    d = (x * 1).detach()
    assert d.is_leaf
    assert not d.requires_grad
    assert d.grad_fn is None
    alias = x.detach()
    alias[0] = 9.0
    same(x, [9.0, 2.0])


def test_29_modes_nest_and_survive_exceptions():
    x = leaf(1.0)
    with rl.no_grad():
        assert not (x * 2).requires_grad
        with rl.enable_grad():
            assert (x * 2).requires_grad
        assert not rl.is_grad_enabled()
        with rl.set_grad_enabled(True):
            assert rl.is_grad_enabled()
        assert not rl.is_grad_enabled()
    assert rl.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), rl.no_grad():
        raise ZeroDivisionError
    assert rl.is_grad_enabled()


def test_30_modes_decorate_functions_and_generators():
    x = leaf(1.0)

    @rl.no_grad()
    def double():
        return x * 2

    @rl.no_grad()
    def doubles():
        sent = yield x * 2
        yield x * sent

    assert not double().requires_grad
    generator = doubles()
    assert not next(generator).requires_grad
    assert rl.is_grad_enabled()
    assert (x * 2).requires_grad
    assert not generator.send(3).requires_grad
    assert rl.is_grad_enabled()
    generator.close()


def test_31_modes_belong_to_the_thread():
    seen = []
    with rl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(rl.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_32_threads_add_into_one_leaf():
    x = rl.zeros(3, requires_grad=True)

    def work():
        for _ in range(1000):
            (x * 2).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(x.grad, [8000.0] * 3)


def test_33_what_can_require_grad():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="leaf"):
        (x * 2).requires_grad_(False)
    with pytest.raises(RuntimeError):
        rl.tensor([1, 2]).requires_grad_()
    with pytest.raises(RuntimeError):
        rl.tensor([True], requires_grad=True)
    assert not x.requires_grad_(False).requires_grad


def test_34_what_drops_grad():
    x = leaf(1.4, 2.6)
    for value in (x > 2, x == x, x.argmax(), x.long(), x.bool(), x.max(0).indices, x.isnan()):
        assert not value.requires_grad
    for value in (x.round(), x // 1, x.floor(), x.sign()):
        assert value.requires_grad
    (x.round() + x.floor()).sum().backward()
    same(x.grad, [0.0, 0.0])


def test_35_numpy_and_deepcopy():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="numpy"):
        (x * 2).numpy()
    with pytest.raises(RuntimeError):
        copy.deepcopy(x * 2)
    x.sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad
    same(twin.grad, [1.0, 1.0])
    with rl.no_grad():
        twin.add_(1)
    same(x, [1.0, 2.0])


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"), [((3, 1), (1, 4)), ((), (2, 3)), ((2, 3), ()), ((4, 0), (4, 1)), ((3,), (2, 3)), ((1, 1), (2,)), ((0,), (1,))]
)
def test_36_gradients_of_broadcast_operands_are_reduced(a, b):
    x, y = rl.full(a, 2.0, requires_grad=True), rl.full(b, 3.0, requires_grad=True)
    z = x * y
    assert tuple(z.shape) == np.broadcast_shapes(a, b)
    z.sum().backward()
    size = math.prod(z.shape)
    same(x.grad, np.full(a, 3.0 * size / max(math.prod(a), 1)))
    same(y.grad, np.full(b, 2.0 * size / max(math.prod(b), 1)))


def test_36_shapes_that_do_not_fit():
    with pytest.raises(RuntimeError, match="2"):
        rl.ones(2) * rl.ones(3)


def test_37_transposed_reshaped_and_expanded_inputs():
    x = rl.arange(6.0).reshape(2, 3).requires_grad_()
    (x.t() * rl.arange(6.0).reshape(3, 2)).sum().backward()
    same(x.grad, [[0, 2, 4], [1, 3, 5]])
    x = leaf([[1.0], [2.0]])
    (x.expand(2, 3).reshape(6) * rl.arange(6.0)).sum().backward()
    same(x.grad, [[3.0], [12.0]])
    with pytest.raises(RuntimeError, match="view"):
        rl.zeros(2, 3).t().view(6)
    with pytest.raises(RuntimeError, match="view"):
        rl.zeros(2, 1).expand(2, 3).view(6)
    assert rl.zeros(2, 3).t().view(3, 2, 1).shape == (3, 2, 1)


def test_38_empty_tensors():
    x = rl.zeros(0, requires_grad=True)
    same(x.sum(), 0.0)
    same(x.mean(), nan)
    same(x.logsumexp(0), -inf)
    same(x.prod(), 1.0)
    with pytest.raises((RuntimeError, IndexError)):
        x.max()
    with pytest.raises((RuntimeError, IndexError)):
        x.argmax()
    a, b = rl.zeros(2, 0, requires_grad=True), rl.zeros(0, 3, requires_grad=True)
    product = a @ b
    same(product, np.zeros((2, 3)))
    (product.sum() + x.sum()).backward()
    assert [tuple(t.grad.shape) for t in (a, b, x)] == [(2, 0), (0, 3), (0,)]


def test_39_a_negative_step_raises():
    with pytest.raises(ValueError, match="step"):
        rl.arange(3)[::-1]


# --- indexing --------------------------------------------------------------------------------------------------------


def test_40_duplicates_accumulate():
    x = leaf(1.0, 2.0, 3.0)
    x[rl.tensor([0, 2, 0])].sum().backward()
    same(x.grad, [2.0, 0.0, 1.0])
    x.grad = None
    (x.gather(0, rl.tensor([1, 1, 1])) * rl.tensor([1.0, 2.0, 3.0])).sum().backward()
    same(x.grad, [0.0, 6.0, 0.0])
    source = leaf(1.0, 10.0, 100.0)
    added = rl.zeros(2).scatter_add(0, rl.tensor([1, 1, 0]), source)
    same(added, [100.0, 11.0])
    (added * rl.tensor([2.0, 3.0])).sum().backward()
    same(source.grad, [3.0, 3.0, 2.0])


def test_41_out_of_bounds_raises_and_negative_wraps():
    x = rl.arange(6.0).reshape(2, 3)
    for key in (
        2,
        -3,
        (0, 3),
        rl.tensor([0, 2]),
        rl.tensor([-3]),
        (slice(None), rl.tensor([3])),
        (rl.tensor([0]), rl.tensor([3])),
    ):
        with pytest.raises(IndexError):
            x[key]
    with pytest.raises(IndexError):
        x[0, 0, 0]
    with pytest.raises(IndexError):
        x[rl.tensor([5])] = 1.0
    same(x[-1, rl.tensor([-1, -3])], [5.0, 3.0])
    for index in ([[3], [0]], [[-1], [0]]):
        with pytest.raises((RuntimeError, IndexError)):
            x.gather(1, rl.tensor(index))
        with pytest.raises((RuntimeError, IndexError)):
            x.scatter_add(1, rl.tensor(index), rl.ones(2, 1))
    with pytest.raises((RuntimeError, IndexError)):
        x.index_select(0, rl.tensor([2]))
    with pytest.raises(IndexError):
        x[rl.tensor([0.0])]
    with pytest.raises((TypeError, IndexError)):
        x[1.0]


def test_42_boolean_and_empty_masks():
    x = rl.arange(6.0).reshape(2, 3).requires_grad_()
    mask = rl.tensor([[True, False, True], [False, False, True]])
    same(x[mask], [0.0, 2.0, 5.0])
    x[mask].sum().backward()
    same(x.grad, [[1, 0, 1], [0, 0, 1]])
    same(x[rl.tensor([False, True])], [[3.0, 4.0, 5.0]])
    nothing = x[mask & False]
    assert nothing.shape == (0,)
    x.grad = None
    nothing.sum().backward()
    same(x.grad, np.zeros((2, 3)))
    with pytest.raises(IndexError):
        x[rl.tensor([True, False, True])]


# --- ties and edges --------------------------------------------------------------------------------------------------


def test_43_ties():
    for function in (lambda x: x.max(), lambda x: x.amax(0), lambda x: x.amax()):
        x = leaf(2.0, 1.0, 2.0)
        function(x).backward()
        same(x.grad, [0.5, 0.0, 0.5])
    a, b = leaf(1.0, 2.0), leaf(1.0, 3.0)
    rl.maximum(a, b).sum().backward()
    same(a.grad, [0.5, 0.0])
    same(b.grad, [0.5, 1.0])
    x = leaf(2.0, 1.0, 2.0)
    values, indices = x.max(0)
    assert int(indices) == 0
    values.backward()
    same(x.grad, [1.0, 0.0, 0.0])
    x = leaf(1.0, 2.0, 1.0)
    x.min(0).values.backward()
    same(x.grad, [1.0, 0.0, 0.0])


def test_44_slopes_at_kinks():
    for function, expected in (
        (rl.relu, 0.0),
        (rl.abs, 0.0),
        (lambda x: x.norm(), 0.0),
        (lambda x: x.clamp(0.0, 1.0), 1.0),
        (lambda x: x.clamp(-1.0, 0.0), 1.0),
        (lambda x: x.clamp(min=0.0), 1.0),
    ):
        x = leaf(0.0)
        function(x).backward()
        same(x.grad, expected)


def test_45_infinite_slopes():
    for function, at, value, slope in (
        (rl.sqrt, 0.0, 0.0, inf),
        (rl.log, 0.0, -inf, inf),
        (rl.log, -1.0, nan, -1.0),
        (lambda x: 1 / x, 0.0, inf, -inf),
        (rl.sqrt, -1.0, nan, nan),
    ):
        x = leaf(at)
        y = function(x)
        y.backward()
        same(y, value)
        same(x.grad, slope)


def test_46_zero_to_the_zero_and_one_element():
    x, p = leaf(0.0), leaf(0.0)
    y = x**p
    y.backward()
    same(y, 1.0)
    same(x.grad, 0.0)
    same(p.grad, 0.0)
    x = leaf(0.0)
    (x**0).backward()
    same(x.grad, 0.0)
    x = leaf([3.0])
    y = x.std()
    same(y, nan)
    y.backward()
    same(x.grad, [nan])
    same(leaf([3.0]).var(correction=0), 0.0)


def test_47_exact_tails():
    x = leaf(200.0)
    y = F.softplus(x)
    y.backward()
    same(y, 200.0)
    same(x.grad, 1.0)
    x = leaf(-200.0)
    y = F.logsigmoid(x)
    y.backward()
    same(y, -200.0)
    same(x.grad, 1.0)
    same(rl.sigmoid(rl.tensor([-200.0, 200.0])), [0.0, 1.0])
    same(rl.tensor([1000.0, 0.0]).log_softmax(0), [0.0, -1000.0])


def test_48_nan_passes_through():
    for function in (
        rl.relu,
        lambda x: x.clamp(0.0, 1.0),
        lambda x: rl.maximum(x, rl.tensor(1.0)),
        lambda x: rl.minimum(rl.tensor(1.0), x),
        lambda x: rl.stack([rl.tensor(1.0), x]).max(),
        lambda x: rl.stack([x, rl.tensor(1.0)]).max(0).values,
        rl.tanh,
        rl.sigmoid,
        F.softplus,
    ):
        same(function(rl.tensor(nan)), nan)
    same(rl.sign(rl.tensor(nan)), 0.0)


def test_49_where_does_not_hide_an_infinite_slope():
    x = leaf(0.0, 4.0)
    rl.where(x > 0, x.sqrt(), rl.zeros(2)).sum().backward()
    same(x.grad, [nan, 0.25])
    x = leaf(0.0, 4.0)
    rl.where(x > 0, rl.where(x > 0, x, rl.ones(2)).sqrt(), rl.zeros(2)).sum().backward()
    same(x.grad, [0.0, 0.25])


# --- dtypes ----------------------------------------------------------------------------------------------------------


def test_50_float32_is_the_only_differentiable_dtype():
    quotient = rl.tensor([1, 3]) / rl.tensor([2, 2])
    assert quotient.dtype is rl.float32
    same(quotient, [0.5, 1.5])
    with pytest.raises(RuntimeError):
        rl.tensor([1, 2]).mean()
    assert rl.tensor(np.zeros(2)).dtype is rl.float32
    assert rl.from_numpy(np.zeros(2, np.float64)).dtype is rl.float32
    for dtype in ("float64", np.float64):
        with pytest.raises(TypeError, match="float32"):
            rl.zeros(2, dtype=dtype)
    with pytest.raises(RuntimeError):
        rl.ones(2, 2) @ rl.ones(2, 2, dtype=rl.long)


def test_50_losses_honour_the_incoming_gradient():
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        x = leaf(1.0, 4.0)
        loss(x, rl.zeros(2)).backward()
        alone = x.grad
        x = leaf(1.0, 4.0)
        (loss(x, rl.zeros(2)) * 3 + x.sum()).backward()
        close(x.grad, 3 * alone.numpy() + 1)
    x = rl.arange(6.0).reshape(2, 3).requires_grad_()
    (F.cross_entropy(x, rl.tensor([0, 2])) * -2).backward()
    close(x.grad.sum(1), [0.0, 0.0])
    close(x.grad[0, 0], 2 * (1 - math.exp(-2.4076059644443806)) / 2)


def test_a_view_made_before_its_base_joined_the_tape_is_on_it_afterwards():
    base, x = rl.tensor([2.0]), rl.tensor([3.0], requires_grad=True)
    part = base.view(1)
    part.log()  # read the flag of the part while it is off the tape
    base.mul_(x)
    for use in (lambda v: v.exp(), lambda v: v * v, lambda v: v[rl.tensor([0])], lambda v: v.view(1, 1) @ v.view(1, 1)):
        assert use(part).requires_grad
    (part * part).sum().backward()
    assert x.grad.tolist() == [24.0]  # (2 x)^2


def test_an_expanded_view_of_a_written_base_adds_up():
    x = rl.tensor([1.0, 2.0], requires_grad=True)
    base = x * 3
    rows = base.expand(4, 2)
    base.neg_()
    rows.sum().backward()
    assert x.grad.tolist() == [-12.0, -12.0]


def test_a_retained_gradient_of_a_view_follows_a_write():
    x = rl.ones(3, requires_grad=True)
    part = (x * 2)[:2]
    part.retain_grad()
    part[0] = 5.0
    part.sum().backward()
    assert part.grad.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [0.0, 2.0, 0.0]


def test_a_retained_gradient_is_nobody_elses_memory():
    x = rl.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    (given,) = rl.autograd.grad((y * 3).sum(), [y])
    given.zero_()
    assert y.grad.tolist() == [3.0, 3.0]


def test_a_second_backward_through_a_write_into_a_view_is_refused():
    x, y = rl.tensor(1.0, requires_grad=True), rl.zeros(3)
    y[0] = x
    y.sum().backward()
    with pytest.raises(rl.errors.StateError, match="second time"):
        y.sum().backward()


def test_nan_in_maximum_and_max():
    nan = float("nan")
    a, b = rl.tensor([nan, 1.0, 2.0], requires_grad=True), rl.tensor([1.0, nan, 2.0], requires_grad=True)
    rl.maximum(a, b).sum().backward()
    assert a.grad.tolist() == b.grad.tolist() == [1.0, 1.0, 0.5]
    x = rl.tensor([nan, 1.0, nan], requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.5, 0.0, 0.5]
    z = rl.tensor([nan, 0.2], requires_grad=True)
    z.clamp(0, 1).sum().backward()
    assert z.grad.tolist() == [0.0, 1.0]


def test_products_of_nothing_and_interpolation_twice():
    x = rl.zeros(0, 3, requires_grad=True)
    x.prod(1).sum().backward()
    assert x.grad.shape == (0, 3)
    a, b = rl.ones(2, requires_grad=True), rl.zeros(2, requires_grad=True)
    y = a.lerp(b, 0.25)
    y.sum().backward()
    y.sum().backward()  # nothing is saved
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.5, 1.5], [0.5, 0.5])


def test_tanh_reaches_one():
    x = rl.tensor([9.2, 12.0, 1e30, -9.2, -12.0, -1e30])
    assert x.tanh().tolist() == [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[[0, 0, 1]],
        lambda x: x[rl.tensor([True, False, True])],
        lambda x: x.repeat(2),
        lambda x: rl.stack([x, x]).max(0)[0],
        lambda x: rl.stack([x, x]) @ x,
        lambda x: rl.nn.functional.embedding(rl.tensor([0, 0]), x.unsqueeze(1)),
    ],
)
def test_a_result_in_fresh_memory_is_nobodys_view(make):
    """A write through a view of a tensor reaches the tensor's retained gradient, as in PyTorch."""
    x = rl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = make(x)
    y.retain_grad()
    view = y.unsqueeze(0)
    view.zero_()
    view.sum().backward()
    assert y.base is None
    assert y.grad.tolist() == rl.ones(y.shape).tolist()
