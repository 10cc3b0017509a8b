"""The gradient checker finds every planted error."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.tape import attach
from tests.checks import assert_close, check_gradients

A = np.linspace(-1.5, 2.0, 6, dtype=np.float32).reshape(2, 3)
B = np.linspace(0.5, 1.5, 3, dtype=np.float32)


def product_with(rule):
    """a * b with the gradient rule ``rule``."""

    def multiply(a, b):
        with rl.no_grad():
            value = a * b
        return attach(value, rule, (a, b), (a, b))

    return multiply


def right_rule(g, node):
    a, b = node.saved
    return g * b, (g * a).sum(0)


def scaled_rule(g, node):
    to_a, to_b = right_rule(g, node)
    return to_a * 1.001, to_b


def scaled_second_rule(g, node):
    to_a, to_b = right_rule(g, node)
    return to_a, to_b * 1.001


def dropped_rule(g, node):
    return right_rule(g, node)[0], None


def swapped_rule(g, node):
    _, b = node.saved
    return g * b, (g * b).sum(0)


def unsummed_rule(g, node):
    a, b = node.saved
    return g * b, (g * a)[0]


def unreduced_rule(g, node):
    a, b = node.saved
    return g * b, g * a


def blind_rule(g, node):
    """A wrong rule that ignores the incoming gradient, as if it were 1."""
    return right_rule(rl.ones_like(g), node)


def test_a_right_rule_passes():
    check_gradients(product_with(right_rule), A, B, reference=np.multiply)


@pytest.mark.parametrize(
    "rule", [scaled_rule, scaled_second_rule, dropped_rule, swapped_rule, unsummed_rule, unreduced_rule, blind_rule]
)
def test_a_wrong_rule_is_caught(rule):
    with pytest.raises(AssertionError):
        check_gradients(product_with(rule), A, B, reference=np.multiply)


def test_a_dropped_term_is_caught():
    def without_one_term(x):
        return x * x.detach() + x.sin()

    check_gradients(lambda x: x * x + x.sin(), A, reference=lambda x: x * x + np.sin(x))
    with pytest.raises(AssertionError, match="gradient 0"):
        check_gradients(without_one_term, A, reference=lambda x: x * x + np.sin(x))


def test_one_wrong_element_is_caught():
    def one_off(x):
        return (x * rl.tensor([1.0, 1.0, 1.001])).detach() + (x - x.detach())

    factor = np.array([1.0, 1.0, 1.001])
    with pytest.raises(AssertionError, match="gradient 0"):
        check_gradients(one_off, A, reference=lambda x: x * factor)


def test_a_wrong_value_is_caught():
    with pytest.raises(AssertionError, match="value"):
        check_gradients(lambda x: x * 1.001, A, reference=lambda x: x)


def test_close_is_about_shape_size_and_nan():
    assert_close([1.0, np.nan], [1.0 + 1e-6, np.nan])
    for actual, expected in (([1.0], 1.0), ([1.0], [1.001]), ([1.0], [np.nan]), ([np.inf], [1.0])):
        with pytest.raises(AssertionError):
            assert_close(actual, expected)
