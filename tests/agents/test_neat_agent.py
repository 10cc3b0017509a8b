"""NEAT as an agent: actions from outputs, parallel episodes, probes, state, and a real run."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rl_lab as rl
from rl_lab.agents.neat import NEATConfig
from rl_lab.agents.neat.agent import NEAT, NEATAgentConfig
from rl_lab.agents.neat.evolution import Evolution
from rl_lab.agents.neat.pictures import ancestors
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.checkpoint import load_checkpoint, save_checkpoint
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.evaluation import evaluate
from rl_lab.rollout import OutputMapping, Stepper
from rl_lab.rollout.episodes import play

SMALL = {"population": 30, "champion_episodes": 4}


def agent_on(env, seed=1, num_envs=7, **settings):
    return NEAT.create(NEATAgentConfig(**{**SMALL, **settings}), make_environments(env, num_envs), seed)


# --- actions ---------------------------------------------------------------------------------------------------------


def test_discrete_actions_are_the_largest_output():
    actions = OutputMapping(Discrete(3, start=5), "tanh")
    assert actions.outputs == 3
    assert actions(np.array([[0.1, 0.9, 0.2], [0.5, -1.0, 0.4]])).tolist() == [6, 5]


def test_multi_discrete_actions_are_the_largest_of_each_group():
    actions = OutputMapping(MultiDiscrete([2, 3], start=[0, 10]), "sigmoid")
    assert actions.outputs == 5
    outputs = np.array([[0.1, 0.9, 0.7, 0.2, 0.1], [0.5, 0.4, 0.0, 0.1, 0.2]], np.float32)
    assert actions(outputs).tolist() == [[1, 10], [0, 12]]
    space = MultiDiscrete([[2, 2], [2, 2]])
    chosen = OutputMapping(space, "sigmoid")(np.ones((3, 8), np.float32))
    assert all(space.contains(one) for one in chosen)


def test_continuous_actions_are_stretched_to_the_space():
    space = Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))
    outputs = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], np.float32)
    assert OutputMapping(space, "steepened_sigmoid")(outputs).tolist() == [[-2.0, 0.0], [0.0, 5.0], [2.0, 10.0]]
    assert OutputMapping(space, "tanh")(2 * outputs - 1).tolist() == [[-2.0, 0.0], [0.0, 5.0], [2.0, 10.0]]
    # outputs of an activation without bounds are clipped
    assert OutputMapping(space, "identity")(np.array([[-9.0, 11.0]], np.float32)).tolist() == [[-2.0, 10.0]]
    open_space = Box(-np.inf, np.inf, (2,), np.float32)
    assert OutputMapping(open_space, "tanh")(np.array([[-0.5, 0.5]], np.float32)).tolist() == [[-0.5, 0.5]]
    assert OutputMapping(Box(-1.0, 1.0, (2, 3), np.float32), "tanh")(np.zeros((4, 6), np.float32)).shape == (4, 2, 3)


def test_other_spaces_are_refused():
    with pytest.raises(TypeError, match="Text"):
        OutputMapping(Text(3), "tanh")


# --- episodes --------------------------------------------------------------------------------------------------------


def one_by_one(env_id, networks, actions, genome, seed):
    """Play the same episode in Gymnasium's environment with the `GraphNetwork`."""
    env = gym.make(env_id)
    observation, _ = env.reset(seed=int(seed))
    graph = networks[genome].graph()
    total = 0.0
    length = 0
    over = False
    while not over:
        outputs = graph(rl.tensor(np.asarray(observation, np.float32).reshape(1, -1))).detach().numpy()
        observation, reward, terminated, truncated, _ = env.step(actions(outputs)[0])
        total = total + reward
        length = length + 1
        over = terminated or truncated
    return total, length, observation


