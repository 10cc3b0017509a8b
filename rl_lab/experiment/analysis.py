"""Runs as tables, learning curves, and comparisons over seeds by the statistics of Agarwal et al. 2021. Needs pandas."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.experiment.config import read_toml
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import points_of
from rl_lab.experiment.run import check_recorded
from rl_lab.experiment.statistics import (
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    aggregate_optimality_gap,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)
from rl_lab.experiment.suggestions import nearest

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "aggregate_iqm",
    "aggregate_mean",
    "aggregate_median",
    "aggregate_optimality_gap",
    "bootstrap_interval",
    "compare",
    "final_scores",
    "find_runs",
    "improvements",
    "interquartile_mean",
    "learning_curves",
    "load_runs",
    "on_common_steps",
    "performance_profile",
    "probability_of_improvement",
    "profiles",
    "read_events",
    "read_runs",
    "stratified_interval",
    "to_latex",
    "to_markdown",
]

AXES = {"step": "environment steps", "elapsed": "seconds of training"}
"""Columns that a learning curve can have as its axis, and what they are."""
NOT_SET = "not set"
"""The group of the runs that do not have the setting by which runs are compared."""
_NOT_SETTINGS = ("hyperparameters", "spaces", "versions", "run_dir")


def _pandas() -> ModuleType:
    try:
        import pandas
    except ImportError:
        raise Fault("reading runs into tables needs pandas: pip install pandas") from None
    return pandas


# --- runs as tables --------------------------------------------------------------------------------------------------


def read_events(path: Path | str) -> "DataFrame":
    """The scalars of a run's TensorBoard events as a DataFrame with the columns tag, step, value and seconds (wall time).

    A file that is still being written is read up to its last whole record. Where a run was resumed, what it had logged after the
    checkpoint that it went on from is left out, as TensorBoard does. Raises Fault if a file is damaged.
    """
    rows = [(point.tag, point.step, point.value, point.seconds) for point in points_of(Path(path))]
    return _pandas().DataFrame(rows, columns=["tag", "step", "value", "seconds"])


def read_runs(folder: Path | str) -> "DataFrame":
    """All runs below a folder in one DataFrame: the columns of `read_events`, and agent, env, seed and run.

    Raises Fault if there is none. `load_runs` adds the settings of each run.
    """
    tables = []
    for config_file in _configs(Path(folder)):
        config, table = _settings(config_file), read_events(config_file.parent)
        facts = {name: config.get(name) for name in ("agent", "env", "seed")}
        tables.append(table.assign(**facts, run=str(config_file.parent)))
    if not tables:
        raise Fault(f"{folder} holds no runs: name a run directory, or a folder of runs such as runs/CartPole-v1")
    return _pandas().concat(tables, ignore_index=True)


def _configs(folder: Path) -> list[Path]:
    """The configuration files below a folder."""
    return sorted(file for file in folder.rglob("config.toml") if file.is_file())


def _settings(file: Path) -> dict[str, Any]:
    """The settings in a run's configuration file as plain values, hyperparameters included. Raises Fault if it is none."""
    config = read_toml(file, foreign=True)
    check_recorded(config, file)
    own = {name: value for name, value in config.items() if name not in _NOT_SETTINGS}
    own |= config.get("hyperparameters", {})
    if "agent" not in own or "env" not in own:
        raise Fault(f"{file} names no agent and env, so it is not that of a run: leave {file.parent} out")
    return {name: _plain(value) for name, value in own.items()}


