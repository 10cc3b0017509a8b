"""Recurrent cells in continuous time, for samples at irregular times: liquid time-constant and closed-form cells.

A call takes the time since the sample before, so a gap is no missing value but a longer step.
"""

import math
from collections.abc import Callable

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full, zeros
from rl_lab.engine.ops.elementwise import exp, softplus, tanh
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.ops.matmul import linear
from rl_lab.engine.ops.recurrent import cfc_gates, ltc_step
from rl_lab.engine.random import Generator
from rl_lab.engine.tensor import empty
from rl_lab.nn import init
from rl_lab.nn.module import Module, Parameter

Times = Tensor | float | None
MODES = ("default", "no_gate", "pure")
INNER, OUTER = 0.666, 1.7159
"""The activation of a backbone is OUTER * tanh(INNER * x) (LeCun et al. 1998, "Efficient BackProp", section 4.4)."""


class _Continuous(Module):
    """Base of the cells: a state (n, hidden_size) that changes with the input and with the time since the last input."""

    input_size: int
    hidden_size: int

    def _project(self, x: Tensor) -> Tensor:
        """The part of the pre-activations that comes from inputs (..., input_size)."""
        raise TypeError(f"{type(self).__name__} has no projection")

    def _step(self, from_x: Tensor, h: Tensor, t: Tensor) -> Tensor:
        """The state (n, hidden_size) a time t (n,) after h."""
        raise TypeError(f"{type(self).__name__} has no step")

    def _unrolled(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """`_project` and `_step` for a sequence. A subclass prepares here what all steps have in common."""
        return self._project, self._step

    def _times(self, timespans: Times, shape: tuple[int, ...]) -> Tensor:
        """``timespans`` as a tensor of this shape: 1 unless given; a last dimension of size 1 is dropped."""
        if timespans is None or not isinstance(timespans, Tensor):
            return full(shape, 1.0 if timespans is None else float(timespans))
        t = timespans.squeeze(-1) if timespans.dim() == len(shape) + 1 and timespans.shape[-1] == 1 else timespans
        if t.dim() == 0:
            t = t.expand(shape)
        if tuple(t.shape) != shape:
            raise ShapeError(
                f"{type(self).__name__} needs timespans of shape {list(shape)}, one per input, got {list(timespans.shape)}"
            )
        return t.float()

    def _checked(self, input: Tensor, ranks: tuple[int, ...]) -> None:
        if input.dim() not in ranks or input.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__} needs an input (..., {self.input_size}), got shape {list(input.shape)}")

    def _state(self, hx: Tensor | None, n: int) -> Tensor:
        h = zeros(n, self.hidden_size) if hx is None else hx
        if tuple(h.shape) != (n, self.hidden_size):
            raise ShapeError(f"{type(self).__name__} needs a state of shape {[n, self.hidden_size]}, got {list(h.shape)}")
        return h

    def _one(self, input: Tensor, hx: Tensor | None, timespans: Times) -> Tensor:
        """The state after one input (n, input_size) or (input_size,)."""
        self._checked(input, (1, 2))
        single = input.dim() == 1
        x = input.unsqueeze(0) if single else input
        state = hx.unsqueeze(0) if single and hx is not None and hx.dim() == 1 else hx
        times = timespans.unsqueeze(0) if single and isinstance(timespans, Tensor) and timespans.dim() == 1 else timespans
        h = self._step(self._project(x), self._state(state, len(x)), self._times(times, (len(x),)))
        return h.squeeze(0) if single else h

    def _sequence(self, input: Tensor, hx: Tensor | None, timespans: Times, batch_first: bool) -> tuple[Tensor, Tensor]:
        """The states after every input of (length, n, input_size), and the last one, as `GRU` returns them."""
        self._checked(input, (2, 3))
        single = input.dim() == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if batch_first else input
        length, n = x.shape[:2]
        if length == 0:
            raise ShapeError(f"{type(self).__name__} needs a sequence of at least one step, got an empty one")
        if single:
            times = self._times(timespans, (length,)).unsqueeze(1)
        elif batch_first:
            times = self._times(timespans, (n, length)).transpose(0, 1)
        else:
            times = self._times(timespans, (length, n))
        if hx is not None and hx.dim() == (2 if single else 3):
            hx = hx.squeeze(0)
        h = self._state(hx.unsqueeze(0) if single and hx is not None else hx, n)
        outputs = []
        project, step = self._unrolled()
        for from_x, t in zip(project(x).unbind(0), times.unbind(0), strict=True):
            h = step(from_x, h, t)
            outputs.append(h)
        out = stack(outputs)
        if single:
            return out.squeeze(1), h
        return out.transpose(0, 1) if batch_first else out, h.unsqueeze(0)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class _CfC(_Continuous):
    """The parameters and the step of a closed-form continuous-time cell."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        backbone_units: int = 128,
        backbone_layers: int = 1,
        mode: str = "default",
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if input_size < 1 or hidden_size < 1 or backbone_layers < 0 or (backbone_layers and backbone_units < 1):
            raise ShapeError(
                f"{type(self).__name__} needs positive sizes, got {input_size}, {hidden_size} and {backbone_layers} layers of "
                f"{backbone_units} units"
            )
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.backbone_units = backbone_units
        self.backbone_layers = backbone_layers
        self.mode = mode
        heads = hidden_size if mode == "pure" else 4 * hidden_size
        sizes = [backbone_units] * backbone_layers + [heads]
        self.weight_ih = Parameter(empty((sizes[0], input_size)))
        self.weight_hh = Parameter(empty((sizes[0], hidden_size)))
        self.bias_0 = Parameter(empty((sizes[0],)))
        for k in range(1, len(sizes)):
            self.register_parameter(f"weight_{k}", Parameter(empty((sizes[k], sizes[k - 1]))))
            self.register_parameter(f"bias_{k}", Parameter(empty((sizes[k],))))
        if mode == "pure":
            self.w_tau = Parameter(empty((hidden_size,)))
            self.A = Parameter(empty((hidden_size,)))
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new weights (Glorot and Bengio 2010); biases start at 0, and in pure mode the time constants at 0 and A at 1."""
        bound = math.sqrt(6.0 / (self.input_size + self.hidden_size + self.weight_ih.shape[0]))
        init.uniform_(self.weight_ih, -bound, bound, generator)
        init.uniform_(self.weight_hh, -bound, bound, generator)
        init.zeros_(self.bias_0)
        for k in range(1, self.backbone_layers + 1):
            init.xavier_uniform_(getattr(self, f"weight_{k}"), generator=generator)
            init.zeros_(getattr(self, f"bias_{k}"))
        if self.mode == "pure":
            init.zeros_(self.w_tau)
            init.ones_(self.A)

    def _project(self, x: Tensor) -> Tensor:
        return linear(x, self.weight_ih, self.bias_0)

    def _step(self, from_x: Tensor, h: Tensor, t: Tensor) -> Tensor:
        z = from_x + linear(h, self.weight_hh)
        for weight, bias in self._layers():
            z = linear(tanh(z * INNER) * OUTER, weight, bias)
        return self._new_state(z, t)

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of the layers behind the first one."""
        return [(getattr(self, f"weight_{k}"), getattr(self, f"bias_{k}")) for k in range(1, self.backbone_layers + 1)]

    def _unrolled(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """Multiply the weights by the two factors of LeCun's tanh, once for all steps, instead of the activations of each step."""
        if not self.backbone_layers:
            return self._project, self._step
        weight_ih, bias_0 = self.weight_ih * INNER, self.bias_0 * INNER
        weight_hh = self.weight_hh * INNER
        layers = []
        for number, (weight, bias) in enumerate(self._layers(), 1):
            if number < self.backbone_layers:
                layers.append((weight * (INNER * OUTER), bias * INNER))
            else:
                layers.append((weight * OUTER, bias))

        def project(x: Tensor) -> Tensor:
            return linear(x, weight_ih, bias_0)

        def step(from_x: Tensor, h: Tensor, t: Tensor) -> Tensor:
            z = from_x + linear(h, weight_hh)
            for weight, bias in layers:
                z = linear(tanh(z), weight, bias)
            return self._new_state(z, t)

        return project, step

    def _new_state(self, z: Tensor, t: Tensor) -> Tensor:
        """The state after the times t (n,) from the heads z."""
        if self.mode == "default":
            return cfc_gates(z, t)
        elapsed = t.unsqueeze(1)
        if self.mode == "pure":
            return self.A - self.A * exp(-elapsed * (self.w_tau.abs() + z.abs())) * z
        first, second, slope, offset = z.chunk(4, -1)
        return tanh(first) + (slope * elapsed + offset).sigmoid() * tanh(second)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backbone_units={self.backbone_units}, backbone_layers={self.backbone_layers}"


