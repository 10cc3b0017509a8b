"""Kill training at many moments and resume it: ``python -m tests.kills --count 200``.

Each agent trains once without being disturbed. Then the same run is begun again in a forked process, killed with SIGKILL, resumed, killed
again, and so on, until it reaches its end; its checkpoints, its log and its evaluation must then equal those of the undisturbed run bit for
bit. Half of the kills come at one operation inside a save (before a file is opened, in the middle of a write, before a flush, a rename
...), the others at a random moment. The exit code is 1 if a run differs.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl_lab import train
from rl_lab.experiment import driver
from rl_lab.experiment.logger import whole_records
from rl_lab.experiment.run import LAST, Run
from tests.disk import Disk

TIMEOUT = 120.0
"""Seconds after which a process that should have ended counts as hanging."""
MOST_IN_A_ROW = 4
"""Kills of one run before it may reach its end: a difference is then easy to attribute."""
COMMON = ["--eval-episodes", "3", "--short-episodes", "2", "--stop-return", "none", "--keep-best", "--num-envs", "2"]
REPLAY = ["--network", "mlp:16", "--learning-starts", "50", "--batch-size", "16", "--buffer-size", "300"]
ROLLOUTS = ["--network", "mlp:16", "--num-steps", "20"]
RUNS: dict[str, tuple[str, int, list[str]]] = {
    # agent: its environment, the length of its run in environment steps, and further arguments
    "dqn": ("CartPole-v1", 600, [*REPLAY, "--n-steps", "3", "--prioritized"]),
    "qrdqn": ("CartPole-v1", 600, [*REPLAY, "--frame-stack", "2"]),
    "sac": ("Pendulum-v1", 600, REPLAY),
    "td3": ("Pendulum-v1", 600, REPLAY),
    "tqc": ("Pendulum-v1", 600, [*REPLAY, "--use-sde"]),
    "crossq": ("Pendulum-v1", 600, [*REPLAY, "--critic-network", "mlp:16", "--norm-warmup", "100"]),
    "a2c": ("CartPole-v1", 600, ["--network", "mlp:16"]),
    "ppo": ("CartPole-v1", 600, [*ROLLOUTS, "--batch-size", "20", "--normalize-observations"]),
    "drqn": ("CartPole-v1", 600, [*REPLAY, "--memory", "8", "--sequence-length", "4", "--burn-in", "3"]),
    "pqn": ("CartPole-v1", 600, [*ROLLOUTS, "--batch-size", "20", "--normalize-observations"]),
    "recurrent_ppo": ("CartPole-v1", 600, [*ROLLOUTS, "--memory", "8", "--batch-envs", "1"]),
    "reinforce": ("CartPole-v1", 1200, ["--network", "mlp:16"]),
    "bc": ("CartPole-v1", 6_000, ["--dataset", "random:300", "--batch-size", "8"]),
    "iql": ("Pendulum-v1", 6_000, ["--dataset", "random:400", "--batch-size", "8", "--network", "mlp:16"]),
    "ars": ("CartPole-v1", 1_200, ["--directions", "2"]),
    "es": ("CartPole-v1", 1_200, ["--pairs", "2"]),
    "neat": (
        "CartPole-v1",
        6_000,
        ["--population", "10", "--champion-episodes", "2", "--lamarck", "1", "--gradient-rollouts", "1"],
    ),
}


def words(agent: str) -> list[str]:
    """Arguments of the train command: about ten checkpoints, seven evaluations and thirty points in the log."""
    env, total, own = RUNS[agent]
    rhythm = ["--total-timesteps", f"{total}", "--checkpoint-frequency", f"{total // 10}", "--eval-frequency", f"{total // 7}"]
    return ["--agent", agent, "--env", env, *COMMON, *rhythm, "--log-frequency", f"{total // 30}", *own]


@dataclass
class Picture:
    """All that must be equal in two runs."""

    checkpoints: dict[str, bytes]
    """Content of the files of all checkpoints, by path in the run directory."""
    log: list[tuple[str, int, float]]
    """Tag, step and value of every record of the log as it lies in the files, but for speeds."""
    output: str
    """The line that shows the evaluation at the end."""
    leftovers: list[str]
    """Files that only an unfinished save, or a running process, may have."""


@dataclass
class Counts:
    """What happened to one agent's runs."""

    inside: int = 0
    """Kills inside a save."""
    anywhere: int = 0
    runs: int = 0
    restarts: int = 0
    """Kills before the first checkpoint, after which the run begins again."""
    places: Counter[int] = field(default_factory=Counter)
    """Kills inside a save by the number of the operation."""
    differences: list[str] = field(default_factory=list)


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every record in the log files of a run, including those that a reader would leave out."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns):
        data = file.read_bytes()
        offsets = whole_records(data)
        assert offsets[-1] == len(data), f"{file} ends in the middle of a record"
        for at, end in zip(offsets, offsets[1:], strict=False):
            event = Event.FromString(data[at + 12 : end - 4])
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)


