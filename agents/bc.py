"""Behaviour cloning (Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation").

The policy maximizes the likelihood of the actions of a dataset. No environment steps are taken: the environment gives the spaces, and
evaluations are played in it.
"""

from dataclasses import dataclass

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.offline import UPDATES, OfflineAgent
from rl_lab.nn.networks import ACTIVATIONS, check_network
from rl_lab.rollout.policies import Insight, outputs_of


@dataclass(frozen=True)
class BCConfig:
    """Hyperparameters of behaviour cloning."""

    total_timesteps: int = setting(1_000_000, "transitions to learn from: updates times batch size", least=1)
    dataset: str = setting(
        "", "data to learn from: a folder of rl_lab.record, minari:ID, a Minari folder, or random:STEPS for random actions"
    )
    network: str = setting(
        "mlp:64,64",
        "layers of the policy: mlp: and hidden sizes, or cnn: channels : hidden sizes, or a run of NEAT",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    learning_rate: float = setting(1e-3, "Adam's step size", above=0, search=Between(1e-4, 1e-2, log=True))
    learning_rate_final: float = setting(
        0.1, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    batch_size: int = setting(256, "transitions per update", least=1, search=(64, 128, 256, 512))
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", least=-20, most=2)
    entropy_coefficient: float = setting(0.0, "weight of the entropy in the loss", least=0)
    max_grad_norm: float = setting(10.0, "largest norm of the gradient; a larger gradient is scaled down", above=0)
    normalize_observations: bool = setting(
        True,
        "normalize observations by the mean and standard deviation of the dataset; not bytes, which are scaled",
        shapes=True,
    )
    compile: bool = setting(True, "record acting and updates once, then replay them; results are bitwise the same")


class BC(OfflineAgent):
    """A policy that imitates the actions of a dataset."""

    Config = BCConfig
    learned = ("policy", "moments")
    saved = ("optimizer", *OfflineAgent.saved)

    def build(self) -> None:
        """The policy and its optimiser."""
        super().build()
        self.optimizer = rl.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        self._update = self.record(self.update)

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The log-probabilities of options and the most probable components."""
        return Insight(outputs_of(self.distribution(self.normal(observations), action_mask)))

    # --- learning ----------------------------------------------------------------------------------------------------

    def update(self) -> list[rl.Tensor]:
        """Take one gradient step on -log pi(a|s); returns the loss, the entropy and the norm of the gradient."""
        c = self.config
        assert self.data is not None
        batch = self.data.sample(c.batch_size)
        distribution = self.distribution(self.normal(batch.observations))
        entropy = distribution.entropy().mean()
        nll = -distribution.log_prob(batch.actions).mean()
        self.optimizer.zero_grad()
        (nll - c.entropy_coefficient * entropy).backward()
        norm = rl.nn.utils.clip_grad_norm_(self.policy.parameters(), c.max_grad_norm)
        self.optimizer.step()
        return [nll.detach(), entropy.detach(), norm]

    def step(self) -> dict[str, float]:
        """Take some updates on batches of the dataset."""
        c = self.config
        if self.data is None:
            self.read_data()
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        nll, entropy, norm = call_times(self._update, UPDATES)
        self.timesteps += UPDATES * c.batch_size
        return {"losses/nll": nll.item(), "losses/entropy": entropy.item(), "losses/grad_norm": norm.item()}