class CfCCell(_CfC):
    """Closed-form continuous-time cell (Hasani et al. 2022, "Closed-form continuous-time neural networks").

    Takes an input (n, input_size), a state (n, hidden_size), which is 0 if missing, and ``timespans`` (n,) or (n, 1), the times since
    the last input, 1 if missing; returns the new state. All may come without n. The state is g (1 - gate) + h gate with the gate
    sigmoid(a t + b), and g, h, a and b are heads of a backbone of ``backbone_layers`` layers. ``mode`` "no_gate" gives g + h gate;
    "pure" gives the closed form A - A f exp(-t (|w| + |f|)) with one head f. Raises ShapeError if a size is not positive or a shape
    does not fit.
    """

    def forward(self, input: Tensor, hx: Tensor | None = None, timespans: Times = None) -> Tensor:
        return self._one(input, hx, timespans)


class CfC(_CfC):
    """`CfCCell` over sequences (length, n, input_size), or (n, length, input_size) with ``batch_first``, or (length, input_size).

    ``timespans`` are the times since the input before: (length, n) or (length, n, 1), in the order of the input; 1 if missing. Takes
    and returns states as `GRU`: (outputs (length, n, hidden_size), last state (1, n, hidden_size)).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        backbone_units: int = 128,
        backbone_layers: int = 1,
        mode: str = "default",
        batch_first: bool = False,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__(
            input_size, hidden_size, backbone_units, backbone_layers, mode, generator=generator, device=device, dtype=dtype
        )
        self.batch_first = batch_first

    def forward(self, input: Tensor, hx: Tensor | None = None, timespans: Times = None) -> tuple[Tensor, Tensor]:
        return self._sequence(input, hx, timespans, self.batch_first)


class _LTC(_Continuous):
    """The parameters and the step of a liquid time-constant cell."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        ode_unfolds: int = 6,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if input_size < 1 or hidden_size < 1 or ode_unfolds < 1:
            raise ShapeError(
                f"{type(self).__name__} needs positive sizes, got {input_size}, {hidden_size} and {ode_unfolds} steps"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.ode_unfolds = ode_unfolds
        self.weight_ih = Parameter(empty((hidden_size, input_size)))
        self.weight_hh = Parameter(empty((hidden_size, hidden_size)))
        self.bias = Parameter(empty((hidden_size,)))
        self.raw_rate = Parameter(empty((hidden_size,)))
        self.A = Parameter(empty((hidden_size,)))
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new weights (Glorot and Bengio 2010) and targets A on +-1; time constants start at 1."""
        init.xavier_uniform_(self.weight_ih, generator=generator)
        init.xavier_uniform_(self.weight_hh, generator=generator)
        init.zeros_(self.bias)
        init.constant_(self.raw_rate, math.log(math.e - 1.0))  # softplus of it is 1
        init.uniform_(self.A, -1.0, 1.0, generator)

    def _project(self, x: Tensor) -> Tensor:
        return linear(x, self.weight_ih, self.bias)

    def _step(self, from_x: Tensor, h: Tensor, t: Tensor) -> Tensor:
        rate = softplus(self.raw_rate)
        part = t * (1.0 / self.ode_unfolds)
        for _ in range(self.ode_unfolds):
            h = ltc_step(from_x + linear(h, self.weight_hh), h, rate, self.A, part)
        return h

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ode_unfolds={self.ode_unfolds}"


class LTCCell(_LTC):
    """Liquid time-constant cell (Hasani et al. 2021, "Liquid time-constant networks").

    The state x follows dx/dt = -(1 / tau + f) x + f A with f = sigmoid(W_i input + W_h x + b), by ``ode_unfolds`` steps of the paper's
    fused solver. Takes an input (n, input_size), a state (n, hidden_size), which is 0 if missing, and ``timespans`` (n,) or (n, 1),
    the times since the last input, 1 if missing; returns the new state. All may come without n. Raises ShapeError if a size is not
    positive or a shape does not fit.
    """

    def forward(self, input: Tensor, hx: Tensor | None = None, timespans: Times = None) -> Tensor:
        return self._one(input, hx, timespans)


class LTC(_LTC):
    """`LTCCell` over sequences, with the shapes of `CfC`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        ode_unfolds: int = 6,
        batch_first: bool = False,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__(input_size, hidden_size, ode_unfolds, generator=generator, device=device, dtype=dtype)
        self.batch_first = batch_first

    def forward(self, input: Tensor, hx: Tensor | None = None, timespans: Times = None) -> tuple[Tensor, Tensor]:
        return self._sequence(input, hx, timespans, self.batch_first)
