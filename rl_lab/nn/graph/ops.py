"""The graph network as one differentiable operation. `nn.graph.kernels` documents the format of ``structure``."""

from typing import TYPE_CHECKING

from rl_lab.engine import tape
from rl_lab.engine.errors import StateError
from rl_lab.engine.launch import launch
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import empty
from rl_lab.nn.graph import kernels as graph_kernels

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


def graph(
    x: "Tensor",
    state: "Tensor | None",
    weight: "Tensor",
    bias: "Tensor",
    structure: "Tensor",
    sizes: tuple[int, int, int, bool],
) -> "Tensor":
    """Outputs (batch, outputs) of a graph network for inputs x (batch, inputs).

    ``weight`` has one element per edge and ``bias`` one per node, both in the order of ``structure``. ``sizes`` repeats the header
    of ``structure``: (inputs, nodes, outputs, recurrent). ``state`` (batch, nodes) is None unless the network is recurrent. The
    caller must check the shapes. Differentiable once.
    """
    inputs, nodes, outputs, recurrent = sizes
    batch = x.shape[0]
    with tape.no_grad():
        source = x.contiguous()
        before = source if state is None else state.contiguous()
    rows = inputs + nodes * (1 + recurrent)
    out = empty((batch, outputs))
    sums = empty((nodes, batch))
    values = empty((rows, batch))
    launch(graph_kernels.graph_forward, (out, sums, values, source, before, weight, bias, structure), (batch,))
    if not tape.modes.grad:
        return out
    differentiable = (x, weight, bias) if state is None else (x, weight, bias, state)
    return attach(out, _graph_rule, differentiable, (sums, values, weight), (structure, sizes))


def _graph_rule(g, node):
    if tape.modes.grad:
        raise StateError("a graph network is differentiable only once: call backward or grad without create_graph")
    sums, values, weight = node.saved
    structure, (inputs, nodes, _, recurrent) = node.context
    batch = values.shape[1]
    to_x = empty((batch, inputs))
    to_weight = empty(weight.shape)
    to_bias = empty((nodes,))
    to_state = empty((batch, nodes)) if recurrent else to_x
    adjoint = empty(values.shape)
    g = g.contiguous()
    launch(
        graph_kernels.graph_backward,
        (to_x, to_state, to_weight, to_bias, adjoint, g, sums, values, weight, structure),
        (batch,),
    )
    return (to_x, to_weight, to_bias, to_state) if recurrent else (to_x, to_weight, to_bias)
