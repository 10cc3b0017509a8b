"""Step vector environments from Python, with action masks, final observations, returns and lengths of episodes, and faults.

Training in environments that are not native, evaluation, video and NEAT all use this module.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

from rl_lab.engine.errors import FOREIGN_ERRORS, EnvironmentFault
from rl_lab.envs.vector import NativeFault, NativeVectorEnv
from rl_lab.rollout.actions import ActionMapping, SpaceActions, as_allowed, choices_of, options_of
from rl_lab.rollout.adapter import recorder_of, warn_once
from rl_lab.rollout.storage import stored_dtype

LARGEST_SEED = 2**32
"""Seeds of most environments must be below this number."""
EPISODE_LIMIT = 10_000
"""Longest episode, in steps, in environments without a time limit, where an episode may never end by itself."""

T = TypeVar("T")


class KeepsScores:
    """Mixin of vector environments that know whether they keep scores, see `Stepper.scored`."""

    scored: bool


class Step(NamedTuple):
    """The result of one step of ``n`` environments."""

    observations: np.ndarray
    """(n, ...), before any reset; uint8 or bool if the space has that dtype, else float32."""
    rewards: np.ndarray
    """float64 (n,)."""
    terminated: np.ndarray
    """bool (n,)."""
    truncated: np.ndarray
    """bool (n,)."""
    cut: np.ndarray
    """bool (n,), True where the limit of the stepper truncated the episode."""
    valid: np.ndarray
    """bool (n,), False where the step was used for a reset, in autoreset mode NEXT_STEP."""
    returns: np.ndarray
    """float64 (n,), sum of the episode's rewards so far, this step included."""
    lengths: np.ndarray
    """int64 (n,), steps of the episode so far, this step included."""
    action_mask: np.ndarray | None
    """bool (n, options), for ``observations``; None if the environments give no masks."""
    scores: np.ndarray
    """float64 (n,). Where an episode ended: the environment's score, or NaN if the game continues; the return if it keeps no scores."""
    score_lengths: np.ndarray
    """int64 (n,), steps of the game that a score belongs to, which may have several episodes."""
    numbers: Sequence[tuple[int, str, float]] = ()
    """Environment, name and value of each number in the last info of an episode."""

    @property
    def ended(self) -> np.ndarray:
        """Where an episode ended, bool (n,)."""
        return self.terminated | self.truncated


