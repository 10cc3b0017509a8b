"""Weight normalisation and spectral normalisation as parametrizations, with the names of torch.nn.utils.parametrizations."""

from typing import TYPE_CHECKING, TypeVar

from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.matmul import dot, mv
from rl_lab.engine.ops.normalization import normalize
from rl_lab.engine.random import randn
from rl_lab.engine.tape import no_grad
from rl_lab.nn.convolution import ConvTranspose2d
from rl_lab.nn.module import Module
from rl_lab.nn.reparametrization import as_matrix, norm_except
from rl_lab.nn.utils.parametrize import register_parametrization

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = ["spectral_norm", "weight_norm"]

AnyModule = TypeVar("AnyModule", bound=Module)


class _WeightNorm(Module):
    def __init__(self, dim: int | None):
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / norm_except(v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim).clone(), weight


def weight_norm(module: AnyModule, name: str = "weight", dim: int | None = 0) -> AnyModule:
    """Compute a parameter as g v / |v| (Salimans and Kingma 2016), where g is ``original0`` and v ``original1``; return the module.

    Norms are over all dimensions but ``dim``, or over all if it is None. Raises ValueError if there is no such parameter.
    """
    return register_parametrization(module, name, _WeightNorm(dim))  # type: ignore[return-value]


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations}")
        self.dim = dim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.dim() > 1:
            with no_grad():
                matrix = as_matrix(weight, dim)
                self.register_buffer("_u", normalize(randn(matrix.shape[0]), dim=0, eps=eps))
                self.register_buffer("_v", normalize(randn(matrix.shape[1]), dim=0, eps=eps))
                self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, count: int) -> None:
        for _ in range(count):
            self._u.copy_(normalize(mv(matrix, self._v), dim=0, eps=self.eps))
            self._v.copy_(normalize(mv(matrix.t(), self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            with no_grad():
                self._iterate(matrix, self.n_power_iterations)
        # copies: a later use improves the vectors in place, and this graph may not have been walked back yet
        return weight / dot(self._u.clone(), mv(matrix, self._v.clone()))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: AnyModule, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> AnyModule:
    """Divide a parameter by its largest singular value (Miyato et al. 2018); return the module.

    Every use in training mode improves the singular vectors by ``n_power_iterations`` steps of power iteration. ``dim`` is the
    dimension of the outputs, by default 1 for a transposed convolution and 0 else. Raises ValueError if there is no such parameter or
    no iteration.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}")
    if dim is None:
        dim = 1 if isinstance(module, ConvTranspose2d) else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))  # type: ignore[return-value]
