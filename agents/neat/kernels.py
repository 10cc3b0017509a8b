"""Distance, speciation, crossover and mutation as loops over whole populations.

All draws come from one random stream in a fixed order, so equal seeds give equal results. `genome.Genomes` and
`innovation.Innovations` describe the arrays. Callers make sure that rows have room (`genome.is_full`).
"""

import numpy as np

from rl_lab.agents.neat.innovation import CONNECTIONS, NEXT_INNOVATION, NEXT_NODE, SPLITS
from rl_lab.engine.kernels.random import next_below, next_unit
from rl_lab.native.cache import cached_njit
from rl_lab.native.part import part

F = np.float32
TRIES = 20  # pairs of nodes drawn before the mutation "new connection" gives up
entry = cached_njit

inner = part


# --- compatibility distance ------------------------------------------------------------------------------------------


@inner
def _distance(a, i, b, j, rates):
    """Equation 1, delta = c1 E / N + c2 D / N + c3 W, between genome i of ``a`` and genome j of ``b``.

    W is the mean absolute difference of the weights of matching connections and of the biases of matching nodes.
    """
    n = a.connections[i]
    m = b.connections[j]
    p = q = 0
    disjoint = matching = 0
    difference = 0.0
    while p < n and q < m:
        x = a.innovation[i, p]
        y = b.innovation[j, q]
        if x == y:
            difference += abs(a.weight[i, p] - b.weight[j, q])
            matching += 1
            p += 1
            q += 1
        elif x < y:
            disjoint += 1
            p += 1
        else:
            disjoint += 1
            q += 1
    excess = (n - p) + (m - q)
    p = q = 0
    while p < a.nodes[i] and q < b.nodes[j]:
        x = a.node[i, p]
        y = b.node[j, q]
        if x == y:
            difference += abs(a.bias[i, p] - b.bias[j, q])
            matching += 1
        p += x <= y
        q += y <= x
    size = max(n, m)
    scale = 1.0 / size if size >= rates.normalize_from else 1.0
    mean = difference / matching if matching else 0.0
    return (rates.excess * excess + rates.disjoint * disjoint) * scale + rates.weight * mean


@entry
def distance(a, i, b, j, rates):
    """The compatibility distance between genome i of ``a`` and genome j of ``b``."""
    return _distance(a, i, b, j, rates)


@entry
def speciate(genomes, previous, representatives, threshold, rates, species, founders):
    """Put every genome into the first species whose representative is nearer than the threshold (section 3.3).

    ``representatives`` are rows of ``previous``, one per existing species. Fills ``species`` (population,) with the index of each
    genome's species. Indices from len(representatives) on are new species, and ``founders`` receives the first genome of each.
    Returns the number of all species.
    """
    old = len(representatives)
    count = len(representatives)
    for i in range(len(genomes.nodes)):
        found = -1
        for s in range(old):
            if _distance(genomes, i, previous, representatives[s], rates) < threshold:
                found = s
                break
        if found < 0:
            for s in range(old, count):
                if _distance(genomes, i, genomes, founders[s - old], rates) < threshold:
                    found = s
                    break
        if found < 0:
            founders[count - old] = i
            found = count
            count += 1
        species[i] = found
    return count


# --- reproduction ----------------------------------------------------------------------------------------------------


@inner
def _new_weight(rates, random):
    weight = rates.weight_range * (2.0 * next_unit(random) - 1.0)
    return F(max(-rates.weight_limit, min(rates.weight_limit, weight)))


@inner
def _copy(source, i, to, c):
    for k in range(source.nodes[i]):
        to.node[c, k], to.bias[c, k] = source.node[i, k], source.bias[i, k]
        to.activation[c, k], to.aggregation[c, k] = source.activation[i, k], source.aggregation[i, k]
    for k in range(source.connections[i]):
        to.innovation[c, k] = source.innovation[i, k]
        to.weight[c, k] = source.weight[i, k]
        to.enabled[c, k] = source.enabled[i, k]
        to.source[c, k], to.target[c, k] = source.source[i, k], source.target[i, k]
    to.nodes[c], to.connections[c] = source.nodes[i], source.connections[i]