def _plain(value: Any) -> Any:
    """A number as it is, anything else as a text."""
    return value if isinstance(value, (int, float)) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def find_runs(patterns: str | Path | Iterable[str | Path]) -> list[Path]:
    """The run directories that match patterns such as ``runs/**``, or lie below matching folders, in the order of their names.

    Raises Fault, naming the pattern, if one leads to no run.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        places = [Path(place) for place in glob.glob(str(pattern), recursive=True)]
        runs = {place for place in places if (place / "config.toml").is_file()}
        runs |= {file.parent for place in places if place not in runs and place.is_dir() for file in _configs(place)}
        if not runs:
            raise Fault(f"{pattern} leads to no runs: name run directories, a folder of runs, or a pattern such as 'runs/**'")
        found |= runs
    return sorted(found)


def load_runs(patterns: str | Path | Iterable[str | Path] = "runs/**") -> "DataFrame":
    """The scalars and settings of runs in one DataFrame.

    Columns: ``run``, ``tag``, ``step`` (environment steps), ``value``, ``seconds`` (wall time), ``elapsed`` (seconds since the run began,
    without the time between a stop and its resume), and one for every setting of a run, hyperparameters included; a setting that a run
    does not have is missing there. Raises Fault if a pattern leads to no run, or a file is damaged.
    """
    pandas = _pandas()
    settings, tables = [], []
    for path in find_runs(patterns):
        settings.append(_settings(path / "config.toml"))
        table = pandas.DataFrame(points_of(path), columns=["tag", "step", "value", "seconds", "elapsed"])
        tables.append(table.assign(run=str(path)))
    lengths = [len(table) for table in tables]
    rows = np.repeat(np.arange(len(tables)), lengths)
    result = pandas.concat(tables, ignore_index=True)
    columns = {}
    for name, column in pandas.DataFrame(settings).items():
        own = f"setting {name}" if name in result.columns else name
        text = not pandas.api.types.is_numeric_dtype(column)
        columns[own] = (column.astype("category") if text else column).take(rows).to_numpy()
        if text:
            columns[own] = pandas.Categorical(columns[own])
    return pandas.concat([result, pandas.DataFrame(columns)], axis=1)


def on_common_steps(runs: "DataFrame", tag: str, steps: Iterable[float], axis: str = "step") -> np.ndarray:
    """A tag of each run at the same steps, by interpolation: an array (runs, steps), NaN before a run's first point.

    After its last point a run keeps its last value. ``runs`` is a table of `read_runs` or `load_runs`, ``axis`` the column of the steps.
    Raises Fault if no run has the tag.
    """
    steps = np.asarray(list(steps), float)
    rows = []
    for _, table in _with_tag(runs, tag).groupby("run", sort=True):
        table = table.sort_values(axis)
        rows.append(np.interp(steps, table[axis].to_numpy(float), table.value.to_numpy(float), left=np.nan))
    return np.stack(rows)


def _with_tag(runs: "DataFrame", tag: str) -> "DataFrame":
    """The rows of a tag. Raises Fault, naming the nearest tag, if there are none."""
    chosen = runs[runs.tag == tag]
    if not len(chosen):
        raise Fault(f"no run has the tag {tag!r}{nearest(tag, sorted(set(runs.tag)))}")
    return chosen


def _in_groups(runs: "DataFrame", by: str) -> "DataFrame":
    """The runs, with `NOT_SET` in the column ``by`` where it is missing. Raises Fault, naming the nearest setting, if no run has it."""
    measured = ("tag", "step", "value", "seconds", "elapsed")
    if by not in runs.columns or by in measured:
        names = [name for name in runs.columns if name not in (*measured, "run")]
        raise Fault(f"the runs have no setting {by!r}{nearest(by, names)}")
    column = runs[by]
    if not column.isna().any():
        return runs
    values = sorted(set(column.dropna()), key=lambda value: (isinstance(value, str), value))
    labels = [*map(_label, values), NOT_SET]
    texts = column.astype(object).map(_label, na_action="ignore").fillna(NOT_SET)
    return runs.assign(**{by: _pandas().Categorical(texts, list(dict.fromkeys(labels)), ordered=True)})


def _label(value: Any) -> str:
    """A setting as a text. A column with missing values holds its integers as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# --- learning curves -------------------------------------------------------------------------------------------------


def learning_curves(
    runs: "DataFrame",
    tag: str = "eval/return_mean",
    by: str = "agent",
    axis: str = "step",
    points: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
) -> "DataFrame":
    """Interquartile means over runs with bootstrap intervals, for each environment and each value of the column ``by``.

    Returns a table with the columns env, ``by``, x, mean, low, high and runs. A curve begins where the last of its runs has its first
    measured value, and ends where its longest run ends; a run that ended before keeps its last value. ``axis`` is "step" or "elapsed".
    Runs without the setting are a group of their own, `NOT_SET`.
    Raises Fault if no run has the tag or the setting.
    """
    if axis not in AXES:
        raise Fault(f"an axis is one of {', '.join(AXES)}, not {axis!r}")
    runs = _in_groups(runs, by)
    tables = []
    for (env, group), table in _with_tag(runs, tag).groupby(["env", by], sort=True, observed=True):
        ends = table.groupby("run")[axis].agg(["min", "max"])
        first, last = float(ends["min"].max()), float(ends["max"].max())
        x = np.linspace(first, last, points) if last > first else np.array([first])
        values = on_common_steps(table, tag, x, axis)
        low, high = bootstrap_interval(values, confidence, seed=seed)
        facts = {"env": env, by: group, "x": x, "mean": interquartile_mean(values), "low": low, "high": high}
        tables.append(_pandas().DataFrame({**facts, "runs": len(values)}))
    return _pandas().concat(tables, ignore_index=True)


# --- final scores ----------------------------------------------------------------------------------------------------


def final_scores(runs: "DataFrame", tag: str = "eval/return_mean", by: str = "agent") -> "DataFrame":
    """The last value of a tag for each run: a table with the columns env, ``by``, run, score, step and elapsed.

    Runs without the setting have `NOT_SET` in the column ``by``. Raises Fault if no run has the tag or the setting.
    """
    chosen = _with_tag(_in_groups(runs, by), tag)
    last = chosen.sort_values("step", kind="stable").groupby("run").tail(1)  # of several values at a step, the one logged last
    columns = list(dict.fromkeys(["env", by, "run", "value", "step", "elapsed"]))
    return last[columns].rename(columns={"value": "score"}).sort_values(["env", by, "run"]).reset_index(drop=True)


