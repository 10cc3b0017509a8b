"""Eager operations and whole eager training loops against PyTorch eager, in turns in one process, one thread each.

``python -m benchmarks.eager [names ...]`` prints our time, PyTorch's, and our time over PyTorch's for each line whose label contains one
of the names.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch

import rl_lab as rl
from benchmarks.eager_scripts import SCRIPTS
from benchmarks.measure import alternate, machine
from benchmarks.workloads import DQN_UPDATES, add, dqn_update, perceptron, tanh_chain
from rl_lab.experiment.agent import find_agent


def operations(lib: Any) -> dict[str, Callable[[], Any]]:
    """Single operations on small tensors, without gradients, by label."""
    rng = np.random.default_rng(0)
    vectors = [lib.tensor(rng.standard_normal(8).astype(np.float32)) for _ in range(20)]
    x, y = (lib.tensor(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    mask = x[:, 0] > 0
    every = x > 0
    index = lib.tensor(rng.integers(0, 64, 32))
    row = lib.ones(64)
    whole = lib.tensor(rng.integers(0, 9, (64, 64)))
    target = lib.zeros(64, 64)
    scalar = lib.tensor(1.5)
    array = np.zeros(4, np.float32)
    return {
        "stack of 20 vectors": lambda: lib.stack(vectors),
        "stack of 20 vectors, dim 1": lambda: lib.stack(vectors, 1),
        "cat of 20 vectors": lambda: lib.cat(vectors),
        "cat of two 64x64": lambda: lib.cat([x, y]),
        "cat of two 64x64, dim 1": lambda: lib.cat([x, y], 1),
        "x[i]": lambda: x[3],
        "x[i, j]": lambda: x[3, 4],
        "x[0, 0].item()": lambda: x[0, 0].item(),
        "x[i:j]": lambda: x[3:9],
        "x[:, i]": lambda: x[:, 3],
        "x[:, i:j]": lambda: x[:, 3:9],
        "x[None]": lambda: x[None],
        "x[list]": lambda: x[[1, 5, 9]],
        "x[index tensor]": lambda: x[index],
        "x[range, index tensor]": lambda: x[range(32), index],
        "x[mask of rows]": lambda: x[mask],
        "x[mask]": lambda: x[every],
        "x[i] = row": lambda: target.__setitem__(3, row),
        "x[i, j] = number": lambda: target.__setitem__((3, 4), 1.0),
        "x[mask] = number": lambda: target.__setitem__(every, 0.0),
        "zeros(64)": lambda: lib.zeros(64),
        "zeros(64, 64)": lambda: lib.zeros(64, 64),
        "ones(8)": lambda: lib.ones(8),
        "full((8,), 0.5)": lambda: lib.full((8,), 0.5),
        "empty(8)": lambda: lib.empty(8),
        "zeros_like": lambda: lib.zeros_like(row),
        "arange(64)": lambda: lib.arange(64),
        "tensor(number)": lambda: lib.tensor(1.5),
        "tensor(list of 4)": lambda: lib.tensor([1.0, 2.0, 3.0, 4.0]),
        "from_numpy": lambda: lib.from_numpy(array),
        "item()": lambda: scalar.item(),
        "add_ of a number": lambda: target.add_(1.0),
        "add_ of a tensor": lambda: target.add_(y),
        "add_ with alpha": lambda: target.add_(y, alpha=0.5),
        "mul_ of a number": lambda: target.mul_(0.5),
        "x += y": lambda: target.__iadd__(y),
        "copy_": lambda: target.copy_(y),
        "zero_": lambda: target.zero_(),
        "fill_": lambda: target.fill_(1.0),
        "x + y": lambda: x + y,
        "x + 1.0": lambda: x + 1.0,
        "x.view": lambda: x.view(-1),
        "x.reshape": lambda: x.reshape(32, 128),
        "x.unsqueeze": lambda: x.unsqueeze(0),
        "x.T": lambda: x.T,
        "x.expand": lambda: row.expand(64, 64),
        "x.detach()": lambda: x.detach(),
        "x.clone()": lambda: x.clone(),
        "x.long()": lambda: row.long(),
        "softmax": lambda: lib.softmax(x, 1),
        "log_softmax": lambda: lib.log_softmax(x, 1),
        "sum": lambda: x.sum(),
        "sum(1)": lambda: x.sum(1),
        "mean": lambda: x.mean(),
        "max": lambda: x.max(),
        "argmax(1)": lambda: x.argmax(1),
        "std": lambda: x.std(),
        "x > y": lambda: x > y,
        "x == number": lambda: whole == 3,
        "where": lambda: lib.where(every, x, y),
        "clamp": lambda: x.clamp(-1.0, 1.0),
        "gather": lambda i=index[:, None]: x[:32].gather(1, i),
        "index_add_": lambda s=x[:32]: target.index_add_(0, index, s),
    }


def recorded_policy(lib: Any) -> Callable[[], Any]:
    """A 4-64-64-2 network on one observation, recorded if the library is rl_lab."""
    network = perceptron(lib, (4, 64, 64, 2)).requires_grad_(False)
    if lib is rl:
        network = rl.compile(network)
    x = lib.zeros(1, 4)
    return lambda: network(x)


def predict(lib: Any, name: str) -> Callable[[], Any]:
    """`Agent.predict` for one observation of an agent with a 64-64 network. PyTorch's part is the network and its best action alone."""
    env = "CartPole-v1" if name in ("dqn", "ppo") else "Pendulum-v1"
    space = gym.make(env).observation_space
    observation = space.sample()
    if lib is rl:
        agent = find_agent(name)(env, preset=False, network="mlp:64,64")
        return lambda: agent.predict(observation)
    network = perceptron(lib, (len(observation), 64, 64, 2 if env == "CartPole-v1" else 1)).requires_grad_(False)

    def act() -> Any:
        output = network(lib.from_numpy(observation)[None])
        return output.argmax(1).item() if env == "CartPole-v1" else 2.0 * output.tanh().numpy()[0]

    return act


def lines() -> dict[str, Callable[[Any], Callable[[], Any]]]:
    """For each label, a function that takes the library (rl_lab or torch) and returns the call to be timed."""
    singles = {label: lambda lib, label=label: operations(lib)[label] for label in operations(rl)}
    updates = {
        f"DQN update, {'-'.join(map(str, sizes))}, batch {batch}": lambda lib, s=sizes, b=batch: dqn_update(lib, s, b)
        for sizes, batch in DQN_UPDATES
    }
    chains = {"((x@w).tanh()*y).sum().backward(), 64x64": tanh_chain, "add of two 64x64 with grad": add}
    acting = {"one observation, recorded 4-64-64-2": recorded_policy} | {
        f"one observation, predict of {name}": lambda lib, name=name: predict(lib, name) for name in ("dqn", "ppo", "sac")
    }
    return {**singles, **acting, **chains, **updates, **SCRIPTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of labels")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}; torch {torch.__version__}, one thread each, processor time\n")
    print("| eager | rl_lab, us | torch, us | rl_lab / torch |\n|---|---|---|---|")
    for label, make in lines().items():
        if arguments.names and not any(name in label for name in arguments.names):
            continue
        times = alternate({"rl_lab": make(rl), "torch": make(torch)}, arguments.rounds, 0.02, time.thread_time)
        ratio = statistics.median(a / b for a, b in zip(times["rl_lab"], times["torch"], strict=True))
        medians = [f"{statistics.median(times[name]):.2f}" for name in ("rl_lab", "torch")]
        print(f"| {label} | {' | '.join(medians)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
