"""Deep Q-learning (Mnih et al. 2015, "Human-level control through deep reinforcement learning").

With ``double``, the target of van Hasselt, Guez and Silver 2016 ("Deep reinforcement learning with double Q-learning").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.collect import Collector, Moment
from rl_lab.data import ReplayBuffer, Transitions
from rl_lab.experiment.config import setting
from rl_lab.nn.networks import ACTIVATIONS, copy_of, hidden_sizes, mlp


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN."""

    total_timesteps: int = setting(50_000, "environment steps to train for", least=1)
    network: str = setting("mlp:64,64", "the Q-network: mlp: and its hidden sizes", check=hidden_sizes)
    activation: str = setting("relu", "between the layers", choices=tuple(ACTIVATIONS))
    learning_rate: float = setting(1e-3, "Adam's step size", above=0)
    learning_rate_final: float = setting(1.0, "share of the step size left at the end, approached linearly", least=0, most=1)
    batch_size: int = setting(64, "transitions in an update", least=1)
    buffer_size: int = setting(50_000, "transitions kept for replay", least=1)
    learning_starts: int = setting(1_000, "environment steps before the first update", least=0)
    train_frequency: int = setting(4, "environment steps between rounds of updates", least=1)
    gradient_steps: int = setting(1, "updates in a round", least=1)
    gamma: float = setting(0.99, "discount of the next step's value", least=0, most=1)
    target_update_interval: int = setting(500, "environment steps between moves of the target network", least=1)
    tau: float = setting(1.0, "how far the target network moves: 1 copies the network", above=0, most=1)
    exploration_initial: float = setting(1.0, "share of random actions at the start", least=0, most=1)
    exploration_final: float = setting(0.05, "share of random actions after the exploration phase", least=0, most=1)
    exploration_fraction: float = setting(0.2, "share of the training over which exploration falls linearly", above=0, most=1)
    loss: str = setting("huber", "of the temporal difference", choices=("huber", "mse"))
    double: bool = setting(True, "choose the next action by the network, value it by the target (Double DQN)")
    max_grad_norm: float = setting(10.0, "gradients are scaled down to this norm", above=0)
    compile: bool = setting(True, "record acting and updating once and replay them; the results are the same bit for bit")


