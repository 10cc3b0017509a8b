"""Short forms of the programs that kill training and that watch it for a long time."""

import os

import pytest

from tests import kills, soak

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills processes")


@pytest.mark.parametrize("agent", kills.RUNS)
def test_killed_runs_resume_bit_for_bit(agent, full):
    if not full and agent not in ("dqn", "sac", "recurrent_ppo", "neat"):
        pytest.skip("--full kills runs of every agent")
    counts = kills.kill_runs(agent, 200 if full else 2, seed=5)
    assert counts.differences == []
    assert counts.inside >= 1
    assert counts.anywhere >= 1


def test_a_difference_is_found(monkeypatch):
    """Saves that leave out the random stream of the actions resume, but not bit for bit."""
    from rl_lab.agents.a2c import A2C

    state_dict = A2C.state_dict
    kept = {}

    def forgetful(self):
        state = state_dict(self)
        kept.setdefault("stream", state["action_stream"])
        return {**state, "action_stream": kept["stream"]}

    killed = kills.Victim._live

    def live(self, folder, arguments, at):
        monkeypatch.setattr(A2C, "state_dict", forgetful)
        killed(self, folder, arguments, at)

    monkeypatch.setattr(kills.Victim, "_live", live)
    assert kills.kill_runs("a2c", 2, seed=5, say=lambda line: None).differences


@pytest.mark.slow
def test_a_short_soak_is_flat(full):
    assert soak.watch("a2c", ["-m", "rl_lab.train", *soak.words("a2c", 2_000_000_000, 2_000)], 300 if full else 10, 0.2)


@pytest.mark.parametrize(
    ("name", "ends"), [("memory", [100.0, 100.0, 109.0]), ("threads", [3, 3, 4]), ("descriptors", [5, 6, 9])]
)
def test_growth_is_found(name, ends):
    steady = {"memory": 100.0, "threads": 3, "descriptors": 5}
    assert soak.growth([soak.Sample(**steady)] * 9) == []
    samples = [soak.Sample(**{**steady, name: value}) for value in ends for _ in range(3)]
    assert soak.growth(samples) == [f"{name} grew from {ends[1]:.1f} to {ends[2]:.1f}"]
