"""Functions on uint8, int64, bool and float32 against PyTorch's recorded answers. uint8 is stored as bytes and computed as float32."""

import json

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.errors import DeviceError, DtypeError
from tests.engine.dtype_cases import ANSWERS, DATA, PAIRS, answer, calls

RECORDED = json.loads(ANSWERS.read_text(encoding="utf-8"))
REFUSED = {
    "conv2d",
    "linear",
    "max_pool2d",
    "avg_pool2d",
    "cross_entropy",
    "where(x)",
    "matmul",
    "inner(x, y)",
    "einsum",
    "cumsum_",
}
"""Functions that take fewer dtypes than PyTorch's and say so: products of uint8, layers of integers, classes in uint8."""
WRAPS = {
    "cross",
    "cross(x, y)",
    "diff",
    "diff(x)",
    "diff(x, 1)",
    "neg(x)",
    "negative(x)",
    "sub(x, y)",
    "sub(x, 2)",
    "subtract(x, y)",
    "subtract(x, 2)",
}
"""Functions whose uint8 result wraps below 0 in PyTorch; here it is the float32 difference."""
COVERED = [(name, function) for name, function in calls() if "(" not in name or hasattr(rl, name.split("(")[0])]


@pytest.mark.parametrize(("name", "function"), COVERED, ids=[name for name, _ in COVERED])
def test_every_dtype_gives_what_pytorch_gives(name, function):
    for first, second in PAIRS:
        wanted = RECORDED.get(f"{name} {first} {second}")
        if wanted is None:
            continue
        try:
            dtype, shape, values = answer(rl, function, first, second)
        except (DtypeError, TypeError, RuntimeError):
            assert name in REFUSED, (first, second)
            continue
        wider = ("int64",) if "shift" in name or "bits" in name else ("float32",)
        computed = "uint8" in (first, second) and dtype in wider and wanted[0] in ("uint8", "int64")
        flag = first == "uint8" and dtype == "bool" and wanted[0] == "uint8"  # any and all
        assert dtype == wanted[0] or computed or flag or (dtype, wanted[0]) == ("float32", "float64"), (first, second, dtype)
        assert shape == wanted[1], (first, second)
        if not (computed and name in WRAPS):
            np.testing.assert_allclose(values, wanted[2], 1e-5, 1e-6, err_msg=f"{first} {second}")


def test_the_comparison_would_see_a_wrong_dtype_and_a_wrong_value():
    with pytest.raises(AssertionError):
        test_every_dtype_gives_what_pytorch_gives("abs(x)", lambda t, x, y: abs(x).float())
    with pytest.raises(AssertionError):
        test_every_dtype_gives_what_pytorch_gives("abs(x)", lambda t, x, y: abs(x) + 1)


# --- uint8 ---------------------------------------------------------------------------------------------------------------


def test_pixels_take_a_byte_each_and_share_numpys_memory():
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)
    x = rl.from_numpy(pixels)
    assert (x.dtype, x.element_size(), x.storage.nbytes) == (rl.uint8, 1, 256)
    pixels[0, 0, 0, 0] = 7
    assert x[0, 0, 0, 0].item() == 7
    assert rl.as_tensor(pixels).data_ptr() == x.data_ptr()
    assert rl.tensor(pixels).data_ptr() != x.data_ptr()
    scaled = x / 255.0
    np.testing.assert_array_equal(scaled.numpy(), pixels / np.float32(255))
    assert scaled.dtype is rl.float32


def test_a_network_reads_pixels_and_a_compiled_one_too():
    net = rl.nn.Sequential(rl.nn.Flatten(), rl.nn.Linear(12, 3))
    x = rl.from_numpy(np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))

    def values(x):
        return net(x.float() / 255.0)

    compiled = rl.compile(values)
    with rl.no_grad():
        expected = values(x)
        for _ in range(3):
            np.testing.assert_array_equal(compiled(x).numpy(), expected.numpy())


