"""Adafactor: second moments of matrices kept as one number per row and one per column."""

from typing import Any

from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import minimum, where
from rl_lab.engine.ops.creation import zeros
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.multi_tensor import address_table
from rl_lab.optim.optimizer import Group, Optimizer, Params, Row, _ignore, _require

_EPSILON = 2.0**-23  # between 1 and the next float32


class Adafactor(Optimizer):
    """Adafactor (Shazeer and Stern 2018, algorithm 5).

    The second moment decays by 1 - t^beta2_decay at step t. The step of a parameter is its root mean square, at least ``eps[1]``, times
    min(lr, 1 / sqrt(t)), and is divided by the root mean square of the update over ``d`` if that is above 1. ``eps[0]`` None is the
    precision of float32. ``weight_decay`` is decoupled. Raises ValueError if a setting is out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **ignored: object,
    ):
        _ignore(ignored)
        settings: dict[str, Any] = {"lr": lr, "beta2_decay": beta2_decay, "eps": tuple(eps), "d": d}
        super().__init__(params, {**settings, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("d", group["d"], 1.0)
        for number, value in enumerate(group["eps"]):
            _require(f"eps[{number}]", 0.0 if value is None else value, 0.0)
        if not group["beta2_decay"] <= 0.0:
            raise ValueError(f"beta2_decay must not be positive, got {group['beta2_decay']}")

    def new_state(self, parameter: Tensor, group: Group) -> dict[str, Tensor]:
        if parameter.dim() < 2:
            return {"variance": zeros(parameter.shape)}
        *lead, rows, columns = parameter.shape
        return {"row_var": zeros(*lead, rows, 1), "col_var": zeros(*lead, 1, columns)}

    def _change(self, rows: list[Row], group: Group) -> None:
        table, _ = address_table(rows)
        launch(optimizer_kernels.advance, (table,), (len(rows),))
        first, second = group["eps"]
        epsilon = _EPSILON if first is None else first
        for p, gradient, *_, step in rows:
            state = self.state[p]
            count = step.float().reshape(())
            share = count ** group["beta2_decay"]
            alpha = (p.norm() / p.numel() ** 0.5).clamp(min=second) * minimum(group.rate, count.rsqrt())
            if group["weight_decay"]:
                p.mul_(1.0 - group.rate * group["weight_decay"])
            g = -gradient if group["maximize"] else gradient
            if p.dim() < 2:
                variance = state["variance"].lerp_(g * g, share)
            else:
                row_var, col_var = state["row_var"], state["col_var"]
                row_var.lerp_((g * g).mean(-1, keepdim=True), share)
                col_var.lerp_((g * g).mean(-2, keepdim=True), share)
                variance = matmul(row_var, col_var) / row_var.mean(-2, keepdim=True).clamp(min=epsilon)
            update = variance.clamp(min=epsilon * epsilon).rsqrt() * g
            size = update.norm() / (update.numel() ** 0.5 * group["d"])
            p.sub_(update * (alpha / where(size > 1.0, size, 1.0)))  # a NaN stays where it is: it is not larger
