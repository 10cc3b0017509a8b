"""Action masks from the first step on, actions of several dimensions, and runs that start from the networks of an earlier run."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import rl_lab as rl
from rl_lab import evaluate, train
from rl_lab.agents.dqn import DQN, DQNConfig
from rl_lab.agents.neat.agent import NEAT, NEATAgentConfig
from rl_lab.agents.sac import SAC, SACConfig
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout.stepper import mask_of
from tests.agents.test_contract import AGENTS, SMALL


class Strict(gym.Env):
    """Raises an error for a forbidden action; the allowed one of three actions changes in each step."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return self.look()

    def look(self):
        mask = np.zeros(3, np.int8)
        mask[self.now % 3] = 1
        return np.zeros(2, np.float32), {"action_mask": mask}

    def step(self, action):
        assert action == self.now % 3, "forbidden action"
        self.now += 1
        observation, info = self.look()
        return observation, 1.0, False, self.now == 7, info


class Grid(gym.Env):
    """Continuous actions of shape (2, 3)."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-2, 2, (2, 3), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.now += 1
        return np.zeros(2, np.float32), float(np.sum(action)), False, self.now == 9, {}


class Several(gym.Env):
    """Choices in two rows; the return is their sum."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 0]])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action))
        self.now += 1
        return np.zeros(2, np.float32), float(np.sum(action)), False, self.now == 3, {}


gym.register("test/Several-v0", Several)
gym.register("test/Strict-v0", Strict)
gym.register("test/Grid-v0", Grid)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "drqn", "pqn", "ppo", "recurrent_ppo", "a2c", "sac", "reinforce"])
def test_no_forbidden_action_is_ever_taken(name):
    agent = AGENTS[name].create(AGENTS[name].Config(**SMALL[name]), make_environments("test/Strict-v0", 2), 1)
    for _ in range(40):
        agent.step()
    assert agent.timesteps > 60


@pytest.mark.parametrize("name", ["ppo", "recurrent_ppo", "a2c", "sac", "td3", "tqc", "crossq", "reinforce"])
def test_actions_of_several_dimensions(name):
    agent = AGENTS[name].create(AGENTS[name].Config(**SMALL[name]), make_environments("test/Grid-v0", 2), 1)
    for _ in range(40):
        agent.step()
    for deterministic in (True, False):
        assert agent.act(np.zeros((5, 2), np.float32), deterministic=deterministic).shape == (5, 2, 3)


def test_greedy_actions_of_noisy_networks_have_no_noise_under_a_mask():
    config = DQNConfig(network="mlp:8", noisy=True, exploration_initial=0.0, exploration_final=0.0)
    agent = DQN.create(config, make_environments("CartPole-v1", 1), 1)
    observations = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    before = agent.exploration.get_state()
    plain = agent.act(observations, deterministic=True)
    assert (agent.act(observations, deterministic=True, action_mask=np.ones((200, 2))) == plain).all()
    assert (agent.act(observations, deterministic=True, action_mask=np.tile([0, 1], (200, 1))) == 1).all()
    assert np.array_equal(np.asarray(before), np.asarray(agent.exploration.get_state()))


def test_target_entropy_of_discrete_actions_can_be_reached_and_falls():
    envs = make_environments("CartPole-v1", 1)
    agent = SAC.create(SACConfig(network="mlp:8", target_entropy_final=0.2), envs, 1)
    assert agent.target_entropy_at(0.0) == pytest.approx(0.5 * np.log(2))
    assert agent.target_entropy_at(1.0) == pytest.approx(0.1 * np.log(2))
    with pytest.raises(ValueError, match="a share of the uniform policy's entropy"):
        SAC.create(SACConfig(target_entropy=1.0), envs, 1)


