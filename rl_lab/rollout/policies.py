"""From what a network says to actions: what agents of several algorithms share."""

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from gymnasium.vector import VectorEnv

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.distributions import Categorical, Independent, Normal
from rl_lab.nn import Module


def single_spaces(agent: Any, envs: VectorEnv) -> tuple[tuple[int, ...], Any]:
    """The shape of one environment's observations, and its action space. TypeError if the agent cannot act there."""
    shape, space = envs.single_observation_space.shape, envs.single_action_space
    if not isinstance(envs.single_observation_space, Box) or shape is None:
        raise TypeError(f"{type(agent).__name__} needs Box observations, not {envs.single_observation_space}")
    if not isinstance(space, agent.action_spaces):
        kinds = " or ".join(kind.__name__ for kind in agent.action_spaces)
        raise TypeError(f"{type(agent).__name__} needs {kinds} actions, not {space}")
    return shape, space


def epsilon_greedy(q_values: Any, epsilon: Any, generator: rl.Generator, action_mask: Any = None) -> Any:
    """argmax_a Q, or with probability ``epsilon`` a uniformly random action; among the allowed ones where there is a mask.

    ``q_values`` is (batch, actions), ``epsilon`` a tensor, the result int64 (batch,).
    """
    count, actions = q_values.shape
    random = random_actions(count, actions, generator, action_mask)
    chosen = rl.rand(count, generator=generator) < epsilon
    return rl.where(chosen, random, greedy(q_values, action_mask))


def random_actions(count: int, actions: int, generator: rl.Generator, action_mask: Any = None) -> Any:
    """Uniformly random actions, int64 (count,), among the allowed ones where there is a mask (count, actions)."""
    if action_mask is None:
        return rl.randint(0, actions, (count,), generator=generator)
    return rl.rand(count, actions, generator=generator).masked_fill(~action_mask, -1.0).argmax(1)


def as_tensors(observations: np.ndarray, action_mask: np.ndarray | None = None) -> tuple[Any, Any]:
    """What ``act`` is given, as a policy takes it: float32 observations (batch, ...) and a bool mask (batch, actions) or None."""
    mask = None if action_mask is None else rl.from_numpy(np.ascontiguousarray(action_mask, bool))
    return rl.from_numpy(np.ascontiguousarray(observations, np.float32)), mask


def centre_and_radius(space: Box, name: str) -> tuple[Any, Any]:
    """Of a bounded Box, flattened, float32 (size,): actions in [-1, 1] are stretched by them. ValueError if it is not bounded."""
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"{name} needs bounded actions, got {space}")
    low, high = (rl.tensor(np.asarray(bound, np.float32).ravel()) for bound in (space.low, space.high))
    return (low + high) / 2, (high - low) / 2


def greedy(q_values: Any, action_mask: Any = None) -> Any:
    """argmax_a Q(s, a) among the allowed actions, int64 (batch,)."""
    return masked(q_values, action_mask).argmax(1)


def masked(q_values: Any, action_mask: Any) -> Any:
    """Values with those of forbidden actions far below all others."""
    return q_values if action_mask is None else q_values.masked_fill(~action_mask, -1e9)


def as_space(actions: np.ndarray, space: Space) -> np.ndarray:
    """A batch of actions as an environment takes them: discrete ones counted from the space's start, continuous ones clipped to it."""
    actions = actions.reshape(len(actions), *(space.shape or ()))
    if isinstance(space, (Discrete, MultiDiscrete)):
        return actions + space.start
    if isinstance(space, Box):
        return np.clip(actions, space.low, space.high)
    raise TypeError(f"no agent acts in {space}")


def clipped_surrogate(log_ratio: Any, advantages: Any, clip_range: Any) -> Any:
    """min(r A, clip(r, 1 - clip_range, 1 + clip_range) A), elementwise, of log r and A (Schulman et al. 2017, equation 7).

    In its shorter form (Achiam 2018): the bound is A (1 + clip_range) or A (1 - clip_range), by the sign of A.
    """
    return rl.minimum(log_ratio.exp() * advantages, advantages + clip_range * advantages.abs())


@rl.no_grad()
def approximate_kl(log_ratio: Any) -> Any:
    """Schulman's estimator k3 of KL(old || new), elementwise, of log r for actions of the old policy: r - 1 - log r, never negative."""
    return log_ratio.exp() - 1.0 - log_ratio


class LinearSchedule:
    """From ``initial`` to ``final`` over the first ``fraction`` of ``total`` steps, and ``final`` from there on."""

    def __init__(self, initial: float, final: float, fraction: float, total: int):
        self.initial, self.final, self.steps = initial, final, max(1.0, fraction * total)

    def __call__(self, step: int) -> float:
        return self.initial + min(1.0, step / self.steps) * (self.final - self.initial)


