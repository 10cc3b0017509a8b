"""Augmented random search (Mania, Guy and Recht 2018, "Simple random search provides a competitive approach to reinforcement learning").

The policy is linear by default. ``normalize_observations`` chooses between the paper's V1 (false) and V2 (true), and ``top_directions``
between the plain and the t version of the algorithm (its algorithm 2).
"""

from dataclasses import dataclass

import numpy as np

from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.parameter_search import ParameterSearch
from rl_lab.experiment.players import EVALUATIONS
from rl_lab.nn.networks import ACTIVATIONS, check_network, hidden_sizes
from rl_lab.rollout.vectors import parameters_of, set_parameters


@dataclass(frozen=True)
class ARSConfig:
    """Hyperparameters of ARS."""

    total_timesteps: int = setting(500_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:",
        "layers of the policy: mlp: alone is linear, mlp: and hidden sizes, cnn: channels : hidden sizes, or a run of NEAT",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    step_size: float = setting(0.02, "alpha, size of an update", above=0, search=Between(2e-3, 0.5, log=True))
    directions: int = setting(
        8, "N, random directions per update; each is tried forwards and backwards", least=1, search=(4, 8, 16, 32)
    )
    top_directions: int = setting(0, "b, best directions that count in an update; 0: all", least=0)
    noise: float = setting(
        0.03, "nu, standard deviation of a step in a random direction", above=0, search=Between(5e-3, 0.5, log=True)
    )
    episodes: int = setting(1, "episodes per tried policy; their mean return is its value", least=1)
    reward_offset: float = setting(
        0.0, "subtracted from the reward of each step in updates, such as a bonus for staying alive", least=-1e6, most=1e6
    )
    normalize_observations: bool = setting(
        True, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    evaluation: str = setting(
        "local",
        "where episodes are played in environments that are not native; ray: as tasks on the Ray cluster of RAY_ADDRESS",
        choices=EVALUATIONS,
    )


class ARS(ParameterSearch):
    """Random search in the space of a policy's parameters: each step plays whole episodes and takes one update."""

    Config = ARSConfig

    def build(self) -> None:
        """Make the policy. A linear policy starts with all parameters 0."""
        c = self.config
        if c.top_directions > c.directions:
            raise Fault(f"--top-directions must be at most --directions ({c.directions}), got {c.top_directions}")
        super().build()
        if c.network.startswith("mlp") and not hidden_sizes(c.network):
            set_parameters(self.network, np.zeros_like(parameters_of(self.network)))  # as in the paper

    # --- one step of training ----------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Try random directions forwards and backwards in the same episodes, then move along the best of them."""
        c = self.config
        self.require_finite()
        centre = parameters_of(self.network)
        directions = self.noise.standard_normal((c.directions, len(centre)), np.float32)
        tried = np.concatenate([centre + c.noise * directions, centre - c.noise * directions])
        played = self.play(tried)
        values = (played.returns - c.reward_offset * played.lengths).reshape(2, c.directions, c.episodes).mean(2)
        set_parameters(self.network, centre + self.compute_update(directions, values))
        return {
            "charts/episodic_return": float(played.returns.mean()),
            "charts/episodic_length": float(played.lengths.mean()),
            "losses/return_std": float(values.std()),
            "losses/update_norm": float(np.linalg.norm(parameters_of(self.network) - centre)),
        }

    def compute_update(self, directions: np.ndarray, values: np.ndarray) -> np.ndarray:
        """alpha / (b sigma_R) * sum of (r+ - r-) delta over the b best directions.

        ``directions`` is (N, size), ``values`` (2, N) has the returns r+ and r-. If all returns of the chosen directions are
        equal, the update is 0.
        """
        c = self.config
        best = np.argsort(-values.max(0), kind="stable")[: c.top_directions or c.directions]
        deviation = values[:, best].std()
        if deviation == 0.0:
            return np.zeros(directions.shape[1], np.float32)
        weights = (values[0, best] - values[1, best]) * (c.step_size / (len(best) * deviation))
        return (weights @ directions[best]).astype(np.float32)
