"""Networks that are graphs: nodes with an activation and a bias each, joined by weighted edges.

A network's ``structure`` is a list of whole numbers:

    inputs, nodes, count of outputs, recurrent (0 or 1),
    the row of each output,
    and for each node, in an order in which it can be computed: activation, aggregation, number of edges, the row of each source.

Rows 0..inputs-1 are the inputs, row inputs + i is node i. In a recurrent network all nodes change together and sources are
the values before the change; else they stand before the node. Two kinds of kernel read it: `forward` and `backward` take a batch,
one row after the other, and vectorise over it; `activate` takes one observation and is for loops over environments.
"""

import functools
import math

import numpy as np
from numba import njit, types

from rl_lab.engine.kernels import scalar
from rl_lab.native.cache import compile_c_function
from rl_lab.native.pointers import matrix
from rl_lab.native.primitive import In, InInt, Int, Out, primitive

F, U = np.float32, np.uint64
HEADER = 4
SUM, PRODUCT = 0, 1
AGGREGATIONS = ("sum", "product")

# The value as a function of the weighted sum z, and the slope as one of z and the value y. Where there is no slope it is 0.
_TABLE = {
    "identity": ("z", "F(1)"),
    "tanh": ("tanh32(z)", "F(1) - y * y"),
    "sigmoid": ("sigmoid32(z)", "y * (F(1) - y)"),
    # 1 / (1 + exp(-4.9 z)), "close to linear during its steepest ascent" (Stanley and Miikkulainen 2002, section 4.1)
    "steepened_sigmoid": ("sigmoid32(F(4.9) * z)", "F(4.9) * (y * (F(1) - y))"),
    "relu": ("relu32(z)", "F(z > F(0))"),
    "softplus": ("softplus32(z)", "sigmoid32(z)"),
    "sech": ("F(2) * exp32(-abs(z)) / (F(1) + exp32(F(-2) * abs(z)))", "-y * tanh32(z)"),
    "sin": ("np.sin(z)", "np.cos(z)"),
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
"""Names of the activations; a structure holds the place in this list."""

_NAMESPACE = {"F": F, "np": np, "math": math} | {
    name: getattr(scalar, name) for name in ("exp32", "relu32", "sigmoid32", "softplus32", "tanh32")
}


def _by_activation(signature: str, line: str, otherwise: str = "") -> object:
    """A function with one branch for each activation; ``line`` has its ``value`` and ``slope`` put in."""
    branches = [f"    if kind == {i}:\n{line.format(value=v, slope=s)}" for i, (v, s) in enumerate(_TABLE.values())]
    scope = dict(_NAMESPACE)
    exec(f"def function({signature}):\n" + "".join(branches) + otherwise, scope)
    return njit(error_model="numpy")(scope["function"])


activation = _by_activation("kind, z", "        return F({value})\n", "    return z\n")
_activate_row = _by_activation(
    "kind, sums, values, n", "        for b in range(n):\n            z = sums[b]\n            values[b] = {value}\n"
)
_times_slope = _by_activation(
    "kind, sums, values, delta, n",
    "        for b in range(n):\n            z, y = sums[b], values[b]\n            delta[b] = delta[b] * ({slope})\n",
)


@njit(error_model="numpy")
def _dot(a, b, n):
    """In eight running sums: one alone would wait for each addition."""
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
    """A batch through the network.

    x is (batch, inputs), state (batch, nodes) is read by recurrent networks only, out is (batch, outputs). Kept for the way back:
    sums (nodes, batch) before the activations, and values (rows, batch): the inputs, in a recurrent network the state, the nodes.
    """
    inputs, nodes, outputs, recurrent = structure[0], structure[1], structure[2], structure[3]
    own = inputs + nodes * recurrent  # the row of the first node's new value
    z, v = matrix(sums, 0, nodes, batch), matrix(values, 0, own + nodes, batch)
    for i in range(inputs):
        row = v[i]
        for b in range(batch):
            row[b] = x[b * inputs + i]
    if recurrent:
        for i in range(nodes):
            row = v[inputs + i]
            for b in range(batch):
                row[b] = state[b * nodes + i]
    place, edge = HEADER + outputs, 0
    for i in range(nodes):
        kind, aggregation, count = structure[place], structure[place + 1], structure[place + 2]
        total = z[i]
        if aggregation == SUM:
            total[:] = bias[i]
            for e in range(count):
                w, source = weight[edge + e], v[structure[place + 3 + e]]
                for b in range(batch):
                    total[b] += w * source[b]
        else:
            total[:] = F(1)
            for e in range(count):
                w, source = weight[edge + e], v[structure[place + 3 + e]]
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
    """The gradients of inputs, state, weights and biases from the gradient g (batch, outputs) of what `graph_forward` returned.

    ``adjoint``, of the shape of ``values``, is working memory.
    """
    inputs, nodes, outputs, recurrent = structure[0], structure[1], structure[2], structure[3]
    own = inputs + nodes * recurrent
    z, v = matrix(sums, 0, nodes, batch), matrix(values, 0, own + nodes, batch)
    a = matrix(adjoint, 0, own + nodes, batch)
    a[:] = F(0)
    place = HEADER + outputs
    for o in range(outputs):
        row = a[structure[HEADER + o] + nodes * recurrent]
        for b in range(batch):
            row[b] += g[b * outputs + o]
    starts = np.empty(nodes + 1, np.int64)
    first = np.empty(nodes + 1, np.int64)
    starts[0], first[0] = place, 0
    for i in range(nodes):
        count = structure[starts[i] + 2]
        starts[i + 1], first[i + 1] = starts[i] + 3 + count, first[i] + count
    others = np.empty(batch, np.float32)
    for i in range(nodes - 1, -1, -1):
        place, edge = starts[i], first[i]
        kind, aggregation, count = structure[place], structure[place + 1], structure[place + 2]
        delta = a[own + i]
        _times_slope(kind, z[i], v[own + i], delta, batch)
        total = F(0)
        for b in range(batch):
            total += delta[b]
        to_bias[i] = total
        for e in range(count):
            w, row = weight[edge + e], structure[place + 3 + e]
            source, target = v[row], a[row]
            if aggregation == SUM:
                to_weight[edge + e] = _dot(delta, source, batch)
                for b in range(batch):
                    target[b] += w * delta[b]
            else:
                # the product of the other factors is formed anew: dividing by this one would fail where it is 0
                others[:] = delta
                for k in range(count):
                    if k != e:
                        factor, other = weight[edge + k], v[structure[place + 3 + k]]
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


@njit(error_model="numpy", inline="always")
def activate(structure, numbers, inputs, state, outputs):
    """One observation through one network: float32 ``inputs`` in, ``outputs`` filled. Arrays, or pointers.

    ``numbers`` holds each node's bias and after it the weights of its edges. ``state`` has `state_size` float32 elements: working
    memory, in which a recurrent network also keeps its nodes' values from call to call, all 0 at the start of an episode.
    """
    # places are unsigned, for a signed one numba looks each time whether it counts from the end
    count, nodes, recurrent = U(structure[U(0)]), U(structure[U(1)]), structure[U(3)]
    for i in range(count):
        state[i] = inputs[i]
    own = count + nodes if recurrent else count
    place, number = U(HEADER) + U(structure[U(2)]), U(0)
    for i in range(nodes):
        kind, aggregation, edges = structure[place], structure[place + U(1)], U(structure[place + U(2)])
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

    Its ``address`` is good as long as what is returned here lives, so for the life of the process.
    """
    words, reals = types.CPointer(types.int32), types.CPointer(types.float32)
    signature = types.void(words, reals, reals, reals, reals)
    return compile_c_function(_activate, signature)


@njit(error_model="numpy")
def state_size(structure):
    """How many float32 `activate` needs as ``state``."""
    return structure[0] + structure[1] * (1 + structure[3])
