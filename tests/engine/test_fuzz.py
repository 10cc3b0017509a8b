"""Random programs give PyTorch's results (extra ``oracle``). Hypothesis shrinks a program that does not to the smallest one.

``pytest tests/engine/test_fuzz.py --programs 100000`` tries this number of programs.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rl_lab as rl
from tests.engine import fuzz

pytest.importorskip("torch", reason="PyTorch is the oracle: pip install -e .[oracle]")

WEIGHTED = [kind for kind, (weight, _) in fuzz.STEPS.items() for _ in range(round(10 * weight))]
NUMBER = st.integers(0, fuzz.NUMBERS - 1)
BEGIN = st.builds(fuzz.Step, st.just("begin"), NUMBER, NUMBER, NUMBER)
STEP = st.builds(fuzz.Step, st.sampled_from(WEIGHTED), NUMBER, NUMBER, NUMBER, st.sampled_from([False] * 9 + [True]))
PROGRAM = st.builds(lambda begin, steps: [begin, *steps], BEGIN, st.lists(STEP, min_size=1, max_size=fuzz.DEPTH))


def programs(count: int):
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def test_random_programs_agree_with_pytorch(request):
    compared = 0

    @programs(request.config.getoption("--programs"))
    @given(PROGRAM)
    def check(program):
        nonlocal compared
        result = fuzz.compare(program)
        compared += result.arrays
        assert result.difference is None, fuzz.explain(program)

    check()
    assert compared > request.config.getoption("--programs")


def test_a_wrong_gradient_is_found_and_made_small(monkeypatch):
    right = rl.Tensor.tanh
    monkeypatch.setattr(rl.Tensor, "tanh", lambda x: right(x) * 1.0 if x.dim() < 2 else right(x).detach() * 1.0)

    failures = []

    @programs(500)
    @given(PROGRAM)
    def check(program):
        if fuzz.compare(program).difference is not None:
            failures.append(fuzz.explain(program))
            raise AssertionError

    with pytest.raises(AssertionError):
        check()
    lines = [line for line in failures[-1].splitlines() if line.startswith("    r")]  # the last program is the smallest
    assert any("tanh" in line for line in lines)
    assert len(lines) <= 6  # two or three leaves, tanh, backward
