"""Pictures: which dimension holds the channels, bytes up to the network, and convolutions of every description."""

import numpy as np
import pytest
from gymnasium import Env, spaces

import rl_lab as rl
from rl_lab.agents.dqn import DQN
from rl_lab.agents.ppo import PPO
from rl_lab.agents.sac import SAC
from rl_lab.engine.errors import ShapeError
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.faults import Fault
from rl_lab.nn.networks import layer_sizes, make_action_value, make_network
from rl_lab.nn.pictures import Observed, picture_of

RULE = {
    (3, 84, 84): "first",
    (84, 84, 3): "last",
    (1, 10, 10): "first",
    (10, 10, 1): "last",
    (16, 16, 12): "last",
    (12, 16, 16): "first",
    (10, 10, 4): "last",
    (4, 10, 10): "first",
    (4, 4, 16): "last",
    (16, 4, 4): "first",
    (210, 160, 3): "last",
    (3, 210, 160): "first",
    (6, 7, 3): "last",
    (2, 6, 7): "first",
    (84, 84): "none",
    (6, 7): "none",
}


@pytest.mark.parametrize(("shape", "order"), RULE.items())
def test_the_rule_finds_the_channels(shape, order):
    assert picture_of(Observed(shape)).order == order


@pytest.mark.parametrize("shape", [(10, 10, 10), (16, 3, 16), (7, 3, 5), (3, 64, 3)])
def test_the_rule_refuses_what_it_cannot_tell(shape):
    with pytest.raises(ShapeError, match="--channels first or --channels last"):
        picture_of(Observed(shape))
    assert picture_of(Observed(shape, channels="last")).channels == shape[2]
    assert picture_of(Observed(shape, channels="first")).channels == shape[0]


def test_stacked_pictures():
    for shape, order, channels in (((4, 84, 84), "none", 4), ((4, 84, 84, 3), "last", 12), ((2, 3, 9, 8), "first", 6)):
        picture = picture_of(Observed(shape, frames=shape[0]))
        assert (picture.order, picture.channels, picture.frames) == (order, channels, shape[0])
    for shape in ((4,), (2, 3, 4, 5, 6)):
        with pytest.raises(ShapeError, match="two or three dimensions"):
            picture_of(Observed(shape))


def orders(picture: np.ndarray) -> dict[str, tuple[Observed, np.ndarray]]:
    """The same stacked pictures (batch, frames, channels, height, width) in every order that an environment may have."""
    _, frames, channels, height, width = picture.shape
    last = picture.transpose(0, 1, 3, 4, 2)
    return {
        "first": (Observed((frames, channels, height, width), frames), picture),
        "last": (Observed((frames, height, width, channels), frames), last),
        "merged": (Observed((frames * channels, height, width)), picture.reshape(-1, frames * channels, height, width)),
        "merged last": (
            Observed((height, width, frames * channels)),
            picture.reshape(-1, frames * channels, height, width).transpose(0, 2, 3, 1),
        ),
    }


def test_networks_see_the_same_in_every_order():
    draw = np.random.default_rng(1)
    picture = draw.integers(0, 256, (5, 2, 3, 12, 10)).astype(np.uint8)
    results = []
    for observed, array in orders(picture).values():
        seen = observed._replace(scale=1 / 255, is_float=False)
        network = make_network(seen, "cnn:4x3s2,5:7", 2, generator=rl.Generator(3))
        results.append(network(rl.from_numpy(np.ascontiguousarray(array))).detach().numpy())
    floats = make_network((6, 12, 10), "cnn:4x3s2,5:7", 2, generator=rl.Generator(3))
    scaled = np.ascontiguousarray(picture.reshape(5, 6, 12, 10) / 255, np.float32)
    results.append(floats(rl.from_numpy(scaled)).detach().numpy())
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-6)


def test_critics_see_pictures_and_actions():
    draw = np.random.default_rng(1)
    picture = rl.from_numpy(draw.integers(0, 256, (5, 9, 9, 3)).astype(np.uint8))
    actions = rl.from_numpy(draw.uniform(-1, 1, (5, 2)).astype(np.float32))
    for network in ("cnn:4:7", "mlp:7"):
        critic = make_action_value(Observed((9, 9, 3), scale=1 / 255, is_float=False), network, 2, 3)
        value = critic(picture, actions)
        assert value.shape == (5, 3)
        value.sum().backward()
        assert all(bool((p.grad != 0).any()) for p in critic.parameters())
        assert not np.allclose(critic(picture, -actions).detach().numpy(), value.detach().numpy())
        assert not np.allclose(critic(255 - picture.float(), actions).detach().numpy(), value.detach().numpy())


