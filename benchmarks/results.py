"""What the shipped presets reach, over seeds: measured in several sittings, kept in a file, written to docs/results.md.

    python -m benchmarks.results                       every preset, ten seeds each; the cheapest environments first
    python -m benchmarks.results --only dqn/CartPole-v1,'*/Acrobot-v1' --seeds 5 --seconds 3600
    python -m benchmarks.results --table               write docs/results.md and the README's table from the data, and run nothing

Each seed runs in a process of its own. When it has finished, a line with its numbers is appended to benchmarks/results.jsonl. A seed that
is in the file with the present settings is not run again, so the measurement can be interrupted and continued. A preset that changed is
measured anew, because its settings are in the file as well. The seeds begin at `FIRST_SEED`: presets are tuned on smaller ones.

Counted are all environment steps before the final evaluation: those of training, and those of the evaluations that stop the run or choose
its state. The final evaluation plays 100 greedy episodes from seeds that neither training nor those evaluations used.
"""

import argparse
import fnmatch
import functools
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine
from rl_lab.agents.qrdqn import RAINBOW
from rl_lab.experiment.config import as_complete, read_toml
from rl_lab.experiment.driver import Options, Plan, carry_out, make_plan
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.faults import NUMERICAL, Fault
from rl_lab.experiment.finding import full_id
from rl_lab.experiment.progress import NoProgress
from rl_lab.experiment.statistics import aggregate_iqm, interquartile_mean, stratified_interval
from rl_lab.experiment.vector import close_environments

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "results.jsonl"
EARLIER = ROOT / "benchmarks" / "results_earlier.jsonl"
"""Figures of an earlier script, which did not count the steps of evaluations. The page shows those of which the data have no new run."""
DOCS = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
FIRST_SEED = 1001
SEEDS = 10
SLOW = 600.0
"""Seconds of a run from which `FEW` seeds are enough."""
FEW = 5
WAITED = 4
"""Wall time in processor times from which a run counts as paused."""
EPISODES = 100
"""Episodes of the final evaluation, and of the random policy."""
TOLERANCE = 0.1
"""Share of the way from a random policy to the highest figure that the worst seed may miss."""

ENVIRONMENTS = (
    *(
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "Pendulum-v1",
        "MountainCarContinuous-v0",
        "Catch-v0",
        "CartPoleMasked-v0",
    ),
    *("LunarLander-v3", "LunarLanderContinuous-v3", "DoublePole-v0", "DoublePoleNoVelocity-v0", "Bricks-v0"),
    *(f"MinAtar/{game}-v1" for game in ("Breakout", "Asterix", "Freeway", "SpaceInvaders")),
    "BipedalWalker-v3",
)
"""Environments in the order in which they are measured: the cheapest first. Others follow."""
HEADLINE = (
    ("dqn", "CartPole-v1"),
    ("ppo", "Acrobot-v1"),
    ("sac", "MountainCarContinuous-v0"),
    ("pqn", "LunarLander-v3"),
    ("pqn", "MinAtar/Breakout-v1"),
    ("pqn", "MinAtar/Asterix-v1"),
)
"""Rows of the README's table."""
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rainbow": ("qrdqn", "--config rainbow", RAINBOW),
    "c51": (
        "qrdqn",
        "--distribution categorical --quantiles 51 --value-min 0 --value-max 100",
        {"distribution": "categorical", "quantiles": 51, "value_min": 0.0, "value_max": 100.0},
    ),
}
"""Names of the table for an agent with other options: the agent, the options as words, and as settings on top of the preset."""
VARIANT_ENVIRONMENTS = {"rainbow": ("CartPole-v1",), "c51": ("CartPole-v1",)}

