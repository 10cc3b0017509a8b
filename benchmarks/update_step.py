"""One recorded learning update of rl_lab against PyTorch eager and compiled, JAX jit and scan, and its own matrix products alone.

``python -m benchmarks.update_step [--peers torch,torch.compile,jax] [--rounds 15]``. Each peer takes turns with rl_lab in a process
of its own, so the threads of one peer do not slow down another.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import rl_lab as rl
from benchmarks.measure import alternate
from benchmarks.workloads import DQN_UPDATES, PPO_UPDATES, SAC_UPDATES, UPDATES, perceptron

PEERS = ("eager", "products", "torch", "torch.compile", "jax")


def products_alone(label: str) -> Callable[[], object]:
    """A recorded function with only the matrix products of a DQN update: a lower bound for the update's time."""
    sizes, batch = next((s, b) for s, b in DQN_UPDATES if label == f"DQN {'-'.join(map(str, s))}, batch {b}")
    layers = list(zip(sizes, sizes[1:], strict=False))
    weights = [rl.randn(b, a) for a, b in layers]
    values = [rl.randn(batch, size) for size in sizes]

    @rl.no_grad()
    def run() -> list[rl.Tensor]:
        results = []  # all of them are returned, because a recorded program leaves out products that nothing uses
        for _ in range(2):  # forward of the target network and of the network
            results += [x @ weight.T for weight, x in zip(weights, values, strict=False)]
        for i, weight in reversed(list(enumerate(weights))):
            results.append(values[i + 1].T @ values[i])
            if i:
                results.append(values[i + 1] @ weight)
        return results

    return rl.compile(run)


def jax_runners(label: str) -> dict[str, tuple[Callable[[], object], int]]:
    """The JAX updates of a workload by name, each with its number of updates per call."""
    from benchmarks import jax_peer

    kind, rest = label.split(" ", 1)
    cases = {"DQN": (DQN_UPDATES, jax_peer.dqn), "PPO": (PPO_UPDATES, jax_peer.ppo), "SAC": (SAC_UPDATES, jax_peer.sac)}
    settings, make = cases[kind]
    sizes, batch = next((s, b) for s, b in settings if rest == f"{'-'.join(map(str, s))}, batch {b}")
    once, many = make(sizes, batch)
    return {"jax jit": (once, 1), "jax scan": (many, jax_peer.SCAN_LENGTH)}


def candidates_of(peer: str, label: str) -> dict[str, tuple[Callable[[], object], int]]:
    """The functions that take turns with rl_lab, by name, each with its number of updates per call."""
    make: Any = UPDATES[label]
    if peer == "eager":
        return {"rl_lab eager": (make(rl), 1)}
    if peer == "products":
        return {"products": (products_alone(label), 1)} if label.startswith("DQN") else {}
    if peer == "jax":
        return jax_runners(label)
    import torch

    update = make(torch)
    return {"torch": (update, 1)} if peer == "torch" else {"torch.compile": (torch.compile(update), 1)}


def measure(peer: str, rounds: int) -> None:
    """Print a row for each update and candidate: update, candidate, both medians in microseconds, median ratio candidate / rl_lab."""
    for label, make in UPDATES.items():
        candidates = candidates_of(peer, label)
        if not candidates:
            continue
        times = alternate({"rl_lab": rl.compile(make(rl)), **{name: run for name, (run, _) in candidates.items()}}, rounds)
        for name, (_, updates) in candidates.items():
            theirs = [t / updates for t in times[name]]
            ratio = statistics.median(t / o for t, o in zip(theirs, times["rl_lab"], strict=True))
            medians = f"{statistics.median(times['rl_lab']):.1f}\t{statistics.median(theirs):.1f}"
            print(f"{label}\t{name}\t{medians}\t{ratio:.2f}", flush=True)
    if peer == "torch":
        measure_forward(rounds)


def measure_forward(rounds: int) -> None:
    """Print a row for the forward of a small network on one observation, recorded, against PyTorch eager."""
    import torch

    ours, theirs = perceptron(rl, (4, 64, 64, 2)), perceptron(torch, (4, 64, 64, 2))
    x, y = rl.zeros(1, 4), torch.zeros(1, 4)
    recorded = rl.compile(ours)
    with rl.no_grad(), torch.no_grad():
        times = alternate({"rl_lab": lambda: recorded(x), "torch": lambda: theirs(y)}, rounds)
    ratio = statistics.median(t / o for t, o in zip(times["torch"], times["rl_lab"], strict=True))
    medians = f"{statistics.median(times['rl_lab']):.2f}\t{statistics.median(times['torch']):.1f}"
    print(f"forward 4-64-64-2, batch 1\ttorch\t{medians}\t{ratio:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.rounds)
        return
    print("| update | peer | rl_lab recorded, us | peer, us | peer / rl_lab |\n|---|---|---|---|---|")
    for peer in arguments.peers.split(","):
        package = "torch" if peer.startswith("torch") else peer
        if package in ("torch", "jax") and importlib.util.find_spec(package) is None:
            print(f'{package} is not installed: pip install -e ".[bench]"', file=sys.stderr)
            continue
        command = [sys.executable, "-m", "benchmarks.update_step", "--one", peer, "--rounds", str(arguments.rounds)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=os.environ)
        for line in result.stdout.splitlines():
            print("| " + " | ".join(line.split("\t")) + " |", flush=True)


if __name__ == "__main__":
    main()
