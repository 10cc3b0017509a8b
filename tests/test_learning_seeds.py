"""`tests.learning_seeds` counts passed and failed tests, and leaves out kernels that the processor cannot run."""

import pytest

from tests.learning_seeds import kernels_of, run_tests, table

TESTS = """
import os
import pytest

@pytest.mark.parametrize("name", ["a", "b"])
def test_some(name, learning_seed, learned):
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
    assert counts["test_seeds.py::test_some[a]"].differences == {"difference": pytest.approx([0.4, 0.8, 1.2])}
    first = table({"Haswell": counts, "SkylakeX": counts})[2:][1]
    assert first == "| test_seeds.py::test_some[a] | 2 of 3 | 2 of 3 | 120% | 178% |"


def test_a_run_without_tests_is_no_success(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 4"):
        run_tests("", 3, [str(tmp_path / "nothing.py")])


def test_kernels_that_end_the_process_are_left_out():
    assert kernels_of("", "import os; os.kill(os.getpid(), 4)") is None
    assert kernels_of("Haswell", "import os; print(os.environ['OPENBLAS_CORETYPE'])") == "Haswell"
