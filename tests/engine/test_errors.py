"""Errors of a user: each has a class, and a message with shapes and names, as rl_lab/README.md lists them."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import errors
from rl_lab.nn import functional

x, ids = rl.ones(2, 3), rl.tensor([0, 1])


def freed():
    y = (rl.ones(3, requires_grad=True) ** 2).sum()
    y.backward()
    y.backward()


def written_to():
    w = rl.ones(3, requires_grad=True)
    z = w * 2
    y = (z * z).sum()
    z.mul_(2)
    y.backward()


def not_finite():
    w = rl.nn.Parameter(rl.ones(2))
    w.grad = rl.tensor([float("nan"), 1.0])
    rl.nn.utils.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)


def read_while_recording():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rl.compile(lambda a: a * a.sum().item())(x)


def grown_with_a_cycle():
    network = rl.nn.GraphNetwork(["in"], ["out"])
    network.add_node("a")
    network.add_edge("in", "a")
    network.add_edge("a", "out")
    network.add_edge("out", "a")


FAULTS = {
    # shapes
    "add": (lambda: x + rl.ones(4), errors.ShapeError, ["[2, 3]", "[4]"]),
    "matmul": (lambda: x @ x, errors.ShapeError, ["[2, 3]"]),
    "view": (lambda: x.view(4, 2), errors.ShapeError, ["[4, 2]", "6"]),
    "reshape": (lambda: x.reshape(-1, 4), errors.ShapeError, ["[-1, 4]"]),
    "expand": (lambda: x.expand(4, 3), errors.ShapeError, ["[2, 3]", "[4, 3]"]),
    "cat": (lambda: rl.cat([x, rl.ones(2, 4)]), errors.ShapeError, ["[2, 3]", "[2, 4]"]),
    "stack": (lambda: rl.stack([x, rl.ones(2)]), errors.ShapeError, ["[2, 3]", "[2]"]),
    "assignment": (lambda: x.clone().__setitem__(0, rl.ones(2)), errors.ShapeError, ["[2]", "[3]"]),
    "linear": (lambda: rl.nn.Linear(4, 2)(x), errors.ShapeError, ["[2, 3]", "[2, 4]"]),
    "conv2d": (lambda: rl.nn.Conv2d(3, 4, 2)(rl.ones(1, 2, 5, 5)), errors.ShapeError, ["3", "[1, 2, 5, 5]"]),
    "mse_loss": (lambda: functional.mse_loss(x, rl.ones(2)), errors.ShapeError, ["[2, 3]", "[2]"]),
    "cross_entropy": (lambda: functional.cross_entropy(x, rl.tensor([0, 1, 1])), errors.ShapeError, ["[2, 3]", "[3]"]),
    "gradient": (lambda: rl.ones(3, requires_grad=True).exp().backward(rl.ones(2)), errors.ShapeError, ["2", "3"]),
    "backward of many": (lambda: rl.ones(3, requires_grad=True).exp().backward(), errors.ShapeError, ["(3,)"]),
    "grad": (lambda: setattr(rl.ones(3, requires_grad=True), "grad", x), errors.ShapeError, ["(2, 3)", "(3,)"]),
    "state_dict": (lambda: rl.nn.Linear(2, 2).load_state_dict({"weight": x, "bias": x[0, :2]}), RuntimeError, ["weight", "2, 3", "2, 2"]),
    # dtypes
    "float index": (lambda: x[rl.tensor([0.0])], (errors.DtypeError, IndexError), ["float32"]),
    "gather": (lambda: x.gather(0, x), errors.DtypeError, ["float32"]),
    "gradient of integers": (lambda: ids.requires_grad_(), errors.StateError, ["int64"]),
    "complex": (lambda: rl.tensor(np.ones(2, np.complex64)), errors.DtypeError, ["complex64"]),
    "half": (lambda: rl.ones(2, dtype="float16"), errors.DtypeError, ["float16", "float32"]),
    "mean of integers": (lambda: ids.mean(), errors.DtypeError, ["int64"]),
    # devices
    "device": (lambda: rl.ones(2, device="cuda"), errors.DeviceError, ["cuda", "cpu"]),
    "to": (lambda: x.to("cuda:1"), errors.DeviceError, ["cuda:1"]),
    "module to": (lambda: rl.nn.Linear(2, 2).to("mps"), errors.DeviceError, ["mps"]),
    "cuda()": (lambda: x.cuda(), errors.DeviceError, ["cuda"]),
    # state
    "second backward": (freed, errors.StateError, ["second time", "retain_graph=True"]),
    "in-place change": (written_to, errors.StateError, ["mul", "(3,)", "version 1"]),
    "write to a leaf": (lambda: rl.ones(2, requires_grad=True).add_(1), errors.StateError, ["leaf", "no_grad"]),
    "no graph": (lambda: x.sum().backward(), errors.StateError, ["require grad"]),
    "unused": (
        lambda: rl.autograd.grad(rl.ones(1, requires_grad=True).sum(), rl.ones(1, requires_grad=True)),
        errors.StateError,
        ["allow_unused"],
    ),
    "numpy": (lambda: rl.ones(2, requires_grad=True).numpy(), errors.StateError, ["detach()"]),
    "frozen interior": (lambda: (rl.ones(2, requires_grad=True) * 2).requires_grad_(False), errors.StateError, ["detach()"]),
    # indices
    "element": (lambda: x[2], IndexError, ["2"]),
    "too many": (lambda: x[0, 0, 0], IndexError, ["2"]),
    "rows": (lambda: x[rl.tensor([0, 5])], IndexError, ["5", "2"]),
    "dimension": (lambda: x.sum(2), IndexError, ["2", "-2", "1"]),
    "embedding": (lambda: rl.nn.Embedding(3, 2)(rl.tensor([3])), IndexError, ["3"]),
    "class": (lambda: functional.cross_entropy(x, rl.tensor([0, 3])), IndexError, ["3"]),
    "maximum of nothing": (lambda: rl.zeros(0).max(), IndexError, ["[0]"]),
    # numbers, recording, graphs
    "gradient norm": (not_finite, errors.NumericalError, ["norm", "nan"]),
    "recording": (read_while_recording, errors.EagerWarning, ["reads a tensor's value", "test_errors.py"]),
    "cycle": (grown_with_a_cycle, errors.GraphError, ["out", "a", "cycle"]),
    "file": (lambda: rl.load("no/such/file.safetensors"), (errors.FileError, FileNotFoundError), ["no/such/file"]),
    # arguments
    "probability": (lambda: functional.dropout(x, 1.5), ValueError, ["1.5"]),
    "item": (lambda: x.item(), (errors.ShapeError, ValueError), ["2, 3"]),
    "truth": (lambda: bool(x), (errors.ShapeError, ValueError), ["2, 3"]),
    "learning rate": (lambda: rl.optim.Adam([rl.nn.Parameter(x)], lr=-1.0), ValueError, ["-1.0"]),
    "no parameters": (lambda: rl.optim.SGD([], lr=0.1), ValueError, ["empty"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_class_and_a_message(name):
    call, kind, words = FAULTS[name]
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert re.search(rf"(?<!\d){re.escape(word)}" if word[0].isdigit() else re.escape(word), message), (
            f"{word} is not in: {message}"
        )


def test_state_and_numerical_errors_are_apart():
    assert not issubclass(errors.StateError, errors.NumericalError)
    assert not issubclass(errors.NumericalError, errors.StateError)
    assert not issubclass(errors.NumericalError, RuntimeError)


def test_the_readme_lists_every_class():
    readme = Path(rl.__file__).with_name("README.md")
    listed = set(re.findall(r"^\| `(\w+)` \|", readme.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {name for name in vars(errors) if name.endswith(("Error", "Fault")) and not name.startswith("_")} <= listed
