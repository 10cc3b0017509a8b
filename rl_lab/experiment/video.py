"""Film greedy episodes with Gymnasium's RecordVideo, collect their frames, and check that windows can open."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rl_lab.engine.errors import EnvironmentFault
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import Setup, make_environments, make_one
from rl_lab.experiment.evaluation import play
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.vector import close_environments


def check_video(setup: Setup) -> None:
    """Raise Fault if an episode cannot be filmed, because a package is missing or the environment renders no pictures."""
    _require("a video", ("moviepy", "pygame"))
    _check_frames(setup)


def check_strip(setup: Setup) -> None:
    """Raise Fault if the frames of an episode cannot be logged: a package is missing, or the environment has no pictures."""
    _require("--video-frequency", ("PIL", "pygame"))
    _check_frames(setup)


def check_render(setup: Setup) -> None:
    """Raise Fault if an environment cannot be shown in a window. The window opens and closes."""
    if setup.vectorization == "own" or setup.native is not None:
        raise Fault(f"{setup.env_id} has no window: only single environments of Gymnasium are shown")
    try:
        env = make_one(replace(setup, render=True), 0)
    except (EnvironmentFault, TypeError, ValueError, gym.error.Error) as error:
        raise Fault(f"{setup.env_id} has no window: {first_line(error)}") from None
    try:
        if "human" not in env.metadata.get("render_modes", ()):
            raise Fault(f"{setup.env_id} has no window, because metadata['render_modes'] lacks 'human'")
        env.reset(seed=0)
    except Fault:
        raise
    except Exception as error:  # whatever the environment's own code raises without a display
        raise Fault(f"{setup.env_id} cannot open a window: {first_line(error)}") from None
    finally:
        env.close()


def _require(what: str, packages: tuple[str, ...]) -> None:
    """Raise Fault, naming the first one, if one of the packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            name = {"PIL": "pillow"}.get(package, package)
            raise Fault(f"{what} needs {name}, which is not installed: pip install {name}")


def _check_frames(setup: Setup) -> None:
    """Raise Fault if an environment has no pictures."""
    if setup.vectorization == "own":
        raise Fault(
            f"{setup.env_id} cannot be filmed: only single environments render, and it has vector environments of its own"
        )
    env = _rendering(setup)
    try:
        env.reset(seed=0)
        picture = env.render()
    except Exception as error:  # whatever the environment's own code raises
        raise Fault(f"{setup.env_id} cannot be filmed: its render() failed: {first_line(error)}") from None
    finally:
        env.close()
    if not (isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3):
        raise Fault(f"{setup.env_id} cannot be filmed: render() must return a picture (height, width, 3), not {_kind(picture)}")


def _kind(picture: object) -> str:
    """Describe the result of render() for a message."""
    return f"an array of shape {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__


def _rendering(setup: Setup) -> gym.Env:
    """Make one environment as for an evaluation, with render_mode "rgb_array". Raises Fault if it does not have that mode."""
    setup = replace(setup, native=None, vectorization="sync", training=False, render=False)
    try:
        env = make_one(setup, 0, render_mode="rgb_array")
    except (EnvironmentFault, TypeError, ValueError, gym.error.Error) as error:
        raise Fault(f"{setup.env_id} cannot be filmed: it renders no pictures: {first_line(error)}") from None
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        env.close()
        raise Fault(
            f"{setup.env_id} cannot be filmed: it renders no pictures, because metadata['render_modes'] lacks 'rgb_array'"
        )
    if env.unwrapped.render_mode is None:  # its constructor does not store the argument
        env.unwrapped.render_mode = "rgb_array"
    return env


class _Frames(gym.Wrapper):
    """Keeps the pictures of its environment, one for each step."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.frames: list[np.ndarray] = []

    def _keep(self) -> None:
        picture = self.env.render()
        if isinstance(picture, np.ndarray):
            self.frames.append(picture.astype(np.uint8))

    def reset(self, **keywords: Any) -> Any:
        result = self.env.reset(**keywords)
        if not self.frames:  # the reset after the episode shows the next one
            self._keep()
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self._keep()
        return result


def frames_of_episode(agent: Agent, setup: Setup, seed: int) -> list[np.ndarray]:
    """Play one greedy episode from ``seed`` and return its pictures, each (height, width, 3) uint8."""
    env = _Frames(_rendering(setup))
    envs = make_environments(Setup(setup.env_id, maker=lambda: env, once=True, pixels=setup.pixels), 1)
    try:
        play(agent, envs, 1, seed)
    finally:
        close_environments(envs)
    return env.frames


def film(agent: Agent, setup: Setup, seed: int, folder: Path) -> Path:
    """Play one greedy episode from ``seed``, write it to an MP4 file in ``folder`` and return the path of the file.

    Raises Fault if the environment renders no pictures, EnvironmentFault if it fails.
    """
    name = f"step-{agent.timesteps}-seed-{seed}"
    env = gym.wrappers.RecordVideo(
        _rendering(setup),
        str(folder),
        episode_trigger=lambda episode: True,
        name_prefix=name,
        disable_logger=True,
    )
    envs = make_environments(Setup(setup.env_id, maker=lambda: env, once=True, pixels=setup.pixels), 1)
    try:
        play(agent, envs, 1, seed)
    finally:
        close_environments(envs)
    return folder / f"{name}-episode-0.mp4"
