"""The collector: runs a policy in environments and returns rollouts.

A policy is a function of `Moment` that returns ``actions`` and optionally other tensors, such as log-probabilities. Random numbers of a
policy come from its own generators, so the policy can be recorded. With a recorded policy and native environments a whole rollout is one
native call. Other environments are stepped from Python. A Gymnasium environment and its native twin give the same arrays.
"""

import copy
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

import rl_lab as rl
from rl_lab.engine.compile import Compiled
from rl_lab.engine.errors import ShapeError
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.rollout.actions import Moment, Policy
from rl_lab.rollout.native import NativeLoop
from rl_lab.rollout.saving import EnvironmentsState, set_vector_state, vector_state
from rl_lab.rollout.stepper import Stepper
from rl_lab.rollout.storage import Rollout, RolloutStorage

Shown: TypeAlias = tuple[rl.Tensor, rl.Tensor, rl.Tensor | None]
"""Observations, elapsed steps and action masks, as in `Moment`."""
RECENT_EPISODES = 100
"""Episodes over which `Collector.running_return` is a mean."""


class Collector:
    """Runs a policy in vector environments and stores the steps.

    The autoreset mode of ``envs`` must be SAME_STEP, as `rl_lab.experiment.environments` makes them, or NEXT_STEP, where some stored
    steps are resets and not valid. ``seed`` seeds the environments. ``compile=False`` runs the policy eagerly; results are bitwise equal.

    Raises ValueError if `Stepper` does not accept ``envs``, EnvironmentFault if an environment fails.
    """

    def __init__(self, envs: VectorEnv, policy: Policy, seed: int, compile: bool = True):
        self.stepper = Stepper(envs)
        self.envs = envs
        self.num_envs = self.stepper.num_envs
        self.seed = seed
        self._policy = policy
        self.act: Callable[..., tuple[rl.Tensor, dict[str, rl.Tensor]]]
        """Scaled actions and the policy's other outputs for a `Moment`; recorded unless ``compile`` is False."""
        self.act = rl.compile(self._acting) if compile else self._acting
        self._storages: dict[int, RolloutStorage] = {}
        self._shown: list[np.ndarray | None] = []
        self._tensors: Shown | None = None
        self._finished: list[tuple[float, int]] = []
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.begin: Callable[[], object] = _nothing
        """Function that `collect` calls first. An agent's function raises an error if its numbers are not finite."""
        self._numbers: dict[str, list[float]] = {}
        self.continues = True
        """Whether the state loaded last also restored the environments, so that their episodes continue."""
        self.stepper.reset(seed)
        self._loop: NativeLoop | None = None
        if self.stepper.native is not None and isinstance(self.act, Compiled):
            self._loop = NativeLoop(self.stepper, self.act, self._moment())

    @property
    def timesteps(self) -> int:
        """Environment steps collected so far."""
        return self.stepper.timesteps

    @property
    def action_mask(self) -> np.ndarray | None:
        """Mask of the allowed options of the next action, bool (n, options); None if the environments have no masks."""
        return self.stepper.action_mask

    @property
    def num_masked(self) -> int:
        """Number of options in an action mask; 0 if the environments have no masks."""
        return 0 if self.action_mask is None else self.action_mask.shape[1]

    def restart(self, seed: int | None = None) -> None:
        """Begin new episodes in all environments. Running episodes do not count. ``seed`` reseeds the environments."""
        self.stepper.reset(seed)

    # --- collecting --------------------------------------------------------------------------------------------------

    @rl.no_grad()
    def _acting(
        self, observations: rl.Tensor, elapsed: rl.Tensor, action_mask: rl.Tensor | None
    ) -> tuple[rl.Tensor, dict[str, rl.Tensor]]:
        """Return the actions scaled to the space, and the policy's outputs by name, among them the unscaled actions."""
        outputs = self._policy(Moment(observations, elapsed, action_mask))
        mapping = self.stepper.mapping
        actions = outputs["actions"].reshape(len(observations), *mapping.shape)
        scaled = mapping.scaled(actions)
        if self.stepper.native is not None:
            scaled = scaled.float()  # native environments take float32 and count choices from 0
        return scaled.contiguous(), {name: output.contiguous() for name, output in outputs.items()}

    def _moment(self) -> Shown:
        """Return the policy's input. The tensors are reused, because making tensors costs more than a small policy."""
        stepper = self.stepper
        if self._tensors is None:
            native = stepper.native is not None  # native environments update their own arrays in place
            observations = stepper.observations if native else stepper.observations.copy()
            elapsed = stepper.elapsed if native else stepper.elapsed.copy()
            mask = None if self.action_mask is None else self.action_mask.copy()
            self._shown = [observations, elapsed, mask]
            self._tensors = (
                rl.from_numpy(observations),
                rl.from_numpy(elapsed),
                None if mask is None else rl.from_numpy(mask),
            )
        elif stepper.native is None:
            now = (stepper.observations, stepper.elapsed, self.action_mask)
            for array, source in zip(self._shown, now, strict=True):
                if array is not None:
                    array[...] = source
        return self._tensors

    def collect(self, steps: int) -> Rollout:
        """Take ``steps`` steps in every environment and return them. The next call with the same ``steps`` overwrites the arrays.

        Raises EnvironmentFault if an environment fails, and whatever ``begin`` raises.
        """
        self.begin()
        storage = self._storages.get(steps)
        if storage is None:
            stepper = self.stepper
            has_reset_steps = stepper.mode.value != "SameStep"
            storage = RolloutStorage(
                steps,
                self.num_envs,
                stepper.observation_shape,
                self.num_masked,
                has_reset_steps,
                stepper.observation_dtype,
            )
            self._storages[steps] = storage
        storage.numbers.clear()
        for t in range(steps):
            if self._loop is not None and self._loop.run(storage, t):
                break
            self._step(storage, t)
        self._finished.extend(storage.finished())
        for _, _, name, value in storage.numbers:
            self._numbers.setdefault(name, []).append(value)
        return storage.rollout()

    def _step(self, storage: RolloutStorage, t: int) -> None:
        """Take one step from Python and store it in row ``t``."""
        stepper = self.stepper
        storage.observations[t] = stepper.observations
        storage.elapsed[t] = stepper.elapsed
        if storage.masks is not None:
            storage.masks[t] = stepper.action_mask
        scaled, outputs = self.act(*self._moment())
        for name, output in outputs.items():
            output.copy_to(storage.output(name, output.shape, output.dtype.numpy)[t])
        step = stepper.step(stepper.mapping.to_space(scaled.numpy()))
        storage.rewards[t] = step.rewards
        storage.terminated[t] = step.terminated
        storage.truncated[t] = step.truncated
        storage.next_observations[t] = step.observations
        storage.valid[t] = step.valid
        storage.episode_returns[t] = step.scores
        storage.episode_lengths[t] = step.score_lengths
        storage.numbers.extend([(t, *number) for number in step.numbers])
        if storage.next_masks is not None:
            storage.next_masks[t] = step.action_mask

    # --- statistics and state ----------------------------------------------------------------------------------------

    def episodes(self) -> dict[str, float]:
        """Return the mean return and length of the episodes that ended since the last call, by log tag; empty if none ended.

        The tags ``info/<name>`` hold the means of the numbers that the environments reported in the last info of these episodes.
        """
        if not self._finished:
            return {}
        returns, lengths = zip(*self._finished, strict=True)
        self._finished.clear()
        self._recent.extend(returns)
        told = {f"info/{name}": float(np.mean(values)) for name, values in self._numbers.items()}
        self._numbers.clear()
        return {"charts/episodic_return": float(np.mean(returns)), "charts/episodic_length": float(np.mean(lengths)), **told}

    @property
    def running_return(self) -> float | None:
        """Mean return of the latest 100 episodes that `episodes` has told of, or of fewer; None before the first one."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def state_dict(self) -> dict[str, Any]:
        """Return the environment steps so far, the latest returns, and the state of the environments, or None if they cannot be saved."""
        recent = [float(value) for value in self._recent]
        return {
            "timesteps": self.timesteps,
            "num_envs": self.envs.num_envs,
            "environments": self._environments(),
            "recent": recent,
        }

    def _environments(self) -> EnvironmentsState | None:
        """State of the environments, or None if it cannot be saved."""
        if isinstance(self.envs, NativeVectorEnv):
            return EnvironmentsState(self.envs.get_state())
        states = vector_state(self.envs)
        return None if states is None else EnvironmentsState(states=states, stepper=self.stepper.state_dict())

    def copied_environments(self) -> "CopiedEnvironments | None":
        """Copy the environments in the middle of their episodes, for a copy of the agent in this process; None if that fails."""
        if not isinstance(self.envs, SyncVectorEnv):
            return None
        try:
            return CopiedEnvironments(copy.deepcopy(self.envs.envs), self.stepper.state_dict())
        except Exception:  # whatever the environments' own code raises: the copy of the agent then begins new episodes
            return None

    def check(self, state: dict[str, Any]) -> None:
        """Raise ShapeError if a state comes from another number of environments, ValueError if it comes from another native world."""
        own = self.envs.num_envs
        if (saved := state.get("num_envs", own)) != own:  # older versions did not save it
            raise ShapeError(f"the saved state is that of num_envs={saved}, but there are {own} environments")
        environments = state["environments"]
        if isinstance(self.envs, NativeVectorEnv) and environments is not None and "streams" in environments:
            self.envs.check_state(environments)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Environments that could not be saved, or have changed, begin new episodes with new seeds.

        Raises as `check` does.
        """
        self.check(state)
        self.stepper.timesteps = int(state["timesteps"])
        self._recent = deque(map(float, state.get("recent", ())), RECENT_EPISODES)  # older versions did not save them
        self.continues = self._continue(state["environments"])
        if not self.continues:
            fresh = np.random.SeedSequence([self.seed, self.timesteps])
            self.restart(int(fresh.generate_state(1)[0] >> 1))

    def _continue(self, environments: Any) -> bool:
        """Restore the environments from a saved state; False if it does not fit them.

        ``environments`` may come from a file: only `CopiedEnvironments` never does.
        """
        if environments is None:
            return False
        if isinstance(self.envs, NativeVectorEnv):
            if "states" in environments and "streams" not in environments:
                return False  # saved by environments of Gymnasium
            self.envs.set_state(environments)
            self.stepper.follow(self.envs)
            return True
        if isinstance(environments, CopiedEnvironments):
            self.envs.envs = environments.envs  # type: ignore[attr-defined]
            self.stepper.load_state_dict(environments.stepper)
            return True
        if "stepper" not in environments:
            return False  # saved by native environments
        before = self.stepper.state_dict()
        try:
            self.stepper.load_state_dict(environments["stepper"])
            set_vector_state(self.envs, environments["states"])
        except ValueError:
            self.stepper.load_state_dict(before)
            return False
        return True


def _nothing() -> None:
    """Do nothing."""


class CopiedEnvironments(NamedTuple):
    """Copies of Gymnasium's environments, and the state of their stepper."""

    envs: list[gym.Env]
    stepper: dict[str, Any]


# --- when updates are due --------------------------------------------------------------------------------------------


def steps_between_updates(train_frequency: int, num_envs: int, buffer_size: int) -> int:
    """Return the steps of each environment, at least 1, between updates that are due every ``train_frequency`` environment steps.

    Raises ValueError if the steps of all environments do not fit into the replay buffer.
    """
    steps = max(1, train_frequency // num_envs)
    if buffer_size < steps * num_envs:
        raise ValueError(
            f"buffer_size {buffer_size} is smaller than the {steps * num_envs} environment steps between two updates: raise buffer_size"
        )
    return steps


def rounds_due(before: int, now: int, train_frequency: int) -> int:
    """Return the number of rounds of updates that became due between the environment steps ``before`` and ``now``.

    A round is due at each multiple of ``train_frequency`` in (before, now].
    """
    return now // train_frequency - before // train_frequency
