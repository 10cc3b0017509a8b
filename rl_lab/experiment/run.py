"""The run directory: ``runs/<env>/<agent>/<time>-s<seed>/`` with config.toml, TensorBoard events and checkpoints/."""

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

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
from rl_lab.experiment.trust import sign
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from pandas import DataFrame

    from rl_lab.experiment.agent import Agent


LAST, BEST = "last", "best"
"""Names of checkpoints: the latest state, and the one that did best in a short evaluation."""
OLDER = "step-"
"""What the names of older checkpoints begin with; the environment steps follow."""
DRIVER = "driver"
"""Where a checkpoint holds the driver's own state, among the parts of the agent's."""


def check_recorded(config: dict[str, Any], source: Path) -> None:
    """Raise Fault unless ``agent`` and ``env`` of a configuration file are words, if given, and its hyperparameters a table."""
    if not isinstance(config.get("hyperparameters", {}), dict):
        raise Fault(f"{source}: [hyperparameters] is a table, not {config['hyperparameters']!r}")
    for key in ("agent", "env"):
        if not isinstance(config.get(key, ""), str):
            raise Fault(f"{source}: agent and env are words, but {key} is {config[key]!r}")


@dataclass
class Run:
    """One run's directory. One process writes at a time, held by a lock file."""

    path: Path
    config: dict[str, Any]
    _lock: RunLock | None = None

    @classmethod
    def create(cls, parent: Path, config: dict[str, Any]) -> "Run":
        """A fresh directory with its config.toml, locked for this process."""
        group = parent / re.sub("[/:]", "-", config["env"]) / config["agent"]
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-s{config['seed']}"
        for attempt in range(100):
            path = group / (f"{stem}-{attempt}" if attempt else stem)
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                continue
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                code = code_of(error) if isinstance(error, OSError) else USAGE
                raise Fault(f"cannot create the run directory {path}: {reason}", code) from None
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
        """A directory that exists. Raises Fault if it is not a run, or holds anything but files and directories."""
        if not (path / "config.toml").is_file():
            raise Fault(f"{path} is not a run: it has no config.toml")
        require_no_links(path)
        config = read_toml(path / "config.toml", foreign=True)
        check_recorded(config, path / "config.toml")
        return cls(path, config)

    def lock(self) -> None:
        """Become the one writer until `close`. Raises Fault, naming the other process, if another one is."""
        self._lock = RunLock(self.path / "lock")

    def record(self, config: dict[str, Any]) -> None:
        """Write config.toml again: the old file or the new one, never half. Raises Fault if that is impossible."""
        try:
            write_file(self.path / "config.toml", [tomli_w.dumps(config).encode()])
        except OSError as error:
            raise Fault(f"cannot write {self.path / 'config.toml'}: {error.strerror}", STORAGE) from None
        self.config = config

    def save(self, state: dict[str, Any], name: str = LAST, record: dict[str, Any] | None = None, kept: int = 1) -> None:
        """Write a checkpoint, and keep the ``kept - 1`` before it under the names `older`; ``record`` is for `recorded`.

        Raises Fault, and leaves the checkpoints as they were, if a number in the state is not finite or the disk takes no more.
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
        """Keep the last checkpoint under its step too, and remove those beyond ``kept`` or after that step. Raises OSError."""
        folder, own = self.path / "checkpoints", f"{OLDER}{timesteps:012d}"
        if kept > 1:
            keep_copy(folder / LAST, own)
        past = [name for name in self.older() if name <= own]
        for name in self.older():
            if kept == 1 or name not in past[:kept]:  # later ones belong to a run that was set back
                shutil.rmtree(folder / name)

    def recover(self, kept: int, timesteps: int | None = None) -> None:
        """Finish what a writer that was killed had begun, or remove it. Only the one writer may call this.

        ``timesteps`` is the step of the last checkpoint if it is whole. Raises Fault if the disk refuses.
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
        """Names of the checkpoints that are kept under their step, the latest first."""
        return sorted((found.name for found in (self.path / "checkpoints").glob(f"{OLDER}*") if found.is_dir()), reverse=True)

    def recorded(self, name: str = LAST) -> dict[str, Any] | None:
        """What was recorded of the run with a checkpoint: ``config`` and the sizes of the ``log``.

        Empty for runs of older versions, None if the record is damaged.
        """
        return read_record(self.path / "checkpoints" / name)

    def holds(self, name: str) -> bool:
        """Whether there is a checkpoint of this name."""
        return find_checkpoint(self.path / "checkpoints" / name) is not None

    def load(self, name: str = LAST) -> dict[str, Any]:
        """The state in a checkpoint. Raises Fault, naming an older one that is whole, if it cannot be read or is not finite."""
        if not self.holds(name):
            known = [other for other in (LAST, BEST, *self.older()) if other != name and self.holds(other)]
            hint = f", but {', '.join(known)}" if known else " yet"
            raise Fault(f"{self.path} holds no checkpoint{f' {name!r}' if known else ''}{hint}")
        try:
            state = load_checkpoint(self.path / "checkpoints" / name)
        except Fault as fault:
            raise Fault(f"{fault}{self._offer(name)}", fault.code) from None
        strange = first_not_finite({key: part for key, part in state.items() if key != DRIVER})
        if strange:
            raise Fault(f"checkpoint {name} of {self.path} holds {strange}, which is not finite{self._offer(name)}", NUMERICAL)
        return state

    def _offer(self, damaged: str) -> str:
        """The end of a message on a damaged checkpoint: an older one that can be read, and how to use it."""
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
        """The trained agent, in its best state if the run kept one. Raises Fault if the files do not hold one."""
        from rl_lab.experiment.driver import restore

        return restore(self.path)[0]

    def scalars(self) -> "DataFrame":
        """What the run logged: a DataFrame with the columns tag, step, value and seconds (wall time). Needs pandas."""
        from rl_lab.experiment.analysis import read_events

        return read_events(self.path)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
