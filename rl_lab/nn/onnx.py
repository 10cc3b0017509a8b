"""Networks from ONNX files, as modules that can be trained."""

import math
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.errors import FileError, GraphError
from rl_lab.engine.launch import unrecorded
from rl_lab.engine.ops import Tensor
from rl_lab.nn.module import Module, Parameter

Value: TypeAlias = Tensor | np.ndarray
"""A tensor, or an array of constant integers or truth values, such as a shape."""
Attributes: TypeAlias = dict[str, Any]


class OnnxModule(Module):
    """The graph of an ONNX file. Float32 constants of the file are parameters, under their names with ``.`` replaced by ``_``.

    Call it with the inputs of the graph, in order or by name; it returns the output, or a tuple if there are several.
    """

    def __init__(self, graph: Any, helper: Any):
        super().__init__()
        arrays = {tensor.name: helper.to_array(tensor) for tensor in graph.initializer}
        self.inputs = tuple([given.name for given in graph.input if given.name not in arrays])
        self.outputs = tuple([found.name for found in graph.output])
        self._steps: list[tuple[str, tuple[str, ...], tuple[str, ...], Attributes]] = []
        for node in graph.node:
            attributes = {one.name: _attribute(one, helper) for one in node.attribute}
            if node.op_type == "Constant":
                arrays[node.output[0]] = np.asarray(attributes.get("value", next(iter(attributes.values()))))
                continue
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise GraphError(f"the ONNX file has the operator {node.op_type!r}, which is not supported")
            self._steps.append((node.op_type, tuple(node.input), tuple(node.output), attributes))
        self._constants: dict[str, Value] = {}
        self._names: dict[str, str] = {}
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                own = _python_name(name, self._names.values())
                self._names[name] = own
                self.register_parameter(own, Parameter(rl.tensor(np.array(array, np.float32))))
            else:
                self._constants[name] = array.astype(bool) if array.dtype == np.bool_ else array.astype(np.int64)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs. Raises TypeError for inputs that the graph does not have, or that are missing."""
        given = {**dict(zip(self.inputs, inputs, strict=False)), **named}
        if set(given) != set(self.inputs) or len(inputs) > len(self.inputs):
            raise TypeError(f"the network takes {', '.join(self.inputs)}, got {len(inputs)} inputs and {sorted(named)}")
        values: dict[str, Any] = {**self._constants, **given}
        values |= {name: getattr(self, own) for name, own in self._names.items()}
        values[""] = None  # an input that is left out
        for kind, sources, targets, attributes in self._steps:
            results = OPERATORS[kind](attributes, *[values[name] for name in sources])
            found = results if isinstance(results, tuple) else (results,)
            values.update({name: value for name, value in zip(targets, found, strict=False) if name})
        outputs = tuple([_tensor(values[name]) for name in self.outputs])
        return outputs[0] if len(outputs) == 1 else outputs


def load_onnx(path: str | os.PathLike[str]) -> OnnxModule:
    """Read the network of an ONNX file: perceptrons, convolutions, normalization, recurrent cells, and what `Agent.export` writes.

    Raises ImportError if onnx is not installed, FileError for a file that is missing or not a valid model, and GraphError, naming the
    operator, for a graph that cannot be rebuilt.
    """
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX files need onnx, which is not installed: pip install onnx") from None
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own errors
        raise FileError(f"{path} cannot be read as ONNX: {next(iter(str(error).splitlines()), type(error).__name__)}") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise FileError(f"{path} keeps its numbers in other files, which are not read: save the model as one file")
    return OnnxModule(model.graph, onnx.numpy_helper)


def _attribute(attribute: Any, helper: Any) -> Any:
    kinds = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints"}
    if attribute.type == 4:
        return helper.to_array(attribute.t)
    if attribute.type not in kinds:
        raise GraphError(f"the ONNX file has the attribute {attribute.name!r} of a kind that is not supported")
    value = getattr(attribute, kinds[attribute.type])
    return value.decode() if isinstance(value, bytes) else list(value) if attribute.type > 3 else value


def _python_name(name: str, taken: Any) -> str:
    own = "".join(c if c.isalnum() else "_" for c in name) or "constant"
    own = own if own.isidentifier() and not hasattr(Module, own) else f"constant_{own}"
    while own in taken:
        own += "_"
    return own


def _tensor(value: Value) -> Tensor:
    if isinstance(value, Tensor):
        return value
    with unrecorded():
        return rl.tensor(value)


def _ints(value: Value | None) -> list[int] | None:
    """Constant integers. Raises GraphError if they depend on the input."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        raise GraphError("a shape or an axis of the ONNX graph depends on the numbers of its input")
    return [int(number) for number in np.atleast_1d(value)]


