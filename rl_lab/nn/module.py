"""Module: parameters, buffers and submodules by name, and their state."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, SupportsIndex, TypeVar

import numpy as np

from rl_lab.engine.device import DeviceLike, check_device
from rl_lab.engine.dtype import DType, DTypeLike, as_dtype
from rl_lab.engine.errors import ConstructionError, DtypeError, StateError
from rl_lab.engine.launch import Counted, changes, recorder
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.tape import RemovableHandle, no_grad

if TYPE_CHECKING:
    from typing_extensions import Self

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Hook = Callable[..., Any]


class Parameter(Tensor):
    """A tensor that a module owns and an optimiser changes.

    ``data`` is a tensor, whose memory the parameter shares, or anything that `rl_lab.tensor` accepts. ``requires_grad`` is True
    unless given.
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> "Self":
        source = data if isinstance(data, Tensor) else tensor([] if data is None else data)
        value = source.detach()
        parameter = object.__new__(cls)
        for slot in ("storage", "sizes", "strides", "offset", "dtype", "address", "epoch"):
            setattr(parameter, slot, getattr(value, slot))
        parameter.node = None
        parameter._grad = None
        parameter.base = None
        parameter.hooks = None
        parameter.needs_grad = False
        Tensor.requires_grad_(parameter, requires_grad)
        return parameter

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, object]) -> "Parameter":
        copy = Parameter(self.detach().clone(), self.needs_grad)  # without its gradient, as in PyTorch
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple:
        return Parameter, (self.detach(), self.needs_grad)


EXTRA = "_extra_state"
"""The name in a state of what `Module.get_extra_state` returns."""


