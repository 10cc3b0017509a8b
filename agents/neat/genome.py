"""Genomes: a whole population as padded arrays, one genome per row."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_lab.nn import GraphNetwork
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS

ROOM = 4  # more than the genes that one reproduction can add to a genome


class Genomes(NamedTuple):
    """Node genes and connection genes of a population.

    Row i of the first four arrays holds genome i's node genes by rising ``node``: its outputs, then its hidden nodes. Inputs have the
    numbers 0, 1, ... and no gene. Row i of the connection arrays holds genome i's connection genes by rising innovation number. A
    node has a bias, mutated like a weight, where the paper has a connection from a bias unit.
    """

    node: np.ndarray  # int64, number of the node
    bias: np.ndarray  # float32
    activation: np.ndarray  # int64, index in ACTIVATIONS
    aggregation: np.ndarray  # int64, index in AGGREGATIONS
    innovation: np.ndarray  # int64
    source: np.ndarray  # int64, number of a node
    target: np.ndarray  # int64
    weight: np.ndarray  # float32
    enabled: np.ndarray  # bool
    nodes: np.ndarray  # int64 (population,), number of node genes
    connections: np.ndarray  # int64 (population,), number of connection genes
    inputs: np.ndarray  # int64 (1,), number of inputs
    outputs: np.ndarray  # int64 (1,), number of outputs


_KINDS = dict(zip(Genomes._fields, (*"ifiiiiif?", *"iiii"), strict=True))
_DTYPES = {"i": np.int64, "f": np.float32, "?": np.bool_}
NODE_GENES = Genomes._fields[:4]
CONNECTION_GENES = Genomes._fields[4:9]


def room_for(population: int, nodes: int, connections: int, inputs: int, outputs: int) -> Genomes:
    """Empty genomes with room for ``nodes`` node genes and ``connections`` connection genes each."""
    arrays: dict[str, np.ndarray] = {}
    for name, kind in _KINDS.items():
        shape: tuple[int, ...] = (population,)
        if name in NODE_GENES:
            shape = (population, nodes)
        elif name in CONNECTION_GENES:
            shape = (population, connections)
        arrays[name] = np.zeros(shape, _DTYPES[kind])
    arrays["inputs"], arrays["outputs"] = np.array([inputs]), np.array([outputs])
    return Genomes(**arrays)


def is_full(genomes: Genomes) -> bool:
    """Whether one reproduction could need more genes than the arrays have room for."""
    nodes = genomes.node.shape[1]
    connections = genomes.weight.shape[1]
    return bool(genomes.nodes.max() + ROOM > nodes or genomes.connections.max() + ROOM > connections)


def widened(genomes: Genomes) -> Genomes:
    """The same genomes with room for twice as many genes."""
    wide = room_for(
        len(genomes.nodes),
        2 * int(genomes.nodes.max()) + ROOM,
        2 * int(genomes.connections.max()) + ROOM,
        int(genomes.inputs[0]),
        int(genomes.outputs[0]),
    )
    for name, old, new in zip(Genomes._fields, genomes, wide, strict=True):
        if new.ndim == 2:
            width = min(old.shape[1], new.shape[1])
            new[:, :width] = old[:, :width]
        elif name not in ("inputs", "outputs"):
            new[:] = old
    return wide


def like(genomes: Genomes) -> Genomes:
    """Empty genomes with arrays of the same shapes."""
    return Genomes(*[np.zeros_like(array) for array in genomes[:-2]] + [genomes.inputs, genomes.outputs])


def copied(genomes: Genomes) -> Genomes:
    """A copy of all genomes."""
    return Genomes(*[array.copy() for array in genomes])


def select(genomes: Genomes, indices: Sequence[int] | np.ndarray) -> Genomes:
    """A copy of the genomes in the rows ``indices``."""
    return Genomes(*[array[indices] for array in genomes[:-2]] + [genomes.inputs, genomes.outputs])


def as_arrays(genomes: Genomes) -> dict[str, np.ndarray]:
    """Copies of the arrays by name, for a checkpoint. Unused entries are set to 0, so equal genomes have equal bytes."""
    arrays = {name: array.copy() for name, array in genomes._asdict().items()}
    for names, counts in ((NODE_GENES, genomes.nodes), (CONNECTION_GENES, genomes.connections)):
        for name in names:
            arrays[name][np.arange(arrays[name].shape[1]) >= counts[:, None]] = 0
    return arrays


def genomes_from(arrays: dict[str, Any], inputs: int, outputs: int) -> Genomes:
    """Rebuild genomes from a copy of the arrays that `as_arrays` returned. Raises ValueError if the arrays are not valid genomes.

    The arrays may come from an untrusted file, and kernels use node numbers as indices without a check. So every node number must belong
    to a node of its genome.
    """
    found = {}
    for name, kind in _KINDS.items():
        array = np.array(arrays[name])
        if array.dtype != _DTYPES[kind]:
            raise ValueError(f"{name} has dtype {array.dtype}, not {np.dtype(_DTYPES[kind])}")
        found[name] = array
    genomes = Genomes(**found)
    if (genomes.inputs.tolist(), genomes.outputs.tolist()) != ([inputs], [outputs]):
        raise ValueError(
            f"the saved genomes belong to networks of another size, not with {inputs} inputs and {outputs} outputs"
        )
    count = genomes.nodes.size
    for names, widths in ((NODE_GENES, "node"), (CONNECTION_GENES, "weight")):
        shape = (count, found[widths].shape[-1])
        if not count or any(found[name].shape != shape for name in names):
            raise ValueError(f"the arrays of genes have different shapes: {', '.join(names)}")
    for sizes, most, least in (
        (genomes.nodes, genomes.node.shape[1], outputs),
        (genomes.connections, genomes.weight.shape[1], 0),
    ):
        if sizes.shape != (count,) or sizes.min() < least or sizes.max() > most:
            raise ValueError(f"a genome has fewer than {least} or more than {most} genes")
    for i in range(count):
        _check_genes(genomes, i, inputs + outputs)
    return genomes


def _check_genes(genomes: Genomes, i: int, named: int) -> None:
    """Raise ValueError unless the genes of genome i fit together; its inputs and outputs have the numbers below ``named``."""
    outputs = int(genomes.outputs[0])
    nodes, connections = slice(0, int(genomes.nodes[i])), slice(0, int(genomes.connections[i]))
    node = genomes.node[i, nodes]
    if node[:outputs].tolist() != list(range(named - outputs, named)) or (np.diff(node) <= 0).any():
        raise ValueError(f"the nodes of genome {i} are not its outputs, followed by hidden nodes of rising numbers")
    for name, kinds in (("activation", ACTIVATIONS), ("aggregation", AGGREGATIONS)):
        values = getattr(genomes, name)[i, nodes]
        if (values < 0).any() or (values >= len(kinds)).any():
            raise ValueError(f"an {name} of genome {i} does not exist")
    source, target = genomes.source[i, connections], genomes.target[i, connections]
    known = np.concatenate([np.arange(named - outputs), node])
    if not np.isin(source, known).all() or not np.isin(target, node).all():
        raise ValueError(f"a connection of genome {i} begins or ends at a node that does not exist")
    innovation = genomes.innovation[i, connections]
    if (innovation < 0).any() or (np.diff(innovation) <= 0).any():
        raise ValueError(f"the innovation numbers of genome {i} do not rise")


def joined(a: Genomes, b: Genomes) -> Genomes:
    """The genomes of ``a``, followed by those of ``b``."""
    nodes, connections = (max(x.shape[1], y.shape[1]) for x, y in ((a.node, b.node), (a.weight, b.weight)))
    n = len(a.nodes)
    both = room_for(n + len(b.nodes), nodes, connections, int(a.inputs[0]), int(a.outputs[0]))
    for x, y, to in zip(a[:-2], b[:-2], both[:-2], strict=True):
        if to.ndim == 2:
            to[:n, : x.shape[1]], to[n:, : y.shape[1]] = x, y
        else:
            to[:n], to[n:] = x, y
    return both


class Genome(NamedTuple):
    """One genome: its genes, a population of one, and its fitness."""

    genes: Genomes
    fitness: float = float("nan")

    @property
    def hidden(self) -> int:
        """Number of hidden nodes."""
        return int(self.genes.nodes[0] - self.genes.outputs[0])

    @property
    def enabled_connections(self) -> int:
        """Number of enabled connections."""
        return int(self.genes.enabled[0, : self.genes.connections[0]].sum())

    def network(self, recurrent: bool = False) -> GraphNetwork:
        """The phenotype as a `GraphNetwork`, trainable by gradients, without the disabled connections."""
        return graph_of(self.genes, 0, recurrent)


def genome_at(genomes: Genomes, i: int, fitness: float = float("nan")) -> Genome:
    """A copy of genome i."""
    return Genome(select(genomes, [i]), fitness)


def node_name(genomes: Genomes, number: int) -> str:
    """The name of a node in a `GraphNetwork`."""
    inputs = int(genomes.inputs[0])
    outputs = int(genomes.outputs[0])
    if number < inputs:
        return f"input{number}"
    return f"output{number - inputs}" if number < inputs + outputs else f"hidden{number - inputs - outputs}"


def graph_of(genomes: Genomes, i: int, recurrent: bool) -> GraphNetwork:
    """Genome i as a `GraphNetwork`, without the disabled connections."""
    nodes = [
        {
            "name": node_name(genomes, int(genomes.node[i, k])),
            "activation": ACTIVATIONS[genomes.activation[i, k]],
            "aggregation": AGGREGATIONS[genomes.aggregation[i, k]],
            "bias": float(genomes.bias[i, k]),
        }
        for k in range(genomes.nodes[i])
    ]
    edges = [
        {
            "source": node_name(genomes, int(genomes.source[i, k])),
            "target": node_name(genomes, int(genomes.target[i, k])),
            "weight": float(genomes.weight[i, k]),
        }
        for k in range(genomes.connections[i])
        if genomes.enabled[i, k]
    ]
    return GraphNetwork.from_description(
        {
            "format": 1,
            "recurrent": recurrent,
            "inputs": [f"input{k}" for k in range(int(genomes.inputs[0]))],
            "outputs": [f"output{k}" for k in range(int(genomes.outputs[0]))],
            "nodes": nodes,
            "edges": edges,
        }
    )


def write_back(network: GraphNetwork, genomes: Genomes, i: int, limit: float = np.inf) -> None:
    """Write the weights and biases of a trained network into genome i (Lamarckian inheritance), clipped to ±``limit``."""
    weight, bias = (np.clip(x.detach().numpy(), -limit, limit) for x in (network.weight, network.bias))
    biases = dict(zip(network.nodes, bias, strict=True))
    weights = dict(zip(network.edges, weight, strict=True))
    for k in range(genomes.nodes[i]):
        genomes.bias[i, k] = biases[node_name(genomes, int(genomes.node[i, k]))]
    for k in range(genomes.connections[i]):
        ends = (node_name(genomes, int(genomes.source[i, k])), node_name(genomes, int(genomes.target[i, k])))
        if genomes.enabled[i, k]:
            genomes.weight[i, k] = weights[ends]
