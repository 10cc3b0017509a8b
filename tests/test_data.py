"""Replay storage, advantages and running statistics."""

import gymnasium as gym
import numpy as np
import pytest

import rl_lab as rl
from rl_lab.rollout import (
    PrioritizedReplayBuffer,
    ReplayBuffer,
    RewardScale,
    RunningMoments,
    Transitions,
    discounted_returns,
    generalized_advantages,
)


def numbered(first: int, count: int) -> Transitions:
    """Transitions in which every field holds the number of the transition."""
    n = np.arange(first, first + count)
    return Transitions(np.stack([n, n], 1), n, n, np.stack([n + 1, n + 1], 1), n % 2, n * 0)


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
    assert batch.discounts.numpy() == pytest.approx(0.99 * (1 - numbers % 2))


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
    with pytest.raises(RuntimeError, match="must be at least"):
        buffer(0)


# --- several steps ---------------------------------------------------------------------------------------------------


def walk(steps: int, num_envs: int, seed: int) -> tuple[Transitions, list[list[tuple]]]:
    """Random transitions of several environments, and for each environment its list of (reward, terminated, truncated)."""
    rng = np.random.default_rng(seed)
    size = steps * num_envs
    terminated = rng.random(size) < 0.15
    truncated = (rng.random(size) < 0.15) & ~terminated
    n = np.arange(size, dtype=np.float32)
    rewards = rng.normal(size=size).astype(np.float32)
    made = Transitions(n[:, None], n.astype(np.int64), rewards, n[:, None] + 0.5, terminated, truncated)
    lanes = [[(rewards[i], terminated[i], truncated[i], i) for i in range(e, size, num_envs)] for e in range(num_envs)]
    return made, lanes


@pytest.mark.parametrize(("num_envs", "n_steps", "capacity"), [(1, 3, 500), (4, 3, 500), (3, 5, 60), (2, 1, 40)])
def test_returns_over_several_steps(num_envs, n_steps, capacity):
    """n-step returns equal a plain loop, which sums rewards up to n steps, the end of the episode or the newest transition."""
    gamma = 0.9
    steps = 100
    replay = ReplayBuffer(capacity, (1,), (), np.int64, rl.Generator(0), gamma=gamma, n_steps=n_steps, num_envs=num_envs)
    made, lanes = walk(steps, num_envs, 1)
    for t in range(0, steps, 5):
        part = slice(t * num_envs, (t + 5) * num_envs)
        replay.add(Transitions(*[None if x is None else x[part] for x in made]))
    batch = replay.sample(400)
    for j, number in enumerate(batch.actions.numpy()):
        lane = lanes[number % num_envs]
        at = number // num_envs
        total, factor = 0.0, 1.0
        for k in range(n_steps):
            reward, terminated, truncated, last = lane[at + k]
            total, factor = total + factor * reward, factor * gamma
            if terminated or truncated or at + k == steps - 1:
                break
        assert batch.rewards.numpy()[j] == pytest.approx(total, abs=1e-5)
        assert batch.discounts.numpy()[j] == pytest.approx(0.0 if terminated else factor, abs=1e-6)
        assert batch.next_observations.numpy()[j, 0] == last + 0.5


# --- priorities ------------------------------------------------------------------------------------------------------


def prioritized(capacity: int = 20, **options) -> PrioritizedReplayBuffer:
    return PrioritizedReplayBuffer(capacity, (2,), (), np.int64, rl.Generator(3), **options)


def test_sampling_follows_the_priorities():
    replay = prioritized(exponent=0.5, least=0.0)
    replay.add(numbered(0, 10))
    errors = np.arange(10, dtype=np.float32)
    replay.update_priorities(rl.arange(10), rl.from_numpy(errors))
    replay.correction.fill_(1.0)
    batch = replay.sample(20_000)
    expected = np.sqrt(errors) / np.sqrt(errors).sum()
    counts = np.bincount(batch.indices.numpy(), minlength=10)
    assert counts / 20_000 == pytest.approx(expected, abs=2e-4)  # stratified: far closer than independent draws
    weights = batch.weights.numpy()
    weights_expected = 1.0 / (10 * expected[batch.indices.numpy()])
    assert weights == pytest.approx(weights_expected / weights_expected.max(), rel=1e-4)


def test_a_new_transition_is_as_urgent_as_the_most_urgent():
    replay = prioritized(exponent=1.0, least=0.0)
    replay.add(numbered(0, 4))
    replay.update_priorities(rl.arange(4), rl.tensor([7.0, 1.0, 1.0, 1.0]))
    replay.add(numbered(4, 1))
    counts = np.bincount(replay.sample(17_000).indices.numpy(), minlength=5)
    assert counts == pytest.approx([7000, 1000, 1000, 1000, 7000], abs=5)


