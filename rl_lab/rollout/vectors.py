"""Networks of one architecture as vectors of parameters, for agents that search in the space of parameters."""

import copy
from collections.abc import Callable, Iterator

import numpy as np

import rl_lab as rl
from rl_lab.nn import GraphNetwork, Module
from rl_lab.nn.activation import ReLU, Sigmoid, Tanh
from rl_lab.nn.containers import Sequential
from rl_lab.nn.graph.kernels import ACTIVATIONS, HEADER, SUM
from rl_lab.nn.layers import Flatten, Linear
from rl_lab.nn.pictures import PictureInput
from rl_lab.rollout.actions import ActionMapping
from rl_lab.rollout.normalizers import RunningMoments
from rl_lab.rollout.policies import masked
from rl_lab.rollout.population import GraphActors, Played

_KINDS: dict[type[Module], str] = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid"}
IDENTITY = ACTIVATIONS.index("identity")
CLAMPED = ACTIVATIONS.index("clamped")


class Encoding:
    """An architecture in the form that `nn.graph.kernels.activate` reads: one node per unit.

    ``structure`` is int32. The numbers of a network with the parameters v are ``v[places] * factors``, where ``places`` is -1 for the
    two numbers of each input's own node, which normalizes the input.
    """

    def __init__(self, inputs: int, outputs: int, normal: tuple[int, float] | None):
        """With ``normal``, an activation and the factor of its result, each input has a node of its own."""
        self.inputs = inputs
        self.outputs = outputs
        self.nodes = 0
        self.factors: list[float] = []
        self.places: list[int] = []
        self._words: list[int] = []
        self._first = 0 if normal is None else inputs  # the row of the first (normalized) input
        self._scale = 1.0 if normal is None else normal[1]
        self.normalizing = 0 if normal is None else inputs
        if normal is not None:
            for i in range(inputs):
                self._node(normal[0], SUM, [i], [-1, -1])

    def _node(self, activation: int, aggregation: int, rows: list[int], places: list[int]) -> None:
        """Append a node with its bias and weights at ``places`` of the parameters."""
        self._words += [activation, aggregation, len(rows), *rows]
        self.places += places
        self.factors += [1.0] * len(places)
        self.nodes += 1

    def _from_inputs(self, count: int) -> None:
        """Multiply the latest ``count`` numbers, weights of normalized inputs, by the factor of the inputs' nodes."""
        if count:
            self.factors[-count:] = [self._scale] * count

    def layer(self, rows: int, layer: Linear, activation: int, first: int) -> int:
        """Append a linear layer that sees the rows from ``rows`` on; returns its first row. Its parameters begin at ``first``."""
        begin = self.inputs + self.nodes
        size, width = layer.out_features, layer.in_features
        for unit in range(size):
            weights = range(first + unit * width, first + (unit + 1) * width)
            self._node(activation, SUM, list(range(rows, rows + width)), [first + size * width + unit, *weights])
            self._from_inputs(width if rows == self._first else 0)
        return begin

    def graph(self, network: GraphNetwork, first: int) -> list[int]:
        """Append the nodes of a feed-forward network whose weights begin at ``first``; returns the rows of its outputs."""
        words = network._structure.numpy().tolist()
        shift = self.normalizing
        place, edge = HEADER + words[2], first
        bias = first + len(network.edges)
        for node in range(words[1]):
            kind, aggregation, count = words[place : place + 3]
            rows = words[place + 3 : place + 3 + count]
            self._node(kind, aggregation, [row + shift for row in rows], [bias + node, *range(edge, edge + count)])
            for e, row in enumerate(rows):
                if row < self.inputs:
                    self.factors[len(self.factors) - count + e] = self._scale
            place += 3 + count
            edge += count
        return [words[HEADER + o] + shift for o in range(words[2])]

    def finish(self, rows: list[int]) -> None:
        """Set the rows of the outputs."""
        self.structure = np.array([self.inputs, self.nodes, self.outputs, 0, *rows, *self._words], np.int32)


