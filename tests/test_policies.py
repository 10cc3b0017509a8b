"""Correlated exploration noise and sticky actions."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.rollout.exploration import ColoredNoise, StickyActions

STEPS, ROWS = 400, 200


def series(colour, elapsed=1):
    noise = ColoredNoise(ROWS, 1, colour, rl.Generator(3))
    return np.stack([noise(rl.full((ROWS,), elapsed)).numpy().copy() for _ in range(STEPS)])[STEPS // 4 :, :, 0]


@pytest.mark.parametrize("colour", [0.0, 0.5, 0.9])
def test_its_variance_is_1_and_its_correlation_the_colour(colour):
    x = series(colour)
    assert x.var() == pytest.approx(1.0, abs=0.05)
    assert (x[1:] * x[:-1]).mean() == pytest.approx(colour, abs=0.05)


def test_an_episode_begins_without_the_last_ones_noise():
    """The noise in the first step of an episode does not depend on the last episode's noise."""
    x = series(0.9, elapsed=0)
    assert (x[1:] * x[:-1]).mean() == pytest.approx(0.0, abs=0.02)


def test_its_state_continues_it():
    one, two = (ColoredNoise(2, 3, 0.8, rl.Generator(seed)) for seed in (1, 2))
    elapsed = rl.ones(2, dtype=rl.int64)
    one(elapsed)
    two.load_state_dict(one.state_dict())
    two.generator.set_state(one.generator.get_state())
    assert one(elapsed).numpy().tobytes() == two(elapsed).numpy().tobytes()


# --- sticky actions --------------------------------------------------------------------------------------------------


def stuck(colour, elapsed=1, mask=None):
    """Share of actions that repeat the last action, if the given actions are uniformly random among four."""
    sticky = StickyActions(ROWS, colour, rl.Generator(3))
    rng = np.random.default_rng(0)
    taken = []
    for _ in range(STEPS):
        given = rl.tensor(rng.integers(4, size=ROWS))
        taken.append(sticky(given, rl.full((ROWS,), elapsed), mask).numpy().copy())
    return (np.diff(np.stack(taken), axis=0) == 0).mean()


@pytest.mark.parametrize("colour", [0.0, 0.5, 0.9])
def test_actions_stay_with_the_probability_that_was_asked_for(colour):
    assert stuck(colour) == pytest.approx(colour + (1 - colour) / 4, abs=0.01)


def test_actions_stay_neither_over_episodes_nor_where_they_are_forbidden():
    assert stuck(0.9, elapsed=0) == pytest.approx(0.25, abs=0.01)
    assert stuck(0.9, mask=rl.zeros(ROWS, 4, dtype=rl.bool)) == pytest.approx(0.25, abs=0.01)


def test_actions_stay_over_a_checkpoint():
    one, two = (StickyActions(8, 0.9, rl.Generator(5)) for _ in range(2))
    elapsed = rl.ones(8, dtype=rl.int64)
    one(rl.full((8,), 3), rl.zeros(8, dtype=rl.int64))
    two.load_state_dict(one.state_dict())
    two.generator.set_state(one.generator.get_state())
    given = rl.zeros(8, dtype=rl.int64)
    assert one(given, elapsed).tolist() == two(given, elapsed).tolist()
    assert 3 in one(given, elapsed).tolist()
