"""Weights computed from other parameters at every use: weight normalisation and spectral normalisation."""

from typing import NamedTuple, Protocol, TypeVar

from rl_lab.engine.errors import StateError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.matmul import dot, mv
from rl_lab.engine.ops.normalization import normalize
from rl_lab.engine.random import randn
from rl_lab.engine.tape import no_grad
from rl_lab.nn.module import Module, Parameter

AnyModule = TypeVar("AnyModule", bound=Module)


class _Rule(Protocol):
    """How a weight is computed. Rules are plain values, so that a module with one can be copied and pickled."""

    @property
    def name(self) -> str: ...

    def weight(self, module: Module) -> Tensor: ...


def _restored(kind: type[Module], rule: _Rule) -> Module:
    """An empty module of class ``kind`` whose weight the rule computes: the first half of copying and unpickling."""
    return object.__new__(_computing(kind, rule))


def _computing(kind: type[Module], rule: _Rule) -> type[Module]:
    """A class with the name of ``kind`` in which the weight is computed at every access."""

    def reduce(self: Module, protocol: object) -> tuple:
        return _restored, (kind, rule), self.__dict__

    members = {rule.name: property(rule.weight), "__reduce_ex__": reduce}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__, "__qualname__": kind.__qualname__})


def _plain(module: Module, name: str, weight: Tensor) -> None:
    """Undo `_computing`: ``weight`` becomes a parameter again."""
    module.__class__ = type(module).__mro__[1]
    module.register_parameter(name, Parameter(weight.detach().clone()))


def _parameter(module: Module, name: str) -> Parameter:
    parameter = module._parameters.get(name)
    if parameter is None:
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}")
    return parameter


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The norms over all dimensions but ``dim``, which are kept with size 1; over all dimensions if ``dim`` is None."""
    if dim is None:
        return v.norm()
    return v.norm(2, tuple([d for d in range(v.dim()) if d != dim % v.dim()]), keepdim=True)


class _WeightNorm(NamedTuple):
    name: str
    dim: int | None

    def weight(self, module: Module) -> Tensor:
        v = getattr(module, f"{self.name}_v")
        return v * (getattr(module, f"{self.name}_g") / norm_except(v, self.dim))


def weight_norm(module: AnyModule, name: str = "weight", dim: int | None = 0) -> AnyModule:
    """Replace a parameter by g v / |v| (Salimans and Kingma 2016), with the parameters ``name``_g and ``name``_v; return the module.

    Norms are over all dimensions but ``dim``, or over all if it is None. Raises ValueError if there is no such parameter.
    """
    weight = _parameter(module, name)
    delattr(module, name)
    with no_grad():
        length = norm_except(weight, dim).clone()
    module.register_parameter(f"{name}_g", Parameter(length))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    module.__class__ = _computing(type(module), _WeightNorm(name, dim))  # type: ignore[assignment]
    return module


def remove_weight_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `weight_norm`: the weight becomes a parameter again. Raises ValueError if it is not normalised."""
    if f"{name}_g" not in module._parameters:
        raise ValueError(f"weight_norm of {name!r} was not applied to {type(module).__name__}")
    with no_grad():
        weight = getattr(module, name)
    delattr(module, f"{name}_g")
    delattr(module, f"{name}_v")
    _plain(module, name, weight)
    return module


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight with the dimension ``dim`` as rows and all others as columns."""
    return (weight if dim == 0 else weight.movedim(dim, 0)).flatten(1)


class _SpectralNorm(NamedTuple):
    name: str
    dim: int
    iterations: int
    eps: float

    def weight(self, module: Module) -> Tensor:
        original = getattr(module, f"{self.name}_orig")
        # copies: a later call improves the vectors in place, and this graph may not have been walked back yet
        u = getattr(module, f"{self.name}_u").clone()
        v = getattr(module, f"{self.name}_v").clone()
        return original / dot(u, mv(as_matrix(original, self.dim), v))

    def __call__(self, module: Module, inputs: tuple) -> None:
        """Improve the singular vectors by power iteration: a hook before every forward, active in training mode."""
        if not module.training:
            return
        with no_grad():
            matrix = as_matrix(getattr(module, f"{self.name}_orig"), self.dim)
            u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
            for _ in range(self.iterations):
                v.copy_(normalize(mv(matrix.t(), u), dim=0, eps=self.eps))
                u.copy_(normalize(mv(matrix, v), dim=0, eps=self.eps))


def spectral_norm(
    module: AnyModule, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int = 0
) -> AnyModule:
    """Divide a weight by its largest singular value (Miyato et al. 2018); return the module.

    The parameter becomes ``name``_orig; the buffers ``name``_u and ``name``_v hold the singular vectors, which ``n_power_iterations``
    steps of power iteration improve at each call in training mode. ``dim`` is the dimension of the outputs. Raises ValueError if there
    is no such parameter or no iteration, StateError if the weight is normalised already.
    """
    if n_power_iterations < 1:
        raise ValueError(f"n_power_iterations must be positive, got {n_power_iterations}")
    if f"{name}_orig" in module._parameters:
        raise StateError(f"spectral_norm of {name!r} was applied before")
    weight = _parameter(module, name)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    with no_grad():
        rows, columns = as_matrix(weight, dim).shape
        module.register_buffer(f"{name}_u", normalize(randn(rows), dim=0, eps=eps))
        module.register_buffer(f"{name}_v", normalize(randn(columns), dim=0, eps=eps))
    rule = _SpectralNorm(name, dim, n_power_iterations, eps)
    module.__class__ = _computing(type(module), rule)  # type: ignore[assignment]
    module.register_forward_pre_hook(rule)  # type: ignore[arg-type]
    return module


def remove_spectral_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `spectral_norm`: the divided weight becomes a parameter. Raises ValueError if it is not normalised."""
    if f"{name}_orig" not in module._parameters or f"{name}_u" not in module._buffers:
        raise ValueError(f"spectral_norm of {name!r} was not applied to {type(module).__name__}")
    with no_grad():
        weight = getattr(module, name)
    assert module._hooks is not None
    hooks = module._hooks[0]
    for key in [key for key, hook in hooks.items() if isinstance(hook, _SpectralNorm) and hook.name == name]:
        del hooks[key]
    for suffix in ("orig", "u", "v"):
        delattr(module, f"{name}_{suffix}")
    _plain(module, name, weight)
    return module
