"""The elementwise parts of gated recurrent cells, forward and backward: n rows of m units, gates in PyTorch's order."""

import numpy as np

from rl_lab.engine.kernels.normalization import row_dot
from rl_lab.engine.kernels.scalar import sigmoid32, tanh32
from rl_lab.native.primitive import In, Int, Out, primitive

F = np.float32


@primitive
def lstm_cell(out: Out, gates: Out, z: In, c: In, n: Int, m: Int):
    """out[0] = new hidden state, out[1] = new cell, from the pre-activations z of the gates (n, 4m) and the old cell c (n, m).

    The gates stand in the order input, forget, candidate, output. ``gates`` (n, 4m) receives the activations for the backward pass.
    Source: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000.
    """
    for i in range(n):
        p, q = i * 4 * m, i * m
        for k in range(2 * m):
            gates[p + k] = sigmoid32(z[p + k])
        for k in range(2 * m, 3 * m):
            gates[p + k] = tanh32(z[p + k])
        for k in range(3 * m, 4 * m):
            gates[p + k] = sigmoid32(z[p + k])
        for k in range(m):
            cell = gates[p + m + k] * c[q + k] + gates[p + k] * gates[p + 2 * m + k]
            out[n * m + q + k] = cell
            out[q + k] = gates[p + 3 * m + k] * tanh32(cell)


@primitive
def lstm_cell_backward(to_z: Out, to_c: Out, g: In, out: In, gates: In, c: In, n: Int, m: Int):
    """Gradients of z and c from ``g``, the gradient of ``out``. ``g`` and ``out`` are (2, n, m)."""
    for i in range(n):
        p, q = i * 4 * m, i * m
        for k in range(m):
            enter = gates[p + k]
            forget = gates[p + m + k]
            candidate = gates[p + 2 * m + k]
            leave = gates[p + 3 * m + k]
            squashed = tanh32(out[n * m + q + k])
            to_hidden = g[q + k]
            to_cell = g[n * m + q + k] + to_hidden * leave * (F(1) - squashed * squashed)
            to_z[p + k] = to_cell * candidate * enter * (F(1) - enter)
            to_z[p + m + k] = to_cell * c[q + k] * forget * (F(1) - forget)
            to_z[p + 2 * m + k] = to_cell * enter * (F(1) - candidate * candidate)
            to_z[p + 3 * m + k] = to_hidden * squashed * leave * (F(1) - leave)
            to_c[q + k] = to_cell * forget


@primitive
def gru_cell(out: Out, gates: Out, zi: In, zh: In, h: In, n: Int, m: Int):
    """out = new hidden state (n, m) from the old one, h, and the pre-activations of the gates: zi (from x) and zh (from h), (n, 3m).

    The gates stand in the order reset, update, new. ``gates`` (n, 3m) receives the activations for the backward pass.
    Source: Cho et al. 2014, with the reset gate applied after the product with h, as in PyTorch.
    """
    for i in range(n):
        p, q = i * 3 * m, i * m
        for k in range(2 * m):
            gates[p + k] = sigmoid32(zi[p + k] + zh[p + k])
        for k in range(m):
            gates[p + 2 * m + k] = tanh32(zi[p + 2 * m + k] + gates[p + k] * zh[p + 2 * m + k])
        for k in range(m):
            new = gates[p + 2 * m + k]
            out[q + k] = new + gates[p + m + k] * (h[q + k] - new)


@primitive
def gru_cell_backward(to_zi: Out, to_zh: Out, to_h: Out, g: In, gates: In, zh: In, h: In, n: Int, m: Int):
    """Gradients of zi, zh and h from ``g``, the gradient of ``out``."""
    for i in range(n):
        p, q = i * 3 * m, i * m
        for k in range(m):
            reset = gates[p + k]
            update = gates[p + m + k]
            new = gates[p + 2 * m + k]
            to_new = g[q + k] * (F(1) - update) * (F(1) - new * new)
            to_update = g[q + k] * (h[q + k] - new) * update * (F(1) - update)
            to_reset = to_new * zh[p + 2 * m + k] * reset * (F(1) - reset)
            to_zi[p + k] = to_reset
            to_zi[p + m + k] = to_update
            to_zi[p + 2 * m + k] = to_new
            to_zh[p + k] = to_reset
            to_zh[p + m + k] = to_update
            to_zh[p + 2 * m + k] = to_new * reset
            to_h[q + k] = g[q + k] * update


