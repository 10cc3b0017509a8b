"""Preprocessing by name, with the settings that published results used: ``atari``, ``minatar``, ``minigrid`` and ``normalize``."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.suggestions import nearest
from rl_lab.experiment.wrapping import as_arguments

NORMALIZE = "normalize"
"""The preset that an agent carries out itself: its statistics are part of the agent's state."""


class Preset(NamedTuple):
    """What a name stands for."""

    wrap: Callable[..., gym.Env]
    """A function of the environment, ``training`` and the preset's own arguments."""
    settings: dict[str, Any]
    """Settings of the agent that go with it, unless others are given."""
    frames: int = 1
    """Frames stacked."""
    channels: str = "auto"


# --- Atari ---------------------------------------------------------------------------------------------------------------


class LifeLoss(gym.Wrapper):
    """Ends an episode when a life is lost; the game goes on with the next episode until it is over (Mnih et al. 2015)."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._lives = 0
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin a new game if the last one is over or a seed is given; otherwise go on with the next life."""
        if self._over or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        else:
            observation, _, terminated, truncated, info = self.env.step(0)  # the first action does nothing
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        self._over = False
        self._lives = _lives(self.env, info)
        return observation, info

    def step(self, action: Any) -> Any:
        """As the game's step, terminated when a life is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._over = bool(terminated or truncated)
        lives = _lives(self.env, info)
        lost = 0 < lives < self._lives
        self._lives = lives
        return observation, reward, bool(terminated or lost), truncated, info


def _lives(env: gym.Env, info: dict[str, Any]) -> int:
    """The lives that are left, as the emulator or ``info["lives"]`` tells."""
    ale = getattr(env.unwrapped, "ale", None)
    return int(ale.lives() if ale is not None else info.get("lives", 0))


class FireReset(gym.Wrapper):
    """Presses the fire button after a reset in games that wait for it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin a game and press fire."""
        observation, info = self.env.reset(seed=seed, options=options)
        observation, _, terminated, truncated, info = self.env.step(1)
        if terminated or truncated:
            observation, info = self.env.reset(options=options)
        return observation, info


def atari(env: gym.Env, training: bool) -> gym.Env:
    """Frames of 84 x 84 in grey, each the maximum of the last two of four; at most 30 idle steps at the start (Mnih et al. 2015).

    In training lives end episodes and rewards are clipped to their sign. Raises Fault if the observations are not colour pictures.
    """
    space = env.observation_space
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[2] == 3 and space.dtype == np.uint8):
        raise Fault(f"--preprocess atari needs colour pictures, uint8 (height, width, 3), and the observations are {space}")
    meanings: list[str] = getattr(env.unwrapped, "get_action_meanings", list)()
    if getattr(env.unwrapped, "ale", None) is not None:
        env = gym.wrappers.AtariPreprocessing(env, noop_max=30 if meanings[:1] == ["NOOP"] else 0, frame_skip=4)
    else:  # a world with such pictures that is not the emulator
        env = gym.wrappers.MaxAndSkipObservation(env, skip=4)
        env = gym.wrappers.ResizeObservation(gym.wrappers.GrayscaleObservation(env), (84, 84))
    if training:
        env = LifeLoss(env)
    if len(meanings) > 2 and meanings[1] == "FIRE":
        env = FireReset(env)
    return gym.wrappers.TransformReward(env, np.sign) if training else env  # type: ignore[arg-type]


# --- MinAtar -------------------------------------------------------------------------------------------------------------


def minatar(env: gym.Env, training: bool) -> gym.Env:
    """Pictures of 10 x 10 with a channel for each kind of object, channels last (Young and Tian 2019): they stay as they are.

    Raises Fault if the observations are not such pictures.
    """
    space = env.observation_space
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[0] == space.shape[1]):
        raise Fault(f"--preprocess minatar needs pictures (10, 10, channels), and the observations are {space}")
    return env


# --- MiniGrid ------------------------------------------------------------------------------------------------------------

_PLANES = (11, 6, 4)
"""Kinds of object, colours and states in the channels of MiniGrid's pictures (minigrid.core.constants)."""