PUBLISHED = {
    "CartPole-v1": (500.0, "DQN, PPO, A2C: rl-zoo"),
    "Acrobot-v1": (-69.1, "QR-DQN, 100 k steps: rl-zoo"),
    "MountainCar-v0": (-100.8, "DQN, 120 k: rl-zoo"),
    "Pendulum-v1": (-151.0, "TQC, 20 k: rl-zoo; SAC, 300 k: SLM-Lab"),
    "MountainCarContinuous-v0": (96.7, "ARS, 500 k: rl-zoo"),
    "LunarLander-v3": (265.9, "DDQN+PER, 300 k: SLM-Lab"),
    "LunarLanderContinuous-v3": (278.0, "TQC, 500 k: rl-zoo"),
    "BipedalWalker-v3": (329.8, "TQC, 500 k: rl-zoo"),
    "BipedalWalkerHardcore-v3": (235.2, "TQC, 2 M: rl-zoo"),
    "HalfCheetah-v5": (12_139.0, "SAC, 1 M: Tianshou"),
    "Hopper-v5": (3_754.0, "TQC, 1 M: rl-zoo"),
    "Walker2d-v5": (5_007.0, "SAC, 1 M: Tianshou"),
    "Ant-v5": (5_850.0, "SAC, 1 M: Tianshou"),
    "Swimmer-v5": (359.1, "TD3, 1 M: rl-zoo"),
    "MinAtar/Breakout-v1": (28.0, "PPO, 10 M and more: gymnax"),
    "MinAtar/Asterix-v1": (15.0, "PPO, 10 M and more: gymnax"),
    "MinAtar/Freeway-v1": (58.0, "PPO, 10 M and more: gymnax"),
    "MinAtar/SpaceInvaders-v1": (131.0, "PPO, 10 M and more: gymnax"),
}
"""The highest published figure that we know for an environment, by whatever agent, and its source."""
MOST = {"CartPoleMasked-v0": 500.0, "Catch-v0": 10.0, "DoublePole-v0": 1000.0, "DoublePoleNoVelocity-v0": 1000.0}
"""The largest possible return of environments of this lab, for which nothing is published."""

UNINVOLVED = frozenset(
    field.name
    for field in fields(Options)
    if field.name in ("agent", "env", "start_from", "seed", "run_dir", "render", "video")
    or field.name.startswith(("checkpoint_", "keep_checkpoints", "log", "histogram_", "video_"))
)
"""Options on which the numbers of a run do not depend, or which are stated beside the settings."""

Key = tuple[str, str]
"""Name of an agent or variant, and an environment."""


@dataclass
class Data:
    """The content of the data file."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings by their hash."""
    random: dict[str, float] = field(default_factory=dict)
    """Mean return of a random policy by environment."""

    @classmethod
    def read(cls, path: Path) -> "Data":
        """Read the file; empty if there is none. Exits with a message if a line is damaged."""
        data = cls()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if "values" in entry:
                    data.settings[entry["settings"]] = entry["values"]
                elif entry["agent"] == "random":
                    data.random[entry["env"]] = float(entry["return_mean"])
                else:
                    data.runs.append(entry)
            except (ValueError, KeyError, TypeError):
                raise SystemExit(f"{path}, line {number}: not a line of this script; remove it") from None
        return data

    def of(self, key: Key, more: dict[str, str]) -> list[dict[str, Any]]:
        """The runs of an agent in an environment with the present settings, one per seed, in the order of the seeds."""
        own = [run for run in self.runs if (run["agent"], run["env"]) == key]
        valid = {name for name in {run["settings"] for run in own} if self.is_present(key, name, more)}
        latest = {run["seed"]: run for run in own if run["settings"] in valid}
        return [latest[seed] for seed in sorted(latest)]

    def is_present(self, key: Key, name: str, more: dict[str, str]) -> bool:
        """Whether the settings with this hash are those with which a new run would begin.

        A setting that did not exist when the run was made must have its default now. Where the agent cannot be loaded, such as one whose
        library is not installed, the settings count as unchanged.
        """
        try:
            now, defaults = present_settings(key, tuple(more.items()))
        except Fault:
            return True
        recorded = self.settings.get(name)
        if recorded is None:
            return False
        later = now.keys() - recorded.keys()
        return all(now.get(k) == v for k, v in recorded.items()) and all(now[k] == defaults[k] for k in later)


