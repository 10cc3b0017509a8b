"""Evolution and gradients together: learning within a life, and gradient agents that go on from a champion."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import rl_lab as rl
from agents.dqn import DQN, DQNConfig
from agents.neat import NEATConfig
from agents.neat.agent import NEAT, NEATAgentConfig
from agents.neat.evolution import Evolution
from agents.neat.gradients import Batch, PolicyGradient, actor_of, policy_of
from agents.ppo import PPO, PPOConfig
from agents.reinforce import REINFORCE, REINFORCEConfig
from rl_lab import train
from rl_lab.engine.errors import GraphError
from rl_lab.experiment.driver import restore
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.faults import Fault
from rl_lab.nn.graph_files import load_graph, save_graph
from rl_lab.nn.networks import check_network, evolved_path, make_network, sizes_beside
from rl_lab.policies import ActionHead
from rl_lab.population import Actions


def networks_for(space, inputs=4, recurrent=False, activation="steepened_sigmoid", generations=6):
    """Evolved networks, small weights, so that outputs do not saturate."""
    actions = Actions(space, activation)
    config = NEATConfig(
        population=20, add_node=0.4, add_connection=0.5, recurrent=recurrent, weight_range=0.5, output_activation=activation
    )
    evolution = Evolution(inputs, actions.outputs, config, seed=2)
    for _ in range(generations):
        evolution.advance(np.arange(20.0))
    return evolution.networks(), actions


X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def columns(chosen, space):
    """The number chosen in each group of outputs, from 0."""
    return [chosen - space.start] if isinstance(space, Discrete) else list(chosen.T)


def groups(outputs, space):
    return [outputs] if isinstance(space, Discrete) else np.split(outputs, np.cumsum(space.nvec)[:-1], 1)


@pytest.mark.parametrize("space", [Discrete(3, start=2), MultiDiscrete([2, 3]), Box(-2.0, 3.0, (2,), np.float32)])
@pytest.mark.parametrize("activation", ["steepened_sigmoid", "tanh", "sin"])
def test_an_actor_acts_as_the_network_it_was_made_of(space, activation):
    networks, actions = networks_for(space, activation=activation)
    for i in range(5):
        network = networks[i].graph()
        outputs = network(rl.tensor(X)).detach().numpy()
        actor = actor_of(network, actions)(rl.tensor(X)).detach().numpy()
        if isinstance(space, Box):
            np.testing.assert_allclose(np.clip(actor, -2.0, 3.0), actions(outputs), rtol=1e-4, atol=1e-4)
        else:
            for mine, theirs, values in zip(
                *(columns(part, space) for part in (actions(actor), actions(outputs))), groups(outputs, space), strict=True
            ):
                rows = np.arange(len(values))
                assert (values[rows, mine] >= values[rows, theirs]).all()  # where outputs saturate, several are the largest
            assert len(set(actions(outputs).ravel().tolist())) > 1 or i


def test_an_output_that_feeds_others_keeps_its_activation():
    seen = set()
    for generations in (1, 25):
        networks, actions = networks_for(Discrete(2), recurrent=True, generations=generations)
        network = networks[0].graph()
        fed = any(source in network.outputs for source, _ in network.edges)
        policy, factor = policy_of(network, actions)
        kept = policy.describe()["nodes"] == network.describe()["nodes"]
        assert kept == fed
        assert (factor == 1.0) != fed
        seen.add(fed)
    assert seen == {True, False}


def gradient_on(env, num_envs=8, **settings):
    envs = make_environments(env, num_envs)
    actions = Actions(envs.single_action_space, "steepened_sigmoid")
    options = {"updates": 5, "episodes": num_envs, "learning_rate": 0.05, "gamma": 0.9, "noise": 0.2}
    return PolicyGradient(envs, actions, **{**options, **settings}, random=np.random.default_rng(1)), actions


def test_advantages():
    gradient, _ = gradient_on("CartPole-v1", gamma=0.5)
    zeros = np.zeros((3, 2, 1), np.float32)
    batch = Batch(zeros, zeros[..., 0], np.array([[1, 2], [4, 8], [0, 16]], np.float32), np.array([[1, 1], [1, 1], [0, 1]]))
    found = gradient.advantages(batch)
    returns = np.array([[3.0, 10.0], [4.0, 16.0], [0.0, 16.0]])
    time = np.array([[0.0, 0.0], [0.01, 0.01], [0.02, 0.02]])
    alive = batch.alive > 0
    features = np.stack([time**k for k in range(4)], -1)[alive]
    square = features.T @ features + 1e-3 * 5 * np.eye(4)
    rest = returns[alive] - features @ np.linalg.solve(square, features.T @ returns[alive])
    np.testing.assert_allclose(found[alive], (rest - rest.mean()) / rest.std(), rtol=1e-3, atol=1e-3)
    assert found[2, 0] == 0.0


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("space", [Discrete(2), MultiDiscrete([2, 3]), Box(-1.0, 1.0, (2,), np.float32)])
def test_the_first_update_follows_the_policy_gradient(space, recurrent):
    """With no step taken, the gradient of the objective is that of sum A log pi, by differences."""
    networks, actions = networks_for(space, recurrent=recurrent)
    gradient, _ = gradient_on("CartPole-v1")
    gradient.actions, gradient.continuous = actions, isinstance(space, Box)
    gradient.head = None if gradient.continuous else ActionHead(space)
    policy, factor = policy_of(networks[19].graph(), actions)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(4, 3, 4)).astype(np.float32)
    chosen = np.stack([np.stack([np.asarray(space.sample()) for _ in range(3)]) for _ in range(4)])

    def log_prob(weight):
        with rl.no_grad():
            policy.weight.copy_(rl.tensor(weight))
            total = gradient._log_probs(policy, factor, rl.tensor(observations), rl.tensor(chosen).flatten(0, 1))
            return float((total * rl.tensor(np.arange(12, dtype=np.float32))).sum())

    start = policy.weight.detach().numpy().copy()
    total = gradient._log_probs(policy, factor, rl.tensor(observations), rl.tensor(chosen).flatten(0, 1))
    (total * rl.tensor(np.arange(12, dtype=np.float32))).sum().backward()
    found = policy.weight.grad.numpy().copy()
    for k in range(len(start)):
        step = np.zeros_like(start)
        step[k] = 1e-2
        assert found[k] == pytest.approx((log_prob(start + step) - log_prob(start - step)) / 2e-2, rel=0.05, abs=0.5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_training_finds_what_pays(recurrent):
    """Three batches turn a network that knows nothing into one that nearly always does what the observation asks for."""
    gradient, actions = gradient_on("rl_lab/ProbeMatchReward-v0", 64, updates=40)
    evolution = Evolution(1, 2, NEATConfig(population=2, weight_range=0.1, recurrent=recurrent), seed=1)
    network = evolution.networks()[0].graph()
    for _ in range(3):
        trained, steps = gradient.train(network)
        assert steps == 64
        assert trained.edges == network.edges
        network = trained
    policy, factor = policy_of(network, actions)
    assert gradient._act(policy, factor).rewards.mean() > 0.8


def agent_on(env="CartPole-v1", seed=1, num_envs=8, backend="auto", **settings):
    small = {"population": 10, "champion_episodes": 2, "gradient_episodes": 8}
    return NEAT(NEATAgentConfig(**{**small, **settings}), make_environments(choose_setup(env, backend), num_envs), seed)


def weights_of(agent):
    return np.concatenate([agent.evolution.genomes.weight.ravel(), agent.evolution.genomes.bias.ravel()]).copy()


@pytest.mark.parametrize(("kind", "changed"), [("lamarck", True), ("baldwin", False)])
def test_what_is_learnt_is_inherited_or_counts_for_fitness_only(kind, changed):
    agent = agent_on(**{kind: 5}, trained=0)
    seeds = agent._episode_seeds()
    before = weights_of(agent)
    returns = agent._play(agent.evolution.networks(), np.arange(10), seeds).returns
    steps, trained = agent.timesteps, returns.copy()
    share = agent._train(trained, seeds)
    assert agent.timesteps > steps + 10 * 8
    assert (trained >= returns).all()
    assert (trained > returns).any()
    assert 0 < share <= 1
    assert (weights_of(agent) != before).any() == changed
    assert np.abs(weights_of(agent)).max() <= agent.config.weight_limit
    again = agent._play(agent.evolution.networks(), np.arange(10), seeds).returns
    np.testing.assert_array_equal(again, trained if changed else returns)


def test_only_the_best_are_trained():
    agent = agent_on(lamarck=5, trained=2)
    seeds, before = agent._episode_seeds(), weights_of(agent)
    agent._train(np.arange(10.0) - 1000.0, seeds)
    rows = np.flatnonzero(
        (agent.evolution.genomes.weight != before[: agent.evolution.genomes.weight.size].reshape(10, -1)).any(1)
    )
    assert rows.tolist() == [8, 9]


def test_both_at_once_are_refused():
    with pytest.raises(Fault, match="exclude each other"):
        agent_on(lamarck=1, baldwin=1)


@pytest.mark.parametrize("settings", [{}, {"recurrent": True}])
def test_lamarck_is_the_same_again_and_on_either_backend(settings):
    runs = [agent_on(lamarck=2, backend=backend, **settings) for backend in ("native", "native", "gymnasium")]
    metrics = [[run.step() for _ in range(3)] for run in runs]
    assert metrics[0] == metrics[1] == metrics[2]
    other = agent_on(lamarck=2, seed=9, **settings)
    other.load_state_dict(runs[0].state_dict())
    assert other.step() == runs[0].step() == runs[1].step()


# --- gradient agents that go on from a champion --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of NEAT on CartPole."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["--agent", "neat", "--env", "CartPole-v1", "--run-dir", str(folder), "--total-timesteps", "20_000"]
    assert train.main([*arguments, "--eval-episodes", "5"]) == 0
    return next(folder.glob("CartPole-v1/neat/*"))


def test_a_run_keeps_its_champion(run):
    agent, _ = restore(run)
    assert load_graph(run / "champion").describe() == agent.network().describe()
    actor = load_graph(run / "actor")
    x = rl.tensor(X)
    np.testing.assert_array_equal(
        actor(x).detach().numpy().argmax(1), actor_of(agent.network(), agent.actions)(x).argmax(1).numpy()
    )


SMALL = {
    "ppo": (PPO, PPOConfig, {"num_steps": 32, "batch_size": 64}, "actor"),
    "reinforce": (REINFORCE, REINFORCEConfig, {}, "actor"),
    "dqn": (DQN, DQNConfig, {"learning_starts": 32, "batch_size": 32}, "q_network"),
}


@pytest.mark.parametrize("name", list(SMALL))
def test_agents_begin_as_the_champion_and_train_it(name, run):
    kind, config, settings, part = SMALL[name]
    agent = kind(config(network=str(run), **settings), make_environments("CartPole-v1", 4), 1)
    champion = load_graph(run / "actor")
    network = getattr(agent, part)
    np.testing.assert_array_equal(network(rl.tensor(X)).detach().numpy(), champion(rl.tensor(X)).detach().numpy())
    chosen = champion(rl.tensor(X)).detach().numpy().argmax(1)
    np.testing.assert_array_equal(agent.act(X, deterministic=True), chosen)
    before = [p.detach().numpy().copy() for p in network.parameters()]
    while agent.timesteps < 300:
        metrics = agent.step()
    assert all(np.isfinite(value) for value in metrics.values())
    assert any((p.detach().numpy() != b).any() for p, b in zip(network.parameters(), before, strict=True))
    other = kind(config(network=str(run / "actor.json"), **settings), make_environments("CartPole-v1", 4), 2)
    other.load_state_dict(agent.state_dict())
    np.testing.assert_array_equal(other.act(X, deterministic=True), agent.act(X, deterministic=True))


def test_paths_of_networks(run, tmp_path):
    assert evolved_path(str(run)) == run / "actor"
    assert evolved_path(str(run / "champion.safetensors")) == run / "champion"
    assert evolved_path("mlp:64") is None
    assert sizes_beside(str(run)) == "mlp:64,64"
    assert sizes_beside("mlp:8") == "mlp:8"
    for name in ("mlp:64", "cnn:8:16", str(run)):
        check_network(name)
    with pytest.raises(ValueError, match="holds no evolved network"):
        check_network(str(tmp_path))
    with pytest.raises(ValueError, match="described as"):
        check_network("nonsense")


def test_networks_that_do_not_fit(run, tmp_path):
    with pytest.raises(GraphError, match="4 inputs and 2 outputs, 3 and 2"):
        make_network((3,), str(run), 2)
    with pytest.raises(GraphError, match="4 inputs and 2 outputs, 4 and 3"):
        make_network((4,), str(run), 3)
    networks, _ = networks_for(Discrete(2), recurrent=True)
    save_graph(networks[0].graph(), tmp_path / "memory")
    with pytest.raises(GraphError, match="recurrent"):
        make_network((4,), str(tmp_path / "memory"), 2)
    with pytest.raises(Fault, match="dueling"):
        DQN(DQNConfig(network=str(run), dueling=True), make_environments("CartPole-v1", 1), 1)


def test_the_command_line_takes_a_run(run, tmp_path, capsys):
    arguments = ["--agent", "ppo", "--env", "CartPole-v1", "--run-dir", str(tmp_path), "--total-timesteps", "600"]
    assert train.main([*arguments, "--network", str(run), "--eval-episodes", "3"]) == 0
    assert train.main([*arguments, "--network", str(tmp_path)]) == 2
    assert "holds no evolved network" in capsys.readouterr().err
