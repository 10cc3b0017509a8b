"""Operations save only what their gradients need: a tensor that may change before backward in PyTorch may change here, too.

And the gradient does not depend on it: the gradient is that of the unchanged tensor.
"""

import json

import numpy as np
import pytest

import rl_lab as rl
from tests.engine.saved import ANSWERS, RELEVANT, changes, gradients

RECORDED = json.loads(ANSWERS.read_text(encoding="utf-8"))
COPIED = {
    "matmul batch": "PyTorch multiplies copies of batches",
    "matmul batch broadcast": "PyTorch multiplies copies of batches",
    "matmul batch vector": "PyTorch multiplies copies of batches",
    "einsum ...ij,...jk->...ik": "PyTorch multiplies copies of batches",
    "attention": "PyTorch multiplies copies of batches",
    "attention causal": "PyTorch multiplies copies of batches",
    "cosine_similarity": "PyTorch normalises copies",
    "gru_cell": "one kernel here, whose gradient reads all of its inputs",
    "lstm_cell": "one kernel here, whose gradient reads all of its inputs",
}
"""Cases that refuse more changes than PyTorch: never a wrong gradient, but an error."""


@pytest.mark.parametrize("case", [case for case in RELEVANT if case.name in RECORDED], ids=lambda case: case.name)
def test_what_may_change_before_backward(case):
    for (wanted, changed), allowed in zip(changes(case), RECORDED[case.name], strict=True):
        result = gradients(rl, case, wanted, changed)
        if result is None:
            assert allowed == "0" or case.name.split("[")[0] in COPIED, (
                f"input {wanted} needs a gradient, {changed} was changed"
            )
        elif not isinstance(result, str):
            np.testing.assert_array_equal(result, gradients(rl, case, wanted, None))


def test_the_comparison_sees_an_operation_that_saves_too_much(monkeypatch):
    from rl_lab.engine.ops import arithmetic
    from tests.engine.cases import Case

    def greedy(a, b):
        out = arithmetic.add(a, b).detach()
        return arithmetic.attach(out, lambda g, node: (g, g) if node.saved else g, (a, b), (a, b))

    with pytest.raises(AssertionError):
        test_what_may_change_before_backward(Case("add[2x3,2x3]", lambda t, a, b: greedy(a, b), np.add, ((2, 3), (2, 3))))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 2), (3, 1, 2), (2,)])
def test_a_layer_whose_input_needs_no_gradient_may_be_updated_before_backward(bias, shape):
    layer = rl.nn.Linear(2, 2, bias=bias)
    loss = layer(rl.ones(shape)).sum()
    with rl.no_grad():
        layer.weight.mul_(2.0)
    loss.backward()
    rows = float(np.prod(shape[:-1]))
    assert layer.weight.grad.tolist() == [[rows, rows], [rows, rows]]