def test_descriptions_name_kernels_and_strides():
    assert layer_sizes("nature") == layer_sizes("cnn:32x8s4,64x4s2,64x3s1:512")
    assert [tuple(layer) for layer in layer_sizes("cnn:16,32x5,8s2:64,32")[0]] == [(16, 3, 1), (32, 5, 1), (8, 3, 2)]
    assert layer_sizes("cnn:16,32x5,8s2:64,32")[1] == (64, 32)
    assert layer_sizes("cnn:8")[1] == ()
    for wrong in ("cnn:", "cnn:x3", "cnn:8x", "cnn:8s", "cnn:0", "cnn:8x0", "cnn:8:x", "cnn:8y3", "natur"):
        with pytest.raises(ValueError, match="network"):
            layer_sizes(wrong)
    assert make_network((4, 84, 84), "nature", 6)(rl.zeros(1, 4, 84, 84)).shape == (1, 6)
    with pytest.raises(ShapeError, match=r"does not fit pictures of 20 x 20: a kernel of 4 meets 4 x 4|kernel"):
        make_network((4, 20, 20), "nature", 6)


class Pictures(Env):
    """Pictures of a given space; the right action is the channel that is bright."""

    def __init__(self, shape=(6, 6, 2), dtype=np.uint8, high=255, axis=-1, continuous=False):
        self.observation_space = spaces.Box(0, high, shape, dtype)
        self.action_space = spaces.Box(-1, 1, (2,)) if continuous else spaces.Discrete(2)
        self._axis = axis

    def _show(self):
        self._right = int(self.np_random.integers(2))
        picture = np.zeros(self.observation_space.shape, self.observation_space.dtype)
        np.moveaxis(picture, self._axis, 0)[self._right] = self.observation_space.high.max()
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        return self._show(), {}

    def step(self, action):
        reward = float(np.argmax(action) if np.ndim(action) else action) == self._right
        self._t += 1
        return self._show(), float(reward), self._t >= 8, False, {}


SMALL = {"network": "cnn:4:8", "preset": False}
KINDS = [(np.uint8, 255), (np.uint8, 7), (np.bool_, 1), (np.float32, 1), (np.float64, 1), (np.int64, 3)]


@pytest.mark.parametrize(("dtype", "high"), KINDS)
@pytest.mark.parametrize("frames", [1, 2])
def test_observations_keep_bytes_up_to_the_network(dtype, high, frames):
    kept = {np.uint8: np.uint8, np.bool_: np.bool_}.get(dtype, np.float32)
    for agent_class, options in (
        (PPO, {"num_steps": 8, "batch_size": 16}),
        (DQN, {"learning_starts": 8, "batch_size": 4, "buffer_size": 64}),
        (SAC, {"learning_starts": 8, "batch_size": 4, "buffer_size": 64}),
    ):
        continuous = agent_class is SAC

        def make(continuous=continuous):
            return Pictures(dtype=dtype, high=high, continuous=continuous)

        agent = agent_class(make, num_envs=2, frame_stack=frames, **SMALL, **options)
        agent.learn(48)
        assert agent.collector.collect(4).observations.dtype == kept
        assert agent.observed.scale == (1 / 255 if (dtype, high) == (np.uint8, 255) else 1.0)
        if agent.replay is not None:
            batch = agent.replay.sample(4)
            assert batch.observations.dtype.numpy == batch.next_observations.dtype.numpy == np.dtype(kept)
            stored = agent.replay.frames
            assert (stored is None) == (frames == 1)
        assert len(agent.notes) == 1
        assert "channels in the last dimension" in agent.notes[0]
        observation = agent.envs.single_observation_space.sample()
        assert agent.space.contains(agent.predict(observation))


def test_what_a_picture_is_can_be_said():
    with pytest.raises(Fault, match="--channels first or --channels last"):
        PPO(lambda: Pictures((6, 6, 6)), num_steps=8, batch_size=8, **SMALL)
    for channels, note in (("first", "the first dimension"), ("last", "the last dimension")):
        agent = PPO(lambda: Pictures((6, 6, 6)), num_steps=8, batch_size=8, channels=channels, **SMALL)
        assert note in agent.notes[0]
    assert PPO(lambda: Pictures((6, 6, 6)), num_steps=8, batch_size=8, network="mlp:4", preset=False).notes == ()


def test_a_run_of_an_older_version_sees_floats_as_before(monkeypatch):
    import gymnasium as gym

    gym.register("OldPictures-v0", entry_point=Pictures)
    try:
        setup = choose_setup("OldPictures-v0", pixels=False)
        envs = make_environments(setup, 1)
        assert envs.single_observation_space.dtype == np.float32
        described = choose_setup("OldPictures-v0").describe()
        del described["channels"]  # as it was written then
        assert not setup.from_description(described).pixels
    finally:
        del gym.registry["OldPictures-v0"]
