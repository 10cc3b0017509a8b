"""A policy as one Python file that needs NumPy alone."""

import base64
import textwrap

import numpy as np

from rl_lab.experiment.export.expressions import HELPERS, Numpy
from rl_lab.experiment.export.graph import Graph, Node, Operand, Ref

_HEAD = '''"""{title}

`predict` takes one observation or a batch of them, as the agent's method of this name does. Exported by rl_lab.
"""

import base64
import math

import numpy as np

F = np.float32
OBSERVATION_SHAPE = {observation}
OBSERVATION_DTYPE = np.dtype("{dtype}")
ACTION_SHAPE = {action}
ACTION_DTYPE = {action_dtype}
MASKED = {masked}
"""Number of entries of an action mask; 0 if the policy takes no mask."""
'''

_ENDING = '''

def start(count):
    """What the policy remembers when episodes begin, for ``count`` observations at a time; () for a policy without memory."""
    return tuple(np.repeat(part, count, 0) for part in _START)


def outputs(observations, memory=None, action_mask=None):
    """(actions, scores of the options or None, next memory) for a batch of observations (batch, *OBSERVATION_SHAPE)."""
    x = np.asarray(observations, OBSERVATION_DTYPE).reshape(-1, *OBSERVATION_SHAPE)
    n = len(x)
    memory = start(n) if memory is None else memory
    mask = np.ones((n, MASKED), bool) if action_mask is None else np.asarray(action_mask, bool).reshape(n, MASKED)
    with np.errstate(all="ignore"):
        return _policy(n, x.reshape(n, -1), memory, mask)


def predict(observation, state=None, action_mask=None):
    """The greedy action for one observation, or an array of actions for a batch.

    A policy with memory returns (action, state): pass the state with the next observation, and None when an episode begins.
    """
    one = np.shape(observation) == OBSERVATION_SHAPE
    actions, _, memory = outputs(observation, state, action_mask)
    actions = actions if ACTION_DTYPE is None else actions.astype(ACTION_DTYPE)
    actions = np.clip(actions, *_BOUNDS) if _BOUNDS else actions  # rounding may exceed the bounds
    actions = actions[0] if one else actions
    return (actions, memory) if _START else actions
'''


class _Writer:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.lines: list[str] = []
        self.constants: list[np.ndarray] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self.helpers: set[str] = set()

    # --- operands ----------------------------------------------------------------------------------------------------

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant of the module."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = len(self.constants)
            self.constants.append(np.array(array, order="C"))
        return f"C[{self._known[key]}]"

    def operand(self, given: Operand, shape: tuple[int, ...] | None = None) -> str:
        """An operand (batch, *shape), or a constant of this shape; flat without a ``shape``."""
        if isinstance(given, Ref):
            return f"v{given.value}" if shape is None else f"v{given.value}.reshape({', '.join(map(str, (-1, *shape)))})"
        if given.size == 1 and given.dtype == np.float32 and np.isfinite(given).all():
            return f"F({float(given.ravel()[0])!r})"
        return self.constant(given.ravel() if shape is None else given.reshape(shape))

    def rows(self, given: Operand) -> str:
        """An operand (batch, size)."""
        if isinstance(given, Ref):
            return f"v{given.value}"
        return f"np.broadcast_to({self.constant(given.ravel())}, (n, {given.size}))"

    def index(self, index: np.ndarray) -> str:
        """An index of columns: a slice where it is one."""
        flat = index.ravel()
        if len(flat) and (np.diff(flat) == 1).all():
            return f"[:, {flat[0]}:{flat[-1] + 1}]"
        return f"[:, {self.constant(flat)}]"

    # --- nodes -------------------------------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Add the line of a node."""
        text = getattr(self, f"_{node.kind}", self._reduction)(node)
        self.lines.append(f"v{node.out} = {text}")

    def _map(self, node: Node) -> str:
        partial = any(1 < int(np.prod(o.shape)) < node.size for o in node.operands)
        rank = len(node.shape)
        operands = {}
        for name, given in zip(node.names, node.operands, strict=True):
            shape = (1,) * (rank - len(given.shape)) + tuple(given.shape) if partial else None
            dtype = self.graph.values[given.value].dtype if isinstance(given, Ref) else given.dtype.name
            operands[name] = self.operand(given, shape), dtype
        text = Numpy().build(node.formula, operands, node.dtype)
        self.helpers.update(name for name in ("_exp", "_tanh", "_sigmoid", "_softplus", "_erf") if f"{name}(" in text)
        return f"({text}).reshape(n, {node.size})" if partial else text

    def _take(self, node: Node) -> str:
        assert node.index is not None
        sources = [self.rows(operand) for operand in node.operands]
        whole = sources[0] if len(sources) == 1 else f"np.concatenate([{', '.join(sources)}], 1)"
        return f"{whole}{self.index(node.index)}"

    def _lookup(self, node: Node) -> str:
        values, index = node.operands
        if isinstance(values, Ref):
            return f"np.take_along_axis({self.rows(values)}, {self.rows(index)}, 1)"
        return f"{self.constant(values.ravel())}[{self.rows(index)}]"

    def _product(self, node: Node) -> str:
        a, b, *rest = node.operands
        batch, n, _ = node.shape
        if batch == n == 1 and isinstance(b, np.ndarray):
            text = f"{self.rows(a)} @ {self.operand(b, tuple(b.shape[1:]))}"
        else:
            text = f"({self.operand(a, tuple(a.shape))} @ {self.operand(b, tuple(b.shape))})"
            return f"({text}{self._bias(rest)}).reshape(n, {node.size})"
        return text + self._bias(rest)

    def _bias(self, rest: list[Operand]) -> str:
        return f" + {self.operand(rest[0], tuple(rest[0].shape))}" if rest else ""

    def _reduction(self, node: Node) -> str:
        (x,) = node.operands
        call = {"sum": "sum(2)", "max": "max(2)", "product_of": "prod(2)", "any": "any(2)", "argmax": "argmax(2)"}[node.kind]
        return f"{self.operand(x, tuple(x.shape))}.{call}.reshape(n, {node.size})"

    def _windows(self, node: Node, kh: int, kw: int, edge: str) -> str:
        x = node.operands[0]
        w = node.window
        height, width = x.shape[-2:]
        low = max(0, (w["oh"] - 1) * w["sh"] + (kh - 1) * w["dh"] + 1 - height - w["ph"])
        right = max(0, (w["ow"] - 1) * w["sw"] + (kw - 1) * w["dw"] + 1 - width - w["pw"])
        self.helpers.add("_windows")
        sizes = (kh, kw, w["sh"], w["sw"], w["dh"], w["dw"], w["oh"], w["ow"])
        pads = (w["ph"], low, w["pw"], right)
        return f"_windows({self.operand(x, tuple(x.shape))}, {sizes}, {pads}, {edge})"

    def _convolve(self, node: Node) -> str:
        _, weight, bias = node.operands
        assert isinstance(weight, np.ndarray)
        self.helpers.add("_convolve")
        kh, kw = weight.shape[-2:]
        windows = self._windows(node, kh, kw, "0")
        return f"_convolve({windows}, {self.constant(weight)}, {self.operand(bias, tuple(bias.shape))})"

    def _max_pool(self, node: Node) -> str:
        return f"{self._windows(node, node.window['kh'], node.window['kw'], '-np.inf')}.max((-2, -1)).reshape(n, {node.size})"

    def _avg_pool(self, node: Node) -> str:
        return f"{self._windows(node, node.window['kh'], node.window['kw'], '0')}.mean((-2, -1)).reshape(n, {node.size})"


