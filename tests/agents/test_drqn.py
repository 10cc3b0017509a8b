"""DRQN: it remembers within an episode, forgets between episodes, and computes its steps again exactly in updates."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.agents.drqn import DRQN, DRQNConfig
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate

SMALL = {"network": "mlp:16", "memory": 16, "batch_size": 16, "sequence_length": 4, "burn_in": 0, "learning_starts": 50}


def agent_on(env, num_envs=4, seed=1, **settings):
    return DRQN.create(DRQNConfig(**{**SMALL, **settings}), make_environments(env, num_envs), seed)


@pytest.mark.parametrize("burn_in", [0, 3])
def test_a_sign_is_remembered(burn_in, learning_seed):
    """The agent learns to remember a sign; without a memory the mean return would be 0."""
    settings = {"learning_rate": 5e-3, "learning_rate_final": 0.1, "gamma": 0.9, "tau": 0.05, "total_timesteps": 12_000}
    agent = agent_on("rl_lab/ProbeMemory-v0", 4, learning_seed, burn_in=burn_in, sequence_length=8, **settings)
    while agent.timesteps < 12_000:
        agent.step()
    assert evaluate(agent, "rl_lab/ProbeMemory-v0", 40, seed=5).return_mean == 1.0


@pytest.mark.parametrize("settings", [{}, {"normalize_observations": True}], ids=str)
def test_stored_memories_are_those_of_the_steps(settings):
    """Without updates, memories computed from a stored memory equal the stored ones, also over ends of episodes."""
    agent = agent_on("CartPole-v1", learning_starts=10**6, buffer_size=400, **settings)
    frozen = agent.normalization  # statistics move with the data, so old memories would belong to older statistics
    agent.normalization = None
    for _ in range(90):
        agent.step()
    agent.normalization = frozen
    with rl.no_grad():
        batch, ended, memory = agent.replay.sample_sequences(50, 12)
        observations = batch.observations.reshape(12, 50, 4)
        found, _ = agent.memories(agent.network, observations, ended, memory)
    assert ended.numpy().any()
    # the memory after step 10 is the stored memory before step 11, except where an episode begins
    stored = agent.replay.memories
    first = {tuple(row): i for i, row in enumerate(agent.replay.arrays.observations[: len(agent.replay)])}
    found = found.reshape(12, 50, 16).numpy()
    for j in range(50):
        place = first[tuple(observations[11, j].tolist())]
        expected = found[10, j] * (1.0 - float(ended[10, j]))
        np.testing.assert_allclose(stored[place].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_buffer_without_room_for_a_sequence_is_refused():
    with pytest.raises(ValueError, match="raise --buffer-size"):
        agent_on("CartPole-v1", sequence_length=40, buffer_size=100)
