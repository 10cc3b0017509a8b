"""Count how often each learning test passes, over seeds and over the matrix kernels of several processors.

``python -m tests.learning_seeds`` runs ``pytest -m learning`` with seeds 1 to 20: first with the kernels that OpenBLAS chooses on this
machine, then with those of OPENBLAS_CORETYPE=Haswell, SkylakeX, Zen and Sandybridge, which round differently. A core type that this
processor cannot run is left out, and so is a core type whose kernels were counted before. The exit code is 1 if a test failed.
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
    differences: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each quantity that the test compares: the differences from the expected value, as shares of the allowed difference."""


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
        seed = 0
        for entry in case.iter("property"):
            key, value = entry.get("name", ""), entry.get("value", "")
            if key == "seed":
                seed = int(value)
            else:
                difference, allowed = value.split(" of ")
                count.differences[key].append(float(difference) / float(allowed))
        for problem in (*case.findall("failure"), *case.findall("error")):
            count.failures[seed] = problem.get("message", "").splitlines()[0]
    return dict(counts)


def table(results: dict[str, dict[str, Counts]]) -> list[str]:
    """Rows of a Markdown table: passed runs by kernels, and how near the learned numbers came to the allowed difference."""
    head = ["test", *(f"passed with {kernels}" for kernels in results), "largest difference", "mean + 3 standard deviations"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in sorted({name for counts in results.values() for name in counts}):
        cells = [counts.get(name, Counts()) for counts in results.values()]
        shares: dict[str, list[float]] = defaultdict(list)
        for cell in cells:
            for key, values in cell.differences.items():
                shares[key] += values
        passed = [f"{cell.runs - len(cell.failures)} of {cell.runs}" for cell in cells]
        largest = max((max(values) for values in shares.values()), default=None)
        spread = max((fmean(values) + 3 * pstdev(values) for values in shares.values()), default=None)
        rows.append("| " + " | ".join([name, *passed, *("" if x is None else f"{x:.0%}" for x in (largest, spread))]) + " |")
    return rows


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
    print("\nDifferences are shares of the largest difference that the test allows.\n", *table(results), sep="\n")
    failures = [
        f"{name} with seed {seed} and the kernels of {kernels}: {message}"
        for kernels, counts in results.items()
        for name, count in counts.items()
        for seed, message in count.failures.items()
    ]
    print("", *failures, sep="\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
