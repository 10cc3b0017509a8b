"""Videos of greedy episodes, made by Gymnasium's wrapper."""

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rl_lab.experiment.environments import Setup, make_one
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


def film(agent: Any, setup: Setup, seed: int, folder: Path) -> Path:
    """Play one greedy episode from ``seed`` and return the MP4 file made of it in ``folder``."""
    name = f"step-{agent.timesteps}-seed-{seed}"
    env = gym.wrappers.RecordVideo(
        make_one(setup, 0, render_mode="rgb_array"),
        str(folder),
        episode_trigger=lambda episode: True,
        name_prefix=name,
        disable_logger=True,
    )
    try:
        observation, info = env.reset(seed=seed)
        begin_episodes = getattr(agent, "begin_episodes", None)  # of agents that remember
        if begin_episodes is not None:
            begin_episodes(np.ones(1, bool))
        over = False
        while not over:
            masks = {"action_mask": np.asarray(info["action_mask"], bool)[None]} if "action_mask" in info else {}
            action = agent.act(np.asarray(observation)[None], deterministic=True, **masks)[0]
            observation, _, terminated, truncated, info = env.step(action)
            over = bool(terminated or truncated)
    finally:
        env.close()
    return folder / f"{name}-episode-0.mp4"
