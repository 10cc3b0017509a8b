"""The elementwise parts of gated recurrent cells, forward and backward: n rows of m units, gates in PyTorch's order."""

import numpy as np

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