class Stepper:
    """Steps vector environments and tracks the returns and lengths of their episodes.

    The current state is in ``observations`` (n, ...), uint8 or bool if the space has that dtype and else float32, ``elapsed`` int64 (n,),
    ``returns`` float64 (n,) and ``action_mask`` bool (n, options) or None. An episode is truncated after ``limit`` steps, if given.

    Raises EnvironmentFault, naming the environment, if an environment raises an exception or returns a number that is not finite.
    Raises ValueError if the autoreset of ``envs`` is disabled or unknown, or if its observations are not a Box.
    """

    def __init__(self, envs: VectorEnv, limit: int | None = None):
        self.envs = envs
        self.num_envs: int = envs.num_envs
        self.mode = self._autoreset_mode()
        self.limit = limit
        if self.mode == AutoresetMode.DISABLED:
            raise ValueError("the environments' autoreset is disabled: make them with autoreset mode SAME_STEP or NEXT_STEP")
        space = envs.single_observation_space
        if not isinstance(space, Box):
            raise ValueError(f"observations must be a Box, not {space}: wrap each environment in FlattenObservation")
        self.observation_shape = space.shape
        self.observation_dtype = stored_dtype(space)
        self.mapping = ActionMapping(envs.single_action_space)
        self.seeds: list[int | None] = [None] * self.num_envs
        self.timesteps = 0
        """Environment steps so far."""
        self.action_mask: np.ndarray | None = None
        native = isinstance(envs, NativeVectorEnv) and self.mode == AutoresetMode.SAME_STEP
        self.native: NativeVectorEnv | None = envs if native else None  # type: ignore[assignment]
        """The environments, if they are native with SAME_STEP; their native loop then tracks returns and lengths."""
        self.observations = np.zeros((self.num_envs, *self.observation_shape), self.observation_dtype)
        self.elapsed = np.zeros(self.num_envs, np.int64)
        self.returns = np.zeros(self.num_envs)
        if self.native is not None:
            self.observations = self.native.observations
            self.elapsed = self.native.elapsed
            self.returns = self.native.returns
        self._is_gymnasiums = isinstance(envs.unwrapped, (NativeVectorEnv, SyncVectorEnv, AsyncVectorEnv))
        self._reports = _reports_scores(envs)
        self.scored = isinstance(envs, KeepsScores) and envs.scored
        """Whether the environments keep scores, in ``info["episode"]`` as RecordEpisodeStatistics: then an episode without a score, such
        as a lost life, does not count as the end of a game."""
        self._earlier = np.zeros(self.num_envs, np.int64)  # steps of earlier episodes of the same game
        self._resetting = np.zeros(self.num_envs, bool)  # in mode NEXT_STEP: where the next step will be a reset
        self._everywhere = np.ones(self.num_envs, bool)
        self._nowhere = np.zeros(self.num_envs, bool)

    def reset(self, seed: int | Sequence[int | None] | None = None, mask: np.ndarray | None = None) -> np.ndarray:
        """Begin new episodes in all environments, or where ``mask`` (n,) is True; returns the observations (n, ...).

        Running episodes do not count. Without a seed the random streams of the environments continue. An integer ``seed`` seeds
        environment i with seed + i. Many environments accept only 32 bits: if ``seed`` is below 2**32, seeds wrap around at 2**32.
        For vector environments of other packages ``seed`` is taken modulo 2**31.
        """
        if seed is not None:
            if isinstance(seed, (int, np.integer)):
                numbers = self._seeds_from(int(seed))
                given: list[int | None] = [*numbers]
                seed = numbers if self._is_gymnasiums else numbers[0]
            else:
                given = list(seed)
            self.seeds = [old if new is None else new for old, new in zip(self.seeds, given, strict=True)]
        options = None if mask is None else {"reset_mask": mask}
        observations, info = self.guarded(self.envs.reset, seed=seed, **({} if options is None else {"options": options}))
        info = {} if info is None else info
        if not isinstance(info, dict):
            raise EnvironmentFault(
                f"{name_of(self.envs)} returned infos as {type(info).__name__}, not as a dict of arrays: leave out DictInfoToList"
            )
        self.action_mask = mask_of(info, self.envs, None if mask is None else self.action_mask)
        begins = self._everywhere if mask is None else mask
        self._resetting = self._resetting & ~begins
        self._earlier = np.where(begins, 0, self._earlier)
        if self.native is None:
            self.observations = self._stored(observations)
            self.elapsed = np.where(begins, 0, self.elapsed)
            self.returns = np.where(begins, 0.0, self.returns)
        self._check(self.observations, np.zeros(self.num_envs), begins, "when it was reset")
        return self.observations

    def _seeds_from(self, seed: int) -> list[int]:
        """Return the seed of each environment, see `reset`."""
        if not self._is_gymnasiums:
            seed %= LARGEST_SEED // 2
        wraps = seed < LARGEST_SEED <= seed + self.num_envs - 1
        return [(seed + i) % LARGEST_SEED if wraps else seed + i for i in range(self.num_envs)]

    def step(self, actions: SpaceActions, counted: np.ndarray | None = None) -> Step:
        """Take one step with a batch of actions of the space.

        Raises EnvironmentFault if an environment fails, or returns a number that is not finite and is marked in ``counted``, bool (n,),
        by default all.
        """
        observations, rewards, terminated, truncated, info = self.guarded(self.envs.step, actions)
        rewards = self._row(rewards, np.float64, "rewards")
        terminated = self._row(terminated, np.bool_, "terminations")
        truncated = self._row(truncated, np.bool_, "truncations")
        info = {} if info is None else info
        ended = terminated | truncated
        any_ended = bool(ended.any())
        following = self._stored(observations)
        checked = self._everywhere if counted is None else counted
        self._check(following, rewards, checked)
        mask = mask_after_step(info, self.envs, self.action_mask, over=self.mode == AutoresetMode.NEXT_STEP)
        final = following
        final_mask = mask
        if any_ended and self.mode == AutoresetMode.SAME_STEP:
            final = following.copy()
            self._require_final(info, ended)
            for i in map(int, np.flatnonzero(ended)):
                last = np.asarray(info["final_obs"][i])
                if last.shape != self.observation_shape:
                    raise EnvironmentFault(
                        f"environment {i} of {name_of(self.envs)} ended an episode with an observation of shape {last.shape}, its space "
                        f"has {self.observation_shape}"
                    )
                final[i] = last
            self._check(final, rewards, checked)
            if mask is not None:  # "final_info" holds the mask of a final observation
                told = info.get("final_info", {})
                final_mask = mask_of(told if isinstance(told, dict) else {}, self.envs, mask, over=True)
        self.timesteps += self.num_envs
        self.action_mask = mask
        if self.native is not None:
            returns = np.where(ended, self.native.episode_returns, self.returns)
            lengths = np.where(ended, self.native.episode_lengths, self.elapsed)
        else:
            returns = self.returns + rewards
            lengths = self.elapsed + 1
            if self.mode == AutoresetMode.NEXT_STEP:
                returns[self._resetting] = 0.0
                lengths[self._resetting] = 0
            self.returns = returns if not any_ended else np.where(ended, 0.0, returns)
            self.elapsed = lengths if not any_ended else np.where(ended, 0, lengths)
            self.observations = following
        scores, score_lengths = self._scores(info, ended, returns, lengths) if any_ended else (returns, lengths + self._earlier)
        valid = self._everywhere
        if self.mode == AutoresetMode.NEXT_STEP:
            valid = ~self._resetting
            self._resetting = ended
        numbers = self._numbers(info, ended & valid) if any_ended and info and self.native is None else ()
        cut = self._nowhere
        if self.limit is not None and (lengths >= self.limit).any():
            cut = ~ended & (lengths >= self.limit)
            truncated = truncated | cut
            scores = np.where(cut, returns, scores)
            if cut.any():
                self.reset(mask=cut)
        return Step(
            final, rewards, terminated, truncated, cut, valid, returns, lengths, final_mask, scores, score_lengths, numbers
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the current observations, masks and facts about episodes. The state of native environments includes all of them."""
        return {
            "observations": self.observations.copy(),
            "elapsed": self.elapsed.copy(),
            "returns": self.returns.copy(),
            "resetting": self._resetting.copy(),
            "action_mask": None if self.action_mask is None else self.action_mask.copy(),
            "seeds": list(self.seeds),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError, and changes nothing, if it does not fit the environments."""
        mine = self.state_dict()
        found: dict[str, Any] = {}
        for name, expected in mine.items():
            if name == "seeds":
                continue
            found[name] = None if state[name] is None else np.array(state[name])
            kinds = [None if array is None else (array.shape, array.dtype) for array in (found[name], expected)]
            if kinds[0] != kinds[1]:
                raise ValueError(f"the saved {name} of the environments do not fit")
        self.observations = found["observations"]
        self.elapsed = found["elapsed"]
        self.returns = found["returns"]
        self._resetting = found["resetting"]
        if isinstance(self.envs, SyncVectorEnv):  # the environments alone do not know which of them their next step must reset
            self.envs._autoreset_envs = self._resetting.copy()
        self.action_mask = found["action_mask"]
        self.seeds = [None if seed is None else int(seed) for seed in state["seeds"]]

    def follow(self, envs: NativeVectorEnv) -> None:
        """Take the facts about episodes from native environments whose state was restored; where `native` is set, they are shared."""
        if self.native is None:
            self.observations = self._stored(envs.observations.copy())
            self.elapsed, self.returns = envs.elapsed.copy(), envs.returns.copy()
            self._resetting = envs.ended.copy()

    def _autoreset_mode(self) -> AutoresetMode:
        """Return the autoreset mode that the environments declare, or Gymnasium's default, with a warning. Raises ValueError."""
        told = (self.envs.metadata or {}).get("autoreset_mode")
        if told is None:
            warn_once(
                f'{name_of(self.envs)}: metadata has no "autoreset_mode", so NEXT_STEP is assumed: the step after the end of an episode '
                'only resets. If step() also resets, write metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}'
            )
            return AutoresetMode.NEXT_STEP
        return AutoresetMode(told)

    def _row(self, given: Any, dtype: type[np.generic], name: str) -> np.ndarray:
        """Convert rewards or flags of a step to an array of shape (n,). Raises EnvironmentFault if they are not n numbers."""
        if type(given) is np.ndarray and given.dtype == dtype and given.shape == self.elapsed.shape:
            return given
        try:
            found = np.asarray(given, dtype)
        except (TypeError, ValueError):
            found = np.zeros(0)
        if found.size != self.num_envs:
            shown = f"shape {found.shape}" if found.size else f"type {type(given).__name__}"
            raise EnvironmentFault(
                f"{name_of(self.envs)} returned {name} of {shown}: return one per environment, ({self.num_envs},)"
            )
        return found.reshape(self.num_envs)

    def _require_final(self, info: dict[str, Any], ended: np.ndarray) -> None:
        """Raise EnvironmentFault unless an info has the last observation of each environment that ``ended``, bool (n,)."""
        final = info.get("final_obs")
        if final is not None and len(final) == self.num_envs and all(final[i] is not None for i in np.flatnonzero(ended)):
            return
        old = " (final_observation is its name before Gymnasium 1.1)" if "final_observation" in info else ""
        raise EnvironmentFault(
            f"{name_of(self.envs)} has autoreset mode SAME_STEP, but ended an episode without its last observation: return it in "
            f'info["final_obs"], an array of objects with one entry per environment{old}'
        )

    def _scores(
        self, info: dict[str, Any], ended: np.ndarray, returns: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ``scores`` and ``score_lengths`` of `Step`, for ``ended``, ``returns`` and ``lengths`` of the step."""
        total = lengths + self._earlier
        if self.native is not None:
            return returns, total
        has = self._nowhere
        given = returns
        told: Any
        for told in (info.get("final_info"), info):  # the info of a reset has the score of a game that the reset ended
            episode = told.get("episode") if isinstance(told, dict) else None
            if self._reports and isinstance(episode, dict) and {"r", "l", "t"} <= episode.keys():
                self.scored = True
                here = ended & np.asarray(told.get("_episode", ended), bool)
                sums = np.asarray(episode["r"], np.float64).reshape(self.num_envs)
                if not np.isfinite(sums[here]).all():  # NaN marks games that continue
                    warn_once(
                        f"{name_of(self.envs)}: its own rewards sum to {sums[here][~np.isfinite(sums[here])][0]}, so the score of the "
                        "episode is the sum of the rewards after the wrappers"
                    )
                given = np.where(here & np.isfinite(sums), sums, given)
                has = has | here
        if not self.scored:
            return returns, total
        self._earlier = np.where(ended, np.where(has, 0, total), self._earlier)
        return np.where(ended & ~has, np.nan, given), total

    def _numbers(self, info: dict[str, Any], ended: np.ndarray) -> list[tuple[int, str, float]]:
        """Return ``numbers`` of `Step`: the finite numbers in the last info of the episodes that ``ended``, bool (n,)."""
        told = info.get("final_info", info) if self.mode == AutoresetMode.SAME_STEP else info
        found: list[tuple[int, str, float]] = []
        if not told or not isinstance(told, dict):
            return found
        for name, values in told.items():
            if f"_{name}" not in told or not isinstance(values, np.ndarray) or values.shape != ended.shape:
                continue  # Gymnasium's mask of another entry, or an entry that is not one number per environment
            if values.dtype.kind in "biuf":
                for i in np.flatnonzero(told[f"_{name}"] & ended & np.isfinite(values)):
                    found.append((int(i), name, float(values[i])))
        return found

    def _stored(self, observations: Any) -> np.ndarray:
        """Copy observations to the dtype for storage: environments may write to the same array in the next step.

        Raises EnvironmentFault if the shape differs from that of the space.
        """
        with np.errstate(over="ignore"):  # `_check` finds values that overflow to infinity
            found = np.array(observations, self.observation_dtype)
        if found.shape != (self.num_envs, *self.observation_shape):
            raise EnvironmentFault(
                f"{name_of(self.envs)} returned observations of shape {found.shape[1:]}, but its space has {self.observation_shape}"
            )
        return found

    def _check(self, observations: np.ndarray, rewards: np.ndarray, checked: np.ndarray, when: str = "") -> None:
        """Raise EnvironmentFault for the first environment in ``checked``, bool (n,), with a number that is not finite."""
        strange = not_finite(observations, rewards, checked)
        if strange is None:
            return
        index, what = strange
        when = when or f"at step {int(self.elapsed[index]) + 1} of its episode, {self.timesteps} steps into the run"
        raise EnvironmentFault(f"environment {index} of {name_of(self.envs)} (seed {self.seeds[index]}) returned {what} {when}")

    def guarded(self, call: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call a method of the environments and return its result. Raises EnvironmentFault if it raises any exception."""
        when = f"{self.timesteps} steps into the run (seed {self.seeds[0]})"
        try:
            return call(*arguments, **keywords)
        except EnvironmentFault:
            raise
        except NativeFault as error:
            raise EnvironmentFault(f"{error}, {when}") from error
        except FOREIGN_ERRORS as error:
            message = str(error).strip().splitlines()
            detail = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
            raise EnvironmentFault(f"{name_of(self.envs)} failed {when}: {detail}") from error


def _reports_scores(envs: VectorEnv) -> bool:
    """Whether ``info["episode"]`` comes from RecordEpisodeStatistics. Environments in other processes of Gymnasium's may have one."""
    layer = envs
    while isinstance(layer, VectorWrapper):
        if isinstance(layer, wrappers.vector.RecordEpisodeStatistics):
            return True
        layer = layer.env
    if isinstance(layer, SyncVectorEnv):
        return any(recorder_of(env) for env in layer.envs)
    return isinstance(layer, (KeepsScores, AsyncVectorEnv))


def name_of(envs: VectorEnv) -> str:
    """Return the name of environments for messages: their id, or else the name of their class."""
    if envs.spec is not None:
        return envs.spec.id
    named = envs.envs[0] if isinstance(envs, SyncVectorEnv) else envs
    return type(named.unwrapped).__name__


def not_finite(observations: np.ndarray, rewards: np.ndarray, checked: np.ndarray) -> tuple[int, str] | None:
    """Return the index of the first environment with a number that is not finite in float32, and a description of it; else None.

    Only environments marked in ``checked``, bool (n,), count.
    """
    sound = observations.dtype.kind != "f" or np.isfinite(observations).all()
    if np.abs(rewards).max() < 3e38 and sound:  # the comparison is False for NaN
        return None
    with np.errstate(over="ignore"):
        bad_reward = ~np.isfinite(rewards.astype(np.float32)) & checked
    if bad_reward.any():
        index = int(np.flatnonzero(bad_reward)[0])
        return index, f"a reward of {rewards[index]}"
    bad_observation = ~np.isfinite(observations).reshape(len(rewards), -1).all(1) & checked
    if bad_observation.any():
        index = int(np.flatnonzero(bad_observation)[0])
        return index, f"the observation {observations[index]}"
    return None


# --- action masks ----------------------------------------------------------------------------------------------------


def mask_of(info: dict[str, Any], envs: VectorEnv, before: np.ndarray | None = None, over: bool = False) -> np.ndarray | None:
    """Return the action mask, bool (num_envs, options), in ``info["action_mask"]``.

    Returns ``before`` if there is no mask or the actions have no choices. An environment that returns no mask keeps its row of
    ``before``, or is allowed every option if ``before`` is None. Raises EnvironmentFault if a mask has another shape, or if it allows no
    option of a choice and the episode is not ``over``.
    """
    given: Any = info.get("action_mask")
    choices = [] if given is None else choices_of(envs.single_action_space)
    if given is None or not choices:
        return before
    options = sum(choices)
    begins = np.cumsum([0, *choices[:-1]])
    mask = np.ones((envs.num_envs, options), bool) if before is None else before.copy()
    for i in np.flatnonzero(info.get("_action_mask", np.ones(envs.num_envs, bool))):
        row = np.asarray(given[i])
        if row.shape != (options,):
            raise EnvironmentFault(
                f"{name_of(envs)} returned an action mask of shape {row.shape}: "
                f"it must have one entry for each of the {options} options, shape ({options},)"
            )
        try:
            mask[i] = as_allowed(row)
        except ValueError as error:
            raise EnvironmentFault(f"the action mask of {name_of(envs)} does not fit: {error}") from None
        if not (mask[i].any() if len(choices) == 1 else np.logical_or.reduceat(mask[i], begins).all()):
            if not over:
                raise EnvironmentFault(
                    f"{name_of(envs)} returned an action mask that allows nothing: allow at least one option of each choice"
                )
            mask[i] = True  # the episode is over: no action follows, and no value of this observation is used
    return mask


def mask_after_step(info: dict[str, Any], envs: VectorEnv, before: np.ndarray | None, over: bool = False) -> np.ndarray | None:
    """Return the action mask after a step of all environments, as `mask_of`. An environment without a mask is allowed every option.

    Also raises EnvironmentFault if a mask appears although ``before`` is None: the steps stored so far have no masks.
    """
    if before is not None:
        return mask_of(info, envs, np.ones_like(before), over)
    if "action_mask" in info and options_of(envs.single_action_space):
        raise EnvironmentFault(
            f"{name_of(envs)} returned an action mask from step(), but none from reset(): return one from both"
        )
    return None


def longest_episode(envs: VectorEnv) -> int | None:
    """Return the limit for a `Stepper`: None if the environments have a time limit of their own, else ``EPISODE_LIMIT``."""
    known = getattr(envs, "time_limit", None) or (envs.spec is not None and envs.spec.max_episode_steps)
    return None if known else EPISODE_LIMIT
