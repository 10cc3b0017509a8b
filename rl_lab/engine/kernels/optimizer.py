"""Optimiser steps. One launch updates every parameter of a group.

Row i of ``table``, which has `COLUMNS` columns, holds six addresses: parameter i, its gradient, its three float32 state buffers and
its int64 step counter. ``sizes[i]`` is the number of elements of parameter i. Launch `advance` before a step: the step may then be cut
into launches for several cores. The learning rate is a buffer, so a schedule changes the rate of a recorded program.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from rl_lab.engine.kernels.elementary import pow64
from rl_lab.engine.kernels.scalar import INFINITY, MAGNITUDE
from rl_lab.native.part import part
from rl_lab.native.primitive import In, InInt, InOutInt, Int, Out, Real, primitive

F = np.float32
COLUMNS = 6
SMALL = F(1e-36)
"""A moment that decays below it becomes 0, because denormal numbers cost many times as much. NaN stays.

Without an epsilon no moment becomes 0: a step would divide by it.
"""
LANES = 64  # independent sums, enough to hide the latency of an addition


def _at(kind):
    """An intrinsic that turns an address into a pointer to numbers of this type."""

    @intrinsic
    def pointer(_, address):
        def build(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), build

    return pointer


_floats = _at(types.float32)
_counter = _at(types.int64)


@part
def _buffers(table, i):
    """Pointers to parameter i, its gradient, its three state buffers and its step counter."""
    row = COLUMNS * i
    states = _floats(table[row + 2]), _floats(table[row + 3]), _floats(table[row + 4])
    return _floats(table[row]), _floats(table[row + 1]), *states, _counter(table[row + 5])


@part
def _decayed(gradient, decay, parameter):
    """The gradient with weight decay; without it also where the parameter is infinite."""
    return gradient if decay == F(0) else gradient + decay * parameter


_bits = _at(types.int32)
NOT_FINITE = 5
"""What `first_not_finite` reports, beside the codes of `rl_lab.engine.ops.gathering`."""


@primitive
def sgd(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    momentum: Real,
    dampening: Real,
    weight_decay: Real,
    nesterov: Int,
    maximize: Int,
):
    """Stochastic gradient descent with momentum as in PyTorch: v = momentum v + (1 - dampening) g; p -= rate v."""
    lr = rate[0]
    mu = F(momentum)
    damp = F(1.0 - dampening)
    decay = F(weight_decay)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, v, _, _, step = _buffers(table, i)
        first = step[0] == 1
        if mu == F(0):
            for k in range(sizes[i]):
                p[k] -= lr * _decayed(sense * g[k], decay, p[k])
            continue
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            velocity = d if first else mu * v[k] + damp * d
            v[k] = velocity
            p[k] -= lr * (d + mu * velocity if nesterov else velocity)


@primitive
def advance(table: InInt, count: Int):
    """Add one to every parameter's step counter."""
    for i in range(count):
        _counter(table[COLUMNS * i + 5])[0] += 1


@primitive
def adam(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    beta1: Real,
    beta2: Real,
    eps: Real,
    weight_decay: Real,
    decoupled: Int,
    maximize: Int,
):
    """Adam (Kingma and Ba 2015, algorithm 1). With ``decoupled``: AdamW (Loshchilov and Hutter 2019, algorithm 2)."""
    lr = rate[0]
    b1 = F(beta1)
    b2 = F(beta2)
    decay = F(weight_decay)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    c1 = F(1.0 - beta1)
    c2 = F(1.0 - beta2)
    sense = F(-1) if maximize else F(1)
    keep = F(1) - lr * decay if decoupled else F(1)
    coupled = F(0) if decoupled else decay
    for i in range(count):
        p, g, m, v, _, step = _buffers(table, i)
        # bias corrections in float64: in float32, 1 - beta2**t loses half its digits while t is small
        scale = F(float(lr) / (1.0 - pow64(beta1, step[0])))
        root = F(1.0 / np.sqrt(1.0 - pow64(beta2, step[0])))
        for k in range(sizes[i]):
            old = p[k]
            d = _decayed(sense * g[k], coupled, old)
            first = b1 * m[k] + c1 * d
            second = b2 * v[k] + c2 * d * d
            first = F(0) if abs(first) <= small else first
            second = F(0) if second <= small else second
            m[k] = first
            v[k] = second
            p[k] = keep * old - scale * first / (np.sqrt(second) * root + epsilon)


