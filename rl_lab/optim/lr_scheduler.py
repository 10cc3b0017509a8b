"""Learning-rate schedules with PyTorch's names and values.

A schedule sets ``group["lr"]`` of every parameter group. A recorded optimiser step reads the learning rate at every replay, so call
``scheduler.step()`` outside the recorded function. Below, n is the number of steps so far and "initial rate" is the rate of the group
when the schedule was created.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rl_lab.engine.launch import recorder
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.optim.optimizer import Optimizer

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


class LRScheduler:
    """Base class of the schedules. The constructor sets the first rates and each `step` sets the next ones.

    ``last_epoch`` counts the steps. A value other than -1 continues an earlier schedule: raises KeyError unless every group has its
    ``initial_lr`` then.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a schedule needs an optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError("last_epoch continues a schedule, but a group of the optimizer has no 'initial_lr'")
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._last_lr: list[float] = []
        self.step()

    def get_lr(self) -> list[float]:
        """Learning rate of each group after ``last_epoch`` steps; defined by subclasses."""
        raise TypeError(f"{type(self).__name__} has no get_lr()")

    def get_last_lr(self) -> list[float]:
        """Learning rate of each group, as the last step set it."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the next learning rates, or with ``epoch`` the rates after that many steps from the start.

        A compiled function that calls this runs eagerly: a replay would always set the same rate.
        """
        if (recording := recorder()) is not None:
            recording.give_up(f"it calls {type(self).__name__}.step() (call that outside)")
        if epoch is not None:
            for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = base
        for number in [self.last_epoch + 1] if epoch is None else range(epoch + 1):
            self.last_epoch = number
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """State of the schedule, without the optimiser and the functions."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer" and not key.startswith("lr_lambda")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the dict returned by `state_dict`."""
        self.__dict__.update(state_dict)


_LRScheduler = LRScheduler


class LambdaLR(LRScheduler):
    """initial rate * lr_lambda(n). ``lr_lambda`` is one function, or a list with one function per group.

    Raises ValueError if the list has another length.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1
    ):
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise ValueError(f"expected {count} functions, one per group, got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class MultiplicativeLR(LambdaLR):
    """Multiply the rate by lr_lambda(n) at every step."""

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._rates
        return [rate * factor(self.last_epoch) for rate, factor in zip(self._rates, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """Multiply the rate by ``gamma`` every ``step_size`` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        change = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return [rate * self.gamma if change else rate for rate in self._rates]