_WINDOWS = """
def _windows(x, sizes, pads, edge):
    kh, kw, sh, sw, dh, dw, oh, ow = sizes
    top, bottom, left, right = pads
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)], constant_values=edge)
    view = np.lib.stride_tricks.sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), (-2, -1))
    return view[..., : (oh - 1) * sh + 1 : sh, : (ow - 1) * sw + 1 : sw, ::dh, ::dw]
"""
_CONVOLVE = """
def _convolve(windows, weight, bias):
    groups = [np.tensordot(windows[:, g], w, ([1, 4, 5], [1, 2, 3])) for g, w in enumerate(weight)]
    whole = np.concatenate(groups, 3) + bias
    return np.moveaxis(whole, 3, 1).reshape(len(whole), -1)
"""


def write_numpy(graph: Graph) -> str:
    """The source of a Python module that computes a policy with NumPy."""
    writer = _Writer(graph)
    for node in graph.nodes:
        writer.node(node)
    found = {output.name: output for output in graph.outputs}

    def result(name: str, flat: bool = False) -> str:
        output = found[name]
        shape = f".reshape(n, *{output.shape})" if output.shape != (int(np.prod(output.shape)),) or flat else ""
        return f"{writer.rows(output.operand)}{shape}"

    memory = [result(f"memory{i}") for i in range(len(graph.memory))]
    scores = result("scores") if "scores" in found else "None"
    returned = f"return {result('action')}, {scores}, ({''.join(f'{part}, ' for part in memory)})"
    begin = []
    for given in graph.inputs:
        source = {"observation": "x", "action_mask": "mask"}.get(given.name, f"memory[{given.name.removeprefix('memory')}]")
        begin.append(f"v{given.value} = {source if given.name != 'observation' else 'x'}.reshape(n, -1)")
    observation = graph.input("observation")
    mask = graph.input("action_mask")
    assert observation is not None
    head = _HEAD.format(
        title=graph.title,
        observation=observation.shape,
        dtype=graph.values[observation.value].dtype,
        action=found["action"].shape,
        action_dtype=None if graph.action_dtype is None else f'np.dtype("{graph.action_dtype}")',
        masked=0 if mask is None else mask.shape[0],
    )
    starts = [writer.constant(part) for part in graph.memory]
    bounds = [writer.constant(part) for part in graph.bounds]
    blob = b"".join(array.tobytes() for array in writer.constants)
    text = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 120))
    layout = ", ".join(f"({array.dtype.str!r}, {array.shape})" for array in writer.constants)
    unpack = (
        f'\n_LAYOUT = [{layout}]\n_BYTES = base64.b64decode("""\n{text}\n""")\n\n\n'
        "def _unpack():\n"
        "    arrays, at = [], 0\n"
        "    for dtype, shape in _LAYOUT:\n"
        "        count = math.prod(shape)\n"
        "        arrays.append(np.frombuffer(_BYTES, dtype, count, at).reshape(shape))\n"
        "        at += count * np.dtype(dtype).itemsize\n"
        "    return arrays\n\n\n"
        f"C = _unpack()\n_START = ({''.join(f'{name}, ' for name in starts)})\n"
        f"_BOUNDS = ({''.join(f'{name}, ' for name in bounds)})\n"
    )
    helpers = "".join(
        f"\n{part.strip()}\n\n"
        for part in (*HELPERS.strip().split("\n\n\n"), _WINDOWS, _CONVOLVE)
        if part.strip().split("(")[0].removeprefix("def ") in writer.helpers
    )
    lines = "\n    ".join([*begin, *writer.lines, returned])
    body = f"\n\ndef _policy(n, x, memory, mask):\n    {lines}\n"
    return f"{head}{unpack}{helpers}{body}{_ENDING}"
