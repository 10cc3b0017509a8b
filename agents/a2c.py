"""Advantage actor-critic (Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", the synchronous form).

With ``shared`` actor and critic share a trunk, and both losses contribute to its gradient. With ``separate_losses`` each loss has a
backward pass of its own over the shared graph, and the log shows the gradient norm of each. The gradients add up to the gradient of one
pass.
"""

from dataclasses import dataclass
from typing import Any

import rl_lab as rl
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.nn import Identity, Linear, init
from rl_lab.nn.networks import ACTIVATIONS, check_network, evolved_path, make_network, sizes_beside
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import Collector, Moment, RewardScale, RunningMoments, following_values, generalized_advantages, normalized
from rl_lab.rollout.policies import ActionDistribution, ActionHead, Insight, outputs_of


@dataclass(frozen=True)
class A2CConfig:
    """Hyperparameters of A2C."""

    total_timesteps: int = setting(200_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64,64",
        "layers of the trunk (of actor and critic, if not shared): mlp: or cnn: and sizes; or a run of NEAT as the actor",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    shared: bool = setting(False, "actor and critic share all layers but the last, as is usual for pictures", shapes=True)
    separate_losses: bool = setting(False, "a backward pass per loss over one retained graph; the gradients are the same")
    optimizer: str = setting("rmsprop", "optimizer of all parameters", choices=("rmsprop", "adam"))
    learning_rate: float = setting(7e-4, "the optimizer's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    num_steps: int = setting(5, "steps of each environment per update", least=1, search=(5, 8, 16, 32, 64))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    gae_lambda: float = setting(
        1.0,
        "lambda of generalized advantage estimation; 1: bootstrapped return over num_steps",
        least=0,
        most=1,
        search=(0.8, 0.9, 0.95, 0.98, 1.0),
    )
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", least=0, search=Between(1e-6, 0.1, log=True))
    value_coefficient: float = setting(0.5, "weight of the value loss", least=0)
    normalize_advantages: bool = setting(False, "normalize advantages to mean 0 and standard deviation 1 in each update")
    max_grad_norm: float = setting(0.5, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions")
    state_dependent_std: bool = setting(False, "standard deviation of continuous actions computed by the network", shapes=True)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class A2C(Agent):
    """Advantage actor-critic: a policy gradient whose returns are bootstrapped from a learned state value, also the baseline."""

    Config = A2CConfig
    learned = ("parts", "moments")
    saved = ("optimizer", "reward_scale", "action_stream")

    def build(self) -> None:
        """Networks, optimiser and collector."""
        c = self.config
        network_stream, self.action_stream, environment_stream = rl.Generator(self.seed).spawn(3)
        self.head = ActionHead(self.space, c.log_std, c.state_dependent_std)
        options: dict[str, Any] = {"orthogonal": True, "generator": network_stream}
        actor = make_network(self.observed, c.network, self.head.outputs, c.activation, output_gain=0.01, **options)
        self.evolved = evolved_path(c.network) is not None
        self.trunk: rl.nn.Module
        if c.shared and not self.evolved:
            self.trunk = actor[:-1]
            self.actor = actor[-1]
            self.critic: rl.nn.Module = Linear(actor[-1].in_features, 1, generator=network_stream)
            init.orthogonal_(self.critic.weight, 1.0, network_stream)
            init.zeros_(self.critic.bias)
        else:
            self.trunk = Identity()
            self.actor = actor
            self.critic = make_network(self.observed, sizes_beside(c.network), 1, c.activation, output_gain=1.0, **options)
        self.parts = rl.nn.ModuleDict({"trunk": self.trunk, "actor": self.actor, "critic": self.critic, "head": self.head})
        self.parameters = list(self.parts.parameters())
        kind = rl.optim.RMSprop if c.optimizer == "rmsprop" else rl.optim.Adam
        self.optimizer: rl.optim.Optimizer = kind(self.parameters, lr=c.learning_rate, eps=1e-5)
        self.moments = RunningMoments(self.shape) if c.normalize_observations and self.observed.is_float else None
        self.reward_scale = RewardScale(self.num_envs, c.gamma) if c.normalize_rewards else None
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self._update = self.record(self.update)

    # --- acting ------------------------------------------------------------------------------------------------------

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Normalized observations, or the observations themselves without ``normalize_observations``."""
        return self.moments.normalize(observations) if self.moments is not None else observations

    def features(self, observations: rl.Tensor) -> rl.Tensor:
        """The trunk's outputs, which actor and critic share; the observations themselves for an evolved actor, which has no trunk."""
        return observations if self.evolved else self.trunk(self.normal(observations))

    def value(self, features: rl.Tensor) -> rl.Tensor:
        """State values (batch,)."""
        return self.critic(self.normal(features) if self.evolved else features).squeeze(1)

    def policy(self, features: rl.Tensor, action_mask: rl.Tensor | None = None) -> ActionDistribution:
        """The distribution of actions."""
        return self.head.distribution(self.actor(features), action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy."""
        return {
            "actions": self.policy(self.features(moment.observations), moment.action_mask).sample(generator=self.action_stream)
        }

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

    # --- learning ----------------------------------------------------------------------------------------------------

    def compute_losses(self, rollout: dict[str, rl.Tensor]) -> tuple[rl.Tensor, rl.Tensor, rl.Tensor]:
        """Policy loss, value loss and entropy of a rollout of (steps, environments, ...)."""
        c = self.config
        weights = rollout.get("valid")

        def mean(x: rl.Tensor) -> rl.Tensor:
            return x.mean() if weights is None else (x * weights.flatten()).sum() / weights.float().sum()

        shape = rollout["rewards"].shape
        masks = rollout.get("action_masks")
        features = self.features(rollout["observations"].flatten(0, 1))
        values = self.value(features)
        constant = values.detach().reshape(*shape)
        with rl.no_grad():
            next_values = following_values(lambda x: self.value(self.features(x)), constant, rollout)
        # the advantages are constants in the loss: detach the values
        advantages = generalized_advantages(
            rollout["rewards"],
            constant,
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            c.gamma,
            c.gae_lambda,
        ).flatten()
        returns = advantages + values.detach()
        if c.normalize_advantages:
            advantages = normalized(advantages, weights if weights is None else weights.flatten().float())
        policy = self.policy(features, None if masks is None else masks.flatten(0, 1))
        entropy = mean(policy.entropy())
        log_probs = policy.log_prob(rollout["actions"].flatten(0, 1))
        policy_loss = -mean(log_probs * advantages)
        value_loss = 0.5 * mean((values - returns) ** 2)
        return policy_loss, value_loss, entropy

    def backward(self, policy_loss: rl.Tensor, value_loss: rl.Tensor, entropy: rl.Tensor) -> list[rl.Tensor]:
        """Accumulate the gradient of all losses in the parameters' ``grad``; the policy loss includes the entropy bonus.

        Returns the gradient norms of the policy loss and of the value loss with ``separate_losses``, otherwise an empty list.
        """
        c = self.config
        policy_loss = policy_loss - c.entropy_coefficient * entropy
        self.optimizer.zero_grad()
        if not c.separate_losses:
            (policy_loss + c.value_coefficient * value_loss).backward()
            return []
        policy_loss.backward(retain_graph=True)
        policy_norm = clip_grad_norm_(self.parameters, float("inf"))
        before = {p: p.grad.clone() for p in self.parameters if p.grad is not None}
        (c.value_coefficient * value_loss).backward()
        alone = [p.grad - before[p] if p in before else p.grad for p in self.parameters if p.grad is not None]
        with rl.no_grad():
            value_norm = rl.stack([(g**2).sum() for g in alone]).sum().sqrt()
        return [policy_norm, value_norm]

    def update(self, rollout: dict[str, rl.Tensor]) -> list[rl.Tensor]:
        """Take one gradient step on a rollout; returns the losses, the entropy and the gradient norms."""
        policy_loss, value_loss, entropy = self.compute_losses(rollout)
        norms = self.backward(policy_loss, value_loss, entropy)
        total = clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return [policy_loss, value_loss, entropy, total, *norms]

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``num_steps`` steps of each environment and learn from them."""
        c = self.config
        rollout = self.collector.collect(c.num_steps).tensors(self.reward_scale)
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.timesteps += c.num_steps * self.num_envs
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        results = self._update(rollout)
        if self.moments is not None:
            self.moments.update(rollout["observations"].flatten(0, 1))
        names = ("policy_loss", "value_loss", "entropy", "grad_norm", "policy_grad_norm", "value_grad_norm")
        metrics = {f"losses/{name}": result.item() for name, result in zip(names, results, strict=False)}
        return self.collector.episodes() | metrics
