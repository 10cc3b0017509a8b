"""Film greedy episodes with Gymnasium's RecordVideo."""

import importlib.util
from dataclasses import replace
from pathlib import Path

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
    for package in ("moviepy", "pygame"):
        if importlib.util.find_spec(package) is None:
            raise Fault(f"a video needs {package}, which is not installed: pip install {package}")
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
    setup = replace(setup, native=None, vectorization="sync", training=False)
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
