"""Kernels over experience: advantages, n-step returns, and a sum tree for prioritized sampling."""

import numpy as np

from rl_lab.engine.kernels.elementary import pow64
from rl_lab.engine.kernels.random import next_unit
from rl_lab.native.part import part
from rl_lab.native.primitive import In, InBool, InInt, InOut, InOutInt, Int, Out, OutBool, OutInt, Real, primitive

F = np.float32


@primitive
def generalized_advantages(
    out: Out,
    rewards: In,
    values: In,
    next_values: In,
    terminated: InBool,
    truncated: InBool,
    steps: Int,
    n: Int,
    gamma: Real,
    trace: Real,
):
    """Compute generalized advantages backwards in time, for arrays (steps, n), with sums in float64; ``trace`` is lambda."""
    for j in range(n):
        advantage = 0.0
        for t in range(steps - 1, -1, -1):
            i = t * n + j
            following = 0.0 if terminated[i] else np.float64(next_values[i])
            error = rewards[i] + gamma * following - values[i]
            if terminated[i] or truncated[i]:
                advantage = error
            else:
                advantage = error + gamma * trace * advantage
            out[i] = F(advantage)


@primitive
def n_step_returns(
    returns: Out,
    discounts: Out,
    last: OutInt,
    index: InInt,
    rewards: In,
    terminated: In,
    truncated: In,
    place: InInt,
    batch: Int,
    capacity: Int,
    stride: Int,
    steps: Int,
    gamma: Real,
):
    """For each of ``batch`` indices into a ring buffer, sum the discounted rewards of the next ``steps`` steps.

    A sum has fewer steps if the episode or the stored data ends. Transitions of one environment lie ``stride`` apart. ``place`` holds the
    number of stored transitions and the position of the next write. Fills ``discounts`` with gamma to the number of steps, or 0 after a
    termination, and ``last`` with the index of the last transition of each sum.
    """
    position = place[1]
    for b in range(batch):
        at = index[b]
        newer = ((position - 1 - at) % capacity) // stride
        total = 0.0
        factor = 1.0
        for k in range(steps):
            total += factor * rewards[at]
            factor *= gamma
            if terminated[at] != F(0.0) or truncated[at] != F(0.0) or k == steps - 1 or k == newer:
                break
            at = (at + stride) % capacity
        returns[b] = F(total)
        discounts[b] = F(0.0) if terminated[at] != F(0.0) else F(factor)
        last[b] = at


# --- a sum tree: node i has the children 2i and 2i + 1; the first leaf is node ``leaves``, a power of two --------------------


@part
def _set_leaf(tree, leaf, priority):
    tree[leaf] = priority
    node = leaf >> 1
    while node >= 1:
        tree[node] = tree[2 * node] + tree[2 * node + 1]
        node >>= 1


@primitive
def insert_priorities(tree: InOut, highest: In, first: Int, count: Int, capacity: Int, leaves: Int):
    """Give ``count`` new transitions from ``first`` on the highest priority so far, so that they are likely to be sampled soon."""
    for i in range(count):
        _set_leaf(tree, leaves + (first + i) % capacity, highest[0])


@primitive
def update_priorities(
    tree: InOut, highest: InOut, index: InInt, errors: In, batch: Int, leaves: Int, exponent: Real, least: Real
):
    """Set the priorities of the transitions ``index`` to (|error| + least) ** exponent."""
    for b in range(batch):
        priority = F(pow64(abs(np.float64(errors[b])) + least, exponent))
        highest[0] = max(highest[0], priority)
        _set_leaf(tree, leaves + index[b], priority)


@primitive
def sample_priorities(
    index: OutInt, weights: Out, tree: In, place: InInt, correction: In, state: InOutInt, batch: Int, leaves: Int
):
    """Sample one index from each of ``batch`` equal slices of the total priority.

    ``weights`` are importance weights with the exponent ``correction``, scaled to a maximum of 1. ``place`` is as in `n_step_returns`.
    """
    total = np.float64(tree[1])
    size = place[0]
    largest = 0.0
    for b in range(batch):
        mass = (b + next_unit(state)) / batch * total
        node = 1
        while node < leaves:
            node *= 2
            left = np.float64(tree[node])
            if mass >= left and tree[node + 1] > F(0.0):
                mass -= left
                node += 1
        at = min(node - leaves, size - 1)
        index[b] = at
        weight = pow64(size * np.float64(tree[leaves + at]) / total, -np.float64(correction[0]))
        weights[b] = F(weight)
        largest = max(largest, weight)
    for b in range(batch):
        weights[b] = F(weights[b] / largest)


# --- stacks of frames, see `rl_lab.rollout.frames.FrameStore` ---------------------------------------------------------------


