"""Parallelised Q-network (Gallici et al. 2024, "Simplifying deep temporal difference learning").

Q(lambda) on rollouts of many environments, without replay and without a target network. Layer normalisation keeps the network's values
stable instead.
"""

from dataclasses import dataclass
from typing import Any

from gymnasium.spaces import Discrete

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.nn.networks import ACTIVATIONS, layer_sizes, make_network
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.rollout import Collector, Minibatches, Moment, RewardScale, RunningMoments, following_values, generalized_advantages
from rl_lab.rollout.exploration import LinearSchedule, epsilon_greedy
from rl_lab.rollout.policies import Insight, greedy, masked


@dataclass(frozen=True)
class PQNConfig:
    """Hyperparameters of PQN."""

    total_timesteps: int = setting(200_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:128,128", "layers: mlp: and hidden sizes, or cnn: channels : hidden sizes", check=layer_sizes, shapes=True
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    layer_norm: bool = setting(True, "normalize the inputs of each activation (Ba, Kiros and Hinton 2016)", shapes=True)
    learning_rate: float = setting(5e-4, "RAdam's step size", above=0, search=Between(1e-5, 1e-2, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    num_steps: int = setting(32, "steps of each environment in a rollout", least=1, search=(16, 32, 64, 128))
    batch_size: int = setting(32, "steps in a minibatch; must divide the rollout", least=1, search=(32, 64, 128))
    epochs: int = setting(2, "passes over each rollout", least=1, search=(1, 2, 4))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
    return_lambda: float = setting(
        0.65,
        "lambda of the returns; 0: one reward and a bootstrapped value",
        least=0,
        most=1,
        search=(0.0, 0.5, 0.65, 0.8, 0.95),
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


class PQN(Agent):
    """Q-learning on lambda-returns of the latest rollout, with a layer-normalised network."""

    Config = PQNConfig
    action_spaces = (Discrete,)
    learned = ("network", "moments")
    saved = ("optimizer", "reward_scale", "exploration", "shuffle_stream")

    def build(self) -> None:
        """Network, optimiser and collector."""
        c = self.config
        network_stream, self.exploration, self.shuffle_stream, environment_stream = rl.Generator(self.seed).spawn(4)
        self.network = make_network(
            self.observed,
            c.network,
            int(self.space.n),
            c.activation,
            normalized=c.layer_norm,
            generator=network_stream,
        )
        self.optimizer = rl.optim.RAdam(self.network.parameters(), lr=c.learning_rate)
        self.epsilon_now = rl.ones(())
        self.moments = RunningMoments(self.shape) if c.normalize_observations and self.observed.is_float else None
        self.reward_scale = RewardScale(self.num_envs, c.gamma) if c.normalize_rewards else None
        self.collector = Collector(self.envs, self.sample, environment_stream.as_seed(), c.compile)
        self.size = c.num_steps * self.num_envs
        if self.size % c.batch_size:
            raise ValueError(
                f"batch_size {c.batch_size} must divide a rollout of {c.num_steps} steps x {self.num_envs} environments"
            )
        self.batch: dict[str, rl.Tensor] = {}
        self.sums = rl.zeros(3)
        self._prepare = self.record(self.prepare)
        self.minibatches = Minibatches(self.size, c.batch_size, self.shuffle_stream)
        self._epoch = self.minibatches.passes(self.update, self.record)

    # --- acting ------------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        c = self.config
        schedule = LinearSchedule(c.exploration_initial, c.exploration_final, c.exploration_fraction, c.total_timesteps)
        return schedule(self.timesteps)

    def q_values(self, observations: rl.Tensor) -> rl.Tensor:
        """Action values (batch, actions)."""
        return self.network(observations if self.moments is None else self.moments.normalize(observations))

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Greedy actions, each replaced by a random one with probability epsilon, and the values of the states."""
        q_values = self.q_values(moment.observations)
        return {
            "actions": epsilon_greedy(q_values, self.epsilon_now, self.exploration, moment.action_mask),
            "values": masked(q_values, moment.action_mask).amax(1),
        }

    def explore(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Epsilon-greedy actions."""
        self.epsilon_now.fill_(self.epsilon)
        return super().explore(observations, action_mask)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The values of the actions."""
        values = masked(self.q_values(observations), action_mask)
        return Insight(values, values.amax(1), "values")

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """Greedy actions, argmax_a Q(s, a) among the allowed actions, for observations (batch, ...)."""
        return greedy(self.q_values(observations), action_mask)

    # --- learning ----------------------------------------------------------------------------------------------------

    def compute_returns(self, rollout: dict[str, rl.Tensor]) -> rl.Tensor:
        """Lambda-returns (steps, environments) of a rollout (equation 15).

        G_t = r_t + gamma (lambda G_{t+1} + (1 - lambda) max_a Q(s_{t+1}, a)), without the second term after a termination. The sum ends at
        a truncation and at the last step, where it is bootstrapped from max_a Q alone.
        """
        c = self.config

        def value(observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
            return masked(self.q_values(observations), action_mask).amax(1)

        values = rollout["values"]
        following = following_values(value, values, rollout)
        ends = (rollout["terminated"], rollout["truncated"])
        return generalized_advantages(rollout["rewards"], values, following, *ends, c.gamma, c.return_lambda) + values

    @rl.no_grad()
    def prepare(self, rollout: dict[str, rl.Tensor]) -> None:
        """Copy what the updates need of a rollout (steps, environments, ...) into ``self.batch``, flattened."""
        made = {name: rollout[name].flatten(0, 1) for name in ("observations", "actions")}
        made["returns"] = self.compute_returns(rollout).flatten()
        if "valid" in rollout:
            made["weights"] = rollout["valid"].flatten().float()
        for name, source in made.items():
            self.batch[name].copy_(source)

    def compute_loss(self, batch: dict[str, rl.Tensor]) -> tuple[rl.Tensor, rl.Tensor]:
        """Half the mean squared error of the returns of a minibatch, and the mean Q-value of the actions taken (for the log)."""
        q = self.q_values(batch["observations"]).gather(1, batch["actions"].unsqueeze(1)).squeeze(1)
        errors = (q - batch["returns"]) ** 2
        weights = batch.get("weights")
        loss = errors.mean() if weights is None else (errors * weights).sum() / weights.sum().clamp(min=1.0)
        return 0.5 * loss, q.detach().mean()

    def update(self, index: rl.Tensor) -> None:
        """Take one gradient step on the minibatch of the rollout's steps ``index`` (batch_size,)."""
        loss, q_mean = self.compute_loss({name: x.index_select(0, index) for name, x in self.batch.items()})
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        with rl.no_grad():
            self.sums.add_(rl.stack([loss, q_mean, norm]))

    # --- the loop's body ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Collect a rollout, then learn from it for some epochs."""
        c = self.config
        self.epsilon_now.fill_(self.epsilon)
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        collected = self.collector.collect(c.num_steps)
        self.timesteps += self.size
        rollout = collected.tensors(self.reward_scale)
        if collected.next_action_masks is not None:
            rollout["next_action_masks"] = rl.from_numpy(collected.next_action_masks)
        if not self.batch:  # made once, because the recorded updates read the same memory at each replay
            observations: Any = rollout["observations"]
            self.batch["observations"] = rl.zeros(self.size, *observations.shape[2:], dtype=observations.dtype)
            self.batch |= {"actions": rl.zeros(self.size, dtype=rl.int64), "returns": rl.zeros(self.size)}
            if "valid" in rollout:
                self.batch["weights"] = rl.zeros(self.size)
        self._prepare(rollout)
        self.sums.zero_()
        call_times(self._epoch, c.epochs)
        if self.moments is not None:
            self.moments.update(rollout["observations"].flatten(0, 1))
        means = (self.sums / (c.epochs * self.size // c.batch_size)).tolist()
        return self.collector.episodes() | {
            **{f"losses/{name}": mean for name, mean in zip(("td_loss", "q_values", "grad_norm"), means, strict=True)},
            "charts/epsilon": self.epsilon,
            "charts/learning_rate": self.optimizer.param_groups[0]["lr"],
        }
