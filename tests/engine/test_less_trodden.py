"""Arguments that few programs give: refused as PyTorch refuses them, or with PyTorch's result."""

import operator
import warnings

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import nn, optim
from rl_lab.engine.errors import DtypeError, EagerWarning, ShapeError, StateError
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


# --- bools -----------------------------------------------------------------------------------------------------------

MASK = rl.tensor([True, False])
BOOL_ARITHMETIC = {
    "1 - mask": lambda: 1.0 - MASK,
    "mask - 1": lambda: MASK - 1,
    "mask - mask": lambda: MASK - MASK,
    "float - mask": lambda: rl.ones(2) - MASK,
    "mask - float": lambda: MASK - rl.ones(2),
    "int - mask": lambda: CLASSES - MASK,
    "float - True": lambda: rl.ones(2) - True,
    "float - an array": lambda: rl.ones(2) - np.array([True, False]),
    "alpha": lambda: rl.sub(rl.ones(2), MASK, alpha=2),
    "sub_": lambda: rl.ones(2).sub_(MASK),
    "-mask": lambda: -MASK,
    "neg": lambda: rl.neg(MASK),
}


@pytest.mark.parametrize("name", BOOL_ARITHMETIC)
def test_bools_are_not_subtracted(name):
    with pytest.raises(DtypeError, match=r"use ~x or x\.logical_not\(\)"):
        BOOL_ARITHMETIC[name]()


# --- optimisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax"])
@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999)])
def test_betas_are_two_numbers(name, betas):
    with pytest.raises(ValueError, match="betas must be two numbers"):
        getattr(optim, name)([nn.Parameter(rl.ones(1))], betas=betas)


class Heavy(optim.Optimizer):
    """Gradient descent with momentum, written as for PyTorch."""

    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})

    @rl.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["velocity"] = rl.zeros_like(p)
                state["step"] += 1
                state["velocity"].mul_(0.5).add_(p.grad)
                p.sub_(state["velocity"] * group["lr"])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_custom_optimizer_keeps_its_state(compiled):
    def train(parameter, optimizer, steps):
        def step():
            optimizer.zero_grad()
            (parameter * rl.tensor([1.0, 2.0])).sum().backward()
            optimizer.step()

        run = rl.compile(step) if compiled else step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerWarning)
            for _ in range(steps):
                run()

    first, second = (nn.Parameter(rl.zeros(2)) for _ in range(2))
    one, two = Heavy([first]), Heavy([second])
    assert two.state[second] == {}
    train(first, one, 3)
    assert first.tolist() == [-2.125, -4.25]
    assert one.state[first]["velocity"].tolist() == [1.75, 3.5]
    two.load_state_dict(one.state_dict())
    second.data.copy_(first.data)
    for parameter, optimizer in ((first, one), (second, two)):
        train(parameter, optimizer, 2)
        assert optimizer.state[parameter]["step"] == 5
    assert first.tolist() == second.tolist() == [-4.03125, -8.0625]


# --- forms of calls --------------------------------------------------------------------------------------------------


def test_where_of_a_condition_gives_its_places():
    for condition in (rl.tensor([[True, False], [True, True]]), rl.tensor([[3.0, 0.0], [1.0, 2.0]])):
        assert [x.tolist() for x in rl.where(condition)] == [[0, 1, 1], [0, 0, 1]]


def test_a_number_is_formatted_as_a_number():
    x = rl.tensor(1.5, requires_grad=True)
    assert f"{x}" == "1.5"
    assert f"{x:.3f} {rl.tensor(7):03d} {rl.tensor(True)}" == "1.500 007 True"
    assert f"{rl.ones(1)}" == repr(rl.ones(1))
    assert f"{nn.Parameter(rl.tensor(1.5))}".startswith("Parameter containing")
    with pytest.raises(TypeError, match="format"):
        f"{rl.ones(2):.3f}"


def test_plus_is_the_tensor_itself():
    x = rl.ones(2)
    assert +x is x
    with pytest.raises(DtypeError, match="positive"):
        operator.pos(MASK)