# --- operators -------------------------------------------------------------------------------------------------------

OPERATORS: dict[str, Callable[..., Any]] = {}
"""Functions (attributes, *inputs) by the name of the operator."""


def _operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return note


def _plain(name: str, of_tensors: Callable[..., Any], of_arrays: Callable[..., Any] | None = None) -> None:
    """An operator without attributes; constants stay constants where there is a function for arrays."""

    def compute(attributes: Attributes, *inputs: Value) -> Value:
        if of_arrays is not None and not any(isinstance(value, Tensor) for value in inputs):
            return np.asarray(of_arrays(*inputs))
        return of_tensors(*map(_tensor, inputs))

    OPERATORS[name] = compute


for _name in ("tanh", "sigmoid", "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"):
    _plain(_name.capitalize(), getattr(rl, _name))
for _name in ("asinh", "acosh", "atanh", "erf", "floor", "ceil", "round", "sign", "reciprocal", "isnan"):
    _plain({"isnan": "IsNaN"}.get(_name, _name.capitalize()), getattr(rl, _name))
_plain("Relu", F.relu)
_plain("Softplus", F.softplus)
_plain("Softsign", F.softsign)
_plain("HardSwish", F.hardswish)
_plain("Mish", F.mish)
_plain("Abs", rl.abs, np.abs)
_plain("Neg", rl.neg, np.negative)
_plain("Add", rl.add, np.add)
_plain("Sub", rl.sub, np.subtract)
_plain("Mul", rl.mul, np.multiply)
_plain("Div", lambda a, b: _quotient(a, b), lambda a, b: np.trunc(a / b).astype(np.int64))
_plain("Pow", rl.pow)
_plain("Mod", rl.remainder, np.mod)
_plain("Equal", rl.eq, np.equal)
_plain("Less", rl.lt, np.less)
_plain("LessOrEqual", rl.le, np.less_equal)
_plain("Greater", rl.gt, np.greater)
_plain("GreaterOrEqual", rl.ge, np.greater_equal)
_plain("Not", rl.logical_not, np.logical_not)
_plain("And", rl.logical_and, np.logical_and)
_plain("Or", rl.logical_or, np.logical_or)
_plain("Xor", rl.logical_xor, np.logical_xor)
_plain("Where", rl.where, np.where)
_plain("MatMul", rl.matmul)
OPERATORS["Identity"] = OPERATORS["Dropout"] = lambda attributes, x, *rest: x
OPERATORS["Max"] = lambda attributes, first, *rest: _folded(rl.maximum, first, rest)
OPERATORS["Min"] = lambda attributes, first, *rest: _folded(rl.minimum, first, rest)
OPERATORS["Shape"] = lambda a, x: np.array(x.shape[a.get("start", 0) : a.get("end", len(x.shape))], np.int64)
OPERATORS["LeakyRelu"] = lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01))
OPERATORS["Elu"] = lambda a, x: F.elu(x, a.get("alpha", 1.0))
OPERATORS["Gelu"] = lambda a, x: F.gelu(x, approximate=a.get("approximate", "none"))
OPERATORS["HardSigmoid"] = lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0.0, 1.0)
OPERATORS["Softmax"] = lambda a, x: F.softmax(x, a.get("axis", -1))
OPERATORS["LogSoftmax"] = lambda a, x: F.log_softmax(x, a.get("axis", -1))
OPERATORS["Transpose"] = lambda a, x: x.permute(a["perm"]) if "perm" in a else x.permute(*reversed(range(len(x.shape))))
OPERATORS["GatherElements"] = lambda a, x, index: _tensor(x).gather(a.get("axis", 0), _tensor(index))


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """A quotient; of integers without its fraction."""
    return a / b if a.dtype is rl.float32 else rl.div(a, b, rounding_mode="trunc")


