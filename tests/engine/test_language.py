"""Bags of embeddings, losses without alignment, and modules that learn their size: settings, limits and recorded calls.

`cases_functions.py` and `modules.py` compare their values and gradients with PyTorch.
"""

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn
from rl_lab.errors import DtypeError, ShapeError, StateError

TABLE = rl.tensor(np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32))
ROWS = rl.tensor([3, 0, 2, 0])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_every_form_are_the_same(mode):
    """A vector with offsets, with the last offset, and a matrix; empty bags at the beginning, in the middle and at the end."""
    pairs = F.embedding_bag(ROWS.reshape(2, 2), TABLE, mode=mode)
    assert F.embedding_bag(ROWS, TABLE, rl.tensor([0, 2]), mode=mode).equal(pairs)
    assert F.embedding_bag(ROWS, TABLE, rl.tensor([0, 2, 4]), mode=mode, include_last_offset=True).equal(pairs)
    empty = F.embedding_bag(ROWS, TABLE, rl.tensor([0, 0, 2, 2, 4]), mode=mode)
    assert empty[[1, 3]].equal(pairs)
    assert not empty[[0, 2, 4]].any()
    module = nn.EmbeddingBag.from_pretrained(TABLE, mode=mode)
    assert module(ROWS.reshape(2, 2)).equal(pairs)
    assert not module.weight.requires_grad
    ignored = F.embedding_bag(rl.tensor([[1, 0], [1, 1]]), TABLE, mode=mode, padding_idx=1)
    assert ignored[0].equal(TABLE[0])
    assert not ignored[1].any()


@pytest.mark.parametrize(
    ("error", "arguments", "options"),
    [
        (IndexError, (rl.tensor([[5]]), TABLE), {}),
        (IndexError, (ROWS, TABLE, rl.tensor([0, 5])), {}),
        (IndexError, (ROWS, TABLE, rl.tensor([1, 2])), {}),
        (ShapeError, (ROWS, TABLE), {}),
        (ShapeError, (ROWS.reshape(2, 2), TABLE, rl.tensor([0])), {}),
        (DtypeError, (ROWS.float(), TABLE, rl.tensor([0])), {}),
        (ValueError, (ROWS, TABLE, rl.tensor([0])), {"mode": "median"}),
        (ValueError, (ROWS, TABLE, rl.tensor([0])), {"per_sample_weights": rl.ones(4)}),
        (ValueError, (ROWS, TABLE, rl.tensor([0])), {"max_norm": 1.0}),
        (ValueError, (ROWS, TABLE, rl.tensor([0])), {"sparse": True}),
    ],
)
def test_bags_that_do_not_fit(error, arguments, options):
    with pytest.raises(error):
        F.embedding_bag(*arguments, **options)


def test_a_recorded_step_with_bags_and_a_loss_without_alignment():
    """Training that is recorded gives the bits of eager training, though offsets and lengths change between the calls."""

    def trained(compiled: bool) -> bytes:
        bag, head = nn.EmbeddingBag(6, 4, mode="max", generator=rl.Generator(1)), nn.Linear(4, 3, generator=rl.Generator(2))
        optimizer = rl.optim.Adafactor([*bag.parameters(), *head.parameters()], lr=0.1)

        def step(rows, offsets, targets, lengths):
            scores = head(bag(rows, offsets)).reshape(5, 2, 3).log_softmax(2)
            loss = F.ctc_loss(scores, targets, rl.tensor([5, 5]), lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = rl.compile(step) if compiled else step
        for k in range(4):
            rows = rl.arange(14) * (k + 1) % 6
            offsets = rl.tensor([0, 1, 1, 3, 4, 6, 8, 10 + k % 3, 13, 13])
            run(rows, offsets, rl.tensor([[1, 2], [2, 1]]), rl.tensor([2, 1 + k % 2]))
        assert not compiled or len(run.programs) == 1
        return rl.cat([bag.weight.flatten(), head.weight.flatten()]).detach().numpy().tobytes()

    assert trained(True) == trained(False)


SCORES = rl.tensor(np.random.default_rng(2).normal(size=(4, 2, 3)).astype(np.float32)).log_softmax(2)
TARGETS = rl.tensor([[1, 2], [1, 1]])


def test_targets_that_do_not_fit_into_their_time_steps():
    scores = SCORES.clone().requires_grad_()
    losses = F.ctc_loss(scores, TARGETS, (4, 2), (2, 2), reduction="none")
    assert losses.isfinite().tolist() == [True, False]  # 1, 1 needs a blank in between
    losses = F.ctc_loss(scores, TARGETS, (4, 2), (2, 2), reduction="none", zero_infinity=True)
    assert losses[1].item() == 0.0
    for create_graph in (False, True):
        gradient = rl.autograd.grad(losses.sum(), scores, retain_graph=True, create_graph=create_graph)[0]
        assert gradient[:, 0].isfinite().all()
        assert not gradient[:, 1].any()
    alone = F.ctc_loss(SCORES[:, 0], TARGETS[0], 4, 2)
    assert alone.shape == ()
    assert alone.allclose(F.ctc_loss(SCORES[:, :1], TARGETS[:1], (4,), (2,)))


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (IndexError, (SCORES, TARGETS, (5, 4), (2, 2))),
        (IndexError, (SCORES, TARGETS, (4, 4), (3, 2))),
        (IndexError, (SCORES, TARGETS + 1, (4, 4), (2, 2))),
        (ShapeError, (SCORES, TARGETS, (4,), (2, 2))),
        (ShapeError, (SCORES, TARGETS[:1], (4, 4), (2, 2))),
        (DtypeError, (SCORES, TARGETS.float(), (4, 4), (2, 2))),
        (ValueError, (SCORES, TARGETS, (4, 4), (2, 2), 3)),
        (ValueError, (SCORES, TARGETS, (4, 4), (2, 2), 0, "median")),
    ],
)
def test_sequences_that_do_not_fit(error, arguments):
    with pytest.raises(error):
        F.ctc_loss(*arguments)


