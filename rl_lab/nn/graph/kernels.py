"""Kernels of the graph network: nodes with an activation and a bias each, connected by weighted edges.

The array ``structure`` (integers) describes the graph:

    number of inputs, number of nodes, number of outputs, recurrent (0 or 1),
    the row of each output,
    and for each node, in the order of computation: activation, aggregation, number of edges, the row of each source.

Rows 0 to inputs - 1 are the inputs; row inputs + i is node i. In a feed-forward network every source of a node comes before the node.
In a recurrent network all nodes are updated at once from the values before the update. `graph_forward` and `graph_backward` process a
batch and vectorise over it. `activate` processes one observation and is called from loops over environments.
"""

import functools
import math

import numpy as np
from numba import types

from rl_lab.engine.kernels import scalar
from rl_lab.engine.kernels.elementary import cos64, sin64
from rl_lab.native.cache import compile_c_function
from rl_lab.native.part import part
from rl_lab.native.pointers import matrix
from rl_lab.native.primitive import In, InInt, Int, Out, primitive

F = np.float32
U = np.uint64
HEADER = 4
SUM = 0
PRODUCT = 1
AGGREGATIONS = ("sum", "product")

# For each activation: the value y as an expression of the weighted sum z, and the slope as an expression of z and y. At a point
# without a derivative the slope is 0.
_TABLE = {
    "identity": ("z", "F(1)"),
    "tanh": ("tanh32(z)", "F(1) - y * y"),
    "sigmoid": ("sigmoid32(z)", "y * (F(1) - y)"),
    # 1 / (1 + exp(-4.9 z)), "close to linear during its steepest ascent" (Stanley and Miikkulainen 2002, section 4.1)
    "steepened_sigmoid": ("sigmoid32(F(4.9) * z)", "F(4.9) * (y * (F(1) - y))"),
    "relu": ("relu32(z)", "F(z > F(0))"),
    "softplus": ("softplus32(z)", "sigmoid32(z)"),
    "sech": ("F(2) * exp32(-abs(z)) / (F(1) + exp32(F(-2) * abs(z)))", "-y * tanh32(z)"),
    "sin": ("F(sin64(z))", "F(cos64(z))"),
    "gauss": ("exp32(-z * z)", "F(-2) * z * y"),
    "step": ("F(z > F(0))", "F(0)"),
    "sign": ("F(z > F(0)) - F(z < F(0))", "F(0)"),
    "abs": ("abs(z)", "F(z > F(0)) - F(z < F(0))"),
    "clamped": ("max(F(-1), min(F(1), z))", "F(z >= F(-1)) * F(z <= F(1))"),
    "leaky_relu": ("z if z > F(0) else F(0.01) * z", "F(1) if z > F(0) else F(0.01)"),
    "elu": ("z if z > F(0) else exp32(z) - F(1)", "F(1) if z > F(0) else y + F(1)"),
    "exp": ("exp32(z)", "y"),
    "square": ("z * z", "F(2) * z"),
    "cube": ("z * z * z", "F(3) * z * z"),
}
ACTIVATIONS = tuple(_TABLE)
"""Names of the activations. A structure holds indices into this tuple."""

FORMULAS = {name: value for name, (value, _) in _TABLE.items()}
"""The value of each activation as an expression of the weighted sum ``z``."""

_NAMESPACE = {"F": F, "np": np, "math": math, "sin64": sin64, "cos64": cos64} | {
    name: getattr(scalar, name) for name in ("exp32", "relu32", "sigmoid32", "softplus32", "tanh32")
}


def _by_activation(signature: str, line: str, otherwise: str = "") -> object:
    """Compile a function with one branch per activation.

    ``line`` is the body of a branch; ``{value}`` and ``{slope}`` in it are replaced by the expressions of the activation.
    """
    branches = [f"    if kind == {i}:\n{line.format(value=v, slope=s)}" for i, (v, s) in enumerate(_TABLE.values())]
    scope = dict(_NAMESPACE)
    exec(f"def function({signature}):\n" + "".join(branches) + otherwise, scope)
    return part(scope["function"])