def compare(scores: "DataFrame", by: str = "agent", confidence: float = 0.95) -> "DataFrame":
    """Final scores over runs: one row for each environment and each value of ``by``.

    ``scores`` come from `final_scores`. Columns: env, ``by``, runs, mean (interquartile), low and high (its bootstrap interval), std,
    worst, best, steps and seconds (medians), and better: the mean probability that a run beats one of another group in the same
    environment. Numbers that need a second run or a second group are NaN without one.
    """
    rows = []
    for env, in_env in scores.groupby("env", sort=True, observed=True):
        groups = dict(list(in_env.groupby(by, sort=True, observed=True)))
        for name, table in groups.items():
            values = table.score.to_numpy(float)
            low, high = bootstrap_interval(values, confidence) if len(values) > 1 else (float("nan"), float("nan"))
            others = [other.score.to_numpy(float) for key, other in groups.items() if key != name]
            better = [probability_of_improvement([values], [other]) for other in others]
            rows.append(
                {
                    "env": env,
                    by: name,
                    "runs": len(values),
                    "mean": float(interquartile_mean(values)),
                    "low": float(low),
                    "high": float(high),
                    "std": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                    "worst": values.min(),
                    "best": values.max(),
                    "better": float(np.mean(better)) if better else float("nan"),
                    "steps": int(table.step.median()),
                    "seconds": float(table.elapsed.median()),
                }
            )
    return _pandas().DataFrame(rows)


def _tasks(scores: "DataFrame", by: str) -> dict[Any, list[np.ndarray]]:
    """The scores of each group, one array per environment, for the groups that have runs in every environment.

    With several environments the scores of each are scaled to [0, 1] by its least and greatest score.
    """
    envs = sorted(set(scores.env))
    tasks: dict[Any, list[np.ndarray]] = {}
    for name, table in scores.groupby(by, sort=True, observed=True):
        if set(table.env) != set(envs):
            continue
        tasks[name] = []
        for env in envs:
            values = table[table.env == env].score.to_numpy(float)
            if len(envs) > 1:
                every = scores[scores.env == env].score
                values = (values - every.min()) / max(every.max() - every.min(), 1e-12)
            tasks[name].append(values)
    return tasks


def profiles(scores: "DataFrame", by: str = "agent", points: int = 101, confidence: float = 0.95) -> "DataFrame":
    """Performance profiles: the share of runs above each score, with stratified bootstrap intervals.

    Returns a table with the columns ``by``, threshold, share, low and high. With several environments, scores are scaled to [0, 1] in
    each by the least and the greatest score of all runs, and groups without runs in one of them are left out.
    """
    tasks = _tasks(scores, by)
    every = np.concatenate([values for groups in tasks.values() for values in groups]) if tasks else np.zeros(1)
    low, high = every.min(), every.max()
    margin = 0.02 * (high - low) or 1.0
    thresholds = np.linspace(low - margin, high + margin, points)
    tables = []
    for name, groups in tasks.items():
        ends = stratified_interval(groups, lambda drawn: performance_profile(drawn, thresholds), confidence)
        facts = {by: name, "threshold": thresholds, "share": performance_profile(groups, thresholds)}
        tables.append(_pandas().DataFrame({**facts, "low": ends[0], "high": ends[1]}))
    return (
        _pandas().concat(tables, ignore_index=True)
        if tables
        else _pandas().DataFrame(columns=[by, "threshold", "share", "low", "high"])
    )


def improvements(scores: "DataFrame", by: str = "agent", confidence: float = 0.95) -> "DataFrame":
    """The probability that a run of one group beats a run of another, for each pair of groups, with stratified bootstrap intervals.

    Returns a table with the columns first, second, probability, low and high: the probability that ``first`` is better. It is a mean
    over environments; groups without runs in one of them are left out.
    """
    tasks = _tasks(scores, by)
    names = list(tasks)
    rows = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            low, high = improvement_interval(tasks[first], tasks[second], confidence)
            probability = probability_of_improvement(tasks[first], tasks[second])
            rows.append({"first": first, "second": second, "probability": probability, "low": low, "high": high})
    return _pandas().DataFrame(rows, columns=["first", "second", "probability", "low", "high"])


# --- tables as text --------------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value of a table as text: at least three significant digits, thousands separated, "-" for what is missing."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return "-"
        size = abs(float(value))
        return f"{value:,.0f}" if size >= 1e4 else f"{value:,.1f}" if size >= 10 else f"{value:.3g}"
    return str(value)


def to_markdown(table: "DataFrame") -> str:
    """A table as Markdown, numbers to the right."""
    head = [str(name) for name in table.columns]
    marks = ["--:" if _is_number(table[name]) else "---" for name in table.columns]
    rows = [[shown(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *rows]) + "\n"


def to_latex(table: "DataFrame") -> str:
    """A table as LaTeX, for the package booktabs, numbers to the right."""
    columns = "".join("r" if _is_number(table[name]) else "l" for name in table.columns)
    rows = [[_escaped(shown(value)) for value in row] for row in table.itertuples(index=False)]
    head = " & ".join(_escaped(str(name)) for name in table.columns)
    lines = [" & ".join(row) + r" \\" for row in rows]
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\", r"\midrule"]
    return "\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _is_number(column: Sequence[object]) -> bool:
    return all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in column)


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "&%$#_{}"}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
