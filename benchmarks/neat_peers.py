"""NEAT against methods of its own kind, counted alike, and against gradients.

    python -m benchmarks.neat_peers [--parts xor,poles,hidden,cartpole,acrobot,lander,gradients] [--seeds N] [--only NEAT,CMA-ES]
        [--envs CartPole-v1,Pendulum-v1]

Every network that plays its episodes counts as one evaluation, those of the last generation and of failed runs included. A check
whether the best network solves the task, in episodes of its own, counts as one more. Steps are all environment steps, those of checks
included. Seconds are processor time, so other processes do not lengthen them. All methods play the same native environments:

- NEAT: `rl_lab.agents.neat`, with the settings of `benchmarks.neat_poles` or of the preset;
- CMA-ES: the library ``cma`` with its defaults, and restarts with twice the population where it is stuck;
- CoSyNE (Gomez, Schmidhuber and Miikkulainen 2008, "Accelerated neural evolution through cooperatively coevolved synapses");
- ES: the update of Salimans et al. 2017, as in `rl_lab.agents.es`;
- neat-python with the settings of its XOR example: its networks are played by our kernels as well, so its seconds are those of its
  reproduction alone, to a first approximation.

CMA-ES, CoSyNE and ES search for the weights of a fixed network, which somebody had to choose; NEAT and neat-python begin without hidden
nodes and find the structure as well.
"""

import argparse
import importlib.metadata
import importlib.util
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode

from benchmarks.neat import CONFIG, X, Y
from benchmarks.neat_poles import (
    ENOUGH,
    STEPS,
    WITH_VELOCITIES,
    WITHOUT_VELOCITIES,
)
from rl_lab.agents.cmaes import Search
from rl_lab.agents.es import centred_ranks
from rl_lab.agents.neat import Evolution, NEATConfig
from rl_lab.envs.double_pole import GENERALIZATION_STARTS, GRUAU_STEPS, DoublePoleNoVelocityVectorEnv, DoublePoleVectorEnv
from rl_lab.experiment.driver import make_plan
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate, validation_seed
from rl_lab.nn.graph.kernels import ACTIVATIONS, SUM
from rl_lab.rollout import OutputMapping
from rl_lab.rollout.population import PopulationCollector
from rl_lab.rollout.population_kernels import forward_each

SIGMOID = ACTIVATIONS.index("steepened_sigmoid")
TANH = ACTIVATIONS.index("tanh")
IDENTITY = ACTIVATIONS.index("identity")
SEED_RANGE = 2**31
SHIPPED = {
    "conn_add_prob": 0.5,
    "conn_delete_prob": 0.5,
    "node_add_prob": 0.2,
    "node_delete_prob": 0.2,
    "bias_mutate_rate": 0.7,
    "bias_max_value": 30.0,
    "bias_min_value": -30.0,
    "weight_max_value": 30.0,
    "weight_min_value": -30.0,
    "enabled_mutate_rate": 0.01,
    "max_stagnation": 20,
    "elitism": 2,
}
"""Settings of the example XOR of neat-python where they differ from `benchmarks.neat.CONFIG`."""


class Nets(NamedTuple):
    """Networks in the form of `nn.graph.kernels.activate`, one a row."""

    structures: np.ndarray
    numbers: np.ndarray


class Layout(NamedTuple):
    """A fixed network: its structure, and the number of its parameters."""

    structure: np.ndarray
    size: int

    def networks(self, vectors: np.ndarray) -> Nets:
        """Networks with the parameters ``vectors`` (population, size)."""
        return Nets(np.tile(self.structure, (len(vectors), 1)), np.ascontiguousarray(vectors, np.float32))


