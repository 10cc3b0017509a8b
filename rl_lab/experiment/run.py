"""The run directory: ``runs/<env>/<agent>/<time>-s<seed>/`` with config.toml, TensorBoard events and checkpoints/."""

import importlib.util
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from rl_lab.engine.html import html_table
from rl_lab.experiment.checkpoint import (
    find_checkpoint,
    first_not_finite,
    keep_copy,
    load_checkpoint,
    read_record,
    restore_checkpoint,
    save_checkpoint,
)
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.faults import NUMERICAL, STORAGE, USAGE, Fault, code_of
from rl_lab.experiment.files import require_no_links
from rl_lab.experiment.lock import RunLock
from rl_lab.experiment.logger import points_of
from rl_lab.experiment.trust import sign
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from pandas import DataFrame

    from rl_lab.experiment.agent import Agent


LAST, BEST = "last", "best"
"""Names of checkpoints: the latest state, and the state with the best short evaluation."""
OLDER = "step-"
"""Prefix of the names of older checkpoints; the environment steps follow it."""
DRIVER = "driver"
"""Key of the driver's own state in a checkpoint, among the parts of the agent."""


def check_recorded(config: dict[str, Any], source: Path) -> None:
    """Raise Fault unless ``agent`` and ``env`` of a configuration file are words, if given, and its hyperparameters a table."""
    if not isinstance(config.get("hyperparameters", {}), dict):
        raise Fault(f"{source}: [hyperparameters] is a table, not {type(config['hyperparameters']).__name__}")
    for key in ("agent", "env"):
        if not isinstance(config.get(key, ""), str):
            raise Fault(f"{source}: agent and env are words, but {key} is {config[key]!r}")


def _file_name(name: str) -> str:
    """A name without the characters that a system does not take in the names of files."""
    return re.sub(r'[/:\\<>"|?*]', "-", name)


def new_directory(parent: Path, env: str, agent: str, stem: str) -> Path:
    """Create the directory ``stem``, or ``stem-1``, ..., below those of an environment and an agent, and return its path.

    Raises Fault if the disk does not take it.
    """
    group = parent / _file_name(env) / _file_name(agent)
    for attempt in range(100):
        path = group / (f"{stem}-{attempt}" if attempt else stem)
        if _create(path):
            return path
    raise Fault(f"cannot create a directory in {group}: {stem} and 99 others exist: choose another --run-dir", STORAGE)


