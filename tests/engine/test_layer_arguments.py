"""Settings of layers by PyTorch's names: padding modes, sizes of transposed convolutions, norms without a bias, given tables."""

import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn

DIMENSIONS = {1: (nn.Conv1d, F.conv1d), 2: (nn.Conv2d, F.conv2d), 3: (nn.Conv3d, F.conv3d)}


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank", DIMENSIONS)
@pytest.mark.parametrize("padding", [1, 2, "same", "valid", 0])
def test_a_padding_mode_pads_before_the_convolution(mode, rank, padding):
    kind, function = DIMENSIONS[rank]
    layer = kind(2, 3, 3, padding=padding, padding_mode=mode, generator=rl.Generator(1))
    x = rl.rand(2, 2, *[5] * rank, generator=rl.Generator(2))
    side = {"same": 1, "valid": 0}.get(padding, padding)
    wanted = function(F.pad(x, [side] * 2 * rank, mode) if side else x, layer.weight, layer.bias)
    assert layer(x).tolist() == wanted.tolist()
    zeros = kind(2, 3, 3, padding=padding, padding_mode="zeros")
    zeros.load_state_dict(layer.state_dict())
    assert zeros(x).tolist() == function(x, layer.weight, layer.bias, padding=padding).tolist()


def test_same_padding_of_an_even_kernel_is_longer_at_the_end():
    layer = nn.Conv1d(1, 1, 4, padding="same", padding_mode="circular", bias=False)
    with rl.no_grad():
        layer.weight.fill_(1.0)
    assert layer(rl.arange(5).float().view(1, 1, 5)).flatten().tolist() == [7.0, 6.0, 10.0, 9.0, 8.0]


@pytest.mark.parametrize("mode", ["zero", "reflection", None])
def test_other_padding_modes_are_refused(mode):
    with pytest.raises(ValueError, match="padding_mode must be one of zeros, reflect, replicate, circular"):
        nn.Conv2d(1, 1, 3, padding_mode=mode)
    with pytest.raises(ValueError, match="padding_mode must be one of zeros, got"):
        nn.ConvTranspose2d(1, 1, 3, padding_mode="circular")


@pytest.mark.parametrize(("kind", "rank"), [(nn.ConvTranspose1d, 1), (nn.ConvTranspose2d, 2), (nn.ConvTranspose3d, 3)])
def test_a_transposed_convolution_gives_the_size_that_is_asked_for(kind, rank):
    layer = kind(1, 1, 3, stride=2, padding=1)
    x = rl.rand(1, 1, *[4] * rank)
    assert tuple(layer(x).shape[2:]) == (7,) * rank
    for size in ([8] * rank, [1, 1, *[8] * rank]):
        assert tuple(layer(x, output_size=size).shape[2:]) == (8,) * rank
    with pytest.raises(ValueError, match="is not to be had"):
        layer(x, output_size=[9] * rank)
    assert (layer(x, output_size=[7] * rank) == layer(x)).all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4, bias=False), nn.BatchNorm2d(4, bias=False), nn.BatchNorm3d(4, bias=False), nn.GroupNorm(2, 4, bias=False),
        nn.InstanceNorm1d(4, affine=True, bias=False), nn.InstanceNorm2d(4, affine=True, bias=False),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_norm_without_a_bias(layer):
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    rank = {"1d": 3, "2d": 4, "3d": 5}.get(type(layer).__name__[-2:], 3)
    x = rl.rand(3, 4, *[5] * (rank - 2), generator=rl.Generator(1))
    other = type(layer)(2, 4) if isinstance(layer, nn.GroupNorm) else type(layer)(4, affine=True)
    assert layer(x).tolist() == other(x).tolist()
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_a_table_may_be_given_and_frozen():
    table = rl.arange(6).float().view(3, 2)
    layer = nn.Embedding(3, 2, _weight=table, _freeze=True)
    assert layer(rl.tensor([2])).tolist() == [[4.0, 5.0]]
    assert not layer.weight.requires_grad
    assert nn.Embedding(3, 2, _weight=table).weight.requires_grad
    assert nn.Embedding.from_pretrained(table, freeze=False, padding_idx=1).weight.requires_grad
    with pytest.raises(rl.errors.ShapeError, match="_weight has shape"):
        nn.Embedding(4, 2, _weight=table)
    for wrong in ({"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}):
        with pytest.raises(ValueError, match="Embedding"):
            nn.Embedding(3, 2, **wrong)
        with pytest.raises(ValueError, match="Embedding"):
            nn.Embedding.from_pretrained(table, **wrong)
