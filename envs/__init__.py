"""Environments of the lab, registered with Gymnasium under ``rl_lab/``."""


def register() -> None:
    """Called by Gymnasium through the entry point ``gymnasium.envs``."""
