"""Matrix products of every size and layout, in parts and with ends: exact where mathematics is, bitwise where it is promised."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.kernels.matmul import A_TRANSPOSED, B_TRANSPOSED, DOTS, DOTS_OF_COPY, PLAIN, SWAPPED, TILES, way_of
from rl_lab.engine.kernels.tiles import HEIGHTS, LANES, WIDTH

LAYOUTS = (PLAIN, B_TRANSPOSED, A_TRANSPOSED)
NEAR_EDGES = st.one_of(
    st.integers(1, 40),
    st.builds(
        lambda tile, times, more: max(1, tile * times + more),
        st.sampled_from((*HEIGHTS, WIDTH, 2 * WIDTH)),
        st.integers(1, 9),
        st.integers(-1, 1),
    ),
)


def product(layout, a, b):
    """a @ b through the memory that the layout reads."""
    left = rl.tensor(np.ascontiguousarray(a.T)).t() if layout == A_TRANSPOSED else rl.tensor(a)
    right = rl.tensor(np.ascontiguousarray(b.T)).t() if layout == B_TRANSPOSED else rl.tensor(b)
    return left @ right


@settings(max_examples=300, deadline=None)
@given(NEAR_EDGES, NEAR_EDGES, NEAR_EDGES, st.sampled_from(LAYOUTS), st.integers(0, 2**32 - 1))
def test_products_of_small_integers_are_exact(n, k, m, layout, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-9, 10, shape).astype(np.float32) for shape in ((n, k), (k, m)))
    np.testing.assert_array_equal(product(layout, a, b).numpy(), a.astype(np.float64) @ b.astype(np.float64))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("n", "k", "m"),
    [
        (128, 120, 84),
        (256, 256, 256),
        (97, 301, 130),
        (30, 200, 1100),
        (1030, 64, 64),
        (64, 1024, 64),
        (40, 600, 33),
        (32, 700, 130),
        (64, 300, 600),
    ],
)
def test_an_element_does_not_depend_on_the_parts(layout, n, k, m):
    """A product in parts, or in blocks, has the bits of the same rows multiplied alone."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal((n, k)).astype(np.float32)
    b = rng.standard_normal((k, m)).astype(np.float32)
    whole = product(layout, a, b).numpy()
    few = product(layout, a[:19], b).numpy()
    assert whole[:19].tobytes() == few.tobytes()
    np.testing.assert_allclose(whole, a.astype(np.float64) @ b.astype(np.float64), atol=2e-6 * k)


def rounded(x):
    """The float32 nearest to a fraction."""
    return np.float32(float(x))


def fused(a, b, c):
    """a * b + c, rounded once."""
    return rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def expected_sum(way, a, b):
    """The sum of the products of two vectors in the order of a way."""
    if way in (TILES, SWAPPED):
        total = np.float32(0)
        for x, y in zip(a, b, strict=True):
            total = fused(x, y, total)
        return total
    sums = [np.float32(0)] * LANES
    for p, (x, y) in enumerate(zip(a, b, strict=True)):
        sums[p % LANES] = fused(x, y, sums[p % LANES])
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [sums[i] + sums[i + half] for i in range(half)]
    return sums[0]


