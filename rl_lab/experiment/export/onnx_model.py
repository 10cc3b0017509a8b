"""A policy as an ONNX model, for any number of observations at a time."""

import math
from typing import Any

import numpy as np

from rl_lab.experiment.export.expressions import Language
from rl_lab.experiment.export.graph import BOOL, FLOAT, INT, Graph, Node, Operand, Ref
from rl_lab.experiment.faults import Fault

OPSET = 18
_BINARY = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "**": "Pow", "&": "And", "|": "Or", "^": "Xor"}
_COMPARISONS = {"<": "Less", "<=": "LessOrEqual", ">": "Greater", ">=": "GreaterOrEqual", "==": "Equal"}
_CALLS = {
    **{name: name.capitalize() for name in ("exp", "relu", "sigmoid", "tanh", "softplus", "log", "sqrt", "sin", "cos", "tan")},
    **{name: name.capitalize() for name in ("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf")},
    **{name: name.capitalize() for name in ("floor", "ceil", "abs", "max", "min")},
    "rint": "Round",
}


def require_onnx() -> Any:
    """The library onnx. Raises Fault if it is not installed."""
    try:
        import onnx
    except ImportError:
        raise Fault("ONNX files need onnx, which is not installed: pip install onnx onnxruntime") from None
    return onnx


