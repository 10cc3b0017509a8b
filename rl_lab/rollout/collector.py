"""The collector: a policy and environments in, rollouts out.

A policy is a function of `Moment` that returns ``actions`` and whatever else belongs to them, such as log-probabilities. Its random
numbers come from streams of its own, so it can be recorded: in native environments a whole rollout is then one native call. Other
environments are stepped from Python; a Gymnasium environment and its native twin give the same arrays.
"""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

import rl_lab as rl
from rl_lab.engine.compile import Compiled
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.rollout.actions import Moment, Policy
from rl_lab.rollout.native import NativeLoop
from rl_lab.rollout.stepper import Stepper
from rl_lab.rollout.storage import Rollout, RolloutStorage


class Collector:
    """Lets a policy act in vector environments and stores what happens.

    ``envs`` resets itself, best in the step that ends an episode, as `rl_lab.experiment.environments` makes it: then every step is
    valid. ``seed`` starts the streams of the environments. ``compile=False`` runs the policy eagerly, with the same results bit for bit.

    Raises ValueError for environments that `Stepper` does not take, EnvironmentFault if an environment fails.
    """

    def __init__(self, envs: VectorEnv, policy: Policy, seed: int, compile: bool = True):
        self.stepper = Stepper(envs)
        self.envs = envs
        self.num_envs = self.stepper.num_envs
        self.seed = seed
        self._policy = policy
        self._act: Any = rl.compile(self._acting) if compile else self._acting
        self._storages: dict[int, RolloutStorage] = {}
        self._finished: list[tuple[float, int]] = []
        self.continues = True
        """Whether the last state that was loaded continues in the middle of the episodes in which it was saved."""
        self.stepper.reset(seed)
        self._loop: NativeLoop | None = None
        if self.stepper.native is not None and isinstance(self._act, Compiled):
            self._loop = NativeLoop(self.stepper, self._act, self._moment())

    @property
    def timesteps(self) -> int:
        """Environment steps collected so far."""
        return self.stepper.timesteps

    @property
    def action_mask(self) -> np.ndarray | None:
        """Mask of the actions that are allowed now, bool (n, options); None if the environments give none."""
        return self.stepper.action_mask

    @property
    def num_masked(self) -> int:
        """Options in an action mask; 0 if the environments give none."""
        return 0 if self.action_mask is None else self.action_mask.shape[1]

    def restart(self, seed: int | None = None) -> None:
        """Begin new episodes everywhere; those that were running are not counted. A seed restarts the environments' streams."""
        self.stepper.reset(seed)

    # --- collecting --------------------------------------------------------------------------------------------------

    @rl.no_grad()
    def _acting(self, observations: Any, elapsed: Any, action_mask: Any) -> tuple[Any, dict[str, Any]]:
        """The actions in units of the space, and everything that the policy returned."""
        outputs = self._policy(Moment(observations, elapsed, action_mask))
        mapping = self.stepper.mapping
        actions = outputs["actions"].reshape(len(observations), *mapping.shape)
        scaled = mapping.scaled(actions)
        if self.stepper.native is not None:
            scaled = scaled.float()  # native environments count choices from 0, too
        return scaled.contiguous(), {name: output.contiguous() for name, output in outputs.items()}

    def _moment(self) -> tuple[Any, Any, Any]:
        mask = None if self.action_mask is None else rl.from_numpy(self.action_mask)
        return rl.from_numpy(self.stepper.observations), rl.from_numpy(self.stepper.elapsed), mask

    def collect(self, steps: int) -> Rollout:
        """Take ``steps`` steps in every environment."""
        storage = self._storages.get(steps)
        if storage is None:
            stepper = self.stepper
            has_reset_steps = stepper.mode.value != "SameStep"
            storage = RolloutStorage(steps, self.num_envs, stepper.observation_shape, self.num_masked, has_reset_steps)
            self._storages[steps] = storage
        for t in range(steps):
            if self._loop is not None and self._loop.run(storage, t):
                break
            self._step(storage, t)
        self._finished.extend(storage.finished())
        return storage.rollout()

    def _step(self, storage: RolloutStorage, t: int) -> None:
        """Take one step from Python and store it as step ``t``."""
        stepper = self.stepper
        storage.observations[t] = stepper.observations
        storage.elapsed[t] = stepper.elapsed
        if storage.masks is not None:
            storage.masks[t] = stepper.action_mask
        scaled, outputs = self._act(*self._moment())
        for name, output in outputs.items():
            output.copy_to(storage.output(name, output.shape, output.dtype.numpy)[t])
        step = stepper.step(stepper.mapping.to_space(scaled.numpy()))
        storage.rewards[t] = step.rewards
        storage.terminated[t] = step.terminated
        storage.truncated[t] = step.truncated
        storage.next_observations[t] = step.observations
        storage.valid[t] = step.valid
        storage.episode_returns[t] = step.returns
        storage.episode_lengths[t] = step.lengths
        if storage.next_masks is not None:
            storage.next_masks[t] = step.action_mask

    # --- statistics and state ----------------------------------------------------------------------------------------

    def episodes(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, by log tag; empty if none did."""
        if not self._finished:
            return {}
        returns, lengths = zip(*self._finished, strict=True)
        self._finished.clear()
        return {"charts/episodic_return": float(np.mean(returns)), "charts/episodic_length": float(np.mean(lengths))}

    def state_dict(self) -> dict[str, Any]:
        """Steps taken, and the state of the environments, or None if they cannot be saved. Native environments resume bitwise."""
        native = self.envs.get_state() if isinstance(self.envs, NativeVectorEnv) else None
        return {"timesteps": self.timesteps, "environments": native}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the environments stood. Environments that could not be saved begin new episodes, with seeds not used before."""
        self.stepper.timesteps = int(state["timesteps"])
        self.continues = state["environments"] is not None and isinstance(self.envs, NativeVectorEnv)
        if isinstance(self.envs, NativeVectorEnv) and state["environments"] is not None:
            self.envs.set_state(state["environments"])
        else:
            fresh = np.random.SeedSequence([self.seed, self.timesteps])
            self.restart(int(fresh.generate_state(1)[0] >> 1))


# --- when updates are due --------------------------------------------------------------------------------------------


def steps_between_updates(train_frequency: int, num_envs: int, buffer_size: int) -> int:
    """Steps that all environments take before updates are due, where ``train_frequency`` counts environment steps.

    Raises ValueError if the replay buffer has no room for them.
    """
    steps = max(1, train_frequency // num_envs)
    if buffer_size < steps * num_envs:
        raise ValueError(
            f"buffer_size {buffer_size} has no room for the {steps * num_envs} steps that are taken between updates"
        )
    return steps


def rounds_due(before: int, now: int, train_frequency: int) -> int:
    """Rounds of updates due between two numbers of environment steps: one for each ``train_frequency`` steps."""
    return now // train_frequency - before // train_frequency
