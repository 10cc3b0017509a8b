"""Recurrent cells and layers with PyTorch's names, shapes and order of gates."""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import empty, zeros
from rl_lab.engine.ops.layout import cat, stack
from rl_lab.engine.ops.matmul import linear
from rl_lab.engine.ops.recurrent import gru_gates, lstm_gates
from rl_lab.engine.random import Generator, dropout
from rl_lab.nn import init
from rl_lab.nn.module import Module, Parameter

States = tuple[Tensor, ...]


def _add_weights(module: Module, inputs: int, size: int, gates: int, bias: bool, suffix: str) -> None:
    """Add the parameters weight_ih, weight_hh, bias_ih and bias_hh, each with the suffix; biases are None if ``bias`` is False."""
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates * size, inputs), "weight_hh": (gates * size, size)}
    if bias:
        shapes |= {"bias_ih": (gates * size,), "bias_hh": (gates * size,)}
    for name, shape in shapes.items():
        setattr(module, name + suffix, Parameter(empty(shape)))
    for name in ("bias_ih", "bias_hh"):
        if not bias:
            module.register_parameter(name + suffix, None)


class _Gated(Module):
    """Base of the cells and the layers. ``gates`` is the number of gates computed from one hidden state."""

    gates = 1
    hidden_size: int

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new weights and biases, uniform on +-1 / sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound, generator)


def _with_batch(module: Module, state: Tensor | None, place: int, wanted: tuple[int, ...], single: bool) -> Tensor:
    """A state with the batch at dimension ``place``, zeros if it is None. A ``single`` sequence has a state without the batch.

    Raises ShapeError if the shape is not ``wanted``.
    """
    if state is None:
        return zeros(wanted)
    fitting = wanted[:place] + wanted[place + 1 :] if single else wanted
    if state.shape != fitting:
        raise ShapeError(f"{type(module).__name__} needs a state of shape {list(fitting)}, got {list(state.shape)}")
    return state.unsqueeze(place) if single else state


