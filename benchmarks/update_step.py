"""The DQN update, recorded and eager, against PyTorch eager and against its matrix products alone."""

from collections.abc import Callable

import numpy as np
import torch

import rl_lab as rl
import rl_lab.nn.functional as F
from benchmarks.measure import alternate, table
from benchmarks.workloads import DQN_UPDATES, dqn_update, forward


def products_alone(sizes: tuple[int, ...], batch: int) -> Callable[[], object]:
    """The matrix products of the update and nothing else, recorded: the limit."""
    layers = list(zip(sizes, sizes[1:], strict=False))
    weights = [rl.randn(b, a) for a, b in layers]
    values = [rl.randn(batch, size) for size in sizes]

    @rl.compile
    @rl.no_grad()
    def run():
        for _ in range(2):  # the target's forward and the network's own
            for weight, x in zip(weights, values, strict=False):
                x @ weight.T
        for i, weight in reversed(list(enumerate(weights))):
            values[i + 1].T @ values[i]
            if i:
                values[i + 1] @ weight

    return run


def main() -> None:
    rows = {}
    for sizes, batch in DQN_UPDATES:
        candidates = {
            "recorded": rl.compile(dqn_update(rl, F, sizes, batch)),
            "eager": dqn_update(rl, F, sizes, batch),
            "torch": dqn_update(torch, torch.nn.functional, sizes, batch),
            "products": products_alone(sizes, batch),
        }
        rows[f"DQN update, {'-'.join(map(str, sizes))}, batch {batch}"] = alternate(candidates)
    print(table("update", rows, "recorded"))
    ours, theirs = forward(rl), forward(torch)
    observation = np.zeros((1, 4), np.float32)
    x, y = rl.tensor(observation), torch.tensor(observation)
    recorded = rl.compile(ours)
    with rl.no_grad(), torch.no_grad():
        rows = {"4-64-64-2": alternate({"recorded": lambda: recorded(x), "eager": lambda: ours(x), "torch": lambda: theirs(y)})}
    print(table("forward, batch 1", rows, "recorded"))


if __name__ == "__main__":
    main()
