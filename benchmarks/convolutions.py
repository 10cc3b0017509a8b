"""Recorded training steps and forwards of image networks against PyTorch eager, and the limit that the processor sets.

``python -m benchmarks.convolutions [--threads 2] [--rounds 15] [--only NAME]``. A training step is a forward, a mean squared error, a
backward and a step of Adam. PyTorch and rl_lab take turns in one process, both on the same number of threads. With one thread the table
shows processor time, which other processes on the machine hardly change. The limit is the number of multiply-adds in all products of
the step, divided by the rate at which rl_lab multiplies two 512 x 512 matrices in the same process.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import rl_lab as rl
from benchmarks.measure import alternate, machine


def nature(nn: Any) -> list[Any]:
    """The network of Mnih et al. 2015."""
    return [
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6),
    ]  # fmt: skip


def lenet(nn: Any) -> list[Any]:
    """The network of LeCun et al. 1998, with ReLU and max pooling."""
    return [
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ]  # fmt: skip


def minatar(nn: Any) -> list[Any]:
    """The network of Young and Tian 2019."""
    return [nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 6)]


def perceptron(*sizes: int) -> Callable[[Any], list[Any]]:
    """Linear layers with ReLU in between."""

    def build(nn: Any) -> list[Any]:
        layers: list[Any] = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layers += [nn.ReLU()] * (i > 0) + [nn.Linear(a, b)]
        return layers

    return build


NETWORKS: dict[str, tuple[Callable[[Any], list[Any]], tuple[int, ...], tuple[int, ...]]] = {
    "Nature CNN 84x84x4": (nature, (4, 84, 84), (1, 32, 256)),
    "LeNet 28x28": (lenet, (1, 28, 28), (1, 32, 64, 256)),
    "MinAtar 10x10x4": (minatar, (4, 10, 10), (1, 32, 256)),
    "MLP 784-128-10": (perceptron(784, 128, 10), (784,), (64,)),
    "MLP 376-1024-1024-17": (perceptron(376, 1024, 1024, 17), (376,), (256,)),
}


def multiply_adds(layers: list[Any], shape: tuple[int, ...], training: bool) -> int:
    """Multiply-adds of one sample; a training step does each product three times, the first layer's twice."""
    total = 0
    x = torch.zeros(1, *shape)
    for i, layer in enumerate(layers):
        y = layer(x)
        times = (3 if i else 2) if training else 1
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            total += times * layer.weight.numel() * (math.prod(y.shape[2:]) if y.dim() > 2 else 1)
        x = y
    return total


def training_step(lib: Any, layers: list[Any], batch: int, shape: tuple[int, ...]) -> Callable[[], object]:
    """A training step on constant data."""
    net = lib.nn.Sequential(*layers)
    optimizer = lib.optim.Adam(net.parameters(), lr=1e-4)
    x = lib.rand(batch, *shape)
    target = lib.zeros_like(net(x))

    def step() -> object:
        optimizer.zero_grad()
        loss = lib.nn.functional.mse_loss(net(x), target)
        loss.backward()
        optimizer.step()
        return loss

    return step


def forward(lib: Any, layers: list[Any], batch: int, shape: tuple[int, ...]) -> Callable[[], object]:
    """A forward without gradients."""
    net = lib.nn.Sequential(*layers)
    x = lib.rand(batch, *shape)

    @lib.no_grad()
    def run() -> object:
        return net(x)

    return run


Clock = Callable[[], float]


def products_per_microsecond(clock: Clock) -> float:
    """Multiply-adds of rl_lab in a microsecond, on all threads, in a product of two 512 x 512 matrices."""
    a, b = rl.rand(512, 512), rl.rand(512, 512)

    @rl.no_grad()
    def multiply() -> object:
        return a @ b

    times = alternate({"product": rl.compile(multiply)}, rounds=9, clock=clock)["product"]
    return 512**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="measure networks whose name contains this text")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rl.set_num_threads(arguments.threads)
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    threads = "one thread, processor time" if arguments.threads == 1 else f"{arguments.threads} threads"
    print(f"{machine()}; torch {torch.__version__}; {threads}, medians\n")
    print("| work | rl_lab, us | torch, us | torch / rl_lab | limit, us |\n|---|---|---|---|---|")
    for name, (build, shape, batches) in NETWORKS.items():
        if arguments.only not in name:
            continue
        for kind, make in (("step", training_step), ("forward", forward)):
            for batch in batches:
                if kind == "step" and batch == 1:
                    continue
                rate = products_per_microsecond(clock)
                candidates = {
                    "rl_lab": rl.compile(make(rl, build(rl.nn), batch, shape)),
                    "torch": make(torch, build(torch.nn), batch, shape),
                }
                times = alternate(candidates, arguments.rounds, clock=clock)
                ratio = statistics.median(t / o for t, o in zip(times["torch"], times["rl_lab"], strict=True))
                limit = batch * multiply_adds(build(torch.nn), shape, kind == "step") / rate
                ours, theirs = statistics.median(times["rl_lab"]), statistics.median(times["torch"])
                print(f"| {name}, {kind}, batch {batch} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} | {limit:.1f} |", flush=True)


if __name__ == "__main__":
    main()
