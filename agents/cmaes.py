"""CMA-ES (Hansen and Ostermeier 2001, "Completely derandomized self-adaptation in evolution strategies"), by the library ``cma``.

The parameters of a policy are the point that is searched for. The library adapts the mean, the step size and the covariance of the search
distribution; this file plays the episodes that rank its samples. ``pip install cma`` installs the library.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_lab.engine.errors import ShapeError
from rl_lab.experiment.config import Between, setting
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.parameter_search import ParameterSearch
from rl_lab.experiment.players import EVALUATIONS
from rl_lab.nn.networks import ACTIVATIONS, check_network
from rl_lab.rollout.vectors import parameters_of, set_parameters

COVARIANCES = ("full", "diagonal")
DIRECTIONS = "strategy.pop_injection_directions"
"""The directions that the next generation tries besides its samples: in small populations, and for 300 parameters and more."""


@dataclass(frozen=True)
class CMAESConfig:
    """Hyperparameters of CMA-ES."""

    total_timesteps: int = setting(500_000, "environment steps to train for", least=1)
    network: str = setting(
        "mlp:8",
        "layers of the policy: mlp: and hidden sizes, cnn: channels : hidden sizes, or a run of NEAT",
        check=check_network,
        shapes=True,
    )
    activation: str = setting("tanh", "activation between the layers", choices=tuple(ACTIVATIONS), shapes=True)
    population: int = setting(
        0,
        "lambda, policies per generation; 0: 4 + 3 ln n for n parameters, but at least 4",
        least=0,
        most=100_000,
        search=(8, 16, 32, 64),
    )
    step_size: float = setting(
        0.5, "sigma, initial standard deviation of the search distribution", above=0, search=Between(0.05, 2.0, log=True)
    )
    covariance: str = setting(
        "full", "covariance matrix that is adapted; diagonal for networks of thousands of parameters", choices=COVARIANCES
    )
    episodes: int = setting(1, "episodes per policy; their mean return is its value", least=1, search=(1, 2, 4, 8))
    normalize_observations: bool = setting(
        False, "normalize observations by their running mean and standard deviation; not bytes, which are scaled", shapes=True
    )
    evaluation: str = setting(
        "local",
        "where episodes are played in environments that are not native; ray: as tasks on the Ray cluster of RAY_ADDRESS",
        choices=EVALUATIONS,
    )


class CMAES(ParameterSearch):
    """Adapts a normal distribution over a policy's parameters; each step plays one generation. The policy has the mean's parameters."""

    Config = CMAESConfig
    saved = ("search", *ParameterSearch.saved)

    def build(self) -> None:
        """The policy and the search distribution."""
        c = self.config
        if 0 < c.population < 4:
            raise Fault(f"--population must be 0 (chosen by the library) or at least 4, got {c.population}")
        super().build()
        self.search = self.make_search()

    def make_search(self) -> "Search":
        """A search distribution around the parameters of the network."""
        c = self.config
        return Search(parameters_of(self.network), c.step_size, c.population, c.covariance == "diagonal", self.noise)

    def load_learned(self, state: dict[str, Any]) -> None:
        """Take the policy of another run and search around it."""
        super().load_learned(state)
        self.search = self.make_search()

    # --- one step of training ----------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Play one generation in the same episodes, and adapt the search distribution to the ranks of its returns."""
        c = self.config
        self.require_finite()
        points = self.search.ask()
        played = self.play(np.array(points))
        self.search.tell(points, played.returns.reshape(len(points), c.episodes).mean(1))
        set_parameters(self.network, self.search.mean)
        return {
            "charts/episodic_return": float(played.returns.mean()),
            "charts/episodic_length": float(played.lengths.mean()),
            "losses/return_std": float(played.returns.std()),
            "losses/step_size": self.search.step_size,
        }