@pytest.mark.parametrize(("env_id", "recurrent"), [("CartPole-v1", False), ("CartPole-v1", True), ("Pendulum-v1", False)])
def test_episodes_do_not_depend_on_how_they_are_run(env_id, recurrent):
    probe = make_environments(env_id, 1)
    actions = OutputMapping(probe.single_action_space, "steepened_sigmoid")
    inputs = int(np.prod(probe.single_observation_space.shape))
    evolution = Evolution(inputs, actions.outputs, NEATConfig(population=20, recurrent=recurrent, add_node=0.3), seed=1)
    for _ in range(5):
        evolution.advance(np.arange(20.0))
    networks = evolution.networks()
    genomes = np.arange(20).repeat(2)
    seeds = np.arange(100, 140)
    results = []
    for backend, count in (("native", 1), ("native", 6), ("native", 64), ("gymnasium", 5)):
        played = play(Stepper(make_environments(choose_setup(env_id, backend), count)), networks, actions, genomes, seeds)
        results.append([part.tobytes() for part in played])
    assert all(result == results[0] for result in results)
    for k in (0, 1, 17, 39):
        total, length, final = one_by_one(env_id, networks, actions, genomes[k], seeds[k])
        assert played.lengths[k] == length
        assert played.returns[k] == pytest.approx(total, rel=1e-4)
        np.testing.assert_allclose(played.final_observations[k], final, rtol=1e-2, atol=1e-3)
    assert len(set(played.returns.tolist())) > 5


def test_a_reward_that_is_no_number_is_named():
    agent = agent_on("probe/ReturnsNan-v0")
    with pytest.raises(EnvironmentFault, match="reward of nan"):
        agent.step()


@pytest.mark.parametrize(("env_id", "length"), [("probe/NeverOver-v0", 12), ("probe/OverAt30-v0", 30)])
def test_an_episode_without_end_is_cut_off(env_id, length):
    """Without a time limit of the environment, an episode is truncated, and the next one starts with a reset."""
    agent = agent_on(env_id, num_envs=4, episodes=2, episode_limit=12)
    played = agent._play(agent.evolution.networks(), np.arange(30), np.zeros((30, 2), np.int64))
    assert (played.lengths == length).all()
    assert (played.final_observations[:, 0] == played.returns).all()
    assert set(played.returns) >= {0.0, float(length)}
    assert (played.returns.reshape(30, 2)[:, 0] == played.returns.reshape(30, 2)[:, 1]).all()


def test_environments_must_reset_in_the_same_step():
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(ValueError, match="autoreset_mode=SAME_STEP"):
        NEAT.create(NEATAgentConfig(), envs, 1)


# --- the agent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["ActionReward", "MatchReward", "StartsAtOne"])
def test_probes(probe, learning_seed, learned):
    agent = agent_on(f"rl_lab/Probe{probe}-v0", learning_seed, episodes=8)
    assert isinstance(agent, Agent)
    for _ in range(10):
        metrics = agent.step()
    assert agent.champion.fitness == 1.0
    assert metrics["neat/champion_return"] == 1.0
    assert metrics["charts/episodic_length"] == 1.0
    learned(metrics["neat/mean_fitness"], 1.0, within=0.7)  # of the population; without selection the mean is 0
    assert agent.timesteps == 10 * (30 * 8 + 4)
    assert evaluate(agent, f"rl_lab/Probe{probe}-v0", 20, seed=5).return_mean == 1.0


def test_novelty_is_what_is_selected_for(monkeypatch):
    """The fitness is the novelty of all final observations, with all their components."""
    agent = agent_on("CartPole-v1", novelty=True, episodes=2)
    given, answers = [], []
    novelty = agent.archive.novelty
    monkeypatch.setattr(agent.archive, "novelty", lambda x: given.append(x) or answers.append(novelty(x)) or answers[-1])
    metrics = agent.step()
    assert given[0].shape == (30, 2 * 4)
    assert metrics["neat/best_fitness"] == answers[0].max() != metrics["neat/best_return"]


