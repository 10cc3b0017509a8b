"""Linear layers, embeddings and reshaping layers."""

import math
from collections.abc import Sequence
from typing import Protocol

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.bags import check_unsupported
from rl_lab.engine.ops.creation import empty
from rl_lab.engine.random import Generator
from rl_lab.engine.tape import no_grad
from rl_lab.nn import functional, init
from rl_lab.nn.module import Module, Parameter


class _HasWeightAndBias(Protocol):
    weight: Parameter
    bias: Parameter


def reset_uniform(module: _HasWeightAndBias, fan_in: int, generator: Generator | None) -> None:
    """Draw the weight and then the bias uniformly from +-1 / sqrt(fan_in), as PyTorch's linear and convolutional layers do."""
    bound = 1.0 / math.sqrt(fan_in)
    init.uniform_(module.weight, -bound, bound, generator)
    if module.bias is not None:
        init.uniform_(module.bias, -bound, bound, generator)


class Linear(Module):
    """y = x A^T + b, from (..., in_features) to (..., out_features), with ``weight`` A (out_features, in_features).

    Weight and bias start uniform on +-1 / sqrt(in_features). Raises ShapeError if a size is not positive.
    """

    bias: Parameter
    """None if the layer has no bias; PyTorch declares the same type."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"Linear needs positive sizes, got {in_features} and {out_features}")
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty((out_features, in_features)))
        self.register_parameter("bias", Parameter(empty((out_features,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new values for weight and bias."""
        reset_uniform(self, self.in_features, generator)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Return the input unchanged. The constructor accepts any arguments and ignores them."""

    def __init__(self, *ignored: object, **also_ignored: object):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Embedding(Module):
    """Table lookup: from int64 (...) to the rows (..., embedding_dim) of ``weight`` (num_embeddings, embedding_dim).

    The rows start standard normal, or as those of ``_weight``. Row ``padding_idx`` starts at 0 and receives no gradient. ``_freeze``
    makes the table one that does not learn. Raises ValueError for ``max_norm``, ``scale_grad_by_freq`` and ``sparse``, which are not
    supported, and ShapeError if ``_weight`` has another shape.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
        *,
        generator: Generator | None = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        check_unsupported("Embedding", max_norm, scale_grad_by_freq, sparse)
        if _weight is not None and tuple(_weight.shape) != (num_embeddings, embedding_dim):
            raise ShapeError(f"_weight has shape {list(_weight.shape)}, not [{num_embeddings}, {embedding_dim}]")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.weight = Parameter(empty((num_embeddings, embedding_dim)) if _weight is None else _weight, not _freeze)
        if _weight is None:
            init.start(self, generator)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> "Embedding":
        """A layer over the table ``embeddings`` (count, size), which does not learn if ``freeze``."""
        if embeddings.dim() != 2:
            raise ShapeError(f"from_pretrained takes a table (count, size), got shape {list(embeddings.shape)}")
        count, size = embeddings.shape
        return cls(count, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings.detach(), freeze)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw a new table."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, input: Tensor) -> Tensor:
        return functional.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Bilinear(Module):
    """y = x1^T A x2 + b with ``weight`` A (out_features, in1_features, in2_features).

    Weight and bias start uniform on +-1 / sqrt(in1_features).
    """

    bias: Parameter
    """None if the layer has no bias; PyTorch declares the same type."""

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: Generator | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
    ):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.weight = Parameter(empty((out_features, in1_features, in2_features)))
        self.register_parameter("bias", Parameter(empty((out_features,))) if bias else None)
        init.start(self, generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new values for weight and bias."""
        reset_uniform(self, self.weight.shape[1], generator)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return functional.bilinear(input1, input2, self.weight, self.bias)


class Unflatten(Module):
    """Split dimension ``dim`` into dimensions of the sizes ``unflattened_size``."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)


class Flatten(Module):
    """Merge the dimensions from ``start_dim`` to ``end_dim`` into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)
