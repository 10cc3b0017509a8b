"""Random shapes: broadcasting, slicing and views against NumPy, and gradients that must add up."""

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rl_lab as rl
from tests.checks import assert_close

few = settings(max_examples=50, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def numbered(shape, requires_grad=False):
    """An array of small distinct numbers, and a tensor of the same numbers."""
    array = np.asarray((np.arange(math.prod(shape), dtype=np.float32).reshape(shape) - 3) / 4)
    return array, rl.tensor(array, requires_grad=requires_grad)


@few
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=4))
def test_broadcasting(example):
    """Values as in NumPy. The gradient of every operand has the operand's shape."""
    (a, x), (b, y), (c, z) = (numbered(shape, True) for shape in example.input_shapes)
    value = x * y + z
    assert value.shape == example.result_shape
    assert_close(value.detach(), a * b + c)
    value.sum().backward()
    ones = np.ones(example.result_shape)
    for tensor, array, slope in ((x, a, ones * b), (y, b, ones * a), (z, c, ones)):
        assert_close(tensor.grad, summed_to(slope, array.shape))
    assert (rl.maximum(x, y) >= y).all()
    np.testing.assert_array_equal((x < z).numpy(), a < c)


def summed_to(array, shape):
    missing = array.ndim - len(shape)
    dims = (*range(missing), *(i + missing for i, size in enumerate(shape) if size == 1))
    return array.sum(dims, keepdims=True).reshape(shape)


def keys(shape):
    """Slices with positive steps, integers, None and ..., for at most as many dimensions as there are."""
    return hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True).filter(
        lambda key: all(not isinstance(k, slice) or (k.step or 1) > 0 for k in (key if isinstance(key, tuple) else (key,)))
    )


def always_view(key):
    """The key with an ellipsis, so that NumPy returns an array, never a number."""
    key = key if isinstance(key, tuple) else (key,)
    return key if Ellipsis in key else (*key, ...)


@st.composite
def arrays_with_keys(draw, depth=1):
    shape = draw(shapes)
    found, rest = [], np.empty(shape)
    for _ in range(depth):
        found.append(draw(keys(rest.shape)))
        rest = rest[found[-1]]
        if not isinstance(rest, np.ndarray):
            break
    return shape, found


@few
@given(arrays_with_keys(depth=2))
@example(((0, 1, 2), [(slice(None), 0), (None, slice(None), slice(None), None)]))
def test_slicing(case):
    """A slice of a slice has NumPy's values. Its gradient is 1 at the elements that it reads."""
    shape, found = case
    array, x = numbered(shape, True)
    part, reads = x, np.zeros(shape)
    expected, window = array, reads[...]
    for key in found:
        part, expected = part[key], expected[key]
        window = window[always_view(key)]
    np.testing.assert_array_equal(part.detach().numpy(), expected)
    part.sum().backward()
    window += 1
    np.testing.assert_array_equal(x.grad.numpy(), reads)


@few
@given(arrays_with_keys())
def test_writing_to_a_slice(example):
    """x[key] = number writes where NumPy writes, and sets the gradient there to 0."""
    shape, (key,) = example
    array, x = numbered(shape, True)
    y = x * 1
    y[key] = 7.0
    array = array.copy()
    array[always_view(key)] = 7.0
    np.testing.assert_array_equal(y.detach().numpy(), array)
    (y + x).sum().backward()
    slopes = np.full(shape, 2.0)
    slopes[always_view(key)] = 1.0
    np.testing.assert_array_equal(x.grad.numpy(), slopes)


