"""Arguments that few programs give: refused as PyTorch refuses them, or with PyTorch's result."""

import warnings

import pytest

import rl_lab as rl
from rl_lab import nn
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.nn import functional as F

# --- attention -------------------------------------------------------------------------------------------------------

SEQUENCE = rl.ones(3, 2, 4)
CAUSAL = nn.Transformer.generate_square_subsequent_mask(3)
BLOCKS = {
    "attention": (
        lambda mask, causal: nn.MultiheadAttention(4, 2)(SEQUENCE, SEQUENCE, SEQUENCE, attn_mask=mask, is_causal=causal)[0]
    ),
    "encoder layer": (lambda mask, causal: nn.TransformerEncoderLayer(4, 2, 4)(SEQUENCE, mask, is_causal=causal)),
    "encoder": (
        lambda mask, causal: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4), 1)(SEQUENCE, mask, is_causal=causal)
    ),
    "decoder layer": (lambda mask, causal: nn.TransformerDecoderLayer(4, 2, 4)(SEQUENCE, SEQUENCE, mask, tgt_is_causal=causal)),
    "decoder": (
        lambda mask, causal: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 4), 1)(
            SEQUENCE, SEQUENCE, memory_mask=mask, memory_is_causal=causal
        )
    ),
    "transformer": (
        lambda mask, causal: nn.Transformer(4, 2, 1, 1, 4)(SEQUENCE, SEQUENCE, src_mask=mask, src_is_causal=causal)
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_is_causal_is_a_hint_about_a_mask(name):
    assert BLOCKS[name](CAUSAL, True).shape == (3, 2, 4)
    with pytest.raises(StateError, match="is_causal must come with attn_mask"):
        BLOCKS[name](None, True)


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 3, 3), (1, 3), (3, 1), (1, 4, 3, 3)])
def test_an_attention_mask_has_one_of_two_shapes(shape):
    layer = nn.MultiheadAttention(4, 2)
    assert layer(SEQUENCE, SEQUENCE, SEQUENCE, attn_mask=rl.zeros(4, 3, 3))[0].shape == (3, 2, 4)
    with pytest.raises(ShapeError, match=r"attn_mask must have shape \[3, 3\].*\[4, 3, 3\]"):
        layer(SEQUENCE, SEQUENCE, SEQUENCE, attn_mask=rl.zeros(shape))


# --- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [nn.ModuleDict, lambda shared: nn.ModuleList(shared.values())])
def test_a_shared_submodule_is_saved_under_every_name(make):
    layer = nn.Linear(2, 2, bias=False)
    both = make({"actor": layer, "critic": layer})
    names = ["actor", "critic"] if isinstance(both, nn.ModuleDict) else ["0", "1"]
    state = both.state_dict()
    assert list(state) == [f"{name}.weight" for name in names]
    assert [name for name, _ in both.named_children()] == names[:1]
    assert len(list(both.children())) == len(list(both.parameters())) == 1
    both.load_state_dict({name: rl.ones(2, 2) for name in state})
    assert layer.weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(StateError, match=f'Missing.*"{names[1]}.weight"'):
        both.load_state_dict({f"{names[0]}.weight": rl.ones(2, 2)})


@pytest.mark.parametrize(("shape", "dim"), [((), 0), ((3,), 0), ((2, 3), 1), ((2, 3, 2), 0), ((2, 3, 1, 2), 1)])
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Softmin"])
def test_softmax_without_a_dimension_takes_that_of_pytorch(name, shape, dim):
    x = rl.arange(rl.ones(shape).numel()).float().reshape(shape)
    function = getattr(F, {"LogSoftmax": "log_softmax"}.get(name, name.lower()))
    with pytest.warns(UserWarning, match=f"works along dimension {dim}: give dim"):
        assert getattr(nn, name)()(x).equal(function(x, dim))
    with pytest.warns(UserWarning, match="give dim"):
        assert function(x).equal(function(x, dim))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(nn, name)(dim)(x)


# --- arguments -------------------------------------------------------------------------------------------------------


def test_an_integer_to_a_negative_power():
    base = rl.tensor([0, 1, -1, 2, -1, -3, 3])
    assert (base ** rl.tensor([-1, -2, -3, -1, -2, -1, 2])).tolist() == [0, 1, -1, 0, 1, 0, 9]


X = rl.ones(2, 3)
CLASSES = rl.tensor([0, 2])
REFUSED = {
    "cross entropy averaged by size": (TypeError, "give reduction", lambda: F.cross_entropy(X, CLASSES, size_average=False)),
    "cross entropy reduced": (TypeError, "give reduction", lambda: F.cross_entropy(X, CLASSES, reduce=False)),
    "nll averaged by size": (TypeError, "give reduction", lambda: F.nll_loss(X, CLASSES, size_average=False)),
    "nll reduced": (TypeError, "give reduction", lambda: F.nll_loss(X, CLASSES, reduce=True)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
