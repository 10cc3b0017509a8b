"""Networks as vectors of parameters: native play, stepped play and the network's own forward pass agree."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.players import Players
from rl_lab.nn import GraphNetwork
from rl_lab.nn.containers import Sequential
from rl_lab.nn.networks import make_network
from rl_lab.rollout import RunningMoments, Stepper
from rl_lab.rollout.episodes import play
from rl_lab.rollout.vectors import (
    VectorMaker,
    parameters_of,
    set_gradients,
    set_parameters,
    update_moments,
)

COUNT = 12


def moments(inputs: int) -> RunningMoments:
    """Statistics that put some values beyond the clipping at 10 standard deviations."""
    made = RunningMoments((inputs,))
    made.update(rl.randn(50, inputs, generator=rl.Generator(5)) * 0.1 + 0.3)
    return made


def graph() -> Sequential:
    """A feed-forward graph of 3 inputs, a product and a sum."""
    network = GraphNetwork(3, 1)
    network.add_node("h", activation="tanh")
    network.add_node("p", activation="relu", aggregation="product")
    for edge in [("i0", "h"), ("i1", "h"), ("i1", "p"), ("h", "p"), ("p", "o0"), ("i2", "o0"), ("h", "o0")]:
        names = {"i": network.inputs, "o": network.outputs}
        source, target = (names[n[0]][int(n[1:])] if n[0] in names and n[1:].isdigit() else n for n in edge)
        network.add_edge(source, target, 0.5)
    return Sequential(network)


def networks(kind: str, normalized: bool) -> tuple[str, VectorMaker, np.ndarray]:
    """An environment, the maker of networks for it, and random vectors of parameters."""
    env = "Pendulum-v1"
    inputs, outputs = 3, 1
    if kind == "graph":
        network = graph()
    else:
        description, activation = kind.split()
        network = make_network((inputs,), description, outputs, activation, generator=rl.Generator(1))
    maker = VectorMaker(network, inputs, outputs, moments(inputs) if normalized else None)
    size = len(parameters_of(network))
    return env, maker, np.random.default_rng(2).normal(size=(COUNT, size)).astype(np.float32)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("kind", ["mlp: tanh", "mlp:5 relu", "mlp:6,4 sigmoid", "mlp:5 silu", "graph"])
def test_outputs_and_returns(kind, normalized):
    env, maker, vectors = networks(kind, normalized)
    made = maker(vectors)
    assert (maker.encoding is None) == (kind == "mlp:5 silu")
    x = np.random.default_rng(3).normal(size=(COUNT, 3)).astype(np.float32)
    acting, outputs = made.actors(COUNT), np.zeros((COUNT, 1), np.float32)
    acting.begin(np.arange(COUNT), np.arange(COUNT)[::-1].copy())
    acting.forward(x, np.ones(COUNT, bool), outputs)
    for i in range(COUNT):
        set_parameters(maker.network, vectors[COUNT - 1 - i])
        seen = rl.tensor(x[i : i + 1])
        wanted = maker.network(seen if maker.moments is None else maker.moments.normalize(seen))
        np.testing.assert_allclose(outputs[i], wanted.detach().numpy()[0], rtol=2e-5, atol=2e-6)
    envs = make_environments(env, 3)
    players = Players(envs, None, "identity")
    seeds = np.arange(2 * COUNT).reshape(COUNT, 2)
    played = players.play(made, np.arange(COUNT), seeds, summed=True)
    stepped = play(Stepper(envs), made, players.actions, np.arange(COUNT).repeat(2), seeds.ravel(), summed=True)
    assert played.returns.tolist() == stepped.returns.tolist()
    np.testing.assert_allclose(played.sums, stepped.sums, rtol=1e-12)
    assert len(set(played.returns.tolist())) == 2 * COUNT


def test_statistics_of_the_observations():
    _, maker, vectors = networks("mlp: tanh", True)
    envs = make_environments("Pendulum-v1", 1)
    players = Players(envs, None, "identity")
    played = players.play(maker(vectors[:1]), np.zeros(1, np.int64), np.array([[7]]), summed=True)
    seen = []
    stepper = Stepper(envs)
    stepper.reset([7])
    acting, outputs = maker(vectors[:1]).actors(1), np.zeros((1, 1), np.float32)
    acting.begin(np.zeros(1, np.int64), np.zeros(1, np.int64))
    for _ in range(int(played.lengths[0])):
        seen.append(stepper.observations[0].copy())
        acting.forward(stepper.observations, np.ones(1, bool), outputs)
        stepper.step(players.actions(outputs))
    mine, theirs = RunningMoments((3,)), RunningMoments((3,))
    update_moments(mine, played)
    theirs.update(rl.tensor(np.array(seen)))
    for name in ("mean", "var", "count"):
        np.testing.assert_allclose(getattr(mine, name).numpy(), getattr(theirs, name).numpy(), rtol=1e-4, atol=1e-6)


def test_parameters_and_gradients_keep_their_places():
    network = make_network((3,), "mlp:4", 2, generator=rl.Generator(1))
    vector = np.arange(len(parameters_of(network)), dtype=np.float32)
    set_parameters(network, vector)
    set_gradients(network, -vector)
    assert parameters_of(network).tolist() == vector.tolist()
    assert all((p.grad == -p).all() for p in network.parameters())
