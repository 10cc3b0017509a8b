"""Phenotypes: the networks of a population, evaluated together in one call."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from rl_lab.agents.neat import phenotypes
from rl_lab.agents.neat.genome import Genomes, graph_of
from rl_lab.native.threads import sharing, start_threads
from rl_lab.nn import GraphNetwork
from rl_lab.nn.graph.kernels import HEADER
from rl_lab.rollout.population import GraphActors


class Networks:
    """The networks of a population. Called with x (observations, inputs) they return (population, observations, outputs).

    Row i of ``structures`` (int32) and row i of ``numbers`` (float32) hold network i in the form that `nn.graph.kernels.activate`
    reads. Each network needs ``state_size`` float32 of state. Native loops over environments read these arrays directly.
    """

    def __init__(self, genomes: Genomes, recurrent: bool):
        self.genomes = genomes
        self.recurrent = recurrent
        self.inputs = int(genomes.inputs[0])
        self.outputs = int(genomes.outputs[0])
        population, nodes = genomes.node.shape
        connections = genomes.weight.shape[1]
        self.structures = np.zeros((population, HEADER + self.outputs + 3 * nodes + connections), np.int32)
        self.numbers = np.zeros((population, nodes + connections), np.float32)
        self.state_size = self.inputs + 2 * nodes
        phenotypes.decode(genomes, recurrent, self.structures, self.numbers)

    def __call__(self, x: ArrayLike, sequence: bool = False) -> np.ndarray:
        """Outputs (population, observations, outputs) for x (observations, inputs).

        With ``sequence`` recurrent networks keep their state from one observation to the next; otherwise each observation starts from
        zero state. Raises ValueError if x has another shape.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"networks with {self.inputs} inputs take [observations, {self.inputs}], got {list(x.shape)}")
        out = np.empty((len(self), len(x), self.outputs), np.float32)
        start_threads()
        phenotypes.forward(self.structures, self.numbers, x, sequence, out, sharing)
        return out

    def actors(self, slots: int) -> GraphActors:
        """Make room for ``slots`` networks that play episodes side by side, see `rl_lab.rollout.episodes.play`."""
        return GraphActors(self.structures, self.numbers, self.state_size, slots)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, i: int) -> "Network":
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no network {i}: the population has {len(self)}, counted from 0")
        return Network(self, i % len(self))

    def __iter__(self) -> Iterator["Network"]:
        return (Network(self, i) for i in range(len(self)))


class Network:
    """One of `Networks`."""

    def __init__(self, networks: Networks, number: int):
        self._networks = networks
        self.number = number

    def __call__(self, x: ArrayLike, sequence: bool = False) -> np.ndarray:
        """Outputs (outputs,) for x (inputs,), or (observations, outputs) for x (observations, inputs).

        ``sequence`` as for `Networks`. Raises ValueError if x has another shape.
        """
        x = np.ascontiguousarray(x, np.float32)
        rows = np.atleast_2d(x)
        if rows.ndim != 2 or rows.shape[1] != self._networks.inputs:
            raise ValueError(f"a network with {self._networks.inputs} inputs got x of shape {list(x.shape)}")
        out = np.empty((1, len(rows), self._networks.outputs), np.float32)
        i = slice(self.number, self.number + 1)
        start_threads()
        phenotypes.forward(self._networks.structures[i], self._networks.numbers[i], rows, sequence, out, sharing)
        return out[0, 0] if x.ndim == 1 else out[0]

    def graph(self) -> GraphNetwork:
        """The same network with named nodes, trainable by gradients."""
        return graph_of(self._networks.genomes, self.number, self._networks.recurrent)


def each(function: Callable[[Network], float]) -> Callable[[Networks], np.ndarray]:
    """Turn a fitness of one network into a fitness of a population, for `evolve`."""
    return lambda networks: np.array([function(network) for network in networks], np.float64)
