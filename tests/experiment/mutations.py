"""Mutations of the files of a run: each is refused, or changes nothing, or is said. None runs code or fills the memory.

``python -m tests.experiment.mutations 100000`` makes so many and prints counts. A checkpoint with a mutation is refused with a Fault of
one line, or holds exactly the state that was saved. A mutated config.toml is refused, or means the same, or the difference is said.
Where a mutation keeps the checksum right, as somebody would who makes a checkpoint by hand, an agent takes the state or refuses it.
"""

import contextlib
import copy
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.experiment import driver, memory
from rl_lab.experiment.checkpoint import load_checkpoint, read_record, save_checkpoint
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.run import Run
from rl_lab.serialization import split

SMALL = {"total_timesteps": 64, "eval_episodes": 1, "eval_frequency": 0, "stop_return": None, "num_envs": 1}
RUNS: list[dict[str, Any]] = [
    {"agent": "dqn", "env": "CartPole-v1", "network": "mlp:4", "learning_starts": 16, "batch_size": 4, "buffer_size": 100},
    {"agent": "ppo", "env": "CartPole-v1", "network": "mlp:4", "num_steps": 32, "batch_size": 32, "backend": "gymnasium"},
    {"agent": "neat", "env": "CartPole-v1", "population": 4, "champion_episodes": 1},
]
ROOM = 1 << 28
"""Bytes that a process may get beyond those that it has at the start: a file's are some 10,000."""
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "exec",
)
Random = np.random.Generator


class Watch:
    """Notes what may not happen while a file from elsewhere is read: code that runs, modules that are imported."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in FORBIDDEN and not str(arguments[0]).startswith("<code object"):
            self.seen.append(f"{event} {arguments}")
        if self.on and event == "import" and "evil" in str(arguments[0]):
            self.seen.append(f"{event} {arguments}")


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Context in which a large allocation raises MemoryError. Needs Linux, which counts memory in /proc."""
    import resource

    now = memory.in_use()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


# --- mutations of bytes ------------------------------------------------------------------------------------------------

WORDS = (
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"99999999999999999999",
    b'"evil:X"',
    b"[]",
    b"{}",
    b"\x00",
    b"\xff\xff",
    b"../..",
    b'"',
    b"inf",
)