def encode(network: Sequential, inputs: int, moments: RunningMoments | None) -> Encoding | None:
    """The encoding of a network from observations of ``inputs`` numbers; None for one with other modules, such as convolutions.

    The observations are normalized by ``moments`` first, if given.
    """
    modules = list(network)
    scale = 1.0
    while modules and isinstance(modules[0], (PictureInput, Flatten)):
        first = modules.pop(0)
        if isinstance(first, PictureInput):
            if first.picture is not None:
                return None
            scale = first.scale
    if not modules:
        return None
    normal = (CLAMPED, moments.clip) if moments is not None else (IDENTITY, 1.0) if scale != 1.0 else None
    if len(modules) == 1 and isinstance(modules[0], GraphNetwork) and not modules[0].recurrent:
        made = Encoding(inputs, len(modules[0].outputs), normal)
        made.finish(made.graph(modules[0], 0))
        return made
    last = modules[-1]
    if not isinstance(last, Linear):
        return None
    made = Encoding(inputs, last.out_features, normal)
    row, first_parameter = made.normalizing, 0
    for i, module in enumerate(modules):
        if type(module) in _KINDS and i and isinstance(modules[i - 1], Linear):
            continue
        if not isinstance(module, Linear) or module.bias is None:
            return None
        following = modules[i + 1] if i + 1 < len(modules) else None
        kind = (
            IDENTITY if following is None else ACTIVATIONS.index(_KINDS[type(following)]) if type(following) in _KINDS else -1
        )
        if kind < 0:
            return None
        row = made.layer(row, module, kind, first_parameter)
        first_parameter += (module.in_features + 1) * module.out_features
    made.finish(list(range(row, row + made.outputs)))
    return made


class VectorNetworks:
    """Copies of a network with the parameters ``vectors`` (population, size): a `rl_lab.rollout.population.Population`.

    ``structures`` and ``numbers`` are the copies in the form of the native collector, or None for a network with other layers than
    fully connected ones.
    """

    def __init__(self, maker: "VectorMaker", vectors: np.ndarray):
        self.inputs = maker.inputs
        self.outputs = maker.outputs
        self._maker = maker
        self._vectors = vectors
        self.structures: np.ndarray | None = None
        self.numbers: np.ndarray | None = None
        code = maker.encoding
        if code is not None:
            self.structures = np.tile(code.structure, (len(vectors), 1))
            self.numbers = np.ascontiguousarray(vectors[:, maker.places] * maker.factors)
            if code.normalizing:
                shift, scale = maker.normal_numbers()
                self.numbers[:, : 2 * code.normalizing : 2] = shift
                self.numbers[:, 1 : 2 * code.normalizing : 2] = scale

    @property
    def state_size(self) -> int:
        """Float32 numbers of state that `nn.graph.kernels.activate` needs for one network."""
        assert self._maker.encoding is not None
        return self.inputs + self._maker.encoding.nodes

    def actors(self, slots: int) -> "GraphActors | ModuleActors":
        """Make room for ``slots`` networks that play episodes side by side."""
        if self.structures is not None and self.numbers is not None:
            return GraphActors(self.structures, self.numbers, self.state_size, slots)
        return ModuleActors(self._maker, self._vectors, slots)

    def __len__(self) -> int:
        return len(self._vectors)


