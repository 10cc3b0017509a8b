"""Replay storage and collectors."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.data import ReplayBuffer, Transitions


def numbered(first: int, count: int) -> Transitions:
    """Transitions whose every field holds their number."""
    n = np.arange(first, first + count)
    return Transitions(np.stack([n, n], 1), n, n, np.stack([n + 1, n + 1], 1), n % 2)


def buffer(capacity: int = 8, seed: int = 0) -> ReplayBuffer:
    return ReplayBuffer(capacity, (2,), (), np.int64, rl.Generator(seed))


def test_the_ring_keeps_the_last():
    replay = buffer(8)
    for first, count in ((0, 3), (3, 4), (7, 5)):
        replay.add(numbered(first, count))
    assert len(replay) == 8
    assert sorted(replay.arrays.rewards) == list(range(4, 12))


def test_fields_stay_together():
    replay = buffer(100)
    replay.add(numbered(0, 60))
    batch = replay.sample(500)
    numbers = batch.rewards.numpy().astype(int)
    assert (batch.observations.numpy()[:, 0] == numbers).all()
    assert (batch.actions.numpy() == numbers).all()
    assert (batch.next_observations.numpy()[:, 1] == numbers + 1).all()
    assert (batch.terminated.numpy() == numbers % 2).all()


def test_sampling_is_uniform_over_what_is_stored():
    replay = buffer(100)
    replay.add(numbered(0, 10))
    counts = np.bincount(replay.sample(10_000).actions.numpy(), minlength=10)
    assert len(counts) == 10
    assert (abs(counts - 1000) < 5 * np.sqrt(1000 * 0.9)).all()


def test_a_recorded_sample_sees_what_was_added_since():
    replay = buffer(100)
    replay.add(numbered(0, 5))
    sample = rl.compile(lambda: replay.sample(200).actions)
    assert sample().max().item() <= 4
    replay.add(numbered(5, 95))
    assert sample().max().item() > 50
    twin = buffer(100)
    twin.add(numbered(0, 5))
    twin.sample(200)
    twin.add(numbered(5, 95))
    twin.sample(200)
    assert (twin.sample(200).actions.numpy() == sample().numpy()).all()


def test_state_goes_round():
    replay, twin = buffer(8), buffer(8, seed=5)
    replay.add(numbered(0, 6))
    replay.add(numbered(6, 5))
    twin.load_state_dict(replay.state_dict())
    assert (twin.sample(20).rewards.numpy() == replay.sample(20).rewards.numpy()).all()
    for ring in (replay, twin):
        ring.add(numbered(11, 2))
    assert (twin.arrays.rewards == replay.arrays.rewards).all()


def test_faults_are_named():
    with pytest.raises(RuntimeError, match="empty"):
        buffer().sample(4)
    with pytest.raises(RuntimeError, match="9 transitions"):
        buffer(8).add(numbered(0, 9))
    with pytest.raises(RuntimeError, match="positive capacity"):
        buffer(0)
