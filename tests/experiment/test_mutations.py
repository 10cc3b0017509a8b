"""The short form of `tests.experiment.mutations`; ``--mutations 100000`` makes the full one."""

import sys

import pytest

from tests.experiment.mutations import run


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory that /proc counts")
def test_mutations_of_checkpoint_and_config(workplace, request):
    count = request.config.getoption("--mutations")
    counts = run(count, 1, workplace / "runs", by_hand=count // 100, every=1 if count > 10_000 else 101)
    assert counts["checkpoint: refused"] > count / 3
    assert counts["config: refused"] > 0
    assert counts["config: said"] > 0