def layout(inputs: int, hidden: int, outputs: int, activation: int, last: int, recurrent: bool = False) -> Layout:
    """A layer of hidden nodes, and outputs that see it, or the inputs without one. In a recurrent network every node sees everything."""
    nodes = hidden + outputs
    words = [inputs, nodes, outputs, int(recurrent), *range(inputs + hidden, inputs + nodes)]
    size = 0
    for node in range(nodes):
        rows = list(range(inputs + nodes)) if recurrent else list(range(inputs))
        if not recurrent and node >= hidden and hidden:
            rows = list(range(inputs, inputs + hidden))
        words += [activation if node < hidden else last, SUM, len(rows), *rows]
        size += 1 + len(rows)
    return Layout(np.array(words, np.int32), size)


# --- tasks -----------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """The result and the cost of one generation."""

    fitness: np.ndarray
    """(networks,)"""
    solved: bool
    """Whether the best network solves the task."""
    steps: int
    """Environment steps of the episodes that measure fitness."""
    checks: int = 0
    """How often the best network played further episodes, to be checked."""
    check_steps: int = 0
    """Environment steps of the checks."""


class Task(Protocol):
    """A task: plays a generation, and checks its best network."""

    fixed: Layout
    neat: NEATConfig
    sizes: tuple[int, int]
    evaluations: int
    """Evaluations after which a run has failed."""
    steps: float
    """Environment steps after which a run has failed."""

    def play(self, nets: Nets, generation: int, seed: int) -> Outcome:
        """Play the networks of a generation."""


class XOR:
    """The task of Stanley and Miikkulainen 2002, section 4.1."""

    sizes = (2, 1)
    fixed = layout(2, 2, 1, SIGMOID, SIGMOID)
    neat = NEATConfig(population=150)
    evaluations = 20_000
    steps = np.inf

    def play(self, nets: Nets, generation: int, seed: int) -> Outcome:
        count = len(nets.structures)
        outputs = np.zeros((count, len(X)))
        state = np.zeros((count, int((nets.structures[:, 0] + 2 * nets.structures[:, 1]).max())), np.float32)
        out = np.zeros((count, 1), np.float32)
        for k, x in enumerate(X):
            state[:] = 0.0
            forward_each(nets.structures, nets.numbers, np.arange(count), np.tile(x, (count, 1)), state, out)
            outputs[:, k] = out[:, 0]
        fitness = (4.0 - np.abs(outputs - Y).sum(1)) ** 2
        best = int(fitness.argmax())
        return Outcome(fitness, bool(((outputs[best] > 0.5) == Y).all()), 0)


class Poles:
    """Two poles with velocities: 100,000 balanced steps solve the task."""

    sizes = (6, 1)
    fixed = layout(6, 3, 1, SIGMOID, SIGMOID)
    neat = WITH_VELOCITIES
    evaluations = 50_000
    steps = np.inf

    def __init__(self) -> None:
        self.player = player(DoublePoleVectorEnv(1, STEPS, AutoresetMode.SAME_STEP))

    def play(self, nets: Nets, generation: int, seed: int) -> Outcome:
        played = self.player.play(*nets, np.arange(len(nets.structures)), np.zeros((len(nets.structures), 1), np.int64))
        return Outcome(played.returns, bool(played.returns.max() >= STEPS), int(played.lengths.sum()))


class HiddenPoles:
    """Two poles without velocities: Gruau's fitness, 100,000 balanced steps, and 200 of Gruau's 625 starts.

    The check of a network that balances takes up to 725,000 steps, so the steps are limited as well.
    """

    sizes = (3, 1)
    fixed = layout(3, 3, 1, SIGMOID, SIGMOID, recurrent=True)
    neat = WITHOUT_VELOCITIES
    evaluations = 50_000
    steps = 50e6

    def __init__(self) -> None:
        kind = DoublePoleNoVelocityVectorEnv
        self.player = player(kind(1, GRUAU_STEPS, AutoresetMode.SAME_STEP, damping=1.0))
        self.long, self.general = (player(kind(1, steps, AutoresetMode.SAME_STEP)) for steps in (STEPS, GRUAU_STEPS))

    def play(self, nets: Nets, generation: int, seed: int) -> Outcome:
        played = self.player.play(*nets, np.arange(len(nets.structures)), np.zeros((len(nets.structures), 1), np.int64))
        best = played.returns.argmax()[None]
        steps = int(played.lengths.sum())
        if played.lengths[best[0]] < GRUAU_STEPS:  # it starts as in the test of 100,000 steps
            return Outcome(played.returns, False, steps)
        balanced = int(self.long.play(*nets, best, np.zeros((1, 1), np.int64)).lengths[0])
        if balanced < STEPS:
            return Outcome(played.returns, False, steps, 1, balanced)
        starts = {name: np.tile(values, (1, 1)) for name, values in GENERALIZATION_STARTS.items()}
        lengths = self.general.play(*nets, best, np.zeros((1, len(starts["x"][0])), np.int64), starts).lengths
        solved = int((lengths == GRUAU_STEPS).sum()) >= ENOUGH
        return Outcome(played.returns, solved, steps, 2, balanced + int(lengths.sum()))


