"""Gated recurrent cells: matrix products, then one launch for everything else."""

from rl_lab.engine.kernels import recurrent as recurrent_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.layout import dense, stack
from rl_lab.engine.ops.matmul import linear
from rl_lab.engine.ops.operands import differentiate
from rl_lab.engine.tape import Node, attach, modes
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients


def _lstm_composed(z: Tensor, c: Tensor) -> Tensor:
    enter, forget, candidate, leave = z.chunk(4, -1)
    cell = forget.sigmoid() * c + enter.sigmoid() * candidate.tanh()
    return stack([leave.sigmoid() * cell.tanh(), cell])


def _lstm_rule(g: Tensor, node: Node) -> Gradients:
    z, c, gates, out = node.saved
    if modes.grad:
        return differentiate(_lstm_composed, (z, c), g)
    g, before = dense(g, c)
    to_z = empty(z.sizes)
    to_c = empty(c.sizes)
    launch(recurrent_kernels.lstm_cell_backward, (to_z, to_c, g, out, gates, before), c.sizes)
    return to_z, to_c


def lstm_gates(z: Tensor, c: Tensor) -> Tensor:
    """The new hidden state and the new cell, stacked to (2, n, m).

    z (n, 4m) are the pre-activations of the gates in PyTorch's order, c (n, m) is the old cell.
    """
    inputs, before = dense(z, c)
    out = empty((2, *c.sizes))
    gates = empty(z.sizes)
    launch(recurrent_kernels.lstm_cell, (out, gates, inputs, before), c.sizes)
    return attach(out, _lstm_rule, (z, c), (z, c, gates, out))


def _gru_composed(zi: Tensor, zh: Tensor, h: Tensor) -> Tensor:
    reset_i, update_i, new_i = zi.chunk(3, -1)
    reset_h, update_h, new_h = zh.chunk(3, -1)
    update = (update_i + update_h).sigmoid()
    new = (new_i + (reset_i + reset_h).sigmoid() * new_h).tanh()
    return new + update * (h - new)


def _gru_rule(g: Tensor, node: Node) -> Gradients:
    zi, zh, h, gates = node.saved
    if modes.grad:
        return differentiate(_gru_composed, (zi, zh, h), g)
    g, inputs, before = dense(g, zh, h)
    to_zi = empty(zi.sizes)
    to_zh = empty(zh.sizes)
    to_h = empty(h.sizes)
    launch(recurrent_kernels.gru_cell_backward, (to_zi, to_zh, to_h, g, gates, inputs, before), h.sizes)
    return to_zi, to_zh, to_h


def gru_gates(zi: Tensor, zh: Tensor, h: Tensor) -> Tensor:
    """The new hidden state (n, m) from the old one, h, and the pre-activations (n, 3m) of the gates, in PyTorch's order.

    zi is the part of the pre-activations that comes from x, zh the part that comes from h.
    """
    from_x, from_h, before = dense(zi, zh, h)
    out = empty(h.sizes)
    gates = empty(zi.sizes)
    launch(recurrent_kernels.gru_cell, (out, gates, from_x, from_h, before), h.sizes)
    return attach(out, _gru_rule, (zi, zh, h), (zi, zh, h, gates))


def _cfc_composed(z: Tensor, t: Tensor) -> Tensor:
    first, second, slope, offset = z.chunk(4, -1)
    gate = (slope * t.unsqueeze(-1) + offset).sigmoid()
    first, second = first.tanh(), second.tanh()
    return first + gate * (second - first)


def _cfc_rule(g: Tensor, node: Node) -> Gradients:
    z, t, gates = node.saved
    if modes.grad:
        return differentiate(_cfc_composed, (z, t), g)
    g, heads, elapsed = dense(g, z, t)
    to_z = empty(z.sizes)
    to_t = empty(t.sizes)
    launch(recurrent_kernels.cfc_cell_backward, (to_z, to_t, g, gates, heads, elapsed), g.sizes)
    return to_z, to_t


def cfc_gates(z: Tensor, t: Tensor) -> Tensor:
    """The state (n, m) of a closed-form continuous-time cell (Hasani et al. 2022, equation 2) after the times t (n,).

    z (n, 4m) are its heads: g and h before tanh, and the gate's slope in time and offset before the sigmoid.
    """
    heads, elapsed = dense(z, t)
    n, m = z.sizes[0], z.sizes[1] // 4
    out = empty((n, m))
    gates = empty((n, 3 * m))
    launch(recurrent_kernels.cfc_cell, (out, gates, heads, elapsed), (n, m))
    return attach(out, _cfc_rule, (z, t), (z, t, gates))


def _ltc_composed(z: Tensor, h: Tensor, rate: Tensor, target: Tensor, t: Tensor) -> Tensor:
    f = z.sigmoid()
    elapsed = t.unsqueeze(-1)
    return (h + elapsed * f * target) / (1.0 + elapsed * (rate + f))


def _ltc_rule(g: Tensor, node: Node) -> Gradients:
    z, h, rate, target, t, gates, out = node.saved
    if modes.grad:
        return differentiate(_ltc_composed, (z, h, rate, target, t), g)
    g, rates, targets, elapsed = dense(g, rate, target, t)
    results = tuple([empty(x.sizes) for x in (z, h, rate, target, t)])
    launch(recurrent_kernels.ltc_cell_backward, (*results, g, out, gates, rates, targets, elapsed), g.sizes)
    return results


def ltc_step(z: Tensor, h: Tensor, rate: Tensor, target: Tensor, t: Tensor) -> Tensor:
    """The state (n, m) of a liquid time-constant cell (Hasani et al. 2021, equation 3) one Euler step of t (n,) after h.

    z (n, m) is the argument of the sigmoid, ``rate`` (m,) is 1 / tau, ``target`` (m,) is A.
    """
    operands = dense(z, h, rate, target, t)
    out = empty(h.sizes)
    gates = empty(h.sizes)
    launch(recurrent_kernels.ltc_cell, (out, gates, *operands), h.sizes)
    return attach(out, _ltc_rule, (z, h, rate, target, t), (z, h, rate, target, t, gates, out))


def lstm_cell(
    input: Tensor, hx: tuple[Tensor, Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The new (h, c), each (n, m), of a long short-term memory (Hochreiter and Schmidhuber 1997).

    Takes x (n, inputs), hx = (h, c), the weights (4m, inputs) and (4m, m) and the biases (4m,).
    """
    h, c = hx
    new_h, new_c = lstm_gates(linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh), c).unbind(0)
    return new_h, new_c


def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """The new hidden state (n, m) of a gated recurrent unit (Cho et al. 2014).

    Takes x (n, inputs), the old hidden state hx (n, m), the weights (3m, inputs) and (3m, m) and the biases (3m,).
    """
    return gru_gates(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh), hx)