def test_the_tree_adds_up_after_any_number_of_updates():
    replay = prioritized(37)
    rng = np.random.default_rng(0)
    for step in range(50):
        replay.add(numbered(5 * step, 5))
        index = rng.integers(0, len(replay), 16)
        replay.update_priorities(rl.from_numpy(index), rl.from_numpy(rng.normal(size=16).astype(np.float32)))
        tree = replay.tree.numpy()
        inner = np.arange(1, replay.leaves)
        assert tree[inner] == pytest.approx(tree[2 * inner] + tree[2 * inner + 1], rel=1e-6)
    twin = prioritized(37)
    twin.load_state_dict(replay.state_dict())
    assert (twin.sample(30).indices.numpy() == replay.sample(30).indices.numpy()).all()


# --- advantages ------------------------------------------------------------------------------------------------------


def tensors(*rows):
    return [rl.tensor(np.array(row).reshape(-1, 1)) for row in rows]


def test_generalized_advantages_by_hand():
    """Two steps of an episode that terminates, then two steps of a running one; gamma and lambda are 0.5."""
    rewards, values, following = tensors([1.0, 2.0, 3.0, 4.0], [0.5, 0.25, 1.0, 2.0], [0.25, 100.0, 2.0, 8.0])
    terminated, truncated = tensors([False, True, False, False], [False, False, False, False])
    d0 = 1 + 0.125 - 0.5
    d1 = 2 - 0.25
    d2 = 3 + 1 - 1
    d3 = 4 + 4 - 2
    expected = [d0 + 0.25 * d1, d1, d2 + 0.25 * d3, d3]
    result = generalized_advantages(rewards, values, following, terminated, truncated, 0.5, 0.5)
    assert result.flatten().tolist() == pytest.approx(expected)


def test_a_truncated_episode_bootstraps_and_ends_the_sum():
    rewards, values, following = tensors([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 10.0, 20.0])
    terminated, truncated = tensors([False, False, False], [False, True, False])
    result = generalized_advantages(rewards, values, following, terminated, truncated, 0.5, 1.0)
    assert result.flatten().tolist() == pytest.approx([1 + 0.5 * 6, 1 + 5, 1 + 10])


def test_lambda_0_is_the_one_step_error_and_lambda_1_the_return():
    rng = np.random.default_rng(5)
    shape = (30, 4)
    rewards, values, following = (rl.from_numpy(rng.normal(size=shape).astype(np.float32)) for _ in range(3))
    ends = rng.random(shape)
    terminated, truncated = rl.from_numpy(ends < 0.1), rl.from_numpy((ends > 0.1) & (ends < 0.2))
    # within an episode the next value is the value of the next step
    over = ends < 0.2
    next_values = following.numpy().copy()
    next_values[:-1][~over[:-1]] = values.numpy()[1:][~over[:-1]]
    following = rl.from_numpy(next_values)
    one = generalized_advantages(rewards, values, following, terminated, truncated, 0.9, 0.0)
    assert one.numpy() == pytest.approx((rewards + 0.9 * (1 - terminated.float()) * following - values).numpy(), abs=1e-6)
    whole = generalized_advantages(rewards, values, following, terminated, truncated, 0.9, 1.0) + values
    returns = discounted_returns(rewards, terminated, truncated, 0.9, following)
    assert whole.numpy() == pytest.approx(returns.numpy(), abs=1e-5)
    with pytest.raises(RuntimeError, match="values must have the rewards' shape"):
        generalized_advantages(rewards, values[0], following, terminated, truncated, 0.9, 1.0)


# --- running statistics ----------------------------------------------------------------------------------------------


def test_running_moments_are_those_of_all_the_data():
    rng = np.random.default_rng(0)
    data = rng.normal([3.0, -100.0], [0.1, 50.0], (5000, 2)).astype(np.float32)
    moments = RunningMoments((2,))
    update = rl.compile(moments.update)
    for start in range(0, 5000, 100):
        update(rl.from_numpy(data[start : start + 100]))
    assert moments.mean.numpy() == pytest.approx(data.mean(0), rel=1e-4)
    assert moments.var.numpy() == pytest.approx(data.var(0), rel=1e-3)
    normal = moments.normalize(rl.from_numpy(data)).numpy()
    assert normal.mean(0) == pytest.approx([0, 0], abs=1e-3)
    assert normal.std(0) == pytest.approx([1, 1], abs=1e-3)
    twin = RunningMoments((2,))
    twin.load_state_dict(moments.state_dict())
    assert (twin.normalize(rl.from_numpy(data)).numpy() == normal).all()


def test_rewards_are_scaled_as_gymnasium_scales_them():
    class Rewards(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), next(stream), False, False, {}

    numbers = np.random.default_rng(1).normal(2.0, 3.0, 400).astype(np.float32)
    stream = iter(numbers.tolist())
    wrapped = gym.wrappers.NormalizeReward(Rewards(), gamma=0.9)
    wrapped.reset()
    theirs = [wrapped.step(0)[1] for _ in range(400)]
    scale = RewardScale(1, 0.9)
    ours = np.concatenate([scale(part[:, None], np.zeros((1, 1), bool)) for part in np.split(numbers, 400)])[:, 0]
    assert ours[20:] == pytest.approx(theirs[20:], rel=1e-3)
