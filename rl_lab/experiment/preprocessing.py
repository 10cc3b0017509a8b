"""Presets of preprocessing, with the settings of published results: ``atari``, ``minatar``, ``minigrid`` and ``normalize``."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Discrete

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.suggestions import nearest
from rl_lab.experiment.wrapping import as_arguments

NORMALIZE = "normalize"
"""Name of the preset that wraps nothing: the agent normalizes, because the statistics are part of the agent's state."""


class Preset(NamedTuple):
    """A wrapper of an environment and the settings that belong to it."""

    wrap: Callable[..., gym.Env]
    """Function of the environment, ``training`` and the preset's own arguments; returns the wrapped environment."""
    settings: dict[str, Any]
    """Default settings of an agent with this preset."""
    frames: int = 1
    """Number of frames stacked."""
    channels: str = "auto"
    """Position of the channels in the wrapped pictures: "first", "last" or "auto"."""


# --- Atari ---------------------------------------------------------------------------------------------------------------


class LifeLoss(gym.Wrapper):
    """Terminates an episode when a life is lost (Mnih et al. 2015). The next episode continues the same game, until the game is over."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        if not isinstance(env.action_space, Discrete):
            raise ValueError(
                f"--preprocess atari needs Discrete actions, of which the first does nothing, not {env.action_space}"
            )
        self._nothing = int(env.action_space.start)
        self._lives = 0
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new game if the last one is over or a seed is given; otherwise continue the game with the next life."""
        if self._over or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        else:
            observation, _, terminated, truncated, info = self.env.step(self._nothing)
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        self._over = False
        self._lives = _lives(self.env, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the game; ``terminated`` is also True if a life was lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._over = bool(terminated or truncated)
        lives = _lives(self.env, info)
        lost = 0 < lives < self._lives
        self._lives = lives
        return observation, reward, bool(terminated or lost), truncated, info


def _emulator(env: gym.Env) -> Any:
    """Return the emulator of an Atari game, or None. Found by attribute, because its class is in a package that need not be installed."""
    return getattr(env.unwrapped, "ale", None)


def _lives(env: gym.Env, info: dict[str, Any]) -> int:
    """Number of lives left, from the emulator or from ``info["lives"]``; 0 if neither exists."""
    emulator = _emulator(env)
    return int(info.get("lives", 0) if emulator is None else emulator.lives())


class FireReset(gym.Wrapper):
    """Presses the fire button after every reset, for games that do not begin otherwise."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game and press fire."""
        observation, info = self.env.reset(seed=seed, options=options)
        observation, _, terminated, truncated, info = self.env.step(1)
        if terminated or truncated:
            observation, info = self.env.reset(options=options)
        return observation, info


def atari(env: gym.Env, training: bool) -> gym.Env:
    """Wrap a game as Mnih et al. 2015: uint8 (84, 84) in grey, frame skip 4, at most 30 idle steps at the start of a game.

    Each frame is the maximum of the last two of the four skipped. In training a lost life ends the episode, and rewards are clipped to
    their sign. Raises Fault if the observations are not uint8 (height, width, 3).
    """
    space = env.observation_space
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[2] == 3 and space.dtype == np.uint8):
        raise Fault(f"--preprocess atari needs colour pictures, uint8 (height, width, 3), and the observations are {space}")
    meanings: list[str] = getattr(env.unwrapped, "get_action_meanings", list)()  # only the emulator has this method
    if _emulator(env) is not None:
        env = gym.wrappers.AtariPreprocessing(env, noop_max=30 if meanings[:1] == ["NOOP"] else 0, frame_skip=4)
    else:  # another environment with colour pictures
        env = gym.wrappers.MaxAndSkipObservation(env, skip=4)
        env = gym.wrappers.ResizeObservation(gym.wrappers.GrayscaleObservation(env), (84, 84))
    if training:
        env = LifeLoss(env)
    if len(meanings) > 2 and meanings[1] == "FIRE":
        env = FireReset(env)
    return gym.wrappers.TransformReward(env, np.sign) if training else env  # type: ignore[arg-type]


# --- MinAtar -------------------------------------------------------------------------------------------------------------


def minatar(env: gym.Env, training: bool) -> gym.Env:
    """Return an environment with MinAtar's pictures (10, 10, channels) unchanged (Young and Tian 2019).

    Raises Fault if the observations are not square pictures (size, size, channels).
    """
    if not _is_square(env.observation_space):
        raise Fault(f"--preprocess minatar needs pictures (10, 10, channels), and the observations are {env.observation_space}")
    return env


def _is_square(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[0] == space.shape[1]


# --- MiniGrid ------------------------------------------------------------------------------------------------------------

_PLANES = (11, 6, 4)
"""Kinds of object, colours and states in the channels of MiniGrid's pictures (minigrid.core.constants)."""


class GridPlanes(gym.ObservationWrapper):
    """Turns MiniGrid's observations into planes, bool (planes, height, width): one per value of each channel and one per direction.

    Each channel has a further plane for values that are not known. With ``mission`` further planes, each word of the mission sets the
    plane that a hash of the word selects. Raises Fault if the observations are not MiniGrid's.
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
        """Return the planes of an observation."""
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
    """Wrap an environment in `GridPlanes`; by default the mission is left out."""
    return GridPlanes(env, mission)


# --- presets by name -----------------------------------------------------------------------------------------------------


def _as_it_is(env: gym.Env, training: bool) -> gym.Env:
    return env


PRESETS = {
    "atari": Preset(atari, {"network": "nature", "shared": True}, frames=4),
    "minatar": Preset(minatar, {"network": "cnn:16:128"}, channels="last"),
    "minigrid": Preset(minigrid, {"network": "cnn:32,32:128"}, channels="first"),
    NORMALIZE: Preset(_as_it_is, {"normalize_observations": True, "normalize_rewards": True}),
}
"""The presets by name."""


def as_presets(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of presets, each with its arguments as in ``minigrid:mission=16``, as a tuple.

    Raises Fault if a name is unknown or its arguments are not allowed.
    """
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
    """Wrap an environment in the presets, the first one innermost. Raises Fault if the observations do not fit a preset."""
    for name, preset in zip(names, _presets(names), strict=True):
        env = preset.wrap(env, training, **_arguments(name))
    return env


def native_takes(names: Sequence[str], space: spaces.Box) -> bool:
    """Whether the presets leave an environment with observations in ``space`` as it is, so that a native one can be used."""
    return all(name == NORMALIZE or (name == "minatar" and _is_square(space)) for name in names)


def frames_of(names: Sequence[str]) -> int:
    """Number of frames that the presets stack, at least 1."""
    return max([1, *[preset.frames for preset in _presets(names)]])


def channels_of(names: Sequence[str], env_id: str) -> str:
    """Position of the channels in pictures after the presets: "first", "last" or "auto". The games of MinAtar have them last."""
    own = "last" if env_id.startswith("MinAtar/") else "auto"
    return next((preset.channels for preset in reversed(_presets(names)) if preset.channels != "auto"), own)


def settings_of(names: Sequence[str]) -> dict[str, Any]:
    """Default settings of an agent with these presets; a later preset overrides an earlier one."""
    return {key: value for preset in _presets(names) for key, value in preset.settings.items()}


def arguments_of(names: Sequence[str], spec: EnvSpec) -> dict[str, Any]:
    """Arguments of the environment that the presets need: ``atari`` skips frames, so the emulator must not."""
    is_emulator = str(spec.entry_point).startswith(("ale_py", "shimmy.atari"))
    return {"frameskip": 1} if is_emulator and any(name.startswith("atari") for name in names) else {}
