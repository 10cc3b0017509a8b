"""The page of covered names, docs/coverage.md, is up to date."""

import json

import pytest

import rl_lab as rl
from rl_lab.engine.ops import absent
from tests import coverage


def test_the_table_is_up_to_date():
    assert coverage.page() == coverage.PAGE.read_text(encoding="utf-8"), "run python -m tests.coverage"


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda: rl.lobpcg, "torch.lobpcg"),
        (lambda: rl.ones(2).transpose_(0, 0), "torch.Tensor.transpose_"),
        (lambda: rl.nn.FractionalMaxPool2d, "torch.nn.FractionalMaxPool2d"),
        (lambda: rl.nn.functional.fractional_max_pool2d, "torch.nn.functional.fractional_max_pool2d"),
        (lambda: rl.optim.SparseAdam, "torch.optim.SparseAdam"),
        (lambda: rl.distributions.Wishart, "torch.distributions.Wishart"),
        (lambda: rl.cuda.Stream, "torch.cuda.Stream"),
    ],
)
def test_what_is_not_covered_says_so_by_name(ask, name):
    with pytest.raises(AttributeError, match=rf"does not cover {name} \(docs/coverage.md lists"):
        ask()


def test_tensors_name_every_method_of_pytorch_that_they_do_not_have():
    recorded = json.loads(coverage.NAMES.read_text(encoding="utf-8"))["torch.Tensor"]
    names = {name for name in recorded if not coverage.ELSEWHERE.search(name)}
    classes = {name: vars(base)[name] for base in reversed(rl.Tensor.__mro__) for name in vars(base)}
    refused = {name for name, value in classes.items() if isinstance(value, absent.Absent)}
    assert refused == absent.NAMES == names - (classes.keys() - refused)
    assert not refused & set(dir(rl.ones(2)))
    assert not hasattr(rl.ones(2), "lobpcg")


def test_in_place_forms_exist_by_rule():
    """Where PyTorch has ``x_`` beside ``x`` and ``x`` is covered, ``x_`` is covered, too, or declined with a reason."""
    for place, names in json.loads(coverage.NAMES.read_text(encoding="utf-8")).items():
        forms = [name for name in names if name.endswith("_") and not name.endswith("__") and coverage.covers(place, name[:-1])]
        assert not [f for f in forms if not coverage.covers(place, f) and coverage.reason(place, f) is None], place


def test_a_near_name_is_offered():
    with pytest.raises(AttributeError, match="the nearest name is 'LayerNorm'"):
        _ = rl.nn.LayerNorms


@pytest.mark.parametrize("place", ["torch.nn", "torch.nn.functional", "torch.optim", "torch.optim.lr_scheduler"])
def test_three_quarters_of_the_names_are_covered(place):
    names = json.loads(coverage.NAMES.read_text(encoding="utf-8"))[place]
    assert sum(coverage.covers(place, name) for name in names) > 0.75 * len(names)
    assert not coverage.covers(place, "NoSuchName")


def test_names_in_capitals_are_counted():
    names = json.loads(coverage.NAMES.read_text(encoding="utf-8"))
    assert {"SGD", "ASGD"} <= set(names["torch.optim"])
    assert {"LSTM", "GRU", "ELU", "RNN"} <= set(names["torch.nn"])