def test_a_softmax_over_many_classes_is_a_distribution():
    softmax = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0)
    rows = rl.randn(6, 8)
    assert softmax.log_prob(rows).exp().sum(1).allclose(rl.ones(6))
    assert softmax.predict(rows).equal(softmax.log_prob(rows).argmax(1))
    output, loss = softmax(rows[0], rl.tensor(19))
    assert output.item() == -loss.item() == softmax.log_prob(rows[0])[19].item()
    with pytest.raises(IndexError):
        softmax(rows, rl.full((6,), 20))
    for cutoffs in ([], [0, 3], [3, 3], [5, 3], [20]):
        with pytest.raises(ValueError, match="cutoffs"):
            nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs)


# --- modules that learn their size -------------------------------------------------------------------------------------------

SIZES = {"Linear": (4, 6), "1d": (2, 6, 5), "2d": (2, 6, 5, 5), "3d": (2, 6, 4, 4, 4)}
LAZY = sorted(name for name in nn.__all__ if name.startswith("Lazy"))


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_module_becomes_the_plain_one(name):
    plain = getattr(nn, name[4:])
    options = {"generator": rl.Generator(3)} if "Conv" in name or "Linear" in name else {"affine": True}
    arguments = (8, 2) if "Conv" in name else (8,) if "Linear" in name else ()
    lazy = getattr(nn, name)(*arguments, **options)
    assert isinstance(lazy, plain)
    optimizer = rl.optim.SGD(lazy.parameters(), lr=0.1)
    rows = rl.randn(*SIZES[name[-2:] if name[-1] == "d" else "Linear"])
    with pytest.raises(StateError, match="once before compiling"):
        rl.compile(lazy)(rows)
    with pytest.raises(ShapeError):
        lazy(rl.ones(()))
    assert type(lazy) is not plain
    if "generator" in options:
        options = {"generator": rl.Generator(3)}
    made = plain(6, *arguments, **options)
    result = lazy(rows)
    assert type(lazy) is plain
    assert result.equal(made(rows))
    assert str(lazy) == str(made)
    assert [(k, v.tolist()) for k, v in lazy.state_dict().items()] == [(k, v.tolist()) for k, v in made.state_dict().items()]
    (result**3).sum().backward()
    before = [p.detach().clone() for p in lazy.parameters()]
    optimizer.step()
    assert all(not p.equal(old) for p, old in zip(lazy.parameters(), before, strict=True))


def test_a_lazy_module_refuses_arguments_at_once_and_draws_no_number():
    with pytest.raises(ShapeError):
        nn.LazyConv2d(3, 3, groups=2)
    with pytest.raises(TypeError):
        nn.LazyBatchNorm1d(eps=1e-5, no_such=1)
    rl.manual_seed(5)
    nn.LazyConv1d(4, 2)
    first = rl.rand(1)
    rl.manual_seed(5)
    assert rl.rand(1).equal(first)


def test_shapes_that_change_in_place():
    x = rl.arange(6).reshape(2, 3)
    view = x[1]
    assert x.unsqueeze_(0) is x
    assert x.shape == (1, 2, 3)
    view.add_(10)
    assert x.squeeze_().tolist() == [[0, 1, 2], [13, 14, 15]]
    assert rl.ones(1, 2, 1).squeeze_(0).shape == (2, 1)
    weight = rl.ones(2, requires_grad=True)
    for tensor in (weight, weight * 2.0):
        with pytest.raises(StateError, match=r"write x = x.unsqueeze"):
            tensor.unsqueeze_(0)

    @rl.compile
    def widened(x):
        return x.clone().unsqueeze_(0) * 2.0

    with pytest.warns(rl.errors.EagerWarning, match="in place"):
        assert widened(rl.ones(3)).shape == (1, 3)


def test_deviates_written_in_place():
    rl.manual_seed(1)
    draws = rl.empty(20_000)
    assert draws.cauchy_(2.0, 3.0) is draws
    np.testing.assert_allclose(np.quantile(draws.numpy(), [0.25, 0.5, 0.75]), [-1.0, 2.0, 5.0], atol=0.2)
    draws.geometric_(0.25)
    assert (draws == draws.round()).all()
    assert draws.min() == 1
    np.testing.assert_allclose([draws.mean().item(), (draws == 1).float().mean().item()], [4.0, 0.25], rtol=0.05)
    for call in (lambda: draws.geometric_(0.0), lambda: draws.geometric_(1.0), lambda: draws.cauchy_(0.0, 0.0)):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_the_joint_norm_of_tensors_and_clipping_by_it():
    p = rl.tensor([3.0, 0.0], requires_grad=True)
    q = rl.tensor([4.0], requires_grad=True)
    (p * p / 2.0).sum().backward()
    (q * q / 2.0).sum().backward()
    norm = nn.utils.get_total_norm([p.grad, q.grad])
    assert norm.item() == 5.0
    assert nn.utils.get_total_norm([]).item() == 0.0
    assert nn.utils.get_total_norm([p.grad, q.grad], float("inf")).item() == 4.0
    nn.utils.clip_grads_with_norm_([p, q], 10.0, norm)
    assert (p.grad.tolist(), q.grad.tolist()) == ([3.0, 0.0], [4.0])
    nn.utils.clip_grads_with_norm_([p, q], 1.0, norm)
    np.testing.assert_allclose([*p.grad.tolist(), *q.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-5)
