"""A network that is a graph, as one operation with one gradient kernel. The format of ``structure`` is in `kernels.graph`."""

from typing import TYPE_CHECKING, Any

from rl_lab.engine import tape
from rl_lab.engine.errors import StateError
from rl_lab.engine.launch import launch
from rl_lab.engine.tape import attach
from rl_lab.engine.tensor import empty
from rl_lab.nn.graph import kernels as graph_kernels

if TYPE_CHECKING:
    from rl_lab.engine.ops import Tensor


def graph(x: Any, state: Any, weight: Any, bias: Any, structure: Any, sizes: tuple[int, int, int, bool]) -> "Tensor":
    """The outputs (batch, outputs) of a graph network for inputs x (batch, inputs).

    ``weight`` has an element for each edge and ``bias`` for each node in the order of ``structure``, whose header ``sizes`` repeats
    (inputs, nodes, outputs, recurrent). ``state`` (batch, nodes) is None unless the network is recurrent. The caller has checked
    shapes. Once differentiable.
    """
    inputs, nodes, outputs, recurrent = sizes
    batch = x.shape[0]
    with tape.no_grad():
        source = x.contiguous()
        before = source if state is None else state.contiguous()
    rows = inputs + nodes * (1 + recurrent)
    out, sums, values = empty((batch, outputs)), empty((nodes, batch)), empty((rows, batch))
    launch(graph_kernels.graph_forward, (out, sums, values, source, before, weight, bias, structure), (batch,))
    if not tape.modes.grad:
        return out
    takes_part = (x, weight, bias) if state is None else (x, weight, bias, state)
    return attach(out, _graph_rule, takes_part, (sums, values, weight), (structure, sizes))


def _graph_rule(g, node):
    if tape.modes.grad:
        raise StateError("a graph network is differentiable once: create_graph is not supported through it")
    (sums, values, weight), (structure, (inputs, nodes, _, recurrent)) = node.saved, node.context
    batch = values.shape[1]
    to_x, to_weight, to_bias = empty((batch, inputs)), empty(weight.shape), empty((nodes,))
    to_state = empty((batch, nodes)) if recurrent else to_x
    adjoint, g = empty(values.shape), g.contiguous()
    launch(
        graph_kernels.graph_backward,
        (to_x, to_state, to_weight, to_bias, adjoint, g, sums, values, weight, structure),
        (batch,),
    )
    return (to_x, to_weight, to_bias, to_state) if recurrent else (to_x, to_weight, to_bias)