@inner
def _crossover(parents, fitter, other, to, c, rates, random):
    """Write a crossover into child c: matching genes from either parent, disjoint and excess genes from the fitter (figure 4)."""
    _copy(parents, fitter, to, c)
    q = 0
    m = parents.connections[other]
    for k in range(to.connections[c]):
        number = to.innovation[c, k]
        while q < m and parents.innovation[other, q] < number:
            q += 1
        disabled = not to.enabled[c, k]
        if q < m and parents.innovation[other, q] == number:
            disabled = disabled or not parents.enabled[other, q]
            if next_unit(random) < 0.5:
                to.weight[c, k] = parents.weight[other, q]
        to.enabled[c, k] = not (disabled and next_unit(random) < rates.inherit_disabled)
    q = 0
    for k in range(to.nodes[c]):
        while q < parents.nodes[other] and parents.node[other, q] < to.node[c, k]:
            q += 1
        if q < parents.nodes[other] and parents.node[other, q] == to.node[c, k] and next_unit(random) < 0.5:
            to.bias[c, k] = parents.bias[other, q]
            to.activation[c, k], to.aggregation[c, k] = parents.activation[other, q], parents.aggregation[other, q]


@inner
def _add_gene(to, c, innovation, source, target, weight):
    """Insert a connection gene, keeping the genes sorted by innovation number."""
    k = to.connections[c]
    while k > 0 and to.innovation[c, k - 1] > innovation:
        to.innovation[c, k] = to.innovation[c, k - 1]
        to.weight[c, k] = to.weight[c, k - 1]
        to.enabled[c, k] = to.enabled[c, k - 1]
        to.source[c, k], to.target[c, k] = to.source[c, k - 1], to.target[c, k - 1]
        k -= 1
    to.innovation[c, k] = innovation
    to.weight[c, k] = weight
    to.enabled[c, k] = True
    to.source[c, k], to.target[c, k] = source, target
    to.connections[c] += 1


@inner
def _remove_gene(to, c, k):
    for j in range(k, to.connections[c] - 1):
        to.innovation[c, j] = to.innovation[c, j + 1]
        to.weight[c, j] = to.weight[c, j + 1]
        to.enabled[c, j] = to.enabled[c, j + 1]
        to.source[c, j], to.target[c, j] = to.source[c, j + 1], to.target[c, j + 1]
    to.connections[c] -= 1


@inner
def _connection_number(innovations, source, target):
    """The innovation number of a new connection: the number of an equal one in this generation, else a new number."""
    counters = innovations.counters
    for r in range(counters[CONNECTIONS]):
        if innovations.connections[r, 0] == source and innovations.connections[r, 1] == target:
            return innovations.connections[r, 2]
    row = innovations.connections[counters[CONNECTIONS]]
    row[0] = source
    row[1] = target
    row[2] = counters[NEXT_INNOVATION]
    counters[CONNECTIONS] += 1
    counters[NEXT_INNOVATION] += 1
    return row[2]


@inner
def _split_numbers(innovations, innovation):
    """The new node's number and the innovation of the connection into it, for a split of the connection ``innovation``."""
    counters = innovations.counters
    for r in range(counters[SPLITS]):
        if innovations.splits[r, 0] == innovation:
            return innovations.splits[r, 1], innovations.splits[r, 2]
    row = innovations.splits[counters[SPLITS]]
    row[0] = innovation
    row[1] = counters[NEXT_NODE]
    row[2] = counters[NEXT_INNOVATION]
    counters[SPLITS] += 1
    counters[NEXT_NODE] += 1
    counters[NEXT_INNOVATION] += 2
    return row[1], row[2]


@inner
def _add_node(to, c, rates, innovations, random):
    """Split an enabled connection (section 3.1): weight 1 into the new node, the old weight out of it."""
    enabled = 0
    for k in range(to.connections[c]):
        enabled += to.enabled[c, k]
    if not enabled:
        return
    chosen = next_below(random, enabled)
    for k in range(to.connections[c]):
        if to.enabled[c, k]:
            if not chosen:
                break
            chosen -= 1
    node, innovation = _split_numbers(innovations, to.innovation[c, k])
    source = to.source[c, k]
    target = to.target[c, k]
    weight = to.weight[c, k]
    to.enabled[c, k] = False
    end = to.nodes[c]  # new nodes have the highest numbers
    to.node[c, end] = node
    to.bias[c, end] = F(0)
    to.activation[c, end], to.aggregation[c, end] = rates.activation, rates.aggregation
    to.nodes[c] += 1
    _add_gene(to, c, innovation, source, node, F(1))
    _add_gene(to, c, innovation + 1, node, target, weight)


