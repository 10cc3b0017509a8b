"""Agents of users: what they may declare and keep, and what a mistake in them is called, before anything is created."""

import dataclasses
import enum
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest

import rl_lab as rl
from rl_lab import train as command
from rl_lab.agents.recurrent_ppo import RecurrentPPO
from rl_lab.experiment import Agent, Fault, setting, train
from rl_lab.experiment.config import as_plain, make_config
from rl_lab.testing import check_agent, content
from tests.agents.test_readme_example import ACTOR_CRITIC

# --- parts -----------------------------------------------------------------------------------------------------------


def keeping(first: Any, after: Any) -> type[Agent]:
    """An agent with a part that is ``first`` when it is built and ``after`` when it has learned."""

    class Keeping(ACTOR_CRITIC):
        saved = (*ACTOR_CRITIC.saved, "part")

        def build(self):
            super().build()
            self.part = first

        def step(self):
            self.part = after
            return super().step()

    return Keeping


PARTS = {
    "an integer that becomes a fraction": (0, 0.8),
    "a dict that grows": ({}, {"a": 1.5, "b": {"c": [1, "x", None, True]}}),
    "a dict that loses a key": ({"a": 1, "b": 2}, {"b": 3}),
    "a list that grows": ([], [1.5, [2, 3]]),
    "a list that shrinks": ([1, 2, 3], [4]),
    "a tuple": ((1, 2.5), (3, 4.5)),
    "a list of arrays": ([], [np.arange(3), np.ones((2, 2), np.float32)]),
    "None that becomes a number": (None, 1.5),
    "None that becomes an array": (None, np.arange(4)),
    "None that becomes a tensor": (None, rl.ones(3)),
    "a text": ("", "abc"),
    "a NumPy number": (np.float32(0), np.float32(2.5)),
    "a flag": (False, True),
    "an array": (np.zeros(3), np.arange(3.0)),
}


@pytest.mark.parametrize("how", ["file", "state"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_comes_back_as_it_was_saved(name, how, tmp_path):
    first, after = PARTS[name]
    kind = keeping(first, after)
    agent = kind("CartPole-v1", preset=False).learn(32)
    if how == "file":
        agent.save(tmp_path / "agent")
        other = kind.load(tmp_path / "agent")
    else:
        other = kind("CartPole-v1", preset=False)
        other.load_state_dict(agent.state_dict())
    assert content(other.part) == content(after)
    if isinstance(after, (bool, int, float, str, tuple, list, dict, np.generic)):
        assert type(other.part) is type(after)


@pytest.mark.parametrize("part", [object(), [object()], {"a": (1, object())}, print])
def test_a_part_that_cannot_be_saved_is_named_before_training(part, workplace):
    kind = keeping(part, part)
    with pytest.raises(Fault, match=r"the part part of Keeping.* cannot be saved: give it state_dict"):
        kind("CartPole-v1", preset=False)
    assert not any(workplace.iterdir())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"saved": ("optimizer", "stream", "missing")}, "saved names 'missing', which build.. does not make"),
        ({"learned": "networks"}, r"learned must be a tuple of names, such as \('networks',\)"),
        ({"build": Agent.build, "greedy": Agent.greedy}, r"Wrong does not define build\(\) and greedy\(\)"),
        ({"Config": None}, "Wrong has no Config"),
    ],
)
def test_wrong_declarations(names, message):
    kind: Any = type("Wrong", (ACTOR_CRITIC,), {**names, "__module__": __name__})
    with pytest.raises(Fault, match=message):
        kind("CartPole-v1", preset=False)
    with pytest.raises((AssertionError, Fault), match=message):
        check_agent(kind)


def test_an_agent_that_only_acts_needs_no_step():
    kind: Any = type("Acting", (ACTOR_CRITIC,), {"step": Agent.step, "__module__": __name__})
    agent = kind("CartPole-v1", preset=False)
    agent.predict(np.zeros(4, np.float32))
    with pytest.raises(NotImplementedError, match=r"Acting must define step\(\)"):
        agent.learn(16)
    with pytest.raises(AssertionError, match=r"Acting must define step\(\)"):
        check_agent(kind)


# --- settings --------------------------------------------------------------------------------------------------------


class Kind(enum.Enum):
    A = "a"