class VectorMaker:
    """Makes `VectorNetworks` of the architecture of ``network``, which sees observations normalized by ``moments``, if given."""

    def __init__(self, network: Sequential, inputs: int, outputs: int, moments: RunningMoments | None):
        self.network = network
        self.inputs = inputs
        self.outputs = outputs
        self.moments = moments
        self.encoding = encode(network, inputs, moments)
        if self.encoding is not None:
            self.places = np.array(self.encoding.places, np.int64)
            self.factors = np.array(self.encoding.factors, np.float32)
        self._slots: list[tuple[Module, Callable[[rl.Tensor], rl.Tensor]]] = []

    def __call__(self, vectors: np.ndarray) -> VectorNetworks:
        """Copies of the network with the parameters ``vectors``, float32 (population, size)."""
        return VectorNetworks(self, np.asarray(vectors, np.float32))

    def normal_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The bias and the weight (inputs,) of the inputs' own nodes."""
        if self.moments is None:
            scales = [module.scale for module in self.network if isinstance(module, PictureInput)]
            return np.zeros(self.inputs, np.float32), np.full(self.inputs, scales[0], np.float32)
        mean = self.moments.mean.numpy().reshape(-1)
        scale = 1.0 / (np.sqrt(self.moments.var.numpy().reshape(-1) + self.moments.epsilon) * self.moments.clip)
        return -mean * scale, scale

    def slots(self, count: int) -> list[tuple[Module, Callable[[rl.Tensor], rl.Tensor]]]:
        """``count`` copies of the network, each with its recorded forward pass. They are made once."""
        while len(self._slots) < count:
            own = copy.deepcopy(self.network)
            self._slots.append((own, rl.compile(rl.no_grad()(own.forward))))
        return self._slots[:count]


class ModuleActors:
    """Networks that act by their own forward pass, one copy of the module in each slot."""

    def __init__(self, maker: VectorMaker, vectors: np.ndarray, slots: int):
        self._maker = maker
        self._vectors = vectors
        self._slots = maker.slots(slots)

    def begin(self, slots: np.ndarray, chosen: np.ndarray) -> None:
        for slot, k in zip(slots.tolist(), chosen.tolist(), strict=True):
            set_parameters(self._slots[slot][0], self._vectors[k])

    def forward(self, observations: np.ndarray, playing: np.ndarray, outputs: np.ndarray) -> None:
        moments = self._maker.moments
        for i in np.flatnonzero(playing).tolist():
            x = rl.from_numpy(np.ascontiguousarray(observations[i : i + 1]))
            outputs[i] = self._slots[i][1](x if moments is None else moments.normalize(x)).numpy()[0]


def parameters_of(network: Module) -> np.ndarray:
    """The parameters of a network as one vector, float32 (size,)."""
    return np.concatenate([p.detach().numpy().reshape(-1) for p in network.parameters()])


def set_parameters(network: Module, vector: np.ndarray) -> None:
    """Give a network the parameters of ``vector`` (size,)."""
    with rl.no_grad():
        for p, part in _parts(network, vector):
            p.copy_(part)


def set_gradients(network: Module, vector: np.ndarray) -> None:
    """Give the parameters of a network the gradients of ``vector`` (size,)."""
    for p, part in _parts(network, vector):
        p.grad = part


def _parts(network: Module, vector: np.ndarray) -> Iterator[tuple[rl.nn.Parameter, rl.Tensor]]:
    """Each parameter with its part of a vector, as a tensor of its shape."""
    begin = 0
    for p in network.parameters():
        end = begin + p.numel()
        yield p, rl.tensor(np.ascontiguousarray(vector[begin:end], np.float32).reshape(tuple(p.shape)))
        begin = end


def update_moments(moments: RunningMoments, played: Played) -> None:
    """Add all observations of episodes to the statistics; the episodes must have been played with ``summed``."""
    count = int(played.lengths.sum())
    total, squares = played.sums.sum(0)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    shape = tuple(moments.mean.shape)
    moments.merge(float(count), *(rl.tensor(part.reshape(shape).astype(np.float32)) for part in (mean, variance)))


def best_actions(mapping: ActionMapping, outputs: rl.Tensor, action_mask: rl.Tensor | None = None) -> rl.Tensor:
    """A policy's actions (batch, *shape) for outputs (batch, options + size): the largest option of each choice, and the components."""
    count = mapping.num_masked
    components = outputs[:, count:] if mapping.choices else outputs
    if not mapping.choices:
        return components
    options = masked(outputs[:, :count] if mapping.size else outputs, action_mask)
    chosen = [group.argmax(1) for group in options.split(list(mapping.choices), 1)]
    if not mapping.size:
        return chosen[0] if mapping.shape == () else rl.stack(chosen, 1)
    return rl.cat([rl.stack(chosen, 1).float(), components], 1)
