"""Checkpoints: a state is loaded bit for bit as it was saved, and a crash leaves the old or the new checkpoint, never a part of one."""

import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rl_lab as rl
from rl_lab import serialization
from rl_lab.experiment import checkpoint, driver
from rl_lab.experiment.checkpoint import ENVIRONMENTS, FORMAT, load_checkpoint, read_record, save_checkpoint
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.faults import Fault
from rl_lab.rollout import ReplayBuffer, Transitions
from rl_lab.rollout.saving import EnvironmentsState
from rl_lab.serialization import checksum, read_safetensors

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=3),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
@settings(max_examples=30, deadline=None)
def test_plain_values_go_round(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("plain") / "last"
    save_checkpoint(path, state)
    assert load_checkpoint(path) == state


def test_arrays_go_round_bit_for_bit(tmp_path):
    special = np.array([0.0, -0.0, np.nan, np.inf, 1e-45], np.float32)
    state = {"a": special, "b": {"c": [rl.tensor([[1, 2]]), np.zeros((0, 3))]}, 7: rl.tensor([True, False])}
    save_checkpoint(tmp_path / "last", state)
    loaded = load_checkpoint(tmp_path / "last")
    assert loaded["a"].tobytes() == special.tobytes()
    assert loaded["b"]["c"][0].tolist() == [[1, 2]]
    assert loaded["b"]["c"][1].shape == (0, 3)
    assert loaded[7].dtype == bool


def test_saving_replaces(tmp_path):
    for value in (1, 2):
        save_checkpoint(tmp_path / "last", {"value": value})
    assert load_checkpoint(tmp_path / "last") == {"value": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_failure_while_saving_leaves_the_old_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last", {"value": 1})

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "flush", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "last", {"value": 2})
    assert load_checkpoint(tmp_path / "last") == {"value": 1}


def test_a_full_disk_is_not_filled_by_half_a_checkpoint(tmp_path, monkeypatch):
    fsync = os.fsync
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "last", {"x": np.zeros(1000)})
    assert list(tmp_path.iterdir()) == []


def test_a_death_at_any_moment_leaves_the_old_one_or_the_new_one(tmp_path, monkeypatch, small_segments):
    class Death(BaseException):
        pass

    path, left = tmp_path / "last", 0
    buffer = replay_of(250)

    def state(value):
        fill(buffer, 30, value)
        return {"value": value, "replay": buffer.state_dict()}

    def mortal(call):
        def wrapped(*arguments, **keywords):
            nonlocal left
            if left == 0:
                raise Death
            left -= 1
            return call(*arguments, **keywords)

        return wrapped

    places = [(os, name) for name in ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir", "fdopen", "link")]
    for owner, name in [*places, (checkpoint.shutil, "rmtree")]:
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    left, deaths, outcomes = -1, 0, set()
    old = state(0)
    save_checkpoint(path, old)
    for value in range(1, 100):
        left, new = -1, state(value)
        left = deaths
        try:
            save_checkpoint(path, new, {"log": {}})
            break
        except Death:
            deaths += 1
        left = -1
        found = load_checkpoint(path)
        outcomes.add(value - found["value"])
        expected = new if found["value"] == value else old
        assert np.array_equal(found["replay"]["arrays"]["rewards"], expected["replay"]["arrays"]["rewards"])
        save_checkpoint(path, new)
        old = new
    assert deaths > 20
    assert outcomes == {0, 1}
    left = -1
    assert load_checkpoint(path)["value"] == value
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match="agent/thing of type set"):
        save_checkpoint(tmp_path / "last", {"agent": {"thing": {1, 2}}})
    assert not (tmp_path / "last").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped header", "not json", "other format", "missing"])
def test_damage_is_a_fault(tmp_path, damage):
    save_checkpoint(tmp_path / "last", {"x": np.arange(5.0)})
    tensors, plain = tmp_path / "last/state.safetensors", tmp_path / "last/state.json"
    if damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    elif damage == "flipped header":
        tensors.write_bytes(b"\xff" + tensors.read_bytes()[1:])
    elif damage == "not json":
        plain.write_text("{")
    elif damage == "other format":
        plain.write_text(json.dumps({"format": 99, "state": {}}))
    else:
        tensors.unlink()
    with pytest.raises(Fault, match="checkpoint"):
        load_checkpoint(tmp_path / "last")


def replay_of(transitions: int, seed: int = 1, capacity: int = 1000) -> ReplayBuffer:
    """A replay buffer with segments of 100 transitions."""
    made = ReplayBuffer(capacity, (3,), (), np.int64, rl.Generator(1))
    fill(made, transitions, seed)
    return made


