"""Episodes as videos, GIFs, strips of frames, or live in a window, with Gymnasium's wrappers."""

import importlib.util
import io
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import Setup, make_environments, make_one, with_pictures
from rl_lab.experiment.evaluation import Evaluation, play
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.vector import close_environments
from rl_lab.rollout.adapter import described
from rl_lab.serialization import write_file


def check_video(setup: Setup) -> None:
    """Raise Fault if an episode cannot be filmed, because a package is missing or the environment renders no pictures."""
    _require("a video", ("moviepy", "pygame"))
    check_pictures(setup)


def check_strip(setup: Setup) -> None:
    """Raise Fault if the frames of an episode cannot be logged: a package is missing, or the environment has no pictures."""
    _require("--video-frequency", ("PIL", "pygame"))
    check_pictures(setup)


def check_render(setup: Setup) -> None:
    """Raise Fault if there is no screen, or if an environment cannot be shown in a window. The window opens and closes."""
    if setup.vectorization == "own" or setup.native is not None:
        raise Fault(f"{setup.env_id} has no window: only single environments of Gymnasium are shown")
    _require_screen(setup.env_id)
    try:
        env = make_one(replace(setup, render=True), 0)
    except FOREIGN_ERRORS as error:
        raise Fault(f"{setup.env_id} has no window: {described(error)}") from None
    try:
        if "human" not in env.metadata.get("render_modes", ()):
            raise Fault(f"{setup.env_id} has no window: metadata['render_modes'] has neither 'human' nor 'rgb_array'")
        env.reset(seed=0)
    except Fault:
        raise
    except FOREIGN_ERRORS as error:  # without a display
        raise Fault(f"{setup.env_id} cannot open a window: {described(error)}") from None
    finally:
        env.close()


def _require_screen(env_id: str) -> None:
    """Raise Fault if pygame, with which most environments open their windows, finds no screen."""
    if importlib.util.find_spec("pygame") is None:
        return  # the environment says so if it needs pygame
    import pygame

    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        hidden = driver in ("dummy", "offscreen") and not os.environ.get("SDL_VIDEODRIVER")
        problem = f"only the driver {driver}" if hidden else ""
    except pygame.error as error:
        problem = str(error)
    if problem:
        raise Fault(f"there is no screen to show {env_id} on ({problem}): use --video, or --gif or --html of rl_lab.evaluate")


def _require(what: str, packages: tuple[str, ...]) -> None:
    """Raise Fault, naming the first one, if one of the packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            name = {"PIL": "pillow"}.get(package, package)
            raise Fault(f"{what} needs {name}, which is not installed: pip install {name}")


def check_pictures(setup: Setup) -> None:
    """Raise Fault if the environment has no pictures."""
    if setup.vectorization == "own":
        raise Fault(
            f"{setup.env_id} cannot be filmed: only single environments render, and it has vector environments of its own"
        )
    env = rendering(setup)
    try:
        env.reset(seed=0)
        env.render()
    except EnvironmentFault as error:
        raise Fault(f"{setup.env_id} cannot be filmed: {error}") from None
    finally:
        env.close()


class _Pictures(gym.Wrapper):
    """Checks the pictures of an environment. `render` raises EnvironmentFault unless each is uint8 of the size of the first one."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._shape: tuple[int, ...] | None = None

    def render(self) -> Any:
        """Return a picture, uint8 (height, width, 3)."""
        try:
            picture: Any = self.env.render()
        except FOREIGN_ERRORS as error:
            raise EnvironmentFault(f"its render() failed: {described(error)}") from error
        is_picture = isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3
        if not is_picture or picture.dtype.kind not in "ui" or not picture.size:
            raise EnvironmentFault(f"render() must return a picture (height, width, 3) of uint8, not {_kind(picture)}")
        self._shape = self._shape or picture.shape
        if picture.shape != self._shape:
            raise EnvironmentFault(f"render() returned a picture of shape {picture.shape} after one of shape {self._shape}")
        if picture.dtype != np.uint8 and (picture.min() < 0 or picture.max() > 255):
            raise EnvironmentFault(
                f"render() returned numbers from {picture.min()} to {picture.max()}: a picture has bytes, 0 to 255"
            )
        return picture.astype(np.uint8)


def _kind(picture: object) -> str:
    """Describe the result of render() for a message."""
    return f"{picture.dtype} of shape {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__


