"""Random steps of native environments against Gymnasium's: python -m benchmarks.environments [--counts 8,1024] [--rounds 7].

Microseconds for one step of one environment. "loop" is the native call alone, one thread, on actions that stand there, as a rollout
makes it; "step" goes through Gymnasium's interface from Python; "Gymnasium" is its SyncVectorEnv of scalar environments, and
"Gymnasium vector" its own vector environment where it has one. The second table is DQN's collector, with a network of 64-64: one
native call against the same from Python, on the native and on Gymnasium's environments.
"""

import argparse
import statistics
from collections.abc import Callable
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.measure import alternate
from rl_lab import envs
from rl_lab.agents.dqn import DQN
from rl_lab.experiment.environments import choose_setup, make_environments

STEPS = 256  # of each environment in a call of the collector
BATCHES = 64  # of random actions, taken in turns


def stepper(environments: Any, actions: list[np.ndarray]) -> Callable[[], object]:
    environments.reset(seed=0)
    turns = cycle(actions)
    return lambda: environments.step(next(turns))


def looper(environments: Any, actions: list[np.ndarray]) -> Callable[[], object]:
    """The native call, with new random actions each time at the price of a copy."""
    environments.reset(seed=0)
    turns = cycle([batch.reshape(environments.actions.shape).astype(np.float32) for batch in actions])
    call, cells = environments._advance, environments._cells_address

    def run() -> None:
        environments.actions[:] = next(turns)
        call(cells)

    return run


def candidates(name: str, count: int) -> dict[str, Callable[[], object]]:
    native = gym.make_vec(f"rl_lab/{name}", num_envs=count)
    native.action_space.seed(0)
    actions = [native.action_space.sample() for _ in range(BATCHES)]
    found = {"loop": looper(gym.make_vec(f"rl_lab/{name}", num_envs=count), actions), "step": stepper(native, actions)}
    original = name if name in envs.TWINS else f"rl_lab/{name}"
    found["Gymnasium"] = stepper(gym.make_vec(original, num_envs=count, vectorization_mode="sync"), actions)
    if gym.spec(original).vector_entry_point and name in envs.TWINS:
        found["Gymnasium vector"] = stepper(gym.make_vec(original, num_envs=count), actions)
    return found


def collector(backend: str, count: int, compile: bool) -> Callable[[], object]:
    """DQN's rollouts of `STEPS` steps on CartPole-v1."""
    environments = make_environments(choose_setup("CartPole-v1", backend), count)
    agent = DQN(DQN.Config(compile=compile, exploration_initial=0.05), environments, seed=1)
    agent.collector.collect(STEPS)
    return lambda: agent.collector.collect(STEPS)


def collecting(count: int, rounds: int) -> None:
    """Microseconds for one step of one environment, with the policy's part."""
    runs = {
        "one native call": collector("native", count, True),
        "native environments, eager policy from Python": collector("native", count, False),
        "Gymnasium's environments, recorded policy": collector("gymnasium", count, True),
    }
    times = alternate(runs, rounds)
    print(f"\n| DQN's collector, CartPole-v1, {count} environments | us a step | as many times the first |\n|---|---|---|")
    first = times["one native call"]
    for name, values in times.items():
        ratio = statistics.median(v / f for v, f in zip(values, first, strict=True))
        print(f"| {name} | {statistics.median(values) / (count * STEPS):.3f} | {ratio:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="8,1024")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--names", default=",".join([*envs.TWINS, *envs.WORLDS]))
    arguments = parser.parse_args()
    print("| environment | count | loop, us | step, us | Gymnasium, us | its vector, us | Gymnasium / step | vector / step |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.names.split(","):
        for count in map(int, arguments.counts.split(",")):
            times = alternate(candidates(name, count), arguments.rounds)
            each = {key: statistics.median(values) / count for key, values in times.items()}
            ratio = {
                key: f"{statistics.median(p / o for p, o in zip(values, times['step'], strict=True)):.1f}"
                for key, values in times.items()
            }
            vector = f"{each['Gymnasium vector']:.3f}" if "Gymnasium vector" in each else ""
            print(
                f"| {name} | {count} | {each['loop']:.4f} | {each['step']:.3f} | {each['Gymnasium']:.2f} | {vector} "
                f"| {ratio['Gymnasium']} | {ratio.get('Gymnasium vector', '')} |",
                flush=True,
            )
    collecting(8, arguments.rounds)


if __name__ == "__main__":
    main()