def fill(buffer: ReplayBuffer, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    seen, following = random.normal(size=(2, count, 3)).astype(np.float32)
    flags = random.integers(2, size=(2, count)).astype(bool)
    buffer.add(Transitions(seen, random.integers(4, size=count), flags[0].astype(np.float32), following, *flags))


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(serialization, "SEGMENT_BYTES", 100 * (3 * 4 * 2 + 8 + 3 * 4))


def inodes(folder) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.glob("rows-*")}


def test_a_replay_buffer_is_written_as_far_as_it_has_changed(tmp_path, small_segments):
    buffer = replay_of(450)
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    first = inodes(tmp_path / "last")
    assert len(first) == 5
    fill(buffer, 100, 2)  # to the middle of the sixth segment
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    second = inodes(tmp_path / "last")
    assert len(second) == 6
    assert len(set(first.items()) & set(second.items())) == 4
    fill(buffer, 500, 3)  # around the end
    save_checkpoint(tmp_path / "best", {"replay": buffer.state_dict()})
    third = inodes(tmp_path / "best")
    assert len(set(second.items()) & set(third.items())) == 4
    twin = replay_of(0)
    twin.load_state_dict(load_checkpoint(tmp_path / "best")["replay"])
    for mine, other in zip(buffer.arrays[:6], twin.arrays[:6], strict=True):
        assert np.array_equal(mine, other)
    assert (len(twin), twin.position) == (len(buffer), buffer.position)


def test_marking_the_ends_of_episodes_changes_a_segment(tmp_path, small_segments):
    buffer = replay_of(250)
    buffer.arrays.terminated[249] = 0.0
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    buffer.begin_episodes()
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    assert load_checkpoint(tmp_path / "last")["replay"]["arrays"]["truncated"][249] == 1.0


def test_without_links_segments_are_copied(tmp_path, small_segments, monkeypatch):
    def refuse(*names):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    buffer = replay_of(250)
    for _ in range(2):
        save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    checkpoint.keep_copy(tmp_path / "last", "step-7")
    expected = buffer.state_dict()["arrays"]["rewards"]
    for name in ("last", "step-7"):
        assert np.array_equal(load_checkpoint(tmp_path / name)["replay"]["arrays"]["rewards"], expected)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "exchanged", "a path", "twice"])
def test_a_damaged_segment_is_a_fault(tmp_path, small_segments, damage):
    save_checkpoint(tmp_path / "last", {"replay": replay_of(250).state_dict()})
    first, second, _ = sorted((tmp_path / "last").glob("rows-*"))
    plain = tmp_path / "last/state.json"
    if damage == "truncated":
        first.write_bytes(first.read_bytes()[:-1])
    elif damage == "flipped":
        data = bytearray(first.read_bytes())
        data[-5] ^= 1
        first.write_bytes(data)
    elif damage == "missing":
        first.unlink()
    elif damage == "exchanged":
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
    else:
        arrays, _ = read_safetensors(tmp_path / "last/state.safetensors")
        name = "../" + first.name if damage == "a path" else second.name
        content = json.loads(plain.read_text().replace(first.name, name))
        content["checksum"] = checksum(arrays, json.dumps(content["state"]))
        plain.write_text(json.dumps(content))
    with pytest.raises(Fault, match="checkpoint"):
        load_checkpoint(tmp_path / "last")


def test_format_2_is_read(tmp_path):
    """It held the arrays of a replay buffer as any others."""
    state = {"replay": {**replay_of(50).state_dict(), "arrays": dict(replay_of(50).state_dict()["arrays"])}}
    save_checkpoint(tmp_path / "last", state)
    plain = tmp_path / "last/state.json"
    plain.write_text(plain.read_text().replace(f'"format": {FORMAT}', '"format": 2'))
    twin = replay_of(0)
    twin.load_state_dict(load_checkpoint(tmp_path / "last")["replay"])
    assert len(twin) == 50


def test_values_that_would_fill_the_memory(tmp_path):
    save_checkpoint(tmp_path / "last", {"x": 1})
    (tmp_path / "last/state.json").write_text('{"format": 3, "state": [' + "[]," * 3_000_000 + "[]]}")
    with pytest.raises(Fault, match=r"more values than a checkpoint has: they would need 0\.6 GB"):
        load_checkpoint(tmp_path / "last")
    assert read_record(tmp_path / "last") is None  # which is read first when a run is resumed


