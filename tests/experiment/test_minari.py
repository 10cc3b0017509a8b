"""Minari datasets: written and read back bit for bit, whatever the spaces; refused if they are others or damaged."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rl_lab.agents.bc import BC
from rl_lab.experiment import Fault
from rl_lab.experiment.datasets import check_minari_id, find_dataset, record_random, write_minari
from rl_lab.experiment.environments import choose_setup, make_environments, open_environments
from rl_lab.testing import Probe
from tests.experiment.test_datasets import Picture

minari = pytest.importorskip("minari", reason="minari is not installed")
pytest.importorskip("h5py", reason="h5py is not installed")

from minari.data_collector import EpisodeBuffer  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:`:UserWarning", "ignore:env_spec is None:UserWarning"
)  # about who made the data


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """Minari's local directory."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


class World(gym.Env):
    """Samples of a space, in episodes of four steps."""

    def __init__(self, observations: gym.Space, actions: gym.Space | None = None):
        self.observation_space = observations
        self.action_space = Discrete(2) if actions is None else actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 4, False, {}


ACTIONS = {
    "Discrete": Discrete(3, start=2),
    "MultiDiscrete": MultiDiscrete([2, 3]),
    "MultiBinary": MultiBinary(3),
    "Box": Box(-2, 7, (2,)),
    "float64": Box(-2, 7, (2,), np.float64),
    "Dict": Dict(z=Discrete(2), a=Box(-1, 3, (1,))),
    "Tuple": Tuple([Discrete(2), Box(-1, 3, (1,))]),
}


@pytest.mark.parametrize("space", ACTIONS)
def test_what_is_written_is_read_back(space, store):
    envs, setup = open_environments(lambda: Probe(ACTIONS[space]), 1)
    dataset = record_random(envs, 30)
    check_minari_id("test/own-v0")
    write_minari(dataset, "test/own-v0", setup, envs, {})
    for description in ("minari:test/own-v0", str(store / "test" / "own-v0")):
        found = find_dataset(description, envs)
        assert (found.observations == dataset.observations).all()
        assert np.allclose(found.actions, dataset.actions, atol=1e-6)
        assert (found.rewards == dataset.rewards).all()
        assert (found.lengths == dataset.lengths).all()
    with pytest.raises(Fault, match="there is a local Minari dataset"):
        check_minari_id("test/own-v0")
    with pytest.raises(Fault, match="those of the environment Box"):
        find_dataset("minari:test/own-v0", make_environments("Pendulum-v1", 1))


def test_pictures_keep_every_bit():
    envs, setup = open_environments(Picture, 1)
    dataset = record_random(envs, 9)
    write_minari(dataset, "test/pictures-v0", setup, envs, {})
    assert find_dataset("minari:test/pictures-v0", envs).fingerprint() == dataset.fingerprint()


def test_the_environment_can_be_made_again(tmp_path):
    for kwargs, wanted in (({}, 10.0), ({"g": 2.5}, 2.5)):
        setup = choose_setup("Pendulum-v1", env_kwargs=kwargs)
        envs = make_environments(setup, 1)
        name = f"test/pendulum-v{len(kwargs)}"
        write_minari(record_random(envs, 10), name, setup, envs, {})
        assert minari.load_dataset(name).recover_environment().unwrapped.g == wanted
    setup = choose_setup("Pendulum-v1", time_aware=True)
    envs = make_environments(setup, 1)
    write_minari(record_random(envs, 10), "test/time-v0", setup, envs, {})
    assert minari.load_dataset("test/time-v0").env_spec is None
    assert find_dataset("minari:test/time-v0", envs).observations.shape[1] == 4


