"""`rl.save` and `rl.load` restore values bitwise, or raise a clear error."""

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rl_lab as rl
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


def test_arrays_of_another_byte_order(tmp_path):
    given = {"x": np.arange(3, dtype=">f4"), "i": np.array(7, ">i8")}
    rl.save(given, tmp_path / "x")
    found = rl.load(tmp_path / "x")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["i"] == 7
    with pytest.raises(TypeError, match=r"y of dtype .* cannot be saved"):
        rl.save({"y": np.zeros(2, np.longdouble)}, tmp_path / "y")