def mutated(data: bytes, random: Random) -> bytes:
    """The bytes with one random change."""
    size = len(data)
    at, other = int(random.integers(size)), int(random.integers(size))
    kind = int(random.integers(8))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << int(random.integers(8)))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[: min(at, other)] + data[max(at, other) :]
    if kind == 3:
        return data[:at] + data[other : other + 16] + data[at:]
    if kind == 4:
        return data[:at] + random.bytes(int(random.integers(1, 9))) + data[at + 4 :]
    if kind == 5:
        return data[:at] + WORDS[int(random.integers(len(WORDS)))] + data[at + int(random.integers(6)) :]
    if kind == 6:  # a number with other digits
        digits = [i for i in range(size) if chr(data[i]).isdigit()]
        i = digits[int(random.integers(len(digits)))] if digits else at
        return data[:i] + str(int(random.integers(10 ** int(random.integers(1, 19))))).encode() + data[i + 1 :]
    length = int(random.integers(1 << int(random.integers(1, 63)))).to_bytes(8, "little")  # of a header
    return length + data[8:]


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal bit for bit."""
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    if json.dumps(split(left, "", first)) != json.dumps(split(right, "", second)):
        return False
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(first.values(), second.values(), strict=True)
    )


class Subject:
    """A small run, and how to try one mutated file of it."""

    def __init__(self, settings: dict[str, Any], folder: Path):
        plan = driver.make_plan({**SMALL, "run_dir": str(folder), **settings})
        with contextlib.redirect_stdout(io.StringIO()):
            self.path = driver.carry_out(plan).run.path
        self.checkpoint = self.path / "checkpoints" / "last"
        self.state = load_checkpoint(self.checkpoint)
        self.record = read_record(self.checkpoint)
        self.config = Run.open(self.path).config
        self.files = [file for file in sorted(self.checkpoint.iterdir()) if file.name != "run.json"]
        self.contents = {file: file.read_bytes() for file in (*self.files, self.path / "config.toml")}

    def _with(self, file: Path, data: bytes, look: Callable[[], str]) -> str:
        file.write_bytes(data)
        try:
            return look()
        except Fault as fault:
            if "\n" in str(fault):
                raise AssertionError(f"a fault of several lines: {fault}") from fault
            return "refused"
        except MemoryError as error:  # a setting may ask for any memory: `rl_lab.experiment.command` makes a line of it
            if file.name != "config.toml":
                raise error
            return "refused for want of memory"
        finally:
            file.write_bytes(self.contents[file])

    def try_checkpoint(self, file: Path, data: bytes) -> str:
        def look() -> str:
            assert same(Run.open(self.path).load(), self.state), f"{file.name} was loaded wrongly"
            return "unchanged"

        return self._with(file, data, look)

    def try_config(self, data: bytes) -> str:
        def look() -> str:
            run = Run.open(self.path)
            plan = driver.recorded_plan(run)
            told = driver.altered_settings(run, "last")
            now = {name: value for name, value in driver.run_config(plan).items() if name not in driver._ELSEWHERE}
            before = {name: value for name, value in self.config.items() if name not in driver._ELSEWHERE}
            for either in (now, before):
                either["hyperparameters"] = {k: v for k, v in either["hyperparameters"].items() if k != "total_timesteps"}
            if now == before:
                return "the same settings"
            assert told, f"a changed setting is not said: {now} {before}"
            return "said"

        return self._with(self.path / "config.toml", data, look)

    def try_by_hand(self, random: Random) -> str:
        """Change a value in the state, write a checkpoint with a right checksum, and make an agent from it."""
        state = copy.deepcopy(self.state)
        where, owner, key = _place(state, random)
        owner[key] = _changed(owner[key], random)
        folder = self.checkpoint.with_name("made")
        save_checkpoint(folder, state, self.record)
        try:
            driver.restore(self.path, "made")
            return "by hand: taken"
        except Fault as fault:
            if "\n" in str(fault):
                raise AssertionError(f"a fault of several lines for {where}: {fault}") from fault
            return "by hand: refused"
        finally:
            shutil.rmtree(folder)


def _place(state: Any, random: Random) -> tuple[str, Any, Any]:
    """A random place in a nested state: its name, its container and its key there."""
    places: list[tuple[str, Any, Any]] = []

    def walk(value: Any, name: str) -> None:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in entries:
            places.append((f"{name}/{key}", value, key))
            walk(inner, f"{name}/{key}")

    walk(state, "")
    return places[int(random.integers(len(places)))]


def _changed(value: Any, random: Random) -> Any:
    """Another value in place of one in a state."""
    if isinstance(value, np.ndarray) and value.size:
        kind = int(random.integers(5))
        if kind == 0:
            return value.reshape(-1)[:-1]
        if kind == 1:
            return np.concatenate([value.reshape(-1)] * 3)
        changed = value.copy()
        flat = changed.reshape(-1)
        if kind == 2 and value.dtype.kind in "iu":
            flat[int(random.integers(value.size))] = random.choice([np.iinfo(value.dtype).max, np.iinfo(value.dtype).min, 0, 7])
        elif value.dtype.kind == "f":
            flat[int(random.integers(value.size))] = random.choice([np.nan, np.inf, 1e30, 0.0])
        else:
            return value[..., None]
        return changed
    options: list[Any] = [None, -1, 10**30, 2**40, float("inf"), "word", [], {}, True, np.zeros((2, 3), np.float32)]
    return options[int(random.integers(len(options)))]


def run(
    count: int, seed: int, folder: Path, by_hand: int = 0, every: int = 1, counts: Counter[str] | None = None
) -> Counter[str]:
    """Try every truncation (each ``every``-th), ``count`` mutations, and ``by_hand`` checkpoints made by hand.

    Returns ``counts`` of what happened, which are also there if a trial fails.
    """
    random = np.random.default_rng(seed)
    subjects = [Subject(settings, folder) for settings in RUNS]
    watch = Watch()
    counts = Counter() if counts is None else counts
    watch.on = True
    try:
        with little_memory():
            for subject in subjects[:1]:
                for file in subject.files:
                    for length in range(0, len(subject.contents[file]), every):
                        counts[f"truncation: {subject.try_checkpoint(file, subject.contents[file][:length])}"] += 1
            for i in range(count):
                subject = subjects[i % len(subjects)]
                if random.random() < 0.3:
                    file = subject.path / "config.toml"
                    counts[f"config: {subject.try_config(mutated(subject.contents[file], random))}"] += 1
                else:
                    file = subject.files[int(random.integers(len(subject.files)))]
                    counts[f"checkpoint: {subject.try_checkpoint(file, mutated(subject.contents[file], random))}"] += 1
            for i in range(by_hand):
                counts[subjects[i % len(subjects)].try_by_hand(random)] += 1
    finally:
        watch.on = False
    assert not watch.seen, watch.seen[:3]
    assert counts["truncation: unchanged"] == 0
    return counts


if __name__ == "__main__":
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        found: Counter[str] = Counter()
        try:
            run(int(sys.argv[1]), 1, Path(place) / "runs", by_hand=int(sys.argv[1]) // 100, counts=found)
        finally:
            for name, number in sorted(found.items()):
                print(f"{number:8,d}  {name}")
            print(f"{sum(found.values()):8,d}  together, in {time.perf_counter() - begin:.0f} s")
