"""GraphNetwork: a network of named nodes and weighted edges. Any optimiser trains its weights; its graph can change at any time."""

import itertools
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.draw import Drawing
from rl_lab.engine.dtype import float32
from rl_lab.engine.errors import GraphError, ShapeError, StateError
from rl_lab.engine.launch import changes, unrecorded
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import as_tensor, tensor, zeros
from rl_lab.engine.svg import Box, Line
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS
from rl_lab.nn.graph.ops import graph
from rl_lab.nn.module import Module, Parameter

FORMAT = 1
Edge = tuple[str, str]


class Follower(Protocol):
    """An object, such as an optimiser, that keeps one value per element of a `GrowingParameter`."""

    def keep_rows(self, parameter: "GrowingParameter", rows: list[int]) -> None:
        """Rearrange the values of ``parameter``: element i was element ``rows[i]`` before, or is new where ``rows[i]`` is -1."""


class GrowingParameter(Parameter):
    """A vector whose elements can be added and removed.

    ``ids`` holds one identifier per element; an identifier is never reused. Each change is announced to the ``followers``.
    """

    __slots__ = ("followers", "ids", "regrown")

    followers: "weakref.WeakSet[Follower]"
    ids: tuple[int, ...]
    regrown: int

    def __new__(cls, data: Any, ids: tuple[int, ...] = (), requires_grad: bool = True) -> "GrowingParameter":
        parameter = super().__new__(cls, data, requires_grad)
        parameter.followers = weakref.WeakSet()
        parameter.ids = ids
        parameter.regrown = 0
        return parameter

    def __deepcopy__(self, memo: dict[int, Any]) -> "GrowingParameter":
        copy = GrowingParameter(super().__deepcopy__(memo), self.ids, self.needs_grad)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Pickle without the followers, which are weak references: an optimizer that is unpickled follows again."""
        return GrowingParameter, (self.detach(), self.ids, self.needs_grad)

    def change(self, values: np.ndarray, ids: tuple[int, ...]) -> None:
        """Replace the elements by ``values`` with the identifiers ``ids``.

        Elements whose identifier is kept also keep their gradient and the values that the followers hold for them.
        """
        rows = rows_of(self.ids, ids)
        with unrecorded(), tape.no_grad():
            gradient = self._grad
            self._grad = None
            self.data = tensor(values)
            if gradient is not None:
                self._grad = kept(gradient, rows)
            for follower in list(self.followers):
                follower.keep_rows(self, rows)
        self.ids = ids
        self.regrown = tape.next_sequence()

    def check_sender(self, node: tape.Node) -> None:
        """Raise StateError if ``node`` used this parameter before its elements changed, other than through `as_it_is`."""
        if node.rule is not _as_it_is_rule:
            raise StateError(
                f"elements of this parameter were added or removed after {node.name} used it: "
                "use its as_it_is() in computations whose gradient arrives after a change of the graph"
            )

    def as_it_is(self) -> Tensor:
        """Return this vector for use in one computation.

        If elements are added or removed before its gradient arrives, the remaining elements still receive their gradients.
        """
        if not (tape.modes.grad and self.needs_grad):
            return self
        return tape.attach(self.detach(), _as_it_is_rule, (self,), (), self.ids)


def _as_it_is_rule(g, node):
    (parameter,) = node.inputs
    ids = node.context
    return g if parameter.ids is ids else kept(g, rows_of(ids, parameter.ids))


def rows_of(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Row in ``before`` of each id in ``after``, -1 for a new id."""
    previous_rows = {number: row for row, number in enumerate(before)}
    return [previous_rows.get(number, -1) for number in after]


