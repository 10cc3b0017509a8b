"""Random steps of native environments against Gymnasium's: python -m benchmarks.environments [--counts 8,1024] [--rounds 7].

Times are microseconds for one step of one environment. "loop" is the native call that a rollout makes, on one thread and without
writing the actions. "step" is a call of Gymnasium's interface from Python. "Gymnasium" is SyncVectorEnv over single environments,
and "Gymnasium vector" the environment's own vector version, if there is one. The single environments of MinAtar are those of the
package minatar, and LunarLander's use Box2D; where these are not installed, the lab's single environments take their place. The second
table times DQN's collector with hidden layers 64-64: one native call, and the Python loop on native and on Gymnasium's environments.
"""

import argparse
import importlib.util
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
from rl_lab.experiment.finding import find_environment

STEPS = 256  # steps of each environment per call of the collector
BATCHES = 64  # batches of random actions, used in turns


def stepper(environments: Any, actions: list[np.ndarray]) -> Callable[[], object]:
    """A function that steps the environments through Gymnasium's interface, with the next batch of random actions."""
    environments.reset(seed=0)
    turns = cycle(actions)
    return lambda: environments.step(next(turns))


def looper(environments: Any, actions: list[np.ndarray]) -> Callable[[], object]:
    """A function that copies the next batch of random actions and makes the native call."""
    environments.reset(seed=0)
    turns = cycle([batch.reshape(environments.actions.shape).astype(np.float32) for batch in actions])
    call, cells = environments._advance, environments._cells_address

    def run() -> None:
        environments.actions[:] = next(turns)
        call(cells)

    return run


def original_of(name: str) -> str:
    """Id of the environment that is measured against the native ``name``: its original, or ``name`` itself if that is missing."""
    original = name.replace("MinAtar-", "MinAtar/")
    package = "minatar" if "/" in original else "Box2D" if "Lunar" in name else "gymnasium"
    if importlib.util.find_spec(package) is None:
        return f"rl_lab/{name}"
    if "/" in original:
        find_environment(original)  # the package registers its ids when it is asked to
    return original if original in gym.registry else f"rl_lab/{name}"


def candidates(name: str, count: int) -> dict[str, Callable[[], object]]:
    """The functions to time for ``count`` environments, by the name of their column."""
    native = gym.make_vec(f"rl_lab/{name}", num_envs=count)
    native.action_space.seed(0)
    actions = [native.action_space.sample() for _ in range(BATCHES)]
    found = {"loop": looper(gym.make_vec(f"rl_lab/{name}", num_envs=count), actions), "step": stepper(native, actions)}
    original = original_of(name)
    found["Gymnasium"] = stepper(gym.make_vec(original, num_envs=count, vectorization_mode="sync"), actions)
    if gym.spec(original).vector_entry_point and name in envs.TWINS:
        found["Gymnasium vector"] = stepper(gym.make_vec(original, num_envs=count), actions)
    return found


def collector(backend: str, count: int, compile: bool) -> Callable[[], object]:
    """A function that collects a DQN rollout of `STEPS` steps on CartPole-v1."""
    environments = make_environments(choose_setup("CartPole-v1", backend), count)
    agent = DQN(environments, seed=1, compile=compile, exploration_initial=0.05)
    agent.collector.collect(STEPS)
    return lambda: agent.collector.collect(STEPS)


def collecting(count: int, rounds: int) -> None:
    """Print the table of collectors: microseconds for one step of one environment, the policy included."""
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
