"""The population collector gives the results of playing the episodes one by one, on any number of threads."""

import numba
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode

import rl_lab as rl
from rl_lab.agents.neat import NEATConfig
from rl_lab.agents.neat.evolution import Evolution
from rl_lab.agents.neat.genome import genome_at
from rl_lab.agents.neat.networks import Networks
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs.cartpole import CartPoleVectorEnv
from rl_lab.envs.double_pole import DoublePoleNoVelocityVectorEnv, damping_fitness
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout import OutputMapping, Stepper
from rl_lab.rollout.episodes import play
from rl_lab.rollout.population import PopulationCollector
from rl_lab.rollout.population_kernels import forward_each

COUNT = 20


def networks_for(envs, actions, recurrent=False, generations=5):
    inputs = int(np.prod(envs.single_observation_space.shape))
    evolution = Evolution(inputs, actions.outputs, NEATConfig(population=COUNT, recurrent=recurrent, add_node=0.3), seed=1)
    for _ in range(generations):
        evolution.advance(np.arange(float(COUNT)))
    return evolution.networks()


def both(envs, recurrent=False, output_activation="steepened_sigmoid", episodes=3):
    """Play the same episodes by the native call and by `play`; returns both results as bytes, and the native result."""
    actions = OutputMapping(envs.single_action_space, output_activation)
    networks = networks_for(envs, actions, recurrent)
    seeds = np.random.default_rng(3).integers(2**31, size=(COUNT, episodes))
    mine = PopulationCollector(envs, actions).play(networks.structures, networks.numbers, np.arange(COUNT), seeds)
    other = play(Stepper(envs), networks, actions, np.arange(COUNT).repeat(episodes), seeds.ravel())
    return [part.tobytes() for part in mine], [part.tobytes() for part in other], mine


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "rl_lab/DoublePoleNoVelocity-v0", "rl_lab/Catch-v0"]
)
def test_episodes_are_those_of_play_bit_for_bit(env_id, recurrent):
    mine, other, played = both(make_environments(env_id, 4), recurrent)
    assert mine == other
    assert len(set(played.returns.tolist())) > 1
    assert played.lengths.min() > 0


@pytest.mark.parametrize("output_activation", ["tanh", "identity"])
def test_continuous_actions_of_other_output_activations(output_activation):
    mine, other, _ = both(make_environments("Pendulum-v1", 4), output_activation=output_activation)
    assert mine == other


def test_stacked_frames_and_time():
    mine, other, played = both(CartPoleVectorEnv(4, 100, AutoresetMode.SAME_STEP, frame_stack=3, time_aware=True))
    assert mine == other
    assert played.final_observations.shape == (3 * COUNT, 15)


def test_parameters_are_those_of_the_first_environment():
    weak = CartPoleVectorEnv(2, 500, AutoresetMode.SAME_STEP, force_mag=1.0)
    mine, other, _ = both(weak)
    assert mine == other
    strong, *_ = both(CartPoleVectorEnv(2, 500, AutoresetMode.SAME_STEP))
    assert mine != strong


@kernel
def _begin(state, stream):
    state[0] = 0.0


@kernel
def _act(state, action, stream):
    state[0] += 1.0
    return action[0] + 10.0 * action[1], state[0] == 3.0


@kernel
def _see(state, observation):
    observation[0], observation[1] = np.float32(state[0]), np.float32(1.0)


@kernel
def _fails(state, action, stream):
    state[0] += 1.0
    return (np.nan if state[0] == 3.0 and action[0] == 1.0 else 1.0), state[0] == 5.0


def world_of(name, space, step):
    return World(name, 1, Box(-9.0, 9.0, (2,), np.float32), space, _begin, step, _see)


class Groups(NativeVectorEnv):
    """The reward is the first choice plus ten times the second."""

    world = world_of("PopulationGroups", MultiDiscrete([2, 3], start=[0, 5]), _act)


class Fails(NativeVectorEnv):
    """Returns NaN in the third step if the action is 1."""

    world = world_of("PopulationFails", Discrete(2), _fails)


def constant_networks(biases):
    """Networks with constant outputs, the sigmoids of ``biases`` (networks, outputs)."""
    evolution = Evolution(2, biases.shape[1], NEATConfig(population=len(biases), initially_connected=0.0))
    evolution.genomes.connections[:] = 0
    evolution.genomes.bias[:, : biases.shape[1]] = biases
    return evolution.networks()


def test_groups_of_choices():
    envs = Groups(1, 10, AutoresetMode.SAME_STEP)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    networks = constant_networks(np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, np.nan, 1]]))
    played = PopulationCollector(envs, actions).play(networks.structures, networks.numbers, np.arange(4), np.zeros((4, 1)))
    assert played.returns.tolist() == [3 * 70.0, 3 * 61.0, 3 * 50.0, 3 * 60.0]
    chosen = actions(np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, np.nan, 1]], np.float32))
    assert (3 * (chosen[:, 0] + 10.0 * chosen[:, 1])).tolist() == played.returns.tolist()


