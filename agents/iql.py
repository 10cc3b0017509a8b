"""Implicit Q-learning (Kostrikov, Nair and Levine 2021, "Offline reinforcement learning with implicit Q-learning").

Values, critics and policy are learned from a dataset alone, without ever asking for the value of an action that is not in it. No
environment steps are taken: the environment gives the spaces, and evaluations are played in it.
"""

from dataclasses import dataclass

from gymnasium.spaces import Box, Discrete

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.compile import call_times
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.offline import UPDATES, OfflineAgent
from rl_lab.nn.networks import ACTIVATIONS, check_network, copy_of, make_action_value, make_network, sizes_beside
from rl_lab.rollout import Batch
from rl_lab.rollout.policies import Insight, outputs_of


@dataclass(frozen=True)
class IQLConfig:
    """Hyperparameters of IQL, named as in the paper where it names them."""

    total_timesteps: int = setting(2_560_000, "transitions to learn from: updates times batch size", least=1)
    dataset: str = setting(
        "", "data to learn from: a folder of rl_lab.record, minari:ID, a Minari folder, or random:STEPS for random actions"
    )
    network: str = setting(
        "mlp:64,64",
        "layers of the policy, the critics and the value: mlp: and hidden sizes, or cnn: channels : hidden sizes",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("relu", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    learning_rate: float = setting(1e-3, "Adam's step size; the paper has 3e-4", above=0, search=Between(1e-4, 3e-3, log=True))
    learning_rate_final: float = setting(
        0.1, "final step size of the policy as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(256, "transitions per update", least=1, search=(64, 128, 256, 512))
    gamma: float = setting(0.99, "discount factor of the return", least=0, most=1, search=(0.95, 0.98, 0.99, 0.995))
    tau: float = setting(0.005, "step of the target critics towards the critics per update", above=0, most=1)
    expectile: float = setting(
        0.7,
        "tau of the value's expectile; 0.5: the mean over the dataset's actions",
        above=0,
        most=0.999,
        search=Between(0.5, 0.95),
    )
    inverse_temperature: float = setting(
        3.0, "beta, weight of the advantage in the policy; 0: behaviour cloning", least=0, search=Between(0.5, 10.0, log=True)
    )
    largest_weight: float = setting(100.0, "bound on exp(beta A), the weight of an action in the policy's loss", above=0)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", least=-20, most=2)
    reward_scale: float = setting(1.0, "factor of the rewards of the dataset", above=0)
    normalize_observations: bool = setting(
        True,
        "normalize observations by the mean and standard deviation of the dataset; not bytes, which are scaled",
        shapes=True,
    )
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class IQL(OfflineAgent):
    """A value function, two critics and a policy, learned from a dataset."""

    Config = IQLConfig
    action_spaces = (Discrete, Box)
    learned = ("policy", "value", "critics", "target_critics", "moments")
    saved = ("policy_optimizer", "value_optimizer", "critic_optimizer", *OfflineAgent.saved)

    def build(self) -> None:
        """Networks and optimisers."""
        super().build()
        c = self.config
        self.gamma = c.gamma
        make = {"activation": c.activation, "generator": self.network_stream}
        sizes = sizes_beside(c.network)
        self.value = make_network(self.observed, sizes, 1, **make)
        critics = [
            make_action_value(self.observed, sizes, self.mapping.size, **make)
            if self.mapping.size
            else make_network(self.observed, sizes, self.mapping.num_masked, **make)
            for _ in range(2)
        ]
        self.critics = rl.nn.ModuleList(critics)
        self.target_critics = copy_of(self.critics)
        self.policy_optimizer = rl.optim.Adam(self.policy.parameters(), lr=c.learning_rate)
        self.value_optimizer = rl.optim.Adam(self.value.parameters(), lr=c.learning_rate)
        self.critic_optimizer = rl.optim.Adam(self.critics.parameters(), lr=c.learning_rate)
        self._update = self.record(self.update)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The log-probabilities of options or the most probable components, and the value V(s)."""
        x = self.normal(observations)
        return Insight(outputs_of(self.distribution(x, action_mask)), self.value(x).squeeze(1))

    # --- losses ------------------------------------------------------------------------------------------------------

    def q_values(self, critics: rl.nn.ModuleList, x: rl.Tensor, actions: rl.Tensor) -> list[rl.Tensor]:
        """The Q-values (batch,) of the actions by each critic."""
        if self.mapping.size:
            return [critic(x, actions).squeeze(1) for critic in critics]
        return [critic(x).gather(1, actions.unsqueeze(1)).squeeze(1) for critic in critics]

    def compute_loss_v(self, advantage: rl.Tensor) -> rl.Tensor:
        """The mean of |tau - 1(u < 0)| u^2 for u = min_i Q'_i(s, a) - V(s) (equation 5)."""
        below = (advantage < 0).float()
        return ((self.config.expectile - below).abs() * advantage**2).mean()

    def compute_loss_q(self, batch: Batch, x: rl.Tensor) -> rl.Tensor:
        """The mean squared errors of both critics against r + gamma V(s') (equation 6)."""
        with rl.no_grad():
            target = self.config.reward_scale * batch.rewards + batch.discounts * self.value(
                self.normal(batch.next_observations)
            ).squeeze(1)
        first, second = self.q_values(self.critics, x, batch.actions)
        return F.mse_loss(first, target) + F.mse_loss(second, target)

    def compute_loss_pi(self, x: rl.Tensor, actions: rl.Tensor, advantage: rl.Tensor) -> rl.Tensor:
        """The mean of -exp(beta A) log pi(a|s), with bounded weights (equation 7)."""
        c = self.config
        weights = (c.inverse_temperature * advantage).exp().clamp(max=c.largest_weight)
        return -(weights * self.distribution(x).log_prob(actions)).mean()

    def update(self) -> list[rl.Tensor]:
        """Take one gradient step of the value, the policy and the critics; returns their losses and the mean value."""
        assert self.data is not None
        batch = self.data.sample(self.config.batch_size)
        x = self.normal(batch.observations)
        with rl.no_grad():
            q = rl.minimum(*self.q_values(self.target_critics, x, batch.actions))
        values = self.value(x).squeeze(1)
        advantage = q - values
        loss_v = self.compute_loss_v(advantage)
        self.value_optimizer.zero_grad()
        loss_v.backward()
        loss_pi = self.compute_loss_pi(x, batch.actions, advantage.detach())
        self.policy_optimizer.zero_grad()
        loss_pi.backward()
        loss_q = self.compute_loss_q(batch, x)
        self.critic_optimizer.zero_grad()
        loss_q.backward()
        for optimizer in (self.value_optimizer, self.policy_optimizer, self.critic_optimizer):
            optimizer.step()
        rl.nn.utils.polyak_(list(self.target_critics.parameters()), list(self.critics.parameters()), self.config.tau)
        return [loss_v.detach(), loss_q.detach(), loss_pi.detach(), values.detach().mean()]

    def step(self) -> dict[str, float]:
        """Take some updates on batches of the dataset."""
        c = self.config
        if self.data is None:
            self.read_data()
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.policy_optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        loss_v, loss_q, loss_pi, value = call_times(self._update, UPDATES)
        self.timesteps += UPDATES * c.batch_size
        return {
            "losses/value_loss": loss_v.item(),
            "losses/td_loss": loss_q.item(),
            "losses/policy_loss": loss_pi.item(),
            "losses/values": value.item(),
        }