@st.composite
def view_chains(draw):
    """A shape and a list of steps (name, argument) that change it."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    steps, now = [], np.empty(shape)
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["permute", "reshape", "flatten", "step", "unsqueeze", "expand"]))
        if kind == "permute":
            argument = tuple(draw(st.permutations(range(now.ndim))))
        elif kind == "reshape":
            argument = tuple(draw(st.permutations(factors(now.size))))
        elif kind == "step":
            argument = draw(st.integers(0, now.ndim - 1))
        else:
            argument = draw(st.integers(0, now.ndim))
        if now.ndim > 5 or now.size > 300:
            break
        steps.append((kind, argument))
        now = on_numpy(now, kind, argument)
    return shape, steps


def factors(size):
    """A shape: the prime factors of a size, and a 1."""
    found = [1]
    for p in (2, 3):
        while size % p == 0:
            size //= p
            found.append(p)
    return [*found, size] if size > 1 else found


def on_numpy(array, kind, argument):
    if kind == "permute":
        return array.transpose(argument)
    if kind == "reshape":
        return array.reshape(argument)
    if kind == "flatten":
        return array.reshape(-1)
    if kind == "step":
        return array[(slice(None),) * argument + (slice(None, None, 2),)]
    if kind == "unsqueeze":
        return np.expand_dims(array, argument)
    return np.broadcast_to(array, (2, *array.shape))


def on_tensor(x, kind, argument):
    if kind == "permute":
        return x.permute(argument)
    if kind == "reshape":
        return x.reshape(argument)
    if kind == "flatten":
        return x.flatten()
    if kind == "step":
        return x[(slice(None),) * argument + (slice(None, None, 2),)]
    if kind == "unsqueeze":
        return x.unsqueeze(argument)
    return x.expand(2, *x.shape)


@few
@given(view_chains())
def test_chains_of_views(example):
    """Any chain of views reads what NumPy reads. Its gradient counts how often each element is read."""
    shape, steps = example
    array, x = numbered(shape, True)
    numbers = np.arange(array.size).reshape(shape)
    y = x
    for kind, argument in steps:
        y = on_tensor(y, kind, argument)
        array, numbers = on_numpy(array, kind, argument), on_numpy(numbers, kind, argument)
    np.testing.assert_array_equal(y.detach().numpy(), array)
    np.testing.assert_array_equal(y.detach().contiguous().numpy(), array)
    assert_close((y * 2).detach(), array * 2)
    assert_close(y.sum(0).detach(), array.sum(0))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy().reshape(-1), np.bincount(numbers.reshape(-1), minlength=math.prod(shape)))


@few
@given(shapes.filter(len), st.data())
def test_reductions(shape, data):
    """Sums and extremes over any set of dimensions are NumPy's."""
    array, x = numbered(shape)
    dims = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
    keepdim = data.draw(st.booleans())
    assert_close(x.sum(dims, keepdim=keepdim), array.sum(dims, keepdims=keepdim))
    if math.prod(shape[d] for d in dims):
        assert_close(x.amax(dims, keepdim=keepdim), array.max(dims, keepdims=keepdim))
        assert_close(x.mean(dims, keepdim=keepdim), array.mean(dims, keepdims=keepdim))


FUNCTIONS = [
    lambda x: x.exp(),
    lambda x: x * x,
    lambda x: x.t() @ x,
    lambda x: x.softmax(1),
    lambda x: x[1:, 0],
    lambda x: x.max(1).values,
    lambda x: x.tanh().cumsum(0),
    lambda x: rl.cat([x, x * 3]),
    lambda x: x.norm(),
]


@few
@given(st.lists(st.sampled_from(FUNCTIONS), min_size=1, max_size=6), st.booleans())
def test_gradients_add_up(functions, in_one_walk):
    """The gradient of a sum is the sum of the gradients, in one backward or in several that share an input."""
    expected = np.zeros((3, 4))
    for function in functions:
        _, x = numbered((3, 4), True)
        function(x).sum().backward()
        expected += x.grad.numpy()
    _, x = numbered((3, 4), True)
    shared = x * 1
    losses = [function(shared).sum() for function in functions]
    if in_one_walk:
        rl.stack(losses).sum().backward()
    else:
        for loss in losses:
            loss.backward(retain_graph=True)
    assert_close(x.grad, expected)