@primitive
def adam_largest(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    beta1: Real,
    beta2: Real,
    eps: Real,
    weight_decay: Real,
    decoupled: Int,
    maximize: Int,
):
    """AMSGrad (Reddi, Kale and Kumar 2018, algorithm 2): Adam with the largest second moment so far, the third state buffer."""
    lr = rate[0]
    b1 = F(beta1)
    b2 = F(beta2)
    decay = F(weight_decay)
    epsilon = F(eps)
    c1 = F(1.0 - beta1)
    c2 = F(1.0 - beta2)
    sense = F(-1) if maximize else F(1)
    keep = F(1) - lr * decay if decoupled else F(1)
    coupled = F(0) if decoupled else decay
    for i in range(count):
        p, g, m, v, largest, step = _buffers(table, i)
        scale = F(float(lr) / (1.0 - pow64(beta1, step[0])))
        root = F(1.0 / np.sqrt(1.0 - pow64(beta2, step[0])))
        for k in range(sizes[i]):
            old = p[k]
            d = _decayed(sense * g[k], coupled, old)
            m[k] = b1 * m[k] + c1 * d
            v[k] = b2 * v[k] + c2 * d * d
            largest[k] = largest[k] if largest[k] > v[k] else v[k]
            p[k] = keep * old - scale * m[k] / (np.sqrt(largest[k]) * root + epsilon)


@primitive
def rmsprop(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    alpha: Real,
    eps: Real,
    weight_decay: Real,
    momentum: Real,
    centered: Int,
    maximize: Int,
):
    """RMSprop (Hinton 2012). With ``centered``: the form of Graves 2013.

    State buffers: the mean square, the velocity and the mean gradient.
    """
    lr = rate[0]
    a = F(alpha)
    decay = F(weight_decay)
    mu = F(momentum)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    c = F(1.0 - alpha)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, s, velocity, mean, _ = _buffers(table, i)
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            square = a * s[k] + c * d * d
            square = F(0) if square <= small else square
            s[k] = square
            if centered:
                mean[k] = a * mean[k] + c * d
                square -= mean[k] * mean[k]
            d /= np.sqrt(square) + epsilon
            if mu > F(0):
                d += mu * velocity[k]
                velocity[k] = d
            p[k] -= lr * d


@primitive
def adagrad(table: InInt, sizes: InInt, rate: In, count: Int, lr_decay: Real, eps: Real, weight_decay: Real, maximize: Int):
    """Adagrad (Duchi, Hazan and Singer 2011)."""
    decay = F(weight_decay)
    epsilon = F(eps)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, s, _, _, step = _buffers(table, i)
        lr = F(float(rate[0]) / (1.0 + (step[0] - 1) * lr_decay))
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            s[k] += d * d
            p[k] -= lr * d / (np.sqrt(s[k]) + epsilon)


@primitive
def nadam_product(table: InInt, count: Int, beta1: Real, momentum_decay: Real):
    """Multiply the product of all momenta, the third state buffer, by the momentum of this step. Launch it after `advance`."""
    for i in range(count):
        _, _, _, _, product, step = _buffers(table, i)
        product[0] *= F(beta1 * (1.0 - 0.5 * pow64(0.96, step[0] * momentum_decay)))


@primitive
def nadam(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    beta1: Real,
    beta2: Real,
    eps: Real,
    weight_decay: Real,
    momentum_decay: Real,
    decoupled: Int,
    maximize: Int,
):
    """NAdam (Dozat 2016, algorithm 1): Adam with Nesterov's momentum."""
    lr = rate[0]
    b1 = F(beta1)
    b2 = F(beta2)
    decay = F(weight_decay)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    c1 = F(1.0 - beta1)
    c2 = F(1.0 - beta2)
    sense = F(-1) if maximize else F(1)
    keep = F(1) - lr * decay if decoupled else F(1)
    coupled = F(0) if decoupled else decay
    for i in range(count):
        p, g, m, v, momenta, step = _buffers(table, i)
        product = float(momenta[0])
        root = F(1.0 / np.sqrt(1.0 - pow64(beta2, step[0])))
        now = beta1 * (1.0 - 0.5 * pow64(0.96, step[0] * momentum_decay))
        later = beta1 * (1.0 - 0.5 * pow64(0.96, (step[0] + 1) * momentum_decay))
        of_gradient = F(float(lr) * (1.0 - now) / (1.0 - product))
        of_moment = F(float(lr) * later / (1.0 - product * later))
        for k in range(sizes[i]):
            old = p[k]
            d = _decayed(sense * g[k], coupled, old)
            first = b1 * m[k] + c1 * d
            second = b2 * v[k] + c2 * d * d
            first = F(0) if abs(first) <= small else first
            second = F(0) if second <= small else second
            m[k] = first
            v[k] = second
            p[k] = keep * old - (of_gradient * d + of_moment * first) / (np.sqrt(second) * root + epsilon)


