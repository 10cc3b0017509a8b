"""Sizes, keys and numbers that PyTorch refuses or reads in a way of its own: an error, or its answer, never another number."""

import math

import numpy as np
import pytest

import rl_lab as rl


@pytest.mark.parametrize(
    "make",
    [
        lambda: rl.randperm(-1),
        lambda: rl.tril_indices(-1, 2),
        lambda: rl.triu_indices(2, -1),
        lambda: rl.ones(2).repeat_interleave(rl.tensor([1, -2])),
        lambda: rl.ones(2).repeat_interleave(-1),
        lambda: rl.nn.Embedding(-1, 2),
        lambda: rl.nn.Conv1d(1, -1, 3),
    ],
)
def test_negative_counts_are_refused(make):
    with pytest.raises((rl.errors.ShapeError, ValueError)):
        make()


def layers():
    return [layer for layer in vars(rl.nn).values() if isinstance(layer, type) and issubclass(layer, rl.nn.Module)]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.__name__)
def test_no_layer_has_a_negative_size(layer):
    for sizes in ((-1,), (-1, 2), (2, -1), (-1, 2, 3), (2, -1, 3), (2, 2, -1), (-2, 2, 2, 2), (1, -2)):
        try:
            parameters = list(layer(*sizes).parameters())
        except Exception:  # refused, in whatever way
            continue
        assert all(size >= 0 for parameter in parameters for size in parameter.shape), sizes


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ([[0, 1], [1, 0]], ([0, 1], [1, 0])),
        ([(0, 1), (1, 2)], ([0, 1], [1, 2])),
        ([range(2), range(2)], ([0, 1], [0, 1])),
        ([np.array([0, 1]), np.array([1, 0])], ([0, 1], [1, 0])),
        ([0, [1, 2]], (0, [1, 2])),
        ([[True, False, True], [0]], ([0, 2], [0, 0])),
        ([slice(0, 1)], (slice(0, 1),)),
        ([None, 0], (None, 0)),
        ([..., 0], (..., 0)),
        ([0, 1], ([0, 1],)),
        ([[0, 1]], ([0, 1],)),
        (np.array([[0, 1], [1, 0]]), (np.array([[0, 1], [1, 0]]),)),
        ([[0]] * 33, ([[0]] * 33,)),
    ],
)
def test_a_list_with_sequences_is_a_key_of_several_dimensions(key, same):
    """PyTorch's answers, recorded by hand as the tuple that has the same meaning. Assignments follow them, too."""
    x = rl.arange(9.0).reshape(3, 3)
    assert x[key].tolist() == x[same].tolist()
    one, other = x.clone(), x.clone()
    one[key] = 7.0
    other[same] = 7.0
    assert one.tolist() == other.tolist()


def test_a_list_of_tensors_is_a_key_of_several_dimensions():
    x = rl.arange(9).reshape(3, 3)
    assert x[[rl.tensor(0), rl.tensor(1)]].item() == 1
    assert x[[rl.tensor([0, 2]), rl.tensor([1, 1])]].tolist() == [1, 7]
    assert x[[rl.tensor([True, False, True])]].tolist() == [[0, 1, 2], [6, 7, 8]]


@pytest.mark.parametrize("make", [rl.tensor, rl.as_tensor])
@pytest.mark.parametrize("data", [None, "abc", b"ab", 1j, {1, 2}, np.array(["a"]), np.array([1, None])], ids=repr)
@pytest.mark.parametrize("dtype", [None, rl.float32, rl.int64, rl.uint8, rl.bool])
def test_what_is_not_a_number_does_not_become_one(make, data, dtype):
    for given in (data, [data]) if not isinstance(data, np.ndarray) else (data,):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            make(given, dtype=dtype)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, 2.0**63, -(2.0**64), 2**63])
def test_numbers_that_do_not_fit_into_int64_are_refused(number):
    for data in (number, [1, number], np.array([number])):
        with pytest.raises(OverflowError):
            rl.tensor(data, dtype=rl.int64)
    assert rl.tensor(number, dtype=rl.float32).isnan().item() == (number != number)
    assert rl.tensor(-(2.0**63), dtype=rl.int64).item() == -(2**63)


@pytest.mark.parametrize(
    "draw",
    [
        lambda bad: rl.normal(0.0, bad, (3,)),
        lambda bad: rl.normal(rl.zeros(3), bad),
        lambda bad: rl.normal(rl.zeros(3), rl.tensor([1.0, bad, 1.0])),
        lambda bad: rl.zeros(3).normal_(0.0, bad),
        lambda bad: rl.zeros(3).log_normal_(0.0, bad),
        lambda bad: rl.zeros(3).uniform_(1.0, 1.0 + bad) if bad == bad else rl.zeros(3).normal_(0.0, bad),
    ],
)
def test_negative_deviations_are_refused(draw):
    compiled = rl.compile(draw)
    for call in range(6):
        bad = (0.5, 1.0, 0.5, -1.0, 2.0, math.nan)[call]
        if bad > 0:
            draw(bad)
            compiled(bad)
        else:
            with pytest.raises(ValueError, match=r"deviation|uniform_"):
                draw(bad)
            with pytest.raises(ValueError, match=r"deviation|uniform_"):
                compiled(bad)


def test_dimensions_named_twice_or_not_at_all():
    x = rl.tensor([[0.0, 2.0], [1.0, 3.0]])
    with pytest.raises(rl.errors.ShapeError):
        x.squeeze((0, -2))
    assert rl.tensor(5).flip(0).item() == 5
    assert x.any(()).tolist() == x.all(()).tolist() == [[False, True], [True, True]]
    assert x.any(np.int64(1)).tolist() == [True, True]


def test_numbers_of_numpy_are_numbers_beside_uint8():
    pixels = rl.tensor([200, 3], dtype=rl.uint8)
    mask = rl.tensor([True, False])
    for three in (3, np.int64(3), np.uint8(3)):
        for filled in (pixels.masked_fill(mask, three), rl.where(mask, three, pixels)):
            assert (filled.dtype, filled.tolist()) == (rl.uint8, [3, 3])
