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
    "multilabel soft margin": (ShapeError, "the same shape", lambda: F.multilabel_soft_margin_loss(X, X[:1])),
    "flatten backwards": (ShapeError, "must not come after", lambda: X.flatten(1, 0)),
    "Flatten backwards": (ShapeError, "must not come after", lambda: nn.Flatten(-1, 0)(X)),
    "a variance per column": (ShapeError, "var must have", lambda: F.gaussian_nll_loss(X, X, X[0])),
    "a single variance": (ShapeError, "var must have", lambda: F.gaussian_nll_loss(X, X, rl.ones(1, 1))),
    "a wide weight of bce": (ShapeError, "weight must broadcast", lambda: F.binary_cross_entropy(X[:1], X[:1], X)),
    "a wide weight": (ShapeError, "weight must", lambda: F.binary_cross_entropy_with_logits(X[:1], X[:1], X)),
    "a wide pos_weight": (
        ShapeError,
        "pos_weight must",
        lambda: F.binary_cross_entropy_with_logits(X[:1], X[:1], pos_weight=X),
    ),
    "bmm of two batch sizes": (ShapeError, "one size", lambda: rl.ones(1, 2, 3).bmm(rl.ones(4, 3, 2))),
    "outer of matrices": (ShapeError, "two vectors", lambda: rl.outer(X, X[0])),
    "bilinear of two batch sizes": (ShapeError, "last dimension only", lambda: nn.Bilinear(3, 3, 2)(X, X[:1])),
    "addmm_ of a batch": (ShapeError, "input must broadcast", lambda: rl.ones(1, 2, 3).addmm_(rl.ones(2, 2), X)),
    "addmm of a batch": (ShapeError, "input must broadcast", lambda: rl.addmm(rl.ones(4, 2, 3), rl.ones(2, 2), X)),
    "addmv of a matrix": (ShapeError, "input must broadcast", lambda: rl.addmv(rl.ones(2, 2), rl.ones(2, 2), rl.ones(2))),
    "addr of a batch": (ShapeError, "input must broadcast", lambda: rl.addr(rl.ones(1, 2, 2), rl.ones(2), rl.ones(2))),
    "a target above 1": (ValueError, r"not in \[0, 1\]", lambda: F.binary_cross_entropy(X, X + 1)),
    "label smoothing above 1": (ValueError, "label_smoothing", lambda: F.cross_entropy(X, CLASSES, label_smoothing=1.5)),
    "negative label smoothing": (ValueError, "label_smoothing", lambda: F.cross_entropy(X, CLASSES, label_smoothing=-0.5)),
    "ignored probabilities": (ValueError, "ignore_index", lambda: F.cross_entropy(X, X, ignore_index=0)),
    "a margin of 0": (ValueError, "margin must be positive", lambda: F.triplet_margin_loss(X, X, X, margin=0)),
    "a distance margin of 0": (ValueError, "margin", lambda: F.triplet_margin_with_distance_loss(X, X, X, margin=0)),
    "a module with margin 0": (ValueError, "margin must be positive", lambda: nn.TripletMarginLoss(margin=0)),
    "another with margin 0": (ValueError, "margin", lambda: nn.TripletMarginWithDistanceLoss(margin=-1)),
    "a negative rate": (ValueError, "rate is negative", lambda: rl.poisson(rl.tensor([1.0, -1.0]))),
    "a negative order": (ValueError, "n must not be negative", lambda: rl.diff(X, n=-1)),
    "PReLU without channels": (ShapeError, "prelu takes a weight", lambda: nn.PReLU(3)(X[0])),
    "prelu of other channels": (ShapeError, "prelu takes a weight", lambda: X.prelu(rl.ones(2))),
    "prelu by a matrix": (ShapeError, "prelu takes a weight", lambda: X.prelu(rl.ones(1, 3))),
    "masked_fill with a vector": (ShapeError, "masked_fill takes a number", lambda: X.masked_fill(X > 0, rl.ones(1))),
    "fill_ with a vector": (ShapeError, "fill_ takes a number", lambda: rl.ones(2).fill_(rl.ones(1))),
    "index_fill with a vector": (ShapeError, "index_fill takes a number", lambda: X.index_fill(0, CLASSES[:1], rl.ones(1))),
    "both sides": (ValueError, "side must be", lambda: rl.searchsorted(X[0], X[0], side="left", right=True)),
    "an unknown side": (ValueError, "side must be", lambda: rl.searchsorted(X[0], X[0], side="up")),
    "other sequences": (ShapeError, "searchsorted takes a vector", lambda: rl.searchsorted(X, rl.ones(1, 3))),
    "a number in sequences": (ShapeError, "searchsorted takes a vector", lambda: rl.searchsorted(X, 1.0)),
    "a short sorter": (ShapeError, "sorter must have", lambda: rl.searchsorted(X[0], X[0], sorter=CLASSES)),
    "two rows of boundaries": (ShapeError, "boundaries must be a vector", lambda: rl.bucketize(X, X)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("make", [nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_state_has_a_batch_exactly_if_the_input_has_one(make):
    cell = make.__name__.endswith("Cell")
    layer = make(3, 4)
    single, batch = (rl.ones(3), rl.ones(1, 3)) if cell else (rl.ones(5, 3), rl.ones(5, 1, 3))
    of_single, of_batch = (rl.ones(4), rl.ones(1, 4)) if cell else (rl.ones(1, 4), rl.ones(1, 1, 4))

    def run(x, state):
        return layer(x, (state, state) if "LSTM" in make.__name__ else state)

    run(single, of_single)
    run(batch, of_batch)
    for x, state in ((single, of_batch), (batch, of_single)):
        with pytest.raises(ShapeError, match="needs a state of shape"):
            run(x, state)


def test_prelu_has_one_weight_per_channel():
    x = rl.tensor([[[-1.0, 2.0], [-3.0, -4.0], [5.0, -6.0]]])
    expected = [[[-10.0, 2.0], [-60.0, -80.0], [5.0, -180.0]]]
    weight = rl.tensor([10.0, 20.0, 30.0])
    assert x.prelu(weight).tolist() == F.prelu(x, weight).tolist() == expected
    assert rl.tensor(-1.0).prelu(rl.tensor([0.5])).tolist() == -0.5


def test_a_variance_may_have_one_dimension_of_size_1():
    for shape in ((2, 3), (2,), (2, 1), (1, 3)):
        assert F.gaussian_nll_loss(X, X, rl.ones(shape)).item() == 0.0


def test_searchsorted_in_rows():
    rows = rl.tensor([[1.0, 3.0], [2.0, 4.0]])
    assert rl.searchsorted(rows, rl.tensor([[0.0, 3.0, 5.0], [2.0, 3.0, 9.0]]), side="right").tolist() == [[0, 2, 2], [1, 1, 2]]
