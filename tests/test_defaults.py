"""The benchmark of default settings: its page belongs to its data, its worlds are sound, and returns are added up correctly."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks import defaults


def test_the_page_is_that_of_the_data():
    lines = defaults.table(defaults.read(defaults.DATA), {})
    assert defaults.DOCS.read_text(encoding="utf-8") == defaults.INTRODUCTION + "\n".join(lines) + "\n"


def test_a_row_has_runs_of_both_libraries_with_the_present_defaults():
    now = defaults.hash_of(defaults.settings_now("rl_lab", "ppo", {}))
    own = {"library": "rl_lab", "agent": "ppo", "env": "Corridor"}
    peer = {**own, "library": "sb3", "settings": "any"}
    runs = [{**own, "seed": seed, "settings": now, "return": float(seed)} for seed in (1, 2, 3, 4)]
    assert len(defaults.table(runs, {})) == 2  # no row yet
    runs.append({**peer, "seed": 1, "return": -1.0})
    (row,) = defaults.table(runs, {})[2:]
    assert "| 2.50 |" in row
    assert "| -1.00 |" in row
    assert row.endswith("| 1 and 4 |")
    earlier = [{**run, "settings": "of earlier defaults"} if run["library"] == "rl_lab" else run for run in runs]
    assert len(defaults.table(earlier, {})) == 2


@pytest.mark.parametrize("name", ["Corridor", "Reach"])
def test_the_small_worlds_are_sound(name):
    check_env(defaults.make(name).unwrapped, skip_render_check=True)


def test_returns_of_two_policies_that_are_known():
    right = defaults.play(lambda _: 1, defaults.make("Corridor"))
    left = defaults.play(lambda _: 0, defaults.make("Corridor"))
    assert left == pytest.approx(-1.0)  # 100 steps
    assert 1.0 - 0.14 <= right <= 1.0 - 0.07

    def towards(observation: np.ndarray) -> np.ndarray:
        return 10.0 * (observation[2:] - observation[:2])

    assert defaults.play(towards, defaults.make("Reach")) > -10.0
    assert defaults.play(lambda _: np.zeros(2), defaults.make("Reach")) < -30.0


def test_keys_fit_agents_to_actions():
    assert ("dqn", "Reach") not in defaults.keys("*")
    assert ("sac", "Corridor") not in defaults.keys("*")
    assert len([env for agent, env in defaults.keys("ppo/*") if agent == "ppo"]) == 10