@primitive
def cfc_cell(out: Out, gates: Out, z: In, t: In, n: Int, m: Int):
    """out = new state (n, m) of a closed-form continuous-time cell after ``t`` (n,), from its four heads z (n, 4m).

    The heads stand in the order of equation 2 of Hasani et al. 2022: g, h, the slope of the gate in time, and its offset.
    ``gates`` (n, 3m) receives tanh g, tanh h and the gate for the backward pass.
    """
    for i in range(n):
        p, q = i * 4 * m, i * 3 * m
        elapsed = t[i]
        for k in range(2 * m):
            gates[q + k] = tanh32(z[p + k])
        for k in range(m):
            gates[q + 2 * m + k] = sigmoid32(z[p + 2 * m + k] * elapsed + z[p + 3 * m + k])
        for k in range(m):
            first = gates[q + k]
            out[i * m + k] = first + gates[q + 2 * m + k] * (gates[q + m + k] - first)


@primitive
def cfc_cell_backward(to_z: Out, to_t: Out, g: In, gates: In, z: In, t: In, n: Int, m: Int):
    """Gradients of z and t from ``g``, the gradient of ``out``. Short loops compile to vector instructions."""
    for i in range(n):
        p, q = i * 4 * m, i * 3 * m
        r = i * m
        elapsed = t[i]
        for k in range(m):
            to_z[p + k] = g[r + k] * (F(1) - gates[q + 2 * m + k]) * (F(1) - gates[q + k] * gates[q + k])
        for k in range(m):
            to_z[p + m + k] = g[r + k] * gates[q + 2 * m + k] * (F(1) - gates[q + m + k] * gates[q + m + k])
        for k in range(m):
            gate = gates[q + 2 * m + k]
            to_z[p + 3 * m + k] = g[r + k] * (gates[q + m + k] - gates[q + k]) * gate * (F(1) - gate)
        for k in range(m):
            to_z[p + 2 * m + k] = to_z[p + 3 * m + k] * elapsed
        to_t[i] = row_dot(to_z, p + 3 * m, z, p + 2 * m, m)


@primitive
def ltc_cell(out: Out, gates: Out, z: In, h: In, rate: In, target: In, t: In, n: Int, m: Int):
    """out = state (n, m) of a liquid time-constant cell after one implicit Euler step of ``t`` (n,) from h.

    Equation 3 of Hasani et al. 2021 with f = sigmoid(z): (h + t f A) / (1 + t (1 / tau + f)), ``rate`` 1 / tau and ``target`` A (m,).
    ``gates`` (n, m) receives f for the backward pass.
    """
    for i in range(n):
        p = i * m
        elapsed = t[i]
        for k in range(m):
            gates[p + k] = sigmoid32(z[p + k])
        for k in range(m):
            f = gates[p + k]
            out[p + k] = (h[p + k] + elapsed * f * target[k]) / (F(1) + elapsed * (rate[k] + f))


@primitive
def ltc_cell_backward(
    to_z: Out, to_h: Out, to_rate: Out, to_target: Out, to_t: Out,
    g: In, out: In, gates: In, rate: In, target: In, t: In, n: Int, m: Int,
):  # fmt: skip
    """Gradients of z, h, ``rate``, ``target`` and t from ``g``, the gradient of ``out``."""
    for k in range(m):
        to_rate[k] = F(0)
        to_target[k] = F(0)
    for i in range(n):
        p = i * m
        elapsed = t[i]
        total = F(0)
        for k in range(m):
            f = gates[p + k]
            share = g[p + k] / (F(1) + elapsed * (rate[k] + f))
            after = out[p + k]
            to_h[p + k] = share
            to_z[p + k] = share * elapsed * (target[k] - after) * f * (F(1) - f)
            to_rate[k] -= share * elapsed * after
            to_target[k] += share * elapsed * f
            total += share * (f * target[k] - (rate[k] + f) * after)
        to_t[i] = total
