"""Runs compared over seeds: statistics, curves, tables and the command."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from rl_lab import compare as command
from rl_lab.experiment import analysis
from rl_lab.experiment.analysis import (
    NOT_SET,
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    compare,
    final_scores,
    improvements,
    interquartile_mean,
    learning_curves,
    load_runs,
    performance_profile,
    probability_of_improvement,
    profiles,
    stratified_interval,
    to_latex,
    to_markdown,
)
from rl_lab.experiment.config import make_config
from rl_lab.experiment.driver import Options, carry_out, make_plan
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import Logger
from rl_lab.experiment.progress import NoProgress
from rl_lab.experiment.run import Run
from rl_lab.experiment.statistics import improvement_interval


def make_run(folder, agent: str, seed: int, points: dict[int, float], **more) -> None:
    """A run directory with these greedy returns by step, without training."""
    make_config(Options, {"seed": seed})
    run = Run.create(folder, {"agent": agent, "env": "CartPole-v1", "seed": seed, "hyperparameters": more})
    log = Logger(run.path)
    for step, value in points.items():
        log.record({"eval/return_mean": value}, step)
    log.close()
    run.close()


@pytest.fixture
def runs(workplace):
    for seed in range(1, 5):
        make_run(workplace / "runs", "ppo", seed, {1000: 10.0 * seed, 2000: 20.0 * seed}, learning_rate=0.1)
        make_run(workplace / "runs", "neat", seed, {1500 + 100 * seed: 30.0})
    return load_runs("runs/**")


def test_runs_are_loaded_with_their_settings(runs):
    assert len(set(runs.run)) == 8
    assert {"run", "tag", "step", "value", "seconds", "elapsed", "agent", "env", "seed", "learning_rate"} <= set(runs.columns)
    assert runs[runs.agent == "ppo"].learning_rate.tolist() == [0.1] * 8
    assert runs[runs.agent == "neat"].learning_rate.isna().all()
    assert (runs.elapsed >= 0).all()
    assert len(load_runs(["runs", "runs/CartPole-v1/ppo"])) == len(runs) == len(load_runs("runs/CartPole-v1/*/*"))
    with pytest.raises(Fault, match=r"nowhere/\*\* leads to no runs"):
        load_runs("nowhere/**")


def test_no_curve_has_a_value_before_the_first_measured_one(runs):
    curves = learning_curves(runs, points=11)
    ppo, neat = (curves[curves.agent == agent] for agent in ("ppo", "neat"))
    assert ppo.x.tolist() == pytest.approx(np.linspace(1000, 2000, 11).tolist())
    assert ppo["mean"].iloc[0] == pytest.approx(interquartile_mean([10, 20, 30, 40]))
    assert (ppo.low <= ppo["mean"]).all()
    assert (ppo["mean"] <= ppo.high).all()
    assert neat.x.min() == 1900  # where the last of its runs has its first value
    assert not curves["mean"].isna().any()
    assert set(curves.runs) == {4}
    by_time = learning_curves(runs, axis="elapsed")
    assert by_time.x.max() < 60
    with pytest.raises(Fault, match="the runs have no setting 'agnt', did you mean 'agent'"):
        learning_curves(runs, by="agnt")
    with pytest.raises(Fault, match="no run has the tag 'eval/return_men', did you mean 'eval/return_mean'"):
        learning_curves(runs, "eval/return_men")


def test_a_missing_value_is_not_left_out_as_an_extreme_one():
    assert np.isnan(interquartile_mean([1.0, 2.0, 3.0, np.nan]))
    table = interquartile_mean([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, np.nan]])
    assert table[0] == 2.5
    assert np.isnan(table[1])


def test_the_table_of_final_scores(runs):
    table = compare(final_scores(runs)).set_index("agent")
    assert table.loc["ppo", ["runs", "mean", "worst", "best", "steps"]].tolist() == [4, 50.0, 20.0, 80.0, 2000]
    # ppo ends at 20, 40, 60, 80, neat at 30: three of four are better
    assert table.loc["ppo", "better"] == pytest.approx(0.75)
    assert table.loc["neat", "better"] == pytest.approx(0.25)
    pairs = improvements(final_scores(runs))
    assert pairs[["first", "second"]].to_numpy().tolist() == [["neat", "ppo"]]
    assert pairs.probability.tolist() == [0.25]
    assert 0.0 <= pairs.low.item() <= 0.25 <= pairs.high.item() <= 1.0
    shares = profiles(final_scores(runs))
    ppo = shares[shares.agent == "ppo"]
    assert ppo.share.iloc[0] == 1.0
    assert ppo.share.iloc[-1] == 0.0


def test_statistics_of_the_paper():
    """By hand."""
    first = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0])]
    second = [np.array([2.0, 3.0]), np.array([5.0, 20.0, 30.0])]
    expected = ((0.5 + 0 + 1 + 0.5 + 1 + 1) / 8 * 1.0, (1 + 1 + 0.5) / 6)
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(expected))
    assert probability_of_improvement(second, first) == pytest.approx(1 - np.mean(expected))
    assert performance_profile(first, [0, 2, 15]).tolist() == [1.0, (0.5 + 1.0) / 2, (0 + 0.5) / 2]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        probability_of_improvement(first, second[:1])
    rng = np.random.default_rng(0)
    tasks = [rng.normal(0, 1, 12), rng.normal(50, 1, 12)]
    low, high = stratified_interval(tasks, lambda drawn: float(np.mean([values.mean() for values in drawn])), samples=500)
    # runs are drawn within each task: the difference between the tasks is no part of the interval
    assert high - low < 1.0
    assert low < np.mean([values.mean() for values in tasks]) < high


# What rliable 1.2.0 (with arch 5.6.0, NumPy 1.26.4 and SciPy 1.11.4) gives for the scores of `rliables_scores`: metrics.aggregate_*,
# metrics.probability_of_improvement, library.score_distributions, and library.get_interval_estimates and create_performance_profile with
# reps=100_000 and random_state=RandomState(0).
RLIABLE: dict[str, Any] = {
    "mean": [0.595238095238, 0.553333333333],
    "median": [0.614285714286, 0.46],
    "iqm": [0.545454545455, 0.466666666667],
    "optimality_gap": [0.442857142857, 0.5],
    "improvement": 0.533333333333,
    "profile": [1.0, 0.809523809524, 0.52380952381, 0.238095238095, 0.142857142857, 0.095238095238, 0.0, 0.0, 0.0],
    "iqm interval": [0.4, 0.727272727273],
    "mean interval": [0.457142857143, 0.747619047619],
    "improvement interval": [0.32380952381, 0.733333333333],
    "profile interval": [
        [1.0, 0.666666666667, 0.333333333333, 0.095238095238, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 0.952380952381, 0.714285714286, 0.428571428571, 0.285714285714, 0.238095238095, 0.0, 0.0, 0.0],
    ],
}
THRESHOLDS = np.linspace(0, 2, 9)


def rliables_scores() -> tuple[np.ndarray, np.ndarray]:
    """Scores (runs, tasks) of two methods, rounded so that some are equal."""
    draw = np.random.default_rng(2021)
    return draw.gamma(2.0, 0.4, (7, 3)).round(1), draw.gamma(1.6, 0.4, (5, 3)).round(1)


@pytest.mark.parametrize("as_lists", [False, True])
def test_the_statistics_equal_those_of_rliable(as_lists):
    x, y = (list(scores.T) if as_lists else scores for scores in rliables_scores())
    for name in ("mean", "median", "iqm", "optimality_gap"):
        aggregate = getattr(analysis, f"aggregate_{name}")
        assert [aggregate(x), aggregate(y)] == pytest.approx(RLIABLE[name], abs=1e-11), name
    assert probability_of_improvement(x, y) == pytest.approx(RLIABLE["improvement"], abs=1e-11)
    assert performance_profile(x, THRESHOLDS) == pytest.approx(RLIABLE["profile"], abs=1e-11)


def test_the_intervals_equal_those_of_rliable():
    """Up to the randomness of the bootstrap: a twentieth of the interval, and for shares of 21 runs one run."""
    x, y = rliables_scores()
    for name, aggregate in (("iqm", aggregate_iqm), ("mean", aggregate_mean)):
        low, high = RLIABLE[f"{name} interval"]
        assert stratified_interval(x, aggregate, samples=5_000) == pytest.approx((low, high), abs=0.05 * (high - low)), name
    low, high = RLIABLE["improvement interval"]
    assert improvement_interval(x, y, samples=5_000) == pytest.approx((low, high), abs=0.05 * (high - low))
    ends = stratified_interval(x, lambda drawn: performance_profile(drawn, THRESHOLDS), samples=5_000)
    np.testing.assert_allclose(ends, RLIABLE["profile interval"], atol=1 / 21 + 1e-9)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"an array \(runs, tasks\)"):
        aggregate_iqm(np.zeros(3))
    with pytest.raises(ValueError, match="at least one run"):
        aggregate_mean([np.zeros(2), np.zeros(0)])
    with pytest.raises(ValueError, match="at least one run"):
        aggregate_median([])


def test_tables_as_text():
    table = pandas.DataFrame({"agent": ["a_b|c", "d"], "mean": [1234.5, float("nan")], "runs": [3, 10_000]})
    assert to_markdown(table).splitlines()[1:] == ["| --- | --: | --: |", "| a_b\\|c | 1,234.5 | 3 |", "| d | - | 10,000 |"]
    assert r"a\_b|c & 1,234.5 & 3 \\" in to_latex(table)
    assert to_latex(table).startswith("\\begin{tabular}{lrr}")


def test_the_command_prints_a_table_and_writes_figures(runs, workplace, capsys):
    assert command.main(["runs/**", "--out", "found"]) == 0
    shown = capsys.readouterr()
    assert "ppo" in shown.out
    assert "neat" in shown.out
    assert shown.err == ""
    for name in ("curves.png", "curves_time.png", "scores.png", "profiles.png", "improvement.png", "table.md", "table.tex"):
        assert (workplace / "found" / name).stat().st_size > 100
    assert command.main(["runs/CartPole-v1/ppo", "--by", "--learning-rate", "--format", "svg", "--out", "one"]) == 2
    assert command.main(["runs/CartPole-v1/ppo", "--by", "learning-rate", "--format", "svg", "--out", "one"]) == 0
    assert (workplace / "one" / "curves.svg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere leads to no runs"),
        (["runs", "--by", "agnt"], "did you mean 'agent'"),
        (["runs", "--tag", "eval/return"], "no run has the tag 'eval/return'"),
        (["runs", "--format", "gif"], "--format 'gif' is unknown"),
        (["runs", "--out", "file"], "--out file is a file"),
        (["runs", "--byy", "agent"], "unknown option '--byy', did you mean '--by'?"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, message, runs, workplace, capsys):
    (workplace / "file").write_text("")
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in workplace.iterdir()) == ["file", "runs"]


STRANGE = {
    "hyperparameters = 3": "[hyperparameters] is a table",
    "hyperparameters = [1]": "[hyperparameters] is a table",
    "agent = {a = 1}": "agent and env are words",
    "env = ['a']": "agent and env are words",
    "seed = {a = 1}": "",
    "seed = [[1], [2]]": "",
    "seed = 07:32:00": "",
    "seed = 99999999999999999999999": "",
    "tag = 3\nvalue = 4\nstep = 5\nrun = 'x'\nelapsed = 8\nseconds = 'x'": "",
    "'' = 3\n'a b' = 4\n'$x_%' = 5": "",
    "agent = 'a_$&%#{}~^b'": "",
    r"agent = '$\frac{1}{$'": "",
    "agent = '[bold]x[/red]'": "",
    "agent = 'a|b'": "",
    f"agent = '{'x' * 50_000}'": "",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", STRANGE, ids=lambda text: text[:30])
@pytest.mark.parametrize("by", ["agent", "seed"])
def test_any_configuration_is_data(text, by, workplace, capsys):
    """A run directory may come from somebody else: its settings are compared as texts, or refused in one line."""
    make_run(workplace / "runs", "ppo", 1, {1000: 1.0, 2000: 2.0})
    make_run(workplace / "other", "ppo", 2, {1000: 1.0, 2000: 2.0})
    (config,) = (workplace / "runs").rglob("config.toml")
    own = {"agent": "agent = 'ppo'", "env": "env = 'CartPole-v1'", "seed": "seed = 1"}
    config.write_text("\n".join([text, *[line for name, line in own.items() if not text.startswith(name)]]))
    code = command.main(["runs", "other", "--by", by])
    shown = capsys.readouterr()
    assert code == (2 if STRANGE[text] else 0), shown.err
    assert STRANGE[text] in shown.err


@pytest.mark.skipif(os.name != "posix", reason="makes links and pipes")
def test_configurations_that_are_no_files_are_left_alone(runs, workplace, capsys):
    """A pipe would block for ever, and a link leads out of the folder."""
    for name, make in {"pipe": os.mkfifo, "folder": Path.mkdir, "link": lambda place: place.symlink_to("/dev/zero")}.items():
        (workplace / "runs" / name).mkdir()
        make(workplace / "runs" / name / "config.toml")
        assert command.main([f"runs/{name}"]) == 2, name
        assert "leads to no runs" in capsys.readouterr().err
    assert command.main(["runs"]) == 0


@pytest.mark.parametrize("by", ["value", "tag", "step", "seconds", "elapsed"])
def test_what_was_measured_is_no_setting(by, runs, workplace, capsys):
    assert command.main(["runs", "--by", by]) == 2
    assert f"the runs have no setting {by!r}" in capsys.readouterr().err


def test_a_real_run_is_compared(workplace):
    settings = {"agent": "ppo", "env": "CartPole-v1", "total_timesteps": 1024, "eval_episodes": 2, "eval_frequency": 300}
    carry_out(make_plan(settings), NoProgress())
    table = compare(final_scores(load_runs("runs")))
    assert table.runs.tolist() == [1]
    assert table.low.isna().all()  # one run has no interval
    assert command.main(["runs"]) == 0


@pytest.mark.parametrize(
    "values", [(0.1, 0.02, None), ("mlp:4", "cnn", None), (3, "auto", None), (4, 8, None), (True, False, None)]
)
def test_runs_without_the_setting_are_a_group(values, workplace, capsys):
    for number, value in enumerate(values):
        for seed in (1, 2):
            more = {} if value is None else {"strange": value}
            make_run(workplace / "runs", f"agent{number}", seed, {1000: 10.0 * number, 2000: 20.0 * number + seed}, **more)
    loaded = load_runs("runs")
    scores = final_scores(loaded, by="strange")
    assert scores.groupby("strange", observed=True).size().to_dict() == {
        **{str(value): 2 for value in values[:2]},
        NOT_SET: 2,
    }
    table = compare(scores, "strange")
    assert table.strange.tolist() == [*sorted(map(str, values[:2])), NOT_SET]
    assert table[table.strange == NOT_SET]["mean"].tolist() == [41.5]
    assert table.better.notna().all()
    curves = learning_curves(loaded, by="strange")
    assert set(curves.strange) == {*map(str, values[:2]), NOT_SET}
    assert command.main(["runs", "--by", "strange", "--out", "found"]) == 0
    assert NOT_SET in capsys.readouterr().out


def test_of_several_values_at_the_last_step_the_later_one_counts():
    import pandas

    points = [(100, 9.0), (200, 2.0), (200, 5.0)]
    rows = [{"run": run, "tag": "t", "step": step, "value": value} for run in "ab" for step, value in points]
    table = pandas.DataFrame(rows).assign(env="E", agent="dqn", elapsed=1.0)
    assert final_scores(table, "t").score.tolist() == [5.0, 5.0]