class _Writer(Language[str]):
    """Builds the nodes of a model. Terms are names of tensors; a value is (batch, size)."""

    name = "ONNX"

    def __init__(self, graph: Graph):
        self.graph = graph
        self.helper = require_onnx().helper
        self.types = {
            np.dtype(np.float32): 1,
            np.dtype(np.uint8): 2,
            np.dtype(np.int64): 7,
            np.dtype(bool): 9,
        }
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._precise = False
        """Whether functions are computed in float64: the steep activations of evolved networks multiply errors of rounding."""

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its result."""
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def initializer(self, array: np.ndarray) -> str:
        """The name of a constant."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self._known)}"
            kind = self.types[array.dtype]
            self.constants[name] = self.helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)
        return self._known[key]

    # --- formulas ----------------------------------------------------------------------------------------------------

    def constant(self, value: float, dtype: str) -> str:
        return self.initializer(np.array(value, dtype))

    def binary(self, sign: str, a: str, b: str, dtype: str) -> str:
        if dtype == INT and sign in "&|^":
            return self.add(f"Bitwise{_BINARY[sign]}", a, b)
        if sign == "%" and dtype == INT:
            return self.add("Mod", a, b)
        if sign not in _BINARY:
            raise self.missing(f"the operator {sign}")
        return self.add(_BINARY[sign], a, b)

    def compare(self, sign: str, a: str, b: str) -> str:
        if sign == "!=":
            return self.add("IsNaN", a) if a == b else self.no(self.add("Equal", a, b))
        if a == b and sign == "==":
            return self.no(self.add("IsNaN", a))
        return self.add(_COMPARISONS[sign], a, b)

    def logical(self, sign: str, a: str, b: str) -> str:
        return self.add("And" if sign == "and" else "Or", a, b)

    def negative(self, a: str) -> str:
        return self.add("Neg", a)

    def no(self, a: str) -> str:
        return self.add("Not", a)

    def choose(self, condition: str, a: str, b: str) -> str:
        return self.add("Where", condition, a, b)

    def cast(self, a: str, given: str, dtype: str) -> str:
        return self.add("Cast", a, to=self.types[np.dtype(dtype)])

    def call(self, function: str, arguments: list[str], dtype: str) -> str:
        one = self.constant(1.0, FLOAT)
        if function == "expm1":
            return self.add("Sub", self.add("Exp", *arguments), one)
        if function == "log1p":
            return self.add("Log", self.add("Add", *arguments, one))
        if function in ("log2", "log10"):
            return self.add("Mul", self.add("Log", *arguments), self.constant(1.0 / math.log(int(function[3:])), FLOAT))
        if function == "sech":
            return self.add("Reciprocal", self.add("Cosh", *arguments))
        if function == "trunc":
            return self.add("Mul", self.add("Sign", *arguments), self.add("Floor", self.add("Abs", *arguments)))
        if function not in _CALLS:
            raise self.missing(function)
        if self._precise and function in ("exp", "sigmoid", "tanh"):
            return self.add("Cast", self.add(_CALLS[function], self.add("Cast", *arguments, to=11)), to=1)
        return self.add(_CALLS[function], *arguments)

    # --- operands ----------------------------------------------------------------------------------------------------

    def operand(self, given: Operand, *shape: int) -> str:
        """An operand (batch, *shape), or a constant of this shape."""
        if not isinstance(given, Ref):
            return self.initializer(given.reshape(shape))
        if shape == (self.graph.values[given.value].size,):
            return f"v{given.value}"
        return self.add("Reshape", f"v{given.value}", self.initializer(np.array([0, *shape], np.int64)))

    def rows(self, given: Operand) -> str:
        """An operand (batch, size)."""
        if isinstance(given, Ref):
            return f"v{given.value}"
        batch = self.add("Shape", "observation", start=0, end=1)
        shape = self.add("Concat", batch, self.initializer(np.array([given.size], np.int64)), axis=0)
        return self.add("Expand", self.initializer(given.reshape(1, -1)), shape)

    def dtype(self, given: Operand) -> str:
        return self.graph.values[given.value].dtype if isinstance(given, Ref) else given.dtype.name

    # --- nodes -------------------------------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Add a node of the graph."""
        write = getattr(self, f"_{node.kind}", self._reduction)
        self.add("Identity", write(node), name=f"v{node.out}")

    def flat(self, name: str, size: int) -> str:
        return self.add("Reshape", name, self.initializer(np.array([0, size], np.int64)))

    def _map(self, node: Node) -> str:
        partial = any(1 < math.prod(o.shape) < node.size for o in node.operands)
        self._precise = node.size == 1
        operands = {}
        for name, given in zip(node.names, node.operands, strict=True):
            shape = tuple(given.shape) if partial else (math.prod(given.shape),)
            shape = (1,) * (len(node.shape) - len(shape)) + shape if partial else shape
            operands[name] = self.operand(given, *shape), self.dtype(given)
        whole = self.build(node.formula, operands, node.dtype)
        return self.flat(whole, node.size) if partial else whole

    def _take(self, node: Node) -> str:
        assert node.index is not None
        sources = [self.rows(operand) for operand in node.operands]
        whole = sources[0] if len(sources) == 1 else self.add("Concat", *sources, axis=1)
        index = node.index.ravel()
        if len(index) and (np.diff(index) == 1).all():
            ends = [self.initializer(np.array([edge], np.int64)) for edge in (index[0], index[-1] + 1, 1)]
            return self.add("Slice", whole, *ends)
        return self.add("Gather", whole, self.initializer(index.astype(np.int64)), axis=1)

    def _lookup(self, node: Node) -> str:
        values, index = node.operands
        if isinstance(values, Ref):
            return self.add("GatherElements", self.rows(values), self.rows(index), axis=1)
        return self.add("Gather", self.initializer(values.ravel()), self.rows(index), axis=0)

    def _product(self, node: Node) -> str:
        a, b, *rest = node.operands
        batch, n, m = node.shape
        if batch == n == 1 and not isinstance(b, Ref):
            bias = [self.operand(rest[0], m)] if rest else []
            weight = np.ascontiguousarray(b.reshape(b.shape[1:]).T)
            return self.add("Gemm", self.rows(a), self.initializer(weight), *bias, transB=1)
        whole = self.add("MatMul", self.operand(a, *a.shape), self.operand(b, *b.shape))
        if rest:
            whole = self.add("Add", whole, self.operand(rest[0], *rest[0].shape))
        return self.flat(whole, node.size)

    def _reduction(self, node: Node) -> str:
        (x,) = node.operands
        given = self.operand(x, *x.shape)
        axes = self.initializer(np.array([2], np.int64))
        if node.kind == "argmax":
            whole = self.add("ArgMax", given, axis=2, keepdims=0)
        elif node.kind == "any":
            number = self.add("ReduceMax", self.cast(given, BOOL, INT), axes, keepdims=0)
            whole = self.cast(number, INT, BOOL)
        else:
            kind = {"sum": "ReduceSum", "max": "ReduceMax", "product_of": "ReduceProd"}[node.kind]
            whole = self.add(kind, given, axes, keepdims=0)
        return self.flat(whole, node.size)

    def _window(self, node: Node, kh: int, kw: int) -> dict[str, Any]:
        w = node.window
        height, width = node.operands[0].shape[-2:]
        low = max(0, (w["oh"] - 1) * w["sh"] + (kh - 1) * w["dh"] + 1 - height - w["ph"])
        right = max(0, (w["ow"] - 1) * w["sw"] + (kw - 1) * w["dw"] + 1 - width - w["pw"])
        return {
            "kernel_shape": [kh, kw],
            "strides": [w["sh"], w["sw"]],
            "dilations": [w["dh"], w["dw"]],
            "pads": [w["ph"], w["pw"], low, right],
        }

    def _convolve(self, node: Node) -> str:
        x, weight, bias = node.operands
        groups, channels, height, width = x.shape
        assert isinstance(weight, np.ndarray)
        kernel = self.initializer(weight.reshape(-1, *weight.shape[2:]))
        given = self.operand(x, groups * channels, height, width)
        options = self._window(node, *weight.shape[3:])
        return self.flat(self.add("Conv", given, kernel, self.operand(bias, *bias.shape), group=groups, **options), node.size)

    def _max_pool(self, node: Node) -> str:
        options = self._window(node, node.window["kh"], node.window["kw"])
        return self.flat(self.add("MaxPool", self.operand(node.operands[0], *node.operands[0].shape), **options), node.size)

    def _avg_pool(self, node: Node) -> str:
        options = self._window(node, node.window["kh"], node.window["kw"])
        del options["dilations"]
        x = self.operand(node.operands[0], *node.operands[0].shape)
        return self.flat(self.add("AveragePool", x, count_include_pad=1, **options), node.size)


