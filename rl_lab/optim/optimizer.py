"""Optimisers: one launch a step for all parameters of a group. Names, defaults and formulas are PyTorch's."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import StateError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch, launch_parts, recorder, structure, unrecorded
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full_like, tensor, zeros
from rl_lab.engine.ops.multi_tensor import address_table
from rl_lab.engine.tensor import view
from rl_lab.native.primitive import Primitive

CUT = 32_768  # elements from which a step is cut for two cores
CYCLES_AN_ELEMENT = 3


def _require(name: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value < high:
        limit = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g})"
        raise ValueError(f"{name} must be {limit}, got {value}")


def _ignore(settings: dict[str, Any]) -> None:
    """PyTorch's choices among implementations do not change a number and are accepted. TypeError for anything else."""
    for name in settings:
        if name not in ("foreach", "fused", "capturable", "differentiable"):
            raise TypeError(f"unknown setting {name!r} of an optimizer")


class Group(dict):
    """A parameter group. Its learning rate also lives in the tensor ``rate``, so that a recorded step sees the changes of a schedule."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__(settings)
        self.rate = tensor(float(settings["lr"]))

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr" and value != self["lr"]:
            with tape.no_grad():
                self.rate.fill_(float(value))
        elif key != "lr" and value is not self.get(key) and (key == "params" or value != self.get(key)):
            structure.changed()  # the other settings are constants of a recorded step
        super().__setitem__(key, value)

    def __reduce__(self) -> tuple:
        return Group, (dict(self),)

    def update(self, settings: Any) -> None:  # type: ignore[override]
        for key, value in dict(settings).items():
            self[key] = value


def _halves(rows: list[tuple], total: int) -> list[list[tuple]]:
    """The rows in two lists of equally many elements; the row in the middle is cut."""
    first: list[tuple] = []
    second: list[tuple] = []
    before = 0
    for row in rows:
        size = row[0].numel()
        cut = min(max(total // 2 - before, 0), size)
        for half, low, high in ((first, 0, cut), (second, cut, size)):
            if high > low:
                *elements, step = row
                half.append((*[view(x, (high - low,), None, x.offset + low) for x in elements], step))
        before += size
    return [first, second]


class Optimizer:
    """Base of the optimisers: parameter groups, each with its settings and state.

    ``params`` are tensors, or dicts with ``params`` and settings of their own. ``state[parameter]`` holds the state tensors.
    """

    slots: tuple[str | None, ...] = ()
    """Names of the state tensors of a parameter, in the order of the kernel's table; None for one that is not used."""
    kernel: Primitive
    first_value = 0.0
    """What the state tensors start with."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Any, dict[str, Any]] = {}
        listed = list(params)
        if not listed:
            raise ValueError("the optimizer got an empty list of parameters")
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"an optimizer takes tensors, not {type(p).__name__}")
            if not p.is_leaf:
                raise StateError("an optimizer changes leaf tensors only")
            if id(p) in known:
                raise ValueError("a parameter appears in more than one group")
        group = {**self.defaults, **group, "params": params}
        self.check(group)
        self.param_groups.append(Group(group))
        self._follow(params)
        structure.changed()

    def _follow(self, params: Iterable[Any]) -> None:
        """Hear when elements of a parameter that can grow come and go."""
        for p in params:
            if (followers := getattr(p, "followers", None)) is not None:
                followers.add(self)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for settings that make no sense."""
        _require("lr", group["lr"], 0.0)
        _require("weight_decay", group.get("weight_decay", 0.0), 0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    with tape.no_grad():
                        p.grad.zero_()

    def slots_of(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        """`slots` under the settings of a group."""
        return self.slots

    def _state_of(self, parameter: Any, group: Group) -> dict[str, Any]:
        state = self.state.setdefault(parameter, {})
        with unrecorded():
            if not state:
                state["step"] = zeros((1,), dtype=int64)
            for name in self.slots_of(group):
                if name is not None and name not in state:
                    state[name] = full_like(parameter, self.first_value)
        return state

    @tape.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. ``closure`` recomputes the loss first, and is returned."""
        loss = None
        if closure is not None:
            with tape.enable_grad():
                loss = closure()
        recording = recorder()
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
                self._change(rows, group)
                for row in rows:
                    row[0].storage.version += 1
        return loss

    def _change(self, rows: list[tuple], group: Group) -> None:
        """Launch the kernel over the rows of the table; a step of many elements in two parts for two cores."""
        table, sizes = address_table(rows)
        launch(optimizer_kernels.advance, (table,), (len(rows),))
        total = sum([row[0].numel() for row in rows])
        if total < CUT:
            launch(self.kernel, (table, sizes, group.rate), (len(rows), *self.numbers(group)))
            return
        parts: list[Any] = []
        for half in _halves(rows, total):
            tensors = (*address_table(half), group.rate)
            parts.append((tensors, (0, 0, 0), (len(half), *self.numbers(group))))
        launch_parts(self.kernel, parts, CYCLES_AN_ELEMENT * total)

    def numbers(self, group: Group) -> tuple[float, ...]:
        """The kernel's settings after the number of parameters."""
        raise TypeError(f"{type(self).__name__} has no numbers()")

    # --- state -------------------------------------------------------------------------------------------------------

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for group in self.param_groups:
            self._follow(group["params"])

    def __deepcopy__(self, memo: dict) -> "Optimizer":
        """An optimizer of the copies of the parameters, which is what a copy of (network, optimizer) asks for."""
        other = object.__new__(type(self))
        memo[id(self)] = other
        own = {name: value for name, value in vars(self).items() if name not in ("param_groups", "state")}
        vars(other).update(copy.deepcopy(own, memo), param_groups=[], state={})
        for group in self.param_groups:
            other.add_param_group(copy.deepcopy(dict(group), memo))
        other.state = {copy.deepcopy(p, memo): copy.deepcopy(state, memo) for p, state in self.state.items()}
        return other

    def keep_rows(self, parameter: Any, rows: Sequence[int]) -> None:
        """A vector changed: its element i was element rows[i] before, or is new where rows[i] is -1. New elements begin without history.

        Called by parameters that grow, such as those of `nn.GraphNetwork`.
        """
        state = self.state.get(parameter, {})
        with unrecorded(), tape.no_grad():
            for name, value in state.items():
                if value.dtype is float32:  # all but the step counter
                    padded = np.append(value.numpy(), np.float32(0))
                    state[name] = tensor(padded[np.array(rows, np.int64)])

    def state_dict(self) -> dict[str, Any]:
        """``state`` by the parameter's number, and ``param_groups`` with numbers in place of parameters, as in PyTorch."""
        numbers = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = []
        for group in self.param_groups:
            settings = {k: v for k, v in group.items() if k != "params"}
            groups.append({**settings, "params": [numbers[p] for p in group["params"]]})
        return {"state": {numbers[p]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    @tape.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over settings and state, copied. StateError if the groups differ in size."""
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise StateError("the state has parameter groups of other sizes than this optimizer")
        parameters = [(p, g) for g in self.param_groups for p in g["params"]]
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in loaded.items() if k != "params"})
        for number, (parameter, group) in enumerate(parameters):
            loaded = state_dict["state"].get(number, state_dict["state"].get(str(number)))
            if loaded is None:
                self.state.pop(parameter, None)
                structure.changed()
                continue
            own = self._state_of(parameter, group)
            for name, value in own.items():
                source = loaded[name] if isinstance(loaded[name], Tensor) else tensor(loaded[name])
                value.copy_(source.reshape(value.shape))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013)."""

    kernel = optimizer_kernels.sgd

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **ignored: Any,
    ):
        _ignore(ignored)
        settings = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def slots_of(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("momentum", group["momentum"], 0.0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def numbers(self, group: Group) -> tuple[float, ...]:
        return group["momentum"], group["dampening"], group["weight_decay"], group["nesterov"], group["maximize"]


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient. ``amsgrad`` after Reddi, Kale and Kumar 2018."""

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **ignored: Any,
    ):
        _ignore(ignored)
        self.kernel = optimizer_kernels.adam_largest if amsgrad else optimizer_kernels.adam
        self.slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("eps", group["eps"], 0.0)
        for i, beta in enumerate(group["betas"]):
            _require(f"betas[{i}]", beta, 0.0, 1.0)
        if group["amsgrad"] is not self.defaults["amsgrad"]:
            raise ValueError("amsgrad is one setting for all groups of an optimizer")

    def numbers(self, group: Group) -> tuple[float, ...]:
        return *group["betas"], group["eps"], group["weight_decay"], self.decoupled, group["maximize"]


class AdamW(Adam):
    """Adam with weight decay applied to the parameter itself (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **ignored: Any,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **ignored)


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012); ``centered`` divides by the deviation of the gradient (Graves 2013)."""

    kernel = optimizer_kernels.rmsprop

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **ignored: Any,
    ):
        _ignore(ignored)
        settings = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        super().__init__(params, {"lr": lr, **settings, "maximize": maximize})

    def slots_of(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        velocity = "momentum_buffer" if group["momentum"] else None
        return "square_avg", velocity, "grad_avg" if group["centered"] else None

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for name in ("eps", "momentum", "alpha"):
            _require(name, group[name], 0.0)

    def numbers(self, group: Group) -> tuple[float, ...]:
        return (*[group[name] for name in ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")],)


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011)."""

    kernel = optimizer_kernels.adagrad
    slots = ("sum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **ignored: Any,
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

    def numbers(self, group: Group) -> tuple[float, ...]:
        return group["lr_decay"], group["eps"], group["weight_decay"], group["maximize"]
