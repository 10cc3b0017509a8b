"""The run directory: ``runs/<env>/<agent>/<time>-s<seed>/`` with config.toml, TensorBoard events and checkpoints/."""

import fcntl
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from safetensors import SafetensorError

from rl_lab.experiment.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.faults import NUMERICAL, Fault
from rl_lab.serialization import flush

if TYPE_CHECKING:
    from pandas import DataFrame

    from rl_lab.experiment.agent import Agent


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
    _lock: Any = None

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
            except OSError as error:
                raise Fault(f"cannot create the run directory {path}: {error.strerror}") from None
        run = cls(path, config)
        run.lock()
        run.record(config)
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """A directory that exists. Fault if it is not a run."""
        if not (path / "config.toml").is_file():
            raise Fault(f"{path} is not a run: it has no config.toml")
        config = read_toml(path / "config.toml", foreign=True)
        check_recorded(config, path / "config.toml")
        return cls(path, config)

    def lock(self) -> None:
        """Become the one writer until `close`. Fault if another process is."""
        lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Fault(f"another process writes to {self.path}") from None
        self._lock = lock

    def record(self, config: dict[str, Any]) -> None:
        """Write config.toml anew: the old file or the new one, never half."""
        temporary = self.path / ".config.toml.new"
        temporary.write_text(tomli_w.dumps(config), encoding="utf-8")
        flush(temporary)
        temporary.replace(self.path / "config.toml")
        self.config = config

    def save(self, state: dict[str, Any], name: str = "last") -> None:
        """Write a checkpoint. Fault if that is impossible; the one before stays."""
        try:
            save_checkpoint(self.path / "checkpoints" / name, state)
        except (OSError, SafetensorError) as error:
            raise Fault(f"cannot write a checkpoint to {self.path}: {error}", NUMERICAL) from None

    def holds(self, name: str) -> bool:
        """Whether there is a checkpoint of this name."""
        return find_checkpoint(self.path / "checkpoints" / name) is not None

    def load(self, name: str = "last") -> dict[str, Any]:
        if not self.holds(name):
            raise Fault(f"{self.path} holds no checkpoint yet")
        return load_checkpoint(self.path / "checkpoints" / name)

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
            self._lock.close()
            (self.path / "lock").unlink(missing_ok=True)
            self._lock = None
