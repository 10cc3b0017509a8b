"""Parameters that are computed from others at every use, with the names of torch.nn.utils.parametrize."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.tape import no_grad
from rl_lab.nn.containers import ModuleDict, ModuleList
from rl_lab.nn.module import Module, Parameter

_cache: dict[tuple[int, str], Tensor] = {}
_depth: list[None] = []


@contextmanager
def cached() -> Iterator[None]:
    """Inside this context, compute each parametrised tensor once and then use the same value."""
    _depth.append(None)
    try:
        yield
    finally:
        _depth.pop()
        if not _depth:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The modules that compute one tensor one after the other, and the parameters ``original``, or ``original0`` ..., of the first.

    Raises ShapeError if the computed tensor has another shape than the parameter that it replaces.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor):
        super().__init__(modules)
        sources: Tensor | Sequence[Tensor] = original
        with no_grad():
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    sources = module.right_inverse(sources)
        self.is_tensor = isinstance(sources, Tensor)
        self.ntensors = 1 if isinstance(sources, Tensor) else len(sources)
        if isinstance(sources, Tensor):
            kept = sources is original and isinstance(original, Parameter)
            self.original = original if kept else Parameter(sources.detach(), original.requires_grad)
        else:
            for number, source in enumerate(sources):
                self.register_parameter(f"original{number}", Parameter(source.detach(), original.requires_grad))
        with no_grad():
            shape = self.forward().shape
        if shape != original.shape:
            raise ShapeError(f"a parametrization must keep the shape {list(original.shape)}, got {list(shape)}")

    def originals(self) -> list[Tensor]:
        """The parameters from which the tensor is computed."""
        return [self.original] if self.is_tensor else [getattr(self, f"original{k}") for k in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Set the parameters so that the computed tensor is ``value``. Raises NotImplementedError if a module has no right_inverse."""
        sources: Tensor | Sequence[Tensor] = value
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise NotImplementedError(f"{type(module).__name__} has no right_inverse: the tensor cannot be assigned")
                sources = module.right_inverse(sources)
            for old, new in zip(self.originals(), [sources] if isinstance(sources, Tensor) else sources, strict=True):
                old.copy_(new)

    def forward(self) -> Tensor:
        first, *others = self
        value = first(*self.originals())
        for module in others:
            value = module(value)
        return value


def _restored(base: type[Module], names: tuple[str, ...]) -> Module:
    return object.__new__(_class_of(base, names))


def _class_of(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    """A class like ``base`` in which the tensors ``names`` are computed at every access."""

    def computed(name: str) -> property:
        def get(self: Module) -> Tensor:
            if not _depth:
                return self.parametrizations[name]()
            key = (id(self), name)
            if key not in _cache:
                _cache[key] = self.parametrizations[name]()
            return _cache[key]

        return property(get)

    def assign(self: Module, name: str, value: object) -> None:
        if name in names:
            if not isinstance(value, Tensor):
                raise TypeError(f"a parametrised tensor takes a tensor, got {type(value).__name__}")
            self.parametrizations[name].right_inverse(value)
        else:
            base.__setattr__(self, name, value)

    def reduce(self: Module, protocol: object) -> tuple:
        return _restored, (base, names), self.__dict__

    members: dict[str, object] = {name: computed(name) for name in names}
    members |= {"__setattr__": assign, "__reduce_ex__": reduce, "__module__": base.__module__, "_names": names, "_plain": base}
    return type(f"Parametrized{base.__name__}", (base,), members)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Compute the parameter ``tensor_name`` by the module ``parametrization`` at every use; return the module.

    If ``parametrization`` has a method ``right_inverse``, it maps the present value to the parameters ``original`` from which the value is
    computed. A second call adds another module behind the first one. ``unsafe`` has no effect. Raises ValueError if there is no such
    parameter, ShapeError if the computed tensor has another shape.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        listed = module.parametrizations[tensor_name]
        with no_grad():
            value = getattr(module, tensor_name)
            if parametrization(value).shape != value.shape:
                raise ShapeError(f"a parametrization must keep the shape {list(value.shape)}")
        listed.append(parametrization)
        return module
    parameter = module._parameters.get(tensor_name)
    if parameter is None:
        raise ValueError(f"{type(module).__name__} has no parameter {tensor_name!r}")
    listed = ParametrizationList([parametrization], parameter)
    base = type_before_parametrizations(module)
    names = (*getattr(type(module), "_names", ()), tensor_name)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = listed
    module.__class__ = _class_of(base, names)  # type: ignore[assignment]
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the tensor ``tensor_name``, or any tensor, of a module is computed."""
    names = getattr(type(module), "_names", ())
    return bool(names) if tensor_name is None else tensor_name in names


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a computed tensor a parameter again, with its present value; return the module.

    Without ``leave_parametrized`` the parameter gets the value of ``original``. Raises ValueError if the tensor is not computed, or if
    its originals are several tensors and ``leave_parametrized`` is false.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"{type(module).__name__} has no parametrization on {tensor_name!r}")
    listed = module.parametrizations[tensor_name]
    if not leave_parametrized and not listed.is_tensor:
        raise ValueError(f"{tensor_name!r} has {listed.ntensors} originals: leave_parametrized=False needs a single one")
    with no_grad():
        value = getattr(module, tensor_name).detach().clone() if leave_parametrized else listed.original.detach()
    wanted = listed.originals()[0].requires_grad
    base = type_before_parametrizations(module)
    names = tuple([name for name in type(module)._names if name != tensor_name])  # type: ignore[attr-defined]
    del module.parametrizations[tensor_name]
    module.__class__ = _class_of(base, names) if names else base  # type: ignore[assignment]
    if not names:
        del module.parametrizations
    module.register_parameter(tensor_name, Parameter(value, wanted))
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of the module without its computed tensors."""
    return getattr(type(module), "_plain", type(module))
