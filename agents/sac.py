"""Soft actor-critic (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications"), with a learned temperature.

Continuous actions are squashed Gaussians; discrete ones follow Christodoulou 2019, "Soft actor-critic for discrete action settings".
Actions with choices and continuous components follow Delalleau et al. 2019, "Discrete and continuous action representation for practical
RL in video games". The critics get the components as input and have one output per combination of choices, so expectations over choices
are exact. Choices and components have separate temperatures.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gymnasium.spaces import Discrete

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, StateDependentActor, copy_of, layer_sizes, make_action_value, make_network
from rl_lab.nn.utils import polyak_
from rl_lab.rollout import Batch, Collector, Moment, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.exploration import ColoredNoise, StateDependentNoise, StickyActions, random_actions, squashed_actions
from rl_lab.rollout.policies import ActionHead, Factored, Insight, outputs_of, squashed_gaussian

MOST_COMBINATIONS = 1024
"""Largest number of combinations of choices; the critics have one output per combination."""


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:256,256", "layers of the actor and of each critic: mlp: or cnn: and sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
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
    target_entropy: float | None = setting(
        None,
        "target entropy; continuous actions: in units of -(dimensions), default 1; discrete: as a share of the uniform policy's "
        "entropy, default 0.5; with both, of the continuous part alone",
    )
    target_entropy_final: float = setting(1.0, "final target entropy as a share of the initial one, reached linearly", least=0)
    noise_colour: float = setting(
        0.0,
        "correlation of exploration from step to step; continuous actions: share of the noise that is kept; discrete: probability "
        "that the last action is repeated",
        least=0,
        most=1,
    )
    use_sde: bool = setting(
        False,
        "generalized state-dependent exploration, for continuous actions: the noise is a function of the features, kept for some steps",
        shapes=True,
    )
    sde_sample_freq: int = setting(64, "steps for which use_sde keeps a noise function; 0: whole episodes", least=0)
    log_std: float = setting(-3.0, "initial log standard deviation of the noise function of use_sde")
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class SAC(Agent):
    """Soft actor-critic: a stochastic actor, two soft critics and a temperature."""

    Config = SACConfig
    learned = ("actor", "critics", "target_critics", "log_temperature", "normalization")
    saved = ("actor_optimizer", "critic_optimizer", "temperature_optimizer", "replay", "noise", "action_stream")

    def build(self) -> None:
        """Networks, temperature, replay and collector."""
        c = self.config
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.action_stream, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.discrete = isinstance(self.space, Discrete)
        self.choices = self.mapping.choices
        self.size = self.mapping.num_masked if self.discrete else self.mapping.size
        self.combinations = math.prod(self.choices)
        self.factored = bool(self.choices) and not self.discrete
        """Whether actions have several choices, or choices and components."""
        if self.combinations > MOST_COMBINATIONS:
            raise ValueError(
                f"sac has an output for each combination of choices, {self.combinations:,} here, and at most {MOST_COMBINATIONS:,}: "
                "use ppo or a2c"
            )
        if not self.mapping.size and c.target_entropy is not None and c.target_entropy >= 1:
            raise ValueError(
                f"--target-entropy {c.target_entropy} is a share of the uniform policy's entropy, so it must be below 1"
            )
        if c.use_sde and self.choices:
            raise ValueError(f"--use-sde needs real-valued actions alone, and the actions are {self.space}: leave it out")
        if c.use_sde and c.noise_colour:
            raise ValueError(
                "--noise-colour has no effect on --use-sde, whose noise lasts for --sde-sample-freq steps: leave one out"
            )
        make: dict[str, Any] = {"activation": c.activation, "generator": network_stream}
        self.head = ActionHead(self.space, state_dependent_std=True)
        self.actor: rl.nn.Module
        if c.use_sde:
            self.actor = StateDependentActor(make_network(self.observed, c.network, self.size, **make), c.log_std)
        else:
            self.actor = make_network(self.observed, c.network, self.head.outputs, **make)
        self.critics = rl.nn.ModuleList([self.make_critic(make) for _ in range(2)])
        self.target_critics = copy_of(self.critics)
        self.hybrid = self.factored and self.mapping.size > 0
        """Whether there are two temperatures, of the choices and of the components."""
        self.log_temperature = rl.nn.Parameter(rl.full((2,) if self.hybrid else (), math.log(c.temperature)))
        self.target_entropy = rl.tensor(self.target_entropy_at(0.0))
        self.actor_optimizer = rl.optim.Adam(self.actor.parameters(), lr=c.learning_rate)
        self.critic_optimizer = rl.optim.Adam(self.critics.parameters(), lr=c.learning_rate)
        self.temperature_optimizer = rl.optim.Adam([self.log_temperature], lr=c.learning_rate)
        self.optimizers = (self.actor_optimizer, self.critic_optimizer, self.temperature_optimizer)
        self.random_now = rl.ones((), dtype=rl.bool)
        self.noise: Any
        if self.factored:
            sticky = [StickyActions(self.num_envs, c.noise_colour, self.action_stream) for _ in self.choices]
            coloured = [ColoredNoise(self.num_envs, self.size, c.noise_colour, self.action_stream)] if self.size else []
            self.noise = [*sticky, *coloured]
        elif self.discrete:
            self.noise = StickyActions(self.num_envs, c.noise_colour, self.action_stream)
        elif c.use_sde:
            features = len(self.actor.log_std)
            self.noise = StateDependentNoise(self.num_envs, features, self.size, c.sde_sample_freq, self.action_stream)
        else:
            self.noise = ColoredNoise(self.num_envs, self.size, c.noise_colour, self.action_stream)

        self.normalization = self.make_normalization()
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.replay = ReplayBuffer(
            c.buffer_size,
            self.shape,
            self.mapping.shape,
            self.mapping.dtype,
            replay_stream,
            gamma=c.gamma,
            n_steps=c.n_steps,
            num_envs=self.num_envs,
            num_masked=self.collector.num_masked,
            observation_dtype=self.observation_dtype,
            frames=self.observed.frames,
        )
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps)

    def make_critic(self, options: dict[str, Any]) -> rl.nn.Module:
        """A network from observations, and components if there are any, to Q-values (batch, combinations of choices)."""
        network = self.config.network
        if not self.mapping.size:
            return make_network(self.observed, network, self.combinations, **options)
        return make_action_value(self.observed, network, self.mapping.size, self.combinations, **options)

    def target_entropy_at(self, progress: float) -> Any:
        """The target entropy in nats after the share ``progress`` of training; (choices, components) if actions have both.

        Source: Xu et al. 2021, "Target entropy annealing for discrete soft actor-critic".
        """
        c = self.config
        change = 1.0 + progress * (c.target_entropy_final - 1.0)
        uniform = sum(math.log(count) for count in self.choices)
        if self.hybrid:
            return [0.5 * change * uniform, (1.0 if c.target_entropy is None else c.target_entropy) * change * -self.size]
        unit = uniform if self.choices else -self.size
        scale = (0.5 if self.choices else 1.0) if c.target_entropy is None else c.target_entropy
        return scale * change * unit

    # --- acting ------------------------------------------------------------------------------------------------------

    def policy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> Any:
        """The distribution of actions."""
        outputs = self.actor(observations)
        if self.discrete:
            return self.head.distribution(outputs, action_mask)
        if self.factored:
            count = self.mapping.num_masked
            parts = self.head.parts(outputs[:, :count], action_mask)
            return Factored(parts, squashed_gaussian(outputs[:, count:]) if self.size else None)
        return squashed_gaussian(outputs)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy, or uniformly random actions before learning starts."""
        x = self.normal(moment.observations)
        count = len(x)
        if self.factored:
            return {"actions": self.sample_parts(self.policy(x, moment.action_mask), moment)}
        if self.discrete:
            drawn = self.policy(x, moment.action_mask).sample(generator=self.action_stream)
            random = random_actions(count, self.size, self.action_stream, moment.action_mask)
            return {"actions": self.noise(rl.where(self.random_now, random, drawn), moment.elapsed, moment.action_mask)}
        drawn = squashed_actions(self.actor, x, self.noise, moment.elapsed)
        uniform = 2.0 * rl.rand(count, self.size, generator=self.action_stream) - 1.0
        return {"actions": rl.where(self.random_now, uniform, drawn)}

    def sample_parts(self, policy: Factored, moment: Moment) -> rl.Tensor:
        """As `sample`, choice by choice: int64 (batch, choices), or float32 (batch, choices + size) with components."""
        count = len(moment.observations)
        masks = [None] * len(self.choices) if moment.action_mask is None else moment.action_mask.split(list(self.choices), 1)
        chosen = []
        for part, options, mask, sticky in zip(policy.parts, self.choices, masks, self.noise, strict=False):
            drawn = part.sample(generator=self.action_stream)
            random = random_actions(count, options, self.action_stream, mask)
            chosen.append(sticky(rl.where(self.random_now, random, drawn), moment.elapsed, mask))
        if not self.size:
            return rl.stack(chosen, -1)
        components: Any = policy.components
        drawn = (components.mean + components.std * self.noise[-1](moment.elapsed)).tanh()
        uniform = 2.0 * rl.rand(count, self.size, generator=self.action_stream) - 1.0
        return rl.cat([rl.stack(chosen, -1).float(), rl.where(self.random_now, uniform, drawn)], -1)

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Actions drawn from the policy."""
        policy = self.policy(self.normal(observations), action_mask)
        return policy.sample(generator=self.action_stream) if self.choices else policy.rsample(self.action_stream)[0]

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The outputs of the policy; for components alone, the smaller value of the two critics."""
        x = self.normal(observations)
        outputs = outputs_of(self.policy(x, action_mask))
        return Insight(outputs, None if self.choices else rl.minimum(*self.q_values(self.critics, x, outputs)))

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The greedy actions: the most probable discrete ones, or the squashed mean of continuous ones."""
        return self.policy(self.normal(observations), action_mask).mode

    # --- losses ------------------------------------------------------------------------------------------------------

    def q_values(
        self, critics: Iterable[rl.nn.Module], observations: rl.Tensor, components: rl.Tensor | None = None
    ) -> list[rl.Tensor]:
        """Q-values of both critics: (batch, combinations of choices), or (batch,) without choices, for the given components."""
        if components is None:
            return [critic(observations) for critic in critics]
        values = [critic(observations, components) for critic in critics]
        return values if self.choices else [value.squeeze(1) for value in values]

    def combination(self, actions: rl.Tensor) -> rl.Tensor:
        """Index of the combination of choices, int64 (batch,), of actions (batch, *shape). The last choice varies fastest."""
        if self.discrete:
            return actions
        index = actions[:, 0].long()
        for k in range(1, len(self.choices)):
            index = index * self.choices[k] + actions[:, k].long()
        return index

    def log_probs(self, policy: Any) -> rl.Tensor:
        """Log-probabilities of all combinations of choices, (batch, combinations)."""
        if self.discrete:
            return policy.logits
        joint = policy.parts[0].logits
        for part in policy.parts[1:]:
            joint = (joint.unsqueeze(2) + part.logits.unsqueeze(1)).flatten(1)
        return joint

    def soft_values(
        self, critics: Iterable[rl.nn.Module], observations: rl.Tensor, mask: rl.Tensor | None, alpha: rl.Tensor
    ) -> tuple[rl.Tensor, list[rl.Tensor]]:
        """E[min_i Q_i(s, a) - alpha log pi(a|s)], (batch,), and log pi, (batch,), of the choices and of the components that exist.

        Choices are averaged over, components are one sample. The critics' gradient flows to the components only.
        """
        policy = self.policy(observations, mask)
        if not self.choices:
            actions, log_prob = policy.rsample(self.action_stream)
            return rl.minimum(*self.q_values(critics, observations, actions)) - alpha * log_prob, [log_prob]
        log_probs = self.log_probs(policy)
        probs = log_probs.exp()
        if not self.hybrid:
            with rl.no_grad():
                lower = rl.minimum(*self.q_values(critics, observations))
            return (probs * (lower - alpha * log_probs)).sum(1), [(probs * log_probs).sum(1)]
        components, log_prob = policy.components.rsample(self.action_stream)
        lower = rl.minimum(*self.q_values(critics, observations, components))
        value = (probs * (lower - alpha[0] * log_probs)).sum(1) - alpha[1] * log_prob
        return value, [(probs * log_probs).sum(1), log_prob]

    def compute_target(self, batch: Batch) -> rl.Tensor:
        """r + gamma (min_i Q'_i(s', a') - alpha log pi(a'|s')) with a' from the policy, in expectation over choices."""
        with rl.no_grad():
            alpha = self.log_temperature.exp()
            next_value, _ = self.soft_values(self.target_critics, batch.next_observations, batch.next_action_masks, alpha)
            return batch.rewards + batch.discounts * next_value

    def compute_loss_q(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The sum of half the mean squared errors of both critics, and the mean Q-value (for the log)."""
        target = self.compute_target(batch)
        components = batch.actions[:, len(self.choices) :] if self.hybrid else batch.actions
        values = self.q_values(self.critics, batch.observations, components if self.mapping.size else None)
        if self.choices:
            chosen = self.combination(batch.actions).unsqueeze(1)
            values = [q.gather(1, chosen).squeeze(1) for q in values]
        first, second = values
        return 0.5 * (F.mse_loss(first, target) + F.mse_loss(second, target)), first.detach().mean()

    def compute_loss_pi(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The actor's loss, the mean of alpha log pi - min_i Q_i, and the policy's mean log-probability: (), or (2,) with two parts."""
        alpha = self.log_temperature.detach().exp()
        value, log_probs = self.soft_values(self.critics, batch.observations, batch.action_masks, alpha)
        means = [log_prob.mean().detach() for log_prob in log_probs]
        return -value.mean(), means[0] if len(means) == 1 else rl.stack(means)

    def update(self) -> list[rl.Tensor]:
        """Take one gradient step of critics, actor and temperature on a batch from replay."""
        batch = self.sample_batch(self.config.batch_size)
        critic_loss, q_mean = self.compute_loss_q(batch)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        actor_loss, log_prob = self.compute_loss_pi(batch)
        # the gradient flows through the critics to the actor, but the critics' own gradients are not needed
        parameters = list(self.actor.parameters())
        for parameter, gradient in zip(parameters, rl.autograd.grad(actor_loss, parameters), strict=True):
            parameter.grad = gradient
        self.actor_optimizer.step()

        if self.config.learn_temperature:
            self.temperature_optimizer.zero_grad()
            loss = -self.log_temperature * (log_prob + self.target_entropy)
            (loss.sum() if self.hybrid else loss).backward()
            self.temperature_optimizer.step()
        polyak_(list(self.target_critics.parameters()), list(self.critics.parameters()), self.config.tau)
        temperature = self.log_temperature.detach().exp()
        if self.hybrid:
            return [critic_loss, actor_loss, q_mean, -log_prob.sum(), temperature[0], temperature[1]]
        return [critic_loss, actor_loss, q_mean, -log_prob, temperature]

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
            target = self.target_entropy_at(progress)
            if self.hybrid:
                self.target_entropy.copy_(rl.tensor(target))
            else:
                self.target_entropy.fill_(target)
            results = call_times(self._update, rounds * c.gradient_steps)
            names = ("critic_loss", "actor_loss", "q_values", "entropy", "temperature", "temperature_components")
            metrics |= {f"losses/{name}": result.item() for name, result in zip(names, results, strict=False)}
        return metrics
