"""Watch memory, threads and descriptors for a long time: ``python -m tests.soak --minutes 120``.

In the first half of the time one process trains, resumes and evaluates short runs of every agent, over and over. In the second half each
agent has one long run with many checkpoints, evaluations and points in the log. A process is watched from outside. The exit code is 1 if,
after the first third of its time, one of the three figures still grows.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rl_lab.experiment.memory import PAGE

ALLOWED_GROWTH = 0.03
"""Share by which memory may grow from the middle third to the last one: the allocator keeps a little of what is freed."""
START_SECONDS = 120.0
"""How long the first checkpoint is waited for, after which samples are taken."""
LEAST_GROWTH = {"memory": 4.0, "threads": 0, "descriptors": 2}
"""Growth that is always allowed, in the units of `Sample`: a file of a checkpoint may be open at the moment of a sample."""
COMMON = {"eval-episodes": 2, "short-episodes": 2, "log-frequency": 100, "stop-return": "none"}
SMALL = {"network": "mlp:16", "learning-starts": 100, "batch-size": 16, "buffer-size": 2000}
RUNS: dict[str, tuple[str, dict[str, object]]] = {
    # agent: its environment, and settings that make steps cheap
    "dqn": ("CartPole-v1", SMALL),
    "qrdqn": ("CartPole-v1", SMALL),
    "sac": ("Pendulum-v1", SMALL),
    "td3": ("Pendulum-v1", SMALL),
    "tqc": ("Pendulum-v1", SMALL),
    "crossq": ("Pendulum-v1", SMALL),
    "a2c": ("CartPole-v1", {"network": "mlp:16", "num-envs": 2, "vectorization": "async", "backend": "gymnasium"}),
    "ppo": ("CartPole-v1", {"network": "mlp:16", "num-envs": 2, "num-steps": 50, "batch-size": 50}),
    "drqn": ("CartPole-v1", {**SMALL, "memory": 8, "sequence-length": 4}),
    "pqn": ("CartPole-v1", {"network": "mlp:16", "num-envs": 2, "num-steps": 50, "batch-size": 50}),
    "recurrent_ppo": ("CartPole-v1", {"network": "mlp:16", "memory": 8, "num-envs": 2, "num-steps": 50, "batch-envs": 1}),
    "reinforce": ("CartPole-v1", {"network": "mlp:16"}),
    "neat": ("CartPole-v1", {"population": 20}),
    "bc": ("CartPole-v1", {"dataset": "random:300", "batch-size": 8}),
    "iql": ("CartPole-v1", {"dataset": "random:300", "batch-size": 8}),
    "ars": ("CartPole-v1", {}),
    "es": ("CartPole-v1", {"network": "mlp:16"}),
}
ROUNDS = """
import shutil
from pathlib import Path
from rl_lab import evaluate, train
from tests.soak import RUNS, words
while True:
    for agent in RUNS:
        assert train.main(words(agent, 1000, 300)) == 0
        (run,) = Path("runs").glob("*/*/*")
        assert train.main(["--resume", str(run), "--total-timesteps", "1500"]) == 0
        assert evaluate.main([str(run), "--episodes", "2"]) == 0
        shutil.rmtree("runs")
"""


@dataclass(frozen=True)
class Sample:
    """What a process uses at one moment: memory in megabytes, threads, and open descriptors."""

    memory: float
    threads: int
    descriptors: int


def words(agent: str, steps: int, frequency: int) -> list[str]:
    """Arguments of the train command for a run with a checkpoint and an evaluation every ``frequency`` steps."""
    env, own = RUNS[agent]
    settings = {**COMMON, **own, "total-timesteps": steps, "checkpoint-frequency": frequency, "eval-frequency": frequency}
    pairs = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["--agent", agent, "--env", env, "--keep-best", *pairs]


def sample(process: int) -> Sample:
    """Figures of a running process, from /proc (Linux). Raises OSError if it has ended."""
    place = Path("/proc", str(process))
    pages = int((place / "statm").read_text().split()[1])
    return Sample(pages * PAGE / 1e6, len(list((place / "task").iterdir())), len(list((place / "fd").iterdir())))


def growth(samples: Sequence[Sample]) -> list[str]:
    """The figures that still grow after the first third, each with a sentence; empty if all are flat."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    found = []
    for name in ("memory", "threads", "descriptors"):
        before, after = (max(getattr(s, name) for s in part) for part in (middle, last))
        if after > before + max(LEAST_GROWTH[name], ALLOWED_GROWTH * before if name == "memory" else 0):
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found


def watch(name: str, command: Sequence[str], seconds: float, every: float, share: float = 1.0) -> bool:
    """Run a command for some time and print the largest figures of each third; return whether they are flat.

    With a ``share`` below 1 the process is stopped for the rest of the time, which leaves the processor to others.
    """
    folder = tempfile.mkdtemp()
    samples: list[Sample] = []
    root = str(Path(__file__).parents[1])
    program = [sys.executable, *command]
    with Path(folder, "output").open("wb") as output:
        process = subprocess.Popen(program, cwd=folder, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": root})
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None and not any(Path(folder).glob("runs/*/*/*/checkpoints/last")):
            time.sleep(every)
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            _run_for(process, every, share)
            try:
                samples.append(sample(process.pid))
            except OSError:
                break
        died = process.poll() is not None
        process.kill()
        process.wait()
    problems = growth(samples) if len(samples) >= 6 else ["too few samples"]
    if died:
        problems.append(f"it ended with code {process.returncode}: {Path(folder, 'output').read_text()[-300:]}")
    shutil.rmtree(folder, ignore_errors=True)
    shown = [f"{s.memory:.1f} MB, {s.threads} threads, {s.descriptors} descriptors" for s in _thirds(samples)]
    print(f"{name}: {len(samples)} samples; {' | '.join(shown)}; {'; '.join(problems) or 'flat'}", flush=True)
    return not problems


def _run_for(process: subprocess.Popen[bytes], seconds: float, share: float) -> None:
    """Let a process run for its share of the next seconds."""
    process.send_signal(signal.SIGCONT)
    time.sleep(share * seconds)
    if share < 1:
        process.send_signal(signal.SIGSTOP)
        time.sleep((1 - share) * seconds)


def _thirds(samples: Sequence[Sample]) -> list[Sample]:
    """The largest figures of each third."""
    third = max(1, len(samples) // 3)
    parts = [samples[:third], samples[third : 2 * third], samples[2 * third :]]
    return [
        Sample(max(s.memory for s in part), max(s.threads for s in part), max(s.descriptors for s in part))
        for part in parts
        if part
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, help="for everything together")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two samples")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the time in which the processes run; else they are stopped"
    )
    parser.add_argument(
        "agents", nargs="*", help="long runs of these alone; by default short runs, then long runs of every agent"
    )
    given = parser.parse_args(arguments)
    seconds, flat = given.minutes * 60, True
    if not given.agents:
        seconds /= 2
        flat = watch("short runs of every agent in one process", ["-c", ROUNDS], seconds, given.every, given.share)
    agents = given.agents or list(RUNS)
    for agent in agents:
        long_run = ["-m", "rl_lab.train", *words(agent, 2_000_000_000, 2_000)]
        flat = watch(f"one run of {agent}", long_run, seconds / len(agents), given.every, given.share) and flat
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
