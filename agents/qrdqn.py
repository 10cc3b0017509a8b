"""Quantile regression DQN (Dabney et al. 2018, "Distributional reinforcement learning with quantile regression").

The network estimates ``quantiles`` quantiles of the return of each action; their mean is the action's value. With ``distribution``
"categorical" it estimates the probabilities of fixed values instead: C51 (Bellemare, Dabney and Munos 2017, "A distributional perspective
on reinforcement learning"). The settings of `RAINBOW` make it Rainbow (Hessel et al. 2018, "Rainbow: combining improvements in deep
reinforcement learning"): ``python -m rl_lab.train --agent qrdqn --config rainbow``, or ``QRDQN(env, **RAINBOW)``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, copy_of, layer_sizes, make_value_network
from rl_lab.rollout import Batch, Collector, Moment, PrioritizedReplayBuffer, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.distributional import project, quantile_huber_loss
from rl_lab.rollout.exploration import LinearSchedule, epsilon_greedy
from rl_lab.rollout.policies import Insight, greedy, masked


@dataclass(frozen=True)
class QRDQNConfig:
    """Hyperparameters of QR-DQN."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64,64", "layers: mlp: and hidden sizes, or cnn: channels : hidden sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    distribution: str = setting(
        "quantiles",
        "form of the distribution of returns: quantiles of equal probability, or categorical, probabilities of fixed values (C51)",
        choices=("quantiles", "categorical"),
        shapes=True,
    )
    quantiles: int = setting(
        25, "number of quantiles of the return of each action, or of fixed values; C51 has 51", least=1, shapes=True
    )
    value_min: float = setting(-10.0, "smallest return of a categorical distribution")
    value_max: float = setting(10.0, "largest return of a categorical distribution")
    learning_rate: float = setting(1e-3, "Adam's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(64, "transitions per update", least=1, search=(32, 64, 128, 256))
    buffer_size: int = setting(50_000, "capacity of the replay buffer in transitions", least=1)
    learning_starts: int = setting(1_000, "environment steps before the first update", least=0)
    train_frequency: int = setting(4, "environment steps between rounds of updates", least=1, search=(1, 4, 8, 16))
    gradient_steps: int = setting(1, "updates per round", least=1, search=(1, 2, 4, 8))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    double: bool = setting(False, "Double DQN: the network chooses the next action, the target network evaluates it")
    dueling: bool = setting(False, "dueling network: a head for the state and one for the advantages", shapes=True)
    n_steps: int = setting(1, "rewards in a target before it is bootstrapped", least=1)
    prioritized: bool = setting(False, "prioritized replay: sample transitions with a large loss more often")
    priority_exponent: float = setting(0.5, "exponent of the priorities; 0: uniform replay", least=0, most=1)
    importance_exponent: float = setting(
        0.4, "initial exponent of the importance weights; rises linearly to 1", least=0, most=1
    )
    noisy: bool = setting(
        False, "noisy layers, which explore; set exploration-initial and exploration-final to 0 with it", shapes=True
    )
    target_update_interval: int = setting(
        500, "environment steps between copies to the target network, if tau is 1", least=1, search=(100, 500, 1000, 5000)
    )
    tau: float = setting(
        1.0, "step of the target network towards the network per update; 1: copies at intervals", above=0, most=1
    )
    exploration_initial: float = setting(1.0, "probability of a random action at the start", least=0, most=1)
    exploration_final: float = setting(
        0.05, "probability of a random action after the exploration phase", least=0, most=1, search=Between(0.01, 0.1)
    )
    exploration_fraction: float = setting(
        0.2, "share of the training over which exploration falls linearly", above=0, most=1, search=Between(0.05, 0.5)
    )
    max_grad_norm: float = setting(10.0, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


RAINBOW: dict[str, Any] = {
    "distribution": "categorical",
    "quantiles": 51,
    "double": True,
    "dueling": True,
    "n_steps": 3,
    "prioritized": True,
    "noisy": True,
    "exploration_initial": 0.0,
    "exploration_final": 0.0,
    "normalize_rewards": True,
}
"""Settings of Rainbow. Normalized rewards stand for the clipped rewards of Atari: returns are then mostly within ±10."""


class QRDQN(Agent):
    """Q-learning on the distribution of returns."""

    Config = QRDQNConfig
    action_spaces = (Discrete,)
    learned = ("network", "target_network", "normalization")
    saved = ("optimizer", "replay", "exploration", "target_age")

    def build(self) -> None:
        """Networks, replay and collector."""
        c = self.config
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.exploration, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.actions = int(self.space.n)
        self.network: rl.nn.Module = make_value_network(
            self.observed,
            c.network,
            self.actions,
            c.activation,
            atoms=c.quantiles,
            dueling=c.dueling,
            noise=self.exploration if c.noisy else None,
            generator=network_stream,
        )
        self.target_network = copy_of(self.network, noise=self.exploration)
        self.categorical = c.distribution == "categorical"
        if self.categorical and not (c.quantiles > 1 and c.value_min < c.value_max):
            raise ValueError(
                f"a categorical distribution needs at least 2 fixed values and value_min below value_max, got {c.quantiles} in "
                f"[{c.value_min}, {c.value_max}]"
            )
        step = (c.value_max - c.value_min) / max(1, c.quantiles - 1)
        self.returns = rl.tensor([c.value_min + step * i for i in range(c.quantiles)])
        """The fixed values of a categorical distribution."""
        self.optimizer = rl.optim.Adam(self.network.parameters(), lr=c.learning_rate, eps=0.01 / c.batch_size)
        self.epsilon_now = rl.ones(())
        self.normalization = self.make_normalization()
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        options: dict[str, Any] = {
            "gamma": c.gamma,
            "n_steps": c.n_steps,
            "num_envs": self.num_envs,
            "num_masked": self.collector.num_masked,
            "observation_dtype": self.observation_dtype,
            "frames": self.observed.frames,
        }
        kind = ReplayBuffer
        if c.prioritized:
            kind = PrioritizedReplayBuffer
            options["exponent"] = c.priority_exponent
        self.replay: Any = kind(c.buffer_size, self.shape, (), np.int64, replay_stream, **options)
        self.target_age = 0
        self.grad_norm = rl.zeros(())  # of the latest update
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps, inclusive=True)

    @classmethod
    def read_config(cls, path: Path, env: str = "") -> tuple[dict[str, Any], list[str]]:
        """Settings from a file, or those of Rainbow for the name ``rainbow``."""
        if path == Path("rainbow") and not path.exists():
            fails = env.rpartition(":")[2] == "CartPole-v1"
            return dict(RAINBOW), ["these settings fail with some seeds on CartPole-v1"] if fails else []
        return super().read_config(path, env)

    def quantiles(self, network: rl.nn.Module, observations: rl.Tensor) -> rl.Tensor:
        """Quantiles of the returns, (batch, actions, quantiles); logits of the fixed values with a categorical distribution."""
        return network(observations).view(len(observations), self.actions, self.config.quantiles)

    def means(self, quantiles: rl.Tensor) -> rl.Tensor:
        """Mean returns (...,) of the distributions given by `quantiles` (..., quantiles)."""
        return (quantiles.softmax(-1) * self.returns).sum(-1) if self.categorical else quantiles.mean(-1)

    # --- losses ------------------------------------------------------------------------------------------------------

    def compute_losses(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor]:
        """The loss of each transition, (batch,), and the mean value of the actions taken (for the log).

        It is the quantile Huber loss, or for a categorical distribution the cross entropy to the projected target (Bellemare et al. 2017,
        algorithm 1).
        """
        c = self.config
        rows = rl.arange(len(batch.rewards))
        with rl.no_grad():
            following = self.quantiles(self.target_network, batch.next_observations)
            chooser = self.quantiles(self.network, batch.next_observations) if c.double else following
            best = greedy(self.means(chooser), batch.next_action_masks)
            chosen = following[rows, best]
            if self.categorical:
                projected = project(chosen.softmax(1), batch.rewards, batch.discounts, c.value_min, c.value_max)
            else:
                targets = batch.rewards.unsqueeze(1) + batch.discounts.unsqueeze(1) * chosen
        taken = self.quantiles(self.network, batch.observations)[rows, batch.actions]
        if self.categorical:
            losses = -(projected * taken.log_softmax(1)).sum(1)
        else:
            losses = quantile_huber_loss(taken, targets, reduction="none")
        return losses, self.means(taken.detach()).mean()

    def update(self) -> tuple[rl.Tensor, rl.Tensor]:
        """Take one gradient step on a batch from replay; returns the loss and the mean Q-value."""
        c = self.config
        if c.tau < 1:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.network.parameters()), c.tau)
        batch = self.sample_batch(c.batch_size)
        losses, q_mean = self.compute_losses(batch)
        loss = losses.mean() if batch.weights is None else (batch.weights * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = rl.nn.utils.clip_grad_norm_(self.network.parameters(), c.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.grad_norm.copy_(norm)
        if c.prioritized:
            self.replay.update_priorities(batch.indices, losses)
        return loss, q_mean

    # --- acting ------------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        c = self.config
        schedule = LinearSchedule(c.exploration_initial, c.exploration_final, c.exploration_fraction, c.total_timesteps)
        return schedule(self.timesteps)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The mean returns of the actions, without noise."""
        self.network.eval()
        values = masked(self.means(self.quantiles(self.network, self.normal(observations))), action_mask)
        self.network.train()
        return Insight(values, values.amax(1), "values")

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Greedy actions, those with the highest mean return, for observations (batch, ...)."""
        self.network.eval()  # without noise
        actions = greedy(self.means(self.quantiles(self.network, self.normal(observations))), action_mask)
        self.network.train()
        return actions

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Epsilon-greedy actions."""
        self.epsilon_now.fill_(self.epsilon)
        return super().explore(observations, action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Greedy actions, each replaced by a random one with probability epsilon."""
        q_values = self.means(self.quantiles(self.network, self.normal(moment.observations)))
        return {"actions": epsilon_greedy(q_values, self.epsilon_now, self.exploration, moment.action_mask)}

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``train_frequency`` environment steps, then learn."""
        c = self.config
        self.epsilon_now.fill_(self.epsilon)
        self.store_rollout(self.collector.collect(self.steps))
        before = self.timesteps
        self.timesteps += self.steps * self.num_envs
        rounds = rounds_due(before, self.timesteps, c.train_frequency)
        self.target_age += self.steps * self.num_envs
        metrics = self.collector.episodes()
        if not rounds or self.timesteps < c.learning_starts or not len(self.replay):
            return metrics
        if c.tau == 1 and self.target_age >= c.target_update_interval:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.network.parameters()), 1.0)
            self.target_age = 0
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        if c.prioritized:
            self.replay.correction.fill_(c.importance_exponent + progress * (1.0 - c.importance_exponent))
        loss, q_mean = call_times(self._update, rounds * c.gradient_steps)
        return metrics | {
            "losses/td_loss": loss.item(),
            "losses/q_values": q_mean.item(),
            "losses/grad_norm": self.grad_norm.item(),
            "charts/epsilon": self.epsilon,
        }
