"""Storage of rollouts: arrays (steps, environments, ...), written by the Python loop or the native loop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import rl_lab as rl

if TYPE_CHECKING:
    from rl_lab.rollout.normalizers import RewardScale


def stored_dtype(space: Any) -> Any:
    """The dtype in which observations of a Box are kept: bytes stay bytes, everything else becomes float32."""
    dtype = np.dtype(space.dtype)
    return dtype.type if dtype in (np.dtype(np.uint8), np.dtype(np.bool_)) else np.float32


class Transitions(NamedTuple):
    """Transitions as arrays (transitions, ...), ordered by step and within a step by environment.

    ``terminated`` is True where the environment ended the episode by its rules. ``truncated`` is True where the episode was cut off, for
    example by a time limit; its return is then bootstrapped from ``next_observations``, the observations before the reset.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    action_masks: np.ndarray | None = None
    next_action_masks: np.ndarray | None = None


class Rollout(NamedTuple):
    """``steps`` steps of ``n`` environments. The arrays belong to the collector and are valid until it collects again.

    ``actions`` are the policy's actions before scaling, see `rl_lab.rollout.actions`. ``next_observations`` are the observations before
    a reset. ``valid`` is False for a step that was only a reset, which only happens with autoreset mode NEXT_STEP. ``extras`` holds the
    policy's other outputs by name.
    """

    observations: np.ndarray  # float32, uint8 or bool (steps, n, ...)
    actions: np.ndarray  # int64 or float32 (steps, n, ...)
    rewards: np.ndarray  # float32 (steps, n)
    terminated: np.ndarray  # bool (steps, n)
    truncated: np.ndarray  # bool (steps, n)
    next_observations: np.ndarray  # as the observations
    elapsed: np.ndarray  # int64 (steps, n)
    valid: np.ndarray  # bool (steps, n)
    extras: dict[str, np.ndarray]
    action_masks: np.ndarray | None  # bool (steps, n, options)
    next_action_masks: np.ndarray | None
    has_reset_steps: bool = False  # whether a reset takes a step of its own (autoreset mode NEXT_STEP)
    numbers: Sequence[
        tuple[int, int, str, float]
    ] = ()  # step, environment, name and value of numbers in the last infos of episodes

    def transitions(self) -> Transitions:
        """The valid steps as one batch, in the order in which they happened."""
        keep = slice(None) if self.valid.all() else self.valid.ravel()
        size = self.rewards.size

        def flat(part: np.ndarray | None) -> Any:
            return None if part is None else part.reshape(size, *part.shape[2:])[keep]

        return Transitions(
            flat(self.observations),
            flat(self.actions),
            flat(self.rewards),
            flat(self.next_observations),
            flat(self.terminated),
            flat(self.truncated),
            flat(self.action_masks),
            flat(self.next_action_masks),
        )

    def tensors(self, reward_scale: "RewardScale | None" = None) -> dict[str, rl.Tensor]:
        """Tensors (steps, n, ...) by name, over the same memory as the arrays, with rewards scaled by ``reward_scale``.

        ``bootstrap_rows``, int64 (rows,), are the rows t * n + i of steps before the last whose next observation is not the observation
        of the following step and has a value: those that end a truncated episode. They are padded with the last row to a power of eight,
        so that few programs are recorded. With ``has_reset_steps`` there are none.

        The tensors include the policy's outputs, and ``action_masks`` if the environments have masks. With ``has_reset_steps`` they
        include ``valid``, and a step that was only a reset counts as a truncation.
        """
        rewards = self.rewards
        if reward_scale is not None:
            rewards = reward_scale(rewards, self.terminated | self.truncated)
        arrays = {"observations": self.observations, "actions": self.actions, "rewards": rewards, "terminated": self.terminated}
        arrays |= {"truncated": self.truncated, "next_observations": self.next_observations, "elapsed": self.elapsed}
        arrays |= self.extras
        if self.has_reset_steps:
            arrays |= {"valid": self.valid, "truncated": self.truncated | ~self.valid}
        if self.action_masks is not None:
            arrays["action_masks"] = self.action_masks
        rows = np.flatnonzero(self.truncated[:-1] & ~self.terminated[:-1])
        if not self.has_reset_steps:
            size = 8
            while size < len(rows):
                size *= 8
            arrays["bootstrap_rows"] = np.full(size, self.rewards.size - 1)
            arrays["bootstrap_rows"][: len(rows)] = rows
        return {name: rl.from_numpy(array) for name, array in arrays.items()}


class RolloutStorage:
    """The arrays of rollouts of ``steps`` steps in ``n`` environments, filled step by step."""

    def __init__(
        self,
        steps: int,
        n: int,
        observation_shape: tuple[int, ...],
        num_masked: int,
        has_reset_steps: bool,
        observation_dtype: Any = np.float32,
    ):
        self.steps = steps
        self.has_reset_steps = has_reset_steps
        self.observations = np.zeros((steps, n, *observation_shape), observation_dtype)
        self.next_observations = np.zeros((steps, n, *observation_shape), observation_dtype)
        self.rewards = np.zeros((steps, n))
        self.episode_returns = np.zeros((steps, n))
        self.terminated = np.zeros((steps, n), bool)
        self.truncated = np.zeros((steps, n), bool)
        self.elapsed = np.zeros((steps, n), np.int64)
        self.episode_lengths = np.zeros((steps, n), np.int64)
        self.valid = np.ones((steps, n), bool)
        self.masks = np.zeros((steps, n, num_masked), bool) if num_masked else None
        self.next_masks = np.zeros((steps, n, num_masked), bool) if num_masked else None
        self.outputs: dict[str, np.ndarray] = {}
        self.numbers: list[tuple[int, int, str, float]] = []

    def output(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """The array (steps, *shape) for the policy's output ``name``, made on the first call."""
        found = self.outputs.get(name)
        if found is None:
            found = self.outputs[name] = np.zeros((self.steps, *shape), dtype)
        return found

    def finished(self) -> list[tuple[float, int]]:
        """Score and length of each game that ended in the stored steps. A lost life, which has no score, is not the end of a game."""
        ended = (self.terminated | self.truncated) & self.valid & ~np.isnan(self.episode_returns)
        return list(zip(self.episode_returns[ended].tolist(), self.episode_lengths[ended].tolist(), strict=True))

    def rollout(self) -> Rollout:
        """The stored steps as a `Rollout` over the same arrays."""
        extras = dict(self.outputs)
        return Rollout(
            self.observations,
            extras.pop("actions"),
            self.rewards.astype(np.float32),
            self.terminated,
            self.truncated,
            self.next_observations,
            self.elapsed,
            self.valid,
            extras,
            self.masks,
            self.next_masks,
            self.has_reset_steps,
            tuple(self.numbers),
        )
