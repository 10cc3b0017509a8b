"""What the Python API refuses: words, numbers, environments and observations that do not fit, each with one line."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList

from rl_lab.agents.dqn import DQN
from rl_lab.agents.ppo import PPO
from rl_lab.agents.sac import SAC
from rl_lab.engine.errors import EnvironmentFault, ShapeError
from rl_lab.experiment import sweep, train
from rl_lab.experiment.agent import name_in_run
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.evaluation import evaluate
from rl_lab.experiment.faults import Fault
from rl_lab.testing import content
from tests.runs import AGENTS

SMALL: dict[str, Any] = {"network": "mlp:4"}
ROLLOUT: dict[str, Any] = {"num_steps": 8, "batch_size": 8, **SMALL}


class World(gym.Env):
    """Ends after ten steps and pays the number of the action."""

    def __init__(self, observations: gym.Space | None = None, actions: gym.Space | None = None):
        self.observation_space = Box(0, 1, (3,), np.float32) if observations is None else observations
        self.action_space = Discrete(2) if actions is None else actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(np.sum(action)), self.steps == 10, False, {}


class Masked(World):
    """Forbids the action 1 by a method."""

    def action_masks(self):
        return np.array([True, False])

    def step(self, action):
        assert action == 0, "a forbidden action"
        return super().step(action)


class MaskedByProperty(Masked):
    """Forbids the action 1 by a property, which cannot be read before the first reset."""

    @property
    def action_masks(self):  # type: ignore[override]
        return np.array([self.steps >= 0, False])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "gym"}, "backend must be one of auto, native, gymnasium, got 'gym'"),
        ({"backend": "native"}, "only ids have native environments"),
        ({"vectorization": "Async"}, "vectorization must be one of"),
        ({"vectorization": "subproc"}, "vectorization must be one of"),
        ({"channels": "frist"}, "channels must be one of"),
        ({"frame_stack": 0}, "frame_stack must be an integer of at least 1, got 0"),
        ({"frame_stack": 1.5}, "frame_stack must be an integer"),
        ({"num_envs": 0}, "num_envs must be an integer of at least 1, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer"),
        ({"num_envs": "2"}, "num_envs must be an integer"),
        ({"seed": None}, "seed must be an integer of at least 0, got None"),
        ({"seed": 1.7}, "seed must be an integer"),
        ({"seed": -1}, "seed must be an integer"),
        ({"time_aware": "no"}, "time_aware must be True or False, got 'no'"),
        ({"time_aware": None}, "time_aware must be True or False, got None"),
        ({"preset": "no"}, "preset must be True or False, got 'no'"),
    ],
)
@pytest.mark.parametrize("env", [World, "CartPole-v1"], ids=["class", "id"])
def test_words_and_numbers_that_do_not_exist(env, given, message):
    if env == "CartPole-v1" and given == {"backend": "native"}:
        return
    with pytest.raises(Fault, match=message):
        DQN(env, **given, **SMALL)


@pytest.mark.parametrize("steps", [float("nan"), float("inf"), 0, -3, 1.5, "100", None, True, 1j, np.complex64(9), np.array(9)])
def test_a_number_of_steps_is_whole(steps):
    agent = DQN(World, **SMALL)
    with pytest.raises(Fault, match="total_timesteps must be an integer"):
        agent.learn(steps)
    assert agent.timesteps == 0
    assert 10 <= agent.learn(1e1).timesteps < 20


def test_a_number_of_steps_has_64_bits():
    agent = DQN(World, **SMALL)
    with pytest.raises(Fault, match="total-timesteps must be an integer of 64 bits"):
        agent.learn(10**400)
    assert agent.config == DQN(World, **SMALL).config


@pytest.mark.parametrize("callback", [5, [lambda agent, metrics: None], "stop"])
def test_a_callback_is_a_function(callback):
    agent = DQN(World, **SMALL)
    with pytest.raises(Fault, match="callback must be a function"):
        agent.learn(10, callback)
    assert agent.timesteps == 0


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, np.float16, np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(kind):
    """As the elements of np.arange or np.logspace, in settings as in num_envs and seed."""
    agent = DQN(World, batch_size=kind(16), learning_rate=kind(1), gamma=kind(0.5), **SMALL)
    assert agent.config == DQN(World, batch_size=16, learning_rate=1.0, gamma=float(kind(0.5)), **SMALL).config
    assert {type(agent.config.batch_size), type(agent.config.learning_rate)} == {int, float}
    assert 16 <= agent.learn(kind(16)).timesteps < 20
    with pytest.raises(Fault, match="batch-size takes an integer"):
        DQN(World, batch_size=np.float32(16.5), **SMALL)
    with pytest.raises(Fault, match="gamma must be a finite number"):
        DQN(World, gamma=np.float32(np.nan), **SMALL)


@pytest.mark.parametrize(
    "given",
    [
        {"frame_stack": 4},
        {"time_aware": True},
        {"vectorization": "async"},
        {"backend": "gymnasium"},
        {"channels": "last"},
        {"env_kwargs": {"a": 1}},
        {"wrapper": gym.Wrapper},
    ],
)
def test_vector_environments_are_taken_as_they_are(given):
    with pytest.raises(Fault, match=f"{next(iter(given))} must be applied before"):
        PPO(SyncVectorEnv([World] * 2), **given, **ROLLOUT)


def test_masks_by_a_method_need_single_environments():
    with pytest.raises(Fault, match=r"action_masks\(\) of single environments is not passed on"):
        PPO(SyncVectorEnv([Masked] * 2), **ROLLOUT)


@pytest.mark.parametrize("env", [Masked, MaskedByProperty])
@pytest.mark.parametrize("wrapper", [(), gym.wrappers.RecordEpisodeStatistics])
def test_a_method_or_a_property_masks(env, wrapper):
    agent = PPO(env, num_envs=2, wrapper=wrapper, **ROLLOUT).learn(64)  # the environment refuses forbidden actions
    assert agent.collector.action_mask is not None


def test_lists_of_infos_are_named():
    with pytest.raises(EnvironmentFault, match="leave out DictInfoToList"):
        PPO(DictInfoToList(SyncVectorEnv([World] * 2)), **ROLLOUT).learn(16)


@pytest.mark.parametrize("actions", [Text(5), gym.spaces.Sequence(Discrete(2)), gym.spaces.OneOf([Discrete(2), Discrete(3)])])
@pytest.mark.parametrize("kind", [DQN, PPO, SAC])
def test_actions_that_nobody_can_choose(kind, actions):
    with pytest.raises(Fault, match="MultiBinary, Tuple or Dict"):
        kind(lambda: World(actions=actions), **SMALL)


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_needs_the_same_spaces():
    agent = DQN(lambda: World(actions=Discrete(5)), **SMALL)
    for other in (World, lambda: World(Box(0, 1, (2,), np.float32), Discrete(5)), "CartPole-v1"):
        with pytest.raises(Fault, match=r"the agent acts on Box.* with Discrete\(5\), and .* has"):
            evaluate(agent, other, episodes=1)
    assert evaluate(agent, lambda: World(actions=Discrete(5)), episodes=2).episodes == 2


@pytest.mark.parametrize("env", [lambda: gym.make("CartPole-v1"), lambda: gym.make])
def test_an_environment_or_its_maker_can_be_evaluated_in(env):
    agent = DQN("CartPole-v1", preset=False, **SMALL)
    made = env()
    given = made if isinstance(made, gym.Env) else lambda: gym.make("CartPole-v1")
    own = evaluate(agent, "CartPole-v1", episodes=3, seed=5)
    assert evaluate(agent, given, episodes=3, seed=5).episodes == own.episodes
    if isinstance(made, gym.Env):
        made.reset(seed=0)  # it was copied, so it is still open


@pytest.mark.parametrize(
    ("given", "message"), [({"episodes": 0}, "episodes must be an integer of at least 1"), ({"seed": -5}, "seed must be")]
)
def test_evaluation_names_a_wrong_number(given, message):
    with pytest.raises(Fault, match=message):
        evaluate(DQN("CartPole-v1", preset=False, **SMALL), **given)


# --- predict ---------------------------------------------------------------------------------------------------------

SPACES = {
    "Discrete": (Discrete(5), [1, 2, 3, 4, 0]),
    "MultiDiscrete": (MultiDiscrete([2, 3]), [[0, 2], [1, 1], [1, 0]]),
    "Dict": (
        Dict({"a": Box(0, 1, (2,), np.float32), "b": Discrete(3)}),
        {"a": np.zeros((4, 2), np.float32), "b": np.array([0, 1, 2, 0])},
    ),
    "Tuple": (Tuple([Discrete(3), Box(0, 1, (2,), np.float32)]), (np.array([0, 2]), np.ones((2, 2), np.float32))),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_batch_has_an_action_for_each_observation(name):
    space, batch = SPACES[name]
    agent = DQN(lambda: World(space), **SMALL)
    rows = [{k: v[i] for k, v in batch.items()} for i in range(4)] if name == "Dict" else None
    rows = list(zip(*batch, strict=True)) if name == "Tuple" else rows
    singles = [int(agent.predict(row)) for row in (batch if rows is None else rows)]
    assert agent.predict(batch if name == "Tuple" or name == "Dict" else np.array(batch)).tolist() == singles
    assert agent.predict(batch if name == "Tuple" or name == "Dict" else list(batch)).tolist() == singles


@pytest.mark.parametrize(
    ("name", "observation", "message"),
    [
        ("Discrete", 9, "outside of its space"),
        ("Dict", {"a": np.zeros(2, np.float32)}, "has no 'b'"),
        ("Dict", {"a": np.zeros((2, 2), np.float32), "b": np.array([0])}, "or a batch of them"),
        ("MultiDiscrete", [5, 5], "outside of its space"),
        ("Tuple", (1,), "Tuple of 2"),
    ],
)
def test_an_observation_that_does_not_fit_is_explained(name, observation, message):
    agent = DQN(lambda: World(SPACES[name][0]), **SMALL)
    with pytest.raises(ShapeError, match=message):
        agent.predict(observation)


def test_the_pair_of_a_reset_is_no_observation():
    agent = DQN("CartPole-v1", preset=False, **SMALL)
    with pytest.raises(ShapeError, match="got the pair"):
        agent.predict(gym.make("CartPole-v1").reset(seed=1))
    for strange in ("text", None, [[1.0, 2.0], [3.0]], np.zeros(3), [1, 2, 3, "4"], np.zeros(4, complex)):
        with pytest.raises(ShapeError, match="takes observations of shape"):
            agent.predict(strange)


@pytest.mark.parametrize(
    ("observations", "mask", "error"),
    [
        (np.zeros(4), [0, 0], ValueError),
        (np.zeros((2, 4)), [[1, 0], [0, 0]], ValueError),
        (np.zeros((1, 4)), [[5, 7]], ValueError),
        (np.zeros((3, 4)), [[1, 0]], ShapeError),
        (np.zeros(4), [1, 0, 1], ValueError),
    ],
)
def test_masks_of_predict_are_checked(observations, mask, error):
    agent = DQN("CartPole-v1", preset=False, **SMALL)
    with pytest.raises(error):
        agent.predict(observations, action_mask=mask)
    assert agent.predict(np.zeros((2, 4)), action_mask=[[1, 0], [0, 1]]).tolist() == [0, 1]


ACTION_SPACES = {
    "Discrete": Discrete(3, start=-1),
    "narrow Discrete": Discrete(3, dtype=np.int32),
    "MultiDiscrete": MultiDiscrete([2, 3]),
    "Box": Box(-2, 2, (2,), np.float32),
    "square Box": Box(-1, 3, (2, 2), np.float32),
    "float64 Box": Box(-2, 2, (2,), np.float64),
    "Dict": Dict({"a": Discrete(2), "b": Box(-1, 1, (2,), np.float32)}),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("space", ACTION_SPACES)
def test_an_action_for_one_observation_is_that_of_a_batch_of_one(space, compiled):
    """Bit for bit and of the same type, however often and in whatever order; and it is the caller's own."""
    agent = PPO(lambda: World(actions=ACTION_SPACES[space]), compile=compiled, **ROLLOUT)
    rows = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    batches = [agent.predict(row[None]) for row in rows]
    kept = [agent.predict(row) for row in rows]
    for one, batch in zip(kept, batches, strict=True):
        first = {k: v[0] for k, v in batch.items()} if isinstance(batch, dict) else batch[0]
        assert content(one) == content(first)
        assert not isinstance(one, np.ndarray) or one.flags.writeable
        assert space == "Dict" or one in ACTION_SPACES[space]
    with ThreadPoolExecutor(4) as pool:
        assert content(list(pool.map(agent.predict, rows))) == content(kept)


