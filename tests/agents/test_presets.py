"""Presets: every preset is valid, and every agent has one for each environment of the table whose actions it supports."""

import dataclasses
import re
from dataclasses import fields

import pytest
from gymnasium.spaces import Box, Discrete

from rl_lab import train
from rl_lab.agents.qrdqn import RAINBOW
from rl_lab.experiment.agent import note_of_preset, preset_for
from rl_lab.experiment.config import make_config, read_toml
from rl_lab.experiment.driver import Options, make_plan, make_resuming_plan
from rl_lab.experiment.faults import Fault
from tests.agents.test_contract import AGENTS
from tests.test_architecture import ROOT

PRESETS = read_toml(ROOT / "agents" / "presets.toml")
TABLE = {
    **dict.fromkeys(("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3", "Catch-v0", "Bricks-v0"), Discrete),
    **dict.fromkeys(("Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3"), Box),
}
"""The kind of actions of each environment, listed because Box2D may not be installed."""
NOT_ALWAYS_INSTALLED = re.compile("LunarLander|BipedalWalker|Hopper|Walker2d|HalfCheetah|Ant-v")
"""Environments of Box2D and MuJoCo."""


FEW = ("ars", "es", "cmaes", "drqn")
"""Agents with presets for some environments of the table."""
UNLEARNED = {("neat", "Catch-v0"), ("neat", "Bricks-v0"), ("reinforce", "Bricks-v0")}
"""Games that these agents did not learn with any settings that were tried, in up to 30 million steps: a preset would promise too much."""
OFFLINE = ("bc", "iql")
"""Agents whose settings depend on a dataset that the user has, so they have no presets."""


@pytest.mark.parametrize("env", TABLE)
@pytest.mark.parametrize("name", [name for name in AGENTS if name not in (*FEW, *OFFLINE)])
def test_where_an_agent_can_act_there_is_a_preset(name, env):
    expected = TABLE[env] in AGENTS[name].action_spaces and (name, env) not in UNLEARNED
    assert (env in PRESETS[name]) == expected


@pytest.mark.parametrize("name", [name for name in AGENTS if name in FEW])
def test_other_agents_have_presets_for_two_environments(name):
    assert len(PRESETS[name]) >= 2


@pytest.mark.parametrize(("name", "env"), [(name, env) for name, tables in PRESETS.items() for env in tables if name in AGENTS])
def test_a_preset_is_read(name, env):
    own = {field.name for field in fields(Options)}
    given = preset_for(AGENTS[name], name, env)
    assert given == {key: value for key, value in PRESETS[name][env].items() if key != "note"}
    options = make_config(Options, {key: value for key, value in given.items() if key in own})
    config = make_config(AGENTS[name].Config, {key: value for key, value in given.items() if key not in own})
    assert all(getattr(options if key in own else config, key) == value for key, value in given.items())
    assert options.eval_frequency or not (options.keep_best or options.stop_return)


def test_without_evaluations_a_preset_keeps_no_best_state():
    """A user who turns evaluations off did not ask for what a preset does with them."""
    plan = make_plan({"agent": "dqn", "env": "CartPole-v1", "eval_frequency": 0})
    assert not plan.options.keep_best
    assert plan.options.stop_return is None
    assert "keep_best" not in plan.preset
    assert "stop_return" not in plan.preset
    with pytest.raises(Fault, match="--keep-best needs --eval-frequency"):
        make_plan({"agent": "dqn", "env": "CartPole-v1", "eval_frequency": 0, "keep_best": True})


@pytest.mark.parametrize("trained_before", [False, True])
def test_rainbow_goes_by_name(trained_before, tmp_path, monkeypatch, capsys):
    """``--config rainbow`` adds the settings of Rainbow to the preset; options override both. A file of this name comes first."""
    monkeypatch.chdir(tmp_path)
    if trained_before:
        (tmp_path / "rainbow").write_text("quantiles = 7")
    plan = train.parse(["--agent", "qrdqn", "--env", "CartPole-v1", "--config", "rainbow", "--n-steps", "5"])
    if trained_before:
        assert plan.config.quantiles == 7
        return
    assert dataclasses.asdict(plan.config).items() >= (RAINBOW | {"n_steps": 5, "batch_size": 128}).items()
    assert plan.preset
    assert capsys.readouterr().out == "rainbow: these settings fail with some seeds on CartPole-v1\n"


@pytest.mark.parametrize(
    ("name", "env"), [(n, e) for n in PRESETS for e in PRESETS[n] if n in AGENTS and not NOT_ALWAYS_INSTALLED.search(e)]
)
def test_a_preset_makes_a_plan(name, env):
    assert make_plan({"agent": name, "env": env}).preset


AGENT = """
from rl_lab.agents.a2c import A2C

class Mine(A2C):
    pass
"""
NOTED = """
["mine:Mine"."CartPole-v1"]
total_timesteps = 64
note = "It falls over with every third seed."
["mine:Mine"."Acrobot-v1"]
note = 3
"""


def test_a_note_on_a_preset_is_shown_where_the_preset_is_used(workplace, capsys):
    (workplace / "mine.py").write_text(AGENT)
    (workplace / "presets.toml").write_text(NOTED)
    words = ["--agent", "mine:Mine", "--env", "CartPole-v1", "--eval-episodes", "1"]
    assert train.main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ["preset: total_timesteps 64", "note on this preset: It falls over with every third seed."]
    assert train.main([*words, "--total-timesteps", "32"]) == 0  # nothing of the preset is left
    assert "note on this preset" not in capsys.readouterr().out
    assert make_resuming_plan(next(workplace.glob("runs/*/*/*")), {}, trust=True).note == ""
    with pytest.raises(Fault, match="must be a text of one line, not 3"):
        make_plan({"agent": "mine:Mine", "env": "Acrobot-v1", "seed": 1})


@pytest.mark.parametrize(("name", "env"), [(n, e) for n in PRESETS for e in PRESETS[n] if n in AGENTS])
def test_a_note_is_a_sentence(name, env):
    note = note_of_preset(AGENTS[name], name, env)
    assert not note or (note[0].isupper() and note.endswith("."))