def test_identity_ignores_its_arguments():
    assert nn.Identity(54, unused=1)(X) is X


def test_repeat_interleave_of_counts_gives_positions():
    assert rl.repeat_interleave(rl.tensor([2, 0, 3])).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize(("arguments", "named"), [((), {"high": 3}), ((3,), {}), ((0, 3), {}), ((), {"low": 0, "high": 3})])
def test_randint_takes_its_bounds_by_name(arguments, named):
    found = rl.randint(*arguments, size=(50,), **named)
    assert found.shape == (50,)
    assert 0 <= found.min().item() <= found.max().item() <= 2


@pytest.mark.parametrize(
    ("cuts", "parts"),
    [((4, 2), [[0, 1, 2, 3], [], [2, 3, 4, 5]]), ((-2,), [[0, 1, 2, 3], [4, 5]]), ((2, 9), [[0, 1], [2, 3, 4, 5], []])],
)
def test_tensor_split_cuts_as_slices_do(cuts, parts):
    x = rl.arange(6)
    assert [part.tolist() for part in x.tensor_split(cuts)] == parts
    assert [part.tolist() for part in rl.stack([x, x], 1).tensor_split(cuts)] == [[[k, k] for k in part] for part in parts]


def test_the_median_of_no_floats_is_nan():
    for function in (rl.median, rl.nanmedian):
        assert np.isnan(function(rl.zeros(0)).item())
        with pytest.raises(IndexError):
            function(rl.zeros(0), 0)


def test_the_nuclear_norm():
    x = rl.tensor([[3.0, 0.0], [0.0, -4.0]])
    assert rl.linalg.norm(x, "nuc").item() == pytest.approx(7.0)
    assert rl.linalg.matrix_norm(x.reshape(1, 2, 2), "nuc").tolist() == pytest.approx([7.0])


FORMS = {
    "broadcast_to of numbers": (TypeError, r"write broadcast_to\(\(2, 3\)\)", lambda: X.broadcast_to(2, 3)),
    "einsum of lists": (TypeError, "equation as text", lambda: rl.einsum(X, [0, 1], X, [0, 1], [0])),
    "batchmean of a scalar": (ShapeError, "needs a batch", lambda: F.kl_div(X[0, 0], X[0, 0], reduction="batchmean")),
    "where with one side": (TypeError, "both or neither", lambda: rl.where(MASK, 1.0)),
    "randint without a bound": (ValueError, "low < high", lambda: rl.randint(size=(2,))),
    "randint without a size": (TypeError, "needs a size", lambda: rl.randint(3)),
    "nuclear norm": (ValueError, "use linalg.matrix_norm", lambda: X.norm("nuc")),
    "linalg.norm of a vector": (ValueError, "takes a number", lambda: rl.linalg.norm(X[0], "nuc")),
}


@pytest.mark.parametrize("name", FORMS)
def test_refused_forms(name):
    error, message, call = FORMS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(100_000, 2), (300_001, 3), (2, 50_000, 2)])
def test_sums_of_many_rows_are_accurate(shape):
    x = rl.rand(shape, generator=rl.Generator().manual_seed(0))
    wide = x.numpy().astype(np.float64)
    for found, expected in (
        (x.sum(-2), wide.sum(-2)),
        (x.mean(-2), wide.mean(-2)),
        (x.logsumexp(-2), np.log(np.exp(wide).sum(-2))),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=5e-7)
    weight = rl.ones(shape[-1], requires_grad=True)
    (x * weight).sum().backward()
    np.testing.assert_allclose(weight.grad.numpy(), wide.reshape(-1, shape[-1]).sum(0), rtol=5e-7)


def test_the_fused_gradient_has_the_bits_of_a_sum_of_many_rows():
    x, g = (rl.rand((1000, 5), generator=rl.Generator().manual_seed(seed)) for seed in (0, 1))
    weight = rl.ones(5, requires_grad=True)
    (x * weight).backward(g)
    assert weight.grad.tolist() == (g * x).sum(0).tolist()