def append(path: Path, entry: dict[str, Any]) -> None:
    """Append a line to the data and wait until it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


# --- what is measured ------------------------------------------------------------------------------------------------


def presets() -> list[Key]:
    """Every agent or variant and environment with a preset, in the order of measurement."""
    tables = read_toml(ROOT / "agents" / "presets.toml")
    keys = [(agent, env) for agent in tables for env in tables[agent]]
    keys += [(name, env) for name, envs in VARIANT_ENVIRONMENTS.items() for env in envs]
    return sorted(keys, key=lambda key: rank(key[1]))


def rank(env: str) -> int:
    """The place of an environment in the order of measurement."""
    return ENVIRONMENTS.index(env) if env in ENVIRONMENTS else len(ENVIRONMENTS)


def chosen(words: str) -> list[Key]:
    """The presets that ``--only`` names. Raises Fault for a word that names none."""
    known = presets()
    found: dict[Key, None] = {}
    for word in words.split(","):
        matching = [key for key in known if fnmatch.fnmatch("/".join(key), word.strip())]
        if not matching:
            raise Fault(
                f"no preset is called {word.strip()!r}: write agent/environment, such as dqn/CartPole-v1 or '*/Acrobot-v1'"
            )
        found |= dict.fromkeys(matching)
    return list(found)


def given_settings(key: Key, more: dict[str, str]) -> dict[str, Any]:
    """The settings of a run that its preset does not have."""
    name, env = key
    agent, _, own = VARIANTS.get(name, (name, "", {}))
    return {"agent": agent, "env": env, **own, **more}


@functools.cache
def present_settings(key: Key, more: tuple[tuple[str, str], ...] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """All settings on which a new run depends, and their defaults. Raises Fault if agent or environment cannot be used."""
    plan = make_plan(given_settings(key, dict(more)))
    return settings_of(plan), involved({**as_complete(Options()), **as_complete(type(plan.config)())})


def settings_of(plan: Plan) -> dict[str, Any]:
    """The settings of a plan on which the numbers of its run depend."""
    return involved({**as_complete(plan.options), **as_complete(plan.config)})


def involved(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not `UNINVOLVED`, with values that JSON has."""
    return json.loads(json.dumps({name: value for name, value in settings.items() if name not in UNINVOLVED}))


