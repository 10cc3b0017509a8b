"""Initial values of parameters, with PyTorch's names and defaults.

Every function overwrites its parameter in place, records nothing on the tape, and returns the parameter. Random values are drawn from
``generator``, or from the default stream.
"""

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rl_lab.engine import random
from rl_lab.engine.kernels.orthogonal import orthonormalize
from rl_lab.engine.launch import launch
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.random import Generator
from rl_lab.engine.tape import no_grad

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


class _Resettable(Protocol):
    def reset_parameters(self, generator: Generator | None = None) -> None: ...


def start(module: _Resettable, generator: Generator | None) -> None:
    """Call the ``reset_parameters`` of a new layer.

    Without a generator the call has no argument: a user's subclass may define ``reset_parameters()`` without one, as in PyTorch.
    """
    if generator is None:
        module.reset_parameters()
    else:
        module.reset_parameters(generator)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Recommended gain of a nonlinearity: the factor on the standard deviation of the weights (He et al. 2015; PyTorch's table).

    ``param`` is the slope of ``leaky_relu``. Raises ValueError if the nonlinearity is unknown.
    """
    gains = {"linear": 1.0, "identity": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}: use one of {', '.join([*gains, 'leaky_relu'])}")
    return gains[nonlinearity]


def _fans(parameter: Tensor) -> tuple[int, int]:
    """(fan in, fan out). Raises ValueError if the parameter has less than 2 dimensions."""
    if parameter.dim() < 2:
        raise ValueError(f"fan in and fan out need at least 2 dimensions, got shape {list(parameter.shape)}")
    field = math.prod(parameter.shape[2:])
    return parameter.shape[1] * field, parameter.shape[0] * field


@no_grad()
def uniform_(parameter: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on [a, b)."""
    return random.uniform_(parameter, a, b, generator)


@no_grad()
def normal_(parameter: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with mean ``mean`` and standard deviation ``std``."""
    return random.normal_(parameter, mean, std, generator)


@no_grad()
def constant_(parameter: Tensor, val: float) -> Tensor:
    """Every element ``val``."""
    return parameter.fill_(val)


def zeros_(parameter: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(parameter, 0.0)


def ones_(parameter: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(parameter, 1.0)


def xavier_uniform_(parameter: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with standard deviation gain * sqrt(2 / (fan in + fan out)) (Glorot and Bengio 2010, equation 16)."""
    bound = gain * math.sqrt(6.0 / sum(_fans(parameter)))
    return uniform_(parameter, -bound, bound, generator)


def xavier_normal_(parameter: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan in + fan out)) (Glorot and Bengio 2010)."""
    return normal_(parameter, 0.0, gain * math.sqrt(2.0 / sum(_fans(parameter))), generator)


def _he_deviation(parameter: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = _fans(parameter)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    parameter: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> Tensor:
    """Uniform with standard deviation gain / sqrt(fan) (He et al. 2015, equations 10 and 14). ``a`` is the slope of a leaky ReLU."""
    bound = math.sqrt(3.0) * _he_deviation(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound, generator)


def kaiming_normal_(
    parameter: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Generator | None = None
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan) (He et al. 2015, equations 10 and 14). ``a`` is the slope of a leaky ReLU."""
    return normal_(parameter, 0.0, _he_deviation(parameter, a, mode, nonlinearity), generator)


@no_grad()
def orthogonal_(parameter: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Orthonormal rows, or columns if there are more rows than columns, times ``gain`` (Saxe, McClelland and Ganguli 2014).

    A parameter with more than 2 dimensions is treated as a matrix (shape[0], the rest). Raises ValueError below 2 dimensions.
    """
    if parameter.dim() < 2:
        raise ValueError(f"orthogonal_ needs at least 2 dimensions, got shape {list(parameter.shape)}")
    rows = parameter.shape[0]
    columns = parameter.numel() // rows
    vectors = random.randn(min(rows, columns), max(rows, columns), generator=generator)
    launch(orthonormalize, (vectors,), vectors.shape)
    return parameter.copy_((vectors if rows <= columns else vectors.t()).reshape(parameter.shape) * gain)


@no_grad()
def trunc_normal_(
    parameter: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> Tensor:
    """Normal truncated to [a, b] by drawing again. Raises ValueError if 1,000 rounds of drawing are not enough."""
    values = random.randn(parameter.shape, generator=generator).numpy() * np.float32(std) + np.float32(mean)
    for _ in range(1000):
        outside = (values < a) | (values > b)
        count = int(outside.sum())
        if not count:
            return parameter.copy_(tensor(values))
        values[outside] = random.randn(count, generator=generator).numpy() * np.float32(std) + np.float32(mean)
    raise ValueError(f"a normal distribution with mean {mean} and standard deviation {std} has almost no mass in [{a}, {b}]")


@no_grad()
def eye_(parameter: Tensor) -> Tensor:
    """The identity matrix. Raises ValueError unless the parameter has 2 dimensions."""
    if parameter.dim() != 2:
        raise ValueError(f"eye_ needs 2 dimensions, got shape {list(parameter.shape)}")
    return parameter.copy_(tensor(np.eye(parameter.shape[0], parameter.shape[1])))


@no_grad()
def dirac_(parameter: Tensor, groups: int = 1) -> Tensor:
    """Identity weights of a convolution: each group copies as many input channels as it has outputs.

    Raises ValueError unless the parameter has 3 to 5 dimensions and ``groups`` divides its first dimension.
    """
    if parameter.dim() not in (3, 4, 5) or parameter.shape[0] % groups:
        raise ValueError(
            f"dirac_ needs 3 to 5 dimensions, the first a multiple of {groups} groups, got shape {list(parameter.shape)}"
        )
    weight = np.zeros(parameter.shape, np.float32)
    middle = tuple([size // 2 for size in parameter.shape[2:]])
    filters = parameter.shape[0] // groups
    for group in range(groups):
        for d in range(min(filters, parameter.shape[1])):
            centre = (group * filters + d, d, *middle)
            weight[centre] = 1.0
    return parameter.copy_(tensor(weight))


@no_grad()
def sparse_(parameter: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal, with the fraction ``sparsity`` of each column set to 0 (Martens 2010). Raises ValueError unless 2-dimensional."""
    if parameter.dim() != 2:
        raise ValueError(f"sparse_ needs 2 dimensions, got shape {list(parameter.shape)}")
    rows, columns = parameter.shape
    values = random.randn(rows, columns, generator=generator).numpy() * np.float32(std)
    for column in range(columns):
        zeroed = random.randperm(rows, generator=generator).numpy()[: math.ceil(sparsity * rows)]
        values[zeroed, column] = 0.0
    return parameter.copy_(tensor(values))