@primitive
def radam(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    beta1: Real,
    beta2: Real,
    eps: Real,
    weight_decay: Real,
    decoupled: Int,
    maximize: Int,
):
    """RAdam (Liu et al. 2020, algorithm 2): Adam that ignores the second moment until the variance of the moment is defined."""
    lr = rate[0]
    b1 = F(beta1)
    b2 = F(beta2)
    decay = F(weight_decay)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    c1 = F(1.0 - beta1)
    c2 = F(1.0 - beta2)
    sense = F(-1) if maximize else F(1)
    keep = F(1) - lr * decay if decoupled else F(1)
    coupled = F(0) if decoupled else decay
    longest = 2.0 / (1.0 - beta2) - 1.0
    for i in range(count):
        p, g, m, v, _, step = _buffers(table, i)
        left = 1.0 - pow64(beta2, step[0])
        length = longest - 2.0 * step[0] * pow64(beta2, step[0]) / left
        scale = float(lr) / (1.0 - pow64(beta1, step[0]))
        rectified = length > 5.0
        if rectified:
            scale *= np.sqrt((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length))
            scale *= np.sqrt(left)
        factor = F(scale)
        for k in range(sizes[i]):
            old = p[k]
            d = _decayed(sense * g[k], coupled, old)
            first = b1 * m[k] + c1 * d
            second = b2 * v[k] + c2 * d * d
            first = F(0) if abs(first) <= small else first
            second = F(0) if second <= small else second
            m[k] = first
            v[k] = second
            p[k] = keep * old - (factor * first / (np.sqrt(second) + epsilon) if rectified else factor * first)


@primitive
def adamax(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    beta1: Real,
    beta2: Real,
    eps: Real,
    weight_decay: Real,
    maximize: Int,
):
    """Adamax (Kingma and Ba 2015, algorithm 2): the second state buffer is the decayed maximum of gradient magnitudes."""
    lr = rate[0]
    b1 = F(beta1)
    b2 = F(beta2)
    decay = F(weight_decay)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    c1 = F(1.0 - beta1)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, m, u, _, step = _buffers(table, i)
        scale = F(float(lr) / (1.0 - pow64(beta1, step[0])))
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            first = b1 * m[k] + c1 * d
            first = F(0) if abs(first) <= small else first
            largest = b2 * u[k]
            size = abs(d) + epsilon
            largest = size if size > largest or size != size else largest
            m[k] = first
            u[k] = largest
            p[k] -= scale * first / largest


@primitive
def adadelta(table: InInt, sizes: InInt, rate: In, count: Int, rho: Real, eps: Real, weight_decay: Real, maximize: Int):
    """Adadelta (Zeiler 2012, algorithm 1): the state buffers are the mean squares of the gradients and of the changes."""
    lr = rate[0]
    r = F(rho)
    c = F(1.0 - rho)
    decay = F(weight_decay)
    epsilon = F(eps)
    small = SMALL if epsilon > F(0) else F(-1)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, s, a, _, _ = _buffers(table, i)
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            square = r * s[k] + c * d * d
            square = F(0) if square <= small else square
            change = np.sqrt(a[k] + epsilon) / np.sqrt(square + epsilon) * d
            changes = r * a[k] + c * change * change
            s[k] = square
            a[k] = F(0) if changes <= small else changes
            p[k] -= lr * change


@primitive
def rprop(
    table: InInt,
    sizes: InInt,
    rate: In,
    count: Int,
    shrink: Real,
    grow: Real,
    smallest: Real,
    largest: Real,
    maximize: Int,
):
    """Rprop (Riedmiller and Braun 1993), which uses the signs of gradients only.

    State buffers: the previous gradient and the step size.
    """
    down = F(shrink)
    up = F(grow)
    low = F(smallest)
    high = F(largest)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, before, size, _, _ = _buffers(table, i)
        for k in range(sizes[i]):
            d = sense * g[k]
            same = d * before[k]
            step = size[k] * (up if same > F(0) else down if same < F(0) else F(1))
            step = low if step < low else high if step > high else step
            d = F(0) if same < F(0) else d
            size[k] = step
            before[k] = d
            p[k] -= (F(d > F(0)) - F(d < F(0))) * step


