"""Generalized state-dependent exploration: how long its noise lasts, and its distribution."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.nn.networks import StateDependentActor, make_network
from rl_lab.rollout.exploration import StateDependentNoise, squashed_actions
from rl_lab.rollout.policies import squashed_gaussian


@pytest.mark.parametrize("frequency", [0, 3])
def test_matrices_are_kept_for_some_steps_of_an_episode(frequency):
    noise = StateDependentNoise(2, 4, 1, frequency, rl.Generator(0))
    drawn = [noise(rl.tensor([t % 7, (t + 2) % 7])).numpy().copy() for t in range(14)]
    for env, shift in ((0, 0), (1, 2)):
        for t in range(1, 14):
            elapsed = (t + shift) % 7
            new = elapsed == 0 or (frequency and elapsed % frequency == 0)
            assert (drawn[t][env] != drawn[t - 1][env]).all() == bool(new)


def test_noise_has_the_standard_deviation_that_the_actor_states():
    actor = StateDependentActor(make_network((3,), "mlp:16", 2, generator=rl.Generator(1)), -0.5)
    x = rl.tensor(np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)).expand(20_000, 3)
    noise = StateDependentNoise(20_000, 16, 2, 5, rl.Generator(2))
    with rl.no_grad():
        policy = squashed_gaussian(actor(x))
        actions = squashed_actions(actor, x, noise, rl.zeros(20_000, dtype=rl.int64)).clamp(-0.999999, 0.999999)
    inner = np.arctanh(actions.numpy().astype(np.float64))
    np.testing.assert_allclose(inner.mean(0), policy.mean.numpy()[0], atol=0.03)
    np.testing.assert_allclose(inner.std(0), policy.std.numpy()[0], rtol=0.03)


def test_the_same_matrix_gives_the_same_action_in_the_same_state():
    actor = StateDependentActor(make_network((3,), "mlp:16", 2, generator=rl.Generator(1)), 0.0)
    noise = StateDependentNoise(2, 16, 2, 10, rl.Generator(2))
    x = rl.tensor(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32))
    with rl.no_grad():
        first, again, other = (squashed_actions(actor, x, noise, rl.tensor([t, t])).numpy() for t in (1, 2, 10))
    assert (first == again).all()
    assert (first != other).all()
