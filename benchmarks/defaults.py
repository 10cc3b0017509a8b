"""What agents reach without a preset, against Stable-Baselines3: python -m benchmarks.defaults [--only ppo/Hopper-v5,...] [--seeds 5].

Most users have an environment for which nobody has tuned anything. Here both libraries learn with their default settings, for the same
number of steps, on one thread, in a process for each run. After training the same code plays 20 greedy episodes from the same
starts. Each run is a line of benchmarks/defaults.jsonl. A run in the file is not repeated, unless the defaults of rl_lab have changed.
``--table`` writes docs/defaults.md from the file. Stable-Baselines3 gets flat observations where it has no network for the others.
"""

import argparse
import fnmatch
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from benchmarks.measure import machine
from benchmarks.results import append, hash_of
from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.statistics import aggregate_iqm, interquartile_mean, stratified_interval

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "defaults.jsonl"
DOCS = ROOT / "docs" / "defaults.md"
EPISODES = 20
EVALUATION_SEED = 10_000
SEEDS = 5


class Corridor(gym.Env[int, int]):
    """Walk to the right end of sixteen cells. Each step costs 0.01, the end gives 1; the way back is free of surprises."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = Discrete(16)
        self.action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(8))
        return self.place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.place = min(max(self.place + 2 * int(action) - 1, 0), 15)
        ends = self.place == 15
        return self.place, 1.0 if ends else -0.01, ends, False, {}


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """Move a point to a target in the plane. The reward is minus the distance after each of 50 steps."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = Box(-2, 2, (4,), np.float32)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.point, self.target]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.point, self.target = self.np_random.uniform(-1, 1, (2, 2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.point = np.clip(self.point + 0.1 * np.clip(action, -1, 1), -2, 2)
        return self._observe(), -float(np.linalg.norm(self.point - self.target)), False, False, {}


@dataclass(frozen=True)
class World:
    """An environment, the steps to learn in it, and how it is made."""

    steps: int
    discrete: bool = True
    make: Callable[[], gym.Env] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    flat: bool = False
    """Whether Stable-Baselines3 gets the observations as a vector."""


WORLDS = {
    "Corridor": World(10_000, make=Corridor, options={"max_episode_steps": 100}),
    "Reach": World(20_000, discrete=False, make=Reach, options={"max_episode_steps": 50}),
    "FrozenLake-v1": World(20_000),
    "Blackjack-v1": World(20_000, flat=True),
    "CliffWalking-v1": World(20_000, options={"max_episode_steps": 200}),
    "InvertedPendulum-v5": World(20_000, discrete=False),
    "Hopper-v5": World(40_000, discrete=False),
    "BipedalWalker-v3": World(40_000, discrete=False),
    "MinAtar/Breakout-v1": World(40_000, flat=True),
    "MinAtar/Asterix-v1": World(40_000, flat=True),
}
AGENTS = {"ppo": (True, True), "a2c": (True, True), "dqn": (True, False), "sac": (False, True), "td3": (False, True)}
"""Agents of both libraries, and whether they take discrete and continuous actions."""
SHARE = {"sac": 0.2, "td3": 0.2}
"""Share of a world's steps for agents that update in each step."""


def make(name: str, flat: bool = False) -> gym.Env:
    """The environment of a world; ``flat`` with observations that are vectors of float32."""
    world = WORLDS[name]
    if world.make is None:
        if name.startswith("MinAtar/"):
            from minatar.gym import register_envs

            register_envs()
        env = gym.make(name, **world.options)
    else:
        env = gym.wrappers.TimeLimit(world.make(), **world.options)
    if not flat:
        return env
    env = gym.wrappers.FlattenObservation(env)
    size = env.observation_space.shape
    return gym.wrappers.TransformObservation(env, np.float32, Box(-np.inf, np.inf, size, np.float32))


def steps_of(agent: str, name: str) -> int:
    """Steps that an agent learns in a world."""
    return int(WORLDS[name].steps * SHARE.get(agent, 1.0))


def play(act: Callable[[Any], Any], env: gym.Env) -> float:
    """Mean return of `EPISODES` episodes."""
    total = 0.0
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=EVALUATION_SEED + episode)
        ended = False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total += float(reward)
            ended = terminated or truncated
    return total / EPISODES


def run_own(agent: str, name: str, seed: int, settings: dict[str, Any]) -> float:
    """Learn and play with rl_lab."""
    steps = steps_of(agent, name)
    learner = find_agent(agent)(lambda: make(name), preset=False, seed=seed, total_timesteps=steps, **settings)
    learner.learn(steps)
    discrete = WORLDS[name].discrete
    return play(lambda x: int(learner.predict(x)) if discrete else learner.predict(x), make(name))


def run_peer(agent: str, name: str, seed: int) -> float:
    """Learn and play with Stable-Baselines3."""
    import stable_baselines3
    import torch

    torch.set_num_threads(1)
    flat = WORLDS[name].flat
    model = getattr(stable_baselines3, agent.upper())("MlpPolicy", make(name, flat), seed=seed, device="cpu")
    model.learn(steps_of(agent, name))

    def act(observation: Any) -> Any:
        action = model.predict(observation, deterministic=True)[0]
        return int(action) if WORLDS[name].discrete else action

    return play(act, make(name, flat))