@inner
def _leads_to(to, c, start, goal, waiting):
    """Whether a path of connections, enabled or not, leads from node ``start`` to node ``goal``."""
    if start == goal:
        return True
    found = 1
    w = 0
    waiting[0] = start
    while w < found:
        here = waiting[w]
        w += 1
        for k in range(to.connections[c]):
            if to.source[c, k] != here:
                continue
            there = to.target[c, k]
            if there == goal:
                return True
            known = False
            for r in range(found):
                known = known or waiting[r] == there
            if not known:
                waiting[found] = there
                found += 1
    return False


@inner
def _add_connection(to, c, rates, innovations, random, waiting):
    inputs = to.inputs[0]
    outputs = to.outputs[0]
    nodes = to.nodes[c]
    for _ in range(TRIES):
        s = next_below(random, inputs + nodes)
        t = next_below(random, nodes)
        source = s if s < inputs else to.node[c, s - inputs]
        target = to.node[c, t]
        if not rates.recurrent and (source == target or (source >= inputs and source < inputs + outputs)):
            continue
        known = False
        for k in range(to.connections[c]):
            known = known or (to.source[c, k] == source and to.target[c, k] == target)
        if known or (not rates.recurrent and _leads_to(to, c, target, source, waiting)):
            continue
        weight = _new_weight(rates, random)
        _add_gene(to, c, _connection_number(innovations, source, target), source, target, weight)
        return


@inner
def _delete_node(to, c, random):
    hidden = to.nodes[c] - to.outputs[0]
    if not hidden:
        return
    place = to.outputs[0] + next_below(random, hidden)
    node = to.node[c, place]
    for j in range(place, to.nodes[c] - 1):
        to.node[c, j], to.bias[c, j] = to.node[c, j + 1], to.bias[c, j + 1]
        to.activation[c, j], to.aggregation[c, j] = to.activation[c, j + 1], to.aggregation[c, j + 1]
    to.nodes[c] -= 1
    for k in range(to.connections[c] - 1, -1, -1):
        if to.source[c, k] == node or to.target[c, k] == node:
            _remove_gene(to, c, k)


@inner
def _mutated(weight, rates, random):
    if next_unit(random) < rates.perturb_weight:
        weight += rates.weight_power * (2.0 * next_unit(random) - 1.0)
    else:
        return _new_weight(rates, random)
    return F(max(-rates.weight_limit, min(rates.weight_limit, weight)))


@inner
def _mutate(to, c, rates, activations, innovations, random, waiting):
    if next_unit(random) < rates.delete_node:
        _delete_node(to, c, random)
    if next_unit(random) < rates.delete_connection and to.connections[c]:
        _remove_gene(to, c, next_below(random, to.connections[c]))
    if next_unit(random) < rates.add_node:
        _add_node(to, c, rates, innovations, random)
    if next_unit(random) < rates.add_connection:
        _add_connection(to, c, rates, innovations, random, waiting)
    if next_unit(random) < rates.toggle_enabled and to.connections[c]:
        k = next_below(random, to.connections[c])
        to.enabled[c, k] = not to.enabled[c, k]
    if len(activations) and next_unit(random) < rates.mutate_activation and to.nodes[c] > to.outputs[0]:
        k = to.outputs[0] + next_below(random, to.nodes[c] - to.outputs[0])
        to.activation[c, k] = activations[next_below(random, len(activations))]
    if next_unit(random) < rates.mutate_weights:
        for k in range(to.connections[c]):
            to.weight[c, k] = _mutated(to.weight[c, k], rates, random)
        for k in range(to.nodes[c]):
            to.bias[c, k] = _mutated(to.bias[c, k], rates, random)


