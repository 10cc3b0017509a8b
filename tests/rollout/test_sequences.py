"""Replay of sequences: consecutive steps of one environment, with the memory before them."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.engine.errors import ShapeError
from rl_lab.rollout import SequenceReplayBuffer, Transitions


def filled(steps: int, capacity: int, num_envs: int = 3, at_once: int = 2) -> SequenceReplayBuffer:
    """A buffer with steps that say who they are: observation (environment, number); episodes of environment e have 4 + e steps."""
    buffer = SequenceReplayBuffer(capacity, (2,), (), np.int64, rl.Generator(5), memory=2, num_envs=num_envs)
    for first in range(0, steps, at_once):
        number = np.repeat(np.arange(first, first + at_once), num_envs)
        env = np.tile(np.arange(num_envs), at_once)
        seen = np.stack([env, number], 1).astype(np.float32)
        ended = (number + 1) % (4 + env) == 0
        over = ended & (number % 2 == 0)
        following = seen + np.array([0, 1], np.float32)
        given = Transitions(seen, number, number.astype(np.float32), following, over, ended & ~over)
        buffer.add(given, np.stack([100 * env, -number], 1).astype(np.float32))
    return buffer


@pytest.mark.parametrize(("steps", "capacity"), [(6, 60), (20, 60), (22, 60), (104, 61)])
def test_sequences_are_consecutive_steps_of_one_environment(steps, capacity):
    buffer = filled(steps, capacity)
    kept = min(steps, capacity // 3)
    batch, ended, memory = buffer.sample_sequences(500, 5)
    seen = batch.observations.reshape(5, 500, 2).numpy()
    env, number = seen[..., 0], seen[..., 1]
    assert (env == env[0]).all()
    assert (np.diff(number, axis=0) == 1).all()
    assert {(e, n) for e, n in zip(env[0], number[0], strict=True)} == {
        (e, n) for e in range(3) for n in range(steps - kept, steps - 4)
    }
    np.testing.assert_array_equal(memory.numpy(), np.stack([100 * env[0], -number[0]], 1))
    np.testing.assert_array_equal(ended.numpy(), (number + 1) % (4 + env) == 0)
    np.testing.assert_array_equal(batch.actions.reshape(5, 500).numpy(), number)


def test_a_recorded_program_sees_what_was_added_later():
    buffer = filled(6, 60)
    draw = rl.compile(lambda: buffer.sample_sequences(400, 5)[0].observations)
    assert draw().numpy()[:, 1].max() == 5
    number = np.repeat(np.arange(6, 12), 3)
    seen = np.stack([np.tile(np.arange(3), 6), number], 1).astype(np.float32)
    flags = np.zeros(18, bool)
    buffer.add(Transitions(seen, number, number.astype(np.float32), seen, flags, flags), np.zeros((18, 2), np.float32))
    for _ in range(3):
        assert draw().numpy()[:, 1].max() == 11


def test_its_state_continues_it(tmp_path):
    buffer = filled(30, 60)
    rl.save(buffer.state_dict(), tmp_path / "state")
    twin = filled(2, 60)
    twin.load_state_dict(rl.load(tmp_path / "state"))
    for one, other in zip(buffer.sample_sequences(20, 4), twin.sample_sequences(20, 4), strict=True):
        for mine, yours in zip(*[x if isinstance(x, tuple) else (x,) for x in (one, other)], strict=True):
            assert mine is yours is None or np.array_equal(mine.numpy(), yours.numpy())
    state = buffer.state_dict()
    with pytest.raises(ShapeError, match="memories"):
        twin.load_state_dict({**state, "memories": state["memories"][:, :1]})


def test_steps_that_do_not_fit_are_named():
    buffer = filled(2, 60)
    seen = np.zeros((3, 2), np.float32)
    flags = np.zeros(3, bool)
    whole = Transitions(seen, np.zeros(3, np.int64), np.zeros(3, np.float32), seen, flags, flags)
    for given, memories in ((Transitions(*[x[:2] for x in whole[:6]]), np.zeros((2, 2))), (whole, np.zeros((3, 3)))):
        with pytest.raises(ShapeError, match="whole steps of 3 environments"):
            buffer.add(given, memories)
    assert len(buffer) == 6