@primitive
def asgd(table: InInt, sizes: InInt, rate: In, count: Int, lambd: Real, weight_decay: Real, maximize: Int):
    """Averaged SGD (Polyak and Juditsky 1992).

    State buffers: the average, this step's rate (one number) and this step's weight in the average (one number).
    """
    decay = F(weight_decay)
    sense = F(-1) if maximize else F(1)
    for i in range(count):
        p, g, mean, rates, weights, _ = _buffers(table, i)
        eta = rates[0]
        weight = weights[0]
        keep = F(1.0 - lambd * float(eta))
        for k in range(sizes[i]):
            d = _decayed(sense * g[k], decay, p[k])
            new = keep * p[k] - eta * d
            p[k] = new
            mean[k] = new if weight == F(1) else mean[k] + (new - mean[k]) * weight


@primitive
def asgd_rates(table: InInt, rate: In, count: Int, lambd: Real, alpha: Real, start: Real):
    """Write the rate and the averaging weight of the next step into the state buffers. Launch it after `asgd`."""
    lr = float(rate[0])
    for i in range(count):
        _, _, _, rates, weights, step = _buffers(table, i)
        rates[0] = F(lr / pow64(1.0 + lambd * lr * step[0], alpha))
        weights[0] = F(1.0 / max(1.0, step[0] - start))


@primitive
def total_norm(out: Out, table: InInt, sizes: InInt, count: Int):
    """out[0] = the Euclidean norm of all gradients together. Reads only the column of gradients."""
    total = 0.0
    lanes = np.empty(LANES, np.float32)
    for i in range(count):
        g = _floats(table[COLUMNS * i + 1])
        full = sizes[i] - sizes[i] % LANES
        lanes[:] = F(0)
        for k in range(0, full, LANES):
            for lane in range(LANES):
                lanes[lane] += g[k + lane] * g[k + lane]
        for k in range(full, sizes[i]):
            lanes[k - full] += g[k] * g[k]
        for lane in range(LANES):
            total += lanes[lane]
    out[0] = F(np.sqrt(total))


@primitive
def first_not_finite(
    table: InInt, sizes: InInt, skips: InInt, status: InOutInt, count: Int, first: Int, after: Int, listing: Int
):
    """Report the first of ``count`` float32 buffers that holds NaN or infinity: `NOT_FINITE`, its number and ``listing``.

    ``table[i]`` is the address of buffer i, ``sizes[i]`` its number of elements. If ``skips[0]`` is not 0 the buffers from ``first`` to
    ``after`` are left out. The largest magnitude is found among the bit patterns as integers, which the compiler vectorises: 28
    elements a nanosecond.
    """
    for i in range(count):
        if skips[0] != 0 and first <= i < after:
            continue
        bits = _bits(table[i])
        largest = np.int32(0)
        for k in range(sizes[i]):
            largest = max(largest, bits[k] & MAGNITUDE)
        if largest >= INFINITY:
            status[1] = i
            status[2] = listing
            status[0] = NOT_FINITE
            break


@primitive
def clip_gradients(table: InInt, sizes: InInt, norm: In, count: Int, max_norm: Real, spares: Int):
    """Scale all gradients by max_norm / norm if the norm is larger than max_norm (Pascanu, Mikolov and Bengio 2013).

    With ``spares`` a factor that is NaN leaves the gradients as they are, so the gradient that caused it can still be named.
    """
    factor = min(F(max_norm) / (norm[0] + F(1e-6)), F(1))
    if factor == F(1) or (spares != 0 and factor != factor):
        return
    for i in range(count):
        g = _floats(table[COLUMNS * i + 1])
        for k in range(sizes[i]):
            g[k] *= factor


@primitive
def clip_values(table: InInt, sizes: InInt, count: Int, limit: Real):
    """Clamp every element of the gradients to [-limit, limit]. NaN stays NaN."""
    low, high = F(-limit), F(limit)
    for i in range(count):
        g = _floats(table[COLUMNS * i + 1])
        for k in range(sizes[i]):
            g[k] = low if g[k] < low else high if g[k] > high else g[k]


@primitive
def blend(table: InInt, sizes: InInt, count: Int, tau: Real):
    """Move column 0 (targets) towards column 1 (sources): target = (1 - tau) target + tau source. A tau of 1 copies."""
    t = F(tau)
    for i in range(count):
        target, source = _floats(table[COLUMNS * i]), _floats(table[COLUMNS * i + 1])
        if t == F(1):
            for k in range(sizes[i]):
                target[k] = source[k]
        else:
            for k in range(sizes[i]):
                target[k] += t * (source[k] - target[k])