class Control:
    """An environment of Gymnasium: the best network solves it if its mean return over 100 other episodes reaches ``bar``."""

    def __init__(
        self, env: str, fixed: Layout, bar: float, neat: NEATConfig, episodes: int, evaluations: int, steps: float = np.inf
    ):
        self.fixed = fixed
        self.neat = neat
        self.evaluations = evaluations
        self.steps = steps
        self.bar = bar
        self.episodes = episodes
        self.player = player(make_environments(env, 1))
        self.sizes = (self.player.inputs, self.player.actions.outputs)

    def play(self, nets: Nets, generation: int, seed: int) -> Outcome:
        count = len(nets.structures)
        seeds = np.random.default_rng([seed, generation]).integers(SEED_RANGE, size=self.episodes)
        played = self.player.play(*nets, np.arange(count), np.tile(seeds, (count, 1)))
        fitness = played.returns.reshape(count, self.episodes).mean(1)
        steps, best = int(played.lengths.sum()), int(fitness.argmax())
        if fitness[best] < self.bar:
            return Outcome(fitness, False, steps)
        judged = self.player.play(*nets, np.array([best]), validation_seed(seed) + np.arange(100)[None])
        return Outcome(fitness, bool(judged.returns.mean() >= self.bar), steps, 1, int(judged.lengths.sum()))


def player(envs: Any) -> PopulationCollector:
    """Plays networks in copies of native environments. Bounded actions take the range of the sigmoid."""
    return PopulationCollector(envs, OutputMapping(envs.single_action_space, "steepened_sigmoid"))


# --- methods ---------------------------------------------------------------------------------------------------------


class Optimizer(Protocol):
    """Searches for the parameters of a fixed network."""

    def ask(self) -> np.ndarray:
        """Points to evaluate, (population, size)."""

    def tell(self, points: np.ndarray, fitness: np.ndarray) -> None:
        """Note the fitness of the points; higher is better."""


class CMA:
    """The library ``cma`` with its defaults; it restarts with twice the population where the library says that it is stuck."""

    def __init__(self, size: int, seed: int):
        self._size, self._population = size, 0
        self._random = np.random.default_rng(seed)
        self._search = Search(np.zeros(size), 1.0, 0, False, self._random)

    def ask(self) -> np.ndarray:
        return np.array(self._search.ask())

    def tell(self, points: np.ndarray, fitness: np.ndarray) -> None:
        self._search.tell(list(points), fitness)
        if self._search.is_stuck:
            self._population = 2 * len(points)
            self._search = Search(np.zeros(self._size), 1.0, self._population, False, self._random)


