"""Presets: every one can be used, and there is one for each agent in each environment of the table that suits it."""

import gymnasium as gym
import pytest

from rl_lab.experiment.config import read_toml
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import choose_setup, full_id, spaces_of
from tests.agents.test_contract import AGENTS
from tests.test_architecture import ROOT

PRESETS = read_toml(ROOT / "agents" / "presets.toml")
TABLE = [
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "MountainCarContinuous-v0"),
    *("LunarLander-v3", "LunarLanderContinuous-v3", "Catch-v0", "Bricks-v0"),
]


@pytest.mark.parametrize("env", TABLE)
@pytest.mark.parametrize("name", AGENTS)
def test_where_an_agent_can_act_there_is_a_preset(name, env):
    spec = gym.spec(full_id(env))
    if "box2d" in str(spec.entry_point):
        pytest.importorskip("Box2D")
    _, actions = spaces_of(choose_setup(full_id(env)))
    assert (env in PRESETS[name]) == isinstance(actions, AGENTS[name].action_spaces)


@pytest.mark.parametrize(("name", "env"), [(name, env) for name, tables in PRESETS.items() for env in tables])
def test_a_preset_makes_a_plan(name, env):
    if "LunarLander" in env:
        pytest.importorskip("Box2D")
    plan = make_plan({"agent": name, "env": env})
    for key, value in PRESETS[name][env].items():
        part = plan.options if hasattr(plan.options, key) else plan.config
        assert getattr(part, key) == value
