"""rl_lab's own environments. Importing rl_lab registers them with Gymnasium under the namespace ``rl_lab/``."""

from gymnasium.envs.registration import EnvCreator, registry
from gymnasium.envs.registration import register as _register

TWINS = {
    "CartPole-v1": "rl_lab.envs.cartpole:CartPoleVectorEnv",
    "Acrobot-v1": "rl_lab.envs.acrobot:AcrobotVectorEnv",
    "MountainCar-v0": "rl_lab.envs.mountain_car:MountainCarVectorEnv",
    "MountainCarContinuous-v0": "rl_lab.envs.mountain_car:MountainCarContinuousVectorEnv",
    "Pendulum-v1": "rl_lab.envs.pendulum:PendulumVectorEnv",
}
"""Native vector environment for each of Gymnasium's environments that has a twin. Single environments and rendering stay Gymnasium's."""

WORLDS: dict[str, tuple[str, int | None, float | None]] = {
    "CartPoleMasked-v0": ("rl_lab.envs.cartpole:CartPoleMasked", 500, 475.0),
    "DoublePole-v0": ("rl_lab.envs.double_pole:DoublePole", 1000, 1000.0),
    "DoublePoleNoVelocity-v0": ("rl_lab.envs.double_pole:DoublePoleNoVelocity", 1000, 1000.0),
    "Catch-v0": ("rl_lab.envs.catch:Catch", 100, 10.0),
    "Bricks-v0": ("rl_lab.envs.bricks:Bricks", 1000, 30.0),
    "LunarLander-v3": ("rl_lab.envs.lunar_lander:LunarLander", 1000, 200.0),
    "LunarLanderContinuous-v3": ("rl_lab.envs.lunar_lander:LunarLanderContinuous", 1000, 200.0),
    "MinAtar-Asterix-v0": ("rl_lab.envs.minatar.asterix:AsterixAll", None, None),
    "MinAtar-Asterix-v1": ("rl_lab.envs.minatar.asterix:Asterix", None, None),
    "MinAtar-Breakout-v0": ("rl_lab.envs.minatar.breakout:BreakoutAll", None, None),
    "MinAtar-Breakout-v1": ("rl_lab.envs.minatar.breakout:Breakout", None, None),
    "MinAtar-Freeway-v0": ("rl_lab.envs.minatar.freeway:FreewayAll", None, None),
    "MinAtar-Freeway-v1": ("rl_lab.envs.minatar.freeway:Freeway", None, None),
    "MinAtar-Seaquest-v0": ("rl_lab.envs.minatar.seaquest:Seaquest", None, None),
    "MinAtar-Seaquest-v1": ("rl_lab.envs.minatar.seaquest:Seaquest", None, None),
    "MinAtar-SpaceInvaders-v0": ("rl_lab.envs.minatar.space_invaders:SpaceInvadersAll", None, None),
    "MinAtar-SpaceInvaders-v1": ("rl_lab.envs.minatar.space_invaders:SpaceInvaders", None, None),
}
"""Environments with both classes of our own: (class name without Env or VectorEnv, time limit in steps, return that counts as solved).

LunarLander and MinAtar are twins as well; their originals need other packages, so the single environments are ours.
"""

PROBES: dict[str, tuple[int | None, float | None]] = {
    "ConstantReward": (None, 1.0),
    "ObservedReward": (None, None),
    "DelayedReward": (None, 1.0),
    "ActionReward": (None, 1.0),
    "MatchReward": (None, 1.0),
    "Endless": (5, 5.0),
    "StartsAtOne": (None, 1.0),
    "Continuous": (None, 0.0),
    "Memory": (None, 1.0),
}
"""Environments of `rl_lab.envs.probes`: (time limit in steps, best return)."""


def _add(name: str, scalar: str | EnvCreator, vector: str, limit: int | None, threshold: float | None) -> None:
    """Register ``rl_lab/<name>`` with its entry points, time limit in steps and threshold, unless it is registered already."""
    if f"rl_lab/{name}" not in registry:
        _register(
            id=f"rl_lab/{name}",
            entry_point=scalar,
            vector_entry_point=vector,
            max_episode_steps=limit,
            reward_threshold=threshold,
        )


def register() -> None:
    """Register all environments with Gymnasium. A second call changes nothing."""
    for name, vector in TWINS.items():
        original = registry[name]
        assert original.entry_point is not None
        _add(name, original.entry_point, vector, original.max_episode_steps, original.reward_threshold)
    for name, (base, limit, threshold) in WORLDS.items():
        _add(name, f"{base}Env", f"{base}VectorEnv", limit, threshold)
    for name, (limit, threshold) in PROBES.items():
        _add(f"Probe{name}-v0", f"rl_lab.envs.probes:{name}", f"rl_lab.envs.probes:{name}VectorEnv", limit, threshold)


register()
