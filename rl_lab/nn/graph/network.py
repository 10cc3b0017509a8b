"""GraphNetwork: named nodes and weighted edges that may change at any time, and whose weights any optimiser trains."""

import itertools
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import GraphError, ShapeError, StateError
from rl_lab.engine.launch import structure as program_structure
from rl_lab.engine.launch import unrecorded
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import as_tensor, tensor, zeros
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS
from rl_lab.nn.graph.ops import graph
from rl_lab.nn.module import Module, Parameter

FORMAT = 1
Edge = tuple[str, str]


class GrowingParameter(Parameter):
    """A vector whose elements come and go. ``ids`` tells them apart for good: an id is never given twice.

    ``followers``, such as optimisers, are told which elements remain: ``keep_rows(parameter, rows)`` says that element i was element
    rows[i] before, or is new where rows[i] is -1.
    """

    __slots__ = ("followers", "ids", "regrown")

    followers: Any
    ids: tuple[int, ...]
    regrown: int

    def __new__(cls, data: Any, ids: tuple[int, ...] = (), requires_grad: bool = True) -> "GrowingParameter":
        parameter: Any = super().__new__(cls, data, requires_grad)
        parameter.followers, parameter.ids, parameter.regrown = weakref.WeakSet(), ids, 0
        return parameter

    def __deepcopy__(self, memo: dict) -> "GrowingParameter":
        copy = GrowingParameter(super().__deepcopy__(memo), self.ids, self.needs_grad)
        memo[id(self)] = copy
        return copy

    def change(self, values: np.ndarray, ids: tuple[int, ...]) -> None:
        """Take over new elements; the gradient, and what followers keep, stays with the elements that remain."""
        rows = rows_of(self.ids, ids)
        with unrecorded(), tape.no_grad():
            gradient, self._grad = self._grad, None
            self.data = tensor(values)
            if gradient is not None:
                self._grad = kept(gradient, rows)
            for follower in list(self.followers):
                follower.keep_rows(self, rows)
        self.ids, self.regrown = ids, tape.next_sequence()

    def check_sender(self, node: tape.Node) -> None:
        """StateError for the gradient of what was computed of other elements, unless it finds those that remain."""
        if node.rule is not _as_it_is_rule:
            raise StateError(
                f"elements of this parameter came or went since {node.name} computed with it: "
                "compute with its as_it_is() what is to outlive a change of the graph"
            )

    def as_it_is(self) -> Any:
        """This vector for one computation. If elements come or go before its gradient arrives, that reaches those that remain."""
        if not (tape.modes.grad and self.needs_grad):
            return self
        return tape.attach(self.detach(), _as_it_is_rule, (self,), (), self.ids)


def _as_it_is_rule(g, node):
    (parameter,), ids = node.inputs, node.context
    return g if parameter.ids is ids else kept(g, rows_of(ids, parameter.ids))


