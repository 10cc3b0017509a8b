"""Layers and containers."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.random import Generator
from rl_lab.engine.tensor import empty
from rl_lab.nn import functional, init
from rl_lab.nn.module import Module, Parameter


class Linear(Module):
    """y = x A^T + b with weight A (out_features, in_features); both start uniform on +-1/sqrt(in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, generator: Generator | None = None):
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"Linear needs positive sizes, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        bound = 1.0 / math.sqrt(in_features)
        self.weight = Parameter(empty((out_features, in_features)))
        init.uniform_(self.weight, -bound, bound, generator)
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(empty((out_features,)))
            init.uniform_(self.bias, -bound, bound, generator)

    def forward(self, input: Any) -> Any:
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, input: Any) -> Any:
        return functional.relu(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Any) -> Any:
        return functional.tanh(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Any) -> Any:
        return functional.sigmoid(input)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, input: Any) -> Any:
        return functional.silu(input)


class Identity(Module):
    """x."""

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """All dimensions from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return input.flatten(self.start_dim, self.end_dim)


class Sequential(Module):
    """Modules one after the other; takes modules or one OrderedDict of them."""

    def __init__(self, *modules: Any):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for position, module in enumerate(modules):
                self.add_module(str(position), module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def append(self, module: Module) -> "Sequential":
        self.add_module(str(len(self)), module)
        return self

    def __getitem__(self, position: Any) -> Any:
        items = list(self._modules.items())
        if isinstance(position, slice):
            return Sequential(OrderedDict(items[position]))
        return items[position][1]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())
