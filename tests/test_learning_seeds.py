"""`tests.learning_seeds` counts passed and failed tests by seed."""

import pytest

from tests.learning_seeds import Counts, narrow_margins, run_tests, table

TESTS = """
import pytest

@pytest.mark.parametrize("name", ["a", "b"])
def test_some(name, learning_seed, learned):
    learned(1, 1, within=0, what="exact")
    learned([1.0, 0.1 * learning_seed], [1.0, 0.0], within=0.25)

def test_exact(learning_seed):
    pass

def test_without_a_seed():
    raise AssertionError
"""


def test_failures_are_counted_by_test_and_seed(tmp_path):
    path = tmp_path / "test_seeds.py"
    path.write_text(TESTS, encoding="utf-8")
    counts = run_tests(3, ["-p", "tests.conftest", "--rootdir", str(tmp_path), str(path)])
    assert list(counts) == ["test_seeds.py::test_some[a]", "test_seeds.py::test_some[b]", "test_seeds.py::test_exact"]
    assert [count.runs for count in counts.values()] == [3, 3, 3]
    assert [list(count.failures) for count in counts.values()] == [[3], [3], []]
    assert counts["test_seeds.py::test_some[a]"].margins == pytest.approx([0.6, 0.2, -0.2])
    assert table(counts)[2:] == [
        "| test_seeds.py::test_exact | 3 | 0 |  |  |",
        "| test_seeds.py::test_some[a] | 3 | 1 | 20% | 33% |",
        "| test_seeds.py::test_some[b] | 3 | 1 | 20% | 33% |",
    ]


def test_a_narrow_margin_is_named():
    """Tests of exact results have no margin."""
    wide = Counts(3, margins=[0.9, 0.8, 0.7])
    assert narrow_margins({"a": wide, "c": Counts(3)}) == []
    (line,) = narrow_margins({"a": wide, "b": Counts(6, margins=[0.9, 0.8, 0.7, 0.1, 0.2, 0.3])})
    assert line == "b: the mean margin of 50% is less than three standard deviations of 31%"


def test_a_run_without_tests_is_no_success(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 4"):
        run_tests(3, [str(tmp_path / "nothing.py")])