class ActionHead(Module):
    """A distribution over a space's actions, made of a network's outputs.

    ``outputs`` is how many numbers a network has to give: logits of each choice of a Discrete or MultiDiscrete space, means of a Box
    and, with ``state_dependent_std``, their log standard deviations. Without it these are parameters of their own.
    """

    def __init__(self, space: Space, log_std: float = 0.0, state_dependent_std: bool = False):
        super().__init__()
        self.free_std = isinstance(space, Box) and not state_dependent_std
        if isinstance(space, Discrete):
            self.choices = [int(space.n)]
        elif isinstance(space, MultiDiscrete):
            self.choices = [int(n) for n in space.nvec.ravel()]
        elif isinstance(space, Box):
            self.choices = []
        else:
            raise TypeError(f"no agent acts in {space}")
        self.single = isinstance(space, Discrete)
        self.size = math.prod(space.shape or ()) if isinstance(space, Box) else 0
        self.outputs = sum(self.choices) or self.size * (1 if self.free_std else 2)
        self.initial_log_std = log_std
        if self.free_std:
            self.log_std = rl.nn.Parameter(rl.full((self.size,), log_std))

    def distribution(self, outputs: Any, action_mask: Any = None) -> Any:
        """The distribution for outputs (batch, outputs); masked actions have no chance.

        Its ``sample(generator=...)``, ``mode``, ``log_prob(actions)`` and ``entropy()`` are those of `rl_lab.distributions`.
        """
        if self.choices:
            logits = masked(outputs, action_mask)
            if self.single:
                return Categorical(logits=logits, validate_args=False)
            return Factored([Categorical(logits=part, validate_args=False) for part in logits.split(self.choices, 1)])
        if self.free_std:
            mean, log_std = outputs, self.log_std.expand_as(outputs)
        else:
            mean, log_std = outputs[:, : self.size], outputs[:, self.size :] + self.initial_log_std
            log_std = log_std.clamp(-20.0, 2.0)
        return Independent(Normal(mean, log_std.exp(), validate_args=False), 1, validate_args=False)


class Factored:
    """Independent choices side by side: the distribution over a MultiDiscrete space."""

    def __init__(self, parts: list[Any]):
        self.parts = parts

    def sample(self, generator: rl.Generator | None = None) -> Any:
        return rl.stack([part.sample(generator=generator) for part in self.parts], 1)

    @property
    def mode(self) -> Any:
        return rl.stack([part.mode for part in self.parts], 1)

    def log_prob(self, actions: Any) -> Any:
        return sum(part.log_prob(actions[:, i]) for i, part in enumerate(self.parts))

    def entropy(self) -> Any:
        return sum(part.entropy() for part in self.parts)


class SquashedGaussian:
    """tanh of a Gaussian, stretched to a Box (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", appendix C).

    ``mean`` and ``log_std`` are (batch, size), ``centre`` and ``radius`` of the box (size,).
    """

    def __init__(self, mean: Any, log_std: Any, centre: Any, radius: Any):
        self.mean, self.std, self.log_std = mean, log_std.exp(), log_std
        self.centre, self.radius = centre, radius

    @property
    def mode(self) -> Any:
        """The action of the Gaussian's mean."""
        return self.centre + self.radius * self.mean.tanh()

    def rsample(self, generator: rl.Generator | None = None) -> tuple[Any, Any]:
        """Actions (batch, size), differentiable, and their log-probabilities (batch,) per unit of the box scaled to [-1, 1]."""
        noise = rl.randn(*self.mean.shape, generator=generator)
        u = self.mean + self.std * noise
        gaussian = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) without losing the digits of the difference
        squash = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
        return self.centre + self.radius * u.tanh(), (gaussian - squash).sum(1)


class _Lasting:
    """Exploration of which something stays from step to step: ``last``, of each environment. The generator is its owner's."""

    def __init__(self, last: Any, colour: float, generator: rl.Generator):
        self.last, self.colour, self.generator = last, colour, generator

    def state_dict(self) -> dict[str, rl.Tensor]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, rl.Tensor]) -> None:
        if self.colour:  # otherwise nothing stays
            self.last.copy_(rl.as_tensor(state["last"]))


class ColoredNoise(_Lasting):
    """Gaussian noise of which the share ``colour`` stays from step to step and which begins with 0 in each episode.

    That is an Ornstein-Uhlenbeck process at whole steps: its variance is 1 - colour ** (2 t) in step t = 1, 2, ... of an episode.
    Colour 0 is white noise. Exploration that wanders reaches what exploration that trembles does not (Lillicrap et al. 2016,
    "Continuous control with deep reinforcement learning", section 3).
    """

    def __init__(self, num_envs: int, size: int, colour: float, generator: rl.Generator):
        super().__init__(rl.zeros(num_envs, size), colour, generator)

    def __call__(self, elapsed: rl.Tensor) -> rl.Tensor:
        """The next noise (num_envs, size); ``elapsed`` (num_envs,) is 0 where an episode begins."""
        fresh = rl.randn(*self.last.shape, generator=self.generator)
        if self.colour:
            kept = self.last * (elapsed > 0).float().unsqueeze(1)
            fresh = self.colour * kept + math.sqrt(1.0 - self.colour**2) * fresh
            self.last.copy_(fresh)
        return fresh


class StickyActions(_Lasting):
    """Discrete actions of which each is, with probability ``colour``, that of the step before: random ones then lead somewhere.

    The simplest of temporally extended explorations (Dabney, Ostrovski and Barreto 2021, "Temporally-extended epsilon-greedy
    exploration"); an episode begins without an action before.
    """

    def __init__(self, num_envs: int, colour: float, generator: rl.Generator):
        super().__init__(rl.zeros(num_envs, dtype=rl.int64), colour, generator)

    def __call__(self, actions: Any, elapsed: Any, action_mask: Any = None) -> Any:
        """The actions (num_envs,) that are taken instead; those before only where they are allowed."""
        if self.colour:
            stays = (rl.rand(len(actions), generator=self.generator) < self.colour) & (elapsed > 0)
            if action_mask is not None:
                stays = stays & action_mask.gather(1, self.last.unsqueeze(1)).squeeze(1)
            actions = rl.where(stays, self.last, actions)
            self.last.copy_(actions)
        return actions
