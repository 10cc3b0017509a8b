"""Evolution, one generation after another: evaluate, share fitness, reproduce, speciate."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rl_lab.agents.neat import kernels
from rl_lab.agents.neat.config import NEATConfig, rates_of
from rl_lab.agents.neat.genome import (
    Genome,
    Genomes,
    as_arrays,
    copied,
    genome_at,
    genomes_from,
    is_full,
    joined,
    like,
    room_for,
    select,
    widened,
)
from rl_lab.agents.neat.innovation import NEXT_INNOVATION, NEXT_NODE, Innovations, make_innovations
from rl_lab.agents.neat.networks import Networks
from rl_lab.agents.neat.selection import crowded_order, sizes_of
from rl_lab.agents.neat.species import Species, allot_offspring, ranking_of, shared_fitness, stagnant
from rl_lab.engine.errors import NumericalError
from rl_lab.experiment.config import check_config, make_config
from rl_lab.nn import GraphNetwork
from rl_lab.nn.graph.kernels import ACTIVATIONS

Fitness = Callable[[Networks], ArrayLike]
"""Maps the networks of a population to one number per network (population,); higher is better."""


class Generation(NamedTuple):
    """Statistics of one generation."""

    number: int
    best: float
    mean: float
    species: dict[int, int]
    """Sizes of the species by number."""
    hidden: float
    """Mean number of hidden nodes."""
    connections: float
    """Mean number of enabled connections."""


def _count(name: str, value: Any) -> int:
    """``value`` as an int. Raises ValueError unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