def write_onnx(graph: Graph) -> bytes:
    """The content of an ONNX model.

    Its inputs are ``observation`` (batch, ...), ``memory0``, ... and ``action_mask``, its outputs ``action``, ``scores`` and
    ``next_memory0``, ..., as far as the policy has them. Raises Fault if onnx is not installed.
    """
    onnx = require_onnx()
    writer = _Writer(graph)
    helper = writer.helper
    inputs = []
    for given in graph.inputs:
        value = graph.values[given.value]
        kind = writer.types[np.dtype(value.dtype)]
        inputs.append(helper.make_tensor_value_info(given.name, kind, ["batch", *given.shape]))
        shape = writer.initializer(np.array([0, value.size], np.int64))
        writer.add("Reshape", given.name, shape, name=f"v{given.value}")
    for node in graph.nodes:
        writer.node(node)
    outputs = []
    for output in graph.outputs:
        name = output.name if not output.name.startswith("memory") else f"next_{output.name}"
        # a Reshape copies the batch from its first dimension, so that no output is a constant of one row
        shape = writer.initializer(
            np.array([-1, *output.shape] if math.prod(output.shape) == 1 else [0, *output.shape], np.int64)
        )
        writer.add("Reshape", writer.rows(output.operand), shape, name=name)
        outputs.append(helper.make_tensor_value_info(name, writer.types[np.dtype(output.dtype)], ["batch", *output.shape]))
    made = helper.make_graph(_plain(writer.nodes), "policy", inputs, outputs, list(writer.constants.values()))
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rl_lab", doc_string=graph.title
    )
    model.ir_version = min(model.ir_version, 9)
    for i, part in enumerate(graph.memory):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"memory{i}", ",".join(map(repr, map(float, part.ravel())))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _plain(nodes: list[Any]) -> list[Any]:
    """The nodes without those that only pass a tensor on under another name."""
    names: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Identity":
            names[node.output[0]] = names.get(node.input[0], node.input[0])
    kept = [node for node in nodes if node.op_type != "Identity"]
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
    return kept
