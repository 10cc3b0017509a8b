"""Videos of greedy episodes, made by Gymnasium's wrapper."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import gymnasium as gym

from rl_lab.experiment.agent import Agent
from rl_lab.experiment.environments import Setup, make_environments, make_one
from rl_lab.experiment.evaluation import play
from rl_lab.experiment.faults import Fault


def check_video(setup: Setup) -> None:
    """Fault if an episode cannot be filmed: a package is missing, or the environment has no pictures."""
    for package in ("moviepy", "pygame"):
        if importlib.util.find_spec(package) is None:
            raise Fault(f"a video needs {package}, which is not installed: pip install {package}")
    env = gym.make(setup.env_id)
    try:
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise Fault(f"{setup.env_id} cannot be filmed: it renders no pictures")
    finally:
        env.close()


def film(agent: Agent, setup: Setup, seed: int, folder: Path) -> Path:
    """Play one greedy episode from ``seed`` and return the MP4 file made of it in ``folder``."""
    name = f"step-{agent.timesteps}-seed-{seed}"
    env = gym.wrappers.RecordVideo(
        make_one(setup, 0, render_mode="rgb_array"),
        str(folder),
        episode_trigger=lambda episode: True,
        name_prefix=name,
        disable_logger=True,
    )
    setup_of_film = replace(setup, native=None, vectorization="sync", maker=lambda: env, frame_stack=1, time_aware=False)
    envs = make_environments(setup_of_film, 1)
    try:
        play(agent, envs, 1, seed)
    finally:
        envs.close()
    return folder / f"{name}-episode-0.mp4"