@entry
def reproduce(
    parents, children, fitness, ranking, starts, survivors, offspring, elites, rates, activations, innovations, random, ancestry
):
    """Fill ``children`` with the next generation, species by species.

    ``ranking`` lists the genomes by species and falling fitness; species s begins at ``starts[s]``. Its fittest ``survivors[s]``
    genomes are parents of ``offspring[s]`` children. The first ``elites[s]`` children are unchanged copies of the fittest. Fills
    ``ancestry`` (population, 2) with each child's parents, -1 for none.
    """
    innovations.counters[CONNECTIONS], innovations.counters[SPLITS] = 0, 0
    waiting = np.empty(children.node.shape[1] + children.inputs[0] + 1, np.int64)
    breeding = 0
    for s in range(len(offspring)):
        breeding += offspring[s] > 0
    c = 0
    for s in range(len(offspring)):
        for k in range(offspring[s]):
            ancestry[c, 1] = -1
            if k < elites[s]:
                ancestry[c, 0] = ranking[starts[s] + k]
                _copy(parents, ancestry[c, 0], children, c)
                c += 1
                continue
            first = ranking[starts[s] + next_below(random, survivors[s])]
            ancestry[c, 0] = first
            if survivors[s] == 1 or next_unit(random) < rates.mutate_only:
                _copy(parents, first, children, c)
                _mutate(children, c, rates, activations, innovations, random, waiting)
                c += 1
                continue
            mates = s
            if breeding > 1 and next_unit(random) < rates.interspecies_mating:
                other = next_below(random, breeding - 1)
                for mates in range(len(offspring)):
                    if mates != s and offspring[mates] > 0:
                        if not other:
                            break
                        other -= 1
            second = ranking[starts[mates] + next_below(random, survivors[mates])]
            ancestry[c, 1] = second
            # between equally fit parents the smaller genome counts as fitter
            if fitness[second] > fitness[first] or (
                fitness[second] == fitness[first] and parents.connections[second] < parents.connections[first]
            ):
                _crossover(parents, second, first, children, c, rates, random)
            else:
                _crossover(parents, first, second, children, c, rates, random)
            if first == second or next_unit(random) >= rates.mate_only:
                _mutate(children, c, rates, activations, innovations, random, waiting)
            c += 1


@entry
def begin(genomes, hidden, activation, share, rates, random):
    """Fill ``genomes`` with the first generation: outputs, ``hidden`` hidden nodes, and random weights.

    Connections lead from inputs to outputs, from inputs to hidden nodes and from hidden nodes to outputs; each exists with probability
    ``share``. Equal connections have equal innovation numbers, and `innovation.make_innovations` starts after them.
    """
    inputs = genomes.inputs[0]
    outputs = genomes.outputs[0]
    for i in range(len(genomes.nodes)):
        genomes.nodes[i] = outputs + hidden
        genomes.connections[i] = 0
        for k in range(outputs + hidden):
            is_hidden = k >= outputs
            genomes.node[i, k] = inputs + k
            genomes.activation[i, k] = rates.activation if is_hidden else activation
            genomes.aggregation[i, k] = rates.aggregation if is_hidden else 0
            genomes.bias[i, k] = _new_weight(rates, random)
        number = 0
        for s in range(inputs + hidden):
            source = s if s < inputs else outputs + s
            for k in range(outputs + hidden if s < inputs else outputs):
                if share >= 1.0 or next_unit(random) < share:
                    weight = _new_weight(rates, random)
                    _add_gene(genomes, i, number, source, inputs + k, weight)
                number += 1


@entry
def draw(bounds, random):
    """One random integer in [0, bound) for each bound."""
    drawn = np.empty(len(bounds), np.int64)
    for i in range(len(bounds)):
        drawn[i] = next_below(random, bounds[i])
    return drawn


@entry
def complexity(genomes):
    """The total numbers of hidden nodes and of enabled connections in all genomes."""
    hidden = connections = 0
    for i in range(len(genomes.nodes)):
        hidden += genomes.nodes[i] - genomes.outputs[0]
        for k in range(genomes.connections[i]):
            connections += genomes.enabled[i, k]
    return hidden, connections