def picture(run: Path, output: Path) -> Picture:
    """What a finished run left behind."""
    files = [file for file in (run / "checkpoints").rglob("*") if file.is_file() and file.name != "run.json"]
    shown = [line.partition(" in ")[0] for line in output.read_text().splitlines() if line.startswith("greedy return")]
    found = [file.name for file in run.rglob("*") if file.name.endswith((".new", ".old")) or file.name == "lock"]
    log = sorted(event for event in events(run) if event[0] != "charts/SPS")
    return Picture({str(file.relative_to(run)): file.read_bytes() for file in files}, log, "".join(shown), found)


def difference(mine: Picture, other: Picture) -> str:
    """A sentence on the first thing in which two runs differ, or an empty text."""
    if mine.leftovers:
        return f"left behind: {mine.leftovers}"
    if mine.checkpoints.keys() != other.checkpoints.keys():
        return f"other files: {sorted(mine.checkpoints.keys() ^ other.checkpoints.keys())}"
    for name, content in mine.checkpoints.items():
        if content != other.checkpoints[name]:
            return f"{name} differs"
    if mine.log != other.log:
        here, there = Counter(mine.log), Counter(other.log)
        return f"the log lacks {list(there - here)[:3]} and has {list(here - there)[:3]} instead or besides"
    return "" if mine.output == other.output else f"{mine.output!r} instead of {other.output!r}"


class Victim:
    """A forked process that runs the train command in ``folder``, its output going to the file ``output``."""

    def __init__(self, folder: Path, arguments: Sequence[str], at: int | None = None):
        """``at`` is the number of the operation inside a save at which the process kills itself."""
        self.number = os.fork()
        if self.number == 0:
            self._live(folder, list(arguments), at)

    def _live(self, folder: Path, arguments: list[str], at: int | None) -> None:
        code = 70
        try:
            os.chdir(folder)
            descriptor = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
            code = train.main(arguments) if at is None else count_saves(folder, arguments, at)[0]
            sys.stdout.flush()
        finally:
            os._exit(code)

    def wait(self, seconds: float = TIMEOUT) -> int:
        """Wait for the end and return the exit code, -9 after a kill. Raises TimeoutError, having killed it, if it hangs."""
        end = time.monotonic() + seconds
        while True:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.number, signal.SIGKILL)
                os.waitpid(self.number, 0)
                raise TimeoutError
            time.sleep(0.002)