activation = _by_activation("kind, z", "        return F({value})\n", "    return z\n")
_activate_row = _by_activation(
    "kind, sums, values, n", "        for b in range(n):\n            z = sums[b]\n            values[b] = {value}\n"
)
_times_slope = _by_activation(
    "kind, sums, values, delta, n",
    "        for b in range(n):\n            z = sums[b]\n            y = values[b]\n            delta[b] = delta[b] * ({slope})\n",
)


@part
def _dot(a, b, n):
    """Dot product with eight partial sums, so that the processor need not wait for each addition."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F(0)
    full = n - n % 8
    for i in range(0, full, 8):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
        s4 += a[i + 4] * b[i + 4]
        s5 += a[i + 5] * b[i + 5]
        s6 += a[i + 6] * b[i + 6]
        s7 += a[i + 7] * b[i + 7]
    total = ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))
    for i in range(full, n):
        total += a[i] * b[i]
    return total


@primitive
def graph_forward(out: Out, sums: Out, values: Out, x: In, state: In, weight: In, bias: In, structure: InInt, batch: Int):
    """Forward pass of a batch.

    x is (batch, inputs) and out (batch, outputs); a recurrent network also reads state (batch, nodes). The backward pass needs sums
    (nodes, batch), the values before the activations, and values (rows, batch): the inputs, the state of a recurrent network, and
    the new values of the nodes.
    """
    inputs = structure[0]
    nodes = structure[1]
    outputs = structure[2]
    recurrent = structure[3]
    own = inputs + nodes * recurrent  # the row of the first node's new value
    z = matrix(sums, 0, nodes, batch)
    v = matrix(values, 0, own + nodes, batch)
    for i in range(inputs):
        row = v[i]
        for b in range(batch):
            row[b] = x[b * inputs + i]
    if recurrent:
        for i in range(nodes):
            row = v[inputs + i]
            for b in range(batch):
                row[b] = state[b * nodes + i]
    place = HEADER + outputs
    edge = 0
    for i in range(nodes):
        kind = structure[place]
        aggregation = structure[place + 1]
        count = structure[place + 2]
        total = z[i]
        if aggregation == SUM:
            total[:] = bias[i]
            for e in range(count):
                w = weight[edge + e]
                source = v[structure[place + 3 + e]]
                for b in range(batch):
                    total[b] += w * source[b]
        else:
            total[:] = F(1)
            for e in range(count):
                w = weight[edge + e]
                source = v[structure[place + 3 + e]]
                for b in range(batch):
                    total[b] *= w * source[b]
            for b in range(batch):
                total[b] += bias[i]
        _activate_row(kind, total, v[own + i], batch)
        place += 3 + count
        edge += count
    for o in range(outputs):
        row = v[structure[HEADER + o] + nodes * recurrent]
        for b in range(batch):
            out[b * outputs + o] = row[b]


@primitive
def graph_backward(
    to_x: Out,
    to_state: Out,
    to_weight: Out,
    to_bias: Out,
    adjoint: Out,
    g: In,
    sums: In,
    values: In,
    weight: In,
    structure: InInt,
    batch: Int,
):
    """Backward pass: gradients of inputs, state, weights and biases from the gradient g (batch, outputs) of `graph_forward`.

    ``adjoint`` is scratch memory of the shape of ``values``.
    """
    inputs = structure[0]
    nodes = structure[1]
    outputs = structure[2]
    recurrent = structure[3]
    own = inputs + nodes * recurrent
    z = matrix(sums, 0, nodes, batch)
    v = matrix(values, 0, own + nodes, batch)
    a = matrix(adjoint, 0, own + nodes, batch)
    a[:] = F(0)
    place = HEADER + outputs
    for o in range(outputs):
        row = a[structure[HEADER + o] + nodes * recurrent]
        for b in range(batch):
            row[b] += g[b * outputs + o]
    starts = np.empty(nodes + 1, np.int64)
    first = np.empty(nodes + 1, np.int64)
    starts[0] = place
    first[0] = 0
    for i in range(nodes):
        count = structure[starts[i] + 2]
        starts[i + 1] = starts[i] + 3 + count
        first[i + 1] = first[i] + count
    others = np.empty(batch, np.float32)
    for i in range(nodes - 1, -1, -1):
        place = starts[i]
        edge = first[i]
        kind = structure[place]
        aggregation = structure[place + 1]
        count = structure[place + 2]
        delta = a[own + i]
        _times_slope(kind, z[i], v[own + i], delta, batch)
        total = F(0)
        for b in range(batch):
            total += delta[b]
        to_bias[i] = total
        for e in range(count):
            w = weight[edge + e]
            row = structure[place + 3 + e]
            source = v[row]
            target = a[row]
            if aggregation == SUM:
                to_weight[edge + e] = _dot(delta, source, batch)
                for b in range(batch):
                    target[b] += w * delta[b]
            else:
                # multiply the other factors: dividing the product by this factor would fail where the factor is 0
                others[:] = delta
                for k in range(count):
                    if k != e:
                        factor = weight[edge + k]
                        other = v[structure[place + 3 + k]]
                        for b in range(batch):
                            others[b] *= factor * other[b]
                to_weight[edge + e] = _dot(others, source, batch)
                for b in range(batch):
                    target[b] += w * others[b]
    for i in range(inputs):
        row = a[i]
        for b in range(batch):
            to_x[b * inputs + i] = row[b]
    if recurrent:
        for i in range(nodes):
            row = a[inputs + i]
            for b in range(batch):
                to_state[b * nodes + i] = row[b]


@part(inline="always")
def activate(structure, numbers, inputs, state, outputs):
    """Evaluate one network on one observation: read float32 ``inputs``, write ``outputs``. All arguments are arrays or pointers.

    ``numbers`` holds, for each node, its bias and then the weights of its edges. ``state`` is scratch memory of `state_size` float32
    elements, in which a recurrent network also keeps the values of its nodes between calls. Zero it at the start of an episode.
    """
    # indices are unsigned: for a signed index numba checks each time whether it is negative
    count = U(structure[U(0)])
    nodes = U(structure[U(1)])
    recurrent = structure[U(3)]
    for i in range(count):
        state[i] = inputs[i]
    own = count + nodes if recurrent else count
    place = U(HEADER) + U(structure[U(2)])
    number = U(0)
    for i in range(nodes):
        kind = structure[place]
        aggregation = structure[place + U(1)]
        edges = U(structure[place + U(2)])
        place += U(3)
        total = numbers[number]
        number += U(1)
        if aggregation == SUM:
            for e in range(edges):
                total += numbers[number + e] * state[U(structure[place + e])]
        else:
            product = F(1)
            for e in range(edges):
                product *= numbers[number + e] * state[U(structure[place + e])]
            total += product
        state[own + i] = activation(kind, total)
        place += edges
        number += edges
    if recurrent:
        for i in range(nodes):
            state[count + i] = state[own + i]
    for o in range(U(structure[U(2)])):
        outputs[o] = state[U(structure[U(HEADER) + o])]


def _activate(structure, numbers, inputs, state, outputs):
    activate(structure, numbers, inputs, state, outputs)


@functools.cache
def compiled_activate():
    """`activate` as a C function, void(int32 *structure, float *numbers, float *inputs, float *state, float *outputs).

    The result has an ``address``, which stays valid for the life of the process.
    """
    words = types.CPointer(types.int32)
    reals = types.CPointer(types.float32)
    signature = types.void(words, reals, reals, reals, reals)
    return compile_c_function(_activate, signature)


@part
def state_size(structure):
    """Number of float32 elements that `activate` needs as ``state``."""
    return structure[0] + structure[1] * (1 + structure[3])
