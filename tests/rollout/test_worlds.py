"""The environments of users: every observation space, habits that are accepted with a warning, mistakes that are named, masks, numbers."""

import re
import warnings
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple

from rl_lab.engine.errors import EnvironmentFault, EnvironmentWarning
from rl_lab.experiment.checking import check
from rl_lab.experiment.environments import Setup, make_environments
from rl_lab.experiment.evaluation import evaluate
from rl_lab.experiment.faults import Fault
from rl_lab.rollout import adapter
from rl_lab.testing import content
from tests.agents.test_contract import AGENTS, SMALL
from tests.rollout.worlds import HABITS, LENGTH, MISTAKES, NO_NUMBERS, OBSERVATIONS, ClosesBadly, Copied, Reused, World, world

KINDS = ["ppo", "dqn"]  # on policy and from replay


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    """Warnings are given once for each process; here once for each test."""
    monkeypatch.setattr(adapter, "_said", set())


def made(kind: str, env, num_envs: int = 2, **settings):
    eager = {"compile": False} if any(field.name == "compile" for field in fields(AGENTS[kind].Config)) else {}
    return AGENTS[kind](env, seed=3, num_envs=num_envs, preset=False, **{**SMALL[kind], **eager, **settings})


def trained(kind: str, env, steps: int = 60, **settings):
    agent = made(kind, env, **settings)
    while agent.timesteps < steps:
        agent.step()
    return agent


# --- observation spaces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_observation_space(name):
    """Agents see arrays of one shape; `predict` takes the environment's own observations."""
    kind, shape = OBSERVATIONS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent = trained("ppo", kind, steps=32)
    said = [str(w.message) for w in caught if w.category is EnvironmentWarning]
    assert [line for line in said if "left out" not in line] == []
    assert agent.shape == shape
    env = kind()
    for seed in range(5):
        raw, _ = env.reset(seed=seed)
        mapping = agent.envs.observation_mapping
        seen = mapping.array(raw)
        assert mapping.box.contains(seen)
        assert agent.predict(raw) == agent.act(np.asarray(seen, np.float32)[None], deterministic=True)[0]


@pytest.mark.parametrize("name", ["Discrete", "nested", "Dict with a Text"])
def test_a_loaded_agent_takes_the_environments_observations(name, tmp_path):
    """Also without the environment, which was made by a function that no file can hold."""
    kind, _ = OBSERVATIONS[name]
    agent = trained("ppo", lambda: kind(), steps=32)
    agent.save(tmp_path / "agent")
    twin = AGENTS["ppo"].load(tmp_path / "agent")
    for seed in range(5):
        raw, _ = kind().reset(seed=seed)
        assert twin.predict(raw) == agent.predict(raw)


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_spaces_without_numbers_are_named(name):
    with pytest.raises(Fault, match=f"({name}|Text).* holds no numbers to learn from: use Box, Discrete"):
        made("ppo", world(observation_space=NO_NUMBERS[name]))


@pytest.mark.parametrize("space", [gym.spaces.Text(3), gym.spaces.Sequence(Discrete(2)), gym.spaces.Graph(Discrete(2), None)])
def test_actions_that_no_agent_takes_are_named(space):
    for kind in AGENTS:
        with pytest.raises(Fault, match=type(space).__name__):
            made(kind, world(action_space=space))


def test_one_hot_parts_stand_where_gymnasium_puts_them():
    kind, _ = OBSERVATIONS["nested"]
    envs = make_environments(Setup("nested", maker=kind), 1)
    raw = {"a": (1, {"c": np.array([0.25], np.float32)}), "b": np.array([0, 1])}
    assert envs.observation_mapping.array(raw).tolist() == gym.spaces.flatten(kind.observation_space, raw).tolist()


# --- habits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HABITS)
def test_habits_are_accepted_with_one_warning(name, kind):
    env, expected = HABITS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent = trained(kind, env)
        result = evaluate(agent, episodes=3)
    said = [str(w.message) for w in caught if w.category is EnvironmentWarning]
    assert result.length_mean == LENGTH
    if expected is None:
        assert said == []
    else:
        assert len(said) == 1
        assert re.search(expected, said[0]), said
        assert said[0].startswith(env().unwrapped.__class__.__name__)


