"""Scripts written for PyTorch run with only their import lines changed, and give PyTorch's losses."""

import numpy as np
import pytest

import rl_lab as rl
from tests.torch_scripts import ANSWERS, NAMES, SCRIPTS, losses, on_rl_lab


@pytest.mark.parametrize("name", NAMES)
def test_a_script_gives_the_losses_of_pytorch(name, monkeypatch):
    expected = np.load(ANSWERS)[name]
    found = losses(name, rl, monkeypatch)
    assert len(expected) == 100
    assert np.ptp(expected, 0).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_only_import_lines_change():
    for name in NAMES:
        source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        before, after = source.splitlines(), on_rl_lab(source).splitlines()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert changed
        assert all(old.startswith(("import torch", "from torch")) and "rl_lab" in new for old, new in changed)
