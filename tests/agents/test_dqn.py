"""DQN on probes with known optima, its losses by hand, its determinism, and a real run."""

import dataclasses

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.agents.dqn import DQN, DQNConfig
from rl_lab.experiment.driver import carry_out, make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout import Batch

QUICK = DQNConfig(
    total_timesteps=1500,
    network="mlp:16",
    learning_rate=1e-2,
    learning_rate_final=0.1,
    batch_size=32,
    learning_starts=50,
    train_frequency=1,
    target_update_interval=20,
    gamma=0.9,
    loss="mse",
)


def trained(probe: str, seed: int = 1, num_envs: int = 1, **changes) -> DQN:
    config = dataclasses.replace(QUICK, **changes)
    agent = DQN.create(config, make_environments(f"rl_lab/Probe{probe}-v0", num_envs), seed)
    while agent.timesteps < config.total_timesteps:
        agent.step()
    return agent


def q_values(agent: DQN, *observation: float) -> np.ndarray:
    with rl.no_grad():
        return agent.q_network(rl.tensor([list(observation)])).numpy()[0]


def test_constant_reward(learning_seed, learned):
    learned(q_values(trained("ConstantReward", learning_seed), 0.0), [1.0, 1.0], within=0.05)


def test_observed_reward(learning_seed, learned):
    agent = trained("ObservedReward", learning_seed)
    learned(q_values(agent, 1.0), [1.0, 1.0], within=0.1, what="after 1")
    learned(q_values(agent, -1.0), [-1.0, -1.0], within=0.1, what="after -1")


def test_delayed_reward_is_discounted_once(learning_seed, learned):
    agent = trained("DelayedReward", learning_seed)
    learned(q_values(agent, 1.0), [1.0, 1.0], within=0.05, what="last")
    learned(q_values(agent, 0.0), [0.9, 0.9], within=0.05, what="first")


PARTS = [
    {"double": False},
    {"dueling": True},
    {"n_steps": 3},
    {"prioritized": True},
    {"noisy": True, "exploration_initial": 0.0, "exploration_final": 0.0},
    {"tau": 0.05},
    {"gradient_steps": 3, "train_frequency": 3},
    {"dueling": True, "n_steps": 2, "prioritized": True, "noisy": True},
]


@pytest.mark.parametrize("part", [{}, *PARTS], ids=str)
def test_action_reward(part, learning_seed, learned):
    # the noise shrinks as a noisy network learns, so it seldom tries the worse action and needs more steps to know its value
    agent = trained("ActionReward", learning_seed, total_timesteps=2500 if part.get("noisy") else 1500, **part)
    agent.q_network.eval()
    learned(q_values(agent, 0.0), [-1.0, 1.0], within=0.1)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_part_is_recorded_bit_for_bit(part):
    recorded = trained("MatchReward", total_timesteps=200, compile=True, num_envs=2, **part)
    assert weights(recorded) == weights(trained("MatchReward", total_timesteps=200, compile=False, num_envs=2, **part))


def test_two_steps_count_both_rewards(learning_seed, learned):
    """The value of the first state is the next reward, discounted once, for every ``n_steps``."""
    agent = trained("DelayedReward", learning_seed, n_steps=2)
    learned(q_values(agent, 0.0), [0.9, 0.9], within=0.05)


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_matching_the_observation(loss, learning_seed, learned):
    agent = trained("MatchReward", learning_seed, loss=loss)
    learned(q_values(agent, 1.0), [-1.0, 1.0], within=0.15, what="after 1")
    learned(q_values(agent, -1.0), [1.0, -1.0], within=0.15, what="after -1")


@pytest.mark.parametrize("num_envs", [1, 4])
def test_a_truncated_episode_goes_on(num_envs, learning_seed, learned):
    """The value is 1 / (1 - 0.8) = 5, although episodes are truncated after 5 steps; without bootstrapping it would be 3.36."""
    agent = trained("Endless", learning_seed, num_envs=num_envs, gamma=0.8, total_timesteps=3000)
    learned(q_values(agent, 0.0), [5.0, 5.0], within=0.3)


def test_actions_that_do_not_start_at_zero(learning_seed):
    agent = trained("StartsAtOne", learning_seed, total_timesteps=600)
    assert agent.act(np.zeros((3, 1), np.float32), deterministic=True).tolist() == [2, 2, 2]


