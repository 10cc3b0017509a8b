"""States of Gymnasium environments: what is saved continues bitwise, and what a foreign file holds changes nothing that it should not."""

import copy
import enum
import json
import pickle
import threading
from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rl_lab.agents.a2c import A2C
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.rollout.saving import environment_state, set_environment_state
from rl_lab.serialization import join, split


class World(gym.Env):
    """Attributes of every kind that can be saved."""

    observation_space = spaces.Box(-10, 10, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.table = {"a": [1, 2.5, None], 3: (True, "word")}
        self.past = deque([0.0], maxlen=3)
        self.best = -np.inf
        self.limits = np.array([np.inf, 1.0])
        self.letters = np.array([[b"S", b"F"]])
        self.small = np.float32(0.1)
        self.part = Part()
        self.same = self.past  # two names of one object

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.table["a"][0] = 0
        return self.np_random.uniform(size=2), {}

    def step(self, action):
        self.table["a"][0] += 1
        self.past.append(float(self.np_random.uniform()))
        self.part.value = self.part.value * np.float32(0.9) + self.small
        self.best = max(self.best, self.past[-1])
        x = np.array([sum(self.same) / len(self.same), self.part.value + self.table["a"][0]])
        return x, self.best, self.table["a"][0] > 20, False, {}


class Part:
    def __init__(self):
        self.value = np.float32(1)


def through_a_file(state):
    arrays = {}
    return join(json.loads(json.dumps(split(state, "", arrays))), arrays, tensors=False)


def course(env, steps):
    random = np.random.default_rng(1)
    shown = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(int(random.integers(2)))
        shown.append((np.asarray(observation).tolist(), float(reward), terminated, truncated))
        if terminated or truncated:
            shown.append(np.asarray(env.reset()[0]).tolist())
    return shown


@pytest.mark.parametrize(
    "make",
    [
        World,
        lambda: gym.make("FrozenLake-v1"),
        lambda: gym.wrappers.FrameStackObservation(gym.make("Acrobot-v1"), 3),
        # np.copy is a function of NumPy's own type, not a Python function
        lambda: gym.wrappers.TransformObservation(World(), np.copy, World.observation_space),
    ],
)
def test_it_continues_bitwise(make):
    env = make()
    env.reset(seed=3)
    course(env, 7)
    state = through_a_file(environment_state(env))
    expected = course(env, 60)
    twin = make()
    twin.reset(seed=11)
    set_environment_state(twin, state)
    assert course(twin, 60) == expected
    if isinstance(twin, World):
        assert twin.same is twin.past


class Simulator:
    """As in C: its state is not in attributes."""

    __slots__ = ("state",)


@pytest.mark.parametrize(
    "hidden",
    [
        threading.Lock(),
        iter([1, 2]),
        (x for x in [1]),
        Simulator(),
        np.random.default_rng(1).bit_generator,
        np.random.Generator(np.random.MT19937(1)),
        {(1, 2): 3},
        {1, 2},
        np.array([None]),
        np.zeros((1 << 23) + 1),
        [0.0] * 100_000,
        pickle.Pickler(open("/dev/null", "wb")),  # noqa: SIM115
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_attribute_that_may_hold_anything(hidden):
    env = World()
    env.reset(seed=1)
    assert environment_state(env) is not None
    env.part.hidden = hidden
    assert environment_state(env) is None


def test_two_arrays_over_one_memory_and_variables_of_a_function():
    env = World()
    env.memory = np.zeros(4)
    env.part.view = env.memory[1:]
    assert environment_state(env) is None
    env = World()
    count = [0]
    env.part.call = lambda: count.append(1)
    assert environment_state(env) is None


def put(state, path, value):
    *inner, last = path
    for key in inner:
        state = state[key]
    state[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("attributes", "step"), 3),
        (("attributes", "unknown"), 3),
        (("attributes", "spec"), 3),
        (("attributes", "part", "class"), "os:system"),
        (("attributes", "part"), {"kind": "object", "class": "subprocess:Popen", "attributes": {}, "number": 99}),
        (("attributes", "table", "items", 0, 0), 1.5),
        (("attributes", "table", "items", 1, 1, "items", 1), "../../etc/passwd"),
        (("attributes", "limits", "dtype"), "O"),
        (("attributes", "limits", "shape"), [1 << 40]),
        (("attributes", "limits", "bytes"), np.zeros(3, np.uint8)),
        (("attributes", "_np_random", "state"), {"state": "x"}),
        (("attributes", "same", "number"), 1000),
        (("kind",), "code"),
        (("class",), "another:World"),
    ],
    ids=str,
)
def test_a_state_made_by_hand_changes_nothing(path, value):
    env = World()
    env.reset(seed=3)
    course(env, 3)
    state = through_a_file(environment_state(env))
    put(state, path, value)
    twin = World()
    twin.reset(seed=5)
    before = json.dumps(split(environment_state(twin), "", {}))
    with pytest.raises(ValueError, match=r"."):
        set_environment_state(twin, state)
    assert json.dumps(split(environment_state(twin), "", {})) == before


def test_environments_in_processes():
    def made():
        return make_environments(choose_setup("Pendulum-v1", "gymnasium", "async"), 2)

    agents = [A2C(made(), seed=1, network="mlp:8", compile=False) for _ in range(2)]
    try:
        agents[0].learn(50)
        agents[1].load_state_dict(agents[0].state_dict())
        assert agents[1].continues
        for agent in agents:
            agent.learn(100)
        for mine, other in zip(agents[0].parameters, agents[1].parameters, strict=True):
            assert np.array_equal(mine.detach().numpy(), other.detach().numpy())
    finally:
        for agent in agents:
            agent.envs.close()


class Phase(enum.Enum):
    WAIT = 0
    GO = 1


def play(env, steps):
    for _ in range(steps):
        env.step(0)


def odd(begin, change, **members):
    """A class whose attribute ``x`` is ``begin(env)`` after a reset and ``change(env)`` after each step."""

    def reset(self, *, seed=None, options=None):
        gym.Env.reset(self, seed=seed)
        self.t = 0
        self.x = begin(self)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.x = change(self)
        return np.zeros(1, np.float32), 1.0, False, False, {}

    spaces_ = {"observation_space": spaces.Box(-1, 1, (1,)), "action_space": spaces.Discrete(2)}
    return type("World", (gym.Env,), {"reset": reset, "step": step, **spaces_, **members})


class Word(str):
    pass


def a_method(self):
    return 1


def another_method(self):
    return 2


def counting(env):
    count = 0

    def inc():
        nonlocal count
        count += 1
        return count

    return inc


def counted(env):
    env.x()
    return env.x


RESTORED = {
    "enum": odd(lambda env: Phase.WAIT, lambda env: Phase.GO),
    "enum from none": odd(lambda env: None, lambda env: Phase.GO),
    "enums": odd(lambda env: [{"a": Phase.WAIT}], lambda env: [{"a": Phase.GO}, Phase.WAIT]),
    "big-endian": odd(lambda env: np.zeros(2, ">f4"), lambda env: env.x + np.ones(2, ">f4")),
    "longdouble": odd(lambda env: np.longdouble(0), lambda env: env.x + np.longdouble(1) / 3),
    "complex": odd(lambda env: np.zeros(2, complex), lambda env: env.x + 1j),
    "numpy text": odd(lambda env: np.str_("a"), lambda env: np.str_("b")),
    "same function": odd(lambda env: a_method, lambda env: a_method),
    "get_state of one player": odd(
        lambda env: 0, lambda env: env.t, get_state=lambda self, player: 1, set_state=lambda self, qpos, qvel: None
    ),
}
NEW_EPISODES = {
    "function": odd(lambda env: a_method, lambda env: another_method),
    "method": odd(lambda env: env.a, lambda env: env.b, a=a_method, b=another_method),
    "class": odd(lambda env: int, lambda env: float),
    "in a list": odd(lambda env: [], lambda env: [a_method]),
    "space": odd(lambda env: spaces.Discrete(3), lambda env: spaces.Discrete(5)),
    "closure": odd(counting, counted),
    "text of a class": odd(lambda env: Word("a"), lambda env: Word("b")),
    "method of a list": odd(lambda env: [].append, lambda env: env.x),
    "datetime": odd(lambda env: np.datetime64("2020-01-01"), lambda env: env.x + 1),
    "get_state raises": odd(lambda env: 0, lambda env: 1, get_state=lambda self: 1 / 0, set_state=lambda self, state: None),
    "set_state raises": odd(lambda env: 0, lambda env: 1, get_state=lambda self: 1, set_state=lambda self, state: 1 / 0),
}


@pytest.mark.parametrize("name", RESTORED)
def test_an_odd_attribute_is_restored(name):
    env, twin = RESTORED[name](), RESTORED[name]()
    env.reset(seed=1)
    play(env, 3)
    state = through_a_file(environment_state(env))
    twin.reset(seed=2)
    set_environment_state(twin, state)
    for _ in range(2):
        assert twin.t == env.t
        assert type(twin.x) is type(env.x)
        assert np.array_equal(twin.x, env.x)
        assert getattr(twin.x, "dtype", None) == getattr(env.x, "dtype", None)
        play(env, 1)
        play(twin, 1)


@pytest.mark.parametrize("name", NEW_EPISODES)
def test_an_odd_attribute_is_never_restored_wrongly(name):
    env, twin = NEW_EPISODES[name](), NEW_EPISODES[name]()
    env.reset(seed=1)
    twin.reset(seed=2)
    play(env, 3)
    state = environment_state(env)
    if state is not None:
        with pytest.raises(ValueError, match=r"."):
            set_environment_state(twin, through_a_file(state))


def test_data_in_the_body_of_a_class():
    world = odd(lambda env: 0, lambda env: env.board.update({env.t: 1}), board={})
    env = world()
    env.reset(seed=1)
    play(env, 3)
    state = through_a_file(environment_state(env))
    set_environment_state(env, state)
    world.board.clear()  # as in a new process
    with pytest.raises(ValueError, match="class"):
        set_environment_state(env, state)


class Hidden(gym.Wrapper):
    """Cannot be saved in a file, but copied."""

    def __init__(self, env):
        super().__init__(env)
        self.seen = {1}


def test_a_copy_of_an_agent_continues_where_files_cannot():
    agent = A2C(lambda: Hidden(gym.make("CartPole-v1")), seed=1, network="mlp:8")
    agent.learn(50)
    assert agent.state_dict()["collector"]["environments"] is None
    twin = copy.deepcopy(agent)
    assert twin.continues
    for each in (agent, twin):
        each.learn(100)
    for mine, other in zip(agent.parameters, twin.parameters, strict=True):
        assert np.array_equal(mine.detach().numpy(), other.detach().numpy())
