"""Base of agents that learn from a dataset. The environment gives the spaces, and evaluations are played in it."""

from typing import Any, ClassVar

import rl_lab as rl
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.datasets import Dataset, find_dataset
from rl_lab.experiment.faults import Fault
from rl_lab.nn.networks import evolved_path, make_network
from rl_lab.rollout import ActionHead, Moment, ReplayBuffer, RunningMoments

UPDATES = 10
"""Updates in one step of training."""


class OfflineAgent(Agent):
    """A policy that is learned from a dataset. ``timesteps`` counts the transitions that it has learned from.

    A subclass calls `build` first; its settings have ``dataset``, ``network``, ``activation``, ``log_std`` and ``normalize_observations``.
    """

    config: Any
    saved: ClassVar[tuple[str, ...]] = ("stream", "action_stream", "fingerprint")
    gamma = 0.99
    """Discount factor of the batches of ``data``."""

    def build(self) -> None:
        """The policy. The dataset is read when training begins: an agent that acts does not need it."""
        c = self.config
        self.network_stream, self.stream, self.action_stream = rl.Generator(self.seed).spawn(3)
        head = ActionHead(self.space, c.log_std)
        network = make_network(self.observed, c.network, head.outputs, c.activation, generator=self.network_stream)
        self.policy = rl.nn.ModuleDict({"network": network, "head": head})
        # an evolved network gets the observations as they are, as in its evolution
        normalizes = c.normalize_observations and self.observed.is_float and evolved_path(c.network) is None
        self.moments = RunningMoments(self.shape) if normalizes else None
        self.data: ReplayBuffer | None = None
        self.fingerprint = ""
        """Digest of the dataset, by which a resumed run knows it again."""

    def remarks(self) -> list[str]:
        """Read the dataset and return one line that describes it. Raises Fault as `read_data` does."""
        return [f"dataset: {self.read_data()}"]

    def read_data(self) -> Dataset:
        """Read the dataset. Raises Fault if there is none, if it does not fit the environment, or if it has changed."""
        name = self.config.dataset
        found = find_dataset(name, self.envs)
        if self.fingerprint not in ("", found.fingerprint()):
            raise Fault(f"the dataset {name} has changed since training began: restore it, or start a new run")
        self.fingerprint = found.fingerprint()
        transitions = found.transitions()
        self.data = ReplayBuffer(
            len(transitions.rewards),
            self.shape,
            self.mapping.shape,
            self.mapping.dtype,
            self.stream,
            gamma=self.gamma,
            observation_dtype=self.observation_dtype,
        )
        self.data.add(transitions)
        if self.moments is not None and float(self.moments.count) < 1:
            self.moments.set(transitions.observations)
        return found

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Observations (batch, ...) as the networks see them."""
        return observations if self.moments is None else self.moments.normalize(observations)

    def distribution(self, x: rl.Tensor, action_mask: rl.Tensor | None = None) -> Any:
        """The policy's distribution of actions for normalized observations (batch, ...)."""
        return self.policy["head"].distribution(self.policy["network"](x), action_mask)

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The most probable actions for observations (batch, ...)."""
        return self.distribution(self.normal(observations), action_mask).mode

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """Actions drawn from the policy."""
        drawn = self.distribution(self.normal(moment.observations), moment.action_mask)
        return {"actions": drawn.sample(generator=self.action_stream)}