def test_faults_name_environment_seed_network_and_step():
    envs = Fails(1, 10, AutoresetMode.SAME_STEP)
    collector = PopulationCollector(envs, OutputMapping(envs.single_action_space, "sigmoid"))
    networks = constant_networks(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    seeds = np.arange(6).reshape(3, 2)
    played = collector.play(networks.structures, networks.numbers, np.array([0, 0, 0]), seeds)
    assert played.returns.tolist() == [5.0] * 6
    with pytest.raises(EnvironmentFault, match=r"environment 0 of PopulationFails \(seed 2\) with network 1 .* step 3 .* nan"):
        collector.play(networks.structures, networks.numbers, np.arange(3), seeds)
    # after a fault the collector still works
    again = collector.play(networks.structures, networks.numbers, np.array([0, 0, 0]), seeds)
    assert again.returns.tolist() == [5.0] * 6


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_a_network_that_explodes_only_fares_badly(number, recurrent):
    """An output of NaN becomes action 0, and a too large output is clipped to the bounds of the space."""
    envs = make_environments("Pendulum-v1", 1)
    actions = OutputMapping(envs.single_action_space, "identity")
    networks = networks_for(envs, actions, recurrent, generations=0)
    networks.numbers[7] = number
    seeds = np.arange(COUNT)[:, None]
    played = PopulationCollector(envs, actions).play(networks.structures, networks.numbers, np.arange(COUNT), seeds)
    other = play(Stepper(envs), networks, actions, np.arange(COUNT), seeds.ravel())
    assert [part.tobytes() for part in played] == [part.tobytes() for part in other]
    assert np.isfinite(played.returns).all()
    assert (played.lengths == 200).all()
    if np.isnan(number):
        envs.reset(seed=7)
        total = sum(envs.step(np.zeros((1, 1), np.float32))[1][0] for _ in range(200))
        assert played.returns[7] == pytest.approx(total)


def test_outputs_without_bounds_are_finite_actions():
    actions = OutputMapping(Box(-np.inf, np.inf, (4,), np.float32), "identity")
    given = np.array([[np.nan, np.inf, -np.inf, 1.5]], np.float32)
    taken = actions(given)
    largest = np.finfo(np.float32).max
    assert taken.tolist() == [[0.0, largest, -largest, 1.5]]


def test_any_number_of_threads():
    envs = make_environments("rl_lab/CartPoleMasked-v0", 1)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    networks = networks_for(envs, actions, recurrent=True)
    seeds = np.arange(COUNT * 5).reshape(COUNT, 5)
    threads = numba.get_num_threads()
    results = []
    try:
        for count in {1, threads}:
            numba.set_num_threads(count)
            collector = PopulationCollector(envs, actions)
            for _ in range(10):
                played = collector.play(networks.structures, networks.numbers, np.arange(COUNT), seeds)
                results.append([part.tobytes() for part in played])
    finally:
        numba.set_num_threads(threads)
    assert all(result == results[0] for result in results)


def test_tasks_may_be_cut_in_any_way():
    envs = make_environments("CartPole-v1", 1)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    networks = networks_for(envs, actions, recurrent=True)
    collector = PopulationCollector(envs, actions)
    seeds = np.arange(12)
    whole = collector.play(networks.structures, networks.numbers, np.array([3]), seeds[None])
    for width in (1, 4):
        parts = collector.play(networks.structures, networks.numbers, np.full(12 // width, 3), seeds.reshape(-1, width))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, parts, strict=True))


def test_networks_that_do_not_fit_are_refused():
    envs = make_environments("CartPole-v1", 1)
    actions = OutputMapping(envs.single_action_space, "sigmoid")
    networks = networks_for(envs, actions)
    collector = PopulationCollector(envs, actions)
    structures, numbers = networks.structures, networks.numbers
    with pytest.raises(ValueError, match="genomes are 0 to 20"):
        collector.play(structures, numbers, np.array([0, 20]), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="tasks, episodes"):
        collector.play(structures, numbers, np.array([0]), np.zeros(1))
    other = networks_for(make_environments("Pendulum-v1", 1), actions)
    with pytest.raises(ValueError, match="4 inputs and 2 outputs, not 3"):
        collector.play(other.structures, other.numbers, np.array([0]), np.zeros((1, 1)))


def test_damping_fitness_is_the_return():
    """Gruau's fitness of a population is the return in the world with ``damping``."""
    envs = DoublePoleNoVelocityVectorEnv(1, 1000, AutoresetMode.SAME_STEP, damping=1.0)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    networks = networks_for(envs, actions, recurrent=True)
    played = PopulationCollector(envs, actions).play(
        networks.structures, networks.numbers, np.arange(COUNT), np.zeros((COUNT, 1))
    )
    for i in range(COUNT):
        graph = Networks(genome_at(networks.genomes, i).genes, True)[0].graph()

        def policy(observations, elapsed, graph=graph):
            return actions(graph(rl.tensor(observations)).detach().numpy())

        assert played.returns[i] == pytest.approx(damping_fitness(policy), rel=1e-4)


def test_options_set_the_start_of_each_episode():
    envs = make_environments("rl_lab/DoublePoleNoVelocity-v0", 3)
    actions = OutputMapping(envs.single_action_space, "steepened_sigmoid")
    networks = networks_for(envs, actions, recurrent=True)
    collector = PopulationCollector(envs, actions)
    angles = np.array([[0.0, 0.1, 0.6], [0.02, -0.3, 0.07]])
    options = {"angle": angles, "x": 0.5}
    genomes = np.array([2, 5])
    seeds = np.zeros((2, 3))
    played = collector.play(networks.structures, networks.numbers, genomes, seeds, options)
    for k in range(2):
        observations, _ = envs.reset(seed=[0, 0, 0], options={"angle": angles[k], "x": 0.5})
        states, outputs = np.zeros((3, networks.state_size), np.float32), np.zeros((3, 1), np.float32)
        lengths = np.zeros(3, int)
        for t in range(1, 1001):
            forward_each(networks.structures, networks.numbers, np.full(3, genomes[k]), observations, states, outputs)
            observations, _, terminated, truncated, _ = envs.step(actions(outputs))
            lengths[(terminated | truncated) & (lengths == 0)] = t
            if lengths.all():
                break
        assert played.lengths.reshape(2, 3)[k].tolist() == lengths.tolist()
    with pytest.raises(ValueError, match="no reset option 'length'"):
        collector.play(networks.structures, networks.numbers, genomes, seeds, {"length": 1.0})