def rows_of(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Where each id stood before, -1 for a new one."""
    places = {number: row for row, number in enumerate(before)}
    return [places.get(number, -1) for number in after]


def kept(x: Any, rows: Sequence[int]) -> Any:
    """The rows of a vector that remain, 0 where one is new; a tensor of its own."""
    with unrecorded(), tape.no_grad():
        return tensor(_kept(x.detach().numpy(), rows))


def _kept(values: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    index = np.array(rows, np.int64).reshape(-1)
    padded = np.concatenate([values, np.zeros((*values.shape[:-1], 1), values.dtype)], -1)
    return padded[..., index]


class _Node(NamedTuple):
    activation: str
    aggregation: str
    id: int


class GraphNetwork(Module):
    """A network of named nodes and weighted edges, from (batch, inputs) to (batch, outputs).

    A node's value is activation(bias + sum, or product, of weight * source over its incoming edges). ``weight`` and ``bias`` are
    vectors in the order of ``edges`` and ``nodes``. Edges go from inputs and nodes to nodes. Without ``recurrent`` they must
    not form a cycle. With it all nodes change together, once a call, from the inputs and the nodes' values before the call; these
    values are kept from call to call, apart for each size of batch, until `reset`.

    The graph may be changed at any time, also between a forward and its backward, whose gradient is that of what was computed. A
    change that makes no sense raises GraphError, a ValueError, and leaves the graph as it was. What an optimiser knows of the
    weights that remain stays with them.

    ``inputs`` and ``outputs`` are names or how many; the network begins without edges.
    """

    def __init__(
        self,
        inputs: int | Sequence[str],
        outputs: int | Sequence[str],
        *,
        recurrent: bool = False,
        output_activation: str = "identity",
    ):
        super().__init__()
        self.inputs = _names(inputs, "input")
        self.outputs = _names(outputs, "output")
        self.recurrent = bool(recurrent)
        self._last_id = -1
        self._nodes: dict[str, _Node] = {}
        self._edges: dict[Edge, int] = {}
        self._states: dict[int, Any] = {}
        self.weight = GrowingParameter(np.zeros(0, np.float32))
        self.bias = GrowingParameter(np.zeros(0, np.float32))
        if len(set(self.inputs + self.outputs)) < len(self.inputs) + len(self.outputs):
            raise GraphError("names of inputs and outputs must differ from each other")
        nodes = {name: self._node(output_activation, "sum") for name in self.outputs}
        self._change(nodes, {}, {}, {})

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that are no inputs, in the order in which they are computed and of ``bias``."""
        return self._node_order

    @property
    def edges(self) -> tuple[Edge, ...]:
        """(source, target) in the order of ``weight``."""
        return self._edge_order

    @property
    def hidden(self) -> tuple[str, ...]:
        """The nodes that are no outputs."""
        return tuple([name for name in self._node_order if name not in self.outputs])

    def activation_of(self, name: str) -> str:
        return self._known_node(name).activation

    def aggregation_of(self, name: str) -> str:
        return self._known_node(name).aggregation

    def parents(self, name: str) -> list[str]:
        """The sources of a node's edges."""
        self._known(name)
        return [source for source, target in self._edge_order if target == name]

    def children(self, name: str | None = None) -> Any:
        """The targets of a node's edges. Without a name the submodules, of which there are none, as of any module."""
        if name is None:
            return super().children()
        self._known(name)
        return [target for source, target in self._edge_order if source == name]

    def edge_index(self, source: str, target: str) -> int:
        """The place of an edge in ``weight``."""
        self._known_edge(source, target)
        return self._edge_order.index((source, target))

    def node_index(self, name: str) -> int:
        """The place of a node in ``bias``."""
        self._known_node(name)
        return self._node_order.index(name)

    # --- surgery -----------------------------------------------------------------------------------------------------

    def add_node(self, name: str | None = None, activation: str = "tanh", aggregation: str = "sum", bias: float = 0.0) -> str:
        """A node without edges; returns its name, a new one if none is given."""
        name = self._new_name(name)
        self._change({**self._nodes, name: self._node(activation, aggregation)}, self._edges, {}, {name: bias})
        return name

    def add_edge(self, source: str, target: str, weight: float = 0.0) -> None:
        """An edge; at weight 0 into a sum it leaves the output as it was."""
        self._known(source)
        self._known(target)
        if (source, target) in self._edges:
            raise GraphError(f"there is an edge from {source!r} to {target!r} already")
        edges = {**self._edges, (source, target): self._new_id()}
        self._change(self._nodes, edges, {(source, target): weight}, {})

    def split_edge(
        self, source: str, target: str, name: str | None = None, activation: str = "identity", bias: float = 0.0
    ) -> str:
        """Put a node in the middle of an edge; returns its name.

        The edge into it has weight 1, the edge out of it is the old one, with its weight (section 3.1 of Stanley and Miikkulainen
        2002). With the identity the output stays (Net2DeeperNet of Chen, Goodfellow and Shlens 2016), except that in a recurrent
        network it comes one call later.
        """
        number = self._known_edge(source, target)
        name = self._new_name(name)
        weight = float(self.weight.detach().numpy()[self._edge_order.index((source, target))])
        edges = {edge: i for edge, i in self._edges.items() if edge != (source, target)}
        edges |= {(source, name): self._new_id(), (name, target): number}
        nodes = {**self._nodes, name: self._node(activation, "sum")}
        self._change(nodes, edges, {(source, name): 1.0, (name, target): weight}, {name: bias})
        return name

    def remove_edge(self, source: str, target: str) -> None:
        self._known_edge(source, target)
        self._change(self._nodes, {e: i for e, i in self._edges.items() if e != (source, target)}, {}, {})

    def remove_node(self, name: str) -> None:
        """Remove a hidden node and its edges."""
        self._known_node(name)
        if name in self.outputs:
            raise GraphError(f"{name!r} is an output and cannot be removed")
        nodes = {n: node for n, node in self._nodes.items() if n != name}
        self._change(nodes, {e: i for e, i in self._edges.items() if name not in e}, {}, {})

    def set_activation(self, name: str, activation: str) -> None:
        node = self._known_node(name)
        _check(activation, ACTIVATIONS, "activation")
        self._change({**self._nodes, name: node._replace(activation=activation)}, self._edges, {}, {})

    def _node(self, activation: str, aggregation: str) -> _Node:
        _check(activation, ACTIVATIONS, "activation")
        _check(aggregation, AGGREGATIONS, "aggregation")
        return _Node(activation, aggregation, self._new_id())

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _known(self, name: str) -> None:
        if name not in self._nodes and name not in self.inputs:
            raise GraphError(f"there is no node {name!r}")

    def _known_node(self, name: str) -> _Node:
        self._known(name)
        if name not in self._nodes:
            raise GraphError(f"{name!r} is an input")
        return self._nodes[name]

    def _known_edge(self, source: str, target: str) -> int:
        self._known(source)
        self._known(target)
        if (source, target) not in self._edges:
            raise GraphError(f"there is no edge from {source!r} to {target!r}")
        return self._edges[source, target]

    def _new_name(self, name: str | None) -> str:
        if name is None:
            return next(n for n in map("hidden{}".format, itertools.count()) if n not in self._nodes and n not in self.inputs)
        if not isinstance(name, str) or not name:
            raise GraphError(f"a node's name is a word, not {name!r}")
        if name in self._nodes or name in self.inputs:
            raise GraphError(f"there is a node {name!r} already")
        return name

    def _change(
        self, nodes: dict[str, _Node], edges: dict[Edge, int], weights: dict[Edge, float], biases: dict[str, float]
    ) -> None:
        """Become the graph of these nodes and edges. Whatever makes no sense is found before anything has changed."""
        for source, target in edges:
            if target in self.inputs:
                raise GraphError(f"an edge cannot lead to the input {target!r}")
            if source == target and not self.recurrent:
                raise GraphError(f"an edge from {source!r} to itself needs a recurrent network")
        node_order = tuple(sorted(nodes)) if self.recurrent else _topological(self.inputs, nodes, edges)
        rows = {name: row for row, name in enumerate((*self.inputs, *node_order))}
        # the order depends on names alone, not on how the graph came about: equal graphs round equally
        edge_order = tuple(sorted(edges, key=lambda edge: (rows[edge[1]], rows[edge[0]])))
        bias_ids, weight_ids = tuple(nodes[n].id for n in node_order), tuple(edges[e] for e in edge_order)
        bias = _kept(self.bias.detach().numpy(), state_rows := rows_of(self.bias.ids, bias_ids))
        weight = _kept(self.weight.detach().numpy(), rows_of(self.weight.ids, weight_ids))
        for values, order, new in ((bias, node_order, biases), (weight, edge_order, weights)):
            for key, value in new.items():
                values[order.index(key)] = value
        if bias_ids != self.bias.ids:
            self.bias.change(bias, bias_ids)
            self._states = {batch: kept(state, state_rows) for batch, state in self._states.items()}
        if weight_ids != self.weight.ids:
            self.weight.change(weight, weight_ids)
        self._nodes, self._edges = nodes, edges
        self._node_order, self._edge_order = node_order, edge_order
        emitted = node_order if self.recurrent else self.outputs
        self._sizes = (len(self.inputs), len(node_order), len(emitted), self.recurrent)
        with unrecorded():
            self._structure = tensor(np.array(self._encode(emitted), np.int64))
            self._output_rows = tensor(np.array([rows[name] - len(self.inputs) for name in self.outputs], np.int64))
        program_structure.changed()

    def _encode(self, emitted: Sequence[str]) -> list[int]:
        """The structure as kernels read it: see `nn.graph.kernels`."""
        rows = {name: row for row, name in enumerate((*self.inputs, *self._node_order))}
        sources: dict[str, list[int]] = {name: [] for name in self._node_order}
        for source, target in self._edge_order:
            sources[target].append(rows[source])
        words = [len(self.inputs), len(self._node_order), len(emitted), int(self.recurrent), *[rows[name] for name in emitted]]
        for name, places in sources.items():
            node = self._nodes[name]
            words += [ACTIVATIONS.index(node.activation), AGGREGATIONS.index(node.aggregation), len(places), *places]
        return words

    # --- computing ---------------------------------------------------------------------------------------------------

    def forward(self, input: Any, state: Any = None) -> Any:
        """Outputs (..., outputs) for ``input`` (..., inputs).

        A recurrent network called with a ``state`` (batch, nodes) returns (outputs, next state), through both of which gradients
        flow. Called without, it goes on from the state that it keeps, where gradients end.
        """
        if input.dtype is not float32 or not input.shape or input.shape[-1] != len(self.inputs):
            raise ShapeError(
                f"a graph network with {len(self.inputs)} inputs takes float32 (..., {len(self.inputs)}), "
                f"got {input.dtype.name} {list(input.shape)}"
            )
        x = input if len(input.shape) == 2 else input.reshape(-1, len(self.inputs))
        weight, bias = self.weight.as_it_is(), self.bias.as_it_is()
        if not self.recurrent:
            if state is not None:
                raise GraphError("a feed-forward network has no state")
            out = graph(x, None, weight, bias, self._structure, self._sizes)
            return out if x is input else out.reshape((*input.shape[:-1], len(self.outputs)))
        shape = (x.shape[0], len(self._node_order))
        if state is not None and (state.dtype is not float32 or state.shape != shape):
            raise ShapeError(f"the state must be float32 {list(shape)}, got {state.dtype.name} {list(state.shape)}")
        before = self._state_for(x.shape[0]) if state is None else state
        after = graph(x, before, weight, bias, self._structure, self._sizes)
        out = after.index_select(1, self._output_rows).reshape((*input.shape[:-1], len(self.outputs)))
        if state is not None:
            return out, after
        with tape.no_grad():
            before.copy_(after)
        return out

    def _state_for(self, batch: int) -> Any:
        if batch not in self._states:
            with unrecorded():
                self._states[batch] = zeros((batch, len(self._node_order)))
        return self._states[batch]

    def reset(self, begins: Any = None) -> None:
        """Set the state that a recurrent network keeps to 0; ``begins`` (batch,) tells where in the batch an episode begins."""
        with tape.no_grad():
            if begins is None:
                for state in self._states.values():
                    state.zero_()
                return
            begins = as_tensor(begins)
            state = self._state_for(begins.shape[0])
            state.copy_(where(begins.unsqueeze(1), 0.0, state))

    # --- as data -----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The network as plain data, which `from_description` makes a network of again, equal bit for bit."""
        biases = dict(zip(self._node_order, self.bias.detach().tolist(), strict=True))
        weights = dict(zip(self._edge_order, self.weight.detach().tolist(), strict=True))
        return {
            "format": FORMAT,
            "recurrent": self.recurrent,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "nodes": [
                {"name": name, "activation": node.activation, "aggregation": node.aggregation, "bias": biases[name]}
                for name, node in self._nodes.items()
            ],
            "edges": [{"source": s, "target": t, "weight": weights[s, t]} for s, t in self._edges],
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "GraphNetwork":
        """The network that `describe` told of. GraphError if it cannot be one."""
        try:
            if description["format"] != FORMAT:
                raise GraphError(f"a graph network of format {description['format']}, this version reads format {FORMAT}")
            network = cls(description["inputs"], description["outputs"], recurrent=description["recurrent"])
            nodes = {n["name"]: network._node(n["activation"], n["aggregation"]) for n in description["nodes"]}
            edges = {(e["source"], e["target"]): network._new_id() for e in description["edges"]}
            biases = {n["name"]: float(n["bias"]) for n in description["nodes"]}
            weights = {(e["source"], e["target"]): float(e["weight"]) for e in description["edges"]}
        except (KeyError, TypeError) as error:
            raise GraphError(f"not the description of a graph network: {error!r}") from None
        if len(nodes) != len(description["nodes"]) or len(edges) != len(description["edges"]):
            raise GraphError("a node or an edge is described twice")
        if missing := [name for name in network.outputs if name not in nodes]:
            raise GraphError(f"the outputs {', '.join(missing)} are not among the nodes")
        for edge in edges:
            for name in edge:
                if name not in nodes and name not in network.inputs:
                    raise GraphError(f"there is no node {name!r}")
        if clash := [name for name in nodes if name in network.inputs]:
            raise GraphError(f"{', '.join(clash)} is both an input and a node")
        network._change(nodes, edges, weights, biases)
        return network

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """(structure int32, numbers float32) as `nn.graph.kernels.activate` takes them; a copy of the weights as they are."""
        numbers: list[np.ndarray] = []
        bias, weight = self.bias.detach().numpy(), self.weight.detach().numpy()
        start = 0
        for i, name in enumerate(self._node_order):
            count = sum(target == name for _, target in self._edge_order)
            numbers += [bias[i : i + 1], weight[start : start + count]]
            start += count
        return np.array(self._encode(self.outputs), np.int32), np.concatenate(numbers).astype(np.float32)

    def extra_repr(self) -> str:
        kind = "recurrent" if self.recurrent else "feed-forward"
        return f"{kind}, {len(self.inputs)} inputs, {len(self.outputs)} outputs, {len(self.hidden)} hidden, {len(self._edges)} edges"


def _names(given: int | Sequence[str], kind: str) -> tuple[str, ...]:
    if isinstance(given, int):
        if given < 1:
            raise GraphError(f"a graph network needs at least one {kind}, got {given}")
        return tuple(f"{kind}{i}" for i in range(given))
    if isinstance(given, str) or not given or not all(isinstance(name, str) and name for name in given):
        raise GraphError(f"{kind}s are a number or a list of names, not {given!r}")
    return tuple(given)


def _check(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise GraphError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


def layers(inputs: Iterable[str], nodes: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    """Each name's longest distance from a name without edges into it. Names on a cycle, or behind one, are left out."""
    depth = dict.fromkeys((*inputs, *nodes), 0)
    waiting = dict.fromkeys(depth, 0)
    following: dict[str, list[str]] = {name: [] for name in depth}
    for source, target in edges:
        waiting[target] += 1
        following[source].append(target)
    ready = [name for name, count in waiting.items() if not count]
    for name in ready:  # grows while it is walked
        for target in following[name]:
            depth[target] = max(depth[target], depth[name] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return {name: depth[name] for name in ready}


def _topological(inputs: Sequence[str], nodes: Iterable[str], edges: Iterable[Edge]) -> tuple[str, ...]:
    nodes, edges = list(nodes), list(edges)
    depth = layers(inputs, nodes, edges)
    if left := [name for name in nodes if name not in depth]:
        raise GraphError(f"the edges form a cycle through {', '.join(sorted(left)[:5])}: a cycle needs a recurrent network")
    return tuple(sorted(nodes, key=lambda name: (depth[name], name)))