def kept(x: Tensor, rows: Sequence[int]) -> Tensor:
    """New tensor with the elements ``rows`` of the last dimension of x, and 0 where a row is -1."""
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

    The value of a node is activation(bias + aggregation of weight * source over the incoming edges), where the aggregation is a sum
    or a product. An edge leads from an input or a node to a node. ``weight`` holds one element per edge in the order of ``edges``;
    ``bias`` holds one element per node in the order of ``nodes``.

    A feed-forward network must not contain a cycle. A ``recurrent`` network may: each call updates all nodes at once, from the inputs
    and from the values that the nodes had before the call. The network keeps these values between calls, separately for each batch
    size, until `reset`.

    The graph can be changed at any time, even between a forward pass and its backward pass: the backward pass gives the gradient of
    the graph that the forward pass computed. An invalid change raises GraphError (a ValueError) and leaves the graph unchanged. An
    optimiser keeps its state for every weight that remains.

    ``inputs`` and ``outputs`` are lists of names, or counts. A new network has no edges.
    """

    weight: GrowingParameter
    bias: GrowingParameter
    _nodes: dict[str, _Node]
    _edges: dict[Edge, int]
    _node_order: tuple[str, ...]
    _edge_order: tuple[Edge, ...]
    _structure: Tensor
    _output_rows: Tensor

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
        self._nodes = {}
        self._edges = {}
        self._states: dict[int, Tensor] = {}
        self.weight = GrowingParameter(np.zeros(0, np.float32))
        self.bias = GrowingParameter(np.zeros(0, np.float32))
        if len(set(self.inputs + self.outputs)) < len(self.inputs) + len(self.outputs):
            raise GraphError("every input and output needs a name of its own")
        nodes = {name: self._node(output_activation, "sum") for name in self.outputs}
        self._change(nodes, {}, {}, {})

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, inputs not included, in the order of computation. ``bias`` has the same order."""
        return self._node_order

    @property
    def edges(self) -> tuple[Edge, ...]:
        """(source, target) of each edge, in the order of ``weight``."""
        return self._edge_order

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of the nodes that are not outputs, in the order of computation."""
        return tuple([name for name in self._node_order if name not in self.outputs])

    def activation_of(self, name: str) -> str:
        """Name of a node's activation. Raises GraphError if there is no such node."""
        return self._known_node(name).activation

    def aggregation_of(self, name: str) -> str:
        """Name of a node's aggregation, ``sum`` or ``product``. Raises GraphError if there is no such node."""
        return self._known_node(name).aggregation

    def parents(self, name: str) -> list[str]:
        """Names of the inputs and nodes with an edge to ``name``. Raises GraphError if there is no such node."""
        self._known(name)
        return [source for source, target in self._edge_order if target == name]

    @overload
    def children(self, name: None = None) -> Iterator[Module]: ...

    @overload
    def children(self, name: str) -> list[str]: ...

    def children(self, name: str | None = None) -> Iterator[Module] | list[str]:
        """Names of the nodes to which ``name`` has an edge. Raises GraphError if there is no such node.

        Without a name: the submodules, as for any module. A graph network has none.
        """
        if name is None:
            return super().children()
        self._known(name)
        return [target for source, target in self._edge_order if source == name]

    def drawing(self) -> Drawing:
        """The graph as `rl_lab.draw_graph` draws it: blue and orange edges for positive and negative weights."""
        names = [*self.inputs, *self.nodes]
        number = {name: i for i, name in enumerate(names)}
        biases = dict(zip(self.nodes, self.bias.detach().tolist(), strict=True))
        boxes = [Box((name,), "#edf2f7") for name in self.inputs]
        for name in self.nodes:
            kind = self.activation_of(name) + (" of product" if self.aggregation_of(name) == "product" else "")
            fill = "#c6f6d5" if name in self.outputs else "#fefcbf"
            boxes.append(Box((name, kind, f"bias {biases[name]:.3g}"), fill, round=True))
        weights = self.weight.detach().tolist()
        largest = max([abs(weight) for weight in weights if math.isfinite(weight)], default=0.0) or 1.0
        lines = []
        for (source, target), weight in zip(self.edges, weights, strict=True):
            color = "black" if math.isnan(weight) else "#2b6cb0" if weight >= 0 else "#c05621"
            strength = 0.0 if math.isnan(weight) else min(1.0, abs(weight) / largest)
            lines.append(Line(number[source], number[target], color, 0.6 + 2.4 * strength))
        return Drawing(boxes, lines)

    def _repr_html_(self) -> None:
        """Return None, so that a notebook uses `_repr_svg_`: it would prefer HTML."""

    def _repr_svg_(self) -> str:
        """What a notebook shows: `draw_network` of `rl_lab.nn.graph.picture` where matplotlib is installed, otherwise `drawing`."""
        from rl_lab.nn.graph.picture import as_svg

        return as_svg(self)

    def edge_index(self, source: str, target: str) -> int:
        """Index of an edge in ``weight``. Raises GraphError if there is no such edge."""
        self._known_edge(source, target)
        return self._edge_order.index((source, target))

    def node_index(self, name: str) -> int:
        """Index of a node in ``bias``. Raises GraphError if there is no such node."""
        self._known_node(name)
        return self._node_order.index(name)

    # --- surgery -----------------------------------------------------------------------------------------------------

    def add_node(self, name: str | None = None, activation: str = "tanh", aggregation: str = "sum", bias: float = 0.0) -> str:
        """Add a hidden node without edges and return its name, which is generated if not given. Raises GraphError on a taken name."""
        name = self._new_name(name)
        self._change({**self._nodes, name: self._node(activation, aggregation)}, self._edges, {}, {name: bias})
        return name

    def add_edge(self, source: str, target: str, weight: float = 0.0) -> None:
        """Add an edge. With weight 0 into a summing node the outputs stay unchanged.

        Raises GraphError if an end does not exist, if the edge exists already, or if it closes a cycle in a feed-forward network.
        """
        self._known(source)
        self._known(target)
        if (source, target) in self._edges:
            raise GraphError(f"there is already an edge from {source!r} to {target!r}: set its element of ``weight``")
        edges = {**self._edges, (source, target): self._new_id()}
        self._change(self._nodes, edges, {(source, target): weight}, {})

    def split_edge(
        self, source: str, target: str, name: str | None = None, activation: str = "identity", bias: float = 0.0
    ) -> str:
        """Insert a node into an edge and return the name of the node.

        The edge into the new node has weight 1. The edge out of the new node keeps the weight of the old edge (Stanley and
        Miikkulainen 2002, section 3.1). With the identity activation the outputs stay unchanged (Net2DeeperNet, Chen, Goodfellow
        and Shlens 2016), except that a recurrent network delays them by one call. Raises GraphError if there is no such edge.
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
        """Remove an edge. Raises GraphError if there is no such edge."""
        self._known_edge(source, target)
        self._change(self._nodes, {e: i for e, i in self._edges.items() if e != (source, target)}, {}, {})

    def remove_node(self, name: str) -> None:
        """Remove a hidden node and its edges. Raises GraphError if ``name`` is not a hidden node."""
        self._known_node(name)
        if name in self.outputs:
            raise GraphError(f"{name!r} is an output and cannot be removed")
        nodes = {n: node for n, node in self._nodes.items() if n != name}
        self._change(nodes, {e: i for e, i in self._edges.items() if name not in e}, {}, {})

    def set_activation(self, name: str, activation: str) -> None:
        """Replace a node's activation by one of `kernels.ACTIVATIONS`. Raises GraphError if the node or the activation is unknown."""
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
            raise GraphError(f"there is no node {name!r}: the nodes are {', '.join([*self.inputs, *self._nodes][:20])}")

    def _known_node(self, name: str) -> _Node:
        self._known(name)
        if name not in self._nodes:
            raise GraphError(f"{name!r} is an input: inputs have no bias, activation or incoming edges")
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
            raise GraphError(f"the name of a node must be a non-empty string, got {name!r}")
        if name in self._nodes or name in self.inputs:
            raise GraphError(f"there is already a node {name!r}")
        return name

    def _change(
        self, nodes: dict[str, _Node], edges: dict[Edge, int], weights: dict[Edge, float], biases: dict[str, float]
    ) -> None:
        """Replace the graph by ``nodes`` and ``edges``. Raises GraphError, before anything has changed, if the new graph is invalid."""
        for source, target in edges:
            if target in self.inputs:
                raise GraphError(f"the input {target!r} cannot be the target of an edge")
            if source == target and not self.recurrent:
                raise GraphError(f"an edge from {source!r} to itself needs a network with recurrent=True")
        node_order = tuple(sorted(nodes)) if self.recurrent else _topological(self.inputs, nodes, edges)
        rows = {name: row for row, name in enumerate((*self.inputs, *node_order))}
        # the order depends on the names and not on the history of the graph, so equal graphs round equally
        edge_order = tuple(sorted(edges, key=lambda edge: (rows[edge[1]], rows[edge[0]])))
        bias_ids = tuple(nodes[n].id for n in node_order)
        weight_ids = tuple(edges[e] for e in edge_order)
        state_rows = rows_of(self.bias.ids, bias_ids)
        bias = _kept(self.bias.detach().numpy(), state_rows)
        weight = _kept(self.weight.detach().numpy(), rows_of(self.weight.ids, weight_ids))
        for name, value in biases.items():
            bias[node_order.index(name)] = value
        for edge, value in weights.items():
            weight[edge_order.index(edge)] = value
        if bias_ids != self.bias.ids:
            self.bias.change(bias, bias_ids)
            self._states = {batch: kept(state, state_rows) for batch, state in self._states.items()}
        if weight_ids != self.weight.ids:
            self.weight.change(weight, weight_ids)
        self._nodes = nodes
        self._edges = edges
        self._node_order = node_order
        self._edge_order = edge_order
        emitted = node_order if self.recurrent else self.outputs
        self._sizes = (len(self.inputs), len(node_order), len(emitted), self.recurrent)
        with unrecorded():
            self._structure = tensor(np.array(self._encode(emitted), np.int64))
            self._output_rows = tensor(np.array([rows[name] - len(self.inputs) for name in self.outputs], np.int64))
        changes.note(self)

    def _encode(self, emitted: Sequence[str]) -> list[int]:
        """Encode the graph in the format that `nn.graph.kernels` reads. ``emitted`` names the nodes that the kernel returns."""
        rows = {name: row for row, name in enumerate((*self.inputs, *self._node_order))}
        sources: dict[str, list[int]] = {name: [] for name in self._node_order}
        for source, target in self._edge_order:
            sources[target].append(rows[source])
        words = [len(self.inputs), len(self._node_order), len(emitted), int(self.recurrent), *[rows[name] for name in emitted]]
        for name, source_rows in sources.items():
            node = self._nodes[name]
            words += [ACTIVATIONS.index(node.activation), AGGREGATIONS.index(node.aggregation), len(source_rows), *source_rows]
        return words

    # --- computing ---------------------------------------------------------------------------------------------------

    @overload
    def forward(self, input: Tensor, state: None = None) -> Tensor: ...

    @overload
    def forward(self, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, input: Tensor, state: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Outputs (..., outputs) for float32 ``input`` (..., inputs).

        A recurrent network that is called with ``state`` (batch, nodes) returns (outputs, next state); gradients flow through both.
        Called without ``state``, a recurrent network continues from the state that it keeps; gradients stop at that state.
        Raises ShapeError if a shape or dtype does not fit, GraphError if a feed-forward network gets a state.
        """
        if input.dtype is not float32 or not input.shape or input.shape[-1] != len(self.inputs):
            raise ShapeError(
                f"a graph network with {len(self.inputs)} inputs takes float32 (..., {len(self.inputs)}), "
                f"got {input.dtype.name} {list(input.shape)}"
            )
        x = input if len(input.shape) == 2 else input.reshape(-1, len(self.inputs))
        weight = self.weight.as_it_is()
        bias = self.bias.as_it_is()
        if not self.recurrent:
            if state is not None:
                raise GraphError("a feed-forward network has no state: leave it out, or make the network with recurrent=True")
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

    if TYPE_CHECKING:
        __call__ = forward

    def _state_for(self, batch: int) -> Tensor:
        if batch not in self._states:
            with unrecorded():
                self._states[batch] = zeros((batch, len(self._node_order)))
        return self._states[batch]

    def reset(self, begins: Tensor | np.ndarray | Sequence[bool] | None = None) -> None:
        """Set the state that a recurrent network keeps to 0.

        With ``begins``, a bool mask (batch,), only the rows in which an episode begins are reset.
        """
        with tape.no_grad():
            if begins is None:
                for state in self._states.values():
                    state.zero_()
                return
            mask = as_tensor(begins)
            state = self._state_for(mask.shape[0])
            state.copy_(where(mask.unsqueeze(1), 0.0, state))

    # --- as data -----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Dict of plain Python values from which `from_description` rebuilds the network bit for bit."""
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
        """Rebuild a network from the dict returned by `describe`. Raises GraphError if the dict is not a valid graph."""
        try:
            if description["format"] != FORMAT:
                raise GraphError(
                    f"the graph network has format {description['format']}, but this version reads format {FORMAT}"
                )
            network = cls(description["inputs"], description["outputs"], recurrent=description["recurrent"])
            nodes = {n["name"]: network._node(n["activation"], n["aggregation"]) for n in description["nodes"]}
            edges = {(e["source"], e["target"]): network._new_id() for e in description["edges"]}
            biases = {n["name"]: float(n["bias"]) for n in description["nodes"]}
            weights = {(e["source"], e["target"]): float(e["weight"]) for e in description["edges"]}
        except (KeyError, TypeError) as error:
            raise GraphError(f"this is not the description of a graph network: {error!r}") from None
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
        """Return (structure int32, numbers float32), the arguments of `nn.graph.kernels.activate`.

        ``numbers`` is a copy of the weights and biases: later training does not change it.
        """
        numbers: list[np.ndarray] = []
        bias = self.bias.detach().numpy()
        weight = self.weight.detach().numpy()
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
        raise GraphError(f"{kind}s must be a count or a list of non-empty names, got {given!r}")
    return tuple(given)


def _check(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise GraphError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


def layers(inputs: Iterable[str], nodes: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    """Depth of each name: the number of edges on the longest path to it from a name without incoming edges.

    Names on a cycle, and names that can be reached from a cycle, are left out.
    """
    depth = dict.fromkeys((*inputs, *nodes), 0)
    waiting = dict.fromkeys(depth, 0)
    following: dict[str, list[str]] = {name: [] for name in depth}
    for source, target in edges:
        waiting[target] += 1
        following[source].append(target)
    ready = [name for name, count in waiting.items() if not count]
    for name in ready:  # the list grows during this loop
        for target in following[name]:
            depth[target] = max(depth[target], depth[name] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return {name: depth[name] for name in ready}


def _topological(inputs: Sequence[str], nodes: Iterable[str], edges: Iterable[Edge]) -> tuple[str, ...]:
    nodes, edges = list(nodes), list(edges)
    depth = layers(inputs, nodes, edges)
    left = {name for name in nodes if name not in depth}
    if left:
        while ends := left - {source for source, target in edges if target in left}:
            left -= ends  # nodes behind a cycle are not in it
        raise GraphError(f"the edges form a cycle through {', '.join(sorted(left)[:5])}: a cycle needs a recurrent network")
    return tuple(sorted(nodes, key=lambda name: (depth[name], name)))