def test_seeds_of_episodes():
    for schedule, per_genome, per_generation in (("generation", False, True), ("fixed", False, False), ("genome", True, True)):
        agent = agent_on("CartPole-v1", episodes=3, episode_seeds=schedule)
        first, second = (agent._episode_seeds().reshape(30, 3) for _ in range(2))
        assert (first[0] != first[1]).any() == per_genome
        assert (first != second).any() == per_generation
        assert len(set(first[0].tolist())) == 3


@pytest.mark.parametrize("settings", [{}, {"recurrent": True, "novelty": True}, {"selection": "nsga2"}])
def test_a_checkpoint_continues_bit_for_bit(tmp_path, settings):
    agent = agent_on("CartPole-v1", **settings)
    for _ in range(3):
        agent.step()
    save_checkpoint(tmp_path / "state", agent.state_dict())
    other = agent_on("CartPole-v1", seed=9, num_envs=3, **settings)
    other.load_state_dict(load_checkpoint(tmp_path / "state"))
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert agent.act(x).tobytes() == other.act(x).tobytes()
    for _ in range(3):
        assert agent.step() == other.step()
    assert agent.timesteps == other.timesteps
    assert agent.network().describe() == other.network().describe()


def test_a_recurrent_champion_forgets_at_the_beginning_of_an_episode():
    agent = agent_on("CartPole-v1", recurrent=True, add_node=0.5, add_connection=0.5, output_activation="tanh")
    for _ in range(4):
        agent.step()
    network = agent.network()
    x = np.random.default_rng(2).normal(size=(12, 3, 4)).astype(np.float32)
    for t in range(12):
        begins = np.array([t == 0, t in (0, 5), t in (0, 9)])
        agent.begin_episodes(begins)
        network.reset(begins)
        agent.act(x[t])
        outputs = network(rl.tensor(x[t])).detach().numpy()
        # the module and the agent keep the same recurrent state, so their outputs agree
        chosen = agent._champion_networks()
        rows = chosen.structures[0, 4 : 4 + chosen.outputs]
        np.testing.assert_allclose(agent._states[:, rows], outputs, rtol=1e-4, atol=1e-5)


def test_an_untrained_agent_acts():
    agent = agent_on("CartPole-v1")
    assert set(agent.act(np.zeros((3, 4), np.float32))) <= {0, 1}
    assert agent.pictures() == {}


def test_pictures():
    agent = agent_on("CartPole-v1")
    agent.step()
    for _ in range(2):  # after one generation, and after two
        pictures = agent.pictures()
        assert set(pictures) == {"neat/champion", "neat/species_sizes", "neat/course", "neat/genealogy"}
        for name, image in pictures.items():
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert len(np.unique(image[40:-40, 60:-10].reshape(-1, 3), axis=0)) > 1, name  # the picture is not empty
        agent.step()


def test_the_genealogy_is_the_champions():
    agent = agent_on("CartPole-v1")
    for _ in range(4):
        generation, best = agent.evolution.generation, agent.champion_place
        before = agent.champion
        agent.step()
        assert (agent.champion_place == best) == (agent.champion is before and before is not None)
        if agent.champion is not before:
            assert agent.champion_place[0] == generation
    lineage = ancestors(agent.evolution, agent.champion_place)
    assert len(lineage) == agent.champion_place[0] + 1
    assert lineage[-1] == {agent.champion_place[1]}


def test_cartpole_is_solved(learning_seed, learned):
    agent = NEAT.create(NEATAgentConfig(), make_environments("CartPole-v1", 64), learning_seed)
    for _ in range(15):
        metrics = agent.step()
    # the mean return of the population is 220 with a standard deviation of 25, and 20 without selection
    learned(metrics["neat/mean_fitness"], 500.0, within=400.0, what="population")
    result = evaluate(agent, "CartPole-v1", 100, seed=1_000_000)
    learned(result.return_mean, 500.0, within=25.0, what="champion")  # 500 is the largest possible return
