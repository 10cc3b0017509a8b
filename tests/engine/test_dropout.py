"""The forms of dropout: which elements are dropped together, what is kept, and in whose memory the result is."""

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn
from rl_lab.errors import ShapeError

LAYERS = {
    nn.Dropout1d: (F.dropout1d, (8, 50, 4)),
    nn.Dropout2d: (F.dropout2d, (8, 50, 2, 3)),
    nn.Dropout3d: (F.dropout3d, (8, 50, 2, 1, 3)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_whole_channels_are_dropped(layer):
    function, shape = LAYERS[layer]
    for result in (layer(0.25)(rl.ones(shape)), function(rl.ones(shape), 0.25)):
        rows = result.numpy().reshape(shape[0] * shape[1], -1)
        assert (rows == rows[:, :1]).all()
        np.testing.assert_allclose(np.unique(rows), [0.0, 4.0 / 3.0], rtol=1e-6)
        assert 0.1 < (rows[:, 0] == 0).mean() < 0.4
    x = rl.ones(shape)
    assert layer(0.25).eval()(x) is x
    single = function(rl.ones(shape[1:]), 0.5).numpy().reshape(shape[1], -1)
    assert (single == single[:, :1]).all()
    with pytest.raises(ShapeError):
        function(rl.ones(2), 0.5)


@pytest.mark.parametrize("layer", [nn.Dropout, *LAYERS, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_inplace_writes_into_the_input(layer):
    shape = LAYERS.get(layer, (None, (8, 50)))[1]
    x = rl.ones(shape)
    y = layer(0.5, inplace=True)(x)
    assert y.data_ptr() == x.data_ptr()
    assert len(np.unique(x.numpy())) == 2
    leaf = rl.ones(shape, requires_grad=True)
    hidden = leaf * 1.0
    out = layer(0.5, inplace=True)(hidden)
    out.sum().backward()
    kept = out.detach().numpy() == out.detach().numpy().max()
    assert (leaf.grad.numpy()[kept] > 0).all()
    assert (leaf.grad.numpy()[~kept] == 0).all()
    assert "inplace=True" in repr(layer(0.5, inplace=True))
    with pytest.raises(ValueError, match="probability"):
        layer(1.5)


def test_alpha_dropout_keeps_mean_and_variance():
    x = rl.nn.functional.selu(rl.randn(400, 500, generator=rl.Generator(1)))
    for p in (0.1, 0.3):
        y = nn.AlphaDropout(p)(x)
        assert abs(y.mean().item() - x.mean().item()) < 0.02
        assert abs(y.std().item() - x.std().item()) < 0.03
    assert F.alpha_dropout(x, 0.5) is x  # training is False by default, as in PyTorch
    rows = F.feature_alpha_dropout(rl.ones(20, 30, 4), 0.5, True).numpy().reshape(600, 4)
    assert (rows == rows[:, :1]).all()
    assert not F.alpha_dropout(rl.ones(5), 1.0, True).any()


def test_rrelu_draws_slopes_in_training():
    x = -rl.ones(1000)
    y = nn.RReLU(0.1, 0.3)(x).numpy()
    assert -0.3 <= y.min() < -0.28
    assert -0.12 < y.max() <= -0.1
    np.testing.assert_allclose(nn.RReLU(0.1, 0.3).eval()(x).numpy(), -0.2, rtol=1e-6)
    z = -rl.ones(4)
    assert F.rrelu_(z, training=True) is z