@dataclasses.dataclass(frozen=True)
class Inner:
    x: int = 1


def with_setting(annotation: Any, default: Any) -> type:
    return dataclasses.make_dataclass(
        "Own",
        [("total_timesteps", int, setting(64, "steps")), ("odd", annotation, setting(default, "a setting"))],
        frozen=True,
    )


@pytest.mark.parametrize(
    ("annotation", "default", "given", "wrong"),
    [
        (Literal["x", "y"], "x", "y", "z"),
        (Literal[1, 2], 1, 2, 3),
        (Optional[int], 5, None, "x"),  # noqa: UP045
        (float | None, None, 0.5, "x"),
        (tuple[int, ...], (1, 2), (3,), ("x",)),
        (tuple[str, ...], (), ("a", "b"), 5),
        (bool, False, True, "perhaps"),
        (Literal["a", "b"] | None, None, "b", "c"),
    ],
)
def test_a_setting_goes_round(annotation, default, given, wrong):
    kind = with_setting(annotation, default)
    made = make_config(kind, {"odd": given})
    assert made.odd == given
    assert type(made.odd) is type(given)
    assert make_config(kind, as_plain(made)) == made
    text = "none" if given is None else ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
    assert make_config(kind, {"odd": text}) == made
    with pytest.raises(Fault, match="--odd"):
        make_config(kind, {"odd": wrong})


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (Kind, Kind.A), (Path, Path("a")), (dict, None), (list[int], None), (tuple[int, float], (1, 2.0)), (Inner, Inner()),
        (int | str, 1), (Literal[1, "a"], 1), (Any, 1), (complex, 1j), (tuple[Path, ...], ()),
    ],
)  # fmt: skip
def test_a_type_that_a_setting_cannot_have_is_refused_at_once(annotation, default, workplace):
    kind: Any = type("Odd", (ACTOR_CRITIC,), {"Config": with_setting(annotation, default), "__module__": __name__})
    for call in (lambda: kind("CartPole-v1", preset=False), lambda: check_agent(kind)):
        with pytest.raises(Fault, match=r"the setting odd of Own is of the type .*: use bool, int, float, str"):
            call()
    assert not any(workplace.iterdir())


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("num_envs: int = 2", "the setting num_envs of Config has the name of an option of every run"),
        ("width: int = dataclasses.field(default=1, init=False)", "init=False"),
        ("width: int", "has no default"),
        ("width: dict = dataclasses.field(default_factory=dict)", "of the type dict"),
        ("width: 'Unknown' = 1", "annotations of Config cannot be read"),
    ],
)
def test_the_command_refuses_a_setting_in_one_line(field, message, workplace, capsys):
    module = f"setting_{sum(field.encode())}"  # another module in each test: Python keeps what it has imported
    (workplace / f"{module}.py").write_text(
        "import dataclasses\nfrom tests.agents.test_readme_example import ACTOR_CRITIC\n"
        f"@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Config:\n    total_timesteps: int = 64\n    {field}\n"
        "class Odd(ACTOR_CRITIC):\n    Config = Config\n"
    )
    for words in (["--help"], ["--total-timesteps", "64"]):
        assert command.main(["--agent", f"{module}:Odd", "--env", "CartPole-v1", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (workplace / "runs").exists()


def test_a_setting_without_a_help_text_is_an_option(workplace, capsys):
    (workplace / "plain_setting.py").write_text(
        "import dataclasses\nfrom tests.agents.test_readme_example import ACTOR_CRITIC\n"
        "@dataclasses.dataclass(frozen=True)\nclass Config:\n    total_timesteps: int = 64\n    learning_rate: float = 0.1\n"
        "    width: int = 8\nclass Plain(ACTOR_CRITIC):\n    Config = Config\n"
    )
    with pytest.raises(SystemExit, match="0"):
        command.main(["--agent", "plain_setting:Plain", "--env", "CartPole-v1", "--help"])
    assert "--width INT" in capsys.readouterr().out
    words = ["--agent", "plain_setting:Plain", "--env", "CartPole-v1", "--width", "4", "--eval-episodes", "1"]
    assert command.main(words) == 0


# --- metrics and callbacks -------------------------------------------------------------------------------------------


def telling(value: Any) -> Agent:
    class Telling(ACTOR_CRITIC):
        def step(self):
            return {**super().step(), "losses/own": value}

    return Telling("CartPole-v1", preset=False)


@pytest.mark.parametrize("value", [1, 2.5, True, np.float32(1.5), np.array(2), rl.tensor(0.5), rl.tensor([0.5])])
def test_a_metric_is_a_number(value):
    seen = []
    telling(value).learn(16, callback=lambda agent, metrics: seen.append(metrics["losses/own"]))
    assert seen == [float(value)]
    assert type(seen[0]) is float


@pytest.mark.parametrize("value", [None, "abc", np.ones(3), rl.ones(2), [1.0], 1j])
def test_a_metric_that_is_no_number_is_named(value):
    with pytest.raises(TypeError, match="the metric 'losses/own' is"):
        telling(value).learn(16)


def test_a_step_without_metrics_says_what_to_return():
    class Silent(ACTOR_CRITIC):
        def step(self):
            super().step()

    with pytest.raises(TypeError, match=r"Silent.step\(\) returned None: return a dict"):
        Silent("CartPole-v1", preset=False).learn(16)


@pytest.mark.parametrize("answer", [False, np.False_, np.array(False), rl.tensor(False), rl.tensor([0.0]) > 1.0])
def test_a_false_answer_stops(answer):
    agent = ACTOR_CRITIC("CartPole-v1", preset=False)
    agent.learn(64, callback=lambda *_: answer)
    assert agent.timesteps == 16


@pytest.mark.parametrize("answer", [None, True, np.True_, rl.tensor(True), "", 0])
def test_any_other_answer_goes_on(answer):
    agent = ACTOR_CRITIC("CartPole-v1", preset=False)
    agent.learn(64, callback=lambda *_: answer)
    assert agent.timesteps == 64


# --- the contract finds -----------------------------------------------------------------------------------------------


class Drifting(ACTOR_CRITIC):
    """Its policy changes when it acts."""

    def greedy(self, observations, action_mask=None):
        with rl.no_grad():
            for parameter in self.networks["actor"].parameters():
                parameter.add_(1e-3)
        return super().greedy(observations, action_mask)


class Remembering(RecurrentPPO):
    """Does not clear what it remembers when episodes begin."""

    def begin_episodes(self, begins):
        if len(self._acting) != len(begins):
            super().begin_episodes(begins)


class Forgetting(RecurrentPPO):
    """Its exported policy forgets."""

    def greedy_step(self):
        function, memory = super().greedy_step()

        def step(observations, *given):
            action, *after = function(observations, *given)
            return action, *[part * 0 for part in after]

        return step, memory


class Broken(RecurrentPPO):
    """Its policy cannot be exported, and does not say so."""

    def greedy_step(self):
        raise NotImplementedError


SMALL: dict[str, Any] = {"num_steps": 16, "network": "mlp:8", "memory": 8}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Drifting, {}, "changes the agent"),
        (Remembering, SMALL, "must clear it"),
        (Broken, SMALL, "NotImplementedError"),
    ],
)
def test_the_contract_finds(kind, settings, message):
    with pytest.raises(AssertionError, match=message):
        check_agent(kind, **settings)


def test_the_contract_finds_a_policy_that_forgets():
    """Where the memory decides: the observation is always 0."""
    from rl_lab.testing import _remembering

    for kind, fails in ((RecurrentPPO, False), (Forgetting, True)):
        agent = kind("Pendulum-v1", preset=False, seed=1, **SMALL)
        agent.learn(64)
        for parameter in agent.actor.parameters():
            parameter.data.mul_(20.0)
        rows = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
        if fails:
            with pytest.raises(AssertionError, match="greedy_step"):
                _remembering(agent, rows)
        else:
            _remembering(agent, rows)


def test_training_an_unsavable_agent_creates_nothing(workplace):
    (workplace / "unsavable.py").write_text(
        "from tests.agents.test_readme_example import ACTOR_CRITIC\n"
        "class Window: pass\n"
        "class Own(ACTOR_CRITIC):\n    saved = (*ACTOR_CRITIC.saved, 'window')\n"
        "    def build(self):\n        super().build()\n        self.window = Window()\n"
    )
    with pytest.raises(Fault, match="of type Window cannot be saved"):
        train("unsavable:Own", "CartPole-v1", total_timesteps=64)
    assert not (workplace / "runs").exists()
