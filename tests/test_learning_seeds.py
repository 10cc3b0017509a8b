"""`tests.learning_seeds` counts passed and failed tests, and leaves out kernels that the processor cannot run."""

import pytest

from tests.learning_seeds import Counts, kernels_of, narrow_margins, run_tests, table

TESTS = """
import os
import pytest

@pytest.mark.parametrize("name", ["a", "b"])
def test_some(name, learning_seed, learned):
    learned(1, 1, within=0, what="exact")
    learned([1.0, 0.1 * learning_seed], [1.0, 0.0], within=0.25)

def test_kernels(learning_seed):
    assert os.environ.get("OPENBLAS_CORETYPE") == "Haswell" and "OPENBLAS_L2_SIZE" not in os.environ

def test_without_a_seed():
    raise AssertionError
"""


def test_failures_are_counted_by_test_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    path = tmp_path / "test_seeds.py"
    path.write_text(TESTS, encoding="utf-8")
    counts = run_tests("Haswell", 3, ["-p", "tests.conftest", "--rootdir", str(tmp_path), str(path)])
    assert list(counts) == ["test_seeds.py::test_some[a]", "test_seeds.py::test_some[b]", "test_seeds.py::test_kernels"]
    assert [count.runs for count in counts.values()] == [3, 3, 3]
    assert [list(count.failures) for count in counts.values()] == [[3], [3], []]
    assert counts["test_seeds.py::test_some[a]"].margins == pytest.approx([0.6, 0.2, -0.2])
    assert table({"Haswell": counts})[2:] == [
        "| test_seeds.py::test_kernels | Haswell | 3 | 0 |  |  |",
        "| test_seeds.py::test_some[a] | Haswell | 3 | 1 | 20% | 33% |",
        "| test_seeds.py::test_some[b] | Haswell | 3 | 1 | 20% | 33% |",
    ]


def test_a_narrow_margin_is_named():
    """The margins of all kernels count together; tests of exact results have none."""
    wide, exact = Counts(3, margins=[0.9, 0.8, 0.7]), Counts(3)
    assert narrow_margins({"Haswell": {"a": wide, "b": wide, "c": exact}, "Zen": {"a": wide}}) == []
    (line,) = narrow_margins({"Haswell": {"a": wide, "b": wide}, "Zen": {"b": Counts(3, margins=[0.1, 0.2, 0.3])}})
    assert line == "b: the mean margin of 50% is less than three standard deviations of 31%"


def test_a_run_without_tests_is_no_success(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 4"):
        run_tests("", 3, [str(tmp_path / "nothing.py")])


def test_kernels_that_end_the_process_are_left_out():
    assert kernels_of("", "import os; os.kill(os.getpid(), 4)") is None
    assert kernels_of("Haswell", "import os; print(os.environ['OPENBLAS_CORETYPE'])") == "Haswell"