def _create(path: Path) -> bool:
    """Create a directory, and return whether it did not exist before. Raises Fault if the disk does not take it."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except (OSError, ValueError) as error:
        code = code_of(error) if isinstance(error, OSError) else USAGE
        raise Fault(f"cannot create the run directory {path}: {getattr(error, 'strerror', None) or error}", code) from None
    return True


@dataclass
class Run:
    """The directory of a run. A lock file ensures that one process writes at a time."""

    path: Path
    config: dict[str, Any]
    _lock: RunLock | None = None

    @classmethod
    def create(cls, parent: Path, config: dict[str, Any], place: Path | None = None) -> "Run":
        """Create a run directory with its config.toml, locked for this process: ``place``, or a new one below ``parent``.

        Raises Fault if the disk does not take it.
        """
        if place is None:
            path = new_directory(parent, config["env"], config["agent"], f"{time.strftime('%Y%m%d-%H%M%S')}-s{config['seed']}")
        elif _create(place):
            path = place
        else:
            raise Fault(f"{place} exists already: name a directory that does not exist for the new run")
        run = cls(path, config)
        try:
            run.lock()
            run.record(config)
            sign(config, path)
        except (OSError, Fault) as error:
            run.close()
            shutil.rmtree(path, ignore_errors=True)
            raise error if isinstance(error, Fault) else Fault(f"cannot write to {path}: {error.strerror}", STORAGE) from None
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open an existing directory. Raises Fault if it is not a run, or holds anything but files and directories."""
        if not (path / "config.toml").is_file():
            raise Fault(f"{path} is not a run: it has no config.toml")
        require_no_links(path)
        config = read_toml(path / "config.toml", foreign=True)
        check_recorded(config, path / "config.toml")
        return cls(path, config)

    def lock(self) -> None:
        """Become the only writer until `close`. Raises Fault, naming the other process, if another process is the writer."""
        self._lock = RunLock(self.path / "lock")

    def record(self, config: dict[str, Any]) -> None:
        """Replace config.toml as a whole: a crash leaves the old file or the new one. Raises Fault if the disk does not take it."""
        try:
            write_file(self.path / "config.toml", [tomli_w.dumps(config).encode()])
        except OSError as error:
            raise Fault(f"cannot write {self.path / 'config.toml'}: {error.strerror}", STORAGE) from None
        self.config = config

    def save(self, state: dict[str, Any], name: str = LAST, record: dict[str, Any] | None = None, kept: int = 1) -> None:
        """Write a checkpoint with a ``record`` for `recorded`, and keep the ``kept`` latest ones under the names `older`.

        Raises Fault, and leaves the existing checkpoints unchanged, if a number in the state is not finite or the disk is full.
        """
        strange = first_not_finite({key: part for key, part in state.items() if key != DRIVER})
        if strange:
            left = "the last checkpoint is intact" if self.holds(LAST) else "no checkpoint had been written yet"
            raise Fault(f"{strange} is not finite at step {state.get('timesteps')}: {left} in {self.path}", NUMERICAL)
        folder = self.path / "checkpoints"
        try:
            if not self.path.is_dir():
                raise FileNotFoundError(2, "the run directory is gone", str(self.path))
            save_checkpoint(folder / name, state, record)
            if name == LAST:
                self._keep(int(state["timesteps"]), kept)
        except OSError as error:
            raise Fault(f"cannot write a checkpoint to {self.path}: {error.strerror or error}", STORAGE) from None

    def _keep(self, timesteps: int, kept: int) -> None:
        """Keep the last checkpoint under its step, too; remove older ones beyond ``kept`` and those of later steps. Raises OSError."""
        folder, own = self.path / "checkpoints", f"{OLDER}{timesteps:012d}"
        if kept > 1:
            keep_copy(folder / LAST, own)
        past = [name for name in self.older() if name <= own]
        for name in self.older():
            if kept == 1 or name not in past[:kept]:  # later ones belong to a run that was set back
                shutil.rmtree(folder / name)

    def recover(self, kept: int, timesteps: int | None = None) -> None:
        """Complete or remove files that a killed process left unfinished. Call only while holding the lock.

        ``timesteps`` is the step of the last checkpoint, or None if that one was not loaded. Raises Fault if the disk refuses.
        """
        folder = self.path / "checkpoints"
        try:
            for unfinished in (*self.path.glob(".*.new"), *folder.glob(".*.new")):
                remove = shutil.rmtree if unfinished.is_dir() else os.unlink
                remove(unfinished)
            for name in (LAST, BEST):
                restore_checkpoint(folder / name)
            if timesteps is not None:
                self._keep(timesteps, kept)
        except OSError as error:
            raise Fault(f"cannot write to {self.path}: {error.strerror or error}", STORAGE) from None

    def older(self) -> list[str]:
        """Return the names of the checkpoints that are kept under their step, the latest first."""
        return sorted((found.name for found in (self.path / "checkpoints").glob(f"{OLDER}*") if found.is_dir()), reverse=True)

    def recorded(self, name: str = LAST) -> dict[str, Any] | None:
        """Return the record of a checkpoint: the ``config`` of the run and the sizes of its ``log`` files.

        The record is empty for runs of older versions, and None if it is damaged.
        """
        return read_record(self.path / "checkpoints" / name)

    def holds(self, name: str) -> bool:
        """Return whether the run has a checkpoint of this name."""
        is_name = Path(name).name == name and name != ".."  # a path would lead out of the run
        return is_name and find_checkpoint(self.path / "checkpoints" / name) is not None

    def preferred(self) -> str:
        """Return the name of the checkpoint with the trained agent: the best one if there is one, else the last."""
        return BEST if self.holds(BEST) else LAST

    def require(self, name: str) -> None:
        """Raise Fault, naming the checkpoints that there are, unless one has this name."""
        if not self.holds(name):
            known = [other for other in (LAST, BEST, *self.older()) if other != name and self.holds(other)]
            hint = f", but {', '.join(known)}" if known else " yet"
            raise Fault(f"{self.path} holds no checkpoint{f' {name!r}' if known else ''}{hint}")

    def load(self, name: str = LAST, offers: bool = True) -> dict[str, Any]:
        """Return the state in a checkpoint. Raises Fault if it cannot be read or is not finite; ``offers`` names an older intact one."""
        self.require(name)
        offer = self._offer if offers else lambda _: ""
        try:
            state = load_checkpoint(self.path / "checkpoints" / name)
        except Fault as fault:
            raise Fault(f"{fault}{offer(name)}", fault.code) from None
        strange = first_not_finite({key: part for key, part in state.items() if key != DRIVER})
        if strange:
            raise Fault(
                f"checkpoint {name} of {self.path} holds {strange}, which is not finite{offer(name)}",
                NUMERICAL,
            )
        return state

    def _offer(self, damaged: str) -> str:
        """Return the end of a message on a damaged checkpoint: an older one that can be read, and how to use it."""
        for name in (*self.older(), BEST, LAST):
            if name == damaged or not self.holds(name):
                continue
            try:
                if not first_not_finite(load_checkpoint(self.path / "checkpoints" / name)):
                    return f"; an older one is whole: --checkpoint {name}"
            except Fault:
                continue
        return ""

    def agent(self) -> "Agent":
        """Load the trained agent, in its best state if the run kept one. Raises Fault if the files do not hold an agent."""
        from rl_lab.experiment.driver import restore

        return restore(self.path)[0]

    def scalars(self) -> "DataFrame":
        """Return the logged scalars: a DataFrame with the columns tag, step, value and seconds (wall time). Needs pandas."""
        from rl_lab.experiment.analysis import read_events

        return read_events(self.path)

    def _repr_html_(self) -> str:
        """What a notebook shows: facts of the run, and its learning curve where matplotlib is installed."""
        facts = {name: str(self.config.get(name, "")) for name in ("agent", "env", "seed")}
        curve = ""
        try:
            points = points_of(self.path)
            facts["steps"] = f"{max((point.step for point in points), default=0):,}"
            last = {point.tag: point.value for point in points}
            if "eval/return_mean" in last:
                facts["greedy return"] = f"{last['eval/return_mean']:.1f}"
            if points and importlib.util.find_spec("matplotlib") is not None:
                from rl_lab.experiment.figures import as_svg, draw_run

                curve = as_svg(draw_run(points))
        except Fault as fault:
            facts["log"] = str(fault)
        return html_table(list(facts), [list(facts.values())], str(self.path)) + curve

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
