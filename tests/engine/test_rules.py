"""Errors are planted in every gradient rule, and the comparison with PyTorch's answers detects each of them.

A rule that no case reaches, or whose error no case detects, fails here.
"""

import ast
import functools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine import tape
from rl_lab.engine.ops import elementwise
from rl_lab.engine.ops.layout import Parts
from tests.checks import check_gradients, cotangent_for
from tests.engine.cases import first_and_second
from tests.engine.every_case import CASES
from tests.engine.test_ops import compare_with_pytorch

ENGINE = Path(rl.__file__).parent / "engine"
PLAIN_NODE = tape.Node


UNKNOWN_TO_PYTORCH = {"elementwise.hardsigmoid_slope_rule"}
"""Rules of second derivatives that PyTorch does not have, so that there is no answer to compare with."""


def key_of(rule):
    return f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"


def planting(error, wanted):
    """A subclass of nodes that notes their rules in ``seen`` and applies ``error`` to the gradients of the ``wanted`` rules."""

    class Node(PLAIN_NODE):
        __slots__ = ()
        seen: set = set()

        def __init__(self, rule, *rest):
            Node.seen.add(key_of(rule))
            super().__init__(changed(rule) if key_of(rule) == wanted else rule, *rest)

    def changed(rule):
        @functools.wraps(rule)
        def wrong(g, node):
            results = rule(g, node)
            several = type(results) is tuple
            results = [spoilt(r) for r in (results if several else (results,))]
            return tuple(results) if several else results[0]

        return wrong

    def spoilt(result):
        if isinstance(result, Parts):
            return Parts({number: error(gradient) for number, gradient in result.gradients.items()})
        return None if result is None else error(result)

    return Node


def scaled(gradient):
    """Larger by a factor of 1.001 and by a constant 0.001: some gradients are zero by right."""
    return gradient * 1.001 + 0.001


def zeroed(gradient):
    """Gradients that are left out, or invented where there are none."""
    return gradient * 0.0 + 0.01


@pytest.fixture(scope="module")
def reached() -> dict:
    """The cases that reach each rule, in first or second derivatives."""
    cases = defaultdict(list)
    try:
        for case in CASES:
            tape.Node = node = planting(None, None)
            cotangent = cotangent_for(case.reference(*[a.astype(np.float64) for a in case.arrays()]))
            first_and_second(rl, case, cotangent)
            for key in node.seen:
                cases[key].append(case)
    finally:
        tape.Node = PLAIN_NODE
    return cases


def catches(case, error, key, monkeypatch) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(tape, "Node", planting(error, key))
        try:
            compare_with_pytorch(case, 0)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("error", [scaled, zeroed], ids=lambda error: error.__name__)
def test_every_planted_error_is_caught(error, reached, monkeypatch):
    unnoticed = [key for key, cases in reached.items() if not any(catches(case, error, key, monkeypatch) for case in cases)]
    unnoticed = [key for key in unnoticed if key not in UNKNOWN_TO_PYTORCH]
    print(f"{len(reached) - len(unnoticed)} of {len(reached)} rules: the planted error was caught")
    assert not unnoticed


def test_nothing_is_caught_without_an_error(reached, monkeypatch):
    for key, cases in reached.items():
        assert not catches(cases[0], lambda gradient: gradient, key, monkeypatch), key


def test_every_rule_is_reached(reached):
    """The functions of the engine whose names end in _rule, and the rules that a factory names after its operation."""
    written = set()
    for path in [*(ENGINE / "ops").glob("*.py"), ENGINE / "tensor.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_rule") and node.name[0] == "_":
                written.add(f"{path.stem}.{node.name}")
    written |= {key_of(value.rule) for value in vars(elementwise).values() if isinstance(value, elementwise.Unary)}
    # PyTorch has no sech, no cells in continuous time and no batch renormalisation, which have tests of their own (below;
    # test_continuous.py; test_batch_renorm.py); there is nothing beyond the third derivative of lgamma
    own = {"elementwise.sech_rule", "recurrent._cfc_rule", "recurrent._ltc_rule", "normalization._batch_renorm_rule"}
    assert written - set(reached) == own | {"elementwise.tetragamma_rule"}


def test_sech():
    check_gradients(rl.sech, np.linspace(-3, 3, 7, dtype=np.float32), reference=lambda x: 1 / np.cosh(x))
