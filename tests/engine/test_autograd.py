"""User-defined functions, gradients checked by finite differences, and the search for NaN."""

from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.autograd import Function, detect_anomaly, gradcheck, gradgradcheck, set_detect_anomaly
from rl_lab.autograd.function import once_differentiable
from rl_lab.errors import AnomalyError, NumericalError, StateError

# --- Function ------------------------------------------------------------------------------------------------------------


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (y,) = ctx.saved_tensors
        return gradient * y


class Product(Function):
    """(x * y, x + y), with a number as a third input, which has no gradient."""

    @staticmethod
    def forward(ctx, x, y, scale):
        ctx.save_for_backward(x, y)
        ctx.scale = scale
        ctx.flags = ctx.needs_input_grad
        return x * y * scale, x + y

    @staticmethod
    def backward(ctx, to_product, to_sum):
        x, y = ctx.saved_tensors
        to_x = to_product * y * ctx.scale + to_sum if ctx.needs_input_grad[0] else None
        to_y = to_product * x * ctx.scale + to_sum if ctx.needs_input_grad[1] else None
        return to_x, to_y, None


class Square(Function):
    """The same with setup_context."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * x * 2.0


class Double(Function):
    """The same, written in place."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2.0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2.0


def test_first_and_second_derivatives():
    x = rl.tensor([0.5, -1.0], requires_grad=True)
    y = Exp.apply(x)
    assert type(y.node).__name__ == "Node"
    (first,) = rl.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = rl.autograd.grad(first.sum(), x)
    np.testing.assert_allclose(first.detach().numpy(), np.exp([0.5, -1.0]), rtol=1e-6)
    np.testing.assert_allclose(second.numpy(), np.exp([0.5, -1.0]), rtol=1e-6)


def test_several_results_and_arguments_without_gradient():
    x, y = rl.tensor([2.0], requires_grad=True), rl.tensor([3.0], requires_grad=True)
    product, total = Product.apply(x, y, 10.0)
    (product * 2.0 + total).sum().backward()
    assert (x.grad.item(), y.grad.item()) == (61.0, 41.0)
    x.grad = y.grad = None
    product, total = Product.apply(x, y, 10.0)
    total.sum().backward()  # the second result is not used: its gradient is 0
    assert (x.grad.item(), y.grad.item()) == (1.0, 1.0)
    x.grad = None
    product, _ = Product.apply(x, y.detach(), 10.0)
    product.sum().backward()
    assert x.grad.item() == 30.0


def test_the_newer_form():
    x = rl.tensor([3.0], requires_grad=True)
    Square.apply(x).sum().backward()
    assert x.grad.item() == 6.0
    assert gradcheck(Square.apply, x)
    assert gradgradcheck(Square.apply, x)


def test_a_function_in_place():
    x = rl.ones(2, requires_grad=True)
    y = x * 3.0
    assert Double.apply(y) is y
    y.sum().backward()
    assert y.tolist() == [6.0, 6.0]
    assert x.grad.tolist() == [6.0, 6.0]
    with pytest.raises(StateError, match="leaf"):
        Double.apply(x)


def test_off_the_tape_nothing_is_kept():
    with rl.no_grad():
        assert not Exp.apply(rl.ones(1, requires_grad=True)).requires_grad
    assert not Exp.apply(rl.ones(1)).requires_grad


def test_a_saved_value_changed_in_place_is_noticed():
    x = rl.ones(1, requires_grad=True)
    y = Exp.apply(x)
    with rl.no_grad():
        y.add_(1.0)
    with pytest.raises(StateError, match="inplace"):
        y.sum().backward()
    y = Exp.apply(x)
    y.sum().backward()
    with pytest.raises(StateError, match="second time"):
        y.sum().backward()


