"""Twin delayed deep deterministic policy gradient (Fujimoto, van Hoof and Meger 2018, "Addressing function approximation error in
actor-critic methods")."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, copy_of, layer_sizes, make_action_value, make_network
from rl_lab.nn.utils import polyak_
from rl_lab.rollout import Batch, Collector, Moment, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.exploration import ColoredNoise
from rl_lab.rollout.policies import Insight


@dataclass(frozen=True)
class TD3Config:
    """Hyperparameters of TD3."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:256,256", "layers of the actor and of each critic: mlp: or cnn: and sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    learning_rate: float = setting(
        1e-3, "Adam's step size, of actor and critics", above=0, search=Between(1e-5, 1e-2, log=True)
    )
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(256, "transitions per update", least=1, search=(64, 128, 256, 512))
    buffer_size: int = setting(100_000, "capacity of the replay buffer in transitions", least=1)
    learning_starts: int = setting(100, "environment steps with random actions before the first update", least=0)
    train_frequency: int = setting(1, "environment steps between rounds of updates", least=1, search=(1, 4, 8))
    gradient_steps: int = setting(1, "updates per round", least=1, search=(1, 2, 4, 8))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    n_steps: int = setting(1, "rewards in a target before it is bootstrapped", least=1)
    tau: float = setting(
        0.005,
        "step of the target networks towards the networks per update of the actor",
        above=0,
        most=1,
        search=Between(0.001, 0.08, log=True),
    )
    policy_delay: int = setting(2, "updates of the critics per update of the actor", least=1)
    exploration_noise: float = setting(
        0.1, "standard deviation of the exploration noise, for actions scaled to [-1, 1]", least=0, search=Between(0.05, 0.5)
    )
    noise_colour: float = setting(
        0.0, "correlation of the exploration noise from step to step; 0: white noise", least=0, most=1
    )
    target_noise: float = setting(
        0.2, "standard deviation of the noise on the target actor's actions, for actions scaled to [-1, 1]", least=0
    )
    noise_clip: float = setting(0.5, "largest magnitude of the noise on the target actor's actions", least=0)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class TD3(Agent):
    """Twin delayed DDPG: a deterministic actor, two critics, and target networks of all three."""

    Config = TD3Config
    action_spaces = (Box,)
    learned = ("actor", "critics", "target_actor", "target_critics", "normalization")
    saved = ("actor_optimizer", "critic_optimizer", "replay", "noise", "noise_stream", "updates")

    def build(self) -> None:
        """Networks, replay and collector."""
        c = self.config
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.noise_stream, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.size = self.mapping.size
        make: dict[str, Any] = {"activation": c.activation, "generator": network_stream}
        self.actor = make_network(self.observed, c.network, self.size, **make)
        self.critics = rl.nn.ModuleList([make_action_value(self.observed, c.network, self.size, **make) for _ in range(2)])
        self.target_actor = copy_of(self.actor)
        self.target_critics = copy_of(self.critics)
        self.actor_optimizer = rl.optim.Adam(self.actor.parameters(), lr=c.learning_rate)
        self.critic_optimizer = rl.optim.Adam(self.critics.parameters(), lr=c.learning_rate)
        self.random_now = rl.ones((), dtype=rl.bool)
        self.noise = ColoredNoise(self.num_envs, self.size, c.noise_colour, self.noise_stream)
        self.normalization = self.make_normalization()
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.replay = ReplayBuffer(
            c.buffer_size,
            self.shape,
            (self.size,),
            np.float32,
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

    # --- acting ------------------------------------------------------------------------------------------------------

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """The actor's actions with Gaussian noise, or uniformly random actions before learning starts."""
        count = len(moment.observations)
        noise = self.config.exploration_noise * self.noise(moment.elapsed)
        drawn = (self.actor(self.normal(moment.observations)).tanh() + noise).clamp(-1.0, 1.0)
        uniform = 2.0 * rl.rand(count, self.size, generator=self.noise_stream) - 1.0
        actions = rl.where(self.random_now, uniform, drawn)
        return {"actions": actions}

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The actor's actions with Gaussian noise."""
        actions = self.actor(self.normal(observations)).tanh()
        noise = self.config.exploration_noise * rl.randn(*actions.shape, generator=self.noise_stream)
        return (actions + noise).clamp(-1.0, 1.0)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The actor's actions, and the smaller value of the two critics."""
        x = self.normal(observations)
        actions = self.actor(x).tanh()
        return Insight(actions, rl.minimum(*self.q_values(self.critics, x, actions)))

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The actor's actions without noise, in [-1, 1]."""
        return self.actor(self.normal(observations)).tanh()

    # --- losses ------------------------------------------------------------------------------------------------------

    def q_values(self, critics: Iterable[rl.nn.Module], observations: rl.Tensor, actions: rl.Tensor) -> list[rl.Tensor]:
        """The Q-values (batch,) of each critic."""
        return [critic(observations, actions).squeeze(1) for critic in critics]

    def compute_target(self, batch: Batch) -> rl.Tensor:
        """Targets r + gamma min_i Q'_i(s', mu'(s') + clipped noise), shape (batch,) (algorithm 1)."""
        c = self.config
        with rl.no_grad():
            noise = (c.target_noise * rl.randn(*batch.actions.shape, generator=self.noise_stream)).clamp(
                -c.noise_clip, c.noise_clip
            )
            actions = (self.target_actor(batch.next_observations).tanh() + noise).clamp(-1.0, 1.0)
            lower = rl.minimum(*self.q_values(self.target_critics, batch.next_observations, actions))
            return batch.rewards + batch.discounts * lower

    def compute_loss_q(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The sum of the mean squared errors of both critics, and the mean Q-value (for the log)."""
        target = self.compute_target(batch)
        first, second = self.q_values(self.critics, batch.observations, batch.actions)
        return F.mse_loss(first, target) + F.mse_loss(second, target), first.detach().mean()

    def compute_loss_pi(self, batch: Batch) -> rl.Tensor:
        """The actor's loss, the mean of -Q_1(s, mu(s))."""
        return -self.q_values([self.critics[0]], batch.observations, self.actor(batch.observations).tanh())[0].mean()

    def update(self, with_actor: bool) -> list[rl.Tensor]:
        """Take one gradient step of the critics; ``with_actor`` also one of the actor, and move the target networks."""
        batch = self.sample_batch(self.config.batch_size)
        critic_loss, q_mean = self.compute_loss_q(batch)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        if not with_actor:
            return [critic_loss, q_mean]
        actor_loss = self.compute_loss_pi(batch)
        parameters = list(self.actor.parameters())
        for parameter, gradient in zip(parameters, rl.autograd.grad(actor_loss, parameters), strict=True):
            parameter.grad = gradient
        self.actor_optimizer.step()
        for target, source in ((self.target_actor, self.actor), (self.target_critics, self.critics)):
            polyak_(list(target.parameters()), list(source.parameters()), self.config.tau)
        return [critic_loss, q_mean, actor_loss]

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
            for optimizer in (self.actor_optimizer, self.critic_optimizer):
                optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
            for _ in range(rounds * c.gradient_steps):
                self.updates += 1
                results = self._update(self.updates % c.policy_delay == 0)
            names = ("critic_loss", "q_values", "actor_loss")
            metrics |= {f"losses/{name}": result.item() for name, result in zip(names, results, strict=False)}
        return metrics
