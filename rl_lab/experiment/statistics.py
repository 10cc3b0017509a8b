"""Statistics over seeds and environments (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice").

Scores come as one array a task (an environment), with one score per run. They are written here because rliable, the paper's own library,
does not install beside a current pandas: it needs arch below 8, which fails to import there.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Statistic = Callable[[Sequence[np.ndarray]], "np.ndarray | np.floating | float"]
"""A function of the scores of each task."""


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
    tasks: Sequence[npt.ArrayLike], statistic: Statistic, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    """Percentile bootstrap interval of a statistic of all tasks: lower and upper ends.

    ``tasks`` holds the scores of each task, (runs, ...). Runs are drawn again within each task, so that every task keeps its number of
    runs.
    """
    arrays = [np.asarray(task, float) for task in tasks]
    rng = np.random.default_rng(seed)
    drawn = [statistic([array[rng.integers(0, len(array), len(array))] for array in arrays]) for _ in range(samples)]
    return _ends(np.stack([np.asarray(value) for value in drawn]), confidence)


def _ends(values: np.ndarray, confidence: float) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    tail = (1.0 - confidence) / 2
    return np.quantile(values, tail, axis=0), np.quantile(values, 1.0 - tail, axis=0)


def aggregate_mean(tasks: Sequence[npt.ArrayLike]) -> float:
    """The interquartile mean of the scores of all runs of all tasks."""
    return float(interquartile_mean(np.concatenate([np.asarray(task, float) for task in tasks])))


def performance_profile(tasks: Sequence[npt.ArrayLike], thresholds: npt.ArrayLike) -> np.ndarray:
    """The share of runs with a score above each threshold, as a mean over tasks: (thresholds,)."""
    above = [(np.asarray(task, float)[:, None] > np.asarray(thresholds, float)).mean(0) for task in tasks]
    return np.mean(above, 0)


def probability_of_improvement(ours: Sequence[npt.ArrayLike], theirs: Sequence[npt.ArrayLike]) -> float:
    """The probability that a run of ours beats one of theirs on the same task, as a mean over tasks; a tie counts one half.

    Raises ValueError if the numbers of tasks differ.
    """
    shares = []
    for own, other in zip(ours, theirs, strict=True):
        difference = np.asarray(own, float)[:, None] - np.asarray(other, float)
        shares.append(((difference > 0) + 0.5 * (difference == 0)).mean())
    return float(np.mean(shares))


def improvement_interval(
    ours: Sequence[npt.ArrayLike],
    theirs: Sequence[npt.ArrayLike],
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified bootstrap interval of the `probability_of_improvement`: lower and upper ends. The runs of both sides are drawn again."""
    count = len(ours)
    low, high = stratified_interval(
        [*ours, *theirs],
        lambda drawn: probability_of_improvement(drawn[:count], drawn[count:]),
        confidence,
        samples,
        seed,
    )
    return float(low), float(high)
