"""Evolution strategies (Salimans et al. 2017, "Evolution strategies as a scalable alternative to reinforcement learning").

A search distribution of fixed width around one policy, with mirrored samples (Brockhoff et al. 2010), ranks instead of returns (Wierstra et
al. 2014), and Adam on the estimated gradient.
"""

from dataclasses import dataclass

import numpy as np

import rl_lab as rl
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.parameter_search import ParameterSearch
from rl_lab.experiment.players import EVALUATIONS
from rl_lab.nn.networks import ACTIVATIONS, check_network
from rl_lab.rollout.vectors import parameters_of, set_gradients


@dataclass(frozen=True)
class ESConfig:
    """Hyperparameters of evolution strategies."""

    total_timesteps: int = setting(1_000_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:16",
        "layers of the policy: mlp: and hidden sizes, cnn: channels : hidden sizes, or a run of NEAT",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    learning_rate: float = setting(0.05, "Adam's step size", above=0, search=Between(1e-3, 0.3, log=True))
    learning_rate_final: float = setting(
        1.0, "final step size as a share of the initial one, reached linearly", least=0, most=1
    )
    pairs: int = setting(32, "mirrored pairs of policies per update", least=1, search=(8, 16, 32, 64, 128))
    noise: float = setting(
        0.1, "sigma, standard deviation of the search distribution", above=0, search=Between(0.01, 1.0, log=True)
    )
    weight_decay: float = setting(0.0, "coefficient of the squared parameters in the objective; the paper has 0.005", least=0)
    episodes: int = setting(1, "episodes per policy; their mean return is its value", least=1)
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    evaluation: str = setting(
        "local",
        "where episodes are played in environments that are not native; ray: as tasks on the Ray cluster of RAY_ADDRESS",
        choices=EVALUATIONS,
    )


class ES(ParameterSearch):
    """Gradient ascent on the mean return of a search distribution over parameters; each step takes one update."""

    Config = ESConfig
    saved = ("optimizer", *ParameterSearch.saved)

    def build(self) -> None:
        """The policy and its optimiser."""
        super().build()
        self.optimizer = rl.optim.Adam(self.network.parameters(), lr=self.config.learning_rate)

    # --- one step of training ----------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Play episodes with mirrored samples of the search distribution, then take one step of Adam."""
        c = self.config
        self.require_finite()
        centre = parameters_of(self.network)
        samples = self.noise.standard_normal((c.pairs, len(centre)), np.float32)
        policies = np.concatenate([centre + c.noise * samples, centre - c.noise * samples])
        played = self.play(policies)
        gradient = self.compute_gradient(samples, played.returns.reshape(len(policies), c.episodes).mean(1))
        set_gradients(self.network, c.weight_decay * centre - gradient)  # Adam descends
        progress = min(1.0, self.timesteps / c.total_timesteps)
        self.optimizer.param_groups[0]["lr"] = c.learning_rate * (1.0 + progress * (c.learning_rate_final - 1.0))
        self.optimizer.step()
        return {
            "charts/episodic_return": float(played.returns.mean()),
            "charts/episodic_length": float(played.lengths.mean()),
            "losses/return_std": float(played.returns.std()),
            "losses/grad_norm": float(np.linalg.norm(gradient)),
        }

    def compute_gradient(self, samples: np.ndarray, values: np.ndarray) -> np.ndarray:
        """1 / (2 n sigma) * sum of (u+ - u-) epsilon, where u are the ranks of the values, scaled to [-1/2, 1/2].

        ``samples`` is (n, size); ``values`` (2 n,) has the values of the samples, then those of their mirror images.
        """
        c = self.config
        utilities = centred_ranks(values).reshape(2, c.pairs)
        return ((utilities[0] - utilities[1]) @ samples / (2 * c.pairs * c.noise)).astype(np.float32)


def centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of ``values`` (n,), scaled to [-1/2, 1/2]; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - 1 - (counts - 1) / 2)[place]
    return ranks / max(1, len(values) - 1) - 0.5