def count_saves(folder: Path, arguments: list[str], at: int = -1) -> tuple[int, int]:
    """Run the train command and count the operations of its saves; kill this process at number ``at``. Exit code and number."""

    def die(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    disk = Disk(folder, die)
    disk.counts = False
    whole = {name: getattr(driver._Loop, name) for name in ("_save", "_store")}

    def counted(name: str) -> Any:
        def save(*given: Any, **named: Any) -> Any:
            before = disk.counts
            disk.counts = True
            try:
                return whole[name](*given, **named)
            finally:
                disk.counts = before

        return save

    for name in whole:
        setattr(driver._Loop, name, counted(name))
    try:
        with disk.watching():
            return train.main(arguments), disk.done
    finally:
        for name, call in whole.items():
            setattr(driver._Loop, name, call)


def begun_run(folder: Path) -> Path | None:
    """The run directory below a folder, or None if there is none that was begun."""
    found = list(folder.glob("runs/*/*/*/config.toml"))
    return found[0].parent if found else None


def kill_runs(agent: str, count: int, seed: int, say: Any = print) -> Counts:
    """Kill runs of an agent ``count`` times, inside a save and at any moment in turn, and compare each run that reaches its end."""
    chance = random.Random(f"{agent} {seed}")
    counts = Counts()
    base = Path(os.path.realpath(tempfile.mkdtemp(prefix=f"kills-{agent}-")))
    try:
        arguments = words(agent)
        for name in ("warm", "unbroken"):  # the second one is timed: kernels are loaded then
            folder = base / name
            folder.mkdir()
            begin = time.monotonic()
            code = _quietly(folder, arguments)
            seconds = time.monotonic() - begin
            assert code[0] == 0, (folder / "output").read_text()
            operations = code[1]
        reference = picture(begun_run(folder), folder / "output")  # type: ignore[arg-type]
        while counts.inside + counts.anywhere < count:
            counts.runs += 1
            place = base / "killed"
            place.mkdir()
            problem = _one_run(place, arguments, reference, counts, count, chance, seconds, operations)
            if problem:
                counts.differences.append(problem)
                say(f"{agent}: {problem}")
                place.rename(base.with_name(f"{base.name}-{counts.runs}"))  # stays, to be looked at
            else:
                shutil.rmtree(place)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return counts


def _quietly(folder: Path, arguments: list[str]) -> tuple[int, int]:
    """`count_saves` in this process, with its output in a file: kernels that are loaded here are loaded in every forked process."""
    from contextlib import redirect_stderr, redirect_stdout

    before = Path.cwd()
    os.chdir(folder)
    try:
        with Path("output").open("w") as output, redirect_stdout(output), redirect_stderr(output):
            return count_saves(folder, arguments)
    finally:
        os.chdir(before)


def _one_run(
    place: Path,
    arguments: list[str],
    reference: Picture,
    counts: Counts,
    count: int,
    chance: random.Random,
    seconds: float,
    operations: int,
) -> str:
    """One run from its begin to its end, with kills. Returns in what it differs from the undisturbed one."""
    kills = 0
    history: list[str] = []
    while True:
        run = begun_run(place)
        begun = run is not None and Run.open(run).holds(LAST)
        if kills and not begun:
            counts.restarts += 1
            shutil.rmtree(place / "runs", ignore_errors=True)
        goal = ["--resume", str(run.relative_to(place))] if begun and run is not None else arguments
        kill = kills < MOST_IN_A_ROW and counts.inside + counts.anywhere < count
        inside = kill and counts.inside <= counts.anywhere
        at = chance.randrange(operations) if inside else None
        victim = Victim(place, goal, at)
        try:
            if kill and not inside:
                time.sleep(chance.random() * seconds)
                os.kill(victim.number, signal.SIGKILL)
            code = victim.wait()
        except TimeoutError:
            return f"hangs after {history}"
        history.append(f"{'operation ' + str(at) if inside else 'any moment' if kill else 'no kill'}: {code}")
        if code == -signal.SIGKILL:
            kills += 1
            counts.inside += inside
            counts.anywhere += kill and not inside
            if at is not None:
                counts.places[at] += 1
            continue
        if code != 0:
            return f"ended with code {code} after {history}: {(place / 'output').read_text()[-300:]}"
        run = begun_run(place)
        assert run is not None
        found = difference(picture(run, place / "output"), reference)
        return f"{found} after {history}" if found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="kills of each agent")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("agents", nargs="*", default=list(RUNS), help="all by default")
    given = parser.parse_args(arguments)
    failed = 0
    for agent in given.agents:
        begin = time.monotonic()
        counts = kill_runs(agent, given.count, given.seed)
        failed += len(counts.differences)
        print(
            f"{agent}: {counts.inside} kills inside a save at {len(counts.places)} different operations, {counts.anywhere} at any "
            f"moment; {counts.runs} runs reached their end, {len(counts.differences)} of them differ; {counts.restarts} kills came "
            f"before the first checkpoint; {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
