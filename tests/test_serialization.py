"""`rl.save` and `rl.load` restore values bitwise, or raise a clear error."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rl_lab as rl
from rl_lab import serialization
from rl_lab.engine.errors import DeviceError, FileError

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_, np.float64, np.uint8]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
)
LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(max_size=10), ARRAYS)
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(STATES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_comes_back(tmp_path, state):
    rl.save(state, tmp_path / "state.safetensors")
    assert same(state, rl.load(tmp_path / "state.safetensors"))
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_network_and_its_optimiser(tmp_path):
    network = rl.nn.Sequential(rl.nn.Linear(3, 4), rl.nn.BatchNorm1d(4), rl.nn.Linear(4, 2))
    optimizer = rl.optim.Adam(network.parameters())
    network(rl.randn(8, 3)).sum().backward()
    optimizer.step()
    rl.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}, tmp_path / "a.pt")
    found = rl.load(tmp_path / "a.pt")
    twin = rl.nn.Sequential(rl.nn.Linear(3, 4), rl.nn.BatchNorm1d(4), rl.nn.Linear(4, 2))
    twin.load_state_dict(found["network"])
    for mine, yours in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
        assert mine.numpy().tobytes() == yours.numpy().tobytes()
    second = rl.optim.Adam(twin.parameters())
    second.load_state_dict(found["optimizer"])
    x = rl.randn(8, 3)
    for model, steps in ((network, optimizer), (twin, second)):
        steps.zero_grad()
        model(x).sum().backward()
        steps.step()
    for mine, yours in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
        assert mine.numpy().tobytes() == yours.numpy().tobytes()
    assert found["epoch"] == 7


STATE = {"weight": rl.arange(12).float().reshape(3, 4), "steps": np.arange(5), "name": "a network"}


def test_every_flipped_bit_is_noticed(tmp_path):
    """A flipped bit in any byte raises an error or, in a byte without meaning, leaves the content unchanged."""
    file = tmp_path / "state"
    rl.save(STATE, file)
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    caught = 0
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        try:
            found = rl.load(file)
        except FileError:
            caught += 1
            continue
        assert found["weight"].numpy().tobytes() == STATE["weight"].numpy().tobytes(), place
        assert same(found["steps"], STATE["steps"])
        assert found["name"] == STATE["name"]
    assert caught > 0.95 * len(good)


def test_truncated_files_are_noticed(tmp_path):
    file = tmp_path / "state"
    rl.save(STATE, file)
    good = file.read_bytes()
    for length in range(len(good)):
        file.write_bytes(good[:length])
        with pytest.raises(FileError, match=r"state (cannot be read|was not written|is damaged)"):
            rl.load(file)


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FileError, match="cannot be read"):
        rl.load(tmp_path / "nowhere")
    save_file({"a": np.zeros(3, np.float32)}, str(tmp_path / "foreign"))
    with pytest.raises(FileError, match="not written by rl_lab"):
        rl.load(tmp_path / "foreign")


class Planted:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(FileError):
        rl.load("evil")
    assert not (tmp_path / "executed").exists()
    with pytest.raises(TypeError, match=r"agent/0 of type Planted cannot be saved"):
        rl.save({"agent": [Planted()]}, "state")
    assert not (tmp_path / "state").exists()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "state"
    rl.save({"a": 1}, file)
    with pytest.raises(TypeError):
        rl.save({"a": object()}, file)
    assert rl.load(file) == {"a": 1}

    def full(*arguments, **keywords):
        raise OSError("no space left on device")

    monkeypatch.setattr("rl_lab.serialization.save_file", full)
    with pytest.raises(OSError, match="no space"):
        rl.save({"a": 2}, file)
    assert rl.load(file) == {"a": 1}


def test_a_state_of_another_network_is_named():
    network = rl.nn.Sequential(rl.nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        network.load_state_dict({"0.weight": np.zeros((2, 2), np.float32), "0.bias": np.zeros(4, np.float32)})
    with pytest.raises(RuntimeError, match=r"0\.bias"):
        network.load_state_dict({"0.weight": np.zeros((4, 3), np.float32)})


def test_a_file_object_holds_several_objects_one_after_the_other(tmp_path):
    first = {"w": rl.ones(2, 3), "n": 3, "names": ["a", None]}
    second = (rl.tensor([1, 2]), np.float64(0.5), True)
    buffer = io.BytesIO()
    rl.save(first, buffer)
    rl.save(obj=second, f=buffer)
    rl.save({}, buffer)
    buffer.seek(0)
    loaded = rl.load(f=buffer)
    assert loaded["w"].tolist() == [[1.0] * 3] * 2
    assert loaded["n"] == 3
    assert loaded["names"] == ["a", None]
    numbers, half, flag = rl.load(buffer, map_location="cpu")
    assert numbers.tolist() == [1, 2]
    assert (half, flag) == (0.5, True)
    assert rl.load(buffer) == {}
    with open(tmp_path / "file", "wb") as file:
        rl.save(first, file)
    with open(tmp_path / "file", "rb") as file:
        assert rl.load(file)["n"] == 3
    assert rl.load(tmp_path / "file")["n"] == 3  # the same bytes as by path


def test_damaged_bytes_of_a_file_object_are_refused():
    buffer = io.BytesIO()
    rl.save({"w": rl.arange(4)}, buffer)
    data = buffer.getvalue()
    for damaged in (b"", data[:5], data[:-1], b"\xff" * 100, data[:-3] + b"\x07" + data[-2:]):
        with pytest.raises(FileError):
            rl.load(io.BytesIO(damaged))
    with pytest.raises(FileError):
        rl.load(3)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    rl.save(rl.ones(2), tmp_path / "file")
    with pytest.raises(DeviceError, match="cpu"):
        rl.load(tmp_path / "file", map_location="cuda")


def test_tensors_keep_their_kind_their_gradient_and_the_memory_that_they_share(tmp_path):
    whole = rl.arange(12).float().reshape(3, 4)
    network = rl.nn.Linear(4, 2)
    part = rl.arange(6)
    state = {
        "first": whole[:2],
        "whole": whole,
        "columns": (whole.t(), whole[:, 1:3]),
        "apart": rl.ones(3),
        "again": whole,
        "leaf": rl.ones(2, requires_grad=True),
        "result": rl.ones(2, requires_grad=True) * 3,
        "parameters": list(network.parameters()),
        "frozen": rl.nn.Parameter(rl.ones(1), requires_grad=False),
        "tied": network.weight.detach(),
        "halves": [whole.long()[:0], rl.arange(6)[1:5], rl.arange(6)[::2]],
        "crossing": [part[1:3], part[2:5]],
    }
    rl.save(state, tmp_path / "file")
    found = rl.load(tmp_path / "file")
    lists = ("columns", "parameters", "halves", "crossing")
    pairs = [(x, found[name]) for name, x in state.items() if name not in lists]
    for x, y in [*pairs, *[pair for name in lists for pair in zip(state[name], found[name], strict=True)]]:
        assert (y.tolist(), y.requires_grad, type(y)) == (x.tolist(), x.requires_grad, type(x))
        assert y.is_leaf
    found["whole"][1, 1] = -7.0
    assert found["first"][1, 1].item() == found["again"][1, 1].item() == found["columns"][0][1, 1].item() == -7.0
    assert found["columns"][1][1, 0].item() == -7.0
    found["tied"][0, 0] = 5.0
    assert found["parameters"][0][0, 0].item() == 5.0
    found["crossing"][1][0] = 9
    assert found["crossing"][0].tolist() == [1, 9]
    assert (tmp_path / "file").stat().st_size < 4000


def test_names_that_make_the_same_path_do_not_replace_each_other(tmp_path):
    rl.save({"a/b": rl.ones(1), "a": {"b": rl.zeros(2)}}, tmp_path / "file")
    found = rl.load(tmp_path / "file")
    assert (found["a/b"].tolist(), found["a"]["b"].tolist()) == ([1.0], [0.0, 0.0])


LAYOUTS = [
    {"key": "w", "offset": 3, "shape": [2], "strides": [1]},
    {"key": "w", "offset": -1, "shape": [2], "strides": [1]},
    {"key": "w", "offset": 0, "shape": [2], "strides": [2.0]},
    {"key": "w", "offset": 0, "shape": [2]},
    {"key": "w", "offset": 10**30, "shape": [0], "strides": [1]},
    {"key": "v"},
    {"offset": 0},
    3,
]


@pytest.mark.parametrize("content", LAYOUTS)
def test_a_layout_outside_of_the_file_is_refused(tmp_path, content):
    arrays = {"w": np.arange(4, dtype=np.float32)}
    structure = json.dumps({"tensor": content})
    facts = {"format": "1", "structure": structure, "checksum": serialization.checksum(arrays, structure)}
    serialization.save_file(arrays, tmp_path / "file", facts)
    with pytest.raises(FileError, match=r"its structure is not one that rl_lab\.save writes"):
        rl.load(tmp_path / "file")


def test_a_plain_state_has_the_names_of_earlier_versions(tmp_path):
    rl.save({"net": {"w": rl.ones(2)}, "n": [1, np.zeros(1)]}, tmp_path / "file")
    _, facts = serialization.read_safetensors(tmp_path / "file")
    expected = {"dict": [["net", {"dict": [["w", {"tensor": "net/w"}]]}], ["n", {"list": [{"value": 1}, {"array": "n/1"}]}]]}
    assert (facts["format"], json.loads(facts["structure"])) == ("1", expected)


def test_arrays_of_another_byte_order(tmp_path):
    given = {"x": np.arange(3, dtype=">f4"), "i": np.array(7, ">i8")}
    rl.save(given, tmp_path / "x")
    found = rl.load(tmp_path / "x")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["i"] == 7
    with pytest.raises(TypeError, match=r"y of dtype .* cannot be saved"):
        rl.save({"y": np.zeros(2, np.longdouble)}, tmp_path / "y")
