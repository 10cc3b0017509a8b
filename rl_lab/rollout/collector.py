"""The collector: a policy and environments in, arrays of experience out.

A policy is a function of `Moment` that returns ``actions`` and whatever else belongs to them (log-probabilities, values). Its random
numbers come from streams of its own, so it can be recorded; with native environments a whole rollout is then one native call, in
which the recorded policy and the environments' loop take turns. Any other vector environment is stepped from Python; where it is a
twin, the arrays are the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode

import rl_lab as rl
from rl_lab.engine.compile import Compiled
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.envs import world as w
from rl_lab.envs.vector import NativeFault, NativeVectorEnv
from rl_lab.native import machine
from rl_lab.rollout import Transitions

EPISODE_LIMIT = 10_000
"""Steps after which an episode is cut off where the environment has no time limit: it may never end by itself."""


class Moment(NamedTuple):
    """What a policy sees of ``n`` environments.

    ``observations`` float32 (n, ...); ``elapsed`` int64 (n,), steps since the episode began, so 0 in its first moment; ``action_mask``
    bool (n, actions), True for what is allowed, or None where the environment gives none in ``info["action_mask"]``.
    """

    observations: Any
    elapsed: Any
    action_mask: Any = None


Policy = Callable[[Moment], dict[str, Any]]
"""Returns ``actions`` of a batch and more tensors by name, each with the batch as first dimension.

Discrete actions are counted from 0, whatever the space starts at; continuous ones are clipped to the space before they are taken.
"""


class Rollout(NamedTuple):
    """``steps`` steps of ``n`` environments. The arrays are the collector's own, valid until it collects again.

    ``next_observations`` are those before a reset. ``valid`` is False for a step that was no step but a reset (next-step autoreset).
    ``extras`` holds what the policy returned beside the actions.
    """

    observations: np.ndarray  # float32 (steps, n, ...)
    actions: np.ndarray  # int64 or float32 (steps, n, ...)
    rewards: np.ndarray  # float32 (steps, n)
    terminated: np.ndarray  # bool (steps, n)
    truncated: np.ndarray  # bool (steps, n)
    next_observations: np.ndarray  # float32 (steps, n, ...)
    elapsed: np.ndarray  # int64 (steps, n)
    valid: np.ndarray  # bool (steps, n)
    extras: dict[str, np.ndarray]
    action_masks: np.ndarray | None  # bool (steps, n, actions)
    next_action_masks: np.ndarray | None

    def transitions(self) -> Transitions:
        """The valid steps as one batch, in the order in which they happened."""
        keep, size = slice(None) if self.valid.all() else self.valid.ravel(), self.rewards.size

        def flat(part: Any) -> Any:
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


class _Storage:
    """The arrays of rollouts of one length, and the native loop's actions for them."""

    def __init__(self, steps: int, collector: "Collector"):
        n, shape = collector.num_envs, collector.observation_shape
        self.observations = np.zeros((steps, n, *shape), np.float32)
        self.next_observations = np.zeros((steps, n, *shape), np.float32)
        self.rewards, self.episode_returns = np.zeros((steps, n)), np.zeros((steps, n))
        self.terminated, self.truncated = np.zeros((steps, n), bool), np.zeros((steps, n), bool)
        self.elapsed, self.episode_lengths = np.zeros((steps, n), np.int64), np.zeros((steps, n), np.int64)
        self.valid = np.ones((steps, n), bool)
        mask = collector.action_mask
        self.masks: Any = None if mask is None else np.zeros((steps, *mask.shape), bool)
        self.next_masks: Any = None if mask is None else np.zeros((steps, *mask.shape), bool)
        self.outputs: dict[str, np.ndarray] = {}
        self.steps = steps
        self.native: tuple[Any, int, np.ndarray, bytes] | None = None

    def keep(self, t: int, outputs: dict[str, np.ndarray]) -> None:
        """Store what the policy returned in step ``t``."""
        for name, values in outputs.items():
            if name not in self.outputs:
                self.outputs[name] = np.zeros((self.steps, *values.shape), values.dtype)
            self.outputs[name][t] = values