class Incompatible(NamedTuple):
    """Names found only in a module (missing keys) or only in a state (unexpected keys)."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


class _HasForward(Protocol[Inputs, Result_co]):
    def forward(self, *inputs: Inputs.args, **options: Inputs.kwargs) -> Result_co: ...


class _CallsForward:
    """For type checkers only: ``module(x)`` has the parameters and the result type of ``module.forward(x)``."""

    if TYPE_CHECKING:

        def __get__(self, module: _HasForward[Inputs, Result], owner: type) -> Callable[Inputs, Result]: ...


class _Hooks(NamedTuple):
    """The hooks before and after a forward by their numbers, and which of them get keyword arguments, or are called after errors."""

    before: dict[int, Hook]
    after: dict[int, Hook]
    with_kwargs: set[int]
    always: set[int]


class Module(Counted):
    """Base class of all networks.

    A subclass calls ``super().__init__()``, assigns its parameters and submodules as attributes, registers its buffers with
    `register_buffer`, and defines ``forward``. Calling the module runs ``forward`` and the hooks.
    """

    _training: bool
    _parameters: OrderedDict[str, Parameter | None]
    _buffers: OrderedDict[str, Tensor | None]
    _modules: "OrderedDict[str, Module | None]"
    _hooks: "_Hooks | None"
    _unsaved: set[str]

    def __init__(self) -> None:
        for table in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, table, OrderedDict())
        object.__setattr__(self, "_training", True)
        object.__setattr__(self, "_hooks", None)
        object.__setattr__(self, "_unsaved", set())

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the result of one call; defined by subclasses."""
        raise TypeError(f"{type(self).__name__} has no forward()")

    if TYPE_CHECKING:
        __call__ = _CallsForward()
    else:

        def __call__(self, *inputs: Any, **options: Any) -> Any:
            if (recording := recorder()) is not None:
                recording.uses(self)
            if self._hooks is None:
                return self.forward(*inputs, **options)
            return self._call_with_hooks(self._hooks, inputs, options)

    def _call_with_hooks(self, hooks: "_Hooks", inputs: tuple, options: dict[str, Any]) -> Any:
        result = None
        try:
            for number, hook in list(hooks.before.items()):
                if number in hooks.with_kwargs:
                    changed = hook(self, inputs, options)
                    if changed is not None:
                        inputs, options = changed
                elif (changed := hook(self, inputs)) is not None:
                    inputs = changed if isinstance(changed, tuple) else (changed,)
            result = self.forward(*inputs, **options)
        except BaseException:
            for number, hook in list(hooks.after.items()):
                if number in hooks.always:
                    hook(self, inputs, *((options,) if number in hooks.with_kwargs else ()), result)
            raise
        for number, hook in list(hooks.after.items()):
            changed = hook(self, inputs, *((options,) if number in hooks.with_kwargs else ()), result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, inputs)`` before every forward. A result other than None replaces the inputs.

        With ``with_kwargs`` it is ``hook(module, inputs, options)``, and its result is a pair. With ``prepend`` it comes before the others.
        """
        return self._add_hook("before", hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, inputs, output)`` after every forward. A result other than None replaces the output.

        With ``with_kwargs`` it is ``hook(module, inputs, options, output)``. With ``prepend`` it comes before the others. With
        ``always_call`` it is called with the output None, too, if forward raises an error.
        """
        return self._add_hook("after", hook, prepend, with_kwargs, always_call)

    def _add_hook(self, place: str, hook: Hook, prepend: bool, with_kwargs: bool, always_call: bool = False) -> RemovableHandle:
        if self._hooks is None:
            object.__setattr__(self, "_hooks", _Hooks({}, {}, set(), set()))
        assert self._hooks is not None
        table = getattr(self._hooks, place)
        others = dict(table)
        handle = RemovableHandle(table, hook, lambda: changes.note(self))
        (number,) = table.keys() - others.keys()
        if prepend:
            for other in others:
                table[other] = table.pop(other)
        if with_kwargs:
            self._hooks.with_kwargs.add(number)
        if always_call:
            self._hooks.always.add(number)
        return handle

    # --- attributes --------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        tables = self.__dict__
        if "_parameters" not in tables:
            if isinstance(value, (Parameter, Module)):
                raise ConstructionError(f"call super().__init__() before assigning {name!r}")
            object.__setattr__(self, name, value)
            return
        for table in ("_parameters", "_buffers", "_modules"):
            if isinstance(value, {"_parameters": Parameter, "_modules": Module}.get(table, ())) or (
                name in tables[table] and (value is None or (table == "_buffers" and isinstance(value, Tensor)))
            ):
                for other in ("_parameters", "_buffers", "_modules"):
                    if other != table:
                        tables[other].pop(name, None)
                tables.pop(name, None)
                is_new = tables[table].get(name) is not value
                tables[table][name] = value
                if is_new:
                    changes.note(self)
                return
        if name in tables["_parameters"] and value is not None:
            raise TypeError(f"cannot assign {type(value).__name__} as parameter {name!r}: use Parameter or None")
        if name in tables["_modules"] and value is not None:
            raise TypeError(f"cannot assign {type(value).__name__} as child module {name!r}: use Module or None")
        if name in tables["_buffers"] and value is not None:
            raise TypeError(f"cannot assign {type(value).__name__} as buffer {name!r}: use Tensor or None")
        object.__setattr__(self, name, value)
        if self.changes is not None:
            changes.note(self if name == "forward" else None)

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        for table in ("_parameters", "_modules", "_buffers"):
            try:
                return tables[table][name]
            except KeyError:  # not in this table, or the module is not initialised yet
                pass
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                changes.note(self)
                return
        object.__delattr__(self, name)
        changes.note(self if name == "forward" else None)

    def _require_name(self, name: str, table: str) -> None:
        """Raise KeyError unless ``name`` can name an entry of a table: a text without dots that no other attribute has."""
        if not isinstance(name, str):
            raise TypeError(f"a name must be a string, not {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"a name must not be empty or contain a dot, got {name!r}")
        if name not in self.__dict__[table] and hasattr(self, name):
            raise KeyError(f"{type(self).__name__} has an attribute {name!r} already")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under ``name``. None marks a parameter that this module does without, such as a bias."""
        self._require_name(name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter {name!r} must be a Parameter or None, not {type(param).__name__}")
        self._parameters[name] = param
        changes.note(self)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module but is not trained.

        `state_dict` leaves out a buffer that is not ``persistent``.
        """
        self._require_name(name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, not {type(tensor).__name__}")
        self._buffers[name] = tensor
        (self._unsaved.discard if persistent else self._unsaved.add)(name)
        changes.note(self)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a submodule under ``name``."""
        self._require_name(name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be a Module or None, not {type(module).__name__}")
        self._modules[name] = module
        changes.note(self)

    register_module = add_module

    # --- walking -----------------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: "set[Module] | None" = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, "Module"]]:
        """Iterate over (dotted name, module) for this module and all its descendants.

        Each module appears once or, without ``remove_duplicate``, under every name. Modules in ``memo`` are left out.
        """
        if not remove_duplicate:
            yield from self._under_every_name(prefix)
            return
        seen = {id(module) for module in memo or ()}
        recording = recorder()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            if recording is not None:
                recording.uses(module)
            yield name, module
            dot = f"{name}." if name else ""
            stack.extend((dot + child, m) for child, m in reversed(module._modules.items()) if m is not None)

    def modules(self, remove_duplicate: bool = True) -> Iterator["Module"]:
        """Iterate over this module and all its descendants. Each appears once or, without ``remove_duplicate``, for each of its names."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def _under_every_name(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """`named_modules`, but a module that is registered under several names appears under each of them."""
        if (recording := recorder()) is not None:
            recording.uses(self)
        yield prefix, self
        dot = f"{prefix}." if prefix else ""
        for name, module in self._modules.items():
            if module is not None:
                yield from module._under_every_name(dot + name)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Iterate over (name, module) for the direct submodules. Each module appears once, under its first name."""
        first = {id(module): name for name, module in reversed(self._modules.items())}
        return ((name, module) for name, module in self._modules.items() if module is not None and first[id(module)] == name)

    def children(self) -> Iterator["Module"]:
        """Iterate over the direct submodules. Each module appears once."""
        return (module for _, module in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        if not recurse and (recording := recorder()) is not None:
            recording.uses(self)
        for name, module in self.named_modules(None, prefix, once) if recurse else [(prefix, self)]:
            dot = f"{name}." if name else ""
            for key, value in module.__dict__[table].items():
                if value is not None and (id(value) not in seen or not once):
                    seen.add(id(value))
                    yield dot + key, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (dotted name, parameter), with ``recurse`` of all descendants too.

        Each parameter appears once or, without ``remove_duplicate``, under every name.
        """
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the parameters, with ``recurse`` of all descendants too. Each parameter appears once."""
        return (parameter for _, parameter in self.named_parameters("", recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (dotted name, buffer), with ``recurse`` of all descendants too; ``remove_duplicate`` as for parameters."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the buffers, with ``recurse`` of all descendants too. Each buffer appears once."""
        return (buffer for _, buffer in self.named_buffers("", recurse))

    def get_submodule(self, target: str) -> "Module":
        """Return the submodule with the dotted name ``target``. Raises AttributeError if there is none."""
        module: Module = self
        for part in target.split(".") if target else ():
            child = module._modules.get(part)
            if child is None:
                raise AttributeError(f"{type(self).__name__} has no submodule {target!r}")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with the dotted name ``target``. Raises AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        parameter = self.get_submodule(path)._parameters.get(name)
        if parameter is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")
        return parameter

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer with the dotted name ``target``. Raises AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        buffer = self.get_submodule(path)._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"{type(self).__name__} has no buffer {target!r}")
        return buffer

    def set_submodule(self, target: str, module: "Module", strict: bool = False) -> None:
        """Put a module in place of the submodule with the dotted name ``target``.

        Raises ValueError for an empty name, AttributeError if the module around it does not exist or, with ``strict``, if there is no
        submodule of this name.
        """
        if not target:
            raise ValueError("set_submodule needs the name of a submodule")
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if strict and name not in owner._modules:
            raise AttributeError(f"{type(self).__name__} has no submodule {target!r}")
        owner.add_module(name, module)

    def apply(self, fn: Callable[["Module"], object]) -> "Self":
        """Call ``fn`` on every descendant and then on this module; return this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: "OrderedDict[str, Tensor] | None" = None, prefix: str = "", keep_vars: bool = False
    ) -> "OrderedDict[str, Tensor]":
        """Map dotted names to parameters and persistent buffers. The tensors share the module's memory.

        A submodule that is registered under several names appears under each of them. The names are added to ``destination`` if it is
        given. With ``keep_vars`` the values are the parameters themselves, not detached from the graph.
        """
        state: OrderedDict[str, Tensor] = OrderedDict() if destination is None else destination
        for name, module in self._under_every_name():
            dot = prefix + (f"{name}." if name else "")
            for table in ("_parameters", "_buffers"):
                for key, value in module.__dict__[table].items():
                    if value is not None and key not in module._unsaved:
                        state[dot + key] = value if keep_vars else value.detach()
            if module._has_extra_state():
                state[dot + EXTRA] = module.get_extra_state()
        return state

    def get_extra_state(self) -> Any:
        """What `state_dict` holds of this module beside its tensors, under ``_extra_state``. A subclass may define it."""
        raise StateError(f"{type(self).__name__} defines no get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` returned. A subclass that defines the one must define the other."""
        raise StateError(f"{type(self).__name__} defines no set_extra_state()")

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Module.get_extra_state

    @no_grad()
    def load_state_dict(
        self, state_dict: Mapping[str, Tensor | np.ndarray], strict: bool = True, assign: bool = False
    ) -> Incompatible:
        """Copy values into the parameters and buffers in place. Every name and shape is checked before anything is written.

        With ``assign`` the tensors of the state become the parameters and buffers themselves, so an optimizer must be made afterwards.
        Returns (missing names, unexpected names). Raises StateError, listing every fault, if a shape differs or, with ``strict``,
        if a name is missing or unexpected.
        """
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        faults = []
        if strict and unexpected:
            faults.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}.")
        if strict and missing:
            faults.append(f"Missing key(s) in state_dict: {_quoted(missing)}.")
        extra = {
            prefix + ("." if prefix else "") + EXTRA: module
            for prefix, module in self._under_every_name()
            if module._has_extra_state()
        }
        tensors = {name: value for name, value in own.items() if name not in extra}
        for name in tensors:
            if name in state_dict and not isinstance(state_dict[name], (Tensor, np.ndarray)):
                faults.append(f"{name} is {type(state_dict[name]).__name__}, not a tensor.")
            elif name in state_dict and tuple(state_dict[name].shape) != own[name].shape:
                faults.append(
                    f"size mismatch for {name}: the state has shape {list(state_dict[name].shape)}, "
                    f"the module has shape {list(own[name].shape)}."
                )
        if faults:
            raise StateError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(faults))
        for name, value in tensors.items():
            if name in state_dict:
                source = state_dict[name]
                if assign:
                    self._assign(name, source if isinstance(source, Tensor) else tensor(source))
                    continue
                value.copy_(source if isinstance(source, Tensor) else tensor(source))
        for name, module in extra.items():
            if name in state_dict:
                module.set_extra_state(state_dict[name])
        return Incompatible(missing, unexpected)

    def _assign(self, target: str, value: Tensor) -> None:
        """Let a tensor be the parameter or the buffer of a dotted name. A parameter keeps its ``requires_grad``."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        parameter = owner._parameters.get(name)
        if parameter is None:
            owner._buffers[name] = value
        else:
            owner._parameters[name] = value if isinstance(value, Parameter) else Parameter(value, parameter.requires_grad)
        changes.note(owner)

    # --- modes and conversions ---------------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        if (recording := recorder()) is not None:
            recording.read_attribute(self, "_training")
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        if (recording := recorder()) is not None:
            recording.store_attribute(self, "_training")
        before = self._training
        object.__setattr__(self, "_training", mode)
        if before != mode and self.changes is not None:
            changes.note()

    def train(self, mode: bool = True) -> "Self":
        """Put this module and all its descendants into training mode, or evaluation mode if ``mode`` is False.

        Dropout and batch normalisation, for example, depend on the mode. Returns this module.
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Self":
        """Put this module and all its descendants into evaluation mode; return this module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Self":
        """Freeze all parameters (False) or make them trainable (True); return this module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zero if ``set_to_none`` is False."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                with no_grad():
                    parameter.grad.zero_()

    def to(
        self,
        *targets: DeviceLike | DTypeLike | Tensor,
        device: DeviceLike = None,
        dtype: DTypeLike = None,
        non_blocking: bool = False,
    ) -> "Self":
        """Return this module, which is on the cpu in float32 already.

        Raises DeviceError if a device is not the cpu, DtypeError if a dtype is not a float.
        """
        for target in (*targets, device, dtype):
            if isinstance(target, (DType, type)):
                if not as_dtype(target).is_floating_point:
                    raise DtypeError(f"parameters are float32: {type(self).__name__} cannot be converted to {target}")
            elif not isinstance(target, Tensor):
                check_device(target)
        return self

    def cpu(self) -> "Self":
        """Return this module."""
        return self

    def cuda(self, device: DeviceLike = None) -> "Self":
        """Raises DeviceError: rl_lab runs on the cpu."""
        return self.to("cuda")

    def float(self) -> "Self":
        """Return this module: its parameters are float32 already."""
        return self

    double = float  # as for tensors, float32 is the only float

    def type(self, dst_type: DTypeLike) -> "Self":
        """Return this module. Raises DtypeError for a dtype that is not a float."""
        return self.to(dst_type)

    def share_memory(self) -> "Self":
        """Raises StateError, as for tensors: processes cannot share their memory."""
        for tensors in (self.parameters(), self.buffers()):
            for part in tensors:
                part.share_memory_()
        return self

    def extra_repr(self) -> str:
        """Settings shown in the module's ``repr``; overridden by subclasses."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the table of `rl_lab.nn.summary`. A subclass that has a picture instead returns None."""
        from rl_lab.nn.summaries import summary

        return summary(self)._repr_html_()