def test_predict_asks_the_method_act_of_a_subclass():
    class Fixed(PPO):
        def act(self, observations, deterministic=False, action_mask=None):
            return np.full(len(observations), 7)

    assert Fixed(World, **ROLLOUT).predict(np.zeros(3, np.float32)) == 7


# --- files -----------------------------------------------------------------------------------------------------------


def test_loading_into_vector_environments_needs_as_many(tmp_path):
    agent = DQN("CartPole-v1", preset=False, **SMALL)
    agent.save(tmp_path / "agent.safetensors")
    with pytest.raises(Fault, match="trained with num_envs=1, got 2 vector environments"):
        DQN.load(tmp_path / "agent.safetensors", gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"))


@pytest.mark.parametrize("path", [".", "missing/agent.safetensors"])
def test_saving_where_no_file_can_be(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=path.partition("/")[0].replace(".", r"\.")):
        DQN("CartPole-v1", preset=False, **SMALL).save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env", ["CartPole-v1", World])
@pytest.mark.parametrize("name", ["dqn", "ppo", "sac", "neat"])
def test_a_state_that_does_not_fit_changes_nothing(name, env):
    """Whichever part of it does not fit: the environments, which are loaded last, or any other."""
    settings: dict[str, Any] = {"population": 4} if name == "neat" else {**SMALL, "seed": 2}
    if name == "ppo":
        settings.update(num_steps=8, batch_size=8)

    def made(num_envs: int, seed: int) -> Any:
        agent = AGENTS[name](env, **{**settings, "seed": seed, "num_envs": num_envs})
        return agent.learn(64)

    agent, other, wider = made(2, 1), made(2, 2), made(3, 3)
    before = content(agent.state_dict())
    if name != "neat":  # which finishes its episodes within a generation
        with pytest.raises(ShapeError, match="num_envs=3"):
            agent.load_state_dict(wider.state_dict())
    assert content(agent.state_dict()) == before
    for part in (*agent.learned, *agent.saved):
        if getattr(getattr(agent, part), "colour", 1) == 0:
            continue  # white noise reads no state
        state = copy.deepcopy(other.state_dict())
        is_empty = isinstance(state[part], (bool, type(None))) or (isinstance(state[part], dict) and not state[part])
        state[part] = {"strange": object()}
        if not is_empty:
            with pytest.raises((KeyError, TypeError, RuntimeError, ValueError)):
                agent.load_state_dict(state)
            assert content(agent.state_dict()) == before, part
    agent.load_state_dict(other.state_dict())
    assert content(agent.state_dict()) == content(other.state_dict())


MEMORIES = {
    "drqn": {"network": "mlp:4", "memory": 4},
    "recurrent_ppo": {"network": "mlp:4", "memory": 4},
    "neat": {"population": 4, "recurrent": True},
}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_state_belongs_to_the_observations(name):
    """A state of another number of rows, or that is none, is refused; one that fits is read, not written."""
    agent = AGENTS[name](World, **MEMORIES[name])
    batch = np.eye(3, dtype=np.float32)
    for deterministic in (True, False):
        _, one = agent.predict(batch[0], deterministic=deterministic)
        _, three = agent.predict(batch, deterministic=deterministic)
        before = content([one, three, agent.state_dict()])
        for observation, state in ((batch, one), (batch[:2], three), (batch[0], three), (batch, np.zeros((3, 1))), (batch, 5)):
            with pytest.raises(ShapeError, match="or None to begin episodes"):
                agent.predict(observation, state, deterministic=deterministic)
        assert content([one, three, agent.state_dict()]) == before
        _, next_one = agent.predict(batch[1], one)
        _, next_three = agent.predict(batch[1:2].repeat(3, 0), three)
        _, again = agent.predict(batch[1], one)
        assert content(again) == content(next_one)
        assert np.allclose(np.asarray(next_one)[0], np.asarray(next_three)[0], atol=1e-6)
        assert content([one, three]) == {key: before[key] for key in content([one, three])}


@pytest.mark.parametrize("name", ["ppo", "dqn", "neat", "sac"])
def test_a_class_is_trained_as_its_name(name):
    """With the same preset, and in a directory of the same name."""
    plan = make_plan({"agent": name, "env": "CartPole-v1"})
    for other in (name.upper(), name_in_run(AGENTS[name])):
        assert make_plan({"agent": other, "env": "CartPole-v1"}) == plan
    assert plan.config != AGENTS[name].Config()


@pytest.mark.parametrize("call", [train, sweep])
@pytest.mark.parametrize(
    ("agent", "env", "message"),
    [
        ("dqn", World, "a run names its environment, .* give it to the agent itself"),
        ("dqn", None, "a run names its environment"),
        ("dqn", "", "named by its id"),
        (5, "CartPole-v1", "an agent is given by its name, such as 'ppo', or as its class, not as 5"),
        (None, "CartPole-v1", "an agent is given by its name"),
    ],
)
def test_a_run_has_names(call, agent, env, message, workplace):
    with pytest.raises(Fault, match=message):
        call(agent, env)
    assert not any(workplace.iterdir())