# --- exact mathematics -----------------------------------------------------------------------------------------------


def two_networks(**changes) -> DQN:
    """An agent whose two networks are given linear maps of one input, without hidden layers."""
    agent = DQN.create(
        dataclasses.replace(QUICK, network="mlp:", compile=False, **changes),
        make_environments("rl_lab/ProbeActionReward-v0", 1),
        1,
    )
    for network, weight in ((agent.q_network, [[1.0], [2.0]]), (agent.target_network, [[30.0], [10.0]])):
        network.load_state_dict({"0.weight": np.array(weight), "0.bias": np.zeros(2)})
    return agent


BATCH = Batch(
    rl.tensor([[1.0], [1.0]]), rl.tensor([0, 1]), rl.tensor([0.5, 0.5]), rl.tensor([[1.0], [1.0]]), rl.tensor([0.9, 0.0])
)


def test_target_of_q_learning():
    """The target is r + gamma max Q' = 0.5 + 0.9 * 30, and r after a termination."""
    assert two_networks(double=False).compute_td_target(BATCH).tolist() == pytest.approx([27.5, 0.5])


def test_target_of_double_q_learning():
    """The network prefers action 1, which the target network values at 10."""
    assert two_networks(double=True).compute_td_target(BATCH).tolist() == pytest.approx([9.5, 0.5])


def test_the_target_needs_no_gradient_and_the_loss_does():
    agent = two_networks()
    assert not agent.compute_td_target(BATCH).requires_grad
    loss, q_mean, differences = agent.compute_loss_q(BATCH)
    loss.backward()
    assert q_mean.item() == pytest.approx(1.5)
    assert differences.tolist() == pytest.approx([8.5, -1.5])
    assert all(p.grad is not None for p in agent.q_network.parameters())
    assert all(p.grad is None for p in agent.target_network.parameters())


def test_mse_loss_by_hand():
    loss, _, _ = two_networks(double=True, loss="mse").compute_loss_q(BATCH)
    assert loss.item() == pytest.approx(((1.0 - 9.5) ** 2 + (2.0 - 0.5) ** 2) / 2)


def test_exploration_falls_linearly():
    agent = two_networks(exploration_initial=1.0, exploration_final=0.1, exploration_fraction=0.5, total_timesteps=1000)
    for timesteps, expected in ((0, 1.0), (250, 0.55), (500, 0.1), (900, 0.1)):
        agent.timesteps = timesteps
        assert agent.epsilon == pytest.approx(expected)


# --- determinism -----------------------------------------------------------------------------------------------------


def weights(agent: DQN) -> list[bytes]:
    return [value.numpy().tobytes() for value in agent.q_network.state_dict().values()]


def test_one_seed_one_result():
    first, second = (trained("MatchReward", seed=3, total_timesteps=400) for _ in range(2))
    assert weights(first) == weights(second)
    assert weights(first) != weights(trained("MatchReward", seed=4, total_timesteps=400))


def test_recorded_equals_eager_bit_for_bit():
    recorded = trained("MatchReward", total_timesteps=400, compile=True)
    assert weights(recorded) == weights(trained("MatchReward", total_timesteps=400, compile=False))


def test_state_goes_round():
    """A restored agent learns exactly as the original from the same data."""
    agent = trained("ConstantReward", total_timesteps=200)
    twin = DQN.create(agent.config, make_environments("rl_lab/ProbeConstantReward-v0", 1), seed=99)
    twin.load_state_dict(agent.state_dict())
    for _ in range(20):
        agent.step()
        twin.step()
    assert weights(agent) == weights(twin)


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cartpole(full, workplace, learning_seed, learned):
    """The preset solves CartPole-v1; the short form of the test checks its progress after a fifth of the steps."""
    given = {} if full else {"total_timesteps": 10_000, "eval_frequency": 0}
    result = carry_out(make_plan({"agent": "dqn", "env": "CartPole-v1", "seed": learning_seed, **given}))
    assert result.evaluation is not None
    # 500 is the largest possible return, and an untrained network has about 10
    learned(result.evaluation.return_mean, 500.0, within=25.0 if full else 400.0)
    assert result.timesteps <= 50_000
