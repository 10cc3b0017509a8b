"""Advantage actor-critic (Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", the synchronous form).

Actor and critic share a trunk by default, so their two losses meet in it. With ``separate_losses`` each has a backward pass of its
own over the one graph, and the log shows what each does to the trunk; the sum of the gradients is the gradient of the sum.
"""

from dataclasses import dataclass
from typing import Any

import rl_lab as rl
from rl_lab.experiment import Agent
from rl_lab.experiment.config import setting
from rl_lab.nn import Identity, Linear, init
from rl_lab.nn.networks import ACTIVATIONS, check_network, evolved_path, make_network, sizes_beside
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import Collector, Moment, RewardScale, RunningMoments, generalized_advantages, normalized
from rl_lab.rollout.policies import ActionHead


@dataclass(frozen=True)
class A2CConfig:
    """Hyperparameters of A2C."""

    total_timesteps: int = setting(200_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64,64",
        "the trunk, or actor and critic one each: mlp: or cnn: and sizes; or a run of NEAT, for the actor alone",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    shared: bool = setting(True, "actor and critic share all layers but the last", shapes=True)
    separate_losses: bool = setting(False, "a backward pass for each loss over one retained graph; the gradients are the same")
    optimizer: str = setting("rmsprop", "of all parameters", choices=("rmsprop", "adam"))
    learning_rate: float = setting(7e-4, "the optimizer's step size", above=0)
    learning_rate_final: float = setting(1.0, "share of the step size left at the end, approached linearly", least=0, most=1)
    num_steps: int = setting(5, "steps of each environment in an update", least=1)
    gamma: float = setting(0.99, "discount of the next step's value", least=0, most=1)
    gae_lambda: float = setting(1.0, "how far advantages look ahead; 1 is the return over num_steps", least=0, most=1)
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", least=0)
    value_coefficient: float = setting(0.5, "weight of the value loss", least=0)
    normalize_advantages: bool = setting(False, "to mean 0 and standard deviation 1 in each update")
    max_grad_norm: float = setting(0.5, "gradients are scaled down to this norm", above=0)
    log_std: float = setting(0.0, "log standard deviation of continuous actions at the start")
    state_dependent_std: bool = setting(False, "let the network give the standard deviation of continuous actions", shapes=True)
    normalize_observations: bool = setting(False, "to running mean 0 and standard deviation 1", shapes=True)
    normalize_rewards: bool = setting(False, "by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updating once and replay them; the results are the same bit for bit")


class A2C(Agent):
    """Policy gradient with a learned value as baseline and bootstrap."""

    Config = A2CConfig
    learned = ("parts", "moments")
    saved = ("optimizer", "reward_scale", "action_stream")

    def build(self) -> None:
        """Networks, optimiser and collector."""
        c = self.config
        network_stream, self.action_stream, environment_stream = rl.Generator(self.seed).spawn(3)
        self.head = ActionHead(self.space, c.log_std, c.state_dependent_std)
        options: dict[str, Any] = {"orthogonal": True, "generator": network_stream}
        actor = make_network(self.shape, c.network, self.head.outputs, c.activation, output_gain=0.01, **options)
        self.evolved = evolved_path(c.network) is not None
        self.trunk: rl.nn.Module
        if c.shared and not self.evolved:
            self.trunk = actor[:-1]
            self.actor = actor[-1]
            self.critic: Any = Linear(actor[-1].in_features, 1, generator=network_stream)
            init.orthogonal_(self.critic.weight, 1.0, network_stream)
            init.zeros_(self.critic.bias)
        else:
            self.trunk = Identity()
            self.actor = actor
            self.critic = make_network(self.shape, sizes_beside(c.network), 1, c.activation, output_gain=1.0, **options)
        self.parts = rl.nn.ModuleDict({"trunk": self.trunk, "actor": self.actor, "critic": self.critic, "head": self.head})
        self.parameters = list(self.parts.parameters())
        kind: Any = rl.optim.RMSprop if c.optimizer == "rmsprop" else rl.optim.Adam
        self.optimizer = kind(self.parameters, lr=c.learning_rate, eps=1e-5)
        self.moments = RunningMoments(self.shape) if c.normalize_observations else None
        self.reward_scale = RewardScale(self.num_envs, c.gamma) if c.normalize_rewards else None
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self._update = self.record(self.update)

    # --- acting ------------------------------------------------------------------------------------------------------

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Observations as the networks see them."""
        return self.moments.normalize(observations) if self.moments is not None else observations

    def features(self, observations: rl.Tensor) -> rl.Tensor:
        """What actor and critic share. An evolved network sees observations as it always did."""
        return observations if self.evolved else self.trunk(self.normal(observations))

    def value(self, features: rl.Tensor) -> rl.Tensor:
        """(batch,)."""
        return self.critic(self.normal(features) if self.evolved else features).squeeze(1)

    def policy(self, features: rl.Tensor, action_mask: rl.Tensor | None = None) -> Any:
        """The distribution of actions."""
        return self.head.distribution(self.actor(features), action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy."""
        return {
            "actions": self.policy(self.features(moment.observations), moment.action_mask).sample(generator=self.action_stream)
        }

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The most probable actions."""
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
        with rl.no_grad():
            next_values = self.value(self.features(rollout["next_observations"].flatten(0, 1)))
        # the values are bootstrapped from, not learned through: detached
        advantages = generalized_advantages(
            rollout["rewards"],
            values.detach().reshape(shape),
            next_values.reshape(shape),
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
        """Leave the gradient of all losses in the parameters, the policy's with the entropy bonus.

        Returns the norms of the policy's and the value's, or nothing where they were one pass.
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
        """One gradient step on a rollout; returns the losses, the entropy and the norms."""
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