def test_what_a_function_does_wrong_is_said():
    class TooMany(Exp):
        @staticmethod
        def backward(ctx, gradient):
            return gradient, gradient

    class WrongShape(Exp):
        @staticmethod
        def backward(ctx, gradient):
            return gradient.sum().reshape(1, 1)

    x = rl.ones(2, requires_grad=True)
    with pytest.raises(StateError, match="2 gradients"):
        TooMany.apply(x).sum().backward()
    with pytest.raises(StateError, match="shape"):
        WrongShape.apply(x * 1.0).sum().backward()
    with pytest.raises(StateError, match="apply"):
        Exp()


@pytest.mark.parametrize(("size", "expected"), [((), 6.0), ((1,), [6.0]), ((3,), [2.0, 2.0, 2.0]), ((1, 3), [[2.0, 2.0, 2.0]])])
@pytest.mark.parametrize("leaf", [True, False])
def test_a_gradient_of_a_broadcast_argument_is_summed_as_in_pytorch(size, expected, leaf):
    """A backward that ignores broadcasting returns a gradient of the result's shape."""

    class Spread(Function):
        @staticmethod
        def forward(ctx, x):
            return x * rl.ones(3)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2.0

    x = rl.full(size, 5.0).requires_grad_()
    Spread.apply(x if leaf else x * 1.0).sum().backward()
    assert x.grad.shape == x.shape
    assert x.grad.tolist() == expected


