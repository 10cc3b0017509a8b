"""Training steps of the digit readers and of recurrent cells in continuous time: recorded by rl_lab, eager in PyTorch.

``python -m benchmarks.digits [--rounds 9]``. Each step is forward, backward and Adam, on one thread of each library, whose processor time
is measured. The cells are `nn.CfC`, and the same cell written as a module of PyTorch; their losses are compared before anything is
timed. With 64 samples, matrix products take two thirds of our step, so no faster bookkeeping would bring the last ratio to 20.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import rl_lab as rl
from benchmarks.measure import alternate, table

READERS = ("perceptron", "convolutional")
CELLS = ((8, 16, 16, 32), (8, 32, 32, 32), (8, 32, 64, 19), (64, 32, 64, 19))
"""Samples in a batch, units of the state, units of the backbone, steps of the sequence. The last one is that of examples/cfc.py."""


def perceptron(nn: Any) -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutional(nn: Any) -> Any:
    """The network of examples/digits.py."""
    layers = []
    for channels, filters, pool in ((1, 32, False), (32, 64, True), (64, 64, True)):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 10))


def reader_step(t: Any, name: str) -> Callable[[], Any]:
    """One training step on 64 images of 8 x 8 pixels."""
    network = {"perceptron": perceptron, "convolutional": convolutional}[name](t.nn)
    random = np.random.default_rng(0)
    images = t.tensor(random.random((64, 1, 8, 8), np.float32))
    labels = t.tensor(random.integers(0, 10, 64))
    optimizer = t.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> Any:
        loss = t.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


class TorchCfC(torch.nn.Module):
    """`nn.CfC` with PyTorch's operations, and the same names of parameters."""

    def __init__(self, inputs: int, hidden: int, backbone: int):
        super().__init__()
        self.weight_ih = torch.nn.Parameter(torch.empty(backbone, inputs))
        self.weight_hh = torch.nn.Parameter(torch.empty(backbone, hidden))
        self.bias_0 = torch.nn.Parameter(torch.empty(backbone))
        self.weight_1 = torch.nn.Parameter(torch.empty(4 * hidden, backbone))
        self.bias_1 = torch.nn.Parameter(torch.empty(4 * hidden))

    def forward(self, x: torch.Tensor, timespans: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        h = torch.zeros(x.shape[1], self.weight_hh.shape[1])
        outputs = []
        for from_x, t in zip(linear(x, self.weight_ih, self.bias_0).unbind(0), timespans.unsqueeze(-1).unbind(0), strict=True):
            z = 1.7159 * torch.tanh(0.666 * (from_x + linear(h, self.weight_hh)))
            first, second, slope, offset = linear(z, self.weight_1, self.bias_1).chunk(4, -1)
            gate = torch.sigmoid(slope * t + offset)
            h = torch.tanh(first) * (1.0 - gate) + gate * torch.tanh(second)
            outputs.append(h)
        return torch.stack(outputs)


def cell_steps(batch: int, hidden: int, backbone: int, length: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(our step, PyTorch's step) of the same cell with the same weights and data."""
    random = np.random.default_rng(0)
    ours = rl.nn.CfC(4, hidden, backbone)
    theirs = TorchCfC(4, hidden, backbone)
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    x, target = random.normal(size=(length, batch, 4)), random.normal(size=(length, batch, hidden))
    gaps = random.random((length, batch))

    def step_of(t: Any, cell: Any) -> Callable[[], Any]:
        inputs, times, wanted = [t.tensor(part.astype(np.float32)) for part in (x, gaps, target)]
        optimizer = t.optim.Adam(cell.parameters(), lr=1e-3)

        def step() -> Any:
            outputs = cell(inputs, timespans=times)
            loss = ((outputs[0] if isinstance(outputs, tuple) else outputs) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    eager, peer = step_of(rl, ours), step_of(torch, theirs)
    for _ in range(20):  # the same cell: the same losses
        np.testing.assert_allclose(eager().item(), peer().item(), rtol=1e-4)
    return rl.compile(eager), peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rl.set_num_threads(1)
    rows = {}
    for name in READERS:
        candidates = {"rl_lab": rl.compile(reader_step(rl, name)), "torch": reader_step(torch, name)}
        rows[f"digits, {name}, batch 64"] = alternate(candidates, rounds, clock=time.thread_time)
    for sizes in CELLS:
        ours, peer = cell_steps(*sizes)
        batch, hidden, backbone, length = sizes
        label = f"CfC, batch {batch}, state {hidden}, backbone {backbone}, {length} steps"
        rows[label] = alternate({"rl_lab": ours, "torch": peer}, rounds, clock=time.thread_time)
    print(table("training step", rows, "rl_lab"))


if __name__ == "__main__":
    main()