def test_replay_in_bytes_is_written_and_sampled():
    storage = rl.zeros(10, 4, dtype=rl.uint8)
    storage[3] = rl.tensor([1, 2, 3, 255], dtype=rl.uint8)
    storage[rl.tensor([5, 6])] = rl.full((2, 4), 9, dtype=rl.uint8)
    storage[7, 1:3] = 200
    batch = storage[rl.tensor([3, 6, 7])]
    assert batch.dtype is rl.uint8
    assert batch.tolist() == [[1, 2, 3, 255], [9, 9, 9, 9], [0, 200, 200, 0]]
    assert storage.index_select(0, rl.tensor([7])).dtype is rl.uint8
    assert rl.cat([batch, batch]).dtype is rl.uint8
    assert (storage == 9).sum().item() == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: rl.tensor([256], dtype=rl.uint8),
        lambda: rl.tensor([-1], dtype=rl.uint8),
        lambda: rl.tensor(300.5, dtype=rl.uint8),
        lambda: rl.tensor(np.array([300]), dtype=rl.uint8),
        lambda: rl.full((2,), 256, dtype=rl.uint8),
        lambda: rl.zeros(2, dtype=rl.uint8).fill_(256),
        lambda: rl.zeros(2, dtype=rl.uint8).masked_fill(rl.tensor([True, False]), -1),
        lambda: rl.zeros(2, dtype=rl.uint8).__setitem__(0, 256),
        lambda: rl.tensor([128], dtype=rl.int8),
        lambda: rl.tensor([2**15], dtype=rl.int16),
        lambda: rl.tensor([2**31], dtype=rl.int32),
        lambda: rl.full((1,), 2**31, dtype=rl.int32),
        lambda: rl.tensor([2**40]).to(rl.int32),
        lambda: rl.tensor([2**40]).int(),
        lambda: rl.tensor([-1], dtype=rl.uint16),
    ],
)
def test_numbers_that_do_not_fit_are_refused(make):
    with pytest.raises(OverflowError, match="fit"):
        make()


def test_conversions_to_uint8_keep_the_lowest_bits():
    for values in ([300.0, -1.0, 2.9, float("nan")], [300, -1, 256, 7], [True, False, True, True]):
        x = rl.tensor(values)
        assert x.to(rl.uint8).tolist() == x.byte().tolist()
    assert rl.tensor([300.0, -1.0, 2.9, float("nan")]).byte().tolist() == [44, 255, 2, 0]
    assert rl.tensor([300, -1, 256, 7]).byte().tolist() == [44, 255, 0, 7]
    assert rl.tensor([0, 3, 255], dtype=rl.uint8).bool().tolist() == [False, True, True]
    assert rl.ByteTensor([1, 2]).type() == "rl_lab.ByteTensor"
    assert repr(rl.tensor([1], dtype=rl.uint8)) == "tensor([1], dtype=rl_lab.uint8)"


# --- names of other dtypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float64", "double", "int32", "int", "int16", "short", "int8", "uint16", "uint32", "uint64"])
def test_a_dtype_that_stands_for_another_is_taken_everywhere(name):
    dtype = getattr(rl, name)
    nearest = rl.float32 if name in ("float64", "double") else rl.int64
    made = [rl.zeros(2, dtype=dtype), rl.tensor([1, 2], dtype=dtype), rl.ones(2).to(dtype), rl.arange(2, dtype=dtype)]
    made += [
        rl.ones(2).type(dtype),
        rl.full((2,), 1, dtype=dtype),
        rl.zeros_like(rl.ones(2), dtype=dtype),
        rl.eye(2, dtype=dtype),
    ]
    for x in made:
        assert x.dtype is nearest
        assert x.dtype == dtype
        assert dtype == x.dtype
    assert hash(dtype) == hash(nearest)
    assert rl.ones(2).sum(dtype=dtype).dtype is nearest


@pytest.mark.parametrize("name", ["float16", "half", "bfloat16", "complex64", "complex128", "cfloat", "cdouble"])
def test_a_dtype_without_a_substitute_may_be_named_and_not_used(name):
    dtype = getattr(rl, name)
    assert dtype != rl.float32
    for use in (lambda: rl.zeros(2, dtype=dtype), lambda: rl.ones(2).to(dtype), lambda: rl.tensor([1.0], dtype=dtype)):
        with pytest.raises(DtypeError, match="float32"):
            use()
    for use in (lambda: rl.ones(2).half(), lambda: rl.ones(2).bfloat16()):
        with pytest.raises(DtypeError, match="float32"):
            use()


def test_limits_of_dtypes():
    assert rl.iinfo(rl.uint8).max == 255
    assert rl.iinfo(rl.int32).max == 2**31 - 1
    assert rl.iinfo(rl.int64).min == -(2**63)
    assert rl.finfo(rl.float64).max == rl.finfo(rl.float32).max


# --- devices -------------------------------------------------------------------------------------------------------------


