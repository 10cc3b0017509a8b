"""Deep Q-learning (Mnih et al. 2015, "Human-level control through deep reinforcement learning").

Settings add the parts of Rainbow (Hessel et al. 2018): ``double`` (van Hasselt, Guez and Silver 2016), ``dueling`` (Wang et al. 2016),
``prioritized`` replay (Schaul et al. 2016), ``n_steps`` returns and ``noisy`` layers (Fortunato et al. 2018). For distributions of
returns, and all of Rainbow, see `rl_lab.agents.qrdqn`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.faults import Fault
from rl_lab.nn import Identity
from rl_lab.nn.networks import (
    ACTIVATIONS,
    Dueling,
    check_network,
    copy_of,
    evolved_path,
    make_network,
    make_value_network,
    sizes_beside,
)
from rl_lab.rollout import Batch, Collector, Moment, PrioritizedReplayBuffer, ReplayBuffer, rounds_due, steps_between_updates
from rl_lab.rollout.exploration import LinearSchedule, epsilon_greedy
from rl_lab.rollout.policies import Insight, greedy, masked


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:64,64",
        "layers of the Q-network: mlp: and hidden sizes, or cnn: channels : hidden sizes, or a run of NEAT",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
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
    loss: str = setting("huber", "loss of the temporal difference", choices=("huber", "mse"))
    double: bool = setting(True, "Double DQN: the network chooses the next action, the target network evaluates it")
    dueling: bool = setting(False, "dueling network: a head for the state value and one for the advantages", shapes=True)
    n_steps: int = setting(1, "rewards in a target before it is bootstrapped", least=1)
    prioritized: bool = setting(False, "prioritized replay: sample transitions with a large temporal difference more often")
    priority_exponent: float = setting(0.6, "exponent of the priorities; 0: uniform replay", least=0, most=1)
    importance_exponent: float = setting(
        0.4, "initial exponent of the importance weights; rises linearly to 1", least=0, most=1
    )
    noisy: bool = setting(
        False, "explore by noisy layers; also set exploration-initial and exploration-final to 0", shapes=True
    )
    max_grad_norm: float = setting(10.0, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class DQN(Agent):
    """Q-learning with a replay buffer, a target network and epsilon-greedy exploration."""

    Config = DQNConfig
    action_spaces = (Discrete,)
    learned = ("q_network", "target_network", "normalization")
    saved = ("optimizer", "replay", "exploration", "target_age")

    def build(self) -> None:
        """Networks, replay and collector."""
        config = self.config
        self.steps = steps_between_updates(config.train_frequency, self.num_envs, config.buffer_size)
        network_stream, self.exploration, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.q_network = self.make_q_network(network_stream)
        self.target_network = copy_of(self.q_network, noise=self.exploration)
        self.optimizer = rl.optim.Adam(self.q_network.parameters(), lr=config.learning_rate)
        self.epsilon_now = rl.ones(())
        self.normalization = self.make_normalization(evolved_path(config.network) is None)
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), config.compile)
        options = {
            "gamma": config.gamma,
            "n_steps": config.n_steps,
            "num_envs": self.num_envs,
            "num_masked": self.collector.num_masked,
            "observation_dtype": self.observation_dtype,
            "frames": self.observed.frames,
        }
        kind = ReplayBuffer
        if config.prioritized:
            kind = PrioritizedReplayBuffer
            options["exponent"] = config.priority_exponent
        self.replay: Any = kind(config.buffer_size, self.shape, (), np.int64, replay_stream, **options)
        self.target_age = 0
        self.grad_norm = rl.zeros(())  # of the latest update
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps, inclusive=True)

    def make_q_network(self, stream: rl.Generator) -> rl.nn.Module:
        """A network from observations (batch, ...) to action values (batch, actions)."""
        c = self.config
        actions = int(self.space.n)
        if evolved_path(c.network) is None:
            noise = self.exploration if c.noisy else None
            return make_value_network(
                self.observed, c.network, actions, c.activation, dueling=c.dueling, noise=noise, generator=stream
            )
        if c.dueling or c.noisy:
            raise Fault("an evolved network has neither two heads nor noisy layers: leave out --dueling and --noisy")
        # an evolved network ranks actions but does not estimate values, so it becomes the advantage head of a dueling network
        advantage = make_network(self.observed, c.network, actions, c.activation, generator=stream)
        value = make_network(self.observed, sizes_beside(c.network), 1, c.activation, generator=stream)
        return Dueling(Identity(), value, advantage)

    # --- losses ------------------------------------------------------------------------------------------------------

    def compute_td_target(self, batch: Batch) -> rl.Tensor:
        """Targets r + gamma max_a Q'(s', a), or r if the episode terminated; shape (batch,)."""
        with rl.no_grad():
            next_values = masked(self.target_network(batch.next_observations), batch.next_action_masks)
            if self.config.double:
                best = greedy(self.q_network(batch.next_observations), batch.next_action_masks).unsqueeze(1)
                next_value = next_values.gather(1, best).squeeze(1)
            else:
                next_value = next_values.amax(1)
            return batch.rewards + batch.discounts * next_value

    def compute_loss_q(self, batch: Batch) -> tuple[rl.Tensor, rl.Tensor, rl.Tensor]:
        """The temporal-difference loss, the mean Q-value of the actions taken (for the log), and the differences."""
        td_target = self.compute_td_target(batch)
        q = self.q_network(batch.observations).gather(1, batch.actions.unsqueeze(1)).squeeze(1)
        compute = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        if batch.weights is None:
            loss = compute(q, td_target)
        else:
            loss = (batch.weights * compute(q, td_target, reduction="none")).mean()
        return loss, q.detach().mean(), td_target - q.detach()

    def update(self) -> tuple[rl.Tensor, rl.Tensor]:
        """Take one gradient step on a batch from replay; returns the loss and the mean Q-value."""
        c = self.config
        if c.tau < 1:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.q_network.parameters()), c.tau)
        batch = self.sample_batch(c.batch_size)
        loss, q_mean, differences = self.compute_loss_q(batch)
        self.optimizer.zero_grad()
        loss.backward()
        norm = rl.nn.utils.clip_grad_norm_(self.q_network.parameters(), c.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.grad_norm.copy_(norm)
        if c.prioritized:
            self.replay.update_priorities(batch.indices, differences)
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
        """The values of the actions, without noise."""
        self.q_network.eval()
        values = masked(self.q_network(self.normal(observations)), action_mask)
        self.q_network.train()
        return Insight(values, values.amax(1), "values")

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Greedy actions, argmax_a Q(s, a) among the allowed actions, for observations (batch, ...)."""
        self.q_network.eval()  # without noise
        actions = greedy(self.q_network(self.normal(observations)), action_mask)
        self.q_network.train()
        return actions

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Epsilon-greedy actions."""
        self.epsilon_now.fill_(self.epsilon)
        return super().explore(observations, action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Greedy actions, each replaced by a random one with probability epsilon."""
        q_values = self.q_network(self.normal(moment.observations))
        return {"actions": epsilon_greedy(q_values, self.epsilon_now, self.exploration, moment.action_mask)}

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``train_frequency`` environment steps, then learn."""
        self.epsilon_now.fill_(self.epsilon)
        self.store_rollout(self.collector.collect(self.steps))
        before = self.timesteps
        self.timesteps += self.steps * self.num_envs
        rounds = rounds_due(before, self.timesteps, self.config.train_frequency)
        self.target_age += self.steps * self.num_envs
        metrics = self.collector.episodes()
        if rounds and self.timesteps >= self.config.learning_starts and len(self.replay):
            metrics |= self.improve(rounds)
        return metrics

    def improve(self, rounds: int) -> dict[str, float]:
        """Run ``rounds`` rounds of updates; returns the log of the last update."""
        c = self.config
        if c.tau == 1 and self.target_age >= c.target_update_interval:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.q_network.parameters()), 1.0)
            self.target_age = 0
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        if c.prioritized:
            self.replay.correction.fill_(c.importance_exponent + progress * (1.0 - c.importance_exponent))
        loss, q_mean = call_times(self._update, rounds * c.gradient_steps)
        return {
            "losses/td_loss": loss.item(),
            "losses/q_values": q_mean.item(),
            "losses/grad_norm": self.grad_norm.item(),
            "charts/epsilon": self.epsilon,
        }
