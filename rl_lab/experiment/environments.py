"""Environments by id."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_lab.experiment.faults import Fault, nearest


def find_environment(env_id: str) -> Any:
    """The registered specification. Fault, with the nearest name, for an unknown id or missing dependencies."""
    try:
        return gym.spec(env_id)
    except gym.error.Error as error:
        suggestion = nearest(env_id, [name for name in gym.registry if "/" not in name or "/" in env_id])
        detail = suggestion or f": {str(error).splitlines()[0]}"
        raise Fault(f"unknown environment {env_id!r}{detail}") from None
    except ImportError as error:
        raise Fault(f"environment {env_id!r} needs a package that is not installed: {error}") from None


def make_environments(env_id: str, num_envs: int) -> VectorEnv:
    """``num_envs`` copies stepped together, which reset in the step that ends an episode and give its final observation."""
    try:
        return gym.make_vec(
            env_id,
            num_envs=num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
    except gym.error.DependencyNotInstalled as error:
        raise Fault(f"environment {env_id!r} needs a package that is not installed: {error}") from None
    except gym.error.Error as error:
        raise Fault(f"environment {env_id!r} cannot be made: {str(error).splitlines()[0]}") from None