@part
def _gather_stacks(out, frames, latest, finals, final, elapsed, index, place, numbers):
    batch, stack, size, capacity, rows, stride, following = numbers
    position = place[1]
    total = place[2]
    for b in range(batch):
        at = index[b]
        absolute = total - 1 - ((position - 1 - at) % capacity)
        for j in range(stack):  # counted back from the newest frame
            target = (b * stack + stack - 1 - j) * size
            back = j - following
            if back >= 0:
                source = ((absolute - min(back, elapsed[at]) * stride) % rows) * size
                for k in range(size):
                    out[target + k] = frames[source + k]
            elif final[at] >= 0:
                source = final[at] * size
                for k in range(size):
                    out[target + k] = finals[source + k]
            elif absolute + stride < total:
                source = ((absolute + stride) % rows) * size
                for k in range(size):
                    out[target + k] = frames[source + k]
            else:
                source = (at % stride) * size
                for k in range(size):
                    out[target + k] = latest[source + k]


@primitive
def gather_stacks(
    out: Out,
    frames: In,
    latest: In,
    finals: In,
    final: InInt,
    elapsed: InInt,
    index: InInt,
    place: InInt,
    batch: Int,
    stack: Int,
    size: Int,
    capacity: Int,
    rows: Int,
    stride: Int,
    following: Int,
):
    """Copy the stacks of ``batch`` transitions ``index`` to ``out``; with ``following`` 1, the stacks after these transitions.

    The arrays are those of `FrameStore`: ``frames`` (rows, size), ``latest`` (stride, size), ``finals`` (capacity, size), ``final`` and
    ``elapsed`` (capacity,). ``place`` holds the number of stored transitions, the position of the next one, and the number of all so far.
    """
    numbers = (batch, stack, size, capacity, rows, stride, following)
    _gather_stacks(out, frames, latest, finals, final, elapsed, index, place, numbers)


@primitive
def gather_stacks_of_bytes(
    out: OutBool,
    frames: InBool,
    latest: InBool,
    finals: InBool,
    final: InInt,
    elapsed: InInt,
    index: InInt,
    place: InInt,
    batch: Int,
    stack: Int,
    size: Int,
    capacity: Int,
    rows: Int,
    stride: Int,
    following: Int,
):
    """As `gather_stacks`, for frames of uint8 or bool."""
    numbers = (batch, stack, size, capacity, rows, stride, following)
    _gather_stacks(out, frames, latest, finals, final, elapsed, index, place, numbers)


# --- distributions of returns ------------------------------------------------------------------------------------------


@primitive
def quantile_huber(
    losses: Out, slopes: Out, fractions: Out, sums: Out, quantiles: In, targets: In, batch: Int, n: Int, m: Int, kappa: Real
):
    """For each row, sum over n quantiles the mean quantile Huber loss over m targets; ``slopes`` are its derivatives.

    ``quantiles`` and ``slopes`` are (batch, n), ``targets`` is (batch, m). ``fractions`` and ``sums`` are working memory of n numbers.
    """
    k = F(kappa)
    half = F(0.5)
    one = F(1.0)
    scale = F(1.0 / (m * kappa))
    for i in range(n):
        fractions[i] = F((i + 0.5) / n)
    for b in range(batch):
        p = b * n
        for i in range(n):
            slopes[p + i] = F(0.0)
            sums[i] = F(0.0)
        for j in range(m):
            target = targets[b * m + j]
            for i in range(n):
                u = target - quantiles[p + i]
                near = k if u > k else (-k if u < -k else u)  # NaN stays NaN
                weighted = near * (fractions[i] if u >= F(0.0) else one - fractions[i])
                sums[i] += weighted * (u - half * near)
                slopes[p + i] -= weighted
        total = 0.0
        for i in range(n):
            total += sums[i]
            slopes[p + i] *= scale
        losses[b] = F(total) * scale


@primitive
def without_largest(out: Out, work: Out, x: In, batch: Int, n: Int, dropped: Int):
    """Copy all but the ``dropped`` largest numbers of each row of ``x`` (batch, n), in any order. ``work`` is memory of n numbers."""
    kept = n - dropped
    for b in range(batch):
        for i in range(n):
            work[i] = x[b * n + i]
        for last in range(n - 1, kept - 1, -1):
            largest = 0
            for i in range(1, last + 1):
                if work[i] > work[largest]:
                    largest = i
            work[largest] = work[last]
        for i in range(kept):
            out[b * kept + i] = work[i]


@primitive
def project_categorical(out: Out, probabilities: In, rewards: In, discounts: In, batch: Int, n: Int, low: Real, high: Real):
    """For each row, the distribution of reward + discount * value over n values from low to high, projected onto these values."""
    step = (high - low) / (n - 1)
    for b in range(batch):
        p = b * n
        for i in range(n):
            out[p + i] = F(0.0)
        for i in range(n):
            value = rewards[b] + discounts[b] * (low + step * i)
            place = (value - low) / step
            if place > n - 1:
                place = np.float64(n - 1)
            if place < 0.0:
                place = 0.0
            if place == place:
                lower = min(int(place), n - 2)
                upper = place - lower
                out[p + lower] += F(probabilities[p + i] * (1.0 - upper))
                out[p + lower + 1] += F(probabilities[p + i] * upper)
            else:  # a value that is not a number makes the row one
                out[p] = F(place)