def test_the_disk_that_a_large_replay_buffer_needs_is_said(workplace):
    def lines(**changes) -> list[str]:
        plan = driver.make_plan({"agent": "dqn", "env": "CartPole-v1", "keep_best": False, **changes})
        envs = make_environments(plan.setup, plan.options.num_envs)
        return driver.disk_estimate(plan.agent_class.create(plan.config, envs, 1, plan.setup), plan)

    assert lines(buffer_size=50_000) == []
    (line,) = lines(buffer_size=4_000_000, keep_checkpoints=3)
    assert "the replay buffer needs up to 0.2 GB in a checkpoint; 4 checkpoints" in line
    assert "together up to 0.8 GB on disk" in line


def test_stacked_frames_are_written_as_far_as_they_are_new(tmp_path, monkeypatch):
    """They are numbered in the order in which they came, so a segment stays what it is while others leave the buffer."""
    monkeypatch.setattr(serialization, "SEGMENT_BYTES", 50 * 2 * 4)

    def made() -> ReplayBuffer:
        return ReplayBuffer(400, (3, 2), (), np.int64, rl.Generator(1), frames=3, num_envs=2)

    random = np.random.default_rng(1)
    buffer, stack = made(), random.normal(size=(2, 3, 2)).astype(np.float32)

    def add(steps: int) -> None:
        nonlocal stack
        for _ in range(steps):
            following = np.concatenate([stack[:, 1:], random.normal(size=(2, 1, 2)).astype(np.float32)], 1)
            ended = random.random(2) < 0.1
            zeros = np.zeros(2, np.float32)
            buffer.add(Transitions(stack, np.zeros(2, np.int64), zeros, following, ended, np.zeros(2, bool)))
            stack = following
            for i in np.flatnonzero(ended):
                stack[i] = random.normal(size=2).astype(np.float32)

    add(170)
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    first = inodes(tmp_path / "last")
    add(60)  # past the capacity
    save_checkpoint(tmp_path / "last", {"replay": buffer.state_dict()})
    second = inodes(tmp_path / "last")
    frames = [name for name in first if "frames" in name]
    assert len(frames) == 8  # frames -4 to 339 in segments of 50
    assert [second.get(name) == first[name] for name in sorted(frames)] == 3 * [False] + 4 * [True] + [False]  # 100 to 299
    twin = made()
    twin.load_state_dict(load_checkpoint(tmp_path / "last")["replay"])
    index = rl.tensor(np.arange(400))
    for mine, other in zip(buffer.gather(index), twin.gather(index), strict=True):
        assert (mine is None and other is None) or np.array_equal(mine.numpy(), other.numpy())


def with_environments(**arrays: np.ndarray) -> dict[str, Any]:
    return {"learned": np.arange(5.0), "collector": {"environments": EnvironmentsState(steps=7, **arrays), "timesteps": 3}}


def test_arrays_of_environments_have_a_file_of_their_own(tmp_path):
    """Otherwise the file of what was learned would depend on the wrappers of the environments."""
    plain, wrapped = with_environments(x=np.ones(2)), with_environments(x=np.zeros(2), inner=np.ones(3))
    save_checkpoint(tmp_path / "plain", plain)
    save_checkpoint(tmp_path / "wrapped", wrapped)
    learned = [(tmp_path / name / "state.safetensors").read_bytes() for name in ("plain", "wrapped")]
    assert learned[0] == learned[1]
    found = load_checkpoint(tmp_path / "wrapped")["collector"]["environments"]
    assert found["steps"] == 7
    assert found["inner"].tolist() == [1, 1, 1]
    (tmp_path / "wrapped" / ENVIRONMENTS).write_bytes((tmp_path / "plain" / ENVIRONMENTS).read_bytes())
    with pytest.raises(Fault, match="checksum"):
        load_checkpoint(tmp_path / "wrapped")
    (tmp_path / "wrapped" / ENVIRONMENTS).unlink()
    with pytest.raises(Fault, match="checksum"):
        load_checkpoint(tmp_path / "wrapped")


def test_format_3_is_read(tmp_path):
    """It held the arrays of the environments' state as any others."""
    state = with_environments(x=np.arange(4))
    state["collector"]["environments"] = dict(state["collector"]["environments"])
    save_checkpoint(tmp_path / "last", state)
    assert not (tmp_path / "last" / ENVIRONMENTS).exists()
    file = tmp_path / "last/state.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 3'))
    assert load_checkpoint(tmp_path / "last")["collector"]["environments"]["x"].tolist() == [0, 1, 2, 3]
