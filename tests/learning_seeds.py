"""Count how often each learning test passes over seeds: ``python -m tests.learning_seeds`` runs ``pytest -m learning`` with seeds 1 to 20.

The table shows the failures and the margin of each test. The exit code is 1 if a test failed, or if its mean margin is less than three
standard deviations. One machine is enough, because results do not depend on the processor.
"""

import argparse
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
SEED = re.compile(r"\[seed\d+\]|(?<=\[)seed\d+-|-seed\d+(?=\])")
"""The seed in the name of a test."""


@dataclass
class Counts:
    """Results of one learning test."""

    runs: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    """Messages by seed."""
    margins: list[float] = field(default_factory=list)
    """One margin per run that compares learned numbers: the smallest over these numbers of (allowed - difference) / allowed.

    It is 1 where the learned number equals the expected one, 0 where the difference is the largest allowed one, and negative in a
    failed run. A number that must be exact, such as a discrete greedy action, has no margin.
    """


def run_tests(seeds: int, selection: Sequence[str]) -> dict[str, Counts]:
    """Results of the learning tests by name. ``selection`` are further arguments of pytest.

    Raises RuntimeError if pytest stops before the tests are over.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        chosen = ["-m", "learning", f"--learning-seeds={seeds}", "--tb=line", f"--junitxml={report}", *selection]
        command = [sys.executable, "-m", "pytest", "-o", "junit_family=xunit1", *chosen]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
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


def table(counts: dict[str, Counts]) -> list[str]:
    """Rows of a Markdown table with one row per test."""
    head = ["test", "runs", "failures", "mean margin", "standard deviation"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, count in sorted(counts.items()):
        margin = [f"{fmean(count.margins):.0%}", f"{pstdev(count.margins):.0%}"] if count.margins else ["", ""]
        rows.append("| " + " | ".join([name, str(count.runs), str(len(count.failures)), *margin]) + " |")
    return rows


def narrow_margins(counts: dict[str, Counts]) -> list[str]:
    """One line for each test whose mean margin over all seeds is less than three standard deviations."""
    return [
        f"{name}: the mean margin of {fmean(values):.0%} is less than three standard deviations of {pstdev(values):.0%}"
        for name, values in ((name, count.margins) for name, count in counts.items())
        if values and fmean(values) < 3 * pstdev(values)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="run seeds 1 to this number (default 20)")
    parser.add_argument(
        "selection", nargs="*", default=["tests"], help="further arguments of pytest (after --), such as -k td3"
    )
    given = parser.parse_args(arguments)
    counts = run_tests(given.seeds, given.selection)
    passed = sum(count.runs - len(count.failures) for count in counts.values())
    print(f"{passed} of {sum(count.runs for count in counts.values())} runs passed")
    print("\nA margin is the unused share of the difference that the test allows.\n", *table(counts), sep="\n")
    failures = [
        f"{name} with seed {seed}: {message}" for name, count in counts.items() for seed, message in count.failures.items()
    ]
    problems = failures + narrow_margins(counts)
    print("", *problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
