"""Behaviour cloning (Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation").

The policy maximizes the likelihood of the actions of a dataset. No environment steps are taken: the environment gives the spaces, and
evaluations are played in it.
"""

from dataclasses import dataclass

import rl_lab as rl
from rl_lab.engine.compile import call_times
from rl_lab.experiment import Agent
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.datasets import Dataset, find_dataset
from rl_lab.experiment.faults import Fault
from rl_lab.nn.networks import ACTIVATIONS, check_network, make_network
from rl_lab.rollout import ActionHead, Moment, ReplayBuffer, RunningMoments
from rl_lab.rollout.policies import Insight, outputs_of

UPDATES = 10
"""Updates in one call of `BC.step`."""


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


class BC(Agent):
    """A policy that imitates the actions of a dataset. ``timesteps`` counts the transitions that it has learned from."""

    Config = BCConfig
    learned = ("policy", "moments")
    saved = ("optimizer", "stream", "action_stream", "fingerprint")

    def build(self) -> None:
        """The policy and its optimiser. The dataset is read when training begins: an agent that acts does not need it."""
        c = self.config
        network_stream, self.stream, self.action_stream = rl.Generator(self.seed).spawn(3)
        head = ActionHead(self.space, c.log_std)
        network = make_network(self.observed, c.network, head.outputs, c.activation, generator=network_stream)
        self.policy = rl.nn.ModuleDict({"network": network, "head": head})
        self.optimizer = rl.optim.Adam(self.policy.parameters(), lr=c.learning_rate)
        normalizes = c.normalize_observations and self.observed.is_float
        self.moments = RunningMoments(self.shape) if normalizes else None
        self.data: ReplayBuffer | None = None
        self.fingerprint = ""
        """Digest of the dataset, by which a resumed run knows it again."""
        self._update = self.record(self.update)

    def remarks(self) -> list[str]:
        """A line on the dataset. Raises Fault if there is none."""
        return [f"dataset: {self.read_data()}"]

    def read_data(self) -> Dataset:
        """Read the dataset. Raises Fault if there is none, if it does not fit the environment, or if it has changed."""
        found = find_dataset(self.config.dataset, self.envs)
        if self.fingerprint not in ("", found.fingerprint()):
            raise Fault(f"the dataset {self.config.dataset} is not the one that training began with")
        self.fingerprint = found.fingerprint()
        transitions = found.transitions()
        self.data = ReplayBuffer(
            len(transitions.rewards),
            self.shape,
            self.mapping.shape,
            self.mapping.dtype,
            self.stream,
            observation_dtype=self.observation_dtype,
        )
        self.data.add(transitions)
        if self.moments is not None and float(self.moments.count) < 1:
            self.moments.update(rl.from_numpy(transitions.observations.astype("float32")))
        return found

    # --- acting ------------------------------------------------------------------------------------------------------

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Observations (batch, ...) as the network sees them."""
        return observations if self.moments is None else self.moments.normalize(observations)

    def distribution(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None):
        """The policy's distribution of actions for observations (batch, ...)."""
        return self.policy["head"].distribution(self.policy["network"](self.normal(observations)), action_mask)

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The most probable actions for observations (batch, ...)."""
        return self.distribution(observations, action_mask).mode

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy."""
        return {"actions": self.distribution(moment.observations, moment.action_mask).sample(generator=self.action_stream)}

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The log-probabilities of options and the most probable components."""
        return Insight(outputs_of(self.distribution(observations, action_mask)))

    # --- learning ----------------------------------------------------------------------------------------------------

    def update(self) -> list[rl.Tensor]:
        """Take one gradient step on -log pi(a|s); returns the loss, the entropy and the norm of the gradient."""
        c = self.config
        assert self.data is not None
        batch = self.data.sample(c.batch_size)
        distribution = self.distribution(batch.observations)
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