@pytest.mark.parametrize("name", ["p/a-v0", "", "a", "a-v", "a/b", "../a-v0", "/a-v0", "a b-v0"])
def test_an_id_that_minari_does_not_take(name, store):
    with pytest.raises(Fault, match="a Minari id is like"):
        check_minari_id(name)
    assert not store.exists() or not any(store.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_dataset_that_minari_does_not_take_leaves_nothing(error, store, monkeypatch):
    envs, setup = open_environments(Picture, 1)
    dataset = record_random(envs, 9)

    def fails(name, *_, **__):
        (store / name / "data").mkdir(parents=True)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(minari, "create_dataset_from_buffers", fails)
        with pytest.raises((Fault, KeyboardInterrupt)):
            write_minari(dataset, "test/own-v0", setup, envs, {})
    check_minari_id("test/own-v0")
    write_minari(dataset, "test/own-v0", setup, envs, {})


def episode(number: int, observations: Any, **other: Any) -> Any:
    """An episode of five steps."""
    given = {
        "actions": np.full(5, number % 2),
        "rewards": np.ones(5),
        "terminations": np.arange(5) == 4,
        "truncations": np.zeros(5, bool),
        **other,
    }
    return EpisodeBuffer(id=number, observations=observations, **given)


def write(name: str, episodes: list[Any], space: gym.Space) -> None:
    minari.create_dataset_from_buffers(
        name, episodes, observation_space=space, action_space=Discrete(2), data_format="hdf5", jpeg_encoding=False
    )


def test_the_parts_of_a_dict_are_found_by_their_names():
    """Minari sorts them; the environment does not."""
    space = Dict([("b", Box(5, 6, (2,))), ("a", Box(-1, 1, (2,)))])
    envs = open_environments(lambda: World(space), 1)[0]
    parts = {"b": np.full((6, 2), 5.5, np.float32), "a": np.full((6, 2), 0.5, np.float32)}
    write("test/order-v0", [episode(0, parts)], space)
    found = find_dataset("minari:test/order-v0", envs)
    assert found.observations[0].tolist() == envs.observation_mapping.array({k: v[0] for k, v in parts.items()}).tolist()
    assert found.observations[0].tolist() == [5.5, 5.5, 0.5, 0.5]
    with pytest.raises(Fault, match="those of the environment Dict"):
        find_dataset("minari:test/order-v0", open_environments(lambda: World(Dict({**space.spaces, "c": Discrete(2)})), 1)[0])
    with pytest.raises(Fault, match="those of the environment Box"):  # nobody says in which order that one flattens
        find_dataset("minari:test/order-v0", open_environments(lambda: World(Box(-9, 9, (4,))), 1)[0])


def test_a_mask_is_no_observation():
    space = Dict({"action_mask": Box(0, 1, (2,), np.int8), "seen": Box(-1, 1, (3,))})
    seen = {"action_mask": np.ones((6, 2), np.int8), "seen": np.full((6, 3), 0.5, np.float32)}
    write("test/mask-v0", [episode(0, seen)], space)
    envs = open_environments(lambda: World(space), 1)[0]
    assert find_dataset("minari:test/mask-v0", envs).observations.tolist() == [[0.5] * 3] * 6


SPACE = Box(-1, 1, (3,))
SEEN = np.zeros((6, 3), np.float32)
HARMS: dict[str, list[Any]] = {
    "observations too many": [episode(0, np.zeros((7, 3), np.float32)), episode(1, SEEN)],
    "observations too few": [episode(0, np.zeros((5, 3), np.float32)), episode(1, SEEN)],
    "actions too many": [episode(0, SEEN, actions=np.zeros(8, int)), episode(1, SEEN)],
    "actions too few": [episode(0, SEEN, actions=np.zeros(3, int)), episode(1, SEEN)],
    "flags too few": [episode(0, SEEN, terminations=np.zeros(4, bool))],
    "rewards of pairs": [episode(0, SEEN, rewards=np.ones((5, 2)))],
    "complex rewards": [episode(0, SEEN, rewards=np.ones(5, complex))],
    "other shapes": [episode(0, SEEN), episode(1, np.zeros((6, 4), np.float32))],
    "no episodes": [],
}


@pytest.mark.parametrize("harm", HARMS)
def test_contradictions_are_refused(harm):
    write("test/harm-v0", HARMS[harm], SPACE)
    agent = BC(lambda: World(SPACE), dataset="minari:test/harm-v0", preset=False)
    with pytest.raises(Fault, match="minari:test/harm-v0"):
        agent.remarks()


def test_rewards_in_rows_of_one_are_numbers():
    write("test/rows-v0", [episode(0, SEEN, rewards=np.full((5, 1), 0.5))], SPACE)
    found = find_dataset("minari:test/rows-v0", open_environments(lambda: World(SPACE), 1)[0])
    assert found.rewards.tolist() == [0.5] * 5


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_file_is_refused(kept, store):
    write("test/cut-v0", [episode(0, SEEN)], SPACE)
    file = store / "test" / "cut-v0" / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(Fault, match="test/cut-v0"):
        find_dataset("minari:test/cut-v0", open_environments(lambda: World(SPACE), 1)[0])


def test_a_dataset_that_is_not_there_is_not_downloaded():
    with pytest.raises(Fault, match="there is no local Minari dataset test/none-v0"):
        find_dataset("minari:test/none-v0", make_environments("CartPole-v1", 1))