def _folded(function: Callable[..., Tensor], first: Value, rest: tuple[Value, ...]) -> Tensor:
    whole = _tensor(first)
    for other in rest:
        whole = function(whole, _tensor(other))
    return whole


@_operator("Cast")
def _cast(attributes: Attributes, x: Value) -> Value:
    dtypes = {1: rl.float32, 10: rl.float32, 11: rl.float32, 2: rl.uint8, 6: rl.int64, 7: rl.int64, 9: rl.bool}
    if attributes["to"] not in dtypes:
        raise GraphError(f"the ONNX file casts to the type {attributes['to']}, which is not supported")
    return _tensor(x).to(dtypes[attributes["to"]])


@_operator("Gemm")
def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = (attributes.get(name, 1.0) for name in ("alpha", "beta"))
    left = a.t() if attributes.get("transA") else a
    if attributes.get("transB") and alpha == beta == 1.0 and (c is None or len(c.shape) == 1):
        return F.linear(left, b, c)
    whole = alpha * (left @ (b.t() if attributes.get("transB") else b))
    return whole if c is None else whole + beta * c


@_operator("Clip")
def _clip(attributes: Attributes, x: Tensor, low: Value | None = None, high: Value | None = None) -> Tensor:
    low = attributes.get("min", low)
    high = attributes.get("max", high)
    x = x if low is None else rl.maximum(x, _tensor(np.asarray(low, np.float32) if not isinstance(low, Tensor) else low))
    return x if high is None else rl.minimum(x, _tensor(np.asarray(high, np.float32) if not isinstance(high, Tensor) else high))


@_operator("Reshape")
def _reshape(attributes: Attributes, x: Value, shape: Value) -> Value:
    sizes = [x.shape[i] if n == 0 and not attributes.get("allowzero") else n for i, n in enumerate(_ints(shape) or [])]
    return x.reshape(*sizes) if isinstance(x, Tensor) else x.reshape(sizes)


@_operator("Flatten")
def _flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@_operator("Expand")
def _expand(attributes: Attributes, x: Value, shape: Value) -> Value:
    wanted = np.broadcast_shapes(tuple(x.shape), tuple(_ints(shape) or ()))
    return x.expand(*wanted) if isinstance(x, Tensor) else np.broadcast_to(x, wanted)


def _squeezed(attributes: Attributes, x: Value, axes: Value | None = None) -> Value:
    places = attributes.get("axes", _ints(axes))
    places = [i for i, n in enumerate(x.shape) if n == 1] if places is None else [i % len(x.shape) for i in places]
    return x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in places))


def _unsqueezed(attributes: Attributes, x: Value, axes: Value | None = None) -> Value:
    places = attributes.get("axes", _ints(axes)) or []
    rank = len(x.shape) + len(places)
    rest = iter(x.shape)
    taken = {i % rank for i in places}
    return x.reshape(tuple(1 if i in taken else next(rest) for i in range(rank)))


OPERATORS["Squeeze"] = _squeezed
OPERATORS["Unsqueeze"] = _unsqueezed


@_operator("Concat")
def _concat(attributes: Attributes, *parts: Value) -> Value:
    if any(isinstance(part, Tensor) for part in parts):
        return rl.cat([_tensor(part) for part in parts], attributes["axis"])
    return np.concatenate(parts, attributes["axis"])