class Collector:
    """Lets a policy act in vector environments and keeps what happens.

    ``envs`` is any Gymnasium vector environment that resets itself, best in the step that ends an episode, as
    `rl_lab.experiment.environments` makes them: then every step is valid. Truncation stays apart from termination, episodes are
    counted, and an environment that raises or returns a number that is not finite is named in an EnvironmentFault.
    ``compile=False`` runs the policy eagerly, with the same results bit for bit.
    """

    def __init__(self, envs: Any, policy: Policy, seed: int, compile: bool = True):
        self.envs, self.num_envs, self.seed = envs, envs.num_envs, seed
        self.mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if self.mode == AutoresetMode.DISABLED:
            raise ValueError("the collector needs environments that reset themselves: autoreset is disabled")
        space = envs.single_observation_space
        if not isinstance(space, Box):
            raise ValueError(f"the collector needs Box observations, not {space}: wrap each environment in FlattenObservation")
        self.observation_shape = space.shape
        self._policy, self._space = policy, envs.single_action_space
        if isinstance(self._space, Box):
            self._low, self._high = (rl.tensor(np.asarray(b, np.float32)) for b in (self._space.low, self._space.high))
        elif isinstance(self._space, (Discrete, MultiDiscrete)):
            self._start = rl.tensor(np.asarray(self._space.start, np.int64))
        else:
            raise ValueError(f"the collector cannot act in {self._space}: it takes Discrete, MultiDiscrete and Box")
        self._act: Any = rl.compile(self._acting) if compile else self._acting
        self._names: tuple[str, ...] = ()
        self._storages: dict[int, _Storage] = {}
        self._finished: list[tuple[float, int]] = []
        self.timesteps = 0
        self.continues = True
        """Whether the last state that was loaded goes on in the middle of the episodes in which it was saved."""
        self._native: Any = envs if isinstance(envs, NativeVectorEnv) and self.mode == AutoresetMode.SAME_STEP else None
        self.restart(seed)
        if self._native is not None:
            self._tensors = self._moment()
            self._progress = np.zeros(1, np.int64)

    def restart(self, seed: int | None = None) -> None:
        """Begin new episodes everywhere; those that were running are not counted. A seed begins the environments' streams anew."""
        observations, info = self._guarded(self.envs.reset, seed=seed)
        self.action_mask = mask_of(info, self.envs)
        self._check(np.asarray(observations), None, "when it was reset")
        self._resetting = np.zeros(self.num_envs, bool)
        if self._native is not None:  # what the loop writes is what the policy sees
            self.observations, self.elapsed, self._returns = self.envs.observations, self.envs.elapsed, self.envs.returns
        else:
            self.observations = np.array(observations, np.float32)
            self.elapsed, self._returns = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs)

    # --- the policy --------------------------------------------------------------------------------------------------

    @rl.no_grad()
    def _acting(self, observations: Any, elapsed: Any, action_mask: Any) -> tuple[Any, ...]:
        """What the environments get, and after it everything that the policy returned."""
        outputs = dict(self._policy(Moment(observations, elapsed, action_mask)))
        self._names = tuple(outputs)
        actions = outputs["actions"]
        actions = actions.reshape(len(actions), *(self._space.shape or ()))
        if isinstance(self._space, Box):
            taken = rl.minimum(rl.maximum(actions, self._low), self._high)
        elif self._native is not None:
            taken = actions.float()  # native environments count from 0, too
        else:
            taken = actions + self._start
        return taken, *outputs.values()

    def _moment(self) -> tuple[Any, Any, Any]:
        mask = None if self.action_mask is None else rl.from_numpy(self.action_mask)
        return rl.from_numpy(self.observations), rl.from_numpy(self.elapsed), mask

    # --- collecting --------------------------------------------------------------------------------------------------

    def collect(self, steps: int) -> Rollout:
        """Take ``steps`` steps in every environment."""
        storage = self._storages.get(steps)
        if storage is None:
            storage = self._storages[steps] = _Storage(steps, self)
        done = 0
        while done < steps:
            if self._native is not None and isinstance(self._act, Compiled) and self._run(storage, done):
                break
            self._step(storage, done)
            done += 1
        self.timesteps += steps * self.num_envs
        self._count(storage)
        outputs = dict(storage.outputs)
        return Rollout(
            storage.observations,
            outputs.pop("actions"),
            storage.rewards.astype(np.float32),
            storage.terminated,
            storage.truncated,
            storage.next_observations,
            storage.elapsed,
            storage.valid,
            outputs,
            storage.masks,
            storage.next_masks,
        )

    def tensors(self, rollout: Rollout, reward_scale: Any = None) -> dict[str, Any]:
        """A rollout as learners take it, by name, tensors over its arrays (steps, n, ...); ``reward_scale`` is a `data.RewardScale`.

        Beside the fields of `Rollout` there is what the policy returned. ``action_masks`` are there where environments give masks;
        ``valid`` where a reset takes a step, which then counts as the end of an episode by truncation.
        """
        r, rewards = rollout, rollout.rewards
        if reward_scale is not None:
            rewards = reward_scale(rewards, r.terminated | r.truncated)
        arrays = {"observations": r.observations, "actions": r.actions, "rewards": rewards, "terminated": r.terminated}
        arrays |= {"truncated": r.truncated, "next_observations": r.next_observations, "elapsed": r.elapsed, **r.extras}
        if self.mode != AutoresetMode.SAME_STEP:
            arrays |= {"valid": r.valid, "truncated": r.truncated | ~r.valid}
        if r.action_masks is not None:
            arrays["action_masks"] = r.action_masks
        return {name: rl.from_numpy(array) for name, array in arrays.items()}

    def _step(self, storage: _Storage, t: int) -> None:
        """One step from Python."""
        storage.observations[t], storage.elapsed[t], storage.valid[t] = self.observations, self.elapsed, ~self._resetting
        if storage.masks is not None:
            storage.masks[t] = self.action_mask
        taken, *outputs = self._act(*self._moment())
        storage.keep(t, dict(zip(self._names, [output.numpy() for output in outputs], strict=True)))
        actions = taken.numpy()
        if self._native is not None and isinstance(self._space, Discrete):
            actions = actions + np.float32(self._space.start)
        elif isinstance(self._space, Box) and self._space.dtype != np.float32:  # whose bounds need not be float32 numbers
            actions = np.clip(actions.astype(self._space.dtype), self._space.low, self._space.high)
        observations, rewards, terminated, truncated, info = self._guarded(self.envs.step, actions)
        ended = terminated | truncated
        following: Any = np.array(observations, np.float32)
        self._check(following, rewards)
        mask = mask_after_step(info, self.envs, self.action_mask, over=self.mode == AutoresetMode.NEXT_STEP)
        next_mask: Any = mask
        if ended.any() and self.mode == AutoresetMode.SAME_STEP:
            following = following.copy()
            for i in map(int, np.flatnonzero(ended)):
                following[i] = info["final_obs"][i]
            self._check(following, rewards)
            if mask is not None:  # in environments that go on the final one is the one that follows
                final = info.get("final_info", {})
                next_mask = mask_of(final if isinstance(final, dict) else {}, self.envs, mask, over=True)
        storage.rewards[t], storage.terminated[t], storage.truncated[t] = rewards, terminated, truncated
        storage.next_observations[t] = following
        if storage.next_masks is not None:
            storage.next_masks[t] = next_mask
        if self._native is not None:
            storage.episode_returns[t] = self._native.episode_returns
            storage.episode_lengths[t] = self._native.episode_lengths
            return
        valid = ~self._resetting
        self._returns[valid] += rewards[valid]
        self.elapsed[valid] += 1
        storage.episode_returns[t], storage.episode_lengths[t] = self._returns, self.elapsed
        self._returns[ended] = 0.0
        self.elapsed[ended] = 0
        if self.mode == AutoresetMode.NEXT_STEP:
            self._resetting = ended
        self.observations = np.array(observations, np.float32)
        self.action_mask = mask

    def _check(self, observations: np.ndarray, rewards: np.ndarray | None, when: str = "") -> None:
        """EnvironmentFault for a number that is not finite."""
        strange = not_finite(observations, np.zeros(self.num_envs) if rewards is None else rewards)
        if strange is not None:
            index, what = strange
            when = when or f"at step {int(self.elapsed[index]) + 1} of its episode, {self.timesteps} steps into the run"
            raise EnvironmentFault(
                f"environment {index} of {name_of(self.envs)} (seed {self.seed + index}) returned {what} {when}"
            )

    def _guarded(self, call: Callable, *arguments: Any, **keywords: Any) -> Any:
        return guarded(self.envs, f"{self.timesteps} steps into the run (seed {self.seed})", call, *arguments, **keywords)

    # --- native ------------------------------------------------------------------------------------------------------

    def _run(self, storage: _Storage, first: int) -> bool:
        """The steps from ``first`` on in one call; False if there is no program of the policy yet."""

        def row(program: Any) -> bytes:
            if storage.native is None or storage.native[:2] != (program, first):
                actions = self._actions(storage, program, first)
                stop = self._native.cells.ctypes.data + 8 * w.FAULT
                packed = machine.repeat_row(self._progress, actions, storage.steps - first, stop)
                storage.native = (program, first, actions, packed)
            return storage.native[3]

        self._progress[0] = 0
        if not self._act.run_within(machine.repeat, self._tensors, row):
            return False
        if self._native.cells[w.FAULT]:
            self.timesteps += int(self._progress[0]) * self.num_envs
            self._guarded(self._native.fault)
        return True

    def _actions(self, storage: _Storage, program: Any, first: int) -> np.ndarray:
        """What `machine.repeat` does in each step: look, let the policy act, keep what it did, step, keep what came of it."""
        native, outputs = self._native, storage.outputs

        def keep(source: int, array: np.ndarray) -> tuple[int, int, int, int]:
            return source, array.ctypes.data + first * array.strides[0], array.strides[0], array.strides[0]

        def look(tensor: Any, array: np.ndarray) -> tuple[int, int, int, int]:
            return array.ctypes.data, tensor.address, array.nbytes, 0

        taken, *results = program.outputs
        for name, result in zip(self._names, results, strict=True):
            if name not in outputs:
                outputs[name] = np.zeros((storage.steps, *result.shape), result.dtype.numpy)
        return np.array(
            [
                keep(native.observations.ctypes.data, storage.observations),
                keep(native.elapsed.ctypes.data, storage.elapsed),
                look(program.inputs[0], native.observations),
                look(program.inputs[1], native.elapsed),
                (*program.call, 0, 0),
                *[keep(result.address, outputs[name]) for name, result in zip(self._names, results, strict=True)],
                (taken.address, native.actions.ctypes.data, native.actions.nbytes, 0),
                (native.loop_address, native.cells.ctypes.data, 0, 0),
                keep(native.rewards.ctypes.data, storage.rewards),
                keep(native.terminated.ctypes.data, storage.terminated),
                keep(native.truncated.ctypes.data, storage.truncated),
                keep(native.final_observations.ctypes.data, storage.next_observations),
                keep(native.episode_returns.ctypes.data, storage.episode_returns),
                keep(native.episode_lengths.ctypes.data, storage.episode_lengths),
            ],
            np.int64,
        )

    # --- statistics and state ----------------------------------------------------------------------------------------

    def _count(self, storage: _Storage) -> None:
        ended = (storage.terminated | storage.truncated) & storage.valid
        if ended.any():
            self._finished.extend(
                zip(storage.episode_returns[ended].tolist(), storage.episode_lengths[ended].tolist(), strict=True)
            )

    def episodes(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, by log tag; empty if none did."""
        if not self._finished:
            return {}
        returns, lengths = zip(*self._finished, strict=True)
        self._finished.clear()
        return {"charts/episodic_return": float(np.mean(returns)), "charts/episodic_length": float(np.mean(lengths))}

    def state_dict(self) -> dict[str, Any]:
        """Where the environments stand, if they can be saved: native ones can, and continue bitwise."""
        native = self.envs.get_state() if isinstance(self.envs, NativeVectorEnv) else None
        return {"timesteps": self.timesteps, "environments": native}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the environments stood. Those that could not be saved begin episodes that they have not seen yet."""
        self.timesteps = int(state["timesteps"])
        self.continues = state["environments"] is not None and isinstance(self.envs, NativeVectorEnv)
        if self.continues:
            self.envs.set_state(state["environments"])
        else:
            fresh = np.random.SeedSequence([self.seed, self.timesteps])
            self.restart(int(fresh.generate_state(1)[0] >> 1))


def name_of(envs: Any) -> str:
    """What an environment is called in messages."""
    return envs.spec.id if envs.spec else type(envs.unwrapped).__name__


def guarded(envs: Any, when: str, call: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Call environments; whatever they raise becomes an EnvironmentFault that says who it was and ``when``."""
    try:
        return call(*arguments, **keywords)
    except EnvironmentFault:
        raise
    except NativeFault as error:
        raise EnvironmentFault(f"{error}, {when}") from error
    except Exception as error:
        message = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
        raise EnvironmentFault(f"{name_of(envs)} failed {when}: {detail}") from error


def not_finite(observations: np.ndarray, rewards: np.ndarray) -> tuple[int, str] | None:
    """The first environment that returned a number that is not finite, and what it was; None if all are finite."""
    if not np.isfinite(rewards).all():
        index = int(np.flatnonzero(~np.isfinite(rewards))[0])
        return index, f"a reward of {rewards[index]}"
    if not np.isfinite(observations).all():
        index = int(np.flatnonzero(~np.isfinite(observations).reshape(len(rewards), -1).all(1))[0])
        return index, f"the observation {observations[index]}"
    return None


def choices_of(space: Any) -> int:
    """How many actions a mask tells of: all choices of a Discrete or MultiDiscrete space, none of others."""
    return int(np.sum(space.n if isinstance(space, Discrete) else getattr(space, "nvec", 0)))


def mask_of(info: dict[str, Any], envs: Any, before: np.ndarray | None = None, over: bool = False) -> np.ndarray | None:
    """The allowed actions (num_envs, actions) that vector environments tell of, None if they do not, or not of such actions.

    Of an environment that tells nothing its row of ``before`` stays, or without ``before`` everything is allowed. EnvironmentFault for
    a mask of another shape, or one that allows nothing, which only an episode that is ``over`` may have.
    """
    told, actions = info.get("action_mask"), choices_of(envs.single_action_space)
    if told is None or not actions:
        return before
    mask = np.ones((envs.num_envs, actions), bool) if before is None else before.copy()
    for i in np.flatnonzero(info.get("_action_mask", np.ones(envs.num_envs, bool))):
        row = np.asarray(told[i])
        if row.shape != (actions,):
            raise EnvironmentFault(f"{name_of(envs)} gave an action mask of shape {row.shape} for {actions} actions")
        mask[i] = row
        if not mask[i].any():
            if not over:
                raise EnvironmentFault(f"{name_of(envs)} gave an action mask that allows nothing")
            mask[i] = True  # no action follows, and values of none count
    return mask


def mask_after_step(info: dict[str, Any], envs: Any, before: np.ndarray | None, over: bool = False) -> np.ndarray | None:
    """`mask_of` what a step of all environments tells, where ``before`` was the mask: of whoever tells nothing now everything is allowed.

    EnvironmentFault besides if there was no mask before: what was collected until then would have none.
    """
    if before is not None:
        return mask_of(info, envs, np.ones_like(before), over)
    if "action_mask" in info and choices_of(envs.single_action_space):
        raise EnvironmentFault(f"{name_of(envs)} gives an action mask when it steps and gave none when it was reset")
    return None


def longest_episode(envs: Any) -> int | None:
    """Steps after which an episode is cut off: ``EPISODE_LIMIT`` where the environment has no time limit of its own, else None."""
    own = getattr(envs.spec, "max_episode_steps", None) if envs.spec is not None else None
    return None if own else EPISODE_LIMIT


def steps_between_updates(train_frequency: int, num_envs: int, buffer_size: int) -> int:
    """Steps that all environments take before updates are due, where ``train_frequency`` counts environment steps.

    ValueError if the buffer has no room for them.
    """
    steps = max(1, train_frequency // num_envs)
    if buffer_size < steps * num_envs:
        raise ValueError(
            f"buffer_size {buffer_size} has no room for the {steps * num_envs} steps that are taken between updates"
        )
    return steps


def rounds_due(before: int, now: int, train_frequency: int) -> int:
    """Rounds of updates between two numbers of environment steps: one for each ``train_frequency`` of them, however many come at once."""
    return now // train_frequency - before // train_frequency