def _rnn_step(kind: str, from_x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = from_x + linear(h, weight, bias)
    return z.tanh() if kind == "tanh" else z.relu()


def _lstm_step(from_x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    h, c = lstm_gates(from_x + linear(h, weight, bias), c).unbind(0)
    return h, c


def _gru_step(from_x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return gru_gates(from_x, linear(h, weight, bias), h)


# --- cells -----------------------------------------------------------------------------------------------------------


class _Cell(_Gated):
    """Base of the cells. Inputs are (n, input_size) and states (n, hidden_size), or both without n; a missing state is 0.

    Raises ShapeError if a size is not positive or, in a call, if a shape does not fit.
    """

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if input_size < 1 or hidden_size < 1:
            raise ShapeError(f"{type(self).__name__} needs positive sizes, got {input_size} and {hidden_size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        _add_weights(self, input_size, hidden_size, self.gates, bias, "")
        init.start(self, generator)

    def _batched(self, input: Tensor, *states: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return (W_ih x + b_ih, states), all with a batch dimension. Raises ShapeError if a shape does not fit."""
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__} needs an input (..., {self.input_size}), got shape {list(input.shape)}")
        x = input if input.dim() == 2 else input.unsqueeze(0)
        wanted = (x.shape[0], self.hidden_size)
        result = []
        for state in states:
            result.append(_with_batch(self, state, 0, wanted, input.dim() == 1))
        return linear(x, self.weight_ih, self.bias_ih), result

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(_Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in place of tanh. Returns h' (n, hidden_size)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, generator=generator, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        from_x, (h,) = self._batched(input, hx)
        h = _rnn_step(self.nonlinearity, from_x, h, self.weight_hh, self.bias_hh)
        return h if input.dim() == 2 else h.squeeze(0)


class LSTMCell(_Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997). Takes x and (h, c), returns (h', c')."""

    gates = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        from_x, (h, c) = self._batched(input, *((None, None) if hx is None else hx))
        h, c = _lstm_step(from_x, h, c, self.weight_hh, self.bias_hh)
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(_Cell):
    """Gated recurrent unit (Cho et al. 2014). Takes x and h, returns h'."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        from_x, (h,) = self._batched(input, hx)
        h = _gru_step(from_x, h, self.weight_hh, self.bias_hh)
        return h if input.dim() == 2 else h.squeeze(0)


# --- sequences -------------------------------------------------------------------------------------------------------


class _Recurrent(_Gated):
    """Base of the recurrent layers: ``num_layers`` cells, one above the other, run over a sequence.

    Inputs are (length, n, input_size), or (n, length, input_size) with ``batch_first``, or (length, input_size) for a single
    sequence. States are (num_layers * directions, n, hidden_size), or without n for a single sequence; a missing state is 0. The
    output of the last layer is (length, n, directions * hidden_size). ``dropout`` acts between the layers in training mode.
    ``bidirectional`` adds a second direction, from the end of the sequence to its beginning. Raises ShapeError if a size is not
    positive or, in a call, if a shape does not fit or the sequence is empty.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if input_size < 1 or hidden_size < 1 or num_layers < 1:
            raise ShapeError(f"{type(self).__name__} needs positive sizes, got {input_size}, {hidden_size} and {num_layers}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * len(self.directions)
            for direction in self.directions:
                _add_weights(self, inputs, hidden_size, self.gates, bias, f"_l{layer}{direction}")
        init.start(self, generator)

    def _step(self, from_x: Tensor, states: States, weight: Tensor, bias: Tensor | None) -> States:
        """The next states of one cell; the first is the cell's output."""
        raise TypeError(f"{type(self).__name__} has no step")

    def _run(self, input: Tensor, states: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs, and the last value (num_layers * directions, n, hidden_size) of each state."""
        single = input.dim() == 2
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__} needs an input (..., {self.input_size}), got shape {list(input.shape)}")
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        length, n = x.shape[:2]
        if length == 0:
            raise ShapeError(f"{type(self).__name__} needs a sequence of at least one step, got an empty one")
        wanted = (self.num_layers * len(self.directions), n, self.hidden_size)
        first = []
        for state in states:
            first.append(_with_batch(self, state, 1, wanted, single).unbind(0))
        last: list[list[Tensor]] = [[] for _ in states]
        for layer in range(self.num_layers):
            outputs = []
            for number, direction in enumerate(self.directions):
                name = f"_l{layer}{direction}"
                weight = getattr(self, "weight_hh" + name)
                bias = getattr(self, "bias_hh" + name)
                # W_ih x of all steps in one matrix product
                from_x = linear(x, getattr(self, "weight_ih" + name), getattr(self, "bias_ih" + name)).unbind(0)
                place = layer * len(self.directions) + number
                current = tuple([values[place] for values in first])
                steps: list[Tensor] = [x] * length
                for t in range(length - 1, -1, -1) if direction else range(length):
                    current = self._step(from_x[t], current, weight, bias)
                    steps[t] = current[0]
                outputs.append(stack(steps))
                for values, value in zip(last, current, strict=True):
                    values.append(value)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = dropout(x, self.dropout, self.training)
        ends = [stack(values) for values in last]
        if single:
            return x.squeeze(1), [end.squeeze(1) for end in ends]
        return x.transpose(0, 1) if self.batch_first else x, ends

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, batch_first={self.batch_first}"


class RNN(_Recurrent):
    """Elman network (Elman 1990). Returns (outputs, last hidden states)."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", **options: Any):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, num_layers, **options)
        self.nonlinearity = nonlinearity

    def _step(self, from_x: Tensor, states: States, weight: Tensor, bias: Tensor | None) -> States:
        return (_rnn_step(self.nonlinearity, from_x, states[0], weight, bias),)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (h,) = self._run(input, [hx])
        return outputs, h


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997). Takes (h, c) as its state, returns (outputs, last (h, c))."""

    gates = 4

    def _step(self, from_x: Tensor, states: States, weight: Tensor, bias: Tensor | None) -> States:
        return _lstm_step(from_x, states[0], states[1], weight, bias)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, (h, c) = self._run(input, [None, None] if hx is None else list(hx))
        return outputs, (h, c)


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014). Returns (outputs, last hidden states)."""

    gates = 3

    def _step(self, from_x: Tensor, states: States, weight: Tensor, bias: Tensor | None) -> States:
        return (_gru_step(from_x, states[0], weight, bias),)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (h,) = self._run(input, [hx])
        return outputs, h
