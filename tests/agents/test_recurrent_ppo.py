"""Recurrent PPO: it remembers within an episode, forgets between episodes, and recomputes its steps exactly in updates."""

import gymnasium as gym
import numpy as np
import pytest

import rl_lab as rl
from rl_lab.agents.recurrent_ppo import RecurrentPPO, RecurrentPPOConfig
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate

SMALL = {"network": "mlp:16", "memory": 16, "num_steps": 32, "batch_envs": 4, "learning_rate": 5e-3, "gamma": 0.9}


def agent_on(env, num_envs=8, seed=1, **settings):
    return RecurrentPPO.create(RecurrentPPOConfig(**{**SMALL, **settings}), make_environments(env, num_envs), seed)


@pytest.mark.parametrize("probe", ["ActionReward", "MatchReward"])
def test_probes(probe, learning_seed):
    agent = agent_on(f"rl_lab/Probe{probe}-v0", seed=learning_seed)
    for _ in range(30):
        agent.step()
    assert evaluate(agent, f"rl_lab/Probe{probe}-v0", 20, seed=5).return_mean == 1.0


def test_a_sign_is_remembered(learning_seed):
    """The agent learns to remember a sign; without a memory the mean return would be 0."""
    # a falling step size: without it the policy sometimes collapses after it has found the solution
    settings = {"entropy_coefficient": 0.01, "learning_rate_final": 0.1, "total_timesteps": 60 * 16 * 32}
    agent = agent_on("rl_lab/ProbeMemory-v0", 16, learning_seed, **settings)
    for _ in range(60):
        agent.step()
    assert evaluate(agent, "rl_lab/ProbeMemory-v0", 40, seed=5).return_mean == 1.0


def first_losses(agent, change=lambda batch: None):
    """The batch of a rollout and its losses before the first update; no update is made."""
    seen = []

    def look():
        change(agent.batch)
        with rl.no_grad():
            seen.append([loss.item() for loss in agent.compute_loss(agent.batch)])

    agent._epoch = look
    agent.step()
    return agent.batch, seen[0]


@pytest.mark.parametrize("settings", [{}, {"normalize_observations": True}], ids=str)
def test_sequences_give_the_probabilities_of_the_steps(settings):
    """Before an update every probability ratio is 1, also in later rollouts, which begin with a memory and contain ends of episodes."""
    agent = agent_on("CartPole-v1", compile=False, **settings)
    with rl.no_grad():
        agent.actor.weight.mul_(100.0)  # makes the actions depend on the memory from the start
    for _ in range(3):
        batch, (policy_loss, value_loss, _, divergence) = first_losses(agent)
        assert abs(divergence) < 1e-6
        assert policy_loss == pytest.approx(0.0, abs=1e-5)  # minus the mean of normalized advantages
        assert value_loss == pytest.approx(0.5 * float((batch["advantages"] ** 2).mean()), rel=1e-3)
    assert (batch["goes_on"].numpy() == 0).any()
    # the losses differ if an episode remembers the one before, and if a rollout lacks its first memory
    for name, number in (("goes_on", 1.0), ("first_memory", 0.0)):
        _, losses = first_losses(agent, lambda batch, name=name, number=number: batch[name].fill_(number))
        assert losses[3] > 1e-5


def test_what_is_observed_after_a_truncation_is_valued_with_the_memory_of_the_episode():
    agent = agent_on("rl_lab/ProbeEndless-v0", num_steps=8, gamma=0.8, gae_lambda=0.0, compile=False)
    batch, _ = first_losses(agent)
    with rl.no_grad():
        memory = rl.zeros(8, 16)
        steps = []
        for t in range(8):
            memory = agent.next_memory(rl.zeros(8, 1), memory if t % 5 else memory * 0.0)
            following = agent.critic(agent.next_memory(rl.zeros(8, 1), memory)).squeeze(1)
            steps.append(1.0 + 0.8 * following)
    np.testing.assert_allclose(batch["returns"].numpy(), rl.stack(steps).numpy(), rtol=1e-5)


def test_acting_forgets_at_the_beginning_of_an_episode():
    agent = agent_on("CartPole-v1")
    for _ in range(3):
        agent.step()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    agent.begin_episodes(np.ones(3, bool))
    agent.act(x, deterministic=True)
    first = agent._acting.numpy().copy()
    agent.act(x, deterministic=True)
    assert (agent._acting.numpy() != first).all(1).all()
    agent.begin_episodes(np.array([True, False, True]))
    agent.act(x, deterministic=True)
    same = np.isclose(agent._acting.numpy(), first).all(1)
    assert same.tolist() == [True, False, True]


def test_what_cannot_be():
    with pytest.raises(ValueError, match="must divide num_envs 8"):
        agent_on("CartPole-v1", batch_envs=3)
    with pytest.raises(ValueError, match="autoreset_mode=SAME_STEP"):
        RecurrentPPO.create(RecurrentPPOConfig(), gym.make_vec("CartPole-v1", 4), 1)