def hash_of(settings: dict[str, Any]) -> str:
    """A short name of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def commit() -> str:
    """The commit of the code, with a plus sign if it was changed since; empty outside of a repository."""
    try:
        name = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py", "*.toml"], cwd=ROOT, check=False).returncode
        return name.stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


# --- measuring -------------------------------------------------------------------------------------------------------


def one(given: dict[str, Any], place: Path) -> None:
    """Train and evaluate in this process and write the numbers to ``place``, as JSON."""
    begin = time.perf_counter()
    processor = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan({**given, "run_dir": folder})
            result = carry_out(plan, NoProgress())
    except Exception as error:
        if not isinstance(error, Fault) or error.code != NUMERICAL:
            raise
        place.write_text(json.dumps({"values": settings_of(plan), "failed": str(error)}), encoding="utf-8")
        return
    if result.evaluation is None:  # a signal
        raise SystemExit(result.exit_code)
    found = asdict(result.evaluation)
    numbers = {
        "values": settings_of(plan),
        "steps": result.timesteps,
        "selection_steps": result.selection_steps,
        "environment_steps": result.timesteps + result.selection_steps,
        "final_steps": found["steps"],
        "seconds": round(time.perf_counter() - begin, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "training_return": result.training_return,
        **{name: found[name] for name in ("return_mean", "return_std", "return_min", "episodes")},
    }
    if numbers["seconds"] > WAITED * numbers["processor_seconds"] + 20.0:  # it waited, so its wall time tells nothing about it
        numbers |= {"seconds": numbers["processor_seconds"], "paused": True}
    place.write_text(json.dumps(numbers), encoding="utf-8")


def random_return(env: str) -> float:
    """Mean return of the first episode of each of `EPISODES` environments under actions drawn from the action space."""
    envs = make_environments(choose_setup(full_id(env)), EPISODES)
    try:
        envs.reset(seed=FIRST_SEED)
        envs.action_space.seed(FIRST_SEED)
        total = np.zeros(EPISODES)
        playing = np.ones(EPISODES, bool)
        while playing.any():
            _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
            total += rewards * playing
            playing &= ~(terminated | truncated)
    finally:
        close_environments(envs)
    return float(total.mean())


@dataclass
class Running:
    """A seed that is being measured in another process."""

    key: Key
    seed: int
    process: subprocess.Popen
    place: Path
    errors: Path

    def finished(self) -> dict[str, Any]:
        """The numbers that the ended process wrote. If it failed, raises Fault with the last line that it printed."""
        if self.process.returncode == 0:
            return json.loads(self.place.read_text(encoding="utf-8"))
        said = self.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Fault(f"{said[-1] if said else 'no message'} (exit code {self.process.returncode})")


def due(keys: Sequence[Key], seeds: int, data: Data, more: dict[str, str]) -> Iterator[tuple[Key, int]]:
    """The seeds to run: the first few of every preset, then the others. Read while they run: a slow preset needs `FEW` seeds."""
    for count in sorted({min(FEW, seeds), seeds}):
        for key in keys:
            for seed in range(FIRST_SEED, FIRST_SEED + count):
                known = data.of(key, more)
                slow = any(run.get("seconds", 0.0) > SLOW for run in known)
                if seed - FIRST_SEED < (FEW if slow else count) and seed not in [run["seed"] for run in known]:
                    yield key, seed


def measure(arguments: argparse.Namespace, keys: Sequence[Key], more: dict[str, str]) -> int:
    """Run what is due and append it to the data. Returns the number of seeds that could not be measured."""
    path, deadline = arguments.data, time.monotonic() + arguments.seconds
    data = Data.read(path)
    facts = {"version": _version(), "commit": commit(), "threads": arguments.threads, "machine": machine()}
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(arguments.threads)}
    running: list[Running] = []
    failed: set[Key] = set()
    unmeasured = 0
    waiting = due(keys, arguments.seeds, data, more)
    begun: set[tuple[Key, int]] = set()
    with tempfile.TemporaryDirectory() as folder:
        try:
            while True:
                while waiting is not None and len(running) < arguments.workers:
                    task = next((t for t in waiting if t not in begun and t[0] not in failed), None)
                    if task is None or time.monotonic() > deadline:
                        waiting = None  # type: ignore[assignment]
                        break
                    begun.add(task)
                    running.append(_begin(*task, Path(folder), environment, more))
                ended = [run for run in running if run.process.poll() is not None]
                for run in ended:
                    running.remove(run)
                    name = f"{'/'.join(run.key)}, seed {run.seed}"
                    try:
                        numbers = run.finished()
                    except Fault as fault:
                        print(f"{name}: {fault}", file=sys.stderr, flush=True)
                        failed.add(run.key)  # its other seeds would fail alike
                        unmeasured += 1
                        continue
                    _keep(path, data, run, numbers, facts)
                    found = (
                        numbers.get("failed") or f"{numbers['return_mean']:.1f} after {numbers['environment_steps']:,} steps"
                    )
                    print(f"{name}: {found}, {numbers.get('seconds', math.nan):.0f} s", flush=True)
                if waiting is None and not running:
                    return unmeasured
                if not ended:
                    time.sleep(0.05)
        finally:
            for run in running:
                run.process.kill()
                run.process.wait()


def _version() -> str:
    import rl_lab

    return rl_lab.__version__


def _begin(key: Key, seed: int, folder: Path, environment: dict[str, str], more: dict[str, str]) -> Running:
    """Start a seed in a process of its own."""
    stem = re.sub(r"\W", "-", f"{'-'.join(key)}-{seed}")
    place, errors = folder / f"{stem}.json", folder / f"{stem}.txt"
    given = json.dumps({**given_settings(key, more), "seed": seed})
    command = [sys.executable, "-m", "benchmarks.results", "--one", given, str(place)]
    with errors.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    return Running(key, seed, process, place, errors)


def _keep(path: Path, data: Data, run: Running, numbers: dict[str, Any], facts: dict[str, Any]) -> None:
    """Append the numbers of a seed, its settings if they are new, and the return of a random policy if it is not known yet."""
    values = numbers.pop("values")
    name = hash_of(values)
    agent, env = run.key
    if env not in data.random:
        data.random[env] = random_return(env)
        append(path, {"agent": "random", "env": env, "return_mean": data.random[env], "episodes": EPISODES})
    if name not in data.settings:
        data.settings[name] = values
        append(path, {"settings": name, "values": values})
    entry = {"agent": agent, "env": env, "seed": run.seed, "settings": name, **numbers, **facts}
    data.runs.append(entry)
    append(path, entry)


# --- the page --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """An agent in an environment over seeds."""

    key: Key
    runs: list[dict[str, Any]]
    interval: tuple[float, float]
    target: float | None = None
    """The return that every seed should reach; None if there is nothing to compare with."""

    @property
    def returns(self) -> list[float]:
        """The return of each seed; minus infinity for a seed whose numbers were not finite."""
        return [run.get("return_mean", -math.inf) for run in self.runs]

    @property
    def mean(self) -> float:
        return float(interquartile_mean(self.returns))

    @property
    def fails(self) -> bool:
        """Whether the worst seed is far below the highest figure."""
        return self.target is not None and min(self.returns) < self.target

    def median(self, name: str) -> str:
        """The median of a number of the runs, as text."""
        value = float(np.median([run[name] for run in self.runs if name in run] or [math.nan]))
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def rows_of(data: Data, keys: Sequence[Key], more: dict[str, str]) -> list[Row]:
    """The rows of the table, in the order of ``keys``. An agent in an environment without a run has none."""
    rows = []
    for key in keys:
        runs = data.of(key, more)
        if runs:
            returns = [run.get("return_mean", -math.inf) for run in runs]
            low, high = (
                stratified_interval([returns], aggregate_iqm) if np.isfinite(returns).all() else (-math.inf, max(returns))
            )
            rows.append(Row(key, runs, (float(low), float(high))))
    for row in rows:
        env = row.key[1]
        best = max(other.mean for other in rows if other.key[1] == env)
        highest = PUBLISHED.get(env, (MOST.get(env, best), ""))[0]
        if env in data.random:
            row.target = highest - TOLERANCE * (highest - data.random[env])
    return rows


def label(name: str) -> str:
    """The first cell of a row."""
    agent, options, _ = VARIANTS.get(name, (name, "", {}))
    return f"`{agent}` with `{options}`" if options else f"`{agent}`"


def published(env: str) -> str:
    """The highest published figure of an environment and its source, as text."""
    if env in PUBLISHED:
        value, source = PUBLISHED[env]
        return f"{value:,.1f} ({source})"
    return f"none; {MOST[env]:,.0f} is the most" if env in MOST else "none"


def number(value: float) -> str:
    """A return as text."""
    return f"{value:,.1f}" if math.isfinite(value) else "not finite"


def table_of(rows: Sequence[Row]) -> list[str]:
    """The lines of the table."""
    names = ["agent", "environment", "seeds", "interquartile mean", "95 % interval", "worst seed", "training steps"]
    names += ["all environment steps", "seconds", "processor seconds", "highest published"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        count, worst = len(row.runs), number(min(row.returns))
        cells = [label(row.key[0]), row.key[1], str(count) if count >= SEEDS else f"{count} of {SEEDS}", number(row.mean)]
        cells += [" to ".join(map(number, row.interval)), f"**{worst}**" if row.fails else worst]
        cells += [row.median(name) for name in ("steps", "environment_steps", "seconds", "processor_seconds")]
        lines.append("| " + " | ".join([*cells, published(row.key[1])]) + " |")
    return lines


def earlier_rows(measured: Sequence[Key], path: Path = EARLIER) -> list[dict[str, Any]]:
    """The figures of the earlier script for agents and environments that are not measured yet, completed from returns by seed."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (row["agent"], row["env"]) in measured:
            continue
        if "returns" in row:
            returns = row["returns"]
            row |= {"seeds": len(returns), "mean": float(interquartile_mean(returns)), "worst": min(returns)}
        rows.append(row)
    return sorted(rows, key=lambda row: rank(row["env"]))


