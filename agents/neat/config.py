"""The parameters of evolution, with the paper's words and, where nothing else is said, its values (section 4.1)."""

from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from rl_lab.experiment.config import setting
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS


def _known_activations(names: tuple[str, ...]) -> None:
    if isinstance(names, str):
        raise ValueError(f"a tuple of names, not the word {names!r}")
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {name!r}: choose among {', '.join(ACTIVATIONS)}")


SELECTIONS = ("species", "nsga2")


@dataclass(frozen=True)
class NEATConfig:
    """Parameters of NeuroEvolution of Augmenting Topologies."""

    population: int = setting(150, "genomes in a generation", least=2)
    recurrent: bool = setting(False, "allow connections that form cycles")
    activation: str = setting("steepened_sigmoid", "of new hidden nodes", choices=ACTIVATIONS)
    output_activation: str = setting("steepened_sigmoid", "of output nodes", choices=ACTIVATIONS)
    activation_options: tuple[str, ...] = setting((), "what activation mutation chooses among", check=_known_activations)
    aggregation: str = setting("sum", "of new hidden nodes", choices=AGGREGATIONS)
    initial_hidden: int = setting(
        0, "hidden nodes at the start, between the inputs and the outputs; the paper has none", least=0
    )
    initially_connected: float = setting(1.0, "share of the connections that there are at the start", least=0, most=1)
    # compatibility distance, equation 1
    excess_coefficient: float = setting(1.0, "c1, weight of excess genes in the distance", least=0)
    disjoint_coefficient: float = setting(1.0, "c2, weight of disjoint genes in the distance", least=0)
    weight_coefficient: float = setting(0.4, "c3, weight of the mean weight difference of matching genes", least=0)
    compatibility_threshold: float = setting(3.0, "distance below which genomes are of one species", above=0)
    species_target: int = setting(0, "species to aim at by moving the threshold; 0 leaves it", least=0)
    threshold_step: float = setting(0.1, "how far the threshold moves in a generation", least=0)
    normalize_from: int = setting(
        20, "genomes with fewer connection genes are compared without dividing by their number", least=1
    )
    # reproduction
    selection: str = setting(
        "species", "who has offspring: by shared fitness in species, or by fitness and smallness (NSGA-II)", choices=SELECTIONS
    )
    survival_threshold: float = setting(0.2, "best share of a species that has offspring", above=0, most=1)
    elitism_from: int = setting(5, "champions of species with more genomes than this are copied unchanged", least=0)
    stagnation: int = setting(15, "generations without improvement after which a species has no offspring", least=1)
    population_stagnation: int = setting(
        0, "such generations of the whole after which only the two best species have; 0 for never, the paper has 20", least=0
    )
    restart: int = setting(
        0,
        "generations without improvement of the whole after which evolution begins anew, with other genomes; 0 for never",
        least=0,
    )
    mutate_only: float = setting(0.25, "share of offspring without crossover", least=0, most=1)
    mate_only: float = setting(0.2, "share of crossovers without mutation", least=0, most=1)
    interspecies_mating: float = setting(0.001, "chance that a mate comes from another species", least=0, most=1)
    inherit_disabled: float = setting(0.75, "chance that a gene disabled in either parent stays disabled", least=0, most=1)
    # mutation
    mutate_weights: float = setting(0.9, "chance that a genome's weights are mutated; the paper's is 0.8", least=0, most=1)
    perturb_weight: float = setting(0.9, "chance that a weight is then perturbed, otherwise replaced", least=0, most=1)
    weight_power: float = setting(1.0, "largest perturbation, uniform", least=0)
    weight_range: float = setting(4.0, "new weights are uniform within this of 0", least=0)
    weight_limit: float = setting(8.0, "weights stay within this of 0", above=0)
    add_node: float = setting(0.03, "chance of a new node", least=0, most=1)
    add_connection: float = setting(
        0.1, "chance of a new connection; the paper has 0.05, and 0.3 for large populations", least=0, most=1
    )
    toggle_enabled: float = setting(0.0, "chance that a gene is enabled or disabled", least=0, most=1)
    delete_node: float = setting(0.0, "chance that a hidden node is deleted", least=0, most=1)
    delete_connection: float = setting(0.0, "chance that a connection is deleted", least=0, most=1)
    mutate_activation: float = setting(0.0, "chance that a hidden node's activation is drawn anew", least=0, most=1)


class Rates(NamedTuple):
    """What kernels read of the parameters."""

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
    """Each value as the kind that is declared: machine code is compiled for kinds."""
    own: dict[str, Any] = {
        "activation": ACTIVATIONS.index(config.activation),
        "aggregation": AGGREGATIONS.index(config.aggregation),
        "excess": config.excess_coefficient,
        "disjoint": config.disjoint_coefficient,
        "weight": config.weight_coefficient,
    }
    kinds = get_type_hints(Rates)
    return Rates(**{name: kinds[name](own[name] if name in own else getattr(config, name)) for name in Rates._fields})