class DQN:
    """Q-learning with a replay buffer, a target network and epsilon-greedy exploration."""

    Config = DQNConfig
    action_spaces = (Discrete,)

    def __init__(self, config: DQNConfig, envs: VectorEnv, seed: int):
        self.config, self.num_envs = config, envs.num_envs
        network_stream, self.exploration, replay_stream, environment_stream = rl.Generator(seed).spawn(4)
        space: Any = envs.single_action_space
        self.num_actions, self.first_action = int(space.n), int(space.start)
        shape = envs.single_observation_space.shape
        assert shape is not None
        inputs = int(np.prod(shape))

        self.q_network = mlp(
            inputs, hidden_sizes(config.network), self.num_actions, config.activation, generator=network_stream
        )
        self.target_network = copy_of(self.q_network)
        self.optimizer = rl.optim.Adam(self.q_network.parameters(), lr=config.learning_rate)
        self.replay = ReplayBuffer(config.buffer_size, (inputs,), (), np.int64, replay_stream)
        self.epsilon_now = rl.ones(())
        environment_seed = int(environment_stream.seed_sequence.generate_state(1)[0])
        self.collector = Collector(envs, self.explore, environment_seed, config.compile)
        self.timesteps = 0
        self.target_age = 0
        record = rl.compile if config.compile else lambda function: function
        self._update, self._greedy = record(self.update), record(self.greedy)

    # --- losses ------------------------------------------------------------------------------------------------------

    def compute_td_target(self, batch: Transitions) -> rl.Tensor:
        """r + gamma max_a Q'(s', a), and r alone where the episode terminated; shape (batch,)."""
        with rl.no_grad():
            next_values = self.target_network(batch.next_observations)
            if self.config.double:
                best = self.q_network(batch.next_observations).argmax(1, keepdim=True)
                next_value = next_values.gather(1, best).squeeze(1)
            else:
                next_value = next_values.amax(1)
            return batch.rewards + self.config.gamma * (1.0 - batch.terminated) * next_value

    def compute_loss_q(self, batch: Transitions) -> tuple[rl.Tensor, rl.Tensor]:
        """The temporal-difference loss, and the mean Q-value of the actions taken (for the log)."""
        td_target = self.compute_td_target(batch)
        q = self.q_network(batch.observations).gather(1, batch.actions.unsqueeze(1)).squeeze(1)
        loss = F.smooth_l1_loss(q, td_target) if self.config.loss == "huber" else F.mse_loss(q, td_target)
        return loss, q.detach().mean()

    def update(self) -> tuple[rl.Tensor, rl.Tensor]:
        """One gradient step on a batch from replay."""
        loss, q_mean = self.compute_loss_q(self.replay.sample(self.config.batch_size))
        self.optimizer.zero_grad()
        loss.backward()
        rl.nn.utils.clip_grad_norm_(self.q_network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss, q_mean

    # --- acting ------------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """The share of random actions now."""
        c = self.config
        progress = min(1.0, self.timesteps / (c.exploration_fraction * c.total_timesteps))
        return c.exploration_initial + progress * (c.exploration_final - c.exploration_initial)

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor) -> rl.Tensor:
        """argmax_a Q(s, a) for observations (batch, inputs)."""
        return self.q_network(observations).argmax(1)

    def explore(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Greedy actions, each replaced by a random one with probability epsilon."""
        observations = moment.observations.flatten(1)
        random = rl.randint(0, self.num_actions, (len(observations),), generator=self.exploration)
        chosen = rl.rand(len(observations), generator=self.exploration) < self.epsilon_now
        return {"actions": rl.where(chosen, random, self.greedy(observations))}

    def act(self, observations: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """Greedy actions, or epsilon-greedy ones, for observations of shape (batch, ...)."""
        flat = np.ascontiguousarray(observations, np.float32).reshape(len(observations), -1)
        actions = self._greedy(rl.as_tensor(flat)).numpy()
        if not deterministic:
            random = rl.randint(0, self.num_actions, (len(flat),), generator=self.exploration)
            chosen = rl.rand(len(flat), generator=self.exploration) < self.epsilon
            actions = np.where(chosen.numpy(), random.numpy(), actions)
        return actions + self.first_action

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``train_frequency`` environment steps, then learn."""
        steps = max(1, self.config.train_frequency // self.num_envs)
        self.epsilon_now.fill_(self.epsilon)
        made = self.collector.collect(steps).transitions()
        observations, following = (x.reshape(len(x), -1) for x in (made.observations, made.next_observations))
        self.replay.add(made._replace(observations=observations, next_observations=following))
        self.timesteps += steps * self.num_envs
        self.target_age += steps * self.num_envs
        metrics = self.collector.episodes()
        if self.timesteps >= self.config.learning_starts and len(self.replay):
            metrics |= self.learn()
        return metrics

    def learn(self) -> dict[str, float]:
        """A round of updates."""
        c = self.config
        if self.target_age >= c.target_update_interval:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.q_network.parameters()), c.tau)
            self.target_age = 0
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        for _ in range(c.gradient_steps):
            loss, q_mean = self._update()
        return {"losses/td_loss": loss.item(), "losses/q_values": q_mean.item(), "charts/epsilon": self.epsilon}

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "q_network": self.q_network.state_dict(),
            "target_network": self.target_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "exploration": self.exploration.get_state(),
            "timesteps": self.timesteps,
            "target_age": self.target_age,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q_network.load_state_dict(state["q_network"])
        self.target_network.load_state_dict(state["target_network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay.load_state_dict(state["replay"])
        self.exploration.set_state(state["exploration"])
        self.timesteps, self.target_age = int(state["timesteps"]), int(state["target_age"])