def earlier_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table with the figures of the earlier script."""
    lines = [
        "| agent | environment | seeds | interquartile mean | worst seed | training steps, median | version |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        steps = f"{row['steps']:,}" if "steps" in row else ""
        cells = [label(row["agent"]), row["env"], str(row["seeds"]), number(row["mean"]), number(row["worst"]), steps]
        lines.append("| " + " | ".join([*cells, row.get("version", "")]) + " |")
    return lines


def page(rows: Sequence[Row], data: Data) -> str:
    """docs/results.md."""
    machines = sorted({run["machine"] for row in rows for run in row.runs})
    threads = sorted({run["threads"] for row in rows for run in row.runs})
    versions = sorted({run["version"] for row in rows for run in row.runs})
    failing = [row for row in rows if row.fails]
    floors = ", ".join(
        f"{env} {data.random[env]:,.1f}" for env in dict.fromkeys(row.key[1] for row in rows) if env in data.random
    )
    lines = [
        "# How well the agents learn",
        "",
        "This page is written by `python -m benchmarks.results --table` from `benchmarks/results.jsonl`, to which",
        "`python -m benchmarks.results` adds a line for each seed that it has run with the shipped presets.",
        "",
    ]
    if rows:
        where = f"{_words(threads)} of {'; '.join(machines)}"
        lines += [
            f"- **Seeds.** Each seed is a run in a process of its own. The seeds begin at {FIRST_SEED:,}, and presets are tuned on smaller",
            f"  ones. The goal is {SEEDS} seeds per row, and {FEW} where a run takes more than {SLOW / 60:.0f} minutes. A row with",
            "  fewer seeds says so.",
            f"- **Return.** The mean over {EPISODES} greedy episodes after training, from starts that neither training nor its evaluations",
            "  used. The table has the interquartile mean over seeds, its stratified bootstrap interval, and the worst seed.",
            "- **Steps.** Many presets use short greedy evaluations to stop the run or to keep its best state. *All environment steps* are",
            "  those of training and those of these evaluations. The final evaluation counts in neither column. Medians over seeds.",
            f"- **Seconds.** Wall time and processor time of a run with its evaluations, on {where}.",
            "  Other work shared the machine. A run that waited for most of its wall time has its processor time in both columns",
            "  (`paused` in the data). Medians over seeds.",
            "- **Highest published.** The highest figure that we know for the environment, by whatever agent, at whatever number of steps.",
            f"- **Version.** rl_lab {', '.join(versions)}. The data name the commit and the settings of each run.",
            "",
            "A worst seed in bold fails. It misses the highest published figure by more than",
            f"{TOLERANCE:.0%} of the distance between that figure and a random policy. Where nothing is published, the largest possible",
            "return counts instead, or the best row of the environment. Returns of a random policy:",
            f"{floors}.",
            "",
            *table_of(rows),
            "",
        ]
        if failing:
            names = [f"{label(row.key[0])} on {row.key[1]} ({number(min(row.returns))})" for row in failing]
            lines += ["Presets with a seed that fails, and its return: " + ", ".join(names) + ".", ""]
    old = earlier_rows([row.key for row in rows])
    if old:
        lines += [
            "## Measured with an earlier version, evaluation steps not counted",
            "",
            "These rows have not been measured with the script above yet. They come from seeds 1, 2, ..., on which presets may have been",
            "tuned. An empty cell was not recorded.",
            "",
            *earlier_table(old),
            "",
        ]
    return "\n".join(lines)


def _words(threads: Sequence[int]) -> str:
    return " or ".join("one thread" if count == 1 else f"{count} threads" for count in threads)


def readme_table(rows: Sequence[Row]) -> list[str]:
    """The lines of the README's table: the rows of `HEADLINE`, from the earlier figures where there are no others."""
    found = {row.key: row for row in rows}
    old = {(row["agent"], row["env"]): row for row in earlier_rows(list(found))}
    lines = ["| agent | environment | seeds | interquartile mean | worst seed | highest published |", "|---" * 6 + "|"]
    for key in HEADLINE:
        if key in found:
            count, mean, worst = len(found[key].runs), found[key].mean, min(found[key].returns)
        elif key in old:
            count, mean, worst = old[key]["seeds"], old[key]["mean"], old[key]["worst"]
        else:
            continue
        lines.append(f"| {label(key[0])} | {key[1]} | {count} | {number(mean)} | {number(worst)} | {published(key[1])} |")
    return lines