class Search:
    """``cma.CMAEvolutionStrategy``, which maximizes here, with its random numbers from ``stream`` and a state of arrays and numbers."""

    PARTS = ("sm", "adapt_sigma", "sigma_vec")
    """The objects of the library, besides the strategy itself, whose numbers change in a generation: the sampler and so on."""
    OWN = ("mean", "mean_old", "sigma", "pc", "countiter", "countevals", "_isotropic_mean_shift_iteration")
    """The numbers of the strategy itself that a generation changes and the next one reads."""

    def __init__(self, centre: np.ndarray, step_size: float, population: int, diagonal: bool, stream: np.random.Generator):
        cma, threadpoolctl = import_libraries()
        size = population or max(4, 4 + int(3 * np.log(len(centre))))
        options = {
            "randn": lambda *shape: stream.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
            "popsize": size,
            "CMA_diagonal": diagonal,
        }
        self._threads = threadpoolctl.ThreadpoolController()
        self._strategy: Any = cma.CMAEvolutionStrategy(centre.astype(np.float64), step_size, options)
        self._strategy.mean_old = self._strategy.mean
        if not hasattr(self._strategy.adapt_sigma, "cs"):  # otherwise the first generation would add numbers to those below
            self._strategy.adapt_sigma.initialize_base(self._strategy)
        self._names: dict[str, tuple[str, ...]] = {"strategy": self.OWN}
        for part in self.PARTS:
            found = vars(getattr(self._strategy, part)).items()
            self._names[part] = tuple(
                [name for name, value in found if isinstance(value, (int, float, np.ndarray)) and np.isfinite(value).all()]
            )

    @property
    def mean(self) -> np.ndarray:
        """The mean of the distribution, float64 (size,)."""
        return self._strategy.mean

    @property
    def step_size(self) -> float:
        """sigma, the scale of the distribution."""
        return float(self._strategy.sigma)

    @property
    def is_stuck(self) -> bool:
        """Whether one of the library's criteria says that the search will not improve any more."""
        return bool(self._strategy.stop())

    def ask(self) -> list[np.ndarray]:
        """The points of a generation, float64 (size,) each."""
        with self._one_thread():
            return self._strategy.ask()

    def tell(self, points: list[np.ndarray], values: np.ndarray) -> None:
        """Adapt the distribution to the values of the points that `ask` returned; higher is better."""
        with self._one_thread():
            self._strategy.tell(points, (-values).tolist())
        # row-major, as in a loaded state: memory order determines the order of summation and hence the rounding
        for owner, _, name in self._numbers():
            if isinstance(value := getattr(owner, name), np.ndarray):
                setattr(owner, name, np.array(value, order="C"))
        self._strategy._updateBDfromSM(self._strategy.sm)  # the strategy's own names for the sampler's arrays

    def _one_thread(self) -> AbstractContextManager:
        """Factorize the covariance on one thread: more threads need longer for such matrices, and may round differently."""
        return self._threads.limit(limits=1)

    def _numbers(self) -> Iterator[tuple[Any, str, str]]:
        """The attributes that a continuation needs: their owner, the name of the owner, and their own name."""
        for part, names in self._names.items():
            owner = getattr(self._strategy, part) if part in self.PARTS else self._strategy
            yield from ((owner, part, name) for name in names)

    def state_dict(self) -> dict[str, Any]:
        """What a bitwise identical continuation needs."""
        numbers = {f"{part}.{name}": np.array(getattr(owner, name)) for owner, part, name in self._numbers()}
        return {**numbers, DIRECTIONS: np.array(self._strategy.pop_injection_directions).reshape(-1, len(self.mean))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ShapeError if it belongs to another number of parameters, KeyError if parts are missing."""
        found = []
        for owner, part, name in self._numbers():
            value, given = getattr(owner, name), np.array(state[f"{part}.{name}"])
            # the scales of single parameters are one number before the first generation
            if given.shape not in (np.shape(value), *([(), self.mean.shape] if part == "sigma_vec" else [])):
                raise ShapeError(f"{name} of the search has shape {np.shape(value)}, the saved one {given.shape}")
            found.append((owner, name, given if given.ndim else given.item()))
        directions = np.array(state.get(DIRECTIONS, np.zeros((0, len(self.mean)))))  # older runs did not record them
        if directions.shape[1:] != self.mean.shape:
            raise ShapeError(f"directions of the search have shape {self.mean.shape}, the saved ones {directions.shape[1:]}")
        for owner, name, value in found:
            setattr(owner, name, value)
        strategy = self._strategy
        strategy.pop_injection_directions = list(directions)
        # after the two samples along the shift of the mean, if there are such, come mirrored samples, which are not mirrored again
        strategy._indices_of_selective_mirrors = range(2 if strategy.mean_shift_samples else 0, len(directions))
        strategy._updateBDfromSM(strategy.sm)
        strategy.dC = strategy.sm.variances
        strategy.timer = import_libraries()[0].utilities.utils.ElapsedWCTime()


def import_libraries() -> tuple[Any, Any]:
    """The modules ``cma`` and ``threadpoolctl``. Raises Fault if one is not installed."""
    try:
        import cma
        import threadpoolctl
    except ImportError as error:
        raise Fault(f"cmaes needs the library {error.name}: pip install cma threadpoolctl") from None
    return cma, threadpoolctl