@pytest.fixture(params=[0, adapter.BOUNDS_CHECKED], ids=["unchecked", "checked"])
def bounds_checked(request, monkeypatch) -> None:
    """The first observations, whose bounds are checked, take another path than later ones."""
    monkeypatch.setattr(adapter, "BOUNDS_CHECKED", request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reused_array_teaches_what_copies_teach(kind, bounds_checked):
    finals = []
    for env in (Reused, Copied):
        agent = trained(kind, lambda env=env: gym.wrappers.TimeLimit(env(), 4), compile=True)
        finals.append(content({key: part for key, part in agent.state_dict().items() if key != "collector"}))
    assert finals[0] == finals[1]


def test_a_reused_array_in_a_stack_of_frames(bounds_checked):
    """Each frame of a stack is what was observed at its time."""
    for env in (Reused, Copied):
        envs = make_environments(Setup("stacked", maker=env, frame_stack=3), 1)
        envs.reset(seed=0)
        for _ in range(3):
            observations, *_ = envs.step(np.zeros(1, int))
        assert observations[0, :, 0] == pytest.approx([0.2, 0.3, 0.4], abs=1e-6)


def test_close_that_raises_does_not_hide_the_result():
    with pytest.warns(EnvironmentWarning, match=r"close\(\) raised OSError: the window is gone \(.*worlds\.py, line"):
        result = evaluate(trained("ppo", ClosesBadly), episodes=2)
    assert result.episodes == 2


# --- mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*HABITS, *MISTAKES])
def test_check_reports_every_world(name):
    """The check before training reports faults. It does not raise them."""
    env, _ = (HABITS | MISTAKES)[name]
    report = check(Setup("World", maker=env), steps=20)
    assert bool(report.failure) == (name in MISTAKES), report.lines()


NOTHING = {
    "no choice": (Tuple(()), "there is nothing to learn"),
    "no component": (Box(-1, 1, (0,)), "there is nothing to learn"),
    "a part that is a text": (Dict({"a": Discrete(2), "b": Text(3)}), "Text is not an action space"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_actions_without_a_choice_are_named(name):
    space, message = NOTHING[name]
    with pytest.raises(Fault, match=message):
        made("ppo", world(action_space=space))
    assert message in check(Setup("World", maker=world(action_space=space)), steps=5).failure


@pytest.mark.parametrize("space", [Box(-1, 1, (0,)), Box(-1, 1, (3, 0)), MultiDiscrete(np.zeros(0, int))])
def test_observations_without_numbers_are_named(space):
    env = world(observation_space=space, observe=lambda self: space.sample())
    with pytest.raises(Fault, match="no numbers to learn from"):
        made("ppo", env)
    assert "no numbers to learn from" in check(Setup("World", maker=env), steps=5).failure


class ArmedWith(World):
    def __init__(self, sword, *, shield):
        super().__init__()


def test_arguments_that_a_constructor_needs_are_named():
    for arguments, missing in (((), "sword"), ({"sword": 1}, "shield")):
        setup = Setup("armed", maker=lambda arguments=arguments: ArmedWith(**dict(arguments)))
        with pytest.raises(Fault, match=f"give --env-kwargs {missing}=VALUE"):
            make_environments(setup, 1)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, bounds_checked):
    env, expected = MISTAKES[name]
    with pytest.raises((EnvironmentFault, Fault), match=expected) as caught:
        trained("ppo", env)
    assert "World" in str(caught.value) or env().unwrapped.__class__.__name__ in str(caught.value)


def test_an_exception_in_a_constructor_is_named_with_its_place():
    class Fails(World):
        def __init__(self):
            raise OSError("no such map")

    with pytest.raises(Fault, match=r"cannot be made: OSError: no such map \(.*test_worlds\.py, line \d+: raise OSError"):
        made("ppo", Fails)


class OldStep(World):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class OldReset(World):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class SeedlessReset(World):
    def reset(self):
        return super().reset()


OLD = {
    OldStep: "observation, reward, terminated, truncated, info",
    OldReset: r"observation, info",
    SeedlessReset: r"reset\(self, .*seed=None, options=None\)",
}


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("env", OLD)
def test_old_signatures_are_called_that(env, limit):
    """They are refused or accepted, and in both cases the message says what to write."""

    def maker():
        return env() if limit is None else gym.wrappers.TimeLimit(env(), limit)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trained("ppo", maker)
            said = " ".join(str(w.message) for w in caught)
        except EnvironmentFault as error:
            said = str(error)
    assert re.search(OLD[env], said), said
    assert "gym 0.26" in said or "old Gym" in said or "declare" in said, said


# --- masks ---------------------------------------------------------------------------------------------------------------


def test_a_mask_in_the_observation_is_not_a_feature():
    env, _ = HABITS["a mask in the observation"]
    agent = trained("ppo", env)
    assert agent.shape == (3,)
    raw = {"observation": np.zeros(3, np.float32), "action_mask": np.array([0, 0, 1], np.int8)}
    assert agent.predict(raw) == 2
    assert agent.predict(raw, action_mask=[0, 1, 0]) == 1


def test_a_part_called_mask_that_is_none_stays():
    """A Dict part of another size than the number of actions is an observation."""
    space = gym.spaces.Dict({"action_mask": Box(0, 1, (5,)), "x": Discrete(2)})
    agent = made("ppo", world(observation_space=space, observe=lambda self: space.sample()))
    assert agent.shape == (7,)


def test_a_choice_without_an_allowed_option_is_named():
    env = world(action_space=gym.spaces.MultiDiscrete([2, 3]), tell=lambda self: {"action_mask": [1, 1, 0, 0, 0]})
    with pytest.raises(EnvironmentFault, match="allows nothing"):
        trained("ppo", env)


# --- numbers in info -----------------------------------------------------------------------------------------------------


class Reports(World):
    """Reports numbers of several kinds; at the end of an episode ``steps`` is its length."""

    def tell(self):
        return {
            "steps": self.t,
            "ratio": np.float32(self.t / 2),
            "done": self.t >= LENGTH,
            "parts": {"drag": np.array([0.5]), "text": "no number"},
            "path": np.zeros(self.t),
            "broken": float("inf"),
            "sometimes": None if self.t < LENGTH else 3,
        }


@pytest.mark.parametrize("kind", ["ppo", "dqn", "reinforce", "a2c", "sac", "neat"])
def test_numbers_in_info_are_logged(kind):
    agent = made(kind, Reports)
    seen = {}
    while agent.timesteps < 200:
        seen |= agent.step()
    found = {tag: value for tag, value in seen.items() if tag.startswith("info/")}
    assert found == {"info/steps": 7.0, "info/ratio": 3.5, "info/done": 1.0, "info/parts/drag": 0.5, "info/sometimes": 3.0}


def test_numbers_of_vector_environments_of_others():
    """Vector environments that are taken as they are report numbers, too, with both ways of resetting."""
    for mode in (gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP):

        class Plain(World):
            def tell(self):
                return {"steps": self.t}

        envs = gym.vector.SyncVectorEnv([Plain, Plain], autoreset_mode=mode)
        agent = made("ppo", envs, num_envs=None)
        seen = {}
        while agent.timesteps < 64:
            seen |= agent.step()
        assert seen["info/steps"] == LENGTH


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("name", ["Discrete", "MultiBinary", "Dict", "nested", "Dict with a Text", "Box of rank 3"])
def test_vector_environments_of_others_with_any_observations(name, mode):
    kind, shape = OBSERVATIONS[name]
    envs = gym.vector.SyncVectorEnv([kind, kind], autoreset_mode=mode)
    agent = made("ppo", envs, num_envs=None)
    assert agent.shape == shape
    for _ in range(3):
        assert np.isfinite(list(agent.step().values())).all()
    raw, _ = kind().reset(seed=0)
    assert agent.predict(raw) in (0, 1, 2)


def test_masks_in_observations_of_vector_environments():
    env, _ = HABITS["a mask in the observation"]
    for mode in (gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP):
        agent = made("ppo", gym.vector.SyncVectorEnv([env, env], autoreset_mode=mode), num_envs=None)
        for _ in range(3):
            agent.step()  # the environment insists on its mask
        assert agent.shape == (3,)


# --- evaluation with sampled actions -------------------------------------------------------------------------------------


class Aliased(gym.Env):
    """A corridor where all places look alike: left and right doors in turn, so that only a policy that varies gets through."""

    observation_space = Discrete(1)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0
        return 0, {}

    def step(self, action):
        self.x += int(action == self.x % 2)
        return 0, -1.0, self.x >= 6, False, {}


@pytest.mark.parametrize("kind", ["ppo", "a2c", "recurrent_ppo"])
def test_sampled_evaluation(kind):
    agent = trained(kind, lambda: gym.wrappers.TimeLimit(Aliased(), 300), steps=256)
    sampled = evaluate(agent, episodes=20, deterministic=False)
    assert sampled.sampled
    assert -60 < sampled.return_mean < -6
    assert sampled.length_mean == -sampled.return_mean
    if kind != "recurrent_ppo":  # which may vary its greedy actions
        assert evaluate(agent, episodes=2).return_mean == -300