def with_table(text: str, lines: Sequence[str]) -> str:
    """The text of the README with its table of returns replaced. Raises Fault if it has none."""
    found = re.search(r"`python -m benchmarks\.results`(?:.+\n)+\n((?:\|.*\n)+)", text)
    if found is None:
        raise Fault("the README has no table after `python -m benchmarks.results`")
    return text[: found.start(1)] + "\n".join(lines) + "\n" + text[found.end(1) :]


def write_page(arguments: argparse.Namespace, more: dict[str, str]) -> None:
    """Write the page, and the README's table, from the data. Name presets that fail and do not say so."""
    data = Data.read(arguments.data)
    rows = rows_of(data, presets(), more)
    readme = None
    if arguments.readme is not None:
        readme = with_table(arguments.readme.read_text(encoding="utf-8"), readme_table(rows))
    arguments.docs.write_text(page(rows, data), encoding="utf-8")
    if readme is not None:
        arguments.readme.write_text(readme, encoding="utf-8")
    tables = read_toml(ROOT / "agents" / "presets.toml")
    for row in rows:
        agent, env = row.key
        if row.fails and agent in tables and "note" not in tables[agent][env]:
            print(f"{agent} on {env} fails on a seed ({number(min(row.returns))}): its preset needs a note", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", metavar="AGENT/ENV,...", help="presets to measure, with wildcards; default: all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds of a preset; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="number of processes that run at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further run after this time")
    parser.add_argument("--table", action="store_true", help="write the page from the data and run nothing")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings on top of the preset; needs --data"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="file of the data; with another file the README is left alone")
    parser.add_argument("--docs", type=Path, help="page to write; default: docs/results.md, or none with another --data")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a seed could not be measured."""
    options = parser()
    arguments = options.parse_args(words)
    if arguments.one:
        one(json.loads(arguments.one[0]), Path(arguments.one[1]))
        return 0
    for name in ("seeds", "workers", "threads"):
        if getattr(arguments, name) < 1:
            options.error(f"--{name} must be at least 1")
    if any("=" not in word for word in arguments.set):
        options.error("--set takes settings as name=value")
    more = dict(word.split("=", 1) for word in arguments.set)
    own = arguments.data == DATA
    if more and own:
        options.error("--set needs --data FILE: benchmarks/results.jsonl has the presets as they are shipped")
    if not arguments.data.parent.is_dir():
        options.error(f"--data: {arguments.data.parent} is not a directory")
    arguments.readme = README if own and arguments.docs is None else None
    arguments.docs = arguments.docs or (DOCS if own else None)
    try:
        keys = chosen(arguments.only)
        if more:
            for key in keys:
                present_settings(key, tuple(more.items()))
    except Fault as fault:
        options.error(str(fault))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the running seeds as well
    try:
        unmeasured = 0 if arguments.table else measure(arguments, keys, more)
    except KeyboardInterrupt:
        print("interrupted: the finished seeds are in the data", file=sys.stderr)
        return 130
    if arguments.docs is not None:
        try:
            write_page(arguments, more)
        except Fault as fault:
            options.error(str(fault))
    return 1 if unmeasured else 0


if __name__ == "__main__":
    sys.exit(main())
