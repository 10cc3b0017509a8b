"""Sweeps: one training for every combination of settings and every seed, with statistics over the seeds.

A sweep has a directory of its own with ``sweep.toml``, which says what was asked for, a run directory per run, and the results. A sweep
that was interrupted continues from these files.
"""

import itertools
import json
import re
import shlex
import shutil
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tomli_w

from rl_lab.experiment.agent import Agent, name_in_run
from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean
from rl_lab.experiment.config import as_complete, as_plain, make_config, read_toml, setting
from rl_lab.experiment.driver import Plan, make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.faults import STORAGE, Fault, Interrupted, code_of
from rl_lab.experiment.files import read_file, require_no_links
from rl_lab.experiment.lock import RunLock
from rl_lab.experiment.logger import Logger
from rl_lab.experiment.memory import within_free_memory
from rl_lab.experiment.run import check_recorded, new_directory
from rl_lab.experiment.starting import take_over
from rl_lab.experiment.sweeps.executors import Event, Executor, LocalExecutor
from rl_lab.experiment.sweeps.store import Store, file_system
from rl_lab.experiment.sweeps.table import NoTable, Table, make_table
from rl_lab.experiment.sweeps.worker import FAILED, FINISHED, PRUNED, STOPPED, Task
from rl_lab.experiment.trust import require_harmless, sign
from rl_lab.experiment.vector import close_environments
from rl_lab.serialization import write_file

EXECUTORS = ("local", "ray")
REQUEST = "sweep.toml"
RESULT = "result.json"
SUMMARY = "summary.json"
CONFIDENCE = 0.95
_MOST_SEEDS = 100_000
FIRST_TUNED = 1001
"""The first seed of trials."""


def read_seeds(given: Any) -> tuple[int, ...]:
    """Seeds from ``10`` (1 to 10), ``11-20`` or ``3,5,8``, or from a list or range of integers. Raises Fault for anything else."""
    given = list(given) if isinstance(given, (range, np.ndarray)) and np.ndim(given) else given
    words = given if isinstance(given, (list, tuple)) else [given]
    if len(words) == 1 and re.fullmatch(r"\d{1,18}", str(words[0]).strip()):
        words = [f"1-{words[0]}"] if isinstance(words[0], str) or not isinstance(given, (list, tuple)) else words
    seeds: list[int] = []
    for word in ",".join(map(str, words)).split(","):
        found = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", word.strip())
        if found is None and word.strip():
            raise Fault(f"--seeds takes a number of seeds, as 10, or the seeds, as 11-20 or 3,5,8, not {word[:40]!r}")
        if found is not None:
            last = int(found[2] or found[1])
            if last - int(found[1]) >= _MOST_SEEDS:
                raise Fault(f"--seeds takes at most {_MOST_SEEDS:,} seeds, got {word[:40]!r}")
            seeds += range(int(found[1]), last + 1)
    if not seeds:
        raise Fault("--seeds takes at least one seed: give their number, as in --seeds 10")
    if len(set(seeds)) < len(seeds):
        raise Fault("--seeds names a seed twice")
    return tuple(seeds)


def read_assignments(given: Any) -> tuple[str, ...]:
    """Texts ``name=value,value``, each with a name and a value. Raises Fault for another form."""
    listed = given if isinstance(given, (list, tuple)) else [given]
    for text in listed:
        name, sign, values = str(text).partition("=")
        if not sign or not name.strip() or not values.strip(" ,|"):
            raise Fault(f"give NAME=VALUE,VALUE, as in learning_rate=1e-3,3e-4, not {str(text)[:60]!r}")
    return tuple(map(str, listed))


