"""The notebooks of examples/ run from top to bottom, without warnings, and show what they promise."""

import json
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {
    "first_steps": {"image/png": 2, "text/html": 3},  # progress, run and tensor
    "compare_agents": {"image/png": 4, "text/markdown": 1},
    "evolve": {"image/png": 4, "image/svg+xml": 1, "text/html": 1},
    "inside_the_core": {"image/svg+xml": 2, "text/html": 5},
    "own_environment": {"image/png": 1, "text/html": 1},
}
"""Least number of outputs of each kind."""


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_shows(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for kind, least in SHOWN[name].items():
        assert sum(kind in output.get("data", {}) for output in outputs) >= least, kind
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_these_are_all_and_they_are_listed():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SHOWN)
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in SHOWN:
        assert f"`{name}.ipynb`" in page


@pytest.mark.parametrize("name", SHOWN)
def test_outputs_are_cleared(name):
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "clear the outputs before committing"
    assert cells[0]["cell_type"] == "markdown"
    assert any("assert" in "".join(cell["source"]) for cell in code)