def test_once_differentiable():
    class Once(Exp):
        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            (y,) = ctx.saved_tensors
            return gradient * y

    x = rl.ones(1, requires_grad=True)
    Once.apply(x).backward()
    np.testing.assert_allclose(x.grad.item(), np.e, rtol=1e-6)
    (first,) = rl.autograd.grad((Once.apply(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(StateError, match="once_differentiable"):
        first.sum().backward()


def test_non_differentiable_results_and_missing_gradients():
    class Largest(Function):
        @staticmethod
        def forward(ctx, x):
            values, index = x.max(1)
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(index)
            ctx.save_for_backward(index)
            ctx.shape = x.shape
            return values, index, x * 2.0

        @staticmethod
        def backward(ctx, to_values, to_index, to_double):
            assert to_index is None
            assert to_double is None
            (index,) = ctx.saved_tensors
            return rl.zeros(ctx.shape).scatter(1, index.unsqueeze(1), to_values.unsqueeze(1))

    x = rl.tensor([[1.0, 3.0], [4.0, 2.0]], requires_grad=True)
    values, index, _ = Largest.apply(x)
    assert not index.requires_grad
    values.sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_a_function_is_recorded_by_compile():
    w = rl.nn.Parameter(rl.tensor([0.5, 1.5]))
    optimizer = rl.optim.SGD([w], lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (Exp.apply(w) * x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    paths = []
    for run in (step, rl.compile(step)):
        with rl.no_grad():
            w.copy_(rl.tensor([0.5, 1.5]))
        paths.append([run(rl.tensor([1.0, float(k)])).item() for k in range(5)] + w.tolist())
    assert paths[0] == paths[1]


# --- gradcheck -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x * y,
        lambda x, y: (x @ y.t()).tanh(),
        lambda x, y: (x.exp(), (x * y).sum(1)),
        lambda x, y: rl.nn.functional.softmax(x, 1) / (1.0 + y * y),
    ],
)
def test_right_gradients_pass(function):
    x = rl.tensor([[0.5, -0.3], [0.2, 0.8]], requires_grad=True)
    y = rl.tensor([[1.5, 0.3], [-0.7, 0.4]], requires_grad=True)
    assert gradcheck(function, (x, y))
    assert gradcheck(function, (x, y.detach()), eps=1e-6, atol=1e-4)
    assert gradgradcheck(function, (x, y))


@pytest.mark.parametrize("factor", [1.05, 0.0, -1.0])
def test_a_wrong_gradient_is_found(factor):
    class Wrong(Exp):
        @staticmethod
        def backward(ctx, gradient):
            (y,) = ctx.saved_tensors
            return gradient * y * factor

    x = rl.tensor([0.5, 0.1], requires_grad=True)
    with pytest.raises(RuntimeError, match="Jacobian of output 0 with respect to input 0"):
        gradcheck(Wrong.apply, x)
    assert not gradcheck(Wrong.apply, (x,), raise_exception=False)


def test_a_wrong_second_derivative_is_found():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * 3.0 * (x.detach() ** 2)

    x = rl.tensor([0.5, 0.7], requires_grad=True)
    assert gradcheck(Wrong.apply, x)
    with pytest.raises(RuntimeError, match="Jacobian"):
        gradgradcheck(Wrong.apply, x)


def test_gradcheck_needs_an_input():
    with pytest.raises(ValueError, match="requires grad"):
        gradcheck(lambda x: x, rl.ones(1))


# --- anomalies -----------------------------------------------------------------------------------------------------------


def line_of(text):
    """The number of the line of this file that holds the text, not counting the line that calls this function."""
    lines = Path(__file__).read_text(encoding="utf-8").split("\n")
    return next(k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line)


def test_the_operation_and_its_line_are_named():
    x = rl.tensor([0.0, 1.0], requires_grad=True)
    with detect_anomaly():
        y = (x - x).sqrt()  # the line that makes the infinity
        z = (y * 0.0).sum()
        with pytest.raises(AnomalyError, match=rf"sqrt.*test_autograd.py:{line_of('the line that makes the infinity')}"):
            z.backward()
    assert x.grad is None
    y = (x - x).sqrt()
    (y * 0.0).sum().backward()  # anomaly detection is off again: NaN passes
    assert np.isnan(x.grad.numpy()).any() or x.grad is not None
    assert not rl.is_anomaly_enabled()


def test_a_graph_built_before_says_so():
    x = rl.tensor([0.0], requires_grad=True)
    y = (x.sqrt() * 0.0).sum()
    with detect_anomaly(), pytest.raises(NumericalError, match="before detect_anomaly"):
        y.backward()


def test_modes():
    assert not rl.is_anomaly_enabled()
    with set_detect_anomaly(True, check_nan=False):
        assert rl.is_anomaly_enabled()
        assert not rl.is_anomaly_check_nan_enabled()
        x = rl.tensor([0.0], requires_grad=True)
        (x.sqrt() * 0.0).sum().backward()
    assert not rl.is_anomaly_enabled()
    set_detect_anomaly(True)
    try:
        assert rl.is_anomaly_check_nan_enabled()
    finally:
        set_detect_anomaly(False)
    with detect_anomaly():
        x = rl.ones(2, requires_grad=True)
        for loss in ((x * 2.0).sum(), x.unbind(0)[0], (x @ x).tanh()):
            loss.backward()


def test_a_function_of_ones_own_is_named():
    class Broken(Exp):
        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    x = rl.ones(1, requires_grad=True)
    with detect_anomaly(), pytest.raises(AnomalyError, match="Broken"):
        Broken.apply(x).backward()


# --- grad ----------------------------------------------------------------------------------------------------------------


def test_arguments_of_grad():
    x, unused = rl.tensor([2.0, 3.0], requires_grad=True), rl.ones(3, requires_grad=True)
    found = rl.autograd.grad(x.square().sum(), [x, unused], materialize_grads=True, only_inputs=True)
    assert [g.tolist() for g in found] == [[4.0, 6.0], [0.0, 0.0, 0.0]]
    with pytest.raises(StateError, match="not used"):
        rl.autograd.grad(x.square().sum(), [x, unused])
    with pytest.raises(ValueError, match="allow_unused"):
        rl.autograd.grad(x.sum(), x, allow_unused=False, materialize_grads=True)
    (jacobian,) = rl.autograd.grad(x.square(), x, rl.eye(2), is_grads_batched=True)
    assert jacobian.tolist() == [[4.0, 0.0], [0.0, 6.0]]
    rl.autograd.backward(x.square().sum() + unused.sum(), inputs=[x])
    assert x.grad.tolist() == [4.0, 6.0]
    assert unused.grad is None
