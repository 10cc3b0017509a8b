"""What ARS, evolution strategies and CMA-ES share: a deterministic policy, whose parameters are searched for by whole episodes."""

from typing import Any, ClassVar

import numpy as np

import rl_lab as rl
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.players import Players
from rl_lab.nn.networks import make_network
from rl_lab.rollout import Moment, RunningMoments
from rl_lab.rollout.policies import Insight, masked
from rl_lab.rollout.population import Played
from rl_lab.rollout.vectors import VectorMaker, best_actions, update_moments

SEED_RANGE = 2**31


class ParameterSearch(Agent):
    """Base of agents that try parameters of a policy; a subclass has the settings named in `build`, and `step`."""

    config: Any
    learned: ClassVar[tuple[str, ...]] = ("network", "moments")
    saved: ClassVar[tuple[str, ...]] = ("noise", "seeds")

    def build(self) -> None:
        """The policy, the player of episodes, and the random streams.

        Settings: ``network``, ``activation``, ``episodes`` (per tried policy), ``normalize_observations`` and ``evaluation``.
        """
        c = self.config
        network_stream = rl.Generator(self.seed).spawn(1)[0]
        noise_seed, episode_seed = np.random.SeedSequence(self.seed).spawn(2)
        self.noise = np.random.default_rng(noise_seed)
        self.seeds = np.random.default_rng(episode_seed)
        self.players = Players(self.envs, self.setup, "identity", c.evaluation)
        outputs = self.players.actions.outputs
        self.network = make_network(self.observed, c.network, outputs, c.activation, generator=network_stream)
        normalizes = c.normalize_observations and self.observed.is_float
        self.moments = RunningMoments(self.shape) if normalizes else None
        self.make_networks = VectorMaker(self.network, int(np.prod(self.shape)), outputs, self.moments)

    def normal(self, observations: rl.Tensor) -> rl.Tensor:
        """Observations (batch, ...) as the network sees them."""
        return observations if self.moments is None else self.moments.normalize(observations)

    @rl.no_grad()
    def greedy(self, observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
        """The policy's actions for observations (batch, ...)."""
        return best_actions(self.mapping, self.network(self.normal(observations)), action_mask)

    def sample(self, moment: Moment) -> dict[str, rl.Tensor]:
        """The same actions: the search explores by other parameters, not by other actions."""
        return {"actions": self.greedy(moment.observations, moment.action_mask)}

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The outputs of the network; the largest of a choice's options is taken."""
        outputs = self.network(self.normal(observations))
        options = self.mapping.num_masked
        return Insight(rl.cat([masked(outputs[:, :options], action_mask), outputs[:, options:]], 1), None, "outputs")

    def play(self, policies: np.ndarray) -> Played:
        """Play the same episodes with each of the ``policies``, float (n, parameters). Their steps and observations are counted."""
        seeds = np.tile(self.seeds.integers(SEED_RANGE, size=self.config.episodes), (len(policies), 1))
        networks = self.make_networks(policies)
        played = self.players.play(networks, np.arange(len(policies)), seeds, summed=self.moments is not None)
        self.timesteps += int(played.lengths.sum())
        if self.moments is not None:
            update_moments(self.moments, played)
        return played