@dataclass(frozen=True)
class Sweep:
    """Settings of a sweep besides those of its runs."""

    seeds: tuple[int, ...] = setting(
        tuple(range(1, 11)), "number of seeds, 10 for 1 to 10, or the seeds themselves", read=read_seeds, metavar="N|A-B|A,B,C"
    )
    set: tuple[str, ...] = setting(
        (),
        "values of a setting, all combinations of which are run; can be repeated; values with commas are separated by |",
        read=read_assignments,
        metavar="NAME=VALUE,VALUE",
    )
    workers: int = setting(0, "runs at once on this machine; 0: one per core", least=0)
    executor: str = setting("local", "where the runs are carried out", choices=EXECUTORS)
    address: str = setting("", "address of the Ray cluster; by default a cluster of this machine is started")
    store: str = setting(
        "", "with --executor ray: URL for the runs' files, if the machines share no disk, such as s3://bucket/folder"
    )
    retries: int = setting(3, "with --executor ray: how often a run is begun again whose machine was lost", least=0)
    optimize: int = setting(0, "number of trials in which Optuna looks for better settings; 0: none", least=0)
    trial_seeds: int = setting(3, "with --optimize: seeds of each trial, none of which is among --seeds", least=1)
    search: tuple[str, ...] = setting(
        (),
        "with --optimize: values to look among, instead of the agent's own; NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=VALUE,VALUE",
        read=read_assignments,
        metavar="NAME=RANGE",
    )
    storage: str = setting("", "with --optimize: URL of Optuna's storage; by default a file in the sweep's directory")


CHANGEABLE = ("seeds", "workers", "executor", "address", "store", "retries", "optimize")
"""Settings that may change when a sweep is continued."""


@dataclass(frozen=True)
class Variant:
    """One combination of settings, trained with every seed."""

    name: str
    """Its directory below the sweep's; empty if there is no other variant."""
    label: str
    settings: Mapping[str, Any]
    """All settings of a run but the seed, as `make_plan` takes them."""

    def task(self, sweep: Path, seed: int, store: str) -> Task:
        """The run with a seed in the directory ``sweep``. Below the URL ``store`` each sweep has a folder of its own."""
        key = f"{self.name}/s{seed}".lstrip("/")
        place = f"{store.rstrip('/')}/{'/'.join(sweep.absolute().parts[-3:])}" if store else ""
        return Task(key, str((sweep / key).absolute()), {**self.settings, "seed": seed}, place)


@dataclass(frozen=True)
class SweepPlan:
    """A checked request for a sweep: nothing has been created yet."""

    sweep: Sweep
    variants: tuple[Variant, ...]
    run_dir: Path
    tuned_seeds: tuple[int, ...] = ()
    """Seeds of the trials of ``--optimize``."""
    path: Path | None = None
    """Directory of the sweep that continues; None for a new one."""

    @property
    def agent(self) -> str:
        return str(self.variants[0].settings["agent"])

    @property
    def env(self) -> str:
        return str(self.variants[0].settings["env"])


# --- asking for a sweep --------------------------------------------------------------------------------------------------


def make_sweep(given: Mapping[str, Any]) -> SweepPlan:
    """Check the settings of a sweep and of its runs, by name, and try to make the agent of every variant.

    Raises Fault for anything wrong, before anything is created.
    """
    own = {field.name for field in fields(Sweep)}
    sweep = make_config(Sweep, {name: value for name, value in given.items() if name in own})
    settings = {name: value for name, value in given.items() if name not in own}
    if "seed" in settings:
        raise Fault("a sweep has several seeds: give --seeds instead of --seed")
    if str(settings.get("agent", "")).startswith("__main__:"):
        raise Fault("the runs of a sweep are processes of their own: put the agent's class into a module")
    choices = grid(sweep.set)
    tuned = _seeds_of_trials(sweep)
    _check_ways(sweep, len(choices))
    variants = []
    for number, chosen in enumerate(choices):
        plan = make_plan({**settings, **chosen, "seed": sweep.seeds[0]})
        try_out(plan)
        label = ", ".join(f"{name}={value}" for name, value in chosen.items() if len(choices) > 1)
        folder = re.sub(r"[^\w.=,+-]", "-", label.replace(" ", ""))[:80]
        variants.append(Variant(f"{number:02d}-{folder}" if len(choices) > 1 else "", label, complete(plan)))
    if sweep.optimize:
        from rl_lab.experiment.sweeps.tuning import require_optuna, search_space

        require_optuna()
        search_space(plan.agent_class, sweep.search)
    return SweepPlan(sweep, tuple(variants), Path(plan.options.run_dir), tuned)


