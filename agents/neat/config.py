"""The parameters of evolution, named as in the paper. Defaults are the paper's (section 4.1) unless the help text says otherwise."""

from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from rl_lab.experiment.config import Between, setting
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS


def _known_activations(names: tuple[str, ...]) -> None:
    if isinstance(names, str):
        raise ValueError(f"takes a tuple of names, got the string {names!r}: write ({names!r},)")
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {name!r}: choose among {', '.join(ACTIVATIONS)}")


SELECTIONS = ("species", "nsga2")


@dataclass(frozen=True)
class NEATConfig:
    """Parameters of NeuroEvolution of Augmenting Topologies."""

    population: int = setting(150, "genomes in a generation", least=2, search=(50, 100, 150, 300))
    recurrent: bool = setting(False, "allow connections that form cycles")
    activation: str = setting("steepened_sigmoid", "activation of new hidden nodes", choices=ACTIVATIONS)
    output_activation: str = setting("steepened_sigmoid", "activation of output nodes", choices=ACTIVATIONS)
    activation_options: tuple[str, ...] = setting((), "activations among which a mutation chooses", check=_known_activations)
    aggregation: str = setting("sum", "aggregation of the inputs of new hidden nodes", choices=AGGREGATIONS)
    initial_hidden: int = setting(0, "hidden nodes in the first generation; the paper has none", least=0)
    initially_connected: float = setting(
        1.0, "share of the possible connections that exist in the first generation", least=0, most=1
    )
    # compatibility distance, equation 1
    excess_coefficient: float = setting(1.0, "c1, weight of excess genes in the distance", least=0)
    disjoint_coefficient: float = setting(1.0, "c2, weight of disjoint genes in the distance", least=0)
    weight_coefficient: float = setting(0.4, "c3, weight of the mean weight difference of matching genes", least=0)
    compatibility_threshold: float = setting(
        3.0, "distance below which genomes belong to the same species", above=0, search=Between(1.0, 6.0)
    )
    species_target: int = setting(0, "number of species at which an adaptive threshold aims; 0: fixed threshold", least=0)
    threshold_step: float = setting(0.1, "change of an adaptive threshold per generation", least=0)
    normalize_from: int = setting(
        20, "connection genes of the larger genome from which excess and disjoint genes are divided by their number", least=1
    )
    # reproduction
    selection: str = setting(
        "species", "selection of parents: shared fitness within species, or NSGA-II on fitness and size", choices=SELECTIONS
    )
    survival_threshold: float = setting(
        0.2, "share of each species, fittest first, that may be parents", above=0, most=1, search=Between(0.1, 0.5)
    )
    elitism_from: int = setting(5, "size above which a species' champion is copied unchanged", least=0)
    stagnation: int = setting(15, "generations without improvement after which a species has no offspring", least=1)
    population_stagnation: int = setting(
        0,
        "generations without improvement of the population after which only the two best species have offspring; "
        "0: never; the paper has 20",
        least=0,
    )
    restart: int = setting(
        0,
        "generations without improvement of the population after which evolution restarts with new genomes; 0: never",
        least=0,
    )
    mutate_only: float = setting(0.25, "share of offspring made by mutation without crossover", least=0, most=1)
    mate_only: float = setting(0.2, "share of crossovers without mutation", least=0, most=1)
    interspecies_mating: float = setting(0.001, "probability that a mate comes from another species", least=0, most=1)
    inherit_disabled: float = setting(
        0.75, "probability that a gene disabled in either parent is disabled in the child", least=0, most=1
    )
    # mutation
    mutate_weights: float = setting(
        0.9,
        "probability that a child's weights and biases are mutated; the paper has 0.8",
        least=0,
        most=1,
        search=Between(0.5, 1.0),
    )
    perturb_weight: float = setting(
        0.9, "probability that a mutated weight is perturbed; otherwise it is replaced", least=0, most=1
    )
    weight_power: float = setting(
        1.0, "largest perturbation of a weight, drawn uniformly", least=0, search=Between(0.1, 3.0, log=True)
    )
    weight_range: float = setting(4.0, "largest magnitude of a new weight, drawn uniformly", least=0)
    weight_limit: float = setting(8.0, "bound on the magnitude of all weights", above=0)
    add_node: float = setting(
        0.03, "probability of a new node per child", least=0, most=1, search=Between(0.005, 0.2, log=True)
    )
    add_connection: float = setting(
        0.1,
        "probability of a new connection per child; the paper has 0.05, and 0.3 for large populations",
        least=0,
        most=1,
        search=Between(0.02, 0.5, log=True),
    )
    toggle_enabled: float = setting(
        0.0, "probability per child that one connection is switched between enabled and disabled", least=0, most=1
    )
    delete_node: float = setting(0.0, "probability per child that one hidden node is deleted", least=0, most=1)
    delete_connection: float = setting(0.0, "probability per child that one connection is deleted", least=0, most=1)
    mutate_activation: float = setting(
        0.0, "probability per child that one hidden node gets another activation", least=0, most=1
    )


class Rates(NamedTuple):
    """The parameters that the kernels read, as numbers."""

    recurrent: bool
    activation: int
    aggregation: int
    excess: float
    disjoint: float
    weight: float
    normalize_from: int
    mutate_only: float
    mate_only: float
    interspecies_mating: float
    inherit_disabled: float
    mutate_weights: float
    perturb_weight: float
    weight_power: float
    weight_range: float
    weight_limit: float
    add_node: float
    add_connection: float
    toggle_enabled: float
    delete_node: float
    delete_connection: float
    mutate_activation: float


def rates_of(config: NEATConfig) -> Rates:
    """The kernels' parameters, each converted to its declared type: another type would compile the kernels again."""
    own: dict[str, Any] = {
        "activation": ACTIVATIONS.index(config.activation),
        "aggregation": AGGREGATIONS.index(config.aggregation),
        "excess": config.excess_coefficient,
        "disjoint": config.disjoint_coefficient,
        "weight": config.weight_coefficient,
    }
    types = get_type_hints(Rates)
    return Rates(**{name: types[name](own[name] if name in own else getattr(config, name)) for name in Rates._fields})
