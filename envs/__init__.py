"""Environments of the lab. Importing this package, or rl_lab, registers them with Gymnasium under ``rl_lab/``."""

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry

TWINS = {
    "CartPole-v1": "envs.cartpole:CartPoleVectorEnv",
    "Acrobot-v1": "envs.acrobot:AcrobotVectorEnv",
    "MountainCar-v0": "envs.mountain_car:MountainCarVectorEnv",
    "MountainCarContinuous-v0": "envs.mountain_car:MountainCarContinuousVectorEnv",
    "Pendulum-v1": "envs.pendulum:PendulumVectorEnv",
}
"""Gymnasium's environments that have a native twin; the scalar environment and the rendering stay Gymnasium's."""


def register() -> None:
    """Register everything; a second call changes nothing."""
    for name, vector_entry_point in TWINS.items():
        if f"rl_lab/{name}" in registry:
            continue
        original = registry[name]
        _register(
            id=f"rl_lab/{name}",
            entry_point=original.entry_point,
            vector_entry_point=vector_entry_point,
            max_episode_steps=original.max_episode_steps,
            reward_threshold=original.reward_threshold,
        )


register()
