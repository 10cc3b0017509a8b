"""Storage of rollouts: arrays (steps, environments, ...), written by the Python loop or the native loop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Space

import rl_lab as rl

if TYPE_CHECKING:
    from rl_lab.rollout.normalizers import RewardScale


def stored_dtype(space: Space) -> type[np.generic]:
    """Return the dtype in which observations of a Box are stored: uint8 and bool as they are, everything else as float32."""
    dtype = np.dtype(space.dtype)
    return dtype.type if dtype in (np.dtype(np.uint8), np.dtype(np.bool_)) else np.float32


class Transitions(NamedTuple):
    """Transitions as arrays (transitions, ...), ordered by step and within a step by environment.

    ``terminated`` is True where the environment ended the episode by its rules. ``truncated`` is True where the episode was cut off, for
    example by a time limit: its return is then bootstrapped from ``next_observations``, which are the observations before any reset.
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
    """``steps`` steps of ``n`` environments. The arrays belong to the collector, which overwrites them when it collects again.

    ``actions`` are the policy's actions before scaling, see `rl_lab.rollout.actions`. ``next_observations`` are the observations before
    any reset. In autoreset mode NEXT_STEP a reset takes a step of its own, whose entry in ``valid`` is False. ``extras`` holds the
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
    has_reset_steps: bool = False
    """Whether a reset takes a step of its own (autoreset mode NEXT_STEP)."""
    numbers: Sequence[tuple[int, int, str, float]] = ()
    """Step, environment, name and value of the numbers in the last infos of episodes."""

    def transitions(self) -> Transitions:
        """Return the valid steps as one batch, in the order in which they happened."""
        keep = slice(None) if self.valid.all() else self.valid.ravel()
        size = self.rewards.size

        def flat(part: np.ndarray | None) -> Any:  # an array, or None for None
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
        """Return tensors (steps, n, ...) by name, over the same memory as the arrays, with rewards scaled by ``reward_scale``.

        Among the tensors are the policy's outputs, and ``action_masks`` if the environments give masks.

        ``bootstrap_rows``, int64 (rows,), are the rows t * n + i of the steps that end a truncated episode, except in the last step. The
        value of their next observations is needed, and these are not among the observations of the following step. The rows are padded
        with the last row to a power of eight, so that few programs are recorded.

        With ``has_reset_steps`` there are no ``bootstrap_rows``. Instead ``valid`` is included, and a step that is a reset counts as a
        truncation.
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
        observation_dtype: npt.DTypeLike = np.float32,
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

    def output(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """Return the array (steps, *shape) for the policy's output ``name``, made on the first call."""
        found = self.outputs.get(name)
        if found is None:
            found = self.outputs[name] = np.zeros((self.steps, *shape), dtype)
        return found

    def finished(self) -> list[tuple[float, int]]:
        """Return score and length of each game that ended in the stored steps. An episode that ends at a lost life has no score."""
        ended = (self.terminated | self.truncated) & self.valid & ~np.isnan(self.episode_returns)
        return list(zip(self.episode_returns[ended].tolist(), self.episode_lengths[ended].tolist(), strict=True))

    def rollout(self) -> Rollout:
        """Return the stored steps as a `Rollout` over the same arrays."""
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
