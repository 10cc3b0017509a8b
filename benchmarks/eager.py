"""Eager operations and the eager DQN update against PyTorch eager."""

import torch

import rl_lab as rl
from benchmarks.measure import alternate, table
from benchmarks.workloads import DQN_UPDATES, add, dqn_update, tanh_chain


def main() -> None:
    rows = {
        "((x@w).tanh()*y).sum().backward(), 64x64": alternate({"rl_lab": tanh_chain(rl), "torch": tanh_chain(torch)}),
        "add of two 64x64 with grad": alternate({"rl_lab": add(rl), "torch": add(torch)}),
    }
    for sizes, batch in DQN_UPDATES:
        candidates = {
            "rl_lab": dqn_update(rl, sizes, batch),
            "torch": dqn_update(torch, sizes, batch),
        }
        rows[f"DQN update, {'-'.join(map(str, sizes))}, batch {batch}"] = alternate(candidates)
    print(table("eager", rows, "rl_lab"))


if __name__ == "__main__":
    main()