class CoSyNE:
    """Weights that evolve in populations of their own, and are permuted between networks."""

    def __init__(self, size: int, seed: int, population: int = 40, mutation: float = 0.1, scale: float = 0.3):
        self._random = np.random.default_rng(seed)
        self._points = self._random.uniform(-4.0, 4.0, (population, size))
        self._mutation = mutation
        self._scale = scale

    def ask(self) -> np.ndarray:
        return self._points

    def tell(self, points: np.ndarray, fitness: np.ndarray) -> None:
        draw = self._random
        order = np.argsort(-fitness, kind="stable")
        points, fitness = points[order], fitness[order]
        count, size = points.shape
        parents = max(2, count // 4)
        children = np.empty((parents, size))
        for k in range(parents):
            first, second = points[draw.integers(parents)], points[draw.integers(parents)]
            cut = draw.integers(size + 1)
            children[k] = np.concatenate([first[:cut], second[cut:]])
        noise = self._scale * draw.standard_cauchy(children.shape)
        children += np.where(draw.random(children.shape) < self._mutation, noise, 0.0)
        # a weight keeps its place the more probably, the fitter its network is (equation 1 of the paper)
        spread = max(fitness[0] - fitness[-1], 1e-12)
        leaves = 1.0 - ((fitness - fitness[-1]) / spread) ** (1.0 / size)
        points[count - parents :] = children
        leaves[count - parents :] = 1.0
        for j in range(size):
            moved = np.flatnonzero(draw.random(count) < leaves)
            points[moved, j] = points[draw.permutation(moved), j]
        self._points = points


class EvolutionStrategy:
    """Mirrored samples, ranks and Adam."""

    def __init__(self, size: int, seed: int, pairs: int = 16, noise: float = 0.3, rate: float = 0.1):
        self._random = np.random.default_rng(seed)
        self._centre = np.zeros(size)
        self._first, self._second = np.zeros(size), np.zeros(size)
        self._pairs, self._noise, self._rate, self._updates = pairs, noise, rate, 0

    def ask(self) -> np.ndarray:
        self._samples = self._random.standard_normal((self._pairs, len(self._centre)))
        return self._centre + self._noise * np.concatenate([self._samples, -self._samples])

    def tell(self, points: np.ndarray, fitness: np.ndarray) -> None:
        utilities = centred_ranks(fitness).reshape(2, -1)
        gradient = (utilities[0] - utilities[1]) @ self._samples / (2 * self._pairs * self._noise)
        self._updates += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient**2
        step = self._first / (1 - 0.9**self._updates)
        self._centre += self._rate * step / (np.sqrt(self._second / (1 - 0.999**self._updates)) + 1e-8)


@dataclass
class Cost:
    """What a run needed; ``solved`` is False if it spent all its evaluations."""

    solved: bool = False
    evaluations: int = 0
    """Networks that played episodes, checks included."""
    checks: int = 0
    steps: int = 0
    """Environment steps, those of checks included."""
    check_steps: int = 0
    seconds: float = 0.0
    """Processor time."""
    parameters: float = np.nan

    def reaches(self, task: Any) -> bool:
        """Whether a run may spend no more."""
        return self.evaluations >= task.evaluations or self.steps >= task.steps

    def add(self, outcome: Outcome) -> None:
        """Add what a generation cost."""
        self.solved = outcome.solved
        self.evaluations += len(outcome.fitness) + outcome.checks
        self.checks += outcome.checks
        self.steps += outcome.steps + outcome.check_steps
        self.check_steps += outcome.check_steps


def search(make: Callable[[int, int], Optimizer], task: Any, seed: int) -> Cost:
    """Search for the weights of the task's fixed network."""
    begin = time.process_time()
    optimizer = make(task.fixed.size, seed)
    cost = Cost(parameters=task.fixed.size)
    generation = 0
    while not cost.reaches(task):
        points = optimizer.ask()
        outcome = task.play(task.fixed.networks(points), generation, seed)
        cost.add(outcome)
        if cost.solved:
            break
        optimizer.tell(points, outcome.fitness)
        generation += 1
    cost.seconds = time.process_time() - begin
    return cost


def ours(task: Any, seed: int) -> Cost:
    """Evolve networks by NEAT."""
    begin = time.process_time()
    evolution = Evolution(*task.sizes, task.neat, seed)
    cost = Cost()
    while not cost.reaches(task):
        networks = evolution.networks()
        outcome = task.play(Nets(networks.structures, networks.numbers), evolution.generation, seed)
        cost.add(outcome)
        if cost.solved:
            evolution.record(outcome.fitness)
            champion = evolution.champion
            assert champion is not None
            cost.parameters = champion.enabled_connections + champion.hidden + task.sizes[1]
            break
        evolution.advance(outcome.fitness)
    cost.seconds = time.process_time() - begin
    return cost


def theirs(task: Any, seed: int) -> Cost:
    """Evolve networks by neat-python; our kernels play them."""
    import neat as peer

    recurrent = task.neat.recurrent
    text = CONFIG.replace("num_inputs = 2", f"num_inputs = {task.sizes[0]}")
    text = text.replace("num_outputs = 1", f"num_outputs = {task.sizes[1]}")
    for name, value in SHIPPED.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    text = text.replace("feed_forward = True", f"feed_forward = {not recurrent}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "neat.cfg"
        path.write_text(text)
        config = peer.Config(
            peer.DefaultGenome, peer.DefaultReproduction, peer.DefaultSpeciesSet, peer.DefaultStagnation, str(path)
        )
    kind = peer.nn.RecurrentNetwork if recurrent else peer.nn.FeedForwardNetwork
    random.seed(seed)
    cost = Cost()

    class Over(Exception):
        pass

    def evaluate_all(genomes: Any, config: Any) -> None:
        nets = translated([kind.create(genome, config) for _, genome in genomes], recurrent)
        outcome = task.play(nets, cost.evaluations, seed)
        for (_, genome), value in zip(genomes, outcome.fitness, strict=True):
            genome.fitness = float(value)
        cost.add(outcome)
        if cost.solved:
            best = genomes[int(outcome.fitness.argmax())][1]
            cost.parameters = sum(c.enabled for c in best.connections.values()) + len(best.nodes)
        if cost.solved or cost.reaches(task):
            raise Over

    begin = time.process_time()
    try:
        peer.Population(config).run(evaluate_all, 10**9)
    except Over:
        pass
    cost.seconds = time.process_time() - begin
    return cost


def translated(networks: list[Any], recurrent: bool) -> Nets:
    """Networks of neat-python in the form of our kernels. Its sigmoid is 1 / (1 + exp(-5 z)), ours has 4.9."""
    structures, numbers = [], []
    for network in networks:
        inputs, outputs = network.input_nodes, network.output_nodes
        evaluations = list(network.node_evals)
        known = {entry[0] for entry in evaluations}
        evaluations += [(o, None, None, 0.0, 1.0, []) for o in outputs if o not in known]  # an output without connections
        rows = {name: row for row, name in enumerate([*inputs, *[entry[0] for entry in evaluations]])}
        words = [len(inputs), len(evaluations), len(outputs), int(recurrent), *[rows[o] for o in outputs]]
        values: list[float] = []
        for _, _, _, bias, response, links in evaluations:
            linked = [(rows[source], weight) for source, weight in links if source in rows]
            words += [SIGMOID, SUM, len(linked), *[row for row, _ in linked]]
            values += [bias * 5 / 4.9, *[response * weight * 5 / 4.9 for _, weight in linked]]
        structures.append(words)
        numbers.append(values)

    def padded(rows: list[list], dtype: Any) -> np.ndarray:
        made = np.zeros((len(rows), max(map(len, rows)) + 1), dtype)
        for k, row in enumerate(rows):
            made[k, : len(row)] = row
        return made

    return Nets(padded(structures, np.int32), padded(numbers, np.float32))


METHODS: dict[str, Callable[[Any, int], Cost]] = {
    "NEAT": ours,
    "CMA-ES": lambda task, seed: search(CMA, task, seed),
    "CoSyNE": lambda task, seed: search(CoSyNE, task, seed),
    "ES": lambda task, seed: search(EvolutionStrategy, task, seed),
    "neat-python": theirs,
}


def control(env: str, hidden: int, bar: float, episodes: int, evaluations: int, steps: float = np.inf) -> Callable[[], Control]:
    """A `Control` task, with NEAT as its preset has it but for the episodes."""

    def make() -> Control:
        plan = make_plan({"agent": "neat", "env": env})
        names = NEATConfig.__dataclass_fields__
        given = {name: getattr(plan.config, name) for name in names}
        if given["output_activation"] == "auto":
            given["output_activation"] = "identity"
        envs = make_environments(env, 1)
        inputs = int(np.prod(envs.single_observation_space.shape))
        outputs = int(envs.single_action_space.n)  # type: ignore[attr-defined]
        fixed = layout(inputs, hidden, outputs, TANH, IDENTITY)
        return Control(env, fixed, bar, NEATConfig(**given), episodes, evaluations, steps)

    return make


TASKS: dict[str, tuple[str, Callable[[], Any], int]] = {
    # part: title, task, seeds
    "xor": ("XOR", XOR, 20),
    "poles": ("two poles with velocities", Poles, 20),
    "hidden": ("two poles without velocities", HiddenPoles, 10),
    "cartpole": ("CartPole-v1, 475 over 100 episodes", control("CartPole-v1", 0, 475.0, 1, 20_000), 10),
    "acrobot": ("Acrobot-v1, -90 over 100 episodes", control("Acrobot-v1", 8, -90.0, 2, 20_000), 10),
    "lander": ("LunarLander-v3, 200 over 100 episodes", control("LunarLander-v3", 8, 200.0, 3, 10_000, 5e6), 3),
}


def table(title: str, make: Callable[[], Any], seeds: int, only: list[str]) -> None:
    """Print the costs of each method, medians over seeds; a failed run counts with all that it spent."""
    print(
        f"\n| {title}, {seeds} seeds | solved | evaluations, median (mean) | of these checks | steps, median | of these in checks "
        "| seconds, median | parameters |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name, method in METHODS.items():
        if only and name not in only:
            continue
        if name == "neat-python" and importlib.util.find_spec("neat") is None:
            print("| neat-python | not installed: pip install neat-python | | | | | | |")
            continue
        label = f"{name} {importlib.metadata.version(name)}" if name == "neat-python" else name
        task = make()
        limit, task.evaluations = task.evaluations, 1
        method(task, 10**6)  # compiles
        task.evaluations = limit
        costs = [method(task, seed) for seed in range(seeds)]
        solved = [cost for cost in costs if cost.solved]
        size = f"{statistics.median(cost.parameters for cost in solved):.0f}" if solved else "-"

        def middle(field: str, costs: list[Cost] = costs) -> float:
            return statistics.median(getattr(cost, field) for cost in costs)

        print(
            f"| {label} | {len(solved)} | {middle('evaluations'):,.0f} ({statistics.mean(c.evaluations for c in costs):,.0f}) "
            f"| {middle('checks'):,.0f} | {middle('steps'):,.0f} | {middle('check_steps'):,.0f} | {middle('seconds'):.2f} | {size} |",
            flush=True,
        )


# --- gradients -------------------------------------------------------------------------------------------------------

GRADIENTS: dict[str, tuple[float, tuple[str, ...]]] = {
    # environment: bar, agents
    "CartPole-v1": (475.0, ("neat", "cmaes", "ars", "es", "a2c", "ppo", "dqn")),
    "Acrobot-v1": (-90.0, ("neat", "cmaes", "ars", "es", "a2c", "ppo", "dqn")),
    "LunarLander-v3": (200.0, ("neat", "a2c", "ppo", "dqn")),
    "MountainCar-v0": (-110.0, ("neat", "a2c", "ppo", "dqn")),
    "Pendulum-v1": (-200.0, ("neat", "a2c", "ppo", "sac")),
}
EVERY = 1_000
"""The first check comes after so many steps."""
GROWTH = 1.15
"""A check follows when the steps have grown by this factor since the last one, and by `EVERY`: a run has tens of checks, not thousands."""
EPISODES = 20
"""Greedy episodes of a check."""


POLICIES: dict[str, Callable[[Any], list[Any]]] = {
    "neat": lambda agent: [agent.network()],
    "cmaes": lambda agent: [agent.network],
    "ars": lambda agent: [agent.network],
    "es": lambda agent: [agent.network],
    "dqn": lambda agent: [agent.q_network],
    "ppo": lambda agent: [agent.actor, agent.head],
    "a2c": lambda agent: [agent.trunk, agent.actor, agent.head],
    "sac": lambda agent: [agent.actor],
}
"""The modules of which an agent's greedy policy consists."""


class Training(NamedTuple):
    """What training until the bar was reached cost."""

    reached: bool
    checks: int
    steps: int
    """Environment steps, those of checks included."""
    check_steps: int
    seconds: float
    """Processor time, that of checks included."""
    parameters: int


def parameters_in(agent: Any, name: str) -> int:
    """Parameters of the greedy policy of an agent."""
    return sum(p.numel() for module in POLICIES[name](agent) for p in module.parameters())


def reach(name: str, env: str, bar: float, seed: int, limit: int = 0) -> Training:
    """Train with the preset until `EPISODES` greedy episodes reach the bar, or for ``limit`` steps; 0: those of the preset."""
    begin = time.process_time()
    plan = make_plan({"agent": name, "env": env, "seed": seed})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class.create(plan.config, envs, seed, plan.setup)
    limit = limit or plan.config.total_timesteps
    following, checks, check_steps, reached = EVERY, 0, 0, False
    while agent.timesteps < limit and not reached:
        agent.step()
        if agent.timesteps >= min(following, limit):
            following = max(agent.timesteps + EVERY, int(agent.timesteps * GROWTH))
            checked = evaluate(agent, plan.setup, EPISODES, validation_seed(seed))
            checks += 1
            check_steps += checked.steps
            reached = checked.return_mean >= bar
    steps = agent.timesteps + check_steps
    return Training(reached, checks, steps, check_steps, time.process_time() - begin, parameters_in(agent, name))


def gradients(seeds: int, envs: list[str], only: list[str]) -> None:
    """Print steps, seconds and parameters of evolution and of gradients, or of the agents in ``only``."""
    print(
        f"\n| environment, bar, {seeds} seeds | agent | solved | checks, median | steps, median | of these in checks "
        "| seconds, median | parameters |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for env, (bar, names) in GRADIENTS.items():
        if envs and env not in envs:
            continue
        for name in [name for name in names if not only or name in only]:
            reach(name, env, bar, 10**6, EVERY)  # compiles
            found = [reach(name, env, bar, seed) for seed in range(1, seeds + 1)]

            def middle(field: str, found: list[Training] = found) -> float:
                return statistics.median(getattr(training, field) for training in found)

            print(
                f"| {env}, {bar:.0f} | `{name}` | {sum(f.reached for f in found)} | {middle('checks'):.0f} | {middle('steps'):,.0f} "
                f"| {middle('check_steps'):,.0f} | {middle('seconds'):.2f} | {middle('parameters'):,.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join([*TASKS, "gradients"]), help="parts to run, separated by commas")
    parser.add_argument("--seeds", type=int, default=0, help="number of seeds; 0: each part's default")
    parser.add_argument("--only", default="", help="methods or agents, separated by commas, such as NEAT,CMA-ES or neat,ppo")
    parser.add_argument("--envs", default="", help="environments of the part gradients, separated by commas; all by default")
    arguments = parser.parse_args()
    envs = [word for word in arguments.envs.split(",") if word]
    for env in envs:
        if env not in GRADIENTS:
            parser.error(f"--envs has no environment {env!r}; it has {', '.join(GRADIENTS)}")
    only = [word for word in arguments.only.split(",") if word]
    for part in arguments.parts.split(","):
        if part == "gradients":
            gradients(arguments.seeds or 5, envs, only)
        elif part in TASKS:
            title, make, seeds = TASKS[part]
            table(title, make, arguments.seeds or seeds, only)
        else:
            parser.error(f"--parts has no part {part!r}; its parts are {', '.join([*TASKS, 'gradients'])}")


if __name__ == "__main__":
    main()
