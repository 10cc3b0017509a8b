"""What happens only now and then, or moves over a training: stops, delays, schedules and priorities."""

import math

import numpy as np
import pytest

import rl_lab as rl
from agents.dqn import DQN, DQNConfig
from agents.ppo import PPO, PPOConfig
from agents.sac import SAC, SACConfig
from agents.td3 import TD3, TD3Config
from rl_lab.experiment.environments import make_environments

SMALL = {"network": "mlp:8", "learning_starts": 8, "batch_size": 8, "total_timesteps": 100}


@pytest.mark.parametrize(("target_kl", "epochs"), [(0.0, 5), (1e-9, 1), (1e9, 5)])
def test_the_kl_stop_ends_the_passes(target_kl, epochs):
    config = PPOConfig(num_steps=16, batch_size=16, epochs=5, learning_rate=1e-2, target_kl=target_kl, network="mlp:8")
    agent = PPO(config, make_environments("CartPole-v1", 2), 1)
    metrics = agent.step()
    assert metrics["losses/epochs"] == epochs
    # Adam's first step has the size of the learning rate: the weights show how many there were
    assert agent.optimizer.state_dict()["state"][0]["step"] == 2 * epochs


def test_ppo_anneals_its_step_size_and_its_clip_range():
    config = PPOConfig(
        *(96, "mlp:8"),
        num_steps=16,
        batch_size=32,
        learning_rate=1e-2,
        learning_rate_final=0.1,
        clip_range=0.2,
        clip_range_final=0.5,
    )
    agent = PPO(config, make_environments("CartPole-v1", 2), 1)
    for done in (0, 1 / 3, 2 / 3, 1):
        metrics = agent.step()
        assert metrics["charts/learning_rate"] == pytest.approx(1e-2 * (1 - 0.9 * done))
        assert agent.clip_now.item() == pytest.approx(0.2 * (1 - 0.5 * done))


def test_td3_updates_its_actor_and_targets_every_third_time():
    config = TD3Config(policy_delay=3, gradient_steps=1, **SMALL)
    agent = TD3(config, make_environments("Pendulum-v1", 1), 1)
    while agent.updates == 0:
        agent.step()

    def state() -> list[np.ndarray]:
        modules = (agent.critics, agent.actor, agent.target_actor, agent.target_critics)
        return [np.concatenate([p.detach().numpy().ravel() for p in module.parameters()]) for module in modules]

    for update in range(2, 8):
        before = state()
        agent.step()
        assert agent.updates == update
        changed = [not np.array_equal(x, y) for x, y in zip(before, state(), strict=True)]
        assert changed == [True, *([update % 3 == 0] * 3)]


@pytest.mark.parametrize(("env", "unit"), [("CartPole-v1", 0.5 * math.log(2)), ("Pendulum-v1", -1.0)])
def test_the_target_entropy_falls(env, unit):
    agent = SAC(SACConfig(target_entropy_final=0.2, **SMALL), make_environments(env, 1), 1)
    assert agent.target_entropy.item() == pytest.approx(unit)
    while agent.timesteps < 50:
        agent.step()
    assert agent.target_entropy.item() == pytest.approx(unit * (1 - 0.8 * 0.5))


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_actions_are_random_until_learning_starts(kind):
    """An actor that always chooses the largest action is asked only after ``learning_starts``."""
    agent = kind(
        kind.Config(**{**SMALL, "learning_starts": 200, "total_timesteps": 1000}), make_environments("Pendulum-v1", 1), 1
    )
    with rl.no_grad():
        agent.actor[-1].weight.zero_()
        agent.actor[-1].bias.copy_(rl.tensor([9.0, -9.0] if kind is SAC else [9.0]))
    while agent.timesteps < 200:
        agent.step()
    actions = agent.replay.arrays.actions[:200]
    span = np.ptp(actions)
    assert abs(actions.mean()) < 0.1 * span
    assert actions.std() == pytest.approx(span / math.sqrt(12), rel=0.15)  # uniform
    agent.random_now.fill_(False)
    assert agent.collector.collect(20).actions.min() > 1.5


def test_prioritised_replay_hears_the_differences_of_the_batch_it_gave():
    config = DQNConfig(prioritized=True, tau=0.5, compile=False, **SMALL)
    agent = DQN(config, make_environments("CartPole-v1", 1), 1)
    sample, given, heard = agent.replay.sample, [], []

    def sampled(size):
        batch = sample(size)
        given.append((batch.indices, agent.compute_loss_q(batch)[2]))
        return batch

    agent.replay.sample = sampled
    agent.replay.update_priorities = lambda *told: heard.append(told)
    while len(heard) < 3:
        agent.step()
    for (indices, differences), (places, told) in zip(given, heard, strict=True):
        assert places.tolist() == indices.tolist()
        assert told.tolist() == differences.tolist()
        assert np.ptp(told.numpy()) > 0
