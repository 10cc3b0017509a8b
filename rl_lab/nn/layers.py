"""Linear layers, tables and reshaping."""

import math
from typing import Any

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops.matmul import einsum
from rl_lab.engine.random import Generator
from rl_lab.engine.tape import no_grad
from rl_lab.engine.tensor import empty
from rl_lab.nn import functional, init
from rl_lab.nn.module import Module, Parameter


def reset_uniform(module: Any, fan_in: int, generator: Generator | None) -> None:
    """Weight, then bias, uniform on +-1/sqrt(fan_in): where PyTorch's linear and convolutional layers start."""
    bound = 1.0 / math.sqrt(fan_in)
    init.uniform_(module.weight, -bound, bound, generator)
    if module.bias is not None:
        init.uniform_(module.bias, -bound, bound, generator)


class Linear(Module):
    """y = x A^T + b with weight A (out_features, in_features); both start uniform on +-1/sqrt(in_features)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"Linear needs positive sizes, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty((out_features, in_features)))
        self.register_parameter("bias", Parameter(empty((out_features,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw weight and bias anew."""
        reset_uniform(self, self.in_features, generator)

    def forward(self, input: Any) -> Any:
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """x."""

    def forward(self, input: Any) -> Any:
        return input


class Embedding(Module):
    """Rows of a table (num_embeddings, embedding_dim) at integers; standard normal at first, row ``padding_idx`` zero and fixed."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        generator: Generator | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(empty((num_embeddings, embedding_dim)))
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw the table anew."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, input: Any) -> Any:
        return functional.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Bilinear(Module):
    """y = x1^T A x2 + b with A (out, in1, in2); both start uniform on +-1/sqrt(in1)."""

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.weight = Parameter(empty((out_features, in1_features, in2_features)))
        self.register_parameter("bias", Parameter(empty((out_features,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw weight and bias anew."""
        reset_uniform(self, self.weight.shape[1], generator)

    def forward(self, input1: Any, input2: Any) -> Any:
        result = einsum("...i,oij,...j->...o", input1, self.weight, input2)
        return result if self.bias is None else result + self.bias


class Unflatten(Module):
    """One dimension as several."""

    def __init__(self, dim: int, unflattened_size: Any):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Any) -> Any:
        return input.unflatten(self.dim, self.unflattened_size)


class Flatten(Module):
    """All dimensions from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return input.flatten(self.start_dim, self.end_dim)
