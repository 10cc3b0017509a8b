"""Truncated quantile critics (Kuznetsov, Shvechikov, Grishin and Vetrov 2020, "Controlling overestimation bias with truncated mixture of
continuous distributional quantile critics").

Soft actor-critic for continuous actions whose critics estimate quantiles of the return. The targets leave out the largest quantiles of all
target critics together, which bounds overestimation more finely than the minimum of two values.
"""

import math
from dataclasses import dataclass
from typing import Any

from gymnasium.spaces import Box

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, StateDependentActor, copy_of, layer_sizes, make_action_value, make_network
from rl_lab.nn.utils import polyak_
from rl_lab.rollout import Batch, Collector, Moment, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.distributional import quantile_huber_loss, without_largest
from rl_lab.rollout.exploration import ColoredNoise, StateDependentNoise, squashed_actions
from rl_lab.rollout.policies import Insight, SquashedGaussian, squashed_gaussian


@dataclass(frozen=True)
class TQCConfig:
    """Hyperparameters of TQC."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:256,256", "layers of the actor and of each critic: mlp: or cnn: and sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    critics: int = setting(2, "number of critics", least=1, shapes=True)
    quantiles: int = setting(25, "quantiles of the return that each critic estimates", least=1, shapes=True)
    dropped: int = setting(
        2, "largest quantiles per critic that the targets leave out; fewer than quantiles", least=0, search=(0, 1, 2, 3, 5)
    )
    learning_rate: float = setting(
        3e-4, "Adam's step size, of actor, critics and temperature", above=0, search=Between(1e-5, 1e-2, log=True)
    )
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(256, "transitions per update", least=1, search=(64, 128, 256, 512))
    buffer_size: int = setting(100_000, "capacity of the replay buffer in transitions", least=1)
    learning_starts: int = setting(100, "environment steps with random actions before the first update", least=0)
    train_frequency: int = setting(1, "environment steps between rounds of updates", least=1, search=(1, 4, 8))
    gradient_steps: int = setting(
        1, "updates per round; divided by train_frequency, the update-to-data ratio", least=1, search=(1, 2, 4, 8)
    )
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    n_steps: int = setting(1, "rewards in a target before it is bootstrapped", least=1)
    tau: float = setting(
        0.005,
        "step of the target critics towards the critics per update",
        above=0,
        most=1,
        search=Between(0.001, 0.08, log=True),
    )
    temperature: float = setting(1.0, "initial temperature, the weight of the entropy", above=0)
    learn_temperature: bool = setting(True, "learn the temperature so that the entropy meets its target")
    target_entropy: float = setting(1.0, "target entropy in units of -(dimensions)")
    noise_colour: float = setting(0.0, "share of the exploration noise that is kept from step to step", least=0, most=1)
    use_sde: bool = setting(
        False,
        "generalized state-dependent exploration: the noise is a function of the features, kept for some steps",
        shapes=True,
    )
    sde_sample_freq: int = setting(64, "steps for which use_sde keeps a noise function; 0: whole episodes", least=0)
    log_std: float = setting(-3.0, "initial log standard deviation of the noise function of use_sde")
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class TQC(Agent):
    """Truncated quantile critics: a stochastic actor, distributional soft critics and a temperature."""

    Config = TQCConfig
    action_spaces = (Box,)
    learned = ("actor", "critics", "target_critics", "log_temperature", "normalization")
    saved = ("actor_optimizer", "critic_optimizer", "temperature_optimizer", "replay", "noise", "action_stream")

    def build(self) -> None:
        """Networks, temperature, replay and collector."""
        c = self.config
        if c.dropped >= c.quantiles:
            raise ValueError(f"--dropped {c.dropped} must be smaller than --quantiles {c.quantiles}")
        if c.use_sde and c.noise_colour:
            raise ValueError(
                "--noise-colour has no effect on --use-sde, whose noise lasts for --sde-sample-freq steps: leave one out"
            )
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.action_stream, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.size = self.mapping.size
        make: dict[str, Any] = {"activation": c.activation, "generator": network_stream}
        self.actor: rl.nn.Module
        self.noise: ColoredNoise | StateDependentNoise
        if c.use_sde:
            self.actor = StateDependentActor(make_network(self.observed, c.network, self.size, **make), c.log_std)
            features = len(self.actor.log_std)
            self.noise = StateDependentNoise(self.num_envs, features, self.size, c.sde_sample_freq, self.action_stream)
        else:
            self.actor = make_network(self.observed, c.network, 2 * self.size, **make)
            self.noise = ColoredNoise(self.num_envs, self.size, c.noise_colour, self.action_stream)
        self.critics = rl.nn.ModuleList(
            [make_action_value(self.observed, c.network, self.size, c.quantiles, **make) for _ in range(c.critics)]
        )
        self.target_critics = copy_of(self.critics)
        self.log_temperature = rl.nn.Parameter(rl.tensor(math.log(c.temperature)))
        self.target_entropy = -c.target_entropy * self.size
        self.actor_optimizer = rl.optim.Adam(self.actor.parameters(), lr=c.learning_rate)
        self.critic_optimizer = rl.optim.Adam(self.critics.parameters(), lr=c.learning_rate)
        self.temperature_optimizer = rl.optim.Adam([self.log_temperature], lr=c.learning_rate)
        self.optimizers = (self.actor_optimizer, self.critic_optimizer, self.temperature_optimizer)
        self.random_now = rl.ones((), dtype=rl.bool)
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
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps)

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
        """The policy's greedy actions, and their mean return."""
        x = self.normal(observations)
        actions = self.policy(x).mode
        return Insight(actions, self.quantiles(self.critics, x, actions).mean(1))

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The greedy actions: the squashed mean."""
        return self.policy(self.normal(observations)).mode

    # --- losses ------------------------------------------------------------------------------------------------------

    def quantiles(self, critics: rl.nn.ModuleList, observations: rl.Tensor, actions: rl.Tensor) -> rl.Tensor:
        """The quantiles of all critics, (batch, critics * quantiles)."""
        return rl.cat([critic(observations, actions) for critic in critics], 1)

    def compute_target(self, batch: Batch) -> rl.Tensor:
        """Targets r + gamma (z_(i) - alpha log pi(a'|s')) for the smallest quantiles z_(i) of all target critics (equations 10 and 11).

        Shape (batch, critics * (quantiles - dropped)).
        """
        c = self.config
        with rl.no_grad():
            actions, log_prob = self.policy(batch.next_observations).rsample(self.action_stream)
            following = self.quantiles(self.target_critics, batch.next_observations, actions)
            kept = without_largest(following, c.critics * c.dropped)
            soft = kept - (self.log_temperature.exp() * log_prob).unsqueeze(1)
            return batch.rewards.unsqueeze(1) + batch.discounts.unsqueeze(1) * soft

    def compute_loss_q(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The sum over critics of the mean quantile Huber loss (equation 12), and the mean return of the actions taken (for the log)."""
        c = self.config
        target = self.compute_target(batch)
        taken = self.quantiles(self.critics, batch.observations, batch.actions)
        loss = sum(quantile_huber_loss(part, target) for part in taken.split(c.quantiles, 1)) / c.quantiles
        return loss, taken.detach().mean()

    def compute_loss_pi(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The actor's loss, the mean of alpha log pi - mean of all quantiles (equation 14), and the mean log-probability."""
        actions, log_prob = self.policy(batch.observations).rsample(self.action_stream)
        value = self.quantiles(self.critics, batch.observations, actions).mean(1)
        alpha = self.log_temperature.detach().exp()
        return (alpha * log_prob - value).mean(), log_prob.mean().detach()

    def update(self) -> list[rl.Tensor]:
        """Take one gradient step of critics, actor and temperature on a batch from replay."""
        c = self.config
        batch = self.sample_batch(c.batch_size)
        critic_loss, q_mean = self.compute_loss_q(batch)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        actor_loss, log_prob = self.compute_loss_pi(batch)
        # the gradient flows through the critics to the actor, but the critics' own gradients are not needed
        self.actor_optimizer.zero_grad()
        actor_loss.backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()

        if c.learn_temperature:
            self.temperature_optimizer.zero_grad()
            (-self.log_temperature * (log_prob + self.target_entropy)).backward()
            self.temperature_optimizer.step()
        polyak_(list(self.target_critics.parameters()), list(self.critics.parameters()), c.tau)
        return [critic_loss, actor_loss, q_mean, -log_prob, self.log_temperature.detach().exp()]

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
            results = call_times(self._update, rounds * c.gradient_steps)
            names = ("critic_loss", "actor_loss", "q_values", "entropy", "temperature")
            metrics |= {f"losses/{name}": result.item() for name, result in zip(names, results, strict=True)}
        return metrics