class GridPlanes(gym.ObservationWrapper):
    """MiniGrid's observation as planes of bool (channels, height, width): one for each value of each channel, and for each direction.

    A value beyond the known ones sets the last plane of its channel. With ``mission`` planes, a word of the mission sets the plane of
    its hash.
    """

    def __init__(self, env: gym.Env, mission: int = 0):
        super().__init__(env)
        space = env.observation_space
        image = space.spaces.get("image") if isinstance(space, spaces.Dict) else space
        if not (isinstance(image, spaces.Box) and len(image.shape) == 3 and image.shape[2] == 3):
            raise Fault(
                f"--preprocess minigrid needs a picture (height, width, 3) named image, and the observations are {space}"
            )
        self._mission = int(mission)
        direction = space.spaces.get("direction") if isinstance(space, spaces.Dict) else None
        self._directions = int(direction.n) if isinstance(direction, spaces.Discrete) else 0
        self._counts = [count + 1 for count in _PLANES]
        planes = sum(self._counts) + self._directions + self._mission
        self.observation_space = spaces.Box(0, 1, (planes, *image.shape[:2]), np.bool_)  # type: ignore[arg-type]

    def observation(self, observation: Any) -> np.ndarray:
        """The planes of an observation."""
        image = np.asarray(observation["image"] if isinstance(observation, dict) else observation)
        planes = np.zeros(self.observation_space.shape or (), np.bool_)
        first = 0
        for channel, count in enumerate(self._counts):
            known = np.minimum(image[:, :, channel], count - 1)
            planes[first : first + count] = known[None] == np.arange(count)[:, None, None]
            first += count
        if self._directions:
            planes[first + int(observation["direction"])] = True
            first += self._directions
        for word in str(observation["mission"]).split() if self._mission else ():
            planes[first + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % self._mission] = True
        return planes


def minigrid(env: gym.Env, training: bool, mission: int = 0) -> gym.Env:
    """Planes of MiniGrid's picture and direction; the mission is left out, or hashed to ``mission`` planes."""
    return GridPlanes(env, mission)


# --- by name -------------------------------------------------------------------------------------------------------------


def _as_it_is(env: gym.Env, training: bool) -> gym.Env:
    return env


PRESETS = {
    "atari": Preset(atari, {"network": "nature", "shared": True}, frames=4),
    "minatar": Preset(minatar, {"network": "cnn:16:128"}, channels="last"),
    "minigrid": Preset(minigrid, {"network": "cnn:32,32:128"}, channels="first"),
    NORMALIZE: Preset(_as_it_is, {"normalize_observations": True, "normalize_rewards": True}),
}
"""Presets of preprocessing by name."""


def as_presets(given: Any) -> tuple[str, ...]:
    """Names of presets, each with its arguments as in ``minigrid:mission=16``, as a tuple. Raises Fault for an unknown one."""
    if not isinstance(given, (str, list, tuple)) or not all(isinstance(text, str) for text in given):
        raise Fault(f"--preprocess takes {' or '.join(PRESETS)}, not {given!r}")
    listed = [given] if isinstance(given, str) else list(given)
    names = [name.strip() for text in listed for name in ([text] if ":" in text else text.split(",")) if name.strip()]
    for text in names:
        name = text.partition(":")[0]
        if name not in PRESETS:
            raise Fault(f"--preprocess {name!r} is unknown{nearest(name, PRESETS)}")
        if _arguments(text) and name != "minigrid":
            raise Fault(f"--preprocess {name} takes no arguments, got {text!r}")
        for argument, value in _arguments(text).items():
            if argument != "mission" or not isinstance(value, int) or value < 0:
                raise Fault(f"--preprocess minigrid takes mission=N, the number of planes for its words, got {text!r}")
    return tuple(names)


def _arguments(text: str) -> dict[str, Any]:
    return as_arguments(text.partition(":")[2], f"--preprocess {text.partition(':')[0]}:")


def _presets(names: Sequence[str]) -> list[Preset]:
    return [PRESETS[name.partition(":")[0]] for name in names]


def preprocessed(env: gym.Env, names: Sequence[str], training: bool) -> gym.Env:
    """The environment in the wrappers of the presets, in order. Raises Fault if its observations do not fit one."""
    for name, preset in zip(names, _presets(names), strict=True):
        env = preset.wrap(env, training, **_arguments(name))
    return env


def frames_of(names: Sequence[str]) -> int:
    """Frames that the presets stack."""
    return max([1, *[preset.frames for preset in _presets(names)]])


def channels_of(names: Sequence[str]) -> str:
    """Where the presets leave the channels of pictures: "first", "last", or "auto"."""
    return next((preset.channels for preset in reversed(_presets(names)) if preset.channels != "auto"), "auto")


def settings_of(names: Sequence[str]) -> dict[str, Any]:
    """Settings of an agent that go with the presets."""
    return {key: value for preset in _presets(names) for key, value in preset.settings.items()}


def arguments_of(names: Sequence[str], spec: Any) -> dict[str, Any]:
    """Arguments of the environment that the presets need: the emulator must not skip frames itself."""
    is_emulator = str(spec.entry_point).startswith(("ale_py", "shimmy.atari"))
    return {"frameskip": 1} if is_emulator and any(name.startswith("atari") for name in names) else {}
