"""python -m rl_lab.compare RUN... [--by agent]: compare runs over seeds: a table on the screen, figures and tables in a folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rl_lab.experiment.analysis import (
    compare,
    final_scores,
    improvements,
    learning_curves,
    load_runs,
    profiles,
    shown,
    to_latex,
    to_markdown,
)
from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.figures import draw_curves, draw_improvements, draw_profiles, draw_scores, new_figure
from rl_lab.experiment.progress import tell
from rl_lab.experiment.suggestions import nearest

if TYPE_CHECKING:
    from pandas import DataFrame

FORMATS = ("png", "pdf", "svg")


def body(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Fault."""
    parser = Parser(prog="python -m rl_lab.compare", description="Compare runs over seeds.")
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="run directories, folders of runs, or patterns such as 'runs/**'"
    )
    parser.add_argument("--by", default="agent", help="setting whose values are compared, such as agent or learning_rate")
    parser.add_argument("--tag", default="eval/return_mean", help="scalar that is compared")
    parser.add_argument("--out", default="comparison", metavar="DIR", help="folder of the figures and tables")
    parser.add_argument("--format", default="png", metavar="|".join(FORMATS), help="format of the figures")
    given = parser.parse(arguments)
    by = given["by"].removeprefix("--").replace("-", "_")
    tag = given["tag"]
    out = Path(given["out"])
    if given["format"] not in FORMATS:
        raise Fault(f"--format {given['format']!r} is unknown{nearest(given['format'], FORMATS)}")
    if out.exists() and not out.is_dir():
        raise Fault(f"--out {out} is a file: name a folder")
    new_figure()  # raises Fault if matplotlib is missing
    runs = load_runs(given["runs"])
    scores = final_scores(runs, tag, by)
    for path in sorted(set(runs.run) - set(scores.run)):
        print(f"rl_lab: {path} has no {tag}: it is left out", file=sys.stderr)
    table = compare(scores, by)
    figures = {
        "curves": draw_curves(learning_curves(runs, tag, by), by, label=tag),
        "curves_time": draw_curves(learning_curves(runs, tag, by, "elapsed"), by, "elapsed", label=tag),
        "scores": draw_scores(table, scores, by),
    }
    if len(set(scores[by])) > 1:
        shares, pairs = profiles(scores, by), improvements(scores, by)
        figures |= {"profiles": draw_profiles(shares, by, len(set(scores.env)) > 1)} if len(shares) else {}
        figures |= {"improvement": draw_improvements(pairs)} if len(pairs) else {}
    _print(table, by, tag)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.{given['format']}")
    (out / "table.md").write_text(to_markdown(table), encoding="utf-8")
    (out / "table.tex").write_text(to_latex(table), encoding="utf-8")
    files = [*(f"{name}.{given['format']}" for name in figures), "table.md", "table.tex"]
    tell(f"written to {out}: {', '.join(files)}")
    return 0


def _print(table: "DataFrame", by: str, tag: str) -> None:
    """Print the table. Without a terminal it is as wide as its content."""
    from rich.console import Console
    from rich.table import Table

    screen = Table(title=f"{tag} at the end of each run", title_justify="left")
    heads = {"mean": "IQ mean", "low": "95 % from", "high": "to", "better": "P(better)"}
    for name in table.columns:
        screen.add_column(heads.get(name, str(name)), justify="left" if name in ("env", by) else "right")
    for row in table.itertuples(index=False):
        screen.add_row(*[shown(value) for value in row])
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    console.print(screen)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())