def grid(assignments: Sequence[str]) -> list[dict[str, str]]:
    """All combinations of the values of ``name=value,value`` or ``name=value|value``. Raises Fault for a name that comes twice."""
    values: dict[str, list[str]] = {}
    for text in assignments:
        name, _, listed = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if name in values:
            raise Fault(f"--set names {name} twice: give its values together, as in {name}=1,2")
        if name in (*(field.name for field in fields(Sweep)), "seed", "agent", "env", "run_dir"):
            raise Fault(f"--set takes the settings of an agent or a run, not {name}")
        parts = [part.strip() for part in listed.split("|" if "|" in listed else ",")]
        values[name] = [part for part in dict.fromkeys(parts) if part]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _check_ways(sweep: Sweep, variants: int) -> None:
    """Raise Fault for settings of a sweep that do not go together, or a library that is missing."""
    if sweep.optimize and variants > 1:
        raise Fault("--optimize looks for settings itself: give --set one value, or --search to say where it looks")
    for name in ("search", "storage", "trial_seeds"):
        if getattr(sweep, name) != getattr(Sweep, name) and not sweep.optimize:
            raise Fault(f"--{name.replace('_', '-')} needs --optimize N")
    for name in ("address", "store"):
        if getattr(sweep, name) and sweep.executor != "ray":
            raise Fault(f"--{name} needs --executor ray")
    if sweep.workers and sweep.executor == "ray" and sweep.address:
        raise Fault("--workers counts runs on this machine: leave it out, since the cluster knows its cores")
    if sweep.store:
        file_system(sweep.store)
    if sweep.executor == "ray":
        from rl_lab.experiment.sweeps.cluster import import_ray

        import_ray()


def _seeds_of_trials(sweep: Sweep) -> tuple[int, ...]:
    """The seeds of trials: from `FIRST_TUNED` on, or above those of the final figure, which no trial may use."""
    if not sweep.optimize:
        return ()
    first = FIRST_TUNED
    if not set(range(first, first + sweep.trial_seeds)).isdisjoint(sweep.seeds):
        first = max(sweep.seeds) + 1
    return tuple(range(first, first + sweep.trial_seeds))


def complete(plan: Plan) -> dict[str, Any]:
    """All settings of a plan but the seed, so that a preset that changes later does not change them."""
    values = {**as_complete(plan.options), **as_complete(plan.config)}
    return {name: value for name, value in values.items() if name not in ("seed", "run_dir")}


def try_out(plan: Plan) -> None:
    """Make the agent of a plan once. Raises Fault if its settings do not fit together."""
    with within_free_memory():
        envs = make_environments(plan.setup, plan.options.num_envs)
        try:
            agent = plan.agent_class.create(plan.config, envs, plan.options.seed, plan.setup)
            if plan.options.start_from:
                take_over(agent, Path(plan.options.start_from))
        finally:
            close_environments(envs)


