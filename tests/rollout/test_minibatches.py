"""Minibatches of a rollout: every step once in an epoch, and the same numbers however an epoch is recorded."""

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.experiment.agent import find_agent
from rl_lab.rollout import Minibatches, minibatches


def test_an_epoch_draws_every_step_once_and_in_a_new_order():
    drawn = Minibatches(24, 4, rl.Generator(1))
    assert drawn.count == 6
    orders = []
    for _ in range(3):
        drawn.begin()
        orders.append(np.concatenate([drawn.draw().numpy() for _ in range(6)]))
        assert sorted(orders[-1]) == list(range(24))
    assert not np.array_equal(orders[0], orders[1])


def test_drawing_and_splitting_give_the_same_minibatches():
    a, b = (Minibatches(24, 4, rl.Generator(1)) for _ in range(2))
    a.begin()
    for part in b.shuffled().split(4):
        assert a.draw().equal(part)


@pytest.mark.parametrize("name", ["ppo", "pqn"])
@pytest.mark.parametrize("record", [True, False])
def test_one_recorded_minibatch_learns_what_a_recorded_epoch_learns(name, record, monkeypatch):
    states = []
    for most in (1, 100):
        monkeypatch.setattr(minibatches, "MOST_RECORDED", most)
        settings = {"num_envs": 2, "num_steps": 32, "batch_size": 16, "epochs": 3, "compile": record, "network": "mlp:8"}
        agent = find_agent(name)("CartPole-v1", preset=False, seed=3, **settings)
        agent.learn(256)
        assert agent.minibatches.few == (most == 100)
        learned = agent.actor if name == "ppo" else agent.network
        states.append([p.detach().numpy().tobytes() for p in learned.parameters()])
    assert states[0] == states[1]
