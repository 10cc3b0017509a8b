"""Paired timing: candidates take turns, so a change of the machine's speed affects all of them."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.01
"""Seconds before a turn, longer than the threads of OpenMP wait actively."""


def machine() -> str:
    """The processor, the number of its cores, and the versions of Python and of the vector instructions that were found."""
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo.open())}
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in facts.get("flags", "").split()), "")
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} {vectors}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def alternate(
    candidates: dict[str, Callable[[], object]],
    rounds: int = 15,
    budget: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the candidates in turns, ``rounds`` times for about ``budget`` seconds each; returns microseconds per call by round.

    `time.thread_time` as the ``clock`` leaves out other processes, for candidates of one thread. Before each turn there is a pause and a
    call that is not timed: the threads of a candidate that uses several cores wait actively for some milliseconds after its last call,
    and would take a core from the next candidate.
    """
    counts = {}
    for name, run in candidates.items():
        for _ in range(3):
            run()
        begin = clock()
        run()
        counts[name] = max(3, int(budget / max(clock() - begin, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            time.sleep(PAUSE)
            run()
            begin = clock()
            for _ in range(counts[name]):
                run()
            times[name].append((clock() - begin) / counts[name] * 1e6)
    return times


def table(title: str, rows: dict[str, dict[str, list[float]]], ours: str) -> str:
    """A Markdown table of medians in microseconds and, for each peer, the median over rounds of the ratio peer / ``ours``."""
    names = list(next(iter(rows.values())))
    peers = [name for name in names if name != ours]
    lines = [
        f"| {title} | "
        + " | ".join(f"{name}, us" for name in names)
        + " | "
        + " | ".join(f"{p} / {ours}" for p in peers)
        + " |",
        "|---" * (1 + len(names) + len(peers)) + "|",
    ]
    for label, times in rows.items():
        medians = [f"{statistics.median(times[name]):.1f}" for name in names]
        ratios = [f"{statistics.median(p / o for p, o in zip(times[peer], times[ours], strict=True)):.2f}" for peer in peers]
        lines.append(f"| {label} | " + " | ".join(medians + ratios) + " |")
    return "\n".join(lines)
