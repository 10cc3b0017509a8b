"""Statistics over seeds and environments (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice").

Scores come as a list with one array per task (an environment), which holds one score per run, or as an array (runs, tasks), as in rliable.
Functions have rliable's names where it has them. They are written here because rliable, the paper's own library, does not install beside a
current pandas: it needs arch below 8, which fails to import there. The tests compare them with its results.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating] | Sequence[npt.ArrayLike]
"""Scores of runs: an array (runs, tasks), or a list with one array of runs per task."""
Statistic = Callable[[Sequence[np.ndarray]], "npt.ArrayLike"]
"""A function of the scores of each task."""


def per_task(scores: Scores) -> list[np.ndarray]:
    """One array of runs per task. Raises ValueError for an array that is not (runs, tasks), and for a task without runs."""
    if isinstance(scores, np.ndarray):
        if scores.ndim != 2:
            raise ValueError(f"scores are an array (runs, tasks) or a list with an array per task, got an array {scores.shape}")
        tasks = list(scores.astype(float).T)
    else:
        tasks = [np.asarray(task, float) for task in scores]
    if not tasks or any(task.size == 0 for task in tasks):
        raise ValueError("every task needs at least one run")
    return tasks


def interquartile_mean(values: npt.ArrayLike, axis: int = 0) -> "np.ndarray | np.floating":
    """Mean of the middle half of the values along ``axis``: a quarter of them is left out at either end. NaN if one of them is NaN."""
    ordered = np.sort(np.asarray(values, float), axis)
    count = ordered.shape[axis]
    cut = count // 4
    middle = np.take(ordered, range(cut, count - cut), axis).mean(axis)
    missing = np.isnan(np.take(ordered, -1, axis))  # sorted to the end, where they would be left out
    return np.where(missing, np.nan, middle)[()]


def bootstrap_interval(
    values: npt.ArrayLike, confidence: float = 0.95, samples: int = 2000, seed: int = 0, axis: int = 0
) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    """Percentile bootstrap interval of the interquartile mean over ``axis`` (the seeds): lower and upper ends."""
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(values), (samples, len(values)))
    means = np.stack([interquartile_mean(values[draw]) for draw in draws])
    return _ends(means, confidence)


def stratified_interval(
    scores: Scores, statistic: Statistic, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    """Percentile bootstrap interval of a statistic of all tasks: lower and upper ends.

    Runs are drawn again within each task, so that every task keeps its number of runs. `aggregate_iqm` and the others are statistics.
    """
    tasks = per_task(scores)
    rng = np.random.default_rng(seed)
    drawn = [statistic([task[rng.integers(0, len(task), len(task))] for task in tasks]) for _ in range(samples)]
    return _ends(np.stack([np.asarray(value) for value in drawn]), confidence)


def _ends(values: np.ndarray, confidence: float) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    tail = (1.0 - confidence) / 2
    return np.quantile(values, tail, axis=0), np.quantile(values, 1.0 - tail, axis=0)


def aggregate_mean(scores: Scores) -> float:
    """The mean over tasks of the mean score of a task."""
    return float(np.mean([task.mean() for task in per_task(scores)]))


def aggregate_median(scores: Scores) -> float:
    """The median over tasks of the mean score of a task."""
    return float(np.median([task.mean() for task in per_task(scores)]))


def aggregate_iqm(scores: Scores) -> float:
    """The interquartile mean of the scores of all runs of all tasks."""
    return float(interquartile_mean(np.concatenate(per_task(scores))))


def aggregate_optimality_gap(scores: Scores, gamma: float = 1.0) -> float:
    """By how much all runs of all tasks miss the score ``gamma`` on average. Scores above ``gamma`` count as ``gamma``."""
    return gamma - float(np.minimum(np.concatenate(per_task(scores)), gamma).mean())


def performance_profile(scores: Scores, thresholds: npt.ArrayLike) -> np.ndarray:
    """The share of runs with a score above each threshold, as a mean over tasks: (thresholds,). Called score distribution in rliable."""
    above = [(task[:, None] > np.asarray(thresholds, float)).mean(0) for task in per_task(scores)]
    return np.mean(above, 0)


def probability_of_improvement(scores_x: Scores, scores_y: Scores) -> float:
    """The probability that a run of x beats one of y on the same task, as a mean over tasks; a tie counts one half.

    Raises ValueError if the numbers of tasks differ.
    """
    shares = []
    for own, other in zip(per_task(scores_x), per_task(scores_y), strict=True):
        difference = own[:, None] - other
        shares.append(((difference > 0) + 0.5 * (difference == 0)).mean())
    return float(np.mean(shares))


def improvement_interval(
    scores_x: Scores, scores_y: Scores, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Stratified bootstrap interval of the `probability_of_improvement`: lower and upper ends. The runs of both sides are drawn again."""
    ours, theirs = per_task(scores_x), per_task(scores_y)
    count = len(ours)
    low, high = stratified_interval(
        [*ours, *theirs],
        lambda drawn: probability_of_improvement(drawn[:count], drawn[count:]),
        confidence,
        samples,
        seed,
    )
    return float(low), float(high)
