"""The table of covered names in rl_lab/README.md is up to date."""

import json

import pytest

import rl_lab as rl
from rl_lab.engine.ops import absent
from tests import coverage


def test_the_table_is_up_to_date():
    assert coverage.readme() == coverage.README.read_text(encoding="utf-8"), "run python -m tests.coverage"


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda: rl.svd, "torch.svd"),
        (lambda: rl.ones(2).svd(), "torch.Tensor.svd"),
        (lambda: rl.nn.Transformer, "torch.nn.Transformer"),
        (lambda: rl.nn.functional.grid_sample, "torch.nn.functional.grid_sample"),
        (lambda: rl.optim.SparseAdam, "torch.optim.SparseAdam"),
        (lambda: rl.distributions.Dirichlet, "torch.distributions.Dirichlet"),
        (lambda: rl.cuda.Stream, "torch.cuda.Stream"),
    ],
)
def test_what_is_not_covered_says_so_by_name(ask, name):
    with pytest.raises(AttributeError, match=rf"does not cover {name} \(rl_lab/README.md lists"):
        ask()


def test_tensors_name_every_method_of_pytorch_that_they_do_not_have():
    recorded = json.loads(coverage.NAMES.read_text(encoding="utf-8"))["torch.Tensor"]
    names = {name for name in recorded if not coverage.ELSEWHERE.search(name)}
    classes = {name: vars(base)[name] for base in reversed(rl.Tensor.__mro__) for name in vars(base)}
    refused = {name for name, value in classes.items() if isinstance(value, absent.Absent)}
    assert refused == absent.NAMES == names - (classes.keys() - refused)
    assert not refused & set(dir(rl.ones(2)))
    assert not hasattr(rl.ones(2), "svd")


def test_a_near_name_is_offered():
    with pytest.raises(AttributeError, match="the nearest name is 'LayerNorm'"):
        _ = rl.nn.LayerNorms
