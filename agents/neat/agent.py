"""NEAT as an agent: each call of `step` evaluates one generation and breeds the next."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import rl_lab as rl
from rl_lab.agents.neat.config import NEATConfig
from rl_lab.agents.neat.evolution import Evolution
from rl_lab.agents.neat.genome import Genome, as_arrays, genome_at, genomes_from, graph_of, write_back
from rl_lab.agents.neat.gradients import Learning, PolicyGradient, actor_of
from rl_lab.agents.neat.importing import read_neat_python
from rl_lab.agents.neat.networks import Networks
from rl_lab.agents.neat.selection import NoveltyArchive
from rl_lab.experiment import Agent
from rl_lab.experiment.config import setting
from rl_lab.experiment.environments import choose_setup, spaces_of
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.finding import full_id
from rl_lab.experiment.names import node_names
from rl_lab.experiment.players import EVALUATIONS, Players
from rl_lab.nn import GraphNetwork
from rl_lab.nn.graph.kernels import ACTIVATIONS
from rl_lab.rollout import EPISODE_LIMIT, OutputMapping
from rl_lab.rollout.policies import Insight
from rl_lab.rollout.population import Played
from rl_lab.rollout.population_kernels import forward_each

SEED_RANGE = 2**31
SCHEDULES = ("generation", "fixed", "genome")
AUTO = "auto"


@dataclass(frozen=True)
class NEATAgentConfig(NEATConfig):
    """Parameters of evolution, of the episodes that measure fitness, and of training by gradients."""

    total_timesteps: int = setting(1_000_000, "environment steps to evolve for", least=1)
    output_activation: str = setting(
        AUTO,
        "activation of output nodes; auto: identity in feed-forward networks with discrete actions, else steepened_sigmoid",
        choices=(AUTO, *ACTIVATIONS),
    )
    episodes: int = setting(1, "episodes per genome; their mean return is its fitness", least=1)
    episode_seeds: str = setting(
        "generation",
        "when episodes get new seeds: every generation (shared by its genomes), never (fixed), or for every genome",
        choices=SCHEDULES,
    )
    episode_limit: int = setting(
        EPISODE_LIMIT, "longest episode in steps, in environments without a time limit of their own", least=1
    )
    evaluation: str = setting(
        "local",
        "where episodes are played in environments that are not native; ray: as tasks on the Ray cluster of RAY_ADDRESS",
        choices=EVALUATIONS,
    )
    champion_episodes: int = setting(20, "episodes in which a generation's best genome is compared with the champion", least=1)
    novelty: bool = setting(False, "novelty of the final observations as fitness, instead of the return")
    novelty_threshold: float = setting(1.0, "initial distance from which a final observation enters the archive", above=0)
    # training by gradients
    lamarck: int = setting(
        0, "gradient updates of each trained genome, its weights written back to its genes (Lamarck); 0: no training", least=0
    )
    baldwin: int = setting(
        0,
        "gradient updates of each trained genome, which change its fitness but not its genes (Baldwin); 0: no training",
        least=0,
    )
    trained: int = setting(1, "number of the best genomes of a generation to train by gradients; 0: all", least=0)
    gradient_rollouts: int = setting(10, "rollouts in the training of a genome, its updates spread evenly over them", least=1)
    gradient_steps: int = setting(32, "steps of each environment in a training rollout", least=1)
    gradient_learning_rate: float = setting(0.1, "Adam's step size for a trained genome", above=0)
    gradient_gamma: float = setting(0.99, "discount factor of the return in training", least=0, most=1)
    gradient_lambda: float = setting(0.95, "lambda of generalized advantage estimation in training", least=0, most=1)
    gradient_kl: float = setting(0.1, "largest mean KL divergence of the policy per rollout", above=0)
    gradient_greedy: float = setting(
        0.75, "mean probability of the greedy action at the start of training, for discrete actions", above=0, most=0.999
    )
    gradient_noise: float = setting(0.1, "standard deviation of the exploration noise on continuous outputs", above=0)
    critic_learning_rate: float = setting(5e-3, "Adam's step size for the critic, which all trained genomes share", above=0)


class NEAT(Agent):
    """Networks whose topology evolves, evaluated by whole episodes."""

    Config = NEATAgentConfig
    learned = ("evolution",)
    saved = ("archive", "seeds", "gradient", "fixed_seeds", "champion_seeds")

    def build(self) -> None:
        """The population, the random streams and, with --lamarck or --baldwin, the gradient learner."""
        c = self.config
        if c.output_activation == AUTO:
            # The largest output picks a discrete action, and saturated outputs tie; so the outputs stay linear.
            # Recurrent networks feed outputs back, which needs bounded outputs.
            linear = not self.mapping.size and not c.recurrent
            c = replace(c, output_activation="identity" if linear else "steepened_sigmoid")
            self.config = c
        self.acting_memory = "_states" if c.recurrent else None
        self.players = Players(self.envs, self.setup, c.output_activation, c.evaluation, c.episode_limit)
        self.actions = self.players.actions
        evolution_seed, episode_seed, gradient_seed = np.random.SeedSequence(self.seed).spawn(3)
        self.evolution = Evolution(int(np.prod(self.shape)), self.actions.outputs, c, evolution_seed)
        self.seeds = np.random.default_rng(episode_seed)
        self.fixed_seeds = self.seeds.integers(SEED_RANGE, size=c.episodes)
        self.champion_seeds = self.seeds.integers(SEED_RANGE, size=c.champion_episodes)
        if c.lamarck and c.baldwin:
            raise Fault("--lamarck and --baldwin exclude each other: set one of them to 0")
        learning = Learning(
            updates=c.lamarck or c.baldwin,
            rollouts=c.gradient_rollouts,
            steps=c.gradient_steps,
            learning_rate=c.gradient_learning_rate,
            critic_learning_rate=c.critic_learning_rate,
            gamma=c.gradient_gamma,
            gae_lambda=c.gradient_lambda,
            target_kl=c.gradient_kl,
            greedy=c.gradient_greedy,
            noise=c.gradient_noise,
        )
        self.gradient = PolicyGradient(self.envs, self.actions, learning, gradient_seed) if learning.updates else None
        self.archive = NoveltyArchive(threshold=c.novelty_threshold)
        self.champion: Genome | None = None
        """The genome with the best mean return over the champion's episodes; ``fitness`` is this mean."""
        self.champion_place = (0, 0)
        """The champion's generation, and its row in that generation."""
        self._acting: Networks | None = None
        self._states = np.zeros((0, 0), np.float32)

    @classmethod
    def read_config(cls, path: Path, env: str = "") -> tuple[dict[str, Any], list[str]]:
        """Settings from a neat-python configuration file, and notes on keys that are ignored or mean something else here."""
        found = read_neat_python(path)
        notes = list(found.notes)
        if found.inputs is not None or found.outputs is not None:
            notes.append(_about_sizes(found.inputs, found.outputs, env))
        if found.fitness_threshold is not None:
            notes.append(f"fitness_threshold is ignored: use --stop-return {found.fitness_threshold:g}")
        if found.unused:
            notes.append(f"ignored: {', '.join(found.unused)}")
        return found.settings, notes

    def remarks(self) -> list[str]:
        """A warning if pictures are left out."""
        return (
            []
            if has_matplotlib()
            else ["pictures of the evolution are left out, because they need matplotlib: pip install matplotlib"]
        )

    # --- one generation ----------------------------------------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Evaluate a generation and let it reproduce."""
        c = self.config
        self.require_finite()
        networks = self.evolution.networks()
        seeds = self._episode_seeds()
        told: dict[str, list[float]] = {}
        played = self._play(networks, np.arange(c.population), seeds, told)
        returns = played.returns.reshape(c.population, c.episodes).mean(1)
        self.evolution.check_fitness(returns)
        improved = 0.0
        if self.gradient is not None:
            improved = self._train(returns, seeds)
            networks = self.evolution.networks()
        self._challenge(networks, int(returns.argmax()))
        fitness = returns
        if c.novelty:
            finals = played.final_observations.reshape(c.population, -1)
            fitness = self.archive.novelty(np.nan_to_num(finals))
        seen = self.evolution.advance(fitness)
        assert self.champion is not None
        return {
            "charts/episodic_return": float(returns.mean()),
            "charts/episodic_length": float(played.lengths.mean()),
            **{f"info/{name}": math.fsum(values) / len(values) for name, values in told.items()},
            "neat/generation": float(seen.number),
            "neat/best_return": float(returns.max()),
            "neat/champion_return": self.champion.fitness,
            "neat/champion_hidden": float(self.champion.hidden),
            "neat/champion_connections": float(self.champion.enabled_connections),
            "neat/best_fitness": seen.best,
            "neat/mean_fitness": seen.mean,
            "neat/species": float(len(seen.species)),
            "neat/largest_species": float(max(seen.species.values())),
            "neat/threshold": float(self.evolution.threshold),
            "neat/hidden": seen.hidden,
            "neat/connections": seen.connections,
            **({"neat/trained": improved} if self.gradient is not None else {}),
        }

    def _episode_seeds(self) -> np.ndarray:
        """The seeds of each genome's episodes (population, episodes)."""
        c = self.config
        if c.episode_seeds == "genome":
            return self.seeds.integers(SEED_RANGE, size=(c.population, c.episodes))
        one = self.fixed_seeds if c.episode_seeds == "fixed" else self.seeds.integers(SEED_RANGE, size=c.episodes)
        return np.tile(one, (c.population, 1))

    def _train(self, returns: np.ndarray, seeds: np.ndarray) -> float:
        """Train the best genomes by gradients and raise their ``returns`` in place. Training that lowers a return is undone.

        Returns the share of trained genomes whose training was kept.
        """
        c = self.config
        genomes = self.evolution.genomes
        assert self.gradient is not None
        chosen = np.argsort(-returns, kind="stable")[: c.trained or c.population]
        kept = 0
        for i in map(int, chosen):
            network, steps = self.gradient.train(graph_of(genomes, i, c.recurrent))
            self.timesteps += steps
            trial = genome_at(genomes, i).genes
            write_back(network, trial, 0, c.weight_limit)
            value = float(self._play(Networks(trial, c.recurrent), np.zeros(1, np.int64), seeds[i : i + 1]).returns.mean())
            finite = np.isfinite(trial.weight).all() and np.isfinite(trial.bias).all()
            if finite and value >= returns[i]:
                kept += 1
                returns[i] = value
                if c.lamarck:
                    write_back(network, genomes, i, c.weight_limit)
        return kept / len(chosen)

    def _challenge(self, networks: Networks, best: int) -> None:
        """Make genome ``best`` the champion if its mean return over the champion's episodes is higher.

        Many episodes with fixed seeds, so a genome does not become champion by one lucky episode.
        """
        played = self._play(networks, np.full(self.config.champion_episodes, best), self.champion_seeds[:, None])
        value = float(played.returns.mean())
        if self.champion is None or value > self.champion.fitness:
            self.champion = genome_at(self.evolution.genomes, best, value)
            self._acting = None
            self.champion_place = (self.evolution.generation, best)

    def _play(
        self, networks: Networks, genomes: np.ndarray, seeds: np.ndarray, numbers: dict[str, list[float]] | None = None
    ) -> Played:
        """Play one episode per seed in ``seeds[k]`` with the network of ``genomes[k]``; numbers in infos go to ``numbers``."""
        played = self.players.play(networks, genomes, seeds, numbers)
        self.timesteps += int(played.lengths.sum())
        return played

    # --- acting ------------------------------------------------------------------------------------------------------

    def act(self, observations: np.ndarray, deterministic: bool = False, action_mask: np.ndarray | None = None) -> Any:
        """The champion's actions for observations (batch, ...). Row i of each batch belongs to one episode until `begin_episodes`."""
        networks = self._champion_networks()
        count = len(observations)
        if self._states.shape != (count, networks.state_size) or self.acting_memory is None:
            self._states = np.zeros((count, networks.state_size), np.float32)
        states = self._states
        x = np.ascontiguousarray(observations, np.float32).reshape(count, -1)
        outputs = np.zeros((count, networks.outputs), np.float32)
        forward_each(networks.structures, networks.numbers, np.zeros(count, np.int64), x, states, outputs)
        return self.actions(outputs, action_mask)

    def begin_episodes(self, begins: np.ndarray) -> None:
        """Clear the recurrent state of the rows (batch,) in which the next observation begins an episode."""
        shape = (len(begins), self._champion_networks().state_size)
        if self._states.shape == shape:
            self._states[begins] = 0.0
        else:
            self._states = np.zeros(shape, np.float32)

    def _champion_networks(self) -> Networks:
        if self._acting is None:
            # before the first generation there is no champion: take the first genome of the population
            genes = self.evolution.genomes if self.champion is None else self.champion.genes
            self._acting = Networks(genes, self.config.recurrent)
        return self._acting

    def explain(
        self, observations: rl.Tensor, action_mask: rl.Tensor | None = None, memory: rl.Tensor | None = None
    ) -> Insight:
        """The champion's outputs. The greedy option of a choice is the one with the largest output."""
        network = self.network()
        x = observations.float().flatten(1)
        if not network.recurrent:
            outputs = network(x)
        else:
            kept = rl.zeros(len(x), len(network.nodes))
            if memory is not None and memory.shape[1]:  # inputs, values of the nodes, new values of the nodes
                kept = memory[:, len(network.inputs) : len(network.inputs) + len(network.nodes)].contiguous()
            outputs = network(x, kept)[0]
        count = self.actions.actions.num_masked
        options = outputs[:, :count] if action_mask is None else outputs[:, :count].masked_fill(~action_mask, -1e9)
        if not self.mapping.size:
            return Insight(options, None, "outputs")
        centre, radius = (rl.tensor(part) for part in (self.mapping.centre, np.maximum(self.mapping.radius, 1e-12)))
        return Insight(rl.cat([options, (self.actions.components(outputs) - centre) / radius], 1), None, "outputs")

    def greedy_step(self) -> tuple[Callable[..., tuple[rl.Tensor, ...]], tuple[rl.Tensor, ...]]:
        """The champion as a function of observations and the values of its nodes, and the values with which an episode begins."""
        network = self.network()

        def step(observations: rl.Tensor, action_mask: rl.Tensor | None = None) -> tuple[rl.Tensor, ...]:
            return (self.actions.scaled(network(observations.float().flatten(1)), action_mask),)

        def remembering(
            observations: rl.Tensor, memory: rl.Tensor, action_mask: rl.Tensor | None = None
        ) -> tuple[rl.Tensor, ...]:
            outputs, after = network(observations.float().flatten(1), memory)
            return self.actions.scaled(outputs, action_mask), after

        return (remembering, (rl.zeros(1, len(network.nodes)),)) if network.recurrent else (step, ())

    def network(self) -> GraphNetwork:
        """The champion as a `GraphNetwork`, which gradients can train."""
        champion = self.champion or genome_at(self.evolution.genomes, 0)
        return champion.network(self.config.recurrent)

    def saved_networks(self) -> dict[str, GraphNetwork]:
        """Networks to save in the run's directory: the champion as it evolved, and the actor that `make_network` loads."""
        return {"champion": self.network(), "actor": actor_of(self.network(), self.actions)}

    def pictures(self) -> dict[str, np.ndarray]:
        """Images (height, width, 3) uint8 by log tag; none without matplotlib or before the first generation."""
        if not self.evolution.history or not has_matplotlib():
            return {}
        from rl_lab.agents.neat.pictures import draw_course, draw_genealogy, draw_species
        from rl_lab.nn.graph.picture import SHOWN_WIDTH, as_image, draw_network

        history = self.evolution.history
        network = self.network()
        champion = draw_network(network, width=SHOWN_WIDTH / 100, names=node_names(self, network))
        return {
            "neat/champion": as_image(champion, SHOWN_WIDTH),
            "neat/species_sizes": as_image(draw_species(history), SHOWN_WIDTH),
            "neat/course": as_image(draw_course(history), SHOWN_WIDTH),
            "neat/genealogy": as_image(draw_genealogy(self.evolution, self.champion_place), SHOWN_WIDTH),
        }

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The agent's saved parts, and the champion's genes, fitness and place."""
        champion = None
        if self.champion is not None:
            champion = {
                "genes": as_arrays(self.champion.genes),
                "fitness": self.champion.fitness,
                "place": list(self.champion_place),
            }
        return {**super().state_dict(), "champion": champion}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state)
        self._load_champion(state["champion"])

    def load_learned(self, state: dict[str, Any]) -> None:
        """Continue the evolution of another run from its population and champion."""
        super().load_learned(state)
        self._load_champion(state["champion"])

    def _load_champion(self, champion: dict[str, Any] | None) -> None:
        self.champion = None
        self._acting = None
        if champion is not None:
            genes = genomes_from(champion["genes"], int(np.prod(self.shape)), self.actions.outputs)
            self.champion = Genome(genes, float(champion["fitness"]))
            self.champion_place = tuple(champion.get("place", (0, 0)))  # older runs did not record it


def _about_sizes(inputs: int | None, outputs: int | None, env: str) -> str:
    """A note that compares ``num_inputs`` and ``num_outputs`` of a configuration file with the sizes that ``env`` needs."""
    made = (
        f"num_inputs {inputs} and num_outputs {outputs} have no effect: networks have the inputs and outputs of the environment"
    )
    if not env:
        return made
    observations, actions = spaces_of(choose_setup(full_id(env)))
    own = (int(np.prod(observations.shape or (1,))), OutputMapping(actions, "identity").outputs)
    if own == (inputs, outputs):
        return f"num_inputs {inputs} and num_outputs {outputs} agree with {env}"
    return f"{made}, which are {own[0]} and {own[1]} in {env}; the file may have been made for another problem"


def has_matplotlib() -> bool:
    """Whether matplotlib is installed, which the pictures need."""
    return importlib.util.find_spec("matplotlib") is not None
