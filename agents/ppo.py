"""Proximal policy optimization (Schulman et al. 2017), with implementation details from Andrychowicz et al. 2021 and Huang et al. 2022."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.nn import Linear, init
from rl_lab.nn.networks import ACTIVATIONS, check_network, evolved_path, make_network, sizes_beside
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import (
    Collector,
    Minibatches,
    Moment,
    RewardScale,
    RunningMoments,
    following_values,
    generalized_advantages,
    normalized,
)
from rl_lab.rollout.policies import ActionDistribution, ActionHead, Insight, approximate_kl, clipped_surrogate, outputs_of


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO."""

    total_timesteps: int = setting(100_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64,64",
        "layers of actor and critic: mlp: or cnn: and sizes; or a run of NEAT as the actor",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    shared: bool = setting(False, "actor and critic share all layers but the last, as is usual for pictures", shapes=True)
    learning_rate: float = setting(3e-4, "Adam's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    num_steps: int = setting(512, "steps of each environment in a rollout", least=1, search=(128, 256, 512, 2048))
    batch_size: int = setting(64, "steps in a minibatch; must divide the rollout", least=1, search=(64, 128))
    epochs: int = setting(10, "passes over each rollout", least=1, search=(4, 10))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    gae_lambda: float = setting(
        0.95, "lambda of generalized advantage estimation", least=0, most=1, search=(0.8, 0.9, 0.95, 0.98, 1.0)
    )
    clip_range: float = setting(0.2, "clip range of the probability ratio around 1", above=0, search=(0.1, 0.2, 0.3))
    clip_range_final: float = setting(1.0, "final clip range as a share of the initial one, reached linearly", least=0, most=1)
    clip_value: float = setting(0.0, "clip range of the change of a value since the rollout; 0: not clipped", least=0)
    entropy_coefficient: float = setting(0.003, "weight of the entropy bonus", least=0, search=Between(1e-6, 0.1, log=True))
    value_coefficient: float = setting(0.5, "weight of the value loss", least=0)
    normalize_advantages: bool = setting(True, "normalize advantages to mean 0 and standard deviation 1 in each minibatch")
    target_kl: float = setting(0.0, "mean approximate KL divergence in an epoch that ends the update early; 0: never", least=0)
    max_grad_norm: float = setting(0.5, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions")
    state_dependent_std: bool = setting(False, "standard deviation of continuous actions computed by the network", shapes=True)
    normalize_observations: bool = setting(
        True, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(True, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class RolloutBatch(NamedTuple):
    """A rollout with steps and environments flattened; every tensor is (steps * environments, ...)."""

    observations: rl.Tensor
    actions: rl.Tensor
    log_probs: rl.Tensor
    values: rl.Tensor
    advantages: rl.Tensor
    returns: rl.Tensor
    weights: rl.Tensor | None  # 0 for a step that was only a reset, else 1; None if there are no such steps
    action_masks: rl.Tensor | None


class PPO(Agent):
    """Actor and critic with the clipped surrogate objective."""

    Config = PPOConfig
    learned = ("trunk", "actor", "head", "critic", "moments")
    saved = ("optimizer", "reward_scale", "action_stream", "shuffle_stream")

    def build(self) -> None:
        """Networks, optimiser and collector."""
        c = self.config
        network_stream, self.action_stream, self.shuffle_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.head = ActionHead(self.space, c.log_std, c.state_dependent_std)
        options: dict[str, Any] = {"orthogonal": True, "generator": network_stream}
        self.actor: Any = make_network(self.observed, c.network, self.head.outputs, c.activation, output_gain=0.01, **options)
        self.evolved = evolved_path(c.network) is not None
        self.trunk: rl.nn.Module | None = None
        if c.shared and not self.evolved:
            last: Any = self.actor[-1]
            self.trunk, self.actor = self.actor[:-1], last
            self.critic: Any = Linear(last.in_features, 1, generator=network_stream)
            init.orthogonal_(self.critic.weight, 1.0, network_stream)
            init.zeros_(self.critic.bias)
        else:
            self.critic = make_network(self.observed, sizes_beside(c.network), 1, c.activation, output_gain=1.0, **options)
        self.actor_parameters = [*self.actor.parameters(), *self.head.parameters()]
        trunk = [] if self.trunk is None else list(self.trunk.parameters())
        self.parameters = [*trunk, *self.actor_parameters, *self.critic.parameters()]
        self.optimizer = rl.optim.Adam(self.parameters, lr=c.learning_rate, eps=1e-5)
        self.moments = RunningMoments(self.shape) if c.normalize_observations and self.observed.is_float else None
        self.reward_scale = RewardScale(self.num_envs, c.gamma) if c.normalize_rewards else None

        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.size = c.num_steps * self.num_envs
        if self.size % c.batch_size:
            raise ValueError(
                f"batch_size {c.batch_size} must divide a rollout of {c.num_steps} steps x {self.num_envs} environments"
            )
        self.batch: Any = None
        self.clip_now = rl.full((), c.clip_range)
        self.sums = rl.zeros(7)
        self._prepare = self.record(self.prepare)
        self.minibatches = Minibatches(self.size, c.batch_size, self.shuffle_stream)
        self._epoch = self.minibatches.passes(self.update, self.record)

    # --- acting ------------------------------------------------------------------------------------------------------

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Normalized observations, or the observations themselves without ``normalize_observations``."""
        return self.moments.normalize(observations) if self.moments is not None else observations

    def features(self, observations: rl.Tensor) -> rl.Tensor:
        """The outputs of the layers that actor and critic share; the observations themselves if they share none."""
        return observations if self.trunk is None else self.trunk(self.normal(observations))

    def policy(self, features: rl.Tensor, action_mask: rl.Tensor | None = None) -> ActionDistribution:
        """The distribution of actions. An evolved network gets the observations as they are, as in its evolution."""
        seen = features if self.evolved or self.trunk is not None else self.normal(features)
        return self.head.distribution(self.actor(seen), action_mask)

    def value(self, features: rl.Tensor) -> rl.Tensor:
        """State values (batch,)."""
        return self.critic(features if self.trunk is not None else self.normal(features)).squeeze(1)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy, and their log-probabilities."""
        policy = self.policy(self.features(moment.observations), moment.action_mask)
        actions = policy.sample(generator=self.action_stream)
        return {"actions": actions, "log_probs": policy.log_prob(actions)}

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The outputs of the policy, and the state value."""
        features = self.features(observations)
        return Insight(outputs_of(self.policy(features, action_mask)), self.value(features))

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The greedy actions: the mode of the policy."""
        return self.policy(self.features(observations), action_mask).mode

    # --- the rollout's advantages ------------------------------------------------------------------------------------

    @rl.no_grad()
    def prepare(self, rollout: dict[str, rl.Tensor]) -> None:
        """Compute values and advantages of a rollout (steps, environments, ...) and copy all into ``self.batch``."""
        observations = rollout["observations"].flatten(0, 1)
        # the layers' outputs for all pictures of a rollout would take more memory than a whole update
        parts = observations.split(self.config.batch_size) if observations.dim() > 2 else [observations]
        values = rl.cat([self.value(self.features(part)) for part in parts]).reshape(*rollout["rewards"].shape)
        next_values = following_values(lambda x: self.value(self.features(x)), values, rollout)
        advantages = generalized_advantages(
            rollout["rewards"],
            values,
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.config.gamma,
            self.config.gae_lambda,
        ).flatten()
        values = values.flatten()
        weights = rollout.get("valid")
        masks = rollout.get("action_masks")
        made = RolloutBatch(
            observations,
            rollout["actions"].flatten(0, 1),
            rollout["log_probs"].flatten(),
            values,
            advantages,
            advantages + values,
            None if weights is None else weights.flatten().float(),
            None if masks is None else masks.flatten(0, 1),
        )
        for target, source in zip(self.batch, made, strict=True):
            if source is not None:
                target.copy_(source)

    def _storage(self, rollout: dict[str, rl.Tensor]) -> RolloutBatch:
        """Empty tensors for a rollout. They are made once, because the recorded updates read the same memory at each replay."""
        n = self.size
        weights = rollout.get("valid")
        masks = rollout.get("action_masks")
        actions = rollout["actions"]
        return RolloutBatch(
            rl.zeros(n, *rollout["observations"].shape[2:], dtype=rollout["observations"].dtype),
            rl.zeros(n, *actions.shape[2:], dtype=actions.dtype),
            rl.zeros(n),
            rl.zeros(n),
            rl.zeros(n),
            rl.zeros(n),
            None if weights is None else rl.zeros(n),
            None if masks is None else rl.zeros(n, *masks.shape[2:], dtype=rl.bool),
        )

    # --- losses ------------------------------------------------------------------------------------------------------

    def compute_loss(self, batch: RolloutBatch) -> tuple[rl.Tensor, rl.Tensor, rl.Tensor, list[rl.Tensor]]:
        """Policy loss (equation 7), value loss and entropy of a minibatch; then, for the log, KL divergence and clipped share."""

        def mean(x: rl.Tensor) -> rl.Tensor:
            return x.mean() if batch.weights is None else (x * batch.weights).sum() / batch.weights.sum()

        c = self.config
        features = self.features(batch.observations)
        policy = self.policy(features, batch.action_masks)
        log_ratio = policy.log_prob(batch.actions) - batch.log_probs
        advantages = batch.advantages
        if c.normalize_advantages:
            advantages = normalized(advantages, batch.weights)
        policy_loss = -mean(clipped_surrogate(log_ratio, advantages, self.clip_now))

        values = self.value(features)
        errors = (values - batch.returns) ** 2
        if c.clip_value > 0:
            moved = batch.values + (values - batch.values).clamp(-c.clip_value, c.clip_value)
            errors = rl.maximum(errors, (moved - batch.returns) ** 2)
        value_loss = 0.5 * mean(errors)

        entropy = mean(policy.entropy())
        with rl.no_grad():
            clip_fraction = mean(((log_ratio.exp() - 1.0).abs() > self.clip_now).float())
        return policy_loss, value_loss, entropy, [mean(approximate_kl(log_ratio)), clip_fraction]

    def update(self, index: rl.Tensor) -> None:
        """Take one gradient step on the minibatch of the rollout's steps ``index`` (batch_size,)."""
        c = self.config
        parts: list[Any] = [None if x is None else x.index_select(0, index) for x in self.batch]
        batch = RolloutBatch(*parts)
        policy_loss, value_loss, entropy, more = self.compute_loss(batch)
        self.optimizer.zero_grad()
        (policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy).backward()
        norms = [clip_grad_norm_(p, float("inf")) for p in (self.actor_parameters, list(self.critic.parameters()))]
        clip_grad_norm_(self.parameters, c.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.sums.add_(rl.stack([policy_loss, value_loss, entropy, *more, *norms]))

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect a rollout, then learn from it for some epochs."""
        c = self.config
        rollout = self.collector.collect(c.num_steps).tensors(self.reward_scale)
        self.timesteps += self.size
        return self.collector.episodes() | self.improve(rollout)

    def improve(self, rollout: dict[str, rl.Tensor]) -> dict[str, float]:
        """Learn from a rollout for ``epochs`` epochs, or fewer by ``target_kl``; returns the log."""
        c = self.config
        progress = min(1.0, (self.timesteps - self.size) / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        self.clip_now.fill_(c.clip_range * (1.0 + progress * (c.clip_range_final - 1.0)))
        if self.batch is None:
            self.batch = self._storage(rollout)
        self._prepare(rollout)
        self.sums.zero_()
        minibatches = self.size // c.batch_size
        taken = 0
        moved = 0.0
        if c.target_kl == 0:
            call_times(self._epoch, c.epochs)
            taken = c.epochs * minibatches
        while taken < c.epochs * minibatches:
            self._epoch()
            taken += minibatches
            before = moved
            moved = float(self.sums[3])
            if (moved - before) / minibatches > c.target_kl:
                break
        if self.moments is not None:
            self.moments.update(rollout["observations"].flatten(0, 1))
        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "policy_grad_norm", "value_grad_norm")
        means = (self.sums / taken).tolist()
        return {f"losses/{name}": value for name, value in zip(names, means, strict=True)} | {
            "charts/learning_rate": self.optimizer.param_groups[0]["lr"],
            "losses/epochs": taken / minibatches,
        }

    # --- state -------------------------------------------------------------------------------------------------------

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, also from a run of version 0.1, which saved both streams in one list."""
        if "streams" in state:
            action_stream, shuffle_stream = state["streams"]
            state = {**state, "action_stream": action_stream, "shuffle_stream": shuffle_stream}
        super().load_state_dict(state)
