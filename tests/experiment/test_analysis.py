"""Runs as tables, and statistics over seeds."""

import numpy as np
import pytest

from rl_lab.experiment.analysis import bootstrap_interval, interquartile_mean, on_common_steps, read_events, read_runs
from rl_lab.experiment.driver import carry_out, make_plan
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.logger import Logger


def test_events_are_read_back_as_they_were_written(tmp_path):
    logger = Logger(tmp_path)
    for step in range(0, 100, 10):
        logger.record({"losses/a": step / 3, "eval/b": -1.0 * step}, step)
    logger.close()
    events = read_events(tmp_path)
    assert len(events) == 20
    losses = events[events.tag == "losses/a"]
    assert losses.step.tolist() == list(range(0, 100, 10))
    assert losses.value.to_numpy() == pytest.approx(np.arange(0, 100, 10) / 3, rel=1e-6)
    file = next(tmp_path.glob("events*"))
    file.write_bytes(file.read_bytes()[:-5])  # as if it were still being written
    assert len(read_events(tmp_path)) == 18  # the numbers of a point are one record


def test_runs_of_a_folder(tmp_path):
    for seed in (1, 2):
        given = {"agent": "ppo", "env": "CartPole-v1", "seed": seed, "run_dir": str(tmp_path), "total_timesteps": 1024}
        carry_out(make_plan({**given, "eval_episodes": 2, "eval_frequency": 0}))
    runs = read_runs(tmp_path)
    assert set(runs.seed) == {1, 2}
    assert set(runs.agent) == {"ppo"}
    values = on_common_steps(runs, "losses/entropy", [300, 600])
    assert values.shape == (2, 2)
    assert (values <= np.log(2) + 1e-6).all()
    with pytest.raises(Fault, match="no run has the tag 'losses/none'"):
        on_common_steps(runs, "losses/none", [1])
    with pytest.raises(Fault, match="holds no runs"):
        read_runs(tmp_path / "nothing")


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end():
    assert interquartile_mean([0, 1, 2, 1000]) == 1.5
    assert interquartile_mean([5, 1, 2, 3, 4, 1000, -1000, 6]) == pytest.approx(np.mean([2, 3, 4, 5]))
    table = np.array([[0, 10], [1, 20], [2, 30], [1000, 40]])
    assert interquartile_mean(table) == pytest.approx([1.5, 25])


def test_the_bootstrap_interval_covers():
    """Of 200 intervals at 90 % about 180 hold the true value; fewer than 160 would be very unlikely by chance."""
    rng = np.random.default_rng(0)
    held = 0
    for sample in rng.normal(3.0, 1.0, (200, 30)):
        low, high = bootstrap_interval(sample, 0.9, 300, seed=1)
        held += low <= 3.0 <= high
    assert 160 <= held <= 198
    assert bootstrap_interval([1.0, 2.0, 3.0, 4.0], seed=2) == bootstrap_interval([1.0, 2.0, 3.0, 4.0], seed=2)
