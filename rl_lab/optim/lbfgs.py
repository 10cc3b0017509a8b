"""L-BFGS: a quasi-Newton method on the whole loss, for small problems without noise."""

from collections.abc import Callable
from typing import Any

from rl_lab.engine import tape
from rl_lab.engine.errors import StateError
from rl_lab.engine.launch import recorder
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.layout import cat
from rl_lab.optim.optimizer import Optimizer, Params

Evaluate = Callable[[float], tuple[float, Tensor, float]]
"""From a step length to the loss there, the flat gradient, and the slope along the direction."""


def _cubic_minimum(
    x1: float, f1: float, g1: float, x2: float, f2: float, g2: float, bounds: tuple[float, float] | None = None
) -> float:
    """Minimum of the cubic through two points with these values and slopes, within bounds (Nocedal and Wright 2006, 3.59)."""
    low, high = bounds or (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    if not square >= 0:
        return (low + high) / 2.0
    d2 = square**0.5
    if x1 <= x2:
        place = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        place = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(place, low), high)


def _strong_wolfe(
    evaluate: Evaluate,
    t: float,
    norm: float,
    f: float,
    g: Tensor,
    slope: float,
    tolerance_change: float,
    limit: int,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> tuple[float, Tensor, float, int]:
    """Line search for a step that fulfils the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6).

    ``norm`` is the largest element of the direction, ``limit`` the number of evaluations after the first. Returns the loss, the
    gradient, the step and the number of evaluations.
    """
    f_new, g_new, slope_new = evaluate(t)
    count = 1
    before = (0.0, f, g, slope)
    done = False
    steps = 0
    bracket: list[tuple[float, float, Tensor, float]] = []
    while steps < limit:
        now = (t, f_new, g_new, slope_new)
        if f_new > f + c1 * t * slope or (steps > 1 and f_new >= before[1]):
            bracket = [before, now]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket = [now]
            done = True
            break
        if slope_new >= 0:
            bracket = [before, now]
            break
        bounds = (t + 0.01 * (t - before[0]), t * 10)
        t = _cubic_minimum(before[0], before[1], before[3], t, f_new, slope_new, bounds)
        before = now
        f_new, g_new, slope_new = evaluate(t)
        count += 1
        steps += 1
    if steps == limit:
        bracket = [(0.0, f, g, slope), (t, f_new, g_new, slope_new)]
    if len(bracket) == 1:
        t, f_new, g_new, _ = bracket[0]
        return f_new, g_new, t, count

    little_progress = False
    low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
    while not done and steps < limit:
        left, right = bracket[0], bracket[1]
        if abs(right[0] - left[0]) * norm < tolerance_change:
            break
        t = _cubic_minimum(left[0], left[1], left[3], right[0], right[1], right[3])
        ends = (min(left[0], right[0]), max(left[0], right[0]))
        margin = 0.1 * (ends[1] - ends[0])
        if min(ends[1] - t, t - ends[0]) < margin:
            if little_progress or t >= ends[1] or t <= ends[0]:
                t = ends[1] - margin if abs(t - ends[1]) < abs(t - ends[0]) else ends[0] + margin
                little_progress = False
            else:
                little_progress = True
        else:
            little_progress = False
        f_new, g_new, slope_new = evaluate(t)
        count += 1
        steps += 1
        if f_new > f + c1 * t * slope or f_new >= bracket[low][1]:
            bracket[high] = (t, f_new, g_new, slope_new)
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
        else:
            if abs(slope_new) <= -c2 * slope:
                done = True
            elif slope_new * (bracket[high][0] - bracket[low][0]) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = (t, f_new, g_new, slope_new)
    t, f_new, g_new, _ = bracket[low]
    return f_new, g_new, t, count


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu and Nocedal 1989), with a fixed step or a line search for the strong Wolfe conditions.

    ``step`` needs a closure that clears the gradients, computes the loss, calls backward and returns the loss. The closure is called
    up to ``max_eval`` times (1.25 * max_iter unless given). ``history_size`` pairs of changes approximate the inverse Hessian. There is
    one parameter group. A compiled function that calls ``step`` runs eagerly, because the number of evaluations depends on the losses.
    Raises ValueError for several groups or an unknown ``line_search_fn``.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"line_search_fn must be None or 'strong_wolfe', got {line_search_fn!r}")
        settings: dict[str, Any] = {"max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval}
        settings |= {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size}
        super().__init__(params, {"lr": lr, **settings, "line_search_fn": line_search_fn})
        if len(self.param_groups) != 1:
            raise ValueError(f"LBFGS takes one group of parameters, got {len(self.param_groups)}")
        self._memory: dict[str, Any] = {"func_evals": 0, "n_iter": 0}

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _flat_gradient(self) -> Tensor:
        with tape.no_grad():
            return cat([(p * 0.0 if p.grad is None else p.grad).reshape(-1) for p in self._params])

    def _move(self, step: float, direction: Tensor) -> None:
        with tape.no_grad():
            start = 0
            for p in self._params:
                size = p.numel()
                p.add_(direction[start : start + size].reshape(p.shape), alpha=step)
                start += size

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """Take up to ``max_iter`` steps; return the loss before the first. Raises StateError without a closure."""
        if closure is None:
            raise StateError("LBFGS.step() needs a closure that computes the loss and its gradients again")
        if (recording := recorder()) is not None:
            recording.give_up("it calls LBFGS.step() (compile the closure instead)")
        with tape.no_grad():
            return self._step(closure)

    def _loss(self, closure: Callable[[], Tensor]) -> Tensor:
        with tape.enable_grad():
            return closure()

    def _step(self, closure: Callable[[], Tensor]) -> Tensor:
        group = self.param_groups[0]
        memory = self._memory
        rate = float(group["lr"])
        change = group["tolerance_change"]
        search = group["line_search_fn"]
        first_loss = self._loss(closure)
        loss = float(first_loss)
        evaluations = 1
        memory["func_evals"] += 1
        gradient = self._flat_gradient()
        if float(gradient.abs().max()) <= group["tolerance_grad"]:
            return first_loss
        iterations = 0
        while iterations < group["max_iter"]:
            iterations += 1
            memory["n_iter"] += 1
            direction = self._direction(gradient, group["history_size"])
            memory["previous_gradient"] = gradient.clone()
            loss_before = loss
            t = min(1.0, 1.0 / float(gradient.abs().sum())) * rate if memory["n_iter"] == 1 else rate
            slope = float((gradient * direction).sum())
            if slope > -change:
                break
            tried = 0
            if search is None:
                self._move(t, direction)
                if iterations != group["max_iter"]:
                    loss = float(self._loss(closure))
                    gradient = self._flat_gradient()
                    tried = 1
            else:
                start = [p.detach().clone() for p in self._params]
                evaluate = self._along(closure, start, direction)
                norm = float(direction.abs().max())
                left = group["max_eval"] - evaluations
                loss, gradient, t, tried = _strong_wolfe(evaluate, t, norm, loss, gradient, slope, change, left)
                self._move(t, direction)
            memory["direction"] = direction
            memory["t"] = t
            evaluations += tried
            memory["func_evals"] += tried
            if iterations == group["max_iter"] or evaluations >= group["max_eval"]:
                break
            if float(gradient.abs().max()) <= group["tolerance_grad"] or float((direction * t).abs().max()) <= change:
                break
            if abs(loss - loss_before) < change:
                break
        return first_loss

    def _along(self, closure: Callable[[], Tensor], start: list[Tensor], direction: Tensor) -> Evaluate:
        """The loss, gradient and slope as functions of the step length; each call restores the parameters to ``start``."""

        def evaluate(t: float) -> tuple[float, Tensor, float]:
            self._move(t, direction)
            loss = float(self._loss(closure))
            gradient = self._flat_gradient()
            for p, value in zip(self._params, start, strict=True):
                p.copy_(value)
            return loss, gradient, float((gradient * direction).sum())

        return evaluate

    def _direction(self, gradient: Tensor, history: int) -> Tensor:
        """The negative gradient times the inverse Hessian, by the two loops (Nocedal and Wright 2006, algorithm 7.4)."""
        memory = self._memory
        if memory["n_iter"] == 1:
            memory["changes"] = []
            memory["steps"] = []
            memory["scale"] = 1.0
            return -gradient
        y = gradient - memory["previous_gradient"]
        s = memory["direction"] * memory["t"]
        curvature = float((y * s).sum())
        if curvature > 1e-10:
            if len(memory["changes"]) == history:
                memory["changes"].pop(0)
                memory["steps"].pop(0)
            memory["changes"].append(y)
            memory["steps"].append(s)
            memory["scale"] = curvature / float((y * y).sum())
        pairs = list(zip(memory["changes"], memory["steps"], strict=True))
        inverses = [1.0 / float((y * s).sum()) for y, s in pairs]
        direction = -gradient
        weights = []
        for (y, s), inverse in zip(reversed(pairs), reversed(inverses), strict=True):
            weight = float((s * direction).sum()) * inverse
            weights.append(weight)
            direction = direction - y * weight
        direction = direction * memory["scale"]
        for (y, s), inverse, weight in zip(pairs, inverses, reversed(weights), strict=True):
            direction = direction + s * (weight - float((y * direction).sum()) * inverse)
        return direction

    # --- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {0: memory}, "param_groups": ...}; the memory belongs to all parameters together, as in PyTorch."""
        return {**super().state_dict(), "state": {0: dict(self._memory)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy settings and memory from ``state_dict``. Raises StateError if its groups have other numbers of parameters."""
        super().load_state_dict({**state_dict, "state": {}})
        memory = state_dict["state"].get(0, state_dict["state"].get("0", {}))
        self._memory = {"func_evals": 0, "n_iter": 0}
        for name, value in memory.items():
            if isinstance(value, Tensor):
                self._memory[name] = value.clone()
            else:
                self._memory[name] = [part.clone() for part in value] if isinstance(value, (list, tuple)) else value
