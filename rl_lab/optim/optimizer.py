"""Optimisers with PyTorch's names, defaults and formulas. A step is one launch per parameter group."""

import contextlib
import copy
import functools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import OptimizerError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import Counted, Part, changes, launch, launch_parts, recorder, unrecorded
from rl_lab.engine.number import real
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full, full_like, tensor, zeros
from rl_lab.engine.ops.multi_tensor import address_table
from rl_lab.engine.tensor import view
from rl_lab.native.primitive import Primitive

if TYPE_CHECKING:
    from typing_extensions import Self

    from rl_lab.optim.guard import Guard

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, pairs of a name and a tensor, or groups: dicts with the key ``params`` and, optionally, settings."""
Slots = tuple[str | None, ...]
Row = tuple[Tensor, ...]
"""One row of a kernel's table: a parameter, its gradient, its state tensors, and the step counter."""

CUT = 32_768  # a step of at least this many elements is split for two cores
CYCLES_AN_ELEMENT = 3


def _require(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless low <= value < high."""
    if not low <= value < high:
        limit = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g})"
        raise ValueError(f"{name} must be {limit}, got {value}")


def _ignore(settings: dict[str, Any]) -> None:
    """Accept the settings with which PyTorch selects an implementation: they do not change results.

    Raises TypeError for any other setting.
    """
    for name in settings:
        if name not in ("foreach", "fused", "capturable", "differentiable"):
            raise TypeError(f"unknown setting {name!r} of an optimizer")


def noting(base: type, *names: str) -> Callable[[type], type]:
    """Class decorator: the methods ``names`` of the container ``base`` end with ``self.note()``."""

    def decorate(made: type) -> type:
        def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def call(self: Any, *arguments: Any, **named: Any) -> Any:
                result = method(self, *arguments, **named)
                self.note()
                return result

            return call

        for name in names:
            setattr(made, name, wrapped(getattr(base, name)))
        return made

    return decorate


@noting(
    list,
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"),
    *("__setitem__", "__delitem__", "__iadd__", "__imul__"),
)
class Listed(list[Any]):
    """A list of groups or parameters that belongs to an optimizer. A change makes compiled functions record again."""

    def __init__(self, content: Iterable[Any], owner: "Callable[[], Optimizer | None]"):
        super().__init__(content)
        self._owner = owner

    def note(self) -> None:
        changes.note(self._owner())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


@noting(dict, "__delitem__", "pop", "popitem", "clear")
class Group(dict[str, Any]):
    """A parameter group: its parameters (key ``params``) and its settings.

    The learning rate is also kept in the tensor ``rate``, which a recorded step reads at every replay. The other settings are constants
    of a recorded step, so a change of one of them makes compiled functions record again.
    """

    def __init__(self, settings: dict[str, Any], owner: "Optimizer | None" = None):
        super().__init__(settings)
        self._own_parameters()
        self.rate = tensor(real(settings["lr"]))
        self.belongs_to(owner)

    def _own_parameters(self) -> None:
        """Replace the list of parameters by one that notes its changes."""
        if "params" in self:
            dict.__setitem__(self, "params", Listed(self["params"], self._get_owner))

    def _get_owner(self) -> "Optimizer | None":
        return self.owner

    def note(self) -> None:
        changes.note(self.owner)

    def __setitem__(self, key: str, value: Any) -> None:
        recording = recorder()
        if key == "lr" and (recording is not None or value != self["lr"]):
            if recording is not None and not recording.was_made(self.owner):
                recording.reads.store(self, key, self.get(key), what="the learning rate of an optimizer")
            with tape.no_grad():
                self.rate.fill_(real(value))
        other = key != "lr" and value is not self.get(key) and (key == "params" or value != self.get(key))
        super().__setitem__(key, value)
        if key == "params":
            self._own_parameters()
        if other:
            self.note()  # the other settings are constants of a recorded step

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, settings: Any) -> "Self":  # type: ignore[override,misc]
        self.update(settings)
        return self

    def belongs_to(self, owner: "Optimizer | None") -> None:
        """Set the optimizer to which the group belongs."""
        self._owner = None if owner is None else weakref.ref(owner)

    @property
    def owner(self) -> "Optimizer | None":
        return None if self._owner is None else self._owner()

    def __reduce__(self) -> tuple[Any, ...]:
        return Group, (dict(self),)

    def update(self, *settings: Any, **named: Any) -> None:
        """Set several settings."""
        for key, value in dict(*settings, **named).items():
            self[key] = value


@noting(dict, "__delitem__", "pop", "popitem", "clear")
class State(dict[Any, Any]):
    """State tensors of an optimizer by parameter, and those of a parameter by name.

    A recorded step uses the memory of these tensors, so a change makes compiled functions record again.
    """

    def __init__(self, content: Mapping[Any, Any], owner: "Callable[[], Optimizer | None]"):
        super().__init__()
        self._owner = owner
        for key, value in content.items():
            self.put(key, value)

    def put(self, key: Any, value: Any) -> Any:
        """Set an item without a note, as the optimizer does when it steps for the first time; return the item as it is stored."""
        if isinstance(value, dict):
            value = State(value, self._owner)
        super().__setitem__(key, value)
        return value

    def note(self) -> None:
        changes.note(self._owner())

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)
        self.note()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *content: Any, **named: Any) -> None:
        for key, value in dict(*content, **named).items():
            self[key] = value

    def __ior__(self, content: Any) -> "Self":  # type: ignore[override,misc]
        self.update(content)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class States(State):
    """The `State` of an optimizer. A parameter without a state gets an empty one when it is looked up, as in PyTorch."""

    def __missing__(self, parameter: Any) -> Any:
        self[parameter] = {}
        return self[parameter]


def _halves(rows: list[Row], total: int) -> list[list[Row]]:
    """Split the rows, of ``total`` elements, into two lists with equal numbers of elements. The row in the middle is split, too."""
    first: list[Row] = []
    second: list[Row] = []
    before = 0
    for row in rows:
        size = row[0].numel()
        cut = min(max(total // 2 - before, 0), size)
        for half, low, high in ((first, 0, cut), (second, cut, size)):
            if high > low:
                *elements, step = row
                parts = [x if x.numel() != size else view(x, (high - low,), None, x.offset + low) for x in elements]
                half.append((*parts, step))
        before += size
    return [first, second]


class Optimizer(Counted):
    """Base class of the optimisers.

    ``params`` are leaf tensors, or dicts with the key ``params`` and settings that differ from ``defaults``. ``param_groups`` lists the
    groups; ``state[parameter]`` maps names to the state tensors of a parameter. Raises ValueError if there are no parameters, if a
    parameter appears twice or if a setting is out of range, TypeError if a parameter is not a tensor, OptimizerError if it is not a leaf.
    """

    slots: Slots = ()
    """Names of a parameter's state tensors, in the order of the kernel's table. None marks a column that is not used."""
    kernel: Primitive
    arguments: tuple[str, ...] = ()
    """Names of the settings that the kernel takes, in its order; `numbers` adds settings that are pairs."""
    first_value = 0.0
    """Initial value of the state tensors."""
    scalars: tuple[str, ...] = ()
    """Names of the state tensors that are one number for the whole parameter."""
    guard: "Guard | None" = None
    """What looks at all numbers before a step; None for an optimiser that steps with whatever it gets, as in PyTorch."""

    def __init__(self, params: Params, defaults: dict[str, Any]):
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        if isinstance(params, Tensor):
            raise TypeError("the optimizer takes an iterable of parameters, got one tensor: pass [parameter]")
        listed: list = list(params)
        if not listed:
            raise ValueError("the optimizer got an empty list of parameters")
        if all(isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str) for entry in listed):
            listed = [parameter for _, parameter in listed]  # of named_parameters()
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "param_groups":
            value = Listed(value, weakref.ref(self))
        elif name == "state":
            value = States(value, weakref.ref(self))
        object.__setattr__(self, name, value)
        if not name.startswith("_"):
            changes.note(self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        changes.note(self)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict with the key ``params`` and, optionally, settings. Raises the same errors as the constructor."""
        params = [param_group["params"]] if isinstance(param_group["params"], Tensor) else list(param_group["params"])
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"an optimizer updates tensors, got a {type(p).__name__}")
            if not p.is_leaf:
                raise OptimizerError("an optimizer updates leaf tensors only, got the result of an operation")
            if id(p) in known:
                raise ValueError("a parameter appears in more than one group")
        group = {**self.defaults, **param_group, "params": params}
        self.check(group)
        self.param_groups.append(Group(group, self))
        self._follow(params)
        changes.note(self)

    def _follow(self, params: Iterable[Tensor]) -> None:
        """Register with parameters that can gain and lose elements, so that they call `keep_rows`."""
        for p in params:
            if (followers := getattr(p, "followers", None)) is not None:
                followers.add(self)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if a setting is out of range."""
        _require("lr", group["lr"], 0.0)
        _require("weight_decay", group.get("weight_decay", 0.0), 0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zero if ``set_to_none`` is False."""
        if (recording := recorder()) is not None:
            recording.uses(self)
        if self.guard is not None:
            self.guard.forget(self)
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    with tape.no_grad():
                        p.grad.zero_()

    def slots_of(self, group: dict[str, Any]) -> Slots:
        """`slots` of a parameter with the settings of ``group``."""
        return self.slots

    def first_value_of(self, name: str, group: Group) -> float:
        """Initial value of the state tensor ``name``."""
        return self.first_value

    def new_state(self, parameter: Tensor, group: Group) -> dict[str, Tensor]:
        """State tensors of a parameter beside those of `slots_of`, whose shapes need not be the parameter's. A hook for subclasses."""
        return {}

    def _state_of(self, parameter: Tensor, group: Group) -> dict[str, Tensor]:
        """State tensors of a parameter; missing ones are created."""
        state: Any = self.state.get(parameter)
        if state is None:
            state = cast(State, self.state).put(parameter, {})
        recording = recorder()
        outlives = recording is None or not recording.was_made(self)
        if recording is not None and not state:
            recording.undoing.append(lambda: self.state.pop(parameter, None))
        if self.guard is not None:
            self.guard.is_stale = True
        with unrecorded() if outlives else contextlib.nullcontext():
            if not state:
                state.put("step", zeros((1,), dtype=int64))
                for own, made in self.new_state(parameter, group).items():
                    state.put(own, made)
            for name in self.slots_of(group):
                if name is not None and name not in state:
                    value = self.first_value_of(name, group)
                    state.put(name, full((1,), value) if name in self.scalars else full_like(parameter, value))
        return state

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Tensor]) -> Tensor: ...

    @tape.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient.

        A ``closure`` is called first, with gradients enabled, to recompute the loss and the gradients; its loss is returned.
        """
        loss = None
        if closure is not None:
            with tape.enable_grad():
                loss = closure()
        recording = recorder()
        if recording is not None:
            recording.uses(self)
        changing: list[tuple[list[Row], Group]] = []
        for group in self.param_groups:
            rows = []
            for p in group["params"]:
                if recording is not None:
                    recording.grad_read(p)
                gradient = p._grad
                if gradient is None:
                    continue
                state = self._state_of(p, group)
                moments = [p if name is None else state[name] for name in self.slots_of(group)]
                padding = [p] * (optimizer_kernels.COLUMNS - 3 - len(moments))
                rows.append((p, gradient.contiguous(), *moments, *padding, state["step"]))
            if rows:
                changing.append((rows, group))
        if self.guard is not None and changing:
            every = [row for rows, _ in changing for row in rows]
            self.guard.check(self, [row[0] for row in every], [row[1] for row in every])
        for rows, group in changing:
            self._change(rows, group)
            for row in rows:
                row[0].storage.version += 1
        return loss

    def _change(self, rows: list[Row], group: Group) -> None:
        """Launch the kernel over the rows of the table. A step of many elements is split into two parts for two cores."""
        table, sizes = address_table(rows)
        launch(optimizer_kernels.advance, (table,), (len(rows),))
        self._before(table, len(rows), group)
        self._update(rows, table, sizes, group)
        self._after(table, len(rows), group)

    def _before(self, table: Tensor, count: int, group: Group) -> None:
        """Run further launches before the kernel, over the ``count`` rows of the table. A hook for subclasses."""

    def _after(self, table: Tensor, count: int, group: Group) -> None:
        """Run further launches after the kernel, over the ``count`` rows of the table. A hook for subclasses."""

    def _update(self, rows: list[Row], table: Tensor, sizes: Tensor, group: Group) -> None:
        total = sum([row[0].numel() for row in rows])
        if total < CUT:
            launch(self.kernel, (table, sizes, group.rate), (len(rows), *self.numbers(group)))
            return
        parts: list[Part[Tensor]] = []
        for half in _halves(rows, total):
            tensors = (*address_table(half), group.rate)
            parts.append((tensors, (0, 0, 0), (len(half), *self.numbers(group))))
        launch_parts(self.kernel, parts, CYCLES_AN_ELEMENT * total)

    def numbers(self, group: Group) -> tuple[float, ...]:
        """The settings of a group that the kernel takes, in its order."""
        return tuple([group[name] for name in self.arguments])

    # --- state -------------------------------------------------------------------------------------------------------

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.state = state["state"]
        self.param_groups = state["param_groups"]
        for group in self.param_groups:
            group.belongs_to(self)
            self._follow(group["params"])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Self":
        """Copy the optimiser together with its parameters, so that a copy of (network, optimizer) stays connected."""
        other = object.__new__(type(self))
        memo[id(self)] = other
        own = {name: value for name, value in vars(self).items() if name not in ("param_groups", "state")}
        vars(other).update(copy.deepcopy(own, memo))
        other.param_groups = []
        other.state = {}
        for group in self.param_groups:
            other.add_param_group(copy.deepcopy(dict(group), memo))
        other.state = {copy.deepcopy(p, memo): copy.deepcopy(state, memo) for p, state in self.state.items()}
        return other

    def keep_rows(self, parameter: Tensor, rows: Sequence[int]) -> None:
        """Rearrange the state of a vector: element i takes the state of the old element ``rows[i]``, or state 0 if ``rows[i]`` is -1.

        Parameters of `nn.GraphNetwork` call this when they gain or lose elements.
        """
        state = self.state.get(parameter, {})
        with unrecorded(), tape.no_grad():
            for name, value in state.items():
                if value.dtype is float32 and name not in self.scalars:  # every state tensor except the numbers
                    padded = np.append(value.numpy(), np.float32(0))
                    state[name] = tensor(padded[np.array(rows, np.int64)])
        changes.note(self)

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": ..., "param_groups": ...}, with each parameter replaced by its index, as in PyTorch.

        The state tensors share the optimiser's memory.
        """
        numbers = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = []
        for group in self.param_groups:
            settings = {k: v for k, v in group.items() if k != "params"}
            groups.append({**settings, "params": [numbers[p] for p in group["params"]]})
        return {"state": {numbers.get(p, p): dict(s) for p, s in self.state.items()}, "param_groups": groups}

    @tape.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy settings and state from ``state_dict``. Raises OptimizerError if its groups have other numbers of parameters."""
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise OptimizerError(
                f"the state has groups of {[len(g['params']) for g in groups]} parameters, "
                f"this optimizer has groups of {[len(g['params']) for g in self.param_groups]}"
            )
        for group, loaded in zip(self.param_groups, groups, strict=True):
            for name, value in loaded.items():
                if name != "params" and name in group and _kind(value) != _kind(group[name]):
                    raise OptimizerError(f"the state has {name} {value!r}, this optimizer {group[name]!r}")
        parameters = [(p, g) for g in self.param_groups for p in g["params"]]
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in loaded.items() if k != "params"})
        for number, (parameter, group) in enumerate(parameters):
            loaded = state_dict["state"].get(number, state_dict["state"].get(str(number)))
            if loaded is None:
                self.state.pop(parameter, None)
                changes.note(self)
                continue
            if type(self).step is not Optimizer.step:  # a subclass with a step of its own names its state itself
                self.state[parameter] = copy.deepcopy(dict(loaded))
                continue
            own = self._state_of(parameter, group)
            for name, value in own.items():
                source = loaded[name] if isinstance(loaded[name], Tensor) else tensor(loaded[name])
                if name == "step" and not 0 <= source.item() < LARGEST_STEP:
                    raise OptimizerError(f"the state has the step {source.item()}, which no optimizer reaches")
                value.copy_(source.reshape(value.shape))


LARGEST_STEP = 2**53
"""Largest count of steps that a state may have: kernels use the count as a float64, which cannot represent all larger integers."""


def _kind(value: Any) -> str:
    """The kind of a setting, to compare a setting from a file with the setting of a group."""
    if value is None or isinstance(value, bool):
        return type(value).__name__
    if isinstance(value, (int, float)):
        return "number"
    return "list" if isinstance(value, (list, tuple)) else "tensor" if isinstance(value, Tensor) else type(value).__name__


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov momentum (Sutskever et al. 2013).

    v = momentum * v + (1 - dampening) * g, p = p - lr * v, where g is the gradient plus weight_decay * p. ``maximize`` ascends.
    """

    kernel = optimizer_kernels.sgd
    arguments = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def slots_of(self, group: dict[str, Any]) -> Slots:
        return ("momentum_buffer",) if group["momentum"] else ()

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("momentum", group["momentum"], 0.0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov=True needs momentum above 0 and dampening 0")


class Moments(Optimizer):
    """Base of the optimisers with the settings ``betas`` and ``eps``."""

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("eps", group["eps"], 0.0)
        if len(group["betas"]) != 2:
            raise ValueError(f"betas must be two numbers, got {group['betas']}")
        for i, beta in enumerate(group["betas"]):
            _require(f"betas[{i}]", beta, 0.0, 1.0)

    def numbers(self, group: Group) -> tuple[float, ...]:
        return (*group["betas"], *[group[name] for name in self.arguments])


class Adam(Moments):
    """Adam (Kingma and Ba 2015, algorithm 1), with weight_decay * p added to the gradient.

    ``amsgrad`` divides by the largest second moment so far (Reddi, Kale and Kumar 2018). It is one setting for all groups.
    """

    decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        self.kernel = optimizer_kernels.adam_largest if amsgrad else optimizer_kernels.adam
        self.slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["amsgrad"] is not self.defaults["amsgrad"]:
            raise ValueError("amsgrad must be the same in all groups of an optimizer")

    def numbers(self, group: Group) -> tuple[float, ...]:
        return *group["betas"], group["eps"], group["weight_decay"], self.decoupled, group["maximize"]


class AdamW(Adam):
    """Adam with decoupled weight decay: each step also subtracts lr * weight_decay * p (Loshchilov and Hutter 2019, algorithm 2)."""

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **ignored)


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by the root of its running mean square (Hinton 2012).

    ``alpha`` is the decay of the running mean. ``centered`` divides by the running standard deviation instead (Graves 2013).
    """

    kernel = optimizer_kernels.rmsprop
    arguments = ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def slots_of(self, group: dict[str, Any]) -> Slots:
        velocity = "momentum_buffer" if group["momentum"] else None
        return "square_avg", velocity, "grad_avg" if group["centered"] else None

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "momentum", "alpha"):
            _require(name, group[name], 0.0)


class Adagrad(Optimizer):
    """Adagrad: the gradient divided by the root of the sum of its squares (Duchi, Hazan and Singer 2011)."""

    kernel = optimizer_kernels.adagrad
    slots = ("sum",)
    arguments = ("lr_decay", "eps", "weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        self.first_value = initial_accumulator_value
        settings = {"lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {"lr": lr, **settings, "initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "lr_decay", "initial_accumulator_value"):
            _require(name, group[name], 0.0)
