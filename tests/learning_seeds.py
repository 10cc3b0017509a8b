"""Count how often each learning test passes, over seeds and over the matrix kernels of several processors.

``python -m tests.learning_seeds`` runs ``pytest -m learning`` with seeds 1 to 20: first with the kernels that OpenBLAS chooses on this
machine, then with those of OPENBLAS_CORETYPE=Haswell, SkylakeX, Zen and Sandybridge, which round differently. A core type that this
processor cannot run is left out, and so is a core type whose kernels were counted before. The table shows the failures and the margin
of each test. The exit code is 1 if a test failed, or if its mean margin is less than three standard deviations.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
CORE_TYPES = ("Haswell", "SkylakeX", "Zen", "Sandybridge")
SEED = re.compile(r"\[seed\d+\]|(?<=\[)seed\d+-|-seed\d+(?=\])")
"""The seed in the name of a test."""
PRODUCTS = """
import numpy as np, scipy.linalg.blas, threadpoolctl
for size in (1, 3, 16, 65, 300):
    x, y = np.ones((size, size), np.float32), np.ones(size, np.float32)
    assert (scipy.linalg.blas.sgemm(1.0, x, x) == size).all() and (scipy.linalg.blas.sgemv(1.0, x, y) == size).all()
infos = threadpoolctl.threadpool_info()
print(*sorted({info["architecture"] for info in infos if info["internal_api"] == "openblas"}) or ["not OpenBLAS"], sep=" and ")
"""


@dataclass
class Counts:
    """Results of one learning test with one kind of kernels."""

    runs: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    """Messages by seed."""
    margins: list[float] = field(default_factory=list)
    """One margin per run that compares learned numbers: the smallest over these numbers of (allowed - difference) / allowed.

    It is 1 where the learned number equals the expected one, 0 where the difference is the largest allowed one, and negative in a
    failed run. A number that must be exact, such as a discrete greedy action, has no margin.
    """


def environment(core_type: str) -> dict[str, str]:
    """Environment variables of a process that uses these kernels; an empty core type leaves the choice to OpenBLAS."""
    own = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    return {**own, "OPENBLAS_CORETYPE": core_type} if core_type else own


def kernels_of(core_type: str, program: str = PRODUCTS) -> str | None:
    """The kernels that OpenBLAS chooses for a core type, or None if this processor cannot run them."""
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment(core_type), capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else None


def run_tests(core_type: str, seeds: int, selection: Sequence[str]) -> dict[str, Counts]:
    """Results of the learning tests by name. ``selection`` are further arguments of pytest.

    Raises RuntimeError if pytest stops before the tests are over.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        chosen = ["-m", "learning", f"--learning-seeds={seeds}", "--tb=line", f"--junitxml={report}", *selection]
        command = [sys.executable, "-m", "pytest", "-o", "junit_family=xunit1", *chosen]
        run = subprocess.run(command, env=environment(core_type), cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode not in (0, 1) or not report.exists():
            raise RuntimeError(f"pytest ended with exit code {run.returncode}:\n{run.stdout}{run.stderr}")
        return counts_in(report)


def counts_in(report: Path) -> dict[str, Counts]:
    """Results in a JUnit file of pytest, by test."""
    counts: dict[str, Counts] = defaultdict(Counts)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        name = SEED.sub("", case.get("name", ""))
        count = counts[f"{case.get('file')}::{name}"]
        count.runs += 1
        seed, margins = 0, []
        for entry in case.iter("property"):
            key, value = entry.get("name", ""), entry.get("value", "")
            if key == "seed":
                seed = int(value)
            else:
                difference, allowed = map(float, value.split(" of "))
                if allowed > 0:
                    margins.append((allowed - difference) / allowed)
        if margins:
            count.margins.append(min(margins))
        for problem in (*case.findall("failure"), *case.findall("error")):
            count.failures[seed] = problem.get("message", "").splitlines()[0]
    return dict(counts)


def table(results: dict[str, dict[str, Counts]]) -> list[str]:
    """Rows of a Markdown table with one row per test and kind of kernels; ``results`` are counts by kernels and test."""
    head = ["test", "kernels", "runs", "failures", "mean margin", "standard deviation"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in sorted({name for counts in results.values() for name in counts}):
        for kernels, counts in results.items():
            if name in counts:
                count = counts[name]
                margin = [f"{fmean(count.margins):.0%}", f"{pstdev(count.margins):.0%}"] if count.margins else ["", ""]
                rows.append("| " + " | ".join([name, kernels, str(count.runs), str(len(count.failures)), *margin]) + " |")
    return rows


def narrow_margins(results: dict[str, dict[str, Counts]]) -> list[str]:
    """One line for each test whose mean margin, over all kernels and seeds, is less than three standard deviations."""
    margins: dict[str, list[float]] = defaultdict(list)
    for counts in results.values():
        for name, count in counts.items():
            margins[name] += count.margins
    return [
        f"{name}: the mean margin of {fmean(values):.0%} is less than three standard deviations of {pstdev(values):.0%}"
        for name, values in margins.items()
        if values and fmean(values) < 3 * pstdev(values)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="run seeds 1 to this number (default 20)")
    parser.add_argument(
        "--core-types", nargs="*", default=CORE_TYPES, help="values of OPENBLAS_CORETYPE, besides the machine's own"
    )
    parser.add_argument(
        "selection", nargs="*", default=["tests"], help="further arguments of pytest (after --), such as -k td3"
    )
    given = parser.parse_args(arguments)
    results: dict[str, dict[str, Counts]] = {}
    for core_type in ("", *given.core_types):
        kernels = kernels_of(core_type)
        name = f"OPENBLAS_CORETYPE={core_type}" if core_type else "this machine's own choice"
        if kernels is None:
            print(f"{name}: left out, this processor cannot run its kernels", flush=True)
        elif kernels in results:
            print(f"{name}: OpenBLAS chooses the kernels of {kernels}, which were counted above", flush=True)
        else:
            counts = results[kernels] = run_tests(core_type, given.seeds, given.selection)
            passed = sum(count.runs - len(count.failures) for count in counts.values())
            runs = sum(count.runs for count in counts.values())
            print(f"{name}: OpenBLAS chooses the kernels of {kernels}; {passed} of {runs} runs passed", flush=True)
    print("\nA margin is the unused share of the difference that the test allows.\n", *table(results), sep="\n")
    failures = [
        f"{name} with seed {seed} and the kernels of {kernels}: {message}"
        for kernels, counts in results.items()
        for name, count in counts.items()
        for seed, message in count.failures.items()
    ]
    problems = failures + narrow_margins(results)
    print("", *problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
