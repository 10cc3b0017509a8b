"""Deep recurrent Q-learning (Hausknecht and Stone 2015, "Deep recurrent Q-learning for partially observable MDPs").

A recurrent cell between the observations and the action values. Replay holds the memory before each step and is sampled in sequences. The
first steps of a sequence only bring the stored memory up to date: the burn-in of R2D2 (Kapturowski et al. 2019, "Recurrent experience
replay in distributed reinforcement learning").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.agent import updates_never_start
from rl_lab.experiment.config import Between, setting
from rl_lab.nn import GRUCell, Linear, ModuleDict
from rl_lab.nn.networks import ACTIVATIONS, copy_of, layer_sizes, make_network
from rl_lab.rollout import (
    Batch,
    Collector,
    Moment,
    SequenceReplayBuffer,
    generalized_advantages,
    rounds_due,
    steps_between_updates,
)
from rl_lab.rollout.exploration import LinearSchedule, epsilon_greedy
from rl_lab.rollout.policies import Insight, greedy, masked


@dataclass(frozen=True)
class DRQNConfig:
    """Hyperparameters of DRQN."""

    total_timesteps: int = setting(100_000, "environment steps to train for", least=1)
    network: str = setting("mlp:64", "layers before the memory: mlp: or cnn: and sizes", check=layer_sizes, shapes=True)
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    memory: int = setting(64, "units of the memory, a gated recurrent unit", least=1, shapes=True)
    learning_rate: float = setting(1e-3, "Adam's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(16, "sequences per update", least=1, search=(8, 16, 32, 64))
    sequence_length: int = setting(16, "steps of a sequence from which an update learns", least=1, search=(8, 16, 32))
    burn_in: int = setting(
        8, "burn-in: steps before the sequence that only refresh the stored memory", least=0, search=(0, 4, 8, 16)
    )
    buffer_size: int = setting(50_000, "capacity of the replay buffer in transitions", least=1)
    learning_starts: int = setting(1_000, "environment steps before the first update", least=0)
    train_frequency: int = setting(4, "environment steps between rounds of updates", least=1, search=(1, 4, 8, 16))
    gradient_steps: int = setting(1, "updates per round", least=1, search=(1, 2, 4, 8))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    return_lambda: float = setting(
        0.8,
        "lambda of the returns within a sequence; 0: one reward and a bootstrapped value",
        least=0,
        most=1,
        search=(0.0, 0.5, 0.8),
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
    double: bool = setting(True, "Double DQN: the network chooses the next action, the target network evaluates it")
    max_grad_norm: float = setting(10.0, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    normalize_rewards: bool = setting(False, "divide rewards by the running standard deviation of the discounted return")
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class DRQN(Agent):
    """Q-learning with a recurrent network and a replay buffer of sequences."""

    Config = DRQNConfig
    action_spaces = (Discrete,)
    learned = ("network", "target_network", "normalization")
    saved = ("optimizer", "replay", "memory", "exploration", "target_age")
    acting_memory = "_acting"

    def build(self) -> None:
        """Networks, memory, replay and collector."""
        c = self.config
        if self.envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("drqn needs vector environments made with autoreset_mode=SAME_STEP; those of an id are")
        self.steps = steps_between_updates(c.train_frequency, self.num_envs, c.buffer_size)
        network_stream, self.exploration, replay_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.network = ModuleDict(
            {
                "encoder": make_network(self.observed, c.network, c.memory, c.activation, generator=network_stream),
                "cell": GRUCell(c.memory, c.memory, generator=network_stream),
                "head": Linear(c.memory, int(self.space.n), generator=network_stream),
            }
        )
        self.target_network = copy_of(self.network)
        self.optimizer = rl.optim.Adam(self.network.parameters(), lr=c.learning_rate)
        self.epsilon_now = rl.ones(())
        self.normalization = self.make_normalization()
        self.memory = rl.zeros(self.num_envs, c.memory)
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.length = c.burn_in + c.sequence_length
        self.replay = SequenceReplayBuffer(
            c.buffer_size,
            self.shape,
            (),
            np.int64,
            replay_stream,
            memory=c.memory,
            gamma=c.gamma,
            num_envs=self.num_envs,
            num_masked=self.collector.num_masked,
            observation_dtype=self.observation_dtype,
            frames=self.observed.frames,
        )
        if self.length * self.num_envs > self.replay.capacity:
            raise ValueError(
                f"a buffer of {c.buffer_size} has no room for sequences of {c.burn_in} + {c.sequence_length} steps of {self.num_envs} "
                "environments: raise --buffer-size"
            )
        self.target_age = 0
        self.grad_norm = rl.zeros(())  # of the latest update
        self._acting = rl.zeros(0, c.memory)
        self._update = self.record(self.update)
        self._mode = self.record(self.mode)

    def remarks(self) -> list[str]:
        """A warning if training ends before learning starts."""
        return updates_never_start(self.config.learning_starts, self.config.total_timesteps, inclusive=True)

    # --- acting ------------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        c = self.config
        schedule = LinearSchedule(c.exploration_initial, c.exploration_final, c.exploration_fraction, c.total_timesteps)
        return schedule(self.timesteps)

    def next_memory(self, network: ModuleDict, observations: rl.Tensor, memory: rl.Tensor) -> rl.Tensor:
        """The memory (batch, units) after normalized observations (batch, ...)."""
        return network["cell"](network["encoder"](observations).tanh(), memory)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Greedy actions, each replaced by a random one with probability epsilon, and the memory before the observation."""
        kept = self.memory * (moment.elapsed > 0).float().unsqueeze(1)
        memory = self.next_memory(self.network, self.normal(moment.observations), kept)
        self.memory.copy_(memory)
        q_values = self.network["head"](memory)
        return {"actions": epsilon_greedy(q_values, self.epsilon_now, self.exploration, moment.action_mask), "memory": kept}

    @rl.no_grad()
    def mode(
        self, observations: rl.Tensor, memory: rl.Tensor, action_mask: rl.Tensor | None = None
    ) -> tuple[rl.Tensor, rl.Tensor]:
        """The greedy actions, and the memory after the observations."""
        memory = self.next_memory(self.network, self.normal(observations), memory)
        return greedy(self.network["head"](memory), action_mask), memory

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The values of the actions after the observations."""
        given = rl.zeros(len(observations), self.config.memory) if memory is None else memory
        after = self.next_memory(self.network, self.normal(observations), given)
        values = masked(self.network["head"](after), action_mask)
        return Insight(values, values.amax(1), "values")

    def greedy_step(self) -> tuple[Callable[..., tuple[rl.Tensor, ...]], tuple[rl.Tensor, ...]]:
        """The greedy policy as a function of observations and memory, and the memory with which an episode begins."""

        def step(
            observations: rl.Tensor, memory: rl.Tensor, action_mask: rl.Tensor | None = None
        ) -> tuple[rl.Tensor, rl.Tensor]:
            actions, memory = self.mode(observations, memory, action_mask)
            return self.mapping.scaled(actions), memory

        return step, (rl.zeros(1, self.config.memory),)

    def act(self, observations: np.ndarray, deterministic: bool = False, action_mask: np.ndarray | None = None) -> Any:
        """Actions for observations (batch, ...). Row i of each batch belongs to one episode until `begin_episodes`."""
        x = rl.from_numpy(np.ascontiguousarray(observations, self.observation_dtype))
        mask = None if action_mask is None else rl.from_numpy(np.ascontiguousarray(action_mask, bool))
        if len(self._acting) != len(x):
            self._acting = rl.zeros(len(x), self.config.memory)
        actions, self._acting = self._mode(x, self._acting, mask)
        if not deterministic:
            self.epsilon_now.fill_(self.epsilon)
            with rl.no_grad():
                q_values = self.network["head"](self._acting)
                actions = epsilon_greedy(q_values, self.epsilon_now, self.exploration, mask)
        return self.mapping(actions)

    def begin_episodes(self, begins: np.ndarray) -> None:
        """Clear the memory of the rows (batch,) in which the next observation begins an episode."""
        if len(self._acting) == len(begins):
            self._acting = self._acting * rl.from_numpy((~np.asarray(begins, bool)).astype(np.float32)).unsqueeze(1)
        else:
            self._acting = rl.zeros(len(begins), self.config.memory)

    # --- losses ------------------------------------------------------------------------------------------------------

    def memories(
        self, network: ModuleDict, observations: rl.Tensor, ended: rl.Tensor, memory: rl.Tensor
    ) -> tuple[rl.Tensor, rl.Tensor]:
        """The memories after each step of sequences, (steps * batch, units), and before the step that follows, (batch, units).

        ``observations`` are (steps, batch, ...). ``ended``, bool (steps, batch), is True where a step ended its episode, so the next one
        begins without a memory.
        """
        steps, count = ended.shape
        encoded = network["encoder"](observations.flatten(0, 1)).tanh().reshape(steps, count, -1)
        made = []
        for t in range(steps):
            after = network["cell"](encoded[t], memory)
            memory = after * (~ended[t]).float().unsqueeze(1)
            made.append(after)
        return rl.cat(made), memory

    def compute_target(self, batch: Batch, ended: rl.Tensor, own: rl.Tensor, target: rl.Tensor) -> rl.Tensor:
        """Lambda-returns (steps, batch) of sequences, for the memories of both networks after each step, (steps * batch, units).

        G_t = r_t + gamma ((1 - lambda) V_{t+1} + lambda G_{t+1}), where V is the value of the next observation as in `rl_lab.agents.dqn`.
        The sum ends with the episode and with the sequence.
        """
        c = self.config
        with rl.no_grad():
            following = batch.next_observations
            values = self.target_network["head"](self.next_memory(self.target_network, following, target))
            chooser = values
            if c.double:
                chooser = self.network["head"](self.next_memory(self.network, following, own.detach()))
            best = greedy(chooser, batch.next_action_masks).unsqueeze(1)
            after = values.gather(1, best).reshape(*ended.shape)
            # the value of a step's observation is that of the next observation of the step before
            before = rl.cat([rl.zeros(1, ended.shape[1]), after[:-1]])
            rewards, discounts = (x.reshape(*ended.shape) for x in (batch.rewards, batch.discounts))
            advantages = generalized_advantages(rewards, before, after, discounts == 0, ended, c.gamma, c.return_lambda)
            return advantages + before

    def compute_loss_q(self, batch: Batch, ended: rl.Tensor, memory: rl.Tensor) -> tuple[rl.Tensor, rl.Tensor]:
        """The Huber loss of the temporal differences after the burn-in, and the mean Q-value of the actions taken (for the log).

        ``batch`` holds sequences, flattened from (steps, batch, ...); ``ended`` (steps, batch) is as in `memories`; ``memory`` (batch,
        units) is the stored memory before the sequences.
        """
        first = self.config.burn_in
        observations = batch.observations.reshape(*ended.shape, *batch.observations.shape[1:])
        mine = theirs = memory
        with rl.no_grad():
            if first:
                _, mine = self.memories(self.network, observations[:first], ended[:first], memory)
                _, theirs = self.memories(self.target_network, observations[:first], ended[:first], memory)
            target_memories, _ = self.memories(self.target_network, observations[first:], ended[first:], theirs)
        own_memories, _ = self.memories(self.network, observations[first:], ended[first:], mine)
        skipped = first * ended.shape[1]
        kept: Any = [None if x is None else x[skipped:] for x in batch]
        learned = Batch(*kept)
        target = self.compute_target(learned, ended[first:], own_memories, target_memories)
        q = self.network["head"](own_memories).gather(1, learned.actions.unsqueeze(1)).squeeze(1)
        return F.smooth_l1_loss(q, target.flatten()), q.detach().mean()

    def update(self) -> tuple[rl.Tensor, rl.Tensor]:
        """Take one gradient step on sequences from replay; returns the loss and the mean Q-value."""
        c = self.config
        if c.tau < 1:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.network.parameters()), c.tau)
        batch, ended, memory = self.replay.sample_sequences(c.batch_size, self.length)
        if self.normalization is not None:
            batch = self.normalization.batch(batch)
        loss, q_mean = self.compute_loss_q(batch, ended, memory)
        self.optimizer.zero_grad()
        loss.backward()
        norm = rl.nn.utils.clip_grad_norm_(self.network.parameters(), c.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.grad_norm.copy_(norm)
        return loss, q_mean

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect ``train_frequency`` environment steps, then learn."""
        c = self.config
        self.epsilon_now.fill_(self.epsilon)
        rollout = self.collector.collect(self.steps)
        self.replay.add(rollout.transitions(), rollout.extras["memory"].reshape(-1, c.memory))
        if self.normalization is not None:
            self.normalization.update(rollout)
        before = self.timesteps
        self.timesteps += self.steps * self.num_envs
        rounds = rounds_due(before, self.timesteps, c.train_frequency)
        self.target_age += self.steps * self.num_envs
        metrics = self.collector.episodes()
        if not rounds or self.timesteps < c.learning_starts or len(self.replay) < self.length * self.num_envs:
            return metrics
        if c.tau == 1 and self.target_age >= c.target_update_interval:
            rl.nn.utils.polyak_(list(self.target_network.parameters()), list(self.network.parameters()), 1.0)
            self.target_age = 0
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        loss, q_mean = call_times(self._update, rounds * c.gradient_steps)
        return metrics | {
            "losses/td_loss": loss.item(),
            "losses/q_values": q_mean.item(),
            "losses/grad_norm": self.grad_norm.item(),
            "charts/epsilon": self.epsilon,
        }