def rendering(setup: Setup) -> gym.Env:
    """Make one environment as for an evaluation, with render_mode "rgb_array". Raises Fault if it does not have that mode."""
    setup = replace(setup, native=None, vectorization="sync", training=False, render=False)
    try:
        env = make_one(setup, 0, render_mode="rgb_array")
    except FOREIGN_ERRORS as error:
        raise Fault(f"{setup.env_id} cannot be filmed: it renders no pictures: {described(error)}") from None
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        env.close()
        raise Fault(
            f"{setup.env_id} cannot be filmed: it renders no pictures, because metadata['render_modes'] lacks 'rgb_array'"
        )
    return _Pictures(with_pictures(env))


def play_one(agent: Agent, setup: Setup, env: gym.Env, seed: int, episodes: int = 1, deterministic: bool = True) -> Evaluation:
    """Play episodes from ``seed`` on in one environment, which is closed afterwards."""
    envs = make_environments(Setup(setup.env_id, maker=lambda: env, once=True, pixels=setup.pixels), 1)
    try:
        return play(agent, envs, episodes, seed, deterministic)
    finally:
        close_environments(envs)


class _Frames(gym.Wrapper):
    """Keeps a picture of its environment for each step, at most ``width`` pixels wide."""

    def __init__(self, env: gym.Env, width: int):
        super().__init__(env)
        self.width = width
        self.frames: list[np.ndarray] = []

    def _keep(self) -> None:
        self.frames.append(reduced(cast(np.ndarray, self.env.render()), self.width))

    def reset(self, **keywords: Any) -> Any:
        result = self.env.reset(**keywords)
        if not self.frames:  # the reset after the episode shows the next one
            self._keep()
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self._keep()
        return result


def reduced(frame: np.ndarray, width: int) -> np.ndarray:
    """A frame (height, width, 3) uint8, at most ``width`` wide. Raises Fault if Pillow is missing."""
    if frame.shape[1] <= width:
        return np.ascontiguousarray(frame)
    _require("a smaller picture", ("PIL",))
    from PIL import Image

    size = (width, max(1, round(frame.shape[0] * width / frame.shape[1])))
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BOX))


def frames_of_episode(agent: Agent, setup: Setup, seed: int, width: int = 350) -> list[np.ndarray]:
    """Play one greedy episode from ``seed`` and return its pictures, each (height, width, 3) uint8 and at most ``width`` wide."""
    env = _Frames(rendering(setup), width)
    play_one(agent, setup, env, seed)
    return env.frames


MOST_FRAMES = 1_500
"""Frames of a film, which are kept in memory until its end; a longer episode is cut."""


def film(agent: Agent, setup: Setup, seed: int, folder: Path, deterministic: bool = True) -> Path:
    """Play one episode from ``seed``, write it to an MP4 file in ``folder`` and return the path of the file.

    Raises Fault if the environment renders no pictures, EnvironmentFault if it fails.
    """
    name = f"step-{agent.timesteps}-seed-{seed}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Overwriting existing videos")  # names tell step and seed
        env = gym.wrappers.RecordVideo(
            rendering(setup),
            str(folder),
            episode_trigger=lambda episode: episode == 0,
            video_length=MOST_FRAMES,
            name_prefix=name,
            disable_logger=True,
        )
    path = folder / f"{name}-episode-0.mp4"
    path.unlink(missing_ok=True)
    play_one(agent, setup, env, seed, deterministic=deterministic)
    if not path.exists():  # an exception of the writer comes while the environment is closed
        raise Fault(f"{path} could not be written: a warning above says why")
    return path


GIF_WIDTH = 360
"""Largest width of a GIF in pixels."""
GIF_FRAMES = 400
"""Frames of a GIF; a longer episode is shown in larger steps."""


def film_gif(agent: Agent, setup: Setup, seed: int, path: Path, deterministic: bool = True) -> Path:
    """Play an episode from ``seed`` and write it to the GIF ``path``, whole or not at all. Raises Fault if Pillow is missing."""
    _require("a GIF", ("PIL",))
    from PIL import Image

    check_pictures(setup)
    env = _Frames(rendering(setup), GIF_WIDTH)
    play_one(agent, setup, env, seed, deterministic=deterministic)
    each = -(-len(env.frames) // GIF_FRAMES)
    images = [Image.fromarray(frame).quantize(64) for frame in env.frames[::each]]
    rate = float(env.metadata.get("render_fps") or 30)
    content = io.BytesIO()
    # viewers slow down frames of less than 20 ms
    options = {"save_all": True, "append_images": images[1:], "duration": max(20, round(1000 * each / rate)), "loop": 0}
    images[0].save(content, "GIF", optimize=True, **options)
    write_file(path, [content.getvalue()])
    return path
