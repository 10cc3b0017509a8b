"""The page of figures to reach belongs to its data, and a bar that is missed is called missed."""

from dataclasses import replace

import pytest

from benchmarks import targets
from benchmarks.results import Data, Row, presets


def test_the_page_is_that_of_the_data():
    assert targets.DOCS.read_text(encoding="utf-8") == targets.page(Data.read(targets.DATA))


@pytest.mark.parametrize(
    ("returns", "steps", "verdict"),
    [
        ([500.0, 500.0], 50_000, "met"),
        ([500.0, 480.0, 500.0, 500.0, 500.0], 50_500, "met"),
        ([500.0, 470.0, 500.0, 500.0, 500.0], 50_000, "**missed**: a seed with 470.0"),
        ([490.0, 490.0], 50_000, "**missed**: mean 490.0"),
        ([500.0, 500.0], 60_000, "**missed**: 60,000 steps"),
        ([470.0, 470.0], 60_000, "**missed**: mean 470.0 and a seed with 470.0 and 60,000 steps. Because."),
    ],
)
def test_a_bar_is_judged_by_mean_worst_seed_and_steps(returns, steps, verdict):
    bar = replace(targets.BARS[0], reason="Because." if min(returns) == max(returns) == 470.0 else "")
    row = Row((bar.agent, bar.env), [{"return_mean": value, "steps": steps} for value in returns], (0.0, 0.0))
    assert targets.judged(bar, row)[-1] == verdict
    assert targets.judged(targets.BARS[0], None)[-1] == "not measured yet"


def test_every_bar_has_a_preset():
    assert {(bar.agent, bar.env) for bar in targets.BARS} <= set(presets())