def open_sweep(path: Path, changes: Mapping[str, Any], trust: bool = False) -> SweepPlan:
    """The plan of the sweep in a directory, to continue it, with changes among `CHANGEABLE`.

    Raises Fault if the directory is not a sweep, for other changes, and if the file names a module of somebody else, unless ``trust``.
    """
    file = path / REQUEST
    if not file.is_file():
        raise Fault(f"{path} is not a sweep: it has no {REQUEST}")
    content = read_toml(file, foreign=True)
    check_recorded(content, file)
    try:
        recorded = dict(content["sweep"])
        tuned = tuple(int(seed) for seed in content["tuned_seeds"])
        variants = tuple(Variant(str(v["name"]), str(v["label"]), dict(v["settings"])) for v in content["variants"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Fault(
            f"{file} does not describe a sweep: restore the file, or start the sweep again in another directory"
        ) from None
    names = [variant.name for variant in variants]
    if not names or len(set(names)) < len(names) or any(name == ".." or Path(name).name != name for name in names):
        raise Fault(f"{file} does not describe a sweep: restore the file, or start the sweep again in another directory")
    require_no_links(path)
    for name in changes:
        if name not in CHANGEABLE:
            raise Fault(f"--{name.replace('_', '-')} cannot change when a sweep is continued: begin a new one")
    sweep = make_config(Sweep, {**recorded, **changes})
    if bool(sweep.optimize) != bool(recorded.get("optimize")):
        raise Fault("--optimize cannot be added to a sweep, or taken away: begin a new one")
    if not set(tuned).isdisjoint(sweep.seeds):
        raise Fault(f"seeds {tuned[0]} to {tuned[-1]} were used for tuning: give --seeds outside of this range")
    _check_ways(sweep, len(variants))
    for variant in variants:
        if not trust:
            require_harmless(dict(variant.settings), file)
        make_plan({**variant.settings, "seed": sweep.seeds[0]})
    if sweep.optimize:
        from rl_lab.experiment.sweeps.tuning import require_optuna

        require_optuna()
    return SweepPlan(sweep, variants, path.parent, tuned, path)


# --- carrying it out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """The greedy returns of one variant over its seeds."""

    label: str
    returns: dict[int, float]
    """Mean return of the evaluation at the end, by seed."""
    interquartile_mean: float
    low: float
    high: float
    """Ends of the bootstrap interval of the interquartile mean."""

    @property
    def worst(self) -> int:
        """The seed with the lowest return."""
        return min(self.returns, key=lambda seed: self.returns[seed])

    def __str__(self) -> str:
        front = f"{self.label}: " if self.label else ""
        if len(self.returns) == 1:
            return f"{front}greedy return {self.interquartile_mean:.1f} with one seed, which gives no interval"
        return (
            f"{front}interquartile mean {self.interquartile_mean:.1f} ({CONFIDENCE:.0%} interval {self.low:.1f} to {self.high:.1f}) over "
            f"{len(self.returns)} seeds, worst {self.returns[self.worst]:.1f} with seed {self.worst}"
        )


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended."""

    path: Path
    """The sweep's directory."""
    statistics: tuple[Statistics, ...]
    """One for each variant of which a run finished, the best first."""
    failures: dict[str, str]
    """Messages of the runs that failed, by the place of the run."""
    exit_code: int = 0
    """0, or the exit code of the first run that failed."""


def sweep(agent: str | type[Agent], env: str, *, progress: bool = False, **settings: Any) -> SweepResult:
    """Train an agent once for every seed and combination of settings, as ``python -m rl_lab.sweep`` does.

    ``settings`` are the options of the command by name: ``seeds=10``, ``set=["learning_rate=1e-3,3e-4"]``, ``optimize=50``, and those of
    the runs. The runs are processes of their own, so the agent and the environment must be found by name there. Raises Fault for
    settings that the command refuses, before anything is created.
    """
    return carry_out_sweep(
        make_sweep({**settings, "agent": name_in_run(agent), "env": env}), make_table() if progress else NoTable()
    )


class Runner:
    """Gives tasks to an executor as it has room for them, and keeps their results."""

    def __init__(self, executor: Executor, table: Table, store: str):
        self.executor = executor
        self.table = table
        self.store = store
        self.results: dict[str, Event] = {}
        self.begun = False
        """Whether a run or a trial has begun."""
        self._waiting: deque[Task] = deque()
        self._running: dict[str, Task] = {}
        self._said: set[str] = set()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, task: Task, label: str) -> None:
        """Add a run, unless it has finished or was pruned before."""
        self.table.add(task.key, label, int(task.settings["seed"]), int(task.settings["total_timesteps"]))
        known = _read_result(Path(task.folder))
        if known is not None:
            self.results[task.key] = {**known, "kind": "result", "key": task.key}
            self.table.know(self.results[task.key])
            return
        self._waiting.append(task)

    def drop(self, key: str) -> None:
        """End a run that is not needed any more, or do not begin it."""
        waiting = next((task for task in self._waiting if task.key == key), None)
        if waiting is not None:
            self._waiting.remove(waiting)
            self._end({"kind": "result", "key": key, "state": PRUNED}, waiting)
        elif key in self._running:
            self.executor.prune(key)

    def poll(self) -> list[Event]:
        """Begin runs while there is room, wait a moment, and return the events since the last call."""
        while self._waiting and len(self._running) < self.executor.places():
            task = self._waiting.popleft()
            self._running[task.key] = task
            self.begun = True
            self.table.begin(task.key)
            self.executor.submit(task)
        events = self.executor.events(0.2)
        for event in events:
            if event["kind"] == "note":
                if event["line"].startswith("warning") and event["line"] not in self._said:
                    self._said.add(event["line"])
                    self.table.say(event["line"])
                continue
            if event["kind"] != "result":
                self.table.event(event)
                continue
            if event["state"] == STOPPED:
                event |= {"state": FAILED, "message": "stopped by a signal from outside; its last checkpoint is kept"}
            self._end(event, self._running.pop(event["key"]))
        return events

    def _end(self, event: Event, task: Task) -> None:
        """Note the result of a run, in its directory as well."""
        self.results[event["key"]] = event
        folder = Path(task.folder)
        if task.store and event["state"] == FINISHED and not Store(task.store, task.key).fetch(folder):
            message = f"its files are not in {self.store}, as seen from here: all machines must reach the same store"
            event |= {"state": FAILED, "message": message, "code": STORAGE}
        if event["state"] in (FINISHED, PRUNED):
            kept = {name: value for name, value in event.items() if name not in ("kind", "key", "log")}
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_file(folder / RESULT, [json.dumps(kept).encode()])
            except OSError as error:
                raise Fault(f"cannot write {folder / RESULT}: {error.strerror}", code_of(error)) from None
        self.table.event(event)


def _read_result(folder: Path) -> Event | None:
    """The result of a run that ended before; None if there is none, or the file does not hold one."""
    try:
        found = json.loads(read_file(folder / RESULT, 10**7))
        if found["state"] == PRUNED:
            return {"state": PRUNED}
        evaluations = [(int(step), float(value)) for step, value in found["evaluations"]]
        timesteps, return_mean = int(found["timesteps"]), float(found["return_mean"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if found["state"] != FINISHED or not np.isfinite([return_mean, *[value for _, value in evaluations]]).all():
        return None
    return {"state": FINISHED, "timesteps": timesteps, "return_mean": return_mean, "evaluations": evaluations}


class _Signals:
    """Turns SIGTERM and SIGHUP into `Interrupted`, so that the runs are stopped in order."""

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came; 0 for none."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        self.install()

    def install(self) -> None:
        """Set the handlers, also if another library has set its own since: Ray does when it is connected."""
        try:
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    before = signal.signal(number, self._interrupt)
                    self._previous.setdefault(number, before)
        except ValueError:
            pass  # not the main thread

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        raise Interrupted(128 + number)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def carry_out_sweep(plan: SweepPlan, table: Table | None = None) -> SweepResult:
    """Carry out a sweep in a new directory, or in that of the sweep that continues. Failed runs do not stop the others."""
    path = plan.path or new_directory(plan.run_dir, plan.env, plan.agent, f"{time.strftime('%Y%m%d-%H%M%S')}-sweep")
    lock = RunLock(path / "lock")
    table = table or make_table()
    executor: Executor | None = None
    runner: Runner | None = None
    signals = _Signals()
    try:
        with signals:
            _record(plan, path)
            executor = _make_executor(plan.sweep, path)
            signals.install()
            runner = Runner(executor, table, plan.sweep.store)
            variants = plan.variants
            if plan.sweep.optimize:
                from rl_lab.experiment.sweeps.tuning import tune

                variants = (tune(plan, path, runner),)
            tasks = {v.name: [v.task(path, seed, plan.sweep.store) for seed in plan.sweep.seeds] for v in variants}
            for seed in range(len(plan.sweep.seeds)):  # one seed of every variant first: a picture of all of them early
                for variant in variants:
                    runner.add(tasks[variant.name][seed], variant.label)
            while runner.busy:
                runner.poll()
            return _conclude(path, variants, tasks, runner.results)
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "rl_lab.sweep", "--resume", str(path)])
        table.say(f"every run writes a checkpoint and stops; continue: {again}")
        if signals.received:  # Ray raises a plain KeyboardInterrupt instead
            raise Interrupted(128 + signals.received) from None
        raise
    except Fault:
        if plan.path is None and (runner is None or not runner.begun):  # such as a cluster that cannot be reached
            _remove(path)
        raise
    finally:
        try:
            if executor is not None:
                executor.close()
        finally:
            table.close()
            lock.release()


def _remove(path: Path) -> None:
    """Remove the directory of a sweep that did not begin, and those of its environment and agent if nothing else is in them."""
    shutil.rmtree(path, ignore_errors=True)
    for folder in list(path.parents)[:3]:
        try:
            folder.rmdir()
        except OSError:
            return


def _record(plan: SweepPlan, path: Path) -> None:
    """Write what was asked for, from which the sweep can continue."""
    content = {
        "agent": plan.agent,
        "env": plan.env,
        "tuned_seeds": list(plan.tuned_seeds),
        "sweep": as_plain(plan.sweep),
        "variants": [{"name": v.name, "label": v.label, "settings": dict(v.settings)} for v in plan.variants],
    }
    try:
        write_file(path / REQUEST, [tomli_w.dumps(content).encode()])
        sign(dict(plan.variants[0].settings), path)
    except OSError as error:
        raise Fault(f"cannot write to {path}: {error.strerror}", code_of(error)) from None


def _make_executor(sweep: Sweep, path: Path) -> Executor:
    if sweep.executor == "local":
        return LocalExecutor(sweep.workers, path / "logs")
    from rl_lab.experiment.sweeps.cluster import RayExecutor

    return RayExecutor(sweep.address, sweep.workers, sweep.retries)


def _conclude(
    path: Path, variants: Sequence[Variant], tasks: Mapping[str, Sequence[Task]], results: Mapping[str, Event]
) -> SweepResult:
    """Write the statistics of every variant to ``summary.json`` and to TensorBoard."""
    found: list[tuple[Variant, Statistics]] = []
    failures: dict[str, str] = {}
    code = 0
    for variant in variants:
        ended = {task.settings["seed"]: results[task.key] for task in tasks[variant.name]}
        for task in tasks[variant.name]:
            event = results[task.key]
            if event["state"] != FINISHED:
                failures[task.key] = str(event.get("message", event["state"]))
                code = code or event.get("code", 1)
        finished = {seed: event for seed, event in ended.items() if event["state"] == FINISHED}
        if finished:
            found.append((variant, statistics(variant.label, {s: e["return_mean"] for s, e in finished.items()})))
            _log(path / variant.name, list(finished.values()))
    found.sort(key=lambda pair: -pair[1].interquartile_mean)
    content = {
        "runs": [
            {
                "folder": variant.name or ".",
                "settings": variant.label,
                "interquartile_mean": s.interquartile_mean,
                "interval": [s.low, s.high],
                "confidence": CONFIDENCE,
                "returns": {str(seed): value for seed, value in s.returns.items()},
            }
            for variant, s in found
        ],
        "failures": failures,
    }
    try:
        write_file(path / SUMMARY, [json.dumps(content, indent=1).encode()])
    except OSError as error:
        raise Fault(f"cannot write {path / SUMMARY}: {error.strerror}", code_of(error)) from None
    return SweepResult(path, tuple(s for _, s in found), failures, code)


def statistics(label: str, returns: Mapping[int, float]) -> Statistics:
    """The interquartile mean of returns by seed, with its bootstrap interval."""
    values = list(returns.values())
    low, high = bootstrap_interval(values, CONFIDENCE)
    return Statistics(label, dict(returns), float(interquartile_mean(values)), float(low), float(high))


def _log(folder: Path, finished: Sequence[Event]) -> None:
    """Log the interquartile mean and its interval: at the short evaluations that all runs share, and at the end."""
    logger = Logger(folder, resumed_from=0)
    curves = [dict(map(tuple, event["evaluations"])) for event in finished]
    ends = [event["timesteps"] for event in finished]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)) - set(ends))
    points = [(int(step), [curve[step] for curve in curves]) for step in shared]
    points.append((max(ends), [event["return_mean"] for event in finished]))
    for step, values in points:
        low, high = bootstrap_interval(values, CONFIDENCE)
        names = ("interquartile_mean", "low", "high")
        numbers = (interquartile_mean(values), low, high)
        logger.record({f"sweep/return_{name}": float(value) for name, value in zip(names, numbers, strict=True)}, step)
    logger.close()