@_operator("Split")
def _split(attributes: Attributes, x: Tensor, sizes: Value | None = None) -> tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    given = _ints(sizes) or attributes.get("split")
    count = attributes.get("num_outputs")
    if given is None and count is None:
        raise GraphError("a Split of the ONNX graph does not say its sizes")
    return tuple(x.split(given if given is not None else -(-x.shape[axis] // int(count or 1)), axis))


@_operator("Slice")
def _slice(
    attributes: Attributes, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    begin, end = _ints(starts) or [], _ints(ends) or []
    places = _ints(axes) or list(range(len(begin)))
    strides = _ints(steps) or [1] * len(begin)
    key: list[slice] = [slice(None)] * len(x.shape)
    for axis, a, b, step in zip(places, begin, end, strides, strict=True):
        if step < 0 and isinstance(x, Tensor):
            raise GraphError("a Slice of the ONNX graph runs backwards, which is not supported")
        key[axis] = slice(a, min(b, x.shape[axis]), step)
    return x[tuple(key)]


@_operator("Gather")
def _gather(attributes: Attributes, x: Value, index: Value) -> Value:
    axis = attributes.get("axis", 0) % len(x.shape)
    if not isinstance(x, Tensor):
        if not isinstance(index, Tensor):
            return np.take(x, index, axis)
        x = _tensor(x)
    chosen = _tensor(index)
    picked = x.index_select(axis, chosen.reshape(-1))
    return picked.reshape(*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])


def _reduction(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def compute(attributes: Attributes, x: Tensor, axes: Value | None = None) -> Tensor:
        places = attributes.get("axes", _ints(axes))
        if places is None:
            places = [] if attributes.get("noop_with_empty_axes") else list(range(len(x.shape)))
        return function(x, places, bool(attributes.get("keepdims", 1))) if places else x

    OPERATORS[name] = compute


def _each(function: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, list[int], bool], Tensor]:
    """A reduction over several axes, one after another."""

    def compute(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        rank = len(x.shape)
        for axis in axes:
            x = function(x, axis % rank)
        return x if keep else _squeezed({"axes": axes}, x)  # type: ignore[return-value]

    return compute


_reduction("ReduceSum", lambda x, axes, keep: x.sum(axes, keepdim=keep))
_reduction("ReduceMean", lambda x, axes, keep: x.mean(axes, keepdim=keep))
_reduction("ReduceMax", lambda x, axes, keep: x.amax(axes, keepdim=keep))
_reduction("ReduceMin", lambda x, axes, keep: x.amin(axes, keepdim=keep))
_reduction("ReduceLogSumExp", lambda x, axes, keep: x.logsumexp(axes, keepdim=keep))
_reduction("ReduceProd", _each(lambda x, axis: x.prod(axis, keepdim=True)))


@_operator("ArgMax")
def _argmax(attributes: Attributes, x: Tensor) -> Tensor:
    return x.argmax(attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1)))


def _padding(attributes: Attributes, x: Tensor, kernel: list[int]) -> tuple[Tensor, list[int]]:
    """The input and the padding of both sides of a window; uneven padding is done here, with zeros."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(kernel) != 2:
        raise GraphError("the ONNX file has a window of other than two dimensions, or with auto_pad, which is not supported")
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        return x, [top, left]
    return F.pad(x, (left, right, top, bottom)), [0, 0]


@_operator("Conv")
def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padding(attributes, x, list(weight.shape[2:]))
    stride = tuple(attributes.get("strides", [1, 1]))
    dilation = tuple(attributes.get("dilations", [1, 1]))
    return F.conv2d(x, weight, bias, stride, tuple(padding), dilation, attributes.get("group", 1))


def _pooled(average: bool) -> Callable[[Attributes, Tensor], Tensor]:
    def compute(attributes: Attributes, x: Tensor) -> Tensor:
        kernel = attributes["kernel_shape"]
        pads = attributes.get("pads", [0, 0, 0, 0])
        stride = tuple(attributes.get("strides", [1, 1]))
        if attributes.get("ceil_mode"):
            raise GraphError("a pool of the ONNX graph rounds its size up, which is not supported")
        even = pads[:2] == pads[2:]
        if average and not even and not attributes.get("count_include_pad"):
            raise GraphError("an average of the ONNX graph has uneven padding that it does not count, which is not supported")
        if average:
            x, padding = _padding(attributes, x, kernel)
            counts = bool(attributes.get("count_include_pad", 0))
            return F.avg_pool2d(x, tuple(kernel), stride, tuple(padding), count_include_pad=counts)
        if not even:
            top, left, bottom, right = pads
            x, pads = F.pad(x, (left, right, top, bottom), value=-math.inf), [0, 0]
        dilation = tuple(attributes.get("dilations", [1, 1]))
        return F.max_pool2d(x, tuple(kernel), stride, tuple(pads[:2]), dilation)

    return compute


OPERATORS["MaxPool"] = _pooled(False)
OPERATORS["AveragePool"] = _pooled(True)
OPERATORS["GlobalAveragePool"] = lambda attributes, x: x.mean([2, 3], keepdim=True)


@_operator("BatchNormalization")
def _batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (len(x.shape) - 2))
    factor = scale / (var + attributes.get("epsilon", 1e-5)).sqrt()
    return (x - mean.reshape(*shape)) * factor.reshape(*shape) + bias.reshape(*shape)


@_operator("LayerNormalization")
def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = attributes.get("axis", -1) % len(x.shape)
    shape = tuple(x.shape[axis:])
    own = None if bias is None else bias.reshape(*shape)
    return F.layer_norm(x, shape, scale.reshape(*shape), own, attributes.get("epsilon", 1e-5))


def _over_time(
    attributes: Attributes, lstm: bool, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, lengths: Any, *start: Tensor | None
) -> tuple[Tensor, ...]:
    """A layer over time, (steps, batch, inputs) to (steps, 1, batch, units), and its last states (1, batch, units)."""
    size = attributes["hidden_size"]
    plain = attributes.get("direction", "forward") == "forward" and not attributes.get("layout") and lengths is None
    if not plain or "activations" in attributes or not (lstm or attributes.get("linear_before_reset")) or len(start) > 2:
        raise GraphError(
            "the ONNX file has a recurrent layer with options that are not supported: only those that PyTorch exports are"
        )
    steps, batch = x.shape[:2]
    gates = 4 if lstm else 3
    both = rl.zeros(2 * gates * size) if b is None else b[0]
    states = [rl.zeros(batch, size) if s is None else s[0] for s in (*start, None, None)[: 1 + lstm]]
    outputs = []
    for t in range(steps):
        into = F.linear(x[t], w[0], both[: gates * size])
        own = F.linear(states[0], r[0], both[gates * size :])
        if lstm:
            enter, leave, forget, new = (into + own).split(size, 1)
            cell = forget.sigmoid() * states[1] + enter.sigmoid() * new.tanh()
            states = [leave.sigmoid() * cell.tanh(), cell]
        else:
            update, reset = (into + own)[:, : 2 * size].sigmoid().split(size, 1)
            new = (into[:, 2 * size :] + reset * own[:, 2 * size :]).tanh()
            states = [new + update * (states[0] - new)]
        outputs.append(states[0].unsqueeze(0))
    return rl.stack(outputs), *[state.unsqueeze(0) for state in states]


def _layer_over_time(lstm: bool) -> Callable[..., tuple[Tensor, ...]]:
    def compute(attributes: Attributes, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
        b, lengths, *start = (*rest, None, None)[: max(2, len(rest))]
        return _over_time(attributes, lstm, x, w, r, b, lengths, *start)

    return compute


OPERATORS["GRU"] = _layer_over_time(False)
OPERATORS["LSTM"] = _layer_over_time(True)
