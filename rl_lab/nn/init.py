"""Initial values of parameters, in place and off the tape. Names and defaults are PyTorch's; each takes a ``generator``."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import random
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.random import Generator
from rl_lab.engine.tape import no_grad

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())


def start(module: Any, generator: Generator | None) -> None:
    """Call a new layer's ``reset_parameters``, which a subclass may have written as in PyTorch, without a generator."""
    if generator is None:
        module.reset_parameters()
    else:
        module.reset_parameters(generator)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's deviation shrinks in the nonlinearity (He et al. 2015, and PyTorch's table)."""
    gains = {"linear": 1.0, "identity": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ValueError(f"no gain is known for {nonlinearity!r}: use one of {', '.join([*gains, 'leaky_relu'])}")
    return gains[nonlinearity]


def _fans(parameter: Any) -> tuple[int, int]:
    if parameter.dim() < 2:
        raise ValueError(f"fan in and fan out need at least 2 dimensions, got shape {list(parameter.shape)}")
    field = math.prod(parameter.shape[2:])
    return parameter.shape[1] * field, parameter.shape[0] * field


@no_grad()
def uniform_(parameter: Any, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Any:
    return random.uniform_(parameter, a, b, generator)


@no_grad()
def normal_(parameter: Any, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Any:
    return random.normal_(parameter, mean, std, generator)


@no_grad()
def constant_(parameter: Any, val: float) -> Any:
    return parameter.fill_(val)


def zeros_(parameter: Any) -> Any:
    return constant_(parameter, 0.0)


def ones_(parameter: Any) -> Any:
    return constant_(parameter, 1.0)


def xavier_uniform_(parameter: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Uniform with deviation gain * sqrt(2 / (fan in + fan out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_fans(parameter)))
    return uniform_(parameter, -bound, bound, generator)


def xavier_normal_(parameter: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    return normal_(parameter, 0.0, gain * math.sqrt(2.0 / sum(_fans(parameter))), generator)


def _he_deviation(parameter: Any, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = _fans(parameter)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    parameter: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> Any:
    """Uniform with deviation gain / sqrt(fan) (He et al. 2015, equation 14)."""
    bound = math.sqrt(3.0) * _he_deviation(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound, generator)


def kaiming_normal_(
    parameter: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> Any:
    return normal_(parameter, 0.0, _he_deviation(parameter, a, mode, nonlinearity), generator)


@no_grad()
def orthogonal_(parameter: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Rows or columns orthonormal, times the gain (Saxe, McClelland and Ganguli 2014)."""
    if parameter.dim() < 2:
        raise ValueError(f"orthogonal_ needs at least 2 dimensions, got shape {list(parameter.shape)}")
    rows = parameter.shape[0]
    columns = parameter.numel() // rows
    deviates = random.randn(max(rows, columns), min(rows, columns), generator=generator).numpy().astype(np.float64)
    q, r = np.linalg.qr(deviates)
    q = q * np.sign(np.diag(r))
    return parameter.copy_(tensor((q if rows >= columns else q.T) * gain).reshape(parameter.shape))


@no_grad()
def trunc_normal_(
    parameter: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> Any:
    """Normal, drawn again wherever it falls outside [a, b]."""
    values = random.randn(parameter.shape, generator=generator).numpy() * np.float32(std) + np.float32(mean)
    for _ in range(1000):
        outside = (values < a) | (values > b)
        count = int(outside.sum())
        if not count:
            return parameter.copy_(tensor(values))
        values[outside] = random.randn(count, generator=generator).numpy() * np.float32(std) + np.float32(mean)
    raise ValueError(f"almost nothing of a normal distribution of mean {mean} and deviation {std} lies in [{a}, {b}]")


@no_grad()
def eye_(parameter: Any) -> Any:
    """The identity matrix."""
    if parameter.dim() != 2:
        raise ValueError(f"eye_ needs 2 dimensions, got shape {list(parameter.shape)}")
    return parameter.copy_(tensor(np.eye(*parameter.shape)))


@no_grad()
def dirac_(parameter: Any, groups: int = 1) -> Any:
    """Weights with which a convolution passes as many channels on as possible."""
    if parameter.dim() not in (3, 4, 5) or parameter.shape[0] % groups:
        raise ValueError(f"dirac_ needs 3 to 5 dimensions and whole groups, got shape {list(parameter.shape)}")
    weight = np.zeros(parameter.shape, np.float32)
    middle = tuple([size // 2 for size in parameter.shape[2:]])
    filters = parameter.shape[0] // groups
    for group in range(groups):
        for d in range(min(filters, parameter.shape[1])):
            place = (group * filters + d, d, *middle)
            weight[place] = 1.0
    return parameter.copy_(tensor(weight))


@no_grad()
def sparse_(parameter: Any, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Any:
    """Normal, with a share ``sparsity`` of each column zero (Martens 2010)."""
    if parameter.dim() != 2:
        raise ValueError(f"sparse_ needs 2 dimensions, got shape {list(parameter.shape)}")
    rows, columns = parameter.shape
    values = random.randn(rows, columns, generator=generator).numpy() * np.float32(std)
    for column in range(columns):
        zeroed = random.randperm(rows, generator=generator).numpy()[: math.ceil(sparsity * rows)]
        values[zeroed, column] = 0.0
    return parameter.copy_(tensor(values))
