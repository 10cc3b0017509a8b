"""Runs as tables, and statistics over seeds (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice"). Needs pandas."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import whole_records

if TYPE_CHECKING:
    from pandas import DataFrame


def _pandas() -> ModuleType:
    try:
        import pandas
    except ImportError:
        raise Fault("reading runs into tables needs pandas: pip install pandas") from None
    return pandas


def read_events(path: Path | str) -> "DataFrame":
    """The scalars of a run's TensorBoard events as a DataFrame with the columns tag, step, value and seconds (wall time).

    A file that is still being written is read up to its last whole record. Where a run was resumed, what it had logged after the
    checkpoint that it went on from is left out, as TensorBoard does. Raises Fault if a file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    rows: list[tuple[str, int, float, float]] = []
    for file in sorted(found for found in Path(path).glob("events.out.tfevents.*") if found.is_file()):
        data = file.read_bytes()
        offsets = whole_records(data)
        for at, end in zip(offsets, offsets[1:], strict=False):
            try:
                event = Event.FromString(data[at + 12 : end - 4])
            except DecodeError:
                raise Fault(
                    f"the log {file} is damaged at byte {at:,}: move it out of the directory to read the others"
                ) from None
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                rows = [row for row in rows if row[1] < event.step]
            rows.extend((value.tag, event.step, value.simple_value, event.wall_time) for value in event.summary.value)
    return _pandas().DataFrame(rows, columns=["tag", "step", "value", "seconds"])


def read_runs(folder: Path | str) -> "DataFrame":
    """All runs below a folder in one DataFrame: the columns of `read_events`, and agent, env, seed and run."""
    from rl_lab.experiment.config import read_toml

    tables = []
    for config_file in sorted(Path(folder).rglob("config.toml")):
        config, table = read_toml(config_file), read_events(config_file.parent)
        tables.append(table.assign(agent=config["agent"], env=config["env"], seed=config["seed"], run=str(config_file.parent)))
    if not tables:
        raise Fault(f"{folder} holds no runs")
    return _pandas().concat(tables, ignore_index=True)


def interquartile_mean(values: npt.ArrayLike, axis: int = 0) -> "np.ndarray | np.floating":
    """Mean of the middle half of the values along ``axis``: a quarter of them is left out at either end."""
    ordered = np.sort(np.asarray(values, float), axis)
    count = ordered.shape[axis]
    cut = count // 4
    return np.take(ordered, range(cut, count - cut), axis).mean(axis)


def bootstrap_interval(
    values: npt.ArrayLike, confidence: float = 0.95, samples: int = 2000, seed: int = 0, axis: int = 0
) -> "tuple[np.ndarray | np.floating, np.ndarray | np.floating]":
    """Percentile bootstrap interval of the interquartile mean over ``axis`` (the seeds): lower and upper ends."""
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(values), (samples, len(values)))
    means = np.stack([interquartile_mean(values[draw]) for draw in draws])
    tail = (1.0 - confidence) / 2
    return np.quantile(means, tail, axis=0), np.quantile(means, 1.0 - tail, axis=0)


def on_common_steps(runs: "DataFrame", tag: str, steps: Iterable[float]) -> np.ndarray:
    """A tag of each run at the same steps, by interpolation: an array (runs, steps), NaN before a run's first point.

    ``runs`` is a table of `read_runs`.
    """
    steps = np.asarray(list(steps), float)
    rows = []
    for _, table in runs[runs.tag == tag].groupby("run"):
        table = table.sort_values("step")
        rows.append(np.interp(steps, table.step.to_numpy(float), table.value.to_numpy(float), left=np.nan))
    if not rows:
        raise Fault(f"no run has the tag {tag!r}")
    return np.stack(rows)