# --- many runs -------------------------------------------------------------------------------------------------------


def settings_now(library: str, agent: str, more: dict[str, str]) -> dict[str, Any]:
    """What a run depends on besides its seed: for rl_lab the default settings, for Stable-Baselines3 its version."""
    if library == "rl_lab":
        return {**json.loads(json.dumps(asdict(find_agent(agent).Config()))), **more}
    from importlib.metadata import version

    return {"stable_baselines3": version("stable_baselines3")}


def keys(only: str) -> list[tuple[str, str]]:
    """Agents and worlds that fit each other and a pattern."""
    found = [
        (agent, name) for agent, fits in AGENTS.items() for name, world in WORLDS.items() if fits[0 if world.discrete else 1]
    ]
    patterns = only.split(",")
    return [key for key in found if any(fnmatch.fnmatchcase("/".join(key), pattern) for pattern in patterns)]


def read(path: Path) -> list[dict[str, Any]]:
    """The runs in a data file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def measure(arguments: argparse.Namespace, more: dict[str, str]) -> None:
    """Run what the data file does not have."""
    end = time.monotonic() + arguments.seconds
    known = {(r["library"], r["agent"], r["env"], r["seed"], r["settings"]) for r in read(arguments.data)}
    for library in arguments.libraries.split(","):
        for agent, name in keys(arguments.only):
            settings = hash_of(settings_now(library, agent, more))
            for seed in range(1, arguments.seeds + 1):
                if (library, agent, name, seed, settings) in known or time.monotonic() > end:
                    continue
                begin = time.perf_counter()
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.defaults",
                    "--one",
                    library,
                    agent,
                    name,
                    str(seed),
                    json.dumps(more),
                ]
                environment = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{library} {agent} {name}, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
                result = float(done.stdout.splitlines()[-1])
                entry = {"library": library, "agent": agent, "env": name, "seed": seed, "settings": settings}
                seconds = round(time.perf_counter() - begin, 1)
                append(arguments.data, {**entry, "return": result, "seconds": seconds, "machine": machine()})
                print(f"{library} {agent} {name}, seed {seed}: {result:.1f}, {seconds:.0f} s", flush=True)


def table(runs: list[dict[str, Any]], more: dict[str, str]) -> list[str]:
    """The lines of the table of present settings."""
    lines = [
        "| agent | environment | steps | rl_lab | 95 % interval | Stable-Baselines3 | 95 % interval | seeds |",
        "|---" * 8 + "|",
    ]
    for agent, name in keys("*"):
        cells = [f"`{agent}`", name, f"{steps_of(agent, name):,}"]
        counts = []
        for library in ("rl_lab", "sb3"):
            found = [r for r in runs if (r["library"], r["agent"], r["env"]) == (library, agent, name)]
            if library == "rl_lab":
                present = hash_of(settings_now(library, agent, more))
            else:
                present = found[-1]["settings"] if found else ""  # of the version that ran last
            returns = [r["return"] for r in found if r["settings"] == present]
            counts.append(len(returns))
            if returns:
                low, high = stratified_interval([returns], aggregate_iqm)
                cells += [f"{interquartile_mean(returns):.2f}", f"{low:.2f} to {high:.2f}"]
            else:
                cells += ["", ""]
        if all(counts):
            lines.append("| " + " | ".join([*cells, " and ".join(map(str, sorted(set(counts))))]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    parser.add_argument("--only", default="*", metavar="AGENT/ENV,...", help="what to run, with wildcards; default: all")
    parser.add_argument("--libraries", default="rl_lab,sb3", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further run after this time")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of rl_lab to try; needs --data")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--table", action="store_true", help="write docs/defaults.md, or print the table of another --data")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        library, agent, name, seed, more = arguments.one
        settings = {key: _typed(value) for key, value in json.loads(more).items()}
        print(run_own(agent, name, int(seed), settings) if library == "rl_lab" else run_peer(agent, name, int(seed)))
        return
    more = dict(pair.split("=", 1) for pair in arguments.set)
    if more and arguments.data == DATA:
        parser.error("--set needs --data: the default file is for default settings")
    if not arguments.table:
        measure(arguments, more)
        return
    lines = table(read(arguments.data), more)
    if arguments.data != DATA:
        print("\n".join(lines))
        return
    DOCS.write_text(INTRODUCTION + "\n".join(lines) + "\n", encoding="utf-8")


def _typed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


INTRODUCTION = f"""# How good the defaults are

Most users have an environment for which nobody has tuned anything. Here rl_lab and Stable-Baselines3 learn with their default settings, for
the same number of steps, on one thread. Afterwards both play {EPISODES} greedy episodes from the same starts. The numbers are
interquartile means over seeds, with stratified bootstrap intervals. Corridor and Reach are two small environments defined in
`benchmarks/defaults.py`.
Stable-Baselines3 gets flat observations in Blackjack and MinAtar. `python -m benchmarks.defaults` adds missing runs to
`benchmarks/defaults.jsonl`, and `--table` writes this page.

"""


if __name__ == "__main__":
    main()
