"""The intermediate form of an exported policy: values of one observation, and the nodes that compute them.

A value is a flat row of numbers. A `Ref` reads all of them in a given shape. Constants are arrays. Nothing is written twice, so a
writer translates each node on its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np

FLOAT = "float32"
INT = "int64"
BOOL = "bool"
BYTE = "uint8"


class Ref(NamedTuple):
    """All numbers of a value, read in a shape."""

    value: int
    shape: tuple[int, ...]


Operand: TypeAlias = Ref | np.ndarray
"""A value, or a constant array."""


@dataclass(frozen=True)
class Node:
    """One step. ``kind`` is one of the following; shapes do not contain the batch.

    - ``map``: ``formula`` of operands named ``names``, which broadcast to ``shape``
    - ``take``: the numbers ``index`` of all operands joined
    - ``lookup``: the numbers of the first operand at the positions in the second
    - ``product``: the matrix product of (..., n, k) and (..., k, m)
    - ``sum``, ``max``, ``product_of``, ``any``, ``argmax``: over the middle axis of an operand (n, r, m)
    - ``convolve``: operands x (groups, channels, height, width), weight (groups, filters, channels, kh, kw) and bias (groups * filters,)
    - ``max_pool``, ``avg_pool``: operand x (planes, height, width)
    """

    kind: str
    out: int
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]
    dtype: str
    names: tuple[str, ...] = ()
    formula: str = ""
    index: np.ndarray | None = None
    window: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def refs(self) -> Iterator[Ref]:
        """The operands that are values."""
        return (operand for operand in self.operands if isinstance(operand, Ref))


@dataclass
class Value:
    """The type of a value's numbers, and how many there are."""

    size: int
    dtype: str


class Input(NamedTuple):
    """An input of the policy: a value, its name, and its shape without the batch."""

    value: int
    name: str
    shape: tuple[int, ...]


class Output(NamedTuple):
    """A result of the policy: an operand, its name, its shape without the batch, and its dtype."""

    operand: Operand
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Graph:
    """A policy as nodes in the order of computation."""

    values: dict[int, Value]
    inputs: list[Input]
    nodes: list[Node]
    outputs: list[Output]
    memory: list[np.ndarray] = field(default_factory=list)
    """What the policy remembers when an episode begins; ``memory0``, ``memory1``, ... among the inputs and outputs."""
    title: str = ""
    """One line that says what this policy is."""
    action_dtype: np.dtype | None = None
    """Type of the actions of the space; None for a Tuple or Dict, whose parts have types of their own."""
    bounds: tuple[np.ndarray, ...] = ()
    """Least and greatest actions of a Box, of its type. The action that is an output is float32, and may exceed them by rounding."""

    def input(self, name: str) -> Input | None:
        """The input of this name."""
        return next((given for given in self.inputs if given.name == name), None)

    def output(self, name: str) -> Output | None:
        """The output of this name."""
        return next((given for given in self.outputs if given.name == name), None)

    def without_dead_nodes(self) -> "Graph":
        """The same policy without the nodes on which no output depends."""
        needed = {output.operand.value for output in self.outputs if isinstance(output.operand, Ref)}
        nodes: list[Node] = []
        for node in reversed(self.nodes):
            if node.out in needed:
                nodes.append(node)
                needed.update(ref.value for ref in node.refs())
        nodes.reverse()
        return replace(self, nodes=nodes)