class Evolution:
    """A population that evolves (Stanley and Miikkulainen 2002, "Evolving neural networks through augmenting topologies").

    For each generation the caller evaluates ``networks()`` and passes their fitness to ``advance(fitness)``. The result depends on the
    seed, not on the number of threads. ``history`` holds one `Generation` per generation. ``ancestry`` holds one array
    (population, 2) per generation: the parents of each genome as rows of the generation before, -1 for none. ``champion`` is the best
    genome so far, across restarts.
    """

    def __init__(self, inputs: int, outputs: int, config: NEATConfig | None = None, seed: int | np.random.SeedSequence = 0):
        if inputs < 1 or outputs < 1:
            raise ValueError(f"networks need at least one input and one output, got {inputs} and {outputs}")
        inputs, outputs = _count("inputs", inputs), _count("outputs", outputs)
        config = config or NEATConfig()
        self.config = make_config(type(config), vars(config))  # a dataclass takes values of any type
        # a string would be the text of a command line there; here it is a tuple that was forgotten
        check_config(dataclasses.replace(self.config, activation_options=config.activation_options))
        if self.config.mutate_activation and not self.config.activation_options:
            raise ValueError("mutate_activation needs activations to choose among: set activation_options")
        self.rates = rates_of(self.config)
        size = self.config.population
        self._activations = np.array([ACTIVATIONS.index(name) for name in self.config.activation_options], np.int64)
        sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self.random = sequence.generate_state(4, np.uint64).view(np.int64)
        self.generation = 0
        self.evaluations = 0
        self.species_founded = 0
        self.assigned = np.zeros(size, np.int64)
        self._founders = np.zeros(size, np.int64)
        self.champion: Genome | None = None
        self.champion_place = (0, 0)
        self.history: list[Generation] = []
        self.ancestry: list[np.ndarray] = [np.full((size, 2), -1, np.int64)]
        self._begin(inputs, outputs)

    def _begin(self, inputs: int, outputs: int) -> None:
        """Make a first generation of new genomes and forget all species and records."""
        size = self.config.population
        hidden = self.config.initial_hidden
        self.innovations: Innovations = make_innovations(size, inputs, outputs, hidden)
        self.genomes = room_for(size, outputs + hidden + 8, int(self.innovations.counters[0]) + 16, inputs, outputs)
        self.previous = like(self.genomes)
        output_activation = ACTIVATIONS.index(self.config.output_activation)
        kernels.begin(self.genomes, hidden, output_activation, self.config.initially_connected, self.rates, self.random)
        self.threshold = self.config.compatibility_threshold
        self.best_fitness = -np.inf
        self.population_improved = self.generation
        self.species: list[Species] = []
        self.kept: tuple[Genomes, np.ndarray] | None = None
        """With NSGA-II, the parents of the present generation and their fitness."""
        if self.config.selection == "nsga2":
            self.species.append(Species(0, 0, 0))
        else:
            self._speciate(np.zeros(0, np.int64))

    def networks(self) -> Networks:
        """The phenotypes of the present generation; they stay valid after it."""
        return Networks(copied(self.genomes), self.config.recurrent)

    # --- one generation ----------------------------------------------------------------------------------------------

    def advance(self, fitness: ArrayLike) -> Generation:
        """Record the fitness (population,) of the present generation and make the next one.

        Raises NumericalError if a fitness is NaN or infinite.
        """
        seen = self.record(fitness)
        self._reproduce(np.asarray(fitness, np.float64))
        return seen

    def check_fitness(self, fitness: np.ndarray) -> None:
        """Raise NumericalError, naming the genome, if a fitness (population,) is NaN or infinite."""
        if not np.isfinite(fitness).all():
            index = int(np.flatnonzero(~np.isfinite(fitness))[0])
            raise NumericalError(f"the fitness of genome {index} of generation {self.generation} is {fitness[index]}")

    def record(self, fitness: ArrayLike) -> Generation:
        """Record the fitness (population,) of the present generation without making the next one."""
        fitness = np.asarray(fitness, np.float64)
        if fitness.shape != self.assigned.shape:
            raise ValueError(
                f"fitness must have one number per genome, shape [{len(self.assigned)}], got {list(fitness.shape)}"
            )
        self.check_fitness(fitness)
        best = int(fitness.argmax())
        if fitness[best] > self.best_fitness:
            self.best_fitness = float(fitness[best])
            self.population_improved = self.generation
        if self.champion is None or fitness[best] > self.champion.fitness:
            self.champion = genome_at(self.genomes, best, float(fitness[best]))
            self.champion_place = (self.generation, best)
        sizes = np.bincount(self.assigned, minlength=len(self.species)).tolist()
        hidden, connections = kernels.complexity(self.genomes)
        self.evaluations += len(fitness)
        seen = Generation(
            self.generation,
            float(fitness[best]),
            float((fitness / len(fitness)).sum()),
            {s.number: size for s, size in zip(self.species, sizes, strict=True)},
            hidden / len(fitness),
            connections / len(fitness),
        )
        self.history.append(seen)
        return seen

    def _reproduce(self, fitness: np.ndarray) -> None:
        c = self.config
        if c.restart and self.generation - self.population_improved >= c.restart:
            self.generation += 1
            self.ancestry.append(np.full((c.population, 2), -1, np.int64))
            self._begin(int(self.genomes.inputs[0]), int(self.genomes.outputs[0]))
            return
        if c.selection == "nsga2":
            self._reproduce_from_fronts(fitness)
            return
        ranking, starts = ranking_of(self.assigned, len(self.species), fitness)
        for species, best in zip(self.species, fitness[ranking[starts[:-1]]], strict=True):
            if best > species.best_fitness:
                species.best_fitness = float(best)
                species.improved = self.generation
        sizes = np.diff(starts)
        shares = shared_fitness(fitness, ranking, starts)
        barred = stagnant(self.species, self.generation, c.stagnation, self.population_improved, c.population_stagnation)
        offspring = np.zeros(len(sizes), np.int64)
        offspring[~barred] = allot_offspring(shares[~barred], c.population)
        survivors = np.maximum(1, np.ceil(c.survival_threshold * sizes)).astype(np.int64)
        elites = (sizes > c.elitism_from).astype(np.int64)
        self._breed(fitness, ranking, starts, survivors, offspring, elites)
        # the representative of a species is a random member from the generation before
        self._speciate(ranking[starts[:-1] + kernels.draw(sizes, self.random)])

    def _reproduce_from_fronts(self, fitness: np.ndarray) -> None:
        """Breed one generation by NSGA-II, with fitness and small size as objectives, from the best of parents and children.

        There are no species. The ancestry has -1 for a parent that is older than the last generation.
        """
        size = self.config.population
        everyone = self.genomes
        values = fitness
        rows = np.arange(size)
        if self.kept is not None:
            everyone = joined(self.genomes, self.kept[0])
            values = np.concatenate([fitness, self.kept[1]])
            rows = np.concatenate([rows, np.full(size, -1)])
        order = crowded_order(np.stack([values, -sizes_of(everyone)], 1).astype(np.float64))[:size]
        self.genomes = select(everyone, order)
        self.kept = (self.genomes, values[order])
        self.previous = like(self.genomes)
        # binary tournaments fill the mating pool: the genome earlier in the order wins
        pool = kernels.draw(np.full(2 * size, size), self.random).reshape(size, 2).min(1)
        whole = np.array([size])
        self._breed(-np.arange(size, dtype=np.float64), pool, np.array([0, size]), whole, whole, np.array([0]))
        self.ancestry[-1] = np.where(self.ancestry[-1] >= 0, rows[order][self.ancestry[-1]], -1)

    def _breed(
        self,
        fitness: np.ndarray,
        ranking: np.ndarray,
        starts: np.ndarray,
        survivors: np.ndarray,
        offspring: np.ndarray,
        elites: np.ndarray,
    ) -> None:
        """Replace the present generation by its children; the arguments are those of `kernels.reproduce`."""
        if is_full(self.genomes):
            self.genomes = widened(self.genomes)
            self.previous = like(self.genomes)
        ancestry = np.full((self.config.population, 2), -1, np.int64)
        kernels.reproduce(
            self.genomes,
            self.previous,
            fitness,
            ranking,
            starts,
            survivors,
            offspring,
            elites,
            self.rates,
            self._activations,
            self.innovations,
            self.random,
            ancestry,
        )
        self.ancestry.append(ancestry)
        self.genomes, self.previous = self.previous, self.genomes
        self.generation += 1

    def _speciate(self, representatives: np.ndarray) -> None:
        """Sort the present generation into species and remove empty species.

        ``representatives`` are rows of the generation before, one per species.
        """
        count = kernels.speciate(
            self.genomes, self.previous, representatives, self.threshold, self.rates, self.assigned, self._founders
        )
        for _ in range(len(self.species), count):
            self.species.append(Species(self.species_founded, self.generation, self.generation))
            self.species_founded += 1
        sizes = np.bincount(self.assigned, minlength=count)
        self.species = [s for s, size in zip(self.species, sizes, strict=True) if size]
        self.assigned[:] = (np.cumsum(sizes > 0) - 1)[self.assigned]
        if self.config.species_target:
            step = self.config.threshold_step * np.sign(len(self.species) - self.config.species_target)
            self.threshold = max(self.config.threshold_step, self.threshold + float(step))

    # --- state -------------------------------------------------------------------------------------------------------

    def first_not_finite(self) -> str:
        """The first gene of the population that is not finite, such as "the weight of a gene of genome 3"; empty if all are."""
        for name in ("weight", "bias"):
            strange = np.flatnonzero(~np.isfinite(getattr(self.genomes, name)).all(1))
            if len(strange):
                return f"the {name} of a gene of genome {strange[0]}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The whole state as arrays and plain values; an evolution that loads it continues with the same results."""
        champion = None
        if self.champion is not None:
            champion = {
                "fitness": self.champion.fitness,
                "genes": as_arrays(self.champion.genes),
                "place": list(self.champion_place),
            }
        return {
            "genomes": as_arrays(self.genomes),
            "random": self.random.copy(),
            "counters": self.innovations.counters.copy(),
            "assigned": self.assigned.copy(),
            "species": [dataclasses.asdict(s) for s in self.species],
            "species_founded": self.species_founded,
            "threshold": self.threshold,
            "generation": self.generation,
            "evaluations": self.evaluations,
            "best_fitness": self.best_fitness,
            "population_improved": self.population_improved,
            "champion": champion,
            "kept": None if self.kept is None else {"genes": as_arrays(self.kept[0]), "fitness": self.kept[1].copy()},
            "history": [seen._asdict() for seen in self.history],
            "ancestry": np.stack(self.ancestry),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises ValueError if its population has another size, or if its parts do not fit together.
        """
        inputs, outputs = int(self.genomes.inputs[0]), int(self.genomes.outputs[0])
        genomes = genomes_from(state["genomes"], inputs, outputs)
        if len(genomes.nodes) != self.config.population:
            raise ValueError(
                f"the saved population has {len(genomes.nodes)} genomes, the config {self.config.population}: "
                f"set population={len(genomes.nodes)}"
            )
        species = [Species(**s) for s in state["species"]]
        assigned, counters = np.asarray(state["assigned"]), np.asarray(state["counters"])
        if assigned.shape != self.assigned.shape or set(assigned.tolist()) != set(range(len(species))):
            raise ValueError("the saved genomes and species do not fit: a genome has no species, or a species has no genome")
        if counters.shape != (4,) or counters[NEXT_NODE] <= genomes.node.max() or counters[NEXT_INNOVATION] < 0:
            raise ValueError("the saved counters are too low: the next node or innovation would get a number already in use")
        self.genomes = genomes
        self.previous = like(genomes)
        self.random[:] = state["random"]
        self.innovations.counters[:] = counters
        self.assigned[:] = assigned
        self.species = species
        for name in ("species_founded", "threshold", "generation", "evaluations", "best_fitness", "population_improved"):
            setattr(self, name, state[name])
        self.champion = None
        if state["champion"] is not None:
            genes = genomes_from(state["champion"]["genes"], inputs, outputs)
            self.champion = Genome(genes, float(state["champion"]["fitness"]))
            self.champion_place = tuple(state["champion"]["place"])
        self.kept = None
        if state["kept"] is not None:
            fitness = np.array(state["kept"]["fitness"], np.float64)
            self.kept = (genomes_from(state["kept"]["genes"], inputs, outputs), fitness)
            if fitness.shape != self.assigned.shape or len(self.kept[0].nodes) != len(fitness):
                raise ValueError(
                    "the saved state is damaged: it does not keep one genome with its fitness for each genome of a generation"
                )
        self.history = [
            Generation(**{**seen, "species": {int(k): v for k, v in seen["species"].items()}}) for seen in state["history"]
        ]
        self.ancestry = list(np.array(state["ancestry"]))


class Result(NamedTuple):
    """The outcome of `evolve`."""

    champion: Genome
    """The genome that solved the task, or the best one of all generations."""
    solved: bool
    generations: int
    evaluations: int
    evolution: Evolution

    def network(self) -> GraphNetwork:
        """The champion as an `nn.GraphNetwork`."""
        return self.champion.network(self.evolution.config.recurrent)


def evolve(
    fitness: Fitness,
    inputs: int,
    outputs: int,
    *,
    generations: int = 100,
    target: float | None = None,
    solved: Fitness | None = None,
    seed: int | np.random.SeedSequence = 0,
    config: NEATConfig | None = None,
    on_generation: Callable[[Generation], Any] | None = None,
    **settings: Any,
) -> Result:
    """Evolve networks until one solves the task, for at most ``generations`` generations.

    ``fitness(networks)`` returns one number per network of the population; `each` turns a function of one network into such a
    fitness. A network solves the task if its fitness reaches ``target``, or where ``solved(networks)`` (population,) is true.
    ``settings`` are fields of `NEATConfig`. Raises ValueError for another result of ``fitness`` or ``solved``, Fault for a wrong setting.
    XOR::

        x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
        result = evolve(lambda networks: (4 - np.abs(networks(x)[..., 0] - y).sum(1)) ** 2, 2, 1, target=15)
        network = result.network()
    """
    generations = _count("generations", generations)
    if target is not None and not (isinstance(target, (int, float, np.number)) and target == target):
        raise ValueError(f"target must be a number or None, got {target!r}")
    config = config or NEATConfig()
    make_config(type(config), {**vars(config), **settings})  # names a setting that does not exist
    evolution = Evolution(inputs, outputs, dataclasses.replace(config, **settings), seed)
    while True:
        networks = evolution.networks()
        values = np.asarray(fitness(networks), np.float64)
        seen = evolution.record(values)
        if on_generation is not None:
            on_generation(seen)
        done = np.zeros(len(networks), bool)
        if target is not None:
            done |= values >= target
        if solved is not None:
            found = np.asarray(solved(networks))
            if found.shape != done.shape or found.dtype != bool:
                raise ValueError(
                    f"solved must return one bool per network, shape [{len(done)}], got {found.dtype} {list(found.shape)}"
                )
            done |= found
        if done.any() or evolution.generation + 1 >= generations:
            champion = evolution.champion
            if done.any():
                best = int(np.where(done, values, -np.inf).argmax())
                champion = genome_at(evolution.genomes, best, float(values[best]))
            assert champion is not None
            return Result(champion, bool(done.any()), evolution.generation + 1, evolution.evaluations, evolution)
        evolution._reproduce(values)
