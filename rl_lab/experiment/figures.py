"""Figures of comparisons: learning curves, final scores, performance profiles and probabilities of improvement. Needs matplotlib.

Groups differ in colour, line and marker, so that a figure can be read in print and by people who do not see all colours. The colours are
those of Okabe and Ito.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.experiment.analysis import AXES
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""A palette that people with any kind of colour vision can tell apart (Okabe and Ito 2008), without its yellow."""
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
MARKERS = "osD^vPX"
WIDTH = 4.2
"""Width of a panel in inches."""


def style_of(index: int) -> dict[str, Any]:
    """The colour and the line of group number ``index``; they repeat together after seven groups."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def new_figure(panels: int = 1, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A figure with panels side by side, three in a row. Raises Fault if matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise Fault("figures need matplotlib: pip install matplotlib") from None
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH * columns, height * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for spare in axes[panels:]:
        spare.set_visible(False)
    for panel in axes[:panels]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, axes[:panels]


def _names(table: "DataFrame", by: str) -> list[Any]:
    return sorted(set(table[by]), key=lambda name: (str(type(name)), name))


def written(name: object) -> str:
    """A name as a text of a figure: at most 40 characters, and a dollar begins no formula."""
    text = " ".join(str(name).split())
    return (text if len(text) <= 40 else f"{text[:24]}...{text[-10:]}").replace("$", r"\$")


def draw_curves(curves: "DataFrame", by: str = "agent", axis: str = "step", label: str = "greedy return") -> "Figure":
    """Learning curves, a panel for each environment. ``curves`` come from `learning_curves` with the same ``by`` and ``axis``."""
    envs, names = sorted(set(curves.env)), _names(curves, by)
    figure, panels = new_figure(len(envs))
    for env, panel in zip(envs, panels, strict=True):
        for i, name in enumerate(names):
            curve = curves[(curves.env == env) & (curves[by] == name)]
            if not len(curve):
                continue
            count = int(curve.runs.iloc[0])
            text = f"{written(name)} ({count} run{'s' if count > 1 else ''})"
            if len(curve) == 1:  # measured once: a curve would claim more than is known
                spread = [[(curve["mean"] - curve.low).item()], [(curve.high - curve["mean"]).item()]]
                marker = MARKERS[i % len(MARKERS)]
                panel.errorbar(curve.x, curve["mean"], spread, fmt=marker, color=style_of(i)["color"], capsize=3, label=text)
                continue
            panel.plot(curve.x, curve["mean"], linewidth=1.8, label=text, **style_of(i))
            panel.fill_between(curve.x, curve.low, curve.high, color=style_of(i)["color"], alpha=0.18, linewidth=0)
        panel.set_title(written(env), fontsize=10, loc="left")
        panel.set_xlabel(AXES[axis])
        _mark_steps(panel)
        panel.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel(written(label))
    return figure


def draw_run(points: Sequence[Point]) -> "Figure":
    """The learning curve of one run: returns of training episodes, and of short greedy evaluations if there are any."""
    figure, (panel,) = new_figure(height=2.4)
    tags = {tag: [point for point in points if point.tag == tag] for tag in {point.tag for point in points}}
    episodes = next(
        (tag for tag in ("charts/episodic_return_100", "charts/episodic_return", "neat/best_return") if tag in tags), ""
    )
    lines = {episodes: "training episodes", "eval/return_mean": "greedy"}
    for i, (tag, label) in enumerate(lines.items()):
        found = tags.get(tag, [])
        marker = MARKERS[i] if len(found) < 20 else None
        if found:
            steps, values = [point.step for point in found], [point.value for point in found]
            panel.plot(steps, values, marker=marker, markersize=4, linewidth=1.5, label=label, **style_of(i))
    panel.set(xlabel=AXES["step"], ylabel="return")
    _mark_steps(panel)
    if panel.get_lines():
        panel.legend(fontsize=8, frameon=False)
    return figure


def as_svg(figure: "Figure") -> str:
    """A figure as SVG text, for a page or a notebook."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()[content.getvalue().index("<svg") :]


def _mark_steps(panel: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    last = panel.get_xlim()[1]
    unit, mark = (1e6, "M") if last >= 2e6 else (1e3, "k") if last >= 5e3 else (1.0, "")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}{mark}" if value else "0"))


def draw_scores(table: "DataFrame", scores: "DataFrame", by: str = "agent") -> "Figure":
    """Final scores: each run as a dot, the interquartile mean with its interval, a panel for each environment.

    ``table`` comes from `compare` and ``scores`` from `final_scores`.
    """
    envs, names = sorted(set(table.env)), _names(table, by)
    figure, panels = new_figure(len(envs), 1.1 + 0.42 * len(names))
    for env, panel in zip(envs, panels, strict=True):
        for i, name in enumerate(names):
            row = table[(table.env == env) & (table[by] == name)]
            runs = scores[(scores.env == env) & (scores[by] == name)]
            if not len(row):
                continue
            mean = float(row["mean"].iloc[0])
            low, high = (float(row[column].iloc[0]) for column in ("low", "high"))
            color = style_of(i)["color"]
            panel.plot(
                runs.score, np.full(len(runs), i + 0.17), MARKERS[i % len(MARKERS)], color=color, alpha=0.45, markersize=4
            )
            panel.errorbar(mean, i - 0.1, xerr=[[mean - low], [high - mean]], fmt="|", color=color, capsize=3, markersize=11)
        panel.set(yticks=range(len(names)), yticklabels=map(written, names), ylim=(len(names) - 0.5, -0.5))
        panel.set_title(written(env), fontsize=10, loc="left")
        panel.set_xlabel("final score")
    return figure


def draw_profiles(table: "DataFrame", by: str = "agent", scaled: bool = False) -> "Figure":
    """Performance profiles, from `profiles`. ``scaled`` if the scores were scaled because they come from several environments."""
    figure, (panel,) = new_figure()
    for i, name in enumerate(_names(table, by)):
        line = table[table[by] == name]
        panel.plot(line.threshold, line.share, linewidth=1.8, drawstyle="steps-pre", label=written(name), **style_of(i))
        panel.fill_between(line.threshold, line.low, line.high, step="pre", color=style_of(i)["color"], alpha=0.18, linewidth=0)
    panel.set(xlabel="scaled score" if scaled else "score", ylabel="share of runs above the score", ylim=(-0.02, 1.02))
    panel.legend(fontsize=8, frameon=False)
    return figure


def draw_improvements(table: "DataFrame") -> "Figure":
    """Probabilities of improvement, from `improvements`: one bar of uncertainty for each pair."""
    figure, (panel,) = new_figure(1, 1.1 + 0.42 * len(table))
    for i, row in enumerate(table.itertuples(index=False)):
        spread = [[row.probability - row.low], [row.high - row.probability]]
        panel.errorbar(row.probability, i, xerr=spread, fmt="s", color=COLOURS[0], capsize=3, markersize=5)
    panel.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    labels: Sequence[str] = [f"{written(row.first)} > {written(row.second)}" for row in table.itertuples(index=False)]
    panel.set(yticks=range(len(table)), yticklabels=labels, ylim=(len(table) - 0.5, -0.5), xlim=(-0.02, 1.02))
    panel.set_xlabel("probability that the first is better")
    return figure
