"""Gated recurrent cells: the products are matrix products, all that follows them is one launch."""

from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.kernels import recurrent as recurrent_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.ops.matmul import linear
from rl_lab.engine.ops.operands import differentiate
from rl_lab.engine.tape import attach, modes
from rl_lab.engine.tensor import Tensor, empty


def _dense(*tensors: Any) -> tuple:
    with tape.no_grad():
        return tuple([t.contiguous() for t in tensors])


def _lstm_composed(z: Any, c: Any) -> Any:
    enter, forget, candidate, leave = z.chunk(4, -1)
    cell = forget.sigmoid() * c + enter.sigmoid() * candidate.tanh()
    return stack([leave.sigmoid() * cell.tanh(), cell])


def _lstm_rule(g, node):
    z, c, gates, out = node.saved
    if modes.grad:
        return tuple(differentiate(_lstm_composed, (z, c), g))
    g, before = _dense(g, c)
    to_z, to_c = empty(z.sizes), empty(c.sizes)
    launch(recurrent_kernels.lstm_cell_backward, (to_z, to_c, g, out, gates, before), c.sizes)
    return to_z, to_c


def lstm_gates(z: Any, c: Any) -> Tensor:
    """The new hidden state and cell, stacked (2, n, m), from the gates' inputs z (n, 4m), in PyTorch's order, and the cell (n, m)."""
    inputs, before = _dense(z, c)
    out, gates = empty((2, *c.sizes)), empty(z.sizes)
    launch(recurrent_kernels.lstm_cell, (out, gates, inputs, before), c.sizes)
    return attach(out, _lstm_rule, (z, c), (z, c, gates, out))


def _gru_composed(zi: Any, zh: Any, h: Any) -> Any:
    reset_i, update_i, new_i = zi.chunk(3, -1)
    reset_h, update_h, new_h = zh.chunk(3, -1)
    update = (update_i + update_h).sigmoid()
    new = (new_i + (reset_i + reset_h).sigmoid() * new_h).tanh()
    return new + update * (h - new)


def _gru_rule(g, node):
    zi, zh, h, gates = node.saved
    if modes.grad:
        return tuple(differentiate(_gru_composed, (zi, zh, h), g))
    g, inputs, before = _dense(g, zh, h)
    to_zi, to_zh, to_h = empty(zi.sizes), empty(zh.sizes), empty(h.sizes)
    launch(recurrent_kernels.gru_cell_backward, (to_zi, to_zh, to_h, g, gates, inputs, before), h.sizes)
    return to_zi, to_zh, to_h


def gru_gates(zi: Any, zh: Any, h: Any) -> Tensor:
    """The new hidden state (n, m) from the gates' inputs (n, 3m) from x and from h, in PyTorch's order, and h."""
    from_x, from_h, before = _dense(zi, zh, h)
    out, gates = empty(h.sizes), empty(zi.sizes)
    launch(recurrent_kernels.gru_cell, (out, gates, from_x, from_h, before), h.sizes)
    return attach(out, _gru_rule, (zi, zh, h), (zi, zh, h, gates))


def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Tensor, Tensor]:
    """The new (h, c) of a long short-term memory (Hochreiter and Schmidhuber 1997) from x (n, inputs) and hx = (h, c)."""
    h, c = hx
    h, c = lstm_gates(linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh), c).unbind(0)
    return h, c


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """The new h of a gated recurrent unit (Cho et al. 2014) from x (n, inputs) and hx = h."""
    return gru_gates(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh), hx)
