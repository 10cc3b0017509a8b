"""Replay of stacked frames: every batch equals that of a buffer that stores whole stacks."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.rollout import PrioritizedReplayBuffer, ReplayBuffer, Transitions

SHAPE = (3, 2, 2)  # three frames of 2 x 2


class Player:
    """Episodes of ``n`` environments with frames that are all different, stacked as Gymnasium's FrameStackObservation does."""

    def __init__(self, n: int, dtype, seed: int):
        self.n = n
        self.dtype = dtype
        self.random = np.random.default_rng(seed)
        self.count = 0
        self.stacks = np.stack([self.first() for _ in range(n)])

    def frame(self) -> np.ndarray:
        self.count += 1
        value = self.count % 251 if self.dtype != np.bool_ else self.random.integers(0, 2, SHAPE[1:])
        return np.full(SHAPE[1:], value, self.dtype)

    def first(self) -> np.ndarray:
        return np.repeat(self.frame()[None], SHAPE[0], 0)

    def steps(self, count: int) -> Transitions:
        rows = []
        for _ in range(count):
            before = self.stacks.copy()
            following = np.stack([np.concatenate([old[1:], self.frame()[None]]) for old in before])
            terminated = self.random.random(self.n) < 0.15
            truncated = ~terminated & (self.random.random(self.n) < 0.15)
            rows.append((before, following, terminated, truncated))
            self.stacks = following.copy()
            for i in np.flatnonzero(terminated | truncated):
                self.stacks[i] = self.first()
        before, following, terminated, truncated = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        size = len(terminated)
        actions, rewards = np.arange(size), self.random.random(size).astype(np.float32)
        return Transitions(before, actions, rewards, following, terminated, truncated)


def make(kind, n: int, dtype, frames: int, n_steps: int, capacity: int = 24) -> ReplayBuffer:
    options = {"n_steps": n_steps, "num_envs": n, "observation_dtype": dtype, "frames": frames}
    return kind(capacity, SHAPE, (), np.int64, rl.Generator(5), **options)


def assert_same_batches(one: ReplayBuffer, other: ReplayBuffer) -> None:
    size = len(one)
    for a, b in zip(one.gather(rl.arange(size)), other.gather(rl.arange(size)), strict=True):
        if a is not None:
            assert a.dtype == b.dtype
            assert (a.numpy() == b.numpy()).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
@pytest.mark.parametrize(("n", "n_steps"), [(1, 1), (1, 3), (4, 1), (3, 2)])
@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_batches_equal_those_of_whole_stacks(dtype, n, n_steps, kind):
    player = Player(n, dtype, 3)
    plain, framed = (make(kind, n, dtype, frames, n_steps) for frames in (1, SHAPE[0]))
    for steps in (1, 2, 1, 3, 1, 1, 4, 2, 5, 1, 1, 6, 2):
        played = player.steps(steps)
        for buffer in (plain, framed):
            buffer.add(played)
        assert_same_batches(plain, framed)
        if steps == 4:  # as when a run is resumed without the state of its environments
            for buffer in (plain, framed):
                buffer.begin_episodes()
            player.stacks = np.stack([player.first() for _ in range(n)])
            assert_same_batches(plain, framed)


@pytest.mark.parametrize("steps", [3, 8, 20])
@pytest.mark.parametrize("capacity", [24, 40])
def test_a_state_continues(steps, capacity):
    player = Player(2, np.uint8, 4)
    plain, framed = (make(ReplayBuffer, 2, np.uint8, frames, 1) for frames in (1, SHAPE[0]))
    played = player.steps(steps) if steps < 12 else player.steps(12)
    for buffer in (plain, framed):
        buffer.add(played)
    if steps > 12:
        played = player.steps(steps - 12)
        for buffer in (plain, framed):
            buffer.add(played)
    if capacity > 24 and steps > 12:
        capacity = 24  # a ring that has gone round fits its own size only
    twin, from_old = (make(ReplayBuffer, 2, np.uint8, SHAPE[0], 1, capacity) for _ in range(2))
    twin.load_state_dict(framed.state_dict())
    from_old.load_state_dict(plain.state_dict())  # as an older version saved it
    for buffer in (twin, from_old):
        assert_same_batches(framed, buffer)
    for count in (1, 3, 2):
        played = player.steps(count)
        buffers = (framed, twin, from_old) if capacity == 24 else (twin, from_old)
        for buffer in buffers:
            buffer.add(played)
        assert_same_batches(buffers[0], buffers[1])
        assert_same_batches(buffers[0], buffers[-1])


def test_damaged_states_are_refused():
    player = Player(2, np.uint8, 4)
    framed = make(ReplayBuffer, 2, np.uint8, SHAPE[0], 1)
    framed.add(player.steps(6))
    for name, wrong in (
        ("frames", np.zeros((3, 2, 2), np.uint8)),
        ("finals", np.zeros((99, 2, 2), np.uint8)),
        ("elapsed", np.zeros(5, np.int64)),
        ("total", 3),
    ):
        state = framed.state_dict()
        state["frames"][name] = wrong
        with pytest.raises(rl.errors.ShapeError):
            make(ReplayBuffer, 2, np.uint8, SHAPE[0], 1).load_state_dict(state)


def test_each_frame_is_stored_once():
    capacity, frame = 2_000, 84 * 84
    buffer = ReplayBuffer(capacity, (4, 84, 84), (), np.int64, rl.Generator(1), observation_dtype=np.uint8, frames=4)
    assert buffer.arrays.observations is buffer.arrays.next_observations is None
    assert buffer.frames._frames.nbytes <= (capacity + 4) * frame
