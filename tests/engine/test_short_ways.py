"""Short ways of eager calls give what the long ways give: views, joins, masks, broadcasting, in-place sums, results of one observation."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import errors
from rl_lab.engine.errors import DtypeError

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


KEYS = [
    (2,),
    (-1, 1),
    (slice(1, 3),),
    (slice(None), 2),
    (slice(None, None, 2), slice(3, 1)),
    (..., 1),
    (0, ..., slice(-2, None)),
    (None, 1, None, slice(1, 9, 2)),
    (..., None),
    (..., slice(0, 0)),
    (1, 2, 3),
    (slice(5, 9), None, ...),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "strided"])
def test_a_key_selects_one_view_with_the_right_gradient(key, turned):
    array = numbers(4, 5, 6)
    leaf = rl.tensor(array, requires_grad=True)
    x, source = (leaf.transpose(0, 2), array.transpose(2, 0, 1).transpose(0, 2, 1)) if turned else (leaf, array)
    part = x[key]
    np.testing.assert_array_equal(part.detach().numpy(), source[key])
    assert part.data_ptr() == x.data_ptr() + 4 * sum(i * s for i, s in zip(first_place(source, key), x.stride(), strict=True))
    (part * 2.0).sum().backward()
    expected = np.zeros_like(source)
    expected[key] = 2.0
    found = leaf.grad.numpy()
    np.testing.assert_array_equal(found.transpose(2, 1, 0) if turned else found, expected)
    with rl.no_grad():
        x[key] = 7.0
    assert (source_of(x)[key] == 7.0).all()
    assert (source_of(x) == 7.0).sum() == source[key].size


def first_place(source: np.ndarray, key: tuple) -> tuple[int, ...]:
    """The position of the first element that a key selects; that of an empty part is where it would begin."""
    places = []
    keys = [k for k in key if k is not None]
    at = keys.index(...) if ... in keys else len(keys)
    rest = source.ndim - len(keys) + (... in keys)
    for k, size in zip([*keys[:at], *[slice(None)] * rest, *keys[at + 1 :]], source.shape, strict=True):
        places.append(k.indices(size)[0] if isinstance(k, slice) else k % size)
    return tuple(places)


def source_of(x: rl.Tensor) -> np.ndarray:
    return x.detach().numpy()


ROWS = [
    [1, -2, 3],
    (range(4), [0, 1, -1, 2]),
    ([0, 1], [1, 2], [3, -4]),
    (np.array([1, 2]), np.array([0, -1])),
    (range(3), np.array([1, 1, 1])),
    "rows",
    "planes",
    "elements",
]


@pytest.mark.parametrize("key", ROWS, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "strided"])
def test_rows_by_lists_ranges_vectors_and_masks(key, turned):
    array = numbers(6, 5, 4)
    masks = {"rows": array[:, 0, 0] > 0, "planes": array[:, :, 0] > 0, "elements": array > 0}
    where = masks[key] if isinstance(key, str) else key
    leaf = rl.tensor(array.transpose(2, 0, 1).copy() if turned else array, requires_grad=True)
    x = leaf.permute(1, 2, 0) if turned else leaf
    parts = where if isinstance(where, tuple) else (where,)
    ours = tuple([rl.tensor(part) if isinstance(part, np.ndarray) else part for part in parts])
    y = x[ours if isinstance(where, tuple) else ours[0]]
    theirs = tuple([list(part) if isinstance(part, range) else part for part in parts])
    np.testing.assert_array_equal(y.detach().numpy(), array[theirs])
    weights = numbers(*y.shape)
    (y * rl.tensor(weights)).sum().backward()
    expected = np.zeros_like(array)
    np.add.at(expected, theirs, weights)
    found = leaf.grad.numpy()
    np.testing.assert_allclose(found.transpose(1, 2, 0) if turned else found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("key", [[9], (range(3), [0, 1, 7]), ([0], [-6]), [0, -7]], ids=str)
def test_rows_out_of_bounds(key):
    with pytest.raises(IndexError, match="out of bounds for a dimension of size"):
        rl.zeros(6, 5)[key]


@pytest.mark.parametrize("recorded", [False, True])
def test_sums_at_positions_in_place(recorded):
    """Repeated indices add up one after the other; an index out of bounds changes nothing."""
    target = numbers(5, 3)
    source = numbers(4, 3)
    x = rl.tensor(target)

    def add(index):
        x.index_add_(0, index, rl.tensor(source) if not recorded else kept)

    kept = rl.tensor(source)
    run = rl.compile(add) if recorded else add
    for places in ([0, 2, 0, 4], [1, 1, 1, 0], [3, 2, 0, 0]):
        run(rl.tensor(places))
        for k, place in enumerate(places):
            target[place] += source[k]
        assert x.numpy().tobytes() == target.tobytes()
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        run(rl.tensor([0, 1, 5, 2]))
    assert x.numpy().tobytes() == target.tobytes()
    columns = rl.zeros(3, 4).index_add_(1, rl.tensor([3, 0]), rl.ones(3, 2))
    assert columns.tolist() == [[1.0, 0.0, 0.0, 1.0]] * 3


def test_numbers_at_a_mask():
    array = numbers(7, 9)
    x = rl.tensor(array)
    for value in (2.5, 3, rl.tensor(-1.0), np.nan):
        mask = numbers(7, 9) > 0
        x[rl.tensor(mask)] = value
        array[mask] = float(value)
        assert x.numpy().tobytes() == array.tobytes()
    leaf = rl.ones(2, 2, requires_grad=True)
    y = leaf * 1.0
    y[rl.tensor([[True, False], [False, True]])] = 0.0
    y.sum().backward()
    assert leaf.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_gradients_that_arrive_many_times():
    """The walk adds to its own sums in place, and never to a gradient that something else holds."""
    x = rl.tensor(numbers(4), requires_grad=True)
    other = rl.tensor(numbers(4), requires_grad=True)
    g = rl.ones(4)
    h = x * 1.0
    y = h + x
    for _ in range(3):
        y = y + h + x + other
    y.backward(g, retain_graph=True)
    assert g.tolist() == [1.0] * 4
    assert x.grad.tolist() == [8.0] * 4
    assert other.grad.tolist() == [3.0] * 4
    (first,) = rl.autograd.grad(y, [x], g, create_graph=True)
    assert first.tolist() == [8.0] * 4
    left, right, rest = rl.tensor(numbers(6), requires_grad=True).split(2)
    parts = [left.sum() * k + right.sum() for k in range(4)]
    sum(parts, rest.sum()).backward()


def test_keys_with_arrays_and_lists():
    array = numbers(4, 5, 6)
    x = rl.tensor(array)
    for key in (
        (..., np.array([0, 2])),
        (np.array([1, 1]), ...),
        (slice(1, 3), [0, 1], 2),
        (..., [True] * 6),
        (..., [3], None),
    ):
        np.testing.assert_array_equal(x[key].numpy(), array[key])


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_])
def test_stack_and_cat_of_any_length(dim, count, dtype):
    arrays = [(numbers(3, 4) * 50).astype(dtype) for _ in range(count)]
    tensors = [rl.tensor(array.T.copy()).t() if i % 3 == 1 else rl.tensor(array) for i, array in enumerate(arrays)]
    for ours, theirs in ((rl.stack, np.stack), (rl.cat, np.concatenate)):
        result = ours(tensors, dim)
        np.testing.assert_array_equal(result.numpy(), theirs(arrays, dim))
        assert result.dtype is tensors[0].dtype
        recorded = rl.compile(lambda *parts, ours=ours: ours(parts, dim))
        for _ in range(2):
            np.testing.assert_array_equal(recorded(*tensors).numpy(), result.numpy())


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_stack_and_cat_of_nothing_touch_no_memory(shape):
    empty = rl.zeros(*shape)
    for dim in range(len(shape)):
        assert rl.cat([empty, empty], dim).shape == np.concatenate([np.zeros(shape)] * 2, dim).shape
        assert rl.stack([empty, empty], dim).shape == np.stack([np.zeros(shape)] * 2, dim).shape


@pytest.mark.parametrize("shape", [(6,), (3, 4), (3, 4, 5)])
@pytest.mark.parametrize("kept", [0.0, 0.4, 1.0], ids=["none", "some", "all"])
def test_masks_of_every_rank(shape, kept):
    array = numbers(3, 4, 5) if len(shape) > 1 else numbers(6)
    mask = RNG.random(shape) < kept
    leaf = rl.tensor(array, requires_grad=True)
    part = leaf[rl.tensor(mask)]
    np.testing.assert_array_equal(part.detach().numpy(), array[mask])
    part.sum().backward()
    expected = np.zeros_like(array)
    expected[mask] = 1.0
    np.testing.assert_array_equal(leaf.grad.numpy(), expected)
    for x, source in (
        (rl.tensor(array), array.copy()),
        (rl.tensor(array.T.copy()).permute(*range(array.ndim)[::-1]), array.copy()),
    ):
        values = numbers(*source[mask].shape)
        x[rl.tensor(mask)] = rl.tensor(values)
        source[mask] = values
        np.testing.assert_array_equal(x.numpy(), source)
    if len(shape) == 2:
        x, source = rl.tensor(array), array
        np.testing.assert_array_equal(x[rl.tensor(mask), 1:3].numpy(), source[mask, 1:3])


SHAPES = [
    ((5, 6, 1), (6, 7)),
    ((5, 1, 7), (1, 6, 1)),
    ((2, 1, 3, 1), (4, 1, 5)),
    ((5, 6, 7), (7,)),
    ((), (5, 6, 7)),
    ((5, 6, 7), ()),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_operands_of_many_dimensions_broadcast(shapes):
    a, b = (numbers(*shape) for shape in shapes)
    x, y = rl.tensor(a), rl.tensor(b)
    expected = a - b
    np.testing.assert_array_equal((x - y).numpy(), expected)
    np.testing.assert_array_equal(rl.where(x > y, x, y).numpy(), np.where(a > b, a, b))
    turned = x.transpose(0, -1) if x.dim() > 1 else x
    np.testing.assert_array_equal((turned * 3.0).numpy(), turned.numpy() * np.float32(3.0))
    recorded = rl.compile(lambda x, y: x - y)
    for _ in range(2):
        np.testing.assert_array_equal(recorded(x, y).numpy(), expected)


def test_scaled_sums_in_place():
    a, b = numbers(3, 4), numbers(3, 4)
    x, y = rl.tensor(a), rl.tensor(b)
    assert x.add_(y, alpha=0.3) is x
    assert x._version == 1
    np.testing.assert_array_equal(x.numpy(), a + b * np.float32(0.3))
    x.sub_(y, alpha=3)
    np.testing.assert_array_equal(x.numpy(), (a + b * np.float32(0.3)) - b * np.float32(3))
    z = rl.tensor(a)
    z.add_(z, alpha=2.0)
    np.testing.assert_array_equal(z.numpy(), a + a * np.float32(2))
    z = rl.tensor(a)
    z.add_(z.clone()[:1], alpha=2.0)
    np.testing.assert_array_equal(z.numpy(), a + a[:1] * np.float32(2))
    for options in ({}, {"alpha": 2.0}):
        for first, second in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None)), (slice(None), 0)):
            source = numbers(100)
            x = rl.tensor(source)
            x[first].add_(x[second], **options)
            source[first] = source[first] + source[second] * np.float32(options.get("alpha", 1.0))
            np.testing.assert_array_equal(x.numpy(), source)
        square = numbers(5, 5)
        x = rl.tensor(square)
        x.add_(x.t(), **options)
        np.testing.assert_array_equal(x.numpy(), square + square.T * np.float32(options.get("alpha", 1.0)))
    whole = rl.tensor([1, 2, 3])
    whole.add_(whole, alpha=2)
    assert whole.tolist() == [3, 6, 9]
    leaf = rl.tensor(b, requires_grad=True)
    w = rl.tensor(a)
    w.add_(leaf, alpha=0.5)
    w.sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), np.full((3, 4), 0.5, np.float32))
    with pytest.raises(TypeError, match="alpha"):
        w.mul_(y, alpha=2.0)


def test_products_refuse_a_gradient_of_integers():
    weight = rl.tensor(numbers(3, 4), requires_grad=True)
    out = rl.tensor(numbers(2, 3)) @ weight
    with pytest.raises(DtypeError):
        out.backward(rl.ones(2, 4, dtype=rl.int64))


def test_items_of_every_dtype():
    for value in (1.5, -0.0, float("inf"), 3, -(2**62), True, False):
        found = rl.tensor(value).item()
        assert type(found) is type(value)
        assert repr(found) == repr(value)
    assert rl.tensor([200], dtype=rl.uint8).item() == 200
    assert rl.tensor([[1.0, 2.0], [3.0, 4.0]]).t()[0, 1].item() == 3.0


def test_a_result_that_somebody_holds_is_not_overwritten():
    """The memory of the last result is used again only if nobody can see it."""
    double = rl.compile(lambda x: x * 2.0)
    inputs = [rl.tensor([float(i), i + 0.5]) for i in range(12)]
    for x in inputs[:3]:
        double(x)
    held = double(inputs[3])
    array = double(inputs[4]).numpy()
    view = double(inputs[5])[1:]
    detached = double(inputs[6]).detach()
    changed = double(inputs[7]).add_(1.0)
    del changed
    fresh = double(inputs[8])
    assert fresh._version == 0
    first = fresh.data_ptr()
    del fresh
    assert double(inputs[9]).data_ptr() == first
    assert held.tolist() == [6.0, 7.0]
    assert array.tolist() == [8.0, 9.0]
    assert view.tolist() == [11.0]
    assert detached.tolist() == [12.0, 13.0]


def test_a_recorded_function_with_an_absent_argument():
    scale = rl.compile(lambda x, mask=None: x * 2.0 if mask is None else x.where(mask, rl.tensor(0.0)))
    x = rl.tensor([1.0, 2.0])
    mask = rl.tensor([True, False])
    for _ in range(3):
        assert scale(x, None).tolist() == [2.0, 4.0]
        assert scale(x, mask).tolist() == [1.0, 0.0]
        assert scale(x).tolist() == [2.0, 4.0]
        assert scale(x.reshape(2, 1), None).tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize("others", [[(2, 3)], [(2, 3), (2, 1)], [(0,), (2, 3)]])
def test_a_vector_without_elements_joins_tensors_of_any_shape(others):
    nothing = rl.zeros(0, requires_grad=True)
    tensors = [nothing, *[rl.ones(shape, requires_grad=True) for shape in others]]
    joined = rl.cat(tensors, dim=1)
    assert joined.equal(rl.cat([t for t in tensors if t.dim() == 2], dim=1))
    joined.sum().backward()
    assert tuple(nothing.grad.shape) == (0,)
    with pytest.raises(errors.ShapeError):
        rl.cat([rl.ones(2, 3), rl.zeros(1)], dim=1)


def test_a_scalar_counts_as_a_vector_of_one_element():
    x = rl.tensor(3.0, requires_grad=True)
    picked = x.gather(0, rl.tensor([0]))
    assert picked.tolist() == [3.0]
    assert rl.tensor([5.0, 6.0]).gather(0, rl.tensor(1)).tolist() == 6.0
    assert x.unfold(0, 1, 1).tolist() == [3.0]
    (picked.sum() + x.unfold(0, 1, 1).sum()).backward()
    assert x.grad.item() == 2.0
