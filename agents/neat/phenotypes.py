"""Kernels over whole populations: decode genomes into networks, and evaluate networks on observations."""

import numba
import numpy as np

from rl_lab.agents.neat.kernels import entry, inner
from rl_lab.native.cache import cached_njit
from rl_lab.native.threads import cycles, may_share, note_region, region_state
from rl_lab.nn.graph.kernels import HEADER, activate, state_size

F = np.float32
SHARED_FROM = 50_000  # below so many edge evaluations in a call, starting other threads costs more than it saves


@inner
def _row(genomes, i, number):
    """The index of node ``number`` among genome i's inputs and node genes, inputs first."""
    inputs = genomes.inputs[0]
    outputs = genomes.outputs[0]
    if number < inputs + outputs:
        return number
    low = outputs
    high = genomes.nodes[i]
    while low < high:
        middle = (low + high) // 2
        if genomes.node[i, middle] < number:
            low = middle + 1
        else:
            high = middle
    return inputs + low


@entry
def decode(genomes, recurrent, structures, numbers):
    """Write each genome's network into one row of ``structures`` and ``numbers``, in the form that `nn.graph.kernels.activate` reads.

    Nodes without a path to an output are left out.
    """
    inputs = genomes.inputs[0]
    outputs = genomes.outputs[0]
    width = genomes.node.shape[1]
    starts = np.empty(width + 1, np.int64)
    fill = np.empty(width + 1, np.int64)
    incoming = np.empty(genomes.weight.shape[1], np.int64)
    ends = np.empty((genomes.weight.shape[1], 2), np.int64)
    state = np.empty(width, np.int64)
    place = np.empty(width, np.int64)
    stack = np.empty(width, np.int64)
    order = np.empty(width, np.int64)
    position = np.empty(inputs + width, np.int64)
    for i in range(len(genomes.nodes)):
        nodes = genomes.nodes[i]
        connections = genomes.connections[i]
        # sort the enabled connections by target
        for n in range(nodes + 1):
            starts[n] = 0
        for k in range(connections):
            if genomes.enabled[i, k]:
                ends[k, 0] = _row(genomes, i, genomes.source[i, k])
                ends[k, 1] = _row(genomes, i, genomes.target[i, k]) - inputs
                starts[ends[k, 1] + 1] += 1
        for n in range(nodes):
            starts[n + 1] += starts[n]
            fill[n] = starts[n]
            state[n] = 0
        for k in range(connections):
            if genomes.enabled[i, k]:
                incoming[fill[ends[k, 1]]] = k
                fill[ends[k, 1]] += 1
        # topological order: a depth-first search backwards from the outputs, in post-order, puts every source before its target
        count = 0
        for o in range(outputs):
            if state[o]:
                continue
            depth = 1
            stack[0] = o
            state[o] = 1
            place[o] = starts[o]
            while depth:
                n = stack[depth - 1]
                if place[n] < starts[n + 1]:
                    source = ends[incoming[place[n]], 0] - inputs
                    place[n] += 1
                    if source >= 0 and not state[source]:
                        state[source] = 1
                        place[source] = starts[source]
                        stack[depth] = source
                        depth += 1
                else:
                    order[count] = n
                    count += 1
                    depth -= 1
        for s in range(inputs):
            position[s] = s
        for n in range(count):
            position[inputs + order[n]] = inputs + n
        row = structures[i]
        values = numbers[i]
        row[0] = inputs
        row[1] = count
        row[2] = outputs
        row[3] = recurrent
        for o in range(outputs):
            row[HEADER + o] = position[inputs + o]
        p = HEADER + outputs
        v = 0
        for m in range(count):
            n = order[m]
            row[p] = genomes.activation[i, n]
            row[p + 1] = genomes.aggregation[i, n]
            row[p + 2] = starts[n + 1] - starts[n]
            values[v] = genomes.bias[i, n]
            p += 3
            v += 1
            for e in range(starts[n], starts[n + 1]):
                row[p], values[v] = position[ends[incoming[e], 0]], genomes.weight[i, incoming[e]]
                p += 1
                v += 1


@inner
def _forward_one(structure, numbers, x, sequence, out, state):
    recurrent = structure[3]
    state[: state_size(structure)] = F(0)
    for b in range(len(x)):
        if recurrent and not sequence:
            state[: state_size(structure)] = F(0)
        activate(structure, numbers, x[b], state, out[b])


def _forward(structures, numbers, x, sequence, out, sharing):
    """Evaluate all networks on all observations x (observations, inputs) into ``out`` (networks, observations, outputs).

    With ``sequence`` the observations are one episode, and recurrent networks keep their state from one to the next.
    """
    count = len(structures)
    width = structures.shape[1] * 2
    expected = 2 * count * len(x) * numbers.shape[1]
    shared = region_state()
    if expected >= SHARED_FROM and may_share(shared, sharing[0]):
        begin = cycles()
        for i in numba.prange(count):
            _forward_one(structures[i], numbers[i], x, sequence, out[i], np.empty(width, np.float32))
        note_region(shared, cycles() - begin, 2 * expected)
    else:
        state = np.empty(width, np.float32)
        for i in range(count):
            _forward_one(structures[i], numbers[i], x, sequence, out[i], state)


forward = cached_njit(_forward, parallel=True, nogil=True)