class MultiStepLR(LRScheduler):
    """Multiply the rate by ``gamma`` at each milestone (a number of steps)."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [rate * self.gamma ** self.milestones[self.last_epoch] for rate in self._rates]


class ConstantLR(LRScheduler):
    """Multiply the rate by ``factor`` for the first ``total_iters`` steps. Raises ValueError unless 0 <= factor <= 1."""

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1):
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"factor must be in [0, 1], got {factor}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates]
        return [rate / self.factor if self.last_epoch == self.total_iters else rate for rate in self._rates]


class LinearLR(LRScheduler):
    """Multiply the rate by a factor that moves linearly from ``start_factor`` to ``end_factor`` in ``total_iters`` steps.

    Raises ValueError unless 0 < start_factor <= 1 and 0 <= end_factor <= 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
            raise ValueError(f"start_factor must be in (0, 1] and end_factor in [0, 1], got {start_factor} and {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates]
        if self.last_epoch > self.total_iters:
            return self._rates
        change = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * change
        return [rate * (1.0 + change / before) for rate in self._rates]


class PolynomialLR(LRScheduler):
    """initial rate * (1 - n / total_iters)^power, and 0 after ``total_iters`` steps."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1):
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch > self.total_iters:
            return self._rates
        left = (1.0 - self.last_epoch / self.total_iters) / (1.0 - (self.last_epoch - 1) / self.total_iters)
        return [rate * left**self.power for rate in self._rates]


class ExponentialLR(LRScheduler):
    """Multiply the rate by ``gamma`` at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._rates if self.last_epoch == 0 else [rate * self.gamma for rate in self._rates]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate down to ``eta_min`` in ``T_max`` steps (Loshchilov and Hutter 2017, equation 5).

    After ``T_max`` steps the rate rises again along the cosine.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        low = self.eta_min
        if step == 0:
            return self._rates
        if (step - 1 - self.T_max) % (2 * self.T_max) == 0:
            up = (1.0 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - low) * up for base, rate in zip(self.base_lrs, self._rates, strict=True)]
        ratio = (1.0 + math.cos(math.pi * step / self.T_max)) / (1.0 + math.cos(math.pi * (step - 1) / self.T_max))
        return [ratio * (rate - low) + low for rate in self._rates]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that restarts at the initial rate (Loshchilov and Hutter 2017, equation 5).

    The first cosine takes ``T_0`` steps, each further one ``T_mult`` times as many as the one before. Raises ValueError unless both
    are positive.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        if T_0 < 1 or T_mult < 1 or int(T_0) != T_0 or T_mult != int(T_mult):
            raise ValueError(f"T_0 and T_mult must be positive integers, got {T_0} and {T_mult}")
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        length = self.T_0
        while step >= length:
            step -= length
            length *= self.T_mult
        low = self.eta_min
        share = (1.0 + math.cos(math.pi * step / length)) / 2
        return [low + (base - low) * share for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """One-cycle policy (Smith and Topin 2018): the rate rises to ``max_lr``, then falls, while the momentum falls, then rises.

    The rate starts at max_lr / div_factor, reaches ``max_lr`` after the share ``pct_start`` of ``total_steps``, and ends at
    max_lr / div_factor / final_div_factor. ``three_phase`` adds a symmetric descent before the last phase. ``total_steps`` may be given
    as ``epochs`` * ``steps_per_epoch``. Raises ValueError if a setting is missing or out of range, or after ``total_steps`` steps.

    The momentum (or beta1) is a constant of a recorded step, so with ``cycle_momentum`` a compiled function records again at every step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float] | tuple[float, ...],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or not 0.0 <= pct_start <= 1.0 or anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                "OneCycleLR needs total_steps above 0, pct_start in [0, 1] and anneal_strategy 'cos' or 'linear', got "
                f"{total_steps}, {pct_start} and {anneal_strategy!r}"
            )
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        rise = float(pct_start * total_steps) - 1
        self.phases: list[tuple[float, int, int]]
        if three_phase:
            self.phases = [(rise, 0, 1), (2 * rise, 1, 0), (total_steps - 1, 0, 2)]
        else:
            self.phases = [(rise, 0, 1), (total_steps - 1, 1, 2)]
        tops: list[float] = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * len(optimizer.param_groups)
        self.corners = [(top / div_factor, top, top / div_factor / final_div_factor) for top in tops]
        self.momenta = (max_momentum, base_momentum, max_momentum)
        if last_epoch == -1:
            for group, corner in zip(optimizer.param_groups, self.corners, strict=True):
                group["lr"] = corner[0]
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        """Interpolate from ``start`` (share 0) to ``end`` (share 1)."""
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"step {step} is beyond the cycle of {self.total_steps} steps: give OneCycleLR more total_steps")
        number = min(sum(step > end for end, _, _ in self.phases), len(self.phases) - 1)
        end, start_corner, end_corner = self.phases[number]
        begin = self.phases[number - 1][0] if number else 0.0
        share = (step - begin) / (end - begin)
        if self.cycle_momentum:
            momentum = self._between(self.momenta[start_corner], self.momenta[end_corner], share)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return [self._between(corner[start_corner], corner[end_corner], share) for corner in self.corners]


class SequentialLR(LRScheduler):
    """Run several schedules one after the other; schedule i + 1 starts after ``milestones[i]`` steps.

    Raises ValueError unless there is one milestone less than schedules.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ):
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, got {len(milestones)}")
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        self._schedulers = list(schedulers)
        self.milestones = list(milestones)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            scheduler.last_epoch -= 1
        self._schedulers[0].step()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch += 1
        number = bisect_right(self.milestones, self.last_epoch)
        if number > 0 and self.milestones[number - 1] == self.last_epoch:
            self._schedulers[number].step(0)
        else:
            self._schedulers[number].step()
        self._last_lr = self._schedulers[number].get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        own = {key: value for key, value in self.__dict__.items() if key not in ("optimizer", "_schedulers")}
        return {**own, "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        for scheduler, part in zip(self._schedulers, state.pop("_schedulers"), strict=True):
            scheduler.load_state_dict(part)
        self.__dict__.update(state)


class ChainedScheduler(LRScheduler):
    """Several schedules of one optimiser at once: each step advances all of them, so that their factors multiply.

    Raises ValueError if there is no schedule, or if they belong to different optimisers.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self._schedulers = list(schedulers)
        if not self._schedulers:
            raise ValueError("ChainedScheduler needs at least one schedule")
        self.optimizer = self._schedulers[0].optimizer if optimizer is None else optimizer
        if any(scheduler.optimizer is not self.optimizer for scheduler in self._schedulers):
            raise ValueError("the schedules of a ChainedScheduler must belong to one optimizer")
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Advance every schedule by one step. Raises TypeError if ``epoch`` is given: a chain cannot jump to a step."""
        if epoch is not None:
            raise TypeError("ChainedScheduler.step() takes no epoch")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"_last_lr": self._last_lr, "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for scheduler, part in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(part)
        self._last_lr = state_dict["_last_lr"]


class CyclicLR(LRScheduler):
    """Triangles between ``base_lr`` and ``max_lr`` (Smith 2017): up in ``step_size_up`` steps, down in ``step_size_down``.

    ``mode`` "triangular" keeps the height, "triangular2" halves it after each cycle, "exp_range" multiplies it by gamma^n. ``scale_fn``
    replaces the mode: a function of the cycle's number, or with ``scale_mode`` "iterations" of n, that gives the height's factor. With
    ``cycle_momentum`` the momentum (or beta1) moves the other way, between ``max_momentum`` and ``base_momentum``. Raises ValueError for
    an unknown mode, and if ``cycle_momentum`` is used with an optimiser without momentum.

    The momentum is a constant of a recorded step, so with ``cycle_momentum`` a compiled function records again at every step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ):
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(f"mode must be 'triangular', 'triangular2' or 'exp_range', got {mode!r}")
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ValueError("cycle_momentum=True needs an optimizer with momentum or betas: pass cycle_momentum=False")
        self.optimizer = optimizer
        self.max_lrs = self._each("max_lr", max_lr)
        first_rates = self._each("base_lr", base_lr)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, first_rates, strict=True):
                group["lr"] = group["initial_lr"] = rate
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn = scale_fn
        self.scale_mode = "iterations" if mode == "exp_range" and scale_fn is None else scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums = self._each("base_momentum", base_momentum)
            self.max_momentums = self._each("max_momentum", max_momentum)
        super().__init__(optimizer, last_epoch)

    def _each(self, name: str, value: float | Sequence[float]) -> list[float]:
        """One value for each parameter group."""
        count = len(self.optimizer.param_groups)
        values = list(value) if isinstance(value, (list, tuple)) else [value] * count
        if len(values) != count:
            raise ValueError(f"{name} must be a number or a list of {count}, one per group, got {len(values)} values")
        return values  # type: ignore[return-value]

    def scale_fn(self, x: float) -> float:
        """The factor of the triangle's height: of the cycle's number (from 1), or of n."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        return {"triangular": 1.0, "triangular2": 1 / (2.0 ** (x - 1)), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        cycle = math.floor(1 + step / self.total_size)
        x = 1.0 + step / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else step)
        if self.cycle_momentum:
            ends = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in ends:
                momentum = high - (high - low) * height
                if "momentum" in group:
                    group["momentum"] = momentum
                else:
                    group["betas"] = (momentum, *group["betas"][1:])
        return [base + (top - base) * height for base, top in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """State of the schedule, without the optimiser and the function."""
        return {key: value for key, value in super().state_dict().items() if key != "_scale_fn"}


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by ``factor`` when a metric has not improved for more than ``patience`` steps.

    ``mode`` "min" or "max" says what is better; a better metric differs from the best so far by more than ``threshold``, relative to it
    (``threshold_mode`` "rel") or absolute ("abs"). After a change ``cooldown`` steps do not count. The rate never falls below
    ``min_lr``, and changes below ``eps`` are left out. Raises ValueError for an unknown mode or a factor of 1 or more.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        if factor >= 1.0:
            raise ValueError(f"factor must be below 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"mode must be 'min' or 'max' and threshold_mode 'rel' or 'abs', got {mode!r} and {threshold_mode!r}"
            )
        count = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * count
        if len(self.min_lrs) != count:
            raise ValueError(f"min_lr must be a number or a list of {count}, one per group, got {len(self.min_lrs)} values")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._rates
        self._reset()

    def _reset(self) -> None:
        """Forget the metrics seen so far."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether steps do not count yet after a change."""
        return self.cooldown_counter > 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether metric ``a`` is better than ``best`` by more than the threshold."""
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            limit = best * (1.0 + sign * self.threshold)
        else:
            limit = best + sign * self.threshold
        return a < limit if self.mode == "min" else a > limit

    def step(self, metrics: float | Tensor, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take the next metric, a number or a tensor of one element. A compiled function that calls this runs eagerly."""
        if (recording := recorder()) is not None:
            recording.give_up("it calls ReduceLROnPlateau.step() (call that outside)")
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, low)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates
