"""Replay storage and collectors."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rl_lab as rl
from rl_lab.collect import VectorCollector
from rl_lab.data import ReplayBuffer, Transitions
from rl_lab.engine.errors import EnvironmentFault


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


# --- collectors ------------------------------------------------------------------------------------------------------


def collect(
    mode: AutoresetMode, steps: int, env: str = "CartPole-v1", num_envs: int = 3
) -> tuple[list[Transitions], VectorCollector]:
    envs = gym.make_vec(env, num_envs=num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    collector = VectorCollector(envs, seed=7)
    rng = np.random.default_rng(0)
    return [collector.step(rng.integers(2, size=num_envs)) for _ in range(steps)], collector


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_transitions_join_up(mode):
    """Physics of CartPole: a transition's positions differ by the velocity times 0.02 s, also in the step that ends an episode."""
    batches, collector = collect(mode, 200)
    for batch in batches:
        moved = batch.observations[:, 0] + 0.02 * batch.observations[:, 1]
        assert batch.next_observations[:, 0] == pytest.approx(moved, abs=1e-5)
    ended = sum(int(batch.terminated.sum()) for batch in batches)
    assert ended > 10
    statistics = collector.episodes()
    assert statistics["charts/episodic_return"] == statistics["charts/episodic_length"]
    assert collector.episodes() == {}


def test_episode_statistics_count_every_step_once():
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        batches, collector = collect(mode, 300, num_envs=1)
        lengths, length = [], 0
        for batch in batches:
            length += len(batch.rewards)
            if batch.terminated.any():
                lengths.append(length)
                length = 0
        assert collector.episodes()["charts/episodic_length"] == pytest.approx(np.mean(lengths))


def test_truncation_is_not_termination():
    batches, _ = collect(AutoresetMode.SAME_STEP, 30, "probe/Endless-v0")
    assert not any(batch.terminated.any() for batch in batches)


def test_a_reward_that_is_no_number_names_the_environment():
    with pytest.raises(EnvironmentFault, match="environment 0 of probe/ReturnsNan-v0 returned a reward of nan"):
        collect(AutoresetMode.SAME_STEP, 10, "probe/ReturnsNan-v0")
