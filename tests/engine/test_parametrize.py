"""Parametrised tensors: what computes them, copies, assignments and recorded calls. `modules.py` compares the norms with PyTorch."""

import copy
import pickle

import pytest

import rl_lab as rl
from rl_lab import nn
from rl_lab.errors import ShapeError
from rl_lab.nn.utils import parametrize
from rl_lab.nn.utils.parametrizations import spectral_norm, weight_norm
from rl_lab.nn.utils.rnn import pad_sequence, unpad_sequence

X = rl.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])


class Symmetric(nn.Module):
    """A symmetric matrix from its upper triangle."""

    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, x):
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x):
        return 2.0 * x


def test_a_parametrization_computes_the_weight_and_is_removed():
    layer = nn.Linear(3, 3)
    before = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert layer.weight.equal(layer.weight.T)
    assert layer.weight[0].equal(before[0])
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    layer.weight = 3.0 * rl.eye(3)
    assert layer.weight.equal(3.0 * rl.eye(3))
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert layer.weight.equal(6.0 * rl.eye(3))
    with pytest.raises(NotImplementedError, match="Doubled has no right_inverse"):
        layer.weight = rl.eye(3)
    parametrize.register_parametrization(layer, "bias", Doubled())
    assert layer.bias.equal(2.0 * layer.parametrizations["bias"].original)
    parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight.equal(6.0 * rl.eye(3))
    assert isinstance(layer.weight, nn.Parameter)
    parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)
    assert type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["bias", "weight"]


def test_what_cannot_be_parametrised_is_refused():
    layer = nn.Linear(3, 2)
    for call, error in (
        (lambda: parametrize.register_parametrization(layer, "weights", Doubled()), ValueError),
        (lambda: parametrize.register_parametrization(layer, "weight", nn.Flatten(0)), ShapeError),
        (lambda: parametrize.remove_parametrizations(layer, "weight"), ValueError),
        (lambda: spectral_norm(layer, n_power_iterations=0), ValueError),
        (lambda: spectral_norm(layer, "weights"), ValueError),
        (lambda: parametrize.remove_parametrizations(weight_norm(nn.Linear(3, 2)), "weight", False), ValueError),
    ):
        with pytest.raises(error):
            call()
    assert type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_copies_and_states_compute_the_same(norm):
    layer = norm(nn.Linear(3, 2)).eval()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other(X).equal(layer(X))
        with rl.no_grad():
            next(other.parametrizations.parameters()).mul_(2.0)
        assert not other.bias.equal(layer.bias) or other.parametrizations is not layer.parametrizations
    fresh = norm(nn.Linear(3, 2)).eval()
    fresh.load_state_dict(layer.state_dict())
    assert fresh(X).equal(layer(X))


def test_a_cached_value_is_computed_once():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_recorded_training_gives_the_same_bits(norm):
    def trained(compiled):
        rl.manual_seed(4)
        layer = norm(nn.Linear(3, 2))
        optimizer = rl.optim.SGD(layer.parameters(), lr=0.05)

        def step(x):
            loss = (layer(x) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        run = rl.compile(step) if compiled else step
        for _ in range(4):
            run(X)
        assert not compiled or len(run.programs) == 1
        return [x.numpy().tobytes() for x in layer.state_dict().values()]

    assert trained(True) == trained(False)


def test_sequences_of_different_lengths():
    parts = [rl.tensor([[1, 2], [3, 4], [5, 6]]), rl.tensor([[7, 8]])]
    padded = pad_sequence(parts, batch_first=True, padding_value=-1)
    assert padded.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [-1, -1], [-1, -1]]]
    assert pad_sequence(parts).tolist() == padded.masked_fill(padded == -1, 0).transpose(0, 1).tolist()
    assert pad_sequence(parts, True, padding_side="left")[1].tolist() == [[0, 0], [0, 0], [7, 8]]
    back = unpad_sequence(padded, rl.tensor([3, 1]), batch_first=True)
    assert all(a.equal(b) for a, b in zip(back, parts, strict=True))
    for bad in ([], [rl.ones(2, 1), rl.ones(2)]):
        with pytest.raises(ShapeError):
            pad_sequence(bad)
