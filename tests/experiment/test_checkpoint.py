"""Checkpoints: a state is loaded bit for bit as it was saved, and a crash leaves the old or the new checkpoint, never a part of one."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rl_lab as rl
from rl_lab.experiment import checkpoint
from rl_lab.experiment.checkpoint import load_checkpoint, save_checkpoint
from rl_lab.experiment.faults import Fault

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


def test_a_death_at_any_moment_leaves_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    class Death(BaseException):
        pass

    path = tmp_path / "last"
    left = 0

    def mortal(call):
        def wrapped(*arguments, **keywords):
            nonlocal left
            if left == 0:
                raise Death
            left -= 1
            return call(*arguments, **keywords)

        return wrapped

    places = [(os, name) for name in ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir", "fdopen")]
    for owner, name in [*places, (checkpoint.shutil, "rmtree")]:
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    left = -1
    deaths = 0
    outcomes = set()
    save_checkpoint(path, {"value": 0})
    for value in range(1, 100):
        left = deaths
        try:
            save_checkpoint(path, {"value": value}, {"log": {}})
            break
        except Death:
            deaths += 1
        left = -1
        found = load_checkpoint(path)["value"]
        outcomes.add(value - found)
        save_checkpoint(path, {"value": value})
    assert deaths > 20
    assert outcomes == {0, 1}
    left = -1
    assert load_checkpoint(path) == {"value": value}
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