def test_every_device_may_be_named_and_only_the_cpu_used():
    assert (rl.device("cuda:1").type, rl.device("cuda:1").index) == ("cuda", 1)
    assert rl.device("cuda", 1) == rl.device("cuda:1") == rl.device(rl.device(type="cuda", index=1))
    assert rl.device("cuda") != rl.device("cpu")
    assert str(rl.device("cuda:1")) == "cuda:1"
    assert repr(rl.device("cuda", 1)) == "device(type='cuda', index=1)"
    for name in ("cuda", "cuda:0", "mps", rl.device("cuda"), 0):
        for use in (
            lambda name=name: rl.zeros(2, device=name),
            lambda name=name: rl.tensor([1.0], device=name),
            lambda name=name: rl.rand(2, device=name),
            lambda name=name: rl.arange(2, device=name),
            lambda name=name: rl.ones(2).to(device=name),
            lambda name=name: rl.nn.Linear(2, 2).to(name),
            lambda name=name: rl.nn.Linear(2, 2, device=name),
            lambda name=name: rl.Generator(device=name),
            lambda name=name: rl.device(name).__enter__(),
        ):
            with pytest.raises(DeviceError, match="cpu"):
                use()
    with pytest.raises(DeviceError, match="cpu"):
        rl.ones(2).cuda()
    with pytest.raises(DeviceError, match="not a device"):
        rl.device("gpu")
    with rl.device("cpu"):
        assert rl.zeros(2, device=rl.device("cpu")).to("cpu:0").device == rl.device("cpu")


# --- integers ------------------------------------------------------------------------------------------------------------


def test_the_smallest_integer_divided_by_minus_one_wraps():
    low = -(2**63)
    x = rl.tensor([low, low, 7, -7])
    d = rl.tensor([-1, 1, -1, -1])
    assert (x // d).tolist() == [low, low, -7, 7]
    assert rl.div(x, d, rounding_mode="trunc").tolist() == [low, low, -7, 7]
    assert (x % d).tolist() == [0, 0, 0, 0]
    assert rl.fmod(x, d).tolist() == [0, 0, 0, 0]
    assert rl.fmod(rl.tensor([low, low, 7, -7]), rl.tensor([3, -3, low, low])).tolist() == [-2, -2, 7, -7]


def test_extremes_of_the_smallest_integer():
    low = -(2**63)
    x = rl.tensor([[5, low], [2**63 - 1, 0]])
    assert x.min().item() == low
    assert x.amin(1).tolist() == [low, 0]
    assert x.min(1).values.tolist() == [low, 0]
    assert x.argmin().item() == 1


def test_products_of_integers_are_exact():
    big = 2**40 + 1
    a, b = rl.tensor([[big, 2], [3, 4]]), rl.tensor([[3, 1], [1, big]])
    expected = np.array([[big, 2], [3, 4]]) @ np.array([[3, 1], [1, big]])
    assert (a @ b).tolist() == expected.tolist()
    assert (a[0] @ b).tolist() == expected[0].tolist()
    assert (a[0] @ b[:, 0]).item() == expected[0, 0]
    assert rl.einsum("ij,jk->ik", a, b).tolist() == expected.tolist()
    assert rl.bmm(a.unsqueeze(0), b.unsqueeze(0))[0].tolist() == expected.tolist()


def test_diagonals_keep_integers():
    big = 2**40 + 1
    assert rl.tensor([big, 1]).diag().tolist() == [[big, 0], [0, 1]]
    assert rl.tensor([[big, 1]]).diag_embed(1).dtype is rl.int64
    assert F.pad(rl.tensor([big]), (1, 0)).tolist() == [0, big]


# --- tensors of tensors --------------------------------------------------------------------------------------------------


def test_tensors_of_one_element_are_numbers():
    t = rl.tensor
    for given, wanted in [
        ([t([1.0]), t([2.0])], [1.0, 2.0]),
        ([t(1.0), 2], [1.0, 2.0]),
        ([t([[1.0]]), 3.0], [1.0, 3.0]),
        ([[t(1.0), t(2.0)], [t(3.0), 4.0]], [[1.0, 2.0], [3.0, 4.0]]),
        ([[t([1.0])], [t([2.0])]], [[1.0], [2.0]]),
        ([t(1), t(2)], [1, 2]),
        ([t(1), 2.5], [1.0, 2.5]),
        ([t(True), t(False)], [True, False]),
        ([t(True), 2], [1, 2]),
        ([np.float32(1.5), t(2)], [1.5, 2.0]),
        ((2, t(1)), [2, 1]),
        ([t(2**62 + 1)], [2**62 + 1]),
        ([t([1.0], requires_grad=True)], [1.0]),
    ]:
        made = rl.tensor(given)
        assert made.tolist() == wanted
        assert type(np.array(made.tolist()).reshape(-1)[0]) is type(np.array(wanted).reshape(-1)[0])
        assert rl.as_tensor(given).tolist() == wanted
    assert rl.tensor([rl.tensor(1, dtype=rl.uint8)]).dtype is rl.uint8
    for given in ([t([1.0, 2.0]), t([3.0, 4.0])], [t([])], [[t([1.0, 2.0])]]):
        with pytest.raises(ValueError, match="one element"):
            rl.tensor(given)


def test_data_has_every_dtype():
    assert {array.dtype.name for array in DATA.values()} == {"int64", "uint8", "bool", "float32"}
