"""Agents find the known best actions of spaces with several parts, and the best allowed ones under masks."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rl_lab.rollout import ActionMapping
from tests.agents.test_contract import AGENTS

SIGNS = np.array(list(itertools.product((-1.0, 1.0), repeat=2)), np.float32)
"""All observations: two signs."""
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "ppo": (8_000, {"num_steps": 16, "batch_size": 64, "learning_rate": 1e-2, "network": "mlp:16"}),
    "a2c": (12_000, {"num_steps": 8, "learning_rate": 1e-2, "learning_rate_final": 0.1, "network": "mlp:16"}),
    "reinforce": (16_000, {"learning_rate": 3e-2, "log_std": -0.7, "network": "mlp:16"}),
    "sac": (
        3_000,
        {
            "network": "mlp:32",
            "learning_rate": 5e-3,
            "batch_size": 64,
            "learning_starts": 200,
            "train_frequency": 8,
            "gradient_steps": 4,
            "tau": 0.05,
            "temperature": 0.2,
            "learn_temperature": False,
        },
    ),
}
"""Environment steps and settings of each agent."""


class Match(gym.Env):
    """Episodes of 32 steps. Two signs are observed, new ones in each step; the best action depends on them, and its reward is 0.

    The reward is minus the number of wrong choices, minus the squared distances of the components from their best values, in units in
    which the box has the bounds -1 and 1. With ``masked`` a random mask forbids the best option of the first choice half of the time;
    then the first allowed option is the best one.
    """

    observation_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, space: gym.Space, masked: bool = False):
        self.action_space = space
        self.masked = masked
        self.mapping = ActionMapping(space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show()

    def show(self):
        self.signs = SIGNS[self.np_random.integers(4)]
        self.mask = np.ones(self.mapping.num_masked, bool)
        if self.masked and self.np_random.random() < 0.5:
            self.mask[int(best(self.mapping, self.signs)[0])] = False
        return self.signs, {"action_mask": self.mask} if self.masked else {}

    def step(self, action):
        taken = self.mapping.to_policy(batch_of(action)).reshape(-1)
        wanted = best(self.mapping, self.signs, self.mask)
        count = len(self.mapping.choices)
        wrong = (taken[:count] != wanted[:count]).sum()
        off = np.square(taken[count:] - wanted[count:]).sum()
        self.t += 1
        signs, info = self.show()
        return signs, -float(wrong) - 4 * float(off), self.t >= 32, False, info


def best(mapping: ActionMapping, signs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The best policy's action: choice k is given by sign k % 2, from the front or the back; component k is half the sign."""
    choices = [0 if signs[k % 2] < 0 else options - 1 for k, options in enumerate(mapping.choices)]
    if mask is not None and mapping.choices and not mask[choices[0]]:
        choices[0] = int(mask[: mapping.choices[0]].argmax())
    return np.array([*choices, *[0.5 * signs[k % 2] for k in range(mapping.size)]])


def batch_of(action):
    if isinstance(action, tuple):
        return tuple(batch_of(part) for part in action)
    if isinstance(action, dict):
        return {name: batch_of(part) for name, part in action.items()}
    return np.asarray(action)[None]


SPACES = {
    "MultiBinary": MultiBinary(3),
    "Tuple": Tuple((Discrete(2, start=1), Box(-4.0, 2.0, (1,)))),
    "Dict": Dict({"bits": MultiBinary(2), "how far": Box(10.0, 20.0, (1,), np.float64), "which": Discrete(2)}),
}


def learned_actions(name: str, space: gym.Space, seed: int, masked: bool = False):
    steps, settings = SETTINGS[name]
    agent = AGENTS[name](lambda: Match(space, masked), seed=seed, num_envs=8, preset=False, gamma=0.0, **settings)
    agent.learn(steps)
    return agent


CASES = [(name, space) for name in SETTINGS for space in SPACES]
SHORT = {"ppo": ("MultiBinary", "Dict"), "sac": ("Tuple", "Dict"), "a2c": ("Dict",), "reinforce": ("Dict",)}
"""The cases that always run; all run with --full."""


@pytest.mark.parametrize(("name", "space"), CASES)
def test_the_best_actions_are_found(name, space, full, learning_seed, learned):
    if not full and space not in SHORT[name]:
        pytest.skip("runs with --full")
    agent = learned_actions(name, SPACES[space], learning_seed)
    found = agent.mapping.to_policy(agent.act(SIGNS, deterministic=True))
    wanted = np.stack([best(agent.mapping, signs) for signs in SIGNS])
    count = len(agent.mapping.choices)
    learned(found[:, :count], wanted[:, :count], within=0, what="choices")
    if agent.mapping.size:
        learned(found[:, count:], wanted[:, count:], within=0.2, what="components")


MASKED = {"MultiDiscrete": MultiDiscrete([3, 2]), "Tuple": Tuple((Discrete(3), Box(-1.0, 1.0, (1,))))}


@pytest.mark.parametrize(("name", "space"), [("ppo", "MultiDiscrete"), *[(name, "Tuple") for name in SETTINGS]])
def test_the_best_allowed_actions_are_found(name, space, full, learning_seed, learned):
    """With and without the best option of the first choice."""
    if not full and (name, space) not in (("ppo", "MultiDiscrete"), ("sac", "Tuple")):
        pytest.skip("runs with --full")
    agent = learned_actions(name, MASKED[space], learning_seed, masked=True)
    for forbid in (False, True):
        masks = np.ones((4, agent.mapping.num_masked), bool)
        if forbid:
            masks[range(4), [int(best(agent.mapping, signs)[0]) for signs in SIGNS]] = False
        found = agent.mapping.to_policy(agent.act(SIGNS, deterministic=True, action_mask=masks))
        wanted = np.stack([best(agent.mapping, signs, mask) for signs, mask in zip(SIGNS, masks, strict=True)])
        count = len(agent.mapping.choices)
        learned(found[:, :count], wanted[:, :count], within=0, what=f"choices, forbid={forbid}")


def test_evolution_finds_actions_with_several_parts(learning_seed, learned):
    space = SPACES["Tuple"]
    agent = AGENTS["neat"](
        lambda: Match(space), seed=learning_seed, num_envs=8, preset=False, population=40, champion_episodes=2
    )
    first = agent.step()["charts/episodic_return"]
    for _ in range(9):
        metrics = agent.step()
    # the population's mean cost of a step is 2.2 with a standard deviation of 0.3, and 5.1 without selection
    learned(metrics["neat/mean_fitness"] / 32, 0.0, within=3.5)
    found = agent.mapping.to_policy(agent.act(SIGNS, deterministic=True))
    wanted = np.stack([best(agent.mapping, signs) for signs in SIGNS])
    cost = (found[:, :1] != wanted[:, :1]).sum(1) + 4 * np.square(found[:, 1] - wanted[:, 1])
    assert cost.mean() < 0.5 * -first / 32
