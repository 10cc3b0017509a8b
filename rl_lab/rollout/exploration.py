"""Exploration: epsilon-greedy actions, noise, and a schedule for epsilon."""

import math

import rl_lab as rl
from rl_lab.nn import Module
from rl_lab.nn.networks import StateDependentActor
from rl_lab.rollout.policies import greedy, squashed_gaussian


def epsilon_greedy(
    q_values: rl.Tensor, epsilon: rl.Tensor, generator: rl.Generator, action_mask: rl.Tensor | None = None
) -> rl.Tensor:
    """Draw epsilon-greedy actions, int64 (batch,), for ``q_values`` (batch, actions).

    An action is uniformly random with probability ``epsilon`` (), else greedy. With a mask, bool (batch, actions), both kinds are chosen
    among the allowed actions.
    """
    count, actions = q_values.shape
    random = random_actions(count, actions, generator, action_mask)
    chosen = rl.rand(count, generator=generator) < epsilon
    return rl.where(chosen, random, greedy(q_values, action_mask))


def random_actions(count: int, actions: int, generator: rl.Generator, action_mask: rl.Tensor | None = None) -> rl.Tensor:
    """Draw uniformly random actions, int64 (count,), among those that a mask, bool (count, actions), allows."""
    if action_mask is None:
        return rl.randint(0, actions, (count,), generator=generator)
    return rl.rand(count, actions, generator=generator).masked_fill(~action_mask, -1.0).argmax(1)


class LinearSchedule:
    """Linear interpolation from ``initial`` to ``final`` over the first ``fraction`` of ``total`` steps, then ``final``."""

    def __init__(self, initial: float, final: float, fraction: float, total: int):
        self.initial = initial
        self.final = final
        self.steps = max(1.0, fraction * total)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        return self.initial + min(1.0, step / self.steps) * (self.final - self.initial)


class _Lasting:
    """Exploration with memory: ``last`` (num_envs, ...) holds the last noise or actions. The agent saves the generator."""

    def __init__(self, last: rl.Tensor, colour: float, generator: rl.Generator):
        self.last = last
        self.colour = colour
        self.generator = generator

    def state_dict(self) -> dict[str, rl.Tensor]:
        """Return the noise or the actions of the last step."""
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, rl.Tensor]) -> None:
        """Continue from a `state_dict`."""
        if self.colour:  # with colour 0 no step depends on the last one
            self.last.copy_(rl.as_tensor(state["last"]))


class ColoredNoise(_Lasting):
    """Autocorrelated Gaussian noise: each step keeps the share ``colour`` of the last step's noise, which is 0 before an episode.

    This is an Ornstein-Uhlenbeck process sampled once per step, with variance 1 - colour ** (2 t) in step t = 1, 2, ... of an episode.
    Colour 0 is white noise. Correlated noise explores further (Lillicrap et al. 2016, "Continuous control with deep reinforcement
    learning", section 3).
    """

    def __init__(self, num_envs: int, size: int, colour: float, generator: rl.Generator):
        super().__init__(rl.zeros(num_envs, size), colour, generator)

    def __call__(self, elapsed: rl.Tensor) -> rl.Tensor:
        """Return the next noise (num_envs, size); ``elapsed``, int64 (num_envs,), is 0 where an episode begins."""
        fresh = rl.randn(*self.last.shape, generator=self.generator)
        if self.colour:
            kept = self.last * (elapsed > 0).float().unsqueeze(1)
            fresh = self.colour * kept + math.sqrt(1.0 - self.colour**2) * fresh
            self.last.copy_(fresh)
        return fresh


class StateDependentNoise(_Lasting):
    """Random matrices for generalized state-dependent exploration, one an environment, float32 (num_envs, features, size).

    `rl_lab.nn.networks.StateDependentActor` multiplies its features by them. Each element is standard normal. New matrices are drawn at
    the beginning of an episode and every ``frequency`` steps of it; with ``frequency`` 0 a matrix is kept for the whole episode (Raffin,
    Kober and Stulp 2021, "Smooth exploration for robotic reinforcement learning", section 3).
    """

    def __init__(self, num_envs: int, features: int, size: int, frequency: int, generator: rl.Generator):
        super().__init__(rl.zeros(num_envs, features, size), 1.0, generator)
        self.frequency = frequency

    def __call__(self, elapsed: rl.Tensor) -> rl.Tensor:
        """Return the matrices of the next step; ``elapsed``, int64 (num_envs,), is 0 where an episode begins."""
        due = (elapsed % self.frequency if self.frequency else elapsed) == 0
        fresh = rl.randn(*self.last.shape, generator=self.generator)
        self.last.copy_(rl.where(due.reshape(-1, 1, 1), fresh, self.last))
        return self.last


def squashed_actions(
    actor: Module, observations: rl.Tensor, noise: ColoredNoise | StateDependentNoise, elapsed: rl.Tensor
) -> rl.Tensor:
    """Draw actions (num_envs, size) in [-1, 1]: the tanh of the actor's Gaussian, whose noise lasts as ``noise`` says.

    ``actor`` is a `StateDependentActor` if ``noise`` is a `StateDependentNoise`; else it is a network to means and log standard
    deviations (num_envs, 2 size).
    """
    if isinstance(noise, StateDependentNoise):
        assert isinstance(actor, StateDependentActor)
        features = actor.body(observations)
        return (squashed_gaussian(actor.outputs(features)).mean + actor.noise(features, noise(elapsed))).tanh()
    policy = squashed_gaussian(actor(observations))
    return (policy.mean + policy.std * noise(elapsed)).tanh()


class StickyActions(_Lasting):
    """Repeats the last discrete action with probability ``colour``, so that exploration does not cancel itself out.

    A simple form of temporally extended exploration (Dabney, Ostrovski and Barreto 2021, "Temporally-extended epsilon-greedy
    exploration"). The first action of an episode is never a repetition.
    """

    def __init__(self, num_envs: int, colour: float, generator: rl.Generator):
        super().__init__(rl.zeros(num_envs, dtype=rl.int64), colour, generator)

    def __call__(self, actions: rl.Tensor, elapsed: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Return the actions to take, int64 (num_envs,): ``actions`` or the last ones.

        ``elapsed``, int64 (num_envs,), is 0 where an episode begins. An action that the mask, bool (num_envs, actions), forbids is not
        repeated.
        """
        if self.colour:
            stays = (rl.rand(len(actions), generator=self.generator) < self.colour) & (elapsed > 0)
            if action_mask is not None:
                stays = stays & action_mask.gather(1, self.last.unsqueeze(1)).squeeze(1)
            actions = rl.where(stays, self.last, actions)
            self.last.copy_(actions)
        return actions