@pytest.mark.parametrize(
    ("layout", "n", "k", "m", "way"),
    [
        (PLAIN, 33, 300, 40, TILES),
        (B_TRANSPOSED, 40, 37, 18, DOTS),
        (B_TRANSPOSED, 40, 37, 26, TILES),
        (B_TRANSPOSED, 40, 150, 26, DOTS),
        (B_TRANSPOSED, 40, 150, 32, TILES),
        (B_TRANSPOSED, 3, 37, 18, DOTS),
        (B_TRANSPOSED, 9, 37, 50, TILES),
        (B_TRANSPOSED, 9, 57, 50, DOTS),
        (B_TRANSPOSED, 9, 9, 50, TILES),
        (PLAIN, 40, 150, 18, DOTS_OF_COPY),
        (PLAIN, 40, 150, 26, TILES),
        (A_TRANSPOSED, 40, 70, 18, SWAPPED),
        (B_TRANSPOSED, 40, 70, 2, DOTS),
        (PLAIN, 40, 70, 3, DOTS_OF_COPY),
        (PLAIN, 2, 70, 3, TILES),
        (A_TRANSPOSED, 40, 70, 3, SWAPPED),
        (A_TRANSPOSED, 2, 70, 3, TILES),
        (A_TRANSPOSED, 40, 1, 3, TILES),
        (B_TRANSPOSED, 2, 5, 3, TILES),
        (B_TRANSPOSED, 32, 512, 130, SWAPPED),
        (PLAIN, 32, 512, 130, SWAPPED),
    ],
)
def test_every_sum_has_one_order(layout, n, k, m, way):
    """The order follows from the shape, not from the width of the processor's vectors, so every processor gives the same bits."""
    assert way_of(layout, n, k, m) == way
    rng = np.random.default_rng(n + k + m)
    a = rng.standard_normal((n, k)).astype(np.float32)
    b = rng.standard_normal((k, m)).astype(np.float32)
    result = product(layout, a, b).numpy()
    for i, j in {(0, 0), (n - 1, m - 1), (n // 2, m // 2), (n - 1, 0)}:
        assert result[i, j] == expected_sum(way, a[i], b[:, j])


# --- ends: what a recorded program does to the sums before they leave the cache --------------------------------------


def launches_of(compiled):
    (program,) = compiled.programs
    return [launch.name for launch in program.launches]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("batch", "hidden"), [(5, 48), (64, 64), (128, 256)])
def test_activations_and_their_gradients_join_the_products(activation, batch, hidden):
    """Tiles, dot products and products in parts; the same bits as eagerly, in fewer launches."""
    stream = rl.Generator(3)
    layers = [rl.nn.Linear(a, b, generator=stream) for a, b in ((4, hidden), (hidden, hidden), (hidden, 2))]
    parameters = [p for layer in layers for p in layer.parameters()]

    def step(x):
        h = x
        for layer in layers[:-1]:
            h = getattr(layer(h), activation)()
        with rl.no_grad():
            value = getattr(layers[0](x), activation)().sum()
        for p in parameters:
            p.grad = None
        loss = (layers[-1](h) ** 2).sum() + value
        loss.backward()
        return loss

    compiled = rl.compile(step)
    for i in range(3):
        x = rl.randn(batch, 4, generator=rl.Generator(10 + i))
        expected = step(x).item(), [p.grad.numpy().tobytes() for p in parameters]
        assert (compiled(x).item(), [p.grad.numpy().tobytes() for p in parameters]) == expected
    names = launches_of(compiled)
    assert not {activation, f"{activation}_backward", "add_into"} & set(names)


@pytest.mark.parametrize("kept", ["returned", "read", "watched"])
def test_a_sum_that_is_still_needed_stays(kept):
    """z is returned, read by something else, or an input of the activation's gradient: the activation keeps a launch of its own."""
    layer = rl.nn.Linear(4, 8, generator=rl.Generator(0))

    @rl.no_grad()
    def step(x):
        z = layer(x)
        y = z.relu()
        if kept == "returned":
            return y, z
        if kept == "read":
            return y + z, y
        return y, (z > 0).sum()

    compiled = rl.compile(step)
    for i in range(2):
        x = rl.randn(16, 4, generator=rl.Generator(i))
        for mine, yours in zip(compiled(x), step(x), strict=True):
            assert mine.numpy().tobytes() == yours.numpy().tobytes()
    assert "relu" in launches_of(compiled)


def test_layers_of_equal_size_without_gradients():
    """Where each result could take the memory of the one before: the recording must not let it."""
    stream = rl.Generator(1)
    layers = [rl.nn.Linear(32, 32, generator=stream) for _ in range(4)]

    @rl.no_grad()
    def step(x):
        for layer in layers:
            x = layer(x).tanh()
        return x

    compiled = rl.compile(step)
    for i in range(3):
        x = rl.randn(32, 32, generator=rl.Generator(i))
        assert compiled(x).numpy().tobytes() == step(x).numpy().tobytes()
    assert launches_of(compiled) == ["matmul"] * 4


# --- convolutions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1])
def test_a_batch_without_samples_has_gradients_of_zero(padding):
    x = rl.zeros(0, 2, 5, 5, requires_grad=True)
    weight = rl.ones(7, 2, 3, 3, requires_grad=True)
    bias = rl.ones(7, requires_grad=True)
    y = F.conv2d(x, weight, bias, padding=padding)
    y.sum().backward()
    assert tuple(y.shape) == (0, 7, 3 + 2 * padding, 3 + 2 * padding)
    assert not weight.grad.numpy().any()
    assert not bias.grad.numpy().any()
    assert tuple(x.grad.shape) == (0, 2, 5, 5)


def convolved(x, weight, stride, padding, dilation, groups, g):
    """The convolution and its gradients, for the gradient g of the result, as arrays."""
    x, weight = (rl.tensor(v, requires_grad=True) for v in (x, weight))
    y = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    y.backward(rl.tensor(g))
    return y.detach().numpy(), x.grad.numpy(), weight.grad.numpy()


@pytest.mark.parametrize(
    ("shape", "weight", "stride", "padding", "dilation", "groups"),
    [
        ((3, 4, 20, 20), (32, 4, 8, 8), 4, 0, 1, 1),  # many filters, few channels
        ((2, 32, 9, 8), (64, 32, 4, 3), 2, 1, 1, 1),
        ((9, 64, 7, 7), (64, 32, 3, 3), 1, 0, 1, 2),
        ((2, 30, 6, 6), (26, 30, 3, 2), 1, (1, 0), 1, 1),  # panels that are not full
        ((5, 96, 3, 3), (100, 96, 3, 3), 1, 0, 1, 1),  # results of one pixel
        ((3, 4, 30, 31), (32, 4, 3, 3), 1, 0, 1, 1),  # many pixels
        ((2, 32, 9, 9), (32, 32, 3, 3), 1, 2, 2, 1),
        ((4, 5, 12, 12), (6, 5, 3, 3), 2, 1, 1, 1),  # few filters
    ],
)
def test_convolutions_of_small_integers_are_exact(shape, weight, stride, padding, dilation, groups):
    """Whichever kernel the shape chooses. The gradients are those of the trilinear form, found from its value."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, s).astype(np.float32) for s in (shape, weight))
    edge = np.broadcast_to(padding, 2)
    oh, ow = ((s + 2 * p - dilation * (k - 1) - 1) // stride + 1 for s, k, p in zip(shape[2:], weight[2:], edge, strict=True))
    g = rng.integers(-3, 4, (shape[0], weight[0], oh, ow)).astype(np.float32)
    y, to_x, to_w = convolved(x, w, stride, padding, dilation, groups, g)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (edge[0],) * 2, (edge[1],) * 2))
    expected_y = np.zeros(y.shape)
    expected_x = np.zeros(padded.shape)
    expected_w = np.zeros(w.shape)
    filters = weight[0] // groups
    channels = weight[1]
    for group in range(groups):
        of_f = slice(group * filters, (group + 1) * filters)
        of_c = slice(group * channels, (group + 1) * channels)
        for i in range(weight[2]):
            for j in range(weight[3]):
                rows = slice(i * dilation, i * dilation + (oh - 1) * stride + 1, stride)
                columns = slice(j * dilation, j * dilation + (ow - 1) * stride + 1, stride)
                window = (slice(None), of_c, rows, columns)
                expected_y[:, of_f] += np.einsum("ncyx,fc->nfyx", padded[window], w[of_f, :, i, j])
                expected_x[window] += np.einsum("nfyx,fc->ncyx", g[:, of_f], w[of_f, :, i, j])
                expected_w[of_f, :, i, j] = np.einsum("ncyx,nfyx->fc", padded[window], g[:, of_f])
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(to_x, expected_x[:, :, edge[0] : edge[0] + shape[2], edge[1] : edge[1] + shape[3]])
    np.testing.assert_array_equal(to_w, expected_w)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("batch", [1, 3, 48])
@pytest.mark.parametrize("filters", [6, 32])
@pytest.mark.parametrize("window", [{}, {"stride": 2}, {"padding": 1}])
def test_activations_and_their_gradients_join_convolutions(activation, batch, filters, window):
    """Narrow and wide kernels, in one part and in several; the same bits as eagerly, also for NaN and infinite numbers."""
    stream = rl.Generator(3)
    layers = [rl.nn.Conv2d(a, filters, 3, generator=stream, **window) for a in (3, filters, filters)]
    parameters = [p for layer in layers for p in layer.parameters()]

    def step(x):
        h = x
        for layer in layers:
            h = getattr(layer(h), activation)()
        for p in parameters:
            p.grad = None
        loss = (h**2).sum()
        loss.backward()
        return loss, h

    compiled = rl.compile(step)
    for i in range(4):
        x = rl.randn(batch, 3, 21, 19, generator=rl.Generator(10 + i))
        if i == 3:
            x[0, 0, 0, 0], x[-1, 1, 9, 9] = float("nan"), float("inf")
        expected = [t.detach().numpy().tobytes() for t in step(x)] + [p.grad.numpy().tobytes() for p in parameters]
        assert [t.detach().numpy().tobytes() for t in compiled(x)] + [p.grad.numpy().tobytes() for p in parameters] == expected
    names = launches_of(compiled)
    assert activation not in names
    assert names.count(f"{activation}_backward") == 1  # that of the last layer, whose gradient no convolution makes


def test_a_convolution_without_bias_or_with_another_use_joins_nothing():
    stream = rl.Generator(3)
    plain = rl.nn.Conv2d(3, 6, 3, bias=False, generator=stream)
    used = rl.nn.Conv2d(3, 6, 3, generator=stream)

    @rl.compile
    @rl.no_grad()
    def run(x):
        z = used(x)
        return plain(x).relu(), z, z.relu()

    x = rl.randn(2, 3, 9, 9, generator=stream)
    for _ in range(3):
        a, z, b = run(x)
        with rl.no_grad():
            assert [a.tolist(), z.tolist(), b.tolist()] == [t.tolist() for t in (plain(x).relu(), used(x), used(x).relu())]
    assert launches_of(run).count("relu") == 2
