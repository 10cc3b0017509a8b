"""REINFORCE (Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning").

Each update uses one whole episode of every environment, all played by the same policy. With ``baseline`` a learned value is subtracted
from the returns (Williams 1992, section 4). This reduces the gradient's variance and does not change its expectation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import rl_lab as rl
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, check_network, evolved_path, make_network, sizes_beside
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import Collector, Moment, RunningMoments, discounted_returns, longest_episode
from rl_lab.rollout.policies import ActionDistribution, ActionHead, Insight, outputs_of


@dataclass(frozen=True)
class REINFORCEConfig:
    """Hyperparameters of REINFORCE."""

    total_timesteps: int = setting(200_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64",
        "layers of policy and baseline: mlp: or cnn: and sizes; or a run of NEAT as the policy",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    baseline: bool = setting(True, "subtract a learned value from the returns", shapes=True)
    learning_rate: float = setting(3e-3, "Adam's step size", above=0, search=Between(1e-4, 3e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    baseline_steps: int = setting(4, "gradient steps of the baseline per update", least=1)
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    normalize_returns: bool = setting(True, "normalize returns, less the baseline, to mean 0 and standard deviation 1")
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", least=0, search=Between(1e-6, 0.1, log=True))
    max_grad_norm: float = setting(1.0, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions")
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


CHUNK = 32
"""Steps collected at once. The length of a rollout is a multiple of it; steps after the end of an episode have weight 0."""


class REINFORCE(Agent):
    """The Monte Carlo policy gradient."""

    Config = REINFORCEConfig
    learned = ("actor", "head", "value", "moments")
    saved = ("optimizer", "value_optimizer", "action_stream")

    def build(self) -> None:
        """Networks, optimisers and collector."""
        c = self.config
        network_stream, self.action_stream, environment_stream = rl.Generator(self.seed).spawn(3)
        self.head = ActionHead(self.space, c.log_std)
        options: dict[str, Any] = {"orthogonal": True, "generator": network_stream}
        self.actor = make_network(self.observed, c.network, self.head.outputs, c.activation, output_gain=0.01, **options)
        self.value = make_network(self.observed, sizes_beside(c.network), 1, c.activation, **options) if c.baseline else None
        self.actor_parameters = [*self.actor.parameters(), *self.head.parameters()]
        self.optimizer = rl.optim.Adam(self.actor_parameters, lr=c.learning_rate)
        self.value_optimizer = rl.optim.Adam(self.value.parameters(), lr=c.learning_rate) if self.value is not None else None
        self.evolved = evolved_path(c.network) is not None
        self.moments = RunningMoments(self.shape) if c.normalize_observations and self.observed.is_float else None
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self._update = self.record(self.update)

    # --- acting ------------------------------------------------------------------------------------------------------

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Normalized observations, or the observations themselves without ``normalize_observations``."""
        return self.moments.normalize(observations) if self.moments is not None else observations

    def policy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> ActionDistribution:
        """The distribution of actions. An evolved network gets the observations as they are, as in its evolution."""
        seen = observations if self.evolved else self.normal(observations)
        return self.head.distribution(self.actor(seen), action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy."""
        return {"actions": self.policy(moment.observations, moment.action_mask).sample(generator=self.action_stream)}

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The outputs of the policy, and the baseline."""
        value = None if self.value is None else self.value(self.normal(observations)).squeeze(1)
        return Insight(outputs_of(self.policy(observations, action_mask)), value)

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The greedy actions: the mode of the policy."""
        return self.policy(observations, action_mask).mode

    # --- learning ----------------------------------------------------------------------------------------------------

    def update(self, episodes: dict[str, rl.Tensor]) -> list[rl.Tensor]:
        """Take one step along sum_t (G_t - b(s_t)) grad log pi(a_t | s_t); tensors are (steps, environments, ...).

        ``counts`` is 1 for the steps of an episode and 0 for the steps after it. Returns the losses, the entropy and the gradient norms.
        """
        c = self.config
        counts = episodes["counts"].flatten()
        observations = episodes["observations"].flatten(0, 1)
        masks = episodes.get("action_masks")

        def mean(x: rl.Tensor) -> rl.Tensor:
            return (x * counts).sum() / counts.sum()

        value_loss = value_norm = rl.zeros(())
        if self.value is None:
            returns = discounted_returns(episodes["rewards"], episodes["terminated"], episodes["truncated"], c.gamma).flatten()
            weights = returns
        else:
            with rl.no_grad():
                values = self.value(self.normal(observations)).squeeze(1)
                next_values = self.value(self.normal(episodes["next_observations"].flatten(0, 1)))
            rewards = episodes["rewards"]
            following = next_values.reshape(rewards.shape)
            returns = discounted_returns(rewards, episodes["terminated"], episodes["truncated"], c.gamma, following).flatten()
            weights = returns - values
        if c.normalize_returns:
            centre = mean(weights)
            weights = (weights - centre) / (mean((weights - centre) ** 2).sqrt() + 1e-8)
        policy = self.policy(observations, None if masks is None else masks.flatten(0, 1))
        entropy = mean(policy.entropy())
        policy_loss = -mean(policy.log_prob(episodes["actions"].flatten(0, 1)) * weights)
        self.optimizer.zero_grad()
        (policy_loss - c.entropy_coefficient * entropy).backward()
        norm = clip_grad_norm_(self.actor_parameters, c.max_grad_norm)
        self.optimizer.step()
        if self.value is not None and self.value_optimizer is not None:
            for _ in range(c.baseline_steps):
                value_loss = 0.5 * mean((self.value(self.normal(observations)).squeeze(1) - returns) ** 2)
                self.value_optimizer.zero_grad()
                value_loss.backward()
                value_norm = clip_grad_norm_(self.value.parameters(), c.max_grad_norm)
                self.value_optimizer.step()
        return [policy_loss, value_loss, entropy, norm, value_norm]

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Run one episode in every environment, and learn from them."""
        c = self.config
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.collector.restart()
        parts: dict[str, list[np.ndarray]] = {}
        told: dict[str, list[float]] = {}  # numbers in the last infos of the episodes
        going = np.ones(self.num_envs, bool)
        limit = longest_episode(self.collector.envs)
        while going.any() and (limit is None or len(parts.get("counts", ())) * CHUNK < limit):
            made = self.collector.collect(CHUNK)
            self.timesteps += CHUNK * self.num_envs
            counts = np.zeros(made.rewards.shape, np.float32)
            for t in range(CHUNK):
                counts[t] = going & made.valid[t]
                going = going & ~(made.terminated[t] | made.truncated[t])
            for name in ("observations", "actions", "rewards", "terminated", "truncated", "next_observations"):
                parts.setdefault(name, []).append(getattr(made, name).copy())
            parts.setdefault("counts", []).append(counts)
            for t, i, name, value in made.numbers:
                if counts[t, i]:
                    told.setdefault(name, []).append(value)
            if made.action_masks is not None:
                parts.setdefault("action_masks", []).append(made.action_masks.copy())
        episodes = {name: np.concatenate(chunks) for name, chunks in parts.items()}
        for optimizer in (self.optimizer, self.value_optimizer):
            if optimizer is not None:
                optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        results = self._update({name: rl.from_numpy(array) for name, array in episodes.items()})
        if self.moments is not None:
            seen = episodes["observations"][episodes["counts"] > 0]
            self.moments.update(rl.from_numpy(np.ascontiguousarray(seen)))
        # the collector's list also has short episodes that began and ended in the steps of weight 0
        listed = self.collector.episodes()
        scored = listed if self.collector.stepper.scored else {}
        names = ("policy_loss", "value_loss", "entropy", "policy_grad_norm", "value_grad_norm")
        return {
            "charts/episodic_return": float((episodes["rewards"] * episodes["counts"]).sum(0).mean()),
            "charts/episodic_length": float(episodes["counts"].sum(0).mean()),
            **scored,
            **{f"info/{name}": float(np.mean(values)) for name, values in told.items()},
            **{f"losses/{name}": result.item() for name, result in zip(names, results, strict=True)},
        }