def test_masked_actions_count_for_nothing_in_the_actor_loss():
    agent = SAC.create(SACConfig(network="mlp:", compile=False), make_environments("test/Strict-v0", 1), 1)
    agent.step()
    made = agent.replay.gather(rl.tensor([0]))
    assert made.action_masks.tolist() == [[True, False, False]]
    assert agent.compute_loss_pi(made)[1].item() == pytest.approx(0.0, abs=1e-5)  # one action is left: no entropy


COMMON = ["--env", "CartPole-v1", "--total-timesteps", "300", "--eval-episodes", "2", "--num-envs", "2"]


def test_what_shapes_networks_comes_with_them(workplace, capsys):
    small = ["--network", "mlp:8", "--memory", "12", "--num-steps", "32", "--batch-envs", "1", "--frame-stack", "2"]
    assert train.main(["--agent", "recurrent_ppo", *COMMON, *small]) == 0
    (run,) = Path("runs").glob("*/recurrent_ppo/*")
    again = ["--agent", "recurrent_ppo", *COMMON, "--network", str(run), "--run-dir", "second", "--num-steps", "32"]
    assert train.main([*again, "--batch-envs", "1"]) == 0
    capsys.readouterr()
    assert train.main([*again, "--memory", "9"]) == 2
    assert f"--memory comes with the networks of {run}, where it is 12: leave it out" in capsys.readouterr().err


def test_a_run_that_began_with_an_evolved_network_stands_alone(workplace, capsys):
    assert train.main(["--agent", "neat", *COMMON, "--population", "10", "--champion-episodes", "2"]) == 0
    (evolved,) = Path("runs").glob("*/neat/*")
    assert train.main(["--agent", "ppo", *COMMON, "--network", str(evolved), "--num-steps", "16", "--batch-size", "32"]) == 0
    (run,) = Path("runs").glob("*/ppo/*")
    shutil.rmtree(evolved)
    moved = run.rename("moved")
    assert evaluate.main([str(moved), "--episodes", "2"]) == 0
    assert "over 2 episodes" in capsys.readouterr().out


@pytest.mark.parametrize("settings", [{}, {"recurrent": True}, {"lamarck": 3}, {"lamarck": 3, "recurrent": True}], ids=str)
def test_evolution_keeps_to_the_allowed_actions(settings):
    """In evaluation episodes, in training by gradients and in `act`, also in the first step after a reset."""
    config = NEATAgentConfig(population=10, champion_episodes=2, gradient_rollouts=2, gradient_steps=8, **settings)
    agent = NEAT.create(config, make_environments("test/Strict-v0", 3), 1)
    for _ in range(3):
        metrics = agent.step()
    assert metrics["charts/episodic_return"] == 7.0


def test_masks_of_a_partial_reset():
    before = np.array([[True, False], [True, False], [False, True]])
    info = {"action_mask": np.array([[0, 0], [0, 1], [0, 0]], object), "_action_mask": np.array([False, True, False])}
    envs = make_environments("CartPole-v1", 3)
    assert mask_of(info, envs, before).tolist() == [[True, False], [False, True], [False, True]]
    assert mask_of(info, envs).tolist() == [[True, True], [False, True], [True, True]]
    assert mask_of({}, envs, before) is before
    assert mask_of({}, envs) is None


@pytest.mark.parametrize("lamarck", [0, 4])
def test_evolution_finds_choices_of_several_dimensions(lamarck, learning_seed, learned):
    config = NEATAgentConfig(population=40, champion_episodes=2, lamarck=lamarck, gradient_rollouts=2, gradient_steps=6)
    agent = NEAT.create(config, make_environments("test/Several-v0", 4), learning_seed)
    for _ in range(20):
        metrics = agent.step()
    # of the population, whose largest possible mean is 33; without selection it is 19 with a standard deviation of 3
    learned(metrics["neat/mean_fitness"], 33.0, within=8.0)
    assert agent.act(np.zeros((2, 2), np.float32)).tolist() == [[[2, 2], [3, 4]]] * 2
