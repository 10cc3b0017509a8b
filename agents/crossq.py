"""CrossQ (Bhatt et al. 2024, "CrossQ: batch normalization in deep reinforcement learning for greater sample efficiency and simplicity").

Soft actor-critic for continuous actions without target networks. Batch renormalisation stabilises the critics instead: they see states and
following states in one batch, so their statistics cover both.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gymnasium.spaces import Box

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn import BatchRenorm1d, Linear, Sequential
from rl_lab.nn.networks import ACTIVATIONS, layer_sizes, make_action_value, make_network
from rl_lab.rollout import Batch, Collector, Moment, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.exploration import ColoredNoise, squashed_actions
from rl_lab.rollout.policies import Insight, SquashedGaussian, squashed_gaussian


@dataclass(frozen=True)
class CrossQConfig:
    """Hyperparameters of CrossQ."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting("mlp:256,256", "layers of the actor: mlp: or cnn: and sizes", check=layer_sizes, shapes=True)
    critic_network: str = setting(
        "mlp:256,256", "layers of each critic, often wider: mlp: or cnn: and sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    norm_momentum: float = setting(
        0.01,
        "step of the running moments of batch renormalisation per update",
        above=0,
        most=1,
        search=Between(1e-3, 0.1, log=True),
    )
    norm_warmup: int = setting(100_000, "updates with plain batch normalisation before batch renormalisation", least=0)
    learning_rate: float = setting(
        1e-3, "Adam's step size, of actor, critics and temperature", above=0, search=Between(1e-5, 1e-2, log=True)
    )
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    adam_beta1: float = setting(0.5, "Adam's decay rate of the mean gradient", least=0, most=0.999, search=(0.5, 0.9))
    batch_size: int = setting(256, "transitions per update", least=2, search=(64, 128, 256, 512))
    buffer_size: int = setting(100_000, "capacity of the replay buffer in transitions", least=1)
    learning_starts: int = setting(100, "environment steps with random actions before the first update", least=0)
    train_frequency: int = setting(1, "environment steps between rounds of updates", least=1, search=(1, 4, 8))
    gradient_steps: int = setting(
        1, "updates per round; divided by train_frequency, the update-to-data ratio", least=1, search=(1, 2, 4, 8)
    )
    policy_delay: int = setting(3, "updates of the critics per update of the actor and the temperature", least=1)
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    n_steps: int = setting(1, "rewards in a target before it is bootstrapped", least=1)
    temperature: float = setting(1.0, "initial temperature, the weight of the entropy", above=0)
    learn_temperature: bool = setting(True, "learn the temperature so that the entropy meets its target")
    target_entropy: float = setting(1.0, "target entropy in units of -(dimensions)")
    noise_colour: float = setting(0.0, "share of the exploration noise that is kept from step to step", least=0, most=1)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class CrossQ(Agent):
    """CrossQ: a stochastic actor, two soft critics with batch renormalisation, and a temperature.

    The networks are in evaluation mode except while a loss that trains them is computed.
    """

    Config = CrossQConfig
    action_spaces = (Box,)
    learned = ("actor", "critics", "log_temperature", "normalization")
    saved = ("actor_optimizer", "critic_optimizer", "temperature_optimizer", "replay", "noise", "action_stream", "updates")

    def build(self) -> None:
        """Networks, temperature, replay and collector."""
        c = self.config
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.action_stream, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.size = self.mapping.size
        make: dict[str, Any] = {"activation": c.activation, "generator": network_stream, "linear": self.renormed_linear}
        self.actor = make_network(self.observed, c.network, 2 * self.size, **make).eval()
        self.critics = rl.nn.ModuleList(
            [make_action_value(self.observed, c.critic_network, self.size, **make) for _ in range(2)]
        ).eval()
        self.log_temperature = rl.nn.Parameter(rl.tensor(math.log(c.temperature)))
        self.target_entropy = -c.target_entropy * self.size
        options: dict[str, Any] = {"lr": c.learning_rate, "betas": (c.adam_beta1, 0.999)}
        self.actor_optimizer = rl.optim.Adam(self.actor.parameters(), **options)
        self.critic_optimizer = rl.optim.Adam(self.critics.parameters(), **options)
        self.temperature_optimizer = rl.optim.Adam([self.log_temperature], **options)
        self.optimizers = (self.actor_optimizer, self.critic_optimizer, self.temperature_optimizer)
        self.random_now = rl.ones((), dtype=rl.bool)
        self.noise = ColoredNoise(self.num_envs, self.size, c.noise_colour, self.action_stream)
        self.normalization = self.make_normalization()
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.replay = ReplayBuffer(
            c.buffer_size,
            self.shape,
            (self.size,),
            self.mapping.dtype,
            replay_stream,
            gamma=c.gamma,
            n_steps=c.n_steps,
            num_envs=self.num_envs,
            observation_dtype=self.observation_dtype,
            frames=self.observed.frames,
        )
        self.updates = 0
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps)

    def renormed_linear(self, inputs: int, outputs: int, generator: rl.Generator | None = None) -> Sequential:
        """A linear layer whose inputs are batch-renormalised."""
        c = self.config
        norm = BatchRenorm1d(inputs, momentum=c.norm_momentum, warmup=c.norm_warmup)
        return Sequential(norm, Linear(inputs, outputs, generator=generator))

    # --- acting ------------------------------------------------------------------------------------------------------

    def policy(self, observations: rl.Tensor) -> SquashedGaussian:
        """The distribution of actions."""
        return squashed_gaussian(self.actor(observations))

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy, or uniformly random actions before learning starts."""
        drawn = squashed_actions(self.actor, self.normal(moment.observations), self.noise, moment.elapsed)
        uniform = 2.0 * rl.rand(len(drawn), self.size, generator=self.action_stream) - 1.0
        return {"actions": rl.where(self.random_now, uniform, drawn)}

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Actions drawn from the policy."""
        return self.policy(self.normal(observations)).sample(self.action_stream)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The policy's greedy actions, and the smaller value of the two critics."""
        x = self.normal(observations)
        actions = self.policy(x).mode
        return Insight(actions, rl.minimum(*self.q_values(self.critics, x, actions)))

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The greedy actions: the squashed mean."""
        return self.policy(self.normal(observations)).mode

    # --- losses ------------------------------------------------------------------------------------------------------

    def q_values(self, critics: Iterable[rl.nn.Module], observations: rl.Tensor, actions: rl.Tensor) -> list[rl.Tensor]:
        """The Q-values (batch,) of each critic."""
        return [critic(observations, actions).squeeze(1) for critic in critics]

    def compute_loss_q(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The sum of half the mean squared errors of both critics, and the mean Q-value (for the log).

        The critics evaluate (s, a) and (s', a') in one batch (figure 1). The targets r + gamma (min_i Q_i(s', a') - alpha log pi(a'|s'))
        are constants.
        """
        with rl.no_grad():
            actions, log_prob = self.policy(batch.next_observations).rsample(self.action_stream)
        observations = rl.cat([batch.observations, batch.next_observations])
        self.critics.train()
        values = self.q_values(self.critics, observations, rl.cat([batch.actions, actions]))
        self.critics.eval()
        size = len(batch.rewards)
        with rl.no_grad():
            lower = rl.minimum(*[value[size:] for value in values])
            target = batch.rewards + batch.discounts * (lower - self.log_temperature.exp() * log_prob)
        first, second = (value[:size] for value in values)
        return 0.5 * (F.mse_loss(first, target) + F.mse_loss(second, target)), first.detach().mean()

    def compute_loss_pi(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The actor's loss, the mean of alpha log pi - min_i Q_i, and the mean log-probability."""
        self.actor.train()
        actions, log_prob = self.policy(batch.observations).rsample(self.action_stream)
        self.actor.eval()
        lower = rl.minimum(*self.q_values(self.critics, batch.observations, actions))
        return (self.log_temperature.detach().exp() * log_prob - lower).mean(), log_prob.mean().detach()

    def update(self, with_actor: bool) -> list[rl.Tensor]:
        """Take one gradient step of the critics; ``with_actor`` also one of the actor and the temperature."""
        batch = self.sample_batch(self.config.batch_size)
        critic_loss, q_mean = self.compute_loss_q(batch)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        if not with_actor:
            return [critic_loss, q_mean]

        actor_loss, log_prob = self.compute_loss_pi(batch)
        # the gradient flows through the critics to the actor, but the critics' own gradients are not needed
        self.actor_optimizer.zero_grad()
        actor_loss.backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()
        if self.config.learn_temperature:
            self.temperature_optimizer.zero_grad()
            (-self.log_temperature * (log_prob + self.target_entropy)).backward()
            self.temperature_optimizer.step()
        return [critic_loss, q_mean, actor_loss, -log_prob, self.log_temperature.detach().exp()]

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``train_frequency`` environment steps, then learn."""
        c = self.config
        self.random_now.fill_(self.timesteps < c.learning_starts)
        self.store_rollout(self.collector.collect(self.steps))
        before = self.timesteps
        self.timesteps += self.steps * self.num_envs
        rounds = rounds_due(before, self.timesteps, c.train_frequency)
        metrics = self.collector.episodes()
        if rounds and self.timesteps > c.learning_starts:
            progress = min(1.0, self.timesteps / c.total_timesteps)
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
            for _ in range(rounds * c.gradient_steps):
                self.updates += 1
                results = self._update(self.updates % c.policy_delay == 0)
            names = ("critic_loss", "q_values", "actor_loss", "entropy", "temperature")
            metrics |= {f"losses/{name}": result.item() for name, result in zip(names, results, strict=False)}
        return metrics
